"""rows.pyx: messages and answers of many like objects, against orjson and float, in every spelling, cut and corrupted.

They reach the core as exact-size heap memory (`captures.exact`): the sanitized build sees a read past the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import captures
import numpy as np
import oracles
import orjson
import pytest
from captures import COINS, exact
from numpy.typing import NDArray

from hlconn import ConfigError, DecodeError, classify_status
from hlconn._core import rows as core
from hlconn._core.classify_table import STATUSES
from hlconn._core.rows import Mids, Rows
from hlconn.types import OrderStatus

BODIES: dict[str, Callable[[Any], NDArray[Any]]] = {
    "candleSnapshot": core.read_candles,
    "userFills": core.read_fills,
    "fundingHistory": core.read_fundings,
    "userFunding": core.read_user_fundings,
    "historicalOrders": core.read_orders,
}

each_channel = pytest.mark.parametrize("channel", captures.ROW_DATA)
each_body = pytest.mark.parametrize("info", captures.ROW_BODIES)


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Bit for bit, but for the padding between the fields; any nan is as good as another."""
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and all(
            np.array_equal(a[f], b[f], equal_nan=True) and np.array_equal(np.signbit(a[f]), np.signbit(b[f]))
            if a.dtype[f] == np.float64
            else np.array_equal(a[f], b[f])
            for f in a.dtype.names or ()
        )
    )


def assert_message(channel: str, message: bytes, rows: Rows | None = None) -> None:
    got = (rows or Rows(channel)).read(exact(message))
    want = oracles.read_row_message(channel, message)
    assert same(got, want), f"\n{got}\n{want}\n{message!r}"


def assert_body(info: str, body: bytes) -> None:
    got, want = BODIES[info](exact(body)), oracles.read_row_body(info, body)
    assert same(got, want), f"\n{got}\n{want}\n{body!r}"


# --- the values ---------------------------------------------------------------------------------------------------


@each_channel
def test_a_message_is_read_as_orjson_and_float_read_it_in_every_spelling(channel: str) -> None:
    rows = Rows(channel)
    rng = Random(channel)
    for coin in COINS:
        for seed in range(6):
            message = captures.row_message(channel, coin, seed)
            assert_message(channel, message, rows)
            assert_message(channel, captures.respell(message, rng), rows)


@each_body
def test_an_answer_is_read_as_orjson_and_float_read_it_in_every_spelling(info: str) -> None:
    rng = Random(info)
    for coin in COINS:
        for seed in range(4):
            body = captures.row_body(info, coin, seed)
            assert_body(info, body)
            assert_body(info, captures.respell(body, rng))


