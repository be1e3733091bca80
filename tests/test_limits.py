"""The limiter on a clock of its own, judged by the venue's enforcement, which shares no code with it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

import aiohttp
import pytest
from stepped import run_stepped

from hlconn import ConfigError, Limits, LimitsConfig, Request, SessionConfig, Throttled
from hlconn.limits import LinkLimits
from hlconn.sim import Limits as VenueLimits
from hlconn.sim import Venue
from hlconn.sim.ledger import Fill
from hlconn.sim.limits import Gate
from hlconn.sim.orders import Trade

USER, OTHER, RICH = "0x" + "1f" * 20, "0x" + "2e" * 20, "0x" + "3d" * 20
META = {"type": "meta"}
MINUTE = 60.0 + LimitsConfig().margin_s
USABLE = LimitsConfig().weight_per_minute - LimitsConfig().reserve_weight


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Hand:
    """A limiter whose clock and queue are moved by hand. granted: what was, in order."""

    def __init__(self, **config: Any) -> None:
        self.clock = Clock()
        self.limits = Limits(LimitsConfig(**config), clock=self.clock)
        self.granted: list[Any] = []

    def spend(self, weight: int) -> None:
        """Requests of two, sent and answered now."""
        for _ in range(weight // 2):
            request = Request.info({"type": "l2Book"})
            self.limits.take(request)
            self.limits.answered(request)

    def join(self, name: Any, request: Request | None = None, *, urgent: bool = False) -> Any:
        request = request or Request.info(META)
        return self.limits.join(request, urgent=urgent, on_grant=lambda: self.granted.append(name))

    def goes_on(self) -> None:
        """To when something is due."""
        due_s = self.limits.due_s
        assert due_s is not None
        assert due_s > self.clock.now_s
        self.clock.now_s = due_s
        self.limits.on_timer()


def action(kind: str = "order", n: int = 1, user: str = USER) -> Request:
    return Request.action(kind, n, user=user)


def candles(minutes: int, interval: str = "1m") -> dict[str, Any]:
    req = {"coin": "BTC", "interval": interval, "startTime": 0, "endTime": minutes * 60_000}
    return {"type": "candleSnapshot", "req": req}


# What things weigh.


@pytest.mark.parametrize(
    ("request_", "weight"),
    [
        *(({"type": kind}, 2) for kind in ("l2Book", "allMids", "clearinghouseState", "orderStatus")),
        *(({"type": kind}, 2) for kind in ("spotClearinghouseState", "exchangeStatus")),
        ({"type": "userRole"}, 60),
        ({"type": "meta"}, 20),
        ({"type": "ofNextYear"}, 20),
        ({}, 20),
        ({"type": None}, 20),
        ({"type": "userFills"}, 120),  # of 2,000 rows, before anything is known
        ({"type": "recentTrades"}, 120),
        (candles(5000 * 2), 20 + 84),
        (candles(58), 21),  # with those that are cut by both ends 60
        (candles(59), 22),
        (candles(24 * 60 * 365, "1d"), 27),
        (candles(60, "nonsense"), 20 + 84),
        (candles(60, "0m"), 20 + 84),
        (candles(-60), 21),
        ({"type": "candleSnapshot", "req": None}, 20 + 84),
        (Request.action("order", 1), 1),
        (Request.action("order", 0), 1),
        (Request.action("order", 39), 1),
        (Request.action("cancel", 40), 2),
        (Request.action("batchModify", 79), 2),
        (Request.action("order", 80), 3),
        (Request.explorer("txDetails"), 40),
        (Request.explorer("blockList", 15), 55),
    ],
)
def test_a_request_weighs_what_the_docs_say(request_: Any, weight: int) -> None:
    assert Limits().cost(request_) == weight


def test_every_number_is_a_setting() -> None:
    config = LimitsConfig(
        info_weights={"meta": 3}, info_weight=7, rows_per_weight={"meta": 10}, most_rows=95, batch_per_weight=10,
        explorer_weight=5, post_weight=False,
    )  # fmt: skip
    limits = Limits(config)
    requests: list[Any] = [META, {"type": "userRole"}, Request.action("order", 20), Request.explorer("x")]
    assert [limits.cost(request) for request in requests] == [3 + 10, 7, 3, 5]
    assert limits.cost(Request.info(META, over="ws")) == limits.cost(Request.action("order", over="ws")) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight_per_minute": 0},
        {"weight_per_minute": 1.5},
        {"reserve_weight": -1},
        {"reserve_weight": 1200},
        {"weight_window": "hourly"},
        {"margin_s": float("nan")},
        {"lost_after_s": 0},
        {"info_weights": {"meta": 0}},
        {"rows_per_weight": {"userFills": 0}},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LimitsConfig(**wrong)


def test_the_rows_of_the_last_answers_are_what_the_next_is_expected_to_have() -> None:
    limits = Hand().limits
    for rows, weight in ((21, 22), (0, 22), (41, 23)):
        body = {"type": "userFills"}
        limits.take(body)
        limits.answered(body, rows)
        assert limits.cost({"type": "userFills"}) == weight
    for _ in range(8):
        body = {"type": "userFills"}
        limits.take(body)
        limits.answered(body, 3)
    assert limits.cost({"type": "userFills"}) == 21
    assert limits.cost({"type": "historicalOrders"}) == 120  # of which nothing is known yet


def test_rows_that_nobody_expected_are_expected_from_then_on() -> None:
    limits = Hand(rows_per_weight={"recentTrades": 20}, most_rows=40).limits
    body = {"type": "recentTrades"}
    assert limits.cost(body) == 22
    limits.take(body)
    limits.answered(body, 1000)
    assert limits.cost(body) == 70


# What is counted, and for how long.


def test_a_minute_begins_with_the_answer_for_the_venue_may_have_counted_any_time_before() -> None:
    hand = Hand()
    slow = Request.info({"type": "l2Book"})
    hand.limits.take(slow)
    hand.spend(USABLE - 2)
    hand.clock.now_s = 7.0
    hand.limits.answered(slow)
    hand.clock.now_s = MINUTE
    hand.spend(USABLE - 2)
    assert hand.limits.wait_s({"type": "l2Book"}) == pytest.approx(7.0)


def test_what_an_answer_may_still_weigh_is_kept_free_until_it_is_here() -> None:
    hand = Hand()
    first = Request.info({"type": "userFills"})
    hand.limits.take(first)
    hand.limits.answered(first, 0)  # from here on 20 are expected
    under_way = Request.info({"type": "userFills"})
    hand.limits.take(under_way)
    hand.spend(USABLE - 20 - 120)
    with pytest.raises(Throttled):
        hand.limits.take({"type": "l2Book"})
    hand.limits.answered(under_way, 0)
    hand.spend(120 - 20)
    assert hand.limits.wait_s({"type": "l2Book"}) > 0


def test_what_goes_with_others_needs_room_for_the_most_and_what_goes_alone_for_what_is_likely() -> None:
    hand = Hand()
    first = Request.info({"type": "userFills"})
    hand.limits.take(first)
    hand.limits.answered(first, 0)
    hand.spend(USABLE - 20 - 42)
    company = Request.info({"type": "l2Book"})
    hand.limits.take(company)  # may reach the venue after the next one
    hand.join("next", Request.info({"type": "userFills"}))
    assert hand.granted == []
    hand.limits.answered(company)
    assert hand.granted == ["next"]


def test_an_answer_whose_rows_nobody_knows_weighs_the_most() -> None:
    hand = Hand()
    body = {"type": "userFills"}
    hand.limits.take(body)
    hand.limits.answered(body)
    hand.spend(USABLE - 120)
    assert hand.limits.wait_s({"type": "l2Book"}) == pytest.approx(MINUTE)


def test_what_was_never_sent_costs_nothing() -> None:
    hand = Hand()
    for _ in range(100):
        request = Request.info({"type": "userRole"})
        hand.limits.take(request)
        hand.limits.unsent(request)
    hand.spend(USABLE)


def test_a_request_of_which_nobody_hears_counts_as_answered_some_time() -> None:
    hand = Hand(lost_after_s=30.0)
    requests = [Request.info({"type": "userRole"}) for _ in range(USABLE // 60)]
    for request in requests:
        hand.limits.take(request)
    hand.join("next", Request.info({"type": "userRole"}))
    hand.goes_on()
    assert hand.clock.now_s == 30.0
    hand.goes_on()
    assert hand.granted == ["next"]
    assert hand.clock.now_s == pytest.approx(30.0 + MINUTE)
    for request in requests:
        hand.limits.answered(request)  # too late to matter
    hand.spend(USABLE - 60)


def test_the_same_object_taken_again_means_that_the_time_before_is_over() -> None:
    hand = Hand()
    body = {"type": "userRole"}
    for _ in range(USABLE // 60):
        hand.limits.take(body)
    with pytest.raises(Throttled):
        hand.limits.take(body)
    hand.clock.now_s = MINUTE
    hand.spend(USABLE - 60)  # all but the last are a minute old


def test_news_of_a_request_that_was_never_taken_changes_nothing() -> None:
    hand = Hand()
    for tell in (hand.limits.answered, hand.limits.unsent):
        tell({"type": "userFills"})
    hand.limits.answered({"type": "userFills"}, -5)
    hand.spend(USABLE)


def test_what_is_heavier_than_a_minute_goes_alone() -> None:
    hand = Hand()
    giant = Request.explorer("blockList", 5000)
    hand.spend(2)
    assert hand.limits.wait_s(giant) == pytest.approx(MINUTE)
    hand.clock.now_s = MINUTE
    hand.limits.take(giant)
    hand.limits.answered(giant)
    assert hand.limits.wait_s({"type": "l2Book"}) == pytest.approx(MINUTE)


def test_a_bucket_comes_back_evenly() -> None:
    hand = Hand(weight_window="bucket")
    hand.spend(USABLE)
    assert hand.limits.wait_s({"type": "l2Book"}) == pytest.approx(2 * MINUTE / 1200)
    hand.clock.now_s = MINUTE / 2
    hand.spend(600)
    assert hand.limits.wait_s(META) == pytest.approx(20 * MINUTE / 1200)


def test_over_budget_says_how_long_and_then_it_is_so() -> None:
    hand = Hand()
    hand.spend(USABLE // 2)
    hand.clock.now_s = 20.0
    hand.spend(USABLE // 2)
    with pytest.raises(Throttled, match=r"meta weighs 20, .*1200 a minute.* try again in 40\.1") as caught:
        hand.limits.take(META)
    assert caught.value.retry_after_s == pytest.approx(40.1) == hand.limits.wait_s(META)
    hand.clock.now_s += caught.value.retry_after_s
    hand.limits.take(META)


# Who goes next.


def test_those_who_wait_are_served_in_their_order_whatever_they_weigh() -> None:
    hand, rng = Hand(), Random(5)
    kinds = ["l2Book", "meta", "userRole", "userFills"]
    for name in range(500):
        request = Request.info({"type": rng.choice(kinds)})

        def sent(name: int = name, request: Request = request) -> None:
            hand.granted.append(name)
            hand.limits.answered(request, 0)

        hand.limits.join(request, on_grant=sent)
    while hand.limits.waiting:
        hand.goes_on()
    assert hand.granted == list(range(500))


def test_light_requests_do_not_starve_a_heavy_one() -> None:
    hand = Hand()
    hand.spend(USABLE - 10)
    hand.join("heavy", Request.info({"type": "userRole"}))
    hand.join("light", Request.info({"type": "l2Book"}))
    with pytest.raises(Throttled):  # there is room for it, but it is not its turn
        hand.limits.take({"type": "l2Book"})
    assert hand.granted == []
    hand.goes_on()
    assert hand.granted == ["heavy", "light"]


def test_how_long_it_takes_counts_those_who_wait_before() -> None:
    hand = Hand()
    hand.spend(USABLE)
    for name in range(USABLE // 60 + 1):
        hand.join(name, Request.info({"type": "userRole"}))
    assert hand.limits.wait_s(META) == pytest.approx(2 * MINUTE)
    assert hand.limits.wait_s(action()) == pytest.approx(MINUTE)  # before all queries


def test_a_cancel_waits_behind_nobody_and_has_room_kept_for_it() -> None:
    hand = Hand()
    hand.spend(USABLE)
    hand.join("query")
    hand.join("order", action())
    for _ in range(hand.limits.config.reserve_weight):
        cancel = action("cancel")
        hand.limits.take(cancel)
        hand.limits.answered(cancel)
    with pytest.raises(Throttled):
        hand.limits.take(action("cancel"))
    hand.join("cancel", action("cancelByCloid"))
    hand.join("urgent", urgent=True)
    hand.goes_on()
    assert hand.granted == ["cancel", "urgent", "order", "query"]


def test_a_cancel_does_not_wait_for_what_an_answer_might_weigh() -> None:
    hand = Hand()
    known = Request.info({"type": "userFills"})
    hand.limits.take(known)
    hand.limits.answered(known, 1)
    hand.spend(USABLE - 42)
    hand.limits.take(Request.info({"type": "userFills"}))  # 21, and maybe 120
    hand.limits.take(action("cancel"))


def test_orders_go_before_queries() -> None:
    hand = Hand()
    hand.spend(USABLE)
    hand.join("query")
    hand.join("order", action())
    hand.goes_on()
    assert hand.granted == ["order", "query"]


def test_who_leaves_the_queue_makes_room_for_the_next() -> None:
    hand = Hand()
    hand.spend(USABLE - 40)
    heavy = hand.join("heavy", Request.info({"type": "userRole"}))
    hand.join("next")
    assert hand.granted == []
    hand.limits.leave(heavy)
    hand.limits.leave(heavy)
    assert hand.granted == ["next"]
    assert (hand.limits.waiting, hand.limits.due_s) == (0, None)


def test_room_that_was_granted_can_be_given_back() -> None:
    hand = Hand()
    ticket = hand.join("first", Request.info({"type": "userRole"}))
    assert ticket.granted
    hand.limits.leave(ticket)
    hand.spend(USABLE)


# 429.


def test_after_a_429_nothing_but_cancels_is_sent_for_as_long_as_it_says() -> None:
    hand = Hand()
    request = Request.info(META)
    hand.limits.take(request)
    hand.limits.refused(17.0, request)
    assert hand.limits.wait_s(META) == hand.limits.wait_s(action()) == 17.0
    hand.limits.take(action("cancel"))
    with pytest.raises(Throttled, match=r"answered HTTP 429.* try again in 17\.000 s"):
        hand.limits.take(META)
    hand.clock.now_s = 17.0
    hand.limits.take(META)


def test_without_a_time_the_pause_doubles_until_something_is_answered() -> None:
    hand = Hand(refused_s=2.0, max_refused_s=30.0)
    for pause_s in (2, 4, 8, 16, 30, 30):
        request = Request.info(META)
        hand.limits.take(request)
        hand.limits.refused(None, request)
        assert hand.limits.wait_s({"type": "l2Book"}) == pause_s
        hand.clock.now_s += pause_s
    good = Request.info(META)
    hand.limits.take(good)
    hand.limits.answered(good)
    hand.limits.refused()
    assert hand.limits.wait_s({"type": "l2Book"}) == 2


def test_several_refused_together_count_once() -> None:
    hand = Hand(refused_s=2.0)
    requests = [Request.info(META) for _ in range(20)]
    for request in requests:
        hand.limits.take(request)
    for request in requests:
        hand.clock.now_s += 0.01
        hand.limits.refused(None, request)
        hand.limits.refused()
    assert hand.limits.wait_s(META) == pytest.approx(2.0)


@pytest.mark.parametrize("window", ["sliding", "bucket"])
def test_a_minute_has_what_was_used_when_a_429_came_for_ten_minutes(window: str) -> None:
    hand = Hand(weight_window=window)
    hand.spend(900)
    hand.limits.refused(1.0)
    hand.clock.now_s = MINUTE
    hand.spend(900 - 30)
    with pytest.raises(Throttled, match="900 a minute"):
        hand.limits.take({"type": "l2Book"})
    answered(hand, action("cancel"))
    hand.clock.now_s = 600.0
    hand.spend(USABLE)


def test_one_429_out_of_nothing_costs_half_of_the_minute_at_most() -> None:
    hand = Hand()
    hand.limits.refused(1.0)
    hand.clock.now_s = 1.0
    hand.spend(600 - 30)
    assert hand.limits.wait_s({"type": "l2Book"}) > 0


@pytest.mark.parametrize("together", [2, 20])
def test_refused_requests_that_are_asked_again_do_not_keep_their_room(together: int) -> None:
    hand = Hand(refused_s=2.0)
    bodies = [{"type": "userFills"} for _ in range(together)]
    for body in bodies:
        hand.limits.join(body, on_grant=lambda: None)
    hand.limits.refused()  # nobody says which one
    for body in bodies:
        hand.limits.join(body, on_grant=lambda body=body: hand.limits.answered(body, 1))  # type: ignore[misc]
    while hand.limits.waiting:
        hand.goes_on()
    assert hand.clock.now_s <= 3 * MINUTE


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1.0, 1e300])
def test_an_odd_retry_after_holds_nothing_back_for_long(odd: float) -> None:
    hand = Hand(max_refused_s=50.0)
    hand.limits.refused(odd)
    assert 0 < hand.limits.wait_s(META) <= 50.0


def test_a_refused_action_is_none_of_its_addresss_requests() -> None:
    hand = Hand()
    order = action(n=10)
    hand.limits.take(order)
    assert hand.limits.address(USER).used == 10
    hand.limits.refused(1.0, order)
    assert hand.limits.address(USER).used == 0


# The requests of an address.


def exhausted(used: int = 10_000, cap: int = 10_000, **more: int) -> Hand:
    hand = Hand()
    hand.limits.user_rate_limit(USER, {"nRequestsUsed": used, "nRequestsCap": cap, **more})
    return hand


def answered(hand: Hand, request: Request) -> None:
    hand.limits.take(request)
    hand.limits.answered(request)


def test_before_the_venue_said_anything_no_address_is_held_back() -> None:
    hand = Hand()
    for _ in range(300):
        answered(hand, action(n=39))
    assert hand.limits.address(USER.upper().replace("0X", "0x")).used == 300 * 39


def test_each_order_of_a_batch_is_a_request_of_its_address() -> None:
    hand = exhausted(9_000)
    for _ in range(25):
        answered(hand, action(n=40))
    with pytest.raises(Throttled, match=f"{USER} has sent 10000 of its 10000 requests"):
        hand.limits.take(action())


def test_an_address_out_of_requests_has_one_in_ten_seconds_and_holds_nobody_else_back() -> None:
    hand = exhausted()
    answered(hand, action())
    assert hand.limits.wait_s(action()) == 10.0
    for name in ("first", "second"):
        hand.join(name, action())
    hand.join("another address", action(user=OTHER))
    hand.join("query")
    assert hand.granted == ["another address", "query"]
    assert hand.limits.wait_s(action()) == 30.0
    hand.goes_on()
    hand.goes_on()
    assert (hand.granted[2:], hand.clock.now_s) == (["first", "second"], 20.0)


def test_cancels_have_more_room_than_orders() -> None:
    hand = exhausted()
    answered(hand, action())
    for _ in range(249):
        answered(hand, action("cancel", 40))
        hand.clock.now_s += 0.1
    assert hand.limits.wait_s(action("cancel", 39)) == 0.0
    assert hand.limits.wait_s(action("cancel", 40)) > 0.0
    rich = exhausted(1_099_999, 1_000_000)
    answered(rich, action("cancel"))
    assert rich.limits.wait_s(action("cancel")) == 10.0


def test_volume_and_bought_requests_are_room() -> None:
    hand = exhausted(nRequestsSurplus=2)
    answered(hand, action(n=2))
    assert hand.limits.wait_s(action()) == 10.0
    hand.limits.traded(USER, 1.9)
    answered(hand, action())
    assert hand.limits.wait_s(action()) > 0.0
    for odd in (float("nan"), float("inf"), -5.0):
        hand.limits.traded(USER, odd)
    hand.limits.traded(OTHER, 100.0)  # of whom nothing was sent
    assert hand.limits.wait_s(action()) > 0.0


def test_what_is_under_way_counts_on_top_of_what_the_venue_says() -> None:
    hand = exhausted(0)
    hand.limits.take(action(n=7))
    hand.limits.user_rate_limit(USER, {"nRequestsUsed": 100, "nRequestsCap": 20_000})
    budget = hand.limits.address(USER)
    assert (budget.used, budget.cap) == (107, 20_000)


@pytest.mark.parametrize(
    "odd", [{}, {"nRequestsUsed": "5", "nRequestsCap": 1}, {"nRequestsUsed": -1, "nRequestsCap": 1}]
)
def test_an_answer_that_cannot_be_read_changes_nothing(odd: dict[str, Any]) -> None:
    hand = exhausted(5)
    hand.limits.user_rate_limit(USER, odd)
    assert (hand.limits.address(USER).used, hand.limits.address(USER).cap) == (5, 10_000)


def test_the_venues_own_words_teach_what_is_used_up() -> None:
    hand = Hand()
    text = "Too many cumulative requests sent (15003 > 15002) for cumulative volume traded $5002.17. Place taker orders"
    assert hand.limits.on_text(USER, text)
    assert hand.limits.wait_s(action()) == 10.0
    assert hand.limits.address(USER).cap == 15_002
    assert not hand.limits.on_text(USER, "Order has invalid price.")


def test_an_expired_action_costs_five_requests() -> None:
    hand = Hand()
    order = action(n=2)
    hand.limits.take(order)
    hand.limits.expired(order)
    hand.limits.answered(order)
    assert hand.limits.address(USER).used == 5


# Under asyncio.


class Timers:
    """`later` by hand, counting."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.made, self.live = clock, 0, dict[int, tuple[float, Callable[[], object]]]()

    def __call__(self, after_s: float, callback: Callable[[], object]) -> Any:
        self.made += 1
        number = self.made
        self.live[number] = (self.clock.now_s + after_s, callback)

        class Handle:
            def cancel(_self) -> None:
                self.live.pop(number, None)

        return Handle()

    def goes_on(self) -> None:
        number = min(self.live, key=lambda n: self.live[n][0])
        self.clock.now_s, callback = self.live.pop(number)
        callback()


