"""`hlconn replay` over captures made here, and over real ones where they are at hand."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hlconn.cli.replay
from hlconn import Book
from hlconn.cli import main

TIMEOUT_S = 20.0
RECORDINGS = Path(__file__).parents[2].parent / "shared" / "fixtures" / "recordings"
CONTROLS = [
    b"Websocket connection established.",
    b'{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":{"type":"bbo","coin":"BTC"}}}',
    b'{"channel":"pong"}',
    b'{"channel":"error","data":"Invalid subscription {}"}',
]
COLUMNS = ("messages", "bytes", "out_of_order", "twins", "fallback", "unrouted", "errors")


def message(channel: str, data: Any) -> bytes:
    return json.dumps({"channel": channel, "data": data}, separators=(",", ":")).encode()


def l2_book(coin: str, step: int) -> bytes:
    sides = [
        [{"px": f"{px + step}.0", "sz": "0.5", "n": 2} for px in (first, second)]
        for first, second in ((100, 99), (101, 102))
    ]
    return message("l2Book", {"coin": coin, "time": 1_700_000_000_000 + step, "levels": sides})


def trades(coin: str, count: int) -> bytes:
    same = {"coin": coin, "side": "B", "px": "101.0", "sz": "0.1", "time": 1_700_000_000_000, "hash": "0x" + 64 * "0"}
    users = ["0x" + 40 * digit for digit in "ab"]
    return message("trades", [same | {"tid": tid, "users": users} for tid in range(count)])


CAPTURE = [
    *CONTROLS,
    *[l2_book(coin, step) for step in range(50) for coin in ("BTC", "kPEPE", "@107", "BTC")],
    l2_book("BTC", 3),  # late: changes nothing
    trades("BTC", 3),
    trades("ETH", 4),  # a coin with trades only
    message("trades", []),
]


def as_they_are(messages: list[bytes]) -> bytes:
    return b"\n".join(messages) + b"\n"


def with_blank_lines(messages: list[bytes]) -> bytes:
    return b"\r\n\r\n  ".join(messages)


def timestamped(messages: list[bytes]) -> bytes:
    return b"".join(b"%d %s\n" % (1_737_918_843_893_903_000 + i, m) for i, m in enumerate(messages))


def archived(messages: list[bytes]) -> bytes:
    head = b'{"time":"2024-01-01T12:00:01.138942031","ver_num":1,"raw":'
    return b"".join(head + m + b"}\n" if m.startswith(b"{") else m + b"\n" for m in messages)


def archived_with_spaces(messages: list[bytes]) -> bytes:
    head = b'{ "time": "2024-01-01T12:00:01.138942031", "ver_num": 1, "raw": '
    return b"".join(head + m + b" }\n" if m.startswith(b"{") else m + b"\n" for m in messages)


def table(out: str) -> dict[str, dict[str, int]]:
    """The counters as printed: {channel: {column: value}}."""
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("channel"))
    names = lines[at].split()[1:]
    assert sorted(names) == sorted(COLUMNS)
    rows = [line.split() for line in lines[at + 1 : at + 5]]
    return {row[0]: dict(zip(names, (int(v.replace(",", "")) for v in row[1:]), strict=True)) for row in rows}


def book_line(out: str, coin: str) -> list[str]:
    return next(line.split() for line in out.splitlines() if line.startswith(coin + " "))


def replay(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    code = main(["replay", *map(str, args)])
    out, err = capsys.readouterr()
    return code, out, err


def sentence(err: str) -> str:
    """The one line on stderr, without the program's name."""
    assert err.startswith("hlconn: ")
    assert err.count("\n") == 1
    return err.removeprefix("hlconn: ").rstrip("\n")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("form", [as_they_are, with_blank_lines, timestamped, archived, archived_with_spaces])
