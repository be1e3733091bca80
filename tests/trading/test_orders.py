"""The order table: what is proven, in whatever order it is heard."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from order_news import (
    CLOID,
    UNKNOWN_OID,
    Told,
    answer,
    canceling,
    fill,
    filled,
    modifying,
    order,
    placing,
    refused,
    resting,
    row,
    status,
    statuses,
    update,
)

from hlconn import Cloid, ErrorCode, LinkDown, OutcomeUnknown, Rejected, Side, Tif
from hlconn.trading.orders import (
    PROVES,
    Contradicted,
    Evidence,
    FillEvent,
    Flight,
    Item,
    Kind,
    OrderEvent,
    OrderState,
    OrderTable,
    OutcomeEvent,
    Question,
    TrackedOrder,
)
from hlconn.types import Ack, CancelResult, Done

S = OrderState
OTHER_CLOID = Cloid(0xD0E)


def facts(*values: Any) -> tuple[Any, ...]:
    """Decimals compared with ints, as a tuple."""
    return values


# --- the table itself ---


def test_the_table_says_of_every_kind_of_evidence_what_it_proves() -> None:
    assert set(PROVES) == set(Evidence)
    assert set(PROVES.values()) == set(OrderState) - {S.PENDING}, "nothing proves that nobody has seen it"


def test_only_the_states_in_which_an_order_can_trade_are_live() -> None:
    assert {state for state in S if state.live} == {S.PENDING, S.WAITING, S.OPEN}


STATUS_WORDS = {
    "open": S.OPEN,
    "triggered": S.OPEN,
    "accepted": S.OPEN,
    "a word of next year": S.OPEN,
    "filled": S.FILLED,
    "canceled": S.CANCELED,
    "scheduledCancel": S.CANCELED,
    "liquidatedCanceled": S.CANCELED,
    "siblingFilledCanceled": S.CANCELED,
    "somethingNewCanceled": S.CANCELED,
    "rejected": S.REJECTED,
    "badAloPxRejected": S.REJECTED,
    "somethingNewRejected": S.REJECTED,
    "hip3CrossMarginDisabled": S.REJECTED,
}


@pytest.mark.parametrize(("word", "state"), STATUS_WORDS.items())
def test_each_status_word_proves_what_it_says_and_an_unknown_word_ends_nothing(word: str, state: OrderState) -> None:
    told = Told()
    told.table.on_order_updates([update(11, order(), word, "10")])
    found = told.table.find(CLOID)
    assert found is not None
    assert found.state is state
    assert found.may_be_live is state.live
    assert (found in told.table.live) is state.live
    assert found.adopted


# --- placing ---


def test_an_order_is_pending_until_it_is_seen() -> None:
    told = Told()
    flight = told.send(placing(1, order()))
    found = told.table.find(CLOID)
    assert found is not None
    assert facts(found.state, found.oid, found.px, found.sz, found.remaining) == (S.PENDING, None, 100, 10, 10)
    assert told.table.live == (found,)
    assert told.table.take_events() == [], "who sends it knows"
    told.answer(flight, statuses(resting(11)))
    assert (found.state, found.oid) == (S.OPEN, 11)
    assert flight.items[0].outcome == Ack("BTC", CLOID, 11, resting=True)
    assert told.table.find(11) is found
    outcome, changed = told.table.take_events()
    assert isinstance(outcome, OutcomeEvent)
    assert (outcome.resolved, outcome.proof) == (True, "")
    assert changed == OrderEvent(found)


def test_an_answer_of_filled_tells_the_size_and_the_fills_are_counted_when_they_come() -> None:
    told = Told()
    flight = told.send(placing(1, order(tif=Tif.IOC)))
    told.answer(flight, statuses(filled(11, "10.0", "99.5")))
    found = told.table.find(CLOID)
    assert found is not None
    assert facts(found.state, found.filled, found.avg_px, found.remaining) == (S.FILLED, 10, Decimal("99.5"), 0)
    assert flight.items[0].outcome == Ack("BTC", CLOID, 11, filled_sz=Decimal(10), avg_px=Decimal("99.5"))
    told.table.on_fills([fill(11, "4.0", 1, px="99.0"), fill(11, "6.0", 2, px="100.0")])
    assert facts(found.filled, found.avg_px) == (10, Decimal("99.6"))
    assert [str(each.sz) for each in told.table.fills] == ["4.0", "6.0"]


def test_an_ioc_order_filled_in_part_is_over_and_another_one_is_looked_at() -> None:
    for tif, state, questions in ((Tif.IOC, S.CANCELED, []), (Tif.GTC, S.OPEN, [Question(11)])):
        told = Told()
        flight = told.send(placing(1, order(tif=tif)))
        told.answer(flight, statuses(filled(11, "4.0")))
        found = told.table.find(11)
        assert found is not None
        assert facts(found.state, found.filled) == (state, 4)
        assert told.table.questions() == questions


def test_a_refusal_keeps_the_venues_words_and_an_order_that_was_given_an_oid_is_the_same() -> None:
    told = Told()
    flight = told.send(placing(1, order(tif=Tif.ALO)))
    text = "Post only order would have immatched, bbo was 1@2. asset=0".replace("immatched", "immediately matched")
    told.table.on_order_updates([update(11, order(), "badAloPxRejected")])
    found = told.table.find(CLOID)
    assert found is not None
    assert found.state is S.PENDING, "the answer is still to come"
    told.answer(flight, statuses({"error": text}))
    assert (found.state, found.reason) == (S.REJECTED, ErrorCode.POST_ONLY_WOULD_MATCH)
    outcome = flight.items[0].outcome
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.message, outcome.cloid) == (ErrorCode.POST_ONLY_WOULD_MATCH, text, CLOID.hex)
    assert found in told.table.ended


def test_what_was_never_sent_is_dead_at_once() -> None:
    told = Told()
    flight = told.send(placing(1, order()))
    error = LinkDown("no route")
    told.table.not_sent(1, error)
    found = told.table.find(CLOID)
    assert found is not None
    assert (found.state, found.message) == (S.NEVER, "no route")
    assert flight.items[0].outcome is error


def test_children_wait_for_their_parent_and_go_with_it_once_the_venue_does_not_know_them() -> None:
    told = Told()
    parent, child = order(), order(cloid=OTHER_CLOID, side=Side.SELL, reduce_only=True)
    flight = told.send(placing(1, parent, child))
    assert flight.items[1].order is not None
    flight.items[1].order.parent = flight.items[0].order
    told.answer(flight, statuses(resting(11), "waitingForFill"))
    waits = told.table.find(OTHER_CLOID)
    assert waits is not None
    assert (waits.state, waits.oid) == (S.WAITING, None)
    assert flight.items[1].outcome == Ack("BTC", OTHER_CLOID, None, waiting="waitingForFill")
    told.table.on_open_orders(told.table.mark(), "", [row(11, parent)])
    assert told.table.questions() == [Question(OTHER_CLOID)]
    told.table.on_status(told.table.mark(), OTHER_CLOID, UNKNOWN_OID)
    assert waits.state is S.WAITING, "its parent still rests"
    told.table.on_order_updates([update(11, parent, "canceled")])
    told.table.on_open_orders(told.table.mark(), "", [])
    told.table.on_status(told.table.mark(), OTHER_CLOID, UNKNOWN_OID)
    assert (waits.state, waits.message) == (S.CANCELED, "went with its parent")


def test_children_are_found_inside_their_parents_row() -> None:
    told = Told()
    child = row(12, order("90", cloid=OTHER_CLOID, side=Side.SELL), isTrigger=True, triggerPx="90.5")
    told.table.on_open_orders(told.table.mark(), "", [row(11, order(), children=[child])])
    found = told.table.find(OTHER_CLOID)
    assert found is not None
    assert (found.state, found.oid, found.trigger_px) == (S.OPEN, 12, Decimal("90.5"))


def late_child(told: Told) -> tuple[TrackedOrder, TrackedOrder]:
    """A parent and its child, whose action comes late: a modify that places in any case has used the child's cloid."""
    parent = order()
    child = order("90", cloid=OTHER_CLOID, side=Side.SELL, reduce_only=True)
    flight = told.send(placing(1, parent, child))
    first, second = (item.order for item in flight.items)
    assert first is not None
    assert second is not None
    second.parent = first
    new = order("110", "7", OTHER_CLOID, Side.SELL)
    modify = told.send(modifying(told.table, 2, OTHER_CLOID, new, always_place=True))
    told.answer(modify, statuses(resting(12, OTHER_CLOID)))
    told.table.on_order_updates([update(12, new, "selfTradeCanceled")])
    assert second.state is S.PENDING, "its own action is still to come"
    told.answer(flight, statuses(resting(13), "waitingForFill"))
    return first, second


