"""Each info type against what the venue sends and could send: captures, and answers with fields missing and added."""

from __future__ import annotations

import asyncio
import copy
import json
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from info_bodies import ANSWERS, OTHER, USER

from hlconn import DecodeError, ErrorCode, QueryFailed
from hlconn import info_types as t
from hlconn.info import Info, _decode

NAMES = list(ANSWERS)


def asked(call: Callable[[Info], Awaitable[Any]], body: Any) -> tuple[Any, list[Mapping[str, Any]]]:
    """What a method makes of an answer, and what it asked."""
    requests: list[Mapping[str, Any]] = []

    async def ask(request: Mapping[str, Any], *, join: bool, wait: bool) -> bytes:
        requests.append(request)
        return body if isinstance(body, bytes) else orjson.dumps(body)

    async def main() -> Any:
        return await call(Info(ask, USER))

    return asyncio.run(main()), requests


def camel(value: Any) -> Any:
    """A typed value as JSON, by the class's own names."""
    return msgspec.to_builtins(value, str_keys=True)


def agree(sent: Any, made: Any, where: str = "$") -> None:
    """Everything that was sent is there, as itself; decimals as the float that Python reads in their text."""
    if isinstance(sent, dict):
        assert isinstance(made, dict), where
        for key, value in sent.items():
            assert key in made, f"{where}.{key} was lost"
            agree(value, made[key], f"{where}.{key}")
    elif isinstance(sent, list):
        assert isinstance(made, list | tuple), where
        assert len(sent) == len(made), where
        for at, (one, other) in enumerate(zip(sent, made, strict=True)):
            agree(one, other, f"{where}[{at}]")
    elif isinstance(sent, str) and isinstance(made, float):
        assert math.copysign(1, float(sent)) == math.copysign(1, made), where
        assert float(sent) == made, where
    else:
        assert sent == made, where


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where objects stand in a JSON value."""
    if isinstance(value, dict):
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from objects(inner, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def test_every_method_that_asks_is_here() -> None:
    methods = {name for name in vars(Info) if not name.startswith("_")} - {"query", "candles"}
    assert methods == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_with_every_field_comes_out_as_it_is(name: str) -> None:
    request, _, call, body = ANSWERS[name]
    found, requests = asked(call, body)
    assert requests == [request]
    made = camel(found)
    agree(dict(body) if name == "portfolio" else body, made)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_fields_change_nothing_anywhere(name: str) -> None:
    _, _, call, body = ANSWERS[name]
    plain, _ = asked(call, body)
    for path in objects(body):
        if name == "all_mids":  # there every field is a coin
            continue
        more = copy.deepcopy(body)
        at(more, path)["newField"] = {"deep": [1, None, {"x": "y"}]}
        if "delta" in path and name == "delegator_history":
            continue
        if {"referrerState", "referredBy", "relationship", "tiers", "liquidatedPositions"} & set(map(str, path)):
            continue  # these are passed on as they are
        found, _ = asked(call, more)
        assert found == plain, path


def required(kind: Any) -> Iterator[str]:
    """The wire's names of every field that must be there, of a type and all in it."""
    seen: set[Any] = set()

    def walk(info: Any) -> Iterator[str]:
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen:
                return
            seen.add(info.cls)
            for field in info.fields:
                if field.required:
                    yield field.encode_name
                yield from walk(field.type)
        for name in ("item_type", "item_types", "types", "key_type", "value_type"):
            inner = getattr(info, name, ())
            for one in inner if isinstance(inner, tuple) else (inner,):
                yield from walk(one)

    yield from walk(msgspec.inspect.type_info(kind))


def refusal(call: Callable[[Info], Awaitable[Any]], body: Any) -> DecodeError | None:
    try:
        asked(call, body)
    except DecodeError as exc:
        return exc
    return None


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_field_is_a_default_or_a_decode_error_that_names_type_and_field(name: str) -> None:
    request, kind, call, body = ANSWERS[name]
    needed, refused, given = set(required(kind)), set(), 0
    for path in objects(body):
        for key in at(body, path):
            less = copy.deepcopy(body)
            del at(less, path)[key]
            if (error := refusal(call, less)) is None:
                given += 1
                continue
            assert error.channel == request["type"]
            assert f"`{key}`" in error.reason
            assert len(error.excerpt) <= 80
            refused.add(key)
    assert refused == needed
    assert needed or name in ("all_mids", "perps_at_open_interest_cap", "max_market_order_ntls") or not given


