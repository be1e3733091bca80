"""The venue's matching against a plain reference: the same operations, the same trades, statuses and books."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from math import floor
from typing import Any

import pytest
from sim.reference import Matcher, PlainBook, PlainOrder

from hlconn.sim.exchange import Envelope, Exchange, Rules
from hlconn.sim.ledger import Account
from hlconn.sim.markets import markets_named
from hlconn.sim.matching import Book

BOOK_SEEDS, BOOK_OPERATIONS = range(8), 5_000
EXCHANGE_SEEDS, EXCHANGE_OPERATIONS = range(12), 5_000


def test_a_hundred_thousand_operations_are_compared() -> None:
    assert len(BOOK_SEEDS) * BOOK_OPERATIONS + len(EXCHANGE_SEEDS) * EXCHANGE_OPERATIONS >= 100_000


# The book alone.


class Mine:
    """What a `Book` needs of an order, and how much of it may still trade when a taker comes."""

    def __init__(self, oid: int, is_buy: bool, px: int, sz: int) -> None:
        self.oid, self.is_buy, self.px, self.sz = oid, is_buy, px, sz


def same_book(book: Book[Any], plain: PlainBook, when: str) -> None:
    frozen = book.freeze()
    for is_buy, levels in ((True, frozen.bids), (False, frozen.asks)):
        assert [tuple(level) for level in levels] == plain.levels(is_buy), when
        best = book.best(is_buy)
        ours = plain.side(is_buy)[:1]
        assert (best.oid if best else None) == (ours[0].oid if ours else None), when
    assert frozen.top == (frozen.bids[0] if frozen.bids else None, frozen.asks[0] if frozen.asks else None), when
    assert book.freeze() is frozen, when


@pytest.mark.parametrize("seed", BOOK_SEEDS)
def test_a_book_does_what_two_sorted_lists_do(seed: int) -> None:
    rng = random.Random(seed)
    book, plain = Book[Mine](), PlainBook()
    pairs: dict[int, tuple[Mine, PlainOrder]] = {}
    #: What of an order may trade: most of them whole, some a part at a time, some no more at all.
    rooms: dict[int, int] = {}
    counted: Counter[str] = Counter()
    for number in range(BOOK_OPERATIONS):
        when = f"seed {seed}, operation {number}"
        version, kind = book.version, rng.random()
        is_buy, px, sz = rng.random() < 0.5, 100 + round(rng.gauss(0, 4)), rng.randint(1, 40)
        taker = PlainOrder(number, "", is_buy, px, sz)
        assert book.would_match(is_buy, px) == plain.crosses(taker), when
        if kind < 0.6 and not plain.crosses(taker):
            pairs[number] = Mine(number, is_buy, px, sz), taker
            rooms[number] = rng.choice((sz, sz, sz, sz, 0, rng.randint(0, sz)))
            book.insert(pairs[number][0])
            plain.rest(taker)
            counted["insert"] += 1
        elif kind < 0.75 and pairs:
            oid = rng.choice(list(pairs))
            mine, other = pairs[oid]
            by = rng.choice((mine.sz, rng.randint(1, mine.sz)))
            is_gone = by == mine.sz
            if is_gone and rng.random() < 0.5:
                book.remove(mine)
            else:
                book.reduce(mine, by)
                other.sz -= by
            if is_gone:
                plain.remove(other)
                del pairs[oid]
            counted["shrink"] += 1
        else:
            ours: list[tuple[int, int, int, int]] = []
            left_rooms = dict(rooms)

            def allowed(maker: Mine, rooms: dict[int, int] = left_rooms) -> int:
                if not rooms[maker.oid]:
                    book.remove(maker)
                return rooms[maker.oid]

            def filled(
                maker: Mine, sz: int, rooms: dict[int, int] = left_rooms, made: list[Any] = ours, taker: int = number
            ) -> None:
                rooms[maker.oid] -= sz
                made.append((maker.px, sz, maker.oid, taker))

            left = book.match(is_buy, px, sz, allowed, filled)

            def traded(maker: PlainOrder, sz: int) -> None:
                rooms[maker.oid] -= sz

            trades = plain.match(taker, lambda maker: rooms[maker.oid], traded)
            assert ours == trades, when
            assert left == taker.sz, when
            pairs = {order.oid: pairs[order.oid] for order in plain.bids + plain.asks}
            counted["match"] += bool(trades)
            counted["several"] += len(trades) > 1
        if book.version == version:
            assert kind >= 0.6, when
        same_book(book, plain, when)
        assert set(book.orders) == set(pairs), when
    assert min(counted.values()) > BOOK_OPERATIONS // 50, f"seed {seed}: too tame: {counted}"


# The whole exchange: handlers, statuses, positions and reduce-only orders.

_WHO = [f"0x{number:040x}" for number in range(1, 6)]
_COIN, _ASSET = "SOL", 0
_LOT_DECIMALS = 2  # of SOL: prices have 4 decimals, and five figures of 150.00 leave two of them


class Unsigned(Exchange):
    """Believes an envelope's `signature` to be the signer's address. All else is the exchange."""

    def _who(self, envelope: Envelope) -> tuple[str, Account]:
        assert isinstance(envelope.signature, str)
        return envelope.signature, self.ledger.accounts[envelope.signature]


class Pair:
    """The exchange and the reference, told the same things."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"exchange {seed}")
        self.seed, self.number, self.now_ms = seed, 0, 1_750_000_000_000
        self.exchange = Unsigned(markets_named((_COIN,)), self.now_ms, Rules(), seed, None, debug=False)
        self.plain = Matcher()
        self.accounts = [self.exchange.ledger.open(address) for address in _WHO]
        for account in self.accounts:
            self.exchange.ledger.pay_in(account, "", 10**15)
        self.oid = 0  # the last oid that was given out; none is skipped
        self.counted: Counter[str] = Counter()

    @property
    def when(self) -> str:
        return f"seed {self.seed}, operation {self.number}"

    def execute(self, who: str, action: dict[str, Any]) -> Any:
        self.number += 1
        nonce = self.now_ms + self.number % 1000 - 500
        answer = self.exchange.execute(Envelope(action, nonce + self.number, who, None, None))
        return answer["response"] if answer["status"] == "err" else answer["response"].get("data", {}).get("statuses")

    def trades(self) -> list[tuple[int, int, int, int]]:
        """What the last action traded, from both sides' fills, in the order they happened."""
        makers, made = {}, []
        fills = [fill for account in self.accounts for fill in account.fills]
        for account in self.accounts:
            account.fills.clear()
        for fill in fills:
            if not fill.crossed:
                assert fill.tid not in makers, self.when
                makers[fill.tid] = fill
        for fill in fills:
            if fill.crossed:
                maker = makers.pop(fill.tid)
                same = maker.px == fill.px and maker.sz == fill.sz and maker.is_buy != fill.is_buy
                assert same, self.when
                made.append((fill.px, fill.sz, maker.oid, fill.oid))
        assert not makers, self.when
        return made

    def wish(self) -> tuple[dict[str, Any], PlainOrder]:
        """A random order, as the action writes it and as the reference takes it, with the oid it will get."""
        rng = self.rng
        who, is_buy = rng.choice(_WHO), rng.random() < 0.5
        cents, lots = 15_000 + round(rng.gauss(0, 6)), rng.randint(10, 400)
        tif, reduce_only = rng.choice(("Gtc", "Gtc", "Gtc", "Alo", "Ioc")), rng.random() < 0.3
        wire = {
            "a": _ASSET, "b": is_buy, "p": f"{cents / 100:.2f}", "s": f"{lots / 100:.2f}", "r": reduce_only,
            "t": {"limit": {"tif": tif}},
        }  # fmt: skip
        return wire, PlainOrder(self.oid + 1, who, is_buy, cents * 100, lots, reduce_only, tif)

    def some_oid(self) -> int:
        """Most often of an order that rests, now and then of one that does not or never did."""
        resting = self.plain.bids + self.plain.asks
        if resting and self.rng.random() < 0.9:
            return self.rng.choice(resting).oid
        return self.oid - self.rng.randint(-1, 50)

    def owner(self, oid: int) -> str:
        """Of the order, as a rule."""
        known = self.plain.orders.get(oid)
        return known.who if known is not None and self.rng.random() < 0.95 else self.rng.choice(_WHO)

    def entry(self, order: PlainOrder, trades: list[Any]) -> Any:
        """How the venue answers for an order that was placed; the text of an error is not the reference's business."""
        got = sum(trade[1] for trade in trades)
        if order.status.endswith("Rejected"):
            return "error"
        if order.status == "open":
            return {"resting": {"oid": order.oid}}
        average = floor(Fraction(sum(trade[0] * trade[1] for trade in trades), got) + Fraction(1, 2))
        market = self.exchange.markets[_COIN]
        return {"filled": {"totalSz": market.sz_text(got), "avgPx": market.px_text(average), "oid": order.oid}}

    def place(self) -> None:
        batch = [self.wish() for _ in range(self.rng.choice((1, 1, 1, 3)))]
        who = batch[0][1].who
        answers = self.execute(who, {"type": "order", "orders": [wire for wire, _ in batch], "grouping": "na"})
        made: list[Any] = []
        expected = []
        for _, order in batch:
            self.oid += 1
            order.oid, order.who = self.oid, who
            trades = self.plain.place(order)
            expected.append(self.entry(order, trades))
            self.counted[order.status] += 1
            made += trades
        self.compare([self.short(answer) for answer in answers], expected, made)

    def short(self, answer: Any) -> Any:
        return "error" if isinstance(answer, dict) and "error" in answer else answer

    def cancel(self) -> None:
        oids = [self.some_oid() for _ in range(self.rng.choice((1, 1, 2)))]
        who = self.owner(oids[0])
        cancels = [{"a": _ASSET, "o": oid} for oid in oids]
        answers = self.execute(who, {"type": "cancel", "cancels": cancels})
        expected = ["success" if self.plain.cancel(who, oid) else "error" for oid in oids]
        self.counted["cancel"] += expected.count("success")
        self.compare([self.short(answer) for answer in answers], expected, [])

    def modify(self) -> None:
        oid, always = self.some_oid(), self.rng.random() < 0.5
        who = self.owner(oid)
        wire, new = self.wish()
        new.who = who
        action = {"type": "batchModify", "modifies": [{"oid": oid, "order": wire}], **({"a": True} if always else {})}
        [answer] = self.execute(who, action)
        problem, trades = self.plain.modify(who, oid, new, always)
        self.oid += problem not in ("cannot", "invalid")
        self.counted[f"modify {problem}"] += 1
        if problem in ("cannot", "invalid", "error"):
            start = {"cannot": "Cannot modify", "invalid": "Attempted to", "error": "Error placing new order"}[problem]
            assert answer["error"].startswith(start), self.when
            self.compare([], [], trades)
        else:
            self.compare([self.short(answer)], [self.entry(new, trades)], trades)

    def compare(self, answers: object, expected: object, trades: list[Any]) -> None:
        assert answers == expected, self.when
        assert self.trades() == trades, self.when
        assert self.exchange.books[_COIN].would_match(True, 1 << 40) == bool(self.plain.asks), self.when

    def compare_all(self) -> None:
        book = self.exchange.block.books[_COIN]
        assert [tuple(level) for level in book.bids] == self.plain.levels(True), self.when
        assert [tuple(level) for level in book.asks] == self.plain.levels(False), self.when
        for account in self.accounts:
            assert account.position(_COIN) == self.plain.positions[account.address], self.when
            resting = {o.oid: o.sz for o in self.plain.bids + self.plain.asks if o.who == account.address}
            assert {oid: order.sz for oid, order in account.orders.items()} == resting, self.when

    def compare_statuses(self) -> None:
        ours = {oid: (order.status, order.sz) for oid, order in self.exchange.orders.items()}
        wanted = {oid: (order.status, order.sz) for oid, order in self.plain.orders.items()}
        for oid in sorted(ours.keys() | wanted.keys()):
            assert ours.get(oid) == wanted.get(oid), f"{self.when}: order {oid}"


