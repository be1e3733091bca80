"""JSON objects to rows of structured arrays. See rows.pxd for how; the shapes stand at the end of the reader's part."""
cimport numpy as cnp
from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport isfinite
from libc.stdint cimport int8_t, int16_t, int64_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from hlconn._core.cursor cimport (
    DECODE_COIN, DECODE_FIELD, DECODE_LIMIT, DECODE_OK, DECODE_RANGE, DECODE_SHAPE, FAST_ROOM, Cursor, DecodeStatus,
    Slice, ahead, decimal, expect, hl_decimal_fast, integer, literal, must, skip, slice_is, space, string, unescape)

import numpy as np

from hlconn._core.classify import classify_status
from hlconn._core.classify_table import STATUSES

from hlconn.errors import ConfigError, DecodeError
from hlconn.types import (
    ASSET_CTX_DTYPE, CANDLE_DTYPE, FILL_DTYPE, FUNDING_DTYPE, ORDER_UPDATE_DTYPE, USER_FUNDING_DTYPE, OrderStatus)

cnp.import_array()

cdef extern from "swar.h" nogil:
    uint64_t hl_load8(const char* p)

cdef enum:
    WIDEST = 512         # bytes of a text that has escapes

# --- the reader -------------------------------------------------------------------------------------------------

cdef struct Status:
    const char* text
    int size
    int8_t status
    int16_t code

cdef Status statuses[MAX_STATUSES]
cdef int status_count = 0
cdef int8_t STATUS_UNKNOWN = <int>OrderStatus.UNKNOWN
cdef int8_t STATUS_CANCELED = <int>OrderStatus.CANCELED
cdef int8_t STATUS_REJECTED = <int>OrderStatus.REJECTED
cdef int16_t CODE_UNKNOWN = <int>classify_status("")
cdef int16_t CODE_CANCELED = <int>classify_status("canceled")
cdef int16_t CODE_REJECTED = <int>classify_status("rejected")
cdef list status_texts = []


def status_of(word: str) -> OrderStatus:
    """What an order's status means, by its word: see `OrderStatus`."""
    known = {
        "open": OrderStatus.OPEN, "accepted": OrderStatus.OPEN, "triggered": OrderStatus.TRIGGERED,
        "filled": OrderStatus.FILLED}.get(word)
    if known is not None:
        return known
    if word.endswith(("Rejected", "rejected")):
        return OrderStatus.REJECTED
    return OrderStatus.CANCELED if word.endswith(("Canceled", "Cancel", "canceled")) else OrderStatus.UNKNOWN


cdef int build_statuses() except -1:
    global status_count
    if len(STATUSES) > MAX_STATUSES:
        raise ImportError("more order statuses than rows.pxd has room for")
    for i, (word, code) in enumerate(STATUSES.items()):
        text = word.encode("ascii")
        status_texts.append(text)
        statuses[i].text = PyBytes_AS_STRING(text)
        statuses[i].size = <int>len(text)
        statuses[i].status = <int>status_of(word)
        statuses[i].code = <int>code
    status_count = <int>len(STATUSES)
    return 0


build_statuses()


cdef inline bint ends_with(const char* p, Py_ssize_t n, const char* end, Py_ssize_t size) noexcept nogil:
    return n >= size and memcmp(p + n - size, end, <size_t>size) == 0


cdef void classify_word(const char* p, Py_ssize_t n, int8_t* status, int16_t* code) noexcept nogil:
    cdef int i
    for i in range(status_count):
        if statuses[i].size == n and memcmp(statuses[i].text, p, <size_t>n) == 0:
            status[0] = statuses[i].status
            code[0] = statuses[i].code
            return
    if ends_with(p, n, b"Rejected", 8):
        status[0] = STATUS_REJECTED
        code[0] = CODE_REJECTED
    elif ends_with(p, n, b"Canceled", 8) or ends_with(p, n, b"Cancel", 6):
        status[0] = STATUS_CANCELED
        code[0] = CODE_CANCELED
    else:
        status[0] = STATUS_UNKNOWN
        code[0] = CODE_UNKNOWN


