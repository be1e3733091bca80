"""connect(key=...): trading over real loopback sockets, its life and its end."""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import orjson
import pytest
from fake_wire import INSTRUMENTS, KEY

import hlconn
from hlconn import Cloid, ConfigError, LinkDown, Order, OutcomeUnknown, Side, Signer, Tif
from hlconn.config import TradingConfig
from hlconn.session.link import LinkState
from hlconn.sim import Party, Venue
from hlconn.trading.orders import OrderState
from hlconn.trading.trader import Trader
from hlconn.types import Ack

QUICK = hlconn.SessionConfig(backoff_min_s=0.01, backoff_max_s=0.05, sockets_per_minute=10_000)
ORDER = Order("BTC", Side.BUY, 98450, "0.01", Tif.ALO)


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work
        left = [task for task in asyncio.all_tasks() if task.get_name().startswith("hlconn")]
        assert left == []

    asyncio.run(bounded())


def box(**more: Any) -> Venue:
    """The venue: nobody else trades, and what is sent is done at once."""
    return Venue(**{"seed": 5, "traders": False, "instant": True, "coins": ("BTC",), **more})


def rich(venue: Venue) -> Party:
    return venue.account(usdc=1_000_000)


def resting(venue: Venue, party: Party) -> list[int]:
    """The oids of what the venue has open."""
    return [row["oid"] for row in venue.info(type="openOrders", user=party.address)]


def record(venue: Venue) -> list[dict[str, Any]]:
    """The actions that reach the venue from now on, by any way."""
    submit, actions = venue.submit, list[dict[str, Any]]()

    def recorded(payload: Any, reply: Any) -> None:
        actions.append(payload)
        submit(payload, reply)

    venue.submit = recorded  # type: ignore[method-assign]
    return actions


def connect(venue: Venue, party: Party, folder: Path, **more: Any) -> hlconn.Client:
    settings = {"nonce_directory": str(folder), "retry_min_s": 0.01, **more.pop("settings", {})}
    return hlconn.connect(venue.endpoints, key=party.key, config=QUICK, trading=TradingConfig(**settings), **more)


