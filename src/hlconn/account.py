"""What only the account's own key may sign: transfers, withdrawals, approvals.

An agent's key will not do: the venue would apply the action to the agent's own, empty account. Everything else (orders,
cancels, leverage ...) is `Signer.sign`. eth-account is imported at first use. Actions of a multi-sig user are left out.

Amounts are int, str, Decimal or float, as for orders; addresses "0x" and 40 hex digits, put into lower case. Every
function raises ConfigError or InvalidOrder for what the venue would not take, and for a signer with a vault.
Source: the venue's docs, Exchange endpoint; the types signed are those of the official SDK and of nktkas/hyperliquid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from ._core.action import wire
from ._core.sign import Signer, keccak256
from .config import Network
from .errors import ConfigError, InvalidOrder
from .types import Number

if TYPE_CHECKING:
    from eth_account.messages import SignableMessage

__all__ = [
    "SIGNED_TYPES",
    "UserSigned",
    "approve_agent",
    "approve_builder_fee",
    "c_deposit",
    "c_withdraw",
    "convert_to_multi_sig_user",
    "convert_to_normal_user",
    "link_staking_user",
    "send_asset",
    "send_to_evm_with_data",
    "sign_user",
    "spot_send",
    "staking_link_disable_trading_user",
    "token_delegate",
    "usd_class_transfer",
    "usd_send",
    "user_dex_abstraction",
    "user_portfolio_margin",
    "user_set_abstraction",
    "withdraw",
]

#: What is signed for each action: its EIP-712 type, whose fields are also those of the JSON, in this order.
SIGNED_TYPES = {
    "usdSend": "UsdSend(string hyperliquidChain,string destination,string amount,uint64 time)",
    "spotSend": "SpotSend(string hyperliquidChain,string destination,string token,string amount,uint64 time)",
    "sendAsset": (
        "SendAsset(string hyperliquidChain,string destination,string sourceDex,string destinationDex,string token,"
        "string amount,string fromSubAccount,uint64 nonce)"
    ),
    "withdraw3": "Withdraw(string hyperliquidChain,string destination,string amount,uint64 time)",
    "usdClassTransfer": "UsdClassTransfer(string hyperliquidChain,string amount,bool toPerp,uint64 nonce)",
    "approveAgent": "ApproveAgent(string hyperliquidChain,address agentAddress,string agentName,uint64 nonce)",
    "approveBuilderFee": "ApproveBuilderFee(string hyperliquidChain,string maxFeeRate,address builder,uint64 nonce)",
    "tokenDelegate": (
        "TokenDelegate(string hyperliquidChain,address validator,uint64 wei,bool isUndelegate,uint64 nonce)"
    ),
    "cDeposit": "CDeposit(string hyperliquidChain,uint64 wei,uint64 nonce)",
    "cWithdraw": "CWithdraw(string hyperliquidChain,uint64 wei,uint64 nonce)",
    "userDexAbstraction": "UserDexAbstraction(string hyperliquidChain,address user,bool enabled,uint64 nonce)",
    "userSetAbstraction": "UserSetAbstraction(string hyperliquidChain,address user,string abstraction,uint64 nonce)",
    "userPortfolioMargin": "UserPortfolioMargin(string hyperliquidChain,address user,bool enabled,uint64 nonce)",
    "convertToMultiSigUser": "ConvertToMultiSigUser(string hyperliquidChain,string signers,uint64 nonce)",
    "linkStakingUser": "LinkStakingUser(string hyperliquidChain,address user,bool isFinalize,uint64 nonce)",
    "stakingLinkDisableTradingUser": (
        "StakingLinkDisableTradingUser(string hyperliquidChain,address tradingUser,uint64 nonce)"
    ),
    "sendToEvmWithData": (
        "SendToEvmWithData(string hyperliquidChain,string token,string amount,string sourceDex,"
        "string destinationRecipient,string addressEncoding,uint32 destinationChainId,uint64 gasLimit,bytes data,"
        "uint64 nonce)"
    ),
}

#: The chain of the signing domain, whichever network it is for: the one of the official SDK. The venue takes any.
SIGNATURE_CHAIN_ID = 421614

_ZERO = "0x" + 40 * "0"
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")
_DOMAIN = [("name", "string"), ("version", "string"), ("chainId", "uint256"), ("verifyingContract", "address")]


@dataclass(frozen=True, slots=True)
class UserSigned:
    """A signed action of the account itself. Sending `payload` is all that is left to do.

    payload: the JSON body of POST /exchange. action: the venue's name of what it does. r, s: int; v: 27 or 28.
    """

    payload: bytes = field(repr=False)
    action: str
    nonce: int
    network: Network
    r: int = field(repr=False)
    s: int = field(repr=False)
    v: int = field(repr=False)

    def post(self, id: int) -> bytes:
        """The WebSocket message that sends it. id: unique among those in flight."""
        return b'{"method":"post","id":%d,"request":{"type":"action","payload":%b}}' % (id, self.payload)

    def signer_address(self) -> str:
        """The address that the venue will recover from `payload`, computed from those very bytes, lower case."""
        from eth_account import Account

        sent = orjson.loads(self.payload)
        signature = sent["signature"]
        vrs = signature["v"], int(signature["r"], 16), int(signature["s"], 16)
        recovered: str = Account.recover_message(_message(sent["action"]), vrs=vrs)
        return recovered.lower()


def sign_user(
    signer: Signer, type: str, fields: Mapping[str, Any], nonce: int, *, signature_chain_id: int = SIGNATURE_CHAIN_ID
) -> UserSigned:
    """Sign any action of `SIGNED_TYPES`; the functions below are easier to use right.

    fields: what stands between hyperliquidChain and the nonce, as the venue writes it: amounts as text. The signer's
    network decides hyperliquidChain: "local" signs as testnet does.
    """
    if type not in SIGNED_TYPES:
        raise ConfigError(f"{type!r} is no user-signed action: {', '.join(SIGNED_TYPES)}")
    if signer.vault is not None:
        raise ConfigError(f"{type} cannot be sent for a vault: sign it with a Signer that has none")
    *inner, last = _fields_of(type)[1:]
    if set(fields) != {name for name, _ in inner}:
        raise ConfigError(f"{type} takes {', '.join(name for name, _ in inner)}, not {', '.join(map(str, fields))}")
    action = {
        "type": type,
        "signatureChainId": f"{_checked(signature_chain_id, 'uint64', 'signature_chain_id'):#x}",
        "hyperliquidChain": "Mainnet" if signer.network is Network.MAINNET else "Testnet",
        **{name: _checked(fields[name], kind, name) for name, kind in inner},
        last[0]: _checked(nonce, last[1], "nonce"),
    }
    message = _message(action)
    r, s, v = signer._sign_digest(keccak256(b"\x19" + message.version + message.header + message.body))
    if type == "approveAgent" and not action["agentName"]:
        del action["agentName"]  # signed as "", but not sent: so does the official SDK
    signature = {"r": f"0x{r:064x}", "s": f"0x{s:064x}", "v": v}
    payload = orjson.dumps({"action": action, "nonce": nonce, "signature": signature})
    return UserSigned(payload, type, nonce, signer.network, r, s, v)


def usd_send(signer: Signer, destination: str, amount: Number, nonce: int) -> UserSigned:
    """Send USDC of the perp account to another account on the venue."""
    return sign_user(signer, "usdSend", {"destination": _address(destination), "amount": _amount(amount)}, nonce)


def spot_send(signer: Signer, destination: str, token: str, amount: Number, nonce: int) -> UserSigned:
    """Send a spot token to another account on the venue. token: "NAME:0x" and 32 hex digits."""
    fields = {"destination": _address(destination), "token": token, "amount": _amount(amount)}
    return sign_user(signer, "spotSend", fields, nonce)


def send_asset(
    signer: Signer,
    destination: str,
    token: str,
    amount: Number,
    nonce: int,
    *,
    source_dex: str,
    destination_dex: str,
    from_sub_account: str | None = None,
) -> UserSigned:
    """Send a token between dexs, accounts and sub-accounts. A dex: "" the first perp dex, "spot", or a builder's name.

    Only its collateral token can enter or leave a perp dex.
    """
    fields = {
        "destination": _address(destination),
        "sourceDex": source_dex,
        "destinationDex": destination_dex,
        "token": token,
        "amount": _amount(amount),
        "fromSubAccount": "" if from_sub_account is None else _address(from_sub_account),
    }
    return sign_user(signer, "sendAsset", fields, nonce)


def withdraw(signer: Signer, destination: str, amount: Number, nonce: int) -> UserSigned:
    """Withdraw USDC over the bridge to an address on Arbitrum (`withdraw3`). The venue keeps a fee."""
    return sign_user(signer, "withdraw3", {"destination": _address(destination), "amount": _amount(amount)}, nonce)


def usd_class_transfer(
    signer: Signer, amount: Number, to_perp: bool, nonce: int, *, sub_account: str | None = None
) -> UserSigned:
    """Move USDC between spot and perp, of the account or of one of its sub-accounts."""
    text = _amount(amount) + ("" if sub_account is None else f" subaccount:{_address(sub_account)}")
    return sign_user(signer, "usdClassTransfer", {"amount": text, "toPerp": to_perp}, nonce)


def approve_agent(
    signer: Signer, agent: str | None, nonce: int, *, name: str | None = None, valid_until_ms: int | None = None
) -> UserSigned:
    """Let another key trade for this account. A new agent of the same name, or a new unnamed one, replaces the old.

    valid_until_ms: when the venue forgets it, for a named one. agent None: remove the agent of that name.
    Never approve an address again that was an agent before: what it once signed could be replayed.
    """
    if not name and (agent is None or valid_until_ms is not None):
        raise ConfigError("only an agent with a name can be removed or given a time: say name=...")
    text = name or ""
    if valid_until_ms is not None:
        text += f" valid_until {_checked(valid_until_ms, 'uint64', 'valid_until_ms')}"
    fields = {"agentAddress": _ZERO if agent is None else _address(agent), "agentName": text}
    return sign_user(signer, "approveAgent", fields, nonce)


def approve_builder_fee(signer: Signer, builder: str, max_fee_rate: str, nonce: int) -> UserSigned:
    """Let a builder take up to this much of your orders. max_fee_rate: per cent, as text: "0.001%"."""
    if not isinstance(max_fee_rate, str) or not max_fee_rate.endswith("%"):
        raise ConfigError(f'max_fee_rate is a percentage like "0.001%", not {max_fee_rate!r}')
    fields = {"maxFeeRate": wire(max_fee_rate[:-1]) + "%", "builder": builder}
    return sign_user(signer, "approveBuilderFee", fields, nonce)


def token_delegate(signer: Signer, validator: str, wei: int, is_undelegate: bool, nonce: int) -> UserSigned:
    """Delegate staked HYPE to a validator, or take it back. wei: in 1e-8 HYPE."""
    fields = {"validator": validator, "wei": wei, "isUndelegate": is_undelegate}
    return sign_user(signer, "tokenDelegate", fields, nonce)


def c_deposit(signer: Signer, wei: int, nonce: int) -> UserSigned:
    """Move HYPE from spot to staking. wei: in 1e-8 HYPE."""
    return sign_user(signer, "cDeposit", {"wei": wei}, nonce)


def c_withdraw(signer: Signer, wei: int, nonce: int) -> UserSigned:
    """Move HYPE from staking to spot, through the venue's queue of days. wei: in 1e-8 HYPE."""
    return sign_user(signer, "cWithdraw", {"wei": wei}, nonce)


