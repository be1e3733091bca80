"""From an existing Order to the bytes of its post message, with and without one-time nonces, beside the bare signature.

What is timed is `COUNT` of each; nonces are made between the rounds, and what that costs is reported apart.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import orjson
import pytest
from coincurve import _libsecp256k1
from eth_account import Account
from pytest_benchmark.fixture import BenchmarkFixture

from hlconn._core import action, sign
from hlconn.instruments import Instrument, MarketKind
from hlconn.types import Order, Side, Tif

COUNT = 256
ROUNDS = 40
KEY = hashlib.sha256(b"a key for benches").digest()
ADDRESS = Account.from_key(KEY).address.lower()
INSTRUMENTS = {"BTC": Instrument("BTC", 0, MarketKind.PERP, 5)}
ORDERS = [Order("BTC", Side.BUY, 98450 + i, "0.01", Tif.ALO) for i in range(COUNT)]
NONCE = 1_790_000_000_000
GROUP = f"{COUNT} orders -> post messages"

Work = Callable[[], None]


def to_post(signer: sign.Signer, sent: list[bytes]) -> Work:
    def run() -> None:
        sent.clear()
        for i, order in enumerate(ORDERS):
            sent.append(signer.sign(action.order([order], INSTRUMENTS), NONCE + i).post(i))

    return run


def measure(benchmark: BenchmarkFixture, work: Callable[[], object], setup: Callable[[], object] | None = None) -> None:
    """`setup` before each round, outside the time."""
    benchmark.pedantic(work, setup=None if setup is None else lambda: setup() and None, rounds=ROUNDS)  # type: ignore[no-untyped-call]


def check(sent: list[bytes]) -> None:
    """Each message is its order's, and eth-account recovers the signer from it."""
    assert len(sent) == COUNT
    for i, message in enumerate(sent):
        payload = orjson.loads(message)["request"]["payload"]
        assert payload["action"] == orjson.loads(action.order([ORDERS[i]], INSTRUMENTS).json)
        signature = payload["signature"]
        digest = sign.hash_of(action.raw(payload["action"]), payload["nonce"], None, None, "testnet")[1]
        vrs = (signature["v"], int(signature["r"], 16), int(signature["s"], 16))
        assert Account._recover_hash(digest, vrs=vrs).lower() == ADDRESS


def bare() -> Work:
    """secp256k1_ecdsa_sign_recoverable and nothing else, through cffi, into memory that is there already."""
    ffi, lib = _libsecp256k1.ffi, _libsecp256k1.lib
    context = ffi.gc(lib.secp256k1_context_create(1), lib.secp256k1_context_destroy)
    signature = ffi.new("secp256k1_ecdsa_recoverable_signature *")
    call = lib.secp256k1_ecdsa_sign_recoverable
    digests = [hashlib.sha256(b"%d" % i).digest() for i in range(COUNT)]

    def run() -> None:
        for digest in digests:
            assert call(context, signature, digest, KEY, ffi.NULL, ffi.NULL)

    return run


@pytest.mark.benchmark(group=GROUP)
def test_bare_signature(benchmark: BenchmarkFixture) -> None:
    measure(benchmark, bare())


@pytest.mark.benchmark(group=GROUP)
def test_rfc_6979(benchmark: BenchmarkFixture) -> None:
    sent: list[bytes] = []
    measure(benchmark, to_post(sign.Signer(KEY, "testnet"), sent))
    check(sent)


@pytest.mark.benchmark(group=GROUP)
def test_one_time_nonces(benchmark: BenchmarkFixture) -> None:
    signer = sign.Signer(KEY, "testnet", presign=COUNT)
    sent: list[bytes] = []
    measure(benchmark, to_post(signer, sent), setup=signer.refill)
    assert signer.presign_misses == 0
    check(sent)


@pytest.mark.benchmark(group=f"{COUNT} one-time nonces made")
def test_refill(benchmark: BenchmarkFixture) -> None:
    signer = sign.Signer(KEY, "testnet", presign=COUNT)

    def spend() -> None:
        while signer.presigned:
            signer._sign_digest(KEY)

    measure(benchmark, signer.refill, setup=spend)
    assert signer.presigned == COUNT


def test_an_order_with_a_one_time_nonce_beside_a_bare_signature(benchmark: BenchmarkFixture) -> None:
    """Taken in turns, the best of each: what else the machine does meets both."""
    signer = sign.Signer(KEY, "testnet", presign=COUNT)
    sent: list[bytes] = []
    works = {"bare": bare(), "presigned": to_post(signer, sent)}
    best = dict.fromkeys(works, float("inf"))

    def turn() -> None:
        for name, work in works.items():
            signer.refill()
            began = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - began)

    measure(benchmark, turn)
    benchmark.extra_info["us each"] = {name: seconds / COUNT * 1e6 for name, seconds in best.items()}
    benchmark.extra_info["ratio"] = best["presigned"] / best["bare"]
    assert signer.presign_misses == 0
    check(sent)
