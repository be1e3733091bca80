"""The rules of the venue one by one, by a raw client on a quiet stepped venue, and all of them mixed at random."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal

import eth_account.messages  # noqa: F401  Sets the recursion limit, which hypothesis wants to see done before it starts.
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sim.raw import JsonObject, Raw, limit, quiet_venue, trigger

from hlconn import Cloid, Order, Tif, Trigger, account, action
from hlconn.sim import Party, Rules, Venue
from hlconn.types import Builder, Grouping, Tpsl

TP, SL = Tpsl.TP, Tpsl.SL
ALWAYS = {"status": "ok", "response": {"type": "default"}}
CLOID = Cloid(0xABCDEF)
CLOID_TEXT = f"0x{CLOID.value:032x}"
NOT_FOUND = {"error": "Order was never placed, already canceled, or filled. asset=2"}


def sol(side: str, px: object, sz: object, tif: Tif = Tif.GTC, **more: Any) -> Order:
    return limit(side, px, sz, tif, coin="SOL", **more)


def stop(side: str, px: object, sz: object, at: object, tpsl: Tpsl, is_market: bool = True, **more: Any) -> Order:
    return trigger(side, px, sz, Trigger(at, tpsl, is_market), coin="SOL", **more)  # type: ignore[arg-type]


def desk(traders: int = 1, usdc: float = 10_000, **more: Any) -> tuple[Venue, list[Raw]]:
    """A venue, with 10 SOL offered at 151 and 10 wanted at 149 by an outsider, and some traders."""
    venue = quiet_venue(**more)
    venue.rest("SOL", "A", 151, 10)
    venue.rest("SOL", "B", 149, 10)
    return venue, [Raw(venue, venue.account(usdc)) for _ in range(traders)]


def oid_of(status: Any) -> int:
    oid: int = (status.get("resting") or status["filled"])["oid"]
    return oid


def status_of(raw: Raw, key: int | str) -> str | None:
    found = raw.venue.history.order(raw.party.address, key)
    return None if found is None else found["status"]


def open_oids(raw: Raw) -> set[int]:
    return {order["oid"] for order in raw.venue.info(type="frontendOpenOrders", user=raw.party.address)}


def position(raw: Raw, coin: str = "SOL") -> str:
    return raw.venue.history.positions(raw.party.address).get(coin, "0.0")


def state(raw: Raw, user: str | None = None) -> JsonObject:
    found: JsonObject = raw.venue.info(type="clearinghouseState", user=user or raw.party.address)
    return found


def value(raw: Raw, user: str | None = None) -> Any:
    return Decimal(state(raw, user)["marginSummary"]["accountValue"])


def spot(raw: Raw, coin: str) -> tuple[str, str]:
    for balance in raw.venue.info(type="spotClearinghouseState", user=raw.party.address)["balances"]:
        if balance["coin"] == coin:
            return balance["total"], balance["hold"]
    return "0.0", "0.0"


def told(raw: Raw) -> list[tuple[int, str]]:
    return [(update["order"]["oid"], update["status"]) for data in raw.take("orderUpdates") for update in data]


def user_signed(raw: Raw, sign: Callable[..., Any], *args: Any, **more: Any) -> Any:
    signed = sign(raw.signer, *args, raw.nonce(), **more)
    return raw.post_raw(json.loads(signed.payload))["payload"]


def refused(answer: Any) -> str:
    assert answer["status"] == "err", answer
    text: str = answer["response"]
    return text


# --- triggers ---------------------------------------------------------------------------------------------------

TRIGGERS = [
    # what closes, kind, at, a mark price that does not reach it, one that does
    ("A", TP, 160, "159.99", "160"),
    ("A", SL, 140, "140.01", "140"),
    ("B", TP, 140, "140.01", "140"),
    ("B", SL, 160, "159.99", "160"),
]


@pytest.mark.parametrize(("side", "tpsl", "at", "short_of", "reached"), TRIGGERS)
def test_a_market_trigger_trades_when_the_mark_price_reaches_it(
    side: str, tpsl: Tpsl, at: int, short_of: str, reached: str
) -> None:
    venue, [raw] = desk()
    raw.order(sol("B", 151, 1, Tif.IOC) if side == "A" else sol("A", 149, 1, Tif.IOC))
    raw.subscribe(type="orderUpdates", user=raw.party.address)
    [status] = raw.order(stop(side, 130 if side == "A" else 170, 1, at, tpsl))
    oid = oid_of(status)
    assert not venue.history.book("SOL").bids[1:]  # it is not on the book
    venue.set_mark("SOL", short_of)
    assert status_of(raw, oid) == "open"
    venue.set_mark("SOL", reached)
    assert (status_of(raw, oid), position(raw)) == ("filled", "0.0")
    assert told(raw) == [(oid, "open"), (oid, "triggered"), (oid, "filled")]
    assert venue.history.fills(raw.party.address)[-1]["px"] == ("149.0" if side == "A" else "151.0")


@pytest.mark.parametrize(("side", "tpsl", "at", "short_of", "reached"), TRIGGERS)
def test_a_limit_trigger_rests_at_its_price_once_reached(
    side: str, tpsl: Tpsl, at: int, short_of: str, reached: str
) -> None:
    venue, [raw] = desk()
    raw.order(sol("B", 151, 1, Tif.IOC) if side == "A" else sol("A", 149, 1, Tif.IOC))
    px = 150.5 if side == "A" else 149.5
    [status] = raw.order(stop(side, px, 1, at, tpsl, is_market=False))
    oid = oid_of(status)
    venue.set_mark("SOL", short_of)
    assert status_of(raw, oid) == "open"
    venue.set_mark("SOL", reached)
    assert (status_of(raw, oid), position(raw)) == ("triggered", "1.0" if side == "A" else "-1.0")
    assert open_oids(raw) == {oid}
    assert venue.history.book("SOL").top[side == "A"] == (int(px * 10_000), 100, 1)
    assert venue.cross("SOL", "B" if side == "A" else "A", 1) == "1.0"
    assert (status_of(raw, oid), position(raw), open_oids(raw)) == ("filled", "0.0", set())


def test_a_limit_trigger_that_crosses_takes_what_is_there_first() -> None:
    venue, [raw] = desk()
    raw.order(sol("B", 151, 10, Tif.IOC))
    venue.rest("SOL", "B", 148, 1)
    [status] = raw.order(stop("A", 149, 10, 140, SL, is_market=False))
    venue.rest("SOL", "B", "149.5", 3)
    venue.set_mark("SOL", 140)
    assert (status_of(raw, oid_of(status)), position(raw)) == ("filled", "0.0")
    assert [fill["px"] for fill in venue.history.fills(raw.party.address)[1:]] == ["149.5", "149.0"]


def test_a_market_trigger_that_meets_nothing_is_rejected_and_one_that_meets_little_is_canceled() -> None:
    venue, [raw] = desk()
    raw.order(sol("B", 151, 5, Tif.IOC))
    nothing, little = raw.order(stop("A", "149.5", 5, 140, SL), stop("A", 130, 5, 139, SL))
    venue.set_mark("SOL", 140)
    assert status_of(raw, oid_of(nothing)) == "marketOrderNoLiquidityRejected"
    venue.cross("SOL", "A", 8)
    venue.set_mark("SOL", 139)
    assert (status_of(raw, oid_of(little)), position(raw)) == ("canceled", "3.0")
    assert open_oids(raw) == set()


@pytest.mark.parametrize(("side", "tpsl", "at"), [("A", TP, 150), ("A", SL, 150), ("B", TP, 150), ("B", SL, 150)])
def test_a_trigger_that_is_reached_already_is_refused(side: str, tpsl: Tpsl, at: int) -> None:
    venue, [raw] = desk()
    raw.order(sol("B", 151, 1, Tif.IOC) if side == "A" else sol("A", 149, 1, Tif.IOC))
    [status] = raw.order(stop(side, 150, 1, at, tpsl))
    assert status == {"error": "Invalid TP/SL price. asset=2"}
    assert venue.info(type="historicalOrders", user=raw.party.address)[0]["status"] == "badTriggerPxRejected"


def test_a_trigger_that_opens_a_position_needs_its_margin_when_it_fires() -> None:
    venue, [raw] = desk(usdc=100)
    status, dear = raw.order(
        stop("B", 155, 1, 155, SL, reduce_only=False), stop("B", 155, 1000, 156, SL, reduce_only=False)
    )
    venue.set_mark("SOL", 156)
    assert (status_of(raw, oid_of(status)), position(raw)) == ("filled", "1.0")
    assert status_of(raw, oid_of(dear)) == "perpMarginRejected"


def test_a_reduce_only_trigger_without_a_position_any_more_is_canceled_when_it_fires() -> None:
    venue, [raw] = desk()
    raw.order(sol("B", 151, 1, Tif.IOC))
    [status] = raw.order(stop("A", 130, 1, 140, SL))
    raw.order(sol("A", 149, 1, Tif.IOC))
    assert status_of(raw, oid_of(status)) == "open"
    venue.set_mark("SOL", 140)
    assert status_of(raw, oid_of(status)) == "reduceOnlyCanceled"


# --- groups -----------------------------------------------------------------------------------------------------


def group(raw: Raw, parent: Order, is_market: bool = True) -> list[Any]:
    side = "A" if parent.side.name == "BUY" else "B"
    tp, sl = (160, 140) if side == "A" else (140, 160)
    children = [
        stop(side, tp, parent.sz, tp, TP, is_market=False),
        stop(side, 120 if side == "A" else 180, parent.sz, sl, SL, is_market),
    ]
    return raw.order(parent, *children, grouping=Grouping.NORMAL_TPSL)


def children_of(raw: Raw, parent: int) -> tuple[int, int]:
    """The two oids after the parent's."""
    return parent + 1, parent + 2