# Whether this field's key comes next, in today's spelling: then it is consumed, its colon too.
cdef inline bint is_key(Cursor* c, const Field* field) noexcept nogil:
    if c.end - c.p < MAX_KEY:
        if c.end - c.p < field.size or memcmp(c.p, field.key, <size_t>field.size) != 0:
            return False
    elif ((hl_load8(c.p) ^ field.head) & field.mask) != 0 or (
            field.size > 8 and memcmp(c.p + 8, field.key + 8, <size_t>(field.size - 8)) != 0):
        return False
    c.p += field.size
    return True


# The next key and its colon, consumed: which field it is, -1 for none of the plan; -2 with a status for what is no key.
cdef inline int find_field(Cursor* c, Plan* plan, int last, DecodeStatus* status) noexcept nogil:
    cdef Slice key
    cdef int i
    cdef int guess = plan.after[last]
    if is_key(c, &plan.fields[guess]):
        return guess
    i = plan.after[guess]  # the one expected was left out
    if is_key(c, &plan.fields[i]):
        return i
    for i in range(plan.count):
        if is_key(c, &plan.fields[i]):
            plan.after[last] = <unsigned char>i
            return i
    status[0] = string(c, &key)
    if status[0] == DECODE_OK:
        status[0] = expect(c, c':')
    if status[0] != DECODE_OK:
        return -2
    for i in range(plan.count):
        if slice_is(&key, plan.fields[i].key + 1, plan.fields[i].size - 3):
            return i
    return -1


cdef inline DecodeStatus read_decimal(Cursor* c, double* out) noexcept nogil:
    cdef const char* q
    cdef bint negative
    cdef DecodeStatus status
    cdef const char* start
    space(c)
    if c.end - c.p > FAST_ROOM and c.p[0] == c'"':
        negative = c.p[1] == c'-'
        q = hl_decimal_fast(c.p + 1 + negative, out)
        if q != NULL:
            c.p = q
            if negative:
                out[0] = -out[0]
            return DECODE_OK
    start = c.p
    status = decimal(c, out)
    if status == DECODE_OK and not isfinite(out[0]):
        c.p = start
        return DECODE_RANGE
    return status


# A string's bytes, without escapes; those of an escaped one are in `room`, of WIDEST bytes.
cdef inline DecodeStatus plain_text(Cursor* c, Slice* out, char* room) noexcept nogil:
    cdef Py_ssize_t n
    cdef const char* start
    cdef DecodeStatus status
    space(c)
    start = c.p
    status = string(c, out)
    if status != DECODE_OK:
        return status
    if out.escaped:
        n = unescape(out, room, WIDEST)
        if n < 0:
            c.p = start
            return DECODE_LIMIT
        out.p = room
        out.n = n
        out.escaped = False
    return DECODE_OK


cdef DecodeStatus read_text(Cursor* c, const Field* field, char* row, bint again) noexcept nogil:
    cdef char room[WIDEST]
    cdef Slice text
    cdef const char* start = c.p
    cdef Py_ssize_t n
    cdef DecodeStatus status = plain_text(c, &text, room)
    if status != DECODE_OK:
        return status
    n = text.n
    if n > field.width:
        if field.kind == K_TEXT:
            c.p = start
            return DECODE_LIMIT
        n = field.width
        while n > 0 and (text.p[n] & 0xC0) == 0x80:
            n -= 1
    memcpy(row + field.offset, text.p, <size_t>n)
    if again:  # said before, maybe longer
        memset(row + field.offset + n, 0, <size_t>(field.width - n))
    if field.kind == K_STATUS:
        classify_word(text.p, text.n, <int8_t*>(row + field.offset_status), <int16_t*>(row + field.offset_code))
    return DECODE_OK


