"""`hlconn watch COIN`: one coin's live book, how old it is, and what was missed, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import math
import time
from contextlib import ExitStack, suppress

from .._core.book import Book
from ..client import Client, connect
from ..config import Endpoints, Network
from ..gaps import Gap
from ._venue_process import VenueProcess

__all__ = ["add_arguments", "run"]

_PERIOD_S = 1.0
_SEED = 7


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"above zero, not {text}")
    return seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("coin", metavar="COIN", help="as the venue writes it: BTC, kPEPE, @107, PURR/USDC")
    parser.add_argument(
        "--network",
        choices=["mainnet", "testnet", "local", "sim"],
        default="mainnet",
        help="sim: a made-up venue of our own, which needs no network (default: %(default)s)",
    )
    parser.add_argument("--stats", action="store_true", help="percentiles of what was measured as well")
    parser.add_argument("--seconds", type=_seconds, help="how long (default: until Ctrl-C)")
    parser.add_argument("--every", type=_seconds, default=_PERIOD_S, metavar="S", help="a line each S s (default: 1)")


def run(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        network: str | Endpoints = args.network
        if network == "sim":
            network = stack.enter_context(VenueProcess((args.coin,), _SEED, 1.0)).endpoints
        with suppress(KeyboardInterrupt):
            asyncio.run(_watch(network, args))
    return 0


async def _watch(network: Network | str | Endpoints, args: argparse.Namespace) -> None:
    async with connect(network) as client:
        if args.stats:
            client.market.stats.measure()
        client.market.on_gap(_say_gap)
        trades = 0

        def count(rows: object) -> None:
            nonlocal trades
            trades += len(rows)  # type: ignore[arg-type]

        client.market.on_trades(args.coin, count)
        book = await client.market.book(args.coin)
        until = math.inf if args.seconds is None else time.monotonic() + args.seconds
        while True:
            print(_line(book, trades), flush=True)
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            await asyncio.sleep(min(args.every, left_s))
        if args.stats:
            _say_stats(client)


def _line(book: Book, trades: int) -> str:
    ages = book.ages(time.monotonic_ns())
    told = "  ".join(f"{feed} {ages[feed] / 1e6:,.0f} ms" if feed in ages else f"{feed} -" for feed in book.feeds)
    top = " / ".join(
        f"{book.px[row, 0]:,.10g} x {book.sz[row, 0]:g}" if book.count[row] else "nobody" for row in (0, 1)
    )
    state = f"STALE ({book.stale_reason})" if book.stale else "live"
    return f"{book.coin}  {top}  {state}  ages: {told}  messages {book.seq:,}  trades {trades:,}"


def _say_gap(gap: Gap) -> None:
    what = "nothing is missing" if gap.proven else "something may be missing"
    print(f"gap  {gap.stream} of {gap.coin}, {gap.to_ms - gap.from_ms:,} ms, {what}: {gap.reason}", flush=True)


def _say_stats(client: Client) -> None:
    print(f"\n{'us':<22}" + "".join(f"{name:>12}" for name in ("count", "p50", "p90", "p99", "p99.9", "max")))
    for name, found in client.stats().items():
        row = "".join(f"{found[key] / 1e3:>12,.1f}" for key in ("p50", "p90", "p99", "p99.9", "max"))
        print(f"{name.replace('_ns', ''):<22}{found['count']:>12,.0f}{row}")
