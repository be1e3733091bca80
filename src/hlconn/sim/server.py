"""The venue's one port: HTTP and WebSocket by aiohttp, frames to clients written by hand so that they can be broken."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from .faults import Fault
from .streams import Answer, Later, Session, Transport

__all__ = ["HttpHost", "Server"]

log = logging.getLogger("hlconn.sim")

_MAX_REQUEST_BYTES = 1 << 20
_CUT_REASON = b"Expired"
# How long a client may take to answer our close frame before its socket is cut.
_CLOSE_TIMEOUT_S = 1.0
# For aiohttp to end its handlers, which all know that we stop. (It takes 0 for no limit.)
_STOP_TIMEOUT_S = 0.05


def _head(opcode: int, size: int) -> bytes:
    """The head of one unmasked, final frame. Source: RFC 6455, section 5.2."""
    if size < 126:
        return bytes((0x80 | opcode, size))
    if size < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, 126, size)
    return struct.pack("!BBQ", 0x80 | opcode, 127, size)


class HttpHost(Protocol):
    """What the server needs of its venue. Both calls answer later, None meaning never."""

    max_buffer_bytes: int

    def admits_socket(self) -> bool: ...
    def open_session(self, transport: Transport) -> Session: ...
    def request(self, path: str, payload: object, reply: Callable[[Answer | None], object]) -> None: ...
    def dropped_slow_client(self) -> None: ...


class _Socket:
    """The transport of one WebSocket session."""

    def __init__(self, host: HttpHost, transport: asyncio.Transport) -> None:
        self._host, self._transport = host, transport
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self.session: Session | None = None

    def send(self, message: bytes) -> None:
        """Send one text frame. Those of one round of the loop go out together: system calls cost more than frames."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent += (_head(1, len(message)), message)

    def _flush(self) -> None:
        """A client that left too much unread is dropped instead."""
        frames, self._unsent = b"".join(self._unsent), []
        if not frames or self._transport.is_closing():
            return
        self._transport.write(frames)
        if self._transport.get_write_buffer_size() > self._host.max_buffer_bytes:
            log.warning("dropped a client that left more than %d bytes unread", self._host.max_buffer_bytes)
            self._host.dropped_slow_client()
            assert self.session is not None
            self.session.end(None)

    def end(self, code: int | None) -> None:
        self._flush()
        if code is None or self._transport.is_closing():
            self._transport.abort()
        else:
            self._transport.write(_head(8, 2 + len(_CUT_REASON)) + code.to_bytes(2, "big") + _CUT_REASON)
            self._loop.call_later(_CLOSE_TIMEOUT_S, self._transport.abort)

    def fail(self, fault: Fault) -> None:
        transport = self._transport
        self._flush()
        match fault.kind:
            case "reset":
                # A linger time of 0 makes the kernel send RST instead of FIN.
                sock: socket.socket = transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()
            case "half_open":
                transport.pause_reading()
            case "mid_frame":
                half = b'{"channel":"bbo","data":{"coin":"BTC"'
                transport.write(_head(1, 2 * len(half)) + half)
                transport.close()
            case "bad_frame":
                # reserved bits and opcode, and a mask that servers never send
                transport.write(b"\xff\xff" + b"\0" * 14)


class Server:
    """Listens while it runs; `start` again after `stop` uses the same port."""

    def __init__(self, host: HttpHost, address: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._host, self._address, self.port, self._tls = host, address, port, tls
        self._runner: web.ServerRunner | None = None
        self._sockets: set[asyncio.Transport] = set()
        self._waiting: set[asyncio.Future[Answer | None]] = set()

    @property
    def is_running(self) -> bool:
        return self._runner is not None

    async def start(self) -> None:
        # What a request still sends after its answer is of no interest.
        server = web.Server(self._handle, access_log=None, lingering_time=0.0)
        runner = web.ServerRunner(server, shutdown_timeout=_STOP_TIMEOUT_S)
        await runner.setup()
        try:
            # One family: with port 0 every address of the host would get a port of its own.
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((self._address, self.port))
            except BaseException:
                sock.close()
                raise
            await web.SockSite(runner, sock, ssl_context=self._tls).start()
        except BaseException:
            await runner.cleanup()
            raise
        self.port, self._runner = sock.getsockname()[1], runner

    async def stop(self) -> None:
        """Free the port and cut every connection, without close frames."""
        runner, self._runner = self._runner, None
        if runner is not None:
            for transport in list(self._sockets):
                transport.abort()
            for answered in list(self._waiting):  # nobody answers them any more
                if not answered.done():
                    answered.set_result(None)
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/ws" and request.method == "GET":
            return await self._websocket(request)
        if request.path not in ("/info", "/exchange"):
            return _text(HTTPStatus.NOT_FOUND, "")
        if request.method != "POST":
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, "")
        try:
            body = await request.content.read(_MAX_REQUEST_BYTES + 1)
            while len(body) <= _MAX_REQUEST_BYTES and not request.content.at_eof():
                body += await request.content.read(_MAX_REQUEST_BYTES + 1 - len(body))
        except web.RequestPayloadError:  # a Content-Encoding that the body does not have
            response = _text(HTTPStatus.BAD_REQUEST, "Failed to buffer the request body")
            response.force_close()
            return response
        if len(body) > _MAX_REQUEST_BYTES:
            response = _text(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "")
            response.force_close()
            return response
        if request.content_type != "application/json":
            # Texts of axum, the framework that the venue answers with.
            text = "Expected request with `Content-Type: application/json`"
            return _text(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, text)
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            return _text(HTTPStatus.BAD_REQUEST, "Failed to parse the request body as JSON")
        answered: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

        def reply(answer: Answer | None) -> None:
            if not answered.done():  # the client may be gone
                answered.set_result(answer)

        self._host.request(request.path, payload, reply)
        self._waiting.add(answered)
        try:
            answer = await answered
        finally:
            self._waiting.discard(answered)
        if answer is None:  # never: what a client sees of that is a connection that ends
            if request.transport is not None:
                request.transport.abort()
            return _text(HTTPStatus.OK, "")
        status, value = answer
        after_s = answer.retry_after_s if isinstance(answer, Later) else None
        headers = {} if after_s is None else {"Retry-After": str(after_s)}
        if status == HTTPStatus.OK or value is None:
            data = value if isinstance(value, bytes) else orjson.dumps(value)
            return web.Response(status=status, body=data, content_type="application/json", headers=headers)
        return web.Response(status=status, text=value, headers=headers)

    async def _websocket(self, request: web.BaseRequest) -> web.StreamResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=_MAX_REQUEST_BYTES)
        if not ws.can_prepare(request):
            return _text(HTTPStatus.BAD_REQUEST, "")
        if not self._host.admits_socket():
            return _text(HTTPStatus.TOO_MANY_REQUESTS, "")
        await ws.prepare(request)
        transport = request.transport
        if transport is None or transport.is_closing():
            return ws
        carrier = _Socket(self._host, transport)
        self._sockets.add(transport)
        session = carrier.session = self._host.open_session(carrier)
        try:
            async for message in ws:
                if message.type == WSMsgType.TEXT:
                    session.receive(message.data)
                elif message.type == WSMsgType.BINARY:
                    session.receive(message.data.decode(errors="replace"))
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a client's message made the venue fail; the client is dropped")
            session.left()
            await ws.close(code=WSCloseCode.INTERNAL_ERROR)
        finally:
            session.left()
            self._sockets.discard(transport)
        return ws


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)