def test_a_child_that_waits_is_live_though_a_leg_that_a_modify_placed_before_has_ended() -> None:
    told = Told()
    _, waits = late_child(told)
    assert (waits.state, waits in told.table.live) == (S.WAITING, True)
    told.table.on_order_updates([update(14, order("90", cloid=OTHER_CLOID, side=Side.SELL), "open")])
    assert (waits.state, waits.oid, waits.oids) == (S.OPEN, 14, (12, 14))
    told.table.on_order_updates([update(14, order("90", cloid=OTHER_CLOID, side=Side.SELL), "canceled")])
    assert waits.state is S.CANCELED


def test_a_child_whose_leg_was_seen_before_a_late_answer_says_that_it_waits_does_not_wait() -> None:
    told = Told()
    flight = told.send(placing(1, order()))
    told.table.lost(1, 1.0)
    told.table.on_order_updates([update(11, order(), "canceled")])
    assert flight.items[0].outcome is not None
    other = told.send(placing(2, order(cloid=OTHER_CLOID), order("90", cloid=Cloid(0xABC))))
    told.table.lost(2, 1.0)
    told.table.on_order_updates([update(13, order("90", cloid=Cloid(0xABC)), "canceled")])
    told.answer(other, statuses(resting(12, OTHER_CLOID), "waitingForFill"))
    found = told.table.find(13)
    assert found is not None
    assert found.state is S.CANCELED


def test_a_child_that_waits_beside_another_leg_goes_with_its_parent_once_a_list_after_that_has_it_not() -> None:
    told = Told()
    _, waits = late_child(told)
    asked_before = told.table.mark()
    told.table.on_order_updates([update(13, order(), "canceled")])
    told.table.on_open_orders(asked_before, "", [])
    assert waits in told.table.live, "the list is older than the end of its parent"
    assert {Question(OTHER_CLOID), Question(None)} <= set(told.table.questions()), "the cloid finds one leg of it only"
    told.table.on_open_orders(told.table.mark(), "", [])
    assert waits.state is S.CANCELED
    assert told.table.questions() == []


def test_a_child_that_was_canceled_while_it_waited_beside_another_leg_is_found_in_the_history() -> None:
    told = Told()
    _, waits = late_child(told)
    cancel = told.send(canceling(told.table, 3, OTHER_CLOID))
    told.answer(cancel, statuses("success"))
    new = order("110", "7", OTHER_CLOID, Side.SELL)
    told.table.on_status(told.table.mark(), OTHER_CLOID, status(12, new, "selfTradeCanceled"))
    assert (waits.state, Question(None) in told.table.questions()) == (S.WAITING, True)
    child = order("90", cloid=OTHER_CLOID, side=Side.SELL)
    told.table.on_history(told.table.mark(), [update(14, child, "canceled"), update(12, new, "selfTradeCanceled")])
    assert (waits.state, waits.may_be_live) == (S.CANCELED, False)
    assert told.table.questions() == []


# --- fills ---


def test_a_fill_is_counted_once_by_coin_time_and_tid_however_often_it_comes() -> None:
    told = Told()
    found = told.rest()
    told.table.take_events()
    one = fill(11, "2.0", 5)
    for _ in range(3):
        told.table.on_fills([one, one])
    told.table.on_fills([fill(11, "2.0", 5, time=1001), fill(11, "2.0", 6)])
    assert facts(found.filled, found.remaining) == (6, 4)
    assert told.table.positions["BTC"].szi == 6
    assert len([event for event in told.table.take_events() if isinstance(event, FillEvent)]) == 3


def test_fills_before_anything_else_are_kept_for_their_order() -> None:
    told = Told()
    flight = told.send(placing(1, order(cloid=CLOID)))
    told.table.on_fills([fill(11, "4.0", 1), fill(11, "6.0", 2, cloid=CLOID.hex)])
    found = told.table.find(CLOID)
    assert found is not None
    assert facts(found.oid, found.filled) == (11, 10)
    told.answer(flight, statuses(filled(11, "10.0")))
    assert facts(found.state, found.filled) == (S.FILLED, 10)


def test_fills_of_all_the_size_fill_the_order_though_nothing_else_says_so() -> None:
    told = Told()
    found = told.rest()
    told.table.on_fills([fill(11, "10.0", 1)])
    assert found.state is S.FILLED


def test_fills_older_than_the_session_are_nobodys_news() -> None:
    table = OrderTable()
    table.on_fills([fill(11, "4.0", 1, time=500), fill(11, "1.0", 2, time=1500)])
    assert not table.fills
    table.begin(1000)
    table.on_fills([fill(11, "4.0", 3, time=1000), fill(12, "1.0", 4, time=1600)])
    assert [event.fill.tid for event in table.take_events() if isinstance(event, FillEvent)] == [2, 4]
    assert [each.tid for each in table.fills] == [2, 4]


# --- orders of others ---


def test_orders_placed_elsewhere_are_adopted_with_and_without_a_cloid() -> None:
    told = Told()
    told.table.on_open_orders(told.table.mark(), "", [row(11, order(cloid=None)), row(12, order())])
    told.table.on_order_updates([update(13, order(cloid=OTHER_CLOID), "open", "7.5")])
    assert [(one.oid, one.cloid, one.adopted, one.filled) for one in told.table.live] == [
        (11, None, True, 0),
        (12, CLOID, True, 0),
        (13, OTHER_CLOID, True, Decimal("2.5")),
    ]


