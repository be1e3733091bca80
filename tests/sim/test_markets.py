"""The markets that can be listed: their grids, their numbers, their metadata."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hlconn.errors import ConfigError
from hlconn.sim.background import BAND_SHARE
from hlconn.sim.markets import (
    DEFAULT_COINS,
    MADE_UP_COINS,
    BadNumber,
    Market,
    decimal_text,
    dexs,
    markets_named,
    meta,
    read_decimal,
    spot_meta,
)

ALL_COINS = (*dict.fromkeys((*DEFAULT_COINS, "HYPE", "DOGE")), *(f"T{n}" for n in range(MADE_UP_COINS)))
ALL = markets_named(ALL_COINS)
DEFAULT = markets_named(DEFAULT_COINS)


def is_valid_px(text: str, market: Market) -> bool:
    """The venue's rule, read from the text alone."""
    px = Decimal(text).normalize()
    decimals = -int(px.as_tuple().exponent)
    most = (8 if market.is_spot else 6) - market.sz_decimals
    return px == int(px) or (len(px.as_tuple().digits) <= 5 and decimals <= most)


@pytest.mark.parametrize("market", ALL.values(), ids=lambda market: market.name)
def test_every_price_of_the_band_is_one_the_venue_accepts(market: Market) -> None:
    """The made-up makers quote whole ticks of the home price's grid: each must be valid at both edges too."""
    tick = market.tick_at(market.home_px)
    for edge in (1 - BAND_SHARE, 1, 1 + BAND_SHARE):
        near = round(market.home_px * edge / tick)
        for step in range(-11, 12):
            px = (near + step) * tick
            assert market.is_valid_px(px)
            assert is_valid_px(market.px_text(px), market)


@pytest.mark.parametrize("market", DEFAULT.values(), ids=lambda market: market.name)
@given(data=st.data())
def test_a_price_is_valid_by_its_units_exactly_when_it_is_by_its_text(market: Market, data: st.DataObject) -> None:
    figures, zeros = data.draw(st.integers(1, 10**7)), data.draw(st.integers(0, 6))
    px = figures * 10**zeros
    assert market.is_valid_px(px) == is_valid_px(market.px_text(px), market)
    assert not market.is_valid_px(0)
    assert not market.is_valid_px(-px)


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [
        (106217, 0, "106217.0"),
        (26739, 5, "0.26739"),
        (1, 6, "0.000001"),
        (12850, 2, "128.5"),
        (0, 3, "0.0"),
        (7000, 3, "7.0"),
        (-150, 2, "-1.5"),
        (-1, 6, "-0.000001"),
    ],
)
def test_numbers_are_written_as_in_captures(units: int, decimals: int, text: str) -> None:
    assert decimal_text(units, decimals) == text


@given(st.integers(-(10**12), 10**12), st.integers(0, 8))
def test_numbers_keep_their_value_and_no_idle_zero(units: int, decimals: int) -> None:
    text = decimal_text(units, decimals)
    whole, fraction = text.removeprefix("-").split(".")
    assert Decimal(text) == Decimal(units).scaleb(-decimals)
    assert fraction == "0" or not fraction.endswith("0")
    assert whole == str(int(whole))
    assert read_decimal(text, decimals) == (units, True)


@given(st.decimals(-(10**9), 10**9, places=9, allow_nan=False), st.integers(0, 12))
def test_a_number_is_read_exactly_or_cut_and_said_to_be(value: Decimal, decimals: int) -> None:
    units, exact = read_decimal(f"{value:f}", decimals)
    scaled = value.scaleb(decimals)
    assert exact == (scaled == int(scaled))
    assert units == int(scaled)


@pytest.mark.parametrize(("text", "units"), [("1", 100), ("1.", 100), ("01.10", 110), ("-0.5", -50), ("1.000000", 100)])
def test_zeros_that_say_nothing_change_nothing(text: str, units: int) -> None:
    assert read_decimal(text, 2) == (units, True)


@pytest.mark.parametrize(
    "text", ["", ".5", "1e3", "+1", " 1", "1 ", "1_0", "nan", "٣", "1.2.3", "-", "9" * 21, 5, None, "1\n"]
)
def test_what_is_no_plain_decimal_is_not_read(text: object) -> None:
    with pytest.raises(BadNumber):
        read_decimal(text, 2)


@pytest.mark.parametrize("names", [("XYZ",), ("btc",), ("T250",), ("T01",), ("T-1",), ("BTC", "BTC"), ()])
def test_unknown_repeated_or_no_coins_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="coin"):
        markets_named(names)


def test_asset_ids_follow_from_places_and_spot_ones_from_indices() -> None:
    assert {name: market.asset for name, market in DEFAULT.items()} == {
        "BTC": 0,
        "ETH": 1,
        "SOL": 2,
        "kPEPE": 3,
        "MATIC": 4,
        "PURR/USDC": 10_000,
        "@1": 10_001,
        "@9": 10_009,
        "test:GOLD": 110_000,
    }
    assert markets_named(("SOL", "BTC"))["BTC"].asset == 1
    assert dexs(DEFAULT) == ["", "test"]
    assert dexs(markets_named(("BTC",))) == [""]


def test_metadata_names_each_perp_at_its_place_with_its_oddities() -> None:
    universe = meta(DEFAULT, "")["universe"]
    for place, entry in enumerate(universe):
        market = DEFAULT[entry["name"]]
        assert market.asset == place
        assert entry["szDecimals"] == market.sz_decimals
        assert entry["maxLeverage"] == entry["marginTableId"] == market.max_leverage
        assert entry.get("isDelisted", False) is market.is_delisted
        assert entry.keys() <= {"szDecimals", "name", "maxLeverage", "marginTableId", "isDelisted"}
    assert [entry["name"] for entry in universe] == ["BTC", "ETH", "SOL", "kPEPE", "MATIC"]
    assert universe[4]["isDelisted"] is True
    [gold] = meta(DEFAULT, "test")["universe"]
    assert gold["name"] == "test:GOLD"
    assert gold["onlyIsolated"] is True
    assert gold["marginMode"] == "noCross"


def test_spot_metadata_resolves_by_index_and_not_by_place() -> None:
    answer = spot_meta(DEFAULT)
    tokens = {token["index"]: token for token in answer["tokens"]}
    assert [token["index"] for token in answer["tokens"]] == sorted(tokens)
    assert tokens[0]["name"] == "USDC"
    for pair in answer["universe"]:
        market = DEFAULT[pair["name"]]
        base, quote = pair["tokens"]
        assert market.asset == 10_000 + pair["index"]
        assert quote == 0
        assert market.base is not None
        assert tokens[base]["name"] == market.base.name
        assert tokens[base]["szDecimals"] == market.sz_decimals
    # Positions and indices differ for some token and for some pair, as on the real venue.
    assert any(place != token["index"] for place, token in enumerate(answer["tokens"]))
    assert any(place != pair["index"] for place, pair in enumerate(answer["universe"]))
    assert [pair["name"] for pair in answer["universe"] if pair["isCanonical"]] == ["PURR/USDC"]
    assert not all(token["name"].isascii() for token in answer["tokens"])
    assert len({token["tokenId"] for token in answer["tokens"]}) == len(tokens)
    assert all(len(token["tokenId"]) == 34 for token in answer["tokens"])
