"""Candles of every interval, kept up with each trade."""

from __future__ import annotations

import datetime
import random
from collections import deque
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigError
from .markets import Market
from .orders import Trade

__all__ = ["INTERVALS", "Candles"]

_MINUTE = 60_000
#: Milliseconds of each interval; months are calendar months. Source: exchange docs, "Candle snapshot".
INTERVALS = {
    "1m": _MINUTE,
    "3m": 3 * _MINUTE,
    "5m": 5 * _MINUTE,
    "15m": 15 * _MINUTE,
    "30m": 30 * _MINUTE,
    "1h": 60 * _MINUTE,
    "2h": 120 * _MINUTE,
    "4h": 240 * _MINUTE,
    "8h": 480 * _MINUTE,
    "12h": 720 * _MINUTE,
    "1d": 1440 * _MINUTE,
    "3d": 4320 * _MINUTE,
    "1w": 10_080 * _MINUTE,
    "1M": 0,
}


def _span(time_ms: int, interval: str) -> tuple[int, int]:
    """First and last millisecond of the interval that holds this time."""
    length = INTERVALS[interval]
    if length:
        start = time_ms - time_ms % length
        return start, start + length - 1
    day = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
    start_of = datetime.datetime(day.year, day.month, 1, tzinfo=datetime.UTC)
    end_of = datetime.datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=datetime.UTC)
    return int(start_of.timestamp() * 1000), int(end_of.timestamp() * 1000) - 1


class _Candle:
    __slots__ = ("close", "end_ms", "high", "low", "n", "open", "start_ms", "volume")

    def __init__(self, start_ms: int, end_ms: int, px: int) -> None:
        self.start_ms, self.end_ms = start_ms, end_ms
        self.open = self.close = self.high = self.low = px
        self.volume = self.n = 0

    def add(self, px: int, sz: int) -> None:
        self.close = px
        self.high, self.low = max(self.high, px), min(self.low, px)
        self.volume += sz
        self.n += 1


class Candles:
    """The candles of one market, from its first trade on, without gaps: one without a trade is flat, with n 0."""

    def __init__(self, market: Market, kept: int = 5_000) -> None:
        """kept: the newest so many of each interval."""
        self._market, self._most = market, kept
        self._kept: dict[str, deque[_Candle]] = {interval: deque(maxlen=kept) for interval in INTERVALS}

    def add(self, trades: Iterable[Trade]) -> None:
        for trade in trades:
            for interval in INTERVALS:
                self._current(interval, trade.time_ms, trade.px).add(trade.px, trade.sz)

    def _current(self, interval: str, time_ms: int, px: int | None) -> _Candle:
        kept = self._kept[interval]
        while not kept or kept[-1].end_ms < time_ms:
            if kept:
                # After a long silence only the candles that are kept are made.
                length = INTERVALS[interval]
                skipped = max(0, (time_ms - kept[-1].end_ms) // length - self._most) if length else 0
                start, end = _span(kept[-1].end_ms + 1 + skipped * length, interval)
                first = kept[-1].close if end < time_ms or px is None else px
            else:
                assert px is not None
                (start, end), first = _span(time_ms, interval), px
            kept.append(_Candle(start, end, first))
        return kept[-1]

    def invent(self, rng: random.Random, minutes: int, until_ms: int, px: int) -> None:
        """Trades that nobody made, at random times of the last so many minutes, at prices that wander off from `px`.

        Raises ConfigError when there were some already: those were later.
        """
        if any(self._kept.values()):
            raise ConfigError(f"{self._market.name} was traded already: its past is what it was")
        begin_ms = until_ms - until_ms % _MINUTE - minutes * _MINUTE
        for minute in range(minutes):
            times = sorted(rng.randrange(_MINUTE) for _ in range(1 if minute == 0 else rng.choice((0, 1, 1, 2, 3))))
            for offset in times:
                px = max(1, px + round(px * rng.gauss(0, 0.0005)))
                trade = Trade("B", px, rng.randrange(1, 10**6), begin_ms + minute * _MINUTE + offset, "", 0, "", "")
                self.add([trade])

    def last(self, interval: str, now_ms: int) -> dict[str, Any] | None:
        """The candle of now, as the venue writes it; None before the first trade."""
        return self._wire(interval, self._current(interval, now_ms, None)) if self._kept[interval] else None

    def between(self, interval: str, start_ms: int, end_ms: int, now_ms: int) -> list[dict[str, Any]]:
        """Candles that are not over before `start_ms` and have begun by `end_ms`, oldest first."""
        kept = self._kept[interval]
        if kept:
            self._current(interval, now_ms, None)
        return [self._wire(interval, c) for c in kept if c.end_ms >= start_ms and c.start_ms <= end_ms]

    def _wire(self, interval: str, candle: _Candle) -> dict[str, Any]:
        px = self._market.px_text
        return {
            "t": candle.start_ms,
            "T": candle.end_ms,
            "s": self._market.name,
            "i": interval,
            "o": px(candle.open),
            "c": px(candle.close),
            "h": px(candle.high),
            "l": px(candle.low),
            "v": self._market.sz_text(candle.volume),
            "n": candle.n,
        }
