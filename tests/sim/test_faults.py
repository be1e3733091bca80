"""Every fault, seen by a client that knows nothing of it; and what the same client sees without it.

Each `Sight` is one way in which one kind shows: the same steps are taken twice on a fresh stepped venue, with the fault
and without, and must bring what is written there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sim.peer import TIMEOUT_S, Hand, Peer, Reply, peer_of, post, settle
from sim.raw import JsonObject, Raw, limit, quiet_venue

from hlconn import action
from hlconn.errors import ConfigError
from hlconn.sim import FAULTS, Fault, Venue, load_plan
from hlconn.sim.faults import CONNECTION_FAULTS


@dataclass
class Stage:
    """A quiet stepped venue with one bid and one ask in BTC, and the fault that this is about."""

    venue: Venue
    kind: str
    options: JsonObject
    is_armed: bool
    stack: AsyncExitStack
    fault: Fault | None = None

    async def peer(self, *topics: str) -> Peer:
        # Some of them are never answered when they close.
        peer = await self.stack.enter_async_context(peer_of(self.venue, close_timeout=0.05))
        for topic in topics:
            await peer.subscribe(type=topic, coin="BTC")
        await peer.drain()
        return peer

    def arm(self) -> None:
        assert self.fault is None
        if self.is_armed:
            self.fault = self.venue.fault(self.kind, **self.options)


Look = Callable[[Stage], Awaitable[object]]


@dataclass(frozen=True)
class Sight:
    kind: str
    options: JsonObject
    healthy: object
    faulty: object
    look: Look

    def __str__(self) -> str:
        options = "".join(f" {key}={value}" for key, value in self.options.items())
        return f"{self.kind}{options}: {getattr(self.look, '__name__', '').replace('_', ' ')}"


SIGHTS: list[Sight] = []


def sees(kind: str, *, healthy: object, faulty: object, **options: object) -> Callable[[Look], Look]:
    """A sight of a fault of this kind with these options."""

    def note(look: Look) -> Look:
        SIGHTS.append(Sight(kind, options, healthy, faulty, look))
        return look

    return note


# The connection.


def fate(peer: Peer) -> object:
    """How a connection ended, or that it did not: what it got, what it sent, or how its bytes ended."""
    end = peer.end
    if end is None:
        return "open"
    if end.rcvd is not None:
        return end.rcvd.code, end.rcvd.reason
    if end.sent is not None:
        return end.sent.code
    cause = end.__cause__
    return str(cause) if isinstance(cause, EOFError) else type(cause).__name__


@sees("close", healthy="open", faulty=(1000, "Expired"))
@sees("abort", healthy="open", faulty="unexpected end of stream")
@sees("reset", healthy="open", faulty="ConnectionResetError")
@sees("mid_frame", healthy="open", faulty="stream ends after 37 bytes, expected 74 bytes")
@sees("bad_frame", healthy="open", faulty=1002)
async def how_a_connection_ends(stage: Stage) -> object:
    peer = await stage.peer()
    stage.arm()
    await settle()
    return fate(peer)


@sees("close", healthy="TEXT", faulty="CLOSE")
@sees("abort", healthy="TEXT", faulty="CLOSED")
@sees("bad_frame", healthy="TEXT", faulty="ERROR")
@sees("huge", size=5 << 20, healthy="TEXT", faulty="ERROR")
async def what_aiohttp_receives_next(stage: Stage) -> object:
    async with aiohttp.ClientSession() as session, session.ws_connect(stage.venue.ws_url) as ws:
        await ws.receive(TIMEOUT_S)
        stage.arm()
        await ws.send_str('{"method":"ping"}')
        return (await ws.receive(TIMEOUT_S)).type.name


@sees("half_open", healthy=("open", ["bbo", "pong"], True), faulty=("open", [], False))
async def whether_data_and_pongs_come(stage: Stage) -> object:
    peer, other = await stage.peer("bbo"), await stage.peer("bbo")
    stage.arm()
    await peer.send(method="ping")
    pong = asyncio.ensure_future(await peer.ws.ping())
    stage.venue.rest("BTC", "B", 105_500, 1)
    assert [message["channel"] for message in await other.drain()] == ["bbo"]
    return fate(peer), sorted(await peer.channels()), pong.done()


def bids(messages: list[Any]) -> list[str]:
    return [m["data"]["bbo"][0]["px"] if m["channel"] == "bbo" else m["channel"] for m in messages]


ALL = ["105100.0", "pong", "105200.0", "105300.0"]


@sees("stall", ms=1000, healthy=(ALL, [], []), faulty=([], [], ALL))
async def when_messages_come(stage: Stage) -> object:
    peer, other = await stage.peer("bbo"), await stage.peer()
    stage.arm()
    stage.venue.rest("BTC", "B", 105_100, 1)
    await peer.send(method="ping")
    await other.drain()
    await settle()
    for px in (105_200, 105_300):
        stage.venue.rest("BTC", "B", px, 1)
    at_once = bids(await peer.so_far())
    stage.venue.advance(999)
    before = bids(await peer.so_far())
    stage.venue.advance(1)
    return at_once, before, bids(await peer.so_far())


@sees("garbage", healthy=["pong"], faulty=["no JSON", "pong"])
@sees("unknown_channel", healthy=["pong"], faulty=["channelOfNextYear", "pong"])
@sees("huge", size=100_000, healthy=["pong"], faulty=["hugeThing with 100000", "pong"])
async def which_messages_come(stage: Stage) -> object:
    peer = await stage.peer()
    stage.arm()
    await peer.send(method="ping")
    names = []
    while "pong" not in names:
        text = await peer.text()
        try:
            message = json.loads(text)
        except ValueError:
            names.append("no JSON")
            continue
        size = f" with {len(message['data']['text'])}" if message["channel"] == "hugeThing" else ""
        names.append(message["channel"] + size)
    return names


@sees("huge", healthy=None, faulty=1 << 24)
async def how_much_a_client_without_limits_reads(stage: Stage) -> object:
    async with aiohttp.ClientSession() as session, session.ws_connect(stage.venue.ws_url, max_msg_size=0) as ws:
        await ws.receive(TIMEOUT_S)
        stage.arm()
        await ws.send_str('{"method":"ping"}')
        message = json.loads((await ws.receive(TIMEOUT_S)).data)
        return len(message["data"]["text"]) if "data" in message else None


# Messages.

BOTH: tuple[list[str], list[str]] = (["bbo", "trades"], [])


@sees("drop", channel="bbo", healthy=BOTH, faulty=(["trades"], []))
@sees("drop", channel="trades", healthy=BOTH, faulty=(["bbo"], []))
@sees("duplicate", channel="bbo", healthy=BOTH, faulty=(["bbo", "bbo", "trades"], []))
@sees("duplicate", channel="trades", healthy=BOTH, faulty=(["bbo", "trades", "trades"], []))
@sees("delay", channel="bbo", ms=300, healthy=BOTH, faulty=(["trades"], ["bbo"]))
@sees("delay", channel="trades", ms=300, healthy=BOTH, faulty=(["bbo"], ["trades"]))
@sees("reorder", channel="bbo", healthy=BOTH, faulty=(["trades", "bbo"], []))
@sees("reorder", channel="trades", healthy=BOTH, faulty=(["bbo"], ["trades"]))  # nothing comes to overtake it
async def what_a_trade_brings(stage: Stage) -> object:
    peer = await stage.peer("bbo", "trades")
    stage.arm()
    stage.venue.cross("BTC", "B", "0.1")
    at_once = await peer.channels()
    stage.venue.advance(1000)
    return at_once, await peer.channels()


@sees("lose_ack", healthy=(["subscriptionResponse", "bbo"], ["bbo"]), faulty=(["bbo"], ["bbo"]))
@sees("lose_ack", channel="bbo", healthy=(["subscriptionResponse", "bbo"], ["bbo"]), faulty=(["bbo"], ["bbo"]))
@sees("ack_only", healthy=(["subscriptionResponse", "bbo"], ["bbo"]), faulty=(["subscriptionResponse"], []))
async def what_a_subscription_brings(stage: Stage) -> object:
    peer = await stage.peer()
    stage.arm()
    await peer.send(method="subscribe", subscription={"type": "bbo", "coin": "BTC"})
    at_once = [message["channel"] for message in await peer.drain()]
    stage.venue.rest("BTC", "B", 105_500, 1)
    return at_once, await peer.channels()


# Actions.


def an_order(hand: Hand) -> Any:
    return action.order([limit("B", 100_000, "0.01")], hand.instruments)


DONE = (["post 7", "1 open"], ["1 open"])
WAITS = (["0 open"], ["post 7", "1 open"])


@sees("lose_action", healthy=DONE, faulty=(["0 open"], ["0 open"]))
@sees("lose_answer", healthy=DONE, faulty=(["1 open"], ["1 open"]))
@sees("late_action", ms=1000, healthy=DONE, faulty=WAITS)
@sees("late_unanswered", ms=1000, healthy=DONE, faulty=(["0 open"], ["1 open"]))
@sees("answer_twice", healthy=DONE, faulty=(["post 7", "post 7", "1 open"], ["1 open"]))
async def an_order_over_websocket(stage: Stage) -> object:
    peer, hand = await stage.peer(), Hand(stage.venue, stage.venue.account())

    async def answers() -> list[str]:
        posts = [f"post {m['data']['id']}" for m in await peer.so_far() if m["channel"] == "post"]
        return [*posts, f"{len(hand.open_orders())} open"]

    stage.arm()
    await peer.ws.send(hand.post(7, an_order(hand)))
    await peer.drain()
    stage.venue.block()
    at_once = await answers()
    stage.venue.advance(1000)
    stage.venue.block()
    return at_once, await answers()


def outcome(task: asyncio.Task[Reply]) -> str:
    """What an HTTP client has by now, in words."""
    if not task.done():
        return "waits"
    if (failure := task.exception()) is not None:
        return type(failure).__name__
    status, _, text = task.result()
    for word in ("resting", "universe"):
        text = word if f'"{word}"' in text else text
    return f"{status} {text}".strip()


async def answers_over_http(stage: Stage, task: asyncio.Task[Reply], opened: Callable[[], int]) -> object:
    found = []
    for pause_ms in (0, 1000):
        await settle()
        stage.venue.advance(pause_ms)
        stage.venue.block()
        await settle()
        found.append((outcome(task), opened()))
    await asyncio.gather(task, return_exceptions=True)
    return found


OPEN, LIVE = ("200 resting", 1), [("200 resting", 1)] * 2
CUT = "ServerDisconnectedError"
GATEWAY = "502 <html>502 Bad Gateway</html>"


@sees("lose_action", healthy=LIVE, faulty=[(CUT, 0)] * 2)
@sees("lose_answer", healthy=LIVE, faulty=[(CUT, 1)] * 2)
@sees("late_action", ms=1000, healthy=LIVE, faulty=[("waits", 0), OPEN])
@sees("late_unanswered", ms=1000, healthy=LIVE, faulty=[(CUT, 0), (CUT, 1)])
@sees("http_status", healthy=LIVE, faulty=[(GATEWAY, 0)] * 2)
@sees("http_status", channel="exchange", status=429, healthy=LIVE, faulty=[("429 null", 0)] * 2)
@sees("http_cut", healthy=LIVE, faulty=[(CUT, 0)] * 2)
@sees("http_empty", healthy=LIVE, faulty=[("200", 1)] * 2)
@sees("http_null", channel="exchange", healthy=LIVE, faulty=[("200 null", 1)] * 2)
@sees("slow", channel="exchange", ms=1000, healthy=LIVE, faulty=[("waits", 0), OPEN])
async def an_order_over_http(stage: Stage) -> object:
    hand = Hand(stage.venue, stage.venue.account())
    stage.arm()
    task = asyncio.create_task(post(stage.venue, hand.payload(an_order(hand)), "/exchange"))
    return await answers_over_http(stage, task, lambda: len(hand.open_orders()))


KNOWN = [("200 universe", 0)] * 2


@sees("http_status", healthy=KNOWN, faulty=[(GATEWAY, 0)] * 2)
@sees("http_status", channel="info", status=429, healthy=KNOWN, faulty=[("429 null", 0)] * 2)
@sees("http_status", status=503, body="later", healthy=KNOWN, faulty=[("503 later", 0)] * 2)
@sees("http_cut", channel="info", healthy=KNOWN, faulty=[(CUT, 0)] * 2)
@sees("http_empty", channel="info", healthy=KNOWN, faulty=[("200", 0)] * 2)
@sees("http_null", healthy=KNOWN, faulty=[("200 null", 0)] * 2)
@sees("slow", channel="info", ms=1000, healthy=KNOWN, faulty=[("waits", 0), KNOWN[0]])
async def a_question_over_http(stage: Stage) -> object:
    stage.arm()
    task = asyncio.create_task(post(stage.venue, {"type": "meta"}))
    return await answers_over_http(stage, task, lambda: 0)


@sees("skew", ms=60_000, healthy="on", faulty="ahead")
@sees("skew", ms=-60_000, healthy="on", faulty="creeps")
async def how_the_time_of_the_venue_goes_on(stage: Stage) -> object:
    async def time_ms() -> int:
        found: int = json.loads((await post(stage.venue, {"type": "exchangeStatus"})).text)["time"]
        return found

    stage.venue.block()
    before = await time_ms()
    stage.arm()
    stage.venue.block()
    passed = await time_ms() - before
    return "creeps" if passed == 1 else "on" if passed <= 100 else "ahead" if 60_000 <= passed <= 60_100 else passed


def run_sight(sight: Sight, is_armed: bool, **options: Any) -> tuple[object, Fault | None]:
    async def run() -> tuple[object, Fault | None]:
        async with quiet_venue(**options) as venue, AsyncExitStack() as stack:
            venue.rest("BTC", "B", 105_000, 1)
            venue.rest("BTC", "A", 107_000, 1)
            stage = Stage(venue, sight.kind, sight.options, is_armed, stack)
            return await sight.look(stage), stage.fault

    return asyncio.run(run())


@pytest.mark.parametrize("sight", SIGHTS, ids=str)
def test_a_fault_is_seen_by_a_foreign_client_and_counted(sight: Sight) -> None:
    assert sight.healthy != sight.faulty
    seen, fault = run_sight(sight, is_armed=True)
    assert seen == sight.faulty
    assert fault is not None
    assert fault.hits == 1


@pytest.mark.parametrize("sight", SIGHTS, ids=str)
def test_without_the_fault_the_same_client_sees_nothing_wrong(sight: Sight) -> None:
    assert run_sight(sight, is_armed=False) == (sight.healthy, None)


@pytest.mark.parametrize("sight", [sight for sight in SIGHTS if sight.look is how_a_connection_ends], ids=str)
def test_connections_end_in_the_same_ways_over_tls(sight: Sight) -> None:
    seen, fault = run_sight(sight, is_armed=True, tls=True)
    assert seen == sight.faulty
    assert fault is not None
    assert fault.hits == 1


def unseen(kinds: dict[str, str]) -> set[str]:
    return kinds.keys() - {sight.kind for sight in SIGHTS}


def test_no_kind_of_fault_is_without_a_sight() -> None:
    assert unseen(FAULTS) == set()
    assert unseen({**FAULTS, "newest": "goes wrong in a new way"}) == {"newest"}
    assert {sight.kind for sight in SIGHTS} <= FAULTS.keys()


# Late actions.


def test_a_late_action_still_dies_of_a_noop_with_its_nonce() -> None:
    venue = quiet_venue()
    raw = Raw(venue, venue.account())
    late = venue.fault("late_action", ms=1000)
    nonce = raw.nonce()
    order = action.order([limit("B", 100_000, "0.01")], raw.instruments)
    waiting = raw.write(order, nonce)
    assert raw.do(action.noop(), nonce) == {"status": "ok", "response": {"type": "default"}}
    assert waiting not in raw.answers
    raw.wait(waiting)
    assert raw.answers[waiting]["payload"] == {"status": "err", "response": f"Invalid nonce: duplicate nonce {nonce}"}
    assert venue.info(type="openOrders", user=raw.party.address) == []
    assert late.hits == 1


def test_a_late_action_dies_of_its_own_expiry() -> None:
    venue = quiet_venue()
    raw = Raw(venue, venue.account())
    venue.fault("late_action", ms=1000)
    order = action.order([limit("B", 100_000, "0.01")], raw.instruments)
    expiry = int(venue.now_ms()) + 900
    assert raw.do(order, expires_after=expiry) == {"status": "err", "response": "Action already expired"}
    assert raw.do(order, expires_after=int(venue.now_ms()) + 900)["status"] == "ok"


def test_a_late_action_without_an_answer_executes_when_its_time_has_come() -> None:
    venue = quiet_venue()
    raw = Raw(venue, venue.account())
    raw.subscribe(type="orderUpdates", user=raw.party.address)
    venue.fault("late_unanswered", ms=1000)
    began = venue.now_ms()
    post_id = raw.write(action.order([limit("B", 100_000, "0.01")], raw.instruments))
    venue.advance(990)
    assert raw.take("orderUpdates") == []
    venue.advance(200)
    [[update]] = raw.take("orderUpdates")
    assert update["status"] == "open"
    assert update["statusTimestamp"] - began >= 1000
    assert post_id not in raw.answers


# Over a pipe.


class Ear:
    """A pipe's client that keeps all it hears."""

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self.pipe = venue.pipe()
        self.heard: list[str] = []
        self.closed: list[int | None] = []
        self.pipe.on_message = lambda message: self.heard.append(message.decode())
        self.pipe.on_close = self.closed.append
        self.channels()

    def send(self, **message: object) -> None:
        self.pipe.send(json.dumps(message).encode())

    def subscribe(self, *topics: str) -> None:
        for topic in topics:
            self.send(method="subscribe", subscription={"type": topic, "coin": "BTC"})
        self.channels()

    def channels(self) -> list[str]:
        """Of what came since the last call; what is no JSON is itself."""
        self.venue.advance(0)
        heard, self.heard = self.heard, []
        return [json.loads(text)["channel"] if text.endswith("}") else text for text in heard]


