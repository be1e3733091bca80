"""ccxt.pro as its users do it: watch_order_book in a loop. Arguments: url, base_ns, channel."""

from __future__ import annotations

import asyncio
import sys
import time

import ccxt.pro  # type: ignore[import-not-found]
from sightings import AsyncSightings


async def main() -> None:
    url, base_ns, _ = sys.argv[1:]
    sightings = AsyncSightings(int(base_ns))
    urls = {"test": {"public": url, "private": url, "ws": {"public": url.replace("http:", "ws:") + "/ws"}}}
    exchange = ccxt.pro.hyperliquid({"urls": urls})
    exchange.set_sandbox_mode(True)

    async def listen() -> None:
        while True:
            book = await exchange.watch_order_book("BTC/USDC:USDC")
            best_bid = book["bids"][0][0]
            sightings.see(time.monotonic_ns(), book["timestamp"], best_bid)

    listening = asyncio.create_task(listen())
    try:
        await sightings.serve()
    finally:
        listening.cancel()
        await exchange.close()


if __name__ == "__main__":
    asyncio.run(main())
