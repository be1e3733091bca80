"""The example, as its readers run it: a minute of the venue's time with its faults on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "market_maker.py"
COUNTS = re.compile(r"(\d+) orders, (\d+) fills, (\d+) books, pnl \S+; LinkCounters\(connects=(\d+), ")


#: Runs a script that misses its last fill.
FORGETFUL = """
import runpy, sys, hlconn
fills = hlconn.Trader.fills.fget
hlconn.Trader.fills = property(lambda self: fills(self)[:-1])
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(tmp_path: Path, *options: str, first: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *first, str(SCRIPT), *options]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_it_ends_flat_and_as_the_venue_says(tmp_path: Path) -> None:
    done = run(tmp_path, "--seconds", "60", "--speed", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    told = COUNTS.search(done.stdout)
    assert told is not None, done.stdout
    orders, fills, books, connects = map(int, told.groups())
    assert orders > 10
    assert fills > 0
    assert books > 10
    assert connects > 1, "no cut in this minute"
    assert "flat, and all is as the venue says" in done.stdout


def test_it_fails_when_a_fill_is_missed(tmp_path: Path) -> None:
    done = run(tmp_path, "--seconds", "60", "--speed", "20", first=("-c", FORGETFUL))
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"(\d+) fills at the venue, (?!\1)\d+ here", done.stdout)
    assert "NOT as the venue says" in done.stdout


def test_it_is_at_most_two_hundred_lines() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 200


@pytest.mark.parametrize("text", ["not a key", "0x" + "f" * 64])
def test_a_file_without_a_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.txt"
    path.write_text(text + "\n")
    done = run(tmp_path, "--key-file", str(path))
    assert done.returncode != 0
    assert "ConfigError" in done.stderr
    assert text not in done.stdout + done.stderr