@pytest.mark.parametrize(
    ("kind", "code"),
    [("close", 1000), ("abort", None), ("reset", None), ("mid_frame", None), ("bad_frame", None)],
)
def test_a_fault_ends_a_pipe_as_it_ends_a_socket(kind: str, code: int | None) -> None:
    venue = quiet_venue()
    ear = Ear(venue)
    ear.subscribe("bbo")
    fault = venue.fault(kind)
    venue.rest("BTC", "B", 105_000, 1)
    assert ear.channels() == []
    assert ear.closed == [code]
    assert not ear.pipe.is_open
    with pytest.raises(ConnectionError):
        ear.send(method="ping")
    assert (fault.hits, venue.clients) == (1, 0)


def test_a_half_open_pipe_says_nothing_and_hears_nothing() -> None:
    venue = quiet_venue()
    ear = Ear(venue)
    ear.subscribe("bbo")
    venue.fault("half_open")
    received = venue.stats.messages_received
    ear.send(method="ping")
    venue.rest("BTC", "B", 105_000, 1)
    assert ear.channels() == []
    assert ear.closed == []
    assert ear.pipe.is_open
    assert venue.stats.messages_received == received


PIPED: list[tuple[str, JsonObject, list[str], list[str]]] = [
    ("garbage", {}, ['{"channel":"bbo","data":{"coin":', "bbo", "trades"], []),
    ("huge", {"size": 100}, ["hugeThing", "bbo", "trades"], []),
    ("unknown_channel", {}, ["channelOfNextYear", "bbo", "trades"], []),
    ("stall", {"ms": 300}, [], ["bbo", "trades"]),
    ("drop", {"channel": "bbo"}, ["trades"], []),
    ("duplicate", {"channel": "bbo"}, ["bbo", "bbo", "trades"], []),
    ("delay", {"channel": "bbo", "ms": 300}, ["trades"], ["bbo"]),
    ("reorder", {"channel": "bbo"}, ["trades", "bbo"], []),
    ("reorder", {"channel": "trades"}, ["bbo"], ["trades"]),
]


