"""An hour of the venue's time with the default history and a client that trades and listens: is memory flat?

    python benches/venue_soak.py [--minutes 60] [--speed 60]     one minute of wall time with the defaults

Prints the resident size as the hour goes by, and fails when its last third grew by more than 2 % over the middle third.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from pathlib import Path

import aiohttp

from hlconn import Cloid, Instruments, Order, Side, Signer, Tif, action
from hlconn.sim import Venue

STREAMS = ("orderUpdates", "userEvents", "userFills", "openOrders", "clearinghouseState", "notification")
ALLOWED = 1.02


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


async def trade(venue: Venue, key: str, address: str) -> None:
    """Orders that rest, are modified, canceled or filled, as fast as they are answered."""
    instruments = Instruments.from_meta(venue.info(type="meta"))
    signer = Signer(key, "testnet")
    async with aiohttp.ClientSession() as http, http.ws_connect(venue.ws_url) as ws:
        for kind in STREAMS:
            await ws.send_json({"method": "subscribe", "subscription": {"type": kind, "user": address}})
        for coin in ("BTC", "ETH"):
            for kind in ("l2Book", "bbo", "trades"):
                await ws.send_json({"method": "subscribe", "subscription": {"type": kind, "coin": coin}})
        nonce = itertools.count(time.time_ns() // 1_000_000)
        for number in itertools.count(1):
            bid = venue.history.book("BTC").bids[0].px // 10
            cloid = Cloid(number)
            place = action.order(
                [Order("BTC", Side.BUY, bid - number % 50, "0.001", Tif.GTC, cloid=cloid)], instruments
            )
            cancel = action.cancel_by_cloid([("BTC", cloid)], instruments)
            sell = action.order([Order("BTC", Side.SELL, bid - 500, "0.001", Tif.IOC)], instruments)
            buy = action.order([Order("BTC", Side.BUY, bid + 500, "0.001", Tif.IOC)], instruments)
            for act in (place, cancel, *((sell, buy) if number % 5 == 0 else ())):
                stamp = next(nonce)
                await ws.send_bytes(signer.sign(act, stamp).post(stamp))
                while True:
                    message = await ws.receive()
                    if message.type is aiohttp.WSMsgType.TEXT and message.data.startswith('{"channel":"post"'):
                        assert json.loads(message.data)["data"]["response"]["payload"]["status"] == "ok", message.data
                        break


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of the venue's time")
    parser.add_argument("--speed", type=float, default=60.0)
    options = parser.parse_args()
    async with Venue(speed=options.speed) as venue:
        account = venue.account(usdc=1_000_000)
        began_ms, sizes = venue.now_ms(), []
        trading = asyncio.create_task(trade(venue, account.key, account.address))
        for step in range(1, 13):
            while venue.now_ms() - began_ms < options.minutes * 60_000 * step / 12:
                await asyncio.wait([trading], timeout=0.05)
                if trading.done():
                    trading.result()
            sizes.append(resident_kib())
            stats = venue.stats
            minutes = options.minutes * step / 12
            print(
                f"{minutes:5.1f} min  {sizes[-1]:>8,} KiB  {stats.blocks:,} blocks  {stats.actions:,} actions",
                flush=True,
            )
        trading.cancel()
        grown = max(sizes[8:]) / max(sizes[4:8])
        print(f"the last third over the middle third: {grown:.4f}")
        return 0 if grown <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
