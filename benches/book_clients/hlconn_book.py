import asyncio

from note import Note, arguments

import hlconn


async def main() -> None:
    port, count = arguments()
    note, done = Note(count), asyncio.Event()
    url = f"127.0.0.1:{port}"
    async with hlconn.connect(hlconn.Endpoints(f"http://{url}", f"ws://{url}/ws", hlconn.Network.LOCAL)) as hl:

        def on_book(book: hlconn.Book) -> None:
            if note.seen(book.best_bid):
                done.set()

        hl.market.on_book("BTC", on_book, feeds=("slow",))
        await done.wait()
    note.tell()


asyncio.run(main())
