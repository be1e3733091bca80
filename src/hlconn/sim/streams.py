"""WebSocket connections without the sockets: requests in, messages out, and who is subscribed to what."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import orjson

from . import markets, wire
from .actions import Malformed
from .candles import Candles
from .exchange import Exchange
from .faults import Fault, Faults
from .info import aggregated_fills
from .ledger import Account, Fill
from .limits import TOO_MANY, Gate
from .orders import Block
from .wire import Topic

__all__ = ["Answer", "Host", "Later", "Pipe", "Session", "Stats", "Streams", "Transport"]

# Venue time between two messages of one subscription, as measured on the public venue in 2026.
_PERIODS_MS = {"l2Book": 5000, "allMids": 1000, "activeAssetCtx": 500}
_FAST_MS = 500
_GREETING = b"Websocket connection established."
#: A message that waits for the next one to overtake it does not wait longer.
_REORDER_MS = 500
_HALF_OPEN_MS = 600_000
_SNAPSHOT_FILLS = 2_000

Answer = tuple[int, Any]
"""HTTP status and body: a JSON value with 200, else text or None (null)."""


class Later(tuple[int, Any]):
    """An answer that says in its header Retry-After when to come again, unless that is None."""

    retry_after_s: int | None

    def __new__(cls, answer: Answer, retry_after_s: int | None) -> Later:
        made = super().__new__(cls, answer)
        made.retry_after_s = retry_after_s
        return made


@dataclass(slots=True)
class Stats:
    """Counters since the venue was made. messages_sent counts text frames; errors, the `error` messages among them."""

    blocks: int = 0
    connections: int = 0
    subscribes: int = 0
    unsubscribes: int = 0
    pings: int = 0
    posts: int = 0
    actions: int = 0
    errors: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    bytes_sent: int = 0
    slow_clients_dropped: int = 0


class Transport(Protocol):
    """What carries a session's messages, and can be made to fail."""

    def send(self, message: bytes) -> None: ...
    def end(self, code: int | None) -> None:
        """Close with this code, or without a close frame."""

    def fail(self, fault: Fault) -> None:
        """Carry out a fault that is about bytes: reset, half_open, mid_frame, bad_frame."""


class Host(Protocol):
    """What a session needs of its venue."""

    exchange: Exchange
    candles: dict[str, Candles]
    faults: Faults
    stats: Stats
    encode: wire.Encoder
    gate: Gate
    idle_close_ms: float | None
    l2_deflate_over: int | None

    def now_ms(self) -> float: ...
    def after(self, ms: float, callback: Callable[[], object]) -> None: ...
    def post(self, kind: str, payload: object, reply: Callable[[Answer | None], object]) -> None: ...
    def forced(self, kind: str) -> Answer | None: ...


