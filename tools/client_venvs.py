"""Clients that are not ours, in virtual environments of their own: the official SDK in build/sdk, ccxt in build/ccxt.

`python tools/client_venvs.py sdk ccxt` makes those that are missing or have other packages than named here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import venv
from pathlib import Path

#: coincurve makes the SDK ten times as fast. It comes with ccxt, as does ccxt.pro.
PACKAGES = {"sdk": ["hyperliquid-python-sdk==0.24.0", "coincurve"], "ccxt": ["ccxt==4.5.90"]}
BUILD = Path(__file__).resolve().parent.parent / "build"


def python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_venv(name: str, folder: Path | None = None) -> Path:
    """Its interpreter. folder: where, instead of build/NAME."""
    folder = folder or BUILD / name
    python, done, packages = python_of(folder), folder / ".installed", PACKAGES[name]
    if not done.exists() or done.read_text() != repr(packages):
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "install", "-q", *packages], check=True)
        done.write_text(repr(packages))
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=PACKAGES)
    for name in parser.parse_args().names:
        print(make_venv(name))


if __name__ == "__main__":
    main()
