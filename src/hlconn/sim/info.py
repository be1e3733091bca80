"""Answers to `POST /info`, from the last blocks of a market. Safe to call from any thread."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from .coins import decimal_text
from .market import Market
from .wire import JsonObject, Malformed, check_aggregation, hidden_book, l2_book, optional_int

__all__ = ["InfoRefused", "answer"]

_BAD_SHAPE = "Failed to deserialize the JSON body into the target type"


class InfoRefused(Exception):
    """A request the venue refuses. status: the HTTP status; text: the body, None for JSON null."""

    def __init__(self, status: HTTPStatus, text: str | None) -> None:
        super().__init__(status, text)
        self.status, self.text = status, text


def answer(market: Market, request: object) -> Any:
    """The response to one info request, as a JSON value. Raises InfoRefused.

    Types: allMids, meta, l2Book, and hiddenBook, which the real venue does not have: the whole book of the block at
    `time`, or of the last block.
    """
    if not isinstance(request, dict):
        raise InfoRefused(HTTPStatus.UNPROCESSABLE_ENTITY, _BAD_SHAPE)
    try:
        match request.get("type"):
            case "allMids":
                return _all_mids(market)
            case "meta":
                return _meta(market)
            case "l2Book":
                return _l2_book(market, request)
            case "hiddenBook":
                return _hidden_book(market, request)
    except Malformed:
        pass
    raise InfoRefused(HTTPStatus.UNPROCESSABLE_ENTITY, _BAD_SHAPE)


def _coin(request: JsonObject) -> str:
    coin = request.get("coin")
    if not isinstance(coin, str):
        raise Malformed("no coin")
    return coin


def _l2_book(market: Market, request: JsonObject) -> JsonObject | None:
    coin = _coin(request)
    n_sig_figs, mantissa = optional_int(request.get("nSigFigs")), optional_int(request.get("mantissa"))
    if not check_aggregation(n_sig_figs, mantissa):
        raise InfoRefused(HTTPStatus.INTERNAL_SERVER_ERROR, None)
    if coin not in market.coins:
        return None
    block = market.block
    return l2_book(market.coins[coin], block.time_ms, block.books[coin], n_sig_figs, mantissa)


def _hidden_book(market: Market, request: JsonObject) -> JsonObject | None:
    coin, time_ms = _coin(request), optional_int(request.get("time"))
    if coin not in market.coins:
        return None
    found = market.book_at(coin, time_ms)
    if found is None:
        text = f"no block at time {time_ms} is remembered: ask for one of the last {market.history_blocks} blocks"
        raise InfoRefused(HTTPStatus.NOT_FOUND, text)
    return hidden_book(market.coins[coin], *found)


def _all_mids(market: Market) -> dict[str, str]:
    """Mid prices; a coin with an empty side has that of its last trade, and none before its first."""
    mids = {}
    for name, book in market.block.books.items():
        coin, (bid, ask) = market.coins[name], book.top
        if bid and ask:
            mids[name] = decimal_text((bid.tick + ask.tick) * 5, coin.px_decimals + 1)
        elif fills := market.recent_trades(name):
            mids[name] = coin.px_text(fills[-1].tick)
    return mids


def _meta(market: Market) -> JsonObject:
    """An asset's id is its place in the universe: the order in which the coins were named."""
    universe = []
    for coin in market.coins.values():
        entry: JsonObject = {"szDecimals": coin.sz_decimals, "name": coin.name, "maxLeverage": coin.max_leverage}
        # Below 50, a margin table id is a single tier of that leverage and is not listed.
        entry["marginTableId"] = coin.max_leverage
        if coin.is_delisted:
            entry["isDelisted"] = True
        universe.append(entry)
    return {"universe": universe, "marginTables": [], "collateralToken": 0}
