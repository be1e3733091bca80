"""From an order to the bytes of its post message, beside one bare signature of libsecp256k1 and the official SDK.

What is signed in each round has another nonce. Every answer is checked: it recovers to the address of the signer. The
SDK runs in an interpreter of its own (`make clients`, or HLCONN_SDK_PYTHON), which measures itself; else skipped.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from coincurve import PrivateKey, _libsecp256k1
from eth_account import Account
from eth_account.messages import encode_typed_data
from make_vectors import BACKENDS, VENV, Oracle, python_of
from pytest_benchmark.fixture import BenchmarkFixture
from sdk_cases import Case

import hlconn
from hlconn import Side, Signed, Signer, action
from hlconn._core.sign import keccak256
from hlconn.instruments import Instrument, Instruments, MarketKind
from hlconn.types import Cloid, Order, Tif

KEY = "0123456789" * 6 + "0123"
NONCE = 1_700_000_000_000
INSTRUMENTS = Instruments([Instrument("BTC", 0, MarketKind.PERP, 5)])
CLOID = Cloid(0x1234567890ABCDEF1234567890ABCDEF)
OID = 123_456_789_012
SDK = Path(os.environ.get("HLCONN_SDK_PYTHON") or python_of(VENV))

GROUP = "order, modify or cancel to the bytes of the post message"


def make_order() -> Order:
    return Order("BTC", Side.BUY, 98450.0, 0.01, Tif.ALO, cloid=CLOID)


ORDER = make_order()
ACTIONS: dict[str, Callable[[], action.Action]] = {
    "order": lambda: action.order([ORDER], INSTRUMENTS),
    "batchModify": lambda: action.batch_modify([(OID, ORDER)], INSTRUMENTS),
    "cancel": lambda: action.cancel([("BTC", OID)], INSTRUMENTS),
}


def check(signer: Signer, signed: Signed, message: bytes) -> None:
    assert signed.signer_address() == signer.address
    assert signed.payload in message


@pytest.mark.benchmark(group=GROUP)
def test_bare_libsecp256k1(benchmark: BenchmarkFixture) -> None:
    """`secp256k1_ecdsa_sign_recoverable` and nothing else, through cffi: the unit of what follows."""
    ffi, lib = _libsecp256k1.ffi, _libsecp256k1.lib
    context = lib.secp256k1_context_create(1)
    lib.secp256k1_context_randomize(context, os.urandom(32))
    signature, null = ffi.new("secp256k1_ecdsa_recoverable_signature *"), ffi.NULL
    key, digest = ffi.new("unsigned char[32]", bytes.fromhex(KEY)), ffi.new("unsigned char[32]", keccak256(b"digest"))
    assert benchmark(lib.secp256k1_ecdsa_sign_recoverable, context, signature, digest, key, null, null) == 1
    compact, recovery = ffi.new("unsigned char[64]"), ffi.new("int *")
    lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(context, compact, recovery, signature)
    r, s, v = Signer(KEY, "mainnet")._sign_digest(keccak256(b"digest"))
    assert bytes(compact) == r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert 27 + recovery[0] == v


@pytest.mark.benchmark(group=GROUP)
def test_bare_coincurve(benchmark: BenchmarkFixture) -> None:
    """The same through coincurve's own Python."""
    key, digest = PrivateKey.from_hex(KEY), keccak256(b"digest")
    signature = benchmark(key.sign_recoverable, digest, hasher=None)
    r, s, v = Signer(KEY, "mainnet")._sign_digest(digest)
    assert signature == r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v - 27])


@pytest.mark.benchmark(group=GROUP)
@pytest.mark.parametrize("kind", ACTIONS)
def test_hlconn(benchmark: BenchmarkFixture, kind: str) -> None:
    """From an existing `Order`, or an oid."""
    signer, make, nonces = Signer(KEY, "mainnet"), ACTIONS[kind], itertools.count(NONCE)
    last: Signed = signer.sign(make(), NONCE)

    def run() -> bytes:
        nonlocal last
        last = signer.sign(make(), next(nonces))
        return last.post(7)

    message = benchmark(run)
    check(signer, last, message)


