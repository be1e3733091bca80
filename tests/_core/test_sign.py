"""From an action to signed bytes: vectors, recovery with eth-account, what is hashed, and where the key is not."""

from __future__ import annotations

import copy
import gc
import io
import json
import logging
import os
import pickle
import random
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from Crypto.Hash import keccak
from eth_account import Account
from eth_account.messages import encode_typed_data

from hlconn import Network, Nonces, Side, Signed, Signer, account, action, keystore
from hlconn._core.sign import OTHER_SCHEMES, hash_of, keccak256
from hlconn.errors import Closed, ConfigError
from hlconn.instruments import Instrument, MarketKind
from hlconn.types import Order

SHARED = Path(__file__).resolve().parents[3] / "shared" / "protocol" / "vectors"
KEY = "0123456789" * 6 + "0123"
ADDRESS = "0x14791697260e4c9a71f18484c9f997b308e59325"
VAULT = "0x1719884eb866cb12b2287399b15f7db5e7d775ea"
NONCE = 1_700_000_000_000
ORDER = action.order([Order("BTC", Side.BUY, 98450, "0.01")], {"BTC": Instrument("BTC", 0, MarketKind.PERP, 5)})
CANCEL = {"type": "cancel", "cancels": [{"a": 0, "o": 5}]}


def recovered(signed: Signed) -> str:
    """The signer, by eth-account alone, from the payload alone: its msgpack and its typed data, not ours."""
    sent = json.loads(signed.payload)
    vault, expires_after = sent.get("vaultAddress"), sent.get("expiresAfter")
    hashed = msgpack.packb(sent["action"]) + sent["nonce"].to_bytes(8, "big")
    hashed += b"\x00" if vault is None else b"\x01" + bytes.fromhex(vault[2:])
    hashed += b"" if expires_after is None else b"\x00" + expires_after.to_bytes(8, "big")
    message = encode_typed_data(
        {"name": "Exchange", "version": "1", "chainId": 1337, "verifyingContract": "0x" + "0" * 40},
        {"Agent": [{"name": "source", "type": "string"}, {"name": "connectionId", "type": "bytes32"}]},
        {
            "source": "a" if signed.network is Network.MAINNET else "b",
            "connectionId": keccak.new(digest_bits=256, data=hashed).digest(),
        },
    )
    signature = sent["signature"]
    vrs = signature["v"], int(signature["r"], 16), int(signature["s"], 16)
    address: str = Account.recover_message(message, vrs=vrs)
    return address.lower()


# --- what is signed ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.exists(), reason="the shared vectors are not beside this repository")
def test_the_shared_vectors_reproduce() -> None:
    known = [case for case in json.loads((SHARED / "signing.json").read_text()) if case["kind"] == "l1"]
    assert len(known) == 66
    for case in known:
        made = action.raw(case["action"])
        assert made.msgpack.hex() == case["msgpack_hex"], case["name"]
        network = "mainnet" if case["is_mainnet"] else "testnet"
        hashes = hash_of(made, case["nonce"], case["vault"], case["expires_after"], network)
        assert [f"0x{each.hex()}" for each in hashes] == [case["connection_id"], case["digest"]], case["name"]
        signer = Signer(case["private_key"], network)
        signed = signer.sign(made, case["nonce"], case["expires_after"], vault=case["vault"])
        assert (signed.r, signed.s, signed.v) == (int(case["r"], 16), int(case["s"], 16), case["v"]), case["name"]
        signature = {"r": case["r_padded"], "s": case["s_padded"], "v": case["v"]}
        assert json.loads(signed.payload)["signature"] == signature
        assert signer.address == signed.signer_address() == recovered(signed) == case["signer"], case["name"]


def test_keccak_is_ethereums_at_every_length() -> None:
    data = random.Random(1).randbytes(1001)
    for n in range(1001):
        assert keccak256(data[:n]) == keccak.new(digest_bits=256, data=data[:n]).digest(), n


