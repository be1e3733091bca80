"""From what a caller wants to the action that asks for it, and to the items that the order table keeps account of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import hlconn._core.action as actions

from .._core.action import Action
from .._core.book import Book
from ..errors import InvalidOrder, NotSent
from ..instruments import Instruments
from ..types import Builder, Cloid, Grouping, Number, Order, Priority, Side, Tif, with_cloid
from .orders import Item, Kind, OrderTable, TrackedOrder

__all__ = ["Composed", "Composer"]

#: single: one outcome is waited for, not a list.
Composed: TypeAlias = tuple[Action, tuple[Item, ...], bool]


class Composer:
    """Checks and completes orders, modifies and cancels. Nothing is sent, signed or noted.

    book_of: the live book of a coin, for the price of a market order.
    """

    def __init__(self, instruments: Instruments, table: OrderTable, book_of: Callable[[str], Book | None]) -> None:
        self._instruments, self._table, self._book_of = instruments, table, book_of

    def placing(
        self, orders: Order | Iterable[Order], grouping: Grouping | Priority, builder: Builder | None
    ) -> Composed:
        single = isinstance(orders, Order)
        items = []
        wanted = []
        cloids = set()
        for given in (orders,) if isinstance(orders, Order) else orders:
            order, cloid = given, given.cloid
            if cloid is None:
                cloid = Cloid.new()
                order = with_cloid(order, cloid)
            elif cloid in cloids or self._table.find(cloid) is not None:
                raise InvalidOrder(f"{cloid!r} is taken: the venue would place a second order under it")
            else:
                cloids.add(cloid)
            coin = self._instruments[order.coin].coin
            wanted.append(order)
            items.append(Item(Kind.PLACE, TrackedOrder(coin, order.side, cloid, order), order, coin=coin))
        action = actions.order(wanted, self._instruments, grouping=grouping, builder=builder)
        if grouping is Grouping.NORMAL_TPSL:
            for item in items[1:]:
                assert item.order is not None
                item.order.parent = items[0].order
        return action, tuple(items), single

    def modifying(self, modifies: Iterable[tuple[int | Cloid, Order]], single: bool, always_place: bool) -> Composed:
        items = []
        for oid, given in modifies:
            order = given
            coin = self._instruments[order.coin].coin
            if not always_place and (order.trigger is not None or order.tif is Tif.IOC):
                raise InvalidOrder("a modify places ALO or resting GTC orders only: say always_place=True, or cancel")
            tracked = self._table.order_for(coin, oid)
            if tracked.coin != coin:
                raise InvalidOrder(f"{oid!r} is an order of {tracked.coin}, not of {coin}")
            if order.cloid is None:
                order = with_cloid(order, tracked.cloid or Cloid.new())
            if tracked.cloid not in (None, order.cloid):
                raise InvalidOrder(f"an order keeps its cloid through a modify: {tracked.cloid!r}, not {order.cloid!r}")
            assert order.cloid is not None
            if self._table.find(order.cloid) not in (None, tracked):
                raise InvalidOrder(f"{order.cloid!r} is taken by another order")
            items.append(Item(Kind.MODIFY, tracked, order, oid, coin, always_place))
        wanted = [(item.target, item.wanted) for item in items if item.target is not None and item.wanted is not None]
        action = actions.batch_modify(wanted, self._instruments, always_place=always_place)
        return action, tuple(items), single

    def canceling(self, cancels: Iterable[tuple[str, int | Cloid]], single: bool, fast: bool) -> Composed:
        items = []
        for name, oid in cancels:
            coin = self._instruments[name].coin
            items.append(Item(Kind.CANCEL, self._table.order_for(coin, oid), None, oid, coin))
        by_oid = [(item.coin, item.target) for item in items if isinstance(item.target, int)]
        by_cloid = [(item.coin, item.target) for item in items if isinstance(item.target, Cloid)]
        if by_cloid:
            return actions.cancel_by_cloid(by_cloid, self._instruments, fast=fast), tuple(items), single
        return actions.cancel(by_oid, self._instruments, fast=fast), tuple(items), single

    def market_order(self, coin: str, side: Side, sz: Number, slippage: float, *, reduce_only: bool) -> Order:
        instrument = self._instruments[coin]
        if not 0 <= slippage < 1:
            raise InvalidOrder(f"slippage must be from 0 to below 1 (0.05 is 5 %), not {slippage!r}")
        book = self._book_of(instrument.coin)
        if book is None or book.stale:
            why = "there is none" if book is None else f"it is stale: {book.stale_reason}"
            raise NotSent(f"the price comes from the live book of {instrument.coin}, and {why}: hl.market.book() first")
        mid = book.mid
        if not mid > 0:
            raise NotSent(f"the book of {instrument.coin} has an empty side: there is no price to go by")
        worst = mid * (1 + slippage if side is Side.BUY else 1 - slippage)
        px = instrument.round_px(worst, side, "passive")
        return Order(instrument.coin, side, px, sz, Tif.IOC, reduce_only=reduce_only)
