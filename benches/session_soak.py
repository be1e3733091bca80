"""A session under full load for minutes, its connection cut at random: is memory flat, are there descriptors that leak,
is the tail of the latency as short at the end as at the beginning, and does every trade that is missing lie in a gap?

    python benches/session_soak.py [--messages 50000000] [--minutes 20] [--coins 8] [--redundancy 1] [--seed 1]

Ends after so many messages or minutes, whichever comes first. Prints a line for each slice of the run and exits with 1
when one of the above does not hold: the last third is compared with the first (latency) and the middle one (memory).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        self.target, self.reached = 0, asyncio.Event()
        self.latency = Histogram()
        self.last: dict[str, tuple[int, int]] = {}  # tid and ms of the newest trade
        self.missing = 0
        self.gaps: dict[bool, int] = {True: 0, False: 0}  # of trades, proven or not
        self.declared: dict[str, list[Gap]] = {}  # since the last trades of the coin
        self.wrong: list[str] = []

    async def see(self, messages: int, timeout_s: float) -> None:
        """Until so many have come, or for so long."""
        self.target = messages
        self.reached.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.reached.wait()

    def came(self) -> None:
        self.messages += 1
        if self.messages >= self.target:
            self.reached.set()

    def on_book(self, book: hlconn.Book) -> None:
        self.latency.record(time.monotonic_ns() - book.recv_ns)
        self.came()

    def on_trades(self, coin: str, trades: Any) -> None:
        self.came()
        tids, times_ms = trades["tid"], trades["time"]
        first, last = int(tids[0]), int(tids[-1])
        declared = self.declared.pop(coin, [])
        before, before_ms = self.last.get(coin, (first - 1, int(times_ms[0])))
        if last - first != len(tids) - 1 or first <= before:
            self.wrong.append(f"{coin}: trades {first} to {last}, {len(tids)} of them, after {before}")
        elif first != before + 1:
            self.missing += first - 1 - before
            if not any(gap.from_ms <= before_ms and int(times_ms[0]) <= gap.to_ms for gap in declared):
                self.wrong.append(f"{coin}: trades {before + 1} to {first - 1} are missing; declared: {declared}")
        self.last[coin] = last, int(times_ms[-1])

    def on_gap(self, gap: Gap) -> None:
        if gap.stream == "trades":
            self.gaps[gap.proven] += 1
            if not gap.proven:
                self.declared.setdefault(gap.coin, []).append(gap)


def listen(hl: hlconn.Client, coin: str, watch: Watch) -> None:
    hl.market.on_book(coin, watch.on_book, feeds=("bbo", "slow"))
    hl.market.on_trades(coin, lambda trades: watch.on_trades(coin, trades))


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
    rows: list[tuple[int, int, float]] = []
    began_s = time.monotonic()
    print("   seconds   messages  reconnects  proven  declared  missing   RSS KiB  fds   p50 us   p99 us  p99.9 us")
    async with hlconn.connect(endpoints, config=config) as hl:
        hl.market.on_gap(watch.on_gap)
        for number in range(options.coins):
            listen(hl, f"C{number}", watch)
        open_at_first = descriptors()
        for step in range(1, SLICES + 1):
            watch.latency = Histogram()
            part = step / SLICES
            await watch.see(int(options.messages * part), began_s + options.minutes * 60 * part - time.monotonic())
            p50_us, p99_us, tail_us = (watch.latency.percentile(p) / 1e3 for p in (50, 99, 99.9))
            rows.append((resident_kib(), descriptors(), tail_us))
            print(
                f"{time.monotonic() - began_s:10.1f} {watch.messages:10d} {reconnects(hl):11d} {watch.gaps[True]:7d}"
                f" {watch.gaps[False]:9d} {watch.missing:8d} {rows[-1][0]:9d} {rows[-1][1]:4d} {p50_us:8.1f}"
                f" {p99_us:8.1f} {tail_us:9.1f}",
                flush=True,
            )
        cuts = reconnects(hl)
    wrong = watch.wrong[:5]
    third = SLICES // 3
    memory = [max(row[0] for row in rows[third : 2 * third]), max(row[0] for row in rows[2 * third :])]
    tails = [statistics.median(row[2] for row in part) for part in (rows[1 : third + 1], rows[-third:])]
    if memory[1] > memory[0] * MEMORY_ALLOWED:
        wrong.append(f"memory grew from {memory[0]} to {memory[1]} KiB")
    # the least: a socket that is just being closed is none that leaks
    if min(row[1] for row in rows[-third:]) > min(row[1] for row in rows[:third]) or descriptors() >= open_at_first:
        wrong.append(f"descriptors leak: {open_at_first} at first, {descriptors()} after the end")
    if tails[1] > tails[0] * TAIL_ALLOWED:
        wrong.append(f"p99.9 went from {tails[0]:.1f} to {tails[1]:.1f} us")
    if cuts == 0 or (options.redundancy == 1 and not (watch.missing and all(watch.gaps.values()))):
        wrong.append("nothing was cut, or no trade was missed, or no gap was proven: it showed nothing about gaps")
    print(
        f"{watch.messages} messages, {cuts} reconnects, {watch.missing} trades missing;"
        f" memory {memory[1] / memory[0]:.4f} of the middle third, p99.9 {tails[1] / tails[0]:.2f} of the first"
    )
    return wrong


def reconnects(hl: hlconn.Client) -> int:
    return sum(counters.reconnects for counters in hl.pool.counters.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50_000_000)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--coins", type=int, default=8)
    parser.add_argument("--redundancy", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("hlconn").setLevel(logging.ERROR)  # of each gap it would say that no query was answered
    with venue(options.seed, 1.0, 5.0) as endpoints:
        wrong = asyncio.run(run(endpoints, options))
    for line in wrong:
        print("WRONG:", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