@pytest.mark.parametrize(("kind", "options", "at_once", "later"), PIPED)
def test_messages_go_wrong_over_a_pipe_too(
    kind: str, options: JsonObject, at_once: list[str], later: list[str]
) -> None:
    for armed in (True, False):
        venue = quiet_venue()
        venue.rest("BTC", "A", 107_000, 1)
        ear = Ear(venue)
        ear.subscribe("bbo", "trades")
        fault = venue.fault(kind, **options) if armed else None
        venue.cross("BTC", "B", "0.1")
        assert ear.channels() == (at_once if armed else ["bbo", "trades"])
        venue.advance(600)
        assert ear.channels() == (later if armed else [])
        assert fault is None or fault.hits == 1


@pytest.mark.parametrize(
    ("kind", "channels"), [("lose_ack", ["bbo", "bbo"]), ("ack_only", ["subscriptionResponse"]), (None, None)]
)
def test_subscriptions_go_wrong_over_a_pipe_too(kind: str | None, channels: list[str] | None) -> None:
    venue = quiet_venue()
    ear = Ear(venue)
    if kind is not None:
        venue.fault(kind)
    ear.send(method="subscribe", subscription={"type": "bbo", "coin": "BTC"})
    venue.rest("BTC", "B", 105_000, 1)
    assert ear.channels() == (channels or ["subscriptionResponse", "bbo", "bbo"])


