"""The venue in a box: one exchange on one port, with a clock, made-up traders, and everything that can go wrong."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from coincurve import PrivateKey

from ..config import Endpoints, Network
from ..errors import ConfigError
from . import info, markets, wire
from .actions import Malformed, read_envelope
from .background import Background
from .candles import Candles
from .exchange import Envelope, Exchange, Rules
from .faults import CONNECTION_FAULTS, Fault, Faults
from .ledger import Account, Agent
from .limits import Budgets, Gate, Limits
from .markets import DEFAULT_COINS, PERP_DECIMALS, USDC, Market, Token, markets_named, read_decimal
from .matching import HiddenBook
from .orders import Block, Order
from .server import Server
from .signing import address_of, keccak
from .streams import Answer, Later, Pipe, Session, Stats, Streams, Transport

__all__ = ["History", "Party", "Venue", "serve"]

log = logging.getLogger("hlconn.sim")

# A block is final about every 85 ms on the real venue.
_BLOCK_MS = (70, 100)
_CALM = 24_000
# Source: exchange docs, "Timeouts and heartbeats".
_IDLE_CLOSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody who can trade here. key: "0x" and 64 hex digits; address: lower case. Play money, real signatures."""

    address: str
    key: str = field(repr=False)


class _Pending(NamedTuple):
    envelope: Envelope
    reply: Callable[[Answer | None], object]


def _rank(pending: _Pending) -> int:
    """The order of actions inside a block: those that cannot take first, then cancels, then the rest.

    Source: exchange docs, "Order book": a modify counts as the order it places.
    """
    action = pending.envelope.action
    match action["type"]:
        case "cancel" | "cancelByCloid":
            return 1
        case "order":
            orders = action["orders"]
        case "modify":
            orders = [action["order"]]
        case "batchModify":
            orders = [item["order"] for item in action["modifies"]]
        case _:
            return 0
    return 2 if any(o["t"].get("limit", {}).get("tif") in ("Gtc", "Ioc", "FrontendMarket") for o in orders) else 0


