"""A whole session over loopback sockets, plain and TLS, on asyncio and uvloop, while the venue does what it can.

The venue in a box breaks what the seed says: sockets, frames, answers, streams. At each quiet point everything wanted
is served again, the books are the venue's level by level, and the fills are all there, once. What the kernel and the
loop do in which order is not up to a seed: a failure need not come again.
"""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvloop

import hlconn
from hlconn import HlconnError, Order, SessionConfig, Side, Tif
from hlconn.config import TradingConfig
from hlconn.session.driver import Driver
from hlconn.session.link import LinkState, SubState
from hlconn.sim import Venue
from hlconn.sim.faults import FAULTS

RUNS = 200 if os.environ.get("HLCONN_HYPOTHESIS") == "long" else 20
SPEED = 20.0
COINS = ("BTC", "ETH", "SOL")
# How often, in the venue's time. `skew` moves the venue's clock, which is the trader's business; a huge message is as
# large as what a session takes.
TIMED = {
    "close": 20_000, "abort": 20_000, "reset": 20_000, "half_open": 30_000, "stall": 15_000, "mid_frame": 30_000,
    "garbage": 15_000, "bad_frame": 30_000, "huge": 60_000, "unknown_channel": 5_000,
}  # fmt: skip
SOMETIMES = {kind: 0.03 for kind in FAULTS if kind not in TIMED and kind != "skew"} | {"ack_only": 0.2, "lose_ack": 0.3}


def break_things(venue: Venue, rng: Random) -> None:
    for kind, every_ms in TIMED.items():
        if rng.random() < 0.4:
            more = {"size": 1 << 21} if kind == "huge" else {}
            venue.fault(kind, count=None, every_ms=every_ms, after_ms=rng.randint(0, every_ms), ms=3_000, **more)
    for kind, p in SOMETIMES.items():
        if rng.random() < 0.4:
            venue.fault(kind, p=p, ms=2_000)


class Watched(Driver):
    """A driver that keeps what it has told to be up, from the first on."""

    def __init__(self, *args: Any, on_up: Any, on_down: Any, **more: Any) -> None:
        self.up: set[tuple[int, str]] = set()
        self.wrong: list[str] = []

        def down(subscription: dict[str, Any], link: int, reason: str, recv_ns: int) -> None:
            on_down(subscription, link, reason, recv_ns)
            self.up.discard((link, repr(subscription)))

        def up(subscription: dict[str, Any], link: int, recv_ns: int) -> None:
            if (link, repr(subscription)) in self.up:
                self.wrong.append(f"{subscription} is up twice on link {link}")
            self.up.add((link, repr(subscription)))
            on_up(subscription, link, recv_ns)

        super().__init__(*args, on_up=up, on_down=down, **more)


class Run:
    def __init__(self, rng: Random, venue: Venue, hl: hlconn.Client, config: SessionConfig) -> None:
        self.rng, self.venue, self.hl, self.config = rng, venue, hl, config
        self.fills: list[int] = []
        assert isinstance(hl._driver, Watched)
        self.driver = hl._driver

    def check(self) -> None:
        """Now, whatever happened."""
        links = self.driver.pool.links
        assert len(links) <= self.config.max_links
        open_ones = [c for c in self.driver._connections.values() if c.transport is not None]
        live = {c.link for c in open_ones if c.transport and not c.transport.is_disconnected and c.listener.active}
        assert len(live) <= self.config.max_links
        for number, link in links.items():
            if link.state is LinkState.LIVE:
                assert number in live, f"link {number} says it is live"
        served = {
            (number, repr(given))
            for given, state, number in self.driver.pool.subscriptions
            if links[number].state is LinkState.LIVE and state is not SubState.WANTED
        }
        up = self.driver.up
        assert up <= served, f"told to be served: {up - served}"
        assert self.driver.wrong == []
        assert len(set(self.fills)) == len(self.fills), "a fill came twice"

    def missing(self) -> list[Any]:
        return [entry for entry in self.driver.pool.subscriptions if entry[1] is not SubState.LIVE]

    def stale(self) -> list[str]:
        books = map(self.hl.market.held, COINS)
        return [f"{book.coin}: {book.stale_reason}" for book in books if book is not None and book.stale]

    def differing(self) -> list[str]:
        """The venue stands still then, so that a stream is silent is as it should be."""
        wrong = []
        for coin in COINS:
            book, of = self.hl.market.held(coin), self.venue.exchange.markets[coin]
            assert book is not None
            for side, levels in enumerate(self.venue.history.book(coin)):
                expected = [(float(of.px_text(level.px)), float(of.sz_text(level.sz))) for level in levels[:20]]
                count = int(book.count[side])
                found = list(zip(book.px[side, :count].tolist(), book.sz[side, :count].tolist(), strict=True))
                silent = "silent" in (book.stale_reason or "")
                if (book.stale and not silent) or found != expected:
                    wrong.append(f"{coin} {book.stale_reason}: {found[:2]}, not {expected[:2]}")
        return wrong

    def trade(self) -> None:
        coin = self.rng.choice(COINS)
        book = self.hl.market.held(coin)
        if book is None or book.stale or not book.count.all():
            return
        side = self.rng.choice([Side.BUY, Side.SELL])
        px = self.hl.instruments[coin].round_px(book.mid * (1.02 if side is Side.BUY else 0.98), side, "passive")
        sz = self.hl.instruments[coin].round_sz(20 / book.mid + 10 ** -self.hl.instruments[coin].sz_decimals)
        with suppress(HlconnError):
            self.hl.trader.submit(Order(coin, side, px=px, sz=sz, tif=Tif.IOC))


