"""What becomes of an interruption: proven harmless, filled by a query, or declared. No I/O, no clock.

A `Recovery` follows one stream of one coin. Told of what happens to it, it answers with what its listeners get next, in
order: a `Gap`, and items. It never keeps silent about an interruption, and holds new items only while a query for what
came before them is under way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .types import Candle

__all__ = ["CandleHistory", "Gap", "Known", "Recovery", "TradeHistory", "read_trades"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Gap:
    """An interruption of a stream, in its place among the data.

    stream: "trades", "book" or "candle". from_ms, to_ms: the venue's times, both included, of the last item before and
    the first one after that is known not to be missing. from_ms 0: nothing had come before. Both the same: nothing came
    after, as when the session ends meanwhile.
    proven: true when nothing is missing: what the venue said while nobody listened was delivered, right after this.
    Of a book it is false: the book is right again, what it was in between is not known.
    reason: why, in words. dropped: items that this stream itself let go because its reader was too slow.
    """

    stream: str
    coin: str
    from_ms: int
    to_ms: int
    proven: bool
    reason: str = ""
    dropped: int = 0


class State(Enum):
    LIVE = "live"  # nothing to do with each item
    DOWN = "down"  # nobody serves the stream, or it is served and nothing came yet
    FILLING = "filling"  # items came that do not meet what was known: a query is to bring what lies between


class History(Protocol[_T]):
    """How the items of one kind of stream are put in order."""

    stream: str

    def first_ms(self, item: _T) -> int: ...
    def last_ms(self, item: _T) -> int: ...
    def ended_before(self, time_ms: int) -> None:
        """A gap up to then was declared: nothing older is to come any more."""

    def after(self, item: _T, last_ms: int) -> _T | None:
        """What of it is not older than what was delivered: a replay also shows what a gap was declared for before."""

    def join(
        self, filled: Any, held: list[_T], joints: list[_T], last_ms: int, last: _T | None
    ) -> tuple[list[_T], bool, int, int]:
        """What a query brought that is not known, and what is held, in order; whether nothing is missing between what
        was known and the end of that; and from and to when something may be missing. joints: those of what is held
        that did not meet what came before them. last: the newest item delivered, None for none."""


class Recovery(Generic[_T]):
    """The interruptions of one stream.

    query_wanted: what lies between is to be asked of the venue, and `filled` or `failed` called, each with the `round`
    of that time: an answer to an older question says nothing. last_item, last_ms: the newest item delivered and the
    venue's time of it, as far as it was told.
    """

    def __init__(self, coin: str, history: History[_T]) -> None:
        self.coin, self._history = coin, history
        self.state = State.LIVE
        self.query_wanted = False
        self.round = 0
        self.last_ms = 0
        self.last_item: _T | None = None
        self._reason = ""
        self._held: list[_T] = []
        self._joints: list[_T] = []

    def down(self, reason: str, last_ms: int) -> list[Gap | _T]:
        """The stream is interrupted, maybe once more. last_ms: the venue's time of its newest item, 0 for none."""
        out: list[Gap | _T] = []
        if self.state is State.FILLING:
            out = self._declare()  # of the old question nobody will wait for the answer
        elif self.state is State.LIVE:
            self.last_ms = last_ms
        if self.state is State.LIVE:
            self.state, self._reason = State.DOWN, reason
        self.query_wanted = False
        self.round += 1  # an answer to what was asked before knows nothing of what is missed from here on
        return out

    def nothing_came(self) -> None:
        """The stream has been served for a while and nothing came: ask, although nothing waits for the answer."""
        if self.state is State.DOWN and not self.query_wanted:
            self.query_wanted = True

    def first(self, item: _T | None, known: bool) -> list[Gap | _T]:
        """The first message after an interruption: its new item, if any. known: something in it was known before, and
        the venue leaves no holes, so nothing is missing."""
        if self.state is not State.DOWN:
            return [] if item is None else self.item(item)
        if known:
            item = None if item is None else self._history.after(item, self.last_ms)
            to_ms = self.last_ms if item is None else self._history.last_ms(item)
            return self._end(True, self.last_ms, max(self.last_ms, to_ms), [] if item is None else [item])
        self.state = State.FILLING
        self.hold_apart(item)
        return []

    def hold_apart(self, item: _T | None) -> None:
        """While filling: what came does not meet what was known, and an answer under way may end before it."""
        if item is not None:
            self._held.append(item)
            self._joints.append(item)
        self.round += 1
        self.query_wanted = True

    def item(self, item: _T) -> list[Gap | _T]:
        """A later message while not live."""
        if self.state is State.LIVE:
            return [item]
        if self.state is State.DOWN:
            return self.first(item, False)
        self._held.append(item)
        return []

    def filled(self, round_: int, answer: Any) -> list[Gap | _T]:
        """What the venue answered to the question of that round."""
        if round_ != self.round or self.state is State.LIVE:
            return []
        self._held.sort(key=self._history.first_ms)  # a link that returned may be ahead of another
        items, proven, from_ms, to_ms = self._history.join(
            answer, self._held, self._joints, self.last_ms, self.last_item
        )
        return self._end(proven, from_ms, to_ms, items)

    def failed(self, round_: int) -> list[Gap | _T]:
        """There is no answer to the question of that round, or not in time."""
        if round_ != self.round or self.state is not State.FILLING:
            if round_ == self.round:
                self.query_wanted = False  # nothing waits: it may be asked again
            return []
        return self._declare()

    def delivered(self, item: _T) -> None:
        """An item was delivered while live: `last_item` and `last_ms` are of it."""
        self.last_item, self.last_ms = item, self._history.last_ms(item)

    def give_up(self) -> list[Gap | _T]:
        """The stream ends: what is open is declared."""
        return [] if self.state is State.LIVE else self._declare()

    def _declare(self) -> list[Gap | _T]:
        self._held.sort(key=self._history.first_ms)
        to_ms = max([self.last_ms, *map(self._history.first_ms, self._joints)])
        return self._end(False, self.last_ms, to_ms, self._held)

    def _end(self, proven: bool, from_ms: int, to_ms: int, items: Iterable[_T]) -> list[Gap | _T]:
        items = list(items)
        gap = Gap(self._history.stream, self.coin, from_ms, to_ms, proven, self._reason)
        if not proven:
            self._history.ended_before(to_ms)
        if items:
            self.last_item = items[-1]
            self.last_ms = max(self.last_ms, self._history.last_ms(items[-1]))
        self.state, self.query_wanted, self._held, self._joints = State.LIVE, False, [], []
        self.round += 1
        return [gap, *items]


