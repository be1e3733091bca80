"""The venue over loopback, as clients that share no code with it see it: `websockets` and `http.client`."""

import asyncio
import http.client
import json
import logging
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import pytest
import trustme
import websockets

import hlconn.sim.venue
from hlconn.config import Network
from hlconn.errors import ConfigError
from hlconn.sim import Venue, serve

TIMEOUT_S = 5.0
GREETING = "Websocket connection established."


class Peer:
    """A client: JSON out, JSON in, nothing waited for longer than TIMEOUT_S."""

    def __init__(self, ws: websockets.ClientConnection) -> None:
        self.ws = ws

    async def text(self) -> str:
        return await asyncio.wait_for(self.ws.recv(decode=True), TIMEOUT_S)

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
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await self.text()
        received = closed.value.rcvd
        return None if received is None else (received.code, received.reason)

    async def drain(self) -> list[Any]:
        """Everything that was sent so far: up to the answer to a ping."""
        await self.send(method="ping")
        messages = []
        while (message := await self.next()) != {"channel": "pong"}:
            messages.append(message)
        return messages


@asynccontextmanager
async def peer_of(venue: Venue, **options: Any) -> AsyncIterator[Peer]:
    async with websockets.connect(venue.url, close_timeout=1, **options) as ws:
        assert await asyncio.wait_for(ws.recv(), TIMEOUT_S) == GREETING
        yield Peer(ws)


def post(
    venue: Venue,
    body: object,
    path: str = "/info",
    content_type: str = "application/json",
    context: ssl.SSLContext | None = None,
) -> tuple[int, str, str]:
    """(status, content type, text) of one HTTP request."""
    address = venue.endpoints.http_url.split("/")[2]
    if context is None:
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    else:
        connection = http.client.HTTPSConnection(address, timeout=TIMEOUT_S, context=context)
    with closing(connection):
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, payload, {"Content-Type": content_type})
        response = connection.getresponse()
        return response.status, response.headers.get_content_type(), response.read().decode()


async def info(venue: Venue, **request: object) -> Any:
    status, _, text = await asyncio.to_thread(post, venue, request)
    assert status == 200, text
    return json.loads(text)


def in_manual_venue(**options: Any) -> Callable[[Callable[[Venue, Peer], Awaitable[None]]], Callable[[], None]]:
    """Run the decorated coroutine function with a fresh manual venue and one peer."""

    def decorate(body: Callable[[Venue, Peer], Awaitable[None]]) -> Callable[[], None]:
        def test() -> None:
            async def run() -> None:
                async with Venue(manual=True, **options) as venue, peer_of(venue) as peer:
                    await body(venue, peer)

            asyncio.run(run())

        test.__name__, test.__doc__ = body.__name__, body.__doc__
        return test

    return decorate


# Subscriptions


@in_manual_venue()
async def test_the_ack_comes_before_the_current_state(venue: Venue, peer: Peer) -> None:
    await peer.send(method="subscribe", subscription={"type": "bbo", "coin": "BTC"})
    assert await peer.text() == (
        '{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":{"type":"bbo","coin":"BTC"}}}'
    )
    assert re.fullmatch(
        r'\{"channel":"bbo","data":\{"coin":"BTC","time":\d+,"bbo":\['
        r'\{"px":"\d+\.0","sz":"\d+\.\d+","n":\d+\},\{"px":"\d+\.0","sz":"\d+\.\d+","n":\d+\}\]\}\}',
        await peer.text(),
    )


@in_manual_venue()
async def test_the_echo_of_l2book_names_every_parameter(venue: Venue, peer: Peer) -> None:
    plain = {"type": "l2Book", "coin": "BTC", "nSigFigs": None, "mantissa": None}
    assert await peer.subscribe(type="l2Book", coin="BTC") == {"method": "subscribe", "subscription": plain}
    assert (await peer.subscribe(coin="BTC", fast=True, type="l2Book"))["subscription"] == plain | {"fast": True}
    assert (await peer.subscribe(type="l2Book", coin="BTC", nSigFigs=5, mantissa=2))["subscription"] == (
        plain | {"nSigFigs": 5, "mantissa": 2}
    )


