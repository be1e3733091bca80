"""The second opinion: messages read by orjson and Python's float, the book's fold in twenty lines of plain Python."""

from __future__ import annotations

import base64
import itertools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from hlconn.types import TRADE_DTYPE, TRADE_USERS_DTYPE

Level = tuple[float, float, int]
DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
FEED_ORDER = ("slow", "fast", "bbo")  # at equal time


class Refused(ValueError):
    """Not a message that the core may accept."""


def refuse_unless(good: object, why: str) -> None:
    if not good:
        raise Refused(why)


def load(message: bytes) -> Any:
    """The JSON value. The core does not look inside strings that it skips, so that invalid UTF-8 passes there."""
    try:
        return orjson.loads(message.decode("utf-8", "replace"))
    except orjson.JSONDecodeError as exc:
        raise Refused(str(exc)) from exc


def decimal(value: Any) -> float:
    """The number a text stands for; bare JSON numbers are taken too."""
    if isinstance(value, str):
        refuse_unless(DECIMAL.fullmatch(value) and len(value) <= 256, f"no decimal: {value!r}")
    else:
        refuse_unless(isinstance(value, int | float) and not isinstance(value, bool), f"no number: {value!r}")
    return float(value)


def integer(value: Any) -> int:
    refuse_unless(isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18, f"no int: {value!r}")
    return int(value)


def name(value: Any) -> str:
    refuse_unless(isinstance(value, str) and len(value.encode()) <= 64, f"no name: {value!r}")
    return str(value)


def keyed(value: Any, *keys: str) -> dict[str, Any]:
    refuse_unless(isinstance(value, dict), f"no object: {value!r}")
    refuse_unless(all(key in value for key in keys), f"{keys} expected")
    assert isinstance(value, dict)
    return value


def pair(value: Any) -> list[Any]:
    refuse_unless(isinstance(value, list) and len(value) == 2, "not two sides")
    assert isinstance(value, list)
    return value


def level(value: Any) -> Level:
    value = keyed(value, "px", "sz", "n")
    px, sz, n = decimal(value["px"]), decimal(value["sz"]), integer(value["n"])
    refuse_unless(0 < px < float("inf") and 0 <= sz < float("inf") and n >= 0, "a level that cannot be")
    return px, sz, n


def better(row: int, px: float, than: float) -> bool:
    return px > than if row == 0 else px < than


@dataclass(frozen=True)
class BookMessage:
    coin: str
    feed: str
    time_ms: int
    sides: tuple[tuple[Level, ...], tuple[Level, ...]]
    aggregated: bool = False


def read_book(message: bytes) -> BookMessage:
    """What an l2Book or bbo message says; Refused when the core has to raise DecodeError."""
    envelope = keyed(load(message), "channel", "data")
    channel = envelope["channel"]
    refuse_unless(channel in ("l2Book", "bbo"), "no book")
    values = "levels" if channel == "l2Book" else "bbo"
    data = keyed(envelope["data"], "coin", "time", values)
    coin, time_ms = name(data["coin"]), integer(data["time"])
    sides = []
    for row, given in enumerate(pair(data[values])):
        if channel == "bbo":
            given = [] if given is None else [given]
        refuse_unless(isinstance(given, list) and len(given) <= 10_000, "no side")
        levels = tuple(map(level, given))
        for above, below in itertools.pairwise(levels):
            refuse_unless(better(row, above[0], below[0]), "not sorted strictly")
        sides.append(levels)
    bids, asks = sides
    refuse_unless(not bids or not asks or bids[0][0] < asks[0][0], "crossed")
    feed = "bbo" if channel == "bbo" else "fast" if data.get("fast") is True else "slow"
    aggregated = channel == "l2Book" and data.get("spread") is not None
    return BookMessage(coin, feed, time_ms, (bids, asks), aggregated)


