"""The shape of the package: who imports whom, what is public, and that nothing heavy comes along."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hlconn

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "hlconn"

#: Ranks of docs/architecture.md. A file imports lower ranks, or what stands before it in its own.
RANKS: list[list[str]] = [
    ["errors"],
    ["types", "config", "subscriptions", "messages"],
    ["instruments", "limits", "keystore", "nonces"],
    [
        "_core._build",
        "_core.cursor",
        "_core.keccak",
        "_core.codec",
        "_core.classify_table",
        "_core.classify",
        "_core.rows",
        "_core.action",
        "_core.histogram",
        "_core.tids",
        "_core.book",
        "_core.secp",
        "_core.oneshot",
        "_core.sign",
        "_core.feed",
        "_core.listener",
        "account",
        "responses",
    ],
    ["session.link", "session.pool", "session.pylistener", "session.driver", "session.queries", "session.http"],
    ["info_types", "info", "fallback"],
    [
        "stats",
        "gaps",
        "l2",
        "streams",
        "rows",
        "market",
        "trading.ledger",
        "trading.tracking",
        "trading.rows",
        "trading.legs",
        "trading.orders",
        "trading.composer",
        "trading.outbox",
        "trading.reconciler",
        "trading.trader",
    ],
    ["client", "blocking"],
]
SIM_MAY_IMPORT = {"errors", "types", "config"}
MODULES = [name for rank in RANKS for name in rank]


def source_of(module: str) -> list[Path]:
    base = PACKAGE.joinpath(*module.split("."))
    return [path for suffix in (".py", ".pyx", ".pxd") if (path := base.with_suffix(suffix)).exists()]


def imports_of(path: Path, module: str) -> set[str]:
    """Modules of hlconn, without the package's name, that a file imports or cimports at any level of its code."""
    text = path.read_text()
    if path.suffix != ".py":
        return {
            found.removeprefix("hlconn.")
            for found in re.findall(r"^\s*(?:from|c?import) +(hlconn(?:\.\w+)+)", text, re.MULTILINE)
        }
    found = set()
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            found.add(".".join([*base, *(node.module or "").split(".")]).strip("."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hlconn."):
            found.add((node.module or "").removeprefix("hlconn."))
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("hlconn.") for alias in node.names if alias.name.startswith("hlconn.")}
    return found


def every_module() -> list[str]:
    names = []
    for path in sorted(PACKAGE.rglob("*.py*")):
        if path.suffix in (".py", ".pyx", ".pxd"):
            name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            if name not in names and not name.endswith("__init__") and name != "__main__":
                names.append(name)
    return names


def test_every_file_has_a_rank() -> None:
    unranked = [n for n in every_module() if n not in MODULES and not n.startswith(("sim.", "cli."))]
    assert unranked == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    below = set(MODULES[: MODULES.index(module)])
    for path in source_of(module):
        wrong = imports_of(path, module) - below - {module}
        assert not wrong, f"{path.name} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", [n for n in every_module() if n.startswith("sim.")])
def test_the_venue_does_not_lean_on_what_it_judges(module: str) -> None:
    for path in source_of(module):
        wrong = {n for n in imports_of(path, module) if not n.startswith("sim") and n not in SIM_MAY_IMPORT}
        assert not wrong, f"{path.name} imports {sorted(wrong)}"


def test_one_file_cimports_picows() -> None:
    cimport = re.compile(r"cimport.*picows|from picows.* cimport")
    users = [path.name for path in PACKAGE.rglob("*.p[yx]*") if cimport.search(path.read_text())]
    assert users == ["listener.pyx"]


def run_alone(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


NOT_IMPORTED = ("_core.cursor", "_core.keccak", "_core._build")


@pytest.mark.parametrize("module", ["hlconn", *(f"hlconn.{n}" for n in every_module() if n not in NOT_IMPORTED)])
def test_each_module_imports_alone(module: str) -> None:
    run_alone(f"import {module}")


def test_importing_hlconn_brings_nothing_heavy_along() -> None:
    loaded = run_alone("import sys, hlconn; print(*sys.modules)").split()
    heavy = {"asyncio", "ssl", "picows", "orjson", "msgspec", "aiohttp", "rich", "hlconn.client", "hlconn.sim"}
    assert not (heavy | {"coincurve", "eth_account", "hlconn.account", "hlconn._core.action"}) & set(loaded)


def test_signing_an_order_does_not_bring_eth_account_along() -> None:
    code = "import hlconn; hlconn.Signer('01' * 32, 'local').sign({'type': 'noop'}, 1); import hlconn.account, sys"
    loaded = run_alone(f"{code}; print(*sys.modules)").split()
    assert "coincurve" in loaded
    assert not {"eth_account", "eth_keyfile", "asyncio"} & set(loaded)


def test_every_public_name_is_there_and_is_documented() -> None:
    for name in hlconn.__all__:
        value = getattr(hlconn, name)
        if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
            assert inspect.getdoc(value), f"hlconn.{name} has no docstring"
    assert sorted(hlconn.__all__) == sorted(set(hlconn.__all__))
    assert set(hlconn.__all__) <= set(dir(hlconn))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hlconn.nonsense


@pytest.mark.parametrize("module", ["codec", "rows", "classify", "book", "feed", "action", "sign"])
def test_everything_compiled_that_is_public_is_documented(module: str) -> None:
    compiled = importlib.import_module(f"hlconn._core.{module}")
    for name, value in vars(compiled).items():
        if getattr(value, "__module__", None) != compiled.__name__ or name in ("Slot",):
            continue
        assert inspect.getdoc(value), f"{module}.{name}"
        for member, thing in vars(value).items() if inspect.isclass(value) else ():
            if not member.startswith("_") and callable(thing):
                assert inspect.getdoc(thing), f"{module}.{name}.{member}"


def test_each_compiled_module_has_a_stub() -> None:
    for path in (PACKAGE / "_core").glob("*.pyx"):
        assert path.with_suffix(".pyi").exists(), path.name


def test_the_version_is_the_newest_of_the_changelog() -> None:
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == hlconn.__version__


def test_run_time_dependencies_are_the_ones_we_say() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", line)[0] for line in project["dependencies"]]  # type: ignore[index]
    ours = ["numpy", "picows", "orjson", "msgspec", "aiohttp", "coincurve", "eth-account"]
    assert names == [*ours, "msgpack", "pycryptodome"]  # the last two are the venue's in a box


def test_the_build_is_of_the_kind_that_was_asked_for() -> None:
    build = importlib.import_module("hlconn._core._build")
    wanted = os.environ.get("HLCONN_EXPECT_CHECKED")
    assert wanted is None or build.CHECKED is (wanted == "ON")


def test_tests_mirror_the_sources() -> None:
    """Each room has its tests; files of one room may share one."""
    for room in ("_core", "session", "trading", "sim", "cli"):
        assert list((ROOT / "tests" / room).glob("test_*.py")), room
