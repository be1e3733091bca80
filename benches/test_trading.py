"""From the call to the order's bytes at the server: hlconn, the official SDK and ccxt, side by side over loopback.

The server (ack_server.py) answers at once and says when the bytes had arrived. Each client is a process of its own,
under its own interpreter (`python tools/client_venvs.py sdk ccxt` makes the foreign ones), on another core than the
server. They take turns, a block of orders each, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from client_venvs import BUILD, python_of
from order_news import CLOID, Told, modifying, order, resting, statuses, update
from pytest_benchmark.fixture import BenchmarkFixture

from hlconn import Signer
from hlconn.sim.signing import l1_signer
from hlconn.trading.orders import TrackedOrder

ROUNDS = 5
CLIENTS = Path(__file__).with_name("order_clients")
KEY = "0x" + hashlib.sha256(b"a key for benches").hexdigest()
ADDRESS = Signer(KEY, "testnet").address
GROUP = "call -> order's bytes at the server"
CHECKED = 20  # signatures of each block that are recovered
TIMEOUT_S = 60


class Clock:
    """Gives pytest-benchmark the times that the clients measured, as if it had taken them: begin and end by turns."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    def replay(self, latencies_ns: list[int]) -> None:
        self.times_s = [time_s for ns in reversed(latencies_ns) for time_s in (ns / 1e9, 0.0)]

    def __call__(self) -> float:
        return self.times_s.pop()


CLOCK = Clock()


