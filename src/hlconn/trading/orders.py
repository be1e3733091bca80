"""What became of our orders: a pure state machine. News in, facts and events out; no I/O, no clock.

An order is a chain of legs under one cloid: each modify cancels a leg and places the next one, under a new oid. News of
a leg come from answers, order updates, fills, open orders and status queries, in any order, late or twice. So each leg
keeps the most that was ever proven about it: `PROVES` is the one table of what proves what, and a state only rises.

An action whose answer is lost ends by proof alone (docs/trading.md): it is seen; or its nonce is spent, by our noop or
by itself, and a query made after that answers; or the venue's time is past its expiry and a query made after that
answers. "After" is a matter of `mark()`, a number that grows: a query takes one when it is sent, and its answer proves
something about an action only when it is larger than the action's `closed_mark`.
"""

from __future__ import annotations

import itertools
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import Enum, IntEnum, auto
from typing import Any, TypeAlias

from .._core.classify import classify, classify_status
from ..errors import ErrorCode, NotSent, OutcomeUnknown, Rejected
from ..responses import Answer, Created, Filled, Resting, Running, Waiting
from ..types import Ack, CancelResult, Cloid, Done, Fill, Order, Position, Side, read_number
from .ledger import Difference, Ledger

__all__ = [
    "PROVES",
    "ClockBehind",
    "Contradicted",
    "Differs",
    "Event",
    "Evidence",
    "FillEvent",
    "Flight",
    "Item",
    "Kind",
    "OrderEvent",
    "OrderState",
    "OrderTable",
    "Outcome",
    "OutcomeEvent",
    "Question",
    "Reconciled",
    "TrackedOrder",
]

_ZERO = Decimal(0)
_ASKED_ALONE = 20  # of more orders than that the history is asked for first
_KEPT_FILLS = 100_000
_KEPT_ORDERS = 10_000  # of those that ended
_RECENT_LEGS = 8  # of an order, that are looked at whatever is heard
_RECENT_PLACERS = 32  # of an order, of those that have their outcome


class OrderState(IntEnum):
    """What is proven about an order. A larger state is the stronger proof; `live` ones may trade.

    PENDING: sent, and nobody has seen it yet. NEVER: proven that it never became an order. WAITING: a take-profit or
    stop-loss that was accepted and has no place yet. OPEN: on the book, or an untriggered trigger order. REPLACED: of a
    leg only, by the next one. REJECTED: refused. CANCELED: ended before it was filled in full, whoever ended it.
    FILLED: in full.
    """

    PENDING = 0
    NEVER = 1
    WAITING = 2
    OPEN = 3
    REPLACED = 4
    REJECTED = 5
    CANCELED = 6
    FILLED = 7

    @property
    def live(self) -> bool:
        """May trade: PENDING, WAITING or OPEN."""
        return self in (OrderState.PENDING, OrderState.WAITING, OrderState.OPEN)


class Evidence(Enum):
    """What was heard about a leg."""

    ANSWER_RESTING = auto()
    ANSWER_FILLED = auto()  # of all its size
    ANSWER_PART_FILLED = auto()
    ANSWER_PART_FILLED_IOC = auto()  # and the rest of an Ioc order is canceled
    ANSWER_WAITING = auto()
    ANSWER_REFUSED = auto()
    STATUS_OPEN = auto()  # open, triggered; also words that nobody knows: they end nothing
    STATUS_FILLED = auto()
    STATUS_CANCELED = auto()
    STATUS_REJECTED = auto()
    LISTED = auto()  # among the open orders
    FILL = auto()
    FILLS_OF_ALL = auto()  # fills add up to its size
    CANCEL_ACCEPTED = auto()
    CANCELED_BY_VENUE = auto()  # nonUserCancel of userEvents
    MODIFY_ACCEPTED = auto()  # the next leg took its place
    MODIFY_LEFT_NOTHING = auto()  # "Error placing new order during modify": the old leg is gone all the same
    PARENT_ENDED = auto()  # a child never comes once its parent was canceled, and the venue does not know it
    DISPROVED = auto()  # proof of outcome: it never became an order


#: The table: the least state that each piece of evidence proves. A leg is in the largest state that was ever proven.
PROVES: Mapping[Evidence, OrderState] = {
    Evidence.ANSWER_RESTING: OrderState.OPEN,
    Evidence.ANSWER_FILLED: OrderState.FILLED,
    Evidence.ANSWER_PART_FILLED: OrderState.OPEN,
    Evidence.ANSWER_PART_FILLED_IOC: OrderState.CANCELED,
    Evidence.ANSWER_WAITING: OrderState.WAITING,
    Evidence.ANSWER_REFUSED: OrderState.REJECTED,
    Evidence.STATUS_OPEN: OrderState.OPEN,
    Evidence.STATUS_FILLED: OrderState.FILLED,
    Evidence.STATUS_CANCELED: OrderState.CANCELED,
    Evidence.STATUS_REJECTED: OrderState.REJECTED,
    Evidence.LISTED: OrderState.OPEN,
    Evidence.FILL: OrderState.OPEN,
    Evidence.FILLS_OF_ALL: OrderState.FILLED,
    Evidence.CANCEL_ACCEPTED: OrderState.CANCELED,
    Evidence.CANCELED_BY_VENUE: OrderState.CANCELED,
    Evidence.MODIFY_ACCEPTED: OrderState.REPLACED,
    Evidence.MODIFY_LEFT_NOTHING: OrderState.CANCELED,
    Evidence.PARENT_ENDED: OrderState.CANCELED,
    Evidence.DISPROVED: OrderState.NEVER,
}


class Kind(Enum):
    """What an item of an action does."""

    PLACE = "place"
    MODIFY = "modify"
    CANCEL = "cancel"
    OTHER = "other"


#: What an item came to. A proof that it had no effect is a `Rejected` too; only `OutcomeUnknown` leaves a doubt, of an
#: action that leaves no trace and whose nonce is spent: it will not happen any more, and nobody can tell if it did.
Outcome: TypeAlias = Ack | CancelResult | Done | Rejected | NotSent | OutcomeUnknown


@dataclass(slots=True, eq=False)
class _Leg:
    oid: int
    order: TrackedOrder
    born: int  # the mark when it was first seen
    px: Decimal | None = None
    sz: Decimal | None = None
    state: OrderState = OrderState.PENDING
    fill_sz: Decimal = _ZERO  # of the fills seen
    fill_ntl: Decimal = _ZERO  # of these, size * price
    told_filled: Decimal = _ZERO  # the most that the venue said without its fills
    told_left: Decimal | None = None  # the least that the venue said is left
    avg_px: Decimal | None = None  # as told in an answer
    reason: ErrorCode = ErrorCode.NONE
    message: str = ""
    alive_mark: int = 0  # of the last news that it is open
    ended_mark: int = 0  # when its end was heard of
    item: Item | None = None  # that placed it, where that is known; see `_FORGOTTEN`

    @property
    def filled(self) -> Decimal:
        return max(self.fill_sz, self.told_filled)


