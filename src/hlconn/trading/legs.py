"""What is proven about each leg of each order, of positions and of balances: a state machine, without a clock.

News of a leg come from answers, order updates, fills, open orders and status queries, in any order, late or twice. So
each leg keeps the most that was ever proven about it: `PROVES` is the one table of what proves what, and a state only
rises. What this means for the actions that we sent: orders.py.
"""

from __future__ import annotations

import itertools
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum, auto
from typing import Any

from .._core.classify import classify_status
from ..errors import ErrorCode
from ..types import Cloid, Fill, Position, Side
from .ledger import Ledger
from .rows import Row, read_decimal, read_id
from .tracking import (
    FORGOTTEN,
    ClockBehind,
    Contradicted,
    Differs,
    Event,
    FillEvent,
    Kind,
    Leg,
    OrderState,
    Reconciled,
    TrackedOrder,
    fits,
)

__all__ = ["PROVES", "Evidence", "Legs", "status_evidence"]

_ZERO = Decimal(0)
_RECENT_LEGS = 8  # of an order, that are looked at whatever is heard
_RECENT_PLACERS = 32  # of an order, of those that have their outcome


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


def status_evidence(status: str) -> Evidence:
    """Suffix rules are the venue's habit; a word that nobody knows ends nothing."""
    if status == "filled":
        return Evidence.STATUS_FILLED
    code = classify_status(status)
    if code in (ErrorCode.NONE, ErrorCode.UNKNOWN):
        return Evidence.STATUS_OPEN
    rejected = status.endswith("ejected") or status.startswith("hip3")
    return Evidence.STATUS_REJECTED if rejected else Evidence.STATUS_CANCELED


class Legs:
    """Every order with its legs, fills, positions and balances, of one account; `OrderTable` is what to use.

    tokens_of, dex_of: as of that.
    """

    def __init__(self, tokens_of: Callable[[str], tuple[str, str] | None], dex_of: Callable[[str], str]) -> None:
        self._tokens_of, self._dex_of = tokens_of, dex_of
        self._marks = itertools.count(1)
        self._by_oid: dict[int, Leg] = {}
        self._by_cloid: dict[Cloid, TrackedOrder] = {}
        self._live: dict[TrackedOrder, None] = {}  # in the order in which they came
        self._ended: OrderedDict[TrackedOrder, None] = OrderedDict()  # a dict walks over what was taken from its front
        self._fills: OrderedDict[tuple[str, int, int], Fill] = OrderedDict()
        self._sums: dict[int, tuple[Decimal, Decimal]] = {}  # by oid, of fills whose order is not known
        self._touched: dict[TrackedOrder, None] = {}
        self._events: list[Event] = []
        self._since_ms: int | None = None  # fills up to then are history
        self.ledgers: dict[str, Ledger] = {"": Ledger(), "spot": Ledger()}
        self._suspects: dict[Leg | TrackedOrder, None] = {}  # whose state is to be asked for
        self._risen: dict[Leg, int] = {}  # that ended: how many lists asked for after that have them as open, in a row
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

    def order_for(self, coin: str, subject: int | Cloid) -> TrackedOrder:
        """`find`, or a new one of which nothing is known yet: an order of an earlier process, say. `sent` keeps it."""
        order = self.find(subject)
        if order is None:
            order = TrackedOrder(coin, None, subject if isinstance(subject, Cloid) else None)
            if not isinstance(subject, Cloid):
                order._add_leg(Leg(subject, order, self.mark()))
        return order

    def take_events(self) -> list[Event]:
        """What happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def note(self, event: Reconciled | ClockBehind) -> None:
        """Tell of it, after what was told before."""
        self._events.append(event)

    # --- positions and balances ---

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
            told[position["coin"]] = read_decimal(position["szi"])
            if position.get("entryPx") is not None:
                entry_px[position["coin"]] = read_decimal(position["entryPx"])
        return self._check(dex, read_id(state["time"]), told, entry_px)

    def on_balances(self, time_ms: int, state: Any, until_ms: int | None = None) -> bool:
        """The answer to spotClearinghouseState, which has no time: that of a state asked for just before.

        until_ms: the time of a state asked for just after. The first balances are believed when no fill is in between,
        which they may include or not; if one is heard of later, they are asked for anew.
        """
        told = {str(entry["coin"]): read_decimal(entry["total"]) for entry in state["balances"]}
        spot = self.ledgers["spot"]
        if spot.time_ms is None and until_ms is not None:
            if spot.changed_between(time_ms, until_ms):
                return False
            spot.unsure_until_ms = until_ms
        return self._check("spot", time_ms, told, {})

    # --- evidence ---

    def _see(self, row: Row, evidence: Evidence, words: str, mark: int | None = None) -> Leg:
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

    def _count_the_risen(self, dex: str, mark: int, listed: Mapping[int, Leg]) -> None:
        """Legs that ended and are listed by a query made after that was heard. Once can be a server that lags."""
        for leg in [leg for leg in self._risen if self._dex_of(leg.order.coin) == dex and leg.oid not in listed]:
            del self._risen[leg]
        for leg in listed.values():
            if not leg.state.live and leg.ended_mark < mark:
                self._risen[leg] = times = self._risen.get(leg, 0) + 1
                if times == 2:
                    self._events.append(Contradicted(leg.order, leg.oid))

    def _leg_of(self, oid: int, cloid: Cloid | None, coin: str, side: Side | None) -> Leg:
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

    def _new_leg(self, order: TrackedOrder, oid: int) -> Leg:
        leg = self._by_oid[oid] = Leg(oid, order, self.mark())
        order._add_leg(leg)
        self._suspects.pop(order, None)
        self._foreign.pop(order, None)
        if oid in self._sums:
            order._add_fill(leg, *self._sums.pop(oid))
        return leg

    def _move(self, leg: Leg, order: TrackedOrder) -> None:
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

    def _prove(self, leg: Leg, evidence: Evidence, reason: ErrorCode = ErrorCode.NONE, message: str = "") -> None:
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
            if leg.item is None and (fits(leg, item) or order.placed == 1):
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

    def _count_all(self, leg: Leg) -> None:
        if leg.fill_sz:
            whole = leg.sz is not None and leg.fill_sz >= leg.sz
            self._prove(leg, Evidence.FILLS_OF_ALL if whole else Evidence.FILL)

    def _check(self, of: str, time_ms: int, told: dict[str, Decimal], entry_px: dict[str, Decimal]) -> bool:
        found = self.ledgers.setdefault(of, Ledger()).check(time_ms, told, entry_px)
        if found is None:
            return False
        self._events += [Differs(of, difference) for difference in found]
        return True

    # --- what is kept ---

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
                    leg.item, leg.told_left = leg.item and FORGOTTEN, None
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
