"""The random strategies of test_random.py once more: `hlconn.connect` over loopback sockets, plain and TLS.

The venue's clock runs twenty times faster than ours, which the trader is told of. Nothing is replayed: what the kernel
and the loop do in which order is not up to a seed.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from random_trading import Strategy, Truth, become_quiet, let_loose, open_account, venue_of

import hlconn
from hlconn import SessionConfig
from hlconn.config import TradingConfig
from hlconn.trading.orders import Contradicted, Differs
from hlconn.trading.trader import Trader

RUNS = 100 if os.environ.get("HLCONN_HYPOTHESIS") == "long" else 4
SPEED = 20.0


def record(trader: Trader) -> list[dict[str, Any]]:
    """The actions that leave from now on."""
    wire: Any = trader._wire
    write, post, sent = wire.write, wire.post, []

    def recorded_write(message: bytes, post_id: int, *, urgent: bool) -> bool:
        left: bool = write(message, post_id, urgent=urgent)
        if left:
            sent.append(orjson.loads(message)["request"]["payload"])
        return left

    async def recorded_post(path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/exchange":
            sent.append(orjson.loads(body))
        answer: tuple[int, bytes] = await post(path, body)
        return answer

    wire.write, wire.post = recorded_write, recorded_post
    return sent


async def live_through(seed: int, folder: Path) -> None:
    rng = Random(seed)
    async with venue_of(seed, rng, speed=SPEED, tls=seed % 2 == 1) as venue:
        party, vault = open_account(venue)
        truth = Truth(venue, vault or party.address)
        session = SessionConfig(
            ping_interval_s=0.3, pong_timeout_s=0.5, ack_timeout_s=0.5, backoff_min_s=0.01, backoff_max_s=0.1,
            sockets_per_minute=100_000, ssl_context=venue.client_context() if seed % 2 else None,
        )  # fmt: skip
        trading = TradingConfig(
            expires_after_s=6.0, expiry_margin_s=0.5, answer_timeout_s=0.2, retry_min_s=0.02, retry_max_s=0.1,
            reconcile_every_s=rng.choice([0.5, 1.5]), dexs=("", "test"), nonce_directory=str(folder),
            clock=lambda: int(venue.now_ms()),
        )  # fmt: skip
        async with hlconn.connect(venue.endpoints, key=party.key, vault=vault, config=session, trading=trading) as hl:
            trader = hl.trader
            truth.start(trader)
            sent = record(trader)

            async def listen() -> list[Contradicted | Differs]:
                events = trader.events(maxsize=100_000)
                return [event async for event in events if isinstance(event, Contradicted | Differs)]

            listening = asyncio.create_task(listen())
            strategy = Strategy(trader, venue, party, vault, hl.instruments, rng)
            let_loose(venue, rng)
            for _ in range(100):
                strategy.act()
                for _ in range(rng.randint(0, 2)):
                    strategy.market()
                if rng.random() < 0.1:
                    strategy.elsewhere()
                await asyncio.sleep(rng.choice([0.0, 0.0025, 0.015, 0.05]))  # what the strategy waits
                truth.check_the_living()
            await become_quiet(venue, hl.link, strategy, SPEED)
            truth.check_everything(sent, strategy.tickets)
            await trader.cancel_all()
            assert truth.open_orders() == []
            await become_quiet(venue, hl.link, strategy, SPEED)
            truth.check_everything(sent, strategy.tickets)
        assert await listening == [], "nothing but fills changes what there is"


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_random_strategy_over_sockets_ends_with_what_the_venue_has(seed: int, tmp_path: Path) -> None:
    asyncio.run(live_through(seed, tmp_path))
