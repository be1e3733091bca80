"""The venue's budgets, predicted before something is sent and corrected by what comes back. No I/O; time from outside.

The venue counts what it has answered; we have to count what is under way as well. So a request is counted from the
moment it is taken, and its minute begins when its answer is here: whenever in between the venue charged it, it is in
our sum for all the time that it is in theirs. What rows will weigh is not known before the answer: requests under way
together count at the most that each may weigh, and what each does weigh is known a moment later. One that is under way
alone goes when what it probably weighs fits: a surprise then is a debt that nothing else meets at the venue.

Waiting is a matter of tickets in three lanes: cancels and what is urgent, other actions, queries. A ticket of a lower
lane goes when no higher one waits for the same room; within a lane it is strictly first come, first served, so that
light requests do not starve a heavy one. An address out of requests holds back its own actions only.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from .config import LimitsConfig, SessionConfig
from .errors import Throttled

__all__ = ["AddressBudget", "Limits", "LinkLimits", "Request", "Ticket", "Window"]

_WINDOW_S = 60.0
_LEARNED_S = 600.0  # what a refusal taught is believed for so long: something else may have used our limits
_PAUSE_S = 10.0  # without messages, after the venue said that there were too many
_EPS = 1e-6  # sums of weights and times are not exact
_REMEMBERED = 8  # answers by which the rows of the next one of its type are guessed
_CANCELS = frozenset({"cancel", "cancelByCloid", "twapCancel"})
#: The shortest that an interval of candles can be, for the most that fit into a range.
_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000, "M": 28 * 86_400_000}
_INTERVAL = re.compile(r"(\d{1,3})([mhdwM])", re.ASCII)
# The venue's own words.
_TOO_MANY_REQUESTS = re.compile(r"Too many cumulative requests sent \((\d{1,18}) > (\d{1,18})\)")
_TOO_MANY_USERS = re.compile(r"Cannot track more than \d+ total users")
_TOO_MANY_SUBSCRIPTIONS = re.compile(r"Cannot subscribe to more than \d+ channels")
_TOO_MANY_POSTS = "too many pending post requests"


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What is to be sent, as the budgets see it. It is its own receipt: one object for each time something is sent.

    kind: which host and path. type: the venue's own, as "l2Book" or "order". n: entries of the batch of an action,
    blocks of the explorer's blockList. most_rows: of the answer, where the request itself bounds them. user: whom an
    action acts for (the account, sub-account or vault, not the agent); "" leaves the budgets of addresses alone.
    over: which way it goes.
    """

    kind: Literal["info", "action", "explorer"]
    type: str
    n: int = 1
    most_rows: int | None = None
    user: str = ""
    over: Literal["http", "ws"] = "http"

    @classmethod
    def info(cls, body: Mapping[str, Any], *, over: Literal["http", "ws"] = "http") -> Request:
        """Of the body of a POST to `/info`."""
        kind = body.get("type")
        return cls("info", kind if isinstance(kind, str) else "", most_rows=_candles_in(body), over=over)

    @classmethod
    def action(cls, type: str, n: int = 1, *, user: str = "", over: Literal["http", "ws"] = "http") -> Request:
        """Of an action: its type, and how many orders, cancels or modifies it has; for multi-sig, of the one inside."""
        return cls("action", type, max(1, n), user=user.lower(), over=over)

    @classmethod
    def explorer(cls, type: str, n: int = 0) -> Request:
        """Of the body of a POST to `/explorer`; n: blocks of a blockList. Old blocks weigh more than we know."""
        return cls("explorer", type, n)

    @property
    def is_cancel(self) -> bool:
        return self.kind == "action" and self.type in _CANCELS


Asked = Request | Mapping[str, Any]
"""What the methods of `Limits` take: a request, or the body of an info request."""


