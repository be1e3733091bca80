"""Bursts over a loopback socket: the processor time that one message costs the client, side by side.

The reference is a Python picows listener that only counts its frames: what receiving costs before anybody reads. More
callbacks on the one book show what each further consumer costs. They take turns, a few bursts each, so that what else
the machine does meets all of them.
"""

from __future__ import annotations

import asyncio
import functools
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
from test_trading import CLOCK, Figures

import hlconn
from hlconn.session import driver, pylistener

PER_BURST = 64 * 512
TURNS, BURSTS = 6, 5
CONSUMERS = (2, 3, 9)
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


def bursts(url: str, receiver: Callable[[str, Burst], Any], rounds: int) -> list[int]:
    """Processor time of each of so many bursts, ns. receiver: an async context manager, connected once entered."""
    loop = asyncio.new_event_loop()
    burst = Burst(loop)

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(work)

    context = receiver(url, burst)
    run(context.__aenter__())
    control, _ = run(ws_connect(WSListener, url))

    def one_burst() -> int:
        burst.arm()
        control.send(WSMsgType.TEXT, b'{"method":"go","count":%d}' % PER_BURST)
        began_ns = time.process_time_ns()
        run(asyncio.wait_for(asyncio.shield(burst.done), 30))
        took_ns = time.process_time_ns() - began_ns
        assert burst.seen == PER_BURST
        return took_ns

    one_burst()  # to warm up
    taken_ns = [one_burst() for _ in range(rounds)]
    control.disconnect(graceful=False)
    run(context.__aexit__(None, None, None))
    loop.close()
    return taken_ns


class CountingReceiver:
    def __init__(self, url: str, burst: Burst) -> None:
        self.url, self.burst = url, burst

    async def __aenter__(self) -> None:
        self.transport, _ = await ws_connect(lambda: Counting(self.burst), self.url)

    async def __aexit__(self, *_: object) -> None:
        self.transport.disconnect(graceful=False)
        await self.transport.wait_disconnected()


class Further:
    """A consumer that only counts."""

    def __init__(self) -> None:
        self.seen = 0

    def on_book(self, book: hlconn.Book) -> None:
        self.seen += 1


class HlconnReceiver:
    """consumers: callbacks on the book; the first ends the burst, and each further one has seen as much as it."""

    def __init__(self, url: str, burst: Burst, consumers: int = 1) -> None:
        http_url = url.replace("ws:", "http:").removesuffix("/ws")
        self.client = hlconn.connect(hlconn.Endpoints(http_url, url, hlconn.Network.LOCAL))
        self.burst = burst
        self.further = [Further() for _ in range(consumers - 1)]

    async def __aenter__(self) -> None:
        hl = await self.client.__aenter__()
        burst = self.burst

        def on_book(book: hlconn.Book) -> None:
            burst.seen += 1
            if burst.seen == PER_BURST:
                assert [book.best_bid, book.best_ask] == LAST_TOP
                burst.finished()

        for further in self.further:
            hl.market.on_book("BTC", further.on_book, feeds=("bbo",))
        hl.market.on_book("BTC", on_book, feeds=("bbo",))

    async def __aexit__(self, *_: object) -> None:
        counters = self.client.feed.counters["bbo"]
        assert all(further.seen == counters["messages"] for further in self.further)
        assert counters["errors"] == counters["unrouted"] == counters["fallback"] == counters["out_of_order"] == 0
        await self.client.__aexit__(None, None, None)


def top_of(message: bytes) -> list[float]:
    book = hlconn.Book("BTC")
    book.apply(message)
    return [book.best_bid, book.best_ask]


LAST_TOP = top_of(BBOS[(PER_BURST - 1) % len(BBOS)])


class PythonListenerReceiver(HlconnReceiver):
    async def __aenter__(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(driver, "listener_class", lambda: pylistener.FeedListener)
            await super().__aenter__()


PICOWS, ONE = "picows listener that only counts", "hlconn, book and callback"
RECEIVERS: dict[str, Callable[[str, Burst], Any]] = {
    PICOWS: CountingReceiver,
    ONE: HlconnReceiver,
    "hlconn, listener in Python": PythonListenerReceiver,
    **{f"hlconn, {n} callbacks": functools.partial(HlconnReceiver, consumers=n) for n in CONSUMERS},
}


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest, url: str) -> dict[str, Figures]:
    """The bursts of each, all in one run; with --benchmark-disable one each."""
    smoke = request.config.getoption("benchmark_disable")
    driver.listener_class.cache_clear()
    assert driver.listener_class() is not pylistener.FeedListener
    told = {name: Figures() for name in RECEIVERS}
    for _ in range(1 if smoke else TURNS):
        for name, receiver in RECEIVERS.items():
            told[name].latencies_ns += bursts(url, receiver, 1 if smoke else BURSTS)
    return told


@pytest.mark.parametrize("name", RECEIVERS)
@pytest.mark.benchmark(group=GROUP, timer=CLOCK)
def test_burst(benchmark: BenchmarkFixture, figures: dict[str, Figures], name: str) -> None:
    told = figures[name]
    CLOCK.replay(told.latencies_ns)
    benchmark.pedantic(lambda: None, rounds=len(told.latencies_ns))  # type: ignore[no-untyped-call]
    benchmark.extra_info |= {"us a message": told.us(50) / PER_BURST}


def test_burst_ratios(figures: dict[str, Figures]) -> None:
    """Prints the figures of one run: the medians, and the least times."""
    for name, told in figures.items():
        base = figures[PICOWS]
        median_us, least_us = (told.us(percent) / PER_BURST for percent in (50, 0))
        ratios = f"{told.us(50) / base.us(50):.2f} of picows, by the least {told.us(0) / base.us(0):.2f}"
        print(f"{name:34} median {median_us:.3f} us a message, least {least_us:.3f}; {ratios}")
    for consumers in CONSUMERS:
        told, one = figures[f"hlconn, {consumers} callbacks"], figures[ONE]
        each_us = [(told.us(percent) - one.us(percent)) / PER_BURST / (consumers - 1) for percent in (50, 0)]
        print(f"{consumers} callbacks: each further one {each_us[0]:+.3f} us a message, by the least {each_us[1]:+.3f}")
    assert all(told.latencies_ns for told in figures.values())
