"""codec.pyx: one message at a time, against orjson and float, in every spelling, cut and corrupted at every byte.

Messages reach the core as exact-size heap memory (`captures.exact`): the sanitized build sees a read past the end.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import captures
import numpy as np
import oracles
import pytest
from captures import COINS, T0, exact
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hlconn import Book, DecodeError, Feed
from hlconn._core import book as book_module
from hlconn._core import codec
from hlconn.types import TRADE_DTYPE, TRADE_USERS_DTYPE

pytestmark = pytest.mark.usefixtures("reader")

SLOW = captures.example("slow")


def state(book: Book) -> tuple[Any, ...]:
    """Everything that a message that is refused must not change."""
    raw = (book.px, book.sz, book.n, book.count, book.changed)
    numbers = (book.seq, book.time_ms, book.recv_ns, book.beyond, book.times_ms, book.grade)
    return tuple(a.tobytes() for a in raw), numbers


def assert_arrays(book: Book, want: oracles.Arrays) -> None:
    for name in ("px", "sz", "n", "count"):
        have: NDArray[Any] = getattr(book, name)
        np.testing.assert_array_equal(have, getattr(want, name), err_msg=name)
    # bit for bit: also the sign of zero
    assert book.sz.tobytes() == want.sz.tobytes()
    assert book.beyond == want.beyond


def assert_shows(message: bytes, book: Book) -> None:
    """A book without history shows exactly what the message says."""
    read = oracles.read_book(message)
    assert_arrays(book, oracles.arrays(read.sides, book.depth))
    assert book.time_ms == read.time_ms
    assert list(book.times_ms) == [read.feed]


def refused(book: Book, message: bytes, view: memoryview | None = None) -> DecodeError:
    before = state(book)
    with pytest.raises(DecodeError) as info:
        book.apply(exact(message) if view is None else view)
    assert state(book) == before
    error = info.value
    assert 0 <= error.offset <= len(message)
    assert message[error.offset :].startswith(error.excerpt)
    assert len(error.excerpt) <= 80
    return error


def decoded_trades(message: bytes, *, users: bool = False) -> tuple[str, NDArray[Any]]:
    """(coin, rows) as a Feed hands them out."""
    got: list[NDArray[Any]] = []
    feed = Feed(trade_users=users)
    coin = codec.route_of(message)[1]
    assert coin is not None
    if coin:
        feed.on_trades(coin, lambda rows: got.append(rows.copy()))
    feed.on_message(exact(message))
    return coin, got[0] if got else np.zeros(0, TRADE_USERS_DTYPE if users else TRADE_DTYPE)


def same_rows(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Bit for bit, but for the padding between the fields."""
    return a.dtype == b.dtype and all(a[f].tobytes() == b[f].tobytes() for f in a.dtype.names or ())


def assert_trades(message: bytes) -> None:
    for users in (False, True):
        coin, want = oracles.read_trades(message, users=users)
        got_coin, got = decoded_trades(message, users=users)
        assert got_coin == coin
        assert same_rows(got, want)


# --- the values ---------------------------------------------------------------------------------------------------

each_coin = pytest.mark.parametrize("coin", COINS, ids=[c.name for c in COINS])


@each_coin
@pytest.mark.parametrize("shape", captures.BOOK_SHAPES)
def test_a_book_message_is_read_as_orjson_and_float_read_it(shape: str, coin: captures.Coin) -> None:
    for seed in range(4):
        message = captures.example(shape, coin, seed)
        book = Book(coin.name, depth=160)
        assert book.apply(exact(message))
        assert_shows(message, book)


@each_coin
@pytest.mark.parametrize("shape", captures.TRADE_SHAPES)
def test_a_trades_message_is_read_as_orjson_and_float_read_it(shape: str, coin: captures.Coin) -> None:
    for seed in range(2):
        assert_trades(captures.example(shape, coin, seed))


