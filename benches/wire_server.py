"""A venue that says when it said it: messages about one coin, one every 1 to 2 ms, each with the time of its sending.

    python benches/wire_server.py CLIENTS

The time is CLOCK_MONOTONIC in ns, which all processes share, taken last thing before the send, less a base; it stands
where the venue's own time stands, so that every client can read it: a rising number of 14 digits. The price of the best
bid numbers the messages. Each client has a port of its own, so that one is sent to while the others sleep. Prints the
base and the ports. Info requests are answered as the venue in a box answers them. For benches only:

    POST /send {"channel": ..., "count": ...}   that many to the subscriber of that port; answers their best bids
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from random import Random
from typing import Any

import orjson
from ack_server import Connection

FIRST_PX = 90_000
DIGITS = 10**13  # makes it 14 of them, for as long as a bench may take
BASE_NS = time.monotonic_ns() - DIGITS
PAUSE_S = (0.001, 0.002)
LEVELS = {"l2Book": 20, "bbo": 1}

_rng = Random(3)


def level(px: int) -> bytes:
    whole, fraction, n = _rng.randrange(9), _rng.randrange(1, 10**5), _rng.randint(1, 30)
    return b'{"px":"%d.0","sz":"%d.%05d","n":%d}' % (px, whole, fraction, n)


def rest_of(channel: str, px: int) -> bytes:
    """A message from its time on; px: its best bid."""
    count = LEVELS[channel]
    bids, asks = [level(px - i) for i in range(count)], [level(px + 1 + i) for i in range(count)]
    if channel == "bbo":
        return b',"bbo":[%b,%b]}}' % (*bids, *asks)
    return b',"levels":[[%b],[%b]]}}' % (b",".join(bids), b",".join(asks))


class WireConnection(Connection):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.port = sock.getsockname()[1]
        self.wanted = ""

    def answer(self, path: bytes, body: bytes, arrived_ns: int) -> Any:
        if path != b"/send":
            return super().answer(path, body, arrived_ns)
        request = orjson.loads(body)
        channel, pxs = request["channel"], [FIRST_PX + i for i in range(request["count"])]
        here = [client for client in self.everybody if isinstance(client, WireConnection) and client.port == self.port]
        (client,) = (client for client in here if client.wanted == channel)
        for rest in [rest_of(channel, px) for px in pxs]:
            time.sleep(_rng.uniform(*PAUSE_S))
            client.tell(channel, rest)
        return pxs

    def message(self, message: Any, arrived_ns: int) -> None:
        if message["method"] == "ping":
            self.send(b'{"channel":"pong"}')
            return
        self.send(orjson.dumps({"channel": "subscriptionResponse", "data": message}))
        self.wanted = message["subscription"]["type"]
        self.tell(self.wanted, rest_of(self.wanted, FIRST_PX - 1))

    def tell(self, channel: str, rest: bytes) -> None:
        head = b'{"channel":"%b","data":{"coin":"BTC","time":' % channel.encode()
        size = len(head) + 14 + len(rest)
        frame = (bytes((0x81, size)) if size < 126 else bytes((0x81, 126)) + size.to_bytes(2, "big")) + head
        self.sock.send(frame + b"%d" % (time.monotonic_ns() - BASE_NS) + rest)


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    selector = selectors.DefaultSelector()
    ports = []
    for _ in range(int(sys.argv[1])):
        listening = socket.create_server(("127.0.0.1", 0))
        selector.register(listening, selectors.EVENT_READ)
        ports.append(listening.getsockname()[1])
    print(BASE_NS, *ports, flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        for key, _ in selector.select(1):
            if isinstance(key.data, WireConnection):
                if not key.data.readable():
                    selector.unregister(key.fd)
            else:
                assert isinstance(key.fileobj, socket.socket)
                sock, _ = key.fileobj.accept()
                selector.register(sock, selectors.EVENT_READ, WireConnection(sock))


if __name__ == "__main__":
    main()