class TrackedOrder:
    """One order, through all its modifies. Always current; read it at any time, keep it as long as you like.

    cloid: None only for orders placed elsewhere without one. adopted: not placed by this session. px, sz: of the leg
    that counts, sz being what that leg was placed with. trigger_px: of a trigger order, where known.
    reason, message: why it ended, the venue's own words or ours. oids: of all legs, oldest first.
    """

    __slots__ = (
        "_fill_ntl",
        "_fill_sz",
        "_floor",
        "_more_cloids",
        "_old_filled",
        "_old_state",
        "_told",
        "adopted",
        "always_placed",
        "cloid",
        "closed_mark",
        "coin",
        "ended_mark",
        "items",
        "legs",
        "message",
        "modified",
        "parent",
        "placed",
        "placers",
        "reason",
        "recent",
        "side",
        "trigger_px",
        "waits",
        "waits_mark",
        "wanted",
    )

    def __init__(self, coin: str, side: Side | None, cloid: Cloid | None, wanted: Order | None = None) -> None:
        self.coin, self.side, self.cloid, self.wanted = coin, side, cloid, wanted
        self.adopted = wanted is None
        self.trigger_px: Decimal | None = None
        self.reason, self.message = ErrorCode.NONE, ""
        self.legs: dict[int, _Leg] = {}  # by oid, all of them
        self.recent: dict[int, _Leg] = {}  # of these, whatever is not settled, and the newest: see `_settle`
        self.items: list[Item] = []  # of actions about it that have no outcome yet
        self.placers: list[Item] = []  # that were to place a leg: those, and the newest that have an outcome
        self.placed = 0  # how many there ever were
        self.always_placed = False  # one of them was a modify that places in any case
        self.modified = False  # a modify of ours placed one of the legs
        self.parent: TrackedOrder | None = None
        self.waits: Item | None = None  # accepted, waits for its parent or its trigger, and its leg was not seen yet
        self.waits_mark = 0  # when that was heard
        self.ended_mark = 0  # when it was last found to have ended
        self.closed_mark: int | None = None  # of an unseen one: since then it is past its expiry, whoever sent it
        self._floor = OrderState.PENDING  # what is proven while no leg is known
        self._fill_sz = self._fill_ntl = _ZERO  # over all legs
        self._old_filled, self._old_state = (
            _ZERO,
            OrderState.PENDING,
        )  # of the legs that are not recent: sum and largest
        self._more_cloids: tuple[Cloid, ...] = ()  # by which it is known too
        self._told: object = None

    @property
    def state(self) -> OrderState:
        """See `OrderState`. While a modify has no outcome, the end of the old leg is not the end of the order."""
        live = [leg.state for leg in self.recent.values() if leg.state.live]
        if live:
            return max(live)
        if self.waits is not None:
            return OrderState.WAITING
        if any(item.kind in (Kind.PLACE, Kind.MODIFY) for item in self.items):
            return OrderState.PENDING
        return max(max((leg.state for leg in self.recent.values()), default=self._floor), self._old_state)

    @property
    def may_be_live(self) -> bool:
        """It may trade, now or later, as far as anybody can prove the contrary."""
        return self.state.live

    @property
    def in_doubt(self) -> bool:
        """The answer to an action about it is lost: what it asked for may be live, or still come."""
        return any(item.flight.lost is not None for item in self.items)

    @property
    def oid(self) -> int | None:
        """The oid to use now: of the newest leg that may trade, else of the newest."""
        leg = self._leg
        return None if leg is None else leg.oid

    @property
    def oids(self) -> tuple[int, ...]:
        return tuple(sorted(self.legs))

    @property
    def px(self) -> Decimal | None:
        leg = self._leg
        return leg.px if leg is not None else _number(self.wanted.px) if self.wanted else None

    @property
    def sz(self) -> Decimal | None:
        leg = self._leg
        return leg.sz if leg is not None else _number(self.wanted.sz) if self.wanted else None

    @property
    def filled(self) -> Decimal:
        """Base units, over all legs: of the fills seen, or what the venue told where that is more."""
        return sum((leg.filled for leg in self.recent.values()), self._old_filled)

    @property
    def remaining(self) -> Decimal | None:
        """Of the leg that counts; 0 once the order ended. None where its size is not known.

        Of a reduce-only order, which the venue makes smaller with the position, it can be what was left when last told.
        """
        if not self.may_be_live:
            return _ZERO
        leg = self._leg
        if leg is None or leg.sz is None:
            return self.sz
        left = max(leg.sz - leg.filled, _ZERO)
        return left if leg.told_left is None else min(left, leg.told_left)

    @property
    def avg_px(self) -> Decimal | None:
        """Over the fills seen; of the answer while there are none."""
        if self._fill_sz:
            return self._fill_ntl / self._fill_sz
        leg = self._leg
        return leg.avg_px if leg is not None else None

    @property
    def _leg(self) -> _Leg | None:
        legs = [leg for leg in self.recent.values() if leg.state.live] or list(self.recent.values())
        return max(legs, key=lambda leg: leg.oid, default=None)

    def _add_fill(self, leg: _Leg, sz: Decimal, ntl: Decimal) -> None:
        leg.fill_sz += sz
        leg.fill_ntl += ntl
        self._fill_sz += sz
        self._fill_ntl += ntl

    def _add_leg(self, leg: _Leg) -> None:
        """A leg of its own, or one that was taken for another order's."""
        leg.order = self
        self.legs[leg.oid] = self.recent[leg.oid] = leg
        self._fill_sz += leg.fill_sz
        self._fill_ntl += leg.fill_ntl

    def _remove_leg(self, leg: _Leg) -> None:
        del self.legs[leg.oid], self.recent[leg.oid]
        self._fill_sz -= leg.fill_sz
        self._fill_ntl -= leg.fill_ntl

    def _placed_by(self, leg: _Leg, item: Item) -> None:
        leg.item = item
        self.modified = self.modified or item.kind is Kind.MODIFY

    def _look_at(self, leg: _Leg) -> None:
        """There is news of this leg: if it was settled, it is looked at again."""
        if leg.oid not in self.recent:
            self.recent[leg.oid] = leg
            self._old_filled -= leg.filled

    def _summary(self) -> object:
        leg = self._leg
        return self.state, leg and (leg.oid, leg.px, leg.sz), self.filled, self.in_doubt

    def __repr__(self) -> str:
        side = "" if self.side is None else f" {self.side.name}"
        doubt = ", in doubt" if self.in_doubt else ""
        return (
            f"<TrackedOrder {self.coin}{side} {self.sz} at {self.px}: {self.state.name}, filled {self.filled}, "
            f"oid {self.oid}, {self.cloid}{doubt}>"
        )


@dataclass(slots=True, eq=False)
class Item:
    """One part of an action: an order to place, to modify or to cancel.

    order: whom it is about. wanted: what it places. target: the oid or cloid that it modifies or cancels.
    """

    kind: Kind
    order: TrackedOrder | None = None
    wanted: Order | None = None
    target: int | Cloid | None = None
    coin: str = ""
    always_place: bool = False
    index: int = 0
    outcome: Outcome | None = None
    mark: int = 0  # when it was sent
    flight: Flight = field(init=False, repr=False)

    @property
    def cloid(self) -> Cloid | None:
        if self.wanted is not None and self.wanted.cloid is not None:
            return self.wanted.cloid
        if self.order is not None and self.order.cloid is not None:
            return self.order.cloid
        return self.target if isinstance(self.target, Cloid) else None


#: In place of the item that placed a leg, once the leg is settled: an item keeps all of its action alive.
_FORGOTTEN = Item(Kind.OTHER)


@dataclass(slots=True, eq=False)
class Flight:
    """One action, from when it is written until each of its items has an outcome.

    lost: set once the answer is not to be waited for; what it says is true for the items without an outcome.
    closed_mark: since then it is known that the action will not be executed any more (it was already, or never will
    be); closed_by says how that is known.
    """

    action: str
    nonce: int
    items: tuple[Item, ...]
    expires_after: int | None
    sent_ns: int
    answered: bool = False
    lost: OutcomeUnknown | None = None
    closed_mark: int | None = None
    closed_by: str = ""
    closed_code: ErrorCode = ErrorCode.NONE

    @property
    def resolved(self) -> bool:
        return all(item.outcome is not None for item in self.items)


# --- what the table asks, and tells ---


@dataclass(frozen=True, slots=True)
class Question:
    """A query whose answer can prove something: the status of `subject`, or with None the account's order history."""

    subject: int | Cloid | None


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """Something about this order changed: its state, its oid, what is filled, or whether it is in doubt."""

    order: TrackedOrder


@dataclass(frozen=True, slots=True)
class FillEvent:
    """A fill, told once."""

    fill: Fill


