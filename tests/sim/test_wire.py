"""The venue's messages, against captures of the real one and an oracle in `Decimal`."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

import pytest
from sim.raw import Raw, limit, quiet_venue

from hlconn import Builder, Cloid, account
from hlconn.sim import HiddenBook, Level, Trade, Venue, wire
from hlconn.sim.markets import Market, markets_named

BTC, SOL = markets_named(("BTC", "SOL")).values()
BOOK = HiddenBook((Level(128_5000, 36_93, 2), Level(128_4900, 5, 1)), (Level(128_5400, 18_70, 2),))


def test_messages_are_spelled_as_in_captures() -> None:
    encode = wire.Encoder()
    assert encode("bbo", wire.bbo(SOL, 1765887848009, BOOK)) == (
        b'{"channel":"bbo","data":{"coin":"SOL","time":1765887848009,"bbo":[{"px":"128.5","sz":"36.93","n":2},'
        b'{"px":"128.54","sz":"18.7","n":2}]}}'
    )
    assert encode("bbo", wire.bbo(SOL, 1, HiddenBook((), ()))) == (
        b'{"channel":"bbo","data":{"coin":"SOL","time":1,"bbo":[null,null]}}'
    )
    assert encode("l2Book", wire.l2_book(SOL, 1, BOOK, fast=True)) == (
        b'{"channel":"l2Book","data":{"coin":"SOL","time":1,"levels":[[{"px":"128.5","sz":"36.93","n":2},'
        b'{"px":"128.49","sz":"0.05","n":1}],[{"px":"128.54","sz":"18.7","n":2}]],"fast":true}}'
    )
    fill = Trade("A", 128_5000, 42, 7, "0xab", 867891549538215, "0x01", "0x02")
    assert encode("trades", wire.trades(SOL, [fill])) == (
        b'{"channel":"trades","data":[{"coin":"SOL","side":"A","px":"128.5","sz":"0.42","time":7,"hash":"0xab",'
        b'"tid":867891549538215,"users":["0x01","0x02"]}]}'
    )
    assert encode("pong") == b'{"channel":"pong"}'


def aggregated_by_decimal(
    levels: Iterable[Level], market: Market, n_sig_figs: int, mantissa: int, rounding: str
) -> list[tuple[Decimal, Decimal, int]]:
    sizes: defaultdict[Decimal, Decimal] = defaultdict(Decimal)
    orders: defaultdict[Decimal, int] = defaultdict(int)
    for level in levels:
        px = Decimal(market.px_text(level.px))
        step = mantissa * Decimal(10) ** (px.adjusted() + 1 - n_sig_figs)
        bucket = (px / step).to_integral_value(rounding) * step
        sizes[bucket] += Decimal(market.sz_text(level.sz))
        orders[bucket] += level.n
    best_first = sorted(sizes, reverse=rounding == ROUND_FLOOR)[:20]
    return [(px, sizes[px], orders[px]) for px in best_first]


@pytest.mark.parametrize(("n_sig_figs", "mantissa"), [(2, None), (3, None), (4, None), (5, None), (5, 2), (5, 5)])
@pytest.mark.parametrize("name", ["BTC", "ETH", "SOL", "kPEPE", "PURR/USDC", "@1", "test:GOLD"])
def test_aggregation_rounds_bids_down_and_asks_up(name: str, n_sig_figs: int, mantissa: int | None) -> None:
    venue = Venue(stepped=True, coins=(name,))
    for _ in range(20):
        venue.block()
    market, book = venue.exchange.markets[name], venue.history.book(name)
    message = wire.l2_book(market, 1, book, n_sig_figs, mantissa)
    for levels, sent, rounding in zip(book, message["levels"], (ROUND_FLOOR, ROUND_CEILING), strict=True):
        got = [(Decimal(level["px"]), Decimal(level["sz"]), level["n"]) for level in sent]
        assert got == aggregated_by_decimal(levels, market, n_sig_figs, mantissa or 1, rounding)
    bid, ask = book.bids[0], book.asks[0]
    assert Decimal(message["spread"]) == Decimal(market.px_text(ask.px)) - Decimal(market.px_text(bid.px))


def test_an_aggregated_book_with_an_empty_side_has_no_spread() -> None:
    assert "spread" not in wire.l2_book(BTC, 1, HiddenBook((Level(100_000, 1, 1),), ()), 5)


# Against captures


@pytest.fixture(scope="module")
def heard() -> dict[str, list[Any]]:
    """Everything that a client hears of a busy account, by channel."""
    venue = quiet_venue()
    for coin, bid, ask, sz in (("BTC", 105_000, 105_010, 1), ("@1", 24, 25, 10)):
        venue.rest(coin, "B", bid, sz)
        venue.rest(coin, "A", ask, sz)
    raw = Raw(venue, venue.account(spot={"USDC": 500}))
    heard: defaultdict[str, list[Any]] = defaultdict(list)
    raw.pipe.on_message = lambda message: hear(message)

    def hear(message: bytes) -> None:
        raw._on_message(message)
        if message.startswith(b"{"):
            parsed = json.loads(message)
            heard[parsed["channel"]].append(parsed.get("data"))

    for kind in ("l2Book", "bbo", "trades", "activeAssetCtx"):
        for coin in ("BTC", "MATIC", "@1"):
            raw.subscribe(type=kind, coin=coin)
    raw.subscribe(type="l2Book", coin="BTC", fast=True)
    raw.subscribe(type="candle", coin="BTC", interval="1m")
    for kind in ("orderUpdates", "userEvents", "userFills", "userFundings", "notification"):
        raw.subscribe(type=kind, user=raw.party.address)
    builder = Builder("0x" + "b1" * 20, 10)
    approval = account.approve_builder_fee(raw.signer, builder.address, "0.01%", raw.nonce())
    raw.post_raw(json.loads(approval.payload))
    raw.order(limit("B", 105_010, "0.1", cloid=Cloid(1)), builder=builder)
    raw.order(limit("B", 25, 2, coin="@1", cloid=Cloid(2)))
    raw.order(limit("B", 105_009, "0.1", cloid=Cloid(3)), limit("B", 100_000, "0.00001"))
    venue.cross("BTC", "A", "0.1")
    raw.pipe.send(b'{"method":"ping"}')
    venue.advance(1000)
    return dict(heard)


def shapes(value: Any) -> Iterator[tuple[str, str]]:
    """Every (path of keys, kind of value) inside a message."""

    def walk(value: Any, path: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from walk(item, f"{path}.{key}")
        elif isinstance(value, list):
            for item in value:
                yield from walk(item, f"{path}[]")
        else:
            yield path, type(value).__name__

    return walk(value, "")


#: What happens on the real venue alone.
NOT_HERE = (".funding.", ".liquidation")


@pytest.mark.parametrize(
    "channel",
    ["l2Book", "bbo", "trades", "candle", "activeAssetCtx", "orderUpdates", "user", "userFills", "notification"],
)
def test_messages_have_the_shapes_of_captures(heard: dict[str, list[Any]], shared_fixtures: Path, channel: str) -> None:
    lines = (shared_fixtures / "ws" / f"{channel}.jsonl").read_text().splitlines()
    real = {shape for line in lines for shape in shapes(json.loads(line)["data"])}
    ours = {shape for data in heard[channel] for shape in shapes(data)}
    assert {shape for shape in real if not shape[0].startswith(NOT_HERE)} - ours == set()
    assert {path for path, _ in ours} - {path for path, _ in real} <= {
        "[].order.reduceOnly",
        ".fills[].cloid",
        ".fills[].builderFee",
    }


def test_shuffled_messages_differ_in_spelling_only() -> None:
    plain, shuffled = wire.Encoder(), wire.Encoder(shuffle_seed=1)
    data = wire.l2_book(SOL, 1, BOOK, fast=True)
    spellings = {shuffled("l2Book", data) for _ in range(50)}
    assert all(json.loads(spelling) == json.loads(plain("l2Book", data)) for spelling in spellings)
    assert len(spellings) > 40
    assert any(spelling.lstrip(b"{ \r\n\t").startswith(b'"data"') for spelling in spellings)
