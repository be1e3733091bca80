"""A venue that keeps the limits of one IP address and can cut every connection at once. Run as a process of its own.

Prints its port. It acknowledges a subscription at once and sends a first message of it (of trades the last one that
was sent, as the venue replays them, and a new one); afterwards l2Book goes on at the venue's pace. All times in
messages are CLOCK_MONOTONIC in ms, so that what was sent after a cut can be told from what was sent before. Lines in
are "cut" (out comes that time in ms) and "report" (out comes a JSON object with what was counted). What is over a
limit is refused: "connections" at a time, new "sockets" and "messages" from clients in any 60 s, "subscriptions" over
all connections (the venue's docs, "Rate limits").
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, deque
from itertools import count
from typing import Any

import orjson
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

WINDOW_S = 60.0
LIMITS = {"connections": 10, "sockets": 30, "messages": 2000, "subscriptions": 1000}
FAST_PERIOD_S = 0.5
SLOW_EVERY = 10  # fast periods
LEVEL = b'{"px":"%d.0","sz":"1.5","n":3}'
BIDS, ASKS = [LEVEL % (1000 - i) for i in range(20)], [LEVEL % (1001 + i) for i in range(20)]


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Venue:
    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.breaches: Counter[str] = Counter()
        self.most: Counter[str] = Counter()  # of each at a time, or in a window
        self.times_s: dict[str, deque[float]] = {"sockets": deque(), "messages": deque()}
        self.tids = count(1)
        self.trades: dict[str, bytes] = {}  # the last one of each coin

    def within(self, kind: str, used: int) -> bool:
        self.most[kind] = max(self.most[kind], used)
        self.breaches[kind] += used > LIMITS[kind]
        return used <= LIMITS[kind]

    def take(self, kind: str) -> bool:
        """One more of what is limited in a window."""
        times_s, now_s = self.times_s[kind], time.monotonic()
        times_s.append(now_s)
        while times_s[0] <= now_s - WINDOW_S:
            times_s.popleft()
        return self.within(kind, len(times_s))

    def message(self, subscription: dict[str, Any]) -> bytes:
        coin, time_ms = subscription["coin"].encode(), now_ms()
        match subscription["type"]:
            case "bbo":
                return b'{"channel":"bbo","data":{"coin":"%b","time":%d,"bbo":[%b,%b]}}' % (
                    *(coin, time_ms),
                    *(BIDS[0], ASKS[0]),
                )
            case "trades":
                trade = (
                    b'{"coin":"%b","side":"B","px":"1001.0","sz":"0.5","time":%d,"hash":"0x%064x","tid":%d,'
                    b'"users":["0x%040x","0x%040x"]}'
                ) % (coin, time_ms, 1, next(self.tids), 1, 2)
                before = self.trades.get(subscription["coin"])
                self.trades[subscription["coin"]] = trade
                rows = [trade] if before is None else [before, trade]
                return b'{"channel":"trades","data":[%b]}' % b",".join(rows)
        fast = subscription.get("fast")
        levels = 5 if fast else 20
        return b'{"channel":"l2Book","data":{"coin":"%b","time":%d,"levels":[[%b],[%b]]%b}}' % (
            *(coin, time_ms, b",".join(BIDS[:levels]), b",".join(ASKS[:levels])),
            b',"fast":true' if fast else b"",
        )

    async def books(self) -> None:
        """l2Book of everybody who wants it, for ever."""
        for number in count(1):
            await asyncio.sleep(FAST_PERIOD_S)
            for connection in list(self.connections):
                for subscription in list(connection.wanted.values()):
                    if subscription.get("fast") or (subscription["type"] == "l2Book" and number % SLOW_EVERY == 0):
                        connection.transport.send(WSMsgType.TEXT, self.message(subscription))

    def command(self, line: str) -> str:
        if line == "report":
            return json.dumps({"breaches": +self.breaches, "most": self.most})
        cut_ms = now_ms()
        for connection in list(self.connections):
            connection.transport.disconnect(graceful=False)
        return str(cut_ms)


class Connection(WSListener):
    transport: WSTransport

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self.wanted: dict[bytes, dict[str, Any]] = {}

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        venue = self.venue
        venue.connections.add(self)
        if not (venue.take("sockets") & venue.within("connections", len(venue.connections))):
            transport.disconnect(graceful=False)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.venue.connections.discard(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()
        if frame.msg_type is not WSMsgType.TEXT or not self.venue.take("messages"):
            return
        request = orjson.loads(frame.get_payload_as_bytes())
        if request["method"] == "ping":
            transport.send(WSMsgType.TEXT, b'{"channel":"pong"}')
            return
        subscription = request["subscription"]
        key = orjson.dumps(subscription, option=orjson.OPT_SORT_KEYS)
        if request["method"] == "subscribe":
            used = sum(len(connection.wanted) for connection in self.venue.connections) + (key not in self.wanted)
            if not self.venue.within("subscriptions", used):
                transport.send(WSMsgType.TEXT, b'{"channel":"error","data":"Cannot subscribe to more channels."}')
                return
            self.wanted[key] = subscription
        else:
            self.wanted.pop(key, None)
        transport.send(WSMsgType.TEXT, orjson.dumps({"channel": "subscriptionResponse", "data": request}))
        if request["method"] == "subscribe":
            transport.send(WSMsgType.TEXT, self.venue.message(subscription))


async def main() -> None:
    venue = Venue()
    server: Any = await ws_create_server(lambda request: Connection(venue), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    books = asyncio.create_task(venue.books())
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(venue.command(line.strip()), flush=True)
    books.cancel()


if __name__ == "__main__":
    asyncio.run(main())
