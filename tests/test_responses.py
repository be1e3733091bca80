"""Each shape of answer to its outcomes: real bodies, every rule about batches, and whatever else may come."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from venue_texts import ADDRESS, TEXTS

from hlconn import ErrorCode, OutcomeUnknown, QueryFailed, Rejected
from hlconn.responses import (
    Answer,
    Created,
    ErrorText,
    Filled,
    Outcome,
    Request,
    Resting,
    Running,
    Success,
    Waiting,
    read_error,
    read_http,
    read_info,
    read_info_post,
    read_post,
)

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
A, B, C = (f"0x{n:032x}" for n in (0xA, 0xB, 0xC))
NONCE = 1_700_000_000_000
THREE = Request("order", NONCE, (A, None, C))
TICK = "Price must be divisible by tick size. asset=5"
SAYS_NOTHING = {
    ErrorCode.CONNECTION_TIMEOUT,
    ErrorCode.SERVER_ERROR,
    ErrorCode.UNAVAILABLE,
    ErrorCode.NONCE_DUPLICATE,  # except of a noop: see below
}


def ok(kind: str, data: object = None) -> dict[str, Any]:
    return {"status": "ok", "response": {"type": kind} | ({} if data is None else {"data": data})}


def statuses(*entries: object, kind: str = "order") -> dict[str, Any]:
    return ok(kind, {"statuses": list(entries)})


def resting(oid: int, cloid: str | None = None) -> dict[str, Any]:
    return {"resting": {"oid": oid} | ({} if cloid is None else {"cloid": cloid})}


def plain(one: Outcome) -> object:
    """Something that compares: exceptions by what they were made of."""
    return (type(one), one.args) if isinstance(one, Exception) else one


def answer(request: Request, value: object) -> Answer:
    """By each way that the same object can come; all agree, but for the words that name the way."""
    body = orjson.dumps(value)
    response = {"type": "action", "payload": value}
    by_http = read_http(request, 200, body, 1.5)
    for other in (read_post(request, response, 1.5), read_post(request, orjson.dumps(response), 1.5)):
        assert len(other.items) == len(by_http.items)
        for one, two in zip(by_http.items, other.items, strict=True):
            if isinstance(one, OutcomeUnknown):
                assert isinstance(two, OutcomeUnknown)
                assert one.args[:4] == two.args[:4]
            else:
                assert plain(one) == plain(two)
        assert other.unmatched == by_http.unmatched
    return by_http


def unknown(request: Request, *cloids: str) -> object:
    return (OutcomeUnknown, (request.action, request.nonce, cloids, 1.5))


def shape(one: Outcome) -> object:
    """As `plain`, without an unknown's reason."""
    return (type(one), one.args[:4]) if isinstance(one, OutcomeUnknown) else plain(one)


def shapes(one: Answer) -> list[object]:
    return [shape(item) for item in one.items]


def refused(code: ErrorCode, message: str, cloid: str | None = None, index: int = 0) -> object:
    return (Rejected, (code, message, cloid, index))


# --- one entry ---

#: Neither a success nor a refusal.
DOUBTFUL: list[object] = [
    None, 5, [], {}, "canceled", {"resting": {}}, {"resting": None}, {"resting": {"oid": "7"}},
    {"resting": {"oid": True}}, {"resting": {"oid": -1}}, {"resting": {"oid": 7, "cloid": 5}},
    {"resting": {"oid": 7.0}}, {"resting": {}, "error": TICK}, {"filled": {"oid": 9}},
    {"filled": {"totalSz": 1, "avgPx": "1", "oid": 9}}, {"filled": {"totalSz": "nan", "avgPx": "1", "oid": 9}},
    {"filled": {"totalSz": "1e5", "avgPx": "1", "oid": 9}}, {"filled": None, "error": TICK},
    {"running": {"twapId": None}}, {"error": None}, {"error": {"message": TICK}},
    {"error": "504 Gateway Timeout"}, {"error": "connection timed out"},
]  # fmt: skip

