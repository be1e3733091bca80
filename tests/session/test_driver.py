"""The driver against a real socket on loopback: a venue of forty lines that can misbehave on purpose."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import logging
import socket
import ssl
import struct
import sys
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import orjson
import picows
import pytest
import trustme
import uvloop

from hlconn.config import Endpoints, Network, SessionConfig
from hlconn.errors import Closed, DecodeError, LinkDown, Throttled
from hlconn.session.driver import Driver, listener_class
from hlconn.session.link import LinkState, SubState
from hlconn.session.pylistener import FeedListener

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
BTC = {"type": "l2Book", "coin": "BTC"}
ETH = {"type": "l2Book", "coin": "ETH"}
CONFIG: dict[str, Any] = {"backoff_min_s": 0.01, "backoff_max_s": 0.02, "sockets_per_minute": 1000}
STACKS = ["asyncio", "asyncio without aiofastnet", "uvloop"]


def run(main: Coroutine[Any, Any, None], stack: str = "asyncio") -> None:
    """Run, then let the collector complain about sockets that nobody closed: warnings are errors."""
    factory = uvloop.new_event_loop if stack == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(main, 10.0))
    gc.collect()


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "asyncio without aiofastnet":
        monkeypatch.setattr("picows.api._HAS_AIOFASTNET", False)
    return str(request.param)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack(">H", len(payload))
    return bytes([opcode | (0x80 if fin else 0)]) + size + payload


def book(coin: str) -> bytes:
    return orjson.dumps({"channel": "l2Book", "data": {"coin": coin}})


class Peer:
    """The venue's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.subscribed: list[Any] = []

    async def accept(self, *frames: bytes) -> None:
        """frames: in one write with the end of the handshake."""
        request = await self.reader.readuntil(b"\r\n\r\n")
        key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        answer = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + answer + b"\r\n\r\n" + b"".join(frames)
        )

    async def receive(self) -> tuple[int, bytes]:
        head = await self.reader.readexactly(2)
        size = head[1] & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", await self.reader.readexactly(2))
        mask = await self.reader.readexactly(4)
        payload = await self.reader.readexactly(size)
        return head[0] & 15, bytes(b ^ mask[i % 4] for i, b in enumerate(payload))

    def send(self, *frames: bytes) -> None:
        """In one write: what picows sees in one buffer."""
        self.writer.write(b"".join(frames))

    async def serve(self) -> None:
        """Answer as the venue does until the socket ends."""
        while True:
            opcode, payload = await self.receive()
            if opcode == CLOSE:
                self.send(frame(CLOSE, payload))
                return
            await self.answer(opcode, payload)

    async def answer(self, opcode: int, payload: bytes) -> None:
        if opcode != TEXT:
            return
        message = orjson.loads(payload)
        if message["method"] == "ping":
            self.send(frame(TEXT, b'{"channel":"pong"}'))
            return
        if message["method"] == "post":
            return
        subscription = message["subscription"]
        self.subscribed.append(subscription)
        if subscription["coin"] == "NOPE":
            text = "Invalid subscription " + orjson.dumps(subscription).decode()
            self.send(frame(TEXT, orjson.dumps({"channel": "error", "data": text})))
            return
        self.send(
            frame(TEXT, orjson.dumps({"channel": "subscriptionResponse", "data": message})),
            frame(TEXT, book(subscription["coin"])),
        )


async def serve(peer: Peer) -> None:
    await peer.accept()
    await peer.serve()


Script = Callable[[Peer], Awaitable[None]]


class Venue:
    """Connection n is handled by scripts[n], the last script handles all further ones."""

    def __init__(self, *scripts: Script, ca: trustme.CA | None = None, port: int = 0) -> None:
        self.scripts = scripts or (serve,)
        self.port = port
        self.count = 0
        self.tasks: set[asyncio.Task[Any] | None] = set()
        self.peers: list[Peer] = []
        self.context: ssl.SSLContext | None = None
        if ca is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ca.issue_cert("127.0.0.1").configure_cert(self.context)

    async def __aenter__(self) -> Venue:
        self.server = await asyncio.start_server(self.handle, "127.0.0.1", self.port, ssl=self.context)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for task in self.tasks:
            assert task is not None
            task.cancel()
        await until(lambda: self.open == 0)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.scripts[min(self.count, len(self.scripts) - 1)]
        self.count += 1
        task = asyncio.current_task()
        self.tasks.add(task)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            with suppress(asyncio.IncompleteReadError, OSError, RuntimeError, asyncio.CancelledError):
                await script(peer)  # uvloop says RuntimeError when one writes to a lost connection
        finally:
            writer.transport.abort()
            self.tasks.discard(task)

    @property
    def open(self) -> int:
        return len(self.tasks)

    @property
    def endpoints(self) -> Endpoints:
        scheme = "ws" if self.context is None else "wss"
        return Endpoints("http://127.0.0.1:1", f"{scheme}://127.0.0.1:{self.port}/ws", Network.LOCAL)


