"""The venue's limits, as its clients meet them: over pipes on a stepped clock, and where HTTP matters over loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import aiohttp
import pytest
import websockets
from sim.peer import TIMEOUT_S
from sim.raw import Raw, limit, quiet_venue

from hlconn import ConfigError, action
from hlconn.sim import Limits, Pipe, Venue
from hlconn.sim.ledger import Fill

USER = "0x" + "1f" * 20
MINUTE_MS = 60_000


def venue_with(limits: Limits | None, **more: Any) -> Venue:
    return quiet_venue(limits=limits, **more)


def only(**settings: Any) -> Limits:
    """No limits but these."""
    names = ("weight_per_minute", "messages_per_minute", "sockets_per_minute", "sockets", "subscriptions", "users")
    none: dict[str, Any] = dict.fromkeys((*names, "posts", "free_requests"))
    return Limits(**(none | settings))


def ask(venue: Venue, path: str = "/info", **payload: Any) -> int:
    """The status of an info request, or of an action that makes no sense."""
    got: list[Any] = []
    venue.request(path, payload, got.append)
    return int(got[0][0])


def spend(venue: Venue, weight: int) -> None:
    for _ in range(weight // 2):
        assert ask(venue, type="l2Book", coin="BTC") == 200


class Client:
    """A pipe, and what came over it."""

    def __init__(self, venue: Venue) -> None:
        self.venue, self.pipe = venue, venue.pipe()
        self.messages: list[Any] = []
        self.closed: list[int | None] = []
        self.pipe.on_message = lambda message: self.messages.append(
            json.loads(message) if message.startswith(b"{") else message.decode()
        )
        self.pipe.on_close = self.closed.append

    def send(self, **message: Any) -> list[Any]:
        """What comes back at once."""
        self.venue.advance(0)
        self.messages.clear()
        self.pipe.send(json.dumps(message).encode())
        self.venue.advance(0)
        return self.messages

    def subscribe(self, **subscription: Any) -> Any:
        """The acknowledged subscription, or the text that refuses it."""
        first = self.send(method="subscribe", subscription=subscription)[0]
        return first["data"] if first["channel"] == "error" else first["data"]["subscription"]

    def post(self, number: int, payload: Any, kind: str = "info") -> Any:
        sent = self.send(method="post", id=number, request={"type": kind, "payload": payload})
        return sent[0]["data"] if sent else None


# Weight.


def test_there_are_no_limits_unless_they_are_asked_for() -> None:
    venue = venue_with(None)
    spend(venue, 3000)
    clients = [Client(venue) for _ in range(40)]
    assert all(isinstance(clients[n].subscribe(type="userFills", user=f"0x{n:040x}"), dict) for n in range(40))
    assert not venue.gate.refusals


@pytest.mark.parametrize(
    ("payload", "weight"),
    [
        ({"type": "l2Book", "coin": "BTC"}, 2),
        ({"type": "orderStatus", "user": USER, "oid": 1}, 2),
        ({"type": "meta"}, 20),
        ({"type": "noSuchType"}, 20),
        ({"type": "userRole", "user": USER}, 60),
        ({"type": "userFills", "user": USER}, 20),
    ],
)
def test_a_request_weighs_what_the_docs_say_whatever_comes_of_it(payload: dict[str, Any], weight: int) -> None:
    venue = venue_with(only(weight_per_minute=100))
    assert ask(venue, **payload) in (200, 422)
    assert venue.gate.weight == weight


@pytest.mark.parametrize(("rounding", "weight"), [("up", 20 + 3), ("down", 20 + 2)])
def test_rows_of_the_answer_weigh_too(rounding: Any, weight: int) -> None:
    venue = venue_with(only(weight_per_minute=1200, row_rounding=rounding))
    market = venue.exchange.markets["BTC"]
    fill = Fill(market, 1, 1, True, 1, 0, "Open Long", 0, "0x0", 1, True, 0, 6, "USDC", 1, None)
    venue.exchange.ledger.open(USER).fills.extend([fill] * 41)
    assert ask(venue, type="userFills", user=USER) == 200
    assert venue.gate.weight == weight


def test_candles_weigh_one_in_sixty() -> None:
    venue = venue_with(only(weight_per_minute=1200), block_ms=(MINUTE_MS, MINUTE_MS))
    venue.rest("BTC", "A", 105_000, 1)
    venue.cross("BTC", "B", "0.1")
    venue.advance(120 * MINUTE_MS)
    req = {"coin": "BTC", "interval": "1m", "startTime": 0}
    assert ask(venue, type="candleSnapshot", req=req) == 200
    assert venue.gate.weight == 20 + 3  # of 121 or 122


@pytest.mark.parametrize(("count", "weight"), [(1, 1), (39, 1), (40, 2), (79, 2), (80, 3)])
def test_a_batch_weighs_one_and_one_for_every_forty(count: int, weight: int) -> None:
    venue = venue_with(only(weight_per_minute=1200))
    raw = Raw(venue, venue.account())
    before = venue.gate.weight
    raw.do(action.cancel([("BTC", oid) for oid in range(count)], raw.instruments))
    assert venue.gate.weight - before == weight


def test_what_is_over_the_weight_of_any_minute_is_answered_429_and_null_and_weighs_nothing() -> None:
    venue = venue_with(only(weight_per_minute=100))
    spend(venue, 50)
    venue.advance(30_000)
    spend(venue, 50)
    answers: list[Any] = []
    venue.request("/info", {"type": "meta"}, answers.append)
    venue.request("/exchange", {"action": {"type": "noop"}}, answers.append)
    assert answers == [(HTTPStatus.TOO_MANY_REQUESTS, None)] * 2
    assert venue.gate.refusals == {"weight": 2}
    venue.advance(30_000 - 1)
    assert ask(venue, type="meta") == 429
    venue.advance(1)
    spend(venue, 50)
    assert ask(venue, type="l2Book", coin="BTC") == 429


def test_a_minute_of_the_clock_ends_with_it() -> None:
    venue = venue_with(only(weight_per_minute=100, weight_window="minute"))
    venue.advance(MINUTE_MS - venue.now_ms() % MINUTE_MS - 1)
    spend(venue, 100)
    assert ask(venue, type="meta") == 429
    venue.advance(1)
    spend(venue, 100)
    assert ask(venue, type="meta") == 429


def test_a_bucket_fills_evenly() -> None:
    venue = venue_with(only(weight_per_minute=600, weight_window="bucket"), block_ms=(MINUTE_MS, MINUTE_MS))
    spend(venue, 600)
    venue.advance(199)
    assert ask(venue, type="l2Book", coin="BTC") == 429
    venue.advance(1)
    spend(venue, 2)
    venue.advance(10 * MINUTE_MS)
    spend(venue, 600)
    assert ask(venue, type="l2Book", coin="BTC") == 429


@pytest.mark.parametrize("weighs", [True, False])
def test_posts_weigh_as_requests_unless_told_otherwise(weighs: bool) -> None:
    venue = venue_with(only(weight_per_minute=40, post_weight=weighs))
    client = Client(venue)
    answers = [client.post(number, {"type": "meta"}) for number in range(3)]
    assert venue.gate.weight == 40 * weighs
    last = answers[-1]["response"]
    assert (last == {"type": "error", "payload": "429 Too Many Requests"}) is weighs
    noop = client.post(9, {"action": {"type": "noop"}}, "action")
    assert (noop["response"] == {"type": "error", "payload": "429 Too Many Requests"}) is weighs


def test_limits_scale_as_one() -> None:
    limits = Limits().scaled(0.01)
    assert (limits.weight_per_minute, limits.sockets, limits.free_requests) == (12, 1, 100)
    assert Limits(users=None).scaled(2).users is None
    for wrong in (0.0, float("inf"), -1.0):
        with pytest.raises(ConfigError):
            limits.scaled(wrong)


@pytest.mark.parametrize("wrong", [{"users": 0}, {"posts": 1.5}, {"weight_window": "hour"}, {"row_rounding": "half"}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Limits(**wrong)


# WebSocket connections.


def test_messages_of_all_connections_share_a_minute() -> None:
    venue = venue_with(only(messages_per_minute=5))
    one, other = Client(venue), Client(venue)
    for _ in range(2):
        assert one.send(method="ping") == other.send(method="ping") == [{"channel": "pong"}]
    venue.advance(MINUTE_MS - 1)
    assert one.send(method="ping") == [{"channel": "pong"}]
    assert one.subscribe(type="bbo", coin="BTC") == "429 Too Many Requests"
    venue.advance(1)
    for client in (one, other):
        assert client.send(method="ping") == [{"channel": "pong"}]
    assert venue.gate.refusals == {"messages_per_minute": 1}


def test_an_eleventh_connection_is_closed_until_another_has_left() -> None:
    venue = venue_with(only(sockets=10))
    clients = [Client(venue) for _ in range(10)]
    late = Client(venue)
    venue.advance(0)
    assert late.closed == [None]
    assert late.messages == []
    clients[3].pipe.close()
    assert Client(venue).send(method="ping") == [{"channel": "pong"}]


def test_thirty_connections_a_minute_may_be_opened() -> None:
    venue = venue_with(only(sockets_per_minute=30))
    for _ in range(30):
        Client(venue).pipe.close()
    refused = Client(venue)
    venue.advance(0)
    assert refused.closed == [None]
    venue.advance(MINUTE_MS)
    assert Client(venue).send(method="ping") == [{"channel": "pong"}]


def test_subscriptions_of_all_connections_are_limited() -> None:
    venue = venue_with(only(subscriptions=3), coins=("BTC", "ETH"))
    one, other = Client(venue), Client(venue)
    for kind, coin in (("bbo", "BTC"), ("trades", "BTC")):
        one.subscribe(type=kind, coin=coin)
    other.subscribe(type="bbo", coin="BTC")  # the same one, on another connection
    assert other.subscribe(type="bbo", coin="ETH") == "Cannot subscribe to more than 3 channels."
    assert other.subscribe(type="bbo", coin="BTC").startswith("Already subscribed")
    one.send(method="unsubscribe", subscription={"type": "bbo", "coin": "BTC"})
    assert other.subscribe(type="bbo", coin="ETH") == {"type": "bbo", "coin": "ETH"}
    assert venue.gate.refusals == {"subscriptions": 1}


def test_fourteen_accounts_may_be_followed_and_the_text_says_fifteen() -> None:
    venue = venue_with(only(users=14))
    clients = [Client(venue) for _ in range(2)]
    users = [f"0x{number:040x}" for number in range(15)]
    for number, user in enumerate(users[:14]):
        assert isinstance(clients[number % 2].subscribe(type="userFills", user=user), dict)
    for client in clients:
        assert client.subscribe(type="orderUpdates", user=users[14]) == "Cannot track more than 15 total users."
        for user in users[:14]:  # those are followed already, by this connection or the other
            assert isinstance(client.subscribe(type="orderUpdates", user=user), dict)
    clients[0].pipe.close()
    clients[1].send(method="unsubscribe", subscription={"type": "userFills", "user": users[1]})
    assert isinstance(clients[1].subscribe(type="bbo", coin="BTC"), dict)


def test_a_hundred_posts_may_be_under_way() -> None:
    venue = venue_with(only(posts=2))
    raw, client = Raw(venue, venue.account()), Client(venue)
    first, second = (raw.write(action.noop()) for _ in range(2))
    assert client.post(17, {"type": "meta"}) == "too many pending post requests id=17"
    raw.wait(first)
    raw.wait(second)
    assert client.post(18, {"type": "meta"})["response"]["type"] == "info"
    assert client.post(19, {"type": "nonsense"})["response"]["type"] == "error"
    assert client.post(20, {"type": "meta"})["response"]["type"] == "info"


# The requests of an address.


def too_many(sent: int, cap: int, usd: str) -> str:
    return (
        f"Too many cumulative requests sent ({sent} > {cap}) for cumulative volume traded ${usd}. "
        "Place taker orders to free up 1 request per USDC traded."
    )


@pytest.fixture
def poor() -> Raw:
    """Ten requests, of which nine are used up."""
    venue = venue_with(only(free_requests=10))
    raw = Raw(venue, venue.account(usdc=50_000))
    for _ in range(9):
        assert raw.do(action.noop())["status"] == "ok"
    return raw


def test_an_address_out_of_requests_has_one_in_ten_seconds(poor: Raw) -> None:
    noop, venue = action.noop(), poor.venue
    assert poor.do(noop)["status"] == "ok"
    at_ms = venue.exchange.now_ms
    assert poor.do(noop) == {"status": "err", "response": too_many(11, 10, "0")}
    venue.advance(10_000 - (venue.now_ms() - at_ms))
    assert poor.do(noop)["status"] == "ok"
    assert poor.do(noop)["response"] == too_many(12, 10, "0")
    answer = venue.info(type="userRateLimit", user=poor.party.address)
    assert (answer["nRequestsUsed"], answer["nRequestsCap"]) == (11, 10)


def test_each_entry_of_a_batch_is_a_request_and_cancels_have_more_room(poor: Raw) -> None:
    batch = action.order([limit("B", 100_000, "0.001"), limit("B", 100_001, "0.001")], poor.instruments)
    assert poor.do(batch)["response"] == too_many(11, 10, "0")
    cancels = action.cancel([("BTC", oid) for oid in range(5)], poor.instruments)
    assert [poor.do(cancels)["status"] for _ in range(2)] == ["ok", "ok"]
    assert poor.do(cancels)["response"] == too_many(24, 20, "0")


def test_what_was_traded_is_room(poor: Raw) -> None:
    poor.venue.rest("BTC", "A", 105_000, 1)
    poor.order(limit("B", 105_000, "0.001"))
    for _ in range(5):
        assert poor.do(action.noop())["status"] == "ok"
    assert poor.venue.info(type="userRateLimit", user=poor.party.address)["nRequestsCap"] == 10 + 105


def test_other_addresses_have_requests_of_their_own(poor: Raw) -> None:
    assert poor.do(action.noop())["status"] == "ok"
    assert poor.do(action.noop())["status"] == "err"
    other = Raw(poor.venue, poor.venue.account())
    assert other.do(action.noop())["status"] == "ok"


# Over sockets.


def over_loopback(limits: Limits) -> Callable[[Any], None]:
    def decorate(test: Any) -> Any:
        def run() -> None:
            async def main() -> None:
                async with Venue(traders=False, limits=limits) as venue, asyncio.timeout(TIMEOUT_S):
                    await test(venue)

            asyncio.run(main())

        run.__name__ = test.__name__
        return run

    return decorate


@over_loopback(only(weight_per_minute=40, retry_after=True))
async def test_a_429_may_say_when_to_come_back(venue: Venue) -> None:
    async with aiohttp.ClientSession() as http:
        for status in (200, 200, 429):
            async with http.post(f"{venue.url}/info", json={"type": "meta"}) as answer:
                assert answer.status == status
                body, after = await answer.text(), answer.headers.get("Retry-After")
        assert body == "null"
        assert after is not None
        assert 50 <= int(after) <= 60


@over_loopback(only(weight_per_minute=40))
async def test_a_429_usually_does_not(venue: Venue) -> None:
    async with aiohttp.ClientSession() as http:
        for _ in range(3):
            async with http.post(f"{venue.url}/info", json={"type": "meta"}) as answer:
                last = answer.status, "Retry-After" in answer.headers
        assert last == (429, False)


@over_loopback(only(sockets=1))
async def test_a_connection_too_many_is_refused_before_it_is_one(venue: Venue) -> None:
    async with websockets.connect(venue.ws_url):
        with pytest.raises(websockets.InvalidStatus, match="429"):
            await websockets.connect(venue.ws_url)
    assert venue.gate.refusals == {"sockets": 1}


def test_a_refused_pipe_can_be_told_from_one_that_works() -> None:
    venue = venue_with(only(sockets=1))
    kept, refused = venue.pipe(), venue.pipe()
    venue.advance(0)
    assert isinstance(kept, Pipe)
    assert (kept.is_open, refused.is_open) == (True, False)
    with pytest.raises(ConnectionError):
        refused.send(b"{}")
