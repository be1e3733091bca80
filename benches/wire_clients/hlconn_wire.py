"""hlconn: `market.on_book`, a callback that reads the best bid. Arguments: url, base_ns, channel."""

from __future__ import annotations

import asyncio
import sys
import time

from sightings import AsyncSightings

import hlconn

FEEDS = {"l2Book": ("slow",), "bbo": ("bbo",)}


async def main() -> None:
    url, base_ns, channel = sys.argv[1:]
    sightings = AsyncSightings(int(base_ns))

    def on_book(book: hlconn.Book) -> None:
        best_bid = book.best_bid
        sightings.see(time.monotonic_ns(), book.time_ms, best_bid)

    endpoints = hlconn.Endpoints(url, url.replace("http:", "ws:") + "/ws", hlconn.Network.LOCAL)
    async with hlconn.connect(endpoints) as hl:
        hl.market.on_book("BTC", on_book, feeds=FEEDS[channel])
        await sightings.serve()
        counters = hl.feed.counters[channel]
        assert counters["errors"] == counters["unrouted"] == counters["fallback"] == counters["out_of_order"] == 0


if __name__ == "__main__":
    asyncio.run(main())
