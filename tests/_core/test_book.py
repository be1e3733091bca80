"""book.pyx: the fold against its oracle, the arrays, what is said about trust, and the analytics."""

from __future__ import annotations

import gc
import itertools
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import captures
import numpy as np
import oracles
import pytest
from captures import COINS, T0, wire
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hlconn import ASK, BID, Book, ConfigError, DecodeError, Grade, Side

pytestmark = pytest.mark.usefixtures("reader")

SLOW = captures.example("slow")
FAST = captures.example("fast", time_ms=T0 + 1)
BBO = captures.example("bbo", time_ms=T0 + 2)
Row = list[tuple[float, float]]


def snapshot(time_ms: int, bids: Row, asks: Row, *, fast: bool = False) -> bytes:
    sides = [[{"px": str(px), "sz": str(sz), "n": 1 + int(sz)} for px, sz in side] for side in (bids, asks)]
    data: dict[str, Any] = {"coin": "BTC", "time": time_ms, "levels": sides}
    return wire({"channel": "l2Book", "data": data | {"fast": True} if fast else data})


def top(time_ms: int, bid: tuple[float, float] | None, ask: tuple[float, float] | None) -> bytes:
    tops = [x and {"px": str(x[0]), "sz": str(x[1]), "n": 1 + int(x[1])} for x in (bid, ask)]
    return wire({"channel": "bbo", "data": {"coin": "BTC", "time": time_ms, "bbo": tops}})


def whole(book: Book) -> tuple[Any, ...]:
    arrays = (book.px, book.sz, book.n, book.count, book.changed)
    return (
        *(a.tobytes() for a in arrays),
        book.seq,
        book.time_ms,
        book.recv_ns,
        book.beyond,
        book.times_ms,
        book.grade,
    )


# --- the fold -----------------------------------------------------------------------------------------------------


class Twin:
    """A book and its oracle, fed the same; they have to agree after every message, and `changed` with both."""

    def __init__(self, depth: int) -> None:
        self.book, self.fold, self.depth = Book("BTC", depth), oracles.Fold(), depth
        self.seq = 0

    def restart(self) -> None:
        levels = self.book.px.copy()
        self.book.mark_stale("link lost", restart=True)
        self.fold.restart()
        np.testing.assert_array_equal(self.book.px, levels)  # readable until the next message

    def apply(self, message: bytes) -> None:
        book = self.book
        before = whole(book)
        old = [a.copy().view(np.int64) for a in (book.px, book.sz, book.n)]
        applied = self.fold.apply(oracles.read_book(message))
        assert book.apply(message, recv_ns=self.seq + 10) == applied
        if not applied:
            assert whole(book) == before
            return
        self.seq += 1
        want = oracles.arrays(self.fold.sides(), self.depth)
        for name in ("px", "sz", "n", "count"):
            np.testing.assert_array_equal(getattr(book, name), getattr(want, name), err_msg=name)
        assert book.beyond == want.beyond
        assert book.time_ms == self.fold.time_ms
        assert book.times_ms == {feed: m.time_ms for feed, m in self.fold.last.items()}
        assert (book.seq, book.recv_ns) == (self.seq, self.seq + 9)
        new = [a.view(np.int64) for a in (book.px, book.sz, book.n)]
        differ = np.logical_or.reduce([a != b for a, b in zip(old, new, strict=True)])
        np.testing.assert_array_equal(book.changed, differ)


def grid_side(row: int, edge: int, steps: list[tuple[int, int]]) -> Row:
    """Levels on a narrow grid of whole prices, so that feeds meet, hide and cross each other all the time."""
    out, at = [], edge
    for step, sz in steps:
        out.append((float(at), float(sz)))
        at += step if row else -step
    return [level for level in out if level[0] > 0]


steps = st.lists(st.tuples(st.integers(1, 2), st.integers(0, 3)), max_size=9)
messages = st.builds(
    lambda kind, time, bid, spread, bids, asks: (
        snapshot(T0 + time, grid_side(0, bid, bids), grid_side(1, bid + spread, asks), fast=kind == "fast")
        if kind != "bbo"
        else top(
            T0 + time,
            (float(bid), 1.0 + len(bids)) if len(bids) < 8 else None,
            (float(bid + spread), 1.0 + len(asks)) if len(asks) < 8 else None,
        )
    ),
    st.sampled_from(["slow", "fast", "bbo", "bbo"]),
    st.integers(0, 7),
    st.integers(20, 34),
    st.integers(1, 3),
    steps,
    steps,
)


