"""The exchange itself: orders, their lives, and who may ask for what. Actions in, answers and events out; no I/O.

Time is what the caller says (`now_ms`, the venue's). Everything happens inside a block: `begin`, any number of
`execute` and of the made-up traders' moves, `commit`.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from . import account_actions
from .actions import TAKES_VAULT, JsonObject, Refused, ok
from .ledger import Account, Agent, Fees, Fill, Ledger
from .limits import Budgets
from .markets import PERP_DECIMALS, Market, Token, read_decimal
from .matching import Book
from .orders import Block, Order, Trade, Trigger
from .signing import USER_SIGNED, BadSignature, Nonces, l1_signer, user_signer

__all__ = ["Envelope", "Exchange", "Rules"]

_DAY_MS = 86_400_000
_MIN_CANCEL_DELAY_MS = 5_000
_CANCELS_PER_DAY = 10
_OPEN_ORDERS, _MOST_OPEN_ORDERS = 1000, 5000
_VOLUME_OF_AN_ORDER = 5_000_000 * 10**PERP_DECIMALS
_MIN_NOTIONAL = 10
_TID_BITS = 50
_AGENT_DAYS = 180
_FIRST_OID = 1 << 33  # as on the real venue: more than 32 bits hold
_ZERO = "0x" + "0" * 40

NOT_FOUND = "Order was never placed, already canceled, or filled."
CANNOT_MODIFY = "Cannot modify canceled or filled order"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the sources leave open, and what a test may want otherwise.

    mainnet: take mainnet's signatures and chain name; by default testnet's. modify_updates: which of the two order
    updates of a modify comes first. partial_fill_updates: repeat `open` with what is left after each partial fill.
    partial_gtc_answer: how an order is answered that was filled in part and rests. band_percent: how far from the
    mark price a limit price may be. cancel_volume_usd: traded dollars before scheduleCancel is allowed (1,000,000 on
    the real venue). candles_kept: of each interval; candle_rows, fill_rows: in one answer at most (candles: the docs'
    general rule is 500, clients see 5,000).
    """

    mainnet: bool = False
    fees: Fees = field(default_factory=Fees)
    modify_updates: Literal["canceled first", "open first", "random"] = "canceled first"
    partial_fill_updates: bool = False
    partial_gtc_answer: Literal["resting", "filled"] = "resting"
    band_percent: int = 80
    cancel_volume_usd: int = 0
    candles_kept: int = 5_000
    candle_rows: int = 5_000
    fill_rows: int = 2_000


class Envelope(NamedTuple):
    """A request to `/exchange`, its action in the venue's own form."""

    action: JsonObject
    nonce: int
    signature: object
    vault: str | None
    expires_after: int | None


class _OrderRefused(Exception):
    """One order is refused. status: of an order that got an oid all the same, None for one that was never judged."""

    def __init__(self, text: str, status: str | None = None) -> None:
        super().__init__(text)
        self.text, self.status = text, status


class _Batch(Exception):
    """One entry answers for the whole batch: something that depends on the payload alone."""


