"""The command line: one file per subcommand, imported when it is the one that was asked for.

A subcommand's module has `add_arguments(parser)` and `run(args) -> int`, the exit code. 1: it failed, and one
sentence on stderr says why. 2: it was called wrongly. 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import HlconnError

__all__ = ["CommandError", "main"]

_COMMANDS = {
    "demo": "start a made-up venue, connect to it, show live books and check them; needs no network",
    "replay": "play captured messages through the feed and say how fast it was",
    "sim": "run the made-up venue on its own, for your programs to connect to",
    "watch": "show one coin's live book, how old it is, and what was missed",
}

#: What a shell reports for a program that a closed pipe ended.
_CLOSED_PIPE = 141
_INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot go on. The text is the sentence that the user reads."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Wrong usage leaves by SystemExit(2), as argparse does."""
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # `hlconn ... | head`. The interpreter flushes stdout once more at its end, and must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE
    except (HlconnError, CommandError, OSError) as exc:
        print(f"hlconn: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(args: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="hlconn",
        description="See Hyperliquid from Python, with the hot path compiled. Begin with: hlconn demo",
    )
    parser.add_argument("--version", action="version", version=f"hlconn {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if args[:1] == [name]:
            module = importlib.import_module(f".{name}", __package__)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    if not args:
        parser.print_help()
        return 0
    parsed = parser.parse_args(args)
    code: int = parsed.run(parsed)
    return code
