"""`hl.info`: what the venue's /info answers, typed, and histories of any length page by page.

No transport of its own: an `ask(request)` gives the body of a good answer, within the budget and after its own tries.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ._core.rows import read_candles, read_fills, read_fundings, read_orders, read_user_fundings
from .config import wall_clock_ms
from .errors import ConfigError, DecodeError, ErrorCode, HistoryGone, QueryFailed
from .info_types import (
    ActiveAssetData,
    Auction,
    ClearinghouseState,
    DelegatorUpdate,
    ExchangeStatus,
    ExtraAgent,
    FrontendOrder,
    FundingRate,
    HistoricalOrder,
    L2Book,
    LeadingVault,
    LedgerUpdate,
    MarketTrade,
    Num,
    OpenOrder,
    OrderStatus,
    PerpAssetCtx,
    PerpDex,
    PerpMeta,
    PortfolioPeriod,
    PredictedFunding,
    Referral,
    SpotAssetCtx,
    SpotMeta,
    SpotState,
    SubAccount,
    TokenDetails,
    TwapHistoryEntry,
    TwapSliceFill,
    UserFees,
    UserFill,
    UserFunding,
    UserRateLimit,
    UserRole,
    VaultDetails,
    VaultEquity,
)
from .responses import read_info
from .types import CANDLE_DTYPE, Candle, Cloid

__all__ = ["LEDGER_DTYPE", "Candles", "Info", "Rows"]

_log = logging.getLogger("hlconn.info")

_Row = TypeVar("_Row")
_Value = TypeVar("_Value")
Ask = Callable[[Mapping[str, Any]], Awaitable[bytes]]
Array = NDArray[np.void]

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
#: No answer with fewer rows was cut: the smallest limit that the venue's docs name. (Some types have larger ones.)
_UNCUT = 500
_MINUTE_MS = 60_000
#: The longest that a candle of each interval can be. Source: the venue's docs, "Candle snapshot".
_INTERVALS = {
    "1m": _MINUTE_MS,
    "3m": 3 * _MINUTE_MS,
    "5m": 5 * _MINUTE_MS,
    "15m": 15 * _MINUTE_MS,
    "30m": 30 * _MINUTE_MS,
    "1h": 60 * _MINUTE_MS,
    "2h": 120 * _MINUTE_MS,
    "4h": 240 * _MINUTE_MS,
    "8h": 480 * _MINUTE_MS,
    "12h": 720 * _MINUTE_MS,
    "1d": 1440 * _MINUTE_MS,
    "3d": 4320 * _MINUTE_MS,
    "1w": 10_080 * _MINUTE_MS,
    "1M": 31 * 1440 * _MINUTE_MS,
}
#: Candles of one interval that the venue keeps, and by how many our clock may miss that.
_CANDLES_KEPT, _SLACK = 5_000, 10

#: One movement of money. type: the venue's word. usdc, amount, fee: nan where the type has none. token: of `amount`.
LEDGER_DTYPE = np.dtype(
    [
        ("time", "<i8"),
        ("usdc", "<f8"),
        ("amount", "<f8"),
        ("fee", "<f8"),
        ("type", "S32"),
        ("token", "S64"),
        ("hash", "S66"),
    ],
    align=True,
)


def _address(value: str, name: str = "user") -> str:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise ConfigError(f"{name} is an address, 0x and 40 hex digits")  # not shown: it might be a key
    return value.lower()


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=False)  # numbers are text on this wire, and now and then they are not


def _decode(kind: Any, body: bytes, name: str) -> Any:
    """QueryFailed for an error in the place of an answer; else DecodeError, with the info type and the field."""
    try:
        return _decoder(kind).decode(body)
    except (msgspec.DecodeError, RecursionError) as exc:
        read_info(200, body)
        raise DecodeError(name, 0, body, str(exc)) from None


def _read_array(read: Callable[[bytes], Array], body: bytes) -> Array:
    try:
        return read(body)
    except DecodeError:
        read_info(200, body)
        raise


class Candles:
    """Candles of one coin over a range, oldest first: `async for candle in candles`, or `await candles.to_numpy()`.

    Each once, and none left out that the venue has. `Candle.final` is true of each behind which another is known; the
    last one is False while it may still change. Asked anew each time it is iterated.
    last_is_final: what holds for the last one of the last time, None before the end.

    HistoryGone when the venue had candles of the beginning of the range and keeps them no more, with the oldest there
    is: it keeps 5,000 of each interval. A coin that is younger begins with its first candle.
    """

    _NONE = np.zeros(0, CANDLE_DTYPE)

    def __init__(
        self,
        ask: Ask,
        coin: str,
        interval: str,
        start_ms: int | None,
        end_ms: int | None,
        rows: int,
        clock: Callable[[], int],
    ) -> None:
        if interval not in _INTERVALS:
            known = ", ".join(_INTERVALS)
            raise QueryFailed(0, ErrorCode.INVALID_TIME_INTERVAL, f"interval is one of {known}, not {interval!r}")
        _check_range(start_ms or 0, end_ms)
        if type(rows) is not int or not 2 <= rows <= _CANDLES_KEPT:
            raise ConfigError(f"rows must be a whole number from 2 to {_CANDLES_KEPT}, not {rows!r}")
        if not isinstance(coin, str):
            raise ConfigError(f"a coin is a str, not {coin!r}")
        self.coin, self.interval, self.start_ms, self.end_ms = coin, interval, start_ms, end_ms
        self._ask, self._rows, self._clock = ask, rows, clock
        self._span_ms = _INTERVALS[interval]
        self.last_is_final: bool | None = None

    async def to_numpy(self) -> Array:
        """All of them, as `hlconn.types.CANDLE_DTYPE`. Whether the last one is final: `last_is_final`."""
        pages = [page async for page, _ in self._pages()]
        return np.concatenate(pages) if pages else self._NONE

    async def __aiter__(self) -> AsyncIterator[Candle]:
        async for page, last_is_final in self._pages():
            for candle in _candles(page, last_is_final):
                yield candle

    async def _pages(self) -> AsyncIterator[tuple[Array, bool]]:
        """Rows, and whether the last of them is final. Only the very last page's may not be."""
        self.last_is_final = None
        end_ms = self.end_ms
        cursor, held, began = self.start_ms or 0, None, False
        while True:
            # One more than is wanted: the one behind the last proves that the last is final.
            until_ms = cursor + (self._rows - 1) * self._span_ms
            if end_ms is not None:
                until_ms = min(until_ms, end_ms + self._span_ms)
            page = self._NONE if self.start_ms is None and not began else await self._between(cursor, until_ms)
            is_all, more = self._is_all(cursor, until_ms), False
            done = is_all and len(page) < _UNCUT
            if not len(page) or page["open_ms"][0] > cursor:
                page, more = await self._after_a_hole(cursor, page, began)
                done = False
            if held is not None and len(page) and page["open_ms"][0] > held["open_ms"][0]:
                yield (
                    held,
                    self._told(True),
                )  # the venue let go of it meanwhile: what comes behind it shows that it is final
                held = None
            if not len(page):
                break
            began, held = True, None
            wanted = page if end_ms is None else page[page["open_ms"] <= end_ms]
            if len(wanted) < len(page):
                if len(wanted):
                    yield wanted, self._told(True)
                return
            last = wanted[-1:]
            if more:
                yield wanted, self._told(True)
                cursor = int(last["close_ms"][0]) + 1
                continue
            if len(wanted) > 1:
                yield wanted[:-1], self._told(True)
            held = last
            newest = int(last["open_ms"][0])
            if done or (newest <= cursor and is_all):
                break
            if newest <= cursor:  # nothing else in a whole window: is there anything behind it?
                page, _ = await self._after_a_hole(int(last["close_ms"][0]) + 1, self._NONE, True)
                if not len(page):
                    break
                yield held, self._told(True)
                held, cursor = None, int(page["open_ms"][0])
            else:
                cursor = newest
        if held is not None:
            over_ms = int(held["close_ms"][0]) + 1
            asks = end_ms is not None and over_ms <= self._clock()  # the one behind it may be missing, not a later one
            yield held, self._told(asks and len(await self._between(over_ms, None)) > 0)

    def _told(self, last_is_final: bool) -> bool:
        self.last_is_final = last_is_final
        return last_is_final

    def _is_all(self, cursor: int, until_ms: int) -> bool:
        """Whether a question up to then reaches what is wanted last: the end, or now, by far."""
        if self.end_ms is not None and until_ms > self.end_ms:
            return True
        return until_ms - self._rows * self._span_ms // 2 > self._clock()  # however wrong that is

    async def _after_a_hole(self, from_ms: int, page: Array, began: bool) -> tuple[Array, bool]:
        """The first rows from `from_ms` on, of which `page` begins too late or is empty, and whether there are more
        behind them for sure; no rows when there are none."""
        until_ms = None if self.end_ms is None else self.end_ms + self._span_ms
        if not len(page):
            page = await self._between(from_ms, until_ms)
        if not len(page) and not began and until_ms is not None:  # the venue's oldest one may be behind the range
            page = await self._between(from_ms, None)
        more = False
        while len(page) and page["open_ms"][0] > from_ms:
            earlier = await self._between(from_ms, int(page["open_ms"][0]) - 1)
            if not len(earlier):
                break
            page, more = earlier, True
        if len(page) and (began or self.start_ms is not None):
            oldest_ms = int(page["open_ms"][0])
            many = (self._clock() - oldest_ms) // self._span_ms >= _CANDLES_KEPT - _SLACK
            if many and oldest_ms > from_ms and not await self._has_any_before(from_ms):
                raise HistoryGone(self.coin, f"{self.interval} candles", from_ms, oldest_ms)
        return page, more

    async def _has_any_before(self, time_ms: int) -> bool:
        """Whether the venue knows older ones: then it just has none in between."""
        return time_ms > 0 and len(await self._between(max(0, time_ms - self._rows * self._span_ms), time_ms - 1)) > 0

    async def _between(self, from_ms: int, until_ms: int | None) -> Array:
        """What the venue answers about a range, put in order: a candle that holds `from_ms` is of it."""
        inner = {"coin": self.coin, "interval": self.interval, "startTime": from_ms}
        if until_ms is not None:
            inner["endTime"] = until_ms
        found = _read_array(read_candles, await self._ask({"type": "candleSnapshot", "req": inner}))
        _, places = np.unique(found["open_ms"], return_index=True)
        found = found[places]
        kept = found["close_ms"] >= from_ms
        if until_ms is not None:
            kept &= found["open_ms"] <= until_ms
        kept_rows: Array = found[kept]
        return kept_rows


