"""One WebSocket connection as a state machine: events in, effects out; no I/O, no clock.

The caller tells what happened and what time it is (`now_s`: monotonic seconds), carries out the returned effects in
their order, and calls `on_timer` when `deadline` is reached. Reconnecting is the normal path: the venue cuts every
connection after minutes, with a close frame, without one, or half-open. Nothing is resumed, so every wanted
subscription is sent again on each new connection.

Each `Connect` carries a generation, and what is reported about that socket carries it back. Late news of an old socket
is then ignored instead of being taken for news of the present one.

An acknowledgement is a promise, data are the proof. One message about a subscription is in flight at a time; without an
answer it is sent again, for itself alone. A stream that should bring data every few seconds and does not is
unsubscribed and subscribed again, and if that does not help the socket is replaced. Of bbo only the first message is
sure to come, for the venue begins with the present state; without it bbo is subscribed to again, on the same socket.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any

import orjson

from ..config import SessionConfig
from ..errors import LinkDown, Throttled
from ..limits import LinkLimits

__all__ = [
    "Connect",
    "Disconnect",
    "Down",
    "Effect",
    "Forward",
    "Link",
    "LinkCounters",
    "LinkState",
    "PostAnswered",
    "PostLost",
    "Refused",
    "Send",
    "StateChanged",
    "SubState",
    "Subscribed",
    "Up",
    "canonical",
    "fold",
]

_SILENT_PERIODS = 3  # periods without a message after which a periodic stream counts as silent
_LATE_S = 0.25  # a timer so late means that our own loop stood still: what came meanwhile may not have been read yet
_PATIENCE_S = 60.0  # between two sockets given up for silence on them, or two refusals for a limit; doubles each time
_MOST_PATIENCE_S = 600.0
_BELIEVED = 3  # times a stream was subscribed to for its first message, after which its acknowledgement has to do
_SLOWEST = 4  # how many times the usual time repeated tries are apart at most
_EPS_S = 1e-6  # sums of times are not exact
_PING = b'{"method":"ping"}'
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_POST_ID = re.compile(rb'^\{"channel":"post","data":\{"id":(\d{1,19}),')  # as the venue writes it today
# The venue's own words; what follows in each is the JSON of our subscription or of our whole message.
_ALREADY_SUBSCRIBED = "Already subscribed"
_ALREADY_UNSUBSCRIBED = "Already unsubscribed"
_TOO_MANY_POSTS = re.compile(r"too many pending post requests id=(\d+)")
_REFUSALS = ("Invalid subscription", "Error parsing JSON into valid websocket request")
# "Cannot track more than 15 total users.", "Cannot subscribe to more than 1000 channels.": no word of what is refused.
_LIMIT = re.compile(r"\b(?:track|subscribe to) more than\b", re.IGNORECASE)


class LinkState(Enum):
    """IDLE: not started. WAITING: no socket, a new try is due at `deadline`. LIVE: subscriptions are sent."""

    IDLE = "idle"
    CONNECTING = "connecting"
    LIVE = "live"
    WAITING = "waiting"
    CLOSED = "closed"


class SubState(Enum):
    """Of one subscription on one link.

    WANTED: to be sent, once there is a connection and room in the budget. SENT: not answered yet.
    ACKED: acknowledged; a periodic stream that has not proved itself by data yet. LIVE: acknowledged, and proved where
    it can be. STALE: acknowledged, but silent for too long; it is being subscribed to again.
    FAILED: the venue refused it; not sent until asked for again. One refused for a limit is also tried again on a later
    connection, a minute or more after that.
    """

    WANTED = "wanted"
    SENT = "sent"
    ACKED = "acked"
    LIVE = "live"
    STALE = "stale"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a socket. Name resolution, TCP, TLS and the handshake together get `timeout_s`, which the link watches."""

    generation: int
    timeout_s: float
    link: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Send one text message on the connection that is live."""

    data: bytes
    link: int = 0


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End the socket of `generation`, or the attempt to open it. graceful: say goodbye with a close frame first."""

    generation: int
    reason: str
    graceful: bool = False
    link: int = 0


@dataclass(frozen=True, slots=True)
class StateChanged:
    state: LinkState
    reason: str
    link: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """The venue refused a subscription. message: its own text. Told once, until it is served or asked for again."""

    subscription: dict[str, Any]
    message: str
    link: int = 0
    key: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The venue has a subscription on this connection: from here on its data come.

    waited_s: from sent to acknowledged; None when its data, or an older acknowledgement, say that the venue has it.
    """

    subscription: dict[str, Any]
    link: int = 0
    waited_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Up:
    """The subscription is served: acknowledged, and after a silence also proved by data. What came before is over."""

    subscription: dict[str, Any]
    link: int = 0
    key: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Down:
    """The subscription is not served any more: nothing that it brought is fresh, and something may be missed.

    It also comes for one that was sent and not acknowledged when the connection ended: data may have come before.
    """

    subscription: dict[str, Any]
    reason: str
    link: int = 0
    key: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PostAnswered:
    """message: the venue's whole answer, of channel `post`, or `error` when it takes no more. waited_s: since sent."""

    post_id: int
    message: bytes
    link: int = 0
    waited_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class PostLost:
    """No answer, and what was asked for may have been done. An answer that comes later is a `Forward`."""

    post_id: int
    reason: str
    link: int = 0


