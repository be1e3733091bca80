"""`hlconn sim` as a user runs it."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing

import pytest

from hlconn.cli import main

TIMEOUT_S = 10.0


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to one process there")
def test_it_prints_its_urls_answers_and_stops_on_ctrl_c_with_0() -> None:
    command = [sys.executable, "-m", "hlconn", "sim", "--coins", "DOGE,T9", "BTC", "--speed", "20", "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            lines: list[str] = []
            while not lines or lines[-1] != "Ctrl-C ends it.\n":
                lines.append(process.stdout.readline())
                assert lines[-1], process.stderr.read()
            text = "".join(lines)
            assert "DOGE, T9, BTC (seed 3, speed 20)" in text
            ws_port, http_port = (int(port) for port in re.findall(r"  (?:ws|http)://127\.0\.0\.1:(\d+)", text))
            with closing(http.client.HTTPConnection("127.0.0.1", http_port, timeout=TIMEOUT_S)) as connection:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", "/info", json.dumps({"type": "allMids"}), headers)
                assert set(json.loads(connection.getresponse().read())) == {"DOGE", "T9", "BTC"}
            socket.create_connection(("127.0.0.1", ws_port), TIMEOUT_S).close()
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT_S) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ws_port), TIMEOUT_S)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--coins", "NOPE"], "unknown coin 'NOPE'"),
        (["--coins", "BTC", "BTC"], "each once"),
        (["--coins", ","], "at least one coin"),
        (["--speed", "0"], "speed must be a positive number"),
        (["--speed", "nan"], "speed must be a positive number"),
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


@pytest.mark.parametrize("option", ["--port", "--http-port"])
def test_a_port_in_use_gets_one_sentence(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["sim", option, str(taken.getsockname()[1])]) == 1
    err = capsys.readouterr().err
    assert err.startswith("hlconn: ")
    assert err.count("\n") == 1
