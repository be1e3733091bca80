"""Which subscription goes over which link, within the limits of the venue; the links are the real ones."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import orjson
import pytest

from hlconn.config import SessionConfig
from hlconn.errors import Closed, ConfigError
from hlconn.session.link import (
    Connect,
    Disconnect,
    Down,
    Effect,
    LinkState,
    Refused,
    Send,
    StateChanged,
    Subscribed,
    SubState,
    Up,
)
from hlconn.session.pool import Pool

Subscription = Mapping[str, Any]
ALICE, BOB = "0x" + "a1" * 20, "0x" + "b0" * 20


def trades(coin: str) -> dict[str, Any]:
    return {"type": "trades", "coin": coin}


def book(coin: str, **more: Any) -> dict[str, Any]:
    return {"type": "l2Book", "coin": coin, **more}


def stream(kind: str, user: str) -> dict[str, Any]:
    return {"type": kind, "user": user}


class Bench:
    """A pool whose sockets open and whose subscriptions are acknowledged at once; every effect is kept."""

    def __init__(self, *, start: bool = True, **settings: Any) -> None:
        self.pool = Pool(SessionConfig(**{"ping_interval_s": 1e6, **settings}), Random(0))
        self.now_s = 0.0
        self.effects: list[Effect] = []
        self.acks = True
        if start:
            self.do(self.pool.start(0.0))

    def do(self, effects: list[Effect]) -> list[Effect]:
        """All that follows too, in order."""
        seen: list[Effect] = []
        todo = list(effects)
        while todo:
            effect = todo.pop(0)
            seen.append(effect)
            if isinstance(effect, Connect):
                todo += self.pool.on_connected(self.now_s, effect.link, effect.generation)
            elif isinstance(effect, Send) and self.acks:
                data = orjson.loads(effect.data)
                if data["method"] in ("subscribe", "unsubscribe"):
                    todo += self.say(effect.link, "subscriptionResponse", data)
        self.effects += seen
        return seen

    def say(self, number: int, channel: str, data: Any) -> list[Effect]:
        link = self.pool.links[number]
        message = orjson.dumps({"channel": channel, "data": data})
        return self.pool.on_control(self.now_s, number, link.generation, message)

    def want(self, *subscriptions: Subscription) -> list[Effect]:
        return [effect for sub in subscriptions for effect in self.do(self.pool.subscribe(self.now_s, sub))]

    def unwant(self, *subscriptions: Subscription) -> None:
        for sub in subscriptions:
            self.do(self.pool.unsubscribe(self.now_s, sub))

    def cut(self, number: int) -> list[Effect]:
        link = self.pool.links[number]
        return self.do(self.pool.on_disconnected(self.now_s, number, link.generation, "cut"))

    def go_to(self, now_s: float) -> list[Effect]:
        seen: list[Effect] = []
        while (due_s := self.pool.deadline) is not None and due_s <= now_s:
            self.now_s = max(self.now_s, due_s)
            seen += self.do(self.pool.on_timer(self.now_s))
        self.now_s = now_s
        return seen

    def where(self, subscription: Subscription) -> list[int]:
        return [number for given, _, number in self.pool.subscriptions if given == subscription]

    @property
    def loads(self) -> dict[int, int]:
        return {number: len(link.subscriptions) for number, link in self.pool.links.items()}


def kinds(effects: list[Effect], *wanted: type[Any]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, wanted)]


def test_one_link_serves_until_it_has_its_share_and_then_the_next_is_opened() -> None:
    bench = Bench(subscriptions_per_link=3, max_links=3)
    bench.want(*(trades(f"C{n}") for n in range(3)))
    assert bench.loads == {0: 3}
    bench.want(*(trades(f"D{n}") for n in range(6)))
    assert bench.loads == {0: 3, 1: 3, 2: 3}
    bench.want(*(trades(f"E{n}") for n in range(6)))
    assert bench.loads == {0: 5, 1: 5, 2: 5}, "no more links: evenly over those there are"
    assert {state for _, state, _ in bench.pool.subscriptions} == {SubState.LIVE}


def test_nothing_is_opened_before_the_start_and_everything_after_it() -> None:
    bench = Bench(start=False, subscriptions_per_link=1, max_links=2)
    bench.want(trades("A"), trades("B"))
    assert bench.effects == []
    connects = kinds(bench.do(bench.pool.start(0.0)), Connect)
    assert [effect.link for effect in connects] == [0, 1]
    assert bench.pool.start(0.0) == []
    assert bench.pool.state is LinkState.LIVE


def test_more_than_the_venue_allows_is_refused_with_the_name_of_the_limit() -> None:
    bench = Bench(max_subscriptions=3, redundancy=2)
    bench.want(trades("A"))
    with pytest.raises(ConfigError, match="max_subscriptions"):
        bench.pool.subscribe(0.0, trades("B"))
    bench.want(stream("userFills", ALICE))
    with pytest.raises(ConfigError, match="3 of 3"):
        bench.pool.subscribe(0.0, stream("orderUpdates", ALICE))
    bench.unwant(trades("A"))
    bench.want(trades("B"))
    assert len(bench.pool.subscriptions) == 3


def test_a_link_has_one_user_at_most_whoever_spells_the_address() -> None:
    bench = Bench(max_links=2)
    bench.want(stream("orderUpdates", ALICE), stream("userFills", ALICE.upper().replace("0X", "0x")))
    bench.want(stream("orderUpdates", BOB))
    assert bench.where(stream("orderUpdates", ALICE)) == [0]
    assert bench.where(stream("orderUpdates", BOB)) == [1]
    with pytest.raises(ConfigError, match="max_links"):
        bench.pool.subscribe(0.0, stream("orderUpdates", "0x" + "cc" * 20))
    assert bench.loads == {0: 2, 1: 1}
    bench.want(trades("A"))
    assert bench.where(trades("A")) == [0], "market data may go beside any user"


def test_streams_of_a_user_stay_together_on_the_main_link_however_much_it_has() -> None:
    bench = Bench(max_links=2, subscriptions_per_link=2)
    bench.want(trades("A"), trades("B"), trades("C"))
    bench.want(stream("orderUpdates", ALICE), stream("userFills", ALICE))
    assert bench.where(stream("orderUpdates", ALICE)) == bench.where(stream("userFills", ALICE)) == [0]
    bench.want(stream("orderUpdates", BOB), trades("D"), stream("userFills", BOB))
    assert bench.where(stream("orderUpdates", BOB)) == bench.where(stream("userFills", BOB)) == [1]


def test_a_user_that_the_venue_may_still_have_on_a_link_keeps_others_from_it() -> None:
    bench = Bench(max_links=2)
    bench.want(stream("userFills", ALICE))
    bench.acks = False
    bench.unwant(stream("userFills", ALICE))
    bench.want(stream("userFills", BOB))
    assert bench.where(stream("userFills", BOB)) == [1]


def test_two_aggregations_of_a_coin_are_on_two_links_but_slow_and_fast_may_share() -> None:
    bench = Bench(max_links=3)
    bench.want(book("BTC"), book("BTC", fast=True), book("BTC", nSigFigs=5), book("BTC", nSigFigs=5, mantissa=2))
    assert bench.where(book("BTC")) == bench.where(book("BTC", fast=True)) == [0]
    assert bench.where(book("BTC", nSigFigs=5)) == [1]
    assert bench.where(book("BTC", nSigFigs=5, mantissa=2)) == [2]
    bench.want(book("ETH", nSigFigs=5))
    assert bench.where(book("ETH", nSigFigs=5)) == [0], "of another coin"
    assert kinds(bench.want(book("BTC", nSigFigs=None)), Send) == [], "null is the same as not there"


def test_each_link_of_a_redundant_subscription_says_when_it_serves_it() -> None:
    bench = Bench(redundancy=2, backoff_min_s=1.0, backoff_max_s=1.0)
    effects = bench.want(trades("A"), stream("userFills", ALICE))
    assert bench.where(trades("A")) == [0, 1]
    assert bench.where(stream("userFills", ALICE)) == [0], "the streams of a user are on one link"
    fills = stream("userFills", ALICE)
    assert kinds(effects, Up) == [Up(trades("A"), 0), Up(trades("A"), 1), Up(fills, 0)]
    assert len(kinds(effects, Subscribed)) == 3
    assert kinds(bench.cut(1), Down, Up) == [Down(trades("A"), "cut", 1)]
    effects = bench.cut(0)
    assert kinds(effects, Down) == [Down(trades("A"), "cut", 0), Down(fills, "cut", 0)]
    assert bench.pool.state is LinkState.WAITING
    assert len(kinds(bench.go_to(5.0), Up)) == 3


def test_a_refusal_is_told_when_no_link_can_have_it() -> None:
    bench = Bench(redundancy=2)
    bench.acks = False
    bench.want(trades("NOPE"))
    text = "Invalid subscription " + orjson.dumps(trades("NOPE")).decode()
    assert bench.say(0, "error", text) == []
    assert bench.say(1, "error", text) == [Refused(trades("NOPE"), text, 1)]
    assert {state for _, state, _ in bench.pool.subscriptions} == {SubState.FAILED}
    assert len(kinds(bench.want(trades("NOPE")), Send)) == 2, "asked for again, it is tried again"


def test_a_link_without_work_is_closed_after_a_while_and_its_number_starts_no_generation_twice() -> None:
    bench = Bench(subscriptions_per_link=1, max_links=2)
    bench.want(trades("A"), trades("B"))
    bench.unwant(trades("B"))
    assert bench.go_to(9.9) == []
    effects = bench.go_to(10.0)
    assert kinds(effects, Disconnect) == [Disconnect(1, "closed by us", graceful=True, link=1)]
    assert list(bench.pool.links) == [0]
    late = Disconnect(1, "this link was closed", link=1)
    assert bench.pool.on_connected(10.0, 1, 1) == [late]
    assert bench.pool.on_disconnected(10.0, 1, 1, "gone") == bench.pool.on_connect_failed(10.0, 1, 1, "no") == []
    assert bench.pool.on_control(10.0, 1, 1, b"{}") == []
    bench.acks = True
    effects = bench.want(trades("C"))
    assert [effect.generation for effect in effects if isinstance(effect, Connect)] == [2]
    assert bench.pool.counters[1].connects == 2
    bench.unwant(trades("A"), trades("C"))
    bench.go_to(100.0)
    assert list(bench.pool.links) == [0], "the main link stays"


def test_a_link_that_gets_work_in_time_is_kept() -> None:
    bench = Bench(subscriptions_per_link=1, max_links=2)
    bench.want(trades("A"), trades("B"))
    bench.unwant(trades("B"))
    bench.go_to(9.0)
    assert kinds(bench.want(trades("C")), Connect) == []
    assert kinds(bench.go_to(100.0), Disconnect) == []


def test_all_links_share_the_sockets_of_a_minute_and_the_main_one_comes_first() -> None:
    bench = Bench(sockets_per_minute=10, subscriptions_per_link=1, max_links=2, backoff_min_s=0.01, backoff_max_s=0.01)
    bench.want(trades("A"), trades("B"))
    times_s: list[float] = [0.0, 0.0]
    while len(times_s) < 60:
        for number in (1, 0):
            if bench.pool.links[number].state is LinkState.LIVE:
                bench.cut(number)
        effects = bench.go_to(bench.pool.deadline or 0.0)
        times_s += [bench.now_s] * len(kinds(effects, Connect))
    for first, later in zip(times_s, times_s[10:], strict=False):
        assert later >= first + 60.0
    assert bench.pool.counters[0].connects > bench.pool.counters[1].connects


def test_what_waits_for_a_subscription_to_be_given_back_is_sent_when_another_link_gives_one() -> None:
    bench = Bench(max_subscriptions=2, subscriptions_per_link=1, max_links=2)
    bench.want(trades("A"), trades("B"))
    bench.acks = False
    bench.unwant(trades("B"))
    assert kinds(bench.want(trades("C")), Send) == [], "the venue may still have two"
    gone = {"method": "unsubscribe", "subscription": trades("B")}
    sends = kinds(bench.say(1, "subscriptionResponse", gone), Send)
    assert sends == [
        Send(orjson.dumps({"method": "subscribe", "subscription": trades("C")}), bench.where(trades("C"))[0])
    ]


def test_close_ends_every_link_and_tells_the_main_one_last() -> None:
    bench = Bench(subscriptions_per_link=1, max_links=2)
    bench.want(trades("A"), trades("B"))
    effects = bench.do(bench.pool.close(1.0))
    assert [type(effect) for effect in effects] == [Disconnect, Down, StateChanged] * 2
    assert effects[-1] == StateChanged(LinkState.CLOSED, "closed by us")
    assert bench.pool.deadline is None
    with pytest.raises(Closed):
        bench.pool.subscribe(2.0, trades("A"))
    assert bench.pool.close(2.0) == bench.pool.start(2.0) == bench.pool.on_timer(2.0) == []


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"max_links": 11}, "max_links"),
        ({"max_links": 1, "redundancy": 2}, "redundancy"),
        ({"messages_per_minute": 0}, "messages_per_minute"),
        ({"ack_tries": 1.5}, "ack_tries"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        SessionConfig(**settings)