ENTRIES: list[tuple[object, object]] = [
    (resting(7), Resting(7)),
    (resting(7, A), Resting(7, A)),
    (resting(0), Resting(0)),
    ({"filled": {"totalSz": "0.01", "avgPx": "2080.2", "oid": 9, "cloid": A}}, Filled(9, "0.01", "2080.2", A)),
    ({"filled": {"totalSz": "5", "avgPx": "1", "oid": 9, "new": 1}, "newer": 2}, Filled(9, "5", "1")),
    ("waitingForFill", Waiting("waitingForFill")),
    ("waitingForTrigger", Waiting("waitingForTrigger")),
    ("success", Success()),
    ({"running": {"twapId": 77}}, Running(77)),
    ({"error": TICK}, refused(ErrorCode.TICK, TICK, A)),
    ({"error": "words of next year"}, refused(ErrorCode.UNKNOWN, "words of next year", A)),
    ({"error": ""}, refused(ErrorCode.UNKNOWN, "", A)),
    *((entry, unknown(Request("order", NONCE, (A,)), A)) for entry in DOUBTFUL),
]


@pytest.mark.parametrize(("entry", "outcome"), ENTRIES)
def test_each_entry_has_its_outcome(entry: object, outcome: object) -> None:
    alone = Request("order", NONCE, (A,))
    assert shapes(answer(alone, statuses(entry))) == [outcome]
    assert shapes(answer(alone, ok("twapOrder", {"status": entry}))) == [outcome]
    among = answer(Request("batchModify", NONCE, (B, A, C)), statuses(resting(1, B), entry, {"error": TICK}))
    assert among.items[0] == Resting(1, B)
    assert shape(among.items[2]) == refused(ErrorCode.TICK, TICK, C, 2)
    middle = among.items[1]
    if isinstance(middle, Rejected):
        assert (middle.cloid, middle.index) == (A, 1)
    elif isinstance(middle, OutcomeUnknown):
        assert middle.cloids == (A,)
    else:
        assert middle == outcome


@pytest.mark.parametrize(("text", "code"), TEXTS)
def test_each_text_is_kept_verbatim_wherever_it_comes(text: str, code: ErrorCode) -> None:
    request = Request("order", NONCE, (A, B))
    for value in (
        statuses({"error": text}),
        statuses({"error": text}, {"error": text}),
        {"status": "err", "response": text},
        {"status": "ok", "response": text},
    ):
        expected = [refused(code, text, A, 0), refused(code, text, B, 1)]
        in_doubt = [unknown(request, A, B)] * 2
        got = answer(request, value)
        assert shapes(got) == (in_doubt if code in SAYS_NOTHING else expected)
        for one in got.items:
            assert not isinstance(one, OutcomeUnknown) or text in one.reason


# --- batches ---


def test_one_error_for_a_longer_batch_refuses_every_item() -> None:
    got = answer(THREE, statuses({"error": TICK}))
    assert shapes(got) == [refused(ErrorCode.TICK, TICK, cloid, i) for i, cloid in enumerate(THREE.cloids)]
    assert got.unmatched == ()


def test_as_many_entries_as_items_go_by_place() -> None:
    got = answer(THREE, statuses(resting(1, A), {"error": TICK}, resting(3)))
    assert shapes(got) == [Resting(1, A), refused(ErrorCode.TICK, TICK, None, 1), Resting(3)]
    assert answer(Request("order", NONCE), statuses(resting(1, A))).items == (Resting(1, A),)
    upper = answer(THREE, statuses(resting(1, A.upper().replace("X", "x")), {"error": TICK}, resting(3)))
    assert isinstance(upper.items[0], Resting)


