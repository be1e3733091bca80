"""Messages to measure with: many different ones, of the embedded venue, so that nothing learns one by heart."""

from __future__ import annotations

from hlconn.sim import Venue, wire

COUNT = 256


def _market_messages(coin: str) -> tuple[list[bytes], list[bytes], list[bytes]]:
    venue = Venue(seed=11, coins=(coin,), stepped=True, start_ms=1_790_000_000_000, history_blocks=1)
    market = venue.exchange.markets[coin]
    encode = wire.Encoder()
    books: list[bytes] = []
    tops: list[bytes] = []
    trades: list[bytes] = []
    while min(len(books), len(tops), len(trades)) < COUNT:
        block = venue.block()
        hidden = block.books[coin]
        if len(hidden.bids) >= 20 and len(hidden.asks) >= 20:
            books.append(encode("l2Book", wire.l2_book(market, block.time_ms, hidden)))
        tops.append(encode("bbo", wire.bbo(market, block.time_ms, hidden)))
        trades.extend(encode("trades", wire.trades(market, [trade])) for trade in block.trades.get(coin, ()))
    return books[:COUNT], tops[:COUNT], trades[:COUNT]


#: 20 + 20 levels each; both sides; one trade each.
BOOKS, BBOS, TRADES = _market_messages("BTC")