async def wait_for(what: str, wrong: Any) -> None:
    async with asyncio.timeout(60.0):
        try:
            while wrong():
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            raise AssertionError(f"{what}: {wrong()}") from None


async def live_through(seed: int, folder: Path) -> None:
    rng = Random(seed)
    tls = seed % 2 == 1
    async with Venue(seed, speed=SPEED, coins=COINS, tls=tls, shuffle_keys=rng.random() < 0.2) as venue:
        party = venue.account(usdc=1_000_000)
        max_links = rng.randint(1, 4)
        # Time enough to connect: the first queries, for the instruments, are made once, on a machine that may be busy.
        config = SessionConfig(
            ping_interval_s=0.3, pong_timeout_s=0.4, ack_timeout_s=0.3, backoff_min_s=0.01, backoff_max_s=0.1,
            slow_period_s=5 / SPEED, fast_period_s=0.5 / SPEED, silence_min_s=0.5,
            sockets_per_minute=100_000, messages_per_minute=100_000, max_frame_bytes=1 << 20, max_links=max_links,
            subscriptions_per_link=rng.choice([3, 100]), redundancy=rng.choice([1, 2]) if max_links > 1 else 1,
            ssl_context=venue.client_context() if tls else None,
        )  # fmt: skip
        trading = TradingConfig(
            expires_after_s=6.0, expiry_margin_s=0.5, answer_timeout_s=0.2, retry_min_s=0.02, retry_max_s=0.1,
            reconcile_every_s=0.5, nonce_directory=str(folder), clock=lambda: int(venue.now_ms()),
        )  # fmt: skip
        async with hlconn.connect(venue.endpoints, key=party.key, config=config, trading=trading) as hl:
            run = Run(rng, venue, hl, config)
            hl.trader.on_fill(lambda fill: run.fills.append(fill.tid))
            for coin in COINS:
                await hl.market.book(coin)
                hl.market.on_trades(coin, lambda trades: None)
            for _ in range(2):
                break_things(venue, rng)
                for _ in range(40):
                    await asyncio.sleep(rng.choice([0.0, 0.01, 0.03]))
                    run.check()
                    if rng.random() < 0.3:
                        run.trade()
                    if rng.random() < 0.03:
                        venue.cut(rng.choice([None, 1000]))
                venue.faults.clear()
                await wait_for("not served again", run.missing)
                run.check()
                await wait_for("stale", run.stale)
                venue.pause()
                await wait_for("books differ", run.differing)
                known = lambda: {fill["tid"] for fill in venue.history.fills(party.address)} ^ set(run.fills)  # noqa: E731
                await wait_for("fills differ", known)
                run.check()
                venue.resume()
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("hlconn")] == []
        assert run.driver._connections == {}
        assert run.driver._timer is None
        assert run.driver._tick_timer is None
    assert venue.clients == 0


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_session_over_sockets_serves_what_is_wanted_whatever_the_venue_does(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hlconn.client.Driver", Watched)
    factory = uvloop.new_event_loop if seed % 4 >= 2 else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(live_through(seed, tmp_path))
    gc.collect()  # sockets that nobody closed complain, and warnings are errors
