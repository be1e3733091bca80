"""Nonces of one key: never one twice, over threads, restarts and clocks that are set back; one process a key.

The venue keeps the 100 highest nonces of each key, takes none twice and none below them, and none more than a day ahead
of its clock. Source: the venue's docs, "Nonces and API wallets".
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from .errors import Closed, ConfigError, NotSent, Throttled

__all__ = ["Nonces"]

_STEP_MS = 1000  # reserved in the file ahead of use: one write a second, unless a burst outruns the clock
_DAY_MS = 24 * 3600 * 1000
_RETRY_AFTER_S = 0.1  # about one round trip to the venue
_RECORD = re.compile(rb"(\d{20}) (\d{10})\n")
_LOCKED_BYTE = 1 << 30  # Windows lets nobody read what is locked: lock a byte that is not there

_all: weakref.WeakSet[Nonces] = weakref.WeakSet()


class Nonces:
    """Hands out the nonces of one key, from a file that only one process at a time can hold.

    address: of the key that signs (`Signer.address`): of the agent, not of the account it trades for. directory: where
    the file is, by default the user's state directory; all processes that use the key must say the same. clock: venue
    time in ms. window: nonces that may be unanswered at once.

    The file outlives a killed process, a restart and a clock set back; the operating system frees the lock however the
    process ends. In a fork of the process it is closed. ConfigError when another process holds the key, or when the
    file cannot be kept, read or believed.
    """

    def __init__(
        self,
        address: str,
        directory: str | PathLike[str] | None = None,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        window: int = 100,
    ) -> None:
        if not isinstance(address, str) or not re.fullmatch(r"0x[0-9a-fA-F]{40}", address):
            raise ConfigError("an address is 0x and 40 hex digits")  # not shown: it might be the key
        if type(window) is not int or not 1 <= window <= 100:
            raise ConfigError(f"window must be from 1 to 100, the nonces that the venue keeps, not {window!r}")
        self.address = address.lower()
        self._clock = clock
        self._window = window
        self._mutex = threading.Lock()
        self._unanswered: set[int] = set()
        self._avoided: set[int] = set()
        self._fd: int | None = None
        self._pid = os.getpid()
        self._why_closed = "these nonces were closed"
        try:
            folder = _state_directory() if directory is None else Path(directory)
            self.path = folder / f"{self.address}.nonce"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        except (OSError, RuntimeError) as exc:  # RuntimeError: there is no home directory
            raise ConfigError(f"cannot keep the last nonce of {self.address}: {exc}. Say directory=...") from exc
        try:
            self._last = self._reserved = self._open(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        _all.add(self)

    def _open(self, fd: int) -> int:
        try:
            locked = _lock(fd)
            text = os.read(fd, 64)
            record = _RECORD.fullmatch(text)
            last = int(record[1]) if record else 0
            if locked and (record or not text):
                self._write(fd, last)
        except OSError as exc:
            raise ConfigError(f"cannot keep the last nonce in {self.path}: {exc}. Say directory=...") from exc
        if not locked:
            holder = "another process"
            if record:
                holder = "this process" if int(record[2]) == os.getpid() else f"process {int(record[2])}"
            raise ConfigError(
                f"{holder} already signs with the key of {self.address}: it holds {self.path}. Approve one "
                "agent key per process: two with one key would spend each other's nonces"
            )
        if text and not record:
            raise ConfigError(
                f"{self.path} does not hold a nonce. Delete it if this machine's clock is right and was not set back "
                "since the key was used"
            )
        ahead_ms = last - self._clock()
        if ahead_ms > _DAY_MS:
            raise ConfigError(
                f"the last nonce in {self.path} is {ahead_ms / _DAY_MS:.1f} days ahead of this machine's clock, and "
                "the venue takes none more than one day ahead. Set the clock; if it is right, delete the file"
            )
        return last

    def _write(self, fd: int, reserved: int) -> None:
        record = b"%020d %010d\n" % (reserved, os.getpid())
        os.lseek(fd, 0, os.SEEK_SET)
        if os.write(fd, record) != len(record):
            raise OSError("short write")

    def take(self, spare: int = 0) -> int:
        """A nonce: the time in ms, or one more than the last if that is more. Any thread.

        spare: so many of the window are left for what is more urgent; one can be had in any case. Throttled while as
        many as the rest are unanswered; Closed after `close`, and in a fork; NotSent when the file can no longer be
        written.
        """
        self._look_for_fork()
        with self._mutex:
            if self._fd is None:
                raise Closed(self._why_closed)
            if len(self._unanswered) >= max(1, self._window - spare):
                kept = f", of which {spare} are kept for cancels" if spare else ""
                raise Throttled(
                    f"{len(self._unanswered)} actions of {self.address} are unanswered, and the venue keeps only "
                    f"{self._window} nonces{kept}: wait for answers",
                    _RETRY_AFTER_S,
                )
            now_ms = self._clock()
            nonce = max(self._last + 1, now_ms)
            while nonce in self._avoided:
                nonce += 1
            if nonce - now_ms > _DAY_MS:
                raise NotSent(
                    f"the last nonce is {(nonce - now_ms) / _DAY_MS:.1f} days ahead of this machine's clock, and the "
                    "venue takes none more than one day ahead: the clock was, or is wrong. Use a new agent key, or wait"
                )
            if nonce > self._reserved:
                try:
                    self._write(self._fd, nonce + _STEP_MS)
                except OSError as exc:
                    raise NotSent(f"cannot keep the last nonce in {self.path}: {exc}") from exc
                self._reserved = nonce + _STEP_MS
            self._last = nonce
            if self._avoided:
                self._avoided = {each for each in self._avoided if each > nonce}
            self._unanswered.add(nonce)
            return nonce

    def avoid(self, nonce: int) -> bool:
        """Never hand this one out: something that was signed elsewhere has it. False: it is taken and unanswered."""
        self._look_for_fork()
        with self._mutex:
            if nonce in self._unanswered:
                return False
            if nonce > self._last:
                self._avoided.add(nonce)
            return True

    def done(self, nonce: int) -> None:
        """The action with this nonce was answered, or its outcome is known: it no longer counts for the window."""
        self._look_for_fork()
        with self._mutex:
            self._unanswered.discard(nonce)

    @property
    def unanswered(self) -> int:
        """How many nonces were taken and not yet `done`."""
        return len(self._unanswered)

    def close(self) -> None:
        """Give the key free for another process. Again: nothing."""
        self._look_for_fork()
        with self._mutex:
            if self._fd is None:
                return
            fd, self._fd = self._fd, None
            try:
                self._write(fd, self._last)  # what was reserved and not used is given back
            except OSError:
                pass  # then it stays reserved, which is safe
            finally:
                os.close(fd)

    def __enter__(self) -> Nonces:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return f"<Nonces of {self.address}{', closed' if self._fd is None else ''}>"

    def _look_for_fork(self) -> None:
        if os.getpid() != self._pid:  # a fork that Python did not make: from C, through ctypes
            self._forked()

    def _forked(self) -> None:
        """In the child: let go of the file, which would else stay locked after the parent's death; write nothing."""
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._why_closed = "this process is a fork of the one that signs: give it an agent key of its own"


def _close_in_child() -> None:
    for nonces in list(_all):
        nonces._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _state_directory() -> Path:
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "hlconn"


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> bool:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(fd, 0, os.SEEK_SET)
        return True
else:
    import fcntl

    def _lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