async def passes() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_twenty_tasks_that_wait_share_one_timer_and_wake_in_order() -> None:
    async def main() -> None:
        clock = Clock()
        timers = Timers(clock)
        limits, woken = Limits(clock=clock, later=timers), []

        async def one(name: int) -> None:
            request = Request.info({"type": "userRole"})
            await limits.wait(request)
            woken.append(name)
            limits.answered(request)

        tasks = [asyncio.create_task(one(name)) for name in range(20 * 19)]
        await passes()
        assert (len(woken), len(timers.live)) == (19, 1)
        while limits.waiting:
            timers.goes_on()
            await passes()
        await asyncio.gather(*tasks)
        assert woken == list(range(20 * 19))
        assert not timers.live
        assert timers.made <= 2 * 20  # a few a minute

    asyncio.run(main())


@pytest.mark.parametrize("granted", [False, True])
def test_a_task_that_is_cancelled_costs_nothing(granted: bool) -> None:
    async def main() -> None:
        hand = Hand()
        hand.limits._later = Timers(hand.clock)
        hand.spend(USABLE)
        task = asyncio.create_task(hand.limits.wait(Request.info({"type": "userRole"})))
        await passes()
        if granted:
            hand.clock.now_s = MINUTE
            hand.limits.on_timer()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert hand.limits.waiting == 0
        hand.clock.now_s = MINUTE
        hand.spend(USABLE)

    asyncio.run(main())


