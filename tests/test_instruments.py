"""Instruments against the rule in whole numbers, the official SDK's formulas, and the venue's own metadata."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable, Coroutine, Mapping
from decimal import Decimal, localcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hlconn import (
    ConfigError,
    ErrorCode,
    Instrument,
    Instruments,
    InvalidOrder,
    MarketKind,
    QueryFailed,
    Side,
    UnknownCoin,
)
from hlconn.instruments import InstrumentChange, Rounding

SHARED = Path(__file__).resolve().parents[2] / "shared"
FIXTURES = SHARED / "fixtures" / "info"
VECTORS = SHARED / "protocol" / "vectors" / "numbers.json"
VALUES = 1_000_000 if os.environ.get("HLCONN_HYPOTHESIS") == "long" else 50_000

MOST = {MarketKind.PERP: 6, MarketKind.BUILDER_PERP: 6, MarketKind.SPOT: 8}
GRIDS = [Instrument(f"{kind.name}{n}", n, kind, n) for kind, most in MOST.items() for n in range(most + 1)]
GRIDS.append(Instrument("#10", 100_000_010, MarketKind.OUTCOME, 5))
BTC = Instrument("BTC", 0, MarketKind.PERP, 5)
HYPE = Instrument("@107", 10107, MarketKind.SPOT, 2)
NEITHER = (InvalidOrder, TypeError)

some_grid = st.sampled_from(GRIDS)
some_px = st.decimals(min_value=Decimal("1e-9"), max_value=10**7, places=9) | st.floats(1e-9, 1e7)
some_side = st.sampled_from(Side)
some_mode: st.SearchStrategy[Rounding] = st.sampled_from(("passive", "aggressive"))


# --- the oracle: a value is the whole number `units` of 10**-places -------------------------------------------------


def units_of(text: str) -> tuple[int, int]:
    _, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int)
    units = int("".join(map(str, digits)))
    return (units * 10**exponent, 0) if exponent > 0 else (units, -exponent)


def is_valid(units: int, places: int, most_places: int, is_px: bool) -> bool:
    while places and units % 10 == 0:
        units, places = units // 10, places - 1
    return units > 0 and (places == 0 or (places <= most_places and (not is_px or len(str(units)) <= 5)))


def around(units: int, places: int, most_places: int, is_px: bool) -> tuple[int, int, int]:
    """The grid values at or below and at or above, and their places."""
    kept = most_places
    if is_px:
        before_the_point = len(str(units)) - places  # minus the zeros after the point, below one
        kept = min(kept, max(0, 5 - before_the_point))
    if kept >= places:
        return units * 10 ** (kept - places), units * 10 ** (kept - places), kept
    step = 10 ** (places - kept)
    return units // step, -(-units // step), kept


def decimal_of(units: int, places: int) -> Decimal:
    return Decimal(units).scaleb(-places)


def sdk_wire(x: float) -> str:
    rounded = f"{x:.8f}"
    assert abs(float(rounded) - x) < 1e-12
    return f"{Decimal(rounded).normalize():f}"


def random_number(rng: random.Random) -> str | float:
    kind = rng.randrange(3)
    if kind == 0:
        return max(rng.random(), 1e-3) * 10 ** rng.uniform(-8, 7)
    digits = str(rng.randrange(1, 10 ** rng.randint(1, 8)))
    if kind == 1 and rng.random() < 0.2:
        digits = "9" * rng.randint(4, 8)  # on the edge of one more digit
    text = f"{Decimal(digits).scaleb(-rng.randint(0, 10)):f}"
    return text if kind == 1 else float(text)


def test_validity_and_rounding_agree_with_the_rule_in_whole_numbers() -> None:
    rng = random.Random(5)
    refused = 0
    for _ in range(VALUES):
        grid, value, side = rng.choice(GRIDS), random_number(rng), rng.choice(list(Side))
        text = value if isinstance(value, str) else repr(value)
        units, places = units_of(text)
        is_px = rng.random() < 0.7
        most = grid.px_decimals if is_px else grid.sz_decimals
        check = grid.check_px if is_px else grid.check_sz
        low, high, kept = around(units, places, most, is_px)
        below, above, exact = decimal_of(low, kept), decimal_of(high, kept), Decimal(text)
        _, _, near = min((abs(decimal_of(n, kept) - exact), n % 2, decimal_of(n, kept)) for n in (low, high))
        noise = near if near and abs(near - exact) * 10**12 <= exact else None
        if not is_valid(units, places, most, is_px) and (noise is None or isinstance(value, str)):
            refused += 1
            with pytest.raises(InvalidOrder) as caught:
                check(value)
            assert [Decimal(near) for near in caught.value.nearest] == [near for near in (below, above) if near], text
            for wire in caught.value.nearest:
                assert check(wire) == wire
            down = below
        else:
            down = above = noise or exact
            wire = check(value)
            assert Decimal(wire) == down
            assert wire == check(wire)
            assert "E" not in wire
            assert not ("." in wire and wire.endswith("0"))
        if not is_px:
            assert rounded_or_zero(partial(grid.round_sz, value)) == down
            continue
        wanted: dict[Rounding, Decimal] = {"passive": (down, above)[side], "aggressive": (above, down)[side]}
        for mode, px in wanted.items():
            assert rounded_or_zero(partial(grid.round_px, value, side, mode)) == px, (grid, text, side, mode)
    assert refused > VALUES // 5


def rounded_or_zero(call: Callable[[], Decimal]) -> Decimal:
    try:
        return call()
    except InvalidOrder:
        return Decimal(0)


def test_prices_and_sizes_rounded_by_the_official_sdk_are_valid_and_next_to_ours() -> None:
    rng = random.Random(6)
    for _ in range(VALUES):
        grid = rng.choice(GRIDS[:-1])
        x = float(random_number(rng))
        px = round(float(f"{x:.5g}"), MOST[grid.kind] - grid.sz_decimals)
        if px:
            assert grid.check_px(px) == sdk_wire(px)
            if x < 100_000:
                below, above, kept = around(*units_of(repr(x)), grid.px_decimals, True)
                assert Decimal(grid.check_px(px)) in (decimal_of(below, kept), decimal_of(above, kept)), (grid, x)
        sz = round(x, grid.sz_decimals)
        if sz:
            assert grid.check_sz(sz) == sdk_wire(sz)


@given(some_grid, some_px, some_side, some_mode)
def test_rounding_gives_a_valid_price_on_the_promised_side_and_again_the_same(
    grid: Instrument, px: Decimal | float, side: Side, mode: Rounding
) -> None:
    exact = Decimal(repr(px)) if isinstance(px, float) else px
    try:
        rounded = grid.round_px(px, side, mode)
    except InvalidOrder:
        assert exact < grid.tick(px)
        return
    assert Decimal(grid.check_px(rounded)) == rounded == grid.round_px(rounded, side, mode)
    assert abs(rounded - exact) < grid.tick(px)
    if not isinstance(px, float):
        down = (side is Side.BUY) is (mode == "passive")
        assert rounded <= exact if down else rounded >= exact


@given(some_grid, st.integers(1, 10**9), st.sampled_from([1 - 2e-13, 1 + 2e-13]))
def test_float_noise_is_no_error_and_rounds_to_the_value_it_misses(grid: Instrument, lots: int, off: float) -> None:
    sz = lots * grid.lot
    noisy = float(sz) * off
    assert Decimal(grid.check_sz(noisy)) == grid.round_sz(noisy) == sz
    px = grid.round_px(sz, Side.SELL, "passive")
    for side in Side:
        assert Decimal(grid.check_px(float(px) * off)) == grid.round_px(float(px) * off, side, "passive") == px


def test_float_noise_is_forgiven_in_floats_only() -> None:
    one_place = Instrument("X", 1, MarketKind.PERP, 1)
    assert one_place.check_sz(0.1 + 0.2) == one_place.check_sz(np.float64(0.1) + np.float64(0.2)) == "0.3"
    for exact in ("0.30000000000000004", Decimal(0.1 + 0.2)):
        with pytest.raises(InvalidOrder) as caught:
            one_place.check_sz(exact)
        assert caught.value.nearest == ("0.3", "0.4")
    with pytest.raises(InvalidOrder):
        one_place.check_sz(0.3 * (1 + 3e-12))


@pytest.mark.parametrize(
    ("sz_decimals", "kind", "px", "nearest"),
    [  # examples of the exchange's docs, "Tick and lot size"; None: valid
        (0, MarketKind.PERP, "1234.5", None),
        (0, MarketKind.PERP, "1234.56", ("1234.5", "1234.6")),
        (0, MarketKind.PERP, "0.001234", None),
        (0, MarketKind.PERP, "0.0012345", ("0.001234", "0.001235")),
        (1, MarketKind.PERP, "0.01234", None),
        (1, MarketKind.PERP, "0.012345", ("0.01234", "0.01235")),
        (0, MarketKind.SPOT, "0.0001234", None),
        (1, MarketKind.SPOT, "0.0001234", None),
        (2, MarketKind.SPOT, "0.0001234", ("0.000123", "0.000124")),
        (5, MarketKind.PERP, "123456", None),
        (5, MarketKind.PERP, "12345678901234567890", None),
        (5, MarketKind.PERP, "99999.9", ("99999", "100000")),
        (5, MarketKind.PERP, "0.04", ("0.1",)),
        (5, MarketKind.PERP, "0", ("0.1",)),
        (8, MarketKind.SPOT, "0.5", ("1",)),
    ],
)
def test_the_examples_of_the_docs_and_the_edges(
    sz_decimals: int, kind: MarketKind, px: str, nearest: tuple[str, ...] | None
) -> None:
    grid = Instrument("X", 1, kind, sz_decimals)
    if nearest is None:
        assert grid.check_px(px) == px
        return
    with pytest.raises(InvalidOrder, match=r"not valid for X: .* Use .* or round_px\(\)") as caught:
        grid.check_px(px)
    assert caught.value.nearest == nearest


def test_rounding_crosses_into_one_more_digit() -> None:
    assert str(BTC.round_px(99999.9, Side.BUY, "aggressive")) == "100000"
    assert str(HYPE.round_px("9.99999", Side.SELL, "passive")) == "10"
    assert str(HYPE.round_px("9.99999", Side.BUY, "passive")) == "9.9999"
    assert str(BTC.round_px(0.01, Side.SELL, "passive")) == "0.1"


def test_rounding_to_nothing_is_refused_with_the_smallest_value() -> None:
    cases: list[tuple[float, Side, Rounding]] = [
        (0.01, Side.BUY, "passive"),
        (0.01, Side.SELL, "aggressive"),
        (0, Side.SELL, "passive"),
    ]
    for px, side, mode in cases:
        with pytest.raises(InvalidOrder) as caught:
            BTC.round_px(px, side, mode)
        assert caught.value.nearest == ("0.1",)
    with pytest.raises(InvalidOrder) as caught:
        BTC.round_sz("0.000009")
    assert caught.value.nearest == ("0.00001",)


def test_size_zero_passes_only_when_it_is_asked_for() -> None:
    assert BTC.check_sz(-0.0, zero_ok=True) == "0"
    with pytest.raises(InvalidOrder) as caught:
        BTC.check_sz(0)
    assert caught.value.nearest == ("0.00001",)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, "x", None, True, 10**40, "1e-400"], ids=repr)
def test_what_is_no_number_is_refused_everywhere(value: Any) -> None:
    calls: list[Callable[[Any], object]] = [BTC.check_px, BTC.check_sz, BTC.round_sz]
    for call in calls:
        with pytest.raises(NEITHER):
            call(value)
    with pytest.raises(NEITHER):
        BTC.round_px(value, Side.BUY, "passive")


def test_side_and_mode_are_never_guessed() -> None:
    with pytest.raises(TypeError, match=r"Side\.BUY"):
        BTC.round_px(1, "buy", "passive")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'passive' or 'aggressive'"):
        BTC.round_px(1, Side.BUY, "down")  # type: ignore[arg-type]


def test_the_callers_decimal_context_changes_nothing() -> None:
    with localcontext() as context:
        context.prec = 1
        for trap in context.traps:
            context.traps[trap] = True
        assert BTC.check_px(0.1 + 0.2) == "0.3"
        assert BTC.check_px(Decimal("98450")) == "98450"
        assert str(BTC.round_px(98450.123456, Side.SELL, "passive")) == "98451"
        with pytest.raises(InvalidOrder):
            BTC.check_sz("0.123456789")


def test_tick_and_lot() -> None:
    assert (BTC.lot, BTC.tick(98450), BTC.tick("1234.5"), BTC.tick(0.5)) == tuple(
        map(Decimal, ("0.00001", "1", "0.1", "0.1"))
    )
    assert HYPE.tick(12.3) == Decimal("0.001")


@pytest.mark.parametrize("sz_decimals", [-1, 7, 2.0, True, None, "2"])
def test_an_instrument_cannot_have_an_impossible_size_grid(sz_decimals: Any) -> None:
    with pytest.raises(ConfigError, match="szDecimals of a perp must be from 0 to 6"):
        Instrument("X", 1, MarketKind.PERP, sz_decimals)


# --- metadata -------------------------------------------------------------------------------------------------------


def token(index: Any, name: Any, sz_decimals: Any = 2) -> dict[str, Any]:
    return {"name": name, "szDecimals": sz_decimals, "weiDecimals": 8, "index": index, "isCanonical": False}


def pair(index: Any, base: Any, name: Any = None) -> dict[str, Any]:
    return {"tokens": [base, 0], "name": name or f"@{index}", "index": index, "isCanonical": False}


def perp(name: Any, sz_decimals: Any = 2, **more: Any) -> dict[str, Any]:
    return {"name": name, "szDecimals": sz_decimals, "maxLeverage": 10, "marginTableId": 10} | more


META = {"universe": [perp("BTC", 5), perp("MATIC", 1, isDelisted=True), perp("kPEPE", 0, marginMode="noCross")]}
SPOT = {
    "tokens": [token(0, "USDC", 8), token(150, "HYPE"), token(1, "PURR", 0)],
    "universe": [pair(0, 1, "PURR/USDC"), pair(107, 150)],
}
DEXS = [None, {"name": "abc"}, {"name": "xyz"}]
DEX_METAS = {"xyz": {"universe": [perp("xyz:XYZ100", 4), perp("xyz:TSLA", 3)], "collateralToken": 150}}
OUTCOMES = {
    "outcomes": [{"outcome": 5, "name": "x", "sideSpecs": [{"name": "Yes"}, {"name": "No"}], "quoteToken": "USDC"}],
    "questions": [],
}


def made(**bodies: Any) -> Instruments:
    whole: dict[str, Any] = {
        "meta": META,
        "spot_meta": SPOT,
        "perp_dexs": DEXS,
        "dex_metas": DEX_METAS,
        "outcome_meta": OUTCOMES,
    }
    return Instruments.from_meta(**whole | bodies)


def test_every_market_is_found_by_each_of_its_names_and_by_its_asset_id() -> None:
    instruments = made()
    assert instruments.problems == ()
    for names, asset, kind, sz_decimals, px_decimals in (
        (["BTC"], 0, MarketKind.PERP, 5, 1),
        (["kPEPE"], 2, MarketKind.PERP, 0, 6),
        (["PURR/USDC", "@0"], 10000, MarketKind.SPOT, 0, 8),
        (["@107", "HYPE/USDC"], 10107, MarketKind.SPOT, 2, 6),
        (["xyz:XYZ100"], 120000, MarketKind.BUILDER_PERP, 4, 2),
        (["xyz:TSLA"], 120001, MarketKind.BUILDER_PERP, 3, 3),
        (["#50", "+50"], 100000050, MarketKind.OUTCOME, 5, 8),
        (["#51", "+51"], 100000051, MarketKind.OUTCOME, 5, 8),
    ):
        one = instruments.by_asset(asset)
        assert (one.coin, *one.aliases) == tuple(names)
        assert all(instruments[name] is one and name in instruments for name in names)
        assert (one.asset, one.kind, one.sz_decimals, one.px_decimals) == (asset, kind, sz_decimals, px_decimals)


def test_what_the_metadata_tells_is_kept() -> None:
    instruments = made()
    matic, pepe, tsla, yes = (instruments[name] for name in ("MATIC", "kPEPE", "xyz:TSLA", "#50"))
    assert matic.delisted
    assert pepe.only_isolated
    assert not instruments["BTC"].delisted
    assert (tsla.dex, tsla.base, tsla.quote, tsla.max_leverage) == ("xyz", "TSLA", "HYPE", 10)
    assert (yes.base, yes.quote) == ("Yes", "USDC")


def test_it_is_a_mapping_of_wire_names() -> None:
    instruments = made()
    assert list(instruments)[:4] == ["BTC", "MATIC", "kPEPE", "xyz:XYZ100"]
    assert len(instruments) == len(list(instruments)) == 9
    assert [one.coin for one in instruments.values()] == list(instruments)
    assert instruments.get("nonsense") is None
    assert repr(instruments) == "<Instruments: 9, problems: 0>"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("btc", "did you mean 'BTC'"),
        ("HYPE-USDC", "did you mean 'HYPE/USDC'"),
        ("xyz:tsla", "did you mean 'xyz:TSLA'"),
        ("???", "case-sensitive"),
        (7, "a coin is a str, not 7"),
    ],
)
def test_an_unknown_coin_is_a_key_error_that_names_what_is_close(name: Any, message: str) -> None:
    with pytest.raises(KeyError) as caught:
        made()[name]
    assert isinstance(caught.value, UnknownCoin)
    assert isinstance(caught.value, InvalidOrder)
    assert message in str(caught.value)


def test_an_unknown_asset_id_is_an_unknown_coin_too() -> None:
    with pytest.raises(UnknownCoin, match="asset id 77"):
        made().by_asset(77)


GOOD = perp("GOOD")


@pytest.mark.parametrize(
    "odd",
    [
        None,
        7,
        [],
        {},
        perp(None),
        perp(""),
        perp("A\n"),
        perp("\ud800"),
        perp("xyz:TSLA"),
        perp("@107"),
        perp("A/USDC"),
        perp("#50"),
        perp("ODD", None),
        perp("ODD", "2"),
        perp("ODD", True),
        perp("ODD", 2.0),
        perp("ODD", -1),
        perp("ODD", 7),
        perp("ODD", 10**100),
        perp("ODD", [[[]]] * 1000),
    ],
    ids=lambda odd: repr(odd)[:30],
)
def test_an_odd_perp_disables_itself_only_and_keeps_its_number(odd: Any) -> None:
    instruments = made(meta={"universe": [perp("BTC"), odd, GOOD]})
    assert [one.coin for one in instruments.values() if one.kind is MarketKind.PERP] == ["BTC", "GOOD"]
    assert instruments["GOOD"].asset == 2
    assert len(instruments) == len(made()) - 1
    assert len(instruments.problems) == 1
    assert instruments.problems[0].startswith("meta.universe[1]")
    assert len(instruments.problems[0]) < 300


def test_a_disabled_name_says_why() -> None:
    instruments = made(meta={"universe": [perp("ODD", 9)]})
    with pytest.raises(UnknownCoin, match=r"'ODD' cannot be traded: meta.universe\[0\]: szDecimals"):
        instruments["ODD"]


def test_a_name_that_stands_there_twice_is_nobodys_even_when_one_is_odd() -> None:
    instruments = made(meta={"universe": [perp("TWICE"), perp("TWICE", None), GOOD]})
    assert "TWICE" not in instruments
    assert len(instruments.problems) == 2
    with pytest.raises(UnknownCoin, match="twice"):
        instruments["TWICE"]


def test_a_leverage_that_cannot_be_read_is_reported_and_orders_go_on() -> None:
    instruments = made(meta={"universe": [perp("BTC", maxLeverage="x")]})
    assert instruments["BTC"].max_leverage is None
    assert "maxLeverage" in instruments.problems[0]


@pytest.mark.parametrize(
    ("odd", "tokens"),
    [
        (None, []),
        ({"name": "@5", "index": 5}, []),
        (pair(5, 3), []),
        (pair(5, 3), [token(3, None)]),
        (pair(5, 3), [token(3, "X", None)]),
        (pair(5, 3), [token(3, "X", 9)]),
        (pair(5, 3), [token(3, "X"), token(3, "Y")]),
        (pair(5, 3, "@6"), [token(3, "X")]),
        (pair(5, 3, "BTC"), [token(3, "X")]),
        (pair(5, 3, "xyz:A/B"), [token(3, "X")]),
        (pair("5", 3), [token(3, "X")]),
        (pair(-5, 3), [token(3, "X")]),
        (pair(90_000, 3), [token(3, "X")]),
        (pair(5, "3"), [token(3, "X")]),
        (pair(107, 3), [token(3, "X")]),
    ],
    ids=repr,
)
def test_an_odd_pair_is_disabled_and_reported(odd: Any, tokens: list[Any]) -> None:
    instruments = made(spot_meta={"universe": [pair(0, 1, "PURR/USDC"), odd], "tokens": [*SPOT["tokens"], *tokens]})
    claims_hype = isinstance(odd, dict) and odd.get("index") == 107
    assert [one.coin for one in instruments.values() if one.kind is MarketKind.SPOT] == ["PURR/USDC"] + [
        "@107"
    ] * claims_hype
    assert bool(instruments.problems) is not claims_hype


def test_two_pairs_with_one_asset_id_are_both_disabled() -> None:
    spot = SPOT | {"universe": [pair(107, 150), {**pair(107, 1), "name": "PURR/USDC"}]}
    instruments = made(spot_meta=spot)
    assert len(instruments.problems) == 2
    assert not {"@107", "PURR/USDC"} & set(instruments)


def test_a_name_or_a_number_given_twice_by_hand_is_nobodys() -> None:
    instruments = Instruments([BTC, BTC, HYPE, Instrument("X", HYPE.asset, MarketKind.PERP, 1)])
    assert len(instruments) == 0
    assert len(instruments.problems) == 4


def test_an_alias_that_two_pairs_claim_is_nobodys() -> None:
    tokens = [*SPOT["tokens"], token(7, "HYPE")]
    instruments = made(spot_meta={"tokens": tokens, "universe": [*SPOT["universe"], pair(8, 7)]})
    assert instruments["@107"].aliases == instruments["@8"].aliases == ()
    assert len(instruments.problems) == 1
    with pytest.raises(UnknownCoin, match="ambiguous alias of @107, @8"):
        instruments["HYPE/USDC"]


def test_a_wire_name_goes_before_an_alias() -> None:
    tokens = [*SPOT["tokens"], token(7, "PURR")]
    instruments = made(spot_meta={"tokens": tokens, "universe": [*SPOT["universe"], pair(8, 7)]})
    assert instruments["PURR/USDC"].asset == 10000
    assert instruments["@8"].aliases == ()
    assert len(instruments.problems) == 1


def test_token_names_may_be_in_any_script() -> None:
    tokens = [*SPOT["tokens"], token(7, "\U0001f40b\u2019s")]
    instruments = made(spot_meta={"tokens": tokens, "universe": [pair(8, 7)]})
    assert instruments["\U0001f40b\u2019s/USDC"].coin == "@8"


@pytest.mark.parametrize(
    "dexs",
    [
        None,
        [],
        [None],
        [None, None, {"name": "abc"}],
        [None, {"name": "xyz"}, {"name": "xyz"}],
        [{"name": "xyz"}],
        [None, {"name": 5}, 7, {"name": "a:b"}],
        {},
    ],
    ids=repr,
)
def test_a_dex_whose_place_is_not_known_is_left_out_and_reported(dexs: Any) -> None:
    instruments = made(perp_dexs=dexs)
    assert not [one for one in instruments.values() if one.kind is MarketKind.BUILDER_PERP]
    assert any("asset ids are not known" in problem for problem in instruments.problems)


def test_the_meta_of_another_dex_is_not_taken_for_ours() -> None:
    instruments = made(dex_metas={"abc": DEX_METAS["xyz"]})
    assert "xyz:TSLA" not in instruments
    assert len(instruments.problems) == 2


def test_a_quote_token_that_is_not_known_is_empty_and_harmless() -> None:
    outcome = {"outcome": 5, "sideSpecs": [{"name": "Yes"}], "quoteToken": 150}
    instruments = made(meta=META | {"collateralToken": 99}, outcome_meta={"outcomes": [outcome]})
    assert (instruments["BTC"].quote, instruments["#50"].quote) == ("", "HYPE")
    assert instruments.problems == ()


def test_a_market_of_which_too_many_come_before_it_is_disabled() -> None:
    instruments = made(meta={"universe": [perp(f"P{n}") for n in range(10_001)]})
    assert "P9999" in instruments
    assert "P10000" not in instruments
    assert len(instruments.problems) == 1


def test_a_null_among_the_dexs_keeps_the_places_of_the_others() -> None:
    instruments = made(perp_dexs=[None, None, {"name": "xyz"}])
    assert instruments["xyz:TSLA"].asset == 120001
    assert len(instruments.problems) == 1


def test_a_meta_with_contexts_will_do_as_well() -> None:
    assert dict(made(meta=[META, []])) == dict(made())


def test_the_size_rule_of_outcomes_is_a_setting() -> None:
    strict = made(outcome_sz_decimals=0)["#50"]
    assert strict.check_px("0.12345") == "0.12345"
    assert strict.check_sz(3) == "3"
    with pytest.raises(InvalidOrder):
        strict.check_sz("3.5")
    assert made()["#50"].check_sz("3.5") == "3.5"
    with pytest.raises(ConfigError, match="from 0 to 8"):
        made(outcome_sz_decimals=9)


@pytest.mark.parametrize(
    "odd", [None, {"outcome": "5"}, {"outcome": 5, "sideSpecs": []}, {"outcome": 5, "sideSpecs": [None]}]
)
def test_an_odd_outcome_is_disabled_and_reported(odd: Any) -> None:
    instruments = made(outcome_meta={"outcomes": [odd, {"outcome": 6, "sideSpecs": [{"name": "Yes"}]}]})
    assert [one.coin for one in instruments.values() if one.kind is MarketKind.OUTCOME] == ["#60"]
    assert len(instruments.problems) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 200_000) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["universe", "tokens", "name", "index", "szDecimals", "outcomes"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values, json_values, json_values, json_values, json_values)
def test_no_body_of_any_shape_raises(meta: Any, spot: Any, dexs: Any, dex_meta: Any, outcomes: Any) -> None:
    found = Instruments.from_meta(meta, spot, dexs, {"xyz": dex_meta}, outcomes)
    assert all(isinstance(problem, str) for problem in found.problems)


@given(st.data(), json_values)
def test_one_value_put_anywhere_into_good_bodies_never_fails_the_whole(data: st.DataObject, value: Any) -> None:
    bodies = json.loads(json.dumps({"meta": META, "spot_meta": SPOT, "perp_dexs": DEXS, "outcome_meta": OUTCOMES}))
    place = bodies
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    instruments = made(**bodies)
    for one in instruments.values():
        assert instruments.by_asset(one.asset) is one
        assert all(instruments[name] is one for name in (one.coin, *one.aliases))


# --- the venue's own bodies -----------------------------------------------------------------------------------------


def real_bodies(name: str) -> list[Any]:
    path = FIXTURES / f"{name}.jsonl"
    if not path.exists():
        pytest.skip("the real bodies are not here")
    return [json.loads(json.loads(line)["response_text"]) for line in path.read_text().splitlines()]


def test_the_real_metadata_gives_every_market_and_no_problem() -> None:
    (spot,) = real_bodies("spotMeta")
    for meta in real_bodies("meta"):
        instruments = Instruments.from_meta(meta, spot)
        assert instruments.problems == ()
        assert len(instruments) == len(meta["universe"]) + len(spot["universe"])
        assert [instruments[entry["name"]].asset for entry in meta["universe"]] == list(range(len(meta["universe"])))
        names = {entry["index"]: entry for entry in spot["tokens"]}
        for entry in spot["universe"]:
            one = instruments[entry["name"]]
            base, quote = (names[index] for index in entry["tokens"])
            assert one is instruments[f"{base['name']}/{quote['name']}"] is instruments[f"@{entry['index']}"]
            assert (one.asset, one.sz_decimals) == (10000 + entry["index"], base["szDecimals"])
        assert instruments["HYPE/USDC"].coin == "@107"
        assert instruments["PURR/USDC"].asset == 10000


def test_the_sdks_number_vectors_come_out_as_there() -> None:
    if not VECTORS.exists():
        pytest.skip("the vectors are not here")
    vectors = json.loads(VECTORS.read_text())
    finest = Instrument("X", 1, MarketKind.SPOT, 8)
    for vector in vectors["float_to_wire"]:
        value = float(vector["input_repr"])
        if vector["error"] or value < 0:
            with pytest.raises(InvalidOrder):
                finest.check_sz(value)
        else:
            assert finest.check_sz(value, zero_ok=True) == vector["wire"].replace("-0", "0"), vector
    for vector in vectors["slippage_price"]:
        grid = Instrument("X", 1, MarketKind.SPOT if vector["is_spot"] else MarketKind.PERP, vector["sz_decimals"])
        assert grid.check_px(float(vector["price_repr"])) == vector["wire"]


@pytest.mark.parametrize("asset", [1.9, True, -1, 1 << 64, "7", None])
def test_an_asset_id_is_a_whole_number(asset: Any) -> None:
    with pytest.raises(ConfigError, match="asset id of 'X'"):
        Instrument("X", asset, MarketKind.PERP, 2)


# Refreshing.


class Answers:
    """A venue's metadata, to be changed between two looks. A kind that is missing is refused, as by a node."""

    def __init__(self, **bodies: Any) -> None:
        self.bodies = bodies

    async def query(self, request: Mapping[str, Any]) -> Any:
        kind = request["type"]
        if kind not in self.bodies:
            raise QueryFailed(422, ErrorCode.MALFORMED, "Failed to deserialize")
        return self.bodies[kind]

    async def refreshed(self, instruments: Instruments, **bodies: Any) -> list[tuple[str, str]]:
        self.bodies.update(bodies)
        heard: list[InstrumentChange] = []
        instruments.on_change(heard.append)
        found = await instruments.refresh()
        assert list(found) == heard
        instruments._on_change.clear()
        return [(change.kind, change.coin) for change in found]


