"""One-time nonces: whatever happens, an entry is used at most once and nothing of it stays behind.

The tests know the private key, so that they can work out the k of any signature: s^-1 (z + r d). What lies in the
pool's memory they learn as an attacker would: by reading the memory of the process.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_account import Account

from hlconn._core import _build, action, oneshot, sign
from hlconn.errors import Closed, ConfigError
from hlconn.instruments import Instrument, MarketKind
from hlconn.types import Order, Side, Tif

KEY = hashlib.sha256(b"a key for tests of one-time nonces").digest()
D = int.from_bytes(KEY, "big")
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
INSTRUMENTS = {"BTC": Instrument("BTC", 0, MarketKind.PERP, 5)}
ORDER = action.order([Order("BTC", Side.BUY, 98450, "0.01", Tif.ALO)], INSTRUMENTS)
ADDRESS = Account.from_key(KEY).address.lower()
HEAD, ENTRY = 48, 97  # bytes of the pool's head and of an entry: oneshot.pxd

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def _nothing_stays_injected() -> Iterator[None]:
    yield
    oneshot._inject(None)
    oneshot._guard_by_process(False)


@dataclass(frozen=True)
class Signature:
    digest: bytes
    r: int
    s: int
    v: int

    def check(self) -> None:
        assert Account._recover_hash(self.digest, vrs=(self.v, self.r, self.s)).lower() == ADDRESS
        assert 0 < self.s <= N // 2

    @property
    def k(self) -> int:
        """The nonce, or its negative: which of the two, low s has hidden."""
        return pow(self.s, -1, N) * (int.from_bytes(self.digest, "big") + self.r * D) % N


_last = 0


def digest() -> bytes:
    """Another one at each call, in whichever process."""
    global _last
    _last += 1
    return hashlib.sha256(b"%d of %d" % (_last, os.getpid())).digest()


def signed(signer: sign.Signer, of: bytes | None = None) -> Signature:
    of = of or digest()
    return Signature(of, *signer._sign_digest(of))


def rfc6979(of: bytes) -> Signature:
    return signed(sign.Signer(KEY, "testnet"), of)


def drain(signer: sign.Signer) -> list[Signature]:
    return [signed(signer) for _ in range(signer.presigned)]


def assert_no_r_twice(signatures: list[Signature]) -> None:
    assert len({each.r for each in signatures}) == len(signatures)


# --- signatures -------------------------------------------------------------------------------------------------


def test_every_presigned_action_recovers_to_the_signer_and_no_r_or_k_comes_twice() -> None:
    signer = sign.Signer(KEY, "testnet", presign=2500)
    assert signer.presigned == 2500
    found = []
    for nonce in range(1_700_000_000_000, 1_700_000_002_500):
        done = signer.sign(ORDER, nonce)
        found.append(Signature(sign.hash_of(ORDER, nonce, None, None, "testnet")[1], done.r, done.s, done.v))
        found[-1].check()
        assert done.signer_address() == signer.address == ADDRESS
    assert (signer.presigned, signer.presign_misses) == (0, 0)
    assert_no_r_twice(found)
    assert len({min(each.k, N - each.k) for each in found}) == len(found)
    assert {each.v for each in found} == {27, 28}


def test_every_bit_of_r_and_k_is_as_often_one_as_zero() -> None:
    found = drain(sign.Signer(KEY, "testnet", presign=4000))
    assert_no_r_twice(found)
    for values in ([each.r for each in found], [each.k for each in found]):
        for bit in range(256):
            ones = sum(value >> bit & 1 for value in values)
            assert abs(ones - 2000) < 220, f"bit {bit}"  # seven standard deviations


@pytest.mark.parametrize("value", [0, 1, N // 2, N - 1, N, N + 1, (1 << 256) - 1])
def test_a_digest_at_or_above_the_order_is_reduced(value: int) -> None:
    signer = sign.Signer(KEY, "testnet", presign=8)
    for _ in range(8):  # both parities, and s from both halves
        signed(signer, value.to_bytes(32, "big")).check()
    assert signer.presign_misses == 0


def test_signers_of_one_key_share_no_nonce() -> None:
    signers = [sign.Signer(KEY, "testnet", presign=20) for _ in range(50)]
    assert_no_r_twice([each for signer in signers for each in drain(signer)])


def test_off_by_default_and_then_rfc_6979_signs() -> None:
    signer = sign.Signer(KEY, "testnet")
    assert (signer.presigned, signer.presign_misses, signer.presign_guards, signer.refill()) == (0, 0, (), 0)
    of = digest()
    assert signed(signer, of) == signed(signer, of)
    assert signed(sign.Signer(KEY, "testnet", presign=1), of).r != signed(signer, of).r


def test_an_empty_pool_signs_by_rfc_6979_and_counts_it() -> None:
    signer = sign.Signer(KEY, "testnet", presign=3)
    found = [signed(signer) for _ in range(5)]
    assert (signer.presigned, signer.presign_misses) == (0, 2)
    assert [each == rfc6979(each.digest) for each in found] == [False, False, False, True, True]
    assert [signer.refill(2), signer.presigned, signer.refill(), signer.refill(), signer.presigned] == [2, 2, 1, 0, 3]
    found += drain(signer)
    assert_no_r_twice(found)
    assert signer.presign_misses == 2


@pytest.mark.parametrize("wrong", [-1, 10_001, True, "3", 1.5, None])
def test_presign_and_limit_are_bounded(wrong: object) -> None:
    with pytest.raises(ConfigError, match="presign must be an int from 0 to 10000"):
        sign.Signer(KEY, "testnet", presign=wrong)  # type: ignore[arg-type]
    if wrong is not None:
        with pytest.raises(ConfigError, match="limit must be an int"):
            sign.Signer(KEY, "testnet", presign=1).refill(wrong)  # type: ignore[arg-type]


def test_a_closed_signer_has_no_nonces_and_signs_nothing() -> None:
    signer = sign.Signer(KEY, "testnet", presign=5)
    signer.close()
    signer.close()
    for use in (lambda: signer.sign(ORDER, 1), lambda: signed(signer), signer.refill):
        with pytest.raises(Closed):
            use()
    assert (signer.presigned, signer.presign_misses, signer.presign_guards) == (0, 0, ())


@pytest.mark.parametrize("presign", [0, 4])
def test_nothing_made_with_one_key_meets_another(presign: int) -> None:
    signer = sign.Signer(hashlib.sha256(b"another").digest(), "testnet", presign=4)
    signer.__init__(KEY, "testnet", presign=presign)  # type: ignore[misc]
    assert signer.presigned == presign
    for _ in range(6):
        signed(signer).check()
    with pytest.raises(ConfigError):
        signer.__init__(b"short", "testnet", presign=presign)  # type: ignore[misc]
    with pytest.raises(Closed):
        signed(signer)


# --- faults between taking and finishing ---------------------------------------------------------------------------


class Fault(Exception):
    pass


def raising(error: type[BaseException]) -> Callable[[], object]:
    def fault() -> object:
        raise error

    return fault


@pytest.mark.parametrize("error", [Fault, MemoryError, KeyboardInterrupt])
def test_an_exception_while_an_entry_is_in_hand_costs_the_entry(error: type[BaseException]) -> None:
    signer = sign.Signer(KEY, "testnet", presign=50)
    for left in range(49, 24, -1):
        oneshot._inject(raising(error))
        with pytest.raises(error):
            signer.sign(ORDER, 1)
        assert signer.presigned == left
    found = drain(signer)
    assert len(found) == 25
    assert_no_r_twice(found)
    assert signer.refill() == 50
    assert_no_r_twice(found + drain(signer))


def test_a_digest_that_raises_comes_before_an_entry_is_taken() -> None:
    class Nonsense(dict[str, object]):
        def items(self) -> None:  # type: ignore[override]
            raise Fault

    signer = sign.Signer(KEY, "testnet", presign=5)
    for what, nonce in ((Nonsense(type="noop"), 1), ({"type": "noop", "x": 1.5}, 1), (ORDER, -1)):
        with pytest.raises((Fault, ConfigError)):
            signer.sign(what, nonce)
    with pytest.raises(ConfigError):
        signer._sign_digest(b"short")
    assert signer.presigned == 5
    assert_no_r_twice(drain(signer))


def test_refused_arithmetic_costs_the_entry_and_rfc_6979_signs() -> None:
    signer = sign.Signer(KEY, "testnet", presign=20)
    found = []
    for i in range(10):
        oneshot._inject(lambda: True)
        found.append(signed(signer))
        assert found[-1] == rfc6979(found[-1].digest)
        assert (signer.presigned, signer.presign_misses) == (19 - i, 1 + i)
    assert_no_r_twice(found + drain(signer))


def test_memory_that_runs_out_anywhere_in_sign_costs_at_most_the_entry() -> None:
    testcapi = pytest.importorskip("_testcapi")
    signer = sign.Signer(KEY, "testnet", presign=400)
    found, failed = [], 0
    for nth in range(200):
        before = signer.presigned
        done = None
        testcapi.set_nomemory(nth % 40, nth % 40 + 1)
        try:
            done = signer.sign(ORDER, nth)
        except MemoryError:
            failed += 1
        finally:
            testcapi.remove_mem_hooks()
        assert before - signer.presigned in ((1,) if done else (0, 1))
        if done:
            found.append(Signature(sign.hash_of(ORDER, nth, None, None, "testnet")[1], done.r, done.s, done.v))
            found[-1].check()
    assert failed
    assert found
    assert_no_r_twice(found + drain(signer))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer")
def test_signals_that_sign_with_the_same_signer_share_no_nonce() -> None:
    signer = sign.Signer(KEY, "testnet", presign=5000)
    inside: list[Signature] = []
    outside: list[Signature] = []

    def handler(number: int, frame: object) -> None:
        inside.append(signed(signer))
        signer.refill(1)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        while len(outside) < 3000 or len(inside) < 20:
            outside.append(signed(signer))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert_no_r_twice(inside + outside)


def test_a_signal_whose_handler_raises_costs_the_entry() -> None:
    signer = sign.Signer(KEY, "testnet", presign=10)
    before = signal.signal(signal.SIGINT, lambda number, frame: raising(Fault)())
    try:
        oneshot._inject(lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Fault):
            signed(signer)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signer.presigned == 9
    assert_no_r_twice(drain(signer))


def test_signing_refilling_and_closing_while_an_entry_is_in_hand() -> None:
    signer = sign.Signer(KEY, "testnet", presign=10)
    inside: list[Signature] = []
    oneshot._inject(lambda: inside.append(signed(signer)))
    found = [signed(signer)]
    assert signer.presigned == 8
    oneshot._inject(lambda: signer.refill() > 10)
    found.append(signed(signer))
    assert signer.presigned == 10
    assert_no_r_twice(inside + found + drain(signer))
    signer.refill()
    oneshot._inject(signer.close)
    with pytest.raises(Closed):
        signed(signer)


# --- forks ------------------------------------------------------------------------------------------------------


def raw_fork() -> int:
    """A fork that neither Python nor libc knows of."""
    number = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
    if sys.platform != "linux" or number is None:
        pytest.skip("no raw fork known for this machine")
    zero = ctypes.c_long(0)
    child = ctypes.PyDLL(None).syscall(ctypes.c_long(number), ctypes.c_long(signal.SIGCHLD), zero, zero, zero, zero)
    assert child >= 0
    return int(child)


@pytest.fixture(params=["os.fork", "raw fork"])
def fork(request: pytest.FixtureRequest) -> Callable[[], int]:
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    return os.fork if request.param == "os.fork" else raw_fork


@pytest.fixture(params=["wiped on fork", "by process"])
def guard(request: pytest.FixtureRequest) -> str:
    oneshot._guard_by_process(request.param == "by process")
    if request.param == "wiped on fork" and sys.platform != "linux":
        pytest.skip("pages cannot be wiped on fork")
    return str(request.param)


class Reports:
    """What a child found, sent home through a pipe: one report each, or why there is none."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def leave(self, work: Callable[[], list[Signature]]) -> None:
        """In a child: work, report, and be gone without a word of pytest's."""
        try:
            line = repr([(each.digest, each.r, each.s, each.v) for each in work()])
        except BaseException as exc:
            line = repr(repr(exc))
        os.write(self._write, line.encode() + b"\n")
        os._exit(0)

    def collect(self, child: int) -> list[Signature]:
        assert os.waitpid(child, 0)[1] == 0
        os.close(self._write)
        with os.fdopen(self._read, "rb") as file:
            reports = [eval(line) for line in file]
        assert all(isinstance(report, list) for report in reports), reports
        return [Signature(*each) for report in reports for each in report]


