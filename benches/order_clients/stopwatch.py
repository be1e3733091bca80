"""What every client of the order bench does: blocks of orders, one after the other, each timed until its bytes arrived.

Runs under the interpreter of any client. A line in is a number of orders; a line out is a block: the ns from the call
until the bytes were at the server, which names that time as the order's oid, and the ns of processor time per order,
what came after the bytes included.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

WARM_UP = 50


def price(number: int) -> int:
    """No two orders in a row are alike."""
    return 98_000 + number % 1000


class Block:
    """One line out: `order` for each order that was answered, then `tell`."""

    def __init__(self) -> None:
        self.latencies_ns: list[int] = []
        self.began_cpu_ns = time.process_time_ns()

    def order(self, called_ns: int, oid: Any) -> None:
        self.latencies_ns.append(int(oid) - called_ns)

    def tell(self, stream: Any) -> None:
        cpu_ns = (time.process_time_ns() - self.began_cpu_ns) / len(self.latencies_ns)
        print(json.dumps({"latencies_ns": self.latencies_ns, "cpu_ns": cpu_ns}), file=stream, flush=True)


@contextmanager
def answers() -> Iterator[Any]:
    """Where blocks are told; what a client prints goes elsewhere."""
    stream, sys.stdout = sys.stdout, sys.stderr
    yield stream
    sys.stdout = stream


def run(place: Callable[[int], Any]) -> None:
    """place(number): the oid."""
    with answers() as stream:
        for number in range(WARM_UP):
            place(number)
        for line in sys.stdin:
            block = Block()
            for number in range(int(line)):
                called_ns = time.monotonic_ns()
                block.order(called_ns, place(number))
            block.tell(stream)


async def run_async(
    place: Callable[[int], Awaitable[Any]], prepare: Callable[[int], object] = lambda count: None
) -> None:
    """place(number): the oid, or (when it was called, the oid). prepare(count): before each block."""
    with answers() as stream:
        prepare(WARM_UP)
        for number in range(WARM_UP):
            await place(number)
        while line := await asyncio.to_thread(sys.stdin.readline):
            prepare(int(line))
            block = Block()
            for number in range(int(line)):
                called_ns = time.monotonic_ns()
                oid = await place(number)
                if isinstance(oid, tuple):
                    called_ns, oid = oid
                block.order(called_ns, oid)
            block.tell(stream)
