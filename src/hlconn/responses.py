"""What the venue answered, as values: one outcome for each item that was sent. No I/O; bytes or parsed JSON in.

`read_http` and `read_post` map the answer to an action, `read_info` and `read_info_post` that to a query, `read_error`
a text of the WebSocket's error channel. Nothing here raises because of what the venue sent, except `QueryFailed` for
queries: what cannot be read is an `OutcomeUnknown`. Successes are never hidden, whatever else is wrong with an answer.

Shapes: the venue's docs, "Exchange endpoint" and "Error responses". One error for a longer batch refuses all of it; an
answer of any other length than the batch's is told apart by cloid, never by place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from ._core.classify import classify
from .errors import ErrorCode, OutcomeUnknown, QueryFailed, Rejected

__all__ = [
    "Answer",
    "Created",
    "ErrorText",
    "Filled",
    "Outcome",
    "Request",
    "Resting",
    "Running",
    "Success",
    "Waiting",
    "read_error",
    "read_http",
    "read_info",
    "read_info_post",
    "read_post",
]


@dataclass(frozen=True, slots=True)
class Request:
    """What was sent, as far as reading its answer needs it.

    action: the venue's type, as "order". cloids: one for each item of the batch, in order, None for an item without;
    at least one. An action that is not a batch has one item.
    """

    action: str
    nonce: int
    cloids: tuple[str | None, ...] = (None,)


@dataclass(frozen=True, slots=True)
class Resting:
    """The order is on the book, as far as the venue says; part of it may have been filled at once."""

    oid: int
    cloid: str | None = None


@dataclass(frozen=True, slots=True)
class Filled:
    """At least partly filled at once. An Ioc order's rest is canceled: compare total_sz with what was sent.

    total_sz, avg_px: decimals in the venue's own text; `Decimal` or `float` of them is safe.
    """

    oid: int
    total_sz: str
    avg_px: str
    cloid: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A TP/SL order was accepted and waits, for its parent to fill or for its trigger. The venue names no oid here."""

    reason: Literal["waitingForFill", "waitingForTrigger"]


@dataclass(frozen=True, slots=True)
class Success:
    """Done, and there is no more to say: a cancel, or an action without data.

    A plain modify is answered so too: its new oid has to be learned elsewhere.
    """


@dataclass(frozen=True, slots=True)
class Running:
    """A TWAP order runs under this id."""

    twap_id: int


@dataclass(frozen=True, slots=True)
class Created:
    """A sub-account or vault was made, at this address."""

    address: str


Accepted = Resting | Filled | Waiting | Success | Running | Created
Outcome = Accepted | Rejected | OutcomeUnknown


