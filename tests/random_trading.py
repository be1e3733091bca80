"""Random strategies of the real trader against the venue in a box with its faults on; the venue's history is the judge.

`Truth` looks at everything the venue does: at each action that takes effect, after each thing the strategy does, and,
once all is quiet, at everything that is known.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from decimal import Decimal
from random import Random
from typing import Any, Literal

import orjson

from hlconn import (
    Ack,
    Book,
    CancelResult,
    Cloid,
    Done,
    Grouping,
    HlconnError,
    Instruments,
    NotSent,
    Order,
    OrderState,
    OutcomeUnknown,
    Rejected,
    Side,
    Signer,
    Ticket,
    Tif,
    Tpsl,
    Trigger,
    action,
)
from hlconn.errors import ConfigError
from hlconn.session.link import Link, LinkState, SubState
from hlconn.sim import Party, Rules, Venue
from hlconn.sim.markets import PERP_DECIMALS
from hlconn.trading.orders import Item, Kind, TrackedOrder
from hlconn.trading.trader import Prepared, Trader
from hlconn.types import with_cloid

COINS = ("BTC", "PURR/USDC", "test:GOLD")
_LIVE = ("open", "triggered")
S = OrderState


class Truth:
    """What the venue did for one account, and whether that is what the trader believes.

    sent: the payloads that the trader's side let go. did: the answer to each of its nonces that took effect.
    """

    def __init__(self, venue: Venue, address: str) -> None:
        self.venue, self.address = venue, address
        self.trader: Trader | None = None
        self.failures: list[AssertionError] = []
        self.fills_told: list[int] = []
        self.outcomes_told: Counter[int] = Counter()
        self.did: dict[int, list[Any]] = {}
        self.earlier: set[int] = set()  # nonces of an earlier process
        self.started_ms = 0.0
        self.moved: set[str] = set()  # cloids of orders that it changed after it had ended
        self.burned: set[int] = set()
        self._executes = venue.exchange.execute
        venue.exchange.execute = self._execute  # type: ignore[method-assign]

    def start(self, trader: Trader, earlier: set[int] | None = None) -> None:
        """earlier: the nonces of the process before this one, whose actions may still come."""
        self.trader = trader
        self.earlier = earlier or set()
        self.started_ms = self.venue.now_ms()
        self.fills_told.clear()
        trader.on_order(self._order_told)
        trader.on_fill(lambda fill: self.fills_told.append(fill.tid))

    # while it happens

    def _execute(self, envelope: Any) -> Any:
        body = self._executes(envelope)
        trader, kind, nonce = self.trader, envelope.action["type"], envelope.nonce
        if trader is None or body["status"] != "ok" or nonce > self.venue.now_ms() + STRANGE_MS // 2:
            return body
        if kind == "noop":
            self.burned.add(nonce)
            return body
        data = body["response"].get("data", {})
        ticket = trader._outbox.tickets.get(nonce)
        items = ticket._flight.items if ticket else ()
        entries = data.get("statuses", [None])
        if len(entries) < len(items):  # one refusal for all
            entries *= len(items)
        self.did[nonce] = entries
        if nonce in self.earlier:  # nobody who is there now knows of it
            self.moved |= {wire["c"] for wire in placed_by({"action": envelope.action}) if "c" in wire}
            return body
        for item, entry in zip(items, entries, strict=False):
            if not isinstance(entry, dict) or "error" not in entry:
                self._check(item.outcome is None, f"{item} takes effect and was declared {item.outcome}")
                if item.wanted is not None and item.order is not None:
                    self._check(item.order.may_be_live, f"{item.order} is placed only now")
        effect = any(not isinstance(entry, dict) or "error" not in entry for entry in entries)
        self._check(ticket is not None or not effect, f"{kind} with nonce {nonce} takes effect and nobody waits for it")
        return body

    def _order_told(self, order: TrackedOrder) -> None:
        if order.cloid is not None and not order.may_be_live and order.cloid.hex not in self.moved:
            rests = [one for one in self.open_orders() if one["cloid"] == order.cloid.hex]
            self._check(not rests, f"{order} is told as ended and rests: {rests}")

    def _check(self, good: bool, words: str) -> None:
        """Also where an exception would be swallowed by what is tested."""
        if not good:
            self.failures.append(AssertionError(words))

    def open_orders(self) -> list[dict[str, Any]]:
        account = self.venue.exchange.ledger.accounts[self.address]
        return [order.frontend() for order in account.orders.values() if order.is_open]

    def check_the_living(self) -> None:
        """What rests at the venue may be live for the trader, whatever it has heard so far."""
        if self.failures:
            raise self.failures[0]
        assert self.trader is not None
        for one in self.open_orders():
            if one["cloid"] in self.moved:
                continue
            by_cloid = self.trader.order(Cloid(one["cloid"])) if one["cloid"] else None
            for order in (by_cloid, self.trader.order(one["oid"])):
                assert order is None or order.may_be_live, f"{order} rests as {one}"

    # when all is quiet

    def check_everything(
        self, sent: list[dict[str, Any]], tickets: list[Ticket], earlier: list[dict[str, Any]] | None = None
    ) -> None:
        """earlier: what the process before this one sent."""
        trader = self.trader
        assert trader is not None
        self.check_the_living()
        assert trader.unknown == ()
        assert trader._table.flights == ()
        assert trader._outbox._nonces.unanswered == 0
        self._check_what_was_sent([*(earlier or ()), *sent])
        self._check_orders(trader, {wire["c"] for payload in sent for wire in placed_by(payload) if "c" in wire})
        self._check_fills(trader)
        self._check_amounts(trader)
        for ticket in tickets:
            self._check_outcomes(ticket)

    def _check_what_was_sent(self, sent: list[dict[str, Any]]) -> None:
        nonces = [payload["nonce"] for payload in sent if payload["action"]["type"] != "noop"]
        assert len(nonces) == len(set(nonces)), "an action was sent twice"
        placed = [w["c"] for p in sent if p["action"]["type"] == "order" for w in p["action"]["orders"]]
        assert len(placed) == len(set(placed)), "an order was sent twice"
        assert self.did.keys() <= set(nonces)
        assert not self.did.keys() & self.burned

    def _check_orders(self, trader: Trader, ours: set[str]) -> None:
        truth = {told["order"]["oid"]: told for told in self.venue.history.orders(self.address)}
        fills = self.venue.history.fills(self.address)
        for oid, told in truth.items():
            row, status = told["order"], told["status"]
            order = trader.order(oid)
            if order is None:
                # one that was refused is told once, and one of others that ended need not be heard of
                # nor the number of a child that went with its parent, which no answer names
                # nor the legs that an earlier process placed, or its actions that came late
                mine = row["cloid"] in ours and not status.endswith("ejected") and not row["isTrigger"]
                mine = mine and row["timestamp"] >= self.started_ms and row["cloid"] not in self.moved
                assert status not in _LIVE, f"lost: {told}"
                assert not mine, f"lost: {told}"
                continue
            assert oid in order.oids
            leg = order.legs[oid]
            assert leg.state in _states(row, status), (leg.state, status, leg.message, told, order)
            assert (leg.px, leg.sz) == (Decimal(row["limitPx"]), Decimal(row["origSz"])), (leg, told)
            if status in _LIVE:
                assert order in trader.orders
                assert leg.state.live
                if order.oid != oid:  # a second one, from a modify that places in any case
                    assert truth[order.oid or 0]["status"] in _LIVE
                else:
                    assert order.remaining == Decimal(row["sz"]), (order, leg, told)
            if row["cloid"] is not None:
                assert order.cloid == Cloid(row["cloid"])
        for order in (*trader.orders, *trader.ended_orders):
            assert set(order.oids) <= truth.keys(), f"a phantom leg: {order}"
            legs = [
                told
                for oid, told in truth.items()
                if oid in order.oids or (order.cloid and told["order"]["cloid"] == order.cloid.hex)
            ]
            if order.adopted and self.earlier:  # what ended before the process began need not be heard of
                legs = [told for told in legs if told["order"]["oid"] in order.oids or told["status"] in _LIVE]
            assert order.may_be_live is any(told["status"] in _LIVE for told in legs), (order, legs)
            if not legs:
                gone = (S.NEVER, S.REJECTED) if order.parent is None else (S.NEVER, S.REJECTED, S.CANCELED)
                assert order.state in gone, f"a phantom: {order}"
            oids = {told["order"]["oid"] for told in legs}
            filled = sum((Decimal(f["sz"]) for f in fills if f["oid"] in oids), Decimal(0))
            assert order.filled == filled, (filled, order, order.legs, legs)
        assert len({id(order) for order in trader.orders}) == len(trader.orders)

    def _check_fills(self, trader: Trader) -> None:
        mine = [
            (f.tid, f.coin, f.oid, f.time, f.side is Side.BUY, f.px, f.sz, f.fee, f.fee_token, f.crossed)
            for f in trader.fills
        ]
        theirs = [
            (f["tid"], f["coin"], f["oid"], f["time"], f["side"] == "B", Decimal(f["px"]), Decimal(f["sz"]),
             Decimal(f["fee"]), f["feeToken"], f["crossed"])
            for f in self.venue.history.fills(self.address) if f["time"] > (trader._table._since_ms or 0)
        ]  # fmt: skip
        assert sorted(mine) == sorted(theirs)
        assert sorted(self.fills_told) == sorted(tid for tid, *_ in theirs), "each is told once"

    def _check_amounts(self, trader: Trader) -> None:
        positions = {coin: Decimal(szi) for coin, szi in self.venue.history.positions(self.address).items()}
        assert {coin: position.szi for coin, position in trader.positions.items()} == positions
        spot = self.venue.info(type="spotClearinghouseState", user=self.address)["balances"]
        totals = {row["coin"]: Decimal(row["total"]) for row in spot if Decimal(row["total"])}
        assert trader.balances == totals

    def _check_outcomes(self, ticket: Ticket) -> None:
        assert ticket.done, ticket
        items = ticket._flight.items
        entries = self.did.get(ticket.nonce)
        if entries is None:
            for item in items:
                gone = isinstance(item.outcome, CancelResult) and not item.outcome.canceled
                seen = isinstance(item.outcome, CancelResult) and ticket._flight.lost is not None
                undecided = isinstance(item.outcome, OutcomeUnknown) and item.kind is Kind.OTHER
                assert gone or seen or undecided or isinstance(item.outcome, Rejected | NotSent), (ticket, item)
            return
        for item, entry in zip(items, entries, strict=True):
            self._check_outcome(ticket, item, entry)

    def _check_outcome(self, ticket: Ticket, item: Item, entry: Any) -> None:
        outcome = item.outcome
        error = isinstance(entry, dict) and "error" in entry
        if isinstance(outcome, Ack):
            assert not error, (ticket, outcome, entry)
            if isinstance(entry, dict):
                assert outcome.oid == next(iter(entry.values()))["oid"], (ticket, outcome, entry)
        elif isinstance(outcome, CancelResult):
            # of an order that ended, a lost cancel's own part in it is not always to be told
            assert outcome.canceled is (entry == "success") or ticket._flight.lost is not None, (outcome, entry)
        elif isinstance(outcome, Rejected):
            fired = item.wanted is not None and item.wanted.trigger is not None and ticket._flight.lost is not None
            assert error or fired, (ticket, outcome, entry)  # a lost trigger order that was refused when it fired
        else:
            assert isinstance(outcome, Done | OutcomeUnknown), (ticket, outcome, entry)
            assert item.kind is Kind.OTHER


def placed_by(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """The orders that an action asks for, as they are on the wire."""
    act = payload["action"]
    return [*act.get("orders", ()), *(each["order"] for each in act.get("modifies", ()))]


def _states(row: dict[str, Any], status: str) -> tuple[OrderState, ...]:
    if status in _LIVE:
        return (S.OPEN, S.WAITING) if row["isTrigger"] else (S.OPEN,)
    if status == "filled":
        return (S.FILLED,)
    if status.endswith("ejected"):
        return (S.REJECTED, S.CANCELED) if row["isTrigger"] else (S.REJECTED,)  # it was there, until it fired
    return (S.CANCELED, S.REPLACED) if status == "canceled" else (S.CANCELED,)


#: Nonces of the account's other key are so far ahead, to be told apart.
STRANGE_MS = 3_600_000


class Strategy:
    """Does something at random, and remembers what it was given. So does somebody else with another key."""

    def __init__(
        self, trader: Trader, venue: Venue, party: Party, vault: str | None, instruments: Instruments, rng: Random
    ) -> None:
        self.trader, self.venue, self.instruments, self.rng = trader, venue, instruments, rng
        self.tickets: list[Ticket] = []
        self.pauses = False
        self.calls: set[asyncio.Task[None]] = set()  # of methods that are awaited
        self._prepared: list[list[Prepared]] = []  # each is sent or discarded; an order comes with its cancel at times
        self._number = 0
        self._other = Signer(venue.agent(party, "elsewhere").key, "testnet", vault)
        self._address = vault or party.address
        self._others_nonce = int(venue.now_ms()) + STRANGE_MS
        self._rested: list[int] = []
        for coin in COINS:
            for side in ("B", "A"):
                self._rest(coin, side)

    def act(self) -> None:
        if self.pauses:
            return
        rng = self.rng
        kinds = {
            self._place: 6, self._place_many: 2, self._group: 1, self._modify: 6, self._modify_many: 1,
            self._cancel: 4, self._cancel_many: 1, self._burn: 1, self._two_steps: 1, self._leverage: 1,
            self._market: 1, self._close: 1, self._schedule_cancel: 0.3,
        }  # fmt: skip
        with suppress(NotSent):
            rng.choices(list(kinds), list(kinds.values()))[0]()

    def _take(self, ticket: Ticket) -> None:
        self.tickets.append(ticket)

    def _order(self, coin: str | None = None, tifs: tuple[Tif, ...] = (Tif.ALO, Tif.GTC, Tif.IOC)) -> Order:
        """No size occurs twice: what cannot be told apart is guessed."""
        rng = self.rng
        coin = coin or rng.choice(COINS)
        instrument = self.instruments[coin]
        mid = self.venue.exchange.marks[instrument.coin] / 10**instrument.px_decimals
        self._number += 1
        side, tif = rng.choice(list(Side)), rng.choice(tifs)
        better = -1 if side is Side.BUY else 1
        px = instrument.round_px(mid * (1 + better * rng.gauss(0.002, 0.004)), side, "passive")
        least = math.ceil(12 / mid * 10**instrument.sz_decimals)
        lots = least + self._number if rng.random() < 0.98 else 10**9 + self._number
        reduces = coin != "PURR/USDC" and rng.random() < 0.05
        return Order(coin, side, px, Decimal(lots).scaleb(-instrument.sz_decimals), tif, reduce_only=reduces)

    def _expiry(self) -> dict[str, Any]:
        return {"expires_after": None} if self.rng.random() < 0.1 else {}

    def _mine(self) -> TrackedOrder | None:
        mine = self.trader.orders if self.rng.random() < 0.95 else self.trader.ended_orders
        return self.rng.choice(mine) if mine else None

    def _subject(self, order: TrackedOrder) -> int | Cloid:
        oid, cloid = order.oid, order.cloid
        if oid is None or (cloid is not None and self.rng.random() < 0.5):
            assert cloid is not None
            return cloid
        return oid

    def _place(self) -> None:
        self._take(self.trader.submit(self._order(), **self._expiry()))

    def _place_many(self) -> None:
        orders = [self._order() for _ in range(self.rng.randint(2, 4))]
        self._take(self.trader.submit(orders, **self._expiry()))

    def _group(self) -> None:
        """An order with a take-profit and a stop-loss, which wait until it is filled."""
        parent = self._order("BTC", (Tif.GTC,))
        side = Side.SELL if parent.side is Side.BUY else Side.BUY
        away = 1.02 if side is Side.SELL else 0.98
        btc = self.instruments["BTC"]
        children = []
        for tpsl, share in ((Tpsl.TP, away), (Tpsl.SL, 1 / away)):
            px = btc.round_px(float(parent.px) * share, side, "passive")
            self._number += 1
            children.append(Order("BTC", side, px, parent.sz, trigger=Trigger(px, tpsl), reduce_only=True))
        self._take(self.trader.submit([parent, *children], grouping=Grouping.NORMAL_TPSL, **self._expiry()))

    def _modify(self) -> None:
        if (order := self._mine()) is not None and order.trigger_px is None:
            wanted = self._order(order.coin, (Tif.ALO, Tif.GTC))
            always = self.rng.random() < 0.1
            self._take(self.trader.submit_modify(self._subject(order), wanted, always_place=always, **self._expiry()))

    def _modify_many(self) -> None:
        mine = [order for order in self.trader.orders if order.trigger_px is None and order.cloid is not None]
        chosen = self.rng.sample(mine, min(len(mine), 2))
        if chosen:
            pairs = [(self._subject(order), self._order(order.coin, (Tif.ALO, Tif.GTC))) for order in chosen]
            act = self.trader._composer.modifying(pairs, False, False)
            self._take(self.trader._launch(*act, None if self.rng.random() < 0.1 else int(self.venue.now_ms()) + 6000))

    def _cancel(self) -> None:
        if (order := self._mine()) is not None:
            self._take(self.trader.submit_cancel(order.coin, self._subject(order), **self._expiry()))

    def _cancel_many(self) -> None:
        mine: list[tuple[str, int | Cloid]] = [(o.coin, o.oid) for o in self.trader.orders if o.oid is not None]
        if chosen := self.rng.sample(mine, min(len(mine), 3)):
            if self.rng.random() < 0.3:
                chosen.append(self.rng.choice(chosen))
            self._take(self.trader._launch(*self.trader._composer.canceling(chosen, False, False), None))

    def _burn(self) -> None:
        if self.tickets:
            self.rng.choice(self.tickets[-10:]).burn()

    def _two_steps(self) -> None:
        rng = self.rng
        if not self._prepared or rng.random() < 0.3:
            order = self._order()
            if rng.random() < 0.5:
                self._prepared.append([self.trader.prepare(order)])
            else:
                cloid = Cloid.new()
                pair = [self.trader.prepare(with_cloid(order, cloid))]
                self._prepared.append(pair)
                pair.append(self.trader.prepare_cancel(order.coin, cloid))
            return
        chosen = rng.choice(self._prepared)
        prepared = chosen.pop(0 if rng.random() < 0.9 else -1)
        if not chosen:
            self._prepared.remove(chosen)
        if rng.random() < 0.3:
            self.trader.discard(prepared)
            return
        try:
            self._take(self.trader.send(prepared))
        except NotSent:  # its cancel was sent first, and has taken the cloid
            self.trader.discard(prepared)

    def _leverage(self) -> None:
        act = action.update_leverage("BTC", self.rng.randint(5, 20), self.instruments)
        self._take(self.trader._launch(act, (Item(Kind.OTHER),), True, int(self.venue.now_ms()) + 6000))

    def _await(self, call: Coroutine[Any, Any, object]) -> None:
        async def awaited() -> None:
            with suppress(HlconnError):
                await call

        task = asyncio.get_running_loop().create_task(awaited())
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)

    def _market(self) -> None:
        order = self._order()
        self._await(self.trader.market(order.coin, order.side, order.sz, self.rng.choice([0.001, 0.01])))

    def _close(self) -> None:
        if positions := list(self.trader.positions):
            self._await(self.trader.close(self.rng.choice(positions), 0.01))

    def _schedule_cancel(self) -> None:
        time_ms = int(self.venue.now_ms()) + self.rng.randint(4_000, 20_000) if self.rng.random() < 0.8 else None
        self._await(self.trader.schedule_cancel(time_ms))

    def drop_prepared(self) -> None:
        for prepared in itertools.chain(*self._prepared):
            self.trader.discard(prepared)
        self._prepared.clear()

    # everybody else

    def _rest(self, coin: str, side: Literal["B", "A"]) -> None:
        order = self._order(coin)
        with suppress(ConfigError):  # it would trade
            self._rested.append(self.venue.rest(self.instruments[coin].coin, side, str(order.px), str(order.sz)))

    def market(self) -> None:
        """Others place, take back, and take."""
        rng, venue = self.rng, self.venue
        coin = rng.choice(COINS)
        side: Literal["B", "A"] = rng.choice(["A", "B"])
        kind = rng.random()
        if kind < 0.3:
            self._rest(coin, side)
        elif kind < 0.4 and self._rested:
            venue.withdraw(self._rested.pop(rng.randrange(len(self._rested))))
        elif kind < 0.9:
            instrument = self.instruments[coin]
            least = math.ceil(12 / float(self._order(coin).px) * 10**instrument.sz_decimals)
            sz = Decimal(rng.randint(1, 3 * least)).scaleb(-instrument.sz_decimals)
            venue.cross(instrument.coin, side, f"{sz:f}")
        else:
            instrument = self.instruments[coin]
            mark = venue.exchange.marks[instrument.coin] / 10**instrument.px_decimals
            px = instrument.round_px(mark * (1 + rng.gauss(0, 0.01)), Side.BUY, "passive")
            venue.set_mark(instrument.coin, f"{px:f}")

    def elsewhere(self) -> None:
        """The account's owner does something with another key, that the trader hears of at best."""
        rng = self.rng
        open_orders = self.venue.info(type="openOrders", user=self._address)
        self._others_nonce += 1
        if rng.random() < 0.6 or not open_orders:
            order = self._order("BTC")
            act = action.order([order], self.instruments)
        else:
            act = action.cancel([("BTC", rng.choice([o["oid"] for o in open_orders]))], self.instruments)
        signed = self._other.sign(act, self._others_nonce)
        self.venue.submit(orjson.loads(signed.payload), lambda answer: None)


