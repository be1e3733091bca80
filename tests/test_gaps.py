"""gaps.py: every interruption ends in a gap, in order with the data, and only what is proven is called so."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hlconn import TRADE_DTYPE, TRADE_USERS_DTYPE, Candle, Gap
from hlconn.gaps import CandleHistory, Recovery, State, TradeHistory, read_trades

Rows = NDArray[np.void]


def rows(*tids: int) -> Rows:
    """Trades whose time is their tid, so that a test can be read."""
    made = np.zeros(len(tids), TRADE_DTYPE)
    made["tid"] = made["time"] = tids
    return made


class Known:
    """What a feed knows of trades, in plain Python."""

    def __init__(self, *tids: int) -> None:
        self.tids = set(tids)

    def seen_trades(self, coin: str, tids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.array([int(tid) in self.tids for tid in tids], np.bool_)

    def end_trades_before(self, coin: str, time_ms: int) -> None:
        self.ended_ms = time_ms

    def note_trades(self, coin: str, trades: Rows) -> None:
        self.tids |= set(trades["tid"].tolist())


def shown(out: list[Any]) -> list[Any]:
    return [
        (each.from_ms, each.to_ms, each.proven) if isinstance(each, Gap) else [int(tid) for tid in each["tid"]]
        for each in out
    ]


def interrupted(known: Known, last_ms: int) -> Recovery[Rows]:
    recovery = Recovery("BTC", TradeHistory("BTC", known))
    assert recovery.down("cut", last_ms) == []
    return recovery


def first(recovery: Recovery[Rows], known: Known, *tids: int) -> list[Any]:
    """The first message, as the feed tells it: the new rows, and how many were known."""
    new = [tid for tid in tids if tid not in known.tids]
    known.tids |= set(tids)
    return shown(recovery.first(rows(*new) if new else None, len(new) < len(tids)))


def later(recovery: Recovery[Rows], known: Known, *tids: int) -> list[Any]:
    known.tids |= set(tids)
    return shown(recovery.item(rows(*tids)))


def test_a_replay_that_meets_what_was_known_proves_that_nothing_is_missing() -> None:
    known = Known(1, 2, 3)
    recovery = interrupted(known, 3)
    assert first(recovery, known, 2, 3, 4, 5) == [(3, 5, True), [4, 5]]
    assert recovery.state is State.LIVE
    assert not recovery.query_wanted


def test_a_replay_of_known_trades_alone_is_a_gap_in_which_nothing_happened() -> None:
    known = Known(1, 2, 3)
    assert first(interrupted(known, 3), known, 1, 2, 3) == [(3, 3, True)]


def test_what_does_not_meet_is_filled_before_what_came_meanwhile() -> None:
    known = Known(1, 2, 3)
    recovery = interrupted(known, 3)
    assert first(recovery, known, 8, 9) == []
    assert recovery.query_wanted
    assert later(recovery, known, 10) == []
    # the venue says 12 before the link does: it comes by itself
    assert shown(recovery.filled(recovery.round, rows(2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))) == [
        (3, 8, True), [4, 5, 6, 7], [8, 9], [10],
    ]  # fmt: skip
    assert known.tids == {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
    assert recovery.last_ms == 10


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        ((6, 7, 8, 9), [(3, 6, False), [6, 7], [8, 9]]),  # it does not reach back to what was known
        ((2, 3, 4, 5), [(5, 8, False), [4, 5], [8, 9]]),  # nor forward to what came
        ((5, 6), [(3, 8, False), [5, 6], [8, 9]]),  # neither
        ((8, 9), [(3, 8, False), [8, 9]]),
        ((), [(3, 8, False), [8, 9]]),
    ],
)
def test_an_answer_that_does_not_meet_both_ends_declares_what_may_be_missing(
    answer: tuple[int, ...], want: list[Any]
) -> None:
    known = Known(1, 2, 3)
    recovery = interrupted(known, 3)
    first(recovery, known, 8, 9)
    assert shown(recovery.filled(recovery.round, rows(*answer))) == want
    assert recovery.state is State.LIVE


def test_without_an_answer_the_gap_is_declared_and_what_waited_is_delivered() -> None:
    known = Known(1, 2, 3)
    recovery = interrupted(known, 3)
    first(recovery, known, 8)
    round_ = recovery.round
    later(recovery, known, 9)
    assert shown(recovery.failed(round_)) == [(3, 8, False), [8], [9]]
    assert recovery.filled(round_, rows(3, 4, 8)) == []  # too late
    assert recovery.failed(round_) == []


def test_a_stream_that_had_brought_nothing_cannot_prove_anything() -> None:
    known = Known()
    recovery = interrupted(known, 0)
    assert first(recovery, known, 8, 9) == []
    assert shown(recovery.filled(recovery.round, rows(6, 7, 8, 9))) == [(0, 6, False), [6, 7], [8, 9]]


def test_a_second_cut_declares_the_first_and_an_answer_to_the_old_question_is_nothing() -> None:
    known = Known(1, 2, 3)
    recovery = interrupted(known, 3)
    first(recovery, known, 8)
    old = recovery.round
    assert shown(recovery.down("again", 8)) == [(3, 8, False), [8]]
    assert recovery.down("again", 8) == []
    assert recovery.filled(old, rows(3, 4, 8)) == []
    assert first(recovery, known, 8, 9) == [(8, 9, True), [9]]  # what was held is known: it proves the second alone


def test_a_quiet_stream_is_asked_for_and_nothing_waits() -> None:
    known = Known(1, 2, 3)
    recovery = interrupted(known, 3)
    recovery.nothing_came()
    assert recovery.query_wanted
    assert recovery.failed(recovery.round) == []
    assert not recovery.query_wanted  # it may be asked again
    recovery.nothing_came()
    assert shown(recovery.filled(recovery.round, rows(2, 3, 4))) == [(3, 4, True), [4]]
    assert recovery.state is State.LIVE


def test_the_end_declares_what_is_open() -> None:
    known = Known(1, 2, 3)
    recovery = interrupted(known, 3)
    first(recovery, known, 8)
    assert shown(recovery.give_up()) == [(3, 8, False), [8]]
    assert known.ended_ms == 8
    assert recovery.give_up() == []


def test_of_any_history_each_trade_is_delivered_once_in_order_or_lies_in_a_declared_gap() -> None:
    for seed in range(2_000):
        rng = Random(seed)
        known = Known()
        recovery = Recovery("BTC", TradeHistory("BTC", known))
        delivered: list[int] = []
        declared: list[tuple[int, int]] = []
        now = 0  # trades are 1, 2, 3 ...

        def take(out: list[Any]) -> None:
            for each in out:
                if isinstance(each, Gap):
                    if not each.proven:
                        declared.append((each.from_ms, each.to_ms))  # noqa: B023
                else:
                    delivered.extend(each["tid"].tolist())  # noqa: B023

        for _ in range(rng.randint(1, 12)):
            for _ in range(rng.randint(0, 4)):  # served
                tids = list(range(now + 1, now + 1 + rng.randint(1, 3)))
                now = tids[-1]
                known.tids |= set(tids)
                if recovery.state is not State.DOWN or rng.random() < 0.5:  # else it is lost with the link
                    take(recovery.item(rows(*tids)))
                else:
                    known.tids -= set(tids)
            if recovery.state is State.FILLING and rng.random() < 0.7:
                begin, end = rng.randint(0, now), max(0, now - rng.choice((0, 0, 0, 1, 5)))
                if rng.random() < 0.8:
                    take(recovery.filled(recovery.round, rows(*range(begin + 1, end + 1))))
                else:
                    take(recovery.failed(recovery.round))
            take(recovery.down("cut", max(known.tids, default=0)))
            now += rng.choice((0, 0, 1, 4, 20))  # missed
            replay = list(range(max(1, now - rng.choice((0, 2, 6, 30))), now + 1))
            new = [tid for tid in replay if tid not in known.tids]
            was_known = len(new) < len(replay)
            if replay:
                known.tids |= set(replay)
                take(recovery.first(rows(*new) if new else None, was_known))
        take(recovery.give_up())
        assert delivered == sorted(set(delivered)), seed
        missing = set(range(1, now + 1)) - set(delivered)
        assert all(any(a <= tid <= b for a, b in declared) for tid in missing), (seed, missing, declared)


@pytest.mark.parametrize("dtype", [TRADE_DTYPE, TRADE_USERS_DTYPE])
def test_the_venues_recent_trades_are_read_oldest_first(dtype: Any) -> None:
    answer = [
        {
            "coin": "BTC",
            "side": "A",
            "px": "2.5",
            "sz": "1",
            "time": 20,
            "hash": "0x",
            "tid": 2,
            "users": ["0xa", "0xb"],
        },
        {"coin": "BTC", "side": "B", "px": "2.4", "sz": "3", "time": 10, "hash": "0x", "tid": 1},
    ]
    got = read_trades(answer, dtype)
    assert got[["time", "px", "sz", "tid", "side"]].tolist() == [(10, 2.4, 3.0, 1, 0), (20, 2.5, 1.0, 2, 1)]
    if dtype is TRADE_USERS_DTYPE:
        assert got["buyer"].tolist() == [b"", b"0xa"]
    bads: list[Any] = [[{}], [{**answer[0], "side": "C"}], [{**answer[0], "px": "x"}], [None], None]
    for bad in bads:
        with pytest.raises((KeyError, TypeError, ValueError)):
            read_trades(bad, dtype)


def candle(open_ms: int, n: int = 1) -> Candle:
    return Candle("BTC", "1m", open_ms, open_ms + 59, 1.0, 1.0, 1.0, 1.0, 1.0, n)


@pytest.mark.parametrize(
    ("answer", "held", "want"),
    [
        ([60, 120, 180, 240], 240, [(60, 240, True), 120, 180, 240]),
        ([120, 180, 240], 240, [(60, 240, False), 120, 180, 240]),  # the last known one is not among them
        ([60, 120], 240, [(60, 240, False), 120, 240]),
        ([], 240, [(60, 240, False), 240]),
    ],
)
def test_candles_are_filled_from_the_last_known_one_on(answer: list[int], held: int, want: list[Any]) -> None:
    recovery = Recovery("BTC", CandleHistory())
    recovery.delivered(candle(60))
    recovery.down("cut", 60)
    assert recovery.first(candle(held), False) == []
    out = recovery.filled(recovery.round, [candle(at) for at in answer])
    assert [(e.from_ms, e.to_ms, e.proven) if isinstance(e, Gap) else e.open_ms for e in out] == want


def test_the_last_known_candle_comes_again_only_when_it_has_grown_since() -> None:
    for n, want in ((1, [120]), (2, [60, 120])):
        recovery = Recovery("BTC", CandleHistory())
        recovery.delivered(candle(60))
        recovery.down("cut", 60)
        recovery.nothing_came()
        _, *items = recovery.filled(recovery.round, [candle(60, n), candle(120)])
        assert [each.open_ms for each in items if isinstance(each, Candle)] == want


def test_what_is_no_candle_is_told_apart() -> None:
    data = {"t": 60, "T": 119, "s": "BTC", "i": "1m", "o": "1", "c": "2", "h": "3", "l": "0.5", "v": "7", "n": 4}
    assert Candle.read(data) == Candle("BTC", "1m", 60, 119, 1.0, 3.0, 0.5, 2.0, 7.0, 4)
    for key in data:
        with pytest.raises((KeyError, ValueError)):
            Candle.read({k: v for k, v in data.items() if k != key})
