"""Books and trades of a live session: who wants what, and whom to call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._core.book import Book
from ._core.feed import Feed
from .errors import ConfigError, LinkDown, SubscriptionRefused
from .types import FEEDS

__all__ = ["BookCallback", "Market", "TradesCallback"]

_log = logging.getLogger("hlconn.market")

BookCallback = Callable[[Book], object]
TradesCallback = Callable[[NDArray[np.void]], object]


def _book_subscription(coin: str, feed: str) -> dict[str, Any]:
    if feed == "bbo":
        return {"type": "bbo", "coin": coin}
    return {"type": "l2Book", "coin": coin, "fast": True} if feed == "fast" else {"type": "l2Book", "coin": coin}


def _trades_subscription(coin: str) -> dict[str, Any]:
    return {"type": "trades", "coin": coin}


class _Fanout:
    """The callbacks of one stream, as one callable for the feed."""

    __slots__ = ("callbacks",)

    def __init__(self) -> None:
        self.callbacks: tuple[Callable[[Any], object], ...] = ()

    def __call__(self, value: object) -> None:
        for callback in self.callbacks:
            if callback in self.callbacks:  # not stopped by one before it
                callback(value)

    @property
    def target(self) -> Callable[[Any], object] | None:
        """What the feed should call: nobody, the only callback itself, or this."""
        if len(self.callbacks) > 1:
            return self
        return self.callbacks[0] if self.callbacks else None


class Market:
    """`hl.market`: live books and trades, shared by all who ask. For the loop's thread only; see `Book.copy`.

    A callback runs synchronously in the receive path, after its book was updated. One that raises ends the stream of
    its coin for all who listen to it, and the body of `async with connect()` is cancelled with that exception.
    """

    def __init__(
        self,
        feed: Feed,
        subscribe: Callable[[Mapping[str, Any]], object],
        unsubscribe: Callable[[Mapping[str, Any]], object],
    ) -> None:
        self._feed, self._subscribe, self._unsubscribe = feed, subscribe, unsubscribe
        self._books: dict[str, _Fanout] = {}
        self._trades: dict[str, _Fanout] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._kept: dict[str, Book] = {}

    async def book(
        self, coin: str, *, depth: int | None = None, feeds: tuple[str, ...] = FEEDS, timeout_s: float = 10.0
    ) -> Book:
        """The live book of `coin`, once its first snapshot is in; subscribes to `feeds` as needed.

        depth: levels a side, the same for all who ask for this coin; None for 20, or what it has.
        feeds: of "bbo" (top of the book, on change),
        "fast" (5 levels, about every 0.5 s) and "slow" (20 levels, about every 5 s).
        Raises SubscriptionRefused with the venue's words, or LinkDown when no snapshot came within `timeout_s`.
        """
        book = self._want_book(coin, depth, feeds)
        if not book.stale:
            return book
        live = asyncio.get_running_loop().create_future()

        def look(book: Book) -> None:
            if not book.stale and not live.done():
                live.set_result(None)

        waiters = self._waiters.setdefault(coin, [])
        waiters.append(live)
        stop = self._listen_to_book(coin, look)
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

    def on_book(
        self, coin: str, callback: BookCallback, *, depth: int | None = None, feeds: tuple[str, ...] = FEEDS
    ) -> Callable[[], None]:
        """Call `callback(book)` after each message that was applied to the book of `coin`, also while it is stale.

        Returns a function that ends this. The book itself stays live for whoever holds it.
        """
        self._want_book(coin, depth, feeds)
        return self._listen_to_book(coin, callback)

    def on_trades(self, coin: str, callback: TradesCallback) -> Callable[[], None]:
        """Call `callback(trades)` for each trades message of `coin`: a structured array of `hlconn.TRADE_DTYPE`.

        The array is reused by the next message: copy what you keep. After each (re)subscribe the venue replays
        recent trades: tell them by `tid`. Returns a function that ends this; the last one out unsubscribes.
        """
        fanout = self._trades.setdefault(coin, _Fanout())
        fanout.callbacks += (callback,)
        self._feed.on_trades(coin, fanout.target)
        self._subscribe(_trades_subscription(coin))

        def stop() -> None:
            if not _without(fanout, callback):
                return
            self._feed.on_trades(coin, fanout.target)
            if not fanout.callbacks:
                self._unsubscribe(_trades_subscription(coin))

        return stop

    def held(self, coin: str) -> Book | None:
        """The book of `coin`, live or stale, if somebody asked for it; nothing is subscribed to."""
        return self._kept.get(coin)

    # What the client tells.

    def callback_failed(self, channel: str, coin: str, exc: BaseException) -> None:
        """End the subscription whose callback raised: nobody is called for it again, and its book stays stale."""
        if channel == "trades":
            self._end_trades(coin)
        else:
            reason = f"a callback raised {exc!r}"
            self._end_book(coin, reason, LinkDown(f"no book of {coin}: {reason}", exc))

    def refused(self, subscription: dict[str, Any], message: str) -> SubscriptionRefused | None:
        """The venue refused: tell those who wait for that book; the error itself when somebody else loses by it."""
        error = SubscriptionRefused(subscription, message)
        coin = str(subscription.get("coin"))
        if subscription.get("type") == "trades":
            self._end_trades(coin)
            return error
        waiting = len(self._waiters.get(coin, ()))
        others = len(self._books.get(coin, _Fanout()).callbacks) - waiting
        self._end_book(coin, f"refused by the venue: {message}", error)
        return None if waiting and not others else error

    def closed(self, error: Exception) -> None:
        """The session ends: whoever still waits for a book is told so."""
        for coin in list(self._waiters):
            self._give_up(coin, error)

    # Inside.

    def _want_book(self, coin: str, depth: int | None, feeds: tuple[str, ...]) -> Book:
        if isinstance(feeds, str):
            raise ConfigError(f"feeds must be a tuple such as ({feeds!r},), not a str")
        book = self._kept[coin] = self._feed.book(coin, depth, feeds=feeds)
        for feed in feeds:
            self._subscribe(_book_subscription(coin, feed))
        return book

    def _listen_to_book(self, coin: str, callback: BookCallback) -> Callable[[], None]:
        fanout = self._books.setdefault(coin, _Fanout())
        fanout.callbacks += (callback,)
        self._feed.on_book(coin, fanout.target)

        def stop() -> None:
            if _without(fanout, callback) and self._books.get(coin) is fanout:
                self._feed.on_book(coin, fanout.target)

        return stop

    def _give_up(self, coin: str, error: Exception) -> None:
        for waiter in self._waiters.get(coin, ()):
            if not waiter.done():
                waiter.set_exception(error)

    def _end_trades(self, coin: str) -> None:
        self._trades.pop(coin, _Fanout()).callbacks = ()
        self._feed.on_trades(coin, None)
        self._unsubscribe(_trades_subscription(coin))

    def _end_book(self, coin: str, reason: str, error: Exception) -> None:
        _log.error("the book of %s ends: %s", coin, reason)
        self._give_up(coin, error)
        self._books.pop(coin, _Fanout()).callbacks = ()
        self._feed.drop_book(coin, reason)
        self._kept.pop(coin, None)
        for feed in FEEDS:
            self._unsubscribe(_book_subscription(coin, feed))


def _without(fanout: _Fanout, callback: Callable[[Any], object]) -> bool:
    """Take one callback out; False when it was out already."""
    if callback not in fanout.callbacks:
        return False
    at = fanout.callbacks.index(callback)
    fanout.callbacks = fanout.callbacks[:at] + fanout.callbacks[at + 1 :]
    return True