def test_every_signature_recovers_with_eth_account_and_has_a_low_s() -> None:
    rng = random.Random(2)
    half = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141 // 2
    for i in range(200):
        signer = Signer(f"{rng.randrange(1, 1 << 255):064x}", rng.choice(list(Network)))
        expires_after = rng.choice((None, 0, NONCE + 5000))
        signed = signer.sign(ORDER, NONCE + i, expires_after, vault=rng.choice((None, VAULT)))
        assert recovered(signed) == signed.signer_address() == signer.address
        assert 0 < signed.s <= half
        assert signed.v in (27, 28)


def test_the_payload_is_the_envelope_and_nothing_that_was_not_hashed() -> None:
    plain = json.loads(Signer(KEY, "mainnet").sign(ORDER, NONCE).payload)
    assert list(plain) == ["action", "nonce", "signature"]
    assert plain["action"] == json.loads(ORDER.json)
    assert plain["nonce"] == NONCE
    signed = Signer(KEY, "mainnet", VAULT.upper().replace("X", "x")).sign(ORDER, NONCE, NONCE + 5)
    full = json.loads(signed.payload)
    assert list(full) == ["action", "nonce", "signature", "vaultAddress", "expiresAfter"]
    assert (full["vaultAddress"], full["expiresAfter"]) == (signed.vault, signed.expires_after) == (VAULT, NONCE + 5)
    assert (signed.action, signed.nonce, signed.network) == ("order", NONCE, Network.MAINNET)
    assert repr(signed) == f"<Signed order, nonce {NONCE}>"


def test_the_websocket_message_wraps_the_payload() -> None:
    signed = Signer(KEY, "testnet").sign(CANCEL, NONCE)
    for number in (0, 7, 2**63 - 1):
        message = json.loads(signed.post(number))
        payload = json.loads(signed.payload)
        assert message == {"method": "post", "id": number, "request": {"type": "action", "payload": payload}}
    for bad in (-1, 1 << 63, 1.0, True, "1", None):
        with pytest.raises(ConfigError, match="id must be an int"):
            signed.post(bad)  # type: ignore[arg-type]


def test_a_large_action_is_signed_as_well() -> None:
    large = {"type": "x", "list": ["y" * 1000] * 100}
    signed = Signer(KEY, "mainnet", VAULT).sign(large, NONCE, NONCE, vault=VAULT)
    assert recovered(signed) == signed.signer_address() == ADDRESS


def test_the_network_decides_the_domain_and_local_signs_as_testnet() -> None:
    by_name = {name: Signer(KEY, name).sign(ORDER, NONCE) for name in ("mainnet", "testnet", "local")}
    assert by_name["local"].payload == by_name["testnet"].payload != by_name["mainnet"].payload
    assert Signer(KEY, Network.MAINNET).sign(ORDER, NONCE).payload == by_name["mainnet"].payload
    for name, signed in by_name.items():
        assert signed.network is Network(name)
        assert recovered(signed) == ADDRESS


def test_a_vault_is_only_for_actions_that_take_one_unless_asked_for() -> None:
    signer = Signer(KEY, "mainnet", VAULT)
    assert signer.sign(CANCEL, NONCE).vault == VAULT
    assert signer.sign(CANCEL, NONCE, vault=None).vault is None
    assert signer.sign(CANCEL, NONCE, vault=ADDRESS).vault == ADDRESS
    for kind in ("noop", "setReferrer", "vaultTransfer", "createSubAccount", "reserveRequestWeight"):
        with pytest.raises(ConfigError, match=f"{kind} cannot be sent for a vault: say vault=None"):
            signer.sign({"type": kind}, NONCE)
        assert signer.sign({"type": kind}, NONCE, vault=None).vault is None
        assert json.loads(signer.sign({"type": kind}, NONCE, vault=VAULT).payload)["vaultAddress"] == VAULT


@pytest.mark.parametrize(
    "address", ["", VAULT[2:], VAULT + "0", "0x" + "g" * 40, "0x" + "\ud800" * 40, "0x" + "é" * 20]
)
def test_an_address_is_forty_hex_digits(address: str) -> None:
    with pytest.raises(ConfigError, match="an address is 0x and 40 hex digits"):
        Signer(KEY, "mainnet", address)
    with pytest.raises(ConfigError, match="an address is 0x and 40 hex digits"):
        Signer(KEY, "mainnet").sign(ORDER, NONCE, vault=address)


