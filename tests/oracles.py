"""The second opinion: messages read by orjson and Python's float, the book's fold in twenty lines of plain Python."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from hlconn._core.classify import classify_status
from hlconn.types import (
    ASSET_CTX_DTYPE,
    CANDLE_DTYPE,
    FILL_DTYPE,
    FUNDING_DTYPE,
    ORDER_UPDATE_DTYPE,
    TRADE_DTYPE,
    TRADE_USERS_DTYPE,
    USER_FUNDING_DTYPE,
)

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
    return BookMessage(coin, feed, time_ms, (bids, asks))


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


# --- rows ---------------------------------------------------------------------------------------------------------

NAN = float("nan")


def number(value: Any) -> float:
    refuse_unless(abs(decimal(value)) < float("inf"), "not finite")
    return decimal(value)


def maybe(read: Callable[[Any], Any], value: Any, without: Any) -> Any:
    return without if value is None else read(value)


def text(value: Any, width: int, *, cut: bool = False) -> bytes:
    refuse_unless(isinstance(value, str), f"no text: {value!r}")
    data: bytes = value.encode()
    if cut:
        return data[:width].decode("utf-8", "ignore").encode() if len(data) > width else data
    refuse_unless(len(data) <= width, f"too long: {value!r}")
    return data


def truth(value: Any) -> bool:
    refuse_unless(isinstance(value, bool), f"no bool: {value!r}")
    return bool(value)


def side_of(value: Any) -> int:
    refuse_unless(value in ("B", "A"), f"no side: {value!r}")
    return "BA".index(value)


def candle(value: Any) -> tuple[Any, ...]:
    v = keyed(value, *"tTsiochlvn")
    prices = tuple(number(v[key]) for key in "ohlcv")
    return integer(v["t"]), *prices, integer(v["n"]), integer(v["T"]), text(v["s"], 32), text(v["i"], 8)


def fill(value: Any, *, old: bool = False) -> tuple[Any, ...]:
    v = keyed(value, "coin", "px", "sz", "side", "time", "startPosition", "dir", "closedPnl", "hash", "oid", "crossed")
    keyed(v, "fee")
    if old:
        v = {"tid": None, "feeToken": None} | v
    keyed(v, "tid", "feeToken")
    event = v.get("liquidation")
    event = {} if event is None else keyed(event, "markPx", "method")
    head = integer(v["time"]), number(v["px"]), number(v["sz"]), integer(v["oid"])
    tid = maybe(integer, v["tid"], -1) if old else integer(v["tid"])
    token = maybe(lambda t: text(t, 32), v["feeToken"], b"") if old else text(v["feeToken"], 32)
    fees = number(v["fee"]), maybe(number, v.get("builderFee"), 0.0), maybe(number, v.get("feeTrialEscrow"), 0.0)
    ends = maybe(integer, v.get("twapId"), -1), number(event["markPx"]) if event else NAN
    name = maybe(lambda t: text(t, 34), v.get("cloid"), b"")
    words = text(v["coin"], 32), name, token, text(v["dir"], 32, cut=True), text(v["hash"], 66)
    method = text(event["method"], 16, cut=True) if event else b""
    victim = maybe(lambda t: text(t, 42), event.get("liquidatedUser"), b"")
    flags = side_of(v["side"]), truth(v["crossed"])
    return *head, tid, number(v["startPosition"]), number(v["closedPnl"]), *fees, *ends, *flags, *words, victim, method


def funding(value: Any) -> tuple[Any, ...]:
    v = keyed(value, "coin", "fundingRate", "premium", "time")
    return integer(v["time"]), number(v["fundingRate"]), number(v["premium"]), text(v["coin"], 32)


def user_funding(value: Any, hash: bytes = b"") -> tuple[Any, ...]:
    v = keyed(value, "time", "coin", "usdc", "szi", "fundingRate")
    samples = maybe(integer, v.get("nSamples"), -1)
    rates = number(v["usdc"]), number(v["szi"]), number(v["fundingRate"])
    return integer(v["time"]), *rates, samples, text(v["coin"], 32), hash


def user_funding_row(value: Any) -> tuple[Any, ...]:
    v = keyed(value, "time", "hash", "delta")
    return user_funding({**keyed(v["delta"]), "time": v["time"]}, text(v["hash"], 66))


KNOWN_STATUSES = {"open": 1, "accepted": 1, "triggered": 2, "filled": 3, "canceled": 4, "rejected": 5}


def order_update(value: Any) -> tuple[Any, ...]:
    v = keyed(value, "order", "status", "statusTimestamp")
    o = keyed(v["order"], "coin", "side", "limitPx", "sz", "oid", "timestamp", "origSz")
    word = text(v["status"], 48, cut=True)
    status = KNOWN_STATUSES.get(v["status"], 0)
    if v["status"].endswith("Rejected"):
        status = 5
    elif v["status"].endswith(("Canceled", "Cancel")):
        status = 4
    sizes = integer(o["oid"]), number(o["limitPx"]), number(o["sz"]), number(o["origSz"])
    times = integer(o["timestamp"]), integer(v["statusTimestamp"])
    flags = side_of(o["side"]), maybe(truth, o.get("reduceOnly"), False)
    cloid = maybe(lambda t: text(t, 34), o.get("cloid"), b"")
    return *sizes, *times, int(classify_status(v["status"])), status, *flags, text(o["coin"], 32), cloid, word


def perp_ctx(value: Any, coin: bytes = b"") -> tuple[Any, ...]:
    v = keyed(value, "funding", "openInterest", "prevDayPx", "dayNtlVlm", "premium", "oraclePx", "markPx", "midPx")
    keyed(v, "impactPxs", "dayBaseVlm")
    mid, oracle, premium = maybe(number, v["midPx"], NAN), number(v["oraclePx"]), maybe(number, v["premium"], NAN)
    impact = maybe(lambda two: tuple(map(number, pair(two))), v["impactPxs"], (NAN, NAN))
    rest = number(v["prevDayPx"]), number(v["dayNtlVlm"]), number(v["dayBaseVlm"])
    rates = number(v["funding"]), premium, number(v["openInterest"])
    return number(v["markPx"]), mid, oracle, *rates, *impact, *rest, NAN, NAN, coin


def spot_ctx(value: Any, coin: bytes | None = None) -> tuple[Any, ...]:
    v = keyed(value, *["prevDayPx", "dayNtlVlm", "markPx", "midPx", "circulatingSupply", "totalSupply", "dayBaseVlm"])
    coin = text(keyed(v, "coin")["coin"], 32) if coin is None else coin
    rest = number(v["prevDayPx"]), number(v["dayNtlVlm"]), number(v["dayBaseVlm"])
    supply = number(v["circulatingSupply"]), number(v["totalSupply"])
    return number(v["markPx"]), maybe(number, v["midPx"], NAN), *6 * (NAN,), *rest, *supply, coin


def active_perp(value: Any) -> tuple[Any, ...]:
    v = keyed(value, "coin", "ctx")
    return perp_ctx(v["ctx"], text(v["coin"], 32))


def active_spot(value: Any) -> tuple[Any, ...]:
    v = keyed(value, "coin", "ctx")
    return spot_ctx(v["ctx"], text(v["coin"], 32))


def listed(value: Any) -> list[Any]:
    """An array, or one object alone."""
    refuse_unless(isinstance(value, list | dict), "no array")
    return value if isinstance(value, list) else [value]


def of_user(value: Any, name: str) -> Any:
    v = keyed(value, "user", name)
    maybe(truth, v.get("isSnapshot"), None)
    text(v["user"], 42)
    return v[name]


def of_dex(value: Any) -> Any:
    v = keyed(value, "dex", "ctxs")
    text(v["dex"], 32)
    return v["ctxs"]


def whole(value: Any) -> Any:
    return value


#: Of each channel: where its rows are, how one is read, and its layout.
ROW_CHANNELS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], tuple[Any, ...]], np.dtype[np.void]]] = {
    "candle": (whole, candle, CANDLE_DTYPE),
    "activeAssetCtx": (whole, active_perp, ASSET_CTX_DTYPE),
    "activeSpotAssetCtx": (whole, active_spot, ASSET_CTX_DTYPE),
    "assetCtxs": (of_dex, perp_ctx, ASSET_CTX_DTYPE),
    "spotAssetCtxs": (whole, spot_ctx, ASSET_CTX_DTYPE),
    "orderUpdates": (whole, order_update, ORDER_UPDATE_DTYPE),
    "user": (lambda v: maybe(whole, keyed(v).get("fills"), []), fill, FILL_DTYPE),
    "userFills": (lambda v: of_user(v, "fills"), fill, FILL_DTYPE),
    "userFundings": (lambda v: of_user(v, "fundings"), user_funding, USER_FUNDING_DTYPE),
}
ROW_BODIES: dict[str, tuple[Callable[[Any], tuple[Any, ...]], np.dtype[np.void]]] = {
    "candleSnapshot": (candle, CANDLE_DTYPE),
    "userFills": (lambda v: fill(v, old=True), FILL_DTYPE),
    "fundingHistory": (funding, FUNDING_DTYPE),
    "userFunding": (user_funding_row, USER_FUNDING_DTYPE),
    "historicalOrders": (order_update, ORDER_UPDATE_DTYPE),
}


def read_row_message(channel: str, message: bytes) -> NDArray[Any]:
    """The rows of a message; Refused when the core has to raise DecodeError."""
    envelope = keyed(load(message), "channel", "data")
    refuse_unless(envelope["channel"] == channel, "another channel")
    find, read, dtype = ROW_CHANNELS[channel]
    return np.array(list(map(read, listed(find(envelope["data"])))), dtype)


def read_row_body(info: str, body: bytes) -> NDArray[Any]:
    read, dtype = ROW_BODIES[info]
    return np.array(list(map(read, listed(load(body)))), dtype)


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
