"""A venue that answers at once, over HTTP and WebSocket: an order rests, its oid the time when its bytes arrived.

That time is CLOCK_MONOTONIC in ns, which all processes share, taken first thing after the read that completed the
request: plain sockets, nobody waits in an event loop's queue, but the wake-up of this process is counted, for all
clients alike. Run as a process of its own, it prints its port. Info requests are answered as the venue in a box
answers them. For benches only:

    POST /taken       the payloads of the orders since the last time, as a list
    {"method":"tick"} over WebSocket: each connection that has subscribed to bbo gets one message of it
"""

from __future__ import annotations

import base64
import hashlib
import os
import selectors
import socket
import time
from typing import Any, ClassVar

import orjson

from hlconn.sim import Venue
from hlconn.sim.info import InfoRefused

VENUE = Venue(seed=7, coins=("BTC",), stepped=True, traders=False)
OK = {"status": "ok", "response": {"type": "default"}}
ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

taken: list[Any] = []


def answer_of(payload: Any, arrived_ns: int) -> Any:
    action = payload["action"]
    if action["type"] != "order":
        return OK
    taken.append(payload)
    statuses = [{"resting": {"oid": arrived_ns + number}} for number in range(len(action["orders"]))]
    return {"status": "ok", "response": {"type": "order", "data": {"statuses": statuses}}}


class Connection:
    everybody: ClassVar[set[Connection]] = set()

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.data, self.is_ws, self.wants_bbo = sock, b"", False, False
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.everybody.add(self)

    def readable(self) -> bool:
        """False: it ended."""
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionError:
            data = b""
        arrived_ns = time.monotonic_ns()
        self.data += data
        while self.data and (self.frame(arrived_ns) if self.is_ws else self.request(arrived_ns)):
            pass
        if not data:
            self.everybody.discard(self)
            self.sock.close()
        return bool(data)

    # HTTP

    def request(self, arrived_ns: int) -> bool:
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if not found:
            return False
        first, *lines = head.split(b"\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        if b"upgrade" in headers:
            key = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + ACCEPT).digest())
            upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            self.sock.send(upgrade + b"Sec-WebSocket-Accept: " + key + b"\r\n\r\n")
            self.is_ws, self.data = True, rest
            return True
        size = int(headers.get(b"content-length", b"0"))
        if len(rest) < size:
            return False
        body, self.data = rest[:size], rest[size:]
        status, answer = 200, b""
        try:
            answer = orjson.dumps(self.answer(first.split(b" ")[1], body, arrived_ns))
        except InfoRefused as exc:
            status = exc.args[0]
        head = b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        head %= status, len(answer)
        self.sock.setblocking(True)
        self.sock.sendall(head + answer)
        self.sock.setblocking(False)
        return True

    def answer(self, path: bytes, body: bytes, arrived_ns: int) -> Any:
        global taken
        if path == b"/exchange":
            return answer_of(orjson.loads(body), arrived_ns)
        if path == b"/taken":
            told, taken = taken, []
            return told
        return VENUE.info(**orjson.loads(body))

    # WebSocket

    def frame(self, arrived_ns: int) -> bool:
        data = self.data
        if len(data) < 2:
            return False
        size, at = data[1] & 127, 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        end = at + 4 + size
        if len(data) < end:
            return False
        mask = int.from_bytes((data[at : at + 4] * (size // 4 + 1))[:size], "big")
        text = (int.from_bytes(data[at + 4 : end], "big") ^ mask).to_bytes(size, "big")
        kind, self.data = data[0] & 15, data[end:]
        if kind == TEXT:
            self.message(orjson.loads(text), arrived_ns)
        elif kind in (PING, CLOSE):
            self.send(text, PONG if kind == PING else CLOSE)
        return True

    def message(self, message: Any, arrived_ns: int) -> None:
        method = message["method"]
        if method == "post":
            told = answer_of(message["request"]["payload"], arrived_ns)
            data = {"id": message["id"], "response": {"type": "action", "payload": told}}
            self.send(orjson.dumps({"channel": "post", "data": data}))
        elif method == "ping":
            self.send(b'{"channel":"pong"}')
        elif method == "tick":
            level = b'{"px":"100000","sz":"1.%d","n":1}' % (time.time_ns() % 1000 + 1)
            bbo = b'{"channel":"bbo","data":{"coin":"BTC","time":%d,"bbo":[%b,{"px":"100001","sz":"2","n":1}]}}'
            for client in self.everybody:
                if client.wants_bbo:
                    client.send(bbo % (time.time_ns() // 1_000_000, level))
        else:
            self.wants_bbo |= message["subscription"]["type"] == "bbo"
            self.send(orjson.dumps({"channel": "subscriptionResponse", "data": message}))

    def send(self, payload: bytes, kind: int = TEXT) -> None:
        size = len(payload)
        head = bytes((0x80 | kind, size)) if size < 126 else bytes((0x80 | kind, 126)) + size.to_bytes(2, "big")
        self.sock.send(head + payload)


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    parent = os.getppid()
    while os.getppid() == parent:
        for key, _ in selector.select(1):
            if key.data is None:
                sock, _ = listening.accept()
                selector.register(sock, selectors.EVENT_READ, Connection(sock))
            elif not key.data.readable():
                selector.unregister(key.fd)


if __name__ == "__main__":
    main()