cdef DecodeStatus read_name(Cursor* c, Reading* reading) noexcept nogil:
    cdef Slice text
    cdef const char* start
    cdef DecodeStatus status
    space(c)
    start = c.p
    status = string(c, &text)
    if status == DECODE_OK and not slice_is(&text, reading.name, reading.name_size):
        c.p = start
        return DECODE_COIN
    return status


cdef DecodeStatus read_bool(Cursor* c, char* out) noexcept nogil:
    space(c)
    if literal(c, b"true", 4):
        out[0] = 1
    elif literal(c, b"false", 5):
        out[0] = 0
    else:
        return DECODE_SHAPE
    return DECODE_OK


cdef DecodeStatus read_side(Cursor* c, char* out) noexcept nogil:
    cdef Slice text
    cdef const char* start
    cdef DecodeStatus status
    space(c)
    if literal(c, b'"A"', 3):
        out[0] = 1
        return DECODE_OK
    if literal(c, b'"B"', 3):
        out[0] = 0
        return DECODE_OK
    start = c.p
    status = string(c, &text)
    if status != DECODE_OK:
        return status
    if slice_is(&text, b"A", 1):
        out[0] = 1
    elif slice_is(&text, b"B", 1):
        out[0] = 0
    else:
        c.p = start
        return DECODE_SHAPE
    return DECODE_OK


cdef DecodeStatus read_pair(Cursor* c, double* out) noexcept nogil:
    cdef DecodeStatus status
    if expect(c, c'[') != DECODE_OK:
        return DECODE_SHAPE
    status = read_decimal(c, &out[0])
    if status == DECODE_OK:
        status = expect(c, c',')
    if status == DECODE_OK:
        status = read_decimal(c, &out[1])
    if status == DECODE_OK:
        status = expect(c, c']')
    return status


cdef DecodeStatus read_row(Cursor* c, Plan* plan, Reading* reading) noexcept nogil:
    cdef char* row
    cdef DecodeStatus status
    must(reading.count < reading.cap)
    if reading.count >= reading.cap:  # cannot be: an object is at least as long as the keys that it must have
        return DECODE_LIMIT
    row = reading.rows + reading.count * plan.stride
    memcpy(row, plan.blank, <size_t>plan.stride)
    status = read_object(c, plan, row, reading)
    reading.count += status == DECODE_OK
    return status


# An array of objects, or one object alone.
cdef DecodeStatus read_rows(Cursor* c, Plan* plan, Reading* reading) noexcept nogil:
    cdef DecodeStatus status
    if ahead(c, c'{'):
        return read_row(c, plan, reading)
    if expect(c, c'[') != DECODE_OK:
        return DECODE_SHAPE
    if ahead(c, c']'):
        c.p += 1
        return DECODE_OK
    while True:
        status = read_row(c, plan, reading)
        if status != DECODE_OK:
            return status
        if ahead(c, c']'):
            c.p += 1
            return DECODE_OK
        if expect(c, c',') != DECODE_OK:
            return DECODE_SHAPE


cdef DecodeStatus read_value(Cursor* c, const Field* field, const Plan* plan, char* row, bint again,
                             Reading* reading) noexcept nogil:
    cdef Kind kind = field.kind
    if field.nullable:
        space(c)
        if literal(c, b"null", 4):
            if again and field.width:
                memcpy(row + field.offset, plan.blank + field.offset, <size_t>field.width)
            return DECODE_OK
    if kind == K_DECIMAL:
        return read_decimal(c, <double*>(row + field.offset))
    if kind == K_INT:
        return integer(c, <int64_t*>(row + field.offset))
    if kind == K_TEXT or kind == K_CLIP or kind == K_STATUS:
        return read_text(c, field, row, again)
    if kind == K_SIDE:
        return read_side(c, row + field.offset)
    if kind == K_BOOL:
        return read_bool(c, row + field.offset)
    if kind == K_PAIR:
        return read_pair(c, <double*>(row + field.offset))
    if kind == K_NAME:
        return read_name(c, reading)
    if again:  # an object or an array twice: nobody can tell which one is meant
        return DECODE_SHAPE
    if kind == K_OBJECT:
        return read_object(c, field.inner, row, reading)
    return read_rows(c, field.inner, reading)


