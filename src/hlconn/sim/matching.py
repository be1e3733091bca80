"""Price-time priority over whole numbers: the orders of one market, and what a taker meets.

Pure: no account, no clock. What an order may do besides its price is asked of the caller.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["Book", "HiddenBook", "Level", "Resting"]


class Resting(Protocol):
    """What the book needs of an order. sz: what is left of it."""

    oid: int
    is_buy: bool
    px: int
    sz: int


class Level(NamedTuple):
    """One price of a book: `px` and `sz` in units of the market's grid, `n` resting orders."""

    px: int
    sz: int
    n: int


class HiddenBook(NamedTuple):
    """A whole book, best level first on both sides."""

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]

    @property
    def top(self) -> tuple[Level | None, Level | None]:
        return self.bids[0] if self.bids else None, self.asks[0] if self.asks else None


R = TypeVar("R", bound=Resting)


class _Queue(Generic[R]):
    """The orders of one price, oldest first, and their sum."""

    __slots__ = ("orders", "sz")

    def __init__(self) -> None:
        self.orders: dict[int, R] = {}
        self.sz = 0


class _Side(Generic[R]):
    """Keys are prices, negated for bids: the lowest key is the best price on both sides.

    levels: one for each key, always current, so that a whole side is frozen by one copy.
    """

    __slots__ = ("keys", "levels", "queues", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.keys: list[int] = []
        self.levels: list[Level] = []
        self.queues: dict[int, _Queue[R]] = {}

    def changed(self, key: int, queue: _Queue[R]) -> None:
        """The queue of this price got its first order, another size, or lost its last order."""
        at = bisect_left(self.keys, key)
        if not queue.orders:
            del self.queues[key], self.keys[at], self.levels[at]
            return
        level = Level(key * self.sign, queue.sz, len(queue.orders))
        if at < len(self.keys) and self.keys[at] == key:
            self.levels[at] = level
        else:
            self.keys.insert(at, key)
            self.levels.insert(at, level)


class Book(Generic[R]):
    """One market's resting orders. `orders`: all of them, by oid. `version` rises with every change."""

    __slots__ = ("_frozen", "_frozen_version", "_sides", "orders", "version")

    def __init__(self) -> None:
        self._sides: tuple[_Side[R], _Side[R]] = (_Side(-1), _Side(1))
        self.orders: dict[int, R] = {}
        self.version = 0
        self._frozen, self._frozen_version = HiddenBook((), ()), 0

    def insert(self, *orders: R) -> None:
        """Rest orders of one side and price behind everything else there.

        Whether they cross is the caller's question: `would_match`.
        """
        side = self._sides[not orders[0].is_buy]
        key = orders[0].px * side.sign
        queue = side.queues.get(key)
        if queue is None:
            queue = side.queues[key] = _Queue()
        for order in orders:
            queue.orders[order.oid] = self.orders[order.oid] = order
            queue.sz += order.sz
        side.changed(key, queue)
        self.version += 1

    def remove(self, *orders: R) -> None:
        """Take resting orders of one side and price off, with all that is left of them."""
        side = self._sides[not orders[0].is_buy]
        key = orders[0].px * side.sign
        queue = side.queues[key]
        for order in orders:
            del queue.orders[order.oid], self.orders[order.oid]
            queue.sz -= order.sz
        side.changed(key, queue)
        self.version += 1

    def reduce(self, order: R, by: int) -> None:
        """Take `by` off a resting order, which keeps its place; one with nothing left is removed."""
        if by == order.sz:
            self.remove(order)
        else:
            side = self._sides[not order.is_buy]
            key = order.px * side.sign
            queue = side.queues[key]
            queue.sz -= by
            side.changed(key, queue)
            self.version += 1
        order.sz -= by

    def best(self, is_buy: bool) -> R | None:
        """The first order of the side of bids, or of asks."""
        side = self._sides[not is_buy]
        return next(iter(side.queues[side.keys[0]].orders.values())) if side.keys else None

    def would_match(self, is_buy: bool, px: int) -> bool:
        """Whether an order at this price would meet anything."""
        side = self._sides[is_buy]
        return bool(side.keys) and side.keys[0] <= px * side.sign

    def match(
        self,
        is_buy: bool,
        px: int,
        sz: int,
        allowed: Callable[[R], int],
        filled: Callable[[R, int], object],
    ) -> int:
        """Meet the other side, best price and oldest first, at `px` or better; returns what is left of `sz`.

        allowed(maker): how much of it may trade now; at 0 the caller has taken it off the book. filled(maker, sz) is
        called after the book was changed.
        """
        side = self._sides[is_buy]
        limit = px * side.sign
        while sz and side.keys and side.keys[0] <= limit:
            maker = next(iter(side.queues[side.keys[0]].orders.values()))
            size = min(sz, maker.sz, allowed(maker))
            if size:
                self.reduce(maker, size)
                sz -= size
                filled(maker, size)
        return sz

    def freeze(self) -> HiddenBook:
        """Every level; the same object while nothing changed. May be kept, and read from any thread."""
        if self._frozen_version != self.version:
            bids, asks = self._sides
            self._frozen, self._frozen_version = HiddenBook(tuple(bids.levels), tuple(asks.levels)), self.version
        return self._frozen
