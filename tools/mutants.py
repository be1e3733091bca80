"""Plants each bug of tests/mutants/*.patch, builds, and runs the tests of what it breaks: each has to be caught.

    python tools/mutants.py [names ...]        exit status 1 if a patch does not apply, does not build, or survives

A patch is `git apply`-able from the root of the repository, with as little context as it takes; its first line says
what it breaks. One copy of the tree and one build folder serve all of them: only what a patch touches is built again.
Patches of the venue in a box alone (src/hlconn/sim), which is pure Python, need no build: they are planted beside the
compiled files of the installed hlconn, and its own tests have to catch them. So are those of trading and its session
(also Python), which random strategies have to find within 300 seeds: the name of the test that failed says the seed.
Those whose name begins with session_ have to be found by the modelled network and venue, within 500 seeds; those with
link_ by the tests of one link, for what the modelled venue does not do, or too seldom.
Those of the market's Python files, and of the limiter, have to be caught by their own tests.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATCHES = ROOT / "tests" / "mutants"
LEFT_OUT = shutil.ignore_patterns("build", "dist", ".*", "__pycache__", "docs", "benches")


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, check=False)


class Workshop:
    """A copy of the tree that is built and tested apart from the installed hlconn."""

    tests = ["tests/_core"]

    def __init__(self, folder: Path) -> None:
        self.tree, self.site, self.cmake = folder / "tree", folder / "site", folder / "cmake"
        shutil.rmtree(self.tree, ignore_errors=True)
        shutil.rmtree(self.site, ignore_errors=True)
        # copyfile: with new times of change, or what the last run built from a planted bug would pass for up to date
        shutil.copytree(ROOT, self.tree, ignore=LEFT_OUT, copy_function=shutil.copyfile)
        shared = ROOT.parent / "shared"
        if shared.is_dir() and not (folder / "shared").exists():
            (folder / "shared").symlink_to(shared)

    def build(self) -> str:
        """Builds and installs; what went wrong, or nothing."""
        # no link-time optimisation: one minute less for all of them
        options = [f"build-dir={self.cmake}", "cmake.define.HLCONN_LTO=OFF", "install.strip=false"]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--upgrade"]
        settings = [f"--config-settings={option}" for option in options]
        done = run(*pip, "--target", self.site, *settings, ".", cwd=self.tree)
        if done.returncode:
            return done.stdout + done.stderr
        shutil.copy(ROOT / "tools" / "asan_sitecustomize.py", self.site / "sitecustomize.py")
        return ""

    def test(self) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1", "HLCONN_HYPOTHESIS": "first"}
        return run(sys.executable, "-m", "pytest", *self.tests, "-x", "-q", "--no-header", cwd=self.tree, env=env)


class SimWorkshop(Workshop):
    """For bugs of src/hlconn/sim: nothing is compiled."""

    tests = [
        f"tests/sim/test_{name}.py" for name in ("signing", "exchange", "matching", "candles", "markets", "limits")
    ]

    def build(self) -> str:
        shutil.copytree(self.tree / "src" / "hlconn", self.site / "hlconn", dirs_exist_ok=True)
        spec = importlib.util.find_spec("hlconn._core.action")
        assert spec is not None
        assert spec.origin is not None
        for compiled in Path(spec.origin).parent.glob("*.so"):
            shutil.copy(compiled, self.site / "hlconn" / "_core")
        shutil.copy(ROOT / "tools" / "asan_sitecustomize.py", self.site / "sitecustomize.py")
        return ""


class TradingWorkshop(SimWorkshop):
    """For bugs of src/hlconn/trading, session and client.py."""

    tests = ["tests/trading/test_random.py"]


class SessionWorkshop(SimWorkshop):
    """For bugs of src/hlconn/session that the session alone has to show."""

    tests = ["tests/session/test_simulation.py"]


class LinkWorkshop(SimWorkshop):
    """For bugs of one link."""

    tests = ["tests/session/test_link.py"]


class MarketWorkshop(SimWorkshop):
    """For bugs of the market's Python files."""

    tests = [f"tests/test_{name}.py" for name in ("market", "gaps", "streams")]


