# feed.pxd: one WebSocket message -> one handler.
#
# A coin is looked up by its bytes in an open-addressing table of borrowed pointers; the slots themselves are owned
# by `_slots`. Nothing is allocated for a message once warm.
#
# Imported by: listener.  Imports: book, codec, types.
from libc.stdint cimport int64_t

from hlconn._core.book cimport Book
from hlconn._core.codec cimport Channel, Envelope

cdef enum:
    LINKS = 16
    TRADES = 3           # beside SLOW, FAST and BBO of book.pxd

cdef struct Counter:
    int64_t messages
    int64_t bytes
    int64_t out_of_order     # older than the last of its feed: changed nothing
    int64_t fallback         # not in today's spelling: read all the same, slower
    int64_t twins            # another link brought the same before: changed nothing
    int64_t unrouted         # of a coin that nobody asked for
    int64_t errors

cdef class Slot:
    cdef bytes name
    cdef Book book
    cdef object on_book
    cdef object on_trades
    cdef int64_t flow[4][16]     # messages that could be read, by SLOW, FAST, BBO, TRADES and by link

cdef class Feed:
    cdef readonly bint wants_burst_end
    cdef Counter _counters[4]
    cdef dict _slots
    cdef void** _table
    cdef Py_ssize_t _mask
    cdef bint _busy
    cdef Slot _failed            # whose callback raised during the last message
    cdef Channel _failed_channel
    cdef object _on_raw
    cdef object _on_burst_end
    cdef dict _other

    cdef bint _users
    cdef object _rows            # the structured array that all trades are read into
    cdef char* _rows_data
    cdef Py_ssize_t _rows_cap
    cdef list _views             # _views[k]: its first k rows, made once

    cdef int take(self, const char* buf, Py_ssize_t size, int64_t recv_ns, int link) except -1  # link: 0 to LINKS - 1
    cdef int burst_end(self) except -1
    cdef int _trades(self, Slot slot, Envelope* envelope, const char* buf, Py_ssize_t size, int link) except -1
    cdef int _raw(self, Envelope* envelope, const char* buf, Py_ssize_t size) except -1
    cdef int _call(self, object callback, object argument, Channel channel, Slot slot) except -1
    cdef int _make_rows(self, Py_ssize_t cap) except -1

    cdef Slot _slot(self, object coin)
    cdef Slot _find(self, const char* name, Py_ssize_t n)
    cdef int _enter(self, Slot slot) except -1
    cdef int _grow(self) except -1