def books_of(venue: Venue) -> Callable[[str], Book]:
    """`book_of` of a trader: the venue's book as it is now."""

    def book_of(coin: str) -> Book:
        book = Book(coin)
        book.apply(orjson.dumps({"channel": "l2Book", "data": venue.info(type="l2Book", coin=coin)}))
        return book

    return book_of


def _storms(rng: Random) -> list[dict[str, Any]]:
    """What can go wrong, how often and how."""
    streams = ["orderUpdates", "userFills", "user"]
    return [
        {"kind": "lose_action", "p": 0.06},
        {"kind": "lose_answer", "p": 0.08},
        {"kind": "late_action", "p": 0.08, "ms": rng.randint(300, 9000)},
        {"kind": "late_unanswered", "p": 0.06, "ms": rng.randint(300, 9000)},
        {"kind": "answer_twice", "p": 0.1},
        {"kind": "drop", "p": 0.05, "channel": rng.choice(["post", *streams])},
        {"kind": "drop", "p": 0.1, "channel": rng.choice(streams)},
        {"kind": "duplicate", "p": 0.1, "channel": rng.choice(["post", *streams])},
        {"kind": "delay", "p": 0.1, "ms": rng.randint(50, 4000)},
        {"kind": "reorder", "p": 0.1},
        {"kind": "lose_ack", "p": 0.1},
        {"kind": "ack_only", "p": 0.05},
        {"kind": "close", "every_ms": 15_000},
        {"kind": "abort", "every_ms": 8_000},
        {"kind": "mid_frame", "every_ms": 20_000},
        {"kind": "bad_frame", "every_ms": 20_000},
        {"kind": "half_open", "every_ms": 20_000},
        {"kind": "stall", "every_ms": 10_000, "ms": rng.randint(100, 8000)},
        {"kind": "garbage", "every_ms": 20_000},
        {"kind": "unknown_channel", "every_ms": 20_000},
        {"kind": "http_status", "p": 0.1, "status": rng.choice([429, 500, 502]), "channel": "exchange"},
        {"kind": "http_status", "p": 0.1, "status": rng.choice([429, 500, 502]), "channel": "info"},
        {"kind": "http_empty", "p": 0.1},
        {"kind": "http_null", "p": 0.05},
        {"kind": "slow", "p": 0.1, "ms": rng.randint(100, 5000)},
        {"kind": "skew", "after_ms": rng.randint(1, 20_000), "ms": rng.randint(-2000, 2000), "count": 1},
    ]


