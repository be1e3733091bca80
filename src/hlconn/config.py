"""Where to connect and how patiently. Nothing here is read from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import ConfigError

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["Endpoints", "Network", "SessionConfig"]


class Network(Enum):
    """Which chain one speaks to. It decides the URLs and the signing domain together."""

    MAINNET = "mainnet"
    TESTNET = "testnet"
    LOCAL = "local"


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
    """How a link behaves. Times in seconds; the defaults suit the public venue.

    The venue closes a connection to which it has sent nothing for 60 s, and half-open connections are
    common: hence a JSON ping every `ping_interval_s` and a new socket when no pong came in `pong_timeout_s`.
    """

    connect_timeout_s: float = 10.0
    ping_interval_s: float = 5.0
    pong_timeout_s: float = 5.0
    ack_timeout_s: float = 5.0
    backoff_min_s: float = 0.25
    backoff_max_s: float = 10.0
    sockets_per_minute: int = 30
    slow_period_s: float = 5.0
    fast_period_s: float = 0.5
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
            "sockets_per_minute",
            "slow_period_s",
            "fast_period_s",
            "max_frame_bytes",
        ):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} must be a positive number, not {value!r}")
        if self.backoff_min_s > self.backoff_max_s:
            raise ConfigError(
                f"backoff_min_s ({self.backoff_min_s}) must not exceed backoff_max_s ({self.backoff_max_s})"
            )