class FakeFeed:
    """Keeps what happened, in order, in a log that it shares with the driver's callbacks."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.wants_burst_end = False
        self.link = 0
        self.failed: tuple[str, str] | None = None
        self.raw: Callable[[str, bytes], None] | None = None

    def on_raw(self, callback: Callable[[str, bytes], None]) -> None:
        self.raw = callback

    def on_message(self, message: memoryview, recv_ns: int = 0, link: int = 0) -> None:
        self.failed, self.link = None, link
        assert 0 <= time.monotonic_ns() - recv_ns < 5e9
        try:
            value = orjson.loads(message)
        except ValueError:
            raise DecodeError("", 0, bytes(message), "not JSON") from None
        if value["channel"] == "l2Book":
            coin = value["data"]["coin"]
            self.log.append(("data", coin))
            if coin == "RAISE":
                self.failed = ("l2Book", coin)
                raise ZeroDivisionError("a callback's own")
        else:
            assert self.raw is not None
            self.raw(value["channel"], bytes(message))

    def on_burst_end(self) -> None:
        self.log.append(("burst end",))

    def flow(self, subscription: Mapping[str, Any], link: int) -> int:
        return -1

    def mark_stale(self, reason: str) -> None:
        self.log.append(("stale", reason))

    def mark_silent(self, now_ns: int, slow_ns: int, fast_ns: int) -> None:
        self.log.append(("silent", slow_ns, fast_ns))


class Harness:
    """A driver whose every callback goes to one log. told: also what is up and down, else the feed is told."""

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        context: ssl.SSLContext | None = None,
        told: bool = False,
        feed: FakeFeed | None = None,
        listener: type[Any] = FeedListener,
        **settings: Any,
    ) -> None:
        self.feed = feed or FakeFeed()
        self.told = told
        self.timings: list[tuple[str, bool]] = []
        self.log = self.feed.log
        self.errors: list[BaseException] = []
        config = SessionConfig(**{**CONFIG, "ssl_context": context, **settings})
        self.driver = Driver(
            endpoints,
            config,
            self.feed,
            on_state=self.on_state,
            on_control=lambda channel, message: self.log.append(("control", channel, message)),
            on_refused=lambda subscription, message: self.log.append(("refused", subscription, message)),
            on_bad_message=lambda exc, _: self.log.append(("bad", str(exc))),
            on_callback_error=self.errors.append,
            on_post_lost=lambda post_id, reason: self.log.append(("lost", post_id, reason)),
            on_timing=lambda what, seconds: self.timings.append((what, 0 <= seconds < 5)),
            on_up=lambda subscription, *_: self.log.append(("up", subscription)) if self.told else None,
            on_down=self.on_down if told else None,
            listener=listener,
        )

    def on_down(self, subscription: dict[str, Any], link: int, reason: str, recv_ns: int) -> None:
        assert abs(time.monotonic_ns() - recv_ns) < 5e9
        self.log.append(("down", subscription, reason))

    def on_state(self, state: LinkState, reason: str, recv_ns: int) -> None:
        assert abs(time.monotonic_ns() - recv_ns) < 5e9
        self.log.append((state.value, reason))

    async def __aenter__(self) -> Harness:
        await self.driver.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.driver.close()
        assert_nothing_left(self.driver)

    def of(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [entry for entry in self.log if entry[0] in kinds]

    async def seen(self, *entry: Any, times: int = 1) -> None:
        await until(lambda: self.log.count(entry) >= times, lambda: f"{entry} not in {self.log}")


def assert_nothing_left(driver: Driver) -> None:
    assert driver.state is LinkState.CLOSED
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("hlconn")] == []
    assert driver._connections == {}
    assert driver._timer is None
    assert driver._tick_timer is None


async def until(true: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + 5.0
    while not true():
        assert time.monotonic() < deadline, what()
        await asyncio.sleep(0.002)


async def silent(peer: Peer) -> None:
    await peer.reader.read()


async def silent_after_upgrade(peer: Peer) -> None:
    await peer.accept()
    await peer.reader.read()


# Connecting and reconnecting.


@pytest.mark.parametrize("tls", [False, True])
def test_connect_subscribe_and_read(stack: str, tls: bool, ca: trustme.CA) -> None:
    async def main() -> None:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        async with Venue(ca=ca if tls else None) as venue:
            harness = Harness(venue.endpoints, context=context)
            harness.driver.subscribe(BTC)
            async with harness:
                await harness.driver.wait_live(5.0)
                sock = next(iter(harness.driver._connections.values())).sock
                assert sock is not None
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                harness.driver.subscribe(ETH)
                await harness.seen("data", "ETH")
                assert harness.log[:4] == [
                    ("connecting", "try 1"),
                    ("live", "connected"),
                    ("data", "BTC"),
                    ("data", "ETH"),
                ]
                assert harness.driver.link.subscriptions == [(BTC, SubState.LIVE), (ETH, SubState.LIVE)]
                harness.driver.unsubscribe(BTC)
                await harness.driver.wait_live(0.0)
            assert harness.log[-2:] == [("stale", "closed by us"), ("closed", "closed by us")]
            await until(lambda: venue.open == 0)
        assert venue.count == 1

    run(main(), stack)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (frame(CLOSE, b"\x03\xe8Expired"), "closed by the venue: 1000 Expired"),
        (frame(CLOSE, struct.pack(">H", 4001)), "closed by the venue: 4001"),
        (frame(CLOSE, b""), "closed by the venue, without a code"),
        (b"", "connection lost without a close frame"),
    ],
)
def test_a_cut_marks_the_books_stale_before_it_is_told_and_everything_is_subscribed_again(
    stack: str, tls: bool, ca: trustme.CA, last: bytes, reason: str
) -> None:
    async def cut(peer: Peer) -> None:
        await peer.accept()
        await peer.answer(*await peer.receive())
        await peer.answer(*await peer.receive())
        if last:
            # What stands behind the close frame is of a dead connection: it must not make a book look fresh.
            peer.send(last, frame(TEXT, book("GHOST")))
            assert (await peer.receive())[0] == CLOSE
        else:
            await peer.writer.drain()

    async def main() -> None:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        async with Venue(cut, serve, ca=ca if tls else None) as venue:
            harness = Harness(venue.endpoints, context=context)
            harness.driver.subscribe(BTC)
            harness.driver.subscribe(ETH)
            async with harness:
                await harness.seen("data", "ETH", times=2)
                assert harness.log == [
                    ("connecting", "try 1"),
                    ("live", "connected"),
                    ("data", "BTC"),
                    ("data", "ETH"),
                    ("stale", reason),
                    ("waiting", reason),
                    ("connecting", "try 2"),
                    ("live", "connected"),
                    ("data", "BTC"),
                    ("data", "ETH"),
                ]

    run(main(), stack)


def test_a_half_open_connection_is_found_out_and_replaced(stack: str) -> None:
    async def deaf(peer: Peer) -> None:
        await peer.accept()
        while True:  # data flows, but nothing is heard
            peer.send(frame(TEXT, book("BTC")))
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with (
            Venue(deaf, serve) as venue,
            Harness(venue.endpoints, ping_interval_s=0.05, pong_timeout_s=0.05) as harness,
        ):
            await harness.seen("live", "connected", times=2)
            assert ("stale", "no pong within 0.05 s of a ping") in harness.log
            await until(lambda: harness.driver.link.counters.pongs > 2)
            assert harness.driver.state is LinkState.LIVE

    run(main(), stack)


def test_a_server_that_never_answers_the_handshake_is_left_behind(stack: str) -> None:
    async def main() -> None:
        async with Venue(silent, serve) as venue, Harness(venue.endpoints, connect_timeout_s=0.1) as harness:
            await harness.driver.wait_live(5.0)
            assert ("waiting", "no connection within 0.1 s") in harness.log
            await until(lambda: venue.open == 1)

    run(main(), stack)


def test_a_server_that_hangs_up_during_the_handshake_is_tried_again(stack: str) -> None:
    async def hang_up(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")

    async def accept_and_hang_up(peer: Peer) -> None:
        await peer.accept()
        await peer.writer.drain()

    async def main() -> None:
        async with Venue(hang_up, accept_and_hang_up, serve) as venue, Harness(venue.endpoints) as harness:
            await until(lambda: venue.count == 3)
            await harness.driver.wait_live(5.0)
            assert len(harness.of("waiting")) == 2

    run(main(), stack)


def test_a_refused_port_is_tried_until_the_server_appears(stack: str) -> None:
    async def main() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        venue = Venue(port=port)
        async with Harness(venue.endpoints) as harness:
            with pytest.raises(LinkDown, match=f"ws://127.0.0.1:{port}/ws within 0.1 s") as caught:
                await harness.driver.wait_live(0.1)
            assert isinstance(caught.value.cause, ConnectionRefusedError)
            assert harness.driver.link.counters.connects == 0
            async with venue:
                await harness.driver.wait_live(5.0)
                assert harness.of("stale") == [], "never live before, so never fresh"

    run(main(), stack)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_an_answer_that_is_no_upgrade_is_a_failed_try_and_no_redirect_is_followed(answer: bytes) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.send(answer)
        await peer.reader.read()

    async def main() -> None:
        async with Venue(refuse) as venue, Harness(venue.endpoints) as harness:
            await until(lambda: venue.count >= 3)
            with pytest.raises(LinkDown) as caught:
                await harness.driver.wait_live(0.0)
            assert isinstance(caught.value.cause, picows.WSHandshakeError)

    run(main())


def test_a_certificate_of_an_unknown_authority_is_refused(stack: str, ca: trustme.CA) -> None:
    async def main() -> None:
        async with Venue(ca=ca) as venue, Harness(venue.endpoints) as harness:
            await until(lambda: len(harness.of("waiting")) > 1)
            with pytest.raises(LinkDown, match="certificate") as caught:
                await harness.driver.wait_live(0.0)
            assert isinstance(caught.value.cause, ssl.SSLCertVerificationError)
            assert harness.driver.link.counters.connects == 0

    run(main(), stack)


def test_the_next_address_of_a_name_is_tried(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Venue() as venue:
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (1, venue.port)]

            resolve = asyncio.get_running_loop().getaddrinfo

            async def getaddrinfo(*args: Any, **options: Any) -> Any:
                return await resolve(*args, **options) if "family" in options else found  # uvloop's own question

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
            async with Harness(venue.endpoints) as harness:
                await harness.driver.wait_live(5.0)
                assert harness.of("waiting") == []
            monkeypatch.undo()

    run(main(), stack)


def test_through_an_http_proxy(stack: str, ca: trustme.CA) -> None:
    asked: list[bytes] = []

    async def main() -> None:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        async with Venue(ca=ca) as venue:

            async def tunnel(peer: Peer) -> None:
                asked.append((await peer.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
                reader, writer = await asyncio.open_connection("127.0.0.1", venue.port)
                peer.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

                async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                    with suppress(ConnectionError):
                        while data := await source.read(4096):
                            sink.write(data)
                    sink.close()

                await asyncio.gather(pump(reader, peer.writer), pump(peer.reader, writer))

            async with Venue(tunnel) as proxy:
                harness = Harness(venue.endpoints, context=context, proxy_url=f"http://127.0.0.1:{proxy.port}")
                harness.driver.subscribe(BTC)
                async with harness:
                    await harness.seen("data", "BTC")
            assert asked == [f"CONNECT 127.0.0.1:{venue.port} HTTP/1.1".encode()]

    run(main(), stack)


# Frames.


def test_fragments_are_joined_also_around_a_ping(stack: str) -> None:
    async def main() -> None:
        pongs: list[tuple[int, bytes]] = []

        async def fragments(peer: Peer) -> None:
            await peer.accept()
            message = book("BTC")
            peer.send(frame(TEXT, message[:5], fin=False), frame(0, message[5:9], fin=False))
            peer.send(frame(PING, b"hello"), frame(PONG, b"unasked"), frame(0, b"", fin=False))
            await peer.writer.drain()
            pongs.append(await peer.receive())
            peer.send(frame(0, message[9:]), frame(TEXT, book("ETH")))
            await peer.serve()

        async with Venue(fragments) as venue, Harness(venue.endpoints) as harness:
            await harness.seen("data", "ETH")
            assert harness.of("data", "bad") == [("data", "BTC"), ("data", "ETH")]
            assert pongs == [(PONG, b"hello")]

    run(main(), stack)


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        ([frame(0, b"x")], "1002 a continuation without a message"),
        ([frame(TEXT, b"x", fin=False), frame(TEXT, b"y")], "1002 a new message inside a fragmented one"),
        ([frame(TEXT, b"x" * 90, fin=False), frame(0, b"x" * 90)], "1009 fragmented message of more than 100 bytes"),
    ],
)
def test_a_broken_rule_of_the_protocol_ends_the_connection(stack: str, frames: list[bytes], what: str) -> None:
    async def main() -> None:
        async def broken(peer: Peer) -> None:
            await peer.accept()
            await peer.receive()
            peer.send(*frames, frame(TEXT, book("GHOST")))
            await peer.reader.read()

        async with (
            Venue(broken, silent_after_upgrade) as venue,
            Harness(venue.endpoints, max_frame_bytes=100) as harness,
        ):
            harness.driver.subscribe(BTC)
            await harness.seen("live", "connected", times=2)
            assert ("stale", f"closed by us: {what}") in harness.log
            assert len(harness.of("bad")) == 1
            assert what[5:] in harness.of("bad")[0][1]
            assert harness.of("data") == []

    run(main(), stack)


def test_what_picows_finds_wrong_is_told_too() -> None:
    async def too_big(peer: Peer) -> None:
        await peer.accept()
        peer.send(frame(TEXT, b"x" * 120))
        await peer.reader.read()

    async def main() -> None:
        async with Venue(too_big, serve) as venue, Harness(venue.endpoints, max_frame_bytes=100) as harness:
            await harness.seen("live", "connected", times=2)
            assert harness.of("waiting")[0][1].startswith("closed by us: 1009 ")

    run(main())


def test_the_end_of_a_burst_is_told_to_a_feed_that_asks() -> None:
    async def bursts(peer: Peer) -> None:
        await peer.accept()
        peer.send(frame(TEXT, book("A")), frame(TEXT, book("B")))
        await peer.serve()

    async def main() -> None:
        async with Venue(bursts) as venue:
            harness = Harness(venue.endpoints)
            harness.feed.wants_burst_end = True
            async with harness:
                await harness.seen("burst end")
                assert harness.of("data", "burst end") == [("data", "A"), ("data", "B"), ("burst end",)]

    run(main())


def test_messages_that_nobody_else_reads_go_to_on_control() -> None:
    async def posts(peer: Peer) -> None:
        await peer.accept()
        peer.send(frame(TEXT, b'{"channel":"post","data":{}}'))
        await peer.serve()

    async def main() -> None:
        async with Venue(posts) as venue, Harness(venue.endpoints) as harness:
            await harness.seen("control", "post", b'{"channel":"post","data":{}}')

    run(main())


def test_acknowledgements_and_refused_posts_are_passed_on() -> None:
    refused = b'{"channel":"error","data":"too many pending post requests id=7"}'

    async def refuses(peer: Peer) -> None:
        await peer.accept()
        await peer.answer(*await peer.receive())
        peer.send(frame(TEXT, refused))
        await peer.serve()

    async def main() -> None:
        async with Venue(refuses) as venue:
            harness = Harness(venue.endpoints)
            harness.driver._on_subscribed = lambda subscription, _: harness.log.append(("subscribed", subscription))
            harness.driver.subscribe(BTC)
            async with harness:
                await harness.seen("control", "error", refused)
                await harness.seen("subscribed", BTC)

    run(main())


def test_a_refused_subscription_is_told_once_and_not_sent_again() -> None:
    async def main() -> None:
        async with Venue() as venue, Harness(venue.endpoints) as harness:
            nope = {"type": "l2Book", "coin": "NOPE"}
            harness.driver.subscribe(nope)
            await harness.seen("refused", nope, 'Invalid subscription {"type":"l2Book","coin":"NOPE"}')
            harness.driver.subscribe(BTC)
            await harness.seen("data", "BTC")
            venue.peers[0].writer.transport.abort()
            await harness.seen("data", "BTC", times=2)
            assert len(harness.of("refused")) == 1

    run(main())


# Posts.


def test_posts_are_answered_or_lost_and_none_goes_out_without_a_link(stack: str) -> None:
    answer = b'{"channel":"post","data":{"id":1,"response":{}}}'

    async def posts(peer: Peer) -> None:
        await peer.accept()
        await peer.receive()
        peer.send(frame(TEXT, answer), frame(TEXT, answer))
        for _ in range(2):
            await peer.receive()
        peer.send(frame(CLOSE, b""))
        await peer.reader.read()

    async def main() -> None:
        async with Venue(posts) as venue:
            harness = Harness(venue.endpoints, backoff_min_s=5.0, backoff_max_s=5.0)
            with pytest.raises(LinkDown, match="idle"):
                harness.driver.post(1, b"p", 1.0)
            async with harness:
                await harness.driver.wait_live(5.0)
                harness.driver.post(1, b'{"method":"post","id":1}', 5.0)
                await harness.seen("control", "post", answer, times=2)
                assert harness.timings == [("post", True)]
                harness.driver.post(2, b'{"method":"post","id":2}', 0.01)
                await harness.seen("lost", 2, "no answer in time")
                harness.driver.post(3, b'{"method":"post","id":3}', 5.0)
                reason = "closed by the venue, without a code"
                await harness.seen("waiting", reason)
                assert harness.of("lost")[1:] == [("lost", 3, f"the link went down: {reason}")]
                assert harness.log.index(("lost", 3, f"the link went down: {reason}")) < harness.log.index(
                    ("waiting", reason)
                )
                with pytest.raises(LinkDown, match="waiting"):
                    harness.driver.post(4, b"p", 1.0)
            with pytest.raises(Closed):
                harness.driver.post(5, b"p", 1.0)

    run(main(), stack)


class Breaks:
    """A transport that cannot write any more; whatever else it is asked for goes to the true one."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def send(self, *_: object) -> None:
        raise MemoryError("no room for a frame")


