"""Foreign clients of the venue over loopback: `websockets` and `aiohttp`, which share no code with it or with hlconn.

Client and venue share one event loop, and loopback delivers at once: `settle` is how a test sees that nothing comes.
"""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import websockets
from sim.raw import instruments_of

from hlconn import Signer
from hlconn.sim import Party, Venue

TIMEOUT_S = 5.0
GREETING = "Websocket connection established."


async def settle() -> None:
    """Let everything arrive that is under way."""
    for _ in range(40):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what tells nobody when it happens."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0)


class Peer:
    """A WebSocket client: JSON out, JSON in, nothing waited for longer than TIMEOUT_S."""

    def __init__(self, ws: websockets.ClientConnection) -> None:
        self.ws = ws
        self.end: websockets.ConnectionClosed | None = None
        self._inbox: deque[str] = deque()
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                self._inbox.append(await self.ws.recv(decode=True))
                self._news.set()
        except websockets.ConnectionClosed as closed:
            self.end = closed
            self._news.set()

    async def text(self) -> str:
        """The next message. Raises ConnectionClosed when there is none any more."""
        async with asyncio.timeout(TIMEOUT_S):
            while not self._inbox:
                if self.end is not None:
                    raise self.end
                self._news.clear()
                await self._news.wait()
        return self._inbox.popleft()

    async def next(self, channel: str | None = None) -> Any:
        """The next message; with a channel, that channel's next data, skipping others."""
        while True:
            message = json.loads(await self.text())
            if channel is None:
                return message
            if message["channel"] == channel:
                return message["data"]

    async def send(self, **message: object) -> None:
        await self.ws.send(json.dumps(message))

    async def subscribe(self, **subscription: object) -> Any:
        await self.send(method="subscribe", subscription=subscription)
        return await self.next("subscriptionResponse")

    async def closing(self) -> tuple[int, str] | None:
        """Code and reason of the close frame that comes next, None for an end without one."""
        await self.ended()
        assert self.end is not None
        received = self.end.rcvd
        return None if received is None else (received.code, received.reason)

    async def ended(self) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.shield(self._reader)

    async def drain(self) -> list[Any]:
        """Everything that was sent so far: up to the answer to a ping."""
        await self.send(method="ping")
        messages = []
        while (message := await self.next()) != {"channel": "pong"}:
            messages.append(message)
        return messages

    async def so_far(self) -> list[Any]:
        """Everything that has come so far, without asking for anything."""
        await settle()
        messages = [json.loads(text) for text in self._inbox]
        self._inbox.clear()
        return messages

    async def channels(self) -> list[str]:
        return [message["channel"] for message in await self.so_far()]


@asynccontextmanager
async def peer_of(venue: Venue, **options: Any) -> AsyncIterator[Peer]:
    if venue.ws_url.startswith("wss:") and "ssl" not in options:
        options["ssl"] = venue.client_context()
    async with websockets.connect(venue.ws_url, **{"close_timeout": 1, **options}) as ws:
        peer = Peer(ws)
        assert await peer.text() == GREETING
        try:
            yield peer
        finally:
            await ws.close()
            await peer.ended()


class Reply(NamedTuple):
    status: int
    content_type: str
    text: str


async def post(
    venue: Venue,
    body: object,
    path: str = "/info",
    content_type: str = "application/json",
    context: ssl.SSLContext | None = None,
) -> Reply:
    """One HTTP request, on a connection of its own. body: bytes, or a JSON value."""
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session:
        headers = {"Content-Type": content_type}
        options: dict[str, Any] = {} if context is None else {"ssl": context}
        async with session.post(venue.url + path, data=data, headers=headers, **options) as response:
            return Reply(response.status, response.content_type, await response.text())


async def info(venue: Venue, **request: object) -> Any:
    reply = await post(venue, request)
    assert reply.status == 200, reply
    return json.loads(reply.text)


class Hand:
    """Signs for one account. `post` is a WebSocket message, `payload` the body of `POST /exchange`."""

    def __init__(self, venue: Venue, party: Party) -> None:
        self.venue, self.party = venue, party
        self.instruments = instruments_of(venue)
        self._signer = Signer(party.key, "testnet")
        self._signed = 0

    def nonce(self) -> int:
        self._signed += 1
        return int(self.venue.now_ms()) + self._signed

    def payload(self, act: Any, nonce: int | None = None) -> bytes:
        return self._signer.sign(act, self.nonce() if nonce is None else nonce).payload

    def post(self, post_id: int, act: Any, nonce: int | None = None) -> str:
        return self._signer.sign(act, self.nonce() if nonce is None else nonce).post(post_id).decode()

    def open_orders(self) -> list[Any]:
        orders: list[Any] = self.venue.info(type="openOrders", user=self.party.address)
        return orders


def in_venue(**options: Any) -> Callable[[Callable[[Venue, Peer], Awaitable[None]]], Callable[[], None]]:
    """Run the decorated coroutine function with a fresh stepped venue and one peer."""

    def decorate(body: Callable[[Venue, Peer], Awaitable[None]]) -> Callable[[], None]:
        def test() -> None:
            async def run() -> None:
                async with Venue(**{"stepped": True, **options}) as venue, peer_of(venue) as peer:
                    await body(venue, peer)

            asyncio.run(run())

        test.__name__, test.__doc__ = body.__name__, body.__doc__
        return test

    return decorate


def in_quiet_venue(**options: Any) -> Callable[[Callable[[Venue, Peer], Awaitable[None]]], Callable[[], None]]:
    """The same without traders, so that books hold what a test put there."""
    return in_venue(**{"traders": False, "debug": True, **options})
