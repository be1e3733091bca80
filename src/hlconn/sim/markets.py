"""The markets this venue can list, the grids their prices and sizes stand on, and its metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ConfigError

__all__ = [
    "DEFAULT_COINS",
    "MADE_UP_COINS",
    "USDC",
    "BadNumber",
    "Market",
    "Token",
    "decimal_text",
    "dexs",
    "markets_named",
    "meta",
    "read_decimal",
    "spot_meta",
]

JsonObject = dict[str, Any]

#: Decimals of a notional: a price has MAX - szDecimals decimals and a size szDecimals, so a product has MAX of them.
#: Source: exchange docs, "Tick and lot size".
PERP_DECIMALS, SPOT_DECIMALS = 6, 8
_FIGURES = 5

MADE_UP_COINS = 250

_NUMBER = re.compile(r"(-?)([0-9]{1,20})(?:\.([0-9]{0,20}))?", re.ASCII)


class BadNumber(ValueError):
    """Text that is no plain decimal number."""


def decimal_text(units: int, decimals: int) -> str:
    """`units` * 10**-decimals as the venue writes numbers: at least one decimal, no other trailing zero."""
    if units < 0:
        return "-" + decimal_text(-units, decimals)
    whole, part = divmod(units, 10**decimals)
    fraction = f"{part:0{decimals}d}".rstrip("0") if part else ""
    return f"{whole}.{fraction or '0'}"


def read_decimal(text: object, decimals: int) -> tuple[int, bool]:
    """(units of 10**-decimals, whether that is exact). Raises BadNumber for what is no plain decimal text."""
    found = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise BadNumber(f"not a decimal number: {text!r}")
    sign, whole, fraction = found.groups()
    fraction = (fraction or "").rstrip("0")
    kept = fraction[:decimals]
    units = int(whole) * 10**decimals + (int(kept) * 10 ** (decimals - len(kept)) if kept else 0)
    return (-units if sign else units), len(fraction) <= decimals


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A spot token. Balances are kept in units of 10**-wei_decimals, sizes in units of 10**-sz_decimals."""

    name: str
    index: int
    sz_decimals: int
    wei_decimals: int
    full_name: str | None = None
    evm: JsonObject | None = None

    @property
    def id(self) -> str:
        return f"0x{0xC1FB593AEFFBEB02F85E0308E9956A90 + self.index:032x}"

    def text(self, wei: int) -> str:
        return decimal_text(wei, self.wei_decimals)


@dataclass(frozen=True, slots=True)
class Market:
    """One market: its names, its grid, and how lively its made-up trading is.

    Inside the venue a price is a whole number of 10**-px_decimals and a size one of 10**-sz_decimals; their product
    is exact: millionths of a dollar for perps, the quote token's wei for spot. home_px: the price its walk comes back
    to. activity: share of blocks in which its top moves. min_levels, max_levels: bounds of each side of the book that
    the made-up traders keep.
    """

    name: str
    asset: int
    sz_decimals: int
    home_px: int
    max_leverage: int = 10
    activity: float = 0.35
    min_levels: int = 60
    max_levels: int = 200
    dex: str = ""
    base: Token | None = None
    is_delisted: bool = False
    odd: tuple[tuple[str, Any], ...] = ()

    #: Decimals of a notional, and of a price.
    decimals: int = field(init=False)
    px_decimals: int = field(init=False)

    def __post_init__(self) -> None:
        decimals = PERP_DECIMALS if self.base is None else SPOT_DECIMALS
        object.__setattr__(self, "decimals", decimals)
        object.__setattr__(self, "px_decimals", decimals - self.sz_decimals)

    @property
    def is_spot(self) -> bool:
        return self.base is not None

    def tick_at(self, px: int) -> int:
        """The distance between valid prices near `px`: five significant figures, but integers always."""
        tick: int = min(10 ** max(0, len(str(px)) - _FIGURES), 10**self.px_decimals)
        return tick

    def is_valid_px(self, px: int) -> bool:
        return px > 0 and px % self.tick_at(px) == 0

    def px_text(self, px: int) -> str:
        return decimal_text(px, self.px_decimals)

    def sz_text(self, lots: int) -> str:
        return decimal_text(lots, self.sz_decimals)

    def notional_text(self, units: int) -> str:
        return decimal_text(units, self.decimals)


USDC = Token("USDC", 0, 8, 8, "USD Coin")
_PURR = Token(
    "PURR", 1, 0, 5, None, {"address": "0x9b498c3c8a0b8cd8ba1d9851d40d186f1872b44e", "evm_extra_wei_decimals": 13}
)
_HFUN = Token("HFUN", 2, 2, 8, "HFUN")
#: Names are not ASCII alone, positions are not indices, and nobody trades it.
_ODD = Token("“P”🐱", 5, 0, 5, "“Purr” 🐱")


def _perp(
    name: str, sz_decimals: int, home: str, max_leverage: int = 10, activity: float = 0.35, **more: Any
) -> Market:
    home_px, _ = read_decimal(home, PERP_DECIMALS - sz_decimals)
    return Market(name, 0, sz_decimals, home_px, max_leverage, activity, **more)


