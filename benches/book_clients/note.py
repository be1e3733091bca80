"""What each client does with a book: notes when its callback saw which frame; at the end, the times as JSON."""

from __future__ import annotations

import json
import sys
import time


class Note:
    """times_ns[n]: our clock (CLOCK_MONOTONIC) when the callback had the book of frame n."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.times_ns = [0] * count
        self.left = count

    def seen(self, best_bid: float) -> bool:
        """Whether that was the last frame."""
        now_ns = time.monotonic_ns()
        number = int(best_bid) - 1
        if 0 <= number < self.count and not self.times_ns[number]:
            self.times_ns[number] = now_ns
            self.left -= 1
        return self.left <= 0

    def tell(self) -> None:
        json.dump(self.times_ns, sys.stdout)
        sys.stdout.write("\n")
        sys.stdout.flush()


def arguments() -> tuple[int, int]:
    """Port and frames."""
    return int(sys.argv[1]), int(sys.argv[2])
