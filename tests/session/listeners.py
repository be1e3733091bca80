"""The real market on a real feed, on top of the modelled session of `simulation.py`, and whoever listens to it.

Each listener is compared with what the venue made, item by item: nothing twice, in order, and what did not come lies in
a gap that was told. A coroutine of the market runs by hand, when the model's clock says so.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import TYPE_CHECKING, Any

from hlconn import Book, Candle, Closed, DecodeError, Feed, Gap, Stream
from hlconn.market import Market
from hlconn.session.link import canonical, fold

if TYPE_CHECKING:
    from .simulation import World

__all__ = ["Listeners"]


class _Listener:
    """Of one subscription. owed: nobody serves it or did: a gap has to come before anything else does."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.owed = False
        self.begun = False
        self.gaps: list[Gap] = []
        self.stream: Stream[Any] | None = None
        self.stop: Callable[[], object] = lambda: None

    def begin(self, now_ms: int) -> None:
        """From here on everything was promised: what came before the session said so may be the last of what was given
        up a moment ago."""
        self.begun = True

    def gap(self, gap: Gap) -> None:
        assert gap.from_ms <= gap.to_ms, gap
        self.owed = False
        self.gaps.append(gap)

    def item(self, item: Any) -> None:
        assert not self.owed, f"{self.key.decode()}: an interruption was not told before what came after it"

    def is_declared(self, time_ms: int) -> bool:
        return any(gap.from_ms <= time_ms <= gap.to_ms and not gap.proven for gap in self.gaps)

    def lost(self) -> None:
        self.owed = self.owed or self.begun

    def missed_until(self, time_ms: int) -> str:
        """What the venue had said by then and was neither delivered nor declared, in words."""
        return ""

    def drain(self) -> None:
        """A stream's reader that is always quick enough."""
        while self.stream is not None and len(self.stream):
            try:
                self.stream.__anext__().send(None)
            except StopIteration as got:
                if isinstance(got.value, Gap):
                    self.gap(got.value)
                else:
                    self.item(got.value)


class _OfTrades(_Listener):
    """made: the venue's times of all trades; index: which of them by tid."""

    def __init__(self, key: bytes, made: list[int], index: Mapping[int, int]) -> None:
        super().__init__(key)
        self._made, self._index = made, index
        self._due = 0  # all before it are accounted for
        self._newest = -1
        self._missing: list[int] = []

    def begin(self, now_ms: int) -> None:
        if not self.begun:
            self.begun = True
            self._due = bisect_right(self._made, now_ms)

    def item(self, item: Any) -> None:
        super().item(item)
        for tid, time_ms in zip(item["tid"].tolist(), item["time"].tolist(), strict=True):
            at = self._index[tid]
            assert self._made[at] == time_ms
            assert at > self._newest, f"{self.key.decode()}: trade {at} after {self._newest}"
            self._newest = at
            if self.begun:
                missing = [self._made[i] for i in range(self._due, at)]
                silent = [time_ms for time_ms in missing if not self.is_declared(time_ms)]
                assert not silent, f"{self.key.decode()}: {self._due} to {at - 1} missed in silence, {silent}"
                self._missing += missing
                self._due = max(self._due, at + 1)
        for gap in self.gaps:
            inside = [time_ms for time_ms in self._missing if gap.proven and gap.from_ms < time_ms < gap.to_ms]
            assert not inside, f"{self.key.decode()}: {gap} is proven, and what is of {inside} was never delivered"

    def missed_until(self, time_ms: int) -> str:
        if not self.begun:
            return ""
        end = bisect_right(self._made, time_ms)
        silent = [at for at in range(self._due, end) if not self.is_declared(self._made[at])]
        return f"{self.key.decode()}: trades {silent} neither came nor are declared" if silent else ""