@pytest.mark.parametrize("bad", [-1, 1 << 63, 10**5000, 1.5, True, "1", None], ids=lambda value: type(value).__name__)
def test_times_are_ints_and_never_rounded(bad: Any) -> None:
    signer = Signer(KEY, "mainnet")
    with pytest.raises(ConfigError, match="nonce must be an int"):
        signer.sign(ORDER, bad)
    if bad is not None:
        with pytest.raises(ConfigError, match="expires_after must be an int"):
            signer.sign(ORDER, NONCE, bad)


@pytest.mark.parametrize("network", ["Mainnet", "", None, 1, "https://api.hyperliquid.xyz", []])
def test_an_unknown_network_is_refused(network: Any) -> None:
    with pytest.raises(ConfigError, match="unknown network"):
        Signer(KEY, network)
    with pytest.raises(ConfigError, match="unknown network"):
        hash_of(ORDER, NONCE, None, None, network)


def test_threads_may_share_a_signer() -> None:
    signer = Signer(KEY, "mainnet")
    expected = [signer.sign(CANCEL, NONCE + i).payload for i in range(300)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: signer.sign(CANCEL, NONCE + i).payload, range(300))) == expected


# --- the key ----------------------------------------------------------------------------------------------------


def test_a_key_is_taken_in_every_usual_form() -> None:
    class Text(str, Enum):  # noqa: UP042
        KEY = KEY

    forms: list[Any] = [KEY, "0x" + KEY, "0X" + KEY.upper(), bytes.fromhex(KEY), bytearray.fromhex(KEY), Text.KEY]
    for form in [*forms, Account.from_key(KEY)]:
        assert Signer(form, "mainnet").address == ADDRESS


ORDER_OF_CURVE = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
BAD_KEYS: list[Any] = [
    "",
    KEY[:-1],
    KEY + "0",
    "0x0x" + KEY[4:],
    KEY[:-1] + "g",
    " " + KEY[1:],
    KEY[:-1] + "\ud800",
    KEY[:-1] + "é",
    "0" * 64,
    ORDER_OF_CURVE,
    bytes.fromhex(KEY)[1:],
    bytearray.fromhex(KEY) + b"x",
    list(bytes.fromhex(KEY)),
    int(KEY, 16),
    None,
]


def leaks(text: str | bytes) -> bool:
    """Whether the key, or half of it, stands in there."""
    if isinstance(text, bytes):
        return any(each in text for each in (*halves(KEY.encode()), *halves(bytes.fromhex(KEY))))
    return any(each in text.lower() for each in halves(KEY)) or str(int(KEY, 16)) in text