@settings(max_examples=max(300, settings().max_examples))
@given(st.lists(st.one_of(messages, messages, messages, messages, st.just(None)), max_size=14), st.integers(1, 12))
def test_the_book_is_the_fold_of_the_last_message_of_each_feed(script: list[bytes | None], depth: int) -> None:
    twin = Twin(depth)
    for message in script:
        if message is None:
            twin.restart()
        else:
            twin.apply(message)


@pytest.mark.parametrize("depth", [1, 2, 5, 20, 30, 100, 200])
def test_long_interleavings_of_plausible_messages_fold_as_the_oracle_says(depth: int) -> None:
    rng = Random(depth)
    shapes = [s for s in captures.BOOK_SHAPES if s != "deep" or depth >= 110]
    twin = Twin(depth)
    now = T0
    for _ in range(400):
        now += rng.choice((0, 0, 1, 100))
        late = rng.choice((0, 0, 0, 1, 100, 300))
        shape = rng.choice(shapes) if rng.random() < 0.5 else rng.choice(["bbo", "bbo", "fast", "slow"])
        twin.apply(captures.SHAPES[shape](rng, COINS[0], now - late))
        if rng.random() < 0.03:
            twin.restart()


FIVE = [(100.0 - i, 1.0) for i in range(5)], [(101.0 + i, 1.0) for i in range(5)]
TEN = [(100.0 - i, 2.0) for i in range(10)], [(101.0 + i, 2.0) for i in range(10)]


def test_an_older_snapshot_never_rolls_the_top_back() -> None:
    book = Book("BTC")
    book.apply(snapshot(T0, *TEN))
    book.apply(top(T0 + 10, (100.5, 7.0), (100.75, 8.0)))
    book.apply(snapshot(T0 + 5, *FIVE))
    assert (book.best_bid, book.best_ask) == (100.5, 100.75)
    assert list(book.px[BID, :7]) == [100.5, *[p for p, _ in FIVE[0]], pytest.approx(math.nan, nan_ok=True)]
    assert book.time_ms == T0 + 10


def test_at_equal_time_the_bbo_is_folded_last_whichever_came_first() -> None:
    for order in itertools.permutations(
        [snapshot(T0, *TEN), snapshot(T0, *FIVE, fast=True), top(T0, (99.5, 9.0), None)]
    ):
        book = Book("BTC")
        for message in order:
            book.apply(message)
        assert list(book.px[BID, :3]) == [99.5, 99.0, 98.0]
        assert list(book.sz[BID, :6]) == [9.0, 1.0, 1.0, 1.0, 1.0, 2.0]  # five of the fast, below it the slow
        assert list(book.count) == [10, 0]


def test_a_fast_side_of_five_keeps_what_is_deeper_and_a_shorter_one_does_not() -> None:
    for size, left in ((5, 10), (4, 4), (0, 0)):
        book = Book("BTC")
        book.apply(snapshot(T0, *TEN))
        book.apply(snapshot(T0 + 1, FIVE[0][:size], FIVE[1], fast=True))
        assert list(book.count) == [left, 10]


def test_what_a_bbo_hides_comes_up_again_and_what_it_has_no_room_for_is_counted() -> None:
    book = Book("BTC", depth=3)
    book.apply(snapshot(T0, *TEN))
    assert book.beyond == (7, 7)
    book.apply(top(T0 + 1, (97.5, 1.0), (101.0, 1.0)))
    assert list(book.px[BID]) == [97.5, 97.0, 96.0]
    assert book.beyond == (5, 7)
    book.apply(top(T0 + 2, (100.5, 1.0), (101.0, 1.0)))
    assert list(book.px[BID]) == [100.5, 100.0, 99.0]
    assert book.beyond == (8, 7)
    book.apply(top(T0 + 3, (1.0, 1.0), None))
    assert list(book.px[BID, :1]) == [1.0]
    assert (list(book.count), book.beyond) == ([1, 0], (0, 0))


def test_the_first_bbo_after_a_restart_shows_nothing_of_what_was_there_before() -> None:
    book = Book("BTC")
    book.apply(snapshot(T0, *TEN))
    book.apply(top(T0 + 1, (100.25, 1.0), (100.75, 1.0)))  # hides nothing, nor does the next
    book.mark_stale("link lost", restart=True)
    book.apply(top(T0 + 2, (100.3, 1.0), (100.7, 1.0)))
    assert list(book.count) == [1, 1]
    assert np.isnan(book.px[:, 1:]).all()