@pytest.mark.parametrize(
    ("kind", "answers", "live"),
    [("lose_action", 0, 0), ("lose_answer", 0, 1), ("answer_twice", 2, 1), ("skew", 1, 1), (None, 1, 1)],
)
def test_actions_go_wrong_over_a_pipe_too(kind: str | None, answers: int, live: int) -> None:
    venue = quiet_venue()
    ear, hand = Ear(venue), Hand(venue, venue.account())
    if kind is not None:
        venue.fault(kind)
    ear.pipe.send(hand.post(1, an_order(hand)).encode())
    venue.block()
    assert ear.channels() == ["post"] * answers
    assert len(hand.open_orders()) == live


# When they strike.


def strikes(fault: Fault, ms: int, seed: int = 7) -> list[int]:
    """Times, in the venue's from when the fault was there, at which a client hears of it."""
    venue = quiet_venue(seed=seed, faults=[fault], debug=False)
    began, times = venue.now_ms(), []
    pipe = venue.pipe()

    def hear(message: bytes) -> None:
        if b"channelOfNextYear" in message:
            times.append(int(venue.now_ms() - began))

    pipe.on_message = hear
    venue.advance(ms)
    assert len(times) == fault.hits
    return times


def test_a_timed_fault_strikes_at_its_time() -> None:
    assert strikes(Fault("unknown_channel", after_ms=5000), 4999) == []
    assert strikes(Fault("unknown_channel", after_ms=5000), 20_000) == [5000]


