"""The coins this venue can list, and the grids their prices and sizes stand on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from ..errors import ConfigError

__all__ = ["DEFAULT_COINS", "MADE_UP_COINS", "Coin", "coins_named", "decimal_text", "px_decimals"]

#: How far, as a share of the home price, any level may stand from it. The grid is constant over this band.
BAND = Decimal("0.15")

MADE_UP_COINS = 250


def px_decimals(px: Decimal, sz_decimals: int) -> int:
    """Decimals of a perp price near `px`: 5 significant figures, 6 - szDecimals decimals, integers always.

    Source: exchange docs, "Tick and lot size".
    """
    return max(0, min(4 - px.adjusted(), 6 - sz_decimals))


def decimal_text(units: int, decimals: int) -> str:
    """`units` * 10**-decimals as the venue writes numbers: at least one decimal, no other trailing zero."""
    whole, part = divmod(units, 10**decimals)
    fraction = f"{part:0{decimals}d}".rstrip("0") if part else ""
    return f"{whole}.{fraction or '0'}"


@dataclass(frozen=True, slots=True)
class Coin:
    """One market: its grid, and how lively its made-up trading is.

    home_px: the price its walk comes back to. activity: share of blocks in which its top moves.
    min_levels, max_levels: bounds of each side of its hidden book.
    """

    name: str
    sz_decimals: int
    home_px: str
    max_leverage: int = 10
    activity: float = 0.35
    min_levels: int = 60
    max_levels: int = 200
    is_delisted: bool = False

    def __post_init__(self) -> None:
        home = Decimal(self.home_px)
        edges = {px_decimals(home * (1 + sign * BAND), self.sz_decimals) for sign in (-1, 0, 1)}
        assert edges == {self.px_decimals}, f"{self.name}: the tick changes within the band"

    @property
    def px_decimals(self) -> int:
        return px_decimals(Decimal(self.home_px), self.sz_decimals)

    @property
    def home_tick(self) -> int:
        return int(Decimal(self.home_px).scaleb(self.px_decimals))

    def px_text(self, tick: int) -> str:
        return decimal_text(tick, self.px_decimals)

    def sz_text(self, lots: int) -> str:
        return decimal_text(lots, self.sz_decimals)


_CATALOGUE = {
    coin.name: coin
    for coin in (
        Coin("BTC", 5, "106000", max_leverage=40, activity=0.65),
        Coin("ETH", 4, "3500", max_leverage=25, activity=0.6),
        Coin("SOL", 2, "150", max_leverage=20, activity=0.5),
        Coin("kPEPE", 0, "0.0125"),
        Coin("HYPE", 2, "45", activity=0.5),
        Coin("DOGE", 0, "0.22"),
        # Listed, but nobody trades it any more: its book is empty.
        Coin("MATIC", 1, "0.4", max_leverage=20, activity=0.0, min_levels=0, max_levels=0, is_delisted=True),
    )
}

DEFAULT_COINS = ("BTC", "ETH", "SOL", "kPEPE")


def _made_up(number: int) -> Coin:
    """`T0` to `T249`, for load tests: prices from 0.02 to 60000; every tenth, T9, T19, ..., has a thin book.

    A thin book has at most 8 levels a side and now and then an empty side.
    """
    magnitude = number % 7 - 2
    home_px = f"{Decimal(2 + number % 5).scaleb(magnitude):f}"
    depth = (0, 8) if number % 10 == 9 else (60, 120)
    return Coin(f"T{number}", max(0, min(magnitude + 1, 5)), home_px, 5, 0.25, min_levels=depth[0], max_levels=depth[1])


def coins_named(names: tuple[str, ...]) -> tuple[Coin, ...]:
    """The coins of these names, in this order. Raises ConfigError for an unknown or repeated name, or for none."""
    coins = []
    for name in names:
        made_up = re.fullmatch(r"T(0|[1-9][0-9]{0,2})", name)
        if name in _CATALOGUE:
            coins.append(_CATALOGUE[name])
        elif made_up and int(made_up[1]) < MADE_UP_COINS:
            coins.append(_made_up(int(made_up[1])))
        else:
            known = ", ".join(_CATALOGUE)
            raise ConfigError(f"unknown coin {name!r}: the venue in a box lists {known} and T0 to T{MADE_UP_COINS - 1}")
    if not coins or len(set(names)) != len(names):
        raise ConfigError(f"coins must name at least one coin, and each once, not {names!r}")
    return tuple(coins)
