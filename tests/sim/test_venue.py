"""The venue over loopback and over pipes, as clients that share no code with it see it: `websockets` and `aiohttp`."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import logging
import re
import socket
import ssl
import time
from contextlib import closing, suppress
from typing import Any

import aiohttp
import pytest
import trustme
import websockets
from sim.peer import GREETING, TIMEOUT_S, Hand, Peer, in_quiet_venue, in_venue, info, peer_of, post, settle, until
from sim.raw import JsonObject, Raw, limit, quiet_venue, trigger

import hlconn.sim.info
from hlconn import Cloid, Order, Tif, Tpsl, Trigger, action
from hlconn.config import Network
from hlconn.errors import ConfigError
from hlconn.sim import InfoRefused, Venue, serve

# Subscriptions


@in_venue()
async def test_the_ack_comes_before_the_current_state(venue: Venue, peer: Peer) -> None:
    await peer.send(method="subscribe", subscription={"type": "bbo", "coin": "BTC"})
    assert await peer.text() == (
        '{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":{"type":"bbo","coin":"BTC"}}}'
    )
    assert re.fullmatch(
        r'\{"channel":"bbo","data":\{"coin":"BTC","time":\d+,"bbo":\['
        r'\{"px":"\d+\.0","sz":"\d+\.\d+","n":\d+\},\{"px":"\d+\.0","sz":"\d+\.\d+","n":\d+\}\]\}\}',
        await peer.text(),
    )


@in_venue()
async def test_the_echo_of_l2book_names_every_parameter(venue: Venue, peer: Peer) -> None:
    plain = {"type": "l2Book", "coin": "BTC", "nSigFigs": None, "mantissa": None}
    assert await peer.subscribe(type="l2Book", coin="BTC") == {"method": "subscribe", "subscription": plain}
    assert (await peer.subscribe(coin="BTC", fast=True, type="l2Book"))["subscription"] == plain | {"fast": True}
    assert (await peer.subscribe(type="l2Book", coin="BTC", nSigFigs=5, mantissa=2))["subscription"] == (
        plain | {"nSigFigs": 5, "mantissa": 2}
    )


@in_venue()
async def test_an_id_beside_the_method_changes_nothing(venue: Venue, peer: Peer) -> None:
    bbo = {"type": "bbo", "coin": "BTC"}
    for method in ("subscribe", "unsubscribe"):
        await peer.send(id="17", method=method, subscription=bbo)
        assert await peer.next("subscriptionResponse") == {"method": method, "subscription": bbo}
    await peer.send(id=18, method="ping")
    assert await peer.next() == {"channel": "pong"}


@in_venue()
async def test_slow_fast_and_aggregated_books_of_a_coin_live_side_by_side(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="l2Book", coin="BTC")
    slow = await peer.next("l2Book")
    await peer.subscribe(type="l2Book", coin="BTC", fast=True)
    fast = await peer.next("l2Book")
    await peer.subscribe(type="l2Book", coin="BTC", nSigFigs=3)
    coarse = await peer.next("l2Book")
    assert list(slow) == ["coin", "time", "levels"]
    assert [len(side) for side in slow["levels"]] == [20, 20]
    assert list(fast) == ["coin", "time", "levels", "fast"]
    assert fast["fast"] is True
    assert fast["levels"] == [side[:5] for side in slow["levels"]]
    assert list(coarse) == ["coin", "time", "levels", "spread"]


@in_venue()
async def test_a_second_subscribe_is_refused_and_the_first_goes_on(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="bbo", coin="BTC")
    await peer.next("bbo")
    await peer.send(method="subscribe", subscription={"coin": "BTC", "type": "bbo"})
    assert await peer.next("error") == 'Already subscribed: {"type":"bbo","coin":"BTC"}'
    await peer.subscribe(type="l2Book", coin="BTC")
    await peer.send(method="subscribe", subscription={"type": "l2Book", "coin": "BTC", "fast": False})
    assert (await peer.next("error")).startswith("Already subscribed: ")
    while "BTC" not in venue.block().bbo_changed:
        pass
    messages = await peer.drain()
    assert [message["channel"] for message in messages] == ["bbo"]


@in_venue()
async def test_unsubscribe_is_acknowledged_and_stops_the_flow(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="bbo", coin="BTC")
    await peer.send(method="unsubscribe", subscription={"type": "bbo", "coin": "BTC"})
    assert (await peer.next("subscriptionResponse"))["method"] == "unsubscribe"
    for _ in range(10):
        venue.block()
    assert await peer.drain() == []
    await peer.send(method="unsubscribe", subscription={"type": "bbo", "coin": "BTC"})
    assert await peer.next("error") == 'Already unsubscribed: {"type":"bbo","coin":"BTC"}'


@in_venue()
async def test_trades_begin_with_a_replay_of_the_last_thirty(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="trades", coin="BTC")
    streamed = []
    for _ in range(80):
        venue.block()
        for message in await peer.drain():
            streamed += message["data"]
    assert len(streamed) > 30
    async with peer_of(venue) as late:
        await late.subscribe(type="trades", coin="BTC")
        assert await late.next("trades") == streamed[-30:]
    assert list(streamed[0]) == ["coin", "side", "px", "sz", "time", "hash", "tid", "users"]


@in_venue()
async def test_books_keep_their_cadence_and_bbo_follows_every_change(venue: Venue, peer: Peer) -> None:
    for subscription in (
        {"type": "bbo", "coin": "BTC"},
        {"type": "l2Book", "coin": "BTC"},
        {"type": "l2Book", "coin": "BTC", "fast": True},
    ):
        await peer.subscribe(**subscription)
    blocks = [venue.exchange.block, *[venue.block() for _ in range(200)]]
    times = {"bbo": [blocks[0].time_ms], "slow": [blocks[0].time_ms], "fast": [blocks[0].time_ms]}
    for message in await peer.drain():
        kind = message["channel"]
        if kind == "l2Book":
            kind = "fast" if "fast" in message["data"] else "slow"
        times[kind].append(message["data"]["time"])
    # The fast book's first state came before `drain` and after its ack.
    times["fast"] = sorted(set(times["fast"]))
    assert times["bbo"] == [block.time_ms for block in blocks if block is blocks[0] or "BTC" in block.bbo_changed]
    for kind, period_ms in (("slow", 5000), ("fast", 500)):
        gaps = [after - before for before, after in itertools.pairwise(times[kind])]
        assert len(gaps) >= 3
        assert all(period_ms <= gap < period_ms + 100 for gap in gaps)


@in_venue()
async def test_mids_and_contexts_keep_their_cadence(venue: Venue, peer: Peer) -> None:
    subscriptions: list[JsonObject] = [{"type": "allMids"}, {"type": "activeAssetCtx", "coin": "BTC"}]
    for subscription in subscriptions:
        await peer.subscribe(**subscription)
    blocks = [venue.block() for _ in range(100)]
    came = [message["channel"] for message in await peer.drain()]
    lasted_ms = blocks[-1].time_ms - blocks[0].time_ms
    # One more of each: what came at once.
    assert lasted_ms // 1100 <= came.count("allMids") <= lasted_ms // 1000 + 1
    assert lasted_ms // 600 <= came.count("activeAssetCtx") <= lasted_ms // 500 + 1


@in_venue()
async def test_every_client_of_a_topic_gets_the_same_bytes(venue: Venue, peer: Peer) -> None:
    async with peer_of(venue) as other:
        for each in (peer, other):
            await each.subscribe(type="bbo", coin="BTC")
            await each.next("bbo")
        while "BTC" not in venue.block().bbo_changed:
            pass
        assert await peer.text() == await other.text()
        assert venue.clients == 2


@in_venue(coins=("MATIC", "BTC"))
async def test_an_empty_book_is_empty_lists_and_nulls(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="l2Book", coin="MATIC")
    assert (await peer.next("l2Book"))["levels"] == [[], []]
    await peer.subscribe(type="bbo", coin="MATIC")
    assert (await peer.next("bbo"))["bbo"] == [None, None]


PERP_CTX = {
    "funding", "openInterest", "prevDayPx", "dayNtlVlm", "premium", "oraclePx", "markPx", "midPx", "impactPxs",
    "dayBaseVlm",
}  # fmt: skip
SPOT_CTX = {"prevDayPx", "dayNtlVlm", "markPx", "midPx", "circulatingSupply", "coin", "totalSupply", "dayBaseVlm"}


@pytest.mark.parametrize(
    ("coin", "channel", "keys"),
    [
        ("BTC", "activeAssetCtx", PERP_CTX),
        ("test:GOLD", "activeAssetCtx", PERP_CTX),
        ("PURR/USDC", "activeSpotAssetCtx", SPOT_CTX),
        ("@1", "activeSpotAssetCtx", SPOT_CTX),
    ],
)
def test_contexts_of_spot_come_on_a_channel_of_their_own(coin: str, channel: str, keys: set[str]) -> None:
    @in_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        ack = await peer.subscribe(type="activeAssetCtx", coin=coin)
        assert ack["subscription"] == {"type": "activeAssetCtx", "coin": coin}
        data = await peer.next(channel)
        assert data["coin"] == coin
        assert data["ctx"].keys() == keys

    run()


@in_quiet_venue()
async def test_a_context_follows_the_mark_and_the_book(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="activeAssetCtx", coin="MATIC")
    ctx = (await peer.next("activeAssetCtx"))["ctx"]
    assert (ctx["midPx"], ctx["impactPxs"], ctx["premium"], ctx["dayNtlVlm"]) == (None, None, None, "0.0")
    venue.rest("BTC", "B", 105_000, 2)
    venue.rest("BTC", "A", 105_001, 2)
    venue.set_mark("BTC", 105_000.0)
    venue.cross("BTC", "B", "0.5")
    await peer.subscribe(type="activeAssetCtx", coin="BTC")
    ctx = (await peer.next("activeAssetCtx"))["ctx"]
    assert (ctx["markPx"], ctx["oraclePx"], ctx["midPx"]) == ("105000.0", "105000.0", "105000.5")
    assert ctx["impactPxs"] == ["105000.0", "105001.0"]
    assert (ctx["dayNtlVlm"], ctx["dayBaseVlm"], ctx["openInterest"]) == ("52500.5", "0.5", "0.5")


@in_quiet_venue()
async def test_mids_come_by_dex_and_spot_comes_with_the_first(venue: Venue, peer: Peer) -> None:
    venue.rest("BTC", "B", 105_000, 1)
    venue.rest("BTC", "A", 105_003, 1)
    venue.rest("test:GOLD", "B", 2600, 1)
    venue.rest("test:GOLD", "A", 2700, 1)
    venue.rest("PURR/USDC", "A", "0.2", 100)
    venue.cross("PURR/USDC", "B", 100)
    assert (await peer.subscribe(type="allMids"))["subscription"] == {"type": "allMids"}
    assert await peer.next("allMids") == {"mids": {"BTC": "105001.5", "PURR/USDC": "0.2"}}
    assert (await peer.subscribe(type="allMids", dex="test"))["subscription"] == {"type": "allMids", "dex": "test"}
    assert await peer.next("allMids") == {"mids": {"test:GOLD": "2650.0"}, "dex": "test"}


@in_quiet_venue()
async def test_a_candle_comes_with_every_trade_as_one_object(venue: Venue, peer: Peer) -> None:
    assert (await peer.subscribe(type="candle", coin="BTC", interval="1m"))["subscription"] == {
        "type": "candle",
        "coin": "BTC",
        "interval": "1m",
    }
    assert await peer.drain() == []
    for px in (105_000, 105_002, 104_999):
        venue.rest("BTC", "A", px, 1)
        venue.cross("BTC", "B", 1, px)
    candles = [message["data"] for message in await peer.drain()]
    assert len(candles) == 3
    start = candles[0]["t"]
    assert candles[-1] == {
        "t": start,
        "T": start + 59_999,
        "s": "BTC",
        "i": "1m",
        "o": "105000.0",
        "c": "104999.0",
        "h": "105002.0",
        "l": "104999.0",
        "v": "3.0",
        "n": 3,
    }
    assert start % 60_000 == 0
    async with peer_of(venue) as late:
        await late.subscribe(type="candle", coin="BTC", interval="1m")
        assert await late.next("candle") == candles[-1]


# An account's streams


@pytest.fixture
def raw() -> Raw:
    """A client with an account, in a quiet venue where a bid and an ask rest in BTC, PURR and GOLD."""
    venue = quiet_venue()
    for coin, bid, ask, sz in (
        ("BTC", 105_000, 105_010, 1),
        ("PURR/USDC", 0.2, 0.201, 1000),
        ("test:GOLD", 2600, 2610, 1),
    ):
        venue.rest(coin, "B", bid, sz)
        venue.rest(coin, "A", ask, sz)
    return Raw(venue, venue.account(usdc=10_000, spot={"USDC": 500, "PURR": 100}, dexs={"test": 3000}))


ORDER_KEYS = ["coin", "side", "limitPx", "sz", "oid", "timestamp", "origSz"]


def test_order_updates_tell_the_life_of_an_order(raw: Raw) -> None:
    raw.subscribe(type="orderUpdates", user=raw.party.address)
    assert raw.take("orderUpdates") == []
    cloid = Cloid(7)
    [placed] = raw.order(limit("B", 104_000, "0.1", cloid=cloid))
    [[update]] = raw.take("orderUpdates")
    assert list(update) == ["order", "status", "statusTimestamp"]
    assert list(update["order"]) == [*ORDER_KEYS, "cloid"]
    assert (update["order"]["oid"], update["order"]["cloid"]) == (placed["resting"]["oid"], cloid.hex)
    assert (update["status"], update["order"]["sz"]) == ("open", "0.1")
    raw.cancel("BTC", placed["resting"]["oid"])
    raw.order(limit("B", 105_010, "0.1"))
    raw.order(limit("B", 105_010, "0.1", Tif.ALO))
    raw.order(limit("A", 105_020, "0.05", reduce_only=True))
    told = [(u["status"], u["order"]["sz"], u["order"].get("reduceOnly")) for [u] in raw.take("orderUpdates")]
    assert told == [
        ("canceled", "0.1", None),
        ("filled", "0.0", None),
        ("badAloPxRejected", "0.1", None),
        ("open", "0.05", True),
    ]


def test_a_modify_tells_of_two_orders_in_one_message(raw: Raw) -> None:
    raw.subscribe(type="orderUpdates", user=raw.party.address)
    [placed] = raw.order(limit("B", 104_000, "0.1"))
    raw.take("orderUpdates")
    answer = raw.do(action.batch_modify([(placed["resting"]["oid"], limit("B", 104_001, "0.1"))], raw.instruments))
    new = answer["response"]["data"]["statuses"][0]["resting"]["oid"]
    [updates] = raw.take("orderUpdates")
    told = [(update["order"]["oid"], update["status"]) for update in updates]
    assert told == [(placed["resting"]["oid"], "canceled"), (new, "open")]


FILL_KEYS = [
    "coin", "px", "sz", "side", "time", "startPosition", "dir", "closedPnl", "hash", "oid", "crossed", "fee", "tid",
    "feeToken", "twapId",
]  # fmt: skip


def test_user_events_come_on_the_channel_user(raw: Raw) -> None:
    raw.subscribe(type="userEvents", user=raw.party.address)
    assert raw.take("user") == []
    [answer] = raw.order(limit("B", 105_010, "0.1"))
    [event] = raw.take("user")
    assert list(event) == ["fills"]
    [fill] = event["fills"]
    assert list(fill) == FILL_KEYS
    assert (fill["oid"], fill["px"], fill["sz"]) == (answer["filled"]["oid"], "105010.0", "0.1")
    assert (fill["side"], fill["dir"], fill["crossed"], fill["feeToken"]) == ("B", "Open Long", True, "USDC")
    assert fill["fee"] == "4.72545"  # 0.045 % of 10501 dollars
    [made] = raw.venue.info(type="recentTrades", coin="BTC")[:1]
    assert (fill["tid"], fill["hash"]) == (made["tid"], made["hash"])


def test_user_fills_begin_with_a_snapshot_newest_first(raw: Raw) -> None:
    for sz in ("0.01", "0.02"):
        raw.order(limit("B", 105_010, sz))
    raw.subscribe(type="userFills", user=raw.party.address)
    [snapshot] = raw.take("userFills")
    assert list(snapshot) == ["isSnapshot", "user", "fills"]
    assert (snapshot["isSnapshot"], snapshot["user"]) == (True, raw.party.address)
    assert [fill["sz"] for fill in snapshot["fills"]] == ["0.02", "0.01"]
    assert snapshot["fills"] == raw.venue.info(type="userFills", user=raw.party.address)
    raw.order(limit("A", 105_000, "0.03"))
    [news] = raw.take("userFills")
    assert "isSnapshot" not in news
    assert [(fill["sz"], fill["dir"]) for fill in news["fills"]] == [("0.03", "Close Long")]


def test_aggregated_fills_are_the_same_live_and_in_the_snapshot(raw: Raw) -> None:
    raw.venue.rest("BTC", "A", 105_011, 1)
    raw.subscribe(type="userFills", user=raw.party.address, aggregateByTime=True)
    [snapshot] = raw.take("userFills")
    assert snapshot["fills"] == []
    raw.order(limit("B", 105_011, "1.5"))
    [live] = raw.take("userFills")
    [fill] = live["fills"]
    # 1 at 105010 and 0.5 at 105011.
    assert (fill["sz"], fill["px"], fill["startPosition"]) == ("1.5", "105010.3", "0.0")
    other = Raw(raw.venue, raw.party)
    other.subscribe(type="userFills", user=raw.party.address, aggregateByTime=True)
    assert other.take("userFills")[0]["fills"] == [fill]
    other.subscribe(type="userFills", user=raw.party.address)
    assert [fill["sz"] for fill in other.take("userFills")[0]["fills"]] == ["0.5", "1.0"]
    assert raw.venue.info(type="userFills", user=raw.party.address, aggregateByTime=True) == [fill]


def test_open_orders_come_whole_each_time(raw: Raw) -> None:
    raw.subscribe(type="openOrders", user=raw.party.address)
    assert raw.take("openOrders") == [{"dex": "", "user": raw.party.address, "orders": []}]
    raw.order(limit("B", 104_000, "0.1"), limit("B", 0.19, 100, coin="PURR/USDC"))
    raw.order(limit("B", 2500, 1, coin="test:GOLD"))
    told = raw.take("openOrders")
    assert [order["coin"] for order in told[-1]["orders"]] == ["PURR/USDC", "BTC"]
    assert told[-1]["orders"] == raw.venue.info(type="frontendOpenOrders", user=raw.party.address)
    raw.subscribe(type="openOrders", user=raw.party.address, dex="test")
    [data] = raw.take("openOrders")
    assert (data["dex"], [order["coin"] for order in data["orders"]]) == ("test", ["test:GOLD"])


def test_clearinghouse_states_follow_trades_and_marks(raw: Raw) -> None:
    raw.subscribe(type="clearinghouseState", user=raw.party.address)
    [data] = raw.take("clearinghouseState")
    assert list(data) == ["dex", "user", "clearinghouseState"]
    assert (data["dex"], data["user"]) == ("", raw.party.address)
    assert data["clearinghouseState"]["marginSummary"]["accountValue"] == "10000.0"
    raw.order(limit("B", 105_010, "0.1"))
    data = raw.take("clearinghouseState")[-1]
    assert data["clearinghouseState"]["assetPositions"][0]["position"]["szi"] == "0.1"
    assert data["clearinghouseState"] == raw.venue.info(type="clearinghouseState", user=raw.party.address)
    raw.venue.set_mark("BTC", 105_110)
    data = raw.take("clearinghouseState")[-1]
    assert data["clearinghouseState"]["assetPositions"][0]["position"]["unrealizedPnl"] == "10.0"


def test_spot_states_follow_what_is_held_and_traded(raw: Raw) -> None:
    raw.subscribe(type="spotState", user=raw.party.address)
    [data] = raw.take("spotState")
    assert list(data) == ["user", "spotState"]
    assert data["spotState"]["balances"] == [
        {"coin": "USDC", "token": 0, "total": "500.0", "hold": "0.0", "entryNtl": "0.0"},
        {"coin": "PURR", "token": 1, "total": "100.0", "hold": "0.0", "entryNtl": "0.0"},
    ]
    raw.order(limit("B", 0.19, 100, coin="PURR/USDC"))
    data = raw.take("spotState")[-1]
    assert data["spotState"]["balances"][0]["hold"] == "19.0"
    raw.order(limit("A", 0.2, 100, coin="PURR/USDC"))
    data = raw.take("spotState")[-1]
    # 100 at 0.2 are 20 dollars, 0.07 % of which are the fee.
    assert [balance["total"] for balance in data["spotState"]["balances"]] == ["519.986", "0.0"]


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        (limit("B", 105_005, "0.25"), "Resting order filled: Bought 0.25 BTC at $105005"),
        (limit("A", 105_005, "0.1"), "Resting order filled: Sold 0.1 BTC at $105005"),
        (limit("B", 0.2005, 100, coin="PURR/USDC"), "Resting order filled: Bought 100 PURR at $0.2005"),
    ],
)
def test_a_notification_says_what_was_filled(raw: Raw, order: Order, sentence: str) -> None:
    raw.subscribe(type="notification", user=raw.party.address)
    raw.order(order)
    assert raw.take("notification") == []
    raw.venue.cross(order.coin, "A" if order.side == 0 else "B", str(order.sz))
    assert raw.take("notification") == [{"notification": sentence}]


def test_a_taker_gets_no_notification(raw: Raw) -> None:
    raw.subscribe(type="notification", user=raw.party.address)
    assert "filled" in raw.order(limit("B", 105_010, "0.25"))[0]
    assert raw.take("notification") == []


@pytest.mark.parametrize(
    ("kind", "key"),
    [("userFundings", "fundings"), ("userNonFundingLedgerUpdates", "nonFundingLedgerUpdates")],
)
def test_streams_of_what_does_not_happen_here_begin_empty(raw: Raw, kind: str, key: str) -> None:
    raw.subscribe(type=kind, user=raw.party.address)
    assert raw.take(kind) == [{"isSnapshot": True, "user": raw.party.address, key: []}]


ACCOUNT_TYPES = (
    "orderUpdates", "userEvents", "userFills", "openOrders", "clearinghouseState", "spotState", "notification",
    "userFundings", "userNonFundingLedgerUpdates",
)  # fmt: skip


@pytest.mark.parametrize("kind", ACCOUNT_TYPES)
def test_addresses_may_come_in_any_case(raw: Raw, kind: str) -> None:
    shouted = "0x" + raw.party.address[2:].upper()
    raw.subscribe(type=kind, user=shouted)
    assert raw.take("subscriptionResponse") == [
        {"method": "subscribe", "subscription": {"type": kind, "user": raw.party.address}}
    ]
    raw.subscribe(type=kind, user=raw.party.address)
    [error] = raw.take("error")
    assert error == f'Already subscribed: {{"type":"{kind}","user":"{raw.party.address}"}}'
    channel = "user" if kind == "userEvents" else kind
    raw.take(channel)
    raw.order(limit("B", 105_005, "0.1"))
    raw.venue.cross("BTC", "A", "0.1")
    if kind not in ("userFundings", "userNonFundingLedgerUpdates"):
        assert raw.take(channel)


@pytest.mark.parametrize("kind", ACCOUNT_TYPES)
def test_nobody_hears_of_others(raw: Raw, kind: str) -> None:
    other = Raw(raw.venue, raw.venue.account())
    other.subscribe(type=kind, user=other.party.address)
    channel = "user" if kind == "userEvents" else kind
    other.take(channel)
    raw.order(limit("B", 105_010, "0.1"))
    assert other.take(channel) == []


def test_the_streams_of_an_address_nobody_knows_are_empty(raw: Raw) -> None:
    nobody = raw.venue.stranger().address
    for kind in ("userFills", "openOrders", "clearinghouseState", "spotState"):
        raw.subscribe(type=kind, user=nobody)
    assert raw.take("userFills") == [{"isSnapshot": True, "user": nobody, "fills": []}]
    assert raw.take("openOrders")[0]["orders"] == []
    assert raw.take("clearinghouseState")[0]["clearinghouseState"]["assetPositions"] == []
    assert raw.take("spotState")[0]["spotState"] == {"balances": []}


# Errors


@pytest.mark.parametrize(
    "subscription",
    [
        {"type": "bbo", "coin": "XYZ"},
        {"type": "bbo", "coin": "btc"},
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 1},
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 6},
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 4, "mantissa": 2},
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "mantissa": 1},
        {"type": "l2Book", "coin": "BTC", "mantissa": 5},
        {"type": "candle", "coin": "BTC", "interval": "7m"},
        {"type": "allMids", "dex": "nowhere"},
        {"type": "openOrders", "user": "0x" + "1" * 40, "dex": "nowhere"},
        {"type": "webData2", "user": "0x" + "1" * 40},
    ],
)
def test_what_is_not_offered_is_an_invalid_subscription(subscription: dict[str, object]) -> None:
    @in_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        for method in ("subscribe", "unsubscribe"):
            await peer.send(method=method, subscription=subscription)
            compact = json.dumps(subscription, separators=(",", ":"))
            assert await peer.next() == {"channel": "error", "data": f"Invalid subscription {compact}"}

    run()


@pytest.mark.parametrize(
    "message",
    [
        "no JSON",
        "",
        "[]",
        "{}",
        '{"method":"dance"}',
        '{"method":"subscribe","xsubscription":{"type":"bbo","coin":"SOL"}}',
        '{"method": "subscribe", "subscription": {"type": "noSuchType", "coin": "BTC"}}',
        '{"method":"subscribe","subscription":{"type":"bbo"}}',
        '{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC","nSigFigs":"5"}}',
        '{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC","nSigFigs":true}}',
        '{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC","fast":1}}',
        '{"method":"subscribe","subscription":{"type":["bbo"],"coin":"BTC"}}',
        '{"method":"subscribe","subscription":{"type":"userFills","user":"0x01"}}',
        '{"method":"subscribe","subscription":{"type":"userFills","user":"0x%s"}}' % ("g" * 40),
        '{"method":"subscribe","subscription":{"type":"userFills"}}',
        '{"method":"subscribe","subscription":{"type":"userFills","user":"0x%s","aggregateByTime":1}}' % ("1" * 40),
        '{"method":"subscribe","subscription":{"type":"candle","coin":"BTC"}}',
        '{"method":["subscribe"]}',
        '{"method":"post","request":{"type":"info","payload":{"type":"meta"}}}',
        '{"method":"post","id":-1,"request":{"type":"info","payload":{"type":"meta"}}}',
        '{"method":"post","id":"1","request":{"type":"info","payload":{"type":"meta"}}}',
        '{"method":"post","id":1,"request":{"type":"magic","payload":{}}}',
        '{"method":"post","id":1,"request":{"type":"action"}}',
    ],
)
def test_what_does_not_parse_is_sent_back_whole(message: str) -> None:
    @in_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        await peer.ws.send(message)
        text = f"Error parsing JSON into valid websocket request: {message}"
        assert await peer.next() == {"channel": "error", "data": text}
        assert await peer.drain() == []

    run()


@in_venue()
async def test_a_request_may_come_in_fragments_and_as_binary(venue: Venue, peer: Peer) -> None:
    await peer.ws.send(iter(['{"met', 'hod":"', 'ping"}']))
    assert await peer.text() == '{"channel":"pong"}'
    await peer.ws.send(b'{"method":"ping"}')
    assert await peer.text() == '{"channel":"pong"}'


@pytest.mark.parametrize(("message", "code"), [(b"\xff", 1007), ("x" * ((1 << 20) + 1), 1009)])
def test_what_is_no_text_or_too_long_closes_its_sender_only(message: str | bytes, code: int) -> None:
    @in_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        async with peer_of(venue) as other:
            await other.ws.send(message, text=True)
            closing = await other.closing()
            assert closing is not None
            assert closing[0] == code
        assert await peer.drain() == []

    run()


def test_a_failure_of_ours_closes_that_client_with_1011_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(hlconn.sim.info, "answer", fail)

    @in_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        async with peer_of(venue) as other:
            await other.send(method="post", id=1, request={"type": "info", "payload": {"type": "meta"}})
            assert await other.closing() == (1011, "")
        assert await peer.drain() == []
        assert venue.clients == 1

    run()
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert failures
    assert all(record.name.startswith("hlconn.sim") for record in failures)


# Connection


@in_venue()
async def test_protocol_pings_are_answered_too(venue: Venue, peer: Peer) -> None:
    await asyncio.wait_for(await peer.ws.ping(), TIMEOUT_S)


def test_the_greeting_can_be_left_out() -> None:
    async def run() -> None:
        async with Venue(stepped=True, greeting=False) as venue, websockets.connect(venue.ws_url) as ws:
            await ws.send('{"method":"ping"}')
            assert await asyncio.wait_for(ws.recv(), TIMEOUT_S) == '{"channel":"pong"}'

    asyncio.run(run())


@in_venue()
async def test_aiohttp_connects_too(venue: Venue, peer: Peer) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(venue.ws_url) as ws:
        assert await ws.receive_str(timeout=TIMEOUT_S) == GREETING
        await ws.send_json({"method": "subscribe", "subscription": {"type": "bbo", "coin": "BTC"}})
        assert (await ws.receive_json(timeout=TIMEOUT_S))["channel"] == "subscriptionResponse"
        assert (await ws.receive_json(timeout=TIMEOUT_S))["channel"] == "bbo"


@in_venue()
async def test_only_the_path_ws_is_a_websocket(venue: Venue, peer: Peer) -> None:
    for path, status in (("/wsx", 404), ("/", 404), ("/info", 405), ("/exchange", 405)):
        with pytest.raises(websockets.InvalidStatus, match=str(status)):
            await websockets.connect(venue.url.replace("http", "ws") + path)
    assert venue.clients == 1


@in_venue()
async def test_a_cut_without_a_code_is_an_abort(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="bbo", coin="BTC")
    await peer.next("bbo")
    venue.cut()
    assert venue.clients == 0
    assert await peer.closing() is None


@pytest.mark.parametrize("code", [1000, 1012, 4001])
def test_a_cut_with_a_code_says_expired(code: int) -> None:
    @in_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        venue.cut(code)
        assert await peer.closing() == (code, "Expired")
        async with peer_of(venue) as again:
            await again.subscribe(type="bbo", coin="BTC")

    run()


async def bare_upgrade(venue: Venue) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket of a client that says nothing any more."""
    host, port = venue.ws_url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n" + upgrade + key + b"\r\n")
    await asyncio.wait_for(reader.readuntil(GREETING.encode()), TIMEOUT_S)
    return reader, writer


