"""What a cancel or a modify is about is looked up when it is sent, and what a cancel's result says of it is proven."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

import pytest
from fake_wire import Desk, fast_config, run
from order_news import (
    CLOID,
    UNKNOWN_OID,
    Told,
    canceling,
    fill,
    modifying,
    order,
    resting,
    row,
    status,
    statuses,
    update,
)

from hlconn import Cloid
from hlconn.trading.orders import Flight, Item, Kind, OrderState, OutcomeEvent, Question
from hlconn.types import CancelResult

S = OrderState
NOT_FOUND = {"error": "Order was never placed, already canceled, or filled. asset=0"}


def test_an_order_and_its_cancel_that_were_signed_beforehand_are_about_one_order(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            placing, cancel = desk.trader.prepare(order()), desk.trader.prepare_cancel("BTC", CLOID)
            desk.trader.send(placing)
            found = desk.trader.order(CLOID)
            desk.answer(statuses(resting(5)))
            ticket = desk.trader.send(cancel)
            desk.answer(statuses("success"))
            assert (await ticket).canceled
            assert desk.trader.order(CLOID) is found
            assert desk.trader.orders == ()
            assert found is not None
            assert found.state is S.CANCELED
            assert desk.trader._table.questions() == []

    run(work())


@pytest.mark.parametrize("subject", [5, Cloid(5)])
def test_an_unknown_order_that_is_canceled_twice_in_a_batch_is_one_order(subject: int | Cloid) -> None:
    told = Told()
    items = tuple(
        Item(Kind.CANCEL, told.table.order_for("BTC", subject), None, subject, "BTC", index=index) for index in range(2)
    )
    flight = told.send(Flight("cancel", 2, items, None, 0))
    assert items[0].order is items[1].order
    assert len(list(told.table.live)) == 1
    told.answer(flight, statuses("success", NOT_FOUND))
    wanted = order(cloid=subject if isinstance(subject, Cloid) else None)
    told.table.on_status(told.table.mark(), subject, status(5, wanted, "canceled"))
    assert [*told.table.live, *told.table.questions()] == []


def test_what_was_asked_of_a_number_is_asked_of_the_cloid_that_it_turns_out_to_have() -> None:
    told = Told()
    by_oid, by_cloid = told.send(canceling(told.table, 2, 5)), told.send(canceling(told.table, 3, CLOID))
    assert len(list(told.table.live)) == 2
    told.table.on_order_updates([update(5, order(), "open")])
    [found] = list(told.table.live)
    assert {item.order for flight in (by_oid, by_cloid) for item in flight.items} == {found}
    told.answer(by_oid, statuses("success"))
    told.answer(by_cloid, statuses(NOT_FOUND))
    assert [*told.table.live, *told.table.questions()] == []
    assert told.table.ended == (found,)


def test_two_modifies_of_an_unknown_order_that_were_each_given_a_cloid_are_both_followed() -> None:
    told = Told()
    first = modifying(told.table, 2, 5, order("99", cloid=Cloid(1)), expires_after=1000)
    second = modifying(told.table, 3, 5, order("98", cloid=Cloid(2)), expires_after=1000)
    told.send(first)
    told.send(second)
    told.table.lost(2, 1.0)
    told.table.lost(3, 1.0)
    assert told.table.questions() == [Question(Cloid(1)), Question(Cloid(2))]
    told.table.venue_time(4000, 0)
    told.table.on_history(told.table.mark(), [update(7, order("98", cloid=Cloid(2)), "open")])
    found = told.table.find(Cloid(2))
    assert found is not None
    assert found is told.table.find(5)
    assert (found.oid, found.state) == (7, S.OPEN)


# --- what the result of a cancel says ---


def test_a_cancel_that_overtook_its_order_says_that_the_order_may_be_live(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            desk.trader.submit(order())
            cancel = desk.trader.submit_cancel("BTC", CLOID)
            desk.answer(statuses(NOT_FOUND))
            result = await cancel
            assert (result.canceled, result.may_be_live) == (False, True)
            desk.answer(statuses(resting(5)), at=-2)
            found = desk.trader.order(CLOID)
            assert found is not None
            assert found.may_be_live

    run(work())


def test_a_cancel_of_what_has_ended_says_so_and_one_that_worked_too() -> None:
    told = Told()
    told.rest()
    first, second = told.send(canceling(told.table, 2, 11)), told.send(canceling(told.table, 3, CLOID))
    unseen = told.send(canceling(told.table, 4, Cloid(99)))
    told.table.on_fills([fill(11, "10.0", 1)])
    for flight, entry in ((first, NOT_FOUND), (second, NOT_FOUND), (unseen, "success")):
        told.answer(flight, statuses(entry))
        outcome = flight.items[0].outcome
        assert isinstance(outcome, CancelResult)
        assert (outcome.canceled, outcome.may_be_live) == (entry == "success", False)


def test_an_order_of_an_earlier_process_is_not_told_as_dead_before_it_can_come_no_more(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            canceled = asyncio.create_task(desk.trader.cancel("BTC", CLOID))
            await desk.wire.step()
            desk.answer(statuses(NOT_FOUND))
            assert (await canceled).may_be_live
            await desk.wire.step(14)
            found = desk.trader.order(CLOID)
            assert found is not None
            assert found.may_be_live
            assert found in desk.trader.orders
            await desk.wire.step(14)
            assert found.state is S.NEVER
            asked = len(desk.wire.asked)
            await desk.wire.step(60)
            assert len(desk.wire.asked) == asked, "nothing is left to ask"

    run(work())


def test_an_order_of_an_earlier_process_that_comes_after_it_was_not_found_is_adopted() -> None:
    told = Told()
    told.answer(told.send(canceling(told.table, 2, CLOID)), statuses(NOT_FOUND))
    told.table.on_status(told.table.mark(), CLOID, UNKNOWN_OID)
    told.table.on_open_orders(told.table.mark(), "", [row(5, order())])
    (found,) = told.table.live
    assert (found.oid, found.state, told.table.questions()) == (5, S.OPEN, [])
    told.table.venue_time(100_000, 0)
    assert found.state is S.OPEN
    assert any(isinstance(event, OutcomeEvent) for event in told.table.take_events())


# --- what is asked ---


def test_after_an_outage_the_history_is_asked_once_before_many_orders_are_asked_for_alone() -> None:
    told = Told()
    orders = {oid: order(cloid=Cloid(oid)) for oid in range(1, 101)}
    told.table.on_open_orders(told.table.mark(), "", [row(oid, one) for oid, one in orders.items()])
    told.table.on_open_orders(told.table.mark(), "", [])
    assert told.table.questions() == [Question(None)]
    rows = [update(oid, one, "canceled") for oid, one in orders.items() if oid > 50]
    told.table.on_history(told.table.mark(), rows)
    assert told.table.questions() == [Question(oid) for oid in range(1, 51)], "what it did not have, each alone"
    assert len(told.table.live) == 50, "what the history does not have may be live"
    for oid in range(1, 51):
        told.table.on_status(told.table.mark(), oid, status(oid, orders[oid], "filled", "0"))
    assert told.table.questions() == []
    assert not told.table.has_questions


def test_the_history_is_asked_about_an_order_that_was_open_and_that_a_status_query_does_not_know() -> None:
    told = Told()
    found = told.rest()
    told.table.on_open_orders(told.table.mark(), "", [])
    assert told.table.questions() == [Question(11)]
    told.table.on_status(told.table.mark(), 11, UNKNOWN_OID)
    assert found.may_be_live, "nothing is proven"
    assert told.table.questions() == [Question(None), Question(11)]
    told.table.on_history(told.table.mark(), [])
    assert found.may_be_live
    assert told.table.questions() == [Question(11)]
    told.table.on_status(told.table.mark(), 11, UNKNOWN_OID)
    told.table.on_history(told.table.mark(), [update(11, order(), "filled", "0")])
    assert found.state is S.FILLED
    assert not told.table.has_questions


def test_there_are_questions_exactly_when_they_can_be_made() -> None:
    told = Told()
    assert not told.table.has_questions
    told.send(canceling(told.table, 2, 11))
    told.table.lost(2, 1.0)
    assert told.table.has_questions
    other = told.send(Flight("updateLeverage", 3, (Item(Kind.OTHER),), None, 0))
    told.table.on_status(told.table.mark(), 11, status(11, order(), "canceled"))
    told.table.lost(other.nonce, 1.0)
    assert (told.table.has_questions, told.table.questions()) == (False, [])


def test_the_oldest_fills_and_orders_are_forgotten_without_walking_over_those_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hlconn.trading.orders._KEPT_FILLS", 3)
    monkeypatch.setattr("hlconn.trading.orders._KEPT_ORDERS", 2)
    told = Told()
    told.table.on_fills([fill(11, "1.0", tid) for tid in range(5)])
    assert [each.tid for each in told.table.fills] == [2, 3, 4]
    for oid in range(1, 5):
        told.table.on_order_updates([update(oid, order(cloid=Cloid(oid)), "canceled")])
    assert [each.oid for each in told.table.ended] == [3, 4]
    assert isinstance(told.table._fills, OrderedDict)
    assert isinstance(told.table._ended, OrderedDict)
