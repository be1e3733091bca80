"""The error tree. Each class answers first: may my order be live?

`NotSent`: no, nothing left this machine.  `Rejected`: no, the venue refused it.  `OutcomeUnknown`: yes, it may.
`QueryFailed` and the rest have no effect on orders.  `ErrorCode` says why, for programs.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "Closed",
    "ConfigError",
    "DecodeError",
    "ErrorCode",
    "HistoryGone",
    "HlconnError",
    "InvalidOrder",
    "LinkDown",
    "NotSent",
    "OutcomeUnknown",
    "QueryFailed",
    "Rejected",
    "StaleBook",
    "StreamOverflow",
    "SubscriptionRefused",
    "Throttled",
    "UnknownCoin",
]

_EXCERPT_BYTES = 80


class ErrorCode(IntEnum):
    """Why the venue refused, ended or did not answer something. It has no codes of its own: `classify` reads its words.

    The numbers are stable, grouped by hundreds; 400 to 599 are HTTP's own. NONE alone is false. What to do about
    each: docs/errors.md. The words behind each: `_core/classify_table.py`.
    """

    NONE = 0  # no error: an order that is open, triggered or filled
    UNKNOWN = 1  # words that the table does not know; they are kept verbatim beside the code
    UNREADABLE = 2  # an answer that is not JSON, or not of a shape we know

    # 1xx: the order itself; the same one cannot succeed
    TICK = 101  # px is not a multiple of the tick
    LOT = 102  # sz has more decimals than szDecimals
    MIN_NOTIONAL = 103
    MAX_NOTIONAL = 104
    ZERO_SIZE = 105
    INVALID_PRICE = 106  # zero, negative or malformed
    INVALID_TIF = 107
    INVALID_ASSET = 108
    EMPTY_BATCH = 109
    MIXED_ASSET_CLASSES = 110
    CLOID_REQUIRED = 111
    MAX_SUPPLY = 112  # sz above half of the token's supply
    TRIGGER_PRICE = 113  # on the wrong side of the mark price, off tick, or not positive
    TRIGGER_GROUP = 114  # TP/SL orders that do not belong together
    REDUCE_ONLY_SPOT = 115
    BUILDER_FEE_NOT_APPROVED = 116
    INVALID_TIME_INTERVAL = 117

    # 2xx: the market
    POST_ONLY_WOULD_MATCH = 201
    IOC_NO_MATCH = 202
    NO_LIQUIDITY = 203
    TOO_FAR_FROM_ORACLE = 204
    TOO_FAR_FROM_REFERENCE = 205
    OPEN_INTEREST_CAP = 206
    OPEN_INTEREST_CAP_PRICE = 207  # more aggressive than the oracle while open interest is at its cap
    OPEN_INTEREST_TOO_FAST = 208
    MARKET_CLOSED = 209  # "Trading is halted"
    ONLY_POST_ONLY = 210  # for some minutes after a network upgrade
    OUTCOME_SETTLED = 211
    DELISTED = 212

    # 3xx: funds and positions
    INSUFFICIENT_MARGIN = 301
    INSUFFICIENT_BALANCE = 302
    INSUFFICIENT_GAS = 303
    INSUFFICIENT_STAKE = 304
    REDUCE_ONLY = 305  # would increase the position, or no longer reduces it
    POSITION_NOT_FOUND = 306
    MAX_POSITION = 307  # margin tier limit at this leverage
    TOO_MANY_OPEN_ORDERS = 308
    CROSS_MARGIN = 309  # the asset does not allow it, or for reduce-only orders alone
    NOT_ISOLATED = 310
    LEVERAGE_TYPE_FIXED = 311  # while a position is open
    LIQUIDATED = 312

    # 4xx and 5xx: HTTP's numbers, wherever the words come from
    BAD_REQUEST = 400
    FORBIDDEN = 403
    WRONG_PATH = 404
    CONNECTION_TIMEOUT = 408
    CONTENT_TYPE = 415
    MALFORMED = 422  # JSON that the venue could not read as an action, a query or a request
    RATE_LIMITED = 429  # per IP address; an action that was answered so was not executed
    SERVER_ERROR = 500
    UNAVAILABLE = 503  # an outage or an upgrade, told by the servers in front of the venue

    # 6xx: orders that exist, or do not
    ORDER_NOT_FOUND = 601  # "never placed, already canceled, or filled"
    CANNOT_MODIFY = 602  # canceled, filled, or a trigger order without "always place"
    MODIFY_INVALID = 603
    MODIFY_OLD_ORDER_GONE = 604  # the old order is canceled and the new one was refused
    TWAP_NOT_FOUND = 605
    TWAP_DURATION = 606
    TWAP_VALUE = 607
    TOO_MANY_TWAPS = 608
    SCHEDULED_CANCEL_LIMIT = 609  # triggers per UTC day
    VOLUME_TOO_LOW = 610  # this needs more traded volume: scheduled cancel, sub-accounts, referral code

    # 7xx: signer, nonce, account
    UNKNOWN_WALLET = 701  # wrong bytes signed (most often), agent removed or expired, or the other network
    MUST_DEPOSIT = 702  # as UNKNOWN_WALLET, for an address that never held funds
    BAD_SIGNATURE = 703
    WRONG_NETWORK = 704
    UNKNOWN_VAULT = 705
    UNKNOWN_SUB_ACCOUNT = 706
    NONCE_DUPLICATE = 711  # an earlier action with this nonce was executed
    NONCE_TOO_LOW = 712
    NONCE_TOO_HIGH = 713
    NONCE_MISMATCH = 714  # nonce or time inside the action is not that of the envelope
    NONCE_INVALID = 715
    EXPIRED = 716  # past its expiresAfter
    ADDRESS_LIMITED = 717  # the address's request budget is used up: one request in 10 s, cancels have more room
    AGENT = 721  # an agent may not do this, or cannot be added now
    MULTI_SIG_REQUIRED = 722
    MULTI_SIG_SIGNER = 723
    MULTI_SIG_SETUP = 724

    # 8xx: account actions
    ACCOUNT_MODE = 801  # not under this account abstraction
    VAULT_LEADER_ONLY = 802
    REFERRAL_CODE = 803
    NOTHING_TO_CLAIM = 804
    STAKING = 805
    DEPLOY = 806
    UNEXPECTED = 807  # "Unexpected error (code=n)"

    # 9xx: why an order ended, besides the above
    CANCELED = 901  # by the user; also the old leg of a modify, and unknown statuses in ...Canceled or ...Cancel
    REJECTED = 902  # the venue gives no finer reason; also unknown statuses in ...Rejected
    SELF_TRADE = 903
    SIBLING_FILLED = 904
    SCHEDULED_CANCEL = 905  # the dead man's switch
    VAULT_WITHDRAWAL = 906
    INTERNAL_CANCEL = 907

    # 10xx: the WebSocket
    INVALID_SUBSCRIPTION = 1001
    ALREADY_SUBSCRIBED = 1002  # harmless
    ALREADY_UNSUBSCRIBED = 1003  # harmless
    TOO_MANY_USERS = 1004  # of one IP address, over all its connections
    TOO_MANY_PENDING = 1005  # posts without an answer; the post it names was not executed as far as known
    BOOK_NOT_READY = 1006


class HlconnError(Exception):
    """Base of every error that hlconn raises on purpose."""


class ConfigError(HlconnError):
    """Settings that cannot work. Raised at construction, before anything is connected or sent."""


class NotSent(HlconnError):
    """Nothing left this machine: no order of yours can be live because of this call."""


class InvalidOrder(NotSent):
    """A value that the venue would refuse, or that would not mean what it says.

    nearest: the closest valid px or sz, below and above, as wire text; only one where the other would be zero,
    empty where no number would help.
    """

    def __init__(self, message: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(message, nearest)
        self.message, self.nearest = message, nearest

    def __str__(self) -> str:
        return self.message


class UnknownCoin(InvalidOrder, KeyError):
    """No instrument goes by this name: misspelt, ambiguous, or disabled because its metadata is odd.

    Also a KeyError, for it is what a mapping raises. The message says which of the three it is.
    """


class LinkDown(NotSent):
    """There is no live connection, and none could be made in time. `cause` is what the last try said."""

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class Throttled(NotSent):
    """Nothing left this machine: a budget of the venue, as we predict it, has no room. Try again in `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s)
        self.message, self.retry_after_s = message, retry_after_s

    def __str__(self) -> str:
        return f"{self.message}: nothing was sent, try again in {self.retry_after_s:.3f} s"


class Closed(NotSent):
    """The object was closed. Make a new one with `hlconn.connect()`."""


class Rejected(HlconnError):
    """The venue said no: what this request asked for is not live.

    Two codes say more about what was there before: after MODIFY_OLD_ORDER_GONE the order that was to be modified is
    canceled; NONCE_DUPLICATE is of a `noop` only: elsewhere the action may itself be the one that used the nonce first.

    code: the reason, `ErrorCode`. message: the venue's own words, verbatim (of an HTTP error, the body); it begins with
    "proven:" when the venue said nothing and it was proven that the request had no effect and never will.
    cloid: of the order that was refused, when it had one. index: its place in the batch that was sent.
    """

    def __init__(self, code: ErrorCode, message: str, cloid: str | None = None, index: int = 0) -> None:
        super().__init__(code, message, cloid, index)
        self.code, self.message, self.cloid, self.index = code, message, cloid, index

    def __str__(self) -> str:
        which = f" (cloid {self.cloid})" if self.cloid else ""
        return f"the venue refused item {self.index}{which}: {self.message!r} ({self.code.name})"


class OutcomeUnknown(HlconnError):
    """The action was sent and nothing tells what came of it: what it asked for may be live.

    The answer did not come, could not be read, or was a server's error. A status query that does not know the order
    proves nothing yet: the action may still be waiting. It is over when the order is seen, or its nonce is spent, or
    the venue's time is past its `expires_after` and a query made after that does not know it.

    action: the venue's type, as "order". cloids: of the orders in doubt, those that have one. waited_s: since it was
    sent. reason: what came instead of an answer (its first 200 characters), "" when nothing did.
    """

    def __init__(self, action: str, nonce: int, cloids: tuple[str, ...], waited_s: float, reason: str = "") -> None:
        super().__init__(action, nonce, cloids, waited_s, reason)
        self.action, self.nonce, self.cloids, self.waited_s, self.reason = action, nonce, cloids, waited_s, reason

    def __str__(self) -> str:
        what = f"no readable answer ({self.reason})" if self.reason else "no answer"
        return (
            f"{what} to {self.action} (nonce {self.nonce}) after {self.waited_s:.3f} s: it may be live. "
            f"Await ticket.settled(), or ticket.burn() to kill it, before you act on it."
        )


class QueryFailed(HlconnError):
    """A query had no answer. It had no effect on orders: nothing became live or ended because of it.

    status: of HTTP, 200 when the refusal came in a good answer. code: the reason, `ErrorCode`.
    message: the venue's own words, verbatim.
    """

    def __init__(self, status: int, code: ErrorCode, message: str) -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message

    def __str__(self) -> str:
        return f"the query failed: {self.message!r} ({self.code.name}, HTTP {self.status})"


class HistoryGone(QueryFailed):
    """The venue does not keep what was asked for any more. It had no effect on orders: it is a query's.

    coin, what: as "BTC", "1m candles". asked_ms: from when on they were asked for. oldest_ms: the oldest there is, for
    now: it moves on.
    """

    def __init__(self, coin: str, what: str, asked_ms: int, oldest_ms: int) -> None:
        message = (
            f"{what} of {coin} from {asked_ms} on are gone: the oldest there is begins at {oldest_ms}. "
            f"Ask from then on, or for start_ms=None"
        )
        super().__init__(200, ErrorCode.UNKNOWN, message)
        self.args = (coin, what, asked_ms, oldest_ms)
        self.coin, self.what, self.asked_ms, self.oldest_ms = coin, what, asked_ms, oldest_ms

    def __str__(self) -> str:
        return self.message


class StaleBook(HlconnError):
    """The book is not as fresh as was asked for: it is stale, or its newest message is too old. Nothing was sent.

    coin: of the book. reason: why, in words. ages_ms: since the last message of each feed, as {"fast": 310.0}.
    """

    def __init__(self, coin: str, reason: str, ages_ms: dict[str, float]) -> None:
        super().__init__(coin, reason, ages_ms)
        self.coin, self.reason, self.ages_ms = coin, reason, ages_ms

    def __str__(self) -> str:
        ages = ", ".join(f"{feed} {age:,.0f} ms" for feed, age in self.ages_ms.items()) or "no feed was heard"
        return f"the book of {self.coin} is not fresh: {self.reason} (last heard: {ages}). Do not trade on it."


class StreamOverflow(HlconnError):
    """A stream with `overflow="raise"` was full: its reader was too slow. It ended; what it held was still read.

    stream, coin: which. maxsize: items that it holds.
    """

    def __init__(self, stream: str, coin: str, maxsize: int) -> None:
        super().__init__(stream, coin, maxsize)
        self.stream, self.coin, self.maxsize = stream, coin, maxsize

    def __str__(self) -> str:
        return (
            f"the stream of {self.stream} of {self.coin} was not read for {self.maxsize} items: read it faster, give "
            f"it more room, or let it drop the oldest ones."
        )


class SubscriptionRefused(HlconnError):
    """The venue refused a subscription; `message` is its own text.

    subscription: the object that was sent, as a dict. Nothing arrives for it until it is asked for again.
    """

    def __init__(self, subscription: dict[str, object], message: str) -> None:
        super().__init__(subscription, message)
        self.subscription, self.message = subscription, message

    def __str__(self) -> str:
        return f"the venue refused {self.subscription}: {self.message!r}. Check the coin's spelling and the parameters."


class DecodeError(HlconnError):
    """A message that could not be read. Nothing already known was changed by it.

    channel: the message's channel, "" when even that could not be read.
    offset: of the first byte that could not be read, from the start of the message.
    excerpt: at most 80 bytes of the message from `offset` on.
    reason: what was wrong, in words. coin: whose message it was, "" when that could not be read, or there is none.
    """

    def __init__(self, channel: str, offset: int, excerpt: bytes, reason: str, coin: str = "") -> None:
        excerpt = bytes(excerpt[:_EXCERPT_BYTES])
        super().__init__(channel, offset, excerpt, reason, coin)
        self.channel, self.offset, self.excerpt, self.reason, self.coin = channel, offset, excerpt, reason, coin

    def __str__(self) -> str:
        where = f"{self.channel} message" if self.channel else "message"
        found = repr(self.excerpt) if self.excerpt else "the end of the message"
        return f"{where}: {self.reason} at byte {self.offset}, found {found}"