@pytest.mark.parametrize(
    ("entries", "items", "unmatched"),
    [
        ([resting(3, C)], [None, None, Resting(3, C)], ()),
        ([resting(9)], [None, None, None], (Resting(9),)),
        ([resting(3, C), {"error": TICK}], [None, None, Resting(3, C)], ()),
        ([{"error": TICK}, {"error": TICK}], [None, None, None], ()),
        ([resting(3, C), resting(1, A)], [Resting(1, A), None, Resting(3, C)], ()),
        ([resting(3, C), resting(1, A), resting(2)], [Resting(1, A), None, Resting(3, C)], (Resting(2),)),
        ([resting(1, A), resting(2, A), "success", resting(4)], [Resting(1, A), None, None],
         (Resting(2, A), Success(), Resting(4))),
        ([resting(1, B), {"error": TICK}, resting(3)], [None, None, None], (Resting(1, B), Resting(3))),
        ([resting(1, A), resting(3, C), resting(2)], [Resting(1, A), None, Resting(3, C)], (Resting(2),)),
        ([], [None, None, None], ()),
    ],
)  # fmt: skip
def test_in_any_other_length_or_order_successes_go_by_cloid(
    entries: list[object], items: list[Outcome | None], unmatched: tuple[Outcome, ...]
) -> None:
    got = answer(THREE, statuses(*entries))
    assert got.unmatched == unmatched
    doubtful = tuple(cloid for cloid, item in zip(THREE.cloids, items, strict=True) if item is None and cloid)
    assert shapes(got) == [unknown(THREE, *doubtful) if item is None else item for item in items]


# --- whole answers ---


@pytest.mark.parametrize("action", ["modify", "scheduleCancel", "updateLeverage", "noop", "usdSend"])
def test_default_is_success_for_actions_without_data(action: str) -> None:
    assert answer(Request(action, NONCE), ok("default")).items == (Success(),)


@pytest.mark.parametrize("action", ["order", "batchModify", "cancel", "cancelByCloid", "twapOrder", "twapCancel"])
def test_default_tells_too_little_for_actions_with_entries(action: str) -> None:
    request = Request(action, NONCE, (A, B))
    assert shapes(answer(request, ok("default"))) == [unknown(request, A, B)] * 2


def test_a_new_account_has_an_address() -> None:
    for kind in ("createSubAccount", "createVault"):
        assert answer(Request(kind, NONCE), ok(kind, ADDRESS)).items == (Created(ADDRESS),)
        assert isinstance(answer(Request(kind, NONCE), ok(kind, "0x12")).items[0], OutcomeUnknown)


@pytest.mark.parametrize(
    "value",
    [
        None, 5, [], {}, "success", {"status": "ok"}, {"status": "ok", "response": None},
        {"status": "ok", "response": {}},
        {"status": "err"}, {"status": "err", "response": {"error": TICK}}, {"status": "new", "response": TICK},
        ok("order"), ok("order", {}), ok("order", {"statuses": None}), ok("order", {"statuses": {"error": TICK}}),
        ok("somethingNew"), {"error": TICK}, {"type": "error", "message": TICK},
        {"status": "err", "response": "Internal server error"},
    ],
)  # fmt: skip
def test_an_unknown_shape_leaves_every_item_in_doubt(value: object) -> None:
    got = answer(THREE, value)
    assert shapes(got) == [unknown(THREE, A, C)] * 3
    assert got.items[0] is got.items[1] is got.items[2]


