"""`hlconn demo`: a venue in its own process, a session with it, orders on it, and the proof that all of it is right."""

from __future__ import annotations

import argparse
import asyncio
import functools
import http.client
import json
import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from .._core.book import Book
from ..client import Client, connect
from ..config import SessionConfig
from ..session.link import LinkState
from ..types import Side
from . import CommandError
from ._demo_orders import Orders
from ._terminal import Screen, View, screen
from ._venue_process import VenueProcess

__all__ = ["add_arguments", "run"]

_COINS = ("BTC", "ETH")
_SEED = 7
# The public venue sends 20 levels every 5 s. Five times faster, even a short demo sees some.
_SPEED = 5.0
_MIN_SECONDS = 2.0
# How much longer than asked it may take until every coin was compared on both sides of the reconnect.
_PATIENCE_S = 10.0
_REFRESH_S = 0.25
_HTTP_TIMEOUT_S = 5.0
#: Latencies remembered: the percentiles are of the last so many messages.
_LATENCIES = 1 << 17

#: How many levels a side of a book are exactly the venue's while that feed is the newest in it. None: all.
_EXACT_LEVELS = {"slow": None, "fast": 5, "bbo": 1}
#: Every slow state is compared, and of the frequent others one in this time.
_SAMPLE_PERIOD_NS = 250_000_000


def _seconds(text: str) -> float:
    seconds = float(text)
    if not _MIN_SECONDS <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"at least {_MIN_SECONDS:g}, not {text}")
    return seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=_seconds, default=10.0, help="how long, at least 2 (default: 10)")


def run(args: argparse.Namespace) -> int:
    with VenueProcess(_COINS, _SEED, _SPEED) as venue:
        return asyncio.run(_demo(venue, args.seconds))


@dataclass(frozen=True, slots=True)
class _Sample:
    """A book as it was in a callback. levels: how many a side must be the venue's, None for all."""

    book: Book
    feed: str
    levels: int | None
    after_reconnect: bool