def _candles_in(body: Mapping[str, Any]) -> int | None:
    """The most candles that fit into the range asked for; None when nothing bounds them."""
    req = body.get("req")
    if body.get("type") != "candleSnapshot" or not isinstance(req, Mapping):
        return None
    start, end, interval = req.get("startTime"), req.get("endTime"), _INTERVAL.fullmatch(str(req.get("interval")))
    if type(start) is not int or type(end) is not int or interval is None or not int(interval[1]):
        return None
    return max(0, end - start) // (int(interval[1]) * _UNIT_MS[interval[2]]) + 2  # those cut by both ends


class Window:
    """At most `limit` events in any `window_s` seconds: a budget that holds wherever the other side's minutes begin."""

    def __init__(self, limit: int, window_s: float = _WINDOW_S) -> None:
        self.limit, self.window_s = limit, window_s
        self._times_s: deque[float] = deque()

    def take(self, now_s: float) -> None:
        self._times_s.append(now_s)

    def free_at(self, now_s: float, reserve: int = 0) -> float:
        """When one may happen that leaves room for `reserve` others; `now_s` when it may happen now."""
        times_s = self._times_s
        while times_s and times_s[0] + self.window_s <= now_s:
            times_s.popleft()
        over = len(times_s) - max(1, self.limit - reserve)
        return now_s if over < 0 else times_s[over] + self.window_s


