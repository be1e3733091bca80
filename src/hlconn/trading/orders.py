"""What became of our orders: a pure state machine. News in, facts and events out; no I/O, no clock.

What is proven about orders is a matter of `legs.py`. An action whose answer is lost ends by proof alone
(docs/trading.md): it is seen; or its nonce is spent, by our noop or by itself, and a query made after that answers; or
the venue's time is past its expiry and a query made after that answers. "After" is a matter of `mark()`, a number that
grows: a query takes one when it is sent, and its answer proves something about an action only when it is larger than
the action's `closed_mark`.

Names of this machine that others use are imported from here, wherever they are made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from .._core.classify import classify
from ..errors import ErrorCode, NotSent, OutcomeUnknown, Rejected
from ..responses import Answer, Created, Filled, Resting, Running, Waiting
from ..types import Ack, CancelResult, Cloid, Done, Order
from .legs import PROVES, Evidence, Legs, status_evidence
from .rows import Row, read_fill, read_id
from .tracking import (
    ClockBehind,
    Contradicted,
    Differs,
    Event,
    FillEvent,
    Flight,
    Item,
    Kind,
    Leg,
    OrderEvent,
    OrderState,
    Outcome,
    OutcomeEvent,
    Question,
    Reconciled,
    TrackedOrder,
    exact,
    fits,
)

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


class OrderTable(Legs):
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
        super().__init__(tokens_of, dex_of)
        self._foreign_ms = foreign_ms
        self._flights: dict[int, Flight] = {}  # by nonce, those that are not resolved
        self._lost: dict[int, Flight] = {}  # of these, those in doubt
        self._not_in_history: set[Leg | TrackedOrder] = set()  # suspects that the last one did not settle
        self._vanished: set[Leg] = set()  # that were open, and that a status query does not know

    # --- what is known ---

    @property
    def flights(self) -> tuple[Flight, ...]:
        """Actions of which at least one item has no outcome, oldest first."""
        return tuple(self._flights.values())

    @property
    def doubts(self) -> tuple[Flight, ...]:
        """Of the flights, those whose answer is lost."""
        return tuple(self._lost.values())

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
        read = [(Row.read(entry["order"]), str(entry["status"])) for entry in rows]
        for row, status in read:
            self._see(row, status_evidence(status), status)
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
        for oid in [read_id(row["oid"]) for row in rows]:
            leg = self._by_oid.get(oid)
            if leg is not None:
                self._prove(leg, Evidence.CANCELED_BY_VENUE)
                self._suspects[leg] = None  # for the reason, which the message does not have
        self._settle_events()

    def on_open_orders(self, mark: int, dex: str, rows: Iterable[Any]) -> None:
        """The answer to openOrders or frontendOpenOrders of one dex, asked at `mark`; "" lists spot orders as well.

        An order that was open before and is not among them ended, and how is to be asked for.
        """
        read = [Row.read(row) for row in rows]
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
        told: Leg | None = None
        order = self.find(subject)
        if found:
            body = reply["order"]
            row, status = Row.read(body["order"]), str(body["status"])
            leg = self._see(row, status_evidence(status), status, mark)
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
        read = [(Row.read(entry["order"]), str(entry["status"])) for entry in rows]
        for row, status in read:
            if row.oid in self._by_oid or (row.cloid is not None and row.cloid in self._by_cloid):
                leg = self._see(row, status_evidence(status), status, mark)
                if not leg.state.live and status_evidence(status) is not Evidence.STATUS_OPEN:
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
        suspects: Iterable[Leg | TrackedOrder] = self._suspects
        if len(self._suspects) > _ASKED_ALONE:
            suspects = [suspect for suspect in self._suspects if suspect in self._not_in_history]
            if len(self._suspects) - len(suspects) > _ASKED_ALONE:
                asked[None] = None
            else:
                suspects = self._suspects
        if any(leg in self._suspects for leg in self._vanished):
            asked[None] = None
        for suspect in suspects:
            asked[suspect.oid if isinstance(suspect, Leg) else suspect.cloid] = None
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

    # --- answers ---

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
            leg.px, leg.sz = exact(wanted.px), exact(wanted.sz)
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

    def _replaced_by(self, item: Item, leg: Leg) -> None:
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

    # --- proof ---

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

    def _conclude(self, order: TrackedOrder, mark: int, subject: int | Cloid, told: Leg | None) -> None:
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

    def _candidates(self, order: TrackedOrder, item: Item) -> list[Leg]:
        """Legs that this item may have placed, oldest first: seen later than it was sent, and nobody else's."""

        def is_of_a_refused_one(leg: Leg) -> bool:
            """A refusal names no oid, though the venue gave one to the order it refused."""
            return leg.state is OrderState.REJECTED and any(
                isinstance(other.outcome, Rejected) and fits(leg, other) for other in order.placers
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
            match = [leg for leg in legs if fits(leg, item)]
            if any(
                other is not item and other.flight.closed_mark is None and fits(leg, other)
                for leg in match
                for other in order.items
            ):
                continue  # it may be the other's, and this one still to come: wait until neither can come
            alone = order.placed == 1 or (mark is not None and _is_closed(item, mark))
            if not match and alone and not order.adopted:  # an earlier process may have placed what is heard of late
                match = [leg for leg in legs if not any(fits(leg, other) for other in order.placers)]
            self._suspects.update((leg, None) for leg in legs if leg.sz is None)  # only a fill of it was seen
            if match:
                self._claim_one(order, item, item.wanted, match[0])
            elif item.kind is Kind.PLACE and order.modified and not order.always_placed:
                self._close(item.flight, ErrorCode.NONE, "what replaced its order was seen")

    def _claim_one(self, order: TrackedOrder, item: Item, wanted: Order, leg: Leg) -> None:
        order._placed_by(leg, item)
        if leg.sz is None:
            leg.px, leg.sz = exact(wanted.px), exact(wanted.sz)
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

    def _resolve_cancel(self, item: Item, legs: list[Leg]) -> None:
        """A lost cancel, by how the newest of the legs that ended did."""
        ended = max(legs, key=lambda leg: leg.oid)
        canceled = ended.state is OrderState.CANCELED and ended.reason is ErrorCode.CANCELED
        reason = ErrorCode.NONE if canceled else ended.reason or ErrorCode.ORDER_NOT_FOUND
        self._resolve(item, _cancel_result(item, canceled, reason, ended.message or ended.state.name))

    def _targets(self, item: Item) -> list[Leg]:
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