class Session:
    """One connection. Its transport calls `receive` and `left`."""

    def __init__(self, host: Host, streams: Streams, transport: Transport, greeting: bool) -> None:
        self._host, self._streams, self._transport = host, streams, transport
        self._queue: deque[bytes] | None = None  # of a stall
        self._held: bytes | None = None  # waits for the next message to overtake it
        self._deaf = False
        self.is_open = True
        host.stats.connections += 1
        streams.sessions[self] = None
        self._wrote_ms = host.now_ms()
        if greeting:
            self._write(_GREETING)
        if host.idle_close_ms is not None:
            host.after(host.idle_close_ms, self._close_when_idle)

    def _close_when_idle(self) -> None:
        """Source: exchange docs, "Timeouts and heartbeats": who was sent nothing for so long is cut."""
        idle_ms = self._host.idle_close_ms
        if not self.is_open or self._deaf or idle_ms is None:
            return
        left_ms = self._wrote_ms + idle_ms - self._host.now_ms()
        if left_ms <= 0:
            self.end(1000)
        else:
            self._host.after(left_ms, self._close_when_idle)

    # From the client.

    def receive(self, text: str) -> None:
        """One message of the client."""
        host = self._host
        if not self.is_open or self._deaf:
            return
        host.stats.messages_received += 1
        try:
            request = orjson.loads(text)
            if not isinstance(request, dict):
                raise Malformed("not an object")
            if not host.gate.admits_message():
                self._error(TOO_MANY)
                return
            match request.get("method"):
                case "ping":
                    host.stats.pings += 1
                    self.send("pong", host.encode("pong"))
                case "subscribe" | "unsubscribe" as method:
                    self._change_subscription(method, request.get("subscription"))
                case "post":
                    self._post(request)
                case _:
                    raise Malformed("no such method")
        except (orjson.JSONDecodeError, Malformed):
            self._error(f"Error parsing JSON into valid websocket request: {text}")

    def left(self) -> None:
        """The connection is gone, or is to be treated so."""
        self.is_open = False
        self._streams.leave(self)

    def _error(self, text: str) -> None:
        self._host.stats.errors += 1
        self.send("error", self._host.encode("error", text))

    def _change_subscription(self, method: str, sent: object) -> None:
        host, exchange = self._host, self._host.exchange
        try:
            topic, echo = wire.parse_subscription(sent, exchange.markets, markets.dexs(exchange.markets))
        except wire.InvalidSubscription:
            try:
                echoed = orjson.dumps(sent).decode()
            except TypeError:  # nested more deeply than orjson writes
                raise Malformed("nested too deeply") from None
            self._error(f"Invalid subscription {echoed}")
            return
        subscribed = self._streams.has(self, topic)
        if subscribed == (method == "subscribe"):
            self._error(f"Already {method}d: {orjson.dumps(echo).decode()}")
            return
        if method == "subscribe" and (text := self._streams.refuses(topic)) is not None:
            self._error(text)
            return
        now_ms = host.now_ms()
        if method == "unsubscribe" or not host.faults.strikes("lose_ack", now_ms, topic.type):
            ack = {"method": method, "subscription": echo}
            self.send("subscriptionResponse", host.encode("subscriptionResponse", ack))
        if method == "unsubscribe":
            host.stats.unsubscribes += 1
            self._streams.forget(topic, self)
            return
        host.stats.subscribes += 1
        self._streams.add(self, topic, silent=host.faults.strikes("ack_only", now_ms, topic.type) is not None)

    def _post(self, request: wire.JsonObject) -> None:
        post_id, inner = request.get("id"), request.get("request")
        if type(post_id) is not int or post_id < 0 or not isinstance(inner, dict):
            raise Malformed("a post needs an id and a request")
        kind, payload = inner.get("type"), inner.get("payload")
        if kind not in ("info", "action") or not isinstance(payload, dict):
            raise Malformed("a post is info or action, with a payload")
        host = self._host
        host.stats.posts += 1
        if (forced := host.forced("error")) is not None:
            self._error(forced[1].replace("{id}", str(post_id)))
            return
        if not host.gate.begin_post():
            self._error(f"too many pending post requests id={post_id}")
            return
        info_type = payload.get("type") if kind == "info" else None

        def reply(answer: Answer | None) -> None:
            host.gate.end_post()
            self._answer_post(post_id, info_type, answer)

        host.post(kind, payload, reply)

    def _answer_post(self, post_id: int, info_type: object, answer: Answer | None) -> None:
        """Answer an action, or with its type an info request."""
        if answer is None:
            return
        status, body = answer
        if isinstance(body, bytes):  # of a fault of HTTP: there are no empty bodies here
            body = None
        response: wire.JsonObject = {"type": "action", "payload": body}
        if info_type is not None:
            response = {"type": "info", "payload": {"type": info_type, "data": body}}
        if status != HTTPStatus.OK:
            response = {"type": "error", "payload": f"{status} {body or HTTPStatus(status).phrase}"}
        message = self._host.encode("post", {"id": post_id, "response": response})
        self.send("post", message)
        if self._host.faults.strikes("answer_twice", self._host.now_ms()):
            self.send("post", message)

    # To the client.

    def send(self, channel: str, message: bytes) -> None:
        """Send one message, unless a fault says otherwise."""
        if not self.is_open or self._deaf:
            return
        host = self._host
        if self._held is None and not host.faults.are_armed:
            self._write(message)
            return
        faults, now_ms = host.faults, host.now_ms()
        if faults.strikes("drop", now_ms, channel):
            return
        if delay := faults.strikes("delay", now_ms, channel):
            host.after(delay.ms, lambda: self._write(message))
            return
        if self._held is None and faults.strikes("reorder", now_ms, channel):
            self._held = message
            host.after(_REORDER_MS, lambda: self._release(message))
            return
        self._write(message)
        self._release(self._held)
        if faults.strikes("duplicate", now_ms, channel):
            self._write(message)

    def _release(self, held: bytes | None) -> None:
        """Send the message that waits, if it is still this one."""
        if held is not None and held is self._held:
            self._held = None
            self._write(held)

    def _write(self, message: bytes) -> None:
        if not self.is_open or self._deaf:
            return
        if self._queue is not None:
            self._queue.append(message)
            return
        stats = self._host.stats
        self._wrote_ms = self._host.now_ms()
        stats.messages_sent += 1
        stats.bytes_sent += len(message)
        self._transport.send(message)

    def end(self, code: int | None) -> None:
        """End the connection with this close code, or without a word. Nothing is sent to it afterwards."""
        if self.is_open:
            self.left()
            self._transport.end(code)

    def fail(self, fault: Fault) -> None:
        """Let a fault of the connection strike."""
        match fault.kind:
            case "close":
                self.end(1000)
            case "abort":
                self.end(None)
            case "reset" | "mid_frame":
                self.left()
                self._transport.fail(fault)
            case "half_open":
                self._deaf = True
                self._streams.leave(self)
                self._transport.fail(fault)
                # Even a peer that is gone gives up some day: nothing is held for ever.
                self._host.after(_HALF_OPEN_MS, lambda: self._transport.end(None))
            case "bad_frame":
                self._transport.fail(fault)
            case "stall":
                if self._queue is None:
                    self._queue = deque()
                    self._host.after(fault.ms, self._flush)
            case "garbage":
                self._write(b'{"channel":"bbo","data":{"coin":')
            case "huge":
                self._write(self._host.encode("hugeThing", {"text": "x" * fault.size}))
            case "unknown_channel":
                self._write(self._host.encode("channelOfNextYear", {"coin": "BTC", "news": [1, 2, 3]}))

    def _flush(self) -> None:
        queue, self._queue = self._queue, None
        for message in queue or ():
            self._write(message)