def test_a_stop_does_not_wait_for_clients_that_ignore_a_close() -> None:
    async def run() -> None:
        async with Venue(stepped=True) as venue:
            reader, writer = await bare_upgrade(venue)
            venue.cut(1000)
            began = time.perf_counter()
            await venue.stop()
            assert time.perf_counter() - began < 0.5
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), TIMEOUT_S) == b"\x88\x09\x03\xe8Expired"
            writer.close()

    asyncio.run(run())


def test_a_client_that_ignores_a_close_is_cut_after_a_second() -> None:
    async def run() -> None:
        async with Venue(stepped=True) as venue:
            reader, writer = await bare_upgrade(venue)
            venue.cut(1000)
            began = time.perf_counter()
            assert await asyncio.wait_for(reader.read(), TIMEOUT_S) == b"\x88\x09\x03\xe8Expired"
            assert 0.5 < time.perf_counter() - began < 4
            writer.close()

    asyncio.run(run())


@in_venue()
async def test_a_client_that_closes_is_forgotten(venue: Venue, peer: Peer) -> None:
    async with peer_of(venue) as other:
        await other.subscribe(type="bbo", coin="BTC")
        assert venue.clients == 2
    assert other.ws.close_code == 1000
    await peer.drain()
    assert venue.clients == 1
    for _ in range(5):
        venue.block()


