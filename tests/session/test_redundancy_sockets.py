"""Two links for everything, one of them cut again and again, over real sockets: equal to a session that is never cut.

HLCONN_HYPOTHESIS=long cuts 100 times.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hlconn
from hlconn import Book, Gap, SessionConfig
from hlconn.session.link import SubState
from hlconn.sim import Venue

COINS = ("BTC", "ETH")
CUTS = {"ci": 10, "first": 10, "long": 100}[os.environ.get("HLCONN_HYPOTHESIS", "ci")]
SPEED = 20.0


class Heard:
    """What the callbacks of one session were given, in order.

    tops: each change of the best prices and sizes. A link that returns is told the present ones again, of a later time.
    """

    def __init__(self, hl: hlconn.Client) -> None:
        self.trades: dict[str, list[Any]] = {coin: [] for coin in COINS}
        self.tops: dict[str, list[Any]] = {coin: [] for coin in COINS}
        self.gaps: list[Gap] = []
        hl.market.on_gap(self.gaps.append)
        for coin in COINS:
            hl.market.on_trades(coin, self._on_trades_of(coin))
            hl.market.on_book(coin, self._on_book, feeds=("bbo",))

    def _on_trades_of(self, coin: str) -> Callable[[NDArray[np.void]], None]:
        return lambda rows: self.trades[coin].extend(rows.tolist())

    def _on_book(self, book: Book) -> None:
        seen = self.tops[book.coin]
        top = (book.px[:, 0].tolist(), book.sz[:, 0].tolist(), book.stale)
        if not seen or seen[-1][1] != top:
            seen.append((book.time_ms, top))

    def newest(self) -> list[Any]:
        return [seen[coin][-1:] for seen in (self.trades, self.tops) for coin in COINS]


async def until(what: str, holds: Any) -> None:
    async with asyncio.timeout(30.0):
        try:
            while not holds():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            raise AssertionError(what) from None


async def cut_one_of_two(seed: int) -> None:
    rng = Random(seed)
    quick: dict[str, Any] = {
        "ping_interval_s": 2.0, "pong_timeout_s": 2.0, "backoff_min_s": 0.005, "backoff_max_s": 0.03,
        "slow_period_s": 5 / SPEED, "fast_period_s": 0.5 / SPEED, "silence_min_s": 5.0,
        "sockets_per_minute": 100_000, "messages_per_minute": 100_000,
    }  # fmt: skip
    async with Venue(seed, speed=SPEED, coins=COINS) as venue, hlconn.connect(venue.endpoints) as steady:
        ours = set(venue.streams.sessions)
        config = SessionConfig(max_links=2, redundancy=2, **quick)
        async with hlconn.connect(venue.endpoints, config=config) as hl:
            want, got = Heard(steady), Heard(hl)
            pool = hl.pool

            def is_served_twice() -> bool:
                states = [state for _, state, _ in pool.subscriptions]
                sockets = len(venue.streams.sessions) - len(ours)
                return sockets == 2 and len(states) == 4 * len(COINS) and set(states) == {SubState.LIVE}

            def reconnects() -> int:
                return sum(counters.reconnects for counters in pool.counters.values())

            for cuts in range(CUTS):
                await until("not served on both links again", is_served_twice)
                count = [len(got.trades[coin]) + len(got.tops[coin]) for coin in COINS]
                await until("nothing comes", lambda: count != [len(got.trades[c]) + len(got.tops[c]) for c in COINS])  # noqa: B023
                rng.choice([each for each in venue.streams.sessions if each not in ours]).end(rng.choice([None, 1000]))
                await until("the link did not return", lambda: reconnects() > cuts)  # noqa: B023
            await until("not served on both links again", is_served_twice)
            venue.pause()
            await until("the end differs", lambda: got.newest() == want.newest())
            assert reconnects() == CUTS
            for coin in COINS:
                for seen, expected in ((got.trades[coin], want.trades[coin]), (got.tops[coin], want.tops[coin])):
                    # both began when they were subscribed to, which is not the same moment
                    start = next(at for at, each in enumerate(expected) if each in seen)
                    assert seen[seen.index(expected[start]) :] == expected[start:], coin
                    assert len(expected) - start > CUTS / 4, "nothing to compare"
            assert all(gap.proven or gap.from_ms == 0 for gap in got.gaps), got.gaps


@pytest.mark.parametrize("seed", range(2))
def test_the_end_of_one_of_two_links_costs_nothing_message_by_message(seed: int) -> None:
    asyncio.run(cut_one_of_two(seed))