def test_children_wait_for_their_parent_and_one_that_is_filled_cancels_the_other() -> None:
    venue, [raw] = desk()
    raw.subscribe(type="orderUpdates", user=raw.party.address)
    parent, *children = group(raw, sol("B", "149.5", 2))
    oid = oid_of(parent)
    tp, sl = children_of(raw, oid)
    assert children == ["waitingForFill", "waitingForFill"]
    venue.set_mark("SOL", 139)  # a child that waits does not fire
    venue.set_mark("SOL", 150)
    venue.cross("SOL", "A", 1)
    assert (status_of(raw, oid), status_of(raw, sl), position(raw)) == ("open", "open", "1.0")
    venue.set_mark("SOL", 139)  # nor after a part of its parent
    venue.set_mark("SOL", 150)
    assert (status_of(raw, sl), position(raw)) == ("open", "1.0")
    venue.cross("SOL", "A", 1)
    assert (status_of(raw, oid), status_of(raw, sl), position(raw)) == ("filled", "open", "2.0")
    venue.set_mark("SOL", 140)
    assert (status_of(raw, sl), status_of(raw, tp), position(raw)) == ("filled", "siblingFilledCanceled", "0.0")
    assert open_oids(raw) == set()
    last = ("filled", "triggered", "filled", "siblingFilledCanceled")
    assert told(raw) == [
        *((each, "open") for each in (oid, tp, sl)),
        *zip((oid, sl, sl, tp), last, strict=True),
    ]


def test_a_limit_child_that_rests_goes_when_its_sibling_is_filled() -> None:
    venue, [raw] = desk()
    parent, *children = group(raw, sol("B", 151, 2))
    tp, sl = children_of(raw, oid_of(parent))
    assert children == ["waitingForTrigger", "waitingForTrigger"]
    venue.set_mark("SOL", 160)
    assert status_of(raw, tp) == "triggered"
    assert open_oids(raw) == {tp, sl}
    venue.set_mark("SOL", 140)
    assert (status_of(raw, sl), status_of(raw, tp), position(raw)) == ("filled", "siblingFilledCanceled", "0.0")
    assert venue.history.book("SOL").asks[0].px == 1_510_000
    assert len(venue.history.book("SOL").asks) == 1


def test_a_child_whose_price_was_reached_while_it_waited_fires_with_its_parents_fill() -> None:
    venue, [raw] = desk()
    parent, *_ = group(raw, sol("B", "149.5", 2))
    _, sl = children_of(raw, oid_of(parent))
    venue.set_mark("SOL", 139)
    venue.cross("SOL", "A", 2)
    assert (status_of(raw, sl), position(raw)) == ("filled", "0.0")


@pytest.mark.parametrize("filled_before", [0, 1])
def test_canceling_a_parent_cancels_its_children_whatever_was_filled(filled_before: int) -> None:
    venue, [raw] = desk()
    parent, *_ = group(raw, sol("B", "149.5", 2))
    tp, sl = children_of(raw, oid_of(parent))
    venue.cross("SOL", "A", filled_before)
    assert raw.cancel("SOL", oid_of(parent)) == "success"
    assert [status_of(raw, oid) for oid in (oid_of(parent), tp, sl)] == ["canceled"] * 3
    venue.set_mark("SOL", 140)
    assert position(raw) == f"{filled_before}.0"
    assert open_oids(raw) == set()


def test_a_group_whose_parent_is_refused_has_no_children() -> None:
    _, [raw] = desk()
    error = {"error": "Post only order would have immediately matched, bbo was 149@151. asset=2"}
    assert group(raw, sol("B", 152, 2, Tif.ALO)) == [error] * 3
    partly = group(raw, sol("B", 151, 20, Tif.IOC))
    assert partly[1:] == [{"error": "Parent order was canceled."}] * 2
    assert open_oids(raw) == set()


def test_a_group_must_have_the_shape_of_one() -> None:
    _, [raw] = desk()
    number = [{"error": "Unexpected number of trigger orders"}]
    tpsl = {"grouping": Grouping.NORMAL_TPSL}
    assert raw.order(sol("B", 149, 1), **tpsl) == number
    assert raw.order(sol("B", 149, 1), sol("A", 150, 1), **tpsl) == number
    assert raw.order(sol("B", 149, 1), grouping=Grouping.POSITION_TPSL) == number
    side = [{"error": "Trigger order has unexpected side."}]
    assert raw.order(sol("B", 149, 1), stop("B", 160, 1, 160, SL), **tpsl) == side
    other = trigger("A", 90_000, "0.01", Trigger(90_000, SL), coin="BTC")
    assert raw.order(sol("B", 149, 1), other, **tpsl) == side
    free = [{"error": "Trigger order is not reduce only."}]
    assert raw.order(sol("B", 149, 1), stop("A", 140, 1, 140, SL, reduce_only=False), **tpsl) == free


def test_a_position_tpsl_follows_the_size_of_the_position_and_ends_with_it() -> None:
    venue, [raw] = desk()
    raw.order(sol("B", 151, 1, Tif.IOC))
    [status] = raw.order(stop("A", 130, 0, 140, SL), grouping=Grouping.POSITION_TPSL)
    assert raw.venue.history.order(raw.party.address, oid_of(status))["order"]["isPositionTpsl"] is True  # type: ignore[index]
    raw.order(sol("B", 151, 2, Tif.IOC))
    venue.set_mark("SOL", 140)
    assert (status_of(raw, oid_of(status)), position(raw)) == ("filled", "0.0")
    assert venue.history.fills(raw.party.address)[-1]["sz"] == "3.0"
    venue.set_mark("SOL", 150)
    raw.order(sol("B", 151, 1, Tif.IOC))
    [status] = raw.order(stop("A", 130, 0, 140, SL), grouping=Grouping.POSITION_TPSL)
    raw.order(sol("A", 149, 1, Tif.IOC))
    assert status_of(raw, oid_of(status)) == "reduceOnlyCanceled"


# --- reduce-only ------------------------------------------------------------------------------------------------


def test_a_reduce_only_order_needs_something_to_reduce() -> None:
    venue, [raw] = desk()
    error = {"error": "Reduce only order would increase position. asset=2"}
    assert raw.order(sol("A", 149, 1, reduce_only=True), sol("B", 149, 1, reduce_only=True)) == [error] * 2
    raw.order(sol("B", 151, 1, Tif.IOC))
    assert raw.order(sol("B", 149, 1, reduce_only=True)) == [error]
    assert position(raw) == "1.0"
    story = [order["status"] for order in venue.history.orders(raw.party.address)]
    assert story.count("reduceOnlyRejected") == 3


def test_a_reduce_only_order_is_capped_at_the_position() -> None:
    _, [raw] = desk()
    raw.order(sol("B", 151, 1, Tif.IOC))
    [status] = raw.order(sol("A", 149, 5, Tif.IOC, reduce_only=True))
    assert status["filled"]["totalSz"] == "1.0"
    assert position(raw) == "0.0"
    raw.order(sol("A", 149, 2, Tif.IOC))
    [status] = raw.order(sol("B", 151, 5, Tif.GTC, reduce_only=True))
    assert (status["filled"]["totalSz"], position(raw)) == ("2.0", "0.0")


def test_a_resting_reduce_only_order_trades_no_more_than_the_position_that_is_left() -> None:
    venue, [raw] = desk()
    raw.order(sol("B", 151, 3, Tif.IOC))
    [status] = raw.order(sol("A", "150.5", 3, reduce_only=True))
    raw.order(sol("A", 149, 2, Tif.IOC))
    assert status_of(raw, oid_of(status)) == "open"
    venue.rest("SOL", "A", "150.6", 5)
    assert venue.cross("SOL", "B", 3) == "3.0"
    assert (status_of(raw, oid_of(status)), position(raw)) == ("reduceOnlyCanceled", "0.0")
    assert [fill["sz"] for fill in venue.history.fills(raw.party.address)] == ["3.0", "2.0", "1.0"]


def test_a_resting_reduce_only_order_goes_with_the_position_it_would_reduce() -> None:
    _, [raw] = desk()
    raw.order(sol("B", 151, 1, Tif.IOC))
    statuses = raw.order(sol("A", 155, 1, reduce_only=True), sol("A", 156, 1))
    raw.order(sol("A", 149, 1, Tif.IOC))
    assert [status_of(raw, oid_of(status)) for status in statuses] == ["reduceOnlyCanceled", "open"]
    raw.order(sol("B", 151, 1, Tif.IOC))
    [status] = raw.order(sol("A", 155, 1, reduce_only=True))
    raw.order(sol("A", 149, 3, Tif.IOC))
    assert (status_of(raw, oid_of(status)), position(raw)) == ("reduceOnlyCanceled", "-2.0")


def test_what_is_left_of_a_small_position_may_be_closed_for_less_than_the_minimum_value() -> None:
    _, [raw] = desk()
    small = {"error": "Order must have minimum value of $10. asset=2"}
    assert raw.order(sol("B", 151, "0.06", Tif.IOC)) == [small]
    raw.order(sol("B", 151, "0.07", Tif.IOC))
    raw.order(sol("B", 151, 1, Tif.IOC))
    assert raw.order(sol("A", 149, "0.06", Tif.IOC, reduce_only=True)) == [small]
    raw.order(sol("A", 149, "1.01", Tif.IOC))
    [status] = raw.order(sol("A", 149, "0.06", Tif.IOC, reduce_only=True))
    assert (status["filled"]["totalSz"], position(raw)) == ("0.06", "0.0")


# --- self trades ------------------------------------------------------------------------------------------------


