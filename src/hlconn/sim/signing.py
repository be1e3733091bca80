"""Who signed this? Hashes of actions, recovered signers, and the nonces they have used.

Written from the protocol's documentation with a msgpack library, a library keccak and libsecp256k1's recovery, and
sharing nothing with the code that it is used to judge.
"""

from __future__ import annotations

from bisect import insort
from functools import lru_cache
from typing import Any

import msgpack  # type: ignore[import-untyped]
from coincurve import PublicKey
from Crypto.Hash import keccak as _keccak

__all__ = ["USER_SIGNED", "BadSignature", "Nonces", "address_of", "keccak", "l1_signer", "user_signer"]

JsonObject = dict[str, Any]


def keccak(data: bytes) -> bytes:
    return _keccak.new(digest_bits=256, data=data).digest()


@lru_cache(maxsize=4096)
def address_of(public_key: bytes) -> str:
    """The address of an uncompressed public key, in lower case."""
    return "0x" + keccak(public_key[1:])[12:].hex()


def _typed(*parts: bytes) -> bytes:
    return keccak(b"".join(parts))


def _domain(name: str, chain_id: int) -> bytes:
    return _typed(
        keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
        keccak(name.encode()),
        keccak(b"1"),
        chain_id.to_bytes(32, "big"),
        bytes(32),
    )


_L1_DOMAIN = _domain("Exchange", 1337)
_AGENT = keccak(b"Agent(string source,bytes32 connectionId)")
_SOURCES = {True: keccak(b"a"), False: keccak(b"b")}
_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

#: Fields of the user-signed actions, in the order they are signed in.
#: Source: exchange docs and the official SDK, "Signing", user-signed actions.
_USER_SIGNED = {
    "usdSend": ("UsdSend", "string destination,string amount,uint64 time"),
    "spotSend": ("SpotSend", "string destination,string token,string amount,uint64 time"),
    "withdraw3": ("Withdraw", "string destination,string amount,uint64 time"),
    "usdClassTransfer": ("UsdClassTransfer", "string amount,bool toPerp,uint64 nonce"),
    "sendAsset": (
        "SendAsset",
        "string destination,string sourceDex,string destinationDex,string token,string amount,"
        "string fromSubAccount,uint64 nonce",
    ),
    "approveAgent": ("ApproveAgent", "address agentAddress,string agentName,uint64 nonce"),
    "approveBuilderFee": ("ApproveBuilderFee", "string maxFeeRate,address builder,uint64 nonce"),
    "userDexAbstraction": ("UserDexAbstraction", "address user,bool enabled,uint64 nonce"),
    "userSetAbstraction": ("UserSetAbstraction", "address user,string abstraction,uint64 nonce"),
}
USER_SIGNED = frozenset(_USER_SIGNED)


class BadSignature(ValueError):
    """r, s, v from which no signer can be recovered, or a message that cannot be signed."""


def _recover(digest: bytes, signature: object) -> str:
    try:
        assert isinstance(signature, dict)
        r, s, v = int(signature["r"], 16), int(signature["s"], 16), signature["v"]
        assert 0 < r < _N
        assert 0 < s <= _N // 2
        assert v in (27, 28)
        compact = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes((v - 27,))
        key = PublicKey.from_signature_and_message(compact, digest, hasher=None)
    except (AssertionError, KeyError, TypeError, ValueError, OverflowError):
        raise BadSignature from None
    except Exception as exc:  # coincurve raises a bare Exception when there is no such point
        raise BadSignature from exc
    return address_of(key.format(compressed=False))


def l1_signer(
    action: JsonObject, nonce: int, vault: str | None, expires_after: int | None, signature: object, mainnet: bool
) -> str:
    """The address whose key signed this action, in the key order of `action`. Raises BadSignature."""
    data = [msgpack.packb(action), nonce.to_bytes(8, "big")]
    data.append(b"\0" if vault is None else b"\1" + bytes.fromhex(vault[2:]))
    if expires_after is not None:
        data.append(b"\0" + expires_after.to_bytes(8, "big"))
    agent = _typed(_AGENT, _SOURCES[mainnet], _typed(*data))
    return _recover(_typed(b"\x19\x01", _L1_DOMAIN, agent), signature)


def _encoded(kind: str, value: Any) -> bytes:
    if kind == "string":
        return keccak(value.encode())
    if kind == "address":
        return bytes.fromhex(value[2:]).rjust(32, b"\0")
    return int(value).to_bytes(32, "big")


def user_signer(action: JsonObject, signature: object) -> str:
    """The address whose key signed this user-signed action. Raises BadSignature."""
    name, fields = _USER_SIGNED[action["type"]]
    fields = "string hyperliquidChain," + fields
    parts = [keccak(f"HyperliquidTransaction:{name}({fields})".encode())]
    try:
        for field in fields.split(","):
            kind, key = field.split(" ")
            # An agent without a name is signed as the empty one and sent without.
            parts.append(_encoded(kind, action.get(key, "") if key == "agentName" else action[key]))
        domain = _domain("HyperliquidSignTransaction", int(action["signatureChainId"], 16))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise BadSignature from None
    return _recover(_typed(b"\x19\x01", domain, _typed(*parts)), signature)


class Nonces:
    """The nonces of one signer: each once, the 100 highest remembered. Source: exchange docs, "Nonces"."""

    KEPT = 100
    PAST_MS, FUTURE_MS = 2 * 86_400_000, 86_400_000

    def __init__(self) -> None:
        self._highest: list[int] = []

    def refusal(self, nonce: int, now_ms: int) -> str | None:
        """The venue's words when this nonce cannot be used, None when it can."""
        oldest, newest = now_ms - self.PAST_MS, now_ms + self.FUTURE_MS
        if nonce in self._highest:
            return f"Invalid nonce: duplicate nonce {nonce}"
        if len(self._highest) == self.KEPT:
            oldest = max(oldest, self._highest[0])
        if nonce <= oldest:
            return f"Invalid nonce: nonce too low {nonce} < {oldest}"
        if nonce >= newest:
            return f"Invalid nonce: nonce too high {nonce} > {newest}"
        return None

    def spend(self, nonce: int) -> None:
        insort(self._highest, nonce)
        del self._highest[: -self.KEPT]
