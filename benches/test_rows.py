"""Messages and answers of many like objects to values, side by side with msgspec's typed decoding and orjson, checked.

The alternatives end where ours does: with every number as a float or an int.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import captures
import msgspec
import numpy as np
import oracles
import orjson
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from hlconn import CANDLE_DTYPE
from hlconn._core.rows import Mids, Rows, read_candles, read_fills

COUNT = 256
ROWS = 2000
RNG = Random(7)
BTC = captures.COINS[0]


def each(function: Callable[[bytes], object], messages: list[bytes]) -> Callable[[], None]:
    def run() -> None:
        for message in messages:
            function(message)

    return run


class Candle(msgspec.Struct):
    t: int
    T: int
    s: str
    i: str
    o: str
    c: str
    h: str
    l: str  # noqa: E741
    v: str
    n: int


class Ctx(msgspec.Struct):
    funding: str
    openInterest: str
    prevDayPx: str
    dayNtlVlm: str
    oraclePx: str
    markPx: str
    dayBaseVlm: str
    premium: str | None
    midPx: str | None
    impactPxs: tuple[str, str] | None


class ActiveCtx(msgspec.Struct):
    coin: str
    ctx: Ctx


class BasicOrder(msgspec.Struct):
    coin: str
    side: str
    limitPx: str
    sz: str
    oid: int
    timestamp: int
    origSz: str
    cloid: str | None = None
    reduceOnly: bool = False


class OrderUpdate(msgspec.Struct):
    order: BasicOrder
    status: str
    statusTimestamp: int


class Liquidation(msgspec.Struct):
    markPx: str
    method: str
    liquidatedUser: str | None = None


class Fill(msgspec.Struct):
    coin: str
    px: str
    sz: str
    side: str
    time: int
    startPosition: str
    dir: str
    closedPnl: str
    hash: str
    oid: int
    crossed: bool
    fee: str
    tid: int
    feeToken: str
    twapId: int | None = None
    cloid: str | None = None
    builderFee: str | None = None
    feeTrialEscrow: str | None = None
    liquidation: Liquidation | None = None


class UserFills(msgspec.Struct):
    user: str
    fills: list[Fill]
    isSnapshot: bool = False


class AllMids(msgspec.Struct):
    mids: dict[str, str]


def decoder(data: Any) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(msgspec.defstruct("Message", [("channel", str), ("data", data)])).decode


decode_candle, decode_ctx = decoder(Candle), decoder(ActiveCtx)
decode_updates, decode_fills, decode_mids = decoder(list[OrderUpdate]), decoder(UserFills), decoder(AllMids)


def candle_values(message: bytes) -> tuple[Any, ...]:
    v = decode_candle(message).data
    return v.t, float(v.o), float(v.h), float(v.l), float(v.c), float(v.v), v.n, v.T


def ctx_values(message: bytes) -> tuple[Any, ...]:
    v = decode_ctx(message).data.ctx
    nan = np.nan
    bid, ask = v.impactPxs or ("nan", "nan")
    mid, premium = float(v.midPx) if v.midPx else nan, float(v.premium) if v.premium else nan
    rates = float(v.oraclePx), float(v.funding), premium, float(v.openInterest), float(bid), float(ask)
    return float(v.markPx), mid, *rates, float(v.prevDayPx), float(v.dayNtlVlm), float(v.dayBaseVlm)


def update_values(message: bytes) -> list[tuple[Any, ...]]:
    return [
        (u.order.oid, float(u.order.limitPx), float(u.order.sz), float(u.order.origSz), u.order.timestamp)
        for u in decode_updates(message).data
    ]


def fills_values(message: bytes) -> list[tuple[Any, ...]]:
    return [
        (f.time, float(f.px), float(f.sz), f.oid, f.tid, float(f.startPosition), float(f.closedPnl), float(f.fee))
        for f in decode_fills(message).data.fills
    ]


def message(channel: str, data: Any) -> bytes:
    return captures.wire({"channel": channel, "data": data})


def real_ctx(rng: Random) -> dict[str, Any]:
    """With the digits that the venue's own numbers have."""
    px = captures.decimal_text(rng.randint(83_000_0, 84_000_0), 1)
    out = captures.perp_ctx(rng, BTC)
    out |= dict.fromkeys(("prevDayPx", "oraclePx", "markPx", "midPx"), px) | {"impactPxs": [px, px]}
    out |= {"dayNtlVlm": f"{rng.randint(10**8, 4 * 10**9)}.{rng.randint(10**9, 10**10 - 1)}"}
    return out | {"funding": f"0.0000{rng.randint(10**5, 10**6)}", "premium": f"-0.000{rng.randint(10**6, 10**7)}"}


def one_fill(i: int) -> dict[str, Any]:
    """With the digits that the venue's own numbers have."""
    pnl, fee, position = RNG.randint(-(10**8), 10**8), RNG.randint(-(10**4), 10**6), RNG.randint(-(10**8), 10**8)
    out = captures.fill(RNG, BTC, captures.T0 + i) | {"dir": "Open Long"}
    return out | {
        key: captures.decimal_text(units, decimals)
        for key, units, decimals in (("closedPnl", pnl, 6), ("fee", fee, 6), ("startPosition", position, 5))
    }


