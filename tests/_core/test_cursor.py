"""cursor.pxd, through the doors that codec leaves open to tests: decimal(), read(), route_of()."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from decimal import Decimal
from random import Random

import captures
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oracles import DECIMAL

from hlconn import DecodeError
from hlconn._core import codec


def bits(x: float) -> bytes:
    return struct.pack("<d", x)


def refused(call: Callable[[], object]) -> DecodeError:
    with pytest.raises(DecodeError) as info:
        call()
    return info.value


def same_as_float(text: str) -> None:
    """`text` by every way into the core: alone, in quotes with much and with little behind it, bare."""
    want = bits(float(text))
    assert bits(codec.decimal(text.encode())) == want, text
    size = len(text)
    for after in (b"", b",", b' ,"sz":"1.0","n":1}' * 3):
        value, used = codec.read("decimal", b'"' + text.encode() + b'"' + after)
        assert isinstance(value, float)
        assert (bits(value), used) == (want, size + 2), text
        if text.lstrip("-")[0] != "0" or text.lstrip("-")[1:2] in ("", ".", "e", "E"):  # JSON: no leading zeros
            value, used = codec.read("decimal", b" " + text.encode() + after)
            assert isinstance(value, float)
            assert (bits(value), used) == (want, size + 1), text


# --- decimals -----------------------------------------------------------------------------------------------------

some_digits = st.text("0123456789", min_size=1, max_size=25)
exponents = st.one_of(st.integers(-340, 320), st.integers(-5000, 5000)).map(str) | st.sampled_from(["+0", "-0", "+308"])
decimals = st.builds(
    lambda sign, whole, part, exponent: sign + whole + part + exponent,
    st.sampled_from(["", "", "-"]),
    some_digits,
    st.just("") | some_digits.map(lambda d: "." + d),
    st.just("") | st.builds(lambda e, x: e + x, st.sampled_from("eE"), exponents),
)
floats = st.floats(allow_nan=False, allow_infinity=False)


@given(decimals)
@example("3096053627.5618200302")
@example("9007199254740993")  # halfway between two doubles
@example("9007199254740992")
@example("9007199254740993.0")
@example("9007199254740993.00000000000000000001")
@example("0.1")
@example("-0.0")
@example("0")
@example("-0")
@example("0000001.50")
@example("1e22")
@example("1e23")
@example("8.5e22")
@example("123456789012345678")
@example("999999999999999999")
@example("9999999999999999999")
@example("18446744073709551615")
@example("18446744073709551616")
@example("0.000000000000000000000001")
@example("2.2250738585072014e-308")
@example("2.2250738585072011e-308")  # the one that once hung PHP and Java
@example("4.9e-324")
@example("2.4703282292062327e-324")  # just under half the smallest double
@example("2.4703282292062328e-324")
@example("1.7976931348623157e308")
@example("1.7976931348623159e308")
@example("1e5000")
@example("1e-5000")
@example("-1.0")
@example("-1.00000000000000000000000000")  # what PyOS_string_to_double also returns for an error
def test_a_decimal_is_bit_for_bit_pythons_float(text: str) -> None:
    same_as_float(text)


@given(floats)
def test_every_double_comes_back_from_its_shortest_text(x: float) -> None:
    text = repr(x)
    if text[-1] != "." and DECIMAL.fullmatch(text):
        same_as_float(text)
    same_as_float(f"{x:.17e}")


@given(st.floats(min_value=0, allow_infinity=False), st.integers(-3, 3))
def test_texts_at_and_beside_the_middle_of_two_doubles_round_as_float_does(x: float, nudge: int) -> None:
    following = struct.unpack("<d", struct.pack("<q", struct.unpack("<q", bits(x))[0] + 1))[0]
    if following == float("inf"):
        return
    middle = (Decimal(x) + Decimal(following)) / 2
    text = f"{middle:f}"
    if len(text) < 200:  # exact; then a digit far behind the middle decides
        same_as_float(text)
        same_as_float((text if "." in text else text + ".") + "0" * 10 + str(nudge % 10))


@pytest.mark.parametrize("whole", range(22))
@pytest.mark.parametrize("part", range(26))
def test_every_length_of_both_parts_is_read_exactly(whole: int, part: int) -> None:
    if whole + part == 0:
        return
    rng = Random(100 * whole + part)
    for _ in range(12):
        text = "".join(rng.choice("0123456789") for _ in range(whole)) or "0"
        if part:
            text += "." + "".join(rng.choice("0123456789") for _ in range(part))
        same_as_float(text)
        same_as_float(text.replace("0", "9"))
        same_as_float("-" + text)


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "+", ".", "-.", "e", "e5", "1.", "-1.", ".5", "-.5", "+1", "1..2", "1.2.3", "1e", "1e+", "1e-", "1E",
        "1e1.5", "1e1e1", "--1", "1-", "-e1", "1.e5", ".e5", "1_0", "1,0", " 1", "1 ", "\t1", "1\n", "inf", "-inf",
        "Infinity", "nan", "NaN", "0x10", "1f", "1d", "1L", "1\0", "\0", "1e5\0", "1.5\x002", "½", "\u0661", "1/2",
        "1:", "true", "null", "1e 5", "1 e5", "12345678a", "1234567.a", "1234567.1234567a", "1.12345678:", "1e+-5",
    ],
)  # fmt: skip
def test_what_is_no_decimal_is_refused_even_where_float_would_take_it(text: str) -> None:
    raw = text.encode()
    refused(lambda: codec.decimal(raw))
    if "\\" not in text and '"' not in text:
        for after in (b"", b"," + 40 * b" "):
            refused(lambda after=after: codec.read("decimal", b'"' + raw + b'"' + after))  # type: ignore[misc]


@given(st.text("0123456789.eE+-", max_size=12))
def test_texts_of_a_decimals_characters_are_accepted_exactly_when_they_are_decimals(text: str) -> None:
    if DECIMAL.fullmatch(text):
        same_as_float(text)
    else:
        refused(lambda: codec.decimal(text.encode()))


def test_a_decimal_text_may_have_256_bytes_and_not_one_more() -> None:
    same_as_float("1." + 253 * "3" + "7")
    same_as_float("-" + 255 * "9")
    same_as_float(253 * "0" + "1.5")
    assert "longer" in refused(lambda: codec.decimal(257 * b"1")).reason
    error = refused(lambda: codec.read("decimal", b'  "' + 257 * b"1" + b'"'))
    assert (error.offset, "longer" in error.reason) == (2, True)
    assert codec.read("decimal", b'"\\u0031' + 255 * b"0" + b'"') == (float("1" + 255 * "0"), 263)
    refused(lambda: codec.read("decimal", b'"\\u0031' + 256 * b"0" + b'"'))


def test_escapes_in_a_decimal_are_read_through() -> None:
    assert codec.read("decimal", b'"\\u0031\\u002e5"') == (1.5, 15)
    assert codec.read("decimal", b'"1\\u0065+2" ') == (100.0, 11)
    refused(lambda: codec.read("decimal", b'"1\\n"'))
    refused(lambda: codec.read("decimal", b'"1\\ud800"'))


@pytest.mark.parametrize("text", [b'"1.5"', b"1.5", b'"12345678.87654321"', b'"1e5"', b"  7  "])
def test_a_decimal_cut_short_is_refused_or_is_a_shorter_number(text: bytes) -> None:
    for cut in range(len(text)):
        if b'"' in text or not text[:cut].strip() or text[:cut].endswith(b"."):
            assert refused(lambda cut=cut: codec.read("decimal", text[:cut])).offset <= cut  # type: ignore[misc]
        else:
            assert codec.read("decimal", text[:cut])[0] == float(text[:cut])


# --- integers -----------------------------------------------------------------------------------------------------


@given(st.integers(-(10**18) + 1, 10**18 - 1), st.sampled_from([b"", b",", b"}" + 40 * b" ", b' ,"n":1']))
@example(0, b"")
@example(10**18 - 1, b"}" + 40 * b" ")
@example(-(10**18) + 1, b"}" + 40 * b" ")
@example(12345678, 30 * b" ")
@example(1234567812345678, 30 * b" ")
def test_an_integer_of_up_to_18_digits_is_read_exactly(value: int, after: bytes) -> None:
    text = b" \t" + str(value).encode()
    assert codec.read("integer", text + after) == (value, len(text))


@pytest.mark.parametrize("after", [b"", b"," + 40 * b" "])
@pytest.mark.parametrize("text", [b"1000000000000000000", b"-1000000000000000000", b"9" * 19, b"9" * 24, b"1" * 60])
def test_an_integer_of_19_digits_is_over_the_limit(text: bytes, after: bytes) -> None:
    error = refused(lambda: codec.read("integer", b" " + text + after))
    assert "longer" in error.reason
    assert error.offset == 1 + text.startswith(b"-")


@pytest.mark.parametrize("after", [b"", b"," + 40 * b" "])
@pytest.mark.parametrize(
    "text",
    [b"", b"-", b"+1", b"01", b"00", b"-01", b"1.0", b"1e3", b"1E3", b"1.", b"x1", b'"1"', b"true", b"null", b"a"],
)
def test_what_is_no_json_integer_is_refused(text: bytes, after: bytes) -> None:
    refused(lambda: codec.read("integer", text + after))


def test_minus_zero_is_the_integer_zero() -> None:
    assert codec.read("integer", b"-0") == (0, 2)


# --- strings ------------------------------------------------------------------------------------------------------


@given(st.text(max_size=64), st.booleans())
@example('\\"/\b\f\n\r\t\x1f\x7f', True)
@example("\N{ROCKET}\u0800\u07ff\uffff\x80", True)
def test_a_string_is_what_json_says_it_is(text: str, ascii_only: bool) -> None:
    raw = json.dumps(text, ensure_ascii=ascii_only).encode()
    if len(text.encode()) > 64 and "\\" in raw.decode():
        refused(lambda: codec.read("string", raw))  # more than a name may have
    else:
        assert codec.read("string", raw + b" tail") == (text.encode(), len(raw))


@pytest.mark.parametrize("text", [64 * "a", 62 * "a" + "é", 61 * "a" + "€", 60 * "a" + "\N{ROCKET}"])
def test_an_escaped_name_may_be_as_long_as_a_plain_one(text: str) -> None:
    for at in (0, 30, len(text) - 1):
        char = "\\u0061" if text[at] == "a" else json.dumps(text[at])[1:-1]
        raw = text[:at] + char + text[at + 1 :]
        assert codec.read("string", f'"{raw}"'.encode())[0] == text.encode()
        refused(lambda raw=raw: codec.read("string", f'"{raw}b"'.encode()))  # type: ignore[misc]
        message = f'{{"channel":"bbo","data":{{"coin":"{raw}","time":1,"bbo":[null,null]}}}}'
        assert codec.route_of(message.encode()) == ("bbo", text)


@pytest.mark.parametrize(
    "raw",
    [
        b"a", b'"', b"'a'", rb'"\"', rb'"abc', b'"a\nb"', b'"a\0b"', b'"a\x1fb"', b'"' + 17 * b"a" + b"\1aaa" + b'a"',
        rb'"\u12"', rb'"\u12g4"', rb'"\u"', rb'"\x41"', rb'"\a"', rb'"\U0041"', b'"' + 20 * b"a",
        b'"' + 20 * b"a" + b"\\", rb'"\ud800"', rb'"\ud800x"', rb'"\udc00"', rb'"\ud800\ud800"', rb'"\ud800\n12345"',
        rb'"\ud83d\u0041"',
    ],
)  # fmt: skip
def test_what_is_no_string_is_refused(raw: bytes) -> None:
    refused(lambda: codec.read("string", raw))


@given(st.binary(max_size=40))
def test_a_string_ends_at_the_first_quote_that_is_not_escaped(inside: bytes) -> None:
    raw = b'"' + inside + b'"'
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            value, used = codec.read("string", raw)
        except DecodeError:
            return
        # accepted all the same: it ends early, or it is not UTF-8
        assert isinstance(value, bytes)
        assert used < len(raw) or b"\\" in inside or value == inside
        assert used < len(raw) or inside.decode("utf-8", "replace").encode() != inside
    else:
        if b"\\" in inside and len(value.encode()) > 64:
            return
        assert codec.read("string", raw) == (value.encode(), len(raw))


# --- any value ----------------------------------------------------------------------------------------------------


def accepts(text: bytes) -> bool:
    """Whether the whole text is one value, to the cursor's mind."""
    try:
        value, used = codec.read("value", text)
    except DecodeError as error:
        assert 0 <= error.offset <= len(text)  # noqa: PT017
        assert error.excerpt == text[error.offset : error.offset + 80]  # noqa: PT017
        return False
    assert value is None
    return not text[used:].strip(b" \n\r\t")


