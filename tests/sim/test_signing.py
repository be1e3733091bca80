"""The venue's own idea of who signed what, against vectors of the official SDK, and the nonces of a signer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from coincurve import PrivateKey

from hlconn.sim.actions import Malformed, canonical, read_envelope
from hlconn.sim.signing import USER_SIGNED, BadSignature, Nonces, address_of, l1_signer, user_signer

JsonObject = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "protocol" / "vectors" / "signing.json"
SIGNED_BY_SDK: list[JsonObject] = json.loads((ROOT / "tests" / "vectors" / "sdk.json").read_text())["signed"]
#: Without the actions that this venue does not offer: staking, multi-sig.
SDK = [c for c in SIGNED_BY_SDK if c["op"] != "user" or c["expected"]["action"]["type"] in USER_SIGNED]
NOW = 1_750_000_000_000


def address_of_key(key: str) -> str:
    return address_of(PrivateKey(bytes.fromhex(key.removeprefix("0x"))).public_key.format(compressed=False))


def sdk_case(case: JsonObject) -> tuple[JsonObject, JsonObject]:
    """(action, signature) as the SDK sent them."""
    expected = case["expected"]
    action = expected["action"] if case["op"] == "user" else msgpack.unpackb(bytes.fromhex(expected["msgpack"]))
    return action, {key: expected[key] for key in ("r", "s", "v")}


def signer_of(case: JsonObject, action: JsonObject, signature: JsonObject, *, mainnet: bool | None = None) -> str:
    if action["type"] in USER_SIGNED:
        return user_signer(canonical(action), signature)
    if mainnet is None:
        mainnet = case["network"] == "mainnet"
    return l1_signer(canonical(action), case["nonce"], case["vault"], case["expires_after"], signature, mainnet)


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same JSON with the keys of every object in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], rng) for key in rng.sample(list(value), len(value))}
    return [shuffled(each, rng) for each in value] if isinstance(value, list) else value


# --- who signed -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.exists(), reason="the shared vectors are not beside this repository")
def test_the_shared_vectors_are_signed_by_their_signers() -> None:
    checked = 0
    for case in json.loads(SHARED.read_text()):
        action, signature = case["action"], {key: case[key] for key in ("r", "s", "v")}
        padded = {"r": case["r_padded"], "s": case["s_padded"], "v": case["v"]}
        for each in (signature, padded):
            if case["kind"] == "l1":
                envelope = case["nonce"], case["vault"], case["expires_after"]
                assert l1_signer(action, *envelope, each, case["is_mainnet"]) == case["signer"], case["name"]
                assert l1_signer(action, *envelope, each, not case["is_mainnet"]) != case["signer"], case["name"]
            elif case["kind"] == "user_signed" and action["type"] in USER_SIGNED:
                assert user_signer(action, each) == case["signer"], case["name"]
            else:
                continue
            checked += 1
    assert checked >= 2 * (66 + 13)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared vectors are not beside this repository")
def test_the_form_that_is_hashed_is_that_of_the_shared_vectors_whatever_the_order_of_keys() -> None:
    rng, checked = random.Random(1), set()
    for case in json.loads(SHARED.read_text()):
        action = case["action"]
        if case["kind"] not in ("l1", "user_signed"):
            continue  # multi-sig, which this venue does not offer
        try:
            made = canonical(shuffled(action, rng))
        except Malformed:
            continue  # an action that this venue does not offer
        if case["kind"] == "l1":
            assert msgpack.packb(made).hex() == case["msgpack_hex"], case["name"]
        checked.add(action["type"])
    assert {"order", "cancel", "cancelByCloid", "modify", "batchModify", "scheduleCancel", "updateLeverage"} <= checked
    assert {"usdSend", "approveAgent", "sendAsset", "noop", "updateIsolatedMargin", "vaultTransfer"} <= checked


def test_everything_that_the_sdk_signed_is_recovered() -> None:
    rng = random.Random(2)
    assert len(SDK) >= 280
    assert {case["expected"]["action"]["type"] for case in SDK if case["op"] == "user"} == USER_SIGNED
    for number, case in enumerate(SDK):
        action, signature = sdk_case(case)
        assert signer_of(case, shuffled(action, rng), signature) == address_of_key(case["key"]), number


def test_a_changed_envelope_is_somebody_elses() -> None:
    for number, case in enumerate(case for case in SDK if case["op"] != "user"):
        action, signature = sdk_case(case)
        right = address_of_key(case["key"])
        others: list[JsonObject] = [
            {"nonce": case["nonce"] + 1},
            {"vault": None if case["vault"] else "0x" + "01" * 20},
            {"expires_after": None if case["expires_after"] else NOW},
        ]
        for other in others:
            assert signer_of(case | other, action, signature) != right, (number, other)
        assert signer_of(case, action, signature, mainnet=case["network"] != "mainnet") != right, number


def test_a_changed_action_is_somebody_elses() -> None:
    for number, case in enumerate(SDK):
        action, signature = sdk_case(case)
        if action["type"] == "order":
            action["orders"][0]["b"] = not action["orders"][0]["b"]
        elif case["op"] == "user":
            action["hyperliquidChain"] = "Testnet" if case["network"] == "mainnet" else "Mainnet"
        else:
            continue
        assert signer_of(case, action, signature) != address_of_key(case["key"]), number


def test_numbers_and_hex_are_normalised_before_they_are_hashed() -> None:
    cloid, order = "0x" + "Ab" * 16, {"a": 0, "b": True, "r": False, "t": {"limit": {"tif": "Gtc"}}}
    for text, plain in (
        ("100.0", "100"),
        ("0100", "100"),
        ("0.50", "0.5"),
        ("-0.0", "0"),
        ("0", "0"),
        ("00.10", "0.1"),
    ):
        action = {"type": "order", "orders": [{**order, "p": text, "s": "1", "c": cloid}], "grouping": "na"}
        [made] = canonical(action)["orders"]
        assert (made["p"], made["c"]) == (plain, cloid.lower())
        assert list(made) == ["a", "b", "p", "s", "r", "t", "c"]


BAD_SIGNATURES: list[object] = [
    None,
    {},
    {"r": "0x0", "s": "0x1", "v": 27},
    {"r": "0x1", "s": "0x0", "v": 27},
    {"r": "0x1", "s": "0x1", "v": 29},
    {"r": "0x1", "s": "0x1", "v": "27"},
    {"r": "zz", "s": "0x1", "v": 27},
    {"r": 1, "s": 1, "v": 27},
    {"r": "0x" + "f" * 64, "s": "0x1", "v": 27},
    {"r": "0x1", "s": "0x" + "f" * 64, "v": 27},
    {"r": "0x1" + "0" * 80, "s": "0x1", "v": 27},
    {"r": "0x5", "s": "0x1", "v": 27},  # no point of the curve has this x
]


@pytest.mark.parametrize("signature", BAD_SIGNATURES, ids=str)
def test_what_is_no_signature_recovers_nobody(signature: object) -> None:
    with pytest.raises(BadSignature):
        l1_signer({"type": "noop"}, 1, None, None, signature, True)


def test_the_other_s_of_a_signature_is_refused() -> None:
    """As on the venue: of the two values that recover one signer, only the low one is a signature."""
    case = next(case for case in SDK if case["op"] == "order")
    action, signature = sdk_case(case)
    n = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    with pytest.raises(BadSignature):
        signer_of(case, action, {"r": signature["r"], "s": hex(n - int(signature["s"], 16)), "v": 55 - signature["v"]})


def test_a_user_signed_action_without_its_fields_cannot_be_recovered() -> None:
    for case in SDK:
        if case["op"] != "user":
            continue
        action, signature = sdk_case(case)
        for key in action.keys() - {"type", "agentName"}:
            with pytest.raises(BadSignature):
                user_signer({name: value for name, value in action.items() if name != key}, signature)


GOOD: JsonObject = {"action": {"type": "noop"}, "nonce": 5, "signature": {"r": "0x1", "s": "0x2", "v": 27}}


@pytest.mark.parametrize(
    "change",
    [
        {"action": None},
        {"action": {"type": "nothingKnown"}},
        {"action": {"type": ["noop"]}},
        {"action": {"type": "cancel", "cancels": [{"a": 0, "o": -1}]}},
        {"action": {"type": "cancel", "cancels": [{"a": 0, "o": 5}], "f": False}},
        {"action": {"type": "cancel", "cancels": [{"a": True, "o": 5}]}},
        {"action": {"type": "cancelByCloid", "cancels": [{"asset": 0, "cloid": "0x12"}]}},
        {"action": {"type": "order", "orders": [], "grouping": "some"}},
        {"action": {"type": "order", "orders": [{}], "grouping": "na"}},
        {"action": {"type": "usdSend", "destination": "0x" + "1" * 40, "amount": "1", "time": 5}},
        {"nonce": -1},
        {"nonce": "5"},
        {"nonce": 1 << 64},
        {"signature": {"r": "0x1", "s": "0x2"}},
        {"signature": None},
        {"vaultAddress": "0x12"},
        {"vaultAddress": 5},
        {"expiresAfter": -5},
    ],
    ids=str,
)
def test_an_envelope_of_another_shape_is_malformed(change: JsonObject) -> None:
    assert read_envelope(GOOD) == ({"type": "noop"}, 5, GOOD["signature"], None, None)
    with pytest.raises(Malformed):
        read_envelope(GOOD | change)


# --- nonces -----------------------------------------------------------------------------------------------------


def spend(nonces: Nonces, nonce: int) -> str | None:
    refusal = nonces.refusal(nonce, NOW)
    if refusal is None:
        nonces.spend(nonce)
    return refusal


def test_a_nonce_can_be_spent_once() -> None:
    nonces = Nonces()
    assert spend(nonces, NOW) is None
    assert spend(nonces, NOW) == f"Invalid nonce: duplicate nonce {NOW}"
    assert spend(nonces, NOW - 1) is None
    assert spend(nonces, NOW - 1) == f"Invalid nonce: duplicate nonce {NOW - 1}"


def test_a_nonce_is_within_two_days_before_and_one_day_after() -> None:
    day = 86_400_000
    for inside in (NOW - 2 * day + 1, NOW + day - 1):
        assert Nonces().refusal(inside, NOW) is None
    low, high = NOW - 2 * day, NOW + day
    assert Nonces().refusal(low, NOW) == f"Invalid nonce: nonce too low {low} < {low}"
    assert Nonces().refusal(5, NOW) == f"Invalid nonce: nonce too low 5 < {low}"
    assert Nonces().refusal(high, NOW) == f"Invalid nonce: nonce too high {high} > {high}"


def test_the_hundred_highest_nonces_are_remembered_and_a_new_one_must_beat_the_lowest() -> None:
    nonces, order = Nonces(), list(range(NOW, NOW + 200, 2))
    random.Random(3).shuffle(order)
    assert [spend(nonces, nonce) for nonce in order] == [None] * 100
    assert spend(nonces, NOW - 1) == f"Invalid nonce: nonce too low {NOW - 1} < {NOW}"
    assert spend(nonces, NOW) == f"Invalid nonce: duplicate nonce {NOW}"
    assert spend(nonces, NOW + 1) is None  # between: it takes the place of the lowest
    assert spend(nonces, NOW) == f"Invalid nonce: nonce too low {NOW} < {NOW + 1}"
    assert spend(nonces, NOW + 1000) is None
    assert spend(nonces, NOW + 1) == f"Invalid nonce: nonce too low {NOW + 1} < {NOW + 2}"


def test_nonces_are_judged_as_by_a_plain_set_of_the_hundred_highest() -> None:
    rng, nonces, known = random.Random(4), Nonces(), set[int]()
    refused = 0
    for number in range(5_000):
        nonce = NOW + number // 10 + rng.randint(-60, 60)
        good = nonce not in known and (len(known) < 100 or nonce > min(known))
        assert (spend(nonces, nonce) is None) == good, number
        refused += not good
        if good:
            known = set(sorted(known | {nonce})[-100:])
    assert 500 < refused < 4_500
