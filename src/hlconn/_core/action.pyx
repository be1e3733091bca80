"""Typed actions to msgpack (what is hashed) and JSON (what is sent). See action.pxd."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.unicode cimport PyUnicode_Check
from libc.math cimport fabs, isfinite, rint
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset, strlen

from hlconn._core.cursor cimport hl_pow10

import re
from collections.abc import Mapping
from decimal import Decimal
from operator import index

import re

import orjson

from hlconn.errors import ConfigError, InvalidOrder
from hlconn.types import Builder, Cloid, Grouping, Order, Priority, Tif, Tpsl

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    bint PyLong_CheckExact(object value)

cdef enum:
    MAX_DIGITS = 18      # of a number's significant digits: all fit in 64 bits
    MAX_ZEROS = 26       # zeros that a number may end with before its dot
    MAX_DECIMALS = 8     # the venue's, of any number
    MAX_TEXT = 64        # bytes that a number's text takes
    ORDER_ROOM = 512     # bytes that one order takes in either form, whatever its content
    MAX_NESTING = 32     # of a mapping given as an action

#: Actions that may be sent for a vault or sub-account. Source: reference of the exchange endpoint, column "V".
TAKES_VAULT = frozenset((
    "order", "cancel", "cancelByCloid", "modify", "batchModify", "scheduleCancel", "twapOrder", "twapCancel",
    "updateLeverage", "updateIsolatedMargin", "topUpIsolatedOnlyMargin", "borrowLend"))

cdef object LONG_HEX = re.compile("[0-9a-fA-F]{32,}")
cdef object LIMIT = 10**64     # far above any number that fits
cdef str NO_NUMBER = "is no number of at most 18 digits: pass int, str, Decimal or float"

cdef object IOC = Tif.IOC
cdef object GTC = Tif.GTC
cdef object TP = Tpsl.TP
cdef object POSITION_TPSL = Grouping.POSITION_TPSL

cdef object HEX_TEXT = re.compile(r"0[xX](?:[0-9a-fA-F]{32}|[0-9a-fA-F]{40})").fullmatch

cdef const char* HEX = b"0123456789abcdef"

# beginnings of an item in a list; the first one goes without its comma
cdef const char* ITEM_A = b',{"a":'
cdef const char* ITEM_ASSET = b',{"asset":'
cdef const char* ITEM_OID = b',{"oid":'


cdef class Action:
    """One action in the two forms the venue needs. Made by the functions of this module.

    type: the venue's name of it. msgpack: what is hashed. json: what is sent. items: orders, cancels or modifies in
    it. takes_vault: whether the venue lets it be sent for a vault or sub-account.
    """

    def __repr__(self) -> str:
        return f"<Action {self.type} of {self.items}>"


# --- numbers ----------------------------------------------------------------------------------------------------

cdef int count_digits(uint64_t x) noexcept nogil:
    cdef int n = 1
    while x >= 10:
        x //= 10
        n += 1
    return n


cdef void settle(Number* out) noexcept nogil:
    while out.scale > 0 and out.digits % 10 == 0:
        out.digits //= 10
        out.scale -= 1
    if out.digits == 0:
        out.scale = 0
    out.significant = count_digits(out.digits)


# "[+-]digits[.digits][e[+-]digits]": 0, or -1 for what is no such text or has more digits than MAX_DIGITS.
cdef int parse(const char* p, Py_ssize_t n, Number* out, bint* negative) noexcept nogil:
    cdef const char* end = p + n
    cdef int used = 0
    cdef int zeros = 0           # seen since the last other digit, not yet in `digits`
    cdef int64_t scale = 0
    cdef int64_t exponent = 0
    cdef bint dot = False
    cdef bint some = False
    cdef bint minus = False
    out.digits = 0
    negative[0] = False
    if p < end and (p[0] == c'-' or p[0] == c'+'):
        negative[0] = p[0] == c'-'
        p += 1
    while p < end:
        if c'0' <= p[0] <= c'9':
            some = True
            scale += dot
            if p[0] == c'0':
                zeros += out.digits != 0
            else:
                used += zeros + 1 if out.digits else 1
                if used > MAX_DIGITS:
                    return -1
                while zeros:
                    out.digits *= 10
                    zeros -= 1
                out.digits = out.digits * 10 + <uint64_t>(p[0] - c'0')
        elif p[0] == c'.' and not dot:
            dot = True
        else:
            break
        p += 1
    if not some:
        return -1
    if p < end and (p[0] == c'e' or p[0] == c'E'):
        p += 1
        if p < end and (p[0] == c'-' or p[0] == c'+'):
            minus = p[0] == c'-'
            p += 1
        if p == end:
            return -1
        while p < end and c'0' <= p[0] <= c'9':
            exponent = exponent * 10 + (p[0] - c'0')
            if exponent > 400:
                return -1
            p += 1
    if p != end:
        return -1
    # zeros at the end were never multiplied in: they lower the scale
    scale -= zeros + (-exponent if minus else exponent)
    if out.digits == 0:
        scale = 0
    if scale < -MAX_ZEROS or scale > 400:
        return -1
    out.scale = <int>scale
    settle(out)
    return 0


# Below this the errors of x and of x * 10^k together are less than a half: rint finds the digits that x was read from.
cdef double EXACT = 2251799813685248.0  # 2^51

# The fewest decimals, up to 8, whose nearest double is x; or, for noise of at most 1e-12 of x, the nearest at 8.
cdef bint from_double(double x, Number* out) noexcept nogil:
    cdef int k
    cdef double scaled = 0
    for k in range(MAX_DECIMALS + 1):
        scaled = rint(x * hl_pow10[k])
        if scaled > EXACT:
            return False
        if scaled / hl_pow10[k] == x:  # both exact: the division rounds once, as reading the text would
            out.digits = <uint64_t>scaled
            out.scale = k
            settle(out)
            return True
    if fabs(scaled / hl_pow10[MAX_DECIMALS] - x) > 1e-12 * x:
        return False
    out.digits = <uint64_t>scaled
    out.scale = MAX_DECIMALS
    settle(out)
    return out.digits != 0


# A value in an error's text. A key may stand where another argument belongs: what could be one is never shown.
cdef str shown(value):
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{type(value).__name__} of {len(value)}>"
    try:
        text = repr(value)
    except Exception:  # an int of thousands of digits has no repr; nor need an object of the caller's
        text = f"<{type(value).__name__}>"
    text = LONG_HEX.sub("<hex digits>", text)
    return text if len(text) <= 80 else text[:77] + "..."


cdef object refuse(what, value, why):
    return InvalidOrder(f"{what} {shown(value)} {why}")


# Any accepted number, zero or above: None, or what is wrong with it.
cdef str read_number(value, Number* out):
    cdef bint negative = False
    cdef bint noise = False
    cdef int overflow = 0
    cdef long long whole
    cdef const char* text
    cdef Py_ssize_t size = 0
    cdef double x
    if PyFloat_CheckExact(value):
        x = PyFloat_AS_DOUBLE(value)
        if not isfinite(x):
            return "is not a finite number"
        if x < 0:
            return "is below zero"
        if from_double(x, out):
            return None
        noise = x * 1e8 > EXACT  # then what is beyond 8 decimals is far less than 1e-12 of x
        value = repr(value)
    elif PyLong_CheckExact(value):
        whole = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow and 0 <= whole < 1000000000000000000LL:
            out.digits = <uint64_t>whole
            out.scale = 0
            out.significant = count_digits(out.digits)
            return None
        if not -LIMIT < value < LIMIT:
            return NO_NUMBER
        value = str(value)
    elif not PyUnicode_Check(value):
        if isinstance(value, bool):
            return "is a bool: pass int, str, Decimal or float"
        if isinstance(value, float):
            return read_number(float.__float__(value), out)
        if isinstance(value, Decimal):
            value = Decimal.__str__(value)
        else:
            try:
                value = index(value)  # numpy's integers too
            except TypeError:
                return NO_NUMBER
            return read_number(value, out)
    if not value.isascii():
        return NO_NUMBER
    text = PyUnicode_AsUTF8AndSize(value, &size)
    if parse(text, size, out, &negative) != 0:
        return NO_NUMBER
    if negative and out.digits:
        return "is below zero"
    if noise and out.scale == MAX_DECIMALS + 1:
        out.digits = (out.digits + 5) // 10
        out.scale -= 1
        settle(out)
    if out.scale > MAX_DECIMALS:
        return f"has {out.scale} decimals: the venue takes at most 8"
    return None


# The text of a number into `out`, which has MAX_TEXT bytes; returns its length.
cdef Py_ssize_t write_number(Number* number, char* out) noexcept nogil:
    cdef char digits[24]
    cdef int n = 0
    cdef int i
    cdef Py_ssize_t used = 0
    cdef uint64_t rest = number.digits
    while rest or n == 0 or n <= number.scale:  # at least one digit before the dot
        digits[n] = <char>(c'0' + rest % 10)
        rest //= 10
        n += 1
    for i in range(n - 1, -1, -1):
        out[used] = digits[i]
        used += 1
        if i == number.scale and i > 0:
            out[used] = c'.'
            used += 1
    if number.scale < 0:
        memset(out + used, c'0', <size_t>-number.scale)
        used -= number.scale
    return used


def wire(value: object) -> str:
    """A number as the venue writes it: plain decimals, no exponent, no trailing zeros, no "-0".

    value: int, str, Decimal or float, zero or above. Float noise up to 1e-12 of the value is rounded away. Raises
    InvalidOrder for nan, infinity, negatives, more than 18 digits or more than 8 decimals.
    """
    cdef Number number
    cdef char text[MAX_TEXT]
    problem = read_number(value, &number)
    if problem is not None:
        raise refuse("number", value, problem)
    return text[:write_number(&number, text)].decode("ascii")


# --- writing ----------------------------------------------------------------------------------------------------

cdef void open_writer(Writer* w) noexcept nogil:
    w.m = w.m_first
    w.j = w.j_first
    w.m_used = w.j_used = 0
    w.m_room = sizeof(w.m_first)
    w.j_room = sizeof(w.j_first)


cdef void close_writer(Writer* w) noexcept nogil:
    if w.m != w.m_first:
        free(w.m)
    if w.j != w.j_first:
        free(w.j)


cdef int grow(char** buffer, Py_ssize_t used, Py_ssize_t* room, char* first, Py_ssize_t more) except -1:
    cdef Py_ssize_t size = 2 * (room[0] + more)
    cdef char* new
    if buffer[0] == first:
        new = <char*>malloc(<size_t>size)
        if new != NULL:
            memcpy(new, first, <size_t>used)
    else:
        new = <char*>realloc(buffer[0], <size_t>size)
    if new == NULL:
        raise MemoryError
    buffer[0] = new
    room[0] = size
    return 0


# From here on `more` bytes fit in both forms.
cdef inline int reserve(Writer* w, Py_ssize_t more) except -1:
    if w.m_room - w.m_used < more:
        grow(&w.m, w.m_used, &w.m_room, w.m_first, more)
    if w.j_room - w.j_used < more:
        grow(&w.j, w.j_used, &w.j_room, w.j_first, more)
    return 0


cdef inline void json_text(Writer* w, const char* text, Py_ssize_t n) noexcept nogil:
    memcpy(w.j + w.j_used, text, <size_t>n)
    w.j_used += n


cdef inline void pack_text(Writer* w, const char* text, Py_ssize_t n) noexcept nogil:
    memcpy(w.m + w.m_used, text, <size_t>n)
    w.m_used += n


cdef inline void pack_byte(Writer* w, int byte) noexcept nogil:
    w.m[w.m_used] = <char>byte
    w.m_used += 1


cdef void pack_big_endian(Writer* w, uint64_t value, int size) noexcept nogil:
    cdef int i
    for i in range(size):
        w.m[w.m_used + i] = <char>(value >> (8 * (size - 1 - i)) & 0xFF)
    w.m_used += size


# Header of a string, array or map of `n`; `base` and `limit` of its short form, `code` of its 16-bit one.
cdef void pack_str_header(Writer* w, Py_ssize_t n) noexcept nogil:
    if n < 32:
        pack_byte(w, 0xA0 | <int>n)
    elif n < 256:
        pack_byte(w, 0xD9)
        pack_byte(w, <int>n)
    elif n < 65536:
        pack_byte(w, 0xDA)
        pack_big_endian(w, <uint64_t>n, 2)
    else:
        pack_byte(w, 0xDB)
        pack_big_endian(w, <uint64_t>n, 4)


cdef void pack_container(Writer* w, Py_ssize_t n, bint is_map) noexcept nogil:
    if n < 16:
        pack_byte(w, (0x80 if is_map else 0x90) | <int>n)
    elif n < 65536:
        pack_byte(w, 0xDE if is_map else 0xDC)
        pack_big_endian(w, <uint64_t>n, 2)
    else:
        pack_byte(w, 0xDF if is_map else 0xDD)
        pack_big_endian(w, <uint64_t>n, 4)


cdef void pack_unsigned(Writer* w, uint64_t value) noexcept nogil:
    if value < 0x80ULL:
        pack_byte(w, <int>value)
    elif value <= 0xFFULL:
        pack_byte(w, 0xCC)
        pack_big_endian(w, value, 1)
    elif value <= 0xFFFFULL:
        pack_byte(w, 0xCD)
        pack_big_endian(w, value, 2)
    elif value <= 0xFFFFFFFFULL:
        pack_byte(w, 0xCE)
        pack_big_endian(w, value, 4)
    else:
        pack_byte(w, 0xCF)
        pack_big_endian(w, value, 8)


cdef void pack_signed(Writer* w, int64_t value) noexcept nogil:
    if value >= 0:
        pack_unsigned(w, <uint64_t>value)
    elif value >= -32:
        pack_byte(w, <int>(value & 0xFF))
    elif value >= -0x80:
        pack_byte(w, 0xD0)
        pack_big_endian(w, <uint64_t>value, 1)
    elif value >= -0x8000:
        pack_byte(w, 0xD1)
        pack_big_endian(w, <uint64_t>value, 2)
    elif value >= -0x80000000LL:
        pack_byte(w, 0xD2)
        pack_big_endian(w, <uint64_t>value, 4)
    else:
        pack_byte(w, 0xD3)
        pack_big_endian(w, <uint64_t>value, 8)


cdef void json_unsigned(Writer* w, uint64_t value) noexcept nogil:
    cdef char digits[24]
    cdef int n = 0
    while value or n == 0:
        digits[n] = <char>(c'0' + value % 10)
        value //= 10
        n += 1
    while n:
        n -= 1
        w.j[w.j_used] = digits[n]
        w.j_used += 1


cdef inline void both_unsigned(Writer* w, uint64_t value) noexcept nogil:
    pack_unsigned(w, value)
    json_unsigned(w, value)


cdef inline void both_bool(Writer* w, bint value) noexcept nogil:
    pack_byte(w, 0xC3 if value else 0xC2)
    if value:
        json_text(w, b"true", 4)
    else:
        json_text(w, b"false", 5)


# A string that needs no escapes in JSON.
cdef inline void both_plain(Writer* w, const char* text, Py_ssize_t n) noexcept nogil:
    pack_str_header(w, n)
    pack_text(w, text, n)
    w.j[w.j_used] = c'"'
    w.j_used += 1
    json_text(w, text, n)
    w.j[w.j_used] = c'"'
    w.j_used += 1


cdef inline void both_number(Writer* w, Number* number) noexcept nogil:
    cdef char text[MAX_TEXT]
    both_plain(w, text, write_number(number, text))


# --- orders -----------------------------------------------------------------------------------------------------

# What the instrument accepts, as it writes it; it raises, with the nearest valid values, for all else.
cdef int settle_by(text, what, value, Number* out) except -1:
    problem = read_number(text, out)
    if problem is not None:
        raise refuse(what, value, problem)
    return 0


# On the grid, without a call of the instrument's when there is no doubt.
cdef int read_px(value, instrument, Number* px) except -1:
    if read_number(value, px) is not None or px.digits == 0 or (
            px.scale > 0 and (px.significant > 5 or px.scale > <int>instrument.px_decimals)):
        settle_by(instrument.check_px(value), "px", value, px)
    return 0


cdef int read_sz(value, instrument, bint zero_too, Number* sz) except -1:
    if read_number(value, sz) is not None or sz.scale > <int>instrument.sz_decimals or (
            sz.digits == 0 and not zero_too):
        settle_by(instrument.check_sz(value, zero_ok=zero_too), "sz", value, sz)
    return 0


cdef uint64_t asset_of(instrument) except? 0:
    if instrument.delisted:
        raise InvalidOrder(f"{instrument.coin} is delisted: it takes no orders")
    return <uint64_t>instrument.asset


cdef int write_cloid(Writer* w, cloid) except -1:
    cdef bytes value = cloid.value.to_bytes(16, "big")
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(value)
    cdef char text[34]
    cdef int i
    text[0] = c'0'
    text[1] = c'x'
    for i in range(16):
        text[2 + 2 * i] = HEX[p[i] >> 4]
        text[3 + 2 * i] = HEX[p[i] & 15]
    both_plain(w, text, 34)
    return 0


cdef int write_order(Writer* w, order, instruments, bint zero_too) except -1:
    cdef Number px
    cdef Number sz
    cdef Number trigger_px
    cdef bint is_buy
    if not isinstance(order, Order):
        raise TypeError(f"an order is a hlconn.Order, not {shown(order)}")
    is_buy = order.side == 0
    instrument = instruments[order.coin]
    trigger = order.trigger
    cloid = order.cloid
    read_px(order.px, instrument, &px)
    read_sz(order.sz, instrument, zero_too, &sz)
    if trigger is not None:
        read_px(trigger.px, instrument, &trigger_px)
    reserve(w, ORDER_ROOM)
    pack_container(w, 6 if cloid is None else 7, True)
    pack_text(w, b"\xa1a", 2)
    json_text(w, b'{"a":', 5)
    both_unsigned(w, asset_of(instrument))
    pack_text(w, b"\xa1b", 2)
    json_text(w, b',"b":', 5)
    both_bool(w, is_buy)
    pack_text(w, b"\xa1p", 2)
    json_text(w, b',"p":', 5)
    both_number(w, &px)
    pack_text(w, b"\xa1s", 2)
    json_text(w, b',"s":', 5)
    both_number(w, &sz)
    pack_text(w, b"\xa1r", 2)
    json_text(w, b',"r":', 5)
    both_bool(w, order.reduce_only)
    pack_text(w, b"\xa1t\x81", 3)
    if trigger is None:
        pack_text(w, b"\xa5limit\x81\xa3tif\xa3", 12)
        json_text(w, b',"t":{"limit":{"tif":"', 22)
        tif = order.tif
        if tif is GTC:
            pack_text(w, b"Gtc", 3)
            json_text(w, b"Gtc", 3)
        elif tif is IOC:
            pack_text(w, b"Ioc", 3)
            json_text(w, b"Ioc", 3)
        else:
            pack_text(w, b"Alo", 3)
            json_text(w, b"Alo", 3)
        json_text(w, b'"}}', 3)
    else:
        pack_text(w, b"\xa7trigger\x83\xa8isMarket", 18)
        json_text(w, b',"t":{"trigger":{"isMarket":', 28)
        both_bool(w, trigger.is_market)
        pack_text(w, b"\xa9triggerPx", 10)
        json_text(w, b',"triggerPx":', 13)
        both_number(w, &trigger_px)
        pack_text(w, b"\xa4tpsl", 5)
        json_text(w, b',"tpsl":', 8)
        both_plain(w, b"tp" if trigger.tpsl is TP else b"sl", 2)
        json_text(w, b'}}', 2)
    if cloid is not None:
        pack_text(w, b"\xa1c", 2)
        json_text(w, b',"c":', 5)
        write_cloid(w, cloid)
    json_text(w, b'}', 1)
    return 0


# {"type":<type>,"<list>":[  of a map with `keys` keys
cdef int begin(Writer* w, int keys, const char* type, const char* items, Py_ssize_t count) except -1:
    reserve(w, ORDER_ROOM)
    pack_container(w, keys, True)
    pack_text(w, b"\xa4type", 5)
    json_text(w, b'{"type":', 8)
    both_plain(w, type, <Py_ssize_t>strlen(type))
    json_text(w, b',', 1)
    both_plain(w, items, <Py_ssize_t>strlen(items))
    json_text(w, b':[', 2)
    pack_container(w, count, False)
    return 0


cdef Action finish(Writer* w, str type, Py_ssize_t items):
    cdef Action action = Action.__new__(Action)
    action.type = type
    action.msgpack = PyBytes_FromStringAndSize(w.m, w.m_used)
    action.json = PyBytes_FromStringAndSize(w.j, w.j_used)
    action.items = items
    action.takes_vault = type in TAKES_VAULT
    return action


cdef int flag(Writer* w, const char* msgpack, Py_ssize_t m, const char* json, Py_ssize_t j) except -1:
    reserve(w, ORDER_ROOM)
    pack_text(w, msgpack, m)
    json_text(w, json, j)
    return 0


def order(orders: list, instruments: object, *, grouping: object = Grouping.NA, builder: object = None) -> Action:
    """Place orders. orders: `hlconn.Order`s; instruments: a mapping of their coins to `hlconn.Instrument`s.

    grouping: a `Grouping`, or `Priority` for the order priority auction. builder: a `Builder` that earns a fee, only
    when given. Raises InvalidOrder for prices and sizes off the grid (with the nearest valid ones), an empty list,
    or a delisted coin; what `instruments` raises for a coin it does not know.
    Source: the venue's docs, "Place an order".
    """
    cdef Writer w
    cdef Py_ssize_t count
    orders = list(orders)  # ours: nobody adds to it while it is read
    count = len(orders)
    cdef Py_ssize_t i = 0
    cdef const char* text
    cdef Py_ssize_t size = 0
    cdef bint zero_too = grouping is POSITION_TPSL  # size 0: the whole position
    if not count:
        raise InvalidOrder("no orders: the venue refuses an empty batch")
    if not isinstance(grouping, (Grouping, Priority)):
        raise TypeError(f"grouping must be a Grouping or a Priority, not {shown(grouping)}")
    if builder is not None and not isinstance(builder, Builder):
        raise TypeError(f"builder must be a Builder or None, not {shown(builder)}")
    open_writer(&w)
    try:
        begin(&w, 3 if builder is None else 4, b"order", b"orders", count)
        for each in orders:
            if i:
                reserve(&w, 1)
                json_text(&w, b',', 1)
            write_order(&w, each, instruments, zero_too)
            i += 1
        reserve(&w, ORDER_ROOM)
        pack_text(&w, b"\xa8grouping", 9)
        json_text(&w, b'],"grouping":', 13)
        if isinstance(grouping, Priority):
            pack_text(&w, b"\x81\xa1p", 3)
            json_text(&w, b'{"p":', 5)
            both_unsigned(&w, grouping.rate)
            json_text(&w, b'}', 1)
        else:
            text = PyUnicode_AsUTF8AndSize(grouping._value_, &size)
            both_plain(&w, text, size)
        if builder is not None:
            pack_text(&w, b"\xa7builder\x82\xa1b", 11)
            json_text(&w, b',"builder":{"b":', 16)
            text = PyUnicode_AsUTF8AndSize(builder.address, &size)
            both_plain(&w, text, size)
            pack_text(&w, b"\xa1f", 2)
            json_text(&w, b',"f":', 5)
            both_unsigned(&w, builder.fee)
            json_text(&w, b'}', 1)
        json_text(&w, b'}', 1)
        return finish(&w, "order", count)
    finally:
        close_writer(&w)


cdef int write_oid(Writer* w, oid) except -1:
    if isinstance(oid, Cloid):
        return write_cloid(w, oid)
    if not isinstance(oid, int) or isinstance(oid, bool) or not 0 <= oid < 1 << 64:
        raise InvalidOrder(f"oid {shown(oid)} is neither an int from 0 to 2^64 - 1 nor a Cloid")
    both_unsigned(w, oid)
    return 0


cdef tuple pair(each, what):
    if not isinstance(each, (tuple, list)) or len(each) != 2:
        raise TypeError(f"pass pairs of {what}, not {shown(each)}")
    return tuple(each)


def cancel(cancels: list, instruments: object, *, fast: bool = False) -> Action:
    """Cancel by oid. cancels: (coin, oid) pairs. fast: priority in the mempool; refused for trigger orders.

    Raises InvalidOrder for an empty list or a bad oid. Source: the venue's docs, "Cancel order(s)".
    """
    cdef Writer w
    cdef Py_ssize_t count
    cancels = list(cancels)  # ours: nobody adds to it while it is read
    count = len(cancels)
    cdef Py_ssize_t i = 0
    if not count:
        raise InvalidOrder("no cancels: the venue refuses an empty batch")
    open_writer(&w)
    try:
        begin(&w, 3 if fast else 2, b"cancel", b"cancels", count)
        for each in cancels:
            coin, oid = pair(each, "coin and oid")
            if isinstance(oid, Cloid):
                raise InvalidOrder(f"{oid!r}: cancel takes oids, cancel_by_cloid takes Cloids")
            reserve(&w, ORDER_ROOM)
            json_text(&w, ITEM_A + (i == 0), 6 - (i == 0))
            pack_text(&w, b"\x82\xa1a", 3)
            both_unsigned(&w, instruments[coin].asset)
            pack_text(&w, b"\xa1o", 2)
            json_text(&w, b',"o":', 5)
            write_oid(&w, oid)
            json_text(&w, b'}', 1)
            i += 1
        flag(&w, b"\xa1f\xc3", 3 if fast else 0, b'],"f":true}', 11 if fast else 1)
        if not fast:
            json_text(&w, b'}', 1)
        return finish(&w, "cancel", count)
    finally:
        close_writer(&w)


def cancel_by_cloid(cancels: list, instruments: object, *, fast: bool = False) -> Action:
    """Cancel by cloid. cancels: (coin, Cloid) pairs. fast: as in `cancel`. Raises InvalidOrder likewise."""
    cdef Writer w
    cdef Py_ssize_t count
    cancels = list(cancels)  # ours: nobody adds to it while it is read
    count = len(cancels)
    cdef Py_ssize_t i = 0
    if not count:
        raise InvalidOrder("no cancels: the venue refuses an empty batch")
    open_writer(&w)
    try:
        begin(&w, 3 if fast else 2, b"cancelByCloid", b"cancels", count)
        for each in cancels:
            coin, cloid = pair(each, "coin and Cloid")
            if not isinstance(cloid, Cloid):
                raise InvalidOrder(f"{shown(cloid)} is no Cloid: cancel takes oids")
            reserve(&w, ORDER_ROOM)
            json_text(&w, ITEM_ASSET + (i == 0), 10 - (i == 0))
            pack_text(&w, b"\x82\xa5asset", 7)
            both_unsigned(&w, instruments[coin].asset)
            pack_text(&w, b"\xa5cloid", 6)
            json_text(&w, b',"cloid":', 9)
            write_cloid(&w, cloid)
            json_text(&w, b'}', 1)
            i += 1
        flag(&w, b"\xa1f\xc3", 3 if fast else 0, b'],"f":true}', 11 if fast else 1)
        if not fast:
            json_text(&w, b'}', 1)
        return finish(&w, "cancelByCloid", count)
    finally:
        close_writer(&w)


def modify(oid: object, order: object, instruments: object, *, always_place: bool = False) -> Action:
    """Replace one order. oid: int or Cloid. Its answer does not carry the new oid: `batch_modify` of one does.

    always_place: place the new order even if the old one could not be canceled. Raises InvalidOrder as `order` does.
    Source: the venue's docs, "Modify an order".
    """
    cdef Writer w
    open_writer(&w)
    try:
        reserve(&w, ORDER_ROOM)
        pack_container(&w, 4 if always_place else 3, True)
        pack_text(&w, b"\xa4type\xa6modify\xa3oid", 16)
        json_text(&w, b'{"type":"modify","oid":', 23)
        write_oid(&w, oid)
        pack_text(&w, b"\xa5order", 6)
        json_text(&w, b',"order":', 9)
        write_order(&w, order, instruments, False)
        flag(&w, b"\xa1a\xc3", 3 if always_place else 0, b',"a":true}', 10 if always_place else 0)
        if not always_place:
            json_text(&w, b'}', 1)
        return finish(&w, "modify", 1)
    finally:
        close_writer(&w)


def batch_modify(modifies: list, instruments: object, *, always_place: bool = False) -> Action:
    """Replace orders. modifies: (oid or Cloid, Order) pairs; the answer carries each new oid. See `modify`."""
    cdef Writer w
    cdef Py_ssize_t count
    modifies = list(modifies)  # ours: nobody adds to it while it is read
    count = len(modifies)
    cdef Py_ssize_t i = 0
    if not count:
        raise InvalidOrder("no modifies: the venue refuses an empty batch")
    open_writer(&w)
    try:
        begin(&w, 3 if always_place else 2, b"batchModify", b"modifies", count)
        for each in modifies:
            oid, new = pair(each, "oid and Order")
            reserve(&w, ORDER_ROOM)
            json_text(&w, ITEM_OID + (i == 0), 8 - (i == 0))
            pack_text(&w, b"\x82\xa3oid", 5)
            write_oid(&w, oid)
            pack_text(&w, b"\xa5order", 6)
            json_text(&w, b',"order":', 9)
            write_order(&w, new, instruments, False)
            reserve(&w, ORDER_ROOM)
            json_text(&w, b'}', 1)
            i += 1
        flag(&w, b"\xa1a\xc3", 3 if always_place else 0, b'],"a":true}', 11 if always_place else 1)
        if not always_place:
            json_text(&w, b'}', 1)
        return finish(&w, "batchModify", count)
    finally:
        close_writer(&w)


# Declared `object` and checked here: as `int`, Cython would round a float and take a bool.
cdef object whole(value, what, lowest):
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise ConfigError(f"{what} must be an int of at least {lowest}, not {shown(value)}")
    return value


def schedule_cancel(time_ms: object = None) -> Action:
    """Cancel all open orders at that venue time (at least 5 s ahead); None takes the schedule back."""
    return raw({"type": "scheduleCancel"} if time_ms is None else {
        "type": "scheduleCancel", "time": whole(time_ms, "time_ms", 0)})


def update_leverage(coin: str, leverage: object, instruments: object, *, is_cross: bool = True) -> Action:
    """Set a coin's leverage, 1 to its maximum."""
    return raw({"type": "updateLeverage", "asset": instruments[coin].asset, "isCross": bool(is_cross),
                "leverage": whole(leverage, "leverage", 1)})