class Venue:
    """A venue on a loopback port, as an async context manager, or without a port at all.

    seed: the same seed gives the same market. speed: 20 makes everything 20 times faster in wall time. coins: see
    `DEFAULT_COINS`; also HYPE, DOGE and the made-up T0 to T249. port: 0 picks a free one, which a later `start()` uses
    again. tls: True for a throw-away certificate (see `client_context`), or a server's SSLContext.

    stepped: nothing moves but by `advance` and `block`; such a venue can be used without `start`, by `pipe` and
    `request`. traders: False for books that hold nothing but what clients and `rest` put there. instant: an action is
    carried out when it comes, in a block of its own, not with the next one. answers: whether an action's answer comes
    before or after what its block sends on streams, or now so and now so. rules: see `Rules`. faults: things that go
    wrong from the start on, see `fault`. limits: what clients may do, `Limits()` for what the real venue lets one IP
    address and one account do; None for no limits. `gate` counts what they use and what was refused.

    idle_close_s: a connection to which nothing was sent for so long is closed (stepped: in the venue's time); None for
    never; by default 60 as on the real venue, and never when stepped. greeting: send the plain-text first frame.
    shuffle_keys: write messages with keys in random order and white space.
    l2_deflate_over: an l2 update of more bytes than this is compressed; None: none is.
    max_buffer_bytes: a client with more unsent bytes than this is dropped. history_blocks: how many blocks, and
    finished orders since, are remembered; None for all of them; by default 6000, fewer when more than four coins are
    listed, and all when stepped. debug: check after each block that nothing was created or lost (slow).

    Raises ConfigError for settings that cannot work. Everything but `url` and what follows from it can be used before
    `start()`. Not thread-safe.
    """

    def __init__(
        self,
        seed: int = 7,
        speed: float = 1.0,
        coins: tuple[str, ...] = DEFAULT_COINS,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        tls: bool | ssl.SSLContext = False,
        stepped: bool = False,
        start_ms: int | None = None,
        traders: bool = True,
        instant: bool = False,
        block_ms: tuple[int, int] = _BLOCK_MS,
        answers: Literal["before", "after", "random"] = "before",
        rules: Rules | None = None,
        faults: Iterable[Fault] = (),
        limits: Limits | None = None,
        idle_close_s: float | Literal["default"] | None = "default",
        greeting: bool = True,
        shuffle_keys: bool = False,
        l2_deflate_over: int | None = 300,
        history_blocks: int | Literal["default"] | None = "default",
        max_buffer_bytes: int = 16 * 1024 * 1024,
        debug: bool = False,
    ) -> None:
        if not 0 < speed < math.inf:
            raise ConfigError(f"speed must be a positive number, not {speed!r}")
        if ":" in host:
            raise ConfigError(f"the venue listens at IPv4 addresses only, not at {host!r}")
        if not 1 <= block_ms[0] <= block_ms[1]:
            raise ConfigError(f"block_ms must be the shortest and the longest time, at least 1, not {block_ms!r}")
        listed = markets_named(tuple(coins))
        if history_blocks == "default":
            history_blocks = None if stepped else min(6000, max(240, _CALM // len(listed)))
        if history_blocks is not None and history_blocks < 1:
            raise ConfigError(f"history_blocks must be at least 1, not {history_blocks}")
        if start_ms is None:
            start_ms = 1_750_000_000_000 if stepped else time.time_ns() // 1_000_000
        self.seed, self.max_buffer_bytes = seed, max_buffer_bytes
        self.gate = Gate(limits, self.now_ms)
        budgets = Budgets(self.gate.limits.free_requests)
        self.exchange = Exchange(listed, start_ms, rules or Rules(), seed, history_blocks, debug, budgets)
        self.candles = {name: Candles(market, self.exchange.rules.candles_kept) for name, market in listed.items()}
        self.stats = Stats()
        self.faults = Faults(seed)
        self.encode = wire.Encoder(seed if shuffle_keys else None)
        self.streams = Streams(self)
        self.history = History(self.exchange)
        self.l2_deflate_over = l2_deflate_over
        self._authority: Any = None
        if tls is True:
            self._authority, tls = _throw_away_certificate(host)
        self._tls = tls or None
        self._address = host
        self._server = Server(self, host, port, self._tls)
        self._speed, self._stepped, self._instant, self._answers = speed, stepped, instant, answers
        self._greeting, self._block_ms = greeting, block_ms
        if idle_close_s == "default":
            idle_close_s = None if stepped else _IDLE_CLOSE_S
        #: On the venue's clock; clients ping by their own.
        self.idle_close_ms = None if idle_close_s is None else idle_close_s * 1000 * (1.0 if stepped else speed)
        self._rng = random.Random(f"{seed}:blocks")
        self._pool: list[_Pending] = []
        self._next_answers: deque[tuple[str, Answer]] = deque()
        self._parties = itertools.count()
        self._origin = (time.monotonic(), float(start_ms))
        self._now_ms = float(start_ms)  # of a stepped clock
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._ticket = itertools.count()
        self._wake: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._skew_ms = 0  # of what it says, against what it schedules by
        self._paused = False
        self._failure: Exception | None = None
        self._made: Block | None = None
        self._background = Background(self.exchange, seed) if traders else None
        self.exchange.open()
        # Two of them: `cross` trades with what `rest` has put there, and nobody trades with themselves.
        self._outsider, self._crosser = (
            self.exchange.ledger.open("0x" + byte * 20, is_house=True) for byte in ("05", "06")
        )
        self._tick_due_ms = start_ms + self._rng.randint(*block_ms)
        self._at(self._tick_due_ms, self._tick)
        for fault in faults:
            if fault.kind in CONNECTION_FAULTS and fault.after_ms <= 0 and fault.every_ms is None:
                raise ConfigError(f"{fault.kind} would strike before anybody is connected: say after_ms or every_ms")
            self._arm(fault)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # Where it is.

    @property
    def url(self) -> str:
        """The base of its HTTP addresses, `http://127.0.0.1:PORT`; known from the first `start()` on."""
        return self.endpoints.http_url

    @property
    def ws_url(self) -> str:
        return self.endpoints.ws_url

    @property
    def endpoints(self) -> Endpoints:
        """For `hlconn.connect`."""
        if not self._server.port:
            raise RuntimeError("the venue has no port yet: start it first")
        host = "127.0.0.1" if self._address in ("", "0.0.0.0") else self._address
        tls = "s" if self._tls is not None else ""
        at = f"{host}:{self._server.port}"
        return Endpoints(f"http{tls}://{at}", f"ws{tls}://{at}/ws", Network.LOCAL)

    @property
    def ca_pem(self) -> bytes:
        """The certificate of the throw-away authority, with `tls=True`."""
        if self._authority is None:
            raise RuntimeError("this venue has no throw-away certificate: make it with tls=True")
        pem: bytes = self._authority.cert_pem.bytes()
        return pem

    def client_context(self) -> ssl.SSLContext:
        """A client's TLS settings that trust this venue alone, with `tls=True`."""
        return ssl.create_default_context(cadata=self.ca_pem.decode())

    @property
    def clients(self) -> int:
        """Open WebSocket connections and pipes."""
        return len(self.streams.sessions)

    # Running.

    async def start(self) -> None:
        """Listen and, unless stepped, make blocks. After `stop()`, goes on with the same market on the same port."""
        if self._server.is_running:
            raise RuntimeError("the venue is already running")
        await self._server.start()
        self._loop = asyncio.get_running_loop()
        if not self._stepped:
            self._origin = (time.monotonic(), self._now_ms)
            self._rearm()
        log.info("venue at %s", self.url)

    async def stop(self) -> None:
        """Close the port and cut every connection, without close frames. Time stands still until `start()`.

        Raises what ended the making of blocks, if something did: with `debug`, what did not add up.
        """
        if not self._server.is_running:
            return
        if not self._stepped:
            self._now_ms = self.now_ms()
        self._loop = None
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        for session in list(self.streams.sessions):
            session.end(None)
        await self._server.stop()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def pause(self) -> None:
        """Stop making blocks, and send every l2Book and bbo subscription the state of the last block once more.

        Then every client's books can be compared with the venue's exactly.
        """
        self._paused = True
        self.streams.refresh()

    def resume(self) -> None:
        """Make blocks again."""
        self._paused = False

    def cut(self, code: int | None = None) -> None:
        """End every connection: with a close frame of this code and the reason Expired, or without one."""
        for session in list(self.streams.sessions):
            session.end(code)

    # Time.

    def now_ms(self) -> float:
        """The venue's time: ms since 1970, from the wall clock at construction on (stepped: from 2025-06-15 on)."""
        if self._stepped or self._loop is None:
            return self._now_ms
        began_s, at_ms = self._origin
        return at_ms + (time.monotonic() - began_s) * 1000 * self._speed

    def after(self, ms: float, callback: Callable[[], object]) -> None:
        """Call back once this much of the venue's time has passed."""
        self._at(self.now_ms() + ms, callback)

    def _at(self, due_ms: float, callback: Callable[[], object]) -> None:
        heapq.heappush(self._due, (due_ms, next(self._ticket), callback))
        if self._due[0][0] == due_ms:
            self._rearm()

    def _rearm(self) -> None:
        """Wake up for the first thing that is due."""
        if self._stepped or self._loop is None:
            return
        if self._wake is not None:
            self._wake.cancel()
        delay_s = max(0.0, (self._due[0][0] - self.now_ms()) / 1000 / self._speed)
        self._wake = self._loop.call_later(delay_s, self._run_due)

    def _run_due(self) -> None:
        self._wake = None
        # What becomes due meanwhile waits for the next round: between them the loop reads and writes.
        now_ms, due = self.now_ms(), []
        while self._due and self._due[0][0] <= now_ms:
            due.append(heapq.heappop(self._due)[2])
        for callback in due:
            try:
                callback()
            except Exception:  # a client's, at the end of a pipe: the others go on
                log.exception("something that was due failed")
        self._rearm()

    def advance(self, ms: float) -> None:
        """Let this much time pass on a stepped clock, with everything that happens in it."""
        if not self._stepped:
            raise RuntimeError("this venue has a real clock: make it with stepped=True to step it")
        until_ms = self._now_ms + ms
        while self._due[0][0] <= until_ms:
            due_ms, _, callback = heapq.heappop(self._due)
            self._now_ms = max(self._now_ms, due_ms)
            callback()
        self._now_ms = until_ms

    def block(self) -> Block:
        """Let time pass on a stepped clock until the next block was made, and return it."""
        if self._paused:
            raise RuntimeError("a paused venue makes no blocks: resume it")
        self._made = None
        while self._made is None:
            self.advance(max(0.0, self._due[0][0] - self._now_ms))
        return self._made

    # Blocks.

    def _tick(self) -> None:
        now_ms = self.now_ms()
        # Lost time is made up for only by not waiting: never by a burst.
        self._tick_due_ms = max(self._tick_due_ms + self._rng.randint(*self._block_ms), int(now_ms))
        self._at(self._tick_due_ms, self._tick)
        if not self._paused:
            pool, self._pool = self._pool, []
            try:
                self._made = self._make_block(sorted(pool, key=_rank), self._background)
            except Exception as exc:
                self._paused, self._failure = True, exc
                log.error("the venue failed, and makes no more blocks: %s", exc)
                raise

    def _make_block(
        self, pool: list[_Pending], background: Background | None, act: Callable[[], object] | None = None
    ) -> Block:
        exchange = self.exchange
        time_ms = max(int(self.now_ms()) + self._skew_ms, exchange.block.time_ms + 1)
        exchange.begin(time_ms)
        answers = [(pending.reply, exchange.execute(pending.envelope)) for pending in pool]
        if act is not None:
            act()
        if background is not None:
            background.step(time_ms)
        block = exchange.commit()
        self.stats.blocks += 1
        first = self._answers == "before" or (self._answers == "random" and self._rng.random() < 0.5)
        if not first:
            self.streams.publish(block)
        for reply, body in answers:
            reply((HTTPStatus.OK, body))
        if first:
            self.streams.publish(block)
        return block

    # Requests.

    def open_session(self, transport: Transport) -> Session:
        """A WebSocket connection, carried by this transport."""
        return Session(self, self.streams, transport, self._greeting)

    def pipe(self, latency_ms: float = 0) -> Pipe:
        """A connection without a socket, on the venue's clock. latency_ms: of each message, in both directions.

        One that is over a limit is closed at once, without a word.
        """
        is_admitted = self.admits_socket()
        pipe = Pipe(self, self.streams, self._greeting and is_admitted, latency_ms)
        if not is_admitted:
            pipe.refuse()
        return pipe

    def admits_socket(self) -> bool:
        """Whether one more WebSocket connection is within the limits."""
        return self.gate.admits_socket(self.clients)

    def post(self, kind: str, payload: object, reply: Callable[[Answer | None], object]) -> None:
        """A `post` over a WebSocket, of kind "info" or "action"."""
        if kind == "info":
            self._request_after_a_while("info", payload, reply, is_post=True)
        elif self.gate.admits("exchange", payload, is_post=True):
            self.submit(payload, reply)
        else:
            reply((HTTPStatus.TOO_MANY_REQUESTS, None))

    def dropped_slow_client(self) -> None:
        self.stats.slow_clients_dropped += 1

    def request(self, path: str, payload: object, reply: Callable[[Answer | None], object]) -> None:
        """What `POST path` does: "/info" or "/exchange". reply is called with the HTTP status and the body, None for
        a connection that ends without an answer."""
        self._request_after_a_while(path.removeprefix("/"), payload, reply, is_post=False)

    def _request_after_a_while(
        self, kind: str, payload: object, reply: Callable[[Answer | None], object], *, is_post: bool
    ) -> None:
        if slow := self.faults.strikes("slow", self.now_ms(), kind):
            self.after(slow.ms, lambda: self._request(kind, payload, reply, is_post=is_post))
        else:
            self._request(kind, payload, reply, is_post=is_post)

    def _request(self, kind: str, payload: object, reply: Callable[[Answer | None], object], *, is_post: bool) -> None:
        now_ms = self.now_ms()
        if struck := self.faults.strikes("http_status", now_ms, kind):
            body = None if struck.status == HTTPStatus.TOO_MANY_REQUESTS else struck.body
            reply(Later((struck.status, body), struck.retry_after_s))
            return
        if self.faults.strikes("http_cut", now_ms, kind):
            reply(None)
            return
        if not self.gate.admits(kind, payload, is_post=is_post):
            reply(Later((HTTPStatus.TOO_MANY_REQUESTS, None), self.gate.retry_after_s()))
            return
        if self.faults.strikes("http_empty", now_ms, kind):
            reply = _instead(b"", reply)
        elif self.faults.strikes("http_null", now_ms, kind):
            reply = _instead(b"null", reply)
        if kind == "exchange":
            self.submit(payload, reply)
        elif (forced := self.forced("info")) is not None:
            reply(forced)
        else:
            try:
                answer = info.answer(self.exchange, self.candles, payload)
            except info.InfoRefused as refused:
                reply((refused.status, refused.text))
                return
            self.gate.answered(payload, answer, is_post=is_post)
            reply((HTTPStatus.OK, answer))

    def submit(self, payload: object, reply: Callable[[Answer | None], object]) -> None:
        """An action, from wherever it came: judged and carried out with the next block."""
        self.stats.actions += 1
        try:
            envelope = Envelope(*read_envelope(payload))
        except Malformed:
            reply((HTTPStatus.UNPROCESSABLE_ENTITY, info.BAD_SHAPE))
            return
        if (forced := self.forced("action")) is not None:
            reply(forced)
            return
        faults, now_ms = self.faults, self.now_ms()
        if faults.strikes("lose_action", now_ms):
            reply(None)
            return
        if late := faults.strikes("late_action", now_ms):
            self.after(late.ms, lambda: self._enter(_Pending(envelope, reply)))
        elif late := faults.strikes("late_unanswered", now_ms):
            reply(None)
            self.after(late.ms, lambda: self._enter(_Pending(envelope, lambda answer: None)))
        elif faults.strikes("lose_answer", now_ms):
            self._enter(_Pending(envelope, lambda answer: reply(None)))
        else:
            self._enter(_Pending(envelope, reply))

    def _enter(self, pending: _Pending) -> None:
        if self._instant and not self._paused:
            self._make_block([pending], None)
        else:
            self._pool.append(pending)

    def forced(self, kind: str) -> Answer | None:
        """What `answer_next` wants answered to the next of this kind."""
        for entry in self._next_answers:
            if entry[0] == kind:
                self._next_answers.remove(entry)
                return entry[1]
        return None

    def answer_next(self, body: Any, *, status: int = 200, kind: Literal["action", "info", "error"] = "action") -> None:
        """Answer the next action or info request with this instead, without any effect.

        body: a JSON value, or over HTTP bytes sent as they are; with another status than 200, text or None (null).
        A text with status 200 becomes `{"status":"err","response":text}` of an action. kind "error": the next `post` is
        answered with this text on the error channel; {id} in it stands for the post's id.
        """
        if kind == "action" and status == HTTPStatus.OK and isinstance(body, str):
            body = {"status": "err", "response": body}
        self._next_answers.append((kind, (status, body)))

    def info(self, **request: object) -> Any:
        """The answer to an info request, at once and without faults. Raises `InfoRefused`."""
        return info.answer(self.exchange, self.candles, request)

    # Faults.

    def fault(self, kind: str, **options: Any) -> Fault:
        """Let something go wrong: see `hlconn.sim.FAULTS` for the kinds and `Fault` for the options.

        Once, unless `count` says otherwise (None: without end). Look at `.hits` of what is returned.
        """
        fault = Fault(kind, **{"count": 1, **options})
        self._arm(fault)
        return fault

    def _arm(self, fault: Fault) -> None:
        now_ms = self.now_ms()
        self.faults.add(fault, now_ms)
        if not fault.is_timed:
            return
        until_ms = math.inf if fault.until_ms is None else now_ms + fault.until_ms
        if fault.after_ms <= 0 and fault.every_ms is None:
            self._strike(fault, until_ms)
        else:
            first_ms = fault.after_ms or self.faults.pause_ms(fault)
            self._at(now_ms + first_ms, lambda: self._strike(fault, until_ms))

    def _strike(self, fault: Fault, until_ms: float) -> None:
        if fault.is_spent or self.now_ms() > until_ms:
            return
        if fault.kind == "skew":
            if self.faults.chance(fault.p):
                fault.hits += 1
                self._skew_ms += fault.ms
        else:
            for session in list(self.streams.sessions):
                if not fault.is_spent and self.faults.chance(fault.p):
                    fault.hits += 1
                    session.fail(fault)
        if fault.every_ms is not None:
            self._at(self.now_ms() + self.faults.pause_ms(fault), lambda: self._strike(fault, until_ms))

    # Who trades.

    def account(
        self,
        usdc: float | str = 10_000,
        spot: Mapping[str, float | str] | None = None,
        dexs: Mapping[str, float | str] | None = None,
    ) -> Party:
        """Open an account with this much perp money, spot tokens by name, and perp money on other dexs by name.

        The same seed gives the same keys, in the order of the calls. Raises ConfigError for what is not listed here.
        """
        party = self.stranger()
        account = self.exchange.ledger.open(party.address)
        for dex, amount in {"": usdc, **(dexs or {})}.items():
            if dex not in markets.dexs(self.exchange.markets):
                raise ConfigError(f"there is no dex {dex!r} here")
            self.exchange.ledger.pay_in(account, dex, _amount(amount, PERP_DECIMALS))
        for name, amount in (spot or {}).items():
            token = self._token(name)
            self.exchange.ledger.pay_in(account, token, _amount(amount, token.wei_decimals))
        return party

    def stranger(self) -> Party:
        """A key of which the venue has never heard."""
        key = keccak(f"hlconn.sim:{self.seed}:{next(self._parties)}".encode())
        return Party(address_of(PrivateKey(key).public_key.format(compressed=False)), "0x" + key.hex())

    def agent(self, of: Party, name: str = "") -> Party:
        """A key that may trade for this account, as if `approveAgent` had been sent; it replaces one of that name."""
        agent, account = self.stranger(), self._known(of.address)
        for address in [address for address, known in account.agents.items() if known.name == name]:
            del account.agents[address], self.exchange.agents[address]
        account.agents[agent.address] = Agent(name, None)
        self.exchange.agents[agent.address] = account
        self.exchange.used_agents.add(agent.address)
        return agent

    def vault(self, leader: Party, usdc: float | str = 10_000) -> str:
        """The address of a new vault that `leader` (and its agents) may trade for."""
        return self._dependent("vault", leader, usdc)

    def sub_account(self, master: Party, usdc: float | str = 10_000) -> str:
        """The address of a new sub-account that `master` (and its agents) may trade for."""
        return self._dependent("subAccount", master, usdc)

    def _dependent(self, kind: str, of: Party, usdc: float | str) -> str:
        address = self.stranger().address
        account = self.exchange.ledger.open(address, kind=kind, master=self._known(of.address).address)
        self.exchange.ledger.pay_in(account, "", _amount(usdc, PERP_DECIMALS))
        return address

    def _known(self, address: str) -> Account:
        account = self.exchange.ledger.accounts.get(address.lower())
        if account is None:
            raise ConfigError(f"no account here has the address {address}")
        return account

    def _token(self, name: str) -> Token:
        for market in self.exchange.markets.values():
            if market.base is not None and market.base.name == name:
                return market.base
        if name == USDC.name:
            return USDC
        raise ConfigError(f"there is no token {name!r} here")

    # By hand: each happens at once, in a block of its own.

    def _market(self, coin: str) -> Market:
        if coin not in self.exchange.markets:
            raise ConfigError(f"there is no coin {coin!r} here")
        return self.exchange.markets[coin]

    def rest(self, coin: str, side: Literal["B", "A"], px: float | str, sz: float | str) -> int:
        """An outsider's post-only order; its oid. Raises ConfigError where it would trade, or off the grid."""
        market = self._market(coin)
        price, lots = _amount(px, market.px_decimals), _amount(sz, market.sz_decimals)
        if not market.is_valid_px(price):
            raise ConfigError(f"{px} is not on the grid of {coin}")
        if not lots:
            raise ConfigError("an order needs a size above zero")
        placed: list[Order] = []

        def quote() -> None:
            placed.extend(self.exchange.quote([self._outsider], market, side == "B", price, [lots]))

        self._make_block([], None, quote)
        if not placed:
            raise ConfigError(f"{px} would trade at once: use cross()")
        return placed[0].oid

    def withdraw(self, oid: int) -> None:
        """Take an outsider's order back, if it still rests."""
        found = [order for book in self.exchange.books.values() if (order := book.orders.get(oid)) is not None]
        for order in found:
            if order.account is self._outsider:
                self._make_block([], None, partial(self.exchange.unquote, order))

    def cross(self, coin: str, side: Literal["B", "A"], sz: float | str, px: float | str | None = None) -> str:
        """An outsider takes up to `sz` from the other side, at `px` or better; returns how much was traded.

        With side "B" it buys: resting asks are filled, a client's among them, best price and oldest first.
        """
        market = self._market(coin)
        limit = _amount(px, market.px_decimals) if px is not None else 1 << 62 if side == "B" else 1
        lots, traded = _amount(sz, market.sz_decimals), []
        self._make_block(
            [], None, lambda: traded.append(self.exchange.take(self._crosser, market, side == "B", limit, lots))
        )
        return market.sz_text(traded[0])

    def set_mark(self, coin: str, px: float | str) -> None:
        """Set the mark and oracle price: margin, profit and triggers go by it, until the traders move it again."""
        market = self._market(coin)
        self._make_block([], None, lambda: self.exchange.set_mark(coin, _amount(px, market.px_decimals)))

    def invent_past(self, coin: str, minutes: int) -> None:
        """Candles of so many minutes before now, of trades that nobody made: something to page through.

        Raises ConfigError when the coin was traded already.
        """
        market = self._market(coin)
        self.candles[coin].invent(
            random.Random(f"{self.seed}:past:{coin}"), minutes, int(self.now_ms()), market.home_px
        )

    def list_coin(self, coin: str) -> None:
        """List a coin that is not here yet. Its asset id is the next one of its dex."""
        listed = [*self.exchange.markets, coin]
        market = markets_named(tuple(listed))[coin]
        self.candles[coin] = Candles(market, self.exchange.rules.candles_kept)
        self.exchange.list_market(market)
        if self._background is not None:
            self._make_block([], None, lambda: self._background.add(market) if self._background else None)

    def delist_coin(self, coin: str) -> None:
        """End trading in a coin: its orders are canceled, and its metadata says so from now on."""
        self._market(coin)
        if self._background is not None:
            self._background.drop(coin)
        self._make_block([], None, lambda: self.exchange.delist(coin))


def _instead(body: bytes, reply: Callable[[Answer | None], object]) -> Callable[[Answer | None], object]:
    """A reply that sends this, whatever the answer is."""
    return lambda answer: reply((HTTPStatus.OK, body))


def _amount(value: float | str, decimals: int) -> int:
    """Units of 10**-decimals; a float means its shortest text. Raises ConfigError where that is not exact."""
    text = f"{value:.17g}" if isinstance(value, int) else repr(value) if isinstance(value, float) else value
    try:
        units, exact = read_decimal(text, decimals)
    except markets.BadNumber:
        units, exact = 0, False
    if not exact or units < 0:
        raise ConfigError(f"{value!r} is no positive number of at most {decimals} decimals")
    return units


def _throw_away_certificate(host: str) -> tuple[Any, ssl.SSLContext]:
    try:
        import trustme
    except ImportError:
        raise ConfigError("tls=True needs the package trustme: pip install hlconn[tls]") from None
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*dict.fromkeys([host or "0.0.0.0", "127.0.0.1", "localhost"])).configure_cert(context)
    return authority, context


class History:
    """What really happened, whatever the faults made of it on the wire: the judge of tests. Wire-shaped values.

    It reaches as far back as `history_blocks` says; fills, to the last 10,000 of an account. ConfigError for an address
    that is no account's.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def blocks(self) -> list[Block]:
        """Oldest first."""
        return list(self._exchange.history.values())

    def book(self, coin: str, time_ms: int | None = None) -> HiddenBook:
        """The whole book as of the block at exactly `time_ms`, or of the last. KeyError when it is not remembered."""
        block = self._exchange.block if time_ms is None else self._exchange.history[time_ms]
        return block.books[coin]

    def _account(self, address: str) -> Account:
        account = self._exchange.ledger.accounts.get(address.lower())
        if account is None:  # an empty answer would agree with a client that saw nothing
            raise ConfigError(f"no account here has the address {address}")
        return account

    def fills(self, address: str) -> list[dict[str, Any]]:
        """Every fill of an account, oldest first, in the shape of userFills."""
        return [fill.wire() for fill in self._account(address).fills]

    def orders(self, address: str) -> list[dict[str, Any]]:
        """Every order of an account, in the order they were placed, in the shape of historicalOrders."""
        story = self._exchange.stories.get(self._account(address).address, {})
        return [_known_order(order) for order in story.values()]

    def order(self, address: str, key: int | str) -> dict[str, Any] | None:
        """One order by oid or cloid (of several with one cloid the last), None when there is none."""
        account = self._account(address)
        if isinstance(key, int):
            found = self._exchange.orders.get(key)
        else:
            found = self._exchange.cloids.get((account.address, key.lower()))
        return None if found is None or found.account is not account else _known_order(found)

    def positions(self, address: str) -> dict[str, str]:
        """Signed sizes by coin, without those that are zero."""
        held = self._account(address).positions.values()
        return {position.market.name: position.market.sz_text(position.szi) for position in held}


def _known_order(order: Order) -> dict[str, Any]:
    return {"order": order.frontend(), "status": order.status, "statusTimestamp": order.status_ms}


async def serve(venue: Venue, on_ready: Callable[[Venue], object] | None = None) -> None:
    """Run a venue until cancelled. on_ready is called once, when it listens."""
    async with venue:
        if on_ready is not None:
            on_ready(venue)
        await asyncio.get_running_loop().create_future()