def is_json(text: bytes) -> bool:
    """orjson's opinion, but for what the cursor does not look at in what it skips, on purpose: whether strings are
    UTF-8 (replaced here), whether \\ud800 has its other half, and whether a number fits a double."""
    try:
        orjson.loads(text.decode("utf-8", "replace"))
    except orjson.JSONDecodeError as exc:
        if "surrogate" in str(exc) or "infinity" in str(exc):
            try:
                json.loads(text.decode("utf-8", "replace"), parse_constant=lambda _: 1 / 0)
            except (ValueError, ZeroDivisionError):
                return False
            return True
        return False
    return True


values = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(values, st.integers(0, 2**32))
def test_any_json_value_is_skipped_to_its_end(value: object, seed: int) -> None:
    rng = Random(seed)
    plain = json.dumps(value).encode()
    assert codec.read("value", plain) == (None, len(plain))
    assert accepts(captures.respell(plain, rng))


@given(values, st.integers(0, 2**32))
def test_damaged_json_is_accepted_exactly_when_orjson_accepts_it(value: object, seed: int) -> None:
    rng = Random(seed)
    plain = captures.respell(json.dumps(value, ensure_ascii=False).encode(), rng)
    for _ in range(8):
        text = captures.damaged(plain, rng)
        assert accepts(text) == is_json(text), text


