"""Random walks of a book as the l2 feed writes them: a snapshot, then updates. From the protocol's page alone."""

from __future__ import annotations

import base64
import zlib
from random import Random
from typing import Any

from captures import T0, wire

Levels = dict[int, int]  # price in ticks to size in lots


def px_text(ticks: int) -> str:
    return f"{ticks / 10:.1f}"


def sz_text(lots: int) -> str:
    return f"{lots / 1000:.3f}".rstrip("0").rstrip(".")


def deflated(update: dict[str, Any]) -> dict[str, str]:
    stream = zlib.compressobj(wbits=-15)
    return {"c": base64.b64encode(stream.compress(wire(update)) + stream.flush()).decode()}


class Walk:
    """The venue's book, changed at random, and what it sends. `plain` are the two sides, best first: (px, sz) texts."""

    def __init__(self, seed: int, *, most: int = 30, coin: str = "BTC", start_ms: int = T0) -> None:
        self.rng = Random(seed)
        self.coin, self.most, self.time_ms = coin, most, start_ms
        self.sides: tuple[Levels, Levels] = ({}, {})
        for _ in range(most):
            self._put(0, 10_000 - self.rng.randint(1, 2 * most))
            self._put(1, 10_000 + self.rng.randint(1, 2 * most))

    def _put(self, row: int, px: int) -> None:
        self.sides[row][px] = self.rng.randint(1, 10**6)

    def prices(self, row: int) -> list[int]:
        return sorted(self.sides[row], reverse=row == 0)

    def plain(self, most: int = 10**9) -> list[list[tuple[str, str]]]:
        return [[(px_text(p), sz_text(self.sides[row][p])) for p in self.prices(row)[:most]] for row in range(2)]

    def levels(self, most: int = 10**9) -> list[list[dict[str, Any]]]:
        return [[{"px": p, "sz": s, "n": 1} for p, s in side] for side in self.plain(most)]

    def snapshot(self) -> bytes:
        data = {"coin": self.coin, "time": self.time_ms, "levels": self.levels()}
        return wire({"channel": "l2", "data": {"s": data}})

    def l2book(self, *, fast: bool = False) -> bytes:
        data: dict[str, Any] = {"coin": self.coin, "time": self.time_ms, "levels": self.levels(5 if fast else 20)}
        return wire({"channel": "l2Book", "data": data | {"fast": True} if fast else data})

    def update(self, *, compressed: bool = False, pause_ms: int = 70) -> bytes:
        """Change the book: what was there before counts the positions, so that a price may go and come back."""
        rng = self.rng
        self.time_ms += pause_ms
        new: list[list[dict[str, str]]] = [[], []]
        gone: list[list[int]] = [[], []]
        for row in rng.sample((0, 1), rng.choice((1, 2))):
            side, before = self.sides[row], self.prices(row)
            gone[row] = rng.sample(range(len(before)), min(len(before), rng.choice((0, 0, 1, 1, 2, 5))))
            for position in gone[row]:
                del side[before[position]]
            limit = min(self.sides[1], default=10_050) if row == 0 else max(self.sides[0], default=9_950)
            touched = set()
            for _ in range(rng.choice((0, 1, 1, 2, 4))):
                px = limit + (1 if row else -1) * rng.choice((1, 1, 2, rng.randint(1, 2 * self.most)))
                if len(side) < self.most or px in side:
                    self._put(row, px)
                    touched.add(px)
            new[row] = [{"p": px_text(px), "s": sz_text(side[px])} for px in touched]
            rng.shuffle(new[row])
        data = {"c": self.coin, "t": self.time_ms, "l": new, "r": gone}
        return wire({"channel": "l2", "data": deflated(data) if compressed else {"u": data}})
