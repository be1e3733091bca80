"""connect(): one object that owns the session and what stands on it."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal

import orjson

from ._core.feed import Feed
from ._core.sign import Signer
from .config import Endpoints, Network, SessionConfig, TradingConfig
from .errors import Closed, ConfigError, HlconnError, NotSent, SubscriptionRefused
from .info import Info
from .instruments import Instruments
from .market import Market
from .nonces import Nonces
from .session.driver import Driver
from .session.http import Http
from .session.link import Link, LinkState
from .session.pool import Pool
from .trading.trader import Trader

__all__ = ["Client", "connect"]

_log = logging.getLogger("hlconn.client")

StateCallback = Callable[[LinkState, str, int], object]
OnExit = Literal["keep", "cancel"]

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_OUTSIDE = "use the client inside `async with hlconn.connect(...) as hl`"


def connect(
    network: Network | str | Endpoints,
    *,
    key: object = None,
    account: str | None = None,
    vault: str | None = None,
    on_exit: OnExit = "keep",
    instruments: Instruments | bool | None = None,
    config: SessionConfig | None = None,
    trading: TradingConfig | None = None,
    timeout_s: float = 10.0,
    trade_users: bool = False,
) -> Client:
    """A session, to be used as `async with hlconn.connect(...) as hl`.

    network: "mainnet", "testnet", "local" (a node on this machine), or Endpoints.
    key: makes `hl.trader`. A private key as `Signer` takes it, or a `Signer` of this network.
    account: the address that an agent's key trades for; by default the key's own. vault: a vault or sub-account.
    on_exit: what becomes of open orders when the body ends, "keep" or "cancel"; the log says what was done.
    instruments: fetched when there is a key, or for True; or some of yours.
    timeout_s: how long the first connection may take, and then the first look at the account; LinkDown after that. Once
    it was live, the session reconnects for ever, with exponential backoff and full jitter, and subscribes to everything
    again.
    trade_users: trades carry the addresses of both parties (`hlconn.TRADE_USERS_DTYPE`).
    Raises ConfigError for a network that does not exist, and for what does not go together.
    """
    try:
        endpoints = Endpoints.of(network)
        if on_exit not in ("keep", "cancel"):
            raise ConfigError(f"on_exit is 'keep' or 'cancel', not {on_exit!r}")
        if not (_is_address(account) and _is_address(vault)):
            raise ConfigError("account and vault are addresses, 0x and 40 hex digits")  # not shown: it might be the key
        if key is None and (account is not None or vault is not None):
            raise ConfigError("account and vault say for whom to trade: that takes a key as well")
        signer = key if isinstance(key, Signer) else None
        if signer is None and key is not None:
            signer = Signer(key, endpoints.network, vault)
        if signer is not None and signer.network is not endpoints.network:
            raise ConfigError(f"the signer signs for {signer.network.value}, not for {endpoints.network.value}")
        if signer is not None and vault is not None and signer.vault != vault.lower():
            raise ConfigError("the signer acts for another vault than `vault`")
        return Client(
            endpoints,
            config or SessionConfig(),
            timeout_s,
            trade_users,
            signer=signer,
            owns_signer=signer is not key,
            account=None if signer is None else signer.vault or account or signer.address,
            on_exit=on_exit,
            instruments=instruments,
            trading=trading or TradingConfig(),
        )
    finally:
        del key, account, vault  # a traceback that passes here must lead to nothing secret


def _is_address(value: object) -> bool:
    return value is None or (isinstance(value, str) and _ADDRESS.fullmatch(value) is not None)


class _Wire:
    """What a trader needs of the world, from the session: see `hlconn.trading.trader.Wire`."""

    def __init__(self, driver: Driver, http: Http, trading: TradingConfig) -> None:
        self.time_ms = trading.clock
        self._driver, self._http, self._answer_timeout_s = driver, http, trading.answer_timeout_s
        self._loop = asyncio.get_running_loop()

    def write(self, message: bytes, post_id: int, *, urgent: bool) -> bool:
        try:
            self._driver.post(post_id, message, self._answer_timeout_s, urgent=urgent)
        except NotSent:
            return False
        return True

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/info":  # its questions are about what is true from now on, and it has a patience of its own
            return await self._http.queries.ask(orjson.loads(body), tries=1)
        return await self._http.post(path, body, self._answer_timeout_s)

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return self._loop.call_later(delay_s, callback)


class Client:
    """A session with one venue, to be used as `async with`. Made by `connect`.

    market: books and trades. trader, instruments: see there. feed: the level below, for its counters. pool: the
    connections; link: the main one of them, for its counters.

    A callback that raises, or a subscription that the venue refuses and nobody awaits, cancels the body of
    `async with`, which then raises that exception (as `asyncio.TaskGroup` does, but as it is, not in a group). Until
    the body has left its `finally`, everything stays usable: it can cancel its orders there.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        config: SessionConfig,
        timeout_s: float,
        trade_users: bool,
        *,
        signer: Signer | None = None,
        owns_signer: bool = False,
        account: str | None = None,
        on_exit: OnExit = "keep",
        instruments: Instruments | bool | None = None,
        trading: TradingConfig | None = None,
    ) -> None:
        self.endpoints = endpoints
        self.feed = Feed(trade_users=trade_users)
        self._config, self._timeout_s, self._trade_users = config, timeout_s, trade_users
        self._signer, self._owns_signer, self._account, self._on_exit = signer, owns_signer, account, on_exit
        self._trading = trading or TradingConfig()
        self._instruments = instruments if isinstance(instruments, Instruments) else None
        self._wants_instruments = self._instruments is None and (bool(instruments) or signer is not None)
        self._driver: Driver | None = None
        self._market: Market | None = None
        self._http = Http(endpoints, config)
        self._info = Info(self._http.ask, account, clock=self._trading.clock)
        self._nonces: Nonces | None = None
        self._trader: Trader | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._body: asyncio.Task[Any] | None = None
        self._body_done = False
        self._failure: BaseException | None = None
        self._on_state: list[StateCallback] = []

    @property
    def market(self) -> Market:
        """Books and trades. ConfigError outside of `async with`."""
        if self._market is None:
            raise ConfigError(_OUTSIDE)
        return self._market

    @property
    def trader(self) -> Trader:
        """Orders, fills and positions. ConfigError outside of `async with`, and without a key."""
        if self._trader is None:
            raise ConfigError("no key was given to connect()" if self._signer is None else _OUTSIDE)
        return self._trader

    @property
    def info(self) -> Info:
        """Questions to the venue, and histories. ConfigError outside of `async with`."""
        if self._driver is None:
            raise ConfigError(_OUTSIDE)
        return self._info

    @property
    def instruments(self) -> Instruments:
        """What can be traded, by any of its names. ConfigError outside of `async with`, or when not asked for."""
        if self._instruments is None:
            raise ConfigError(_OUTSIDE if self._wants_instruments else "say connect(..., instruments=True), or a key")
        return self._instruments

    @property
    def link(self) -> Link:
        """The main connection: `state`, `subscriptions`, `counters`. ConfigError outside of `async with`."""
        return self.pool.main

    @property
    def pool(self) -> Pool:
        """All connections: `links`, `subscriptions`, `counters` by link. ConfigError outside of `async with`."""
        if self._driver is None:
            raise ConfigError(_OUTSIDE)
        return self._driver.pool

    def on_state(self, callback: StateCallback) -> None:
        """Call `callback(state, reason, now_ns)` at each change of the main link's state, in order with the data.

        When it is no longer live, the books that it served are stale, and the outcome of what was in flight is unknown,
        before anybody is called. now_ns: `time.monotonic_ns()`.
        """
        self._on_state.append(callback)

    async def __aenter__(self) -> Client:
        if self._driver is not None:
            raise ConfigError("a client serves one `async with`: call hlconn.connect() again")
        self._body = asyncio.current_task()
        # The session tells the market as soon as it begins, and the market asks the session for what it wants.
        market = self._market = Market(
            self.feed,
            lambda subscription: driver.subscribe(subscription),
            lambda subscription: driver.unsubscribe(subscription),
            query=self._http.query,
            on_error=self._fail,
            trade_users=self._trade_users,
        )
        driver = self._driver = Driver(
            self.endpoints,
            self._config,
            self.feed,
            on_state=self._state_changed,
            on_up=market.up,
            on_down=market.down,
            on_control=self._control,
            on_refused=self._refused,
            on_subscribed=self._subscribed,
            on_timing=self._timed,
            on_bad_message=market.unreadable,
            on_post_lost=self._post_lost,
            on_callback_error=self._callback_failed,
        )
        try:
            if self._signer is not None:  # before anything is connected: another process may have the key
                trading = self._trading
                self._nonces = Nonces(self._signer.address, trading.nonce_directory, clock=trading.clock)
            await driver.start()
            await driver.wait_live(self._timeout_s)
            if self._wants_instruments:
                self._instruments = await Instruments.fetch(self._http.query)
            if self._wants_instruments and self._config.instruments_every_s is not None:
                again = self._keep_instruments(self.instruments, self._config.instruments_every_s)
                self._refreshing = asyncio.create_task(again, name="hlconn instruments")
            if self._signer is not None:
                await self._start_trading(driver, self._http, self._signer)
        except BaseException as exc:
            await self._end(exc)
            raise
        return self

    async def _start_trading(self, driver: Driver, http: Http, signer: Signer) -> None:
        assert self._nonces is not None
        assert self._account is not None
        assert self._instruments is not None
        self._trader = Trader(
            _Wire(driver, http, self._trading),
            signer,
            self._nonces,
            self._instruments,
            account=self._account,
            config=self._trading,
            book_of=self.market.held,
            on_callback_error=self._fail,
        )
        self._trader.start()
        for subscription in self._trader.subscriptions:
            driver.subscribe(subscription)
        await self._trader.ready(self._timeout_s)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._body_done = True  # a callback that raises from here on has nobody to tell
        left = canceled = None
        try:
            if self._failure is not None:
                try:
                    await asyncio.sleep(0)  # ours may not have arrived yet: it must not hit what follows
                except asyncio.CancelledError as cancellation:
                    exc = canceled = cancellation
            if self._trader is not None:
                left = await self._leave_orders(self._trader)
        finally:
            await self._end(exc)
        if canceled is not None:
            raise canceled  # somebody else's: ours became the failure
        if left is not None and exc is None:
            raise left

    async def _leave_orders(self, trader: Trader) -> HlconnError | None:
        """Do with open orders what `on_exit` says; what went wrong."""
        if self._on_exit == "keep":
            _log.info("the session ends and keeps %d orders (on_exit='keep')", len(trader.orders))
            return None
        try:
            canceled = await trader.cancel_all()
        except HlconnError as exc:
            _log.error("the session ends and could not cancel all orders (on_exit='cancel'): %s", exc)
            return exc
        _log.info("the session ends and sent %d cancels, until no order was left (on_exit='cancel')", len(canceled))
        _log.debug("what they met: %s", canceled)
        return None

    async def _end(self, exc: BaseException | None) -> None:
        assert self._driver is not None
        assert self._body is not None
        failure, self._body_done = self._failure, True
        try:  # each step is taken although the one before it was cancelled
            if self._refreshing is not None:
                self._refreshing.cancel()
            self.market.closed(Closed("the session was closed"))
            if self._trader is not None:
                await self._trader.end()
        finally:
            try:
                await self._driver.close()
            finally:
                try:
                    await self._http.__aexit__(None, None, None)
                finally:
                    if self._nonces is not None:
                        self._nonces.close()
                    if self._signer is not None and self._owns_signer:
                        self._signer.close()
        # Only a cancellation that was ours alone becomes the callback's exception: somebody else's stays one.
        if failure is not None and (self._body.uncancel() == 0 or not isinstance(exc, asyncio.CancelledError)):
            raise failure

    def _fail(self, exc: BaseException) -> None:
        if self._failure is None and not self._body_done and self._body is not None:
            self._failure = exc
            if self._trader is None or not self._trader.hold(self._body, self._body.cancel):
                self._body.cancel()

    async def _keep_instruments(self, instruments: Instruments, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await instruments.refresh()
            except HlconnError as exc:
                _log.warning("the instruments could not be compared with the venue's: %s", exc)
            except Exception as exc:  # a callback's
                self._fail(exc)

    def stats(self) -> dict[str, dict[str, float]]:
        """Percentiles of what the session measured, ns, by name. See `Stats`."""
        return self.market.stats()

    def _state_changed(self, state: LinkState, reason: str, now_ns: int) -> None:
        if self._trader is not None and state is not LinkState.LIVE:
            self._trader.on_down()
        for callback in self._on_state:
            callback(state, reason, now_ns)

    def _control(self, channel: str, message: bytes) -> None:
        if self._trader is not None:
            self._trader.on_message(channel, message)
        self.market.on_message(channel, message)

    def _post_lost(self, post_id: int, reason: str) -> None:
        if self._trader is not None:
            self._trader.on_post_lost(post_id, reason)

    def _timed(self, what: str, seconds: float) -> None:
        self.market.stats.histogram(f"{what}_ns").record(round(seconds * 1e9))

    def _subscribed(self, subscription: dict[str, Any], link: int) -> None:
        if self._trader is not None:
            self._trader.on_subscribed(subscription)

    def _refused(self, subscription: dict[str, Any], message: str) -> None:
        if "user" in subscription:
            self._fail(SubscriptionRefused(subscription, message))
            return
        error = self.market.refused(subscription, message)
        if error is not None:
            self._fail(error)

    def _callback_failed(self, exc: BaseException) -> None:
        if self.feed.failed is not None:
            self.market.callback_failed(*self.feed.failed, exc)
        self._fail(exc)
