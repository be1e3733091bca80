"""Wire bytes to C values. The functions with Python names are for tests and tools; see codec.pxd for the rest."""
from libc.math cimport isfinite
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from hlconn._core.cursor cimport (
    DECODE_COIN, DECODE_FIELD, DECODE_LIMIT, DECODE_OK, DECODE_ORDER, DECODE_RANGE, DECODE_SHAPE, FAST_ROOM,
    Cursor, DecodeStatus, Slice, ahead, decimal as read_decimal, decimal_text, expect, hl_decimal_fast,
    integer as read_integer, literal, must, skip, slice_is, space, string as read_string, string_rest,
    unescape)

import binascii
import zlib

from hlconn.errors import DecodeError

cdef extern from "levels.h" nogil:
    # A run of levels in today's spelling; see there. The last byte taken is never at or past `end`.
    const char* hl_levels(const char* p, const char* end, int row, Py_ssize_t cap, double* px, double* sz, int64_t* n,
                          Py_ssize_t* count)
    const char* hl_levels_portable(const char* p, const char* end, int row, Py_ssize_t cap, double* px, double* sz,
                                   int64_t* n, Py_ssize_t* count)
    int hl_levels_choose(int portable)
    enum: HL_LEVEL_ROOM

hl_levels_choose(False)


# --- envelope ---------------------------------------------------------------------------------------------------

cdef Channel channel_of(Slice* name) noexcept nogil:
    if slice_is(name, b"l2Book", 6):
        return CH_L2BOOK
    if slice_is(name, b"bbo", 3):
        return CH_BBO
    if slice_is(name, b"trades", 6):
        return CH_TRADES
    if slice_is(name, b"l2", 2):
        return CH_L2
    return CH_OTHER


# A slice that needs no unescaping: the same, or its text in `room` of MAX_COIN + 4 bytes.
cdef DecodeStatus settle(Slice* s, char* room) noexcept nogil:
    cdef Py_ssize_t n
    if s.n > MAX_COIN and not s.escaped:
        return DECODE_LIMIT
    if s.escaped:
        n = unescape(s, room, MAX_COIN + 4)
        if n < 0 or n > MAX_COIN:
            return DECODE_LIMIT
        s.p = room
        s.n = n
        s.escaped = False
    return DECODE_OK


# The value of `name` ("coin") in the object that comes next; the cursor is the caller's to throw away.
cdef DecodeStatus find_coin(Cursor* c, const char* name, Py_ssize_t n, Slice* out) noexcept nogil:
    cdef Slice key
    cdef DecodeStatus status
    if expect(c, c'{') != DECODE_OK:
        return DECODE_SHAPE
    if ahead(c, c'}'):
        return DECODE_FIELD
    while True:
        status = read_string(c, &key)
        if status == DECODE_OK:
            status = expect(c, c':')
        if status != DECODE_OK:
            return status
        if slice_is(&key, name, n):
            return read_string(c, out)
        status = skip(c)
        if status != DECODE_OK:
            return status
        if ahead(c, c'}'):
            return DECODE_FIELD
        if expect(c, c',') != DECODE_OK:
            return DECODE_SHAPE


# The kind and the coin of l2 data; a compressed update is read to its end, for it has neither.
cdef DecodeStatus route_l2(Cursor* c, Envelope* out) noexcept nogil:
    cdef Slice key
    cdef DecodeStatus status
    out.bare = False
    if expect(c, c'{') != DECODE_OK or read_string(c, &key) != DECODE_OK or expect(c, c':') != DECODE_OK:
        return DECODE_SHAPE
    space(c)
    out.data = c.p
    if slice_is(&key, b"s", 1):
        out.l2 = L2_SNAPSHOT
        return find_coin(c, b"coin", 4, &out.coin)
    if slice_is(&key, b"u", 1):
        out.l2 = L2_UPDATE
        return find_coin(c, b"c", 1, &out.coin)
    if not slice_is(&key, b"c", 1):
        return DECODE_FIELD
    out.l2 = L2_COMPRESSED
    out.coin.p = c.p
    out.coin.n = 0
    out.coin.escaped = False
    status = read_string(c, &out.l2_text)
    return end_l2(c, out) if status == DECODE_OK else status


