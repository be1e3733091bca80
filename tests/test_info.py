"""Histories page by page, against models of a venue that cuts its answers, forgets, and goes on meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from info_bodies import FILL, FUNDING, HASH, KNOWN, LEDGER, OTHER, USER, USER_FUNDING

import hlconn
from hlconn import (
    Candle,
    ConfigError,
    DecodeError,
    ErrorCode,
    HistoryGone,
    Instruments,
    QueryFailed,
    SessionConfig,
    info,
)
from hlconn.info import LEDGER_DTYPE, Candles, Info, Rows
from hlconn.session.http import Http
from hlconn.sim import Rules, Venue
from hlconn.types import CANDLE_DTYPE, FILL_DTYPE

MINUTE = 60_000
NOW = 1_790_358_600_000
EXAMPLES = 5_000 if os.environ.get("HLCONN_HYPOTHESIS") == "long" else 40


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(bounded())


def straight(work: Coroutine[Any, Any, None]) -> None:
    """Run what never waits for anything, without a loop."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything a hundred times smaller: what may be cut has 5 rows, and 50 candles are kept."""
    monkeypatch.setattr(info, "_UNCUT", 5)
    monkeypatch.setattr(info, "_CANDLES_KEPT", 50)
    monkeypatch.setattr(info, "_SLACK", 2)


# --- candles ---------------------------------------------------------------------------------------------------------


@dataclass
class CandleVenue:
    """opens: when candles begin, by minute. kept: the newest so many exist. cap: rows in one answer, the oldest of the
    range or, `newest`, the newest. per_query: minutes that pass with each question."""

    opens: list[int]
    kept: int = 50
    cap: int = 5
    newest: bool = False
    per_query: int = 0
    queries: int = 0
    rows: int = 0
    weight: int = 0

    @property
    def now_ms(self) -> int:
        return self.opens[-1] * MINUTE + MINUTE // 2

    def exist(self) -> list[dict[str, Any]]:
        return [self.candle(open_) for open_ in self.opens[-self.kept :]]

    def candle(self, open_: int) -> dict[str, Any]:
        forming = open_ == self.opens[-1]
        px = f"{100 + open_ % 37}.5"
        close = f"{100 + open_ % 37}.25" if forming else px
        return {"t": open_ * MINUTE, "T": open_ * MINUTE + MINUTE - 1, "s": "BTC", "i": "1m", "o": px} | {
            "c": close,
            "h": px,
            "l": px,
            "v": "1.5",
            "n": open_ % 11,
        }

    async def ask(self, request: Mapping[str, Any], **_: object) -> bytes:
        inner = request["req"]
        assert request["type"] == "candleSnapshot"
        assert (inner["coin"], inner["interval"]) == ("BTC", "1m")
        for _step in range(self.per_query):
            self.opens.append(self.opens[-1] + 1)
        end = inner.get("endTime", 1 << 62)
        assert inner["startTime"] <= end
        found = [c for c in self.exist() if c["T"] >= inner["startTime"] and c["t"] <= end]
        found = found[-self.cap :] if self.newest else found[: self.cap]
        self.queries += 1
        self.rows += len(found)
        self.weight += 20 + len(found) // 60
        return orjson.dumps(found)

    def candles(self, start_ms: int | None, end_ms: int | None, rows: int = 5) -> Candles:
        return Candles(self.ask, "BTC", "1m", start_ms, end_ms, rows, lambda: self.now_ms)


async def every(candles: Candles) -> list[Candle]:
    return [candle async for candle in candles]


def expected(venue: CandleVenue, start_ms: int | None, end_ms: int | None) -> list[int]:
    return [
        c["t"] for c in venue.exist() if c["T"] >= (start_ms or 0) and c["t"] <= (1 << 62 if end_ms is None else end_ms)
    ]


minutes = st.integers(0, 80)