def test_every_cut_of_a_document_is_accepted_exactly_when_it_is_json() -> None:
    document = b' {"a" : [1.5e-3,-0,true,false,null,"\\u00e9\\n",{}, [ ] ,{"b":{"c":[[[7]]]}}],"d":"x"} '
    for cut in range(len(document) + 1):
        assert accepts(document[:cut]) == (cut >= len(document) - 1), cut
    for start in range(len(document)):
        assert accepts(document[start:]) == is_json(document[start:]), start


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"01", b"-", b"1.", b".1", b"1e", b"+1", b"-01", b"1e+", b"tru", b"True", b"nul", b"falsy", b"NaN",
     b"Infinity", b"-Infinity", b"[1,]", b"[,1]", b"[1 2]", b"[1", b"]", b"[}", b"{]", b'{"a"}', b'{"a":}', b'{"a":1,}',
     b'{,"a":1}', b'{"a" 1}', b"{a:1}", b"{1:1}", b"'a'", b'{"a":1 "b":2}', b'{"a":1}}', b"[1]]", b"1 2",
     b"\xef\xbb\xbf1", b'"a', b'"\t"', b"/**/1", b"\x0c1", b"\xa01"],
)  # fmt: skip
def test_what_is_not_json_is_refused(text: bytes) -> None:
    assert not accepts(text)
    assert not is_json(text)