# Against the venue's own enforcement.


def judged(seed: int, window: str, config: LimitsConfig) -> Gate:
    """Twenty clients with slow and uneven lines; charged at any time between request and answer, rows after the rest.

    A kind's answers are short for a while and then as long as can be, without warning.
    """
    rng, clock, ticket = Random(seed), Clock(), itertools.count()
    offset_ms = rng.uniform(0, 60_000)
    gate = Gate(VenueLimits(weight_window=window), lambda: offset_ms + clock.now_s * 1000)  # type: ignore[arg-type]
    limits, due = Limits(config, clock=clock), list[tuple[float, int, Callable[[], object]]]()
    left = 400
    slow_s = rng.choice([0.05, 1.0, 10.0])

    def after(callback: Callable[[], object]) -> None:
        heapq.heappush(due, (clock.now_s + rng.uniform(0, slow_s), next(ticket), callback))

    def client() -> None:
        nonlocal left
        if left == 0:
            return
        left -= 1
        kind = rng.choice(["l2Book", "meta", "userFills", "recentTrades", "userRole", "userFills"])
        body = {"type": kind}
        rows = 2000 if rng.random() < 0.1 else rng.randrange(30)
        limits.join(body, on_grant=lambda: after(lambda: asked(body, rows)))

    def asked(body: dict[str, Any], rows: int) -> None:
        assert gate.admits("info", body), f"{body} refused after {clock.now_s} s, with {left} left"
        after(lambda: charged(body, rows))

    def charged(body: dict[str, Any], rows: int) -> None:
        gate.answered(body, [0] * rows)
        after(lambda: answered(body, rows))

    def answered(body: dict[str, Any], rows: int) -> None:
        limits.answered(body, rows)
        client()

    for _ in range(20):
        client()
    while due or limits.due_s is not None:
        if due and (limits.due_s is None or due[0][0] <= limits.due_s):
            clock.now_s, _, callback = heapq.heappop(due)
            callback()
        else:
            assert limits.due_s is not None
            clock.now_s = limits.due_s
            limits.on_timer()
    assert left == limits.waiting == 0
    return gate