def test_captured_messages_are_read_as_orjson_and_float_read_them(shared_fixtures: Path) -> None:
    rng = Random(5)
    count = 0
    for path in sorted((shared_fixtures / "ws").glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            channel = orjson.loads(line).get("channel") if line else None
            if channel not in captures.ROW_DATA:
                continue
            count += 1
            assert_message(channel, line)
            assert_message(channel, captures.respell(line, rng))
    assert count > 10


@each_body
def test_captured_answers_are_read_as_orjson_and_float_read_them(info: str, shared_fixtures: Path) -> None:
    for line in (shared_fixtures / "info" / f"{info}.jsonl").read_text().splitlines():
        body = json.loads(line)["response_text"].encode()
        assert_body(info, body)
        assert_body(info, captures.respell(body, Random(7), escapes=False))


def test_what_stands_around_the_rows_is_told() -> None:
    rows = Rows("userFills")
    rows.read(b'{"channel":"userFills","data":{"isSnapshot":true,"user":"0xab","fills":[]}}')
    assert (rows.is_snapshot, rows.user, rows.dex) == (True, "0xab", "")
    rows.read(b'{"channel":"userFills","data":{"user":"0xc","fills":[]}}')
    assert (rows.is_snapshot, rows.user) == (False, "0xc")
    rows = Rows("assetCtxs")
    assert len(rows.read(b'{"channel":"assetCtxs","data":{"dex":"xyz","ctxs":[]}}')) == 0
    assert (rows.is_snapshot, rows.user, rows.dex) == (False, "", "xyz")


# --- what may come --------------------------------------------------------------------------------------------------


def variants(message: bytes) -> list[bytes]:
    """The message with an unknown key in each object, and without each key, and with something else for its value."""
    values: tuple[Any, ...] = ("gone", "longer", None, True, -1, "x", [], {}, 1.5, "-12.50", ["1.0", "2.0"])
    out = []
    for path in captures.objects_of(orjson.loads(message)):
        for key in (None, *captures.at(orjson.loads(message), path)):
            for put in values if key else ("gone",):
                value = orjson.loads(message)
                inner = captures.at(value, path)
                if key is None:
                    inner["someDayNew"] = {"a": [1, None, "}"], "b": -1.5e3}
                elif put == "gone":
                    del inner[key]
                elif put == "longer":  # another key, which begins alike
                    inner[key + "X"] = inner.pop(key)
                else:
                    inner[key] = put
                out.append(captures.wire(value))
    return out


@each_channel
def test_unknown_keys_are_read_over_and_missing_or_wrong_ones_are_told(channel: str) -> None:
    rows = Rows(channel)
    refusals = 0
    for seed in (1, 2):
        for message in variants(captures.row_message(channel, seed=seed)):
            try:
                want = oracles.read_row_message(channel, message)
            except oracles.Refused as why:
                refusals += 1
                with pytest.raises(DecodeError) as info:
                    rows.read(exact(message))
                assert info.value.channel == channel
                if "expected" in str(why):
                    assert "missing" in info.value.reason or "shape" in info.value.reason
                continue
            assert same(rows.read(exact(message)), want), message
    assert refusals > 20


@each_body
def test_of_an_answer_too(info: str) -> None:
    refusals = 0
    full = next(body for seed in range(9) if len(body := captures.row_body(info, seed=seed)) > 300)
    for body in variants(full):
        try:
            want = oracles.read_row_body(info, body)
        except oracles.Refused:
            refusals += 1
            with pytest.raises(DecodeError) as error:
                BODIES[info](exact(body))
            assert error.value.channel == info
            continue
        assert same(BODIES[info](exact(body)), want), body
    assert refusals > 10


CANDLE = b'{"t":1,"T":2,"s":"BTC","i":"1m","o":"1.0","c":"2.0","h":"3.0","l":"0.5","v":"7.25","n":4}'


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"n":4', b'"m":4', "a required field is missing: n"),
        (b'"1.0"', b'"1.0x"', "o: not the expected shape"),
        (b'"1.0"', b'"1e999"', "o: a number that cannot be one"),
        (b'"BTC"', b'"%s"' % (33 * b"B"), "s: deeper, longer"),
        (b'"BTC"', b'"\\ud800"', "s: deeper, longer"),
        (b'"n":4', b'"n":1234567890123456789', "n: deeper, longer"),
        (b'"n":4', b'"n":4.5', "n: not the expected shape"),
        (b'"n":4}', b'"n":4', "not the expected shape"),
        (b'"n":4}', b'"n":4}]', "not the expected shape"),
        (b'"n":4}', b'"n":4,}', "not the expected shape"),
        (b'"n":4', b'"n":4,"x":' + 65 * b"[" + 65 * b"]", "deeper"),
    ],
)
def test_what_is_wrong_with_a_candle_is_said(old: bytes, new: bytes, reason: str) -> None:
    body = CANDLE.replace(old, new, 1)
    with pytest.raises(DecodeError) as info:
        core.read_candles(exact(body))
    assert reason in info.value.reason
    assert info.value.channel == "candleSnapshot"
    assert body[info.value.offset :].startswith(info.value.excerpt)


@pytest.mark.parametrize(
    "text", [b"", b" ", b"null", b"{}", b"[", b"[{}]", b"[null]", b"[1]", b'"x"', b"[[]]", b"\xff"]
)
def test_what_is_no_list_of_candles_is_refused(text: bytes) -> None:
    with pytest.raises(DecodeError):
        core.read_candles(exact(text))


def test_a_key_said_twice_counts_the_last_time_and_leaves_nothing_of_the_first() -> None:
    head, tail = b'{"channel":"orderUpdates","data":[', b"]}"
    order = orjson.loads(captures.row_message("orderUpdates", seed=2))["data"][0]["order"]
    text = captures.wire(order)[:-1] + b',"coin":"LONGER","cloid":"0x1","cloid":null,"coin":"E"}'
    row = Rows("orderUpdates").read(head + b'{"order":' + text + b',"status":"open","statusTimestamp":1}' + tail)[0]
    assert (row["coin"], row["cloid"]) == (b"E", b"")
    for twice in (b'"order":' + text + b',"order":' + text, b'"order":' + text):
        message = head + b"{" + twice + b',"status":"open","statusTimestamp":1}' + tail
        if twice.count(b'"order"') == 1:
            assert len(Rows("orderUpdates").read(message)) == 1
            continue
        with pytest.raises(DecodeError, match="order: not the expected shape"):
            Rows("orderUpdates").read(message)