def test_a_client_that_stops_reading_is_dropped() -> None:
    async def run() -> None:
        async with Venue(stepped=True, max_buffer_bytes=100_000) as venue:
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", int(venue.url.split(":")[2])))
            reader.setblocking(False)
            options: dict[str, Any] = {"max_queue": 1, "close_timeout": 0.1}
            async with websockets.connect(venue.ws_url, sock=reader, **options) as ws, peer_of(venue) as peer:

                async def ask_and_never_read() -> None:
                    whole_book = {"type": "info", "payload": {"type": "hiddenBook", "coin": "BTC"}}
                    with suppress(websockets.ConnectionClosed):
                        while not venue.stats.slow_clients_dropped:
                            await ws.send(json.dumps({"method": "post", "id": 1, "request": whole_book}))
                            await asyncio.sleep(0)

                await asyncio.wait_for(ask_and_never_read(), TIMEOUT_S)
                assert venue.stats.slow_clients_dropped == 1
                assert await peer.drain() == []
                assert venue.clients == 1

    asyncio.run(run())


def test_a_stopped_venue_comes_back_on_the_same_port_with_the_same_market() -> None:
    async def run() -> None:
        async with Venue(speed=50) as venue:
            endpoints = venue.endpoints
            async with peer_of(venue) as peer:
                await peer.subscribe(type="bbo", coin="BTC")
                last = await peer.next("bbo")
                await venue.stop()
                assert await peer.closing() is None
            assert venue.clients == 0
            stood = venue.now_ms()
            with pytest.raises(ConnectionRefusedError):
                await websockets.connect(venue.ws_url)
            with pytest.raises(aiohttp.ClientConnectorError):
                await info(venue, type="meta")
            assert venue.now_ms() == stood
            await venue.start()
            assert venue.endpoints == endpoints
            async with peer_of(venue) as peer:
                await peer.subscribe(type="bbo", coin="BTC")
                times = [(await peer.next("bbo"))["time"] for _ in range(5)]
            assert last["time"] <= times[0]
            assert times == sorted(set(times))
            assert (await info(venue, type="hiddenBook", coin="BTC", time=last["time"]))["time"] == last["time"]
        await venue.stop()

    asyncio.run(run())


