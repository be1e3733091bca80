"""One nonce once: over threads, processes, kills, forks, restarts and clocks that are set back."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hlconn import Nonces
from hlconn.errors import Closed, ConfigError, NotSent, Throttled

ADDRESS = "0x14791697260e4c9a71f18484c9f997b308e59325"
NOW = 1_700_000_000_000


class Clock:
    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def nonces(tmp_path: Path, clock: Clock) -> Iterator[Nonces]:
    with Nonces(ADDRESS, tmp_path, clock=clock) as nonces:
        yield nonces


def test_a_nonce_is_the_time_or_one_more_than_the_last(nonces: Nonces, clock: Clock) -> None:
    assert [nonces.take() for _ in range(3)] == [NOW, NOW + 1, NOW + 2]
    clock.now += 1000
    assert nonces.take() == NOW + 1000
    clock.now -= 500_000
    assert nonces.take() == NOW + 1001
    assert repr(nonces) == f"<Nonces of {ADDRESS}>"


def test_the_clock_is_the_systems_unless_given(tmp_path: Path) -> None:
    with Nonces(ADDRESS.upper().replace("X", "x"), tmp_path) as nonces:
        assert nonces.take() > NOW
    assert nonces.path == tmp_path / f"{ADDRESS}.nonce"


def test_no_more_than_the_window_are_unanswered(nonces: Nonces) -> None:
    taken = [nonces.take() for _ in range(100)]
    for _ in range(2):
        with pytest.raises(Throttled, match=r"100 actions of .* are unanswered") as raised:
            nonces.take()
    assert raised.value.retry_after_s > 0
    nonces.done(taken[50])
    nonces.done(taken[50])
    nonces.done(5)
    assert nonces.unanswered == 99
    assert nonces.take() == taken[-1] + 1
    with pytest.raises(Throttled):
        nonces.take()


def test_a_restart_goes_on_where_the_last_stopped(tmp_path: Path, clock: Clock) -> None:
    with Nonces(ADDRESS, tmp_path, clock=clock) as first:
        last = [first.take() for _ in range(5)][-1]
    clock.now -= 3600_000
    with Nonces(ADDRESS, tmp_path, clock=clock) as second:
        assert second.take() == last + 1
    clock.now += 7200_000
    with Nonces(ADDRESS, tmp_path, clock=clock) as third:
        assert third.take() == clock.now


def test_no_nonce_comes_twice_whenever_it_is_killed(tmp_path: Path, clock: Clock) -> None:
    """A kill is a file that is copied away at any moment and put back: nothing after the copy was written."""
    rng, seen, path = random.Random(3), set(), tmp_path / f"{ADDRESS}.nonce"
    for _ in range(50):
        nonces = Nonces(ADDRESS, tmp_path, clock=clock, window=100)
        for _ in range(rng.randrange(200)):
            nonce = nonces.take()
            nonces.done(nonce)
            assert nonce not in seen
            seen.add(nonce)
            clock.now += rng.choice((-700, 0, 0, 1, 1, 1500))
        killed = path.read_bytes()
        nonces.close()
        path.write_bytes(killed)


def test_the_file_is_written_once_a_second_not_once_a_nonce(
    nonces: Nonces, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    monkeypatch.setattr(nonces, "_write", lambda fd, reserved: writes.append(reserved))
    for _ in range(5000):
        nonces.done(nonces.take())
        clock.now += 1
    assert len(writes) == 5
    monkeypatch.undo()


def test_threads_get_different_ones(nonces: Nonces) -> None:
    def some(_: int) -> list[int]:
        taken = []
        for _ in range(200):
            taken.append(nonces.take())
            nonces.done(taken[-1])
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [nonce for each in pool.map(some, range(8)) for nonce in each]
    assert sorted(taken) == list(range(NOW, NOW + 1600))


def test_closed_is_closed(tmp_path: Path) -> None:
    nonces = Nonces(ADDRESS, tmp_path)
    nonces.close()
    nonces.close()
    assert repr(nonces).endswith(", closed>")
    with pytest.raises(Closed, match="were closed"):
        nonces.take()


def test_a_forgotten_one_frees_the_key(tmp_path: Path) -> None:
    Nonces(ADDRESS, tmp_path)
    Nonces(ADDRESS, tmp_path).close()


# --- other processes --------------------------------------------------------------------------------------------

HOLDER = """
import sys, hlconn
nonces = hlconn.Nonces(sys.argv[1], sys.argv[2], clock=lambda: int(sys.argv[3]))
print(nonces.take(), nonces.take(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, ADDRESS, str(tmp_path), str(NOW)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{NOW} {NOW + 1}\n"
        yield process


def test_one_process_a_key(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"process {holder.pid} already signs with the key of {ADDRESS}") as raised:
        Nonces(ADDRESS, tmp_path)
    assert "one agent key per process" in str(raised.value)
    Nonces("0x" + "01" * 20, tmp_path).close()
    holder.communicate()
    with Nonces(ADDRESS, tmp_path, clock=Clock(NOW - 5000)) as nonces:
        assert nonces.take() == NOW + 2


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_killed_holder_frees_the_key_and_its_nonces_stay_spent(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    with Nonces(ADDRESS, tmp_path, clock=Clock()) as nonces:
        assert NOW + 2 <= nonces.take() <= NOW + 2000


def test_some_of_the_window_can_be_left_for_what_is_more_urgent(tmp_path: Path) -> None:
    with Nonces(ADDRESS, tmp_path, window=3) as nonces:
        nonces.take(2)
        with pytest.raises(Throttled, match="2 are kept for cancels"):
            nonces.take(2)
        nonces.take(1)
        nonces.take()
        with pytest.raises(Throttled):
            nonces.take()
    with Nonces(ADDRESS, tmp_path, window=1) as nonces:
        nonces.take(20)


def test_a_nonce_that_is_used_elsewhere_is_never_handed_out(tmp_path: Path) -> None:
    with Nonces(ADDRESS, tmp_path, clock=lambda: 1000) as nonces:
        assert nonces.avoid(1000)
        assert nonces.avoid(1002)
        assert [nonces.take() for _ in range(2)] == [1001, 1003]
        assert not nonces.avoid(1001)
        nonces.done(1001)
        assert nonces.avoid(1001)
        assert nonces.take() == 1004


def test_one_object_a_key_also_within_a_process(nonces: Nonces, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this process already signs"):
        Nonces(ADDRESS, tmp_path)
    assert nonces.take() == NOW


FORK = """
import os, sys, hlconn
nonces = hlconn.Nonces(sys.argv[1], sys.argv[2])
nonces.take()
child = os.fork()
if not child:
    try:
        nonces.take()
    except hlconn.Closed as exc:
        print(exc, flush=True)
    nonces.done(1)
    nonces.close()
    sys.stdin.read()  # outlives its parent, and does not hold the key
    os._exit(0)
os.read(int(sys.argv[3]), 1)
nonces.take()
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("fork", ["os.fork()", "__import__('ctypes').CDLL(None).fork()"])
def test_a_fork_takes_none_and_does_not_hold_the_key(tmp_path: Path, fork: str) -> None:
    reader, writer = os.pipe()
    script = FORK.replace("os.fork()", fork)
    command = [sys.executable, "-W", "ignore", "-c", script, ADDRESS, str(tmp_path), str(reader)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[reader])
    assert process.stdout is not None
    try:
        assert "give it an agent key of its own" in process.stdout.readline()
        with pytest.raises(ConfigError, match=f"process {process.pid} already"):
            Nonces(ADDRESS, tmp_path)
        os.write(writer, b"x")
        assert process.wait(20) == 0
        Nonces(ADDRESS, tmp_path).close()
    finally:
        os.close(reader)
        os.close(writer)
        process.communicate()


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"\x00", b"17", b"{}", b"x" * 32, b"0" * 20 + b" " + b"0" * 10, b"1" * 10_000])
def test_a_file_that_holds_no_nonce_is_not_believed_and_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"{ADDRESS}.nonce"
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(ConfigError, match="does not hold a nonce"):
            Nonces(ADDRESS, tmp_path)
    assert path.read_bytes() == content


def test_an_empty_file_is_a_new_one(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / f"{ADDRESS}.nonce").touch()
    with Nonces(ADDRESS, tmp_path, clock=clock) as nonces:
        assert nonces.take() == NOW


def test_a_clock_set_back_by_days_is_an_error_at_construction(tmp_path: Path, clock: Clock) -> None:
    with Nonces(ADDRESS, tmp_path, clock=clock) as nonces:
        nonces.take()
    clock.now -= 3 * 24 * 3600 * 1000
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"is 3\.0 days ahead of this machine's clock"):
            Nonces(ADDRESS, tmp_path, clock=clock)


def test_a_directory_is_made_for_the_user_alone(tmp_path: Path) -> None:
    with Nonces(ADDRESS, tmp_path / "a" / "b") as nonces:
        nonces.take()
    if os.name == "posix":
        assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0
        assert nonces.path.stat().st_mode & 0o077 == 0


def test_without_a_directory_it_is_the_users_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_STATE_HOME", "HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    with Nonces(ADDRESS) as nonces:
        assert tmp_path in nonces.path.parents
        assert nonces.path.parent.name == "hlconn"


def test_a_place_that_cannot_be_used_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / f"{ADDRESS}.nonce").mkdir()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path):
        with pytest.raises(ConfigError, match=r"cannot keep the last nonce .*Say directory="):
            Nonces(ADDRESS, folder)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    for name in ("open", "read", "write"):
        with monkeypatch.context() as patched:
            patched.setattr(f"hlconn.nonces.os.{name}", refuse)
            with pytest.raises(ConfigError, match="Read-only file system"):
                Nonces(ADDRESS, tmp_path / "new")
    Nonces(ADDRESS, tmp_path / "new").close()


def test_a_disk_that_fails_later_lets_nothing_leave(
    nonces: Nonces, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonces.take()
    with monkeypatch.context() as patched:
        patched.setattr("hlconn.nonces.os.write", lambda fd, data: 3)
        assert nonces.take() == NOW + 1
        clock.now += 5000
        with pytest.raises(NotSent, match="short write"):
            nonces.take()
        assert nonces.unanswered == 2
    assert nonces.take() == NOW + 5000


@pytest.mark.parametrize("address", ["", ADDRESS[:-1], ADDRESS[2:], "../../etc/passwd", "0x" + "/" * 40, None])
def test_an_address_is_an_address(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="an address is 0x and 40 hex digits"):
        Nonces(address, tmp_path)


@pytest.mark.parametrize("window", [0, 101, -1, True, 5.0])
def test_a_window_is_what_the_venue_keeps(window: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="window must be from 1 to 100"):
        Nonces(ADDRESS, tmp_path, window=window)
