"""What the venue lets a client do: requests by weight, messages, sockets, subscriptions, the actions of an address.

Everybody who connects to a venue in a box counts as one IP address. Time is the venue's, in ms, so `speed` scales
minutes as well. Source: exchange docs, "Rate limits and user limits"; what they leave open is a setting here.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol

from ..errors import ConfigError
from .actions import JsonObject
from .markets import PERP_DECIMALS, decimal_text

__all__ = ["Budgets", "Gate", "Limits"]

_MINUTE_MS = 60_000
_LIGHT = ("l2Book", "allMids", "clearinghouseState", "orderStatus", "spotClearinghouseState", "exchangeStatus")
_PER_20_ROWS = (
    "recentTrades",
    "historicalOrders",
    "userFills",
    "userFillsByTime",
    "fundingHistory",
    "userFunding",
    "userNonFundingLedgerUpdates",
    "twapHistory",
    "userTwapSliceFills",
    "userTwapSliceFillsByTime",
    "delegatorHistory",
    "delegatorRewards",
    "validatorStats",
)
_CANCELS = ("cancel", "cancelByCloid")
#: Of an address whose requests are used up.
_PAUSE_MS = 10_000
_EXTRA_CANCELS = 100_000
TOO_MANY = "429 Too Many Requests"


@dataclass(frozen=True, slots=True)
class Limits:
    """The real venue's numbers; None for no limit of that kind.

    weight_per_minute: of requests over HTTP and of posts. weight_window: what a minute is: any 60 s ("sliding"), one of
    the clock ("minute"), or a bucket that fills evenly. row_rounding: of rows that weigh one more together.
    post_weight: whether a post weighs as a request over HTTP. retry_after: whether a 429 says when to come back.
    messages_per_minute, sockets_per_minute, sockets, subscriptions, users, posts: of WebSocket connections, together;
    users: how many accounts they may have subscriptions of; posts: without an answer yet.
    free_requests: actions of an address before it has traded; each traded USDC is one more.
    """

    weight_per_minute: int | None = 1200
    weight_window: Literal["sliding", "minute", "bucket"] = "sliding"
    row_rounding: Literal["up", "down"] = "up"
    post_weight: bool = True
    retry_after: bool = False
    messages_per_minute: int | None = 2000
    sockets_per_minute: int | None = 30
    sockets: int | None = 10
    subscriptions: int | None = 1000
    users: int | None = 14
    posts: int | None = 100
    free_requests: int | None = 10_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int | None" and value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{field.name} must be a whole number of at least 1, or None, not {value!r}")
        if self.weight_window not in ("sliding", "minute", "bucket") or self.row_rounding not in ("up", "down"):
            raise ConfigError(f"no such window or rounding: {self.weight_window!r}, {self.row_rounding!r}")

    def scaled(self, factor: float) -> Limits:
        """The same with every number so many times as large, and at least 1."""
        if not 0 < factor < math.inf:
            raise ConfigError(f"factor must be a positive number, not {factor!r}")
        counts = {field.name: getattr(self, field.name) for field in fields(self) if field.type == "int | None"}
        return replace(self, **{n: max(1, round(v * factor)) for n, v in counts.items() if v is not None})


class _Meter(Protocol):
    def used(self, now_ms: float) -> float: ...
    def add(self, now_ms: float, weight: int) -> None: ...
    def eases_ms(self, now_ms: float, excess: float) -> float:
        """How long until so much of what is used is free again."""


class _AnyMinute:
    def __init__(self) -> None:
        self._log: deque[tuple[float, int]] = deque()
        self._used = 0

    def used(self, now_ms: float) -> float:
        while self._log and now_ms - self._log[0][0] >= _MINUTE_MS:
            self._used -= self._log.popleft()[1]
        return self._used

    def add(self, now_ms: float, weight: int) -> None:
        self._log.append((now_ms, weight))
        self._used += weight

    def eases_ms(self, now_ms: float, excess: float) -> float:
        for at_ms, weight in self._log:
            excess -= weight
            if excess <= 0:
                return at_ms + _MINUTE_MS - now_ms
        return _MINUTE_MS


class _MinuteOfTheClock:
    def __init__(self) -> None:
        self._minute, self._used = 0, 0

    def used(self, now_ms: float) -> float:
        if (minute := int(now_ms // _MINUTE_MS)) != self._minute:
            self._minute, self._used = minute, 0
        return self._used

    def add(self, now_ms: float, weight: int) -> None:
        self.used(now_ms)
        self._used += weight

    def eases_ms(self, now_ms: float, excess: float) -> float:
        return _MINUTE_MS - now_ms % _MINUTE_MS


class _Bucket:
    def __init__(self, per_minute: int) -> None:
        self._per_ms, self._level, self._at_ms = per_minute / _MINUTE_MS, 0.0, 0.0

    def used(self, now_ms: float) -> float:
        self._level = max(0.0, self._level - max(0.0, now_ms - self._at_ms) * self._per_ms)
        self._at_ms = max(self._at_ms, now_ms)
        return self._level

    def add(self, now_ms: float, weight: int) -> None:
        self._level = self.used(now_ms) + weight

    def eases_ms(self, now_ms: float, excess: float) -> float:
        return excess / self._per_ms


class Gate:
    """What one IP address has used. refusals: by the name of the limit. weight: charged so far, in all."""

    def __init__(self, limits: Limits | None, now_ms: Callable[[], float]) -> None:
        off = dict.fromkeys((f.name for f in fields(Limits) if f.type == "int | None"), None)
        self.limits = limits or Limits(**off)  # type: ignore[arg-type]
        self._now_ms = now_ms
        self._messages: _Meter = _AnyMinute()
        self._sockets: _Meter = _AnyMinute()
        self._meter: _Meter = _AnyMinute()
        if self.limits.weight_window == "minute":
            self._meter = _MinuteOfTheClock()
        elif self.limits.weight_window == "bucket":
            self._meter = _Bucket(self.limits.weight_per_minute or 1)
        self._posts = 0
        self.refusals: Counter[str] = Counter()
        self.weight = 0

    def _over(self, name: str, used: float, limit: int | None) -> bool:
        if limit is None or used <= limit + 1e-6:
            return False
        self.refusals[name] += 1
        return True

    def _counts(self, name: str, meter: _Meter, limit: int | None) -> bool:
        if limit is None:
            return True
        now_ms = self._now_ms()
        if self._over(name, meter.used(now_ms) + 1, limit):
            return False
        meter.add(now_ms, 1)
        return True

    # Requests.

    def admits(self, kind: str, payload: object, *, is_post: bool = False) -> bool:
        """Whether a request to "info" or "exchange" may be looked at; what is refused weighs nothing."""
        limit = self.limits.weight_per_minute
        if limit is None or (is_post and not self.limits.post_weight):
            return True
        now_ms, weight = self._now_ms(), _weight(kind, payload)
        if self._over("weight", self._meter.used(now_ms) + weight, limit):
            return False
        self._charge(now_ms, weight)
        return True

    def answered(self, payload: object, body: object, *, is_post: bool = False) -> None:
        """An info request was answered: its rows weigh too. They are counted even where they are too many."""
        if self.limits.weight_per_minute is None or (is_post and not self.limits.post_weight):
            return
        kind = payload.get("type") if isinstance(payload, dict) else None
        per = 60 if kind == "candleSnapshot" else 20 if kind in _PER_20_ROWS else 0
        if per and isinstance(body, list):
            full, more = divmod(len(body), per)
            self._charge(self._now_ms(), full + (more > 0 and self.limits.row_rounding == "up"))

    def retry_after_s(self) -> int | None:
        """What a 429 of now tells: whole seconds until the usual request fits; None when it tells nothing."""
        limit, now_ms = self.limits.weight_per_minute, self._now_ms()
        if limit is None or not self.limits.retry_after:
            return None
        excess = self._meter.used(now_ms) + _weight("info", None) - limit
        return max(1, math.ceil(self._meter.eases_ms(now_ms, excess) / 1000))

    def _charge(self, now_ms: float, weight: int) -> None:
        self.weight += weight
        self._meter.add(now_ms, weight)

    # WebSocket connections.

    def admits_socket(self, is_open: int) -> bool:
        """Whether one more may be opened; is_open: how many are."""
        if self._over("sockets", is_open + 1, self.limits.sockets):
            return False
        return self._counts("sockets_per_minute", self._sockets, self.limits.sockets_per_minute)

    def admits_message(self) -> bool:
        return self._counts("messages_per_minute", self._messages, self.limits.messages_per_minute)

    def refuses_subscription(self, subscriptions: int, users: int, *, is_new_user: bool) -> str | None:
        """The text that refuses one more, None if none does; so many there are, over all connections.

        The real one takes 14 users and says 15. What it says to too many subscriptions nobody has seen.
        """
        if is_new_user and self._over("users", users + 1, self.limits.users):
            return f"Cannot track more than {(self.limits.users or 0) + 1} total users."
        if self._over("subscriptions", subscriptions + 1, self.limits.subscriptions):
            return f"Cannot subscribe to more than {self.limits.subscriptions} channels."
        return None

    def begin_post(self) -> bool:
        """Whether one more post may wait for its answer. If so, `end_post` must follow."""
        if self._over("posts", self._posts + 1, self.limits.posts):
            return False
        self._posts += 1
        return True

    def end_post(self) -> None:
        self._posts -= 1


def _weight(kind: str, payload: object) -> int:
    asked: JsonObject = payload if isinstance(payload, dict) else {}
    if kind == "info":
        what = asked.get("type")
        return 2 if what in _LIGHT else 60 if what == "userRole" else 20
    action = asked.get("action")
    sent: JsonObject = action if isinstance(action, dict) else {}
    sizes: list[int] = [len(sent[key]) for key in ("orders", "cancels", "modifies") if isinstance(sent.get(key), list)]
    return 1 + max(sizes, default=0) // 40


class Budgets:
    """The requests of each address: so many for nothing, and one more for each USDC it traded."""

    def __init__(self, free_requests: int | None) -> None:
        self._free = free_requests
        self._last_ms: dict[str, float] = {}

    def cap(self, volume: int) -> int:
        """volume: traded, in units of perp money."""
        traded_usd: int = volume // 10**PERP_DECIMALS
        return (10_000 if self._free is None else self._free) + traded_usd

    def refusal(self, user: str, kind: str, used: int, n: int, volume: int, now_ms: float) -> str | None:
        """The text that refuses an action of n requests, None when it may pass: within its budget, or one in 10 s."""
        if self._free is None:
            return None
        cap = self.cap(volume)
        allowed = min(cap + _EXTRA_CANCELS, 2 * cap) if kind in _CANCELS else cap
        if used + n > allowed and now_ms - self._last_ms.get(user, -math.inf) < _PAUSE_MS:
            usd = decimal_text(volume, PERP_DECIMALS).removesuffix(".0")
            return (
                f"Too many cumulative requests sent ({used + n} > {allowed}) for cumulative volume traded ${usd}. "
                "Place taker orders to free up 1 request per USDC traded."
            )
        self._last_ms[user] = now_ms
        return None
