"""Messages to measure with: many different ones, of the embedded venue, so that nothing learns one by heart."""

from __future__ import annotations

from hlconn.sim import Market, wire

COUNT = 256


def _market_messages(coin_name: str) -> tuple[list[bytes], list[bytes], list[bytes]]:
    market = Market(coins=(coin_name,), seed=11, start_ms=1_790_000_000_000)
    coin = market.coins[coin_name]
    encode = wire.Encoder()
    books: list[bytes] = []
    tops: list[bytes] = []
    trades: list[bytes] = []
    while min(len(books), len(tops), len(trades)) < COUNT:
        block = market.step()
        hidden = block.books[coin_name]
        if len(hidden.bids) >= 20 and len(hidden.asks) >= 20:
            books.append(encode("l2Book", wire.l2_book(coin, block.time_ms, hidden)))
        tops.append(encode("bbo", wire.bbo(coin, block.time_ms, hidden)))
        trades.extend(encode("trades", wire.trades(coin, [trade])) for trade in block.trades.get(coin_name, ()))
    return books[:COUNT], tops[:COUNT], trades[:COUNT]


#: 20 + 20 levels each; both sides; one trade each.
BOOKS, BBOS, TRADES = _market_messages("BTC")