# One object, into a row that is blank. On failure `reading.culprit` is the innermost field that could not be read, or
# one that is missing.
cdef DecodeStatus read_object(Cursor* c, Plan* plan, char* row, Reading* reading) noexcept nogil:
    cdef uint64_t seen = 0
    cdef int last = plan.count
    cdef int i
    cdef DecodeStatus status = DECODE_OK
    if expect(c, c'{') != DECODE_OK:
        return DECODE_SHAPE
    if ahead(c, c'}'):
        c.p += 1
    else:
        while True:
            space(c)
            i = find_field(c, plan, last, &status)
            if i >= 0:
                status = read_value(c, &plan.fields[i], plan, row, seen >> i & 1, reading)
                if status != DECODE_OK:
                    if reading.culprit == NULL:
                        reading.culprit = &plan.fields[i]
                    return status
                seen |= 1ULL << i
                last = i
            elif i == -1:
                status = skip(c)
            if status != DECODE_OK:
                return status
            must(c.p <= c.end)
            if c.p < c.end and c.p[0] == c',':
                c.p += 1
                continue
            if ahead(c, c'}'):
                c.p += 1
                break
            if expect(c, c',') != DECODE_OK:
                return DECODE_SHAPE
    if plan.required & ~seen:
        for i in range(plan.count):
            if (plan.required & ~seen) >> i & 1:
                reading.culprit = &plan.fields[i]
                break
        return DECODE_FIELD
    return DECODE_OK


# --- shapes -----------------------------------------------------------------------------------------------------

cdef dict KINDS = {
    "int": K_INT, "decimal": K_DECIMAL, "pair": K_PAIR, "text": K_TEXT, "clip": K_CLIP, "bool": K_BOOL, "side": K_SIDE,
    "status": K_STATUS, "name": K_NAME}


# What a row holds where the venue says nothing.
cdef object blank_of(dtype):
    row = np.zeros((), dtype)
    for name in dtype.names:
        if dtype[name] == np.float64 and name not in ("builder_fee", "fee_trial_escrow"):
            row[name] = np.nan
        elif name in ("tid", "twap_id", "n_samples"):
            row[name] = -1
    return row


cdef class Shape:
    """What to read of an object. fields: the venue's key to (our field, kind), or (None, another Shape).

    A key that ends in "?" may be missing or null; one that ends in "|null" may be null. dtype: of the row.
    """

    def __cinit__(self, dtype, dict fields):
        cdef Field* field
        cdef Shape inner
        blank = blank_of(dtype).tobytes()
        self.dtype = dtype
        self.plan.blank = PyBytes_AS_STRING(blank)
        self.plan.stride = PyBytes_GET_SIZE(blank)
        self.plan.count = 0
        self.plan.required = 0
        self.least = 3  # its braces and a comma
        self._kept = [blank]
        memset(self.plan.after, 0, sizeof(self.plan.after))
        if not 0 < len(fields) <= MAX_FIELDS:
            raise ConfigError(f"a shape has 1 to {MAX_FIELDS} fields, not {len(fields)}")
        for key, (name, kind) in fields.items():
            optional = key.endswith("?")
            field = &self.plan.fields[self.plan.count]
            field.nullable = optional or key.endswith("|null")
            text = b'"%s":' % key.removesuffix("?").removesuffix("|null").encode("ascii")
            if len(text) > MAX_KEY:
                raise ConfigError(f"key {key} is too long")
            field.size = <int>len(text)
            memset(field.key, 0, MAX_KEY)
            memcpy(field.key, PyBytes_AS_STRING(text), <size_t>field.size)
            memset(&field.mask, 0xFF, sizeof(uint64_t))
            if field.size < 8:
                field.mask = hl_load8((<bytes>(b"\xff" * field.size + b"\0" * 8))) & field.mask
            field.head = hl_load8(field.key)
            field.offset = field.width = field.offset_status = field.offset_code = 0
            field.inner = NULL
            if name is not None:
                field.offset = dtype.fields[name][1]
                field.width = dtype.fields[name][0].itemsize
            inner = None
            if isinstance(kind, Shape):
                inner = kind
                field.kind = K_OBJECT if dtype is inner.dtype else K_ROWS
                field.inner = &inner.plan
                self._kept.append(inner)
            else:
                field.kind = KINDS[kind]
            if field.kind == K_STATUS:
                field.offset_status = dtype.fields["status"][1]
                field.offset_code = dtype.fields["code"][1]
            elif field.kind == K_PAIR:
                field.width *= 2
            if not optional:
                self.plan.required |= 1ULL << self.plan.count
                self.least += field.size + 2
                if inner is not None and field.kind == K_OBJECT and not field.nullable:
                    self.least += inner.least - 2
            self.plan.count += 1
            self.plan.after[self.plan.count - 1] = <unsigned char>(self.plan.count % len(fields))  # as they stand here


