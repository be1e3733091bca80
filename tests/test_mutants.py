"""The planted bugs of tests/mutants: that each can still be planted. That each is caught: `make mutants`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PATCHES = sorted((ROOT / "tests" / "mutants").glob("*.patch"))

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is needed to try a patch")


def test_there_are_at_least_ten_planted_bugs_each_said_in_a_sentence() -> None:
    assert len(PATCHES) >= 10
    for path in PATCHES:
        first, second = path.read_text().splitlines()[:2]
        assert first.endswith("."), path.name
        assert not second, path.name


@pytest.mark.parametrize("path", PATCHES, ids=[p.stem for p in PATCHES])
def test_a_planted_bug_still_applies_to_the_sources(path: Path) -> None:
    done = subprocess.run(
        ["git", "apply", "--check", "-p1", "--unidiff-zero", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
