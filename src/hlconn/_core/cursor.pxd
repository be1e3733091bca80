# cursor.pxd: a bounds-checked JSON cursor. Every function borrows [p, end): not NUL-terminated, valid only during
# the call; none allocates, touches a Python object or reads at or past `end`. On failure `p` stands on the first
# byte that could not be read, and the status says why.
#
# Imported by: codec (and book, for statuses and must).  Imports: libc, swar.h.
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from "swar.h" nogil:
    const char* hl_decimal_fast(const char* p, double* out)
    const char* hl_digits_fast(const char* p, int64_t* out)
    const char* hl_string_stop(const char* p, const char* end)
    const double hl_pow10[23]

cdef extern from "Python.h":
    # Python's own float(): the oracle itself for texts that the fast path cannot do exactly. Declared nogil
    # because `nogil` here means "no Python object"; the lock is held all the time (nothing in _core releases it).
    double PyOS_string_to_double(const char* s, char** endptr, void* overflow) nogil
    void* PyErr_Occurred() nogil
    void PyErr_Clear() nogil

cdef extern from "assert.h" nogil:
    # Ends the process when it does not hold; only in the checked build (HLCONN_CHECKED), nothing elsewhere.
    void must "assert"(bint)

cdef enum DecodeStatus:
    DECODE_OK = 0
    DECODE_SHAPE = -1    # not the shape of this channel, or not JSON, or cut short
    DECODE_LIMIT = -2    # deeper, longer or more than we accept
    DECODE_ORDER = -3    # levels not strictly sorted, or the sides cross
    DECODE_RANGE = -4    # a price or a size that cannot be one
    DECODE_FIELD = -5    # a required field is missing
    DECODE_COIN = -6     # not the coin that was asked for

cdef enum:
    MAX_DEPTH = 64       # nesting of a skipped value: one bit each in `kinds`
    MAX_DECIMAL = 256    # bytes of a decimal text
    FAST_ROOM = 24       # bytes that hl_decimal_fast and hl_digits_fast may read

cdef struct Cursor:
    const char* p
    const char* end

cdef struct Slice:
    const char* p        # first byte after the opening quote
    Py_ssize_t n
    bint escaped         # holds a backslash: compare and copy through unescape()


cdef inline void space(Cursor* c) noexcept nogil:
    while c.p < c.end and (c.p[0] == c' ' or c.p[0] == c'\n' or c.p[0] == c'\r' or c.p[0] == c'\t'):
        c.p += 1


# White space, then this byte.
cdef inline DecodeStatus expect(Cursor* c, char byte) noexcept nogil:
    space(c)
    if c.p < c.end and c.p[0] == byte:
        c.p += 1
        return DECODE_OK
    return DECODE_SHAPE


# White space, then whether this byte comes next; it is not consumed.
cdef inline bint ahead(Cursor* c, char byte) noexcept nogil:
    space(c)
    return c.p < c.end and c.p[0] == byte


# Exactly these bytes, consumed; or nothing, and the cursor has not moved.
cdef inline bint literal(Cursor* c, const char* text, Py_ssize_t n) noexcept nogil:
    if c.end - c.p >= n and memcmp(c.p, text, <size_t>n) == 0:
        c.p += n
        return True
    return False


cdef inline int hex_digit(char byte) noexcept nogil:
    if c'0' <= byte <= c'9':
        return byte - c'0'
    if c'a' <= byte <= c'f':
        return byte - c'a' + 10
    if c'A' <= byte <= c'F':
        return byte - c'A' + 10
    return -1


