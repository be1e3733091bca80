"""The venue's messages: what clients may ask for, and how answers and data are written.

Written from the protocol's documentation and captures alone, with orjson, and sharing nothing with the decoder
that is tested against it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from .coins import Coin
from .market import HiddenBook, Level, Trade

__all__ = [
    "Encoder",
    "InvalidSubscription",
    "Malformed",
    "Subscription",
    "bbo",
    "check_aggregation",
    "hidden_book",
    "l2_book",
    "optional_int",
    "parse_subscription",
    "trades",
]

JsonObject = dict[str, Any]

_SLOW_LEVELS, _FAST_LEVELS = 20, 5

# Types the real venue knows and this one does not serve: they are refused as a subscription, while a type unknown to
# both does not even parse (capture of 2026-07-28). Source: exchange docs, WebSocket > Subscriptions.
_SERVED_TYPES = ("l2Book", "bbo", "trades")
_OTHER_TYPES = frozenset(
    {
        "activeAssetCtx",
        "activeAssetData",
        "allDexsAssetCtxs",
        "allDexsClearinghouseState",
        "allMids",
        "assetCtxs",
        "candle",
        "clearinghouseState",
        "fastAssetCtxs",
        "notification",
        "openOrders",
        "orderUpdates",
        "outcomeMetaUpdates",
        "spotAssetCtxs",
        "spotState",
        "twapStates",
        "userEvents",
        "userFills",
        "userFundings",
        "userHistoricalOrders",
        "userNonFundingLedgerUpdates",
        "userTwapHistory",
        "userTwapSliceFills",
        "webData2",
        "webData3",
    }
)


class Malformed(ValueError):
    """A request that does not parse into the shape of its type."""


class InvalidSubscription(ValueError):
    """A subscription of the right shape that the venue does not offer."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What makes two subscriptions the same one: all parameters, `fast: false` being the same as none."""

    type: str
    coin: str
    n_sig_figs: int | None = None
    mantissa: int | None = None
    fast: bool = False


def optional_int(value: object) -> int | None:
    if value is not None and type(value) is not int:
        raise Malformed("expected an integer or null")
    return value


def check_aggregation(n_sig_figs: int | None, mantissa: int | None) -> bool:
    """nSigFigs is 2 to 5; mantissa is 2 or 5, and only with nSigFigs 5."""
    return n_sig_figs in (None, 2, 3, 4, 5) and (mantissa is None or (mantissa in (2, 5) and n_sig_figs == 5))


def parse_subscription(sent: object, coins: Container[str]) -> tuple[Subscription, JsonObject]:
    """A subscription and the object that the venue echoes for it.

    Raises Malformed or InvalidSubscription. The echo of l2Book has nSigFigs and mantissa even when they were not sent.
    """
    if not isinstance(sent, dict):
        raise Malformed("the subscription is not an object")
    kind, coin, fast = sent.get("type"), sent.get("coin"), sent.get("fast")
    if isinstance(kind, str) and kind in _OTHER_TYPES:
        raise InvalidSubscription
    if kind not in _SERVED_TYPES or not isinstance(coin, str):
        raise Malformed("no such type, or no coin")
    echo: JsonObject = {"type": kind, "coin": coin}
    if kind != "l2Book":
        subscription = Subscription(kind, coin)
    else:
        n_sig_figs, mantissa = optional_int(sent.get("nSigFigs")), optional_int(sent.get("mantissa"))
        if not isinstance(fast, bool | None):
            raise Malformed("fast is not a boolean")
        if not check_aggregation(n_sig_figs, mantissa):
            raise InvalidSubscription
        echo |= {"nSigFigs": n_sig_figs, "mantissa": mantissa}
        if fast is not None:
            echo["fast"] = fast
        subscription = Subscription(kind, coin, n_sig_figs, mantissa, bool(fast))
    if coin not in coins:
        raise InvalidSubscription
    return subscription, echo