def let_loose(venue: Venue, rng: Random) -> None:
    """About half of what can go wrong, more or less often."""
    for options in _storms(rng):
        if rng.random() < 0.5:
            venue.fault(**{"count": None, **options})


def venue_of(seed: int, rng: Random, **more: Any) -> Venue:
    """Any of the venues that there may be, by the dice; made-up traders, which are slow, for a few."""
    rules = Rules(
        modify_updates=rng.choice(["canceled first", "open first", "random"]),
        partial_fill_updates=rng.random() < 0.5,
        partial_gtc_answer=rng.choice(["resting", "filled"]),
        cancel_volume_usd=0,
    )
    return Venue(
        seed, coins=COINS, traders=seed % 25 == 24, rules=rules, instant=rng.random() < 0.1,
        answers=rng.choice(["before", "after", "random"]), shuffle_keys=rng.random() < 0.2, **more,
    )  # fmt: skip


def is_put_off(venue: Venue, address: str) -> bool:
    """Something is still to come that was asked for: a request or an action that a fault holds back or that waits for
    its block, or a scheduled cancel of this account."""
    held = ("Venue._request", "Venue.submit")
    return (
        bool(venue._pool)
        or venue.exchange.ledger.accounts[address].cancel_at_ms is not None
        or any(callback.__qualname__.startswith(held) for _, _, callback in venue._due)
    )