def halves(key: Any) -> tuple[Any, Any]:
    return key[: len(key) // 2], key[len(key) // 2 :]


def all_text_of(exc: BaseException) -> str:
    """Everything that a reporter of errors could show of an exception, except the caller's own variables."""
    exc = exc.with_traceback(exc.__traceback__ and exc.__traceback__.tb_next)
    shown = traceback.TracebackException.from_exception(exc, capture_locals=True)
    inside = [exc, exc.__cause__, exc.__context__]
    return "".join(shown.format()) + "".join(f"{each!r} {each} {vars(each)} {each.args}" for each in inside if each)


@pytest.mark.parametrize("key", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_a_bad_key_is_refused_without_showing_it(key: Any) -> None:
    with pytest.raises(ConfigError, match="key must be 64 hex digits") as raised:
        Signer(key, "mainnet")
    assert not leaks(all_text_of(raised.value))
    assert raised.value.__cause__ is raised.value.__context__ is None


FAILING: list[Callable[[Signer], object]] = [
    lambda signer: signer.sign({"type": 1}, NONCE),
    lambda signer: signer.sign({"type": "noop"}, -1),
    lambda signer: signer.sign({"type": "noop"}, NONCE, vault="x"),
    lambda signer: signer._sign_digest(b""),
    lambda signer: signer.__reduce_ex__(4),
    lambda signer: signer.__class__(signer, "mainnet"),
    lambda signer: signer.key,  # type: ignore[attr-defined]
    lambda signer: (signer.close(), signer.sign({"type": "noop"}, NONCE)),  # type: ignore[func-returns-value]
]


@pytest.mark.parametrize("fail", FAILING, ids=range(len(FAILING)))
def test_no_error_shows_the_key(fail: Callable[[Signer], object]) -> None:
    signer = Signer(KEY, "mainnet")
    with pytest.raises(Exception) as raised:
        fail(signer)
    assert not leaks(all_text_of(raised.value))


def test_no_text_of_a_signer_shows_the_key() -> None:
    signer, log = Signer(KEY, "mainnet", VAULT), io.StringIO()
    logger = logging.Logger("test", logging.DEBUG)
    logger.addHandler(logging.StreamHandler(log))
    logger.debug("%r %s %s %s", signer, signer, [signer], {"signer": signer})
    signed = signer.sign(ORDER, NONCE)
    logger.debug("%r %s %s %s", signed, signed, signed.payload, signed.post(1))
    shown = [log.getvalue(), repr(signer), f"{signer}", *dir(signer), repr(dir(signer)), signer.__doc__ or ""]
    shown += [repr(getattr(signer, name)) for name in dir(signer)]
    assert repr(signer) == f"<Signer {ADDRESS} on mainnet>"
    assert not any(leaks(text) for text in shown)
    with pytest.raises(TypeError):
        vars(signer)
    with pytest.raises(TypeError):
        memoryview(signer)  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_signer_is_not_pickled(protocol: int) -> None:
    signer = Signer(KEY, "mainnet")
    out = io.BytesIO()
    with pytest.raises(TypeError, match="not copied or pickled"):
        pickle.Pickler(out, protocol).dump([signer])
    assert not leaks(out.getvalue())


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, lambda signer: copy.deepcopy({"in": [signer]})])
def test_a_signer_is_not_copied(copier: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="not copied or pickled"):
        copier(Signer(KEY, "mainnet"))


def test_a_closed_signer_is_closed() -> None:
    signer = Signer(KEY, "mainnet")
    signer.close()
    signer.close()
    assert repr(signer) == f"<Signer {ADDRESS} on mainnet, closed>"
    for call in (lambda: signer.sign(ORDER, NONCE), lambda: signer._sign_digest(bytes(32))):
        with pytest.raises(Closed, match="its key is gone"):
            call()


def test_no_python_object_holds_the_key() -> None:
    """Made from a buffer that is wiped: then neither bytes, str nor int of it are to be found."""
    secret = bytearray(os.urandom(32))
    secret[0] &= 0x7F
    mask = bytes(byte ^ 0x5A for byte in secret)  # the needle must not be found in itself
    signer = Signer(secret, "mainnet")
    secret[:] = bytes(32)
    for i in range(20):
        assert signer.sign(ORDER, NONCE + i).signer_address() == signer.address
    assert not [each for each in everything_reachable() if holds(each, mask)]
    wanted = bytes(byte ^ 0x5A for byte in mask)
    planted = [wanted.hex()]
    assert [each for each in everything_reachable() if holds(each, mask)], planted


def everything_reachable() -> list[Any]:
    """What the collector tracks and, one level down, what that refers to: str, bytes and int are not tracked."""
    gc.collect()
    tracked = gc.get_objects()
    return [each for each in (*tracked, *gc.get_referents(*tracked)) if type(each) in (str, bytes, bytearray, int)]


def holds(value: Any, mask: bytes) -> bool:
    key = bytes(byte ^ 0x5A for byte in mask)
    if type(value) is str:
        return key.hex() in value.lower()
    if type(value) is int:
        return value == int.from_bytes(key, "big")
    return key in value or key.hex().encode() in value


