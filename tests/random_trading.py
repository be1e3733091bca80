"""Random strategies against a small venue that delays, reorders, repeats and loses what it can, on a stepped clock.

The venue below keeps the truth: what it did is compared with what the trader knows, at every step for what may be
live, and at the end for everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import orjson
from fake_wire import START_MS, Desk, FakeWire
from order_news import USER

from hlconn import Ack, CancelResult, Cloid, LinkDown, NotSent, Order, OrderState, Rejected, Side, Ticket, Tif
from hlconn.config import TradingConfig
from hlconn.trading.orders import Differs

CONFIG = TradingConfig(reconcile_every_s=20, expires_after_s=6.0, expiry_margin_s=0.5, answer_timeout_s=2.0)
S = OrderState


class RandomVenue(FakeWire):
    """Orders, fills and faults of one account. rng decides everything; `quiet` turns the faults off."""

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self.rng = rng
        self.quiet = False
        self.generation = 0
        self.block_ms = START_MS
        self.orders: dict[int, dict[str, Any]] = {}  # all that ever were, by oid
        self.fills: list[dict[str, Any]] = []
        self.position = Decimal(0)
        self.nonces: set[int] = set()
        self.on_its_way: list[dict[str, Any]] = []  # actions that may still be executed
        self.did: dict[int, list[Any]] = {}  # by nonce: the entries that were answered
        self.sent: list[tuple[int, str]] = []
        self.tell: Callable[[str, Any], None] = lambda channel, data: None
        self.info |= {
            "frontendOpenOrders": lambda _: [one["row"] for one in self.orders.values() if one["status"] == "open"],
            "clearinghouseState": lambda _: self._state(),
            "userFillsByTime": lambda query: [one for one in self.fills if one["time"] >= query["startTime"]],
            "orderStatus": self._order_status,
            "historicalOrders": lambda _: [self._told(one) for one in reversed(self.orders.values())],
        }

    # what reaches it

    def write(self, message: bytes) -> bool:
        if not self.live:
            return False
        value = orjson.loads(message)
        self._take(value["request"]["payload"], value["id"], self.generation)
        return True

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/info":
            if not self.quiet and self.rng.random() < 0.1:
                return 502, b"<html>"
            return await super().post(path, body)
        payload = orjson.loads(body)
        fault = 1.0 if self.quiet else self.rng.random()
        if fault < 0.2:
            raise LinkDown("no route")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._take(payload, answer, self.generation)
        value = await answer
        if fault < 0.4:
            raise OSError("reset")
        return (502, b"<html>") if fault < 0.5 else (200, orjson.dumps(value))

    def _take(self, payload: dict[str, Any], reply_to: Any, generation: int) -> None:
        self.sent.append((payload["nonce"], payload["action"]["type"]))
        entry = {"payload": payload, "reply_to": reply_to, "generation": generation}
        lost = not self.quiet and self.rng.random() < 0.05
        if lost and not isinstance(reply_to, asyncio.Future):
            return  # never arrives
        self.on_its_way.append(entry)
        late = not self.quiet and self.rng.random() < 0.1
        self.call_later(self.rng.uniform(0.05, 5.0 if late else 0.4), lambda: self._execute(entry))

    # what it does

    def _execute(self, entry: dict[str, Any]) -> None:
        self.on_its_way.remove(entry)
        payload = entry["payload"]
        nonce, action, expiry = payload["nonce"], payload["action"], payload.get("expiresAfter")
        self.block_ms = max(self.block_ms + 1, self.venue_ms)
        if nonce in self.nonces:
            self._reply(entry, {"status": "err", "response": f"Invalid nonce: duplicate nonce {nonce}"})
            return
        if expiry is not None and self.block_ms > expiry:
            self._reply(entry, {"status": "err", "response": "Action already expired"})
            return
        self.nonces.add(nonce)
        if action["type"] == "noop":
            self._reply(entry, {"status": "ok", "response": {"type": "default"}})
            return
        if action["type"] == "order":
            entries = [self._place(wanted) for wanted in action["orders"]]
        elif action["type"] == "batchModify":
            entries = [self._modify(one["oid"], one["order"]) for one in action["modifies"]]
        else:
            entries = [self._cancel(one.get("o", one.get("cloid"))) for one in action["cancels"]]
        self.did[nonce] = entries
        self._reply(entry, {"status": "ok", "response": {"type": "order", "data": {"statuses": entries}}})

    def _place(self, wanted: dict[str, Any]) -> Any:
        if self.rng.random() < 0.05:
            return {"error": "Insufficient margin to place order. asset=0"}  # no oid, no update
        oid = 1000 + len(self.orders)
        row = {
            "coin": "BTC", "side": "B" if wanted["b"] else "A", "limitPx": wanted["p"] + ".0", "sz": wanted["s"],
            "oid": oid, "timestamp": self.block_ms, "origSz": wanted["s"], "cloid": wanted["c"],
        }  # fmt: skip
        one = self.orders[oid] = {"row": row, "status": "open"}
        tif = wanted["t"]["limit"]["tif"]
        if tif == "Alo" and self.rng.random() < 0.1:
            self._end(one, "badAloPxRejected")
            return {"error": "Post only order would have immediately matched, bbo was 1@2. asset=0"}
        if tif == "Ioc":
            size = self.rng.choice([Decimal(0), Decimal(wanted["s"]) / 2, Decimal(wanted["s"])])
            if not size:
                self._end(one, "iocCancelRejected")
                return {"error": "Order could not immediately match against any resting orders. asset=0"}
            self._fill(one, size)
            if one["status"] == "open":
                self._end(one, "canceled")
            return {"filled": {"totalSz": str(size), "avgPx": row["limitPx"], "oid": oid}}
        self._publish("orderUpdates", [self._told(one)])
        return {"resting": {"oid": oid, "cloid": wanted["c"]}}

    def _find(self, subject: Any) -> dict[str, Any] | None:
        found = [one for oid, one in self.orders.items() if subject in (oid, one["row"]["cloid"])]
        return max(found, key=lambda one: (one["status"] == "open", one["row"]["oid"]), default=None)

    def _modify(self, subject: Any, wanted: dict[str, Any]) -> Any:
        old = self._find(subject)
        if old is None or old["status"] != "open":
            return {"error": "Cannot modify canceled or filled order"}
        if self.rng.random() < 0.1:
            return {"error": "Attempted to modify to invalid new order"}
        self._end(old, "canceled")
        return self._place(wanted)

    def _cancel(self, subject: Any) -> Any:
        one = self._find(subject)
        if one is None or one["status"] != "open":
            return {"error": "Order was never placed, already canceled, or filled. asset=0"}
        self._end(one, "canceled")
        return "success"

    def _end(self, one: dict[str, Any], status: str) -> None:
        one["status"] = status
        self._publish("orderUpdates", [self._told(one)])

    def _fill(self, one: dict[str, Any], size: Decimal) -> None:
        row = one["row"]
        signed = size if row["side"] == "B" else -size
        fill = {
            "coin": "BTC", "px": row["limitPx"], "sz": str(size), "side": row["side"], "time": self.block_ms,
            "startPosition": str(self.position), "dir": "", "closedPnl": "0.0", "hash": "0x", "oid": row["oid"],
            "crossed": False, "fee": "0.0", "tid": len(self.fills), "feeToken": "USDC", "cloid": row["cloid"],
        }  # fmt: skip
        self.position += signed
        self.fills.append(fill)
        row["sz"] = str(Decimal(row["sz"]) - size)
        self._publish("userFills", {"user": USER, "fills": [fill]})
        if not Decimal(row["sz"]):
            self._end(one, "filled")

    def trade(self) -> None:
        """Somebody trades against what rests."""
        self.block_ms = max(self.block_ms + 1, self.venue_ms)
        for one in [one for one in self.orders.values() if one["status"] == "open"]:
            if self.rng.random() < 0.2:
                rest = Decimal(one["row"]["sz"])
                self._fill(one, rest if rest <= 1 or self.rng.random() < 0.3 else Decimal(1))

    # what it says

    def _told(self, one: dict[str, Any]) -> dict[str, Any]:
        return {"order": dict(one["row"]), "status": one["status"], "statusTimestamp": self.block_ms}

    def _order_status(self, query: dict[str, Any]) -> Any:
        one = self._find(query["oid"])
        return {"status": "unknownOid"} if one is None else {"status": "order", "order": self._told(one)}

    def _state(self) -> dict[str, Any]:
        positions = [{"position": {"coin": "BTC", "szi": str(self.position)}}] if self.position else []
        return {"assetPositions": positions, "time": self.block_ms}

    def _reply(self, entry: dict[str, Any], value: dict[str, Any]) -> None:
        if isinstance(entry["reply_to"], asyncio.Future):
            if not entry["reply_to"].done():
                entry["reply_to"].set_result(value)
            return
        data = {"id": entry["reply_to"], "response": {"type": "action", "payload": value}}
        self._deliver("post", data, entry["generation"])

    def _publish(self, channel: str, data: Any) -> None:
        self._deliver(channel, data, self.generation)
        if not self.quiet and self.rng.random() < 0.1:
            self._deliver(channel, data, self.generation)

    def _deliver(self, channel: str, data: Any, generation: int) -> None:
        def arrive() -> None:
            if self.live and generation == self.generation:
                self.tell(channel, data)

        self.call_later(self.rng.uniform(0.01, 0.5), arrive)  # each by itself: any order

    def cut(self) -> None:
        self.live = False
        self.generation += 1


class Strategy:
    """Does something at random, and remembers what it was given."""

    def __init__(self, desk: Desk, rng: Random) -> None:
        self.desk, self.rng = desk, rng
        self.tickets: list[tuple[Ticket, str]] = []

    def act(self) -> None:
        trader, rng = self.desk.trader, self.rng
        mine = [order for order in trader.orders if order.cloid is not None]
        kind = rng.choice(["place", "place", "batch", "modify", "modify", "cancel", "burn"])
        order = Order(
            "BTC",
            rng.choice(list(Side)),
            len(self.tickets) + rng.randint(1, 9) * 1000,  # none twice: what cannot be told apart is guessed
            rng.randint(1, 5) * 2,
            rng.choice([Tif.ALO, Tif.GTC, Tif.IOC] if kind in ("place", "batch") else [Tif.ALO, Tif.GTC]),
        )
        expires: dict[str, Any] = {"expires_after": None} if rng.random() < 0.1 else {}
        try:
            if kind == "place":
                self.tickets.append((trader.submit(order, **expires), kind))
            elif kind == "batch":
                self.tickets.append((trader.submit([order, order], **expires), kind))
            elif kind in ("modify", "cancel") and mine:
                one = rng.choice(mine)
                subject: int | Cloid | None = one.oid if one.oid is not None and rng.random() < 0.5 else one.cloid
                assert subject is not None
                if kind == "modify":
                    self.tickets.append((trader.submit_modify(subject, order, **expires), kind))
                else:
                    self.tickets.append((trader.submit_cancel("BTC", subject, **expires), kind))
            elif kind == "burn" and self.tickets and rng.random() < 0.3:
                rng.choice(self.tickets)[0].burn()
        except NotSent:
            pass


def check_what_may_be_live(desk: Desk, venue: RandomVenue) -> None:
    """None declared dead while it rests, or while its action waits to be executed."""
    for one in venue.orders.values():
        if one["status"] == "open":
            order = desk.trader.order(Cloid(one["row"]["cloid"]))
            assert order is not None
            assert order.may_be_live, f"{order} rests as {one}"
    for entry in venue.on_its_way:
        payload = entry["payload"]
        if payload["nonce"] in venue.nonces:
            continue
        expiry = payload.get("expiresAfter")
        if expiry is not None and expiry < venue.venue_ms:
            continue
        for wanted in payload["action"].get("orders", ()):
            order = desk.trader.order(Cloid(wanted["c"]))
            assert order is not None
            assert order.may_be_live, f"{order} waits as {payload}"


def check_everything(desk: Desk, venue: RandomVenue, strategy: Strategy) -> None:
    trader = desk.trader
    assert trader.unknown == ()
    assert desk.nonces.unanswered == 0
    nonces = [nonce for nonce, kind in venue.sent if kind != "noop"]
    assert len(nonces) == len(set(nonces)), "an action was sent twice"
    by_cloid: dict[str, list[dict[str, Any]]] = {}
    for one in venue.orders.values():
        by_cloid.setdefault(one["row"]["cloid"], []).append(one)
    known = {order.cloid.hex: order for order in (*trader.orders, *trader.ended_orders) if order.cloid is not None}
    assert set(by_cloid) <= set(known), "a lost order"
    for cloid, order in known.items():
        legs = by_cloid.get(cloid, [])
        oids = tuple(one["row"]["oid"] for one in legs)
        if order.oids != oids:  # a leg that was refused at birth is told once, and need not be heard of
            unheard = {one["row"]["oid"] for one in legs if one["status"].endswith("Rejected")}
            assert set(oids) - unheard <= set(order.oids) <= set(oids), (order, legs)
        rests = [one for one in legs if one["status"] == "open"]
        assert order.may_be_live is bool(rests), (order, legs)
        if rests:
            assert order.oid == rests[0]["row"]["oid"]
            assert order.remaining == Decimal(rests[0]["row"]["sz"])
        elif legs and any(one["status"] == "filled" for one in legs):
            assert order.state is S.FILLED, (order, legs)
        else:
            assert order.state in (S.CANCELED, S.REJECTED, S.NEVER), (order, legs)
        assert order.filled == sum((Decimal(f["sz"]) for f in venue.fills if f["cloid"] == cloid), Decimal(0)), order
    assert sorted(fill.tid for fill in trader.fills) == [fill["tid"] for fill in venue.fills]
    szi = trader.positions["BTC"].szi if "BTC" in trader.positions else 0
    assert szi == venue.position
    for ticket, kind in strategy.tickets:
        assert ticket.done
        for item, entry in zip(ticket._flight.items, venue.did.get(ticket.nonce, [None] * 2), strict=False):
            outcome = item.outcome
            body = entry.get("resting", entry.get("filled")) if isinstance(entry, dict) else None
            if isinstance(outcome, Ack):
                assert body is not None, (kind, outcome, entry)
                assert outcome.oid == body["oid"]
            elif isinstance(outcome, CancelResult):
                assert not outcome.canceled or entry == "success" or ticket._flight.lost is not None
            elif isinstance(outcome, Rejected):
                assert body is None, (kind, outcome, entry)
                assert entry != "success"
            else:
                assert isinstance(outcome, NotSent)
                assert entry is None


async def live_through(seed: int, folder: Path) -> None:
    rng = Random(seed)
    desk = Desk(folder, CONFIG)
    venue = RandomVenue(rng)
    desk.wire = desk.trader._wire = venue
    desk.nonces._clock = venue.time_ms
    venue.tell = desk.tell
    strategy = Strategy(desk, rng)
    desk.trader.on_order(lambda order: strategy.act() if rng.random() < 0.05 else None)

    def reconnect() -> None:
        desk.connect()
        snapshot = {"isSnapshot": True, "user": USER, "fills": list(reversed(venue.fills[-5:]))}
        venue._deliver("userFills", snapshot, venue.generation)

    venue.quiet = True

    async def listen() -> list[Differs]:
        return [event async for event in desk.trader.events(maxsize=10_000) if isinstance(event, Differs)]

    async with desk:
        listening = asyncio.create_task(listen())
        venue.quiet = False
        for _ in range(60):
            strategy.act()
            if rng.random() < 0.4:
                venue.trade()
            if venue.live and rng.random() < 0.1:
                venue.cut()
                desk.trader.on_down("cut")
            elif not venue.live and rng.random() < 0.4:
                reconnect()
            await venue.step(rng.uniform(0.0, 0.8))
            check_what_may_be_live(desk, venue)
        venue.quiet = True
        if not venue.live:
            reconnect()
        for _ in range(3):
            await venue.step(10)
            check_what_may_be_live(desk, venue)
        for ticket, _ in strategy.tickets:  # those that have no expiry
            if not ticket.done:
                ticket.burn()
        await venue.step(60)
        assert desk.failures == []
        check_everything(desk, venue, strategy)
        canceling = asyncio.create_task(desk.trader.cancel_all())
        await venue.step(30)
        await canceling
        assert not [one for one in venue.orders.values() if one["status"] == "open"]
        await venue.step(5)
        check_everything(desk, venue, strategy)
    assert await listening == [], "nothing but fills changes this venue's positions"
