"""A bounded queue between the receive path and one reader, who gets items and gaps in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from .errors import ConfigError, StreamOverflow
from .gaps import Gap

__all__ = ["LatestBook", "Listeners", "Overflow", "Stream"]

_T = TypeVar("_T")

#: What a full stream does: let the oldest item go, keep the latest alone, or end.
Overflow = Literal["drop_oldest", "conflate", "raise"]


class Stream(Generic[_T]):
    """Items of one subscription, and each `Gap` in its place: `async with market.trades("BTC") as stream`, `async for`.

    A slow reader delays nobody else: what has no room is treated as `overflow` says. "drop_oldest": the oldest items
    go, and a `Gap` with `dropped` stands in their place. "conflate": of what was not read yet, the latest item is kept
    alone; that is no gap, `conflated` counts it. "raise": the stream ends with StreamOverflow after what it holds.

    It ends when the session closes. It raises what ended the subscription, as SubscriptionRefused. Leaving the
    `async with`, or `close()`, gives the subscription back; nothing else does. For one reader, in the loop's thread.

    dropped, conflated: items let go so far. received: items that came, read or not.
    """

    def __init__(self, stream: str, coin: str, maxsize: int, overflow: Overflow) -> None:
        if overflow not in ("drop_oldest", "conflate", "raise"):
            raise ConfigError(f"overflow is 'drop_oldest', 'conflate' or 'raise', not {overflow!r}")
        if not isinstance(maxsize, int) or maxsize < 1:
            raise ConfigError(f"maxsize must be at least 1, not {maxsize!r}")
        self.stream, self.coin, self.maxsize, self.overflow = stream, coin, maxsize, overflow
        self.dropped = self.conflated = self.received = 0
        self._queue: deque[tuple[Gap | _T, int, int]] = deque()  # with the venue's times of its first and last row
        self._lost: Gap | None = None  # what was let go at the front of the queue
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: Exception | None = None
        self._leave: Callable[[], object] | None = None

    def bind(self, leave: Callable[[], object]) -> Self:
        """leave: what gives the subscription back, called once."""
        self._leave = leave
        return self

    # Written by the market.

    def put(self, item: _T, from_ms: int, to_ms: int) -> None:
        """One item. from_ms, to_ms: the venue's times of what is in it."""
        if self._ended:
            return
        self.received += 1
        queue = self._queue
        if self.overflow == "conflate":
            if queue and not isinstance(queue[-1][0], Gap):
                queue.pop()
                self.conflated += 1
        elif len(queue) >= self.maxsize:
            if self.overflow == "raise":
                self.end(StreamOverflow(self.stream, self.coin, self.maxsize))
                return
            self._drop_oldest()
        queue.append((item, from_ms, to_ms))
        if self._waiter is not None:
            self._wake()

    def gap(self, gap: Gap) -> None:
        """An interruption, after everything that was put so far."""
        if self._ended:
            return
        queue = self._queue
        if queue and isinstance(queue[-1][0], Gap):  # nothing between: however often it is cut, a gap takes one place
            gap = _joined(queue.pop()[0], gap)  # type: ignore[arg-type]
        elif self.overflow == "conflate" and len(queue) > 1:
            # gap, item, gap: what is read next is the item after them
            self.conflated += 1
            queue.pop()
            gap = _joined(queue.pop()[0], gap)  # type: ignore[arg-type]
        elif len(queue) > self.maxsize:
            self._drop_oldest()
        queue.append((gap, gap.from_ms, gap.to_ms))
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """No more items. The reader gets those that are there, then the error, or the end."""
        if not self._ended:
            self._ended, self._error = True, error
            self._give_back()
            self._wake()

    def _drop_oldest(self) -> None:
        item, from_ms, to_ms = self._queue.popleft()
        if isinstance(item, Gap):
            lost = Gap(self.stream, self.coin, from_ms, to_ms, item.proven, item.reason, item.dropped)
        else:
            self.dropped += 1
            lost = Gap(self.stream, self.coin, from_ms, to_ms, False, "the reader was too slow", 1)
        self._lost = lost if self._lost is None else _joined(self._lost, lost)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _give_back(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    # Read by one reader.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Gap | _T:
        while True:
            if self._lost is not None:
                gap, self._lost = self._lost, None
                return gap
            if self._queue:
                return self._taken(self._queue.popleft()[0])
            if self._ended:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            if self._waiter is not None:
                raise ConfigError(
                    f"somebody else reads this stream of {self.stream}: ask the market for one of your own"
                )
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None

    def _taken(self, item: Gap | _T) -> Gap | _T:
        return item

    def close(self) -> None:
        """Give the subscription back. What is there is not read any more."""
        self._queue.clear()
        self._lost = None
        self.end()

    def __len__(self) -> int:
        """Items and gaps that wait to be read."""
        return len(self._queue) + (self._lost is not None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "live"
        return f"<Stream of {self.stream} of {self.coin}, {state}: {len(self)} to read, {self.dropped} dropped>"


def _joined(one: Gap, other: Gap) -> Gap:
    """Two gaps with nothing between them that is still to be read."""
    reason = one.reason if one.reason == other.reason else f"{one.reason}; {other.reason}"[:200]
    return Gap(
        one.stream,
        one.coin,
        min(one.from_ms, other.from_ms),
        max(one.to_ms, other.to_ms),
        one.proven and other.proven,
        reason,
        one.dropped + other.dropped,
    )


class LatestBook(Stream[Any]):
    """Of a book, "conflate": the copy is made when it is read, so that a message costs the reader nothing."""

    def put_live(self, book: Any) -> None:
        """The book itself, which changes with the next message."""
        queue = self._queue
        if queue and queue[-1][0] is book:
            self.received += 1
            self.conflated += 1
        else:
            self.put(book, book.time_ms, book.time_ms)

    def gap(self, gap: Gap) -> None:
        if self._queue and not isinstance(self._queue[-1][0], Gap):
            self._queue.pop()  # it would be read as it is after the gap
            self.conflated += 1
        super().gap(gap)

    def _taken(self, item: Any) -> Any:
        return item if isinstance(item, Gap) else item.copy()


class Listeners(Generic[_T]):
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
