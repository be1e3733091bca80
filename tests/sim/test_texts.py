"""Every mistake gets the venue's own words, where it is told, and `hlconn.classify` knows what they mean."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from sim.raw import JsonObject, Raw, limit, quiet_venue, trigger

from hlconn import Cloid, Grouping, Order, Tif, Tpsl, Trigger, account, action, classify, classify_status
from hlconn.errors import ErrorCode as E
from hlconn.sim import Rules, Venue

DAY_MS = 86_400_000


@pytest.fixture
def raw() -> Raw:
    """A client with 10,000 dollars in a quiet venue: a bid and an ask in BTC and in PURR, and BTC marked at 105000."""
    return ready()


def ready(**more: Any) -> Raw:
    venue = quiet_venue(**more)
    books = {"BTC": (105_000, 105_010, 1), "PURR/USDC": (0.2, 0.201, 1000)}
    for coin, (bid, ask, sz) in books.items():
        venue.rest(coin, "B", bid, sz)
        venue.rest(coin, "A", ask, sz)
    venue.set_mark("BTC", 105_000)
    return Raw(venue, venue.account(usdc=10_000, spot={"USDC": 100, "PURR": 100}))


def wire(asset: int, px: str, sz: str, is_buy: bool = True, reduce_only: bool = False, **kind: Any) -> JsonObject:
    """An order as it goes over the wire: what our own `Instrument` would refuse to write."""
    return {"a": asset, "b": is_buy, "p": px, "s": sz, "r": reduce_only, "t": kind or {"limit": {"tif": "Gtc"}}}


def orders(*wires: JsonObject, grouping: str = "na") -> Any:
    return action.raw({"type": "order", "orders": list(wires), "grouping": grouping})


def on_trigger(px: str, tpsl: str) -> JsonObject:
    return {"isMarket": True, "triggerPx": px, "tpsl": tpsl}


def statuses(answer: Any) -> list[Any]:
    assert answer["status"] == "ok", answer
    found: list[Any] = answer["response"]["data"]["statuses"]
    return found


def last_status(raw: Raw) -> str | None:
    """Of the newest order that has an oid."""
    rows = raw.venue.history.orders(raw.party.address)
    return rows[-1]["status"] if rows else None


# Of one order: (text, code, the status of the order that got an oid, the order).

ONE_ORDER: list[tuple[str, E, str | None, JsonObject]] = [
    ("Price must be divisible by tick size. asset=0", E.TICK, None, wire(0, "104000.5", "0.01")),
    ("Price must be divisible by tick size. asset=10000", E.TICK, None, wire(10_000, "0.200001", "100")),
    ("Order has invalid size. asset=0", E.LOT, None, wire(0, "104000", "0.000001")),
    ("Order has invalid size. asset=10000", E.LOT, None, wire(10_000, "0.2", "100.5")),
    ("Order has zero size. asset=0", E.ZERO_SIZE, None, wire(0, "104000", "0")),
    ("Order has invalid price. asset=0", E.INVALID_PRICE, None, wire(0, "0", "0.01")),
    (
        "Order must have minimum value of $10. asset=0",
        E.MIN_NOTIONAL,
        "minTradeNtlRejected",
        wire(0, "104000", "0.00009"),
    ),
    (
        "Order must have minimum value of 10 USDC. asset=10000",
        E.MIN_NOTIONAL,
        "minTradeNtlRejected",
        wire(10_000, "0.2", "49"),
    ),
    (
        "Post only order would have immediately matched, bbo was 105000@105010. asset=0",
        E.POST_ONLY_WOULD_MATCH,
        "badAloPxRejected",
        wire(0, "105010", "0.01", limit={"tif": "Alo"}),
    ),
    (
        "Post only order would have immediately matched, bbo was 0.2@0.201. asset=10000",
        E.POST_ONLY_WOULD_MATCH,
        "badAloPxRejected",
        wire(10_000, "0.2", "60", False, limit={"tif": "Alo"}),
    ),
    (
        "Reduce only order would increase position. asset=0",
        E.REDUCE_ONLY,
        "reduceOnlyRejected",
        wire(0, "104000", "0.01", reduce_only=True),
    ),
    (
        "Reduce-only is invalid for spot trading. asset=10000",
        E.REDUCE_ONLY_SPOT,
        None,
        wire(10_000, "0.2", "60", True, True),
    ),
    (
        "Order could not immediately match against any resting orders. asset=0",
        E.IOC_NO_MATCH,
        "iocCancelRejected",
        wire(0, "104000", "0.01", limit={"tif": "Ioc"}),
    ),
    (
        "Insufficient margin to place order. asset=0",
        E.INSUFFICIENT_MARGIN,
        "perpMarginRejected",
        wire(0, "104000", "2"),
    ),
    (
        "Insufficient spot balance asset=10000",
        E.INSUFFICIENT_BALANCE,
        "insufficientSpotBalanceRejected",
        wire(10_000, "0.2", "1000"),
    ),
    (
        "Insufficient spot balance asset=10000",
        E.INSUFFICIENT_BALANCE,
        "insufficientSpotBalanceRejected",
        wire(10_000, "0.201", "101", False),
    ),
    ("Trading is halted. asset=4", E.MARKET_CLOSED, "rejected", wire(4, "0.4", "100")),
    (
        "Order price cannot be more than 80% away from the reference price",
        E.TOO_FAR_FROM_REFERENCE,
        None,
        wire(0, "20999", "0.01"),
    ),
    (
        "Order price cannot be more than 80% away from the reference price",
        E.TOO_FAR_FROM_REFERENCE,
        None,
        wire(0, "189001", "0.01", False),
    ),
    (
        "Invalid TP/SL price. asset=0",
        E.TRIGGER_PRICE,
        "badTriggerPxRejected",
        wire(0, "106000", "0.01", trigger=on_trigger("104999", "sl")),
    ),
    (
        "Invalid TP/SL price. asset=0",
        E.TRIGGER_PRICE,
        "badTriggerPxRejected",
        wire(0, "106000", "0.01", trigger=on_trigger("105000", "tp")),
    ),
    (
        "Invalid TP/SL price. asset=0",
        E.TRIGGER_PRICE,
        None,
        wire(0, "106000", "0.01", trigger=on_trigger("106000.5", "sl")),
    ),
    ("Invalid TP/SL price. asset=0", E.TRIGGER_PRICE, None, wire(0, "106000", "0.01", trigger=on_trigger("0", "sl"))),
]


@pytest.mark.parametrize(("text", "code", "status", "order"), ONE_ORDER)
def test_an_order_is_refused_in_the_venues_words(
    raw: Raw, text: str, code: E, status: str | None, order: JsonObject
) -> None:
    assert statuses(raw.do(orders(order))) == [{"error": text}]
    assert classify(text) is code
    assert last_status(raw) == status
    if status is not None and status != "rejected":
        assert classify_status(status) is code
    assert raw.venue.info(type="openOrders", user=raw.party.address) == []


@pytest.mark.parametrize(
    "order",
    [
        wire(0, "104000", "0.01"),
        wire(0, "104000", "0.0001"),
        wire(0, "21000", "0.001"),
        wire(0, "105009", "0.01", limit={"tif": "Alo"}),
        wire(0, "106000", "0.01", trigger=on_trigger("105001", "sl")),
        wire(0, "104000", "0.01", trigger=on_trigger("104999", "tp")),
        wire(10_000, "0.2", "50"),
        wire(0, "104000", "1.9"),
    ],
)
def test_what_is_just_right_rests(raw: Raw, order: JsonObject) -> None:
    [status] = statuses(raw.do(orders(order)))
    assert list(status) == ["resting"]
    assert last_status(raw) == "open"


@pytest.mark.parametrize(("bid", "ask", "words"), [(False, True, "None@105010"), (True, False, "105000@None")])
def test_a_post_only_order_is_told_of_a_missing_side(bid: bool, ask: bool, words: str) -> None:
    venue = quiet_venue()
    if bid:
        venue.rest("BTC", "B", 105_000, 1)
    if ask:
        venue.rest("BTC", "A", 105_010, 1)
    raw = Raw(venue, venue.account())
    [status] = statuses(raw.do(orders(wire(0, "105010" if ask else "105000", "0.01", ask, limit={"tif": "Alo"}))))
    assert status == {"error": f"Post only order would have immediately matched, bbo was {words}. asset=0"}


# Of a whole batch


def test_what_depends_on_the_payload_alone_refuses_the_whole_batch(raw: Raw) -> None:
    good = wire(0, "104000", "0.01")
    for bad in (wire(0, "104000.5", "0.01"), wire(0, "104000", "0"), wire(0, "1", "0.01")):
        assert len(statuses(raw.do(orders(good, bad, good)))) == 1
    assert raw.venue.info(type="openOrders", user=raw.party.address) == []
    found = statuses(raw.do(orders(good, wire(0, "104000", "0.00001"), good)))
    assert [next(iter(entry)) for entry in found] == ["resting", "error", "resting"]


def test_an_empty_batch_is_refused(raw: Raw) -> None:
    assert statuses(raw.do(orders())) == [{"error": "Orders are empty."}]
    assert classify("Orders are empty.") is E.EMPTY_BATCH


STOP = wire(0, "104000", "0.01", False, True, trigger=on_trigger("104500", "sl"))


@pytest.mark.parametrize(
    ("wires", "grouping", "text"),
    [
        ([wire(0, "104000", "0.01")], "normalTpsl", "Unexpected number of trigger orders"),
        ([wire(0, "104000", "0.01")], "positionTpsl", "Unexpected number of trigger orders"),
        ([wire(0, "104000", "0.01"), {**STOP, "r": False}], "normalTpsl", "Trigger order is not reduce only."),
        ([wire(0, "104000", "0.01", False), STOP], "normalTpsl", "Trigger order has unexpected side."),
    ],
)
def test_a_group_that_does_not_belong_together_is_refused(
    raw: Raw, wires: list[JsonObject], grouping: str, text: str
) -> None:
    assert statuses(raw.do(orders(*wires, grouping=grouping))) == [{"error": text}]
    assert classify(text) is E.TRIGGER_GROUP


def test_a_builder_without_approval_is_refused(raw: Raw) -> None:
    text = "Builder fee has not been approved."
    builder = {"b": "0x" + "b1" * 20, "f": 10}
    act = action.raw({"type": "order", "orders": [wire(0, "104000", "0.01")], "grouping": "na", "builder": builder})
    assert statuses(raw.do(act)) == [{"error": text}]
    assert classify(text) is E.BUILDER_FEE_NOT_APPROVED


@pytest.mark.parametrize(
    ("asset", "text", "code"),
    [
        (99, "Invalid asset", E.UNKNOWN),  # no source has words for it: these are the venue's guess
        (10_099, "Invalid spot", E.INVALID_ASSET),
        (110_099, "Invalid asset", E.UNKNOWN),
    ],
)
def test_an_unknown_asset_refuses_the_action(raw: Raw, asset: int, text: str, code: E) -> None:
    for act in (
        orders(wire(0, "104000", "0.01"), wire(asset, "100", "1")),
        action.raw({"type": "cancel", "cancels": [{"a": asset, "o": 1}]}),
        action.raw({"type": "cancelByCloid", "cancels": [{"asset": asset, "cloid": Cloid(1).hex}]}),
    ):
        assert raw.do(act) == {"status": "err", "response": text}
    assert classify(text) is code
    assert raw.venue.info(type="openOrders", user=raw.party.address) == []


# Who signed


def test_an_unknown_wallet_is_refused_with_its_address(raw: Raw) -> None:
    stranger = Raw(raw.venue, raw.venue.stranger())
    text = f"User or API Wallet {stranger.party.address} does not exist."
    assert stranger.do(action.noop()) == {"status": "err", "response": text}
    assert classify(text) is E.UNKNOWN_WALLET


def test_an_agent_that_was_removed_is_refused(raw: Raw) -> None:
    venue = raw.venue
    agent = Raw(venue, venue.agent(raw.party, "bot"))
    assert agent.do(action.noop())["status"] == "ok"
    removal = account.approve_agent(raw.signer, None, raw.nonce(), name="bot")
    assert raw.post_raw(json.loads(removal.payload))["payload"]["status"] == "ok"
    text = f"User or API Wallet {agent.party.address} does not exist."
    assert agent.do(action.noop()) == {"status": "err", "response": text}


def test_an_agent_that_was_replaced_is_refused_and_not_taken_again(raw: Raw) -> None:
    venue = raw.venue
    first = Raw(venue, venue.agent(raw.party))
    second = Raw(venue, venue.agent(raw.party))
    assert "does not exist" in first.do(action.noop())["response"]
    assert second.do(action.noop())["status"] == "ok"
    again = account.approve_agent(raw.signer, first.party.address, raw.nonce())
    text = "Extra agent already used."
    assert raw.post_raw(json.loads(again.payload))["payload"] == {"status": "err", "response": text}
    assert classify(text) is E.AGENT


def test_an_agent_may_not_sign_for_the_account_itself(raw: Raw) -> None:
    agent = Raw(raw.venue, raw.venue.agent(raw.party))
    send = account.usd_send(agent.signer, raw.party.address, 5, agent.nonce())
    text = f"Must deposit before performing actions. User: {agent.party.address}"
    assert agent.post_raw(json.loads(send.payload))["payload"] == {"status": "err", "response": text}
    assert classify(text) is E.MUST_DEPOSIT


def payload_of(raw: Raw, act: Any, **more: Any) -> JsonObject:
    payload: JsonObject = json.loads(raw.signer.sign(act, raw.nonce(), **more).payload)
    return payload


STRANGER = re.compile(r"User or API Wallet 0x[0-9a-f]{40} does not exist\.")


def test_a_vault_that_was_not_signed_recovers_a_stranger(raw: Raw) -> None:
    vault = raw.venue.vault(raw.party, 100)
    act = action.order([limit("B", 104_000, "0.001")], raw.instruments)
    sent_not_signed = {**payload_of(raw, act), "vaultAddress": vault}
    signed_not_sent = {**payload_of(raw, act, vault=vault), "vaultAddress": None}
    for payload in (sent_not_signed, signed_not_sent):
        answer = raw.post_raw(payload)["payload"]
        assert answer["status"] == "err"
        assert STRANGER.fullmatch(answer["response"])
        assert raw.party.address not in answer["response"]
    assert raw.post_raw(payload_of(raw, act, vault=vault))["payload"]["status"] == "ok"


def test_an_expiry_that_was_not_signed_recovers_a_stranger(raw: Raw) -> None:
    payload = {**payload_of(raw, action.noop()), "expiresAfter": int(raw.venue.now_ms()) + 60_000}
    assert STRANGER.fullmatch(raw.post_raw(payload)["payload"]["response"])


def test_a_number_with_idle_zeros_is_hashed_without_them(raw: Raw) -> None:
    answer = raw.do(orders(wire(0, "104000.0", "0.01")))
    assert STRANGER.fullmatch(answer["response"])
    payload = payload_of(raw, orders(wire(0, "104000", "0.01")))
    payload["action"]["orders"][0] |= {"p": "104000.0", "s": "0.0100"}
    assert raw.post_raw(payload)["payload"]["status"] == "ok"


def test_the_order_of_keys_in_the_json_changes_nothing(raw: Raw) -> None:
    payload = payload_of(raw, orders(wire(0, "104000", "0.01")))
    sent = payload["action"]["orders"][0]
    payload["action"]["orders"][0] = {key: sent[key] for key in sorted(sent, reverse=True)}
    payload["action"] = {key: payload["action"][key] for key in sorted(payload["action"])}
    assert raw.post_raw(payload)["payload"]["status"] == "ok"


def test_a_vault_of_somebody_else_is_not_registered(raw: Raw) -> None:
    other = raw.venue.vault(raw.venue.account(), 100)
    act = action.order([limit("B", 104_000, "0.001")], raw.instruments)
    for vault in (other, "0x" + "2" * 40):
        text = f"Vault not registered: {vault}"
        assert raw.do(act, vault=vault) == {"status": "err", "response": text}
        assert classify(text) is E.UNKNOWN_VAULT


def test_the_other_network_recovers_a_stranger(raw: Raw) -> None:
    mainnet = Raw(raw.venue, raw.party, network="mainnet")
    assert STRANGER.fullmatch(mainnet.do(action.noop())["response"])
    venue = quiet_venue(rules=Rules(mainnet=True))
    party = venue.account()
    assert Raw(venue, party, network="mainnet").do(action.noop())["status"] == "ok"
    assert STRANGER.fullmatch(Raw(venue, party).do(action.noop())["response"])


def test_what_the_account_signs_itself_names_its_network(raw: Raw) -> None:
    mainnet = Raw(raw.venue, raw.party, network="mainnet")
    send = account.usd_send(mainnet.signer, raw.party.address, 5, mainnet.nonce())
    text = "Mainnet and testnet require different signature."
    assert mainnet.post_raw(json.loads(send.payload))["payload"] == {"status": "err", "response": text}
    assert classify(text) is E.WRONG_NETWORK


@pytest.mark.parametrize(
    "broken",
    [{"r": "0x0"}, {"r": "zz"}, {"s": "0x" + "f" * 64}, {"v": 29}, {"v": "27"}, {"r": None}, {"r": 5}],
    ids=str,
)
def test_a_malformed_signature_recovers_nobody(raw: Raw, broken: JsonObject) -> None:
    payload = payload_of(raw, action.noop())
    payload["signature"] |= broken
    text = "Unable to recover signer."
    assert raw.post_raw(payload)["payload"] == {"status": "err", "response": text}
    assert classify(text) is E.BAD_SIGNATURE


# Nonces and time


def test_a_nonce_is_spent_once(raw: Raw) -> None:
    nonce = raw.nonce()
    assert raw.do(action.noop(), nonce)["status"] == "ok"
    text = f"Invalid nonce: duplicate nonce {nonce}"
    act = action.order([limit("B", 104_000, "0.001")], raw.instruments)
    assert raw.do(act, nonce) == {"status": "err", "response": text}
    assert classify(text) is E.NONCE_DUPLICATE
    assert Raw(raw.venue, raw.venue.agent(raw.party)).do(act, nonce)["status"] == "ok"


def test_a_refused_action_spends_no_nonce_but_a_refused_order_does(raw: Raw) -> None:
    nonce = raw.nonce()
    raw.do(action.noop(), nonce, expires_after=1)
    bad = orders(wire(0, "104000", "0.00001"))
    assert "error" in statuses(raw.do(bad, nonce))[0]
    assert "duplicate" in raw.do(action.noop(), nonce)["response"]


def test_a_nonce_has_two_days_behind_it_and_one_before_it(raw: Raw) -> None:
    now_ms = int(raw.venue.now_ms())
    for nonce, word, code in (
        (now_ms - 2 * DAY_MS - 1000, r"Invalid nonce: nonce too low {} < (\d+)", E.NONCE_TOO_LOW),
        (now_ms + DAY_MS + 60_000, r"Invalid nonce: nonce too high {} > (\d+)", E.NONCE_TOO_HIGH),
    ):
        answer = raw.do(action.noop(), nonce)
        found = re.fullmatch(word.format(nonce), answer["response"])
        assert found
        edge = now_ms - 2 * DAY_MS if code is E.NONCE_TOO_LOW else now_ms + DAY_MS
        assert abs(int(found[1]) - edge) < 1000
        assert classify(answer["response"]) is code
    assert raw.do(action.noop(), now_ms - 2 * DAY_MS + 5000)["status"] == "ok"
    assert raw.do(action.noop(), now_ms + DAY_MS - 5000)["status"] == "ok"


def test_a_nonce_below_the_hundred_highest_is_too_low(raw: Raw) -> None:
    base = int(raw.venue.now_ms()) + 1000
    for number in range(100):
        raw.write(action.noop(), base + 2 * number)
    assert raw.do(action.noop(), base - 1)["response"] == f"Invalid nonce: nonce too low {base - 1} < {base}"
    assert raw.do(action.noop(), base + 1)["status"] == "ok"
    assert raw.do(action.noop(), base + 1)["response"] == f"Invalid nonce: duplicate nonce {base + 1}"


def test_the_nonce_inside_must_be_the_nonce_outside(raw: Raw) -> None:
    send = json.loads(account.usd_send(raw.signer, raw.party.address, 5, raw.nonce()).payload)
    answer = raw.post_raw({**send, "nonce": send["nonce"] + 1})["payload"]
    assert answer == {"status": "err", "response": "Nonce mismatch."}
    assert classify("Nonce mismatch.") is E.NONCE_MISMATCH
    assert raw.post_raw(send)["payload"]["status"] == "ok"


def test_an_action_expires(raw: Raw) -> None:
    act = action.order([limit("B", 104_000, "0.001")], raw.instruments)
    used = raw.venue.info(type="userRateLimit", user=raw.party.address)["nRequestsUsed"]
    assert raw.do(act, expires_after=int(raw.venue.now_ms()) - 1) == {
        "status": "err",
        "response": "Action already expired",
    }
    assert classify("Action already expired") is E.EXPIRED
    assert raw.venue.info(type="userRateLimit", user=raw.party.address)["nRequestsUsed"] == used + 5
    assert raw.do(act, expires_after=int(raw.venue.now_ms()) + 5000)["status"] == "ok"


# Cancel and modify

NOT_FOUND = "Order was never placed, already canceled, or filled. asset=0"


def finished_orders(raw: Raw) -> dict[str, tuple[int, Cloid]]:
    """A canceled one, a filled one, and one that never was."""
    [canceled] = raw.order(limit("B", 104_000, "0.01", cloid=Cloid(1)))
    raw.cancel("BTC", canceled["resting"]["oid"])
    [filled] = raw.order(limit("B", 105_010, "0.01", cloid=Cloid(2)))
    return {
        "canceled": (canceled["resting"]["oid"], Cloid(1)),
        "filled": (filled["filled"]["oid"], Cloid(2)),
        "unknown": (77, Cloid(3)),
    }


@pytest.mark.parametrize("which", ["canceled", "filled", "unknown"])
def test_a_finished_order_cannot_be_canceled(raw: Raw, which: str) -> None:
    oid, cloid = finished_orders(raw)[which]
    for act in (
        action.cancel([("BTC", oid)], raw.instruments),
        action.cancel([("BTC", oid)], raw.instruments, fast=True),
        action.cancel_by_cloid([("BTC", cloid)], raw.instruments),
    ):
        assert statuses(raw.do(act)) == [{"error": NOT_FOUND}]
    assert classify(NOT_FOUND) is E.ORDER_NOT_FOUND


def test_an_order_of_another_coin_or_account_cannot_be_canceled(raw: Raw) -> None:
    [placed] = raw.order(limit("B", 104_000, "0.01"))
    oid = placed["resting"]["oid"]
    other = Raw(raw.venue, raw.venue.account())
    assert other.cancel("BTC", oid) == {"error": NOT_FOUND}
    assert raw.cancel("ETH", oid) == {"error": NOT_FOUND.replace("asset=0", "asset=1")}
    assert raw.cancel("BTC", oid) == "success"


def test_a_fast_cancel_leaves_triggers_alone(raw: Raw) -> None:
    raw.order(limit("B", 105_010, "0.01"))
    [placed] = raw.order(trigger("A", 100_000, "0.01", Trigger(104_500, Tpsl.SL)))
    oid = placed["resting"]["oid"]
    assert statuses(raw.do(action.cancel([("BTC", oid)], raw.instruments, fast=True))) == [{"error": NOT_FOUND}]
    assert raw.cancel("BTC", oid) == "success"


CANNOT_MODIFY = "Cannot modify canceled or filled order"


@pytest.mark.parametrize("which", ["canceled", "filled", "unknown"])
@pytest.mark.parametrize("by_cloid", [False, True])
def test_a_finished_order_cannot_be_modified(raw: Raw, which: str, by_cloid: bool) -> None:
    key = finished_orders(raw)[which][by_cloid]
    new = limit("B", 103_000, "0.01")
    plain = action.modify(key, new, raw.instruments)
    batch = action.batch_modify([(key, new)], raw.instruments)
    assert raw.do(plain) == {"status": "err", "response": CANNOT_MODIFY}
    assert statuses(raw.do(batch)) == [{"error": CANNOT_MODIFY}]
    assert classify(CANNOT_MODIFY) is E.CANNOT_MODIFY
    assert raw.venue.info(type="openOrders", user=raw.party.address) == []
    assert raw.do(action.modify(key, new, raw.instruments, always_place=True))["status"] == "ok"
    assert len(raw.venue.info(type="openOrders", user=raw.party.address)) == 1


@pytest.mark.parametrize("by_cloid", [False, True])
def test_a_plain_modify_is_answered_without_the_new_oid(raw: Raw, by_cloid: bool) -> None:
    cloid = Cloid(5)
    [placed] = raw.order(limit("B", 104_000, "0.01", cloid=cloid))
    oid = placed["resting"]["oid"]
    new = limit("B", 104_001, "0.02", cloid=cloid)
    answer = raw.do(action.modify(cloid if by_cloid else oid, new, raw.instruments))
    assert answer == {"status": "ok", "response": {"type": "default"}}
    [order] = raw.venue.info(type="openOrders", user=raw.party.address)
    assert (order["limitPx"], order["sz"], order["cloid"]) == ("104001.0", "0.02", cloid.hex)
    assert order["oid"] > oid
    assert raw.venue.info(type="orderStatus", user=raw.party.address, oid=oid)["order"]["status"] == "canceled"
    assert (
        raw.venue.info(type="orderStatus", user=raw.party.address, oid=cloid.hex)["order"]["order"]["oid"]
        == order["oid"]
    )


def test_a_batch_modify_tells_the_new_oid(raw: Raw) -> None:
    [placed] = raw.order(limit("B", 104_000, "0.01"))
    answer = raw.do(action.batch_modify([(placed["resting"]["oid"], limit("B", 104_001, "0.01"))], raw.instruments))
    assert answer["response"]["type"] == "order"
    [order] = raw.venue.info(type="openOrders", user=raw.party.address)
    assert statuses(answer) == [{"resting": {"oid": order["oid"]}}]


def test_a_modify_turns_gtc_into_post_only(raw: Raw) -> None:
    [placed] = raw.order(limit("B", 104_000, "0.01"))
    raw.do(action.modify(placed["resting"]["oid"], limit("B", 104_001, "0.01"), raw.instruments))
    [order] = raw.venue.info(type="frontendOpenOrders", user=raw.party.address)
    assert order["tif"] == "Alo"


@pytest.mark.parametrize(
    "new",
    [
        limit("B", 105_010, "0.01"),
        limit("B", 104_001, "0.01", Tif.IOC),
        trigger("A", 100_000, "0.01", Trigger(104_500, Tpsl.SL)),
    ],
    ids=["crossing", "ioc", "trigger"],
)
def test_a_modify_into_what_it_may_not_become_leaves_the_old_order(raw: Raw, new: Order) -> None:
    [placed] = raw.order(limit("B", 104_000, "0.01"))
    oid, text = placed["resting"]["oid"], "Attempted to modify to invalid new order"
    assert raw.do(action.modify(oid, new, raw.instruments)) == {"status": "err", "response": text}
    assert statuses(raw.do(action.batch_modify([(oid, new)], raw.instruments))) == [{"error": text}]
    assert classify(text) is E.MODIFY_INVALID
    assert raw.venue.info(type="orderStatus", user=raw.party.address, oid=oid)["order"]["status"] == "open"


def test_a_trigger_order_cannot_be_modified_unless_always(raw: Raw) -> None:
    raw.order(limit("B", 105_010, "0.01"))
    [placed] = raw.order(trigger("A", 100_000, "0.01", Trigger(104_500, Tpsl.SL)))
    oid = placed["resting"]["oid"]
    new = trigger("A", 100_000, "0.01", Trigger(104_400, Tpsl.SL))
    assert raw.do(action.modify(oid, new, raw.instruments)) == {"status": "err", "response": CANNOT_MODIFY}
    assert raw.do(action.modify(oid, new, raw.instruments, always_place=True))["status"] == "ok"
    [order] = raw.venue.info(type="frontendOpenOrders", user=raw.party.address)
    assert order["triggerPx"] == "104400.0"


@pytest.mark.parametrize("batch", [False, True])
def test_a_modify_whose_new_order_is_refused_loses_the_old_one(raw: Raw, batch: bool) -> None:
    [placed] = raw.order(limit("B", 104_000, "0.01"))
    oid, new = placed["resting"]["oid"], limit("B", 104_000, "0.00001")
    text = "Error placing new order during modify: Order must have minimum value of $10. asset=0"
    if batch:
        assert statuses(raw.do(action.batch_modify([(oid, new)], raw.instruments))) == [{"error": text}]
    else:
        assert raw.do(action.modify(oid, new, raw.instruments)) == {"status": "err", "response": text}
    assert classify(text) is E.MODIFY_OLD_ORDER_GONE
    assert raw.venue.info(type="openOrders", user=raw.party.address) == []


def test_a_modify_that_cannot_be_meant_leaves_the_old_order(raw: Raw) -> None:
    [placed] = raw.order(limit("B", 104_000, "0.01"))
    oid = placed["resting"]["oid"]
    act = action.raw({"type": "modify", "oid": oid, "order": wire(0, "104000.5", "0.01")})
    text = "Price must be divisible by tick size. asset=0"
    assert raw.do(act) == {"status": "err", "response": text}
    assert raw.venue.info(type="orderStatus", user=raw.party.address, oid=oid)["order"]["status"] == "open"


# Limits


def test_a_thousand_open_orders_leave_no_room_for_triggers_and_reduce_only() -> None:
    raw = ready(debug=False)
    raw.order(limit("B", 105_010, "0.01"))
    for _ in range(10):
        raw.order(*[limit("B", 50_000, "0.0002")] * 100)
    text = "Too many open orders asset=0"
    stop = trigger("A", 100_000, "0.01", Trigger(104_500, Tpsl.SL))
    assert raw.order(stop) == [{"error": text}]
    assert last_status(raw) == "tooManyOpenOrdersRejected"
    assert raw.order(limit("A", 106_000, "0.01", reduce_only=True)) == [{"error": text}]
    assert classify(text) is classify_status("tooManyOpenOrdersRejected") is E.TOO_MANY_OPEN_ORDERS
    assert raw.order(limit("B", 50_000, "0.0002")) == [{"error": text}]


def test_volume_makes_room_for_more_open_orders_up_to_five_thousand() -> None:
    venue = quiet_venue(debug=False)
    raw = Raw(venue, venue.account(usdc=10_000_000))
    account = venue.exchange.ledger.accounts[raw.party.address]
    text = "Too many open orders asset=0"
    for _ in range(10):
        raw.order(*[limit("B", 50_000, "0.0002")] * 100)
    for volume_usd, room in ((5_000_000, 1), (15_000_000, 2), (10**12, 3_997)):
        account.volume = volume_usd * 10**6
        for first in range(0, room, 100):
            batch = min(100, room - first)
            assert all("resting" in status for status in raw.order(*[limit("B", 50_000, "0.0002")] * batch))
        assert raw.order(limit("B", 50_000, "0.0002")) == [{"error": text}]


def test_schedule_cancel_waits_for_volume_and_five_seconds() -> None:
    raw = ready(rules=Rules(cancel_volume_usd=1000))
    venue = raw.venue
    at_ms = int(venue.now_ms()) + 10_000
    text = "Cannot set scheduled cancel time until enough volume traded. Required: $1000. Traded: $0."
    for act in (action.schedule_cancel(at_ms), action.schedule_cancel()):
        assert raw.do(act) == {"status": "err", "response": text}
    assert classify(text) is E.VOLUME_TOO_LOW
    raw.order(limit("B", 105_010, "0.01"))
    early = "Scheduled cancel time too early, must be at least 5 seconds from now."
    assert raw.do(action.schedule_cancel(int(venue.now_ms()) + 4000)) == {"status": "err", "response": early}
    assert classify(early) is E.UNKNOWN  # no source has words for it: these are the venue's guess
    [placed] = raw.order(limit("B", 104_000, "0.01"))
    assert raw.do(action.schedule_cancel(at_ms))["status"] == "ok"
    venue.advance(at_ms - venue.now_ms() - 200)
    assert len(venue.info(type="openOrders", user=raw.party.address)) == 1
    venue.advance(400)
    found = venue.info(type="orderStatus", user=raw.party.address, oid=placed["resting"]["oid"])["order"]
    assert found["status"] == "scheduledCancel"
    assert at_ms <= found["statusTimestamp"] <= at_ms + 100


def test_a_schedule_is_taken_back(raw: Raw) -> None:
    raw.order(limit("B", 104_000, "0.01"))
    raw.do(action.schedule_cancel(int(raw.venue.now_ms()) + 6000))
    assert raw.do(action.schedule_cancel())["status"] == "ok"
    raw.venue.advance(10_000)
    assert len(raw.venue.info(type="openOrders", user=raw.party.address)) == 1


def test_ten_scheduled_cancels_a_day_are_enough() -> None:
    midnight_ms = 1_750_000_000_000 // DAY_MS * DAY_MS + DAY_MS
    raw = ready(start_ms=midnight_ms - 90_000)

    def schedule() -> Any:
        return raw.do(action.schedule_cancel(int(raw.venue.now_ms()) + 5200))

    for _ in range(10):
        assert schedule()["status"] == "ok"
        raw.venue.advance(6000)
    text = "Too many scheduled cancels triggered for the day. Limit is 10"
    assert schedule() == {"status": "err", "response": text}
    assert classify(text) is E.SCHEDULED_CANCEL_LIMIT
    raw.venue.advance(midnight_ms - raw.venue.now_ms())
    assert schedule()["status"] == "ok"


Act = Callable[[Raw], Any]
OF_POSITIONS: list[tuple[str, E, Act]] = [
    (
        "Cannot switch leverage type with open position.",
        E.LEVERAGE_TYPE_FIXED,
        lambda raw: action.update_leverage("BTC", 20, raw.instruments, is_cross=False),
    ),
    (
        "Cross position does not have sufficient margin available to decrease leverage.",
        E.INSUFFICIENT_MARGIN,
        lambda raw: action.update_leverage("BTC", 1, raw.instruments),
    ),
    (
        "Position does not use isolated margin.",
        E.NOT_ISOLATED,
        lambda raw: action.update_isolated_margin("BTC", 1_000_000, raw.instruments),
    ),
    (
        "Cross margin is not allowed for this asset.",
        E.CROSS_MARGIN,
        lambda raw: action.update_leverage("test:GOLD", 5, raw.instruments, is_cross=True),
    ),
    # No source has words for it: these are the venue's guess.
    ("Invalid leverage value", E.UNKNOWN, lambda raw: action.update_leverage("BTC", 41, raw.instruments)),
    ("No rewards to claim", E.NOTHING_TO_CLAIM, lambda raw: action.raw({"type": "claimRewards"})),
]


@pytest.mark.parametrize(
    ("text", "code", "make"), OF_POSITIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_leverage_and_margin_are_refused_in_the_venues_words(raw: Raw, text: str, code: E, make: Act) -> None:
    raw.order(limit("B", 105_010, "0.5"))
    assert raw.do(make(raw)) == {"status": "err", "response": text}
    assert classify(text) is code


def test_a_trigger_market_order_without_liquidity_says_so_in_its_status(raw: Raw) -> None:
    raw.order(limit("B", 105_010, "0.01"))
    [placed] = raw.order(trigger("A", 100_000, "0.01", Trigger(104_500, Tpsl.SL)))
    raw.venue.cross("BTC", "A", 1)
    raw.venue.set_mark("BTC", 104_400)
    found = raw.venue.info(type="orderStatus", user=raw.party.address, oid=placed["resting"]["oid"])["order"]
    assert found["status"] == "marketOrderNoLiquidityRejected"
    assert classify_status(found["status"]) is E.NO_LIQUIDITY


def test_a_child_of_a_refused_parent_is_refused_with_it(raw: Raw) -> None:
    found = raw.order(
        limit("B", 104_000, "0.00001"),
        trigger("A", 100_000, "0.00001", Trigger(103_000, Tpsl.SL)),
        grouping=Grouping.NORMAL_TPSL,
    )
    assert found == [{"error": "Order must have minimum value of $10. asset=0"}] * 2
    assert raw.venue.info(type="openOrders", user=raw.party.address) == []


def test_texts_stay_the_same_over_a_venue_with_traders() -> None:
    venue = Venue(stepped=True)
    raw = Raw(venue, venue.account())
    bid = venue.info(type="l2Book", coin="BTC")["levels"][0][0]["px"]
    [status] = raw.order(limit("A", bid.removesuffix(".0"), "0.001", Tif.ALO))
    assert re.fullmatch(r"Post only order would have immediately matched, bbo was \d+@\d+\. asset=0", status["error"])