@each_coin
@pytest.mark.parametrize("shape", captures.SHAPES)
def test_any_key_order_white_space_and_escapes_change_nothing(shape: str, coin: captures.Coin) -> None:
    message = captures.example(shape, coin)
    rng = Random(f"{shape} {coin.name}")
    for escapes in (False, True, True):
        other = captures.respell(message, rng, escapes=escapes)
        if shape in captures.TRADE_SHAPES:
            assert_trades(other)
            assert same_rows(oracles.read_trades(other)[1], oracles.read_trades(message)[1])
            continue
        plain, respelled = Book(coin.name, depth=160), Book(coin.name, depth=160)
        plain.apply(exact(message))
        respelled.apply(exact(other))
        assert state(plain) == state(respelled)
        assert_shows(message, respelled)


def level_text(px: str, sz: str, n: str) -> str:
    return f'{{"px":"{px}","sz":"{sz}","n":{n}}}'


def book_text(bids: list[str], asks: list[str], tail: str = "") -> bytes:
    levels = f"[[{','.join(bids)}],[{','.join(asks)}]]"
    return f'{{"channel":"l2Book","data":{{"coin":"BTC","time":1,"levels":{levels}{tail}}}}}'.encode()


@pytest.mark.parametrize("whole", range(1, 12))
@pytest.mark.parametrize("part", range(1, 12))
def test_every_length_of_px_and_sz_is_read_exactly_at_every_place(whole: int, part: int) -> None:
    rng = Random(31 * whole + part)

    def number(first: int) -> str:
        return str(first) + "".join(rng.choice("0123456789") for _ in range(whole - 1)) + "." + "".join(
            rng.choice("0123456789") for _ in range(part)
        )  # fmt: skip

    for _ in range(4):
        bids = [level_text(number(9 - i), number(rng.randint(0, 9)), str(10 ** (3 * i) - 1)) for i in range(4)]
        asks = [level_text("9" + number(1 + i), number(0), str(rng.getrandbits(3 + 18 * i))) for i in range(4)]
        message = book_text(bids, asks)
        book = Book("BTC")
        book.apply(exact(message))
        assert_shows(message, book)


@pytest.mark.parametrize("n", ["0", "1", "9", "10", "99", "100", "12345678", "123456789", "999999999999999999"])
def test_the_number_of_orders_is_read_at_every_length(n: str) -> None:
    message = book_text([level_text(f"{9 - i}.5", "1.0", n) for i in range(4)], [level_text("10.0", "0.0", n)])
    book = Book("BTC")
    book.apply(exact(message))
    assert_shows(message, book)
    assert book.n[0, 3] == int(n)


tame = st.builds(
    lambda whole, part, long: f"{whole}.{part}" + long,
    st.integers(0, 10**9).map(str) | st.integers(0, 9).map(str),
    st.text("0123456789", min_size=1, max_size=9),
    st.sampled_from(["", "", "", "", "00000000000000000001", "e2", "E-3"]),
)


@given(st.lists(st.tuples(tame, tame, st.integers(0, 10**12)), max_size=14), st.integers(0, 14), st.booleans())
def test_whatever_numbers_a_message_holds_it_is_read_or_refused_as_the_oracle_says(
    rows: list[tuple[str, str, int]], split: int, sort: bool
) -> None:
    bids, asks = rows[:split], rows[split:]
    if sort:
        order = sorted(rows, key=lambda r: float(r[0]))
        bids, asks = order[:split][::-1], order[split:]
    sides = [[level_text(px, sz, str(n)) for px, sz, n in side] for side in (bids, asks)]
    agree(Book("BTC", depth=7), book_text(sides[0], sides[1]))


# --- accepted or refused: the same opinion as the oracle's ----------------------------------------------------------


def agree(book: Book, message: bytes) -> None:
    """The book is what the oracle says, or it is refused by both and nothing has changed."""
    try:
        want = oracles.read_book(message)
        kind = want.aggregated or (book.aggregated and not all(want.sides))
        good = (want.coin, kind) == (book.coin, book.aggregated)
    except oracles.Refused:
        good = False
    before = state(book)
    try:
        book.mark_stale("to be read from nothing", restart=True)
        before = state(book)
        book.apply(exact(message))
    except DecodeError:
        assert not good, message
        assert state(book) == before
        assert book.stale
    else:
        assert good, message
        assert_shows(message, book)