def test_a_child_starts_with_an_empty_pool_and_shares_no_nonce(fork: Callable[[], int], guard: str) -> None:
    signer = sign.Signer(KEY, "testnet", presign=30)
    assert ("wiped on fork" in signer.presign_guards) is (guard == "wiped on fork")
    found = [signed(signer) for _ in range(5)]
    reports = Reports()

    def work() -> list[Signature]:
        own = [signed(signer) for _ in range(5)]
        assert (signer.presigned, signer.presign_misses) == (0, 5)
        assert all(each == rfc6979(each.digest) for each in own)
        assert signer.refill() == 30
        grandchild = fork()
        if grandchild == 0:
            reports.leave(lambda: [signed(signer) for _ in range(40)])
        own += drain(signer)
        os.waitpid(grandchild, 0)
        return own

    child = fork()
    if child == 0:
        reports.leave(work)
    found += drain(signer)
    assert len(found) == 30
    others = reports.collect(child)
    assert len(others) == 35 + 40
    for each in found + others:
        each.check()
    assert_no_r_twice(found + others)


def test_a_child_that_refills_first_shares_no_nonce(fork: Callable[[], int], guard: str) -> None:
    signer = sign.Signer(KEY, "testnet", presign=10)
    for _ in range(3):
        reports = Reports()
        child = fork()
        if child == 0:
            reports.leave(lambda: drain(signer) if signer.refill() == 10 else [])
        found = drain(signer)
        others = reports.collect(child)
        assert len(found) == len(others) == 10
        assert_no_r_twice(found + others)
        signer.refill()