Trades = NDArray[np.void]


class Known(Protocol):
    """What is known of a coin's trades; see `Feed.seen_trades` and `Feed.note_trades`."""

    def seen_trades(self, coin: str, tids: NDArray[np.int64]) -> NDArray[np.bool_]: ...
    def note_trades(self, coin: str, trades: Trades) -> None: ...
    def end_trades_before(self, coin: str, time_ms: int) -> None: ...


def read_trades(answer: Any, dtype: np.dtype[np.void]) -> Trades:
    """The rows of the venue's `recentTrades`, oldest first. KeyError, TypeError or ValueError for what is none."""
    rows = np.zeros(len(answer), dtype)
    for row, trade in zip(rows, reversed(answer), strict=True):
        row["time"], row["px"], row["sz"], row["tid"] = trade["time"], trade["px"], trade["sz"], trade["tid"]
        row["side"] = {"B": 0, "A": 1}[trade["side"]]
        if dtype.names is not None and "buyer" in dtype.names:
            row["buyer"], row["seller"] = trade.get("users", ("", ""))
    return rows


class TradeHistory:
    """Trades are told apart by tid, and the venue says them in an order without holes."""

    stream = "trades"

    def __init__(self, coin: str, known: Known) -> None:
        self._coin, self._known = coin, known

    def first_ms(self, item: Trades) -> int:
        return int(item["time"][0])

    def last_ms(self, item: Trades) -> int:
        return int(item["time"].max())

    def ended_before(self, time_ms: int) -> None:
        self._known.end_trades_before(self._coin, time_ms)

    def after(self, item: Trades, last_ms: int) -> Trades | None:
        item = item[item["time"] >= last_ms]
        return item if len(item) else None

    def join(
        self, filled: Trades, held: list[Trades], joints: list[Trades], last_ms: int, last: Trades | None
    ) -> tuple[list[Trades], bool, int, int]:
        """filled: oldest first."""
        held_tids = np.concatenate([rows["tid"] for rows in held]) if held else np.zeros(0, np.int64)
        is_held = np.isin(filled["tid"], held_tids)
        before = self._known.seen_trades(self._coin, filled["tid"]) & ~is_held
        is_new = ~before & ~is_held & (filled["time"] >= last_ms)
        at = int(np.flatnonzero(before)[-1]) + 1 if before.any() else 0
        items: list[Trades] = []
        holes: list[tuple[int, int]] = []
        to_ms = last_ms
        places = {tid: place for place, tid in enumerate(filled["tid"].tolist())}
        none = len(places)
        # Trades of one block have one time: what the answer has of it tells their order.
        held.sort(key=lambda rows: (self.first_ms(rows), min(places.get(tid, none) for tid in rows["tid"].tolist())))
        for rows in held:
            first_ms = self.first_ms(rows)
            found = np.isin(filled["tid"], rows["tid"])
            end = int(np.argmax(found)) if found.any() else int(np.count_nonzero(filled["time"] < first_ms))
            items += self._noted(filled[at:end][is_new[at:end]])
            if any(rows is joint for joint in joints):
                to_ms = max(to_ms, first_ms)
                if not found.any():
                    newest = [last_ms, *filled["time"][:end][-1:].tolist(), *map(self.last_ms, items[-1:])]
                    holes.append((max(newest), first_ms))
            items.append(rows)
            at = max(at, end)
        if not held:  # else what comes after it comes by itself
            items += self._noted(filled[at:][is_new[at:]])
            to_ms = max([last_ms, *map(self.last_ms, items)])
        if not before.any():
            holes.append((last_ms, self.first_ms(items[0]) if items else last_ms))
        if not holes:
            return items, True, last_ms, to_ms
        return items, False, min(hole[0] for hole in holes), max(max(hole) for hole in holes)

    def _noted(self, new: Trades) -> list[Trades]:
        self._known.note_trades(self._coin, new)
        return [new] if len(new) else []