def test_words_for_people_are_cut_between_characters() -> None:
    fill = orjson.loads(captures.row_message("userFills", seed=3))["data"]["fills"][0]
    for length in range(28, 36):
        fill["dir"] = "x" * length + "\N{ROCKET}\N{ROCKET}"
        for body in (captures.wire([fill]), captures.respell(captures.wire([fill]), Random(length))):
            assert_body("userFills", body)
            assert core.read_fills(body)["dir"][0].decode().rstrip("\N{ROCKET}") == "x" * min(length, 32)


# --- hostile input ----------------------------------------------------------------------------------------------------


@each_channel
def test_a_message_cut_anywhere_is_refused_and_what_follows_is_read(channel: str) -> None:
    rows = Rows(channel)
    message = captures.row_message(channel, seed=2)
    for cut in range(len(message)):
        with pytest.raises(DecodeError) as info:
            rows.read(exact(message[:cut]))
        assert 0 <= info.value.offset <= cut
    assert_message(channel, message, rows)


@each_channel
def test_a_damaged_message_is_refused_or_read_as_orjson_reads_it(channel: str) -> None:
    rng = Random(channel)
    rows = Rows(channel)
    read = 0
    for seed in range(300):
        message = captures.damaged(captures.row_message(channel, COINS[seed % len(COINS)], seed % 7), rng)
        try:
            got = rows.read(exact(message))
        except DecodeError:
            continue
        read += 1
        try:
            oracles.load(message)
            message.decode()
        except (oracles.Refused, UnicodeDecodeError):
            continue  # what the core does not look at in values that it skips, and bytes that it keeps as they are
        assert same(got, oracles.read_row_message(channel, message)), message
    assert read > 5


def test_another_channel_is_refused() -> None:
    with pytest.raises(DecodeError, match="channel: another channel"):
        Rows("candle").read(captures.row_message("activeAssetCtx"))
    with pytest.raises(ConfigError, match="Rows reads one of candle"):
        Rows("l2Book")


def test_rows_are_read_only_and_the_next_message_reuses_them() -> None:
    rows = Rows("candle")
    first = rows.read(captures.row_message("candle", seed=1))
    kept = first.copy()
    second = rows.read(captures.row_message("candle", seed=2))
    assert second is first
    assert not same(first, kept)
    with pytest.raises(ValueError, match="read-only"):
        first["n"] = 1


def test_an_order_of_keys_is_learnt_and_any_other_is_read_too() -> None:
    rng = Random(11)
    rows = Rows("userFills")
    value = orjson.loads(captures.row_message("userFills", seed=5))
    fills = [captures.fill(rng, COINS[0], captures.T0 + i) for i in range(60)]
    for i, one in enumerate(fills):
        items = list(one.items())
        if i % 3 == 1:
            items.sort()
        elif i % 3 == 2:
            rng.shuffle(items)
        fills[i] = dict(items)
    value["data"]["fills"] = fills
    assert_message("userFills", captures.wire(value), rows)
    assert_message("userFills", captures.row_message("userFills", seed=6), rows)


def test_every_status_of_the_table_and_each_ending_has_its_meaning() -> None:
    one = orjson.loads(captures.row_message("orderUpdates", seed=2))["data"][0]
    words = [*STATUSES, *captures.NEW_STATUSES]
    body = captures.wire([one | {"status": word} for word in words])
    assert_body("historicalOrders", body)
    rows = core.read_orders(body)
    assert rows["code"].tolist() == [classify_status(word) for word in words]
    assert rows["status"].tolist() == [core.status_of(word) for word in words]
    assert rows["status_text"].tolist() == [word.encode() for word in words]
    assert core.status_of("filled") is OrderStatus.FILLED


# --- mid prices -------------------------------------------------------------------------------------------------------


def shown(mids: Mids) -> dict[str, float]:
    assert len(mids) == len(mids.index) == len(mids.px) == len(mids.coins)
    assert list(mids.index.values()) == list(range(len(mids)))
    return {coin: px for coin, px in zip(mids.coins, mids.px.tolist(), strict=True) if px == px}


def test_mid_prices_are_those_of_the_last_message_whatever_its_order_and_which_changed_is_told() -> None:
    rng = Random(3)
    mids = Mids()
    names = [coin.name for coin in COINS] + [f"@{i}" for i in range(300)] + ["", "x" * 64, "\N{ROCKET}", 'a\\b"c']
    known: list[str] = []
    before: dict[str, float] = {}
    for turn in range(60):
        some = rng.sample(names, rng.choice((len(names), len(names) - 1, 5, 0, rng.randint(1, len(names)))))
        if turn % 3:
            some = [name for name in names if name in some]
        message = captures.all_mids(rng, some)
        if turn % 2:
            message = captures.respell(message, rng)
        want = {coin: float(px) for coin, px in orjson.loads(message)["data"]["mids"].items()}
        changed = mids.read(exact(message)).tolist()
        known += [name for name in want if name not in known]
        assert shown(mids) == want
        assert set(mids.index) == set(known)
        assert changed == sorted(changed)
        assert {mids.coins[row] for row in changed} == {
            name for name in {*before, *want} if before.get(name) != want.get(name)
        }
        before = want
    assert mids.messages == 60
    assert mids.index["BTC"] == mids.coins.index("BTC")


