"""`hl.trader`: typed trading over signed actions. It sends, waits, asks and tells; what is true is the order table's.

It stands on a `Wire`, so that it runs without sockets and on any clock: nothing here opens a connection or reads a
time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Protocol, TypeVar, overload

import orjson

import hlconn._core.action as actions

from .._core.action import Action
from .._core.book import Book
from .._core.sign import Signed, Signer
from ..account import UserSigned
from ..config import TradingConfig
from ..errors import (
    Closed,
    ConfigError,
    ErrorCode,
    HlconnError,
    InvalidOrder,
    LinkDown,
    NotSent,
    OutcomeUnknown,
    QueryFailed,
    Rejected,
)
from ..instruments import Instruments, MarketKind
from ..nonces import Nonces
from ..responses import Request, Success, read_error, read_http, read_info, read_post
from ..types import (
    Ack,
    Builder,
    CancelResult,
    Cloid,
    Done,
    Fill,
    Grouping,
    Number,
    Order,
    Position,
    Priority,
    Side,
    Tif,
    with_cloid,
)
from .orders import (
    ClockBehind,
    Contradicted,
    Differs,
    Event,
    FillEvent,
    Flight,
    Item,
    Kind,
    OrderEvent,
    OrderTable,
    Outcome,
    OutcomeEvent,
    Question,
    Reconciled,
    TrackedOrder,
)

__all__ = ["Events", "Prepared", "Ticket", "Trader", "Wire"]

_log = logging.getLogger("hlconn.trading")  # what orders and messages contain: at DEBUG alone

_T = TypeVar("_T")


class _Default:
    """Says "what the settings say", where None has a meaning of its own."""

    def __repr__(self) -> str:
        return "DEFAULT"


_DEFAULT: Final = _Default()

#: An expiry: venue time in ms, None for none, or as the settings say.
Expiry = int | None | _Default

_TRADING_TYPES = frozenset(("order", "cancel", "cancelByCloid", "modify", "batchModify"))
_CANCELS = frozenset(("cancel", "cancelByCloid", "scheduleCancel"))
_USER_STREAMS = ("orderUpdates", "userFills", "userEvents")
_FILL_OVERLAP_MS = 60_000  # asked for again after a gap: fills of one block can reach us late
_FILL_ROWS = 2000  # of one answer of userFillsByTime
_MICRO = Decimal(10**6)
_CLOCK_TOLD_EVERY_NS = 10 * 10**9
_NONCES_FOR_CANCELS = 20  # of the window; what places an order leaves them alone


class Timer(Protocol):
    def cancel(self) -> object: ...


class Wire(Protocol):
    """What a trader needs of the world."""

    def write(self, message: bytes, post_id: int, *, urgent: bool) -> bool:
        """Write the post of that id to the live link, now. False: there is none, or no room in the venue's budget of
        messages, and nothing was written. urgent: it may use what is kept for cancels.

        True: its answer follows by `Trader.on_message`; or `Trader.on_post_lost`, once, when none came in
        `TradingConfig.answer_timeout_s` or the link went down.
        """

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """POST over HTTP: (status, body). LinkDown when nothing was sent; any other exception leaves that open."""

    def time_ms(self) -> int:
        """This machine's idea of the venue's time."""

    def now_ns(self) -> int:
        """A monotonic clock."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer: ...


@dataclass(slots=True, eq=False)
class Prepared:
    """A signed action that was not sent yet. `trader.send` sends it, once; its nonce is taken.

    signed: the bytes, nonce and signature. payload: the body of POST /exchange.
    """

    signed: Signed | UserSigned
    items: tuple[Item, ...]
    single: bool
    sent: bool = False

    @property
    def payload(self) -> bytes:
        return self.signed.payload


class Ticket:
    """One action on its way.

    `await ticket` waits for the answer. For one order, modify or cancel it gives the `Ack` or `CancelResult`, and
    raises `Rejected`, `OutcomeUnknown`, or `NotSent` when HTTP could not connect. For a list it gives a list with one
    of all these for each, and raises none of them.
    """

    __slots__ = ("_flight", "_single", "_trader", "_waiters")

    def __init__(self, trader: Trader, flight: Flight, single: bool) -> None:
        self._trader, self._flight, self._single = trader, flight, single
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def nonce(self) -> int:
        return self._flight.nonce

    @property
    def expires_after(self) -> int | None:
        """Venue time in ms; None: the action has no expiry."""
        return self._flight.expires_after

    @property
    def cloid(self) -> Cloid | None:
        """Of the first order: what was given, or what was made."""
        return self._flight.items[0].cloid

    @property
    def cloids(self) -> tuple[Cloid | None, ...]:
        return tuple(item.cloid for item in self._flight.items)

    @property
    def done(self) -> bool:
        """The outcome is known: answered, or proven. False: what it asked for may be live."""
        return self._flight.resolved

    @property
    def unknown(self) -> bool:
        """The answer is lost and nothing is proven yet."""
        return self._flight.lost is not None and not self._flight.resolved

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def settled(self) -> Any:
        """Wait for proof, as long as it takes: an action without an expiry may need `burn`.

        Gives the outcome, or the list of them, and raises none: `Ack`, `CancelResult`, `Done`, `Rejected` (by the
        venue, or proven to have had no effect: then `message` says how), `NotSent`. An action other than an order that
        may have been executed gives `OutcomeUnknown` once it cannot be executed any more. OutcomeUnknown is raised when
        the session ends before that.
        """
        while not self._flight.resolved:
            if self._trader.closed:
                raise self._lost
            await self._news()
        outcomes = self._outcomes()
        return outcomes[0] if self._single else outcomes

    def burn(self) -> None:
        """Kill what is still in flight: a noop with its nonce is sent, and raced with cancels of the orders it places.

        A modify's old order is left alone. Repeated with every round of questions until it is answered; see `settled`.
        """
        self._trader._burn(self._flight)

    async def _answer(self) -> Any:
        flight = self._flight
        while not flight.resolved and flight.lost is None:
            await self._news()
        outcomes = self._outcomes()
        if not self._single:
            return outcomes
        if isinstance(outcomes[0], HlconnError):
            raise outcomes[0]
        return outcomes[0]

    async def _news(self) -> None:
        news = asyncio.get_running_loop().create_future()
        self._waiters.append(news)
        await news

    def _outcomes(self) -> list[Outcome]:
        return [self._lost if item.outcome is None else item.outcome for item in self._flight.items]

    @property
    def _lost(self) -> OutcomeUnknown:
        flight = self._flight
        return flight.lost or OutcomeUnknown(flight.action, flight.nonce, (), 0.0, "the session was closed")

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        state = "done" if self.done else "unknown" if self.unknown else "in flight"
        return f"<Ticket {self._flight.action}, nonce {self.nonce}: {state}>"


