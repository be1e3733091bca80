"""A pool of links against a modelled network and venue, on a clock that only the model moves.

Everything is decided by the seed: delays, failures to connect, cuts with and without a close frame, half-open sockets,
lost, late and doubled answers, streams that fall silent, posts, and what the owner asks for. `World.live` checks after
every step what must always hold, and at the end that everything wanted is served again.

The venue remembers each trade and candle it made, and sends real JSON. On the session stands the real market, with
`Listeners` who compare what they get with what the venue made, and with the gaps that were told.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any

import orjson
from session.listeners import Listeners

from hlconn.config import SessionConfig
from hlconn.errors import ConfigError, ErrorCode, LinkDown, QueryFailed, Throttled
from hlconn.session.link import (
    Connect,
    Disconnect,
    Down,
    Effect,
    Forward,
    LinkState,
    PostAnswered,
    PostLost,
    Refused,
    Send,
    StateChanged,
    Subscribed,
    SubState,
    Up,
    canonical,
    fold,
)
from hlconn.session.pool import Pool

ALICE, BOB = "0x" + "a1" * 20, "0x" + "b0" * 20
CATALOGUE: list[dict[str, Any]] = [
    *({"type": "trades", "coin": coin} for coin in "ABC"),
    *({"type": "bbo", "coin": coin} for coin in "AB"),
    *({"type": "l2Book", "coin": coin} for coin in "AB"),
    {"type": "l2Book", "coin": "A", "fast": True},
    {"type": "l2Book", "coin": "A", "nSigFigs": 5},
    {"type": "candle", "coin": "A", "interval": "1m"},
    {"type": "orderUpdates", "user": ALICE},
    {"type": "userFills", "user": "0x" + "A1" * 20},
    {"type": "orderUpdates", "user": BOB},
    {"type": "trades", "coin": "NOPE"},
]
BLOCK_S = 1.0
T0_MS = 1_790_000_000_000  # the venue's time when the model begins
CANDLE_MS = 10_000  # long enough for several of them in a world
_TRADE = (
    b'{"coin":"%b","side":"A","px":"1.0","sz":"1.0","time":%d,"hash":"0x0","tid":%d,'
    b'"users":["0x0000000000000000000000000000000000000001","0x0000000000000000000000000000000000000002"]}'
)
BOUND_S = 240.0  # after the last fault, everything is served again
_EPS = 1e-6


class Connection:
    """One socket, both ends and the wires between them. Each wire keeps the order of what it carries.

    ours, theirs: open, as either end knows. deaf: half-open, nothing passes any more and nobody knows.
    proven: what we may say is served over it: the venue has said so, or sent data, and we did not ask for its end.
    """

    __slots__ = (
        "arrival_s", "deaf", "delay_s", "generation", "link", "live", "ours", "pinged_s", "proven", "streams", "theirs"
    )  # fmt: skip

    def __init__(self, link: int, generation: int, delay_s: float) -> None:
        self.link, self.generation, self.delay_s = link, generation, delay_s
        self.ours = True
        self.theirs = self.live = self.deaf = False
        self.streams: dict[bytes, str] = {}  # what the venue has: "flows", or "silent" until it ends, or the socket
        self.arrival_s = [0.0, 0.0]
        self.proven: set[bytes] = set()
        self.pinged_s = 0.0


class World:
    """One seed's whole world. log: what happened, for whoever looks for the reason of a failure."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = Random(seed)
        self.now_s = 0.0
        self.log: deque[tuple[Any, ...]] = deque(maxlen=400)
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._number = 0
        max_links = rng.randint(1, 4)
        self.config = SessionConfig(
            ping_interval_s=rng.choice([5.0, 15.0]),
            pong_timeout_s=rng.choice([2.0, 5.0]),
            ack_timeout_s=2.0,
            connect_timeout_s=3.0,
            backoff_max_s=5.0,
            slow_period_s=5.0,
            fast_period_s=2.0,
            sockets_per_minute=rng.choice([12, 30]),
            messages_per_minute=rng.choice([220, 400]),
            max_subscriptions=rng.choice([6, 1000]),
            subscriptions_per_link=rng.choice([2, 4, 100]),
            max_links=max_links,
            redundancy=rng.choice([1, 1, 2]) if max_links > 1 else 1,
        )
        self.periods_s = {key: _period_s(given, self.config) for key, given in _PARSED.items()}
        self.troubled = True
        self.trouble = rng.choice([0.1, 0.5, 1.0])  # how much of it
        self.connections: dict[tuple[int, int], Connection] = {}
        self.generations: Counter[int] = Counter()
        self.told: dict[int, LinkState] = {}
        self.wanted: dict[bytes, dict[str, Any]] = {}
        self.refused: set[bytes] = set()
        self.up: dict[bytes, float] = {}  # since when, as told
        self.up_on: dict[bytes, set[int]] = {}  # by which links, as told
        self.heard_s: dict[bytes, float] = {}
        self.silences: dict[bytes, tuple[int, int, float]] = {}  # the socket and when, as told
        self.acked_s: dict[bytes, float] = {}
        self.waits_s: list[float] = []
        self.sent_s: deque[float] = deque()
        self.connects_s: deque[float] = deque()
        self.posts: dict[int, float] = {}  # in flight, and when they are lost at the latest
        self.resolved: set[int] = set()
        self.answered: set[int] = set()  # an answer was handed to the session
        # The venue's: of each coin the times of its trades, which of them by tid, and the trades as they are written.
        self.made: dict[str, list[int]] = {coin: [] for coin in ("A", "B", "C", "NOPE")}
        self.index: dict[str, dict[int, int]] = {coin: {} for coin in self.made}
        self.rows: dict[str, list[bytes]] = {coin: [] for coin in self.made}
        self.candles: dict[int, int] = {}  # of A, by opening: how many trades
        self.changed_ms: dict[int, int] = {}
        self.tick = 0
        self.quiet: dict[str, int] = {}  # until which tick a coin does not trade
        self.replayed = rng.choice([0, 1, 5, 30])  # trades after a subscribe
        self.recent = rng.choice([5, 30, 60])  # trades in an answer
        self.garbles = rng.random() < 0.5
        self.frozen_s = self._late_s = 0.0
        self._post_id = 0
        self._timer_s: float | None = None
        self._effects: deque[Effect] = deque()
        self._busy = self._is_news = False
        self.closed = False
        self.listeners = Listeners(self)
        self.pool = Pool(self.config, rng, self.listeners.feed.flow)

    # The clock.

    @property
    def now_ms(self) -> int:
        return T0_MS + int(self.now_s * 1000)

    def note(self, what: object) -> None:
        self.log.append((round(self.now_s, 3), what))

    def at(self, time_s: float, what: Callable[..., object], *args: object) -> None:
        self._number += 1
        heapq.heappush(self._events, (time_s, self._number, what, args))

    def step(self) -> None:
        time_s, _, what, args = heapq.heappop(self._events)
        self.now_s = max(self.now_s, time_s)
        what(*args)
        self.listeners.check()
        if self._is_news:
            self._is_news = False
            self.check()
        if self.now_s >= self._late_s and self.now_s > self.frozen_s:
            self._late_s = self.now_s + 0.2
            self.check_what_is_late()

    def run_to(self, time_s: float) -> None:
        while self._events and self._events[0][0] <= time_s:
            self.step()
        self.now_s = time_s

    def chance(self, p: float) -> bool:
        return self.troubled and self.rng.random() < p * self.trouble

    # Everything.

    def live(self) -> None:
        asyncio._set_running_loop(self.listeners.loop)
        try:
            self._live()
        finally:
            asyncio._set_running_loop(None)

    def _live(self) -> None:
        rng = self.rng
        for subscription in rng.sample(CATALOGUE, rng.randint(1, 8)):
            self.want(subscription)
        self.take(self.pool.start(self.now_s))
        self.at(BLOCK_S, self._block)
        self.at(rng.random(), self._act)
        self.run_to(rng.choice([30.0, 60.0, 90.0]))
        self.troubled = False
        self._heal()
        self.settle()
        for subscription in CATALOGUE:
            self.listeners.leave(subscription)
        end_s = self.now_s + 75.0  # a minute's messages may be used up
        while self.now_s < end_s and (len(self.pool.links) > 1 or self.still_on()):
            self.run_to(self.now_s + 5.0)
        self.check_nothing_is_left_of_what_is_not_wanted()
        if rng.random() < 0.5:
            for subscription in rng.sample(CATALOGUE, 3):
                self.want(subscription)
            self.post()
            self.run_to(self.now_s + 4 * rng.random())
            for subscription in rng.sample(list(self.wanted.values()), len(self.wanted) // 2):
                self.listeners.leave(subscription)
        self.close()

    def settle(self) -> None:
        """Faults are over: within a bounded time everything wanted is served."""
        for subscription in list(self.wanted.values()):
            if canonical(fold(subscription)) in self.refused and subscription.get("coin") != "NOPE":
                self.want(subscription)  # refused for a fault: asked for again
        end_s = self.now_s + BOUND_S
        while missing := self.missing():
            assert self.now_s < end_s, f"not served {BOUND_S:g} s after the last fault: {missing}"
            self.run_to(self.now_s + 1.0)
        if self.rng.random() < 0.5:  # nothing comes by itself that would show what was missed
            self.quiet = dict.fromkeys("ABC", self.tick + 1000)
        self._wait_until_told()
        self.quiet = dict.fromkeys("ABC", 0)
        self.run_to(self.now_s + 5.0)
        self._wait_until_told()  # a socket may only now turn out to be useless

    def _wait_until_told(self) -> None:
        end_s = self.now_s + BOUND_S
        while unfinished := self.listeners.unfinished(self.now_ms - 5000):
            assert self.now_s < end_s, f"not told of {BOUND_S:g} s after everything is served: {unfinished}"
            self.run_to(self.now_s + 1.0)

    def missing(self) -> list[Any]:
        """What is wanted and not both told to be served and truly served, on each of its links."""
        wrong: list[Any] = []
        copies: Counter[bytes] = Counter()
        for given, state, number in self.pool.subscriptions:
            key = canonical(fold(given))
            copies[key] += 1
            if key in self.refused:
                continue
            link = self.pool.links[number]
            connection = self.connections.get((number, link.generation))
            truly = connection is not None and connection.live and connection.theirs and not connection.deaf
            truly = truly and connection is not None and connection.streams.get(key) == "flows"
            if state is not SubState.LIVE or not truly or key not in self.up:
                wrong.append((given, state, number, truly, key in self.up))
        for key, given in self.wanted.items():
            user = "user" in given
            assert copies[key] == (1 if user else self.config.redundancy), f"{given} is on {copies[key]} links"
        assert len(copies) == len(self.wanted)
        return wrong

    def close(self) -> None:
        self.listeners.close()
        self.take(self.pool.close(self.now_s))
        self.closed = True
        assert self.pool.deadline is None, "a timer is left"
        assert self.pool.state is LinkState.CLOSED
        assert not self.posts, f"posts {sorted(self.posts)} were never resolved"
        assert not [c for c in self.connections.values() if c.ours], "a socket is left"
        assert not self.up, f"{list(self.up)} is still told to be served"
        self.run_to(self.now_s + 30.0)
        self.listeners.check_end()

    # What must hold after every step; of the session, after each that changed something about it.

    def check(self) -> None:
        config = self.config
        assert len(self.sent_s) <= config.messages_per_minute, "more messages than a minute allows"
        assert len(self.connects_s) <= config.sockets_per_minute, "more sockets than a minute allows"
        ours: dict[int, Connection] = {}
        held = 0
        for which, connection in list(self.connections.items()):
            if not connection.ours:
                if not connection.theirs:
                    del self.connections[which]
                continue
            assert connection.link not in ours, f"link {connection.link} has two sockets"
            ours[connection.link] = connection
            if connection.live:
                held += len(connection.streams)
        assert len(ours) <= config.max_links
        assert held <= config.max_subscriptions, f"the venue has {held} subscriptions"
        for number, link in self.pool.links.items():
            assert self.told.get(number, LinkState.IDLE) is link.state, f"link {number} told otherwise"
        if self.up and self.now_s > self.frozen_s:
            served = set().union(*(c.proven for c in ours.values() if c.live))
            assert self.up.keys() <= served, f"up on no link: {self.up.keys() - served}"

    def check_what_is_late(self) -> None:
        """Five times a second is often enough."""
        now_s, config = self.now_s, self.config
        for connection in self.connections.values():
            late_s = now_s - connection.pinged_s - config.ping_interval_s
            assert not (connection.ours and connection.live) or late_s < 0.6 or now_s <= self.frozen_s + 0.6, (
                f"no ping on {connection.link}"
            )
        for key, since_s in self.up.items():
            if period_s := self.periods_s[key]:
                heard_s = max(self.heard_s.get(key, 0.0), self.acked_s.get(key, 0.0))
                silent_s = now_s - max(since_s, heard_s, self.frozen_s)
                most_s = max(3 * period_s, config.silence_min_s) + period_s + 1.0
                assert silent_s < most_s, f"{key.decode()} is told to be served and silent for {silent_s:.1f} s"
        for post_id, due_s in self.posts.items():
            assert now_s < due_s + 1.0 or due_s < self.frozen_s + 1.0, f"post {post_id} is overdue"

    def check_nothing_is_left_of_what_is_not_wanted(self) -> None:
        assert list(self.pool.links) == [0], "a link without work is kept"
        assert not self.still_on(), "the venue still has what is not wanted"
        delays = [delay_s for delay_s in self.waits_s if delay_s > 0.0]
        assert len(set(delays)) == len(delays), f"no jitter in {delays}"

    def still_on(self) -> list[bytes]:
        return [key for c in self.connections.values() if c.ours for key in c.streams]

    # The owner.

    def want(self, subscription: Mapping[str, Any]) -> None:
        with suppress(ConfigError):
            self.listeners.want(subscription)

    def subscribe(self, subscription: Mapping[str, Any]) -> None:
        key = canonical(fold(subscription))
        self.log.append((self.now_s, "subscribe", subscription))
        try:
            effects = self.pool.subscribe(self.now_s, subscription)
        except ConfigError as exc:
            self.log.append((self.now_s, "no room", exc))
            assert key not in self.wanted
            room = len(self.wanted) * self.config.redundancy + self.config.redundancy <= self.config.max_subscriptions
            assert not room or "user" in subscription or "nSigFigs" in subscription or subscription["type"] == "l2Book"
            raise
        self.wanted.setdefault(key, dict(subscription))
        self.refused.discard(key)
        self.take(effects)

    def unsubscribe(self, subscription: Mapping[str, Any]) -> None:
        key = canonical(fold(subscription))
        self.log.append((self.now_s, "unsubscribe", subscription))
        effects = self.pool.unsubscribe(self.now_s, subscription)
        self.wanted.pop(key, None)
        self.up.pop(key, None)
        self.up_on.pop(key, None)
        self.silences.pop(key, None)
        self.refused.discard(key)
        self.listeners.unwanted(key)
        self.take(effects)

    def post(self) -> None:
        self._post_id += 1
        post_id = self._post_id
        timeout_s = self.rng.choice([1.0, 3.0])
        message = orjson.dumps({"method": "post", "id": post_id})
        try:
            effects = self.pool.post(self.now_s, post_id, message, timeout_s, urgent=self.rng.random() < 0.5)
        except (LinkDown, Throttled):
            return
        self.posts[post_id] = self.now_s + timeout_s
        self.take(effects)

    def _act(self) -> None:
        """Something happens for no reason: the owner wants something, or the world breaks something."""
        rng = self.rng
        if not self.troubled:
            return
        self.at(self.now_s + rng.expovariate(0.7), self._act)
        what = rng.random()
        if what < 0.25:
            self.want(rng.choice(CATALOGUE))
        elif what < 0.4 and self.wanted:
            self.listeners.leave(rng.choice(list(self.wanted.values())))
            if rng.random() < 0.3:
                self.want(rng.choice(CATALOGUE))
        elif what < 0.6:
            for _ in range(rng.choice([1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 120])):
                self.post()
        elif what < 0.65 and self.now_s >= self.frozen_s:
            self.frozen_s = self.now_s + rng.choice([0.3, 1.0, 3.0])
        elif open_ones := [c for c in self.connections.values() if c.ours and c.theirs and c.live]:
            struck = open_ones if rng.random() < 0.2 else [rng.choice(open_ones)]
            for connection in struck:
                self._strike(connection)

    def _strike(self, connection: Connection) -> None:
        rng = self.rng
        kind = rng.random()
        if kind < 0.3:
            self._cut(connection, "closed by the venue: 1000 Expired")
        elif kind < 0.5:
            self._cut(connection, "connection lost without a close frame")
        elif kind < 0.7:
            self.log.append((self.now_s, "half-open", connection.link, connection.generation))
            connection.deaf = True
        else:
            for key in connection.streams:
                if _is_book(key) and rng.random() < 0.7:
                    self.log.append((self.now_s, "falls silent", connection.link, key))
                    connection.streams[key] = rng.choice(["silent", "silent", "silent socket"])

    def _heal(self) -> None:
        """What is broken for good stays broken: half-open sockets, and streams until they are subscribed to again."""
        self.log.append((self.now_s, "faults are over"))

    # The network.

    def _cut(self, connection: Connection, reason: str) -> None:
        self.log.append((self.now_s, "cut", connection.link, connection.generation, reason))
        connection.theirs = False
        self.carry(connection, 1, self._gone, connection, reason)

    def carry(self, connection: Connection, way: int, what: Callable[..., object], *args: object) -> None:
        """way: 0 to the venue, 1 to us."""
        delay_s = connection.delay_s * (1 + self.rng.random())
        if self.chance(0.02):
            delay_s += self.rng.choice([0.5, 2.0])
        arrival_s = max(self.now_s + delay_s, connection.arrival_s[way])
        connection.arrival_s[way] = arrival_s
        self.at(arrival_s, what, *args)

    def thawed(self, what: Callable[..., object], *args: object) -> bool:
        """Our own loop stands still now and then: what arrives is read later, after the timers."""
        if self.now_s >= self.frozen_s:
            return True
        self.at(self.frozen_s, what, *args)
        return False

    def _opened(self, connection: Connection, how: float) -> None:
        key = connection.link, connection.generation
        if not connection.ours:
            if self.rng.random() < 0.5:  # the news was on its way when we gave it up
                self.take(self.pool.on_connected(self.now_s, *key))
            return
        if not self.thawed(self._opened, connection, how):
            return
        if how < 0.15:
            connection.ours = False
            self.take(self.pool.on_connect_failed(self.now_s, *key, "ConnectionRefusedError"))
            return
        connection.theirs = connection.live = True
        connection.pinged_s = self.now_s
        self.take(self.pool.on_connected(self.now_s, *key))

    def _gone(self, connection: Connection, reason: str) -> None:
        if not connection.ours:
            return
        if not self.thawed(self._gone, connection, reason):
            return
        connection.ours = connection.live = False
        self.take(self.pool.on_disconnected(self.now_s, connection.link, connection.generation, reason))
        if self.troubled and self.rng.random() < 0.2:
            self.at(self.now_s + self.rng.random(), self._old_news, connection, b'{"channel":"pong"}')

    def _old_news(self, connection: Connection, message: bytes) -> None:
        number, generation = connection.link, connection.generation
        link = self.pool.links.get(number)
        before = None if link is None else (link.state, link.subscriptions)
        effects = self.pool.on_control(self.now_s, number, generation, message)
        effects += self.pool.on_disconnected(self.now_s, number, generation, "old news")
        assert effects == [] or self.closed, effects
        assert before is None or link is None or before == (link.state, link.subscriptions)

    # Our side.

    def take(self, effects: list[Effect]) -> None:
        self._is_news = True
        self._effects.extend(effects)
        if self._busy:
            return
        self._busy = True
        while self._effects:
            self._perform(self._effects.popleft())
        self._busy = False
        due_s = self.pool.deadline
        if due_s != self._timer_s:
            self._timer_s = due_s
            if due_s is not None:
                self.at(max(due_s, self.now_s), self._timer, due_s)

    def _timer(self, due_s: float) -> None:
        if due_s != self._timer_s:
            return
        if self.now_s < self.frozen_s:
            self.at(self.frozen_s, self._timer, due_s)
            return
        self._timer_s = None
        self.take(self.pool.on_timer(self.now_s))

    def _perform(self, effect: Effect) -> None:
        self.log.append((self.now_s, effect))
        match effect:
            case Connect(generation, _, number):
                assert not self.closed
                count(self.connects_s, self.now_s)
                connection = Connection(number, generation, self.rng.choice([0.01, 0.05, 0.2]))
                assert generation > self.generations[number], "a generation that was there before"
                self.generations[number] = generation
                self.connections[number, generation] = connection
                how = self.rng.random() if self.chance(0.7) else 1.0
                if how < 0.3 or not self.chance(0.1):  # else it never comes about
                    self.at(self.now_s + 3 * connection.delay_s, self._opened, connection, how)
            case Disconnect(generation, _, _, number):
                ended = self.connections.get((number, generation))
                if ended is not None:
                    ended.ours = ended.live = False
                    self.at(self.now_s + 0.3, setattr, ended, "theirs", False)
            case Send(data, number):
                self._send(number, data)
            case StateChanged(state, _, number):
                assert self.told.get(number) is not state, f"link {number} told {state} twice"
                self.told[number] = state
                due_s = self.pool.links[number].deadline if number in self.pool.links else None
                if state is LinkState.WAITING and due_s is not None and not self._waits_for_its_turn(due_s):
                    self.waits_s.append(due_s - self.now_s)
            case Up(subscription, _, key):
                self.listeners.up(subscription, key, effect.link)
                if key not in self.wanted:
                    return
                up_on = self.up_on.setdefault(key, set())
                assert effect.link not in up_on, f"{subscription} is up twice on link {effect.link}"
                up_on.add(effect.link)
                silence = self.silences.get(key)
                asked_often = (
                    b'"bbo"' in key
                )  # for its first message, which may be unreadable each time: then its word does
                if (
                    silence is not None
                    and silence[:2] == (effect.link, self.generations[effect.link])
                    and not asked_often
                ):
                    assert self.heard_s[key] > silence[2], f"{subscription} was silent, and is up without data"
                if len(up_on) == 1:
                    self.up[key] = self.now_s
            case Down(subscription, reason, _, key):
                up_on = self.up_on.get(key, set())
                up_on.discard(effect.link)
                if reason.startswith("silent"):
                    self.silences[key] = effect.link, self.generations[effect.link], self.now_s
                if not up_on:
                    self.up.pop(key, None)
                self.listeners.down(subscription, key, effect.link, reason)
            case Subscribed(subscription):
                if self.config.redundancy > 1:  # one link may take over on its word, while another is silent
                    self.acked_s[canonical(fold(subscription))] = self.now_s
            case Refused(subscription, message, _, key):
                if key not in self.wanted:
                    return
                assert key not in self.refused
                self.refused.add(key)
                assert not self.up_on.get(key), f"{key.decode()} is refused and up on {self.up_on[key]}"
                self.listeners.refused(subscription, key, message)
            case PostAnswered(post_id) | PostLost(post_id):
                assert post_id in self.posts, f"post {post_id} was resolved twice"
                assert isinstance(effect, PostLost) or post_id in self.answered
                del self.posts[post_id]
                self.resolved.add(post_id)
            case Forward(channel, message):
                value = orjson.loads(message)
                assert channel == value["channel"] == "error" or value["data"]["id"] in self.resolved

    def _waits_for_its_turn(self, due_s: float) -> bool:
        """For the budget of sockets, so not by its own dice."""
        return any(abs(due_s - 60.0 - time_s) < _EPS for time_s in self.connects_s)

    def _send(self, number: int, data: bytes) -> None:
        count(self.sent_s, self.now_s)
        link = self.pool.links.get(number)
        connection = None if link is None else self.connections.get((number, link.generation))
        if connection is None or not (connection.ours and connection.live):
            return  # it ended a moment ago
        value = orjson.loads(data)
        if value["method"] == "ping":
            connection.pinged_s = self.now_s
        elif value["method"] == "unsubscribe":
            connection.proven.discard(canonical(fold(value["subscription"])))
        self.carry(connection, 0, self._received, connection, value)

    def _arrived_data(
        self, connection: Connection, message: bytes, key: bytes, px: float, time_ms: int, is_whole: bool
    ) -> None:
        if not connection.ours or not self.thawed(self._arrived_data, connection, message, key, px, time_ms, is_whole):
            return
        if is_whole:
            connection.proven.add(key)
            self.heard_s[key] = self.now_s
        self.note((connection.link, message))
        self.listeners.data(connection.link, message, key, px, time_ms, is_whole=is_whole)

    def _arrived(self, connection: Connection, message: bytes) -> None:
        if not connection.ours:
            if self.rng.random() < 0.3 and self.troubled:
                self._old_news(connection, message)
            return
        if not self.thawed(self._arrived, connection, message):
            return
        value = orjson.loads(message)
        data = value.get("data")
        if value["channel"] == "subscriptionResponse" and data["method"] == "subscribe":
            connection.proven.add(canonical(fold(data["subscription"])))
        elif value["channel"] == "error" and data.startswith("Already subscribed"):
            connection.proven.add(canonical(fold(orjson.loads(data[data.index("{") :]))))
        elif value["channel"] == "post":
            self.answered.add(data["id"])
        elif value["channel"] == "error" and "id=" in data:
            self.answered.add(int(data.rpartition("=")[2]))
        self.take(self.pool.on_control(self.now_s, connection.link, connection.generation, message))

    # The venue.

    def say(self, connection: Connection, channel: str, data: Any = None) -> None:
        message = orjson.dumps({"channel": channel} if data is None else {"channel": channel, "data": data})
        self.carry(connection, 1, self._arrived, connection, message)

    def _received(self, connection: Connection, value: dict[str, Any]) -> None:
        if not connection.theirs or connection.deaf:
            return
        method = value["method"]
        if method == "ping":
            if not self.chance(0.05):
                self.say(connection, "pong")
            return
        if method == "post":
            self._take_post(connection, value["id"])
            return
        self._is_news = True
        given = fold(value["subscription"])
        key = canonical(given)
        text = orjson.dumps(given).decode()
        if given.get("coin") == "NOPE":
            self.say(connection, "error", f"Invalid subscription {text}")
        elif method == "subscribe" and self.chance(0.03):
            self.say(connection, "error", "Cannot track more than 15 total users.")
        elif (method == "subscribe") == (key in connection.streams):
            if not self.chance(0.1):
                self.say(connection, "error", f"Already {method}d: {text}")
        else:
            if method == "subscribe":
                self._begin(connection, given, key)
            else:
                del connection.streams[key]
            if not self.chance(0.15):
                echo = {**given, "mantissa": None}
                for _ in range(2 if self.chance(0.1) else 1):
                    self.say(connection, "subscriptionResponse", {"method": method, "subscription": echo})
            flows = method == "subscribe" and connection.streams[key] == "flows"
            if flows and (message := self._present(given)):
                self._publish(connection, key, message)

    def _begin(self, connection: Connection, given: dict[str, Any], key: bytes) -> None:
        users = {user for k in connection.streams if (user := orjson.loads(k).get("user"))}
        assert not users or given.get("user") in (None, *users), f"two users on link {connection.link}"
        for other in map(orjson.loads, connection.streams):
            if given["type"] == other["type"] == "l2Book" and given["coin"] == other["coin"]:
                assert given.get("nSigFigs") == other.get("nSigFigs"), f"two aggregations on link {connection.link}"
        mute = "silent socket" in connection.streams.values() or self.chance(0.1)
        connection.streams[key] = self.rng.choice(["silent", "flows"]) if mute and _begins(key) else "flows"

    def _take_post(self, connection: Connection, post_id: int) -> None:
        if self.chance(0.1):
            return
        if self.chance(0.1):
            self.say(connection, "error", f"too many pending post requests id={post_id}")
            return
        answer = {"id": post_id, "response": {"type": "action", "payload": {"status": "ok"}}}
        for _ in range(2 if self.chance(0.1) else 1):
            delay_s = self.rng.uniform(0.0, 5.0) if self.chance(0.2) else 0.0
            self.at(self.now_s + delay_s, self._answer_post, connection, answer)

    def _answer_post(self, connection: Connection, answer: dict[str, Any]) -> None:
        if connection.theirs and not connection.deaf:
            self.say(connection, "post", answer)

    def ask_info(self, body: dict[str, Any], answered: Callable[[Any], object]) -> None:
        """A question to the venue's info, over a way of its own."""
        delays_s = [self.rng.uniform(0.02, 3.0 if self.chance(0.2) else 0.4) for _ in range(2)]
        self.at(self.now_s + delays_s[0], self._answer_info, body, delays_s[1], answered)

    def _answer_info(self, body: dict[str, Any], delay_s: float, answered: Callable[[Any], object]) -> None:
        answer: Any
        if self.chance(0.3):
            answer = QueryFailed(503, ErrorCode.UNAVAILABLE, "no answer")
        elif self.chance(0.1):
            answer = self.rng.choice([None, [{}], {"error": "x"}])
        elif body["type"] == "recentTrades":
            answer = [orjson.loads(row) for row in reversed(self.rows[body["coin"]][-self.recent :])]
        else:
            since_ms = body["req"]["startTime"]
            answer = [_candle(open_ms, n) for open_ms, n in self.candles.items() if open_ms + CANDLE_MS > since_ms]
        self.note((body["type"], "answered in", delay_s))
        self.at(self.now_s + delay_s, answered, answer)

    def _block(self) -> None:
        """The venue moves on by one block, and says what is new to whoever has it by now."""
        if self.closed:
            return
        self.at(self.now_s + BLOCK_S, self._block)
        self.tick = tick = self.tick + 1
        messages: dict[bytes, bytes] = {}
        for coin in "ABC":
            if rows := self._trade(coin):
                messages[_TRADES[coin]] = _of_trades(rows)
                if coin == "A":
                    messages[_CANDLE] = self._present(_PARSED[_CANDLE])
        due = {*_BBOS, *(key for key in _BOOKS if tick % (2 if b"fast" in key else 5) == 0)}
        for connection in self.connections.values():
            if connection.theirs and not connection.deaf:
                for key, how in connection.streams.items():
                    if how != "flows":
                        continue
                    if key in due and key not in messages:
                        messages[key] = self._present(_PARSED[key])
                    if message := messages.get(key):
                        self._publish(connection, key, message)

    def _trade(self, coin: str) -> list[bytes]:
        """The trades of one block: often none for a while, sometimes more than anybody is told of again."""
        rng = self.rng
        if self.tick < self.quiet.get(coin, 0):
            return []
        dice = rng.random()
        if dice < 0.07:
            self.quiet[coin] = self.tick + rng.choice([5, 10, 25])
        elif dice < 0.3:
            return []
        made, index, rows = self.made[coin], self.index[coin], self.rows[coin]
        first, time_ms = len(made), self.now_ms
        for at in range(first, first + (70 if dice > 0.985 else rng.choice([1, 1, 1, 2, 5, 12]))):
            tid = (at + 1) * 0x9E3779B97F4A7 % (1 << 50)  # in no order, as the venue's
            index[tid] = at
            made.append(time_ms)
            rows.append(_TRADE % (coin.encode(), time_ms, tid))
        if coin == "A" and len(made) > first:
            open_ms = time_ms - time_ms % CANDLE_MS
            self.candles[open_ms] = self.candles.get(open_ms, 0) + len(made) - first
            self.changed_ms[open_ms] = time_ms
        return rows[first:]

    def _present(self, given: Mapping[str, Any]) -> bytes:
        """What a subscription begins with: the present state, of trades the last ones. Empty when there is none."""
        kind, coin = given["type"], given.get("coin", "").encode()
        level = b'{"px":"%d.0","sz":"1.0","n":1}' % (self.tick + 1)
        if kind == "trades":
            rows = self.rows[coin.decode()][-self.replayed :] if self.replayed else []
            return _of_trades(rows) if rows else b""
        if kind == "bbo":
            form = b'{"channel":"bbo","data":{"coin":"%b","time":%d,"bbo":[%b,null]}}'
            return form % (coin, self.now_ms, level)
        if kind == "l2Book":
            form = b'{"channel":"l2Book","data":{"coin":"%b","time":%d,"levels":[[%b],[]]%b}}'
            return form % (coin, self.now_ms, level, b',"fast":true' if given.get("fast") else b"")
        if kind == "candle" and self.candles:
            return orjson.dumps({"channel": "candle", "data": _candle(*list(self.candles.items())[-1])})
        return b""

    def _publish(self, connection: Connection, key: bytes, message: bytes) -> None:
        is_whole = not (self.garbles and self.chance(0.03))
        if not is_whole:
            message = message[: self.rng.randrange(len(message))]
        more = key, self.tick + 1.0, self.now_ms, is_whole
        self.carry(connection, 1, self._arrived_data, connection, message, *more)


_PARSED = {canonical(fold(subscription)): fold(subscription) for subscription in CATALOGUE}
_CANDLE = next(key for key in _PARSED if b'"candle"' in key)
_BBOS = [key for key in _PARSED if b'"bbo"' in key]
_BOOKS = [key for key in _PARSED if b'"l2Book"' in key]
_TRADES = {given["coin"]: key for key, given in _PARSED.items() if given["type"] == "trades"}


def _of_trades(rows: list[bytes]) -> bytes:
    return b'{"channel":"trades","data":[' + b",".join(rows) + b"]}"


def _candle(open_ms: int, n: int) -> dict[str, Any]:
    times = {"t": open_ms, "T": open_ms + CANDLE_MS - 1, "s": "A", "i": "1m"}
    return {**times, "o": "1.0", "c": "1.0", "h": "1.0", "l": "1.0", "v": f"{n}.0", "n": n}


def count(times_s: deque[float], now_s: float) -> None:
    times_s.append(now_s)
    while times_s[0] <= now_s - 60.0 + _EPS:
        times_s.popleft()


def _is_book(key: bytes) -> bool:
    return b'"l2Book"' in key and b"nSigFigs" not in key


def _begins(key: bytes) -> bool:
    """With the present state, at once: what should bring data can be silent from the start."""
    return _is_book(key) or b'"bbo"' in key


def _period_s(given: Mapping[str, Any], config: SessionConfig) -> float:
    if given["type"] != "l2Book" or "nSigFigs" in given:
        return 0.0
    return config.fast_period_s if given.get("fast") else config.slow_period_s
