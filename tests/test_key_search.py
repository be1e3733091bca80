"""That a key in a log is found: each way of leaking one fails its session."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

KEY = "fedcba9876543210" * 4
BEFORE = f"""
import logging, sys
from hlconn.sim import Venue
log = logging.getLogger("some.library")
PRIVATE_KEY = bytes.fromhex("{KEY}")
def account():
    return Venue(seed=5, stepped=True, traders=False).account().key
"""
LEAKS = {
    "debug": "log.debug('made %s', account())",
    "upper_case": "log.info('made %s', account()[2:].upper())",
    "in_the_middle": "log.warning('packed 00%sff', PRIVATE_KEY.hex())",
    "raw": "log.error('sent %r', b'head' + PRIVATE_KEY + b'tail')",
    "printed": "print(account())",
    "stderr": "print(PRIVATE_KEY, file=sys.stderr)",
    "traceback": "try: raise ValueError(PRIVATE_KEY)\n    except ValueError: log.exception('it failed')",
}
QUIET = {"quiet": "log.debug('made %s', account()[:20]); log.debug('%r %s', PRIVATE_KEY[:31], 'ab' * 32)"}


def run(tmp_path: Path, tests: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A session of its own with these tests, which all pass."""
    bodies = "".join(f"def test_{name}():\n    {body}\n" for name, body in tests.items())
    (tmp_path / "test_it.py").write_text(BEFORE + bodies)
    options = ["-q", "-p", "key_search", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "pytest", *options, "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert f"{len(tests)} passed" in done.stdout, done.stdout + done.stderr
    return done


def test_a_key_that_is_logged_or_printed_fails_the_session_by_name(tmp_path: Path) -> None:
    done = run(tmp_path, LEAKS | QUIET)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    named = re.findall(
        r"^FAILED test_it.py::test_(\w+): a private key was logged or printed$", done.stdout, re.MULTILINE
    )
    assert sorted(named) == sorted(LEAKS)
    assert KEY not in done.stdout.lower()


def test_a_session_that_says_no_key_passes(tmp_path: Path) -> None:
    done = run(tmp_path, QUIET)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 private keys, and none of them in what was logged or printed" in done.stdout
