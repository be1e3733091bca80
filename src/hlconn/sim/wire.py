"""The venue's messages: what clients may subscribe to, and how data is written.

Written from the protocol's documentation and captures alone, with orjson, and sharing nothing with the decoder
that is tested against it.
"""

from __future__ import annotations

import base64
import json
import random
import re
import zlib
from collections.abc import Container, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import orjson

from .actions import Malformed
from .candles import INTERVALS
from .exchange import Exchange
from .ledger import Account, Position
from .markets import PERP_DECIMALS, USDC, Market, decimal_text
from .matching import HiddenBook, Level
from .orders import Trade

__all__ = [
    "Encoder",
    "InvalidSubscription",
    "Topic",
    "asset_ctx",
    "bbo",
    "check_aggregation",
    "clearinghouse_state",
    "hidden_book",
    "l2_book",
    "l2_update",
    "mid_px",
    "mids",
    "open_orders",
    "optional_int",
    "parse_subscription",
    "read_address",
    "spot_state",
    "trades",
]

JsonObject = dict[str, Any]

_SLOW_LEVELS, _FAST_LEVELS = 20, 5
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)

_COIN_TYPES = ("l2Book", "l2", "bbo", "trades", "candle", "activeAssetCtx")
_USER_TYPES = (
    "orderUpdates",
    "userEvents",
    "userFills",
    "openOrders",
    "clearinghouseState",
    "notification",
    "spotState",
    "userFundings",
    "userNonFundingLedgerUpdates",
)
# Types the real venue knows and this one does not serve: they are refused as a subscription, while a type unknown to
# both does not even parse (capture of 2026-07-28). Source: exchange docs, WebSocket > Subscriptions.
_OTHER_TYPES = frozenset(
    {
        "activeAssetData",
        "allDexsAssetCtxs",
        "allDexsClearinghouseState",
        "assetCtxs",
        "fastAssetCtxs",
        "outcomeMetaUpdates",
        "spotAssetCtxs",
        "twapStates",
        "userHistoricalOrders",
        "userTwapHistory",
        "userTwapSliceFills",
        "webData2",
        "webData3",
    }
)


class InvalidSubscription(ValueError):
    """A subscription of the right shape that the venue does not offer."""


class Topic(NamedTuple):
    """What makes two subscriptions the same one: all parameters, `fast: false` being the same as none."""

    type: str
    coin: str = ""
    n_sig_figs: int | None = None
    mantissa: int | None = None
    fast: bool = False
    interval: str = ""
    user: str = ""
    dex: str = ""
    aggregate: bool = False


def optional_int(value: object) -> int | None:
    if value is not None and type(value) is not int:
        raise Malformed("expected an integer or null")
    return value


def _text(value: object, default: str | None = None) -> str:
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise Malformed("expected a string")
    return value


def read_address(value: object) -> str:
    """An address in lower case. Raises Malformed."""
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise Malformed("expected an address")
    return value.lower()


def _bool(value: object) -> bool:
    if not isinstance(value, bool | None):
        raise Malformed("expected a boolean")
    return bool(value)


def check_aggregation(n_sig_figs: int | None, mantissa: int | None) -> bool:
    """nSigFigs is 2 to 5; mantissa is 2 or 5, and only with nSigFigs 5."""
    return n_sig_figs in (None, 2, 3, 4, 5) and (mantissa is None or (mantissa in (2, 5) and n_sig_figs == 5))