def update_isolated_margin(coin: str, micro_usd: object, instruments: object) -> Action:
    """Add (or, below zero, take) isolated margin, in millionths of a USD."""
    # isBuy has no effect until the venue has hedge mode; the official SDK always sends true
    return raw({"type": "updateIsolatedMargin", "asset": instruments[coin].asset, "isBuy": True,
                "ntli": whole(micro_usd, "micro_usd", -(1 << 63))})


def noop() -> Action:
    """Do nothing but spend a nonce: an action still in flight with it can never execute."""
    return raw({"type": "noop"})


# --- any other action -------------------------------------------------------------------------------------------

# What JSON and msgpack both have; addresses in lower case, as the venue hashes them.
cdef object plain(value, int depth):
    if depth > MAX_NESTING:
        raise ConfigError(f"an action nested deeper than {MAX_NESTING}")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise ConfigError(f"{shown(value)} does not fit in 64 bits")
        return int(value)
    if isinstance(value, (list, tuple)):
        return [plain(each, depth + 1) for each in value]
    if isinstance(value, Mapping):
        return {plain_key(key): plain(each, depth + 1) for key, each in value.items()}
    raise ConfigError(f"{shown(value)} in an action: numbers are int, or str for decimals; see hlconn.action.wire()")


cdef str plain_text(value):
    text = str.__str__(value)  # of an enum of strings: its value
    if HEX_TEXT(text) is not None:
        return text.lower()
    try:
        PyUnicode_AsUTF8AndSize(text, NULL)
    except UnicodeEncodeError:
        raise ConfigError(f"{shown(text)} in an action is no Unicode text: it has a lone surrogate") from None
    return text