def test_a_row_stays_the_coins_own_and_prices_are_found_by_name() -> None:
    mids = Mids()
    mids.read(b'{"channel":"allMids","data":{"mids":{"A":"1.5","B":"2.5"}}}')
    assert (mids["A"], mids["B"], mids.index) == (1.5, 2.5, {"A": 0, "B": 1})
    px = mids.px
    assert mids.read(b'{"channel":"allMids","data":{"mids":{"B":"2.5","A":"1.75"}}}').tolist() == [0]
    assert mids.px is px
    assert px.tolist() == [1.75, 2.5]
    assert mids.read(b'{"channel":"allMids","data":{"dex":"xyz","mids":{"C":"3.0","B":"2.5","C":"4.0"}}}').tolist() == [
        0,
        2,
    ]
    assert mids.dex == "xyz"
    np.testing.assert_array_equal(mids.px, [np.nan, 2.5, 4.0])
    assert mids.read(b'{"channel":"allMids","data":{"mids":{"B":"2.5","C":"4.0"}}}').tolist() == []
    assert mids.dex == ""
    with pytest.raises(KeyError):
        mids["D"]
    with pytest.raises(ValueError, match="read-only"):
        mids.px[0] = 1.0


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"2.5"', b'"2.5x"', "mids: not the expected shape"),
        (b'"2.5"', b"null", "mids: not the expected shape"),
        (b'"2.5"', b'"1e999"', "mids: a number that cannot be one"),
        (b'"B"', b'"%s"' % (65 * b"B"), "mids: deeper, longer"),
        (b'"B"', b'"\\udc00"', "mids: deeper, longer"),
        (b"mids", b"nids", "a required field is missing: mids"),
        (b"allMids", b"candle", "channel: another channel"),
        (b"}}}", b"}}", "not the expected shape"),
        (b"}}}", b',"mids":{}}}}', "not the expected shape"),
        (b"}}}", b'},"mids":{}}}', "mids: not the expected shape"),
    ],
)
def test_what_is_wrong_with_mid_prices_is_said_and_changes_nothing(old: bytes, new: bytes, reason: str) -> None:
    mids = Mids()
    mids.read(b'{"channel":"allMids","data":{"mids":{"A":"1.5","Z":"9.0"}}}')
    message = b'{"channel":"allMids","data":{"mids":{"NEW":"7.0","A":"1.75","B":"2.5"}}}'.replace(old, new)
    with pytest.raises(DecodeError) as info:
        mids.read(exact(message))
    assert reason in info.value.reason
    assert info.value.channel == "allMids"
    assert shown(mids) == {"A": 1.5, "Z": 9.0}
    assert mids.messages == 1


def test_mid_prices_cut_anywhere_or_damaged_change_nothing_or_are_what_orjson_reads() -> None:
    rng = Random(9)
    names = [coin.name for coin in COINS]
    mids = Mids()
    message = captures.all_mids(rng, names)
    mids.read(message)
    before = shown(mids)
    for cut in range(len(message)):
        with pytest.raises(DecodeError):
            mids.read(exact(message[:cut]))
    assert shown(mids) == before
    for _ in range(500):
        text = captures.damaged(captures.all_mids(rng, names), rng)
        try:
            mids.read(exact(text))
        except DecodeError:
            assert shown(mids) == before
            continue
        before = shown(mids)
        try:
            value = oracles.load(text)
            text.decode()
        except (oracles.Refused, UnicodeDecodeError):
            continue
        assert before == {coin: float(px) for coin, px in value["data"]["mids"].items()}


def test_no_more_coins_are_taken_than_there_is_room_for() -> None:
    mids = Mids()
    for i in range(4):
        mids.read(captures.wire({"channel": "allMids", "data": {"mids": {f"{i}_{j}": 1.5 for j in range(16_384)}}}))
    assert len(mids) == 65_536
    with pytest.raises(DecodeError, match="more than is accepted"):
        mids.read(b'{"channel":"allMids","data":{"mids":{"more":"1.0"}}}')
    assert len(mids) == 65_536
    assert mids.read(b'{"channel":"allMids","data":{"mids":{"0_0":"2.0"}}}').size == 16_385