@pytest.mark.parametrize("body", [b"", b"null", b" ", b"{", b"<html>", b"\xff\xfe", b"[" * 5000, b'{"status":"ok"'])
def test_a_body_that_cannot_be_read_leaves_every_item_in_doubt(body: bytes) -> None:
    got = read_http(THREE, 200, body, 1.5)
    assert shapes(got) == [unknown(THREE, A, C)] * 3
    assert isinstance(got.items[0], OutcomeUnknown)
    assert got.items[0].reason.startswith("HTTP 200: ")
    assert len(got.items[0].reason) < 250


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, b"expected value at line 1 column 1", ErrorCode.BAD_REQUEST),
        (401, b"", ErrorCode.FORBIDDEN),
        (403, b'{"message":"restricted jurisdiction"}', ErrorCode.FORBIDDEN),
        (404, b"", ErrorCode.WRONG_PATH),
        (405, b"", ErrorCode.WRONG_PATH),
        (413, b"length limit exceeded", ErrorCode.BAD_REQUEST),
        (415, b"Expected request with `Content-Type: application/json`", ErrorCode.CONTENT_TYPE),
        (422, b"Failed to deserialize the JSON body into the target type", ErrorCode.MALFORMED),
        (429, b"null", ErrorCode.RATE_LIMITED),
        (429, b"", ErrorCode.RATE_LIMITED),
    ],
)
def test_http_says_no(status: int, body: bytes, code: ErrorCode) -> None:
    got = read_http(THREE, status, body)
    assert shapes(got) == [refused(code, body.decode(), cloid, i) for i, cloid in enumerate(THREE.cloids)]
    with pytest.raises(QueryFailed) as caught:
        read_info(status, body)
    assert caught.value.args == (status, code, body.decode())


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, ErrorCode.SERVER_ERROR), (501, ErrorCode.SERVER_ERROR), (502, ErrorCode.UNAVAILABLE),
        (503, ErrorCode.UNAVAILABLE), (504, ErrorCode.UNAVAILABLE), (408, ErrorCode.CONNECTION_TIMEOUT),
        (204, ErrorCode.UNKNOWN), (301, ErrorCode.UNKNOWN), (418, ErrorCode.UNKNOWN), (0, ErrorCode.UNKNOWN),
        (999, ErrorCode.UNKNOWN),
    ],
)  # fmt: skip
def test_http_that_does_not_say_no_leaves_it_open(status: int, code: ErrorCode) -> None:
    body = orjson.dumps(statuses(resting(1)))
    for sent in (b"null", b"<html>\xff</html>", b"", body):
        assert shapes(read_http(THREE, status, sent, 1.5)) == [unknown(THREE, A, C)] * 3
        with pytest.raises(QueryFailed) as caught:
            read_info(status, sent)
        assert caught.value.args[:2] == (status, code)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("429 Too Many Requests", ErrorCode.RATE_LIMITED),
        ("429", ErrorCode.RATE_LIMITED),
        ("422 Failed to deserialize the JSON body into the target type", ErrorCode.MALFORMED),
        ("403 Forbidden", ErrorCode.FORBIDDEN),
        ("Cannot track more than 15 total users.", ErrorCode.TOO_MANY_USERS),
    ],
)
def test_a_post_error_that_says_no(payload: str, code: ErrorCode) -> None:
    response = {"type": "error", "payload": payload}
    got = read_post(THREE, response)
    assert shapes(got) == [refused(code, payload, cloid, i) for i, cloid in enumerate(THREE.cloids)]
    with pytest.raises(QueryFailed) as caught:
        read_info_post(response)
    assert (caught.value.code, caught.value.message) == (code, payload)


@pytest.mark.parametrize(
    "payload",
    [
        "502 Bad Gateway",
        "500 null",
        "408 Request Timeout",
        "connection timed out",
        "new words",
        "",
        None,
        429,
        "200 OK",
    ],
)
def test_a_post_error_that_leaves_it_open(payload: object) -> None:
    for response in ({"type": "error", "payload": payload}, orjson.dumps({"type": "error", "payload": payload})):
        assert shapes(read_post(THREE, response, 1.5)) == [unknown(THREE, A, C)] * 3
        with pytest.raises(QueryFailed):
            read_info_post(response)


@pytest.mark.parametrize("response", [None, b"", b"{", {}, {"type": "info", "payload": {}}, {"type": "action"}, 5, "x"])
def test_a_post_response_of_no_known_shape_leaves_it_open(response: object) -> None:
    assert shapes(read_post(THREE, response, 1.5)) == [unknown(THREE, A, C)] * 3
    with pytest.raises(QueryFailed) as caught:
        read_info_post(response)
    assert caught.value.code == ErrorCode.UNREADABLE


# --- queries ---


def test_a_query_is_answered_by_its_value() -> None:
    assert read_info(200, b'{"a":[1]}') == {"a": [1]}
    assert read_info(200, b"null") is None
    assert read_info_post({"type": "info", "payload": {"type": "allMids", "data": {"BTC": "1"}}}) == {"BTC": "1"}
    assert read_info_post(b'{"type":"info","payload":{"type":"x","data":null}}') is None


