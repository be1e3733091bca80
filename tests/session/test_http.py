"""POST over HTTP: what was not sent is told apart from what nobody knows about."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web

from hlconn import Endpoints, ErrorCode, LinkDown, Network, QueryFailed, SessionConfig
from hlconn.session.http import Http
from hlconn.sim import Venue

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def run(handler: Handler, work: Callable[[Http, list[bytes]], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        bodies: list[bytes] = []

        async def keep(request: web.Request) -> web.StreamResponse:
            bodies.append(await request.read())
            return await handler(request)

        app = web.Application()
        app.router.add_post("/{any}", keep)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        endpoints = Endpoints(f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}/ws", Network.LOCAL)
        try:
            async with Http(endpoints, SessionConfig()) as http:
                await work(http, bodies)
        finally:
            await runner.cleanup()

    asyncio.run(main())


async def echo(request: web.Request) -> web.StreamResponse:
    assert request.content_type == "application/json"
    return web.Response(status=429, body=await request.read())


def test_the_status_and_the_body_come_back_over_one_connection() -> None:
    peers: set[object] = set()

    async def handler(request: web.Request) -> web.StreamResponse:
        peers.add(request.transport.get_extra_info("peername") if request.transport else None)
        return await echo(request)

    async def work(http: Http, bodies: list[bytes]) -> None:
        for _ in range(3):
            assert await http.post("/info", b'{"a":1}', 5.0) == (429, b'{"a":1}')
        assert len(peers) == 1

    run(handler, work)


def test_no_connection_is_link_down() -> None:
    async def main() -> None:
        endpoints = Endpoints("http://127.0.0.1:1", "ws://127.0.0.1:1/ws", Network.LOCAL)
        async with Http(endpoints, SessionConfig()) as http:
            with pytest.raises(LinkDown, match="no connection") as raised:
                await http.post("/exchange", b"{}", 5.0)
            assert raised.value.cause is not None

    asyncio.run(main())


def test_what_was_sent_and_not_answered_is_not_link_down_and_not_sent_again() -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def work(http: Http, bodies: list[bytes]) -> None:
        with pytest.raises(Exception) as raised:
            await http.post("/exchange", b"{}", 0.2)
        assert not isinstance(raised.value, LinkDown)
        assert len(bodies) == 1

    run(silent, work)
    run(cut, work)


def test_a_redirect_is_an_answer_and_not_followed() -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect("/other")

    async def work(http: Http, bodies: list[bytes]) -> None:
        status, _ = await http.post("/exchange", b"{}", 5.0)
        assert (status, len(bodies)) == (307, 1)

    run(elsewhere, work)


@pytest.mark.parametrize("answers", ["429 with Retry-After", "429 without", "503", "a cut", "a reset"])
def test_a_query_of_the_venue_in_a_box_survives_what_passes(answers: str) -> None:
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        linger = struct.pack("ii", 1, 0)  # makes the kernel send RST
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def main() -> None:
        async with Venue(seed=1) as venue:
            endpoints = venue.endpoints
            match answers:
                case "429 with Retry-After":
                    fault = venue.fault("http_status", channel="info", status=429, retry_after_s=7)
                case "429 without":
                    fault = venue.fault("http_status", channel="info", status=429, count=2)
                case "503":
                    fault = venue.fault("http_status", channel="info", status=503)
                case _:
                    fault = venue.fault("http_cut", channel="info")
            server = None
            if answers == "a reset":
                server = await asyncio.start_server(reset, "127.0.0.1", 0)
                port = server.sockets[0].getsockname()[1]
                endpoints = Endpoints(f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}/ws", Network.LOCAL)
            async with Http(endpoints, SessionConfig(query_tries=3)) as http:
                http.queries._sleep = sleep
                if server is not None:
                    with pytest.raises(QueryFailed) as raised:
                        await http.query({"type": "meta"})
                    assert raised.value.code is ErrorCode.UNAVAILABLE
                    server.close()
                else:
                    assert "universe" in await http.query({"type": "meta"})
                    assert fault.hits == fault.count
                assert len(slept) == (2 if answers in ("429 without", "a reset") else 1)
                assert (slept[0] == 7) is (answers == "429 with Retry-After")

    asyncio.run(main())


def test_an_action_is_never_sent_twice_whatever_happens_to_it() -> None:
    async def main() -> None:
        async with Venue(seed=1) as venue, Http(venue.endpoints, SessionConfig()) as http:
            venue.fault("http_status", channel="exchange", status=429, retry_after_s=1)
            assert (await http.post("/exchange", b"{}", 5.0))[0] == 429
            venue.fault("http_status", channel="exchange", status=502)
            assert (await http.post("/exchange", b"{}", 5.0))[0] == 502
            cut = venue.fault("http_cut", channel="exchange", count=None)
            with pytest.raises(Exception, match="disconnected"):
                await http.post("/exchange", b"{}", 5.0)
            assert cut.hits == 1

    asyncio.run(main())


def test_what_the_venue_says_instead_of_an_answer_is_query_failed() -> None:
    async def main() -> None:
        async with Venue(seed=1) as venue, Http(venue.endpoints, SessionConfig()) as http:
            with pytest.raises(QueryFailed) as raised:
                await http.ask({"type": "nonsense"})
            assert (raised.value.status, raised.value.code) == (422, ErrorCode.MALFORMED)

    asyncio.run(main())