def test_a_stop_keeps_orders_and_ends_pipes() -> None:
    async def run() -> None:
        async with quiet_venue() as venue:
            raw = Raw(venue, venue.account())
            [placed] = raw.order(limit("B", 104_000, "0.1"))
            await venue.stop()
            venue.advance(0)
            assert raw.closed == [None]
            await venue.start()
            [order] = await info(venue, type="openOrders", user=raw.party.address)
            assert order["oid"] == placed["resting"]["oid"]
            again = Raw(venue, raw.party)
            assert again.cancel("BTC", order["oid"]) == "success"

    asyncio.run(run())


def test_a_stop_ends_idle_http_connections() -> None:
    async def run() -> None:
        async with Venue(stepped=True) as venue:
            connection = http.client.HTTPConnection(venue.url.split("/")[2], timeout=TIMEOUT_S)
            with closing(connection):

                def ask() -> None:
                    connection.request("POST", "/info", b'{"type":"meta"}', {"Content-Type": "application/json"})
                    assert connection.getresponse().read()

                await asyncio.to_thread(ask)
                assert connection.sock is not None
                await venue.stop()
                assert await asyncio.to_thread(connection.sock.recv, 1) == b""

    asyncio.run(run())


async def check_tls(venue: Venue, context: ssl.SSLContext) -> None:
    assert venue.url.startswith("https://")
    assert venue.ws_url.startswith("wss://")
    async with peer_of(venue, ssl=context) as peer:
        await peer.subscribe(type="bbo", coin="BTC")
        for _ in range(3):
            await peer.next("bbo")
    reply = await post(venue, {"type": "meta"}, context=context)
    assert reply.status == 200
    assert "universe" in json.loads(reply.text)