def test_a_query_refused_inside_a_good_answer() -> None:
    for read in (read_info_post, lambda value: read_info(200, orjson.dumps(value["payload"]["data"]))):
        with pytest.raises(QueryFailed) as caught:
            read(
                {
                    "type": "info",
                    "payload": {"type": "x", "data": {"type": "error", "message": "Invalid time interval"}},
                }
            )
        assert caught.value.args == (200, ErrorCode.INVALID_TIME_INTERVAL, "Invalid time interval")
        with pytest.raises(QueryFailed):
            read({"type": "info", "payload": {"type": "x", "data": {"type": "error", "message": 5}}})


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"\xff"])
def test_a_good_status_without_json_is_a_failed_query(body: bytes) -> None:
    with pytest.raises(QueryFailed) as caught:
        read_info(200, body)
    assert caught.value.code == ErrorCode.UNREADABLE


# --- the error channel ---


@pytest.mark.parametrize(
    ("text", "post_id"),
    [
        ("too many pending post requests id=17", 17),
        ("Too many pending post requests id=0 ", 0),
        ("too many pending post requests", None),
        ("too many pending post requests id=", None),
        ("too many pending post requests id=x7", None),
        ("too many pending post requests id=" + "9" * 30, None),
        ('Invalid subscription {"type":"too many pending post requests id=5"}', None),
        ("something id=5", None),
    ],
)
def test_the_error_channel_names_a_post_only_when_it_refuses_one(text: str, post_id: int | None) -> None:
    got = read_error(text)
    assert (got.message, got.post_id) == (text, post_id)


@pytest.mark.parametrize(("text", "code"), TEXTS)
def test_each_text_of_the_error_channel_has_its_code(text: str, code: ErrorCode) -> None:
    assert read_error(text) == ErrorText(code, text, 17 if text.endswith(" id=17") else None)


# --- what the venue really sent ---


def lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        pytest.skip(f"no {path.name}: recorded bodies are not here")
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected_of(value: dict[str, Any]) -> object:
    """The first entry, told apart by hand."""
    if value["status"] == "err":
        return value["response"]
    (entry,) = value["response"]["data"]["statuses"]
    if entry == "success":
        return Success()
    if "resting" in entry:
        return Resting(**entry["resting"])
    if "filled" in entry:
        filled = entry["filled"]
        return Filled(filled["oid"], filled["totalSz"], filled["avgPx"], filled.get("cloid"))
    return entry["error"]


def check_real(got: Answer, value: dict[str, Any]) -> None:
    (one,) = got.items
    assert got.unmatched == ()
    if isinstance(one, Rejected):
        assert one.message == expected_of(value)
        assert one.code != ErrorCode.UNKNOWN
    else:
        assert one == expected_of(value)


@pytest.mark.parametrize("name", ["order", "cancel", "cancelByCloid", "modify"])
def test_recorded_bodies(name: str) -> None:
    for line in lines(FIXTURES / "exchange" / f"{name}.jsonl"):
        body = line["response_text"]
        check_real(read_http(Request(name, NONCE), line["status"], body.encode()), json.loads(body))


def test_recorded_posts() -> None:
    for line in lines(FIXTURES / "ws" / "post.jsonl"):
        response = line["data"]["response"]
        if response["type"] == "action":
            for sent in (response, orjson.dumps(response)):
                check_real(read_post(Request("order", NONCE), sent), response["payload"])
        else:
            assert read_info_post(response) == response["payload"]["data"]


def test_recorded_errors() -> None:
    for line in lines(FIXTURES / "ws" / "error.jsonl"):
        assert read_error(line["data"]).code in (ErrorCode.MALFORMED, ErrorCode.ALREADY_UNSUBSCRIBED)


# --- whatever comes ---

