"""A pytest plugin that searches everything logged or printed during a run for the private keys that the run used.

Keys: of every `Party` of every venue in this process, and what modules of the tests keep under a name with KEY in it.
Texts: each log record of any logger from DEBUG up, with its traceback, and what pytest captured of stdout and stderr.
A key counts in hex, of any case and with anything around it, and as the repr of its bytes. The session fails at its
end, naming the tests; the key itself is not shown.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from functools import wraps
from typing import Any

import pytest

from hlconn.sim.venue import Party

_HEX = re.compile(r"[0-9a-f]{64,}", re.IGNORECASE)
_KEY = re.compile(r"(?:0x)?([0-9a-f]{64})", re.IGNORECASE)


class KeySearch(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.where = "the collection"  # or the test that runs now
        self.keys: set[str] = set()
        self.texts: list[str] = []
        # What might be a key, and where it was said: keys can be known later than they are seen.
        self.hex: set[tuple[str, str]] = set()
        self.escaped: set[tuple[str, str]] = set()
        self.leaks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.texts.append(self.format(record))
        except Exception:  # a bad format string is somebody else's test
            self.texts.append(repr((record.msg, record.args)))

    def know(self, value: object) -> None:
        if isinstance(value, str) and (found := _KEY.fullmatch(value)):
            self.keys.add(found[1].lower())
        elif isinstance(value, bytes) and len(value) == 32:
            self.keys.add(value.hex())

    def sift(self) -> None:
        """Keep what might be a key of the texts so far, and let go of the rest."""
        texts, self.texts = self.texts, []
        for text in texts:
            self.hex |= {(digits.lower(), self.where) for digits in _HEX.findall(text)}
            if "\\x" in text:
                self.escaped.add((text, self.where))

    def judge(self) -> None:
        self.sift()
        raw = [re.sub(r"\\(['\"])", r"\1", repr(bytes.fromhex(key))[2:-1]) for key in self.keys]
        found = [
            where
            for digits, where in self.hex
            if any(digits[at : at + 64] in self.keys for at in range(len(digits) - 63))
        ]
        for text, where in self.escaped:
            plain = re.sub(r"\\(['\"])", r"\1", text)
            found += [where for key in raw if key in plain]
        self.leaks = sorted(set(found))

    # Hooks of pytest.

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.where = item.nodeid
        result = yield
        self.sift()
        self.where = f"something after {item.nodeid}"
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.texts += [text for _, text in report.sections]
        self.texts.append(report.longreprtext)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        for module in list(sys.modules.values()):
            if str(getattr(module, "__file__", None)).startswith(str(session.config.rootpath)):
                for name, value in list(vars(module).items()):
                    if "KEY" in name.upper():
                        self.know(value)
        self.judge()
        if self.leaks:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        told = f"{len(self.keys)} private keys, and none of them in what was logged or printed"
        if self.leaks:
            terminalreporter.section("private keys in what was logged or printed", red=True)
            told = "\n".join(f"FAILED {where}: a private key was logged or printed" for where in self.leaks)
        terminalreporter.write_line(told)


def pytest_configure(config: pytest.Config) -> None:
    search = KeySearch()
    config.pluginmanager.register(search, "key search")
    logging.getLogger().addHandler(search)
    logging.getLogger().setLevel(logging.DEBUG)
    init = Party.__init__

    @wraps(init)
    def known(self: Party, address: str, key: str) -> None:
        init(self, address, key)
        search.know(key)

    Party.__init__ = known  # type: ignore[method-assign]


def pytest_unconfigure(config: pytest.Config) -> None:
    search = config.pluginmanager.unregister(name="key search")
    if isinstance(search, KeySearch):
        logging.getLogger().removeHandler(search)
        Party.__init__ = Party.__init__.__wrapped__  # type: ignore[method-assign,attr-defined]
