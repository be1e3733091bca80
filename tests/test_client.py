"""The whole session against the embedded venue over real loopback sockets, with both listeners."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

import hlconn
from hlconn.session import driver, pylistener
from hlconn.session.link import LinkState
from hlconn.sim import Venue

TIMEOUT_S = 20.0
SPEED = 20.0
QUICK = hlconn.SessionConfig(backoff_min_s=0.01, backoff_max_s=0.05, sockets_per_minute=10_000)


@pytest.fixture(autouse=True, params=["compiled listener", "Python listener"])
def listener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Python listener":
        monkeypatch.setattr(driver, "listener_class", lambda: pylistener.FeedListener)
    else:
        driver.listener_class.cache_clear()
        assert driver.listener_class() is not pylistener.FeedListener, "this build has no listener for this picows"


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await work()

    asyncio.run(bounded())


def our_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("hlconn link")]


class Condition:
    """Something to become true when books change; looked at after each message, never by sleeping."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        self._holds, self._event = holds, asyncio.Event()

    def look(self, _: object = None) -> None:
        if self._holds():
            self._event.set()

    async def wait(self) -> None:
        self.look()
        await asyncio.wait_for(self._event.wait(), TIMEOUT_S)


def venue_levels(venue: Venue, coin: str, depth: int = 20) -> list[list[list[float]]]:
    """px, sz, n of the venue's own book of the last block."""
    of = venue.exchange.markets[coin]
    sides = [side[:depth] for side in venue.history.book(coin)]
    return [
        [[float(of.px_text(level.px)) for level in side] for side in sides],
        [[float(of.sz_text(level.sz)) for level in side] for side in sides],
        [[float(level.n) for level in side] for side in sides],
    ]


def book_levels(book: hlconn.Book) -> list[list[list[float]]]:
    return [[array[row, : book.count[row]].tolist() for row in (0, 1)] for array in (book.px, book.sz, book.n)]


@pytest.mark.parametrize("cut", ["venue killed and restarted", "sockets cut", "closed with code 1000"])
def test_a_cut_gives_stale_books_that_come_back_and_equal_the_venue_s_own_20_times(cut: str) -> None:
    coins = ("BTC", "ETH", "SOL")

    async def work() -> None:
        async with (
            Venue(seed=3, speed=SPEED, coins=coins) as venue,
            hlconn.connect(venue.endpoints, config=QUICK) as hl,
        ):
            books = {coin: await hl.market.book(coin) for coin in coins}
            wrong: list[str] = []
            conditions: list[Condition] = []
            downs, live, live_since_ns = 0, True, 0

            def on_state(state: LinkState, reason: str, now_ns: int) -> None:
                nonlocal downs, live, live_since_ns
                if live and state is not LinkState.CLOSED:
                    downs += 1
                    for coin, book in books.items():
                        if not book.stale or book.stale_reason != reason:
                            wrong.append(f"{coin} is {book.stale_reason!r} when the link is down for {reason!r}")
                live = state is LinkState.LIVE
                if live:
                    live_since_ns = now_ns
                for condition in conditions:
                    condition.look()

            def on_book(book: hlconn.Book) -> None:
                if not book.stale and (not live or book.recv_ns < live_since_ns):
                    wrong.append(f"{book} was not stale, live {live}, heard {book.recv_ns}, connected {live_since_ns}")
                for condition in conditions:
                    condition.look(book)

            hl.on_state(on_state)
            for coin in coins:
                hl.market.on_book(coin, on_book)

            async def until(holds: Callable[[], bool]) -> None:
                condition = Condition(holds)
                conditions.append(condition)
                await condition.wait()
                conditions.remove(condition)

            def all_equal() -> bool:
                return all(
                    not book.stale and book_levels(book) == venue_levels(venue, coin) for coin, book in books.items()
                )

            for round_ in range(20):
                if cut.startswith("venue"):
                    await venue.stop()
                    await until(lambda: downs > round_)  # noqa: B023
                    await venue.start()
                else:
                    venue.cut(1000 if "1000" in cut else None)
                    await until(lambda: downs > round_)  # noqa: B023
                await until(lambda: not any(book.stale for book in books.values()))
                venue.pause()
                await until(all_equal)
                venue.resume()
            assert downs == 20
            assert wrong == []
            assert hl.link.counters.reconnects >= 20
            assert not any(c["errors"] for c in hl.feed.counters.values())

    run(work)


