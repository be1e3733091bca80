"""Who is polled when, on a clock of the test's: paces, the budget, and what counts."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable

import pytest

from hlconn import ConfigError
from hlconn.fallback import Began, Ended, Fallback, Poll, Target


def book(coin: str, every_s: float = 1.0, weight: int = 2) -> Target:
    return Target(("book", coin), {"type": "l2Book", "coin": coin}, weight, every_s)


def polls(fallback: Fallback, from_s: float, until_s: float, answer_s: float = 0.05) -> list[tuple[float, Hashable]]:
    """Every poll in that time, each answered after `answer_s`; woken when it says so and never else."""
    made: list[tuple[float, Hashable]] = []
    under_way: list[tuple[float, Poll]] = []
    now = from_s
    while True:
        for effect in fallback.tick(now):
            if isinstance(effect, Poll):
                made.append((now, effect.key))
                under_way.append((now + answer_s, effect))
        wake = fallback.wake_s()
        times = [due for due, _ in under_way] + ([] if wake is None else [wake])
        later = min(times, default=until_s + 1)
        if later > until_s:
            return made
        now = max(now, later)
        for entry in [entry for entry in under_way if entry[0] <= now]:
            under_way.remove(entry)
            fallback.answered(entry[1].key, entry[1].round, now)


def test_nothing_is_polled_while_it_is_served_or_only_just_down() -> None:
    fallback = Fallback(patience_s=2.0)
    fallback.watch(book("BTC"))
    assert (fallback.tick(0.0), fallback.wake_s()) == ([], None)
    fallback.down(("book", "BTC"), 10.0)
    assert (fallback.tick(11.9), fallback.wake_s()) == ([], 12.0)
    assert fallback.up(("book", "BTC")) == [], "nobody was told that it began"
    assert (fallback.tick(20.0), fallback.wake_s()) == ([], None)


def test_it_begins_polls_at_its_pace_and_ends_when_the_stream_is_back() -> None:
    fallback = Fallback(patience_s=2.0)
    target = book("BTC", every_s=1.5)
    fallback.watch(target)
    fallback.down(target.key, 10.0)
    assert fallback.tick(12.0) == [Began(target.key, 1.5), Poll(target.key, target.request, 1)]
    assert fallback.is_polled(target.key)
    assert fallback.answered(target.key, 1, 12.1)
    assert [now for now, _ in polls(fallback, 12.1, 20.0)] == [13.5, 15.0, 16.5, 18.0, 19.5]
    assert fallback.up(target.key) == [Ended(target.key)]
    assert not fallback.is_polled(target.key)
    assert fallback.up(target.key) == []
    assert polls(fallback, 20.0, 100.0) == []


def test_an_answer_from_before_the_stream_was_back_or_of_another_round_says_nothing() -> None:
    fallback = Fallback(patience_s=0.0)
    target = book("BTC")
    fallback.watch(target)
    fallback.down(target.key, 0.0)
    poll = fallback.tick(0.0)[-1]
    assert isinstance(poll, Poll)
    fallback.up(target.key)
    assert not fallback.answered(target.key, poll.round, 0.1)
    fallback.down(target.key, 0.2)
    again = fallback.tick(0.3)[-1]
    assert isinstance(again, Poll)
    assert not fallback.answered(target.key, poll.round, 0.4)
    assert fallback.answered(target.key, again.round, 0.5)
    assert not fallback.answered(target.key, again.round, 0.6), "each once"
    fallback.forget(target.key)
    assert not fallback.answered(target.key, again.round, 0.7)
    assert (fallback.tick(9.0), fallback.wake_s()) == ([], None)


def test_one_question_of_a_target_is_under_way_at_a_time() -> None:
    fallback = Fallback(patience_s=0.0)
    fallback.watch(book("BTC"))
    fallback.down(("book", "BTC"), 0.0)
    assert len(fallback.tick(0.0)) == 2
    assert (fallback.tick(50.0), fallback.wake_s()) == ([], None)
    fallback.answered(("book", "BTC"), 1, 50.0)
    assert len(fallback.tick(50.0)) == 1


def test_what_fails_is_asked_more_rarely_until_it_answers() -> None:
    fallback = Fallback(patience_s=0.0)
    target = book("BTC")
    fallback.watch(target)
    fallback.down(target.key, 0.0)
    now, pauses = 0.0, []
    for _ in range(6):
        poll = fallback.tick(now)[-1]
        assert isinstance(poll, Poll)
        fallback.failed(target.key, poll.round, now)
        wake = fallback.wake_s()
        assert wake is not None
        pauses.append(wake - now)
        now = wake
    assert pauses == [2.0, 4.0, 8.0, 16.0, 16.0, 16.0]
    poll = fallback.tick(now)[-1]
    assert isinstance(poll, Poll)
    fallback.answered(target.key, poll.round, now)
    assert fallback.wake_s() == now + 1.0


def test_with_room_in_the_budget_each_keeps_its_own_pace() -> None:
    fallback = Fallback(budget=1_000_000, patience_s=0.0)
    targets = [book("A", 0.5), book("B", 2.0), Target("orders", {"type": "openOrders"}, 20, 5.0)]
    for target in targets:
        fallback.watch(target)
        fallback.down(target.key, 0.0)
    count: defaultdict[Hashable, int] = defaultdict(int)
    for _, key in polls(fallback, 0.0, 99.9):
        count[key] += 1
    assert count == {("book", "A"): 200, ("book", "B"): 50, "orders": 20}


@pytest.mark.parametrize("seed", range(20))
def test_over_budget_it_is_spread_evenly_and_nobody_starves(seed: int) -> None:
    rng = random.Random(seed)
    budget = 600
    fallback = Fallback(budget=budget, patience_s=1.0)
    targets = [book(f"C{n}", rng.choice((0.5, 1.0, 3.0))) for n in range(rng.randrange(10, 60))]
    targets += [Target(("orders", n), {"type": "openOrders"}, 20, 5.0) for n in range(rng.randrange(1, 4))]
    for target in targets:
        fallback.watch(target)
        fallback.down(target.key, 0.0)
    weights = {target.key: target.weight for target in targets}
    assert sum(target.weight * 60 / target.every_s for target in targets) > budget
    made = polls(fallback, 0.0, 300.0, answer_s=rng.uniform(0.01, 0.2))
    assert sum(weights[key] for _, key in made) >= 0.98 * budget * 299 / 60, "what there is room for is used"
    for at, (now, _) in enumerate(made[1:]):
        before, last = made[at]
        assert now - before >= weights[last] * 60 / budget - 1e-6, "nothing comes in a burst"
    times = defaultdict(list)
    for now, key in made:
        times[key].append(now)
    assert times.keys() == weights.keys()
    round_s = sum(weights.values()) * 60 / budget
    for key, seen in times.items():
        pauses = [b - a for a, b in zip([1.0, *seen], [*seen, 300.0], strict=True)]
        assert max(pauses) <= 3 * max(round_s, 5.0), key


def test_targets_that_go_and_come_at_random_are_polled_exactly_while_they_are_down() -> None:
    rng = random.Random(3)
    fallback = Fallback(budget=6_000, patience_s=0.5)
    targets = {target.key: target for target in (book(f"C{n}") for n in range(12))}
    down: dict[Hashable, float] = {}
    began: set[Hashable] = set()
    for target in targets.values():
        fallback.watch(target)
    now = 0.0
    for _ in range(4_000):
        now += rng.expovariate(20.0)
        key = rng.choice(list(targets))
        if rng.random() < 0.1 and key not in down:
            fallback.down(key, now)
            down[key] = now
        elif rng.random() < 0.1 and key in down:
            ended = fallback.up(key)
            assert ended == ([Ended(key)] if key in began else [])
            began.discard(key)
            del down[key]
        for effect in fallback.tick(now):
            assert now >= down[effect.key] + 0.5
            if isinstance(effect, Began):
                assert effect.key not in began
                began.add(effect.key)
            elif isinstance(effect, Poll):
                assert effect.key in began
                if rng.random() < 0.8:
                    assert fallback.answered(effect.key, effect.round, now)
                else:
                    fallback.failed(effect.key, effect.round, now)
        assert {key for key in targets if fallback.is_polled(key)} == began


def test_settings_that_cannot_work_are_refused() -> None:
    for budget, patience_s in ((0, 1.0), (600, -1.0), (600, float("nan"))):
        with pytest.raises(ConfigError):
            Fallback(budget, patience_s)
    for weight, every_s in ((0, 1.0), (1, 0.0), (1, float("inf"))):
        with pytest.raises(ConfigError):
            Target("x", {}, weight, every_s)
    fallback = Fallback(budget=10)
    fallback.watch(book("BTC"))
    with pytest.raises(ConfigError, match="already"):
        fallback.watch(book("BTC"))
    with pytest.raises(ConfigError, match="more than"):
        fallback.watch(book("ETH", weight=11))
    fallback.down("nobody", 0.0)
    assert fallback.up("nobody") == []