def _spot(name: str, index: int, base: Token, home: str, **more: Any) -> Market:
    home_px, _ = read_decimal(home, SPOT_DECIMALS - base.sz_decimals)
    return Market(name, 10_000 + index, base.sz_decimals, home_px, 1, base=base, **more)


_ISOLATED = (("onlyIsolated", True), ("marginMode", "noCross"), ("growthMode", "enabled"))
_EMPTY: JsonObject = {"activity": 0.0, "min_levels": 0, "max_levels": 0}
_CATALOGUE = {
    market.name: market
    for market in (
        _perp("BTC", 5, "106000", 40, 0.65),
        _perp("ETH", 4, "3500", 25, 0.6),
        _perp("SOL", 2, "150", 20, 0.5),
        _perp("kPEPE", 0, "0.0125"),
        _perp("HYPE", 2, "45", activity=0.5),
        _perp("DOGE", 0, "0.22"),
        # Listed, but nobody trades it any more: its book is empty.
        _perp("MATIC", 1, "0.4", 20, **_EMPTY, is_delisted=True),
        _spot("PURR/USDC", 0, _PURR, "0.2"),
        _spot("@1", 1, _HFUN, "25"),
        # Its index is not its place in the list, and its token's is not either.
        _spot("@9", 9, _ODD, "0.002", **_EMPTY),
        _perp("test:GOLD", 3, "2650", 5, dex="test", odd=_ISOLATED),
    )
}

DEFAULT_COINS = ("BTC", "ETH", "SOL", "kPEPE", "MATIC", "PURR/USDC", "@1", "@9", "test:GOLD")


def _made_up(number: int) -> Market:
    """`T0` to `T249`, for load tests: prices from 0.02 to 60000; every tenth, T9, T19, ..., has a thin book.

    A thin book has at most 8 levels a side and now and then an empty side.
    """
    magnitude = number % 7 - 2
    home = f"{2 + number % 5}" + "0" * magnitude if magnitude >= 0 else f"0.{'0' * (-magnitude - 1)}{2 + number % 5}"
    depth = {"min_levels": 0, "max_levels": 8} if number % 10 == 9 else {"min_levels": 60, "max_levels": 120}
    return _perp(f"T{number}", max(0, min(magnitude + 1, 5)), home, 5, 0.25, **depth)


def markets_named(names: tuple[str, ...]) -> dict[str, Market]:
    """The markets of these names, in this order, by name; perps get their asset ids from it.

    Raises ConfigError for an unknown or repeated name, or for none.
    """
    markets: dict[str, Market] = {}
    next_asset: dict[str, int] = {"": 0}
    for name in names:
        made_up = re.fullmatch(r"T(0|[1-9][0-9]{0,2})", name)
        if name in _CATALOGUE:
            market = _CATALOGUE[name]
        elif made_up and int(made_up[1]) < MADE_UP_COINS:
            market = _made_up(int(made_up[1]))
        else:
            known = ", ".join(_CATALOGUE)
            raise ConfigError(f"unknown coin {name!r}: the venue in a box lists {known} and T0 to T{MADE_UP_COINS - 1}")
        if not market.is_spot:
            asset = next_asset.setdefault(market.dex, 100_000 + 10_000 * len(next_asset))
            next_asset[market.dex] += 1
            market = replace(market, asset=asset)
        markets[name] = market
    if not names or len(markets) != len(names):
        raise ConfigError(f"coins must name at least one coin, and each once, not {names!r}")
    return markets


def dexs(markets: dict[str, Market]) -> list[str]:
    """Names of the perp dexs in the order of their numbers; the first is ""."""
    return list(dict.fromkeys(["", *(m.dex for m in markets.values() if not m.is_spot)]))


def meta(markets: dict[str, Market], dex: str) -> JsonObject:
    """An asset's id follows from its place in the universe: delisted entries keep theirs."""
    universe = []
    for market in markets.values():
        if market.is_spot or market.dex != dex:
            continue
        entry: JsonObject = {"szDecimals": market.sz_decimals, "name": market.name}
        # Below 50, a margin table id is a single tier of that leverage and is not listed.
        entry |= {"maxLeverage": market.max_leverage, "marginTableId": market.max_leverage, **dict(market.odd)}
        if market.is_delisted:
            entry["isDelisted"] = True
        universe.append(entry)
    return {"universe": universe, "marginTables": [], "collateralToken": 0}


def spot_meta(markets: dict[str, Market]) -> JsonObject:
    tokens = {USDC.index: USDC}
    universe = []
    for market in markets.values():
        if market.base is not None:
            tokens[market.base.index] = market.base
            index = market.asset - 10_000
            entry = {"tokens": [market.base.index, 0], "name": market.name, "index": index, "isCanonical": index == 0}
            universe.append(entry)
    listed = [
        {
            "name": token.name,
            "szDecimals": token.sz_decimals,
            "weiDecimals": token.wei_decimals,
            "index": token.index,
            "tokenId": token.id,
            "isCanonical": token.index < 2,
            "evmContract": token.evm,
            "fullName": token.full_name,
            "deployerTradingFeeShare": "0.0",
        }
        for token in sorted(tokens.values(), key=lambda token: token.index)
    ]
    return {"universe": universe, "tokens": listed}
