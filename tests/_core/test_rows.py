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
from hlconn._core.rows import Rows
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


def objects_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all objects within a JSON value."""
    found = [path] if isinstance(value, dict) else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += objects_of(inner, (*path, key))
    return found


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def variants(message: bytes) -> list[bytes]:
    """The message with an unknown key in each object, without each key, with null or another kind of value for it."""
    values: tuple[Any, ...] = ("gone", None, True, -1, "x", [], {}, 1.5, "-12.50", ["1.0", "2.0"])
    out = []
    for path in objects_of(orjson.loads(message)):
        for key in (None, *at(orjson.loads(message), path)):
            for put in values if key else ("gone",):
                value = orjson.loads(message)
                inner = at(value, path)
                if key is None:
                    inner["someDayNew"] = {"a": [1, None, "}"], "b": -1.5e3}
                elif put == "gone":
                    del inner[key]
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
