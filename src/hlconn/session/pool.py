"""The links of one session: which subscription goes over which of them, and within which limits of the venue.

As `Link`, it is a state machine: events in, effects out; no I/O, no clock. Effects carry the number of their link.

Link 0, the main one, is always there: it has the streams of the first user and all posts, and its state is the pool's.
Another one is opened when those that exist have `subscriptions_per_link` each, or when two subscriptions cannot share
one: messages of some streams name neither the user (orderUpdates, userEvents, notification) nor the aggregation
(l2Book), so a link has at most one user, and one aggregation of a coin. One that has had nothing to do for a while is
closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ..config import SessionConfig
from ..errors import Closed, ConfigError
from ..limits import LinkLimits
from .link import (
    Disconnect,
    Down,
    Effect,
    Link,
    LinkCounters,
    LinkState,
    Refused,
    SubState,
    Up,
    canonical,
    fold,
)

__all__ = ["Pool"]

_AGAIN_S = 60.0  # what one link was refused and another serves is tried again so often
_IDLE_S = 10.0  # a link without work is kept so long: opening another one costs one of the 30 of a minute


@dataclass(slots=True, eq=False)
class _Wanted:
    """links: those that have it. refused: those on which the venue refused it."""

    given: dict[str, Any]
    folded: dict[str, Any]
    links: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)


class Pool:
    """flow(subscription, link): messages of that subscription which that link has brought so far; see `Link`.

    Of a subscription on several links, `Refused` comes when all of them were refused. `Up`, `Down` and `Subscribed`
    come for each of them, as `StateChanged` does: what one link missed, another may have brought, but only who reads
    both can tell.
    """

    def __init__(
        self,
        config: SessionConfig,
        rng: Random,
        flow: Callable[[Mapping[str, Any], int], int] = lambda _, __: -1,
    ) -> None:
        self._config, self._rng, self._flow = config, rng, flow
        self.limits = LinkLimits(config)
        self._links: dict[int, Link] = {}
        self._before: dict[int, tuple[int, LinkCounters]] = {}  # generation and counters of links that were closed
        self._idle_since_s: dict[int, float] = {}
        self._wanted: dict[bytes, _Wanted] = {}
        self._again_s: dict[tuple[bytes, int], float] = {}  # when to try a refused copy again, by link
        self._held = 0  # subscriptions that the venue has, at the last look: fewer make room
        self._started = False
        self.main = self._open(0)

    @property
    def state(self) -> LinkState:
        """That of the main link: whether posts go out, and streams of the user come in."""
        return self.main.state

    @property
    def links(self) -> Mapping[int, Link]:
        """Those that are there now, by number."""
        return self._links

    @property
    def subscriptions(self) -> list[tuple[dict[str, Any], SubState, int]]:
        """Everything wanted: as it was given, its state, and on which link; once for each link that has it."""
        return [(given, state, number) for number, link in self._links.items() for given, state in link.subscriptions]

    @property
    def counters(self) -> dict[int, LinkCounters]:
        """By number, also of links that were closed."""
        before = {number: counters for number, (_, counters) in self._before.items()}
        return before | {number: link.counters for number, link in self._links.items()}

    @property
    def deadline(self) -> float | None:
        """When `on_timer` must be called next; None when nothing is due."""
        dues = [link.deadline for link in self._links.values()]
        dues += [since_s + _IDLE_S for since_s in self._idle_since_s.values()]
        dues += self._again_s.values()
        return min((due_s for due_s in dues if due_s is not None), default=None)

    # What the owner asks for.

    def start(self, now_s: float) -> list[Effect]:
        if self._started or self.state is LinkState.CLOSED:
            return []
        self._started = True
        return [effect for link in list(self._links.values()) for effect in self._after(now_s, link.start(now_s))]

    def close(self, now_s: float) -> list[Effect]:
        """For good, all links, the main one last: its state is told last."""
        effects: list[Effect] = []
        for link in reversed(list(self._links.values())):
            effects += self._tell(now_s, link.number, link.close(now_s))
        self._idle_since_s.clear()
        self._again_s.clear()
        return effects

    def subscribe(self, now_s: float, subscription: Mapping[str, Any]) -> list[Effect]:
        """Want a subscription from now on. One that is already wanted stays as it is; a refused one is tried again.

        Raises ConfigError when a limit of the venue leaves no link for it, Closed after `close`, TypeError when it is
        not JSON.
        """
        if self.state is LinkState.CLOSED:
            raise Closed("the session was closed")
        folded = fold(subscription)
        key = canonical(folded)
        wanted = self._wanted.get(key)
        if wanted is None:
            numbers = self._place(folded)
            wanted = self._wanted[key] = _Wanted(dict(subscription), folded, set(numbers))
        wanted.refused.clear()
        effects: list[Effect] = []
        for number in sorted(wanted.links):
            self._idle_since_s.pop(number, None)
            self._again_s.pop((key, number), None)
            link = self._links.get(number) or self._open(number)
            effects += self._tell(now_s, number, link.subscribe(now_s, subscription))
            if self._started:
                effects += self._tell(now_s, number, link.start(now_s))
        return self._after(now_s, effects, told=True)

    def unsubscribe(self, now_s: float, subscription: Mapping[str, Any]) -> list[Effect]:
        """Want it no longer. Data already on its way can still arrive."""
        key = canonical(fold(subscription))
        wanted = self._wanted.pop(key, None)
        if wanted is None:
            return []
        effects = []
        for number in sorted(wanted.links):
            self._again_s.pop((key, number), None)
            effects += self._tell(now_s, number, self._links[number].unsubscribe(now_s, subscription))
            if number and not any(number in other.links for other in self._wanted.values()):
                self._idle_since_s[number] = now_s
        return self._after(now_s, effects, told=True)

    def post(self, now_s: float, post_id: int, data: bytes, timeout_s: float, *, urgent: bool = False) -> list[Effect]:
        """As `Link.post`, over the main link."""
        return self.main.post(now_s, post_id, data, timeout_s, urgent=urgent)

    # What happened.

    def on_connected(self, now_s: float, number: int, generation: int) -> list[Effect]:
        link = self._links.get(number)
        if link is None:
            return [Disconnect(generation, "this link was closed", link=number)]
        return self._after(now_s, link.on_connected(now_s, generation))

    def on_connect_failed(self, now_s: float, number: int, generation: int, reason: str) -> list[Effect]:
        link = self._links.get(number)
        return [] if link is None else self._after(now_s, link.on_connect_failed(now_s, generation, reason))

    def on_disconnected(self, now_s: float, number: int, generation: int, reason: str) -> list[Effect]:
        link = self._links.get(number)
        return [] if link is None else self._after(now_s, link.on_disconnected(now_s, generation, reason))

    def on_control(self, now_s: float, number: int, generation: int, message: bytes) -> list[Effect]:
        link = self._links.get(number)
        return [] if link is None else self._after(now_s, link.on_control(now_s, generation, message))

    def on_timer(self, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for link in list(self._links.values()):
            if (due_s := link.deadline) is not None and due_s <= now_s:
                effects += self._tell(now_s, link.number, link.on_timer(now_s))
        for number in [n for n, since_s in self._idle_since_s.items() if since_s + _IDLE_S <= now_s]:
            del self._idle_since_s[number]
            link = self._links.pop(number)
            effects += self._tell(now_s, number, link.close(now_s))
            self._before[number] = link.generation, link.counters
        for key, number in [which for which, due_s in self._again_s.items() if due_s <= now_s]:
            del self._again_s[key, number]
            effects += self._tell(now_s, number, self._links[number].subscribe(now_s, self._wanted[key].given))
        return self._after(now_s, effects, told=True)

    # Inside.

    def _open(self, number: int) -> Link:
        generation, counters = self._before.pop(number, (0, LinkCounters()))
        link = self._links[number] = Link(
            self._config,
            self._rng,
            number=number,
            limits=self.limits,
            flow=lambda subscription: self._flow(subscription, number),
            generation=generation,  # so that nothing of a socket before is taken for news of a new one
        )
        link.counters = counters
        return link

    def _place(self, folded: dict[str, Any]) -> list[int]:
        """The links for a new subscription. Raises ConfigError."""
        config = self._config
        copies = 1 if "user" in folded else config.redundancy
        used = sum(len(wanted.links) for wanted in self._wanted.values())
        if used + copies > config.max_subscriptions:
            raise ConfigError(
                f"{used} of {config.max_subscriptions} subscriptions are in use (max_subscriptions): "
                f"no room for {folded} on {copies} of the links"
            )
        numbers: list[int] = []
        for _ in range(copies):
            number = self._link_for(folded, numbers)
            if number is None:
                raise ConfigError(
                    f"none of {config.max_links} links (max_links) can take {folded}: "
                    "each has another user, or another aggregation of that coin"
                )
            numbers.append(number)
        return numbers

    def _link_for(self, folded: dict[str, Any], taken: list[int]) -> int | None:
        """The one that still has it; else the first with room; else a new one; else the one with least to do.

        Streams of a user go where that user's others are, and the first user's to the main link, however much it has:
        its state tells whoever trades what is missed.
        """
        config = self._config
        for number, link in self._links.items():
            if number not in taken and any(held == folded for held in link.holds):
                return number
        load = {
            number: sum(1 for _ in link.holds)
            for number, link in sorted(self._links.items())
            if number not in taken and not any(_clash(folded, held) for held in link.holds)
        }
        if "user" in folded:
            mine = [n for n in load if any(held.get("user") == folded["user"] for held in self._links[n].holds)]
            if mine or 0 in load:
                return mine[0] if mine else 0
        for number, held in load.items():
            if held < config.subscriptions_per_link:
                return number
        free = [n for n in range(config.max_links) if n not in self._links and n not in taken]
        if free:
            return free[0]
        return min(load, key=lambda number: load[number], default=None)

    def _after(self, now_s: float, effects: list[Effect], *, told: bool = False) -> list[Effect]:
        """What else follows: when the venue has fewer subscriptions than before, others that waited are sent."""
        if not told:
            effects = [effect for one in effects for effect in self._tell(now_s, one.link, [one])]
        if self.limits.subscriptions < self._held:
            for link in self._links.values():
                effects += self._tell(now_s, link.number, link.pump(now_s))
        self._held = self.limits.subscriptions
        return effects

    def _tell(self, now_s: float, number: int, effects: list[Effect]) -> list[Effect]:
        return [effect for effect in effects if self._is_news(now_s, number, effect)]

    def _is_news(self, now_s: float, number: int, effect: Effect) -> bool:
        """Whether it is one for the owner: of what is still wanted, and of a refusal the last."""
        if not isinstance(effect, (Up, Down, Refused)):
            return True
        wanted = self._wanted.get(effect.key)
        if wanted is None:
            return False
        if isinstance(effect, Up):
            wanted.refused.discard(number)
        if not isinstance(effect, Refused):
            return True
        wanted.refused.add(number)
        if wanted.refused == wanted.links:
            for link in wanted.links:
                self._again_s.pop((effect.key, link), None)
            return True
        self._again_s[effect.key, number] = now_s + _AGAIN_S
        return False


def _clash(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether messages of two subscriptions cannot be told apart on one link."""
    if "user" in one and "user" in other and one["user"] != other["user"]:
        return True
    if not one.get("type") == other.get("type") == "l2Book" or one.get("coin") != other.get("coin"):
        return False
    return any(one.get(key) != other.get(key) for key in ("nSigFigs", "mantissa"))
