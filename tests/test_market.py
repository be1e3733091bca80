"""market.py without a socket: messages go in by the feed, the session's words by `up` and `down`, time by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import captures
import numpy as np
import orjson
import pytest
from captures import COINS, T0, wire

import hlconn
from hlconn import ConfigError, DecodeError, Feed, Gap, LinkDown, StaleBook, Stream, SubscriptionRefused
from hlconn.market import Market

SLOW = {"type": "l2Book", "coin": "BTC"}
FAST = {"type": "l2Book", "coin": "BTC", "fast": True}
BBO = {"type": "bbo", "coin": "BTC"}
TRADES = {"type": "trades", "coin": "BTC"}
CANDLE = {"type": "candle", "coin": "BTC", "interval": "1m"}


def trade(tid: int) -> dict[str, Any]:
    """A trade whose time is T0 + its tid."""
    return {**captures.trade(Random(tid), COINS[0], T0 + tid), "tid": tid}


def trades(*tids: int) -> bytes:
    return wire({"channel": "trades", "data": [trade(tid) for tid in tids]})


def snapshot(time_ms: int, shape: str = "slow") -> bytes:
    return captures.example(shape, COINS[0], seed=time_ms, time_ms=T0 + time_ms)


def candle(minute: int, n: int) -> dict[str, Any]:
    start = T0 + 60_000 * minute
    return {
        "t": start,
        "T": start + 59_999,
        "s": "BTC",
        "i": "1m",
        "o": "1",
        "c": "2",
        "h": "3",
        "l": "1",
        "v": "4",
        "n": n,
    }


class Bench:
    """A market on a feed, with the venue and the clock in the test's hands."""

    def __init__(self) -> None:
        self.feed = Feed()
        self.wanted: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.failures: list[BaseException] = []
        self.now_ns = 0
        self.gaps: list[Gap] = []
        self.market = Market(
            self.feed,
            self._subscribe,
            self._unsubscribe,
            query=self._query,
            on_error=self.failures.append,
            clock_ns=lambda: self.now_ns,
            call_later=self._call_later,
        )
        self.market.on_gap(self.gaps.append)

    def _subscribe(self, subscription: Any) -> None:
        if subscription not in self.wanted:
            self.wanted.append(dict(subscription))

    def _unsubscribe(self, subscription: Any) -> None:
        if subscription in self.wanted:
            self.wanted.remove(subscription)

    async def _query(self, body: dict[str, Any]) -> Any:
        self.asked.append(body)
        answer = self.answers[body["type"]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        class Handle:
            def cancel(handle) -> None:
                self.timers = [each for each in self.timers if each[1] is not callback]

        self.timers.append((delay_s, callback))
        return Handle()

    async def fire(self, *, within_s: float = 0.0) -> None:
        """Let the timers that are due within this time ring, and their tasks run."""
        due = [callback for delay_s, callback in self.timers if delay_s <= within_s]
        self.timers = [each for each in self.timers if each[0] > within_s]
        for callback in due:
            callback()
        for _ in range(5):
            await asyncio.sleep(0)

    def up(self, *subscriptions: dict[str, Any], link: int = 0) -> None:
        for subscription in subscriptions:
            self.market.up(subscription, link, 0)

    def cut(self, *subscriptions: dict[str, Any], link: int = 0) -> None:
        for subscription in subscriptions:
            self.market.down(subscription, link, "cut", 0)


def run(work: Callable[[Bench], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await work(Bench())

    asyncio.run(bounded())


async def waiting(stream: Stream[Any]) -> list[Any]:
    """What there is to read: tids of trades, (from, to, proven) of gaps as trades count time, the rest as it is."""
    got: list[Any] = []
    while len(stream):
        each = await anext(stream)
        if isinstance(each, Gap):
            got.append((max(0, each.from_ms - T0), each.to_ms - T0, each.proven))
        elif isinstance(each, np.ndarray):
            got.append(each["tid"].tolist())
        else:
            got.append(each)
    return got


# --- who listens ---------------------------------------------------------------------------------------------------


def test_callbacks_and_streams_share_a_subscription_and_the_last_one_out_gives_it_back() -> None:
    async def work(bench: Bench) -> None:
        market = bench.market
        called: list[int] = []
        stop = market.on_trades("BTC", lambda rows: called.extend(rows["tid"].tolist()))
        one, other = market.trades("BTC"), market.trades("BTC", maxsize=1)
        bench.feed.on_message(trades(1))
        bench.feed.on_message(trades(2, 3))
        assert bench.wanted == [TRADES]
        assert called == [1, 2, 3]
        rows = await anext(one)
        assert isinstance(rows, np.ndarray)
        assert not rows.flags.writeable
        assert await waiting(one) == [[2, 3]]
        assert (other.dropped, one.dropped) == (1, 0)  # a slow reader costs the others nothing
        one.close()
        stop()
        stop()
        assert bench.wanted == [TRADES]
        bench.feed.on_message(trades(4))
        assert called == [1, 2, 3]
        assert await waiting(other) == [(1, 3, False), [4]]
        other.close()
        assert bench.wanted == []

    run(work)


def test_a_book_leaves_with_its_last_listener_unless_somebody_asked_for_the_book_itself() -> None:
    async def work(bench: Bench) -> None:
        market = bench.market
        stream = market.books("BTC", feeds=("slow",))
        stop = market.on_book("BTC", lambda book: None, feeds=("bbo",))
        assert bench.wanted == [SLOW, BBO]
        stream.close()
        assert bench.wanted == [SLOW, BBO]
        bench.feed.on_message(snapshot(1))
        book = await market.book("BTC", feeds=("slow",))
        stop()
        assert bench.wanted == [SLOW, BBO]
        assert market.held("BTC") is book
        assert not book.stale
        market.release("BTC")
        market.release("BTC")
        assert bench.wanted == []
        assert market.held("BTC") is None
        assert book.stale_reason == "nobody asks for it any more"

    run(work)


def test_a_stream_of_books_gives_the_latest_frozen_and_says_when_it_is_stale() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.books("BTC", feeds=("slow", "bbo"))
        every = bench.market.books("BTC", maxsize=10, overflow="drop_oldest")
        for at in (1, 2, 3):
            bench.feed.on_message(snapshot(at))
        (book,) = await waiting(stream)
        assert (book.time_ms, book.stale) == (T0 + 3, False)
        assert stream.conflated == 2
        assert [each.time_ms - T0 for each in await waiting(every)] == [1, 2, 3]
        bench.cut(SLOW)
        (book,) = await waiting(stream)
        assert (book.time_ms, book.stale_reason) == (T0 + 3, "slow feed down: cut")
        bench.feed.on_message(snapshot(9))
        gap, book = await waiting(stream)
        assert gap == (3, 9, False)
        assert (book.time_ms, book.stale) == (T0 + 9, False)
        assert [each if isinstance(each, tuple) else each.time_ms - T0 for each in await waiting(every)] == [
            3, (3, 9, False), 9,
        ]  # fmt: skip
        assert [(gap.stream, gap.reason) for gap in bench.gaps] == [("book", "cut")]
        with pytest.raises(TypeError):
            book.apply(snapshot(10))

    run(work)


def test_a_subscription_that_is_refused_raises_in_its_streams() -> None:
    async def work(bench: Bench) -> None:
        market = bench.market
        asks: list[tuple[Callable[[], Stream[Any]], dict[str, Any]]] = [
            (lambda: market.trades("BTC"), TRADES),
            (lambda: market.books("BTC", feeds=("slow",)), SLOW),
            (lambda: market.candles("BTC", "1m"), CANDLE),
        ]
        for ask, subscription in asks:
            stream = ask()
            assert market.refused(dict(subscription), "no such coin") is None  # whoever reads is told
            with pytest.raises(SubscriptionRefused, match="no such coin"):
                await anext(stream)
            assert bench.wanted == []
        market.trades("BTC")
        market.on_trades("BTC", lambda rows: None)
        assert isinstance(market.refused(dict(TRADES), "no"), SubscriptionRefused)  # a callback has nobody to tell
        assert isinstance(market.refused(dict(CANDLE), "no"), SubscriptionRefused)

    run(work)


def test_a_book_that_somebody_keeps_after_the_session_is_stale() -> None:
    async def work(bench: Bench) -> None:
        bench.market.on_book("BTC", lambda book: None, feeds=("slow",))
        book = bench.market.held("BTC")
        assert book is not None
        bench.up(SLOW)
        bench.feed.on_message(snapshot(2))
        assert not book.stale
        bench.market.closed(hlconn.Closed("closed"))
        bench.feed.on_message(snapshot(3))  # the sockets end after the market
        bench.cut(SLOW)
        assert book.stale

    run(work)


def test_the_end_of_the_session_ends_streams_and_declares_what_is_open() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        book, other = bench.market.books("BTC"), bench.market.books("ETH")
        bench.up(TRADES, SLOW)
        bench.feed.on_message(snapshot(7))
        bench.cut(SLOW)
        bench.feed.on_message(trades(1))
        bench.cut(TRADES)
        bench.market.closed(hlconn.Closed("closed"))
        got = [each async for each in stream]
        assert [type(each).__name__ for each in got] == ["ndarray", "Gap"]
        assert [type(each).__name__ for each in [each async for each in book]] == ["Gap"]
        assert [each async for each in other] == []
        bench.cut(TRADES, SLOW)
        assert [(gap.stream, gap.from_ms - T0, gap.to_ms - T0) for gap in bench.gaps] == [
            ("trades", 1, 1), ("book", 7, 7),
        ]  # fmt: skip
        assert bench.timers == []

    run(work)


def test_a_callback_that_raises_ends_the_streams_of_its_coin_with_what_it_raised() -> None:
    async def work(bench: Bench) -> None:
        bench.market.on_trades("BTC", lambda rows: 1 / 0)
        stream = bench.market.trades("BTC")
        with pytest.raises(ZeroDivisionError) as raised:
            bench.feed.on_message(trades(1))
        assert bench.feed.failed == ("trades", "BTC")
        bench.market.callback_failed(*bench.feed.failed, raised.value)
        with pytest.raises(LinkDown, match="a callback raised"):
            await anext(stream)
        assert bench.wanted == []

    run(work)


def test_a_coin_that_cannot_be_one_leaves_nothing_behind() -> None:
    async def work(bench: Bench) -> None:
        for ask in (bench.market.trades, bench.market.books):
            with pytest.raises(ConfigError):
                ask("")
            with pytest.raises(ConfigError):
                ask("BTC", overflow="no")  # type: ignore[arg-type]
        assert bench.wanted == []

    run(work)


# --- gaps ----------------------------------------------------------------------------------------------------------


def test_a_replay_that_overlaps_proves_that_no_trade_was_lost() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        called: list[Any] = []
        bench.market.on_trades("BTC", lambda rows: called.append(rows["tid"].tolist()))
        bench.up(TRADES)
        bench.feed.on_message(trades(1, 2, 3))
        bench.cut(TRADES)
        bench.up(TRADES)
        bench.feed.on_message(trades(2, 3, 4))
        bench.feed.on_message(trades(5))
        assert await waiting(stream) == [[1, 2, 3], (3, 4, True), [4], [5]]
        assert called == [[1, 2, 3], [4], [5]]
        assert bench.gaps == [Gap("trades", "BTC", T0 + 3, T0 + 4, True, "cut")]
        await bench.fire(within_s=60)
        assert bench.asked == []

    run(work)


def test_trades_that_were_missed_are_fetched_and_delivered_before_newer_ones() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        called: list[int] = []
        bench.market.on_trades("BTC", lambda rows: called.extend(rows["tid"].tolist()))
        bench.up(TRADES)
        bench.feed.on_message(trades(1, 2))
        bench.cut(TRADES)
        bench.up(TRADES)
        bench.feed.on_message(trades(6))
        bench.feed.on_message(trades(7))
        assert await waiting(stream) == [[1, 2]]  # what is newer waits
        bench.answers["recentTrades"] = [trade(tid) for tid in (8, 7, 6, 5, 4, 3, 2, 1)]  # newest first
        await bench.fire()
        assert bench.asked == [{"type": "recentTrades", "coin": "BTC"}]
        assert await waiting(stream) == [(2, 6, True), [3, 4, 5], [6], [7]]
        bench.feed.on_message(trades(7, 8))
        assert await waiting(stream) == [[8]]
        assert called == [1, 2, 3, 4, 5, 6, 7, 8]

    run(work)


def test_a_link_that_returns_shows_what_the_others_missed_without_anybody_noticing() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.up(TRADES, link=1)
        bench.feed.on_message(trades(1, 2), link=0)
        bench.feed.on_message(trades(1, 2), link=1)
        # Link 1 returns, and its first trades are known in part, whatever the other one brings meanwhile.
        bench.cut(TRADES, link=1)
        bench.feed.on_message(trades(3, 4), link=0)
        bench.feed.on_message(trades(4, 5), link=1)  # its acknowledgement was lost
        assert await waiting(stream) == [[1, 2], [3, 4], [5]]
        assert bench.gaps == []
        # Link 0 is dead since, and nobody knows.
        bench.cut(TRADES, link=1)
        bench.feed.on_message(trades(8), link=1)
        bench.feed.on_message(trades(9), link=1)
        assert await waiting(stream) == []
        bench.answers["recentTrades"] = [trade(tid) for tid in range(9, 0, -1)]
        await bench.fire()
        assert await waiting(stream) == [(5, 8, True), [6, 7], [8], [9]]
        bench.cut(TRADES, link=0)
        assert len(bench.gaps) == 1, "link 1 is heard"

    run(work)


def test_a_link_that_is_new_is_looked_at_as_one_that_returns() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.feed.on_message(trades(1), link=0)
        bench.up(TRADES, link=1)
        bench.feed.on_message(trades(5), link=1)
        assert await waiting(stream) == [[1]]
        bench.answers["recentTrades"] = [trade(tid) for tid in range(5, 0, -1)]
        await bench.fire()
        assert await waiting(stream) == [(1, 5, True), [2, 3, 4], [5]]

    run(work)


def test_what_the_first_link_missed_before_anything_came_is_a_gap_although_another_serves_by_now() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)  # dead from here on, and nobody knows
        bench.up(TRADES, link=1)
        bench.cut(TRADES, link=0)
        bench.feed.on_message(trades(3), link=1)
        assert await waiting(stream) == []
        bench.answers["recentTrades"] = [trade(3), trade(2)]
        await bench.fire()
        assert await waiting(stream) == [(0, 2, False), [2], [3]]

    run(work)


def test_a_link_behind_the_one_that_began_brings_nothing_older() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.up(TRADES, link=1)
        bench.feed.on_message(trades(5), link=1)
        bench.feed.on_message(trades(4), link=0)
        bench.feed.on_message(trades(5, 6), link=0)
        assert await waiting(stream) == [(0, 5, False), [5], [6]]  # link 0 was served first, and might have been dead

    run(work)


def test_a_link_that_begins_before_what_is_known_brings_all_that_follows_and_nothing_older() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.feed.on_message(trades(3), link=0)
        bench.feed.on_message(trades(4), link=0)
        bench.up(TRADES, link=1)
        bench.feed.on_message(trades(1), link=1)
        bench.feed.on_message(trades(2), link=1)
        bench.feed.on_message(trades(3, 4, 5), link=1)
        assert await waiting(stream) == [[3], [4], [5]]
        assert bench.gaps == []
        bench.cut(TRADES, link=0)
        bench.cut(TRADES, link=1)
        bench.up(TRADES, link=0)
        bench.feed.on_message(trades(0, 6), link=0)
        assert await waiting(stream) == [(5, 6, True), [6]]
        assert bench.asked == []

    run(work)


def test_while_one_asks_another_link_may_bring_what_the_answer_does_not_reach() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.up(TRADES, link=1)
        bench.feed.on_message(trades(1), link=0)
        bench.cut(TRADES, link=0)
        bench.cut(TRADES, link=1)
        bench.up(TRADES)
        bench.up(TRADES, link=1)
        bench.feed.on_message(trades(4), link=0)
        answers: list[asyncio.Future[Any]] = []

        async def slow(body: dict[str, Any]) -> Any:
            answers.append(asyncio.get_running_loop().create_future())
            return await answers[-1]

        bench.market._query = slow
        await bench.fire()
        bench.feed.on_message(trades(9), link=1)  # link 0 died after 4
        await bench.fire()
        assert len(answers) == 2
        answers[0].set_result([trade(tid) for tid in range(5, 0, -1)])
        await bench.fire()
        assert await waiting(stream) == [[1]]
        answers[1].set_result([trade(tid) for tid in range(9, 0, -1)])
        await bench.fire()
        assert await waiting(stream) == [(1, 9, True), [2, 3], [4], [5, 6, 7, 8], [9]]

    run(work)


def test_the_answer_about_one_interruption_does_not_end_the_next() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.feed.on_message(trades(1, 2))
        bench.cut(TRADES)
        bench.up(TRADES)
        answers: list[asyncio.Future[Any]] = []

        async def slow(body: dict[str, Any]) -> Any:
            answers.append(asyncio.get_running_loop().create_future())
            return await answers[-1]

        bench.market._query = slow
        await bench.fire(within_s=5.0)
        await bench.fire()
        bench.cut(TRADES)  # once more, before the answer
        answers[0].set_result([trade(2), trade(1)])
        await bench.fire()
        assert await waiting(stream) == [[1, 2]]
        bench.up(TRADES)
        bench.feed.on_message(trades(9))  # 3 to 8 came while nobody listened
        await bench.fire()
        answers[1].set_result([trade(tid) for tid in range(9, 0, -1)])
        await bench.fire()
        assert await waiting(stream) == [(2, 9, True), [3, 4, 5, 6, 7, 8], [9]]

    run(work)


def test_an_answer_to_one_listener_is_not_the_next_ones() -> None:
    async def work(bench: Bench) -> None:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def slow(body: dict[str, Any]) -> Any:
            return await answer

        bench.market._query = slow
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.feed.on_message(trades(1, 2))
        bench.cut(TRADES)
        bench.up(TRADES)
        await bench.fire(within_s=5.0)
        await bench.fire()
        stream.close()
        later = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.feed.on_message(trades(3, 4))
        answer.set_result([trade(tid) for tid in range(8, 1, -1)])
        await bench.fire()
        for tid in range(5, 10):
            bench.feed.on_message(trades(tid))
        assert await waiting(later) == [[3, 4], [5], [6], [7], [8], [9]]
        assert bench.gaps == []
        assert bench.timers == []

    run(work)


def test_trades_of_one_block_over_two_links_come_in_the_order_of_the_answer() -> None:
    async def work(bench: Bench) -> None:
        def at(*pairs: tuple[int, int]) -> list[dict[str, Any]]:
            return [{**trade(tid), "time": T0 + time_ms} for tid, time_ms in pairs]

        def bring(link: int, *pairs: tuple[int, int]) -> None:
            bench.feed.on_message(wire({"channel": "trades", "data": at(*pairs)}), link=link)

        stream = bench.market.trades("BTC")
        for link in (0, 1):
            bench.up(TRADES, link=link)
            bring(link, (1, 1))
        bench.cut(TRADES, link=1)
        bring(1, (3, 5))  # it returns, and is ahead
        bring(0, (2, 5))
        bench.answers["recentTrades"] = at((3, 5), (2, 5), (1, 1))
        await bench.fire()
        assert await waiting(stream) == [[1], (1, 5, True), [2], [3]]

    run(work)


def test_a_callback_that_ends_a_book_at_the_end_of_the_session_keeps_nobody_waiting() -> None:
    async def work(bench: Bench) -> None:
        def raises(gap: Gap) -> None:
            raise ValueError("mine")

        for coin in ("BTC", "ETH"):
            bench.market.on_book(coin, lambda book: None, feeds=("slow",))
        bench.feed.on_message(snapshot(1))
        bench.up(SLOW)
        bench.cut(SLOW)
        bench.market.on_gap(raises)
        stream = bench.market.trades("ETH")
        bench.market.closed(hlconn.Closed("closed"))
        assert [each async for each in stream] == []
        assert [str(exc) for exc in bench.failures] == ["mine"]

    run(work)


def test_a_question_of_a_quiet_stream_that_failed_is_asked_again_ever_more_rarely() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.feed.on_message(trades(1, 2))
        bench.cut(TRADES)
        bench.up(TRADES)
        bench.answers["recentTrades"] = OSError("no route")
        for delay_s in (5.0, 10.0, 20.0, 40.0, 80.0, 80.0):
            assert [delay for delay, _ in bench.timers] == [delay_s]
            await bench.fire(within_s=delay_s)
            bench.now_ns += round(delay_s * 1e9)
            await bench.fire()
        assert len(bench.asked) == 6
        bench.answers["recentTrades"] = [trade(3), trade(2)]
        await bench.fire(within_s=80.0)
        await bench.fire()
        assert await waiting(stream) == [[1, 2], (2, 3, True), [3]]
        assert bench.timers == []

    run(work)


def test_a_quiet_stream_is_asked_for_although_another_link_flaps() -> None:
    async def work(bench: Bench) -> None:
        bench.market.trades("BTC")
        bench.up(TRADES)
        bench.feed.on_message(trades(1, 2))
        bench.cut(TRADES)
        bench.up(TRADES)
        bench.answers["recentTrades"] = [trade(2)]
        for _ in range(3):
            bench.cut(TRADES, link=1)
        assert [delay for delay, _ in bench.timers] == [5.0]
        await bench.fire(within_s=5.0)
        await bench.fire()
        assert [(gap.from_ms - T0, gap.to_ms - T0, gap.proven) for gap in bench.gaps] == [(2, 2, True)]

    run(work)


@pytest.mark.parametrize("bad", [trades(3).replace(b'"tid":3', b'"tid":"x"'), b'{"channel":"trades","data":[{"coin":4'])
def test_trades_that_cannot_be_read_are_missed_until_the_venue_says_them_again(bad: bytes) -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.feed.on_message(trades(1, 2))
        with pytest.raises(DecodeError) as error:
            bench.feed.on_message(bad)
        bench.market.unreadable(error.value, 0)
        bench.feed.on_message(trades(4))
        assert await waiting(stream) == [[1, 2]]
        bench.answers["recentTrades"] = [trade(tid) for tid in range(4, 0, -1)]
        await bench.fire()
        assert await waiting(stream) == [(2, 4, True), [3], [4]]
        assert bench.gaps[0].reason.startswith("a message could not be read")
        bench.market.closed(hlconn.Closed("closed"))
        bench.market.unreadable(error.value, 0)

    run(work)


def test_one_of_two_links_that_cannot_be_read_costs_nothing_but_a_look() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        for link in (0, 1):
            bench.up(TRADES, link=link)
            bench.feed.on_message(trades(1, 2), link=link)
        with pytest.raises(DecodeError) as error:
            bench.feed.on_message(trades(3)[:-4], link=1)
        assert error.value.coin == "BTC"
        bench.market.unreadable(error.value, 1)
        bench.feed.on_message(trades(3), link=0)
        bench.feed.on_message(trades(3, 4), link=1)
        assert await waiting(stream) == [[1, 2], [3], [4]]
        assert bench.gaps == []

    run(work)


def test_an_answer_that_is_newer_than_what_waits_is_not_delivered_before_it() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.feed.on_message(trades(1))
        bench.cut(TRADES)
        bench.up(TRADES)
        bench.feed.on_message(trades(5))
        bench.answers["recentTrades"] = [trade(tid) for tid in (9, 8)]
        await bench.fire()
        bench.feed.on_message(trades(6, 7))
        assert await waiting(stream) == [[1], (1, 5, False), [5], [6, 7]]

    run(work)


@pytest.mark.parametrize("seed", range(3))
def test_two_links_cut_a_hundred_times_bring_what_one_that_is_never_cut_brings(seed: int) -> None:
    """Independent delays, and one of the two is always there: message by message the same, and nothing is asked."""
    rng = Random(seed)
    said: list[bytes] = []
    tid = 0
    for time_ms in range(1, 2000):
        kind = rng.choice(("slow", "bbo", "trades", "trades"))
        if kind == "trades":
            count = rng.randint(1, 3)
            said.append(trades(*range(tid + 1, tid + 1 + count)))
            tid += count
        else:
            said.append(snapshot(time_ms, kind))

    def listen(bench: Bench) -> list[Any]:
        got: list[Any] = []
        bench.market.on_trades("BTC", lambda rows: got.append(rows.tolist()))
        bench.market.on_book("BTC", lambda book: got.append((book.time_ms, book.stale, repr(book.px.tolist()))))
        for link in (0, 1):
            bench.up(SLOW, FAST, BBO, TRADES, link=link)
        return got

    async def work(bench: Bench) -> None:
        want, got = listen(alone := Bench()), listen(bench)
        for message in said:
            alone.feed.on_message(message)
        behind = {0: list(said), 1: list(said)}  # what each link has still to bring
        cuts = 0
        began = 0
        while not began:  # with the link that was served first: else a beginning that it missed would be declared
            began = len(trades_in(behind[0][0]))
            bench.feed.on_message(behind[0].pop(0), link=0)
        while behind[0] and behind[1]:
            if cuts < 100 and len(behind[0]) < len(said) - 40 > len(behind[1]) and rng.random() < 0.1:
                # One is cut: what was on its way is lost, and it returns at what the venue says by then.
                cuts += 1
                lost = rng.randrange(2)
                # Not ahead of the other, or it would skip books (never trades).
                at = max(len(said) - len(behind[lost]), len(said) - len(behind[1 - lost]) - rng.randint(0, 3))
                behind[lost] = said[at:]
                bench.cut(SLOW, FAST, BBO, TRADES, link=lost)
                bench.up(SLOW, FAST, BBO, TRADES, link=lost)
                replay = [row for message in said[:at][-20:] for row in trades_in(message)]
                assert replay, "else nothing would show that nothing is missing, and the venue would be asked"
                bench.feed.on_message(trades(*replay), link=lost)
            link = rng.randrange(2)
            for _ in range(rng.randint(1, 4)):
                # never so far apart that a replay would not reach back
                if behind[link] and len(behind[link]) > len(behind[1 - link]) - 8:
                    bench.feed.on_message(behind[link].pop(0), link=link)
        for link in (0, 1):
            for message in behind[link]:
                bench.feed.on_message(message, link=link)
        assert cuts == 100
        assert flat(got) == flat(want)
        assert bench.gaps == []
        assert bench.asked == []

    def trades_in(message: bytes) -> list[int]:
        value = orjson.loads(message)
        return [row["tid"] for row in value["data"]] if value["channel"] == "trades" else []

    def flat(got: list[Any]) -> tuple[list[Any], list[Any]]:
        """Trades one by one, for a replay cuts them otherwise; and the books."""
        return (
            [row for each in got if isinstance(each, list) for row in each],
            [each for each in got if isinstance(each, tuple)],
        )

    run(work)


def test_what_the_session_has_no_room_for_leaves_nothing_behind() -> None:
    async def work(bench: Bench) -> None:
        def full(subscription: Any) -> None:
            if subscription != SLOW:
                raise ConfigError("full")
            bench.wanted.append(subscription)

        market = bench.market
        market._subscribe = full
        for ask in (
            lambda: market.on_book("BTC", print, feeds=("slow", "fast")),
            lambda: market.books("BTC"),
            lambda: market.on_trades("BTC", print),
            lambda: market.trades("BTC"),
            lambda: market.candles("BTC", "1m"),
        ):
            with pytest.raises(ConfigError, match="full"):
                ask()
            assert bench.wanted == []
        assert market.held("BTC") is None
        market.on_book("BTC", print, feeds=("slow",))
        bench.feed.on_message(snapshot(1))
        with pytest.raises(ConfigError, match="full"):
            market.on_book("BTC", print)
        assert not market.require_fresh("BTC", 1e6).stale

    run(work)


@pytest.mark.parametrize("answer", [OSError("no route"), [{"tid": "?"}], {"odd": 1}, None])
def test_when_the_venue_cannot_be_asked_the_gap_is_declared(answer: Any) -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.feed.on_message(trades(1))
        bench.cut(TRADES)
        bench.feed.on_message(trades(6))
        bench.answers["recentTrades"] = answer
        await bench.fire()
        assert await waiting(stream) == [[1], (1, 6, False), [6]]
        assert not bench.failures

    run(work)


def test_new_trades_wait_for_an_answer_only_so_long() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def hangs(body: dict[str, Any]) -> None:
            await never

        bench.market._query = hangs
        bench.up(TRADES)
        bench.feed.on_message(trades(1))
        bench.cut(TRADES)
        bench.feed.on_message(trades(6))
        await bench.fire()
        assert await waiting(stream) == [[1]]
        await bench.fire(within_s=3.0)
        assert await waiting(stream) == [(1, 6, False), [6]]
        bench.feed.on_message(trades(7))
        assert await waiting(stream) == [[7]]
        bench.market.closed(hlconn.Closed("closed"))
        await asyncio.sleep(0)

    run(work)


def test_a_quiet_coin_is_asked_for_after_a_while_so_that_its_gap_is_told() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.up(TRADES)
        bench.feed.on_message(trades(1, 2))
        bench.cut(TRADES)
        bench.up(TRADES)
        await bench.fire(within_s=4.9)
        assert bench.asked == []
        bench.answers["recentTrades"] = [trade(3), trade(2)]
        await bench.fire(within_s=5.0)
        await bench.fire()
        assert await waiting(stream) == [[1, 2], (2, 3, True), [3]]
        bench.feed.on_message(trades(3, 4))
        assert await waiting(stream) == [[4]]

    run(work)


def test_nothing_that_was_never_served_is_interrupted() -> None:
    async def work(bench: Bench) -> None:
        stream = bench.market.trades("BTC")
        bench.cut(TRADES)  # the first connection failed
        bench.up(TRADES)
        bench.feed.on_message(trades(1, 2))
        assert await waiting(stream) == [[1, 2]]
        assert bench.gaps == []
        bench.cut({"type": "trades", "coin": "ETH"}, {"type": "userFills", "user": "0x"})
        bench.up({"type": "trades", "coin": "ETH"})

    run(work)


def test_queries_are_spread_over_time_when_many_coins_miss_something() -> None:
    async def work(bench: Bench) -> None:
        bench.answers["recentTrades"] = []
        coins = [f"C{i}" for i in range(25)]
        for coin in coins:
            bench.market.on_trades(coin, lambda rows: None)
            bench.up({"type": "trades", "coin": coin})
            bench.cut({"type": "trades", "coin": coin})
            bench.feed.on_message(trades(1).replace(b'"BTC"', wire(coin)))
        await bench.fire()
        assert len(bench.asked) == 10
        *holds, turn = bench.timers
        assert [round(delay) for delay, _ in bench.timers] == [3] * 16
        bench.now_ns += 9 * 10**9
        bench.timers = [turn]
        await bench.fire(within_s=3.0)
        assert len(bench.asked) == 13
        bench.timers = holds + bench.timers  # who waited too long is not asked about any more
        bench.now_ns += 100 * 10**9
        await bench.fire(within_s=3.0)
        assert len(bench.asked) == 13
        assert bench.timers == []

    run(work)


def test_a_question_that_nobody_needs_any_more_takes_no_turn() -> None:
    async def work(bench: Bench) -> None:
        bench.answers["recentTrades"] = []
        stops = []
        for i in range(12):
            coin = {"type": "trades", "coin": f"C{i}"}
            stops.append(bench.market.on_trades(coin["coin"], lambda rows: None))
            bench.up(coin)
            bench.cut(coin)
            bench.feed.on_message(trades(1).replace(b'"BTC"', wire(coin["coin"])))
        stops[0]()
        await bench.fire()
        assert [body["coin"] for body in bench.asked] == [f"C{i}" for i in range(1, 11)]

    run(work)


def test_a_callback_of_a_late_delivery_that_raises_is_reported_and_ends_its_coin() -> None:
    async def work(bench: Bench) -> None:
        seen: list[int] = []

        def callback(rows: Any) -> None:
            seen.extend(rows["tid"].tolist())
            if 6 in seen:
                raise ValueError("mine")

        bench.market.on_trades("BTC", callback)
        bench.up(TRADES)
        bench.feed.on_message(trades(1))
        bench.cut(TRADES)
        bench.feed.on_message(trades(6))
        bench.answers["recentTrades"] = [trade(6), trade(1)]
        await bench.fire()
        assert [str(exc) for exc in bench.failures] == ["mine"]
        assert bench.wanted == []

    run(work)


def test_a_callback_for_gaps_that_raises_ends_what_it_was_told_of() -> None:
    async def work(bench: Bench) -> None:
        def raises(gap: Gap) -> None:
            raise ValueError(gap.stream)

        bench.market.on_gap(raises)
        for ask, subscription in (
            (lambda: bench.market.candles("BTC", "1m"), CANDLE),
            (lambda: bench.market.trades("BTC"), TRADES),
        ):
            stream: Stream[Any] = ask()
            bench.up(subscription)
            bench.cut(subscription)
            if subscription is CANDLE:
                bench.market.on_message("candle", wire({"channel": "candle", "data": candle(1, 1)}))
                bench.answers["candleSnapshot"] = []
                await bench.fire()
            else:
                bench.feed.on_message(trades(1))
                bench.answers["recentTrades"] = []
                await bench.fire()
            assert isinstance(await anext(stream), Gap)
            with pytest.raises(LinkDown, match="a callback raised"):
                await anext(stream)
            assert bench.wanted == []
        books = bench.market.books("BTC", feeds=("slow",))
        bench.up(SLOW)
        bench.feed.on_message(snapshot(1))
        bench.cut(SLOW)
        bench.feed.on_message(snapshot(2))
        await anext(books)
        with pytest.raises(LinkDown, match="a callback raised"):
            while True:
                await anext(books)
        assert bench.wanted == []
        assert [str(exc) for exc in bench.failures] == ["candle", "trades", "book"]

    run(work)


def test_candles_come_once_over_several_links_and_what_was_missed_is_fetched() -> None:
    async def work(bench: Bench) -> None:
        def bring(minute: int, n: int) -> None:
            bench.market.on_message("candle", wire({"channel": "candle", "data": candle(minute, n)}))

        def shown(got: list[Any]) -> list[Any]:
            return [each if isinstance(each, tuple) else ((each.open_ms - T0) // 60_000, each.n) for each in got]

        stream = bench.market.candles("BTC", "1m")
        bench.up(CANDLE)
        for minute, n in [(0, 1), (0, 1), (0, 2), (1, 1), (0, 2), (1, 1)]:
            bring(minute, n)
        bench.market.on_message("candle", b'{"channel":"candle","data":{"s":"ETH"}}')
        bench.market.on_message("candle", b"bad")
        bench.market.on_message("allMids", b"{}")
        assert shown(await waiting(stream)) == [(0, 1), (0, 2), (1, 1)]
        bench.cut(CANDLE)
        bring(1, 1)  # nothing happened
        assert shown(await waiting(stream)) == [(60_000, 60_000, True)]
        bench.cut(CANDLE)
        bring(1, 3)  # a candle holds all that happened in it
        assert shown(await waiting(stream)) == [(60_000, 60_000, True), (1, 3)]
        bench.cut(CANDLE)
        bring(4, 1)
        bring(4, 2)
        bench.answers["candleSnapshot"] = [candle(minute, 9) for minute in (1, 2, 3, 4)]
        await bench.fire()
        assert bench.asked[0]["req"] == {"coin": "BTC", "interval": "1m", "startTime": T0 + 60_000}
        assert shown(await waiting(stream)) == [(60_000, 240_000, True), (1, 9), (2, 9), (3, 9), (4, 1), (4, 2)]
        bring(4, 3)
        assert shown(await waiting(stream)) == [(4, 3)]
        stream.close()
        assert bench.wanted == []

    run(work)


def test_every_trade_reaches_each_reader_once_in_order_or_lies_in_a_gap_whatever_happens() -> None:
    async def work(bench: Bench, seed: int) -> None:
        rng = Random(seed)
        market, feed = bench.market, bench.feed
        called: list[int] = []
        market.on_trades("BTC", lambda rows: called.extend(rows["tid"].tolist()))
        roomy, tight = market.trades("BTC", maxsize=10_000), market.trades("BTC", maxsize=2)
        bench.up(TRADES)
        bench.up(TRADES, link=1)
        got: dict[Stream[Any], list[Any]] = {roomy: [], tight: []}
        now, served = 0, {0, 1}
        deaf: set[int] = set()  # half-open: nothing comes, and nobody has noticed yet
        recent = rng.choice((5, 30))

        async def answer(body: dict[str, Any]) -> Any:
            if rng.random() < 0.2:
                raise OSError("no answer")
            return [trade(tid) for tid in range(now, max(0, now - recent), -1)]

        market._query = answer
        for _ in range(60):
            event = rng.random()
            if event < 0.5:
                tids = range(now + 1, now + 1 + rng.randint(1, 3))
                now = tids[-1]
                for link in sorted(served - deaf, key=lambda _: rng.random()):
                    feed.on_message(trades(*tids), link=link)
            elif event < 0.65 and served:
                lost = rng.choice(sorted(served))
                served.discard(lost)
                deaf.discard(lost)
                bench.cut(TRADES, link=lost)
            elif event < 0.85 and len(served) < 2:
                link = min({0, 1} - served)
                served.add(link)
                replay = range(max(1, now + 1 - rng.choice((0, 1, 4, 12))), now + 1)
                acked = rng.random() < 0.8  # else that is lost, and its data have to do
                if acked:
                    bench.up(TRADES, link=link)
                if len(replay):
                    feed.on_message(trades(*replay), link=link)
            elif event < 0.88:
                deaf.update(sorted(served)[:1])
            elif event < 0.95:
                await bench.fire(within_s=rng.choice((0.0, 3.0, 5.0)))
            else:
                got[tight] += await waiting(tight)
            bench.now_ns += 10**9
        # what returned and said nothing yet has not shown what was missed
        deaf |= {0, 1} - market._trades["BTC"]._heard
        market.closed(hlconn.Closed("closed"))
        for stream, read in got.items():
            read += await waiting(stream)
            rows = [tid for each in read if isinstance(each, list) for tid in each]
            assert rows == sorted(set(rows)), seed
            declared = [each for each in read if isinstance(each, tuple) and not each[2]]
            missing = set(range(1, max(rows, default=0) + 1)) - set(rows)
            if max(rows, default=0) < now and not deaf:  # cut off by the end: what is read last says so
                assert read[-1] in declared or not rows, seed
            assert all(any(a <= tid <= b for a, b, _ in declared) for tid in missing), (seed, missing, declared)
        assert called == [tid for each in got[roomy] if isinstance(each, list) for tid in each]

    async def every(_: Bench) -> None:
        for seed in range(300):
            await work(Bench(), seed)

    run(every)


# --- freshness and figures -----------------------------------------------------------------------------------------


def test_a_fresh_book_is_given_and_one_that_is_not_says_why() -> None:
    async def work(bench: Bench) -> None:
        market = bench.market
        with pytest.raises(StaleBook, match="nobody asked for it"):
            market.require_fresh("BTC", 1000)
        market.on_book("BTC", lambda book: None)
        with pytest.raises(StaleBook, match="nothing received yet"):
            market.require_fresh("BTC", 1000)
        bench.feed.on_message(snapshot(1), recv_ns=10**9)
        bench.feed.on_message(snapshot(1, "bbo"), recv_ns=2 * 10**9)
        bench.now_ns = 3 * 10**9
        assert market.require_fresh("BTC", 1000) is market.held("BTC")
        assert market.require_fresh("BTC", 0, now_ns=2 * 10**9) is market.held("BTC")
        with pytest.raises(StaleBook) as old:
            market.require_fresh("BTC", 999)
        assert (old.value.reason, old.value.ages_ms) == ("nothing newer than 999 ms", {"slow": 2000.0, "bbo": 1000.0})
        bench.cut(FAST)
        with pytest.raises(StaleBook, match="fast feed down: cut"):
            market.require_fresh("BTC", 10**9)
        bench.cut(SLOW, BBO)
        with pytest.raises(StaleBook, match="no feed was heard"):
            market.require_fresh("BTC", 10**9)

    run(work)


def test_figures_are_read_by_name_once_there_are_some() -> None:
    async def work(bench: Bench) -> None:
        stats = bench.market.stats
        assert stats() == {}
        stats.histogram("reconnect_ns").record(5)
        assert stats.histogram("reconnect_ns") is stats.histograms["reconnect_ns"]
        stats.measure()
        bench.market.on_book("BTC", lambda book: None)
        bench.feed.on_message(snapshot(1), recv_ns=100)
        bench.feed.on_message(snapshot(1), recv_ns=130, link=1)
        assert {name: each["count"] for name, each in stats().items()} == {
            "reconnect_ns": 1, "lag_ns": 1, "lead_ns of link 0": 1,
        }  # fmt: skip

    run(work)
