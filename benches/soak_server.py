"""A venue for the soak: one stream of bbo, l2Book and trades for every coin that anybody listens to, as fast as the
slowest listener takes it, and connections that it cuts at random. While nobody listens, trades go on, a few at
a time. Run as a process of its own; prints its port.

    python benches/soak_server.py SEED MIN_LIFE_S MAX_LIFE_S

The trades of a coin are numbered: tid 1, 2, 3 ... A subscription to trades replays the last ones, as the venue does.
No query is answered: what the replay does not prove is declared a gap.
A connection ends with a close frame, without one, or by falling silent: it says nothing more and answers no ping.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import deque
from itertools import count
from random import Random
from typing import Any

import orjson
from messages import BBOS, BOOKS
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

TOPS_PER_ROUND = 12
TRADES_PER_ROUND = 3
ROUNDS_PER_BOOK = 4
QUIET_S = 0.005  # between rounds while nobody listens
REPLAYED = 30

#: Each message around its coin and its time.
_AROUND = re.compile(rb"\"BTC\"|(?<=\"time\":)\d{13}")


def split(messages: list[bytes]) -> list[bytes]:
    """Templates of % formatting: a coin, then a time."""
    return [_AROUND.sub(lambda found: b'"%b"' if found[0] == b'"BTC"' else b"%d", message) for message in messages]


TOPS, FULL = split(BBOS), split(BOOKS)
TRADE = (
    b'{"coin":"%b","side":"B","px":"100000.0","sz":"0.5","time":%d,'
    b'"hash":"0x%064x","tid":%d,"users":["0x%040x","0x%040x"]}'
)


def frame(payload: bytes) -> bytes:
    size = len(payload)
    head = bytes((0x81, size)) if size < 126 else bytes((0x81, 126)) + size.to_bytes(2, "big")
    return head + payload


def trades_frame(rows: list[bytes]) -> bytes:
    return frame(b'{"channel":"trades","data":[' + b",".join(rows) + b"]}")


class Coin:
    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.tids = count(1)
        self.recent: deque[bytes] = deque(maxlen=REPLAYED)

    def next(self, time_ms: int, number: int) -> dict[str, bytes]:
        """What each of its streams says in this round."""
        tids = [next(self.tids) for _ in range(TRADES_PER_ROUND)]
        trades = [TRADE % (self.name, time_ms, tid, tid, 1, 2) for tid in tids]
        self.recent.extend(trades)
        first = number * TOPS_PER_ROUND
        tops = [
            frame(TOPS[i % len(TOPS)] % (self.name, time_ms + i - first)) for i in range(first, first + TOPS_PER_ROUND)
        ]
        said = {"bbo": b"".join(tops), "trades": b"".join(trades_frame([trade]) for trade in trades)}
        if number % ROUNDS_PER_BOOK == 0:
            said["l2Book"] = frame(FULL[number // ROUNDS_PER_BOOK % len(FULL)] % (self.name, time_ms))
        return said


class Connection(WSListener):
    transport: WSTransport

    def __init__(self, venue: SoakVenue) -> None:
        self.venue = venue
        self.wanted: set[tuple[str, str]] = set()
        self.silent = False
        self.writable = asyncio.Event()
        self.writable.set()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.venue.connections.add(self)
        asyncio.get_running_loop().call_later(self.venue.life_s(), self.cut)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.venue.connections.discard(self)
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def cut(self) -> None:
        if self not in self.venue.connections:
            return
        how = self.venue.rng.random()
        if how < 0.45:
            self.transport.send_close(WSCloseCode.OK, b"Expired")
            self.transport.disconnect()
        elif how < 0.9:
            self.transport.disconnect(graceful=False)
        else:
            self.silent = True
            self.writable.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()
        if frame.msg_type is not WSMsgType.TEXT or self.silent:
            return
        request = orjson.loads(frame.get_payload_as_bytes())
        if request["method"] == "ping":
            transport.send(WSMsgType.TEXT, b'{"channel":"pong"}')
            return
        transport.send(WSMsgType.TEXT, orjson.dumps({"channel": "subscriptionResponse", "data": request}))
        subscription = request["subscription"]
        key = (subscription["type"], subscription["coin"])
        if request["method"] == "unsubscribe":
            self.wanted.discard(key)
            return
        self.wanted.add(key)
        coin = self.venue.coin(subscription["coin"])
        if subscription["type"] == "trades" and coin.recent:
            transport.underlying_transport.write(trades_frame(list(coin.recent)))


class SoakVenue:
    def __init__(self, seed: int, min_life_s: float, max_life_s: float) -> None:
        self.rng = Random(seed)
        self.lives_s = (min_life_s, max_life_s)
        self.connections: set[Connection] = set()
        self.coins: dict[str, Coin] = {}

    def life_s(self) -> float:
        return self.rng.uniform(*self.lives_s)

    def coin(self, name: str) -> Coin:
        if name not in self.coins:
            self.coins[name] = Coin(name)
        return self.coins[name]

    async def run(self) -> None:
        time_ms = 1_790_000_000_000
        for number in count():
            time_ms += TOPS_PER_ROUND
            said: dict[str, dict[str, bytes]] = {}
            for connection in list(self.connections):
                if connection.silent or not connection.wanted:
                    continue
                await connection.writable.wait()
                parts = []
                for kind, name in sorted(connection.wanted):
                    if name not in said:
                        said[name] = self.coin(name).next(time_ms, number)
                    parts.append(said[name].get(kind, b""))
                if connection in self.connections and not connection.silent:
                    connection.transport.underlying_transport.write(b"".join(parts))
            if not said:
                for coin in self.coins.values():
                    coin.next(time_ms, number)
            await asyncio.sleep(0 if said else QUIET_S)


async def main(seed: str, min_life_s: str, max_life_s: str) -> None:
    venue = SoakVenue(int(seed), float(min_life_s), float(max_life_s))
    server: Any = await ws_create_server(lambda request: Connection(venue), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await venue.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
