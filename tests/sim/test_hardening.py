"""What a reviewer broke: hostile requests, money that nobody paid in, sockets and stops that must not hang."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import aiohttp
import pytest
from sim.peer import TIMEOUT_S, Hand, Peer, in_quiet_venue, peer_of, post, settle
from sim.raw import Raw, limit, quiet_venue

from hlconn import Cloid, account, action
from hlconn._core.sign import hash_of
from hlconn.errors import ConfigError
from hlconn.sim import InfoRefused, Venue
from hlconn.sim.pytest_plugin import VenueThread

TOO_DEEP = "[" * 300 + "]" * 300
BAD_SHAPE = "Failed to deserialize the JSON body into the target type"


@pytest.mark.parametrize("held", ["in the pool", "by a fault"])
def test_a_stop_ends_requests_that_nobody_will_answer(held: str) -> None:
    async def run() -> None:
        venue = Venue(stepped=True, traders=False)
        await venue.start()
        hand = Hand(venue, venue.account())
        url, body = f"{venue.url}/exchange", hand.payload(action.noop())
        if held == "by a fault":
            venue.fault("slow", channel="info", ms=60_000)
            url, body = f"{venue.url}/info", b'{"type":"meta"}'
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession() as http:
            asking = asyncio.create_task(http.post(url, data=body, headers=headers))
            while not venue._server._waiting:
                await asyncio.sleep(0)
            await asyncio.wait_for(venue.stop(), TIMEOUT_S)
            with pytest.raises(aiohttp.ClientError):
                await asyncio.wait_for(asking, TIMEOUT_S)

    asyncio.run(run())


@in_quiet_venue()
async def test_what_is_nested_deeply_is_refused_and_keeps_its_connection(venue: Venue, peer: Peer) -> None:
    for text in (
        '{"method":"subscribe","subscription":{"type":"bbo","coin":"nope","x":DEEP}}',
        '{"method":"subscribe","subscription":{"type":"bbo","coin":"BTC","x":DEEP}}',
        '{"method":"post","id":1,"request":{"type":"info","payload":{"type":"meta","x":DEEP}}}',
    ):
        await peer.ws.send(text.replace("DEEP", TOO_DEEP))
    channels = [message["channel"] for message in await peer.drain()]
    assert "error" in channels
    assert "post" in channels


def test_odd_values_in_info_requests_do_not_deserialize() -> None:
    venue = quiet_venue()
    user = venue.account().address
    for request in (
        {"type": "candleSnapshot", "req": {"coin": "BTC", "interval": [], "startTime": 0}},
        {"type": "candleSnapshot", "req": {"coin": "BTC", "interval": {"1m": 1}, "startTime": 0}},
        {"type": "openOrders", "user": user, "dex": 0},
        {"type": "userFills", "user": user, "aggregateByTime": "no"},
        {"type": "userFillsByTime", "user": user, "startTime": 0, "reversed": [1]},
        {"type": "orderStatus", "user": user, "oid": "junk"},
        {"type": "orderStatus", "user": user, "oid": -1},
        {"type": "maxBuilderFee", "user": user, "builder": "junk"},
    ):
        with pytest.raises(InfoRefused, match=BAD_SHAPE):
            venue.info(**request)


def test_a_body_that_is_not_encoded_as_it_says_is_a_bad_request() -> None:
    async def run() -> None:
        async with Venue(stepped=True, traders=False) as venue, aiohttp.ClientSession() as http:
            headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
            async with http.post(f"{venue.url}/info", data=b"no gzip at all", headers=headers) as answer:
                assert answer.status == 400
            assert (await post(venue, {"type": "meta"}))[0] == 200

    asyncio.run(run())


def test_an_unsigned_vault_address_moves_nobody_s_money() -> None:
    venue = quiet_venue()
    leader = venue.account(1000)
    vault, sub = venue.vault(leader, 5000), venue.sub_account(leader, 5000)
    raw = Raw(venue, leader)
    stranger = venue.account(0).address
    for address in (vault, sub):
        signed = account.usd_send(raw.signer, stranger, "100", nonce=raw.nonce())
        envelope = json.loads(signed.payload) | {"vaultAddress": address, "expiresAfter": 1}
        assert raw.post_raw(envelope)["payload"]["status"] == "ok"
        state = venue.info(type="clearinghouseState", user=address)
        assert state["withdrawable"] == "5000.0"
    assert venue.info(type="clearinghouseState", user=leader.address)["withdrawable"] == "800.0"


def test_what_is_not_for_vaults_is_refused_with_one() -> None:
    venue = quiet_venue()
    leader = venue.account()
    sub = venue.sub_account(leader)
    raw = Raw(venue, leader)
    refused = {"status": "err", "response": f"Vault not registered: {sub}"}
    signed = raw.signer.sign(action.raw({"type": "setReferrer", "code": "X"}), raw.nonce(), vault=None)
    assert raw.post_raw(json.loads(signed.payload))["payload"] == {"status": "ok", "response": {"type": "default"}}
    # Signed with the vault in its hash, by the same key:
    act = action.raw({"type": "setReferrer", "code": "Y"})
    nonce = raw.nonce()
    _, digest = hash_of(act, nonce, sub, None, "testnet")
    r, s, v = raw.signer._sign_digest(digest)
    envelope = {
        "action": json.loads(act.json),
        "nonce": nonce,
        "signature": {"r": hex(r), "s": hex(s), "v": v},
        "vaultAddress": sub,
    }
    assert raw.post_raw(envelope)["payload"] == refused


def test_nobody_opens_a_position_that_is_lost_at_the_mark_price() -> None:
    venue = quiet_venue()
    seller, buyer = Raw(venue, venue.account(1000)), Raw(venue, venue.account(1000))
    # The mark price is 106,000: whoever buys at 180,000 gives 12,580 away.
    assert "resting" in seller.order(limit("A", 180_000, "0.17"))[0]
    text = "Insufficient margin to place order. asset=0"
    assert buyer.order(limit("B", 180_000, "0.17")) == [{"error": text}]
    assert buyer.order(limit("B", 180_000, "0.01"))[0]["filled"]["totalSz"] == "0.01"
    for raw in (seller, buyer):
        state = venue.info(type="clearinghouseState", user=raw.party.address)
        assert float(state["marginSummary"]["accountValue"]) > 0


def test_resting_orders_bind_what_they_would_lose() -> None:
    venue = quiet_venue()
    raw = Raw(venue, venue.account(1000))
    before = float(venue.info(type="clearinghouseState", user=raw.party.address)["withdrawable"])
    raw.order(limit("B", 116_000, "0.05"))
    after = float(venue.info(type="clearinghouseState", user=raw.party.address)["withdrawable"])
    # 10,000 above the mark, and 5 % of the notional at the mark as margin.
    assert before - after == pytest.approx(0.05 * 10_000 + 0.05 * 106_000 / 20)


def test_an_agent_stays_one_whatever_is_sent_to_its_address() -> None:
    venue = quiet_venue()
    master, other = venue.account(), venue.account()
    agent = venue.agent(master)
    raw = Raw(venue, other)
    signed = account.usd_send(raw.signer, agent.address, "1", nonce=raw.nonce())
    assert raw.post_raw(json.loads(signed.payload))["payload"]["status"] == "ok"
    hands = Raw(venue, agent)
    assert "resting" in hands.order(limit("B", 100_000, "0.01"))[0]
    assert len(venue.history.orders(master.address)) == 1
    assert venue.info(type="userRole", user=agent.address) == {"role": "agent", "data": {"user": master.address}}


def test_a_batch_is_refused_whole_by_what_depends_on_it_alone() -> None:
    venue = quiet_venue()
    raw = Raw(venue, venue.account())
    placed = raw.order(limit("B", 100_000, "0.01"), limit("B", 99_000, "0.01"))
    good, other = (status["resting"]["oid"] for status in placed)

    def entry(oid: int, px: str) -> dict[str, Any]:
        limit_ = {"limit": {"tif": "Gtc"}}
        return {"oid": oid, "order": {"a": 0, "b": True, "p": px, "s": "0.01", "r": False, "t": limit_}}

    batch = {"type": "batchModify", "modifies": [entry(good, "100001"), entry(other, "99000.55")]}
    tick = {"error": "Price must be divisible by tick size. asset=0"}
    assert raw.do(action.raw(batch))["response"]["data"]["statuses"] == [tick]
    assert [order["oid"] for order in venue.info(type="openOrders", user=raw.party.address)] == [other, good]
    for kind, key in (("cancel", "cancels"), ("cancelByCloid", "cancels"), ("batchModify", "modifies")):
        statuses = raw.do(action.raw({"type": kind, key: []}))["response"]["data"]["statuses"]
        assert statuses == [{"error": "Orders are empty."}]


def test_a_batch_of_n_costs_n_of_the_address_budget() -> None:
    venue = quiet_venue()
    raw = Raw(venue, venue.account())
    raw.order(*[limit("B", 100_000, "0.001", cloid=Cloid(number + 1)) for number in range(30)])
    assert venue.info(type="userRateLimit", user=raw.party.address)["nRequestsUsed"] == 30


def test_a_half_open_socket_is_given_up_some_day() -> None:
    async def run() -> None:
        async with Venue(stepped=True, traders=False) as venue, peer_of(venue) as peer:
            assert venue.fault("half_open").hits == 1
            await settle()
            assert len(venue._server._sockets) == 1
            venue.advance(601_000)
            assert await peer.closing() is None
            async with asyncio.timeout(TIMEOUT_S):
                while venue._server._sockets:
                    await asyncio.sleep(0.001)

    asyncio.run(run())


def test_a_client_that_raises_does_not_stop_the_venue(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    async def run() -> None:
        async with Venue(speed=100.0, coins=("BTC",)) as venue:
            pipe = venue.pipe()

            def fail(message: bytes) -> None:
                raise ZeroDivisionError("on purpose")

            pipe.on_message = fail
            async with asyncio.timeout(TIMEOUT_S):
                while venue.stats.blocks < 5:
                    await asyncio.sleep(0.001)

    asyncio.run(run())


def test_what_does_not_add_up_ends_a_debug_venue_with_that_error(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with Venue(speed=100.0, coins=("BTC",), debug=True) as venue:
            venue.exchange.ledger.collected[""] = 1
            async with asyncio.timeout(TIMEOUT_S):
                while not venue._paused:
                    await asyncio.sleep(0.001)

    with pytest.raises(AssertionError, match="was paid in"):
        asyncio.run(run())
    assert any("makes no more blocks" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("idle_close_s", "closes"), [(60.0, True), (None, False)])
def test_who_is_sent_nothing_for_a_minute_is_closed(idle_close_s: float | None, closes: bool) -> None:
    venue = quiet_venue(idle_close_s=idle_close_s)
    silent, pinging = Raw(venue, venue.account()), Raw(venue, venue.account())
    for _ in range(5):
        venue.advance(20_000)
        pinging.pipe.send(b'{"method":"ping"}')
    venue.advance(0)
    assert silent.closed == ([1000] if closes else [])
    assert pinging.closed == []


def test_the_next_answer_can_be_a_text_of_the_error_channel_and_of_info() -> None:
    venue = quiet_venue()
    raw = Raw(venue, venue.account())
    venue.answer_next("too many pending post requests id={id}", kind="error")
    post_id = raw.write(action.noop())
    assert raw.take("error") == [f"too many pending post requests id={post_id}"]
    venue.answer_next(None, status=429, kind="info")
    raw.pipe.send(b'{"method":"post","id":77,"request":{"type":"info","payload":{"type":"meta"}}}')
    venue.advance(0)
    assert raw.answers[77] == {"type": "error", "payload": "429 Too Many Requests"}
    venue.fault("http_status", channel="info", status=503, body="Service Unavailable")
    raw.pipe.send(b'{"method":"post","id":78,"request":{"type":"info","payload":{"type":"meta"}}}')
    venue.advance(0)
    assert raw.answers[78] == {"type": "error", "payload": "503 Service Unavailable"}


def test_more_leverage_is_always_allowed_and_less_needs_margin() -> None:
    venue = quiet_venue()
    raw, other = Raw(venue, venue.account(1000)), Raw(venue, venue.account(100_000))

    def leverage(value: int, *, is_cross: bool = True) -> Any:
        return raw.do(action.update_leverage("BTC", value, raw.instruments, is_cross=is_cross))

    raw.order(limit("B", 106_000, "0.15"))
    other.order(limit("A", 106_000, "0.15"))
    venue.set_mark("BTC", 100_500)  # 825 of 1000 lost: less than the margin of 753 at leverage 20
    assert leverage(40)["status"] == "ok"
    assert leverage(20)["response"].startswith("Cross position does not have sufficient margin")
    sub = Raw(venue, venue.account(100_000))
    assert sub.do(action.update_leverage("ETH", 20, sub.instruments, is_cross=False))["status"] == "ok"
    other.order(limit("A", 3500, "1", coin="ETH"))
    sub.order(limit("B", 3500, "1", coin="ETH"))
    text = sub.do(action.update_leverage("ETH", 1, sub.instruments, is_cross=False))["response"]
    assert text == "Isolated position does not have sufficient margin available to decrease leverage."


def test_contexts_come_on_change_and_candles_of_now() -> None:
    venue = quiet_venue()
    raw = Raw(venue, venue.account())
    venue.rest("BTC", "A", "106000", "1")
    venue.cross("BTC", "B", "0.1")
    raw.subscribe(type="activeAssetCtx", coin="BTC")
    assert len(raw.take("activeAssetCtx")) == 1
    venue.advance(5_000)
    first = raw.take("activeAssetCtx")
    assert len(first) <= 1
    venue.advance(5_000)
    assert raw.take("activeAssetCtx") == []
    venue.set_mark("BTC", "107000")
    venue.advance(1_000)
    assert [message["ctx"]["markPx"] for message in raw.take("activeAssetCtx")] == ["107000.0"]
    venue.advance(600_000)
    raw.subscribe(type="candle", coin="BTC", interval="1m")
    [candle] = raw.take("candle")
    assert candle["t"] <= venue.exchange.block.time_ms <= candle["T"]
    assert candle["n"] == 0


def test_a_clock_put_back_does_not_freeze_the_streams() -> None:
    venue = Venue(stepped=True, coins=("BTC",))
    raw = Raw(venue, venue.account())
    raw.subscribe(type="l2Book", coin="BTC", fast=True)
    venue.fault("skew", ms=-60_000)
    venue.advance(10_000)
    assert len(raw.take("l2Book")) > 10


def test_the_judge_of_tests_knows_addresses_in_any_case_and_no_strangers() -> None:
    venue = quiet_venue()
    party = venue.account()
    raw = Raw(venue, party)
    cloid = Cloid(0xABCDEF)
    raw.order(limit("B", 100_000, "0.01", cloid=cloid))
    shouted = "0x" + party.address[2:].upper()
    assert len(venue.history.orders(shouted)) == 1
    assert venue.history.order(shouted, cloid.hex.upper().replace("X", "x")) is not None
    for look in (venue.history.orders, venue.history.fills, venue.history.positions):
        with pytest.raises(ConfigError, match="no account"):
            look(venue.stranger().address)


def test_the_venue_in_a_thread_can_be_stopped_started_and_piped_to() -> None:
    with VenueThread(coins=("BTC",), traders=False, instant=True) as venue:
        seen: list[bytes] = []
        pipe = venue.pipe()
        pipe.on_message = seen.append
        pipe.send(b'{"method":"ping"}')
        venue.info(type="meta")  # whatever was due before has been done
        url = venue.url
        venue.stop()
        venue.start()
        assert venue.url == url
        assert b'{"channel":"pong"}' in seen
        venue.faults.clear()