cdef dict CANDLE_FIELDS = {
    "t": ("open_ms", "int"), "T": ("close_ms", "int"), "s": ("coin", "text"), "i": ("interval", "text"),
    "o": ("open", "decimal"), "c": ("close", "decimal"), "h": ("high", "decimal"), "l": ("low", "decimal"),
    "v": ("volume", "decimal"), "n": ("n", "int")}

# tid and feeToken are missing in what was recorded over HTTP in 2023. Fills of a stream are told apart by tid.
cdef dict FILL_FIELDS = {
    "coin": ("coin", "text"), "px": ("px", "decimal"), "sz": ("sz", "decimal"), "side": ("side", "side"),
    "time": ("time", "int"), "startPosition": ("start_position", "decimal"), "dir": ("dir", "clip"),
    "closedPnl": ("closed_pnl", "decimal"), "hash": ("hash", "text"), "oid": ("oid", "int"),
    "crossed": ("crossed", "bool"), "fee": ("fee", "decimal"), "builderFee?": ("builder_fee", "decimal"),
    "tid": ("tid", "int"), "cloid?": ("cloid", "text"),
    "liquidation?": (None, Shape(FILL_DTYPE, {
        "liquidatedUser?": ("liquidated_user", "text"), "markPx": ("liquidation_mark_px", "decimal"),
        "method": ("liquidation_method", "clip")})),
    "feeToken": ("fee_token", "text"), "feeTrialEscrow?": ("fee_trial_escrow", "decimal"),
    "twapId?": ("twap_id", "int")}

cdef dict PERP_CTX_FIELDS = {
    "funding": ("funding", "decimal"), "openInterest": ("open_interest", "decimal"),
    "prevDayPx": ("prev_day_px", "decimal"), "dayNtlVlm": ("day_ntl_vlm", "decimal"),
    "premium|null": ("premium", "decimal"), "oraclePx": ("oracle_px", "decimal"), "markPx": ("mark_px", "decimal"),
    "midPx|null": ("mid_px", "decimal"), "impactPxs|null": ("impact_bid", "pair"),
    "dayBaseVlm": ("day_base_vlm", "decimal")}

cdef dict SPOT_CTX_FIELDS = {
    "prevDayPx": ("prev_day_px", "decimal"), "dayNtlVlm": ("day_ntl_vlm", "decimal"), "markPx": ("mark_px", "decimal"),
    "midPx|null": ("mid_px", "decimal"), "circulatingSupply": ("circulating_supply", "decimal"),
    "totalSupply": ("total_supply", "decimal"), "dayBaseVlm": ("day_base_vlm", "decimal")}