KEYS = st.sampled_from(["status", "response", "type", "payload", "data", "statuses", "error", "resting", "filled"])
LEAVES = [st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(max_size=8)]
JSON = st.recursive(
    st.one_of(*LEAVES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(KEYS, st.text(max_size=3)), inner, max_size=3)
    ),
    max_leaves=12,
)
GOOD = st.builds(
    statuses, st.sampled_from([entry for entry, _ in ENTRIES]), st.sampled_from([entry for entry, _ in ENTRIES])
)
REQUESTS = st.builds(
    Request,
    st.sampled_from(["order", "cancel", "modify", "twapOrder", "createVault"]),
    st.just(NONCE),
    st.lists(st.sampled_from([None, A, B, C]), min_size=1, max_size=4).map(tuple),
)


@st.composite
def mutated(draw: st.DrawFn) -> object:
    """A good answer with one value, anywhere in it, replaced."""
    value: Any = json.loads(json.dumps(draw(GOOD)))
    at = value
    while True:
        key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if draw(st.booleans()) or not at[key] or not isinstance(at[key], dict | list):
            at[key] = draw(JSON)
            return value
        at = at[key]


def check_total(request: Request, got: Answer) -> None:
    assert len(got.items) == len(request.cloids)
    for index, one in enumerate(got.items):
        assert isinstance(one, Outcome)
        if isinstance(one, Rejected):
            assert (one.cloid, one.index) == (request.cloids[index], index)
        elif isinstance(one, OutcomeUnknown):
            assert (one.action, one.nonce) == (request.action, request.nonce)
            assert request.cloids[index] is None or request.cloids[index] in one.cloids


def oids_in(value: object) -> list[int]:
    """Of entries that are well-formed successes."""
    if not isinstance(value, dict) or not isinstance(value.get("response"), dict) or value.get("status") != "ok":
        return []
    data = value["response"].get("data")
    entries = data.get("statuses") if isinstance(data, dict) else None
    found = [entry["resting"] for entry in entries or () if isinstance(entry, dict) and entry.keys() == {"resting"}]
    return [
        body["oid"]
        for body in found
        if isinstance(body, dict) and type(body.get("oid")) is int and body["oid"] >= 0
        and isinstance(body.get("cloid"), str | None)
    ]  # fmt: skip


@given(REQUESTS, st.one_of(JSON, GOOD, mutated()))
def test_no_json_raises_and_no_success_is_hidden(request: Request, value: object) -> None:
    got = answer(request, value)
    check_total(request, got)
    told = [one.oid for one in (*got.items, *got.unmatched) if isinstance(one, Resting)]
    assert sorted(told) == sorted(oids_in(value))


@given(REQUESTS, JSON)
def test_no_post_response_raises(request: Request, response: object) -> None:
    check_total(request, read_post(request, response))
    with suppress(QueryFailed):
        read_info_post(response)


@given(REQUESTS, st.integers(100, 599), st.binary())
def test_no_bytes_raise(request: Request, status: int, body: bytes) -> None:
    check_total(request, read_http(request, status, body))
    check_total(request, read_post(request, body))
    with suppress(QueryFailed):
        read_info(status, body)
    with suppress(QueryFailed):
        read_info_post(body)


@given(st.text())
def test_no_text_of_the_error_channel_raises(text: str) -> None:
    assert read_error(text).message == text


def test_a_nonce_used_twice_may_have_been_used_by_this_very_action() -> None:
    body = b'{"status":"err","response":"Invalid nonce: duplicate nonce 5"}'
    item = read_http(Request("order", 5, ("",)), 200, body).items[0]
    assert isinstance(item, OutcomeUnknown)
    assert "duplicate nonce 5" in item.reason
    burnt = read_http(Request("noop", 5, ("",)), 200, body).items[0]
    assert isinstance(burnt, Rejected)
    assert burnt.code is ErrorCode.NONCE_DUPLICATE


def test_words_that_come_with_ok_and_say_nothing_known_prove_nothing() -> None:
    item = read_http(Request("order", 5, ("",)), 200, b'{"status":"ok","response":"success"}').items[0]
    assert isinstance(item, OutcomeUnknown)