def test_over_tls_with_a_certificate_of_its_own() -> None:
    async def run() -> None:
        async with Venue(speed=50, tls=True) as venue:
            await check_tls(venue, venue.client_context())
            assert venue.ca_pem.startswith(b"-----BEGIN CERTIFICATE-----")
            with pytest.raises(ssl.SSLCertVerificationError):
                await websockets.connect(venue.ws_url)

    asyncio.run(run())


def test_over_tls_with_a_certificate_of_the_callers() -> None:
    authority = trustme.CA()
    server_context, client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    authority.configure_trust(client_context)

    async def run() -> None:
        async with Venue(speed=50, tls=server_context) as venue:
            await check_tls(venue, client_context)
            with pytest.raises(RuntimeError, match="tls=True"):
                venue.client_context()

    asyncio.run(run())


# Pipes


def test_a_pipe_answers_like_a_socket_and_never_inside_send() -> None:
    venue = Venue(stepped=True)
    pipe = venue.pipe()
    heard: list[bytes] = []
    pipe.on_message = heard.append
    pipe.send(b'{"method":"subscribe","subscription":{"type":"bbo","coin":"BTC"}}')
    assert heard == []
    venue.advance(0)
    assert heard[0] == GREETING.encode()
    assert [json.loads(message)["channel"] for message in heard[1:]] == ["subscriptionResponse", "bbo"]
    assert venue.clients == 1


def test_a_pipe_with_latency_takes_it_in_both_directions() -> None:
    venue = Venue(stepped=True, traders=False, greeting=False)
    pipe = venue.pipe(latency_ms=40)
    heard: list[tuple[float, bytes]] = []
    began = venue.now_ms()
    pipe.on_message = lambda message: heard.append((venue.now_ms() - began, message))
    pipe.send(b'{"method":"ping"}')
    venue.advance(39)
    assert venue.stats.pings == 0
    venue.advance(1)
    assert venue.stats.pings == 1
    assert heard == []
    venue.advance(1000)
    assert heard == [(80.0, b'{"channel":"pong"}')]


def test_a_pipe_keeps_the_order_of_messages() -> None:
    venue = quiet_venue(greeting=False)
    pipe = venue.pipe(latency_ms=25)
    heard: list[bytes] = []
    pipe.on_message = heard.append
    pipe.send(b'{"method":"subscribe","subscription":{"type":"bbo","coin":"BTC"}}')
    venue.advance(25)
    for px in range(100_000, 100_050):
        venue.rest("BTC", "B", px, 1)
        venue.advance(1)
    venue.advance(25)
    prices = [json.loads(message)["data"]["bbo"][0] for message in heard[1:]]
    assert prices[0] is None
    assert [level["px"] for level in prices[1:]] == [f"{px}.0" for px in range(100_000, 100_050)]


def test_a_pipe_is_closed_from_either_side() -> None:
    venue = Venue(stepped=True)
    pipes = [venue.pipe() for _ in range(3)]
    closed: list[list[int | None]] = [[] for _ in pipes]
    for pipe, codes in zip(pipes, closed, strict=True):
        pipe.on_close = codes.append
    pipes[0].close()
    assert (pipes[0].is_open, venue.clients) == (False, 2)
    with pytest.raises(ConnectionError):
        pipes[0].send(b'{"method":"ping"}')
    venue.cut(1000)
    venue.advance(0)
    assert closed == [[], [1000], [1000]]
    assert venue.clients == 0
    with pytest.raises(ConnectionError):
        pipes[1].send(b'{"method":"ping"}')


def test_a_pipe_works_on_a_running_venue() -> None:
    async def run() -> None:
        async with Venue(speed=50) as venue:
            pipe = venue.pipe(latency_ms=10)
            heard: list[bytes] = []
            pipe.on_message = heard.append
            pipe.send(b'{"method":"subscribe","subscription":{"type":"bbo","coin":"BTC"}}')
            await until(lambda: len(heard) > 5)
            assert [json.loads(message)["channel"] for message in heard[1:3]] == ["subscriptionResponse", "bbo"]

    asyncio.run(run())


# The hidden book, and quiet points


def test_every_book_pushed_is_the_hidden_book_of_its_block() -> None:
    async def run() -> None:
        async with Venue(speed=50, seed=11) as venue, peer_of(venue) as peer:
            for coin in ("BTC", "kPEPE", "PURR/USDC"):
                await peer.subscribe(type="bbo", coin=coin)
                await peer.subscribe(type="l2Book", coin=coin)
                await peer.subscribe(type="l2Book", coin=coin, fast=True)
            seen: list[dict[str, Any]] = []
            while sum("levels" in data and "fast" not in data for data in seen) < 6:
                message = await peer.next()
                if message["channel"] in ("bbo", "l2Book"):
                    seen.append(message["data"])
            assert len(seen) > 50
            for data in seen:
                hidden = venue.info(type="hiddenBook", coin=data["coin"], time=data["time"])
                assert hidden["time"] == data["time"]
                if "bbo" in data:
                    assert data["bbo"] == [side[0] for side in hidden["levels"]]
                else:
                    depth = 5 if "fast" in data else 20
                    assert data["levels"] == [side[:depth] for side in hidden["levels"]]

    asyncio.run(run())


def test_a_pause_sends_the_last_state_of_every_book_and_then_nothing() -> None:
    async def run() -> None:
        async with Venue(speed=50) as venue, peer_of(venue) as peer:
            await peer.subscribe(type="trades", coin="ETH")
            await peer.subscribe(type="bbo", coin="ETH")
            await peer.subscribe(type="l2Book", coin="ETH")
            await peer.subscribe(type="l2Book", coin="ETH", fast=True)
            for _ in range(5):
                await peer.next("bbo")
            venue.pause()
            bbo, slow, fast = [message["data"] for message in (await peer.drain())[-3:]]
            hidden = await info(venue, type="hiddenBook", coin="ETH")
            assert hidden["time"] == venue.exchange.block.time_ms
            assert {data["time"] for data in (bbo, slow, fast)} == {hidden["time"]}
            assert bbo["bbo"] == [side[0] for side in hidden["levels"]]
            assert slow["levels"] == [side[:20] for side in hidden["levels"]]
            assert fast["levels"] == [side[:5] for side in hidden["levels"]]
            assert await peer.drain() == []
            assert venue.exchange.block.time_ms == hidden["time"]
            venue.resume()
            assert (await peer.next("bbo"))["time"] > hidden["time"]

    asyncio.run(run())