@pytest.mark.parametrize("window", ["sliding", "minute", "bucket"])
@pytest.mark.parametrize("seed", range(6))
def test_by_default_no_venue_refuses_anything_however_it_counts_a_minute(seed: int, window: str) -> None:
    assert not judged(seed, window, LimitsConfig(margin_s=0.0)).refusals


@pytest.mark.parametrize("seed", range(6))
def test_a_bucket_is_enough_for_a_venue_that_has_one(seed: int) -> None:
    assert not judged(seed, "bucket", LimitsConfig(weight_window="bucket", margin_s=0.0)).refusals


def test_a_bucket_is_too_much_for_a_venue_that_counts_minutes() -> None:
    with pytest.raises(AssertionError, match="refused"):
        judged(0, "sliding", LimitsConfig(weight_window="bucket"))


def long_venue(**options: Any) -> Venue:
    """With candles of the last 500 minutes, and an account with 390 fills."""
    venue = Venue(traders=False, coins=("BTC",), history_blocks=10, **options)
    market, now_ms = venue.exchange.markets["BTC"], int(venue.now_ms())
    trade = Trade("B", market.home_px, 1, now_ms - 500 * 60_000, "0x" + "0" * 64, 1, USER, RICH)
    venue.candles["BTC"].add([trade])
    fill = Fill(market, trade.px, 1, True, now_ms, 0, "Open Long", 0, trade.hash, 1, True, 0, 6, "USDC", 1, None)
    venue.exchange.ledger.open(RICH).fills.extend(replace(fill, tid=number) for number in range(390))
    return venue