INTERESTING = b'{}[],:"\\/0123459.eE+-ntfuc \n\t\x00\x1f\x7f\x80\xff'
SMALL = {
    "levels": book_text(
        [
            level_text("106000.5", "1.23456", "3"),
            level_text("105999.0", "0.5", "12"),
            level_text("105998.0", "33.0", "123"),
        ],
        [
            level_text("106001.0", "1.0", "1"),
            level_text("106002.5", "2.0", "2"),
            level_text("106003.0", "0.00001", "9"),
        ],
    ),
    "fast": book_text([level_text("1.5", "1.0", "1")], [level_text("1.6", "1.0", "1")], ',"fast":true'),
    "spread": book_text([level_text("1.5", "1.0", "1")], [], ',"spread":"0.1","x":[{"y":null}]'),
    "long": book_text([level_text("3096053627.5618200302", "0.000000000001", "100")], [level_text("1e30", "5", "0")]),
    "bbo": b'{"channel":"bbo","data":{"coin":"BTC","time":1,"bbo":[{"px":"1.5","sz":"2.0","n":3},null]}}',
    "sorted": b'{"data":{"bbo":[null,{"n":3,"px":"1.5","sz":"2.0"}],"coin":"\\u0042TC","time":17},"channel":"bbo"}',
}


@pytest.mark.parametrize("name", SMALL)
def test_every_byte_replaced_is_read_or_refused_as_the_oracle_says(name: str) -> None:
    message = SMALL[name]
    book = Book("BTC", depth=4, aggregated=name == "spread")
    agree(book, message)
    assert not book.stale or "bbo" in book.times_ms
    for at in range(len(message)):
        for byte in INTERESTING:
            agree(book, message[:at] + bytes([byte]) + message[at + 1 :])


@pytest.mark.parametrize("name", SMALL)
def test_every_byte_left_out_doubled_or_inserted_is_read_or_refused_as_the_oracle_says(name: str) -> None:
    message = SMALL[name]
    book = Book("BTC", depth=4, aggregated=name == "spread")
    for at in range(len(message)):
        agree(book, message[:at] + message[at + 1 :])
        agree(book, message[:at] + message[at : at + 1] + message[at:])
        for byte in b' ,"0}]':
            agree(book, message[:at] + bytes([byte]) + message[at:])


@given(st.sampled_from(captures.BOOK_SHAPES), st.integers(0, 2**32))
def test_damaged_messages_are_read_or_refused_as_the_oracle_says(shape: str, seed: int) -> None:
    rng = Random(seed)
    message = captures.example(shape)
    if rng.random() < 0.5:
        message = captures.respell(message, rng)
    for _ in range(4):
        other = captures.damaged(message, rng)
        if not twice(other):
            agree(Book("BTC", depth=7), other)


def twice(message: bytes) -> bool:
    """Whether some object says a key twice: orjson takes the last, the core refuses some of these on purpose."""
    found = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found = found or len({k for k, _ in pairs}) < len(pairs)
        return dict(pairs)

    try:
        json.loads(message.decode("utf-8", "replace"), object_pairs_hook=look)
    except ValueError:
        return False
    return found


@pytest.mark.parametrize("shape", captures.BOOK_SHAPES)
@pytest.mark.parametrize("spelling", ["today's", "another"])
def test_a_cut_message_leaves_the_previous_book_and_marks_it_stale(shape: str, spelling: str) -> None:
    message = captures.example(shape, time_ms=T0 + 1)
    if spelling == "another":
        message = captures.respell(message, Random(shape)).rstrip()
    book = Book("BTC")
    for cut in range(0, len(message), 5 if shape == "deep" else 1):
        book.apply(SLOW)
        assert not book.stale
        error = refused(book, message[:cut])
        assert book.stale
        # the same with the rest of the message in memory behind it: what is there is not looked at
        seen = refused(book, message[:cut], memoryview(message)[:cut])
        assert (seen.offset, seen.reason) == (error.offset, error.reason)
        assert error.offset <= cut
        assert book.stale_reason == "bad message"
    assert book.apply(exact(message))


