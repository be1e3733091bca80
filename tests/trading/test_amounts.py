"""Positions and balances are told of what was asked for, and each fill is in them once."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fake_wire import Desk, fast_config, run
from order_news import USER, fill, order, row

from hlconn import ConfigError, NotSent, Order, Side
from hlconn.config import TradingConfig
from hlconn.trading.orders import OrderTable

TSLA: dict[str, Any] = {"coin": "xyz:TSLA"}


def short_tesla(desk: Desk) -> None:
    """The venue holds -4 in xyz:TSLA, and nothing else."""

    def state(query: dict[str, Any]) -> Any:
        held = [{"position": {"coin": "xyz:TSLA", "szi": "-4", "entryPx": "9"}}] if query.get("dex") == "xyz" else []
        return {"assetPositions": held, "time": desk.wire.venue_ms}

    desk.wire.info["clearinghouseState"] = state


def test_a_dex_is_looked_at_once_a_fill_or_an_order_of_it_was_heard_of(tmp_path: Path) -> None:
    async def work(news: str, number: int) -> None:
        async with Desk(tmp_path / str(number), fast_config()) as desk:
            short_tesla(desk)
            if news == "a fill of the past":
                old = {"user": USER, "isSnapshot": True, "fills": [fill(5, "3", 77, time=1, **TSLA)]}
                desk.tell("userFills", old)
            elif news == "an order placed elsewhere":
                told = {"order": row(5, order(cloid=None), **TSLA), "status": "open", "statusTimestamp": 1}
                desk.tell("orderUpdates", [told])
            else:
                desk.trader.submit(Order("xyz:TSLA", Side.BUY, 9, 4))
            assert desk.trader.positions == {}, "a dex that was never looked at"
            await desk.wire.step(1)
            assert {coin: each.szi for coin, each in desk.trader.positions.items()} == {"xyz:TSLA": Decimal(-4)}
            asked = [(each["type"], each.get("dex")) for each in desk.wire.asked]
            assert ("frontendOpenOrders", "xyz") in asked

    for number, news in enumerate(("a fill of the past", "an order placed elsewhere", "an order of ours")):
        run(work(news, number))


def test_closing_a_position_on_a_dex_that_was_not_looked_at_asks_for_it_first(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            short_tesla(desk)
            closing = asyncio.create_task(desk.trader.close("xyz:TSLA"))
            await desk.wire.step()
            with pytest.raises(NotSent, match="live book"):  # there is something to close, and no book in this test
                await closing

    run(work())


SPOT_FILL: dict[str, Any] = {"coin": "@107"}
HYPE = {"balances": [{"coin": "HYPE", "total": "3"}]}


def spot_table() -> OrderTable:
    return OrderTable(tokens_of=lambda coin: ("HYPE", "USDC") if coin == "@107" else None)


def test_first_balances_around_a_fill_are_asked_for_anew() -> None:
    table = spot_table()
    table.on_fills([fill(5, "3", 1, time=1005, **SPOT_FILL)])
    assert table.balances == {}, "nothing was asked for"
    assert not table.on_balances(1000, HYPE, 1010)
    assert table.balances == {}
    assert table.on_balances(1020, HYPE, 1030)
    assert table.balances == {"HYPE": Decimal(3)}


def test_a_fill_heard_of_later_that_first_balances_may_include_is_not_counted_twice() -> None:
    table = spot_table()
    assert table.on_balances(1000, HYPE, 1010)
    assert table.to_compare == ""
    table.on_fills([fill(5, "3", 1, time=1005, **SPOT_FILL)])
    assert table.to_compare
    assert table.balances == {}
    assert table.on_balances(1020, HYPE, 1030)
    assert table.balances == {"HYPE": Decimal(3)}


@pytest.mark.parametrize("wrong", [{"dexs": ()}, {"dexs": "xyz"}, {"batch": 0.5}, {"batch": 0}])
def test_settings_that_would_look_at_nothing_or_send_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TradingConfig(**wrong)