def test_every_ms_is_an_average() -> None:
    times = strikes(Fault("unknown_channel", every_ms=100), 100_000)
    assert 850 < len(times) < 1150
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) < 20
    assert max(gaps) > 300


def test_a_timed_fault_keeps_to_its_limits() -> None:
    times = strikes(Fault("unknown_channel", after_ms=2000, every_ms=50, until_ms=6000), 20_000)
    assert times[0] == 2000
    assert 5500 < times[-1] <= 6000
    assert len(strikes(Fault("unknown_channel", every_ms=50, count=3), 20_000)) == 3
    half = len(strikes(Fault("unknown_channel", every_ms=50, p=0.5), 100_000))
    assert 800 < half < 1200
    assert strikes(Fault("unknown_channel", every_ms=50, p=0.0), 20_000) == []


def test_the_same_seed_strikes_at_the_same_times() -> None:
    def times(seed: int) -> list[int]:
        return strikes(Fault("unknown_channel", every_ms=500), 20_000, seed)

    assert times(1) == times(1)
    assert times(1) != times(2)


def dropped(venue: Venue, ear: Ear, count: int) -> list[int]:
    """Which of so many changes of the top were not told."""
    missing = []
    for number in range(count):
        oid = venue.rest("BTC", "B", 100_000 + number, 1)
        told = ear.channels()
        assert told in ([], ["bbo"])
        if not told:
            missing.append(number)
        assert oid
    return missing


