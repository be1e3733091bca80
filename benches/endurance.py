"""From bytes in memory through Feed.on_message with an empty callback, one core: rates, and memory over 10 million
messages. Prints a table; exits 1 when an answer is wrong or memory grew by more than 1 MiB after the warm-up."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import orjson
from messages import BBOS, BOOKS, TRADES

import hlconn

TOTAL = 10_000_000


def resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise SystemExit("endurance: needs /proc (Linux)")


def nothing(value: object) -> None:
    pass


def play(feed: hlconn.Feed, messages: list[bytes], count: int) -> float:
    """Seconds for `count` messages, taken over and over; each time over starts anew in venue time."""
    take = feed.on_message
    started = time.perf_counter()
    for _ in range(count // len(messages)):
        feed.mark_stale("again")
        feed.on_trades("BTC", None)  # it forgets which trades were seen
        feed.on_trades("BTC", nothing)
        for message in messages:
            take(message)
    return time.perf_counter() - started


def rate(feed: hlconn.Feed, name: str, messages: list[bytes]) -> None:
    count = len(messages) * 2000
    play(feed, messages, count)
    seconds = statistics.median(play(feed, messages, count) for _ in range(5))
    gigabytes = count / len(messages) * sum(map(len, messages)) / 1e9
    print(f"{name:8} {count / seconds / 1e6:6.2f} million messages/s   {gigabytes / seconds:5.2f} GB/s   (median of 5)")


def main() -> int:
    feed = hlconn.Feed()
    feed.on_book("BTC", nothing)
    feed.on_trades("BTC", nothing)
    for name, messages in (("bbo", BBOS), ("l2Book", BOOKS), ("trades", TRADES)):
        rate(feed, name, messages)

    mixed = [message for three in zip(BBOS, BOOKS, TRADES, strict=True) for message in three]
    play(feed, mixed, 20 * len(mixed))
    before, highest = resident_kib(), 0
    for _ in range(10):
        play(feed, mixed, TOTAL // 10 + len(mixed))
        highest = max(highest, resident_kib())
    counters = feed.counters
    bid = float(orjson.loads(BOOKS[-1])["data"]["levels"][0][0]["px"])
    right = feed.book("BTC").best_bid == bid and not any(
        c["errors"] or c["fallback"] or c["twins"] for c in counters.values()
    )
    print(f"memory   {before} KiB before, {highest} KiB at most over {TOTAL} messages")
    print(f"answers  {'right' if right else 'WRONG'}: {counters}")
    return 0 if right and highest - before < 1024 else 1


if __name__ == "__main__":
    sys.exit(main())