# The rest of a string, from after its opening quote; consumes the closing one.
cdef inline DecodeStatus string_rest(Cursor* c, Slice* out) noexcept nogil:
    cdef int i
    out.p = c.p
    out.escaped = False
    while True:
        c.p = hl_string_stop(c.p, c.end)
        if c.p >= c.end:
            return DECODE_SHAPE
        if c.p[0] == c'"':
            out.n = c.p - out.p
            c.p += 1
            return DECODE_OK
        if c.p[0] != c'\\' or c.end - c.p < 2:
            return DECODE_SHAPE
        out.escaped = True
        if c.p[1] == c'u':
            if c.end - c.p < 6:
                return DECODE_SHAPE
            for i in range(2, 6):
                if hex_digit(c.p[i]) < 0:
                    return DECODE_SHAPE
            c.p += 6
        elif (c.p[1] == c'"' or c.p[1] == c'\\' or c.p[1] == c'/' or c.p[1] == c'b' or c.p[1] == c'f'
              or c.p[1] == c'n' or c.p[1] == c'r' or c.p[1] == c't'):
            c.p += 2
        else:
            return DECODE_SHAPE


cdef inline DecodeStatus string(Cursor* c, Slice* out) noexcept nogil:
    if expect(c, c'"') != DECODE_OK:
        return DECODE_SHAPE
    return string_rest(c, out)


cdef inline unsigned int hex4(const char* p) noexcept nogil:
    return <unsigned int>((hex_digit(p[0]) << 12) | (hex_digit(p[1]) << 8) | (hex_digit(p[2]) << 4) | hex_digit(p[3]))


# The text of a string that string() accepted, as UTF-8, into `dst`. Returns its length, or -1 when it holds half a
# surrogate pair or is longer than `cap` - 3: a character is written where there is room for the longest, 4 bytes.
cdef inline Py_ssize_t unescape(Slice* s, char* dst, Py_ssize_t cap) noexcept nogil:
    cdef const char* p = s.p
    cdef const char* end = s.p + s.n
    cdef Py_ssize_t n = 0
    cdef unsigned int u
    cdef unsigned int low
    while p < end:
        if cap - n < 4:
            return -1
        if p[0] != c'\\':
            dst[n] = p[0]
            n += 1
            p += 1
            continue
        if p[1] != c'u':
            if p[1] == c'b':
                dst[n] = 8
            elif p[1] == c'f':
                dst[n] = 12
            elif p[1] == c'n':
                dst[n] = 10
            elif p[1] == c'r':
                dst[n] = 13
            elif p[1] == c't':
                dst[n] = 9
            else:
                dst[n] = p[1]
            n += 1
            p += 2
            continue
        u = hex4(p + 2)
        p += 6
        if 0xD800 <= u < 0xE000:
            if u >= 0xDC00 or end - p < 6 or p[0] != c'\\' or p[1] != c'u':
                return -1
            low = hex4(p + 2)
            if not (0xDC00 <= low < 0xE000):
                return -1
            p += 6
            u = 0x10000 + ((u - 0xD800) << 10) + (low - 0xDC00)
        if u < 0x80:
            dst[n] = <char>u
            n += 1
        elif u < 0x800:
            dst[n] = <char>(0xC0 | (u >> 6))
            dst[n + 1] = <char>(0x80 | (u & 0x3F))
            n += 2
        elif u < 0x10000:
            dst[n] = <char>(0xE0 | (u >> 12))
            dst[n + 1] = <char>(0x80 | ((u >> 6) & 0x3F))
            dst[n + 2] = <char>(0x80 | (u & 0x3F))
            n += 3
        else:
            dst[n] = <char>(0xF0 | (u >> 18))
            dst[n + 1] = <char>(0x80 | ((u >> 12) & 0x3F))
            dst[n + 2] = <char>(0x80 | ((u >> 6) & 0x3F))
            dst[n + 3] = <char>(0x80 | (u & 0x3F))
            n += 4
    return n


cdef inline bint slice_is(Slice* s, const char* text, Py_ssize_t n) noexcept nogil:
    cdef char plain[68]
    cdef Py_ssize_t size
    if not s.escaped:
        return s.n == n and memcmp(s.p, text, <size_t>n) == 0
    size = unescape(s, plain, sizeof(plain))
    return size == n and memcmp(plain, text, <size_t>n) == 0


