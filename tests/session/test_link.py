"""The link, with a clock of the test's own: what goes in, what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hlconn.config import SessionConfig
from hlconn.errors import LinkDown, Throttled
from hlconn.limits import Window
from hlconn.session.link import (
    Connect,
    Disconnect,
    Down,
    Effect,
    Forward,
    Link,
    LinkState,
    PostAnswered,
    PostLost,
    Refused,
    Send,
    StateChanged,
    Subscribed,
    SubState,
    Up,
)

Subscription = Mapping[str, Any]
CONFIG = SessionConfig(backoff_min_s=0.25, backoff_max_s=10.0)
BTC: dict[str, Any] = {"type": "l2Book", "coin": "BTC"}
ETH: dict[str, Any] = {"type": "trades", "coin": "ETH"}
PING = Send(b'{"method":"ping"}')
PONG = b'{"channel":"pong"}'


def subscribe(subscription: Subscription) -> Send:
    return Send(orjson.dumps({"method": "subscribe", "subscription": subscription}))


def ack(subscription: Any) -> bytes:
    data = {"method": "subscribe", "subscription": subscription}
    return orjson.dumps({"channel": "subscriptionResponse", "data": data})


def error(text: str) -> bytes:
    return orjson.dumps({"channel": "error", "data": text})


def new(config: SessionConfig = CONFIG, seed: int = 0) -> Link:
    return Link(config, Random(seed))


def live(*subscriptions: Subscription, config: SessionConfig = CONFIG, acked: bool = True) -> Link:
    link = new(config)
    for subscription in subscriptions:
        link.subscribe(0.0, subscription)
    link.start(0.0)
    link.on_connected(0.0, link.generation)
    if acked:
        for subscription in subscriptions:
            link.on_control(0.0, link.generation, ack(subscription))
    return link


def when(link: Link) -> float:
    assert link.deadline is not None
    return link.deadline


def states(link: Link) -> list[SubState]:
    return [state for _, state in link.subscriptions]


def reconnect(link: Link, now_s: float = 1000.0) -> list[Effect]:
    """Cut a live link, let it come back; the effects of the new connection."""
    link.on_disconnected(now_s, link.generation, "cut")
    link.on_timer(when(link))
    return link.on_connected(now_s + 20.0, link.generation)


# States.


def test_start_connects_once() -> None:
    link = new()
    assert link.deadline is None
    assert link.start(5.0) == [StateChanged(LinkState.CONNECTING, "try 1"), Connect(1, 10.0)]
    assert when(link) == 15.0
    assert link.start(5.0) == []


def test_connected_is_told_before_anything_is_sent() -> None:
    link = new()
    link.subscribe(0.0, BTC)
    link.start(0.0)
    assert link.on_connected(1.0, 1) == [StateChanged(LinkState.LIVE, "connected"), subscribe(BTC)]
    assert when(link) == 6.0


def test_an_attempt_that_takes_too_long_is_cut_and_tried_again() -> None:
    link = new()
    link.start(0.0)
    assert link.on_timer(9.9) == []
    reason = "no connection within 10 s"
    assert link.on_timer(10.0) == [Disconnect(1, reason), StateChanged(LinkState.WAITING, reason)]
    assert link.on_timer(when(link)) == [StateChanged(LinkState.CONNECTING, "try 2"), Connect(2, 10.0)]


@pytest.mark.parametrize("event", ["on_connect_failed", "on_disconnected"])
def test_a_failed_attempt_is_tried_again(event: str) -> None:
    link = new()
    link.start(0.0)
    assert getattr(link, event)(1.0, 1, "refused") == [StateChanged(LinkState.WAITING, "refused")]
    assert 1.0 <= when(link) <= 1.25


def test_a_lost_connection_resubscribes_everything_in_the_order_first_asked_for() -> None:
    link = live(BTC, ETH, acked=False)
    link.on_control(0.0, 1, ack(BTC))
    assert states(link) == [SubState.LIVE, SubState.SENT]
    waiting = StateChanged(LinkState.WAITING, "cut")
    assert link.on_disconnected(1.0, 1, "cut") == [Down(BTC, "cut"), Down(ETH, "cut"), waiting], "ETH may have had data"
    assert states(link) == [SubState.WANTED, SubState.WANTED]
    link.on_timer(when(link))
    assert link.on_connected(3.0, 2)[1:] == [subscribe(BTC), subscribe(ETH)]
    assert (link.counters.connects, link.counters.reconnects) == (2, 1)


def test_repeated_and_late_events_are_harmless() -> None:
    link = live(BTC)
    assert link.on_connected(1.0, 1) == []
    assert link.on_connect_failed(1.0, 1, "late") == []
    link.on_disconnected(1.0, 1, "cut")
    due = when(link)
    assert link.on_disconnected(1.1, 1, "again") == []
    assert link.on_connect_failed(1.1, 1, "again") == []
    assert link.on_control(1.1, 1, PONG) == []
    assert when(link) == due
    assert link.on_connected(1.2, 1) == [Disconnect(1, "this connection came too late")]
    link.on_timer(due)
    assert link.on_disconnected(due, 1, "of the old socket") == []
    assert link.on_connected(due, 1) == [Disconnect(1, "this connection came too late")]
    assert link.on_connected(due, 2) == [StateChanged(LinkState.LIVE, "connected"), subscribe(BTC)]
    assert link.on_disconnected(due, 1, "of the old socket") == []
    assert link.state is LinkState.LIVE


@pytest.mark.parametrize("state", LinkState)
def test_close_ends_every_state_for_good(state: LinkState) -> None:
    link = new()
    if state is not LinkState.IDLE:
        link.start(0.0)
    if state is LinkState.LIVE:
        link.on_connected(0.0, 1)
    if state is LinkState.WAITING:
        link.on_connect_failed(0.0, 1, "refused")
    if state is LinkState.CLOSED:
        link.close(0.0)
    assert link.state is state
    expected: list[Effect] = []
    if state in (LinkState.CONNECTING, LinkState.LIVE):
        expected.append(Disconnect(1, "closed by us", graceful=True))
    if state is not LinkState.CLOSED:
        expected.append(StateChanged(LinkState.CLOSED, "closed by us"))
    assert link.close(1.0) == expected
    assert link.deadline is None
    assert link.start(2.0) == link.on_timer(99.0) == link.subscribe(2.0, BTC) == link.close(2.0) == []
    assert link.on_disconnected(2.0, 1, "") == link.on_connect_failed(2.0, 1, "") == []
    assert link.on_control(2.0, 1, PONG) == link.unsubscribe(2.0, BTC) == []
    assert link.on_connected(2.0, 1) == [Disconnect(1, "this connection came too late")]


# Ping.


def test_a_ping_goes_out_every_interval_also_while_data_flows_and_a_pong_satisfies_it() -> None:
    link = live()
    for n in range(1, 5):
        assert link.on_timer(5.0 * n) == [PING]
        link.on_control(5.0 * n + 1.0, 1, PONG)
        assert when(link) == 5.0 * (n + 1)
    assert (link.counters.pings, link.counters.pongs) == (4, 4)


def test_no_pong_in_time_ends_the_connection() -> None:
    link = live(config=SessionConfig(pong_timeout_s=7.0))
    assert link.on_timer(5.0) == [PING]
    assert link.on_timer(10.0) == [PING], "another one, whose pong would also do"
    reason = "no pong within 7 s of a ping"
    assert link.on_timer(12.0) == [Disconnect(1, reason), StateChanged(LinkState.WAITING, reason)]
    assert link.on_connected(12.0, 1) == [Disconnect(1, "this connection came too late")]


def test_a_pong_of_the_old_connection_proves_nothing_about_the_new_one() -> None:
    link = live()
    reconnect(link)
    assert link.on_timer(1025.0) == [PING]
    link.on_control(1026.0, 1, PONG)
    assert when(link) == 1030.0
    assert link.on_timer(1030.0)[0] == Disconnect(2, "no pong within 5 s of a ping")


# Backoff.


def test_backoff_is_full_jitter_that_doubles_up_to_its_maximum() -> None:
    ceilings = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    delays: dict[int, list[float]] = {n: [] for n in range(len(ceilings))}
    for seed in range(300):
        link, now_s = new(seed=seed), 0.0
        link.start(now_s)
        for n, ceiling in enumerate(ceilings):
            link.on_connect_failed(now_s, link.generation, "refused")
            assert now_s <= when(link) <= now_s + ceiling
            delays[n].append(when(link) - now_s)
            now_s = when(link)
            link.on_timer(now_s)
    for n, ceiling in enumerate(ceilings):
        assert max(delays[n]) > 0.9 * ceiling
        assert min(delays[n]) < 0.1 * ceiling, "full jitter starts at zero"
        assert 0.4 * ceiling < sum(delays[n]) / len(delays[n]) < 0.6 * ceiling


def test_backoff_never_overflows() -> None:
    link = new(SessionConfig(sockets_per_minute=10**6))
    link.start(0.0)
    for _ in range(3000):
        link.on_connect_failed(0.0, link.generation, "refused")
        assert when(link) <= 10.0
        link.on_timer(10.0)


@pytest.mark.parametrize(("lived_s", "tries"), [(9.9, 2), (10.0, 1)])
def test_only_a_connection_that_lasted_clears_the_backoff(lived_s: float, tries: int) -> None:
    link = new()
    link.start(0.0)
    link.on_connect_failed(0.0, 1, "refused")
    link.on_timer(1.0)
    link.on_connected(1.0, 2)
    link.on_disconnected(1.0 + lived_s, 2, "cut")
    ceiling = CONFIG.backoff_min_s * 2 ** (tries - 1)
    assert when(link) <= 1.0 + lived_s + ceiling
    assert link.on_timer(99.0)[0] == StateChanged(LinkState.CONNECTING, f"try {tries + 1}")


def test_at_most_so_many_sockets_in_any_minute() -> None:
    link = new(SessionConfig(backoff_min_s=0.001, backoff_max_s=0.001, sockets_per_minute=30))
    times, now_s = [], 0.0
    link.start(now_s)
    for _ in range(200):
        times.append(now_s)
        link.on_connected(now_s, link.generation)
        link.on_disconnected(now_s, link.generation, "cut at once")
        now_s = when(link)
        link.on_timer(now_s)
    assert all(later - first >= 60.0 - 1e-6 for first, later in zip(times, times[30:], strict=False))
    assert times[29] < 1.0, "the budget is there to be used"


# Subscriptions.


def test_a_subscription_keeps_its_key_order_on_the_wire_and_is_one_whatever_the_order() -> None:
    link = live()
    wire = b'{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC","nSigFigs":5}}'
    assert link.subscribe(0.0, {"type": "l2Book", "coin": "BTC", "nSigFigs": 5}) == [Send(wire)]
    assert link.subscribe(0.0, {"nSigFigs": 5, "coin": "BTC", "type": "l2Book"}) == []
    assert len(link.subscriptions) == 1


def test_addresses_are_one_in_any_case_but_coins_are_not() -> None:
    link = new()
    for subscription in (
        {"type": "userFills", "user": "0x" + "AB" * 20},
        {"type": "userFills", "user": "0x" + "ab" * 20},
        {"type": "trades", "coin": "kPEPE"},
        {"type": "trades", "coin": "KPEPE"},
    ):
        link.subscribe(0.0, subscription)
    assert len(link.subscriptions) == 3


def test_what_is_given_is_copied() -> None:
    link, given = new(), dict(BTC)
    link.subscribe(0.0, given)
    given["coin"] = "ETH"
    link.subscriptions[0][0]["coin"] = "SOL"
    assert link.subscriptions == [(BTC, SubState.WANTED)]


def test_what_is_not_json_is_refused_at_once_and_leaves_nothing() -> None:
    link = new()
    with pytest.raises(TypeError):
        link.subscribe(0.0, {"type": object()})
    assert link.subscriptions == []


def test_unsubscribe_tells_the_venue_only_what_it_knows() -> None:
    link = live(BTC)
    link.subscribe(0.0, ETH)
    assert link.unsubscribe(1.0, {"coin": "BTC", "type": "l2Book"}) == [
        Send(orjson.dumps({"method": "unsubscribe", "subscription": BTC}))
    ]
    assert link.unsubscribe(1.0, BTC) == []
    assert link.on_control(1.0, 1, error("Already unsubscribed: " + orjson.dumps(BTC).decode())) == []
    assert reconnect(link)[1:] == [subscribe(ETH)]
    link.on_disconnected(2000.0, link.generation, "cut")
    assert link.unsubscribe(2000.0, ETH) == []
    assert link.subscriptions == []


@pytest.mark.parametrize(
    ("sent", "echo"),
    [
        (BTC, {"coin": "BTC", "type": "l2Book"}),
        (BTC, {"type": "l2Book", "coin": "BTC", "nSigFigs": None, "mantissa": None}),
        (BTC, {"type": "l2Book", "coin": "BTC", "fast": False}),
        ({**BTC, "nSigFigs": None}, BTC),
        ({"type": "userFills", "user": "0x" + "aB" * 20}, {"type": "userFills", "user": "0x" + "ab" * 20, "x": 1}),
    ],
)
def test_an_ack_matches_although_the_venue_rewrites_the_object(sent: Subscription, echo: Any) -> None:
    link = live(sent, acked=False)
    link.on_control(0.0, 1, ack(echo))
    assert states(link) == [SubState.LIVE]
    assert when(link) == 5.0


@pytest.mark.parametrize("echo", [{**BTC, "coin": "btc"}, {"type": "l2Book"}, ETH, [], None, "l2Book"])
def test_an_ack_of_something_else_matches_nothing(echo: Any) -> None:
    link = live(BTC, acked=False)
    link.on_control(0.0, 1, ack(echo))
    assert states(link) == [SubState.SENT]


def test_of_several_that_match_the_one_with_most_keys_is_acked() -> None:
    full = {**BTC, "nSigFigs": 5}
    link = live(BTC, full, acked=False)
    link.on_control(0.0, 1, ack({**full, "mantissa": 2}))
    assert states(link) == [SubState.SENT, SubState.LIVE]
    link.on_control(0.0, 1, ack({**BTC, "nSigFigs": None}))
    assert states(link) == [SubState.LIVE, SubState.LIVE]


def test_already_subscribed_is_an_ack() -> None:
    link = live(BTC, acked=False)
    assert link.on_control(0.0, 1, error("Already subscribed: " + orjson.dumps(BTC).decode())) == [
        Subscribed(BTC),
        Up(BTC),
    ]
    assert states(link) == [SubState.LIVE]
    assert (link.counters.errors, link.last_error) == (0, "")


def test_an_ack_is_told_as_the_subscription_was_given_once_on_each_connection() -> None:
    orders = {"type": "orderUpdates", "user": "0x" + "AB" * 20}
    link = live(orders, acked=False)
    echo = ack({"user": "0x" + "ab" * 20, "type": "orderUpdates"})
    assert link.on_control(0.0, 1, echo) == [Subscribed(orders), Up(orders)]
    assert link.on_control(0.0, 1, echo) == []
    reconnect(link)
    assert link.on_control(2000.0, link.generation, echo) == [Subscribed(orders), Up(orders)]


def test_the_refusal_of_a_post_is_passed_on_and_explains_no_silence() -> None:
    link = live(BTC, acked=False)
    message = error("too many pending post requests id=7")
    assert link.on_control(0.0, 1, message) == [Forward("error", message)]
    assert (link.counters.errors, link.last_error) == (1, "")


def test_a_lost_acknowledgement_costs_only_its_own_subscription_until_it_was_sent_three_times() -> None:
    config = SessionConfig(ping_interval_s=100.0)
    link = live(ETH, BTC, config=config, acked=False)
    link.on_control(0.0, 1, ack(ETH))
    assert when(link) == 5.0
    assert link.on_timer(5.0) == [subscribe(BTC)]
    assert link.on_timer(10.0) == [subscribe(BTC)]
    assert states(link) == [SubState.LIVE, SubState.SENT]
    assert link.counters.resends == 2
    reason = f"no answer to the subscription {orjson.dumps(BTC).decode()}, sent 3 times"
    assert link.on_timer(15.0) == [
        Disconnect(1, reason), Down(ETH, reason), Down(BTC, reason), StateChanged(LinkState.WAITING, reason)
    ]  # fmt: skip
    link.on_timer(when(link))
    assert link.on_connected(20.0, 2)[1:] == [subscribe(ETH), subscribe(BTC)]
    link.on_control(20.0, 2, ack(ETH))
    times = [25.0, 30.0, 35.0, 40.0, 50.0, 65.0]
    for time_s in times:
        assert when(link) == time_s
        assert link.on_timer(time_s) == [subscribe(BTC)], "a socket is given up for this once in a minute at most"
    assert isinstance(link.on_timer(when(link))[0], Disconnect)
    assert link.counters.replaced == 2


@pytest.mark.parametrize(
    "text",
    [
        'Invalid subscription {"coin":"BTC","type":"l2Book"}',
        'Invalid subscription: {"type":"l2Book","coin":"BTC","nSigFigs":null}',
        "Error parsing JSON into valid websocket request: " + subscribe(BTC).data.decode(),
    ],
)
def test_a_refusal_fails_its_subscription_with_the_venues_words_and_it_is_not_sent_again(text: str) -> None:
    link = live(BTC, ETH, acked=False)
    assert link.on_control(0.0, 1, error(text)) == [Refused(BTC, text)]
    assert states(link) == [SubState.FAILED, SubState.SENT]
    assert link.counters.errors == 1
    assert link.last_error == "", "it belonged to a subscription"
    assert reconnect(link)[1:] == [subscribe(ETH)]
    assert link.subscribe(2000.0, BTC) == [subscribe(BTC)], "asked for again, it is tried again"
    assert states(link)[0] is SubState.SENT
    link.on_control(2000.0, link.generation, error(text))
    assert link.unsubscribe(2000.0, BTC) == []


@pytest.mark.parametrize(
    "text",
    [
        "Cannot track more than 15 total users.",
        "Invalid subscription {",
        "Invalid subscription }{",
        "Error parsing JSON into valid websocket request: [1]",
        "",
    ],
)
def test_an_error_that_matches_nothing_is_counted_and_kept(text: str) -> None:
    link = live(BTC, acked=False)
    assert link.on_control(0.0, 1, error(text)) == []
    assert (link.counters.errors, link.last_error) == (1, text)
    assert states(link) == [SubState.SENT]


def test_a_refusal_that_names_what_is_no_longer_wanted_says_nothing_about_the_others() -> None:
    link = live(BTC, acked=False)
    assert link.on_control(0.0, 1, error('Invalid subscription {"type":"bbo","coin":"BTC"}')) == []
    assert (link.counters.errors, link.last_error) == (1, "")
    assert states(link) == [SubState.SENT]


TOO_MANY = "Cannot subscribe to more than 1000 channels."
TOO_MANY_USERS = "Cannot track more than 15 total users."
OF_A_USER: dict[str, Any] = {"type": "userFills", "user": "0x" + "ab" * 20}


def meet_the_limit(link: Link, subscription: Subscription, from_s: float, text: str = TOO_MANY) -> list[Effect]:
    """The venue answers each of its next two tries with words about a limit; what follows from the second."""
    link.on_control(from_s, link.generation, error(text))
    assert link.on_timer(from_s + 5.0) == [subscribe(subscription)]
    link.on_control(from_s + 5.0, link.generation, error(text))
    return link.on_timer(from_s + 10.0)


def come_back(link: Link, now_s: float) -> list[Effect]:
    """Cut, and live again ten seconds later, with trades of ETH served; what the new connection began with."""
    link.on_disconnected(now_s - 10.0, link.generation, "cut")
    link.on_timer(when(link))
    effects = link.on_connected(now_s, link.generation)
    link.on_control(now_s, link.generation, ack(ETH))
    return effects


@pytest.mark.parametrize(
    ("subscription", "text"),
    [
        (BTC, TOO_MANY),
        (BTC, "cannot subscribe to more than 500 channels"),
        (OF_A_USER, TOO_MANY),
        (OF_A_USER, TOO_MANY_USERS),
    ],
)
def test_silence_after_the_venue_spoke_of_a_limit_is_a_refusal(subscription: Subscription, text: str) -> None:
    link = live(ETH, subscription, config=SessionConfig(ping_interval_s=1000.0), acked=False)
    link.on_control(0.0, 1, ack(ETH))
    assert meet_the_limit(link, subscription, 0.0, text) == [Refused(dict(subscription), text)]
    assert link.state is LinkState.LIVE
    assert states(link) == [SubState.LIVE, SubState.FAILED]
    link.subscribe(20.0, subscription)
    link.on_timer(25.0)
    link.on_timer(30.0)
    assert isinstance(link.on_timer(35.0)[0], Disconnect), "what was said before it was sent explains nothing"


@pytest.mark.parametrize(
    "text",
    [
        "Internal error",
        "Rate limited: more than 2000 messages",
        "Order book not ready for streaming (waiting for snapshot)",
        TOO_MANY_USERS,
    ],
)
def test_lost_answers_and_words_about_something_else_refuse_nothing(text: str) -> None:
    link = live(BTC, config=SessionConfig(ping_interval_s=1000.0), acked=False)
    assert meet_the_limit(link, BTC, 0.0, text) == [subscribe(BTC)]
    assert states(link) == [SubState.SENT]
    assert link.on_control(11.0, 1, ack(BTC)) == [Subscribed(BTC), Up(BTC)]


def test_what_was_served_once_is_never_taken_for_refused_for_a_limit_but_tried_ever_more_slowly() -> None:
    link = live(ETH, BTC, config=SessionConfig(ping_interval_s=100_000.0))
    assert reconnect(link, 100.0)[1:] == [subscribe(ETH), subscribe(BTC)]
    link.on_control(120.0, 2, ack(ETH))
    tries_s = [120.0]
    while tries_s[-1] < 1000.0:
        link.on_control(tries_s[-1], 2, error(TOO_MANY))  # for the venue still counts the connection before
        tries_s.append(when(link))
        assert link.on_timer(tries_s[-1]) == [subscribe(BTC)], "no refusal, and no new socket: it meets the same limit"
    waits_s = [later - sooner for sooner, later in pairwise(tries_s)]
    assert waits_s[:6] == [5.0, 5.0, 5.0, 5.0, 10.0, 15.0]
    assert set(waits_s[6:]) == {20.0}
    assert link.on_control(1001.0, 2, ack(BTC)) == [Subscribed(BTC), Up(BTC)]


def test_a_refusal_for_a_limit_is_tried_again_on_a_later_connection_ever_more_rarely_and_told_once() -> None:
    link = live(ETH, BTC, config=SessionConfig(ping_interval_s=100_000.0), acked=False)
    link.on_control(0.0, 1, ack(ETH))
    assert meet_the_limit(link, BTC, 0.0) == [Refused(BTC, TOO_MANY)]
    assert link.on_timer(300.0) == [], "nothing has changed on this connection"
    refused_s = 10.0
    for patience_s in (60.0, 120.0, 240.0):
        assert come_back(link, refused_s + 20.0)[1:] == [subscribe(ETH)]
        assert states(link) == [SubState.LIVE, SubState.FAILED]
        again_s = when(link)
        assert again_s == refused_s + patience_s
        assert link.on_timer(again_s) == [subscribe(BTC)]
        assert meet_the_limit(link, BTC, again_s) == [], "its owner knows"
        assert states(link) == [SubState.LIVE, SubState.FAILED]
        refused_s = again_s + 10.0
    assert come_back(link, 5000.0)[1:] == [subscribe(ETH)]
    assert link.on_timer(when(link)) == [subscribe(BTC)], "now, for it was long enough ago"
    assert link.on_control(5001.0, link.generation, ack(BTC)) == [Subscribed(BTC), Up(BTC)]


def test_a_refusal_for_a_limit_is_told_again_to_who_asks_again() -> None:
    link = live(BTC, config=SessionConfig(ping_interval_s=1000.0), acked=False)
    assert meet_the_limit(link, BTC, 0.0) == [Refused(BTC, TOO_MANY)]
    assert link.subscribe(20.0, BTC) == [subscribe(BTC)]
    assert meet_the_limit(link, BTC, 20.0) == [Refused(BTC, TOO_MANY)]
    assert link.unsubscribe(31.0, BTC) == [unsubscribe(BTC)], "for it may be on after all"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b'"pong"',
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"channel":[]}',
        b'{"channel":"error"}',
        b'{"channel":"error","data":{}}',
        b'{"channel":"subscriptionResponse"}',
        b'{"channel":"trades","data":[]}',
        b"[" * 100_000,
    ],
)
def test_a_bad_control_message_is_counted_and_changes_nothing(message: bytes) -> None:
    link = live(BTC, acked=False)
    assert link.on_control(0.0, 1, message) == []
    assert link.counters.bad_controls == 1
    assert states(link) == [SubState.SENT]


def test_an_echo_nested_too_deeply_to_write_is_harmless() -> None:
    link = live(BTC, acked=False)
    deep = b"[" * 500 + b"]" * 500
    message = b'{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":{"type":%s}}}' % deep
    assert link.on_control(0.0, 1, message) == []
    assert states(link) == [SubState.SENT]


def test_a_thousand_subscriptions_each_in_their_own_message() -> None:
    wanted = [{"type": "trades", "coin": f"C{n}"} for n in range(1000)]
    link = live(*wanted)
    assert states(link) == [SubState.LIVE] * 1000
    assert reconnect(link)[1:] == [subscribe(w) for w in wanted]


# Unsubscribing.


def unsubscribe(subscription: Subscription) -> Send:
    return Send(orjson.dumps({"method": "unsubscribe", "subscription": subscription}))


def unsubscribed(subscription: Any) -> bytes:
    data = {"method": "unsubscribe", "subscription": subscription}
    return orjson.dumps({"channel": "subscriptionResponse", "data": data})


def test_an_unsubscribe_without_an_answer_is_sent_again_until_it_is_answered() -> None:
    link = live(BTC, config=SessionConfig(ping_interval_s=1000.0))
    assert link.unsubscribe(0.0, BTC) == [unsubscribe(BTC)]
    assert link.subscriptions == []
    for time_s in (5.0, 10.0, 15.0, 20.0, 30.0):
        assert when(link) == time_s
        assert link.on_timer(time_s) == [unsubscribe(BTC)]
    link.on_control(31.0, 1, error("Already unsubscribed: " + orjson.dumps(BTC).decode()))
    assert when(link) == 1000.0
    assert list(link.holds) == []


def test_what_is_wanted_again_is_sent_only_when_the_venue_has_answered_that_it_ended() -> None:
    link = live(BTC)
    link.unsubscribe(0.0, BTC)
    assert link.subscribe(0.1, BTC) == []
    assert link.on_control(0.2, 1, ack(BTC)) == [], "of the one before"
    down = Down(BTC, "it was unsubscribed, and is subscribed to again")
    assert link.on_control(0.2, 1, unsubscribed(BTC)) == [down, subscribe(BTC)], (
        "data of before may have come meanwhile"
    )
    assert link.on_control(0.3, 1, ack(BTC)) == [Subscribed(BTC), Up(BTC)]
    link.unsubscribe(1.0, BTC)
    link.subscribe(1.0, BTC)
    link.on_timer(5.0)
    assert link.on_timer(6.0) == [down, subscribe(BTC)], "its answer was lost: the venue will say if it is still on"


def test_what_is_wanted_no_longer_before_it_was_answered_is_unsubscribed_after_that() -> None:
    link = live(BTC, acked=False)
    assert link.unsubscribe(0.1, BTC) == []
    assert link.on_control(0.2, 1, ack(BTC)) == [unsubscribe(BTC)]
    assert link.on_control(0.3, 1, unsubscribed(BTC)) == []
    assert list(link.holds) == []


# Data are the proof.

FAST: dict[str, Any] = {"type": "l2Book", "coin": "BTC", "fast": True}


class Flow:
    """Counts by coin and kind, moved by the test."""

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}

    def __call__(self, subscription: Subscription) -> int:
        return self.counts.get(orjson.dumps(subscription), 0)

    def move(self, subscription: Subscription) -> None:
        self.counts[orjson.dumps(subscription)] = self(subscription) + 1


def flowing(*subscriptions: Subscription) -> tuple[Link, Flow]:
    flow = Flow()
    link = Link(SessionConfig(ping_interval_s=1000.0), Random(0), flow=flow)
    for subscription in subscriptions:
        link.subscribe(0.0, subscription)
    link.start(0.0)
    link.on_connected(0.0, 1)
    for subscription in subscriptions:
        link.on_control(0.0, 1, ack(subscription))
    return link, flow


def run_to(link: Link, time_s: float) -> list[Effect]:
    effects: list[Effect] = []
    while link.state is LinkState.LIVE and when(link) <= time_s:
        effects += link.on_timer(when(link))
    return effects


def test_a_periodic_stream_is_live_only_once_it_brings_data() -> None:
    link, flow = flowing(FAST, ETH)
    assert states(link) == [SubState.ACKED, SubState.LIVE], "trades may rightly be silent"
    flow.move(FAST)
    assert states(link) == [SubState.LIVE, SubState.LIVE]


def test_an_acknowledgement_without_data_is_subscribed_to_again_and_then_costs_the_socket() -> None:
    link, _ = flowing(FAST, ETH)
    assert run_to(link, 2.9) == []
    assert run_to(link, 3.0) == [Down(FAST, "silent for 3.0 s"), unsubscribe(FAST)]
    assert states(link) == [SubState.STALE, SubState.LIVE]
    assert link.on_control(3.1, 1, unsubscribed(FAST)) == [subscribe(FAST)]
    assert link.on_control(3.2, 1, ack(FAST)) == [Subscribed(FAST)], "not up: only data can prove it now"
    assert states(link) == [SubState.STALE, SubState.LIVE]
    reason = f"no data of {orjson.dumps(FAST).decode()}, also after subscribing again"
    assert run_to(link, 7.0) == [Disconnect(1, reason), Down(ETH, reason), StateChanged(LinkState.WAITING, reason)]


def test_a_stream_that_speaks_again_after_it_was_subscribed_to_again_is_up() -> None:
    link, flow = flowing(FAST, ETH)
    run_to(link, 3.0)
    link.on_control(3.1, 1, unsubscribed(FAST))
    link.on_control(3.2, 1, ack(FAST))
    flow.move(FAST)
    assert run_to(link, 4.0) == [Up(FAST)]
    assert states(link) == [SubState.LIVE, SubState.LIVE]
    for n in range(8, 20):
        flow.move(FAST)
        assert run_to(link, n / 2 + 0.4) == []
    assert run_to(link, 12.4) == []
    assert run_to(link, 13.4)[-1] == unsubscribe(FAST), "a later silence is a new one"


def test_a_silent_stream_that_spoke_again_just_before_the_connection_ended_is_down_once_more() -> None:
    link, flow = flowing(FAST)
    assert run_to(link, 3.0)[0] == Down(FAST, "silent for 3.0 s")
    link.on_control(3.1, 1, unsubscribed(FAST))
    link.on_control(3.2, 1, ack(FAST))
    assert states(link) == [SubState.STALE]
    flow.move(FAST)  # whoever reads it takes it for live from here on; the link looks a moment later
    assert link.on_disconnected(3.3, 1, "cut")[0] == Down(FAST, "cut")


BBO: dict[str, Any] = {"type": "bbo", "coin": "BTC"}


def test_a_bbo_is_live_with_its_first_message_and_may_be_silent_after_it() -> None:
    link, flow = flowing(BBO, FAST)
    assert states(link) == [SubState.ACKED, SubState.ACKED]
    flow.move(BBO)
    assert states(link) == [SubState.LIVE, SubState.ACKED]
    for n in range(20):
        flow.move(FAST)
        assert run_to(link, n / 2 + 0.4) == []


def test_a_bbo_without_its_first_message_is_subscribed_to_again_a_few_times_and_costs_no_socket() -> None:
    other = {**BBO, "coin": "ETH"}
    link, flow = flowing(BBO, other)
    flow.move(other)
    told: list[Effect] = []
    for silent_since_s, waits_s in (0.0, 3.0), (3.0, 3.0), (6.0, 6.0):
        now_s = silent_since_s + waits_s
        told += run_to(link, now_s)
        assert link.on_control(now_s, 1, unsubscribed(BBO)) == [subscribe(BBO)]
        told += link.on_control(now_s, 1, ack(BBO))
    again = [unsubscribe(BBO), Subscribed(BBO)]
    assert told[:-1] == [Down(BBO, "silent for 3.0 s"), *again, *again, *again]
    assert told[-1] == Up(BBO), "there may be nothing to bring: its word has to do"
    assert run_to(link, 500.0) == []
    assert link.counters.replaced == 0


def test_a_bbo_that_is_proved_as_it_is_acknowledged_puts_off_no_look_at_another_stream() -> None:
    link, flow = flowing(FAST)
    link.subscribe(2.8, BBO)
    flow.move(BBO)
    assert link.on_control(2.9, 1, ack(BBO)) == [Subscribed(BBO), Up(BBO)]
    assert run_to(link, 3.0) == [Down(FAST, "silent for 3.0 s"), unsubscribe(FAST)]


def test_a_bbo_whose_first_message_was_lost_is_up_once_it_came() -> None:
    link, flow = flowing(BBO)
    assert run_to(link, 3.0) == [Down(BBO, "silent for 3.0 s"), unsubscribe(BBO)]
    link.on_control(3.1, 1, unsubscribed(BBO))
    assert link.on_control(3.2, 1, ack(BBO)) == [Subscribed(BBO)]
    flow.move(BBO)
    assert run_to(link, 4.0) == [Up(BBO)]
    assert run_to(link, 500.0) == []


def use_up_the_budget(link: Link, now_s: float) -> None:
    """Of this minute, for streams of the market."""
    for _ in range(SessionConfig().messages_per_minute):
        link._limits.take(now_s, "market")


def test_what_was_to_be_given_up_and_is_wanted_again_goes_down_when_it_falls_silent() -> None:
    link, flow = flowing(FAST, ETH)
    flow.move(FAST)
    run_to(link, 1.0)
    use_up_the_budget(link, 1.0)
    assert link.unsubscribe(1.0, FAST) == []
    assert run_to(link, 10.0) == [], "nothing is told about what nobody wants"
    assert link.subscribe(10.0, FAST) == [Subscribed(FAST), Up(FAST)]
    assert run_to(link, 12.9) == [], "nobody listened before"
    assert run_to(link, 13.0) == [Down(FAST, "silent for 3.0 s")]
    assert run_to(link, 60.9) == [], "subscribing again waits for room, and until then the socket is not to blame"
    assert run_to(link, 61.0) == [unsubscribe(FAST)]


def test_how_long_an_acknowledgement_took_is_told_where_one_was_waited_for() -> None:
    def waited_s(effects: list[Effect]) -> list[float | None]:
        return [effect.waited_s for effect in effects if isinstance(effect, Subscribed)]

    link = live(BTC, ETH, acked=False)
    assert waited_s(link.on_control(0.25, 1, ack(BTC))) == [0.25]
    link.on_timer(5.0)
    assert waited_s(link.on_control(5.5, 1, ack(ETH))) == [5.5], "since it was first sent"
    use_up_the_budget(link, 6.0)
    link.unsubscribe(6.0, BTC)
    assert waited_s(link.subscribe(6.0, BTC)) == [None], "nothing was sent"
    link, flow = flowing(ETH)
    link.subscribe(1.0, FAST)
    flow.move(FAST)
    assert waited_s(run_to(link, 6.0)) == [None], "its data have said so, some time before we looked"


def test_a_silence_is_not_over_because_the_stream_was_not_wanted_for_a_moment() -> None:
    link, flow = flowing(FAST, ETH)
    use_up_the_budget(link, 1.0)
    assert run_to(link, 3.0) == [Down(FAST, "silent for 3.0 s")]
    assert link.unsubscribe(3.1, FAST) == []
    assert link.subscribe(3.2, FAST) == []
    assert run_to(link, 4.0) == []
    assert states(link) == [SubState.STALE, SubState.LIVE]
    flow.move(FAST)
    assert run_to(link, 5.0) == [Up(FAST)]


def test_a_stream_that_speaks_before_it_could_be_unsubscribed_is_left_alone() -> None:
    link, flow = flowing(FAST, ETH)
    use_up_the_budget(link, 1.0)
    assert run_to(link, 3.0) == [Down(FAST, "silent for 3.0 s")]
    effects = []
    for n in range(4, 64):
        flow.move(FAST)
        effects += run_to(link, float(n))
    assert effects == [Up(FAST)]


def test_a_link_on_which_nothing_flows_is_replaced_at_once() -> None:
    other = {**FAST, "coin": "ETH"}
    link, flow = flowing(FAST, other)
    flow.move(FAST)
    flow.move(other)
    effects = run_to(link, 10.0)
    assert Disconnect(1, "none of 2 periodic streams brings data") in effects
    assert unsubscribe(FAST) not in effects


def test_a_stream_whose_answer_was_lost_is_up_by_its_data() -> None:
    flow = Flow()
    link = Link(SessionConfig(ping_interval_s=1000.0), Random(0), flow=flow)
    link.subscribe(0.0, FAST)
    link.start(0.0)
    link.on_connected(0.0, 1)
    flow.move(FAST)
    assert link.on_timer(5.0) == [Subscribed(FAST), Up(FAST)]


def test_a_timer_that_comes_late_judges_nobody_before_what_arrived_meanwhile_was_read() -> None:
    link = live()
    assert link.on_timer(5.0) == [PING]
    assert link.on_timer(11.0) == [], "our own loop stood still: the pong may lie unread"
    assert when(link) == 11.25
    link.on_control(11.0, 1, PONG)
    assert link.on_timer(11.25) == [PING]
    assert link.on_timer(17.0) == []
    assert isinstance(link.on_timer(17.25)[0], Disconnect), "once; then it is the venue's silence"


# Posts.


def test_a_post_is_answered_or_lost_exactly_once() -> None:
    link = live(config=SessionConfig(ping_interval_s=1000.0))
    for post_id in (1, 2, 3):
        assert link.post(0.0, post_id, b"p%d" % post_id, 2.0) == [Send(b"p%d" % post_id)]
    answer = b'{"channel":"post","data":{"id":1,"response":{}}}'
    assert link.on_control(0.5, 1, answer) == [PostAnswered(1, answer)]
    assert link.on_control(0.6, 1, answer) == [Forward("post", answer)], "told a second time"
    refused = error("too many pending post requests id=2")
    assert link.on_control(0.7, 1, refused) == [PostAnswered(2, refused)]
    assert when(link) == 2.0
    assert link.on_timer(2.0) == [PostLost(3, "no answer in time")]
    late = b'{"data":{"response":{}, "id":3}, "channel":"post"}'
    assert link.on_control(2.1, 1, late) == [Forward("post", late)]
    link.post(3.0, 4, b"p4", 2.0)
    waiting = StateChanged(LinkState.WAITING, "cut")
    assert link.on_disconnected(3.1, 1, "cut") == [PostLost(4, "the link went down: cut"), waiting]
    assert (link.counters.posts, link.counters.posts_lost) == (4, 2)


def test_a_post_that_cannot_go_out_raises_and_is_not_in_flight() -> None:
    link = new()
    with pytest.raises(LinkDown, match="idle"):
        link.post(0.0, 1, b"p", 2.0)
    link = live()
    for post_id in range(100):
        link.post(0.0, post_id, b"p", 2.0)
    with pytest.raises(Throttled, match="100 posts"):
        link.post(0.0, 100, b"p", 2.0)
    with pytest.raises(ValueError, match="already"):
        link.post(0.0, 99, b"p", 2.0)
    lost = [effect for effect in link.close(1.0) if isinstance(effect, PostLost)]
    assert [effect.post_id for effect in lost] == list(range(100))


# Budgets.


def test_a_window_never_holds_more_than_its_limit() -> None:
    window, rng, now_s = Window(7, 10.0), Random(1), 0.0
    taken: list[float] = []
    for _ in range(3000):
        now_s += rng.choice([0.0, 0.1, 3.3])
        reserve = rng.choice([0, 0, 3, 100])
        free_s = window.free_at(now_s, reserve)
        assert free_s >= now_s
        within = sum(now_s < t + 10.0 for t in taken)
        assert (free_s == now_s) == (within < max(1, 7 - reserve))
        if free_s == now_s:
            window.take(now_s)
            taken.append(now_s)
    for first, later in zip(taken, taken[7:], strict=False):
        assert later >= first + 10.0


def test_subscriptions_leave_room_for_pings_and_posts_and_wait_for_theirs() -> None:
    config = SessionConfig(messages_per_minute=100, max_links=1, ping_interval_s=1000.0)
    link = new(config)
    for n in range(120):
        link.subscribe(0.0, {"type": "trades", "coin": f"C{n}"})
    link.subscribe(0.0, {"type": "userFills", "user": "0x" + "ab" * 20})
    link.start(0.0)
    sent = [effect.data for effect in link.on_connected(0.0, 1) if isinstance(effect, Send)]
    assert b"userFills" in sent[0], "streams of the user first"
    assert len(sent) == 1 + 75
    for sub in sent:
        link.on_control(0.0, 1, ack(orjson.loads(sub)["subscription"]))
    assert link.post(1.0, 1, b"p", 2.0) == [Send(b"p")]
    assert run_to(link, 59.9) == [PostLost(1, "no answer in time")]
    rest = link.on_timer(60.0)
    assert len(rest) == 45
    assert rest[0] == subscribe({"type": "trades", "coin": "C75"}), "oldest first"


def test_posts_leave_room_for_cancels_and_subscriptions_and_pings() -> None:
    config = SessionConfig(messages_per_minute=100, max_links=1, ping_interval_s=30.0)
    link = live(config=config)
    for n in range(75):
        link.post(0.0, n, b"p", 2.0)
    with pytest.raises(Throttled, match="share of posts") as caught:
        link.post(15.0, 75, b"p", 2.0)
    assert caught.value.retry_after_s == 45.0
    assert link.subscribe(15.0, BTC) == [subscribe(BTC)]
    for n in range(80, 100):
        link.post(15.0, n, b"p", 2.0, urgent=True)
    link.post(15.0, 100, b"p", 2.0, urgent=True)
    with pytest.raises(Throttled, match="share of cancels"):
        link.post(15.0, 101, b"p", 2.0, urgent=True)
    assert PING in run_to(link, 30.0)


# Anything, in any order.

SUBSCRIPTIONS = [{"type": "trades", "coin": c} for c in "ABCD"]


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.config = SessionConfig(sockets_per_minute=4, backoff_min_s=0.1, backoff_max_s=1.0)
        self.link = Link(self.config, Random(1))
        self.now_s = 100.0
        self.connects_s: list[float] = []
        self.told = LinkState.IDLE
        self.closed = False

    def take(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            assert not self.closed or isinstance(effect, Disconnect)
            if isinstance(effect, Connect):
                self.connects_s.append(self.now_s)
                recent = [t for t in self.connects_s if t > self.now_s - 60.0 + 1e-6]
                assert len(recent) <= 4
                assert effect.generation == self.link.generation
            elif isinstance(effect, StateChanged):
                assert effect.state is not self.told
                self.told = effect.state
        return effects

    @rule()
    def start(self) -> None:
        self.take(self.link.start(self.now_s))

    @rule(sub=st.sampled_from(SUBSCRIPTIONS))
    def subscribe(self, sub: Subscription) -> None:
        self.take(self.link.subscribe(self.now_s, sub))

    @rule(sub=st.sampled_from(SUBSCRIPTIONS))
    def unsubscribe(self, sub: Subscription) -> None:
        self.take(self.link.unsubscribe(self.now_s, sub))

    @rule(back=st.sampled_from([0, 0, 0, 1]))
    def connected(self, back: int) -> None:
        generation = max(0, self.link.generation - back)
        was = self.link.state
        expected = [s for s, state in self.link.subscriptions if state is SubState.WANTED]
        effects = self.take(self.link.on_connected(self.now_s, generation))
        if was is LinkState.CONNECTING and not back:
            assert effects[1:] == [subscribe(s) for s in expected]
        elif was is not LinkState.LIVE or back:
            assert [type(e) for e in effects] == [Disconnect]

    @rule(back=st.sampled_from([0, 0, 1]), failed=st.booleans())
    def gone(self, back: int, failed: bool) -> None:
        event = self.link.on_connect_failed if failed else self.link.on_disconnected
        effects = self.take(event(self.now_s, self.link.generation - back, "gone"))
        assert not (back and effects)

    @rule(
        message=st.one_of(
            st.sampled_from([PONG, b"{", error("no")]),
            st.sampled_from(SUBSCRIPTIONS).map(ack),
            st.sampled_from(SUBSCRIPTIONS).map(lambda s: error("Invalid subscription " + orjson.dumps(s).decode())),
        )
    )
    def control(self, message: bytes) -> None:
        self.take(self.link.on_control(self.now_s, self.link.generation, message))

    @precondition(lambda self: self.link.deadline is not None)
    @rule()
    def timer(self) -> None:
        self.now_s = max(self.now_s, when(self.link))
        self.take(self.link.on_timer(self.now_s))
        assert self.link.deadline is not None
        assert when(self.link) > self.now_s or self.link.state is LinkState.WAITING

    @rule(s=st.floats(0.0, 3.0))
    def early_timer(self, s: float) -> None:
        self.now_s += s
        self.take(self.link.on_timer(self.now_s))
        assert self.link.deadline is None or self.link.deadline >= self.now_s

    @rule(chance=st.integers(0, 15))
    def close(self, chance: int) -> None:
        if chance == 0:
            self.take(self.link.close(self.now_s))
            self.closed = True

    @invariant()
    def what_is_told_is_true(self) -> None:
        assert self.told is self.link.state

    @invariant()
    def a_subscription_is_sent_only_while_live(self) -> None:
        known = {SubState.SENT, SubState.LIVE}
        assert self.link.state is LinkState.LIVE or not known & {state for _, state in self.link.subscriptions}


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_any_order_of_events = AnyOrder.TestCase
