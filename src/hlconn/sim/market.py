"""The market behind the venue: one hidden book per coin, in whole ticks and lots.

Pure: no socket and no clock. `Market.step()` makes the next block; what it returns never changes afterwards and
may be read from any thread. Each coin has its own random source, so that the same seed gives a coin the same
life whatever else is listed and whatever clients do.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import NamedTuple

from ..errors import ConfigError
from .coins import DEFAULT_COINS, Coin, coins_named

__all__ = ["Block", "HiddenBook", "Level", "Market", "Trade"]

_BID, _ASK = 0, 1

# A block is final about every 85 ms on the real venue.
_BLOCK_MS = (70, 100)

# One active block moves the fair price by about 0.003 %, and pulls it home by a hundred-thousandth of its way: the
# walk stays within some 2 % of home, and the clamp at 8 % leaves room for the book inside `coins.BAND`.
_STEP_SHARE, _PULL, _CLAMP_SHARE = 3e-5, 1e-5, 0.08

_REPLAYED_TRADES = 30
_TID_BITS = 50
_ADDRESSES = 32
_NO_HASH = "0x" + "0" * 64


class Level(NamedTuple):
    """One price of a book: `tick` and `lots` in units of the coin's grid, `n` resting orders."""

    tick: int
    lots: int
    n: int


class HiddenBook(NamedTuple):
    """A whole book, best level first on both sides."""

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]

    @property
    def top(self) -> tuple[Level | None, Level | None]:
        return self.bids[0] if self.bids else None, self.asks[0] if self.asks else None


class Trade(NamedTuple):
    """One fill. side: the aggressor's, "B" or "A"; hash: of the taker's transaction."""

    side: str
    tick: int
    lots: int
    time_ms: int
    hash: str
    tid: int
    buyer: str
    seller: str


@dataclass(frozen=True, slots=True)
class Block:
    """What is known after one block: every book, and what happened in it.

    trades: only of coins that traded. bbo_changed: coins of which the best level of a side differs from that of
    the block before in price, size or order count.
    """

    time_ms: int
    books: Mapping[str, HiddenBook]
    trades: Mapping[str, tuple[Trade, ...]]
    bbo_changed: frozenset[str]