cdef dict FUNDING_OF_USER = {
    "coin": ("coin", "text"), "usdc": ("usdc", "decimal"), "szi": ("szi", "decimal"),
    "fundingRate": ("funding_rate", "decimal"), "nSamples?": ("n_samples", "int")}

cdef Shape CANDLE = Shape(CANDLE_DTYPE, CANDLE_FIELDS)
cdef Shape FILL = Shape(FILL_DTYPE, FILL_FIELDS)
cdef Shape OLD_FILL = Shape(FILL_DTYPE, {
    key + "?" if key in ("tid", "feeToken") else key: value for key, value in FILL_FIELDS.items()})
cdef Shape FUNDING = Shape(FUNDING_DTYPE, {
    "coin": ("coin", "text"), "fundingRate": ("funding_rate", "decimal"), "premium": ("premium", "decimal"),
    "time": ("time", "int")})
cdef Shape USER_FUNDING = Shape(USER_FUNDING_DTYPE, {"time": ("time", "int"), **FUNDING_OF_USER})
cdef Shape USER_FUNDING_ROW = Shape(USER_FUNDING_DTYPE, {
    "time": ("time", "int"), "hash": ("hash", "text"), "delta": (None, Shape(USER_FUNDING_DTYPE, FUNDING_OF_USER))})
cdef Shape ORDER_UPDATE = Shape(ORDER_UPDATE_DTYPE, {
    "order": (None, Shape(ORDER_UPDATE_DTYPE, {
        "coin": ("coin", "text"), "side": ("side", "side"), "limitPx": ("limit_px", "decimal"), "sz": ("sz", "decimal"),
        "oid": ("oid", "int"), "timestamp": ("timestamp", "int"), "origSz": ("orig_sz", "decimal"),
        "cloid?": ("cloid", "text"), "reduceOnly?": ("reduce_only", "bool")})),
    "status": ("status_text", "status"), "statusTimestamp": ("status_timestamp", "int")})
cdef Shape PERP_CTX = Shape(ASSET_CTX_DTYPE, PERP_CTX_FIELDS)
cdef Shape SPOT_CTX = Shape(ASSET_CTX_DTYPE, {"coin": ("coin", "text"), **SPOT_CTX_FIELDS})
cdef Shape ACTIVE_PERP_CTX = Shape(ASSET_CTX_DTYPE, {"coin": ("coin", "text"), "ctx": (None, PERP_CTX)})
cdef Shape ACTIVE_SPOT_CTX = Shape(ASSET_CTX_DTYPE, {
    "coin": ("coin", "text"), "ctx": (None, Shape(ASSET_CTX_DTYPE, SPOT_CTX_FIELDS))})

#: What stands around the rows of a message.
HEAD_DTYPE = np.dtype([("user", "S42"), ("dex", "S32"), ("is_snapshot", "?")])

cdef dict SNAPSHOT = {"isSnapshot?": ("is_snapshot", "bool"), "user": ("user", "text")}


cdef Shape message_of(data):
    return Shape(HEAD_DTYPE, {"channel": (None, "name"), "data": (None, data)})


cdef dict CHANNELS = {
    name: (message_of(data), rows) for name, data, rows in (
        ("candle", CANDLE, CANDLE),
        ("activeAssetCtx", ACTIVE_PERP_CTX, ACTIVE_PERP_CTX),
        ("activeSpotAssetCtx", ACTIVE_SPOT_CTX, ACTIVE_SPOT_CTX),
        ("assetCtxs", Shape(HEAD_DTYPE, {"dex": ("dex", "text"), "ctxs": (None, PERP_CTX)}), PERP_CTX),
        ("spotAssetCtxs", SPOT_CTX, SPOT_CTX),
        ("orderUpdates", ORDER_UPDATE, ORDER_UPDATE),
        ("user", Shape(HEAD_DTYPE, {"fills?": (None, FILL)}), FILL),
        ("userFills", Shape(HEAD_DTYPE, {**SNAPSHOT, "fills": (None, FILL)}), FILL),
        ("userFundings", Shape(HEAD_DTYPE, {**SNAPSHOT, "fundings": (None, USER_FUNDING)}), USER_FUNDING),
    )
}

