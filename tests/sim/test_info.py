"""Every info request: its shape against the protocol's reference and captures, its limits, and what it refuses."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sim.raw import JsonObject, Raw, limit, quiet_venue, trigger

from hlconn import Cloid, Grouping, Tif, Tpsl, Trigger, account, action
from hlconn.sim import InfoRefused, Rules, Trade, Venue
from hlconn.sim.info import _HANDLERS as HANDLERS

USER = "0x" + "1f" * 20


@pytest.fixture
def raw() -> Raw:
    """A client with orders, fills and positions of every kind, in a quiet venue."""
    venue = quiet_venue()
    books = {"BTC": (105_000, 105_010, 5), "PURR/USDC": (0.2, 0.201, 1000), "test:GOLD": (2600, 2610, 1)}
    for coin, (bid, ask, sz) in books.items():
        venue.rest(coin, "B", bid, sz)
        venue.rest(coin, "A", ask, sz)
    raw = Raw(venue, venue.account(usdc=50_000, spot={"USDC": 500, "PURR": 100}, dexs={"test": 3000}))
    raw.order(limit("B", 105_010, "0.1", cloid=Cloid(1)))
    raw.order(limit("B", 104_000, "0.1"), limit("A", 106_000, "0.05", reduce_only=True, cloid=Cloid(2)))
    raw.order(limit("A", 0.2, 100, coin="PURR/USDC"))
    raw.order(limit("B", 2610, "0.1", coin="test:GOLD"))
    raw.order(limit("B", 2500, "0.1", coin="test:GOLD"))
    return raw


@pytest.fixture
def venue() -> Venue:
    """With traders, after a hundred blocks."""
    venue = Venue(stepped=True)
    for _ in range(100):
        venue.block()
    return venue


def captured(shared_fixtures: Path, kind: str) -> Iterator[Any]:
    """Bodies of the real venue."""
    for line in (shared_fixtures / "info" / f"{kind}.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["status"] == 200:
            yield json.loads(entry["response_text"])


def is_decimal(text: object) -> bool:
    return isinstance(text, str) and Decimal(text).is_finite() and "." in text and "e" not in text.lower()


# Markets


def test_meta_lists_perps_in_the_order_of_their_asset_ids(venue: Venue) -> None:
    meta = venue.info(type="meta")
    assert list(meta) == ["universe", "marginTables", "collateralToken"]
    assert [entry["name"] for entry in meta["universe"]] == ["BTC", "ETH", "SOL", "kPEPE", "MATIC"]
    assert meta["universe"][0] == {"szDecimals": 5, "name": "BTC", "maxLeverage": 40, "marginTableId": 40}
    assert meta["universe"][4]["isDelisted"] is True
    gold = {
        "szDecimals": 3,
        "name": "test:GOLD",
        "maxLeverage": 5,
        "marginTableId": 5,
        "onlyIsolated": True,
        "marginMode": "noCross",
        "growthMode": "enabled",
    }
    assert venue.info(type="meta", dex="test")["universe"] == [gold]
    assert venue.info(type="allPerpMetas") == [meta, venue.info(type="meta", dex="test")]
    assert venue.info(type="meta", dex="") == meta


def test_perp_dexs_begin_with_null(venue: Venue) -> None:
    first, second = venue.info(type="perpDexs")
    assert first is None
    assert second["name"] == "test"
    assert second.keys() >= {
        "name", "fullName", "deployer", "oracleUpdater", "feeRecipient", "assetToStreamingOiCap", "subDeployers",
        "deployerFeeScale", "lastDeployerFeeScaleChangeTime", "assetToFundingMultiplier", "assetToFundingInterestRate",
    }  # fmt: skip


def test_spot_meta_has_indices_that_are_no_positions(venue: Venue) -> None:
    meta = venue.info(type="spotMeta")
    assert [(pair["name"], pair["index"], pair["tokens"]) for pair in meta["universe"]] == [
        ("PURR/USDC", 0, [1, 0]),
        ("@1", 1, [2, 0]),
        ("@9", 9, [5, 0]),
    ]
    assert [(token["name"], token["index"]) for token in meta["tokens"]][:3] == [("USDC", 0), ("PURR", 1), ("HFUN", 2)]
    assert len({token["tokenId"] for token in meta["tokens"]}) == 4
    assert all(len(token["tokenId"]) == 34 for token in meta["tokens"])


def test_contexts_stand_beside_their_metadata(venue: Venue) -> None:
    meta, ctxs = venue.info(type="metaAndAssetCtxs")
    assert meta == venue.info(type="meta")
    assert len(ctxs) == len(meta["universe"])
    for ctx in ctxs:
        for key in ("funding", "openInterest", "prevDayPx", "dayNtlVlm", "oraclePx", "markPx", "dayBaseVlm"):
            assert is_decimal(ctx[key]), key
    assert ctxs[4]["midPx"] is None
    assert [len(part) for part in (venue.info(type="metaAndAssetCtxs", dex="test")[1],)] == [1]
    spot_meta, spot_ctxs = venue.info(type="spotMetaAndAssetCtxs")
    assert spot_meta == venue.info(type="spotMeta")
    assert [ctx["coin"] for ctx in spot_ctxs] == ["PURR/USDC", "@1", "@9"]


def test_mids_are_between_the_best_levels(venue: Venue) -> None:
    mids = venue.info(type="allMids")
    assert set(mids) == {"BTC", "ETH", "SOL", "kPEPE", "PURR/USDC", "@1"}
    for coin, mid in mids.items():
        bids, asks = venue.info(type="l2Book", coin=coin)["levels"]
        assert Decimal(mid) * 2 == Decimal(bids[0]["px"]) + Decimal(asks[0]["px"])
    assert list(venue.info(type="allMids", dex="test")) == ["test:GOLD"]


def test_books_are_twenty_levels_and_may_be_joined(venue: Venue) -> None:
    book = venue.info(type="l2Book", coin="SOL")
    assert list(book) == ["coin", "time", "levels"]
    assert book["time"] == venue.exchange.block.time_ms
    assert [len(side) for side in book["levels"]] == [20, 20]
    assert "spread" in venue.info(type="l2Book", coin="SOL", nSigFigs=5, mantissa=5)
    assert venue.info(type="l2Book", coin="SOL", nSigFigs=None, mantissa=None) == book
    assert venue.info(type="l2Book", coin="XYZ") is None
    hidden = venue.info(type="hiddenBook", coin="SOL")
    assert [side[:20] for side in hidden["levels"]] == book["levels"]
    assert len(hidden["levels"][0]) > 20
    assert venue.info(type="hiddenBook", coin="XYZ") is None


def test_recent_trades_are_thirty_newest_first(venue: Venue) -> None:
    trades = venue.info(type="recentTrades", coin="BTC")
    assert len(trades) == 30
    assert trades[0].keys() == {"coin", "side", "px", "sz", "time", "hash", "tid", "users"}
    times = [trade["time"] for trade in trades]
    assert times == sorted(times, reverse=True)
    assert len({trade["tid"] for trade in trades}) == 30
    assert venue.info(type="recentTrades", coin="@9") == []


def test_the_status_of_the_exchange_is_its_time(venue: Venue) -> None:
    assert venue.info(type="exchangeStatus") == {"time": venue.exchange.block.time_ms, "specialStatuses": None}


def test_there_is_no_funding_here(raw: Raw) -> None:
    venue, user = raw.venue, raw.party.address
    assert venue.info(type="fundingHistory", coin="BTC", startTime=0) == []
    assert venue.info(type="userFunding", user=user, startTime=0) == []
    assert venue.info(type="userNonFundingLedgerUpdates", user=user) == []


# Candles


def candles(venue: Venue, start_ms: int, end_ms: int | None = None, coin: str = "BTC", interval: str = "1m") -> Any:
    req = {"coin": coin, "interval": interval, "startTime": start_ms}
    return venue.info(type="candleSnapshot", req=req if end_ms is None else {**req, "endTime": end_ms})


def test_candles_cover_their_bounds() -> None:
    venue = quiet_venue(start_ms=1_750_000_020_000, debug=False)
    venue.rest("BTC", "A", 105_000, 100)
    for _ in range(5):
        venue.cross("BTC", "B", 1)
        venue.advance(60_000)
    venue.advance(100)
    rows = candles(venue, 0)
    assert len(rows) == 6
    assert all(one["T"] + 1 == two["t"] for one, two in itertools.pairwise(rows))
    assert [row["n"] for row in rows] == [1, 1, 1, 1, 1, 0]
    first = rows[0]["t"]
    # The first row's span holds the start, the last row opens at the end.
    assert candles(venue, first + 60_000, first + 180_000) == rows[1:4]
    assert candles(venue, first + 119_999, first + 179_999) == rows[1:3]
    assert candles(venue, first + 120_000, first + 120_000) == rows[2:3]
    assert candles(venue, first - 60_000, first - 1) == []
    [hour] = candles(venue, 0, interval="1h")
    assert (hour["n"], hour["v"], hour["T"] - hour["t"]) == (5, "5.0", 3_599_999)
    assert candles(venue, 0, coin="ETH") == []


def test_at_most_five_thousand_candles_exist() -> None:
    venue = quiet_venue(debug=False)
    start_ms = venue.exchange.now_ms - venue.exchange.now_ms % 60_000
    market = venue.exchange.markets["BTC"]
    for minute in (0, 5999):
        trade = Trade("B", market.home_px, 1, start_ms + minute * 60_000, "0x", minute, USER, USER)
        venue.candles["BTC"].add([trade])
    rows = candles(venue, 0, start_ms + 6000 * 60_000)
    assert len(rows) == 5000
    assert rows[-1]["t"] == start_ms + 5999 * 60_000


# Orders


def test_open_orders_are_listed_with_their_dex(raw: Raw) -> None:
    venue, user = raw.venue, raw.party.address
    reduce_only, plain = venue.info(type="openOrders", user=user)
    assert list(plain) == ["coin", "side", "limitPx", "sz", "oid", "timestamp", "origSz"]
    assert (plain["coin"], plain["side"], plain["limitPx"], plain["sz"]) == ("BTC", "B", "104000.0", "0.1")
    assert (reduce_only["cloid"], reduce_only["reduceOnly"]) == (Cloid(2).hex, True)
    assert [order["coin"] for order in venue.info(type="openOrders", user=user, dex="test")] == ["test:GOLD"]
    assert venue.info(type="openOrders", user=USER) == []


FRONTEND = [
    "coin", "side", "limitPx", "sz", "oid", "timestamp", "triggerCondition", "isTrigger", "triggerPx", "children",
    "isPositionTpsl", "reduceOnly", "orderType", "origSz", "tif", "cloid",
]  # fmt: skip


def test_frontend_open_orders_know_triggers(raw: Raw) -> None:
    venue, user = raw.venue, raw.party.address
    plain = venue.info(type="frontendOpenOrders", user=user)[1]
    assert list(plain) == FRONTEND
    assert (plain["orderType"], plain["tif"], plain["isTrigger"]) == ("Limit", "Gtc", False)
    assert (plain["triggerPx"], plain["triggerCondition"], plain["children"]) == ("0.0", "N/A", [])
    raw.order(trigger("A", 100_000, "0.1", Trigger(104_500, Tpsl.SL)))
    raw.order(trigger("A", 107_000, "0.1", Trigger(107_000, Tpsl.TP, is_market=False)))
    take, stop = venue.info(type="frontendOpenOrders", user=user)[:2]
    assert (stop["orderType"], stop["triggerCondition"], stop["triggerPx"]) == (
        "Stop Market",
        "Price below 104500",
        "104500.0",
    )
    assert (take["orderType"], take["triggerCondition"]) == ("Take Profit Limit", "Price above 107000")
    assert (stop["isTrigger"], stop["reduceOnly"], stop["tif"]) == (True, True, None)


def test_a_child_is_in_its_parent_and_beside_it(raw: Raw) -> None:
    raw.order(
        limit("B", 103_000, "0.1"),
        trigger("A", 100_000, "0.1", Trigger(102_000, Tpsl.SL)),
        grouping=Grouping.NORMAL_TPSL,
    )
    rows = raw.venue.info(type="frontendOpenOrders", user=raw.party.address)
    parent = next(row for row in rows if row["children"])
    [child] = parent["children"]
    assert child in rows
    assert (child["orderType"], parent["limitPx"]) == ("Stop Market", "103000.0")


def test_an_order_is_found_by_oid_and_cloid(raw: Raw) -> None:
    venue, user = raw.venue, raw.party.address
    [order] = [row for row in venue.info(type="frontendOpenOrders", user=user) if row["cloid"]]
    known = {"status": "order", "order": {"order": order, "status": "open", "statusTimestamp": order["timestamp"]}}
    assert venue.info(type="orderStatus", user=user, oid=order["oid"]) == known
    assert venue.info(type="orderStatus", user=user.upper().replace("0X", "0x"), oid=order["cloid"]) == known
    filled = venue.info(type="orderStatus", user=user, oid=Cloid(1).hex)["order"]
    assert (filled["status"], filled["order"]["sz"], filled["order"]["origSz"]) == ("filled", "0.0", "0.1")
    for oid in (1, Cloid(9).hex):
        assert venue.info(type="orderStatus", user=user, oid=oid) == {"status": "unknownOid"}
    assert venue.info(type="orderStatus", user=USER, oid=order["oid"]) == {"status": "unknownOid"}


def test_historical_orders_are_newest_first_and_at_most_two_thousand() -> None:
    venue = quiet_venue(debug=False)
    raw = Raw(venue, venue.account(usdc=1_000_000))
    for batch in range(21):
        answer = raw.order(*[limit("B", 100_000 - i, "0.001") for i in range(100)])
        cancels = [("BTC", entry["resting"]["oid"]) for entry in answer]
        if batch != 5:
            raw.do(action.cancel(cancels, raw.instruments))
    rows = venue.info(type="historicalOrders", user=raw.party.address)
    assert len(rows) == 2000
    assert list(rows[0]) == ["order", "status", "statusTimestamp"]
    assert list(rows[0]["order"]) == FRONTEND
    times = [row["statusTimestamp"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert {row["status"] for row in rows} == {"canceled", "open"}
    assert len({row["order"]["oid"] for row in rows}) == 2000
    assert len(venue.history.orders(raw.party.address)) == 2100


# Fills


def test_fills_by_time_are_two_thousand_oldest_first_with_both_bounds() -> None:
    venue = quiet_venue(debug=False)
    raw = Raw(venue, venue.account(usdc=10_000_000))
    for _ in range(21):
        for number in range(100):
            venue.rest("BTC", "A", 105_000 + number, "0.001")
        raw.order(limit("B", 105_100, "0.1"))
    user = raw.party.address
    everything = venue.history.fills(user)
    assert len(everything) == 2100
    rows = venue.info(type="userFillsByTime", user=user, startTime=0)
    assert rows == everything[:2000]
    rest = venue.info(type="userFillsByTime", user=user, startTime=rows[-1]["time"])
    assert {row["tid"] for row in rows} | {row["tid"] for row in rest} == {row["tid"] for row in everything}
    start, end = everything[100]["time"], everything[250]["time"]
    assert venue.info(type="userFillsByTime", user=user, startTime=start, endTime=end) == everything[100:300]
    assert venue.info(type="userFillsByTime", user=user, startTime=start + 1, endTime=end - 1) == []
    assert venue.info(type="userFillsByTime", user=user, startTime=0, reversed=True) == everything[:-2001:-1]
    assert venue.info(type="userFills", user=user) == everything[:-2001:-1]
    joined = venue.info(type="userFills", user=user, aggregateByTime=True)
    assert [(row["sz"], row["px"]) for row in joined] == [("0.1", "105049.5")] * 20


def test_aggregate_joins_a_taker_and_leaves_a_maker_apart() -> None:
    venue = quiet_venue()
    venue.rest("BTC", "A", 105_000, 1)
    venue.rest("BTC", "A", 105_002, 1)
    raw = Raw(venue, venue.account(usdc=1_000_000))
    raw.order(limit("B", 105_002, 2))
    raw.order(limit("A", 106_000, 1))
    venue.cross("BTC", "B", "0.5")
    venue.cross("BTC", "B", "0.5")
    user = raw.party.address
    apart = venue.info(type="userFillsByTime", user=user, startTime=0)
    assert [fill["sz"] for fill in apart] == ["1.0", "1.0", "0.5", "0.5"]
    joined = venue.info(type="userFillsByTime", user=user, startTime=0, aggregateByTime=True)
    assert [(fill["sz"], fill["px"], fill["startPosition"]) for fill in joined] == [
        ("2.0", "105001.0", "0.0"),
        ("0.5", "106000.0", "2.0"),
        ("0.5", "106000.0", "1.5"),
    ]
    fees, pnls = (sum(Decimal(fill[key]) for fill in apart) for key in ("fee", "closedPnl"))
    assert fees == sum(Decimal(fill["fee"]) for fill in joined)
    assert pnls == sum(Decimal(fill["closedPnl"]) for fill in joined) == Decimal("999")


def test_fills_say_what_they_did(raw: Raw) -> None:
    rows = raw.venue.info(type="userFills", user=raw.party.address)
    assert [(row["coin"], row["dir"], row["feeToken"]) for row in rows] == [
        ("test:GOLD", "Open Long", "USDC"),
        ("PURR/USDC", "Sell", "USDC"),
        ("BTC", "Open Long", "USDC"),
    ]
    assert rows[2]["cloid"] == Cloid(1).hex
    assert "cloid" not in rows[0]
    raw.order(limit("A", 105_000, "0.15"))
    [row, *_] = raw.venue.info(type="userFills", user=raw.party.address)
    assert (row["dir"], row["startPosition"], row["closedPnl"]) == ("Long > Short", "0.1", "-1.0")
    raw.order(limit("B", 0.201, 50, coin="PURR/USDC"))
    [row, *_] = raw.venue.info(type="userFills", user=raw.party.address)
    # 0.07 % of 50, in the token that was bought.
    assert (row["dir"], row["fee"], row["feeToken"]) == ("Buy", "0.035", "PURR")


# Accounts


def test_a_clearinghouse_state_adds_up(raw: Raw) -> None:
    venue, user = raw.venue, raw.party.address
    venue.set_mark("BTC", 105_110)
    state = venue.info(type="clearinghouseState", user=user)
    assert list(state) == [
        "marginSummary", "crossMarginSummary", "crossMaintenanceMarginUsed", "withdrawable", "assetPositions", "time",
    ]  # fmt: skip
    [entry] = state["assetPositions"]
    position = entry["position"]
    assert entry["type"] == "oneWay"
    assert list(position) == [
        "coin", "szi", "leverage", "entryPx", "positionValue", "unrealizedPnl", "returnOnEquity", "liquidationPx",
        "marginUsed", "maxLeverage", "cumFunding",
    ]  # fmt: skip
    assert (position["coin"], position["szi"], position["entryPx"]) == ("BTC", "0.1", "105010.0")
    assert (position["positionValue"], position["unrealizedPnl"], position["marginUsed"]) == (
        "10511.0",
        "10.0",
        "525.55",
    )
    assert position["leverage"] == {"type": "cross", "value": 20}
    assert Decimal(position["returnOnEquity"]) == pytest.approx(Decimal(10) / Decimal("525.05"), abs=Decimal("1e-9"))
    fee = Decimal("10501") * Decimal("0.00045")
    summary = state["marginSummary"]
    assert Decimal(summary["accountValue"]) == 50_000 + 10 - fee
    assert Decimal(summary["totalRawUsd"]) == 50_000 - fee - Decimal("10501")
    assert (summary["totalNtlPos"], summary["totalMarginUsed"]) == ("10511.0", "525.55")
    assert summary == state["crossMarginSummary"]
    assert state["crossMaintenanceMarginUsed"] == "131.3875"
    assert state["time"] == venue.exchange.block.time_ms


def test_a_builder_dex_has_a_state_of_its_own(raw: Raw) -> None:
    state = raw.venue.info(type="clearinghouseState", user=raw.party.address, dex="test")
    [entry] = state["assetPositions"]
    assert entry["position"]["coin"] == "test:GOLD"
    leverage = entry["position"]["leverage"]
    assert (leverage["type"], leverage["value"]) == ("isolated", 5)
    assert is_decimal(leverage["rawUsd"])
    nobody = raw.venue.info(type="clearinghouseState", user=USER)
    assert nobody["marginSummary"]["accountValue"] == "0.0"
    assert nobody["assetPositions"] == []


def test_a_spot_state_lists_tokens_with_what_is_held(raw: Raw) -> None:
    raw.order(limit("B", 0.19, 100, coin="PURR/USDC"))
    state = raw.venue.info(type="spotClearinghouseState", user=raw.party.address)
    assert state == {
        "balances": [
            {"coin": "USDC", "token": 0, "total": "519.986", "hold": "19.0", "entryNtl": "0.0"},
            {"coin": "PURR", "token": 1, "total": "0.0", "hold": "0.0", "entryNtl": "0.0"},
        ]
    }
    assert raw.venue.info(type="spotClearinghouseState", user=USER) == {"balances": []}
    only_purr = raw.venue.account(spot={"PURR": 3})
    balances = raw.venue.info(type="spotClearinghouseState", user=only_purr.address)["balances"]
    assert [(balance["coin"], balance["total"]) for balance in balances] == [("USDC", "0.0"), ("PURR", "3.0")]


def test_the_rate_limit_grows_with_volume(raw: Raw) -> None:
    found = raw.venue.info(type="userRateLimit", user=raw.party.address)
    assert list(found) == ["cumVlm", "nRequestsUsed", "nRequestsCap", "nRequestsSurplus"]
    # 0.1 BTC, 100 PURR and 0.1 GOLD; four requests and a batch of two.
    assert (found["cumVlm"], found["nRequestsUsed"], found["nRequestsCap"]) == ("10782.0", 6, 20_782)
    raw.do(action.noop())
    assert raw.venue.info(type="userRateLimit", user=raw.party.address)["nRequestsUsed"] == 7
    assert raw.venue.info(type="userRateLimit", user=USER) == {
        "cumVlm": "0.0",
        "nRequestsUsed": 0,
        "nRequestsCap": 10_000,
        "nRequestsSurplus": 0,
    }


def test_fees_are_those_that_are_taken(raw: Raw) -> None:
    fees = raw.venue.info(type="userFees", user=raw.party.address)
    assert fees.keys() == {
        "dailyUserVlm", "feeSchedule", "userCrossRate", "userAddRate", "userSpotCrossRate", "userSpotAddRate",
        "activeReferralDiscount", "trial", "feeTrialEscrow", "nextTrialAvailableTimestamp", "stakingLink",
        "activeStakingDiscount",
    }  # fmt: skip
    assert fees["feeSchedule"].keys() == {
        "cross", "add", "spotCross", "spotAdd", "tiers", "referralDiscount", "stakingDiscountTiers",
    }  # fmt: skip
    by_coin = {fill["coin"]: fill for fill in raw.venue.info(type="userFills", user=raw.party.address)}
    btc, purr = by_coin["BTC"], by_coin["PURR/USDC"]
    for fill, key in ((btc, "userCrossRate"), (purr, "userSpotCrossRate")):
        assert Decimal(fill["fee"]) == Decimal(fill["px"]) * Decimal(fill["sz"]) * Decimal(fees[key])


def test_roles(raw: Raw) -> None:
    venue, party = raw.venue, raw.party
    agent, vault, sub = venue.agent(party), venue.vault(party, 100), venue.sub_account(party, 100)
    roles = {
        party.address: {"role": "user"},
        agent.address: {"role": "agent", "data": {"user": party.address}},
        vault: {"role": "vault"},
        sub: {"role": "subAccount", "data": {"master": party.address}},
        USER: {"role": "missing"},
    }
    for address, role in roles.items():
        assert venue.info(type="userRole", user=address) == role
    subs = venue.info(type="subAccounts", user=party.address)
    assert [row["subAccountUser"] for row in subs] == [sub]
    assert list(subs[0]) == ["name", "subAccountUser", "master", "clearinghouseState", "spotState"]
    assert subs[0]["clearinghouseState"]["marginSummary"]["accountValue"] == "100.0"
    assert venue.info(type="subAccounts", user=USER) is None


def test_agents_with_a_name_are_listed(raw: Raw) -> None:
    venue, user = raw.venue, raw.party.address
    named = venue.agent(raw.party, "bot")
    venue.agent(raw.party)
    other, until_ms = venue.stranger(), int(venue.now_ms()) + 86_400_000
    nonce = raw.nonce()
    signed = account.approve_agent(raw.signer, other.address, nonce, name="timed", valid_until_ms=until_ms)
    assert raw.post_raw(json.loads(signed.payload))["payload"]["status"] == "ok"
    assert venue.info(type="extraAgents", user=user) == [
        {"name": "bot", "address": named.address, "validUntil": None},
        {"name": "timed", "address": other.address, "validUntil": until_ms},
    ]
    assert venue.info(type="extraAgents", user=USER) == []


def test_what_clients_ask_unasked(raw: Raw) -> None:
    venue, user = raw.venue, raw.party.address
    assert venue.info(type="userAbstraction", user=user) == "default"
    assert venue.info(type="userDexAbstraction", user=user) is None
    assert venue.info(type="maxBuilderFee", user=user, builder=USER) == 0
    nonce = raw.nonce()
    signed = account.approve_builder_fee(raw.signer, USER, "0.01%", nonce)
    assert raw.post_raw(json.loads(signed.payload))["payload"]["status"] == "ok"
    assert venue.info(type="maxBuilderFee", user=user, builder=USER.upper().replace("0X", "0x")) == 10
    referral = venue.info(type="referral", user=user)
    assert referral.keys() == {
        "referredBy", "cumVlm", "unclaimedRewards", "claimedRewards", "builderRewards", "referrerState",
        "rewardHistory", "tokenToState",
    }  # fmt: skip
    assert referral["referredBy"] is None


# Against captures


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("clearinghouseState", "self"),
        ("frontendOpenOrders", "list"),
        ("openOrders", "list"),
        ("historicalOrders", "list"),
        ("userFills", "list"),
        ("userRateLimit", "self"),
        ("extraAgents", "list"),
        ("l2Book", "self"),
    ],
)
def test_answers_have_the_keys_of_captures(raw: Raw, shared_fixtures: Path, kind: str, rows: str) -> None:
    raw.venue.agent(raw.party, "bot")
    ours = raw.venue.info(type=kind, user=raw.party.address, coin="BTC")
    mine = set().union(*(row.keys() for row in (ours if rows == "list" else [ours])))
    seen = 0
    for body in captured(shared_fixtures, kind):
        for row in body if rows == "list" else [body]:
            seen += 1
            assert row.keys() <= mine
    assert seen


def test_what_is_inside_answers_has_the_keys_of_captures(raw: Raw, shared_fixtures: Path) -> None:
    venue, user = raw.venue, raw.party.address
    state = venue.info(type="clearinghouseState", user=user)
    [position] = [entry["position"] for entry in state["assetPositions"]]
    seen = 0
    for body in captured(shared_fixtures, "clearinghouseState"):
        for key in ("marginSummary", "crossMarginSummary"):
            assert body[key].keys() == state[key].keys()
        for entry in body["assetPositions"]:
            seen += 1
            assert entry["position"].keys() <= position.keys()
    balance = venue.info(type="spotClearinghouseState", user=user)["balances"][0]
    for body in captured(shared_fixtures, "spotClearinghouseState"):
        for entry in body["balances"]:
            seen += 1
            assert entry.keys() == balance.keys()
    order = venue.info(type="historicalOrders", user=user)[0]["order"]
    for body in captured(shared_fixtures, "historicalOrders"):
        for entry in body:
            seen += 1
            assert entry["order"].keys() == order.keys()
    meta, spot_meta = venue.info(type="meta"), venue.info(type="spotMeta")
    entry_keys = {key for entry in meta["universe"] for key in entry} | {"onlyIsolated", "marginMode", "growthMode"}
    for body in captured(shared_fixtures, "meta"):
        seen += len(body["universe"])
        assert {key for entry in body["universe"] for key in entry} <= entry_keys | {"lastGrowthModeChangeTime"}
    for body in captured(shared_fixtures, "spotMeta"):
        for key in ("universe", "tokens"):
            seen += len(body[key])
            assert {k for row in body[key] for k in row} == {k for row in spot_meta[key] for k in row}
    assert seen > 100


def test_candles_have_the_keys_of_captures(shared_fixtures: Path) -> None:
    venue = quiet_venue()
    venue.rest("BTC", "A", 105_000, 1)
    venue.cross("BTC", "B", 1)
    [ours] = candles(venue, 0)
    rows = [row for body in captured(shared_fixtures, "candleSnapshot") for row in body]
    assert rows
    assert all(row.keys() == ours.keys() for row in rows)
    assert all(type(row[key]) is type(ours[key]) for row in rows for key in row)


# What is refused


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"type": "noSuchType"},
        {"type": ["meta"]},
        {"type": None},
        {"type": "l2Book"},
        {"type": "l2Book", "coin": 5},
        {"type": "l2Book", "coin": "BTC", "nSigFigs": "5"},
        {"type": "hiddenBook", "coin": "BTC", "time": "now"},
        {"type": "meta", "dex": 5},
        {"type": "candleSnapshot"},
        {"type": "candleSnapshot", "coin": "BTC", "interval": "1m", "startTime": 0},
        {"type": "candleSnapshot", "req": {"coin": "BTC", "interval": "7m", "startTime": 0}},
        {"type": "candleSnapshot", "req": {"coin": "BTC", "interval": "1m"}},
        {"type": "candleSnapshot", "req": {"coin": "BTC", "interval": "1m", "startTime": "0"}},
        {"type": "recentTrades"},
        {"type": "orderStatus", "user": USER},
        {"type": "orderStatus", "user": USER, "oid": 1.5},
        {"type": "userFillsByTime", "user": USER},
        {"type": "userFillsByTime", "user": USER, "startTime": -1},
        {"type": "userFillsByTime", "user": USER, "startTime": 0, "endTime": "later"},
        {"type": "maxBuilderFee", "user": USER},
        {"type": "fundingHistory", "coin": "BTC"},
    ],
)
def test_what_has_the_wrong_shape_is_422(request_: JsonObject) -> None:
    with pytest.raises(InfoRefused) as refused:
        quiet_venue().info(**request_)
    assert (refused.value.status, refused.value.text) == (
        422,
        "Failed to deserialize the JSON body into the target type",
    )


OF_USERS = (
    "clearinghouseState", "extraAgents", "frontendOpenOrders", "historicalOrders", "openOrders", "referral",
    "spotClearinghouseState", "subAccounts", "userAbstraction", "userDexAbstraction", "userFees", "userFills",
    "userFunding", "userNonFundingLedgerUpdates", "userRateLimit", "userRole",
)  # fmt: skip


@pytest.mark.parametrize("kind", OF_USERS)
def test_whoever_asks_for_a_user_must_say_which(kind: str) -> None:
    venue = quiet_venue()
    for user in ({}, {"user": "0x01"}, {"user": 5}, {"user": "0x" + "g" * 40}, {"user": "1f" * 21}):
        with pytest.raises(InfoRefused) as refused:
            venue.info(type=kind, **user)
        assert refused.value.status == 422
    assert venue.info(type=kind, user=USER) == venue.info(type=kind, user=USER.upper().replace("0X", "0x"))


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 9},
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "mantissa": 1},
        {"type": "meta", "dex": "nowhere"},
        {"type": "allMids", "dex": "nowhere"},
        {"type": "openOrders", "user": USER, "dex": "nowhere"},
        {"type": "candleSnapshot", "req": {"coin": "XYZ", "interval": "1m", "startTime": 0}},
        {"type": "recentTrades", "coin": "XYZ"},
    ],
)
def test_what_reads_well_but_cannot_be_answered_is_500_and_null(request_: JsonObject) -> None:
    with pytest.raises(InfoRefused) as refused:
        quiet_venue().info(**request_)
    assert (refused.value.status, refused.value.text) == (500, None)


def test_every_type_is_asked_here() -> None:
    text = Path(__file__).read_text()
    assert [kind for kind in HANDLERS if f'"{kind}"' not in text] == []


def test_only_taken_orders_have_a_tif_of_their_own(raw: Raw) -> None:
    raw.order(limit("B", 104_500, "0.01", Tif.ALO))
    raw.order(limit("B", 105_010, "0.01", Tif.IOC))
    rows = raw.venue.info(type="historicalOrders", user=raw.party.address)
    assert [(row["order"]["tif"], row["status"]) for row in rows[:2]] == [("Ioc", "filled"), ("Alo", "open")]


def test_an_answer_has_no_more_candles_and_fills_than_the_rules_say_the_oldest_first() -> None:
    venue = Venue(stepped=True, traders=False, rules=Rules(candles_kept=50, candle_rows=20, fill_rows=2))
    venue.invent_past("BTC", 100)
    request = {"coin": "BTC", "interval": "1m", "startTime": 0}
    rows = venue.info(type="candleSnapshot", req=request)
    every = venue.candles["BTC"].between("1m", 0, 1 << 62, int(venue.now_ms()))
    assert len(every) == 50
    assert rows == every[:20]
    raw = Raw(venue, venue.account())
    for _ in range(3):
        venue.rest("BTC", "A", 105_000, 1)
        raw.order(limit("B", 105_000, "0.001", Tif.IOC))
        venue.advance(10)
    user, made = raw.party.address, venue.history.fills(raw.party.address)
    assert len(made) == 3
    assert venue.info(type="userFillsByTime", user=user, startTime=0) == made[:2]
    assert venue.info(type="userFillsByTime", user=user, startTime=0, reversed=True) == made[:0:-1]
    assert venue.info(type="userFills", user=user) == made[:0:-1]


@pytest.mark.parametrize("kind", ["userTwapSliceFills", "userTwapSliceFillsByTime", "userVaultEquities"])
def test_what_nobody_has_here_is_an_empty_list(venue: Venue, kind: str) -> None:
    assert venue.info(type=kind, user=USER, startTime=0) == []
