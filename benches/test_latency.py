"""From a frame's write at the venue to a callback that has the book, side by side over loopback.

Every client is a process of its own, and so is the venue; both read CLOCK_MONOTONIC. The clients take turns, in blocks,
so that a busy machine troubles all of them alike. `make clients` installs those that are not ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from client_venvs import BUILD, python_of

HERE = Path(__file__).parent
CLIENTS = {
    "picows, raw": (sys.executable, "picows_book.py"),
    "hlconn": (sys.executable, "hlconn_book.py"),
    "websockets, orjson, numpy": (sys.executable, "websockets_book.py"),
    "official SDK": (str(python_of(BUILD / "sdk")), "sdk_book.py"),
    "ccxt.pro": (str(python_of(BUILD / "ccxt")), "ccxt_book.py"),
}
BLOCKS, FRAMES, WARM_UP, GAP_US = 5, 500, 100, 2000


@pytest.fixture
def venue() -> Iterator[subprocess.Popen[str]]:
    server = subprocess.Popen(
        [sys.executable, str(HERE / "latency_server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield server
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    server.stdout.close()
    server.kill()
    server.wait()


def one_block(venue: subprocess.Popen[str], port: int, name: str, frames: int, gap_us: int) -> list[int]:
    """ns from write to callback of each frame after the warm-up."""
    python, script = CLIENTS[name]
    assert venue.stdin is not None
    assert venue.stdout is not None
    with subprocess.Popen(
        [python, str(HERE / "book_clients" / script), str(port), str(frames)], stdout=subprocess.PIPE, text=True
    ) as client:
        venue.stdin.write(f"l2 {frames} {gap_us}\n")
        venue.stdin.flush()
        sent = json.loads(venue.stdout.readline())
        assert client.stdout is not None
        seen = json.loads(client.stdout.readline())
        assert client.wait(10) == 0
    assert len(sent) == len(seen) == frames, name
    took = [after - before for before, after in zip(sent, seen, strict=True)]
    assert min(took) > 0, name
    return took[frames // 5 :]


def test_frame_sent_to_callback_with_the_book(
    venue: subprocess.Popen[str], request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke = request.config.getoption("benchmark_disable", False)
    assert venue.stdout is not None
    port = int(venue.stdout.readline())
    there = [name for name, (python, _) in CLIENTS.items() if Path(python).exists()]
    took: dict[str, list[int]] = {name: [] for name in there}
    for _ in range(1 if smoke else BLOCKS):
        for name in there:
            took[name] += one_block(venue, port, name, 50 if smoke else FRAMES + WARM_UP, GAP_US)
    with capsys.disabled():
        print(f"\n{'frame sent -> callback, us':<28}{'p50':>8}{'p99':>9}{'least':>8}{'p50 ratio':>11}")
        for name, values in took.items():
            p50, p99 = np.percentile(values, [50, 99]) / 1e3
            ratio = p50 * 1e3 / np.median(took["picows, raw"])
            print(f"{name:<28}{p50:>8.1f}{p99:>9.1f}{min(values) / 1e3:>8.1f}{ratio:>11.2f}")