def test_an_own_resting_order_is_canceled_and_the_taker_goes_on() -> None:
    venue, [raw] = desk()
    [mine] = raw.order(sol("A", "150.5", 2))
    [status] = raw.order(sol("B", 151, 1, Tif.IOC))
    assert status["filled"] == {"totalSz": "1.0", "avgPx": "151.0", "oid": oid_of(status)}
    assert status_of(raw, oid_of(mine)) == "selfTradeCanceled"
    assert len(venue.history.fills(raw.party.address)) == 1


# --- modify -----------------------------------------------------------------------------------------------------


def modify(raw: Raw, key: int | Cloid, new: Order, **more: Any) -> Any:
    return raw.do(action.modify(key, new, raw.instruments, **more))


def batch_modify(raw: Raw, *modifies: tuple[int | Cloid, Order], **more: Any) -> list[Any]:
    answer = raw.do(action.batch_modify(list(modifies), raw.instruments, **more))
    assert answer["response"]["type"] == "order"
    statuses: list[Any] = answer["response"]["data"]["statuses"]
    return statuses


@pytest.mark.parametrize("by_cloid", [False, True])
@pytest.mark.parametrize("first", ["canceled first", "open first"])
def test_a_modify_cancels_one_order_and_places_another_with_its_cloid(
    first: Literal["canceled first", "open first"], by_cloid: bool
) -> None:
    venue, [raw] = desk(rules=Rules(modify_updates=first))
    [status] = raw.order(sol("B", 145, 1, cloid=CLOID))
    old = oid_of(status)
    raw.subscribe(type="orderUpdates", user=raw.party.address)
    assert modify(raw, CLOID if by_cloid else old, sol("B", 146, 2, cloid=CLOID)) == ALWAYS
    [new] = open_oids(raw)
    assert new > old
    assert status_of(raw, old) == "canceled"
    updates = [(old, "canceled"), (new, "open")]
    assert told(raw) == (updates if first == "canceled first" else updates[::-1])
    known = venue.info(type="orderStatus", user=raw.party.address, oid=CLOID_TEXT)["order"]["order"]
    assert (known["oid"], known["limitPx"], known["sz"], known["cloid"]) == (new, "146.0", "2.0", CLOID_TEXT)
    assert known["tif"] == "Alo"  # a Gtc that may not take becomes one
    [again] = batch_modify(raw, (new, sol("B", 147, 1)))
    assert open_oids(raw) == {oid_of(again)}
    assert venue.history.order(raw.party.address, oid_of(again))["order"]["cloid"] is None  # type: ignore[index]


def test_both_orders_of_updates_come_when_left_to_chance() -> None:
    _, [raw] = desk(rules=Rules(modify_updates="random"))
    oid = oid_of(raw.order(sol("B", 145, 1))[0])
    raw.subscribe(type="orderUpdates", user=raw.party.address)
    seen = set()
    for px in range(100, 130):
        modify(raw, oid, sol("B", px, 1))
        [oid] = open_oids(raw)
        seen.add(tuple(status for _, status in told(raw)))
    assert seen == {("canceled", "open"), ("open", "canceled")}


@pytest.mark.parametrize("new", [sol("B", 151, 1), sol("B", 145, 1, Tif.IOC)], ids=["crossing", "Ioc"])
def test_a_modify_to_an_order_that_may_take_is_refused_and_the_old_one_stays(new: Order) -> None:
    _, [raw] = desk()
    oid = oid_of(raw.order(sol("B", 145, 1))[0])
    text = "Attempted to modify to invalid new order"
    assert refused(modify(raw, oid, new)) == text
    assert batch_modify(raw, (oid, new)) == [{"error": text}]
    assert (open_oids(raw), position(raw)) == ({oid}, "0.0")


def test_always_place_lets_a_modify_take_and_place_without_an_old_order() -> None:
    _, [raw] = desk()
    oid = oid_of(raw.order(sol("B", 145, 1))[0])
    assert modify(raw, oid, sol("B", 151, 1), always_place=True) == ALWAYS
    assert (status_of(raw, oid), position(raw), open_oids(raw)) == ("canceled", "1.0", set())
    gone = "Cannot modify canceled or filled order"
    assert refused(modify(raw, oid, sol("B", 145, 1))) == gone
    assert batch_modify(raw, (oid, sol("B", 145, 1)), (5, sol("B", 145, 1))) == [{"error": gone}] * 2
    [status] = batch_modify(raw, (oid, sol("B", 146, 1)), always_place=True)
    assert open_oids(raw) == {oid_of(status)}


def test_a_modify_whose_new_order_is_refused_leaves_the_old_one_gone() -> None:
    _, [raw] = desk(usdc=100)
    oid = oid_of(raw.order(sol("B", 145, 1))[0])
    text = "Error placing new order during modify: Insufficient margin to place order. asset=2"
    assert refused(modify(raw, oid, sol("B", 145, 1000))) == text
    assert (status_of(raw, oid), open_oids(raw)) == ("canceled", set())
    oid = oid_of(raw.order(sol("B", 145, 1))[0])
    assert batch_modify(raw, (oid, sol("B", 145, 1000))) == [{"error": text}]
    assert (status_of(raw, oid), open_oids(raw)) == ("canceled", set())


def test_an_order_that_depends_on_the_payload_alone_leaves_the_old_one_be() -> None:
    _, [raw] = desk()
    oid = oid_of(raw.order(sol("B", 145, 1))[0])
    off_grid = {"a": 2, "b": True, "p": "145.001", "s": "1", "r": False, "t": {"limit": {"tif": "Gtc"}}}
    answer = raw.do(action.raw({"type": "batchModify", "modifies": [{"oid": oid, "order": off_grid}]}))
    error = {"error": "Price must be divisible by tick size. asset=2"}
    assert answer["response"] == {"type": "order", "data": {"statuses": [error]}}
    assert open_oids(raw) == {oid}


def test_a_trigger_order_is_modified_only_with_always_place() -> None:
    _, [raw] = desk()
    raw.order(sol("B", 151, 1, Tif.IOC))
    oid = oid_of(raw.order(stop("A", 130, 1, 140, SL))[0])
    new = stop("A", 130, 1, 141, SL)
    assert "error" in batch_modify(raw, (oid, new))[0]
    assert open_oids(raw) == {oid}
    [status] = batch_modify(raw, (oid, new), always_place=True)
    assert open_oids(raw) == {oid_of(status)}


def test_a_modified_order_queues_again() -> None:
    venue, [raw] = desk()
    [first] = raw.order(sol("B", "149.5", 1))
    other = Raw(venue, venue.account())
    [second] = other.order(sol("B", "149.5", 1))
    [first] = batch_modify(raw, (oid_of(first), sol("B", "149.5", 1)))
    venue.cross("SOL", "A", 1)
    assert (status_of(raw, oid_of(first)), status_of(other, oid_of(second))) == ("open", "filled")


# --- cancel -----------------------------------------------------------------------------------------------------


def test_an_order_is_canceled_by_oid_and_by_cloid_once() -> None:
    _, [raw, other] = desk(2)
    one, two = raw.order(sol("B", 145, 1), sol("B", 146, 1, cloid=CLOID))
    by_cloid = action.cancel_by_cloid([("SOL", CLOID), ("SOL", Cloid(5))], raw.instruments)
    assert other.cancel("SOL", oid_of(one)) == NOT_FOUND
    assert raw.cancel("BTC", oid_of(one)) == {"error": NOT_FOUND["error"].replace("=2", "=0")}
    assert open_oids(raw) == {oid_of(one), oid_of(two)}
    assert other.do(by_cloid)["response"]["data"]["statuses"] == [NOT_FOUND] * 2
    assert raw.do(by_cloid)["response"] == {"type": "cancel", "data": {"statuses": ["success", NOT_FOUND]}}
    twice = action.cancel([("SOL", oid_of(one)), ("SOL", oid_of(one))], raw.instruments)
    assert raw.do(twice)["response"]["data"]["statuses"] == ["success", NOT_FOUND]
    assert open_oids(raw) == set()


def test_an_unknown_asset_cancels_nothing_of_the_batch() -> None:
    _, [raw] = desk()
    [status] = raw.order(sol("B", 145, 1, cloid=CLOID))
    by_oid = {"type": "cancel", "cancels": [{"a": 2, "o": oid_of(status)}, {"a": 77, "o": 5}]}
    assert refused(raw.do(action.raw(by_oid))) == "Invalid asset"
    by_cloid = {
        "type": "cancelByCloid",
        "cancels": [{"asset": 2, "cloid": CLOID_TEXT}, {"asset": 10_777, "cloid": CLOID_TEXT}],
    }
    assert refused(raw.do(action.raw(by_cloid))) == "Invalid spot"
    assert open_oids(raw) == {oid_of(status)}


def test_a_fast_cancel_leaves_trigger_orders_alone() -> None:
    _, [raw] = desk()
    raw.order(sol("B", 151, 1, Tif.IOC))
    plain, waiting = (oid_of(status) for status in raw.order(sol("B", 145, 1), stop("A", 130, 1, 140, SL)))
    cancels = action.cancel([("SOL", plain), ("SOL", waiting)], raw.instruments, fast=True)
    assert raw.do(cancels)["response"]["data"]["statuses"] == ["success", NOT_FOUND]
    assert open_oids(raw) == {waiting}
    assert raw.cancel("SOL", waiting) == "success"


def schedule(raw: Raw, after_ms: int | None) -> Any:
    time_ms = None if after_ms is None else int(raw.venue.now_ms()) + after_ms
    return raw.do(action.schedule_cancel(time_ms))


