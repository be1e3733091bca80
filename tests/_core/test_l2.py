"""The l2 feed: deltas into a book, what proves it, what refutes it, and what is shown when it is gone."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import captures
import numpy as np
import oracles
import pytest
from captures import T0, exact, wire
from l2_walks import Walk, deflated

from hlconn import Book, ConfigError, DecodeError, Feed, Grade

EVERY = ("l2", "bbo", "fast", "slow")


def l2(kind: str, value: Any) -> bytes:
    return wire({"channel": "l2", "data": {kind: value}})


def snapshot(time_ms: int, bids: list[float], asks: list[float], *, sz: float = 1.0, coin: str = "BTC") -> bytes:
    sides = [[{"px": str(px), "sz": str(sz), "n": 3} for px in side] for side in (bids, asks)]
    return l2("s", {"coin": coin, "time": time_ms, "levels": sides})


def update(
    time_ms: int,
    *,
    bids: dict[float, float] | None = None,
    asks: dict[float, float] | None = None,
    gone: tuple[list[int], list[int]] = ([], []),
    coin: str = "BTC",
) -> dict[str, Any]:
    levels = [[{"p": str(px), "s": str(sz)} for px, sz in (side or {}).items()] for side in (bids, asks)]
    return {"c": coin, "t": time_ms, "l": levels, "r": list(gone)}


def l2book(time_ms: int, bids: list[float], asks: list[float], *, sz: float = 1.0, fast: bool = False) -> bytes:
    sides = [[{"px": str(px), "sz": str(sz), "n": 3} for px in side] for side in (bids, asks)]
    data = {"coin": "BTC", "time": time_ms, "levels": sides}
    return wire({"channel": "l2Book", "data": data | {"fast": True} if fast else data})


def bid_side(book: Book) -> list[float]:
    return book.px[0, : book.count[0]].tolist()  # type: ignore[no-any-return]


def assert_is(book: Book, walk: Walk, at: object = "") -> None:
    for row, side in enumerate(walk.plain()):
        assert book.px[row, : book.count[row]].tolist() == [float(px) for px, _ in side[: book.depth]], at
        assert book.sz[row, : book.count[row]].tolist() == [float(sz) for _, sz in side[: book.depth]], at
        assert book.beyond[row] == max(0, len(side) - book.depth), at


# --- deltas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [3, 20, 60, 200])
@pytest.mark.parametrize("compressed", [False, True])
def test_random_walks_are_rebuilt_exactly_from_a_snapshot_and_updates(
    most: int, compressed: bool, long_run: bool
) -> None:
    """A million updates: HLCONN_HYPOTHESIS=long python -m pytest -q tests/_core/test_l2.py -k rebuilt"""
    walk, book = Walk(most, most=most), Book("BTC", 25, feeds=EVERY)
    book.apply(walk.snapshot())
    rng = Random(most)
    for at in range(125_000 if long_run else 1_250):
        assert book.apply(walk.update(compressed=compressed))
        if at % 8 == 0:
            assert_is(book, walk, at)
            book.apply(walk.l2book(fast=rng.random() < 0.5))
        assert not book.stale, at
    assert book.grade == Grade.L2
    assert book.proofs > 100
    assert book.desyncs == 0


def test_an_update_says_no_order_counts_and_changes_only_what_it_names() -> None:
    book = Book("BTC", 4, feeds=EVERY)
    book.apply(snapshot(T0, [99.0, 98.0, 97.0], [101.0, 102.0]))
    message = update(T0 + 1, bids={98.0: 7.0, 98.5: 2.0}, gone=([2], []))
    assert book.apply(l2("u", message), recv_ns=5)
    assert bid_side(book) == [99.0, 98.5, 98.0]
    assert book.n.tolist() == [[3, 0, 0, 0], [3, 3, 0, 0]]
    assert book.changed.tolist() == [[False, True, True, False], [False] * 4]
    assert (book.time_ms, book.recv_ns, book.seq) == (T0 + 1, 5, 2)
    assert book.times_ms == {"l2": T0 + 1}
    assert book.ages(7) == {"l2": 2}


def test_positions_count_in_the_side_as_it_was_before_the_update() -> None:
    book = Book("BTC", feeds=EVERY)
    book.apply(snapshot(T0, [99.0, 98.0, 97.0], [101.0]))
    book.apply(l2("u", update(T0 + 1, bids={99.5: 1.0, 98.0: 4.0}, gone=([0, 1], []))))
    assert bid_side(book) == [99.5, 98.0, 97.0]
    assert book.sz[0, 1] == 4.0


def test_an_update_before_the_first_snapshot_is_dropped() -> None:
    feed = Feed()
    book = feed.book("BTC", feeds=EVERY)
    feed.on_message(l2("u", update(T0, bids={1.0: 1.0})))
    assert (book.seq, book.grade, book.desyncs) == (0, Grade.NONE, 0)
    assert feed.counters["l2"]["out_of_order"] == 1
    feed.on_message(l2book(T0, [99.0], [101.0]))
    feed.on_message(l2("u", update(T0, bids={98.0: 1.0})))
    assert bid_side(book) == [99.0]
    assert not book.stale


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (update(T0 + 1, gone=([3], [])), "position 3 of 3 bids"),
        (update(T0 + 1, gone=([], [-1])), "position -1 of 2 asks"),
        (update(T0 + 1, gone=([], [10**17])), "position 100000000000000000 of 2 asks"),
        (update(T0 + 1, gone=([1, 1], [])), "position 1 twice"),
        (update(T0 - 1), "time went back"),
        (update(T0 + 1, bids={101.0: 1.0}), "the sides cross"),
        (update(T0 + 1, asks={100.0 + i: 1.0 for i in range(200)}), "more than 200 levels"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_an_update_that_cannot_be_is_a_desync_and_the_others_are_shown_at_once(
    bad: dict[str, Any], reason: str, compressed: bool
) -> None:
    feed = Feed()
    told: list[tuple[str, ...]] = []
    feed.on_stale(lambda coin, why: told.append(("stale", coin, why)))
    feed.on_desync(lambda coin, why: told.append(("desync", coin, why)))
    feed.on_live(lambda coin, from_ms, why: told.append(("live", coin, str(from_ms))))
    book = feed.book("BTC", feeds=EVERY)
    feed.on_message(l2book(T0 - 50, [98.5, 98.0], [100.5]))
    feed.on_message(snapshot(T0, [99.0, 98.0, 97.0], [100.0, 500.0]))
    assert bid_side(book) == [99.0, 98.0, 97.0]
    feed.on_message(wire({"channel": "l2", "data": deflated(bad)}) if compressed else l2("u", bad))
    assert bid_side(book) == [98.5, 98.0]
    assert (book.stale, book.grade) == (True, Grade.SLOW)
    assert book.stale_reason == f"l2 feed down: desync: {reason}"
    assert told == [("stale", "BTC", book.stale_reason), ("desync", "BTC", reason)]
    assert (feed.desyncs, book.desyncs) == (1, 1)
    feed.on_message(l2("u", update(T0 + 5, bids={98.25: 1.0})))  # still on its way: of the book that was
    feed.on_message(l2book(T0 + 6, [98.6], [100.5], fast=True))
    assert bid_side(book) == [98.6]
    assert book.stale
    feed.on_message(snapshot(T0 + 7, [99.25], [99.5]))
    assert (book.stale, book.grade, bid_side(book)) == (False, Grade.L2, [99.25])
    assert told[2:] == [("live", "BTC", str(T0))]


@pytest.mark.parametrize(
    "bad",
    [
        l2("u", update(T0 + 1, bids={98.0: 0.0})),
        l2("u", update(T0 + 1, bids={-1.0: 1.0})),
        l2("u", update(T0 + 1, gone=(list(range(201)), []))),
        l2("u", {k: v for k, v in update(T0 + 1).items() if k != "r"}),
        l2("u", {**update(T0 + 1), "l": [[]]}),
        l2("u", {**update(T0 + 1), "r": [[0.5], []]}),
        l2("u", update(T0 + 1))[:-1],
        l2("u", update(T0 + 1)).replace(b'}}}', b'},"s":{}}}'),
        snapshot(T0 + 1, [97.0, 98.0], [101.0]),
        snapshot(T0 + 1, [97.0], [96.0]),
        snapshot(T0 + 1, [99.0 - i / 10 for i in range(201)], [101.0]),
        b'{"channel":"l2","data":{"x":{"c":"BTC"}}}',
        b'{"channel":"l2","data":{}}',
        b'{"channel":"l2"}',
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_read_is_a_desync_and_raises(bad: bytes) -> None:
    for apply in (Feed.on_message, Book.apply):
        feed = Feed()
        book = feed.book("BTC", feeds=EVERY) if apply is Feed.on_message else Book("BTC", feeds=EVERY)
        target: Any = feed if apply is Feed.on_message else book
        book.apply(snapshot(T0, [99.0, 98.0], [101.0]))
        before = book.px.tobytes()
        with pytest.raises(DecodeError, match="l2"):
            apply(target, exact(bad))
        assert book.px.tobytes() == before  # nobody else has said anything
        assert (book.stale, book.desyncs) == (True, 1)
        book.apply(snapshot(T0 + 9, [99.0], [101.0]))
        assert not book.stale


def test_each_cut_of_each_kind_of_message_is_refused_and_changes_no_level() -> None:
    walk = Walk(5, most=6)
    start = walk.snapshot()
    for message in (walk.update(), walk.update(compressed=True), walk.snapshot()):
        for spelled in (message, captures.respell(message, Random(1)).rstrip()):
            for cut in range(len(spelled)):
                book = Book("BTC", feeds=EVERY)
                book.apply(start)
                before = book.px.tobytes()
                with pytest.raises(DecodeError):
                    book.apply(exact(spelled[:cut]))
                assert book.px.tobytes() == before
                assert book.stale


def test_any_key_order_white_space_and_escapes_change_nothing() -> None:
    rng = Random(3)
    walk, plain, other = Walk(7), Book("BTC", feeds=EVERY), Book("BTC", feeds=EVERY)
    for at in range(60):
        message = walk.snapshot() if at % 20 == 0 else walk.update(compressed=at % 3 == 0)
        plain.apply(message)
        other.apply(exact(captures.respell(message, rng, escapes=at % 2 == 0)))
        assert plain.px.tobytes() == other.px.tobytes()
        assert plain.sz.tobytes() == other.sz.tobytes()
        assert_is(other, walk)
    unknown = {**update(walk.time_ms + 1, asks={1e6: 2.0}), "new": [{"p": None}]}
    unknown["l"][1][0]["x"] = "y"
    assert other.apply(l2("u", unknown))


# --- compressed ---------------------------------------------------------------------------------------------------


def test_the_protocols_own_example_is_read() -> None:
    text = "q1ZKVrJScgpxVtJRKlGyMtJRylGyio6uVipQslIyNDBQ0lEqVrJSMlWqjdWJjo3VUSoCSYPZtQA="
    book = Book("BTC", feeds=EVERY)
    book.apply(snapshot(1, [99.0], [101.0]))
    assert book.apply(l2("c", text))
    assert (bid_side(book), book.sz[0, 0], book.time_ms) == ([100.0, 99.0], 5.0, 2)


def raw(data: bytes) -> str:
    stream = zlib.compressobj(9, wbits=-15)
    return base64.b64encode(stream.compress(data) + stream.flush()).decode()


GOOD = json.dumps(update(T0 + 1, bids={98.5: 1.0}), separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (raw(GOOD)[:-1], "no base64"),
        ("*" + raw(GOOD)[1:], "no base64"),
        (raw(GOOD) + "====", "no base64"),
        ("é" + raw(GOOD), "no base64"),
        (raw(GOOD)[:20], "cut short"),
        (base64.b64encode(base64.b64decode(raw(GOOD)) + b"x").decode(), "something behind it"),
        (base64.b64encode(zlib.compress(GOOD)).decode(), "no deflate stream"),
        ("", "cut short"),
        (raw(b" " * (1 << 20) + GOOD), "more than 1048576 bytes"),
        (raw(b"[" * (1 << 30 >> 4)), "more than 1048576 bytes"),
        ("A" * (256 * 1024 + 4), "more than 262144 bytes"),
        (raw(GOOD + b"x"), "not the expected shape"),
        (raw(GOOD[:-1]), "not the expected shape"),
        (raw(b""), "not the expected shape"),
        (raw(b'{"c":"' + b"B" * 65 + b'"}'), "longer"),
        (raw(b'{"u":' + GOOD + b"}"), "required field"),
    ],
)
def test_compressed_data_that_cannot_be_read_is_refused_and_every_l2_book_of_its_link_is_in_doubt(
    text: str, reason: str
) -> None:
    feed = Feed()
    books = [feed.book(coin, feeds=EVERY) for coin in ("BTC", "ETH", "@107")]
    for link, book in enumerate(books):
        feed.on_message(snapshot(T0, [99.0], [101.0], coin=book.coin), link=link // 2)
    with pytest.raises(DecodeError, match=reason) as caught:
        feed.on_message(l2("c", text), link=0)
    assert caught.value.channel == "l2"
    assert len(str(caught.value)) < 1000
    coin_is_known = reason == "not the expected shape" and text != raw(b"")
    assert [book.stale for book in books] == [True, not coin_is_known, False]  # the third is of another link
    assert feed.desyncs == 1 + (not coin_is_known)


def test_a_message_of_the_largest_size_is_read() -> None:
    noise = "".join(chr(33 + Random(1).randrange(90)) for _ in range(10))
    data = json.dumps({**update(T0 + 1, bids={98.5: 1.0}), "x": noise * 20_000}).encode()
    for padding in (0, (1 << 20) - len(data)):
        book = Book("BTC", feeds=EVERY)
        book.apply(snapshot(T0, [98.0], [101.0]))
        assert book.apply(l2("c", raw(data + b" " * padding)))
        assert bid_side(book) == [98.5, 98.0]


# --- the proof ----------------------------------------------------------------------------------------------------

SLOW_KINDS = pytest.mark.parametrize("fast", [False, True])


def proving(*, fast: bool) -> tuple[Feed, Book, Callable[..., bytes]]:
    feed = Feed()
    book = feed.book("BTC", feeds=EVERY)
    feed.on_message(snapshot(T0, [99.0], [101.0]))
    return feed, book, lambda time_ms, bids: l2book(time_ms, bids, [101.0], fast=fast)


@SLOW_KINDS
def test_an_l2book_of_the_same_time_proves_the_l2_book_whichever_comes_first(fast: bool) -> None:
    for order in ("lu", "ul"):
        feed, book, said = proving(fast=fast)
        seq = book.seq
        for kind in order:
            feed.on_message(said(T0 + 1, [99.5, 99.0]) if kind == "l" else l2("u", update(T0 + 1, bids={99.5: 1.0})))
            assert not book.stale
        assert (book.proofs, book.desyncs, book.grade) == (1, 0, Grade.L2)
        assert book.seq == seq + 1  # what is kept for later changes no level, and calls nobody


@SLOW_KINDS
@pytest.mark.parametrize("wrong", [[99.5], [99.5, 98.0], [99.25, 99.0], [99.5, 99.0, 98.0], []])
def test_an_l2book_of_the_same_time_that_differs_ends_trust_at_once(fast: bool, wrong: list[float]) -> None:
    for order in ("lu", "ul"):
        feed, book, said = proving(fast=fast)
        for kind in order:
            feed.on_message(said(T0 + 1, wrong) if kind == "l" else l2("u", update(T0 + 1, bids={99.5: 1.0})))
        assert book.stale_reason == "l2 differs from the l2Book of the same time"
        assert book.copy().stale
        assert book.proofs == 0
        feed.on_message(l2("u", update(T0 + 2, bids={99.75: 1.0})))  # and nothing of that block came any more
        assert book.desyncs == 1
        assert book.grade == (Grade.FAST if fast else Grade.SLOW)
        assert bid_side(book) == wrong


def test_a_size_that_differs_is_no_proof_and_an_order_count_only_where_it_is_known() -> None:
    book = Book("BTC", feeds=EVERY)
    book.apply(snapshot(T0, [99.0], [101.0]))
    book.apply(l2book(T0, [99.0], [101.0], sz=2.0))
    assert book.stale
    for said, stale in ((3, False), (4, True)):
        book = Book("BTC", feeds=EVERY)
        book.apply(snapshot(T0, [99.0], [101.0]))
        book.apply(l2book(T0, [99.0], [101.0]).replace(b'"n":3', b'"n":%d' % said))
        assert book.stale is stale
        book.apply(l2("u", update(T0 + 1, bids={99.0: 2.0})))
    book = Book("BTC", feeds=EVERY)
    book.apply(snapshot(T0, [99.0], [101.0]))
    book.apply(l2("u", update(T0 + 1)))
    book.apply(l2book(T0 + 1, [99.0], [101.0]).replace(b'"n":3', b'"n":9'))
    assert (book.stale, book.proofs) == (False, 1)


@SLOW_KINDS
def test_of_several_updates_with_one_time_the_last_one_counts(fast: bool) -> None:
    updates = [l2("u", update(T0 + 1, bids={99.0 + at / 10: 1.0})) for at in range(1, 4)]
    for place in range(4):
        feed, book, said = proving(fast=fast)
        script = list(updates)
        script.insert(place, said(T0 + 1, [99.3, 99.2, 99.1, 99.0]))
        for message in script:
            feed.on_message(message)
        assert (book.stale, book.proofs, book.desyncs) == (False, 1, 0), place
        feed.on_message(l2("u", update(T0 + 2, bids={99.5: 1.0})))
        assert (book.stale, book.desyncs) == (False, 0), place


@SLOW_KINDS
def test_a_lost_last_update_is_found_when_the_next_l2book_comes_and_no_update_has(fast: bool) -> None:
    feed, book, said = proving(fast=fast)
    feed.on_message(said(T0 + 500, [99.5, 99.0]))  # maybe its update is on its way
    assert (book.stale, bid_side(book)) == (False, [99.0])
    feed.on_message(said(T0 + 500, [99.5, 99.0]))
    assert not book.stale
    feed.on_message(said(T0 + 1000, [99.5, 99.0]))
    assert book.stale_reason == "l2 feed down: desync: no update while l2Book went on"
    assert bid_side(book) == [99.5, 99.0]


@SLOW_KINDS
def test_a_doubt_in_a_quiet_market_ends_with_the_next_l2book_one_way_or_the_other(fast: bool) -> None:
    for later, desyncs in (([99.0], 0), ([98.0], 1)):
        feed, book, said = proving(fast=fast)
        feed.on_message(said(T0, [98.0]))
        assert book.stale
        feed.on_message(said(T0 + 500, later))
        assert book.desyncs == desyncs
        assert book.stale is bool(desyncs)
        assert bid_side(book) == later


def test_older_messages_and_the_bbo_prove_and_refute_nothing() -> None:
    feed, book, _ = proving(fast=False)
    feed.on_message(l2book(T0 - 1, [50.0], [101.0]))
    feed.on_message(wire({"channel": "bbo", "data": {"coin": "BTC", "time": T0, "bbo": [None, None]}}))
    assert (book.stale, book.proofs, bid_side(book)) == (False, 0, [99.0])
    assert book.times_ms == {"slow": T0 - 1, "bbo": T0, "l2": T0}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["drop", "repeat", "swap"])
def test_a_lost_repeated_or_reordered_update_is_harmless_or_known_by_the_next_l2book_of_its_time(
    kind: str, compressed: bool, long_run: bool
) -> None:
    harmless = found = 0
    for seed in range(1000 if long_run else 60):
        rng = Random(seed)
        walk, book = Walk(seed, most=rng.choice((5, 20))), Book("BTC", feeds=EVERY)
        book.apply(walk.snapshot())
        for _ in range(rng.randint(0, 3)):
            book.apply(walk.update(compressed=compressed))
        one, two = walk.update(compressed=compressed), walk.update(compressed=compressed)
        faulty = {"drop": [two], "repeat": [one, one, two], "swap": [two, one]}[kind]
        if rng.random() < 0.3:
            faulty = {"drop": [], "repeat": [one, two, two], "swap": [two, one]}[kind]
        for message in faulty:
            book.apply(message)
        book.apply(walk.l2book())  # of the same time, unless the last one was lost: then it counts when the next comes
        if faulty[-1:] != [two]:
            walk.time_ms += 500
            book.apply(walk.l2book())
        if book.stale or book.desyncs:
            found += 1
            walk.update()
            book.apply(walk.snapshot())  # what a new subscription begins with
            assert not book.stale
        else:
            harmless += 1
        assert_is(book, walk, seed)
    assert found > 0
    assert harmless > 0 or kind == "swap"  # time that goes back always tells


# --- with the other feeds -----------------------------------------------------------------------------------------


def test_when_l2_is_given_up_the_book_rests_on_the_others_at_once() -> None:
    feed = Feed()
    lived: list[int] = []
    feed.on_live(lambda coin, from_ms, reason: lived.append(from_ms))
    book = feed.book("BTC", feeds=EVERY)
    feed.on_message(snapshot(T0, [99.0, 98.0], [101.0]))
    ask = {"px": "100.5", "sz": "1.0", "n": 1}
    for message in (l2book(T0 - 9, [98.0], [100.0]), l2book(T0 + 1, [97.0], [100.0], fast=True)):
        feed.on_message(message)
    feed.on_message(wire({"channel": "bbo", "data": {"coin": "BTC", "time": T0 + 2, "bbo": [None, ask]}}))
    assert bid_side(book) == [99.0, 98.0]
    feed.on_message(l2("u", update(T0 - 1)))
    assert book.stale
    feed.drop_feed("BTC", "l2")
    want = Book("BTC")
    for message in (l2book(T0 - 9, [98.0], [100.0]), l2book(T0 + 1, [97.0], [100.0], fast=True)):
        want.apply(message)
    want.apply(wire({"channel": "bbo", "data": {"coin": "BTC", "time": T0 + 2, "bbo": [None, ask]}}))
    for name in ("px", "sz", "n", "count"):
        np.testing.assert_array_equal(getattr(book, name), getattr(want, name))
    assert (book.stale, book.grade, book.feeds, lived) == (False, Grade.FAST, ("bbo", "fast", "slow"), [T0])
    feed.on_message(snapshot(T0 + 5, [99.0], [101.0]))
    assert feed.counters["l2"]["unrouted"] == 1
    feed.drop_feed("BTC", "fast")
    assert (book.grade, book.feeds, book.stale) == (Grade.SLOW, ("bbo", "slow"), False)
    feed.book("BTC", feeds=("l2",))
    feed.on_message(snapshot(T0 + 6, [99.0], [101.0]))
    assert (book.grade, book.feeds) == (Grade.L2, ("l2", "bbo", "slow"))


def test_a_book_left_with_a_bbo_that_wants_more_is_stale() -> None:
    feed = Feed()
    book = feed.book("BTC", feeds=EVERY)
    feed.on_message(captures.example("bbo"))
    feed.on_message(snapshot(T0, [99.0], [101.0]))
    assert not book.stale
    feed.drop_feed("BTC", "l2")
    assert (book.stale_reason, book.grade) == ("no snapshot yet", Grade.TOP)
    feed.on_message(captures.example("slow"))
    assert not book.stale


def test_the_long_run_of_the_others_under_l2_folds_as_if_l2_had_never_been() -> None:
    for seed in range(40):
        rng = Random(seed)
        feed, fold = Feed(), oracles.Fold()
        book = feed.book("BTC", feeds=EVERY)
        for at in range(30):
            message = captures.example(rng.choice(("slow", "fast", "bbo")), seed=rng.random().hex(), time_ms=T0 + at)  # type: ignore[arg-type]
            if rng.random() < 0.15:
                feed.on_message(snapshot(T0 + 10**6 + at, [99.0], [101.0]))
            if rng.random() < 0.05:
                feed.mark_stale("cut", {"type": "l2", "coin": "BTC"})
            fold.apply(oracles.read_book(message))
            feed.on_message(message)
        feed.drop_feed("BTC", "l2")
        want = oracles.arrays(fold.sides(), 20)
        for name in ("px", "sz", "n", "count"):
            np.testing.assert_array_equal(getattr(book, name), getattr(want, name), err_msg=str(seed))


@pytest.mark.parametrize("restart", [False, True])
def test_after_a_lost_link_or_an_unknown_bad_message_only_a_snapshot_begins_l2_again(restart: bool) -> None:
    feed = Feed()
    book = feed.book("BTC", feeds=EVERY)
    feed.on_message(snapshot(T0, [99.0], [101.0]))
    feed.on_message(l2book(T0 - 1, [98.0], [101.0]))
    if restart:
        feed.mark_stale("link lost")
    else:
        with pytest.raises(DecodeError):
            feed.on_message(b'{"channel":')
    assert feed.desyncs == (0 if restart else 1)
    feed.on_message(l2("u", update(T0 + 1, bids={99.5: 1.0})))
    feed.on_message(l2book(T0 + 2, [98.0], [101.0]))
    assert bid_side(book) == [98.0]
    assert book.stale is not restart  # a new link's feeds have yet to begin; a feed that broke is awaited
    feed.on_message(snapshot(T0 + 3, [99.0], [101.0]))
    assert (book.stale, book.grade) == (False, Grade.L2)


def test_a_bad_l2book_message_does_not_end_l2() -> None:
    feed = Feed()
    book = feed.book("BTC", feeds=EVERY)
    feed.on_message(snapshot(T0, [99.0], [101.0]))
    with pytest.raises(DecodeError):
        feed.on_message(l2book(T0 + 1, [99.0], [101.0])[:-9])
    assert (book.stale_reason, book.grade) == ("bad message", Grade.L2)
    feed.on_message(l2("u", update(T0 + 1)))
    assert (book.stale, book.desyncs) == (False, 0)


def test_updates_count_over_the_link_of_their_snapshot_alone() -> None:
    feed = Feed()
    book = feed.book("BTC", feeds=EVERY)
    for link in (0, 1):
        feed.on_message(snapshot(T0, [99.0, 98.0, 97.0], [101.0]), link=link)  # the later one is followed
    for link in (0, 1):
        feed.on_message(l2("u", update(T0 + 1, gone=([0], []))), link=link)
    assert bid_side(book) == [98.0, 97.0]
    assert feed.counters["l2"]["twins"] == 1
    feed.on_message(snapshot(T0, [50.0], [101.0]), link=0)  # older than what the other one knows
    assert bid_side(book) == [98.0, 97.0]
    feed.on_message(snapshot(T0 - 1, [50.0], [101.0]), link=1)  # but of the link itself it is a new beginning, or a lie
    assert (book.desyncs, book.stale) == (1, True)
    assert feed.flow({"type": "l2", "coin": "BTC"}, 1) == 3


# --- who asks for it ----------------------------------------------------------------------------------------------


def test_l2_is_for_books_that_ask_for_it_and_have_what_proves_it() -> None:
    feed = Feed()
    book = feed.book("BTC")
    feed.on_message(snapshot(T0, [99.0], [101.0]))
    feed.on_message(snapshot(T0, [99.0], [101.0], coin="ETH"))
    assert (book.seq, feed.counters["l2"]["unrouted"]) == (0, 2)
    with pytest.raises(DecodeError, match="no l2 feed"):
        Book("BTC").apply(snapshot(T0, [99.0], [101.0]))
    for feeds in (("l2",), ("l2", "bbo")):
        with pytest.raises(ConfigError, match="proves the l2 feed"):
            Book("BTC", feeds=feeds)
    with pytest.raises(ConfigError, match="aggregated"):
        Book("BTC", feeds=("l2", "slow"), aggregated=True)
    feed.book("ETH", feeds=("l2", "slow"))
    with pytest.raises(ConfigError, match="cannot be without slow"):
        feed.drop_feed("ETH", "slow")
    with pytest.raises(ConfigError, match="unknown feed"):
        feed.drop_feed("ETH", "l4")
    feed.drop_feed("PURR", "l2")
    with pytest.raises(DecodeError, match="another coin"):
        Book("BTC", feeds=EVERY).apply(snapshot(T0, [99.0], [101.0], coin="ETH"))


def test_a_copy_of_an_l2_book_is_equal_and_stays_as_it_is() -> None:
    book = Book("BTC", feeds=EVERY)
    book.apply(snapshot(T0, [99.0], [101.0]))
    book.apply(l2book(T0, [99.0], [101.0]))
    twin = book.copy()
    book.apply(l2("u", update(T0 + 1, bids={99.5: 1.0})))
    assert (bid_side(twin), twin.grade, twin.stale, twin.proofs) == ([99.0], Grade.L2, False, 1)
    assert twin.times_ms == {"slow": T0, "l2": T0}
