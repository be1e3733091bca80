"""Where to connect and how patiently. Nothing here is read from the environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from .errors import ConfigError

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["Endpoints", "LimitsConfig", "Network", "SessionConfig", "TradingConfig"]


class Network(Enum):
    """Which chain one speaks to. It decides the URLs and the signing domain together."""

    MAINNET = "mainnet"
    TESTNET = "testnet"
    LOCAL = "local"


#: WebSocket connections of one IP address at a time (the venue's docs, "Rate limits").
MAX_LINKS = 10

_HTTP_URLS = {
    Network.MAINNET: "https://api.hyperliquid.xyz",
    Network.TESTNET: "https://api.hyperliquid-testnet.xyz",
    Network.LOCAL: "http://localhost:3001",
}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of one venue and the network they belong to.

    A proxy in front of mainnet is still `Network.MAINNET`: the network is said, never guessed from the URL.
    """

    http_url: str
    ws_url: str
    network: Network

    def __post_init__(self) -> None:
        for name, url, schemes in (
            ("http_url", self.http_url, ("http", "https")),
            ("ws_url", self.ws_url, ("ws", "wss")),
        ):
            parts = urlsplit(url)
            if parts.scheme not in schemes or not parts.hostname:
                raise ConfigError(f"{name} must be a full {' or '.join(schemes)} URL, not {url!r}")

    @classmethod
    def of(cls, network: Network | str | Endpoints) -> Endpoints:
        """The endpoints of "mainnet", "testnet" or "local" (a node on port 3001); endpoints pass through.

        Raises ConfigError for any other name. Source of the URLs: the venue's docs, "API".
        """
        if isinstance(network, Endpoints):
            return network
        try:
            network = Network(network)
        except ValueError:
            names = ", ".join(repr(n.value) for n in Network)
            raise ConfigError(f"unknown network {network!r}: say one of {names}, or pass Endpoints") from None
        http_url = _HTTP_URLS[network]
        return cls(http_url, "ws" + http_url.removeprefix("http") + "/ws", network)


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How a session behaves. Times in seconds; the defaults suit the public venue.

    The venue closes a connection to which it has sent nothing for 60 s, and half-open connections are
    common: hence a JSON ping every `ping_interval_s` and a new socket when no pong came in `pong_timeout_s`.

    ack_timeout_s, ack_tries: a message about a subscription that is not answered in time is sent again; after so many
    the socket is held responsible. slow_period_s, fast_period_s: how often the venue pushes l2Book; a stream that is
    silent for three periods, and for `silence_min_s`, is subscribed to again.
    sockets_per_minute, messages_per_minute, max_subscriptions: the venue's limits for one IP address, over all
    connections: give less when something else uses the same address. max_users, max_posts: accounts in subscriptions,
    and posts without an answer, of one address; its docs say 10 users, its refusal 15, and 14 were seen to work. Of
    users the session keeps count, and does not hold back a subscription yet.
    query_timeout_s: one try of a query; query_tries: how often one is tried that a server could not answer, that was
    answered 429, or whose connection broke, with pauses from `query_retry_min_s` to `query_retry_max_s`, and those that
    a 429 asks for, up to `query_patience_s`. No action is ever tried again.
    instruments_every_s: how often `hl.instruments` is compared with the venue's metadata; None: when you say so.
    subscriptions_per_link, max_links: another link is opened once the others have so many, up to so many links; the
    venue allows ten for one IP address. redundancy: on how many links each subscription to market data is kept.
    """

    connect_timeout_s: float = 10.0
    ping_interval_s: float = 5.0
    pong_timeout_s: float = 5.0
    ack_timeout_s: float = 5.0
    backoff_min_s: float = 0.25
    backoff_max_s: float = 10.0
    ack_tries: int = 3
    sockets_per_minute: int = 30
    messages_per_minute: int = 2000
    max_subscriptions: int = 1000
    max_users: int = 14
    max_posts: int = 100
    subscriptions_per_link: int = 100
    max_links: int = 4
    redundancy: int = 1
    slow_period_s: float = 5.0
    fast_period_s: float = 0.5
    silence_min_s: float = 3.0
    query_timeout_s: float = 10.0
    query_tries: int = 6
    query_retry_min_s: float = 0.25
    query_retry_max_s: float = 8.0
    query_patience_s: float = 60.0
    instruments_every_s: float | None = None
    max_frame_bytes: int = 16 * 1024 * 1024
    ssl_context: SSLContext | None = None
    proxy_url: str | None = None

    def __post_init__(self) -> None:
        for name in (
            "connect_timeout_s",
            "ping_interval_s",
            "pong_timeout_s",
            "ack_timeout_s",
            "backoff_min_s",
            "backoff_max_s",
            "slow_period_s",
            "fast_period_s",
            "silence_min_s",
            "query_timeout_s",
            "query_tries",
            "query_retry_min_s",
            "query_retry_max_s",
            "query_patience_s",
            "ack_tries",
            "sockets_per_minute",
            "messages_per_minute",
            "max_subscriptions",
            "max_users",
            "max_posts",
            "subscriptions_per_link",
            "max_links",
            "redundancy",
            "max_frame_bytes",
        ):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} must be a positive number, not {value!r}")
            if not name.endswith("_s") and type(value) is not int:
                raise ConfigError(f"{name} must be a whole number, not {value!r}")
        if self.instruments_every_s is not None and not 0 < self.instruments_every_s < float("inf"):
            raise ConfigError(
                f"instruments_every_s must be a positive number or None, not {self.instruments_every_s!r}"
            )
        if self.query_retry_min_s > self.query_retry_max_s:
            raise ConfigError(
                f"query_retry_min_s ({self.query_retry_min_s}) must not exceed query_retry_max_s "
                f"({self.query_retry_max_s})"
            )
        if self.max_links > MAX_LINKS:
            raise ConfigError(f"max_links ({self.max_links}) must not exceed {MAX_LINKS}, the venue's limit")
        if self.redundancy > self.max_links:
            raise ConfigError(f"redundancy ({self.redundancy}) needs as many links: max_links is {self.max_links}")
        if self.backoff_min_s > self.backoff_max_s:
            raise ConfigError(
                f"backoff_min_s ({self.backoff_min_s}) must not exceed backoff_max_s ({self.backoff_max_s})"
            )


#: What an info request weighs, where that is not `LimitsConfig.info_weight`. Source of all of this: the venue's docs,
#: "Rate limits and user limits".
INFO_WEIGHTS: Mapping[str, int] = MappingProxyType(
    {
        "l2Book": 2,
        "allMids": 2,
        "clearinghouseState": 2,
        "orderStatus": 2,
        "spotClearinghouseState": 2,
        "exchangeStatus": 2,
        "userRole": 60,
    }
)
#: How many rows of an answer weigh one more.
ROWS_PER_WEIGHT: Mapping[str, int] = MappingProxyType(
    {
        "recentTrades": 20,
        "historicalOrders": 20,
        "userFills": 20,
        "userFillsByTime": 20,
        "fundingHistory": 20,
        "userFunding": 20,
        "nonUserFundingUpdates": 20,  # as the docs call the next one
        "userNonFundingLedgerUpdates": 20,
        "twapHistory": 20,
        "userTwapSliceFills": 20,
        "userTwapSliceFillsByTime": 20,
        "delegatorHistory": 20,
        "delegatorRewards": 20,
        "validatorStats": 20,
        "candleSnapshot": 60,
    }
)


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """The venue's budgets of requests: what `Limits` keeps to. Sources disagree about some, so every number is here.

    weight_per_minute: of one IP address, over `/info`, `/exchange` and the explorer; give less when something else uses
    the same address. weight_window: how the venue may count. "sliding" is safe however it does: never more than that in
    any 60 s, so what was spent at once is missing for a minute. "bucket": spent weight comes back evenly, which is
    smoother, and too much for a venue that counts minutes. reserve_weight: of it, for cancels alone.
    info_weights, info_weight: of an info request, by type and otherwise. rows_per_weight: how many rows weigh one more,
    by type. max_candles, most_rows: rows that an answer may have, of candleSnapshot and of others; learned when there
    are more. batch_per_weight: so many entries of an action's batch weigh one more. explorer_weight: of one there.
    post_weight: whether requests over a WebSocket weigh as much as over HTTP; not documented.

    free_requests: what an address may send before it has traded; it has one more for each USDC. cancel_extra,
    cancel_factor: up to so many more, or so many times as many, when it cancels. exhausted_s: from one request to the
    next when that is used up. expired_requests: what an expired action costs.

    refused_s, max_refused_s: after a 429 that names no time nothing is sent for so long, doubling with each one that
    follows; no 429 holds anything back for longer than the latter. lost_after_s: a request that nobody tells the end of
    counts as answered after so long. margin_s: added to the venue's minute, for clocks are not exact.
    """

    weight_per_minute: int = 1200
    weight_window: Literal["sliding", "bucket"] = "sliding"
    reserve_weight: int = 30
    info_weights: Mapping[str, int] = field(default_factory=lambda: INFO_WEIGHTS)
    info_weight: int = 20
    rows_per_weight: Mapping[str, int] = field(default_factory=lambda: ROWS_PER_WEIGHT)
    most_rows: int = 2000
    max_candles: int = 5000
    batch_per_weight: int = 40
    explorer_weight: int = 40
    post_weight: bool = True
    free_requests: int = 10_000
    cancel_extra: int = 100_000
    cancel_factor: int = 2
    exhausted_s: float = 10.0
    expired_requests: int = 5
    refused_s: float = 2.0
    max_refused_s: float = 120.0
    lost_after_s: float = 60.0
    margin_s: float = 0.1

    def __post_init__(self) -> None:
        for name in (
            "weight_per_minute",
            "info_weight",
            "most_rows",
            "max_candles",
            "batch_per_weight",
            "explorer_weight",
            "free_requests",
            "cancel_factor",
            "expired_requests",
        ):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}")
        for name in ("reserve_weight", "cancel_extra"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ConfigError(f"{name} must be a whole number of at least 0, not {value!r}")
        for name in ("exhausted_s", "refused_s", "max_refused_s", "lost_after_s"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} must be a positive number, not {value!r}")
        if not 0 <= self.margin_s < float("inf"):
            raise ConfigError(f"margin_s must be at least 0, not {self.margin_s!r}")
        if self.weight_window not in ("sliding", "bucket"):
            raise ConfigError(f'weight_window is "sliding" or "bucket", not {self.weight_window!r}')
        if self.reserve_weight >= self.weight_per_minute:
            raise ConfigError(
                f"reserve_weight ({self.reserve_weight}) leaves nothing of weight_per_minute ({self.weight_per_minute})"
            )
        for name in ("info_weights", "rows_per_weight"):
            for key, value in getattr(self, name).items():
                if type(value) is not int or value < 1:
                    raise ConfigError(f"{name}[{key!r}] must be a whole number of at least 1, not {value!r}")


def wall_clock_ms() -> int:
    """This machine's time in ms since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class TradingConfig:
    """How a trader behaves. Times in seconds.

    expires_after_s: every action that may carry an expiry expires so long after it was signed, if nothing else is said;
    None: never. It bounds how long an outcome can stay unknown, and it takes this machine's clock for right: one that
    is later behind than this makes the venue refuse everything. The venue charges five requests for a stale action.
    expiry_margin_s: an action counts as expired only so long after its expiry, on the venue's clock.
    answer_timeout_s: without an answer for so long, the outcome is unknown. It can still come.
    batch: orders, cancels or modifies in one action of `place_many` and its kin. The venue weighs 40 as one more.
    retry_min_s, retry_max_s: between two rounds of questions about what is not proven yet.
    reconcile_every_s: open orders and positions are compared with the venue's this often, besides after a reconnect.
    settle_timeout_s: how long `cancel_all` tries. dexs: whose orders and positions are looked at, besides those of
    coins that were traded; "" is the first perp dex, which also has spot.
    nonce_directory: see `Nonces`.
    clock: the venue's time in ms, as this machine knows it: what nonces and expiries are made of. By default its wall
    clock; give another one for a better source of time, or for a venue in a box whose time runs faster.
    """

    expires_after_s: float | None = 15.0
    expiry_margin_s: float = 2.0
    answer_timeout_s: float = 5.0
    batch: int = 40
    retry_min_s: float = 0.25
    retry_max_s: float = 5.0
    reconcile_every_s: float = 60.0
    settle_timeout_s: float = 60.0
    dexs: tuple[str, ...] = ("",)
    nonce_directory: str | None = None
    clock: Callable[[], int] = wall_clock_ms

    def __post_init__(self) -> None:
        for name in (
            "answer_timeout_s",
            "batch",
            "retry_min_s",
            "retry_max_s",
            "reconcile_every_s",
            "settle_timeout_s",
        ):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} must be a positive number, not {value!r}")
        if type(self.batch) is not int:
            raise ConfigError(f"batch must be a whole number, not {self.batch!r}")
        if not (isinstance(self.dexs, tuple) and self.dexs and all(isinstance(dex, str) for dex in self.dexs)):
            raise ConfigError(f'dexs must be a tuple of at least one name, ("",) for the first dex, not {self.dexs!r}')
        if self.expires_after_s is not None and not 0 < self.expires_after_s < float("inf"):
            raise ConfigError(f"expires_after_s must be a positive number or None, not {self.expires_after_s!r}")
        if not 0 <= self.expiry_margin_s < float("inf"):
            raise ConfigError(f"expiry_margin_s must be at least 0, not {self.expiry_margin_s!r}")
        if self.retry_min_s > self.retry_max_s:
            raise ConfigError(f"retry_min_s ({self.retry_min_s}) must not exceed retry_max_s ({self.retry_max_s})")