def test_a_scheduled_cancel_ends_every_order_at_its_time_each_of_them_once() -> None:
    venue, [raw, other] = desk(2, history_blocks=5)
    [resting] = raw.order(sol("B", 145, 1))
    parent, *_ = group(raw, sol("B", 144, 1))
    [others] = other.order(sol("B", 145, 1))
    raw.subscribe(type="orderUpdates", user=raw.party.address)
    assert schedule(raw, 6_000) == ALWAYS
    venue.advance(5_000)
    assert len(open_oids(raw)) == 4
    venue.advance(1_200)
    assert (open_oids(raw), open_oids(other)) == (set(), {oid_of(others)})
    ends = told(raw)
    assert sorted(oid for oid, _ in ends) == [oid_of(resting), *(oid_of(parent) + n for n in range(3))]
    assert dict(ends)[oid_of(resting)] == dict(ends)[oid_of(parent)] == "scheduledCancel"
    for _ in range(8):
        venue.block()  # and they are forgotten without a trace of them being counted twice
    assert status_of(raw, oid_of(resting)) is None


def test_a_scheduled_cancel_is_at_least_five_seconds_away_can_be_moved_and_cleared() -> None:
    venue, [raw] = desk()
    [status] = raw.order(sol("B", 145, 1))
    early = "Scheduled cancel time too early, must be at least 5 seconds from now."
    assert refused(schedule(raw, 4_900)) == early
    assert schedule(raw, 6_000) == ALWAYS
    assert schedule(raw, 9_000) == ALWAYS
    venue.advance(7_000)
    assert open_oids(raw) == {oid_of(status)}
    assert schedule(raw, None) == ALWAYS
    venue.advance(7_000)
    assert open_oids(raw) == {oid_of(status)}


def test_scheduled_cancels_come_ten_times_a_day_and_need_volume_where_the_rules_say_so() -> None:
    midnight = 1_750_032_000_000
    venue, [raw] = desk(rules=Rules(cancel_volume_usd=300), start_ms=midnight - 70_000)
    assert refused(schedule(raw, 6_000)) == (
        "Cannot set scheduled cancel time until enough volume traded. Required: $300. Traded: $0."
    )
    raw.order(sol("B", 151, 2, Tif.IOC))
    for _ in range(10):
        assert schedule(raw, 5_500) == ALWAYS
        venue.advance(6_000)
    assert refused(schedule(raw, 6_000)) == "Too many scheduled cancels triggered for the day. Limit is 10"
    venue.advance(midnight - venue.now_ms())
    assert schedule(raw, 6_000) == ALWAYS


# --- envelopes and blocks ---------------------------------------------------------------------------------------


def test_a_noop_spends_its_nonce() -> None:
    _, [raw] = desk()
    nonce = raw.nonce()
    assert raw.do(action.noop(), nonce) == ALWAYS
    late = action.order([sol("B", 145, 1)], raw.instruments)
    assert refused(raw.do(late, nonce)) == f"Invalid nonce: duplicate nonce {nonce}"
    assert open_oids(raw) == set()


def test_a_refused_order_spends_its_nonce_and_an_expired_action_does_not() -> None:
    venue, [raw] = desk()
    nonce = raw.nonce()
    assert (
        "error"
        in raw.do(action.order([sol("B", 145, "0.01")], raw.instruments), nonce)["response"]["data"]["statuses"][0]
    )
    assert "duplicate" in refused(raw.do(action.noop(), nonce))
    nonce = raw.nonce()
    assert refused(raw.do(action.noop(), nonce, int(venue.now_ms()) - 1)) == "Action already expired"
    assert raw.do(action.noop(), nonce, int(venue.now_ms()) + 1_000) == ALWAYS


def statuses_of(raw: Raw, *post_ids: int) -> list[Any]:
    for post_id in post_ids:
        raw.wait(post_id)
    return [raw.answers[each]["payload"]["response"]["data"]["statuses"][0] for each in post_ids]


def test_within_a_block_cancels_come_before_orders_that_may_take() -> None:
    _, [maker, taker] = desk(2)
    [status] = maker.order(sol("A", "150.5", 1))
    take = taker.write(action.order([sol("B", "150.5", 1, Tif.IOC)], taker.instruments))
    cancel = maker.write(action.cancel([("SOL", oid_of(status))], maker.instruments))
    [answer] = statuses_of(taker, take)
    assert statuses_of(maker, cancel) == ["success"]
    assert answer == {"error": "Order could not immediately match against any resting orders. asset=2"}


def test_within_a_block_post_only_orders_come_first_and_a_modify_counts_as_what_it_places() -> None:
    venue, [maker, taker] = desk(2)
    [old] = maker.order(sol("A", 155, 1))
    take = taker.write(action.order([sol("B", 150, 2, Tif.IOC)], taker.instruments))
    slow = maker.write(action.batch_modify([(oid_of(old), sol("A", 150, 1))], maker.instruments))
    first = maker.write(action.order([sol("A", 150, 1, Tif.ALO)], maker.instruments))
    moved, posted = statuses_of(maker, slow, first)
    [answer] = statuses_of(taker, take)
    # The Gtc of the modify waited for its turn behind the taker, the Alo did not.
    assert (answer["filled"]["totalSz"], answer["filled"]["avgPx"]) == ("1.0", "150.0")
    assert status_of(maker, oid_of(posted)) == "filled"
    assert status_of(maker, oid_of(moved)) == "open"
    assert position(taker) == "1.0"
    assert venue.history.book("SOL").asks[0] == (1_500_000, 100, 1)


# --- money ------------------------------------------------------------------------------------------------------


def test_fees_profit_and_flips_are_counted_to_the_cent() -> None:
    venue, [raw] = desk()
    raw.order(sol("B", 151, 2, Tif.IOC))
    raw.order(sol("A", 149, 3, Tif.IOC))
    [resting] = raw.order(sol("B", "149.5", 2))
    venue.cross("SOL", "A", 2)
    fills = venue.history.fills(raw.party.address)
    keys = ("side", "px", "sz", "startPosition", "dir", "closedPnl", "crossed", "fee", "feeToken")
    assert [tuple(fill[key] for key in keys) for fill in fills] == [
        ("B", "151.0", "2.0", "0.0", "Open Long", "0.0", True, "0.1359", "USDC"),
        ("A", "149.0", "3.0", "2.0", "Long > Short", "-4.0", True, "0.20115", "USDC"),
        ("B", "149.5", "2.0", "-1.0", "Short > Long", "-0.5", False, "0.04485", "USDC"),
    ]
    assert fills[-1]["oid"] == oid_of(resting)
    [entry] = state(raw)["assetPositions"]
    assert (entry["position"]["szi"], entry["position"]["entryPx"]) == ("1.0", "149.5")
    paid = Decimal("0.1359") + Decimal("0.20115") + Decimal("0.04485")
    assert value(raw) == 10_000 - Decimal("4.5") - paid + Decimal("0.5")  # the mark price is 150
    venue.set_mark("SOL", 160)
    assert value(raw) == 10_000 - Decimal("4.5") - paid + Decimal("10.5")


def test_an_entry_price_is_the_average_of_what_opened_the_position() -> None:
    venue, [raw] = desk()
    venue.rest("SOL", "A", 153, 10)
    [status] = raw.order(sol("B", 153, 15, Tif.IOC))
    assert status["filled"]["avgPx"] == "151.6667"
    raw.order(sol("A", 149, 6, Tif.IOC))
    [entry] = state(raw)["assetPositions"]
    assert Decimal(entry["position"]["entryPx"]) == Decimal("151.6667")
    pnl = (149 - Decimal(2275) / 15) * 6
    assert Decimal(venue.history.fills(raw.party.address)[-1]["closedPnl"]) == pytest.approx(pnl, abs=Decimal("1e-6"))


def test_margin_is_asked_for_what_would_be_open_if_all_orders_of_a_side_were_filled() -> None:
    _, [raw] = desk(usdc=100)
    error = {"error": "Insufficient margin to place order. asset=2"}
    assert "resting" in raw.order(sol("B", 145, 13))[0]  # 13 * 150 / 20 = 97.5
    assert raw.order(sol("B", 145, 1)) == [error]
    assert "resting" in raw.order(sol("A", 155, 13))[0]  # the other side needs no more
    assert raw.order(sol("A", 155, 1)) == [error]
    assert raw.do(action.update_leverage("SOL", 10, raw.instruments))["response"] == (
        "Cross position does not have sufficient margin available to decrease leverage."
    )
    assert raw.order(sol("B", 151, 1, Tif.IOC)) == [error]


def test_a_position_may_be_reduced_without_any_margin_left() -> None:
    venue, [raw] = desk(usdc=100)
    raw.order(sol("B", 151, 10, Tif.IOC))
    venue.set_mark("SOL", 142)
    assert Decimal(state(raw)["withdrawable"]) == 0
    assert raw.order(sol("B", 145, 1)) == [{"error": "Insufficient margin to place order. asset=2"}]
    assert raw.order(sol("A", 149, 5, Tif.IOC))[0]["filled"]["totalSz"] == "5.0"