@in_manual_venue()
async def test_slow_fast_and_aggregated_books_of_a_coin_live_side_by_side(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="l2Book", coin="BTC")
    slow = await peer.next("l2Book")
    await peer.subscribe(type="l2Book", coin="BTC", fast=True)
    fast = await peer.next("l2Book")
    await peer.subscribe(type="l2Book", coin="BTC", nSigFigs=3)
    coarse = await peer.next("l2Book")
    assert list(slow) == ["coin", "time", "levels"]
    assert [len(side) for side in slow["levels"]] == [20, 20]
    assert list(fast) == ["coin", "time", "levels", "fast"]
    assert fast["fast"] is True
    assert fast["levels"] == [side[:5] for side in slow["levels"]]
    assert list(coarse) == ["coin", "time", "levels", "spread"]


@in_manual_venue()
async def test_a_second_subscribe_is_refused_and_the_first_goes_on(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="bbo", coin="BTC")
    await peer.next("bbo")
    await peer.send(method="subscribe", subscription={"coin": "BTC", "type": "bbo"})
    assert await peer.next("error") == 'Already subscribed: {"type":"bbo","coin":"BTC"}'
    await peer.subscribe(type="l2Book", coin="BTC")
    await peer.send(method="subscribe", subscription={"type": "l2Book", "coin": "BTC", "fast": False})
    assert (await peer.next("error")).startswith("Already subscribed: ")
    while "BTC" not in (await venue.block()).bbo_changed:
        pass
    messages = await peer.drain()
    assert [message["channel"] for message in messages] == ["bbo"]


@in_manual_venue()
async def test_unsubscribe_is_acknowledged_and_stops_the_flow(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="bbo", coin="BTC")
    await peer.send(method="unsubscribe", subscription={"type": "bbo", "coin": "BTC"})
    assert (await peer.next("subscriptionResponse"))["method"] == "unsubscribe"
    for _ in range(10):
        await venue.block()
    assert await peer.drain() == []
    await peer.send(method="unsubscribe", subscription={"type": "bbo", "coin": "BTC"})
    assert await peer.next("error") == 'Already unsubscribed: {"type":"bbo","coin":"BTC"}'


@in_manual_venue()
async def test_trades_begin_with_a_replay_of_the_last_thirty(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="trades", coin="BTC")
    streamed = []
    for _ in range(80):
        await venue.block()
        for message in await peer.drain():
            streamed += message["data"]
    async with peer_of(venue) as late:
        await late.subscribe(type="trades", coin="BTC")
        assert await late.next("trades") == streamed[-30:]
    assert list(streamed[0]) == ["coin", "side", "px", "sz", "time", "hash", "tid", "users"]


@in_manual_venue()
async def test_books_keep_their_cadence_and_bbo_follows_every_change(venue: Venue, peer: Peer) -> None:
    for subscription in (
        {"type": "bbo", "coin": "BTC"},
        {"type": "l2Book", "coin": "BTC"},
        {"type": "l2Book", "coin": "BTC", "fast": True},
    ):
        await peer.subscribe(**subscription)
    blocks = [venue.market.block, *[await venue.block() for _ in range(200)]]
    times = {"bbo": [blocks[0].time_ms], "slow": [blocks[0].time_ms], "fast": [blocks[0].time_ms]}
    for message in await peer.drain():
        kind = message["channel"]
        if kind == "l2Book":
            kind = "fast" if "fast" in message["data"] else "slow"
        times[kind].append(message["data"]["time"])
    # The fast book's first state came before `drain` and after its ack.
    times["fast"] = sorted(set(times["fast"]))
    assert times["bbo"] == [block.time_ms for block in blocks if block is blocks[0] or "BTC" in block.bbo_changed]
    for kind, period_ms in (("slow", 5000), ("fast", 500)):
        gaps = [after - before for before, after in zip(times[kind], times[kind][1:], strict=False)]
        assert len(gaps) >= 3
        assert all(period_ms <= gap < period_ms + 100 for gap in gaps)


