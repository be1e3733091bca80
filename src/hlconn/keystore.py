"""Private keys out of encrypted JSON keystore files, by eth-account's own reader, imported at first use."""

from __future__ import annotations

import json
from os import PathLike, fspath
from pathlib import Path

from .errors import ConfigError

__all__ = ["decrypt"]


def decrypt(path: str | PathLike[str], password: str) -> bytes:
    """The private key in an encrypted JSON keystore. For `Signer.from_keystore`, which wipes it after use."""
    from eth_keyfile.keyfile import decode_keyfile_json

    key, problem = None, ""
    try:
        key = decode_keyfile_json(json.loads(Path(path).read_text("utf-8")), password.encode())
    except OSError as exc:
        problem = exc.strerror or "it cannot be read"
    except ValueError as exc:
        problem = "wrong password" if str(exc) == "MAC mismatch" else "it is no keystore"
    except (LookupError, TypeError, AttributeError, NotImplementedError):
        problem = "it is no keystore of version 3"
    del password  # outside of `except`, and without it: the traceback must lead to nothing secret
    if key is None:
        raise ConfigError(f"keystore {fspath(path)}: {problem}")
    return key
