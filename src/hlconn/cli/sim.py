"""`hlconn sim`: the venue in a box, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio

from ..config import Endpoints
from ..sim import DEFAULT_COINS, serve

__all__ = ["add_arguments", "run"]


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {port}")
    return port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=0, help="port of the WebSocket (default: a free one)")
    parser.add_argument("--http-port", type=_port, default=0, help="port of POST /info (default: a free one)")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same market (default: 7)")
    parser.add_argument("--speed", type=float, default=1.0, help="20: everything 20 times faster (default: 1)")
    parser.add_argument(
        "--coins",
        nargs="+",
        default=list(DEFAULT_COINS),
        metavar="COIN",
        help=f"what to list (default: {' '.join(DEFAULT_COINS)}); T0 to T249 are made up for load tests",
    )


def run(args: argparse.Namespace) -> int:
    coins = tuple(name for text in args.coins for name in text.split(",") if name)

    def say(endpoints: Endpoints) -> None:
        print(f"A made-up market in {', '.join(coins)} (seed {args.seed}, speed {args.speed:g}) listens at")
        print(f"  WebSocket  {endpoints.ws_url}")
        print(f"  HTTP       {endpoints.http_url}")
        print("Connect with")
        print(f'  hlconn.connect(hlconn.Endpoints("{endpoints.http_url}", "{endpoints.ws_url}", hlconn.Network.LOCAL))')
        print("Ctrl-C ends it.", flush=True)

    try:
        asyncio.run(serve(args.host, args.port, args.http_port, args.seed, args.speed, coins, say))
    except KeyboardInterrupt:
        print()
    return 0