#: Channels that `Rows` reads.
ROW_CHANNELS = tuple(CHANNELS)


# --- Python -----------------------------------------------------------------------------------------------------

cdef dict REASONS = {
    <int>DECODE_SHAPE: "not the expected shape, or cut short",
    <int>DECODE_LIMIT: "deeper, longer or more than is accepted",
    <int>DECODE_RANGE: "a number that cannot be one",
    <int>DECODE_FIELD: "a required field is missing",
    <int>DECODE_COIN: "another channel than was asked for",
}


cdef int raise_error(what, DecodeStatus status, const Reading* reading, const char* buf, Py_ssize_t size,
                     Py_ssize_t at) except -1:
    reason = REASONS[<int>status]
    if reading.culprit != NULL:
        name = reading.culprit.key[1:reading.culprit.size - 2].decode("ascii")
        reason = f"{reason}: {name}" if status == DECODE_FIELD else f"{name}: {reason}"
    raise DecodeError(what, at, buf[at:min(size, at + 80)], reason)


cdef object read_body(body, Shape shape, what):
    cdef Py_buffer view
    cdef Reading reading
    cdef Cursor c
    cdef DecodeStatus status
    cdef cnp.ndarray rows
    PyObject_GetBuffer(body, &view, 0)
    try:
        c.p = <const char*>view.buf
        c.end = c.p + view.len
        reading.head = NULL
        reading.culprit = NULL
        reading.count = 0
        reading.cap = view.len // shape.least + 1
        rows = np.empty(reading.cap, shape.dtype)  # three times too many; memory that is not touched costs nothing
        reading.rows = <char*>cnp.PyArray_DATA(rows)
        status = read_rows(&c, &shape.plan, &reading)
        if status == DECODE_OK:
            space(&c)
            if c.p != c.end:
                status = DECODE_SHAPE
        if status != DECODE_OK:
            raise_error(what, status, &reading, <const char*>view.buf, view.len, c.p - <const char*>view.buf)
    finally:
        PyBuffer_Release(&view)
    rows.resize(reading.count, refcheck=False)
    return rows


def read_candles(body: bytes | memoryview) -> np.ndarray:
    """The candles of a `candleSnapshot` answer, or one candle object alone: (n,) of `hlconn.types.CANDLE_DTYPE`.

    body: JSON, as received. The rows are in the venue's order; the last one may still be forming.
    DecodeError for what cannot be read, with the field.
    """
    return read_body(body, CANDLE, "candleSnapshot")


def read_fills(body: bytes | memoryview) -> np.ndarray:
    """The fills of a `userFills` or `userFillsByTime` answer: (n,) of `hlconn.types.FILL_DTYPE`.

    body: JSON, as received: a list of fills. The rows are in the venue's order. tid is -1 and fee_token empty in what
    was recorded before the venue sent them. DecodeError for what cannot be read, with the field.
    """
    return read_body(body, OLD_FILL, "userFills")


def read_fundings(body: bytes | memoryview) -> np.ndarray:
    """The rows of a `fundingHistory` answer: (n,) of `hlconn.types.FUNDING_DTYPE`, in the venue's order.

    body: JSON, as received. DecodeError for what cannot be read, with the field.
    """
    return read_body(body, FUNDING, "fundingHistory")


def read_user_fundings(body: bytes | memoryview) -> np.ndarray:
    """The rows of a `userFunding` answer: (n,) of `hlconn.types.USER_FUNDING_DTYPE`, in the venue's order.

    body: JSON, as received. DecodeError for what cannot be read, with the field.
    """
    return read_body(body, USER_FUNDING_ROW, "userFunding")


