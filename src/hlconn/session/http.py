"""POST over HTTP with a warm connection: actions while no link is live, and queries. aiohttp comes at first use."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..config import Endpoints, SessionConfig
from ..errors import LinkDown

if TYPE_CHECKING:
    from aiohttp import ClientSession

__all__ = ["Http"]

_KEEPALIVE_S = 300.0  # longer than between two comparisons with the venue: an order must not wait for TLS
_HEADERS = {"Content-Type": "application/json"}


class Http:
    """An `async with`, inside a running loop."""

    def __init__(self, endpoints: Endpoints, config: SessionConfig) -> None:
        self._url = endpoints.http_url.rstrip("/")
        self._config = config
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        import aiohttp

        config = self._config
        tls: dict[str, Any] = {} if config.ssl_context is None else {"ssl": config.ssl_context}
        connector = aiohttp.TCPConnector(keepalive_timeout=_KEEPALIVE_S, **tls)
        self._session = aiohttp.ClientSession(connector=connector, headers=_HEADERS, proxy=config.proxy_url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        """The status and body of the answer.

        LinkDown when no connection could be made: nothing was sent. Any other exception, TimeoutError among them,
        leaves open what became of the request. No POST is repeated, by aiohttp or for a redirect.
        """
        import aiohttp

        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=self._config.connect_timeout_s)
        try:
            async with self._session.post(
                self._url + path, data=body, timeout=timeout, allow_redirects=False
            ) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            raise LinkDown(f"no connection to {self._url}: {exc}", exc) from exc
