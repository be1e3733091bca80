"""A bare picows listener: it takes the time and nothing else; what it must know of the message stands in fixed places.

Arguments: url, base_ns, channel.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from sightings import AsyncSightings

PX = re.compile(rb'"px":"(\d+)')


class Listener(WSListener):
    def __init__(self, sightings: AsyncSightings, channel: str) -> None:
        self.sightings = sightings
        self.head = b'{"channel":"%b","data":{"coin":"BTC","time":' % channel.encode()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        seen_ns = time.monotonic_ns()
        message = frame.get_payload_as_bytes()
        if message.startswith(self.head):
            at = len(self.head)
            found = PX.search(message)
            assert found is not None
            self.sightings.see(seen_ns, int(message[at : at + 14]), int(found[1]))


async def main() -> None:
    url, base_ns, channel = sys.argv[1:]
    sightings = AsyncSightings(int(base_ns))
    transport, _ = await ws_connect(lambda: Listener(sightings, channel), url.replace("http:", "ws:") + "/ws")
    subscribe = f'{{"method":"subscribe","subscription":{{"type":"{channel}","coin":"BTC"}}}}'
    transport.send(WSMsgType.TEXT, subscribe.encode())
    await sightings.serve()
    transport.disconnect(graceful=False)


if __name__ == "__main__":
    asyncio.run(main())