class CandleHistory:
    """Candles are told apart by their opening time, and a query gives all of them."""

    stream = "candle"

    def first_ms(self, item: Candle) -> int:
        return item.open_ms

    def last_ms(self, item: Candle) -> int:
        return item.open_ms

    def ended_before(self, time_ms: int) -> None:
        """Each candle holds all of its time: an older one that comes late is left out by whoever compares it."""

    def after(self, item: Candle, last_ms: int) -> Candle | None:
        return item if item.open_ms >= last_ms else None

    def join(
        self, filled: list[Candle], held: list[Candle], joints: list[Candle], last_ms: int, last: Candle | None
    ) -> tuple[list[Candle], bool, int, int]:
        """filled: oldest first, from the last known one on."""
        found = [c for c in filled if c.open_ms >= last_ms and (not held or c.open_ms < held[-1].open_ms)]
        newest = {candle.open_ms: candle.n for candle in ([last, *held] if last else held)}
        items = [*held, *(c for c in found if c.n > newest.get(c.open_ms, -1))]  # one of the same time after those held
        items.sort(key=self.first_ms)
        to_ms = max([last_ms, *map(self.first_ms, joints or items)])
        covers = bool(filled) and filled[0].open_ms <= last_ms and (not held or filled[-1].open_ms >= to_ms)
        return items, covers, last_ms, to_ms