@pytest.mark.parametrize("shape", captures.TRADE_SHAPES)
@pytest.mark.parametrize("users", [False, True])
def test_a_cut_trades_message_reaches_nobody(shape: str, users: bool) -> None:
    got: list[int] = []
    feed = Feed(trade_users=users)
    feed.on_trades("BTC", lambda rows: got.append(len(rows)))
    message = captures.example(shape)
    step = max(1, len(message) // 1000)
    for cut in range(0, len(message), step):
        for view in (exact(message[:cut]), memoryview(message)[:cut]):
            try:
                feed.on_message(view)
            except DecodeError as error:
                assert error.offset <= cut  # noqa: PT017
            else:
                assert b"[]" in message  # an empty array is nobody's: what follows it is not looked at
    assert not got
    feed.on_message(exact(message))
    assert got == ([] if shape == "no trades" else [oracles.read_trades(message)[1].size])


TRADE = b'{"coin":"BTC","side":"A","px":"1.5","sz":"2.0","time":17,"hash":"0x00","tid":123,"users":["0xa","0xb"]}'
TRADES = b'{"channel":"trades","data":[' + TRADE + b"," + TRADE.replace(b'"A"', b'"B"').replace(b"123", b"124") + b"]}"


def agree_on_trades(message: bytes) -> None:
    want: NDArray[Any] | None
    try:
        coin, want = oracles.read_trades(message, users=True)
        want = oracles.once(want) if coin == "BTC" else None
    except oracles.Refused:
        want = None
    got: list[NDArray[Any]] = []
    feed = Feed(trade_users=True)
    feed.on_trades("BTC", lambda rows: got.append(rows.copy()))
    try:
        feed.on_message(exact(message))
    except DecodeError:
        assert want is None, message
        assert not got
    else:
        if want is None:
            assert not got, message
        else:
            assert same_rows(got[0], want), message


def test_every_byte_of_trades_replaced_is_read_or_refused_as_the_oracle_says() -> None:
    agree_on_trades(TRADES)
    for at in range(len(TRADES)):
        for byte in INTERESTING:
            other = TRADES[:at] + bytes([byte]) + TRADES[at + 1 :]
            if b"users" not in other.replace(b"users", b"", 1) or byte < 0x80:
                agree_on_trades(other)


# --- the envelope -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (b'{"channel":"pong"}', ("pong", None)),
        (b' { "channel" : "pong" } ', ("pong", None)),
        (b'{"channel":""}', ("", None)),
        (b'{"data":[1,{"channel":"x"}],"channel":"y"}', ("y", None)),
        (b'{"channel":"bbo","data":{"coin":"ETH"', ("bbo", "ETH")),  # routing reads no further than it must
        (b'{"data":{"time":1,"coin":"ETH","x":[]},"channel":"l2Book"}', ("l2Book", "ETH")),
        (b'{"data":{"time":1,"coin":"ETH"},"channel":"\\u006c2Book"}', ("l2Book", "ETH")),
        (b'{"channel":"trades","data":[{"coin":"@107"', ("trades", "@107")),
        (b'{"channel":"trades","data":[{"px":"1","coin":"@107"', ("trades", "@107")),
        (b'{"channel":"trades","data":[]}', ("trades", "")),
        (b'{"channel":"trades" , "data" : [ ] }', ("trades", "")),
        (b'{"channel":"tradesX","data":[1]}', ("tradesX", None)),
        (b'{"channel":"l2book","data":[1]}', ("l2book", None)),
        ('{"channel":"bbo","data":{"coin":"ŁÓDŹ"'.encode(), ("bbo", "ŁÓDŹ")),
        (b'{"channel":"bbo","data":{"coin":"\\ud83d\\ude80/\\/"', ("bbo", "\N{ROCKET}//")),
        (b'{"channel":"l2Book","data":{"coin":"' + 64 * b"c" + b'"', ("l2Book", 64 * "c")),
        (b'{"channel":"' + 64 * b"c" + b'"}', (64 * "c", None)),
    ],
)
def test_a_message_is_routed_by_its_channel_and_coin(message: bytes, want: tuple[str, str | None]) -> None:
    assert codec.route_of(message) == want