class _OfCandles(_Listener):
    """made: the venue's candles by opening, each with its number of trades. when: its last change."""

    def __init__(self, key: bytes, made: Mapping[int, int], when: Mapping[int, int]) -> None:
        super().__init__(key)
        self._made, self._when = made, when
        self._states: dict[int, int] = {}
        self._newest = (0, -1)
        self._since_ms = 0

    def begin(self, now_ms: int) -> None:
        if not self.begun:
            self.begun, self._since_ms = True, now_ms

    def item(self, item: Candle) -> None:
        super().item(item)
        state = (item.open_ms, item.n)
        assert state > self._newest, f"candle {state} after {self._newest}"
        self._newest = state
        self._states[item.open_ms] = item.n

    def missed_until(self, time_ms: int) -> str:
        silent = [
            (open_ms, n, self._states.get(open_ms))
            for open_ms, n in self._made.items()
            if self.begun and self._since_ms < self._when[open_ms] <= time_ms
            if self._states.get(open_ms) != n and not self.is_declared(open_ms)
        ]
        return f"{self.key.decode()}: candles {silent} neither came as they are nor are declared" if silent else ""


class _OfBook(_Listener):
    """A book that was live and ceased to be owes a gap, whoever lost it."""

    was_stale = False
    was_live = False
    time_ms = 0

    def lost(self) -> None: ...

    def gap(self, gap: Gap) -> None:
        super().gap(gap)
        self.was_stale = False
        self.time_ms = 0  # another link, behind the one that was lost, is where it begins anew

    def item(self, item: Book) -> None:
        assert item.stale or item.time_ms >= self.time_ms, f"the book of {item.coin} went back"
        self.time_ms = item.time_ms
        if item.stale:
            self.was_stale = self.was_live
        else:
            assert not self.was_stale, f"the book of {item.coin} is live again, and no gap was told"
            self.was_live = True


class _Timer:
    """Of the model's clock; while our own loop stands still, it is late."""

    def __init__(self, world: World, delay_s: float, callback: Callable[[], object]) -> None:
        self._world, self._callback = world, callback
        self.is_open = True
        world.at(world.now_s + max(0.0, delay_s), self._due)

    def _due(self) -> None:
        if self.is_open and self._world.thawed(self._due):
            self.is_open = False
            self._world.listeners.is_news = True
            self._callback()

    def cancel(self) -> None:
        self.is_open = False


