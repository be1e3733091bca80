"""Bytes in memory to values, side by side: one message of each hot channel, and each answer checked."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import orjson
import pytest
from messages import BBOS, BOOKS, COUNT, TRADES
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

import hlconn

Messages = list[bytes]
Levels = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def each(function: Callable[[bytes], object], messages: Messages) -> Callable[[], None]:
    """What is timed: the function on every message in turn."""

    def run() -> None:
        for message in messages:
            function(message)

    return run


def expected(message: bytes) -> list[list[list[float]]]:
    """px, sz, n of each side: the oracle, by orjson and float."""
    data = orjson.loads(message)["data"]
    sides = data["levels"] if "levels" in data else [[level] for level in data["bbo"]]
    return [[[float(level[key]) for level in side] for side in sides] for key in ("px", "sz", "n")]


class Level(msgspec.Struct):
    px: str
    sz: str
    n: int


class BookData(msgspec.Struct):
    coin: str
    time: int
    levels: tuple[list[Level], list[Level]]


class BookMessage(msgspec.Struct):
    channel: str
    data: BookData


class BboData(msgspec.Struct):
    coin: str
    time: int
    bbo: tuple[Level | None, Level | None]


class BboMessage(msgspec.Struct):
    channel: str
    data: BboData


class Trade(msgspec.Struct):
    coin: str
    side: str
    px: str
    sz: str
    time: int
    hash: str
    tid: int
    users: tuple[str, str]


class TradesMessage(msgspec.Struct):
    channel: str
    data: list[Trade]


def empty_levels() -> Levels:
    return np.zeros((2, 20)), np.zeros((2, 20)), np.zeros((2, 20), np.int64)


def by_orjson_row(levels: Levels) -> Callable[[bytes], None]:
    """orjson + float + numpy assignment, a row at a time: the quickest spelling of it that we know."""
    px, sz, n = levels

    def read(message: bytes) -> None:
        for row, side in enumerate(orjson.loads(message)["data"]["levels"]):
            px[row] = [float(level["px"]) for level in side]
            sz[row] = [float(level["sz"]) for level in side]
            n[row] = [level["n"] for level in side]

    return read


def by_orjson_level(levels: Levels) -> Callable[[bytes], None]:
    """orjson + float + numpy assignment, a level at a time: as one would write it first."""
    px, sz, n = levels

    def read(message: bytes) -> None:
        for row, side in enumerate(orjson.loads(message)["data"]["levels"]):
            for i, level in enumerate(side):
                px[row, i] = float(level["px"])
                sz[row, i] = float(level["sz"])
                n[row, i] = level["n"]

    return read


BOOK_GROUP = f"l2Book 20+20, {COUNT} messages: bytes -> arrays"


@pytest.mark.benchmark(group=BOOK_GROUP)
def test_book_hlconn_apply(benchmark: BenchmarkFixture) -> None:
    book = hlconn.Book("BTC")
    run = each(book.apply, BOOKS)

    def again() -> None:  # each round starts over in venue time
        book.mark_stale("next round", restart=True)
        run()

    benchmark(again)
    assert [book.px.tolist(), book.sz.tolist(), book.n.tolist()] == expected(BOOKS[-1])
    assert not book.stale


@pytest.mark.benchmark(group=BOOK_GROUP)
def test_book_hlconn_feed_and_callback(benchmark: BenchmarkFixture) -> None:
    feed = hlconn.Feed()
    calls = 0

    def callback(book: hlconn.Book) -> None:
        nonlocal calls
        calls += 1

    feed.on_book("BTC", callback)
    run = each(feed.on_message, BOOKS)

    def again() -> None:
        feed.mark_stale("next round")
        run()

    benchmark(again)
    book = feed.book("BTC")
    assert [book.px.tolist(), book.sz.tolist(), book.n.tolist()] == expected(BOOKS[-1])
    assert calls == book.seq > 0


@pytest.mark.benchmark(group=BOOK_GROUP)
@pytest.mark.parametrize("reader", [by_orjson_row, by_orjson_level])
def test_book_orjson_float_numpy(
    benchmark: BenchmarkFixture, reader: Callable[[Levels], Callable[[bytes], None]]
) -> None:
    levels = empty_levels()
    benchmark(each(reader(levels), BOOKS))
    assert [array.tolist() for array in levels] == expected(BOOKS[-1])


@pytest.mark.benchmark(group=BOOK_GROUP)
def test_book_msgspec_typed(benchmark: BenchmarkFixture) -> None:
    decode = msgspec.json.Decoder(BookMessage).decode
    benchmark(each(decode, BOOKS))
    sides = decode(BOOKS[-1]).data.levels
    assert [[float(level.px) for level in side] for side in sides] == expected(BOOKS[-1])[0]


BBO_GROUP = f"bbo, {COUNT} messages"


@pytest.mark.benchmark(group=BBO_GROUP)
def test_bbo_hlconn_decode(benchmark: BenchmarkFixture) -> None:
    book = hlconn.Book("BTC", feeds=("bbo",))
    run = each(book.apply, BBOS)

    def again() -> None:
        book.mark_stale("next round", restart=True)
        run()

    benchmark(again)
    assert [book.px[:, :1].tolist(), book.sz[:, :1].tolist(), book.n[:, :1].tolist()] == expected(BBOS[-1])


@pytest.mark.benchmark(group=BBO_GROUP)
def test_bbo_hlconn_feed_and_callback(benchmark: BenchmarkFixture) -> None:
    feed = hlconn.Feed()
    feed.book("BTC", feeds=("bbo",))
    feed.on_book("BTC", lambda book: None)
    run = each(feed.on_message, BBOS)

    def again() -> None:
        feed.mark_stale("next round")
        run()

    benchmark(again)
    assert [feed.book("BTC").best_bid, feed.book("BTC").best_ask] == [side[0] for side in expected(BBOS[-1])[0]]
    assert feed.counters["bbo"]["out_of_order"] == feed.counters["bbo"]["fallback"] == 0


@pytest.mark.benchmark(group=BBO_GROUP)
def test_bbo_msgspec_typed(benchmark: BenchmarkFixture) -> None:
    decode = msgspec.json.Decoder(BboMessage).decode
    benchmark(each(decode, BBOS))
    bid = decode(BBOS[-1]).data.bbo[0]
    assert bid is not None
    assert float(bid.px) == expected(BBOS[-1])[0][0][0]


@pytest.mark.benchmark(group=BBO_GROUP)
def test_bbo_orjson(benchmark: BenchmarkFixture) -> None:
    benchmark(each(orjson.loads, BBOS))


TRADES_GROUP = f"trades of one trade, {COUNT} messages"


def expected_trade(message: bytes) -> tuple[int, float, float, int, int]:
    trade = orjson.loads(message)["data"][0]
    return trade["time"], float(trade["px"]), float(trade["sz"]), trade["tid"], "BA".index(trade["side"])


def trades_anew(feed: hlconn.Feed, callback: Callable[[NDArray[np.void]], object]) -> Callable[[], None]:
    """What is timed; each round the feed forgets which trades were seen."""
    run = each(feed.on_message, TRADES)

    def again() -> None:
        feed.on_trades("BTC", None)
        feed.on_trades("BTC", callback)
        run()

    return again


@pytest.mark.benchmark(group=TRADES_GROUP)
def test_trades_hlconn_decode(benchmark: BenchmarkFixture) -> None:
    """`id` as the callback: a C function that does nothing, so that this is the decode."""
    feed = hlconn.Feed()
    benchmark(trades_anew(feed, id))
    last: list[object] = []
    feed.on_trades("BTC", None)
    feed.on_trades("BTC", lambda trades: last.extend(trades.tolist()))
    feed.on_message(TRADES[-1])
    assert last == [expected_trade(TRADES[-1])]


@pytest.mark.benchmark(group=TRADES_GROUP)
def test_trades_hlconn_feed_and_callback(benchmark: BenchmarkFixture) -> None:
    feed = hlconn.Feed()
    benchmark(trades_anew(feed, lambda trades: None))
    assert feed.counters["trades"]["twins"] == 0
    assert feed.counters["trades"]["fallback"] == feed.counters["trades"]["errors"] == 0


@pytest.mark.benchmark(group=TRADES_GROUP)
def test_trades_msgspec_typed(benchmark: BenchmarkFixture) -> None:
    decode = msgspec.json.Decoder(TradesMessage).decode
    benchmark(each(decode, TRADES))
    trade = decode(TRADES[-1]).data[0]
    assert (trade.time, float(trade.px), float(trade.sz), trade.tid, "BA".index(trade.side)) == expected_trade(
        TRADES[-1]
    )


@pytest.mark.benchmark(group=TRADES_GROUP)
def test_trades_orjson(benchmark: BenchmarkFixture) -> None:
    benchmark(each(orjson.loads, TRADES))
