"""feed.pyx: one message to one handler, counted; what callbacks may do; what is said about trust."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable
from random import Random
from typing import Any

import captures
import numpy as np
import oracles
import pytest
from captures import COINS, GREETING, T0, wire
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hlconn import TRADE_DTYPE, TRADE_USERS_DTYPE, Book, ConfigError, DecodeError, Feed

pytestmark = pytest.mark.usefixtures("reader")

PLAIN = captures.Coin("BTC", "106000", 0, 2)  # numbers of at most 7 digits before and after the point: read fast


def plain(shape: str, time_ms: int = T0) -> bytes:
    return captures.example(shape, PLAIN, time_ms=time_ms)


SLOW, FAST, BBO, TRADE, TRADES = plain("slow"), plain("fast"), plain("bbo", T0 + 1), plain("one trade"), plain("trades")
NONE = {"messages": 0, "bytes": 0, "out_of_order": 0, "twins": 0, "fallback": 0, "unrouted": 0, "errors": 0}


def rename(message: bytes, coin: str) -> bytes:
    return message.replace(b'"BTC"', wire(coin))


def anew(message: bytes, by: int) -> bytes:
    """The same trades under other tids."""
    return re.sub(rb'(?<="tid":)[0-9]+', lambda tid: b"%d" % (int(tid[0]) + (by << 52)), message)


def counted(feed: Feed, channel: str) -> dict[str, int]:
    """The counters of a channel that are not zero."""
    return {k: v for k, v in feed.counters[channel].items() if v}


# --- routing ------------------------------------------------------------------------------------------------------


def test_a_message_goes_to_the_handler_of_its_channel_and_coin() -> None:
    feed = Feed()
    got: list[tuple[str, Any]] = []
    for coin in ("BTC", "ETH"):
        feed.on_book(coin, lambda book, coin=coin: got.append((coin, book)))  # type: ignore[misc]
        feed.on_trades(coin, lambda rows, coin=coin: got.append((coin, rows.copy())))  # type: ignore[misc]
    for message in (SLOW, BBO, FAST, TRADES):
        feed.on_message(message, recv_ns=7)
        feed.on_message(rename(message, "ETH"), recv_ns=8)
    assert [coin for coin, _ in got] == ["BTC", "ETH"] * 4
    assert [type(x) for _, x in got] == [Book] * 6 + [np.ndarray] * 2
    assert got[0][1] is got[2][1] is got[4][1] is feed.book("BTC")
    assert got[1][1] is feed.book("ETH")
    assert (feed.book("BTC").recv_ns, feed.book("ETH").recv_ns) == (7, 8)
    assert feed.coins == ("BTC", "ETH")


def test_a_book_is_kept_without_a_callback_and_a_callback_may_go() -> None:
    feed = Feed()
    book = feed.book("BTC")
    feed.on_message(SLOW)
    assert book.seq == 1
    got: list[Book] = []
    feed.on_book("BTC", got.append)
    feed.on_message(BBO)
    feed.on_book("BTC", None)
    feed.on_message(BBO)
    assert (got, book.seq) == ([book], 3)
    feed.on_trades("BTC", len)
    feed.on_trades("BTC", None)
    feed.on_message(TRADE)
    assert got == [book]
    assert counted(feed, "trades") == {"messages": 1, "bytes": len(TRADE), "unrouted": 1}


def test_a_second_callback_replaces_the_first() -> None:
    feed = Feed()
    got: list[int] = []
    feed.on_book("BTC", lambda _: got.append(1))
    feed.on_book("BTC", lambda _: got.append(2))
    feed.on_message(SLOW)
    assert got == [2]


def test_the_book_of_a_coin_is_made_once_with_the_depth_first_asked_for() -> None:
    feed = Feed()
    book = feed.book("BTC", 5, feeds=("bbo",))
    assert (book.depth, book.feeds) == (5, ("bbo",))
    assert feed.book("BTC") is feed.book("BTC", 5) is book
    with pytest.raises(ConfigError, match="depth=5"):
        feed.book("BTC", 6)
    feed.on_book("ETH", print)
    assert feed.book("ETH").depth == 20
    feed.on_trades("SOL", print)
    assert feed.book("SOL", 3).depth == 3


def test_a_dropped_book_is_stale_and_fed_no_more() -> None:
    feed = Feed()
    got: list[Book] = []
    feed.on_book("BTC", got.append)
    old = feed.book("BTC")
    feed.on_message(SLOW)
    feed.drop_book("BTC", "nobody asks")
    feed.drop_book("ETH", "never known")
    feed.on_message(BBO)
    assert (old.seq, old.stale_reason, len(got)) == (1, "nobody asks", 1)
    assert counted(feed, "bbo") == {"messages": 1, "bytes": len(BBO), "unrouted": 1}
    assert feed.book("BTC", 3) is not old
    feed.on_message(SLOW)
    assert (feed.book("BTC").seq, old.seq) == (1, 1)


@pytest.mark.parametrize("coin", ["", 65 * "x", 33 * "é", 7, None])
def test_a_coin_that_cannot_be_one_is_refused(coin: Any) -> None:
    feed = Feed()
    for call in (lambda: feed.book(coin), lambda: feed.on_book(coin, print), lambda: feed.on_trades(coin, print)):
        with pytest.raises((ConfigError, TypeError)):
            call()
    assert feed.coins == ()


def test_hundreds_of_coins_are_told_apart() -> None:
    feed = Feed()
    rng = Random(1)
    coins = [f"{c}{i}" for i in range(120) for c in ("A", "@", "xyz:", "ab")]
    coins += [
        64 * "x",
        63 * "x",
        63 * "x" + "y",
        "B",
        "BT",
        "BTCC",
        "BTC ",
        "btc",
        "É",
        "e\u0301",
        "\N{ROCKET}",
        "\0",
        'a"b',
        "a\\b",
    ]
    rng.shuffle(coins)
    got: list[str] = []
    for coin in coins:  # in between, so that the table grows while it is in use
        feed.on_trades(coin, lambda _, coin=coin: got.append(coin))  # type: ignore[misc]
        feed.book(coin, 2)
        feed.on_message(rename(TRADE, coin))
        feed.on_message(rename(SLOW, coin))
    assert got == coins
    assert feed.coins == tuple(coins)
    got.clear()
    rng.shuffle(coins)
    for coin in coins:
        feed.on_message(rename(anew(TRADE, 1), coin))
        feed.on_message(rename(BBO, coin))
        assert feed.book(coin).seq == 2
    assert got == coins
    for coin in ("nobody", "A120", 62 * "x", "a", ""):
        feed.on_message(rename(TRADE, coin))
    assert got == coins
    assert counted(feed, "trades")["unrouted"] == 5 - 1  # the coin without a name is nobody's at all
    assert counted(feed, "l2Book").keys() == {"messages", "bytes", "fallback"}  # names with escapes


@pytest.mark.parametrize("letters", ["x", "@107:", "\0"])
def test_a_coin_is_not_another_one_that_begins_with_it(letters: str) -> None:
    names = [(64 * letters)[:size] for size in range(1, 65)]
    feed = Feed()
    for name in reversed(names):  # the longer ones stand where the shorter ones would
        feed.book(name, 1)
    for i, name in enumerate(names):
        feed.on_message(captures.wire({"channel": "bbo", "data": {"coin": name, "time": i, "bbo": [None, None]}}), i)
    assert [feed.book(name).seq for name in names] == 64 * [1]
    assert [feed.book(name).recv_ns for name in names] == list(range(64))


COLLIDING = [("EZSCMKPX", "QYESRSGM"), ("YYZQXIMC", "YXKDGKWU"), ("ZCTZORJZ", "FRUGNCQR"), ("DHRDVYVE", "XPDZFAID")]


@pytest.mark.parametrize(("one", "other"), COLLIDING)
def test_two_coins_of_the_same_hash_are_told_apart(one: str, other: str) -> None:
    """Names found by search: as long as the hash is FNV-1a of 32 bits, begun with the length, folded by 15."""
    for known in (one, other):
        feed = Feed()
        books = feed.book(known), feed.book("BTC")
        feed.on_message(rename(SLOW, one))
        feed.on_message(rename(SLOW, other))
        assert [b.seq for b in books] == [1, 0]
        assert counted(feed, "l2Book")["unrouted"] == 1
        assert [feed.book(c) is books[0] for c in (one, other)].count(True) == 1
        feed.on_message(rename(BBO, one))
        feed.on_message(rename(BBO, other))
        assert (feed.book(one).seq, feed.book(other).seq) in ((2, 1), (1, 2))


@pytest.mark.parametrize("coin", COINS, ids=[c.name for c in COINS])
def test_a_coin_in_any_spelling_reaches_its_handlers(coin: captures.Coin) -> None:
    feed = Feed()
    got: list[str] = []
    feed.on_book(coin.name, lambda book: got.append(book.coin))
    feed.on_trades(coin.name, lambda rows: got.append(str(len(rows))))
    rng = Random(coin.name)
    for seed in range(5):
        feed.on_message(captures.respell(captures.example("slow", coin), rng))
        feed.on_message(captures.respell(captures.example("trades", coin, seed), rng))
    escaped = "".join(f"\\u{ord(c):04x}" for c in coin.name if ord(c) < 0x10000)
    if len(escaped) == 6 * len(coin.name):
        feed.on_message(captures.example("slow", coin).replace(wire(coin.name), f'"{escaped}"'.encode()))
        assert got.pop() == coin.name
    assert got == [coin.name, "7"] * 5
    assert feed.counters["l2Book"]["unrouted"] == feed.counters["trades"]["unrouted"] == 0


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda m: np.frombuffer(m, np.uint8)])
def test_any_contiguous_bytes_are_a_message(kind: Callable[[bytes], Any]) -> None:
    feed = Feed()
    feed.book("BTC")
    feed.on_message(kind(SLOW), 3)
    assert (feed.book("BTC").seq, feed.book("BTC").recv_ns) == (1, 3)


def test_what_is_no_contiguous_memory_is_no_message() -> None:
    feed = Feed()
    with pytest.raises(BufferError):
        feed.on_message(memoryview(SLOW)[::2])
    with pytest.raises(TypeError):
        feed.on_message(SLOW.decode())  # type: ignore[arg-type]
    assert feed.counters["other"] == feed.counters["l2Book"] == NONE


# --- other channels -----------------------------------------------------------------------------------------------


def test_other_channels_are_counted_by_name_and_handed_on_as_they_came() -> None:
    feed = Feed()
    got: list[tuple[str, bytes]] = []
    feed.on_raw(lambda channel, message: got.append((channel, message)))
    frames = [m for m in captures.control(Random(1)) if m != GREETING]
    for frame in frames * 2:
        feed.on_message(memoryview(frame))
    assert [m for _, m in got] == frames * 2
    assert all(type(m) is bytes and type(c) is str for c, m in got)
    assert feed.other_channels == dict.fromkeys([oracles.load(m)["channel"] for m in frames], 2)
    assert counted(feed, "other") == {"messages": 2 * len(frames), "bytes": 2 * sum(map(len, frames))}
    feed.on_raw(None)
    feed.on_message(frames[0])
    assert len(got) == 2 * len(frames)
    feed.other_channels.clear()  # a copy
    assert feed.other_channels["pong"] == 3


def test_the_name_of_a_channel_is_text_whatever_its_spelling() -> None:
    feed = Feed()
    got: list[str] = []
    feed.on_raw(lambda channel, _: got.append(channel))
    for name in (b"\xc5\x81", b"\\u0141", b"\xff", b"", b"p\\/\\n", b"l2Book2", b"bb", b"Trades"):
        feed.on_message(b'{"channel":"' + name + b'","data":{"coin":"BTC"}}')
    assert got == ["Ł", "Ł", "\ufffd", "", "p/\n", "l2Book2", "bb", "Trades"]


def test_only_64_names_of_channels_are_remembered() -> None:
    feed = Feed()
    for i in range(100):
        feed.on_message(b'{"channel":"c%d"}' % i)
    feed.on_message(b'{"channel":"c5"}')
    assert feed.other_channels == {f"c{i}": 1 + (i == 5) for i in range(64)}
    assert feed.counters["other"]["messages"] == 101


def test_the_venues_greeting_is_no_error() -> None:
    feed = Feed()
    feed.on_raw(lambda *_: pytest.fail("not a message of a channel"))
    feed.book("BTC").apply(SLOW)
    feed.on_message(GREETING)
    feed.on_message(bytearray(GREETING))
    assert counted(feed, "other") == {"messages": 2, "bytes": 2 * len(GREETING)}
    assert not feed.book("BTC").stale
    for other in (GREETING[:-1], GREETING + b" ", GREETING.lower()):
        with pytest.raises(DecodeError):
            feed.on_message(other)
    assert feed.counters["other"]["errors"] == 3


# --- counters -----------------------------------------------------------------------------------------------------


def test_every_message_is_counted_once_under_what_became_of_it() -> None:
    feed = Feed()
    feed.book("BTC")
    feed.on_trades("BTC", len)
    respelled = captures.respell(SLOW, Random(1), escapes=False)
    script: list[tuple[bytes, str, str | None]] = [
        (SLOW, "l2Book", None),
        (FAST, "l2Book", None),
        (respelled, "l2Book", "fallback"),
        (plain("slow", T0 - 1), "l2Book", "out_of_order"),
        (rename(SLOW, "ETH"), "l2Book", "unrouted"),
        (SLOW[:-2], "l2Book", "errors"),
        (b'{"channel":"l2Book","data":{"time":1', "l2Book", "errors"),
        (b'{"channel":"l2Book"}', "l2Book", "errors"),
        (BBO, "bbo", None),
        (captures.respell(BBO, Random(1)), "bbo", "fallback"),
        (plain("bbo", T0 - 1), "bbo", "out_of_order"),
        (rename(BBO, "ETH"), "bbo", "unrouted"),
        (BBO[:-2], "bbo", "errors"),
        (TRADES, "trades", None),
        (TRADES, "trades", "twins"),
        (captures.example("no trades"), "trades", None),
        (captures.respell(captures.example("trades", PLAIN, 2), Random(1)), "trades", "fallback"),
        (rename(TRADES, "ETH"), "trades", "unrouted"),
        (TRADES[:-3], "trades", "errors"),
        (b'{"channel":"pong"}', "other", None),
        (b'{"channel":"pong"', "other", "errors"),
        (b"", "other", "errors"),
        (b"\x00", "other", "errors"),
    ]
    want = {channel: dict(NONE) for channel in ("l2Book", "bbo", "trades", "l2", "other")}
    for again in range(2):
        for message, channel, event in script:
            want[channel]["messages"] += 1
            want[channel]["bytes"] += len(message)
            events = {event} if event is not None else set()
            if again and channel == "trades" and event in (None, "fallback") and b"[]" not in message:
                events.add("twins")
            for each in events:
                want[channel][each] += 1
            try:
                feed.on_message(message)
            except DecodeError:
                assert event == "errors"
            else:
                assert event != "errors"
            assert feed.counters == want, message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"channel":', b'"channel": '),
        (b',"data":', b', "data":'),
        (b'{"coin":"BTC","time":1', b'{"time":1,"coin":"BTC"'),
        (b'"coin":"BTC"', b'"coin":"\\u0042TC"'),
        (b'{"px":"1.5","sz":"2.0","n":3}', b'{"n":3,"px":"1.5","sz":"2.0"}'),
        (b'{"px":"1.5","sz":"2.0","n":3}', b'{"px":"1.5","sz":"2.0","n": 3}'),
        (b'{"px":"1.5","sz":"2.0","n":3}', b'{"px":1.5,"sz":"2.0","n":3}'),
        (b'{"px":"1.5","sz":"2.0","n":3}', b'{"px":"1.5","sz":"2.0","n":3,"c":null}'),
    ],
)
@pytest.mark.parametrize("channel", ["l2Book", "bbo"])
def test_a_message_not_in_todays_spelling_is_counted_as_fallback(channel: str, old: bytes, new: bytes) -> None:
    level = b'{"px":"1.5","sz":"2.0","n":3}'
    values = b'"levels":[[' + level + b"],[]]" if channel == "l2Book" else b'"bbo":[' + level + b",null]"
    message = b'{"channel":"' + channel.encode() + b'","data":{"coin":"BTC","time":1,' + values + b"}}"
    feed = Feed()
    feed.book("BTC")
    feed.on_message(message)
    assert feed.counters[channel]["fallback"] == 0
    assert old in message
    feed.on_message(message.replace(old, new))
    assert feed.counters[channel]["fallback"] == 1
    assert feed.book("BTC").best_bid == 1.5


@pytest.mark.parametrize("n", ["0", "7", "12345678", "123456789", "999999999999999999"])
@pytest.mark.parametrize("sz", ["0.0", "1234.5678", "2992.33481", "9999999.9999999"])
@pytest.mark.parametrize("shape", ["l2Book", "bbo"])
def test_numbers_of_up_to_seven_digits_on_either_side_need_no_fallback(shape: str, sz: str, n: str) -> None:
    level = f'{{"px":"{sz.replace("0.0", "1.0")}","sz":"{sz}","n":{n}}}'
    values = f'"levels":[[{level}],[]]' if shape == "l2Book" else f'"bbo":[{level},null]'
    feed = Feed()
    book = feed.book("BTC")
    feed.on_message(f'{{"channel":"{shape}","data":{{"coin":"BTC","time":1,{values}}}}}'.encode())
    assert (book.sz[0, 0], book.n[0, 0]) == (float(sz), int(n))
    assert counted(feed, shape).keys() == {"messages", "bytes"}


@pytest.mark.parametrize("shape", ["without aggregation", "fast", "with unknown keys"])
def test_further_keys_of_the_data_need_no_fallback(shape: str) -> None:
    feed = Feed()
    feed.book("BTC")
    feed.on_message(plain(shape))
    assert counted(feed, "l2Book").keys() == {"messages", "bytes"}


# --- bad messages -------------------------------------------------------------------------------------------------


def two_live_books() -> tuple[Feed, Book, Book]:
    feed = Feed()
    books = feed.book("BTC"), feed.book("ETH")
    feed.on_trades("BTC", len)
    feed.on_message(SLOW)
    feed.on_message(rename(SLOW, "ETH"))
    assert not books[0].stale
    assert not books[1].stale
    return feed, *books


@pytest.mark.parametrize(
    ("message", "stale"),
    [
        (SLOW[:-1], (True, False)),
        (BBO[:-1], (True, False)),
        (rename(BBO, "ETH")[:-1], (False, True)),
        (TRADES[:-1], (False, False)),
        (rename(SLOW, "SOL")[:-1], (False, False)),  # of nobody: not read
        (b'{"channel":"l2Book","data":{"coin":7}}', (True, True)),
        (b'{"channel":"l2Book"', (True, True)),
        (b"garbage", (True, True)),
    ],
)
def test_a_bad_message_makes_stale_the_book_it_was_for_or_all_when_that_cannot_be_told(
    message: bytes, stale: tuple[bool, bool]
) -> None:
    feed, one, other = two_live_books()
    before = one.px.copy(), other.px.copy()
    if message.startswith(b'{"channel":"l2Book","data":{"coin":"SOL"'):
        feed.on_message(message)
    else:
        with pytest.raises(DecodeError):
            feed.on_message(message)
    assert (one.stale, other.stale) == stale
    np.testing.assert_array_equal((one.px, other.px), before)
    feed.on_message(SLOW)
    feed.on_message(rename(SLOW, "ETH"))
    assert not one.stale
    assert not other.stale


@given(st.lists(st.tuples(st.sampled_from([SLOW, FAST, BBO, TRADES, GREETING]), st.integers(0, 2**32)), max_size=6))
def test_whatever_arrives_only_decode_errors_leave_and_the_feed_goes_on(script: list[tuple[bytes, int]]) -> None:
    feed, book, _ = two_live_books()
    for message, seed in script:
        before = book.px.tobytes(), book.sz.tobytes(), book.n.tobytes(), book.seq
        try:
            feed.on_message(captures.damaged(message, Random(seed)))
        except DecodeError:
            assert before == (book.px.tobytes(), book.sz.tobytes(), book.n.tobytes(), book.seq)
    feed.mark_stale("lost")
    feed.on_message(SLOW)
    fresh = Book("BTC")
    fresh.apply(SLOW)
    np.testing.assert_array_equal(book.px, fresh.px)
    assert not book.stale


# --- callbacks ----------------------------------------------------------------------------------------------------


class Mine(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, Mine, KeyboardInterrupt, DecodeError("x", 0, b"", "mine")])
@pytest.mark.parametrize(("message", "failed"), [(SLOW, "l2Book"), (BBO, "bbo"), (TRADE, "trades")])
def test_what_a_callback_raises_passes_through_and_the_feed_goes_on(
    error: type[BaseException] | BaseException, message: bytes, failed: str
) -> None:
    feed = Feed()
    calls: list[Any] = []

    def callback(what: Any) -> None:
        calls.append(what)
        raise error

    feed.on_book("BTC", callback)
    feed.on_trades("BTC", callback)
    assert feed.failed is None
    for i in range(3):
        with pytest.raises(error if isinstance(error, type) else type(error)):
            feed.on_message(anew(message, i))
        assert feed.failed == (failed, "BTC")
        assert len(calls) == i + 1
    size = sum(len(anew(message, i)) for i in range(3))
    assert counted(feed, failed) == {"messages": 3, "bytes": size}  # no fault of the message
    if failed != "trades":
        assert feed.book("BTC").seq == 3
    feed.on_message(b'{"channel":"pong"}')
    assert feed.failed is None
    with pytest.raises(DecodeError):
        feed.on_message(b"bad")
    assert feed.failed is None
    feed.on_book("BTC", None)
    feed.on_trades("BTC", None)
    feed.on_message(message)
    assert len(calls) == 3


@pytest.mark.parametrize("message", [SLOW, BBO, TRADE, b'{"channel":"pong"}'])
@pytest.mark.parametrize("inner", [SLOW, TRADE, b'{"channel":"pong"}', b"bad"])
def test_a_message_from_within_a_callback_is_refused(message: bytes, inner: bytes) -> None:
    feed = Feed()
    caught: list[str] = []

    def callback(*_: Any) -> None:
        with pytest.raises(RuntimeError, match="from within a callback") as info:
            feed.on_message(inner)
        caught.append(str(info.value))

    feed.on_book("BTC", callback)
    feed.on_trades("BTC", callback)
    feed.on_raw(callback)
    feed.on_message(message)
    assert len(caught) == 1
    assert sum(c["messages"] for c in feed.counters.values()) == 1
    feed.on_message(anew(message, 1))
    assert len(caught) == 2


def test_a_raw_callback_that_raises_leaves_the_feed_usable() -> None:
    feed = Feed()
    feed.on_raw(lambda *_: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            feed.on_message(b'{"channel":"pong"}')
    assert feed.failed is None


def test_a_callback_may_change_who_listens() -> None:
    feed = Feed()
    got: list[str] = []

    def once(book: Book) -> None:
        got.append("once")
        feed.on_book("BTC", None)
        for i in range(50):  # the table of coins grows under the callback
            feed.book(f"C{i}")
        gc.collect()

    feed.on_book("BTC", once)
    feed.on_message(SLOW)
    feed.on_message(SLOW)
    feed.on_message(rename(SLOW, "C49"))
    assert got == ["once"]
    assert feed.book("C49").seq == 1

    def drop(book: Book) -> None:
        feed.drop_book("BTC", "dropped")
        gc.collect()
        got.append(repr(book))

    feed.on_book("BTC", drop)
    feed.on_message(SLOW)
    assert "dropped" in got[1]


def test_what_a_callback_returns_is_let_go() -> None:
    feed = Feed()
    token = object()
    feed.on_book("BTC", lambda _: token)
    before = sys.getrefcount(token)
    for _ in range(100):
        feed.on_message(SLOW)
    assert sys.getrefcount(token) == before


# --- trades -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("users", [False, True])
def test_trades_are_a_structured_array_of_the_documented_layout(users: bool) -> None:
    feed = Feed(trade_users=users)
    got: list[NDArray[np.void]] = []
    feed.on_trades("BTC", got.append)
    feed.on_message(TRADES)
    want = oracles.read_trades(TRADES, users=users)[1]
    assert got[0].dtype == (TRADE_USERS_DTYPE if users else TRADE_DTYPE)
    assert not got[0].flags.writeable
    for field in want.dtype.names or ():
        np.testing.assert_array_equal(got[0][field], want[field])
    with pytest.raises(ValueError, match="read-only"):
        got[0]["px"] = 0


def test_a_view_is_made_once_for_each_number_of_trades_and_reused() -> None:
    feed = Feed()
    got: list[NDArray[np.void]] = []
    feed.on_trades("BTC", got.append)
    one, other = captures.example("trades", seed=1), captures.example("trades", seed=2)
    feed.on_message(one)
    first = got[0].copy()
    feed.on_message(TRADE)
    feed.on_message(other)
    assert got[2] is got[0]
    assert got[1] is not got[0]
    assert len(got[1]) == 1
    np.testing.assert_array_equal(got[0]["px"], oracles.read_trades(other)[1]["px"])
    assert not np.array_equal(first["px"], got[0]["px"])
    feed.on_trades("ETH", got.append)
    feed.on_message(rename(one, "ETH"))
    assert got[3] is got[0]  # one room for all coins


@pytest.mark.parametrize("users", [False, True])
def test_any_number_of_trades_is_read_and_an_old_view_stays_readable(users: bool) -> None:
    feed = Feed(trade_users=users)
    got: list[NDArray[np.void]] = []
    feed.on_trades("BTC", got.append)
    feed.on_message(TRADES)
    old = got[0]
    for seed, count in enumerate((63, 64, 65, 130, 131, 1, 3000, 64, 6001)):
        message = captures.trades(Random(seed), COINS[0], T0, count=count)
        feed.on_message(message)
        want = oracles.read_trades(message, users=users)[1]
        assert len(got[-1]) == count
        for field in want.dtype.names or ():
            assert got[-1][field].tobytes() == want[field].tobytes()
        gc.collect()
    assert len(old) == 7
    assert (old["px"] > 0).all()


def test_a_bad_trades_message_reaches_nobody_and_the_next_is_read_whole() -> None:
    feed = Feed()
    got: list[int] = []
    feed.on_trades("BTC", lambda rows: got.append(len(rows)))
    many = captures.trades(Random(1), COINS[0], T0, count=500)
    for bad in (many[:-1], many[: len(many) // 2], many.replace(b'"side":"A"', b'"side":"C"', 1)):
        with pytest.raises(DecodeError):
            feed.on_message(bad)
    feed.on_message(many)
    assert got == [500]


# --- trust --------------------------------------------------------------------------------------------------------


def test_a_lost_link_begins_every_book_anew_and_a_doubt_does_not() -> None:
    feed, one, other = two_live_books()
    feed.mark_stale("link lost")
    assert (one.stale_reason, other.stale_reason) == ("link lost", "link lost")
    assert one.times_ms == {}
    feed.on_message(captures.example("slow", time_ms=T0 - 5000))
    assert not one.stale
    assert other.stale
    feed.mark_stale("doubt", restart=False)
    assert one.times_ms == {"slow": T0 - 5000}
    assert one.stale_reason == "doubt"


def test_a_periodic_feed_that_is_silent_makes_its_book_stale_until_it_speaks() -> None:
    feed = Feed()
    book = feed.book("BTC", feeds=("bbo", "fast", "slow"))
    only_bbo = feed.book("ETH", feeds=("bbo",))
    lost = feed.book("SOL")
    feed.on_message(SLOW, recv_ns=1000)
    feed.on_message(FAST, recv_ns=1000)
    feed.on_message(rename(BBO, "ETH"), recv_ns=1000)
    assert feed.mark_silent(1100, slow_ns=1000, fast_ns=100) == 0
    assert feed.mark_silent(1101, slow_ns=1000, fast_ns=100) == 1
    assert (book.stale, book.stale_reason) == (True, "fast feed silent")
    assert feed.mark_silent(2001, slow_ns=1000, fast_ns=100) == 1
    assert book.stale_reason == "slow feed silent and fast feed silent"
    feed.on_message(FAST, recv_ns=2002)
    assert book.stale_reason == "slow feed silent"
    feed.on_message(BBO, recv_ns=2003)
    assert book.stale
    feed.on_message(SLOW, recv_ns=2004)
    assert [book.stale, book.stale_reason] == [False, None]
    assert feed.mark_silent(2100, slow_ns=1000, fast_ns=100) == 0
    assert feed.mark_silent(10**9, slow_ns=1000, fast_ns=100) == 1
    assert not only_bbo.stale  # silence of bbo alone proves nothing
    assert lost.stale_reason == "nothing received yet"


def test_a_feed_never_heard_since_the_book_was_live_is_silent_too() -> None:
    feed = Feed()
    book = feed.book("BTC", feeds=("fast", "slow"))
    feed.on_message(SLOW, recv_ns=1000)
    assert feed.mark_silent(1100, slow_ns=10_000, fast_ns=100) == 0
    assert feed.mark_silent(1101, slow_ns=10_000, fast_ns=100) == 1
    assert book.stale_reason == "fast feed silent"
    feed.mark_stale("link lost")
    assert feed.mark_silent(9999, slow_ns=1, fast_ns=1) == 0  # lost already: that is the reason
    assert book.stale_reason == "link lost"
    feed.on_message(SLOW, recv_ns=10_000)
    assert not book.stale


def test_a_late_message_does_not_end_silence() -> None:
    feed = Feed()
    book = feed.book("BTC", feeds=("slow",))
    feed.on_message(SLOW, recv_ns=1000)
    feed.mark_silent(5000, slow_ns=1000, fast_ns=1000)
    feed.on_message(captures.example("slow", time_ms=T0 - 1), recv_ns=5000)
    assert book.stale_reason == "slow feed silent"


# --- links --------------------------------------------------------------------------------------------------------

SUBSCRIPTIONS: dict[str, dict[str, Any]] = {
    "slow": {"type": "l2Book", "coin": "BTC"},
    "fast": {"type": "l2Book", "coin": "BTC", "fast": True},
    "bbo": {"type": "bbo", "coin": "BTC"},
    "trades": {"type": "trades", "coin": "BTC"},
}


def test_messages_are_counted_by_subscription_and_link_whatever_becomes_of_them() -> None:
    feed = Feed()
    assert [feed.flow(sub, 0) for sub in SUBSCRIPTIONS.values()] == [-1] * 4  # nobody asked for them
    feed.book("BTC")
    feed.on_trades("BTC", len)
    for link, message in [(0, SLOW), (15, SLOW), (15, FAST), (0, plain("slow", T0 - 1)), (3, BBO), (3, TRADES)]:
        feed.on_message(message, link=link)
    with pytest.raises(DecodeError):
        feed.on_message(SLOW[:-2], link=3)
    got = {name: [feed.flow(sub, link) for link in (0, 3, 15)] for name, sub in SUBSCRIPTIONS.items()}
    assert got == {"slow": [2, 0, 1], "fast": [0, 0, 1], "bbo": [0, 1, 0], "trades": [0, 1, 0]}
    for other in (
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 4},
        {"type": "bbo", "coin": "ETH"},
        {"type": "candle", "coin": "BTC", "interval": "1m"},
        {"type": "userFills", "user": "0x"},
    ):
        assert feed.flow(other, 0) == -1
    assert feed.flow({"type": "l2Book", "coin": "BTC", "nSigFigs": None}, 0) == 2
    feed.on_trades("BTC", None)
    assert feed.flow(SUBSCRIPTIONS["trades"], 3) == -1


@pytest.mark.parametrize("link", [-1, 16, 2**31])
def test_a_link_that_cannot_be_is_refused_and_its_message_not_taken(link: int) -> None:
    feed = Feed()
    feed.book("BTC")
    with pytest.raises((ConfigError, OverflowError)):
        feed.on_message(SLOW, link=link)
    with pytest.raises((ConfigError, OverflowError)):
        feed.flow(SUBSCRIPTIONS["slow"], link)
    assert counted(feed, "l2Book") == {}


@pytest.mark.parametrize(("name", "message"), [("slow", SLOW), ("fast", FAST), ("bbo", BBO)])
def test_a_book_is_stale_while_one_of_its_feeds_is_down_and_live_once_it_speaks_again(
    name: str, message: bytes
) -> None:
    feed, book, other = two_live_books()
    for each in (SLOW, FAST, BBO):
        feed.on_message(each)
    assert not book.stale
    feed.mark_stale("cut", SUBSCRIPTIONS[name])
    assert book.stale
    assert book.stale_reason == f"{name} feed down: cut"
    assert book.copy().stale_reason == book.stale_reason
    assert not other.stale
    for each in (SLOW, FAST, BBO):
        if each is not message:
            feed.on_message(each)
    assert book.stale  # what the others say is no proof of the one that is down
    feed.on_message(message, link=1)  # the same time again, over another link: the venue's present answer
    assert not book.stale


def test_a_book_all_of_whose_feeds_are_down_begins_anew_and_waits_for_each() -> None:
    feed, book, _ = two_live_books()
    for each in (SLOW, FAST, BBO):
        feed.on_message(each)
    for name in ("slow", "bbo", "fast"):
        feed.mark_stale("cut", SUBSCRIPTIONS[name])
    assert book.times_ms == {}
    feed.on_message(plain("slow", T0 - 5000))  # older than before: it begins anew
    assert book.times_ms == {"slow": T0 - 5000}
    assert book.stale_reason == "fast and bbo feed down: cut"
    feed.on_message(plain("fast", T0 - 5000))
    feed.on_message(plain("bbo", T0 - 5000))
    assert not book.stale


def test_the_loss_of_a_feed_that_a_book_is_not_meant_to_have_changes_nothing() -> None:
    feed = Feed()
    book = feed.book("BTC", feeds=("fast", "bbo"))
    feed.on_message(FAST)
    for sub in (
        SUBSCRIPTIONS["slow"],
        SUBSCRIPTIONS["trades"],
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 3},
        {"type": "bbo", "coin": "ETH"},
        {"type": "userFills", "user": "0x"},
    ):
        feed.mark_stale("cut", sub)
    assert not book.stale


# --- bursts -------------------------------------------------------------------------------------------------------


def test_the_end_of_a_burst_is_told_to_those_who_asked() -> None:
    feed = Feed()
    got: list[int] = []
    assert not feed.wants_burst_end
    feed.on_burst(lambda: got.append(1))
    assert feed.wants_burst_end
    feed.on_burst_end()
    assert got == [1]
    feed.on_burst(None)
    assert not feed.wants_burst_end


# --- twins and replays --------------------------------------------------------------------------------------------


def trades_message(*tids: int, time_ms: int = T0) -> bytes:
    rows = [{**captures.trade(Random(tid), COINS[0], time_ms), "tid": tid} for tid in tids]
    return wire({"channel": "trades", "data": rows})


def test_of_two_links_the_first_book_message_counts_and_its_twin_calls_nobody() -> None:
    feed = Feed()
    calls: list[float] = []
    feed.on_book("BTC", lambda book: calls.append(book.best_bid))
    for at, shape in enumerate([SLOW, FAST, BBO]):
        feed.on_message(shape, recv_ns=100 * at, link=at % 2)
        px = feed.book("BTC").px.copy()
        feed.on_message(shape, recv_ns=100 * at + 7, link=2)
        np.testing.assert_array_equal(feed.book("BTC").px, px)
        assert feed.book("BTC").recv_ns == 100 * at
    assert len(calls) == 3
    assert counted(feed, "l2Book")["twins"] == 2
    assert counted(feed, "bbo")["twins"] == 1
    feed.on_message(SLOW, link=0)  # the link that was first may say the time again
    assert len(calls) == 4
    links = feed.links
    assert [links[i]["first"] for i in (0, 1)] == [2, 1]
    assert links[2] == {"messages": 3, "twins": 3, "first": 0, "lead_ns": None}
    assert (links[0]["lead_ns"].count, links[0]["lead_ns"].min, links[0]["lead_ns"].max) == (2, 7, 7)


def versions(shape: str, count: int, time_ms: int) -> list[bytes]:
    """Messages of one feed and one time whose contents differ: blocks that share a millisecond."""
    found = [captures.example(shape, PLAIN, seed, time_ms) for seed in range(count)]
    assert len(set(found)) == count
    return found


@pytest.mark.parametrize("shape", ["slow", "fast", "bbo"])
def test_a_newer_message_of_the_same_time_is_news_over_whichever_link_it_comes(shape: str) -> None:
    first, second = versions(shape, 2, T0)
    want = Book("BTC")
    want.apply(second)
    orders = {
        "the slower link has both": [(0, first), (1, first), (1, second), (0, second)],
        "the first link is cut after one": [(0, first), (1, first), (1, second)],
        "the second link missed the first": [(0, first), (1, second), (0, second)],
        "and the first is cut": [(0, first), (1, second)],
        "the second link is behind": [(0, first), (0, second), (1, first), (1, second)],
        "the first link missed the first": [(0, second), (1, first), (1, second)],
    }
    for said, order in orders.items():
        feed, calls = Feed(), list[bytes]()
        feed.on_book("BTC", lambda book, calls=calls: calls.append(book.px.tobytes()))  # type: ignore[misc]
        for at, (link, message) in enumerate(order):
            feed.on_message(message, recv_ns=at, link=link)
        book = feed.book("BTC")
        for name in ("px", "sz", "n", "count"):
            np.testing.assert_array_equal(getattr(book, name), getattr(want, name), err_msg=said)
        assert len(calls) == (3 if said == "the first link missed the first" else 2), said


@given(st.integers(0, 2**32))
def test_links_that_say_several_versions_of_one_time_deliver_each_once_and_in_order(seed: int) -> None:
    rng = Random(seed)
    shape = rng.choice(("slow", "fast", "bbo"))
    distinct = versions(shape, 4, T0)
    script = [rng.choice(distinct) for _ in range(rng.randint(1, 9))]
    script = [m for at, m in enumerate(script) if not at or m != script[at - 1]]  # A, B, A: the same may come again
    left = {link: list(script) for link in range(rng.randint(2, 4))}
    feed, one = Feed(), Feed()
    got, want = list[bytes](), list[bytes]()
    feed.on_book("BTC", lambda book: got.append(book.px.tobytes() + book.sz.tobytes()))
    one.on_book("BTC", lambda book: want.append(book.px.tobytes() + book.sz.tobytes()))
    for message in script:
        one.on_message(message)
    while left:
        link = rng.choice(list(left))
        feed.on_message(left[link].pop(0), link=link)
        if not left[link]:
            del left[link]
    assert got == want


@given(st.integers(0, 2**32))
def test_links_that_joined_late_still_leave_the_last_version_of_a_time(seed: int) -> None:
    rng = Random(seed)
    script = versions(rng.choice(("slow", "fast", "bbo")), rng.randint(1, 6), T0)
    left = {link: script[rng.randint(0, len(script) - 1) :] for link in range(rng.randint(1, 4))}
    feed, want = Feed(), Book("BTC")
    feed.book("BTC")
    want.apply(script[-1])
    while left:
        link = rng.choice(list(left))
        feed.on_message(left[link].pop(0), link=link)
        if not left[link]:
            del left[link]
    np.testing.assert_array_equal(feed.book("BTC").px, want.px)
    np.testing.assert_array_equal(feed.book("BTC").sz, want.sz)


def test_a_link_that_is_hopelessly_behind_rolls_nothing_back() -> None:
    many = versions("bbo", 40, T0)
    feed = Feed()
    book = feed.book("BTC", feeds=("bbo",))
    for message in many:
        feed.on_message(message, link=3)
    px, sz = book.px.copy(), book.sz.copy()
    for message in many:
        feed.on_message(message, link=5)
        np.testing.assert_array_equal(book.px, px)
        np.testing.assert_array_equal(book.sz, sz)
    assert counted(feed, "bbo")["twins"] == 40
    feed.on_message(plain("bbo", T0 + 9), link=5)
    assert book.time_ms == T0 + 9


def test_a_twin_does_not_make_a_stale_book_look_live() -> None:
    feed = Feed()
    book = feed.book("BTC")
    feed.on_message(SLOW, link=0)
    with pytest.raises(DecodeError):
        feed.on_message(SLOW[:-2], link=0)
    feed.on_message(SLOW, link=1)  # as old as what was known before the bad one
    assert book.stale_reason == "bad message"
    feed.on_message(plain("slow", T0 + 5000), link=1)
    assert not book.stale


@pytest.mark.parametrize("users", [False, True])
def test_each_trade_comes_once_and_a_message_without_a_new_one_calls_nobody(users: bool) -> None:
    feed = Feed(trade_users=users)
    got: list[NDArray[np.void]] = []
    feed.on_trades("BTC", lambda rows: got.append(rows.copy()))
    feed.on_message(trades_message(1, 2, 3), recv_ns=1)
    feed.on_message(trades_message(1, 2, 3), recv_ns=5, link=1)
    mixed = trades_message(2, 3, 7, 8, 8)
    feed.on_message(mixed)
    feed.on_message(trades_message(8, 0, -5))
    assert [rows["tid"].tolist() for rows in got] == [[1, 2, 3], [7, 8], [0, -5]]
    want = oracles.read_trades(mixed, users=users)[1][[2, 3]]
    for field in want.dtype.names or ():
        assert got[1][field].tobytes() == want[field].tobytes()  # whole rows, not only their tid
    feed.on_message(trades_message(0, -5, 1))
    assert len(got) == 3
    assert counted(feed, "trades")["twins"] == 2
    assert feed.trades_seen_before == 3 + 3 + 1 + 3
    assert feed.links[0]["lead_ns"].max == 4
    feed.on_trades("BTC", None)
    feed.on_trades("BTC", lambda rows: got.append(rows.copy()))
    feed.on_message(trades_message(1))  # after nobody listened, nothing is remembered
    assert len(got) == 4


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_the_last_1024_trades_are_remembered_and_nothing_new_is_taken_for_old(most: int, seed: int) -> None:
    feed, rng = Feed(), Random(seed)
    got: list[int] = []
    feed.on_trades("BTC", lambda rows: got.extend(rows["tid"].tolist()))
    known: list[int] = []  # in the order in which they came
    times_ms: dict[int, int] = {}
    row = captures.trade(Random(1), COINS[0], T0)
    for at in range(60):
        fresh = [rng.choice((at << 20, rng.getrandbits(40) << 12)) + i for i in range(rng.randint(0, most))]
        fresh = [tid for tid in dict.fromkeys(fresh) if tid not in known]
        old = rng.sample(known[-1024:], min(len(known), rng.randint(0, 5)))
        tids = fresh + old
        rng.shuffle(tids)
        if tids:
            for tid in tids:
                times_ms.setdefault(tid, T0 + at)
            rows = [{**row, "tid": tid, "time": times_ms[tid]} for tid in tids]
            before = len(got)
            feed.on_message(wire({"channel": "trades", "data": rows}))
            assert got[before:] == [tid for tid in tids if tid in fresh]
        known += [tid for tid in tids if tid in fresh]


def test_what_is_older_than_a_known_trade_of_its_message_was_missed_before_and_does_not_come_late() -> None:
    feed = Feed()
    got: list[list[int]] = []
    feed.on_trades("BTC", lambda rows: got.append(rows["tid"].tolist()))

    def message(*tids: int) -> bytes:
        return wire(
            {"channel": "trades", "data": [{**captures.trade(Random(t), COINS[0], T0 + t), "tid": t} for t in tids]}
        )

    feed.on_message(message(5))
    feed.on_message(message(3, 4, 5, 6))
    feed.on_message(message(8, 6, 7))  # whatever the order of the rows
    feed.on_message(message(1))  # nothing in it is known: it is not for us to say that it is old
    feed.on_message(trades_message(11))
    feed.on_message(trades_message(12, 10, 11, 13))  # all of one time: the venue's order is all that tells
    assert got == [[5], [6], [8, 7], [1], [11], [13]]


def test_a_message_of_any_size_is_remembered_whole() -> None:
    feed = Feed()
    got: list[int] = []
    feed.on_trades("BTC", lambda rows: got.append(len(rows)))
    sizes = (1000, 1500, 5000, 700, 5000, 12_000)
    messages = [trades_message(*range(10**6 * i, 10**6 * i + size)) for i, size in enumerate(sizes)]
    last = b""
    for message in messages:
        feed.on_message(message)
        feed.on_message(message, link=1)
        if last:
            feed.on_message(last, link=2)
        last = message
    assert got == list(sizes)


def test_several_links_with_delays_of_their_own_give_what_one_without_loss_gives() -> None:
    coin = COINS[0]
    for seed in range(30):
        rng = Random(seed)
        script = [
            SHAPE(Random(f"{seed} {at}"), coin, T0 + 100 * at + 1)
            for at, SHAPE in enumerate(
                rng.choices([captures.SHAPES[n] for n in ("slow", "fast", "bbo", "trades")], k=60)
            )
        ]
        one, many = Feed(), Feed()
        got: tuple[list[bytes], list[bytes]] = ([], [])
        for feed, rows_of in zip((one, many), got, strict=True):
            feed.book(coin.name)
            feed.on_trades(coin.name, lambda rows, rows_of=rows_of: rows_of.append(rows.tobytes()))  # type: ignore[misc]
        for message in script:
            one.on_message(message)
        # each link keeps its order and is at most one message behind; each message comes over one of them at least
        arrivals = []
        for link in range(3):
            late = 0.0
            for at, message in enumerate(script):
                late = max(late, at + rng.random() * 0.9)
                if at % 3 == link or rng.random() < 0.7:
                    arrivals.append((late, link, message))
        for _, link, message in sorted(arrivals, key=lambda a: a[0]):
            many.on_message(message, link=link)
        book, want = many.book(coin.name), one.book(coin.name)
        for name in ("px", "sz", "n", "count"):
            np.testing.assert_array_equal(getattr(book, name), getattr(want, name), err_msg=f"{seed} {name}")
        assert got[1] == got[0], seed
        assert book.seq == want.seq, seed
        dropped = sum(c["twins"] for c in many.counters.values())
        assert dropped == len(arrivals) - len(script), seed


def test_the_first_trades_of_a_link_say_how_many_were_known_and_what_came_before() -> None:
    feed = Feed()
    got: list[list[int]] = []
    firsts: list[tuple[list[int], int, int, int]] = []

    def on_replay(rows: NDArray[np.void], known: int, link: int, last_ms: int) -> None:
        firsts.append((rows["tid"].tolist(), known, link, last_ms))

    def newest() -> int:
        return feed.last_trade_ms("BTC") or 0

    feed.on_trades("BTC", lambda rows: got.append(rows["tid"].tolist()))
    feed.on_message(trades_message(1, 2, 3))
    times = [newest()]
    feed.on_replay("BTC", on_replay)
    feed.on_message(trades_message(2, 3, 4))
    times.append(newest())
    feed.on_message(trades_message(3, 4, 5))
    times.append(newest())
    feed.await_replay("BTC", 0)
    feed.on_message(trades_message(4, 5))  # nothing new: it is told all the same
    feed.await_replay("BTC", 0)
    feed.on_message(trades_message(8))
    assert firsts == [([4], 2, 0, times[0]), ([], 2, 0, times[2]), ([8], 0, 0, times[2])]
    assert got == [[1, 2, 3], [5]]
    assert feed.seen_trades("BTC", np.array([1, 8, 9])).tolist() == [True, True, False]
    assert feed.seen_trades("ETH", np.array([1])).tolist() == [False]
    filled = np.zeros(2, TRADE_DTYPE)
    filled["tid"] = [6, 7]
    feed.note_trades("BTC", filled)
    feed.note_trades("ETH", filled)
    feed.on_message(trades_message(6, 7))
    assert got == [[1, 2, 3], [5]]
    feed.on_replay("BTC", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        feed.on_message(trades_message(10))
    assert feed.failed == ("trades", "BTC")
    feed.on_message(trades_message(11))
    assert got[-1] == [11]
    feed.on_replay("BTC", None)
    feed.await_replay("BTC", 0)  # there is nobody to tell
    feed.on_message(trades_message(12))
    assert got[-1] == [12]


def test_the_first_trades_of_each_link_are_told_of_apart() -> None:
    feed = Feed()
    got: list[list[int]] = []
    firsts: list[tuple[list[int], int, int]] = []

    def on_replay(rows: NDArray[np.void], known: int, link: int, last_ms: int) -> None:
        firsts.append((rows["tid"].tolist(), known, link))

    feed.on_trades("BTC", lambda rows: got.append(rows["tid"].tolist()))
    feed.on_replay("BTC", on_replay)
    feed.await_replay("BTC", 0, False)
    feed.on_message(trades_message(1, 2), 0, 0)
    feed.on_message(trades_message(3), 0, 0)
    feed.on_message(trades_message(2, 3), 0, 0)
    feed.on_message(trades_message(2, 3), 0, 1)
    feed.on_message(trades_message(2, 3), 0, 1)
    feed.on_message(trades_message(4), 0, 1)
    feed.on_message(trades_message(7), 0, 15)
    feed.on_message(trades_message(8), 0, 15)
    assert firsts == [([], 2, 1), ([7], 0, 15)]
    assert got == [[1, 2], [3], [4], [8]]
    with pytest.raises(ConfigError, match="link"):
        feed.await_replay("BTC", 16)


# --- aggregated books ---------------------------------------------------------------------------------------------


def coarse(seed: int, time_ms: int = T0, *, levels: tuple[int, int] = (20, 20), fast: bool = False) -> bytes:
    """An l2Book message of a subscription with nSigFigs."""
    spread = {"spread": "1.0"} if all(levels) else {}  # of a book without a bid or an ask
    return captures.l2book(Random(seed), PLAIN, time_ms, levels=levels, fast=fast, **spread)


def shows(book: Book, message: bytes) -> bool:
    return bool((book.px == oracles.arrays(oracles.read_book(message).sides, book.depth).px)[:, 0].all())


@pytest.mark.parametrize("link", [0, 1])
def test_an_aggregated_message_that_nobody_told_of_is_folded_into_no_book(link: int) -> None:
    feed = Feed()
    book = feed.book("BTC")
    feed.on_message(SLOW)
    px, seq = book.px.copy(), book.seq
    for message in (coarse(1, T0 + 1), coarse(1, T0), captures.respell(coarse(2, T0 + 2), Random(1))):
        feed.on_message(message, link=link)
    np.testing.assert_array_equal(book.px, px)
    assert (book.seq, book.stale) == (seq, False)
    assert counted(feed, "l2Book")["unrouted"] == 3
    assert feed.flow(SUBSCRIPTIONS["slow"], link) == (link == 0)


def test_the_link_says_whose_an_aggregated_message_is() -> None:
    feed = Feed()
    plain_book, calls = feed.book("BTC"), list[str]()
    four, five = (Book("BTC", feeds=("slow", "fast"), aggregated=True) for _ in range(2))
    feed.aggregated("BTC", 1, four, lambda book: calls.append("four"))
    feed.aggregated("BTC", 2, five, (lambda book: calls.append("five"), lambda book: calls.append("too")))
    for link, message in [(0, SLOW), (1, coarse(4)), (2, coarse(5)), (2, coarse(6, T0 + 1, fast=True)), (1, BBO)]:
        feed.on_message(message, link=link)
    assert calls == ["four", "five", "too", "five", "too"]
    assert shows(four, coarse(4))
    assert shows(five, coarse(6, fast=True))
    assert (plain_book.seq, four.seq, five.seq) == (2, 1, 2)
    feed.on_message(coarse(7, T0 + 9), link=0)  # where nobody asked for one
    feed.on_message(plain("slow", T0 + 9), link=1)  # the plain one goes to the plain book over whichever link it comes
    assert (plain_book.time_ms, four.time_ms) == (T0 + 9, T0)
    four_of = {"type": "l2Book", "coin": "BTC", "nSigFigs": 4}
    assert [feed.flow(four_of, link) for link in range(4)] == [-1, 1, 1, -1]
    assert feed.flow({**four_of, "fast": True}, 2) == 1
    feed.aggregated("BTC", 1, None)
    feed.aggregated("BTC", 3, four)  # it moved
    feed.on_message(coarse(8, T0 + 10), link=1)
    feed.on_message(coarse(9, T0 + 10), link=3)
    assert shows(four, coarse(9))
    assert counted(feed, "l2Book")["unrouted"] == 2
    feed.drop_book("BTC", "nobody asks")
    feed.on_message(coarse(10, T0 + 20), link=3)
    assert four.time_ms == T0 + 20


def test_two_links_may_carry_one_aggregated_book() -> None:
    feed = Feed()
    book = Book("BTC", feeds=("slow",), aggregated=True)
    for link in (1, 2):
        feed.aggregated("BTC", link, book)
    for link in (1, 2):
        feed.on_message(coarse(4), link=link)
    assert (book.seq, counted(feed, "l2Book")["twins"]) == (1, 1)
    feed.on_stale(lambda coin, reason: 1 / 0)  # tells of plain books alone
    feed.on_live(lambda coin, from_ms, reason: 1 / 0)
    assert feed.mark_silent(10**12, 1, 1) == 1
    assert book.stale_reason == "slow feed silent"
    feed.on_message(coarse(4, T0 + 1), link=2)
    assert not book.stale
    feed.mark_stale("link lost")
    assert book.stale


@pytest.mark.parametrize("levels", [(0, 3), (3, 0), (0, 0)])
def test_a_side_that_is_empty_has_no_spread_and_the_link_decides(levels: tuple[int, int]) -> None:
    feed = Feed()
    fine, rough = feed.book("BTC"), Book("BTC", feeds=("slow",), aggregated=True)
    feed.aggregated("BTC", 1, rough)
    feed.on_message(coarse(1, levels=levels), link=1)
    assert (rough.seq, fine.seq) == (1, 0)
    feed.on_message(coarse(1, levels=levels), link=0)
    assert (rough.seq, fine.seq) == (1, 1)


def test_a_book_alone_reads_only_messages_of_its_own_kind() -> None:
    fine, rough = Book("BTC"), Book("BTC", feeds=("slow",), aggregated=True)
    fine.apply(SLOW)
    rough.apply(coarse(1))
    assert rough.copy().aggregated
    for book, other in ((fine, coarse(2, T0 + 1)), (rough, plain("slow", T0 + 1))):
        before = book.px.tobytes()
        with pytest.raises(DecodeError, match="aggregated subscription"):
            book.apply(other)
        assert (book.px.tobytes(), book.stale, book.seq) == (before, False, 1)


def test_a_book_of_another_kind_or_coin_is_not_taken_for_an_aggregated_one() -> None:
    feed = Feed()
    for book in (Book("BTC"), Book("ETH", aggregated=True)):
        with pytest.raises(ConfigError, match="aggregated book of BTC is needed"):
            feed.aggregated("BTC", 0, book)
    with pytest.raises(ConfigError, match="link"):
        feed.aggregated("BTC", 16, None)


# --- several listeners --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [SLOW, BBO, TRADES])
def test_a_tuple_of_callbacks_is_called_in_order_and_one_may_stop_another(message: bytes) -> None:
    feed = Feed()
    got: list[str] = []
    listen = feed.on_trades if message is TRADES else feed.on_book

    def first(_: Any) -> None:
        got.append("first")

    def stops_third(_: Any) -> None:
        got.append("second")
        listen("BTC", (first, stops_third))

    def third(_: Any) -> None:
        got.append("third")

    listen("BTC", (first, stops_third, third))
    feed.on_message(message)
    feed.on_message(anew(message, 1))
    assert got == ["first", "second"] * 2
    listen("BTC", (first, third))
    feed.on_message(anew(message, 2))
    assert got[4:] == ["first", "third"]

    def stops_all(_: Any) -> None:
        listen("BTC", None)

    def leaves_one(_: Any) -> None:
        listen("BTC", third)

    for stop, called in ((stops_all, []), (leaves_one, ["third"])):
        got.clear()
        listen("BTC", (stop, first, third))
        feed.on_message(anew(message, 3 + len(called)))
        assert got == called


def test_a_callback_that_raises_keeps_its_message_from_those_after_it() -> None:
    feed = Feed()
    got: list[str] = []
    feed.on_book("BTC", (lambda _: got.append("first"), lambda _: 1 / 0, lambda _: got.append("third")))
    with pytest.raises(ZeroDivisionError):
        feed.on_message(SLOW)
    assert got == ["first"]
    assert feed.failed == ("l2Book", "BTC")


# --- what ceased to be live, and is again ------------------------------------------------------------------------


def test_it_is_told_once_when_a_book_ceases_to_be_live_and_once_when_it_is_again() -> None:
    feed, book, _ = two_live_books()
    told: list[Any] = []
    feed.on_stale(lambda coin, reason: told.append((coin, "stale", reason)))
    feed.on_live(lambda coin, from_ms, reason: told.append((coin, from_ms, reason)))
    feed.on_book("BTC", lambda book: told.append(book.time_ms))
    known = book.time_ms

    def ends(message: bytes) -> list[Any]:
        """What was told since the last time, and then with this message."""
        feed.on_message(message)
        got = list(told)
        told.clear()
        return got

    with pytest.raises(DecodeError):
        feed.on_message(SLOW[:-2])
    feed.mark_stale("lost as well", restart=False)
    assert [t for t in told if t[0] == "BTC"] == [("BTC", "stale", "bad message")]
    told.clear()
    assert ends(plain("slow", T0 + 1)) == [("BTC", known, "bad message"), max(known, T0 + 1)]
    assert ends(plain("slow", T0 + 10)) == [T0 + 10]
    feed.mark_stale("cut", SUBSCRIPTIONS["fast"])
    feed.mark_stale("cut", SUBSCRIPTIONS["fast"])
    assert ends(plain("slow", T0 + 20)) == [("BTC", "stale", "fast feed down: cut"), T0 + 20]
    assert ends(plain("fast", T0 + 30)) == [("BTC", T0 + 10, "cut"), T0 + 30]
    feed.on_message(plain("bbo", T0 + 31), recv_ns=5)
    told.clear()
    feed.mark_silent(10**12, slow_ns=10**10, fast_ns=10**9)
    assert [t for t in told if t[0] == "BTC"] == [("BTC", "stale", "slow feed silent and fast feed silent")]
    told.clear()
    feed.on_message(plain("fast", T0 + 5000), recv_ns=10**12)
    assert told == [T0 + 5000]
    told.clear()
    # since the slow feed's last message: deeper levels rest on it alone
    assert ends(plain("slow", T0 + 5001)) == [("BTC", T0 + 20, "slow feed silent"), T0 + 5001]
    feed.on_stale(None)
    feed.on_live(None)
    feed.mark_stale("lost")
    assert ends(SLOW) == [T0]


def test_a_book_that_was_never_live_did_not_cease_to_be() -> None:
    feed = Feed()
    told: list[Any] = []
    feed.on_stale(lambda *what: told.append(what))
    feed.on_live(lambda *what: told.append(what))
    feed.book("BTC")
    feed.mark_stale("lost")
    feed.mark_stale("cut", SUBSCRIPTIONS["bbo"])
    for message in (BBO, SLOW, FAST):
        feed.on_message(message)
    assert told == []


# --- measuring ----------------------------------------------------------------------------------------------------


def test_lag_is_what_a_message_took_longer_than_the_quickest_of_the_last_minutes() -> None:
    feed = Feed()
    assert feed.lag_ns is None
    assert feed.callback_ns is None
    feed.book("BTC", feeds=("bbo",))
    feed.on_message(BBO)
    feed.measure()
    feed.measure()
    lags: list[float] = []
    second = 10**9

    def after(seconds: float, took_ns: int, shape: str = "bbo") -> float:
        """The lag of a message of that venue time that took so long, on clocks that differ by three hours."""
        time_ms = T0 + int(1000 * seconds)
        histogram = feed.lag_ns
        assert histogram is not None
        histogram.reset()
        feed.on_message(plain(shape, time_ms), recv_ns=int(seconds * second) + 3 * 3600 * second + took_ns)
        lags.append(histogram.max)
        return histogram.max

    assert after(1, 500) == 0  # nothing to compare with
    assert after(2, 600) == 100
    assert after(3, 450) == 0
    assert after(4, 460) == 10
    assert after(50, 500) == 50
    assert after(65, 700) == 250  # a new minute: the last one still counts
    assert after(66, 900) == 450
    assert after(130, 800) == 100  # and now the one before it does not
    feed.on_trades("BTC", len)
    assert feed.lag_ns is not None
    before = feed.lag_ns.count
    feed.on_message(plain("trades", T0 + 131_000), recv_ns=131 * second + 3 * 3600 * second)
    assert feed.lag_ns.count == before + 1
    feed.on_message(plain("bbo", 10**16), recv_ns=1)  # no nanoseconds of it in 64 bits
    assert feed.lag_ns.count == before + 1


# --- a whole session ----------------------------------------------------------------------------------------------


def test_a_session_of_all_coins_ends_with_the_books_of_the_oracle() -> None:
    feed = Feed()
    folds = {coin.name: oracles.Fold() for coin in COINS}
    trades = {coin.name: 0 for coin in COINS}

    def count(name: str, size: int) -> None:
        trades[name] += size

    for coin in COINS:
        feed.book(coin.name, 30)
        feed.on_trades(coin.name, lambda rows, name=coin.name: count(name, len(rows)))  # type: ignore[misc]
    rng = Random(8)
    for message in captures.stream(8, 2):
        try:
            read = oracles.read_book(message)
            folds[read.coin].apply(read)
        except oracles.Refused:
            pass
        feed.on_message(captures.respell(message, rng) if rng.random() < 0.2 and message != GREETING else message)
    for coin in COINS:
        want = oracles.arrays(folds[coin.name].sides(), 30)
        book = feed.book(coin.name)
        for name in ("px", "sz", "n", "count"):
            np.testing.assert_array_equal(getattr(book, name), getattr(want, name), err_msg=f"{coin.name} {name}")
        assert book.beyond == want.beyond
        assert trades[coin.name] == 2 * (1 + 7 + 5 + 90)
    assert feed.counters["trades"]["messages"] == 2 * 5 * len(COINS)
    assert {feed.counters[c]["errors"] for c in ("l2Book", "bbo", "trades", "other")} == {0}