class _Answer:
    """Awaited, it is the venue's answer to that body."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = body

    def __await__(self) -> Generator[dict[str, Any], Any, Any]:
        return (yield self._body)


class _Task:
    """A coroutine that waits for nothing but answers."""

    def __init__(self, world: World, coroutine: Coroutine[Any, Any, None]) -> None:
        self._world, self._coroutine = world, coroutine
        self._ended: list[Callable[[Any], object]] = []
        self.done = False
        _Timer(world, 0.0, lambda: self.go_on(None))

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._ended.append(callback)

    def cancel(self) -> None:
        _Timer(self._world, 0.0, lambda: self.go_on(asyncio.CancelledError()))

    def go_on(self, value: Any) -> None:
        if self.done:
            return
        try:
            if isinstance(value, BaseException):
                self._coroutine.throw(value)
                return  # it asks once more: nobody does
            body = self._coroutine.send(value)
        except (StopIteration, asyncio.CancelledError):
            self.done = True
            for callback in self._ended:
                callback(self)
            return
        self._world.ask_info(body, lambda answer: _Timer(self._world, 0.0, lambda: self.go_on(answer)))


class _Loop:
    """As much of a running loop as the market needs."""

    def __init__(self, world: World) -> None:
        self._world = world

    def create_task(self, coro: Any, **_: Any) -> Any:
        return _Task(self._world, coro)


class Listeners:
    """Whoever listens, the market between them and the session, and what every one of them heard."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.feed = Feed()
        self.is_news = False  # something was done since the last check
        self.loop: Any = _Loop(world)
        self.failures: list[BaseException] = []
        self.market = Market(
            self.feed,
            world.subscribe,
            world.unsubscribe,
            query=self._query,
            on_error=self.failures.append,
            clock_ns=self._now_ns,
            call_later=lambda delay_s, callback: _Timer(world, delay_s, callback),
        )
        self.market.on_gap(self._gap)
        self.feed.on_raw(self.market.on_message)
        self._listeners: dict[bytes, list[_Listener]] = {}
        self._served: set[bytes] = set()  # once at least, since they are wanted
        self._brings: dict[bytes, set[int]] = {}  # links that are told to serve it, or have brought something
        self._lost: dict[bytes, str] = {}  # feeds of books that nobody serves, until they speak again
        self._newest: dict[str, dict[bytes, tuple[int, float]]] = {}  # of each book's feeds: time and price
        self._tick()

    def _now_ns(self) -> int:
        return round((self._world.now_s + 1) * 1e9)

    async def _query(self, body: dict[str, Any]) -> Any:
        answer = await _Answer(body)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _tick(self) -> None:
        """As the driver does, while any link is live."""
        config = self._world.config
        if self._world.closed:
            return
        _Timer(self._world, config.fast_period_s, self._tick)
        self.feed.mark_silent(self._now_ns(), round(3e9 * config.slow_period_s), round(3e9 * config.fast_period_s))

    # Who listens.

    def want(self, subscription: Mapping[str, Any]) -> None:
        world, market = self._world, self.market
        key, kind, coin = canonical(fold(subscription)), subscription["type"], subscription.get("coin", "")
        listener: _Listener
        is_stream = world.rng.random() < 0.5
        if kind == "trades":
            listener = _OfTrades(key, world.made[coin], world.index[coin])
            if is_stream:
                listener.stream = market.trades(coin, maxsize=100_000)
            else:
                listener.stop = market.on_trades(coin, listener.item)
        elif kind == "candle":
            listener = _OfCandles(key, world.candles, world.changed_ms)
            listener.stream = market.candles(coin, subscription["interval"], maxsize=100_000)
        elif kind in ("bbo", "l2Book") and "nSigFigs" not in subscription:
            feeds = ("bbo" if kind == "bbo" else "fast" if subscription.get("fast") else "slow",)
            listener = _OfBook(key)
            if is_stream:
                listener.stream = market.books(coin, maxsize=100_000, overflow="drop_oldest", feeds=feeds)
            else:
                listener.stop = market.on_book(coin, lambda book: self._on_book(listener, book), feeds=feeds)
        else:
            world.subscribe(subscription)
            return
        if listener.stream is not None:
            listener.stop = listener.stream.close
        self._listeners.setdefault(key, []).append(listener)
        if key in self._served:
            listener.begin(world.now_ms)

    def leave(self, subscription: Mapping[str, Any]) -> None:
        key = canonical(fold(subscription))
        for listener in self._listeners.pop(key, ()):
            listener.drain()
            listener.stop()
        if self._of_market(key):
            self._world.unsubscribe(subscription)

    @staticmethod
    def _of_market(key: bytes) -> bool:
        """Whether it is none of the market's."""
        return b'"user"' in key or b"nSigFigs" in key

    def unwanted(self, key: bytes) -> None:
        self._served.discard(key)
        self._brings.pop(key, None)
        self._lost.pop(key, None)
        self._newest.get(_coin(key), {}).pop(key, None)

    def _on_book(self, listener: _Listener, book: Book) -> None:
        listener.item(book)
        if not book.stale:
            newest = max(self._newest[book.coin].values())
            assert (book.time_ms, book.best_bid) == newest, f"{book!r} is live and not {newest}"

    def _gap(self, gap: Gap) -> None:
        self._world.note(gap)
        for listeners in self._listeners.values():
            for listener in listeners:
                if listener.stream is None and _is_of(listener, gap):
                    listener.gap(gap)

    # What the session says.

    def data(self, link: int, message: bytes, key: bytes, px: float, time_ms: int, *, is_whole: bool) -> None:
        world = self._world
        coin = _coin(key)
        self.is_news = True
        if b"nSigFigs" in key:
            return
        if is_whole and key in world.wanted:
            self._brings.setdefault(key, set()).add(link)
        if is_whole and _is_of_book(key):
            self._lost.pop(key, None)
            newest = self._newest.setdefault(coin, {})
            newest[key] = max(newest.get(key, (0, 0.0)), (time_ms, px))
        try:
            self.feed.on_message(message, self._now_ns(), link)
        except DecodeError as exc:
            if is_whole:
                raise
            world.note(exc)
            self.market.unreadable(exc, link)
        if not is_whole and _is_of_book(key) and (book := self.market.held(coin)) is not None:
            assert book.stale, f"the book of {coin} is live after a message that could not be read"

    def up(self, subscription: Mapping[str, Any], key: bytes, link: int) -> None:
        self.is_news = True
        self.market.up(subscription, link, self._now_ns())
        if key not in self._world.wanted:  # given up a moment ago, with something else of the same book
            return
        self._served.add(key)
        self._brings.setdefault(key, set()).add(link)
        for listener in self._listeners.get(key, ()):
            listener.begin(self._world.now_ms)

    def down(self, subscription: Mapping[str, Any], key: bytes, link: int, reason: str) -> None:
        self.is_news = True
        self.market.down(subscription, link, reason, self._now_ns())
        self._brings.get(key, set()).discard(link)
        if _is_of_book(key) and not self._world.up_on.get(key):
            self._lost[key] = reason
            self._newest.get(_coin(key), {}).pop(key, None)
        if not self._brings.get(key):
            for listener in self._listeners.get(key, ()):
                listener.drain()
                listener.lost()

    def refused(self, subscription: dict[str, Any], key: bytes, message: str) -> None:
        self.market.refused(subscription, message)
        for other in list(self._listeners):
            if other == key or (_is_of_book(key) and _is_of_book(other) and _coin(key) == _coin(other)):
                del self._listeners[other]

    def close(self) -> None:
        self.market.closed(Closed("the end"))
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.drain()
                assert not listener.owed, f"{listener.key.decode()}: the session ended and an interruption is not told"

    # What must hold.

    def check(self) -> None:
        """After every step."""
        if not self.is_news:
            return
        self.is_news = False
        if self.failures:
            raise self.failures[0]
        for listeners in self._listeners.values():
            for listener in listeners:
                if listener.stream is not None:
                    listener.drain()
        for key, reason in self._lost.items():
            book = self.market.held(_coin(key))
            assert book is None or book.stale, f"{key.decode()} is served by nobody ({reason}), and its book is live"

    def check_end(self) -> None:
        """Some time after the session was closed."""
        assert not self.market._tasks, "a question is left"
        assert not self.market._timers, "a timer is left"

    def unfinished(self, before_ms: int) -> list[str]:
        """Interruptions not told of yet, and what was said before that and neither came nor is declared."""
        every = [listener for listeners in self._listeners.values() for listener in listeners]
        owed = [f"{listener.key.decode()}: a gap is owed" for listener in every if listener.owed]
        return owed + [missed for listener in every if (missed := listener.missed_until(before_ms))]


def _is_of(listener: _Listener, gap: Gap) -> bool:
    if gap.stream == "book":
        return isinstance(listener, _OfBook) and _coin(listener.key) == gap.coin
    return f'"{gap.stream}"'.encode() in listener.key and _coin(listener.key) == gap.coin


def _coin(key: bytes) -> str:
    return key.partition(b'"coin":"')[2].partition(b'"')[0].decode()


def _is_of_book(key: bytes) -> bool:
    return (b'"l2Book"' in key and b"nSigFigs" not in key) or b'"bbo"' in key
