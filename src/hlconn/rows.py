"""The trades or candles of one coin on a live session: who gets them, which links bring them, and what was missed.

Each connection brings a stream without holes, from its first message on: so a link is *heard* once its first message
was found to join what was known, and until it is lost. As long as one link is heard nothing can be missing. The first
message of any other one is compared: when nothing in it is known, those that are heard are behind, or dead without
anybody having noticed yet, and what lies between is asked for while new items wait.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ._core.feed import Feed
from .gaps import CandleHistory, Gap, History, Recovery, State, TradeHistory, read_trades
from .streams import Listeners
from .types import Candle

__all__ = ["Around", "CandleRows", "Questions", "Rows", "TradeRows"]

_log = logging.getLogger("hlconn.market")

_HOLD_S = 3.0  # for which new items wait, at most, for what is to come before them
_QUIET_S = 5.0  # without a message after a stream is served again; then it is asked whether something was missed
_SLOWEST_S = 80.0  # between two tries of a question that nothing waits for
# The venue weighs each question 20 and more, of 1,200 a minute for everything that this address asks: half of it.
_AT_ONCE = 10
_EVERY_S = 3.0

Later = Callable[[float, Callable[[], None]], "Timer"]


class Timer(Protocol):
    def cancel(self) -> object: ...


class Around(Protocol):
    """What rows need of whoever keeps them."""

    def later(self, delay_s: float, callback: Callable[[], None], /) -> Timer: ...
    def ask(self, rows: Rows, /) -> None:
        """Have `rows.question` asked, when it is its turn, and `answered` or `unanswered` called."""

    def tell_gap(self, listeners: Listeners[Any], gap: Gap, /) -> None: ...
    def rows_failed(self, rows: Rows, exc: BaseException, /) -> None:
        """A callback raised outside of a message."""


class Questions:
    """What is asked of the venue, in turn, no faster than its weights allow. What needs no answer any more is left out.

    start(rows): asks. clock_ns, later: the caller's.
    """

    def __init__(self, clock_ns: Callable[[], int], later: Later, start: Callable[[Rows], object]) -> None:
        self._clock_ns, self._later, self._start = clock_ns, later, start
        self._queue: deque[Rows] = deque()
        self._room = float(_AT_ONCE)
        self._counted_ns = clock_ns()
        self._timer: Timer | None = None

    def add(self, rows: Rows) -> None:
        if rows not in self._queue:
            self._queue.append(rows)
        if self._timer is None:
            self._timer = self._later(0.0, self._go_on)  # not within a message

    def _go_on(self) -> None:
        self._timer = None
        now_ns = self._clock_ns()
        self._room = min(float(_AT_ONCE), self._room + (now_ns - self._counted_ns) / 1e9 / _EVERY_S)
        self._counted_ns = now_ns
        while self._queue:
            if not self._queue[0].recovery.query_wanted:
                self._queue.popleft()
                continue
            if self._room < 1.0 - 1e-9:
                self._timer = self._later((1.0 - self._room) * _EVERY_S, self._go_on)
                return
            self._room -= 1.0
            self._start(self._queue.popleft())


class Rows(Listeners[Any], ABC):
    """One stream, and what becomes of its interruptions.

    A link has it (`up`), and brings it (`heard`, from its first message on).
    """

    def __init__(self, subscription: dict[str, Any], history: History[Any], around: Around) -> None:
        super().__init__(self._put)
        self.subscription = subscription
        self.history = history
        self.recovery: Recovery[Any] = Recovery(str(subscription["coin"]), history)
        self._around = around
        self._up: set[int] = set()
        self._heard: set[int] = set()
        self._asked: set[int] = set()  # links that had it when the last question was put: they join its answer
        self._asked_round = -1
        self._was_served = self._was_lost = False
        self._hold: Timer | None = None
        self._quiet: Timer | None = None
        self._patience_s = _QUIET_S

    # What the session says.

    def up(self, link: int) -> None:
        """That link serves it (again)."""
        begins = not (self._was_served or self._was_lost or self._last_ms())
        self._was_served = True
        self._up.add(link)
        if self.recovery.state is State.DOWN:
            self._ask_when_quiet(_QUIET_S)
        elif begins:
            self._hear(link)  # nothing was ever missed; what another one misses from here on, this one must bring

    def down(self, link: int, reason: str) -> None:
        """That link does not serve it any more."""
        if link in self._up or link in self._heard:
            self._up.discard(link)
            self._lose(link, f"link {link}: {reason}" if self._heard - {link} else reason)

    def unreadable(self, link: int, reason: str) -> None:
        """A message of that link could not be read: what was in it is missing, what comes next is not."""
        self._lose(link, f"a message could not be read: {reason}")

    def close(self) -> None:
        """Nobody will bring any more: what is open is declared."""
        if self.recovery.state is not State.LIVE:
            self.deliver(self.recovery.give_up())
        self._cancel_timers()

    def _lose(self, link: int, reason: str) -> None:
        self._heard.discard(link)
        self._asked.discard(link)
        self._was_lost = True
        self._await_first(link)
        recovery = self.recovery
        if recovery.state is State.DOWN:
            if not self._up or (self._is_asking and not self._asked):  # no answer covers what comes after it any more
                self._begin_round(reason)
        elif not self._heard and (self._was_served or self._last_ms()):
            self._begin_round(reason)

    @property
    def _is_asking(self) -> bool:
        return self._asked_round == self.recovery.round

    def _begin_round(self, reason: str) -> None:
        self.deliver(self.recovery.down(reason, self._last_ms()))
        if self._up:
            self._ask_when_quiet(_QUIET_S)

    # What comes.

    def first(self, item: Any, known: bool, link: int, last_ms: int) -> list[Any]:
        """The first message of a link since it was lost, or ever. What the listeners get now.

        item: what is new in it, None for nothing. known: something in it was known. last_ms: the venue's time of the
        newest item before it, 0 for none.
        """
        recovery = self.recovery
        others = self._heard - {link}
        self._was_served = True
        self._hear(link)
        delivered_ms = last_ms if recovery.state is State.LIVE else recovery.last_ms
        if item is not None and delivered_ms and self.history.first_ms(item) < delivered_ms:
            # A link that is behind: it begins before the end of what is known, so that it brings all that follows.
            known, item = True, self.history.after(item, delivered_ms)
            self.history.ended_before(delivered_ms)
        if recovery.state is State.DOWN:
            return recovery.first(item, known)
        if known or not (last_ms or self._was_lost or others):
            return [] if item is None else recovery.item(item)
        if not (last_ms or self._was_lost):
            # One that was served before this one may have missed the beginning, and no answer could tell.
            recovery.down(f"link {link} brought the first of it, and was not the first to serve it", 0)
            recovery.first(item, False)
            return recovery.failed(recovery.round)
        if recovery.state is State.FILLING:
            recovery.hold_apart(item)
            return []
        recovery.down(f"link {link} is here, and nothing that it said was known", last_ms)
        return recovery.first(item, False)

    def deliver(self, out: list[Any], *, guarded: bool = True) -> None:
        """Gaps and items to who listens. guarded: nobody above looks after what a callback raises."""
        try:
            for each in out:
                if isinstance(each, Gap):
                    self._around.tell_gap(self, each)
                    continue
                for callback in self.callbacks:
                    if callback in self.callbacks:  # not stopped by one before it
                        callback(each)
                if self.streams:
                    self.put(each)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # also a CancelledError of a callback's own future: it ends the stream alone
            if not guarded:
                raise
            self._around.rows_failed(self, exc)
        finally:
            self._look_after()

    def _look_after(self) -> None:
        """What follows from the state: timers, questions, and who gets the next item."""
        recovery = self.recovery
        if recovery.state is not State.DOWN:
            self._cancel_quiet()
        if recovery.state is State.FILLING:
            if self._hold is None:
                self._hold = self._around.later(_HOLD_S, self._held_too_long)
        elif self._hold is not None:
            self._hold.cancel()
            self._hold = None
        if recovery.query_wanted:
            self._around.ask(self)
        self.aim()

    def _cancel_quiet(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None

    def _cancel_timers(self) -> None:
        self._cancel_quiet()
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    # Questions.

    def _ask_when_quiet(self, delay_s: float) -> None:
        self._cancel_quiet()
        self._patience_s = delay_s
        self._quiet = self._around.later(delay_s, self._is_quiet)

    def _is_quiet(self) -> None:
        self._quiet = None
        if self._up and not self._is_asking:
            self.recovery.nothing_came()
            self._look_after()

    def _held_too_long(self) -> None:
        self._hold = None
        self.deliver(self.recovery.failed(self.recovery.round))

    def question(self) -> tuple[int, dict[str, Any]]:
        """The round, and what is asked in it: now, of the venue's info."""
        self.recovery.query_wanted = False
        self._asked_round, self._asked = self.recovery.round, self._up | self._heard
        return self.recovery.round, self._question()

    def answered(self, round_: int, answer: Any) -> None:
        """answer: as the venue wrote it. KeyError, TypeError or ValueError for what is none."""
        read = self._read(answer)
        if round_ == self.recovery.round:
            for link in self._asked:  # they had it before the venue answered
                self._hear(link)
            self.deliver(self.recovery.filled(round_, read))

    def unanswered(self, round_: int) -> None:
        if round_ == self.recovery.round:
            self._asked_round = -1
            if self.recovery.state is State.DOWN:
                self._ask_when_quiet(min(2 * self._patience_s, _SLOWEST_S))
            self.deliver(self.recovery.failed(round_))

    def _hear(self, link: int) -> None:
        self._heard.add(link)

    # Of each kind.

    @abstractmethod
    def aim(self) -> None:
        """Who listens, or whether items are held, has changed."""

    def end_feed(self) -> None:
        """Nobody listens any more."""
        self._up.clear()
        self._cancel_timers()
        self.recovery.query_wanted = False
        self.recovery.round += 1  # an answer under way is nobody's: the feed may have another listener by then

    @abstractmethod
    def _put(self, item: Any) -> None:
        """To all streams."""

    @abstractmethod
    def _last_ms(self) -> int:
        """The venue's time of the newest item known, 0 for none."""

    @abstractmethod
    def _await_first(self, link: int) -> None:
        """The next message of that link is a first one."""

    @abstractmethod
    def _question(self) -> dict[str, Any]: ...

    @abstractmethod
    def _read(self, answer: Any) -> Any: ...


