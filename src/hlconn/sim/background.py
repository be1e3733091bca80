"""The made-up traders: makers who keep a book around a wandering fair price, takers who trade with it.

They trade through the exchange like everybody else, from accounts of the house, so a client's order is filled when the
fair price comes to it. Each coin has its own random source: the same seed gives a coin the same life whatever else is
listed, as long as nobody else trades it.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from math import floor

from .exchange import Exchange
from .ledger import Account
from .markets import Market
from .orders import Order

__all__ = ["BAND_SHARE", "Background"]

#: How far from the home price, as a share of it, the made-up makers quote.
BAND_SHARE = 0.15
# One active block moves the fair price by about 0.003 %, and pulls it home by a hundred-thousandth of its way: the
# walk stays within some 2 % of home, and the clamp at 8 % leaves room for the book inside the band.
_STEP_SHARE, _PULL, _CLAMP_SHARE = 3e-5, 1e-5, 0.08
_ADDRESSES = 32
# Mark and oracle prices move about every 3 s. Source: exchange docs, "Robust price indices".
_MARK_MS = 3_000


class _Side:
    """What the makers have at one side, in ticks: negated for bids, so that the lowest key is the best."""

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.keys: list[int] = []
        self.orders: dict[int, list[Order]] = {}
        #: Keys that traded in the current block: nothing is added there, so that what was sold stays visibly sold.
        self.traded: set[int] = set()

    def put(self, key: int, orders: list[Order]) -> None:
        insort(self.keys, key)
        self.orders[key] = orders

    def pop(self, key: int) -> list[Order]:
        del self.keys[bisect_left(self.keys, key)]
        return self.orders.pop(key)

    def note_trades(self) -> None:
        """Trades come best price first: look only as far as something was touched."""
        for key in self.keys:
            orders = self.orders[key]
            if all(order.rests and order.sz == order.orig_sz for order in orders):
                break
            self.traded.add(key)
        while self.keys and not any(order.rests for order in self.orders[self.keys[0]]):
            self.pop(self.keys[0])


class _Coin:
    """The life of one coin. Every made-up bid is at or below the fair price and every ask above it."""

    def __init__(
        self, exchange: Exchange, market: Market, seed: int, makers: list[Account], takers: list[Account]
    ) -> None:
        self.exchange, self.market = exchange, market
        self.rng = random.Random(f"{seed}:{market.name}")
        self.makers, self.takers = makers, takers
        self.tick = market.tick_at(market.home_px)
        self.home = market.home_px / self.tick
        self.fair = self.home + self.rng.uniform(-0.01, 0.01) * self.home
        self.sides = (_Side(-1), _Side(1))
        self.lots_per_usd = 10**market.decimals / market.home_px
        self.marked_ms = exchange.now_ms
        for row in (0, 1):
            self.keep_depth(row, (market.min_levels + market.max_levels) // 2)
        exchange.set_mark(market.name, max(1, round(self.fair)) * self.tick)

    def step(self, now_ms: int) -> None:
        rng, market = self.rng, self.market
        for side in self.sides:
            side.note_trades()  # a client's
            side.traded.clear()
        active = rng.random() < market.activity
        if active:
            self.walk()
        changes = rng.randint(2, 8) if active else rng.randint(0, 3)
        for _ in range(changes):
            self.churn(rng.randrange(2), first=0 if active else 1)
        if active or changes:
            for row in (0, 1):
                self.keep_depth(row, market.min_levels)
        if now_ms - self.marked_ms >= _MARK_MS:
            self.marked_ms = now_ms
            self.exchange.set_mark(market.name, max(1, round(self.fair)) * self.tick)

    def touch(self, row: int) -> int:
        """The best key that a made-up order of this side may have."""
        return floor(self.fair) + 1 if row == 1 else -floor(self.fair)

    def walk(self) -> None:
        """Move the fair price: what stands in its way is bought or withdrawn, and the gap behind it is filled."""
        rng = self.rng
        if rng.random() < 0.3:
            self.nibble(rng.randrange(2))
        moved = self.fair + rng.gauss(0, max(0.5, _STEP_SHARE * self.home)) + _PULL * (self.home - self.fair)
        self.fair = min(max(moved, self.home * (1 - _CLAMP_SHARE)), self.home * (1 + _CLAMP_SHARE))
        swept = rng.random() < 0.6
        for row, side in enumerate(self.sides):
            touch = self.touch(row)
            if not swept:
                for key in [key for key in side.keys[:64] if key < touch]:
                    self.drop(side, key)
            # Whatever still stands beyond the fair price is traded away, a client's order too.
            self.sweep(row, touch - 1)
        for row in (0, 1):
            self.fill_gap(row)
        self.resize(rng.randrange(2), 0)

    def nibble(self, row: int) -> None:
        """A taker takes some of the best level."""
        book = self.exchange.block.books[self.market.name]
        best = book.top[row]
        if best is not None:
            self.take(row, best.px, max(1, round(best.sz * self.rng.random() ** 2)))

    def sweep(self, row: int, worst_key: int) -> None:
        side = self.sides[row]
        worst = worst_key * side.sign * self.tick
        if self.exchange.books[self.market.name].would_match(row == 1, worst):
            self.take(row, worst, 1 << 62)

    def take(self, row: int, px: int, sz: int) -> None:
        """One taker trades against side `row`, and makers leave alone for this block what was traded."""
        side = self.sides[row]
        self.exchange.take(self.rng.choice(self.takers), self.market, row == 1, px, sz)
        side.note_trades()

    def fill_gap(self, row: int) -> None:
        """Bring a side up to the fair price after it moved away."""
        rng, side, touch = self.rng, self.sides[row], self.touch(row)
        best = side.keys[0] if side.keys else touch + 1
        for key in range(touch, min(best, touch + 10)):
            likely = 0.2 if self.market.min_levels == 0 else 0.85 if key == touch else 0.6
            if key not in side.traded and rng.random() < likely:
                self.add(side, key)

    def churn(self, row: int, first: int) -> None:
        """One maker changes their mind at or behind the level at place `first`."""
        rng, side = self.rng, self.sides[row]
        place = first + int(rng.expovariate(25 / self.market.max_levels))
        choice, keys = rng.random(), side.keys
        if choice < 0.55:
            self.resize(row, place)
        elif choice < 0.78:
            if self.market.min_levels < len(keys) and place < len(keys):
                self.drop(side, keys[place])
        elif len(keys) > first:
            key = keys[0] + first + int(rng.expovariate(1 / 12))
            if key not in side.traded and key not in side.orders:
                self.add(side, key)

    def resize(self, row: int, place: int) -> None:
        side = self.sides[row]
        if place < len(side.keys) and side.keys[place] not in side.traded:
            key = side.keys[place]
            self.drop(side, key)
            self.add(side, key)

    def add(self, side: _Side, key: int) -> None:
        """One level: its size, and among how many orders it is divided."""
        lots = max(1, round(10 ** self.rng.gauss(3.7, 0.8) * self.lots_per_usd))
        orders = min(lots, 1 + int(self.rng.expovariate(0.5)))
        sizes = [lots // orders + (lots % orders if number == 0 else 0) for number in range(orders)]
        makers = self.rng.choices(self.makers, k=orders)
        made = self.exchange.quote(makers, self.market, side.sign < 0, key * side.sign * self.tick, sizes)
        if made:
            side.put(key, made)

    def drop(self, side: _Side, key: int) -> None:
        resting = [order for order in side.pop(key) if order.rests]
        if resting:
            self.exchange.unquote(*resting)

    def keep_depth(self, row: int, at_least: int) -> None:
        side = self.sides[row]
        while len(side.keys) < at_least:
            worst = side.keys[-1] if side.keys else self.touch(row) - 1
            self.add(side, worst + 1 + int(self.rng.expovariate(0.7)))
        for key in side.keys[self.market.max_levels :]:
            self.drop(side, key)


class Background:
    """All made-up traders of one exchange. `step` makes their moves of one block."""

    def __init__(self, exchange: Exchange, seed: int) -> None:
        self._exchange, self._seed = exchange, seed
        rng = random.Random(f"{seed}:house")
        house = [exchange.ledger.open(f"0x{rng.getrandbits(160):040x}", is_house=True) for _ in range(_ADDRESSES)]
        self._makers, self._takers = house[: _ADDRESSES // 2], house[_ADDRESSES // 2 :]
        self._coins: dict[str, _Coin] = {}
        for market in exchange.markets.values():
            self.add(market)

    def add(self, market: Market) -> None:
        """Begin to trade a market; one that allows no levels stays empty."""
        if market.max_levels:
            self._coins[market.name] = _Coin(self._exchange, market, self._seed, self._makers, self._takers)

    def drop(self, name: str) -> None:
        self._coins.pop(name, None)

    def step(self, now_ms: int) -> None:
        for coin in self._coins.values():
            coin.step(now_ms)

    def fair_px(self, name: str) -> int | None:
        """The price that a coin wanders to, in its units; None where nobody trades."""
        coin = self._coins.get(name)
        return None if coin is None else max(1, round(coin.fair)) * coin.tick
