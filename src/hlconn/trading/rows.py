"""Rows of orders and fills as the venue writes them, read in full before anything is believed.

Whoever reads gets KeyError, ValueError, TypeError or AttributeError for what is not as it should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from ..types import Cloid, Fill, Side

__all__ = ["Row", "read_decimal", "read_fill", "read_id"]


@dataclass(frozen=True, slots=True)
class Row:
    """One order of orderUpdates, openOrders, frontendOpenOrders, orderStatus or historicalOrders."""

    coin: str
    side: Side
    px: Decimal
    sz: Decimal  # what remains
    orig_sz: Decimal
    oid: int
    cloid: Cloid | None
    trigger_px: Decimal | None
    reduce_only: bool
    children: tuple[Row, ...]

    @classmethod
    def read(cls, row: Any) -> Row:
        trigger_px = read_decimal(row["triggerPx"]) if row.get("isTrigger") else None
        children = tuple(cls.read(child) for child in row.get("children") or ())
        return cls(
            row["coin"],
            read_side(row["side"]),
            read_decimal(row["limitPx"]),
            read_decimal(row["sz"]),
            read_decimal(row["origSz"]),
            read_id(row["oid"]),
            read_cloid(row.get("cloid")),
            trigger_px,
            bool(row.get("reduceOnly")),
            children,
        )


def read_decimal(text: object) -> Decimal:
    try:
        value = Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite():
        raise ValueError(f"no decimal number: {text!r}")
    return value


def read_id(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"no id: {value!r}")
    return value


def read_side(letter: object) -> Side:
    if letter not in ("A", "B"):
        raise ValueError(f"no side: {letter!r}")
    return Side.BUY if letter == "B" else Side.SELL


def read_cloid(text: object) -> Cloid | None:
    """None for null, and for zero, which the venue may write for none."""
    if text is None:
        return None
    if not isinstance(text, str) or len(text) != 34:
        raise ValueError(f"no cloid: {text!r}")
    value = int(text, 16)
    return Cloid(value) if value else None


def read_fill(row: Any) -> Fill:
    """One fill of userFills, userEvents or the info query of that name. KeyError, ValueError, TypeError: unreadable."""
    return Fill(
        row["coin"],
        read_side(row["side"]),
        read_decimal(row["px"]),
        read_decimal(row["sz"]),
        read_id(row["time"]),
        read_id(row["oid"]),
        read_id(row["tid"]),
        read_cloid(row.get("cloid")),
        read_decimal(row["startPosition"]),
        read_decimal(row["closedPnl"]),
        read_decimal(row["fee"]),
        str(row["feeToken"]),
        bool(row["crossed"]),
        str(row["dir"]),
    )
