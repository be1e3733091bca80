"""POST over HTTP: what was not sent is told apart from what nobody knows about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web

from hlconn import Endpoints, LinkDown, Network, SessionConfig
from hlconn.session.http import Http

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
