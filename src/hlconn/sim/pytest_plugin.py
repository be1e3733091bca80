"""A `venue` fixture for the tests of your strategy.

    pytest_plugins = ["hlconn.sim.pytest_plugin"]              # in your conftest.py

    @pytest.mark.venue(seed=3, speed=20.0, coins=("BTC",))     # the options of `hlconn.sim.Venue`; all have defaults
    def test_it_buys(venue):
        account = venue.account(usdc=10_000)
        run_my_strategy(venue.url, account.key)
        assert venue.history.positions(account.address) == {"BTC": "0.01"}

It runs in a thread of its own, so that blocking and asyncio tests can use it alike, whatever plugin runs the latter.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import pytest

from .faults import Faults
from .streams import Pipe
from .venue import History, Venue, serve

__all__ = ["VenueThread", "venue"]

_TIMEOUT_S = 30.0


class VenueThread:
    """A venue on a loop in a thread of its own, as a context manager.

    Everything that `Venue` has is here too; its methods, and those of its `history`, are carried out in that thread.
    """

    def __init__(self, **options: Any) -> None:
        self._venue = Venue(**options)
        self._loop = asyncio.new_event_loop()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="hlconn.sim venue", daemon=True)
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.result(_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(_TIMEOUT_S)

    def __getattr__(self, name: str) -> Any:
        return _Elsewhere.of(getattr(self._venue, name), self._loop)

    def _run(self) -> None:
        async def main() -> None:
            self._task = asyncio.current_task()
            try:
                await serve(self._venue, lambda venue: self._ready.set_result(None))
            except asyncio.CancelledError:
                pass
            except BaseException as exc:
                self._ready.set_exception(exc)

        try:
            self._loop.run_until_complete(main())
        finally:
            self._loop.close()


class _Elsewhere:
    """Something whose methods are to be called on another thread's loop."""

    __slots__ = ("_loop", "_target")

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target, self._loop = target, loop

    @classmethod
    def of(cls, value: Any, loop: asyncio.AbstractEventLoop) -> Any:
        return cls(value, loop) if callable(value) or isinstance(value, (Faults, History, Pipe)) else value

    def __getattr__(self, name: str) -> Any:
        return self.of(getattr(self._target, name), self._loop)

    def __setattr__(self, name: str, value: Any) -> None:
        """A pipe's callbacks: they are called in the venue's thread."""
        if name in self.__slots__:
            super().__setattr__(name, value)
        else:
            setattr(self._target, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            made = self._target(*args, **kwargs)
            return self.of(await made if inspect.isawaitable(made) else made, self._loop)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(_TIMEOUT_S)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "venue(**options): options of hlconn.sim.Venue for the `venue` fixture")


@pytest.fixture
def venue(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A running venue, fresh for each test. Its options come from `@pytest.mark.venue(...)`."""
    marker = request.node.get_closest_marker("venue")
    with VenueThread(**(marker.kwargs if marker is not None else {})) as running:
        yield running