def test_every_form_gives_the_same_books_and_counters(
    form: Any, pack: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "capture"  # what it is, is told by its content
    path.write_bytes(pack(form(CAPTURE)))
    code, out, err = replay(capsys, path)
    assert (code, err) == (0, "")
    assert out.startswith(f"{len(CAPTURE)} messages, {sum(map(len, CAPTURE)):,} bytes, 7 trades\n")
    assert re.search(r"\n[0-9,]+ messages/s: .* in the feed, reading and unpacking files not counted\n", out)
    counters = table(out)
    assert counters["l2Book"]["messages"] == 201
    assert counters["l2Book"]["out_of_order"] == 1
    assert counters["trades"]["messages"] == 3
    assert counters["other"]["messages"] == len(CONTROLS)
    assert all(row["unrouted"] == row["errors"] == row["fallback"] == 0 for row in counters.values())
    assert "other: subscriptionResponse 1, pong 1, error 1\n" in out
    for coin in ("BTC", "kPEPE", "@107"):
        assert book_line(out, coin) == [coin, "2+2", "149", "150", "2023-11-14T22:13:20.049", "good"]
    assert "\nETH " not in out


def test_the_time_of_receipt_reaches_the_books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(book: Book) -> str:
        seen.append((book.coin, book.recv_ns))
        return ""

    monkeypatch.setattr(hlconn.cli.replay, "_book_line", note)
    path = tmp_path / "capture"
    path.write_bytes(timestamped([l2_book("BTC", 1), l2_book("ETH", 2)]))
    assert main(["replay", str(path)]) == 0
    assert seen == [("BTC", 1_737_918_843_893_903_000), ("ETH", 1_737_918_843_893_903_001)]


def test_files_are_played_one_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a", tmp_path / "b.gz"]
    paths[0].write_bytes(as_they_are([l2_book("BTC", 1)]))
    paths[1].write_bytes(gzip.compress(timestamped([l2_book("BTC", 2)])))
    code, out, _ = replay(capsys, *paths)
    assert code == 0
    assert out.startswith("2 messages")
    assert book_line(out, "BTC")[2] == "102"


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 8192])
def test_no_message_is_lost_between_batches(size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "capture"
    path.write_bytes(as_they_are([l2_book("BTC", step) for step in range(size)]))
    code, out, _ = replay(capsys, path)
    assert code == 0
    assert table(out)["l2Book"]["messages"] == size
    assert book_line(out, "BTC")[2].replace(",", "") == str(99 + size)


def test_only_the_coins_asked_for_are_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "capture"
    path.write_bytes(as_they_are(CAPTURE))
    code, out, _ = replay(capsys, path, "--coin", "kPEPE")
    assert code == 0
    assert table(out)["l2Book"]["unrouted"] == 151
    assert table(out)["trades"]["unrouted"] == 2
    assert "\nkPEPE " in out
    assert "\nBTC " not in out


def test_a_coin_that_does_not_occur_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "capture"
    path.write_bytes(as_they_are(CAPTURE))
    code, out, err = replay(capsys, path, "--coin", "KPEPE")
    assert code == 1
    assert out.startswith(f"{len(CAPTURE)} messages")
    assert sentence(err) == "no message of coin 'KPEPE' was found; coins found: @107, BTC, ETH, kPEPE"


@pytest.mark.parametrize("form", [as_they_are, timestamped, archived])
@pytest.mark.parametrize(
    "broken",
    [
        b"nonsense",
        b"[]",
        b'"text"',
        b"{}",
        b"\x00\xff",
        b'{"channel":"pong"',
        b'{"channel":"pong"}}',
        l2_book("BTC", 600)[:-30],
        l2_book("NEW", 600)[:-1],
    ],
)
def test_a_broken_line_ends_it_and_what_was_before_is_kept(
    form: Any, broken: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "capture"
    messages = [l2_book("BTC", step) for step in range(499)] + [broken] + [l2_book("BTC", 1000)] * 9
    path.write_bytes(form(messages))
    code, out, err = replay(capsys, path)
    assert code == 1
    assert out.startswith("499 messages")
    assert book_line(out, "BTC")[2] == "598"
    assert sum(row["errors"] for row in table(out).values()) == 1
    assert sentence(err).startswith(f"{path}, line 500: ")
    assert "found " in err


@pytest.mark.parametrize("stamp", [b"99999999999999999999", b"-5", b"1e9", str(2**63).encode()])
def test_a_time_of_receipt_that_is_none_is_a_broken_line(
    stamp: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "capture"
    path.write_bytes(timestamped([l2_book("BTC", 1)]) + b"\n" + stamp + b" " + l2_book("BTC", 2) + b"\n")
    code, out, err = replay(capsys, path)
    assert code == 1
    assert out.startswith("1 messages")
    assert sentence(err).startswith(f"{path}, line 3: ")


def test_a_line_without_an_end_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hlconn.cli.replay, "_MAX_LINE_BYTES", 1000)
    path = tmp_path / "capture"
    path.write_bytes(as_they_are([l2_book("BTC", 1)]) + b" " * 5000)
    code, out, err = replay(capsys, path)
    assert code == 1
    assert out.startswith("1 messages")
    assert sentence(err) == f"{path}, line 2: longer than 1,000 bytes"


def test_gz_that_was_cut_off_keeps_what_could_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [l2_book("BTC", step) for step in range(20_000)]
    packed = gzip.compress(as_they_are(lines))
    path = tmp_path / "capture.gz"
    path.write_bytes(packed[: len(packed) // 2])
    code, out, err = replay(capsys, path)
    assert code == 1
    found = re.fullmatch(re.escape(str(path)) + r": the gzip data was cut off after line (\d+)", sentence(err))
    assert found is not None
    read = int(found[1])
    assert 5_000 < read < 15_000
    assert out.startswith(f"{read:,} messages")
    assert table(out)["l2Book"] == {"messages": read, "bytes": sum(map(len, lines[:read]))} | dict.fromkeys(
        COLUMNS[2:], 0
    )


def test_gz_that_is_damaged_keeps_what_could_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "capture.gz"
    path.write_bytes(gzip.compress(as_they_are([l2_book("BTC", 1)])) + b"\x1f\x8b\x08\x00 no such block \xff\xff\xff")
    code, out, err = replay(capsys, path)
    assert code == 1
    assert out.startswith("1 messages")
    assert "the gzip data " in sentence(err)
    assert " after line 1" in sentence(err)


def test_what_cannot_be_opened_gets_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "blank").write_bytes(b"\n\n  \n")
    (tmp_path / "book.lz4").write_bytes(b"\x04\x22\x4d\x18rest")
    for name, said in (
        ("missing", "cannot be opened: No such file or directory"),
        (".", "is a directory; name the files in it"),
        ("empty", "there is no message in it"),
        ("blank", "there is no message in it"),
        ("book.lz4", "is packed with lz4; unpack it first"),
    ):
        code, out, err = replay(capsys, tmp_path / name)
        assert (code, out) == (1, "")
        assert sentence(err) == f"{tmp_path / name}: {said}"


def test_a_missing_second_file_keeps_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "capture"
    path.write_bytes(as_they_are([l2_book("BTC", 1)]))
    code, out, err = replay(capsys, path, tmp_path / "missing")
    assert code == 1
    assert out.startswith("1 messages")
    assert sentence(err).startswith(f"{tmp_path / 'missing'}: ")


@pytest.mark.parametrize("without_rich", [False, True])
def test_the_progress_bar_is_for_terminals_only(without_rich: bool, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    path = tmp_path / "capture.jsonl"
    path.write_bytes(as_they_are([l2_book("BTC", step) for step in range(5000)]))
    if not without_rich:
        pytest.importorskip("rich")
    hide = "sys.modules['rich'] = None; " if without_rich else ""
    code = f"import sys; {hide}from hlconn.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "replay", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (result.returncode, result.stderr) == (0, "")

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        assert process.stdout.read().startswith(b"5,000 messages")
        drawn = os.read(ours, 1 << 16).decode()
        assert process.wait(TIMEOUT_S) == 0
    os.close(ours)
    assert "capture.jsonl" in drawn
    assert "4,096 messages" in drawn
    assert "%" in drawn
    assert ("[###" in drawn) == without_rich


@pytest.mark.parametrize(
    ("name", "messages", "trade_count", "top"),
    [
        ("s3_archive_l2Book_BTC_2024-01-01_12h.jsonl.gz", 5587, 0, ["42,698", "42,699"]),
        ("ws_l2Book_trades_BTC_2025-01-26.recv_ns_json.txt.gz", 55, 64, ["105,050", "105,051"]),
    ],
)
def test_real_captures_are_read_to_their_end(
    name: str, messages: int, trade_count: int, top: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if not (RECORDINGS / name).exists():
        pytest.skip("the recordings are not beside this checkout")
    code, out, err = replay(capsys, RECORDINGS / name)
    assert (code, err) == (0, "")
    assert re.match(rf"{messages:,} messages, [0-9,]+ bytes, {trade_count} trades\n", out)
    assert book_line(out, "BTC")[1:4] == ["20+20", *top]
    assert all(row["errors"] == row["unrouted"] == row["out_of_order"] == 0 for row in table(out).values())