cdef DecodeStatus route(Cursor* c, Envelope* out) noexcept nogil:
    cdef Cursor look = c[0]
    cdef DecodeStatus status
    if out.channel == CH_L2:
        status = route_l2(&look, out)
        if status == DECODE_OK:
            status = settle(&out.coin, out.coin_text)
        if status != DECODE_OK:
            c.p = look.p
        return status
    if out.channel == CH_TRADES:
        if expect(&look, c'[') != DECODE_OK:
            c.p = look.p
            return DECODE_SHAPE
        if ahead(&look, c']'):
            out.coin.p = look.p
            out.coin.n = 0
            out.coin.escaped = False
            return DECODE_OK
    if literal(&look, b'{"coin":"', 9):
        status = string_rest(&look, &out.coin)
    else:
        status = find_coin(&look, b"coin", 4, &out.coin)
    if status == DECODE_OK:
        status = settle(&out.coin, out.coin_text)
    if status != DECODE_OK:
        c.p = look.p
        out.coin.n = 0
    return status


# Every key of the envelope, in any order; each value is checked in full.
cdef DecodeStatus walk_envelope(Cursor* c, Envelope* out) noexcept nogil:
    cdef Slice key
    cdef DecodeStatus status
    cdef bint is_channel
    if expect(c, c'{') != DECODE_OK:
        return DECODE_SHAPE
    while True:
        status = read_string(c, &key)
        if status != DECODE_OK:
            return status
        if expect(c, c':') != DECODE_OK:
            return DECODE_SHAPE
        is_channel = slice_is(&key, b"channel", 7)
        if is_channel and not out.has_name:
            status = read_string(c, &out.name)
            if status == DECODE_OK:
                out.has_name = True
                status = settle(&out.name, out.name_text)
        elif not is_channel and slice_is(&key, b"data", 4) and out.data == NULL:
            space(c)
            out.data = c.p
            status = skip(c)
        elif is_channel or slice_is(&key, b"data", 4):
            return DECODE_SHAPE  # said twice
        else:
            status = skip(c)
        if status != DECODE_OK:
            return status
        if ahead(c, c'}'):
            c.p += 1
            break
        if expect(c, c',') != DECODE_OK:
            return DECODE_SHAPE
    space(c)
    if c.p != c.end:
        return DECODE_SHAPE
    return DECODE_OK if out.has_name else DECODE_FIELD


cdef DecodeStatus read_envelope(const char* buf, Py_ssize_t size, Envelope* out, Py_ssize_t* at) noexcept nogil:
    cdef Cursor c
    cdef DecodeStatus status
    c.p = buf
    c.end = buf + size
    out.channel = CH_OTHER
    out.has_name = False
    out.data = NULL
    out.to_the_end = False
    out.reordered = False
    out.coin.n = 0
    if literal(&c, b'{"channel":"', 12) and string_rest(&c, &out.name) == DECODE_OK and not out.name.escaped:
        out.channel = channel_of(&out.name)
        if out.channel != CH_OTHER and literal(&c, b',"data":', 8):
            out.has_name = True
            out.data = c.p
            out.to_the_end = True
            status = route(&c, out)
            at[0] = c.p - buf
            return status
    c.p = buf
    out.channel = CH_OTHER
    status = walk_envelope(&c, out)
    if status == DECODE_OK:
        out.channel = channel_of(&out.name)
        if out.channel != CH_OTHER:
            out.reordered = True
            if out.data == NULL:
                status = DECODE_FIELD
            else:
                c.p = out.data
                status = route(&c, out)
    elif out.has_name:
        out.channel = channel_of(&out.name)
    at[0] = c.p - buf
    return status


# What follows the data of a message in today's spelling: "}" and the end, or further keys.
cdef DecodeStatus finish(Cursor* c) noexcept nogil:
    cdef Slice key
    cdef DecodeStatus status
    while ahead(c, c','):
        c.p += 1
        status = read_string(c, &key)
        if status != DECODE_OK:
            return status
        if slice_is(&key, b"channel", 7) or slice_is(&key, b"data", 4) or expect(c, c':') != DECODE_OK:
            return DECODE_SHAPE
        status = skip(c)
        if status != DECODE_OK:
            return status
    if expect(c, c'}') != DECODE_OK:
        return DECODE_SHAPE
    space(c)
    return DECODE_OK if c.p == c.end else DECODE_SHAPE


