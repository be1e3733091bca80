"""Candles of the trades a test says there were: values, no gaps, and months of the calendar."""

from __future__ import annotations

import datetime
import itertools
import random
from decimal import Decimal
from typing import Any

import pytest

from hlconn.errors import ConfigError
from hlconn.sim.candles import INTERVALS, Candles
from hlconn.sim.markets import markets_named
from hlconn.sim.orders import Trade

MARKET = markets_named(("SOL",))["SOL"]
START = 1_750_000_000_000


def ms(*when: int) -> int:
    return int(datetime.datetime(*when, tzinfo=datetime.UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]


def trade(time_ms: int, px: str, sz: str = "1") -> Trade:
    return Trade("B", int(Decimal(px) * 10**4), int(Decimal(sz) * 100), time_ms, "0x", 1, "0xa", "0xb")


def candles_of(*trades: Trade) -> Candles:
    candles = Candles(MARKET)
    for each in trades:
        candles.add([each])
    return candles


def test_a_candle_is_what_its_trades_were() -> None:
    minute = START - START % 60_000
    candles = candles_of(
        trade(minute, "150", "1.5"),
        trade(minute + 5, "151.25"),
        trade(minute + 9, "149"),
        trade(minute + 59_999, "150.5"),
    )
    assert candles.last("1m", minute + 59_999) == {
        "t": minute,
        "T": minute + 59_999,
        "s": "SOL",
        "i": "1m",
        "o": "150.0",
        "c": "150.5",
        "h": "151.25",
        "l": "149.0",
        "v": "4.5",
        "n": 4,
    }


def test_there_is_no_candle_before_the_first_trade() -> None:
    candles = Candles(MARKET)
    assert candles.last("1m", START) is None
    assert candles.between("1m", 0, 1 << 60, START) == []
    candles.add([trade(START, "150")])
    assert [c["n"] for c in candles.between("1m", 0, START, START)] == [1]


@pytest.mark.parametrize("interval", INTERVALS)
def test_candles_follow_each_other_without_a_gap_and_hold_every_trade(interval: str) -> None:
    rng = random.Random(f"candles {interval}")
    length = INTERVALS[interval] or 30 * 86_400_000
    now, trades = START, []
    for _ in range(300 if length < 86_400_000 else 20):  # a long gap is filled with a candle of every minute
        now += int(rng.expovariate(1.5 / length)) + 1
        trades.append(trade(now, f"{rng.randint(14_000, 16_000) / 100:.2f}", f"{rng.randint(1, 500) / 100:.2f}"))
    end = now + 3 * length
    found = candles_of(*trades).between(interval, 0, end, end)
    assert found[0]["t"] <= trades[0].time_ms <= found[0]["T"]
    assert found[-1]["t"] <= end <= found[-1]["T"]
    for before, after in itertools.pairwise(found):
        assert after["t"] == before["T"] + 1
    assert any(c["n"] == 0 for c in found)
    previous: dict[str, Any] | None = None
    for candle in found:
        inside = [t for t in trades if candle["t"] <= t.time_ms <= candle["T"]]
        assert candle["n"] == len(inside)
        prices = [Decimal(MARKET.px_text(t.px)) for t in inside] or [Decimal(previous["c"]) if previous else Decimal(0)]
        values = [Decimal(candle[key]) for key in "ohlc"]
        assert values == [prices[0], max(prices), min(prices), prices[-1]]
        assert Decimal(candle["v"]) == sum(Decimal(MARKET.sz_text(t.sz)) for t in inside)
        previous = candle
    assert sum(c["n"] for c in found) == len(trades)


def test_a_month_is_one_of_the_calendar() -> None:
    candles = candles_of(trade(ms(2024, 2, 29, 12), "150"))
    found = candles.between("1M", 0, ms(2025, 3, 1), ms(2025, 3, 1))
    starts = [ms(2024, month, 1) for month in range(2, 13)] + [ms(2025, month, 1) for month in range(1, 4)]
    assert [c["t"] for c in found] == starts
    assert found[0]["T"] == ms(2024, 3, 1) - 1


def test_a_week_is_whole_and_a_day_begins_at_midnight() -> None:
    candles = candles_of(trade(ms(2025, 6, 18, 13, 30), "150"))
    day, week = (candles.last(span, ms(2025, 6, 18, 14)) for span in ("1d", "1w"))
    assert day is not None
    assert week is not None
    assert (day["t"], day["T"]) == (ms(2025, 6, 18), ms(2025, 6, 19) - 1)
    assert week["T"] - week["t"] + 1 == 7 * 86_400_000
    assert week["t"] <= day["t"] <= day["T"] <= week["T"]


def test_asked_for_a_span_they_are_those_that_touch_it() -> None:
    minute = START - START % 60_000
    candles = candles_of(*(trade(minute + 60_000 * n, "150") for n in range(10)))
    now = minute + 600_000

    def asked(start: int, end: int) -> list[int]:
        return [(c["t"] - minute) // 60_000 for c in candles.between("1m", start, end, now)]

    assert asked(minute + 120_000, minute + 240_000) == [2, 3, 4]
    assert asked(minute + 179_999, minute + 180_000) == [2, 3]
    assert asked(minute + 180_000, minute + 239_999) == [3]
    assert asked(now, now + 1) == [10]  # the one that is going on, without a trade yet
    assert asked(now + 60_000, now + 120_000) == []


def test_a_made_up_past_ends_before_now_and_is_the_same_for_the_same_seed() -> None:
    now = START - START % 60_000 + 30_000
    rows = []
    for seed in (1, 1, 2):
        candles = Candles(MARKET, kept=700)
        candles.invent(random.Random(seed), 600, now, 150 * 10**4)
        rows.append(candles.between("1m", 0, now, now))
    assert rows[0] == rows[1] != rows[2]
    minute = now - now % 60_000
    assert [row["t"] for row in rows[0]] == list(range(minute - 600 * 60_000, minute + 1, 60_000))
    assert rows[0][-1]["n"] == 0, "of now there is the close of before"
    assert sum(row["n"] > 0 for row in rows[0]) > 400
    with pytest.raises(ConfigError, match="traded already"):
        candles.invent(random.Random(1), 600, now, 150 * 10**4)


def test_the_newest_candles_are_kept() -> None:
    candles = Candles(MARKET, kept=100)
    candles.invent(random.Random(1), 600, START, 150 * 10**4)
    assert len(candles.between("1m", 0, START, START)) == 100
    assert candles.between("1m", 0, START, START)[-1]["T"] >= START
    assert len(candles.between("1h", 0, START, START)) == 11