def test_an_order_of_history_is_not_adopted_but_a_leg_of_ours_is() -> None:
    told = Told()
    found = told.rest()
    told.table.on_history(
        told.table.mark(), [update(5, order(cloid=OTHER_CLOID), "filled"), update(12, order("101"), "open")]
    )
    assert told.table.find(5) is None
    assert (found.oids, found.oid) == ((11, 12), 12)


def test_what_is_no_longer_listed_is_asked_for_and_not_declared_dead() -> None:
    told = Told()
    found = told.rest()
    told.table.on_open_orders(told.table.mark(), "", [])
    assert found.state is S.OPEN
    assert told.table.questions() == [Question(11)]
    told.table.on_status(told.table.mark(), 11, UNKNOWN_OID)
    assert found.state is S.OPEN, "it was seen: the venue contradicts itself, and may be behind"
    assert told.table.questions() == [Question(None), Question(11)]
    told.table.on_status(told.table.mark(), 11, status(11, order(), "filled", "0.0"))
    assert facts(found.state, found.filled, told.table.questions()) == (S.FILLED, 10, [])


def test_a_list_older_than_the_news_of_an_order_says_nothing_about_it() -> None:
    told = Told()
    mark = told.table.mark()
    told.rest()
    told.table.on_open_orders(mark, "", [])
    assert told.table.questions() == []
    told.table.on_open_orders(told.table.mark(), "xyz", [])
    assert told.table.questions() == [], "another dex's list"


def test_an_ended_order_that_two_lists_asked_for_after_its_end_have_as_open_is_told_of_once() -> None:
    told = Told()
    found = told.rest()
    asked_before = told.table.mark()
    told.table.on_order_updates([update(11, order(), "canceled")])
    told.table.take_events()

    def contradicted(mark: int, *rows: Any, dex: str = "") -> list[Contradicted]:
        told.table.on_open_orders(mark, dex, rows)
        return [event for event in told.table.take_events() if isinstance(event, Contradicted)]

    for _ in range(2):
        assert contradicted(asked_before, row(11, order())) == [], "it was open when that was asked"
    assert contradicted(told.table.mark(), row(11, order())) == [], "a server can lag"
    assert contradicted(told.table.mark()) == []
    assert contradicted(told.table.mark(), row(11, order())) == [], "not twice in a row"
    assert contradicted(told.table.mark(), dex="test") == []
    assert contradicted(told.table.mark(), row(11, order())) == [Contradicted(found, 11)]
    assert contradicted(told.table.mark(), row(11, order())) == [], "told once"
    assert (found.state, told.table.live) == (S.CANCELED, ())


def test_the_venues_own_cancel_is_told_and_its_reason_asked_for() -> None:
    told = Told()
    found = told.rest()
    told.table.on_non_user_cancels([{"coin": "BTC", "oid": 11}, {"coin": "BTC", "oid": 99}])
    assert (found.state, told.table.questions()) == (S.CANCELED, [Question(11)])
    told.table.on_status(told.table.mark(), 11, status(11, order(), "marginCanceled"))
    assert (found.reason, found.message) == (ErrorCode.INSUFFICIENT_MARGIN, "marginCanceled")


@pytest.mark.parametrize(
    "wrong",
    [
        {"order": {"oid": 11}, "status": "open"},
        {"order": row(11, order()) | {"sz": 10}, "status": "open"},
        {"order": row(11, order()) | {"side": "buy"}, "status": "open"},
        {"order": row(11, order()) | {"limitPx": "NaN"}, "status": "open"},
        {"order": row(11, order()) | {"oid": "11"}, "status": "open"},
        {"order": row(11, order()) | {"cloid": "0x1"}, "status": "open"},
        {"order": row(11, order()) | {"cloid": "0x" + "zz" * 16}, "status": "open"},
        7,
    ],
)
def test_a_message_that_cannot_be_read_changes_nothing(wrong: Any) -> None:
    told = Told()
    with pytest.raises((KeyError, TypeError, ValueError)):
        told.table.on_order_updates([update(12, order(), "open"), wrong])
    assert told.table.live == ()
    with pytest.raises((KeyError, TypeError, ValueError)):
        told.table.on_fills([fill(11, "1.0", 1), wrong])
    assert told.table.fills == ()


# --- canceling ---


@pytest.mark.parametrize("target", [11, CLOID])
def test_a_cancel_ends_the_order_and_a_finished_one_is_a_normal_result(target: int | Cloid) -> None:
    told = Told()
    found = told.rest()
    first, second = told.send(canceling(told.table, 2, target)), told.send(canceling(told.table, 3, target))
    told.answer(first, statuses("success"))
    assert found.state is S.CANCELED
    oid, cloid = (None, target) if isinstance(target, Cloid) else (target, None)
    assert first.items[0].outcome == CancelResult("BTC", oid, cloid, True)
    text = "Order was never placed, already canceled, or filled. asset=0"
    told.answer(second, statuses({"error": text}))
    assert second.items[0].outcome == CancelResult("BTC", oid, cloid, False, ErrorCode.ORDER_NOT_FOUND, text)
    assert told.table.questions() == []


def test_a_cancel_that_finds_nothing_makes_an_order_that_looks_open_be_asked_for() -> None:
    told = Told()
    found = told.rest()
    told.answer(told.send(canceling(told.table, 2, 11)), statuses({"error": "MissingOrder"}))
    assert (found.state, told.table.questions()) == (S.OPEN, [Question(11)])


def test_a_refused_cancel_is_no_result_but_a_refusal() -> None:
    told = Told()
    found = told.rest()
    flight = told.send(canceling(told.table, 2, 11))
    told.answer(flight, refused("Too many cumulative requests sent (10001 > 10000)"))
    assert isinstance(flight.items[0].outcome, Rejected)
    assert found.state is S.OPEN


@pytest.mark.parametrize("target", [77, Cloid(77)])
def test_an_order_that_only_its_number_is_known_of_is_found_out_about(target: int | Cloid) -> None:
    told = Told()
    flight = told.send(canceling(told.table, 2, target))
    found = told.table.find(target)
    assert found is not None
    assert found.state is S.PENDING, "it may be live"
    told.answer(flight, statuses({"error": "MissingOrder"}))
    assert told.table.questions() == [Question(target)]
    early = told.table.mark()
    told.table.on_status(told.table.mark(), target, UNKNOWN_OID)
    if isinstance(target, Cloid):
        assert found.may_be_live, "an earlier process may have sent it a moment ago"
        assert told.table.questions() == [Question(target)]
        assert not told.table.awaits_time(2 + 15_000)
        assert told.table.awaits_time(2 + 15_001)
        told.table.venue_time(2 + 17_000, margin_ms=2000)
        told.table.on_status(told.table.mark(), target, UNKNOWN_OID)
        assert found.may_be_live, "its expiry is not past by more than the margin"
        told.table.venue_time(2 + 17_001, margin_ms=2000)
        told.table.on_status(early, target, UNKNOWN_OID)
        assert found.may_be_live, "asked before that"
        told.table.on_status(told.table.mark(), target, UNKNOWN_OID)
    assert (found.state, told.table.questions()) == (S.NEVER, [])


