"""streams.py: a bounded queue that is never silent about what it let go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from random import Random
from typing import Any, TypeVar

import pytest

from hlconn import Closed, ConfigError, Gap, Stream, StreamOverflow

_T = TypeVar("_T")


def run(work: Awaitable[_T]) -> _T:
    async def bounded() -> _T:
        async with asyncio.timeout(20):
            return await work

    return asyncio.run(bounded())


async def rest(stream: Stream[int]) -> list[Any]:
    """Everything up to the end."""
    return [each async for each in stream]


def filled(stream: Stream[int], *items: int) -> Stream[int]:
    for item in items:
        stream.put(item, item, item)
    return stream


def gap(from_ms: int, to_ms: int, *, proven: bool = False, dropped: int = 0, reason: str = "cut") -> Gap:
    return Gap("trades", "BTC", from_ms, to_ms, proven, reason, dropped)


def test_items_and_gaps_are_read_in_the_order_in_which_they_came() -> None:
    stream = filled(Stream("trades", "BTC", 10, "drop_oldest"), 1, 2)
    stream.gap(gap(2, 5, proven=True))
    filled(stream, 5).end()
    assert run(rest(stream)) == [1, 2, gap(2, 5, proven=True), 5]
    assert (stream.received, stream.dropped) == (3, 0)


def test_what_a_full_stream_drops_is_counted_and_stands_in_its_place_as_a_gap() -> None:
    stream = filled(Stream("trades", "BTC", 3, "drop_oldest"), *range(1, 8))
    assert len(stream) == 4
    assert stream.dropped == 4
    stream.end()
    assert run(rest(stream)) == [gap(1, 4, dropped=4, reason="the reader was too slow"), 5, 6, 7]


def test_a_gap_that_is_dropped_is_part_of_the_gap_that_tells_of_it() -> None:
    stream = filled(Stream("trades", "BTC", 2, "drop_oldest"), 1)
    stream.gap(gap(1, 9, proven=True))
    filled(stream, 9, 10, 11).end()
    assert run(rest(stream)) == [
        gap(1, 9, dropped=2, reason="the reader was too slow; cut; the reader was too slow"),
        10,
        11,
    ]


def test_nothing_is_lost_in_silence_whatever_the_reader_does() -> None:
    async def work(seed: int) -> None:
        rng = Random(seed)
        stream: Stream[int] = Stream("trades", "BTC", rng.randint(1, 5), "drop_oldest")
        got: list[Any] = []
        now = 0
        for _ in range(100):
            if rng.random() < 0.15:
                stream.gap(gap(now, now + 2))
                now += 2
            elif rng.random() < 0.6:
                now += 1
                stream.put(now, now, now)
            elif len(stream):
                got.append(await anext(stream))
            assert len(stream) <= stream.maxsize + 2
        stream.end()
        got += await rest(stream)
        items = [each for each in got if not isinstance(each, Gap)]
        gaps = [each for each in got if isinstance(each, Gap)]
        assert items == sorted(set(items))
        covered = {at for each in gaps for at in range(each.from_ms, each.to_ms + 1)}
        assert set(range(1, now + 1)) <= set(items) | covered
        assert sum(each.dropped for each in gaps) == stream.dropped
        order = [each.to_ms if isinstance(each, Gap) else each for each in got]
        assert order == sorted(order)

    async def every() -> None:
        for seed in range(300):
            await work(seed)

    run(every())


def test_conflated_items_leave_the_latest_and_every_gap_and_take_no_room() -> None:
    stream = filled(Stream("trades", "BTC", 1, "conflate"), 1, 2, 3)
    assert (len(stream), stream.conflated) == (1, 2)
    for at in range(4, 50):
        stream.gap(gap(at - 1, at, proven=True))
        filled(stream, at)
    assert len(stream) == 3
    stream.end()
    assert run(rest(stream)) == [3, gap(3, 49, proven=True), 49]
    assert stream.dropped == 0


def test_a_stream_that_must_not_drop_ends_with_an_error_after_what_it_holds() -> None:
    async def work() -> list[int]:
        left: list[str] = []
        stream = filled(Stream[int]("trades", "BTC", 2, "raise").bind(lambda: left.append("left")), 1, 2, 3, 4)
        assert left == ["left"]  # at once: nothing more is brought to it
        got = []
        with pytest.raises(StreamOverflow, match="not read for 2 items"):
            async for each in stream:
                got.append(each)  # noqa: PERF401
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        return got  # type: ignore[return-value]

    assert run(work()) == [1, 2]


def test_a_reader_waits_for_the_next_item_and_a_canceled_one_loses_nothing() -> None:
    async def work() -> None:
        stream: Stream[int] = Stream("trades", "BTC", 10, "drop_oldest")
        reader = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(ConfigError, match="somebody else reads"):
            await anext(stream)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        again = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        filled(stream, 1, 2)
        assert await again == 1
        assert await anext(stream) == 2
        last = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        stream.end(Closed("the end"))
        with pytest.raises(Closed):
            await last

    run(work())


def test_leaving_gives_the_subscription_back_once_and_forgets_what_is_there() -> None:
    async def work() -> None:
        left: list[int] = []
        async with Stream[int]("trades", "BTC", 10, "drop_oldest").bind(lambda: left.append(1)) as stream:
            filled(stream, 1, 2)
        stream.close()
        assert left == [1]
        filled(stream, 3)
        stream.gap(gap(1, 2))
        assert await rest(stream) == []
        assert repr(stream) == "<Stream of trades of BTC, ended: 0 to read, 0 dropped>"

    run(work())


@pytest.mark.parametrize(("maxsize", "overflow"), [(0, "raise"), (1.5, "raise"), (10, "drop"), (10, None)])
def test_settings_that_cannot_work_are_refused(maxsize: Any, overflow: Any) -> None:
    with pytest.raises(ConfigError):
        Stream("trades", "BTC", maxsize, overflow)
