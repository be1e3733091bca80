"""The blocking facade: a session in a thread of its own, against a venue in another."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import hlconn
from hlconn import Closed, ConfigError, LinkDown, Order, Side, TradingConfig
from hlconn.trading.orders import OrderEvent, OrderState

ORDER = Order("BTC", Side.BUY, 98450, "0.01")

pytestmark = pytest.mark.venue(seed=5, traders=False, instant=True, coins=("BTC",))


def connect(venue: Any, folder: Path, **more: Any) -> hlconn.blocking.BlockingClient:
    trading = TradingConfig(nonce_directory=str(folder))
    key = venue.account(usdc=1_000_000).key
    return hlconn.blocking.connect(venue.endpoints, key=key, trading=trading, **more)


def test_orders_without_async(venue: Any, tmp_path: Path) -> None:
    with connect(venue, tmp_path, on_exit="cancel") as hl:
        owner = hl.trader.account
        ack = hl.trader.place(ORDER)
        assert venue.info(type="orderStatus", user=owner, oid=ack.oid)["order"]["status"] == "open"
        assert [order.oid for order in hl.trader.orders] == [ack.oid]
        assert hl.trader.cancel("BTC", ack.oid).canceled
        ticket = hl.trader.submit(ORDER)
        assert ticket.result().oid == ticket.settled().oid
        assert ticket.done
        assert "Blocking" in repr(ticket)
        ticket.burn()
        assert "place" in dir(hl.trader)
        with pytest.raises(AttributeError):
            _ = hl.trader._nonces
        with pytest.raises(hlconn.InvalidOrder):
            hl.trader.place(Order("BTC", Side.BUY, "1.12345678", 1))
    assert venue.info(type="openOrders", user=owner) == []
    with pytest.raises(Closed):
        hl.trader.place(ORDER)
    assert not [thread for thread in threading.enumerate() if thread.name == "hlconn blocking"]


def test_what_the_session_raises_comes_out_here(venue: Any, tmp_path: Path) -> None:
    class Mine(Exception):
        pass

    def raises(order: object) -> None:
        raise Mine

    with pytest.raises(Mine), connect(venue, tmp_path) as hl:
        hl.trader.on_order(raises)
        hl.trader.submit(ORDER)
        hl._thread.join()
        hl.trader.place(ORDER)
    nowhere = hlconn.Endpoints("http://127.0.0.1:1", "ws://127.0.0.1:1/ws", hlconn.Network.LOCAL)
    with pytest.raises(LinkDown), hlconn.blocking.connect(nowhere, timeout_s=0.1):
        raise AssertionError("the body must not run")


def test_a_callback_is_told_not_to_wait_for_itself(venue: Any, tmp_path: Path) -> None:
    heard: list[BaseException] = []

    with connect(venue, tmp_path) as hl:

        def waits(order: object) -> None:
            try:
                hl.trader.place(ORDER)
            except ConfigError as exc:
                heard.append(exc)

        hl.trader.on_order(waits)
        hl.trader.place(ORDER)
    assert "must not wait" in str(heard[0])


@pytest.mark.venue(seed=3, speed=20.0, coins=("BTC",))
def test_a_book_is_a_copy(venue: Any) -> None:
    with hlconn.blocking.connect(venue.endpoints) as hl:
        book = hl.book("BTC")
        assert book.best_bid < book.best_ask
        assert not book.stale
        with pytest.raises(ConfigError, match="no key"):
            _ = hl.trader


def test_orders_are_copies_that_the_sessions_thread_does_not_change(venue: Any, tmp_path: Path) -> None:
    with connect(venue, tmp_path) as hl:
        ack = hl.trader.place(ORDER)
        (before,) = hl.trader.orders
        assert before == hl.trader.order(ack.oid)
        assert (before.state, before.may_be_live, before.oid) == (OrderState.OPEN, True, ack.oid)
        hl.trader.cancel("BTC", ack.oid)
        assert before.may_be_live
        (after,) = hl.trader.ended_orders
        assert (after.state, after.cloid) == (OrderState.CANCELED, before.cloid)
        assert hl.trader.order(1) is None


def test_events_are_read_by_a_plain_for_and_end_with_the_session(venue: Any, tmp_path: Path) -> None:
    with connect(venue, tmp_path) as hl:
        events = hl.trader.events()
        ack = hl.trader.place(ORDER)
        found = next(event for event in events if isinstance(event, OrderEvent))
        order: Any = found.order
        assert (type(order), order.oid) == (hlconn.blocking.OrderCopy, ack.oid)
    assert list(events) == []


def test_a_result_that_comes_as_the_wait_runs_out_is_the_result(
    venue: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Future[int]):
        def result(self, timeout: float | None = None) -> int:
            if timeout is not None:
                self.set_result(7)
                raise TimeoutError
            return super().result()

    async def nothing() -> int:
        return 7

    def late(coroutine: Any, loop: object) -> Late:
        coroutine.close()
        return Late()

    with connect(venue, tmp_path) as hl:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "run_coroutine_threadsafe", late)
            assert hl.run(nothing()) == 7

        async def its_own() -> None:
            raise TimeoutError("its own")

        with pytest.raises(TimeoutError, match="its own"):
            hl.run(its_own())