def test_a_fork_while_an_entry_is_in_hand_leaves_it_to_the_parent(fork: Callable[[], int], guard: str) -> None:
    signer = sign.Signer(KEY, "testnet", presign=10)
    for refilled in (False, True):
        reports = Reports()
        child = -1

        def fault() -> None:
            nonlocal child
            child = fork()
            if child == 0 and refilled:  # noqa: B023
                signer.refill()

        oneshot._inject(fault)
        one = signed(signer)
        if child == 0:
            reports.leave(lambda: [one, *drain(signer)])  # noqa: B023
        found = [one, *drain(signer)]
        others = reports.collect(child)
        assert len(others) == (11 if refilled else 1)
        assert others[0] == rfc6979(one.digest) != one
        for each in found + others:
            each.check()
        assert_no_r_twice(found + others)
        signer.refill()


# --- threads ----------------------------------------------------------------------------------------------------


def test_threads_that_share_a_signer_share_no_nonce() -> None:
    signer = sign.Signer(KEY, "testnet", presign=2000)
    found: list[list[Signature]] = [[], []]
    interval = sys.getswitchinterval()
    done = threading.Event()

    def work(own: list[Signature]) -> None:
        own.extend(signed(signer, hashlib.sha256(b"%d %d" % (id(own), i)).digest()) for i in range(3000))

    def refill() -> None:
        while not done.is_set():
            signer.refill(3)

    threads = [threading.Thread(target=work, args=(own,)) for own in found]
    refiller = threading.Thread(target=refill)
    sys.setswitchinterval(1e-6)
    try:
        for thread in [refiller, *threads]:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        done.set()
        refiller.join()
        sys.setswitchinterval(interval)
    both = found[0] + found[1]
    assert len(both) == 6000
    assert_no_r_twice(both)
    for each in both[::20]:
        each.check()


