"""Values that strategies hold: sides, orders and what became of them, fills, positions, and the layout of a trade."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import IntEnum, StrEnum
from operator import index
from typing import Any, TypeAlias

import numpy as np

from .errors import ErrorCode, InvalidOrder

__all__ = [
    "ASK",
    "ASSET_CTX_DTYPE",
    "BID",
    "CANDLE_DTYPE",
    "FEEDS",
    "FILL_DTYPE",
    "FUNDING_DTYPE",
    "ORDER_UPDATE_DTYPE",
    "TRADE_DTYPE",
    "TRADE_USERS_DTYPE",
    "USER_FUNDING_DTYPE",
    "Ack",
    "Builder",
    "CancelResult",
    "Candle",
    "Cloid",
    "Done",
    "Fill",
    "Grade",
    "Grouping",
    "Number",
    "Order",
    "OrderStatus",
    "Position",
    "Priority",
    "Side",
    "Tif",
    "Tpsl",
    "Trigger",
]

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
    FAST: 5 levels, about every 0.5 s. L2: every level the venue shows, with each change. Source: the venue's cadences
    as measured in 2026, see docs.
    """

    NONE = 0
    TOP = 10
    SLOW = 30
    FAST = 40
    L2 = 50


class OrderStatus(IntEnum):
    """What an order's status means, whatever word the venue has for it; `ErrorCode` says why it ended.

    UNKNOWN: a word that nobody knows, it ends nothing. TRIGGERED: a trigger order that fired and is being executed.
    Words that end in Rejected, Canceled or Cancel are taken for what they end in.
    """

    UNKNOWN = 0
    OPEN = 1
    TRIGGERED = 2
    FILLED = 3
    CANCELED = 4
    REJECTED = 5


_TRADE_FIELDS = [("time", "<i8"), ("px", "<f8"), ("sz", "<f8"), ("tid", "<i8"), ("side", "i1")]

#: One trade: time in ms of the venue, px in quote units, sz in base units, tid, side (`Side`, the aggressor's).
TRADE_DTYPE = np.dtype(_TRADE_FIELDS, align=True)

#: The same with the addresses of both parties, "0x" and 40 hex digits; empty where the venue left them out.
TRADE_USERS_DTYPE = np.dtype([*_TRADE_FIELDS, ("buyer", "S42"), ("seller", "S42")], align=True)

# Texts are bytes without the zeros behind them; `.astype(str)` makes str of a whole column.