@in_manual_venue()
async def test_every_client_of_a_topic_gets_the_same_bytes(venue: Venue, peer: Peer) -> None:
    async with peer_of(venue) as other:
        for each in (peer, other):
            await each.subscribe(type="bbo", coin="BTC")
            await each.next("bbo")
        while "BTC" not in (await venue.block()).bbo_changed:
            pass
        assert await peer.text() == await other.text()
        assert venue.clients == 2


@in_manual_venue(coins=("MATIC", "BTC"))
async def test_an_empty_book_is_empty_lists_and_nulls(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="l2Book", coin="MATIC")
    assert (await peer.next("l2Book"))["levels"] == [[], []]
    await peer.subscribe(type="bbo", coin="MATIC")
    assert (await peer.next("bbo"))["bbo"] == [None, None]


# Errors


@pytest.mark.parametrize(
    "subscription",
    [
        {"type": "bbo", "coin": "XYZ"},
        {"type": "bbo", "coin": "btc"},
        {"type": "userFills", "user": "0x01"},
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 1},
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 6},
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 4, "mantissa": 2},
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "mantissa": 1},
        {"type": "l2Book", "coin": "BTC", "mantissa": 5},
    ],
)
def test_what_is_not_offered_is_an_invalid_subscription(subscription: dict[str, object]) -> None:
    @in_manual_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        for method in ("subscribe", "unsubscribe"):
            await peer.send(method=method, subscription=subscription)
            compact = json.dumps(subscription, separators=(",", ":"))
            assert await peer.next() == {"channel": "error", "data": f"Invalid subscription {compact}"}

    run()


@pytest.mark.parametrize(
    "message",
    [
        "no JSON",
        "",
        "[]",
        "{}",
        '{"method":"dance"}',
        '{"method":"subscribe","xsubscription":{"type":"bbo","coin":"SOL"}}',
        '{"method": "subscribe", "subscription": {"type": "noSuchType", "coin": "BTC"}}',
        '{"method":"subscribe","subscription":{"type":"bbo"}}',
        '{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC","nSigFigs":"5"}}',
        '{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC","nSigFigs":true}}',
        '{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC","fast":1}}',
        '{"method":"subscribe","subscription":{"type":["bbo"],"coin":"BTC"}}',
        '{"method":["subscribe"]}',
        '{"method":"post","request":{"type":"info","payload":{"type":"meta"}}}',
        '{"method":"post","id":-1,"request":{"type":"info","payload":{"type":"meta"}}}',
        '{"method":"post","id":1,"request":{"type":"magic","payload":{}}}',
    ],
)
def test_what_does_not_parse_is_sent_back_whole(message: str) -> None:
    @in_manual_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        await peer.ws.send(message)
        text = f"Error parsing JSON into valid websocket request: {message}"
        assert await peer.next() == {"channel": "error", "data": text}
        assert await peer.drain() == []

    run()


def test_a_request_may_come_in_fragments() -> None:
    @in_manual_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        await peer.ws.send(iter(['{"met', 'hod":"', 'ping"}']))
        assert await peer.text() == '{"channel":"pong"}'

    run()


@pytest.mark.parametrize(("message", "code"), [(b"\xff", 1007), ("x" * ((1 << 20) + 1), 1009)])
def test_what_is_no_text_or_too_long_closes_its_sender_only(message: str | bytes, code: int) -> None:
    @in_manual_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        async with peer_of(venue) as other:
            await other.ws.send(message, text=True)
            closing = await other.closing()
            assert closing is not None
            assert closing[0] == code
        assert await peer.drain() == []

    run()