class _Post:
    """A request on its way: an action, or the noop that is to kill it."""

    __slots__ = ("flight", "is_noop")

    def __init__(self, flight: Flight, is_noop: bool) -> None:
        self.flight, self.is_noop = flight, is_noop

    @property
    def request(self) -> Request:
        flight = self.flight
        if self.is_noop:
            return Request("noop", flight.nonce)
        cloids = tuple(None if item.cloid is None else item.cloid.hex for item in flight.items)
        return Request(flight.action, flight.nonce, cloids)


class Trader:
    """`hl.trader`. For the loop's thread only.

    submit...: synchronous, callable from a callback: checked, signed and written to the live link before they return a
    `Ticket`; with no live link the HTTP request is started. `NotSent` and its kind are raised at once: then nothing
    left this machine. place, modify, cancel: the same, awaited. Nothing is sent twice, nor again under a new nonce.

    account: whom the orders belong to, lower case. Everything about orders is told by the venue's streams and queries
    of this address.
    """

    def __init__(
        self,
        wire: Wire,
        signer: Signer,
        nonces: Nonces,
        instruments: Instruments,
        *,
        account: str,
        config: TradingConfig | None = None,
        book_of: Callable[[str], Book | None] = lambda coin: None,
        on_callback_error: Callable[[BaseException], object] = lambda exc: None,
    ) -> None:
        """book_of: the live book of a coin, for `market` and `close`. on_callback_error: of on_order and on_fill."""
        self.account = account.lower()
        self.closed = False
        self._wire, self._signer, self._nonces, self._instruments = wire, signer, nonces, instruments
        self._config = config or TradingConfig()
        self._book_of, self._on_callback_error = book_of, on_callback_error
        self._loop = asyncio.get_running_loop()
        after_s = self._config.expires_after_s  # an earlier process had the same settings, as far as anybody knows
        foreign_ms = 15_000 if after_s is None else int(after_s * 1000)
        self._table = OrderTable(self._tokens_of, self._dex_of, foreign_ms)
        self._tickets: dict[int, Ticket] = {}  # by nonce, those whose outcome is not known
        self._ids = itertools.count(1)
        self._posts: dict[int, _Post] = {}  # over the present link, those that are lost too: an answer can come late
        self._requests: set[asyncio.Task[None]] = set()  # over HTTP
        self._foreign: set[int] = set()  # nonces of actions that another key signed
        self._burning: dict[int, bool] = {}  # by nonce; True while a noop is on its way
        self._order_callbacks: tuple[Callable[[TrackedOrder], object], ...] = ()
        self._fill_callbacks: tuple[Callable[[Fill], object], ...] = ()
        self._queues: tuple[weakref.ref[Events], ...] = ()
        self._held: dict[asyncio.Task[Any], list[Callable[[], object]]] = {}  # what waits for its cancel_all
        self._dispatching = False
        self._dexs = dict.fromkeys(self._config.dexs)
        self._unacknowledged: set[str] = set(_USER_STREAMS)
        self._connects = 0
        self._to_reconcile = ""  # why open orders, fills and positions are to be compared
        self._pause_s = self._config.retry_min_s
        self._pause: asyncio.Future[None] | None = None
        self._ready = asyncio.Event()
        self._work_to_do = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._reconcile_timer: Timer | None = None
        self._behind_ms: int | None = None  # our clock, by the last state of the account
        self._clock_told_ns: int | None = None  # when that was told last
        self._fills_until_ms = 0  # venue time of the last state before which all fills were asked for

    # --- place, modify, cancel ---

    @overload
    def submit(
        self,
        orders: Order,
        *,
        grouping: Grouping | Priority = ...,
        builder: Builder | None = ...,
        expires_after: Expiry = ...,
    ) -> Ticket: ...
    @overload
    def submit(
        self,
        orders: Iterable[Order],
        *,
        grouping: Grouping | Priority = ...,
        builder: Builder | None = ...,
        expires_after: Expiry = ...,
    ) -> Ticket: ...
    def submit(
        self,
        orders: Order | Iterable[Order],
        *,
        grouping: Grouping | Priority = Grouping.NA,
        builder: Builder | None = None,
        expires_after: Expiry = _DEFAULT,
    ) -> Ticket:
        """Place one order, or several in one action, all or none of which are executed together.

        An order without a cloid gets a fresh one: see the ticket. grouping: NORMAL_TPSL for a parent and its
        take-profit and stop-loss, POSITION_TPSL for those of a position. builder: who earns a fee, only when given.
        expires_after: venue time in ms. Raises InvalidOrder (with the nearest valid values), UnknownCoin, Throttled,
        Closed.
        """
        return self._launch(*self._placing(orders, grouping, builder), expires_after)

    def submit_modify(
        self, oid: int | Cloid, order: Order, *, always_place: bool = False, expires_after: Expiry = _DEFAULT
    ) -> Ticket:
        """Replace an order by another one: the venue cancels the old one and places `order` under a new oid.

        The cloid stays, so `order` names none or the same. It is sent as a batchModify of one, whose answer has the new
        oid. order: ALO, or GTC that does not cross (then it is post-only), unless `always_place`, which also places it
        when the old order is already gone. Raises as `submit` does. Source: the venue's docs, "Modify an order".
        """
        return self._launch(*self._modifying([(oid, order)], True, always_place), expires_after)

    def submit_cancel(
        self, coin: str, oid: int | Cloid, *, fast: bool = False, expires_after: Expiry = _DEFAULT
    ) -> Ticket:
        """Cancel one order. fast: for the mempool's priority; the venue refuses it for trigger orders."""
        return self._launch(*self._canceling([(coin, oid)], True, fast), expires_after)

    async def place(
        self,
        order: Order,
        *,
        builder: Builder | None = None,
        expires_after: Expiry = _DEFAULT,
    ) -> Ack:
        """`await submit(order)`. Raises Rejected, OutcomeUnknown, or NotSent and its kind.

        Cancelled while it waits, the order may be live all the same: give it a cloid of yours (`Cloid.new()`), or keep
        the ticket of `submit`, to ask for it by that afterwards. Without either, look through `orders`.
        """
        ack: Ack = await self.submit(order, builder=builder, expires_after=expires_after)
        return ack

    async def modify(
        self, oid: int | Cloid, order: Order, *, always_place: bool = False, expires_after: Expiry = _DEFAULT
    ) -> Ack:
        """`await submit_modify(...)`: the Ack's oid is the new one."""
        ack: Ack = await self.submit_modify(oid, order, always_place=always_place, expires_after=expires_after)
        return ack

    async def cancel(
        self, coin: str, oid: int | Cloid, *, fast: bool = False, expires_after: Expiry = _DEFAULT
    ) -> CancelResult:
        """`await submit_cancel(...)`. An order that is not found is a result, with `canceled` False.

        It had ended, or it is still on its way: `may_be_live` of the result says whether the latter is possible.
        """
        result: CancelResult = await self.submit_cancel(coin, oid, fast=fast, expires_after=expires_after)
        return result

    async def place_many(
        self,
        orders: Iterable[Order],
        *,
        builder: Builder | None = None,
        expires_after: Expiry = _DEFAULT,
    ) -> list[Ack | Rejected | OutcomeUnknown | NotSent]:
        """Place orders that have nothing to do with each other, `TradingConfig.batch` in an action.

        One outcome for each, in order, errors as values. Raises what is wrong with any of them before anything is sent.
        """
        wanted = list(orders)
        given = [order.cloid for order in wanted if order.cloid is not None]
        if len(set(given)) < len(given):
            raise InvalidOrder("two orders have the same cloid: the venue would place both")
        batches = [self._placing(batch, Grouping.NA, builder) for batch in self._batches(wanted)]
        return await self._in_batches(batches, expires_after)

    async def modify_many(
        self,
        modifies: Iterable[tuple[int | Cloid, Order]],
        *,
        always_place: bool = False,
        expires_after: Expiry = _DEFAULT,
    ) -> list[Ack | Rejected | OutcomeUnknown | NotSent]:
        """`submit_modify` for several, as `place_many` does it."""
        batches = [self._modifying(batch, False, always_place) for batch in self._batches(modifies)]
        return await self._in_batches(batches, expires_after)

    async def cancel_many(
        self, cancels: Iterable[tuple[str, int | Cloid]], *, fast: bool = False, expires_after: Expiry = _DEFAULT
    ) -> list[CancelResult | Rejected | OutcomeUnknown | NotSent]:
        """Cancel (coin, oid or cloid) pairs, as `place_many` does it; oids and cloids go in actions of their own."""
        pairs = list(cancels)
        places = [
            [at for at, (_, oid) in enumerate(pairs) if isinstance(oid, Cloid) is by_cloid]
            for by_cloid in (False, True)
        ]
        parts = [batch for kind in places for batch in self._batches(kind)]
        batches = [self._canceling([pairs[at] for at in batch], False, fast) for batch in parts]
        outcomes = await self._in_batches(batches, expires_after)
        by_place = dict(zip(itertools.chain(*parts), outcomes, strict=True))
        return [by_place[at] for at in range(len(pairs))]

    async def cancel_all(self, coin: str | None = None) -> list[CancelResult | Rejected | OutcomeUnknown | NotSent]:
        """Cancel whatever is open, of one coin or of all, until a query made after that finds nothing.

        Orders of this account that were placed elsewhere are canceled too. Actions in doubt that may still place an
        order are burned. What cannot be sent now is sent in a later round. Gives what each cancel met; an order may
        occur more than once. Raises OutcomeUnknown when after `settle_timeout_s` something may still be live, with the
        cloids of what that is; sooner when nothing is left but orders in coins that `instruments` does not have.
        A callback that raises meanwhile cancels the body of `async with` only when this is over.
        """
        name = None if coin is None else self._instruments[coin].coin
        task = asyncio.current_task()
        if task is None or task in self._held:
            return await self._cancel_until_none(name)
        held = self._held[task] = []
        try:
            return await self._cancel_until_none(name)
        finally:
            del self._held[task]
            for call in held:
                call()

    async def _cancel_until_none(self, name: str | None) -> list[Any]:
        results: list[Any] = []
        start_ns, pause_s, looks = self._wire.now_ns(), self._config.retry_min_s, 0
        not_sent = ""
        while True:
            why, listed = "", {}
            try:
                listed = await self._look_at_open_orders(name)
                looks += 1
            except (QueryFailed, NotSent) as exc:
                why = f"open orders could not be asked for: {exc}"
            todo = [order for order in self._table.live if name in (None, order.coin)]
            if not (why or listed or todo):
                return results
            waited_s = (self._wire.now_ns() - start_ns) / 1e9
            hopeless = not why and looks > 1 and all(c not in self._instruments for c in _coins(todo, listed))
            if hopeless or waited_s > self._config.settle_timeout_s:
                cloids = tuple(order.cloid.hex for order in todo if order.cloid is not None)
                reason = why or f"{len(listed)} orders are listed as open, {len(todo)} may be live"
                raise OutcomeUnknown("cancel", 0, cloids, waited_s, f"{reason}{not_sent}")
            not_sent = ""
            try:
                met = await self._cancel_these(todo, listed)
            except Closed:
                raise
            except NotSent as exc:  # no nonce is free, say: one may be in the next round
                met = [exc]
            results += met
            for each in met:
                if isinstance(each, NotSent):
                    not_sent = f"; not every cancel was sent: {each}"
            await self._sleep(pause_s)
            pause_s = min(2 * pause_s, self._config.retry_max_s)

    def hold(self, task: asyncio.Task[Any], call: Callable[[], object]) -> bool:
        """Call it when the `cancel_all` that this task is in is over. False: it is in none."""
        held = self._held.get(task)
        if held is None:
            return False
        held.append(call)
        return True

    async def market(self, coin: str, side: Side, sz: Number, slippage: float = 0.05, **options: Any) -> Ack:
        """Take liquidity now: an IOC order at the mid price of the live book, worsened by `slippage` (0.05 is 5 %).

        The price is rounded so that the bound holds. options: as of `place`. NotSent when there is no live book of the
        coin. Source: the venue has no market orders; its frontend does the same.
        """
        return await self.place(self._market_order(coin, side, sz, slippage, reduce_only=False), **options)

    async def close(self, coin: str, slippage: float = 0.05, **options: Any) -> Ack | None:
        """Close the position in `coin` by a reduce-only order as `market` sends it. None when there is none.

        The positions of a dex that was not looked at yet are asked for first: QueryFailed or LinkDown, if that fails.
        """
        name = self._instruments[coin].coin
        dex = self._dex_of(name)
        if not self._table.knows_positions(dex):
            self._add_dex(dex)
            await self.reconcile()
        position = self._table.positions.get(name)
        if position is None:
            return None
        side = Side.SELL if position.szi > 0 else Side.BUY
        order = self._market_order(coin, side, abs(position.szi), slippage, reduce_only=True)
        return await self.place(order, **options)

    # --- other actions ---

    async def set_leverage(
        self, coin: str, leverage: int, *, is_cross: bool = True, expires_after: Expiry = _DEFAULT
    ) -> Done:
        """Set leverage and margin mode of a perp. Source: the venue's docs, "Update leverage"."""
        return await self._do(
            actions.update_leverage(coin, leverage, self._instruments, is_cross=is_cross), expires_after
        )

    async def adjust_isolated_margin(self, coin: str, usd: Number, *, expires_after: Expiry = _DEFAULT) -> Done:
        """Add margin to an isolated position, or with a negative number remove it. usd: at most 6 decimals."""
        try:
            micro = Decimal(str(usd)) * _MICRO
        except InvalidOperation:
            raise InvalidOrder(f"usd must be a decimal number, not {usd!r}") from None
        if not micro.is_finite() or micro != micro.to_integral_value():
            raise InvalidOrder(f"usd has at most 6 decimals: {usd!r}")
        return await self._do(actions.update_isolated_margin(coin, int(micro), self._instruments), expires_after)

    async def schedule_cancel(self, time_ms: int | None = None, *, expires_after: Expiry = _DEFAULT) -> Done:
        """All open orders are canceled at this venue time, at least 5 s ahead; None takes that back.

        Source: the venue's docs, "Schedule cancel"; 10 triggers a day, and only for accounts with volume.
        """
        return await self._do(actions.schedule_cancel(time_ms), expires_after)

    async def action(
        self, action: Action | Mapping[str, Any], *, expires_after: Expiry = _DEFAULT, **vault: Any
    ) -> Done:
        """Any other L1 action, as `Signer.sign` takes it (vault=... likewise). ConfigError for those with a method.

        What the account's own key signs comes signed from `hlconn.account`: see `send`.
        """
        return await self._do(action, expires_after, **vault)

    # --- in two steps ---

    def prepare(
        self,
        orders: Order | Iterable[Order],
        *,
        grouping: Grouping | Priority = Grouping.NA,
        builder: Builder | None = None,
        expires_after: Expiry = _DEFAULT,
    ) -> Prepared:
        """As `submit`, without sending: signed, with its nonce taken. Send it soon: its expiry runs."""
        return self._sign(*self._placing(orders, grouping, builder), expires_after)

    def prepare_cancel(
        self, coin: str, oid: int | Cloid, *, fast: bool = False, expires_after: Expiry = _DEFAULT
    ) -> Prepared:
        """As `submit_cancel`, without sending."""
        return self._sign(*self._canceling([(coin, oid)], True, fast), expires_after)

    def discard(self, prepared: Prepared) -> None:
        """It will not be sent: its nonce is no longer waited for."""
        if not prepared.sent:
            prepared.sent = True
            self._nonces.done(prepared.signed.nonce)

    def send(self, signed: Prepared | Signed | UserSigned) -> Ticket:
        """Send what was prepared, or what `hlconn.account` signed. Once: NotSent for what was sent or discarded."""
        if not isinstance(signed, Prepared):
            if signed.action in _TRADING_TYPES:
                raise ConfigError(f"{signed.action}: use prepare(), which knows its orders")
            self._refuse_closed()
            if any(flight.nonce == signed.nonce for flight in self._table.flights):
                raise NotSent(f"an action with nonce {signed.nonce} is on its way already: sign it with another one")
            if not self._nonces.avoid(signed.nonce):
                raise NotSent(f"nonce {signed.nonce} is that of an action that was prepared: sign it with another one")
            if signed.signer_address() != self._signer.address:
                self._foreign.add(signed.nonce)
            signed = Prepared(signed, (Item(Kind.OTHER),), True)
        if signed.sent:
            raise NotSent("this was sent or discarded: nothing is ever sent twice")
        self._refuse_closed()
        for item in signed.items:
            if item.kind is Kind.PLACE and item.cloid is not None and self._table.find(item.cloid) is not None:
                raise InvalidOrder(f"{item.cloid!r} is taken: the venue would place a second order under it")
        signed.sent = True
        return self._fly(signed)

    # --- what is known ---

    @property
    def orders(self) -> tuple[TrackedOrder, ...]:
        """Orders that may be live, oldest first: also those placed elsewhere, and those in doubt."""
        return self._table.live

    @property
    def ended_orders(self) -> tuple[TrackedOrder, ...]:
        """Orders that ended, in that order: the last 10,000."""
        return self._table.ended

    def order(self, oid: int | Cloid) -> TrackedOrder | None:
        """By its cloid, or any oid that it ever had. None: not known, or forgotten."""
        return self._table.find(oid)

    @property
    def positions(self) -> dict[str, Position]:
        """Of perps, by coin: the venue's state and every fill since. Flat ones are left out."""
        return self._table.positions

    @property
    def balances(self) -> dict[str, Decimal]:
        """Spot and outcome tokens, by the venue's name: its state and every fill since."""
        return self._table.balances

    @property
    def fills(self) -> tuple[Fill, ...]:
        """Of this session, each once: the last 100,000."""
        return self._table.fills

    @property
    def unknown(self) -> tuple[OutcomeUnknown, ...]:
        """Actions whose outcome is not proven yet."""
        return tuple(flight.lost for flight in self._table.doubts if flight.lost is not None)

    def on_order(self, callback: Callable[[TrackedOrder], object]) -> Callable[[], None]:
        """Call `callback(order)` after each change of an order, also of those placed elsewhere. Returns what ends it.

        Synchronous, in the receive path, after everything the message said was taken in. One that raises is not called
        again, and ends the body of `async with connect()`.
        """
        self._order_callbacks += (callback,)
        return lambda: self._drop(callback)

    def on_fill(self, callback: Callable[[Fill], object]) -> Callable[[], None]:
        """Call `callback(fill)` once for each fill of this session, as `on_order` does."""
        self._fill_callbacks += (callback,)
        return lambda: self._drop(callback)

    def events(self, maxsize: int = 1000) -> Events:
        """What happens from now on, in order: `OrderEvent`, `FillEvent`, `OutcomeEvent`, `Differs`, `Reconciled`,
        `Contradicted`, `ClockBehind`.

        For `async for`. Ends with the session. When more than `maxsize` wait, the oldest are dropped, which the log
        says.
        """
        events = Events(maxsize, self.closed)
        read = (each for each in self._queues if each() is not None)
        self._queues = (*read, weakref.ref(events))  # who reads it keeps it
        return events

    async def reconcile(self) -> None:
        """Compare open orders, fills and positions with the venue's now. Raises QueryFailed or LinkDown."""
        await self._compare("asked for")
        self._dispatch()

    # --- what the session tells ---

    @property
    def subscriptions(self) -> list[dict[str, str]]:
        """The streams of the account that have to be subscribed to, on every connection."""
        return [{"type": kind, "user": self.account} for kind in _USER_STREAMS]

    def start(self) -> None:
        """Begin to ask and to compare."""
        self._worker = self._loop.create_task(self._work(), name="hlconn trading")
        self._worker.add_done_callback(self._worker_ended)

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled() and (exc := worker.exception()) is not None:  # a bug of ours: nothing is proven now
            _log.critical("trading can prove nothing any more", exc_info=exc)
            self._on_callback_error(exc)

    async def ready(self, timeout_s: float) -> None:
        """Wait for the first comparison: orders and positions are known from then on. LinkDown after `timeout_s`."""
        looked = self._loop.create_task(self._ready.wait())
        try:
            await self._sleep(timeout_s, looked)
            if not looked.done():
                raise LinkDown(f"the account {self.account} could not be read within {timeout_s:g} s: see the log")
        finally:
            looked.cancel()

    def on_subscribed(self, subscription: Mapping[str, Any]) -> None:
        """The venue acknowledged a stream. Only what is asked for after that has no gap before the stream."""
        self._unacknowledged.discard(str(subscription.get("type")))
        if not self._unacknowledged:
            self._connects += 1
            self._compare_soon("connected" if self._connects == 1 else "reconnected")

    def on_down(self, reason: str) -> None:
        """The link is gone: no answer comes late any more. What it had in flight was lost before: `on_post_lost`."""
        self._unacknowledged = set(_USER_STREAMS)
        self._posts.clear()

    def on_post_lost(self, post_id: int, reason: str) -> None:
        """No answer came in time, or the link went down: what was asked for may have been done."""
        post = self._posts.get(post_id)
        if post is not None:
            self._lose(post, reason)
            self._dispatch()

    def on_message(self, channel: str, message: bytes) -> None:
        """A message of a channel that is the trader's. Unreadable ones are logged, and everything is compared anew."""
        try:
            data = orjson.loads(message)["data"]
            if channel == "post":
                self._on_post(data)
            elif channel == "orderUpdates":
                self._table.on_order_updates(data)
            elif channel == "userFills":
                if data["user"].lower() == self.account:
                    self._table.on_fills(data["fills"])
            elif channel == "user":
                if "fills" in data:
                    self._table.on_fills(data["fills"])
                elif "nonUserCancel" in data:
                    self._table.on_non_user_cancels(data["nonUserCancel"])
            elif channel == "error" and (post_id := read_error(data).post_id) is not None:
                self._on_post({"id": post_id, "response": {"type": "error", "payload": data}})
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            _log.error("a message of channel %s could not be read (%s)", channel, type(exc).__name__)
            _log.debug("%r in %r", exc, message[:200])
            self._compare_soon("an unreadable message")
        self._dispatch()

    async def end(self) -> None:
        """Nothing is sent any more, and whoever waits is told that the outcome is unknown."""
        self.closed = True
        if self._reconcile_timer is not None:
            self._reconcile_timer.cancel()
        tasks = [*self._requests, *([] if self._worker is None else [self._worker])]
        for task in tasks:
            task.cancel()
        for flight in self._table.flights:  # all of it before the first await: that can be cancelled
            self._table.lost(flight.nonce, self._waited_s(flight), "the session was closed")
        self._dispatch()
        if self._table.live:
            _log.warning("%d orders are left at the end of the session", len(self._table.live))
            _log.debug("left at the end of the session: %r", self._table.live)
        for ticket in self._tickets.values():
            ticket._wake()
        for reference in self._queues:
            if (events := reference()) is not None:
                events._close()
        if tasks:
            await asyncio.wait(tasks)

    # --- from orders to items ---

    def _placing(
        self, orders: Order | Iterable[Order], grouping: Grouping | Priority, builder: Builder | None
    ) -> tuple[Action, tuple[Item, ...], bool]:
        single = isinstance(orders, Order)
        items = []
        wanted = []
        cloids = set()
        for given in (orders,) if isinstance(orders, Order) else orders:
            order, cloid = given, given.cloid
            if cloid is None:
                cloid = Cloid.new()
                order = with_cloid(order, cloid)
            elif cloid in cloids or self._table.find(cloid) is not None:
                raise InvalidOrder(f"{cloid!r} is taken: the venue would place a second order under it")
            else:
                cloids.add(cloid)
            coin = self._instruments[order.coin].coin
            wanted.append(order)
            items.append(Item(Kind.PLACE, TrackedOrder(coin, order.side, cloid, order), order, coin=coin))
        action = actions.order(wanted, self._instruments, grouping=grouping, builder=builder)
        if grouping is Grouping.NORMAL_TPSL:
            for item in items[1:]:
                assert item.order is not None
                item.order.parent = items[0].order
        return action, tuple(items), single

    def _modifying(
        self, modifies: Iterable[tuple[int | Cloid, Order]], single: bool, always_place: bool
    ) -> tuple[Action, tuple[Item, ...], bool]:
        items = []
        for oid, given in modifies:
            order = given
            coin = self._instruments[order.coin].coin
            if not always_place and (order.trigger is not None or order.tif is Tif.IOC):
                raise InvalidOrder("a modify places ALO or resting GTC orders only: say always_place=True, or cancel")
            tracked = self._table.order_for(coin, oid)
            if tracked.coin != coin:
                raise InvalidOrder(f"{oid!r} is an order of {tracked.coin}, not of {coin}")
            if order.cloid is None:
                order = with_cloid(order, tracked.cloid or Cloid.new())
            if tracked.cloid not in (None, order.cloid):
                raise InvalidOrder(f"an order keeps its cloid through a modify: {tracked.cloid!r}, not {order.cloid!r}")
            assert order.cloid is not None
            if self._table.find(order.cloid) not in (None, tracked):
                raise InvalidOrder(f"{order.cloid!r} is taken by another order")
            items.append(Item(Kind.MODIFY, tracked, order, oid, coin, always_place))
        wanted = [(item.target, item.wanted) for item in items if item.target is not None and item.wanted is not None]
        action = actions.batch_modify(wanted, self._instruments, always_place=always_place)
        return action, tuple(items), single

    def _canceling(
        self, cancels: Iterable[tuple[str, int | Cloid]], single: bool, fast: bool
    ) -> tuple[Action, tuple[Item, ...], bool]:
        items = []
        for name, oid in cancels:
            coin = self._instruments[name].coin
            items.append(Item(Kind.CANCEL, self._table.order_for(coin, oid), None, oid, coin))
        by_oid = [(item.coin, item.target) for item in items if isinstance(item.target, int)]
        by_cloid = [(item.coin, item.target) for item in items if isinstance(item.target, Cloid)]
        if by_cloid:
            return actions.cancel_by_cloid(by_cloid, self._instruments, fast=fast), tuple(items), single
        return actions.cancel(by_oid, self._instruments, fast=fast), tuple(items), single

    def _market_order(self, coin: str, side: Side, sz: Number, slippage: float, *, reduce_only: bool) -> Order:
        instrument = self._instruments[coin]
        if not 0 <= slippage < 1:
            raise InvalidOrder(f"slippage must be from 0 to below 1 (0.05 is 5 %), not {slippage!r}")
        book = self._book_of(instrument.coin)
        if book is None or book.stale:
            why = "there is none" if book is None else f"it is stale: {book.stale_reason}"
            raise NotSent(f"the price comes from the live book of {instrument.coin}, and {why}: hl.market.book() first")
        mid = book.mid
        if not mid > 0:
            raise NotSent(f"the book of {instrument.coin} has an empty side: there is no price to go by")
        worst = mid * (1 + slippage if side is Side.BUY else 1 - slippage)
        px = instrument.round_px(worst, side, "passive")
        return Order(instrument.coin, side, px, sz, Tif.IOC, reduce_only=reduce_only)

    def _batches(self, things: Iterable[_T]) -> list[list[_T]]:
        rest = list(things)
        size = int(self._config.batch)
        return [rest[at : at + size] for at in range(0, len(rest), size)]

    async def _in_batches(
        self, batches: list[tuple[Action, tuple[Item, ...], bool]], expires_after: Expiry
    ) -> list[Any]:
        """All written before the first answer is waited for. What could not be sent any more is told in its place."""
        sent: list[Ticket | list[NotSent]] = []
        for action, items, single in batches:
            try:
                sent.append(self._launch(action, items, single, expires_after))
            except NotSent as exc:
                if not sent:
                    raise
                sent.append([exc] * len(items))
        outcomes: list[Any] = []
        for each in sent:
            outcomes += await each if isinstance(each, Ticket) else each
        return outcomes

    async def _do(self, action: Action | Mapping[str, Any], expires_after: Expiry, **vault: Any) -> Done:
        kind = action.type if isinstance(action, Action) else action.get("type")
        if kind in _TRADING_TYPES:
            raise ConfigError(f"{kind}: use submit and its kin, which keep account of the orders")
        done: Done = await self._launch(action, (Item(Kind.OTHER),), True, expires_after, **vault)
        return done

    # --- sending ---

    def _sign(
        self,
        action: Action | Mapping[str, Any],
        items: tuple[Item, ...],
        single: bool,
        expires_after: Expiry,
        **vault: Any,
    ) -> Prepared:
        self._refuse_closed()
        if isinstance(expires_after, _Default):
            after_s = self._config.expires_after_s
            expires_after = None if after_s is None else self._wire.time_ms() + int(after_s * 1000)
        places = bool(items) and items[0].wanted is not None
        nonce = self._nonces.take(_NONCES_FOR_CANCELS if places else 0)
        try:
            signed = self._signer.sign(action, nonce, expires_after, **vault)
        except BaseException:
            self._nonces.done(nonce)
            raise
        return Prepared(signed, items, single)

    def _launch(
        self,
        action: Action | Mapping[str, Any],
        items: tuple[Item, ...],
        single: bool,
        expires_after: Expiry,
        **vault: Any,
    ) -> Ticket:
        return self._fly(self._sign(action, items, single, expires_after, **vault))

    def _fly(self, prepared: Prepared) -> Ticket:
        signed = prepared.signed
        prepared.sent = True
        expires_after = signed.expires_after if isinstance(signed, Signed) else None  # user-signed ones carry none
        flight = Flight(signed.action, signed.nonce, prepared.items, expires_after, self._wire.now_ns())
        ticket = self._tickets[signed.nonce] = Ticket(self, flight, prepared.single)
        for item in prepared.items:
            if item.coin:
                self._add_dex(self._dex_of(item.coin))
        self._table.sent(flight)
        self._transmit(signed, flight, is_noop=False)
        return ticket

    def _transmit(self, signed: Signed | UserSigned, flight: Flight, *, is_noop: bool) -> None:
        post_id = next(self._ids)
        post = self._posts[post_id] = _Post(flight, is_noop)  # before the answer can be there
        try:
            written = self._wire.write(signed.post(post_id), post_id, urgent=is_noop or signed.action in _CANCELS)
        except BaseException as exc:  # it may have left, and its answer may still come
            _log.error("writing %s with nonce %d raised: %r", signed.action, flight.nonce, exc)
            self._lose(post, f"writing it raised {exc!r}")
            self._loop.call_soon(self._dispatch)  # not before whoever sends it has the ticket
            if not isinstance(exc, Exception):
                raise
            return
        if not written:
            del self._posts[post_id]
            task = self._loop.create_task(self._over_http(signed.payload, post), name="hlconn action")
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

    async def _over_http(self, payload: bytes, post: _Post) -> None:
        flight = post.flight
        try:
            status, body = await self._wire.post("/exchange", payload)
        except LinkDown as exc:
            if post.is_noop or flight.resolved:
                self._lose(post, str(exc))
            else:
                self._table.not_sent(flight.nonce, exc)
        except Exception as exc:
            self._lose(post, f"{type(exc).__name__}: {exc}")
        else:
            try:
                self._answered(post, read_http(post.request, status, body, self._waited_s(flight)))
            except Exception as exc:  # a bug of ours: what it asked for may be live
                _log.exception("the answer to nonce %d could not be taken in", flight.nonce)
                self._lose(post, f"its answer could not be read: {exc!r}")
        self._dispatch()

    def _on_post(self, data: Any) -> None:
        post = self._posts.pop(data["id"], None)
        if post is None:
            return
        try:
            self._answered(post, read_post(post.request, data["response"], self._waited_s(post.flight)))
        except Exception as exc:
            self._lose(post, f"its answer could not be read: {exc!r}")
            raise

    def _answered(self, post: _Post, answer: Any) -> None:
        nonce = post.flight.nonce
        if post.flight.resolved:  # by proof; another key's action may have the same nonce now
            return
        told = answer.items[0]
        if isinstance(told, Rejected) and told.code is ErrorCode.EXPIRED:
            self._check_clock(post.flight.expires_after)
        if not post.is_noop:
            self._table.answered(nonce, answer)
            return
        if isinstance(told, Success):
            self._table.burned(nonce)
        elif isinstance(told, Rejected) and told.code in (ErrorCode.NONCE_DUPLICATE, ErrorCode.NONCE_TOO_LOW):
            self._table.spent(nonce)
        if nonce in self._burning:
            self._burning[nonce] = False  # on its way no more: it may be sent again

    def _check_clock(self, expires_after: int | None) -> None:
        """The venue's time is past this expiry. If ours is not, our clock is behind, and every action may expire."""
        at_least_ms = 0 if expires_after is None else expires_after - self._wire.time_ms()
        now_ns, told_ns = self._wire.now_ns(), self._clock_told_ns
        if at_least_ms > 0 and (told_ns is None or now_ns - told_ns >= _CLOCK_TOLD_EVERY_NS):
            self._clock_told_ns = now_ns
            self._table.note(ClockBehind(at_least_ms, self._behind_ms))

    def _lose(self, post: _Post, reason: str) -> None:
        if post.flight.resolved:
            return
        if post.is_noop:
            if post.flight.nonce in self._burning:
                self._burning[post.flight.nonce] = False
        else:
            self._table.lost(post.flight.nonce, self._waited_s(post.flight), reason)

    def _burn(self, flight: Flight) -> None:
        if flight.resolved:
            return
        self._refuse_closed()
        if flight.nonce in self._foreign:
            raise NotSent("only the key that signed it can spend its nonce")
        self._send_noop(flight)
        cancels = [
            (item.coin, item.order.cloid)
            for item in flight.items
            if item.kind is Kind.PLACE
            and item.outcome is None
            and item.order is not None
            and item.order.cloid is not None
        ]
        if cancels:
            try:
                self._launch(*self._canceling(cancels, False, False), _DEFAULT)
            except NotSent as exc:
                _log.warning("only the noop was sent to kill nonce %d: %s", flight.nonce, exc)
        self._work_to_do.set()

    def _send_noop(self, flight: Flight) -> None:
        """With the nonce of the action itself: if it is executed, the action never can be."""
        self._burning[flight.nonce] = True
        self._transmit(self._signer.sign(actions.noop(), flight.nonce, vault=None), flight, is_noop=True)

    def _waited_s(self, flight: Flight) -> float:
        return (self._wire.now_ns() - flight.sent_ns) / 1e9

    def _refuse_closed(self) -> None:
        if self.closed:
            raise Closed("the session was closed")

    # --- telling ---

    def _dispatch(self) -> None:
        """Tell what the table collected. A callback may send; what that causes is told after what caused it."""
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while events := self._table.take_events():
                for event in events:
                    self._tell(event)
        finally:
            self._dispatching = False
        if self._table.to_compare:
            reason, self._table.to_compare = self._table.to_compare, ""
            self._dexs |= self._table.dexs
            if self._connects:
                self._compare_soon(reason)
        if self._to_reconcile or self._has_questions():
            self._work_to_do.set()

    def _tell(self, event: Event) -> None:
        match event:
            case OutcomeEvent(nonce=nonce, resolved=resolved, flight=flight):
                if resolved:
                    self._nonces.done(nonce)
                    self._burning.pop(nonce, None)
                    self._foreign.discard(nonce)
                    if event.proof:
                        _log.info("%s with nonce %d is proven (%s)", event.action, nonce, event.proof)
                        _log.debug("the outcomes of nonce %d: %s", nonce, event.outcomes)
                else:
                    _log.warning("%s with nonce %d has no answer and may be live", event.action, nonce)
                    _log.debug("%s", flight.lost)  # it can hold what came instead of an answer
                    self._hurry()
                ticket = self._tickets.pop(nonce, None) if resolved else self._tickets.get(nonce)
                if ticket is not None:
                    ticket._wake()
            case OrderEvent(order=order):
                self._call(self._order_callbacks, order)
            case FillEvent(fill=fill):
                self._call(self._fill_callbacks, fill)
            case ClockBehind(at_least_ms=at_least_ms, probable_ms=probable_ms):
                _log.error(
                    "the venue refused as expired what had not expired by our clock, which is behind by %d ms or more "
                    "(probably by %s ms): set this machine's clock (NTP), give TradingConfig a clock, or raise "
                    "expires_after_s",
                    at_least_ms,
                    "an unknown number of" if probable_ms is None else probable_ms,
                )
            case Contradicted(order=order, oid=oid):
                _log.error(
                    "the venue lists an order in %s as open, again and again, and by all that was heard it had ended: "
                    "cancel the oid of the event Contradicted, or call cancel_all()",
                    order.coin,
                )
                _log.debug("oid %d, which had ended: %r", oid, order)
            case Differs(of=of, difference=difference):
                what = "balance" if of == "spot" else "position"
                _log.warning("the %s in %s is not what fills add up to: the venue's counts", what, difference.name)
                _log.debug("%s", difference)
            case Reconciled(reason=reason):
                _log.info("orders, fills, positions and balances are the venue's: %s", reason)
        for reference in self._queues:
            if (events := reference()) is not None:
                events._put(event)

    def _call(self, callbacks: tuple[Callable[[Any], object], ...], value: object) -> None:
        for callback in callbacks:
            try:
                callback(value)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as exc:
                self._drop(callback)
                self._on_callback_error(exc)

    def _drop(self, callback: Callable[[Any], object]) -> None:
        self._order_callbacks = tuple(each for each in self._order_callbacks if each is not callback)
        self._fill_callbacks = tuple(each for each in self._fill_callbacks if each is not callback)

    # --- asking ---

    def _has_questions(self) -> bool:
        return self._table.has_questions or any(
            flight.expires_after is not None or flight.nonce in self._burning for flight in self._table.doubts
        )

    def _compare_soon(self, reason: str) -> None:
        self._to_reconcile = reason
        self._hurry()

    def _add_dex(self, dex: str) -> None:
        """Look at its orders and positions from now on."""
        if dex not in self._dexs:
            self._dexs[dex] = None
            if self._connects:  # else the first comparison is still to come
                self._compare_soon("another dex")

    def _hurry(self) -> None:
        """There is a new doubt: do not wait for the end of a pause made for old ones."""
        self._pause_s = self._config.retry_min_s
        self._work_to_do.set()
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)

    async def _work(self) -> None:
        """Ask until nothing is open, with growing pauses while nothing changes; then wait for the next doubt."""
        while True:
            if not self._to_reconcile and not self._has_questions():
                self._pause_s = self._config.retry_min_s
                self._work_to_do.clear()
                await self._work_to_do.wait()
            try:
                await self._round()
            except (QueryFailed, NotSent) as exc:
                if _unreadable(exc):
                    _log.error("an answer to a query could not be read, asking again in %.2f s", self._pause_s)
                    _log.debug("the answer that could not be read", exc_info=exc)
                else:
                    _log.info("the venue could not be asked, trying again in %.2f s: %s", self._pause_s, exc)
            self._dispatch()
            if self._to_reconcile or self._has_questions():
                pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, self._config.retry_max_s)
                self._pause = self._loop.create_future()
                await self._sleep(pause_s, self._pause)
                self._pause = None

    async def _round(self) -> None:
        failure: Exception | None = None
        if self._to_reconcile:
            reason, self._to_reconcile = self._to_reconcile, ""
            agreed = False
            try:
                agreed = await self._compare(reason)
            except (QueryFailed, NotSent) as exc:
                failure = exc  # what can be asked is asked all the same
            finally:
                if not agreed:
                    self._to_reconcile = self._to_reconcile or reason
        for flight in self._table.flights:
            if self._burning.get(flight.nonce) is False and flight.closed_mark is None:
                self._send_noop(flight)
        now_ms = self._wire.time_ms()  # it measures no more than the time since we signed: what counts is the venue's
        if self._table.awaits_time(now_ms):
            status = await self._query("exchangeStatus")
            with _reading("exchangeStatus"):
                self._table.venue_time(status["time"], int(self._config.expiry_margin_s * 1000))
        for question in self._table.questions():
            try:
                await self._ask(question)
            except QueryFailed as exc:
                if not _unreadable(exc):
                    raise
                failure = exc  # the others may be answered better
        if failure is not None:
            raise failure

    async def _ask(self, question: Question) -> None:
        mark = self._table.mark()
        subject = question.subject
        if subject is None:
            rows = await self._query("historicalOrders", user=self.account)
            with _reading("historicalOrders"):
                self._table.on_history(mark, rows)
        else:
            oid = subject.hex if isinstance(subject, Cloid) else subject
            reply = await self._query("orderStatus", user=self.account, oid=oid)
            with _reading("orderStatus"):
                self._table.on_status(mark, subject, reply)
        self._dispatch()

    async def _compare(self, reason: str) -> bool:
        """False: positions or balances differ, and should be compared once more before that is believed."""
        await self._look_at_open_orders(None)
        states = {
            dex: await self._query("clearinghouseState", user=self.account, **_dex(dex)) for dex in list(self._dexs)
        }
        with _reading("clearinghouseState"):
            times = [state["time"] + 0 for state in states.values()]
            time_ms = min(times)
            self._behind_ms = max(times) - self._wire.time_ms()
        if self._ready.is_set():
            await self._look_for_fills()
        self._fills_until_ms = max(self._fills_until_ms, time_ms)
        with _reading("clearinghouseState"):
            self._table.begin(states[next(iter(states))]["time"])
            agreed = [self._table.on_positions(dex, state) for dex, state in states.items()]
        spot = await self._query("spotClearinghouseState", user=self.account)
        until_ms = None
        if self._table.ledgers["spot"].time_ms is None:  # its time is somewhere between those of two other states
            later = await self._query("clearinghouseState", user=self.account, **_dex(next(iter(states))))
            with _reading("clearinghouseState"):
                until_ms = later["time"]
        with _reading("spotClearinghouseState"):
            agreed.append(self._table.on_balances(time_ms, spot, until_ms))
        if all(agreed):
            self._table.note(Reconciled(reason))
            self._ready.set()
            if self._reconcile_timer is not None:
                self._reconcile_timer.cancel()
            self._reconcile_timer = self._wire.call_later(self._config.reconcile_every_s, self._compare_again)
        return all(agreed)

    def _compare_again(self) -> None:
        self._compare_soon("the time had come")

    async def _look_at_open_orders(self, coin: str | None) -> dict[int | Cloid, str]:
        """The oids that the venue lists as open now, of one coin or of all, with their coins."""
        listed: dict[int | Cloid, str] = {}
        for dex in list(self._dexs):
            mark = self._table.mark()
            rows = await self._query("frontendOpenOrders", user=self.account, **_dex(dex))
            with _reading("frontendOpenOrders"):
                self._table.on_open_orders(mark, dex, rows)
            listed |= {row["oid"]: row["coin"] for row in rows if coin in (None, row["coin"])}
        self._dispatch()
        return listed

    async def _look_for_fills(self) -> None:
        """Those since the last look: what the streams brought meanwhile need not be all that there was."""
        start_ms = max(0, self._fills_until_ms - _FILL_OVERLAP_MS)
        while True:
            rows = await self._query("userFillsByTime", user=self.account, startTime=start_ms)
            with _reading("userFillsByTime"):
                self._table.on_fills(rows)
            if len(rows) < _FILL_ROWS:
                return
            newest_ms = max(row["time"] for row in rows)
            start_ms = max(newest_ms, start_ms + 1)

    async def _cancel_these(self, orders: list[TrackedOrder], listed: dict[int | Cloid, str]) -> list[Any]:
        """Cancel orders that may be live, and what the venue lists although we believe that it ended."""
        cancels = dict(listed)
        for order in orders:
            for item in order.items:
                flight = item.flight
                if flight.lost is not None and item.wanted is not None and flight.nonce not in self._burning:
                    self._send_noop(flight)  # its orders are canceled below, many with one nonce
                    self._work_to_do.set()
            live = [oid for oid, leg in order.recent.items() if leg.state.live]
            subjects: list[int | Cloid] = [*live] if live or order.cloid is None else [order.cloid]
            cancels |= dict.fromkeys(subjects, order.coin)
        pairs: list[tuple[str, int | Cloid]] = []
        met: list[Any] = []
        for subject, coin in cancels.items():
            try:
                self._canceling([(coin, subject)], True, False)
            except NotSent as exc:  # this one alone: a coin listed since, say
                _log.error("an order in %s cannot be canceled (%s)", coin, type(exc).__name__)
                _log.debug("%r cannot be canceled: %s", subject, exc)
                met.append(exc)
            else:
                pairs.append((coin, subject))
        return met + await self.cancel_many(pairs)

    async def _query(self, kind: str, **fields: Any) -> Any:
        """One info request over HTTP. QueryFailed, or LinkDown when nothing was sent."""
        try:
            status, body = await self._wire.post("/info", orjson.dumps({"type": kind, **fields}))
        except NotSent:
            raise
        except Exception as exc:
            raise QueryFailed(0, ErrorCode.UNAVAILABLE, f"{type(exc).__name__}: {exc}") from exc
        return read_info(status, body)

    async def _sleep(self, delay_s: float, awake: asyncio.Future[Any] | None = None) -> None:
        """On the wire's clock, or until `awake` is done."""
        over = self._loop.create_future()
        timer = self._wire.call_later(delay_s, lambda: None if over.done() else over.set_result(None))
        try:
            await asyncio.wait([over] if awake is None else [over, awake], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()

    # --- instruments ---

    def _tokens_of(self, coin: str) -> tuple[str, str] | None:
        if coin not in self._instruments:  # listed since; such names are spot pairs or outcomes
            return (coin, "USDC") if coin[:1] in ("@", "#") or "/" in coin else None
        instrument = self._instruments[coin]
        if instrument.kind is MarketKind.OUTCOME:
            return "+" + coin[1:], instrument.quote
        return (instrument.base, instrument.quote) if instrument.kind is MarketKind.SPOT else None

    def _dex_of(self, coin: str) -> str:
        return self._instruments[coin].dex if coin in self._instruments else coin.rpartition(":")[0]


class Events:
    """Events for one reader, the newest `maxsize` of them: `async for event in hl.trader.events()`."""

    def __init__(self, maxsize: int, closed: bool = False) -> None:
        self._events: deque[Event] = deque(maxlen=maxsize)
        self._news = asyncio.Event()
        self._closed = closed

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._events.popleft()

    async def aclose(self) -> None:
        """Read no more."""
        self._events.clear()
        self._close()

    def _put(self, event: Event) -> None:
        if self._closed:
            return
        if len(self._events) == self._events.maxlen:
            _log.warning("a reader of events() is too slow: the oldest of %d is dropped", len(self._events))
        self._events.append(event)
        self._news.set()

    def _close(self) -> None:
        self._closed = True
        self._news.set()


def _coins(orders: Iterable[TrackedOrder], listed: Mapping[int | Cloid, str]) -> set[str]:
    return {order.coin for order in orders} | set(listed.values())


def _unreadable(exc: Exception) -> bool:
    return isinstance(exc, QueryFailed) and exc.code is ErrorCode.UNREADABLE


@contextmanager
def _reading(kind: str) -> Iterator[None]:
    """What the venue answered is read in here, and nothing else done: our own bugs elsewhere are not taken for its."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
        raise QueryFailed(200, ErrorCode.UNREADABLE, f"the answer to {kind}: {exc!r}") from exc


def _dex(dex: str) -> dict[str, str]:
    return {"dex": dex} if dex else {}
