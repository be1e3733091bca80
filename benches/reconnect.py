"""A thousand subscriptions (250 coins, trades, bbo, slow and fast l2Book) over ten links, all sockets cut at once: how
long until every one is served again, by what the session says and by data. `python benches/reconnect.py [rounds]`; it
exits with 1 when something is not served again within a minute.

The venue in a box runs in a process of its own, with empty books: what is measured is the way back, not the market.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from typing import Any

import hlconn
from hlconn import SessionConfig
from hlconn.config import Endpoints, Network
from hlconn.session.driver import Driver
from hlconn.session.link import SubState

COINS = [f"T{n}" for n in range(250)]
KINDS: list[dict[str, Any]] = [
    {"type": "trades"},
    {"type": "bbo"},
    {"type": "l2Book"},
    {"type": "l2Book", "fast": True},
]

VENUE = """
import asyncio, sys
from hlconn.sim import Venue

async def main() -> None:
    async with Venue(seed=1, coins=tuple(sys.argv[1:]), traders=False) as venue:
        for coin in sys.argv[1:]:
            venue.rest(coin, "B", 1, 100)
        print(venue.endpoints.ws_url, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            sessions = len(venue.streams.sessions)
            venue.cut()
            print(sessions, flush=True)

asyncio.run(main())
"""


async def until(holds: Any, timeout_s: float = 60.0) -> float:
    """Seconds that it took."""
    began_s = time.perf_counter()
    while not holds():
        if time.perf_counter() - began_s > timeout_s:
            raise SystemExit(f"not served again within {timeout_s:g} s")
        await asyncio.sleep(0.001)
    return time.perf_counter() - began_s


async def measure(venue: subprocess.Popen[str], rounds: int) -> None:
    assert venue.stdin is not None
    assert venue.stdout is not None
    ws_url = venue.stdout.readline().strip()
    feed = hlconn.Feed()
    up: set[str] = set()
    config = SessionConfig(max_links=10, messages_per_minute=2000, sockets_per_minute=30)
    driver = Driver(
        Endpoints(ws_url.replace("ws:", "http:").removesuffix("/ws"), ws_url, Network.LOCAL),
        config,
        feed,
        on_up=lambda subscription, _: up.add(repr(subscription)),
        on_down=lambda subscription, reason, _: up.discard(repr(subscription)),
    )
    wanted = [{**kind, "coin": coin} for coin in COINS for kind in KINDS]
    for coin in COINS:
        feed.book(coin)
        feed.on_trades(coin, lambda trades: None)
    for subscription in wanted:
        driver.subscribe(subscription)
    await driver.start()
    first_s = await until(lambda: len(up) == len(wanted))
    print(f"{len(wanted)} subscriptions on {len(driver.pool.links)} links, first served after {first_s:.3f} s")
    links = driver.pool.links
    served, data = [], []
    for _ in range(rounds):
        await asyncio.sleep(61.0)  # the messages of a minute have room for a thousand subscribes once, not twice
        await until(lambda: all(state is SubState.LIVE for _, state, _ in driver.pool.subscriptions))
        all_again = [(link, link.counters.connects + 1) for link in links.values()]
        venue.stdin.write("cut\n")
        venue.stdin.flush()
        sessions = int(venue.stdout.readline())
        assert sessions == len(links) <= 10, sessions
        began_s = time.perf_counter()
        await until(lambda: all(link.counters.connects >= n for link, n in all_again))  # noqa: B023
        await until(lambda: len(up) == len(wanted))
        served.append(time.perf_counter() - began_s)
        await until(lambda: not any(feed.book(coin).stale for coin in COINS))
        data.append(time.perf_counter() - began_s)
    await driver.close()
    print(f"all sockets cut, {rounds} times: served again after {statistics.median(served):.3f} s, "
          f"at worst {max(served):.3f} s; every book fresh after {statistics.median(data):.3f} s, "
          f"at worst {max(data):.3f} s")  # fmt: skip


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    venue = subprocess.Popen(
        [sys.executable, "-c", VENUE, *COINS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        asyncio.run(measure(venue, rounds))
    finally:
        venue.terminate()
        venue.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