def test_a_cancel_by_cloid_that_works_before_the_order_was_ever_seen_has_it_looked_up() -> None:
    told = Told()
    told.send(placing(1, order()))
    told.answer(told.send(canceling(told.table, 2, CLOID)), statuses("success"))
    assert told.table.questions() == [Question(CLOID)]
    told.table.on_status(told.table.mark(), CLOID, status(11, order(), "canceled"))
    found = told.table.find(CLOID)
    assert found is not None
    assert (found.oid, found.state, told.table.questions()) == (11, S.PENDING, [])


# --- modifying: each message in every order ---

NEW = order("101", "8")
News = Callable[[Told, Flight], None]


def news_of_a_modify(target: int | Cloid, partial: bool) -> dict[str, News]:
    """What the venue says when 11 becomes 12: the old leg filled 2 before, the new one 3 after."""
    news: dict[str, News] = {
        "answer": lambda told, flight: told.answer(flight, statuses(resting(12))),
        "old canceled": lambda told, _: told.table.on_order_updates([update(11, order(), "canceled")]),
        "new open": lambda told, _: told.table.on_order_updates([update(12, NEW, "open")]),
    }
    if partial:
        news |= {
            "old fill": lambda told, _: told.table.on_fills([fill(11, "2.0", 1)]),
            "new fill": lambda told, _: told.table.on_fills([fill(12, "3.0", 2)]),
        }
    return news


@pytest.mark.parametrize("partial", [False, True], ids=["no fills", "partial fills in between"])
@pytest.mark.parametrize("target", [11, CLOID], ids=["by oid", "by cloid"])
def test_modify_in_all_message_orders(target: int | Cloid, partial: bool) -> None:
    for sequence in itertools.permutations(news_of_a_modify(target, partial).items()):
        told = Told()
        found = told.rest()
        flight = told.send(modifying(told.table, 2, target, NEW))
        told.table.take_events()
        for _, say in sequence:
            say(told, flight)
            assert found.may_be_live, "the old leg's cancel is not the order's"
        assert list(told.table.live) == [found], "no phantom"
        assert facts(found.state, found.oid, found.oids, found.px, found.sz) == (S.OPEN, 12, (11, 12), 101, 8)
        assert facts(found.filled, found.remaining) == ((5, 5) if partial else (0, 8))
        ack = flight.items[0].outcome
        assert isinstance(ack, Ack)
        assert ack.oid == 12
        states = [event.order.state for event in told.table.take_events() if isinstance(event, OrderEvent)]
        assert S.CANCELED not in states
        assert told.table.questions() == []


@pytest.mark.parametrize("target", [11, CLOID], ids=["by oid", "by cloid"])
def test_modify_whose_answer_is_lost_in_all_message_orders(target: int | Cloid) -> None:
    """The new oid comes by the cloid, before or after the loss of the answer is known."""
    news = news_of_a_modify(target, partial=True)
    news["answer"] = lambda told, flight: told.table.lost(flight.nonce, 1.0, "link down")
    for sequence in itertools.permutations(news.items()):
        told = Told()
        found = told.rest()
        flight = told.send(modifying(told.table, 2, target, NEW))
        for name, say in sequence:
            say(told, flight)
            assert found.may_be_live, name
        assert facts(found.state, found.oid, found.filled, found.in_doubt) == (S.OPEN, 12, 5, False), sequence
        outcome = flight.items[0].outcome
        assert isinstance(outcome, Ack)
        assert outcome.oid == 12
        assert flight.resolved


@pytest.mark.parametrize("how", ["filled", "canceled"])
@pytest.mark.parametrize("target", [11, CLOID], ids=["by oid", "by cloid"])
def test_modify_when_the_old_order_is_already_gone(target: int | Cloid, how: str) -> None:
    def ended(told: Told, _: Flight) -> None:
        told.table.on_order_updates([update(11, order(), how, "0.0" if how == "filled" else "10")])

    def answered(told: Told, flight: Flight) -> None:
        told.answer(flight, statuses({"error": "Cannot modify canceled or filled order"}))

    for sequence in itertools.permutations([ended, answered]):
        told = Told()
        found = told.rest()
        flight = told.send(modifying(told.table, 2, target, NEW))
        for say in sequence:
            assert found.may_be_live
            say(told, flight)
        assert (found.state, found.oid) == (S.FILLED if how == "filled" else S.CANCELED, 11)
        outcome = flight.items[0].outcome
        assert isinstance(outcome, Rejected)
        assert outcome.code is ErrorCode.CANNOT_MODIFY


@pytest.mark.parametrize("target", [11, CLOID], ids=["by oid", "by cloid"])
def test_modify_when_the_replacement_is_refused_and_the_old_order_is_gone(target: int | Cloid) -> None:
    told = Told()
    found = told.rest()
    flight = told.send(modifying(told.table, 2, target, NEW))
    told.answer(flight, refused("Error placing new order during modify: Order must have minimum value of $10."))
    assert (found.state, found.reason) == (S.CANCELED, ErrorCode.MODIFY_OLD_ORDER_GONE)
    assert told.table.questions() == []


@pytest.mark.parametrize("survives", [True, False])
def test_modify_when_the_replacement_is_refused_and_nobody_says_what_became_of_the_old_order(survives: bool) -> None:
    told = Told()
    found = told.rest()
    flight = told.send(modifying(told.table, 2, 11, NEW))
    told.answer(flight, statuses({"error": "Post only order would have immediately matched, bbo was 1@2."}))
    assert (found.state, told.table.questions()) == (S.OPEN, [Question(11)])
    told.table.on_status(told.table.mark(), 11, status(11, order(), "open" if survives else "canceled"))
    assert (found.state, found.oid) == (S.OPEN if survives else S.CANCELED, 11)
    assert told.table.questions() == []


def test_modify_whose_replacement_is_refused_with_an_oid_and_whose_answer_is_lost() -> None:
    told = Told()
    found = told.rest()
    flight = told.send(modifying(told.table, 2, 11, NEW))
    told.table.lost(2, 1.0)
    told.table.on_order_updates([update(11, order(), "canceled"), update(12, NEW, "badAloPxRejected")])
    assert found.state is S.CANCELED
    outcome = flight.items[0].outcome
    assert isinstance(outcome, Rejected)
    assert outcome.code is ErrorCode.POST_ONLY_WOULD_MATCH


def test_modify_that_places_in_any_case_does_not_prove_that_the_old_leg_ended() -> None:
    told = Told()
    found = told.rest()
    flight = told.send(modifying(told.table, 2, 11, NEW, always_place=True))
    told.answer(flight, statuses(resting(12)))
    assert (found.oid, told.table.questions()) == (12, [Question(11)])
    told.table.on_status(told.table.mark(), 11, status(11, order(), "filled", "0.0"))
    assert facts(found.state, found.filled) == (S.OPEN, 10)


def test_an_adopted_order_without_a_cloid_gets_one_by_its_first_modify() -> None:
    told = Told()
    told.table.on_open_orders(told.table.mark(), "", [row(11, order(cloid=None))])
    found = told.table.find(11)
    flight = told.send(modifying(told.table, 2, 11, NEW))
    told.table.on_order_updates([update(12, NEW, "open")])
    assert told.table.find(CLOID) is found is told.table.find(12)
    told.answer(flight, statuses(resting(12)))
    assert found is not None
    assert (found.oid, found.state) == (12, S.OPEN)


