"""A market maker of one coin: two post-only quotes follow the book and lean against the inventory; flat at the end.

    python examples/market_maker.py [--seconds 60] [--speed 1]        on the venue in a box, with faults on
    python examples/market_maker.py --key-file agent.txt --account 0x...      on testnet, for an agent's account

The key comes from a file with its 64 hex digits, never from the command line or the environment.
At the end everything is compared with what the venue says: the exit code is 0 only when all of it is equal. It shows
how to use the library, not how to earn money.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp

import hlconn
from hlconn import Book, Client, Order, OrderState, Side, Signer, Ticket, Tif, TrackedOrder, sim

COIN, SZ, MAX_POSITION, NONE = "BTC", Decimal("0.02"), Decimal("0.1"), Decimal(0)
HALF_SPREAD, TOLERANCE = 0.00003, 0.00005  # of the price: from the fair one to a quote, and before a quote is moved
PAUSE_S = 0.02
FAULTS = [  # what the real venue does too, more often
    sim.Fault("close", every_ms=20_000),
    sim.Fault("abort", every_ms=30_000),
    sim.Fault("lose_answer", p=0.02),
    sim.Fault("late_action", p=0.05, ms=1_500),
    sim.Fault("late_unanswered", p=0.03, ms=1_500),
    sim.Fault("duplicate", p=0.1),
    sim.Fault("delay", channel="orderUpdates", p=0.1, ms=500),
]
FILLED, CANCELED, NO_ORDER = {OrderState.FILLED}, {OrderState.CANCELED}, {OrderState.REJECTED, OrderState.NEVER}
log = logging.getLogger("market_maker")


@dataclass
class Quote:
    """One side. sign: of what it adds to the position. ticket: of the last action. order: through all its modifies."""

    side: Side
    sign: int
    ticket: Ticket | None = None
    order: TrackedOrder | None = None
    burned: Ticket | None = None


class MarketMaker:
    def __init__(self, hl: Client, book: Book) -> None:
        self.trader, self.book, self.instrument = hl.trader, book, hl.instruments[COIN]
        self.quotes = Quote(Side.BUY, 1), Quote(Side.SELL, -1)
        self.tops: deque[tuple[int, float, float]] = deque(maxlen=50)  # of the book, to be compared

    def on_book(self, book: Book) -> None:
        if not book.stale:
            self.tops.append((book.time_ms, book.best_bid, book.best_ask))
        self.requote()

    def requote(self) -> None:
        """Synchronous: what it sends has left before it returns. One action a side at a time."""
        for quote in self.quotes:
            ticket = quote.ticket
            try:
                if ticket is None or ticket.done:
                    self._move(quote, self._price(quote))
                elif ticket.unknown and quote.burned is not ticket:
                    log.info("%r is killed, so that it cannot come late", ticket)
                    quote.burned = ticket
                    ticket.burn()
            except hlconn.Throttled as exc:
                log.warning("%s", exc)

    def _price(self, quote: Quote) -> Decimal | None:
        """Where to quote; None: not at all."""
        book, positions = self.book, self.trader.positions
        position = positions[COIN].szi if COIN in positions else NONE
        if book.stale or not book.mid > 0 or position * quote.sign >= MAX_POSITION:
            return None
        fair = book.mid * (1 - HALF_SPREAD * float(position / MAX_POSITION))  # long: lower, to sell rather than buy
        px = fair * (1 - quote.sign * HALF_SPREAD)
        px = min(px, book.best_bid) if quote.side is Side.BUY else max(px, book.best_ask)
        return self.instrument.round_px(px, quote.side, "passive")

    def _move(self, quote: Quote, px: Decimal | None) -> None:
        trader, order = self.trader, quote.order
        wanted = None if px is None else Order(COIN, quote.side, px, SZ, Tif.ALO)
        if order is None or not order.may_be_live:
            if wanted is not None:
                quote.ticket = trader.submit(wanted)
                assert quote.ticket.cloid is not None
                quote.order = trader.order(quote.ticket.cloid)
        elif order.oid is not None and order.px is not None:
            if px is None or wanted is None:
                quote.ticket = trader.submit_cancel(COIN, order.oid)
            elif abs(order.px - px) > px * Decimal(TOLERANCE):
                quote.ticket = trader.submit_modify(order.oid, wanted)


async def flatten(hl: Client) -> None:
    """No order and no position is left, as the venue says too; TimeoutError when that cannot be had."""
    async with asyncio.timeout(60):
        while True:
            try:
                await hl.trader.cancel_all(COIN)  # also what was sent and is in doubt
                await hl.trader.reconcile()
                if COIN not in hl.trader.positions:
                    return
                await hl.trader.close(COIN)
            except hlconn.HlconnError as exc:
                log.info("not flat yet: %s", exc)
                await asyncio.sleep(PAUSE_S)


async def ask(hl: Client, kind: str, **request: object) -> Any:
    url, body = hl.endpoints.http_url + "/info", {"type": kind, **request}
    async with aiohttp.ClientSession(raise_for_status=True) as http, http.post(url, json=body) as answer:
        return await answer.json()


async def compare(hl: Client, maker: MarketMaker, before: Any, boxed: bool) -> list[str]:
    """What differs between us and the venue, in words. boxed: compare too what only the box can tell."""
    trader, account, start_ms = hl.trader, {"user": hl.trader.account}, before["time"]
    state, rest = await ask(hl, "clearinghouseState", **account), await ask(hl, "openOrders", **account)
    fills = {row["tid"]: row for row in await ask(hl, "userFillsByTime", startTime=start_ms, **account)}
    ends = {  # by oid, of what became an order since then
        row["order"]["oid"]: row["status"]
        for row in await ask(hl, "historicalOrders", **account)
        if row["order"]["timestamp"] >= start_ms and not row["status"].endswith("ejected")
    }
    left = (*trader.orders, *rest, *trader.positions.values(), *state["assetPositions"])
    differences = [f"{each} is left" for each in left]
    if fills.keys() ^ {fill.tid for fill in trader.fills} or len(fills) != len(trader.fills):
        differences.append(f"{len(fills)} fills at the venue, {len(trader.fills)} here")
    if unknown := ends.keys() - {oid for order in trader.ended_orders for oid in order.oids}:
        differences.append(f"orders that only the venue knows: {sorted(unknown)}")
    for order in trader.ended_orders:
        statuses = {ends[oid] for oid in order.oids if oid in ends}
        ended = FILLED if "filled" in statuses else CANCELED if statuses else NO_ORDER
        filled = sum((Decimal(row["sz"]) for row in fills.values() if row["oid"] in order.oids), NONE)
        if filled != order.filled or order.state not in ended:
            differences.append(f"{order!r}: at the venue {statuses}, filled {filled}")
    pnl = sum((fill.closed_pnl - fill.fee for fill in trader.fills), NONE)
    if boxed:  # elsewhere funding and transfers come in between, and nobody tells the book of a past time
        gained = Decimal(state["marginSummary"]["accountValue"]) - Decimal(before["marginSummary"]["accountValue"])
        differences += [f"pnl: {gained} at the venue, {pnl} here"] if pnl != gained else []
        for time_ms, *top in maker.tops:
            sides = (await ask(hl, "hiddenBook", coin=COIN, time=time_ms))["levels"]
            if top != [float(side[0]["px"]) for side in sides]:
                differences.append(f"book at {time_ms}: {top} here")
    print(f"{len(ends)} orders, {len(fills)} fills, {len(maker.tops)} books, pnl {pnl}; {hl.link.counters}")
    return differences


async def make_market(where: Any, key: Signer, options: Any, box: sim.Venue | None = None) -> int:
    speed = 1.0 if box is None else options.speed
    session = hlconn.SessionConfig(ping_interval_s=5 / speed, pong_timeout_s=5 / speed, ack_timeout_s=5 / speed)
    trading = hlconn.TradingConfig(  # the clock of a box may run away from ours
        answer_timeout_s=5 / speed, clock=lambda: int(time.time() * 1000 if box is None else box.now_ms())
    )
    async with hlconn.connect(where, key=key, account=options.account, config=session, trading=trading) as hl:
        before = await ask(hl, "clearinghouseState", user=hl.trader.account)
        maker = MarketMaker(hl, await hl.market.book(COIN))
        stop, end_s = hl.market.on_book(COIN, maker.on_book), time.monotonic() + options.seconds / speed
        try:
            while time.monotonic() < end_s:
                await asyncio.sleep(PAUSE_S)
                maker.requote()  # a book that is stale calls nobody
        finally:
            stop()
            await flatten(hl)
        differences = await compare(hl, maker, before, box is not None)
    print(*differences, "NOT as the venue says" if differences else "flat, and all is as the venue says", sep="\n")
    return bool(differences)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the venue's time")
    parser.add_argument("--speed", type=float, default=1.0, help="of the box's clock")
    parser.add_argument("--key-file", type=Path, help="trade on testnet, with the key in this file")
    parser.add_argument("--account", help="whom that key trades for, if not for itself")
    options = parser.parse_args()
    if options.key_file is not None:
        return await make_market("testnet", Signer(options.key_file.read_text().strip(), "testnet"), options)
    async with sim.Venue(speed=options.speed, coins=(COIN,), faults=FAULTS) as box:
        key = Signer(box.account(usdc=10_000).key, box.endpoints.network)
        return await make_market(box.endpoints, key, options, box)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