@pytest.mark.parametrize(
    ("message", "channel", "offset", "reason"),
    [
        (b"", "", 0, "shape"),
        (b"hello", "", 0, "shape"),
        (b"{}", "", 1, "shape"),
        (b"[]", "", 0, "shape"),
        (b"null", "", 0, "shape"),
        (b'{"data":1}', "", 10, "missing"),
        (b'{"channel":1}', "", 11, "shape"),
        (b'{"channel":"pong"', "pong", 17, "shape"),
        (b'{"channel":"pong"}x', "pong", 18, "shape"),
        (b'{"channel":"pong",}', "pong", 18, "shape"),
        (b'{"channel":"pong","channel":"pong"}', "pong", 28, "shape"),
        (b'{"channel":"pong","data":1,"data":2}', "pong", 34, "shape"),
        (b'{"channel":"x","data":[1,2}', "x", 26, "shape"),
        (b'{"channel":"bbo"}', "bbo", 17, "missing"),
        (b'{"channel":"bbo","data":null}', "bbo", 24, "shape"),
        (b'{"channel":"bbo","data":[]}', "bbo", 24, "shape"),
        (b'{"channel":"bbo","data":{}}', "bbo", 25, "missing"),
        (b'{"channel":"bbo","data":{"time":1}}', "bbo", 33, "missing"),
        (b'{"channel":"bbo","data":{"coin":7}}', "bbo", 32, "shape"),
        (b'{"channel":"trades","data":{}}', "trades", 27, "shape"),
        (b'{"channel":"trades","data":[[]]}', "trades", 28, "shape"),
        (b'{"channel":"bbo","data":{"coin":"' + 65 * b"c" + b'"}}', "bbo", 99, "longer"),
        (b'{"channel":"' + 65 * b"c" + b'"}', 65 * "c", 78, "longer"),
        (b'{"channel":"x","data":' + 65 * b"[" + 65 * b"]" + b"}", "x", 86, "deeper"),
    ],
)
def test_an_envelope_that_cannot_be_read_says_where_and_why(
    message: bytes, channel: str, offset: int, reason: str
) -> None:
    with pytest.raises(DecodeError) as info:
        codec.route_of(message)
    error = info.value
    assert (error.channel, error.offset, error.excerpt) == (channel, offset, message[offset : offset + 80])
    assert reason in error.reason
    assert f"at byte {offset}" in str(error)
    assert ("the end of the message" in str(error)) == (offset == len(message))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"time":1,', b"", "missing"),
        (b'"time":1', b'"time":1.5', "shape"),
        (b'"time":1', b'"time":1234567890123456789', "longer"),
        (b'"coin":"BTC",', b'"coin":"BTC","coin":"ETH",', "another coin"),
        (b'"n":3', b'"n":-3', "cannot be"),
        (b'"n":3', b'"m":3', "missing"),
        (b'"px":"105999.0"', b'"px":"106000.5"', "sorted"),
        (b'"px":"105999.0"', b'"px":"106000.50"', "sorted"),
        (b'"px":"105999.0"', b'"px":"106000.6"', "sorted"),
        (b'"px":"106002.5"', b'"px":"106000.9"', "sorted"),
        (b'"px":"106001.0"', b'"px":"106000.5"', "crossed"),
        (b'"px":"106001.0"', b'"px":"100.0"', "crossed"),
        (b'"px":"105998.0"', b'"px":"0.0"', "cannot be"),
        (b'"px":"105998.0"', b'"px":"-1.0"', "cannot be"),
        (b'"px":"106003.0"', b'"px":"1e999"', "cannot be"),
        (b'"sz":"2.0"', b'"sz":"-2.0"', "cannot be"),
        (b'"sz":"2.0"', b'"sz":"1e999"', "cannot be"),
        (b'"sz":"2.0"', b'"sz":"inf"', "shape"),
        (b'"sz":"2.0"', b'"sz":null', "shape"),
        (b'"sz":"2.0"', b'"sz":"' + 257 * b"1" + b'"', "longer"),
        (b"]]}}", b"],[]]}}", "shape"),
        (b"]]}}", b"]]}},", "shape"),
        (b"]]}}", b"]]}", "shape"),
        (b"]]}}", b']]},"channel":"bbo"}', "shape"),
        (b"]]}}", b']]},"data":{}}', "shape"),
        (b"]]}}", b']],"x":' + 65 * b"[" + 65 * b"]" + b"}}", "deeper"),
    ],
)
def test_what_is_wrong_with_a_book_is_said(old: bytes, new: bytes, reason: str) -> None:
    assert old in SMALL["levels"]
    message = SMALL["levels"].replace(old, new, 1)
    book = Book("BTC")
    book.apply(SLOW)
    error = refused(book, message)
    assert reason in error.reason
    assert error.channel == "l2Book"
    assert book.stale


