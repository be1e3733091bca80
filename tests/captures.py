"""Made-up captures: plausible messages of every hot channel in today's spelling, from a seed, and ways to respell them.

Values are invented; shapes, key order and the spelling of numbers are the venue's. Nothing here imports hlconn.

    python tests/captures.py DIR     writes a corpus for the fuzzer, one message a file
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

T0 = 1_790_000_000_000
GREETING = b"Websocket connection established."
FAST_LEVELS = 5
TELLING = b'{}[],:"\\0123456789.eE+-ntfu \x00\x1f\x7f\x80\xff'  # bytes that mean something to a reader of JSON


@dataclass(frozen=True)
class Coin:
    """One market of the made-up venue: where its price is, how many decimals its numbers have, units of px a tick."""

    name: str
    px: str
    px_decimals: int
    sz_decimals: int
    tick: int = 1


COINS = (
    Coin("BTC", "106000", 0, 5),
    Coin("ETH", "3500.2", 1, 4),
    Coin("kPEPE", "0.012345", 6, 0),
    Coin("@107", "45.123", 3, 2),
    Coin("xyz:XYZ100", "24567.0", 0, 4),
    Coin("PURR/USDC", "0.17654", 5, 0),
    Coin("DUST", "0.00123", 5, 0),
    Coin("WHALE", "999000.5", 1, 1),
    Coin("LONG", "3096053627.5618200302", 10, 12, tick=98_765_432),
    Coin("ŁÓDŹ\N{ROCKET}", "12.5", 4, 3),
)


def decimal_text(units: int, decimals: int) -> str:
    """units * 10**-decimals as the venue writes it: at least one decimal, no further trailing zero."""
    text = f"{Decimal(units).scaleb(-decimals):f}"
    whole, _, part = text.partition(".")
    return f"{whole}.{part.rstrip('0') or '0'}"


def wire(value: Any) -> bytes:
    """Today's spelling: compact, raw UTF-8, keys in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def level(rng: Random, coin: Coin, units: int) -> dict[str, Any]:
    lots = rng.choice((rng.randint(1, 99), rng.randint(1, 10**6), rng.randint(1, 10**9)))
    orders = rng.choice((1, 1, 2, rng.randint(1, 99), rng.randint(100, 10**5)))
    return {"px": decimal_text(units, coin.px_decimals), "sz": decimal_text(lots, coin.sz_decimals), "n": orders}


def side(rng: Random, coin: Coin, count: int, top: int, sign: int) -> list[dict[str, Any]]:
    out = []
    units = top
    for _ in range(count):
        if units <= 0:
            break
        out.append(level(rng, coin, units))
        units += sign * coin.tick * rng.choice((1, 1, 1, 2, 3, rng.randint(1, 40)))
    return out


def middle(rng: Random, coin: Coin, wander: int = 6) -> int:
    home = int(Decimal(coin.px).scaleb(coin.px_decimals))
    return max(2, home + coin.tick * rng.randint(-wander, wander))


def spread(rng: Random, coin: Coin) -> int:
    return coin.tick * rng.choice((1, 1, 2, rng.randint(1, 9)))


def l2book(
    rng: Random, coin: Coin, time_ms: int, *, levels: int | tuple[int, int] = 20, fast: bool = False, **extra: Any
) -> bytes:
    """A snapshot. extra: further keys after `levels`, before `fast`, as the venue adds them ("spread")."""
    counts = (levels, levels) if isinstance(levels, int) else levels
    bid = middle(rng, coin)
    ask = bid + spread(rng, coin)
    sides = [side(rng, coin, counts[0], bid, -1), side(rng, coin, counts[1], ask, 1)]
    data: dict[str, Any] = {"coin": coin.name, "time": time_ms, "levels": sides, **extra}
    if fast:
        data["fast"] = True
    return wire({"channel": "l2Book", "data": data})