def test_actions_wait_for_the_end_of_a_pause() -> None:
    venue = quiet_venue()
    raw = Raw(venue, venue.account())
    venue.pause()
    post_id = raw.write(action.order([limit("B", 104_000, "0.1")], raw.instruments))
    venue.advance(1000)
    assert post_id not in raw.answers
    with pytest.raises(RuntimeError, match="resume"):
        venue.block()
    venue.resume()
    raw.wait(post_id)
    assert raw.answers[post_id]["payload"]["status"] == "ok"


def test_shuffled_messages_say_the_same() -> None:
    plain, shuffled = Venue(stepped=True), Venue(stepped=True, shuffle_keys=True)
    heard: list[list[bytes]] = []
    for venue in (plain, shuffled):
        pipe = venue.pipe()
        heard.append([])
        pipe.on_message = heard[-1].append
        for subscription in (
            {"type": "l2Book", "coin": "BTC"},
            {"type": "trades", "coin": "BTC"},
            {"type": "activeAssetCtx", "coin": "BTC"},
        ):
            pipe.send(json.dumps({"method": "subscribe", "subscription": subscription}).encode())
        for _ in range(100):
            venue.block()
    assert len(heard[0]) > 50
    assert [json.loads(m) for m in heard[0][1:]] == [json.loads(m) for m in heard[1][1:]]
    assert sum(one != other for one, other in zip(*heard, strict=True)) > 40


@in_venue(shuffle_keys=True)
async def test_shuffled_answers_are_read_by_a_client_too(venue: Venue, peer: Peer) -> None:
    await peer.subscribe(type="l2Book", coin="BTC")
    data = await peer.next("l2Book")
    hidden = await info(venue, type="hiddenBook", coin="BTC", time=data["time"])
    assert data["levels"] == [side[:20] for side in hidden["levels"]]


# HTTP, and posts

BAD_SHAPE = "Failed to deserialize the JSON body into the target type"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "Failed to parse the request body as JSON"),
        (b"", 400, "Failed to parse the request body as JSON"),
        ([], 422, BAD_SHAPE),
        ({"type": "noSuchType"}, 422, BAD_SHAPE),
        ({"type": ["meta"]}, 422, BAD_SHAPE),
        ({"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "mantissa": 1}, 500, "null"),
        (
            {"type": "hiddenBook", "coin": "BTC", "time": 1},
            404,
            "no block at time 1 is remembered: ask for one of the last 3 blocks",
        ),
    ],
)
def test_bad_info_requests_are_refused_as_the_venue_does(body: object, status: int, text: str) -> None:
    @in_venue(history_blocks=3)
    async def run(venue: Venue, peer: Peer) -> None:
        content_type = "application/json" if text == "null" else "text/plain"
        assert await post(venue, body) == (status, content_type, text)

    run()


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"action": {"type": "noSuchAction"}, "nonce": 1, "signature": {"r": "0x1", "s": "0x1", "v": 27}},
        {"action": {"type": "order", "orders": []}, "nonce": 1, "signature": {"r": "0x1", "s": "0x1", "v": 27}},
        {"action": {"type": "noop"}, "nonce": "1", "signature": {"r": "0x1", "s": "0x1", "v": 27}},
        {"action": {"type": "noop"}, "nonce": 1},
    ],
)
def test_an_action_of_the_wrong_shape_is_422_over_http_and_over_post(body: Any) -> None:
    @in_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        assert await post(venue, body, "/exchange") == (422, "text/plain", BAD_SHAPE)
        if isinstance(body, dict):
            await peer.send(method="post", id=5, request={"type": "action", "payload": body})
            response = {"type": "error", "payload": f"422 {BAD_SHAPE}"}
            assert await peer.next("post") == {"id": 5, "response": response}

    run()


@in_venue()
async def test_http_manners(venue: Venue, peer: Peer) -> None:
    for path in ("/", "/infos", "/info/", "/ws"):
        assert (await post(venue, {"type": "meta"}, path)).status == 404, path
    for path in ("/info", "/exchange"):
        assert (await post(venue, {"type": "meta"}, path, content_type="text/plain")).status == 415
        async with aiohttp.ClientSession() as session:
            for method in ("GET", "PUT", "DELETE"):
                async with session.request(method, venue.url + path) as response:
                    assert response.status == 405
        assert (await post(venue, b"[" + b"1," * (1 << 20) + b"1]", path)).status == 413
    reply = await post(venue, {"type": "meta"}, content_type="application/json; charset=utf-8")
    assert reply.status == 200
    async with aiohttp.ClientSession() as session, session.get(venue.url + "/ws") as response:
        assert response.status == 400
    assert await peer.drain() == []


@in_venue()
async def test_one_http_connection_carries_many_requests(venue: Venue, peer: Peer) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(venue.url, connector=connector) as session:
        for coin in ("BTC", "ETH", "XYZ"):
            async with session.post("/info", json={"type": "l2Book", "coin": coin}) as response:
                assert response.status == 200
                book = await response.json()
                assert book is None if coin == "XYZ" else book["coin"] == coin


@in_venue()
async def test_posts_carry_the_same_answers(venue: Venue, peer: Peer) -> None:
    payload = {"type": "l2Book", "coin": "ETH", "nSigFigs": 5, "mantissa": None}
    await peer.send(method="post", id=123, request={"type": "info", "payload": payload})
    assert await peer.next() == {
        "channel": "post",
        "data": {
            "id": 123,
            "response": {"type": "info", "payload": {"type": "l2Book", "data": await info(venue, **payload)}},
        },
    }


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"type": "noSuchType"}, f"422 {BAD_SHAPE}"),
        ({"type": "l2Book", "coin": "BTC", "nSigFigs": 9}, "500 Internal Server Error"),
    ],
)
def test_posts_that_are_refused_say_why(payload: dict[str, object], text: str) -> None:
    @in_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        await peer.send(method="post", id=0, request={"type": "info", "payload": payload})
        assert await peer.next("post") == {"id": 0, "response": {"type": "error", "payload": text}}

    run()


def test_the_hand_of_a_test_is_refused_as_a_client_is() -> None:
    with pytest.raises(InfoRefused) as refused:
        Venue(stepped=True).info(type="noSuchType")
    assert (refused.value.status, refused.value.text) == (422, BAD_SHAPE)


@in_quiet_venue(instant=True)
async def test_a_signed_order_goes_over_http_and_over_post(venue: Venue, peer: Peer) -> None:
    hand = Hand(venue, venue.account())
    venue.rest("BTC", "A", 105_010, 1)

    def order(px: int) -> Any:
        return action.order([limit("B", px, "0.01", cloid=Cloid(px))], hand.instruments)

    reply = await post(venue, hand.payload(order(104_000)), "/exchange")
    assert (reply.status, reply.content_type) == (200, "application/json")
    first = json.loads(reply.text)
    [resting] = hand.open_orders()
    statuses = [{"resting": {"oid": resting["oid"], "cloid": Cloid(104_000).hex}}]
    assert first == {"status": "ok", "response": {"type": "order", "data": {"statuses": statuses}}}
    await peer.ws.send(hand.post(9, order(105_010)))
    data = await peer.next("post")
    [status] = data["response"]["payload"]["response"]["data"]["statuses"]
    assert (data["id"], data["response"]["type"]) == (9, "action")
    filled = {"totalSz": "0.01", "avgPx": "105010.0", "oid": status["filled"]["oid"], "cloid": Cloid(105_010).hex}
    assert status == {"filled": filled}
    reply = await post(venue, hand.payload(action.cancel([("BTC", resting["oid"])], hand.instruments)), "/exchange")
    assert json.loads(reply.text) == {
        "status": "ok",
        "response": {"type": "cancel", "data": {"statuses": ["success"]}},
    }
    assert hand.open_orders() == []


@in_quiet_venue()
async def test_an_action_is_answered_with_the_next_block(venue: Venue, peer: Peer) -> None:
    hand = Hand(venue, venue.account())
    task = asyncio.create_task(post(venue, hand.payload(action.noop()), "/exchange"))
    await until(lambda: venue.stats.actions == 1)
    await settle()
    assert not task.done()
    venue.block()
    assert json.loads((await task).text) == {"status": "ok", "response": {"type": "default"}}


