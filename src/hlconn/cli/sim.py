"""`hlconn sim`: the venue in a box, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from ..sim import DEFAULT_COINS, FAULTS, Limits, Rules, Venue, load_plan, serve

__all__ = ["add_arguments", "run"]


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {port}")
    return port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=0, help="port of HTTP and WebSocket (default: a free one)")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same market and keys (default: 7)")
    parser.add_argument("--speed", type=float, default=1.0, help="20: everything 20 times faster (default: 1)")
    parser.add_argument(
        "--coins",
        nargs="+",
        default=list(DEFAULT_COINS),
        metavar="COIN",
        help=f"what to list (default: {' '.join(DEFAULT_COINS)}); T0 to T249 are made up for load tests",
    )
    parser.add_argument(
        "--accounts", type=int, default=1, help="accounts to open and print, with play money (default: 1)"
    )
    parser.add_argument("--usdc", type=float, default=10_000, help="perp money of each account (default: 10000)")
    parser.add_argument("--mainnet", action="store_true", help="take mainnet's signatures (default: testnet's)")
    parser.add_argument("--instant", action="store_true", help="carry out each action when it comes, in its own block")
    parser.add_argument("--limits", action="store_true", help="keep to the real venue's limits of requests")
    parser.add_argument("--tls", metavar="CA.pem", type=Path, help="speak TLS; write the throw-away authority here")
    parser.add_argument(
        "--faults",
        metavar="PLAN.toml",
        type=Path,
        help=f"what goes wrong: [[fault]] tables of kind {', '.join(FAULTS)}",
    )


def run(args: argparse.Namespace) -> int:
    coins = tuple(name for text in args.coins for name in text.split(",") if name)
    venue = Venue(
        args.seed,
        args.speed,
        coins,
        args.host,
        args.port,
        tls=args.tls is not None,
        instant=args.instant,
        rules=Rules(mainnet=args.mainnet),
        faults=load_plan(args.faults) if args.faults is not None else (),
        limits=Limits() if args.limits else None,
    )
    if args.tls is not None:
        args.tls.write_bytes(venue.ca_pem)
    accounts = [venue.account(args.usdc) for _ in range(args.accounts)]

    def say(venue: Venue) -> None:
        print(f"A made-up market in {', '.join(coins)} (seed {args.seed}, speed {args.speed:g}) listens at")
        print(f"  WebSocket  {venue.ws_url}")
        print(f"  HTTP       {venue.url}")
        for account in accounts:
            # The keys of play accounts: they are there to be used, and open nothing anywhere else.
            print(f"  account    {account.address}  key {account.key}")
        print("Connect with")
        print(f'  hlconn.connect(hlconn.Endpoints("{venue.url}", "{venue.ws_url}", hlconn.Network.LOCAL))')
        print("Ctrl-C ends it.", flush=True)

    try:
        asyncio.run(serve(venue, say))
    except KeyboardInterrupt:
        print()
    return 0
