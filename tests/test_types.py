"""Orders and their parts: what they take, what they refuse, and how they print."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hlconn
from hlconn import (
    Builder,
    Cloid,
    Grouping,
    InvalidOrder,
    NotSent,
    Order,
    Priority,
    Side,
    Tif,
    Tpsl,
    Trigger,
    UnknownCoin,
)
from hlconn.types import read_number

NO_NUMBERS = [float("nan"), float("inf"), "nan", "Infinity", "", " 1", "1_0", "1,5", "0x10", "--1", "1e", ".", "\u0661"]
NO_NUMBERS += [Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity")]
TOO_MANY_DIGITS = [
    10**32,
    10**6000,
    1e300,
    "1e32",
    "1e9999",
    "1e99999999999999999999",
    "1e-9999",
    "9" * 33,
    "0." + "1" * 400,
    Decimal("1E+99999999"),
]
NEGATIVE = [-1, -(10**6000), -0.5, "-1", Decimal("-1e-9")]
NOT_EVEN_CLOSE: list[Any] = [None, True, b"1", [1], 1j, object(), np.bool_(True), np.float32(1)]


def joined(value: Any) -> str:
    whole, fraction = read_number(value, "px")
    return f"{whole}.{fraction}" if fraction else whole


@given(st.decimals(min_value=0, allow_nan=False, max_value=10**31, places=12))
def test_a_number_is_read_exactly_from_every_type_that_can_hold_it(number: Decimal) -> None:
    for value in (number, str(number), f"{number:f}", f"+{number}", f"00{number:f}"):
        assert Decimal(joined(value)) == number
    assert joined(int(number)) == str(int(number))


@given(st.floats(min_value=0, max_value=1e31))
def test_a_float_means_its_shortest_text(number: float) -> None:
    text = joined(number)
    assert float(text) == number
    assert Decimal(text) == Decimal(repr(number))
    assert text == joined(np.float64(number)) == joined(repr(number))


@given(st.integers(0, 10**32 - 1) | st.floats(0, 1e31) | st.from_regex(r"\A[0-9]{1,20}\.[0-9]{0,20}\Z"))
def test_digits_never_have_idle_zeros_signs_or_exponents(value: Any) -> None:
    whole, fraction = read_number(value, "px")
    assert whole.isdigit()
    assert whole == "0" or whole[0] != "0"
    assert fraction == "" or (fraction.isdigit() and fraction[-1] != "0")


@given(st.text(alphabet="0123456789.eE+-_ ni\u0661", max_size=12))
def test_text_is_a_number_that_decimal_reads_as_well_or_is_refused(text: str) -> None:
    try:
        found = joined(text)
    except InvalidOrder:
        return
    assert Decimal(found) == Decimal(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.0, "0"),
        ("-0", "0"),
        ("1.", "1"),
        (".5", "0.5"),
        (1e22, "10000000000000000000000"),
        (1.231e-05, "0.00001231"),
        (Decimal("1E+3"), "1000"),
        (np.int64(7), "7"),
        (5e-324, "0." + "0" * 323 + "5"),
    ],
)
def test_unusual_spellings_are_read_as_what_they_mean(value: Any, text: str) -> None:
    assert joined(value) == text


def test_the_callers_decimal_context_changes_nothing() -> None:
    with localcontext() as context:
        context.prec, context.capitals = 2, 0
        for trap in context.traps:
            context.traps[trap] = True
        assert joined(Decimal("123456.789")) == joined("123456789e-3") == "123456.789"


@pytest.mark.parametrize(
    "value", [*NO_NUMBERS, *TOO_MANY_DIGITS, *NEGATIVE, 0, 0.0, "0.00", Decimal(0)], ids=lambda v: type(v).__name__
)
def test_an_order_refuses_what_can_be_no_price_and_no_size(value: Any) -> None:
    for build in (
        lambda: Order("BTC", Side.BUY, px=value, sz=1),
        lambda: Order("BTC", Side.BUY, px=1, sz=value),
        lambda: Trigger(value, Tpsl.SL),
    ):
        with pytest.raises(InvalidOrder) as caught:
            build()
        assert isinstance(caught.value, NotSent)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", NOT_EVEN_CLOSE, ids=repr)
def test_what_is_no_number_is_a_type_error_that_names_the_argument(value: Any) -> None:
    with pytest.raises(TypeError, match="px must be an int, str, Decimal or float"):
        Order("BTC", Side.BUY, px=value, sz=1)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"coin": 0}, "coin must be a str"),
        ({"side": 0}, "Side.BUY or Side.SELL"),
        ({"side": "B"}, "Side.BUY or Side.SELL"),
        ({"tif": "Alo"}, "Tif.ALO"),
        ({"reduce_only": 1}, "reduce_only must be a bool"),
        ({"trigger": 5}, "a Trigger or None"),
        ({"cloid": "0x" + "1" * 32}, r"Cloid\(\.\.\.\)"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_a_type_error_that_says_what_to_write(
    changes: dict[str, Any], word: str
) -> None:
    arguments: dict[str, Any] = {"coin": "BTC", "side": Side.BUY, "px": 1, "sz": 1}
    with pytest.raises(TypeError, match=word):
        Order(**arguments | changes)


def test_an_empty_coin_is_refused() -> None:
    with pytest.raises(InvalidOrder, match="coin"):
        Order("", Side.BUY, 1, 1)


def test_a_trigger_order_has_no_tif() -> None:
    with pytest.raises(InvalidOrder, match="leave it out"):
        Order("BTC", Side.SELL, 1, 1, Tif.IOC, Trigger(1, Tpsl.SL))


def test_size_zero_is_for_reduce_only_triggers_alone() -> None:
    assert Order("BTC", Side.SELL, 1, 0, trigger=Trigger(1, Tpsl.SL), reduce_only=True).sz == 0
    refused: list[dict[str, Any]] = [{"reduce_only": True}, {"trigger": Trigger(1, Tpsl.SL)}]
    for changes in refused:
        with pytest.raises(InvalidOrder, match="sz must be above zero"):
            Order("BTC", Side.SELL, 1, 0, **changes)


@pytest.mark.parametrize("changes", [{"tpsl": "tp"}, {"is_market": 1}])
def test_a_trigger_refuses_what_is_of_the_wrong_kind(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(changes))):
        arguments: dict[str, Any] = {"px": 1, "tpsl": Tpsl.TP}
        Trigger(**arguments | changes)


FULL = Order(
    "xyz:TSLA",
    Side.SELL,
    px=Decimal("1.5"),
    sz="0.01",
    trigger=Trigger(2.5, Tpsl.TP, is_market=False),
    reduce_only=True,
    cloid=Cloid(255),
)
VALUES = [FULL, Order("BTC", Side.BUY, 98450, "0.01", Tif.ALO), Trigger(1, Tpsl.SL), Cloid(1), Priority(5)]
VALUES += [Builder("0x" + "ab" * 20, 10)]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_values_are_frozen_hashable_and_print_as_they_are_written(value: Any) -> None:
    again = eval(repr(value), {**vars(hlconn), "Decimal": Decimal})
    assert again == value
    assert hash(again) == hash(value)
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == dataclasses.replace(value) == value
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)
    assert not hasattr(value, "__dict__")


def test_an_order_prints_without_what_is_at_its_default() -> None:
    text = "Order('BTC', Side.BUY, px=98450, sz='0.01', tif=Tif.ALO)"
    assert repr(Order("BTC", Side.BUY, px=98450, sz="0.01", tif=Tif.ALO)) == text


def test_the_hand_written_init_has_the_fields_in_their_order_with_their_defaults() -> None:
    given_all = ("BTC", Side.SELL, 1, 2, Tif.GTC, Trigger(1, Tpsl.SL), True, Cloid(1))
    assert dataclasses.astuple(dataclasses.replace(Order(*given_all), trigger=None)) == (
        *given_all[:5],
        None,
        True,
        (1,),
    )
    plain = Order("BTC", Side.SELL, 1, 2)
    assert [getattr(plain, f.name) for f in dataclasses.fields(Order)[4:]] == [
        f.default for f in dataclasses.fields(Order)[4:]
    ]


def test_enums_hold_the_venues_words() -> None:
    assert [*Tif, *Tpsl, *Grouping] == ["Alo", "Ioc", "Gtc", "tp", "sl", "na", "normalTpsl", "positionTpsl"]


@given(st.integers(1, 2**128 - 1))
def test_a_cloid_is_the_same_from_a_number_from_hex_and_from_bytes(number: int) -> None:
    cloid = Cloid(number)
    assert int(cloid) == cloid.value == number
    assert cloid.hex == f"0x{number:032x}"
    same = {
        cloid,
        Cloid(cloid.hex),
        Cloid.from_hex("0x" + cloid.hex[2:].upper()),
        Cloid.from_bytes(number.to_bytes(16, "big")),
    }
    assert same == {cloid}
    assert cloid.hex in repr(cloid)


@pytest.mark.parametrize(
    "text",
    ["", "0x", "0x" + "1" * 31, "0x" + "1" * 33, "1" * 32, "0X" + "1" * 32, "0x" + "g" * 32, "0x" + "1" * 32 + "\n"],
)
def test_cloid_text_is_0x_and_exactly_32_hex_digits(text: str) -> None:
    with pytest.raises(InvalidOrder, match="32 hex digits"):
        Cloid(text)


@pytest.mark.parametrize("number", [0, -1, 2**128])
def test_a_cloid_is_never_zero_and_fits_128_bits(number: int) -> None:
    with pytest.raises(InvalidOrder, match="zero would be taken for no cloid"):
        Cloid(number)
    with pytest.raises(InvalidOrder):
        Cloid.from_bytes(bytes(16))
    with pytest.raises(InvalidOrder, match="16 bytes, not 15"):
        Cloid.from_bytes(bytes(15))


@pytest.mark.parametrize("value", [True, 1.0, None, b"1" * 16])
def test_a_cloid_is_made_from_an_int_or_a_str(value: Any) -> None:
    with pytest.raises(TypeError):
        Cloid(value)
    with pytest.raises(TypeError):
        Cloid.from_hex(value)


def test_fresh_cloids_differ_and_are_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({Cloid.new() for _ in range(10_000)}) == 10_000
    monkeypatch.setattr("os.urandom", bytes)
    assert int(Cloid.new()) == 1


def test_a_builder_keeps_its_address_in_lower_case() -> None:
    assert Builder("0x" + "AB" * 20, 1000) == Builder("0x" + "ab" * 20, 1000)


@pytest.mark.parametrize(
    ("kind", "arguments", "error"),
    [
        (Builder, ("0x" + "a" * 39, 1), InvalidOrder),
        (Builder, ("0x" + "a" * 40 + "\n", 1), InvalidOrder),
        (Builder, (b"0x", 1), TypeError),
        (Builder, ("0x" + "a" * 40, 1001), InvalidOrder),
        (Builder, ("0x" + "a" * 40, -1), InvalidOrder),
        (Builder, ("0x" + "a" * 40, 1.0), TypeError),
        (Priority, (100_000_001,), InvalidOrder),
        (Priority, (-1,), InvalidOrder),
        (Priority, (True,), TypeError),
    ],
)
def test_builder_and_priority_refuse_what_the_venue_would(kind: Any, arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        kind(*arguments)


def test_errors_survive_pickling_with_their_fields() -> None:
    for kind in (InvalidOrder, UnknownCoin):
        again = pickle.loads(pickle.dumps(kind("px 1 is wrong", ("0.9", "1.1"))))
        assert (type(again), str(again), again.nearest) == (kind, "px 1 is wrong", ("0.9", "1.1"))