def test_after_a_restart_an_older_message_is_the_first_of_a_new_fold() -> None:
    book = Book("BTC")
    book.apply(snapshot(T0 + 100, *TEN))
    assert not book.apply(snapshot(T0, *FIVE))
    book.mark_stale("link lost", restart=True)
    assert book.apply(snapshot(T0, *FIVE))
    assert list(book.count) == [5, 5]
    assert book.time_ms == T0


def test_a_message_of_equal_time_of_the_same_feed_replaces_the_one_before() -> None:
    book = Book("BTC")
    book.apply(snapshot(T0, *TEN))
    assert book.apply(snapshot(T0, *FIVE))
    assert list(book.count) == [5, 5]


# --- the arrays ---------------------------------------------------------------------------------------------------

ARRAYS = ("px", "sz", "n", "count", "changed")


def test_the_arrays_are_what_the_page_says() -> None:
    book = Book("BTC", depth=7)
    assert [(getattr(book, a).dtype, getattr(book, a).shape) for a in ARRAYS] == [
        (np.float64, (2, 7)), (np.float64, (2, 7)), (np.int64, (2, 7)), (np.int64, (2,)), (np.bool_, (2, 7)),
    ]  # fmt: skip
    assert np.isnan(book.px).all()
    assert not book.sz.any()
    assert not book.n.any()
    assert not book.count.any()
    assert not book.changed.any()
    assert (book.coin, book.depth, book.seq, book.time_ms, book.recv_ns) == ("BTC", 7, 0, 0, 0)
    assert Book("BTC").depth == 20


def test_the_arrays_never_move() -> None:
    book = Book("BTC")
    arrays = {a: getattr(book, a) for a in ARRAYS}
    addresses = {a: getattr(book, a).ctypes.data for a in ARRAYS}
    for message in captures.stream(3, 2, COINS[:1]):
        try:
            book.apply(message)
        except DecodeError:
            book.mark_stale("x", restart=True)
    assert book.seq > 20
    for a in ARRAYS:
        assert getattr(book, a) is arrays[a]
        assert getattr(book, a).ctypes.data == addresses[a]


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("own", [True, False])
def test_the_arrays_are_read_only_and_cannot_be_made_writable(name: str, own: bool) -> None:
    book = Book("BTC", buffer=None if own else aligned(Book.nbytes(20)))
    book.apply(SLOW)
    array: NDArray[Any] = getattr(book, name)
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[...] = 0
    base: Any = array
    while isinstance(base, np.ndarray):
        with pytest.raises(ValueError, match="WRITEABLE"):
            base.flags.writeable = True
        base = base.base
    if not isinstance(base, memoryview):
        base = memoryview(base)
    assert base.readonly
    with pytest.raises((AttributeError, TypeError)):
        setattr(book, name, array.copy())


def test_the_arrays_outlive_the_book() -> None:
    book = Book("BTC")
    book.apply(SLOW)
    px, want = book.px, book.px.copy()
    del book
    gc.collect()
    others = [Book("BTC") for _ in range(50)]
    np.testing.assert_array_equal(px, want)
    assert len(others) == 50


def aligned(size: int, shift: int = 0) -> memoryview:
    room: Any = np.full(size + 32, 0xAA, np.uint8)
    start = -room.ctypes.data % 16 + shift
    return memoryview(room)[start : start + size]


@pytest.mark.parametrize("depth", [1, 3, 20, 200])
def test_a_book_can_live_on_a_callers_buffer(depth: int) -> None:
    size = Book.nbytes(depth)
    assert size == 2 * depth * 25 + 16
    buffer: Any = aligned(size)
    book, own = Book("BTC", depth, buffer=buffer), Book("BTC", depth)
    cells = 2 * depth
    for message in (None, SLOW, FAST, BBO):
        if message is not None:
            book.apply(message)
            own.apply(message)
        raw = bytes(buffer)
        assert raw[: 8 * cells] == own.px.tobytes() == book.px.tobytes()
        assert raw[8 * cells : 16 * cells] == own.sz.tobytes()
        assert raw[16 * cells : 24 * cells] == own.n.tobytes()
        assert raw[24 * cells : 24 * cells + 16] == own.count.tobytes()
        assert raw[24 * cells + 16 :] == own.changed.tobytes()
    assert book.px.ctypes.data == np.frombuffer(buffer, np.uint8).ctypes.data