class Pipe:
    """A client's end of a connection without a socket, made by `Venue.pipe`.

    `on_message(bytes)` and `on_close(code or None)` are yours to set. Everything happens inside `send` and inside the
    venue's steps; the first message comes with the first of these.
    """

    def __init__(self, host: Host, streams: Streams, greeting: bool, latency_ms: float) -> None:
        self.on_message: Callable[[bytes], object] = lambda message: None
        self.on_close: Callable[[int | None], object] = lambda code: None
        self.is_open = True
        self._host, self._latency_ms = host, latency_ms
        self._session = Session(host, streams, _FarEnd(self), greeting)

    def send(self, message: bytes) -> None:
        """Send one text message to the venue. Raises ConnectionError when the connection has ended."""
        if not self.is_open:
            raise ConnectionError("this pipe was closed")
        text = message.decode()
        if self._latency_ms:
            self._host.after(self._latency_ms, lambda: self._session.receive(text))
        else:
            self._session.receive(text)

    def refuse(self) -> None:
        """End it from the venue's side, before anything was said."""
        self._session.end(None)

    def close(self) -> None:
        """End it from the client's side."""
        self.is_open = False
        self._session.left()

    def _deliver(self, message: bytes) -> None:
        if self.is_open:
            self.on_message(message)

    def _end(self, code: int | None) -> None:
        if self.is_open:
            self.is_open = False
            self.on_close(code)

    def _later(self, callback: Callable[[], object]) -> None:
        # Also without latency: a client's `send` never calls it back before it returns.
        self._host.after(self._latency_ms, callback)


