"""Accounts: balances, positions, margin and fees, in whole numbers so that nothing is ever created or lost.

Perp money is counted in millionths of a dollar, a spot token in its wei. An account's perp cash is what the venue
calls `totalRawUsd`: every buy lowers it by its notional and every sell raises it, so its worth is cash plus positions
at the mark price, and all cash of a dex adds up to what was paid in.

Simpler than the real venue: no funding, no liquidation, one margin tier a market, and margin is asked for the larger
of what an account has and what it would have if all its orders of one side filled, at the mark price.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .markets import PERP_DECIMALS, USDC, Market, Token, decimal_text

if TYPE_CHECKING:
    from .orders import Order

__all__ = ["MAX_FILLS", "Account", "Agent", "Fees", "Fill", "Ledger", "Position"]

MAX_FILLS = 10_000


@dataclass(frozen=True, slots=True)
class Fees:
    """Rates in hundred-thousandths of the notional: 45 is 0.045 %. Source: exchange docs, "Fees", the lowest tier."""

    perp_taker: int = 45
    perp_maker: int = 15
    spot_taker: int = 70
    spot_maker: int = 40

    def rate(self, market: Market, crossed: bool) -> int:
        if market.is_spot:
            return self.spot_taker if crossed else self.spot_maker
        return self.perp_taker if crossed else self.perp_maker


_RATE_UNIT = 100_000


@dataclass(slots=True)
class Position:
    """szi: signed lots. entry_ntl: what the open part cost, positive. raw_usd: the cash of an isolated position."""

    market: Market
    szi: int = 0
    entry_ntl: int = 0
    is_cross: bool = True
    raw_usd: int = 0


@dataclass(frozen=True, slots=True)
class Fill:
    """One side of one trade, as the account sees it. Numbers are in units of the market's grid.

    fee: in units of 10**-fee_decimals of fee_token, builder_fee included.
    """

    market: Market
    px: int
    sz: int
    is_buy: bool
    time_ms: int
    start_position: int
    dir: str
    closed_pnl: int
    hash: str
    oid: int
    crossed: bool
    fee: int
    fee_decimals: int
    fee_token: str
    tid: int
    cloid: str | None
    builder_fee: int | None = None

    def wire(self) -> dict[str, Any]:
        market = self.market
        entry: dict[str, Any] = {
            "coin": market.name,
            "px": market.px_text(self.px),
            "sz": market.sz_text(self.sz),
            "side": "B" if self.is_buy else "A",
            "time": self.time_ms,
            "startPosition": market.sz_text(self.start_position),
            "dir": self.dir,
            "closedPnl": market.notional_text(self.closed_pnl),
            "hash": self.hash,
            "oid": self.oid,
            "crossed": self.crossed,
            "fee": decimal_text(self.fee, self.fee_decimals),
            "tid": self.tid,
        }
        if self.cloid is not None:
            entry["cloid"] = self.cloid
        if self.builder_fee is not None:
            entry["builderFee"] = decimal_text(self.builder_fee, self.fee_decimals)
        return entry | {"feeToken": self.fee_token, "twapId": None}

    def joined(self, later: Fill) -> Fill:
        """This and a later fill of the same order as one, at their average price."""
        sz = self.sz + later.sz
        return replace(
            self,
            px=(2 * (self.px * self.sz + later.px * later.sz) + sz) // (2 * sz),
            sz=sz,
            closed_pnl=self.closed_pnl + later.closed_pnl,
            fee=self.fee + later.fee,
            builder_fee=None if self.builder_fee is None else self.builder_fee + (later.builder_fee or 0),
        )


@dataclass(frozen=True, slots=True)
class Agent:
    name: str
    valid_until_ms: int | None


@dataclass(slots=True, eq=False)
class Account:
    """One address. kind: "user", "subAccount" or "vault"; master: who may act for the latter two.

    is_house: one of the venue's own traders, whose margin nobody checks and whose story nobody keeps.
    """

    address: str
    kind: str = "user"
    master: str | None = None
    name: str = ""
    is_house: bool = False
    cash: dict[str, int] = field(default_factory=dict)
    spot: dict[Token, int] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)
    leverage: dict[str, tuple[int, bool]] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    #: Lots of resting, not reduce-only orders by coin: (bought, sold) if all filled.
    resting: dict[str, list[int]] = field(default_factory=dict)
    #: Spot amounts bound by resting orders.
    held: dict[Token, int] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    builders: dict[str, int] = field(default_factory=dict)
    fills: deque[Fill] = field(default_factory=lambda: deque(maxlen=MAX_FILLS))
    volume: int = 0
    requests: int = 0
    cancel_at_ms: int | None = None
    scheduled_cancels: dict[int, int] = field(default_factory=dict)
    abstraction: str = "default"
    referrer: str | None = None
    updates: list[dict[str, Any]] = field(default_factory=list)
    non_user_cancels: list[dict[str, Any]] = field(default_factory=list)

    def position(self, coin: str) -> int:
        found = self.positions.get(coin)
        return found.szi if found is not None else 0


class Ledger:
    """All accounts, and the rules of money. `marks` gives the mark price of each perp; it belongs to the exchange."""

    def __init__(self, markets: dict[str, Market], marks: dict[str, int], fees: Fees) -> None:
        self.markets, self.marks, self.fees = markets, marks, fees
        self.accounts: dict[str, Account] = {}
        self.collected: dict[str | Token, int] = {}  # fees, by dex (perp money) or token
        self.paid_in: dict[str | Token, int] = {}

    def open(self, address: str, **more: Any) -> Account:
        account = self.accounts.get(address)
        if account is None:
            account = self.accounts[address] = Account(address, **more)
        return account

    def pay_in(self, account: Account, what: str | Token, amount: int) -> None:
        """From outside: a dex's money in millionths of a dollar, or a token in wei. Negative: out again."""
        self.paid_in[what] = self.paid_in.get(what, 0) + amount
        self.credit(account, what, amount)

    def credit(self, account: Account, what: str | Token, amount: int) -> None:
        if isinstance(what, Token):
            account.spot[what] = account.spot.get(what, 0) + amount
        else:
            account.cash[what] = account.cash.get(what, 0) + amount

    def move(self, source: Account, from_what: str | Token, target: Account, to_what: str | Token, micro: int) -> None:
        """Dollars between accounts, dexs and spot. Perp money becomes spot USDC one for one."""
        wei = micro * 10 ** (USDC.wei_decimals - PERP_DECIMALS)
        out, back = (wei if isinstance(what, Token) else micro for what in (from_what, to_what))
        if from_what != to_what:
            self.paid_in[from_what] = self.paid_in.get(from_what, 0) - out
            self.paid_in[to_what] = self.paid_in.get(to_what, 0) + back
        self.credit(source, from_what, -out)
        self.credit(target, to_what, back)

    # Margin.

    def leverage_of(self, account: Account, market: Market) -> tuple[int, bool]:
        """(leverage, whether cross). The default is 20, at most the market's maximum; isolated where cross is not."""
        return account.leverage.get(market.name, (min(20, market.max_leverage), "onlyIsolated" not in dict(market.odd)))

    def value(self, account: Account, dex: str) -> int:
        """Worth of the cross part: cash plus cross positions at the mark price."""
        worth = account.cash.get(dex, 0)
        for position in account.positions.values():
            if position.is_cross and position.market.dex == dex:
                worth += position.szi * self.marks[position.market.name]
        return worth

    def margin(self, account: Account, market: Market, buy: int = 0, sell: int = 0) -> int:
        """Cross margin that a market binds, with `buy` and `sell` more lots resting."""
        position = account.positions.get(market.name)
        szi = position.szi if position is not None else 0
        resting = account.resting.get(market.name)
        bought, sold = resting if resting is not None else (0, 0)
        lots = max(abs(szi + bought + buy), abs(szi - sold - sell), abs(szi))
        if position is not None and not position.is_cross:
            lots = max(0, lots - abs(szi))
        leverage, _ = self.leverage_of(account, market)
        return -(-lots * self.marks[market.name] // leverage)

    def position_margin(self, account: Account, position: Position) -> int:
        """What a position alone uses."""
        ntl = position.szi * self.marks[position.market.name]
        if not position.is_cross:
            return position.raw_usd + ntl
        return -(-abs(ntl) // self.leverage_of(account, position.market)[0])

    def loss(self, market: Market, is_buy: bool, px: int, sz: int) -> int:
        """What buying or selling at this price loses at once, the mark price being what it is."""
        mark = self.marks[market.name]
        return sz * max(0, px - mark if is_buy else mark - px)

    def bound(self, account: Account, dex: str) -> int:
        """Of the cross part: margin of positions and resting orders, and what the latter would lose when filled."""
        coins = [self.markets[coin] for coin in dict.fromkeys([*account.positions, *account.resting])]
        margin = sum(self.margin(account, market) for market in coins if market.dex == dex and not market.is_spot)
        return margin + sum(
            self.loss(order.market, order.is_buy, order.px, order.sz)
            for order in account.orders.values()
            if order.market.dex == dex and not (order.market.is_spot or order.reduce_only or order.waits)
        )

    def free(self, account: Account, dex: str) -> int:
        return self.value(account, dex) - self.bound(account, dex)

    def can_open(self, account: Account, market: Market, is_buy: bool, px: int, sz: int) -> bool:
        """Whether `sz` lots more on this side, at `px`, have their margin; what reduces a position needs none."""
        if account.is_house:
            return True
        before, after = self.margin(account, market), self.margin(account, market, *((sz, 0) if is_buy else (0, sz)))
        return after <= before or self.free(account, market.dex) >= after - before + self.loss(market, is_buy, px, sz)

    # Spot.

    def spot_need(self, market: Market, is_buy: bool, px: int, sz: int) -> tuple[Token, int]:
        """The token that an order binds, and how much of it."""
        assert market.base is not None
        if is_buy:
            return USDC, px * sz
        return market.base, sz * 10 ** (market.base.wei_decimals - market.sz_decimals)

    def can_pay(self, account: Account, market: Market, is_buy: bool, px: int, sz: int) -> bool:
        token, need = self.spot_need(market, is_buy, px, sz)
        return account.is_house or account.spot.get(token, 0) - account.held.get(token, 0) >= need

    # Resting orders bind margin or balance.

    def hold(self, account: Account, order: Order, sz: int) -> None:
        """Count `sz` lots of a resting order in, or out when negative."""
        market = order.market
        if market.base is not None:
            token, need = self.spot_need(market, order.is_buy, order.px, sz)
            account.held[token] = account.held.get(token, 0) + need
        elif not order.reduce_only:
            account.resting.setdefault(market.name, [0, 0])[not order.is_buy] += sz

    # Trades.

    def trade(
        self, account: Account, order: Order, px: int, sz: int, crossed: bool, time_ms: int, tx_hash: str, tid: int
    ) -> Fill:
        """One side of a fill: money, position, fee. Returns what the account is told."""
        market, is_buy = order.market, order.is_buy
        ntl = px * sz
        account.volume += ntl if not market.is_spot else ntl // 10 ** (market.decimals - PERP_DECIMALS)
        rate = 0 if account.is_house else self.fees.rate(market, crossed)
        builder_fee = None
        if market.base is not None:
            start, dir_, pnl = self._trade_spot(account, market, is_buy, sz, ntl)
            token = market.base if is_buy else USDC
            earned = sz * 10 ** (token.wei_decimals - market.sz_decimals) if is_buy else ntl
            fee = earned * rate // _RATE_UNIT
            self._take_fee(account, token, fee)
            decimals, fee_token = token.wei_decimals, token.name
        else:
            start, dir_, pnl = self._trade_perp(account, market, is_buy, px, sz)
            fee = ntl * rate // _RATE_UNIT
            if order.builder is not None:
                builder_fee = ntl * order.builder[1] // _RATE_UNIT
                fee += builder_fee
            self._take_fee(account, market.dex, fee)
            decimals, fee_token = market.decimals, "USDC"
        return Fill(
            market, px, sz, is_buy, time_ms, start, dir_, pnl, tx_hash, order.oid, crossed, fee, decimals, fee_token,
            tid, order.cloid, builder_fee,
        )  # fmt: skip

    def _take_fee(self, account: Account, what: str | Token, fee: int) -> None:
        self.collected[what] = self.collected.get(what, 0) + fee
        self.credit(account, what, -fee)

    def _trade_spot(self, account: Account, market: Market, is_buy: bool, sz: int, ntl: int) -> tuple[int, str, int]:
        assert market.base is not None
        unit = 10 ** (market.base.wei_decimals - market.sz_decimals)
        start = account.spot.get(market.base, 0) // unit
        sign = 1 if is_buy else -1
        self.credit(account, market.base, sign * sz * unit)
        self.credit(account, USDC, -sign * ntl)
        return start, "Buy" if is_buy else "Sell", 0

    def _trade_perp(self, account: Account, market: Market, is_buy: bool, px: int, sz: int) -> tuple[int, str, int]:
        position = account.positions.get(market.name)
        leverage, is_cross = self.leverage_of(account, market)
        if position is None:
            position = account.positions[market.name] = Position(market, is_cross=is_cross)
        start, pnl = position.szi, 0
        was_long = start > 0
        closing = min(abs(start), sz) if start and was_long != is_buy else 0
        opening = sz - closing
        if closing:
            cost = position.entry_ntl if closing == abs(start) else position.entry_ntl * closing // abs(start)
            pnl = px * closing - cost if was_long else cost - px * closing
            position.entry_ntl -= cost
            usd = px * closing if was_long else -px * closing
            if position.is_cross:
                account.cash[market.dex] = account.cash.get(market.dex, 0) + usd
            else:
                worth = position.raw_usd + start * px
                freed = worth if closing == abs(start) else worth * closing // abs(start)
                position.raw_usd += usd - freed
                account.cash[market.dex] = account.cash.get(market.dex, 0) + freed
            position.szi += closing if is_buy else -closing
        if opening:
            position.entry_ntl += px * opening
            usd = -px * opening if is_buy else px * opening
            if position.is_cross:
                account.cash[market.dex] = account.cash.get(market.dex, 0) + usd
            else:
                own = -(-px * opening // leverage)
                account.cash[market.dex] = account.cash.get(market.dex, 0) - own
                position.raw_usd += usd + own
            position.szi += opening if is_buy else -opening
        if position.szi == 0:
            account.cash[market.dex] += position.raw_usd
            del account.positions[market.name]
        if closing and opening:
            return start, "Long > Short" if was_long else "Short > Long", pnl
        if closing:
            return start, "Close Long" if was_long else "Close Short", pnl
        return start, "Open Long" if is_buy else "Open Short", pnl

    def check(self) -> None:
        """Raise AssertionError when money, tokens or contracts appeared or disappeared."""
        owned: dict[str | Token, int] = dict(self.collected)
        contracts: dict[str, int] = {}
        for account in self.accounts.values():
            for dex, cash in account.cash.items():
                owned[dex] = owned.get(dex, 0) + cash
            for token, wei in account.spot.items():
                owned[token] = owned.get(token, 0) + wei
                assert account.is_house or wei >= 0, f"{account.address} owes {token.name}"
            for coin, position in account.positions.items():
                contracts[coin] = contracts.get(coin, 0) + position.szi
                dex = position.market.dex
                owned[dex] = owned.get(dex, 0) + position.raw_usd
                assert position.szi, f"an empty position of {account.address} in {coin} was kept"
                assert position.entry_ntl >= 0, f"{account.address} paid less than nothing for {coin}"
        for what in owned.keys() | self.paid_in.keys():
            left, had = owned.get(what, 0), self.paid_in.get(what, 0)
            assert left == had, f"{getattr(what, 'name', what) or 'USDC'}: {had} was paid in, {left} is there"
        assert not any(contracts.values()), f"bought and sold contracts differ: {contracts}"