async def writing_fails(connection: Any, _: Peer) -> None:
    connection.transport = Breaks(connection.transport)


async def the_socket_is_cut(connection: Any, _: Peer) -> None:
    connection.transport.disconnect(graceful=False)


async def goodbye_was_said(connection: Any, _: Peer) -> None:
    connection.transport.send_close(picows.WSCloseCode.OK)  # picows drops, without a word, what is sent after it


async def the_venue_is_gone(_: Any, peer: Peer) -> None:
    peer.writer.transport.abort()  # of which this side knows nothing yet


async def nothing(*_: object) -> None:
    """Only the end of the session is left to lose them."""


@pytest.mark.parametrize("happens", [writing_fails, the_socket_is_cut, goodbye_was_said, the_venue_is_gone, nothing])
def test_each_post_that_went_out_is_lost_once_whatever_ends_its_socket(
    happens: Callable[[Any, Peer], Awaitable[None]], stack: str
) -> None:
    async def main() -> None:
        async with Venue() as venue:
            harness = Harness(venue.endpoints)
            driver = harness.driver
            went_out = [1]
            async with harness:
                await driver.wait_live(5.0)
                driver.post(1, b'{"method":"post","id":1}', 60.0)
                await happens(driver._connections[0, 1], venue.peers[0])
                for post_id in (2, 3):
                    with suppress(LinkDown):
                        driver.post(post_id, b'{"method":"post"}', 60.0)
                        went_out.append(post_id)
                assert harness.of("lost") == [], "not while it is being posted"
                if happens is not nothing:
                    await until(lambda: driver.link.counters.connects == 2, lambda: harness.log)
                    assert [entry[1] for entry in harness.of("lost")] == went_out
                    driver.post(4, b'{"method":"post","id":4}', 60.0)
                    went_out.append(4)
                    await until(lambda: len(venue.peers) == 2)
            assert [entry[1] for entry in harness.of("lost")] == went_out
            assert harness.of("control") == []
            assert harness.errors == []
            if happens is writing_fails:
                assert went_out == [1, 2, 3, 4], "something of it may have left"

    run(main(), stack)