@pytest.mark.parametrize("name", NAMES)
def test_what_is_of_another_kind_or_cut_is_an_error_of_ours_and_no_other(name: str) -> None:
    _, _, call, body = ANSWERS[name]
    text = orjson.dumps(body)
    for bad in (b"", b"{", b"nul", b"\xff", b'{"type":"error","message":"no"}', b"[" * 2000, text + b"x"):
        with pytest.raises((QueryFailed, DecodeError)):
            asked(call, bad)
    if name not in ("user_abstraction", "max_builder_fee"):
        for cut in range(1, len(text), 1 + len(text) // 15):
            with pytest.raises((QueryFailed, DecodeError)):
                asked(call, text[:cut])
        for bad in (b"true", b"7", b'"text"', b"[true]", b'{"a":[]}'):
            with pytest.raises(DecodeError):
                asked(call, bad)
    with pytest.raises(QueryFailed) as raised:
        asked(call, b'{"message":"Invalid time interval","type":"error"}')
    assert raised.value.code is not ErrorCode.NONE


@pytest.mark.parametrize(
    "text", ['"nan"', '"inf"', '"-Infinity"', "1e999", '"1_0"', '" 1"', '""', '"0x1"', "true", "null"]
)
def test_what_is_no_finite_decimal_is_refused(text: str) -> None:
    with pytest.raises((DecodeError, QueryFailed)):
        asked(lambda i: i.all_mids(), b'{"BTC":' + text.encode() + b"}")


def test_decimals_are_the_floats_that_python_reads() -> None:
    import random

    rng = random.Random(4)
    texts = ["0.0", "-0.0", "1844674407370.9553222656", "0.1", "5e-324", "1.7976931348623157e308", "9007199254740993.0"]
    for _ in range(20_000):
        whole, rest = rng.randrange(10 ** rng.randrange(1, 22)), rng.randrange(10 ** rng.randrange(1, 22))
        texts.append(f"{rng.choice(['', '-'])}{whole}.{rest}")
    found, _ = asked(lambda i: i.all_mids(), {str(n): text for n, text in enumerate(texts)})
    agree({str(n): text for n, text in enumerate(texts)}, found)


def test_a_market_that_does_not_exist_is_none_and_nobody_is_an_empty_list() -> None:
    for call in (lambda i: i.l2_book("BTC"), lambda i: i.vault_details(OTHER)):
        assert asked(call, b"null")[0] is None
    for call in (lambda i: i.sub_accounts(), lambda i: i.sub_accounts2(), lambda i: i.extra_agents()):
        assert asked(call, b"null")[0] == []
    status, _ = asked(lambda i: i.order_status(7), {"status": "unknownOid"})
    assert (status.status, status.order) == ("unknownOid", None)


def test_metas_with_contexts_will_do_as_well() -> None:
    _, _, call, body = ANSWERS["all_perp_metas"]
    plain, _ = asked(call, body)
    assert asked(call, [[meta, []] for meta in body])[0] == plain


def test_a_fill_without_tid_still_has_a_key_of_its_own() -> None:
    _, _, call, body = ANSWERS["user_fills"]
    old = [
        {key: value for key, value in body[0].items() if key not in ("tid", "feeToken")} | {"oid": n} for n in (1, 2)
    ]
    first, second = asked(call, old)[0]
    assert first.key != second.key
    assert asked(call, body)[0][0].key == ("BTC", body[0]["time"], body[0]["tid"])


#: What a capture of each type is.
CAPTURED: dict[str, Any] = {
    "allMids": dict[str, t.Num],
    "clearinghouseState": t.ClearinghouseState,
    "delegatorHistory": list[t.DelegatorUpdate],
    "extraAgents": list[t.ExtraAgent],
    "frontendOpenOrders": list[t.FrontendOrder],
    "fundingHistory": list[t.FundingRate],
    "historicalOrders": list[t.HistoricalOrder],
    "l2Book": t.L2Book,
    "meta": t.PerpMeta,
    "openOrders": list[t.OpenOrder],
    "perpDeployAuctionStatus": t.Auction,
    "portfolio": list[tuple[str, t.PortfolioPeriod]],
    "spotClearinghouseState": t.SpotState,
    "spotMeta": t.SpotMeta,
    "userFills": list[t.UserFill],
    "userFunding": list[t.UserFunding],
    "userNonFundingLedgerUpdates": list[t.LedgerUpdate],
    "userRateLimit": t.UserRateLimit,
    "userRole": t.UserRole,
    "userTwapSliceFills": list[t.TwapSliceFill],
    "userVaultEquities": list[t.VaultEquity],
}


def test_every_capture_decodes_to_what_orjson_reads(shared_fixtures: Path) -> None:
    bodies = 0
    for path in sorted((shared_fixtures / "info").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            text = entry["response_text"].encode()
            if path.stem == "candleSnapshot":
                continue  # by a reader of its own: tests/_core/test_rows.py
            agree(orjson.loads(text), camel(_decode(CAPTURED[path.stem], text, path.stem)), path.stem)
            bodies += 1
    assert bodies >= 25
