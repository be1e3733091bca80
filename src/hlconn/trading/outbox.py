"""Lets actions go, each once, and takes in what came of them: an answer, or the word that there is none.

It signs, writes to the live link or posts over HTTP, and spends nonces with noops. What is true is the order table's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import hlconn._core.action as actions

from .._core.action import Action
from .._core.sign import Signed, Signer
from ..account import UserSigned
from ..config import TradingConfig
from ..errors import Closed, ErrorCode, HlconnError, LinkDown, NotSent, OutcomeUnknown, Rejected
from ..nonces import Nonces
from ..responses import Request, Success, read_http, read_post
from ..types import Cloid
from .orders import ClockBehind, Flight, Item, Kind, OrderTable, Outcome, OutcomeEvent

__all__ = ["DEFAULT", "Expiry", "Outbox", "Prepared", "Ticket", "Timer", "Wire", "pause"]

_log = logging.getLogger("hlconn.trading")


class Default:
    """Says "what the settings say", where None has a meaning of its own."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default()

#: An expiry: venue time in ms, None for none, or as the settings say.
Expiry = int | None | Default

_CANCELS = frozenset(("cancel", "cancelByCloid", "scheduleCancel"))
_CLOCK_TOLD_EVERY_NS = 10 * 10**9
_NONCES_FOR_CANCELS = 20  # of the window; what places an order leaves them alone


class Timer(Protocol):
    def cancel(self) -> object: ...