def bbo(rng: Random, coin: Coin, time_ms: int, *, null: tuple[bool, bool] = (False, False)) -> bytes:
    bid = middle(rng, coin)
    ask = bid + spread(rng, coin)
    tops = [None if null[row] else level(rng, coin, (bid, ask)[row]) for row in range(2)]
    return wire({"channel": "bbo", "data": {"coin": coin.name, "time": time_ms, "bbo": tops}})


def trade(rng: Random, coin: Coin, time_ms: int, *, users: bool = True) -> dict[str, Any]:
    row = level(rng, coin, middle(rng, coin))
    out: dict[str, Any] = {
        "coin": coin.name,
        "side": rng.choice("AB"),
        "px": row["px"],
        "sz": row["sz"],
        "time": time_ms,
        "hash": f"0x{rng.getrandbits(256):064x}" if rng.random() < 0.9 else "0x" + 64 * "0",
        "tid": rng.randint(1, 10**15),
    }
    if users:
        out["users"] = [f"0x{rng.getrandbits(160):040x}", f"0x{rng.getrandbits(160):040x}"]
    return out


def trades(rng: Random, coin: Coin, time_ms: int, *, count: int = 1, users: bool = True) -> bytes:
    rows = [trade(rng, coin, time_ms + i // 3, users=users) for i in range(count)]
    return wire({"channel": "trades", "data": rows})


def control(rng: Random) -> list[bytes]:
    """Frames that are not data of a hot channel, known ones and unknown ones."""
    subscription = {"type": "l2Book", "coin": "BTC", "nSigFigs": None, "mantissa": None}
    return [
        GREETING,
        wire({"channel": "pong"}),
        wire({"channel": "subscriptionResponse", "data": {"method": "subscribe", "subscription": subscription}}),
        wire({"channel": "error", "data": 'Invalid subscription {"type":"l2Book","coin":"NOPE"}'}),
        wire({"channel": "allMids", "data": {"mids": {c.name: c.px for c in COINS}}}),
        wire({"channel": "notification", "data": {"notification": '\N{BELL} all\'s well \\ "quoted" \t'}}),
        wire({"channel": "post", "data": {"id": rng.randint(1, 99), "response": {"type": "info", "payload": [1.5e3]}}}),
        wire({"channel": "someDayNew", "data": [[[[{"deep": [[{}], -0.5, True, False, None, "x"]}]]]], "seq": 7}),
    ]


# One made-up snapshot, bbo or trades message a name: the shapes that tests ask for by what they are.
SHAPES: dict[str, Callable[[Random, Coin, int], bytes]] = {
    "slow": lambda r, c, t: l2book(r, c, t),
    "fast": lambda r, c, t: l2book(r, c, t, levels=FAST_LEVELS, fast=True),
    "fast and short": lambda r, c, t: l2book(r, c, t, levels=(3, 5), fast=True),
    "with spread": lambda r, c, t: l2book(r, c, t, spread="1.0"),
    "with unknown keys": lambda r, c, t: l2book(r, c, t, levels=4, seqNo=7, extra={"a": [1, "}", None]}, fast=False),
    "empty": lambda r, c, t: l2book(r, c, t, levels=0),
    "bids only": lambda r, c, t: l2book(r, c, t, levels=(7, 0)),
    "asks only": lambda r, c, t: l2book(r, c, t, levels=(0, 7)),
    "deep": lambda r, c, t: l2book(r, c, t, levels=110),
    "bbo": lambda r, c, t: bbo(r, c, t),
    "bbo without bid": lambda r, c, t: bbo(r, c, t, null=(True, False)),
    "bbo without ask": lambda r, c, t: bbo(r, c, t, null=(False, True)),
    "bbo of nothing": lambda r, c, t: bbo(r, c, t, null=(True, True)),
    "one trade": lambda r, c, t: trades(r, c, t),
    "trades": lambda r, c, t: trades(r, c, t, count=7),
    "trades without users": lambda r, c, t: trades(r, c, t, count=5, users=False),
    "many trades": lambda r, c, t: trades(r, c, t, count=90),
    "no trades": lambda r, c, t: trades(r, c, t, count=0),
}
BOOK_SHAPES = tuple(name for name in SHAPES if "trade" not in name)
TRADE_SHAPES = tuple(name for name in SHAPES if "trade" in name)


def example(shape: str, coin: Coin = COINS[0], seed: int = 1, time_ms: int = T0) -> bytes:
    return SHAPES[shape](Random(f"{shape} {coin.name} {seed}"), coin, time_ms)


def stream(seed: int = 1, rounds: int = 3, coins: tuple[Coin, ...] = COINS) -> Iterator[bytes]:
    """A session's worth of messages: every shape for every coin in random order, times rising, some late."""
    rng = Random(seed)
    now = T0
    for _ in range(rounds):
        batch = [(name, coin) for name in SHAPES for coin in coins]
        rng.shuffle(batch)
        yield from control(rng)
        for name, coin in batch:
            now += rng.randint(0, 40)
            late = rng.choice((0, 0, 0, 0, rng.randint(0, 3000)))
            yield SHAPES[name](rng, coin, now - late)


# --- what comes as many like objects ------------------------------------------------------------------------------

ADDRESS = "0x31ca8395cf837de08b24da3f660e77761dfb974b"
INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d", "3d", "1w", "1M")
STATUSES = ("open", "filled", "canceled", "triggered", "rejected", "badAloPxRejected", "scheduledCancel", "accepted")
NEW_STATUSES = (
    "someDayNewRejected",
    "someDayNewCanceled",
    "internalSomethingCancel",
    "someDayNew",
    "",
    "offen\N{BELL}",
)


def signed(rng: Random, decimals: int) -> str:
    text = decimal_text(rng.choice((0, rng.randint(1, 999), rng.randint(1, 10**9), rng.randint(1, 10**17))), decimals)
    return "-" + text if rng.random() < 0.4 else text


def cloid(rng: Random) -> str:
    return f"0x{rng.getrandbits(128):032x}"


def tx_hash(rng: Random) -> str:
    return f"0x{rng.getrandbits(256):064x}" if rng.random() < 0.9 else "0x" + 64 * "0"


def candle(rng: Random, coin: Coin, time_ms: int) -> dict[str, Any]:
    o, c, h, low = (decimal_text(middle(rng, coin), coin.px_decimals) for _ in range(4))
    out: dict[str, Any] = {"t": time_ms, "T": time_ms + 59_999, "s": coin.name, "i": rng.choice(INTERVALS)}
    return out | {"o": o, "c": c, "h": h, "l": low, "v": level(rng, coin, 7)["sz"], "n": rng.randint(0, 10**6)}


def fill(rng: Random, coin: Coin, time_ms: int) -> dict[str, Any]:
    row = level(rng, coin, middle(rng, coin))
    out: dict[str, Any] = {"coin": coin.name, "px": row["px"], "sz": row["sz"], "side": rng.choice("AB")}
    out |= {"time": time_ms, "startPosition": signed(rng, coin.sz_decimals)}
    out |= {"dir": rng.choice(("Open Long", "Long > Short", "Buy", "Auto-Deleveraging", "a word of \N{ROCKET}" * 4))}
    out |= {"closedPnl": signed(rng, 6), "hash": tx_hash(rng), "oid": rng.randint(1, 10**12)}
    out |= {"crossed": rng.random() < 0.5, "fee": signed(rng, 8)}
    if rng.random() < 0.3:
        out["builderFee"] = decimal_text(rng.randint(0, 10**6), 8)
    out["tid"] = rng.randint(1, 2**50)
    if rng.random() < 0.6:
        out["cloid"] = rng.choice((cloid(rng), cloid(rng), None))
    if rng.random() < 0.3:
        out["liquidation"] = {"markPx": row["px"], "method": rng.choice(("market", "backstop", "something wholly new"))}
        if rng.random() < 0.7:
            out["liquidation"]["liquidatedUser"] = ADDRESS
    out["feeToken"] = rng.choice(("USDC", "HYPE"))
    if rng.random() < 0.2:
        out["feeTrialEscrow"] = decimal_text(rng.randint(0, 10**6), 8)
    out["twapId"] = rng.choice((None, None, rng.randint(1, 10**6)))
    return out


def perp_ctx(rng: Random, coin: Coin) -> dict[str, Any]:
    px = decimal_text(middle(rng, coin), coin.px_decimals)
    bare = rng.random() < 0.2
    out: dict[str, Any] = {"funding": signed(rng, 10), "openInterest": level(rng, coin, 7)["sz"], "prevDayPx": px}
    out |= {"dayNtlVlm": decimal_text(rng.randint(0, 10**20), 10), "premium": None if bare else signed(rng, 10)}
    out |= {"oraclePx": px, "markPx": px, "midPx": None if bare else px, "impactPxs": None if bare else [px, px]}
    return out | {"dayBaseVlm": decimal_text(rng.randint(0, 10**9), 5)}


def spot_ctx(rng: Random, coin: Coin) -> dict[str, Any]:
    px = decimal_text(middle(rng, coin), coin.px_decimals)
    supply = decimal_text(rng.randint(0, 10**18), 8)
    out: dict[str, Any] = {"prevDayPx": px, "dayNtlVlm": decimal_text(rng.randint(0, 10**20), 10), "markPx": px}
    out |= {"midPx": rng.choice((px, None)), "circulatingSupply": supply, "coin": coin.name, "totalSupply": supply}
    return out | {"dayBaseVlm": decimal_text(rng.randint(0, 10**9), 5)}


def order_update(rng: Random, coin: Coin, time_ms: int) -> dict[str, Any]:
    row = level(rng, coin, middle(rng, coin))
    order: dict[str, Any] = {"coin": coin.name, "side": rng.choice("AB"), "limitPx": row["px"], "sz": row["sz"]}
    order |= {"oid": rng.randint(1, 10**12), "timestamp": time_ms - rng.randint(0, 9999), "origSz": row["sz"]}
    if rng.random() < 0.7:
        order["cloid"] = cloid(rng)
    if rng.random() < 0.3:
        order["reduceOnly"] = True
    status = rng.choice((*STATUSES, *STATUSES, *NEW_STATUSES))
    return {"order": order, "status": status, "statusTimestamp": time_ms}


def user_funding(rng: Random, coin: Coin, time_ms: int) -> dict[str, Any]:
    out: dict[str, Any] = {"time": time_ms, "coin": coin.name, "usdc": signed(rng, 6), "szi": signed(rng, 5)}
    return out | {"fundingRate": signed(rng, 10), "nSamples": rng.choice((None, 3))}


def funding(rng: Random, coin: Coin, time_ms: int) -> dict[str, Any]:
    return {"coin": coin.name, "fundingRate": signed(rng, 8), "premium": signed(rng, 8), "time": time_ms}


Rows = Callable[[Random, Coin, int], Any]


def several(one: Rows, most: int = 5) -> Rows:
    return lambda r, c, t: [one(r, c, t + i) for i in range(r.randint(0, most))]


def of_user(name: str, one: Rows) -> Rows:
    def data(r: Random, c: Coin, t: int) -> Any:
        snapshot: dict[str, Any] = r.choice(({"isSnapshot": True}, {"isSnapshot": False}, {}))
        return snapshot | {"user": ADDRESS, name: several(one)(r, c, t)}

    return data


#: The `data` of each channel whose messages are read into rows, and of each answer over HTTP that is.
ROW_DATA: dict[str, Rows] = {
    "candle": candle,
    "activeAssetCtx": lambda r, c, t: {"coin": c.name, "ctx": perp_ctx(r, c)},
    "activeSpotAssetCtx": lambda r, c, t: {"coin": c.name, "ctx": spot_ctx(r, c)},
    "assetCtxs": lambda r, c, t: {"dex": r.choice(("", "xyz")), "ctxs": [perp_ctx(r, c) for _ in range(4)]},
    "spotAssetCtxs": lambda r, c, t: [spot_ctx(r, c) for _ in range(4)],
    "orderUpdates": several(order_update),
    "user": lambda r, c, t: r.choice(({"fills": several(fill)(r, c, t)}, {"funding": user_funding(r, c, t)})),
    "userFills": of_user("fills", fill),
    "userFundings": of_user("fundings", user_funding),
}
ROW_BODIES: dict[str, Rows] = {
    "candleSnapshot": several(candle),
    "userFills": several(fill),
    "fundingHistory": several(funding),
    "userFunding": several(
        lambda r, c, t: {"time": t, "hash": tx_hash(r), "delta": {"type": "funding", **user_funding(r, c, t)}}
    ),
    "historicalOrders": several(order_update),
}


def row_message(channel: str, coin: Coin = COINS[0], seed: int = 1, time_ms: int = T0) -> bytes:
    rng = Random(f"{channel} {coin.name} {seed}")
    return wire({"channel": channel, "data": ROW_DATA[channel](rng, coin, time_ms)})


def row_body(info: str, coin: Coin = COINS[0], seed: int = 1, time_ms: int = T0) -> bytes:
    return wire(ROW_BODIES[info](Random(f"{info} {coin.name} {seed}"), coin, time_ms))


# --- the same message, spelled otherwise ---------------------------------------------------------------------------


class Number(str):
    """A JSON number, kept as its text."""

    __slots__ = ()


def respell(message: bytes, rng: Random, *, escapes: bool = True) -> bytes:
    """The same JSON value: the keys of every object shuffled, white space added, characters written as \\uXXXX."""

    def space() -> str:
        return rng.choice(("", "", "", " ", "\n", "\t", "\r\n", "  "))

    def character(char: str) -> str:
        if char in '"\\' or char < " " or (escapes and rng.random() < 0.1):
            if char == "/" and rng.random() < 0.5:
                return "\\/"
            units = char.encode("utf-16-be")
            digits = [f"{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)]
            return "".join("\\u" + (d.upper() if rng.random() < 0.5 else d) for d in digits)
        return char

    def text(value: Any) -> str:
        if isinstance(value, Number):
            return str(value)
        if isinstance(value, str):
            return '"' + "".join(map(character, value)) + '"'
        if isinstance(value, list):
            return "[" + ",".join(space() + text(v) + space() for v in value) + space() + "]"
        if isinstance(value, dict):
            items = list(value.items())
            rng.shuffle(items)
            body = ",".join(f"{space()}{text(k)}{space()}:{space()}{text(v)}{space()}" for k, v in items)
            return "{" + body + space() + "}"
        return json.dumps(value)

    value = json.loads(message, parse_float=Number, parse_int=Number)
    return (space() + text(value) + space()).encode()


def damaged(message: bytes, rng: Random) -> bytes:
    """The message with some random damage: bytes changed, cut out, doubled or moved."""
    data = bytearray(message)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if not data:
            break
        at, size = rng.randrange(len(data)), rng.choice((1, 1, 2, 8, 40))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] = rng.choice(TELLING) if size > 1 else rng.randrange(256)
        elif kind == 1:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = data[at : at + size]
        else:
            other = rng.randrange(len(data))
            data[at : at + size] = data[other : other + size]
    return bytes(data)


def exact(message: bytes) -> memoryview:
    """The message in heap memory of its very size: one byte past it belongs to nobody, and a sanitizer sees it read."""
    array: Any = np.frombuffer(message, np.uint8).copy()
    return memoryview(array) if message else memoryview(b"")


def corpus(directory: Path) -> int:
    """Write messages of every shape, plain, respelled and damaged, one a file. Returns how many."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = Random(2)
    found = set(control(rng))
    for coin in COINS:
        for name in SHAPES:
            if name in ("deep", "many trades") and coin.name != "BTC":
                continue
            message = example(name, coin)
            found |= {message, respell(message, rng), message[: rng.randrange(len(message))], damaged(message, rng)}
    for message in found:
        (directory / hashlib.sha1(message).hexdigest()[:16]).write_bytes(message)
    return len(found)


if __name__ == "__main__":
    print(corpus(Path(sys.argv[1])), "messages")
