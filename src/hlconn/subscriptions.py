"""What one can subscribe to, as typed objects: what is sent, and how its messages are known again.

    hl.subscribe(Subscription.candle("BTC", "1m"), callback)

A subscription is a mapping, the one that the venue takes: it goes wherever a dict of that kind does. Left out on
purpose: `webData2`, whose data the venue does not send any more, and `explorerBlock` and `explorerTxs`, which another
host serves in messages without an envelope. Source: the venue's docs, "WebSocket > Subscriptions", and what public
clients have seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from .errors import ConfigError

__all__ = ["INTERVALS", "Route", "Subscription", "is_spot", "route_of_message"]

#: Lengths of a candle, as the venue writes them.
INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d", "3d", "1w", "1M")

#: (channel, what tells its messages apart ...): equal for a subscription and for its messages.
Route: TypeAlias = tuple[str | bool, ...]

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_MAX_NAME = 64  # bytes; the core reads no longer ones


def is_spot(coin: str) -> bool:
    """Whether a coin is of a spot pair (`@107`, `PURR/USDC`) or an outcome (`#12`), by its name."""
    return coin[:1] in ("@", "#") or "/" in coin


def _name(value: object, what: str, hint: str) -> str:
    if not isinstance(value, str) or not value or len(value.encode("utf-8", "replace")) > _MAX_NAME:
        raise ConfigError(f"{what} must be a str of 1 to {_MAX_NAME} bytes like {hint}, not {value!r}")
    return value


def _coin(value: object) -> str:
    return _name(value, "coin", "'BTC', '@107' or 'xyz:NVDA'")


def _dex(value: object) -> dict[str, str]:
    if value == "":
        return {}  # the venue takes its absence for the first dex, and names it "" in the messages
    name = _name(value, "dex", "'xyz', or '' for the first one")
    if ":" in name:
        raise ConfigError(f"dex is the name before the colon of a coin, {name.partition(':')[0]!r} and not {name!r}")
    return {"dex": name}


def _user(value: object) -> str:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise ConfigError(f"user must be an account's address, 0x and 40 hex digits, not {value!r}")
    return value.lower()  # as the venue writes it in its messages


def _flag(value: object, what: str) -> bool:
    if type(value) is not bool:
        raise ConfigError(f"{what} must be True or False, not {value!r}")
    return value


def _aggregation(n_sig_figs: object, mantissa: object) -> dict[str, int]:
    if n_sig_figs is None:
        if mantissa is not None:
            raise ConfigError("mantissa needs n_sig_figs=5: without it the book is not aggregated")
        return {}
    if type(n_sig_figs) is not int or not 2 <= n_sig_figs <= 5:
        raise ConfigError(f"n_sig_figs must be 2, 3, 4, 5, or None for full precision, not {n_sig_figs!r}")
    if mantissa is None:
        return {"nSigFigs": n_sig_figs}
    if mantissa not in (2, 5) or type(mantissa) is not int:
        raise ConfigError(f"mantissa must be 2, 5, or None (which is what 1 would mean), not {mantissa!r}")
    if n_sig_figs != 5:
        raise ConfigError(f"mantissa needs n_sig_figs=5, not {n_sig_figs}")
    return {"nSigFigs": n_sig_figs, "mantissa": mantissa}


def _get(*names: str) -> Callable[[Mapping[str, Any]], Route]:
    """The values of these keys; "" for one that is absent or null, as the venue has it for the first dex."""
    return lambda data: tuple(data.get(name) or "" for name in names)


def _book(subscription: Mapping[str, Any]) -> Route:
    return subscription["coin"], subscription.get("fast") is True, subscription.get("nSigFigs") is not None


def _book_message(data: Mapping[str, Any]) -> Route:
    return data["coin"], data.get("fast") is True, "spread" in data


def _l2_message(data: Mapping[str, Any]) -> Route:
    # what is compressed does not tell its coin before it is inflated
    inner = data.get("s") or data.get("u") or {}
    return (inner.get("coin") or inner.get("c") or "",)


_NONE = _get()
_COIN, _USER, _DEX, _USER_DEX = _get("coin"), _get("user"), _get("dex"), _get("user", "dex")

#: By channel: what identifies a subscription of it, and one of its messages, both beside the channel's name.
_ROUTES: dict[str, tuple[Callable[[Mapping[str, Any]], Route], Callable[[Any], Route]]] = {
    "l2Book": (_book, _book_message),
    "l2": (_COIN, _l2_message),
    "bbo": (_COIN, _COIN),
    "trades": (_COIN, lambda data: _COIN(data[0]) if data else ("",)),
    "candle": (_get("coin", "interval"), lambda data: _get("s", "i")(data[0] if isinstance(data, list) else data)),
    "activeAssetCtx": (_COIN, _COIN),
    "activeSpotAssetCtx": (_COIN, _COIN),
    "activeAssetData": (_get("user", "coin"), _get("user", "coin")),
    "allMids": (_DEX, _DEX),
    "assetCtxs": (_DEX, _DEX),
    "userFills": (_USER, _USER),
    "userFundings": (_USER, _USER),
    "userNonFundingLedgerUpdates": (_USER, _USER),
    "userHistoricalOrders": (_USER, _USER),
    "userTwapSliceFills": (_USER, _USER),
    "userTwapHistory": (_USER, _USER),
    "spotState": (_USER, _USER),
    "allDexsClearinghouseState": (_USER, _USER),
    "openOrders": (_USER_DEX, _USER_DEX),
    "clearinghouseState": (_USER_DEX, _USER_DEX),
    "twapStates": (_USER_DEX, _USER_DEX),
    "webData3": (_USER, lambda data: _USER(data["userState"])),
}


def route_of_message(channel: str, data: Any) -> Route:
    """The route of a message, by its channel and its `data` as JSON values: that of the subscription it belongs to.

    A channel that is not known, or whose messages say nothing more, has the route (channel,). Of `l2`, a compressed
    update has an empty coin. KeyError, TypeError or AttributeError for data of another shape.
    """
    return channel, *_ROUTES.get(channel, (_NONE, _NONE))[1](data)


class Subscription(Mapping[str, Any]):
    """One subscription: a read-only mapping with the venue's keys, hashable, equal to a dict of the same items.

    Made by the methods below, which check their arguments (ConfigError says what to do). `Subscription({...})` takes
    any mapping as it is, for what has no method yet.

    channel: in which its messages come. route: (channel, ...), the same as `route_of_message` gives for its messages.
    Two that differ and have one route cannot be told apart on one connection: l2Book of one coin with several
    aggregations; orderUpdates, userEvents and notification of several users; userFills with and without
    aggregate_by_time.
    """

    __slots__ = ("_wire", "channel", "route")

    channel: str
    route: Route

    def __init__(self, wire: Mapping[str, Any]) -> None:
        if not isinstance(wire.get("type"), str):
            raise ConfigError(
                f"a subscription needs a type, as in {{'type': 'trades', 'coin': 'BTC'}}, not {dict(wire)}"
            )
        kind = wire["type"]
        if kind == "userEvents":
            kind = "user"
        elif kind == "activeAssetCtx" and is_spot(str(wire.get("coin"))):
            kind = "activeSpotAssetCtx"
        object.__setattr__(self, "_wire", dict(wire))
        object.__setattr__(self, "channel", kind)
        object.__setattr__(self, "route", (kind, *_ROUTES.get(kind, (_NONE, _NONE))[0](wire)))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Subscription does not change: make another one instead of setting {name}")

    def __getitem__(self, key: str) -> Any:
        return self._wire[key]  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[str]:
        return iter(self._wire)  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self._wire)  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((self.route, len(self)))

    def __repr__(self) -> str:
        return f"Subscription({dict(self)!r})"

    # --- markets ---

    @classmethod
    def all_mids(cls, dex: str = "") -> Subscription:
        """Mid prices of all coins of one dex, spot and outcomes with the first: the whole map in every message."""
        return cls({"type": "allMids", **_dex(dex)})

    @classmethod
    def l2_book(
        cls, coin: str, *, fast: bool = False, n_sig_figs: int | None = None, mantissa: int | None = None
    ) -> Subscription:
        """Whole books: 20 levels a side about every 5 s, with fast 5 levels about every 0.5 s.

        n_sig_figs: 2 to 5, prices rounded to so many digits, away from the spread. mantissa: 2 or 5 with n_sig_figs=5,
        to multiples of it in the last digit.
        """
        fields = {"fast": True} if _flag(fast, "fast") else {}
        return cls({"type": "l2Book", "coin": _coin(coin), **_aggregation(n_sig_figs, mantissa), **fields})

    @classmethod
    def l2(cls, coin: str, *, n_sig_figs: int | None = None, mantissa: int | None = None) -> Subscription:
        """A snapshot of 20 levels a side, then what changes. Undocumented: it may vanish without notice."""
        return cls({"type": "l2", "coin": _coin(coin), **_aggregation(n_sig_figs, mantissa)})

    @classmethod
    def bbo(cls, coin: str) -> Subscription:
        """The best bid and ask, when they changed in a block."""
        return cls({"type": "bbo", "coin": _coin(coin)})

    @classmethod
    def trades(cls, coin: str) -> Subscription:
        """Trades, some of them again after a subscribe."""
        return cls({"type": "trades", "coin": _coin(coin)})

    @classmethod
    def candle(cls, coin: str, interval: str) -> Subscription:
        """The present candle, at every change. interval: one of `INTERVALS`."""
        if interval not in INTERVALS:
            raise ConfigError(f"interval must be one of {', '.join(INTERVALS)}, not {interval!r}")
        return cls({"type": "candle", "coin": _coin(coin), "interval": interval})

    @classmethod
    def active_asset_ctx(cls, coin: str) -> Subscription:
        """Mark, mid and oracle price, funding, open interest, volume. Of a spot coin in channel activeSpotAssetCtx."""
        return cls({"type": "activeAssetCtx", "coin": _coin(coin)})

    @classmethod
    def asset_ctxs(cls, dex: str = "") -> Subscription:
        """The contexts of all perps of one dex, by position in its metadata."""
        return cls({"type": "assetCtxs", **_dex(dex)})

    @classmethod
    def all_dexs_asset_ctxs(cls) -> Subscription:
        """The contexts of all perps of all dexs, by position."""
        return cls({"type": "allDexsAssetCtxs"})

    @classmethod
    def spot_asset_ctxs(cls) -> Subscription:
        """The contexts of all spot pairs."""
        return cls({"type": "spotAssetCtxs"})

    @classmethod
    def fast_asset_ctxs(cls) -> Subscription:
        """Mark and mid prices of all coins, compressed: first all, then what changed. See `messages.FastCtxs`."""
        return cls({"type": "fastAssetCtxs"})

    @classmethod
    def outcome_meta_updates(cls) -> Subscription:
        """Outcome markets and questions that are made, changed or settled."""
        return cls({"type": "outcomeMetaUpdates"})

    # --- accounts; user: the account's address, not that of its agent ---

    @classmethod
    def active_asset_data(cls, user: str, coin: str) -> Subscription:
        """Leverage and what an account can trade of a perp."""
        if is_spot(_coin(coin)):
            raise ConfigError(f"activeAssetData exists for perps only, not for {coin!r}")
        return cls({"type": "activeAssetData", "user": _user(user), "coin": coin})

    @classmethod
    def notification(cls, user: str) -> Subscription:
        """Sentences for people. The messages do not name the user: one user a connection."""
        return cls({"type": "notification", "user": _user(user)})

    @classmethod
    def order_updates(cls, user: str) -> Subscription:
        """Orders whose status changed. The messages do not name the user: one user a connection."""
        return cls({"type": "orderUpdates", "user": _user(user)})

    @classmethod
    def user_events(cls, user: str) -> Subscription:
        """Fills, funding, liquidations, cancels by the venue, in channel `user`. One user a connection."""
        return cls({"type": "userEvents", "user": _user(user)})

    @classmethod
    def user_fills(cls, user: str, *, aggregate_by_time: bool = False) -> Subscription:
        """Fills, the latest ones first as a snapshot.

        aggregate_by_time: those of one order against several others as one.
        """
        fields = {"aggregateByTime": True} if _flag(aggregate_by_time, "aggregate_by_time") else {}
        return cls({"type": "userFills", "user": _user(user), **fields})

    @classmethod
    def user_fundings(cls, user: str) -> Subscription:
        """Payments of funding, after a snapshot every hour."""
        return cls({"type": "userFundings", "user": _user(user)})

    @classmethod
    def user_non_funding_ledger_updates(cls, user: str) -> Subscription:
        """Deposits, withdrawals, transfers, liquidations and the like, after a snapshot."""
        return cls({"type": "userNonFundingLedgerUpdates", "user": _user(user)})

    @classmethod
    def user_historical_orders(cls, user: str) -> Subscription:
        """Orders and what became of them, after a snapshot."""
        return cls({"type": "userHistoricalOrders", "user": _user(user)})

    @classmethod
    def user_twap_slice_fills(cls, user: str) -> Subscription:
        """Fills of TWAP orders, after a snapshot."""
        return cls({"type": "userTwapSliceFills", "user": _user(user)})

    @classmethod
    def user_twap_history(cls, user: str) -> Subscription:
        """TWAP orders and what became of them, after a snapshot."""
        return cls({"type": "userTwapHistory", "user": _user(user)})

    @classmethod
    def twap_states(cls, user: str, dex: str = "") -> Subscription:
        """The running TWAP orders on one dex, all in every message."""
        return cls({"type": "twapStates", "user": _user(user), **_dex(dex)})

    @classmethod
    def open_orders(cls, user: str, dex: str = "") -> Subscription:
        """The open orders on one dex, all in every message."""
        return cls({"type": "openOrders", "user": _user(user), **_dex(dex)})

    @classmethod
    def clearinghouse_state(cls, user: str, dex: str = "") -> Subscription:
        """Margin and positions on one dex. Not meaningful in a unified account: see `spot_state`."""
        return cls({"type": "clearinghouseState", "user": _user(user), **_dex(dex)})

    @classmethod
    def all_dexs_clearinghouse_state(cls, user: str) -> Subscription:
        """Margin and positions on every dex."""
        return cls({"type": "allDexsClearinghouseState", "user": _user(user)})

    @classmethod
    def spot_state(cls, user: str) -> Subscription:
        """Balances of tokens. Sources disagree on the name of its portfolio margin parameter: it is left out."""
        return cls({"type": "spotState", "user": _user(user)})

    @classmethod
    def web_data3(cls, user: str) -> Subscription:
        """What the venue's own page shows of an account. It says that more of its fields will go."""
        return cls({"type": "webData3", "user": _user(user)})