def _candles(page: Array, last_is_final: bool) -> Iterator[Candle]:
    last = len(page) - 1
    coins, intervals = page["coin"].astype(str).tolist(), page["interval"].astype(str).tolist()
    names = ("open_ms", "close_ms", "open", "high", "low", "close", "volume", "n")
    numbers: Iterator[Any] = zip(*(page[name].tolist() for name in names), strict=True)
    for at, (begin, end, open_, high, low, close, volume, n) in enumerate(numbers):
        final = last_is_final or at < last
        yield Candle(coins[at], intervals[at], begin, end, open_, high, low, close, volume, n, final)


def _check_range(start_ms: int, end_ms: int | None) -> None:
    for name, value in (("start_ms", start_ms), ("end_ms", end_ms)):
        if value is not None and (type(value) is not int or not 0 <= value < 1 << 53):
            raise ConfigError(f"{name} must be a time in ms since 1970, a whole number, not {value!r}")
    if end_ms is not None and end_ms < start_ms:
        raise ConfigError(f"end_ms ({end_ms}) must not be before start_ms ({start_ms})")


class Rows(Generic[_Row]):
    """Rows of one account or coin over a range, oldest first: `async for row in rows`, or `await rows.to_numpy()`.

    Each once. Of one ms all rows come, as far as the venue gives them: `cut_ms` lists each ms of which it did not, for
    an answer holds no more. Asked anew each time it is iterated.
    """

    def __init__(
        self,
        ask: Ask,
        request: dict[str, Any],
        read: Callable[[bytes], list[_Row]],
        time_ms: Callable[[_Row], int],
        to_array: Callable[[bytes], Array],
        start_ms: int | None,
        end_ms: int | None,
    ) -> None:
        """start_ms: None for a type that knows no range: then there is one page."""
        if start_ms is not None:
            _check_range(start_ms, end_ms)
        self._ask, self._request, self._read, self._time_ms, self._to_array = ask, request, read, time_ms, to_array
        self.start_ms, self.end_ms = start_ms, end_ms
        self.cut_ms: list[int] = []

    async def to_numpy(self) -> Array:
        """All of them, as a structured array."""
        pages = [page async for page in self._pages(lambda body: _Page.of_array(self._to_array(body)))]
        return np.concatenate([page.rows for page in pages]) if pages else self._to_array(b"[]")

    async def __aiter__(self) -> AsyncIterator[_Row]:
        def read(body: bytes) -> _Page:
            found = self._read(body)
            return _Page(found, np.fromiter(map(self._time_ms, found), np.int64, len(found)))

        async for page in self._pages(read):
            for row in page.rows:
                yield row

    async def _pages(self, read: Callable[[bytes], _Page]) -> AsyncIterator[_Page]:
        """A page that may have been cut is given without the rows of its last ms: the next page begins with all of
        them. So nothing depends on what makes two rows the same."""
        self.cut_ms = []
        if self.start_ms is None:
            yield read(await self._ask(self._request)).sorted
            return
        cursor, held = self.start_ms, None
        while True:
            page = read(await self._ask(self._request | _range(cursor, self.end_ms)))
            if len(page.times) >= _UNCUT and page.is_newest_first:  # so it was in 2023: then its beginning is missing
                page = await self._backwards(read, cursor, page)
                cut = False
            else:
                page, cut = page.sorted.since(cursor), len(page.times) >= _UNCUT
            if held is not None and not (len(page.times) and page.times[0] == cursor):
                yield held  # here a start is not of the range: they do not come again
            held = None
            if not cut:
                if len(page.times):
                    yield page
                return
            newest = int(page.times[-1]) if len(page.times) else cursor
            if newest > cursor:
                whole, held = page.split(newest)
                if len(whole.times):
                    yield whole
                cursor = newest
            else:
                self._cut(cursor)
                yield page
                cursor += 1
                if self.end_ms is not None and cursor > self.end_ms:
                    return

    async def _backwards(self, read: Callable[[bytes], _Page], start_ms: int, page: _Page) -> _Page:
        """The whole of a range of which `page` is the newest part. Bounded by what the venue keeps."""
        pages: list[_Page] = []
        while len(page.times) >= _UNCUT:
            page = page.sorted
            oldest, newest = int(page.times[0]), int(page.times[-1])
            if newest > oldest:
                pages.append(page.since(oldest + 1))
                end_ms = oldest
            else:
                self._cut(oldest)
                pages.append(page)
                end_ms = oldest - 1
            if end_ms < start_ms:
                break
            page = read(await self._ask(self._request | _range(start_ms, end_ms)))
        else:
            pages.append(page.sorted)
        return _Page.joined(pages[::-1])

    def _cut(self, time_ms: int) -> None:
        self.cut_ms.append(time_ms)
        kind = self._request["type"]
        _log.warning("%s has more rows at %d ms than the venue gives: some of them are missing", kind, time_ms)


