"""The made-up market: what must hold after every block, whatever the seed."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlconn.errors import ConfigError
from hlconn.sim.coins import BAND, Coin, coins_named, decimal_text
from hlconn.sim.market import HiddenBook, Market, Trade

CATALOGUE = ("BTC", "ETH", "SOL", "kPEPE", "HYPE", "DOGE", "MATIC")
ALL_COINS = (*CATALOGUE, *(f"T{n}" for n in range(250)))


def is_valid_px(text: str, sz_decimals: int) -> bool:
    """The venue's rule, read from the text alone."""
    px = Decimal(text).normalize()
    decimals = -int(px.as_tuple().exponent)
    return px == int(px) or (len(px.as_tuple().digits) <= 5 and decimals <= 6 - sz_decimals)


@pytest.mark.parametrize("coin", coins_named(ALL_COINS), ids=lambda coin: coin.name)
def test_every_price_of_the_band_is_one_the_venue_accepts(coin: Coin) -> None:
    home = Decimal(coin.home_px)
    for edge in (home * (1 - BAND), home, home * (1 + BAND)):
        tick = int(edge.scaleb(coin.px_decimals))
        assert all(is_valid_px(coin.px_text(tick + step), coin.sz_decimals) for step in range(-11, 12))
    assert Decimal(coin.px_text(coin.home_tick)) == home


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [
        (106217, 0, "106217.0"),
        (26739, 5, "0.26739"),
        (1, 6, "0.000001"),
        (12850, 2, "128.5"),
        (0, 3, "0.0"),
        (7000, 3, "7.0"),
    ],
)
def test_numbers_are_written_as_in_captures(units: int, decimals: int, text: str) -> None:
    assert decimal_text(units, decimals) == text


@given(st.integers(0, 10**12), st.integers(0, 8))
def test_numbers_keep_their_value_and_no_idle_zero(units: int, decimals: int) -> None:
    text = decimal_text(units, decimals)
    whole, fraction = text.split(".")
    assert Decimal(text) == Decimal(units).scaleb(-decimals)
    assert fraction == "0" or not fraction.endswith("0")
    assert whole == str(int(whole))


def check_book(coin: Coin, book: HiddenBook) -> None:
    for side, sign in ((book.bids, -1), (book.asks, 1)):
        keys = [level.tick * sign for level in side]
        assert keys == sorted(set(keys))
        assert all(1 <= level.n <= level.lots for level in side)
        assert coin.min_levels <= len(side) <= coin.max_levels
        low, high = (float(coin.home_tick) * (1 + edge * float(BAND)) for edge in (-1, 1))
        assert all(low < level.tick < high for level in side)
    bid, ask = book.top
    assert not bid or not ask or bid.tick < ask.tick


def check_trades(before: HiddenBook, after: HiddenBook, trades: Iterable[Trade], time_ms: int) -> None:
    sold: defaultdict[tuple[str, int], int] = defaultdict(int)
    for trade in trades:
        sold[trade.side, trade.tick] += trade.lots
        assert trade.lots > 0
        assert trade.time_ms == time_ms
        assert 0 <= trade.tid < 1 << 50
        assert len(trade.hash) == 66
        assert int(trade.hash, 16) >= 0
        for user in (trade.buyer, trade.seller):
            assert len(user) == 42
            assert user == user.lower()
    for aggressor, makers_before, makers_after in (
        ("B", before.asks, after.asks),
        ("A", before.bids, after.bids),
    ):
        traded = {tick: lots for (side, tick), lots in sold.items() if side == aggressor}
        # The best levels, in order, and all of each but the last.
        assert list(traded) == [level.tick for level in makers_before[: len(traded)]]
        left = {level.tick: level.lots for level in makers_after}
        for place, level in enumerate(makers_before[: len(traded)], start=1):
            assert left.get(level.tick, 0) <= level.lots - traded[level.tick]
            assert place == len(traded) or traded[level.tick] == level.lots


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1 << 64))
def test_books_stay_sorted_uncrossed_and_in_step_with_their_trades(seed: int) -> None:
    market = Market((*CATALOGUE, "T3", "T9", "T19"), seed=seed)
    tids: Counter[tuple[str, int]] = Counter()
    for _ in range(150):
        before = market.block
        after = market.step()
        assert 70 <= after.time_ms - before.time_ms <= 100
        for name, coin in market.coins.items():
            old, new = before.books[name], after.books[name]
            check_book(coin, new)
            check_trades(old, new, after.trades.get(name, ()), after.time_ms)
            assert (name in after.bbo_changed) == (old.top != new.top)
            tids.update((name, trade.tid) for trade in after.trades.get(name, ()))
    assert set(tids.values()) <= {1}


def test_the_same_seed_gives_a_coin_the_same_life_whatever_else_is_listed() -> None:
    alone, among = Market(("ETH",), seed=3), Market(("T1", "ETH", "BTC"), seed=3)
    other_seed = Market(("ETH",), seed=4)
    differs = 0
    for _ in range(200):
        one, two = alone.step(), among.step()
        assert one.time_ms == two.time_ms
        assert one.books["ETH"] == two.books["ETH"]
        assert one.trades.get("ETH") == two.trades.get("ETH")
        differs += other_seed.step().books["ETH"] != one.books["ETH"]
    assert differs == 200


def test_the_market_is_as_lively_as_a_real_one() -> None:
    market = Market(("BTC", "MATIC", "T9"))
    blocks = [market.step() for _ in range(2000)]
    assert 0.5 < sum("BTC" in block.bbo_changed for block in blocks) / 2000 < 0.8
    assert 0.2 < sum("BTC" in block.trades for block in blocks) / 2000 < 0.7
    assert {trade.side for block in blocks for trade in block.trades.get("BTC", ())} == {"A", "B"}
    assert not any("MATIC" in block.bbo_changed for block in blocks)
    # A thin book shows all that a reader must stand: fewer than 5 levels, and an empty side.
    assert {0, 1, 4, 5} <= {len(block.books["T9"].bids) for block in blocks}


def test_only_the_last_blocks_are_remembered() -> None:
    market = Market(("BTC",), history_blocks=3)
    blocks = [market.block, *(market.step() for _ in range(4))]
    for block in blocks[:2]:
        assert market.book_at("BTC", block.time_ms) is None
    for block in blocks[2:]:
        assert market.book_at("BTC", block.time_ms) == (block.time_ms, block.books["BTC"])
    assert market.book_at("BTC") == market.book_at("BTC", blocks[-1].time_ms)


def test_the_last_thirty_trades_are_kept() -> None:
    market = Market(("BTC",))
    trades = [trade for _ in range(100) for trade in market.step().trades.get("BTC", ())]
    assert len(trades) > 30
    assert market.recent_trades("BTC") == tuple(trades[-30:])


def test_block_time_must_increase() -> None:
    market = Market(("BTC",), start_ms=1000)
    assert market.step(1001).time_ms == 1001
    with pytest.raises(ValueError, match="must increase"):
        market.step(1001)


@pytest.mark.parametrize("names", [("XYZ",), ("btc",), ("T250",), ("T01",), ("T-1",), ("BTC", "BTC"), ()])
def test_unknown_repeated_or_no_coins_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="coin"):
        Market(names)
