"""Clients that were written for the real venue trade on ours unchanged: the official SDK, and ccxt.

Each runs in a process of its own, under the interpreter of build/sdk or build/ccxt (`python tools/client_venvs.py sdk
ccxt`), and is told nothing but URLs. HLCONN_SDK_PYTHON and HLCONN_CCXT_PYTHON name other interpreters that have them.
HLCONN_REQUIRE_SDK=ON: their absence is a failure. The venue runs in this process while a client is waited for.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from client_venvs import BUILD, python_of

from hlconn import Signer
from hlconn.sim import Party, Venue

DRIVERS = Path(__file__).resolve().parent / "foreign"
TIMEOUT_S = 10.0
CLOID = "0x" + "c1" * 16
GTC, ALO, IOC = ({"limit": {"tif": tif}} for tif in ("Gtc", "Alo", "Ioc"))
BTC, KPEPE, GOLD, PURR, HFUN = "BTC/USDC:USDC", "KPEPE/USDC:USDC", "TEST-GOLD/USDC:USDC", "PURR/USDC", "HFUN/USDC"
NOT_FOUND = "Order was never placed, already canceled, or filled."
#: The words for each mistake. None of them is what the clients say of themselves.
WORDS = {
    "tick": r"Price must be divisible by tick size\. asset=0",
    "lot": r"Order has invalid size\. asset=0",
    "zero size": r"Order has zero size\. asset=0",
    "minimum value": r"Order must have minimum value of \$10\. asset=0",
    "minimum value of spot": r"Order must have minimum value of 10 USDC\. asset=10000",
    "post-only": r"Post only order would have immediately matched, bbo was \d+@\d+\. asset=0",
    "reduce-only": r"Reduce only order would increase position\. asset=0",
    "ioc": r"Order could not immediately match against any resting orders\. asset=0",
    "margin": r"Insufficient margin to place order\. asset=0",
    "spot balance": r"Insufficient spot balance asset=10000",
    "trigger": r"Invalid TP/SL price\. asset=0",
    "far": r"Order price cannot be more than 80% away from the reference price",
    "delisted": r"Trading is halted\. asset=4",
    "unknown asset": r"Invalid spot",
    "unknown order": r"Order was never placed, already canceled, or filled\. asset=0",
    "modify": r"Cannot modify canceled or filled order",
    "unknown wallet": r"User or API Wallet (0x[0-9a-f]{40}) does not exist\.",
    "unknown vault": r"Vault not registered: 0x2{40}",
    "duplicate nonce": r"Invalid nonce: duplicate nonce (\d+)",
    "expired": r"Action already expired",
}


def order_action(asset: int, px: str, sz: str, kind: Any = GTC, **more: Any) -> dict[str, Any]:
    order = {"a": asset, "b": True, "p": px, "s": sz, "r": False, "t": kind, **more}
    return {"type": "order", "orders": [order], "grouping": "na"}


GOOD = order_action(0, "90000", "0.01")
MISTAKEN = {
    "tick": order_action(0, "90000.5", "0.01"),
    "lot": order_action(0, "90000", "0.0123456"),
    "zero size": order_action(0, "90000", "0"),
    "minimum value": order_action(0, "90000", "0.0001"),
    "minimum value of spot": order_action(10_000, "0.2", "20"),
    "post-only": order_action(0, "120000", "0.01", ALO),
    "reduce-only": order_action(0, "90000", "0.01", r=True),
    "ioc": order_action(0, "90000", "0.01", IOC),
    "margin": order_action(0, "90000", "50"),
    "spot balance": order_action(10_000, "0.25", "1000", b=False),
    "trigger": order_action(
        0, "90000", "0.01", {"trigger": {"isMarket": True, "triggerPx": "120000", "tpsl": "sl"}}, b=False
    ),
    "far": order_action(0, "1000", "0.01"),
    "delisted": order_action(4, "0.4", "100"),
    "unknown asset": order_action(19_999, "1", "100"),
    "unknown order": {"type": "cancel", "cancels": [{"a": 0, "o": 1}]},
    "modify": {"type": "batchModify", "modifies": [{"oid": 1, "order": GOOD["orders"][0]}]},
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Refused(Exception):
    """What a client raised, in its own words."""


class Box:
    """A venue that runs while `run` does, and the clients' processes beside it."""

    def __init__(self, runner: asyncio.Runner, venue: Venue) -> None:
        self.runner, self.venue = runner, venue

    def run(self, do: Callable[[Venue], Any]) -> Any:
        async def inside() -> Any:
            return do(self.venue)

        return self.runner.run(inside())