async def until(true: Any) -> None:
    """Looks again and again: what sockets and other tasks do calls nobody. Fails after ten seconds."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


def test_orders_go_out_over_the_link_and_their_answers_and_updates_come_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with box() as venue, connect(venue, rich(venue), tmp_path) as hl:
            actions = record(venue)
            assert hl.instruments["BTC"].asset == 0
            ticket = hl.trader.submit(ORDER)
            ack = await ticket
            assert isinstance(ack, Ack)
            assert ack.oid is not None
            found = hl.trader.order(ack.oid)
            assert found is not None
            assert found.state is OrderState.OPEN
            assert hl.trader.orders == (found,)
            done = await hl.trader.cancel("BTC", ack.oid)
            assert done.canceled
            again = await hl.trader.cancel("BTC", ack.oid)
            assert not again.canceled
            await hl.trader.set_leverage("BTC", 3)
            assert venue.stats.posts == len(actions) == 4, "none over HTTP"
            assert actions[0]["nonce"] == ticket.nonce

    run(work())


def test_nonces_and_expiries_are_made_of_the_clock_that_was_given(tmp_path: Path) -> None:
    ahead_ms = 4_000_000_000_000

    async def work() -> None:
        settings = {"clock": lambda: ahead_ms, "expires_after_s": 7.0}
        async with box(start_ms=ahead_ms) as venue, connect(venue, rich(venue), tmp_path, settings=settings) as hl:
            actions = record(venue)
            ticket = hl.trader.submit(ORDER)
            await ticket
            assert (ticket.nonce, ticket.expires_after) == (ahead_ms, ahead_ms + 7000)
            assert actions[0]["expiresAfter"] == ahead_ms + 7000

    run(work())


def test_without_a_live_link_an_action_goes_over_http(tmp_path: Path) -> None:
    async def work() -> None:
        async with box() as venue:
            slow = hlconn.SessionConfig(backoff_min_s=5.0, backoff_max_s=5.0)
            party = rich(venue)
            client = hlconn.connect(
                venue.endpoints, key=party.key, config=slow, trading=TradingConfig(nonce_directory=str(tmp_path))
            )
            async with client as hl:
                venue.cut()
                await until(lambda: hl.link.state is not LinkState.LIVE)
                ack = await hl.trader.place(ORDER)
                assert [ack.oid] == resting(venue, party)
                assert (venue.stats.actions, venue.stats.posts) == (1, 0)
                venue.fault("lose_action")
                with pytest.raises(OutcomeUnknown):
                    await hl.trader.place(ORDER)
                await venue.stop()
                with pytest.raises(LinkDown):
                    await hl.trader.place(ORDER)

    run(work())


def test_an_order_without_an_answer_is_unknown_after_its_time_though_the_link_is_live(tmp_path: Path) -> None:
    async def work() -> None:
        settings = {"answer_timeout_s": 0.05}
        async with box() as venue, connect(venue, rich(venue), tmp_path, settings=settings) as hl:
            venue.fault("lose_answer")
            venue.fault("drop", channel="orderUpdates", count=None)
            ticket = hl.trader.submit(ORDER)
            with pytest.raises(OutcomeUnknown, match="no answer in time"):
                await ticket
            assert hl.link.state is LinkState.LIVE
            assert hl.link.counters.posts_lost == 1
            assert isinstance(await ticket.settled(), Ack), "found by a query"

    run(work())


@pytest.mark.parametrize("executed", [True, False])
def test_a_link_cut_with_an_order_in_flight_is_unknown_and_ends_by_proof(executed: bool, tmp_path: Path) -> None:
    async def work() -> None:
        expiry = {"expires_after_s": 0.3, "expiry_margin_s": 0.0}
        async with box() as venue:
            party = rich(venue)
            client = connect(venue, party, tmp_path, settings=expiry)
            async with client as hl:
                lost = venue.fault("lose_answer" if executed else "lose_action")
                venue.fault("drop", channel="orderUpdates", count=None)  # or the order is seen before the cut
                ticket = hl.trader.submit(ORDER)
                await until(lambda: lost.hits)
                venue.cut()
                with pytest.raises(OutcomeUnknown) as raised:
                    await ticket
                assert ticket.cloid is not None
                assert raised.value.cloids == (ticket.cloid.hex,)
                outcome = await ticket.settled()
                assert isinstance(outcome, Ack if executed else hlconn.Rejected)
                assert len(hl.trader.orders) == len(resting(venue, party)) == int(executed)
                assert venue.stats.actions == 1, "never sent again"

    run(work())


def test_a_callback_that_raises_with_orders_open_leaves_trading_to_the_finally(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with box() as venue:
            party = rich(venue)
            with pytest.raises(ZeroDivisionError, match="mine"):
                async with connect(venue, party, tmp_path) as hl:
                    await hl.trader.place_many([ORDER, ORDER])

                    def raises(order: object) -> None:
                        raise ZeroDivisionError("mine")

                    hl.trader.on_order(raises)
                    hl.trader.submit(ORDER)
                    try:
                        await asyncio.Event().wait()
                    finally:
                        assert len(resting(venue, party)) == 3
                        results = await hl.trader.cancel_all()
                        assert len(results) >= 3
                        assert resting(venue, party) == []
                        assert hl.trader.orders == ()

    run(work())


@pytest.mark.parametrize("on_exit", ["keep", "cancel"])
def test_what_becomes_of_open_orders_at_the_end_is_what_was_said_and_logged(
    on_exit: Any, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "hlconn")

    async def work() -> None:
        async with box() as venue:
            party = rich(venue)
            async with connect(venue, party, tmp_path, on_exit=on_exit) as hl:
                await hl.trader.place(ORDER)
            assert len(resting(venue, party)) == (1 if on_exit == "keep" else 0)
            assert f"on_exit='{on_exit}'" in caplog.text
            assert party.key not in caplog.text
            async with connect(venue, party, tmp_path) as hl:
                assert len(hl.trader.orders) == len(resting(venue, party)), "adopted"
                assert all(order.adopted for order in hl.trader.orders)

    run(work())


def test_orders_that_could_not_be_canceled_at_the_end_are_an_error(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with box() as venue:
            party = rich(venue)
            with pytest.raises(OutcomeUnknown, match="listed as open"):
                async with connect(venue, party, tmp_path, on_exit="cancel", settings={"settle_timeout_s": 0.2}) as hl:
                    await hl.trader.place(ORDER)
                    venue.fault("lose_action", count=None)
                    hl.trader._wire._answer_timeout_s = 0.05  # type: ignore[attr-defined]

    run(work())


def test_on_exit_cancels_though_a_callback_raised_in_the_last_step_of_the_body(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with box() as venue:
            party = rich(venue)
            with pytest.raises(ZeroDivisionError, match="mine"):
                async with connect(venue, party, tmp_path, on_exit="cancel") as hl:
                    await hl.trader.place_many([ORDER, ORDER])
                    hl._fail(ZeroDivisionError("mine"))
            assert resting(venue, party) == []

    run(work())


def test_on_exit_cancels_before_somebody_elses_cancellation_goes_on(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        async with box() as venue:
            party = rich(venue)
            with pytest.raises(asyncio.CancelledError):
                async with connect(venue, party, tmp_path, on_exit="cancel") as hl:
                    await hl.trader.place(ORDER)
                    task.cancel()
                    hl._fail(ZeroDivisionError("mine"))
            assert resting(venue, party) == []
            task.uncancel()

    run(work())


def test_a_callback_that_raises_on_the_end_of_an_order_does_not_abort_cancel_all(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        finished = []
        async with box() as venue:
            party = rich(venue)
            with pytest.raises(ZeroDivisionError, match="mine"):
                async with connect(venue, party, tmp_path, settings={"batch": 1}) as hl:
                    await hl.trader.place_many([ORDER, ORDER, ORDER])

                    def raises(order: Any) -> None:
                        if not order.may_be_live:
                            raise ZeroDivisionError("mine")

                    hl.trader.on_order(raises)
                    try:
                        pass
                    finally:
                        finished.append(await hl.trader.cancel_all())
                        await asyncio.Event().wait()  # for the cancellation that was held back
            assert resting(venue, party) == []
            assert len(finished) == 1

    run(work())


@pytest.mark.parametrize("turns", range(5))
def test_an_end_that_is_cancelled_leaves_nothing_open_and_nobody_waiting(
    turns: int, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level(logging.CRITICAL)

    async def work() -> None:
        async with box() as venue:
            party = rich(venue)
            client = connect(venue, party, tmp_path)
            venue.fault("lose_action", count=None)
            leaving = asyncio.Event()
            tickets = []

            async def body() -> None:
                async with client as hl:
                    tickets.append(hl.trader.submit(ORDER))
                    venue.cut()
                    await until(lambda: tickets[0].unknown)
                    tickets.append(hl.trader.submit(ORDER))
                    leaving.set()

            task = asyncio.create_task(body())
            await leaving.wait()
            settled = asyncio.create_task(tickets[0].settled())
            for _ in range(turns):  # of the loop: each is another place of the end to be cancelled at
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            with pytest.raises(OutcomeUnknown):
                await settled
            assert client.link.state is LinkState.CLOSED
            await until(lambda: not [one for one in asyncio.all_tasks() if one.get_name().startswith("hlconn")])
            async with connect(venue, party, tmp_path):
                pass

    run(work())


def test_a_refused_stream_of_the_user_ends_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trader, "subscriptions", [{"type": "orderUpdates", "user": "nobody"}])

    async def work() -> None:
        async with box() as venue:
            with pytest.raises(hlconn.SubscriptionRefused, match="orderUpdates"):
                async with connect(venue, rich(venue), tmp_path):
                    raise AssertionError("the body must not run")

    run(work())


def test_two_sessions_with_one_key_are_refused_before_anything_is_connected(tmp_path: Path) -> None:
    async def work() -> None:
        async with box() as venue, connect(venue, party := rich(venue), tmp_path):
            with pytest.raises(ConfigError, match="already signs with the key"):
                async with connect(venue, party, tmp_path):
                    raise AssertionError("the body must not run")
            assert venue.clients == 1

    run(work())


def test_instruments_can_be_had_without_a_key_and_trading_cannot(tmp_path: Path) -> None:
    async def work() -> None:
        async with box() as venue:
            party = rich(venue)
            async with hlconn.connect(venue.endpoints, config=QUICK, instruments=True) as hl:
                assert "BTC" in hl.instruments
                with pytest.raises(ConfigError, match="no key"):
                    _ = hl.trader
            async with hlconn.connect(venue.endpoints, config=QUICK) as hl:
                with pytest.raises(ConfigError, match="instruments=True"):
                    _ = hl.instruments
            async with connect(venue, party, tmp_path, instruments=INSTRUMENTS) as hl:
                assert hl.instruments is INSTRUMENTS
            client = connect(venue, party, tmp_path)
            for name in ("trader", "instruments"):
                with pytest.raises(ConfigError, match="inside"):
                    getattr(client, name)

    run(work())


ADDRESS = "0x" + "ab" * 20


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"key": "nonsense"}, "key must be 64 hex"),
        ({"key": KEY, "on_exit": "flee"}, "on_exit is"),
        ({"key": KEY, "account": "0x12"}, "are addresses"),
        ({"key": KEY, "vault": KEY}, "are addresses"),
        ({"account": ADDRESS}, "takes a key"),
        ({"key": Signer(KEY, "mainnet")}, "signs for mainnet"),
        ({"key": Signer(KEY, "testnet"), "vault": ADDRESS}, "another vault"),
    ],
)
@pytest.mark.parametrize("function", [hlconn.connect, hlconn.blocking.connect], ids=["async", "blocking"])
def test_settings_that_do_not_go_together_are_refused_and_show_no_key(
    function: Any, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        function("testnet", **settings)
    exc = raised.value
    assert KEY not in str(exc)
    inside = exc.with_traceback(exc.__traceback__ and exc.__traceback__.tb_next)
    shown = "".join(traceback.TracebackException.from_exception(inside, capture_locals=True).format())
    assert KEY not in shown
    assert "nonsense" not in shown


def test_orders_belong_to_the_vault_else_to_the_account_else_to_the_key() -> None:
    signer = Signer(KEY, "testnet")
    vault = "0x" + "CD" * 20
    assert hlconn.connect("testnet", key=KEY)._account == signer.address
    assert hlconn.connect("testnet", key=KEY, account=ADDRESS)._account == ADDRESS
    assert hlconn.connect("testnet", key=KEY, account=ADDRESS, vault=vault)._account == vault.lower()
    assert hlconn.connect("testnet", key=signer)._account == signer.address
    assert Cloid(1)


def test_what_orders_contain_is_logged_at_debug_alone(tmp_path: Path, caplog: Any) -> None:
    """Over an answer that is lost, a message that cannot be read, a modify, orders that are kept and then adopted."""
    caplog.set_level(logging.DEBUG)

    async def work() -> set[str]:
        async with box(speed=20.0) as venue:
            party = rich(venue)
            for on_exit in ("keep", "cancel"):
                trading = TradingConfig(
                    nonce_directory=str(tmp_path), clock=lambda: int(venue.now_ms()), answer_timeout_s=0.1,
                    retry_min_s=0.01, retry_max_s=0.05,
                )  # fmt: skip
                client = hlconn.connect(venue.endpoints, key=party.key, config=QUICK, trading=trading, on_exit=on_exit)
                async with client as hl:
                    btc = hl.instruments["BTC"]
                    mark = venue.exchange.marks["BTC"] / 10**btc.px_decimals
                    px = float(btc.round_px(mark * 0.97, Side.BUY, "passive"))
                    wanted = [Order("BTC", Side.BUY, px - 7 * n, f"0.01{n}37") for n in range(3)]
                    acks = await hl.trader.place_many(wanted)
                    assert isinstance(acks[0], Ack)
                    assert acks[0].cloid is not None
                    await hl.trader.modify(acks[0].cloid, Order("BTC", Side.BUY, px - 77, "0.01937"))
                    venue.fault("lose_answer")
                    lost = hl.trader.submit(Order("BTC", Side.BUY, px - 84, "0.01837"))
                    assert isinstance(await lost.settled(), Ack)
                    row = venue.info(type="frontendOpenOrders", user=party.address)[0] | {"origSz": "nonsense"}
                    hl.trader.on_message("orderUpdates", orjson.dumps({"data": [{"order": row, "status": "open"}]}))
            told = venue.history.orders(party.address)
            return {str(each["order"][name]) for each in told for name in ("limitPx", "origSz", "oid", "cloid")}

    contents: set[str] = set()

    async def collect() -> None:
        contents.update(await work())

    run(collect())
    assert len(contents) >= 20
    said = {"above": "", "debug": ""}
    for record in caplog.records:
        if record.name.startswith("hlconn"):
            said["above" if record.levelno > logging.DEBUG else "debug"] += logging.Formatter().format(record) + "\n"
    assert "could not be read" in said["above"]
    assert "may be live" in said["above"]
    assert "keeps 4 orders" in said["above"]
    words = {level: set(re.findall(r"[0-9a-zA-Z.]+", text)) for level, text in said.items()}
    assert words["above"] & contents == set()
    assert len(words["debug"] & contents) >= 10, "or the search finds nothing"