def test_an_isolated_position_has_its_own_margin_which_can_be_changed() -> None:
    venue, [raw] = desk()
    assert raw.do(action.update_leverage("SOL", 10, raw.instruments, is_cross=False)) == ALWAYS
    raw.order(sol("B", 151, 2, Tif.IOC))
    [entry] = state(raw)["assetPositions"]
    assert entry["position"]["leverage"] == {"type": "isolated", "value": 10, "rawUsd": "-271.8"}
    assert entry["position"]["marginUsed"] == "28.2"  # 302 / 10, less the 2 that the mark price is below 151
    fee = Decimal("0.1359")
    assert Decimal(state(raw)["crossMarginSummary"]["accountValue"]) == 10_000 - Decimal("30.2") - fee
    assert value(raw) == 10_000 - 2 - fee
    margin: dict[str, Any] = {"instruments": raw.instruments}
    assert raw.do(action.update_isolated_margin("SOL", 20_000_000, **margin)) == ALWAYS
    assert state(raw)["assetPositions"][0]["position"]["marginUsed"] == "48.2"
    assert value(raw) == 10_000 - 2 - fee
    too_much = "Insufficient margin for this change of isolated margin."
    assert refused(raw.do(action.update_isolated_margin("SOL", -19_000_000, **margin))) == too_much
    assert refused(raw.do(action.update_isolated_margin("SOL", 10_000_000_000, **margin))) == too_much
    assert raw.do(action.update_isolated_margin("SOL", -18_200_000, **margin)) == ALWAYS
    raw.order(sol("A", 149, 1, Tif.IOC))
    raw.order(sol("A", 149, 1, Tif.IOC))
    assert position(raw) == "0.0"
    paid = sum(Decimal(fill["fee"]) for fill in venue.history.fills(raw.party.address))
    assert value(raw) == Decimal(state(raw)["crossMarginSummary"]["accountValue"]) == 10_000 - 4 - paid
    no_position = "Position does not use isolated margin."
    assert refused(raw.do(action.update_isolated_margin("SOL", 1, **margin))) == no_position


def test_leverage_has_its_limits() -> None:
    venue, [raw] = desk()
    leverage: dict[str, Any] = {"instruments": raw.instruments}
    for number in (0, 21):
        wire = {"type": "updateLeverage", "asset": 2, "isCross": True, "leverage": number}
        assert refused(raw.do(action.raw(wire))) == "Invalid leverage value"
    for asset in (10_000, 77):
        wire = {"type": "updateLeverage", "asset": asset, "isCross": True, "leverage": 5}
        assert refused(raw.do(action.raw(wire))) == "Invalid asset"
    only_isolated = "Cross margin is not allowed for this asset."
    assert refused(raw.do(action.update_leverage("test:GOLD", 5, **leverage))) == only_isolated
    assert raw.do(action.update_leverage("test:GOLD", 5, **leverage, is_cross=False)) == ALWAYS
    raw.order(sol("B", 151, 1, Tif.IOC))
    switch = "Cannot switch leverage type with open position."
    assert refused(raw.do(action.update_leverage("SOL", 5, **leverage, is_cross=False))) == switch
    assert raw.do(action.update_leverage("SOL", 5, **leverage)) == ALWAYS
    assert state(raw)["assetPositions"][0]["position"]["leverage"] == {"type": "cross", "value": 5}
    assert venue.history.fills(raw.party.address)[0]["dir"] == "Open Long"


def test_a_spot_order_holds_what_it_would_pay_and_its_fee_is_of_what_it_earns() -> None:
    venue = quiet_venue()
    raw = Raw(venue, venue.account(0, {"USDC": 1000, "PURR": 500}))
    buy, sell = raw.order(limit("B", "0.2", 1000, coin="PURR/USDC"), limit("A", "0.25", 200, coin="PURR/USDC"))
    assert (spot(raw, "USDC"), spot(raw, "PURR")) == (("1000.0", "200.0"), ("500.0", "200.0"))
    short = {"error": "Insufficient spot balance asset=10000"}
    assert raw.order(limit("B", "0.2", 4001, coin="PURR/USDC")) == [short]
    assert raw.order(limit("A", "0.25", 301, coin="PURR/USDC")) == [short]
    venue.cross("PURR/USDC", "A", 400)
    assert (spot(raw, "USDC"), spot(raw, "PURR")) == (("920.0", "120.0"), ("899.84", "200.0"))
    venue.cross("PURR/USDC", "B", 200)
    assert (spot(raw, "USDC"), spot(raw, "PURR")) == (("969.98", "120.0"), ("699.84", "0.0"))
    fills = venue.history.fills(raw.party.address)
    keys = ("oid", "dir", "startPosition", "fee", "feeToken", "crossed")
    assert [tuple(fill[key] for key in keys) for fill in fills] == [
        (oid_of(buy), "Buy", "500.0", "0.16", "PURR", False),
        (oid_of(sell), "Sell", "899.0", "0.02", "USDC", False),
    ]
    assert raw.cancel("PURR/USDC", oid_of(buy)) == "success"
    assert spot(raw, "USDC") == ("969.98", "0.0")
    assert raw.order(limit("B", "0.2", 100, coin="PURR/USDC", reduce_only=True)) == [
        {"error": "Reduce-only is invalid for spot trading. asset=10000"}
    ]


def test_a_builder_is_paid_what_was_approved_and_no_more() -> None:
    venue, [raw] = desk()
    builder = Builder("0x" + "b1" * 20, 10)
    error = [{"error": "Builder fee has not been approved."}]
    assert raw.order(sol("B", 151, 2, Tif.IOC), builder=builder) == error
    assert user_signed(raw, account.approve_builder_fee, builder.address, "0.01%") == ALWAYS
    assert venue.info(type="maxBuilderFee", user=raw.party.address, builder=builder.address) == 10
    assert raw.order(sol("B", 151, 2, Tif.IOC), builder=Builder(builder.address, 11)) == error
    raw.order(sol("B", 151, 2, Tif.IOC), builder=builder)
    [fill] = venue.history.fills(raw.party.address)
    assert (fill["fee"], fill["builderFee"]) == ("0.1661", "0.0302")  # 0.045 % and 0.01 % of 302
    assert value(raw) == 10_000 - 2 - Decimal("0.1661")


def test_an_order_that_fails_by_its_payload_alone_answers_for_the_whole_batch() -> None:
    venue, [raw] = desk()
    good = {"a": 2, "b": True, "p": "145", "s": "1", "r": False, "t": {"limit": {"tif": "Gtc"}}}
    for bad, text in (
        ({"p": "145.001"}, "Price must be divisible by tick size. asset=2"),
        ({"p": "0"}, "Order has invalid price. asset=2"),
        ({"s": "0"}, "Order has zero size. asset=2"),
        ({"s": "0.001"}, "Order has invalid size. asset=2"),
    ):
        answer = raw.do(action.raw({"type": "order", "orders": [good, good | bad, good], "grouping": "na"}))
        assert answer["response"] == {"type": "order", "data": {"statuses": [{"error": text}]}}
    unknown = {"type": "order", "orders": [good, good | {"a": 77}], "grouping": "na"}
    assert refused(raw.do(action.raw(unknown))) == "Invalid asset"
    assert raw.order(sol("B", 29, 1)) == [
        {"error": "Order price cannot be more than 80% away from the reference price"}
    ]
    assert "resting" in raw.order(sol("B", 30, 1))[0]
    assert len(venue.history.orders(raw.party.address)) == 1


# --- who may act ------------------------------------------------------------------------------------------------


def test_a_vault_and_a_sub_account_trade_by_their_master_alone() -> None:
    venue, [raw, other] = desk(2)
    for address in (venue.vault(raw.party, 5_000), venue.sub_account(raw.party, 5_000)):
        mine = Raw(venue, raw.party, vault=address)
        theirs = Raw(venue, other.party, vault=address)
        assert mine.order(sol("B", 151, 1, Tif.IOC))[0]["filled"]["totalSz"] == "1.0"
        assert venue.history.positions(address) == {"SOL": "1.0"}
        assert position(raw) == "0.0"
        order = action.order([sol("B", 151, 1, Tif.IOC)], theirs.instruments)
        assert refused(theirs.do(order)) == f"Vault not registered: {address}"
        agent = Raw(venue, venue.agent(raw.party, address), vault=address)
        assert agent.order(sol("B", 151, 1, Tif.IOC))[0]["filled"]["totalSz"] == "1.0"
        assert venue.history.positions(address) == {"SOL": "2.0"}


def test_money_moves_between_a_master_and_what_it_owns() -> None:
    venue, [raw, other] = desk(2)
    sub = raw.do(action.raw({"type": "createSubAccount", "name": "one"}))["response"]["data"]
    nonce = raw.nonce()
    wire = {"type": "createVault", "name": "v", "description": "d", "initialUsd": 200_000_000, "nonce": nonce}
    vault = raw.do(action.raw(wire), nonce)["response"]["data"]
    assert (value(raw), value(raw, vault), value(raw, sub)) == (9_800, 200, 0)
    to_sub = {"type": "subAccountTransfer", "subAccountUser": sub, "isDeposit": True, "usd": 50_000_000}
    to_vault = {"type": "vaultTransfer", "vaultAddress": vault, "isDeposit": False, "usd": 20_000_000}
    assert raw.do(action.raw(to_sub)) == raw.do(action.raw(to_vault)) == ALWAYS
    assert (value(raw), value(raw, vault), value(raw, sub)) == (9_770, 180, 50)
    short = "Insufficient balance for withdrawal."
    assert refused(raw.do(action.raw({**to_sub, "isDeposit": False, "usd": 50_000_001}))) == short
    assert refused(other.do(action.raw(to_vault))) == f"Vault not registered: {vault}"
    assert "Invalid sub-account transfer" in refused(other.do(action.raw(to_sub)))
    assert (value(raw), value(raw, vault), value(raw, sub), value(other)) == (9_770, 180, 50, 10_000)
    assert [entry["subAccountUser"] for entry in venue.info(type="subAccounts", user=raw.party.address)] == [sub]


