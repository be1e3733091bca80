"""Actions and their answers: how the venue rebuilds an action before it hashes it, with every key in its place.

A client may send keys in any order and with more besides; what counts for the signature is this form.
Source: exchange docs, "Exchange endpoint"; the order of keys is the official SDK's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .signing import USER_SIGNED

__all__ = ["TAKES_VAULT", "Malformed", "Refused", "canonical", "ok", "read_envelope"]

JsonObject = dict[str, Any]
Reader = Callable[[Any], Any]

_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_CLOID = re.compile(r"0x[0-9a-fA-F]{32}", re.ASCII)
_U64 = 1 << 64


class Malformed(ValueError):
    """A request that does not parse into the shape of its type."""


class Refused(Exception):
    """The whole action is refused, with these words at the top level of the answer."""


def ok(data: object = None, kind: str = "default") -> JsonObject:
    """The answer to an action that was carried out, or judged item by item."""
    response: JsonObject = {"type": kind} if data is None else {"type": kind, "data": data}
    return {"status": "ok", "response": response}


def _uint(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _U64:
        raise Malformed("expected an unsigned integer")
    return value


def _int(value: Any) -> int:
    if type(value) is not int or not -_U64 < value < _U64:
        raise Malformed("expected an integer")
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise Malformed("expected a boolean")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > 1024:
        raise Malformed("expected a string")
    return value


def _decimal(value: Any) -> str:
    if type(value) is not str or not _DECIMAL.fullmatch(value):
        raise Malformed("expected a decimal in a string")
    whole, _, fraction = value.partition(".")
    digits = whole.lstrip("0") if whole[0] != "-" else "-" + whole[1:].lstrip("0")
    fraction = fraction.rstrip("0")
    if digits in ("", "-"):
        digits += "0"
    return f"{digits}.{fraction}" if fraction else "0" if digits == "-0" else digits


def _address(value: Any) -> str:
    if type(value) is not str or not _ADDRESS.fullmatch(value):
        raise Malformed("expected an address")
    return value.lower()


def _cloid(value: Any) -> str:
    if type(value) is not str or not _CLOID.fullmatch(value):
        raise Malformed("expected a cloid")
    return value.lower()


def _oid(value: Any) -> int | str:
    return _cloid(value) if type(value) is str else _uint(value)


def _true(value: Any) -> bool:
    if value is not True:
        raise Malformed("expected true or nothing")
    return True


def _one_of(*words: str) -> Reader:
    def read(value: Any) -> str:
        if type(value) is not str or value not in words:
            raise Malformed(f"expected one of {words}")
        return value

    return read


def _list(item: Reader) -> Reader:
    def read(value: Any) -> list[Any]:
        if type(value) is not list:
            raise Malformed("expected a list")
        return [item(each) for each in value]

    return read


def _struct(**fields: Reader) -> Reader:
    """An object with these keys in this order; a key ending in an underscore may be missing or null."""
    wanted = [(key.rstrip("_"), key.endswith("_"), reader) for key, reader in fields.items()]

    def read(value: Any) -> JsonObject:
        if type(value) is not dict:
            raise Malformed("expected an object")
        made = {}
        for key, optional, reader in wanted:
            item = value.get(key)
            if item is not None:
                made[key] = reader(item)
            elif not optional:
                raise Malformed(f"missing field `{key}`")
        return made

    return read


_limit = _struct(tif=_one_of("Gtc", "Ioc", "Alo", "FrontendMarket"))
_trigger = _struct(isMarket=_bool, triggerPx=_decimal, tpsl=_one_of("tp", "sl"))


def _kind(value: Any) -> JsonObject:
    if type(value) is dict and "limit" in value:
        return {"limit": _limit(value["limit"])}
    if type(value) is dict and "trigger" in value:
        return {"trigger": _trigger(value["trigger"])}
    raise Malformed("expected limit or trigger")


def _grouping(value: Any) -> str | JsonObject:
    if type(value) is dict:
        return {"p": _uint(value.get("p"))}
    word: str = _one_of("na", "normalTpsl", "positionTpsl")(value)
    return word


_order = _struct(a=_uint, b=_bool, p=_decimal, s=_decimal, r=_bool, t=_kind, c_=_cloid)

_ACTIONS: dict[str, Reader] = {
    "order": _struct(
        type=_text, orders=_list(_order), grouping=_grouping, builder_=_struct(b=_address, f=_uint)
    ),
    "cancel": _struct(type=_text, cancels=_list(_struct(a=_uint, o=_uint)), f_=_true),
    "cancelByCloid": _struct(type=_text, cancels=_list(_struct(asset=_uint, cloid=_cloid)), f_=_true),
    "modify": _struct(type=_text, oid=_oid, order=_order, a_=_true),
    "batchModify": _struct(type=_text, modifies=_list(_struct(oid=_oid, order=_order)), a_=_true),
    "scheduleCancel": _struct(type=_text, time_=_uint),
    "noop": _struct(type=_text),
    "updateLeverage": _struct(type=_text, asset=_uint, isCross=_bool, leverage=_uint),
    "updateIsolatedMargin": _struct(type=_text, asset=_uint, isBuy=_bool, ntli=_int),
    "reserveRequestWeight": _struct(type=_text, weight=_uint, destination_=_address),
    "setReferrer": _struct(type=_text, code=_text),
    "setDisplayName": _struct(type=_text, displayName=_text),
    "claimRewards": _struct(type=_text),
    "createSubAccount": _struct(type=_text, name=_text),
    "subAccountTransfer": _struct(type=_text, subAccountUser=_address, isDeposit=_bool, usd=_uint),
    "createVault": _struct(type=_text, name=_text, description=_text, initialUsd=_uint, nonce=_uint),
    "vaultTransfer": _struct(type=_text, vaultAddress=_address, isDeposit=_bool, usd=_uint),
    "agentEnableDexAbstraction": _struct(type=_text),
    "agentSetAbstraction": _struct(type=_text, abstraction=_one_of("i", "u", "p")),
    # User-signed: their text is signed as it was sent, so it is checked but not rebuilt.
    "usdSend": _struct(destination=_address, amount=_decimal, time=_uint),
    "spotSend": _struct(destination=_address, token=_text, amount=_decimal, time=_uint),
    "withdraw3": _struct(destination=_address, amount=_decimal, time=_uint),
    "usdClassTransfer": _struct(amount=_text, toPerp=_bool, nonce=_uint),
    "sendAsset": _struct(
        destination=_address, sourceDex=_text, destinationDex=_text, token=_text, amount=_decimal,
        fromSubAccount=_text, nonce=_uint,
    ),
    "approveAgent": _struct(agentAddress=_address, agentName_=_text, nonce=_uint),
    "approveBuilderFee": _struct(maxFeeRate=_text, builder=_address, nonce=_uint),
    "userDexAbstraction": _struct(user=_address, enabled=_bool, nonce=_uint),
    "userSetAbstraction": _struct(
        user=_address, abstraction=_one_of("disabled", "unifiedAccount", "portfolioMargin"), nonce=_uint
    ),
}  # fmt: skip


#: What may be done for a vault or a sub-account. Source: exchange docs; of the last three, the official SDK.
TAKES_VAULT = frozenset(
    {
        "order",
        "cancel",
        "cancelByCloid",
        "modify",
        "batchModify",
        "scheduleCancel",
        "updateLeverage",
        "updateIsolatedMargin",
        "noop",
        "agentEnableDexAbstraction",
        "agentSetAbstraction",
    }
)


def canonical(action: object) -> JsonObject:
    """The action as it is hashed. Raises Malformed for a type this venue does not know, and for a wrong shape."""
    kind = action.get("type") if isinstance(action, dict) else None
    reader = _ACTIONS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise Malformed("unknown variant")
    if kind in USER_SIGNED:
        assert isinstance(action, dict)
        reader(action)
        _text(action.get("signatureChainId"))
        _one_of("Mainnet", "Testnet")(action.get("hyperliquidChain"))
        return dict(action)
    made: JsonObject = reader(action)
    return made


def read_envelope(payload: object) -> tuple[JsonObject, int, object, str | None, int | None]:
    """(action, nonce, signature, vaultAddress, expiresAfter) of a request body. Raises Malformed.

    User-signed actions do not sign the last two, so for them they are nothing, whatever was sent.
    """
    if type(payload) is not dict:
        raise Malformed("expected an object")
    vault, expires_after, signature = (payload.get(key) for key in ("vaultAddress", "expiresAfter", "signature"))
    if not isinstance(vault, str | None):
        raise Malformed("expected an address")
    if type(signature) is not dict or {"r", "s", "v"} - signature.keys():
        raise Malformed("expected a signature")
    action = canonical(payload.get("action"))
    if action["type"] in USER_SIGNED:
        return action, _uint(payload.get("nonce")), signature, None, None
    return (
        action,
        _uint(payload.get("nonce")),
        signature,
        # ccxt writes it without 0x.
        None if vault is None else _address(vault if vault[:2] == "0x" else f"0x{vault}"),
        None if expires_after is None else _uint(expires_after),
    )
