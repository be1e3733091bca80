"""1,000 subscriptions, and all sockets cut at once: how long until the last of them has data again?

    python benches/resubscribe.py [--coins 250] [--cuts 5] [--every-s 65] [--links 4]

Four subscriptions for each coin (bbo, l2Book fast and slow, trades) on a server of its own process, which keeps the
venue's limits and counts what goes over them: 10 connections, 30 new ones and 2,000 messages in any 60 s, 1,000
subscriptions. Subscribing to all takes half of the messages of a minute, hence the time between cuts. A subscription is
back when a message that was sent after the cut has reached its callback. Exits with 1 if a limit was broken or a
subscription did not return.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hlconn
from hlconn import SessionConfig

FEEDS = ("bbo", "fast", "slow")
STREAMS = (*FEEDS, "trades")
TIMEOUT_S = 30.0
SUBSCRIPTIONS_AT_MOST = 1000


class Server:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, command: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.line()


@contextmanager
def venue() -> Iterator[Server]:
    script = str(Path(__file__).with_name("resubscribe_server.py"))
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, script], stdin=pipe, stdout=pipe, text=True)
    try:
        yield Server(process)
    finally:
        process.kill()
        process.communicate()


class Returns:
    """When each stream of each coin had data again: ms on the server's clock, which is this machine's monotonic one."""

    def __init__(self, coins: list[str]) -> None:
        self.wanted = len(coins) * len(STREAMS)
        self.arm(0)

    def arm(self, cut_ms: int) -> None:
        self.cut_ms = cut_ms
        self.back_s: dict[tuple[str, str], float] = {}
        self.complete = asyncio.Event()

    def on_book(self, book: hlconn.Book) -> None:
        for feed, time_ms in book.times_ms.items():
            self.seen(book.coin, feed, time_ms)

    def on_trades(self, coin: str, trades: Any) -> None:
        self.seen(coin, "trades", int(trades["time"][-1]))

    def seen(self, coin: str, stream: str, time_ms: int) -> None:
        # not of the cut's own millisecond: it may have been sent just before
        if time_ms > self.cut_ms and (coin, stream) not in self.back_s:
            self.back_s[coin, stream] = (time.monotonic_ns() / 1e6 - self.cut_ms) / 1e3
            if len(self.back_s) == self.wanted:
                self.complete.set()

    async def all_back(self) -> bool:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self.complete.wait()
        except TimeoutError:
            return False
        return True


def listen(hl: hlconn.Client, coin: str, returns: Returns) -> None:
    hl.market.on_book(coin, returns.on_book, feeds=FEEDS)
    hl.market.on_trades(coin, lambda trades: returns.on_trades(coin, trades))


async def run(server: Server, options: argparse.Namespace) -> list[str]:
    host = f"127.0.0.1:{server.line()}"
    endpoints = hlconn.Endpoints(f"http://{host}", f"ws://{host}/ws", hlconn.Network.LOCAL)
    coins = [f"C{number}" for number in range(options.coins)]
    returns = Returns(coins)
    wrong: list[str] = []
    worst_s: list[float] = []
    async with hlconn.connect(endpoints, config=SessionConfig(max_links=options.links)) as hl:
        began_ms = time.monotonic_ns() // 1_000_000
        returns.arm(began_ms - 1)
        for coin in coins:
            listen(hl, coin, returns)
        print(f"{'':10} back  median s     max s  links")
        for number in range(options.cuts + 1):
            if number:
                await asyncio.sleep(options.every_s)
                returns.arm(server.ask("cut"))
            if not await returns.all_back():
                missing = returns.wanted - len(returns.back_s)
                wrong.append(f"cut {number}: {missing} of {returns.wanted} subscriptions did not return")
            back_s = sorted(returns.back_s.values())
            median_s, max_s = (statistics.median(back_s), back_s[-1]) if back_s else (0.0, 0.0)
            name = f"cut {number}" if number else "at first"
            print(f"{name:10} {len(back_s):4d} {median_s:9.3f} {max_s:9.3f} {len(hl.pool.links):6d}", flush=True)
            worst_s += [max_s] if number else []
        states = {state.name for _, state, _ in hl.pool.subscriptions}
        if states != {"LIVE"}:
            wrong.append(f"the pool says that subscriptions are {states}")
    report = server.ask("report")
    slowest_s = max(worst_s, default=0.0)
    print(f"{returns.wanted} subscriptions, {options.cuts} cuts: all back after {slowest_s:.2f} s at most")
    print("most in use of each limit:", report["most"])
    wrong += [f"{times} times over the limit of {kind}" for kind, times in report["breaches"].items()]
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coins", type=int, default=SUBSCRIPTIONS_AT_MOST // len(STREAMS))
    parser.add_argument("--cuts", type=int, default=5)
    parser.add_argument("--every-s", type=float, default=65.0)
    parser.add_argument("--links", type=int, default=4)
    options = parser.parse_args()
    with venue() as server:
        wrong = asyncio.run(run(server, options))
    for line in wrong:
        print("WRONG:", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
