"""connect(): one object that owns the session and what stands on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ._core.feed import Feed
from .config import Endpoints, Network, SessionConfig
from .errors import Closed, ConfigError
from .market import Market
from .session.driver import Driver
from .session.link import Link, LinkState

__all__ = ["Client", "connect"]

StateCallback = Callable[[LinkState, str, int], object]


def connect(
    network: Network | str | Endpoints,
    *,
    config: SessionConfig | None = None,
    timeout_s: float = 10.0,
    trade_users: bool = False,
) -> Client:
    """A session, to be used as `async with hlconn.connect(...) as hl`.

    network: "mainnet", "testnet", "local" (a node on this machine), or Endpoints.
    timeout_s: how long the first connection may take; LinkDown after that. Once it was live, the session reconnects
    for ever, with exponential backoff and full jitter, and subscribes to everything again.
    trade_users: trades carry the addresses of both parties (`hlconn.TRADE_USERS_DTYPE`).
    Raises ConfigError for a network that does not exist.
    """
    return Client(Endpoints.of(network), config or SessionConfig(), timeout_s, trade_users)


class Client:
    """A session with one venue, to be used as `async with`. Made by `connect`.

    market: books and trades. feed: the level below, for its counters. link: the connection, for its counters.

    A callback that raises, or a subscription that the venue refuses and nobody awaits, cancels the body of
    `async with`, which then raises that exception (as `asyncio.TaskGroup` does, but as it is, not in a group).
    """

    def __init__(self, endpoints: Endpoints, config: SessionConfig, timeout_s: float, trade_users: bool) -> None:
        self.endpoints = endpoints
        self.feed = Feed(trade_users=trade_users)
        self._config, self._timeout_s = config, timeout_s
        self._driver: Driver | None = None
        self._market: Market | None = None
        self._body: asyncio.Task[Any] | None = None
        self._body_done = False
        self._failure: BaseException | None = None
        self._on_state: list[StateCallback] = []

    @property
    def market(self) -> Market:
        """Books and trades. ConfigError outside of `async with`."""
        if self._market is None:
            raise ConfigError("use the client inside `async with hlconn.connect(...) as hl`")
        return self._market

    @property
    def link(self) -> Link:
        """The connection's state machine: `state`, `subscriptions`, `counters`. ConfigError outside of `async with`."""
        if self._driver is None:
            raise ConfigError("use the client inside `async with hlconn.connect(...) as hl`")
        return self._driver.link

    def on_state(self, callback: StateCallback) -> None:
        """Call `callback(state, reason, now_ns)` at each change of the link's state, in order with the data.

        When the link is no longer live, books are stale before anybody is called. now_ns: `time.monotonic_ns()`.
        """
        self._on_state.append(callback)

    async def __aenter__(self) -> Client:
        if self._driver is not None:
            raise ConfigError("a client serves one `async with`: call hlconn.connect() again")
        self._body = asyncio.current_task()
        driver = self._driver = Driver(
            self.endpoints,
            self._config,
            self.feed,
            on_state=self._state_changed,
            on_refused=self._refused,
            on_callback_error=self._callback_failed,
        )
        self._market = Market(self.feed, driver.subscribe, driver.unsubscribe)
        try:
            await driver.start()
            await driver.wait_live(self._timeout_s)
        except BaseException as exc:
            await self._end(exc)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end(exc)

    async def _end(self, exc: BaseException | None) -> None:
        assert self._driver is not None
        assert self._body is not None
        # the body has left its `finally`; a callback that raises from here on has nobody to tell
        failure, self._body_done = self._failure, True
        self.market.closed(Closed("the session was closed"))
        await self._driver.close()
        # Only a cancellation that was ours alone becomes the callback's exception: somebody else's stays one.
        if failure is not None and (self._body.uncancel() == 0 or not isinstance(exc, asyncio.CancelledError)):
            raise failure

    def _fail(self, exc: BaseException) -> None:
        if self._failure is None and not self._body_done and self._body is not None:
            self._failure = exc
            self._body.cancel()

    def _state_changed(self, state: LinkState, reason: str, now_ns: int) -> None:
        for callback in self._on_state:
            callback(state, reason, now_ns)

    def _refused(self, subscription: dict[str, Any], message: str) -> None:
        error = self.market.refused(subscription, message)
        if error is not None:
            self._fail(error)

    def _callback_failed(self, exc: BaseException) -> None:
        if self.feed.failed is not None:
            self.market.callback_failed(*self.feed.failed, exc)
        self._fail(exc)
