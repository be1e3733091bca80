"""One WebSocket connection as a state machine: events in, effects out; no I/O, no clock.

The caller tells what happened and what time it is (`now_s`: monotonic seconds), carries out the returned effects in
their order, and calls `on_timer` when `deadline` is reached. Reconnecting is the normal path: the venue cuts every
connection after minutes, with a close frame, without one, or half-open. Nothing is resumed, so every wanted
subscription is sent again on each new connection.

Each `Connect` carries a generation, and what is reported about that socket carries it back. Late news of an old socket
is then ignored instead of being taken for news of the present one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any

import orjson

from ..config import SessionConfig

__all__ = [
    "Connect",
    "Disconnect",
    "Effect",
    "Forward",
    "Link",
    "LinkCounters",
    "LinkState",
    "Refused",
    "Send",
    "StateChanged",
    "SubState",
    "Subscribed",
]

_WINDOW_S = 60.0
_PING = b'{"method":"ping"}'
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
# The venue's own words; what follows in each is the JSON of our subscription or of our whole message.
_ALREADY_SUBSCRIBED = "Already subscribed"
_ALREADY_UNSUBSCRIBED = "Already unsubscribed"
_TOO_MANY_POSTS = "too many pending post requests"
_REFUSALS = ("Invalid subscription", "Error parsing JSON into valid websocket request")


class LinkState(Enum):
    """IDLE: not started. WAITING: no socket, a new try is due at `deadline`. LIVE: subscriptions are sent."""

    IDLE = "idle"
    CONNECTING = "connecting"
    LIVE = "live"
    WAITING = "waiting"
    CLOSED = "closed"


class SubState(Enum):
    """WANTED: to be sent on the next connection. FAILED: the venue refused it; not sent until asked for again."""

    WANTED = "wanted"
    SENT = "sent"
    ACKED = "acked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a socket. Name resolution, TCP, TLS and the handshake together get `timeout_s`, which the link watches."""

    generation: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Send:
    """Send one text message on the connection that is live."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End the socket of `generation`, or the attempt to open it. graceful: say goodbye with a close frame first."""

    generation: int
    reason: str
    graceful: bool = False


@dataclass(frozen=True, slots=True)
class StateChanged:
    state: LinkState
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The venue refused a subscription. message: its own text."""

    subscription: dict[str, Any]
    message: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The venue acknowledged a subscription on this connection: from here on its data come."""

    subscription: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Forward:
    """A control message that is not about the link or its subscriptions: the refusal of a post."""

    channel: str
    message: bytes


Effect = Connect | Send | Disconnect | StateChanged | Refused | Subscribed | Forward


@dataclass(slots=True)
class LinkCounters:
    """connects: sockets that became live. errors: error texts of the venue. bad_controls: unreadable messages."""

    connects: int = 0
    reconnects: int = 0
    pings: int = 0
    pongs: int = 0
    errors: int = 0
    bad_controls: int = 0


@dataclass(slots=True)
class _Subscription:
    given: dict[str, Any]
    folded: dict[str, Any]
    wire: bytes
    state: SubState = SubState.WANTED
    sent_s: float = 0.0  # the first time on this connection
    ack_deadline_s: float = 0.0
    resent: bool = False


def _fold(subscription: Mapping[str, Any]) -> dict[str, Any]:
    """As the venue echoes it: addresses in lower case. Only addresses: coins are case-sensitive (kPEPE)."""
    return {
        key: value.lower() if isinstance(value, str) and _ADDRESS.fullmatch(value) else value
        for key, value in subscription.items()
    }


def _canonical(folded: Mapping[str, Any]) -> bytes:
    return orjson.dumps(folded, option=orjson.OPT_SORT_KEYS)


