"""`hlconn demo` as a user runs it, and what it does when it has to fail."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import hlconn.cli._demo_orders as _demo_orders
import hlconn.cli.demo as demo
from hlconn import Book
from hlconn.cli import main
from hlconn.cli._venue_process import VenueProcess

TIMEOUT_S = 20.0
PLAIN = [sys.executable, "-m", "hlconn", "demo"]
WITHOUT_RICH = [
    sys.executable,
    "-c",
    "import sys; sys.modules['rich'] = None; from hlconn.cli import main; sys.exit(main())",
    "demo",
]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals to one process")


def summary(text: str) -> dict[str, str]:
    """The lines of the summary by their first word."""
    lines = [line.split(maxsplit=1) for line in text.partition("Summary")[2].splitlines() if line.strip()]
    return dict(lines)


def assert_proves_its_books(text: str) -> None:
    found = summary(text)
    assert int(found["messages"].split()[0].replace(",", "")) > 50
    assert int(found["reconnects"]) >= 1
    compared = int(found["compared"].split()[0])
    equal = re.fullmatch(
        r"(\d+) of (\d+) \(before the cut BTC (\d+), ETH (\d+); after BTC (\d+), ETH (\d+)\)", found["equal"]
    )
    assert equal is not None
    assert int(equal[1]) == int(equal[2]) == compared == sum(int(equal[i]) for i in range(3, 7))
    assert all(int(equal[i]) > 0 for i in range(3, 7))
    assert_traded(text)
    assert re.match(r"received to callback( +[0-9.,]+ us){3} +[0-9,]+$", found["frame"])


def assert_traded(text: str) -> None:
    """Placed, modified by oid to another price, canceled; filled both ways; and nothing was left."""
    told = re.search(
        r"orders      order (\d+) placed at (\d+), modified by oid to (\d+), canceled\n"
        r" +bought 0\.01 BTC at [0-9.]+, sold 0\.01 at [0-9.]+\n"
        r" +(\d+) fills? add up, no order and no position is left\n"
        r"  answered    5 signed actions",
        text.partition("Summary")[2],
    )
    assert told is not None
    assert int(told[1]) > 1 << 32
    assert int(told[2]) < int(told[3])
    assert int(told[4]) >= 2


@pytest.mark.parametrize("command", [PLAIN, WITHOUT_RICH], ids=["as installed", "without rich"])
def test_in_a_pipe_it_prints_plain_lines_and_proves_its_books(command: list[str]) -> None:
    result = subprocess.run([*command, "--seconds", "2"], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert_proves_its_books(result.stdout)
    price = r"[0-9,.]+ / [0-9,.]+"
    assert re.search(
        rf"\n  1\.\d s   BTC {price}(?: STALE)?   ETH {price}(?: STALE)?   \d+ messages/s\n", result.stdout
    )
    assert "connection lost (" in result.stdout
    assert "connected again after " in result.stdout


@pytest.mark.parametrize("without_rich", [False, True])
def test_on_a_terminal_it_draws_a_ladder_of_both_coins(without_rich: bool) -> None:
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    if not without_rich:
        pytest.importorskip("rich")
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    command = [*(WITHOUT_RICH if without_rich else PLAIN), "--seconds", "2"]
    pieces = []
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        with suppress(OSError):  # how a terminal without a program says that it ended
            while piece := os.read(ours, 1 << 16):
                pieces.append(piece)
        assert process.wait(TIMEOUT_S) == 0
    os.close(ours)
    drawn = b"".join(pieces).decode().replace("\r\n", "\n")
    assert_proves_its_books(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn))
    assert ("╭" in drawn) == (not without_rich)
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l"), "the cursor is shown again"
    # one picture: everything between two titles
    pictures = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.partition("Summary")[0]).split("hlconn demo ")
    assert len(pictures) > 5
    picture = pictures[-1]
    assert re.search(r"BTC +(live|STALE: ).*ETH +(live|STALE: )", picture)
    asks, bids = picture.partition("bids")[::2]
    level = r"\b106,\d{3}\b.*\b3,4\d\d\.\d\b"
    for side in (asks, bids):
        assert len(re.findall(level, side)) >= 5
    prices = [int(text.replace(",", "")) for text in re.findall(r"\b106,\d{3}\b", picture.partition("messages")[0])]
    assert len(prices) >= 12
    assert prices == sorted(prices, reverse=True)
    assert "spread" in picture
    assert "level by level" in picture


@contextmanager
def running() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A long demo whose ladder is moving, and the port of its venue."""
    with subprocess.Popen(
        [*PLAIN, "--seconds", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            text = ""
            while "messages/s" not in text:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                text += line
            found = re.search(r"ws://127\.0\.0\.1:(\d+)/ws", text)
            assert found is not None
            yield process, int(found[1])
        finally:
            process.kill()


def assert_port_closes(port: int) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), TIMEOUT_S).close()
        except OSError:
            return
        time.sleep(0.01)
    pytest.fail("the venue outlived the demo")