class _Probe:
    """Sits on the callbacks: notes latencies, and keeps some book states for a later comparison."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._latency_ns: NDArray[np.int64] = np.zeros(_LATENCIES, np.int64)
        self._sampled_ns: dict[tuple[str, str], int] = {}
        self.book_messages = 0
        self.samples: list[_Sample] = []
        self.events: list[str] = []
        self.last_trades: dict[str, str] = {}
        self._began_ns = time.monotonic_ns()
        self._down_ns = 0
        client.on_state(self.on_state)
        for coin in _COINS:
            client.market.on_book(coin, self.on_book)
            client.market.on_trades(coin, functools.partial(self.on_trades, coin))

    def on_book(self, book: Book) -> None:
        now_ns = time.monotonic_ns()
        self._latency_ns[self.book_messages % _LATENCIES] = now_ns - book.recv_ns
        self.book_messages += 1
        times_ms = book.times_ms
        feed = next(name for name in _EXACT_LEVELS if times_ms.get(name) == book.time_ms)
        if feed == "slow" or now_ns - self._sampled_ns.get((book.coin, feed), 0) >= _SAMPLE_PERIOD_NS:
            self._sampled_ns[book.coin, feed] = now_ns
            after = self._client.link.counters.reconnects > 0
            self.samples.append(_Sample(book.copy(), feed, _EXACT_LEVELS[feed], after))

    def on_trades(self, coin: str, trades: NDArray[np.void]) -> None:
        last = trades[-1]
        self.last_trades[coin] = f"{coin} {Side(last['side']).name.lower()} {last['sz']:g} at {last['px']:,.10g}"

    def on_state(self, state: LinkState, reason: str, now_ns: int) -> None:
        at_s = (now_ns - self._began_ns) / 1e9
        if state is LinkState.WAITING and not self._down_ns:
            self._down_ns = now_ns
            self.events.append(f"{at_s:5.1f} s   connection lost ({reason}): books are stale")
        elif state is LinkState.LIVE and self._down_ns:
            away_ms = (now_ns - self._down_ns) / 1e6
            self._down_ns = 0
            self.events.append(f"{at_s:5.1f} s   connected again after {away_ms:.0f} ms: books begin anew")

    @property
    def elapsed_s(self) -> float:
        return (time.monotonic_ns() - self._began_ns) / 1e9

    @property
    def messages(self) -> int:
        return sum(counter["messages"] for counter in self._client.feed.counters.values())

    @property
    def bytes(self) -> int:
        return sum(counter["bytes"] for counter in self._client.feed.counters.values())

    def percentiles_us(self) -> list[str]:
        """p50, p99 and p99.9, from when a frame was received to when its callback began."""
        seen = self._latency_ns[: min(self.book_messages, _LATENCIES)]
        return [f"{ns / 1000:,.1f} us" for ns in np.percentile(seen, (50, 99, 99.9))]


class _Referee:
    """Compares book states with the venue's own books, which it asks for over HTTP. Blocks: for a thread."""

    def __init__(self, http_url: str) -> None:
        parts = urlsplit(http_url)
        # not urllib: it would ask a proxy from the environment for an address of this machine
        self._http = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_HTTP_TIMEOUT_S)
        self.compared: Counter[tuple[str, bool]] = Counter()  # by coin, and whether after the reconnect
        self.levels = 0
        self.mismatches: list[str] = []

    @property
    def books(self) -> int:
        return self.compared.total()

    def has_seen(self, *, after_reconnect: bool) -> bool:
        """Whether each coin was compared at least once before, or after, the reconnect."""
        return all(self.compared[coin, after_reconnect] for coin in _COINS)

    def compare(self, samples: Sequence[_Sample]) -> None:
        for sample in samples:
            truth = self._venue_book(sample.book.coin, sample.book.time_ms)
            self.compared[sample.book.coin, sample.after_reconnect] += 1
            difference = self._difference(sample, truth)
            if difference is not None:
                self.mismatches.append(difference)

    def close(self) -> None:
        self._http.close()

    def _difference(self, sample: _Sample, truth: list[list[tuple[float, float, int]]]) -> str | None:
        """The first level that differs, in words; None when px, sz and n of every level are equal."""
        book = sample.book
        levels = book.depth if sample.levels is None else sample.levels
        for side, name in enumerate(("bid", "ask")):
            count = min(levels, int(book.count[side]))
            ours = list(zip(*[array[side, :count].tolist() for array in (book.px, book.sz, book.n)], strict=True))
            theirs = truth[side][:levels]
            self.levels += len(theirs)
            if ours != theirs:
                pairs = zip(ours, theirs, strict=False)
                at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(count, len(theirs)))
                here, there = (f"{side[at]}" if at < len(side) else "nothing" for side in (ours, theirs))
                return (
                    f"{book.coin} at {book.time_ms} ms, newest feed {sample.feed}, {name} level {at + 1}: "
                    f"(px, sz, n) is {here} here and {there} at the venue"
                )
        return None

    def _venue_book(self, coin: str, time_ms: int) -> list[list[tuple[float, float, int]]]:
        request = json.dumps({"type": "hiddenBook", "coin": coin, "time": time_ms})
        try:
            self._http.request("POST", "/info", request, {"Content-Type": "application/json"})
            response = self._http.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise CommandError(f"the venue does not answer any more, its books cannot be compared: {exc}") from exc
        if response.status != http.HTTPStatus.OK:
            answer = f"HTTP {response.status}, {body[:200]!r}"
            raise CommandError(f"the venue does not know the book of {coin} at {time_ms} ms: {answer}")
        levels: list[list[dict[str, Any]]] = json.loads(body)["levels"]
        return [[(float(level["px"]), float(level["sz"]), level["n"]) for level in side] for side in levels]


async def _demo(venue: VenueProcess, seconds: float) -> int:
    config = SessionConfig(slow_period_s=5.0 / _SPEED, fast_period_s=0.5 / _SPEED)
    print(
        f"A made-up market runs in a process of its own, {_SPEED:g} times as fast as the real one, at\n"
        f"{venue.endpoints.ws_url}; this process connects to it as it would to the real one.\n"
        f"Orders are placed, modified, canceled and filled; half-way the venue cuts the connection,\n"
        f"as the real one does.\n",
        flush=True,
    )
    with closing(_Referee(venue.endpoints.http_url)) as referee, closing(Orders(venue.endpoints, venue.key)) as orders:
        async with connect(venue.endpoints, config=config) as client:
            probe = _Probe(client)
            books = [await client.market.book(coin) for coin in _COINS]
            with screen() as shown:
                await _watch(venue, seconds, client, probe, referee, orders, books, shown)
            elapsed_s = probe.elapsed_s
            _summarize(client, probe, referee, orders, elapsed_s)
    if not orders.told:
        raise CommandError("no order was sent: nothing is proved. Try again.")
    if referee.mismatches:
        count, first = len(referee.mismatches), referee.mismatches[0]
        raise CommandError(f"{count} of {referee.books} books differ from the venue's. The first: {first}")
    for after, name in ((False, "before"), (True, "after")):
        if not referee.has_seen(after_reconnect=after):
            raise CommandError(f"not every coin could be compared {name} the reconnect: nothing is proved. Try again.")
    return 0