def test_a_write_that_fails_ends_its_socket_and_everything_is_sent_again_on_the_next() -> None:
    async def main() -> None:
        async with Venue() as venue, Harness(venue.endpoints) as harness:
            await harness.driver.wait_live(5.0)
            connection = harness.driver._connections[0, 1]
            connection.transport = Breaks(connection.transport)  # type: ignore[assignment]
            harness.driver.subscribe(BTC)
            harness.driver.subscribe(ETH)
            await harness.seen("waiting", "writing failed: MemoryError('no room for a frame')")
            await harness.seen("data", "ETH")
            assert venue.peers[1].subscribed == [BTC, ETH]

    run(main())


def test_a_post_beyond_the_budget_is_not_written() -> None:
    async def main() -> None:
        async with Venue() as venue, Harness(venue.endpoints, messages_per_minute=16, max_links=1) as harness:
            await harness.driver.wait_live(5.0)
            for post_id in range(11):  # four are kept for pings, one for a cancel
                harness.driver.post(post_id, b'{"method":"ping"}', 5.0)
            with pytest.raises(Throttled):
                harness.driver.post(11, b'{"method":"ping"}', 5.0)
            harness.driver.post(11, b'{"method":"ping"}', 5.0, urgent=True)

    run(main())


def test_what_is_wanted_again_before_it_was_given_up_adds_no_time_of_an_acknowledgement() -> None:
    async def main() -> None:
        async with Venue() as venue, Harness(venue.endpoints, messages_per_minute=16, max_links=1) as harness:
            await harness.driver.wait_live(5.0)
            harness.driver.subscribe(ETH)
            await harness.seen("data", "ETH")
            for post_id in range(10):  # with the subscription all that is not kept for others
                harness.driver.post(post_id, b'{"method":"ping"}', 5.0)
            harness.driver._on_subscribed = lambda subscription, _: harness.log.append(("subscribed", subscription))
            harness.driver.unsubscribe(ETH)
            harness.driver.subscribe(ETH)
            assert harness.of("subscribed") == [("subscribed", ETH)]
            assert harness.timings == [("ack", True)]

    run(main())


