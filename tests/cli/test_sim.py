"""`hlconn sim` as a user runs it."""

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hlconn.cli import main

TIMEOUT_S = 10.0


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`hlconn sim` with these options, and what it printed until it was ready."""
    command = [sys.executable, "-m", "hlconn", "sim", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            lines: list[str] = []
            while not lines or lines[-1] != "Ctrl-C ends it.\n":
                lines.append(process.stdout.readline())
                assert lines[-1], process.stderr.read()
            yield process, "".join(lines)
        finally:
            process.kill()


def port_of(text: str) -> int:
    ports = re.findall(r"  (?:wss?|https?)://127\.0\.0\.1:(\d+)", text)
    assert len(ports) == 2
    assert ports[0] == ports[1]
    return int(ports[0])


def ask(connection: http.client.HTTPConnection, **request: object) -> http.client.HTTPResponse:
    connection.request("POST", "/info", json.dumps(request), {"Content-Type": "application/json"})
    return connection.getresponse()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to one process there")
def test_it_prints_its_url_and_accounts_answers_and_stops_on_ctrl_c_with_0() -> None:
    options = ["--coins", "DOGE,T9", "BTC", "--speed", "20", "--seed", "3", "--accounts", "2", "--usdc", "250"]
    with running(*options) as (process, text):
        assert "DOGE, T9, BTC (seed 3, speed 20)" in text
        port = port_of(text)
        accounts = re.findall(r"  account    (0x[0-9a-f]{40})  key (0x[0-9a-f]{64})\n", text)
        assert len(set(accounts)) == 2
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as connection:
            assert set(json.loads(ask(connection, type="allMids").read())) == {"DOGE", "T9", "BTC"}
            state = json.loads(ask(connection, type="clearinghouseState", user=accounts[1][0]).read())
            assert state["withdrawable"] == "250.0"
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S)


def test_it_goes_wrong_as_its_plan_says(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('[[fault]]\nkind = "http_status"\nchannel = "info"\nstatus = 503\ncount = 1\n')
    with (
        running("--coins", "BTC", "--faults", str(plan)) as (_, text),
        closing(http.client.HTTPConnection("127.0.0.1", port_of(text), timeout=TIMEOUT_S)) as connection,
    ):
        for status in (503, 200):
            answer = ask(connection, type="meta")
            assert (answer.status, bool(answer.read())) == (status, True)


def test_it_speaks_tls_and_leaves_its_authority_in_a_file(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    with running("--coins", "BTC", "--tls", str(authority)) as (_, text):
        context = ssl.create_default_context(cafile=str(authority))
        connection = http.client.HTTPSConnection("127.0.0.1", port_of(text), timeout=TIMEOUT_S, context=context)
        with closing(connection):
            assert ask(connection, type="meta").status == 200


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--coins", "NOPE"], "unknown coin 'NOPE'"),
        (["--coins", "BTC", "BTC"], "each once"),
        (["--coins", ","], "at least one coin"),
        (["--speed", "0"], "speed must be a positive number"),
        (["--speed", "nan"], "speed must be a positive number"),
        (["--usdc", "-1"], "no positive number"),
        (["--faults", "/nowhere/plan.toml"], "No such file"),
    ],
)
def test_settings_that_cannot_work_get_one_sentence(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", *args]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hlconn: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_port_in_use_gets_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["sim", "--port", str(taken.getsockname()[1])]) == 1
    err = capsys.readouterr().err
    assert err.startswith("hlconn: ")
    assert err.count("\n") == 1
