"""hlconn: see and trade Hyperliquid from Python, with the hot path compiled.

Level 0, synchronous: `Book`, `Feed`, `Instruments`, `Order`, `classify`, and `Signer` with the actions of `action` and
`account`. Level 1, asyncio: `connect`. Everything else is reached from these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._core.book import Book
from ._core.classify import classify, classify_status
from ._core.feed import Feed
from .config import Endpoints, Network, SessionConfig
from .errors import (
    Closed,
    ConfigError,
    DecodeError,
    ErrorCode,
    HlconnError,
    InvalidOrder,
    LinkDown,
    NotSent,
    OutcomeUnknown,
    QueryFailed,
    Rejected,
    SubscriptionRefused,
    Throttled,
    UnknownCoin,
)
from .instruments import Instrument, Instruments, MarketKind
from .types import (
    ASK,
    BID,
    FEEDS,
    TRADE_DTYPE,
    TRADE_USERS_DTYPE,
    Builder,
    Cloid,
    Grade,
    Grouping,
    Order,
    Priority,
    Side,
    Tif,
    Tpsl,
    Trigger,
)

if TYPE_CHECKING:
    from . import account, sim
    from ._core import action
    from ._core.sign import Signed, Signer
    from .client import Client, connect
    from .nonces import Nonces
    from .session.link import LinkState

__all__ = [
    "ASK",
    "BID",
    "FEEDS",
    "TRADE_DTYPE",
    "TRADE_USERS_DTYPE",
    "Book",
    "Builder",
    "Client",
    "Cloid",
    "Closed",
    "ConfigError",
    "DecodeError",
    "Endpoints",
    "ErrorCode",
    "Feed",
    "Grade",
    "Grouping",
    "HlconnError",
    "Instrument",
    "Instruments",
    "InvalidOrder",
    "LinkDown",
    "LinkState",
    "MarketKind",
    "Network",
    "Nonces",
    "NotSent",
    "Order",
    "OutcomeUnknown",
    "Priority",
    "QueryFailed",
    "Rejected",
    "SessionConfig",
    "Side",
    "Signed",
    "Signer",
    "SubscriptionRefused",
    "Throttled",
    "Tif",
    "Tpsl",
    "Trigger",
    "UnknownCoin",
    "account",
    "action",
    "classify",
    "classify_status",
    "connect",
    "sim",
]

__version__ = "0.1.0"


# asyncio, picows, orjson and what signs are imported when somebody connects or signs, not when somebody reads a file
_LATER = {
    "connect": ".client",
    "Client": ".client",
    "LinkState": ".session.link",
    "Nonces": ".nonces",
    "Signed": "._core.sign",
    "Signer": "._core.sign",
    "account": ".account",
    "action": "._core.action",
    "sim": ".sim",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'hlconn' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_LATER[name], __name__)
    value = globals()[name] = module if _LATER[name].endswith(f".{name}") else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