def test_chance_is_seeded_too() -> None:
    def missing(seed: int) -> list[int]:
        venue = quiet_venue(seed=seed, debug=False)
        ear = Ear(venue)
        ear.subscribe("bbo")
        fault = venue.fault("drop", channel="bbo", p=0.3, count=None)
        found = dropped(venue, ear, 300)
        assert fault.hits == len(found)
        return found

    first = missing(1)
    assert 60 < len(first) < 120
    assert missing(1) == first
    assert missing(2) != first


def test_a_fault_of_messages_strikes_between_after_ms_and_until_ms_and_count_times() -> None:
    venue = quiet_venue(debug=False)
    ear = Ear(venue)
    ear.subscribe("bbo")
    began = venue.now_ms()
    fault = venue.fault("drop", channel="bbo", after_ms=2000, until_ms=4000, count=None)
    missing = []
    for number in range(60):
        venue.rest("BTC", "B", 100_000 + number, 1)
        if not ear.channels():
            missing.append(int(venue.now_ms() - began))
        venue.advance(100)
    assert (missing[0], missing[-1], len(missing)) == (2000, 4000, 21)
    assert fault.hits == 21
    venue.fault("drop", channel="bbo", count=2)
    venue.withdraw(venue.rest("BTC", "B", 101_000, 1))
    assert ear.channels() == []
    venue.rest("BTC", "B", 101_000, 1)
    assert ear.channels() == ["bbo"]