@dataclass(frozen=True, slots=True)
class Forward:
    """An answer to a post that nobody waits for: not sent by `post`, or lost before, or answered a second time."""

    channel: str
    message: bytes
    link: int = 0


Effect = (
    Connect | Send | Disconnect | StateChanged | Refused | Subscribed | Up | Down | PostAnswered | PostLost | Forward
)


@dataclass(slots=True)
class LinkCounters:
    """connects: sockets that became live. errors: error texts of the venue. bad_controls: unreadable messages.

    resends: messages about subscriptions that were not answered in time. silences: periodic streams that went silent.
    replaced: sockets given up because something on them stayed without answer or data.
    posts_lost: posts without an answer in time.
    """

    connects: int = 0
    reconnects: int = 0
    pings: int = 0
    pongs: int = 0
    errors: int = 0
    bad_controls: int = 0
    resends: int = 0
    silences: int = 0
    replaced: int = 0
    posts: int = 0
    posts_lost: int = 0


@dataclass(slots=True, eq=False)
class _Subscription:
    """asked: the method whose answer is awaited. on: the venue has it, or may have it. sure: it has said so.
    known: it was acknowledged before, on whichever connection. proven: data came. once: only its first message is due,
    none after it.

    refusals: in a row. again_s: when one for a limit has been long enough ago to try again; inf when it was for itself.

    count, moved_s: how many messages it had brought when it was last looked at, and since when that is so.
    """

    given: dict[str, Any]
    folded: dict[str, Any]
    key: bytes
    period_s: float
    number: int
    once: bool = False
    wanted: bool = True
    asked: str = ""
    on: bool = False
    sure: bool = False
    known: bool = False
    failed: bool = False
    refusals: int = 0
    again_s: float = float("inf")
    stale: bool = False
    proven: bool = False
    tries: int = 0
    sent_s: float = 0.0  # the first of the tries
    tried_s: float = 0.0  # the last of them
    due_s: float = 0.0
    count: int = -1
    moved_s: float = 0.0
    repairs: int = 0
    repairing: bool = False

    @property
    def held(self) -> bool:
        return self.on or bool(self.asked)

    @property
    def is_user(self) -> bool:
        return "user" in self.folded

    @property
    def kind(self) -> str:
        return "user" if self.is_user else "market"

    @property
    def state(self) -> SubState:
        if self.failed:
            return SubState.FAILED
        if self.stale:
            return SubState.STALE
        if self.asked == "subscribe":
            return SubState.SENT
        if not self.on or self.asked:
            return SubState.WANTED
        return SubState.LIVE if self.proven else SubState.ACKED

    @property
    def to_ask(self) -> str:
        """The method to send next, "" for none."""
        if self.asked:
            return ""
        if self.on:
            return "" if self.wanted and not self.repairing else "unsubscribe"
        return "subscribe" if self.wanted and not self.failed else ""


def fold(subscription: Mapping[str, Any]) -> dict[str, Any]:
    """As the venue echoes it: addresses in lower case, nothing that is null. Coins stay: they have a case (kPEPE)."""
    return {
        key: value.lower() if isinstance(value, str) and _ADDRESS.fullmatch(value) else value
        for key, value in subscription.items()
        if value is not None
    }


def canonical(folded: Mapping[str, Any]) -> bytes:
    """One key for a subscription, whatever the order of its own."""
    return orjson.dumps(folded, option=orjson.OPT_SORT_KEYS)