class _Page:
    """Rows with their times: a list, or an array."""

    __slots__ = ("rows", "times")

    def __init__(self, rows: Any, times: NDArray[np.int64]) -> None:
        self.rows, self.times = rows, times

    @classmethod
    def of_array(cls, rows: Array) -> _Page:
        return cls(rows, rows["status_timestamp" if "status_timestamp" in (rows.dtype.names or ()) else "time"])

    @classmethod
    def joined(cls, pages: list[_Page]) -> _Page:
        times = np.concatenate([page.times for page in pages])
        if isinstance(pages[0].rows, np.ndarray):
            return cls(np.concatenate([page.rows for page in pages]), times)
        return cls([row for page in pages for row in page.rows], times)

    @property
    def is_newest_first(self) -> bool:
        return bool(len(self.times) > 1 and self.times[0] > self.times[-1])

    @property
    def sorted(self) -> _Page:
        """Oldest first; those of one ms in the order they have, or the other way round when the newest came first."""
        page = self._taken(np.arange(len(self.times))[::-1]) if self.is_newest_first else self
        if bool(np.all(page.times[1:] >= page.times[:-1])):
            return page
        return page._taken(np.argsort(page.times, kind="stable"))

    def since(self, time_ms: int) -> _Page:
        """Of a sorted page."""
        at = int(np.searchsorted(self.times, time_ms))
        return _Page(self.rows[at:], self.times[at:])

    def split(self, time_ms: int) -> tuple[_Page, _Page]:
        at = int(np.searchsorted(self.times, time_ms))
        return _Page(self.rows[:at], self.times[:at]), _Page(self.rows[at:], self.times[at:])

    def _taken(self, places: NDArray[np.intp]) -> _Page:
        chosen = self.rows[places] if isinstance(self.rows, np.ndarray) else [self.rows[at] for at in places]
        return _Page(chosen, self.times[places])