cdef str plain_key(key):
    if not isinstance(key, str):
        raise ConfigError(f"the keys of an action are str, not {shown(key)}")
    return plain_text(key)


cdef int pack_value(Writer* w, value) except -1:
    cdef const char* text
    cdef Py_ssize_t size = 0
    reserve(w, 16)
    if value is None:
        pack_byte(w, 0xC0)
    elif value is True or value is False:
        pack_byte(w, 0xC3 if value else 0xC2)
    elif isinstance(value, str):
        text = PyUnicode_AsUTF8AndSize(value, &size)
        pack_str_header(w, size)
        reserve(w, size)
        pack_text(w, text, size)
    elif isinstance(value, int):
        if value >= 0:
            pack_unsigned(w, value)
        else:
            pack_signed(w, value)
    elif isinstance(value, dict):
        pack_container(w, len(value), True)
        for key, each in value.items():
            pack_value(w, key)
            pack_value(w, each)
    else:
        pack_container(w, len(value), False)
        for each in value:
            pack_value(w, each)
    return 0


def raw(action: object) -> Action:
    """Any action, from a mapping hashed in its own key order; it must have a "type".

    Values: str, int, bool, None, lists and mappings of these. Addresses and cloids are put into lower case, as the
    venue hashes them. Optional keys must be absent, not null. Raises ConfigError for anything else.
    Source of the order of keys: the reference of the exchange endpoint.
    """
    cdef Writer w
    whole = plain(action, 0)
    if not isinstance(whole, dict) or not isinstance(whole.get("type"), str):
        raise ConfigError('an action is a mapping with a "type"')
    items = whole.get("orders") or whole.get("cancels") or whole.get("modifies")
    open_writer(&w)
    try:
        pack_value(&w, whole)
        text = orjson.dumps(whole)
        reserve(&w, len(text))
        json_text(&w, text, len(text))
        return finish(&w, whole["type"], len(items) if isinstance(items, list) else 1)
    finally:
        close_writer(&w)
