"""What can be traded, by any of its names, and the grid its prices and sizes lie on.

Made from the bodies of the info requests meta, spotMeta, perpDexs and outcomeMeta, already parsed. The rules are those
of the exchange's docs, pages "Asset IDs" and "Tick and lot size".
"""

from __future__ import annotations

import logging
import reprlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from difflib import get_close_matches
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from .errors import ConfigError, InvalidOrder, QueryFailed, UnknownCoin
from .types import Number, Side, read_number

__all__ = ["Instrument", "InstrumentChange", "Instruments", "MarketKind", "Rounding"]

_log = logging.getLogger("hlconn.instruments")

#: Which way `round_px` goes. passive: away from the other side (a buy down, a sell up); aggressive: towards it.
Rounding: TypeAlias = Literal["passive", "aggressive"]

_FIGURES = 5
_STEPS = tuple(Decimal((0, (1,), -decimals)) for decimals in range(9))
# ours, so that nothing depends on what the caller did to decimal's current context
_EXACT = Context(prec=600, traps=[])
_NOISE = Decimal("1e-12")


class MarketKind(Enum):
    """What kind of market an instrument is; its value is the venue's word for it. Grid and asset id go by it."""

    PERP = "perp"
    BUILDER_PERP = "builder perp"
    SPOT = "spot"
    OUTCOME = "outcome"


_PX_DECIMALS = {MarketKind.PERP: 6, MarketKind.BUILDER_PERP: 6, MarketKind.SPOT: 8, MarketKind.OUTCOME: 8}