@dataclass(frozen=True, slots=True)
class OutcomeEvent:
    """What became of an action. resolved False: the answer is lost and it may be live. True: each item has its outcome.

    proof: "" when the venue answered; else how it was proven.
    """

    action: str
    nonce: int
    cloids: tuple[Cloid | None, ...]
    resolved: bool
    outcomes: tuple[Outcome | None, ...]
    proof: str
    flight: Flight = field(repr=False)


@dataclass(frozen=True, slots=True)
class Differs:
    """A position or a balance is not what fills add up to, twice in a row. The venue's amount is taken from now on.

    of: "" for positions, a builder dex's name for its positions, "spot" for balances.
    """

    of: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Open orders, fills and positions were compared with the venue's. reason: "connected", "reconnected" ..."""

    reason: str


@dataclass(frozen=True, slots=True)
class Contradicted:
    """By all that was heard this order had ended, and two lists of open orders asked for after that have its `oid`.

    Its state is kept: nothing that was proven is taken back. `cancel` and `cancel_all` cancel it all the same.
    """

    order: TrackedOrder
    oid: int


@dataclass(frozen=True, slots=True)
class ClockBehind:
    """The venue refused as expired what had not expired by our clock: `TradingConfig.clock`, or this machine's.

    at_least_ms: so much behind the venue's time the clock is for certain. probable_ms: by the time of the account's
    last state, which the venue makes a moment before we read it; None before there was one.
    """

    at_least_ms: int
    probable_ms: int | None


Event: TypeAlias = OrderEvent | FillEvent | OutcomeEvent | Differs | Reconciled | Contradicted | ClockBehind


# --- reading rows ---


@dataclass(frozen=True, slots=True)
class _Row:
    """One order of orderUpdates, openOrders, frontendOpenOrders, orderStatus or historicalOrders."""

    coin: str
    side: Side
    px: Decimal
    sz: Decimal  # what remains
    orig_sz: Decimal
    oid: int
    cloid: Cloid | None
    trigger_px: Decimal | None
    reduce_only: bool
    children: tuple[_Row, ...]

    @classmethod
    def read(cls, row: Any) -> _Row:
        trigger_px = _decimal(row["triggerPx"]) if row.get("isTrigger") else None
        children = tuple(cls.read(child) for child in row.get("children") or ())
        return cls(
            row["coin"],
            _side(row["side"]),
            _decimal(row["limitPx"]),
            _decimal(row["sz"]),
            _decimal(row["origSz"]),
            _id(row["oid"]),
            _cloid(row.get("cloid")),
            trigger_px,
            bool(row.get("reduceOnly")),
            children,
        )


def _decimal(text: object) -> Decimal:
    try:
        value = Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite():
        raise ValueError(f"no decimal number: {text!r}")
    return value


def _id(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"no id: {value!r}")
    return value


def _side(letter: object) -> Side:
    if letter not in ("A", "B"):
        raise ValueError(f"no side: {letter!r}")
    return Side.BUY if letter == "B" else Side.SELL


def _cloid(text: object) -> Cloid | None:
    """None for null, and for zero, which the venue may write for none."""
    if text is None:
        return None
    if not isinstance(text, str) or len(text) != 34:
        raise ValueError(f"no cloid: {text!r}")
    value = int(text, 16)
    return Cloid(value) if value else None


def _number(value: Any) -> Decimal:
    whole, fraction = read_number(value, "number")
    return Decimal(f"{whole}.{fraction or '0'}")


def read_fill(row: Any) -> Fill:
    """One fill of userFills, userEvents or the info query of that name. KeyError, ValueError, TypeError: unreadable."""
    return Fill(
        row["coin"],
        _side(row["side"]),
        _decimal(row["px"]),
        _decimal(row["sz"]),
        _id(row["time"]),
        _id(row["oid"]),
        _id(row["tid"]),
        _cloid(row.get("cloid")),
        _decimal(row["startPosition"]),
        _decimal(row["closedPnl"]),
        _decimal(row["fee"]),
        str(row["feeToken"]),
        bool(row["crossed"]),
        str(row["dir"]),
    )


def _status_evidence(status: str) -> Evidence:
    """Suffix rules are the venue's habit; a word that nobody knows ends nothing."""
    if status == "filled":
        return Evidence.STATUS_FILLED
    code = classify_status(status)
    if code in (ErrorCode.NONE, ErrorCode.UNKNOWN):
        return Evidence.STATUS_OPEN
    rejected = status.endswith("ejected") or status.startswith("hip3")
    return Evidence.STATUS_REJECTED if rejected else Evidence.STATUS_CANCELED


