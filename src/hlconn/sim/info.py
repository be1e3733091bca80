"""Answers to info requests, over HTTP and over a WebSocket `post`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from . import markets, wire
from .actions import Malformed
from .candles import INTERVALS, Candles
from .exchange import Exchange
from .ledger import Account, Fees, Fill
from .markets import PERP_DECIMALS, decimal_text
from .orders import Order
from .wire import JsonObject

__all__ = ["BAD_SHAPE", "InfoRefused", "aggregated_fills", "answer"]

BAD_SHAPE = "Failed to deserialize the JSON body into the target type"
_MOST_ORDERS = 2_000


class InfoRefused(Exception):
    """A request the venue refuses. status: the HTTP status; text: the body, None for JSON null."""

    def __init__(self, status: HTTPStatus, text: str | None) -> None:
        super().__init__(status, text)
        self.status, self.text = status, text


def answer(exchange: Exchange, candles: dict[str, Candles], request: object) -> Any:
    """The response to one info request, as a JSON value. Raises InfoRefused.

    hiddenBook, which the real venue does not have, is the whole book of the block at `time`, or of the last block.
    """
    kind = request.get("type") if isinstance(request, dict) else None
    handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
    try:
        if handler is not None:
            assert isinstance(request, dict)
            return handler(exchange, candles, request)
    except Malformed:
        pass
    raise InfoRefused(HTTPStatus.UNPROCESSABLE_ENTITY, BAD_SHAPE)


# Reading requests.


def _coin(request: JsonObject) -> str:
    coin = request.get("coin")
    if not isinstance(coin, str):
        raise Malformed("no coin")
    return coin


def _uint(request: JsonObject, key: str, default: int | None = None) -> int:
    value = request.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or value < 0:
        raise Malformed(f"{key} is not a time")
    return value


def _dex(exchange: Exchange, request: JsonObject) -> str:
    dex = "" if request.get("dex") is None else request["dex"]
    if not isinstance(dex, str):
        raise Malformed("dex is not a string")
    if dex not in markets.dexs(exchange.markets):
        raise InfoRefused(HTTPStatus.INTERNAL_SERVER_ERROR, None)
    return dex


def _account(exchange: Exchange, request: JsonObject) -> Account:
    """The account of `user`; an empty one for an address that the venue never saw, as for an agent's."""
    user = wire.read_address(request.get("user"))
    return exchange.ledger.accounts.get(user) or Account(user)


# Markets.


