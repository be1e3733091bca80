"""ccxt.pro's watch_order_book, with a market given by hand so that nothing is asked over HTTP."""

import asyncio

import ccxt.pro  # type: ignore[import-not-found]
from note import Note, arguments


async def main() -> None:
    port, count = arguments()
    note = Note(count)
    exchange = ccxt.pro.hyperliquid({"newUpdates": True})
    exchange.urls["api"]["ws"]["public"] = f"ws://127.0.0.1:{port}/ws"
    market = exchange.safe_market_structure(
        {
            "id": "0", "symbol": "BTC/USDC:USDC", "base": "BTC", "quote": "USDC", "settle": "USDC", "baseName": "BTC",
            "type": "swap", "swap": True, "spot": False, "contract": True, "linear": True, "active": True,
            "precision": {"amount": 1e-5, "price": 1e-1}, "info": {"name": "BTC"},
        }
    )  # fmt: skip
    exchange.set_markets([market])
    while True:
        book = await exchange.watch_order_book("BTC/USDC:USDC")
        if note.seen(float(book["bids"][0][0])):
            break
    await exchange.close()
    note.tell()


asyncio.run(main())
