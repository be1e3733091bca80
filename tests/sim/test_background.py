"""The made-up traders: what must hold after every block, whatever the seed."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from hlconn.sim import Venue
from hlconn.sim.background import BAND_SHARE
from hlconn.sim.markets import Market
from hlconn.sim.matching import HiddenBook
from hlconn.sim.orders import Trade

COINS = ("BTC", "ETH", "SOL", "kPEPE", "HYPE", "DOGE", "MATIC", "PURR/USDC", "@1", "@9", "test:GOLD", "T3", "T9", "T19")


def lively_venue(coins: tuple[str, ...] = COINS, seed: int = 7) -> Venue:
    return Venue(seed, coins=coins, stepped=True)


def check_book(market: Market, book: HiddenBook) -> None:
    for side, sign in ((book.bids, -1), (book.asks, 1)):
        keys = [level.px * sign for level in side]
        assert keys == sorted(set(keys))
        assert all(1 <= level.n <= level.sz for level in side)
        assert market.min_levels <= len(side) <= market.max_levels
        low, high = (market.home_px * (1 + edge * BAND_SHARE) for edge in (-1, 1))
        assert all(low < level.px < high and market.is_valid_px(level.px) for level in side)
    bid, ask = book.top
    assert not bid or not ask or bid.px < ask.px


def check_trades(before: HiddenBook, after: HiddenBook, trades: Iterable[Trade], time_ms: int) -> None:
    """Each trade ate what the block before showed: the best levels in order, all of each but the last."""
    sold: defaultdict[tuple[str, int], int] = defaultdict(int)
    for trade in trades:
        sold[trade.side, trade.px] += trade.sz
        assert trade.sz > 0
        assert trade.time_ms == time_ms
        assert 0 <= trade.tid < 1 << 50
        assert len(trade.hash) == 66
        assert int(trade.hash, 16) >= 0
        for user in (trade.buyer, trade.seller):
            assert len(user) == 42
            assert user == user.lower()
    for aggressor, shown, left in (("B", before.asks, after.asks), ("A", before.bids, after.bids)):
        traded = {px: sz for (side, px), sz in sold.items() if side == aggressor}
        assert list(traded) == [level.px for level in shown[: len(traded)]]
        still = {level.px: level.sz for level in left}
        for place, level in enumerate(shown[: len(traded)], start=1):
            assert still.get(level.px, 0) <= level.sz - traded[level.px]
            assert place == len(traded) or traded[level.px] == level.sz


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1 << 64))
def test_books_stay_sorted_uncrossed_and_in_step_with_their_trades(seed: int) -> None:
    venue = lively_venue(seed=seed)
    tids: Counter[int] = Counter()
    for _ in range(100):
        before, after = venue.exchange.block, venue.block()
        assert 70 <= after.time_ms - before.time_ms <= 100 or before.number == 0
        assert after.number == before.number + 1
        for name, market in venue.exchange.markets.items():
            old, new = before.books[name], after.books[name]
            check_book(market, new)
            check_trades(old, new, after.trades.get(name, ()), after.time_ms)
            assert (name in after.bbo_changed) == (old.top != new.top), name
            tids.update(trade.tid for trade in after.trades.get(name, ()))
    assert set(tids.values()) == {1}
    venue.exchange.check()


def test_the_same_seed_gives_a_coin_the_same_life_whatever_else_is_listed() -> None:
    alone, among = lively_venue(("ETH",), 3), lively_venue(("T1", "ETH", "BTC"), 3)
    other_seed = lively_venue(("ETH",), 4)
    differs = 0
    for number in range(200):
        one, two = alone.block(), among.block()
        assert one.time_ms == two.time_ms
        assert one.books["ETH"] == two.books["ETH"], number
        lives = [[trade[:4] for trade in block.trades.get("ETH", ())] for block in (one, two)]
        assert lives[0] == lives[1], number
        differs += other_seed.block().books["ETH"] != one.books["ETH"]
    assert differs == 200


def test_the_same_seed_gives_everything_again() -> None:
    one, two = lively_venue(seed=5), lively_venue(seed=5)
    for _ in range(50):
        assert one.block() == two.block()


def test_the_market_is_as_lively_as_a_real_one() -> None:
    venue = lively_venue(("BTC", "MATIC", "T9"))
    blocks = [venue.block() for _ in range(2000)]
    assert 0.5 < sum("BTC" in block.bbo_changed for block in blocks) / 2000 < 0.8
    assert 0.2 < sum("BTC" in block.trades for block in blocks) / 2000 < 0.7
    assert {trade.side for block in blocks for trade in block.trades.get("BTC", ())} == {"A", "B"}
    assert not any("MATIC" in block.bbo_changed for block in blocks)
    # A thin book shows all that a reader must stand: fewer than 5 levels, and an empty side.
    for row in (0, 1):
        assert {0, 1, 4, 5} <= {len(block.books["T9"][row]) for block in blocks}


def test_the_mark_price_moves_about_every_three_seconds() -> None:
    venue = lively_venue(("BTC",))
    marked = [block.time_ms for block in (venue.block() for _ in range(1000)) if "BTC" in block.marked]
    gaps = [after - before for before, after in itertools.pairwise(marked)]
    assert len(gaps) > 15
    assert min(gaps[1:]) >= 3_000  # the first came with the venue itself
    market = venue.exchange.markets["BTC"]
    assert market.is_valid_px(venue.exchange.marks["BTC"])


def test_the_last_thirty_trades_are_kept() -> None:
    venue = lively_venue(("BTC",))
    trades = [trade for _ in range(100) for trade in venue.block().trades.get("BTC", ())]
    assert len(trades) > 30
    assert list(venue.exchange.trades["BTC"]) == trades[-30:]


def test_only_the_last_blocks_are_remembered() -> None:
    venue = Venue(coins=("BTC",), stepped=True, history_blocks=3)
    blocks = [venue.exchange.block, *(venue.block() for _ in range(4))]
    assert venue.history.blocks() == blocks[2:]
    for block in blocks[2:]:
        assert venue.history.book("BTC", block.time_ms) == block.books["BTC"]
    assert venue.history.book("BTC") is blocks[-1].books["BTC"]


def test_a_market_listed_while_running_is_traded_and_a_delisted_one_is_no_more() -> None:
    venue = lively_venue(("BTC",))
    venue.block()
    venue.list_coin("ETH")
    assert len(venue.history.book("ETH").bids) >= venue.exchange.markets["ETH"].min_levels
    blocks = [venue.block() for _ in range(200)]
    assert sum("ETH" in block.trades for block in blocks) > 10
    venue.delist_coin("ETH")
    assert venue.history.book("ETH") == HiddenBook((), ())
    blocks = [venue.block() for _ in range(50)]
    assert not any("ETH" in block.trades or "ETH" in block.bbo_changed for block in blocks)
    assert sum("BTC" in block.trades for block in blocks) > 5
    venue.exchange.check()
