"""ccxt placing orders as its users do: create_order_ws over WebSocket. Arguments: url, ws_url, key, address."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import ccxt.pro  # type: ignore[import-not-found]
from stopwatch import price, run_async


async def main() -> None:
    url, ws_url, key, address = sys.argv[1:]
    urls = {"test": {"public": url, "private": url, "ws": {"public": ws_url}}}
    settings = {"walletAddress": address, "privateKey": key, "urls": urls}
    exchange = ccxt.pro.hyperliquid({**settings, "enableRateLimit": False})  # which would wait 50 ms for each order
    exchange.set_sandbox_mode(True)

    async def place(number: int) -> Any:
        symbol = "BTC/USDC:USDC"
        placed = await exchange.create_order_ws(symbol, "limit", "buy", 0.01, price(number), {"postOnly": True})
        return placed["id"]

    try:
        await run_async(place)
    finally:
        await exchange.close()


if __name__ == "__main__":
    asyncio.run(main())