CANDLES = [message("candle", captures.candle(RNG, BTC, captures.T0 + 60_000 * i)) for i in range(COUNT)]
CTXS = [message("activeAssetCtx", {"coin": "BTC", "ctx": real_ctx(RNG)}) for _ in range(COUNT)]
UPDATES = [message("orderUpdates", [captures.order_update(RNG, BTC, captures.T0 + i)]) for i in range(COUNT)]
FILLS = [message("userFills", {"user": captures.ADDRESS, "fills": [one_fill(i)]}) for i in range(COUNT)]
NAMES = [f"C{i:03}" for i in range(230)] + [f"@{i}" for i in range(1, 300)] + [f"#{i}" for i in range(120)]
MIDS = [
    message("allMids", {"mids": {name: captures.decimal_text(RNG.randint(10**3, 10**7), 3) for name in NAMES}})
    for _ in range(16)
]
CANDLE_BODY = captures.wire([captures.candle(RNG, BTC, captures.T0 + 60_000 * i) for i in range(ROWS)])
FILL_BODY = captures.wire([one_fill(i) for i in range(ROWS)])

CASES: dict[str, tuple[list[bytes], Callable[[bytes], Any]]] = {
    "candle": (CANDLES, candle_values),
    "activeAssetCtx": (CTXS, ctx_values),
    "orderUpdates": (UPDATES, update_values),
    "userFills": (FILLS, fills_values),
}


@pytest.mark.parametrize("channel", CASES)
def test_rows_hlconn(benchmark: BenchmarkFixture, channel: str) -> None:
    benchmark.group = f"{channel}, {COUNT} messages: bytes -> numbers"
    rows = Rows(channel)
    messages, values = CASES[channel]
    benchmark(each(rows.read, messages))
    got, want = rows.read(messages[-1]), values(messages[-1])
    wide = [want] if isinstance(want, tuple) else want
    assert [row[: len(w)] for row, w in zip(got.tolist(), wide, strict=True)] == wide


@pytest.mark.parametrize("channel", CASES)
def test_rows_msgspec_typed_and_float(benchmark: BenchmarkFixture, channel: str) -> None:
    benchmark.group = f"{channel}, {COUNT} messages: bytes -> numbers"
    messages, values = CASES[channel]
    benchmark(each(values, messages))
    got = oracles.read_row_message(channel, messages[-1]).tolist()
    want: Any = values(messages[-1])
    wide = [want] if isinstance(want, tuple) else want
    assert [row[: len(w)] for row, w in zip(got, wide, strict=True)] == wide


MIDS_GROUP = f"allMids of {len(NAMES)} coins, {len(MIDS)} messages"


@pytest.mark.benchmark(group=MIDS_GROUP)
def test_mids_hlconn(benchmark: BenchmarkFixture) -> None:
    mids = Mids()
    benchmark(each(mids.read, MIDS))
    mids.read(MIDS[-1])
    assert dict(zip(mids.coins, mids.px.tolist(), strict=True)) == mids_by_msgspec(MIDS[-1])


def mids_by_msgspec(message: bytes) -> dict[str, float]:
    return {coin: float(px) for coin, px in decode_mids(message).data.mids.items()}


@pytest.mark.benchmark(group=MIDS_GROUP)
def test_mids_msgspec_typed_and_float(benchmark: BenchmarkFixture) -> None:
    benchmark(each(mids_by_msgspec, MIDS))
    assert len(mids_by_msgspec(MIDS[-1])) == len(NAMES)


def candles_by_orjson(body: bytes) -> NDArray[Any]:
    """As one would write it: the rows as tuples, then one array."""
    rows = [
        (
            v["t"],
            float(v["o"]),
            float(v["h"]),
            float(v["l"]),
            float(v["c"]),
            float(v["v"]),
            v["n"],
            v["T"],
            v["s"],
            v["i"],
        )
        for v in orjson.loads(body)
    ]
    return np.array(rows, CANDLE_DTYPE)


def fills_by_orjson(body: bytes) -> NDArray[Any]:
    return oracles.read_row_body("userFills", body)


def fills_by_orjson_plainly(body: bytes) -> NDArray[Any]:
    """Without a check, and the numbers alone: less than what ours gives."""
    fields = [("time", "<i8"), ("px", "<f8"), ("sz", "<f8"), ("oid", "<i8"), ("tid", "<i8")]
    fields += [("start_position", "<f8"), ("closed_pnl", "<f8"), ("fee", "<f8"), ("side", "i1"), ("crossed", "?")]
    rows = [
        (
            v["time"], float(v["px"]), float(v["sz"]), v["oid"], v["tid"], float(v["startPosition"]),
            float(v["closedPnl"]), float(v["fee"]), v["side"] == "A", v["crossed"],
        )
        for v in orjson.loads(body)
    ]  # fmt: skip
    return np.array(rows, fields)


REST = {"candleSnapshot": (CANDLE_BODY, candles_by_orjson), "userFills": (FILL_BODY, fills_by_orjson_plainly)}
READERS = {"candleSnapshot": read_candles, "userFills": read_fills}


@pytest.mark.parametrize("info", REST)
def test_answer_hlconn(benchmark: BenchmarkFixture, info: str) -> None:
    benchmark.group = f"{info}, {ROWS} rows over HTTP -> structured array"
    body, other = REST[info]
    got = benchmark(READERS[info], body)
    want = other(body)
    assert all(np.array_equal(got[name], want[name]) for name in want.dtype.names or ())


@pytest.mark.parametrize("info", REST)
def test_answer_orjson_and_a_loop(benchmark: BenchmarkFixture, info: str) -> None:
    benchmark.group = f"{info}, {ROWS} rows over HTTP -> structured array"
    body, other = REST[info]
    got = benchmark(other, body)
    want = oracles.read_row_body(info, body)
    assert all(np.array_equal(got[name], want[name]) for name in got.dtype.names or ())
