"""What the venue in a box can take, alone on one core: signed actions in, books out. The client has the other core."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from pytest_benchmark.fixture import BenchmarkFixture
from venue_server import BOOK_COINS

from hlconn import Cloid, Instruments, Order, Side, Signer, Tif, action

ACTIONS = 3_000
#: The first nonce: the venue takes what is near its own time.
NONCE = time.time_ns() // 1_000_000
MESSAGES = 10_000
TIMEOUT_S = 60


@pytest.fixture
def venue(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    script = str(Path(__file__).with_name("venue_server.py"))
    server = subprocess.Popen([sys.executable, script, request.param], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    if len(cores) > 1:
        os.sched_setaffinity(0, cores - {min(cores)})
    try:
        yield {**json.loads(server.stdout.readline()), "pid": server.pid}
    finally:
        if len(cores) > 1:
            os.sched_setaffinity(0, cores)
        server.kill()
        server.wait()
        server.stdout.close()


def cpu_s(pid: int) -> float:
    """Processor time of another process: what it costs whatever else the machine does."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Client(WSListener):
    """Counts messages of one channel, and keeps the first and the last."""

    def __init__(self, channel: bytes) -> None:
        self.prefix = b'{"channel":"' + channel + b'"'
        self.first = self.last = b""
        self.samples: list[bytes] = []  # one in a thousand
        self.bad: list[bytes] = []
        self.seen = 0
        self.wanted: tuple[int, asyncio.Future[None]] | None = None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        message = frame.get_payload_as_bytes()
        if not message.startswith(self.prefix):
            return
        if b"error" in message[:200]:
            self.bad.append(message)
        self.first, self.last = self.first or message, message
        self.seen += 1
        if self.seen % 1000 == 0:
            self.samples.append(message)
        if self.wanted is not None and self.seen == self.wanted[0]:
            self.wanted[1].set_result(None)

    async def until(self, count: int) -> None:
        done = asyncio.get_running_loop().create_future()
        self.wanted = (self.seen + count, done)
        await asyncio.wait_for(done, TIMEOUT_S)


def connected(loop: asyncio.AbstractEventLoop, url: str, client: Client) -> WSTransport:
    transport, _ = loop.run_until_complete(ws_connect(lambda: client, url))
    return transport


def hang_up(loop: asyncio.AbstractEventLoop, transport: WSTransport) -> None:
    transport.disconnect(graceful=False)
    loop.run_until_complete(transport.wait_disconnected())
    loop.close()


@pytest.mark.parametrize("venue", ["orders"], indirect=True)
@pytest.mark.benchmark(group=f"venue: {ACTIONS} signed actions over WebSocket post, each answered")
def test_signed_actions(benchmark: BenchmarkFixture, venue: dict[str, Any]) -> None:
    meta = {"universe": [{"name": "BTC", "szDecimals": 5, "maxLeverage": 40}]}
    instruments = Instruments.from_meta(meta)
    signer = Signer(venue["key"], "testnet")
    loop = asyncio.new_event_loop()
    client = Client(b"post")
    transport = connected(loop, venue["ws_url"], client)
    rounds = iter(range(1_000_000))

    def signed() -> tuple[tuple[list[bytes]], dict[str, Any]]:
        """Orders that rest, each canceled by the next action: half and half."""
        first = ACTIONS * next(rounds)
        posts = []
        for number in range(first, first + ACTIONS, 2):
            cloid = Cloid(number + 1)
            order = Order("BTC", Side.BUY, 90_000 + number % 5_000, "0.01", Tif.ALO, cloid=cloid)
            for offset, act in enumerate(
                (action.order([order], instruments), action.cancel_by_cloid([("BTC", cloid)], instruments))
            ):
                posts.append(signer.sign(act, NONCE + number + offset).post(number + offset))
        return (posts,), {}

    def send(posts: list[bytes]) -> None:
        for post in posts:
            transport.send(WSMsgType.TEXT, post)
        loop.run_until_complete(client.until(len(posts)))

    before_s = cpu_s(venue["pid"])
    benchmark.pedantic(send, setup=signed, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    benchmark.extra_info["venue CPU us an action"] = (cpu_s(venue["pid"]) - before_s) / client.seen * 1e6
    assert client.bad == []
    assert client.seen % ACTIONS == 0
    assert b'"resting":{"oid":' in client.first
    assert b'"statuses":["success"]' in client.last
    hang_up(loop, transport)


@pytest.mark.parametrize("venue", ["books"], indirect=True)
@pytest.mark.benchmark(group=f"venue: {MESSAGES} l2Book messages to one client, half of 20 + 20 levels, half of 5 + 5")
def test_books(benchmark: BenchmarkFixture, venue: dict[str, Any]) -> None:
    loop = asyncio.new_event_loop()
    client = Client(b"l2Book")
    transport = connected(loop, venue["ws_url"], client)
    for coin in BOOK_COINS:
        for more in ({}, {"fast": True}):
            subscription = {"type": "l2Book", "coin": coin, **more}
            transport.send(WSMsgType.TEXT, json.dumps({"method": "subscribe", "subscription": subscription}).encode())
    loop.run_until_complete(client.until(4 * len(BOOK_COINS)))

    def receive() -> None:
        loop.run_until_complete(client.until(MESSAGES))

    before_s, before = cpu_s(venue["pid"]), client.seen
    benchmark.pedantic(receive, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    cpu_us = (cpu_s(venue["pid"]) - before_s) / (client.seen - before) * 1e6
    benchmark.extra_info["venue CPU us a message"] = cpu_us
    for message in client.samples:
        book = json.loads(message)["data"]
        assert book["coin"] in BOOK_COINS
        assert [len(side) for side in book["levels"]] == ([5, 5] if "fast" in book else [20, 20])
    assert len(set(client.samples)) == len(client.samples) > 5
    hang_up(loop, transport)