def parse_subscription(sent: object, coins: Container[str], dexs: Container[str]) -> tuple[Topic, JsonObject]:
    """A subscription and the object that the venue echoes for it.

    Raises Malformed or InvalidSubscription. The echo of l2Book has nSigFigs and mantissa even when they were not sent;
    addresses are in lower case.
    """
    if not isinstance(sent, dict):
        raise Malformed("the subscription is not an object")
    kind = sent.get("type")
    if kind == "allMids":
        dex = _text(sent.get("dex"), "")
        if dex not in dexs:
            raise InvalidSubscription
        return Topic(kind, dex=dex), {key: sent[key] for key in ("type", "dex") if key in sent}
    if kind in _USER_TYPES:
        user, dex = read_address(sent.get("user")), _text(sent.get("dex"), "")
        if dex not in dexs:
            raise InvalidSubscription
        echo = {"type": kind, "user": user}
        echo |= {key: sent[key] for key in ("dex", "aggregateByTime") if sent.get(key) is not None}
        return Topic(kind, user=user, dex=dex, aggregate=_bool(sent.get("aggregateByTime"))), echo
    if isinstance(kind, str) and kind in _OTHER_TYPES:
        raise InvalidSubscription
    if kind not in _COIN_TYPES:
        raise Malformed("no such type")
    coin = _text(sent.get("coin"))
    echo = {"type": kind, "coin": coin}
    topic = Topic(kind, coin)
    if kind == "l2Book":
        n_sig_figs, mantissa = optional_int(sent.get("nSigFigs")), optional_int(sent.get("mantissa"))
        fast = sent.get("fast")
        topic = Topic(kind, coin, n_sig_figs, mantissa, _bool(fast))
        if not check_aggregation(n_sig_figs, mantissa):
            raise InvalidSubscription
        echo |= {"nSigFigs": n_sig_figs, "mantissa": mantissa}
        if fast is not None:
            echo["fast"] = fast
    elif kind == "l2":
        topic = Topic(kind, coin, optional_int(sent.get("nSigFigs")), optional_int(sent.get("mantissa")))
        if not check_aggregation(topic.n_sig_figs, topic.mantissa):
            raise InvalidSubscription
        echo |= {key: sent[key] for key in ("nSigFigs", "mantissa") if sent.get(key) is not None}
    elif kind == "candle":
        topic = Topic(kind, coin, interval=_text(sent.get("interval")))
        echo["interval"] = topic.interval
        if topic.interval not in INTERVALS:
            raise InvalidSubscription
    if coin not in coins:
        raise InvalidSubscription
    return topic, echo


# Market data.


def l2_book(
    market: Market,
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
        "coin": market.name,
        "time": time_ms,
        "levels": [_levels(market, islice(levels, depth)) for levels in sides],
    }
    bid, ask = book.top
    if n_sig_figs is not None and bid and ask:
        message["spread"] = market.px_text(ask.px - bid.px)
    if fast:
        message["fast"] = True
    return message


def l2_update(before: JsonObject, after: JsonObject, deflate_over: int | None) -> JsonObject | None:
    """The data of an l2 message that leads from one l2Book to another; None when the levels are the same.

    deflate_over: an update of more bytes than this is compressed; None: none is. The window is that of the snapshot: a
    level that leaves the best 20 is removed. Source: the one public client of this undocumented channel
    (OneKeyHQ/app-monorepo: FastL2Book.ts); that the window stays at 20 is a guess.
    """
    put: list[list[JsonObject]] = []
    gone: list[list[int]] = []
    for old, new in zip(before["levels"], after["levels"], strict=True):
        known, kept = {level["px"]: level["sz"] for level in old}, {level["px"] for level in new}
        put.append([{"p": lv["px"], "s": lv["sz"]} for lv in new if known.get(lv["px"]) != lv["sz"]])
        gone.append([at for at, level in enumerate(old) if level["px"] not in kept])
    if not any(put) and not any(gone):
        return None
    update: JsonObject = {"c": after["coin"], "t": after["time"], "l": put, "r": gone}
    text = orjson.dumps(update)
    if deflate_over is None or len(text) <= deflate_over:
        return {"u": update}
    stream = zlib.compressobj(wbits=-15)
    return {"c": base64.b64encode(stream.compress(text) + stream.flush()).decode()}


def hidden_book(market: Market, time_ms: int, book: HiddenBook) -> JsonObject:
    """Every level of a book, in the shape of an l2Book."""
    return {"coin": market.name, "time": time_ms, "levels": [_levels(market, side) for side in book]}


