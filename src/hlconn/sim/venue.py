"""The venue in a box: the market of `market.py` over a loopback WebSocket, with `POST /info` beside it.

Limits of the public venue (weights, counts of connections and subscriptions, the idle close) are left out on
purpose: this one is for tests and demonstrations.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

import orjson
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

from ..config import Endpoints, Network
from ..errors import ConfigError
from . import wire
from .coins import DEFAULT_COINS
from .info import InfoRefused, answer
from .market import Block, Market
from .rest import RestServer

__all__ = ["Stats", "Venue", "serve"]

log = logging.getLogger("hlconn.sim")

# Venue time between two l2Book messages of one subscription, as measured on the public venue in 2026.
_SLOW_MS, _FAST_MS = 5000, 500

_MAX_REQUEST_BYTES = 1 << 20
_GREETING = b"Websocket connection established."
_CUT_REASON = b"Expired"
# How long a client may take to answer our close frame before its socket is cut.
_CLOSE_TIMEOUT_S = 1.0


@dataclass(slots=True)
class Stats:
    """Counters since the venue was made. messages_sent counts text frames; errors, the `error` messages among them."""

    blocks: int = 0
    connections: int = 0
    subscribes: int = 0
    unsubscribes: int = 0
    pings: int = 0
    posts: int = 0
    errors: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    bytes_sent: int = 0
    slow_clients_dropped: int = 0


class _Client(WSListener):
    """One connection: its frames in, its messages out. What it is subscribed to is the venue's to know."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._parts = bytearray()
        self.transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self._venue._connections.add(transport)
        self._venue._joined(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._venue._left(self)
        self._venue._connections.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """An exception here makes picows log it and close this client with code 1011."""
        if frame.msg_type == WSMsgType.CLOSE:
            code = frame.get_close_code()
            transport.send_close(WSCloseCode.OK if code == WSCloseCode.NO_INFO else code)
            transport.disconnect()
        elif frame.msg_type != WSMsgType.PONG:
            self._parts += frame.get_payload_as_memoryview()
            if len(self._parts) > _MAX_REQUEST_BYTES:
                raise WSProtocolError(WSCloseCode.MESSAGE_TOO_BIG, "request too long")
            if frame.fin:
                message = bytes(self._parts)
                self._parts.clear()
                self._venue._received(self, message)

    def pause_writing(self) -> None:
        """The bound on unsent bytes is kept by `send`."""

    def resume_writing(self) -> None:
        pass

    def send(self, message: bytes) -> None:
        """Send one text frame; a client that left too much unread is dropped instead."""
        assert self.transport is not None
        stats = self._venue.stats
        self.transport.send(WSMsgType.TEXT, message)
        stats.messages_sent += 1
        stats.bytes_sent += len(message)
        if self.transport.underlying_transport.get_write_buffer_size() > self._venue.max_buffer_bytes:
            log.warning("dropped a client that left more than %d bytes unread", self._venue.max_buffer_bytes)
            stats.slow_clients_dropped += 1
            self.cut(None)

    def cut(self, code: int | None) -> None:
        """End the connection with this close code, or without a word. Nothing is sent to it afterwards."""
        assert self.transport is not None
        self._venue._left(self)
        if code is None:
            self.transport.disconnect(graceful=False)
        else:
            self.transport.send_close(WSCloseCode(code), _CUT_REASON)
            asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, self.transport.disconnect, False)


