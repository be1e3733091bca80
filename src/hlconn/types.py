"""Values that strategies hold: sides, feeds, and the layout of a trade."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = ["ASK", "BID", "FEEDS", "TRADE_DTYPE", "TRADE_USERS_DTYPE", "Grade", "Side"]

#: Rows of every two-sided array: bids are row 0, asks row 1.
BID, ASK = 0, 1

#: The feeds a book can be folded from: `bbo` (top, on change), `fast` (5 levels), `slow` (20 levels).
FEEDS = ("bbo", "fast", "slow")


class Side(IntEnum):
    """The side of an order. The value is the row of a book on which such an order rests.

    In trades it is the side of the aggressor, as on the venue's wire ("B", "A").
    """

    BUY = 0
    SELL = 1

    @property
    def wire(self) -> str:
        """The venue's letter: "B" for buy, "A" for sell."""
        return "BA"[self]


class Grade(IntEnum):
    """What a book's levels rest on since it was last live. Compare with `>=`.

    NONE: nothing yet. TOP: `bbo` only, one level a side. SLOW: 20 levels, about every 5 s.
    FAST: 5 levels, about every 0.5 s. Source: the venue's cadences as measured in 2026, see docs.
    """

    NONE = 0
    TOP = 10
    SLOW = 30
    FAST = 40


_TRADE_FIELDS = [("time", "<i8"), ("px", "<f8"), ("sz", "<f8"), ("tid", "<i8"), ("side", "i1")]

#: One trade: time in ms of the venue, px in quote units, sz in base units, tid, side (`Side`, the aggressor's).
TRADE_DTYPE = np.dtype(_TRADE_FIELDS, align=True)

#: The same with the addresses of both parties, "0x" and 40 hex digits; empty where the venue left them out.
TRADE_USERS_DTYPE = np.dtype([*_TRADE_FIELDS, ("buyer", "S42"), ("seller", "S42")], align=True)