# The first read.


def test_what_comes_in_one_read_with_the_end_of_the_handshake_comes_after_the_link_is_live(stack: str) -> None:
    refused = b'{"channel":"error","data":"too many pending post requests id=7"}'

    async def eager(peer: Peer) -> None:
        await peer.accept(frame(TEXT, refused), frame(TEXT, book("BTC")))
        await peer.serve()

    async def main() -> None:
        async with Venue(eager) as venue, Harness(venue.endpoints) as harness:
            await harness.seen("data", "BTC")
            assert harness.log == [
                ("connecting", "try 1"),
                ("live", "connected"),
                ("control", "error", refused),
                ("data", "BTC"),
            ]

    run(main(), stack)


def test_a_connection_that_ends_in_one_read_with_its_handshake_was_live_and_is_replaced(stack: str) -> None:
    async def brief(peer: Peer) -> None:
        await peer.accept(frame(CLOSE, b""))
        await peer.reader.read()

    async def main() -> None:
        async with Venue(brief, serve) as venue, Harness(venue.endpoints) as harness:
            await harness.seen("live", "connected", times=2)
            await until(lambda: venue.open == 1)
            assert harness.driver.state is LinkState.LIVE

    run(main(), stack)


# Several links.


class LinkedFeed(FakeFeed):
    """A feed that says which link the message in hand came from."""

    def __init__(self) -> None:
        super().__init__()
        self.link = 0

    def on_message(self, message: memoryview, recv_ns: int = 0, link: int = 0) -> None:
        self.link = link
        super().on_message(message, recv_ns, link)


