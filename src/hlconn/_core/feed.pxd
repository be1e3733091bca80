# feed.pxd: one WebSocket message -> one handler.
#
# A coin is looked up by its bytes in an open-addressing table of borrowed pointers; the slots themselves are owned
# by `_slots`. Nothing is allocated for a message once warm.
#
# Imported by: listener.  Imports: book, codec, cursor, histogram, tids, errors, types.
from libc.stdint cimport int64_t

from hlconn._core.book cimport Book, Folded
from hlconn._core.codec cimport Channel, Envelope
from hlconn._core.histogram cimport Histogram
from hlconn._core.tids cimport Tids

cdef enum:
    EVERY_LINK = 0xFFFF
    TRADES = 4           # beside SLOW, FAST, BBO and L2 of book.pxd

cdef struct Counter:
    int64_t messages
    int64_t bytes
    int64_t out_of_order     # older than the last of its feed: changed nothing
    int64_t fallback         # not in today's spelling: read all the same, slower
    int64_t twins            # another link brought the same before: changed nothing
    int64_t unrouted         # of a coin that nobody asked for
    int64_t errors

cdef struct LinkCounter:
    int64_t messages     # of books and trades that somebody asked for
    int64_t twins        # of them: another link was first
    int64_t first        # twins of other links that came after this one's

cdef class Slot:
    cdef bytes name
    cdef Book book
    cdef object on_book
    cdef list coarse             # by link: the Slot of the aggregated book that it carries, if any
    cdef object on_trades
    cdef object on_replay        # called in its place, for the first message of a link after an interruption
    cdef unsigned int replaying  # of which links that message is to come, a bit each
    cdef Tids seen
    cdef int64_t first_tid       # of the last message that brought something, and who brought it when
    cdef int64_t first_ns
    cdef int first_link
    cdef int64_t flow[5][16]     # messages that could be read, by SLOW, FAST, BBO, L2, TRADES and by link

cdef class Feed:
    cdef readonly bint wants_burst_end
    cdef readonly int link       # that brought the last message, to the feed's own callbacks the one in hand
    cdef Counter _counters[5]
    cdef dict _slots
    cdef void** _table
    cdef Py_ssize_t _mask
    cdef bint _busy
    cdef Slot _failed            # whose callback raised during the last message
    cdef Channel _failed_channel
    cdef object _on_raw
    cdef object _on_burst_end
    cdef dict _other
    cdef object _on_stale
    cdef object _on_live
    cdef object _on_desync
    cdef readonly int64_t desyncs

    cdef LinkCounter _links[16]
    cdef list _leads             # of Histogram, by link: how far ahead of a twin the first one was
    cdef readonly int64_t trades_seen_before
    cdef readonly bint measuring
    cdef readonly Histogram callback_ns
    cdef readonly Histogram lag_ns
    cdef int64_t _offset_ns[2]   # least of our clock minus the venue's, in the present and the last window
    cdef int64_t _window_ns      # when the present window began

    cdef bint _users
    cdef object _rows            # the structured array that all trades are read into
    cdef char* _rows_data
    cdef Py_ssize_t _stride
    cdef Py_ssize_t _rows_cap
    cdef list _views             # _views[k]: its first k rows, made once

    cdef int take(self, const char* buf, Py_ssize_t size, int64_t recv_ns, int link) except -1  # link: 0 to LINKS - 1
    cdef int burst_end(self) except -1
    cdef int _trades(self, Slot slot, Envelope* envelope, const char* buf, Py_ssize_t size,
                     int64_t recv_ns, int link) except -1
    cdef int _l2(self, Envelope* envelope, const char* buf, Py_ssize_t size, int64_t recv_ns, int link) except -1
    cdef int _lost_l2(self, int link) except -1
    cdef int _folded(self, Slot slot, Folded folded, bint live, int64_t desyncs, Envelope* envelope,
                     const char* buf, Py_ssize_t size, int64_t recv_ns, int link) except -1
    cdef int _revived(self, Book book) except -1
    cdef int _trust(self, Book book, bint live, int64_t desyncs) except -1
    cdef int _raw(self, Envelope* envelope, const char* buf, Py_ssize_t size) except -1
    cdef int _call(self, object callback, object argument, Channel channel, Slot slot) except -1
    cdef int _call_each(self, tuple callbacks, object argument, Channel channel, Slot slot) except -1
    cdef int _replay(self, Slot slot, object rows, Py_ssize_t known, int link, int64_t last_ms) except -1
    cdef int _first_was(self, int first, int link, int64_t lead_ns) except -1
    cdef int _lag(self, int64_t recv_ns, int64_t time_ms) except -1
    cdef int _make_rows(self, Py_ssize_t cap) except -1

    cdef list _each_book(self)
    cdef Slot _slot(self, object coin)
    cdef Slot _find(self, const char* name, Py_ssize_t n)
    cdef int _enter(self, Slot slot) except -1
    cdef int _grow(self) except -1