def test_a_timed_fault_strikes_every_connection_unless_it_is_counted() -> None:
    venue = quiet_venue()
    ears = [Ear(venue) for _ in range(3)]
    one = venue.fault("close")
    assert [ear.closed for ear in ears if ear.channels() == []] == [[1000], [], []]
    every = venue.fault("close", count=None)
    assert [ear.closed for ear in ears if ear.channels() == []] == [[1000]] * 3
    assert (one.hits, every.hits) == (1, 2)


def test_a_message_waits_half_a_second_to_be_overtaken_and_no_other_shortens_that() -> None:
    venue = quiet_venue()
    ear = Ear(venue)
    ear.subscribe("bbo")
    venue.fault("reorder", channel="bbo", count=2)
    prices = iter(range(100_000, 100_100))

    def news() -> list[str]:
        venue.rest("BTC", "B", next(prices), 1)
        return ear.channels()

    assert news() == []
    venue.advance(400)
    venue.faults.clear()
    assert news() == ["bbo", "bbo"]
    venue.fault("reorder", channel="bbo")
    assert news() == []
    venue.advance(400)  # the first would have waited until now
    assert ear.channels() == []
    venue.advance(100)
    assert ear.channels() == ["bbo"]


def test_a_skew_comes_with_its_probability_too() -> None:
    venue = quiet_venue()
    never = venue.fault("skew", ms=60_000, p=0.0)
    before = venue.exchange.block.time_ms
    assert venue.block().time_ms - before <= 100
    assert never.hits == 0


def test_clear_ends_every_fault_but_not_what_it_did() -> None:
    venue = quiet_venue()
    ear = Ear(venue)
    ear.subscribe("bbo")
    faults = [
        venue.fault("drop", channel="bbo", count=None),
        venue.fault("unknown_channel", every_ms=100, count=None),
        venue.fault("garbage", after_ms=5000),
        venue.fault("skew", ms=60_000),
    ]
    ahead = venue.block().time_ms
    venue.advance(1000)
    venue.rest("BTC", "B", 100_000, 1)
    hits = [fault.hits for fault in faults]
    assert set(ear.channels()) == {"channelOfNextYear"}
    venue.faults.clear()
    venue.rest("BTC", "B", 100_001, 1)
    venue.advance(20_000)
    assert ear.channels() == ["bbo"]
    assert [fault.hits for fault in faults] == hits
    assert hits[0] == 1
    assert hits[1] > 3
    assert hits[2:] == [0, 1]
    assert venue.exchange.block.time_ms - ahead >= 20_000