def test_money_is_sent_withdrawn_and_moved_to_spot_as_far_as_it_is_free() -> None:
    venue, [raw, other] = desk(2)
    raw.order(sol("B", 151, 10, Tif.IOC))  # binds 75, costs 10 and 0.6795
    free = Decimal(state(raw)["withdrawable"])
    assert free == 10_000 - 10 - Decimal("0.6795") - 75
    short = "Insufficient balance for withdrawal."
    assert refused(user_signed(raw, account.usd_send, other.party.address, free + Decimal("0.000001"))) == short
    assert user_signed(raw, account.usd_send, other.party.address, 1_000) == ALWAYS
    assert user_signed(raw, account.withdraw, other.party.address, 500) == ALWAYS
    assert user_signed(raw, account.usd_class_transfer, 100, False) == ALWAYS
    assert (value(raw) + 1_600, value(other), spot(raw, "USDC")[0]) == (free + 75, 11_000, "100.0")
    assert refused(user_signed(raw, account.usd_class_transfer, 101, True)) == short
    assert user_signed(raw, account.usd_class_transfer, 100, True) == ALWAYS
    assert spot(raw, "USDC")[0] == "0.0"
    assert venue.info(type="userRole", user=other.party.address) == {"role": "user"}


def test_a_refused_transfer_makes_nobody_known() -> None:
    venue, [raw] = desk()
    nobody = venue.stranger()
    assert "Insufficient" in refused(user_signed(raw, account.usd_send, nobody.address, 1_000_000))
    [usdc, *_] = venue.info(type="spotMeta")["tokens"]
    token = f"{usdc['name']}:{usdc['tokenId']}"
    assert "Insufficient" in refused(user_signed(raw, account.spot_send, nobody.address, token, 5))
    assert venue.info(type="userRole", user=nobody.address) == {"role": "missing"}
    assert user_signed(raw, account.usd_send, nobody.address, 10) == ALWAYS
    assert venue.info(type="userRole", user=nobody.address) == {"role": "user"}


def test_an_agent_trades_until_it_is_replaced_expires_or_is_removed() -> None:
    venue, [raw] = desk()
    first, second, third = (venue.stranger() for _ in range(3))
    place = action.order([sol("B", 145, 1)], raw.instruments)
    unknown = f"User or API Wallet {first.address} does not exist."
    assert refused(Raw(venue, first).do(place)) == unknown
    assert user_signed(raw, account.approve_agent, first.address, name="bot") == ALWAYS
    assert Raw(venue, first).do(place)["status"] == "ok"
    assert len(open_oids(raw)) == 1
    assert venue.info(type="userRole", user=first.address) == {"role": "agent", "data": {"user": raw.party.address}}
    until = int(venue.now_ms()) + 60_000
    assert user_signed(raw, account.approve_agent, second.address, name="bot", valid_until_ms=until) == ALWAYS
    assert refused(Raw(venue, first).do(place)) == unknown
    assert Raw(venue, second).do(place)["status"] == "ok"
    assert venue.info(type="extraAgents", user=raw.party.address) == [
        {"name": "bot", "address": second.address, "validUntil": until}
    ]
    venue.advance(60_000)
    assert refused(Raw(venue, second).do(place)) == f"User or API Wallet {second.address} does not exist."
    assert refused(user_signed(raw, account.approve_agent, first.address, name="bot")) == "Extra agent already used."
    assert user_signed(raw, account.approve_agent, third.address, name="bot") == ALWAYS
    assert Raw(venue, third).do(place)["status"] == "ok"
    assert user_signed(raw, account.approve_agent, None, name="bot") == ALWAYS
    assert refused(Raw(venue, third).do(place)) == f"User or API Wallet {third.address} does not exist."
    assert len(open_oids(raw)) == 3


def test_an_account_has_three_named_agents_and_one_without_a_name() -> None:
    venue, [raw] = desk()
    for name in ("a", "b", "c", None, None):
        assert user_signed(raw, account.approve_agent, venue.stranger().address, name=name) == ALWAYS
    text = "Too many extra agents for cumulative volume traded. Current limit is 3"
    assert refused(user_signed(raw, account.approve_agent, venue.stranger().address, name="d")) == text
    assert user_signed(raw, account.approve_agent, venue.stranger().address, name="c") == ALWAYS
    assert len(venue.info(type="extraAgents", user=raw.party.address)) == 3
    late = int(venue.now_ms()) - 1
    text = "Agent valid_until already expired."
    assert (
        refused(user_signed(raw, account.approve_agent, venue.stranger().address, name="c", valid_until_ms=late))
        == text
    )


# --- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["resting", "filled"])
def test_a_gtc_that_is_filled_in_part_is_answered_as_the_rules_say(answer: Literal["resting", "filled"]) -> None:
    _, [raw] = desk(rules=Rules(partial_gtc_answer=answer))
    [status] = raw.order(sol("B", 151, 15))
    assert list(status) == [answer]
    assert answer == "resting" or status["filled"]["totalSz"] == "10.0"
    assert (position(raw), open_oids(raw)) == ("10.0", {oid_of(status)})


@pytest.mark.parametrize("repeats", [False, True])
def test_open_is_repeated_after_a_partial_fill_where_the_rules_say_so(repeats: bool) -> None:
    venue, [raw] = desk(rules=Rules(partial_fill_updates=repeats))
    raw.subscribe(type="orderUpdates", user=raw.party.address)
    raw.order(sol("B", "149.5", 3))
    venue.cross("SOL", "A", 1)
    venue.cross("SOL", "A", 2)
    updates = [update for data in raw.take("orderUpdates") for update in data]
    seen = [(update["status"], update["order"]["sz"]) for update in updates]
    assert seen == [("open", "3.0"), *([("open", "2.0")] if repeats else []), ("filled", "0.0")]


def test_finished_orders_are_forgotten_with_their_blocks_and_open_ones_never() -> None:
    venue, [raw] = desk(history_blocks=4)
    [gone], [kept] = raw.order(sol("B", 145, 1, cloid=CLOID)), raw.order(sol("B", 146, 1))
    assert raw.cancel("SOL", oid_of(gone)) == "success"
    for _ in range(2):
        venue.block()
    assert status_of(raw, oid_of(gone)) == status_of(raw, CLOID_TEXT) == "canceled"
    for _ in range(3):
        venue.block()
    assert status_of(raw, oid_of(gone)) is status_of(raw, CLOID_TEXT) is None
    assert [order["order"]["oid"] for order in venue.history.orders(raw.party.address)] == [oid_of(kept)]
    assert len(venue.history.blocks()) == 4
    assert raw.cancel("SOL", oid_of(kept)) == "success"


def test_a_reused_cloid_means_the_last_order_and_outlives_the_first() -> None:
    venue, [raw] = desk(history_blocks=4)
    [first] = raw.order(sol("B", 145, 1, cloid=CLOID))
    raw.cancel("SOL", oid_of(first))
    [second] = raw.order(sol("B", 145, 1, cloid=CLOID))
    for _ in range(6):
        venue.block()
    assert status_of(raw, oid_of(first)) is None
    assert venue.history.order(raw.party.address, CLOID_TEXT)["order"]["oid"] == oid_of(second)  # type: ignore[index]


def test_delisting_cancels_what_rests_and_halts_trading() -> None:
    venue, [raw] = desk()
    raw.order(sol("B", 151, 1, Tif.IOC))
    plain, waiting = raw.order(sol("B", 145, 1), stop("A", 130, 1, 140, SL))
    parent, *_ = group(raw, sol("B", 144, 1))
    venue.delist_coin("SOL")
    oids = [oid_of(plain), oid_of(waiting), oid_of(parent)]
    assert [status_of(raw, oid) for oid in oids] == ["delistedCanceled"] * 3
    assert open_oids(raw) == set()
    assert raw.order(sol("B", 145, 1)) == [{"error": "Trading is halted. asset=2"}]


# --- everything at once -----------------------------------------------------------------------------------------

COINS = ("SOL", "BTC", "PURR/USDC", "test:GOLD")
HOME = {"SOL": Decimal(150), "BTC": Decimal(106_000), "PURR/USDC": Decimal("0.2"), "test:GOLD": Decimal(2650)}
STEP = {"SOL": Decimal("0.5"), "BTC": Decimal(100), "PURR/USDC": Decimal("0.001"), "test:GOLD": Decimal(5)}
LOT = {"SOL": Decimal("0.1"), "BTC": Decimal("0.0002"), "PURR/USDC": Decimal(60), "test:GOLD": Decimal("0.01")}

who = st.integers(0, 4)
coins = st.sampled_from(("SOL", "SOL", "SOL", "BTC", "PURR/USDC", "test:GOLD"))
perps = st.sampled_from(("SOL", "SOL", "BTC", "test:GOLD"))
ticks = st.integers(-6, 6)
lots = st.integers(1, 40)
sides = st.sampled_from("BA")
tifs = st.sampled_from((Tif.GTC, Tif.GTC, Tif.ALO, Tif.IOC))


