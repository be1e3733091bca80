"""Fuzz target: any bytes into Feed.on_message. Run by tools/fuzz.sh.

What must hold, besides no finding of the sanitizers: only DecodeError; a refused message changes no array; an accepted
one that orjson can read as well is, bit for bit, what orjson and float make of it. An l2 update on a known snapshot is
what the oracle makes of both, or a desync; a refused one leaves that book as it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import captures
import numpy as np
import oracles

from hlconn import Book, DecodeError, Feed
from hlconn._core import _build

assert _build.SANITIZED, f"not the build for fuzzing: {_build.__file__}"

COINS = [coin.name for coin in captures.COINS]
SNAPSHOT = captures.example("slow")
ROOM = 1 << 16
LEVELS = [[{"px": f"{px}.0", "sz": "1.0", "n": 1} for px in side] for side in (range(99, 79, -1), range(101, 121))]
L2_SNAPSHOT = captures.wire({"channel": "l2", "data": {"s": {"coin": "BTC", "time": 1, "levels": LEVELS}}})


class Harness:
    """One long-lived feed for what state can do, and for each accepted message a fresh book for what it says."""

    def __init__(self) -> None:
        self.feed = Feed(trade_users=True)
        self.rows: np.ndarray | None = None
        self.books: list[Book] = []
        for coin in COINS:
            self.feed.book(coin, 7)
            self.feed.on_book(coin, self.books.append)
            self.feed.on_trades(coin, self.on_trades)
        self.btc = self.feed.book("BTC", 7)
        self.count = 0

    def on_trades(self, rows: np.ndarray) -> None:
        self.rows = rows

    def __call__(self, data: bytes) -> None:
        self.count += 1
        if self.count % 64 == 0:
            self.feed.mark_stale("restart", restart=True)
            self.feed.on_message(SNAPSHOT)
        for coin in COINS:
            self.feed.on_trades(coin, None)  # it forgets which trades were seen
            self.feed.on_trades(coin, self.on_trades)
        self.check_l2(data)
        self.books.clear()
        self.rows = None
        px, sz, n = self.btc.px.tobytes(), self.btc.sz.tobytes(), self.btc.n.tobytes()
        try:
            self.feed.on_message(captures.exact(data))
        except DecodeError as error:
            assert 0 <= error.offset <= len(data)  # noqa: PT017
            assert not self.books
            assert self.rows is None
            assert (px, sz, n) == (self.btc.px.tobytes(), self.btc.sz.tobytes(), self.btc.n.tobytes())
            return
        if self.books:
            self.check_book(data, self.books[0])
        if self.rows is not None:
            self.check_trades(data, self.rows)

    def check_l2(self, data: bytes) -> None:
        feed = Feed()
        book = feed.book("BTC", feeds=("l2", "slow"))
        feed.on_message(L2_SNAPSHOT)
        before = [book.px.tobytes(), book.sz.tobytes(), book.n.tobytes()]
        try:
            feed.on_message(captures.exact(data))
        except DecodeError:
            assert before == [book.px.tobytes(), book.sz.tobytes(), book.n.tobytes()]
            return
        if book.desyncs or not feed.flow({"type": "l2", "coin": "BTC"}, 0) - 1 or b'"s"' in data:
            return
        try:
            want = oracles.l2_after(LEVELS, data)
        except oracles.Refused:
            return
        for row, side in enumerate(want):
            assert book.px[row, : book.count[row]].tolist() == [px for px, _ in side[:20]]
            assert book.sz[row, : book.count[row]].tolist() == [sz for _, sz in side[:20]]

    def check_book(self, data: bytes, shown: Book) -> None:
        for row, sign in ((0, -1), (1, 1)):
            prices = shown.px[row, : shown.count[row]] * sign
            assert (np.diff(prices) > 0).all()
            assert np.isnan(shown.px[row, shown.count[row] :]).all()
        assert not shown.count.all() or shown.spread > 0
        try:
            oracles.load(data)
        except oracles.Refused:
            return  # what orjson does not take, and the core does in values that it skips
        want = oracles.read_book(data)  # Refused is a finding: the core accepted it
        book = Book(want.coin, 7)
        book.apply(data)
        arrays = oracles.arrays(want.sides, 7)
        for name in ("px", "sz", "n", "count"):
            np.testing.assert_array_equal(getattr(book, name), getattr(arrays, name))

    def check_trades(self, data: bytes, rows: np.ndarray) -> None:
        try:
            oracles.load(data)
        except oracles.Refused:
            return
        want = oracles.once(oracles.read_trades(data)[1])
        assert len(want) == len(rows)
        for field in ("time", "px", "sz", "tid", "side"):
            assert rows[field].tobytes() == want[field].tobytes(), field
        # addresses are not compared: the core keeps bytes that are not UTF-8 as they are


if __name__ == "__main__":
    harness = Harness()
    atheris.Setup([*sys.argv, f"-max_len={ROOM}"], harness, enable_python_coverage=False)
    atheris.Fuzz()