@pytest.mark.parametrize("sz", ["0.0", "-0.0", "0", "5e-324"])
def test_a_level_of_size_zero_is_a_level(sz: str) -> None:
    message = book_text([level_text("1.5", sz, "0")], [])
    book = Book("BTC")
    book.apply(exact(message))
    assert_shows(message, book)
    assert book.count[0] == 1


def test_the_offset_of_a_level_that_is_out_of_order_is_its_own() -> None:
    message = SMALL["levels"].replace(b'"px":"105998.0"', b'"px":"105999.5"')
    error = refused(Book("BTC"), message)
    assert error.offset == message.index(b'{"px":"105999.5"')
    assert error.excerpt == message[error.offset : error.offset + 80]


@pytest.mark.parametrize("tail", [b"}", b" } \n", b',"seq":1}', b',"a":{"b":[]},"c":null}'])
def test_further_keys_of_the_envelope_are_read_over(tail: bytes) -> None:
    message = SMALL["levels"][:-1] + tail
    book = Book("BTC")
    assert book.apply(exact(message))
    assert_shows(message, book)


@pytest.mark.parametrize("fast", ["true", "false", "null", "1", '"true"', "[true]"])
def test_only_true_makes_a_snapshot_a_fast_one(fast: str) -> None:
    book = Book("BTC")
    book.apply(book_text([level_text("1.5", "1.0", "1")], [], f',"fast":{fast}'))
    assert list(book.times_ms) == (["fast"] if fast == "true" else ["slow"])


# --- the limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 20, 10_000])
@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("spell", ["today's", "another"])
def test_a_side_may_have_10_000_levels_and_not_one_more(depth: int, row: int, spell: str) -> None:
    prices = [f"{20_000 - i if row == 0 else 1 + i}.5" for i in range(10_001)]
    levels = [level_text(px, "1.0", "1") for px in prices]
    if spell == "another":
        levels = [text.replace(":", ": ") for text in levels]
    book = Book("BTC", depth=depth)
    full = [[], levels] if row else [levels, []]
    refused_message = book_text(full[0], full[1])
    error = refused(book, refused_message)
    assert "more than" in error.reason
    assert error.offset == refused_message.index(levels[-1].encode())
    del levels[-1]
    message = book_text(full[0], full[1])
    assert book.apply(exact(message))
    assert_shows(message, book)
    assert book.beyond[row] == 10_000 - depth