def test_a_periodic_feed_that_falls_silent_makes_its_book_stale_until_it_speaks_again() -> None:
    config = hlconn.SessionConfig(slow_period_s=5 / SPEED, fast_period_s=0.5 / SPEED)

    async def work() -> None:
        async with (
            Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue,
            hlconn.connect(venue.endpoints, config=config) as hl,
        ):
            book = await hl.market.book("BTC", feeds=("slow", "fast"))
            live = Condition(lambda: not book.stale)
            hl.market.on_book("BTC", live.look)
            venue.pause()
            async with asyncio.timeout(TIMEOUT_S):
                while not book.stale:  # nothing calls back when nothing comes: the clock itself is what is waited for
                    await asyncio.sleep(0.01)
            assert "feed silent" in (book.stale_reason or "")
            assert hl.link.state is LinkState.LIVE
            venue.resume()
            await live.wait()

    run(work)


def test_a_callback_that_raises_cancels_the_body_ends_its_subscription_and_leaves_the_link_to_the_finally(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    seen: dict[str, object] = {}

    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC", "ETH")) as venue:
            with pytest.raises(ZeroDivisionError, match="mine"):
                async with hlconn.connect(venue.endpoints) as hl:
                    book = await hl.market.book("BTC")
                    other = await hl.market.book("ETH")
                    calls = 0

                    def raises(book: hlconn.Book) -> None:
                        nonlocal calls
                        calls += 1
                        raise ZeroDivisionError("mine")

                    hl.market.on_book("BTC", raises)
                    try:
                        await asyncio.Event().wait()
                    finally:
                        before = other.seq
                        more = Condition(lambda: other.seq > before + 5)
                        hl.market.on_book("ETH", more.look)
                        await more.wait()
                        seen.update(
                            calls=calls,
                            stale=book.stale,
                            reason=book.stale_reason,
                            live=hl.link.state is LinkState.LIVE,
                        )
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

    run(work)
    assert seen["calls"] == 1
    assert seen["stale"]
    assert "mine" in str(seen["reason"])
    assert seen["live"]


def test_a_callback_that_raises_while_connecting_is_raised_by_connect(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue:
            client = hlconn.connect(venue.endpoints)

            def raises(state: LinkState, reason: str, now_ns: int) -> None:
                raise ZeroDivisionError("mine")

            client.on_state(raises)
            with pytest.raises(ZeroDivisionError, match="mine"):
                async with client:
                    await asyncio.Event().wait()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            assert our_tasks() == []

    run(work)


def test_a_callback_s_cancelled_error_is_an_exception_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    calls = 0

    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()

            def looks_at_it(book: hlconn.Book) -> None:
                nonlocal calls
                calls += 1
                future.result()

            with pytest.raises(asyncio.CancelledError):
                async with hlconn.connect(venue.endpoints) as hl:
                    hl.market.on_book("BTC", looks_at_it)
                    try:
                        await asyncio.Event().wait()
                    finally:
                        assert hl.link.state is LinkState.LIVE
                        assert hl.link.counters.connects == 1
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

    run(work)
    assert calls == 1


def test_a_book_that_ended_can_be_asked_for_again_and_the_ended_one_stays_stale(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue:
            with pytest.raises(ZeroDivisionError):
                async with hlconn.connect(venue.endpoints) as hl:
                    ended = await hl.market.book("BTC")
                    hl.market.on_book("BTC", lambda book: 1 // 0)
                    try:
                        await asyncio.Event().wait()
                    finally:
                        before = venue.stats.subscribes
                        fresh = await hl.market.book("BTC")
                        assert fresh is not ended
                        assert venue.stats.subscribes == before + 3
                        moved = Condition(lambda: fresh.seq > 20)
                        hl.market.on_book("BTC", moved.look)
                        await moved.wait()
                        assert ended.stale
                        assert not fresh.stale

    run(work)


def test_a_top_is_no_book_for_who_asks_for_levels() -> None:
    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue, hlconn.connect(venue.endpoints) as hl:
            top = await hl.market.book("BTC", feeds=("bbo",))
            assert top.count.tolist() == [1, 1]
            book = await hl.market.book("BTC")
            assert book is top
            assert book.count.min() >= 5
            assert not book.stale

    run(work)


def test_who_waits_for_a_book_learns_at_once_that_the_session_ended() -> None:
    async def work() -> None:
        async with Venue(seed=3, coins=("BTC",), stepped=True) as venue:
            async with hlconn.connect(venue.endpoints) as hl:
                venue.cut()
                hl.feed.mark_stale("nothing will come")
                waiting = asyncio.create_task(hl.market.book("BTC", timeout_s=1000.0))
                await asyncio.sleep(0)
            with pytest.raises(hlconn.Closed):
                await waiting

    run(work)


def test_a_refusal_is_also_told_to_who_only_listens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue:
            with pytest.raises(hlconn.SubscriptionRefused):
                async with hlconn.connect(venue.endpoints) as hl:
                    hl.market.on_book("NOPE", lambda book: None)
                    waiting = asyncio.create_task(hl.market.book("NOPE"))
                    try:
                        await asyncio.Event().wait()
                    finally:
                        with pytest.raises(hlconn.SubscriptionRefused):
                            await waiting

    run(work)


def test_a_cancellation_from_outside_stays_one() -> None:
    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue:
            inside = asyncio.Event()

            async def body() -> None:
                async with hlconn.connect(venue.endpoints):
                    inside.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(body())
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert our_tasks() == []

    run(work)


def test_leaving_the_body_leaves_no_task_and_no_socket() -> None:
    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue:
            async with hlconn.connect(venue.endpoints) as hl:
                await hl.market.book("BTC")
                assert venue.clients == len(our_tasks()) == 1
            assert our_tasks() == []
            async with asyncio.timeout(TIMEOUT_S):
                while venue.clients:
                    await asyncio.sleep(0)

    run(work)


def test_a_refused_coin_is_told_to_who_awaits_its_book_in_the_words_of_the_venue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue, hlconn.connect(venue.endpoints) as hl:
            with pytest.raises(hlconn.SubscriptionRefused, match="Invalid subscription") as refused:
                await hl.market.book("NOPE")
            assert refused.value.subscription["coin"] == "NOPE"
            assert not (await hl.market.book("BTC")).stale

    run(work)


@pytest.mark.parametrize("stream", ["book", "trades"])
def test_a_refused_coin_that_nobody_awaits_ends_the_body(stream: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue:
            with pytest.raises(hlconn.SubscriptionRefused, match="Invalid subscription"):
                async with hlconn.connect(venue.endpoints) as hl:
                    if stream == "book":
                        hl.market.on_book("NOPE", lambda book: None)
                    else:
                        hl.market.on_trades("NOPE", lambda trades: None)
                    await asyncio.Event().wait()

    run(work)


def test_trades_arrive_as_arrays_and_the_last_one_out_unsubscribes() -> None:
    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue, hlconn.connect(venue.endpoints) as hl:
            kept: list[np.ndarray] = []
            enough = Condition(lambda: sum(map(len, kept)) > 50)

            def keep(trades: np.ndarray) -> None:
                kept.append(trades.copy())
                enough.look()

            stop_one = hl.market.on_trades("BTC", keep)
            stop_two = hl.market.on_trades("BTC", lambda trades: None)
            await enough.wait()
            trades = np.concatenate(kept)
            assert trades.dtype == hlconn.TRADE_DTYPE
            assert len(np.unique(trades["tid"])) == len(trades)
            assert (np.diff(trades["time"]) >= 0).all()
            assert set(trades["side"]) <= {0, 1}
            assert (trades["px"] > 0).all()
            stop_one()
            stop_one()
            assert len(hl.link.subscriptions) == 1
            stop_two()
            assert hl.link.subscriptions == []

    run(work)


def test_a_cut_is_a_gap_in_its_place_and_the_trades_around_it_are_the_venues() -> None:
    async def work() -> None:
        async with (
            Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue,
            hlconn.connect(venue.endpoints, config=QUICK) as hl,
        ):
            told: list[hlconn.Gap] = []
            hl.market.on_gap(told.append)
            made: dict[int, None] = {}  # tids in the order in which the venue made them
            got: list[int] = []
            gaps: list[hlconn.Gap] = []
            cuts = 0
            async with hl.market.trades("BTC") as stream, hl.market.books("BTC") as books:
                async for each in stream:
                    made |= {trade.tid: None for trade in venue.exchange.trades["BTC"]}
                    if isinstance(each, hlconn.Gap):
                        gaps.append(each)
                    else:
                        got += each["tid"].tolist()
                    if len(gaps) == 3:
                        break
                    if cuts == len(gaps) and len(got) > 30 * (1 + cuts):
                        cuts += 1
                        venue.cut(1000)
                seen_book_gap = False
                while not seen_book_gap:
                    seen_book_gap = isinstance(await anext(books), hlconn.Gap)
            assert len(got) == len(set(got))
            # each once, in the venue's order; what we were too slow to see of it is not compared
            seen = [tid for tid in got if tid in made]
            assert len(seen) > 30
            assert [tid for tid in made if tid in set(got)] == seen
            first, last = (list(made).index(tid) for tid in (seen[0], seen[-1]))
            missing = set(list(made)[first : last + 1]) - set(got)
            assert not missing or not all(gap.proven for gap in gaps)
            assert [gap for gap in told if gap.stream == "trades"][:3] == gaps
            assert set(hl.stats()) == {"ack_ns", "reconnect_ns"}  # the rest only once it is measured

    run(work)


def test_several_callbacks_share_a_book_and_each_can_stop() -> None:
    async def work() -> None:
        async with Venue(seed=3, speed=SPEED, coins=("BTC",)) as venue, hlconn.connect(venue.endpoints) as hl:
            calls = [0, 0]

            def count(which: int) -> Callable[[hlconn.Book], None]:
                def callback(book: hlconn.Book) -> None:
                    calls[which] += 1

                return callback

            stops = [hl.market.on_book("BTC", count(which)) for which in (0, 1)]
            book = await hl.market.book("BTC")
            many = Condition(lambda: min(calls) > 5)
            stop = hl.market.on_book("BTC", many.look)
            await many.wait()
            stop()
            stops[0]()
            first = calls[0]
            more = Condition(lambda: calls[1] > first + 10)
            hl.market.on_book("BTC", more.look)
            await more.wait()
            assert calls[0] == first
            assert await hl.market.book("BTC") is book

    run(work)


def test_a_first_connection_that_fails_is_link_down_with_its_cause() -> None:
    async def work() -> None:
        async with Venue(seed=3, coins=("BTC",)) as venue:
            endpoints = venue.endpoints
        with pytest.raises(hlconn.LinkDown, match="no live connection") as down:
            async with hlconn.connect(endpoints, timeout_s=0.2, config=QUICK):
                raise AssertionError("the body must not run")
        assert isinstance(down.value.cause, OSError)
        assert our_tasks() == []

    run(work)


def test_no_snapshot_in_time_is_link_down_and_says_why() -> None:
    async def work() -> None:
        async with Venue(seed=3, coins=("BTC",), stepped=True) as venue, hlconn.connect(venue.endpoints) as hl:
            venue.pause()
            with pytest.raises(hlconn.LinkDown, match="no book of BTC within"):
                await hl.market.book("BTC", feeds=("bbo", "slow"), timeout_s=0.0)

    run(work)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: hlconn.connect("mainet"), "unknown network 'mainet'"),
        (lambda: hlconn.connect("local").market, "inside `async with"),
        (lambda: hlconn.connect("local").link, "inside `async with"),
        (lambda: hlconn.Endpoints("http://h", "h", hlconn.Network.LOCAL), "ws_url must be a full"),
        (lambda: hlconn.SessionConfig(ping_interval_s=0), "ping_interval_s must be a positive number"),
        (lambda: hlconn.SessionConfig(backoff_min_s=20), "must not exceed"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(use: Callable[[], object], words: str) -> None:
    with pytest.raises(hlconn.ConfigError, match=words):
        use()


def test_another_picows_than_the_build_s_gets_the_python_listener_and_one_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()  # the real choice
    build = importlib.import_module("hlconn._core._build")
    monkeypatch.setattr(build, "PICOWS_VERSION", "0.0.1")
    caplog.set_level(logging.INFO, "hlconn.session")
    driver.listener_class.cache_clear()
    try:
        assert driver.listener_class() is pylistener.FeedListener
        assert driver.listener_class() is pylistener.FeedListener
        assert len(caplog.records) == 1
        assert "0.0.1" in caplog.text
    finally:
        driver.listener_class.cache_clear()
