"""A wire without sockets and a clock that stands still until it is told to go on, for tests of the trader."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson
from order_news import USER

import hlconn
from hlconn import Instrument, Instruments, LinkDown, MarketKind, Nonces, Signer
from hlconn.config import TradingConfig
from hlconn.trading.trader import Ticket, Trader

KEY = "0123456789" * 6 + "0123"
#: What may use what is kept for cancels, of the venue's budget of messages.
URGENT = ("cancel", "cancelByCloid", "scheduleCancel", "noop")
START_MS = 1_700_000_000_000
INSTRUMENTS = Instruments(
    [
        Instrument("BTC", 0, MarketKind.PERP, 5),
        Instrument("ETH", 1, MarketKind.PERP, 4),
        Instrument("xyz:TSLA", 110_000, MarketKind.BUILDER_PERP, 2, dex="xyz"),
        Instrument("@107", 10_107, MarketKind.SPOT, 2, base="HYPE", quote="USDC", aliases=("HYPE/USDC",)),
        Instrument("OLD", 7, MarketKind.PERP, 2, delisted=True),
    ]
)

Reply = Callable[[dict[str, Any]], Any]


class FakeTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeWire:
    """live: whether `write` writes. written: the messages. http: what `POST /exchange` does, per call.

    info: replies to queries by type, each a function of the request; they can be replaced. asked: the queries made.
    in_flight: when each post that was written is given up, which `on_post_lost` is told of, as the session's link does.
    """

    def __init__(self, answer_timeout_s: float) -> None:
        self.answer_timeout_s = answer_timeout_s
        self.in_flight: dict[int, FakeTimer] = {}
        self.on_post_lost: Callable[[int, str], object] = lambda post_id, reason: None
        self.live = True
        self.ns = 0
        self.venue_ms = START_MS
        self.written: list[dict[str, Any]] = []
        self.posted: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.http: Callable[[dict[str, Any]], tuple[int, Any] | Exception] = lambda _: LinkDown("no route")
        self.on_write: Callable[[dict[str, Any]], object] = lambda _: None
        self.info: dict[str, Reply] = {
            "frontendOpenOrders": lambda _: [],
            "clearinghouseState": lambda _: {"assetPositions": [], "time": self.venue_ms},
            "spotClearinghouseState": lambda _: {"balances": []},
            "userFillsByTime": lambda _: [],
            "orderStatus": lambda _: {"status": "unknownOid"},
            "historicalOrders": lambda _: [],
            "exchangeStatus": lambda _: {"time": self.venue_ms, "specialStatuses": None},
        }
        self.info_up = True
        self._timers: list[tuple[int, int, FakeTimer]] = []
        self._numbers = itertools.count()

    def write(self, message: bytes, post_id: int, *, urgent: bool) -> bool:
        if not self.live:
            return False
        value = orjson.loads(message)
        assert value["id"] == post_id
        assert urgent == (value["request"]["payload"]["action"]["type"] in URGENT)
        self.written.append(value)
        self.in_flight[post_id] = self.call_later(
            self.answer_timeout_s, lambda: self.lose(post_id, "no answer in time")
        )
        self.on_write(value)
        return True

    def answered(self, post_id: int) -> None:
        if (timer := self.in_flight.pop(post_id, None)) is not None:
            timer.cancel()

    def lose(self, post_id: int, reason: str) -> None:
        self.answered(post_id)
        self.on_post_lost(post_id, reason)

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        request = orjson.loads(body)
        if path == "/exchange":
            self.posted.append(request)
            reply = self.http(request)
            if isinstance(reply, Exception):
                raise reply
            return reply[0], reply[1] if isinstance(reply[1], bytes) else orjson.dumps(reply[1])
        self.asked.append(request)
        if not self.info_up:
            raise LinkDown("no route")
        await asyncio.sleep(0)  # an answer never comes in the same turn of the loop
        value = self.info[request["type"]](request)
        return value if isinstance(value, tuple) else (200, orjson.dumps(value))

    def time_ms(self) -> int:
        return START_MS + self.ns // 1_000_000

    def now_ns(self) -> int:
        return self.ns

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self.ns + int(delay_s * 1e9), next(self._numbers), timer))
        return timer

    async def step(self, seconds: float = 0.0) -> None:
        """Let the time pass, timer by timer, and after each let everything happen that follows from it."""
        await settle()
        end_ns = self.ns + int(seconds * 1e9)
        while self._timers and self._timers[0][0] <= end_ns:
            due_ns, _, timer = heapq.heappop(self._timers)
            if timer.callback is None:
                continue
            self._go_to(due_ns)
            timer.callback()
            await settle()
        self._go_to(end_ns)
        await settle()

    def _go_to(self, ns: int) -> None:
        ns = max(ns, self.ns)
        self.venue_ms += ns // 1_000_000 - self.ns // 1_000_000
        self.ns = ns

    @property
    def last(self) -> dict[str, Any]:
        """The payload of the message written last."""
        payload: dict[str, Any] = self.written[-1]["request"]["payload"]
        return payload


async def settle() -> None:
    for _ in range(60):  # a query takes a few turns of the loop, a reconciliation some dozens
        await asyncio.sleep(0)


class Desk:
    """A trader on a fake wire."""

    def __init__(self, folder: Path, config: TradingConfig | None = None, **more: Any) -> None:
        self.wire = FakeWire((config or TradingConfig()).answer_timeout_s)
        self.signer = Signer(KEY, "testnet", more.pop("vault", None))
        self.nonces = Nonces(self.signer.address, folder, clock=self.wire.time_ms)
        self.failures: list[BaseException] = []
        self.trader = Trader(
            self.wire,
            self.signer,
            self.nonces,
            INSTRUMENTS,
            account=USER,
            config=config,
            on_callback_error=self.failures.append,
            **more,
        )
        self.wire.on_post_lost = self.trader.on_post_lost

    async def __aenter__(self) -> Desk:
        self.trader.start()
        self.connect()
        await self.wire.step()
        await self.trader.ready(5.0)
        self.wire.asked.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.trader.end()
        self.nonces.close()
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("hlconn")] == []

    def connect(self) -> None:
        self.wire.live = True
        for subscription in self.trader.subscriptions:
            self.trader.on_subscribed(subscription)

    def cut(self, reason: str = "connection lost") -> None:
        self.wire.live = False
        for post_id in list(self.wire.in_flight):
            self.wire.lose(post_id, f"the link went down: {reason}")
        self.trader.on_down()

    def answer(self, response: Any, at: int = -1) -> None:
        """The venue's answer to a written post, the last one by default."""
        self.tell("post", {"id": self.wire.written[at]["id"], "response": response})

    def tell(self, channel: str, data: Any) -> None:
        if channel == "post":
            self.wire.answered(data.get("id", 0))
        self.trader.on_message(channel, orjson.dumps({"channel": channel, "data": data}))

    async def expire(self, ticket: Ticket) -> None:
        """Let the action's expiry pass, on our clock and the venue's."""
        assert ticket.expires_after is not None
        await self.wire.step((ticket.expires_after - self.wire.time_ms()) / 1000 + 10)


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(bounded())


def fast_config(**more: Any) -> hlconn.config.TradingConfig:
    return TradingConfig(**{"reconcile_every_s": 1e6, **more})
