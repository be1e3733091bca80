"""Ours and the official SDK sign the same bytes: committed vectors always, random actions where the SDK is at hand.

`make clients` puts it into build/sdk; HLCONN_SDK_PYTHON names another interpreter. HLCONN_REQUIRE_SDK=ON: its
absence is a failure.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from make_vectors import VECTORS, VENV, Oracle, python_of, random_float, slippage_case
from sdk_cases import COINS, Case, random_case

from hlconn import Side, Signed, Signer, account, action
from hlconn._core.sign import hash_of
from hlconn.account import UserSigned
from hlconn.errors import HlconnError
from hlconn.instruments import Instrument, MarketKind
from hlconn.types import Builder, Cloid, Grouping, Order, Priority, Tif, Tpsl, Trigger

KNOWN = json.loads(VECTORS.read_text())
INSTRUMENTS = {
    coin: Instrument(coin, asset, MarketKind(kind), decimals) for coin, (asset, decimals, kind) in COINS.items()
}
PYTHON = Path(os.environ.get("HLCONN_SDK_PYTHON") or python_of(VENV))
NUMBERS: dict[str, Any] = {"float": float, "str": repr, "Decimal": lambda value: Decimal(repr(value))}
CASES = 2500


def our_order(raw: Case) -> Order:
    number, trigger = NUMBERS[raw["form"]], raw["trigger"]
    return Order(
        raw["coin"],
        Side.BUY if raw["is_buy"] else Side.SELL,
        number(raw["px"]),
        number(raw["sz"]),
        Tif(raw["tif"] or "Gtc"),
        trigger and Trigger(number(trigger["px"]), Tpsl(trigger["tpsl"]), trigger["is_market"]),
        raw["reduce_only"],
        raw["cloid"] and Cloid(raw["cloid"]),
    )


def oid_of(raw: int | str) -> int | Cloid:
    return Cloid(raw) if isinstance(raw, str) else raw


def our_action(case: Case) -> action.Action:
    op = case["op"]
    if op == "order":
        grouping, builder = case["grouping"], case["builder"]
        return action.order(
            [our_order(raw) for raw in case["orders"]],
            INSTRUMENTS,
            grouping=Priority(grouping["p"]) if isinstance(grouping, dict) else Grouping(grouping),
            builder=builder and Builder(builder["b"], builder["f"]),
        )
    if op == "cancel":
        return action.cancel([(coin, oid) for coin, oid in case["cancels"]], INSTRUMENTS, fast=case["fast"])
    if op == "cancelByCloid":
        pairs = [(coin, Cloid(cloid)) for coin, cloid in case["cancels"]]
        return action.cancel_by_cloid(pairs, INSTRUMENTS, fast=case["fast"])
    if op == "modify":
        [[oid, raw]] = case["modifies"]
        return action.modify(oid_of(oid), our_order(raw), INSTRUMENTS, always_place=case["always_place"])
    if op == "batchModify":
        modifies = [(oid_of(oid), our_order(raw)) for oid, raw in case["modifies"]]
        return action.batch_modify(modifies, INSTRUMENTS, always_place=case["always_place"])
    name, *args = case["call"]
    if name == "update_leverage":
        return action.update_leverage(args[1], args[0], INSTRUMENTS, is_cross=args[2])
    if name == "update_isolated_margin":
        return action.update_isolated_margin(args[1], round(args[0] * 1e6), INSTRUMENTS)
    made: action.Action = getattr(action, name)(*args)
    return made


def our_user_signed(case: Case) -> UserSigned:
    signer, nonce, sub = Signer(case["key"], case["network"]), case["nonce"], case["vault"]
    name, *args = case["call"]
    if name == "usd_transfer":
        return account.usd_send(signer, args[1], args[0], nonce)
    if name == "spot_transfer":
        return account.spot_send(signer, args[1], args[2], args[0], nonce)
    if name == "withdraw_from_bridge":
        return account.withdraw(signer, args[1], args[0], nonce)
    if name == "usd_class_transfer":
        return account.usd_class_transfer(signer, args[0], args[1], nonce, sub_account=sub)
    if name == "send_asset":
        to, source, destination, token, amount = args
        return account.send_asset(
            signer, to, token, amount, nonce, source_dex=source, destination_dex=destination, from_sub_account=sub
        )
    if name == "approve_agent":
        agent_name, _, until = (args[0] or "").partition(" valid_until ")
        agent = Account.from_key(case["agent_key"]).address
        return account.approve_agent(
            signer, agent, nonce, name=agent_name or None, valid_until_ms=int(until) if until else None
        )
    made: UserSigned = getattr(account, name)(signer, *args, nonce)
    return made


def lower(value: Any) -> Any:
    """The SDK sends an agent's address with capitals; what is hashed of an address has none."""
    return json.loads(json.dumps(value).lower())