@dataclass(frozen=True, slots=True)
class Answer:
    """items: one outcome for each item sent, in order. Those in doubt share one `OutcomeUnknown`.

    unmatched: successes that the venue reported and that belong to no item we can name. When there are any, some of the
    items in doubt are these.
    """

    items: tuple[Outcome, ...]
    unmatched: tuple[Accepted, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorText:
    """A text of the error channel. message: verbatim. post_id: of the post that it refuses, when it names one."""

    code: ErrorCode
    message: str
    post_id: int | None = None


# HTTP statuses that say that the venue did not take the request at all. Any other but 200 leaves it open.
_REFUSED = {
    400: ErrorCode.BAD_REQUEST,
    401: ErrorCode.FORBIDDEN,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.WRONG_PATH,
    405: ErrorCode.WRONG_PATH,
    413: ErrorCode.BAD_REQUEST,
    415: ErrorCode.CONTENT_TYPE,
    422: ErrorCode.MALFORMED,
    429: ErrorCode.RATE_LIMITED,
}

# Words of servers that do not know what became of a request.
_SAYS_NOTHING = {ErrorCode.CONNECTION_TIMEOUT, ErrorCode.SERVER_ERROR, ErrorCode.UNAVAILABLE}

_TOLD = {"order", "batchModify", "cancel", "cancelByCloid", "twapOrder", "twapCancel"}  # "default" tells too little

_REASON_CHARS = 200
_DECIMAL = re.compile(r"[0-9]{1,64}(\.[0-9]{1,64})?")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_STATUS_LINE = re.compile(r"([1-5][0-9]{2})(?![0-9.])")
_POST_ID = re.compile(r"\bid=([0-9]{1,19})(?![0-9])")


def read_http(request: Request, status: int, body: bytes, waited_s: float = 0.0) -> Answer:
    """What became of an action sent over HTTP, from the status and the whole body of the answer."""
    if status == 200:
        return _read_action(request, _parse(body), waited_s, f"HTTP 200: {_excerpt(body)}")
    if status in _REFUSED:
        return _refused(request, _REFUSED[status], _text(body), waited_s)
    return _in_doubt(request, f"HTTP {status}: {_excerpt(body)}", waited_s)


def read_post(request: Request, response: object, waited_s: float = 0.0) -> Answer:
    """What became of an action posted over the WebSocket.

    response: `data.response` of the message, as bytes or parsed.
    """
    value = _parse(response) if isinstance(response, bytes) else response
    kind, payload = _member(value, "type"), _member(value, "payload")
    if kind == "action":
        return _read_action(request, payload, waited_s, _excerpt(response))
    if kind == "error" and isinstance(payload, str):
        status, code = _status_and_code(payload)
        if code != ErrorCode.UNKNOWN and (status is None or status in _REFUSED):
            return _refused(request, code, payload, waited_s)
    return _in_doubt(request, _excerpt(response), waited_s)


def read_info(status: int, body: bytes) -> Any:
    """The parsed answer to a query sent over HTTP. Raises QueryFailed, and nothing else, when it is none."""
    if status != 200:
        raise QueryFailed(status, _code_of_status(status), _text(body))
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise QueryFailed(200, ErrorCode.UNREADABLE, _text(body)) from None
    _raise_error_object(value)
    return value


def read_info_post(response: object) -> Any:
    """The answer to a query posted over the WebSocket, as `read_info` gives it. response: as for `read_post`."""
    value = _parse(response) if isinstance(response, bytes) else response
    kind, payload = _member(value, "type"), _member(value, "payload")
    if kind == "error" and isinstance(payload, str):
        status, code = _status_and_code(payload)
        raise QueryFailed(status or 200, code, payload)
    _raise_error_object(payload)
    if kind != "info" or not isinstance(payload, dict) or "data" not in payload:
        raise QueryFailed(200, ErrorCode.UNREADABLE, _excerpt(response))
    _raise_error_object(payload["data"])
    return payload["data"]


def read_error(text: str) -> ErrorText:
    """A text of the WebSocket's error channel (`data` of the message)."""
    code = classify(text)
    post = _POST_ID.search(text) if code == ErrorCode.TOO_MANY_PENDING else None
    return ErrorText(code, text, int(post[1]) if post else None)


# --- an action's answer, parsed ---


def _read_action(request: Request, value: object, waited_s: float, raw: str) -> Answer:
    status, response = _member(value, "status"), _member(value, "response")
    if status in ("ok", "err") and isinstance(response, str):  # seen once with "ok", for a refusal
        if status == "ok" and classify(response) is ErrorCode.UNKNOWN:
            return _in_doubt(request, raw, waited_s)
        return _refused(request, classify(response), response, waited_s)
    if status == "ok" and isinstance(response, dict):
        data = response.get("data")
        if isinstance(statuses := _member(data, "statuses"), list):
            return _read_entries(request, statuses, waited_s)
        if isinstance(data, dict) and "status" in data:
            return _read_entries(request, [data["status"]], waited_s)
        if isinstance(data, str) and _ADDRESS.fullmatch(data):
            return Answer((Created(data),) * len(request.cloids))
        if response.get("type") == "default" and request.action not in _TOLD:
            return Answer((Success(),) * len(request.cloids))
    return _in_doubt(request, raw, waited_s)


def _read_entries(request: Request, entries: list[Any], waited_s: float) -> Answer:
    cloids = request.cloids
    found = [_read_entry(entry) for entry in entries]
    if len(found) == 1 and isinstance(found[0], str):
        return _refused(request, classify(found[0]), found[0], waited_s)
    if len(found) != len(cloids) or _out_of_place(found, cloids):
        return _by_cloid(request, entries, waited_s)
    items: list[Outcome | None] = []
    for index, (one, cloid) in enumerate(zip(found, cloids, strict=True)):
        if isinstance(one, str):
            code = classify(one)
            items.append(None if _says_nothing(request, code) else Rejected(code, one, cloid, index))
        else:
            items.append(one)
    return _complete(request, items, [entries[i] for i, item in enumerate(items) if item is None], waited_s)


def _by_cloid(request: Request, entries: list[Any], waited_s: float) -> Answer:
    """An answer whose places mean nothing: its successes by their cloids, all else in doubt."""
    items: list[Outcome | None] = [None] * len(request.cloids)
    places = {cloid.lower(): index for index, cloid in enumerate(request.cloids) if cloid}
    unmatched: list[Accepted] = []
    for entry in entries:
        one = _read_entry(entry)
        if one is None or isinstance(one, str):
            continue
        index = places.pop(_cloid_of(one), None)
        if index is None:
            unmatched.append(one)
        else:
            items[index] = one
    return _complete(request, items, entries, waited_s, tuple(unmatched))


def _read_entry(entry: object) -> Accepted | str | None:
    """One status entry: a success, the text of an error, or None. What names a success is never an error."""
    if entry == "success":
        return Success()
    if entry == "waitingForFill":
        return Waiting("waitingForFill")
    if entry == "waitingForTrigger":
        return Waiting("waitingForTrigger")
    if not isinstance(entry, dict):
        return None
    if "running" in entry:
        twap_id = _member(entry["running"], "twapId")
        return Running(twap_id) if _is_id(twap_id) else None
    body = entry.get("resting", entry.get("filled"))
    if body is not None:
        oid, cloid = _member(body, "oid"), _member(body, "cloid")
        if not _is_id(oid) or not (cloid is None or isinstance(cloid, str)):
            return None
        if "resting" in entry:
            return Resting(oid, cloid)
        total_sz, avg_px = body.get("totalSz"), body.get("avgPx")
        return Filled(oid, total_sz, avg_px, cloid) if _is_decimal(total_sz) and _is_decimal(avg_px) else None
    error = entry.get("error")
    return error if isinstance(error, str) and entry.keys().isdisjoint(("resting", "filled")) else None


def _is_id(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_decimal(value: object) -> bool:
    return isinstance(value, str) and _DECIMAL.fullmatch(value) is not None


def _cloid_of(one: Accepted | str | None) -> str:
    return (one.cloid or "").lower() if isinstance(one, Resting | Filled) else ""


def _out_of_place(found: Sequence[Accepted | str | None], cloids: Sequence[str | None]) -> bool:
    """Whether an entry names the cloid of another item, or for an item with a cloid another one."""
    sent = [(cloid or "").lower() for cloid in cloids]
    return any(
        said and said != mine and (mine or said in sent) for said, mine in zip(map(_cloid_of, found), sent, strict=True)
    )


# --- outcomes for a whole request ---


def _complete(
    request: Request, items: list[Outcome | None], why: object, waited_s: float, unmatched: tuple[Accepted, ...] = ()
) -> Answer:
    """The answer, with one OutcomeUnknown in every place that is still None."""
    cloids = tuple(cloid for cloid, item in zip(request.cloids, items, strict=True) if item is None and cloid)
    unknown = OutcomeUnknown(request.action, request.nonce, cloids, waited_s, _excerpt(why))
    return Answer(tuple(unknown if item is None else item for item in items), unmatched)


def _says_nothing(request: Request, code: ErrorCode) -> bool:
    # A nonce that was used already may have been used by this very action, sent twice. A noop is done either way.
    return code in _SAYS_NOTHING or (code is ErrorCode.NONCE_DUPLICATE and request.action != "noop")


def _in_doubt(request: Request, why: str, waited_s: float) -> Answer:
    return _complete(request, [None] * len(request.cloids), why, waited_s)


def _refused(request: Request, code: ErrorCode, message: str, waited_s: float) -> Answer:
    if _says_nothing(request, code):
        return _in_doubt(request, _excerpt(message), waited_s)
    return Answer(tuple(Rejected(code, message, cloid, index) for index, cloid in enumerate(request.cloids)))


# --- words ---


def _member(value: object, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _parse(body: bytes) -> Any:
    """The JSON value, None when it is no JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace")


def _excerpt(value: object) -> str:
    """The venue's words for a sentence: at most 200 characters of text, or of JSON."""
    if isinstance(value, bytes):
        value = _text(value)
    elif not isinstance(value, str):
        try:
            value = orjson.dumps(value).decode()
        except orjson.JSONEncodeError:  # nested too deeply
            return f"a {type(value).__name__}"
    return value if len(value) <= _REASON_CHARS else value[:_REASON_CHARS] + "..."


def _code_of_status(status: int) -> ErrorCode:
    if status in _REFUSED:
        return _REFUSED[status]
    if status == 408:
        return ErrorCode.CONNECTION_TIMEOUT
    if status in (502, 503, 504):
        return ErrorCode.UNAVAILABLE
    return ErrorCode.SERVER_ERROR if 500 <= status <= 599 else ErrorCode.UNKNOWN


def _status_and_code(payload: str) -> tuple[int | None, ErrorCode]:
    """Of the text of a post error: mostly HTTP's "429 Too Many Requests", else words."""
    if line := _STATUS_LINE.match(payload):
        return int(line[1]), _code_of_status(int(line[1]))
    return None, classify(payload)


def _raise_error_object(value: object) -> None:
    """QueryFailed for `{"type":"error","message":text}`, an error in the place of a query's answer."""
    if _member(value, "type") == "error":
        message = _member(value, "message")
        if isinstance(message, str):
            raise QueryFailed(200, classify(message), message)
        raise QueryFailed(200, ErrorCode.UNREADABLE, _excerpt(value))
