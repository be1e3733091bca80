"""How one question to /info is asked: joined, within the budget, and again, on a made-up network and clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from hlconn import Closed, LinkDown, SessionConfig, Throttled
from hlconn.session.queries import Queries, Reply

MIDS = {"type": "allMids"}
GOOD = Reply(200, b'{"BTC":"1.0"}')


class Wire:
    """Answers from a script, the last one for ever. bodies: what was sent. slept: the pauses that were asked for."""

    def __init__(self, *script: Reply | Exception) -> None:
        self.script = list(script)
        self.bodies: list[bytes] = []
        self.slept: list[float] = []
        self.gate: asyncio.Event | None = None

    async def send(self, body: bytes) -> Reply:
        self.bodies.append(body)
        if self.gate is not None:
            await self.gate.wait()
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        await asyncio.sleep(0)

    def queries(self, limiter: Any = None, **settings: Any) -> Queries:
        return Queries(self.send, SessionConfig(**settings), limiter, sleep=self.sleep, rng=random.Random(1))


class Budget:
    """A limiter that writes down what it is told. room: how many more may be taken."""

    def __init__(self, room: int = 1_000) -> None:
        self.room = room
        self.told: list[tuple[Any, ...]] = []

    async def wait(self, request: Mapping[str, Any]) -> None:
        self.told.append(("wait", request["type"]))

    def take(self, request: Mapping[str, Any]) -> None:
        if not self.room:
            raise Throttled("no weight is left", 1.5)
        self.room -= 1
        self.told.append(("take", request["type"]))

    def answered(self, request: Mapping[str, Any], rows: int) -> None:
        self.told.append(("answered", rows))

    def refused(self, retry_after_s: float | None) -> None:
        self.told.append(("refused", retry_after_s))


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(bounded())


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(502, b"<html>"),
        Reply(503, b""),
        Reply(504, b""),
        Reply(429, b"null"),
        Reply(500, b"null"),
        LinkDown("refused"),
        ConnectionResetError("reset"),
        TimeoutError(),
    ],
    ids=repr,
)
def test_what_passes_is_asked_again_and_the_same(trouble: Reply | Exception) -> None:
    async def work() -> None:
        wire = Wire(trouble, GOOD)
        queries = wire.queries()
        assert await queries.ask(MIDS) == (200, GOOD.body)
        assert wire.bodies == [b'{"type":"allMids"}'] * 2
        assert (queries.sent, queries.retries, len(wire.slept)) == (2, 1, 1)

    run(work)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 415, 422])
def test_what_stays_wrong_is_not_asked_again(status: int) -> None:
    async def work() -> None:
        wire = Wire(Reply(status, b"no"), GOOD)
        assert await wire.queries().ask(MIDS) == (status, b"no")
        assert (len(wire.bodies), wire.slept) == (1, [])

    run(work)


def test_a_500_is_tried_twice_only_for_odd_parameters_get_it_too() -> None:
    async def work() -> None:
        wire = Wire(Reply(500, b"null"))
        assert await wire.queries().ask(MIDS) == (500, b"null")
        assert len(wire.bodies) == 2

    run(work)


def test_after_the_last_try_its_answer_or_its_error_comes_out() -> None:
    async def work() -> None:
        wire = Wire(Reply(502, b"out"))
        assert await wire.queries(query_tries=3).ask(MIDS) == (502, b"out")
        assert len(wire.bodies) == 3
        wire = Wire(ConnectionResetError("reset"))
        with pytest.raises(ConnectionResetError):
            await wire.queries(query_tries=3).ask(MIDS)
        assert len(wire.bodies) == 3
        assert await Wire(Reply(502, b"out")).queries().ask(MIDS, tries=1) == (502, b"out")

    run(work)


def test_an_error_of_our_own_is_not_asked_again() -> None:
    async def work() -> None:
        wire = Wire(ValueError("a bug"), GOOD)
        with pytest.raises(ValueError, match="a bug"):
            await wire.queries().ask(MIDS)
        assert len(wire.bodies) == 1

    run(work)


def test_pauses_grow_within_their_bounds_and_are_never_short() -> None:
    async def work() -> None:
        for trouble, factor in ((ConnectionResetError("reset"), 1.0), (Reply(429, b"null"), 4.0)):
            wire = Wire(trouble)
            queries = wire.queries(query_tries=9, query_retry_min_s=0.5, query_retry_max_s=8.0)
            if isinstance(trouble, Exception):
                with pytest.raises(ConnectionResetError):
                    await queries.ask(MIDS)
            else:
                await queries.ask(MIDS)
            most = [factor * min(8.0, 0.5 * 2**n) for n in range(8)]
            assert len(wire.slept) == len(most)
            for slept, bound in zip(wire.slept, most, strict=True):
                assert bound / 2 <= slept <= bound
            assert len(set(wire.slept)) == len(most), "there is jitter"

    run(work)


def test_a_429_is_waited_out_for_as_long_as_it_says_but_not_for_ever() -> None:
    async def work() -> None:
        wire = Wire(Reply(429, b"null", 31.0), GOOD)
        assert (await wire.queries().ask(MIDS))[0] == 200
        assert wire.slept == [31.0]
        wire = Wire(Reply(429, b"null", 3600.0), GOOD)
        assert (await wire.queries(query_patience_s=60.0).ask(MIDS))[0] == 429
        assert wire.slept == []

    run(work)


def test_the_limiter_is_asked_before_each_try_and_told_how_each_ended() -> None:
    async def work() -> None:
        budget = Budget()
        wire = Wire(Reply(429, b"null", 2.0), ConnectionResetError(), Reply(502, b""), Reply(200, b" [1,{},[3]]"))
        await wire.queries(budget).ask({"type": "userFills"})
        asked = ("wait", "userFills")
        assert budget.told == [
            *(asked, ("refused", 2.0)),
            *(asked, ("answered", 0)),
            *(asked, ("answered", 0)),
            *(asked, ("answered", 3)),
        ]
        assert await Wire(GOOD).queries(budget).ask(MIDS) == (200, GOOD.body)
        assert budget.told[-1] == ("answered", 1)

    run(work)


def test_without_waiting_a_full_budget_is_throttled_before_anything_is_sent_and_a_429_comes_out() -> None:
    async def work() -> None:
        budget, wire = Budget(room=1), Wire(Reply(429, b"null", 1.0), GOOD)
        queries = wire.queries(budget)
        assert (await queries.ask(MIDS, wait=False))[0] == 429
        with pytest.raises(Throttled) as raised:
            await queries.ask(MIDS, wait=False)
        assert raised.value.retry_after_s == 1.5
        assert (len(wire.bodies), wire.slept) == (1, [])

    run(work)


def test_the_same_question_under_way_is_sent_once_and_all_get_the_answer() -> None:
    async def work() -> None:
        wire = Wire(GOOD)
        wire.gate = asyncio.Event()
        queries = wire.queries()
        same = [{"type": "l2Book", "coin": "BTC"}, {"coin": "BTC", "type": "l2Book"}]
        tasks = [asyncio.create_task(queries.ask(same[n % 2], join=True)) for n in range(20)]
        tasks += [asyncio.create_task(queries.ask({"type": "l2Book", "coin": "ETH"}, join=True))]
        await asyncio.sleep(0)
        wire.gate.set()
        assert set(await asyncio.gather(*tasks)) == {(200, GOOD.body)}
        assert (len(wire.bodies), queries.sent, queries.joined) == (2, 2, 19)
        await queries.ask(same[0], join=True)
        assert len(wire.bodies) == 3, "what is over is not joined"

    run(work)


def test_who_does_not_join_has_an_answer_from_after_the_call() -> None:
    async def work() -> None:
        wire = Wire(GOOD)
        wire.gate = asyncio.Event()
        queries = wire.queries()
        tasks = [asyncio.create_task(queries.ask(MIDS, join=join)) for join in (True, False, False)]
        await asyncio.sleep(0)
        wire.gate.set()
        await asyncio.gather(*tasks)
        assert len(wire.bodies) == 3

    run(work)


def test_one_who_is_cancelled_takes_nothing_from_the_others_and_the_last_one_ends_it() -> None:
    async def work() -> None:
        wire = Wire(GOOD)
        wire.gate = asyncio.Event()
        queries = wire.queries()
        first, second, third = (asyncio.create_task(queries.ask(MIDS, join=True)) for _ in range(3))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        assert first.cancelled()
        wire.gate.set()
        assert await second == await third == (200, GOOD.body)

        wire.gate = asyncio.Event()
        alone = asyncio.create_task(queries.ask(MIDS, join=True))
        await asyncio.sleep(0)
        alone.cancel()
        late = asyncio.create_task(queries.ask(MIDS, join=True))  # must not join what is being cancelled
        await asyncio.sleep(0)
        wire.gate.set()
        assert await late == (200, GOOD.body)
        assert alone.cancelled()
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("hlconn query")] == []

    run(work)


def test_an_error_reaches_everybody_who_joined() -> None:
    async def work() -> None:
        wire = Wire(ConnectionResetError("reset"))
        queries = wire.queries(query_tries=2)
        tasks = [asyncio.create_task(queries.ask(MIDS, join=True)) for _ in range(3)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in found] == [ConnectionResetError] * 3
        assert len(wire.bodies) == 2

    run(work)


def test_the_limiter_hears_of_a_question_that_nobody_waits_for_any_more() -> None:
    async def work() -> None:
        budget, wire = Budget(), Wire(GOOD)
        wire.gate = asyncio.Event()
        task = asyncio.create_task(wire.queries(budget).ask(MIDS))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert budget.told == [("wait", "allMids"), ("answered", 0)]

    run(work)


def test_after_the_end_nothing_is_asked_and_what_was_under_way_is_closed() -> None:
    async def work() -> None:
        wire = Wire(GOOD)
        wire.gate = asyncio.Event()
        queries = wire.queries()
        task = asyncio.create_task(queries.ask(MIDS, join=True))
        await asyncio.sleep(0)
        await queries.close()
        with pytest.raises(Closed):
            await task
        with pytest.raises(Closed):
            await queries.ask(MIDS)

    run(work)
