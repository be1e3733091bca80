"""The trader on a wire without sockets and a clock of the test's own."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fake_wire import INSTRUMENTS, KEY, START_MS, Desk, fast_config, run, settle
from order_news import CLOID, USER, fill, filled, order, refused, resting, row, status, statuses, update

from hlconn import (
    Book,
    Builder,
    Cloid,
    Closed,
    ConfigError,
    ErrorCode,
    Grouping,
    InvalidOrder,
    LinkDown,
    NotSent,
    Order,
    OutcomeUnknown,
    QueryFailed,
    Rejected,
    Side,
    Signer,
    Throttled,
    Tif,
    Tpsl,
    Trigger,
    UnknownCoin,
    account,
    action,
)
from hlconn.config import TradingConfig
from hlconn.trading.orders import ClockBehind, Contradicted, OrderState, OutcomeEvent, Reconciled
from hlconn.trading.trader import Ticket, Trader
from hlconn.types import Ack, CancelResult, Done, Fill

S = OrderState
ERR = {"type": "action", "payload": {"status": "err", "response": "Too many cumulative requests sent (10001 > 10000)"}}
DEFAULT = {"type": "action", "payload": {"status": "ok", "response": {"type": "default"}}}
VAULT = "0x" + "cd" * 20


# --- sending ---


def test_submit_writes_a_signed_post_before_it_returns(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            ticket = desk.trader.submit(Order("BTC", Side.BUY, 98450, "0.01", Tif.ALO))
            assert desk.wire.written[-1]["request"]["type"] == "action"
            sent = desk.wire.last
            assert sent["action"]["orders"][0] == {
                "a": 0, "b": True, "p": "98450", "s": "0.01", "r": False, "t": {"limit": {"tif": "Alo"}},
                "c": ticket.cloid.hex if ticket.cloid else None,
            }  # fmt: skip
            assert "builder" not in sent["action"]
            assert (sent["nonce"], sent["expiresAfter"]) == (ticket.nonce, START_MS + 15_000)
            assert (ticket.done, ticket.unknown, desk.nonces.unanswered) == (False, False, 1)
            assert [one.state for one in desk.trader.orders] == [S.PENDING]
            desk.answer(statuses(resting(11, ticket.cloid)))
            assert await ticket == Ack("BTC", ticket.cloid, 11, resting=True)
            assert (ticket.done, desk.nonces.unanswered) == (True, 0)
            assert "done" in repr(ticket)

    run(work())


def test_submit_works_from_inside_a_callback_of_the_trader(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:

            def hedge(fill: Fill) -> None:
                desk.trader.submit(Order("ETH", Side.SELL, 3000, "0.1", Tif.IOC))

            desk.trader.on_fill(hedge)
            desk.tell("user", {"fills": [fill(11, "1.0", 1, time=START_MS + 1)]})
            assert desk.wire.last["action"]["orders"][0]["a"] == 1

    run(work())


def test_the_expiry_the_builder_and_the_vault_are_what_was_said(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, vault=VAULT) as desk:
            builder = Builder("0x" + "ef" * 20, 10)
            desk.trader.submit(order("98450"), builder=builder, expires_after=START_MS + 77)
            sent = desk.wire.last
            assert sent["action"]["builder"] == {"b": builder.address, "f": 10}
            assert (sent["expiresAfter"], sent["vaultAddress"]) == (START_MS + 77, VAULT)
            ticket = desk.trader.submit(order("98450", cloid=None), expires_after=None)
            assert (desk.wire.last.get("expiresAfter"), ticket.expires_after) == (None, None)
            ticket.burn()
            noop = next(each for each in desk.wire.written if each["request"]["payload"]["action"]["type"] == "noop")
            assert noop["request"]["payload"]["nonce"] == ticket.nonce
            assert noop["request"]["payload"].get("vaultAddress") is None, "the venue takes no noop for a vault"

    run(work())


def test_a_group_of_take_profit_and_stop_loss_is_one_action(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            parent = Order("BTC", Side.BUY, 98450, "0.01")
            children = [
                Order("BTC", Side.SELL, px, "0.01", trigger=Trigger(px, kind), reduce_only=True)
                for px, kind in ((110000, Tpsl.TP), (90000, Tpsl.SL))
            ]
            ticket = desk.trader.submit([parent, *children], grouping=Grouping.NORMAL_TPSL)
            assert desk.wire.last["action"]["grouping"] == "normalTpsl"
            desk.answer(statuses(resting(11, None), "waitingForFill", "waitingForFill"))
            acks = await ticket
            assert [ack.waiting for ack in acks] == [None, "waitingForFill", "waitingForFill"]
            assert [one.state for one in desk.trader.orders] == [S.OPEN, S.WAITING, S.WAITING]
            position = Order("BTC", Side.SELL, 90000, 0, trigger=Trigger(90000, Tpsl.SL), reduce_only=True)
            desk.trader.submit([position], grouping=Grouping.POSITION_TPSL)
            assert desk.wire.last["action"]["orders"][0]["s"] == "0"

    run(work())


def test_many_are_split_and_each_has_its_own_outcome_in_order(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, TradingConfig(batch=2)) as desk:
            placing = asyncio.create_task(
                desk.trader.place_many([order(str(px), cloid=None) for px in range(100, 105)])
            )
            await settle()
            assert [len(each["request"]["payload"]["action"]["orders"]) for each in desk.wire.written] == [2, 2, 1]
            desk.answer(statuses(resting(3, None), {"error": "Order has zero size."}), at=-2)
            desk.answer(ERR, at=-3)
            desk.cut()
            found: list[Any] = await placing
            assert [type(each) for each in found] == [Rejected, Rejected, Ack, Rejected, OutcomeUnknown]
            assert found[3].index == 1
            assert len(desk.trader.unknown) == 1

    run(work())


def test_cancels_by_oid_and_by_cloid_go_in_actions_of_their_own_and_come_back_in_order(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            wanted: list[tuple[str, int | Cloid]] = [("BTC", 1), ("BTC", Cloid(2)), ("@107", 3)]
            canceling = asyncio.create_task(desk.trader.cancel_many(wanted))
            await settle()
            sent = [each["request"]["payload"]["action"] for each in desk.wire.written]
            assert sent[0]["cancels"] == [{"a": 0, "o": 1}, {"a": 10_107, "o": 3}]
            assert sent[1]["type"] == "cancelByCloid"
            desk.answer(statuses("success"))
            desk.answer(statuses("success", {"error": "MissingOrder"}), at=0)
            results: list[Any] = await canceling
            assert [(each.coin, each.oid, each.canceled) for each in results] == [
                ("BTC", 1, True), ("BTC", None, True), ("@107", 3, False),
            ]  # fmt: skip
            assert await desk.trader.cancel_many([]) == []

    run(work())


def test_a_modify_is_a_batch_of_one_and_keeps_the_cloid(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            placed = desk.trader.submit(order())
            desk.answer(statuses(resting(11)))
            ticket = desk.trader.submit_modify(11, order("101", cloid=None))
            sent = desk.wire.last["action"]
            assert (sent["type"], len(sent["modifies"]), "a" in sent) == ("batchModify", 1, False)
            assert (sent["modifies"][0]["oid"], sent["modifies"][0]["order"]["c"]) == (11, CLOID.hex)
            desk.answer(statuses(resting(12)))
            assert (await ticket).oid == 12
            desk.trader.submit_modify(CLOID, order("102", tif=Tif.IOC), always_place=True)
            assert desk.wire.last["action"]["modifies"][0]["oid"] == CLOID.hex
            assert desk.wire.last["action"]["a"] is True
            tracked = desk.trader.order(11)
            assert tracked is desk.trader.order(CLOID)
            assert (await placed).oid == 11

    run(work())


def test_what_was_prepared_is_sent_once_and_what_is_discarded_never(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            prepared = desk.trader.prepare(order())
            assert desk.wire.written == []
            assert desk.trader.orders == ()
            assert prepared.payload == prepared.signed.payload
            ticket = desk.trader.send(prepared)
            assert desk.wire.last["nonce"] == prepared.signed.nonce == ticket.nonce
            with pytest.raises(NotSent, match="twice"):
                desk.trader.send(prepared)
            canceled = desk.trader.prepare_cancel("BTC", CLOID)
            desk.trader.discard(canceled)
            with pytest.raises(NotSent, match="discarded"):
                desk.trader.send(canceled)
            with pytest.raises(InvalidOrder, match="is taken"):
                desk.trader.prepare(order())
            assert desk.nonces.unanswered == 1

    run(work())


def test_what_the_account_signed_is_sent_and_cannot_be_burned_with_our_key(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            owner = Signer("02" * 32, "testnet")
            signed = account.approve_agent(owner, desk.signer.address, nonce=START_MS)
            ticket = desk.trader.send(signed)
            with pytest.raises(NotSent, match="on its way"):
                desk.trader.send(signed)
            with pytest.raises(NotSent, match="key that signed"):
                ticket.burn()
            desk.answer(DEFAULT)
            assert await ticket == Done("approveAgent")
            with pytest.raises(ConfigError, match="prepare"):
                desk.trader.send(owner.sign(action.order([order()], INSTRUMENTS), 5))

    run(work())


# --- may my order be live? each method, at each step ---

Method = Callable[[Trader], Awaitable[Any]]
LIVE_BOOK = Book("BTC")
LIVE_BOOK.apply(
    b'{"channel":"l2Book","data":{"coin":"BTC","time":1,"levels":[[{"px":"99.0","sz":"1","n":1}],'
    b'[{"px":"101.0","sz":"1","n":1}]]}}'
)
NEW = order("101", cloid=None)
METHODS: dict[str, Method] = {
    "submit": lambda trader: await_(trader.submit(order())),
    "place": lambda trader: trader.place(order()),
    "place_many": lambda trader: first(trader.place_many([order()])),
    "modify by oid": lambda trader: trader.modify(5, NEW),
    "modify by cloid": lambda trader: trader.modify(Cloid(5), NEW),
    "modify_many": lambda trader: first(trader.modify_many([(5, NEW)])),
    "modify_many by cloid": lambda trader: first(trader.modify_many([(Cloid(5), NEW)])),
    "submit_modify": lambda trader: await_(trader.submit_modify(5, NEW)),
    "submit_cancel": lambda trader: await_(trader.submit_cancel("BTC", 5)),
    "prepare_cancel and send": lambda trader: await_(trader.send(trader.prepare_cancel("BTC", 5))),
    "cancel by oid": lambda trader: trader.cancel("BTC", 5),
    "cancel by cloid": lambda trader: trader.cancel("BTC", Cloid(5)),
    "cancel_many": lambda trader: first(trader.cancel_many([("BTC", 5)])),
    "market": lambda trader: trader.market("BTC", Side.BUY, 1),
    "close": lambda trader: trader.close("ETH"),
    "set_leverage": lambda trader: trader.set_leverage("BTC", 5),
    "adjust_isolated_margin": lambda trader: trader.adjust_isolated_margin("BTC", "1.5"),
    "schedule_cancel": lambda trader: trader.schedule_cancel(START_MS + 60_000),
    "action": lambda trader: trader.action({"type": "setReferrer", "code": "X"}),
    "prepare and send": lambda trader: await_(trader.send(trader.prepare(order()))),
}
PLACES = {"submit", "place", "place_many", "market", "close", "prepare and send"}


def breaks(message: object) -> None:
    raise RuntimeError("the transport is broken")


async def await_(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def first(many: Awaitable[list[Any]]) -> Any:
    """The only outcome, raised when it is an error."""
    (one,) = await many
    if isinstance(one, Exception):
        raise one
    return one


def desk_with_a_position(folder: Path, config: TradingConfig | None = None) -> Desk:
    eth = Book("ETH")
    eth.apply(
        b'{"channel":"l2Book","data":{"coin":"ETH","time":1,"levels":[[{"px":"99.0","sz":"1","n":1}],'
        b'[{"px":"101.0","sz":"1","n":1}]]}}'
    )
    desk = Desk(folder, config or fast_config(), book_of={"BTC": LIVE_BOOK, "ETH": eth}.get)
    position = {"coin": "ETH", "szi": "-2.5", "entryPx": "100.0"}
    desk.wire.info["clearinghouseState"] = lambda _: {
        "assetPositions": [{"type": "oneWay", "position": position}],
        "time": desk.wire.venue_ms,
    }
    return desk


def written_of(desk: Desk) -> list[str]:
    return [each["request"]["payload"]["action"]["type"] for each in desk.wire.written]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", ["nonce", "key", "closed", "no way to the venue"])
def test_not_sent_is_said_when_nothing_left_this_machine(step: str, method: str, tmp_path: Path) -> None:
    expected = {"nonce": Throttled, "key": Closed, "closed": Closed, "no way to the venue": LinkDown}[step]

    async def work() -> None:
        async with desk_with_a_position(tmp_path) as desk:
            if step == "nonce":
                for _ in range(100):
                    desk.nonces.take()
            elif step == "key":
                desk.signer.close()
            elif step == "closed":
                await desk.trader.end()
            else:
                desk.cut()
            with pytest.raises(expected):
                await METHODS[method](desk.trader)
            assert desk.wire.written == []
            assert (step == "no way to the venue") is bool(desk.wire.posted)
            if method in PLACES:
                assert desk.trader.orders == ()
            assert desk.trader.unknown == ()
            assert desk.nonces.unanswered == (100 if step == "nonce" else 0)

    run(work())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["link", "http 200", "http 429"])
def test_refused_is_said_when_the_venue_says_no(way: str, method: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with desk_with_a_position(tmp_path) as desk:
            if way == "link":
                desk.wire.on_write = lambda _: asyncio.get_running_loop().call_soon(desk.answer, ERR)
            else:
                desk.cut()
                desk.wire.http = lambda _: (200, ERR["payload"]) if way == "http 200" else (429, b"null")
            with pytest.raises(Rejected) as raised:
                await METHODS[method](desk.trader)
            code = ErrorCode.RATE_LIMITED if way == "http 429" else ErrorCode.ADDRESS_LIMITED
            assert raised.value.code is code
            if method in PLACES:
                assert desk.trader.orders == ()
                assert desk.trader.ended_orders[0].state is S.REJECTED
            assert desk.trader.unknown == ()
            assert desk.nonces.unanswered == 0

    run(work())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "step",
    [
        "link cut",
        "no answer",
        "answer unreadable",
        "answer without a response",
        "writing raises",
        "server error",
        "http 502",
        "http cut",
        "http empty",
    ],
)
def test_unknown_is_said_when_it_left_and_nobody_knows(step: str, method: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with desk_with_a_position(tmp_path) as desk:
            if step.startswith("http"):
                desk.cut()
                reply: Any = {"http 502": (502, b"<html>"), "http empty": (200, b""), "http cut": OSError("reset")}[
                    step
                ]
                desk.wire.http = lambda _: reply
            elif step == "writing raises":
                desk.wire.on_write = breaks
            calling = asyncio.create_task(await_(METHODS[method](desk.trader)))
            await settle()
            if step == "link cut":
                desk.cut()
            elif step == "no answer":
                await desk.wire.step(6)
            elif step == "answer unreadable":
                desk.answer({"type": "action", "payload": {"status": "ok"}})
            elif step == "answer without a response":
                desk.tell("post", {"id": desk.wire.written[-1]["id"]})
            elif step == "server error":
                desk.answer({"type": "error", "payload": "500 Internal Server Error"})
            with pytest.raises(OutcomeUnknown) as raised:
                await calling
            (unknown,) = desk.trader.unknown
            assert raised.value.nonce == unknown.nonce
            if method in PLACES:
                (one,) = desk.trader.orders
                assert (one.state, one.in_doubt, one.may_be_live) == (S.PENDING, True, True)
                assert one.cloid is not None
                assert raised.value.cloids == (one.cloid.hex,)
            assert desk.nonces.unanswered == 1, "its nonce counts until it is proven"

    run(work())


@pytest.mark.parametrize(
    ("expected", "call"),
    [
        (UnknownCoin, lambda trader: trader.submit(Order("BCT", Side.BUY, 1, 1))),
        (InvalidOrder, lambda trader: trader.submit(Order("BTC", Side.BUY, "100.123456", 1))),
        (InvalidOrder, lambda trader: trader.submit(Order("OLD", Side.BUY, 1, 1))),
        (InvalidOrder, lambda trader: trader.submit([])),
        (InvalidOrder, lambda trader: trader.submit([order(), order()])),
        (UnknownCoin, lambda trader: trader.submit_cancel("BCT", 1)),
        (InvalidOrder, lambda trader: trader.submit_cancel("BTC", -1)),
        (UnknownCoin, lambda trader: trader.submit_modify(1, Order("BCT", Side.BUY, 1, 1))),
        (InvalidOrder, lambda trader: trader.submit_modify(1, order("100.123456"))),
        (InvalidOrder, lambda trader: trader.submit_modify(1, order(tif=Tif.IOC))),
        (InvalidOrder, lambda trader: trader.submit_modify(1, order(trigger=Trigger(1, Tpsl.SL)))),
        (ConfigError, lambda trader: trader._outbox.sign(action.noop(), (), True, None, vault="nonsense")),
    ],
)
def test_what_cannot_be_right_is_refused_before_it_is_signed(
    expected: type[Exception], call: Callable[[Trader], object], tmp_path: Path
) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            with pytest.raises(expected):
                call(desk.trader)
            assert desk.wire.written == desk.wire.posted == []
            assert (desk.trader.orders, desk.nonces.unanswered) == ((), 0)

    run(work())


def test_awaited_methods_refuse_what_cannot_be_right(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            trader = desk.trader
            with pytest.raises(InvalidOrder, match="same cloid"):
                await trader.place_many([order(), order()])
            with pytest.raises(InvalidOrder, match="at most 6 decimals"):
                await trader.adjust_isolated_margin("BTC", "0.0000001")
            with pytest.raises(InvalidOrder, match="decimal number"):
                await trader.adjust_isolated_margin("BTC", "much")
            with pytest.raises(ConfigError, match="submit"):
                await trader.action({"type": "order"})
            desk.trader.submit(order())
            for wrong in (order("101", cloid=Cloid(9)), Order("ETH", Side.BUY, 1, 1)):
                with pytest.raises(InvalidOrder):
                    await trader.modify(CLOID, wrong)
            with pytest.raises(InvalidOrder, match="another order"):
                await trader.modify(5, order("101"))
            assert len(desk.wire.written) == 1

    run(work())


# --- prices from the book ---


@pytest.mark.parametrize(("side", "px"), [(Side.BUY, "105"), (Side.SELL, "95")])
def test_a_market_order_is_an_ioc_order_no_worse_than_the_slippage(side: Side, px: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with desk_with_a_position(tmp_path) as desk:
            trading = asyncio.create_task(desk.trader.market("BTC", side, "0.5"))
            await settle()
            (sent,) = desk.wire.last["action"]["orders"]
            assert (sent["p"], sent["s"], sent["r"], sent["t"]) == (px, "0.5", False, {"limit": {"tif": "Ioc"}})
            desk.answer(statuses(filled(11, "0.5", "100.0")))
            assert (await trading).filled_sz == Decimal("0.5")

    run(work())


def test_close_sends_the_whole_position_reduce_only_and_nothing_when_flat(tmp_path: Path) -> None:
    async def work() -> None:
        async with desk_with_a_position(tmp_path) as desk:
            closing = asyncio.create_task(desk.trader.close("ETH"))
            await settle()
            (sent,) = desk.wire.last["action"]["orders"]
            assert (sent["a"], sent["b"], sent["s"], sent["r"]) == (1, True, "2.5", True)
            desk.answer(statuses(filled(11, "2.5", "100.0")))
            desk.tell("userFills", {"user": USER, "fills": [fill(11, "2.5", 1, time=START_MS + 5, coin="ETH")]})
            assert isinstance(await closing, Ack)
            assert desk.trader.positions == {}
            assert await desk.trader.close("ETH") is None

    run(work())


@pytest.mark.parametrize("book", ["none", "stale", "one-sided"])
def test_no_price_is_made_of_a_book_that_is_not_live(book: str, tmp_path: Path) -> None:
    books = {"stale": Book("BTC"), "one-sided": Book("BTC")}
    books["one-sided"].apply(
        b'{"channel":"l2Book","data":{"coin":"BTC","time":1,"levels":[[],[{"px":"101.0","sz":"1","n":1}]]}}'
    )

    async def work() -> None:
        async with Desk(tmp_path, book_of=lambda coin: books.get(book)) as desk:
            with pytest.raises(NotSent, match=r"book"):
                await desk.trader.market("BTC", Side.BUY, 1)
            with pytest.raises(InvalidOrder, match="slippage"):
                await desk.trader.market("BTC", Side.BUY, 1, slippage=5)
            with pytest.raises(UnknownCoin):
                await desk.trader.market("BCT", Side.BUY, 1)
            assert desk.wire.written == []

    run(work())


# --- proof ---


def test_a_lost_order_is_settled_by_its_expiry_and_a_query_after_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            ticket = desk.trader.submit(order())
            desk.cut()
            with pytest.raises(OutcomeUnknown):
                await ticket
            settled = asyncio.create_task(ticket.settled())
            await desk.wire.step(10)
            assert not settled.done()
            assert desk.trader.orders[0].may_be_live
            desk.wire.venue_ms -= 60_000  # the venue's clock decides, not ours
            await desk.wire.step(20)
            assert not settled.done()
            desk.wire.venue_ms += 60_000
            await desk.wire.step(10)
            outcome = await settled
            assert isinstance(outcome, Rejected)
            assert (outcome.code, outcome.cloid) == (ErrorCode.EXPIRED, CLOID.hex)
            assert ticket.done
            assert (desk.trader.orders, desk.trader.unknown, desk.nonces.unanswered) == ((), (), 0)
            with pytest.raises(Rejected):
                await ticket
            asked = len(desk.wire.asked)
            await desk.wire.step(100)
            assert len(desk.wire.asked) == asked, "nothing is open, nothing is asked"

    run(work())


def test_a_lost_order_that_rests_is_found_by_the_comparison_after_the_reconnect(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            ticket = desk.trader.submit(order())
            desk.cut()
            desk.wire.info["frontendOpenOrders"] = lambda _: [row(11, order(), "8")]
            desk.connect()
            await desk.wire.step()
            outcome = await ticket.settled()
            assert outcome == Ack("BTC", CLOID, 11, resting=True, filled_sz=Decimal(2))
            assert desk.wire.asked[0]["type"] == "frontendOpenOrders"
            assert await ticket == outcome

    run(work())


def test_what_is_in_flight_is_never_sent_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            desk.trader.submit(order(), expires_after=None)
            desk.cut()
            desk.connect()
            await desk.wire.step(600)
            assert written_of(desk) == ["order"]
            assert desk.wire.posted == []
            assert desk.trader.orders[0].in_doubt

    run(work())


@pytest.mark.parametrize("noop", ["accepted", "duplicate", "duplicate, and the order rests"])
def test_burn_spends_the_nonce_and_races_a_cancel(noop: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            ticket = desk.trader.submit(order(), expires_after=None)
            desk.cut()
            desk.connect()
            await desk.wire.step()
            assert ticket.unknown
            ticket.burn()
            assert written_of(desk) == ["order", "noop", "cancelByCloid"]
            assert desk.wire.written[1]["request"]["payload"]["nonce"] == ticket.nonce
            desk.answer(statuses({"error": "MissingOrder"}))
            if noop == "accepted":
                desk.answer(DEFAULT, at=1)
            else:
                if "rests" in noop:
                    desk.wire.info["orderStatus"] = lambda _: status(11, order(), "open")
                desk.answer(refused(f"Invalid nonce: duplicate nonce {ticket.nonce}"), at=1)
                await desk.wire.step(1)
            outcome = await ticket.settled()
            if "rests" in noop:
                assert isinstance(outcome, Ack)
                assert desk.trader.orders[0].oid == 11
            else:
                assert isinstance(outcome, Rejected)
                assert outcome.code is ErrorCode.NONCE_DUPLICATE
                assert desk.trader.orders == ()
            ticket.burn()
            assert len(desk.wire.written) == 3, "it is over"

    run(work())


def test_a_noop_is_repeated_until_it_is_answered(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            ticket = desk.trader.submit(order(), expires_after=None)
            desk.cut()
            ticket.burn()
            await desk.wire.step(1)
            assert [each["action"]["type"] for each in desk.wire.posted][:2] == ["noop", "cancelByCloid"]
            assert ticket.unknown
            desk.connect()
            await desk.wire.step(10)
            assert "noop" in written_of(desk)
            desk.answer(DEFAULT, at=len(written_of(desk)) - 1 - written_of(desk)[::-1].index("noop"))
            assert isinstance(await ticket.settled(), Rejected)

    run(work())


def test_a_refusal_as_expired_before_our_clock_says_so_names_how_far_it_is_behind(tmp_path: Path, caplog: Any) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config(expires_after_s=15.0)) as desk:
            desk.wire.venue_ms += 20_000  # ours stays
            await desk.trader.reconcile()
            events = desk.trader.events()
            await desk.wire.step(1)
            tickets = []
            for _ in range(2):
                tickets.append(desk.trader.submit(order(cloid=None)))
                await desk.wire.step(0.1)
                desk.answer(refused("Action already expired"))
            assert [(await error_of(ticket)).code for ticket in tickets] == [ErrorCode.EXPIRED] * 2
            told = [event for event in events._events if isinstance(event, ClockBehind)]
            assert told == [ClockBehind(14_900, 20_000)], "once in a while"
            assert "behind by 14900 ms or more (probably by 20000 ms): set this machine's clock" in caplog.text
            await desk.wire.step(10)
            desk.trader.submit(order(cloid=None))
            desk.answer(refused("Action already expired"))
            assert [type(event) for event in events._events].count(ClockBehind) == 2

    run(work())


def test_a_late_action_that_the_venue_refuses_as_expired_is_no_fault_of_the_clock(tmp_path: Path, caplog: Any) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config(expires_after_s=3.0)) as desk:
            ticket = desk.trader.submit(order())
            await desk.wire.step(3.0)
            desk.answer(refused("Action already expired"))
            assert (await error_of(ticket)).code is ErrorCode.EXPIRED
            assert "clock" not in caplog.text

    run(work())


async def error_of(ticket: Ticket) -> Rejected:
    with pytest.raises(Rejected) as caught:
        await ticket
    return caught.value


def test_too_many_pending_posts_is_a_refusal(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            ticket = desk.trader.submit(order())
            desk.tell("error", f"too many pending post requests id={desk.wire.written[-1]['id']}")
            with pytest.raises(Rejected) as raised:
                await ticket
            assert raised.value.code is ErrorCode.TOO_MANY_PENDING

    run(work())


def test_an_answer_that_comes_late_is_still_an_answer(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            ticket = desk.trader.submit(order())
            await desk.wire.step(6)
            assert ticket.unknown
            desk.answer(statuses(resting(11)))
            assert await ticket == Ack("BTC", CLOID, 11, resting=True)

    run(work())


def test_what_the_wire_gives_up_is_in_doubt_alone_and_says_why(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            first, second = desk.trader.submit(order()), desk.trader.submit(order(cloid=Cloid(2)))
            desk.wire.lose(desk.wire.written[0]["id"], "no answer in time")
            assert (first.unknown, second.unknown) == (True, False)
            (unknown,) = desk.trader.unknown
            assert (unknown.nonce, unknown.reason) == (first.nonce, "no answer in time")
            desk.trader.on_post_lost(desk.wire.written[0]["id"], "twice")
            desk.trader.on_post_lost(999, "nobody's")
            assert desk.trader.unknown == (unknown,)
            desk.cut("reset")
            assert [each.reason for each in desk.trader.unknown] == ["no answer in time", "the link went down: reset"]
            desk.answer(statuses(resting(12)))
            assert second.unknown, "an old link's answers cannot come: this one is another post's"

    run(work())


# --- what is known ---


def test_after_a_reconnect_everything_is_compared_once_all_streams_are_acknowledged(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            desk.trader.submit(order())
            desk.answer(statuses(resting(11)))
            desk.cut()
            desk.wire.info["orderStatus"] = lambda _: status(11, order(), "filled", "0.0")
            missed = fill(11, "10.0", 1, time=START_MS + 1)
            desk.wire.info["userFillsByTime"] = lambda _: [missed]
            desk.wire.info["clearinghouseState"] = lambda _: {
                "assetPositions": [{"position": {"coin": "BTC", "szi": "10.0", "entryPx": "100.0"}}],
                "time": desk.wire.venue_ms,
            }
            fills: list[Any] = []
            desk.trader.on_fill(fills.append)
            streams = desk.trader.subscriptions
            assert {each["user"] for each in streams} == {USER}
            desk.wire.live = True
            for each in streams[:-1]:
                desk.trader.on_subscribed(each)
            await desk.wire.step(5)
            assert desk.wire.asked == []
            desk.trader.on_subscribed(streams[-1])
            await desk.wire.step(5)
            kinds = [each["type"] for each in desk.wire.asked]
            assert kinds[:4] == [
                "frontendOpenOrders",
                "clearinghouseState",
                "userFillsByTime",
                "spotClearinghouseState",
            ]
            found = desk.trader.order(11)
            assert found is not None
            assert (found.state, [each.tid for each in fills]) == (S.FILLED, [1])
            assert desk.trader.positions["BTC"].szi == 10
            desk.tell("userFills", {"isSnapshot": True, "user": USER, "fills": [missed]})
            assert len(fills) == 1

    run(work())


def test_positions_of_builder_dexs_and_spot_balances_are_kept_too(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config(dexs=("", "xyz"))) as desk:
            desk.tell(
                "user",
                {
                    "fills": [
                        fill(1, "2.0", 1, coin="xyz:TSLA", time=START_MS + 1),
                        fill(2, "3.0", 2, coin="@107", px="10.0", time=START_MS + 1, feeToken="HYPE"),
                    ]
                },
            )
            assert desk.trader.positions["xyz:TSLA"].szi == 2
            assert desk.trader.balances == {"HYPE": Decimal("2.99"), "USDC": Decimal(-30)}

    run(work())


def test_a_difference_of_positions_is_asked_twice_and_then_an_event(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "hlconn.trading")

    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            desk.wire.info["clearinghouseState"] = lambda _: {
                "assetPositions": [{"position": {"coin": "BTC", "szi": "1.0"}}],
                "time": desk.wire.venue_ms,
            }
            await desk.trader.reconcile()
            assert desk.trader.positions == {}
            await desk.trader.reconcile()
            assert desk.trader.positions["BTC"].szi == 1
            assert "the position in BTC is not what fills add up to" in caplog.text

    run(work())


def test_what_is_compared_is_compared_again_after_a_while(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, TradingConfig(reconcile_every_s=60)) as desk:
            await desk.wire.step(59)
            assert desk.wire.asked == []
            await desk.wire.step(2)
            first_round = len(desk.wire.asked)
            assert first_round > 0
            await desk.wire.step(60)
            assert len(desk.wire.asked) == 2 * first_round

    run(work())


def test_a_venue_that_cannot_be_asked_is_asked_again_with_growing_pauses(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            ticket = desk.trader.submit(order())
            desk.wire.info_up = False
            desk.cut()
            await desk.wire.step(30)
            assert 5 < len(desk.wire.asked) < 20
            desk.wire.info_up = True
            desk.wire.info["orderStatus"] = lambda _: status(11, order(), "canceled")
            await desk.wire.step(6)
            assert isinstance(await ticket.settled(), Ack)

    run(work())


def test_a_message_that_cannot_be_read_is_logged_and_everything_is_compared(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            for channel, data in (("orderUpdates", [{}]), ("userFills", 7), ("user", []), ("post", {})):
                desk.tell(channel, data)
            desk.trader.on_message("orderUpdates", b"no JSON")
            assert desk.failures == []
            await desk.wire.step()
            assert [each["type"] for each in desk.wire.asked][:1] == ["frontendOpenOrders"]

    run(work())


def test_a_bug_in_what_proves_ends_the_session_instead_of_being_silent(tmp_path: Path, caplog: Any) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            desk.trader._reconciler._query = broken  # type: ignore[method-assign]
            desk.cut()
            desk.connect()
            await desk.wire.step(1)
            assert [type(each) for each in desk.failures] == [ZeroDivisionError]
            assert "can prove nothing" in caplog.text

    async def broken(kind: str, **fields: Any) -> Any:
        raise ZeroDivisionError(kind)

    run(work())


def test_missed_fills_are_asked_for_since_the_last_look_whatever_came_meanwhile(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            looked_ms = desk.wire.venue_ms
            await desk.wire.step(300)
            desk.tell("userFills", {"user": USER, "fills": [fill(11, "1.0", 1, time=desk.wire.venue_ms)]})
            desk.wire.info["userFillsByTime"] = lambda query: [
                row for row in [fill(11, "2.0", 2, time=looked_ms + 1000)] if row["time"] >= query["startTime"]
            ]
            await desk.trader.reconcile()
            assert sorted(each.tid for each in desk.trader.fills) == [1, 2]

    run(work())


def test_fills_of_somebody_else_are_not_ours(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            desk.tell("userFills", {"user": "0x" + "00" * 20, "fills": [fill(1, "1.0", 1, time=START_MS + 1)]})
            assert desk.trader.fills == ()
            desk.tell("user", {"nonUserCancel": [{"coin": "BTC", "oid": 1}]})
            desk.tell("user", {"funding": {}})
            desk.tell("post", {"id": 999, "response": {}})

    run(work())


# --- callbacks and events ---


def test_a_callback_that_raises_is_not_called_again_and_the_others_go_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            seen: list[str] = []

            def raises(order: object) -> None:
                seen.append("raises")
                raise ZeroDivisionError("mine")

            desk.trader.on_order(raises)
            stop = desk.trader.on_order(lambda order: seen.append(order.state.name))
            desk.tell("orderUpdates", [update(11, order(), "open")])
            desk.tell("orderUpdates", [update(11, order(), "open", "5")])
            stop()
            desk.tell("orderUpdates", [update(11, order(), "filled", "0.0")])
            assert seen == ["raises", "OPEN", "OPEN"]
            assert [type(each) for each in desk.failures] == [ZeroDivisionError]
            found = desk.trader.order(11)
            assert found is not None
            assert found.state is S.FILLED

    run(work())


def test_events_come_in_order_and_end_with_the_session(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            kinds: list[str] = []
            seen = kinds.append

            async def read() -> None:
                async for event in desk.trader.events():
                    seen(type(event).__name__)

            reading = asyncio.create_task(read())
            await settle()
            desk.trader.submit(order())
            desk.answer(statuses(resting(11)))
            desk.tell("userFills", {"user": USER, "fills": [fill(11, "1.0", 1, time=START_MS + 1)]})
            await settle()
            assert kinds == ["OutcomeEvent", "OrderEvent", "FillEvent", "OrderEvent"]
            await desk.trader.end()
            await reading

    run(work())


def test_events_begin_when_they_are_asked_for_and_end_with_their_reader(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            events = desk.trader.events()
            desk.tell("orderUpdates", [update(1, order(cloid=None), "open")])
            event: Any = await anext(events)
            assert event.order.oid == 1
            for _ in range(5):
                desk.trader.events()
            assert len(desk.trader._queues) <= 2, "nobody reads those"
            await events.aclose()
            assert [each async for each in events] == []

    run(work())


def test_a_slow_reader_of_events_loses_the_oldest_and_the_log_says_so(tmp_path: Path, caplog: Any) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            events = desk.trader.events(maxsize=2)
            reading = asyncio.ensure_future(anext(events))
            await settle()
            for oid in (1, 2, 3):
                desk.tell("orderUpdates", [update(oid, order(cloid=None), "open")])
            event: Any = await reading
            assert event.order.oid == 2
            await events.aclose()
            assert "too slow" in caplog.text

    run(work())


def test_the_end_of_the_session_tells_everybody_who_waits_that_it_is_unknown(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            ticket = desk.trader.submit(order())
            tasks = [asyncio.create_task(each) for each in (await_(ticket), ticket.settled())]
            await settle()
            await desk.trader.end()
            for task in tasks:
                with pytest.raises(OutcomeUnknown):
                    await task
            with pytest.raises(OutcomeUnknown):
                await ticket.settled()
            with pytest.raises(Closed):
                desk.trader.submit(order(cloid=None))
            with pytest.raises(Closed):
                ticket.burn()

    run(work())


# --- cancel_all ---


def test_cancel_all_cancels_what_is_open_and_looks_until_nothing_is_left(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            book = {11: order(), 12: order("99", cloid=None), 13: order("3000", cloid=Cloid(13))}
            desk.wire.info["frontendOpenOrders"] = lambda _: [row(oid, one) for oid, one in book.items()]

            def venue(message: dict[str, Any]) -> None:
                for cancel in message["request"]["payload"]["action"]["cancels"]:
                    del book[cancel["o"]]
                entries = ["success"] * len(message["request"]["payload"]["action"]["cancels"])
                asyncio.get_running_loop().call_soon(desk.answer, statuses(*entries))

            desk.wire.on_write = venue
            canceling = asyncio.create_task(desk.trader.cancel_all())
            await desk.wire.step(1)
            results = await canceling
            assert [each.canceled for each in results if isinstance(each, CancelResult)] == [True] * 3
            assert desk.trader.orders == ()
            assert [each["type"] for each in desk.wire.asked].count("frontendOpenOrders") >= 2

    run(work())


def test_cancel_all_cancels_at_its_first_look_what_is_listed_though_it_had_ended(tmp_path: Path, caplog: Any) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            ticket = desk.trader.submit(order())
            desk.answer(statuses(resting(11)))
            desk.tell("orderUpdates", [update(11, order(), "canceled")])
            assert (ticket.done, desk.trader.orders) == (True, ())
            listed = [row(11, order())]
            desk.wire.info["frontendOpenOrders"] = lambda _: listed
            canceling = asyncio.create_task(desk.trader.cancel_all())
            await settle()
            assert [each["type"] for each in desk.wire.asked].count("frontendOpenOrders") == 1
            assert desk.wire.last["action"]["cancels"] == [{"a": 0, "o": 11}]
            desk.answer(statuses("success"))
            events = desk.trader.events()
            await desk.wire.step(0.3)
            assert [record for record in caplog.records if "lists an order in BTC as open" in record.message]
            assert await anext(events) == Contradicted(desk.trader.ended_orders[0], 11)
            listed.clear()
            await desk.wire.step(5)
            desk.answer(statuses({"error": "Order was never placed, already canceled, or filled."}))
            await desk.wire.step(5)
            await canceling

    run(work())


def test_cancel_all_burns_what_is_in_doubt_and_does_not_return_before_it_is_proven(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            ticket = desk.trader.submit(order(), expires_after=None)
            desk.cut()
            desk.connect()
            await desk.wire.step()
            other = desk.trader.submit(Order("ETH", Side.BUY, 3000, 1))
            canceling = asyncio.create_task(desk.trader.cancel_all("BTC"))
            await desk.wire.step(2)
            assert "noop" in written_of(desk)
            assert not canceling.done()
            desk.answer(DEFAULT, at=written_of(desk).index("noop"))
            await desk.wire.step(10)
            await canceling
            assert isinstance(await ticket.settled(), Rejected)
            assert not other.done, "another coin"

    run(work())


def test_cancel_all_says_what_may_still_be_live_when_its_time_is_over(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config(settle_timeout_s=20)) as desk:
            desk.wire.info["frontendOpenOrders"] = lambda _: [row(11, order())]
            canceling = asyncio.create_task(desk.trader.cancel_all())
            await desk.wire.step(40)
            with pytest.raises(OutcomeUnknown, match="listed as open") as raised:
                await canceling
            assert raised.value.cloids == (CLOID.hex,)
            desk.wire.info_up = False
            canceling = asyncio.create_task(desk.trader.cancel_all("ETH"))
            await desk.wire.step(40)
            with pytest.raises(OutcomeUnknown, match="could not be asked"):
                await canceling

    run(work())


def venue_of(desk: Desk, book: dict[int, Order]) -> Callable[[dict[str, Any]], None]:
    """Lists and cancels the orders of `book`, and takes every noop."""
    desk.wire.info["frontendOpenOrders"] = lambda _: [row(oid, one) for oid, one in book.items()]

    def take(message: dict[str, Any]) -> None:
        wanted = message["request"]["payload"]["action"]
        entries: list[Any] = []
        for cancel in wanted.get("cancels", ()):
            gone = book.pop(cancel["o"], None) if "o" in cancel else None
            entries.append("success" if gone else {"error": "MissingOrder"})
        response = {"type": "order", "data": {"statuses": entries}} if entries else {"type": "default"}
        answer = {"type": "action", "payload": {"status": "ok", "response": response}}
        told = {"id": message["id"], "response": answer}
        asyncio.get_running_loop().call_soon(desk.tell, "post", told)

    return take


def test_cancel_all_has_nonces_when_no_order_has_one(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            book = {7: order(cloid=Cloid(99))}
            take = venue_of(desk, book)
            await desk.trader.reconcile()
            for at in range(80):
                desk.trader.submit(order(cloid=Cloid(1000 + at)))
            with pytest.raises(Throttled, match="20 are kept for cancels"):
                desk.trader.submit(order(cloid=Cloid(2000)))
            with pytest.raises(Throttled):
                desk.trader.submit_modify(7, order("101", cloid=None))
            desk.cut()
            desk.connect()
            await desk.wire.step()
            desk.wire.on_write = take
            canceling = asyncio.create_task(desk.trader.cancel_all())
            await desk.wire.step(2)
            await canceling
            assert (book, desk.trader.orders, desk.nonces.unanswered) == ({}, (), 0)
            kinds = written_of(desk)
            assert kinds.count("noop") == 80
            assert kinds.count("cancel") + kinds.count("cancelByCloid") < 10, "not one for each lost order"

    run(work())


def test_cancel_all_that_finds_no_free_nonce_tries_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            book = {7: order()}
            desk.wire.on_write = venue_of(desk, book)
            nonces = [desk.nonces.take() for _ in range(100)]
            canceling = asyncio.create_task(desk.trader.cancel_all())
            await desk.wire.step(3)
            assert not canceling.done()
            assert desk.wire.written == []
            for nonce in nonces:
                desk.nonces.done(nonce)
            await desk.wire.step(20)
            results = await canceling
            assert (book, desk.trader.orders) == ({}, ())
            assert isinstance(results[0], Throttled)
            assert isinstance(results[-1], CancelResult)

    run(work())


def test_an_order_in_a_coin_without_an_instrument_stops_no_other_cancel(tmp_path: Path, caplog: Any) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            book = {7: order()}
            desk.wire.on_write = venue_of(desk, book)
            listed = desk.wire.info["frontendOpenOrders"]
            new = {**row(8, order(cloid=Cloid(3))), "coin": "NEWCOIN"}
            desk.wire.info["frontendOpenOrders"] = lambda query: [*listed(query), new]
            canceling = asyncio.create_task(desk.trader.cancel_all())
            await desk.wire.step(5)
            with pytest.raises(OutcomeUnknown, match="NEWCOIN") as raised:
                await canceling
            assert raised.value.cloids == (Cloid(3).hex,)
            assert book == {}
            assert "an order in NEWCOIN cannot be canceled" in caplog.text

    run(work())


@pytest.mark.parametrize("step", ["nonce", "no way to the venue", "refused", "link cut", "no answer", "writing raises"])
def test_cancel_all_goes_on_and_then_says_what_may_be_live(step: str, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with Desk(tmp_path, fast_config(settle_timeout_s=20)) as desk:
            book = {7: order()}
            take = venue_of(desk, book)
            nonces = []
            if step == "nonce":
                nonces = [desk.nonces.take() for _ in range(100)]
            elif step == "no way to the venue":
                desk.cut()
            elif step == "refused":
                desk.wire.on_write = lambda _: asyncio.get_running_loop().call_soon(desk.answer, ERR)
            elif step == "link cut":
                desk.wire.on_write = lambda _: asyncio.get_running_loop().call_soon(desk.cut)
            elif step == "writing raises":
                desk.wire.on_write = breaks
            canceling = asyncio.create_task(desk.trader.cancel_all())
            await desk.wire.step(40)
            with pytest.raises(OutcomeUnknown, match="listed as open") as raised:
                await canceling
            assert raised.value.cloids == (CLOID.hex,)
            assert ("not every cancel was sent" in str(raised.value)) is (
                step in ("nonce", "no way to the venue", "link cut")
            )
            for nonce in nonces:
                desk.nonces.done(nonce)
            desk.wire.on_write = take
            desk.connect()
            canceling = asyncio.create_task(desk.trader.cancel_all())
            await desk.wire.step(20)
            await canceling
            assert book == {}

    run(work())


@pytest.mark.parametrize("step", ["key", "closed"])
def test_cancel_all_of_what_is_closed_is_closed_at_once(step: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            venue_of(desk, {7: order()})
            if step == "key":
                desk.signer.close()
            else:
                await desk.trader.end()
            with pytest.raises(Closed):
                await desk.trader.cancel_all()
            assert desk.wire.written == []

    run(work())


# --- nonces of actions that were signed elsewhere ---


def test_a_nonce_of_ours_in_flight_or_prepared_is_not_sent_for_another_key(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            owner = Signer("02" * 32, "testnet")
            ticket = desk.trader.submit(order())
            prepared = desk.trader.prepare(order(cloid=None))
            for nonce in (ticket.nonce, prepared.signed.nonce):
                with pytest.raises(NotSent, match="another one"):
                    desk.trader.send(account.approve_agent(owner, desk.signer.address, nonce=nonce))
            assert len(desk.wire.written) == 1
            desk.answer(statuses(resting(11)))
            assert isinstance(await ticket, Ack)

    run(work())


def test_a_nonce_that_another_key_used_is_not_taken_for_ours(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path) as desk:
            owner = Signer("02" * 32, "testnet")
            now_ms = desk.wire.time_ms()
            foreign = [
                desk.trader.send(account.approve_agent(owner, desk.signer.address, nonce=now_ms + at)) for at in (0, 1)
            ]
            ticket = desk.trader.submit(order())
            assert ticket.nonce == now_ms + 2
            desk.answer(statuses(resting(11)))
            desk.answer(DEFAULT, at=0)
            assert isinstance(await ticket, Ack)
            assert await foreign[0] == Done("approveAgent")
            assert not foreign[1].done

    run(work())


def test_a_late_answer_is_that_of_its_own_action_though_another_has_the_nonce_now(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            ticket = desk.trader.submit(order())
            await desk.expire(ticket)
            assert isinstance(await ticket.settled(), Rejected)
            owner = Signer("02" * 32, "testnet")
            foreign = desk.trader.send(account.approve_agent(owner, desk.signer.address, nonce=ticket.nonce))
            desk.answer(ERR, at=0)
            assert not foreign.done
            desk.answer(DEFAULT)
            assert await foreign == Done("approveAgent")

    run(work())


# --- what breaks ---


def test_an_answer_that_cannot_be_taken_in_is_a_lost_one_over_http_too(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            desk.cut()
            desk.wire.http = lambda _: (200, statuses(resting(11))["payload"])
            desk.trader._table.answered = breaks_twice  # type: ignore[method-assign]
            with pytest.raises(OutcomeUnknown, match="could not be read"):
                await desk.trader.place(order())

    def breaks_twice(nonce: int, answer: object) -> None:
        raise ZeroDivisionError

    run(work())


def test_a_write_that_raises_gives_a_ticket_that_its_expiry_settles(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            desk.wire.on_write = breaks
            ticket = desk.trader.submit(order())
            assert ticket.unknown
            desk.wire.on_write = lambda _: None
            await desk.expire(ticket)
            assert isinstance(await ticket.settled(), Rejected)
            assert desk.nonces.unanswered == 0

    run(work())


def test_a_bug_of_ours_in_a_round_of_questions_is_not_taken_for_an_unreadable_answer(tmp_path: Path) -> None:
    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            desk.trader._reconciler._look_for_fills = broken  # type: ignore[method-assign]
            desk.cut()
            desk.connect()
            await desk.wire.step(1)
            assert [type(each) for each in desk.failures] == [KeyError]

    async def broken() -> None:
        raise KeyError("ours")

    run(work())


def test_one_answer_that_cannot_be_read_keeps_no_other_question_from_being_asked(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            tickets = [desk.trader.submit(order(cloid=Cloid(at))) for at in (1, 2)]
            desk.wire.info["orderStatus"] = lambda query: (
                {"status": "order"} if query["oid"] == Cloid(1).hex else {"status": "unknownOid"}
            )
            desk.cut()
            await desk.expire(tickets[1])
            assert [each.done for each in tickets] == [False, True]
            assert desk.failures == []
            desk.wire.info["clearinghouseState"] = lambda _: {"time": "soon"}
            with pytest.raises(QueryFailed, match="clearinghouseState"):
                await desk.trader.reconcile()

    run(work())


# --- the key ---


def test_no_key_in_logs_reprs_or_tracebacks(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []

    async def work() -> None:
        async with Desk(tmp_path, fast_config()) as desk:
            ticket = desk.trader.submit(order())
            desk.cut()
            try:
                await ticket
            except OutcomeUnknown as exc:
                shown.extend(traceback.TracebackException.from_exception(exc, capture_locals=True).format())
            try:
                desk.trader.submit(Order("BTC", Side.BUY, "1.123456789", 1))
            except InvalidOrder as exc:
                shown.extend(traceback.TracebackException.from_exception(exc, capture_locals=True).format())
            shown.extend(map(repr, (desk.trader, ticket, ticket._flight, desk.trader.orders, desk.signer)))

    run(work())
    assert KEY not in "".join(shown) + caplog.text


def test_the_first_comparison_that_never_succeeds_is_a_link_that_is_down(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path)
        desk.wire.info_up = False
        desk.trader.start()
        desk.connect()
        waiting = asyncio.create_task(desk.trader.ready(5.0))
        await desk.wire.step(4.9)
        assert not waiting.done()
        await desk.wire.step(0.2)
        with pytest.raises(LinkDown, match="could not be read"):
            await waiting
        await desk.trader.end()
        desk.nonces.close()

    run(work())


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in (
        {"answer_timeout_s": 0},
        {"expires_after_s": -1},
        {"expiry_margin_s": -1},
        {"retry_min_s": 9.0},
        {"batch": 0},
        {"batch": 0.5},
        {"batch": 40.0},
        {"dexs": ()},
        {"dexs": "xyz"},
    ):
        with pytest.raises(ConfigError):
            TradingConfig(**wrong)
    assert TradingConfig(expires_after_s=None).expires_after_s is None
    assert Reconciled("x").reason == "x"
    assert OutcomeEvent.__doc__