def check(case: Case, expected: Case) -> None:
    rsv = int(expected["r"], 16), int(expected["s"], 16), expected["v"]
    signer = Signer(case["key"], case["network"], None if case["op"] == "user" else case["vault"])
    signed: Signed | UserSigned
    if case["op"] == "user":
        signed = our_user_signed(case)
        sent = json.loads(signed.payload)
        assert lower(sent["action"]) == lower(expected["action"])
        assert set(sent) == {"action", "nonce", "signature"}
    else:
        ours = our_action(case)
        assert ours.msgpack.hex() == expected["msgpack"]
        if "action" in expected:
            assert json.dumps(json.loads(ours.json)) == json.dumps(expected["action"])
        connection_id, digest = hash_of(ours, case["nonce"], case["vault"], case["expires_after"], case["network"])
        assert connection_id.hex() == expected["connection_id"]
        vault = {} if case["op"] != "other" else {"vault": case["vault"]}  # the SDK signs noop with its vault
        signed = signer.sign(ours, case["nonce"], case["expires_after"], **vault)
        sent = json.loads(signed.payload)
        assert (sent.get("vaultAddress"), sent.get("expiresAfter")) == (case["vault"], case["expires_after"])
        assert Account._recover_hash(digest, vrs=rsv[2:] + rsv[:2]).lower() == signer.address
    assert (signed.r, signed.s, signed.v) == rsv
    assert signed.signer_address() == signer.address
    assert sent["nonce"] == signed.nonce == case["nonce"]
    wire = sent["signature"]
    assert (int(wire["r"], 16), int(wire["s"], 16), wire["v"]) == rsv


def check_float(value: float, expected: str | None) -> None:
    """Where the SDK renders, so do we, and the same. Noise it measures absolutely, we in parts of the value."""
    if expected is None or abs(value - float(expected)) > 0.9e-12 * value:
        return
    if value * 1e8 < 2**51:  # beyond, 8 decimals are finer than a double: the SDK writes digits that nobody gave it
        assert action.wire(value) == expected


def check_slippage(case: Case, expected: Case) -> None:
    """The SDK's price of a market order: on our grid, and the same text."""
    assert action.wire(expected["px"]) == expected["wire"]
    assert INSTRUMENTS[case["coin"]].check_px(expected["px"]) == expected["wire"]


@pytest.mark.parametrize("op", sorted({case["op"] for case in KNOWN["signed"]}))
def test_committed_vectors_reproduce(op: str) -> None:
    cases = [case for case in KNOWN["signed"] if case["op"] == op]
    assert len(cases) >= 10
    for case in cases:
        check(case, case["expected"])


def test_committed_numbers_reproduce() -> None:
    for case in KNOWN["float_to_wire"]:
        check_float(case["value"], case["expected"]["wire"])
    for case in KNOWN["slippage"]:
        check_slippage(case, case["expected"])


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    if not PYTHON.exists():
        assert os.environ.get("HLCONN_REQUIRE_SDK") != "ON", f"{PYTHON} is missing: say make clients"
        pytest.skip("the official SDK is not installed: make clients")
    oracle = Oracle(PYTHON)
    yield oracle
    oracle.close()


@pytest.mark.parametrize("part", range(5))
def test_random_actions_are_signed_as_the_sdk_signs_them(oracle: Oracle, part: int) -> None:
    """A new seed each time: the failing case is in the message."""
    rng = random.SystemRandom()
    for _ in range(CASES // 5):
        case = random_case(rng)
        try:
            check(case, oracle(case))
        except (AssertionError, HlconnError) as exc:
            raise AssertionError(f"{exc}\n{json.dumps(case)}") from exc


def test_random_numbers_are_written_as_the_sdk_writes_them(oracle: Oracle) -> None:
    rng = random.SystemRandom()
    for _ in range(300):
        value = random_float(rng)
        check_float(value, oracle({"op": "float_to_wire", "value": value})["wire"])
        case = slippage_case(rng)
        check_slippage(case, oracle(case))
