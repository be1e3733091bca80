"""subscriptions.py: what is sent, what is refused before that, and that each message finds its subscription."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import captures
import orjson
import pytest

from hlconn import ConfigError
from hlconn.session.link import canonical, fold
from hlconn.subscriptions import INTERVALS, Subscription, is_spot, route_of_message

S = Subscription
USER = "0x31CA8395CF837DE08B24DA3F660E77761DFB974B"
LOW = USER.lower()

#: Each one, what the venue gets, and a message of it: `data` as far as it says whose it is.
ALL: list[tuple[Subscription, dict[str, Any], Any]] = [
    (S.all_mids(), {"type": "allMids"}, {"mids": {}}),
    (S.all_mids("xyz"), {"type": "allMids", "dex": "xyz"}, {"mids": {}, "dex": "xyz"}),
    (S.l2_book("BTC"), {"type": "l2Book", "coin": "BTC"}, {"coin": "BTC", "time": 1, "levels": [[], []]}),
    (
        S.l2_book("BTC", fast=True, n_sig_figs=5),
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "fast": True},
        {"coin": "BTC", "time": 1, "levels": [[], []], "spread": "1.0", "fast": True},
    ),
    (
        S.l2_book("@107", n_sig_figs=5, mantissa=2),
        {"type": "l2Book", "coin": "@107", "nSigFigs": 5, "mantissa": 2},
        {"coin": "@107", "time": 1, "levels": [[], []], "spread": "1.0"},
    ),
    (S.l2("ETH", n_sig_figs=3), {"type": "l2", "coin": "ETH", "nSigFigs": 3}, {"s": {"coin": "ETH"}}),
    (S.l2("ETH"), {"type": "l2", "coin": "ETH"}, {"u": {"c": "ETH"}}),
    (S.bbo("kPEPE"), {"type": "bbo", "coin": "kPEPE"}, {"coin": "kPEPE", "bbo": [None, None]}),
    (S.trades("xyz:NVDA"), {"type": "trades", "coin": "xyz:NVDA"}, [{"coin": "xyz:NVDA"}]),
    (S.candle("BTC", "1M"), {"type": "candle", "coin": "BTC", "interval": "1M"}, {"s": "BTC", "i": "1M"}),
    (S.candle("BTC", "1m"), {"type": "candle", "coin": "BTC", "interval": "1m"}, [{"s": "BTC", "i": "1m"}]),
    (S.active_asset_ctx("BTC"), {"type": "activeAssetCtx", "coin": "BTC"}, {"coin": "BTC", "ctx": {}}),
    (S.active_asset_ctx("@1"), {"type": "activeAssetCtx", "coin": "@1"}, {"coin": "@1", "ctx": {}}),
    (
        S.active_asset_data(USER, "BTC"),
        {"type": "activeAssetData", "user": LOW, "coin": "BTC"},
        {"coin": "BTC", "user": LOW},
    ),
    (S.asset_ctxs(), {"type": "assetCtxs"}, {"dex": "", "ctxs": []}),
    (S.asset_ctxs("xyz"), {"type": "assetCtxs", "dex": "xyz"}, {"dex": "xyz", "ctxs": []}),
    (S.all_dexs_asset_ctxs(), {"type": "allDexsAssetCtxs"}, {"ctxs": []}),
    (S.spot_asset_ctxs(), {"type": "spotAssetCtxs"}, []),
    (S.fast_asset_ctxs(), {"type": "fastAssetCtxs"}, "q1Y="),
    (S.outcome_meta_updates(), {"type": "outcomeMetaUpdates"}, []),
    (S.notification(USER), {"type": "notification", "user": LOW}, {"notification": "x"}),
    (S.order_updates(USER), {"type": "orderUpdates", "user": LOW}, []),
    (S.user_events(USER), {"type": "userEvents", "user": LOW}, {"fills": []}),
    (S.user_fills(USER), {"type": "userFills", "user": LOW}, {"user": LOW}),
    (
        S.user_fills(USER, aggregate_by_time=True),
        {"type": "userFills", "user": LOW, "aggregateByTime": True},
        {"user": LOW},
    ),
    (S.user_fundings(USER), {"type": "userFundings", "user": LOW}, {"user": LOW}),
    (
        S.user_non_funding_ledger_updates(USER),
        {"type": "userNonFundingLedgerUpdates", "user": LOW},
        {"user": LOW},
    ),
    (S.user_historical_orders(USER), {"type": "userHistoricalOrders", "user": LOW}, {"user": LOW}),
    (S.user_twap_slice_fills(USER), {"type": "userTwapSliceFills", "user": LOW}, {"user": LOW}),
    (S.user_twap_history(USER), {"type": "userTwapHistory", "user": LOW}, {"user": LOW}),
    (S.twap_states(USER), {"type": "twapStates", "user": LOW}, {"user": LOW, "dex": ""}),
    (S.twap_states(USER, "xyz"), {"type": "twapStates", "user": LOW, "dex": "xyz"}, {"user": LOW, "dex": "xyz"}),
    (S.open_orders(USER), {"type": "openOrders", "user": LOW}, {"user": LOW, "dex": ""}),
    (S.clearinghouse_state(USER), {"type": "clearinghouseState", "user": LOW}, {"user": LOW, "dex": ""}),
    (S.all_dexs_clearinghouse_state(USER), {"type": "allDexsClearinghouseState", "user": LOW}, {"user": LOW}),
    (S.spot_state(USER), {"type": "spotState", "user": LOW}, {"user": LOW}),
    (S.web_data3(USER), {"type": "webData3", "user": LOW}, {"userState": {"user": LOW}}),
]
CHANNELS = {"userEvents": "user"}


@pytest.mark.parametrize(("given", "wire", "data"), ALL, ids=[str(s.route) + str(i) for i, (s, _, _) in enumerate(ALL)])
def test_a_subscription_is_what_the_venue_takes_and_its_messages_find_it(
    given: Subscription, wire: dict[str, Any], data: Any
) -> None:
    assert dict(given) == wire
    assert list(given) == list(wire)
    assert given == wire
    assert orjson.loads(orjson.dumps(dict(given))) == wire
    spot = wire["type"] == "activeAssetCtx" and is_spot(wire["coin"])
    assert given.channel == ("activeSpotAssetCtx" if spot else CHANNELS.get(wire["type"], wire["type"]))
    assert route_of_message(given.channel, data) == given.route
    assert given.route[0] == given.channel


def test_every_method_is_among_those_shown_here() -> None:
    makers = {name for name, value in vars(Subscription).items() if isinstance(value, classmethod)}
    types = {given["type"] for given, _, _ in ALL}
    assert len(makers) == len(types) == 28


def test_no_two_subscriptions_share_a_route_but_those_that_cannot_be_told_apart() -> None:
    seen: dict[object, Subscription] = {}
    for given, _, _ in ALL:
        if given.route in seen and given["type"] not in ("userFills", "l2"):
            pytest.fail(f"{given} and {seen[given.route]} have one route")
        seen[given.route] = given
    assert S.l2_book("BTC").route != S.l2_book("BTC", fast=True).route != S.l2_book("BTC", n_sig_figs=2).route
    assert S.l2_book("BTC", n_sig_figs=3).route == S.l2_book("BTC", n_sig_figs=2).route
    assert S.order_updates(USER).route == S.order_updates("0x" + 40 * "1").route == ("orderUpdates",)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: S.bbo(""), "coin must be a str of 1 to 64 bytes like 'BTC'"),
        (lambda: S.trades(65 * "x"), "1 to 64 bytes"),
        (lambda: S.trades(5), "not 5"),  # type: ignore[arg-type]
        (lambda: S.trades("\ud800" * 80), "1 to 64 bytes"),
        (lambda: S.candle("BTC", "2m"), "interval must be one of 1m, 3m"),
        (lambda: S.candle("BTC", "1H"), "interval must be one of"),
        (lambda: S.l2_book("BTC", n_sig_figs=1), "n_sig_figs must be 2, 3, 4, 5"),
        (lambda: S.l2_book("BTC", n_sig_figs=6), "n_sig_figs must be 2, 3, 4, 5"),
        (lambda: S.l2_book("BTC", n_sig_figs=True), "n_sig_figs must be 2, 3, 4, 5"),
        (lambda: S.l2_book("BTC", mantissa=2), "mantissa needs n_sig_figs=5"),
        (lambda: S.l2_book("BTC", n_sig_figs=4, mantissa=2), "mantissa needs n_sig_figs=5, not 4"),
        (lambda: S.l2_book("BTC", n_sig_figs=5, mantissa=1), "None .which is what 1 would mean"),
        (lambda: S.l2_book("BTC", fast=1), "fast must be True or False"),  # type: ignore[arg-type]
        (lambda: S.user_fills(USER, aggregate_by_time=0), "aggregate_by_time must be"),  # type: ignore[arg-type]
        (lambda: S.user_fills(USER[:-1]), "0x and 40 hex digits"),
        (lambda: S.user_fills(LOW + "\n"), "0x and 40 hex digits"),
        (lambda: S.user_events(None), "not None"),  # type: ignore[arg-type]
        (lambda: S.active_asset_data(USER, "@107"), "perps only"),
        (lambda: S.active_asset_data(USER, "PURR/USDC"), "perps only"),
        (lambda: S.asset_ctxs("xyz:NVDA"), "'xyz' and not 'xyz:NVDA'"),
        (lambda: S.open_orders(USER, None), "dex must be"),  # type: ignore[arg-type]
        (lambda: S({"coin": "BTC"}), "needs a type"),
    ],
)
def test_what_the_venue_would_not_take_is_refused_with_what_to_do(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_a_subscription_is_taken_where_a_mapping_is_and_does_not_change() -> None:
    given = S.candle("BTC", "1m")
    assert canonical(fold(given)) == canonical(fold({"interval": "1m", "type": "candle", "coin": "BTC"}))
    assert {given: 1}[S({"interval": "1m", "coin": "BTC", "type": "candle"})] == 1
    assert given != S.candle("BTC", "3m")
    assert json.dumps(dict(given))
    with pytest.raises(AttributeError, match="does not change"):
        given.channel = "x"
    with pytest.raises(TypeError):
        given["coin"] = "ETH"  # type: ignore[index]
    assert eval(repr(given), {"Subscription": Subscription}) == given


def test_what_has_no_method_is_taken_as_it_is() -> None:
    new = S({"type": "someDayNew", "coin": "BTC"})
    assert new.route == ("someDayNew",) == route_of_message("someDayNew", {"coin": "BTC"})


def test_intervals_are_those_of_the_made_up_venue() -> None:
    assert INTERVALS == captures.INTERVALS


def test_captured_messages_find_their_subscriptions(shared_fixtures: Path) -> None:
    user = "0x31ca8395cf837de08b24da3f660e77761dfb974b"
    makers: dict[str, Callable[[Any], Subscription]] = {
        "l2Book": lambda d: S.l2_book(d["coin"], fast="fast" in d),
        "bbo": lambda d: S.bbo(d["coin"]),
        "trades": lambda d: S.trades(d[0]["coin"]),
        "candle": lambda d: S.candle(d["s"], d["i"]),
        "activeAssetCtx": lambda d: S.active_asset_ctx(d["coin"]),
        "orderUpdates": lambda d: S.order_updates(user),
        "user": lambda d: S.user_events(user),
        "userFills": lambda d: S.user_fills(d["user"]),
        "userFundings": lambda d: S.user_fundings(d["user"]),
        "notification": lambda d: S.notification(user),
    }
    found = set()
    for path in (shared_fixtures / "ws").glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            message = orjson.loads(line)
            if (channel := message.get("channel")) in makers:
                assert route_of_message(channel, message["data"]) == makers[channel](message["data"]).route
                found.add(channel)
    assert found == set(makers)