def bbo(market: Market, time_ms: int, book: HiddenBook) -> JsonObject:
    """The data of a bbo message; an empty side is null."""
    sides = [None if level is None else _levels(market, [level])[0] for level in book.top]
    return {"coin": market.name, "time": time_ms, "bbo": sides}


def trades(market: Market, made: Iterable[Trade]) -> list[JsonObject]:
    """The data of a trades message."""
    return [
        {
            "coin": market.name,
            "side": trade.side,
            "px": market.px_text(trade.px),
            "sz": market.sz_text(trade.sz),
            "time": trade.time_ms,
            "hash": trade.hash,
            "tid": trade.tid,
            "users": [trade.buyer, trade.seller],
        }
        for trade in made
    ]


def _levels(market: Market, levels: Iterable[Level]) -> list[JsonObject]:
    px_decimals, sz_decimals = market.px_decimals, market.sz_decimals
    return [_level(px_decimals, sz_decimals, level) for level in levels]


@lru_cache(maxsize=1 << 14)  # most levels of a book are those of the one before
def _level(px_decimals: int, sz_decimals: int, level: Level) -> JsonObject:
    return {"px": decimal_text(level.px, px_decimals), "sz": decimal_text(level.sz, sz_decimals), "n": level.n}


def _aggregated(levels: Iterable[Level], n_sig_figs: int, mantissa: int, row: int) -> Iterator[Level]:
    """Levels joined on a coarser grid: bids (row 0) rounded down, asks up.

    Source: hyperliquid-dex/order_book_server: server/src/types/inner.rs and order_book/levels.rs.
    """
    joined: Level | None = None
    for level in levels:
        spare_digits = len(str(level.px)) - n_sig_figs
        step = mantissa * 10**spare_digits if spare_digits >= 0 else 1
        px = level.px // step * step if row == 0 else -(-level.px // step) * step
        if joined is not None and joined.px == px:
            joined = Level(px, joined.sz + level.sz, joined.n + level.n)
            continue
        if joined is not None:
            yield joined
        joined = Level(px, level.sz, level.n)
    if joined is not None:
        yield joined


def mid_px(exchange: Exchange, market: Market) -> str | None:
    """The mid price; with an empty side that of the last trade, and None before the first."""
    bid, ask = exchange.block.books[market.name].top
    if bid and ask:
        return decimal_text((bid.px + ask.px) * 5, market.px_decimals + 1)
    made = exchange.trades[market.name]
    return market.px_text(made[-1].px) if made else None


def mids(exchange: Exchange, dex: str) -> dict[str, str]:
    """Mid prices of a dex; the first dex has those of spot too."""
    wanted = [m for m in exchange.markets.values() if m.dex == dex]
    return {market.name: px for market in wanted if (px := mid_px(exchange, market)) is not None}


def asset_ctx(exchange: Exchange, market: Market) -> JsonObject:
    """The context of a perp or a spot pair. No funding here, and the day's figures are the venue's life so far."""
    name = market.name
    mark = market.px_text(exchange.marks[name])
    open_interest = sum(
        position.szi
        for account in exchange.ledger.accounts.values()
        if (position := account.positions.get(name)) is not None and position.szi > 0
    )
    ntl, lots = exchange.turnover[name]
    shared: JsonObject = {
        "prevDayPx": market.px_text(market.home_px),
        "dayNtlVlm": market.notional_text(ntl),
        "markPx": mark,
        "midPx": mid_px(exchange, market),
    }
    base_vlm = market.sz_text(lots)
    if market.base is not None:
        supply = market.base.text(exchange.ledger.paid_in.get(market.base, 0))
        more = {"circulatingSupply": supply, "coin": name, "totalSupply": supply, "dayBaseVlm": base_vlm}
        return shared | more
    bid, ask = exchange.block.books[name].top
    impact = [market.px_text(bid.px), market.px_text(ask.px)] if bid and ask else None
    head: JsonObject = {"funding": "0.0", "openInterest": market.sz_text(open_interest)}
    premium = "0.0" if impact else None
    return head | shared | {"premium": premium, "oraclePx": mark, "impactPxs": impact, "dayBaseVlm": base_vlm}