def user_dex_abstraction(signer: Signer, user: str, enabled: bool, nonce: int) -> UserSigned:
    """Deprecated by the venue: see `user_set_abstraction`. user: the account or one of its sub-accounts."""
    return sign_user(signer, "userDexAbstraction", {"user": user, "enabled": enabled}, nonce)


def user_set_abstraction(signer: Signer, user: str, abstraction: str, nonce: int) -> UserSigned:
    """How balances are shared: "disabled", "unifiedAccount" or "portfolioMargin"."""
    if abstraction not in ("disabled", "unifiedAccount", "portfolioMargin"):
        raise ConfigError(f"abstraction is disabled, unifiedAccount or portfolioMargin, not {abstraction!r}")
    return sign_user(signer, "userSetAbstraction", {"user": user, "abstraction": abstraction}, nonce)


def user_portfolio_margin(signer: Signer, user: str, enabled: bool, nonce: int) -> UserSigned:
    """Switch portfolio margin on or off."""
    return sign_user(signer, "userPortfolioMargin", {"user": user, "enabled": enabled}, nonce)


def convert_to_multi_sig_user(
    signer: Signer, authorized_users: Sequence[str], threshold: int, nonce: int
) -> UserSigned:
    """From now on `threshold` of these must sign for the account, which this library cannot do."""
    users = sorted(map(_address, authorized_users))
    if not 1 <= _checked(threshold, "uint64", "threshold") <= len(users):
        raise ConfigError(f"threshold must be from 1 to {len(users)}, the number of users, not {threshold}")
    signers = json.dumps({"authorizedUsers": users, "threshold": threshold})
    return sign_user(signer, "convertToMultiSigUser", {"signers": signers}, nonce)