def test_a_failure_of_ours_closes_that_client_with_1011_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(market: object, request: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(hlconn.sim.venue, "answer", fail)

    @in_manual_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        async with peer_of(venue) as other:
            await other.send(method="post", id=1, request={"type": "info", "payload": {"type": "meta"}})
            assert await other.closing() == (1011, "")
        assert await peer.drain() == []

    run()
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert failures
    assert all(record.name.startswith("hlconn.sim") for record in failures)


# Connection


@in_manual_venue()
async def test_protocol_pings_are_answered_too(venue: Venue, peer: Peer) -> None:
    await asyncio.wait_for(await peer.ws.ping(), TIMEOUT_S)


def test_the_greeting_can_be_left_out() -> None:
    async def run() -> None:
        async with Venue(manual=True, greeting=False) as venue, websockets.connect(venue.url) as ws:
            await ws.send('{"method":"ping"}')
            assert await asyncio.wait_for(ws.recv(), TIMEOUT_S) == '{"channel":"pong"}'

    asyncio.run(run())


@in_manual_venue()
async def test_only_the_path_ws_is_served(venue: Venue, peer: Peer) -> None:
    with pytest.raises(websockets.InvalidStatus, match="404"):
        await websockets.connect(venue.url + "x")


@in_manual_venue()
async def test_a_cut_without_a_code_is_an_abort(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="bbo", coin="BTC")
    venue.cut()
    assert venue.clients == 0
    await peer.next("bbo")
    assert await peer.closing() is None


@pytest.mark.parametrize("code", [1000, 1012, 4001])
def test_a_cut_with_a_code_says_expired(code: int) -> None:
    @in_manual_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        venue.cut(code)
        assert await peer.closing() == (code, "Expired")
        async with peer_of(venue) as again:
            await again.subscribe(type="bbo", coin="BTC")

    run()


def test_a_stop_does_not_wait_for_clients_that_ignore_a_close() -> None:
    async def run() -> None:
        async with Venue(manual=True) as venue:
            address = venue.url.split("/")[2].split(":")
            reader, writer = await asyncio.open_connection(*address)
            key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
            writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n" + upgrade + key + b"\r\n")
            await asyncio.wait_for(reader.readuntil(GREETING.encode()), TIMEOUT_S)
            venue.cut(1000)
            began = time.perf_counter()
            await venue.stop()
            assert time.perf_counter() - began < 0.5
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), TIMEOUT_S) == b"\x88\x09\x03\xe8Expired"
            writer.close()

    asyncio.run(run())


@in_manual_venue()
async def test_a_client_that_closes_is_forgotten(venue: Venue, peer: Peer) -> None:
    async with peer_of(venue) as other:
        await other.subscribe(type="bbo", coin="BTC")
        assert venue.clients == 2
    assert other.ws.close_code == 1000
    await peer.drain()
    assert venue.clients == 1
    for _ in range(5):
        await venue.block()


def test_a_client_that_stops_reading_is_dropped() -> None:
    async def run() -> None:
        async with Venue(manual=True, max_buffer_bytes=100_000) as venue:
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", int(venue.url.split(":")[2].split("/")[0])))
            reader.setblocking(False)
            options: dict[str, Any] = {"max_queue": 1, "close_timeout": 0.1}
            async with websockets.connect(venue.url, sock=reader, **options) as ws, peer_of(venue) as peer:

                async def ask_and_never_read() -> None:
                    whole_book = {"type": "info", "payload": {"type": "hiddenBook", "coin": "BTC"}}
                    with suppress(websockets.ConnectionClosed):
                        while not venue.stats.slow_clients_dropped:
                            await ws.send(json.dumps({"method": "post", "id": 1, "request": whole_book}))
                            await asyncio.sleep(0)

                await asyncio.wait_for(ask_and_never_read(), TIMEOUT_S)
                assert venue.stats.slow_clients_dropped == 1
                assert await peer.drain() == []
                assert venue.clients == 1

    asyncio.run(run())