async def _watch(
    venue: VenueProcess,
    seconds: float,
    client: Client,
    probe: _Probe,
    referee: _Referee,
    orders: Orders,
    books: list[Book],
    shown: Screen,
) -> None:
    """Refresh the picture and compare samples until the time is up and there is enough to judge.

    Orders are sent at a quarter of the time, the connection is cut at half.
    """
    cut = traded = False
    ticks: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=5)
    while True:
        venue.check()
        elapsed_s = probe.elapsed_s
        samples, probe.samples = probe.samples, []
        await asyncio.to_thread(referee.compare, samples)
        ticks.append((elapsed_s, probe.messages))
        (from_s, from_messages), (to_s, to_messages) = ticks[0], ticks[-1]
        rate = (to_messages - from_messages) / (to_s - from_s)
        view = View(
            f"hlconn demo   {elapsed_s:.0f} of {seconds:g} s",
            elapsed_s,
            tuple([book.copy() for book in books]),
            rate,
            _facts(client, probe, referee, rate, seconds),
            tuple(probe.events),
        )
        await asyncio.to_thread(shown.show, view)
        if not traded and elapsed_s >= seconds / 4 and not books[0].stale:
            traded = True
            await asyncio.to_thread(orders.run, books[0].best_bid, books[0].best_ask)
            probe.events += [f"{elapsed_s:5.1f} s   {sentence}" for sentence in orders.told]
        if elapsed_s >= seconds and (referee.has_seen(after_reconnect=True) or elapsed_s >= seconds + _PATIENCE_S):
            return
        if not cut and elapsed_s >= seconds / 2 and referee.has_seen(after_reconnect=False):
            venue.cut()
            cut = True
        await asyncio.sleep(max(0.0, elapsed_s + _REFRESH_S - probe.elapsed_s))


def _facts(
    client: Client, probe: _Probe, referee: _Referee, rate: float, seconds: float
) -> tuple[tuple[str, str], ...]:
    p50, p99, p999 = probe.percentiles_us()
    reconnects = client.link.counters.reconnects
    equal = referee.books - len(referee.mismatches)
    return (
        ("messages", f"{probe.messages:,}, now {rate:,.0f} a second"),
        ("frame received to callback", f"p50 {p50}   p99 {p99}   p99.9 {p999}"),
        ("last trades", "   ".join(probe.last_trades[coin] for coin in _COINS if coin in probe.last_trades)),
        ("reconnects", f"{reconnects}" if reconnects else f"0, one is forced at {seconds / 2:g} s"),
        ("compared with the venue", f"{referee.books} books, level by level: {equal} equal"),
    )


def _summarize(client: Client, probe: _Probe, referee: _Referee, orders: Orders, elapsed_s: float) -> None:
    p50, p99, p999 = probe.percentiles_us()
    rate, size = f"{probe.messages / elapsed_s:,.0f} a second", f"{probe.bytes:,} bytes"
    before, after = (", ".join(f"{coin} {referee.compared[coin, late]}" for coin in _COINS) for late in (False, True))
    answers_ms = np.median(orders.answers_us) / 1000 if orders.answers_us else math.nan
    print(
        f"\nSummary\n"
        f"  messages    {probe.messages:,} in {elapsed_s:.1f} s, {rate}, {size}\n"
        f"  reconnects  {client.link.counters.reconnects}\n"
        f"  compared    {referee.books} books with the venue's own, level by level ({referee.levels:,} levels)\n"
        f"  equal       {referee.books - len(referee.mismatches)} of {referee.books}"
        f" (before the cut {before}; after {after})\n"
        f"  orders      {f'{chr(10)}              '.join(orders.told) or 'none were sent'}\n"
        f"  answered    {len(orders.answers_us)} signed actions, each with its block: median {answers_ms:.1f} ms\n"
        f"\n"
        f"  latency on this machine     {'p50':>10} {'p99':>10} {'p99.9':>10} {'messages':>10}\n"
        f"  frame received to callback  {p50:>10} {p99:>10} {p999:>10} {probe.book_messages:>10,}",
        flush=True,
    )