def mixed(rng: Random, user: str, now_ms: int) -> dict[str, Any]:
    kinds = {"l2Book": 30, "allMids": 20, "orderStatus": 15, "meta": 10, "candleSnapshot": 10, "userFills": 5}
    kinds |= {"recentTrades": 5, "clearinghouseState": 4, "userRole": 1}
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    if kind == "candleSnapshot":
        start = now_ms - rng.randrange(1, 500) * 60_000
        return {"type": kind, "req": {"coin": "BTC", "interval": "1m", "startTime": start, "endTime": now_ms}}
    body: dict[str, Any] = {"type": kind, "coin": "BTC", "user": user, "oid": 1}
    return body


async def twenty_tasks(
    calls: int, venue: Venue, limits: Limits, ask: Callable[[dict[str, Any]], Coroutine[Any, Any, tuple[int, Any]]]
) -> list[int]:
    """The status of each answer."""
    rng, left, statuses = Random(7), calls, list[int]()
    users = [USER, RICH]

    async def task() -> None:
        nonlocal left
        while left:
            left -= 1
            body = mixed(rng, rng.choice(users), int(venue.now_ms()))
            await limits.wait(body)
            status, answer = await ask(body)
            statuses.append(status)
            if status == 429:
                limits.refused(None, body)
            else:
                limits.answered(body, len(answer) if isinstance(answer, list) else 0)

    await asyncio.gather(*(task() for _ in range(20)))
    return statuses


