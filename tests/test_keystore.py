"""Keys out of encrypted files, and errors that lead to nothing secret."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from eth_keyfile.keyfile import create_keyfile_json

from hlconn import Signer
from hlconn.errors import ConfigError
from hlconn.keystore import decrypt

KEY = bytes.fromhex("0123456789" * 6 + "0123")
PASSWORD = "correct horse battery staple"


@pytest.fixture(params=["scrypt", "pbkdf2"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "key.json"
    work = {"scrypt": 2, "pbkdf2": 1}[request.param]
    path.write_text(json.dumps(create_keyfile_json(KEY, PASSWORD.encode(), kdf=request.param, iterations=work)))
    return path


def test_a_keystore_gives_its_key(path: Path) -> None:
    assert decrypt(path, PASSWORD) == decrypt(str(path), PASSWORD) == KEY
    assert type(decrypt(path, PASSWORD)) is bytes
    signer = Signer.from_keystore(path, PASSWORD, "testnet")
    assert signer.address == "0x14791697260e4c9a71f18484c9f997b308e59325"


def test_a_wrong_password_leads_to_nothing_secret(path: Path) -> None:
    wrong = PASSWORD + "!"
    with pytest.raises(ConfigError, match=r"key\.json: wrong password") as raised:
        Signer.from_keystore(path, wrong, "testnet")
    exc = raised.value
    assert exc.__cause__ is exc.__context__ is None
    inside = exc.with_traceback(exc.__traceback__ and exc.__traceback__.tb_next)
    assert wrong not in "".join(traceback.TracebackException.from_exception(inside, capture_locals=True).format())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "1",
        "null",
        "{}",
        '{"version":3}',
        '{"version":9,"crypto":{}}',
        '{"version":3,"crypto":[]}',
        "\ud800",
    ],
)
def test_what_is_no_keystore_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"key\.json: it is no keystore"):
        decrypt(path, PASSWORD)


@pytest.mark.parametrize("member", ["ciphertext", "mac", "cipherparams", "kdf", "kdfparams"])
@pytest.mark.parametrize("value", [None, 5, "zz", {}])
def test_a_damaged_keystore_is_refused(path: Path, member: str, value: Any) -> None:
    content = json.loads(path.read_text())
    content["crypto"][member] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"key\.json: "):
        decrypt(path, PASSWORD)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: No such file"):
        decrypt(tmp_path / "none.json", PASSWORD)
    with pytest.raises(ConfigError, match="Is a directory"):
        decrypt(tmp_path, PASSWORD)