class Everything(RuleBasedStateMachine):
    """Five traders (a user, another, a vault, a sub-account, one by its agent), an outsider, and a stepped clock.

    The venue checks itself after each block (debug); the invariants here are computed from fills and answers alone.
    """

    @initialize()
    def open(self) -> None:
        venue = self.venue = quiet_venue(coins=COINS)
        users = [venue.account(3_000, {"USDC": 500, "PURR": 1_000}, {"test": 1_000}) for _ in range(3)]
        owned = [venue.vault(users[0], 3_000), venue.sub_account(users[1], 3_000)]
        agent = venue.agent(users[2], "bot")
        self.traders = [
            Raw(venue, users[0]),
            Raw(venue, users[1]),
            Raw(venue, users[0], vault=owned[0]),
            Raw(venue, users[1], vault=owned[1]),
            Raw(venue, agent),
        ]
        self.users, self.owned = users, owned
        self.addresses = [users[0].address, users[1].address, *owned, users[2].address]
        self.perp = {address: Decimal(3_000) for address in self.addresses}
        self.dex = {address: Decimal(1_000 if address not in owned else 0) for address in self.addresses}
        self.usdc = {address: Decimal(500 if address not in owned else 0) for address in self.addresses}
        self.purr = {address: Decimal(1_000 if address not in owned else 0) for address in self.addresses}
        self.next_cloid = 0
        for coin in COINS:
            for tick in (1, 2, 3):
                venue.rest(coin, "A", str(self.px(coin, tick)), str(20 * LOT[coin]))
                venue.rest(coin, "B", str(self.px(coin, -tick)), str(20 * LOT[coin]))
        for trader, side in enumerate("BABAB"):
            self.place(trader, "SOL", side, 1 if side == "B" else -1, 5, Tif.IOC, False)

    # Helpers.

    def px(self, coin: str, tick: int) -> Decimal:
        return HOME[coin] + tick * STEP[coin]

    def cloid(self) -> Cloid | None:
        self.next_cloid += 1
        return Cloid(self.next_cloid) if self.next_cloid % 2 else None

    def do(self, trader: int, act: Any) -> Any:
        answer = self.traders[trader].do(act)
        assert answer["status"] in ("ok", "err"), answer
        return answer

    def some_open(self, trader: int, pick: int) -> JsonObject | None:
        found = self.open_orders(self.addresses[trader])
        return found[pick % len(found)] if found else None

    def open_orders(self, address: str) -> list[JsonObject]:
        return [
            order for dex in ("", "test") for order in self.venue.info(type="frontendOpenOrders", user=address, dex=dex)
        ]

    # Orders.

    @rule(trader=who, coin=coins, side=sides, tick=ticks, sz=lots, tif=tifs, reduce_only=st.booleans())
    def place(self, trader: int, coin: str, side: str, tick: int, sz: int, tif: Tif, reduce_only: bool) -> None:
        reduce_only = reduce_only and coin != "PURR/USDC"
        order = limit(side, self.px(coin, tick), sz * LOT[coin], tif, coin, reduce_only=reduce_only, cloid=self.cloid())
        self.do(trader, action.order([order], self.traders[trader].instruments))

    @rule(trader=who, coin=perps, side=sides, tick=ticks, sz=lots, tpsl=st.sampled_from((TP, SL)), market=st.booleans(),
          kind=st.sampled_from(("na", "position", "free")))  # fmt: skip
    def wait(self, trader: int, coin: str, side: str, tick: int, sz: int, tpsl: Tpsl, market: bool, kind: str) -> None:
        at = Trigger(self.px(coin, tick), tpsl, market)
        worst = self.px(coin, 20 if side == "B" else -20) if market else self.px(coin, tick)
        size = sz * LOT[coin] * (0 if kind == "position" and sz % 2 else 1)
        order = trigger(side, worst, size, at, coin, reduce_only=kind != "free")
        grouping = Grouping.POSITION_TPSL if kind == "position" else Grouping.NA
        self.do(trader, action.order([order], self.traders[trader].instruments, grouping=grouping))

    @rule(trader=who, coin=perps, side=sides, tick=ticks, sz=lots, far=st.integers(1, 4))
    def place_group(self, trader: int, coin: str, side: str, tick: int, sz: int, far: int) -> None:
        other, sign, size = "A" if side == "B" else "B", 1 if side == "B" else -1, sz * LOT[coin]
        orders = [
            limit(side, self.px(coin, tick), size, coin=coin),
            trigger(other, self.px(coin, sign * far), size, Trigger(self.px(coin, sign * far), TP, False), coin),
            trigger(other, self.px(coin, -20 * sign), size, Trigger(self.px(coin, -sign * far), SL), coin),
        ]
        self.do(trader, action.order(orders, self.traders[trader].instruments, grouping=Grouping.NORMAL_TPSL))

    @rule(trader=who, pick=st.integers(0, 99), tick=ticks, sz=lots, always=st.booleans(), batch=st.booleans())
    def modify(self, trader: int, pick: int, tick: int, sz: int, always: bool, batch: bool) -> None:
        old = self.some_open(trader, pick)
        if old is None:
            return
        coin, instruments = old["coin"], self.traders[trader].instruments
        cloid = None if old["cloid"] is None else Cloid(old["cloid"])
        new = limit(old["side"], self.px(coin, tick), sz * LOT[coin], coin=coin, cloid=cloid)
        key = cloid if cloid is not None and pick % 2 else old["oid"]
        if batch:
            self.do(trader, action.batch_modify([(key, new), (old["oid"], new)], instruments, always_place=always))
        else:
            self.do(trader, action.modify(key, new, instruments, always_place=always))

    @rule(trader=who, pick=st.integers(0, 99), by_cloid=st.booleans())
    def cancel(self, trader: int, pick: int, by_cloid: bool) -> None:
        old = self.some_open(trader, pick)
        if old is None:
            return
        instruments = self.traders[trader].instruments
        if by_cloid and old["cloid"] is not None:
            answer = self.do(trader, action.cancel_by_cloid([(old["coin"], Cloid(old["cloid"]))], instruments))
        else:
            answer = self.do(trader, action.cancel([(old["coin"], old["oid"])], instruments))
        assert answer["response"]["data"]["statuses"] == ["success"]
        assert old["oid"] not in {order["oid"] for order in self.open_orders(self.addresses[trader])}

    @rule(trader=who, seconds=st.sampled_from((None, 5, 8)))
    def schedule_cancel(self, trader: int, seconds: int | None) -> None:
        time_ms = None if seconds is None else int(self.venue.now_ms()) + seconds * 1000 + 200
        self.do(trader, action.schedule_cancel(time_ms))

    # The outsider, the mark price and the clock.

    @rule(coin=coins, side=sides, tick=ticks, sz=lots)
    def outsider_rests(self, coin: str, side: Literal["B", "A"], tick: int, sz: int) -> None:
        best = self.venue.history.book(coin).top[side == "B"]
        units = int(self.px(coin, tick) * 10 ** self.venue.exchange.markets[coin].px_decimals)
        crosses = best is not None and (best.px <= units if side == "B" else best.px >= units)
        if not crosses and not self.venue.exchange.markets[coin].is_delisted:
            self.venue.rest(coin, side, str(self.px(coin, tick)), str(sz * LOT[coin]))

    @rule(coin=coins, side=sides, sz=lots)
    def outsider_takes(self, coin: str, side: Literal["B", "A"], sz: int) -> None:
        self.venue.cross(coin, side, str(sz * LOT[coin]))

    @rule(coin=perps, tick=st.integers(-8, 8))
    def mark(self, coin: str, tick: int) -> None:
        self.venue.set_mark(coin, str(self.px(coin, tick)))

    @rule(ms=st.sampled_from((100, 3_000, 9_000)))
    def time_passes(self, ms: int) -> None:
        self.venue.advance(ms)

    @precondition(lambda self: self.next_cloid > 25)
    @rule()
    def delist(self) -> None:
        self.venue.delist_coin("BTC")

    # Money.

    @rule(trader=who, coin=perps, leverage=st.integers(1, 20), is_cross=st.booleans())
    def leverage(self, trader: int, coin: str, leverage: int, is_cross: bool) -> None:
        act = action.update_leverage(coin, leverage, self.traders[trader].instruments, is_cross=is_cross)
        self.do(trader, act)

    @rule(trader=who, coin=perps, usd=st.integers(-50, 50).filter(bool))
    def isolated_margin(self, trader: int, coin: str, usd: int) -> None:
        self.do(trader, action.update_isolated_margin(coin, usd * 1_000_000, self.traders[trader].instruments))

    @rule(source=st.integers(0, 1), to=st.sampled_from((0, 1, 4)), usd=st.integers(1, 2_000))
    def send(self, source: int, to: int, usd: int) -> None:
        answer = user_signed(self.traders[source], account.usd_send, self.addresses[to], usd)
        if answer["status"] == "ok":
            self.perp[self.addresses[source]] -= usd
            self.perp[self.addresses[to]] += usd

    @rule(trader=st.integers(0, 1), usd=st.integers(1, 800), to_perp=st.booleans())
    def class_transfer(self, trader: int, usd: int, to_perp: bool) -> None:
        answer = user_signed(self.traders[trader], account.usd_class_transfer, usd, to_perp)
        if answer["status"] == "ok":
            self.perp[self.addresses[trader]] += usd if to_perp else -usd
            self.usdc[self.addresses[trader]] -= usd if to_perp else -usd

    @rule(master=st.integers(0, 1), usd=st.integers(1, 2_000), deposit=st.booleans())
    def move_to_owned(self, master: int, usd: int, deposit: bool) -> None:
        wire: JsonObject = {"isDeposit": deposit, "usd": usd * 1_000_000}
        if master == 0:
            wire = {"type": "vaultTransfer", "vaultAddress": self.owned[0], **wire}
        else:
            wire = {"type": "subAccountTransfer", "subAccountUser": self.owned[1], **wire}
        if self.do(master, action.raw(wire))["status"] == "ok":
            self.perp[self.addresses[master]] -= usd if deposit else -usd
            self.perp[self.owned[master]] += usd if deposit else -usd

    @rule()
    def new_agent(self) -> None:
        party: Party = self.venue.stranger()
        owner = Raw(self.venue, self.users[2])
        assert user_signed(owner, account.approve_agent, party.address, name="bot") == ALWAYS
        old, self.traders[4] = self.traders[4], Raw(self.venue, party)
        self.traders[4].instruments = old.instruments  # from before anything was delisted
        assert "does not exist" in refused(old.do(action.noop()))

    # What must always hold.

    def fills(self, address: str) -> list[JsonObject]:
        return self.venue.history.fills(address)

    @invariant()
    def every_trade_has_its_two_sides(self) -> None:
        told: defaultdict[int, list[tuple[str, JsonObject]]] = defaultdict(list)
        for address in self.addresses:
            for fill in self.fills(address):
                told[fill["tid"]].append((address, fill))
        trades = 0
        for block in self.venue.history.blocks():
            for coin, made in block.trades.items():
                market = self.venue.exchange.markets[coin]
                for trade in made:
                    trades += 1
                    parties = {trade.buyer: "B", trade.seller: "A"}
                    assert trade.buyer != trade.seller
                    seen = told.pop(trade.tid, [])
                    assert {address: fill["side"] for address, fill in seen} == {
                        address: side for address, side in parties.items() if address in self.addresses
                    }
                    assert len(seen) == len({address for address, _ in seen})
                    for _, fill in seen:
                        assert fill["coin"] == coin
                        assert (fill["px"], fill["sz"]) == (market.px_text(trade.px), market.sz_text(trade.sz))
                        assert (fill["time"], fill["hash"]) == (trade.time_ms, trade.hash)
                        assert fill["crossed"] == (fill["side"] == trade.side)
        assert not told, "a fill without a trade"

    @invariant()
    def no_book_is_crossed_and_every_open_order_is_on_it(self) -> None:
        for coin in COINS:
            bids, asks = self.venue.info(type="hiddenBook", coin=coin)["levels"]
            assert not bids or not asks or Decimal(bids[0]["px"]) < Decimal(asks[0]["px"])
            own: Counter[tuple[str, str]] = Counter()
            for address in self.addresses:
                for order in self.open_orders(address):
                    if order["coin"] == coin and (not order["isTrigger"] or order["triggerCondition"] == "Triggered"):
                        own[order["side"], order["limitPx"]] += Decimal(order["sz"])  # type: ignore[assignment]
            shown = {(side, x["px"]): Decimal(x["sz"]) for side, levels in (("B", bids), ("A", asks)) for x in levels}
            assert all(shown[key] >= sz > 0 for key, sz in own.items())

    @invariant()
    def positions_and_money_follow_from_the_fills(self) -> None:
        for address in self.addresses:
            size: Counter[str] = Counter()
            cash = {"": self.perp[address], "test": self.dex[address]}
            pnl = dict(cash)
            usdc, purr = self.usdc[address], self.purr[address]
            for fill in self.fills(address):
                coin, sign = fill["coin"], 1 if fill["side"] == "B" else -1
                px, sz, fee = Decimal(fill["px"]), Decimal(fill["sz"]), Decimal(fill["fee"])
                if coin == "PURR/USDC":
                    usdc -= sign * px * sz + (fee if fill["feeToken"] == "USDC" else 0)
                    purr += sign * sz - (fee if fill["feeToken"] == "PURR" else 0)
                    continue
                assert Decimal(fill["startPosition"]) == size[coin]
                size[coin] += sign * sz  # type: ignore[assignment]
                dex = "test" if coin == "test:GOLD" else ""
                cash[dex] -= sign * px * sz + fee
                pnl[dex] += Decimal(fill["closedPnl"]) - fee
            positions = {coin: Decimal(sz) for coin, sz in self.venue.history.positions(address).items()}
            assert positions == {coin: sz for coin, sz in size.items() if sz}
            for dex in ("", "test"):
                found = self.venue.info(type="clearinghouseState", user=address, dex=dex)
                worth = cash[dex]
                for coin, sz in positions.items():
                    if (coin == "test:GOLD") == (dex == "test"):
                        market = self.venue.exchange.markets[coin]
                        worth += sz * Decimal(market.px_text(self.venue.exchange.marks[coin]))
                assert Decimal(found["marginSummary"]["accountValue"]) == worth
                open_pnl = sum(Decimal(entry["position"]["unrealizedPnl"]) for entry in found["assetPositions"])
                assert pnl[dex] + open_pnl == worth
            balances = {
                balance["coin"]: balance
                for balance in self.venue.info(type="spotClearinghouseState", user=address)["balances"]
            }
            hold = {"USDC": Decimal(0), "PURR": Decimal(0)}
            for order in self.open_orders(address):
                if order["coin"] == "PURR/USDC":
                    px, sz = Decimal(order["limitPx"]), Decimal(order["sz"])
                    hold["USDC" if order["side"] == "B" else "PURR"] += px * sz if order["side"] == "B" else sz
            for coin, total in (("USDC", usdc), ("PURR", purr)):
                balance = balances.get(coin, {"total": 0, "hold": 0})
                assert (Decimal(balance["total"]), Decimal(balance["hold"])) == (total, hold[coin])
                assert total >= hold[coin]

    @invariant()
    def open_orders_are_those_with_the_status_open(self) -> None:
        for address in self.addresses:
            filled: Counter[int] = Counter()
            for fill in self.fills(address):
                filled[fill["oid"]] += Decimal(fill["sz"])  # type: ignore[assignment]
            expected = set()
            for known in self.venue.history.orders(address):
                order, status = known["order"], known["status"]
                left, size = Decimal(order["sz"]), Decimal(order["origSz"])
                if status in ("open", "triggered"):
                    expected.add(order["oid"])
                assert (status == "filled") <= (left == 0)
                assert filled[order["oid"]] <= size
                if not order["reduceOnly"]:
                    assert filled[order["oid"]] + left == size
                if status.endswith("Rejected"):
                    assert not filled[order["oid"]]
                elif status == "filled":
                    assert filled[order["oid"]]
            assert {order["oid"] for order in self.open_orders(address)} == expected


