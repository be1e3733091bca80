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