async def become_quiet(venue: Venue, link: Link, strategy: Strategy, speed: float = 1.0) -> None:
    """No fault strikes any more; wait until nothing is to come or open, and what was said is compared once more."""
    trader = strategy.trader

    async def until(true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.5 / speed)  # of the venue's time, in which all of it happens: nobody tells when

    def is_settled() -> bool:
        return (
            link.state is LinkState.LIVE
            and all(state is SubState.LIVE for _, state in link.subscriptions)
            and not (trader._table.flights or trader._reconciler.is_busy)
        )

    venue.faults.clear()
    background, venue._background = venue._background, None  # a stream may be acknowledged and silent: what it does not
    strategy.pauses = True  # tell would be known with the next comparison
    strategy.drop_prepared()
    for ticket in strategy.tickets:
        if ticket.expires_after is None and not ticket.done:
            ticket.burn()
    async with asyncio.timeout(300 / speed):
        await asyncio.gather(*strategy.calls)
        await until(lambda: not is_put_off(venue, trader.account))
        await until(is_settled)
        await trader.reconcile()
        await until(is_settled)
    venue._background = background


def open_account(venue: Venue) -> tuple[Party, str | None]:
    """A rich account, and for two seeds in five the vault or the sub-account that it trades for, as rich."""
    money: dict[str, Any] = {"spot": {"USDC": 100_000, "PURR": 100_000}, "dexs": {"test": 100_000}}
    party = venue.account(usdc=1_000_000, **money)
    kind = ("", "vault", "", "subAccount", "")[venue.seed % 5]
    if not kind:
        return party, None
    vault = venue.vault(party, 1_000_000) if kind == "vault" else venue.sub_account(party, 1_000_000)
    ledger = venue.exchange.ledger
    account = ledger.accounts[vault]
    ledger.pay_in(account, "test", 100_000 * 10**PERP_DECIMALS)
    for name, amount in money["spot"].items():
        token = venue._token(name)
        ledger.pay_in(account, token, amount * 10**token.wei_decimals)
    return party, vault