def l2_after(levels: list[list[dict[str, Any]]], message: bytes) -> list[list[tuple[float, float]]]:
    """Both sides, best first, after the update of an l2 message, plain or compressed, on those of a snapshot."""
    data = keyed(load(message), "data")["data"]
    if "c" in data:
        data = {"u": load(zlib.decompress(base64.b64decode(data["c"]), wbits=-15))}
    update = keyed(keyed(data, "u")["u"], "c", "t", "l", "r")
    out = []
    for row in range(2):
        kept = [level for at, level in enumerate(levels[row]) if at not in update["r"][row]]
        side = {decimal(level["px"]): decimal(level["sz"]) for level in kept}
        side |= {decimal(level["p"]): decimal(level["s"]) for level in update["l"][row]}
        out.append(sorted(side.items(), reverse=row == 0))
    return out


def once(rows: NDArray[Any]) -> NDArray[Any]:
    """The rows without those whose tid came before."""
    first = np.sort(np.unique(rows["tid"], return_index=True)[1])
    return rows[first]


def read_trades(message: bytes, *, users: bool = False) -> tuple[str, NDArray[Any]]:
    """(coin, rows) of a trades message; ("", no rows) for an empty array."""
    envelope = keyed(load(message), "channel", "data")
    refuse_unless(envelope["channel"] == "trades", "no trades")
    data = envelope["data"]
    refuse_unless(isinstance(data, list) and len(data) <= 100_000, "no array")
    coin = ""
    rows: list[tuple[Any, ...]] = []
    for value in data:
        value = keyed(value, "coin", "side", "px", "sz", "time", "tid")
        refuse_unless(name(value["coin"]) == coin or not rows, "two coins")
        coin = value["coin"]
        px, sz = decimal(value["px"]), decimal(value["sz"])
        refuse_unless(0 < px < float("inf") and 0 <= sz < float("inf") and value["side"] in ("A", "B"), "no trade")
        row: tuple[Any, ...] = (integer(value["time"]), px, sz, integer(value["tid"]), "BA".index(value["side"]))
        if users:
            parties = pair(value.get("users", ["", ""]))
            refuse_unless(all(isinstance(p, str) and len(p.encode()) <= 42 for p in parties), "no users")
            row += tuple(p.encode() for p in parties)
        rows.append(row)
    return coin, np.array(rows, TRADE_USERS_DTYPE if users else TRADE_DTYPE)


# --- the fold -----------------------------------------------------------------------------------------------------


class Fold:
    """Section 4 of the architecture: the last message of each feed, folded in venue time, equal time bbo last."""

    def __init__(self) -> None:
        self.last: dict[str, BookMessage] = {}

    def restart(self) -> None:
        self.last = {}

    def apply(self, message: BookMessage) -> bool:
        if message.feed in self.last and message.time_ms < self.last[message.feed].time_ms:
            return False
        self.last[message.feed] = message
        return True

    @property
    def time_ms(self) -> int:
        return max(m.time_ms for m in self.last.values())

    def sides(self) -> list[list[Level]]:
        sides: list[list[Level]] = [[], []]
        for m in sorted(self.last.values(), key=lambda m: (m.time_ms, FEED_ORDER.index(m.feed))):
            for row, new in enumerate(m.sides):
                keeps = (m.feed == "fast" and len(new) >= 5) or (m.feed == "bbo" and len(new) == 1)
                under = [old for old in sides[row] if keeps and better(row, new[-1][0], old[0])]
                sides[row] = [*new, *under]
            # "the older levels that cross go": none ever do, for the newer message bounds both sides
            assert not sides[0] or not sides[1] or sides[0][0][0] < sides[1][0][0]
        return sides


@dataclass(frozen=True)
class Arrays:
    """What a book's arrays have to be."""

    px: NDArray[np.float64]
    sz: NDArray[np.float64]
    n: NDArray[np.int64]
    count: NDArray[np.int64]
    beyond: tuple[int, int]


def arrays(sides: Sequence[Sequence[Level]], depth: int) -> Arrays:
    px = np.full((2, depth), np.nan)
    sz = np.zeros((2, depth))
    n = np.zeros((2, depth), np.int64)
    count = np.zeros(2, np.int64)
    for row in range(2):
        for i, (p, s, orders) in enumerate(sides[row][:depth]):
            px[row, i], sz[row, i], n[row, i] = p, s, orders
        count[row] = min(depth, len(sides[row]))
    return Arrays(px, sz, n, count, (len(sides[0]) - int(count[0]), len(sides[1]) - int(count[1])))