@pytest.mark.parametrize("seed", EXCHANGE_SEEDS)
def test_the_exchange_does_what_the_reference_does(seed: int) -> None:
    pair = Pair(seed)
    pair.exchange.begin(pair.now_ms + 1)
    first = pair.execute(_WHO[0], {"type": "order", "grouping": "na", "orders": [
        {"a": _ASSET, "b": True, "p": "140", "s": "1", "r": False, "t": {"limit": {"tif": "Gtc"}}}]})  # fmt: skip
    pair.oid = first[0]["resting"]["oid"]
    pair.plain.place(PlainOrder(pair.oid, _WHO[0], True, 1_400_000, 100))
    pair.exchange.commit()
    while pair.number < EXCHANGE_OPERATIONS:
        pair.now_ms += 85
        pair.exchange.begin(pair.now_ms)
        for _ in range(pair.rng.randint(1, 8)):
            pair.rng.choice((pair.place, pair.place, pair.place, pair.cancel, pair.modify))()
        pair.exchange.commit()
        pair.compare_all()
    pair.compare_statuses()
    pair.exchange.check()
    wanted = {
        "open", "filled", "canceled", "iocCancelRejected", "badAloPxRejected", "reduceOnlyRejected", "cancel",
        "modify ", "modify cannot", "modify invalid", "modify error",
    }  # fmt: skip
    rare = {what for what in wanted if pair.counted[what] < 10}
    ended = Counter(order.status for order in pair.exchange.orders.values())
    rare |= {status for status in ("selfTradeCanceled", "reduceOnlyCanceled") if ended[status] < 10}
    assert not rare, f"seed {seed}: too tame: {rare}"
