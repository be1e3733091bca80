"""Orders, trades and blocks: what the exchange keeps, and how the venue writes an order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .actions import JsonObject
from .ledger import Account
from .markets import Market
from .matching import HiddenBook

__all__ = ["Block", "Order", "Trade", "Trigger"]


@dataclass(frozen=True, slots=True)
class Trigger:
    px: int
    is_market: bool
    tpsl: str
    is_above: bool  # fires at a mark price at or above px


@dataclass(slots=True, eq=False)
class Order:
    """One order of one account. sz: what is left; status: the venue's word, "open" also for a waiting trigger."""

    oid: int
    account: Account
    market: Market
    is_buy: bool
    px: int
    sz: int
    tif: str | None
    reduce_only: bool
    cloid: str | None
    time_ms: int
    orig_sz: int = 0
    trigger: Trigger | None = None
    is_position_tpsl: bool = False
    parent: Order | None = None
    children: list[Order] = field(default_factory=list)
    builder: tuple[str, int] | None = None
    status: str = "open"
    status_ms: int = 0
    rests: bool = False  # on the book, or waiting for its trigger or parent

    @property
    def waits(self) -> bool:
        """For its trigger or its parent: it is not on the book."""
        return self.trigger is not None and self.status != "triggered"

    @property
    def is_open(self) -> bool:
        return self.status in ("open", "triggered")

    def basic(self) -> JsonObject:
        """The order as orderUpdates and openOrders write it."""
        market = self.market
        entry: JsonObject = {
            "coin": market.name,
            "side": "B" if self.is_buy else "A",
            "limitPx": market.px_text(self.px),
            "sz": market.sz_text(self.sz),
            "oid": self.oid,
            "timestamp": self.time_ms,
            "origSz": market.sz_text(self.orig_sz),
        }
        if self.cloid is not None:
            entry["cloid"] = self.cloid
        if self.reduce_only:
            entry["reduceOnly"] = True
        return entry

    def frontend(self) -> JsonObject:
        """The order as frontendOpenOrders, orderStatus and historicalOrders write it."""
        market, trigger = self.market, self.trigger
        condition, kind = "N/A", "Limit"
        if trigger is not None:
            condition = f"Price {'above' if trigger.is_above else 'below'} {_plain(market.px_text(trigger.px))}"
            what = "Take Profit" if trigger.tpsl == "tp" else "Stop"
            kind = f"{what} {'Market' if trigger.is_market else 'Limit'}"
            if self.status == "triggered":
                condition = "Triggered"
        return {
            "coin": market.name,
            "side": "B" if self.is_buy else "A",
            "limitPx": market.px_text(self.px),
            "sz": market.sz_text(self.sz),
            "oid": self.oid,
            "timestamp": self.time_ms,
            "triggerCondition": condition,
            "isTrigger": trigger is not None,
            "triggerPx": market.px_text(trigger.px) if trigger is not None else "0.0",
            "children": [child.frontend() for child in self.children if child.is_open],
            "isPositionTpsl": self.is_position_tpsl,
            "reduceOnly": self.reduce_only,
            "orderType": kind,
            "origSz": market.sz_text(self.orig_sz),
            "tif": self.tif,
            "cloid": self.cloid,
        }


def _plain(text: str) -> str:
    return text.removesuffix(".0")


class Trade(NamedTuple):
    """One match. side: the aggressor's, "B" or "A"; hash: of the taker's transaction."""

    side: str
    px: int
    sz: int
    time_ms: int
    hash: str
    tid: int
    buyer: str
    seller: str


@dataclass(frozen=True, slots=True)
class Block:
    """What is known after one block: every book, and what happened in it.

    trades: only of coins that traded. bbo_changed: coins of which the best level of a side differs from that of the
    block before in price, size or order count. marked: coins with a new mark price.
    """

    number: int
    time_ms: int
    books: Mapping[str, HiddenBook]
    trades: Mapping[str, tuple[Trade, ...]]
    bbo_changed: frozenset[str]
    marked: frozenset[str] = frozenset()