class Wire(Protocol):
    """What a trader needs of the world."""

    def write(self, message: bytes, post_id: int, *, urgent: bool) -> bool:
        """Write the post of that id to the live link, now. False: there is none, or no room in the venue's budget of
        messages, and nothing was written. urgent: it may use what is kept for cancels.

        True: its answer follows by `Trader.on_message`; or `Trader.on_post_lost`, once, when none came in
        `TradingConfig.answer_timeout_s` or the link went down.
        """

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """POST over HTTP: (status, body). LinkDown when nothing was sent; any other exception leaves that open."""

    def time_ms(self) -> int:
        """This machine's idea of the venue's time."""

    def now_ns(self) -> int:
        """A monotonic clock."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer: ...


async def pause(wire: Wire, delay_s: float, awake: asyncio.Future[Any] | None = None) -> None:
    """On the wire's clock, or until `awake` is done."""
    over = asyncio.get_running_loop().create_future()
    timer = wire.call_later(delay_s, lambda: None if over.done() else over.set_result(None))
    try:
        await asyncio.wait([over] if awake is None else [over, awake], return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()


@dataclass(slots=True, eq=False)
class Prepared:
    """A signed action that was not sent yet. `trader.send` sends it, once; its nonce is taken.

    signed: the bytes, nonce and signature. payload: the body of POST /exchange.
    """

    signed: Signed | UserSigned
    items: tuple[Item, ...]
    single: bool
    sent: bool = False

    @property
    def payload(self) -> bytes:
        return self.signed.payload


class Ticket:
    """One action on its way.

    `await ticket` waits for the answer. For one order, modify or cancel it gives the `Ack` or `CancelResult`, and
    raises `Rejected`, `OutcomeUnknown`, or `NotSent` when HTTP could not connect. For a list it gives a list with one
    of all these for each, and raises none of them.
    """

    __slots__ = ("_flight", "_outbox", "_single", "_waiters")

    def __init__(self, outbox: Outbox, flight: Flight, single: bool) -> None:
        self._outbox, self._flight, self._single = outbox, flight, single
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def nonce(self) -> int:
        return self._flight.nonce

    @property
    def expires_after(self) -> int | None:
        """Venue time in ms; None: the action has no expiry."""
        return self._flight.expires_after

    @property
    def cloid(self) -> Cloid | None:
        """Of the first order: what was given, or what was made."""
        return self._flight.items[0].cloid

    @property
    def cloids(self) -> tuple[Cloid | None, ...]:
        return tuple(item.cloid for item in self._flight.items)

    @property
    def done(self) -> bool:
        """The outcome is known: answered, or proven. False: what it asked for may be live."""
        return self._flight.resolved

    @property
    def unknown(self) -> bool:
        """The answer is lost and nothing is proven yet."""
        return self._flight.lost is not None and not self._flight.resolved

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def settled(self) -> Any:
        """Wait for proof, as long as it takes: an action without an expiry may need `burn`.

        Gives the outcome, or the list of them, and raises none: `Ack`, `CancelResult`, `Done`, `Rejected` (by the
        venue, or proven to have had no effect: then `message` says how), `NotSent`. An action other than an order that
        may have been executed gives `OutcomeUnknown` once it cannot be executed any more. OutcomeUnknown is raised when
        the session ends before that.
        """
        while not self._flight.resolved:
            if self._outbox.closed:
                raise self._lost
            await self._news()
        outcomes = self._outcomes()
        return outcomes[0] if self._single else outcomes

    def burn(self) -> None:
        """Kill what is still in flight: a noop with its nonce is sent, and raced with cancels of the orders it places.

        A modify's old order is left alone. Repeated with every round of questions until it is answered; see `settled`.
        """
        self._outbox.burn(self._flight)

    async def _answer(self) -> Any:
        flight = self._flight
        while not flight.resolved and flight.lost is None:
            await self._news()
        outcomes = self._outcomes()
        if not self._single:
            return outcomes
        if isinstance(outcomes[0], HlconnError):
            raise outcomes[0]
        return outcomes[0]

    async def _news(self) -> None:
        news = asyncio.get_running_loop().create_future()
        self._waiters.append(news)
        await news

    def _outcomes(self) -> list[Outcome]:
        return [self._lost if item.outcome is None else item.outcome for item in self._flight.items]

    @property
    def _lost(self) -> OutcomeUnknown:
        flight = self._flight
        return flight.lost or OutcomeUnknown(flight.action, flight.nonce, (), 0.0, "the session was closed")

    def wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        state = "done" if self.done else "unknown" if self.unknown else "in flight"
        return f"<Ticket {self._flight.action}, nonce {self.nonce}: {state}>"


class _Post:
    """A request on its way: an action, or the noop that is to kill it."""

    __slots__ = ("flight", "is_noop")

    def __init__(self, flight: Flight, is_noop: bool) -> None:
        self.flight, self.is_noop = flight, is_noop

    @property
    def request(self) -> Request:
        flight = self.flight
        if self.is_noop:
            return Request("noop", flight.nonce)
        cloids = tuple(None if item.cloid is None else item.cloid.hex for item in flight.items)
        return Request(flight.action, flight.nonce, cloids)


class Outbox:
    """Actions on their way, of one key. For the loop's thread only.

    table: is told of every action before it leaves, and of what came of it. dispatch(): called after that.
    burn(flight): what `Ticket.burn` does. tickets: by nonce, of actions whose outcome is not known.
    behind_ms: our clock, by the last state of the account; None before there was one.
    """

    def __init__(
        self,
        wire: Wire,
        signer: Signer,
        nonces: Nonces,
        table: OrderTable,
        config: TradingConfig,
        *,
        dispatch: Callable[[], object],
        burn: Callable[[Flight], object],
    ) -> None:
        self.closed = False
        self.tickets: dict[int, Ticket] = {}
        self.behind_ms: int | None = None
        self.burn = burn
        self._wire, self._signer, self._nonces, self._table, self._config = wire, signer, nonces, table, config
        self._dispatch = dispatch
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._posts: dict[int, _Post] = {}  # over the present link, those that are lost too: an answer can come late
        self._requests: set[asyncio.Task[None]] = set()  # over HTTP
        self._foreign: set[int] = set()  # nonces of actions that another key signed
        self._burning: dict[int, bool] = {}  # by nonce; True while a noop is on its way
        self._clock_told_ns: int | None = None  # when that was told last

    # --- sending ---

    def sign(
        self,
        action: Action | Mapping[str, Any],
        items: tuple[Item, ...],
        single: bool,
        expires_after: Expiry,
        **vault: Any,
    ) -> Prepared:
        """With a fresh nonce, which is taken from then on. Throttled when none is free."""
        self.refuse_closed()
        if isinstance(expires_after, Default):
            after_s = self._config.expires_after_s
            expires_after = None if after_s is None else self._wire.time_ms() + int(after_s * 1000)
        places = bool(items) and items[0].wanted is not None
        nonce = self._nonces.take(_NONCES_FOR_CANCELS if places else 0)
        try:
            signed = self._signer.sign(action, nonce, expires_after, **vault)
        except BaseException:  # interrupted as well: a nonce that nothing has is not waited for
            self._nonces.done(nonce)
            raise
        return Prepared(signed, items, single)

    def discard(self, prepared: Prepared) -> None:
        """It will not be sent: its nonce is no longer waited for."""
        if not prepared.sent:
            prepared.sent = True
            self._nonces.done(prepared.signed.nonce)

    def admit(self, signed: Signed | UserSigned) -> Prepared:
        """What was signed elsewhere, as if it was prepared here. NotSent when its nonce is taken."""
        self.refuse_closed()
        if any(flight.nonce == signed.nonce for flight in self._table.flights):
            raise NotSent(f"an action with nonce {signed.nonce} is on its way already: sign it with another one")
        if not self._nonces.avoid(signed.nonce):
            raise NotSent(f"nonce {signed.nonce} is that of an action that was prepared: sign it with another one")
        if signed.signer_address() != self._signer.address:
            self._foreign.add(signed.nonce)
        return Prepared(signed, (Item(Kind.OTHER),), True)

    def fly(self, prepared: Prepared) -> Ticket:
        """Send it, now or over HTTP. Whoever prepared it sees to it that this happens once."""
        signed = prepared.signed
        prepared.sent = True
        expires_after = signed.expires_after if isinstance(signed, Signed) else None  # user-signed ones carry none
        flight = Flight(signed.action, signed.nonce, prepared.items, expires_after, self._wire.now_ns())
        ticket = self.tickets[signed.nonce] = Ticket(self, flight, prepared.single)
        self._table.sent(flight)
        self._transmit(signed, flight, is_noop=False)
        return ticket

    def _transmit(self, signed: Signed | UserSigned, flight: Flight, *, is_noop: bool) -> None:
        post_id = next(self._ids)
        post = self._posts[post_id] = _Post(flight, is_noop)  # before the answer can be there
        try:
            written = self._wire.write(signed.post(post_id), post_id, urgent=is_noop or signed.action in _CANCELS)
        except BaseException as exc:  # it may have left, and its answer may still come
            _log.error("writing %s with nonce %d raised: %r", signed.action, flight.nonce, exc)
            self._lose(post, f"writing it raised {exc!r}")
            self._loop.call_soon(self._dispatch)  # not before whoever sends it has the ticket
            if not isinstance(exc, Exception):
                raise
            return
        if not written:
            del self._posts[post_id]
            task = self._loop.create_task(self._over_http(signed.payload, post), name="hlconn action")
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

    async def _over_http(self, payload: bytes, post: _Post) -> None:
        flight = post.flight
        try:
            status, body = await self._wire.post("/exchange", payload)
        except LinkDown as exc:
            if post.is_noop or flight.resolved:
                self._lose(post, str(exc))
            else:
                self._table.not_sent(flight.nonce, exc)
        except Exception as exc:
            self._lose(post, f"{type(exc).__name__}: {exc}")
        else:
            try:
                self._answered(post, read_http(post.request, status, body, self.waited_s(flight)))
            except Exception as exc:  # a bug of ours: what it asked for may be live
                _log.exception("the answer to nonce %d could not be taken in", flight.nonce)
                self._lose(post, f"its answer could not be read: {exc!r}")
        self._dispatch()

    def refuse_closed(self) -> None:
        if self.closed:
            raise Closed("the session was closed")

    def close(self) -> list[asyncio.Task[None]]:
        """Nothing is sent any more, and what has no outcome is lost. Gives the tasks that end with that."""
        self.closed = True
        for task in self._requests:
            task.cancel()
        for flight in self._table.flights:
            self._table.lost(flight.nonce, self.waited_s(flight), "the session was closed")
        return list(self._requests)

    # --- noops ---

    def is_burning(self, flight: Flight) -> bool:
        """A noop is to spend its nonce, and was not answered yet."""
        return flight.nonce in self._burning

    def refuse_foreign(self, flight: Flight) -> None:
        if flight.nonce in self._foreign:
            raise NotSent("only the key that signed it can spend its nonce")

    def send_noop(self, flight: Flight) -> None:
        """With the nonce of the action itself: if it is executed, the action never can be."""
        self._burning[flight.nonce] = True
        self._transmit(self._signer.sign(actions.noop(), flight.nonce, vault=None), flight, is_noop=True)

    def burn_again(self) -> None:
        """Send the noops once more that had no answer."""
        for flight in self._table.flights:
            if self._burning.get(flight.nonce) is False and flight.closed_mark is None:
                self.send_noop(flight)

    # --- what comes of it ---

    def on_post(self, data: Any) -> None:
        """An answer over the link, also a late one. KeyError, ValueError and their kind: unreadable."""
        post = self._posts.pop(data["id"], None)
        if post is None:
            return
        try:
            self._answered(post, read_post(post.request, data["response"], self.waited_s(post.flight)))
        except Exception as exc:
            self._lose(post, f"its answer could not be read: {exc!r}")
            raise

    def on_post_lost(self, post_id: int, reason: str) -> None:
        """No answer came in time, or the link went down: what was asked for may have been done."""
        post = self._posts.get(post_id)
        if post is not None:
            self._lose(post, reason)
            self._dispatch()

    def on_down(self) -> None:
        """No answer of the link that is gone comes late any more."""
        self._posts.clear()

    def told(self, event: OutcomeEvent) -> None:
        """Somebody waits for this."""
        nonce = event.nonce
        if event.resolved:
            self._nonces.done(nonce)
            self._burning.pop(nonce, None)
            self._foreign.discard(nonce)
        ticket = self.tickets.pop(nonce, None) if event.resolved else self.tickets.get(nonce)
        if ticket is not None:
            ticket.wake()

    def _answered(self, post: _Post, answer: Any) -> None:
        nonce = post.flight.nonce
        if post.flight.resolved:  # by proof; another key's action may have the same nonce now
            return
        told = answer.items[0]
        if isinstance(told, Rejected) and told.code is ErrorCode.EXPIRED:
            self._check_clock(post.flight.expires_after)
        if not post.is_noop:
            self._table.answered(nonce, answer)
            return
        if isinstance(told, Success):
            self._table.burned(nonce)
        elif isinstance(told, Rejected) and told.code in (ErrorCode.NONCE_DUPLICATE, ErrorCode.NONCE_TOO_LOW):
            self._table.spent(nonce)
        if nonce in self._burning:
            self._burning[nonce] = False  # on its way no more: it may be sent again

    def _check_clock(self, expires_after: int | None) -> None:
        """The venue's time is past this expiry. If ours is not, our clock is behind, and every action may expire."""
        at_least_ms = 0 if expires_after is None else expires_after - self._wire.time_ms()
        now_ns, told_ns = self._wire.now_ns(), self._clock_told_ns
        if at_least_ms > 0 and (told_ns is None or now_ns - told_ns >= _CLOCK_TOLD_EVERY_NS):
            self._clock_told_ns = now_ns
            self._table.note(ClockBehind(at_least_ms, self.behind_ms))

    def _lose(self, post: _Post, reason: str) -> None:
        if post.flight.resolved:
            return
        if post.is_noop:
            if post.flight.nonce in self._burning:
                self._burning[post.flight.nonce] = False
        else:
            self._table.lost(post.flight.nonce, self.waited_s(post.flight), reason)

    def waited_s(self, flight: Flight) -> float:
        return (self._wire.now_ns() - flight.sent_ns) / 1e9
