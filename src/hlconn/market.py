"""Books, trades and candles of a live session: who wants what, whom to call, and what was missed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from ._core.book import Book
from ._core.feed import Feed
from .errors import ConfigError, LinkDown, StaleBook, SubscriptionRefused
from .gaps import CandleHistory, Gap, Recovery, State, TradeHistory, read_trades
from .stats import Stats
from .streams import LatestBook, Overflow, Stream
from .types import FEEDS, TRADE_DTYPE, TRADE_USERS_DTYPE, Candle

__all__ = ["BookCallback", "GapCallback", "Market", "TradesCallback"]

_log = logging.getLogger("hlconn.market")

BookCallback = Callable[[Book], object]
TradesCallback = Callable[[NDArray[np.void]], object]
GapCallback = Callable[[Gap], object]
Query = Callable[[dict[str, Any]], Awaitable[Any]]
CallLater = Callable[[float, Callable[[], None]], Any]

_T = TypeVar("_T")

_HOLD_S = 3.0  # for which new items wait, at most, for what is to come before them
_QUIET_S = 5.0  # without a message after a stream is served again; then it is asked whether something was missed
_QUERIES_AT_ONCE = 20  # and then one a second: the venue weighs each 20 and more of the 1,200 a minute it allows


def _book_subscription(coin: str, feed: str) -> dict[str, Any]:
    if feed == "bbo":
        return {"type": "bbo", "coin": coin}
    return {"type": "l2Book", "coin": coin, "fast": True} if feed == "fast" else {"type": "l2Book", "coin": coin}


class _Listeners(Generic[_T]):
    """Who gets what one subscription brings: callbacks, and streams, which are one more callback to the feed.

    A tuple goes to the feed as it is: it calls each in compiled code, and looks after those that stop meanwhile.
    """

    __slots__ = ("callbacks", "put", "streams")

    def __init__(self, put: Callable[[_T], object]) -> None:
        self.callbacks: tuple[Callable[[_T], object], ...] = ()
        self.streams: tuple[Stream[Any], ...] = ()
        self.put = put  # one value to all streams

    @property
    def used(self) -> bool:
        return bool(self.callbacks or self.streams)

    @property
    def target(self) -> tuple[Callable[[_T], object], ...] | Callable[[_T], object] | None:
        every = (*self.callbacks, self.put) if self.streams else self.callbacks
        return every if len(every) > 1 else every[0] if every else None

    def remove(self, callback: Callable[[_T], object]) -> bool:
        """Take one callback out; False when it was out already."""
        if callback not in self.callbacks:
            return False
        at = self.callbacks.index(callback)
        self.callbacks = self.callbacks[:at] + self.callbacks[at + 1 :]
        return True

    def end(self, error: Exception | None) -> None:
        self.callbacks = ()
        streams, self.streams = self.streams, ()
        for stream in streams:
            stream.end(error)


class _Books(_Listeners[Book]):
    """Those of one coin's book, and the book."""

    __slots__ = ("book", "pinned")

    def __init__(self, book: Book) -> None:
        super().__init__(self._put)
        self.book = book
        self.pinned = False  # by Market.book(): it stays although nobody listens

    def _put(self, book: Book) -> None:
        copy: Book | None = None
        for stream in self.streams:
            if isinstance(stream, LatestBook):
                stream.put_live(book)
            else:
                copy = copy or book.copy()  # one for all
                stream.put(copy, book.time_ms, book.time_ms)


class _Rows(_Listeners[Any]):
    """Those of one coin's trades or candles, and what becomes of its interruptions."""

    __slots__ = ("doubts", "links", "recovery", "served", "subscription")

    def __init__(self, subscription: dict[str, Any], recovery: Recovery[Any], put: Callable[[Any], object]) -> None:
        super().__init__(put)
        self.subscription, self.recovery = subscription, recovery
        self.served = False  # once was: before that nothing can be interrupted
        self.doubts: dict[int, int] = {}  # links that returned beside others, and the time of the newest trade then
        self.links: set[int] = set()  # that had it before


