"""messages.py: every channel that is read when somebody asks, against orjson and float, and what is left out of one."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from random import Random
from typing import Any

import captures
import msgspec
import orjson
import pytest
from captures import COINS

from hlconn import DecodeError, messages
from hlconn.messages import FastCtxs, Raw, decode

each_channel = pytest.mark.parametrize("channel", captures.MESSAGE_DATA)

#: Keys that may be missing, of any object; of the others, each is missed.
OPTIONAL = {
    *("isSnapshot", "cloid", "tif", "builderFee", "feeTrialEscrow", "liquidation", "liquidatedUser", "stopPx", "token"),
    *("trigger", "rawUsd", "quoteToken", "nSamples", "spotHold", "tokenToAvailableAfterMaintenance"),
    *("agentAddress", "agentValidUntil", "optOutOfSpotDusting", "abstraction", "dexAbstractionEnabled"),
    *("leadingVaults", "perpsAtOpenInterestCap", "someDayNew", "someOtherDay"),
}


def may_be_missing(channel: str, path: tuple[Any, ...], key: str, siblings: dict[str, Any]) -> bool:
    if not path:
        return key == "someOtherDay"
    if channel == "fastAssetCtxs" or "someDayNew" in path:
        return True
    if channel == "user" and path == ("data",):
        return True
    if channel == "outcomeMetaUpdates" and (isinstance(path[-1], int) and "outcomeCreated" not in path):
        return True  # one key each
    if key == "description":  # of a status only
        return "status" in siblings
    if key == "twapId":  # of a fill it may be null as well, of a slice's fill it is what it is about
        return "fill" not in siblings
    if "delta" in path and "liquidatedPositions" not in path:
        return key != "type"
    return key in OPTIONAL


def agrees(got: Any, want: Any) -> None:
    """The typed value says what orjson and float say, and nothing but absent fields besides."""
    if isinstance(got, msgspec.Struct):
        assert isinstance(want, dict)
        for field in msgspec.structs.fields(got):
            value = getattr(got, field.name)
            if field.encode_name in want:
                agrees(value, want[field.encode_name])
            else:
                assert value is None or value is msgspec.UNSET
    elif isinstance(got, list | tuple):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            agrees(a, b)
    elif isinstance(got, float):
        assert got == float(want)
    else:
        assert got == want
        assert type(got) is type(want)


def plain(channel: str, message: bytes) -> Any:
    """The `data` as orjson reads it; what is packed, or said in two ways, in the one way of ours."""
    data = orjson.loads(message)["data"]
    if channel == "outcomeMetaUpdates":
        data = data["updates"] if isinstance(data, dict) else data
        for update in data:
            for key, name in (("outcomeSettled", "outcome"), ("questionSettled", "question")):
                if isinstance(update.get(key), dict):
                    update[key] = update[key][name]
    if channel == "fastAssetCtxs":
        data = orjson.loads(zlib.decompress(base64.b64decode(data), -15))
    return data


def assert_message(channel: str, message: bytes) -> None:
    got, want = decode(channel, message), plain(channel, message)
    if isinstance(want, dict) and isinstance(got, dict):
        assert list(got) == list(want)
        got, want = list(got.values()), list(want.values())
    agrees(got, want)


@each_channel
def test_a_message_is_read_as_orjson_and_float_read_it_in_every_spelling(channel: str) -> None:
    rng = Random(channel)
    for seed in range(12):
        message = captures.asked_message(channel, COINS[seed % len(COINS)], seed)
        assert_message(channel, message)
        assert_message(channel, captures.respell(message, rng))


def test_captured_messages_are_read_as_orjson_and_float_read_them(shared_fixtures: Path) -> None:
    count = 0
    for path in sorted((shared_fixtures / "ws").glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            channel = orjson.loads(line).get("channel") if line else None
            if channel in messages.CHANNELS:
                count += 1
                assert_message(channel, line)
                assert_message(channel, captures.respell(line, Random(5)))
    assert count >= 5


@pytest.mark.parametrize(
    ("info", "channel", "around"),
    [
        ("clearinghouseState", "clearinghouseState", {"dex": "", "user": "0x"}),
        ("spotClearinghouseState", "spotState", {"user": "0x"}),
        ("frontendOpenOrders", "openOrders", {"dex": "", "user": "0x"}),
        ("historicalOrders", "userHistoricalOrders", {"user": "0x"}),
        ("userNonFundingLedgerUpdates", "userNonFundingLedgerUpdates", {"user": "0x"}),
    ],
)
def test_captured_answers_are_read_as_the_data_of_their_channel(
    info: str, channel: str, around: dict[str, str], shared_fixtures: Path
) -> None:
    key = {"spotState": "spotState", "openOrders": "orders", "userHistoricalOrders": "orderHistory"}.get(channel)
    key = key or (channel if channel == "clearinghouseState" else "nonFundingLedgerUpdates")
    for line in (shared_fixtures / "info" / f"{info}.jsonl").read_text().splitlines():
        body = orjson.loads(json.loads(line)["response_text"])
        assert_message(channel, captures.wire({"channel": channel, "data": around | {key: body}}))


@each_channel
def test_unknown_keys_are_ignored_and_a_missing_one_is_named(channel: str) -> None:
    missed = 0
    for seed in range(8 if channel == "user" else 3):
        message = captures.asked_message(channel, seed=seed)
        value = orjson.loads(message)
        if channel == "fastAssetCtxs":
            value["data"] = plain(channel, message)
        paths = captures.objects_of(value)
        for path in paths:
            if channel != "fastAssetCtxs" or path != ("data",):
                captures.at(value, path)["someOtherDay"] = {"a": [None]}
        for path in paths:
            for key in list(captures.at(value, path)):
                other = orjson.loads(orjson.dumps(value))
                del captures.at(other, path)[key]
                if channel == "fastAssetCtxs" and "data" in other:
                    other["data"] = captures.packed(other["data"])
                text = captures.wire(other)
                if may_be_missing(channel, path, key, captures.at(value, path)):
                    decode(channel, text)
                    continue
                if channel == "outcomeMetaUpdates" and key in ("updates", "outcome", "question"):
                    continue  # what is said in two ways
                missed += 1
                with pytest.raises(DecodeError) as info:
                    decode(channel, text)
                assert info.value.channel == channel
                assert f"`{key}`" in info.value.reason, text
    assert missed >= 2


@pytest.mark.parametrize(
    "text", ['"nan"', '"inf"', '"-Infinity"', '" 1"', '"1_0"', '"0x1"', '""', "true", "null", "[]"]
)
def test_what_is_no_decimal_is_refused_and_named(text: str) -> None:
    message = captures.asked_message("activeAssetData").replace(b'"markPx":"106000"', b'"markPx":%s' % text.encode())
    with pytest.raises(DecodeError, match="markPx"):
        decode("activeAssetData", message)


def test_decimals_are_the_doubles_nearest_to_their_text() -> None:
    rng = Random(3)
    template = captures.asked_message("activeAssetData")
    for _ in range(3000):
        text = captures.decimal_text(rng.randint(1, 10 ** rng.randint(1, 36)), rng.randint(0, 18))
        text = rng.choice(("", "-")) + text + rng.choice(("", "", f"e{rng.randint(-30, 30)}"))
        for spelled in (text, f'"{text}"'):
            message = template.replace(b'"markPx":"106000"', b'"markPx":%s' % spelled.encode())
            assert decode("activeAssetData", message).mark_px.hex() == float(text).hex()


def test_an_unknown_channel_is_handed_on_as_it_is() -> None:
    assert decode("someDayNew", b'{"channel":"someDayNew"}') == Raw("someDayNew", b'{"channel":"someDayNew"}')
    assert decode("webData2", memoryview(b"x")) == Raw("webData2", b"x")


@each_channel
def test_a_message_cut_anywhere_or_of_another_channel_is_refused(channel: str) -> None:
    message = captures.asked_message(channel, seed=2)
    for cut in {*range(0, len(message), 1 + len(message) // 200), len(message) - 1}:
        with pytest.raises(DecodeError):
            decode(channel, message[:cut])
    other = "notification" if channel != "notification" else "webData3"
    with pytest.raises(DecodeError):
        decode(other, message)


@each_channel
def test_a_damaged_message_is_read_or_refused_in_one_way(channel: str) -> None:
    rng = Random(channel)
    for seed in range(200):
        message = captures.damaged(captures.asked_message(channel, seed=seed % 5), rng)
        try:
            got = decode(channel, message)
        except DecodeError:
            continue  # and nothing else is raised
        assert isinstance(got, msgspec.Struct | dict | list)


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep = b'{"channel":"webData3","data":{"userState":' + 100_000 * b"[" + b"]}}"
    for message in (deep, deep.replace(b"userState", b"unknownOne")):
        with pytest.raises(DecodeError):
            decode("webData3", message)


# --- what is packed -------------------------------------------------------------------------------------------------


def fast(text: str) -> bytes:
    return captures.wire({"channel": "fastAssetCtxs", "data": text})


def test_the_known_example_is_read() -> None:
    text = "q1ZyCnFWsqpWyk0syg6oULJSsjQ3NTDQM1Wq1VFyDfFAkTI2MzXQMwJLVVRWWfmFuTiiyBuamOoZKdXWAgA="
    ctxs = FastCtxs()
    assert ctxs.apply(fast(text)) == ("BTC", "ETH", "xyz:NVDA")
    assert ctxs.mark_px == {"BTC": 97500.5, "ETH": 3650.25, "xyz:NVDA": 145.2}
    assert ctxs.mid_px == {}


def test_what_a_message_leaves_out_stays_and_null_takes_the_mid_away() -> None:
    ctxs = FastCtxs()
    ctxs.apply(fast(captures.packed({"A": {"markPx": "1.5", "midPx": "2.5"}, "B": {"markPx": 3, "midPx": None}})))
    assert (ctxs.mark_px, ctxs.mid_px) == ({"A": 1.5, "B": 3.0}, {"A": 2.5})
    assert ctxs.apply(fast(captures.packed({"B": {"midPx": "4.0"}, "C": {}}))) == ("B", "C")
    assert (ctxs.mark_px, ctxs.mid_px) == ({"A": 1.5, "B": 3.0}, {"A": 2.5, "B": 4.0})
    ctxs.apply(fast(captures.packed({"A": {"midPx": None}})))
    assert ctxs.mid_px == {"B": 4.0}
    before = dict(ctxs.mark_px)
    for bad in (fast(captures.packed({"A": {"markPx": "9.0"}, "B": {"markPx": "x"}})), fast("%"), b"{}"):
        with pytest.raises(DecodeError):
            ctxs.apply(bad)
        assert ctxs.mark_px == before
    ctxs.restart()
    ctxs.apply(fast(captures.packed({"C": {"markPx": "1.0"}})))
    assert (ctxs.mark_px, ctxs.mid_px, ctxs.messages) == ({"C": 1.0}, {}, 4)


def test_random_changes_in_order_give_what_a_dict_gives() -> None:
    rng = Random(2)
    ctxs = FastCtxs()
    want: dict[str, dict[str, str | None]] = {}
    names = [f"C{i}" for i in range(30)]
    for _ in range(200):
        update: dict[str, dict[str, str | None]] = {}
        for name in rng.sample(names, rng.randint(0, 9)):
            keys = rng.sample(["markPx", "midPx"], rng.randint(0, 2))
            values = {key: captures.decimal_text(rng.randint(1, 10**9), 4) for key in keys}
            update[name] = values | ({"midPx": None} if "midPx" in keys and rng.random() < 0.3 else {})
        ctxs.apply(fast(captures.packed(update)))
        for name, changed in update.items():
            want.setdefault(name, {}).update(changed)
    assert ctxs.mark_px == {name: float(v["markPx"] or 0) for name, v in want.items() if v.get("markPx")}
    assert ctxs.mid_px == {name: float(v["midPx"] or 0) for name, v in want.items() if v.get("midPx")}


def test_a_bomb_and_what_is_no_stream_are_refused() -> None:
    def squeezed(data: bytes, tail: bytes = b"") -> str:
        stream = zlib.compressobj(9, wbits=-15)
        return base64.b64encode(stream.compress(data) + stream.flush() + tail).decode()

    for text, says in (
        (squeezed(b"0" * (1 << 20) + b"0"), "once it is inflated"),
        (squeezed(b"0" * (64 << 20)), "once it is inflated"),
        ("A" * (256 * 1024 + 4), "compressed text"),
        (squeezed(b"{}")[:-4], "cut short"),
        (squeezed(b"{}", b"more"), "more than one"),
        ("A===", "no base64"),
        ("not base64!", "no base64"),
        (base64.b64encode(b"\xff\xff\xff").decode(), "no base64 of a DEFLATE stream"),
        ("", "cut short"),
        (squeezed(b"[1]"), "Expected `object`"),
        (squeezed(b""), "truncated"),
    ):
        with pytest.raises(DecodeError, match=says):
            decode("fastAssetCtxs", fast(text))
    room = json.dumps({"A": {"x": "y" * ((1 << 20) - 14)}}).replace(" ", "").encode()
    assert len(room) == 1 << 20
    assert list(decode("fastAssetCtxs", fast(squeezed(room)))) == ["A"]


def test_every_type_is_documented_and_every_channel_has_examples() -> None:
    assert set(messages.CHANNELS) == set(captures.MESSAGE_DATA)
    for name in messages.__all__:
        assert getattr(messages, name).__doc__, name
