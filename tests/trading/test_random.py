"""Random strategies against a small venue that keeps the truth; and planted bugs, each of which they have to find."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fake_wire import run
from random_trading import live_through

from hlconn import ErrorCode
from hlconn.trading import orders
from hlconn.trading.ledger import Ledger
from hlconn.trading.orders import Evidence, OrderState, OrderTable, TrackedOrder
from hlconn.trading.trader import Trader

LONG = os.environ.get("HLCONN_HYPOTHESIS") == "long"
SEEDS = 300 if LONG else 60  # in which a planted bug has to be found
Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("seed", range(1000 if LONG else 30))
def test_a_random_strategy_ends_with_what_the_venue_has(seed: int, tmp_path: Path) -> None:
    run(live_through(seed, tmp_path))


def dead_on_unknown_oid(patch: Patch) -> None:
    patch.setattr(orders, "_is_closed", lambda item, mark: item.outcome is None and item.flight.lost is not None)


def fills_counted_as_often_as_they_come(patch: Patch) -> None:
    right = OrderTable.on_fills

    def wrong(self: OrderTable, rows: Any) -> None:
        self._fills.clear()
        right(self, rows)

    patch.setattr(OrderTable, "on_fills", wrong)


def the_old_legs_cancel_is_the_orders(patch: Patch) -> None:
    def wrong(self: TrackedOrder) -> OrderState:
        if self.legs:
            return self.legs[max(self.legs)].state
        return OrderState.PENDING if self.items else self._floor

    patch.setattr(TrackedOrder, "state", property(wrong))


def a_new_oid_is_not_adopted(patch: Patch) -> None:
    patch.setattr(OrderTable, "_candidates", lambda self, order, item: [])


def resent_under_a_new_nonce(patch: Patch) -> None:
    right = Trader._lose

    def wrong(self: Trader, post: Any, reason: str) -> None:
        first = post.flight.lost is None
        right(self, post, reason)
        wanted = [item.wanted for item in post.flight.items if item.kind is orders.Kind.PLACE]
        if first and wanted and not self.closed:
            action = orders_action(self, wanted)
            items = tuple(orders.Item(orders.Kind.OTHER) for _ in wanted)
            self._launch(action, items, False, None)

    def orders_action(self: Trader, wanted: list[Any]) -> Any:
        from hlconn import action

        return action.order(wanted, self._instruments)

    patch.setattr(Trader, "_lose", wrong)


def expired_by_our_own_clock(patch: Patch) -> None:
    right = OrderTable.venue_time
    patch.setattr(OrderTable, "venue_time", lambda self, time_ms, margin_ms: right(self, time_ms + 10_000, margin_ms))
    patch.setattr(Trader, "_round", _round_that_always_asks_the_time(Trader._round))


def _round_that_always_asks_the_time(right: Callable[[Trader], Any]) -> Callable[[Trader], Any]:
    async def wrong(self: Trader) -> None:
        status = await self._query("exchangeStatus")
        self._table.venue_time(status["time"], 0)
        await right(self)

    return wrong


def a_spent_nonce_is_taken_for_a_burned_one(patch: Patch) -> None:
    patch.setattr(OrderTable, "spent", OrderTable.burned)


def missed_fills_are_not_asked_for(patch: Patch) -> None:
    async def wrong(self: Trader) -> None:
        return

    patch.setattr(Trader, "_look_for_fills", wrong)


def not_listed_is_canceled(patch: Patch) -> None:
    right = OrderTable.on_open_orders

    def wrong(self: OrderTable, mark: int, dex: str, rows: Any) -> None:
        right(self, mark, dex, rows)
        for suspect in list(self._suspects):
            if isinstance(suspect, orders._Leg):
                self._prove(suspect, Evidence.STATUS_CANCELED)
        self._suspects.clear()
        self._settle_events()

    patch.setattr(OrderTable, "on_open_orders", wrong)


def fills_are_added_to_a_state_that_has_them(patch: Patch) -> None:
    def wrong(self: Ledger, time_ms: int, name: str, amount: Decimal, px: Decimal = Decimal(0)) -> None:
        self._now[name] = self._now.get(name, Decimal(0)) + 2 * amount

    patch.setattr(Ledger, "add", wrong)


def a_link_that_ends_leaves_its_actions_in_flight(patch: Patch) -> None:
    def wrong(self: Trader, reason: str) -> None:
        self._posts.clear()

    patch.setattr(Trader, "on_down", wrong)


def a_query_from_before_the_expiry_counts(patch: Patch) -> None:
    """Marks are taken when the answer is there, not when the question was asked."""
    right = OrderTable.on_status

    def wrong(self: OrderTable, mark: int, subject: Any, reply: Any) -> None:
        for flight in self.flights:
            if flight.lost is not None:
                self._close(flight, ErrorCode.EXPIRED, "wrongly")
        right(self, self.mark(), subject, reply)

    patch.setattr(OrderTable, "on_status", wrong)


def nonces_are_never_given_back(patch: Patch) -> None:
    from hlconn import Nonces

    patch.setattr(Nonces, "done", lambda self, nonce: None)


def the_sizes_of_old_legs_are_forgotten(patch: Patch) -> None:
    def wrong(self: TrackedOrder) -> Decimal:
        leg = self._leg
        return Decimal(0) if leg is None else self._filled_of(leg)

    patch.setattr(TrackedOrder, "filled", property(wrong))


BUGS: list[Callable[[Patch], None]] = [
    dead_on_unknown_oid,
    fills_counted_as_often_as_they_come,
    the_old_legs_cancel_is_the_orders,
    a_new_oid_is_not_adopted,
    resent_under_a_new_nonce,
    expired_by_our_own_clock,
    a_spent_nonce_is_taken_for_a_burned_one,
    missed_fills_are_not_asked_for,
    not_listed_is_canceled,
    fills_are_added_to_a_state_that_has_them,
    a_link_that_ends_leaves_its_actions_in_flight,
    a_query_from_before_the_expiry_counts,
    nonces_are_never_given_back,
    the_sizes_of_old_legs_are_forgotten,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(bug: Callable[[Patch], None], tmp_path: Path, monkeypatch: Patch) -> None:
    bug(monkeypatch)
    for seed in range(SEEDS):
        try:
            run(live_through(seed, tmp_path / str(seed)))
        except Exception:
            return
    pytest.fail(f"not found in {SEEDS} seeds")