class TradeRows(Rows):
    """dtype: of the trades that the feed gives."""

    def __init__(self, coin: str, feed: Feed, dtype: np.dtype[np.void], around: Around) -> None:
        super().__init__({"type": "trades", "coin": coin}, TradeHistory(coin, feed), around)
        self._coin, self._feed, self._dtype = coin, feed, dtype
        feed.on_trades(coin, self.put)  # it refuses a coin that cannot be one
        feed.on_replay(coin, self._first_of)

    def aim(self) -> None:
        if self.used:
            held = self.recovery.state is State.FILLING
            self._feed.on_trades(self._coin, self._hold_back if held else self.target)

    def end_feed(self) -> None:
        super().end_feed()
        self._feed.on_trades(self._coin, None)

    def _hold_back(self, new: NDArray[np.void]) -> None:
        self.recovery.item(new.copy())

    def _first_of(self, new: NDArray[np.void], known: int, link: int, last_ms: int) -> None:
        if not last_ms and len(new):  # what is older never was to come, whichever link shows it next
            self._feed.end_trades_before(self._coin, int(new["time"][0]))
        out = self.first(new.copy() if len(new) else None, known > 0, link, last_ms)
        self.deliver(out, guarded=False)

    def _put(self, item: NDArray[np.void]) -> None:
        copy = item.copy()  # one for all
        copy.flags.writeable = False
        for stream in self.streams:
            stream.put(copy, int(copy["time"][0]), int(copy["time"][-1]))

    def _last_ms(self) -> int:
        return self._feed.last_trade_ms(self._coin) or 0

    def _hear(self, link: int) -> None:
        super()._hear(link)
        self._feed.await_replay(self._coin, link, False)

    def _await_first(self, link: int) -> None:
        self._feed.await_replay(self._coin, link)

    def _question(self) -> dict[str, Any]:
        return {"type": "recentTrades", "coin": self._coin}

    def _read(self, answer: Any) -> NDArray[np.void]:
        return read_trades(answer, self._dtype)