Everything.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestEverything = Everything.TestCase


def a_step(day: Everything, rng: random.Random) -> None:
    """One rule with arguments of its kind: hypothesis finds small failures, this keeps a venue busy."""
    trader, pick, tick, sz = rng.randrange(5), rng.randrange(100), rng.randint(-4, 4), rng.randint(1, 30)
    coin, perp = rng.choice(("SOL", "SOL", *COINS)), rng.choice(("SOL", "SOL", "BTC", "test:GOLD"))
    side, tif = rng.choice("BA"), rng.choice((Tif.GTC, Tif.GTC, Tif.ALO, Tif.IOC))
    yes, tpsl = rng.random() < 0.5, rng.choice((TP, SL))
    steps: list[tuple[int, Callable[[], object]]] = [
        (8, lambda: day.place(trader, coin, side, tick, sz, tif, rng.random() < 0.3)),
        (3, lambda: day.wait(trader, perp, side, tick, sz, tpsl, yes, rng.choice(("na", "position", "free")))),
        (2, lambda: day.place_group(trader, perp, side, tick, sz, rng.randint(1, 4))),
        (3, lambda: day.modify(trader, pick, tick, sz, yes, rng.random() < 0.5)),
        (2, lambda: day.cancel(trader, pick, yes)),
        (1, lambda: day.schedule_cancel(trader, rng.choice((None, 5, 8)))),
        (3, lambda: day.outsider_rests(coin, side, tick, sz)),
        (2, lambda: day.outsider_takes(coin, side, sz)),
        (3, lambda: day.mark(perp, rng.randint(-6, 6))),
        (1, lambda: day.time_passes(rng.choice((100, 3_000)))),
        (1, lambda: day.leverage(trader, perp, rng.randint(1, 20), yes)),
        (1, lambda: day.isolated_margin(trader, perp, rng.choice((-20, -1, 5, 30)))),
        (1, lambda: day.send(rng.randrange(2), rng.choice((0, 1, 4)), rng.randint(1, 400))),
        (1, lambda: day.class_transfer(rng.randrange(2), rng.randint(1, 400), yes)),
        (1, lambda: day.move_to_owned(rng.randrange(2), rng.randint(1, 400), yes)),
        (1, lambda: day.new_agent()),
    ]
    rng.choices([step for _, step in steps], [weight for weight, _ in steps])[0]()


def test_on_busy_days_everything_holds() -> None:
    happened: Counter[str] = Counter()
    for seed in range(6):
        rng, day = random.Random(f"day {seed}"), Everything()
        day.open()
        for number in range(800):
            if number == 750:
                day.delist()
            try:
                a_step(day, rng)
                if number % 10 == 0:
                    day.every_trade_has_its_two_sides()
                    day.no_book_is_crossed_and_every_open_order_is_on_it()
                    day.positions_and_money_follow_from_the_fills()
                    day.open_orders_are_those_with_the_status_open()
            except AssertionError as exc:
                raise AssertionError(f"seed {seed}, step {number}: {exc}") from exc
        for address in day.addresses:
            happened.update(known["status"] for known in day.venue.history.orders(address))
            happened["fills"] += len(day.fills(address))
            positions = day.venue.exchange.ledger.accounts[address].positions.values()
            happened["isolated"] += sum(not position.is_cross for position in positions)
    # That the days were busy: each end of an order came about.
    wanted = {
        "open", "triggered", "filled", "canceled", "selfTradeCanceled", "reduceOnlyCanceled", "siblingFilledCanceled",
        "scheduledCancel", "delistedCanceled", "perpMarginRejected", "reduceOnlyRejected", "badAloPxRejected",
        "badTriggerPxRejected", "iocCancelRejected", "insufficientSpotBalanceRejected", "isolated",
        "marketOrderNoLiquidityRejected",
    }  # fmt: skip
    assert {what for what in wanted if happened[what] < 3} == set()
    assert happened["fills"] > 500


def test_what_the_venue_cancels_by_itself_is_told_as_such() -> None:
    venue = quiet_venue()
    raw = Raw(venue, venue.account())
    raw.subscribe(type="userEvents", user=raw.party.address)
    resting = raw.order(limit("A", 107_000, "0.01"))[0]["resting"]["oid"]
    raw.order(limit("B", 107_000, "0.01", Tif.IOC))  # meets its own order, which goes
    assert raw.take("user") == [{"nonUserCancel": [{"coin": "BTC", "oid": resting}]}]
    mine = raw.order(limit("B", 100_000, "0.01"))[0]["resting"]["oid"]
    assert raw.cancel("BTC", mine) == "success"
    assert raw.take("user") == []
