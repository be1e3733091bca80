"""hlconn: see and trade Hyperliquid from Python, with the hot path compiled.

Level 0, synchronous: `Book`, `Feed`, `Instruments`, `Order`, `classify`, and `Signer` with the actions of `action` and
`account`. Level 1, asyncio: `connect`, and `blocking.connect` for scripts. Everything else is reached from these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._core.book import Book
from ._core.classify import classify, classify_status
from ._core.feed import Feed
from ._core.histogram import Histogram
from .config import Endpoints, LimitsConfig, Network, SessionConfig, TradingConfig
from .errors import (
    Closed,
    ConfigError,
    DecodeError,
    ErrorCode,
    HistoryGone,
    HlconnError,
    InvalidOrder,
    LinkDown,
    NotSent,
    OutcomeUnknown,
    QueryFailed,
    Rejected,
    StaleBook,
    StreamOverflow,
    SubscriptionRefused,
    Throttled,
    UnknownCoin,
)
from .instruments import Instrument, InstrumentChange, Instruments, MarketKind
from .subscriptions import Subscription
from .types import (
    ASK,
    ASSET_CTX_DTYPE,
    BID,
    CANDLE_DTYPE,
    FEEDS,
    FILL_DTYPE,
    FUNDING_DTYPE,
    ORDER_UPDATE_DTYPE,
    TRADE_DTYPE,
    TRADE_USERS_DTYPE,
    USER_FUNDING_DTYPE,
    Ack,
    Builder,
    CancelResult,
    Candle,
    Cloid,
    Done,
    Fill,
    Grade,
    Grouping,
    Order,
    OrderStatus,
    Position,
    Priority,
    Side,
    Tif,
    Tpsl,
    Trigger,
)

if TYPE_CHECKING:
    from . import account, blocking, messages, sim
    from ._core import action
    from ._core.rows import Mids, Rows, read_candles, read_fills, read_fundings, read_orders, read_user_fundings
    from ._core.sign import Signed, Signer
    from .client import Client, connect
    from .gaps import Gap
    from .info import Info
    from .limits import Limits, Request
    from .nonces import Nonces
    from .session.link import LinkState
    from .streams import Stream
    from .trading.ledger import Difference
    from .trading.orders import (
        ClockBehind,
        Contradicted,
        Differs,
        FillEvent,
        OrderEvent,
        OrderState,
        OutcomeEvent,
        Reconciled,
        TrackedOrder,
    )
    from .trading.trader import Prepared, Ticket, Trader

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
    "Book",
    "Builder",
    "CancelResult",
    "Candle",
    "Client",
    "ClockBehind",
    "Cloid",
    "Closed",
    "ConfigError",
    "Contradicted",
    "DecodeError",
    "Difference",
    "Differs",
    "Done",
    "Endpoints",
    "ErrorCode",
    "Feed",
    "Fill",
    "FillEvent",
    "Gap",
    "Grade",
    "Grouping",
    "Histogram",
    "HistoryGone",
    "HlconnError",
    "Info",
    "Instrument",
    "InstrumentChange",
    "Instruments",
    "InvalidOrder",
    "Limits",
    "LimitsConfig",
    "LinkDown",
    "LinkState",
    "MarketKind",
    "Mids",
    "Network",
    "Nonces",
    "NotSent",
    "Order",
    "OrderEvent",
    "OrderState",
    "OrderStatus",
    "OutcomeEvent",
    "OutcomeUnknown",
    "Position",
    "Prepared",
    "Priority",
    "QueryFailed",
    "Reconciled",
    "Rejected",
    "Request",
    "Rows",
    "SessionConfig",
    "Side",
    "Signed",
    "Signer",
    "StaleBook",
    "Stream",
    "StreamOverflow",
    "Subscription",
    "SubscriptionRefused",
    "Throttled",
    "Ticket",
    "Tif",
    "Tpsl",
    "TrackedOrder",
    "Trader",
    "TradingConfig",
    "Trigger",
    "UnknownCoin",
    "account",
    "action",
    "blocking",
    "classify",
    "classify_status",
    "connect",
    "messages",
    "read_candles",
    "read_fills",
    "read_fundings",
    "read_orders",
    "read_user_fundings",
    "sim",
]

__version__ = "0.1.0"


# asyncio, picows, orjson and what signs are imported when somebody connects or signs, not when somebody reads a file
_LATER = {
    "Client": ".client",
    "Difference": ".trading.ledger",
    "ClockBehind": ".trading.orders",
    "Contradicted": ".trading.orders",
    "Differs": ".trading.orders",
    "FillEvent": ".trading.orders",
    "Gap": ".gaps",
    "Info": ".info",
    "Limits": ".limits",
    "LinkState": ".session.link",
    "Mids": "._core.rows",
    "Nonces": ".nonces",
    "OrderEvent": ".trading.orders",
    "OrderState": ".trading.orders",
    "OutcomeEvent": ".trading.orders",
    "Prepared": ".trading.trader",
    "Reconciled": ".trading.orders",
    "Request": ".limits",
    "Rows": "._core.rows",
    "Signed": "._core.sign",
    "Signer": "._core.sign",
    "Stream": ".streams",
    "Ticket": ".trading.trader",
    "TrackedOrder": ".trading.orders",
    "Trader": ".trading.trader",
    "account": ".account",
    "action": "._core.action",
    "blocking": ".blocking",
    "connect": ".client",
    "messages": ".messages",
    "read_candles": "._core.rows",
    "read_fills": "._core.rows",
    "read_fundings": "._core.rows",
    "read_orders": "._core.rows",
    "read_user_fundings": "._core.rows",
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