@pytest.mark.benchmark(group=GROUP)
def test_hlconn_with_making_the_order(benchmark: BenchmarkFixture) -> None:
    signer, nonces = Signer(KEY, "mainnet"), itertools.count(NONCE)
    last: Signed = signer.sign(ACTIONS["order"](), NONCE)

    def run() -> bytes:
        nonlocal last
        last = signer.sign(action.order([make_order()], INSTRUMENTS), next(nonces))
        return last.post(7)

    message = benchmark(run)
    check(signer, last, message)


@pytest.mark.benchmark(group="what is not the signature")
def test_make_order(benchmark: BenchmarkFixture) -> None:
    assert benchmark(make_order) == ORDER


@pytest.mark.benchmark(group="what is not the signature")
@pytest.mark.parametrize("kind", ACTIONS)
def test_encode(benchmark: BenchmarkFixture, kind: str) -> None:
    made = benchmark(ACTIONS[kind])
    assert made.msgpack == action.raw(orjson.loads(made.json)).msgpack


@pytest.mark.benchmark(group="what is not the signature")
def test_take_and_give_back_a_nonce(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    with hlconn.Nonces("0x" + "01" * 20, tmp_path) as nonces:
        first = nonces.take()
        benchmark(lambda: nonces.done(nonces.take()))
        assert nonces.take() > first


@pytest.mark.benchmark(group=GROUP)
def test_eth_account(benchmark: BenchmarkFixture) -> None:
    """The last step alone as most Python clients do it: the hash is given, eth-account signs the typed data."""
    wallet, agent = Account.from_key(KEY), [{"name": "source", "type": "string"}]
    domain = {"name": "Exchange", "version": "1", "chainId": 1337, "verifyingContract": "0x" + "0" * 40}
    types = {"Agent": [*agent, {"name": "connectionId", "type": "bytes32"}]}
    message = {"source": "a", "connectionId": bytes(32)}
    signed = benchmark(lambda: wallet.sign_message(encode_typed_data(domain, types, message)))
    assert signed.v in (27, 28)


CASE: Case = {"key": KEY, "network": "mainnet", "nonce": NONCE, "vault": None, "expires_after": None}
SDK_ORDER: dict[str, Any] = {"coin": "BTC", "is_buy": True, "px": 98450.0, "sz": 0.01, "tif": "Alo", "trigger": None}
SDK_ORDER |= {"reduce_only": False, "cloid": CLOID.hex}
SDK_CASES: dict[str, Case] = {
    "order": {"op": "order", "orders": [SDK_ORDER], "grouping": "na", "builder": None},
    "batchModify": {"op": "batchModify", "modifies": [[OID, SDK_ORDER]], "always_place": False},
    "cancel": {"op": "cancel", "cancels": [["BTC", OID]], "fast": False},
}


class SdkClock:
    """Goes on by what the SDK's own process measured: the pipe to it is not in the row."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


sdk_clock = SdkClock()


@pytest.mark.benchmark(group=GROUP, timer=sdk_clock)
@pytest.mark.parametrize("kind", SDK_CASES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.skipif(not SDK.exists(), reason="the official SDK is not installed: make clients")
def test_official_sdk(benchmark: BenchmarkFixture, kind: str, backend: str) -> None:
    """From the SDK's order request to the bytes of its request; as pip installs it, and with coincurve beside it."""
    oracle, case = Oracle(SDK, backend), {**CASE, **SDK_CASES[kind]}

    def run() -> None:
        sdk_clock.now_s += oracle({"op": "bench", "case": case})["took_s"]

    benchmark.pedantic(run, rounds=200, warmup_rounds=20)  # type: ignore[no-untyped-call]
    signed, answer = Signer(KEY, "mainnet").sign(ACTIONS[kind](), NONCE), oracle(case)
    assert (signed.r, signed.s, signed.v) == (int(answer["r"], 16), int(answer["s"], 16), answer["v"])
    oracle.close()