# Accounts.


def _usd(units: int) -> str:
    return decimal_text(units, PERP_DECIMALS)


def _px_of_ntl(market: Market, ntl: int, lots: int) -> str:
    """An average price, to the last decimal of the grid."""
    return market.px_text((2 * ntl + lots) // (2 * lots))


def clearinghouse_state(exchange: Exchange, account: Account, dex: str) -> JsonObject:
    ledger = exchange.ledger
    positions = [p for p in account.positions.values() if p.market.dex == dex]
    entries = [_position(exchange, account, position) for position in positions]
    isolated = sum(ledger.position_margin(account, p) for p in positions if not p.is_cross)
    ntl = sum(abs(p.szi) * exchange.marks[p.market.name] for p in positions)
    cross_ntl = sum(abs(p.szi) * exchange.marks[p.market.name] for p in positions if p.is_cross)
    used = sum(ledger.position_margin(account, p) for p in positions if p.is_cross)
    value, raw = ledger.value(account, dex), account.cash.get(dex, 0)
    maintenance = sum(
        abs(p.szi) * exchange.marks[p.market.name] // (2 * p.market.max_leverage) for p in positions if p.is_cross
    )
    return {
        "marginSummary": {
            "accountValue": _usd(value + isolated),
            "totalNtlPos": _usd(ntl),
            "totalRawUsd": _usd(raw + sum(p.raw_usd for p in positions)),
            "totalMarginUsed": _usd(used + isolated),
        },
        "crossMarginSummary": {
            "accountValue": _usd(value),
            "totalNtlPos": _usd(cross_ntl),
            "totalRawUsd": _usd(raw),
            "totalMarginUsed": _usd(used),
        },
        "crossMaintenanceMarginUsed": _usd(maintenance),
        "withdrawable": _usd(max(0, ledger.free(account, dex))),
        "assetPositions": [{"type": "oneWay", "position": entry} for entry in entries],
        "time": exchange.block.time_ms,
    }


def _position(exchange: Exchange, account: Account, position: Position) -> JsonObject:
    market, mark = position.market, exchange.marks[position.market.name]
    leverage, _ = exchange.ledger.leverage_of(account, market)
    kind: JsonObject = {"type": "cross", "value": leverage}
    if not position.is_cross:
        kind = {"type": "isolated", "value": leverage, "rawUsd": _usd(position.raw_usd)}
    value = position.szi * mark
    pnl = value - position.entry_ntl if position.szi > 0 else value + position.entry_ntl
    used = exchange.ledger.position_margin(account, position)
    zero = {"allTime": "0.0", "sinceOpen": "0.0", "sinceChange": "0.0"}
    own = position.entry_ntl // leverage
    return {
        "coin": market.name,
        "szi": market.sz_text(position.szi),
        "leverage": kind,
        "entryPx": _px_of_ntl(market, position.entry_ntl, abs(position.szi)),
        "positionValue": _usd(abs(value)),
        "unrealizedPnl": _usd(pnl),
        "returnOnEquity": decimal_text(pnl * 10**10 // own if own else 0, 10),
        "liquidationPx": None,  # nobody is liquidated here
        "marginUsed": _usd(used),
        "maxLeverage": market.max_leverage,
        "cumFunding": zero,
    }


def spot_state(account: Account) -> JsonObject:
    """Balances by token index; none at all, as in a capture, for who never had a token."""
    balances = [
        {
            "coin": token.name,
            "token": token.index,
            "total": token.text(wei),
            "hold": token.text(account.held.get(token, 0)),
            "entryNtl": "0.0",
        }
        for token, wei in sorted(
            ({USDC: 0} | account.spot if account.spot else {}).items(), key=lambda item: item[0].index
        )
    ]
    return {"balances": balances}


def open_orders(account: Account, dex: str, *, frontend: bool) -> list[JsonObject]:
    """Open orders of a dex, newest first; those of spot are with the first dex."""
    found = [order for order in account.orders.values() if order.market.dex == dex]
    return [order.frontend() if frontend else order.basic() for order in reversed(found)]


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