class LinkLimits:
    """What all links of one IP address share. Subscriptions, users, posts: what is in use now, kept by the links.

    Pings are never held back: whatever else is sent leaves them room. Cancels come next. Posts and market data get
    three quarters at most, so that neither keeps the other from ever being sent; the streams of a user are not counted
    among the latter.

    users: how many subscriptions each account has. max_subscriptions, max_users, max_posts: from the settings, and less
    for ten minutes after the venue refused what should have fitted.
    """

    def __init__(self, config: SessionConfig) -> None:
        limit = config.messages_per_minute
        self.sockets = Window(config.sockets_per_minute)
        self.messages = Window(limit)
        self.subscriptions = self.posts = 0
        self.users: Counter[str] = Counter()
        self.max_subscriptions, self.max_users, self.max_posts = self._configured = (
            config.max_subscriptions,
            config.max_users,
            config.max_posts,
        )
        self._learned_until_s: float | None = None
        self._paused_until_s = float("-inf")
        self._shares = {"post": Window(max(1, limit * 3 // 4)), "market": Window(max(1, limit * 3 // 4))}
        self._for_pings = min(config.max_links * (1 + int(_WINDOW_S / config.ping_interval_s)), limit // 4)
        self._for_cancels = limit // 16

    def free_at(self, now_s: float, kind: str) -> float:
        """When a message of this kind may be sent: "cancel", "user" (a subscription), "post" or "market"."""
        self._recover(now_s)
        if kind == "cancel":
            return self.messages.free_at(now_s, self._for_pings)
        free_s = max(self._paused_until_s, self.messages.free_at(now_s, self._for_pings + self._for_cancels))
        share = self._shares.get(kind)
        return free_s if share is None else max(free_s, share.free_at(now_s))

    def take(self, now_s: float, kind: str) -> None:
        self.messages.take(now_s)
        if (share := self._shares.get(kind)) is not None:
            share.take(now_s)

    def has_room_for(self, now_s: float, user: str) -> bool:
        """Whether a subscription of this account ("" for market data) is within the limits of both kinds."""
        self._recover(now_s)
        if self.subscriptions >= self.max_subscriptions:
            return False
        return not user or self.users[user.lower()] > 0 or len(+self.users) < self.max_users

    def on_error(self, now_s: float, text: str) -> bool:
        """Learn from a text of the error channel. Whether it was about a limit; what it refused is in use here yet."""
        if _TOO_MANY_USERS.match(text):
            self.max_users = max(1, min(self.max_users, len(+self.users) - 1))
        elif _TOO_MANY_SUBSCRIPTIONS.match(text):
            self.max_subscriptions = max(1, min(self.max_subscriptions, self.subscriptions - 1))
        elif text.startswith(_TOO_MANY_POSTS):
            self.max_posts = max(1, min(self.max_posts, self.posts - 1))
        elif text.startswith("429"):
            self._paused_until_s = now_s + _PAUSE_S
            return True
        else:
            return False
        self._learned_until_s = now_s + _LEARNED_S
        return True

    def _recover(self, now_s: float) -> None:
        if self._learned_until_s is not None and now_s >= self._learned_until_s:
            self._learned_until_s = None
            self.max_subscriptions, self.max_users, self.max_posts = self._configured


class Ticket:
    """A place in the queue of `Limits.join`. granted: it may be sent now, and is counted."""

    __slots__ = ("_on_grant", "granted", "lane", "request")

    def __init__(self, request: Asked, lane: int, on_grant: Callable[[], object]) -> None:
        self.request, self.lane, self._on_grant = request, lane, on_grant
        self.granted = False


@dataclass(slots=True)
class AddressBudget:
    """What an address may still send, as far as we know. used, cap: requests, as the venue counts them.

    surplus: bought with reserveRequestWeight and not used up. is_known: whether the venue ever said so; before, nothing
    is held back, for what the address used earlier cannot be guessed. last_s: its last action, sent or answered.
    """

    used: int
    cap: int
    surplus: int = 0
    is_known: bool = False
    last_s: float = float("-inf")


class _Held(NamedTuple):
    """A request under way. request: the receipt; seen: what it says. weight: its probable weight; most: its highest."""

    request: Asked
    seen: Request
    weight: int
    most: int
    taken_s: float


class _Meter(Protocol):
    def charge(self, now_s: float, weight: int) -> None: ...
    def used(self, now_s: float) -> float: ...
    def falls_to(self, now_s: float, level: float, pending: int) -> float:
        """When what is charged, and what is pending as if it were charged now, is at most this; now_s if it is."""


class _Sliding:
    """What was charged in any window of so many seconds."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._window_s = window_s
        self._charges: deque[tuple[float, int]] = deque()  # when each ends
        self._sum = 0

    def charge(self, now_s: float, weight: int) -> None:
        self._charges.append((now_s + self._window_s, weight))
        self._sum += weight

    def used(self, now_s: float) -> float:
        charges = self._charges
        while charges and charges[0][0] <= now_s:
            self._sum -= charges.popleft()[1]
        return self._sum

    def falls_to(self, now_s: float, level: float, pending: int) -> float:
        excess = self.used(now_s) + pending - level
        if excess <= 0:
            return now_s
        for ends_s, weight in self._charges:
            excess -= weight
            if excess <= 0:
                return ends_s
        return now_s + self._window_s


class _Bucket:
    """A debt that is paid back evenly."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._per_s = limit / window_s
        self._debt, self._at_s = 0.0, float("-inf")

    def used(self, now_s: float) -> float:
        if now_s > self._at_s:
            self._debt = max(0.0, self._debt - (now_s - self._at_s) * self._per_s)
            self._at_s = now_s
        return self._debt

    def charge(self, now_s: float, weight: int) -> None:
        self._debt = self.used(now_s) + weight

    def falls_to(self, now_s: float, level: float, pending: int) -> float:
        excess = self.used(now_s) + pending - level
        return now_s if excess <= _EPS else now_s + excess / self._per_s


class _Timer(Protocol):
    def cancel(self) -> object: ...


class Limits:
    """The budgets of one IP address and of the addresses that act from it: what fits, and who goes next.

    A request is a `Request`, or of an info request also its body. `take` or `wait` before it is sent; then exactly
    one of `answered`, `refused` and `unsent` with the same object: the object itself is the receipt. The same one taken
    again means that nobody told how the time before ended. Not thread-safe.

    clock: seconds that never go back. later(seconds, callback): calls back after so much of that clock, and returns
    what can be cancelled; by default the running asyncio loop's, for a clock that runs as fast as this machine's.
    """

    def __init__(
        self,
        config: LimitsConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], object]], _Timer] | None = None,
    ) -> None:
        self.config = config = config or LimitsConfig()
        self._clock, self._later = clock, later
        self._window_s = _WINDOW_S + config.margin_s
        kind = _Sliding if config.weight_window == "sliding" else _Bucket
        self._meter: _Meter = kind(config.weight_per_minute, self._window_s)
        self._under_way: list[_Held] = []  # oldest first
        self._pending = self._probable = 0  # the most that they may weigh together, and what they probably do
        self._rows: dict[str, deque[int]] = {}  # of the last answers, by type
        self._most: dict[str, int] = {}  # more than config.most_rows, where that was seen
        self._addresses: dict[str, AddressBudget] = {}
        self._lanes: tuple[deque[Ticket], ...] = (deque(), deque(), deque())
        self._held_until_s = self._refused_at_s = float("-inf")
        self._refusals = 0  # in a row
        self._limit, self._learned_until_s = config.weight_per_minute, float("-inf")
        self._granted: deque[Ticket] = deque()  # that have not been told yet
        self._telling = False
        self._due_s: float | None = None
        self._timer: _Timer | None = None
        self._timer_s: float | None = None

    # What is asked before something is sent.

    def cost(self, request: Asked) -> int:
        """The weight that it probably has: with the rows of the last answers of its type, or the most before any."""
        return self._weights(_seen(request))[0]

    def wait_s(self, request: Asked, *, urgent: bool = False) -> float:
        """How long until it may be sent, behind all who wait now; 0 for at once. An estimate: rows are not known."""
        seen, now_s = _seen(request), self._clock()
        self._pump(now_s)
        return self._free_at(now_s, seen, _lane(seen, urgent)) - now_s

    def take(self, request: Asked, *, urgent: bool = False) -> None:
        """Count it: it is sent now. Raises Throttled when a budget has no room, or others wait for it.

        urgent: as a cancel is by itself: it goes before all others, and may use what is kept for cancels.
        """
        seen, now_s = _seen(request), self._clock()
        self._ends(now_s, request)
        self._pump(now_s)
        lane = _lane(seen, urgent)
        free_s = self._free_at(now_s, seen, lane)
        if free_s > now_s:
            budget = self._addresses.get(seen.user)
            if budget is not None and self._address_free_at(now_s, seen) > now_s:
                raise Throttled(
                    f"{seen.user} has sent {budget.used} of its {budget.cap} requests: one in "
                    f"{self.config.exhausted_s:g} s is left until it has traded more",
                    free_s - now_s,
                )
            if lane and self._held_until_s > now_s:
                raise Throttled("the venue answered HTTP 429 a moment ago", free_s - now_s)
            raise Throttled(
                f"{seen.type} weighs {self._weights(seen)[0]}, for which {self._limit} a minute of this IP address "
                f"have no room",
                free_s - now_s,
            )
        self._hold(now_s, request, seen)

    async def wait(self, request: Asked, *, urgent: bool = False) -> None:
        """As `take`, but wait for the room: first come, first served. What is cancelled meanwhile has cost nothing."""
        import asyncio  # whoever reads files with hlconn needs none

        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def granted() -> None:
            if not future.done():
                future.set_result(None)

        ticket = self.join(request, urgent=urgent, on_grant=granted)
        try:
            if not future.done():
                self._arm()
                await future
        except BaseException:  # a cancellation is one: the place, or the room, goes to somebody else
            self.leave(ticket)
            raise

    def join(self, request: Asked, *, urgent: bool = False, on_grant: Callable[[], object]) -> Ticket:
        """Queue up without asyncio. on_grant is called, maybe at once, when it is counted and to be sent.

        Then `on_timer` must be called at `due_s`.
        """
        ticket = Ticket(request, _lane(_seen(request), urgent), on_grant)
        now_s = self._clock()
        self._ends(now_s, request)
        self._lanes[ticket.lane].append(ticket)
        self._pump(now_s)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give up a place in the queue, or the room that was granted: nothing was sent."""
        if ticket.granted:
            self.unsent(ticket.request)
        elif ticket in self._lanes[ticket.lane]:
            self._lanes[ticket.lane].remove(ticket)
            self._pump(self._clock())

    @property
    def due_s(self) -> float | None:
        """When `on_timer` must be called, on the clock; None while nobody waits."""
        return self._due_s

    def on_timer(self) -> None:
        """Grant what there is room for by now."""
        self._pump(self._clock())

    @property
    def waiting(self) -> int:
        return sum(map(len, self._lanes))

    # What is told afterwards.

    def answered(self, request: Asked, rows: int | None = None) -> None:
        """It is over. rows: of its answer, of types that weigh by them; None when nobody knows, as after a timeout."""
        now_s, seen = self._clock(), _seen(request)
        if rows is not None and rows >= 0 and seen.kind == "info" and seen.type in self.config.rows_per_weight:
            self._rows.setdefault(seen.type, deque(maxlen=_REMEMBERED)).append(rows)
            self._most[seen.type] = max(rows, self._most.get(seen.type, 0))
        held = self._release(request)
        if held is not None:
            if held.taken_s > self._refused_at_s:
                self._refusals = 0
            base, per = self._base(seen), self.config.rows_per_weight.get(seen.type) if seen.kind == "info" else None
            weight = held.most if rows is None or per is None else base and base + -(-rows // per)
            self._charge(now_s, held, weight)
        self._pump(now_s)

    def refused(self, retry_after_s: float | None = None, request: Asked | None = None) -> None:
        """HTTP 429: nothing but cancels is sent for so long. request: what was refused; it had no effect.

        Something else uses our budget, or the venue counts otherwise than we do: for ten minutes a minute has what was
        used now, at least half of what it should have.
        """
        now_s, config = self._clock(), self.config
        used = self._meter.used(now_s) + self._probable
        held = None if request is None else self._release(request)
        if held is not None:
            self._charge(now_s, held, held.weight)  # as far as we know it may have counted
            if (budget := self._addresses.get(held.seen.user)) is not None:
                budget.used -= held.seen.n
        # Of several that were under way together only the first says something new.
        if (now_s >= self._held_until_s) if held is None else (held.taken_s >= self._refused_at_s):
            self._refusals += 1
            self._refused_at_s = now_s
            # One such answer proves little: never less than half of what is configured.
            self._limit = max(config.weight_per_minute // 2, config.reserve_weight + 1, min(self._limit, int(used)))
            self._learned_until_s = now_s + _LEARNED_S
        named = retry_after_s is not None and 0 <= retry_after_s < float("inf")
        pause_s = retry_after_s if named else config.refused_s * 2.0 ** max(0, min(self._refusals - 1, 30))
        assert pause_s is not None
        self._held_until_s = max(self._held_until_s, now_s + min(pause_s, config.max_refused_s))
        self._pump(now_s)

    def unsent(self, request: Asked) -> None:
        """It was counted and nothing left this machine: it costs nothing."""
        held = self._release(request)
        if held is not None:
            if (budget := self._addresses.get(held.seen.user)) is not None:
                budget.used -= held.seen.n
            self._pump(self._clock())

    # The budget of an address.

    def address(self, user: str) -> AddressBudget:
        """What is known of an account's budget: ask userRateLimit now and then, and tell `user_rate_limit`."""
        user = user.lower()
        return self._addresses.setdefault(user, AddressBudget(0, self.config.free_requests))

    def user_rate_limit(self, user: str, body: Mapping[str, Any]) -> None:
        """The answer to userRateLimit. Actions under way count on top: it may lack them. An odd answer is ignored."""
        budget, numbers = self.address(user), [body.get(f"nRequests{name}") for name in ("Used", "Cap", "Surplus")]
        used, cap, surplus = (value if type(value) is int and value >= 0 else None for value in numbers)
        if used is None or cap is None:
            return
        on_top = sum(held.seen.n for held in self._under_way if held.seen.user == user.lower())
        budget.used, budget.cap, budget.surplus, budget.is_known = used + on_top, cap, surplus or 0, True
        self._pump(self._clock())

    def traded(self, user: str, usd: float) -> None:
        """Fills of so much: each whole USDC is one request more. The rest comes with the next userRateLimit."""
        if 0 < usd < float("inf") and (budget := self._addresses.get(user.lower())) is not None:
            budget.cap += int(usd)
            self._pump(self._clock())

    def expired(self, request: Request) -> None:
        """The venue answered that the action had expired, which costs more requests. Before `answered`."""
        if request.user:
            self.address(request.user).used += max(0, self.config.expired_requests - request.n)

    def on_text(self, user: str, text: str) -> bool:
        """Learn from a refusal "Too many cumulative requests sent (used > cap) ...". Whether it was one."""
        found = _TOO_MANY_REQUESTS.match(text)
        if found is None:
            return False
        budget, now_s = self.address(user), self._clock()
        budget.used, budget.cap, budget.is_known = max(int(found[1]), int(found[2])), int(found[2]), True
        budget.surplus, budget.last_s = 0, now_s
        self._pump(now_s)
        return True

    # Inside.

    def _base(self, seen: Request) -> int:
        config = self.config
        if seen.over == "ws" and not config.post_weight:
            return 0
        if seen.kind == "info":
            return config.info_weights.get(seen.type, config.info_weight)
        if seen.kind == "explorer":
            return config.explorer_weight + seen.n
        return 1 + seen.n // config.batch_per_weight

    def _weights(self, seen: Request) -> tuple[int, int]:
        """What it probably weighs, and what it may."""
        config, base = self.config, self._base(seen)
        per = config.rows_per_weight.get(seen.type) if seen.kind == "info" else None
        if per is None or not base:
            return base, base
        most = max(
            config.max_candles if seen.type == "candleSnapshot" else config.most_rows, self._most.get(seen.type, 0)
        )
        if seen.most_rows is not None:
            most = min(most, seen.most_rows)
        probable = min(most, max(self._rows.get(seen.type, (most,))))
        return base + -(-probable // per), base + -(-most // per)

    def _needed(self, seen: Request) -> int:
        """The room it takes to send it now: another one, sent before, may reach the venue after it."""
        weight, most = self._weights(seen)
        return most if self._under_way else weight

    def _usable(self, lane: int) -> int:
        return self._limit - (self.config.reserve_weight if lane else 0)

    def _weight_free_at(self, now_s: float, lane: int, weight: int) -> float:
        """When so much fits beside what is charged and under way. What fits into no minute needs an empty one.

        A cancel takes the chance that answers under way are as long as expected: better refused, once, than not sent.
        """
        pending = self._pending if lane else self._probable
        free_s = self._meter.falls_to(now_s, max(0, self._usable(lane) - weight), pending)
        return max(free_s, self._held_until_s) if lane else free_s

    def _address_free_at(self, now_s: float, seen: Request) -> float:
        budget, config = self._addresses.get(seen.user), self.config
        if budget is None or not budget.is_known:
            return now_s
        cap = budget.cap
        if seen.is_cancel:
            cap = min(cap + config.cancel_extra, cap * config.cancel_factor)
        if budget.used + seen.n <= cap + budget.surplus:
            return now_s
        return max(now_s, budget.last_s + config.exhausted_s)

    def _free_at(self, now_s: float, seen: Request, lane: int) -> float:
        """When it may go, after those who wait in its lane and above."""
        ahead, requests = 0, 0
        for ticket in self._ahead(lane):
            other = _seen(ticket.request)
            if other.user and other.user == seen.user:
                requests += 1
            if self._address_free_at(now_s, other) <= now_s:
                ahead += self._weights(other)[0]
        weight, usable = ahead + self._needed(seen), self._usable(lane)
        minutes = max(0, weight - 1) // usable if ahead else 0
        free_s = self._weight_free_at(now_s, lane, weight - minutes * usable) + minutes * self._window_s
        address_s = self._address_free_at(now_s, seen)
        return max(free_s, address_s + requests * self.config.exhausted_s if address_s > now_s else now_s)

    def _ahead(self, lane: int) -> Iterator[Ticket]:
        return (ticket for queue in self._lanes[: lane + 1] for ticket in queue)

    def _hold(self, now_s: float, request: Asked, seen: Request) -> None:
        weight, most = self._weights(seen)
        self._under_way.append(_Held(request, seen, weight, most, now_s))
        self._pending += most
        self._probable += weight
        if seen.user:
            budget = self.address(seen.user)
            budget.used += seen.n
            budget.last_s = now_s

    def _ends(self, now_s: float, request: Asked) -> None:
        """The time before, of a request that is about to be sent again."""
        if (before := self._release(request)) is not None:
            self._charge(now_s, before, before.most)

    def _release(self, request: Asked) -> _Held | None:
        """The one under way that is this very object."""
        for at, held in enumerate(self._under_way):
            if held.request is request:
                return self._remove(at)
        return None

    def _remove(self, at: int) -> _Held:
        held = self._under_way.pop(at)
        self._pending -= held.most
        self._probable -= held.weight
        return held

    def _charge(self, now_s: float, held: _Held, weight: int) -> None:
        if weight:
            self._meter.charge(now_s, weight)
        if (budget := self._addresses.get(held.seen.user)) is not None:
            budget.last_s = max(budget.last_s, now_s)

    def _pump(self, now_s: float) -> None:
        """Grant, in order, all that there is room for; know when to look again."""
        config = self.config
        if now_s >= self._learned_until_s:
            self._limit = config.weight_per_minute
        while self._under_way and self._under_way[0].taken_s + config.lost_after_s <= now_s:
            held = self._remove(0)
            self._charge(now_s, held, held.most)
        dues_s: list[float] = []
        for lane, queue in enumerate(self._lanes):
            aside: list[Ticket] = []
            blocked: set[str] = set()  # addresses: their later actions stay behind
            full = False
            while queue and not full:
                ticket = queue[0]
                seen = _seen(ticket.request)
                address_s = self._address_free_at(now_s, seen)
                if address_s > now_s or seen.user in blocked:
                    blocked.add(seen.user)
                    dues_s.append(address_s)
                    aside.append(queue.popleft())
                    continue
                free_s = self._weight_free_at(now_s, lane, self._needed(seen))
                if free_s > now_s:
                    dues_s.append(free_s)
                    full = True
                    continue
                queue.popleft()
                self._hold(now_s, ticket.request, seen)
                ticket.granted = True
                self._granted.append(ticket)
            queue.extendleft(reversed(aside))
            if full:
                break
        dues_s = [due_s for due_s in dues_s if due_s > now_s]
        if dues_s and self._under_way:
            dues_s.append(self._under_way[0].taken_s + config.lost_after_s)
        self._due_s = min(dues_s, default=None)
        if self._timer is not None:
            self._arm()
        if self._telling:  # who is told may tell us something in turn: the order stays
            return
        self._telling = True
        try:
            while self._granted:
                self._granted.popleft()._on_grant()
        finally:
            self._telling = False

    def _arm(self) -> None:
        """One timer for all who wait, however many they are."""
        due_s = self._due_s
        if self._timer is not None:
            if self._timer_s == due_s:
                return
            self._timer.cancel()
            self._timer = None
        if due_s is not None:
            later = self._later
            if later is None:
                import asyncio

                later = asyncio.get_running_loop().call_later
            self._timer_s = due_s
            self._timer = later(max(0.0, due_s - self._clock()), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._pump(self._clock())
        self._arm()


def _seen(request: Asked) -> Request:
    return request if isinstance(request, Request) else Request.info(request)


def _lane(seen: Request, urgent: bool) -> int:
    if urgent or seen.is_cancel:
        return 0
    return 1 if seen.kind == "action" else 2
