"""The venue alone in a process on one core, for benches/test_venue.py. Prints one line of JSON: where it is, a key.

python benches/venue_server.py orders           actions are carried out as they come
python benches/venue_server.py books            made to publish as fast as it can: venue time runs away
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from hlconn.sim import Venue, serve

#: Enough coins that many books change in each block.
BOOK_COINS = tuple(f"T{number}" for number in range(250) if number % 10 != 9)[:60]


def made(kind: str) -> Venue:
    if kind == "orders":
        return Venue(coins=("BTC",), instant=True, history_blocks=1000)
    # A block each time that the 20-level books are due, and no waiting between blocks.
    return Venue(coins=BOOK_COINS, block_ms=(5000, 5000), speed=2_000.0, history_blocks=10)


async def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    venue = made(sys.argv[1])
    account = venue.account(usdc=1_000_000)

    def say(venue: Venue) -> None:
        print(json.dumps({"url": venue.url, "ws_url": venue.ws_url, "key": account.key}), flush=True)

    await serve(venue, say)


if __name__ == "__main__":
    asyncio.run(main())
