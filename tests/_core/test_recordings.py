"""Whole recordings: our own made-up ones always, those of the real venue where they are beside the repository.

For each message: arrays equal to orjson and float bit for bit; the same after shuffling the keys of every object and
adding white space; the message cut at every length gives an error or nothing, never a changed book.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import captures
import numpy as np
import oracles
import pytest
from captures import exact
from numpy.typing import NDArray

from hlconn import Book, DecodeError, Feed

pytestmark = pytest.mark.usefixtures("reader")

DEPTH = 120
ARCHIVE = "recordings/s3_archive_l2Book_BTC_2024-01-01_12h.jsonl.gz"
RECEIVED = "recordings/ws_l2Book_trades_BTC_2025-01-26.recv_ns_json.txt.gz"


class Reader:
    """One feed that begins anew with every message: what a message says, without history."""

    def __init__(self) -> None:
        self.feed = Feed(trade_users=True)
        self.rows: NDArray[Any] | None = None
        self.book: Book | None = None

    def listen(self, coin: str) -> None:
        if coin not in self.feed.coins:
            self.feed.book(coin, DEPTH)
            self.feed.on_book(coin, self.on_book)
            self.feed.on_trades(coin, self.on_trades)

    def on_book(self, book: Book) -> None:
        self.book = book

    def on_trades(self, rows: NDArray[Any]) -> None:
        self.rows = rows

    def read(self, message: bytes) -> tuple[Book | None, NDArray[Any] | None]:
        self.feed.mark_stale("anew", restart=True)
        for coin in self.feed.coins:
            self.feed.on_trades(coin, None)  # it forgets which trades were seen
            self.feed.on_trades(coin, self.on_trades)
        self.book = self.rows = None
        self.feed.on_message(exact(message))
        return self.book, self.rows

    def check(self, message: bytes, text: bytes) -> bool:
        """`text`, a spelling of `message`, is read as orjson and float read that. Whether it is a hot channel's."""
        channel = oracles.load(message)["channel"]
        if channel in ("l2Book", "bbo"):
            want = oracles.read_book(message)
            self.listen(want.coin)
            book, _ = self.read(text)
            assert book is not None
            arrays = oracles.arrays(want.sides, DEPTH)
            assert (book.coin, book.time_ms, list(book.times_ms)) == (want.coin, want.time_ms, [want.feed])
            assert book.px[np.isfinite(arrays.px)].tobytes() == arrays.px[np.isfinite(arrays.px)].tobytes()
            assert np.isnan(book.px[np.isnan(arrays.px)]).all()
            for name in ("sz", "n", "count"):
                assert getattr(book, name).tobytes() == getattr(arrays, name).tobytes(), name
            assert book.beyond == arrays.beyond
        elif channel == "trades":
            coin, rows = oracles.read_trades(message, users=True)
            if coin:
                self.listen(coin)
            _, got = self.read(text)
            assert (got is not None) == bool(coin)
            if got is not None:
                assert all(got[f].tobytes() == rows[f].tobytes() for f in rows.dtype.names or ())
        else:
            before = self.feed.other_channels.get(channel, 0)
            assert self.read(text) == (None, None)
            assert self.feed.other_channels[channel] == before + 1
            return False
        return True

    def cut(self, message: bytes) -> None:
        """Every beginning of the message: an error or nothing, and no level changed."""
        channel = oracles.load(message)["channel"]
        if channel in ("l2Book", "bbo"):
            coin = oracles.read_book(message).coin
            self.listen(coin)
            self.read(message)
            book = self.feed.book(coin)
            before = [a.tobytes() for a in (book.px, book.sz, book.n, book.count, book.changed)]
        else:
            book, before = None, []
        self.book = self.rows = None
        for size in range(len(message)):
            try:
                self.feed.on_message(exact(message[:size]))
            except DecodeError as error:
                assert error.offset <= size  # noqa: PT017
            assert self.book is None
            assert self.rows is None
            if book is not None:
                assert book.stale or size < len('{"channel":')
        if book is not None:
            assert before == [a.tobytes() for a in (book.px, book.sz, book.n, book.count, book.changed)]


def made_up() -> Iterator[bytes]:
    return (m for m in captures.stream(11, 3) if m != captures.GREETING)


def ws_lines(root: Path) -> Iterator[bytes]:
    for path in sorted((root / "ws").glob("*.jsonl")):
        if path.name != "SOURCES.jsonl":
            yield from path.read_bytes().splitlines()


def archive_lines(root: Path) -> Iterator[bytes]:
    with gzip.open(root / ARCHIVE) as file:
        for line in file:
            yield line[line.index(b'"raw":') + 6 : line.rindex(b"}")]


def received_lines(root: Path) -> Iterator[bytes]:
    with gzip.open(root / RECEIVED) as file:
        for line in file:
            yield line.rstrip(b"\n").split(b" ", 1)[1]


Source = Callable[[Path], Iterator[bytes]]
REAL: dict[str, tuple[Source, int]] = {  # and how many messages there are at least
    "ws": (ws_lines, 90),
    "archive": (archive_lines, 5587),
    "received": (received_lines, 55),
}


def replay(messages: Iterator[bytes], *, respell_every: int, cut_every: int) -> tuple[int, int]:
    reader, rng = Reader(), Random(1)
    count = hot = 0
    for count, message in enumerate(messages, 1):
        hot += reader.check(message, message)
        if count % respell_every == 0:
            reader.check(message, captures.respell(message, rng, escapes=count % 2 == 0))
        if count % cut_every == 0 and len(message) < 20_000:
            reader.cut(message)
    assert sum(c["unrouted"] for c in reader.feed.counters.values()) == 0
    return count, hot


def test_our_own_captures_are_read_as_orjson_and_float_read_them_in_every_spelling(long_run: bool) -> None:
    count, hot = replay(made_up(), respell_every=1, cut_every=1 if long_run else 37)
    assert hot == 3 * len(captures.SHAPES) * len(captures.COINS)
    assert count == hot + 3 * 7


@pytest.mark.parametrize("name", REAL)
def test_recordings_of_the_venue_are_read_as_orjson_and_float_read_them(
    shared_fixtures: Path, name: str, long_run: bool
) -> None:
    source, expected = REAL[name]
    often = long_run or name != "archive"
    count, hot = replay(
        source(shared_fixtures), respell_every=1 if often else 20, cut_every=1 if long_run else 7 if often else 1500
    )
    assert count >= expected
    assert hot > 0


def test_an_hour_of_the_venue_folds_as_the_oracle_says(shared_fixtures: Path) -> None:
    book, fold = Book("BTC"), oracles.Fold()
    for i, message in enumerate(archive_lines(shared_fixtures)):
        applied = fold.apply(oracles.read_book(message))
        assert book.apply(message) == applied
        if i % 50 == 0:
            want = oracles.arrays(fold.sides(), 20)
            np.testing.assert_array_equal(book.px, want.px)
            np.testing.assert_array_equal(book.sz, want.sz)
            np.testing.assert_array_equal(book.n, want.n)
