"""websockets, orjson and numpy: as one would write it."""

import asyncio

import numpy as np
import orjson
from note import Note, arguments
from websockets.asyncio.client import connect


async def main() -> None:
    port, count = arguments()
    note = Note(count)
    px, sz = np.zeros((2, 20)), np.zeros((2, 20))
    async with connect(f"ws://127.0.0.1:{port}/ws", compression=None) as socket:
        await socket.send('{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC"}}')
        async for message in socket:
            found = orjson.loads(message)
            if found["channel"] != "l2Book":
                continue
            for row, side in enumerate(found["data"]["levels"]):
                px[row] = [float(level["px"]) for level in side]
                sz[row] = [float(level["sz"]) for level in side]
            if note.seen(float(px[0, 0])):
                break
    note.tell()


asyncio.run(main())