@in_quiet_venue()
async def test_an_http_client_that_leaves_does_not_take_its_action_back(venue: Venue, peer: Peer) -> None:
    hand = Hand(venue, venue.account())
    act = action.order([limit("B", 104_000, "0.01")], hand.instruments)
    task = asyncio.create_task(post(venue, hand.payload(act), "/exchange"))
    await until(lambda: venue.stats.actions == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    venue.block()
    assert len(hand.open_orders()) == 1
    assert (await post(venue, {"type": "meta"})).status == 200


def test_two_clients_of_one_key_and_an_agent_trade_for_the_same_account() -> None:
    venue = quiet_venue()
    party = venue.account()
    one, two, agent = Raw(venue, party), Raw(venue, party), Raw(venue, venue.agent(party))
    for number, raw in enumerate((one, two, agent)):
        assert "resting" in raw.order(limit("B", 100_000 + number, "0.01"))[0]
        venue.advance(10)
    assert len(venue.info(type="openOrders", user=party.address)) == 3


@pytest.mark.parametrize("answers", ["before", "after", "random"])
def test_an_answer_comes_before_or_after_what_its_block_sends(answers: str) -> None:
    venue = quiet_venue(answers=answers)
    raw = Raw(venue, venue.account())
    raw.subscribe(type="orderUpdates", user=raw.party.address)
    heard: list[str] = []
    raw.pipe.on_message = lambda message: heard.append(json.loads(message)["channel"])
    for number in range(30):
        raw.write(action.order([limit("B", 100_000 + number, "0.001")], raw.instruments))
        venue.block()
        venue.advance(0)
    assert {frozenset(pair) for pair in zip(heard[::2], heard[1::2], strict=True)} == {
        frozenset(("orderUpdates", "post"))
    }
    assert (
        set(heard[::2])
        == {
            "before": {"post"},
            "after": {"orderUpdates"},
            "random": {"post", "orderUpdates"},
        }[answers]
    )


# Forced answers

SHAPES: list[JsonObject] = [
    {"status": "ok", "response": {"type": "default"}},
    {"status": "ok", "response": {"type": "order", "data": {"statuses": [{"resting": {"oid": 1}}, {"error": "No."}]}}},
    {"status": "ok", "response": {"type": "order", "data": {"statuses": ["waitingForFill", "waitingForTrigger"]}}},
    {"status": "ok", "response": {"type": "cancel", "data": {"statuses": ["success"]}}},
    {"status": "ok", "response": {"type": "twapOrder", "data": {"status": {"running": {"twapId": 5}}}}},
    {"status": "ok", "response": {"type": "twapCancel", "data": {"status": {"error": "No."}}}},
    {"status": "ok", "response": {"type": "createSubAccount", "data": "0x" + "1" * 40}},
    {"status": "ok", "response": "Invalid leverage value"},
    {"status": "err", "response": "Too many cumulative requests sent (10001 > 10000)"},
    {"unheard": "of"},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_next_answer_can_be_any_shape_and_has_no_effect(shape: JsonObject) -> None:
    @in_quiet_venue(instant=True)
    async def run(venue: Venue, peer: Peer) -> None:
        hand = Hand(venue, venue.account())
        order = action.order([limit("B", 104_000, "0.01")], hand.instruments)
        venue.answer_next(shape)
        venue.answer_next(shape)
        assert json.loads((await post(venue, hand.payload(order), "/exchange")).text) == shape
        await peer.ws.send(hand.post(1, order))
        assert await peer.next("post") == {"id": 1, "response": {"type": "action", "payload": shape}}
        assert hand.open_orders() == []
        assert (await post(venue, hand.payload(order), "/exchange")).status == 200
        assert len(hand.open_orders()) == 1

    run()


@pytest.mark.parametrize(
    ("body", "status", "text", "payload"),
    [
        (None, 429, "null", "429 Too Many Requests"),
        (BAD_SHAPE, 422, BAD_SHAPE, f"422 {BAD_SHAPE}"),
        (None, 500, "null", "500 Internal Server Error"),
        ("<html>502 Bad Gateway</html>", 502, "<html>502 Bad Gateway</html>", "502 <html>502 Bad Gateway</html>"),
        ("", 503, "", "503 Service Unavailable"),
        ('{"message":"restricted jurisdiction"}', 403, '{"message":"restricted jurisdiction"}', None),
    ],
)
def test_the_next_answer_can_be_any_status(body: str | None, status: int, text: str, payload: str | None) -> None:
    @in_quiet_venue()
    async def run(venue: Venue, peer: Peer) -> None:
        hand = Hand(venue, venue.account())
        venue.answer_next(body, status=status)
        reply = await post(venue, hand.payload(action.noop()), "/exchange")
        assert (reply.status, reply.text) == (status, text)
        venue.answer_next(body, status=status, kind="info")
        assert (await post(venue, {"type": "meta"}))[::2] == (status, text)
        assert (await post(venue, {"type": "meta"})).status == 200
        if payload is not None:
            venue.answer_next(body, status=status)
            await peer.ws.send(hand.post(1, action.noop()))
            assert await peer.next("post") == {"id": 1, "response": {"type": "error", "payload": payload}}

    run()


@in_quiet_venue()
async def test_a_text_and_bytes_as_the_next_answer(venue: Venue, peer: Peer) -> None:
    hand = Hand(venue, venue.account())
    venue.answer_next("Nonce mismatch.")
    assert "universe" in await info(venue, type="meta")  # which is no action
    reply = await post(venue, hand.payload(action.noop()), "/exchange")
    assert json.loads(reply.text) == {"status": "err", "response": "Nonce mismatch."}
    venue.answer_next(b"{half of")
    assert (await post(venue, hand.payload(action.noop()), "/exchange")).text == "{half of"
    venue.answer_next({"type": "error", "message": "later"}, kind="info")
    assert await info(venue, type="meta") == {"type": "error", "message": "later"}
    venue.answer_next(None, kind="info")
    assert await info(venue, type="meta") is None
    assert "universe" in await info(venue, type="meta")


# By hand


def test_rest_and_withdraw_put_an_order_there_and_take_it_back() -> None:
    venue = quiet_venue()
    first, second = venue.rest("BTC", "B", "105000", "0.5"), venue.rest("BTC", "B", 105_000.0, 1)
    assert first < second
    assert venue.info(type="l2Book", coin="BTC")["levels"] == [[{"px": "105000.0", "sz": "1.5", "n": 2}], []]
    venue.withdraw(first)
    assert venue.info(type="l2Book", coin="BTC")["levels"] == [[{"px": "105000.0", "sz": "1.0", "n": 1}], []]
    venue.withdraw(first)
    venue.withdraw(second)
    assert venue.info(type="l2Book", coin="BTC")["levels"] == [[], []]


def test_withdraw_leaves_the_orders_of_others_alone(raw: Raw) -> None:
    [placed] = raw.order(limit("B", 104_000, "0.1"))
    raw.venue.withdraw(placed["resting"]["oid"])
    assert len(raw.venue.info(type="openOrders", user=raw.party.address)) == 1


@pytest.mark.parametrize(
    ("px", "sz"),
    [("105000.5", 1), ("0", 1), ("-5", 1), (105_000, "0.000001"), (105_000, 0), (105_000, "x"), (105_010, 1)],
)
def test_rest_refuses_what_is_off_the_grid_or_would_trade(raw: Raw, px: Any, sz: Any) -> None:
    before = raw.venue.info(type="hiddenBook", coin="BTC")["levels"]
    with pytest.raises(ConfigError):
        raw.venue.rest("BTC", "B", px, sz)
    assert raw.venue.info(type="hiddenBook", coin="BTC")["levels"] == before


def test_cross_trades_with_who_rests_best_price_and_oldest_first(raw: Raw) -> None:
    venue = raw.venue
    raw.subscribe(type="userFills", user=raw.party.address)
    raw.take("userFills")
    raw.order(limit("A", 105_010, "0.3"), limit("A", 105_008, "0.2"))
    assert venue.cross("BTC", "B", "0.5") == "0.5"
    [news] = raw.take("userFills")
    # The outsider's 1 at 105010 is older.
    assert [(fill["px"], fill["sz"]) for fill in news["fills"]] == [("105008.0", "0.2")]
    assert venue.cross("BTC", "B", "0.9") == "0.9"
    [news] = raw.take("userFills")
    assert [(fill["px"], fill["sz"]) for fill in news["fills"]] == [("105010.0", "0.2")]
    assert venue.history.positions(raw.party.address) == {"BTC": "-0.4"}
    assert venue.cross("BTC", "B", "5", px=105_009) == "0.0"
    assert venue.cross("BTC", "B", "5") == "0.1"


def test_a_mark_price_moves_margin_and_fires_triggers(raw: Raw) -> None:
    raw.order(limit("B", 105_010, "0.1"))
    raw.order(trigger("A", 100_000, "0.1", Trigger(104_500, Tpsl.SL)))
    raw.venue.set_mark("BTC", 104_501)
    assert raw.venue.history.positions(raw.party.address) == {"BTC": "0.1"}
    raw.venue.set_mark("BTC", 104_500)
    assert raw.venue.history.positions(raw.party.address) == {}
    assert raw.venue.info(type="metaAndAssetCtxs")[1][0]["markPx"] == "104500.0"


@in_venue()
async def test_a_coin_is_listed_while_the_venue_runs(venue: Venue, peer: Peer) -> None:
    await peer.send(method="subscribe", subscription={"type": "bbo", "coin": "HYPE"})
    assert (await peer.next("error")).startswith("Invalid subscription")
    venue.list_coin("HYPE")
    universe = (await info(venue, type="meta"))["universe"]
    assert [entry["name"] for entry in universe] == ["BTC", "ETH", "SOL", "kPEPE", "MATIC", "HYPE"]
    await peer.subscribe(type="bbo", coin="HYPE")
    assert None not in (await peer.next("bbo"))["bbo"]
    while "HYPE" not in venue.block().trades:
        pass
    assert (await info(venue, type="recentTrades", coin="HYPE"))[0]["coin"] == "HYPE"
    with pytest.raises(ConfigError):
        venue.list_coin("HYPE")
    with pytest.raises(ConfigError):
        venue.list_coin("XYZ")


def test_a_new_coin_is_traded_at_once(raw: Raw) -> None:
    venue = raw.venue
    venue.list_coin("DOGE")
    venue.rest("DOGE", "A", "0.22", 1000)
    fresh = Raw(venue, raw.party)
    assert fresh.instruments["DOGE"].asset == 5
    assert "filled" in fresh.order(limit("B", "0.22", 100, coin="DOGE"))[0]


def test_a_delisted_coin_keeps_its_place_and_cancels_its_orders(raw: Raw) -> None:
    venue = raw.venue
    raw.subscribe(type="orderUpdates", user=raw.party.address)
    [placed] = raw.order(limit("B", 104_000, "0.1"))
    raw.take("orderUpdates")
    venue.delist_coin("BTC")
    [[update]] = raw.take("orderUpdates")
    assert (update["order"]["oid"], update["status"]) == (placed["resting"]["oid"], "delistedCanceled")
    universe = venue.info(type="meta")["universe"]
    assert (universe[0]["name"], universe[0]["isDelisted"]) == ("BTC", True)
    assert venue.info(type="l2Book", coin="BTC")["levels"] == [[], []]
    [status] = raw.order(limit("B", 104_000, "0.1"))
    assert status == {"error": "Trading is halted. asset=0"}


@pytest.mark.parametrize("name", ["rest", "cross", "set_mark", "delist_coin"])
def test_hands_off_coins_that_are_not_there(name: str) -> None:
    venue = quiet_venue()
    arguments = {"rest": ("B", 1, 1), "cross": ("B", 1), "set_mark": (1,), "delist_coin": ()}[name]
    with pytest.raises(ConfigError, match="no coin 'XYZ'"):
        getattr(venue, name)("XYZ", *arguments)


@pytest.mark.parametrize("options", [{"spot": {"XYZ": 1}}, {"dexs": {"nowhere": 1}}, {"usdc": -1}, {"usdc": "much"}])
def test_an_account_of_what_is_not_listed_is_refused(options: JsonObject) -> None:
    with pytest.raises(ConfigError):
        quiet_venue().account(**options)


def test_the_same_seed_gives_the_same_keys() -> None:
    one, same, other = (Venue(seed=seed, stepped=True, coins=("BTC",)) for seed in (1, 1, 2))
    assert [one.account() for _ in range(2)] == [same.account() for _ in range(2)]
    assert one.account() != other.account()
    party = one.account()
    assert party.key not in repr(party)


# Time


def test_speed_makes_everything_faster() -> None:
    async def run() -> None:
        async with Venue(speed=40, coins=("BTC",)) as venue:
            began, wall = venue.now_ms(), time.monotonic()
            await until(lambda: venue.stats.blocks >= 100)
            passed_ms, took_ms = venue.now_ms() - began, (time.monotonic() - wall) * 1000
            assert passed_ms == pytest.approx(took_ms * 40, rel=0.05)
            assert passed_ms >= 100 * 70

    asyncio.run(run())


def test_a_stepped_venue_stands_still_until_it_is_stepped() -> None:
    venue = Venue(stepped=True, start_ms=1_000_000)
    assert venue.now_ms() == 1_000_000
    venue.advance(69)
    assert (venue.now_ms(), venue.stats.blocks) == (1_000_069, 0)
    times = [venue.block().time_ms for _ in range(50)]
    assert times[-1] == venue.now_ms()
    assert all(70 <= after - before <= 100 for before, after in itertools.pairwise([1_000_000, *times]))


def test_a_real_clock_cannot_be_stepped() -> None:
    venue = Venue(coins=("BTC",))
    for step in (lambda: venue.advance(10), venue.block):
        with pytest.raises(RuntimeError, match="stepped=True"):
            step()


def test_the_same_seed_gives_the_same_market() -> None:
    def life(seed: int) -> list[Any]:
        venue = Venue(seed=seed, stepped=True)
        for _ in range(50):
            venue.block()
        return [venue.info(type=kind, coin="BTC") for kind in ("hiddenBook", "recentTrades")]

    assert life(3) == life(3)
    assert life(3) != life(4)


# Starting


def test_it_says_where_it_is_and_starts_once() -> None:
    async def run() -> None:
        async with Venue() as venue:
            assert venue.endpoints.network is Network.LOCAL
            assert (venue.url, venue.ws_url) == (venue.endpoints.http_url, venue.endpoints.ws_url)
            assert venue.ws_url == venue.url.replace("http", "ws") + "/ws"
            with pytest.raises(RuntimeError, match="already running"):
                await venue.start()

    asyncio.run(run())


def test_its_addresses_are_not_known_before_it_starts() -> None:
    for name in ("endpoints", "url", "ws_url"):
        with pytest.raises(RuntimeError, match="start it first"):
            getattr(Venue(coins=("BTC",)), name)


@pytest.mark.parametrize(
    "options",
    [
        {"speed": 0},
        {"speed": -1.0},
        {"speed": float("nan")},
        {"speed": float("inf")},
        {"coins": ("XYZ",)},
        {"coins": ()},
        {"coins": ("BTC", "BTC")},
        {"history_blocks": 0},
        {"block_ms": (0, 5)},
        {"block_ms": (90, 80)},
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Venue(**options)


def test_a_taken_port_fails_and_leaves_nothing_behind() -> None:
    async def run() -> None:
        async with Venue(stepped=True) as venue:
            port = int(venue.url.split(":")[2])
            second = Venue(stepped=True, port=port)
            with pytest.raises(OSError, match="in use"):
                await second.start()
        await second.start()
        assert second.url == venue.url
        await second.stop()

    asyncio.run(run())


def test_serve_runs_until_cancelled() -> None:
    async def run() -> None:
        ready: asyncio.Future[Venue] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(Venue(speed=50, coins=("BTC",)), ready.set_result))
        venue = await asyncio.wait_for(ready, TIMEOUT_S)
        async with websockets.connect(venue.ws_url) as ws:
            assert await asyncio.wait_for(ws.recv(), TIMEOUT_S) == GREETING
            task.cancel()
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(ws.recv(), TIMEOUT_S)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert venue.clients == 0

    asyncio.run(run())


@in_venue()
async def test_the_counters_count(venue: Venue, peer: Peer) -> None:
    hand = Hand(venue, venue.account())
    await peer.subscribe(type="bbo", coin="BTC")
    await peer.send(method="subscribe", subscription={"type": "bbo", "coin": "BTC"})
    await peer.send(method="post", id=1, request={"type": "info", "payload": {"type": "exchangeStatus"}})
    await peer.ws.send(hand.post(2, action.noop()))
    await peer.send(method="unsubscribe", subscription={"type": "bbo", "coin": "BTC"})
    await peer.drain()
    venue.block()
    stats = venue.stats
    assert (stats.connections, stats.subscribes, stats.unsubscribes, stats.errors) == (1, 1, 1, 1)
    assert (stats.pings, stats.posts, stats.actions, stats.blocks) == (1, 2, 1, 1)
    assert stats.messages_received == 6
    # Greeting, ack, bbo, error, info, unsubscribed, pong; and the answer of the action.
    assert stats.messages_sent == 8
    assert stats.bytes_sent > 500
    assert stats.slow_clients_dropped == 0