# What follows the value of l2 data's one key.
cdef DecodeStatus end_l2(Cursor* c, Envelope* envelope) noexcept nogil:
    if envelope.bare:
        space(c)
        return DECODE_OK if c.p == c.end else DECODE_SHAPE
    if expect(c, c'}') != DECODE_OK:
        return DECODE_SHAPE
    return finish(c) if envelope.to_the_end else DECODE_OK


# --- books ------------------------------------------------------------------------------------------------------

cdef DecodeStatus level_any(Cursor* c, double* px, double* sz, int64_t* n) noexcept nogil:
    cdef Slice key
    cdef DecodeStatus status
    cdef int seen = 0
    if expect(c, c'{') != DECODE_OK:
        return DECODE_SHAPE
    while not ahead(c, c'}'):
        if seen & 8 and expect(c, c',') != DECODE_OK:
            return DECODE_SHAPE
        status = read_string(c, &key)
        if status == DECODE_OK:
            status = expect(c, c':')
        if status != DECODE_OK:
            return status
        if slice_is(&key, b"px", 2):
            status = read_decimal(c, px)
            seen |= 1
        elif slice_is(&key, b"sz", 2):
            status = read_decimal(c, sz)
            seen |= 2
        elif slice_is(&key, b"n", 1):
            status = read_integer(c, n)
            seen |= 4
        else:
            status = skip(c)
        if status != DECODE_OK:
            return status
        seen |= 8
    if seen != 15:
        return DECODE_FIELD
    c.p += 1
    return DECODE_OK


# The next level, in any spelling. The last one of a message is too near its end for the fast reader, which touches
# HL_LEVEL_ROOM bytes: it gets a padded copy.
cdef DecodeStatus level(Cursor* c, double* px, double* sz, int64_t* n, bint* reordered) noexcept nogil:
    cdef char room[2 * HL_LEVEL_ROOM]
    cdef const char* p = c.p
    cdef Py_ssize_t left = c.end - c.p
    cdef Py_ssize_t taken = 0
    if left < HL_LEVEL_ROOM:
        memset(room, 0, sizeof(room))
        memcpy(room, c.p, <size_t>left)
        p = room
        left = sizeof(room)
    c.p += hl_levels(p, p + left, 0, 1, px, sz, n, &taken) - p
    if not taken:  # more digits than the AVX2 reader takes
        c.p += hl_levels_portable(p, p + left, 0, 1, px, sz, n, &taken) - p
    if taken:
        return DECODE_OK
    reordered[0] = True
    return level_any(c, px, sz, n)


cdef inline bint is_level(double px, double sz, int64_t n) noexcept nogil:
    return isfinite(px) and px > 0.0 and isfinite(sz) and sz >= 0.0 and n >= 0


# The levels of one side, from after its "[" and past its "]".
cdef DecodeStatus levels(Cursor* c, int row, BookMessage* out) noexcept nogil:
    cdef BookSide* side = &out.side[row]
    cdef double px = 0
    cdef double sz = 0
    cdef double last = 0
    cdef int64_t n = 0
    cdef Py_ssize_t count = 0
    cdef DecodeStatus status
    cdef const char* start
    side.total = 0
    c.p = hl_levels(c.p, c.end, row, out.cap, side.px, side.sz, side.n, &count)
    must(c.p <= c.end and count <= out.cap)
    side.kept = count
    if count:
        last = side.px[count - 1]
    elif ahead(c, c']'):
        c.p += 1
        return DECODE_OK
    while True:
        if count:
            if ahead(c, c']'):
                c.p += 1
                break
            if expect(c, c',') != DECODE_OK:
                return DECODE_SHAPE
        if count == MAX_LEVELS:
            return DECODE_LIMIT
        start = c.p
        status = level(c, &px, &sz, &n, &out.reordered)
        if status != DECODE_OK:
            return status
        must(start < c.p <= c.end)
        if not is_level(px, sz, n):
            c.p = start
            return DECODE_RANGE
        if count and (px >= last if row == 0 else px <= last):
            c.p = start
            return DECODE_ORDER
        last = px
        if count < out.cap:
            side.px[count] = px
            side.sz[count] = sz
            side.n[count] = n
            side.kept = count + 1
        count += 1
    side.total = count
    return DECODE_OK