@dataclass(frozen=True, slots=True)
class Instrument:
    """One market: its names, its number, and its grid.

    coin: its name on the wire; aliases: all other names that `Instruments` knows it by. asset: its number in actions,
    which differs between mainnet and testnet. dex: the perp dex, "" for the first one and for what is not a perp.
    base and quote: tokens, "" where the metadata does not tell. max_leverage: None for what is not a perp or not told.
    only_isolated: no cross margin. delisted: known, but the venue takes no orders for it.

    Prices: an integer is always valid; else at most 5 significant figures and at most `px_decimals` decimals (perps
    6 - sz_decimals, spot 8 - sz_decimals, outcomes 8). Sizes: at most `sz_decimals` decimals. Text, Decimal and int are
    taken exactly; a float within 1e-12 of a valid value (relative) means that value: 0.1 + 0.2 is 0.3.

    ConfigError when sz_decimals is none that the kind can have.
    """

    coin: str
    asset: int
    kind: MarketKind
    sz_decimals: int
    dex: str = ""
    base: str = ""
    quote: str = ""
    aliases: tuple[str, ...] = ()
    max_leverage: int | None = None
    only_isolated: bool = False
    delisted: bool = False
    px_decimals: int = field(init=False)

    def __post_init__(self) -> None:
        if type(self.asset) is not int or not 0 <= self.asset < 1 << 63:
            raise ConfigError(
                f"the asset id of {self.coin!r} must be an int of at least 0, not {reprlib.repr(self.asset)}"
            )
        most = _PX_DECIMALS[self.kind]
        if type(self.sz_decimals) is not int or not 0 <= self.sz_decimals <= most:
            found = reprlib.repr(self.sz_decimals)
            raise ConfigError(f"szDecimals of a {self.kind.value} must be from 0 to {most}, not {found}")
        decimals = most if self.kind is MarketKind.OUTCOME else most - self.sz_decimals
        object.__setattr__(self, "px_decimals", decimals)

    @property
    def lot(self) -> Decimal:
        """The smallest valid size, of which every valid size is a multiple."""
        return _STEPS[self.sz_decimals]

    def tick(self, px: Number) -> Decimal:
        """The step between valid prices around `px`; it grows with the price, up to 1."""
        return self._px_step(_exact(px, "px"))

    def check_px(self, px: Number) -> str:
        """`px` as wire text. InvalidOrder, with the nearest valid prices, when it is not on the grid."""
        whole, fraction = read_number(px, "px")
        if not fraction:
            if whole != "0":
                return whole
        elif len(fraction) <= self.px_decimals:
            figures = len(fraction.lstrip("0")) if whole == "0" else len(whole) + len(fraction)
            if figures <= _FIGURES:
                return f"{whole}.{fraction}"
        exact = _join(whole, fraction)
        step = self._px_step(exact)
        if (meant := _meant(px, exact, step)) is None:
            raise self._off_grid("px", exact, step)
        return _text(meant)

    def check_sz(self, sz: Number, *, zero_ok: bool = False) -> str:
        """`sz` as wire text. InvalidOrder, with the nearest valid sizes, when it is not on the grid.

        zero_ok: let 0 pass, which in a position's take-profit or stop-loss means all of the position.
        """
        whole, fraction = read_number(sz, "sz")
        if not fraction:
            if whole != "0" or zero_ok:
                return whole
        elif len(fraction) <= self.sz_decimals:
            return f"{whole}.{fraction}"
        exact, step = _join(whole, fraction), _STEPS[self.sz_decimals]
        if (meant := _meant(sz, exact, step)) is None:
            raise self._off_grid("sz", exact, step)
        return _text(meant)

    def round_px(self, px: Number, side: Side, mode: Rounding) -> Decimal:
        """The valid price next to `px`; `px` itself when it is valid.

        "passive" rounds a buy down and a sell up: never a worse price than `px`. "aggressive" goes the other way: as
        far as `px` at least. InvalidOrder when nothing but zero is left.
        """
        if type(side) is not Side:
            raise TypeError(f"side must be Side.BUY or Side.SELL, not {side!r}")
        if mode not in ("passive", "aggressive"):
            raise ValueError(f"mode must be 'passive' or 'aggressive', not {mode!r}")
        exact = _exact(px, "px")
        step = self._px_step(exact)
        rounded = _meant(px, exact, step)
        if rounded is None:
            down = (side is Side.BUY) is (mode == "passive")
            rounded = exact.quantize(step, ROUND_FLOOR if down else ROUND_CEILING, _EXACT)
            if not rounded:
                raise self._off_grid("px", exact, step)
        return rounded if rounded is exact else Decimal(_text(rounded))

    def round_sz(self, sz: Number) -> Decimal:
        """The largest valid size that is not above `sz` by more than float noise. InvalidOrder when that is zero."""
        exact, step = _exact(sz, "sz"), _STEPS[self.sz_decimals]
        rounded = _meant(sz, exact, step)
        if rounded is None:
            rounded = exact.quantize(step, ROUND_FLOOR, _EXACT)
            if not rounded:
                raise self._off_grid("sz", exact, step)
        return rounded if rounded is exact else Decimal(_text(rounded))

    def _px_step(self, exact: Decimal) -> Decimal:
        # 5 figures from the first digit on; from 10000 on that is an integer, and those are always valid
        decimals = _FIGURES - 1 - exact.adjusted() if exact else self.px_decimals
        return _STEPS[min(max(decimals, 0), self.px_decimals)]

    def _off_grid(self, name: str, exact: Decimal, step: Decimal) -> InvalidOrder:
        below = exact.quantize(step, ROUND_FLOOR, _EXACT)
        above = exact.quantize(step, ROUND_CEILING, _EXACT) or step
        nearest = tuple(_text(value) for value in (below, above) if value)
        if name == "sz":
            rule = f"at most {self.sz_decimals} digits after the point"
        else:
            rule = f"at most {_FIGURES} significant figures and {self.px_decimals} after the point, or an integer"
        return InvalidOrder(
            f"{name} {_text(exact)} is not valid for {self.coin}: above zero, {rule}. "
            f"Use {' or '.join(nearest)}, or round_{name}()",
            nearest,
        )


def _join(whole: str, fraction: str) -> Decimal:
    return Decimal(f"{whole}.{fraction}" if fraction else whole)


def _exact(value: Number, name: str) -> Decimal:
    return _join(*read_number(value, name))


