"""Which feed a book rests on when its l2 feed breaks: a pure state machine for one coin. No I/O, no clock.

The l2 feed is undocumented and may vanish. `Ladder` is told what happens and says what to do about subscriptions; who
keeps them does it. How a market wires it:

- `Feed.on_desync(coin, reason)` -> `ladder.failed(now)`. The book is stale by then.
- a subscription of the ladder's present feed that the venue refuses -> `ladder.refused(now)`; one of `fast` that stays
  silent -> `ladder.failed(now)`.
- the first subscription of the ladder's feed was sent -> `ladder.begin(now)`.
- a timer at `ladder.next_s`, None for none -> `ladder.tick(now, in_sync)`, in_sync being `book.grade == Grade.L2`.
- AGAIN: unsubscribe the ladder's feed and subscribe to it again; the venue begins with a snapshot.
- DOWN: unsubscribe the feed it was, and `Feed.drop_feed(coin, that)`: the book rests on the others at once. `slow` and
  `fast` are subscribed all the while: they prove l2, and are what it steps down to.
- UP: `Feed.book(coin, feeds=("l2",))`, then subscribe to l2.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from .errors import ConfigError

__all__ = ["Ladder", "Move"]

_RUNGS = ("l2", "fast", "slow")


class Move(Enum):
    """What to do about a ladder's feed."""

    STAY = "stay"
    AGAIN = "again"  # subscribe to it again
    DOWN = "down"  # give it up: `Ladder.feed` is what the book rests on now
    UP = "up"  # try l2 again


class Ladder:
    """Steps down from l2 to fast to slow when the one it stands on keeps failing, and tries l2 again after a while.

    failures: within `within_s`, so many are answered by subscribing again; one more steps down. answer_s: an l2 that is
    not in sync so long after it was subscribed to has failed. retry_s: how long after a step down l2 is tried again;
    twice as long after each try that did not last for that time, at most `most_s`.
    Times are seconds of one monotonic clock of the caller. ConfigError for settings that cannot work.
    """

    def __init__(
        self,
        *,
        failures: int = 2,
        within_s: float = 60.0,
        answer_s: float = 10.0,
        retry_s: float = 600.0,
        most_s: float = 6 * 3600.0,
    ) -> None:
        if failures < 0 or min(within_s, answer_s, retry_s) <= 0 or retry_s > most_s:
            raise ConfigError(
                f"failures={failures!r} must be at least 0, within_s={within_s!r}, answer_s={answer_s!r} and "
                f"retry_s={retry_s!r} above 0, and most_s={most_s!r} at least retry_s"
            )
        self._failures, self._within_s, self._answer_s = failures, within_s, answer_s
        self._first_s, self._most_s = retry_s, most_s
        self._rung = 0
        self._recent: deque[float] = deque()
        self._retry_s = retry_s
        self._since_s: float | None = None  # when the present try of l2 began; None: it is the first
        self._next_s: float | None = None  # on l2: when it has to be in sync; below: when to try it again
        self._refused = False

    @property
    def feed(self) -> str:
        """What the book rests on, or waits for: "l2", "fast" or "slow"."""
        return _RUNGS[self._rung]

    @property
    def next_s(self) -> float | None:
        """When to call `tick`; None while there is nothing to wait for."""
        return self._next_s

    def begin(self, now_s: float) -> None:
        """The ladder's feed was subscribed to for the first time."""
        if self.feed == "l2":
            self._next_s = now_s + self._answer_s

    def failed(self, now_s: float) -> Move:
        """The present feed was found wrong, or stays silent."""
        while self._recent and now_s - self._recent[0] >= self._within_s:
            self._recent.popleft()
        self._recent.append(now_s)
        if len(self._recent) <= self._failures or self.feed == "slow":
            self.begin(now_s)
            return Move.AGAIN
        return self._down(now_s)

    def refused(self, now_s: float) -> Move:
        """The venue does not offer the present feed. l2 is not tried again then."""
        if self.feed == "slow":
            return Move.STAY  # there is nothing below: the session reports it
        if self.feed == "l2":
            self._refused = True
        return self._down(now_s)

    def _down(self, now_s: float) -> Move:
        if self.feed == "l2":
            self._next_s = None
        if self.feed == "l2" and not self._refused:
            if self._since_s is not None:
                lasted = now_s - self._since_s >= self._retry_s
                self._retry_s = self._first_s if lasted else min(2 * self._retry_s, self._most_s)
            self._next_s = now_s + self._retry_s
        self._rung += 1
        self._recent.clear()
        return Move.DOWN

    def tick(self, now_s: float, in_sync: bool) -> Move:
        """Time has passed. in_sync: whether the book rests on l2 now. UP when l2 is to be tried again."""
        if self._next_s is None or now_s < self._next_s:
            return Move.STAY
        self._next_s = None
        if self.feed == "l2":
            return Move.STAY if in_sync else self.failed(now_s)
        self._rung = 0
        self._since_s = now_s
        self._recent.clear()
        self.begin(now_s)
        return Move.UP