def convert_to_normal_user(signer: Signer, nonce: int) -> UserSigned:
    """The way back from `convert_to_multi_sig_user`."""
    return sign_user(signer, "convertToMultiSigUser", {"signers": "null"}, nonce)


def link_staking_user(signer: Signer, user: str, is_finalize: bool, nonce: int) -> UserSigned:
    """Link a staking account to a trading account, for its fees; the other side finalizes."""
    return sign_user(signer, "linkStakingUser", {"user": user, "isFinalize": is_finalize}, nonce)


def staking_link_disable_trading_user(signer: Signer, trading_user: str, nonce: int) -> UserSigned:
    """End the link of a trading account to this staking account."""
    return sign_user(signer, "stakingLinkDisableTradingUser", {"tradingUser": trading_user}, nonce)


def send_to_evm_with_data(
    signer: Signer,
    token: str,
    amount: Number,
    nonce: int,
    *,
    source_dex: str,
    destination_recipient: str,
    destination_chain_id: int,
    gas_limit: int,
    data: bytes = b"",
    address_encoding: str = "hex",
) -> UserSigned:
    """Send a token to a contract of another chain, with a call. address_encoding: "hex" or "base58"."""
    if address_encoding not in ("hex", "base58"):
        raise ConfigError(f"address_encoding is hex or base58, not {address_encoding!r}")
    fields = {
        "token": token,
        "amount": _amount(amount),
        "sourceDex": source_dex,
        "destinationRecipient": destination_recipient,
        "addressEncoding": address_encoding,
        "destinationChainId": destination_chain_id,
        "gasLimit": gas_limit,
        "data": f"0x{data.hex()}",
    }
    return sign_user(signer, "sendToEvmWithData", fields, nonce)