@pytest.mark.parametrize("window", ["sliding", "minute", "bucket"])
def test_ten_thousand_mixed_calls_meet_no_429_and_take_hardly_longer_than_they_must(window: str) -> None:
    calls = 10_000 if window == "sliding" else 4_000
    venue = long_venue(stepped=True, block_ms=(60_000, 60_000), limits=VenueLimits(weight_window=window))  # type: ignore[arg-type]
    rng = Random(3)

    async def ask(body: dict[str, Any]) -> tuple[int, Any]:
        """A round trip of 40 to 300 ms of the venue's time."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def reply(status_and_body: Any) -> None:
            venue.after(rng.uniform(20, 150), lambda: answer.set_result(status_and_body))

        venue.after(rng.uniform(20, 150), lambda: venue.request("/info", body, reply))
        return await answer  # type: ignore[no-any-return]

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        config = LimitsConfig(weight_window="bucket" if window == "bucket" else "sliding")
        limits, began_s = Limits(config, clock=clock), clock()
        statuses = await twenty_tasks(calls, venue, limits, ask)
        assert statuses == [200] * calls
        assert not venue.gate.refusals
        ideal_s = (venue.gate.weight - 1200) / 20
        assert clock() - began_s < 1.1 * ideal_s

    run_stepped(venue, main())


def test_over_http_on_a_faster_clock_no_call_meets_a_429() -> None:
    """The full ten thousand: `python benches/limits.py`."""

    async def main() -> None:
        speed = 200.0
        async with (
            long_venue(speed=speed, limits=VenueLimits()) as venue,
            aiohttp.ClientSession() as http,
        ):
            loop = asyncio.get_running_loop()
            limits = Limits(
                LimitsConfig(lost_after_s=1e6),  # a machine that stands still for a moment loses nothing
                clock=lambda: venue.now_ms() / 1000,
                later=lambda s, callback: loop.call_later(s / speed, callback),
            )

            async def ask(body: dict[str, Any]) -> tuple[int, Any]:
                async with http.post(f"{venue.url}/info", json=body) as answer:
                    return answer.status, await answer.json()

            assert await twenty_tasks(300, venue, limits, ask) == [200] * 300
            assert venue.gate.weight > 2400
            assert not venue.gate.refusals

    asyncio.run(main())


# What links share.


def test_a_user_who_is_followed_already_is_no_new_one() -> None:
    limits = LinkLimits(SessionConfig(max_users=2, max_subscriptions=4))
    assert limits.has_room_for(0.0, USER)
    limits.users.update([USER, OTHER])
    assert limits.has_room_for(0.0, USER.upper())
    assert limits.has_room_for(0.0, "")
    assert not limits.has_room_for(0.0, "0x" + "3d" * 20)
    limits.users[OTHER] -= 1
    assert limits.has_room_for(0.0, "0x" + "3d" * 20)
    limits.subscriptions = 4
    assert not limits.has_room_for(0.0, "")


@pytest.mark.parametrize(
    ("text", "name", "in_use", "learned"),
    [
        ("Cannot track more than 15 total users.", "max_users", 9, 8),
        ("Cannot subscribe to more than 1000 channels.", "max_subscriptions", 700, 699),
        ("too many pending post requests id=17", "max_posts", 60, 59),
    ],
)
def test_a_refusal_teaches_a_lower_limit_for_ten_minutes(text: str, name: str, in_use: int, learned: int) -> None:
    limits = LinkLimits(SessionConfig())
    usual = getattr(limits, name)
    limits.users.update(f"user {number}" for number in range(in_use))
    limits.subscriptions = limits.posts = in_use
    assert limits.on_error(0.0, text)
    assert getattr(limits, name) == learned
    limits.free_at(599.0, "post")
    assert getattr(limits, name) == learned
    limits.free_at(600.0, "post")
    assert getattr(limits, name) == usual


def test_too_many_messages_pause_all_but_cancels() -> None:
    limits = LinkLimits(SessionConfig())
    assert limits.on_error(5.0, "429 Too Many Requests")
    assert limits.free_at(6.0, "market") == limits.free_at(6.0, "post") == 15.0
    assert limits.free_at(6.0, "cancel") == 6.0
    assert not limits.on_error(6.0, 'Invalid subscription {"type":"x"}')
