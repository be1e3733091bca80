"""A plain matcher, written from the rules of the protocol's documentation and sharing nothing with `hlconn.sim`.

One market. Both sides are one sorted list of orders each, best and oldest first; everything else is read off them.
Slow and obvious on purpose: it is what the venue's matching is compared with.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

__all__ = ["Matcher", "PlainBook", "PlainOrder", "Traded"]


@dataclass(eq=False)
class PlainOrder:
    """sz: what is left."""

    oid: int
    who: str
    is_buy: bool
    px: int
    sz: int
    reduce_only: bool = False
    tif: str = "Gtc"
    status: str = "open"

    def rank(self) -> int:
        return -self.px if self.is_buy else self.px

    def meets(self, other: PlainOrder) -> bool:
        return self.px >= other.px if self.is_buy else self.px <= other.px


class Traded(NamedTuple):
    px: int
    sz: int
    maker: int
    taker: int


class PlainBook:
    def __init__(self) -> None:
        self.bids: list[PlainOrder] = []
        self.asks: list[PlainOrder] = []

    def side(self, is_buy: bool) -> list[PlainOrder]:
        return self.bids if is_buy else self.asks

    def rest(self, order: PlainOrder) -> None:
        insort(self.side(order.is_buy), order, key=PlainOrder.rank)  # to the right of its equals

    def remove(self, order: PlainOrder) -> None:
        self.side(order.is_buy).remove(order)

    def crosses(self, order: PlainOrder) -> bool:
        return any(order.meets(other) for other in self.side(not order.is_buy)[:1])

    def levels(self, is_buy: bool) -> list[tuple[int, int, int]]:
        """(price, size, orders), best first."""
        found = []
        for px, orders in groupby(self.side(is_buy), key=lambda order: order.px):
            sizes = [order.sz for order in orders]
            found.append((px, sum(sizes), len(sizes)))
        return found

    def match(
        self, taker: PlainOrder, room: Callable[[PlainOrder], int], traded: Callable[[PlainOrder, int], object]
    ) -> list[Traded]:
        """room(maker): how much of it may trade; at 0 it is removed. traded(maker, sz) is called after each."""
        trades = []
        while taker.sz and self.crosses(taker):
            maker = self.side(not taker.is_buy)[0]
            sz = min(taker.sz, maker.sz, room(maker))
            if sz:
                maker.sz -= sz
                taker.sz -= sz
                trades.append(Traded(maker.px, sz, maker.oid, taker.oid))
                traded(maker, sz)
            if maker.sz == 0 or sz == 0:
                self.remove(maker)
        return trades


class Matcher(PlainBook):
    """A book whose orders belong to somebody. orders: every one that ever was, by oid."""

    def __init__(self) -> None:
        super().__init__()
        self.positions: Counter[str] = Counter()
        self.orders: dict[int, PlainOrder] = {}

    def reduces(self, order: PlainOrder) -> int:
        """How much of a position this order's side would close."""
        return max(0, -self.positions[order.who] if order.is_buy else self.positions[order.who])

    def place(self, order: PlainOrder) -> list[Traded]:
        """Its fate is in its status: "open" rests."""
        self.orders[order.oid] = order
        if order.reduce_only and not self.reduces(order):
            order.status = "reduceOnlyRejected"
            return []
        if order.tif == "Alo" and self.crosses(order):
            order.status = "badAloPxRejected"
            return []
        if order.reduce_only:
            order.sz = min(order.sz, self.reduces(order))

        def room(maker: PlainOrder) -> int:
            if maker.who == order.who:
                maker.status = "selfTradeCanceled"
                return 0
            if not maker.reduce_only:
                return maker.sz
            if not self.reduces(maker):
                maker.status = "reduceOnlyCanceled"
            return self.reduces(maker)

        def traded(maker: PlainOrder, sz: int) -> None:
            for side in (order, maker):
                self.positions[side.who] += sz if side.is_buy else -sz
                if side.sz == 0:
                    side.status = "filled"

        trades = self.match(order, room, traded)
        if trades:
            for idle in [o for o in self.bids + self.asks if o.reduce_only and not self.reduces(o)]:
                self.end(idle, "reduceOnlyCanceled")
        if order.sz and order.tif == "Ioc":
            order.status = "canceled" if trades else "iocCancelRejected"
        elif order.sz:
            self.rest(order)
        return trades

    def end(self, order: PlainOrder, status: str) -> None:
        self.remove(order)
        order.status = status

    def cancel(self, who: str, oid: int) -> bool:
        order = self.orders.get(oid)
        if order is None or order.who != who or order.status != "open":
            return False
        self.end(order, "canceled")
        return True

    def modify(self, who: str, oid: int, new: PlainOrder, always: bool) -> tuple[str, list[Traded]]:
        """Cancel one order and place another; "" or what is wrong. Without `always` the new one must not take."""
        old = self.orders.get(oid)
        is_live = old is not None and old.who == who and old.status == "open"
        if not always and not is_live:
            return "cannot", []
        if not always and (new.tif == "Ioc" or (new.tif == "Gtc" and self.crosses(new))):
            return "invalid", []
        if not always:
            new.tif = "Alo"
        if is_live:
            self.cancel(who, oid)
        trades = self.place(new)
        failed = new.status.endswith("Rejected")
        return ("error" if failed and is_live else new.status if failed else ""), trades