class Exchange:
    """The state of the venue.

    markets, books, marks: by coin. ledger: the accounts. orders: by oid, finished ones for `history_blocks`
    blocks (None: for ever). trades: the last 30 of each coin. turnover: notional and lots
    traded so far. touched: accounts with news, cleared by the reader.
    """

    def __init__(
        self,
        markets: dict[str, Market],
        start_ms: int,
        rules: Rules,
        seed: int,
        history_blocks: int | None,
        debug: bool,
        budgets: Budgets | None = None,
    ) -> None:
        self.markets, self.rules, self.debug = markets, rules, debug
        self.budgets = budgets or Budgets(None)
        self.by_asset = {market.asset: market for market in markets.values()}
        self.books: dict[str, Book[Order]] = {name: Book() for name in markets}
        self.marks = {name: market.home_px for name, market in markets.items()}
        self.ledger = Ledger(markets, self.marks, rules.fees)
        self.agents: dict[str, Account] = {}
        self.used_agents: set[str] = set()
        self.nonces: dict[str, Nonces] = {}
        self.orders: dict[int, Order] = {}
        self.cloids: dict[tuple[str, str], Order] = {}
        self.stories: dict[str, dict[int, Order]] = {}  # every order of an account that is still known, oldest first
        self.triggers: dict[str, dict[int, Order]] = {name: {} for name in markets}
        self.trades: dict[str, deque[Trade]] = {name: deque(maxlen=30) for name in markets}
        self.turnover = {name: [0, 0] for name in markets}
        self.touched: dict[Account, None] = {}
        self.new_fills: dict[Account, list[tuple[Fill, bool]]] = {}
        self.history_blocks = history_blocks
        self.history: dict[int, Block] = {}  # by time
        self.now_ms = start_ms
        self._handlers: dict[str, Callable[[Account, JsonObject], JsonObject]] = {
            "order": self._order,
            "cancel": self._cancel_by_oid,
            "cancelByCloid": self._cancel_by_cloid,
            "modify": self._plain_modify,
            "batchModify": self._batch_modify,
            "scheduleCancel": self._schedule_cancel,
            **{kind: partial(handler, self) for kind, handler in account_actions.HANDLERS.items()},
        }
        self._finished: deque[tuple[int, Order]] = deque()
        self._seed, self._rng = seed, random.Random(f"{seed}:exchange")
        self._tid = self._rng.getrandbits(_TID_BITS)
        self._oid = _FIRST_OID
        self._transactions = 0
        self._hash = ""
        self._block_trades: dict[str, list[Trade]] = {}
        self._marked: set[str] = set()
        self._armed: set[str] = set()  # coins with triggers that have not been compared with the mark price yet
        self._versions = dict.fromkeys(markets, 0)
        self._moved: dict[Account, set[str]] = {}
        self.open()

    # Blocks.

    def open(self) -> None:
        """Make the first block, of what is in the books before anything has happened. Not after `begin`."""
        self.block = Block(0, self.now_ms, {name: book.freeze() for name, book in self.books.items()}, {}, frozenset())
        self.history[self.now_ms] = self.block
        self._versions = {name: book.version for name, book in self.books.items()}

    def begin(self, now_ms: int) -> None:
        """Start a block at this time, which must be later than the last one's."""
        if now_ms <= self.block.time_ms:
            raise ValueError(f"block time must increase: {now_ms} is not after {self.block.time_ms}")
        self.now_ms = now_ms

    def commit(self) -> Block:
        """End the block: scheduled cancels, triggers, what is known now."""
        for account in [a for a in self.ledger.accounts.values() if a.cancel_at_ms is not None]:
            assert account.cancel_at_ms is not None
            if account.cancel_at_ms <= self.now_ms:
                account.cancel_at_ms = None
                day = self.now_ms // _DAY_MS
                account.scheduled_cancels = {day: account.scheduled_cancels.get(day, 0) + 1}
                for order in list(account.orders.values()):
                    if order.is_open:  # a child went with its parent
                        self.finish(order, "scheduledCancel")
        self._fire_triggers()
        before, books, changed = self.block, dict(self.block.books), []
        for name, book in self.books.items():
            if book.version != self._versions[name]:
                self._versions[name] = book.version
                old, books[name] = books[name], book.freeze()
                if books[name].top != old.top:
                    changed.append(name)
        trades = {name: tuple(made) for name, made in self._block_trades.items()}
        self.block = Block(before.number + 1, self.now_ms, books, trades, frozenset(changed), frozenset(self._marked))
        self._block_trades, self._marked = {}, set()
        self.history[self.now_ms] = self.block
        if self.history_blocks is not None:
            self._forget()
        if self.debug:
            self._check_sides()
            self.check()
        return self.block

    def _check_sides(self) -> None:
        """Raise AssertionError when one who traded in this block was not told so, or was told otherwise."""
        told = {(fill.tid, fill.is_buy): fill for made in self.new_fills.values() for fill, _ in made}
        for trade in itertools.chain.from_iterable(self.block.trades.values()):
            for address, is_buy in ((trade.buyer, True), (trade.seller, False)):
                fill = told.get((trade.tid, is_buy))
                if not self.ledger.accounts[address].is_house:
                    assert fill is not None, f"{address} was not told of {trade}"
                    assert (fill.px, fill.sz) == (trade.px, trade.sz), f"{trade} is not {fill}"

    def _forget(self) -> None:
        assert self.history_blocks is not None
        while len(self.history) > self.history_blocks:
            del self.history[next(iter(self.history))]
        oldest = self.block.number - self.history_blocks
        while self._finished and self._finished[0][0] <= oldest:
            _, order = self._finished.popleft()
            del self.orders[order.oid], self.stories[order.account.address][order.oid]
            if order.cloid is not None and self.cloids.get((order.account.address, order.cloid)) is order:
                del self.cloids[order.account.address, order.cloid]

    def check(self) -> None:
        """Raise AssertionError when something that must always hold does not."""
        self.ledger.check()
        for name, book in self.books.items():
            frozen = book.freeze()
            bid, ask = frozen.top
            assert bid is None or ask is None or bid.px < ask.px, f"{name} is crossed: {bid} {ask}"
            for is_buy, levels in ((True, frozen.bids), (False, frozen.asks)):
                sums: dict[int, list[int]] = {}
                for order in book.orders.values():
                    if order.is_buy == is_buy:
                        assert order.sz > 0, f"order {order.oid} rests with {order.sz}"
                        assert order.is_open, f"order {order.oid} rests and is {order.status}"
                        entry = sums.setdefault(order.px, [0, 0])
                        entry[0] += order.sz
                        entry[1] += 1
                assert {level.px: [level.sz, level.n] for level in levels} == sums, (
                    f"{name}: levels are not their orders"
                )
        for account in self.ledger.accounts.values():
            if account.is_house:
                continue
            resting: dict[str, list[int]] = {}
            held: dict[Token, int] = {}
            for order in account.orders.values():
                assert order.is_open, f"order {order.oid} is {order.status} and still counted open"
                if order.oid not in self.books[order.market.name].orders:
                    continue
                if order.market.is_spot:
                    token, need = self.ledger.spot_need(order.market, order.is_buy, order.px, order.sz)
                    held[token] = held.get(token, 0) + need
                elif not order.reduce_only:
                    resting.setdefault(order.market.name, [0, 0])[not order.is_buy] += order.sz
            counted = {coin: lots for coin, lots in account.resting.items() if any(lots)}
            assert counted == resting, f"{account.address}: resting {counted} should be {resting}"
            assert {token: wei for token, wei in account.held.items() if wei} == held, f"{account.address}: held"

    def new_hash(self) -> str:
        """The hash of the transaction that happens now."""
        self._transactions += 1
        digest = hashlib.blake2b(f"{self._seed}:{self._transactions}".encode(), digest_size=32)
        self._hash = "0x" + digest.hexdigest()
        return self._hash

    # Requests.

    def execute(self, envelope: Envelope) -> JsonObject:
        """Judge and carry out one action; the body of the answer."""
        action, nonce, _, vault, expires_after = envelope
        try:
            signer, account = self._who(envelope)
            if expires_after is not None and self.now_ms > expires_after:
                account.requests += 5
                raise Refused("Action already expired")
            spent = self.nonces.setdefault(signer, Nonces())
            if refusal := spent.refusal(nonce, self.now_ms):
                raise Refused(refusal)
            inner = action.get("nonce", action.get("time") if action["type"] in USER_SIGNED else None)
            if inner is not None and inner != nonce:
                raise Refused("Nonce mismatch.")
            spent.spend(nonce)
            if vault is not None:
                if action["type"] not in TAKES_VAULT:
                    raise Refused(f"Vault not registered: {vault}")
                account = self._vault(account, vault)
            # A batch of n counts as n. Source: exchange docs, "Rate limits and user limits", address-based limits.
            count = max(1, *(len(action.get(key, ())) for key in ("orders", "cancels", "modifies")))
            used, volume = account.requests, account.volume
            if text := self.budgets.refusal(account.address, action["type"], used, count, volume, self.now_ms):
                raise Refused(text)
            account.requests += count
            self.new_hash()
            self.touched[account] = None
            return self._handlers[action["type"]](account, action)
        except Refused as refused:
            return {"status": "err", "response": str(refused)}

    def _who(self, envelope: Envelope) -> tuple[str, Account]:
        """The address that signed, and the account it may act for. Raises Refused in the venue's words."""
        action, nonce, signature, vault, expires_after = envelope
        own = action["type"] in USER_SIGNED
        try:
            if own:
                if action["hyperliquidChain"] != ("Mainnet" if self.rules.mainnet else "Testnet"):
                    raise Refused("Mainnet and testnet require different signature.")
                signer = user_signer(action, signature)
            else:
                signer = l1_signer(action, nonce, vault, expires_after, signature, self.rules.mainnet)
        except BadSignature:
            raise Refused("Unable to recover signer.") from None
        # An agent stays one, whatever somebody sends to its address.
        master = self.agents.get(signer)
        if master is not None and not own and not self._expired(master.agents[signer]):
            return signer, master
        account = self.ledger.accounts.get(signer)
        if account is not None and account.kind == "user" and master is None:
            return signer, account
        if own:
            raise Refused(f"Must deposit before performing actions. User: {signer}")
        raise Refused(f"User or API Wallet {signer} does not exist.")

    def _expired(self, agent: Agent) -> bool:
        return agent.valid_until_ms is not None and agent.valid_until_ms <= self.now_ms

    def _vault(self, account: Account, address: str) -> Account:
        found = self.ledger.accounts.get(address)
        if found is None or found.master != account.address:
            raise Refused(f"Vault not registered: {address}")
        return found

    # Orders.

    def _order(self, account: Account, action: JsonObject) -> JsonObject:
        builder, grouping, wires = action.get("builder"), action["grouping"], action["orders"]
        paid_to = None
        if builder is not None:
            paid_to = (builder["b"], builder["f"])
            # A sub-account is its master's; a vault's depositors have approved nothing.
            is_sub = account.kind == "subAccount" and account.master is not None
            approved_by = self.ledger.accounts[account.master or ""] if is_sub else account
            if approved_by.builders.get(builder["b"], -1) < builder["f"]:
                return ok({"statuses": [{"error": "Builder fee has not been approved."}]}, "order")
        try:
            if not wires:
                raise _Batch("Orders are empty.")
            self._check_assets(wire["a"] for wire in wires)
            orders = [self._read_order(account, wire, paid_to) for wire in wires]
            if grouping == "normalTpsl":
                self._check_group(orders, orders[1:], orders[0].is_buy)
            elif grouping == "positionTpsl":
                self._check_group(orders, orders, None)
        except _Batch as refused:
            return ok({"statuses": [{"error": str(refused)}]}, "order")
        if grouping == "normalTpsl":
            statuses = self._place_group(orders)
        else:
            for order in orders:
                order.is_position_tpsl = grouping == "positionTpsl"
            statuses = [self._place(order) for order in orders]
        return ok({"statuses": statuses}, "order")

    def _check_assets(self, assets: Iterable[int]) -> None:
        """An unknown one refuses the whole action, before any of it is carried out."""
        for asset in assets:
            if asset not in self.by_asset:
                raise Refused("Invalid spot" if 10_000 <= asset < 100_000 else "Invalid asset")

    def _check_group(self, orders: list[Order], children: list[Order], parent_buys: bool | None) -> None:
        if not children or any(child.trigger is None for child in children):
            raise _Batch("Unexpected number of trigger orders")
        for child in children:
            if not child.reduce_only:
                raise _Batch("Trigger order is not reduce only.")
            if parent_buys is not None and (child.is_buy == parent_buys or child.market is not orders[0].market):
                raise _Batch("Trigger order has unexpected side.")

    def _place_group(self, orders: list[Order]) -> list[Any]:
        """A parent and its take-profit and stop-loss, which wait until it is filled completely."""
        parent, children = orders[0], orders[1:]
        parent.children = children
        first = self._place(parent)
        if "error" in first:
            return [first, *[dict(first) for _ in children]]
        statuses: list[Any] = [first]
        for child in children:
            if not parent.is_open and parent.status != "filled":
                statuses.append({"error": "Parent order was canceled."})
                continue
            child.parent = parent
            child.oid = self._oid = self._oid + 1
            self._remember(child)
            self._enter(child, waits=parent.is_open)
            statuses.append("waitingForFill" if parent.is_open else "waitingForTrigger")
        return statuses

    def _read_order(self, account: Account, wire: JsonObject, builder: tuple[str, int] | None) -> Order:
        """An order that has the right shape; raises _Batch for what depends on the payload alone."""
        market = self.by_asset[wire["a"]]
        trigger_wire = wire["t"].get("trigger")
        suffix = f" asset={market.asset}"
        sz, exact = read_decimal(wire["s"], market.sz_decimals)
        if not exact or sz < 0:
            raise _Batch("Order has invalid size." + suffix)
        if sz == 0 and not (trigger_wire and wire["r"]):
            raise _Batch("Order has zero size." + suffix)
        if market.is_spot and wire["r"]:
            raise _Batch("Reduce-only is invalid for spot trading." + suffix)
        px = self._read_px(market, wire["p"], suffix)
        trigger = None
        if trigger_wire is not None:
            trigger_px, exact = read_decimal(trigger_wire["triggerPx"], market.px_decimals)
            if not exact or not market.is_valid_px(trigger_px):
                raise _Batch("Invalid TP/SL price." + suffix)
            is_above = (trigger_wire["tpsl"] == "tp") != wire["b"]
            trigger = Trigger(trigger_px, trigger_wire["isMarket"], trigger_wire["tpsl"], is_above)
        else:
            mark, band = self.marks[market.name], self.rules.band_percent
            if not mark * (100 - band) <= px * 100 <= mark * (100 + band):
                raise _Batch(f"Order price cannot be more than {band}% away from the reference price")
        tif = None if trigger_wire is not None else wire["t"]["limit"]["tif"]
        return Order(
            0, account, market, wire["b"], px, sz, tif, wire["r"], wire.get("c"), self.now_ms, sz, trigger,
            builder=None if market.is_spot else builder, status_ms=self.now_ms,
        )  # fmt: skip

    def _read_px(self, market: Market, text: str, suffix: str) -> int:
        px, exact = read_decimal(text, market.px_decimals)
        if px <= 0 and exact:
            raise _Batch("Order has invalid price." + suffix)
        if not exact or not market.is_valid_px(px):
            raise _Batch("Price must be divisible by tick size." + suffix)
        return px

    def _place(self, order: Order) -> JsonObject:
        """Judge and enter one order; its entry in the answer."""
        order.oid = self._oid = self._oid + 1
        if not order.account.is_house:
            self._remember(order)
        try:
            self._judge(order)
            if order.trigger is not None:
                self._enter(order)
                return {"resting": self._named(order)}
            return self._trade(order)
        except _OrderRefused as refused:
            order.status, order.status_ms = refused.status or "rejected", self.now_ms
            self._ended(order)
            return {"error": f"{refused.text} asset={order.market.asset}"}

    def _named(self, order: Order) -> JsonObject:
        return {"oid": order.oid} if order.cloid is None else {"oid": order.oid, "cloid": order.cloid}

    def _remember(self, order: Order) -> None:
        self.orders[order.oid] = order
        self.stories.setdefault(order.account.address, {})[order.oid] = order
        if order.cloid is not None:
            self.cloids[order.account.address, order.cloid] = order

    def _judge(self, order: Order) -> None:
        """Raise _OrderRefused for what depends on the state of market and account."""
        account, market = order.account, order.market
        if market.is_delisted:
            raise _OrderRefused("Trading is halted.", "rejected")
        has = account.position(market.name)
        if order.reduce_only and (has == 0 or (has > 0) == order.is_buy):
            raise _OrderRefused("Reduce only order would increase position.", "reduceOnlyRejected")
        small = order.px * order.sz < _MIN_NOTIONAL * 10**market.decimals
        if small and order.sz and not (order.reduce_only and abs(has) * order.px < _MIN_NOTIONAL * 10**market.decimals):
            least = "10 USDC" if market.is_spot else "$10"
            raise _OrderRefused(f"Order must have minimum value of {least}.", "minTradeNtlRejected")
        # Source: exchange docs, "Rate limits and user limits", open orders.
        most = min(_MOST_OPEN_ORDERS, _OPEN_ORDERS + account.volume // _VOLUME_OF_AN_ORDER)
        if len(account.orders) >= (_OPEN_ORDERS if order.reduce_only or order.trigger is not None else most):
            raise _OrderRefused("Too many open orders", "tooManyOpenOrdersRejected")
        if order.trigger is not None:
            mark = self.marks[market.name]
            if (mark >= order.trigger.px) if order.trigger.is_above else (mark <= order.trigger.px):
                raise _OrderRefused("Invalid TP/SL price.", "badTriggerPxRejected")
            return
        self._judge_funds(order)
        if order.tif == "Alo" and self.books[market.name].would_match(order.is_buy, order.px):
            texts = [
                market.px_text(best.px).removesuffix(".0") if best is not None else "None"
                for best in (self.books[market.name].best(True), self.books[market.name].best(False))
            ]
            text = f"Post only order would have immediately matched, bbo was {texts[0]}@{texts[1]}."
            raise _OrderRefused(text, "badAloPxRejected")

    def _judge_funds(self, order: Order) -> None:
        account, market = order.account, order.market
        if market.is_spot:
            if not self.ledger.can_pay(account, market, order.is_buy, order.px, order.sz):
                raise _OrderRefused("Insufficient spot balance", "insufficientSpotBalanceRejected")
        elif not order.reduce_only and not self.ledger.can_open(account, market, order.is_buy, order.px, order.sz):
            raise _OrderRefused("Insufficient margin to place order.", "perpMarginRejected")

    def _trade(self, order: Order) -> JsonObject:
        """Match an order that was found good, and rest or cancel what is left."""
        if order.reduce_only:
            order.sz = min(order.sz, abs(order.account.position(order.market.name)))
        wanted = order.sz
        ntl = self._match(order)
        got = wanted - order.sz
        if order.sz and order.tif in ("Ioc", "FrontendMarket"):
            if not got:
                text = "Order could not immediately match against any resting orders."
                raise _OrderRefused(text, "iocCancelRejected")
            order.status, order.status_ms = "canceled", self.now_ms
            self._ended(order)
        elif order.sz:
            self._enter(order)
            if not got or self.rules.partial_gtc_answer == "resting":
                return {"resting": self._named(order)}
        average = (2 * ntl + got) // (2 * got)
        market = order.market
        return {"filled": {"totalSz": market.sz_text(got), "avgPx": market.px_text(average), **self._named(order)}}

    def _match(self, order: Order) -> int:
        """Trade with what the book holds, and end an order that is filled; returns the notional."""
        market, taker = order.market, order.account
        book = self.books[market.name]
        ntl = 0

        def allowed(maker: Order) -> int:
            if maker.account is taker:
                self.finish(maker, "selfTradeCanceled")
                return 0
            if maker.reduce_only:
                has = maker.account.position(market.name)
                if has == 0 or (has > 0) == maker.is_buy:
                    self.finish(maker, "reduceOnlyCanceled")
                    return 0
                return min(maker.sz, abs(has))
            return maker.sz

        def filled(maker: Order, sz: int) -> None:
            nonlocal ntl
            ntl += maker.px * sz
            order.sz -= sz
            self._filled(order, maker, maker.px, sz)

        book.match(order.is_buy, order.px, order.sz, allowed, filled)
        if order.sz == 0:
            order.status, order.status_ms = "filled", self.now_ms
            self._ended(order)
        self._after_trades()
        return ntl

    def _filled(self, taker: Order, maker: Order, px: int, sz: int) -> None:
        market = taker.market
        # An odd step visits every one of the 2**50 numbers before it repeats one.
        self._tid = (self._tid + 0x2545F4914F6CD) % (1 << _TID_BITS)
        if not maker.account.is_house:
            self.ledger.hold(maker.account, maker, -sz)
        buyer, seller = (taker, maker) if taker.is_buy else (maker, taker)
        trade = Trade(
            "B" if taker.is_buy else "A", px, sz, self.now_ms, self._hash, self._tid,
            buyer.account.address, seller.account.address,
        )  # fmt: skip
        self.trades[market.name].append(trade)
        turnover = self.turnover[market.name]
        turnover[0] += px * sz
        turnover[1] += sz
        self._block_trades.setdefault(market.name, []).append(trade)
        for order, crossed in ((taker, True), (maker, False)):
            account = order.account
            fill = self.ledger.trade(account, order, px, sz, crossed, self.now_ms, self._hash, self._tid)
            self._moved.setdefault(account, set()).add(market.name)
            if not account.is_house:
                account.fills.append(fill)
                self.new_fills.setdefault(account, []).append((fill, crossed))
                self.touched[account] = None
        if maker.sz == 0:
            maker.status, maker.status_ms, maker.rests = "filled", self.now_ms, False
            maker.account.orders.pop(maker.oid, None)
            self._ended(maker)
        elif self.rules.partial_fill_updates:
            self._tell(maker)

    def _after_trades(self) -> None:
        """Reduce-only orders that no longer reduce anything go."""
        moved, self._moved = self._moved, {}
        for account, coins in moved.items():
            for order in list(account.orders.values()):
                if not order.reduce_only or order.market.name not in coins:
                    continue
                if order.trigger is None or order.is_position_tpsl or order.status == "triggered":
                    has = account.position(order.market.name)
                    if has == 0 or (has > 0) == order.is_buy:
                        self.finish(order, "reduceOnlyCanceled")

    def _enter(self, order: Order, waits: bool = False) -> None:
        """Rest: on the book, or beside it until the mark price says otherwise (or the parent: `waits`)."""
        order.rests = True
        if not order.account.is_house:
            order.account.orders[order.oid] = order
        if order.trigger is None or order.status == "triggered":
            self.books[order.market.name].insert(order)
            if not order.account.is_house:
                self.ledger.hold(order.account, order, order.sz)
        elif not waits:
            self._arm(order)
        self._tell(order)

    def _arm(self, order: Order) -> None:
        self.triggers[order.market.name][order.oid] = order
        self._armed.add(order.market.name)

    def finish(self, order: Order, status: str) -> None:
        """End an order that rests, for a reason that is the venue's word; "canceled" is by the user's own will."""
        name = order.market.name
        if order.oid in self.books[name].orders:
            self.books[name].remove(order)
            if not order.account.is_house:
                self.ledger.hold(order.account, order, -order.sz)
        self.triggers[name].pop(order.oid, None)
        order.account.orders.pop(order.oid, None)
        order.status, order.status_ms, order.rests = status, self.now_ms, False
        if status != "canceled" and not order.account.is_house:
            order.account.non_user_cancels.append({"coin": name, "oid": order.oid})
        self._ended(order)

    def _ended(self, order: Order) -> None:
        """What follows from the end of an order: its update, and the fate of parents, children and siblings."""
        self._tell(order)
        if order.account.is_house:
            return
        self._finished.append((self.block.number + 1, order))
        for child in order.children:
            if not child.rests:
                continue
            if order.status == "filled":
                self._arm(child)
            else:
                self.finish(child, "canceled")
        if order.status == "filled" and order.parent is not None:
            for sibling in order.parent.children:
                if sibling.rests:
                    self.finish(sibling, "siblingFilledCanceled")

    def _tell(self, order: Order) -> None:
        account = order.account
        if not account.is_house:
            self.touched[account] = None
            account.updates.append({"order": order.basic(), "status": order.status, "statusTimestamp": self.now_ms})

    # Cancel and modify.

    def _find(self, account: Account, asset: int | None, key: int | str) -> Order | None:
        """An open order of the account by oid or cloid."""
        order = self.orders.get(key) if isinstance(key, int) else self.cloids.get((account.address, key))
        if order is None or order.account is not account or not order.is_open or not order.rests:
            return None
        return order if asset is None or order.market.asset == asset else None

    def _cancel(self, account: Account, cancels: list[tuple[int, int | str]], fast: bool) -> JsonObject:
        if not cancels:
            return ok({"statuses": [{"error": "Orders are empty."}]}, "cancel")
        self._check_assets(asset for asset, _ in cancels)
        statuses: list[Any] = []
        for asset, key in cancels:
            order = self._find(account, asset, key)
            if order is None or (fast and order.trigger is not None):
                statuses.append({"error": f"{NOT_FOUND} asset={asset}"})
            else:
                self.finish(order, "canceled")
                statuses.append("success")
        return ok({"statuses": statuses}, "cancel")

    def _cancel_by_oid(self, account: Account, action: JsonObject) -> JsonObject:
        return self._cancel(account, [(c["a"], c["o"]) for c in action["cancels"]], "f" in action)

    def _cancel_by_cloid(self, account: Account, action: JsonObject) -> JsonObject:
        return self._cancel(account, [(c["asset"], c["cloid"]) for c in action["cancels"]], "f" in action)

    def _modify(self, account: Account, key: int | str, new: Order, always: bool) -> JsonObject:
        """Cancel one order and place another. Raises _OrderRefused, with a status when the old order is gone."""
        old = self._find(account, None, key)
        if not always:
            if old is None or old.trigger is not None:
                raise _OrderRefused(CANNOT_MODIFY)
            crosses = self.books[new.market.name].would_match(new.is_buy, new.px)
            if new.tif not in ("Alo", "Gtc") or (new.tif == "Gtc" and crosses):
                raise _OrderRefused("Attempted to modify to invalid new order")
            new.tif = "Alo"
        open_first = self.rules.modify_updates == "open first" or (
            self.rules.modify_updates == "random" and self._rng.random() < 0.5
        )
        updates, account.updates = account.updates, []
        if old is not None:
            self.finish(old, "canceled")
        canceled, account.updates = account.updates, []
        entry = self._place(new)
        placed, account.updates = account.updates, updates
        account.updates += [*placed, *canceled] if open_first else [*canceled, *placed]
        if "error" in entry and old is not None:
            raise _OrderRefused(f"Error placing new order during modify: {entry['error']}")
        return entry

    def _plain_modify(self, account: Account, action: JsonObject) -> JsonObject:
        self._check_assets([action["order"]["a"]])
        try:
            new = self._read_order(account, action["order"], None)
            entry = self._modify(account, action["oid"], new, "a" in action)
        except _OrderRefused as refused:
            raise Refused(refused.text) from None
        except _Batch as refused:
            raise Refused(str(refused)) from None
        if "error" in entry:
            raise Refused(entry["error"])
        return ok()

    def _batch_modify(self, account: Account, action: JsonObject) -> JsonObject:
        statuses: list[JsonObject] = []
        modifies = action["modifies"]
        try:
            if not modifies:
                raise _Batch("Orders are empty.")
            self._check_assets(item["order"]["a"] for item in modifies)
            orders = [self._read_order(account, item["order"], None) for item in modifies]
        except _Batch as refused:
            return ok({"statuses": [{"error": str(refused)}]}, "order")
        for item, new in zip(modifies, orders, strict=True):
            try:
                statuses.append(self._modify(account, item["oid"], new, "a" in action))
            except _OrderRefused as refused:
                statuses.append({"error": refused.text})
        return ok({"statuses": statuses}, "order")

    # Triggers and marks.

    def set_mark(self, coin: str, px: int) -> None:
        """The mark price that margin, profit and triggers go by; triggers fire at the end of the block."""
        if px != self.marks[coin]:
            self.marks[coin] = px
            self._marked.add(coin)

    def _fire_triggers(self) -> None:
        coins, self._armed = sorted(self._marked | self._armed), set()
        for name in coins:
            mark = self.marks[name]
            for order in list(self.triggers[name].values()):
                trigger = order.trigger
                assert trigger is not None
                if order.is_open and (mark >= trigger.px if trigger.is_above else mark <= trigger.px):
                    self._fire(order)

    def _fire(self, order: Order) -> None:
        account, market = order.account, order.market
        assert order.trigger is not None
        self.new_hash()
        self.triggers[market.name].pop(order.oid, None)
        account.orders.pop(order.oid, None)
        order.rests = False
        has = account.position(market.name)
        if order.reduce_only:
            if has == 0 or (has > 0) == order.is_buy:
                self.finish(order, "reduceOnlyCanceled")
                return
            order.sz = abs(has) if order.sz == 0 else min(order.sz, abs(has))
            order.orig_sz = max(order.orig_sz, order.sz)
        order.status, order.status_ms = "triggered", self.now_ms
        self._tell(order)
        try:
            self._judge_funds(order)
        except _OrderRefused as refused:
            self.finish(order, refused.status or "rejected")
            return
        wanted = order.sz
        self._match(order)
        if order.sz and not order.trigger.is_market:
            order.tif = "Gtc"
            self._enter(order)
        elif order.sz:
            self.finish(order, "canceled" if order.sz < wanted else "marketOrderNoLiquidityRejected")

    def _schedule_cancel(self, account: Account, action: JsonObject) -> JsonObject:
        needed, traded = self.rules.cancel_volume_usd, account.volume // 10**PERP_DECIMALS
        if traded < needed:
            text = (
                f"Cannot set scheduled cancel time until enough volume traded. Required: ${needed}. Traded: ${traded}."
            )
            raise Refused(text)
        time_ms = action.get("time")
        if time_ms is not None and time_ms < self.now_ms + _MIN_CANCEL_DELAY_MS:
            raise Refused("Scheduled cancel time too early, must be at least 5 seconds from now.")
        if time_ms is not None and account.scheduled_cancels.get(self.now_ms // _DAY_MS, 0) >= _CANCELS_PER_DAY:
            raise Refused(f"Too many scheduled cancels triggered for the day. Limit is {_CANCELS_PER_DAY}")
        account.cancel_at_ms = time_ms
        return ok()

    # The venue's own traders, and a test's hand.

    def quote(
        self, accounts: Sequence[Account], market: Market, is_buy: bool, px: int, sizes: Sequence[int]
    ) -> list[Order]:
        """Rest post-only orders of the house at one price; none where they would trade."""
        book = self.books[market.name]
        if book.would_match(is_buy, px):
            return []
        orders = []
        for account, sz in zip(accounts, sizes, strict=True):
            self._oid += 1
            made = Order(self._oid, account, market, is_buy, px, sz, "Alo", False, None, self.now_ms, sz, rests=True)
            orders.append(made)
        book.insert(*orders)
        return orders

    def unquote(self, *orders: Order) -> None:
        """Take resting orders of the house, of one side and price, back."""
        self.books[orders[0].market.name].remove(*orders)
        for order in orders:
            order.status, order.rests = "canceled", False

    def take(self, account: Account, market: Market, is_buy: bool, px: int, sz: int) -> int:
        """Trade up to `sz` lots at `px` or better, at once; returns how many were traded."""
        self._oid += 1
        self.new_hash()
        order = Order(self._oid, account, market, is_buy, px, sz, "Ioc", False, None, self.now_ms, sz)
        self._match(order)
        return sz - order.sz

    # Listings.

    def list_market(self, market: Market) -> None:
        """A new market, empty. It appears in the metadata at once."""
        name = market.name
        self.markets[name] = self.by_asset[market.asset] = market
        self.books[name], self.marks[name], self.triggers[name] = Book(), market.home_px, {}
        self.trades[name], self._versions[name], self.turnover[name] = deque(maxlen=30), 0, [0, 0]
        self.block = replace(self.block, books={**self.block.books, name: self.books[name].freeze()})
        self.history[self.block.time_ms] = self.block

    def delist(self, name: str) -> None:
        """Stop trading a market: its orders are canceled, its entry stays and says so."""
        market = replace(self.markets[name], is_delisted=True)
        for order in [*self.books[name].orders.values(), *self.triggers[name].values()]:
            if order.is_open:
                self.finish(order, "delistedCanceled")
        self.markets[name] = self.by_asset[market.asset] = market