class OrderTable:
    """Orders, fills, positions and balances of one account, and the actions that have no outcome yet.

    tokens_of(coin): (base, quote) of a spot or outcome market, None for a perp. dex_of(coin): the dex of a perp.
    foreign_ms: so long after this process first asked something of a cloid that it did not place, what an earlier
    process sent under it can still come; venue time, counted from the nonce, which is made of the same clock.
    Methods that take what the venue sent raise KeyError, TypeError, ValueError or AttributeError when they cannot read
    it, and have then changed nothing. What happened is collected, see `take_events`.
    """

    def __init__(
        self,
        tokens_of: Callable[[str], tuple[str, str] | None] = lambda coin: None,
        dex_of: Callable[[str], str] = lambda coin: coin.partition(":")[0] if ":" in coin else "",
        foreign_ms: int = 15_000,
    ) -> None:
        self._tokens_of, self._dex_of, self._foreign_ms = tokens_of, dex_of, foreign_ms
        self._marks = itertools.count(1)
        self._by_oid: dict[int, _Leg] = {}
        self._by_cloid: dict[Cloid, TrackedOrder] = {}
        self._live: dict[TrackedOrder, None] = {}  # in the order in which they came
        self._ended: OrderedDict[TrackedOrder, None] = OrderedDict()  # a dict walks over what was taken from its front
        self._flights: dict[int, Flight] = {}  # by nonce, those that are not resolved
        self._lost: dict[int, Flight] = {}  # of these, those in doubt
        self._fills: OrderedDict[tuple[str, int, int], Fill] = OrderedDict()
        self._sums: dict[int, tuple[Decimal, Decimal]] = {}  # by oid, of fills whose order is not known
        self._touched: dict[TrackedOrder, None] = {}
        self._events: list[Event] = []
        self._since_ms: int | None = None  # fills up to then are history
        self.ledgers: dict[str, Ledger] = {"": Ledger(), "spot": Ledger()}
        self._suspects: dict[_Leg | TrackedOrder, None] = {}  # whose state is to be asked for
        self._not_in_history: set[_Leg | TrackedOrder] = set()  # suspects that the last one did not settle
        self._vanished: set[_Leg] = set()  # that were open, and that a status query does not know
        self._risen: dict[_Leg, int] = {}  # that ended: how many lists asked for after that have them as open, in a row
        self.dexs: dict[str, None] = {}  # of orders and fills that were heard of
        self.to_compare = ""  # why positions and balances are to be asked for soon; who reads it empties it
        self._foreign: dict[TrackedOrder, int] = {}  # of earlier processes: when, in venue time, none can come any more

    # --- what is known ---

    def mark(self) -> int:
        """A number larger than all before: when a query is sent."""
        return next(self._marks)

    @property
    def live(self) -> tuple[TrackedOrder, ...]:
        """Orders that may trade, oldest first."""
        return tuple(self._live)

    @property
    def ended(self) -> tuple[TrackedOrder, ...]:
        """Orders that ended, in that order; the oldest are forgotten."""
        return tuple(self._ended)

    def find(self, subject: int | Cloid) -> TrackedOrder | None:
        """By any of its oids, or its cloid."""
        if isinstance(subject, Cloid):
            return self._by_cloid.get(subject)
        leg = self._by_oid.get(subject)
        return None if leg is None else leg.order

    @property
    def fills(self) -> tuple[Fill, ...]:
        """Of this session, as they came; the oldest are forgotten."""
        since = self._since_ms
        return () if since is None else tuple(fill for fill in self._fills.values() if fill.time > since)

    @property
    def positions(self) -> dict[str, Position]:
        """Of perps, by coin; none that is flat, nor any of a dex whose positions were never asked for."""
        return {
            coin: Position(coin, szi, ledger.entry_px(coin))
            for dex, ledger in self.ledgers.items()
            if dex != "spot" and ledger.time_ms is not None
            for coin, szi in ledger.amounts().items()
        }

    @property
    def balances(self) -> dict[str, Decimal]:
        """Of spot and outcome tokens, by the venue's name for them. None before they were asked for."""
        spot = self.ledgers["spot"]
        return {} if spot.time_ms is None else spot.amounts()

    def knows_positions(self, dex: str) -> bool:
        """Whether the positions of this dex were asked for."""
        ledger = self.ledgers.get(dex)
        return ledger is not None and ledger.time_ms is not None

    @property
    def flights(self) -> tuple[Flight, ...]:
        """Actions of which at least one item has no outcome, oldest first."""
        return tuple(self._flights.values())

    def order_for(self, coin: str, subject: int | Cloid) -> TrackedOrder:
        """`find`, or a new one of which nothing is known yet: an order of an earlier process, say. `sent` keeps it."""
        order = self.find(subject)
        if order is None:
            order = TrackedOrder(coin, None, subject if isinstance(subject, Cloid) else None)
            if not isinstance(subject, Cloid):
                order._add_leg(_Leg(subject, order, self.mark()))
        return order

    @property
    def doubts(self) -> tuple[Flight, ...]:
        """Of the flights, those whose answer is lost."""
        return tuple(self._lost.values())

    def take_events(self) -> list[Event]:
        """What happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    # --- what we send ---

    def sent(self, flight: Flight) -> None:
        """An action is about to be written. Its orders may be live from now on."""
        self._flights[flight.nonce] = flight
        mark = self.mark()
        for index, item in enumerate(flight.items):
            item.mark, item.flight, item.index = mark, flight, index
            order = item.order
            if order is None:
                continue
            if item.kind is not Kind.PLACE and item.target is not None:
                # since it was made, an action may have been sent, or a message have come, that knows this subject
                order = item.order = self.find(item.target) or order
            order.items.append(item)
            if item.wanted is not None:
                order.placers.append(item)
                order.placed += 1
                order.always_placed = order.always_placed or item.always_place
            if item.kind is Kind.PLACE and order.cloid is not None:  # the usual case: nothing else is known of it yet
                self._by_cloid[order.cloid] = order
                self._live[order] = None
                continue
            if order.adopted and not order.legs and order.closed_mark is None:
                self._foreign.setdefault(order, flight.nonce + self._foreign_ms)
            if order.cloid is None and item.wanted is not None:
                order.cloid = item.wanted.cloid
            if order.cloid is not None:
                self._by_cloid.setdefault(order.cloid, order)
            if item.wanted is not None and item.wanted.cloid is not None and item.wanted.cloid != order.cloid:
                # two modifies of one unknown oid were made at once, and each was given a cloid
                self._by_cloid.setdefault(item.wanted.cloid, order)
                order._more_cloids += (item.wanted.cloid,)
            for oid, leg in order.recent.items():
                self._by_oid.setdefault(oid, leg)
            self._live_or_ended(order)
            order._told = order._summary()  # who sends it knows

    def answered(self, nonce: int, answer: Answer) -> None:
        """The venue's answer. What it leaves open is in doubt, see `lost`."""
        flight = self._flights.get(nonce)
        if flight is None:
            return
        flight.answered = True
        for item, told in zip(flight.items, answer.items, strict=True):
            if isinstance(told, OutcomeUnknown):
                self._lose(flight, told)
                if classify(told.reason) is ErrorCode.NONCE_DUPLICATE:
                    self._close(flight, ErrorCode.NONCE_DUPLICATE, "the venue says that its nonce is spent")
            elif isinstance(told, Rejected):
                self._refused(item, told)
            else:
                self._accepted(item, told)
        self._settle_events()

    def lost(self, nonce: int, waited_s: float, reason: str = "") -> None:
        """The answer is not to be waited for: the link is gone, or it took too long. It may still come."""
        flight = self._flights.get(nonce)
        if flight is not None and flight.lost is None:
            cloids = tuple(item.cloid.hex for item in flight.items if item.cloid is not None and item.outcome is None)
            self._lose(flight, OutcomeUnknown(flight.action, nonce, cloids, waited_s, reason))
            self._settle_events()

    def not_sent(self, nonce: int, error: NotSent) -> None:
        """It turned out that nothing left this machine."""
        flight = self._flights.get(nonce)
        if flight is None:
            return
        for item in flight.items:
            self._resolve(item, error)
            if item.kind is Kind.PLACE and item.order is not None:
                self._no_leg(item.order, Evidence.DISPROVED, ErrorCode.NONE, str(error))
        self._settle_events()

    def burned(self, nonce: int) -> None:
        """Our noop with this nonce was accepted: the action was not executed, and never will be."""
        flight = self._flights.get(nonce)
        if flight is not None:
            flight.closed_by = "our noop spent its nonce"
            proof = f"proven: {flight.closed_by}, so it never was executed and cannot be"
            for item in flight.items:
                self._disprove(item, ErrorCode.NONCE_DUPLICATE, proof)
            self._settle_events()

    def spent(self, nonce: int) -> None:
        """Our noop was refused, for the nonce is used up or too low: the action cannot be executed any more."""
        flight = self._flights.get(nonce)
        if flight is not None:
            self._close(flight, ErrorCode.NONCE_DUPLICATE, "its nonce is spent")
            self._settle_events()

    def venue_time(self, time_ms: int, margin_ms: int) -> None:
        """The venue's time, told by it. Lost actions whose expiry is longer ago than the margin can never come."""
        for flight in self.doubts:
            expiry = flight.expires_after
            if expiry is not None and expiry + margin_ms < time_ms:
                self._close(flight, ErrorCode.EXPIRED, "the venue's time is past its expiry")
        for order, until_ms in list(self._foreign.items()):
            if until_ms + margin_ms < time_ms:
                del self._foreign[order]
                order.closed_mark = self.mark()
        self._settle_events()

    def awaits_time(self, now_ms: int) -> bool:
        """Whether `venue_time` may prove something, when it is now about `now_ms`."""
        return any(
            flight.closed_mark is None and flight.expires_after is not None and flight.expires_after < now_ms
            for flight in self._lost.values()
        ) or any(until_ms < now_ms for until_ms in self._foreign.values())

    # --- what the venue tells ---

    def on_order_updates(self, rows: Iterable[Any]) -> None:
        """`data` of channel orderUpdates. Orders nobody here knows are adopted."""
        read = [(_Row.read(entry["order"]), str(entry["status"])) for entry in rows]
        for row, status in read:
            self._see(row, _status_evidence(status), status)
        self._settle_events()

    def on_fills(self, rows: Iterable[Any]) -> None:
        """Fills of userFills (a snapshot or not), of userEvents or of a query; any of them twice or more."""
        fills = [read_fill(row) for row in rows]
        for fill in fills:
            if fill.key not in self._fills:
                self._fills[fill.key] = fill
                self._count(fill)
                if self._since_ms is not None and fill.time > self._since_ms:
                    self._events.append(FillEvent(fill))
        while len(self._fills) > _KEPT_FILLS:
            _, oldest = self._fills.popitem(last=False)
            self._sums.pop(oldest.oid, None)
        self._settle_events()

    def on_non_user_cancels(self, rows: Iterable[Any]) -> None:
        """`nonUserCancel` of channel user."""
        for oid in [_id(row["oid"]) for row in rows]:
            leg = self._by_oid.get(oid)
            if leg is not None:
                self._prove(leg, Evidence.CANCELED_BY_VENUE)
                self._suspects[leg] = None  # for the reason, which the message does not have
        self._settle_events()

    def on_open_orders(self, mark: int, dex: str, rows: Iterable[Any]) -> None:
        """The answer to openOrders or frontendOpenOrders of one dex, asked at `mark`; "" lists spot orders as well.

        An order that was open before and is not among them ended, and how is to be asked for.
        """
        read = [_Row.read(row) for row in rows]
        listed = {}
        for row in itertools.chain(read, *(each.children for each in read)):
            listed[row.oid] = self._see(row, Evidence.LISTED, "open", mark)
        self._count_the_risen(dex, mark, listed)
        for order in self._live:
            if self._dex_of(order.coin) != dex:
                continue
            for leg in order.recent.values():
                if leg.state.live and leg.oid not in listed and leg.alive_mark < mark:
                    self._suspects[leg] = None
            if _waits_unnamed(order) and order.waits_mark < mark and _parent_ended_before(order, mark):
                self._parent_ended(order)
            elif order.waits is not None or (not order.legs and not order.items):  # has its parent ended?
                self._suspects[order] = None
        self._settle_events()

    def on_status(self, mark: int, subject: int | Cloid, reply: Any) -> None:
        """The answer to orderStatus of an oid or a cloid, asked at `mark`."""
        found = reply["status"] == "order"
        told: _Leg | None = None
        order = self.find(subject)
        if found:
            body = reply["order"]
            row, status = _Row.read(body["order"]), str(body["status"])
            leg = self._see(row, _status_evidence(status), status, mark)
            self._suspects.pop(leg, None)
            order = leg.order
            told = leg
        elif reply["status"] != "unknownOid":
            raise ValueError(f"no order status: {reply['status']!r}")
        if order is not None:
            if not _waits_unnamed(order):  # else the history has to tell of its other legs too
                self._suspects.pop(order, None)
            self._conclude(order, mark, subject, told)
            if not found:  # the history may know what became of it
                open_legs = (leg for leg in order.recent.values() if leg.state is OrderState.OPEN)
                self._vanished.update(leg for leg in open_legs if leg in self._suspects)
        self._settle_events()

    def on_history(self, mark: int, rows: Iterable[Any]) -> None:
        """The answer to historicalOrders, asked at `mark`: legs of our orders that nothing else told of."""
        read = [(_Row.read(entry["order"]), str(entry["status"])) for entry in rows]
        for row, status in read:
            if row.oid in self._by_oid or (row.cloid is not None and row.cloid in self._by_cloid):
                leg = self._see(row, _status_evidence(status), status, mark)
                if not leg.state.live and _status_evidence(status) is not Evidence.STATUS_OPEN:
                    self._suspects.pop(leg, None)
        self._vanished.clear()
        for order in [each for each in self._suspects if isinstance(each, TrackedOrder) and _waits_unnamed(each)]:
            del self._suspects[order]  # until the open orders are asked for again
        self._not_in_history = set(self._suspects)
        for order in list(self._touched):
            self._claim(order, mark)
        for flight in list(self._flights.values()):
            for item in flight.items:
                if _needs_history(item) and _is_closed(item, mark):
                    self._disprove(item, flight.closed_code, f"proven: {flight.closed_by}, and no order came of it")
        self._settle_events()

    def begin(self, time_ms: int) -> None:
        """Fills up to this time of the venue are history: they change positions no more and nobody is told of them."""
        if self._since_ms is None:
            self._since_ms = time_ms
            self._events += [FillEvent(fill) for fill in self._fills.values() if fill.time > time_ms]

    def on_positions(self, dex: str, state: Any) -> bool:
        """The answer to clearinghouseState of one dex. False: it differs from our fills, ask once more."""
        told, entry_px = {}, {}
        for entry in state["assetPositions"]:
            position = entry["position"]
            told[position["coin"]] = _decimal(position["szi"])
            if position.get("entryPx") is not None:
                entry_px[position["coin"]] = _decimal(position["entryPx"])
        return self._check(dex, _id(state["time"]), told, entry_px)

    def on_balances(self, time_ms: int, state: Any, until_ms: int | None = None) -> bool:
        """The answer to spotClearinghouseState, which has no time: that of a state asked for just before.

        until_ms: the time of a state asked for just after. The first balances are believed when no fill is in between,
        which they may include or not; if one is heard of later, they are asked for anew.
        """
        told = {str(entry["coin"]): _decimal(entry["total"]) for entry in state["balances"]}
        spot = self.ledgers["spot"]
        if spot.time_ms is None and until_ms is not None:
            if spot.changed_between(time_ms, until_ms):
                return False
            spot.unsure_until_ms = until_ms
        return self._check("spot", time_ms, told, {})

    def note(self, event: Reconciled | ClockBehind) -> None:
        """Tell of it, after what was told before."""
        self._events.append(event)

    # --- what to ask ---

    def questions(self) -> list[Question]:
        """Queries whose answers can prove what is not proven. They may be asked as often as one likes."""
        asked: dict[int | Cloid | None, None] = {}
        for flight in self._lost.values():
            for item in flight.items:
                if item.outcome is not None or item.kind is Kind.OTHER:
                    continue
                asked[item.target if item.kind is Kind.CANCEL else item.cloid] = None
                if flight.closed_mark is not None and _needs_history(item):
                    asked[None] = None
        suspects: Iterable[_Leg | TrackedOrder] = self._suspects
        if len(self._suspects) > _ASKED_ALONE:
            suspects = [suspect for suspect in self._suspects if suspect in self._not_in_history]
            if len(self._suspects) - len(suspects) > _ASKED_ALONE:
                asked[None] = None
            else:
                suspects = self._suspects
        if any(leg in self._suspects for leg in self._vanished):
            asked[None] = None
        for suspect in suspects:
            asked[suspect.oid if isinstance(suspect, _Leg) else suspect.cloid] = None
            if isinstance(suspect, TrackedOrder) and _waits_unnamed(suspect):
                asked[None] = None
        return [Question(subject) for subject in asked]

    @property
    def has_questions(self) -> bool:
        """Whether there are any, without making them."""
        return bool(self._suspects) or any(
            item.outcome is None and item.kind is not Kind.OTHER
            for flight in self._lost.values()
            for item in flight.items
        )

    # --- evidence ---

    def _see(self, row: _Row, evidence: Evidence, words: str, mark: int | None = None) -> _Leg:
        """News of one oid. mark: when it was asked for; None: it was told without being asked."""
        leg = self._leg_of(row.oid, row.cloid, row.coin, row.side)
        leg.px, leg.sz = row.px, row.orig_sz
        if row.trigger_px is not None:
            leg.order.trigger_px = row.trigger_px
        is_open = evidence in (Evidence.STATUS_OPEN, Evidence.LISTED)
        if is_open:
            leg.alive_mark = max(leg.alive_mark, self.mark() if mark is None else mark)
        if is_open or evidence is Evidence.STATUS_FILLED:
            leg.told_left = row.sz if leg.told_left is None else min(leg.told_left, row.sz)
            if not row.reduce_only:  # the venue makes those smaller, without a fill
                leg.told_filled = max(leg.told_filled, row.orig_sz - row.sz)
        self._prove(leg, evidence, classify_status(words), words)
        self._count_all(leg)
        self._waits_no_more(leg.order)
        return leg

    def _count_the_risen(self, dex: str, mark: int, listed: Mapping[int, _Leg]) -> None:
        """Legs that ended and are listed by a query made after that was heard. Once can be a server that lags."""
        for leg in [leg for leg in self._risen if self._dex_of(leg.order.coin) == dex and leg.oid not in listed]:
            del self._risen[leg]
        for leg in listed.values():
            if not leg.state.live and leg.ended_mark < mark:
                self._risen[leg] = times = self._risen.get(leg, 0) + 1
                if times == 2:
                    self._events.append(Contradicted(leg.order, leg.oid))

    def _leg_of(self, oid: int, cloid: Cloid | None, coin: str, side: Side | None) -> _Leg:
        """The leg with this oid; made, and its order adopted, when there is none yet."""
        leg = self._by_oid.get(oid)
        order = self._by_cloid.get(cloid) if cloid is not None else None
        if leg is not None:
            leg.order._look_at(leg)
            if order is not None and order is not leg.order:  # a fill came first, and did not name the cloid
                self._move(leg, order)
            elif cloid is not None and leg.order.cloid is None:
                leg.order.cloid = cloid
                self._by_cloid[cloid] = leg.order
            if leg.order.side is None:
                leg.order.side = side
            return leg
        if order is None:
            order = TrackedOrder(coin, side, cloid)
            if cloid is not None:
                self._by_cloid[cloid] = order
            if self._tokens_of(coin) is None:
                self._heard_of(self._dex_of(coin))
        elif order.side is None:
            order.side = side
        return self._new_leg(order, oid)

    def _heard_of(self, dex: str) -> None:
        if dex not in self.dexs:
            self.dexs[dex] = None
            if not self.knows_positions(dex):
                self.to_compare = "an order or a fill on another dex"

    def _new_leg(self, order: TrackedOrder, oid: int) -> _Leg:
        leg = self._by_oid[oid] = _Leg(oid, order, self.mark())
        order._add_leg(leg)
        self._suspects.pop(order, None)
        self._foreign.pop(order, None)
        if oid in self._sums:
            order._add_fill(leg, *self._sums.pop(oid))
        return leg

    def _move(self, leg: _Leg, order: TrackedOrder) -> None:
        """What looked like an order placed elsewhere is a leg of one of ours."""
        old = leg.order
        old._look_at(leg)
        old._remove_leg(leg)
        if not old.legs and old.cloid in (None, order.cloid):  # what was asked of the one is asked of the other
            for item in old.items:
                item.order = order
            order.items += old.items
            order.placers += old.placers
            order.placed += old.placed
            order.always_placed = order.always_placed or old.always_placed
            old.items, old.placers = [], []
        if not old.legs and not old.items:
            self._live.pop(old, None)
            self._ended.pop(old, None)
            self._touched.pop(old, None)
            self._suspects.pop(old, None)
        else:
            self._touched[old] = None
        order._add_leg(leg)
        if leg.item is not None:
            order._placed_by(leg, leg.item)

    def _prove(self, leg: _Leg, evidence: Evidence, reason: ErrorCode = ErrorCode.NONE, message: str = "") -> None:
        state = PROVES[evidence]
        leg.order._look_at(leg)
        self._touched[leg.order] = None
        if state > leg.state:
            if leg.state.live and not state.live:
                leg.ended_mark = self.mark()
            leg.state = state
        if state == leg.state and message:  # the last words that fit what is proven
            leg.reason, leg.message = reason, message

    def _no_leg(self, order: TrackedOrder, evidence: Evidence, reason: ErrorCode, message: str) -> None:
        """Evidence about an order that may have no leg."""
        order._floor = max(order._floor, PROVES[evidence])
        if message:
            order.reason, order.message = reason, message
        self._touched[order] = None

    def _waits_no_more(self, order: TrackedOrder) -> None:
        """A child of its parent waits until its leg is seen: a modify that overtook it can have placed one before."""
        item = order.waits
        if item is None:
            return
        for leg in order.recent.values():
            if leg.item is None and (_fits(leg, item) or order.placed == 1):
                leg.item, order.waits = item, None
                self._suspects.pop(order, None)
                return

    def _parent_ended(self, order: TrackedOrder) -> None:
        order.waits = None
        self._suspects.pop(order, None)
        self._no_leg(order, Evidence.PARENT_ENDED, ErrorCode.CANCELED, "went with its parent")

    def _count(self, fill: Fill) -> None:
        """A fill that was not counted yet."""
        leg = self._by_oid.get(fill.oid)
        if leg is None and fill.cloid is not None and fill.cloid in self._by_cloid:
            leg = self._leg_of(fill.oid, fill.cloid, fill.coin, fill.side)
        if leg is None:
            sz, ntl = self._sums.get(fill.oid, (_ZERO, _ZERO))
            self._sums[fill.oid] = sz + fill.sz, ntl + fill.sz * fill.px
        else:
            leg.order._look_at(leg)
            leg.order._add_fill(leg, fill.sz, fill.sz * fill.px)
            self._count_all(leg)
        tokens = self._tokens_of(fill.coin)
        if tokens is None:
            dex = self._dex_of(fill.coin)
            self._heard_of(dex)
            ledger = self.ledgers.setdefault(dex, Ledger())
            ledger.add(fill.time, fill.coin, fill.signed_sz, fill.px)
        else:
            spot = self.ledgers["spot"]
            if spot.doubt(fill.time):
                self.to_compare = "a fill at the time of the first balances"
            spot.add(fill.time, tokens[0], fill.signed_sz)
            spot.add(fill.time, tokens[1], -fill.signed_sz * fill.px)
            spot.add(fill.time, fill.fee_token, -fill.fee)

    def _count_all(self, leg: _Leg) -> None:
        if leg.fill_sz:
            whole = leg.sz is not None and leg.fill_sz >= leg.sz
            self._prove(leg, Evidence.FILLS_OF_ALL if whole else Evidence.FILL)

    def _check(self, of: str, time_ms: int, told: dict[str, Decimal], entry_px: dict[str, Decimal]) -> bool:
        found = self.ledgers.setdefault(of, Ledger()).check(time_ms, told, entry_px)
        if found is None:
            return False
        self._events += [Differs(of, difference) for difference in found]
        return True

    # --- outcomes ---

    def _accepted(self, item: Item, told: object) -> None:
        order = item.order
        if isinstance(told, Resting | Filled) and order is not None and item.wanted is not None:
            self._placed(item, order, item.wanted, told)
        elif isinstance(told, Waiting) and order is not None:
            if item.outcome is None:  # else its leg was seen before this answer
                order.waits, order.waits_mark = item, self.mark()
            self._no_leg(order, Evidence.ANSWER_WAITING, ErrorCode.NONE, "")
            self._waits_no_more(order)
            self._resolve(item, Ack(item.coin, order.cloid, None, waiting=told.reason))
        elif item.kind is Kind.CANCEL:
            for leg in self._targets(item):
                if _names_one(item):
                    self._prove(leg, Evidence.CANCEL_ACCEPTED, ErrorCode.CANCELED, "canceled")
                elif leg.state.live:
                    self._suspects[leg] = None
            if order is not None and (not order.legs or order.waits is not None):  # it was there, and we never saw it
                self._suspects[order] = None
            self._resolve(item, _cancel_result(item, True))
        else:
            value = told.twap_id if isinstance(told, Running) else told.address if isinstance(told, Created) else None
            self._resolve(item, Done(item.flight.action, value))

    def _placed(self, item: Item, order: TrackedOrder, wanted: Order, told: Resting | Filled) -> None:
        leg = self._leg_of(told.oid, order.cloid, order.coin, wanted.side)
        leg.order._placed_by(leg, item)
        if leg.sz is None:
            leg.px, leg.sz = _number(wanted.px), _number(wanted.sz)
        filled = _ZERO
        avg_px = None
        if isinstance(told, Filled):
            filled, avg_px = Decimal(told.total_sz), Decimal(told.avg_px)
            leg.told_filled, leg.avg_px = max(leg.told_filled, filled), avg_px
            if filled >= leg.sz:
                self._prove(leg, Evidence.ANSWER_FILLED)
            elif wanted.tif == "Ioc":
                self._prove(leg, Evidence.ANSWER_PART_FILLED_IOC, ErrorCode.IOC_NO_MATCH, "the rest of an Ioc order")
                if wanted.reduce_only:  # unless the position was no larger: then it is filled
                    self._suspects[leg] = None
            else:  # the venue's docs do not say that such an order rests: look
                self._prove(leg, Evidence.ANSWER_PART_FILLED)
                self._suspects[leg] = None
        else:
            self._prove(leg, Evidence.ANSWER_RESTING)
            leg.alive_mark = self.mark()
        self._count_all(leg)
        self._resolve(item, Ack(order.coin, order.cloid, told.oid, isinstance(told, Resting), filled, avg_px))
        self._replaced_by(item, leg)

    def _replaced_by(self, item: Item, leg: _Leg) -> None:
        """A modify that worked ended the leg it named; one that places in any case need not have."""
        if item.kind is not Kind.MODIFY:
            return
        for old in self._targets(item):
            if old.oid < leg.oid and old.state.live:
                if item.always_place or not _names_one(item):
                    self._suspects[old] = None
                else:
                    self._prove(old, Evidence.MODIFY_ACCEPTED)

    def _refused(self, item: Item, error: Rejected) -> None:
        order = item.order
        if item.kind is Kind.PLACE and order is not None:
            self._no_leg(order, Evidence.ANSWER_REFUSED, error.code, error.message)
        elif item.kind is Kind.MODIFY:
            for leg in [leg for leg in self._targets(item) if leg.state.live]:
                if error.code is ErrorCode.MODIFY_OLD_ORDER_GONE and leg.born < item.mark and _names_one(item):
                    self._prove(leg, Evidence.MODIFY_LEFT_NOTHING, error.code, error.message)
                else:  # whether the old order survived is not always said
                    self._suspects[leg] = None
        elif item.kind is Kind.CANCEL and error.code is ErrorCode.ORDER_NOT_FOUND:
            self._suspects.update((leg, None) for leg in self._targets(item) if leg.state.live)
            if order is not None and not order.legs and order.adopted:
                self._suspects[order] = None
            self._resolve(item, _cancel_result(item, False, error.code, error.message))
            return
        self._resolve(item, error)

    def _lose(self, flight: Flight, error: OutcomeUnknown) -> None:
        if flight.lost is not None or flight.resolved:
            return
        flight.lost = error
        self._lost[flight.nonce] = flight
        for item in flight.items:
            if item.order is not None:
                self._touched[item.order] = None
        self._events.append(_outcome_event(flight, ""))
        self._give_up_others(flight)

    def _close(self, flight: Flight, code: ErrorCode, why: str) -> None:
        """The action cannot be executed any more; queries made from now on tell what it did."""
        if flight.closed_mark is None and not flight.resolved:
            flight.closed_mark, flight.closed_code, flight.closed_by = self.mark(), code, why
            self._give_up_others(flight)

    def _give_up_others(self, flight: Flight) -> None:
        """Actions that leave no trace: once lost and closed, nothing more can be learned of them."""
        lost = flight.lost
        if lost is None or flight.closed_mark is None:
            return
        for item in flight.items:
            if item.kind is Kind.OTHER:
                reason = f"{flight.closed_by}: it will not happen any more, and whether it did cannot be told"
                self._resolve(item, OutcomeUnknown(lost.action, lost.nonce, (), lost.waited_s, reason))

    def _conclude(self, order: TrackedOrder, mark: int, subject: int | Cloid, told: _Leg | None) -> None:
        """What a status query of this order, asked at `mark`, proves about actions that are closed.

        told: the leg that it answered for, None when the venue knows none.
        """
        self._claim(order)
        found = told is not None
        for item in list(order.items):
            if not _is_closed(item, mark):
                continue
            proof = f"proven: {item.flight.closed_by}, and "
            code = item.flight.closed_code
            if item.kind is Kind.PLACE and subject == order.cloid and not found:
                self._disprove(item, code, f"{proof}a query made after that does not know the order")
            elif item.kind is Kind.MODIFY and told is not None and told.state.live and told.born < item.mark:
                self._disprove(item, code, f"{proof}the order it was to replace is still open")
            elif item.kind is Kind.CANCEL and subject == item.target:
                if not found:
                    self._resolve(item, _cancel_result(item, False, ErrorCode.ORDER_NOT_FOUND, "unknownOid"))
                else:
                    self._conclude_cancel(item, code, f"{proof}the order is still open")
        if not found and not order.items:
            parent = order.parent
            leg = None if isinstance(subject, Cloid) else order.legs.get(subject)
            if (
                parent is not None
                and not order.legs
                and not parent.state.live
                and parent.state is not OrderState.FILLED
            ):
                self._parent_ended(order)
            elif (
                order.adopted and leg is not None and leg.state is OrderState.PENDING
            ):  # only its number was ever given
                self._suspects.pop(leg, None)
                self._prove(leg, Evidence.DISPROVED, ErrorCode.ORDER_NOT_FOUND, "unknownOid")
            elif order.adopted and not order.legs:
                if order.closed_mark is not None and order.closed_mark < mark:
                    self._no_leg(order, Evidence.DISPROVED, ErrorCode.ORDER_NOT_FOUND, "unknownOid")
                else:  # an earlier process may have sent it a moment ago
                    self._suspects[order] = None

    def _conclude_cancel(self, item: Item, code: ErrorCode, proof: str) -> None:
        """A cancel that can come no more, of an order that the venue knows. What was placed since says nothing."""
        legs = self._targets(item)
        live = [leg for leg in legs if leg.state.live]
        ended = [leg for leg in legs if not leg.state.live]
        unsure = [leg for leg in live if leg.alive_mark <= (item.flight.closed_mark or 0)]
        self._suspects.update((leg, None) for leg in unsure)
        if unsure or not live:
            return
        if ended and not (_names_one(item) and any(leg.born < item.mark for leg in live)):
            self._resolve_cancel(item, ended)
        else:
            self._disprove(item, code, proof)

    def _candidates(self, order: TrackedOrder, item: Item) -> list[_Leg]:
        """Legs that this item may have placed, oldest first: seen later than it was sent, and nobody else's."""

        def is_of_a_refused_one(leg: _Leg) -> bool:
            """A refusal names no oid, though the venue gave one to the order it refused."""
            return leg.state is OrderState.REJECTED and any(
                isinstance(other.outcome, Rejected) and _fits(leg, other) for other in order.placers
            )

        legs = [leg for leg in order.recent.values() if leg.item is None and leg.born > item.mark]
        return sorted((leg for leg in legs if not is_of_a_refused_one(leg)), key=lambda leg: leg.oid)

    def _claim(self, order: TrackedOrder, mark: int | None = None) -> None:
        """Lost actions that are seen: a leg nobody else placed, with the price and size that were asked for.

        The venue may show another price or size than was sent. Then the leg is the item's when nothing else of ours
        ever placed one here; or, once the history was asked for at `mark`, when it fits nothing else of ours. Not so
        for an adopted order: an earlier process can have placed legs too.
        """
        for item in list(order.items):
            if item.flight.lost is None or item.wanted is None:
                continue
            legs = self._candidates(order, item)
            match = [leg for leg in legs if _fits(leg, item)]
            if any(
                other is not item and other.flight.closed_mark is None and _fits(leg, other)
                for leg in match
                for other in order.items
            ):
                continue  # it may be the other's, and this one still to come: wait until neither can come
            alone = order.placed == 1 or (mark is not None and _is_closed(item, mark))
            if not match and alone and not order.adopted:  # an earlier process may have placed what is heard of late
                match = [leg for leg in legs if not any(_fits(leg, other) for other in order.placers)]
            self._suspects.update((leg, None) for leg in legs if leg.sz is None)  # only a fill of it was seen
            if match:
                self._claim_one(order, item, item.wanted, match[0])
            elif item.kind is Kind.PLACE and order.modified and not order.always_placed:
                self._close(item.flight, ErrorCode.NONE, "what replaced its order was seen")

    def _claim_one(self, order: TrackedOrder, item: Item, wanted: Order, leg: _Leg) -> None:
        order._placed_by(leg, item)
        if leg.sz is None:
            leg.px, leg.sz = _number(wanted.px), _number(wanted.sz)
            self._count_all(leg)
        if leg.state is OrderState.REJECTED:
            cloid = None if order.cloid is None else order.cloid.hex
            self._refused(item, Rejected(leg.reason, leg.message, cloid, item.index))
        else:
            resting, filled = leg.state is OrderState.OPEN, leg.filled
            self._resolve(item, Ack(order.coin, order.cloid, leg.oid, resting, filled, leg.avg_px))
            self._replaced_by(item, leg)
        self._close(item.flight, ErrorCode.NONE, "an order of the same action was seen")

    def _claim_cancels(self, order: TrackedOrder) -> None:
        """Lost cancels of what ended: seen, whoever ended it."""
        for item in list(order.items):
            if item.kind is not Kind.CANCEL or item.flight.lost is None or item.outcome is not None:
                continue
            legs = self._targets(item)
            if not legs or any(leg.state.live for leg in legs) or (item.target == order.cloid and order.may_be_live):
                continue
            self._resolve_cancel(item, legs)

    def _resolve_cancel(self, item: Item, legs: list[_Leg]) -> None:
        """A lost cancel, by how the newest of the legs that ended did."""
        ended = max(legs, key=lambda leg: leg.oid)
        canceled = ended.state is OrderState.CANCELED and ended.reason is ErrorCode.CANCELED
        reason = ErrorCode.NONE if canceled else ended.reason or ErrorCode.ORDER_NOT_FOUND
        self._resolve(item, _cancel_result(item, canceled, reason, ended.message or ended.state.name))

    def _targets(self, item: Item) -> list[_Leg]:
        """The legs that a modify or a cancel is about: one for an oid, those before it was sent for a cloid."""
        if item.order is None or item.target is None:
            return []
        if isinstance(item.target, Cloid):
            return [leg for leg in item.order.recent.values() if leg.item is not item]
        leg = item.order.legs.get(item.target)
        return [] if leg is None else [leg]

    def _disprove(self, item: Item, code: ErrorCode, proof: str) -> None:
        """It had no effect and never will."""
        if item.outcome is not None:
            return
        cloid = item.cloid
        if item.kind is Kind.PLACE and item.order is not None:
            self._no_leg(item.order, Evidence.DISPROVED, code, proof)
        elif item.kind is Kind.MODIFY:  # it may have been executed and refused, which can end the old leg
            self._suspects.update((leg, None) for leg in self._targets(item) if leg.state.live)
        self._resolve(item, Rejected(code, proof, cloid.hex if cloid else None, item.index))

    def _resolve(self, item: Item, outcome: Outcome) -> None:
        if item.outcome is not None:
            return
        item.outcome = outcome
        order = item.order
        if order is not None:
            order.items.remove(item)
            self._touched[order] = None
            if order.adopted and not order.legs and not order.items and order.state is OrderState.PENDING:
                self._suspects[order] = None  # nobody has seen it yet
        flight = item.flight
        if flight.resolved:
            del self._flights[flight.nonce]
            self._lost.pop(flight.nonce, None)
            proof = "" if flight.lost is None else flight.closed_by or "it was seen, or answered late"
            self._events.append(_outcome_event(flight, proof))

    def _settle_events(self) -> None:
        """Draw what follows from the news, then tell of each order that changed, once."""
        for order in list(self._touched):
            if order.items:
                self._claim(order)
                self._claim_cancels(order)
        touched, self._touched = self._touched, {}
        for order in touched:
            leg = order._leg
            if leg is not None:
                order.reason, order.message = leg.reason, leg.message
            self._settle(order)
            self._live_or_ended(order)
            summary = order._summary()
            if summary != order._told:
                order._told = summary
                self._events.append(OrderEvent(order))
        while len(self._ended) > _KEPT_ORDERS:
            self._forget(next(iter(self._ended)))

    def _settle(self, order: TrackedOrder) -> None:
        """Look at no more legs of this order than it takes, however often it was modified.

        What ended, is asked about no more and was neither placed nor ended by anything that has no outcome yet leaves
        `recent`, but for the newest. News of one brings it back: `_look_at`.
        """
        recent = order.recent
        if len(recent) > 2 * _RECENT_LEGS:
            placed_from = min((item.mark for item in order.items if item.wanted is not None), default=sys.maxsize)
            ended_from = min((item.mark for item in order.items if item.kind is Kind.CANCEL), default=sys.maxsize)
            for oid in sorted(recent)[:-_RECENT_LEGS]:
                leg = recent[oid]
                claimable = (leg.item is None and leg.born > placed_from) or leg.ended_mark > ended_from
                if not (leg.state.live or leg in self._suspects or claimable):
                    del recent[oid]
                    order._old_filled += leg.filled
                    order._old_state = max(order._old_state, leg.state)
                    leg.item, leg.told_left = leg.item and _FORGOTTEN, None
                    leg.message = sys.intern(leg.message)
        if len(order.placers) > 2 * _RECENT_PLACERS + len(order.items):
            decided = [item for item in order.placers if item.outcome is not None]
            old = set(decided[:-_RECENT_PLACERS])
            order.placers = [item for item in order.placers if item not in old]

    def _live_or_ended(self, order: TrackedOrder) -> None:
        if order.may_be_live:
            self._ended.pop(order, None)
            self._live.setdefault(order)
        else:
            self._live.pop(order, None)
            if order not in self._ended:
                self._ended[order] = None
                order.ended_mark = self.mark()

    def _forget(self, order: TrackedOrder) -> None:
        del self._ended[order]
        self._foreign.pop(order, None)
        self._suspects.pop(order, None)
        for oid, leg in order.legs.items():
            self._by_oid.pop(oid, None)
            self._suspects.pop(leg, None)
            self._risen.pop(leg, None)
        if order.cloid is not None:
            self._by_cloid.pop(order.cloid, None)
        for cloid in order._more_cloids:
            self._by_cloid.pop(cloid, None)


