"""The demo's venue, in a process of its own: both ends of the pipe between them.

The child prints its endpoints and the key of an account with play money as one line of JSON, obeys "cut" lines on its
stdin, and ends when that pipe closes: however the parent dies, the child does not outlive it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import Self

from ..config import Endpoints, Network
from ..sim import Venue
from . import CommandError

__all__ = ["VenueProcess"]

_CUT = b"cut"
# The public venue's way to end a connection: a close frame with this code.
_CUT_CODE = 1000
_STOP_TIMEOUT_S = 5.0


class VenueProcess:
    """A venue in a child process, as a context manager. It is ready when the constructor returns.

    key: of an account with 10,000 of play money.
    """

    def __init__(self, coins: tuple[str, ...], seed: int, speed: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(seed), str(speed), *coins],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        try:
            line = self._stdout.readline()
            if not line:
                raise CommandError(f"the venue's process ended at its start, with exit code {self._process.wait()}")
            said = json.loads(line)
            self.key: str = said.pop("key")
            self.endpoints = Endpoints(**said, network=Network.LOCAL)
        except BaseException:  # Ctrl-C too: the process must not outlive us
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raise CommandError when the process has ended."""
        if self._process.poll() is not None:
            raise CommandError(f"the venue's process ended too early, with exit code {self._process.returncode}")

    def cut(self) -> None:
        """Have the venue end every connection."""
        with suppress(OSError):  # it has just ended: `check` will tell
            self._stdin.write(_CUT + b"\n")
            self._stdin.flush()

    def stop(self) -> None:
        """End the process: by asking, then by force. Can be called twice."""
        with suppress(OSError):  # it may be gone already, with something unread
            self._stdin.close()
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._stdout.close()


async def _serve(coins: tuple[str, ...], seed: int, speed: float) -> None:
    async with Venue(seed, speed, coins) as venue:
        account = venue.account(usdc=10_000)
        loop = asyncio.get_running_loop()

        def obey() -> None:
            for line in sys.stdin.buffer:
                if line.strip() == _CUT:
                    loop.call_soon_threadsafe(venue.cut, _CUT_CODE)

        endpoints = venue.endpoints
        said = {"http_url": endpoints.http_url, "ws_url": endpoints.ws_url, "key": account.key}
        print(json.dumps(said), flush=True)
        await asyncio.to_thread(obey)


if __name__ == "__main__":
    # Ctrl-C in a terminal reaches both processes; the parent decides what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve(tuple(sys.argv[3:]), int(sys.argv[1]), float(sys.argv[2])))
