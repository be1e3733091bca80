"""POST over HTTP with warm connections: actions while no link is live, and every query. aiohttp comes at first use."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..config import Endpoints, SessionConfig
from ..errors import Closed, ErrorCode, HlconnError, LinkDown, QueryFailed
from ..responses import read_info
from .queries import Limiter, Queries, Reply

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

__all__ = ["Http"]

_KEEPALIVE_S = 300.0  # longer than between two comparisons with the venue: an order must not wait for TLS
_HEADERS = {"Content-Type": "application/json"}


class Http:
    """An `async with`, inside a running loop. Nothing is opened before the first request.

    queries: how /info is asked. limiter: what keeps it within the venue's budget, None for nothing.
    """

    def __init__(self, endpoints: Endpoints, config: SessionConfig, limiter: Limiter | None = None) -> None:
        self._url = endpoints.http_url.rstrip("/")
        self._config = config
        self._session: ClientSession | None = None
        self._closed = False
        self.queries = Queries(self._send, config, limiter)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        try:
            await self.queries.close()
        finally:
            if self._session is not None:
                await self._session.close()

    async def post(self, path: str, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        """The status and body of the answer to one POST.

        LinkDown when no connection could be made: nothing was sent. Any other exception, TimeoutError among them,
        leaves open what became of the request. No POST is repeated, by aiohttp or for a redirect.
        """
        status, found, _ = await self._post(path, body, timeout_s)
        return status, found

    async def ask(self, request: Mapping[str, Any], *, join: bool = False, wait: bool = True) -> bytes:
        """The body of the answer to a query, not yet read. join, wait: see `Queries.ask`.

        QueryFailed when the venue had no answer, LinkDown when there was no connection, Throttled without room in the
        budget when `wait` is false.
        """
        try:
            status, found = await self.queries.ask(request, join=join, wait=wait)
        except HlconnError:
            raise
        except Exception as exc:
            raise QueryFailed(0, ErrorCode.UNAVAILABLE, f"{type(exc).__name__}: {exc}") from exc
        if status != 200:
            read_info(status, found)
        return found

    async def query(self, request: Mapping[str, Any]) -> Any:
        """The parsed answer to a query that joins no other; raises as `ask` does."""
        return read_info(200, await self.ask(request))

    async def _send(self, body: bytes) -> Reply:
        import aiohttp

        try:
            return await self._post("/info", body, self._config.query_timeout_s)
        except aiohttp.ClientError as exc:
            if isinstance(exc, OSError):
                raise
            raise ConnectionError(f"{type(exc).__name__}: {exc}") from exc

    async def _post(self, path: str, body: bytes, timeout_s: float) -> Reply:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=self._config.connect_timeout_s)
        try:
            async with self._opened().post(
                self._url + path, data=body, timeout=timeout, allow_redirects=False
            ) as answer:
                return Reply(answer.status, await answer.read(), _retry_after_s(answer))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            raise LinkDown(f"no connection to {self._url}: {exc}", exc) from exc

    def _opened(self) -> ClientSession:
        if self._closed:
            raise Closed("the session was closed")
        if self._session is None:
            import aiohttp

            config = self._config
            tls: dict[str, Any] = {} if config.ssl_context is None else {"ssl": config.ssl_context}
            connector = aiohttp.TCPConnector(keepalive_timeout=_KEEPALIVE_S, **tls)
            self._session = aiohttp.ClientSession(connector=connector, headers=_HEADERS, proxy=config.proxy_url)
        return self._session


def _retry_after_s(answer: ClientResponse) -> float | None:
    """The header in seconds. One that gives a date, which the venue was never seen to send, says nothing to us."""
    text = answer.headers.get("Retry-After", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