def _meant(value: Number, exact: Decimal, step: Decimal) -> Decimal | None:
    """The grid value that `value` stands for: itself, or for a float what it misses by noise only. None: neither."""
    near = exact.quantize(step, ROUND_HALF_EVEN, _EXACT)
    if not near:
        return None
    if near == exact:
        return exact
    if isinstance(value, float):
        gap = _EXACT.subtract(near, exact).copy_abs()
        if gap <= _EXACT.multiply(exact, _NOISE):
            return near
    return None


def _text(value: Decimal) -> str:
    """As on the wire: no exponent, no idle zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True, slots=True)
class InstrumentChange:
    """What a refresh found. before, after: None where there was or is none.

    kind: "added" (listed since), "delisted" (the venue takes no orders for it, or does not list it at all any more),
    "relisted", "changed" (anything else, as max_leverage or an alias), "remapped" (its asset id is not what it was: the
    name is unknown from now on, until a new session).
    """

    kind: Literal["added", "delisted", "relisted", "changed", "remapped"]
    coin: str
    before: Instrument | None
    after: Instrument | None


def _kind_of_change(
    old: Instrument | None, new: Instrument | None
) -> Literal["added", "delisted", "relisted", "changed", "remapped"] | None:
    if new is None:  # told when it was found, not at each refresh after that
        return None if old is None else "remapped"
    if old is None:
        return "added"
    if new.delisted != old.delisted:
        return "delisted" if new.delisted else "relisted"
    return None if new == old else "changed"


class Instruments(Mapping[str, Instrument]):
    """Every instrument of a venue, by any of its names. Iterating gives wire names. Only `refresh` changes it.

    problems: what was odd in the metadata, a sentence each; what orders depend on disables that one instrument.
    Names that two instruments claim are nobody's, except that a wire name goes before an alias.

    A missing name raises UnknownCoin, which is a KeyError and an InvalidOrder.
    """

    __slots__ = ("_assets", "_coins", "_first_assets", "_names", "_on_change", "_reasons", "_source", "problems")

    problems: tuple[str, ...]

    def __init__(
        self,
        instruments: Iterable[Instrument],
        problems: Iterable[str] = (),
        disabled: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """disabled: why a name is missing, for the message of UnknownCoin."""
        self._source: _Source | None = None
        self._on_change: list[Callable[[InstrumentChange], object]] = []
        self._take(list(instruments), problems, disabled)
        self._first_assets = {coin: one.asset for coin, one in self._coins.items()}

    def _take(self, found: list[Instrument], problems: Iterable[str], disabled: Mapping[str, str]) -> None:
        said = list(problems)
        self._reasons = dict(disabled)

        def drop(name: str, reason: str) -> None:
            said.append(f"{name}: {reason}")
            self._reasons[name] = reason

        coins, assets, aliases = (defaultdict[Any, list[Instrument]](list) for _ in range(3))
        for one in found:
            coins[one.coin].append(one)
            assets[one.asset].append(one)
        self._coins: dict[str, Instrument] = {}
        for one in found:
            if len(coins[one.coin]) > 1:
                drop(one.coin, f"the name belongs to assets {', '.join(str(other.asset) for other in coins[one.coin])}")
            elif len(assets[one.asset]) > 1:
                drop(one.coin, f"asset {one.asset} has several: {', '.join(other.coin for other in assets[one.asset])}")
            else:
                self._coins[one.coin] = one
                for alias in one.aliases:
                    aliases[alias].append(one)
        for alias, owners in aliases.items():
            if alias in coins:
                owners.append(coins[alias][0])
            if len(owners) > 1:
                drop(alias, f"an ambiguous alias of {', '.join(owner.coin for owner in owners)}: use one of these")
        for coin, one in self._coins.items():
            kept = tuple(alias for alias in one.aliases if len(aliases[alias]) == 1)
            if kept != one.aliases:
                self._coins[coin] = replace(one, aliases=kept)
        self._assets = {one.asset: one for one in self._coins.values()}
        self._names = {alias: one for one in self._coins.values() for alias in one.aliases} | self._coins
        self.problems = tuple(said)

    @classmethod
    def from_meta(
        cls,
        meta: Any,
        spot_meta: Any = None,
        perp_dexs: Any = None,
        dex_metas: Mapping[str, Any] = MappingProxyType({}),
        outcome_meta: Any = None,
        *,
        outcome_sz_decimals: int = 5,
    ) -> Instruments:
        """From parsed JSON bodies. Nothing in them makes this raise: see `problems`.

        meta, dex_metas: of the first perp dex, and of builder dexs by name; a `[meta, contexts]` pair will do as well.
        perp_dexs: needed for the asset ids of builder dexs. None: there is none of that.
        outcome_sz_decimals: the venue publishes none; clients say 0, 2 or 5. With the default it is the venue that
        refuses, not we. ConfigError when it is not from 0 to 8.
        """
        if not 0 <= outcome_sz_decimals <= 8:
            raise ConfigError(f"outcome_sz_decimals must be from 0 to 8, not {outcome_sz_decimals}")
        reader = _Reader()
        tokens = reader.tokens(spot_meta)
        found = [
            *reader.perps(meta, tokens, "meta", "", 0),
            *reader.builder_perps(perp_dexs, dex_metas, tokens),
            *reader.spots(spot_meta, tokens),
            *reader.outcomes(outcome_meta, tokens, outcome_sz_decimals),
        ]
        return cls(found, reader.problems, reader.disabled)

    @classmethod
    async def fetch(cls, query: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Instruments:
        """From the venue, by `query(request)`, which gives parsed bodies. `refresh` asks again.

        Only the first perp dex must be there: a node serves less than the public venue. Raises what `query` raises.
        """
        source = _Source(query)
        found = await source.read()
        found._source = source
        for problem in found.problems:
            _log.info("odd metadata: %s", problem)
        return found

    def on_change(self, callback: Callable[[InstrumentChange], object]) -> None:
        """Call `callback(change)` for each change that a `refresh` finds, once all of them are made."""
        self._on_change.append(callback)

    async def refresh(self) -> tuple[InstrumentChange, ...]:
        """Ask the venue again, and change what changed; what did, in the order of wire names.

        An `Instrument` is never changed: one that you hold stays what it was when you took it, its asset id included.
        One that the venue does not list any more stays, as delisted. A name keeps the asset id it had first, and an id
        its name: metadata that says otherwise makes that name unknown, with the change "remapped", for an order of
        yours must not reach another market. A part of the metadata that the venue does not answer stays as it was.

        ConfigError when these were not made by `fetch`; else raises what its `query` raises for the first perp dex, or
        what a callback raised, after all were called.
        """
        if self._source is None:
            raise ConfigError("these instruments were made from bodies of yours: say connect(..., instruments=True)")
        fresh = await self._source.read()
        before, changes = dict(self._coins), []
        owners = {asset: coin for coin, asset in self._first_assets.items()}
        kept, reasons = [], dict(fresh._reasons)
        for coin, one in fresh._coins.items():
            if (first := self._first_assets.get(coin, one.asset)) != one.asset:
                reasons[coin] = f"the venue says asset {one.asset} now, and said {first} before: start a new session"
            elif owners.get(one.asset, coin) != coin:
                reasons[coin] = f"its asset id {one.asset} was that of {owners[one.asset]!r}: start a new session"
            else:
                kept.append(one)
        remapped = fresh._coins.keys() - {one.coin for one in kept}
        problems = [f"{coin}: {reasons[coin]}" for coin in sorted(remapped)]
        kept += [replace(before[coin], delisted=True) for coin in before if coin not in fresh._coins]
        known_problems = set(self.problems)
        self._take(kept, [*fresh.problems, *problems], reasons)
        for coin, one in self._coins.items():
            self._first_assets.setdefault(coin, one.asset)
        for coin in sorted(before.keys() | self._coins.keys()):
            old, new = before.get(coin), self._coins.get(coin)
            if kind := _kind_of_change(old, new):
                changes.append(InstrumentChange(kind, coin, old, new))
        for problem in self.problems:
            if problem not in known_problems:
                _log.warning("odd metadata: %s", problem)
        self._tell(changes)
        return tuple(changes)

    def _tell(self, changes: list[InstrumentChange]) -> None:
        failure = None
        for change in changes:
            for callback in self._on_change:
                try:
                    callback(change)
                except Exception as exc:
                    failure = failure or exc
        if failure is not None:
            raise failure

    def by_asset(self, asset: int) -> Instrument:
        """The instrument of an asset id, as in actions. UnknownCoin when there is none."""
        try:
            return self._assets[asset]
        except KeyError:
            raise UnknownCoin(f"no instrument has asset id {asset!r}") from None

    def __getitem__(self, name: str) -> Instrument:
        try:
            return self._names[name]
        except KeyError:
            raise UnknownCoin(self._missing(name)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._coins)

    def __len__(self) -> int:
        return len(self._coins)

    def __repr__(self) -> str:
        return f"<Instruments: {len(self)}, problems: {len(self.problems)}>"

    def _missing(self, name: object) -> str:
        if not isinstance(name, str):
            return f"a coin is a str, not {name!r}"
        if name in self._reasons:
            return f"{name!r} cannot be traded: {self._reasons[name]}"
        by_fold: dict[str, list[str]] = defaultdict(list)
        for known in self._names:
            by_fold[known.casefold()].append(known)
        folds = get_close_matches(name.casefold(), by_fold, n=3, cutoff=0.7)
        close = [known for fold in folds for known in by_fold[fold]][:3]
        advice = f": did you mean {' or '.join(map(repr, close))}?" if close else ". Names are case-sensitive"
        return f"unknown coin {name!r}{advice}"


class _Source:
    """The bodies that instruments are made of, the newest of each kind that the venue gave."""

    def __init__(self, query: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> None:
        self._query = query
        self._bodies: dict[str, Any] = {}

    async def read(self) -> Instruments:
        from asyncio import gather  # whoever makes instruments from bodies does without it

        optional = ("spotMeta", "perpDexs", "allPerpMetas", "outcomeMeta")
        meta, *others = await gather(self._query({"type": "meta"}), *map(self._optional, optional))
        for kind, body in zip(optional, others, strict=True):
            if body is not None:
                self._bodies[kind] = body
        bodies = self._bodies
        dexs, dex_metas = bodies.get("perpDexs"), bodies.get("allPerpMetas")
        by_dex = {}
        if isinstance(dexs, list) and isinstance(dex_metas, list):
            pairs = zip(dexs[1:], dex_metas[1:], strict=False)  # the first of each is the first perp dex
            by_dex = {dex["name"]: dex_meta for dex, dex_meta in pairs if isinstance(dex, dict) and "name" in dex}
        return Instruments.from_meta(meta, bodies.get("spotMeta"), dexs, by_dex, bodies.get("outcomeMeta"))

    async def _optional(self, kind: str) -> Any:
        try:
            return await self._query({"type": kind})
        except QueryFailed as exc:
            known = "what it said before stays" if kind in self._bodies else "so none of its instruments"
            _log.info("no %s, %s: %s", kind, known, exc)
            return None


class _Reader:
    """Bodies of info requests to instruments. An odd entry raises ConfigError inside and becomes a problem."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.disabled: dict[str, str] = {}

    def report(self, where: str, odd: object, entry: object = None) -> None:
        name = entry.get("name") if isinstance(entry, dict) else entry
        named = f" ({reprlib.repr(name)})" if isinstance(name, str) else ""
        self.problems.append(f"{where}{named}: {odd}")
        if isinstance(name, str):
            self.disabled[name] = f"{where}: {odd}"

    def rows(self, body: Any, key: str, where: str) -> list[Any]:
        """The list under `key`; [] for a body that is not there, and reported when it has another shape."""
        if body is None:
            return []
        if isinstance(body, list) and body:  # metaAndAssetCtxs: [meta, contexts]
            body = body[0]
        rows = body.get(key) if isinstance(body, dict) else None
        if isinstance(rows, list):
            return rows
        self.report(where, f"no list {key!r}")
        return []

    def tokens(self, spot_meta: Any) -> dict[int, tuple[str, Any]]:
        """Name and szDecimals by `index`, which is not the position in the list."""
        tokens: dict[int, tuple[str, Any]] = {}
        twice: set[int] = set()
        for position, entry in enumerate(self.rows(spot_meta, "tokens", "spotMeta")):
            try:
                number = _index(entry, "index", 1 << 32)
                if number in tokens:
                    twice.add(number)
                    raise ConfigError(f"index {number} twice: no pair of that token can be traded")
                tokens[number] = _name(entry), entry.get("szDecimals")
            except ConfigError as odd:
                self.problems.append(f"spotMeta.tokens[{position}]: {odd}")
        return {number: token for number, token in tokens.items() if number not in twice}

    def perps(
        self, meta: Any, tokens: dict[int, tuple[str, Any]], where: str, dex: str, first_asset: int
    ) -> Iterator[Instrument]:
        rows = self.rows(meta, "universe", where)
        body = meta[0] if isinstance(meta, list) and meta else meta
        collateral = body.get("collateralToken", 0) if isinstance(body, dict) else 0
        # USDC is token 0 everywhere; older bodies do not say what the collateral is
        quote = "USDC" if collateral == 0 else tokens.get(collateral, ("",))[0] if type(collateral) is int else ""
        twice = _names_twice(rows)
        for position, entry in enumerate(rows):
            spot = f"{where}.universe[{position}]"
            try:
                coin = _unique_name(entry, twice)
                prefix = f"{dex}:" if dex else ""
                base = coin.removeprefix(prefix)
                if not coin.startswith(prefix) or not base or set(base) & set(":/@#+"):
                    raise ConfigError(f"not a name of {f'dex {dex!r}' if dex else 'the first dex'}")
                if position >= 10_000:
                    raise ConfigError("its asset id would be one of another market")
                leverage = entry.get("maxLeverage")
                instrument = Instrument(
                    coin,
                    first_asset + position,
                    MarketKind.BUILDER_PERP if dex else MarketKind.PERP,
                    entry.get("szDecimals"),
                    dex=dex,
                    base=base,
                    quote=quote,
                    max_leverage=leverage if type(leverage) is int else None,
                    only_isolated=bool(entry.get("onlyIsolated")) or entry.get("marginMode") in _ISOLATED,
                    delisted=bool(entry.get("isDelisted")),
                )
            except ConfigError as odd:
                self.report(spot, odd, entry)
                continue
            if instrument.max_leverage is None:
                self.problems.append(f"{spot} ({coin!r}): maxLeverage is not an int; orders do not need it")
            yield instrument

    def builder_perps(
        self, perp_dexs: Any, dex_metas: Mapping[str, Any], tokens: dict[int, tuple[str, Any]]
    ) -> Iterator[Instrument]:
        rows = self.rows({"perpDexs": perp_dexs} if perp_dexs is not None else None, "perpDexs", "perpDexs")
        numbers: dict[str, list[int]] = defaultdict(list)
        for position, entry in enumerate(rows):
            try:
                if position == 0:
                    if entry is not None:
                        raise ConfigError("must be null, for the first dex")
                    continue
                name = _name(entry)
                if set(name) & set(":/@#+"):
                    raise ConfigError("not a name of a dex")
                numbers[name].append(position)
            except ConfigError as odd:
                self.problems.append(f"perpDexs[{position}]: {odd}")
        for dex, meta in dex_metas.items():
            places = numbers.get(dex, [])
            if len(places) == 1 and places[0] < 9_990:
                yield from self.perps(meta, tokens, f"meta({dex!r})", dex, 100_000 + 10_000 * places[0])
            else:
                self.problems.append(f"meta({dex!r}): perpDexs has it {len(places)} times: its asset ids are not known")

    def spots(self, spot_meta: Any, tokens: dict[int, tuple[str, Any]]) -> Iterator[Instrument]:
        rows = self.rows(spot_meta, "universe", "spotMeta")
        twice = _names_twice(rows)
        for position, entry in enumerate(rows):
            try:
                coin, number = _unique_name(entry, twice), _index(entry, "index", 90_000)
                if ":" in coin or not ("/" in coin or coin == f"@{number}"):
                    raise ConfigError(f"not a name of pair {number}")
                pair = entry.get("tokens")
                if not isinstance(pair, list) or len(pair) != 2 or not all(type(token) is int for token in pair):
                    raise ConfigError(f"tokens must be two token indices, not {reprlib.repr(pair)}")
                if missing := [token for token in pair if token not in tokens]:
                    raise ConfigError(f"no usable token {missing[0]}")
                (base, sz_decimals), (quote, _) = tokens[pair[0]], tokens[pair[1]]
                names = dict.fromkeys((f"@{number}", f"{base}/{quote}"))
                names.pop(coin, None)
                yield Instrument(
                    coin, 10_000 + number, MarketKind.SPOT, sz_decimals, base=base, quote=quote, aliases=tuple(names)
                )
            except ConfigError as odd:
                self.report(f"spotMeta.universe[{position}]", odd, entry)

    def outcomes(self, outcome_meta: Any, tokens: dict[int, tuple[str, Any]], sz_decimals: int) -> Iterator[Instrument]:
        for position, entry in enumerate(self.rows(outcome_meta, "outcomes", "outcomeMeta")):
            where = f"outcomeMeta.outcomes[{position}]"
            try:
                outcome = _index(entry, "outcome", 1 << 32)
                sides = entry.get("sideSpecs")
                if not isinstance(sides, list) or not 0 < len(sides) <= 10:
                    raise ConfigError(f"sideSpecs must be a list of sides, not {reprlib.repr(sides)}")
            except ConfigError as odd:
                self.problems.append(f"{where}: {odd}")
                continue
            quote = entry.get("quoteToken")
            if type(quote) is int:
                quote = tokens.get(quote, ("",))[0]
            for side, spec in enumerate(sides):
                number = 10 * outcome + side
                try:
                    yield Instrument(
                        f"#{number}",
                        100_000_000 + number,
                        MarketKind.OUTCOME,
                        sz_decimals,
                        base=_name(spec),
                        quote=quote if isinstance(quote, str) else "",
                        aliases=(f"+{number}",),
                    )
                except ConfigError as odd:
                    self.report(f"{where}.sideSpecs[{side}]", odd, f"#{number}")


_ISOLATED = ("strictIsolated", "noCross")


def _name(entry: Any) -> str:
    if not isinstance(entry, dict):
        raise ConfigError(f"must be an object, not {reprlib.repr(entry)}")
    name = entry.get("name")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ConfigError(f"name must be a printable str, not {reprlib.repr(name)}")
    return name


def _names_twice(rows: list[Any]) -> set[str]:
    names = (entry.get("name") for entry in rows if isinstance(entry, dict))
    return {name for name, times in Counter(name for name in names if isinstance(name, str)).items() if times > 1}


def _unique_name(entry: Any, twice: set[str]) -> str:
    if (name := _name(entry)) in twice:
        raise ConfigError("the name stands there twice: which one is meant is not known")
    return name


def _index(entry: Any, key: str, end: int) -> int:
    if not isinstance(entry, dict):
        raise ConfigError(f"must be an object, not {reprlib.repr(entry)}")
    value = entry.get(key)
    if type(value) is not int or not 0 <= value < end:
        raise ConfigError(f"{key} must be an int from 0 to {end - 1}, not {reprlib.repr(value)}")
    return value