def modified(told: Told, first: int, last: int, *, always_place: bool = False) -> None:
    """The order of `rest`, modified by cloid again and again: the nonce is the new oid, and each leg fills a bit."""
    for oid in range(first, last):
        new = order(str(oid % 7 + 100))
        flight = told.send(modifying(told.table, oid, CLOID, new, always_place=always_place))
        told.table.on_order_updates([update(oid - 1, order(), "canceled", "9"), update(oid, new, "open", "10")])
        told.answer(flight, statuses(resting(oid)))
        told.table.on_fills([fill(oid, "1.0", oid, px=str(oid % 3 + 100))])
        told.table.take_events()


def calls_of(work: Callable[[], object]) -> int:
    """How many functions, and steps of generators, it takes."""
    count = 0

    def on_event(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("always_place", [False, True])
def test_the_two_thousandth_modify_of_an_order_is_no_more_work_than_the_fortieth(always_place: bool) -> None:
    told = Told()
    found = told.rest()
    modified(told, 12, 52, always_place=always_place)
    early = calls_of(lambda: modified(told, 52, 54, always_place=always_place))
    modified(told, 54, 2012, always_place=always_place)
    late = calls_of(lambda: modified(told, 2012, 2014, always_place=always_place))
    assert late < 2 * early
    assert len(found.recent) <= 16
    assert len(found.placers) <= 64 + 1
    assert facts(found.oid, found.filled, len(found.oids)) == (2013, 2002, 2003)
    assert found.avg_px == sum(Decimal(oid % 3 + 100) for oid in range(12, 2014)) / 2002


def test_news_of_a_leg_from_long_ago_count_and_do_not_make_the_order_live() -> None:
    told = Told()
    found = told.rest()
    modified(told, 12, 200)
    told.answer(told.send(canceling(told.table, 200, CLOID)), statuses("success"))
    assert facts(found.state, found.filled) == (S.CANCELED, 188)
    assert 20 not in found.recent
    news: list[Callable[[], object]] = [
        lambda: told.table.on_fills([fill(20, "2.0", 5000, cloid=CLOID.hex), fill(21, "2.0", 5001)]),
        lambda: told.table.on_order_updates([update(22, order(), "open", "10")]),
        lambda: told.table.on_order_updates([update(23, order(), "open", "7")]),
        lambda: told.table.on_non_user_cancels([{"oid": 24}]),
        lambda: told.table.on_history(told.table.mark(), [update(25, order(), "canceled", "6")]),
    ]
    for late in news:
        late()
        assert not found.may_be_live
    assert found.filled == 188 + 2 + 2 + 2
    told.table.on_history(told.table.mark(), [update(24, order(), "canceled")])
    told.table.on_fills([fill(11, "10.0", 5002)])
    assert facts(found.filled, found.legs[11].state) == (204, S.FILLED)
    assert len(found.recent) <= 16


def test_a_leg_that_a_lost_action_may_have_placed_is_not_settled_before_that_is_proven() -> None:
    told = Told()
    found = told.rest()
    lost = told.send(modifying(told.table, 5000, 11, order("105")))
    told.table.lost(5000, 1.0)
    modified(told, 13, 60)
    told.table.on_order_updates([update(12, order("105", "4"), "canceled")])
    modified(told, 60, 100)
    assert 12 in found.recent
    assert 19 not in found.recent
    told.table.on_order_updates([update(19, order("105"), "canceled", "9")])
    assert lost.items[0].outcome is None, "that leg is another one's"
    told.table.on_history(told.table.mark(), [update(12, order("105"), "canceled")])
    assert isinstance(lost.items[0].outcome, Ack)
    assert lost.items[0].outcome.oid == 12
    modified(told, 100, 110)
    assert 12 not in found.recent


def test_the_leg_that_a_lost_cancel_by_cloid_ended_is_not_settled_before_that_is_proven(monkeypatch: Any) -> None:
    monkeypatch.setattr("hlconn.trading.legs._RECENT_LEGS", 1)
    told = Told()
    found = told.rest()
    told.answer(told.send(modifying(told.table, 2, 11, order("101"), always_place=True)), statuses(resting(12)))
    cancel = told.send(canceling(told.table, 3, CLOID, expires_after=1000))
    told.answer(told.send(modifying(told.table, 4, CLOID, order("102"), always_place=True)), statuses(resting(13)))
    told.table.lost(3, 1.0)
    told.table.on_status(told.table.mark(), 11, status(11, order(), "canceled"))
    told.table.on_status(told.table.mark(), 12, status(12, order("101"), "filled"))
    told.table.venue_time(2000, 100)
    told.table.on_status(told.table.mark(), CLOID, status(13, order("102"), "open"))
    assert isinstance(cancel.items[0].outcome, CancelResult), "one of the two that ended, whichever it was"
    told.table.on_order_updates([update(13, order("102"), "open")])
    assert list(found.recent) == [13]


def test_two_modifies_on_their_way_are_told_apart_by_what_they_asked_for() -> None:
    third = order("102", "7")
    for lost in itertools.permutations([2, 3]):
        told = Told()
        found = told.rest()
        first, second = (told.send(modifying(told.table, n, CLOID, to)) for n, to in ((2, NEW), (3, third)))
        for nonce in lost:
            told.table.lost(nonce, 1.0)
        told.table.on_order_updates([update(13, third, "open"), update(12, NEW, "canceled")])
        assert [item.outcome.oid for f in (first, second) for item in f.items if isinstance(item.outcome, Ack)] == [
            12,
            13,
        ]
        assert (found.oid, found.state) == (13, S.OPEN)


def test_two_lost_modifies_that_look_alike_wait_until_neither_can_come() -> None:
    told = Told()
    found = told.rest()
    first, second = (told.send(modifying(told.table, n, CLOID, NEW, expires_after=10_000)) for n in (2, 3))
    for nonce in (2, 3):
        told.table.lost(nonce, 1.0)
    told.table.on_order_updates([update(12, NEW, "open")])
    assert not first.resolved
    assert not second.resolved
    assert (found.oid, found.in_doubt) == (12, True)
    told.table.venue_time(20_000, 0)
    told.table.on_history(told.table.mark(), [update(12, NEW, "open")])
    assert sorted(type(flight.items[0].outcome).__name__ for flight in (first, second)) == ["Ack", "Rejected"]
    assert not found.in_doubt


def test_a_lost_order_whose_leg_was_replaced_unheard_is_found_in_the_history() -> None:
    told = Told()
    placed = told.send(placing(1, order()))
    modified = told.send(modifying(told.table, 2, CLOID, NEW))
    told.table.lost(1, 1.0)
    told.answer(modified, statuses(resting(12)))
    found = told.table.find(CLOID)
    assert found is not None
    assert (found.state, found.in_doubt, placed.resolved) == (S.OPEN, True, False)
    assert told.table.questions() == [Question(CLOID), Question(None)]
    told.table.on_history(told.table.mark(), [update(12, NEW, "open"), update(11, order(), "canceled")])
    outcome = placed.items[0].outcome
    assert isinstance(outcome, Ack)
    assert (outcome.oid, found.oids, found.in_doubt) == (11, (11, 12), False)


def test_a_leg_refused_with_an_oid_is_not_taken_for_the_one_that_was_lost() -> None:
    told = Told()
    placed = told.send(placing(1, order()))
    modified = told.send(modifying(told.table, 2, CLOID, NEW))
    told.table.lost(1, 1.0)
    told.answer(modified, statuses({"error": "Post only order would have immediately matched, bbo was 1@2."}))
    told.table.on_order_updates([update(12, NEW, "badAloPxRejected")])
    assert not placed.resolved
    told.table.on_order_updates([update(11, order(), "open")])
    outcome = placed.items[0].outcome
    assert isinstance(outcome, Ack)
    assert outcome.oid == 11


def test_a_leg_shown_with_another_size_is_the_only_ones_that_placed_here() -> None:
    told = Told()
    placed = told.send(placing(1, order(reduce_only=True)))
    told.table.lost(1, 1.0)
    told.table.on_order_updates([update(11, order(sz="4"), "open")])
    outcome = placed.items[0].outcome
    assert isinstance(outcome, Ack)
    assert outcome.oid == 11


# --- proof of outcome ---


@pytest.mark.parametrize("late", ["update", "history"])
def test_a_leg_that_an_earlier_process_placed_is_not_taken_for_what_a_lost_modify_did(late: str) -> None:
    told = Told()
    told.table.on_open_orders(told.table.mark(), "", [row(11, order())])
    lost = told.send(modifying(told.table, 5, 11, order("105", "3"), expires_after=1000))
    told.table.lost(5, 1.0)
    told.table.venue_time(2000, 100)
    theirs = [update(12, order("99", "4"), "canceled"), update(11, order(), "canceled")]
    if late == "update":
        told.table.on_order_updates(theirs)
        assert lost.items[0].outcome is None
    told.table.on_history(told.table.mark(), theirs)
    assert isinstance(lost.items[0].outcome, Rejected)
    found = told.table.find(CLOID)
    assert found is not None
    assert facts(found.state, found.oids) == (S.CANCELED, (11, 12))


def test_an_order_the_venue_does_not_know_is_not_dead_while_its_action_may_still_come() -> None:
    told = Told()
    flight = told.send(placing(1, order(), expires_after=10_000))
    told.table.lost(1, 1.0, "link down")
    found = told.table.find(CLOID)
    assert found is not None
    assert found.in_doubt
    for _ in range(3):
        told.table.on_status(told.table.mark(), CLOID, UNKNOWN_OID)
        told.table.on_open_orders(told.table.mark(), "", [])
        assert (found.state, found.may_be_live, flight.resolved) == (S.PENDING, True, False)
    assert told.table.questions() == [Question(CLOID)]


def test_expired_and_not_known_by_a_query_made_after_that_is_proof() -> None:
    told = Told()
    flight = told.send(placing(1, order(), expires_after=10_000))
    told.table.lost(1, 1.0)
    early = told.table.mark()
    told.table.venue_time(12_000, 2_000)
    told.table.on_status(told.table.mark(), CLOID, UNKNOWN_OID)
    assert not flight.resolved, "expiry and margin are not over yet"
    told.table.venue_time(12_001, 2_000)
    told.table.on_status(early, CLOID, UNKNOWN_OID)
    assert not flight.resolved, "that query was made before"
    told.table.on_status(told.table.mark(), CLOID, UNKNOWN_OID)
    outcome = flight.items[0].outcome
    assert isinstance(outcome, Rejected)
    assert outcome.code is ErrorCode.EXPIRED
    assert "proven" in outcome.message
    found = told.table.find(CLOID)
    assert found is not None
    assert found.state is S.NEVER
    assert told.table.flights == ()


def test_without_an_expiry_time_alone_proves_nothing() -> None:
    told = Told()
    flight = told.send(placing(1, order()))
    told.table.lost(1, 1.0)
    told.table.venue_time(10**15, 0)
    told.table.on_status(told.table.mark(), CLOID, UNKNOWN_OID)
    assert not flight.resolved


def test_an_accepted_noop_is_proof_at_once_even_before_the_answer_is_lost() -> None:
    for lost in (False, True):
        told = Told()
        flight = told.send(placing(1, order()))
        if lost:
            told.table.lost(1, 1.0)
        told.table.burned(1)
        found = told.table.find(CLOID)
        assert found is not None
        assert (found.state, flight.resolved) == (S.NEVER, True)
        told.answer(flight, refused("Invalid nonce: duplicate nonce 1"))
        assert found.state is S.NEVER


def test_a_noop_refused_as_duplicate_makes_the_next_query_decide() -> None:
    for known in (False, True):
        told = Told()
        flight = told.send(placing(1, order()))
        told.table.lost(1, 1.0)
        told.table.on_status(told.table.mark(), CLOID, UNKNOWN_OID)
        told.table.spent(1)
        assert not flight.resolved
        told.table.on_status(told.table.mark(), CLOID, status(11, order(), "open") if known else UNKNOWN_OID)
        found = told.table.find(CLOID)
        assert found is not None
        assert flight.resolved
        assert found.state is (S.OPEN if known else S.NEVER)


def test_an_answer_of_duplicate_nonce_is_no_refusal_but_says_that_the_nonce_is_spent() -> None:
    told = Told()
    flight = told.send(placing(1, order()))
    told.answer(flight, refused("Invalid nonce: duplicate nonce 1"))
    found = told.table.find(CLOID)
    assert found is not None
    assert (found.may_be_live, flight.resolved) == (True, False)
    told.table.on_status(told.table.mark(), CLOID, UNKNOWN_OID)
    assert (found.may_be_live, flight.resolved) == (False, True)


def test_one_order_seen_proves_that_its_action_was_executed_and_queries_after_that_decide_the_others() -> None:
    told = Told()
    flight = told.send(placing(1, order(), order("99", cloid=OTHER_CLOID)))
    told.table.lost(1, 1.0)
    told.table.on_order_updates([update(11, order(), "open")])
    assert not flight.resolved
    assert told.table.questions() == [Question(OTHER_CLOID)]
    told.table.on_status(told.table.mark(), OTHER_CLOID, UNKNOWN_OID)
    assert flight.resolved
    other = told.table.find(OTHER_CLOID)
    assert other is not None
    assert other.state is S.NEVER


@pytest.mark.parametrize("how", ["answer", "update", "fill", "open orders", "status"])
def test_being_seen_is_proof(how: str) -> None:
    told = Told()
    flight = told.send(placing(1, order()))
    told.table.lost(1, 1.0)
    if how == "answer":
        told.answer(flight, statuses(resting(11)))
    elif how == "update":
        told.table.on_order_updates([update(11, order(), "open")])
    elif how == "fill":
        told.table.on_fills([fill(11, "4.0", 1, cloid=CLOID.hex)])
    elif how == "open orders":
        told.table.on_open_orders(told.table.mark(), "", [row(11, order())])
    else:
        told.table.on_status(told.table.mark(), CLOID, status(11, order(), "open"))
    outcome = flight.items[0].outcome
    assert isinstance(outcome, Ack)
    assert outcome.oid == 11
    events = [event for event in told.table.take_events() if isinstance(event, OutcomeEvent)]
    assert [event.resolved for event in events] == [False, True]
    assert events[1].proof


def test_a_lost_cancel_is_over_when_the_order_is_or_when_it_is_proven_not_to_come() -> None:
    for ends in (True, False):
        told = Told()
        found = told.rest()
        flight = told.send(canceling(told.table, 2, 11, expires_after=10_000))
        told.table.lost(2, 1.0)
        assert found.in_doubt
        assert told.table.questions() == [Question(11)]
        told.table.on_status(told.table.mark(), 11, status(11, order(), "open"))
        assert not flight.resolved
        if ends:
            told.table.on_order_updates([update(11, order(), "canceled")])
            assert flight.items[0].outcome == CancelResult("BTC", 11, None, True, ErrorCode.NONE, "canceled")
        else:
            told.table.venue_time(20_000, 0)
            told.table.on_status(told.table.mark(), 11, status(11, order(), "open"))
            assert isinstance(flight.items[0].outcome, Rejected)
            assert found.state is S.OPEN


def test_a_lost_cancel_that_met_a_filled_order_canceled_nothing() -> None:
    told = Told()
    told.rest()
    flight = told.send(canceling(told.table, 2, CLOID))
    told.table.lost(2, 1.0)
    told.table.on_fills([fill(11, "10.0", 1)])
    outcome = flight.items[0].outcome
    assert isinstance(outcome, CancelResult)
    assert (outcome.canceled, outcome.reason) == (False, ErrorCode.ORDER_NOT_FOUND)


@pytest.mark.parametrize("target", [11, CLOID], ids=["by oid", "by cloid"])
@pytest.mark.parametrize("old", ["open", "canceled"])
def test_a_lost_modify_that_never_comes_is_proven_by_the_old_leg_or_by_the_history(
    old: str, target: int | Cloid
) -> None:
    told = Told()
    found = told.rest()
    flight = told.send(modifying(told.table, 2, target, NEW, expires_after=10_000))
    told.table.lost(2, 1.0)
    assert told.table.questions() == [Question(CLOID)]
    told.table.on_status(told.table.mark(), CLOID, status(11, order(), old))
    assert not flight.resolved
    assert found.may_be_live
    told.table.venue_time(20_000, 0)
    assert told.table.questions() == [Question(CLOID), Question(None)]
    told.table.on_status(told.table.mark(), CLOID, status(11, order(), old))
    if old == "canceled":
        assert not flight.resolved, "the query by cloid may have answered for the old leg"
        told.table.on_history(told.table.mark(), [update(11, order(), old)])
    assert isinstance(flight.items[0].outcome, Rejected)
    assert found.state is (S.OPEN if old == "open" else S.CANCELED)


def test_a_lost_modify_is_found_in_the_history_though_the_query_by_cloid_tells_of_the_old_leg() -> None:
    told = Told()
    found = told.rest()
    flight = told.send(modifying(told.table, 2, 11, NEW, expires_after=10_000))
    told.table.lost(2, 1.0)
    told.table.venue_time(20_000, 0)
    told.table.on_status(told.table.mark(), CLOID, status(11, order(), "canceled"))
    told.table.on_history(told.table.mark(), [update(12, NEW, "open"), update(11, order(), "canceled")])
    outcome = flight.items[0].outcome
    assert isinstance(outcome, Ack)
    assert (outcome.oid, found.oid, found.state) == (12, 12, S.OPEN)


def test_an_action_that_leaves_no_trace_ends_as_never_executed_or_as_not_to_be_told() -> None:
    for burned in (True, False):
        told = Told()
        flight = Flight("updateLeverage", 1, (Item(Kind.OTHER),), 10_000, 0)
        told.send(flight)
        told.table.lost(1, 1.0)
        assert told.table.questions() == []
        if burned:
            told.table.burned(1)
            assert isinstance(flight.items[0].outcome, Rejected)
        else:
            told.table.venue_time(20_000, 0)
            outcome = flight.items[0].outcome
            assert isinstance(outcome, OutcomeUnknown)
            assert "will not happen any more" in outcome.reason
        assert flight.resolved


def test_another_action_is_done_with_its_value() -> None:
    told = Told()
    flight = told.send(Flight("updateLeverage", 1, (Item(Kind.OTHER),), None, 0))
    told.answer(flight, {"type": "action", "payload": {"status": "ok", "response": {"type": "default"}}})
    assert flight.items[0].outcome == Done("updateLeverage")


def test_an_answer_to_what_is_over_changes_nothing() -> None:
    told = Told()
    found = told.rest()
    flight = told.send(canceling(told.table, 2, 11))
    told.answer(flight, statuses("success"))
    told.table.take_events()
    told.answer(flight, statuses({"error": "MissingOrder"}))
    told.table.lost(2, 1.0)
    told.table.spent(2)
    told.table.burned(2)
    told.table.not_sent(2, LinkDown("late"))
    assert (found.state, told.table.take_events()) == (S.CANCELED, [])


# --- any order, late or twice ---


@given(st.data())
def test_news_of_a_whole_life_come_to_the_same_in_any_order_late_and_twice(data: st.DataObject) -> None:
    """Placed, filled in part, modified twice, filled in part, canceled or filled: 11 -> 12 -> 13."""
    third = order("102", "7")
    end_by_fill = data.draw(st.booleans(), "ends by a fill")
    lost = data.draw(st.sets(st.sampled_from([1, 2, 3])), "answers lost")
    told = Told()
    flights = {1: told.send(placing(1, order()))}
    flights[2] = told.send(modifying(told.table, 2, CLOID, NEW))
    flights[3] = told.send(modifying(told.table, 3, CLOID, third))
    answers = {1: resting(11), 2: resting(12), 3: resting(13)}
    news: list[Callable[[], None]] = []
    for nonce, flight in flights.items():
        if nonce in lost:
            news.append(lambda nonce=nonce: told.table.lost(nonce, 1.0))  # type: ignore[misc]
        else:
            said = answer(flight, statuses(answers[nonce]))
            news.append(lambda nonce=nonce, said=said: told.table.answered(nonce, said))  # type: ignore[misc]
    last = update(13, third, "filled", "0.0") if end_by_fill else update(13, third, "canceled", "6")
    rows = [
        update(11, order(), "open"),
        update(11, order(), "canceled", "8"),
        update(12, NEW, "open"),
        update(12, NEW, "canceled", "5"),
        update(13, third, "open"),
        last,
    ]
    fills = [fill(11, "2.0", 1), fill(12, "3.0", 2), fill(13, "7.0" if end_by_fill else "1.0", 3)]
    news += [lambda each=each: told.table.on_order_updates([each]) for each in rows]  # type: ignore[misc]
    news += [lambda each=each: told.table.on_fills([each]) for each in fills]  # type: ignore[misc]
    news.append(lambda: told.table.on_fills(fills))
    news += [data.draw(st.sampled_from(news)) for _ in range(data.draw(st.integers(0, 6), "twice"))]
    for say in data.draw(st.permutations(news)):
        say()
    found = told.table.find(CLOID)
    assert found is not None
    total = 12 if end_by_fill else 6
    assert (found.state, found.oid, found.oids) == (S.FILLED if end_by_fill else S.CANCELED, 13, (11, 12, 13))
    assert facts(found.filled, found.remaining, found.in_doubt) == (total, 0, False)
    assert told.table.live == ()
    assert told.table.ended == (found,)
    assert [f.items[0].outcome.oid for f in flights.values() if isinstance(f.items[0].outcome, Ack)] == [11, 12, 13]
    assert told.table.positions["BTC"].szi == total
    assert len(told.table.fills) == 3


@given(st.permutations(["answer", "open", "fill 1", "fill 2", "filled"]), st.lists(st.integers(0, 4), max_size=4))
def test_a_state_never_falls_back(sequence: list[str], again: list[int]) -> None:
    told = Told()
    flight = told.send(placing(1, order()))
    said = answer(flight, statuses(resting(11)))
    say: dict[str, Callable[[], None]] = {
        "answer": lambda: told.table.answered(1, said),
        "open": lambda: told.table.on_order_updates([update(11, order(), "open", "8")]),
        "fill 1": lambda: told.table.on_fills([fill(11, "2.0", 1)]),
        "fill 2": lambda: told.table.on_fills([fill(11, "8.0", 2)]),
        "filled": lambda: told.table.on_order_updates([update(11, order(), "filled", "0.0")]),
    }
    found = told.table.find(CLOID)
    assert found is not None
    highest = S.PENDING
    filled_before = Decimal(0)
    for name in [*sequence, *(sequence[at] for at in again)]:
        say[name]()
        leg = found.legs.get(11)
        if leg is not None:
            assert leg.state >= highest
            highest = leg.state
        assert found.filled >= filled_before
        filled_before = found.filled
    assert facts(found.state, found.filled) == (S.FILLED, 10)


# --- found by random strategies against the venue in a box ---


def test_a_reduce_only_order_that_the_venue_made_smaller_did_not_fill() -> None:
    told = Told()
    wanted = order(reduce_only=True)
    found = told.rest(wanted=wanted)
    told.table.on_open_orders(told.table.mark(), "", [row(11, wanted, "4", reduceOnly=True)])
    assert facts(found.filled, found.remaining, found.state) == (0, 4, S.OPEN)
    told.table.on_fills([fill(11, "1", 1)])
    told.table.on_open_orders(told.table.mark(), "", [row(11, wanted, "3", reduceOnly=True)])
    assert facts(found.filled, found.remaining) == (1, 3)


def test_a_reduce_only_ioc_order_that_filled_in_part_is_asked_for_as_it_may_be_all_there_was() -> None:
    told = Told()
    wanted = order(tif=Tif.IOC, reduce_only=True)
    flight = told.send(placing(1, wanted))
    told.answer(flight, statuses(filled(11, "4")))
    found = told.table.find(11)
    assert found is not None
    assert not found.may_be_live
    assert told.table.questions() == [Question(11)]
    reply = status(11, wanted, "filled", "0.0")
    reply["order"]["order"]["reduceOnly"] = True
    told.table.on_status(told.table.mark(), 11, reply)
    assert facts(found.state, found.filled) == (S.FILLED, 4)


def test_a_modify_refused_after_the_cancel_does_not_cancel_the_leg_that_was_refused() -> None:
    told = Told()
    found = told.rest()
    flight = told.send(modifying(told.table, 2, CLOID, NEW))
    told.table.on_order_updates([update(11, order(), "canceled"), update(12, NEW, "badAloPxRejected")])
    text = "Error placing new order during modify: Post only order would have immediately matched, bbo was 1@2."
    told.answer(flight, statuses({"error": text}))
    assert [leg.state for leg in found.legs.values()] == [S.CANCELED, S.REJECTED]


def two_legs_under_a_cloid(told: Told) -> TrackedOrder:
    """A modify worked, and one that places in any case found its old leg gone: 12 and 13 rest."""
    found = told.rest()
    first = told.send(modifying(told.table, 2, CLOID, NEW))
    second = told.send(modifying(told.table, 3, 11, order("102", "7"), always_place=True))
    told.answer(first, statuses(resting(12)))
    told.answer(second, statuses(resting(13)))
    return found


@pytest.mark.parametrize("news_first", [True, False])
def test_a_cancel_by_cloid_ends_one_of_two_legs_and_the_other_is_asked_for(news_first: bool) -> None:
    told = Told()
    found = two_legs_under_a_cloid(told)
    flight = told.send(canceling(told.table, 4, CLOID))
    gone = [update(13, order("102", "7"), "canceled")]
    if news_first:
        told.table.on_order_updates(gone)
    told.answer(flight, statuses("success"))
    if not news_first:
        told.table.on_order_updates(gone)
    assert found.may_be_live
    assert found.oid == 12
    assert Question(12) in told.table.questions()


def test_a_modify_by_cloid_replaces_one_of_two_legs_and_the_other_is_asked_for() -> None:
    told = Told()
    found = two_legs_under_a_cloid(told)
    flight = told.send(modifying(told.table, 4, CLOID, order("103", "6")))
    told.answer(flight, statuses(resting(14)))
    assert {oid for oid, leg in found.legs.items() if leg.state.live} >= {12, 13, 14}
    assert {Question(12), Question(13)} <= set(told.table.questions())


def test_what_replaced_a_lost_order_may_never_have_needed_it() -> None:
    """A modify that places in any case places also when the order it names never was."""
    told = Told()
    lost = told.send(placing(1, order()))
    told.table.lost(1, 1.0)
    first = told.send(modifying(told.table, 2, CLOID, NEW, always_place=True))
    told.answer(first, statuses(resting(12)))
    second = told.send(modifying(told.table, 3, 12, order("102", "7")))
    told.answer(second, statuses(resting(13)))
    assert lost.closed_mark is None, "it may still come"
    assert not lost.resolved


@pytest.mark.parametrize("query", ["status", "history"])
def test_nothing_is_concluded_of_a_spent_nonce_while_its_answer_can_still_come(query: str) -> None:
    told = Told()
    found = told.rest()
    flight = told.send(modifying(told.table, 2, 11, NEW))
    told.table.on_order_updates([update(11, order(), "canceled"), update(12, NEW, "open")])
    told.table.spent(2)
    mark = told.table.mark()
    if query == "history":
        told.table.on_history(mark, [update(12, NEW, "open"), update(11, order(), "canceled")])
    else:
        told.table.on_status(mark, CLOID, status(12, NEW, "open"))
    told.answer(flight, statuses(resting(12)))
    assert flight.items[0].outcome == Ack("BTC", CLOID, 12, resting=True)
    assert found.oid == 12


def test_an_order_placed_after_a_lost_cancel_does_not_disprove_it() -> None:
    told = Told()
    told.rest()
    cancel = told.send(canceling(told.table, 2, CLOID, expires_after=1000))
    told.table.lost(2, 1.0)
    modify = told.send(modifying(told.table, 3, 11, NEW, always_place=True))
    told.answer(modify, statuses(resting(12)))
    told.table.on_status(told.table.mark(), 11, status(11, order(), "canceled"))
    told.table.venue_time(4000, 0)
    told.table.on_status(told.table.mark(), CLOID, status(12, NEW, "open"))
    outcome = cancel.items[0].outcome
    assert isinstance(outcome, CancelResult)
    assert outcome.canceled