def _is_closed(item: Item, mark: int) -> bool:
    """A query of this mark was made after it was known that the item's action cannot be executed any more.

    Nothing is concluded while its answer can still come: that one is right, and what was seen is not claimed yet.
    """
    flight = item.flight
    return (
        item.outcome is None
        and flight.lost is not None
        and flight.closed_mark is not None
        and flight.closed_mark < mark
    )


def _names_one(item: Item) -> bool:
    """Whether its target can mean one open leg only: a modify that places in any case can leave two under a cloid."""
    by_oid = not isinstance(item.target, Cloid)
    return by_oid or item.order is None or not item.order.always_placed


def _parent_ended_before(order: TrackedOrder, mark: int) -> bool:
    parent = order.parent
    return parent is None or (not parent.may_be_live and parent.ended_mark < mark)


def _waits_unnamed(order: TrackedOrder) -> bool:
    """Its cloid finds another leg of it at the venue, perhaps, than the one that waits for its parent."""
    return order.waits is not None and bool(order.legs)


def _needs_history(item: Item) -> bool:
    """A query by cloid tells of one leg only: which of several did this action place, if any?"""
    if item.kind is Kind.PLACE:
        return item.order is not None and bool(item.order.legs)
    return item.kind is Kind.MODIFY


def _fits(leg: _Leg, item: Item) -> bool:
    wanted = item.wanted
    return wanted is not None and leg.px == _number(wanted.px) and leg.sz == _number(wanted.sz)


def _cancel_result(item: Item, canceled: bool, reason: ErrorCode = ErrorCode.NONE, message: str = "") -> CancelResult:
    oid, cloid = (None, item.target) if isinstance(item.target, Cloid) else (item.target, None)
    order = item.order
    may_be_live = order is not None and order.may_be_live
    if order is not None and canceled and not order.legs and all(other.wanted is None for other in order.items):
        may_be_live = False  # it was there, never seen by us, and nothing else of ours can place one under its cloid
    return CancelResult(item.coin, oid, cloid, canceled, reason, message, may_be_live)


def _outcome_event(flight: Flight, proof: str) -> OutcomeEvent:
    cloids = tuple(item.cloid for item in flight.items)
    outcomes = tuple(item.outcome for item in flight.items)
    return OutcomeEvent(flight.action, flight.nonce, cloids, flight.resolved, outcomes, proof, flight)