class LimitsWorkshop(SimWorkshop):
    """For bugs of the limiter."""

    tests = ["tests/test_limits.py"]


#: Who takes a patch all of whose files begin so; the first that fits.
KINDS: list[tuple[tuple[str, ...], type[Workshop], str]] = [
    (("src/hlconn/sim/",), SimWorkshop, "sim"),
    (("src/hlconn/trading/", "src/hlconn/session/", "src/hlconn/client.py"), TradingWorkshop, "trading"),
    (
        ("src/hlconn/market.py", "src/hlconn/gaps.py", "src/hlconn/rows.py", "src/hlconn/streams.py"),
        MarketWorkshop,
        "market",
    ),
    (("src/hlconn/limits.py",), LimitsWorkshop, "limits"),
    (("",), Workshop, "."),
]
#: Who takes a patch whose name begins so: the files alone do not tell, for trading has bugs there too.
PREFIXES = {"session_": len(KINDS), "link_": len(KINDS) + 1}
KINDS += [((), SessionWorkshop, "session"), ((), LinkWorkshop, "link")]


def kind_of(patch: Path) -> int:
    for prefix, at in PREFIXES.items():
        if patch.stem.startswith(prefix):
            return at
    files = files_of(patch.read_text())
    return next(at for at, (roots, *_) in enumerate(KINDS) if all(name.startswith(roots) for name in files))


def files_of(patch: str) -> list[str]:
    return re.findall(r"^\+\+\+ b/(\S+)", patch, re.MULTILINE)


def why(done: subprocess.CompletedProcess[str]) -> str:
    """Which test failed, or in which one the process died."""
    if failed := re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE):
        name: str = failed[0]
        return name.removeprefix("tests/").removeprefix("_core/")
    test = re.search(r"line \d+ in (test_\w+)", done.stderr)
    where = test[1] if test else (done.stdout + done.stderr).strip()[-300:]
    return f"exit status {done.returncode}, {where}"


def plant(workshop: Workshop, patches: list[Path]) -> int:
    """How many were not caught."""
    if problem := workshop.build():
        sys.exit(f"the sources as they are do not build:\n{problem}")
    clean = workshop.test()
    if clean.returncode:
        sys.exit(f"the tests fail without any planted bug: {why(clean)}")
    bad = 0
    for path in patches:
        started = time.monotonic()
        text = path.read_text()
        # Inside a repository git would pass by, without a word, whatever is not in the folder it stands in.
        outside = os.environ | {"GIT_CEILING_DIRECTORIES": str(workshop.tree.parent)}
        applied = run("git", "apply", "-p1", "--unidiff-zero", path, cwd=workshop.tree, env=outside)
        if applied.returncode:
            verdict, detail = "DOES NOT APPLY", applied.stderr.strip()
        else:
            if problem := workshop.build():
                verdict, detail = "DOES NOT BUILD", problem[-600:]
            else:
                done = workshop.test()
                verdict, detail = ("caught", why(done)) if done.returncode else ("SURVIVED", text.splitlines()[0])
            for name in files_of(text):
                shutil.copyfile(ROOT / name, workshop.tree / name)  # and a new time of change: it is built again
        bad += verdict != "caught"
        print(f"{path.stem:28} {verdict:8} {time.monotonic() - started:5.1f} s  {detail}", flush=True)
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="patches to plant, without .patch; all by default")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutants", help="where to build")
    options = parser.parse_args()
    patches = sorted(PATCHES.glob("*.patch"))
    if options.names:
        patches = [PATCHES / f"{name}.patch" for name in options.names]
    began, folder = time.monotonic(), options.folder.resolve()
    bad = 0
    for at, (_, workshop, name) in enumerate(KINDS):
        if mine := [patch for patch in patches if kind_of(patch) == at]:
            bad += plant(workshop(folder / name), mine)
    print(f"{len(patches) - bad} of {len(patches)} planted bugs caught in {time.monotonic() - began:.0f} s")
    return 1 if bad or not patches else 0


if __name__ == "__main__":
    sys.exit(main())