@pytest.mark.usefixtures("small")
@given(
    holes=st.sets(st.integers(1, 78)),
    offset=st.integers(0, MINUTE - 1),
    begin=st.none() | minutes,
    length=st.none() | st.integers(0, 90 * MINUTE),
    cap=st.integers(5, 60),
    newest=st.booleans(),
    rows=st.integers(2, 50),
)
@settings(max_examples=EXAMPLES)
def test_every_candle_of_a_range_comes_once_in_order_whatever_answers_are_cut_to(
    holes: set[int], offset: int, begin: int | None, length: int | None, cap: int, newest: bool, rows: int
) -> None:
    first = NOW // MINUTE - 80
    venue = CandleVenue([first + n for n in range(81) if n not in holes], kept=1000, cap=cap, newest=newest)
    start_ms = None if begin is None else (first + begin) * MINUTE + offset
    end_ms = None if length is None else (start_ms or first * MINUTE) + length

    async def work() -> None:
        candles = venue.candles(start_ms, end_ms, rows)
        found = await every(candles)
        wanted = expected(venue, start_ms, end_ms)
        assert [c.open_ms for c in found] == wanted
        newest_ms = venue.opens[-1] * MINUTE
        assert [c.final for c in found] == [t != newest_ms for t in wanted]
        assert candles.last_is_final == (found[-1].final if found else None)
        array = await candles.to_numpy()
        assert array.dtype == CANDLE_DTYPE
        assert array["open_ms"].tolist() == wanted

    straight(work())


@pytest.mark.usefixtures("small")
@given(per_query=st.integers(1, 3), rows=st.integers(20, 50), cap=st.integers(20, 50))
@settings(max_examples=60)
def test_an_end_that_moves_while_it_is_read_leaves_nothing_out_and_nothing_unfinished_in_the_middle(
    per_query: int, rows: int, cap: int
) -> None:
    first = NOW // MINUTE
    venue = CandleVenue([first + n for n in range(60)], kept=1000, cap=cap, per_query=per_query)

    async def work() -> None:
        found = await every(venue.candles(first * MINUTE, None, rows))
        assert [c.open_ms for c in found] == list(range(first * MINUTE, found[-1].open_ms + 1, MINUTE))
        assert found[-1].open_ms >= (first + 60) * MINUTE
        assert [c.final for c in found] == [True] * (len(found) - 1) + [False]
        assert all(c.close == c.open for c in found[:-1]), "each was read again after it had ended"

    straight(work())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("cap", [5, 500])
def test_a_range_that_the_venue_keeps_no_more_is_an_error_that_names_the_oldest(newest: bool, cap: int) -> None:
    first = NOW // MINUTE
    venue = CandleVenue([first + n for n in range(200)], kept=50, cap=cap, newest=newest)
    oldest_ms = (first + 150) * MINUTE

    async def work() -> None:
        for start, end in ((0, 120), (0, 199), (140, None), (149, 155)):
            end_ms = None if end is None else (first + end) * MINUTE
            with pytest.raises(HistoryGone, match="the oldest there is") as raised:
                await every(venue.candles((first + start) * MINUTE, end_ms))
            assert raised.value.oldest_ms == oldest_ms
        assert [c.open_ms for c in await every(venue.candles(oldest_ms, None))] == expected(venue, oldest_ms, None)
        assert [c.open_ms for c in await every(venue.candles(None, None))] == expected(venue, None, None)

    run(work)


@pytest.mark.usefixtures("small")
def test_a_coin_that_is_younger_than_the_range_begins_with_its_first_candle() -> None:
    first = NOW // MINUTE
    venue = CandleVenue([first + n for n in range(30)], kept=50)

    async def work() -> None:
        found = await every(venue.candles((first - 10_000) * MINUTE, None))
        assert [c.open_ms for c in found] == expected(venue, None, None)
        assert await every(venue.candles((first - 900) * MINUTE, (first - 10) * MINUTE)) == []
        assert await every(venue.candles((first + 900) * MINUTE, (first + 910) * MINUTE)) == []

    run(work)


def test_a_bad_interval_or_range_is_refused_before_anything_is_sent() -> None:
    async def ask(request: Mapping[str, Any], **_: object) -> bytes:
        raise AssertionError("sent")

    asking = Info(ask, USER)
    for interval in ("2m", "1M ", "", "1H", None):
        with pytest.raises(QueryFailed) as raised:
            asking.candles("BTC", interval, 0)  # type: ignore[arg-type]
        assert raised.value.code is ErrorCode.INVALID_TIME_INTERVAL
    for start, end in ((-1, None), (5, 4), (1.5, None), (True, None), (0, 1 << 60)):
        with pytest.raises(ConfigError):
            asking.candles("BTC", "1m", start, end)  # type: ignore[arg-type]
        with pytest.raises(ConfigError):
            asking.fills(start, end)  # type: ignore[arg-type]
    for rows in (1, 5001, 2.5):
        with pytest.raises(ConfigError):
            asking.candles("BTC", "1m", 0, rows=rows)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        asking.candles(5, "1m", 0)  # type: ignore[arg-type]