def test_a_larger_buffer_is_used_from_its_start_and_nothing_behind_is_touched() -> None:
    size = Book.nbytes(4)
    buffer = aligned(size + 64)
    book = Book("BTC", 4, buffer=buffer)
    for message in (SLOW, FAST, BBO, captures.example("empty", time_ms=T0 + 9)):
        book.apply(message)
    assert bytes(buffer[size:]) == 64 * b"\xaa"


@pytest.mark.parametrize(
    ("size", "shift"), [(Book.nbytes(20) - 1, 0), (0, 0), (Book.nbytes(20), 1), (Book.nbytes(20), 4)]
)
def test_a_buffer_too_small_or_not_aligned_is_refused(size: int, shift: int) -> None:
    with pytest.raises(ConfigError, match="buffer: 1016 bytes at an address divisible by 8 are needed, got"):
        Book("BTC", buffer=aligned(size, shift))


@pytest.mark.parametrize(
    "buffer", [bytes(2000), memoryview(bytes(2000)), aligned(2000).toreadonly(), aligned(4000)[::2]]
)
def test_a_buffer_that_is_read_only_or_has_gaps_is_refused(buffer: Any) -> None:
    with pytest.raises(BufferError):
        Book("BTC", buffer=buffer)


def test_what_is_no_buffer_is_refused() -> None:
    with pytest.raises(TypeError):
        Book("BTC", buffer=7)  # type: ignore[arg-type]