def read_orders(body: bytes | memoryview) -> np.ndarray:
    """The rows of a `historicalOrders` answer: (n,) of `hlconn.types.ORDER_UPDATE_DTYPE`, in the venue's order.

    body: JSON, as received. DecodeError for what cannot be read, with the field.
    """
    return read_body(body, ORDER_UPDATE, "historicalOrders")


cdef class Rows:
    """One channel's messages into rows of a structured array that the next message reuses.

    channel: one of `ROW_CHANNELS`. `dtype` is of `hlconn.types`: CANDLE_DTYPE for candle; ASSET_CTX_DTYPE for
    activeAssetCtx, activeSpotAssetCtx, and assetCtxs and spotAssetCtxs, with a row each; ORDER_UPDATE_DTYPE for
    orderUpdates; FILL_DTYPE for userFills, and for user, with no row when the message is not about fills;
    USER_FUNDING_DTYPE for userFundings.

    Level 0: no socket, no clock. Not for several threads at once.
    """

    cdef readonly str channel
    cdef Shape _message
    cdef Shape _row
    cdef bytes _name
    cdef object _array
    cdef char* _data
    cdef Py_ssize_t _cap
    cdef list _views
    cdef char _head[80]

    def __cinit__(self, str channel):
        if channel not in CHANNELS:
            raise ConfigError(f"Rows reads one of {', '.join(CHANNELS)}, not {channel!r}")
        self.channel = channel
        self._name = channel.encode()
        self._message, self._row = CHANNELS[channel]
        memset(self._head, 0, sizeof(self._head))
        self._make(1)

    cdef int _make(self, Py_ssize_t cap) except -1:
        cdef cnp.ndarray array = np.zeros(cap, self._row.dtype)
        self._array = array
        self._data = <char*>cnp.PyArray_DATA(array)
        self._cap = cap
        self._views = [None] * (cap + 1)
        return 0

    def read(self, message: bytes | memoryview) -> np.ndarray:
        """The rows of one WebSocket message: (n,), read-only, changed by the next message: copy what you keep.

        DecodeError for what cannot be read, with the field; also for a message of another channel.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(message, &view, 0)
        try:
            return self.take(<const char*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef object take(self, const char* buf, Py_ssize_t size):
        cdef Cursor c
        cdef Reading reading
        cdef DecodeStatus status
        cdef Py_ssize_t most = size // self._row.least + 1
        if most > self._cap:
            self._make(2 * most)
        c.p = buf
        c.end = buf + size
        reading.head = self._head
        reading.culprit = NULL
        reading.rows = self._data
        reading.cap = self._cap
        reading.count = 0
        reading.name = PyBytes_AS_STRING(self._name)
        reading.name_size = PyBytes_GET_SIZE(self._name)
        memset(self._head, 0, sizeof(self._head))
        status = read_object(&c, &self._message.plan, self._head, &reading)
        if status == DECODE_OK:
            space(&c)
            if c.p != c.end:
                status = DECODE_SHAPE
        if status != DECODE_OK:
            raise_error(self.channel, status, &reading, buf, size, c.p - buf)
        rows = self._views[reading.count]
        if rows is None:
            rows = self._views[reading.count] = self._array[:reading.count]
            rows.flags.writeable = False
        return rows

    @property
    def dtype(self) -> np.dtype:
        """Of the rows."""
        return self._row.dtype

    @property
    def is_snapshot(self) -> bool:
        """Whether the last message replays what was before it, as the first one after a subscribe does."""
        return self._head[74] != 0

    @property
    def user(self) -> str:
        """Whom the last message is about; empty where it does not say."""
        return self._head[:42].rstrip(b"\0").decode("utf-8", "replace")

    @property
    def dex(self) -> str:
        """The dex that the last message is about; empty for the first one, and where it does not say."""
        return self._head[42:74].rstrip(b"\0").decode("utf-8", "replace")