def test_a_thread_that_signs_while_another_has_an_entry_in_hand_takes_another() -> None:
    signer = sign.Signer(KEY, "testnet", presign=10)
    other: list[Signature] = []

    def fault() -> None:
        thread = threading.Thread(target=lambda: other.extend(signed(signer) for _ in range(3)))
        thread.start()
        thread.join()

    oneshot._inject(fault)
    one = signed(signer)
    assert (len(other), signer.presigned) == (3, 6)
    for each in [one, *other]:
        each.check()
    assert_no_r_twice([one, *other, *drain(signer)])


# --- memory -----------------------------------------------------------------------------------------------------


@dataclass
class Area:
    start: int
    end: int
    flags: set[str]


def areas(process: int) -> list[Area]:
    """The writable memory of a process, and what the kernel says of it."""
    found: list[Area] = []
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line):
            found.append(Area(int(match[1], 16), int(match[2], 16), set()))
        elif line.startswith("VmFlags:"):
            found[-1].flags = set(line.split()[1:])
    return [area for area in found if {"rd", "wr"} <= area.flags]


@dataclass
class Entry:
    """What lay in the pool: all of it gives the key away."""

    r: bytes
    k_inverse: bytes
    r_d: bytes

    def secrets(self) -> list[bytes]:
        """As bytes of either order, so that libsecp256k1's own way to hold numbers is found too; and k itself."""
        k = pow(int.from_bytes(self.k_inverse, "big"), -1, N).to_bytes(32, "big")
        z = sign.hash_of({"type": "noop"}, 1, None, None, "testnet")[1]  # what VICTIM signs
        z_r_d = ((int.from_bytes(z, "big") + int.from_bytes(self.r_d, "big")) % N).to_bytes(32, "big")
        return [form for each in (self.k_inverse, self.r_d, k, z_r_d) for form in (each, each[::-1])]