def test_a_stopped_venue_comes_back_on_the_same_ports_with_the_same_market() -> None:
    async def run() -> None:
        async with Venue(speed=50) as venue:
            endpoints = venue.endpoints
            async with peer_of(venue) as peer:
                await peer.subscribe(type="bbo", coin="BTC")
                last = await peer.next("bbo")
                await venue.stop()
                with pytest.raises(websockets.ConnectionClosed):
                    await peer.drain()
            assert venue.clients == 0
            for refused in (websockets.connect(venue.url), info(venue, type="meta")):
                with pytest.raises(ConnectionRefusedError):
                    await refused
            await venue.start()
            assert venue.endpoints == endpoints
            async with peer_of(venue) as peer:
                await peer.subscribe(type="bbo", coin="BTC")
                times = [(await peer.next("bbo"))["time"] for _ in range(5)]
            assert last["time"] <= times[0]
            assert times == sorted(set(times))
            assert (await info(venue, type="hiddenBook", coin="BTC", time=last["time"]))["time"] == last["time"]
        await venue.stop()

    asyncio.run(run())


def test_a_stop_ends_idle_http_connections() -> None:
    async def run() -> None:
        async with Venue(manual=True) as venue:
            connection = http.client.HTTPConnection(venue.endpoints.http_url.split("/")[2], timeout=TIMEOUT_S)
            with closing(connection):
                connection.request("POST", "/info", b'{"type":"meta"}', {"Content-Type": "application/json"})
                assert connection.getresponse().read()
                assert connection.sock is not None
                await venue.stop()
                assert await asyncio.to_thread(connection.sock.recv, 1) == b""

    asyncio.run(run())


def test_over_tls() -> None:
    authority = trustme.CA()
    server_context, client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    authority.configure_trust(client_context)

    async def run() -> None:
        async with Venue(speed=50, ssl_context=server_context) as venue:
            assert venue.endpoints.ws_url.startswith("wss://")
            async with peer_of(venue, ssl=client_context) as peer:
                await peer.subscribe(type="bbo", coin="BTC")
                for _ in range(3):
                    await peer.next("bbo")
            status, _, text = await asyncio.to_thread(post, venue, {"type": "meta"}, context=client_context)
            assert status == 200
            assert "universe" in json.loads(text)

    asyncio.run(run())


# The hidden book, and quiet points


def test_every_book_pushed_is_the_hidden_book_of_its_block() -> None:
    async def run() -> None:
        async with Venue(speed=50, seed=11) as venue, peer_of(venue) as peer:
            for coin in ("BTC", "kPEPE"):
                await peer.subscribe(type="bbo", coin=coin)
                await peer.subscribe(type="l2Book", coin=coin)
                await peer.subscribe(type="l2Book", coin=coin, fast=True)
            seen: list[dict[str, Any]] = []
            while sum("levels" in data and "fast" not in data for data in seen) < 6:
                message = await peer.next()
                if message["channel"] in ("bbo", "l2Book"):
                    seen.append(message["data"])
            assert len(seen) > 50
            for data in seen:
                hidden = await info(venue, type="hiddenBook", coin=data["coin"], time=data["time"])
                assert hidden["time"] == data["time"]
                if "bbo" in data:
                    assert data["bbo"] == [side[0] for side in hidden["levels"]]
                else:
                    depth = 5 if "fast" in data else 20
                    assert data["levels"] == [side[:depth] for side in hidden["levels"]]

    asyncio.run(run())


def test_a_pause_sends_the_last_state_of_every_book_and_then_nothing() -> None:
    async def run() -> None:
        async with Venue(speed=50) as venue, peer_of(venue) as peer:
            await peer.subscribe(type="trades", coin="ETH")
            await peer.subscribe(type="bbo", coin="ETH")
            await peer.subscribe(type="l2Book", coin="ETH")
            await peer.subscribe(type="l2Book", coin="ETH", fast=True)
            for _ in range(5):
                await peer.next("bbo")
            await venue.pause()
            bbo, slow, fast = [message["data"] for message in (await peer.drain())[-3:]]
            hidden = await info(venue, type="hiddenBook", coin="ETH")
            assert hidden["time"] == venue.market.block.time_ms
            assert {data["time"] for data in (bbo, slow, fast)} == {hidden["time"]}
            assert bbo["bbo"] == [side[0] for side in hidden["levels"]]
            assert slow["levels"] == [side[:20] for side in hidden["levels"]]
            assert fast["levels"] == [side[:5] for side in hidden["levels"]]
            assert await peer.drain() == []
            assert venue.market.block.time_ms == hidden["time"]
            venue.resume()
            assert (await peer.next("bbo"))["time"] > hidden["time"]

    asyncio.run(run())


