"""The pieces that one would put together: `websockets`, orjson, and the levels as numpy arrays.

Arguments: url, base_ns, channel.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import numpy as np
import orjson
from sightings import AsyncSightings
from websockets.asyncio.client import connect


def arrays(data: Any) -> Any:
    """float64 (2, levels, 2): px and sz, bids first."""
    sides = data["levels"] if "levels" in data else [[level] for level in data["bbo"]]
    return np.array([[(float(level["px"]), float(level["sz"])) for level in side] for side in sides])


async def main() -> None:
    url, base_ns, channel = sys.argv[1:]
    sightings = AsyncSightings(int(base_ns))
    # close_timeout: the server does not end the connection
    async with connect(url.replace("http:", "ws:") + "/ws", proxy=None, close_timeout=0.1) as ws:
        await ws.send(json.dumps({"method": "subscribe", "subscription": {"type": channel, "coin": "BTC"}}))

        async def listen() -> None:
            async for text in ws:
                message = orjson.loads(text)
                if message["channel"] == channel:
                    book = arrays(message["data"])
                    best_bid = book[0, 0, 0]
                    sightings.see(time.monotonic_ns(), message["data"]["time"], best_bid)

        listening = asyncio.create_task(listen())
        await sightings.serve()
        listening.cancel()


if __name__ == "__main__":
    asyncio.run(main())
