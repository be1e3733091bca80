"""Typed actions to msgpack and JSON: against the msgpack library, orjson, Decimal and the shared vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hlconn import Side, action
from hlconn._core.action import Action
from hlconn.errors import ConfigError, HlconnError, InvalidOrder
from hlconn.instruments import Instrument, Instruments, MarketKind
from hlconn.types import Builder, Cloid, Grouping, Order, Priority, Tif, Tpsl, Trigger, read_number

SHARED = Path(__file__).resolve().parents[3] / "shared" / "protocol" / "vectors"
BTC = Instrument("BTC", 0, MarketKind.PERP, 5)
TSLA = Instrument("xyz:TSLA", 110003, MarketKind.BUILDER_PERP, 3)
HYPE = Instrument("@107", 10107, MarketKind.SPOT, 2)
GONE = Instrument("GONE", 77, MarketKind.PERP, 0, delisted=True)
INSTRUMENTS = Instruments([BTC, TSLA, HYPE, GONE])
CLOID = Cloid("0x" + "00" * 15 + "7f")
ORDER = Order("BTC", Side.BUY, 98450, "0.01", Tif.ALO)


def orders_of(made: Action) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = json.loads(made.json)["orders"]
    return sent


def check_forms(made: Action, expected: Any) -> None:
    """Both forms say `expected`, in its order of keys, as the independent libraries would write it."""
    assert made.msgpack == msgpack.packb(expected)
    assert made.json == orjson.dumps(expected)
    assert made.type == expected["type"]
    assert made.msgpack == action.raw(expected).msgpack == action.raw(json.loads(made.json)).msgpack
    assert made.json == action.raw(expected).json


def wire_order(px: str, sz: str, **rest: Any) -> dict[str, Any]:
    return {"a": 0, "b": True, "p": px, "s": sz, "r": False, "t": {"limit": {"tif": "Alo"}}, **rest}


# --- numbers ----------------------------------------------------------------------------------------------------


def oracle_text(value: Decimal) -> str | None:
    """The wire text of an exact number, or None for what is refused."""
    if not value.is_finite() or value < 0:
        return None
    text = format(value.normalize(), "f") if value else "0"
    whole, _, fraction = text.partition(".")
    digits = (whole + fraction).lstrip("0") if fraction else whole.strip("0")
    return None if len(fraction) > 8 or len(digits) > 18 or len(whole) - len(whole.rstrip("0")) > 26 else text


def wire_or_none(value: Any) -> str | None:
    try:
        return action.wire(value)
    except InvalidOrder:
        return None


decimals = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent),
    st.integers(-(10**3), 10**20),
    st.integers(-24, 12),
)


@given(decimals)
def test_a_decimal_or_its_text_is_written_exactly(value: Decimal) -> None:
    expected = oracle_text(value)
    assert wire_or_none(value) == wire_or_none(str(value)) == wire_or_none(f"{value:E}") == expected


@given(st.integers(-10, 10**70))
@example(10**18 - 1)
@example(10**18)
@example(2**63)
def test_an_int_is_written_exactly(value: int) -> None:
    assert wire_or_none(value) == oracle_text(Decimal(value))
    assert wire_or_none(np.int64(value % 2**62)) == oracle_text(Decimal(value % 2**62))


@given(
    st.one_of(
        st.floats(0, 1e12), st.builds(lambda n, k: float(f"{n}e-{k}"), st.integers(0, 10**15), st.integers(0, 10))
    )
)
@example(0.1 + 0.2)
@example(-0.0)
@example(1e22)
@example(5e-324)
@example(9007199254740993.0)
@example(98450.00000004)
@example(41626143.35963801)
@example(30000000.000000004)
@example(22517998.136852482)
@example(69060828.90000001)
def test_a_float_means_its_shortest_text_or_is_noise_around_eight_decimals(value: float) -> None:
    text, exact = wire_or_none(value), Decimal(repr(value))
    if oracle_text(exact) is not None:
        assert text == oracle_text(abs(exact))
    else:
        near = exact.quantize(Decimal("1e-8")) if exact < 10**12 else exact
        if text is not None:
            assert Decimal(text) == near != 0
            assert abs(near - exact) <= exact * Decimal("1.001e-12")
        else:
            assert abs(near - exact) > exact * Decimal("0.999e-12") or not near
    assert wire_or_none(np.float64(value)) == text


@pytest.mark.parametrize(
    "value",
    [
        *("", ".", "-1", "1e", "1e999", "0x10", "1_0", " 1", "1 ", "\u0661", "\ud800", "1.123456789", "1" * 5000),
        *(math.nan, math.inf, -1, -0.5, 1e-9, 1e300, 1j, 10**5000, Decimal("NaN"), Decimal("Infinity")),
        *(True, None, b"1", object(), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_number_is_refused_in_a_short_sentence(value: object) -> None:
    with pytest.raises(InvalidOrder) as raised:
        action.wire(value)  # type: ignore[arg-type]
    assert str(raised.value).startswith("number ")
    assert len(str(raised.value)) < 200


@pytest.mark.skipif(not SHARED.exists(), reason="the shared vectors are not beside this repository")
def test_the_shared_vectors_of_numbers_reproduce() -> None:
    known = json.loads((SHARED / "numbers.json").read_text())
    for case in known["float_to_wire"]:
        value = float(case["input_repr"])
        if case["error"] or value < 0:
            assert wire_or_none(value) is None
        else:
            assert action.wire(value) == case["wire"].replace("-0", "0", case["wire"] == "-0")
    for case in known["slippage_price"]:
        assert action.wire(float(case["price_repr"])) == case["wire"]


# --- orders -----------------------------------------------------------------------------------------------------


def test_an_order_has_the_venues_shape() -> None:
    made = action.order([ORDER], INSTRUMENTS)
    check_forms(made, {"type": "order", "orders": [wire_order("98450", "0.01")], "grouping": "na"})
    assert (made.items, made.takes_vault, repr(made)) == (1, True, "<Action order of 1>")


def test_every_option_of_an_order_has_its_place() -> None:
    trigger = Trigger("99000.0", Tpsl.SL, is_market=False)
    full = Order("BTC", Side.SELL, Decimal("98449.00"), 1, trigger=trigger, reduce_only=True, cloid=CLOID)
    made = action.order([full, ORDER], INSTRUMENTS, grouping=Priority(80_000), builder=Builder("0x" + "Ab" * 20, 10))
    first = {
        "a": 0,
        "b": False,
        "p": "98449",
        "s": "1",
        "r": True,
        "t": {"trigger": {"isMarket": False, "triggerPx": "99000", "tpsl": "sl"}},
        "c": CLOID.hex,
    }
    check_forms(
        made,
        {
            "type": "order",
            "orders": [first, wire_order("98450", "0.01")],
            "grouping": {"p": 80_000},
            "builder": {"b": "0x" + "ab" * 20, "f": 10},
        },
    )


def test_size_zero_is_the_whole_position_and_only_there() -> None:
    stop = Order("BTC", Side.SELL, 9, 0, trigger=Trigger(10, Tpsl.SL), reduce_only=True)
    made = action.order([stop], INSTRUMENTS, grouping=Grouping.POSITION_TPSL)
    assert orders_of(made)[0]["s"] == "0"
    with pytest.raises(InvalidOrder, match="sz 0 is not valid"):
        action.order([stop], INSTRUMENTS)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40, 65_536])
def test_batches_of_every_header(count: int) -> None:
    check_forms(
        action.order([ORDER] * count, INSTRUMENTS),
        {"type": "order", "orders": [wire_order("98450", "0.01")] * count, "grouping": "na"},
    )
    made = action.cancel([("BTC", 5)] * count, INSTRUMENTS)
    check_forms(made, {"type": "cancel", "cancels": [{"a": 0, "o": 5}] * count})
    assert made.items == count
    order = wire_order("98450", "0.01")
    check_forms(
        action.batch_modify([(5, ORDER)] * count, INSTRUMENTS),
        {"type": "batchModify", "modifies": [{"oid": 5, "order": order}] * count},
    )


EDGES = sorted(
    {(1 << bits) + off for bits in (0, 7, 8, 16, 31, 32, 53, 63, 64) for off in (-1, 0, 1)} - {(1 << 64), (1 << 64) + 1}
)


@pytest.mark.parametrize("oid", EDGES)
def test_oids_of_every_width(oid: int) -> None:
    check_forms(action.cancel([("@107", oid)], INSTRUMENTS), {"type": "cancel", "cancels": [{"a": 10107, "o": oid}]})
    order = wire_order("98450", "0.01")
    check_forms(action.modify(oid, ORDER, INSTRUMENTS), {"type": "modify", "oid": oid, "order": order})
    raw = {"type": "x", "up": oid, "down": -(oid >> 1) - 1}
    check_forms(action.raw(raw), raw)


def test_the_flags_are_there_or_absent_never_false() -> None:
    order = wire_order("98450", "0.01")
    pairs = {"cancels": [{"asset": 110003, "cloid": CLOID.hex}]}
    by_cloid = action.cancel_by_cloid([("xyz:TSLA", CLOID)], INSTRUMENTS, fast=True)
    check_forms(by_cloid, {"type": "cancelByCloid", **pairs, "f": True})
    check_forms(action.cancel_by_cloid([("xyz:TSLA", CLOID)], INSTRUMENTS), {"type": "cancelByCloid", **pairs})
    check_forms(
        action.cancel([("BTC", 1)], INSTRUMENTS, fast=True),
        {"type": "cancel", "cancels": [{"a": 0, "o": 1}], "f": True},
    )
    check_forms(
        action.modify(CLOID, ORDER, INSTRUMENTS, always_place=True),
        {"type": "modify", "oid": CLOID.hex, "order": order, "a": True},
    )
    check_forms(
        action.batch_modify([(CLOID, ORDER)], INSTRUMENTS, always_place=True),
        {"type": "batchModify", "modifies": [{"oid": CLOID.hex, "order": order}], "a": True},
    )


def test_the_small_actions() -> None:
    check_forms(action.schedule_cancel(), {"type": "scheduleCancel"})
    check_forms(action.schedule_cancel(1_700_000_000_000), {"type": "scheduleCancel", "time": 1_700_000_000_000})
    leverage = {"type": "updateLeverage", "asset": 0, "isCross": False, "leverage": 20}
    check_forms(action.update_leverage("BTC", 20, INSTRUMENTS, is_cross=False), leverage)
    margin = {"type": "updateIsolatedMargin", "asset": 0, "isBuy": True, "ntli": -1_500_000}
    check_forms(action.update_isolated_margin("BTC", -1_500_000, INSTRUMENTS), margin)
    check_forms(action.noop(), {"type": "noop"})
    assert not action.noop().takes_vault
    assert "noop" not in action.TAKES_VAULT


@given(
    st.sampled_from([BTC, TSLA, HYPE]),
    st.one_of(decimals, st.floats(0, 1e7), st.integers(0, 10**40), decimals.map(str)),
    st.one_of(decimals, st.floats(0, 1e4), st.integers(0, 10**40)),
)
@example(BTC, 98450.00000004, 1)
@example(BTC, 0.1 + 0.2, 0.1 + 0.2)
@example(BTC, 10**20, 10**20)
@example(BTC, 10**18 + 1, 1.171875)
def test_the_grid_is_the_instruments(instrument: Instrument, px: Any, sz: Any) -> None:
    """Its decision, its text and its nearest values; only what has more digits than anybody needs is refused here."""
    try:
        order = Order(instrument.coin, Side.BUY, px, sz)
    except InvalidOrder:
        return
    expected: Any
    try:
        expected = instrument.check_px(px), instrument.check_sz(sz)
    except InvalidOrder as exc:
        expected = exc
    made: Any
    try:
        sent = orders_of(action.order([order], INSTRUMENTS))[0]
        made = sent["p"], sent["s"]
    except InvalidOrder as exc:
        made = exc
    if isinstance(made, InvalidOrder) and "at most 18 digits" in str(made):
        texts = ["".join(read_number(value, "value")) for value in (px, sz)]
        assert max(len(text.strip("0")) for text in texts) > 18 or max(map(len, texts)) > 26
    elif isinstance(expected, InvalidOrder):
        assert (str(made), made.nearest) == (str(expected), expected.nearest)
    else:
        assert made == expected


def test_off_the_grid_names_the_nearest_values() -> None:
    cases: list[tuple[Any, Any]] = [("98450.5000001", "0.1"), (0.123456789, 1), (98450.55, 1), (Decimal("1.000001"), 1)]
    for px, sz in cases:
        with pytest.raises(InvalidOrder, match="Use ") as raised:
            action.order([Order("BTC", Side.BUY, px, sz)], INSTRUMENTS)
        assert len(raised.value.nearest) == 2
    with pytest.raises(InvalidOrder, match="at most 5 digits after the point") as raised:
        action.order([Order("BTC", Side.BUY, 1, "0.0000001234567")], INSTRUMENTS)
    assert raised.value.nearest == ("0.00001",)


def test_what_the_venue_would_refuse_never_leaves() -> None:
    for empty in (action.order, action.cancel, action.cancel_by_cloid, action.batch_modify):
        with pytest.raises(InvalidOrder, match="an empty batch"):
            empty([], INSTRUMENTS)
    with pytest.raises(InvalidOrder, match="delisted"):
        action.order([Order("GONE", Side.BUY, 1, 1)], INSTRUMENTS)
    assert action.cancel([("GONE", 1)], INSTRUMENTS).items == 1
    with pytest.raises(InvalidOrder, match="did you mean 'BTC'"):
        action.cancel([("btc", 1)], INSTRUMENTS)
    with pytest.raises(InvalidOrder, match="cancel_by_cloid takes Cloids"):
        action.cancel([("BTC", CLOID)], INSTRUMENTS)  # type: ignore[list-item]
    with pytest.raises(InvalidOrder, match="cancel takes oids"):
        action.cancel_by_cloid([("BTC", 5)], INSTRUMENTS)  # type: ignore[list-item]
    for oid in (-1, 1 << 64, 10**5000, 1.0, True, "5", None):
        with pytest.raises(InvalidOrder, match="is neither an int from 0 to 2"):
            action.modify(oid, ORDER, INSTRUMENTS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda: action.schedule_cancel(1.5),  # type: ignore[arg-type]
        lambda: action.schedule_cancel(True),
        lambda: action.schedule_cancel(-1),
        lambda: action.schedule_cancel(1 << 64),
        lambda: action.schedule_cancel("1"),  # type: ignore[arg-type]
        lambda: action.update_leverage("BTC", 0, INSTRUMENTS),
        lambda: action.update_leverage("BTC", 2.5, INSTRUMENTS),  # type: ignore[arg-type]
        lambda: action.update_isolated_margin("BTC", 1.0, INSTRUMENTS),  # type: ignore[arg-type]
        lambda: action.update_isolated_margin("BTC", -(1 << 64), INSTRUMENTS),
    ],
)
def test_settings_are_ints_and_never_rounded(call: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: action.order([1], INSTRUMENTS),  # type: ignore[list-item]
        lambda: action.order((ORDER,), INSTRUMENTS),  # type: ignore[arg-type]
        lambda: action.order([ORDER], INSTRUMENTS, grouping="na"),  # type: ignore[arg-type]
        lambda: action.order([ORDER], INSTRUMENTS, builder="0x"),  # type: ignore[arg-type]
        lambda: action.cancel([("BTC",)], INSTRUMENTS),  # type: ignore[list-item]
        lambda: action.cancel(["BT"], INSTRUMENTS),  # type: ignore[list-item]
        lambda: action.modify(5, None, INSTRUMENTS),  # type: ignore[arg-type]
        lambda: action.batch_modify([5], INSTRUMENTS),  # type: ignore[list-item]
    ],
)
def test_things_of_the_wrong_kind_are_a_type_error(call: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        call()


# --- any mapping ------------------------------------------------------------------------------------------------

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.text(max_size=300)),
    lambda inner: st.one_of(st.lists(inner, max_size=20), st.dictionaries(st.text(max_size=40), inner, max_size=20)),
    max_leaves=60,
)


@given(
    st.dictionaries(st.text(max_size=40).filter(lambda key: key != "type"), values, max_size=20), st.text(max_size=20)
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_mapping_is_packed_as_the_libraries_pack_it(rest: dict[str, Any], kind: str) -> None:
    check_forms(action.raw({"type": kind, **rest}), {"type": kind, **rest})


@pytest.mark.parametrize("length", [0, 31, 32, 255, 256, 65_535, 65_536, 200_000])
def test_texts_and_containers_of_every_header(length: int) -> None:
    mapping = {str(i): i for i in range(min(length, 70_000))}
    whole = {"type": "x", "text": "é" * (length // 2) + "x" * (length % 2), "list": [1] * length, "map": mapping}
    check_forms(action.raw(whole), whole)


def test_addresses_and_cloids_are_lowered_and_nothing_else_is() -> None:
    address, cloid = "0x" + "aB" * 20, "0X" + "Cd" * 16
    words = {"name": "0xHELLO" + "Z" * 35, "text": "0x" + "G" * 32, "short": "0xAB", "token": f"PURR:{cloid}"}
    made = action.raw({"type": "X", "to": [address], "cloid": cloid, **words})
    assert json.loads(made.json) == {"type": "X", "to": [address.lower()], "cloid": cloid.lower(), **words}


def test_mappings_tuples_and_enums_are_taken_for_what_they_hold() -> None:
    class Word(str, Enum):  # noqa: UP042
        A = "a"

    made = action.raw(MappingProxyType({Word.A: (Side.SELL, Tif.IOC, Word.A), "type": "x"}))
    check_forms(made, {"a": [1, "Ioc", "a"], "type": "x"})


def nested(depth: int) -> Any:
    return [] if not depth else [nested(depth - 1)]


def endless() -> Any:
    loop: list[Any] = []
    loop.append(loop)
    return loop


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [
        *(
            1.0,
            0.0,
            math.nan,
            Decimal(1),
            np.float64(1),
            np.int64(1),
            np.bool_(True),
            1 << 64,
            -(1 << 63) - 1,
            10**5000,
        ),
        *(b"x", {1}, object(), Rude(), "\ud800", {1: 2}, {None: 1}, {"\udfff": 1}, nested(40), endless()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_venue_has_no_form_for_is_refused(value: Any) -> None:
    for whole in ({"type": "x", "value": value}, {"type": "x", "value": [{"in": value}]}):
        with pytest.raises(ConfigError) as raised:
            action.raw(whole)
        assert len(str(raised.value)) < 250
    made = action.raw({"type": "x", "value": nested(30)})
    assert made.msgpack == msgpack.packb({"type": "x", "value": nested(30)})


@pytest.mark.parametrize("whole", [None, [], "order", {}, {"type": 1}, {"type": None}, {"Type": "x"}, 5])
def test_an_action_is_a_mapping_with_a_type(whole: Any) -> None:
    with pytest.raises(ConfigError, match="a mapping with a"):
        action.raw(whole)


anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.decimals(),
        st.binary(),
        st.text(st.characters(exclude_categories=[])),
        st.sampled_from([ORDER, CLOID, "BTC", Side.BUY, Tif.GTC, Grouping.NA, Priority(5)]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=10,
)
FUNCTIONS: list[Callable[[Any], Any]] = [
    action.wire,
    action.raw,
    lambda x: action.raw({"type": "x", "value": x}),
    lambda x: action.order(x, INSTRUMENTS),
    lambda x: action.order([x], INSTRUMENTS),
    lambda x: action.order([Order("BTC", Side.BUY, x, 1)], INSTRUMENTS),
    lambda x: action.order([Order("BTC", Side.BUY, 1, x, trigger=Trigger(1, Tpsl.TP))], INSTRUMENTS),
    lambda x: action.order([Order("@107", Side.BUY, 1, 1, trigger=Trigger(x, Tpsl.TP))], INSTRUMENTS),
    lambda x: action.order([Order(x, Side.BUY, 1, 1)], INSTRUMENTS),
    lambda x: action.order([ORDER], INSTRUMENTS, grouping=x),
    lambda x: action.order([ORDER], INSTRUMENTS, builder=x),
    lambda x: action.cancel(x, INSTRUMENTS),
    lambda x: action.cancel([x], INSTRUMENTS),
    lambda x: action.cancel([("BTC", x)], INSTRUMENTS),
    lambda x: action.cancel([(x, 1)], INSTRUMENTS),
    lambda x: action.cancel_by_cloid([("BTC", x)], INSTRUMENTS),
    lambda x: action.modify(x, ORDER, INSTRUMENTS),
    lambda x: action.batch_modify([x], INSTRUMENTS),
    lambda x: action.schedule_cancel(x),
    lambda x: action.update_leverage("BTC", x, INSTRUMENTS),
    lambda x: action.update_isolated_margin("BTC", x, INSTRUMENTS),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=range(len(FUNCTIONS)))
@given(value=anything)
def test_nonsense_raises_our_errors_only(function: Callable[[Any], Any], value: Any) -> None:
    try:
        made = function(value)
    except (HlconnError, TypeError):
        return
    if isinstance(made, Action):
        assert msgpack.unpackb(made.msgpack, strict_map_key=False) == json.loads(made.json)
