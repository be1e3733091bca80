"""A whole session without sockets on a stepped venue's clock: the real link and feed, pipes, HTTP, and no waiting."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

import orjson

from hlconn import DecodeError, Feed, LinkDown, NotSent, SessionConfig
from hlconn.session.link import (
    Connect,
    Disconnect,
    Down,
    Effect,
    Forward,
    Link,
    LinkState,
    PostAnswered,
    PostLost,
    Send,
    StateChanged,
    Subscribed,
    Up,
)
from hlconn.sim import Pipe, Venue
from hlconn.trading.trader import Trader

_LONGEST_S = 7200.0  # of the venue's time; what takes longer waits for something that never happens
_CONTROL = ("pong", "subscriptionResponse", "error", "post")


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is the venue's: once nothing is left to do, the venue goes on to what comes next."""

    def __init__(self, venue: Venue) -> None:
        self._venue, self._start_ms = venue, venue.now_ms()
        super().__init__(_GoesOn(self))

    def time(self) -> float:
        return (self._venue.now_ms() - self._start_ms) / 1000

    def go_on(self, most_s: float) -> None:
        if self.time() > _LONGEST_S:
            raise RuntimeError("the test waits for something that never happens")
        venue = self._venue
        # at least a microsecond: milliseconds since 1970 are no finer
        venue.advance(min(max(most_s * 1000, 0.001), max(0.0, venue._due[0][0] - venue.now_ms())))


class _GoesOn(selectors.SelectSelector):
    def __init__(self, loop: SteppedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            self._loop.go_on(_LONGEST_S if timeout is None else timeout)
        return super().select(0)


def run_stepped(venue: Venue, work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=lambda: SteppedLoop(venue)) as runner:
        runner.run(work)


class PipeWire:
    """`hlconn.trading.trader.Wire` and the part of `Driver` and `Client` around it, on pipes.

    troubled: connecting fails and takes time, over HTTP too, by the dice of rng. sent: the payloads that left.
    """

    def __init__(
        self, venue: Venue, rng: Random, config: SessionConfig, answer_timeout_s: float, skew_ms: int = 0
    ) -> None:
        self._venue, self._rng, self._skew_ms = venue, rng, skew_ms
        self._answer_timeout_s = answer_timeout_s
        self._loop = asyncio.get_running_loop()
        self.link = Link(config, rng)
        self.feed = Feed()
        self.trader: Trader | None = None
        self.troubled = False
        self.sent: list[dict[str, Any]] = []
        self._pipe: Pipe | None = None
        self._effects: list[Effect] = []
        self._performing = False
        self._timer: asyncio.TimerHandle | None = None

    # what a trader needs

    def write(self, message: bytes, post_id: int, *, urgent: bool) -> bool:
        if self._pipe is None or not self._pipe.is_open:
            return False
        try:
            effects = self.link.post(self._loop.time(), post_id, message, self._answer_timeout_s, urgent=urgent)
        except NotSent:
            return False
        self.sent.append(orjson.loads(message)["request"]["payload"])
        self._pipe.send(message)
        assert effects == [Send(message)]
        self._arm()
        return True

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        payload = orjson.loads(body)
        if self.troubled and self._rng.random() < 0.1:
            raise LinkDown("no route")
        if path == "/exchange":
            self.sent.append(payload)
        answer: asyncio.Future[Any] = self._loop.create_future()
        async with asyncio.timeout(2.0):
            await self._lag()
            self._venue.request(path, payload, lambda told: None if answer.done() else answer.set_result(told))
            told = await answer
            await self._lag()
        if told is None:
            raise ConnectionResetError("reset")
        status, value = told
        if isinstance(value, bytes):
            return status, value
        return status, orjson.dumps(value) if status == 200 or value is None else value.encode()

    async def _lag(self) -> None:
        if self.troubled:
            await asyncio.sleep(self._rng.expovariate(10))  # of the venue's time

    def time_ms(self) -> int:
        return int(self._venue.now_ms()) + self._skew_ms

    def now_ns(self) -> int:
        return int(self._loop.time() * 1e9)

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return self._loop.call_later(delay_s, callback)

    # the link

    def start(self, trader: Trader) -> None:
        self.trader = trader
        for subscription in trader.subscriptions:
            self.link.subscribe(self._loop.time(), subscription)
        self._perform(self.link.start(self._loop.time()))

    def close(self) -> None:
        self._perform(self.link.close(self._loop.time()))

    def _perform(self, effects: list[Effect]) -> None:
        self._effects += effects
        if self._performing:
            return
        self._performing = True
        while self._effects:
            self._perform_one(self._effects.pop(0))
        self._performing = False
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.link.deadline is not None:
            self._timer = self._loop.call_at(self.link.deadline, self._on_timer)

    def _perform_one(self, effect: Effect) -> None:
        assert self.trader is not None
        match effect:
            case Connect(generation):
                self._loop.call_later(self._rng.uniform(0, 0.3), self._open, generation)
            case Send(data):
                if self._pipe is not None and self._pipe.is_open:
                    self._pipe.send(data)
            case Disconnect():
                if self._pipe is not None:
                    self._pipe.close()
            case StateChanged(state):
                if state is not LinkState.LIVE:
                    self.trader.on_down()
            case Subscribed(subscription):
                self.trader.on_subscribed(subscription)
            case PostAnswered(_, message):
                self.trader.on_message("error" if message.startswith(b'{"channel":"error"') else "post", message)
            case PostLost(post_id, reason):
                self.trader.on_post_lost(post_id, reason)
            case Forward(channel, message):
                self.trader.on_message(channel, message)
            case Up() | Down():
                pass
            case _:
                raise AssertionError(effect)

    def _on_timer(self) -> None:
        self._perform(self.link.on_timer(self._loop.time()))

    def _open(self, generation: int) -> None:
        now_s = self._loop.time()
        if self.troubled and self._rng.random() < 0.2:
            self._perform(self.link.on_connect_failed(now_s, generation, "refused"))
            return
        if self.link.state is not LinkState.CONNECTING or generation != self.link.generation:
            return
        pipe = self._pipe = self._venue.pipe(latency_ms=self._rng.choice([0, 5, 50, 300]))
        pipe.on_message = lambda message: self._on_message(generation, message)
        pipe.on_close = lambda code: self._perform(
            self.link.on_disconnected(self._loop.time(), generation, f"closed with {code}")
        )
        self._perform(self.link.on_connected(now_s, generation))

    def _on_message(self, generation: int, message: bytes) -> None:
        def on_raw(channel: str, raw: bytes) -> None:
            assert self.trader is not None
            if channel in _CONTROL:
                self._perform(self.link.on_control(self._loop.time(), generation, raw))
            else:
                self.trader.on_message(channel, raw)

        self.feed.on_raw(on_raw)
        with suppress(DecodeError):  # the session logs it, and the link goes on
            self.feed.on_message(memoryview(message), self.now_ns())