# l2Book: [[level...],[level...]]
cdef DecodeStatus both_sides(Cursor* c, BookMessage* out) noexcept nogil:
    cdef DecodeStatus status
    cdef int row
    if expect(c, c'[') != DECODE_OK:
        return DECODE_SHAPE
    for row in range(2):
        if row and expect(c, c',') != DECODE_OK:
            return DECODE_SHAPE
        if expect(c, c'[') != DECODE_OK:
            return DECODE_SHAPE
        status = levels(c, row, out)
        if status != DECODE_OK:
            return status
    return expect(c, c']')


# bbo: [level|null,level|null]
cdef DecodeStatus both_tops(Cursor* c, BookMessage* out) noexcept nogil:
    cdef DecodeStatus status
    cdef BookSide* side
    cdef const char* start
    cdef int row
    if expect(c, c'[') != DECODE_OK:
        return DECODE_SHAPE
    for row in range(2):
        side = &out.side[row]
        if row and expect(c, c',') != DECODE_OK:
            return DECODE_SHAPE
        space(c)
        side.kept = side.total = 0
        if literal(c, b"null", 4):
            continue
        start = c.p
        status = level(c, &side.px[0], &side.sz[0], &side.n[0], &out.reordered)
        if status != DECODE_OK:
            return status
        if not is_level(side.px[0], side.sz[0], side.n[0]):
            c.p = start
            return DECODE_RANGE
        side.kept = side.total = 1
    return expect(c, c']')


cdef DecodeStatus read_book(
        const char* buf, Py_ssize_t size, Envelope* envelope, BookMessage* out, Py_ssize_t* at) noexcept nogil:
    cdef Cursor c
    cdef Cursor fast
    cdef Slice key
    cdef Slice coin
    cdef DecodeStatus status = DECODE_OK
    cdef bint is_bbo = envelope.channel == CH_BBO
    cdef int seen = 0
    c.p = envelope.data
    c.end = buf + size
    out.reordered = envelope.reordered
    out.fast = out.aggregated = False
    out.side[0].kept = out.side[0].total = out.side[1].kept = out.side[1].total = 0
    # today's order: coin, time, then the levels; what comes after them takes the general loop
    fast = c
    if (literal(&fast, b'{"coin":"', 9) and literal(&fast, envelope.coin.p, envelope.coin.n)
            and literal(&fast, b'","time":', 9) and read_integer(&fast, &out.time_ms) == DECODE_OK):
        if literal(&fast, b',"bbo":', 7) if is_bbo else literal(&fast, b',"levels":', 10):
            c = fast
            status = both_tops(&c, out) if is_bbo else both_sides(&c, out)
            seen = 15
    if not seen:
        out.reordered = True
        status = expect(&c, c'{')
    while status == DECODE_OK:
        if ahead(&c, c'}'):
            c.p += 1
            break
        if seen & 8 and expect(&c, c',') != DECODE_OK:
            status = DECODE_SHAPE
            break
        status = read_string(&c, &key)
        if status == DECODE_OK:
            status = expect(&c, c':')
        if status != DECODE_OK:
            break
        if slice_is(&key, b"coin", 4):
            status = read_string(&c, &coin)
            if status == DECODE_OK and not slice_is(&coin, envelope.coin.p, envelope.coin.n):
                status = DECODE_COIN
            seen |= 1
        elif slice_is(&key, b"time", 4):
            status = read_integer(&c, &out.time_ms)
            seen |= 2
        elif slice_is(&key, b"bbo", 3) if is_bbo else slice_is(&key, b"levels", 6):
            status = both_tops(&c, out) if is_bbo else both_sides(&c, out)
            seen |= 4
        elif slice_is(&key, b"fast", 4) and not is_bbo:
            space(&c)
            out.fast = literal(&c, b"true", 4)
            if not out.fast:
                status = skip(&c)
        elif slice_is(&key, b"spread", 6) and not is_bbo:
            space(&c)
            if not literal(&c, b"null", 4):
                out.aggregated = True
                status = skip(&c)
        else:
            status = skip(&c)
        seen |= 8
    if status == DECODE_OK and seen & 7 != 7:
        status = DECODE_FIELD
    if status == DECODE_OK and out.side[0].kept and out.side[1].kept and out.side[0].px[0] >= out.side[1].px[0]:
        status = DECODE_ORDER
    if status == DECODE_OK and envelope.to_the_end:
        status = finish(&c)
    at[0] = c.p - buf
    return status


