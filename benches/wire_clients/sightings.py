"""What every client of the wire bench does: say when it saw each message, block by block.

Runs under the interpreter of any client. A line in is a number of messages; "ready" comes out, then the messages arrive
and a line out is the block: ns from the sending of each to its sighting, the best bids seen, and the ns of processor
time per message. Two messages may become one where a client keeps only the latest; the last of a block always comes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

FIRST_PX = 90_000


class Sightings:
    """`see` each message; done() is called at the last of a block, at first for the one that comes when subscribed."""

    def __init__(self, base_ns: int, done: Callable[[], object]) -> None:
        self.base_ns, self.done = base_ns, done
        self.stream, sys.stdout = sys.stdout, sys.stderr  # what a client prints goes elsewhere
        self.expect(0)

    def expect(self, count: int) -> None:
        self.latencies_ns: list[int] = []
        self.pxs: list[int] = []
        self.last = FIRST_PX + count - 1
        self.began_cpu_ns = time.process_time_ns()

    def see(self, seen_ns: int, sent: int, px: float) -> None:
        """seen_ns: `time.monotonic_ns()`. sent: the message's time. px: of the best bid."""
        self.latencies_ns.append(seen_ns - self.base_ns - sent)
        self.pxs.append(int(px))
        if px == self.last:
            self.done()

    def say(self, value: Any) -> None:
        print(json.dumps(value), file=self.stream, flush=True)

    def tell(self) -> None:
        cpu_ns = (time.process_time_ns() - self.began_cpu_ns) / len(self.pxs)
        self.say({"latencies_ns": self.latencies_ns, "pxs": self.pxs, "cpu_ns": cpu_ns})


def serve(base_ns: int, start: Callable[[Sightings], object]) -> None:
    """For a client that calls back from a thread of its own."""
    done = threading.Event()
    sightings = Sightings(base_ns, done.set)
    start(sightings)
    done.wait()
    for line in sys.stdin:
        done.clear()
        sightings.expect(int(line))
        sightings.say("ready")
        done.wait()
        sightings.tell()


class AsyncSightings(Sightings):
    def __init__(self, base_ns: int) -> None:
        self.complete = asyncio.Event()
        super().__init__(base_ns, self.complete.set)

    async def serve(self) -> None:
        """Once the client is connected; returns at the end of input."""
        await self.complete.wait()
        while line := await asyncio.to_thread(sys.stdin.readline):
            self.complete.clear()
            self.expect(int(line))
            self.say("ready")
            await self.complete.wait()
            self.tell()