class _Side:
    """One side of a book. Keys are ticks, negated for bids: the lowest key is the best price on both sides."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self.keys: list[int] = []
        self.levels: dict[int, Level] = {}
        #: Keys that traded in the current block: nothing is added there, so that what was sold stays visibly sold.
        self.traded: set[int] = set()

    def put(self, key: int, lots: int, n: int) -> None:
        if key not in self.levels:
            insort(self.keys, key)
        self.levels[key] = Level(key * self._sign, lots, n)

    def drop(self, key: int) -> None:
        del self.levels[key]
        del self.keys[bisect_left(self.keys, key)]

    def frozen(self) -> tuple[Level, ...]:
        return tuple([self.levels[key] for key in self.keys])


class _CoinMarket:
    """The life of one coin. Every bid is at or below the fair price and every ask above it, so no book is crossed."""

    def __init__(self, coin: Coin, seed: int) -> None:
        self.coin = coin
        self.recent_trades: deque[Trade] = deque(maxlen=_REPLAYED_TRADES)
        self._rng = random.Random(f"{seed}:{coin.name}")
        self._home = float(coin.home_tick)
        self._fair = self._home + self._rng.uniform(-0.01, 0.01) * self._home
        self._sides = (_Side(-1), _Side(1))
        self._lots_per_usd = 10**coin.sz_decimals / float(coin.home_px)
        self._addresses = [f"0x{self._rng.getrandbits(160):040x}" for _ in range(_ADDRESSES)]
        self._tid = self._rng.getrandbits(_TID_BITS)
        for row in (_BID, _ASK):
            self._keep_depth(row, (coin.min_levels + coin.max_levels) // 2)
        self.book = self._frozen()

    def step(self, time_ms: int) -> tuple[Trade, ...]:
        """One block. Afterwards `book` is the new one; the same object when nothing changed."""
        rng, coin = self._rng, self.coin
        if coin.max_levels == 0:
            return ()
        for side in self._sides:
            side.traded.clear()
        trades: list[Trade] = []
        active = rng.random() < coin.activity
        if active:
            self._walk(trades, time_ms)
        changes = rng.randint(2, 8) if active else rng.randint(0, 3)
        for _ in range(changes):
            self._churn(rng.randrange(2), first=0 if active else 1)
        if active or changes:
            for row in (_BID, _ASK):
                self._keep_depth(row, coin.min_levels)
            self.book = self._frozen()
        self.recent_trades.extend(trades)
        return tuple(trades)

    def _frozen(self) -> HiddenBook:
        return HiddenBook(self._sides[_BID].frozen(), self._sides[_ASK].frozen())

    def _touch(self, row: int) -> int:
        """The best key that a level of this side may have."""
        return floor(self._fair) + 1 if row == _ASK else -floor(self._fair)

    def _walk(self, trades: list[Trade], time_ms: int) -> None:
        """Move the fair price: what stands in its way is bought or withdrawn, and the gap behind it is filled.

        Trades come before everything else in a block: they are made with the book of the block before.
        """
        rng = self._rng
        if rng.random() < 0.3:
            row = rng.randrange(2)
            if self._sides[row].keys:
                best = self._sides[row].levels[self._sides[row].keys[0]]
                self._take(row, max(1, round(best.lots * rng.random() ** 2)), trades, time_ms)
        moved = self._fair + rng.gauss(0, max(0.5, _STEP_SHARE * self._home)) + _PULL * (self._home - self._fair)
        self._fair = min(max(moved, self._home * (1 - _CLAMP_SHARE)), self._home * (1 + _CLAMP_SHARE))
        swept = rng.random() < 0.6
        for row in (_BID, _ASK):
            side, touch = self._sides[row], self._touch(row)
            stale = [key for key in side.keys[:64] if key < touch]
            if swept and stale:
                self._take(row, sum(side.levels[key].lots for key in stale), trades, time_ms)
            else:
                for key in stale:
                    side.drop(key)
        for row in (_BID, _ASK):
            self._fill_gap(row)
        self._resize(rng.randrange(2), 0)

    def _take(self, row: int, lots: int, trades: list[Trade], time_ms: int) -> None:
        """One taker fills `lots` against the best levels of a side, one trade per maker."""
        rng, side = self._rng, self._sides[row]
        taker = rng.choice(self._addresses)
        # TWAP slices have no transaction of their own.
        tx_hash = _NO_HASH if rng.random() < 0.03 else f"0x{rng.getrandbits(256):064x}"
        while lots:
            key = side.keys[0]
            level = side.levels[key]
            taken = min(lots, level.lots)
            makers = min(level.n, taken, rng.randint(1, 3))
            for maker_number in range(makers):
                maker = rng.choice(self._addresses)
                buyer, seller = (taker, maker) if row == _ASK else (maker, taker)
                # An odd step visits every one of the 2**50 numbers before it repeats one.
                self._tid = (self._tid + 0x2545F4914F6CD) % (1 << _TID_BITS)
                share = taken // makers + (taken % makers if maker_number == 0 else 0)
                trades.append(Trade("BA"[1 - row], level.tick, share, time_ms, tx_hash, self._tid, buyer, seller))
            side.traded.add(key)
            left = level.lots - taken
            if left:
                # The last maker may keep a rest; the others are done.
                side.put(key, left, min(left, max(1, level.n - makers + 1)))
            else:
                side.drop(key)
            lots -= taken

    def _fill_gap(self, row: int) -> None:
        """Bring a side up to the fair price after it moved away."""
        rng, side, touch = self._rng, self._sides[row], self._touch(row)
        best = side.keys[0] if side.keys else touch + 1
        for key in range(touch, min(best, touch + 10)):
            likely = 0.2 if self.coin.min_levels == 0 else 0.85 if key == touch else 0.6
            if key not in side.traded and rng.random() < likely:
                self._add(side, key)

    def _churn(self, row: int, first: int) -> None:
        """One maker changes their mind at or behind the level at place `first`."""
        rng, side = self._rng, self._sides[row]
        place = first + int(rng.expovariate(25 / self.coin.max_levels))
        choice = rng.random()
        if choice < 0.55:
            self._resize(row, place)
        elif choice < 0.78:
            if self.coin.min_levels < len(side.keys) and place < len(side.keys):
                side.drop(side.keys[place])
        elif len(side.keys) > first:
            key = side.keys[0] + first + int(rng.expovariate(1 / 12))
            if key not in side.traded and key not in side.levels:
                self._add(side, key)

    def _resize(self, row: int, place: int) -> None:
        side = self._sides[row]
        if place < len(side.keys) and side.keys[place] not in side.traded:
            self._add(side, side.keys[place])

    def _add(self, side: _Side, key: int) -> None:
        lots = max(1, round(10 ** self._rng.gauss(3.7, 0.8) * self._lots_per_usd))
        side.put(key, lots, min(lots, 1 + int(self._rng.expovariate(0.5))))

    def _keep_depth(self, row: int, at_least: int) -> None:
        side = self._sides[row]
        while len(side.keys) < at_least:
            worst = side.keys[-1] if side.keys else self._touch(row) - 1
            self._add(side, worst + 1 + int(self._rng.expovariate(0.7)))
        while len(side.keys) > self.coin.max_levels:
            side.drop(side.keys[-1])


class Market:
    """All coins of one venue, and the books of its last blocks.

    coins: names, see `coins_named`, which also says what is refused (ConfigError). start_ms: time of the first
    block, which is there from the beginning. history_blocks: how many blocks `book_at` remembers, by default
    6000, fewer when more than four coins are listed; a block costs about 2 KB a coin.

    `step` belongs to one thread; everything else may be read from any.
    """

    def __init__(
        self,
        coins: tuple[str, ...] = DEFAULT_COINS,
        seed: int = 7,
        start_ms: int = 1_750_000_000_000,
        history_blocks: int | None = None,
    ) -> None:
        self.coins = {coin.name: coin for coin in coins_named(tuple(coins))}
        if history_blocks is None:
            history_blocks = min(6000, max(240, 24_000 // len(self.coins)))
        if history_blocks < 1:
            raise ConfigError(f"history_blocks must be at least 1, not {history_blocks}")
        self.history_blocks = history_blocks
        self._markets = {name: _CoinMarket(coin, seed) for name, coin in self.coins.items()}
        self._rng = random.Random(f"{seed}:blocks")
        self._times: deque[int] = deque()
        self._history: dict[int, Mapping[str, HiddenBook]] = {}
        self._publish(Block(start_ms, {name: m.book for name, m in self._markets.items()}, {}, frozenset()))

    def step(self, time_ms: int | None = None) -> Block:
        """Make the next block, at `time_ms` or, by default, one seeded block interval after the last one."""
        interval_ms = self._rng.randint(*_BLOCK_MS)
        if time_ms is None:
            time_ms = self.block.time_ms + interval_ms
        if time_ms <= self.block.time_ms:
            raise ValueError(f"block time must increase: {time_ms} is not after {self.block.time_ms}")
        books, trades, bbo_changed = {}, {}, []
        for name, market in self._markets.items():
            before = market.book
            traded = market.step(time_ms)
            books[name] = market.book
            if traded:
                trades[name] = traded
            if market.book.top != before.top:
                bbo_changed.append(name)
        return self._publish(Block(time_ms, books, trades, frozenset(bbo_changed)))

    def book_at(self, coin: str, time_ms: int | None = None) -> tuple[int, HiddenBook] | None:
        """Time and book of the block at exactly `time_ms`, or of the last one; None when it is not remembered."""
        if time_ms is None:
            block = self.block
            return block.time_ms, block.books[coin]
        books = self._history.get(time_ms)
        return None if books is None else (time_ms, books[coin])

    def recent_trades(self, coin: str) -> tuple[Trade, ...]:
        """The last trades of a coin, at most 30, oldest first."""
        return tuple(self._markets[coin].recent_trades)

    def _publish(self, block: Block) -> Block:
        self._times.append(block.time_ms)
        self._history[block.time_ms] = block.books
        if len(self._times) > self.history_blocks:
            del self._history[self._times.popleft()]
        # Last: a reader in another thread that sees the block also finds it in the history.
        self.block = block
        return block