#: One candle, with the names of `Candle`. open_ms, close_ms: its first and last ms. volume: base units. n: trades.
CANDLE_DTYPE = np.dtype(
    [
        ("open_ms", "<i8"),
        ("open", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("close", "<f8"),
        ("volume", "<f8"),
        ("n", "<i8"),
        ("close_ms", "<i8"),
        ("coin", "S32"),
        ("interval", "S8"),
    ],
    align=True,
)

#: One execution of an order of the account, with the names of `Fill`. time: of the block, ms. px, sz, start_position,
#: closed_pnl, fee as there; fee includes builder_fee and is negative for a rebate; builder_fee and fee_trial_escrow
#: are 0 where the venue names none. tid, twap_id: -1 without one. side: `Side`. cloid, liquidated_user: "0x..." or
#: empty. dir, liquidation_method: words for people, cut to their size. liquidation_mark_px: nan but for a liquidation.
FILL_DTYPE = np.dtype(
    [
        ("time", "<i8"),
        ("px", "<f8"),
        ("sz", "<f8"),
        ("oid", "<i8"),
        ("tid", "<i8"),
        ("start_position", "<f8"),
        ("closed_pnl", "<f8"),
        ("fee", "<f8"),
        ("builder_fee", "<f8"),
        ("fee_trial_escrow", "<f8"),
        ("twap_id", "<i8"),
        ("liquidation_mark_px", "<f8"),
        ("side", "i1"),
        ("crossed", "?"),
        ("coin", "S32"),
        ("cloid", "S34"),
        ("fee_token", "S32"),
        ("dir", "S32"),
        ("hash", "S66"),
        ("liquidated_user", "S42"),
        ("liquidation_method", "S16"),
    ],
    align=True,
)

#: One hour's funding rate of a perp. time in ms, some ms after the full hour; both rates per hour.
FUNDING_DTYPE = np.dtype([("time", "<i8"), ("funding_rate", "<f8"), ("premium", "<f8"), ("coin", "S32")], align=True)

#: One payment of funding to the account. usdc: positive when received. szi: the signed position. n_samples: -1 without.
#: hash: only where it was asked for over HTTP, else empty.
USER_FUNDING_DTYPE = np.dtype(
    [
        ("time", "<i8"),
        ("usdc", "<f8"),
        ("szi", "<f8"),
        ("funding_rate", "<f8"),
        ("n_samples", "<i8"),
        ("coin", "S32"),
        ("hash", "S66"),
    ],
    align=True,
)

#: One order and its status. sz: what remains; orig_sz: what it was. timestamp: placed, status_timestamp: since when it
#: is so, ms. status: `OrderStatus`; code: `ErrorCode`, why it ended; status_text: the venue's word for both, cut to its
#: size. cloid: "0x..." or empty.
ORDER_UPDATE_DTYPE = np.dtype(
    [
        ("oid", "<i8"),
        ("limit_px", "<f8"),
        ("sz", "<f8"),
        ("orig_sz", "<f8"),
        ("timestamp", "<i8"),
        ("status_timestamp", "<i8"),
        ("code", "<i2"),
        ("status", "i1"),
        ("side", "i1"),
        ("reduce_only", "?"),
        ("coin", "S32"),
        ("cloid", "S34"),
        ("status_text", "S48"),
    ],
    align=True,
)

#: The context of a perp or a spot pair. funding: the present hour's rate. open_interest, day_base_vlm, the supplies:
#: base units; day_ntl_vlm: quote units. nan where the venue says null, and where the market has none: funding,
#: open_interest, oracle_px, premium and the impact prices are of perps, the supplies of spot. coin: empty where the
#: venue goes by position.
ASSET_CTX_DTYPE = np.dtype(
    [
        ("mark_px", "<f8"),
        ("mid_px", "<f8"),
        ("oracle_px", "<f8"),
        ("funding", "<f8"),
        ("premium", "<f8"),
        ("open_interest", "<f8"),
        ("impact_bid", "<f8"),
        ("impact_ask", "<f8"),
        ("prev_day_px", "<f8"),
        ("day_ntl_vlm", "<f8"),
        ("day_base_vlm", "<f8"),
        ("circulating_supply", "<f8"),
        ("total_supply", "<f8"),
        ("coin", "S32"),
    ],
    align=True,
)

#: A price or a size. A float means the shortest decimal that reads back as it (its `repr`).
Number: TypeAlias = int | str | Decimal | float

# more than any market needs; it bounds the work that one value can cause
_MAX_WHOLE_DIGITS = 32
_MAX_TEXT = 400
_LIMIT = 10**_MAX_WHOLE_DIGITS
_NUMERAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


def read_number(value: Number, name: str) -> tuple[str, str]:
    """The exact digits before and after the decimal point, without idle zeros: "0.250" -> ("0", "25").

    Text may have an exponent, but no blanks, underscores or digits of other scripts. TypeError for what is no
    number (bool included); InvalidOrder for NaN, infinity, what is below zero and what has too many digits.
    """
    if isinstance(value, str):
        text: str = value
    elif type(value) is int and 0 <= value < _LIMIT:
        return str(value), ""
    elif isinstance(value, float):
        text = float.__repr__(value)  # numpy's float64 is a float whose own repr is "np.float64(1.5)"
    elif isinstance(value, Decimal):
        text = str(value)
    else:
        text = _int_text(value, name)
    whole, _, fraction = text.partition(".")
    if not whole.isdigit() or not (fraction.isdigit() or not fraction) or not text.isascii() or len(text) > _MAX_TEXT:
        whole, fraction = _read_any(text, name)
    if whole[0] == "0":
        whole = whole.lstrip("0") or "0"
    if len(whole) > _MAX_WHOLE_DIGITS:
        raise InvalidOrder(f"{name} has too many digits: it must be below 1e{_MAX_WHOLE_DIGITS}")
    return whole, fraction.rstrip("0")


def _int_text(value: object, name: str) -> str:
    try:
        number = None if isinstance(value, bool) else index(value)  # type: ignore[arg-type]  # numpy's integers too
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be an int, str, Decimal or float, not {type(value).__name__}")
    return str(min(max(number, -_LIMIT), _LIMIT))  # str() of an int of thousands of digits raises on its own


def _read_any(text: str, name: str) -> tuple[str, str]:
    if len(text) > _MAX_TEXT:
        raise InvalidOrder(f"{name} has too many digits: {len(text)} characters")
    if not _NUMERAL.fullmatch(text):
        raise InvalidOrder(f"{name} must be a finite decimal number like 98450 or '0.01', not {text!r}")
    number = Decimal(text)
    if number < 0:
        raise InvalidOrder(f"{name} must not be below zero: it is {text}. The direction is the order's side")
    if number.adjusted() >= _MAX_WHOLE_DIGITS:
        raise InvalidOrder(f"{name} has too many digits: {text} is not below 1e{_MAX_WHOLE_DIGITS}")
    if number.adjusted() < -_MAX_TEXT:
        raise InvalidOrder(f"{name} has too many digits: {text}")
    whole, _, fraction = format(number.copy_abs(), "f").partition(".")
    return whole, fraction


def _check_number(value: Number, name: str, zero_ok: bool = False) -> None:
    if (type(value) is float or type(value) is int) and 0 < value < _LIMIT:
        return
    if read_number(value, name) == ("0", "") and not zero_ok:
        raise InvalidOrder(f"{name} must be above zero")


class Tif(StrEnum):
    """How long a limit order lives. The value is the venue's word.

    ALO: post only, canceled instead of matching at once. IOC: what does not fill at once is canceled.
    GTC: rests until filled or canceled.
    """

    ALO = "Alo"
    IOC = "Ioc"
    GTC = "Gtc"


class Tpsl(StrEnum):
    """What a trigger is for: TP takes a profit, SL stops a loss. The value is the venue's word."""

    TP = "tp"
    SL = "sl"


class Grouping(StrEnum):
    """How the orders of one action belong together. The value is the venue's word.

    NA: not at all. NORMAL_TPSL: the first is the parent, the rest are its take-profit and stop-loss, of fixed size.
    POSITION_TPSL: take-profit and stop-loss that follow the size of the position. See also `Priority`.
    """

    NA = "na"
    NORMAL_TPSL = "normalTpsl"
    POSITION_TPSL = "positionTpsl"


def _check_int(value: object, name: str, highest: int, unit: str) -> None:
    if type(value) is not int:
        raise TypeError(f"{name} must be an int ({unit}), not {type(value).__name__}")
    if not 0 <= value <= highest:
        raise InvalidOrder(f"{name} must be from 0 to {highest} ({unit})")


@dataclass(frozen=True, slots=True)
class Priority:
    """In place of a `Grouping`: pay for a better place. rate: in 1e-8 of the notional, 0 to 100_000_000 (100 %).

    It is burned, in HYPE from the undelegated staking balance. The orders of the action must be all IOC (charged on
    what fills) or all ALO and not reduce-only (charged when placed, filled or not), none of them on outcome markets.
    Source: exchange docs, "Priority fees" (2026-08).
    """

    rate: int

    def __post_init__(self) -> None:
        _check_int(self.rate, "rate", 100_000_000, "1e-8 of the notional")


@dataclass(frozen=True, slots=True)
class Builder:
    """Who earns a fee on each order, if you approved it. fee: in tenths of a basis point, 10 is 0.01 %.

    The venue takes at most 100 on perps and 1000 on spot. address: "0x" and 40 hex digits, kept in lower case,
    for the venue hashes it so.
    """

    address: str
    fee: int

    def __post_init__(self) -> None:
        if not isinstance(self.address, str):
            raise TypeError(f"address must be a str, not {type(self.address).__name__}")
        if not re.fullmatch(r"0x[0-9a-fA-F]{40}", self.address):
            raise InvalidOrder(f"address must be 0x and 40 hex digits, not {self.address!r}")
        _check_int(self.fee, "fee", 1000, "tenths of a basis point")
        object.__setattr__(self, "address", self.address.lower())


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Cloid:
    """A client order id: 128 bits, yours to choose, from 1 to 2**128 - 1. `value` and `int(cloid)` are the number.

    Zero is refused: a public client treats an all-zero cloid as none at all, and its order could not be found again.
    """

    value: int

    def __init__(self, value: int | str) -> None:
        """From a number, or from "0x" and exactly 32 hex digits. InvalidOrder for anything out of range."""
        if isinstance(value, str):
            if not re.fullmatch(r"0x[0-9a-fA-F]{32}", value):
                raise InvalidOrder(f"a cloid is 0x and exactly 32 hex digits, not {value!r}")
            value = int(value, 16)
        if type(value) is not int:
            raise TypeError(f"a cloid is made from an int or a str, not {type(value).__name__}")
        if not 0 < value < 1 << 128:
            raise InvalidOrder("a cloid is from 1 to 2**128 - 1: zero would be taken for no cloid")
        object.__setattr__(self, "value", value)

    @classmethod
    def from_hex(cls, text: str) -> Cloid:
        """From "0x" and exactly 32 hex digits, of either case."""
        if not isinstance(text, str):
            raise TypeError(f"from_hex takes a str, not {type(text).__name__}")
        return cls(text)

    @classmethod
    def from_bytes(cls, data: bytes) -> Cloid:
        """From 16 bytes, the most significant first, as in the hex."""
        if len(data) != 16:
            raise InvalidOrder(f"a cloid is 16 bytes, not {len(data)}")
        return cls(int.from_bytes(data, "big"))

    @classmethod
    def new(cls) -> Cloid:
        """A fresh one from the system's randomness: unique over processes, machines and forks without a registry."""
        return cls(int.from_bytes(os.urandom(16), "big") or 1)

    @property
    def hex(self) -> str:
        """As on the wire: "0x" and 32 lower-case hex digits."""
        return f"0x{self.value:032x}"

    def __int__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"Cloid('{self.hex}')"


@dataclass(frozen=True, slots=True)
class Trigger:
    """What turns an order into a trigger order: it waits until the mark price crosses `px`.

    is_market: when it fires, trade at once at the order's own px or better; else rest there as a limit order.
    px obeys the same rule as the px of an order. Source: exchange docs, "Take profit and stop loss orders".
    """

    px: Number
    tpsl: Tpsl
    is_market: bool = True

    def __post_init__(self) -> None:
        if type(self.tpsl) is not Tpsl:
            raise TypeError(f"tpsl must be Tpsl.TP or Tpsl.SL, not {self.tpsl!r}")
        if type(self.is_market) is not bool:
            raise TypeError(f"is_market must be a bool, not {self.is_market!r}")
        _check_number(self.px, "trigger px")

    def __repr__(self) -> str:
        return f"Trigger(px={self.px!r}, tpsl=Tpsl.{self.tpsl.name}, is_market={self.is_market})"


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Order:
    """One order as you want it. Whether px and sz fit the market's grid is the `Instrument`'s question.

    coin: any alias that the instruments know. px: quote units, the worst price for IOC and for a market trigger;
    sz: base units. Both are kept as given. sz 0 means "the whole position" and is allowed only where that has a
    meaning: a reduce-only trigger order.

    TypeError for values of the wrong kind; InvalidOrder for NaN, infinity, zero, negative numbers, text that is no
    number, and a trigger together with a tif (the venue has room for only one of the two).
    """

    coin: str
    side: Side
    px: Number
    sz: Number
    tif: Tif = Tif.GTC
    trigger: Trigger | None = None
    reduce_only: bool = False
    cloid: Cloid | None = None

    # Written out because it is on the order path: two thirds of the time of a generated one with __post_init__.
    def __init__(
        self,
        coin: str,
        side: Side,
        px: Number,
        sz: Number,
        tif: Tif = Tif.GTC,
        trigger: Trigger | None = None,
        reduce_only: bool = False,
        cloid: Cloid | None = None,
    ) -> None:
        if (
            type(side) is not Side
            or type(tif) is not Tif
            or not isinstance(coin, str)
            or type(reduce_only) is not bool
            or (trigger is not None and type(trigger) is not Trigger)
            or (cloid is not None and type(cloid) is not Cloid)
        ):
            raise _wrong_type(coin, side, tif, trigger, reduce_only, cloid)
        if not coin:
            raise InvalidOrder("coin must not be empty")
        _check_number(px, "px")
        if trigger is None:
            _check_number(sz, "sz")
        else:
            _check_number(sz, "sz", zero_ok=reduce_only)
            if tif is not Tif.GTC:
                raise InvalidOrder("a trigger order has no tif: leave it out")
        _set_coin(self, coin)
        _set_side(self, side)
        _set_px(self, px)
        _set_sz(self, sz)
        _set_tif(self, tif)
        _set_trigger(self, trigger)
        _set_reduce_only(self, reduce_only)
        _set_cloid(self, cloid)

    def __repr__(self) -> str:
        """As one would write it, without what is at its default."""
        text = f"Order({self.coin!r}, Side.{self.side.name}, px={self.px!r}, sz={self.sz!r}"
        if self.tif is not Tif.GTC:
            text += f", tif=Tif.{self.tif.name}"
        for name in ("trigger", "reduce_only", "cloid"):
            if value := getattr(self, name):
                text += f", {name}={value!r}"
        return text + ")"


_set_coin, _set_side, _set_px, _set_sz, _set_tif, _set_trigger, _set_reduce_only, _set_cloid = (
    Order.__dict__[field.name].__set__ for field in fields(Order)
)


def with_cloid(order: Order, cloid: Cloid) -> Order:
    """The same order under this cloid. It was checked when it was made: a quarter of the time of making it anew."""
    new: Order = object.__new__(Order)
    _set_coin(new, order.coin)
    _set_side(new, order.side)
    _set_px(new, order.px)
    _set_sz(new, order.sz)
    _set_tif(new, order.tif)
    _set_trigger(new, order.trigger)
    _set_reduce_only(new, order.reduce_only)
    _set_cloid(new, cloid)
    return new


def _wrong_type(coin: Any, side: Any, tif: Any, trigger: Any, reduce_only: Any, cloid: Any) -> TypeError:
    for name, value, kind, hint in (
        ("coin", coin, str, "a str"),
        ("side", side, Side, "Side.BUY or Side.SELL"),
        ("tif", tif, Tif, "Tif.ALO, Tif.IOC or Tif.GTC"),
        ("reduce_only", reduce_only, bool, "a bool"),
        ("trigger", trigger, (Trigger, type(None)), "a Trigger or None"),
    ):
        if not isinstance(value, kind):
            return TypeError(f"{name} must be {hint}, not {value!r}")
    return TypeError(f"cloid must be a Cloid or None, not {cloid!r}: write Cloid(...)")


@dataclass(frozen=True, slots=True)
class Ack:
    """The venue took the order. What it is now is told by `hl.trader.order(ack.cloid)`, not by this.

    oid: of a modify, the new one; None only while a take-profit or stop-loss waits (`waiting`: the venue's word,
    "waitingForFill" or "waitingForTrigger"). filled_sz, avg_px: what was filled when the venue answered, 0 and None for
    nothing; base and quote units. resting: the venue said that it is on the book.
    """

    coin: str
    cloid: Cloid | None
    oid: int | None
    resting: bool = False
    filled_sz: Decimal = Decimal(0)
    avg_px: Decimal | None = None
    waiting: str | None = None


@dataclass(frozen=True, slots=True)
class CancelResult:
    """What a cancel met. canceled: it ended the order. Else it found none: a normal race.

    oid, cloid: as the cancel named the order, one of them. reason, message: why not, and the venue's own words.
    may_be_live: when the answer came it was not proven that the order ended. One that was still on its way when the
    cancel came is not found, and is placed after that; `hl.trader.order(...).may_be_live` follows it.
    """

    coin: str
    oid: int | None
    cloid: Cloid | None
    canceled: bool
    reason: ErrorCode = ErrorCode.NONE
    message: str = ""
    may_be_live: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """Any other action, accepted. action: the venue's type. value: the id of a TWAP or a new address, if it has one."""

    action: str
    value: int | str | None = None


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution of one of your orders. Two messages about the same fill have the same (coin, time, tid).

    px, sz: quote and base units, exact. time: of the block, ms. start_position: signed, before this fill. fee: in
    `fee_token`, negative for a rebate. crossed: you were the taker. closed_pnl: quote units, before fees.
    Source: the venue's docs, WebSocket > Subscriptions, `WsFill`.
    """

    coin: str
    side: Side
    px: Decimal
    sz: Decimal
    time: int
    oid: int
    tid: int
    cloid: Cloid | None
    start_position: Decimal
    closed_pnl: Decimal
    fee: Decimal
    fee_token: str
    crossed: bool
    dir: str

    @property
    def key(self) -> tuple[str, int, int]:
        """(coin, time, tid): what makes it this fill."""
        return self.coin, self.time, self.tid

    @property
    def signed_sz(self) -> Decimal:
        """What it adds to the position, in base units."""
        return self.sz if self.side is Side.BUY else -self.sz


@dataclass(frozen=True, slots=True)
class Position:
    """szi: signed size, base units, positive when long. entry_px: average price of what is open, None when flat."""

    coin: str
    szi: Decimal
    entry_px: Decimal | None


@dataclass(frozen=True, slots=True)
class Candle:
    """One candle of the venue, maybe still forming: it is final when one with a later `open_ms` comes.

    open_ms, close_ms: its first and last ms. volume: base units. n: trades. final: of a history, whether a later one is
    known, so that it cannot change any more; None where that is not told.
    """

    coin: str
    interval: str
    open_ms: int
    close_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    n: int
    final: bool | None = None

    @classmethod
    def read(cls, data: dict[str, Any]) -> Candle:
        """From the venue's object. KeyError, TypeError or ValueError for what is none."""
        open_, high, low, close, volume = (float(data[key]) for key in "ohlcv")
        coin, interval, n = str(data["s"]), str(data["i"]), int(data["n"])
        return cls(coin, interval, int(data["t"]), int(data["T"]), open_, high, low, close, volume, n)
