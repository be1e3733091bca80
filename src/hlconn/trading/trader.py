"""`hl.trader`: what a strategy calls, and who is told of what.

Actions leave through the outbox, questions are the reconciler's, and what is true is the order table's. It stands on a
`Wire`, so that it runs without sockets and on any clock: nothing here opens a connection or reads a time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar, overload

import orjson

import hlconn._core.action as actions

from .._core.action import Action
from .._core.book import Book
from .._core.sign import Signed, Signer
from ..account import UserSigned
from ..config import TradingConfig
from ..errors import Closed, ConfigError, InvalidOrder, NotSent, OutcomeUnknown, QueryFailed, Rejected
from ..instruments import Instruments, MarketKind
from ..nonces import Nonces
from ..responses import read_error
from ..types import Ack, Builder, CancelResult, Cloid, Done, Fill, Grouping, Number, Order, Position, Priority, Side
from .composer import Composed, Composer
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
    OutcomeEvent,
    Reconciled,
    TrackedOrder,
)
from .outbox import DEFAULT, Expiry, Outbox, Prepared, Ticket, Wire, pause
from .reconciler import USER_STREAMS, Reconciler

__all__ = ["Events", "Prepared", "Ticket", "Trader", "Wire"]

_log = logging.getLogger("hlconn.trading")  # what orders and messages contain: at DEBUG alone

_T = TypeVar("_T")

_TRADING_TYPES = frozenset(("order", "cancel", "cancelByCloid", "modify", "batchModify"))
_MICRO = Decimal(10**6)


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
        self._wire, self._instruments = wire, instruments
        self._config = config or TradingConfig()
        self._on_callback_error = on_callback_error
        after_s = self._config.expires_after_s  # an earlier process had the same settings, as far as anybody knows
        foreign_ms = 15_000 if after_s is None else int(after_s * 1000)
        self._table = OrderTable(self._tokens_of, self._dex_of, foreign_ms)
        self._composer = Composer(instruments, self._table, book_of)
        self._outbox = Outbox(wire, signer, nonces, self._table, self._config, dispatch=self._dispatch, burn=self._burn)
        self._reconciler = Reconciler(
            wire, self._table, self._outbox, self._config, account=self.account, dispatch=self._dispatch
        )
        self._order_callbacks: tuple[Callable[[TrackedOrder], object], ...] = ()
        self._fill_callbacks: tuple[Callable[[Fill], object], ...] = ()
        self._queues: tuple[weakref.ref[Events], ...] = ()
        self._held: dict[asyncio.Task[Any], list[Callable[[], object]]] = {}  # what waits for its cancel_all
        self._dispatching = False

    @property
    def closed(self) -> bool:
        """The session has ended: nothing is sent any more."""
        return self._outbox.closed

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
        expires_after: Expiry = DEFAULT,
    ) -> Ticket:
        """Place one order, or several in one action, all or none of which are executed together.

        An order without a cloid gets a fresh one: see the ticket. grouping: NORMAL_TPSL for a parent and its
        take-profit and stop-loss, POSITION_TPSL for those of a position. builder: who earns a fee, only when given.
        expires_after: venue time in ms. Raises InvalidOrder (with the nearest valid values), UnknownCoin, Throttled,
        Closed.
        """
        return self._launch(*self._composer.placing(orders, grouping, builder), expires_after)

    def submit_modify(
        self, oid: int | Cloid, order: Order, *, always_place: bool = False, expires_after: Expiry = DEFAULT
    ) -> Ticket:
        """Replace an order by another one: the venue cancels the old one and places `order` under a new oid.

        The cloid stays, so `order` names none or the same. It is sent as a batchModify of one, whose answer has the new
        oid. order: ALO, or GTC that does not cross (then it is post-only), unless `always_place`, which also places it
        when the old order is already gone. Raises as `submit` does. Source: the venue's docs, "Modify an order".
        """
        return self._launch(*self._composer.modifying([(oid, order)], True, always_place), expires_after)

    def submit_cancel(
        self, coin: str, oid: int | Cloid, *, fast: bool = False, expires_after: Expiry = DEFAULT
    ) -> Ticket:
        """Cancel one order. fast: for the mempool's priority; the venue refuses it for trigger orders."""
        return self._launch(*self._composer.canceling([(coin, oid)], True, fast), expires_after)

    async def place(
        self,
        order: Order,
        *,
        builder: Builder | None = None,
        expires_after: Expiry = DEFAULT,
    ) -> Ack:
        """`await submit(order)`. Raises Rejected, OutcomeUnknown, or NotSent and its kind.

        Cancelled while it waits, the order may be live all the same: give it a cloid of yours (`Cloid.new()`), or keep
        the ticket of `submit`, to ask for it by that afterwards. Without either, look through `orders`.
        """
        ack: Ack = await self.submit(order, builder=builder, expires_after=expires_after)
        return ack

    async def modify(
        self, oid: int | Cloid, order: Order, *, always_place: bool = False, expires_after: Expiry = DEFAULT
    ) -> Ack:
        """`await submit_modify(...)`: the Ack's oid is the new one."""
        ack: Ack = await self.submit_modify(oid, order, always_place=always_place, expires_after=expires_after)
        return ack

    async def cancel(
        self, coin: str, oid: int | Cloid, *, fast: bool = False, expires_after: Expiry = DEFAULT
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
        expires_after: Expiry = DEFAULT,
    ) -> list[Ack | Rejected | OutcomeUnknown | NotSent]:
        """Place orders that have nothing to do with each other, `TradingConfig.batch` in an action.

        One outcome for each, in order, errors as values. Raises what is wrong with any of them before anything is sent.
        """
        wanted = list(orders)
        given = [order.cloid for order in wanted if order.cloid is not None]
        if len(set(given)) < len(given):
            raise InvalidOrder("two orders have the same cloid: the venue would place both")
        batches = [self._composer.placing(batch, Grouping.NA, builder) for batch in self._batches(wanted)]
        return await self._in_batches(batches, expires_after)

    async def modify_many(
        self,
        modifies: Iterable[tuple[int | Cloid, Order]],
        *,
        always_place: bool = False,
        expires_after: Expiry = DEFAULT,
    ) -> list[Ack | Rejected | OutcomeUnknown | NotSent]:
        """`submit_modify` for several, as `place_many` does it."""
        batches = [self._composer.modifying(batch, False, always_place) for batch in self._batches(modifies)]
        return await self._in_batches(batches, expires_after)

    async def cancel_many(
        self, cancels: Iterable[tuple[str, int | Cloid]], *, fast: bool = False, expires_after: Expiry = DEFAULT
    ) -> list[CancelResult | Rejected | OutcomeUnknown | NotSent]:
        """Cancel (coin, oid or cloid) pairs, as `place_many` does it; oids and cloids go in actions of their own."""
        pairs = list(cancels)
        places = [
            [at for at, (_, oid) in enumerate(pairs) if isinstance(oid, Cloid) is by_cloid]
            for by_cloid in (False, True)
        ]
        parts = [batch for kind in places for batch in self._batches(kind)]
        batches = [self._composer.canceling([pairs[at] for at in batch], False, fast) for batch in parts]
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
                listed = await self._reconciler.open_orders(name)
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
            await pause(self._wire, pause_s)
            pause_s = min(2 * pause_s, self._config.retry_max_s)

    async def _cancel_these(self, orders: list[TrackedOrder], listed: dict[int | Cloid, str]) -> list[Any]:
        """Cancel orders that may be live, and what the venue lists although we believe that it ended."""
        cancels = dict(listed)
        for order in orders:
            for item in order.items:
                flight = item.flight
                if flight.lost is not None and item.wanted is not None and not self._outbox.is_burning(flight):
                    self._outbox.send_noop(flight)  # its orders are canceled below, many with one nonce
                    self._reconciler.wake()
            live = [oid for oid, leg in order.recent.items() if leg.state.live]
            subjects: list[int | Cloid] = [*live] if live or order.cloid is None else [order.cloid]
            cancels |= dict.fromkeys(subjects, order.coin)
        pairs: list[tuple[str, int | Cloid]] = []
        met: list[Any] = []
        for subject, coin in cancels.items():
            try:
                self._composer.canceling([(coin, subject)], True, False)
            except NotSent as exc:  # this one alone: a coin listed since, say
                _log.error("an order in %s cannot be canceled (%s)", coin, type(exc).__name__)
                _log.debug("%r cannot be canceled: %s", subject, exc)
                met.append(exc)
            else:
                pairs.append((coin, subject))
        return met + await self.cancel_many(pairs)

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
        return await self.place(self._composer.market_order(coin, side, sz, slippage, reduce_only=False), **options)

    async def close(self, coin: str, slippage: float = 0.05, **options: Any) -> Ack | None:
        """Close the position in `coin` by a reduce-only order as `market` sends it. None when there is none.

        The positions of a dex that was not looked at yet are asked for first: QueryFailed or LinkDown, if that fails.
        """
        name = self._instruments[coin].coin
        dex = self._dex_of(name)
        if not self._table.knows_positions(dex):
            self._reconciler.add_dex(dex)
            await self.reconcile()
        position = self._table.positions.get(name)
        if position is None:
            return None
        side = Side.SELL if position.szi > 0 else Side.BUY
        order = self._composer.market_order(coin, side, abs(position.szi), slippage, reduce_only=True)
        return await self.place(order, **options)

    # --- other actions ---

    async def set_leverage(
        self, coin: str, leverage: int, *, is_cross: bool = True, expires_after: Expiry = DEFAULT
    ) -> Done:
        """Set leverage and margin mode of a perp. Source: the venue's docs, "Update leverage"."""
        return await self._do(
            actions.update_leverage(coin, leverage, self._instruments, is_cross=is_cross), expires_after
        )

    async def adjust_isolated_margin(self, coin: str, usd: Number, *, expires_after: Expiry = DEFAULT) -> Done:
        """Add margin to an isolated position, or with a negative number remove it. usd: at most 6 decimals."""
        try:
            micro = Decimal(str(usd)) * _MICRO
        except InvalidOperation:
            raise InvalidOrder(f"usd must be a decimal number, not {usd!r}") from None
        if not micro.is_finite() or micro != micro.to_integral_value():
            raise InvalidOrder(f"usd has at most 6 decimals: {usd!r}")
        return await self._do(actions.update_isolated_margin(coin, int(micro), self._instruments), expires_after)

    async def schedule_cancel(self, time_ms: int | None = None, *, expires_after: Expiry = DEFAULT) -> Done:
        """All open orders are canceled at this venue time, at least 5 s ahead; None takes that back.

        Source: the venue's docs, "Schedule cancel"; 10 triggers a day, and only for accounts with volume.
        """
        return await self._do(actions.schedule_cancel(time_ms), expires_after)

    async def action(
        self, action: Action | Mapping[str, Any], *, expires_after: Expiry = DEFAULT, **vault: Any
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
        expires_after: Expiry = DEFAULT,
    ) -> Prepared:
        """As `submit`, without sending: signed, with its nonce taken. Send it soon: its expiry runs."""
        return self._outbox.sign(*self._composer.placing(orders, grouping, builder), expires_after)

    def prepare_cancel(
        self, coin: str, oid: int | Cloid, *, fast: bool = False, expires_after: Expiry = DEFAULT
    ) -> Prepared:
        """As `submit_cancel`, without sending."""
        return self._outbox.sign(*self._composer.canceling([(coin, oid)], True, fast), expires_after)

    def discard(self, prepared: Prepared) -> None:
        """It will not be sent: its nonce is no longer waited for."""
        self._outbox.discard(prepared)

    def send(self, signed: Prepared | Signed | UserSigned) -> Ticket:
        """Send what was prepared, or what `hlconn.account` signed. Once: NotSent for what was sent or discarded."""
        if not isinstance(signed, Prepared):
            if signed.action in _TRADING_TYPES:
                raise ConfigError(f"{signed.action}: use prepare(), which knows its orders")
            signed = self._outbox.admit(signed)
        if signed.sent:
            raise NotSent("this was sent or discarded: nothing is ever sent twice")
        self._outbox.refuse_closed()
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
        await self._reconciler.compare("asked for")
        self._dispatch()

    # --- what the session tells ---

    @property
    def subscriptions(self) -> list[dict[str, str]]:
        """The streams of the account that have to be subscribed to, on every connection."""
        return [{"type": kind, "user": self.account} for kind in USER_STREAMS]

    def start(self) -> None:
        """Begin to ask and to compare."""
        self._reconciler.start(self._on_callback_error)

    async def ready(self, timeout_s: float) -> None:
        """Wait for the first comparison: orders and positions are known from then on. LinkDown after `timeout_s`."""
        await self._reconciler.wait_ready(timeout_s)

    def on_subscribed(self, subscription: Mapping[str, Any]) -> None:
        """The venue acknowledged a stream. Only what is asked for after that has no gap before the stream."""
        self._reconciler.on_subscribed(subscription)

    def on_down(self) -> None:
        """The link is gone, and with it the streams. What it had in flight was lost before: `on_post_lost`."""
        self._reconciler.on_down()
        self._outbox.on_down()

    def on_post_lost(self, post_id: int, reason: str) -> None:
        """No answer came in time, or the link went down: what was asked for may have been done."""
        self._outbox.on_post_lost(post_id, reason)

    def on_message(self, channel: str, message: bytes) -> None:
        """A message of a channel that is the trader's. Unreadable ones are logged, and everything is compared anew."""
        try:
            data = orjson.loads(message)["data"]
            if channel == "post":
                self._outbox.on_post(data)
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
                self._outbox.on_post({"id": post_id, "response": {"type": "error", "payload": data}})
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            _log.error("a message of channel %s could not be read (%s)", channel, type(exc).__name__)
            _log.debug("%r in %r", exc, message[:200])
            self._reconciler.compare_soon("an unreadable message")
        self._dispatch()

    async def end(self) -> None:
        """Nothing is sent any more, and whoever waits is told that the outcome is unknown."""
        tasks = [*self._outbox.close(), *self._reconciler.close()]  # all before the first await: that can be cancelled
        self._dispatch()
        if self._table.live:
            _log.warning("%d orders are left at the end of the session", len(self._table.live))
            _log.debug("left at the end of the session: %r", self._table.live)
        for ticket in self._outbox.tickets.values():
            ticket.wake()
        for reference in self._queues:
            if (events := reference()) is not None:
                events._close()
        if tasks:
            await asyncio.wait(tasks)

    # --- sending ---

    def _batches(self, things: Iterable[_T]) -> list[list[_T]]:
        rest = list(things)
        size = int(self._config.batch)
        return [rest[at : at + size] for at in range(0, len(rest), size)]

    async def _in_batches(self, batches: list[Composed], expires_after: Expiry) -> list[Any]:
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

    def _launch(
        self,
        action: Action | Mapping[str, Any],
        items: tuple[Item, ...],
        single: bool,
        expires_after: Expiry,
        **vault: Any,
    ) -> Ticket:
        return self._fly(self._outbox.sign(action, items, single, expires_after, **vault))

    def _fly(self, prepared: Prepared) -> Ticket:
        for item in prepared.items:
            if item.coin:
                self._reconciler.add_dex(self._dex_of(item.coin))
        return self._outbox.fly(prepared)

    def _burn(self, flight: Flight) -> None:
        if flight.resolved:
            return
        self._outbox.refuse_closed()
        self._outbox.refuse_foreign(flight)
        self._outbox.send_noop(flight)
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
                self._launch(*self._composer.canceling(cancels, False, False), DEFAULT)
            except NotSent as exc:
                _log.warning("only the noop was sent to kill nonce %d: %s", flight.nonce, exc)
        self._reconciler.wake()

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
        self._reconciler.after_news()

    def _tell(self, event: Event) -> None:
        match event:
            case OutcomeEvent(nonce=nonce, resolved=resolved, flight=flight):
                if not resolved:
                    _log.warning("%s with nonce %d has no answer and may be live", event.action, nonce)
                    _log.debug("%s", flight.lost)  # it can hold what came instead of an answer
                    self._reconciler.hurry()
                elif event.proof:
                    _log.info("%s with nonce %d is proven (%s)", event.action, nonce, event.proof)
                    _log.debug("the outcomes of nonce %d: %s", nonce, event.outcomes)
                self._outbox.told(event)
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
            except BaseException as exc:  # a CancelledError that a callback raised is its own, and cancels nobody here
                self._drop(callback)
                self._on_callback_error(exc)

    def _drop(self, callback: Callable[[Any], object]) -> None:
        self._order_callbacks = tuple(each for each in self._order_callbacks if each is not callback)
        self._fill_callbacks = tuple(each for each in self._fill_callbacks if each is not callback)

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