def test_the_callers_buffer_is_kept_alive_and_in_its_place() -> None:
    buffer = bytearray(Book.nbytes(20) + 64)
    shift = -np.frombuffer(buffer, np.uint8).ctypes.data % 8
    book = Book("BTC", buffer=memoryview(buffer)[shift:])
    book.apply(SLOW)
    with pytest.raises(BufferError):
        buffer.extend(bytes(10_000))  # would move it
    room: Any = np.zeros(Book.nbytes(20) // 8 + 1).view(np.uint8)
    alive = weakref.ref(room)
    book = Book("BTC", buffer=room)
    del room
    gc.collect()
    assert alive() is not None
    px = book.px
    del book
    gc.collect()
    assert alive() is not None
    del px
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("depth", [0, -1, 10_001])
def test_a_depth_out_of_bounds_is_refused(depth: int) -> None:
    with pytest.raises(ConfigError, match="depth must be 1 to 10000"):
        Book("BTC", depth)


@pytest.mark.parametrize("coin", ["", None, 7, b"BTC"])
def test_a_coin_is_a_name(coin: Any) -> None:
    with pytest.raises((ConfigError, TypeError)):
        Book(coin)


def test_there_is_no_book_that_was_not_made_and_none_is_made_twice() -> None:
    with pytest.raises(TypeError):
        Book.__new__(Book)

    class Mine(Book):
        def __init__(self, coin: str) -> None:
            self.mine = coin  # and no super().__init__()

    mine = Mine("BTC")
    assert mine.apply(SLOW)
    assert (mine.coin, mine.depth, mine.mine) == ("BTC", 20, "BTC")
    book = Book("BTC")
    address = book.px.ctypes.data
    assert book.apply(SLOW)
    book.__init__("ETH", 5)  # type: ignore[misc]
    assert (book.coin, book.depth, book.px.ctypes.data, book.seq) == ("BTC", 20, address, 1)
    assert book.apply(BBO)


@pytest.mark.parametrize("feeds", [(), ("l2",), ("bbo", "BBO")])
def test_feeds_are_named(feeds: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="feed"):
        Book("BTC", feeds=feeds)


# --- apply --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda m: memoryview(b"xx" + m + b"yy")[2:-2]])
def test_any_contiguous_bytes_are_a_message(kind: Callable[[bytes], Any]) -> None:
    book = Book("BTC")
    assert book.apply(kind(SLOW), recv_ns=5)
    np.testing.assert_array_equal(book.px, oracles.arrays(oracles.read_book(SLOW).sides, 20).px)
    assert book.recv_ns == 5


def test_what_is_no_contiguous_memory_is_no_message() -> None:
    book = Book("BTC")
    doubled = b"".join(bytes([b, b]) for b in SLOW)
    with pytest.raises(BufferError):
        book.apply(memoryview(doubled)[::2])
    for other in (SLOW.decode(), None, 7):
        with pytest.raises(TypeError):
            book.apply(other)  # type: ignore[arg-type]
    assert book.seq == 0


@pytest.mark.parametrize("message", [captures.example("slow", COINS[1]), captures.example("bbo", COINS[1])])
def test_a_message_of_another_coin_is_refused_and_proves_nothing(message: bytes) -> None:
    book = Book("BTC")
    book.apply(SLOW)
    before = whole(book)
    with pytest.raises(DecodeError, match="another coin"):
        book.apply(message)
    assert whole(book) == before
    assert not book.stale


@pytest.mark.parametrize("message", [captures.example("one trade"), b'{"channel":"pong"}', b'{"channel":"x","data":1}'])
def test_a_message_of_another_channel_is_refused_and_proves_nothing(message: bytes) -> None:
    book = Book("BTC")
    book.apply(SLOW)
    with pytest.raises(DecodeError, match="l2Book, bbo and l2 messages only"):
        book.apply(message)
    assert not book.stale


@given(st.sampled_from([SLOW, FAST, BBO]), st.integers(0, 2**32))
@example(SLOW, 0)
def test_a_message_that_is_refused_changes_nothing_but_trust(message: bytes, seed: int) -> None:
    rng = Random(seed)
    book = Book("BTC")
    book.apply(SLOW, 1)
    book.apply(FAST, 2)
    book.apply(BBO, 3)
    before = whole(book)
    for _ in range(5):
        try:
            book.apply(captures.damaged(message, rng))
        except DecodeError:
            assert whole(book) == before
        before = whole(book)
    fresh = Book("BTC")  # and what was read in vain is not seen later
    book.mark_stale("x", restart=True)
    for m in (BBO, FAST, SLOW):
        book.apply(m)
        fresh.apply(m)
        np.testing.assert_array_equal(book.px, fresh.px)
        np.testing.assert_array_equal(book.sz, fresh.sz)
        np.testing.assert_array_equal(book.n, fresh.n)


# --- copy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False])
def test_a_copy_is_equal_and_stays_as_it_is(own: bool) -> None:
    book = Book("BTC", 6, feeds=("bbo", "slow"), buffer=None if own else aligned(Book.nbytes(6)))
    twin = book.copy()
    assert whole(twin) == whole(book)
    assert (twin.stale, twin.stale_reason) == (True, "nothing received yet")
    book.apply(SLOW, 10)
    book.apply(BBO, 20)
    twin = book.copy()
    assert type(twin) is Book
    before = whole(twin)
    assert before == whole(book)
    assert (twin.coin, twin.depth, twin.feeds) == (book.coin, book.depth, book.feeds)
    assert (twin.stale, twin.stale_reason, twin.ages(25)) == (False, None, {"slow": 15, "bbo": 5})
    assert (twin.microprice, twin.imbalance(3), twin.mid) == (book.microprice, book.imbalance(3), book.mid)
    assert repr(twin) == repr(book)
    book.apply(captures.example("empty", time_ms=T0 + 5))
    book.mark_stale("link lost", restart=True)
    assert whole(twin) == before
    assert not twin.stale
    for a in ARRAYS:
        assert not getattr(twin, a).flags.writeable
    with pytest.raises(TypeError, match="copy"):
        twin.apply(SLOW)
    assert whole(twin.copy()) == before


def test_a_copy_can_be_read_in_another_thread_while_the_book_goes_on() -> None:
    book = Book("BTC")
    book.apply(SLOW)
    twin = book.copy()
    want = [float(twin.mid)] * 200
    got: list[float] = []
    thread = threading.Thread(target=lambda: got.extend(float(twin.mid) for _ in range(200)))
    thread.start()
    for i in range(200):
        book.apply(captures.example("bbo", seed=i, time_ms=T0 + i))
    thread.join()
    assert got == want


# --- analytics ----------------------------------------------------------------------------------------------------


def books() -> Iterator[Book]:
    for shape in captures.BOOK_SHAPES:
        for coin in COINS:
            book = Book(coin.name)
            book.apply(captures.example(shape, coin))
            yield book
    yield Book("BTC")


def test_the_analytics_are_what_numpy_makes_of_the_arrays() -> None:
    for book in books():
        (bid, ask), (bid_sz, ask_sz) = book.px[:, 0], book.sz[:, 0]
        np.testing.assert_array_equal(
            [book.best_bid, book.best_ask, book.mid, book.spread], [bid, ask, (bid + ask) / 2, ask - bid]
        )
        with np.errstate(invalid="ignore"):
            micro = (bid * ask_sz + ask * bid_sz) / (bid_sz + ask_sz)
        np.testing.assert_array_equal(book.microprice, micro)
        if book.count.all():
            assert (
                bid <= book.microprice <= ask
                or math.isclose(book.microprice, bid)
                or math.isclose(book.microprice, ask)
            )
        for levels in (1, 2, 3, 5, 20, 100):
            bids, asks = (math.fsum(side[:levels]) for side in book.sz)
            want = (bids - asks) / (bids + asks) if bids + asks else math.nan
            assert book.imbalance(levels) == pytest.approx(want, rel=1e-12, abs=1e-12, nan_ok=True)
    assert Book("BTC").imbalance() != book.imbalance()  # nan is no number


def test_the_sides_are_not_swapped() -> None:
    book = Book("BTC")
    book.apply(snapshot(T0, [(100.0, 3.0), (99.0, 7.0)], [(104.0, 1.0), (106.0, 1.0)]))
    assert (book.best_bid, book.best_ask, book.mid, book.spread) == (100.0, 104.0, 102.0, 4.0)
    assert book.microprice == 103.0  # bids are heavy: nearer to the ask
    assert (book.imbalance(), book.imbalance(2)) == (0.5, 8 / 12)
    assert book.vwap(Side.BUY, 2.0) == 105.0
    assert book.vwap(Side.SELL, 10.0) == (300 + 693) / 10
    assert (list(book.n[BID, :2]), list(book.n[ASK, :2])) == ([4, 8], [2, 2])


def test_a_book_of_no_size_has_no_microprice_and_no_imbalance() -> None:
    book = Book("BTC")
    book.apply(snapshot(T0, [(100.0, 0.0)], [(101.0, 0.0)]))
    assert math.isnan(book.microprice)
    assert math.isnan(book.imbalance())
    assert book.mid == 100.5


def test_vwap_walks_the_side_that_is_taken() -> None:
    for book in books():
        for side in Side:
            row = 1 - side
            px, sz = book.px[row, : book.count[row]], book.sz[row, : book.count[row]]
            total = float(sz.sum())
            for share in (0.001, 0.1, 0.5, 0.9, 0.999, 1.001, 50.0):
                want = total * share
                if want <= 0:
                    continue
                taken = np.clip(want - (np.cumsum(sz) - sz), 0, sz)
                expected = float((taken * px).sum() / want) if share < 1 else math.nan
                assert book.vwap(side, want) == pytest.approx(expected, rel=1e-9, nan_ok=True)
            assert math.isnan(Book("BTC").vwap(side, 1.0))


@pytest.mark.parametrize("sz", [0.0, -1.0, math.inf, -math.inf, math.nan])
def test_vwap_wants_a_size(sz: float) -> None:
    with pytest.raises(ConfigError, match="positive"):
        Book("BTC").vwap(Side.BUY, sz)


def test_vwap_wants_a_side_and_imbalance_a_level() -> None:
    with pytest.raises(ValueError):
        Book("BTC").vwap(2, 1.0)  # type: ignore[arg-type]
    for levels in (0, -1):
        with pytest.raises(ConfigError, match="at least 1"):
            Book("BTC").imbalance(levels)


# --- trust --------------------------------------------------------------------------------------------------------

BAD = SLOW[:-1]


@pytest.mark.parametrize(
    ("feeds", "script", "stale", "reason", "grade"),
    [
        (("bbo", "fast", "slow"), "", True, "nothing received yet", Grade.NONE),
        (("bbo", "fast", "slow"), "b", True, "no snapshot yet", Grade.TOP),
        (("bbo", "fast", "slow"), "s", False, None, Grade.SLOW),
        (("bbo", "fast", "slow"), "f", False, None, Grade.FAST),
        (("bbo", "fast", "slow"), "bs", False, None, Grade.SLOW),
        (("bbo", "fast", "slow"), "sfb", False, None, Grade.FAST),
        (("bbo",), "", True, "nothing received yet", Grade.NONE),
        (("bbo",), "b", False, None, Grade.TOP),
        (("bbo",), "s", False, None, Grade.SLOW),
        (("bbo",), "bx", True, "bad message", Grade.TOP),
        (("bbo",), "bxb", False, None, Grade.TOP),
        (("bbo",), "bRb", False, None, Grade.TOP),
        (("bbo", "slow"), "sx", True, "bad message", Grade.SLOW),
        (("bbo", "slow"), "sxb", True, "bad message", Grade.SLOW),
        (("bbo", "slow"), "sxs", False, None, Grade.SLOW),
        (("bbo", "slow"), "sxf", False, None, Grade.FAST),
        (("bbo", "slow"), "sm", True, "told so", Grade.SLOW),
        (("bbo", "slow"), "sms", False, None, Grade.SLOW),
        (("bbo", "slow"), "sR", True, "link lost", Grade.NONE),
        (("bbo", "slow"), "sfbR", True, "link lost", Grade.NONE),
        (("bbo", "slow"), "sfbRb", True, "link lost", Grade.TOP),
        (("bbo", "slow"), "sRx", True, "bad message", Grade.NONE),
        (("bbo", "slow"), "sRmb", True, "told so", Grade.TOP),
        (("bbo", "slow"), "sfRs", False, None, Grade.SLOW),
        (("bbo", "slow"), "sRbs", False, None, Grade.SLOW),
        (("bbo", "slow"), "sxl", True, "bad message", Grade.SLOW),  # late: proves nothing
        (("bbo", "slow"), "xs", False, None, Grade.SLOW),
    ],
)
def test_stale_ends_with_the_next_good_snapshot(
    feeds: tuple[str, ...], script: str, stale: bool, reason: str | None, grade: Grade
) -> None:
    book = Book("BTC", feeds=feeds)
    for step in script:
        if step == "x":
            with pytest.raises(DecodeError):
                book.apply(BAD)
        elif step == "m":
            book.mark_stale("told so")
        elif step == "R":
            book.mark_stale("link lost", restart=True)
        else:
            applied = book.apply({"s": SLOW, "f": FAST, "b": BBO, "l": captures.example("slow", time_ms=T0 - 9)}[step])
            assert applied == (step != "l")
    assert (book.stale, book.stale_reason, book.grade) == (stale, reason, grade)
    assert book.feeds == feeds
    assert (f"stale: {reason}" if stale else "live") in repr(book)


def test_grades_are_ordered_by_how_much_the_levels_rest_on() -> None:
    assert Grade.NONE < Grade.TOP < Grade.SLOW < Grade.FAST


def test_ages_and_times_are_told_feed_by_feed() -> None:
    book = Book("BTC")
    assert (book.ages(5), book.times_ms) == ({}, {})
    book.apply(SLOW, recv_ns=100)
    book.apply(BBO, recv_ns=300)
    assert book.ages(1000) == {"slow": 900, "bbo": 700}
    assert book.times_ms == {"slow": T0, "bbo": T0 + 2}
    book.apply(FAST, recv_ns=400)
    assert book.ages(1000) == {"slow": 900, "fast": 600, "bbo": 700}
    assert (book.time_ms, book.recv_ns) == (T0 + 2, 400)
    assert not book.apply(captures.example("slow", time_ms=T0 - 1), recv_ns=500)
    assert book.ages(1000)["slow"] == 900
    book.mark_stale("link lost", restart=True)
    assert (book.ages(1000), book.times_ms) == ({}, {})
    book.apply(BBO, recv_ns=600)
    assert (book.ages(1000), book.times_ms) == ({"bbo": 400}, {"bbo": T0 + 2})


def test_a_book_says_what_it_is() -> None:
    book = Book("BTC")
    assert repr(book) == "<Book BTC nan / nan at 0 ms, stale: nothing received yet>"
    book.apply(snapshot(T0, [(100.0, 3.0)], [(104.5, 1.0)]))
    assert repr(book) == f"<Book BTC 100.0 / 104.5 at {T0} ms, live>"


def test_vwap_of_exactly_what_is_held_is_a_price() -> None:
    book = Book("BTC")
    book.apply(
        b'{"channel":"l2Book","data":{"coin":"BTC","time":1,"levels":[[],'
        b'[{"px":"100.0","sz":"0.1","n":1},{"px":"101.0","sz":"0.2","n":1}]]}}'
    )
    held = 0.1 + 0.2  # 0.30000000000000004
    assert book.vwap(Side.BUY, held) == pytest.approx((0.1 * 100 + 0.2 * 101) / held)
    assert np.isnan(book.vwap(Side.BUY, 0.31))