# --- l2 ---------------------------------------------------------------------------------------------------------

cdef DecodeStatus read_l2_snapshot(
        const char* buf, Py_ssize_t size, Envelope* envelope, BookMessage* out, Py_ssize_t* at) noexcept nogil:
    cdef Cursor c
    cdef bint to_the_end = envelope.to_the_end
    cdef DecodeStatus status
    envelope.to_the_end = False
    status = read_book(buf, size, envelope, out, at)
    envelope.to_the_end = to_the_end
    if status == DECODE_OK and (out.side[0].total > MAX_L2_LEVELS or out.side[1].total > MAX_L2_LEVELS):
        status = DECODE_LIMIT
    if status == DECODE_OK:
        c.p = buf + at[0]
        c.end = buf + size
        status = end_l2(&c, envelope)
        at[0] = c.p - buf
    return status


# {"p":px,"s":sz}
cdef DecodeStatus l2_level(Cursor* c, double* px, double* sz) noexcept nogil:
    cdef Cursor fast
    cdef Slice key
    cdef DecodeStatus status
    cdef int seen = 0
    space(c)
    fast = c[0]
    if (literal(&fast, b'{"p":', 5) and read_decimal(&fast, px) == DECODE_OK and literal(&fast, b',"s":', 5)
            and read_decimal(&fast, sz) == DECODE_OK and literal(&fast, b'}', 1)):
        c.p = fast.p
        return DECODE_OK
    if expect(c, c'{') != DECODE_OK:
        return DECODE_SHAPE
    while not ahead(c, c'}'):
        if seen & 4 and expect(c, c',') != DECODE_OK:
            return DECODE_SHAPE
        status = read_string(c, &key)
        if status == DECODE_OK:
            status = expect(c, c':')
        if status != DECODE_OK:
            return status
        if slice_is(&key, b"p", 1):
            status = read_decimal(c, px)
            seen |= 1
        elif slice_is(&key, b"s", 1):
            status = read_decimal(c, sz)
            seen |= 2
        else:
            status = skip(c)
        if status != DECODE_OK:
            return status
        seen |= 4
    if seen != 7:
        return DECODE_FIELD
    c.p += 1
    return DECODE_OK


# One side of "l" or of "r": [...]
cdef DecodeStatus l2_side(Cursor* c, int row, bint removals, L2Update* out) noexcept nogil:
    cdef BookSide* side = &out.side[row]
    cdef Py_ssize_t count = 0
    cdef DecodeStatus status
    cdef const char* start
    if expect(c, c'[') != DECODE_OK:
        return DECODE_SHAPE
    while not ahead(c, c']'):
        if count and expect(c, c',') != DECODE_OK:
            return DECODE_SHAPE
        if count == MAX_L2_LEVELS:
            return DECODE_LIMIT
        space(c)
        start = c.p
        if removals:
            status = read_integer(c, &out.removed[row][count])
        else:
            status = l2_level(c, &side.px[count], &side.sz[count])
        if status != DECODE_OK:
            return status
        if not removals and (not is_level(side.px[count], side.sz[count], 0) or side.sz[count] == 0.0):
            c.p = start
            return DECODE_RANGE
        count += 1
    c.p += 1
    if removals:
        out.removals[row] = count
    else:
        side.kept = side.total = count
    return DECODE_OK


cdef DecodeStatus l2_sides(Cursor* c, bint removals, L2Update* out) noexcept nogil:
    cdef DecodeStatus status
    if expect(c, c'[') != DECODE_OK:
        return DECODE_SHAPE
    status = l2_side(c, 0, removals, out)
    if status == DECODE_OK:
        status = expect(c, c',')
    if status == DECODE_OK:
        status = l2_side(c, 1, removals, out)
    return expect(c, c']') if status == DECODE_OK else status