def test_few_questions_are_asked_for_what_few_can_answer() -> None:
    first = NOW // MINUTE - 20_000
    venue = CandleVenue([first + n for n in range(20_001)], kept=20_001, cap=5000)

    async def work() -> None:
        asking = Info(venue.ask, clock=lambda: venue.now_ms)
        cases = [(100, 1), (499, 1), (500, 2), (4_999, 2)]
        for count, most in cases:
            venue.queries = 0
            found = await asking.candles("BTC", "1m", (first + 20_000 - count + 1) * MINUTE).to_numpy()
            assert (len(found), venue.queries <= most) == (count, True), (count, venue.queries)
        venue.queries = venue.weight = 0
        found = await asking.candles("BTC", "1m", first * MINUTE, (first + 19_999) * MINUTE).to_numpy()
        assert (len(found), venue.queries) == (20_000, 5)
        assert venue.weight < 1.15 * (4 * 20 + 20_000 / 60)

    run(work)


@pytest.mark.parametrize(("count", "cap"), [(20_000, 5_000), (3_000, 500)])
def test_20_000_candles_of_the_venue_in_a_box_are_its_history_through_429s_cuts_and_a_moving_end(
    count: int, cap: int
) -> None:
    venue = Venue(seed=3, stepped=True, traders=False, rules=Rules(candles_kept=25_000, candle_rows=cap))
    venue.invent_past("BTC", count)
    begin_ms = int(venue.now_ms()) // MINUTE * MINUTE - count * MINUTE
    venue.fault("http_status", channel="info", status=429, p=0.15, count=None)
    venue.fault("http_status", channel="info", status=429, p=0.05, count=None, retry_after_s=20)
    venue.fault("http_status", channel="info", status=503, p=0.1, count=None)
    venue.fault("http_cut", channel="info", p=0.1, count=None)
    answering = venue.request

    def request(path: str, payload: object, reply: Any) -> None:
        venue.rest("BTC", "A", 99_000, 1)
        venue.cross("BTC", "B", "0.5")  # the candle of now is another one at each question
        answering(path, payload, reply)
        venue.advance(7_000)

    venue.request = request  # type: ignore[method-assign]
    weights: list[float] = []

    class Scales:
        """What the venue charges: 20, and one for every 60 rows. A refusal is charged nothing."""

        async def wait(self, request: Mapping[str, Any]) -> None: ...
        def take(self, request: Mapping[str, Any]) -> None: ...
        def refused(self, retry_after_s: float | None) -> None: ...
        def answered(self, request: Mapping[str, Any], rows: int) -> None:
            weights.append(20 + rows / 60)

    async def work() -> None:
        slept: list[float] = []

        async def sleep(delay_s: float) -> None:
            slept.append(delay_s)

        async with venue, Http(venue.endpoints, SessionConfig(query_tries=20), Scales()) as http:
            http.queries._sleep = sleep
            asking = Info(http.ask, clock=lambda: int(venue.now_ms()))
            candles = asking.candles("BTC", "1m", begin_ms)
            array = await candles.to_numpy()
            history = venue.candles["BTC"].between("1m", begin_ms, 1 << 62, int(venue.now_ms()))
            assert len(array) >= count + 1
            assert candles.last_is_final is False
            done = len(array) - 1  # the last one went on
            assert array["open_ms"].tolist() == [row["t"] for row in history[: len(array)]]
            for name, key in zip(("open", "high", "low", "close", "volume"), "ohlcv", strict=True):
                assert array[name][:done].tolist() == [float(row[key]) for row in history[:done]], name
            assert array["n"][:done].tolist() == [row["n"] for row in history[:done]]
            assert slept, "something was in the way"
            pages = -(-count // cap)
            assert sum(weights) < 1.25 * (20 * pages + count / 60) + 20 * len(slept)
            if cap == 5_000:
                assert sum(weights) < 1_200, "a minute's budget"
            listed = await every(asking.candles("BTC", "1m", begin_ms + (count - 100) * MINUTE))
            assert [c.open_ms for c in listed][:100] == array["open_ms"][count - 100 : count].tolist()

    run(work)


# --- rows ------------------------------------------------------------------------------------------------------------


@dataclass
class RowVenue:
    """rows: of any type, with a time. cap: in one answer, the oldest of a range, or with `descending` the newest.
    exclusive: a start is not of its range."""

    rows: list[dict[str, Any]]
    time: Callable[[dict[str, Any]], int]
    cap: int = 5
    descending: bool = False
    exclusive: bool = False
    requests: list[Mapping[str, Any]] = field(default_factory=list)

    async def ask(self, request: Mapping[str, Any], **_: object) -> bytes:
        self.requests.append(request)
        start, end = request.get("startTime", 0) + self.exclusive, request.get("endTime", 1 << 62)
        assert start <= end + 1
        found = [row for row in self.rows if start <= self.time(row) <= end]
        return orjson.dumps(found[::-1][: self.cap] if self.descending else found[: self.cap])


def fills(times: list[int]) -> list[dict[str, Any]]:
    return [FILL | {"time": time, "tid": n, "oid": 1000 + n} for n, time in enumerate(sorted(times))]


times_ms = st.lists(st.integers(1, 40), max_size=60)


@pytest.mark.usefixtures("small")
@given(
    times=times_ms, cap=st.integers(5, 9), descending=st.booleans(), start=st.integers(0, 20), end=st.integers(0, 30)
)
@settings(max_examples=2 * EXAMPLES)
def test_every_row_of_a_range_comes_once_in_order_whatever_answers_are_cut_to(
    times: list[int], cap: int, descending: bool, start: int, end: int
) -> None:
    venue = RowVenue(fills(times), lambda row: row["time"], cap, descending)

    async def work() -> None:
        found = Info(venue.ask, USER).fills(start, start + end)
        came = [(fill.time, fill.tid) async for fill in found]
        tids = [tid for _, tid in came]
        wanted = [row for row in venue.rows if start <= row["time"] <= start + end]
        crowded = {ms for ms in times if times.count(ms) > cap and start <= ms <= start + end}
        assert set(found.cut_ms) <= {ms for ms in times if times.count(ms) >= cap}
        assert crowded <= set(found.cut_ms), "what is lost is told"
        assert len(tids) == len(set(tids)), "once"
        assert came == sorted(came, key=lambda row: row[0] if descending else row), "in order"
        lost = {row["tid"] for row in wanted} - set(tids)
        assert lost == {row["tid"] for row in wanted if row["time"] in crowded} - set(tids)
        array = await found.to_numpy()
        assert array.dtype == FILL_DTYPE
        assert array["tid"].tolist() == tids

    straight(work())


@pytest.mark.usefixtures("small")
@given(times=st.lists(st.integers(1, 40), max_size=40, unique=True))
@settings(max_examples=50)
def test_a_venue_whose_range_begins_after_its_start_loses_nothing_but_that(times: list[int]) -> None:
    venue = RowVenue(fills(times), lambda row: row["time"], exclusive=True)

    async def work() -> None:
        assert [fill.time async for fill in Info(venue.ask, USER).fills(0)] == sorted(times)

    straight(work())


@pytest.mark.usefixtures("small")
def test_each_history_is_paged_by_its_own_time_and_has_an_array() -> None:
    when = sorted([3, 3, 7, 7, 7, 8, 9, 9, 20, 21, 22, 23, 30])
    ledger = [{"time": n, "hash": HASH, "delta": {"type": "deposit", "usdc": f"{at}.5"}} for at, n in enumerate(when)]
    slices = [{"fill": fill, "twapId": n} for n, fill in enumerate(fills(when))]
    fundings = [USER_FUNDING | {"time": n, "hash": f"0x{at:064x}"} for at, n in enumerate(when)]
    rates = [FUNDING | {"time": n, "premium": f"0.{at:03d}"} for at, n in enumerate(when)]
    cases: list[tuple[str, list[Any], Callable[[Any], int], Callable[[Info], Rows[Any]], str, list[Any]]] = [
        ("userNonFundingLedgerUpdates", ledger, lambda r: r["time"], lambda i: i.ledger(0), "usdc", []),
        (
            "userTwapSliceFillsByTime",
            slices,
            lambda r: r["fill"]["time"],
            lambda i: i.twap_slice_fills(0),
            "twap_id",
            [],
        ),
        ("userFunding", fundings, lambda r: r["time"], lambda i: i.user_funding(0), "hash", []),
        ("fundingHistory", rates, lambda r: r["time"], lambda i: i.funding_history("BTC", 0), "premium", []),
    ]

    async def work() -> None:
        for kind, rows, time, call, column, _ in cases:
            venue = RowVenue(rows, time)
            found = call(Info(venue.ask, USER))
            assert len([row async for row in found]) == len(when), kind
            assert {request["type"] for request in venue.requests} == {kind}
            assert len(venue.requests) > 2
            array = await found.to_numpy()
            assert array["time"].tolist() == when
            assert len(set(array[column].tolist())) == len(when), kind
            assert found.cut_ms == []

    run(work)


def test_historical_orders_come_in_one_answer_oldest_first() -> None:
    rows = [KNOWN | {"statusTimestamp": n} for n in (9, 7, 7, 3)]
    venue = RowVenue(rows, lambda row: row["statusTimestamp"], cap=2_000)

    async def work() -> None:
        found = Info(venue.ask, USER).historical_orders()
        assert [row.status_timestamp async for row in found] == [3, 7, 7, 9]
        assert (await found.to_numpy())["status_timestamp"].tolist() == [3, 7, 7, 9]
        assert venue.requests == [{"type": "historicalOrders", "user": USER}] * 2

    run(work)


def test_an_empty_history_is_an_empty_array_of_the_same_layout() -> None:
    async def ask(request: Mapping[str, Any], **_: object) -> bytes:
        return b"[]"

    async def work() -> None:
        asking = Info(ask, USER)
        assert (await asking.fills(0).to_numpy()).dtype == FILL_DTYPE
        assert (await asking.ledger(0).to_numpy()).dtype == LEDGER_DTYPE
        assert (await asking.candles("BTC", "1m", 0).to_numpy()).dtype == CANDLE_DTYPE
        assert [row async for row in asking.twap_slice_fills(0)] == []

    run(work)


def test_the_ledger_s_array_has_nan_where_there_is_no_amount() -> None:
    async def ask(request: Mapping[str, Any], **_: object) -> bytes:
        return orjson.dumps(LEDGER)

    async def work() -> None:
        array = await Info(ask, USER).ledger(0).to_numpy()
        assert array["type"].tolist() == [row["delta"]["type"].encode() for row in LEDGER]
        for column in ("usdc", "amount", "fee"):
            wanted = [float(row["delta"].get(column, "nan")) for row in LEDGER]
            np.testing.assert_array_equal(array[column], wanted)

    run(work)


def test_what_cannot_be_read_in_the_middle_of_a_history_is_a_decode_error_after_what_came_before() -> None:
    answers = iter([orjson.dumps(fills([*range(1, 501)])), b'[{"coin":"BTC"}]'])

    async def ask(request: Mapping[str, Any], **_: object) -> bytes:
        return next(answers)

    async def work() -> None:
        seen = []
        with pytest.raises(DecodeError, match="userFillsByTime"):
            async for fill in Info(ask, USER).fills(0):
                seen.append(fill.tid)  # noqa: PERF401 (what came before the error is what this is about)
        assert seen == list(range(499))

    run(work)


def test_9_000_fills_of_the_venue_in_a_box_come_once_although_many_share_a_ms() -> None:
    venue = Venue(seed=3, stepped=True, traders=False)
    party = venue.account()
    venue.rest("BTC", "B", 100_000, 1)
    account = venue.exchange.ledger.accounts[party.address]
    template = None
    rng = random.Random(5)

    async def work() -> None:
        nonlocal template
        async with venue, Http(venue.endpoints, SessionConfig()) as http:
            signer = hlconn.Signer(party.key, "testnet")
            coins = Instruments.from_meta(venue.info(type="meta"))
            order = hlconn.Order("BTC", hlconn.Side.SELL, 100_000, "0.01", hlconn.Tif.IOC)
            action = hlconn.action.order([order], coins)
            pipe = venue.pipe()
            pipe.send(signer.sign(action, nonce=int(venue.now_ms())).post(1))
            venue.block()
            template = account.fills[-1]
            account.fills.clear()
            time_ms = template.time_ms
            for tid in range(9_000):
                time_ms += rng.choice((0, 0, 0, 1, 500))
                account.fills.append(replace(template, time_ms=time_ms, tid=tid))
            asking = Info(http.ask, party.address)
            venue.fault("http_status", channel="info", status=503, count=3)
            array = await asking.fills(template.time_ms).to_numpy()
            assert array["tid"].tolist() == list(range(9_000))
            assert [f.tid async for f in asking.fills(int(array["time"][50]), int(array["time"][99]))] == [
                tid for tid in range(9_000) if array["time"][50] <= array["time"][tid] <= array["time"][99]
            ]
            assert len(await asking.user_fills()) == 2_000

    run(work)


# --- Info ------------------------------------------------------------------------------------------------------------


def test_addresses_are_checked_and_sent_in_lower_case_and_never_shown() -> None:
    asked: list[Mapping[str, Any]] = []

    async def ask(request: Mapping[str, Any], **_: object) -> bytes:
        asked.append(request)
        return b'{"role":"user"}'

    async def work() -> None:
        asking = Info(ask)
        await asking.user_role("0x" + "AB" * 20)
        assert asked == [{"type": "userRole", "user": "0x" + "ab" * 20}]
        secret = "0x" + "5a" * 32
        for bad in (secret, "0x12", "", OTHER + " ", 5):
            with pytest.raises(ConfigError) as raised:
                await asking.user_role(bad)  # type: ignore[arg-type]
            assert "5a5a" not in str(raised.value)
        with pytest.raises(ConfigError, match="say whose"):
            await asking.user_role()
        for figures, mantissa in ((1, None), (6, None), (5, 1), (4, 2), (None, 2)):
            with pytest.raises(ConfigError):
                await asking.l2_book("BTC", n_sig_figs=figures, mantissa=mantissa)
        assert len(asked) == 1

    run(work)


def test_a_query_joins_unless_it_has_to_be_fresh_and_waits_unless_it_must_not() -> None:
    how: list[tuple[bool, bool]] = []

    async def ask(request: Mapping[str, Any], *, join: bool, wait: bool) -> bytes:
        how.append((join, wait))
        return b'{"a":"1.50"}'

    async def work() -> None:
        asking = Info(ask)
        assert await asking.query({"type": "x"}) == {"a": "1.50"}
        await asking.query({"type": "x"}, fresh=True)
        asking.wait = False
        assert await asking.all_mids() == {"a": 1.5}
        assert how == [(True, True), (False, True), (True, False)]

    run(work)


def every_request(venue: Venue) -> Iterator[str]:
    yield from (
        "all_mids",
        "meta",
        "perp_dexs",
        "spot_meta",
        "exchange_status",
        "all_perp_metas",
        "meta_and_asset_ctxs",
    )
    yield from ("spot_meta_and_asset_ctxs", "clearinghouse_state", "spot_clearinghouse_state", "open_orders")
    yield from ("frontend_open_orders", "user_fills", "user_role", "user_rate_limit", "user_fees", "extra_agents")
    yield from ("sub_accounts", "referral", "user_abstraction", "user_vault_equities")


def test_a_client_answers_typed_questions_of_the_venue_in_a_box_and_refreshes_its_instruments() -> None:
    async def work() -> None:
        async with Venue(seed=3, speed=20.0) as venue:
            party = venue.account()
            venue.sub_account(party)
            config = SessionConfig(instruments_every_s=0.02)
            async with hlconn.connect(venue.endpoints, key=party.key, config=config) as hl:
                for name in every_request(venue):
                    assert await getattr(hl.info, name)() is not None, name
                assert (await hl.info.l2_book("BTC")).levels[0]  # type: ignore[union-attr]
                assert await hl.info.l2_book("NONE") is None
                assert (await hl.info.sub_accounts())[0].master == party.address
                assert await hl.info.max_builder_fee(OTHER) == 0
                assert (await hl.info.order_status(1)).order is None
                heard = asyncio.Event()
                hl.instruments.on_change(lambda change: heard.set() if change.kind == "added" else None)
                venue.list_coin("HYPE")
                await asyncio.wait_for(heard.wait(), 20)
                assert "HYPE" in hl.instruments
                assert await hl.instruments.refresh() == ()
            with pytest.raises(hlconn.Closed):
                await hl.info.all_mids()

    run(work)
