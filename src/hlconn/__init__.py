"""hlconn: see and trade Hyperliquid from Python, with the hot path compiled.

Level 0, synchronous: `Book`, `Feed`. Level 1, asyncio: `connect`. Everything else is reached from these.
"""

from __future__ import annotations

from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from ._core.book import Book
from ._core.feed import Feed
from .config import Endpoints, Network, SessionConfig
from .errors import Closed, ConfigError, DecodeError, HlconnError, LinkDown, NotSent, SubscriptionRefused
from .types import ASK, BID, FEEDS, TRADE_DTYPE, TRADE_USERS_DTYPE, Grade, Side

if TYPE_CHECKING:
    from . import sim
    from .client import Client, connect

__all__ = [
    "ASK",
    "BID",
    "FEEDS",
    "TRADE_DTYPE",
    "TRADE_USERS_DTYPE",
    "Book",
    "Client",
    "Closed",
    "ConfigError",
    "DecodeError",
    "Endpoints",
    "Feed",
    "Grade",
    "HlconnError",
    "LinkDown",
    "Network",
    "NotSent",
    "SessionConfig",
    "Side",
    "SubscriptionRefused",
    "connect",
    "sim",
]

__version__ = _version("hlconn")


def __getattr__(name: str) -> Any:
    # asyncio, picows and orjson are imported when somebody connects, not when somebody reads a file
    if name in ("connect", "Client"):
        from . import client

        return getattr(client, name)
    if name == "sim":
        import importlib

        return importlib.import_module("hlconn.sim")
    raise AttributeError(f"module 'hlconn' has no attribute {name!r}")