cdef DecodeStatus read_l2_update(
        const char* buf, Py_ssize_t size, Envelope* envelope, L2Update* out, Py_ssize_t* at) noexcept nogil:
    cdef Cursor c
    cdef Slice key
    cdef Slice coin
    cdef DecodeStatus status
    cdef int seen = 0
    c.p = envelope.data
    c.end = buf + size
    status = expect(&c, c'{')
    while status == DECODE_OK:
        if ahead(&c, c'}'):
            c.p += 1
            break
        if seen & 16 and expect(&c, c',') != DECODE_OK:
            status = DECODE_SHAPE
            break
        status = read_string(&c, &key)
        if status == DECODE_OK:
            status = expect(&c, c':')
        if status != DECODE_OK:
            break
        if slice_is(&key, b"c", 1):
            status = read_string(&c, &coin)
            if status == DECODE_OK and not slice_is(&coin, envelope.coin.p, envelope.coin.n):
                status = DECODE_COIN
            seen |= 1
        elif slice_is(&key, b"t", 1):
            status = read_integer(&c, &out.time_ms)
            seen |= 2
        elif slice_is(&key, b"l", 1):
            status = l2_sides(&c, False, out)
            seen |= 4
        elif slice_is(&key, b"r", 1):
            status = l2_sides(&c, True, out)
            seen |= 8
        else:
            status = skip(&c)
        seen |= 16
    if status == DECODE_OK and seen != 31:
        status = DECODE_FIELD
    if status == DECODE_OK:
        status = end_l2(&c, envelope)
    at[0] = c.p - buf
    return status


cdef DecodeStatus read_l2_inflated(const char* buf, Py_ssize_t size, Envelope* out, Py_ssize_t* at) noexcept nogil:
    cdef Cursor c
    cdef DecodeStatus status
    c.p = buf
    c.end = buf + size
    out.channel = CH_L2
    out.l2 = L2_UPDATE
    out.data = buf
    out.bare = True
    status = find_coin(&c, b"c", 1, &out.coin)
    if status == DECODE_OK:
        status = settle(&out.coin, out.coin_text)
    at[0] = c.p - buf
    return status


cdef bytes inflate_l2(Envelope* envelope):
    cdef Slice* s = &envelope.l2_text
    cdef bytes text
    cdef Py_ssize_t n
    if s.n > MAX_L2_TEXT:
        raise DecodeError("l2", 0, s.p[:80], f"compressed data of more than {MAX_L2_TEXT} bytes")
    text = s.p[:s.n]
    if s.escaped:  # base64 has a "/", and JSON may write it with a backslash
        room = bytearray(s.n + 4)
        n = unescape(s, room, s.n + 4)
        if n < 0:
            raise DecodeError("l2", 0, text[:80], "compressed data that is no base64")
        text = bytes(room[:n])
    stream = zlib.decompressobj(-15)
    try:
        plain = stream.decompress(binascii.a2b_base64(text, strict_mode=True), MAX_L2_INFLATED + 1)
    except binascii.Error as exc:
        raise DecodeError("l2", 0, text[:80], f"compressed data that is no base64 ({exc})") from None
    except zlib.error as exc:
        raise DecodeError("l2", 0, text[:80], f"compressed data that is no deflate stream ({exc})") from None
    if len(plain) > MAX_L2_INFLATED:
        raise DecodeError("l2", 0, text[:80], f"compressed data that inflates to more than {MAX_L2_INFLATED} bytes")
    if not stream.eof or stream.unused_data:
        raise DecodeError("l2", 0, text[:80], "compressed data that is cut short, or has something behind it")
    return plain


# --- trades -----------------------------------------------------------------------------------------------------

# "users":[buyer,seller], copied when wanted.
cdef DecodeStatus users(Cursor* c, TradeRow* row, bint wanted) noexcept nogil:
    cdef Slice address
    cdef DecodeStatus status
    cdef char plain[46]
    cdef int i
    if not wanted:
        return skip(c)
    if expect(c, c'[') != DECODE_OK:
        return DECODE_SHAPE
    for i in range(2):
        if i and expect(c, c',') != DECODE_OK:
            return DECODE_SHAPE
        status = read_string(c, &address)
        if status != DECODE_OK:
            return status
        if address.escaped:
            address.n = unescape(&address, plain, sizeof(plain))
            address.p = plain
        if not 0 <= address.n <= 42:
            return DECODE_LIMIT
        memcpy(&row.seller[0] if i else &row.buyer[0], address.p, <size_t>address.n)
    return expect(c, c']')