@pytest.mark.parametrize("text", [b'"\xff\xfe"', rb'"\ud800"', b"1e999", b'{"a":1,"a":2}'])
def test_what_a_skipped_value_may_be_although_orjson_might_refuse_it(text: bytes) -> None:
    assert accepts(text)


@pytest.mark.parametrize(
    ("begin", "end"), [(b"[", b"]"), (b'{"k":', b"}"), (b'[{"k":', b"}]"), (b'[1,[],{"k":[', b"]}]")]
)
@pytest.mark.parametrize("inner", [b"1", b"", b"[]", b"{}", b'"x"'])
def test_nesting_is_taken_to_64_and_not_to_65(begin: bytes, end: bytes, inner: bytes) -> None:
    inner = b"1" if not inner and begin.endswith(b":") else inner
    per = begin.count(b"[") + begin.count(b"{") - begin.count(b"[]")
    own = inner in (b"[]", b"{}")
    most = (64 - own) // per
    assert accepts(most * begin + inner + most * end)
    if most * per + own == 64:
        outer = b"[" + most * begin + inner + most * end + b"]"
        assert "deeper" in refused(lambda: codec.read("value", outer)).reason
    assert "deeper" in refused(lambda: codec.read("value", (most + 1) * begin + inner + (most + 1) * end)).reason
    assert "deeper" in refused(lambda: codec.read("value", 100_000 * begin)).reason


@pytest.mark.parametrize("spell", [lambda keys: "".join(keys), lambda keys: "".join(reversed(keys))])
def test_which_brackets_are_open_is_known_at_every_depth(spell: Callable[[list[str]], str]) -> None:
    rng = Random(5)
    for _ in range(200):
        kinds = [rng.choice("[{") for _ in range(64)]
        text = "".join("[" if k == "[" else '{"":' for k in kinds) + "0"
        closing = ["]" if k == "[" else "}" for k in reversed(kinds)]
        assert accepts((text + "".join(closing)).encode())
        wrong = rng.randrange(64)
        closing[wrong] = "]" if closing[wrong] == "}" else "}"
        assert not accepts((text + "".join(closing)).encode())


def test_read_knows_four_kinds_of_things() -> None:
    with pytest.raises(ValueError, match="must be decimal"):
        codec.read("float", b"1")  # type: ignore[arg-type]
