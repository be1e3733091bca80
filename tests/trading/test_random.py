"""Random strategies against the venue in a box with its faults on, on a stepped clock: the venue's history judges.

HLCONN_HYPOTHESIS=long tries 1,000 seeds. A seed that fails says how to try it alone. The planted bugs that this has to
find are tests/mutants/trading_*.patch; see tools/mutants.py.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random

import pytest
from random_trading import COINS, Strategy, Truth, let_loose
from sim.raw import instruments_of
from stepped import PipeWire, run_stepped

from hlconn import Nonces, SessionConfig, Signer
from hlconn.config import TradingConfig
from hlconn.session.link import LinkState, SubState
from hlconn.sim import Rules, Venue
from hlconn.trading.orders import Differs
from hlconn.trading.trader import Trader

SEEDS = {"ci": 30, "first": 300, "long": 1000}[os.environ.get("HLCONN_HYPOTHESIS", "ci")]
SESSION = SessionConfig(backoff_max_s=2.0, sockets_per_minute=10_000)


def venue_of(seed: int, rng: Random) -> Venue:
    rules = Rules(
        modify_updates=rng.choice(["canceled first", "open first", "random"]),
        partial_fill_updates=rng.random() < 0.5,
        partial_gtc_answer=rng.choice(["resting", "filled"]),
    )
    return Venue(
        seed, coins=COINS, stepped=True, traders=seed % 25 == 24, rules=rules, debug=True,
        instant=rng.random() < 0.1, answers=rng.choice(["before", "after", "random"]), shuffle_keys=rng.random() < 0.2,
    )  # fmt: skip


async def live_through(venue: Venue, rng: Random, folder: Path) -> None:
    party = venue.account(usdc=1_000_000, spot={"USDC": 100_000, "PURR": 100_000}, dexs={"test": 100_000})
    truth = Truth(venue, party.address)
    wire = PipeWire(venue, rng, SESSION, skew_ms=rng.choice([0, 0, -1500, 1500]))
    signer = Signer(party.key, "testnet")
    instruments = instruments_of(venue)
    failures: list[BaseException] = []
    config = TradingConfig(
        expires_after_s=6.0, expiry_margin_s=0.5, answer_timeout_s=2.0, retry_max_s=2.0,
        reconcile_every_s=rng.choice([10, 30, 100]), dexs=("", "test"),
    )  # fmt: skip
    with Nonces(signer.address, folder, clock=wire.time_ms) as nonces:
        trader = Trader(
            wire, signer, nonces, instruments, account=party.address, config=config,
            on_callback_error=failures.append,
        )  # fmt: skip
        truth.start(trader)

        async def listen() -> list[Differs]:
            return [event async for event in trader.events(maxsize=100_000) if isinstance(event, Differs)]

        listening = asyncio.create_task(listen())
        trader.start()
        wire.start(trader)
        await trader.ready(30)
        strategy = Strategy(trader, venue, party, instruments, rng)
        trader.on_order(lambda order: strategy.act() if rng.random() < 0.03 else None)
        for _ in range(2):
            let_loose(venue, rng)
            strategy.pauses = False
            wire.troubled = True
            for _ in range(60):
                strategy.act()
                for _ in range(rng.randint(0, 2)):
                    strategy.market()
                if rng.random() < 0.1:
                    strategy.elsewhere()
                await asyncio.sleep(rng.choice([0.0, 0.05, 0.3, 1.0]))
                truth.check_the_living()
            await quiet(venue, wire, trader, strategy)
            assert failures == []
            truth.check_everything(wire.sent, strategy.tickets)
        venue.faults.clear()
        await trader.cancel_all()
        assert truth.open_orders() == []
        await quiet(venue, wire, trader, strategy)
        truth.check_everything(wire.sent, strategy.tickets)
        await trader.end()
        wire.close()
        assert await listening == [], "nothing but fills changes what there is"
        assert failures == []


async def quiet(venue: Venue, wire: PipeWire, trader: Trader, strategy: Strategy) -> None:
    """No fault strikes any more; wait until nothing is open, and what was said is compared once more."""
    venue.faults.clear()
    wire.troubled = False
    strategy.pauses = True
    strategy.drop_prepared()
    for ticket in strategy.tickets:
        if ticket.expires_after is None and not ticket.done:
            ticket.burn()
    await asyncio.sleep(10)  # late actions are carried out
    async with asyncio.timeout(300):
        while not is_quiet(wire, trader):
            await asyncio.sleep(0.5)
        await trader.reconcile()
        await asyncio.sleep(1)
        while not is_quiet(wire, trader):
            await asyncio.sleep(0.5)


def is_quiet(wire: PipeWire, trader: Trader) -> bool:
    live = wire.link.state is LinkState.LIVE and all(state is SubState.ACKED for _, state in wire.link.subscriptions)
    return live and not (trader._table.flights or trader._has_questions() or trader._to_reconcile)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_random_strategy_ends_with_what_the_venue_has(seed: int, tmp_path: Path) -> None:
    rng = Random(seed)
    venue = venue_of(seed, rng)
    try:
        run_stepped(venue, live_through(venue, rng, tmp_path))
    except BaseException as exc:
        name = "test_a_random_strategy_ends_with_what_the_venue_has"
        exc.add_note(f"again: HLCONN_HYPOTHESIS=long pytest 'tests/trading/test_random.py::{name}[{seed}]'")
        raise