def test_faults_keep_time_on_a_running_venue_too() -> None:
    async def run() -> None:
        async with Venue(speed=50, coins=("BTC",)) as venue, peer_of(venue) as peer:
            began = venue.now_ms()
            fault = venue.fault("close", after_ms=1000)
            assert await peer.closing() == (1000, "Expired")
            assert venue.now_ms() - began >= 1000
            assert fault.hits == 1

    asyncio.run(run())


# Plans.


def plan(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return path


def test_a_plan_is_read_from_toml(tmp_path: Path) -> None:
    path = plan(
        tmp_path,
        """
        [[fault]]
        kind = "close"
        every_ms = 30000
        until_ms = 100000

        [[fault]]
        kind = "drop"
        channel = "bbo"
        p = 0.25

        [[fault]]
        kind = "http_status"
        status = 503
        body = "later"
        count = 2
        """,
    )
    assert load_plan(path) == [
        Fault("close", every_ms=30_000, until_ms=100_000),
        Fault("drop", channel="bbo", p=0.25),
        Fault("http_status", status=503, body="later", count=2),
    ]
    assert load_plan(plan(tmp_path, "")) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[fault]", "is not TOML"),
        ('[[fault]]\nkind = "explode"', "unknown fault 'explode'"),
        ("[[fault]]\nms = 5", "has a kind"),
        ('[[fault]]\nkind = "drop"\nchanel = "bbo"', "only"),
        ('[[fault]]\nkind = "drop"\nhits = 3', "only"),
        ('[[fault]]\nkind = "drop"\np = 1.5', "probability"),
        ('[[fault]]\nkind = "drop"\np = "often"', "p"),
        ('[[fault]]\nkind = "close"\nevery_ms = 0', "every_ms"),
        ('[[fault]]\nkind = "drop"\nevery_ms = 1000', "every_ms"),
        ('[[fault]]\nkind = "close"\nevery_ms = "1 s"', "every_ms"),
        ('[[fault]]\nkind = "delay"\nms = "5"', "ms"),
        ('[[fault]]\nkind = "drop"\nchannel = 5', "channel"),
        ("[[fault]]\nkind = 5", "unknown fault 5"),
        ('[[fault]]\nkind = ["drop"]', "unknown fault"),
        ('[fault]\nkind = "drop"', "has a kind"),
        ("fault = 3", "has a kind"),
        ('[[faults]]\nkind = "drop"', "faults"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_plan(plan(tmp_path, text))


def test_a_plan_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_plan(path)


def test_a_plan_strikes_from_the_start(tmp_path: Path) -> None:
    path = plan(tmp_path, '[[fault]]\nkind = "lose_ack"\n\n[[fault]]\nkind = "close"\nafter_ms = 3000\n')
    venue = quiet_venue(faults=load_plan(path))
    ear = Ear(venue)
    ear.send(method="subscribe", subscription={"type": "bbo", "coin": "BTC"})
    assert ear.channels() == ["bbo"]
    venue.advance(3000)
    assert ear.closed == [1000]


@pytest.mark.parametrize("kind", sorted(CONNECTION_FAULTS))
def test_a_fault_that_would_strike_before_anybody_is_there_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match="after_ms or every_ms"):
        quiet_venue(faults=[Fault(kind)])


@pytest.mark.parametrize(
    "options", [{"kind": "explode"}, {"kind": "drop", "p": -0.1}, {"kind": "close", "every_ms": -5}]
)
def test_a_fault_that_makes_no_sense_is_refused(options: JsonObject) -> None:
    with pytest.raises(ConfigError):
        quiet_venue().fault(**options)