def _meta(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return markets.meta(exchange.markets, _dex(exchange, request))


def _all_perp_metas(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return [markets.meta(exchange.markets, dex) for dex in markets.dexs(exchange.markets)]


def _meta_and_ctxs(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    dex = _dex(exchange, request)
    listed = [m for m in exchange.markets.values() if not m.is_spot and m.dex == dex]
    return [markets.meta(exchange.markets, dex), [wire.asset_ctx(exchange, market) for market in listed]]


def _spot_meta(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return markets.spot_meta(exchange.markets)


def _spot_meta_and_ctxs(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    ctxs = [wire.asset_ctx(exchange, market) for market in exchange.markets.values() if market.is_spot]
    return [markets.spot_meta(exchange.markets), ctxs]


def _perp_dexs(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    zero = "0x" + "0" * 40
    return [
        None
        if not dex
        else {
            "name": dex,
            "fullName": f"The {dex} dex",
            "deployer": zero,
            "oracleUpdater": None,
            "feeRecipient": None,
            "assetToStreamingOiCap": [],
            "subDeployers": [],
            "deployerFeeScale": "1.0",
            "lastDeployerFeeScaleChangeTime": "1970-01-01T00:00:00",
            "assetToFundingMultiplier": [],
            "assetToFundingInterestRate": [],
        }
        for dex in markets.dexs(exchange.markets)
    ]


def _l2_book(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    coin = _coin(request)
    n_sig_figs, mantissa = wire.optional_int(request.get("nSigFigs")), wire.optional_int(request.get("mantissa"))
    if not wire.check_aggregation(n_sig_figs, mantissa):
        raise InfoRefused(HTTPStatus.INTERNAL_SERVER_ERROR, None)
    if coin not in exchange.markets:
        return None
    block = exchange.block
    return wire.l2_book(exchange.markets[coin], block.time_ms, block.books[coin], n_sig_figs, mantissa)


def _hidden_book(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    coin, time_ms = _coin(request), wire.optional_int(request.get("time"))
    if coin not in exchange.markets:
        return None
    block = exchange.block if time_ms is None else exchange.history.get(time_ms)
    if block is None or coin not in block.books:
        text = f"no block at time {time_ms} is remembered: ask for one of the last {exchange.history_blocks} blocks"
        raise InfoRefused(HTTPStatus.NOT_FOUND, text)
    return wire.hidden_book(exchange.markets[coin], block.time_ms, block.books[coin])


def _all_mids(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return wire.mids(exchange, _dex(exchange, request))


def _candle_snapshot(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    inner = request.get("req")
    if not isinstance(inner, dict):
        raise Malformed("no req")
    coin, interval = _coin(inner), inner.get("interval")
    now_ms = exchange.block.time_ms
    start_ms, end_ms = _uint(inner, "startTime"), _uint(inner, "endTime", now_ms)
    if not isinstance(interval, str) or interval not in INTERVALS:
        raise Malformed("no such interval")
    if coin not in exchange.markets:
        raise InfoRefused(HTTPStatus.INTERNAL_SERVER_ERROR, None)
    return candles[coin].between(interval, start_ms, end_ms, now_ms)[: exchange.rules.candle_rows]


def _recent_trades(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    coin = _coin(request)
    if coin not in exchange.markets:
        raise InfoRefused(HTTPStatus.INTERNAL_SERVER_ERROR, None)
    return wire.trades(exchange.markets[coin], reversed(exchange.trades[coin]))


def _exchange_status(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return {"time": exchange.block.time_ms, "specialStatuses": None}


# Accounts.


def _open_orders(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return wire.open_orders(_account(exchange, request), _dex(exchange, request), frontend=False)


def _frontend_open_orders(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return wire.open_orders(_account(exchange, request), _dex(exchange, request), frontend=True)


def _known(order: Order) -> JsonObject:
    return {"order": order.frontend(), "status": order.status, "statusTimestamp": order.status_ms}


def _order_status(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    account, key = _account(exchange, request), request.get("oid")
    if isinstance(key, str) and re.fullmatch("0x[0-9a-fA-F]{32}", key, re.ASCII):
        order = exchange.cloids.get((account.address, key.lower()))
    elif type(key) is int and key >= 0:
        order = exchange.orders.get(key)
    else:
        raise Malformed("oid is neither a number nor a cloid")
    if order is None or order.account is not account:
        return {"status": "unknownOid"}
    return {"status": "order", "order": _known(order)}


def _historical_orders(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    story = exchange.stories.get(_account(exchange, request).address, {})
    newest = sorted(story.values(), key=lambda order: (order.status_ms, order.oid), reverse=True)
    return [_known(order) for order in newest[:_MOST_ORDERS]]


def aggregated_fills(fills: Iterable[Fill]) -> list[Fill]:
    """Fills of one crossing order in one transaction as one, at the average price. Resting orders' stay apart."""
    joined: dict[tuple[str, int] | int, Fill] = {}
    for fill in fills:
        key: tuple[str, int] | int = (fill.hash, fill.oid) if fill.crossed else fill.tid
        before = joined.get(key)
        joined[key] = fill if before is None else before.joined(fill)
    return list(joined.values())


def _flag(request: JsonObject, key: str) -> bool:
    value = request.get(key)
    if not isinstance(value, bool | None):
        raise Malformed(f"{key} is not a boolean")
    return bool(value)


def _wires(request: JsonObject, fills: Iterable[Fill]) -> list[JsonObject]:
    return [fill.wire() for fill in (aggregated_fills(fills) if _flag(request, "aggregateByTime") else fills)]


def _user_fills(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return _wires(request, list(_account(exchange, request).fills)[-exchange.rules.fill_rows :])[::-1]


def _user_fills_by_time(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    start_ms, end_ms = _uint(request, "startTime"), _uint(request, "endTime", 1 << 63)
    found = [fill for fill in _account(exchange, request).fills if start_ms <= fill.time_ms <= end_ms]
    if _flag(request, "reversed"):
        return _wires(request, found[-exchange.rules.fill_rows :])[::-1]
    return _wires(request, found[: exchange.rules.fill_rows])


def _clearinghouse_state(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return wire.clearinghouse_state(exchange, _account(exchange, request), _dex(exchange, request))


def _spot_clearinghouse_state(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return wire.spot_state(_account(exchange, request))


def _user_rate_limit(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    account = _account(exchange, request)
    return {
        "cumVlm": decimal_text(account.volume, PERP_DECIMALS),
        "nRequestsUsed": account.requests,
        "nRequestsCap": exchange.budgets.cap(account.volume),
        "nRequestsSurplus": 0,
    }


def _user_fees(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    _account(exchange, request)
    fees: Fees = exchange.rules.fees
    cross, add, spot_cross, spot_add = (
        decimal_text(rate, 5) for rate in (fees.perp_taker, fees.perp_maker, fees.spot_taker, fees.spot_maker)
    )
    schedule = {"cross": cross, "add": add, "spotCross": spot_cross, "spotAdd": spot_add}
    return {
        "dailyUserVlm": [],
        "feeSchedule": schedule
        | {"tiers": {"vip": [], "mm": []}, "referralDiscount": "0.04", "stakingDiscountTiers": []},
        "userCrossRate": cross,
        "userAddRate": add,
        "userSpotCrossRate": spot_cross,
        "userSpotAddRate": spot_add,
        "activeReferralDiscount": "0.0",
        "trial": None,
        "feeTrialEscrow": "0.0",
        "nextTrialAvailableTimestamp": None,
        "stakingLink": None,
        "activeStakingDiscount": {"bpsOfMaxSupply": "0.0", "discount": "0.0"},
    }


def _user_role(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    address = _account(exchange, request).address
    master = exchange.agents.get(address)
    if master is not None:
        return {"role": "agent", "data": {"user": master.address}}
    account = exchange.ledger.accounts.get(address)
    if account is None:
        return {"role": "missing"}
    if account.kind == "subAccount":
        return {"role": "subAccount", "data": {"master": account.master}}
    return {"role": account.kind}


def _extra_agents(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return [
        {"name": agent.name, "address": address, "validUntil": agent.valid_until_ms}
        for address, agent in _account(exchange, request).agents.items()
        if agent.name
    ]


def _max_builder_fee(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    builder = request.get("builder")
    if not isinstance(builder, str) or not re.fullmatch("0x[0-9a-fA-F]{40}", builder, re.ASCII):
        raise Malformed("builder is not an address")
    return _account(exchange, request).builders.get(builder.lower(), 0)


def _sub_accounts(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    master = _account(exchange, request)
    found = [a for a in exchange.ledger.accounts.values() if a.kind == "subAccount" and a.master == master.address]
    return [
        {
            "name": account.name,
            "subAccountUser": account.address,
            "master": account.master,
            "clearinghouseState": wire.clearinghouse_state(exchange, account, ""),
            "spotState": wire.spot_state(account),
        }
        for account in found
    ] or None


def _user_abstraction(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    return _account(exchange, request).abstraction


def _referral(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    account = _account(exchange, request)
    return {
        "referredBy": None if account.referrer is None else {"referrer": "0x" + "0" * 40, "code": account.referrer},
        "cumVlm": decimal_text(account.volume, PERP_DECIMALS),
        "unclaimedRewards": "0.0",
        "claimedRewards": "0.0",
        "builderRewards": "0.0",
        "referrerState": {"stage": "needToTrade", "data": {"required": "10000.0"}},
        "rewardHistory": [],
        "tokenToState": [],
    }


def _user_dex_abstraction(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    _account(exchange, request)


def _of_user_none(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    """There is no funding here, no ledger of transfers, no TWAP orders and no shares in vaults."""
    _account(exchange, request)
    return []


def _funding_history(exchange: Exchange, candles: dict[str, Candles], request: JsonObject) -> Any:
    _coin(request)
    _uint(request, "startTime")
    return []


_HANDLERS: dict[str, Callable[[Exchange, dict[str, Candles], JsonObject], Any]] = {
    "allMids": _all_mids,
    "allPerpMetas": _all_perp_metas,
    "candleSnapshot": _candle_snapshot,
    "clearinghouseState": _clearinghouse_state,
    "exchangeStatus": _exchange_status,
    "extraAgents": _extra_agents,
    "frontendOpenOrders": _frontend_open_orders,
    "fundingHistory": _funding_history,
    "hiddenBook": _hidden_book,
    "historicalOrders": _historical_orders,
    "l2Book": _l2_book,
    "maxBuilderFee": _max_builder_fee,
    "meta": _meta,
    "metaAndAssetCtxs": _meta_and_ctxs,
    "openOrders": _open_orders,
    "orderStatus": _order_status,
    "perpDexs": _perp_dexs,
    "recentTrades": _recent_trades,
    "referral": _referral,
    "spotClearinghouseState": _spot_clearinghouse_state,
    "spotMeta": _spot_meta,
    "spotMetaAndAssetCtxs": _spot_meta_and_ctxs,
    "subAccounts": _sub_accounts,
    "userAbstraction": _user_abstraction,
    "userDexAbstraction": _user_dex_abstraction,
    "userFees": _user_fees,
    "userFills": _user_fills,
    "userFillsByTime": _user_fills_by_time,
    "userFunding": _of_user_none,
    "userTwapSliceFills": _of_user_none,
    "userTwapSliceFillsByTime": _of_user_none,
    "userVaultEquities": _of_user_none,
    "userNonFundingLedgerUpdates": _of_user_none,
    "userRateLimit": _user_rate_limit,
    "userRole": _user_role,
}
