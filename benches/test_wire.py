"""From a frame's sending to the user's callback with the book updated: bare picows, hlconn, and what else there is.

The server (wire_server.py) writes the time of sending into the message. Each client is a process of its own, under its
own interpreter (`python tools/client_venvs.py sdk ccxt` makes the foreign ones), on another core than the server. They
take turns, a block of messages each, so that what else the machine does meets all of them. Bare picows takes the time
first thing and reads nothing of the message before: the floor, the kernel's wake-up included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from client_venvs import BUILD, python_of
from pytest_benchmark.fixture import BenchmarkFixture
from test_trading import CLOCK, Figures

ROUNDS = 8
MESSAGES = 500  # of a block
CLIENTS = Path(__file__).with_name("wire_clients")
BASE = "bare picows"
SCRIPTS = {
    BASE: ("picows_wire.py", ""),
    "hlconn": ("hlconn_wire.py", ""),
    "websockets + orjson + numpy": ("websockets_wire.py", ""),
    "official SDK": ("sdk_wire.py", "sdk"),
    "ccxt.pro": ("ccxt_wire.py", "ccxt"),
}
#: ccxt has no stream of bbo alone.
ALL = [(channel, name) for channel in ("l2Book", "bbo") for name in SCRIPTS if (channel, name) != ("bbo", "ccxt.pro")]
Key = tuple[str, str]


@dataclass
class Client:
    channel: str
    url: str
    process: subprocess.Popen[str]
    keeps_latest: bool  # it may pass over a message when another one has come meanwhile

    @classmethod
    def start(cls, channel: str, name: str, port: str, base_ns: str) -> Client | None:
        script, foreign = SCRIPTS[name]
        python = python_of(BUILD / foreign) if foreign else Path(sys.executable)
        if not python.exists():
            return None
        url = f"http://127.0.0.1:{port}"
        command = [str(python), str(CLIENTS / script), url, base_ns, channel]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return cls(channel, url, process, name == "ccxt.pro")

    def line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def block(self, count: int) -> Any:
        """What it saw of `count` messages: all of them, in their order, each with the top that was sent."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        assert self.line() == "ready"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # none for an address of this machine
        body = json.dumps({"channel": self.channel, "count": count}).encode()
        with opener.open(self.url + "/send", body, timeout=60) as answer:
            sent = json.load(answer)
        told = self.line()
        assert len(sent) == count
        assert min(told["latencies_ns"]) > 0
        if self.keeps_latest:
            assert set(told["pxs"]) <= set(sent)
            assert told["pxs"] == sorted(set(told["pxs"]))
            assert told["pxs"][-1] == sent[-1]
        else:
            assert told["pxs"] == sent
        return told


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[dict[Key, Figures]]:
    """What each client measured, all in one run; with --benchmark-disable a few messages each."""
    smoke = request.config.getoption("benchmark_disable")
    script = str(Path(__file__).with_name("wire_server.py"))
    server = subprocess.Popen([sys.executable, script, str(len(ALL))], stdout=subprocess.PIPE, text=True)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    clients: dict[Key, Client] = {}
    told: dict[Key, Figures] = {}
    try:
        assert server.stdout is not None
        base_ns, *ports = server.stdout.readline().split()
        if len(cores) > 1:
            os.sched_setaffinity(0, cores - {min(cores)})
        for (channel, name), port in zip(ALL, ports, strict=True):
            client = Client.start(channel, name, port, base_ns)
            if client is not None:
                clients[channel, name], told[channel, name] = client, Figures()
        for client in clients.values():
            client.block(5 if smoke else MESSAGES // 2)  # to warm up
        for _ in range(1 if smoke else ROUNDS):
            for key, client in clients.items():
                block = client.block(5 if smoke else MESSAGES)
                told[key].latencies_ns += block["latencies_ns"]
                told[key].cpu_ns.append(block["cpu_ns"])
        for client in clients.values():
            client.process.communicate(timeout=60)
            assert client.process.returncode == 0
        yield told
    finally:
        if len(cores) > 1:
            os.sched_setaffinity(0, cores)
        for process in (*(client.process for client in clients.values()), server):
            process.kill()
            process.communicate()


@pytest.mark.parametrize(("channel", "name"), ALL)
@pytest.mark.benchmark(group="frame sent -> callback with the book updated", timer=CLOCK)
def test_wire(benchmark: BenchmarkFixture, figures: dict[Key, Figures], channel: str, name: str) -> None:
    if (channel, name) not in figures:
        pytest.skip("not installed: python tools/client_venvs.py sdk ccxt")
    told = figures[channel, name]
    CLOCK.replay(told.latencies_ns)
    benchmark.pedantic(lambda: None, rounds=len(told.latencies_ns))  # type: ignore[no-untyped-call]
    benchmark.extra_info |= {"p50 us": told.us(50), "p99 us": told.us(99), "CPU us a message": told.cpu_us}


def test_wire_ratios(figures: dict[Key, Figures]) -> None:
    """Prints the figures of one run, with the ratios to bare picows."""
    for (channel, name), told in figures.items():
        ratios = ", ".join(f"{told.us(50) / figures[channel, base].us(50):.2f} of {base}" for base in (BASE, "hlconn"))
        print(
            f"{channel:6} {name:28} p50 {told.us(50):7.1f} us, p99 {told.us(99):7.1f} us, least {told.us(0):6.1f} us,"
            f" CPU {told.cpu_us:6.1f} us; {len(told.latencies_ns)} messages; p50 {ratios}"
        )
    assert {name for _, name in figures} >= {BASE, "hlconn"}