def l2_book(
    coin: Coin,
    time_ms: int,
    book: HiddenBook,
    n_sig_figs: int | None = None,
    mantissa: int | None = None,
    fast: bool = False,
) -> JsonObject:
    """The data of an l2Book message: 20 levels a side, 5 when `fast`."""
    depth = _FAST_LEVELS if fast else _SLOW_LEVELS
    sides: list[Iterable[Level]] = [book.bids, book.asks]
    if n_sig_figs is not None:
        sides = [_aggregated(levels, n_sig_figs, mantissa or 1, row) for row, levels in enumerate(sides)]
    message: JsonObject = {
        "coin": coin.name,
        "time": time_ms,
        "levels": [[_level(coin, level) for level in islice(levels, depth)] for levels in sides],
    }
    bid, ask = book.top
    if n_sig_figs is not None and bid and ask:
        message["spread"] = coin.px_text(ask.tick - bid.tick)
    if fast:
        message["fast"] = True
    return message


def hidden_book(coin: Coin, time_ms: int, book: HiddenBook) -> JsonObject:
    """Every level of a book, in the shape of an l2Book."""
    return {"coin": coin.name, "time": time_ms, "levels": [[_level(coin, level) for level in side] for side in book]}


def bbo(coin: Coin, time_ms: int, book: HiddenBook) -> JsonObject:
    """The data of a bbo message; an empty side is null."""
    return {"coin": coin.name, "time": time_ms, "bbo": [level and _level(coin, level) for level in book.top]}


def trades(coin: Coin, fills: Iterable[Trade]) -> list[JsonObject]:
    """The data of a trades message."""
    return [
        {
            "coin": coin.name,
            "side": fill.side,
            "px": coin.px_text(fill.tick),
            "sz": coin.sz_text(fill.lots),
            "time": fill.time_ms,
            "hash": fill.hash,
            "tid": fill.tid,
            "users": [fill.buyer, fill.seller],
        }
        for fill in fills
    ]


def _level(coin: Coin, level: Level) -> JsonObject:
    return {"px": coin.px_text(level.tick), "sz": coin.sz_text(level.lots), "n": level.n}


def _aggregated(levels: Iterable[Level], n_sig_figs: int, mantissa: int, row: int) -> Iterator[Level]:
    """Levels joined on a coarser grid: bids (row 0) rounded down, asks up.

    Source: hyperliquid-dex/order_book_server: server/src/types/inner.rs and order_book/levels.rs.
    """
    joined: Level | None = None
    for level in levels:
        spare_digits = len(str(level.tick)) - n_sig_figs
        step = mantissa * 10**spare_digits if spare_digits >= 0 else 1
        tick = level.tick // step * step if row == 0 else -(-level.tick // step) * step
        if joined is not None and joined.tick == tick:
            joined = Level(tick, joined.lots + level.lots, joined.n + level.n)
            continue
        if joined is not None:
            yield joined
        joined = Level(tick, level.lots, level.n)
    if joined is not None:
        yield joined


class Encoder:
    """Messages to bytes: compact and in today's key order, or, to test readers, in any order and with white space."""

    def __init__(self, shuffle_seed: int | None = None) -> None:
        self._rng = None if shuffle_seed is None else random.Random(f"{shuffle_seed}:keys")

    def __call__(self, channel: str, data: object = None) -> bytes:
        message = {"channel": channel} if data is None else {"channel": channel, "data": data}
        if self._rng is None:
            return orjson.dumps(message)
        comma, colon = self._rng.choice([",", ", ", " ,\n\t"]), self._rng.choice([":", ": ", " :\r\n"])
        indent = self._rng.choice([None, 0, 2])
        return json.dumps(self._shuffled(message), separators=(comma, colon), indent=indent).encode()

    def _shuffled(self, value: Any) -> Any:
        assert self._rng is not None
        if isinstance(value, dict):
            keys = self._rng.sample(list(value), len(value))
            return {key: self._shuffled(value[key]) for key in keys}
        if isinstance(value, list):
            return [self._shuffled(item) for item in value]
        return value