class Wrapped(FeedListener):
    """In the shape of the compiled one: it leaves all to its twin."""

    def __init__(self, feed: Any, twin: FeedListener) -> None:
        super().__init__(feed, twin.on_error, twin.on_disconnected, 1 << 20, twin.link, twin.on_connected)


@pytest.mark.parametrize("feed", [FakeFeed, LinkedFeed])
@pytest.mark.parametrize("listener", [FeedListener, Wrapped])
def test_each_of_several_links_hears_its_own_answers(
    stack: str, feed: type[FakeFeed], listener: type[FeedListener]
) -> None:
    async def main() -> None:
        async with Venue() as venue:
            harness = Harness(
                venue.endpoints, feed=feed(), listener=listener, told=True, subscriptions_per_link=1, max_links=2,
                ping_interval_s=0.03, pong_timeout_s=1.0,
            )  # fmt: skip
            harness.driver.subscribe(BTC)
            harness.driver.subscribe(ETH)
            async with harness:
                await harness.seen("data", "BTC")
                await harness.seen("data", "ETH")
                links = harness.driver.pool.links
                await until(lambda: all(link.counters.pongs > 2 for link in links.values()))
                assert harness.driver.pool.subscriptions == [(BTC, SubState.LIVE, 0), (ETH, SubState.LIVE, 1)]
                assert (venue.count, len(harness.of("live"))) == (2, 1), "the state is the main link's"
                number = next(n for n, peer in enumerate(venue.peers) if peer.subscribed == [ETH])
                venue.peers[number].writer.transport.abort()
                await until(lambda: ("up", ETH) in harness.log[harness.log.index(("data", "ETH")) + 2 :])
                assert harness.timings == [("ack", True), ("ack", True), ("reconnect", True), ("ack", True)]
                reason = "connection lost without a close frame"
                assert harness.of("down", "waiting", "stale") == [("down", ETH, reason)], "BTC goes on"

    run(main(), stack)


def test_what_is_down_and_lost_is_told_before_the_state() -> None:
    async def main() -> None:
        async with Venue() as venue:
            harness = Harness(venue.endpoints, told=True)
            harness.driver.subscribe(BTC)
            async with harness:
                await harness.seen("up", BTC)
            told = [entry for entry in harness.log if entry[0] not in ("data", "silent")]
            assert told == [
                ("connecting", "try 1"),
                ("live", "connected"),
                ("up", BTC),
                ("down", BTC, "closed by us"),
                ("closed", "closed by us"),
            ]

    run(main())


# Callbacks that raise or reach back.