CHILD = """
import os, sys
import hlconn
secret = bytearray(32)
assert os.readv(0, [secret]) == 32
signer = hlconn.Signer(secret, "mainnet")
secret[:] = bytes(32)
for nonce in range(1, 50):
    signed = signer.sign({"type": "noop"}, nonce)
    assert signed.signer_address() == signer.address
print("signing", signer.address, flush=True)
sys.stdin.buffer.raw.read(1)
signer.close()
print("closed", flush=True)
sys.stdin.buffer.raw.read(1)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of a child through /proc")
def test_after_close_the_key_is_not_in_the_memory_of_the_process() -> None:
    """Read from outside, so that looking for the key puts it nowhere; as it is, reversed (as limbs), and in hex."""
    key = b"\x01" + os.urandom(31)
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(key)
        assert child.stdout.readline().split() == [b"signing", Signer(key, "mainnet").address.encode()]
        assert found_in_memory(child.pid, [key]) >= 1, "the scan must find what is there"
        child.stdin.write(b"\n")
        assert child.stdout.readline() == b"closed\n"
        assert found_in_memory(child.pid, [key, key[::-1], key.hex().encode(), key.hex().upper().encode()]) == 0
    finally:
        child.communicate(b"\n", timeout=20)
    assert child.returncode == 0


def found_in_memory(pid: int, needles: list[bytes]) -> int:
    found = 0
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            start, end = (int(each, 16) for each in span.split("-"))
            if "r" not in rights or line.endswith(("[vvar]\n", "[vsyscall]\n", "[vvar_vclock]\n")):
                continue
            if end - start > 1 << 32:
                continue  # what a sanitizer reserves for its own books: terabytes
            memory.seek(start)
            data = b""
            try:
                while len(data) < end - start and (more := memory.read(end - start - len(data))):
                    data += more
            except OSError:
                pass  # a mapping of a device
            found += sum(data.count(needle) for needle in needles)
    return found


def test_what_a_keystore_held_is_wiped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[bytes] = []

    def decrypt(path: object, password: str) -> bytes:
        handed.append(bytes.fromhex(KEY))
        return handed[0]

    monkeypatch.setattr(keystore, "decrypt", decrypt)
    signer = Signer.from_keystore(tmp_path, "password", "testnet", VAULT)
    assert (signer.address, signer.network, signer.vault) == (ADDRESS, Network.TESTNET, VAULT)
    assert handed == [bytes(32)]


def test_a_key_in_the_place_of_any_other_argument_is_not_shown() -> None:
    key = "0x" + "a1b2c3d4" * 8
    signer = Signer("0x" + "07" * 32, "testnet")
    wrong: list[Callable[[], object]] = [
        lambda: Signer("mainnet", key),
        lambda: Signer(key, "mainnet", key),
        lambda: Signer(key, "mainnet", presign=key),  # type: ignore[arg-type]
        lambda: Signer(key, bytes.fromhex(key[2:])),  # type: ignore[arg-type]
        lambda: signer.sign({"type": "noop"}, key),  # type: ignore[arg-type]
        lambda: signer.sign({"type": "noop"}, int(key, 16)),
        lambda: signer.sign({"type": "noop"}, 1, key),  # type: ignore[arg-type]
        lambda: signer.sign({"type": "noop"}, 1, vault=key),
        lambda: signer.sign({"type": "noop", "x": 1.5, "y": key}, 1),
        lambda: signer.sign({key: 1.5, "type": "noop"}, 1),
        lambda: Nonces(key),
    ]
    for mistake in wrong:
        with pytest.raises(ConfigError) as raised:
            mistake()
        text = "".join(traceback.format_exception(raised.value, chain=True)) + repr(raised.value.__context__)
        lines = [line for line in text.splitlines() if "lambda" not in line]
        assert not re.search("(a1b2c3d4){2}", "\n".join(lines)), lines
        assert str(int(key, 16))[:30] not in text


def test_actions_of_the_other_schemes_are_not_hashed_as_if_they_were_of_this_one() -> None:
    signer = Signer("0x" + "07" * 32, "testnet")
    assert set(account.SIGNED_TYPES) | {"multiSig"} == set(OTHER_SCHEMES)
    for type_ in OTHER_SCHEMES:
        with pytest.raises(ConfigError, match=r"hlconn\.account"):
            signer.sign({"type": type_}, 1)