class Memory:
    """The memory of a process as a debugger sees it."""

    def __init__(self, process: int) -> None:
        self._process = process

    def read(self, area: Area) -> bytes:
        with open(f"/proc/{self._process}/mem", "rb", buffering=0) as file:
            try:
                file.seek(area.start)
                return file.read(area.end - area.start)
            except (OSError, OverflowError):  # no memory behind the addresses: a device, a sanitizer's shadow
                return b""

    def pools(self) -> list[Area]:
        return [area for area in areas(self._process) if "wf" in area.flags]

    def entries(self, slots: int) -> list[Entry]:
        """All slots of the only pool, those already taken too."""
        (pool,) = self.pools()
        data = self.read(pool)
        assert not any(data[16:HEAD]), "k stays after an entry was made"
        assert not any(data[HEAD + slots * ENTRY :])
        cut = [data[HEAD + i * ENTRY : HEAD + (i + 1) * ENTRY] for i in range(slots)]
        return [Entry(each[:32], each[32:64], each[64:96]) for each in cut]

    def holds(self, wanted: list[Entry]) -> int:
        """How often a secret of these entries stands anywhere in the process."""
        secrets = [secret for entry in wanted for secret in entry.secrets()]
        small = [area for area in areas(self._process) if area.end - area.start < 1 << 28]
        # most of it are zeroes, and looking through them is what takes time
        kept = [self.read(area).replace(bytes(1024), b"") for area in small]
        return sum(data.count(secret) for data in kept for secret in secrets)


# Each word is carried out by a thread that then waits, so that what lies on its stack stays as signing left it.
VICTIM = """
import sys, threading
from hlconn._core import oneshot, sign
def fault():
    raise KeyError
def work():
    while True:
        go.acquire()
        try:
            signer.close() if word == "close" else signer.sign({"type": "noop"}, 1)
        except KeyError:
            pass
        done.release()
go, done = threading.Lock(), threading.Lock()
go.acquire(); done.acquire()
signer = sign.Signer(bytes.fromhex(sys.argv[1]), "testnet", presign=8)
threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    word = line.strip()
    oneshot._inject({"raise": fault, "refuse": lambda: True}.get(word))
    go.release(); done.acquire()
    print(word, flush=True)
"""


@linux
def test_nothing_of_a_taken_entry_stays_in_memory_and_nothing_of_any_after_close() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, KEY.hex()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as victim:
        assert victim.stdin is not None
        assert victim.stdout is not None

        def tell(word: str) -> None:
            victim.stdin.write(word + "\n")  # type: ignore[union-attr]
            assert victim.stdout.readline() == word + "\n"  # type: ignore[union-attr]

        assert victim.stdout.readline() == "ready\n"
        memory = Memory(victim.pid)
        try:
            entries = memory.entries(8)
        except PermissionError:
            victim.kill()
            pytest.skip("not allowed to read the memory of a child")
        for each in entries:  # the scan finds what it is meant to find
            r, k_inverse, r_d = (int.from_bytes(part, "big") for part in (each.r, each.k_inverse, each.r_d))
            assert r_d == r * D % N
            assert k_inverse
        assert memory.holds(entries) == 2 * 8
        (pool,) = memory.pools()
        assert {"wf", "dd"} <= pool.flags
        for taken, word in enumerate(["sign", "raise", "refuse", "sign", "sign"], start=1):
            tell(word)
            assert memory.holds(entries[8 - taken :]) == 0, word
            assert [any(each.r) for each in memory.entries(8)] == [True] * (8 - taken) + [False] * taken
        assert memory.holds(entries) == 2 * 3
        tell("close")
        assert memory.pools() == []
        assert memory.holds(entries) == 0
        victim.stdin.close()
    assert victim.returncode == 0


@linux
def test_a_dropped_signer_leaves_no_pages_behind() -> None:
    memory = Memory(os.getpid())
    before = len(memory.pools())
    signer = sign.Signer(KEY, "testnet", presign=100)
    assert len(memory.pools()) == before + 1
    assert {"wiped on fork", "not dumped"} <= set(signer.presign_guards)
    if not _build.SANITIZED:  # AddressSanitizer makes mlock do nothing
        assert ("locked" in signer.presign_guards) is ("lo" in memory.pools()[0].flags)
    del signer
    assert len(memory.pools()) == before


@linux
def test_a_digest_that_makes_the_sum_zero_is_signed_by_rfc_6979() -> None:
    signer = sign.Signer(KEY, "testnet", presign=1)
    (entry,) = Memory(os.getpid()).entries(1)
    of = (N - int.from_bytes(entry.r_d, "big")).to_bytes(32, "big")
    found = signed(signer, of)
    found.check()
    assert found == rfc6979(of)
    assert (signer.presigned, signer.presign_misses) == (0, 1)