cdef DecodeStatus side_of(Cursor* c, TradeRow* row) noexcept nogil:
    cdef Slice text
    cdef DecodeStatus status = read_string(c, &text)
    if status != DECODE_OK:
        return status
    if slice_is(&text, b"A", 1):
        row.side = 1
    elif slice_is(&text, b"B", 1):
        row.side = 0
    else:
        return DECODE_SHAPE
    return DECODE_OK


# Today's order up to the tid; False leaves the cursor where it was. `row` has 42 + 42 bytes for the users.
cdef inline bint trade_fast(Cursor* c, Slice* coin, TradeRow* row) noexcept nogil:
    cdef Cursor f = c[0]
    cdef Slice hash
    if not (literal(&f, b'{"coin":"', 9) and literal(&f, coin.p, coin.n) and literal(&f, b'","side":"', 10)):
        return False
    if f.end - f.p < 2 * FAST_ROOM + 64 or (f.p[0] != c'A' and f.p[0] != c'B'):
        return False
    row.side = f.p[0] == c'A'
    f.p += 1
    if not literal(&f, b'","px":"', 8):
        return False
    f.p = hl_decimal_fast(f.p, &row.px)
    if f.p == NULL or not literal(&f, b',"sz":"', 7):
        return False
    f.p = hl_decimal_fast(f.p, &row.sz)
    if f.p == NULL or not literal(&f, b',"time":', 8) or read_integer(&f, &row.time) != DECODE_OK:
        return False
    if not literal(&f, b',"hash":"', 9) or string_rest(&f, &hash) != DECODE_OK:
        return False
    if not literal(&f, b',"tid":', 7) or read_integer(&f, &row.tid) != DECODE_OK:
        return False
    c.p = f.p
    return True


cdef DecodeStatus trade(Cursor* c, Slice* coin, TradeRow* row, bint with_users, bint* reordered) noexcept nogil:
    cdef Slice key
    cdef Slice text
    cdef DecodeStatus status
    cdef int seen = 0        # one bit a required key, 64: some key
    cdef const char* start
    space(c)
    start = c.p
    if trade_fast(c, coin, row):
        seen = 127
    else:
        reordered[0] = True
        if expect(c, c'{') != DECODE_OK:
            return DECODE_SHAPE
    if with_users:
        memset(row.buyer, 0, 84)
    while not ahead(c, c'}'):
        if seen & 64 and expect(c, c',') != DECODE_OK:
            return DECODE_SHAPE
        status = read_string(c, &key)
        if status == DECODE_OK:
            status = expect(c, c':')
        if status != DECODE_OK:
            return status
        if slice_is(&key, b"users", 5):
            status = users(c, row, with_users)
        elif slice_is(&key, b"coin", 4):
            status = read_string(c, &text)
            if status == DECODE_OK and not slice_is(&text, coin.p, coin.n):
                status = DECODE_COIN
            seen |= 1
        elif slice_is(&key, b"side", 4):
            status = side_of(c, row)
            seen |= 2
        elif slice_is(&key, b"px", 2):
            status = read_decimal(c, &row.px)
            seen |= 4
        elif slice_is(&key, b"sz", 2):
            status = read_decimal(c, &row.sz)
            seen |= 8
        elif slice_is(&key, b"time", 4):
            status = read_integer(c, &row.time)
            seen |= 16
        elif slice_is(&key, b"tid", 3):
            status = read_integer(c, &row.tid)
            seen |= 32
        else:
            status = skip(c)
        if status != DECODE_OK:
            return status
        seen |= 64
    if seen != 127:
        return DECODE_FIELD
    if not is_level(row.px, row.sz, 0):
        c.p = start
        return DECODE_RANGE
    c.p += 1
    return DECODE_OK


cdef DecodeStatus read_trades(
        const char* buf, Py_ssize_t size, Envelope* envelope, TradeMessage* out, Py_ssize_t* at) noexcept nogil:
    cdef Cursor c
    cdef TradeRow spill          # where the trades go that do not fit: read and counted, not kept
    cdef TradeRow* row
    cdef DecodeStatus status
    c.p = envelope.data
    c.end = buf + size
    out.reordered = envelope.reordered
    out.total = 0
    status = expect(&c, c'[')
    if status == DECODE_OK and ahead(&c, c']'):
        c.p += 1
    else:
        while status == DECODE_OK:
            if out.total == MAX_TRADES:
                status = DECODE_LIMIT
                break
            row = <TradeRow*>(out.rows + out.total * out.stride) if out.total < out.cap else &spill
            status = trade(&c, &envelope.coin, row, out.users, &out.reordered)
            if status != DECODE_OK:
                break
            must(c.p <= c.end)
            out.total += 1
            if ahead(&c, c']'):
                c.p += 1
                break
            status = expect(&c, c',')
    if status == DECODE_OK and envelope.to_the_end:
        status = finish(&c)
    at[0] = c.p - buf
    return status


