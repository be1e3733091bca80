"""User-signed actions: against the shared vectors, eth-account, and a table of all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hlconn import Signer, account
from hlconn._core.sign import keccak256
from hlconn.account import SIGNED_TYPES, UserSigned
from hlconn.errors import Closed, ConfigError, HlconnError, InvalidOrder

SHARED = Path(__file__).resolve().parents[2] / "shared" / "protocol" / "vectors"
KEY = "0123456789" * 6 + "0123"
SIGNER = Signer(KEY, "mainnet")
TO = "0x" + "aB" * 20
LOW = TO.lower()
TOKEN = "PURR:0x" + "cd" * 16
NONCE = 1_700_000_000_000

#: Every function, what it is given, and the fields that it sends besides the common ones.
CALLS: list[tuple[Callable[..., UserSigned], tuple[Any, ...], dict[str, Any], str, dict[str, Any]]] = [
    (account.usd_send, (TO, 1.50), {}, "usdSend", {"destination": LOW, "amount": "1.5"}),
    (account.spot_send, (TO, TOKEN, 2), {}, "spotSend", {"destination": LOW, "token": TOKEN, "amount": "2"}),
    (
        account.send_asset,
        (TO, TOKEN, "3.0"),
        {"source_dex": "", "destination_dex": "spot", "from_sub_account": TO},
        "sendAsset",
        {
            "destination": LOW,
            "sourceDex": "",
            "destinationDex": "spot",
            "token": TOKEN,
            "amount": "3",
            "fromSubAccount": LOW,
        },
    ),
    (account.withdraw, (TO, Decimal("4.00")), {}, "withdraw3", {"destination": LOW, "amount": "4"}),
    (account.usd_class_transfer, (5, True), {}, "usdClassTransfer", {"amount": "5", "toPerp": True}),
    (
        account.usd_class_transfer,
        (5, False),
        {"sub_account": TO},
        "usdClassTransfer",
        {"amount": f"5 subaccount:{LOW}", "toPerp": False},
    ),
    (account.approve_agent, (TO,), {}, "approveAgent", {"agentAddress": LOW}),
    (
        account.approve_agent,
        (TO,),
        {"name": "bot", "valid_until_ms": 1_800_000_000_000},
        "approveAgent",
        {"agentAddress": LOW, "agentName": "bot valid_until 1800000000000"},
    ),
    (
        account.approve_agent,
        (None,),
        {"name": "bot"},
        "approveAgent",
        {"agentAddress": "0x" + "0" * 40, "agentName": "bot"},
    ),
    (
        account.approve_builder_fee,
        (TO, "0.0010%"),
        {},
        "approveBuilderFee",
        {"maxFeeRate": "0.001%", "builder": LOW},
    ),
    (
        account.token_delegate,
        (TO, 10**8, False),
        {},
        "tokenDelegate",
        {"validator": LOW, "wei": 10**8, "isUndelegate": False},
    ),
    (account.c_deposit, (10**8,), {}, "cDeposit", {"wei": 10**8}),
    (account.c_withdraw, (10**8,), {}, "cWithdraw", {"wei": 10**8}),
    (account.user_dex_abstraction, (TO, True), {}, "userDexAbstraction", {"user": LOW, "enabled": True}),
    (
        account.user_set_abstraction,
        (TO, "unifiedAccount"),
        {},
        "userSetAbstraction",
        {"user": LOW, "abstraction": "unifiedAccount"},
    ),
    (account.user_portfolio_margin, (TO, False), {}, "userPortfolioMargin", {"user": LOW, "enabled": False}),
    (
        account.convert_to_multi_sig_user,
        ([TO, "0x" + "01" * 20], 2),
        {},
        "convertToMultiSigUser",
        {"signers": json.dumps({"authorizedUsers": ["0x" + "01" * 20, LOW], "threshold": 2})},
    ),
    (account.convert_to_normal_user, (), {}, "convertToMultiSigUser", {"signers": "null"}),
    (account.link_staking_user, (TO, True), {}, "linkStakingUser", {"user": LOW, "isFinalize": True}),
    (
        account.staking_link_disable_trading_user,
        (TO,),
        {},
        "stakingLinkDisableTradingUser",
        {"tradingUser": LOW},
    ),
    (
        account.send_to_evm_with_data,
        (TOKEN, 6),
        {"source_dex": "spot", "destination_recipient": TO, "destination_chain_id": 42161, "gas_limit": 200_000}
        | {"data": b"\x01\xff"},
        "sendToEvmWithData",
        {
            "token": TOKEN,
            "amount": "6",
            "sourceDex": "spot",
            "destinationRecipient": LOW,
            "addressEncoding": "hex",
            "destinationChainId": 42161,
            "gasLimit": 200_000,
            "data": "0x01ff",
        },
    ),
]


@pytest.mark.parametrize(("call", "args", "options", "kind", "fields"), CALLS)
@pytest.mark.parametrize("network", ["mainnet", "testnet", "local"])
def test_every_action_is_sent_as_documented_and_recovers(
    call: Callable[..., UserSigned],
    args: tuple[Any, ...],
    options: dict[str, Any],
    kind: str,
    fields: dict[str, Any],
    network: str,
) -> None:
    signer = Signer(KEY, network)
    signed = call(signer, *args, NONCE, **options)
    sent = json.loads(signed.payload)
    time = "time" if "uint64 time" in SIGNED_TYPES[kind] else "nonce"
    chain = "Mainnet" if network == "mainnet" else "Testnet"
    common = {"type": kind, "signatureChainId": "0x66eee", "hyperliquidChain": chain}
    assert list(sent["action"].items()) == list({**common, **fields, time: NONCE}.items())
    assert list(sent) == ["action", "nonce", "signature"]
    assert sent["nonce"] == signed.nonce == NONCE
    assert sent["signature"] == {"r": f"0x{signed.r:064x}", "s": f"0x{signed.s:064x}", "v": signed.v}
    assert signed.signer_address() == signer.address
    assert (signed.action, signed.network) == (kind, signer.network)
    message = json.loads(signed.post(7))
    assert message == {"method": "post", "id": 7, "request": {"type": "action", "payload": sent}}


def test_the_table_of_calls_is_of_all_types() -> None:
    assert {kind for _, _, _, kind, _ in CALLS} == set(SIGNED_TYPES)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared vectors are not beside this repository")
def test_the_shared_vectors_reproduce() -> None:
    known = [case for case in json.loads((SHARED / "signing.json").read_text()) if case["kind"] == "user_signed"]
    assert len(known) == 19
    common = ("type", "signatureChainId", "hyperliquidChain", "time", "nonce")
    for case in known:
        sent = case["action"]
        fields = {name: value for name, value in sent.items() if name not in common}
        signer = Signer(case["private_key"], "mainnet" if case["is_mainnet"] else "testnet")
        chain = int(sent["signatureChainId"], 16)
        signed = account.sign_user(signer, sent["type"], fields, case["nonce"], signature_chain_id=chain)
        assert (signed.r, signed.s, signed.v) == (int(case["r"], 16), int(case["s"], 16), case["v"]), case["name"]
        assert signed.signer_address() == case["signer"]
        assert json.loads(signed.payload)["action"] == {k: v for k, v in sent.items() if (k, v) != ("agentName", "")}
        type_string = f"HyperliquidTransaction:{SIGNED_TYPES[sent['type']]}"
        assert type_string == case["type_string"]
        assert f"0x{keccak256(type_string.encode()).hex()}" == case["type_hash"]


@pytest.mark.parametrize(
    ("kind", "type_hash"),
    [
        ("userPortfolioMargin", "67779fba34bb69aa1aff60baeceeccd844bb178ec9820e07cc536511f780442c"),
        ("linkStakingUser", "27165ee398ec554a44513917647b374592878a87c4c3c1e43735771d9cf5a5e7"),
        ("stakingLinkDisableTradingUser", "3359b50c2f203724fb8800102cbd374c01dfe5070f2ca246903773513579d05c"),
        ("sendToEvmWithData", "6a99d9af92175da1a2f1ca873b7a35db83d042f3b093578b7b0a2a99c07ba86f"),
    ],
)
def test_types_without_a_vector_have_the_published_hash(kind: str, type_hash: str) -> None:
    assert keccak256(f"HyperliquidTransaction:{SIGNED_TYPES[kind]}".encode()).hex() == type_hash


def test_a_signer_with_a_vault_signs_nothing_of_the_account() -> None:
    with pytest.raises(ConfigError, match="usdSend cannot be sent for a vault"):
        account.usd_send(Signer(KEY, "mainnet", LOW), TO, 1, NONCE)


def test_a_closed_signer_signs_nothing() -> None:
    signer = Signer(KEY, "mainnet")
    signer.close()
    with pytest.raises(Closed):
        account.usd_send(signer, TO, 1, NONCE)


BAD: list[Callable[[], object]] = [
    lambda: account.usd_send(SIGNER, TO[:-1], 1, NONCE),
    lambda: account.usd_send(SIGNER, None, 1, NONCE),  # type: ignore[arg-type]
    lambda: account.usd_send(SIGNER, TO, 1, -1),
    lambda: account.usd_send(SIGNER, TO, 1, 1 << 64),
    lambda: account.usd_send(SIGNER, TO, 1, 1.0),  # type: ignore[arg-type]
    lambda: account.usd_send(SIGNER, TO, 1, True),
    lambda: account.spot_send(SIGNER, TO, 5, 1, NONCE),  # type: ignore[arg-type]
    lambda: account.spot_send(SIGNER, TO, "\ud800", 1, NONCE),
    lambda: account.usd_class_transfer(SIGNER, 1, 1, NONCE),  # type: ignore[arg-type]
    lambda: account.usd_class_transfer(SIGNER, 1, True, NONCE, sub_account="x"),
    lambda: account.approve_agent(SIGNER, None, NONCE),
    lambda: account.approve_agent(SIGNER, TO, NONCE, valid_until_ms=5),
    lambda: account.approve_agent(SIGNER, TO, NONCE, name="x", valid_until_ms=-5),
    lambda: account.approve_builder_fee(SIGNER, TO, "0.001", NONCE),
    lambda: account.approve_builder_fee(SIGNER, TO, 5, NONCE),  # type: ignore[arg-type]
    lambda: account.token_delegate(SIGNER, TO, -1, True, NONCE),
    lambda: account.c_deposit(SIGNER, 10**5000, NONCE),
    lambda: account.user_set_abstraction(SIGNER, TO, "u", NONCE),
    lambda: account.convert_to_multi_sig_user(SIGNER, [TO], 2, NONCE),
    lambda: account.convert_to_multi_sig_user(SIGNER, [], 0, NONCE),
    lambda: account.sign_user(SIGNER, "order", {}, NONCE),
    lambda: account.sign_user(SIGNER, "usdSend", {"destination": TO}, NONCE),
    lambda: account.sign_user(SIGNER, "usdSend", {"destination": TO, "amount": "1", "more": 1}, NONCE),
    lambda: account.sign_user(SIGNER, "cDeposit", {"wei": 1}, NONCE, signature_chain_id=-1),
    lambda: account.send_to_evm_with_data(
        SIGNER, TOKEN, 1, NONCE, source_dex="", destination_recipient=TO, destination_chain_id=1 << 32, gas_limit=1
    ),
]


@pytest.mark.parametrize("call", BAD, ids=range(len(BAD)))
def test_what_the_venue_would_not_take_is_a_config_error(call: Callable[[], object]) -> None:
    with pytest.raises(ConfigError) as raised:
        call()
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("amount", [0, -1, "0.000", "1e-9", "x", float("nan"), None, True])
def test_an_amount_is_a_number_above_zero(amount: Any) -> None:
    for call in (account.usd_send, account.withdraw):
        with pytest.raises(InvalidOrder):
            call(SIGNER, TO, amount, NONCE)


@given(
    st.text(st.characters(exclude_categories=[]), max_size=20),
    st.one_of(st.text(max_size=5), st.none(), st.integers()),
    st.integers(-1, 1 << 65),
)
def test_any_text_is_signed_as_it_is_sent_or_refused(text: str, dex: Any, nonce: int) -> None:
    try:
        signed = account.send_asset(SIGNER, TO, text, 1, nonce, source_dex=dex, destination_dex=text)
    except HlconnError:
        return
    assert signed.signer_address() == SIGNER.address
    assert json.loads(signed.payload)["action"]["token"] == text
