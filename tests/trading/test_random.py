"""Random strategies against the venue in a box with its faults on, on a stepped clock: the venue's history judges.

HLCONN_HYPOTHESIS=long tries 1,000 seeds. A seed that fails says how to try it alone. The planted bugs that this has to
find are tests/mutants/trading_*.patch; see tools/mutants.py.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
from random_trading import Strategy, Truth, become_quiet, let_loose, venue_of
from sim.raw import instruments_of
from stepped import PipeWire, run_stepped

from hlconn import Nonces, SessionConfig, Signer
from hlconn.config import TradingConfig
from hlconn.sim import Venue
from hlconn.trading.orders import Contradicted, Differs
from hlconn.trading.trader import Trader

SEEDS = {"ci": 30, "first": 300, "long": 1000}[os.environ.get("HLCONN_HYPOTHESIS", "ci")]
SESSION = SessionConfig(backoff_max_s=2.0, sockets_per_minute=10_000)


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

        async def listen() -> list[Contradicted | Differs]:
            events = trader.events(maxsize=100_000)
            return [event async for event in events if isinstance(event, Contradicted | Differs)]

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
            wire.troubled = False
            await become_quiet(venue, wire.link, strategy)
            assert failures == []
            truth.check_everything(wire.sent, strategy.tickets)
        await trader.cancel_all()
        assert truth.open_orders() == []
        await become_quiet(venue, wire.link, strategy)
        truth.check_everything(wire.sent, strategy.tickets)
        await trader.end()
        wire.close()
        assert await listening == [], "nothing but fills changes what there is"
        assert failures == []


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_random_strategy_ends_with_what_the_venue_has(seed: int, tmp_path: Path, monkeypatch: Any) -> None:
    if seed % 2:  # legs settle as soon as they can, which takes more modifies than there are here
        monkeypatch.setattr("hlconn.trading.orders._RECENT_LEGS", 1)
    rng = Random(seed)
    venue = venue_of(seed, rng, stepped=True, debug=True)
    try:
        run_stepped(venue, live_through(venue, rng, tmp_path))
    except BaseException as exc:
        name = "test_a_random_strategy_ends_with_what_the_venue_has"
        exc.add_note(f"again: HLCONN_HYPOTHESIS=long pytest 'tests/trading/test_random.py::{name}[{seed}]'")
        raise
