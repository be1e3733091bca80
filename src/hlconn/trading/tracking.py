"""What an order, an action and what is told of them are. How they change: legs.py and orders.py.

An order is a chain of legs under one cloid: each modify cancels a leg and places the next one, under a new oid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, TypeAlias

from ..errors import ErrorCode, NotSent, OutcomeUnknown, Rejected
from ..types import Ack, CancelResult, Cloid, Done, Fill, Order, Side, read_number
from .ledger import Difference

__all__ = [
    "FORGOTTEN",
    "ClockBehind",
    "Contradicted",
    "Differs",
    "Event",
    "FillEvent",
    "Flight",
    "Item",
    "Kind",
    "Leg",
    "OrderEvent",
    "OrderState",
    "Outcome",
    "OutcomeEvent",
    "Question",
    "Reconciled",
    "TrackedOrder",
    "exact",
    "fits",
]

_ZERO = Decimal(0)


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
class Leg:
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
    item: Item | None = None  # that placed it, where that is known; see `FORGOTTEN`

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
        self.legs: dict[int, Leg] = {}  # by oid, all of them
        self.recent: dict[int, Leg] = {}  # of these, whatever is not settled, and the newest: see `_settle`
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
        return leg.px if leg is not None else exact(self.wanted.px) if self.wanted else None

    @property
    def sz(self) -> Decimal | None:
        leg = self._leg
        return leg.sz if leg is not None else exact(self.wanted.sz) if self.wanted else None

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
    def _leg(self) -> Leg | None:
        legs = [leg for leg in self.recent.values() if leg.state.live] or list(self.recent.values())
        return max(legs, key=lambda leg: leg.oid, default=None)

    def _add_fill(self, leg: Leg, sz: Decimal, ntl: Decimal) -> None:
        leg.fill_sz += sz
        leg.fill_ntl += ntl
        self._fill_sz += sz
        self._fill_ntl += ntl

    def _add_leg(self, leg: Leg) -> None:
        """A leg of its own, or one that was taken for another order's."""
        leg.order = self
        self.legs[leg.oid] = self.recent[leg.oid] = leg
        self._fill_sz += leg.fill_sz
        self._fill_ntl += leg.fill_ntl

    def _remove_leg(self, leg: Leg) -> None:
        del self.legs[leg.oid], self.recent[leg.oid]
        self._fill_sz -= leg.fill_sz
        self._fill_ntl -= leg.fill_ntl

    def _placed_by(self, leg: Leg, item: Item) -> None:
        leg.item = item
        self.modified = self.modified or item.kind is Kind.MODIFY

    def _look_at(self, leg: Leg) -> None:
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
FORGOTTEN = Item(Kind.OTHER)


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


# --- what the table of orders asks, and tells ---


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


def exact(value: Any) -> Decimal:
    whole, fraction = read_number(value, "number")
    return Decimal(f"{whole}.{fraction or '0'}")


def fits(leg: Leg, item: Item) -> bool:
    wanted = item.wanted
    return wanted is not None and leg.px == exact(wanted.px) and leg.sz == exact(wanted.sz)
