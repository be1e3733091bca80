"""One question to the venue's /info: within the budget, asked again where that may help, and once for all who ask.

No I/O of its own: how a body is sent, the budget, the time that passes and the dice come from outside.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec
import orjson

from ..config import SessionConfig
from ..errors import Closed, LinkDown

__all__ = ["Limiter", "Queries", "Reply"]

_TOO_MANY = 429
#: A server's error of these kinds passes. One of 500 may: it is also what odd parameters get, so it is tried once more.
_PASSES = (502, 503, 504)
#: Without a word about how long, the budget of a minute takes longer to come back than a server takes to restart.
_TOO_MANY_FACTOR = 4.0

_ROWS = msgspec.json.Decoder(list[msgspec.Raw])


class Reply(NamedTuple):
    """An answer over HTTP. retry_after_s: what its header Retry-After says, None without one."""

    status: int
    body: bytes
    retry_after_s: float | None = None


class Limiter(Protocol):
    """What keeps requests within the venue's budget. request: the body of a query, as a mapping."""

    async def wait(self, request: Mapping[str, Any]) -> None:
        """Return when there is room for it, and count it."""

    def take(self, request: Mapping[str, Any]) -> None:
        """Count it; Throttled when there is no room for it."""

    def answered(self, request: Mapping[str, Any], rows: int) -> None:
        """It is over, and brought so many rows: some types cost more the more they bring. 0 when it brought nothing,
        or broke, or nobody waits for it any more. Called once for each that was counted, unless `refused` was."""

    def refused(self, retry_after_s: float | None) -> None:
        """The venue answered one of those that were counted with 429."""


class _Flight:
    """A question under way, and how many wait for it."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[tuple[int, bytes]]) -> None:
        self.task, self.waiting = task, 0


class Queries:
    """Questions to one venue.

    send(body): one POST to /info. LinkDown, TimeoutError and OSError are what may go better the next time.
    sent, retries, joined: counters.
    """

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[Reply]],
        config: SessionConfig,
        limiter: Limiter | None = None,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._send, self._config, self.limiter, self._sleep = send, config, limiter, sleep
        self._rng = rng or random.Random()
        self._flights: dict[tuple[bytes, bool], _Flight] = {}
        self._closed = False
        self.sent = self.retries = self.joined = 0

    async def ask(
        self, request: Mapping[str, Any], *, join: bool = False, wait: bool = True, tries: int | None = None
    ) -> tuple[int, bytes]:
        """The status and the body of the last answer: 200, or what no further try makes better.

        join: take the answer of the same question if one is under way. That answer may be from before this call: who
        wants to know what is true from now on does not join. wait: until the budget has room; else Throttled.
        tries: at most so often; by default `SessionConfig.query_tries`.

        Raises what the last try raised, when no try was answered. A caller that is cancelled takes nothing away from
        others who joined.
        """
        if self._closed:
            raise Closed("the session was closed")
        tries = self._config.query_tries if tries is None else tries
        if not join:
            return await self._answer(request, wait, tries)
        key = (orjson.dumps(request, option=orjson.OPT_SORT_KEYS), wait)
        flight = self._flights.get(key)
        if flight is None or flight.task.done():
            task = asyncio.create_task(self._answer(request, wait, tries), name=f"hlconn query {request.get('type')}")
            flight = self._flights[key] = _Flight(task)
        else:
            self.joined += 1
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if self._closed and flight.task.cancelled():
                raise Closed("the session was closed") from None
            raise
        finally:
            flight.waiting -= 1
            if flight.task.done() or not flight.waiting:
                flight.task.cancel()
                if self._flights.get(key) is flight:  # from here on nobody joins what is being cancelled
                    del self._flights[key]

    async def close(self) -> None:
        """End what was joined and is under way: for whoever waits for it, and for later questions, it is `Closed`."""
        self._closed = True
        tasks = [flight.task for flight in self._flights.values()]
        self._flights.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, request: Mapping[str, Any], wait: bool, tries: int) -> tuple[int, bytes]:
        body, limiter = orjson.dumps(request), self.limiter
        for again in range(tries):
            if limiter is not None and wait:
                await limiter.wait(request)
            elif limiter is not None:
                limiter.take(request)
            self.sent += 1
            self.retries += again > 0
            last = again + 1 >= tries
            least_s, factor, rows, refused = 0.0, 1.0, 0, False
            try:
                status, found, retry_after_s = await self._send(body)
                if status == _TOO_MANY:
                    refused = True
                    least_s, factor = retry_after_s or 0.0, _TOO_MANY_FACTOR
                    last = last or not wait or least_s > self._config.query_patience_s
                    if limiter is not None:
                        limiter.refused(retry_after_s)
                elif status == 500:
                    last = last or again > 0
                elif status not in _PASSES:
                    last = True
                    rows = _rows(found) if status == 200 and limiter is not None else 0
                if last:
                    return status, found
            except (LinkDown, TimeoutError, OSError):
                if last:
                    raise
            finally:
                if limiter is not None and not refused:
                    limiter.answered(request, rows)
            await self._sleep(max(least_s, self._backoff_s(again) * factor))
        raise AssertionError("at least one try")

    def _backoff_s(self, again: int) -> float:
        """Half of it is sure: a venue that comes back must not meet everybody at once, nor at once."""
        config = self._config
        most_s = min(config.query_retry_max_s, config.query_retry_min_s * 2.0 ** min(again, 32))
        return most_s * (0.5 + 0.5 * self._rng.random())


def _rows(body: bytes) -> int:
    """How many rows an answer has: those of its list, one for what is none."""
    if body.lstrip()[:1] != b"[":
        return 1
    try:
        return len(_ROWS.decode(body))
    except msgspec.DecodeError:
        return 0
