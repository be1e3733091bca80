# book.pxd: one coin's book, folded from its feeds into numpy arrays that never move.
#
# Memory: `_arena` owns the bytes behind the public arrays (or borrows the caller's buffer); `_room` owns what no
# one else sees: the last message of each feed, the scratch that the next one is read into, and two work books.
#
# Imported by: feed.  Imports: codec, cursor, errors, types, numpy.
from libc.stdint cimport int64_t, uint8_t, uint64_t

from hlconn._core.codec cimport BookMessage, BookSide, Envelope, L2Update
from hlconn._core.cursor cimport DecodeStatus

cdef enum:
    SLOW = 0
    FAST = 1
    BBO = 2              # last: at equal time it is folded last
    FEED_COUNT = 3       # those that are folded
    L2 = 3               # the full truth while it is in sync, that is, `present`: nothing is folded then
    NO_GAP = -1
    LINKS = 16           # connections that messages come over, 0 to LINKS - 1
    VERSIONS = 16        # different messages of one feed and one time that are told apart

# What was said of the time of a feed's last message: blocks can share a millisecond, and then the second message over
# one link is news while the first one over another link is a twin of what is known. The links say the same in the same
# order, though one may have missed the beginning.
cdef struct Versions:
    int64_t count        # 0: only the feed's present message, and it is not noted yet
    int64_t passed[16]   # by link: how many of them it has said or left behind
    uint64_t content[16]  # version v at v % VERSIONS: a hash, who said it first, and when
    int first[16]
    int64_t first_ns[16]

cdef struct FeedState:
    bint present         # heard since the last restart
    int64_t recv_ns
    int link             # that brought the message
    BookMessage message
    Versions said

cdef enum Folded:        # what became of a message
    FOLD_BAD = -1        # could not be read, the book is stale: see `_bad_status` and `_bad_at`
    FOLD_LATE = 0        # older than the last one of its feed: changed nothing
    FOLD_APPLIED = 1
    FOLD_TWIN = 2        # another link brought the same before: changed nothing
    FOLD_OTHER = 3       # of another subscription of the coin than this book's: changed nothing
    FOLD_KEPT = 4        # kept for when l2 is not in sync: changed no level

cdef class Arena:
    cdef char* data
    cdef Py_ssize_t size
    cdef object _owner   # the caller's buffer, when there is one
    cdef bint _ours

cdef class Book:
    # identity and public views
    cdef readonly str coin
    cdef bytes _name
    cdef readonly Py_ssize_t depth
    cdef readonly tuple feeds
    cdef readonly bint aggregated
    cdef readonly object px, sz, n, count, changed
    cdef readonly int64_t time_ms, recv_ns, seq

    # raw pointers behind the views: [side * depth + level]
    cdef Arena _arena
    cdef Arena _room
    cdef double* _px
    cdef double* _sz
    cdef int64_t* _n
    cdef int64_t* _count
    cdef uint8_t* _changed

    # the fold
    cdef FeedState _feeds[4]
    cdef BookMessage _scratch
    cdef BookSide* _under        # both sides of the fold of slow and fast, on which a newer bbo lies; NULL: to be made
    cdef BookSide _merged[2]     # where it is when it is not just the slow message
    cdef BookSide _work[2]
    cdef Py_ssize_t _skip[2]     # levels of _under hidden by the bbo now shown; -1: not shown that way
    cdef int64_t _beyond[2]      # levels of the fold that the arrays have no room for

    # l2
    cdef Arena _l2_room          # made when l2 is asked for
    cdef BookMessage _l2_next    # what the next message makes of the book, until it is found good
    cdef L2Update _l2_news
    cdef bint _l2_whole          # no update since the snapshot: the orders of each level are known
    cdef bint _doubt             # an l2Book message of the time of the l2 book says otherwise
    cdef int64_t _ahead_ms       # time of the first l2Book message that says otherwise, with no l2 since; NO_GAP: none
    cdef str _desync_reason
    cdef readonly int64_t desyncs, proofs

    # trust
    cdef bint _frozen
    cdef bint _restart           # the link was lost: what was heard before proves nothing any more
    cdef bint _lost              # stale until the next good snapshot
    cdef int _silent             # one bit a periodic feed
    cdef int _down               # one bit a feed that no link serves now
    cdef str _down_reason
    cdef int _heard              # the feed of the last message that could be read
    cdef int _first              # of a twin: the link that was first, and when
    cdef int64_t _first_ns
    cdef DecodeStatus _bad_status
    cdef Py_ssize_t _bad_at
    cdef int64_t _gap_ms         # the venue's time up to which the book was good when it ceased to be live; else NO_GAP
    cdef str _gap_reason
    cdef int64_t _gap_new_ms     # the same, of a gap that ended with the last message; else NO_GAP
    cdef str _reason
    cdef int64_t _since_ns[2]    # of slow and fast not heard: when silence began to count; 0: with the next look
    cdef int _wanted             # one bit a feed

    cdef Folded fold_in(
        self, const char* buf, Py_ssize_t size, Envelope* envelope, int64_t recv_ns, int link) except? FOLD_BAD
    cdef Folded fold_l2(
        self, const char* buf, Py_ssize_t size, Envelope* envelope, int64_t recv_ns, int link) except? FOLD_BAD
    cdef int desync(self, str reason) except -1     # the l2 book is not the venue's any more
    cdef int narrow(self, int feed) except -1       # a feed less that the book is meant to have
    cdef int lose(self, str reason, int feed) except -1     # no link serves that feed any more
    cdef int distrust(self, str reason, bint restart) except -1
    cdef bint hush(self, int64_t now_ns, int64_t slow_ns, int64_t fast_ns) except -1
    cdef int widen(self, object feeds) except -1    # more feeds that the book is meant to have
    cdef bint is_stale(self) noexcept
    cdef int _cease(self, int64_t from_ms, str reason) except -1

    cdef Folded _settle(self, int feed, int64_t recv_ns, Folded folded) except? FOLD_BAD
    cdef int _clear(self) except -1
    cdef int _mistrust(self, str reason, bint restart) except -1
    cdef int _end_l2(self) except -1
    cdef int _refold(self) except -1
    cdef int _begin(self) except -1
    cdef int _want(self, int wanted) except -1
    cdef int _make_l2(self) except -1
    cdef int _compare(self, int feed) except -1
    cdef bint _prove(self, int feed) noexcept
    cdef str _merge_l2(self)
    cdef int _fold(self, int feed) except -1
    cdef int _run(self, BookSide* sides, bint with_bbo) except -1
    cdef int _show_under_bbo(self, bint under_unchanged) except -1
    cdef int _show(self, int row, BookSide* side, BookSide* top, Py_ssize_t hidden) except -1
    cdef void _write(self, Py_ssize_t at, double* px, double* sz, int64_t* n, Py_ssize_t count) noexcept
