"""Random strategies against the venue in a box with its faults on, on a stepped clock: the venue's history judges.

HLCONN_HYPOTHESIS=long tries 1,000 seeds. A seed that fails says how to try it alone. The planted bugs that this has to
find are tests/mutants/trading_*.patch; see tools/mutants.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from random_trading import COINS, Strategy, Truth, become_quiet, books_of, is_put_off, let_loose, open_account, venue_of
from sim.raw import instruments_of
from stepped import PipeWire, run_stepped

from hlconn import LinkDown, Nonces, SessionConfig, Signer, action
from hlconn.config import TradingConfig
from hlconn.sim import Venue
from hlconn.trading.orders import Contradicted, Differs
from hlconn.trading.trader import Trader

SEEDS = {"ci": 30, "first": 300, "long": 1000}[os.environ.get("HLCONN_HYPOTHESIS", "ci")]
SESSION = SessionConfig(backoff_max_s=2.0, sockets_per_minute=10_000)


class Run:
    """One venue, one account, and the processes that trade for it, one after the other."""

    def __init__(self, venue: Venue, rng: Random, folder: Path) -> None:
        self.venue, self.rng, self.folder = venue, rng, folder
        self.party, self.vault = open_account(venue)
        self.account = self.vault or self.party.address
        self.truth = Truth(venue, self.account)
        self.skew_ms = rng.choice([0, 0, -1500, 1500])
        self.earlier: list[dict[str, Any]] = []  # what the processes before this one sent
        self.config = TradingConfig(
            expires_after_s=6.0, expiry_margin_s=0.5, answer_timeout_s=2.0, retry_max_s=2.0,
            reconcile_every_s=rng.choice([10, 30, 100]), dexs=("", "test"),
        )  # fmt: skip

    @asynccontextmanager
    async def process(self) -> AsyncIterator[None]:
        venue, rng, failures = self.venue, self.rng, list[BaseException]()
        wire = self.wire = PipeWire(venue, rng, SESSION, self.config.answer_timeout_s, skew_ms=self.skew_ms)
        signer, instruments = Signer(self.party.key, "testnet", self.vault), instruments_of(venue)
        with Nonces(signer.address, self.folder, clock=wire.time_ms) as nonces:
            trader = Trader(
                wire, signer, nonces, instruments, account=self.account, config=self.config,
                book_of=books_of(venue), on_callback_error=failures.append,
            )  # fmt: skip
            self.truth.start(trader, {payload["nonce"] for payload in self.earlier})

            async def listen() -> list[Contradicted | Differs]:
                events = trader.events(maxsize=100_000)
                return [event async for event in events if isinstance(event, Contradicted | Differs)]

            listening = asyncio.create_task(listen())
            trader.start()
            wire.start(trader)
            while not trader._reconciler.ready.is_set():  # an earlier process left its faults
                with suppress(LinkDown):
                    await trader.ready(30)
            strategy = self.strategy = Strategy(trader, venue, self.party, self.vault, instruments, rng)
            trader.on_order(lambda order: strategy.act() if rng.random() < 0.03 else None)
            yield
            await trader.end()
            wire.close()
            await asyncio.gather(*strategy.calls)
        self.earlier += wire.sent
        assert await listening == [], "nothing but fills changes what there is"
        assert failures == []

    async def act(self, steps: int) -> None:
        """In a storm."""
        rng, strategy = self.rng, self.strategy
        let_loose(self.venue, rng)
        strategy.pauses = False
        self.wire.troubled = True
        for _ in range(steps):
            strategy.act()
            for _ in range(rng.randint(0, 2)):
                strategy.market()
            if rng.random() < 0.1:
                strategy.elsewhere()
            await asyncio.sleep(rng.choice([0.0, 0.05, 0.3, 1.0]))  # of the venue's time: what the strategy waits
            self.truth.check_the_living()
        self.wire.troubled = False

    async def check(self) -> None:
        """Wait until all is quiet."""
        await become_quiet(self.venue, self.wire.link, self.strategy)
        self.truth.check_everything(self.wire.sent, self.strategy.tickets, self.earlier)

    async def end_flat(self) -> None:
        await self.strategy.trader.cancel_all()
        assert self.truth.open_orders() == []
        await self.check()


async def live_through(venue: Venue, rng: Random, folder: Path) -> None:
    run = Run(venue, rng, folder)
    async with run.process():
        await run.act(60)
        await run.check()
        if restarts := rng.random() < 0.3:
            await run.act(20)
            run.strategy.drop_prepared()
        else:
            await run.act(60)
            await run.check()
            await run.end_flat()
    if restarts:  # with orders open, and actions of the first process on their way
        async with run.process():
            await run.act(40)
            await run.check()
            await run.end_flat()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_random_strategy_ends_with_what_the_venue_has(seed: int, tmp_path: Path, monkeypatch: Any) -> None:
    if seed % 2:  # legs settle as soon as they can, which takes more modifies than there are here
        monkeypatch.setattr("hlconn.trading.legs._RECENT_LEGS", 1)
    rng = Random(seed)
    venue = venue_of(seed, rng, stepped=True, debug=True)
    try:
        run_stepped(venue, live_through(venue, rng, tmp_path))
    except BaseException as exc:  # whatever ends it, and goes on: it is told how to try it alone
        name = "test_a_random_strategy_ends_with_what_the_venue_has"
        exc.add_note(f"again: HLCONN_HYPOTHESIS=long pytest 'tests/trading/test_random.py::{name}[{seed}]'")
        raise


def test_what_a_fault_holds_back_is_waited_for() -> None:
    venue = Venue(3, stepped=True, traders=False, coins=COINS)
    party, _ = open_account(venue)
    signer, address = Signer(party.key, "testnet"), party.address
    heard: list[Any] = []

    def ask(at_ms: int | None) -> None:
        act = action.schedule_cancel(at_ms)
        venue.request("/exchange", orjson.loads(signer.sign(act, int(venue.now_ms())).payload), heard.append)

    assert not is_put_off(venue, address)
    for kind in ("slow", "late_action", "late_unanswered"):
        venue.fault(kind, ms=3000)
        ask(None)
        venue.advance(2500)
        assert is_put_off(venue, address), kind
        venue.advance(2500)
        assert not is_put_off(venue, address), kind
    venue.exchange.rules = replace(venue.exchange.rules, cancel_volume_usd=0)
    ask(int(venue.now_ms()) + 8000)
    assert is_put_off(venue, address), "until its block"
    venue.advance(2500)
    assert is_put_off(venue, address), "until it is due"
    venue.advance(8000)
    assert not is_put_off(venue, address)
    assert len(heard) == 4
