"""A session under full load for minutes, its connection cut at random: is memory flat, are there descriptors that leak,
is the tail of the latency as short at the end as at the beginning, and does every trade that is missing lie in a gap?

    python benches/session_soak.py [--messages 50000000] [--minutes 20] [--coins 8] [--redundancy 1] [--seed 1]

Ends after so many messages or minutes, whichever comes first. Prints a line for each slice of the run and exits with 1
when one of the above does not hold: the last third is compared with the first (latency) and the middle one (memory).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hlconn
from hlconn import Gap, Histogram, SessionConfig

SLICES = 30
MEMORY_ALLOWED = 1.02
TAIL_ALLOWED = 1.5  # of the median p99.9 of a third: the machine's own noise is as large


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def venue(*arguments: object) -> Iterator[hlconn.Endpoints]:
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("soak_server.py")), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        host = f"127.0.0.1:{server.stdout.readline().strip()}"
        yield hlconn.Endpoints(f"http://{host}", f"ws://{host}/ws", hlconn.Network.LOCAL)
    finally:
        server.kill()
        server.wait()


class Watch:
    """The callbacks: counts, the time from the socket to the callback, and the trades of each coin in their order."""

    def __init__(self) -> None:
        self.messages = 0
        self.latency = Histogram()
        self.last_tid: dict[str, int] = {}
        self.missing: dict[str, int] = {}
        self.gaps = 0
        self.unproven: dict[str, int] = {}
        self.wrong: list[str] = []

    def on_book(self, book: hlconn.Book) -> None:
        self.latency.record(time.monotonic_ns() - book.recv_ns)
        self.messages += 1

    def on_trades(self, coin: str, trades: Any) -> None:
        self.messages += 1
        tids = trades["tid"]
        first, last = int(tids[0]), int(tids[-1])
        before = self.last_tid.get(coin)
        if last - first != len(tids) - 1 or (before is not None and first <= before):
            self.wrong.append(f"{coin}: trades {first} to {last} after {before}")
        if before is not None and first != before + 1:
            # told before the data that come after it
            if not self.unproven.pop(coin, 0):
                self.wrong.append(f"{coin}: trades {before + 1} to {first - 1} are missing and no gap says so")
            self.missing[coin] = self.missing.get(coin, 0) + first - 1 - before
        self.last_tid[coin] = last

    def on_gap(self, gap: Gap) -> None:
        self.gaps += 1
        if gap.stream["type"] == "trades" and not gap.proven:
            coin = gap.stream["coin"]
            self.unproven[coin] = self.unproven.get(coin, 0) + 1


async def run(endpoints: hlconn.Endpoints, options: argparse.Namespace) -> list[str]:
    config = SessionConfig(
        backoff_min_s=0.05,
        backoff_max_s=0.2,
        ping_interval_s=1.0,
        pong_timeout_s=1.0,
        sockets_per_minute=100_000,
        messages_per_minute=1_000_000,
        redundancy=options.redundancy,
    )
    watch = Watch()
    rows: list[tuple[int, int, float, float]] = []
    began = time.monotonic()
    deadline = began + options.minutes * 60
    print("   seconds   messages  reconnects  gaps  missing   RSS KiB  fds   p50 us   p99 us  p99.9 us")
    async with hlconn.connect(endpoints, config=config) as hl:
        hl.market.on_gap(watch.on_gap)
        for number in range(options.coins):
            coin = f"C{number}"
            hl.market.on_book(coin, watch.on_book, feeds=("bbo", "slow"))
            hl.market.on_trades(coin, lambda trades, coin=coin: watch.on_trades(coin, trades))
        open_at_first = descriptors()
        for step in range(1, SLICES + 1):
            watch.latency = Histogram()
            while watch.messages < options.messages * step / SLICES and time.monotonic() < (
                began + (deadline - began) * step / SLICES
            ):
                await asyncio.sleep(0.05)
            tail = watch.latency.percentile(99.9) / 1e3
            rows.append((resident_kib(), descriptors(), watch.latency.percentile(50) / 1e3, tail))
            print(
                f"{time.monotonic() - began:10.1f} {watch.messages:10d} {reconnects(hl):11d} {watch.gaps:5d}"
                f" {sum(watch.missing.values()):8d} {rows[-1][0]:9d} {rows[-1][1]:4d} {rows[-1][2]:8.1f}"
                f" {watch.latency.percentile(99) / 1e3:8.1f} {tail:9.1f}",
                flush=True,
            )
        cuts = reconnects(hl)
    wrong = watch.wrong[:5]
    third = SLICES // 3
    memory = [max(row[0] for row in rows[third : 2 * third]), max(row[0] for row in rows[2 * third :])]
    tails = [statistics.median(row[3] for row in part) for part in (rows[1 : third + 1], rows[-third:])]
    if memory[1] > memory[0] * MEMORY_ALLOWED:
        wrong.append(f"memory grew from {memory[0]} to {memory[1]} KiB")
    if max(row[1] for row in rows[-third:]) > max(row[1] for row in rows[:third]) or descriptors() >= open_at_first:
        wrong.append(f"descriptors leak: {open_at_first} at first, {descriptors()} after the end")
    if tails[1] > tails[0] * TAIL_ALLOWED:
        wrong.append(f"p99.9 went from {tails[0]:.1f} to {tails[1]:.1f} us")
    if cuts == 0 or not any(watch.missing.values()):
        wrong.append("nothing was cut, or no trade was missed: it showed nothing about gaps")
    print(
        f"{watch.messages} messages, {cuts} reconnects, {sum(watch.missing.values())} trades missing, all in gaps;"
        f" memory {memory[1] / memory[0]:.4f} of the middle third, p99.9 {tails[1] / tails[0]:.2f} of the first"
    )
    return wrong


def reconnects(hl: hlconn.Client) -> int:
    return hl.link.counters.reconnects


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50_000_000)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--coins", type=int, default=8)
    parser.add_argument("--redundancy", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with venue(options.seed, 1.0, 5.0) as endpoints:
        wrong = asyncio.run(run(endpoints, options))
    for line in wrong:
        print("WRONG:", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