def test_shuffled_messages_say_the_same() -> None:
    @in_manual_venue(shuffle_keys=True)
    async def run(venue: Venue, peer: Peer) -> None:
        await peer.subscribe(type="l2Book", coin="BTC")
        data = await peer.next("l2Book")
        hidden = await info(venue, type="hiddenBook", coin="BTC", time=data["time"])
        assert data["levels"] == [side[:20] for side in hidden["levels"]]

    run()


# Info requests


@in_manual_venue(coins=("BTC", "SOL", "MATIC"))
async def test_info_answers_are_the_venues(venue: Venue, peer: Peer) -> None:
    book = await info(venue, type="l2Book", coin="SOL")
    assert list(book) == ["coin", "time", "levels"]
    assert [len(side) for side in book["levels"]] == [20, 20]
    assert "spread" in await info(venue, type="l2Book", coin="SOL", nSigFigs=5, mantissa=5)
    assert await info(venue, type="l2Book", coin="XYZ") is None
    assert await info(venue, type="hiddenBook", coin="XYZ") is None
    mids = await info(venue, type="allMids")
    bid, ask = (float(side[0]["px"]) for side in book["levels"])
    assert float(mids["SOL"]) == pytest.approx((bid + ask) / 2)
    assert "MATIC" not in mids
    universe = (await info(venue, type="meta"))["universe"]
    assert [entry["name"] for entry in universe] == ["BTC", "SOL", "MATIC"]
    assert universe[0] == {"szDecimals": 5, "name": "BTC", "maxLeverage": 40, "marginTableId": 40}
    assert universe[2]["isDelisted"] is True


BAD_SHAPE = "Failed to deserialize the JSON body into the target type"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "Failed to parse the request body as JSON"),
        ([], 422, BAD_SHAPE),
        ({"type": "noSuchType"}, 422, BAD_SHAPE),
        ({"type": ["meta"]}, 422, BAD_SHAPE),
        ({"type": "l2Book"}, 422, BAD_SHAPE),
        ({"type": "l2Book", "coin": "BTC", "nSigFigs": "5"}, 422, BAD_SHAPE),
        ({"type": "hiddenBook", "coin": "BTC", "time": "now"}, 422, BAD_SHAPE),
        ({"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "mantissa": 1}, 500, "null"),
        (
            {"type": "hiddenBook", "coin": "BTC", "time": 1},
            404,
            "no block at time 1 is remembered: ask for one of the last 6000 blocks",
        ),
    ],
)
def test_bad_info_requests_are_refused_as_the_venue_does(body: object, status: int, text: str) -> None:
    async def run() -> None:
        async with Venue(manual=True) as venue:
            got = await asyncio.to_thread(post, venue, body)
            assert got == (status, "application/json" if text == "null" else "text/plain", text)

    asyncio.run(run())


@in_manual_venue()
async def test_http_manners(venue: Venue, peer: Peer) -> None:
    assert (await asyncio.to_thread(post, venue, {"type": "meta"}, path="/exchange"))[0] == 404
    assert (await asyncio.to_thread(post, venue, {"type": "meta"}, content_type="text/plain"))[0] == 415
    with closing(http.client.HTTPConnection(venue.endpoints.http_url.split("/")[2], timeout=TIMEOUT_S)) as connection:
        connection.request("GET", "/info")
        assert connection.getresponse().read() == b"Method Not Allowed"
    for length, status in (("", 411), ("-1", 411), (str(1 << 21), 413)):
        with closing(
            http.client.HTTPConnection(venue.endpoints.http_url.split("/")[2], timeout=TIMEOUT_S)
        ) as connection:
            connection.putrequest("POST", "/info")
            connection.putheader("Content-Length", length)
            connection.endheaders()
            response = await asyncio.to_thread(connection.getresponse)
            assert response.status == status
            response.close()