def _fields_of(type: str) -> list[tuple[str, str]]:
    """(name, EIP-712 kind) of each field that is signed."""
    inside = SIGNED_TYPES[type].partition("(")[2].rstrip(")")
    return [(name, kind) for kind, name in (each.split() for each in inside.split(","))]


def _message(action: Mapping[str, Any]) -> SignableMessage:
    from eth_account.messages import encode_typed_data

    def types(fields: list[tuple[str, str]]) -> list[dict[str, str]]:
        return [{"name": name, "type": kind} for name, kind in fields]

    fields = _fields_of(action["type"])
    values = {"agentName": "", **action}
    primary = f"HyperliquidTransaction:{SIGNED_TYPES[action['type']].partition('(')[0]}"
    return encode_typed_data(
        full_message={
            "domain": {
                "name": "HyperliquidSignTransaction",
                "version": "1",
                "chainId": int(action["signatureChainId"], 16),
                "verifyingContract": _ZERO,
            },
            "types": {primary: types(fields), "EIP712Domain": types(_DOMAIN)},
            "primaryType": primary,
            "message": {
                name: bytes.fromhex(values[name][2:]) if kind == "bytes" else values[name] for name, kind in fields
            },
        }
    )


def _checked(value: Any, kind: str, name: str) -> Any:
    """`value`, as fits for an EIP-712 kind; addresses in lower case, also those that are signed as strings."""
    if kind.startswith("uint"):
        bits = int(kind[4:])
        if type(value) is not int or not 0 <= value < 1 << bits:
            raise ConfigError(f"{name} must be an int from 0 to 2^{bits} - 1")
        return value
    if kind == "bool":
        if type(value) is not bool:
            raise ConfigError(f"{name} must be a bool, not {value!r}")
        return value
    if kind == "address":
        return _address(value, name)
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a str, not {value!r}")
    if kind == "bytes" and not re.fullmatch(r"0x(?:[0-9a-fA-F]{2})*", value):
        raise ConfigError(f"{name} must be 0x and hex digits, two a byte, not {value!r}")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigError(f"{name} is no Unicode text: it has a lone surrogate")
    return value.lower() if _ADDRESS.fullmatch(value) else value


def _address(value: Any, name: str = "address") -> str:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise ConfigError(f"{name} must be 0x and 40 hex digits, not {value!r}")
    return value.lower()


def _amount(value: Number) -> str:
    text = wire(value)
    if text == "0":
        raise InvalidOrder("amount must be above zero")
    return text
