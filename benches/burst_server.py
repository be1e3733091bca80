"""A venue that only bursts: acknowledges subscriptions, answers pings, and on {"method":"go","count":N} sends every
other connection N bbo messages as fast as they are taken. Run as a process of its own; prints its port."""

from __future__ import annotations

import asyncio
import re
from itertools import count as counting
from typing import ClassVar

import orjson
from messages import BBOS
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

PER_WRITE = 64

#: Each message around its time, which goes on rising: a book would leave out what is older than what it has.
PARTS = [re.split(rb"(?<=\"time\":)\d{13}", message) for message in BBOS]
TIMES_MS = counting(1_790_000_000_000)


class Client(WSListener):
    everybody: ClassVar[set[Client]] = set()
    task: asyncio.Task[None]

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.writable = asyncio.Event()
        self.writable.set()
        self.everybody.add(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.everybody.discard(self)
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        request = orjson.loads(frame.get_payload_as_bytes())
        if request["method"] == "ping":
            transport.send(WSMsgType.TEXT, b'{"channel":"pong"}')
        elif request["method"] == "go":
            for client in self.everybody - {self}:
                client.task = asyncio.get_running_loop().create_task(client.burst(request["count"]))
        else:
            transport.send(WSMsgType.TEXT, orjson.dumps({"channel": "subscriptionResponse", "data": request}))

    async def burst(self, count: int) -> None:
        writes = [
            b"".join(frame_of(PARTS[i % len(PARTS)]) for i in range(first, min(first + PER_WRITE, count)))
            for first in range(0, count, PER_WRITE)
        ]
        for data in writes:
            await self.writable.wait()
            if self not in self.everybody:
                return
            # one write of many frames, as a socket that was behind delivers them
            self.transport.underlying_transport.write(data)
            await asyncio.sleep(0)


def frame_of(parts: list[bytes]) -> bytes:
    payload = b"%d".join(parts) % next(TIMES_MS)
    size = len(payload)
    return (bytes((0x81, size)) if size < 126 else bytes((0x81, 126)) + size.to_bytes(2, "big")) + payload


async def main() -> None:
    server = await ws_create_server(lambda request: Client(), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