def perps(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"universe": list(rows)}


def run_async(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_a_refresh_tells_what_was_listed_delisted_and_changed_and_the_rest_stays_the_same_object() -> None:
    async def work() -> None:
        venue = Answers(meta=perps(perp("BTC"), perp("ETH"), perp("SOL")))
        instruments = await Instruments.fetch(venue.query)
        btc, eth = instruments["BTC"], instruments["ETH"]
        assert await venue.refreshed(instruments) == []
        told = await venue.refreshed(
            instruments, meta=perps(perp("BTC"), perp("ETH", isDelisted=True), perp("SOL", maxLeverage=3), perp("NEW"))
        )
        assert told == [("delisted", "ETH"), ("added", "NEW"), ("changed", "SOL")]
        assert instruments["BTC"] == btc
        assert (eth.delisted, instruments["ETH"].delisted) == (False, True)
        assert instruments["NEW"].asset == 3 == instruments.by_asset(3).asset
        assert instruments["SOL"].max_leverage == 3
        assert await venue.refreshed(instruments, meta=perps(*[perp(c) for c in ("BTC", "ETH", "SOL", "NEW")])) == [
            ("relisted", "ETH"),
            ("changed", "SOL"),
        ]

    run_async(work)


def test_an_asset_id_is_never_given_to_another_name_and_a_name_never_gets_another_id() -> None:
    async def work() -> None:
        venue = Answers(meta=perps(perp("BTC"), perp("ETH"), perp("SOL")))
        instruments = await Instruments.fetch(venue.query)
        told = await venue.refreshed(instruments, meta=perps(perp("ETH"), perp("BTC"), perp("SOL")))
        assert told == [("remapped", "BTC"), ("remapped", "ETH")]
        for coin in ("BTC", "ETH"):
            with pytest.raises(UnknownCoin, match="start a new session"):
                instruments[coin]
        assert list(instruments) == ["SOL"]
        assert len([text for text in instruments.problems if "start a new session" in text]) == 2
        assert await venue.refreshed(instruments) == [], "told once"
        told = await venue.refreshed(instruments, meta=perps(perp("BTC"), perp("ETH"), perp("OTHER")))
        assert told == [("added", "BTC"), ("added", "ETH"), ("delisted", "SOL")]
        assert [instruments[coin].asset for coin in ("BTC", "ETH")] == [0, 1]
        assert "OTHER" not in instruments, "its id was that of SOL, of which there may be orders"
        with pytest.raises(UnknownCoin, match="was that of 'SOL'"):
            instruments["OTHER"]

    run_async(work)


def test_what_the_venue_does_not_list_any_more_stays_as_delisted() -> None:
    async def work() -> None:
        venue = Answers(meta=perps(perp("BTC"), perp("ETH")))
        instruments = await Instruments.fetch(venue.query)
        assert await venue.refreshed(instruments, meta=perps(perp("BTC"))) == [("delisted", "ETH")]
        assert (instruments["ETH"].asset, instruments["ETH"].delisted) == (1, True)
        assert await venue.refreshed(instruments, meta=perps(perp("BTC"), perp("ETH"))) == [("relisted", "ETH")]

    run_async(work)


def test_a_part_of_the_metadata_without_an_answer_stays_as_it_was() -> None:
    async def work() -> None:
        spot = {"tokens": [token(0, "USDC"), token(1, "PURR")], "universe": [pair(0, 1, "PURR/USDC")]}
        outcome = {"outcomes": [{"outcome": 3, "name": "x", "sideSpecs": [{"name": "Yes"}], "quoteToken": "USDC"}]}
        dexs = [None, {"name": "xyz"}]
        venue = Answers(
            meta=perps(perp("BTC")),
            spotMeta=spot,
            outcomeMeta=outcome,
            perpDexs=dexs,
            allPerpMetas=[perps(perp("BTC")), perps(perp("xyz:A"))],
        )
        instruments = await Instruments.fetch(venue.query)
        assert set(instruments) == {"BTC", "PURR/USDC", "#30", "xyz:A"}
        for kind in ("spotMeta", "outcomeMeta", "perpDexs", "allPerpMetas"):
            del venue.bodies[kind]
        assert await venue.refreshed(instruments) == []
        assert set(instruments) == {"BTC", "PURR/USDC", "#30", "xyz:A"}

    run_async(work)


def test_a_refresh_that_fails_changes_nothing() -> None:
    async def work() -> None:
        venue = Answers(meta=perps(perp("BTC")))
        instruments = await Instruments.fetch(venue.query)
        del venue.bodies["meta"]
        with pytest.raises(QueryFailed):
            await instruments.refresh()
        assert list(instruments) == ["BTC"]
        with pytest.raises(ConfigError, match="instruments=True"):
            await Instruments([]).refresh()

    run_async(work)


def test_a_callback_that_raises_keeps_nobody_else_from_hearing_and_nothing_from_changing() -> None:
    async def work() -> None:
        venue = Answers(meta=perps(perp("BTC")))
        instruments = await Instruments.fetch(venue.query)
        heard: list[InstrumentChange] = []

        def bad(change: InstrumentChange) -> None:
            raise ZeroDivisionError

        instruments.on_change(bad)
        instruments.on_change(heard.append)
        venue.bodies["meta"] = perps(perp("BTC"), perp("A"), perp("B"))
        with pytest.raises(ZeroDivisionError):
            await instruments.refresh()
        assert [change.coin for change in heard] == ["A", "B"]
        assert len(instruments) == 3

    run_async(work)
