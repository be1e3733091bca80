"""The ladder between l2, fast and slow; with it, a book that follows the venue in a box through every fault of l2."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hlconn import Book, ConfigError, Feed, Grade
from hlconn.l2 import Ladder, Move
from hlconn.sim import Venue

# --- the ladder ---------------------------------------------------------------------------------------------------


def test_a_few_failures_are_answered_by_subscribing_again_and_more_of_them_by_a_step_down() -> None:
    ladder = Ladder(failures=2, within_s=60)
    assert [ladder.failed(at) for at in (0, 10, 59)] == [Move.AGAIN, Move.AGAIN, Move.DOWN]
    assert ladder.feed == "fast"
    assert [ladder.failed(at) for at in (60, 61, 62)] == [Move.AGAIN, Move.AGAIN, Move.DOWN]
    assert ladder.feed == "slow"
    assert {ladder.failed(63 + at) for at in range(9)} == {Move.AGAIN}  # there is nothing below
    assert ladder.feed == "slow"


def test_failures_far_apart_never_step_down() -> None:
    ladder = Ladder(failures=2, within_s=60)
    assert {ladder.failed(30.0 * at) for at in range(50)} == {Move.AGAIN}
    assert ladder.feed == "l2"


def test_l2_is_tried_again_later_each_time_until_it_lasts() -> None:
    ladder = Ladder(failures=0, retry_s=100, most_s=350)
    now, waits = 0.0, []
    for _ in range(4):
        assert ladder.failed(now) is Move.DOWN
        assert ladder.next_s is not None
        waits.append(ladder.next_s - now)
        assert ladder.tick(ladder.next_s - 1, False) is Move.STAY
        now = ladder.next_s
        assert ladder.tick(now, False) is Move.UP
        assert (ladder.feed, ladder.next_s) == ("l2", now + 10)
        assert ladder.tick(now + 10, True) is Move.STAY
        assert ladder.next_s is None
        now += 11
    assert waits == [100, 200, 350, 350]
    assert ladder.failed(now + 400) is Move.DOWN  # that try lasted
    assert ladder.next_s == now + 500


def test_it_climbs_to_l2_from_slow_too() -> None:
    ladder = Ladder(failures=0, retry_s=100)
    ladder.failed(0)
    ladder.failed(1)
    assert (ladder.feed, ladder.next_s) == ("slow", 100)
    assert ladder.tick(100, False) is Move.UP
    assert ladder.feed == "l2"


def test_a_feed_that_the_venue_does_not_offer_is_given_up_at_once_and_l2_for_good() -> None:
    ladder = Ladder()
    assert ladder.refused(5) is Move.DOWN
    assert (ladder.feed, ladder.next_s) == ("fast", None)
    assert ladder.refused(6) is Move.DOWN
    assert ladder.refused(7) is Move.STAY
    assert (ladder.feed, ladder.tick(10**9, False)) == ("slow", Move.STAY)


def test_an_l2_that_does_not_begin_in_time_has_failed() -> None:
    ladder = Ladder(failures=1, answer_s=10, retry_s=100)
    ladder.begin(5)
    assert ladder.next_s == 15
    assert ladder.tick(14, False) is Move.STAY
    assert ladder.tick(15, False) is Move.AGAIN
    assert ladder.next_s == 25
    assert ladder.tick(25, False) is Move.DOWN
    assert (ladder.feed, ladder.next_s) == ("fast", 125)


@pytest.mark.parametrize(
    "bad", [{"failures": -1}, {"within_s": 0}, {"answer_s": 0}, {"retry_s": 0}, {"retry_s": 9, "most_s": 8}]
)
def test_settings_that_cannot_work_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="failures"):
        Ladder(**bad)  # type: ignore[arg-type]


# --- on the venue in a box ----------------------------------------------------------------------------------------

L2 = {"type": "l2", "coin": "BTC"}


class Client:
    """A book of every feed, one connection, and a ladder wired as its page says."""

    def __init__(self, venue: Venue, **ladder: float) -> None:
        self.venue, self.feed, self.ladder = venue, Feed(), Ladder(**ladder)  # type: ignore[arg-type]
        self.book = self.feed.book("BTC", 20, feeds=("l2", "bbo", "fast", "slow"))
        self.moves: list[Move] = []
        self.aligned = 0
        self.said: Any = None  # the last l2Book message
        self.feed.on_desync(lambda coin, reason: self.move(self.ladder.failed(venue.now_ms() / 1000)))
        self.pipe = venue.pipe()
        self.pipe.on_message = self.on_message
        for topic in ({"type": "l2Book", "fast": True}, {"type": "l2Book"}, {"type": "bbo"}, L2):
            self.send("subscribe", {"coin": "BTC", **topic})
        self.ladder.begin(venue.now_ms() / 1000)

    def tick(self) -> None:
        move = self.ladder.tick(self.venue.now_ms() / 1000, self.book.grade == Grade.L2)
        if move is not Move.STAY:
            self.move(move)

    def send(self, method: str, subscription: dict[str, Any]) -> None:
        self.pipe.send(json.dumps({"method": method, "subscription": subscription}).encode())

    def move(self, move: Move) -> None:
        self.moves.append(move)
        if move is not Move.UP:
            self.send("unsubscribe", L2)
        if move is Move.DOWN:
            self.feed.drop_feed("BTC", "l2")
        if move is Move.UP:
            self.feed.book("BTC", feeds=("l2",))
        if move is not Move.DOWN:
            self.send("subscribe", L2)

    def on_message(self, message: bytes) -> None:
        self.feed.on_message(message, 1)
        if b'"l2Book"' in message[:40]:
            self.said = json.loads(message)["data"]
        if self.said is not None and self.book.grade == Grade.L2 and self.book.time_ms == self.said["time"]:
            self.aligned += 1
            assert self.book.stale or shown(self.book, len(self.said["levels"][0])) == texts(self.said["levels"])

    def true(self, levels: int = 20) -> bool:
        """Whether the book is the venue's."""
        block = self.venue.exchange.block
        market, book = self.venue.exchange.markets["BTC"], block.books["BTC"]
        want = [[(float(market.px_text(lv.px)), float(market.sz_text(lv.sz))) for lv in side[:levels]] for side in book]
        return shown(self.book, levels) == want


