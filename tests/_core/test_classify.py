"""Venue text to ErrorCode: each known text and status, overlaps, and an oracle of ten lines."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from venue_texts import STATUSES, TEXTS

from hlconn import ErrorCode, classify, classify_status
from hlconn._core import classify_table as table

LOOKED_AT = 4096


def oracle(text: str | bytes) -> ErrorCode:
    text = text[:LOOKED_AT]
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    text = text.lower()  # of bytes: ASCII letters alone
    for part, code in table.PARTS:
        if part.encode() in text:
            return code
    for status, code in table.STATUSES.items():
        if len(status) >= table.MIN_PART and status.lower().encode() in text:
            return code
    return ErrorCode.UNKNOWN


@pytest.mark.parametrize(("text", "code"), TEXTS)
def test_each_known_text_has_its_code(text: str, code: ErrorCode) -> None:
    spellings = [text, f"{text} asset=5", f"{text} asset=110003", f"L1 error: {text}", f"{text}\n", text.rstrip(".")]
    spellings += [f"{'x' * n}{text}{'y' * n}" for n in range(1, 9)]
    for spelling in spellings:
        for cased in (spelling, spelling.upper(), spelling.lower(), spelling.swapcase()):
            assert classify(cased) is code, cased
            assert classify(cased.encode()) is code, cased
            assert classify(f"\u00e9{cased}\u00e9") is code  # one byte a character, not ASCII
            assert classify(f"\u20ac{cased}") is code  # two
            assert classify(f"\U0001f4a5{cased}") is code  # four


@pytest.mark.parametrize(("status", "code"), STATUSES)
def test_each_order_status_has_its_code(status: str, code: ErrorCode) -> None:
    assert classify_status(status) is code
    assert classify(status) is (code if len(status) >= table.MIN_PART else ErrorCode.UNKNOWN)


def test_each_row_of_the_table_is_known_to_these_tests_and_can_win() -> None:
    tested = [text.lower() for text, _ in TEXTS]
    for part, code in table.PARTS:
        assert part == part.lower()
        assert classify(part) is code, f"{part!r} stands behind a part of itself with another code"
        assert any(part in text for text in tested), part
    assert {status for status, _ in STATUSES} == set(table.STATUSES)
    assert len({part for part, _ in table.PARTS}) == len(table.PARTS)


def test_each_code_but_those_of_shapes_has_words_or_a_status() -> None:
    of_shapes = {ErrorCode.UNKNOWN, ErrorCode.UNREADABLE, ErrorCode.BAD_REQUEST, ErrorCode.WRONG_PATH}
    of_shapes.add(ErrorCode.CONTENT_TYPE)
    said = {code for _, code in table.PARTS} | set(table.STATUSES.values())
    assert said | of_shapes == set(ErrorCode)
    assert not said & of_shapes


def test_of_two_parts_in_one_text_the_first_in_the_table_wins() -> None:
    for i, (first, code) in enumerate(table.PARTS):
        for second, _ in table.PARTS[i + 1 :]:
            assert classify(f"{first} | {second}") is classify(f"{second} | {first}") is code, (first, second)


def test_what_a_text_quotes_does_not_decide() -> None:
    for part, _ in table.PARTS:
        assert classify(f"Error parsing JSON into valid websocket request: {part}") is ErrorCode.MALFORMED
        if "parsing json" not in part and "deserialize" not in part:
            assert classify(f"Invalid subscription {part}") is ErrorCode.INVALID_SUBSCRIPTION


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("somethingNewRejected", ErrorCode.REJECTED),
        ("somethingNewCanceled", ErrorCode.CANCELED),
        ("somethingNewCancel", ErrorCode.CANCELED),
        ("TICKREJECTED", ErrorCode.UNKNOWN),
        ("somethingNew", ErrorCode.UNKNOWN),
        ("", ErrorCode.UNKNOWN),
        ("\ud800Rejected", ErrorCode.REJECTED),
    ],
)
def test_an_unknown_status_follows_its_suffix(status: str, code: ErrorCode) -> None:
    assert classify_status(status) is code


@pytest.mark.parametrize(
    "text", ["", "a", "no such words", " asset=5", "x" * 119, "Order must have", "insufficient", "\x00" * 64, "null"]
)
def test_unknown_words_are_unknown(text: str) -> None:
    assert classify(text) is ErrorCode.UNKNOWN
    assert classify(text.encode()) is ErrorCode.UNKNOWN


def test_bytes_that_differ_in_the_case_bit_alone_are_no_match() -> None:
    for text in ("invalid\x00tif", "invalid tp\x0fsl price", "agent valid\x7funtil", "invalid tif"[:-1] + "\xe6"):
        assert classify(text) is classify(text.encode("latin-1")) is ErrorCode.UNKNOWN
    assert classify("\u0130nvalid t\u0131f") is ErrorCode.UNKNOWN  # letters that only Unicode folds to i


def test_a_cut_text_never_matches_and_each_place_does() -> None:
    part, code = "market closed", ErrorCode.MARKET_CLOSED
    for before in range(40):
        text = "z" * before + part
        assert classify(text) is code
        assert classify(text[:-1]) is ErrorCode.UNKNOWN
    assert classify("z" * (LOOKED_AT - len(part)) + part) is code
    for text in ("z" * (LOOKED_AT - len(part) + 1) + part, "z" * 10_000_000 + part):
        assert classify(text) is classify(text.encode()) is classify(text + "\u20ac") is ErrorCode.UNKNOWN


@pytest.mark.parametrize("value", [None, 5, bytearray(b"invalid tif"), ["invalid tif"]])
def test_anything_but_str_and_bytes_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="str or bytes"):
        classify(value)  # type: ignore[arg-type]


def test_subclasses_of_str_and_bytes_are_read() -> None:
    assert classify(type("S", (str,), {})("Invalid TIF")) is ErrorCode.INVALID_TIF
    assert classify(type("B", (bytes,), {})(b"Invalid TIF")) is ErrorCode.INVALID_TIF


def test_a_call_allocates_nothing() -> None:
    import tracemalloc

    texts: list[str | bytes] = [*(text for text, _ in TEXTS), TEXTS[0][0] + "\u20ac", b"Invalid TIF", "z" * 5000]
    for text in texts:
        classify(text)
    tracemalloc.start()
    try:
        for text in texts:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            classify(text)
            assert tracemalloc.get_traced_memory()[1] - before < 64, text  # the tuple above
    finally:
        tracemalloc.stop()


WORDS = st.sampled_from(
    [part for part, _ in table.PARTS]
    + [text for text, _ in TEXTS]
    + [status for status, _ in STATUSES]
    + [word for part, _ in table.PARTS for word in re.findall(r"\S+ ?", part)]
)


@st.composite
def mixtures(draw: st.DrawFn) -> str:
    """Parts, words and noise, cut and joined anywhere, with some characters replaced."""
    pieces = draw(st.lists(st.one_of(WORDS, st.text(max_size=6)), max_size=8))
    text = draw(st.sampled_from(["", " "])).join(
        piece[draw(st.integers(0, 3)) : len(piece) - draw(st.integers(0, 2))] if draw(st.booleans()) else piece
        for piece in pieces
    )
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.characters()) + text[at + draw(st.integers(0, 1)) :]
    return text.swapcase() if draw(st.booleans()) else text


@given(mixtures())
def test_mixtures_agree_with_the_oracle(text: str) -> None:
    assert classify(text) is oracle(text)
    raw = text.encode("utf-8", "surrogatepass")
    assert classify(raw) is oracle(raw)


@given(st.one_of(st.text(), st.binary()))
def test_whatever_comes_has_a_code(text: str | bytes) -> None:
    assert classify(text) is oracle(text)


@given(st.text())
def test_whatever_status_comes_has_a_code(status: str) -> None:
    assert isinstance(classify_status(status), ErrorCode)
