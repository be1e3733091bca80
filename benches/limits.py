"""10,000 mixed info calls from 20 tasks over loopback HTTP, limiter and venue on one clock that runs faster: is there a
429, and how much longer does it take than it must?

    python benches/limits.py [--calls 10000] [--speed 30] [--venue sliding|minute|bucket] [--limiter sliding|bucket]

The venue (its own process) keeps to the real limits, 1,200 a minute, rows of answers included. It must take what all
the weight takes at that rate after the first minute's worth. Exits with 1 if anything was refused or it took more than
1.1 times as long.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from random import Random
from typing import Any

import aiohttp

from hlconn import Limits, LimitsConfig

TASKS, PER_MINUTE, ALLOWED = 20, 1200, 1.1
USER = "0x" + "1f" * 20
KINDS = {
    "l2Book": 30,
    "allMids": 20,
    "orderStatus": 15,
    "meta": 10,
    "candleSnapshot": 10,
    "userFills": 5,
    "recentTrades": 5,
    "clearinghouseState": 4,
    "userRole": 1,
}
# It prints its address, and at the end of its input what it counted.
VENUE = """
import asyncio, json, sys
from hlconn.sim import Limits, Venue
async def main():
    venue = Venue(speed=float(sys.argv[1]), coins=("BTC", "ETH"), block_ms=(900, 1100), history_blocks=100,
                  limits=Limits(weight_window=sys.argv[2]))
    async with venue:
        print(venue.url, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(json.dumps([venue.gate.weight, dict(venue.gate.refusals)]), flush=True)
asyncio.run(main())
"""


def body(rng: Random) -> dict[str, Any]:
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    if kind == "candleSnapshot":
        end = int(time.time() * 1000) + 86_400_000 * 365
        return {"type": kind, "req": {"coin": "BTC", "interval": "1m", "startTime": 0, "endTime": end}}
    return {"type": kind, "coin": rng.choice(["BTC", "ETH"]), "user": USER, "oid": 1}


async def run(url: str, options: argparse.Namespace) -> tuple[Counter[int], float]:
    """The statuses of all answers, and how long it took on the venue's clock."""
    loop, rng, left, statuses = asyncio.get_running_loop(), Random(7), options.calls, Counter[int]()
    limits = Limits(
        LimitsConfig(weight_window=options.limiter, lost_after_s=1e6),
        clock=lambda: time.monotonic() * options.speed,
        later=lambda s, callback: loop.call_later(s / options.speed, callback),
    )
    began_s = time.monotonic()
    async with aiohttp.ClientSession() as http:

        async def task() -> None:
            nonlocal left
            while left:
                left -= 1
                request = body(rng)
                await limits.wait(request)
                async with http.post(f"{url}/info", json=request) as answer:
                    rows = await answer.json()
                statuses[answer.status] += 1
                if answer.status == 429:
                    limits.refused(None, request)
                else:
                    limits.answered(request, len(rows) if isinstance(rows, list) else 0)

        await asyncio.gather(*(task() for _ in range(TASKS)))
    return statuses, (time.monotonic() - began_s) * options.speed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--speed", type=float, default=30.0)
    parser.add_argument("--venue", choices=["sliding", "minute", "bucket"], default="sliding")
    parser.add_argument("--limiter", choices=["sliding", "bucket"], default="sliding")
    options = parser.parse_args()
    command = [sys.executable, "-c", VENUE, str(options.speed), options.venue]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as venue:
        assert venue.stdin is not None
        assert venue.stdout is not None
        statuses, took_s = asyncio.run(run(venue.stdout.readline().strip(), options))
        venue.stdin.write("\n")
        venue.stdin.flush()
        weight, refusals = json.loads(venue.stdout.readline())
    ideal_s = max(1e-9, (weight - PER_MINUTE) / PER_MINUTE * 60)
    print(f"{options.calls} calls, weight {weight}: statuses {dict(statuses)}, refused by the venue: {refusals}")
    ours_s = took_s / options.speed
    print(f"{took_s:.0f} s of the venue's time, {ours_s:.0f} s of ours: {took_s / ideal_s:.3f} x {ideal_s:.0f} s")
    return 1 if refusals or set(statuses) != {200} or took_s > ALLOWED * ideal_s else 0


if __name__ == "__main__":
    sys.exit(main())