class CandleRows(Rows):
    """The feed does not read candles: `message` gets each."""

    def __init__(self, coin: str, interval: str, around: Around) -> None:
        super().__init__({"type": "candle", "coin": coin, "interval": interval}, CandleHistory(), around)
        self._newest = (0, -1)  # of those delivered or held: when it opened, and its trades

    def message(self, candle: Candle, link: int) -> None:
        recovery, last = self.recovery, self.recovery.last_item
        # A candle only grows: what is not newer than the last one came over another link before.
        newest = self._newest if last is None else max(self._newest, (last.open_ms, last.n))
        is_new = (candle.open_ms, candle.n) > newest
        self._newest = max(newest, (candle.open_ms, candle.n))
        if link not in self._heard:
            known = last is not None and candle.open_ms <= last.open_ms
            out = self.first(candle if is_new else None, known, link, recovery.last_ms)
        else:
            out = recovery.item(candle) if is_new else []
        if recovery.state is State.LIVE:
            for each in out:
                if isinstance(each, Candle):
                    recovery.delivered(each)
        self.deliver(out)

    def aim(self) -> None: ...

    def _put(self, item: Candle) -> None:
        for stream in self.streams:
            stream.put(item, item.open_ms, item.open_ms)

    def _last_ms(self) -> int:
        return self.recovery.last_ms

    def _await_first(self, link: int) -> None: ...

    def _question(self) -> dict[str, Any]:
        request = {
            "coin": self.subscription["coin"],
            "interval": self.subscription["interval"],
            "startTime": self.recovery.last_ms,
        }
        return {"type": "candleSnapshot", "req": request}

    def _read(self, answer: Any) -> list[Candle]:
        return list(map(Candle.read, answer))