# The end of a JSON number that starts at c.p; consumes it. No value: see integer() and decimal().
cdef inline DecodeStatus number(Cursor* c) noexcept nogil:
    cdef const char* start
    if c.p < c.end and c.p[0] == c'-':
        c.p += 1
    start = c.p
    while c.p < c.end and c'0' <= c.p[0] <= c'9':
        c.p += 1
    if c.p == start:
        return DECODE_SHAPE
    if start[0] == c'0' and c.p - start > 1:
        c.p = start + 1
        return DECODE_SHAPE
    if c.p < c.end and c.p[0] == c'.':
        c.p += 1
        start = c.p
        while c.p < c.end and c'0' <= c.p[0] <= c'9':
            c.p += 1
        if c.p == start:
            return DECODE_SHAPE
    if c.p < c.end and (c.p[0] == c'e' or c.p[0] == c'E'):
        c.p += 1
        if c.p < c.end and (c.p[0] == c'+' or c.p[0] == c'-'):
            c.p += 1
        start = c.p
        while c.p < c.end and c'0' <= c.p[0] <= c'9':
            c.p += 1
        if c.p == start:
            return DECODE_SHAPE
    return DECODE_OK


# White space, then any JSON value, at most MAX_DEPTH deep; checked in full, and consumed.
cdef inline DecodeStatus skip(Cursor* c) noexcept nogil:
    cdef uint64_t kinds = 0      # bit 0: the innermost container, 1 = object
    cdef int depth = 0
    cdef Slice text
    cdef DecodeStatus status
    while True:
        space(c)
        if c.p >= c.end:
            return DECODE_SHAPE
        if c.p[0] == c'"':
            c.p += 1
            status = string_rest(c, &text)
            if status != DECODE_OK:
                return status
        elif c.p[0] == c'{' or c.p[0] == c'[':
            if depth == MAX_DEPTH:
                return DECODE_LIMIT
            depth += 1
            kinds = (kinds << 1) | <uint64_t>(c.p[0] == c'{')
            c.p += 1
            if kinds & 1:
                if not ahead(c, c'}'):
                    status = string(c, &text)
                    if status != DECODE_OK:
                        return status
                    if expect(c, c':') != DECODE_OK:
                        return DECODE_SHAPE
                    continue
            elif not ahead(c, c']'):
                continue
            c.p += 1
            kinds >>= 1
            depth -= 1
        elif c.p[0] == c't':
            if not literal(c, b"true", 4):
                return DECODE_SHAPE
        elif c.p[0] == c'f':
            if not literal(c, b"false", 5):
                return DECODE_SHAPE
        elif c.p[0] == c'n':
            if not literal(c, b"null", 4):
                return DECODE_SHAPE
        elif number(c) != DECODE_OK:
            return DECODE_SHAPE
        # a value has ended: close what ends with it, up to the next value
        while depth:
            space(c)
            if c.p >= c.end:
                return DECODE_SHAPE
            if c.p[0] == c',':
                c.p += 1
                if kinds & 1:
                    status = string(c, &text)
                    if status != DECODE_OK:
                        return status
                    if expect(c, c':') != DECODE_OK:
                        return DECODE_SHAPE
                break
            if c.p[0] != (c'}' if kinds & 1 else c']'):
                return DECODE_SHAPE
            c.p += 1
            kinds >>= 1
            depth -= 1
        else:
            return DECODE_OK


