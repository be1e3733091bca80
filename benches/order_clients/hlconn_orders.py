"""hlconn placing orders over the link's WebSocket. Arguments: url, key, and one of "submit", "presign", "book".

presign: with one-time nonces, made before each block. book: from a book's callback, called when its frame came in.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import tempfile

from picows import WSListener, WSMsgType, ws_connect
from stopwatch import price, run_async

import hlconn
from hlconn import Order, Side, Signer, Tif

PRESIGN = 10_000


async def main() -> None:
    url, key, how = sys.argv[1:]
    logging.getLogger("hlconn").setLevel(logging.ERROR)  # at the end it lists the orders that it leaves
    ws_url = url.replace("http:", "ws:") + "/ws"
    endpoints = hlconn.Endpoints(url, ws_url, hlconn.Network.TESTNET)
    signer = Signer(key, "testnet", presign=PRESIGN if how == "presign" else 0)
    with tempfile.TemporaryDirectory() as folder:
        trading = hlconn.TradingConfig(nonce_directory=folder)
        async with hlconn.connect(endpoints, key=signer, trading=trading) as hl:
            order = functools.partial(Order, "BTC", Side.BUY, sz=0.01, tif=Tif.ALO)

            async def place(number: int) -> int | None:
                ticket = hl.trader.submit(order(px=price(number)))
                ack: hlconn.Ack = await ticket
                return ack.oid

            if how != "book":
                await run_async(place, lambda count: signer.refill(count))
                assert signer.presign_misses == 0
                return

            ticks, _ = await ws_connect(WSListener, ws_url)
            sent: list[tuple[int, hlconn.Ticket]] = []
            news = asyncio.Event()

            def on_book(book: hlconn.Book) -> None:
                sent.append((book.recv_ns, hl.trader.submit(order(px=int(book.best_bid) - 1500))))
                news.set()

            async def in_callback(number: int) -> tuple[int, int | None]:
                news.clear()
                ticks.send(WSMsgType.TEXT, b'{"method":"tick"}')
                await news.wait()
                recv_ns, ticket = sent.pop()
                ack: hlconn.Ack = await ticket
                return recv_ns, ack.oid

            hl.market.on_book("BTC", on_book, feeds=("bbo",))
            await run_async(in_callback)
            ticks.disconnect(graceful=False)


if __name__ == "__main__":
    asyncio.run(main())
