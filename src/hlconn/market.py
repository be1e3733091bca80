"""Books, trades and candles of a live session: who wants what, whom to call, and what was missed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ._core.book import Book
from ._core.feed import Feed
from .errors import ConfigError, DecodeError, LinkDown, StaleBook, SubscriptionRefused
from .gaps import Gap
from .rows import CandleRows, Questions, Rows, Timer, TradeRows
from .session.link import canonical
from .stats import Stats
from .streams import LatestBook, Listeners, Overflow, Stream
from .types import FEEDS, TRADE_DTYPE, TRADE_USERS_DTYPE, Candle

__all__ = ["BookCallback", "GapCallback", "Market", "TradesCallback"]

_log = logging.getLogger("hlconn.market")

BookCallback = Callable[[Book], object]
TradesCallback = Callable[[NDArray[np.void]], object]
GapCallback = Callable[[Gap], object]
Query = Callable[[dict[str, Any]], Awaitable[Any]]
CallLater = Callable[[float, Callable[[], None]], Any]

_OF_BOOKS = ("l2Book", "bbo")


def _book_subscription(coin: str, feed: str) -> dict[str, Any]:
    if feed == "bbo":
        return {"type": "bbo", "coin": coin}
    return {"type": "l2Book", "coin": coin, "fast": True} if feed == "fast" else {"type": "l2Book", "coin": coin}


class _Books(Listeners[Book]):
    """Those of one coin's book, and the book."""

    __slots__ = ("book", "ceased", "pinned")

    def __init__(self, book: Book) -> None:
        super().__init__(self._put)
        self.book = book
        self.pinned = False  # by Market.book(): it stays although nobody listens
        self.ceased: tuple[int, str] | None = None  # to be live: the venue's time then, and why

    def _put(self, book: Book) -> None:
        copy: Book | None = None
        for stream in self.streams:
            if isinstance(stream, LatestBook):
                stream.put_live(book)
            else:
                copy = copy or book.copy()  # one for all
                stream.put(copy, book.time_ms, book.time_ms)


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
        self._feed, self._subscribe, self._give_back = feed, subscribe, unsubscribe
        self._query, self._on_error, self._clock_ns, self._call_later = query, on_error, clock_ns, call_later
        self._trade_dtype = TRADE_USERS_DTYPE if trade_users else TRADE_DTYPE
        self.stats = Stats(feed)
        self._books: dict[str, _Books] = {}
        self._trades: dict[str, TradeRows] = {}
        self._candles: dict[tuple[str, str], CandleRows] = {}
        self._serving: dict[bytes, set[int]] = {}  # links, by subscription of a book
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._on_gap: tuple[GapCallback, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[_Timer] = set()
        self._questions = Questions(clock_ns, self.later, self._start_asking)
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
        rows.aim()

        def stop() -> None:
            if rows.remove(callback):
                self._leave_rows(rows)

        return stop

    def trades(self, coin: str, *, maxsize: int = 1000, overflow: Overflow = "drop_oldest") -> Stream[NDArray[np.void]]:
        """A stream of the trades of `coin`: a read-only array of `hlconn.TRADE_DTYPE` for each message. See `Stream`.

        With "conflate", the last message alone is kept.
        """
        stream: Stream[NDArray[np.void]] = Stream("trades", coin, maxsize, overflow)
        rows = self._want_trades(coin)

        def leave() -> None:
            rows.streams = tuple(each for each in rows.streams if each is not stream)
            self._leave_rows(rows)

        rows.streams += (stream,)
        rows.aim()
        return stream.bind(leave)

    def candles(
        self, coin: str, interval: str, *, maxsize: int = 1000, overflow: Overflow = "drop_oldest"
    ) -> Stream[Candle]:
        """A stream of the candles of `coin`, each again at every change. See `Candle` and `Stream`.

        interval: "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d", "3d", "1w" or "1M".
        """
        stream: Stream[Candle] = Stream("candle", coin, maxsize, overflow)
        found = self._candles.get((coin, interval))
        rows = found or self._candles.setdefault((coin, interval), CandleRows(coin, interval, self))

        def leave() -> None:
            rows.streams = tuple(each for each in rows.streams if each is not stream)
            self._leave_rows(rows)

        rows.streams += (stream,)
        stream.bind(leave)
        try:
            self._subscribe(rows.subscription)
        except BaseException:  # whatever it was, nobody will read this stream
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

    def up(self, subscription: Mapping[str, Any], link: int, recv_ns: int) -> None:
        """That link serves the subscription (again)."""
        if subscription.get("type") in _OF_BOOKS:
            self._serving.setdefault(canonical(subscription), set()).add(link)
        elif (rows := self._rows_of(subscription)) is not None:
            rows.up(link)

    def down(self, subscription: Mapping[str, Any], link: int, reason: str, recv_ns: int) -> None:
        """That link does not serve the subscription any more."""
        if subscription.get("type") in _OF_BOOKS:
            serving = self._serving.get(canonical(subscription), set())
            serving.discard(link)
            if not serving:
                self._feed.mark_stale(reason, subscription)
        elif not self._closed and (rows := self._rows_of(subscription)) is not None:
            rows.down(link, reason)

    def unreadable(self, exc: DecodeError, link: int) -> None:
        """A message of that link could not be read. Of books the feed knows already."""
        if exc.channel in ("trades", "") and not self._closed:  # when even its beginning could not be read: of any coin
            for rows in [self._trades[exc.coin]] if exc.coin in self._trades else list(self._trades.values()):
                rows.unreadable(link, exc.reason)
        if exc.channel in ("candle", "") and not self._closed:
            for candles in list(self._candles.values()):
                candles.unreadable(link, exc.reason)

    def on_message(self, channel: str, message: bytes) -> None:
        """A message of a channel that the feed does not read."""
        if channel != "candle" or not self._candles:
            return
        link = self._feed.link
        try:
            candle = Candle.read(orjson.loads(message)["data"])
        except (KeyError, TypeError, ValueError) as exc:
            _log.error("a candle that cannot be read: %r", exc)
            self.unreadable(DecodeError(channel, 0, message, f"no candle: {exc!r}"), link)
            return
        rows = self._candles.get((candle.coin, candle.interval))
        if rows is not None:
            rows.message(candle, link)

    def callback_failed(self, channel: str, coin: str, exc: BaseException) -> None:
        """End the subscription whose callback raised: nobody is called for it again, and its book stays stale."""
        reason = f"a callback raised {exc!r}"
        if channel == "trades":
            self._end_rows(self._trades.get(coin), LinkDown(f"no trades of {coin}: {reason}", exc))
        else:
            self._end_book(coin, reason, LinkDown(f"no book of {coin}: {reason}", exc))

    def refused(self, subscription: dict[str, Any], message: str) -> SubscriptionRefused | None:
        """The venue refused: tell those who wait for it; the error itself when somebody else loses by it."""
        error = SubscriptionRefused(subscription, message)
        coin = str(subscription.get("coin"))
        if subscription.get("type") not in _OF_BOOKS:
            rows = self._rows_of(subscription)
            others = rows is None or bool(rows.callbacks) or not rows.streams
            self._end_rows(rows, error)
            return error if others else None
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
        for task in self._tasks:
            task.cancel()
        for rows in self._rows():  # one that is cut off, or being filled, has been interrupted all the same
            rows.close()
        for books in list(self._books.values()):  # a callback may end one
            if books.ceased is not None:
                from_ms, reason = books.ceased
                self._tell_gap_of(books, Gap("book", books.book.coin, from_ms, from_ms, False, reason))
        for timer in list(self._timers):
            timer.cancel()
        for listeners in [*self._books.values(), *self._rows()]:
            for stream in listeners.streams:
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
        except BaseException:  # whatever it was, nobody will listen
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
        if books is None:
            return
        if books.ceased is None:
            books.ceased = books.book.time_ms, reason
        if books.streams:
            books.put(books.book)  # so that a reader who waits learns of it

    def _book_is_live(self, coin: str, from_ms: int, reason: str) -> None:
        books = self._books.get(coin)
        if books is not None:
            books.ceased = None
            self._tell_gap_of(books, Gap("book", coin, from_ms, max(from_ms, books.book.time_ms), False, reason))

    def _tell_gap_of(self, books: _Books, gap: Gap) -> None:
        try:
            self.tell_gap(books, gap)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # as of any callback: it ends the book, and the body
            self.callback_failed("l2Book", gap.coin, exc)
            self._report(exc)

    # Inside: trades and candles.

    def _rows(self) -> list[Rows]:
        return [*self._trades.values(), *self._candles.values()]

    def _rows_of(self, subscription: Mapping[str, Any]) -> Rows | None:
        coin = str(subscription.get("coin"))
        if subscription.get("type") == "trades":
            return self._trades.get(coin)
        if subscription.get("type") == "candle":
            return self._candles.get((coin, str(subscription.get("interval"))))
        return None

    def _want_trades(self, coin: str) -> TradeRows:
        rows = self._trades.get(coin)
        if rows is None:
            rows = self._trades[coin] = TradeRows(coin, self._feed, self._trade_dtype, self)
        try:
            self._subscribe(rows.subscription)
        except BaseException:  # whatever it was, nobody will listen
            self._leave_rows(rows)
            raise
        return rows

    def _leave_rows(self, rows: Rows) -> None:
        if self._rows_of(rows.subscription) is not rows:
            return
        if rows.used:
            rows.aim()
        else:
            self._drop_rows(rows)

    def _drop_rows(self, rows: Rows) -> None:
        subscription = rows.subscription
        if subscription["type"] == "trades":
            del self._trades[subscription["coin"]]
        else:
            del self._candles[subscription["coin"], subscription["interval"]]
        rows.end_feed()
        self._unsubscribe(subscription)

    def _end_rows(self, rows: Rows | None, error: Exception) -> None:
        if rows is not None and self._rows_of(rows.subscription) is rows:
            self._drop_rows(rows)
            rows.end(error)

    # Inside: for both; and what rows need, see `Around`.

    def _unsubscribe(self, subscription: Mapping[str, Any]) -> None:
        self._serving.pop(canonical(subscription), None)
        self._give_back(subscription)

    def tell_gap(self, listeners: Listeners[Any], gap: Gap) -> None:
        _log.info("%s", gap)
        for stream in listeners.streams:
            stream.gap(gap)
        for callback in self._on_gap:
            callback(gap)

    def rows_failed(self, rows: Rows, exc: BaseException) -> None:
        _log.error("a callback raised: %r", exc, exc_info=exc)
        what = f"no {rows.subscription['type']} of {rows.subscription['coin']}: a callback raised {exc!r}"
        self._end_rows(rows, LinkDown(what, exc))
        self._report(exc)

    def _report(self, exc: BaseException) -> None:
        if self._on_error is not None:
            self._on_error(exc)

    def ask(self, rows: Rows) -> None:
        if not self._closed:
            self._questions.add(rows)

    def _start_asking(self, rows: Rows) -> None:
        if self._rows_of(rows.subscription) is not rows or self._closed:
            return
        round_, question = rows.question()
        if self._query is None:
            rows.unanswered(round_)
            return
        task = asyncio.get_running_loop().create_task(
            self._ask(self._query, question, rows, round_), name="hlconn market question"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, query: Query, question: dict[str, Any], rows: Rows, round_: int) -> None:
        try:
            rows.answered(round_, await query(question))
        except Exception as exc:
            _log.warning("what %s missed cannot be asked: %r", rows.subscription, exc)
            rows.unanswered(round_)

    def later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """As the loop's call_later, with timers that end with the session."""
        timer = _Timer(self._timers, callback)
        if not self._closed:
            self._timers.add(timer)
            timer.handle = (self._call_later or asyncio.get_running_loop().call_later)(delay_s, timer.due)
        return timer


class _Timer:
    """One of those that are kept until they are due."""

    __slots__ = ("_among", "_callback", "handle")

    def __init__(self, among: set[_Timer], callback: Callable[[], None]) -> None:
        self._among, self._callback = among, callback
        self.handle: Any = None

    def due(self) -> None:
        self._among.discard(self)
        self._callback()

    def cancel(self) -> None:
        self._among.discard(self)
        if self.handle is not None:
            self.handle.cancel()
