"""`POST /info` over HTTP, in a daemon thread: picows serves WebSockets only."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

import orjson

from .info import InfoRefused, answer
from .market import Market

__all__ = ["RestServer"]

log = logging.getLogger("hlconn.sim")

_MAX_BODY_BYTES = 1 << 20
# How soon a stop is noticed.
_POLL_S = 0.05


class _Handler(BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"
    # Without this the body waits for the acknowledgement of the head, which the peer delays by 40 ms.
    disable_nagle_algorithm = True
    timeout = 60.0

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > _MAX_BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self._answer(self.rfile.read(int(length)))

    def do_GET(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED)

    def _answer(self, body: bytes) -> None:
        """Statuses and texts as the venue's, see its docs, "Info endpoint", and the axum framework it answers with."""
        if self.path != "/info":
            self._text(HTTPStatus.NOT_FOUND, "")
        elif self.headers.get_content_type() != "application/json":
            self._text(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Expected request with `Content-Type: application/json`")
        else:
            try:
                value = answer(self.server.market, orjson.loads(body))
            except orjson.JSONDecodeError:
                self._text(HTTPStatus.BAD_REQUEST, "Failed to parse the request body as JSON")
            except InfoRefused as refused:
                if refused.text is None:
                    self._reply(refused.status, "application/json", b"null")
                else:
                    self._text(refused.status, refused.text)
            else:
                self._reply(HTTPStatus.OK, "application/json", orjson.dumps(value))

    def _refuse(self, status: HTTPStatus) -> None:
        """The body was not read, so the connection cannot be used again."""
        self.close_connection = True
        self._text(status, status.phrase)

    def _text(self, status: HTTPStatus, text: str) -> None:
        self._reply(status, "text/plain; charset=utf-8", text.encode())

    def _reply(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("http " + format, *args)


class RestServer(ThreadingHTTPServer):
    """Listens from construction on; `start` serves, `stop` ends every connection and frees the port (blocking)."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, market: Market, host: str, port: int, ssl_context: ssl.SSLContext | None) -> None:
        self.market = market
        self._ssl_context = ssl_context
        self._open: set[socket.socket] = set()
        super().__init__((host, port), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(_POLL_S,), name="hlconn.sim.rest", daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            # The plain socket's shutdown: the TLS one would pull the TLS object from under the handler's thread.
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service for its own name: seconds, where there is none.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.port

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._ssl_context is not None:
            # The handshake comes with the first read, in the handler's thread: a silent client must not block others.
            connection = self._ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.info("http connection of %s ended with an error", client_address, exc_info=True)