class Market:
    """`hl.market`: live books, trades and candles, shared by all who ask. For the loop's thread only; see `Book.copy`.

    A callback runs synchronously in the receive path, after its book was updated. One that raises ends the stream of
    its coin for all who listen to it, and the body of `async with connect()` is cancelled with that exception.

    stats: histograms of what the session measured.
    """

    def __init__(
        self,
        feed: Feed,
        subscribe: Callable[[Mapping[str, Any]], object],
        unsubscribe: Callable[[Mapping[str, Any]], object],
        *,
        query: Query | None = None,
        on_error: Callable[[BaseException], object] | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        call_later: CallLater | None = None,
        trade_users: bool = False,
    ) -> None:
        """query(body): asks the venue's info; None: nothing can be filled, and gaps are only declared. on_error(exc): a
        callback that raised outside of a message. clock_ns: that of `recv_ns`. call_later: the loop's by default."""
        self._feed, self._subscribe, self._unsubscribe = feed, subscribe, unsubscribe
        self._query, self._on_error, self._clock_ns, self._call_later = query, on_error, clock_ns, call_later
        self._trade_dtype = TRADE_USERS_DTYPE if trade_users else TRADE_DTYPE
        self.stats = Stats(feed)
        self._books: dict[str, _Books] = {}
        self._trades: dict[str, _Rows] = {}
        self._candles: dict[tuple[str, str], _Rows] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._on_gap: tuple[GapCallback, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[Any] = set()
        self._next_query_ns = 0
        self._closed = False
        feed.on_stale(self._book_ceased)
        feed.on_live(self._book_is_live)

    # Books.

    async def book(
        self, coin: str, *, depth: int | None = None, feeds: tuple[str, ...] = FEEDS, timeout_s: float = 10.0
    ) -> Book:
        """The live book of `coin`, once its first snapshot is in; subscribes to `feeds` as needed.

        It stays live, although nobody listens to it, until `release(coin)`.
        depth: levels a side, the same for all who ask for this coin; None for 20, or what it has.
        feeds: of "bbo" (top of the book, on change),
        "fast" (5 levels, about every 0.5 s) and "slow" (20 levels, about every 5 s).
        Raises SubscriptionRefused with the venue's words, or LinkDown when no snapshot came within `timeout_s`.
        """
        books = self._want_book(coin, depth, feeds)
        books.pinned = True
        book = books.book
        if not book.stale:
            return book
        live = asyncio.get_running_loop().create_future()

        def look(book: Book) -> None:
            if not book.stale and not live.done():
                live.set_result(None)

        waiters = self._waiters.setdefault(coin, [])
        waiters.append(live)
        stop = self._listen_to_book(coin, books, look)
        try:
            async with asyncio.timeout(timeout_s):  # not wait_for: it loses a cancellation that comes with the result
                await live
        except TimeoutError:
            raise LinkDown(
                f"no book of {coin} within {timeout_s:g} s: {book.stale_reason}. Is the coin traded on this network?"
            ) from None
        finally:
            stop()
            waiters.remove(live)
        return book

    def release(self, coin: str) -> None:
        """Give back what `book(coin)` asked for. When nobody else listens to it, the book is stale from here on."""
        books = self._books.get(coin)
        if books is not None:
            books.pinned = False
            self._leave_book(coin, books)

    def on_book(
        self, coin: str, callback: BookCallback, *, depth: int | None = None, feeds: tuple[str, ...] = FEEDS
    ) -> Callable[[], None]:
        """Call `callback(book)` after each message that was applied to the book of `coin`, also while it is stale.

        Returns a function that ends this. The last one out unsubscribes, unless `book(coin)` asked for it.
        """
        return self._listen_to_book(coin, self._want_book(coin, depth, feeds), callback)

    def books(
        self,
        coin: str,
        *,
        maxsize: int = 1000,
        overflow: Overflow = "conflate",
        depth: int | None = None,
        feeds: tuple[str, ...] = FEEDS,
    ) -> Stream[Book]:
        """A stream of frozen copies of the book of `coin`, stale ones among them, each `Gap` in its place.

        With "conflate" a reader gets the latest book there is, copied when it is read, and once more when it is stale.
        See `Stream`.
        """
        made = LatestBook if overflow == "conflate" else Stream
        stream: Stream[Book] = made("book", coin, maxsize, overflow)
        books = self._want_book(coin, depth, feeds)

        def leave() -> None:
            books.streams = tuple(each for each in books.streams if each is not stream)
            self._leave_book(coin, books)

        books.streams += (stream,)
        self._feed.on_book(coin, books.target)
        return stream.bind(leave)

    def require_fresh(self, coin: str, max_age_ms: float, now_ns: int | None = None) -> Book:
        """The book of `coin`, if it is live and its newest message is at most `max_age_ms` old, on our clock.

        now_ns: by default now. Raises StaleBook, which says why and how old each feed is; nothing is subscribed to.
        """
        books = self._books.get(coin)
        if books is None:
            raise StaleBook(coin, "nobody asked for it", {})
        book = books.book
        ages = {feed: age / 1e6 for feed, age in book.ages(self._clock_ns() if now_ns is None else now_ns).items()}
        if book.stale:
            raise StaleBook(coin, str(book.stale_reason), ages)
        if min(ages.values()) > max_age_ms:
            raise StaleBook(coin, f"nothing newer than {max_age_ms:g} ms", ages)
        return book

    def held(self, coin: str) -> Book | None:
        """The book of `coin`, live or stale, if somebody asked for it; nothing is subscribed to."""
        books = self._books.get(coin)
        return None if books is None else books.book

    # Trades and candles.

    def on_trades(self, coin: str, callback: TradesCallback) -> Callable[[], None]:
        """Call `callback(trades)` for each trades message of `coin`: a structured array of `hlconn.TRADE_DTYPE`.

        The array is reused by the next message: copy what you keep. Each trade comes once, and in order: after an
        interruption, new ones wait up to 3 s for those that were missed; see `on_gap`. Returns a function that ends
        this; the last one out unsubscribes.
        """
        rows = self._want_trades(coin)
        rows.callbacks += (callback,)
        self._aim_trades(coin, rows)

        def stop() -> None:
            if rows.remove(callback):
                self._leave_trades(coin, rows)

        return stop

    def trades(self, coin: str, *, maxsize: int = 1000, overflow: Overflow = "drop_oldest") -> Stream[NDArray[np.void]]:
        """A stream of the trades of `coin`: a read-only array of `hlconn.TRADE_DTYPE` for each message. See `Stream`.

        With "conflate", the last message alone is kept.
        """
        stream: Stream[NDArray[np.void]] = Stream("trades", coin, maxsize, overflow)
        rows = self._want_trades(coin)

        def leave() -> None:
            rows.streams = tuple(each for each in rows.streams if each is not stream)
            self._leave_trades(coin, rows)

        rows.streams += (stream,)
        self._aim_trades(coin, rows)
        return stream.bind(leave)

    def candles(
        self, coin: str, interval: str, *, maxsize: int = 1000, overflow: Overflow = "drop_oldest"
    ) -> Stream[Candle]:
        """A stream of the candles of `coin`, each again at every change. See `Candle` and `Stream`.

        interval: "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d", "3d", "1w" or "1M".
        """
        stream: Stream[Candle] = Stream("candle", coin, maxsize, overflow)
        rows = self._candles.get((coin, interval))
        if rows is None:
            made = rows = _Rows(
                {"type": "candle", "coin": coin, "interval": interval},
                Recovery(coin, CandleHistory()),
                lambda candle: self._put_candle(made, candle),
            )
            self._candles[coin, interval] = rows
        wanted = rows

        def leave() -> None:
            wanted.streams = tuple(each for each in wanted.streams if each is not stream)
            if not wanted.used and self._candles.get((coin, interval)) is wanted:
                del self._candles[coin, interval]
                self._unsubscribe(wanted.subscription)

        wanted.streams += (stream,)
        stream.bind(leave)
        try:
            self._subscribe(wanted.subscription)
        except BaseException:
            stream.close()
            raise
        return stream

    def on_gap(self, callback: GapCallback) -> Callable[[], None]:
        """Call `callback(gap)` for each interruption of anything that somebody listens to, in order with its data.

        Returns a function that ends this.
        """
        self._on_gap += (callback,)

        def stop() -> None:
            self._on_gap = tuple(each for each in self._on_gap if each is not callback)

        return stop

    # What the client tells.

    def up(self, subscription: Mapping[str, Any], recv_ns: int) -> None:
        """The subscription is served (again)."""
        rows = self._rows_of(subscription)
        if rows is None:
            return
        rows.served = True
        if rows.recovery.state is State.DOWN:
            round_ = rows.recovery.round
            self._later(_QUIET_S, lambda: self._quiet(rows, round_))

    def down(self, subscription: Mapping[str, Any], reason: str, recv_ns: int) -> None:
        """Nobody serves the subscription any more: the last link that did lost it."""
        if subscription.get("type") in ("l2Book", "bbo"):
            self._feed.mark_stale(reason, subscription)
            return
        rows = self._rows_of(subscription)
        if rows is None:
            return
        coin, trades = str(subscription["coin"]), subscription["type"] == "trades"
        last_ms = (self._feed.last_trade_ms(coin) or 0) if trades else rows.recovery.last_ms
        if not rows.served and not last_ms:
            return
        out = rows.recovery.down(reason, last_ms)
        if trades:
            rows.doubts.clear()
            self._feed.on_replay(coin, lambda new, known, link: self._first_trades(rows, new, known))
        self._deliver(rows, out, guarded=True)

    def resumed(self, subscription: Mapping[str, Any], link: int) -> None:
        """With redundancy: the venue has acknowledged the subscription on one of its links."""
        rows = self._rows_of(subscription)
        if rows is None or subscription["type"] != "trades" or rows.recovery.state is State.DOWN:
            return  # when it is down, the first message of any link is looked at
        last_ms = self._feed.last_trade_ms(rows.recovery.coin) or 0
        if not last_ms and link not in rows.links:
            rows.links.add(link)
            return  # it is the beginning
        rows.links.add(link)
        rows.doubts[link] = last_ms
        self._look_at(rows, link)

    def on_message(self, channel: str, message: bytes) -> None:
        """A message of a channel that the feed does not read."""
        if channel != "candle" or not self._candles:
            return
        try:
            candle = Candle.read(orjson.loads(message)["data"])
        except (KeyError, TypeError, ValueError) as exc:
            _log.error("a candle that cannot be read: %r", exc)
            return
        rows = self._candles.get((candle.coin, candle.interval))
        if rows is None:
            return
        recovery = rows.recovery
        last = recovery.last_item
        # A candle only grows: what is not newer than the last one came over another link before.
        if last is not None and (candle.open_ms, candle.n) <= (last.open_ms, last.n):
            if recovery.state is State.DOWN and candle.open_ms == last.open_ms:
                self._deliver(rows, recovery.first(None, True), guarded=True)
            return
        if recovery.state is State.LIVE:
            recovery.delivered(candle)
            self._deliver(rows, [candle], guarded=True)
        elif recovery.state is State.DOWN:
            self._deliver(
                rows, recovery.first(candle, last is not None and candle.open_ms == last.open_ms), guarded=True
            )
            self._fill_if_wanted(rows)
        else:
            recovery.item(candle)

    def callback_failed(self, channel: str, coin: str, exc: BaseException) -> None:
        """End the subscription whose callback raised: nobody is called for it again, and its book stays stale."""
        reason = f"a callback raised {exc!r}"
        if channel == "trades":
            self._end_trades(coin, LinkDown(f"no trades of {coin}: {reason}", exc))
        else:
            self._end_book(coin, reason, LinkDown(f"no book of {coin}: {reason}", exc))

    def refused(self, subscription: dict[str, Any], message: str) -> SubscriptionRefused | None:
        """The venue refused: tell those who wait for it; the error itself when somebody else loses by it."""
        error = SubscriptionRefused(subscription, message)
        coin = str(subscription.get("coin"))
        if subscription.get("type") == "trades":
            rows = self._trades.get(coin)
            others = rows is None or bool(rows.callbacks) or not rows.streams
            self._end_trades(coin, error)
            return error if others else None
        if subscription.get("type") == "candle":
            candles = self._candles.pop((coin, str(subscription.get("interval"))), None)
            if candles is None:
                return error
            candles.end(error)
            self._unsubscribe(candles.subscription)
            return None
        books = self._books.get(coin)
        waiting = len(self._waiters.get(coin, ()))
        told = waiting or (books is not None and books.streams)
        others = books is not None and len(books.callbacks) > waiting
        self._end_book(coin, f"refused by the venue: {message}", error)
        return None if told and not others else error

    def closed(self, error: Exception) -> None:
        """The session ends: whoever still waits for a book is told so, streams end."""
        self._closed = True
        for coin in list(self._waiters):
            self._give_up(coin, error)
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        # one that is being filled, or was cut off by the end itself, has been interrupted all the same
        for rows in [*self._trades.values(), *self._candles.values()]:
            if rows.recovery.state is not State.LIVE:
                self._deliver(rows, rows.recovery.give_up(), guarded=True)
        for listeners in [*self._books.values(), *self._trades.values(), *self._candles.values()]:
            streams = listeners.streams
            for stream in streams:
                stream.end()

    # Inside: books.

    def _want_book(self, coin: str, depth: int | None, feeds: tuple[str, ...]) -> _Books:
        if isinstance(feeds, str):
            raise ConfigError(f"feeds must be a tuple such as ({feeds!r},), not a str")
        books = self._books.get(coin)
        if books is not None:
            for feed in feeds:  # first: a book that is meant to have a feed that nobody brings is never live again
                self._subscribe(_book_subscription(coin, feed))
            self._feed.book(coin, depth, feeds=feeds)
            return books
        books = self._books[coin] = _Books(self._feed.book(coin, depth, feeds=feeds))
        try:
            for feed in feeds:
                self._subscribe(_book_subscription(coin, feed))
        except BaseException:
            self._leave_book(coin, books)
            raise
        return books

    def _listen_to_book(self, coin: str, books: _Books, callback: BookCallback) -> Callable[[], None]:
        books.callbacks += (callback,)
        self._feed.on_book(coin, books.target)

        def stop() -> None:
            if books.remove(callback):
                self._leave_book(coin, books)

        return stop

    def _leave_book(self, coin: str, books: _Books) -> None:
        if self._books.get(coin) is not books:
            return
        if books.used or books.pinned:
            self._feed.on_book(coin, books.target)
            return
        del self._books[coin]
        self._drop_book(coin, "nobody asks for it any more")

    def _drop_book(self, coin: str, reason: str) -> None:
        self._feed.drop_book(coin, reason)
        for feed in FEEDS:
            self._unsubscribe(_book_subscription(coin, feed))

    def _give_up(self, coin: str, error: Exception) -> None:
        for waiter in self._waiters.get(coin, ()):
            if not waiter.done():
                waiter.set_exception(error)

    def _end_book(self, coin: str, reason: str, error: Exception) -> None:
        _log.error("the book of %s ends: %s", coin, reason)
        self._give_up(coin, error)
        books = self._books.pop(coin, None)
        self._drop_book(coin, reason)
        if books is not None:
            books.end(error)

    def _book_ceased(self, coin: str, reason: str) -> None:
        books = self._books.get(coin)
        if books is not None and books.streams:
            books.put(books.book)  # so that a reader who waits learns of it

    def _book_is_live(self, coin: str, from_ms: int, reason: str) -> None:
        books = self._books.get(coin)
        if books is not None:
            self._tell_gap(books, Gap("book", coin, from_ms, max(from_ms, books.book.time_ms), False, reason))

    # Inside: trades and candles.

    @staticmethod
    def _put_candle(rows: _Rows, candle: Candle) -> None:
        for stream in rows.streams:
            stream.put(candle, candle.open_ms, candle.open_ms)

    def _want_trades(self, coin: str) -> _Rows:
        rows = self._trades.get(coin)
        if rows is None:
            rows = _Rows(
                {"type": "trades", "coin": coin}, Recovery(coin, TradeHistory(coin, self._feed)), lambda new: None
            )
            rows.put = lambda new: self._put_trades(rows, new)
            self._feed.on_trades(coin, rows.put)  # it refuses a coin that cannot be one
            self._trades[coin] = rows
        try:
            self._subscribe(rows.subscription)
        except BaseException:
            self._leave_trades(coin, rows)
            raise
        return rows

    @staticmethod
    def _put_trades(rows: _Rows, new: NDArray[np.void]) -> None:
        copy = new.copy()  # one for all
        copy.flags.writeable = False
        for stream in rows.streams:
            stream.put(copy, int(copy["time"][0]), int(copy["time"][-1]))

    def _aim_trades(self, coin: str, rows: _Rows) -> None:
        if self._trades.get(coin) is rows:
            held = rows.recovery.state is State.FILLING
            self._feed.on_trades(coin, (lambda new: rows.recovery.item(new.copy())) if held else rows.target)

    def _leave_trades(self, coin: str, rows: _Rows) -> None:
        if self._trades.get(coin) is not rows:
            return
        if rows.used:
            self._aim_trades(coin, rows)
            return
        del self._trades[coin]
        self._feed.on_trades(coin, None)
        self._unsubscribe(rows.subscription)

    def _end_trades(self, coin: str, error: Exception) -> None:
        rows = self._trades.pop(coin, None)
        self._feed.on_trades(coin, None)
        self._unsubscribe({"type": "trades", "coin": coin})
        if rows is not None:
            rows.end(error)

    def _first_trades(self, rows: _Rows, new: NDArray[np.void], known: int) -> None:
        """The first message after an interruption, from the feed."""
        out = rows.recovery.first(new.copy() if len(new) else None, known > 0)
        self._fill_if_wanted(rows)
        self._deliver(rows, out, guarded=False)

    def _look_at(self, rows: _Rows, link: int) -> None:
        coin = rows.recovery.coin
        self._feed.on_replay(coin, lambda new, known, link: self._returned(rows, new, known, link), link)

    def _returned(self, rows: _Rows, new: NDArray[np.void], known: int, link: int) -> None:
        """The first message over a link that returned while others were thought to serve the stream.

        One trade in it that was known proves that none is missing. Else the others are behind, or dead without
        anybody having noticed yet: what lies between is asked for, and new trades wait for it.
        """
        recovery = rows.recovery
        last_ms = rows.doubts.pop(link)
        out: list[Any] = []
        if not known and recovery.state is not State.DOWN:
            out = recovery.down(f"link {link} returned, and nothing that it said was known", last_ms)
            out += recovery.first(new.copy(), False)
            self._fill_if_wanted(rows)
        elif len(new):
            out = recovery.item(new.copy())
        self._deliver(rows, out, guarded=False)

    # Inside: gaps.

    def _rows_of(self, subscription: Mapping[str, Any]) -> _Rows | None:
        coin = str(subscription.get("coin"))
        if subscription.get("type") == "trades":
            return self._trades.get(coin)
        if subscription.get("type") == "candle":
            return self._candles.get((coin, str(subscription.get("interval"))))
        return None

    def _is_wanted(self, rows: _Rows) -> bool:
        return self._rows_of(rows.subscription) is rows

    def _tell_gap(self, listeners: _Listeners[Any], gap: Gap) -> None:
        _log.info("%s", gap)
        for stream in listeners.streams:
            stream.gap(gap)
        for callback in self._on_gap:
            callback(gap)

    def _deliver(self, rows: _Rows, out: list[Any], *, guarded: bool) -> None:
        """Gaps and items to who listens. guarded: nobody above looks after what a callback raises."""
        try:
            for each in out:
                if isinstance(each, Gap):
                    self._tell_gap(rows, each)
                    continue
                for callback in rows.callbacks:
                    if callback in rows.callbacks:  # not stopped by one before it
                        callback(each)
                if rows.streams:
                    rows.put(each)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            if not guarded:
                raise
            self._failed(rows, exc)
        finally:
            if rows.subscription["type"] == "trades":
                if rows.recovery.state is State.LIVE:
                    self._feed.on_replay(rows.recovery.coin, None)
                    for link in rows.doubts:
                        self._look_at(rows, link)
                self._aim_trades(rows.recovery.coin, rows)

    def _failed(self, rows: _Rows, exc: BaseException) -> None:
        _log.error("a callback raised: %r", exc, exc_info=exc)
        if rows.subscription["type"] == "trades":
            self.callback_failed("trades", rows.recovery.coin, exc)
        if self._on_error is not None:
            self._on_error(exc)

    def _quiet(self, rows: _Rows, round_: int) -> None:
        if rows.recovery.round == round_ and self._is_wanted(rows):
            rows.recovery.nothing_came()
            self._fill_if_wanted(rows)

    def _fill_if_wanted(self, rows: _Rows) -> None:
        recovery = rows.recovery
        if not recovery.query_wanted or self._closed:
            return
        recovery.query_wanted = False
        round_ = recovery.round
        if recovery.state is State.FILLING:
            self._later(_HOLD_S, lambda: self._deliver(rows, recovery.failed(round_), guarded=True))
        if self._query is None:
            self._later(0.0, lambda: self._deliver(rows, recovery.failed(round_), guarded=True))
            return
        now_ns = self._clock_ns()
        delay_s = max(0, self._next_query_ns - now_ns) / 1e9 - _QUERIES_AT_ONCE
        self._next_query_ns = max(now_ns, self._next_query_ns) + 1_000_000_000
        self._later(max(0.0, delay_s), lambda: self._start_filling(rows, round_))

    def _start_filling(self, rows: _Rows, round_: int) -> None:
        if rows.recovery.round == round_ and self._is_wanted(rows) and not self._closed:
            task = asyncio.get_running_loop().create_task(self._fill(rows, round_), name="hlconn market fill")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fill(self, rows: _Rows, round_: int) -> None:
        recovery, subscription = rows.recovery, rows.subscription
        assert self._query is not None
        answer: Any = None
        try:
            if subscription["type"] == "trades":
                found = await self._query({"type": "recentTrades", "coin": recovery.coin})
                answer = read_trades(found, self._trade_dtype)
            else:
                request = {"coin": recovery.coin, "interval": subscription["interval"], "startTime": recovery.last_ms}
                answer = list(map(Candle.read, await self._query({"type": "candleSnapshot", "req": request})))
        except Exception as exc:
            _log.warning("what %s of %s missed cannot be asked: %r", subscription["type"], recovery.coin, exc)
        if self._is_wanted(rows):
            out = recovery.failed(round_) if answer is None else recovery.filled(round_, answer)
            self._deliver(rows, out, guarded=True)

    def _later(self, delay_s: float, callback: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            callback()

        timer = (self._call_later or asyncio.get_running_loop().call_later)(delay_s, due)
        self._timers.add(timer)