class _FarEnd:
    """The venue's end of a pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def send(self, message: bytes) -> None:
        self._pipe._later(lambda: self._pipe._deliver(message))

    def end(self, code: int | None) -> None:
        self._pipe._later(lambda: self._pipe._end(code))

    def fail(self, fault: Fault) -> None:
        if fault.kind == "bad_frame":  # there are no frames here: a reader of frames would end the connection
            self._pipe._session.left()
        if fault.kind != "half_open":
            self.end(None)


class Streams:
    """Who is subscribed to what, and what each block means for them."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.sessions: dict[Session, None] = {}
        #: When each subscriber got its last message, None for one that gets nothing on purpose.
        self._topics: dict[Topic, dict[Session, int | None]] = {}
        self._by_kind: dict[tuple[str, str], dict[Topic, None]] = {}  # by type, and by coin or user
        self._told: dict[Topic, object] = {}  # of topics that repeat nothing
        self._l2_told: dict[Topic, dict[str, Any]] = {}  # the book that its subscribers have

    def refuses(self, topic: Topic) -> str | None:
        """The text that refuses one more subscription, None when there is room for it."""
        limits = self._host.gate.limits
        if limits.users is None and limits.subscriptions is None:
            return None
        users = {topic.user for topic in self._topics if topic.user}
        subscriptions = sum(map(len, self._topics.values()))
        is_new_user = bool(topic.user) and topic.user not in users
        return self._host.gate.refuses_subscription(subscriptions, len(users), is_new_user=is_new_user)

    def has(self, session: Session, topic: Topic) -> bool:
        return session in self._topics.get(topic, ())

    def add(self, session: Session, topic: Topic, *, silent: bool) -> None:
        """Subscribe, and send the current state or the replay."""
        if topic.type == "l2" and topic in self._topics:
            self._push_l2(topic)  # those who listen already get to where the newcomer begins
        self._by_kind.setdefault((topic.type, topic.coin or topic.user), {})[topic] = None
        self._topics.setdefault(topic, {})[session] = None if silent else int(self._host.now_ms())
        data = None if silent else self._first(topic)
        if data is not None:
            session.send(_channel(self._host.exchange, topic), self._encoded(topic, data))

    def forget(self, topic: Topic, session: Session) -> None:
        del self._topics[topic][session]
        if not self._topics[topic]:
            del self._topics[topic]
            self._told.pop(topic, None)
            self._l2_told.pop(topic, None)
            kind = (topic.type, topic.coin or topic.user)
            del self._by_kind[kind][topic]
            if not self._by_kind[kind]:
                del self._by_kind[kind]

    def leave(self, session: Session) -> None:
        self.sessions.pop(session, None)
        for topic in [topic for topic, members in self._topics.items() if session in members]:
            self.forget(topic, session)

    def _encoded(self, topic: Topic, data: object) -> bytes:
        return self._host.encode(_channel(self._host.exchange, topic), data)

    def _push(self, topic: Topic, data: object, period_ms: int = 0, *, if_new: bool = False) -> None:
        """Encode once, send to all whose last message is old enough. if_new: not what was sent last."""
        message: bytes | None = None
        channel = _channel(self._host.exchange, topic)
        # Not the block's time: that hardly moves after the venue's clock was put back.
        now_ms = int(self._host.now_ms())
        members = self._topics[topic]
        for session, last_ms in list(members.items()):
            if last_ms is None or now_ms - last_ms < period_ms or session not in members:
                continue
            if message is None:
                value = data() if callable(data) else data
                if if_new and self._told.get(topic) == value:
                    return
                if if_new:
                    self._told[topic] = value
                message = self._encoded(topic, value)
            members[session] = now_ms
            session.send(channel, message)

    def _push_l2(self, topic: Topic) -> None:
        """Send what has changed since the last update of an l2 book, if anything has."""
        book = self._l2_book(topic)
        update = wire.l2_update(self._l2_told[topic], book, self._host.l2_deflate_over)
        self._l2_told[topic] = book
        if update is not None:
            self._push(topic, update)

    def _l2_book(self, topic: Topic) -> dict[str, Any]:
        exchange = self._host.exchange
        block, market = exchange.block, exchange.markets[topic.coin]
        book = wire.l2_book(market, block.time_ms, block.books[topic.coin], topic.n_sig_figs, topic.mantissa)
        book.pop("spread", None)
        return book

    # What a topic says now.

    def _account(self, topic: Topic) -> Account:
        return self._host.exchange.ledger.accounts.get(topic.user) or Account(topic.user)

    def _state(self, topic: Topic) -> Any:
        """The whole of what a topic is about; None for those that only tell news."""
        exchange = self._host.exchange
        block = exchange.block
        market = exchange.markets.get(topic.coin)
        match topic.type:
            case "l2Book":
                assert market is not None
                book = block.books[topic.coin]
                return wire.l2_book(market, block.time_ms, book, topic.n_sig_figs, topic.mantissa, topic.fast)
            case "bbo":
                assert market is not None
                return wire.bbo(market, block.time_ms, block.books[topic.coin])
            case "candle":
                return self._host.candles[topic.coin].last(topic.interval, block.time_ms)
            case "activeAssetCtx":
                assert market is not None
                return {"coin": topic.coin, "ctx": wire.asset_ctx(exchange, market)}
            case "allMids":
                mids = {"mids": wire.mids(exchange, topic.dex)}
                return mids | {"dex": topic.dex} if topic.dex else mids
            case "openOrders":
                orders = wire.open_orders(self._account(topic), topic.dex, frontend=True)
                return {"dex": topic.dex, "user": topic.user, "orders": orders}
            case "clearinghouseState":
                state = wire.clearinghouse_state(exchange, self._account(topic), topic.dex)
                return {"dex": topic.dex, "user": topic.user, "clearinghouseState": state}
            case "spotState":
                return {"user": topic.user, "spotState": wire.spot_state(self._account(topic))}
        return None

    def _first(self, topic: Topic) -> Any:
        """What a new subscriber is sent at once."""
        exchange = self._host.exchange
        match topic.type:
            case "l2":
                self._l2_told[topic] = book = self._l2_book(topic)
                return {"s": book}
            case "trades":
                made = exchange.trades[topic.coin]
                return wire.trades(exchange.markets[topic.coin], made) if made else None
            case "userFills":
                fills = list(self._account(topic).fills)[-_SNAPSHOT_FILLS:]
                return {"isSnapshot": True, "user": topic.user, "fills": self._fills(topic, fills)[::-1]}
            case "userFundings":
                return {"isSnapshot": True, "user": topic.user, "fundings": []}
            case "userNonFundingLedgerUpdates":
                return {"isSnapshot": True, "user": topic.user, "nonFundingLedgerUpdates": []}
        return self._state(topic)

    def _fills(self, topic: Topic, fills: list[Fill]) -> list[dict[str, Any]]:
        """Fills, oldest first, as a topic tells them."""
        return [fill.wire() for fill in (aggregated_fills(fills) if topic.aggregate else fills)]

    # After a block.

    def publish(self, block: Block) -> None:
        """Send what this block changed, each message encoded once for all who are subscribed to the same."""
        exchange = self._host.exchange
        for coin in block.bbo_changed:
            self._news("bbo", coin, block)
        for coin, made in block.trades.items():
            self._host.candles[coin].add(made)
            for topic in self._of("trades", coin):
                self._push(topic, wire.trades(exchange.markets[coin], made))
            self._news("candle", coin, block)
        for (kind, key), topics in list(self._by_kind.items()):
            if kind == "l2":
                for topic in list(topics):
                    self._push_l2(topic)
            elif kind in _PERIODS_MS:
                for topic in list(topics):
                    period_ms = _FAST_MS if topic.fast else _PERIODS_MS[kind]
                    self._push(
                        topic, lambda topic=topic: self._state(topic), period_ms, if_new=kind == "activeAssetCtx"
                    )
            elif kind == "clearinghouseState" and block.marked:
                self._news(kind, key, block)
        self._publish_accounts(block)

    def _of(self, kind: str, key: str) -> list[Topic]:
        return list(self._by_kind.get((kind, key), ()))

    def _news(self, kind: str, key: str, block: Block) -> None:
        for topic in self._of(kind, key):
            self._push(topic, lambda topic=topic: self._state(topic))

    def _publish_accounts(self, block: Block) -> None:
        exchange = self._host.exchange
        touched, exchange.touched = exchange.touched, {}
        fills, exchange.new_fills = exchange.new_fills, {}
        for account in touched:
            updates, account.updates = account.updates, []
            user = account.address
            new = fills.get(account, ())
            for topic in self._of("orderUpdates", user) if updates else ():
                self._push(topic, updates)
            ended, account.non_user_cancels = account.non_user_cancels, []
            for topic in self._of("userEvents", user) if ended else ():
                self._push(topic, {"nonUserCancel": ended})
            if new:
                made = [fill for fill, _ in new]
                for topic in self._of("userEvents", user):
                    self._push(topic, {"fills": [fill.wire() for fill in made]})
                for topic in self._of("userFills", user):
                    self._push(topic, {"user": user, "fills": self._fills(topic, made)})
                for topic in self._of("notification", user):
                    for fill, crossed in new:
                        if not crossed:
                            self._push(topic, {"notification": _sentence(fill)})
            for kind in ("openOrders", "clearinghouseState", "spotState"):
                self._news(kind, user, block)

    def refresh(self) -> None:
        """Send every book and top of book as it is now, whatever was sent before."""
        for topic in list(self._topics):
            if topic.type in ("l2Book", "bbo"):
                self._push(topic, self._state(topic))


def _channel(exchange: Exchange, topic: Topic) -> str:
    if topic.type == "userEvents":
        return "user"
    if topic.type == "activeAssetCtx" and exchange.markets[topic.coin].is_spot:
        return "activeSpotAssetCtx"
    return topic.type


def _sentence(fill: Fill) -> str:
    market = fill.market
    sz, px = (text.removesuffix(".0") for text in (market.sz_text(fill.sz), market.px_text(fill.px)))
    coin = market.base.name if market.base is not None else market.name
    return f"Resting order filled: {'Bought' if fill.is_buy else 'Sold'} {sz} {coin} at ${px}"