@posix
def test_ctrl_c_ends_it_and_its_venue() -> None:
    with running() as (process, port):
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert_port_closes(port)


def test_its_venue_does_not_outlive_it_however_it_ends() -> None:
    with running() as (process, port):
        process.kill()
        process.wait(TIMEOUT_S)
        assert_port_closes(port)


def test_a_book_that_differs_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = demo._Referee._venue_book

    def with_another_size(self: Any, coin: str, time_ms: int) -> Any:
        sides = honest(self, coin, time_ms)
        if coin == "ETH":
            px, sz, n = sides[1][0]
            sides[1][0] = (px, sz + 0.0001, n)
        return sides

    monkeypatch.setattr(demo._Referee, "_venue_book", with_another_size)
    assert main(["demo", "--seconds", "2"]) == 1
    out, err = capsys.readouterr()
    assert re.match(
        r"hlconn: \d+ of \d+ books differ from the venue's\. The first: ETH at \d+ ms, newest feed \w+, ask level 1: "
        r"\(px, sz, n\) is \(.*\) here and \(.*\) at the venue\n$",
        err,
    )
    equal, of = re.match(r"(\d+) of (\d+)", summary(out)["equal"]).groups()  # type: ignore[union-attr]
    assert 0 < int(equal) < int(of)


def test_an_order_that_the_venue_answers_otherwise_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # too small for the venue: 0.00001 BTC is about a dollar
    monkeypatch.setattr(_demo_orders, "_SZ", "0.00001")
    assert main(["demo", "--seconds", "2"]) == 1
    err = capsys.readouterr().err
    assert re.match(r"hlconn: place: expected Resting, the venue's answer means Rejected\(.*MIN_NOTIONAL", err)


def test_a_demo_that_compared_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(demo._Referee, "compare", lambda self, samples: None)
    assert main(["demo", "--seconds", "2"]) == 1
    assert "nothing is proved" in capsys.readouterr().err


def test_a_venue_that_dies_gets_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(VenueProcess, "cut", lambda self: self._process.kill())
    assert main(["demo", "--seconds", "2"]) == 1
    err = capsys.readouterr().err
    assert re.match("hlconn: the venue('s process ended too early| does not answer any more)", err.splitlines()[-1])


def test_a_venue_that_cannot_start_gets_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_COINS", ("NOPE",))
    assert main(["demo", "--seconds", "2"]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == "hlconn: the venue's process ended at its start, with exit code 1"


LEVELS = '{"px":"%d.5","sz":"0.25","n":3}'


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("at", [0, 4, 19])
@pytest.mark.parametrize("field", [0, 1, 2])
@pytest.mark.parametrize(("feed", "levels"), [("bbo", 1), ("fast", 5), ("slow", None)])
def test_the_referee_looks_at_every_level_that_the_newest_feed_vouches_for(
    side: int, at: int, field: int, feed: str, levels: int | None
) -> None:
    book = Book("BTC")
    sides = [",".join(LEVELS % px for px in pxs) for pxs in (range(100, 80, -1), range(101, 121))]
    book.apply(f'{{"channel":"l2Book","data":{{"coin":"BTC","time":1,"levels":[[{sides[0]}],[{sides[1]}]]}}}}'.encode())
    truth: Any = [[[px + 0.5, 0.25, 3] for px in pxs] for pxs in (range(100, 70, -1), range(101, 131))]
    truth[side][at][field] += 1
    truth = [[tuple(level) for level in levels] for levels in truth]
    referee = demo._Referee("http://127.0.0.1:1")
    found = referee._difference(demo._Sample(book.copy(), feed, levels, False), truth)
    if at < (levels or 20):
        assert found is not None
        assert f"{('bid', 'ask')[side]} level {at + 1}: " in found
    else:
        assert found is None


@pytest.mark.parametrize(("ours", "theirs"), [(2, 3), (3, 2)])
def test_the_referee_sees_levels_that_one_side_lacks(ours: int, theirs: int) -> None:
    book = Book("BTC")
    bids = ",".join(LEVELS % px for px in range(100, 100 - ours, -1))
    book.apply(f'{{"channel":"l2Book","data":{{"coin":"BTC","time":1,"levels":[[{bids}],[]]}}}}'.encode())
    truth: Any = [[(px + 0.5, 0.25, 3) for px in range(100, 100 - theirs, -1)], []]
    found = demo._Referee("http://127.0.0.1:1")._difference(demo._Sample(book.copy(), "slow", None, False), truth)
    assert found is not None
    assert "bid level 3: (px, sz, n) is " in found
    assert "nothing" in found