@dataclass
class Figures:
    latencies_ns: list[int] = field(default_factory=list)
    cpu_ns: list[float] = field(default_factory=list)  # per order, of each block

    def us(self, percent: int) -> float:
        """A percentile of the latencies."""
        latencies_ns = sorted(self.latencies_ns)
        return latencies_ns[min(len(latencies_ns) - 1, len(latencies_ns) * percent // 100)] / 1e3

    @property
    def cpu_us(self) -> float:
        return statistics.median(self.cpu_ns) / 1e3


@dataclass
class Client:
    """orders: of a block."""

    script: str
    orders: int
    arguments: tuple[str, ...] = ()
    foreign: str = ""  # the environment's name

    @property
    def python(self) -> Path:
        return python_of(BUILD / self.foreign) if self.foreign else Path(sys.executable)

    def start(self, url: str) -> subprocess.Popen[str]:
        ws_url = url.replace("http:", "ws:") + "/ws"
        given = {"url": url, "ws_url": ws_url, "key": KEY, "address": ADDRESS}
        arguments = [given.get(argument, argument) for argument in self.arguments]
        command = [str(self.python), str(CLIENTS / self.script), *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


ALL = {
    "hlconn submit": Client("hlconn_orders.py", 500, ("url", "key", "submit")),
    "hlconn submit, one-time nonces": Client("hlconn_orders.py", 500, ("url", "key", "presign")),
    "hlconn submit in a book's callback": Client("hlconn_orders.py", 500, ("url", "key", "book")),
    "official SDK": Client("sdk_orders.py", 250, ("url", "key"), "sdk"),
    "ccxt over WebSocket": Client("ccxt_orders.py", 125, ("url", "ws_url", "key", "address"), "ccxt"),
}


def check(payloads: list[Any], count: int) -> None:
    """Every order is the one that was asked for, and signed by the key where that is looked at."""
    assert len(payloads) == count
    for payload in payloads:
        (order,) = payload["action"]["orders"]
        assert (order["a"], order["b"], order["s"], order["r"]) == (0, True, "0.01", False)
        assert 98_000 <= int(order["p"]) < 99_000
        assert order["t"] == {"limit": {"tif": "Alo"}}
    for payload in payloads[:: max(1, count // CHECKED)]:
        action, nonce, expiry = payload["action"], payload["nonce"], payload.get("expiresAfter")
        assert l1_signer(action, nonce, None, expiry, payload["signature"], mainnet=False) == ADDRESS


def taken(url: str) -> list[Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # none for an address of this machine
    with opener.open(url + "/taken", b"{}", timeout=TIMEOUT_S) as answer:
        told: list[Any] = json.load(answer)
        return told


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[dict[str, Figures]]:
    """What each client measured, all in one run; with --benchmark-disable a few orders each."""
    smoke = request.config.getoption("benchmark_disable")
    script = str(Path(__file__).with_name("ack_server.py"))
    server = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    clients: dict[str, subprocess.Popen[str]] = {}
    told: dict[str, Figures] = {}
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        if len(cores) > 1:
            os.sched_setaffinity(0, cores - {min(cores)})
        for name, client in ALL.items():
            if client.python.exists():
                clients[name], told[name] = client.start(url), Figures()
        for turn in range(1 if smoke else ROUNDS):
            for name, process in clients.items():
                assert process.stdin is not None
                assert process.stdout is not None
                count = 5 if smoke else ALL[name].orders
                process.stdin.write(f"{count}\n")
                process.stdin.flush()
                block = json.loads(process.stdout.readline())
                assert min(block["latencies_ns"]) > 0
                told[name].latencies_ns += block["latencies_ns"]
                told[name].cpu_ns.append(block["cpu_ns"])
                orders = taken(url)
                if turn == 0:  # all that came so far, of everybody's warming up too
                    orders = orders[-count:]
                check(orders, count)
        for process in clients.values():
            process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0
        yield told
    finally:
        if len(cores) > 1:
            os.sched_setaffinity(0, cores)
        for process in (*clients.values(), server):
            process.kill()
            process.communicate()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.benchmark(group=GROUP, timer=CLOCK)
def test_order_at_the_server(benchmark: BenchmarkFixture, figures: dict[str, Figures], name: str) -> None:
    if name not in figures:
        pytest.skip("not installed: python tools/client_venvs.py sdk ccxt")
    told = figures[name]
    CLOCK.replay(told.latencies_ns)
    benchmark.pedantic(lambda: None, rounds=len(told.latencies_ns))  # type: ignore[no-untyped-call]
    benchmark.extra_info |= {"p50 us": told.us(50), "p99 us": told.us(99), "CPU us an order": told.cpu_us}


def test_ratios(figures: dict[str, Figures]) -> None:
    """Prints the figures of one run, with the ratios to ours."""
    ours = figures["hlconn submit"]
    for name, told in figures.items():
        ratios = ", ".join(
            f"{told.us(50) / figures[base].us(50):.1f} times {base}"
            for base in ("hlconn submit", "hlconn submit, one-time nonces")
        )
        print(f"{name:36} p50 {told.us(50):7.1f} us, p99 {told.us(99):7.1f} us, CPU {told.cpu_us:7.1f} us; {ratios}")
    assert ours.latencies_ns


def modify_once(told: Told, oid: int) -> None:
    """One modify as a live quote sees it: sent, two updates, the answer."""
    new = order(str(100 + oid % 7))
    flight = told.send(modifying(told.table, oid, CLOID, new))
    told.table.on_order_updates([update(oid - 1, order(), "canceled"), update(oid, new, "open")])
    told.answer(flight, statuses(resting(oid)))
    told.table.take_events()


@pytest.mark.parametrize("before", [100, 4000])
@pytest.mark.benchmark(group="one more modify of an order, in the order table")
def test_one_more_modify(benchmark: BenchmarkFixture, before: int) -> None:
    told = Told()
    quote: TrackedOrder = told.rest()
    for oid in range(12, 12 + before):
        modify_once(told, oid)
    oids = iter(range(12 + before, 10**9))
    benchmark.pedantic(lambda: modify_once(told, next(oids)), rounds=200, iterations=1)  # type: ignore[no-untyped-call]
    assert (quote.may_be_live, quote.oid) == (True, next(oids) - 1)
    assert len(quote.oids) > before
