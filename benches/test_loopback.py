"""Bursts over a loopback socket: the processor time that one message costs the client, side by side.

The reference is a Python picows listener that only counts its frames: what receiving costs before anybody reads.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from messages import BBOS
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from pytest_benchmark.fixture import BenchmarkFixture

import hlconn
from hlconn.session import driver, pylistener

PER_BURST = 64 * 512
GROUP = f"loopback burst of {PER_BURST} bbo messages: client CPU"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("burst_server.py"))], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    yield f"ws://127.0.0.1:{port}/ws"
    server.kill()
    server.wait()
    server.stdout.close()


class Burst:
    """Counts what arrives; `done` once a burst is complete."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.seen = loop, 0
        self.done = loop.create_future()

    def arm(self) -> None:
        self.seen, self.done = 0, self.loop.create_future()

    def finished(self) -> None:
        self.done.set_result(None)


class Counting(WSListener):
    def __init__(self, burst: Burst) -> None:
        self.burst = burst

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        burst = self.burst
        burst.seen += 1
        if burst.seen == PER_BURST:
            burst.finished()


def measure(benchmark: BenchmarkFixture, url: str, receiver: Any) -> None:
    """Time rounds of one burst each. receiver(burst) is an async context manager that is connected once entered."""
    loop = asyncio.new_event_loop()
    burst = Burst(loop)

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(work)

    context = receiver(burst)
    run(context.__aenter__())
    control, _ = run(ws_connect(WSListener, url))

    def one_burst() -> None:
        burst.arm()
        control.send(WSMsgType.TEXT, b'{"method":"go","count":%d}' % PER_BURST)
        run(asyncio.wait_for(asyncio.shield(burst.done), 30))

    benchmark.pedantic(one_burst, rounds=25, warmup_rounds=3)  # type: ignore[no-untyped-call]
    assert burst.seen == PER_BURST
    control.disconnect(graceful=False)
    run(context.__aexit__(None, None, None))
    loop.close()


class CountingReceiver:
    def __init__(self, url: str, burst: Burst) -> None:
        self.url, self.burst = url, burst

    async def __aenter__(self) -> None:
        self.transport, _ = await ws_connect(lambda: Counting(self.burst), self.url)

    async def __aexit__(self, *_: object) -> None:
        self.transport.disconnect(graceful=False)
        await self.transport.wait_disconnected()


class HlconnReceiver:
    def __init__(self, url: str, burst: Burst, more: int = 0, streams: int = 0) -> None:
        http_url = url.replace("ws:", "http:").removesuffix("/ws")
        self.client = hlconn.connect(hlconn.Endpoints(http_url, url, hlconn.Network.LOCAL))
        self.burst, self.more, self.streams = burst, more, streams
        self.calls = [0] * more

    async def __aenter__(self) -> None:
        hl = await self.client.__aenter__()
        burst = self.burst

        def on_book(book: hlconn.Book) -> None:
            burst.seen += 1
            if burst.seen == PER_BURST:
                assert [book.best_bid, book.best_ask] == LAST_TOP
                burst.finished()

        def another(which: int) -> Callable[[hlconn.Book], None]:
            calls = self.calls

            def on_book(book: hlconn.Book) -> None:
                calls[which] += 1

            return on_book

        for which in range(self.more):
            hl.market.on_book("BTC", another(which), feeds=("bbo",))
        self.open = [hl.market.books("BTC", feeds=("bbo",)) for _ in range(self.streams)]
        hl.market.on_book("BTC", on_book, feeds=("bbo",))

    async def __aexit__(self, *_: object) -> None:
        counters = self.client.feed.counters["bbo"]
        assert counters["errors"] == counters["unrouted"] == counters["fallback"] == counters["out_of_order"] == 0
        assert all(calls >= PER_BURST for calls in self.calls)
        assert all(stream.received >= PER_BURST for stream in self.open)
        await self.client.__aexit__(None, None, None)


def top_of(message: bytes) -> list[float]:
    book = hlconn.Book("BTC")
    book.apply(message)
    return [book.best_bid, book.best_ask]


LAST_TOP = top_of(BBOS[(PER_BURST - 1) % len(BBOS)])


@pytest.mark.benchmark(group=GROUP, timer=time.process_time)
def test_burst_picows_listener_that_only_counts(benchmark: BenchmarkFixture, url: str) -> None:
    measure(benchmark, url, lambda burst: CountingReceiver(url, burst))


@pytest.mark.benchmark(group=GROUP, timer=time.process_time)
def test_burst_hlconn_book_and_callback(benchmark: BenchmarkFixture, url: str) -> None:
    driver.listener_class.cache_clear()
    assert driver.listener_class() is not pylistener.FeedListener
    measure(benchmark, url, lambda burst: HlconnReceiver(url, burst))


@pytest.mark.benchmark(group=GROUP, timer=time.process_time)
@pytest.mark.parametrize(("more", "streams"), [(1, 0), (4, 0), (0, 1), (0, 4)])
def test_burst_hlconn_more_consumers(benchmark: BenchmarkFixture, url: str, more: int, streams: int) -> None:
    driver.listener_class.cache_clear()
    measure(benchmark, url, lambda burst: HlconnReceiver(url, burst, more, streams))


@pytest.mark.benchmark(group=GROUP, timer=time.process_time)
def test_burst_hlconn_python_listener(benchmark: BenchmarkFixture, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "listener_class", lambda: pylistener.FeedListener)
    measure(benchmark, url, lambda burst: HlconnReceiver(url, burst))