class Venue:
    """A venue on a loopback port, as an async context manager.

    seed: the same seed gives the same market, block times apart. speed: 20 makes everything 20 times faster in wall
    time; block times (venue ms, from the wall clock at construction on) advance as at speed 1. coins: names, BTC ETH
    SOL kPEPE HYPE DOGE, MATIC with an empty book, and made-up T0 to T249. port, http_port: 0 picks free ones, which
    a later `start()` uses again. manual: no timer; `block()` makes and publishes one block. greeting: send the
    plain-text first frame. shuffle_keys: write messages with keys in random order and white space.
    max_buffer_bytes: a client with more unsent bytes than this is dropped. history_blocks: see `Market`.

    Raises ConfigError for settings that cannot work. Everything but `endpoints` and `url` can be used before
    `start()`. Not thread-safe.
    """

    def __init__(
        self,
        seed: int = 7,
        speed: float = 1.0,
        coins: tuple[str, ...] = DEFAULT_COINS,
        host: str = "127.0.0.1",
        port: int = 0,
        http_port: int = 0,
        *,
        ssl_context: ssl.SSLContext | None = None,
        manual: bool = False,
        greeting: bool = True,
        shuffle_keys: bool = False,
        history_blocks: int | None = None,
        max_buffer_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        if not 0 < speed < math.inf:
            raise ConfigError(f"speed must be a positive number, not {speed!r}")
        self.market = Market(coins, seed, time.time_ns() // 1_000_000, history_blocks)
        self.stats = Stats()
        self.max_buffer_bytes = max_buffer_bytes
        self._speed, self._host, self._port, self._http_port = speed, host, port, http_port
        self._ssl_context, self._manual, self._greeting = ssl_context, manual, greeting
        self._encode = wire.Encoder(seed if shuffle_keys else None)
        self._server: asyncio.Server | None = None
        self._rest: RestServer | None = None
        self._timer: asyncio.Task[None] | None = None
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._clients: set[_Client] = set()
        # Also those that were cut and have not answered our close frame yet.
        self._connections: set[WSTransport] = set()
        # Who is subscribed to what, and the block time of the last message each of them got for it.
        self._topics: dict[wire.Subscription, dict[_Client, int]] = {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def endpoints(self) -> Endpoints:
        """Where it listens. Known from the first `start()` on."""
        if not self._port or not self._http_port:
            raise RuntimeError("the venue has no ports yet: start it first")
        host = "127.0.0.1" if self._host in ("", "0.0.0.0") else self._host
        tls = "s" if self._ssl_context else ""
        return Endpoints(f"http{tls}://{host}:{self._http_port}", f"ws{tls}://{host}:{self._port}/ws", Network.LOCAL)

    @property
    def url(self) -> str:
        """The WebSocket URL."""
        return self.endpoints.ws_url

    @property
    def clients(self) -> int:
        """Open WebSocket connections."""
        return len(self._clients)

    async def start(self) -> None:
        """Listen and, unless manual, make blocks. After `stop()`, goes on with the same market on the same ports."""
        if self._server is not None:
            raise RuntimeError("the venue is already running")
        self._rest = RestServer(self.market, self._host, self._http_port, self._ssl_context)
        try:
            self._server = await ws_create_server(
                self._accept,
                self._host,
                self._port,
                # One family: with port 0 every address of the host would get a port of its own.
                family=socket.AF_INET,
                ssl=self._ssl_context,
                logger_name=log,
                max_frame_size=_MAX_REQUEST_BYTES,
            )
        except BaseException:
            self._rest.server_close()
            self._rest = None
            raise
        self._rest.start()
        self._port, self._http_port = self._server.sockets[0].getsockname()[1], self._rest.port
        if not self._manual:
            self._timer = asyncio.create_task(self._make_blocks(), name="hlconn.sim blocks")
        log.info("venue at %s and %s", self.endpoints.ws_url, self.endpoints.http_url)

    async def stop(self) -> None:
        """Close the ports and cut every connection, without close frames. Does nothing when not running."""
        if self._server is None or self._rest is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.wait([self._timer])
            self._timer = None
        self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.disconnect(graceful=False)
        await asyncio.gather(*[connection.wait_disconnected() for connection in connections])
        rest, self._server, self._rest = self._rest, None, None
        await asyncio.to_thread(rest.stop)

    async def pause(self) -> None:
        """Stop making blocks, and send every l2Book and bbo subscription the state of the last block once more.

        Then every client's books can be compared with the hidden books exactly.
        """
        self._resumed.clear()
        encoded: dict[wire.Subscription, bytes] = {}
        for topic, members in list(self._topics.items()):
            if topic.type != "trades":
                for client in list(members):
                    self._push(topic, client, encoded)

    def resume(self) -> None:
        """Go on after `pause()`."""
        self._resumed.set()

    async def block(self) -> Block:
        """Make one block and publish it. For `manual` venues, and while paused."""
        return self._publish(self.market.step())

    def cut(self, code: int | None = None) -> None:
        """End every connection: without a close frame, or with this close code (the public venue's is 1000)."""
        for client in list(self._clients):
            client.cut(code)

    async def _make_blocks(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        try:
            while True:
                before_ms = self.market.block.time_ms
                block = await self.block()
                # Late blocks are made up for only by not waiting: never by a burst.
                due_s = max(due_s + (block.time_ms - before_ms) / 1000 / self._speed, loop.time())
                await asyncio.sleep(due_s - loop.time())
                await self._resumed.wait()
        except Exception:
            log.exception("the venue makes no more blocks")
            raise

    def _publish(self, block: Block) -> Block:
        """Send what this block changed, each message encoded once for all who are subscribed to the same."""
        self.stats.blocks += 1
        encoded: dict[wire.Subscription, bytes] = {}
        for topic, members in list(self._topics.items()):
            period_ms = 0
            if topic.type == "l2Book":
                period_ms = _FAST_MS if topic.fast else _SLOW_MS
            elif topic.coin not in (block.trades if topic.type == "trades" else block.bbo_changed):
                continue
            for client, last_ms in list(members.items()):
                if block.time_ms - last_ms >= period_ms:
                    self._push(topic, client, encoded)
        return block

    def _push(self, topic: wire.Subscription, client: _Client, encoded: dict[wire.Subscription, bytes]) -> None:
        """Send a client the last block's message of a topic. encoded: the messages of this block made so far."""
        if topic not in encoded:
            coin, block = self.market.coins[topic.coin], self.market.block
            book = block.books[topic.coin]
            if topic.type == "trades":
                data: object = wire.trades(coin, block.trades[topic.coin])
            elif topic.type == "bbo":
                data = wire.bbo(coin, block.time_ms, book)
            else:
                data = wire.l2_book(coin, block.time_ms, book, topic.n_sig_figs, topic.mantissa, topic.fast)
            encoded[topic] = self._encode(topic.type, data)
        if client in self._topics.get(topic, ()):
            self._topics[topic][client] = self.market.block.time_ms
            client.send(encoded[topic])

    def _accept(self, request: WSUpgradeRequest) -> _Client | None:
        running = self._server is not None and self._server.is_serving()
        return _Client(self) if running and request.path.split(b"?")[0] == b"/ws" else None

    def _joined(self, client: _Client) -> None:
        self.stats.connections += 1
        self._clients.add(client)
        if self._greeting:
            client.send(_GREETING)

    def _left(self, client: _Client) -> None:
        self._clients.discard(client)
        for topic in [topic for topic, members in self._topics.items() if client in members]:
            self._forget(topic, client)

    def _forget(self, topic: wire.Subscription, client: _Client) -> None:
        del self._topics[topic][client]
        if not self._topics[topic]:
            del self._topics[topic]

    def _received(self, client: _Client, message: bytes) -> None:
        if client not in self._clients:
            return
        self.stats.messages_received += 1
        try:
            text = message.decode()
        except UnicodeDecodeError:
            raise WSProtocolError(WSCloseCode.INVALID_TEXT, "not UTF-8") from None
        try:
            request = orjson.loads(message)
            if not isinstance(request, dict):
                raise wire.Malformed("not an object")
            match request.get("method"):
                case "ping":
                    self.stats.pings += 1
                    client.send(self._encode("pong"))
                case "subscribe" | "unsubscribe" as method:
                    self._change_subscription(client, method, request.get("subscription"))
                case "post":
                    self._post(client, request)
                case _:
                    raise wire.Malformed("no such method")
        except (orjson.JSONDecodeError, wire.Malformed):
            self._send_error(client, f"Error parsing JSON into valid websocket request: {text}")

    def _send_error(self, client: _Client, text: str) -> None:
        self.stats.errors += 1
        client.send(self._encode("error", text))

    def _change_subscription(self, client: _Client, method: str, sent: object) -> None:
        try:
            topic, echo = wire.parse_subscription(sent, self.market.coins)
        except wire.InvalidSubscription:
            self._send_error(client, f"Invalid subscription {orjson.dumps(sent).decode()}")
            return
        subscribed = client in self._topics.get(topic, ())
        if subscribed == (method == "subscribe"):
            self._send_error(client, f"Already {method}d: {orjson.dumps(echo).decode()}")
            return
        client.send(self._encode("subscriptionResponse", {"method": method, "subscription": echo}))
        if method == "unsubscribe":
            self.stats.unsubscribes += 1
            self._forget(topic, client)
            return
        self.stats.subscribes += 1
        self._topics.setdefault(topic, {})[client] = self.market.block.time_ms
        if topic.type != "trades":
            self._push(topic, client, {})
        elif fills := self.market.recent_trades(topic.coin):
            client.send(self._encode("trades", wire.trades(self.market.coins[topic.coin], fills)))

    def _post(self, client: _Client, request: wire.JsonObject) -> None:
        post_id, inner = request.get("id"), request.get("request")
        if type(post_id) is not int or post_id < 0 or not isinstance(inner, dict):
            raise wire.Malformed("a post needs an id and a request")
        kind, payload = inner.get("type"), inner.get("payload")
        if kind not in ("info", "action") or not isinstance(payload, dict):
            raise wire.Malformed("a post is info or action, with a payload")
        self.stats.posts += 1
        response: wire.JsonObject
        try:
            if kind == "action":
                raise InfoRefused(HTTPStatus.NOT_IMPLEMENTED, "this venue takes no actions yet")
            data = answer(self.market, payload)
            response = {"type": "info", "payload": {"type": payload["type"], "data": data}}
        except InfoRefused as refused:
            response = {"type": "error", "payload": f"{refused.status.value} {refused.text or refused.status.phrase}"}
        client.send(self._encode("post", {"id": post_id, "response": response}))


async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    http_port: int = 0,
    seed: int = 7,
    speed: float = 1.0,
    coins: tuple[str, ...] = DEFAULT_COINS,
    on_ready: Callable[[Endpoints], object] | None = None,
) -> None:
    """Run a venue until cancelled. on_ready is called once, with its endpoints, when it listens."""
    async with Venue(seed, speed, coins, host, port, http_port) as venue:
        if on_ready is not None:
            on_ready(venue.endpoints)
        await asyncio.get_running_loop().create_future()