# --- Python ----------------------------------------------------------------------------------------------------

cdef object REASONS = {
    <int>DECODE_SHAPE: "not the expected shape, or cut short",
    <int>DECODE_LIMIT: "deeper, longer or more than is accepted",
    <int>DECODE_ORDER: "levels not strictly sorted, or crossed sides,",
    <int>DECODE_RANGE: "a price or a size that cannot be one",
    <int>DECODE_FIELD: "a required field is missing",
    <int>DECODE_COIN: "another coin than expected",
}


cdef int raise_decode(Envelope* envelope, DecodeStatus status, const char* buf, Py_ssize_t size,
                      Py_ssize_t at) except -1:
    channel = coin = ""
    if envelope != NULL and (envelope.has_name or envelope.channel != CH_OTHER):
        channel = envelope.name.p[:envelope.name.n].decode("utf-8", "replace")
        if envelope.coin.n > 0 and envelope.channel != CH_OTHER:
            coin = envelope.coin.p[:envelope.coin.n].decode("utf-8", "replace")
    raise DecodeError(channel, at, buf[at:min(size, at + 80)], REASONS[<int>status], coin)


def decimal(text: bytes) -> float:
    """The double nearest to a decimal text: bit for bit Python's `float(text)`.

    Accepts `[-]digits[.digits][e[+-]digits]` of at most 256 bytes; anything else, also what `float` would take
    ("inf", "1_0", " 1"), raises DecodeError.
    """
    cdef double out = 0
    cdef const char* p = text
    cdef DecodeStatus status = decimal_text(p, len(text), &out)
    if status != DECODE_OK:
        raise_decode(NULL, status, p, len(text), 0)
    return out


def read(what: str, text: bytes) -> tuple[object, int]:
    """Read one "decimal", "integer", "string" or "value" from the start of `text`: (value, bytes consumed).

    A "value" of any kind is only checked and skipped (None). Raises DecodeError with the offset that failed.
    """
    cdef Cursor c
    cdef Slice s
    cdef double number = 0
    cdef int64_t whole = 0
    cdef char room[MAX_COIN + 4]
    cdef const char* p = text
    cdef Py_ssize_t n
    cdef DecodeStatus status
    c.p = p
    c.end = p + len(text)
    value = None
    if what == "decimal":
        status = read_decimal(&c, &number)
        value = number
    elif what == "integer":
        status = read_integer(&c, &whole)
        value = whole
    elif what == "string":
        status = read_string(&c, &s)
        if status == DECODE_OK:
            value = s.p[:s.n]
            if s.escaped:
                n = unescape(&s, room, MAX_COIN + 4)
                if n < 0 or n > MAX_COIN:
                    status = DECODE_LIMIT
                else:
                    value = room[:n]
    elif what == "value":
        status = skip(&c)
    else:
        raise ValueError(f"read: what must be decimal, integer, string or value, not {what!r}")
    if status != DECODE_OK:
        raise_decode(NULL, status, p, len(text), c.p - p)
    return value, c.p - p


def route_of(message: bytes) -> tuple[str, str | None]:
    """The channel of a message and, for l2Book, bbo and trades, its coin. Raises DecodeError."""
    cdef Envelope envelope
    cdef Py_ssize_t at = 0
    cdef const char* p = message
    cdef DecodeStatus status = read_envelope(p, len(message), &envelope, &at)
    if status != DECODE_OK:
        raise_decode(&envelope, status, p, len(message), at)
    channel = envelope.name.p[:envelope.name.n].decode("utf-8", "replace")
    if envelope.channel == CH_OTHER:
        return channel, None
    return channel, envelope.coin.p[:envelope.coin.n].decode("utf-8", "replace")


def _use_portable(portable: bool) -> bool:
    """For tests: read levels with the portable reader, or again with the best one. Whether that is the AVX2 one."""
    return hl_levels_choose(portable) != 0