def _embedded(text: str) -> dict[str, Any]:
    """The JSON object inside one of the venue's error texts; empty when there is none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        value = orjson.loads(text[start : end + 1])
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _topic(folded: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(v if isinstance(v, str) else None for v in map(folded.get, ("type", "coin", "user")))


class Link:
    """The state machine. `state`, `deadline`, `subscriptions`, `counters` and `last_error` may be read at any time.

    rng decides the jitter of the backoff: two clients cut at the same moment should not return at the same moment.
    number: which link of a pool this is; its effects carry it. limits: shared with the other links.
    flow(subscription): how many messages of that subscription this link has brought so far; -1 when nobody counts,
    which makes the acknowledgement all the proof there is. generation: of the sockets before.
    last_error: the venue's last error text that belonged to no subscription of ours, "" when there was none.
    """

    def __init__(
        self,
        config: SessionConfig,
        rng: Random,
        *,
        number: int = 0,
        limits: LinkLimits | None = None,
        flow: Callable[[Mapping[str, Any]], int] = lambda _: -1,
        generation: int = 0,
    ) -> None:
        self._config = config
        self._rng = rng
        self._limits = limits or LinkLimits(config)
        self._flow = flow
        self.number = number
        self.state = LinkState.IDLE
        self.generation = generation
        self.counters = LinkCounters()
        self.last_error = ""
        self._subscriptions: dict[bytes, _Subscription] = {}  # by canonical form, in the order first asked for
        self._topics: dict[tuple[object, ...], dict[bytes, _Subscription]] = {}  # the same, by what an echo keeps
        self._asking = 0  # how many have an answer due
        # To be sent, streams of a user first.
        self._queues: dict[str, dict[bytes, _Subscription]] = {"user": {}, "market": {}}
        self._watched: dict[bytes, _Subscription] = {}  # those that are on, and should bring data
        self._posts: dict[int, tuple[float, float]] = {}  # in flight: when they are given up, when they were sent
        self._dues: list[tuple[float, int, _Subscription | int]] = []  # a heap; what is settled stays until it is due
        self._count = 0
        self._attempt = 0  # tries since a connection proved good; exponent of the backoff
        self._due_s = 0.0  # CONNECTING: give up; WAITING: try again
        self._live_since_s = 0.0
        self._next_ping_s = 0.0
        self._pong_deadline_s: float | None = None
        self._look_s = self._pumped_s = 0.0
        self._held_until_s = 0.0  # after our own loop stood still
        self._replaced_in_a_row = 0
        self._patient_until_s = float("-inf")
        self._limit_texts: dict[bool, tuple[float, str]] = {}  # the last ones, by whether they are about users

    @property
    def deadline(self) -> float | None:
        """When `on_timer` must be called next, on the clock of `now_s`; None when nothing is due."""
        if self.state is LinkState.LIVE:
            return max(self._due(), self._held_until_s)
        if self.state in (LinkState.CONNECTING, LinkState.WAITING):
            return self._due_s
        return None

    @property
    def subscriptions(self) -> list[tuple[dict[str, Any], SubState]]:
        """Everything wanted, in the order first asked for, as it was given."""
        for sub in self._watched.values():  # only looked at: what follows from it comes with the timer
            if not sub.proven and not sub.stale and self._flow(sub.given) > sub.count >= 0:
                sub.proven = True
        return [(dict(sub.given), sub.state) for sub in self._subscriptions.values() if sub.wanted]

    @property
    def holds(self) -> Iterable[Mapping[str, Any]]:
        """What is wanted, and what the venue may still have although it is not; with addresses in lower case."""
        return (sub.folded for sub in self._subscriptions.values())

    @property
    def posts(self) -> int:
        """In flight."""
        return len(self._posts)

    # What the owner asks for.

    def start(self, now_s: float) -> list[Effect]:
        return self._connect(now_s) if self.state is LinkState.IDLE else []

    def close(self, now_s: float) -> list[Effect]:
        """For good: afterwards every event is ignored, and a socket that still appears is disconnected."""
        if self.state is LinkState.CLOSED:
            return []
        effects: list[Effect] = []
        if self.state in (LinkState.CONNECTING, LinkState.LIVE):
            effects.append(Disconnect(self.generation, "closed by us", graceful=True, link=self.number))
        effects += self._forget_connection("closed by us")
        self.state = LinkState.CLOSED
        return [*effects, StateChanged(LinkState.CLOSED, "closed by us", self.number)]

    def subscribe(self, now_s: float, subscription: Mapping[str, Any]) -> list[Effect]:
        """Want a subscription from now on. One that is already wanted stays as it is; a failed one is tried again.

        Raises TypeError when it is not JSON.
        """
        if self.state is LinkState.CLOSED:
            return []
        folded = fold(subscription)
        key = canonical(folded)
        sub = self._subscriptions.get(key)
        if sub is None:
            self._count += 1
            sub = _Subscription(dict(subscription), folded, key, self._period_s(folded), self._count)
            sub.once = folded.get("type") == "bbo"
            self._subscriptions[key] = sub
            self._topics.setdefault(_topic(folded), {})[key] = sub
        again, sub.wanted, sub.failed, sub.refusals = not sub.wanted, True, False, 0
        if sub.on and not sub.asked and not sub.sure:
            self._set(sub, asked="", on=False)  # it is asked for again; if it is on, the venue says so
        if again and sub.on and not sub.asked and not sub.repairing:
            self._queues[sub.kind].pop(key, None)  # it was to be given up, and nothing was said of that yet
            sub.count, sub.moved_s = self._flow(sub.given), now_s  # what nobody wanted may not have been counted
            return self._served(sub, None)
        return self._go_on(now_s, sub)

    def unsubscribe(self, now_s: float, subscription: Mapping[str, Any]) -> list[Effect]:
        """Want it no longer. Data already on its way can still arrive."""
        sub = self._subscriptions.get(canonical(fold(subscription)))
        if sub is None or self.state is LinkState.CLOSED:
            return []
        sub.wanted = sub.failed = False  # a silence is remembered: it is not over because nobody looks
        return self._go_on(now_s, sub)

    def post(self, now_s: float, post_id: int, data: bytes, timeout_s: float, *, urgent: bool = False) -> list[Effect]:
        """Send a post; exactly one PostAnswered or PostLost will follow, unless this raises.

        data: the whole message, with that id. urgent: it may use what is kept for cancels.
        Raises LinkDown without a live connection, Throttled without room in a budget: then nothing is sent.
        """
        if self.state is not LinkState.LIVE:
            raise LinkDown(f"no live connection: the link is {self.state.value}")
        if post_id in self._posts:
            raise ValueError(f"post {post_id} is already in flight")
        limits, kind = self._limits, "cancel" if urgent else "post"
        if limits.posts >= limits.max_posts:
            raise Throttled(f"{limits.posts} posts are in flight, the venue takes no more", timeout_s)
        free_s = limits.free_at(now_s, kind)
        if free_s > now_s:
            raise Throttled(
                f"the share of {kind}s in {limits.messages.limit} messages a minute is used up", free_s - now_s
            )
        limits.take(now_s, kind)
        limits.posts += 1
        self.counters.posts += 1
        due_s = now_s + timeout_s
        self._posts[post_id] = due_s, now_s
        self._push(due_s, post_id)
        return [Send(data, self.number)]

    def pump(self, now_s: float) -> list[Effect]:
        """Send what waits for room in a budget, as far as there is room now."""
        effects: list[Effect] = []
        if self.state is not LinkState.LIVE:
            return effects
        limits, self._pumped_s = self._limits, now_s
        for kind, queue in self._queues.items():
            for key, sub in list(queue.items()):
                if sub.to_ask:
                    if limits.free_at(now_s, kind) > now_s:
                        break
                    if not sub.on and limits.subscriptions >= limits.max_subscriptions:
                        continue  # until something is given back
                    effects.append(self._ask(now_s, sub, sub.to_ask))
                del queue[key]
        return effects

    # What happened.

    def on_connected(self, now_s: float, generation: int) -> list[Effect]:
        if generation != self.generation or self.state not in (LinkState.CONNECTING, LinkState.LIVE):
            return [Disconnect(generation, "this connection came too late", link=self.number)]
        if self.state is LinkState.LIVE:
            return []
        self.state = LinkState.LIVE
        self.counters.connects += 1
        self.counters.reconnects += self.counters.connects > 1
        self._live_since_s = self._look_s = now_s
        self._next_ping_s = now_s + self._config.ping_interval_s
        for sub in self._subscriptions.values():
            if sub.failed and sub.again_s < float("inf"):
                sub.again_s = max(sub.again_s, now_s)
                self._push(sub.again_s, sub)
            elif sub.to_ask:
                self._queues[sub.kind][sub.key] = sub
        return [StateChanged(LinkState.LIVE, "connected", self.number), *self.pump(now_s)]

    def on_connect_failed(self, now_s: float, generation: int, reason: str) -> list[Effect]:
        if generation != self.generation or self.state is not LinkState.CONNECTING:
            return []
        return self._wait(now_s, reason)

    def on_disconnected(self, now_s: float, generation: int, reason: str) -> list[Effect]:
        if generation != self.generation or self.state not in (LinkState.CONNECTING, LinkState.LIVE):
            return []
        return self._wait(now_s, reason)

    def on_control(self, now_s: float, generation: int, message: bytes) -> list[Effect]:
        """Of channel `pong`, `subscriptionResponse`, `error` or `post`. Never raises: unreadable ones are counted."""
        if generation != self.generation or self.state is not LinkState.LIVE:
            return []
        if (quick := _POST_ID.match(message)) is not None:  # what an order waits for is not parsed twice
            return self._answered(now_s, "post", int(quick[1]), message)
        try:
            envelope = orjson.loads(message)
            channel, data = envelope["channel"], envelope.get("data")
        except (ValueError, TypeError, KeyError, AttributeError):
            self.counters.bad_controls += 1
            return []
        if channel == "pong":
            self.counters.pongs += 1
            self._pong_deadline_s = None
        elif channel == "subscriptionResponse" and isinstance(data, dict):
            method = data.get("method")
            if method in ("subscribe", "unsubscribe"):
                return self._settle(now_s, data.get("subscription"), method)
        elif channel == "error" and isinstance(data, str):
            if (refused := _TOO_MANY_POSTS.match(data)) is not None:  # it says nothing about a subscription
                self.counters.errors += 1
                return self._answered(now_s, channel, int(refused[1]), message)
            return self._on_error(now_s, data)
        elif channel == "post":
            post_id = data.get("id") if isinstance(data, dict) else None
            return self._answered(now_s, channel, post_id if type(post_id) is int else -1, message)
        else:
            self.counters.bad_controls += 1
        return []

    def on_timer(self, now_s: float) -> list[Effect]:
        """Do what is due. Called too early, or too often, it does nothing."""
        if self.state is LinkState.LIVE:
            return self._on_live_timer(now_s)
        if self.state is LinkState.CONNECTING and now_s >= self._due_s:
            return self._cut(now_s, f"no connection within {self._config.connect_timeout_s:g} s")
        if self.state is LinkState.WAITING and now_s >= self._due_s:
            return self._connect(now_s)
        return []

    # The connection.

    def _connect(self, now_s: float) -> list[Effect]:
        sockets = self._limits.sockets
        # The first link has what trades: a fifth of the sockets is kept for it.
        free_s = sockets.free_at(now_s, sockets.limit // 5 if self.number else 0)
        if free_s > now_s:
            self._due_s = free_s
            if self.state is LinkState.WAITING:
                return []
            self.state = LinkState.WAITING
            return [StateChanged(LinkState.WAITING, f"{sockets.limit} new sockets in this minute", self.number)]
        self.generation += 1
        sockets.take(now_s)
        self.state = LinkState.CONNECTING
        timeout_s = self._config.connect_timeout_s
        self._due_s = now_s + timeout_s
        return [
            StateChanged(LinkState.CONNECTING, f"try {self._attempt + 1}", self.number),
            Connect(self.generation, timeout_s, self.number),
        ]

    def _cut(self, now_s: float, reason: str) -> list[Effect]:
        return [Disconnect(self.generation, reason, link=self.number), *self._wait(now_s, reason)]

    def _replace(self, now_s: float, reason: str) -> list[Effect]:
        """Give up a socket for what is wrong with one stream. It costs all the others, so ever more rarely."""
        self.counters.replaced += 1
        self._patient_until_s = now_s + min(_MOST_PATIENCE_S, _PATIENCE_S * 2.0**self._replaced_in_a_row)
        self._replaced_in_a_row = min(self._replaced_in_a_row + 1, 10)
        return self._cut(now_s, reason)

    def _wait(self, now_s: float, reason: str) -> list[Effect]:
        config = self._config
        # Only a connection that lasted clears the backoff: else a venue that accepts and cuts at once is hammered.
        if self.state is LinkState.LIVE and now_s - self._live_since_s >= config.backoff_max_s:
            self._attempt = 0
        ceiling_s = min(config.backoff_max_s, config.backoff_min_s * 2.0 ** min(self._attempt, 60))
        self._attempt += 1
        self._due_s = now_s + self._rng.uniform(0.0, ceiling_s)
        self._due_s = max(self._due_s, self._limits.sockets.free_at(now_s))
        effects = self._forget_connection(reason)
        self.state = LinkState.WAITING
        return [*effects, StateChanged(LinkState.WAITING, reason, self.number)]

    def _forget_connection(self, reason: str) -> list[Effect]:
        effects: list[Effect] = []
        for sub in self._subscriptions.values():
            # One that is stale may have spoken since it was last looked at: whoever reads it takes it for served.
            if sub.wanted and sub.held and (not sub.stale or self._flow(sub.given) != sub.count):
                effects.append(self._down(sub, reason))
            self._set(sub, asked="", on=False)
            sub.stale = sub.proven = sub.repairing = False
            sub.repairs = 0
        for sub in [sub for sub in self._subscriptions.values() if not sub.wanted]:
            self._forget(sub)
        for post_id in self._posts:
            self.counters.posts_lost += 1
            effects.append(PostLost(post_id, f"the link went down: {reason}", self.number))
        self._limits.posts -= len(self._posts)
        self._posts.clear()
        self._dues.clear()
        for queue in self._queues.values():
            queue.clear()
        self._pong_deadline_s = None
        self._held_until_s = 0.0
        return effects

    # Time.

    def _due(self) -> float:
        due_s = self._next_ping_s
        if self._pong_deadline_s is not None:
            due_s = min(due_s, self._pong_deadline_s)
        while self._dues and not self._is_due(self._dues[0]):
            heapq.heappop(self._dues)
        if self._dues:
            due_s = min(due_s, self._dues[0][0])
        if self._watched:
            due_s = min(due_s, self._look_s)
        limits = self._limits
        for kind, queue in self._queues.items():
            # What waits for a subscription to be given back has no time: whoever sees that calls `pump`.
            if queue and (limits.subscriptions < limits.max_subscriptions or any(sub.on for sub in queue.values())):
                due_s = min(due_s, max(limits.free_at(float("-inf"), kind), self._pumped_s))
        return due_s

    def _is_due(self, entry: tuple[float, int, _Subscription | int]) -> bool:
        due_s, _, what = entry
        if isinstance(what, int):
            return what in self._posts and self._posts[what][0] == due_s
        if what.failed:
            return what.again_s == due_s
        return bool(what.asked) and what.due_s == due_s

    def _push(self, due_s: float, what: _Subscription | int) -> None:
        self._count += 1
        heapq.heappush(self._dues, (due_s, self._count, what))

    def _on_live_timer(self, now_s: float) -> list[Effect]:
        config = self._config
        late_s = now_s - self._due()
        if late_s > _LATE_S and self._held_until_s == 0.0:
            self._held_until_s = now_s + _LATE_S
            return []
        if now_s < self._held_until_s:
            return []
        self._held_until_s = 0.0
        if self._pong_deadline_s is not None and now_s >= self._pong_deadline_s:
            return self._cut(now_s, f"no pong within {config.pong_timeout_s:g} s of a ping")
        effects: list[Effect] = []
        # Also while data flows: only a pong proves that the venue still hears us.
        if now_s >= self._next_ping_s:
            self.counters.pings += 1
            self._next_ping_s = now_s + config.ping_interval_s
            if self._pong_deadline_s is None:
                self._pong_deadline_s = now_s + config.pong_timeout_s
            self._limits.take(now_s, "ping")
            effects.append(Send(_PING, self.number))
        while self._dues and self._dues[0][0] <= now_s:
            entry = heapq.heappop(self._dues)
            if not self._is_due(entry):
                continue
            what = entry[2]
            if isinstance(what, int):
                del self._posts[what]
                self._limits.posts -= 1
                self.counters.posts_lost += 1
                effects.append(PostLost(what, "no answer in time", self.number))
                continue
            effects += self._overdue(now_s, what)
            if self.state is not LinkState.LIVE:
                return effects
        if self._watched and now_s >= self._look_s:
            effects += self._look(now_s)
            if self.state is not LinkState.LIVE:
                return effects
        return [*effects, *self.pump(now_s)]

    # Subscriptions.

    def _period_s(self, folded: Mapping[str, Any]) -> float:
        """Of l2Book: the venue pushes every so often, changed or not. 0 for streams that may rightly be silent.

        Of bbo, which may be so after its first message: how long that takes at most.
        """
        if folded.get("type") == "bbo" or (folded.get("type") == "l2Book" and folded.get("fast") is True):
            return self._config.fast_period_s
        return self._config.slow_period_s if folded.get("type") == "l2Book" else 0.0

    def _silence_s(self, sub: _Subscription) -> float:
        return max(_SILENT_PERIODS * sub.period_s, self._config.silence_min_s)

    def _set(self, sub: _Subscription, *, asked: str, on: bool) -> None:
        """The one place that moves a subscription, and with it what is kept about it."""
        self._asking += bool(asked) - bool(sub.asked)
        limits, user = self._limits, sub.folded.get("user")
        limits.subscriptions -= sub.held
        if user is not None:
            limits.users[user] -= sub.held
        sub.asked, sub.on = asked, on
        limits.subscriptions += sub.held
        if user is not None:
            limits.users[user] += sub.held
        if sub.period_s and on and not asked and not sub.failed:
            self._watched[sub.key] = sub
        else:
            self._watched.pop(sub.key, None)

    def _go_on(self, now_s: float, sub: _Subscription) -> list[Effect]:
        """Send what follows from what is wanted and what the venue has; forget what is neither."""
        if not sub.wanted and not sub.held:
            self._forget(sub)
        elif sub.to_ask and self.state is LinkState.LIVE:
            self._queues[sub.kind][sub.key] = sub
            return self.pump(now_s)
        return []

    def _forget(self, sub: _Subscription) -> None:
        if self._subscriptions.pop(sub.key, None) is not None:
            topic = _topic(sub.folded)
            del self._topics[topic][sub.key]
            if not self._topics[topic]:
                del self._topics[topic]

    def _ask(self, now_s: float, sub: _Subscription, method: str) -> Send:
        if sub.asked != method:
            sub.tries = 0
            sub.sent_s = now_s
            if method == "subscribe":
                sub.count = self._flow(sub.given)
        sub.tries += 1
        sub.tried_s = now_s
        self._set(sub, asked=method, on=sub.on)
        sub.due_s = now_s + self._config.ack_timeout_s * min(max(1, sub.tries - self._config.ack_tries), _SLOWEST)
        self._push(sub.due_s, sub)
        self._limits.take(now_s, sub.kind)
        return Send(orjson.dumps({"method": method, "subscription": sub.given}), self.number)

    def _overdue(self, now_s: float, sub: _Subscription) -> list[Effect]:
        """No answer in time, for which nobody else pays: it is sent again. So is what was refused for a limit."""
        if sub.failed:
            sub.failed = False
            return self._go_on(now_s, sub)
        config, method = self._config, sub.asked
        if method == "subscribe" and self._flow(sub.given) > sub.count >= 0:
            return self._acked(now_s, sub, heard=False)  # data are a better proof than the words
        if method == "subscribe" and not sub.wanted:
            self._set(sub, asked="", on=True)  # it may be
            sub.sure = False
            return self._go_on(now_s, sub)
        if method == "unsubscribe" and sub.wanted:
            return self._off(now_s, sub)  # if it is still on, the venue says so
        limit = self._limit_met(sub) if method == "subscribe" else ""
        if limit and sub.tries >= 2 and not sub.known:
            # Silence after it is that refusal. One that was served before is another matter: the venue may still count
            # it on the connection that has just ended.
            patience_s = min(_MOST_PATIENCE_S, _PATIENCE_S * 2.0 ** min(sub.refusals, 10))
            return self._refused(sub, limit, again_s=now_s + patience_s)
        # A new socket would only meet the same limit, and cost every other subscription its data.
        if method == "subscribe" and not limit and sub.tries >= config.ack_tries and now_s >= self._patient_until_s:
            wire = orjson.dumps(sub.given).decode()
            return self._replace(now_s, f"no answer to the subscription {wire}, sent {sub.tries} times")
        free_s = self._limits.free_at(now_s, sub.kind)
        if free_s > now_s:
            sub.due_s = free_s
            self._push(free_s, sub)
            return []
        self.counters.resends += 1
        return [self._ask(now_s, sub, method)]

    def _limit_met(self, sub: _Subscription) -> str:
        """What the venue has said of a limit that counts this one, since it was last sent; "" when nothing."""
        for about_users, (told_s, text) in self._limit_texts.items():
            if told_s >= sub.tried_s and (sub.is_user or not about_users):
                return text
        return ""

    def _look(self, now_s: float) -> list[Effect]:
        """Which streams that should bring data do, and what to do about those that do not."""
        effects: list[Effect] = []
        silent: list[_Subscription] = []
        counted = 0
        next_s = float("inf")
        for sub in list(self._watched.values()):
            next_s = min(next_s, now_s + sub.period_s)
            count = self._flow(sub.given)
            if count < 0 or not sub.wanted:  # nothing is told about what nobody wants, and nothing repaired
                continue
            counted += not sub.once
            if count != sub.count:
                sub.count, sub.moved_s, sub.proven, sub.repairs, sub.repairing = count, now_s, True, 0, False
                if sub.stale:
                    sub.stale = False
                    effects.append(self._up(sub))
                if sub.once:
                    del self._watched[sub.key]
                continue
            patience_s = self._silence_s(sub) * min(2 ** max(0, sub.repairs - 1), _SLOWEST)
            if now_s - sub.moved_s + _EPS_S >= patience_s:
                silent.append(sub)
            else:
                next_s = min(next_s, sub.moved_s + patience_s)
        self._look_s = next_s
        if not silent:
            if now_s - self._live_since_s >= _PATIENCE_S and not self._asking:
                self._replaced_in_a_row = 0
            return effects
        for sub in silent:
            if not sub.stale:
                sub.stale, sub.proven = True, False
                self.counters.silences += 1
                effects.append(self._down(sub, f"silent for {now_s - sub.moved_s:.1f} s"))
        if now_s >= self._patient_until_s:
            if sum(not sub.once for sub in silent) == counted >= 2:
                return [*effects, *self._replace(now_s, f"none of {counted} periodic streams brings data")]
            if again := [sub for sub in silent if sub.repairs and not sub.repairing and not sub.once]:
                wire = orjson.dumps(again[0].given).decode()
                return [*effects, *self._replace(now_s, f"no data of {wire}, also after subscribing again")]
        for sub in silent:
            if not sub.repairing:  # else that still waits for room in the budget
                sub.repairs += 1
                sub.repairing = True
                effects += self._go_on(now_s, sub)
        return effects

    def _on_error(self, now_s: float, text: str) -> list[Effect]:
        if text.startswith(_ALREADY_UNSUBSCRIBED):
            return self._settle(now_s, _embedded(text), "unsubscribe")
        if text.startswith(_ALREADY_SUBSCRIBED):
            return self._settle(now_s, _embedded(text), "subscribe")
        self.counters.errors += 1
        if text.startswith(_REFUSALS):
            echo = _embedded(text)
            method = echo.get("method", "subscribe")
            ours = echo.get("subscription") if "method" in echo else echo  # it may be our whole message
            sub = self._find_asked(ours, method)
            if sub is None and "method" not in echo:
                sub = self._find_asked(echo, "unsubscribe")
            if sub is not None and sub.asked == "unsubscribe":
                return self._off(now_s, sub)
            if sub is not None:
                return self._refused(sub, text) if sub.wanted else self._off(now_s, sub)
            if echo:  # of one that is no longer wanted: it says nothing about any other
                return []
        if _LIMIT.search(text):
            self._limit_texts["user" in text.lower()] = now_s, text
        self.last_error = text
        return []

    def _settle(self, now_s: float, echo: object, method: str) -> list[Effect]:
        sub = self._find_asked(echo, method)
        if sub is None:
            return []
        return self._acked(now_s, sub) if method == "subscribe" else self._off(now_s, sub)

    def _acked(self, now_s: float, sub: _Subscription, *, heard: bool = True) -> list[Effect]:
        self._set(sub, asked="", on=True)
        sub.sure = sub.known = True
        sub.refusals = 0
        count = self._flow(sub.given) if sub.period_s else -1
        sub.proven = count < 0 or count > sub.count or (sub.once and sub.repairs >= _BELIEVED)
        if sub.proven:
            sub.repairs = 0
            if sub.once:
                self._watched.pop(sub.key, None)
        sub.count, sub.moved_s = count, now_s
        if sub.key in self._watched:
            look_s = now_s + sub.period_s
            self._look_s = look_s if len(self._watched) == 1 else min(self._look_s, look_s)
        if not sub.wanted:  # but it may be again, before that is said
            return self._go_on(now_s, sub)
        return self._served(sub, now_s - sub.sent_s if heard else None)

    def _served(self, sub: _Subscription, waited_s: float | None) -> list[Effect]:
        effects: list[Effect] = [Subscribed(dict(sub.given), self.number, waited_s)]
        if sub.proven or not sub.stale:  # after a silence only data prove that it is over
            sub.stale = False
            effects.append(self._up(sub))
        return effects

    def _off(self, now_s: float, sub: _Subscription) -> list[Effect]:
        effects: list[Effect] = []
        if sub.wanted and sub.on and not sub.stale:  # again: until the venue has taken that, nothing is served
            effects.append(self._down(sub, "it was unsubscribed, and is subscribed to again"))
        self._set(sub, asked="", on=False)
        sub.repairing = False
        return effects + self._go_on(now_s, sub)

    def _refused(self, sub: _Subscription, text: str, *, again_s: float = float("inf")) -> list[Effect]:
        """again_s: for a limit, of which one cannot be sure; then it will be unsubscribed once nobody wants it."""
        sub.failed, sub.stale, sub.sure, sub.again_s = True, False, False, again_s
        sub.refusals += 1
        self._set(sub, asked="", on=again_s < float("inf"))
        return [Refused(dict(sub.given), text, self.number, sub.key)] if sub.refusals == 1 else []

    def _up(self, sub: _Subscription) -> Up:
        return Up(dict(sub.given), self.number, sub.key)

    def _down(self, sub: _Subscription, reason: str) -> Down:
        return Down(dict(sub.given), reason, self.number, sub.key)

    def _find_asked(self, echo: object, method: object) -> _Subscription | None:
        """The subscription that the venue answers with this echo.

        The echo is not always what was sent: other key order, addresses in lower case, fields added, often as null.
        So ours must be a part of it; of several, the one with most keys is meant. Those that wait for no answer count
        too, or the second of two answers would pass for that of a shorter one.
        """
        if not isinstance(echo, dict):
            return None
        folded = fold(echo)
        ours = self._topics.get(_topic(folded), {})
        found = None
        with suppress(TypeError):  # nested more deeply than orjson writes
            found = ours.get(canonical(folded))
        if found is None:
            parts = [sub for sub in ours.values() if all(folded.get(k) == v for k, v in sub.folded.items())]
            found = max(parts, key=lambda sub: len(sub.folded), default=None)
        return found if found is not None and found.asked == method else None

    def _answered(self, now_s: float, channel: str, post_id: int, message: bytes) -> list[Effect]:
        post = self._posts.pop(post_id, None)
        if post is None:
            return [Forward(channel, message, self.number)]
        self._limits.posts -= 1
        return [PostAnswered(post_id, message, self.number, now_s - post[1])]