# White space, then a JSON integer of at most 18 digits.
cdef inline DecodeStatus integer(Cursor* c, int64_t* out) noexcept nogil:
    cdef const char* start
    cdef const char* q
    cdef int64_t value = 0
    cdef bint negative
    space(c)
    negative = c.p < c.end and c.p[0] == c'-'
    start = c.p + negative
    if not negative and c.end - c.p >= FAST_ROOM and c.p[0] != c'0':
        q = hl_digits_fast(c.p, out)
        if q != NULL and q[0] != c'.' and q[0] != c'e' and q[0] != c'E':
            c.p = q
            return DECODE_OK
    if number(c) != DECODE_OK:
        return DECODE_SHAPE
    if c.p - start > 18:
        c.p = start
        return DECODE_LIMIT
    q = start
    while q < c.p:
        if not (c'0' <= q[0] <= c'9'):
            c.p = q
            return DECODE_SHAPE
        value = value * 10 + (q[0] - c'0')
        q += 1
    out[0] = -value if negative else value
    return DECODE_OK


# Decimal text, [-]digits[.digits][e[+-]digits], to the double nearest to it: bit for bit Python's float(text).
cdef inline DecodeStatus decimal_text(const char* p, Py_ssize_t n, double* out) noexcept nogil:
    cdef char text[MAX_DECIMAL + 1]
    cdef const char* end = p + n
    cdef const char* q = p
    cdef uint64_t digits = 0
    cdef int significant = 0
    cdef int after_dot = 0
    cdef bint dot = False
    cdef bint some = False
    cdef bint exponent = False
    if n > MAX_DECIMAL:
        return DECODE_LIMIT
    if q < end and q[0] == c'-':
        q += 1
    while q < end:
        if c'0' <= q[0] <= c'9':
            some = True
            if significant or q[0] != c'0':
                significant += 1
            if significant <= 18:
                digits = digits * 10 + <uint64_t>(q[0] - c'0')
            after_dot += dot
        elif q[0] == c'.' and some and not dot:
            dot = True
        else:
            break
        q += 1
    if not some or (q - 1)[0] == c'.':
        return DECODE_SHAPE
    if q < end and (q[0] == c'e' or q[0] == c'E'):
        exponent = True
        q += 1
        if q < end and (q[0] == c'+' or q[0] == c'-'):
            q += 1
        if q == end:
            return DECODE_SHAPE
        while q < end and c'0' <= q[0] <= c'9':
            q += 1
    if q != end:
        return DECODE_SHAPE
    if not exponent and significant <= 18 and digits <= (1ULL << 53) and after_dot <= 22:
        # both are doubles exactly, so one division rounds once, as the definition asks
        out[0] = <double>digits / hl_pow10[after_dot]
        if p[0] == c'-':
            out[0] = -out[0]
        return DECODE_OK
    memcpy(text, p, <size_t>n)
    text[n] = 0
    out[0] = PyOS_string_to_double(text, NULL, NULL)
    if out[0] == -1.0 and PyErr_Occurred() != NULL:  # out of memory: nothing else is left to go wrong
        PyErr_Clear()
        return DECODE_LIMIT
    return DECODE_OK


# White space, then a decimal: in quotes, as the venue writes them, or bare.
cdef inline DecodeStatus decimal(Cursor* c, double* out) noexcept nogil:
    cdef const char* q
    cdef const char* start
    cdef char plain[MAX_DECIMAL + 4]
    cdef Py_ssize_t n
    cdef Slice text
    cdef DecodeStatus status
    space(c)
    if c.p >= c.end:
        return DECODE_SHAPE
    start = c.p
    if c.p[0] != c'"':
        if number(c) != DECODE_OK:
            return DECODE_SHAPE
        status = decimal_text(start, c.p - start, out)
    else:
        if c.end - c.p > FAST_ROOM:
            q = hl_decimal_fast(c.p + 1, out)
            if q != NULL:
                c.p = q
                return DECODE_OK
        c.p += 1
        status = string_rest(c, &text)
        if status != DECODE_OK:
            return status
        if text.escaped:
            n = unescape(&text, plain, sizeof(plain))
            status = DECODE_SHAPE if n < 0 else decimal_text(plain, n, out)
        else:
            status = decimal_text(text.p, text.n, out)
    if status != DECODE_OK:
        c.p = start
    return status