class Client:
    """A foreign client in a process of its own: one command, one answer."""

    def __init__(self, box: Box, name: str) -> None:
        python = Path(os.environ.get(f"HLCONN_{name.upper()}_PYTHON") or python_of(BUILD / name))
        if not python.exists():
            assert os.environ.get("HLCONN_REQUIRE_SDK") != "ON", f"{python} is missing: tools/client_venvs.py makes it"
            pytest.skip(f"{name} is not installed: python tools/client_venvs.py {name}")
        self.box, self.ids = box, itertools.count()
        command, pipe = (python, DRIVERS / f"{name}_driver.py"), asyncio.subprocess.PIPE
        self.process = box.runner.run(
            asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, limit=1 << 24)
        )

    async def _ask(self, command: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        answer: dict[str, Any] = {"id": None}
        while answer["id"] != command["id"]:
            line = await asyncio.wait_for(self.process.stdout.readline(), 3 * TIMEOUT_S)
            assert line, "the client's process ended"
            answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["result"]

    def __call__(self, do: str, *args: Any, **kwargs: Any) -> Any:
        return self.box.runner.run(self._ask({"id": next(self.ids), "do": do, "args": args, "kwargs": kwargs}))

    def delivered(self, kind: str, good: Callable[[list[Any]], object]) -> list[Any]:
        """What came of a kind over the WebSocket, as soon as it is good."""
        deadline, count = time.monotonic() + TIMEOUT_S, 1
        while True:
            got: list[Any] = self("delivered", kind, count, max(0.0, deadline - time.monotonic()))
            if good(got):
                return got
            count = len(got) + 1

    def close(self) -> str:
        """End the process; what it wrote besides answers."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        _, errors = self.box.runner.run(asyncio.wait_for(self.process.communicate(), TIMEOUT_S))
        return errors.decode()


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    async def start() -> Venue:
        return await Venue(seed=7).__aenter__()

    with asyncio.Runner() as runner:
        venue = runner.run(start())
        yield Box(runner, venue)
        runner.run(venue.__aexit__(None, None, None))


# The official SDK


@pytest.fixture(scope="module")
def sdk_process(box: Box) -> Iterator[Client]:
    client = Client(box, "sdk")
    yield client
    # What it says of messages that it cannot place, and its WebSocket library of a callback that failed.
    assert not re.search(r"unexpected subscription|error from callback", client.close())


class Sdk:
    """A new account, and the SDK trading for it."""

    def __init__(self, client: Client, account: Party) -> None:
        self.client, self.account, self.box = client, account, client.box
        self.start(account.key)

    def start(self, key: str, **options: Any) -> None:
        self.client("start", self.box.venue.url, key, **options)

    def info(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.client(f"info.{name}", *args, **kwargs)

    def exchange(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.client(f"exchange.{name}", *args, **kwargs)

    def order(self, *args: Any, **kwargs: Any) -> Any:
        """The entry that answers for one order."""
        return entries(self.exchange("order", *args, **kwargs))[0]

    def bbo(self, coin: str) -> tuple[float, float]:
        bids, asks = self.info("l2_snapshot", coin)["levels"]
        return float(bids[0]["px"]), float(asks[0]["px"])

    def open_oids(self, dex: str = "") -> list[int]:
        return [order["oid"] for order in self.info("open_orders", self.account.address, dex)]

    def position(self, coin: str, dex: str = "") -> str | None:
        positions = self.info("user_state", self.account.address, dex)["assetPositions"]
        return next((p["position"]["szi"] for p in positions if p["position"]["coin"] == coin), None)

    def listen(self, *types: str, **more: Any) -> None:
        for type_ in types:
            self.client("subscribe", {"type": type_, **more})


def entries(answer: Any, kind: str = "order") -> list[Any]:
    assert answer["status"] == "ok", answer
    assert answer["response"]["type"] == kind
    statuses: list[Any] = answer["response"]["data"]["statuses"]
    return statuses


def words(answer: Any) -> str:
    """The text of a refusal, where the SDK has it: it raises none."""
    text = answer["response"] if answer["status"] == "err" else entries(answer, answer["response"]["type"])[0]["error"]
    assert isinstance(text, str)
    return text


@pytest.fixture
def sdk(sdk_process: Client) -> Sdk:
    account = sdk_process.box.run(lambda venue: venue.account(usdc=10_000, spot={"USDC": 1_000, "PURR": 100}))
    return Sdk(sdk_process, account)


DEFAULT = {"status": "ok", "response": {"type": "default"}}


class TestSdk:
    def test_metadata_gives_every_coin_its_asset(self, sdk: Sdk) -> None:
        assets = {coin: sdk.info("name_to_asset", coin) for coin in ("BTC", "kPEPE", "PURR/USDC", "@1", "test:GOLD")}
        assert assets == {"BTC": 0, "kPEPE": 3, "PURR/USDC": 10000, "@1": 10001, "test:GOLD": 110000}
        assert sdk.info("name_to_asset", HFUN) == 10001
        universe = sdk.info("meta")["universe"]
        assert {e["name"]: e["szDecimals"] for e in universe[:4]} == {"BTC": 5, "ETH": 4, "SOL": 2, "kPEPE": 0}
        assert [e["name"] for e in universe if e.get("isDelisted")] == ["MATIC"]
        meta, contexts = sdk.info("meta_and_asset_ctxs")
        assert len(meta["universe"]) == len(contexts)
        assert float(contexts[0]["markPx"]) > 0
        _, contexts = sdk.info("spot_meta_and_asset_ctxs")
        assert contexts[0]["coin"] == PURR

    @pytest.mark.parametrize("coin", ["BTC", "kPEPE", PURR, "@1", "test:GOLD"])
    def test_books_are_there_and_not_crossed(self, sdk: Sdk, coin: str) -> None:
        bids, asks = ([float(level["px"]) for level in side] for side in sdk.info("l2_snapshot", coin)["levels"])
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)
        assert bids[0] < asks[0]
        mid = float(sdk.info("all_mids", "test" if ":" in coin else "")[coin])
        assert bids[0] * 0.9 < mid < asks[0] * 1.1

    def test_a_trade_is_in_the_candle_of_its_minute(self, sdk: Sdk) -> None:
        start = now_ms() - 120_000
        [fill] = entries(sdk.exchange("market_open", "BTC", True, 0.01))
        candles = sdk.info("candles_snapshot", "BTC", "1m", start, now_ms() + 60_000)
        px = float(fill["filled"]["avgPx"])
        assert any(float(c["l"]) <= px <= float(c["h"]) and float(c["v"]) >= 0.01 and c["n"] > 0 for c in candles)
        assert {(c["s"], c["i"], c["T"] - c["t"]) for c in candles} == {("BTC", "1m", 59_999)}

    def test_an_order_rests_under_its_oid_and_its_cloid(self, sdk: Sdk) -> None:
        made = sdk.order("BTC", True, 0.01, 90000, GTC, cloid=CLOID)["resting"]
        assert made["cloid"] == CLOID
        [listed] = sdk.info("open_orders", sdk.account.address)
        wanted = {"coin": "BTC", "side": "B", "limitPx": "90000.0", "sz": "0.01", "origSz": "0.01", **made}
        assert {key: listed[key] for key in wanted} == wanted
        [listed] = sdk.info("frontend_open_orders", sdk.account.address)
        assert (listed["orderType"], listed["tif"], listed["cloid"]) == ("Limit", "Gtc", CLOID)
        for status in (
            sdk.info("query_order_by_oid", sdk.account.address, made["oid"]),
            sdk.info("query_order_by_cloid", sdk.account.address, CLOID),
        ):
            assert status["status"] == "order"
            assert (status["order"]["status"], status["order"]["order"]["oid"]) == ("open", made["oid"])
        assert sdk.info("query_order_by_oid", sdk.account.address, 1) == {"status": "unknownOid"}

    @pytest.mark.parametrize("by_cloid", [False, True])
    def test_a_modified_order_is_another_one(self, sdk: Sdk, by_cloid: bool) -> None:
        first = sdk.order("BTC", True, 0.01, 90000, GTC, cloid=CLOID)["resting"]["oid"]
        key = CLOID if by_cloid else first
        [entry] = entries(sdk.exchange("modify_order", key, "BTC", True, 0.02, 91000, GTC, cloid=CLOID))
        assert entry["resting"]["oid"] > first
        [listed] = sdk.info("open_orders", sdk.account.address)
        assert (listed["oid"], listed["limitPx"], listed["sz"]) == (entry["resting"]["oid"], "91000.0", "0.02")
        assert sdk.info("query_order_by_oid", sdk.account.address, first)["order"]["status"] == "canceled"

    def test_canceled_orders_are_gone_and_remembered(self, sdk: Sdk) -> None:
        by_oid = sdk.order("BTC", True, 0.01, 90000, GTC)["resting"]["oid"]
        by_cloid = sdk.order(PURR, False, 60, 0.25, GTC, cloid=CLOID)["resting"]["oid"]
        assert entries(sdk.exchange("cancel", "BTC", by_oid), "cancel") == ["success"]
        assert entries(sdk.exchange("cancel_by_cloid", PURR, CLOID), "cancel") == ["success"]
        assert sdk.open_oids() == []
        told = {o["order"]["oid"]: o["status"] for o in sdk.info("historical_orders", sdk.account.address)}
        assert {told[by_oid], told[by_cloid]} == {"canceled"}

    def test_a_batch_has_an_entry_for_each_order(self, sdk: Sdk) -> None:
        orders = [
            {"coin": "BTC", "is_buy": True, "sz": 0.01, "limit_px": px, "order_type": GTC, "reduce_only": reduce}
            for px, reduce in ((90000, False), (90001, True), (90002, False))
        ]
        first, second, third = entries(sdk.exchange("bulk_orders", orders))
        assert re.fullmatch(WORDS["reduce-only"], second["error"])
        oids = [first["resting"]["oid"], third["resting"]["oid"]]
        assert sorted(sdk.open_oids()) == oids
        modifies = [
            {"oid": oid, "order": {**order, "limit_px": 91000}}
            for oid, order in zip(oids, (orders[0], orders[2]), strict=True)
        ]
        oids = [entry["resting"]["oid"] for entry in entries(sdk.exchange("bulk_modify_orders_new", modifies))]
        cancels = [{"coin": "BTC", "oid": oid} for oid in (oids[0], 1, oids[1])]
        first, second, third = entries(sdk.exchange("bulk_cancel", cancels), "cancel")
        assert (first, third) == ("success", "success")
        assert re.fullmatch(WORDS["unknown order"], second["error"])

    def test_a_trigger_order_waits_beside_the_book(self, sdk: Sdk) -> None:
        entries(sdk.exchange("market_open", "BTC", True, 0.01))
        stop = {"trigger": {"triggerPx": 90000, "isMarket": True, "tpsl": "sl"}}
        oid = sdk.order("BTC", False, 0.01, 85000, stop, reduce_only=True)["resting"]["oid"]
        [listed] = sdk.info("frontend_open_orders", sdk.account.address)
        assert (listed["oid"], listed["isTrigger"], listed["triggerPx"]) == (oid, True, "90000.0")
        assert (listed["orderType"], listed["triggerCondition"]) == ("Stop Market", "Price below 90000")
        assert entries(sdk.exchange("cancel", "BTC", oid), "cancel") == ["success"]

    def test_a_trigger_order_fires_at_the_mark_price(self, sdk: Sdk) -> None:
        sdk.listen("orderUpdates", user=sdk.account.address)
        entries(sdk.exchange("market_open", "ETH", True, 0.5))
        stop = {"trigger": {"triggerPx": 3000, "isMarket": True, "tpsl": "sl"}}
        oid = sdk.order("ETH", False, 0.5, 2700, stop, reduce_only=True)["resting"]["oid"]
        sdk.box.run(lambda venue: venue.set_mark("ETH", 2999))
        updates = sdk.client.delivered("orderUpdates", lambda got: got[-1][-1]["status"] == "filled" and len(got) > 2)
        told = [update["status"] for message in updates for update in message if update["order"]["oid"] == oid]
        assert told == ["open", "triggered", "filled"]
        assert sdk.position("ETH") is None

    def test_the_children_of_an_order_come_with_its_fill(self, sdk: Sdk) -> None:
        def leg(is_buy: bool, px: float, kind: Any, reduce_only: bool) -> dict[str, Any]:
            more = {"coin": "BTC", "sz": 0.01, "reduce_only": reduce_only}
            return {"is_buy": is_buy, "limit_px": px, "order_type": kind, **more}

        ask = sdk.bbo("BTC")[1]
        take = leg(False, 130000, {"trigger": {"triggerPx": 130000, "isMarket": False, "tpsl": "tp"}}, True)
        stop = leg(False, 80000, {"trigger": {"triggerPx": 90000, "isMarket": True, "tpsl": "sl"}}, True)
        parent, *children = entries(
            sdk.exchange("bulk_orders", [leg(True, 90000, GTC, False), take, stop], grouping="normalTpsl")
        )
        assert children == ["waitingForFill", "waitingForFill"]
        assert entries(sdk.exchange("cancel", "BTC", parent["resting"]["oid"]), "cancel") == ["success"]
        assert sdk.open_oids() == []
        legs = [leg(True, round(ask * 1.01), IOC, False), take, stop]
        parent, *children = entries(sdk.exchange("bulk_orders", legs, grouping="normalTpsl"))
        assert "filled" in parent
        assert children == ["waitingForTrigger", "waitingForTrigger"]
        kinds = {order["orderType"] for order in sdk.info("frontend_open_orders", sdk.account.address)}
        assert kinds == {"Take Profit Limit", "Stop Market"}

    def test_a_resting_order_is_filled_and_everyone_is_told(self, sdk: Sdk) -> None:
        user = sdk.account.address
        sdk.listen("orderUpdates", "userFills", "userEvents", user=user)
        px = round(sdk.bbo("BTC")[0] * 0.999)
        oid = sdk.order("BTC", True, 0.01, px, ALO, cloid=CLOID)["resting"]["oid"]
        sdk.client.delivered("orderUpdates", lambda got: [u["status"] for us in got for u in us] == ["open"])
        sdk.box.run(lambda venue: venue.cross("BTC", "A", sz=1_000, px=px))
        updates = sdk.client.delivered("orderUpdates", lambda got: got[-1][-1]["status"] == "filled")
        last = updates[-1][-1]["order"]
        assert (last["oid"], last["cloid"], last["sz"], last["origSz"]) == (oid, CLOID, "0.0", "0.01")
        fills = sdk.client.delivered("userFills", lambda got: not got[-1].get("isSnapshot"))
        assert fills[0] == {"isSnapshot": True, "user": user, "fills": []}
        [fill] = [fill for message in fills for fill in message["fills"]]
        wanted = {"coin": "BTC", "oid": oid, "cloid": CLOID, "side": "B", "sz": "0.01", "crossed": False}
        assert {key: fill[key] for key in wanted} == wanted
        wanted = {"px": f"{px}.0", "dir": "Open Long", "startPosition": "0.0", "closedPnl": "0.0", "feeToken": "USDC"}
        assert {key: fill[key] for key in wanted} == wanted
        events = sdk.client.delivered("user", lambda got: any("fills" in event for event in got))
        assert [f["tid"] for event in events for f in event.get("fills", [])] == [fill["tid"]]
        assert sdk.info("user_fills", user) == [fill]
        assert sdk.info("user_fills_by_time", user, fill["time"]) == [fill]
        assert sdk.info("user_fills_by_time", user, fill["time"] + 1) == []
        assert sdk.position("BTC") == "0.01"
        assert sdk.info("query_order_by_oid", user, oid)["order"]["status"] == "filled"

    def test_a_position_is_opened_and_closed_at_the_market(self, sdk: Sdk) -> None:
        [opened] = entries(sdk.exchange("market_open", "BTC", False, 0.02))
        assert opened["filled"]["totalSz"] == "0.02"
        assert sdk.position("BTC") == "-0.02"
        [closed] = entries(sdk.exchange("market_close", "BTC"))
        assert closed["filled"]["totalSz"] == "0.02"
        assert sdk.position("BTC") is None
        fills = sdk.info("user_fills", sdk.account.address)
        assert {fill["dir"] for fill in fills} == {"Open Short", "Close Short"}
        paid = sum(float(fill["closedPnl"]) - float(fill["fee"]) for fill in fills)
        value = float(sdk.info("user_state", sdk.account.address)["marginSummary"]["accountValue"])
        assert value == pytest.approx(10_000 + paid, abs=1e-4)

    def test_tokens_are_bought_and_sold(self, sdk: Sdk) -> None:
        def balances() -> dict[str, dict[str, Any]]:
            state = sdk.info("spot_user_state", sdk.account.address)
            return {balance["coin"]: balance for balance in state["balances"]}

        assert (balances()["USDC"]["total"], balances()["PURR"]["total"]) == ("1000.0", "100.0")
        ask = sdk.bbo(PURR)[1]
        assert sdk.order(PURR, True, 60, float(f"{ask * 1.02:.4f}"), IOC)["filled"]["totalSz"] == "60.0"
        assert 159 < float(balances()["PURR"]["total"]) <= 160
        assert float(balances()["USDC"]["total"]) < 1000
        sdk.order(PURR, False, 100, 0.25, GTC)
        assert float(balances()["PURR"]["hold"]) == 100
        assert sdk.order("@1", True, 1, 20, GTC)["resting"]
        assert len(sdk.open_oids()) == 2

    def test_a_builder_deployed_coin_trades_with_its_own_collateral(self, sdk: Sdk) -> None:
        tokens = sdk.info("spot_meta")["tokens"]
        usdc = next(f"{token['name']}:{token['tokenId']}" for token in tokens if token["name"] == "USDC")
        assert sdk.exchange("send_asset", sdk.account.address, "", "test", usdc, 2_000.0) == DEFAULT
        assert sdk.exchange("update_leverage", 2, "test:GOLD", False) == DEFAULT
        oid = sdk.order("test:GOLD", True, 0.1, 2000, GTC)["resting"]["oid"]
        assert (sdk.open_oids("test"), sdk.open_oids()) == ([oid], [])
        ask = sdk.bbo("test:GOLD")[1]
        assert sdk.order("test:GOLD", True, 0.1, round(ask * 1.01), IOC)["filled"]["totalSz"] == "0.1"
        assert sdk.position("test:GOLD", "test") == "0.1"
        assert sdk.position("test:GOLD") is None
        assert entries(sdk.exchange("cancel", "test:GOLD", oid), "cancel") == ["success"]

    def test_leverage_and_isolated_margin_change(self, sdk: Sdk) -> None:
        assert sdk.exchange("update_leverage", 5, "BTC", False) == DEFAULT
        entries(sdk.exchange("market_open", "BTC", True, 0.01))
        assert sdk.exchange("update_isolated_margin", 25.0, "BTC") == DEFAULT
        [held] = sdk.info("user_state", sdk.account.address)["assetPositions"]
        assert (held["position"]["leverage"]["type"], held["position"]["leverage"]["value"]) == ("isolated", 5)
        answer = sdk.exchange("update_leverage", 5, "BTC", True)
        assert words(answer) == "Cannot switch leverage type with open position."

    def test_dollars_move_between_wallets_and_accounts(self, sdk: Sdk) -> None:
        assert sdk.exchange("usd_class_transfer", 100.0, True) == DEFAULT
        other = sdk.box.run(lambda venue: venue.account(usdc=1))
        assert sdk.exchange("usd_transfer", 50.0, other.address) == DEFAULT
        assert sdk.info("user_state", sdk.account.address)["withdrawable"] == "10050.0"
        assert sdk.info("user_state", other.address)["withdrawable"] == "51.0"

    def test_an_agent_trades_for_its_master(self, sdk: Sdk) -> None:
        answer, key = sdk.exchange("approve_agent", "bot")
        assert answer == DEFAULT
        sdk.start(key, account_address=sdk.account.address)
        oid = sdk.order("BTC", True, 0.01, 90000, GTC)["resting"]["oid"]
        assert sdk.open_oids() == [oid]

    def test_a_master_trades_for_its_sub_account(self, sdk: Sdk) -> None:
        answer = sdk.exchange("create_sub_account", "second")
        sub = answer["response"]["data"]
        assert sdk.exchange("sub_account_transfer", sub, True, 1_000_000_000) == DEFAULT
        sdk.start(sdk.account.key, vault_address=sub)
        oid = sdk.order("BTC", True, 0.01, 90000, GTC)["resting"]["oid"]
        assert sdk.open_oids() == []
        assert [order["oid"] for order in sdk.info("open_orders", sub)] == [oid]

    def test_orders_are_canceled_at_the_appointed_time_unless_it_is_taken_back(self, sdk: Sdk) -> None:
        assert sdk.exchange("schedule_cancel", now_ms() + 60_000) == DEFAULT
        assert sdk.exchange("schedule_cancel", None) == DEFAULT

    def test_market_data_arrives_for_every_kind_of_coin(self, sdk: Sdk) -> None:
        coins = ["BTC", PURR, "test:GOLD"]
        for coin in coins:
            sdk.listen("l2Book", "trades", "bbo", "activeAssetCtx", coin=coin)
        sdk.listen("candle", coin="BTC", interval="1m")
        sdk.listen("allMids")
        for channel in ("l2Book", "bbo"):
            sdk.client.delivered(channel, lambda got: {message["coin"] for message in got} == set(coins))
        sdk.box.run(lambda venue: venue.cross("BTC", "B", sz="0.123"))
        sdk.client.delivered(
            "trades", lambda got: any((t["coin"], t["side"]) == ("BTC", "B") for trades in got for t in trades)
        )
        sdk.client.delivered("candle", lambda got: any((m["s"], m["i"]) == ("BTC", "1m") for m in got))
        sdk.client.delivered("allMids", lambda got: "BTC" in got[-1]["mids"])
        sdk.client.delivered("activeAssetCtx", lambda got: any(m["coin"] == "BTC" for m in got))
        sdk.client.delivered("activeSpotAssetCtx", lambda got: any(m["coin"] == PURR for m in got))

    @pytest.mark.parametrize(
        ("mistake", "args", "kwargs"),
        [
            ("tick", ("BTC", True, 0.01, 90000.5, GTC), {}),
            ("lot", ("BTC", True, 0.0123456, 90000, GTC), {}),
            ("zero size", ("BTC", True, 0, 90000, GTC), {}),
            ("minimum value", ("BTC", True, 0.0001, 90000, GTC), {}),
            ("minimum value of spot", (PURR, True, 20, 0.2, GTC), {}),
            ("post-only", ("BTC", True, 0.01, 120000, ALO), {}),
            ("reduce-only", ("BTC", True, 0.01, 90000, GTC), {"reduce_only": True}),
            ("ioc", ("BTC", True, 0.01, 90000, IOC), {}),
            ("margin", ("BTC", True, 50, 90000, GTC), {}),
            ("spot balance", (PURR, False, 1000, 0.25, GTC), {}),
            (
                "trigger",
                ("BTC", False, 0.01, 90000, {"trigger": {"triggerPx": 120000, "isMarket": True, "tpsl": "sl"}}),
                {},
            ),
            ("far", ("BTC", True, 0.01, 1000, GTC), {}),
            ("delisted", ("MATIC", True, 100, 0.4, GTC), {}),
        ],
    )
    def test_a_mistaken_order_is_refused_in_the_venues_words(
        self, sdk: Sdk, mistake: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        assert re.fullmatch(WORDS[mistake], words(sdk.exchange("order", *args, **kwargs)))
        assert sdk.open_oids() == []

    def test_an_order_that_is_gone_cannot_be_canceled_or_modified(self, sdk: Sdk) -> None:
        assert re.fullmatch(WORDS["unknown order"], words(sdk.exchange("cancel", "BTC", 1)))
        assert re.fullmatch(WORDS["unknown order"], words(sdk.exchange("cancel_by_cloid", "BTC", CLOID)))
        assert re.match(WORDS["modify"], words(sdk.exchange("modify_order", 1, "BTC", True, 0.01, 90000, GTC)))

    def test_a_late_action_is_refused(self, sdk: Sdk) -> None:
        sdk.exchange("set_expires_after", now_ms() - 1_000)
        assert re.fullmatch(WORDS["expired"], words(sdk.exchange("order", "BTC", True, 0.01, 90000, GTC)))

    def test_a_stranger_is_refused(self, sdk: Sdk) -> None:
        sdk.start("0x" + "5a" * 32)
        found = re.fullmatch(WORDS["unknown wallet"], words(sdk.exchange("order", "BTC", True, 0.01, 90000, GTC)))
        assert found is not None
        assert found[1] == sdk.client("exchange.wallet.address.lower")

    def test_a_vault_of_nobody_is_refused(self, sdk: Sdk) -> None:
        sdk.start(sdk.account.key, vault_address="0x" + "22" * 20)
        assert re.fullmatch(WORDS["unknown vault"], words(sdk.exchange("order", "BTC", True, 0.01, 90000, GTC)))

    def test_a_nonce_is_good_once(self, sdk: Sdk) -> None:
        """The SDK's order() takes the clock for a nonce: what follows is its sign_l1_action and post."""
        nonce = now_ms()
        assert "resting" in entries(sdk.client("signed", GOOD, nonce))[0]
        found = re.fullmatch(WORDS["duplicate nonce"], words(sdk.client("signed", {"type": "noop"}, nonce)))
        assert found is not None
        assert int(found[1]) == nonce

    def test_the_vault_that_is_signed_is_the_vault_that_is_sent(self, sdk: Sdk) -> None:
        """Signed for a vault, sent for none, and the other way round: the venue recovers somebody else."""
        vault = "0x" + "22" * 20
        for signed, sent in ((vault, None), (None, vault)):
            answer = sdk.client("signed", GOOD, now_ms(), sign_vault=signed, vaultAddress=sent)
            found = re.fullmatch(WORDS["unknown wallet"], words(answer))
            assert found is not None
            assert found[1] != sdk.account.address

    def test_an_asset_that_is_not_listed_is_refused(self, sdk: Sdk) -> None:
        """The SDK knows no such name: what follows is its sign_l1_action and post."""
        answer = sdk.client("signed", MISTAKEN["unknown asset"], now_ms())
        assert re.fullmatch(WORDS["unknown asset"], words(answer))

    def test_what_is_no_action_is_refused_with_a_status(self, sdk: Sdk) -> None:
        with pytest.raises(Refused, match="422, None, 'Failed to deserialize the JSON body into the target type'"):
            sdk.client("signed", {"type": "nonsense"}, now_ms())
        with pytest.raises(Refused, match="422, None, 'Failed to deserialize the JSON body into the target type'"):
            sdk.info("post", "/info", {"type": "nonsense"})


# ccxt


@pytest.fixture(scope="module")
def ccxt_process(box: Box) -> Iterator[Client]:
    client = Client(box, "ccxt")
    yield client
    assert client.close() == ""


class Ccxt:
    """A new account, and ccxt trading for it."""

    def __init__(self, client: Client, account: Party) -> None:
        self.client, self.account, self.box = client, account, client.box
        self.start(account.key)

    def start(self, key: str) -> None:
        venue = self.box.venue
        self.client("start", venue.url, venue.ws_url, key, self.account.address)

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.client(f"exchange.{name}", *args, **kwargs)

    def create(self, symbol: str, type_: str, side: str, amount: float, px: float, **params: Any) -> Any:
        return self("create_order", symbol, type_, side, amount, px, params)

    def bbo(self, symbol: str) -> tuple[float, float]:
        book = self("fetch_order_book", symbol)
        return book["bids"][0][0], book["asks"][0][0]

    def open_ids(self, symbol: str | None = None) -> list[str]:
        return [order["id"] for order in self("fetch_open_orders", symbol)]

    def watch(self, method: str, *args: Any) -> None:
        self.client("watch", method, *args)


@pytest.fixture
def ccxt(ccxt_process: Client) -> Ccxt:
    account = ccxt_process.box.run(lambda venue: venue.account(usdc=10_000, spot={"USDC": 1_000, "PURR": 100}))
    return Ccxt(ccxt_process, account)


class TestCcxt:
    """ccxt raises for a refused order, with the whole answer in the text."""

    def test_markets_load_with_their_names_and_grids(self, ccxt: Ccxt) -> None:
        markets = ccxt("load_markets")
        ids = {symbol: markets[symbol]["baseId"] for symbol in (BTC, KPEPE, PURR, HFUN, GOLD)}
        assert ids == {BTC: "0", KPEPE: "3", PURR: "10000", HFUN: "10001", GOLD: "110000"}
        assert [symbol for symbol, market in markets.items() if not market["active"]] == ["MATIC/USDC:USDC"]
        assert (markets[BTC]["precision"]["amount"], markets[BTC]["precision"]["price"]) == (1e-05, 1.0)

    @pytest.mark.parametrize("symbol", [BTC, KPEPE, PURR, HFUN, GOLD])
    def test_books_are_there_and_not_crossed(self, ccxt: Ccxt, symbol: str) -> None:
        ccxt("load_markets")
        bid, ask = ccxt.bbo(symbol)
        assert bid < ask

    def test_public_data_is_there(self, ccxt: Ccxt) -> None:
        ccxt("load_markets")
        assert abs(ccxt("fetch_time") - now_ms()) < 60_000
        assert ccxt("fetch_status")["status"] == "ok"
        tickers = ccxt("fetch_tickers", [BTC])
        assert tickers[BTC]["close"] > 0
        assert ccxt("fetch_funding_rate", BTC)["markPrice"] > 0
        ccxt.create(BTC, "market", "buy", 0.01, ccxt.bbo(BTC)[1])
        candles = ccxt("fetch_ohlcv", BTC, "1m", None, 5)
        assert candles
        assert all(low <= close <= high for _, _, high, low, close, _ in candles)

    def test_an_order_rests_under_its_id_and_its_cloid(self, ccxt: Ccxt) -> None:
        made = ccxt.create(BTC, "limit", "buy", 0.01, 90000, clientOrderId=CLOID)
        assert made["clientOrderId"] == CLOID
        [listed] = ccxt("fetch_open_orders", BTC)
        wanted = {"id": made["id"], "clientOrderId": CLOID, "symbol": BTC, "side": "buy", "price": 90000.0}
        wanted |= {"amount": 0.01, "filled": 0.0, "remaining": 0.01, "status": "open", "timeInForce": "GTC"}
        assert {key: listed[key] for key in wanted} == wanted
        for key in (made["id"], CLOID):
            assert ccxt("fetch_order", key, BTC)["id"] == made["id"]
        with pytest.raises(Refused, match=r'^OrderNotFound: .*"unknownOid"'):
            ccxt("fetch_order", "1", BTC)

    def test_an_edited_order_is_another_one(self, ccxt: Ccxt) -> None:
        first = ccxt.create(BTC, "limit", "buy", 0.01, 90000, clientOrderId=CLOID)["id"]
        second = ccxt("edit_order", first, BTC, "limit", "buy", 0.02, 91000, {"clientOrderId": CLOID})["id"]
        [listed] = ccxt("fetch_open_orders", BTC)
        assert (listed["id"], listed["price"], listed["amount"]) == (second, 91000.0, 0.02)
        assert ccxt("fetch_order", first, BTC)["status"] == "canceled"

    def test_canceled_orders_are_gone_and_remembered(self, ccxt: Ccxt) -> None:
        first = ccxt.create(BTC, "limit", "buy", 0.01, 90000)["id"]
        second = ccxt.create(BTC, "limit", "buy", 0.01, 90000, clientOrderId=CLOID)["id"]
        assert ccxt("cancel_order", first, BTC)["status"] == "success"
        assert ccxt("cancel_order", second, BTC, {"clientOrderId": CLOID})["status"] == "success"
        assert ccxt.open_ids() == []
        assert {order["id"] for order in ccxt("fetch_canceled_orders", BTC)} == {first, second}

    def test_a_batch_of_two_kinds_of_market(self, ccxt: Ccxt) -> None:
        rows = [(BTC, "buy", 0.01, 90000), (BTC, "buy", 0.01, 90001), (PURR, "sell", 60, 0.25)]
        orders = [
            {"symbol": symbol, "type": "limit", "side": side, "amount": amount, "price": px}
            for symbol, side, amount, px in rows
        ]
        ids = [order["id"] for order in ccxt("create_orders", orders)]
        assert sorted(ccxt.open_ids()) == sorted(ids)
        assert [order["status"] for order in ccxt("cancel_orders", ids[:1], BTC)] == ["success"]
        ccxt("cancel_orders_for_symbols", [{"id": ids[1], "symbol": BTC}, {"id": ids[2], "symbol": PURR}])
        assert ccxt.open_ids() == []

    def test_trigger_orders_wait_beside_the_book(self, ccxt: Ccxt) -> None:
        ccxt.create(BTC, "market", "buy", 0.01, ccxt.bbo(BTC)[1])
        stop = ccxt.create(BTC, "market", "sell", 0.01, 90000, stopLossPrice=90000, reduceOnly=True)["id"]
        take = ccxt.create(BTC, "limit", "sell", 0.01, 130000, takeProfitPrice=130000, reduceOnly=True)["id"]
        listed = {order["id"]: order for order in ccxt("fetch_open_orders", BTC)}
        assert listed[stop]["stopLossPrice"] == 90000.0
        assert listed[take]["takeProfitPrice"] == 130000.0
        ccxt("cancel_orders", [stop, take], BTC)
        assert ccxt.open_ids() == []

    def test_the_children_of_an_order_come_with_its_fill(self, ccxt: Ccxt) -> None:
        ask = ccxt.bbo(BTC)[1]
        legs = {"stopLoss": {"triggerPrice": 90000, "type": "market"}, "takeProfit": {"triggerPrice": 130000}}
        made = ccxt.create(BTC, "market", "buy", 0.01, ask, **legs)
        assert made["filled"] == 0.01
        kinds = {order["info"]["orderType"] for order in ccxt("fetch_open_orders", BTC)}
        assert kinds == {"Take Profit Limit", "Stop Market"}

    def test_a_resting_order_is_filled_and_everyone_is_told(self, ccxt: Ccxt) -> None:
        ccxt("load_markets")
        ccxt.watch("watch_orders", BTC)
        ccxt.watch("watch_my_trades", BTC)
        px = round(ccxt.bbo(BTC)[0] * 0.999)
        made = ccxt.create(BTC, "limit", "buy", 0.01, px, postOnly=True)["id"]
        ccxt.client.delivered("watch_orders", lambda got: got[-1][-1]["id"] == made)
        ccxt.box.run(lambda venue: venue.cross("BTC", "A", sz=1_000, px=px))
        updates = ccxt.client.delivered("watch_orders", lambda got: got[-1][-1]["status"] == "closed")
        assert (updates[-1][-1]["id"], updates[-1][-1]["remaining"]) == (made, 0.0)
        [[trade]] = ccxt.client.delivered("watch_my_trades", len)
        assert (trade["order"], trade["side"], trade["amount"], trade["price"]) == (made, "buy", 0.01, px)
        [fetched] = ccxt("fetch_my_trades", BTC)
        assert (fetched["id"], fetched["takerOrMaker"]) == (trade["id"], "maker")
        assert fetched["fee"]["currency"] == "USDC"
        assert float(fetched["info"]["builderFee"]) > 0  # of ccxt's own builder, approved and sent unasked
        [position] = ccxt("fetch_positions", [BTC])
        assert (position["side"], position["contracts"], position["entryPrice"]) == ("long", 0.01, px)
        [closed] = ccxt("fetch_closed_orders", BTC)
        assert closed["id"] == made

    def test_balances_and_leverage(self, ccxt: Ccxt) -> None:
        assert ccxt("fetch_balance")["USDC"]["total"] == 10_000
        spot = ccxt("fetch_balance", {"type": "spot"})
        assert (spot["USDC"]["total"], spot["PURR"]["total"]) == (1_000, 100)
        ccxt("load_markets")
        assert ccxt("set_leverage", 5, BTC)["status"] == "ok"
        assert ccxt("set_margin_mode", "isolated", BTC, {"leverage": 5})["status"] == "ok"
        ccxt.create(BTC, "market", "buy", 0.01, ccxt.bbo(BTC)[1])
        assert ccxt("add_margin", BTC, 5)["code"] == "ok"
        [position] = ccxt("fetch_positions")
        assert (position["marginMode"], position["leverage"]) == ("isolated", 5)
        assert ccxt("transfer", "USDC", 10, "spot", "swap")["status"] == "ok"

    def test_market_data_arrives_for_every_kind_of_coin(self, ccxt: Ccxt) -> None:
        ccxt("load_markets")
        for symbol in (BTC, KPEPE, PURR, GOLD):
            ccxt.watch("watch_order_book", symbol)
        ccxt.client.delivered(
            "watch_order_book", lambda got: {book["symbol"] for book in got} == {BTC, KPEPE, PURR, GOLD}
        )
        ccxt.watch("watch_trades", BTC)
        ccxt.watch("watch_ohlcv", BTC, "1m")
        ccxt.watch("watch_ticker", BTC)
        ccxt.watch("watch_tickers")
        ccxt.client.delivered("watch_ticker", lambda got: got[-1]["close"] > 0)
        ccxt.client.delivered("watch_tickers", lambda got: BTC in got[-1])
        ccxt.box.run(lambda venue: venue.cross("BTC", "B", sz="0.123"))
        ccxt.client.delivered("watch_trades", lambda got: any(t["side"] == "buy" for trades in got for t in trades))
        ccxt.client.delivered("watch_ohlcv", lambda got: got[-1][-1][5] > 0)
        assert ccxt("un_watch_trades", BTC) is True

    def test_account_state_arrives(self, ccxt: Ccxt) -> None:
        ccxt("load_markets")
        ccxt.watch("watch_balance")
        ccxt.client.delivered("watch_balance", lambda got: got[-1]["USDC"]["total"] == 10_000)
        ccxt.watch("watch_positions")
        ccxt.create(BTC, "market", "buy", 0.01, ccxt.bbo(BTC)[1])
        ccxt.client.delivered("watch_positions", lambda got: any(p["contracts"] == 0.01 for ps in got for p in ps))

    def test_orders_go_over_the_websocket(self, ccxt: Ccxt) -> None:
        ccxt("load_markets")
        first = ccxt("create_order_ws", BTC, "limit", "buy", 0.01, 90000)["id"]
        assert ccxt.open_ids() == [first]
        second = ccxt("edit_order_ws", first, BTC, "limit", "buy", 0.01, 91000)["id"]
        assert ccxt.open_ids() == [second]
        assert ccxt("cancel_order_ws", second, BTC)["status"] == "success"
        with pytest.raises(Refused, match=re.escape(NOT_FOUND)):
            ccxt("cancel_order_ws", second, BTC)

    def test_an_agent_trades_for_a_sub_account(self, ccxt: Ccxt) -> None:
        """ccxt sends vaultAddress without its 0x, and orders without its builder where it could not approve one."""
        sub = ccxt.box.run(lambda venue: venue.sub_account(ccxt.account, usdc=1))
        ccxt("load_markets")
        assert ccxt("transfer", "USDC", 1_000, "main", sub)["status"] == "ok"
        ccxt.start(ccxt.box.run(lambda venue: venue.agent(ccxt.account)).key)
        order = ccxt.create(BTC, "limit", "buy", 0.01, 90000, vaultAddress=sub)["id"]
        assert ccxt.open_ids() == []
        assert [made["id"] for made in ccxt("fetch_open_orders", BTC, None, None, {"user": sub})] == [order]

    @pytest.mark.parametrize(
        ("mistake", "kind", "args", "params"),
        [
            ("minimum value", "InvalidOrder", (BTC, "limit", "buy", 0.0001, 90000), {}),
            ("minimum value of spot", "ExchangeError", (PURR, "limit", "buy", 20, 0.2), {}),
            ("post-only", "InvalidOrder", (BTC, "limit", "buy", 0.01, 120000), {"postOnly": True}),
            ("reduce-only", "InvalidOrder", (BTC, "limit", "buy", 0.01, 90000), {"reduceOnly": True}),
            ("ioc", "InvalidOrder", (BTC, "limit", "buy", 0.01, 90000), {"timeInForce": "IOC"}),
            ("margin", "InsufficientFunds", (BTC, "limit", "buy", 50, 90000), {}),
            ("spot balance", "InsufficientFunds", (PURR, "limit", "sell", 1000, 0.25), {}),
            ("trigger", "InvalidOrder", (BTC, "market", "sell", 0.01, 120000), {"stopLossPrice": 120000}),
            ("far", "InvalidOrder", (BTC, "limit", "buy", 0.01, 1000), {}),
            ("delisted", "ExchangeError", ("MATIC/USDC:USDC", "limit", "buy", 100, 0.4), {}),
            ("unknown vault", "ExchangeError", (BTC, "limit", "buy", 0.01, 90000), {"vaultAddress": "0x" + "22" * 20}),
        ],
    )
    def test_a_mistaken_order_is_refused_in_the_venues_words(
        self, ccxt: Ccxt, mistake: str, kind: str, args: tuple[Any, ...], params: dict[str, Any]
    ) -> None:
        with pytest.raises(Refused, match=rf'^{kind}: hyperliquid .*"{WORDS[mistake]}"'):
            ccxt.create(*args, **params)

    @pytest.mark.parametrize(
        ("mistake", "kind"),
        [
            ("tick", "InvalidOrder"),
            ("lot", "InvalidOrder"),
            ("zero size", "InvalidOrder"),
            ("unknown asset", "ExchangeError"),
            ("unknown order", "OrderNotFound"),
            ("modify", "ExchangeError"),
        ],
    )
    def test_what_ccxt_would_round_is_refused_in_the_venues_words(self, ccxt: Ccxt, mistake: str, kind: str) -> None:
        """create_order rounds to the grid: what follows is ccxt's sign_l1_action and private_post_exchange."""
        with pytest.raises(Refused, match=rf'^{kind}: hyperliquid .*"{WORDS[mistake]}"'):
            ccxt.client("signed", MISTAKEN[mistake], now_ms())

    def test_a_stranger_is_refused(self, ccxt: Ccxt) -> None:
        ccxt("load_markets")
        ccxt.start("0x" + "5a" * 32)
        with pytest.raises(Refused, match=f'^InvalidOrder: hyperliquid .*"{WORDS["unknown wallet"]}"'):
            ccxt.create(BTC, "limit", "buy", 0.01, 90000)

    def test_nonces_expiry_and_the_vault_byte_count(self, ccxt: Ccxt) -> None:
        """create_order takes the clock for a nonce: what follows is sign_l1_action and private_post_exchange."""
        nonce = now_ms()
        assert ccxt.client("signed", GOOD, nonce)["status"] == "ok"
        for mistake, call in {
            "duplicate nonce": ({"type": "noop"}, nonce, None, {}),
            "expired": (GOOD, nonce + 1, None, {"expiresAfter": nonce - 1_000}),
            "unknown wallet": (GOOD, nonce + 2, "22" * 20, {}),
        }.items():
            with pytest.raises(Refused, match=f'hyperliquid .*"{WORDS[mistake]}"'):
                ccxt.client("signed", *call[:3], **call[3])


# Ours


class Raw:
    """A new account, and our signer with an HTTP client that is not ours."""

    def __init__(self, box: Box) -> None:
        self.box, self.account = box, box.run(lambda venue: venue.account(usdc=10_000, spot={"PURR": 100}))
        self.signer = Signer(self.account.key, "local")
        self.nonces = itertools.count(now_ms())

    def post(self, payload: bytes) -> Any:
        request = urllib.request.Request(
            f"{self.box.venue.url}/exchange", payload, {"Content-Type": "application/json"}
        )

        def send() -> Any:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                return json.load(response)

        return self.box.runner.run(asyncio.to_thread(send))

    def refused(self, action: dict[str, Any], signer: Signer | None = None, **options: Any) -> str:
        """The words, where the action was refused. options: of `sign`."""
        return words(self.post((signer or self.signer).sign(action, next(self.nonces), **options).payload))


@pytest.fixture
def raw(box: Box) -> Raw:
    return Raw(box)


class TestRaw:
    @pytest.mark.parametrize("mistake", MISTAKEN)
    def test_a_mistaken_action_is_refused_in_the_same_words(self, raw: Raw, mistake: str) -> None:
        assert re.fullmatch(WORDS[mistake], raw.refused(MISTAKEN[mistake]))

    def test_what_is_wrong_around_an_action_is_told_in_the_same_words(self, raw: Raw) -> None:
        vault, late = "0x" + "22" * 20, now_ms() - 1_000
        assert re.fullmatch(WORDS["expired"], raw.refused(GOOD, expires_after=late))
        assert re.fullmatch(WORDS["unknown vault"], raw.refused(GOOD, vault=vault))
        stranger = Signer("5a" * 32, "local")
        found = re.fullmatch(WORDS["unknown wallet"], raw.refused(GOOD, stranger))
        assert found is not None
        assert found[1] == stranger.address

    def test_a_nonce_is_good_once(self, raw: Raw) -> None:
        payload = raw.signer.sign(GOOD, now_ms()).payload
        assert "resting" in entries(raw.post(payload))[0]
        assert re.fullmatch(WORDS["duplicate nonce"], words(raw.post(payload)))

    def test_the_vault_that_is_signed_is_the_vault_that_is_sent(self, raw: Raw) -> None:
        signed = json.loads(raw.signer.sign(GOOD, now_ms(), vault="0x" + "22" * 20).payload)
        del signed["vaultAddress"]
        found = re.fullmatch(WORDS["unknown wallet"], words(raw.post(json.dumps(signed).encode())))
        assert found is not None
        assert found[1] != raw.account.address