def test_a_bad_message_and_a_callback_that_raises_are_told_apart_and_end_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def mixed(peer: Peer) -> None:
        await peer.accept()
        peer.send(frame(TEXT, book("RAISE")), frame(TEXT, b"not JSON"), frame(TEXT, book("BTC")))
        await peer.serve()

    async def main() -> None:
        async with Venue(mixed) as venue, Harness(venue.endpoints) as harness:
            await harness.seen("live", "connected")  # after the data, when those came in one read with the upgrade
            await harness.seen("data", "BTC")
            assert [type(exc) for exc in harness.errors] == [ZeroDivisionError]
            assert len(harness.of("bad")) == 1
            assert len(harness.of("live")) == 1

    run(main())
    assert "a callback's own" in caplog.text


def test_callbacks_of_the_driver_that_raise_do_not_break_it() -> None:
    async def main() -> None:
        def raises(*_: object) -> None:
            raise RuntimeError("mine")

        errors: list[BaseException] = []

        def on_error(exc: BaseException) -> None:
            errors.append(exc)
            raise exc

        async with Venue() as venue:
            config = SessionConfig(**CONFIG)
            driver = Driver(
                venue.endpoints, config, FakeFeed(), on_state=raises, on_control=raises, on_refused=raises,
                on_bad_message=raises, on_callback_error=on_error, listener=FeedListener,
            )  # fmt: skip
            driver.subscribe({"type": "l2Book", "coin": "NOPE"})
            await driver.start()
            await driver.wait_live(5.0)
            await until(lambda: driver.link.subscriptions[0][1] is SubState.FAILED)
            venue.peers[0].send(frame(TEXT, b"{"), frame(TEXT, b'{"channel":"post"}'))
            venue.peers[0].writer.close()
            await until(lambda: driver.link.counters.connects == 2)
            await driver.close()
            assert_nothing_left(driver)
            assert len(errors) >= 7

    run(main())


def test_a_callback_may_subscribe_and_close() -> None:
    async def main() -> None:
        async with Venue() as venue:
            harness = Harness(venue.endpoints)
            closing: list[asyncio.Task[None]] = []

            def on_state(state: LinkState, reason: str, recv_ns: int) -> None:
                harness.on_state(state, reason, recv_ns)
                if state is LinkState.LIVE:
                    harness.driver.subscribe(ETH)

            def on_message(message: memoryview, recv_ns: int = 0, link: int = 0) -> None:
                FakeFeed.on_message(harness.feed, message, recv_ns, link)
                if harness.log[-1] == ("data", "ETH"):
                    closing.append(asyncio.get_running_loop().create_task(harness.driver.close()))

            harness.driver._on_state = on_state
            harness.feed.on_message = on_message  # type: ignore[method-assign]
            harness.driver.subscribe(BTC)
            await harness.driver.start()
            await harness.seen("closed", "closed by us")
            await closing[0]
            assert harness.of("data") == [("data", "BTC"), ("data", "ETH")], "what was wanted first goes first"
            assert_nothing_left(harness.driver)

    run(main())


def test_silent_feeds_are_looked_for_only_while_live() -> None:
    async def main() -> None:
        async with Venue() as venue:
            harness = Harness(venue.endpoints, slow_period_s=2.0, fast_period_s=0.01)
            async with harness:
                await harness.seen("silent", 6_000_000_000, 30_000_000, times=3)
                kinds = [kind for kind, *_ in harness.log]
                assert kinds.index("live") < kinds.index("silent")
                venue.server.close()
                venue.peers[0].writer.transport.abort()
                await until(lambda: len(harness.of("waiting")) > 3)
                after = [kind for kind, *_ in harness.log]
                assert "silent" not in after[after.index("stale") :]

    run(main())


# The end.


@pytest.mark.parametrize("moment", ["idle", "at once", "handshake", "live", "waiting", "deaf"])
@pytest.mark.parametrize("tls", [False, True])
def test_close_leaves_nothing_in_any_state(stack: str, moment: str, tls: bool, ca: trustme.CA) -> None:
    async def deaf(peer: Peer) -> None:
        await peer.accept()
        await asyncio.Event().wait()

    async def main() -> None:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        script = {"handshake": silent, "deaf": deaf}.get(moment, serve)
        plain_text_where_tls_is_expected = moment == "handshake" and tls
        async with Venue(script, ca=None if plain_text_where_tls_is_expected else ca if tls else None) as venue:
            if moment == "waiting":
                venue.server.close()
            endpoints = venue.endpoints
            if plain_text_where_tls_is_expected:
                endpoints = Endpoints(endpoints.http_url, endpoints.ws_url.replace("ws:", "wss:"), Network.LOCAL)
            harness = Harness(endpoints, context=context, backoff_min_s=5.0, backoff_max_s=5.0)
            if moment != "idle":
                await harness.driver.start()
            if moment in ("live", "deaf"):
                await harness.driver.wait_live(5.0)
            if moment == "handshake":
                await until(lambda: venue.open == 1)
                await asyncio.sleep(0.02)  # let the client's half of the handshake arrive
            if moment == "waiting":
                await until(lambda: harness.driver.state is LinkState.WAITING)
            if moment == "deaf":
                venue.peers[0].writer.transport.pause_reading()  # type: ignore[attr-defined]
            waiter = None
            if moment not in ("live", "deaf"):
                waiter = asyncio.ensure_future(harness.driver.wait_live(5.0))
                await asyncio.sleep(0)
            began_s = time.monotonic()
            await asyncio.gather(harness.driver.close(), harness.driver.close())
            assert time.monotonic() - began_s < 2.0
            assert_nothing_left(harness.driver)
            if waiter is not None:
                with pytest.raises(Closed):
                    await waiter
            if moment != "deaf":
                await until(lambda: venue.open == 0)
            log = list(harness.log)
            await harness.driver.close()
            for call in (harness.driver.start, lambda: harness.driver.wait_live(1.0)):
                with pytest.raises(Closed):
                    await call()
            with pytest.raises(Closed):
                harness.driver.subscribe(BTC)
            harness.driver.unsubscribe(BTC)
            assert harness.log == log

    run(main(), stack)