def test_a_message_may_have_100_000_trades_and_not_one_more() -> None:
    feed = Feed()
    got: list[int] = []
    feed.on_trades("BTC", lambda rows: got.append(len(rows)))
    rows = [TRADE.replace(b'"tid":123', b'"tid":%d' % tid) for tid in range(100_000)]
    feed.on_message(b'{"channel":"trades","data":[' + b",".join(rows) + b"]}")
    assert got == [100_000]
    rows.append(TRADE)
    with pytest.raises(DecodeError, match="more than is accepted"):
        feed.on_message(b'{"channel":"trades","data":[' + b",".join(rows) + b"]}")
    assert got == [100_000]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"tid":123,', b"", "missing"),
        (b'"px":"1.5",', b"", "missing"),
        (b'"sz":"2.0",', b"", "missing"),
        (b'"time":17,', b"", "missing"),
        (b'"side":"A",', b"", "missing"),
        (b'"coin":"BTC",', b'"koin":"BTC",', ""),
        (b'"A"', b'"S"', "shape"),
        (b'"A"', b'"AB"', "shape"),
        (b'"px":"1.5"', b'"px":"0.0"', "cannot be"),
        (b'"px":"1.5"', b'"px":"1e400"', "cannot be"),
        (b'"sz":"2.0"', b'"sz":"-2.0"', "cannot be"),
        (b'"tid":123', b'"tid":1.5', "shape"),
        (b'"tid":123', b'"tid":1234567890123456789', "longer"),
        (b'"0xa"', b'"' + 43 * b"a" + b'"', "longer"),
        (b'"0xa"', b'"\\ud800"', "longer"),
        (b'"0xa",', b"", "shape"),
        (b'"0xa"', b'"0xa","0xc"', "shape"),
        (b'"0xa"', b"7", "shape"),
    ],
)
def test_what_is_wrong_with_a_trade_is_said(old: bytes, new: bytes, reason: str) -> None:
    got: list[int] = []
    feed = Feed(trade_users=True)
    feed.on_trades("BTC", lambda rows: got.append(len(rows)))
    book = feed.book("BTC")
    book.apply(SLOW)
    message = TRADES.replace(old, new, 1)
    assert message != TRADES
    with pytest.raises(DecodeError) as info:
        feed.on_message(exact(message))
    assert reason in info.value.reason
    assert info.value.channel == "trades"
    assert not got


def test_a_second_trade_of_another_coin_is_refused() -> None:
    feed = Feed()
    feed.on_trades("BTC", print)
    with pytest.raises(DecodeError, match="another coin") as info:
        feed.on_message(b'{"channel":"trades","data":[' + TRADE + b"," + TRADE.replace(b"BTC", b"ETH") + b"]}")
    assert info.value.channel == "trades"


def test_an_address_of_42_bytes_fits_and_a_shorter_one_leaves_nothing_of_the_one_before() -> None:
    long, short = b"0x" + 40 * b"f", b"0x1"
    one = TRADE.replace(b'"0xa","0xb"', b'"' + long + b'","' + short + b'"')
    two = TRADE.replace(b'"0xa","0xb"', b'"' + short + b'","' + long + b'"')
    none = TRADE.replace(b',"users":["0xa","0xb"]', b"")
    feed = Feed(trade_users=True)
    got: list[list[tuple[bytes, bytes]]] = []
    feed.on_trades("BTC", lambda rows: got.append([(r["buyer"], r["seller"]) for r in rows.copy()]))
    for first, rows in ((1, [one, two, none]), (4, [none, one, two])):
        rows = [row.replace(b'"tid":123', b'"tid":%d' % (first + i)) for i, row in enumerate(rows)]
        feed.on_message(b'{"channel":"trades","data":[' + b",".join(rows) + b"]}")
    assert got == [[(long, short), (short, long), (b"", b"")], [(b"", b""), (long, short), (short, long)]]


# --- which reader ---------------------------------------------------------------------------------------------------


def test_where_the_processor_has_avx2_it_is_used_until_a_test_says_otherwise(reader: str) -> None:
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists() or "avx2" not in cpu.read_text().split():
        pytest.skip("this processor says nothing of AVX2")
    for module in (codec, book_module):
        assert module._use_portable(False)
        assert not module._use_portable(True)
        module._use_portable(reader == "portable")
