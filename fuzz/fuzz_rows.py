"""Fuzz target: any bytes into what reads rows, mid prices and typed messages. Run by tools/fuzz.sh.

What must hold, besides no finding of the sanitizers: only DecodeError; rows that were read are, bit for bit, what
orjson and float make of the same text, if orjson can read it as well; mid prices do not change with what is refused.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import captures
import numpy as np
import oracles

from hlconn import DecodeError, messages
from hlconn._core import _build, rows

assert _build.SANITIZED, f"not the build for fuzzing: {_build.__file__}"

ROOM = 1 << 16
BODIES = {
    "candleSnapshot": rows.read_candles,
    "userFills": rows.read_fills,
    "fundingHistory": rows.read_fundings,
    "userFunding": rows.read_user_fundings,
    "historicalOrders": rows.read_orders,
}


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(a[f], b[f], equal_nan=a.dtype[f] == np.float64) for f in a.dtype.names or ()
    )


class Harness:
    """Every reader gets every text."""

    def __init__(self) -> None:
        self.rows = {channel: rows.Rows(channel) for channel in rows.ROW_CHANNELS}
        self.mids = rows.Mids()
        self.count = 0

    def __call__(self, data: bytes) -> None:
        self.count += 1
        if self.count % 4096 == 0:
            self.mids = rows.Mids()  # its coins stay for ever: the table would be full
        try:
            value = oracles.load(data)
            data.decode()
        except (oracles.Refused, UnicodeDecodeError):
            value = None  # what the core does not look at in values that it skips, and bytes that it keeps
        for channel, reader in self.rows.items():
            try:
                got = reader.read(captures.exact(data))
            except DecodeError as error:
                assert 0 <= error.offset <= len(data)  # noqa: PT017
                continue
            if value is not None:
                assert same(got, oracles.read_row_message(channel, data)), channel
        for info, read in BODIES.items():
            try:
                got = read(captures.exact(data))
            except DecodeError as error:
                assert 0 <= error.offset <= len(data)  # noqa: PT017
                continue
            if value is not None:
                assert same(got, oracles.read_row_body(info, data)), info
        before = self.mids.px.tobytes()
        try:
            self.mids.read(captures.exact(data))
        except DecodeError:
            assert self.mids.px.tobytes() == before
        else:
            if value is not None:
                want = {coin: float(px) for coin, px in value["data"]["mids"].items()}
                have = zip(self.mids.coins, self.mids.px.tolist(), strict=True)
                assert {coin: px for coin, px in have if px == px} == want
        for channel in messages.CHANNELS:
            if channel.encode() in data:
                try:
                    messages.decode(channel, data)
                except DecodeError:
                    continue


if __name__ == "__main__":
    atheris.Setup([*sys.argv, f"-max_len={ROOM}"], Harness(), enable_python_coverage=False)
    atheris.Fuzz()
