"""A venue that sends one l2Book frame whenever it is told to, for measuring the way from its write to a callback.

Takes commands on stdin: "l2 N GAP_US" sends N frames, one each GAP_US, once somebody has subscribed. Prints its port,
and for each run the times of the writes (CLOCK_MONOTONIC, ns) as one line of JSON. The n-th frame of a run has a best
bid of n + 1.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import ClassVar

import orjson
from messages import BOOKS
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

_BOOK = orjson.loads(BOOKS[0])
_TIMES_MS = iter(range(1_790_000_000_000, 2_000_000_000_000, 1))


def frame(number: int) -> bytes:
    """An l2Book message of 20 + 20 levels whose first bid says which it is."""
    data = _BOOK["data"]
    data["time"] = next(_TIMES_MS)
    for i, level in enumerate(data["levels"][0]):
        level["px"] = f"{number + 1}.0" if i == 0 else f"0.{90 - i}"
    return orjson.dumps(_BOOK)


class Client(WSListener):
    everybody: ClassVar[set[Client]] = set()
    wanted: ClassVar[asyncio.Event] = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.wants = False
        self.everybody.add(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.everybody.discard(self)
        if not any(client.wants for client in self.everybody):
            self.wanted.clear()

    def on_ws_frame(self, transport: WSTransport, received: WSFrame) -> None:
        if received.msg_type == WSMsgType.PING:
            transport.send_pong(received.get_payload_as_bytes())
        if received.msg_type != WSMsgType.TEXT:
            return
        request = orjson.loads(received.get_payload_as_bytes())
        if request["method"] == "ping":
            transport.send(WSMsgType.TEXT, b'{"channel":"pong"}')
        elif request["method"] in ("subscribe", "unsubscribe"):
            transport.send(WSMsgType.TEXT, orjson.dumps({"channel": "subscriptionResponse", "data": request}))
            self.wants = True
            self.wanted.set()


async def run(count: int, gap_us: int) -> list[int]:
    sent: list[int] = []
    for number in range(count):
        message = frame(number)
        await asyncio.sleep(gap_us / 1e6)
        for client in [each for each in Client.everybody if each.wants]:
            sent.append(time.monotonic_ns())
            client.transport.send(WSMsgType.TEXT, message)
    return sent


async def main() -> None:
    server = await ws_create_server(lambda request: Client(), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        while line := (await asyncio.to_thread(sys.stdin.readline)).split():
            await Client.wanted.wait()
            print(orjson.dumps(await run(int(line[1]), int(line[2]))).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