def test_a_goodbye_is_said_with_a_close_frame(stack: str, ca: trustme.CA) -> None:
    said: list[tuple[int, bytes]] = []

    async def listen(peer: Peer) -> None:
        await peer.accept()
        said.append(await peer.receive())
        peer.send(frame(CLOSE, b"\x03\xe8"))

    async def main() -> None:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        async with Venue(listen, ca=ca) as venue, Harness(venue.endpoints, context=context) as harness:
            await harness.driver.wait_live(5.0)
        assert said == [(CLOSE, b"\x03\xe8")]

    run(main(), stack)


def test_cancelling_close_still_cuts_the_socket(ca: trustme.CA) -> None:
    async def main() -> None:
        async with Venue() as venue, Harness(venue.endpoints) as harness:
            await harness.driver.wait_live(5.0)
            closing = asyncio.ensure_future(harness.driver.close())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            await until(lambda: venue.open == 0)
            await until(lambda: harness.driver._connections == {})

    run(main())


# Which listener.


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The compiled modules, as if built for the picows of that version."""

    def install(version: str | None, compiled: type | None) -> None:
        build = None if version is None else types.SimpleNamespace(PICOWS_VERSION=version)
        listener = None if compiled is None else types.SimpleNamespace(FeedListener=compiled)
        monkeypatch.setitem(sys.modules, "hlconn._core._build", build)
        monkeypatch.setitem(sys.modules, "hlconn._core.listener", listener)

    listener_class.cache_clear()
    yield install
    listener_class.cache_clear()


def test_the_compiled_listener_is_used_with_the_picows_it_was_built_for(modules: Any) -> None:
    class Compiled:
        pass

    modules(picows.__version__, Compiled)  # type: ignore[attr-defined]
    assert listener_class() is Compiled


@pytest.mark.parametrize(("version", "compiled"), [("0.0.1", FakeFeed), (None, FakeFeed), ("installed", None)])
def test_else_the_python_one_and_one_line_says_so(
    modules: Any, caplog: pytest.LogCaptureFixture, version: str | None, compiled: type | None
) -> None:
    installed = picows.__version__  # type: ignore[attr-defined]
    caplog.set_level(logging.INFO, "hlconn.session")
    modules(installed if version == "installed" else version, compiled)
    assert listener_class() is FeedListener
    assert listener_class() is FeedListener
    assert len(caplog.records) == 1
    assert installed in caplog.text
    assert version != "0.0.1" or "0.0.1" in caplog.text


def test_the_compiled_listener_feeds_a_book_from_the_socket(stack: str, ca: trustme.CA) -> None:
    levels = b'[{"px":"99.5","sz":"1","n":1}],[{"px":"100.5","sz":"2","n":1}]'
    message = b'{"channel":"l2Book","data":{"coin":"BTC","time":%d,"levels":[' + levels + b"]}}"

    async def books(peer: Peer) -> None:
        await peer.accept()
        peer.send(frame(TEXT, b"Websocket connection established."))
        await peer.receive()
        peer.send(frame(TEXT, message % 1), frame(TEXT, b"{"), frame(TEXT, (message % 2)[:20], fin=False))
        peer.send(frame(PING, b""), frame(0, (message % 2)[20:]), frame(TEXT, message % 3))
        assert (await peer.receive())[0] == PONG
        peer.send(frame(CLOSE, b"\x03\xe8Expired"), frame(TEXT, message % 4))
        await peer.serve()

    async def main() -> None:
        feed_module = pytest.importorskip("hlconn._core.feed")
        listener_class.cache_clear()
        if listener_class() is FeedListener:
            pytest.skip("the compiled listener is for another picows")
        context = ssl.create_default_context()
        ca.configure_trust(context)
        async with Venue(books, silent_after_upgrade, ca=ca) as venue:
            feed, log = feed_module.Feed(), []
            feed.on_book("BTC", lambda book: log.append(book.time_ms))
            driver = Driver(
                venue.endpoints,
                SessionConfig(**CONFIG, ssl_context=context),
                feed,
                on_state=lambda state, reason, _: log.append((state.value, reason, feed.book("BTC").stale)),
                on_bad_message=lambda *_: log.append("bad"),
            )
            driver.subscribe(BTC)
            await driver.start()
            await until(lambda: driver.link.counters.connects == 2, lambda: log)
            reason = "closed by the venue: 1000 Expired"
            assert log[1:6] == [("live", "connected", True), 1, "bad", 2, 3]
            assert log[6] == ("waiting", reason, True)
            assert log[-1] == ("live", "connected", True)
            await driver.close()
            assert_nothing_left(driver)

    run(main(), stack)
