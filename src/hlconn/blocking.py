"""The same session for scripts and notebooks, without async: every method blocks until it is done.

The session runs in a thread of its own, with its own event loop; that costs some tens of microseconds a call. Callbacks
run in that thread.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, fields
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar

from .client import Client
from .client import connect as _connect
from .errors import Closed, ConfigError, ErrorCode
from .trading.orders import OrderEvent, OrderState, TrackedOrder
from .trading.trader import Events, Ticket, Trader
from .types import Cloid, Order, Side

__all__ = ["BlockingClient", "BlockingTrader", "OrderCopy", "connect"]

_T = TypeVar("_T")

_LOOK_S = 1.0  # how soon a call that came too late for the session's loop notices


def connect(*args: Any, **kwargs: Any) -> BlockingClient:
    """As `hlconn.connect`, to be used as `with hlconn.blocking.connect(...) as hl`."""
    try:
        return BlockingClient(_connect(*args, **kwargs))
    finally:
        del args, kwargs  # a traceback that passes here must lead to nothing secret


class BlockingClient:
    """A session in a thread of its own. Made by `connect`.

    trader: `hl.trader`, every method of which blocks. client: the session itself; touch it from its own thread alone,
    by `run` or `call`.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="hlconn blocking", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._loop is None:
            self._thread.join()
            self._raise()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop, stop = self._loop, self._stop
        self._loop = None
        if loop is not None and stop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        self._thread.join()
        if exc is None:
            self._raise()

    @property
    def trader(self) -> BlockingTrader:
        """`hl.trader`. ConfigError without a key."""
        return BlockingTrader(self, self.client.trader)

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the session's thread and give what it returns, or raise what it raises."""
        loop = self._loop
        if loop is None or loop.is_closed():
            coroutine.close()
            if self._failure is not None:
                self._raise()
            raise Closed("the session was closed")
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise ConfigError("a callback must not wait for its own thread: use hl.client.trader.submit() there")
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        while True:
            try:
                return future.result(_LOOK_S)
            except TimeoutError:
                if future.done():  # just now; or the TimeoutError is its own
                    return future.result()
            except CancelledError:
                self._thread.join()
            if not self._thread.is_alive():  # the session ended meanwhile
                self._raise()
                raise Closed("the session was closed")

    def call(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Call a plain function in the session's thread."""

        async def there() -> _T:
            return function(*args, **kwargs)

        return self.run(there())

    def book(self, coin: str, **options: Any) -> Any:
        """A copy of the live book as it is now; subscribes, and waits for it, the first time. See `Market.book`."""

        async def there() -> Any:
            return (await self.client.market.book(coin, **options)).copy()

        return self.run(there())

    def _raise(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _serve(self) -> None:
        try:
            asyncio.run(self._session())
        except BaseException as exc:  # whatever it is, it is raised in the thread that waits
            self._failure = exc
        finally:
            self._ready.set()

    async def _session(self) -> None:
        self._stop = asyncio.Event()
        async with self.client:
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            await self._stop.wait()


@dataclass(frozen=True, slots=True)
class OrderCopy:
    """A `TrackedOrder` as it was when it was asked for: the session's thread goes on changing the order itself."""

    coin: str
    side: Side | None
    cloid: Cloid | None
    wanted: Order | None
    adopted: bool
    state: OrderState
    may_be_live: bool
    in_doubt: bool
    oid: int | None
    oids: tuple[int, ...]
    px: Decimal | None
    sz: Decimal | None
    trigger_px: Decimal | None
    filled: Decimal
    remaining: Decimal | None
    avg_px: Decimal | None
    reason: ErrorCode
    message: str


_COPIED = tuple(each.name for each in fields(OrderCopy))


def _copied(value: Any) -> Any:
    """What another thread can keep. To be called in the session's own."""
    if isinstance(value, TrackedOrder):
        return OrderCopy(*(getattr(value, name) for name in _COPIED))
    if isinstance(value, OrderEvent):
        copy: Any = _copied(value.order)
        return OrderEvent(copy)
    if isinstance(value, tuple) and value and isinstance(value[0], TrackedOrder):
        return tuple(map(_copied, value))
    return value


class BlockingTrader:
    """Everything of `Trader`, blocking: `hl.trader.place(order)`, `hl.trader.orders`, `hl.trader.submit(order)`.

    What `submit` and its kin give is a `BlockingTicket`, orders are `OrderCopy`. Callbacks run in the session's thread,
    and get the order itself.
    """

    def __init__(self, client: BlockingClient, trader: Trader) -> None:
        self._client, self._trader = client, trader

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        client = self._client
        value = client.call(lambda: _copied(getattr(self._trader, name)))
        if not callable(value):
            return value

        def blocking(*args: Any, **kwargs: Any) -> Any:
            async def there() -> Any:
                result = value(*args, **kwargs)
                return await result if inspect.iscoroutine(result) else _copied(result)

            result = client.run(there())
            return BlockingTicket(client, result) if isinstance(result, Ticket) else result

        return blocking

    def events(self, maxsize: int = 1000) -> Iterator[Any]:
        """As `Trader.events`, for a plain `for`, which waits for the next one and ends with the session."""
        return self._read(self._client.call(self._trader.events, maxsize))

    def _read(self, events: Events) -> Iterator[Any]:
        async def there() -> Any:
            return _copied(await anext(events, None))

        while True:
            try:
                event = self._client.run(there())
            except Closed:
                return
            if event is None:
                return
            yield event

    def __dir__(self) -> list[str]:
        return [name for name in dir(self._trader) if not name.startswith("_")]


class BlockingTicket:
    """A `Ticket` whose answer and proof are waited for by `result()` and `settled()`."""

    def __init__(self, client: BlockingClient, ticket: Ticket) -> None:
        self._client, self.ticket = client, ticket

    def result(self) -> Any:
        """As `await ticket`."""
        return self._client.run(self.ticket._answer())

    def settled(self) -> Any:
        """As `await ticket.settled()`."""
        return self._client.run(self.ticket.settled())

    def burn(self) -> None:
        """As `ticket.burn()`."""
        self._client.call(self.ticket.burn)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ticket, name)

    def __repr__(self) -> str:
        return f"<Blocking{repr(self.ticket)[1:]}"