def _range(start_ms: int, end_ms: int | None) -> dict[str, int]:
    return {"startTime": start_ms} if end_ms is None else {"startTime": start_ms, "endTime": end_ms}


def _ledger_array(body: bytes) -> Array:
    found = _decode(list[LedgerUpdate], body, "userNonFundingLedgerUpdates")
    nan = float("nan")
    array = np.zeros(len(found), LEDGER_DTYPE)
    for at, one in enumerate(found):
        delta = one.delta
        money = tuple(nan if value is None else value for value in (delta.usdc, delta.amount, delta.fee))
        words = (delta.type, delta.token or "", one.hash)
        array[at] = (one.time, *money, *(word.encode() for word in words))
    return array


class _Slice(msgspec.Struct, frozen=True, rename="camel"):
    fill: msgspec.Raw
    twap_id: int


def _slices_array(body: bytes) -> Array:
    found = _decode(list[_Slice], body, "userTwapSliceFills")
    array = read_fills(b"[" + b",".join(bytes(one.fill) for one in found) + b"]")
    array["twap_id"] = [one.twap_id for one in found]
    return array


class Info:
    """Questions to the venue, answered as the values of `hlconn.info_types`; lists and pages as said for each.

    user: an account's address (master, sub-account, vault), not an agent's, for which the venue has empty answers; by
    default the account that the session trades for. dex: of a perp dex, "" for the first one. Times in ms.

    The same question asked twice at the same time is sent once, and both get the answer: say `fresh=True` to `query`
    for one that is sent after you asked. A question that fails for a reason that passes is asked again
    (`SessionConfig.query_tries`).

    QueryFailed when the venue has no answer, LinkDown without a connection, Throttled when the budget has no room and
    `wait` is False, DecodeError for an answer that lacks what it must have, ConfigError for arguments that no answer
    can come to. Source: the venue's docs, "Info endpoint".
    """

    def __init__(
        self,
        ask: Callable[..., Awaitable[bytes]],
        account: str | None = None,
        *,
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """ask(request, join=..., wait=...): the body of a good answer. clock: the venue's time in ms.

        wait: whether questions wait until the budget has room for them.
        """
        self._ask_with, self._account, self._clock = ask, account, clock
        self.wait = True

    async def query(self, request: Mapping[str, Any], *, fresh: bool = False) -> Any:
        """The parsed answer to any question, as `{"type": "perpDexStatus", "dex": "xyz"}`. Numbers stay text."""
        return read_info(200, await self._ask_with(request, join=not fresh, wait=self.wait))

    async def _ask(self, request: Mapping[str, Any]) -> bytes:
        return await self._ask_with(request, join=True, wait=self.wait)

    async def _typed(self, kind: Any, name: str, **fields: Any) -> Any:
        request = {"type": name} | {key: value for key, value in fields.items() if value is not None}
        return _decode(kind, await self._ask(request), name)

    def _user(self, user: str | None) -> str:
        if user is None and self._account is not None:
            return self._account
        if user is None:
            raise ConfigError("say whose: user=..., for this session trades for nobody")
        return _address(user)

    # Markets.

    async def all_mids(self, dex: str = "") -> dict[str, float]:
        """Mid prices by coin, of the last trade where the book is empty. Spot and outcomes are with the first dex."""
        found: dict[str, float] = await self._typed(dict[str, Num], "allMids", dex=dex or None)
        return found

    async def meta(self, dex: str = "") -> PerpMeta:
        """The perps of a dex. `hl.instruments` is made of these."""
        found: PerpMeta = await self._typed(PerpMeta, "meta", dex=dex or None)
        return found

    async def all_perp_metas(self) -> list[PerpMeta]:
        """Those of each dex, in the order of `perp_dexs`."""
        found = await self._typed(list[PerpMeta | tuple[PerpMeta, Any]], "allPerpMetas")
        return [one[0] if isinstance(one, tuple) else one for one in found]  # the venue's docs show pairs

    async def meta_and_asset_ctxs(self, dex: str = "") -> tuple[PerpMeta, list[PerpAssetCtx]]:
        """The perps of a dex and the state of their markets, in the same order."""
        kind = tuple[PerpMeta, list[PerpAssetCtx]]
        found: tuple[PerpMeta, list[PerpAssetCtx]] = await self._typed(kind, "metaAndAssetCtxs", dex=dex or None)
        return found

    async def spot_meta(self) -> SpotMeta:
        """Pairs and tokens."""
        found: SpotMeta = await self._typed(SpotMeta, "spotMeta")
        return found

    async def spot_meta_and_asset_ctxs(self) -> tuple[SpotMeta, list[SpotAssetCtx]]:
        """Pairs and the state of markets. Find these by `coin`: there may be more or fewer."""
        kind = tuple[SpotMeta, list[SpotAssetCtx]]
        found: tuple[SpotMeta, list[SpotAssetCtx]] = await self._typed(kind, "spotMetaAndAssetCtxs")
        return found

    async def perp_dexs(self) -> list[PerpDex | None]:
        """Builder dexs by number; None is the first dex."""
        found: list[PerpDex | None] = await self._typed(list[PerpDex | None], "perpDexs")
        return found

    async def l2_book(self, coin: str, *, n_sig_figs: int | None = None, mantissa: int | None = None) -> L2Book | None:
        """The book, at most 20 levels a side; None for a coin that does not exist. n_sig_figs: 2 to 5; mantissa: 2 or
        5, with 5 figures. ConfigError for others: the venue answers them with an error of its server."""
        if n_sig_figs not in (None, 2, 3, 4, 5) or (
            mantissa is not None and (mantissa not in (2, 5) or n_sig_figs != 5)
        ):
            raise ConfigError(
                f"n_sig_figs is 2 to 5 and mantissa 2 or 5, the latter only with n_sig_figs 5, not {n_sig_figs!r} and "
                f"{mantissa!r}"
            )
        found: L2Book | None = await self._typed(
            L2Book | None, "l2Book", coin=coin, nSigFigs=n_sig_figs, mantissa=mantissa
        )
        return found

    async def recent_trades(self, coin: str) -> list[MarketTrade]:
        """The last trades, newest first."""
        found: list[MarketTrade] = await self._typed(list[MarketTrade], "recentTrades", coin=coin)
        return found

    def candles(
        self,
        coin: str,
        interval: str,
        start_ms: int | None = None,
        end_ms: int | None = None,
        *,
        rows: int = _CANDLES_KEPT,
    ) -> Candles:
        """Candles that are not over before start_ms and have begun by end_ms. See `Candles`.

        start_ms: None for the oldest that there is. end_ms: None for now, which goes on while it is read.
        interval: "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d", "3d", "1w" or "1M"; QueryFailed
        (INVALID_TIME_INTERVAL) for others, before anything is sent. rows: how many are asked for at once, at most 5000.
        """
        return Candles(self._ask, coin, interval, start_ms, end_ms, rows, self._clock)

    def funding_history(self, coin: str, start_ms: int, end_ms: int | None = None) -> Rows[FundingRate]:
        """What each hour of a perp cost. `to_numpy`: `hlconn.types.FUNDING_DTYPE`."""
        return self._rows(FundingRate, read_fundings, {"type": "fundingHistory", "coin": coin}, start_ms, end_ms)

    async def predicted_fundings(self) -> list[tuple[str, list[tuple[str, PredictedFunding | None]]]]:
        """By coin and venue. First dex only."""
        kind = list[tuple[str, list[tuple[str, PredictedFunding | None]]]]
        found: list[tuple[str, list[tuple[str, PredictedFunding | None]]]] = await self._typed(
            kind, "predictedFundings"
        )
        return found

    async def perps_at_open_interest_cap(self, dex: str = "") -> list[str]:
        """Coins in which no position can be opened."""
        found: list[str] = await self._typed(list[str], "perpsAtOpenInterestCap", dex=dex or None)
        return found

    async def max_market_order_ntls(self) -> list[tuple[int, float]]:
        """The largest market order, in quote units, by max leverage."""
        found: list[tuple[int, float]] = await self._typed(list[tuple[int, Num]], "maxMarketOrderNtls")
        return found

    async def exchange_status(self) -> ExchangeStatus:
        """The venue's time, and whether something is special."""
        found: ExchangeStatus = await self._typed(ExchangeStatus, "exchangeStatus")
        return found

    async def token_details(self, token_id: str) -> TokenDetails:
        """A spot token, by its `SpotToken.token_id`."""
        found: TokenDetails = await self._typed(TokenDetails, "tokenDetails", tokenId=token_id)
        return found

    async def perp_deploy_auction_status(self) -> Auction:
        """The auction of the right to deploy a perp."""
        found: Auction = await self._typed(Auction, "perpDeployAuctionStatus")
        return found

    # An account's state.

    async def clearinghouse_state(self, user: str | None = None, dex: str = "") -> ClearinghouseState:
        """Perp positions and margin on one dex."""
        found: ClearinghouseState = await self._typed(
            ClearinghouseState, "clearinghouseState", user=self._user(user), dex=dex or None
        )
        return found

    async def spot_clearinghouse_state(self, user: str | None = None) -> SpotState:
        """Balances of tokens."""
        found: SpotState = await self._typed(SpotState, "spotClearinghouseState", user=self._user(user))
        return found

    async def active_asset_data(self, coin: str, user: str | None = None) -> ActiveAssetData:
        """Leverage in a coin, and how much can be traded."""
        found: ActiveAssetData = await self._typed(ActiveAssetData, "activeAssetData", user=self._user(user), coin=coin)
        return found

    async def sub_accounts(self, user: str | None = None) -> list[SubAccount]:
        """The account's sub-accounts."""
        return await self._typed(list[SubAccount] | None, "subAccounts", user=self._user(user)) or []

    async def sub_accounts2(self, user: str | None = None) -> list[SubAccount]:
        """The same with the state on every dex."""
        return await self._typed(list[SubAccount] | None, "subAccounts2", user=self._user(user)) or []

    async def user_role(self, user: str | None = None) -> UserRole:
        """What an address is: this is the one query that also knows agents. It weighs 60."""
        found: UserRole = await self._typed(UserRole, "userRole", user=self._user(user))
        return found

    async def user_rate_limit(self, user: str | None = None) -> UserRateLimit:
        """The address's budget of actions."""
        found: UserRateLimit = await self._typed(UserRateLimit, "userRateLimit", user=self._user(user))
        return found

    async def user_fees(self, user: str | None = None) -> UserFees:
        """The account's rates."""
        found: UserFees = await self._typed(UserFees, "userFees", user=self._user(user))
        return found

    async def extra_agents(self, user: str | None = None) -> list[ExtraAgent]:
        """Named agents: one without a name is not listed."""
        return await self._typed(list[ExtraAgent] | None, "extraAgents", user=self._user(user)) or []

    async def max_builder_fee(self, builder: str, user: str | None = None) -> int:
        """What a builder may take at most, in tenths of a basis point."""
        found: int = await self._typed(
            int, "maxBuilderFee", user=self._user(user), builder=_address(builder, "builder")
        )
        return found

    async def approved_builders(self, user: str | None = None) -> list[str]:
        """Builders that may take a fee."""
        found: list[str] = await self._typed(list[str], "approvedBuilders", user=self._user(user))
        return found

    async def portfolio(self, user: str | None = None) -> dict[str, PortfolioPeriod]:
        """By period: "day", "week", "month", "allTime", and the same of perps alone, as "perpDay"."""
        return dict(await self._typed(list[tuple[str, PortfolioPeriod]], "portfolio", user=self._user(user)))

    async def referral(self, user: str | None = None) -> Referral:
        """Rewards, and who referred the account."""
        found: Referral = await self._typed(Referral, "referral", user=self._user(user))
        return found

    async def vault_details(self, vault: str, user: str | None = None) -> VaultDetails | None:
        """A vault, and what `user` has in it; None when there is none."""
        found: VaultDetails | None = await self._typed(
            VaultDetails | None,
            "vaultDetails",
            vaultAddress=_address(vault, "vault"),
            user=None if user is None else _address(user),
        )
        return found

    async def user_vault_equities(self, user: str | None = None) -> list[VaultEquity]:
        """Shares in vaults."""
        found: list[VaultEquity] = await self._typed(list[VaultEquity], "userVaultEquities", user=self._user(user))
        return found

    async def leading_vaults(self, user: str | None = None) -> list[LeadingVault]:
        """Vaults that the account leads."""
        found: list[LeadingVault] = await self._typed(list[LeadingVault], "leadingVaults", user=self._user(user))
        return found

    async def user_abstraction(self, user: str | None = None) -> str:
        """The account's mode, as "disabled" or "unifiedAccount"."""
        found: str = await self._typed(str, "userAbstraction", user=self._user(user))
        return found

    async def twap_history(self, user: str | None = None) -> list[TwapHistoryEntry]:
        """TWAP orders and what became of them."""
        found: list[TwapHistoryEntry] = await self._typed(list[TwapHistoryEntry], "twapHistory", user=self._user(user))
        return found

    async def delegator_history(self, user: str | None = None) -> list[DelegatorUpdate]:
        """Staking."""
        found: list[DelegatorUpdate] = await self._typed(
            list[DelegatorUpdate], "delegatorHistory", user=self._user(user)
        )
        return found

    # Orders, fills and money.

    async def open_orders(self, user: str | None = None, dex: str = "") -> list[OpenOrder]:
        """Open orders of a dex in short. Spot is with the first one."""
        found: list[OpenOrder] = await self._typed(
            list[OpenOrder], "openOrders", user=self._user(user), dex=dex or None
        )
        return found

    async def frontend_open_orders(self, user: str | None = None, dex: str = "") -> list[FrontendOrder]:
        """The same in full. A TP/SL order of a parent is there twice: in its `children`, and by itself."""
        found: list[FrontendOrder] = await self._typed(
            list[FrontendOrder], "frontendOpenOrders", user=self._user(user), dex=dex or None
        )
        return found

    async def order_status(self, oid: int | str | Cloid, user: str | None = None) -> OrderStatus:
        """One order by oid or cloid. One that is not known may still be on its way: `hl.trader` follows it."""
        key = oid if isinstance(oid, int) else (oid if isinstance(oid, Cloid) else Cloid(oid)).hex
        found: OrderStatus = await self._typed(OrderStatus, "orderStatus", user=self._user(user), oid=key)
        return found

    async def user_fills(self, user: str | None = None, *, aggregate_by_time: bool = False) -> list[UserFill]:
        """The last 2,000 fills, newest first. `fills` has a range of them."""
        found: list[UserFill] = await self._typed(
            list[UserFill], "userFills", user=self._user(user), aggregateByTime=aggregate_by_time or None
        )
        return found

    def fills(
        self, start_ms: int, end_ms: int | None = None, user: str | None = None, *, aggregate_by_time: bool = False
    ) -> Rows[UserFill]:
        """Fills of a range, as far as the venue has them: the last 10,000. `to_numpy`: `hlconn.types.FILL_DTYPE`.

        aggregate_by_time: those of one crossing order in one block as one.
        """
        request: dict[str, Any] = {"type": "userFillsByTime", "user": self._user(user)}
        if aggregate_by_time:
            request["aggregateByTime"] = True
        return self._rows(UserFill, read_fills, request, start_ms, end_ms)

    def twap_slice_fills(
        self, start_ms: int, end_ms: int | None = None, user: str | None = None
    ) -> Rows[TwapSliceFill]:
        """Fills of TWAP orders in a range. `to_numpy`: `hlconn.types.FILL_DTYPE`."""
        request = {"type": "userTwapSliceFillsByTime", "user": self._user(user)}
        return self._rows(TwapSliceFill, _slices_array, request, start_ms, end_ms, time_ms=lambda row: row.fill.time)

    def historical_orders(self, user: str | None = None) -> Rows[HistoricalOrder]:
        """The last 2,000 orders by their last change, oldest first. `to_numpy`: `hlconn.types.ORDER_UPDATE_DTYPE`."""
        request = {"type": "historicalOrders", "user": self._user(user)}
        return self._rows(HistoricalOrder, read_orders, request, None, None, time_ms=lambda row: row.status_timestamp)

    def user_funding(self, start_ms: int, end_ms: int | None = None, user: str | None = None) -> Rows[UserFunding]:
        """Funding paid and received in a range. `to_numpy`: `hlconn.types.USER_FUNDING_DTYPE`."""
        request = {"type": "userFunding", "user": self._user(user)}
        return self._rows(UserFunding, read_user_fundings, request, start_ms, end_ms)

    def ledger(self, start_ms: int, end_ms: int | None = None, user: str | None = None) -> Rows[LedgerUpdate]:
        """All other movements of money in a range. `to_numpy`: `hlconn.info.LEDGER_DTYPE`."""
        request = {"type": "userNonFundingLedgerUpdates", "user": self._user(user)}
        return self._rows(LedgerUpdate, _ledger_array, request, start_ms, end_ms)

    def _rows(
        self,
        kind: type[_Row],
        to_array: Callable[[bytes], Array],
        request: dict[str, Any],
        start_ms: int | None,
        end_ms: int | None,
        *,
        time_ms: Callable[[Any], int] = lambda row: row.time,
    ) -> Rows[_Row]:
        name = request["type"]
        return Rows(
            self._ask,
            request,
            lambda body: _decode(list[kind], body, name),  # type: ignore[valid-type]
            time_ms,
            lambda body: _read_array(to_array, body),
            start_ms,
            end_ms,
        )