def texts(levels: list[list[dict[str, Any]]]) -> list[list[tuple[float, float]]]:
    return [[(float(level["px"]), float(level["sz"])) for level in side] for side in levels]


def shown(book: Book, most: int) -> list[list[tuple[float, float]]]:
    counts = [min(most, int(count)) for count in book.count]
    return [list(zip(book.px[r, :n].tolist(), book.sz[r, :n].tolist(), strict=True)) for r, n in enumerate(counts)]


@pytest.mark.parametrize("deflate_over", [None, 0, 300])
@pytest.mark.parametrize("shuffle", [False, True])
def test_l2_follows_the_venue_block_by_block_and_is_proven(deflate_over: int | None, shuffle: bool) -> None:
    venue = Venue(11, coins=("BTC",), stepped=True, l2_deflate_over=deflate_over, shuffle_keys=shuffle)
    client = Client(venue)
    for at in range(200):
        venue.block()
        assert client.true(), at
        assert not client.book.stale, at
        assert client.book.grade == Grade.L2
    assert client.book.proofs > 20
    assert (client.moves, client.feed.counters["l2"]["errors"]) == ([], 0)
    assert client.feed.counters["l2"]["messages"] > 50


@pytest.mark.parametrize("kind", ["drop", "duplicate", "reorder"])
def test_with_l2_frames_lost_repeated_or_reordered_no_aligned_l2book_differs_from_a_book_called_live(kind: str) -> None:
    found = 0
    for seed in range(3):
        venue = Venue(seed, coins=("BTC",), stepped=True)
        client = Client(venue, failures=1000)
        fault = venue.fault(kind, channel="l2", p=0.05, count=None)
        for _ in range(400):
            venue.block()
            client.tick()
        assert fault.hits > 0
        assert set(client.moves) <= {Move.AGAIN}
        found += client.book.desyncs
        venue.faults.clear()
        for _ in range(40):
            venue.advance(500)
            client.tick()
        assert client.true()
        assert (client.book.stale, client.book.grade) == (False, Grade.L2)
        assert client.aligned > 20
    assert found > 0


def test_an_l2_feed_that_keeps_breaking_is_given_up_and_tried_again() -> None:
    venue = Venue(5, coins=("BTC",), stepped=True)
    client = Client(venue, failures=2, within_s=3600, retry_s=900)
    venue.fault("drop", channel="l2", p=0.3, count=None)
    for _ in range(2000):
        if client.ladder.feed == "fast":
            break
        venue.block()
        client.tick()
    assert client.moves == [Move.AGAIN, Move.AGAIN, Move.DOWN]
    assert (client.book.grade, client.book.stale) == (Grade.FAST, False)
    venue.faults.clear()
    venue.advance(2000)
    venue.pause()
    venue.advance(1)  # what was sent arrives
    assert client.true(5)
    venue.resume()
    client.move(client.ladder.tick(client.ladder.next_s or 0, False))
    venue.advance(2000)
    assert (client.book.grade, client.book.stale, client.true()) == (Grade.L2, False, True)
