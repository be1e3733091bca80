"""Positions and balances: a state of the venue, and every fill since, in any order."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from hlconn.trading.ledger import Difference, Ledger

D = Decimal


def test_the_first_state_is_believed_and_includes_the_fills_up_to_its_time() -> None:
    ledger = Ledger()
    ledger.add(900, "BTC", D(3))
    ledger.add(1100, "BTC", D(2))
    assert ledger.amount("BTC") == 5
    assert ledger.check(1000, {"BTC": D(4), "ETH": D(0)}) == []
    assert ledger.amounts() == {"BTC": D(6)}
    ledger.add(1000, "BTC", D(7))
    assert ledger.amount("BTC") == 6, "a fill of that very block is in the state"


@given(
    st.permutations([(1100, D(1)), (1200, D(-3)), (1300, D("0.5"))]), st.integers(0, 3), st.sampled_from([1150, 1250])
)
def test_fills_add_up_in_any_order_and_on_both_sides_of_a_state(
    fills: list[tuple[int, Decimal]], at: int, time_ms: int
) -> None:
    ledger = Ledger()
    ledger.check(1000, {"BTC": D(10)})
    told = D(10) + sum((amount for when, amount in fills if when <= time_ms), D(0))
    for index, (when, amount) in enumerate(fills):
        if index == at:
            ledger.check(time_ms, {"BTC": told})
        ledger.add(when, "BTC", amount)
    ledger.check(time_ms, {"BTC": told})
    assert ledger.amount("BTC") == D("8.5")
    assert ledger.check(1300, {"BTC": D("8.5")}) == []


def test_a_difference_is_believed_when_it_is_told_twice_alike() -> None:
    ledger = Ledger()
    ledger.check(1000, {"BTC": D(1)})
    assert ledger.check(1100, {"BTC": D(2)}) is None
    assert ledger.amount("BTC") == 1, "a fill may be on its way"
    ledger.add(1050, "BTC", D(1))
    assert ledger.check(1100, {"BTC": D(2)}) == [], "it was"
    assert ledger.check(1200, {"BTC": D(3)}) is None
    assert ledger.check(1300, {"BTC": D(4)}) is None, "another difference"
    assert ledger.check(1400, {"BTC": D(4)}) == [Difference("BTC", D(2), D(4))]
    assert ledger.amount("BTC") == 4
    assert ledger.check(1350, {"BTC": D(9)}) == [], "an answer that was overtaken"


def test_a_position_that_the_venue_no_longer_has_differs_too() -> None:
    ledger = Ledger()
    ledger.check(1000, {"BTC": D(1)})
    assert ledger.check(1100, {}) is None
    assert ledger.check(1200, {}) == [Difference("BTC", D(1), D(0))]
    assert ledger.amounts() == {}


def test_the_entry_price_follows_the_fills() -> None:
    ledger = Ledger()
    ledger.check(1000, {"BTC": D(2)}, {"BTC": D(100)})
    assert ledger.entry_px("BTC") == 100
    ledger.add(1100, "BTC", D(2), D(110))
    assert ledger.entry_px("BTC") == 105
    ledger.add(1200, "BTC", D(-3), D(200))
    assert ledger.entry_px("BTC") == 105, "closing does not move it"
    ledger.add(1300, "BTC", D(-2), D(120))
    assert (ledger.amount("BTC"), ledger.entry_px("BTC")) == (D(-1), D(120))
    ledger.add(1400, "BTC", D(1), D(90))
    assert ledger.entry_px("BTC") is None
    assert ledger.entry_px("ETH") is None


@given(st.lists(st.tuples(st.integers(1001, 1020), st.integers(-3, 3), st.integers(90, 110)), max_size=12), st.data())
def test_the_entry_price_is_the_same_in_whatever_order_fills_come(
    fills: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    fills = [(1000 + 10 * at, sz or 1, px) for at, (_, sz, px) in enumerate(fills)]
    in_order, mixed = Ledger(), Ledger()
    for ledger, said in ((in_order, fills), (mixed, data.draw(st.permutations(fills)))):
        ledger.check(999, {"BTC": D(2)}, {"BTC": D(100)})
        for time_ms, sz, px in said:
            ledger.add(time_ms, "BTC", D(sz), D(px))
            ledger.entry_px("BTC")
    assert mixed.entry_px("BTC") == in_order.entry_px("BTC")
    assert mixed.amounts() == in_order.amounts()


def test_the_entry_price_is_kept_and_not_made_of_all_fills_again() -> None:
    ledger = Ledger()
    ledger.check(1000, {"BTC": D(1)}, {"BTC": D(100)})
    ledger.add(1001, "BTC", D(1), D(110))
    ledger._changes = []
    assert ledger.entry_px("BTC") == 105


def test_a_first_state_that_may_include_a_change_heard_of_later_is_forgotten() -> None:
    ledger = Ledger()
    ledger.check(1000, {"HYPE": D(3)})
    ledger.unsure_until_ms = 1010
    assert not ledger.doubt(1000)
    assert not ledger.doubt(1011)
    assert ledger.doubt(1005)
    ledger.add(1005, "HYPE", D(3))
    assert ledger.check(1020, {"HYPE": D(3)}) == []
    assert ledger.amounts() == {"HYPE": D(3)}
