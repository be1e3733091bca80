"""The command line as a whole: what every subcommand has in common."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from hlconn.cli import main

TIMEOUT_S = 20.0


def hlconn(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hlconn", *args], capture_output=True, text=True, timeout=TIMEOUT_S)


def test_alone_it_prints_its_help_and_succeeds() -> None:
    result = hlconn()
    assert result.returncode == 0
    assert result.stderr == ""
    for command in ("demo", "replay", "sim"):
        assert f"\n    {command} " in result.stdout


def test_it_knows_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"hlconn {version('hlconn')}\n"


@pytest.mark.parametrize("command", ["demo", "replay", "sim"])
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"usage: hlconn {command} [-h]" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args",
    [
        ["buy"],
        ["replay"],
        ["demo", "--seconds", "1"],
        ["demo", "--seconds", "nan"],
        ["demo", "--seconds", "inf"],
        ["sim", "--port", "70000"],
        ["sim", "--speed", "fast"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(args)
    assert left.value.code == 2
    assert "usage: hlconn" in capsys.readouterr().err


def test_help_imports_no_command_and_no_event_loop() -> None:
    code = (
        "import sys; from hlconn.cli import main; main([]);"
        "heavy = {'hlconn.cli.demo', 'hlconn.cli.replay', 'hlconn.sim', 'asyncio', 'rich'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(sys.platform == "win32", reason="closed pipes are told otherwise there")
@pytest.mark.parametrize("args", [[], ["demo", "--seconds", "2"]])
def test_a_reader_that_goes_away_ends_it_quietly(args: list[str]) -> None:
    command = [sys.executable, "-m", "hlconn", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        # argparse itself swallows it when Python writes unbuffered
        assert process.wait(TIMEOUT_S) in ((141,) if args else (0, 141))
