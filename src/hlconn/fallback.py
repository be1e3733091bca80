"""Who is polled over REST, and when, while no connection serves it. A pure state machine: no I/O, no clock.

What is watched (a book, an account's open orders) is polled from a while after its stream went down until it is back.
Polls are spread evenly within a budget of weight: nothing comes in bursts, nobody starves, and what has room keeps its
own pace. Whoever carries the polls out tells how each ended; an answer from before the stream came back says nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError

__all__ = ["Began", "Ended", "Fallback", "Poll", "Target"]

#: After a failure a target waits twice as long as before, up to so many of its periods.
_MOST_PERIODS = 16


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to be polled. key: what it is to the caller, as ("book", "BTC"). request: the query's body.

    weight: what one answer costs. every_s: how often it is worth it, while the budget has room.
    """

    key: Hashable
    request: Mapping[str, Any]
    weight: int
    every_s: float

    def __post_init__(self) -> None:
        if not (self.weight > 0 and 0 < self.every_s < float("inf")):
            raise ConfigError(f"weight and every_s of {self.key!r} must be positive numbers")


@dataclass(frozen=True, slots=True)
class Began:
    """This target is polled from now on: its book has the lower grade, its state may be as old as `every_s`."""

    key: Hashable
    every_s: float


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask this, and say with the same `round` how it ended."""

    key: Hashable
    request: Mapping[str, Any]
    round: int


@dataclass(frozen=True, slots=True)
class Ended:
    """This target is served by a connection again."""

    key: Hashable


Effect = Began | Poll | Ended


class _Watched:
    __slots__ = ("asked", "down_s", "due_s", "failures", "order", "polled", "round", "target")

    def __init__(self, target: Target, order: int) -> None:
        self.target, self.order = target, order
        self.round = 0
        self.down_s: float | None = None
        self.due_s = 0.0
        self.failures = 0
        self.polled = self.asked = False


class Fallback:
    """budget: weight a minute for all polls together. patience_s: a stream that is back sooner is not polled.

    now_s: any clock that does not go back, the same in every call. `wake_s` says when to call `tick` next.
    """

    def __init__(self, budget: int = 600, patience_s: float = 2.0) -> None:
        if not (budget > 0 and 0 <= patience_s < float("inf")):
            raise ConfigError(f"budget must be positive and patience_s at least 0, not {budget!r} and {patience_s!r}")
        self._budget, self._patience_s = budget, patience_s
        self._watched: dict[Hashable, _Watched] = {}
        self._free_s = float("-inf")  # when the budget has room again
        self._count = 0

    def watch(self, target: Target) -> None:
        """Know a target, served as yet. ConfigError for a key that is watched already."""
        if target.key in self._watched:
            raise ConfigError(f"{target.key!r} is watched already")
        if target.weight > self._budget:
            raise ConfigError(f"{target.key!r} weighs {target.weight}, more than a minute's budget of {self._budget}")
        self._watched[target.key] = _Watched(target, self._count)
        self._count += 1

    def forget(self, key: Hashable) -> None:
        """Nobody wants it any more. An answer that is still to come says nothing."""
        self._watched.pop(key, None)

    def down(self, key: Hashable, now_s: float) -> None:
        """Its stream is not served."""
        one = self._watched.get(key)
        if one is not None and one.down_s is None:
            one.down_s, one.due_s, one.failures = now_s, now_s + self._patience_s, 0

    def up(self, key: Hashable) -> list[Effect]:
        """Its stream is served, and brought something."""
        one = self._watched.get(key)
        if one is None or one.down_s is None:
            return []
        was_polled, one.down_s, one.polled, one.asked = one.polled, None, False, False
        one.round += 1
        return [Ended(key)] if was_polled else []

    def is_polled(self, key: Hashable) -> bool:
        """Between `Began` and `Ended`."""
        one = self._watched.get(key)
        return one is not None and one.polled

    def answered(self, key: Hashable, round_: int, now_s: float) -> bool:
        """Whether the answer to the poll of that round is to be used."""
        one = self._over(key, round_)
        if one is None:
            return False
        one.failures = 0
        one.due_s = max(now_s, one.due_s)
        return True

    def failed(self, key: Hashable, round_: int, now_s: float) -> None:
        """It brought nothing: this target is asked more rarely until it does."""
        one = self._over(key, round_)
        if one is not None:
            one.failures += 1
            periods = min(2**one.failures, _MOST_PERIODS)
            one.due_s = now_s + periods * one.target.every_s

    def tick(self, now_s: float) -> list[Effect]:
        """What is to be done now: at most one poll for each piece of the budget that has become free."""
        effects: list[Effect] = []
        while now_s >= self._free_s:
            ready = [one for one in self._waiting() if one.due_s <= now_s]
            if not ready:
                break
            one = min(ready, key=lambda one: (one.due_s, one.order))
            target = one.target
            if not one.polled:
                one.polled = True
                effects.append(Began(target.key, target.every_s))
            one.asked = True
            one.round += 1
            # From when it was due, not from now: who was kept waiting by the budget does not fall behind for it. But
            # no further back than one period, or one that waited long would be asked twice at once.
            one.due_s = max(one.due_s, now_s - target.every_s) + target.every_s
            self._free_s = max(self._free_s, now_s) + target.weight * 60.0 / self._budget
            effects.append(Poll(target.key, target.request, one.round))
        return effects

    def wake_s(self) -> float | None:
        """When `tick` has something to do; None while nothing is down, or all that is has been asked for."""
        due = min((one.due_s for one in self._waiting()), default=None)
        return None if due is None else max(due, self._free_s)

    def _waiting(self) -> list[_Watched]:
        return [one for one in self._watched.values() if one.down_s is not None and not one.asked]

    def _over(self, key: Hashable, round_: int) -> _Watched | None:
        one = self._watched.get(key)
        if one is None or one.down_s is None or one.round != round_ or not one.asked:
            return None
        one.asked = False
        return one