def _embedded(text: str) -> dict[str, Any]:
    """The JSON object inside one of the venue's error texts; empty when there is none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        value = orjson.loads(text[start : end + 1])
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class Link:
    """The state machine. `state`, `deadline`, `subscriptions`, `counters` and `last_error` may be read at any time.

    rng decides the jitter of the backoff: two clients cut at the same moment should not return at the same moment.
    last_error: the venue's last error text that belonged to no subscription of ours, "" when there was none.
    """

    def __init__(self, config: SessionConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self.state = LinkState.IDLE
        self.generation = 0
        self.counters = LinkCounters()
        self.last_error = ""
        self._subscriptions: dict[bytes, _Subscription] = {}  # by canonical form, in the order first asked for
        self._pending: dict[bytes, _Subscription] = {}  # those SENT, in the order sent: the first is due first
        self._connect_times_s: deque[float] = deque(maxlen=max(1, int(config.sockets_per_minute)))
        self._attempt = 0  # tries since a connection proved good; exponent of the backoff
        self._due_s = 0.0  # CONNECTING: give up; WAITING: try again
        self._live_since_s = 0.0
        self._next_ping_s = 0.0
        self._pong_deadline_s: float | None = None
        self._last_error_s = 0.0

    @property
    def deadline(self) -> float | None:
        """When `on_timer` must be called next, on the clock of `now_s`; None when nothing is due."""
        if self.state is LinkState.LIVE:
            due_s = self._next_ping_s
            if self._pong_deadline_s is not None:
                due_s = min(due_s, self._pong_deadline_s)
            first = next(iter(self._pending.values()), None)
            return due_s if first is None else min(due_s, first.ack_deadline_s)
        if self.state in (LinkState.CONNECTING, LinkState.WAITING):
            return self._due_s
        return None

    @property
    def subscriptions(self) -> list[tuple[dict[str, Any], SubState]]:
        """Everything wanted, in the order first asked for, as it was given."""
        return [(dict(sub.given), sub.state) for sub in self._subscriptions.values()]

    # What the owner asks for.

    def start(self, now_s: float) -> list[Effect]:
        return self._connect(now_s) if self.state is LinkState.IDLE else []

    def close(self, now_s: float) -> list[Effect]:
        """For good: afterwards every event is ignored, and a socket that still appears is disconnected."""
        if self.state is LinkState.CLOSED:
            return []
        effects: list[Effect] = []
        if self.state in (LinkState.CONNECTING, LinkState.LIVE):
            effects.append(Disconnect(self.generation, "closed by us", graceful=True))
        self._forget_connection()
        self.state = LinkState.CLOSED
        return [*effects, StateChanged(LinkState.CLOSED, "closed by us")]

    def subscribe(self, now_s: float, subscription: Mapping[str, Any]) -> list[Effect]:
        """Want a subscription from now on. One that is already wanted stays as it is; a failed one is tried again.

        Raises TypeError when it is not JSON.
        """
        if self.state is LinkState.CLOSED:
            return []
        folded = _fold(subscription)
        key = _canonical(folded)
        sub = self._subscriptions.get(key)
        if sub is None:
            given = dict(subscription)
            wire = orjson.dumps({"method": "subscribe", "subscription": given})
            sub = self._subscriptions[key] = _Subscription(given, folded, wire)
        elif sub.state is not SubState.FAILED:
            return []
        sub.state = SubState.WANTED
        return [self._send(now_s, key, sub)] if self.state is LinkState.LIVE else []

    def unsubscribe(self, now_s: float, subscription: Mapping[str, Any]) -> list[Effect]:
        """Want it no longer. Data already on its way can still arrive."""
        key = _canonical(_fold(subscription))
        sub = self._subscriptions.pop(key, None)
        self._pending.pop(key, None)
        if sub is None or sub.state not in (SubState.SENT, SubState.ACKED):
            return []
        return [Send(orjson.dumps({"method": "unsubscribe", "subscription": sub.given}))]

    # What happened.

    def on_connected(self, now_s: float, generation: int) -> list[Effect]:
        if generation != self.generation or self.state not in (LinkState.CONNECTING, LinkState.LIVE):
            return [Disconnect(generation, "this connection came too late")]
        if self.state is LinkState.LIVE:
            return []
        self.state = LinkState.LIVE
        self.counters.connects += 1
        self.counters.reconnects += self.counters.connects > 1
        self._live_since_s = now_s
        self._next_ping_s = now_s + self._config.ping_interval_s
        effects: list[Effect] = [StateChanged(LinkState.LIVE, "connected")]
        for key, sub in self._subscriptions.items():
            if sub.state is SubState.WANTED:
                effects.append(self._send(now_s, key, sub))
        return effects

    def on_connect_failed(self, now_s: float, generation: int, reason: str) -> list[Effect]:
        if generation != self.generation or self.state is not LinkState.CONNECTING:
            return []
        return self._wait(now_s, reason)

    def on_disconnected(self, now_s: float, generation: int, reason: str) -> list[Effect]:
        if generation != self.generation or self.state not in (LinkState.CONNECTING, LinkState.LIVE):
            return []
        return self._wait(now_s, reason)

    def on_control(self, now_s: float, generation: int, message: bytes) -> list[Effect]:
        """A message of channel `pong`, `subscriptionResponse` or `error`. Never raises: bad ones are counted."""
        if generation != self.generation or self.state is not LinkState.LIVE:
            return []
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
            if data.get("method") == "subscribe":
                return self._subscribed(data.get("subscription"))
        elif channel == "error" and isinstance(data, str):
            if data.startswith(_TOO_MANY_POSTS):  # not kept as `last_error`: it says nothing about a subscription
                self.counters.errors += 1
                return [Forward(channel, message)]
            return self._on_error(now_s, data)
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

    # How.

    def _connect(self, now_s: float) -> list[Effect]:
        self.generation += 1
        self._connect_times_s.append(now_s)
        self.state = LinkState.CONNECTING
        timeout_s = self._config.connect_timeout_s
        self._due_s = now_s + timeout_s
        return [
            StateChanged(LinkState.CONNECTING, f"try {self._attempt + 1}"),
            Connect(self.generation, timeout_s),
        ]

    def _cut(self, now_s: float, reason: str) -> list[Effect]:
        return [Disconnect(self.generation, reason), *self._wait(now_s, reason)]

    def _wait(self, now_s: float, reason: str) -> list[Effect]:
        config = self._config
        # Only a connection that lasted clears the backoff: else a venue that accepts and cuts at once is hammered.
        if self.state is LinkState.LIVE and now_s - self._live_since_s >= config.backoff_max_s:
            self._attempt = 0
        ceiling_s = min(config.backoff_max_s, config.backoff_min_s * 2.0 ** min(self._attempt, 60))
        self._attempt += 1
        self._due_s = now_s + self._rng.uniform(0.0, ceiling_s)
        if len(self._connect_times_s) == self._connect_times_s.maxlen:
            self._due_s = max(self._due_s, self._connect_times_s[0] + _WINDOW_S)
        self._forget_connection()
        self.state = LinkState.WAITING
        return [StateChanged(LinkState.WAITING, reason)]

    def _forget_connection(self) -> None:
        self._pending.clear()
        self._pong_deadline_s = None
        for sub in self._subscriptions.values():
            if sub.state is not SubState.FAILED:
                sub.state = SubState.WANTED

    def _send(self, now_s: float, key: bytes, sub: _Subscription, *, again: bool = False) -> Send:
        sub.state = SubState.SENT
        sub.resent = again
        if not again:
            sub.sent_s = now_s
        sub.ack_deadline_s = now_s + self._config.ack_timeout_s
        self._pending.pop(key, None)  # to the end: the first pending one must be the first due
        self._pending[key] = sub
        return Send(sub.wire)

    def _on_live_timer(self, now_s: float) -> list[Effect]:
        config = self._config
        if self._pong_deadline_s is not None and now_s >= self._pong_deadline_s:
            return self._cut(now_s, f"no pong within {config.pong_timeout_s:g} s of a ping")
        effects: list[Effect] = []
        for key, sub in [item for item in self._pending.items() if now_s >= item[1].ack_deadline_s]:
            if not sub.resent:
                effects.append(self._send(now_s, key, sub, again=True))
            elif self.last_error and self._last_error_s >= sub.sent_s:
                # A refusal for a limit names no subscription: silence after one is that refusal. A new socket
                # would only meet the same limit, and cost every other subscription its data.
                del self._pending[key]
                sub.state = SubState.FAILED
                effects.append(Refused(dict(sub.given), self.last_error))
            else:
                reason = f"no answer to {sub.wire.decode()}, sent twice, within {config.ack_timeout_s:g} s"
                return [*effects, *self._cut(now_s, reason)]
        # Also while data flows: only a pong proves that the venue still hears us.
        if now_s >= self._next_ping_s:
            self.counters.pings += 1
            self._next_ping_s = now_s + config.ping_interval_s
            if self._pong_deadline_s is None:
                self._pong_deadline_s = now_s + config.pong_timeout_s
            effects.append(Send(_PING))
        return effects

    def _on_error(self, now_s: float, text: str) -> list[Effect]:
        if text.startswith(_ALREADY_UNSUBSCRIBED):
            return []
        if text.startswith(_ALREADY_SUBSCRIBED):
            return self._subscribed(_embedded(text))
        self.counters.errors += 1
        if text.startswith(_REFUSALS):
            echo = _embedded(text)
            ours = echo.get("subscription") if echo.get("method") == "subscribe" else echo  # or our whole message
            sub = self._take_pending(ours, SubState.FAILED)
            if sub is not None:
                return [Refused(dict(sub.given), text)]
            if echo:  # of one that is no longer wanted: it says nothing about any other
                return []
        self.last_error, self._last_error_s = text, now_s
        return []

    def _subscribed(self, echo: object) -> list[Effect]:
        sub = self._take_pending(echo, SubState.ACKED)
        return [] if sub is None else [Subscribed(dict(sub.given))]

    def _take_pending(self, echo: object, state: SubState) -> _Subscription | None:
        """Settle the pending subscription that the venue means by this echo.

        The echo is not always what was sent: other key order, addresses in lower case, fields added, often as null.
        So ours must be a part of it; of several, the one with most keys is meant.
        """
        if not isinstance(echo, dict):
            return None
        folded = _fold(echo)
        key: bytes | None = None
        with suppress(TypeError):  # nested more deeply than orjson writes
            key = _canonical({k: v for k, v in folded.items() if v is not None})
        if key not in self._pending:
            candidates = [
                (len(sub.folded), candidate)
                for candidate, sub in self._pending.items()
                if all(folded.get(k) == v for k, v in sub.folded.items())
            ]
            key = max(candidates, key=lambda c: c[0])[1] if candidates else None
        if key is None:
            return None
        sub = self._pending.pop(key)
        sub.state = state
        return sub