@in_manual_venue()
async def test_posts_carry_the_same_answers(venue: Venue, peer: Peer) -> None:
    payload = {"type": "l2Book", "coin": "ETH", "nSigFigs": 5, "mantissa": None}
    await peer.send(method="post", id=123, request={"type": "info", "payload": payload})
    assert await peer.next() == {
        "channel": "post",
        "data": {
            "id": 123,
            "response": {"type": "info", "payload": {"type": "l2Book", "data": await info(venue, **payload)}},
        },
    }


@pytest.mark.parametrize(
    ("request_type", "payload", "text"),
    [
        ("info", {"type": "noSuchType"}, f"422 {BAD_SHAPE}"),
        ("info", {"type": "l2Book", "coin": "BTC", "nSigFigs": 9}, "500 Internal Server Error"),
        ("action", {"action": {}, "nonce": 1, "signature": {}}, "501 this venue takes no actions yet"),
    ],
)
def test_posts_that_are_refused_say_why(request_type: str, payload: dict[str, object], text: str) -> None:
    @in_manual_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        await peer.send(method="post", id=0, request={"type": request_type, "payload": payload})
        assert await peer.next("post") == {"id": 0, "response": {"type": "error", "payload": text}}

    run()


# Starting


def test_it_starts_in_less_than_half_a_second() -> None:
    async def run() -> None:
        began = time.perf_counter()
        async with Venue() as venue:
            assert time.perf_counter() - began < 0.5
            assert venue.endpoints.network is Network.LOCAL
            assert venue.url == venue.endpoints.ws_url
            with pytest.raises(RuntimeError, match="already running"):
                await venue.start()

    asyncio.run(run())


def test_its_addresses_are_not_known_before_it_starts() -> None:
    with pytest.raises(RuntimeError, match="start it first"):
        _ = Venue().endpoints


@pytest.mark.parametrize(
    "options",
    [
        {"speed": 0},
        {"speed": -1.0},
        {"speed": float("nan")},
        {"speed": float("inf")},
        {"coins": ("XYZ",)},
        {"history_blocks": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Venue(**options)


def test_a_taken_port_fails_and_leaves_nothing_behind() -> None:
    async def run() -> None:
        async with Venue(manual=True) as venue:
            port = int(venue.url.split(":")[2].split("/")[0])
            with pytest.raises(OSError, match="in use"):
                await Venue(manual=True, port=port).start()

    asyncio.run(run())


def test_serve_runs_until_cancelled() -> None:
    async def run() -> None:
        ready = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(speed=50, coins=("BTC",), on_ready=ready.set_result))
        endpoints = await asyncio.wait_for(ready, TIMEOUT_S)
        async with websockets.connect(endpoints.ws_url) as ws:
            assert await asyncio.wait_for(ws.recv(), TIMEOUT_S) == GREETING
            task.cancel()
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(ws.recv(), TIMEOUT_S)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


@in_manual_venue()
async def test_the_counters_count(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="bbo", coin="BTC")
    await peer.send(method="subscribe", subscription={"type": "bbo", "coin": "BTC"})
    await peer.drain()
    await venue.block()
    stats = venue.stats
    assert (stats.connections, stats.subscribes, stats.errors, stats.pings, stats.blocks) == (1, 1, 1, 1, 1)
    assert stats.messages_received == 3
    # Greeting, ack, bbo, error, pong; and a bbo when the block changed it.
    assert stats.messages_sent == 5 + ("BTC" in venue.market.block.bbo_changed)
