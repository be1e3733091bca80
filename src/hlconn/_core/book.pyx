"""One coin's order book. See book.pxd for the memory, and docs/books.md for the definition of the fold."""
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport NAN
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memmove, memset

from hlconn._core.codec cimport (
    CH_BBO, CH_L2, CH_L2BOOK, L2_COMPRESSED, L2_SNAPSHOT, MAX_L2_LEVELS, BookMessage, BookSide, Envelope,
    inflate_l2, raise_decode, read_book, read_envelope, read_l2_inflated, read_l2_snapshot, read_l2_update)
from hlconn._core.cursor cimport DECODE_COIN, DECODE_OK, DecodeStatus, must

import numpy as np

from hlconn.errors import ConfigError, DecodeError
from hlconn.types import FEEDS, Grade, Side

cdef extern from *:
    """
    /* In C, where the product may wrap in a build with overflow checks too. */
    static inline unsigned long long hl_spread(unsigned long long h) { return h * 0x9E3779B97F4A7C15ULL; }
    """
    uint64_t hl_spread(uint64_t h) nogil

cdef extern from "publish.h" nogil:
    void hl_publish(double* px, double* sz, int64_t* n, uint8_t* changed,
                    const double* xpx, const double* xsz, const int64_t* xn, Py_ssize_t count)
    int hl_publish_choose(int portable)

hl_publish_choose(False)

cdef enum:
    FAST_LEVELS = 5      # a fast side with fewer levels is the whole side
    SLOW_LEVELS = 20
    MESSAGE_LEVELS = 100  # levels a side that a message is remembered with, at least
    MAX_DEPTH = 10000
    SIDES = 2

cdef str NOTHING = "nothing received yet"
cdef str NO_SNAPSHOT = "no snapshot yet"
cdef str DIFFERS = "differs from the l2Book of the same time"
cdef tuple FEED_NAMES = ("slow", "fast", "bbo", "l2")  # in the order of the enum
cdef tuple SHOWN_FEEDS = ("l2", *FEEDS)


cdef class Arena:
    """Eight-byte aligned zeroed memory that numpy can view but Python cannot write; or a caller's buffer."""

    def __cinit__(self, Py_ssize_t size, object buffer=None):
        cdef Py_buffer view
        if buffer is None:
            self.data = <char*>calloc(<size_t>(size // 8 + 1), 8)
            self._ours = True
            if self.data == NULL:
                raise MemoryError
        else:
            PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
            self.data = <char*>view.buf
            have = view.len
            self._owner = memoryview(buffer)  # keeps the memory where it is
            PyBuffer_Release(&view)
            if have < size or <size_t>self.data % 8:
                raise ConfigError(f"buffer: {size} bytes at an address divisible by 8 are needed, got {have}")
        self.size = size

    def __dealloc__(self):
        if self._ours:
            free(self.data)

    def __getbuffer__(self, Py_buffer* view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("the arrays of a book are read-only: they belong to the book")
        view.buf = self.data
        view.obj = self
        view.len = self.size
        view.readonly = 1
        view.itemsize = 1
        view.format = NULL
        view.ndim = 1
        view.shape = NULL
        view.strides = NULL
        view.suboffsets = NULL
        view.internal = NULL


# --- the fold --------------------------------------------------------------------------------------------------

# Is a price at this row worse than another (further from the top)?
cdef inline bint worse(int row, double px, double than) noexcept nogil:
    return px < than if row == 0 else px > than


# `top` lies on `side`: what is worse than its last level stays when `keep`; the rest goes.
cdef void overlay(BookSide* side, BookSide* top, int row, bint keep, Py_ssize_t cap) noexcept nogil:
    cdef Py_ssize_t first = 0
    cdef Py_ssize_t stay = 0
    cdef Py_ssize_t beyond = side.total - side.kept
    if keep and top.kept:
        while first < side.kept and not worse(row, side.px[first], top.px[top.kept - 1]):
            first += 1
        stay = side.kept - first
        if stay > cap - top.kept:
            beyond += stay - (cap - top.kept)
            stay = cap - top.kept
        if stay and first != top.kept:
            memmove(side.px + top.kept, side.px + first, <size_t>stay * sizeof(double))
            memmove(side.sz + top.kept, side.sz + first, <size_t>stay * sizeof(double))
            memmove(side.n + top.kept, side.n + first, <size_t>stay * sizeof(int64_t))
    else:
        beyond = 0
    must(top.kept + stay <= cap)
    memcpy(side.px, top.px, <size_t>top.kept * sizeof(double))
    memcpy(side.sz, top.sz, <size_t>top.kept * sizeof(double))
    memcpy(side.n, top.n, <size_t>top.kept * sizeof(int64_t))
    side.kept = top.kept + stay
    side.total = side.kept + beyond + (top.total - top.kept)


# One step of the fold: the message of `feed` on what older messages left in `sides`.
cdef void step(BookSide* sides, FeedState* state, int feed) noexcept nogil:
    cdef BookMessage* m = &state.message
    cdef int row
    cdef bint keep
    for row in range(SIDES):
        keep = feed == BBO or (feed == FAST and m.side[row].total >= FAST_LEVELS)
        overlay(&sides[row], &m.side[row], row, keep, m.cap)


cdef uint64_t content_of(BookMessage* message) noexcept nogil:
    cdef uint64_t h = 0
    cdef uint64_t word = 0
    cdef BookSide* side
    cdef int row
    cdef Py_ssize_t i
    for row in range(SIDES):
        side = &message.side[row]
        h = hl_spread(h ^ <uint64_t>side.total)
        for i in range(side.kept):
            memcpy(&word, side.px + i, 8)
            h = hl_spread(h ^ h >> 32 ^ word)
            memcpy(&word, side.sz + i, 8)
            h = hl_spread(h ^ h >> 32 ^ word)
            h = hl_spread(h ^ h >> 32 ^ <uint64_t>side.n[i])
    return h ^ h >> 32


# Note a version of the time of a feed's last message, of which `link` has now said all.
cdef void note(Versions* said, uint64_t content, int link, int64_t recv_ns) noexcept nogil:
    cdef Py_ssize_t at = <Py_ssize_t>(said.count % VERSIONS)
    said.content[at] = content
    said.first[at] = link
    said.first_ns[at] = recv_ns
    said.count += 1
    said.passed[link] = said.count


# A message as old as the last one of its feed: which version of that time it is, of those that `link` has not said
# yet; -1 for none of them, so that it is news. Where a link has fallen behind further than is remembered, it is a twin.
cdef int64_t version_of(FeedState* state, BookMessage* message, int link) noexcept nogil:
    cdef Versions* said = &state.said
    cdef uint64_t content = content_of(message)
    cdef int64_t at
    if said.count == 0:
        memset(said.passed, 0, sizeof(said.passed))
        note(said, content_of(&state.message), state.link, state.recv_ns)
    if said.passed[link] < said.count - VERSIONS:
        said.passed[link] += 1
        return said.count - VERSIONS
    for at in range(said.passed[link], said.count):
        if said.content[at % VERSIONS] == content:
            said.passed[link] = at + 1
            return at
    return -1


# --- l2 --------------------------------------------------------------------------------------------------------

# Set the level of a price in a side that is sorted and has room for one more.
cdef void put(BookSide* side, int row, double px, double sz) noexcept nogil:
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = side.kept
    cdef Py_ssize_t at
    while low < high:
        at = (low + high) // 2
        if worse(row, px, side.px[at]):
            low = at + 1
        else:
            high = at
    if low == side.kept or side.px[low] != px:
        memmove(side.px + low + 1, side.px + low, <size_t>(side.kept - low) * sizeof(double))
        memmove(side.sz + low + 1, side.sz + low, <size_t>(side.kept - low) * sizeof(double))
        memmove(side.n + low + 1, side.n + low, <size_t>(side.kept - low) * sizeof(int64_t))
        side.kept += 1
    side.px[low] = px
    side.sz[low] = sz
    side.n[low] = 0  # an update does not say it


# Is an l2Book message what the full book has at its top?
cdef bint agrees(BookMessage* said, BookMessage* full, bint with_n) noexcept nogil:
    cdef BookSide* some
    cdef BookSide* side
    cdef Py_ssize_t most = FAST_LEVELS if said.fast else SLOW_LEVELS
    cdef Py_ssize_t count
    cdef int row
    for row in range(SIDES):
        some = &said.side[row]
        side = &full.side[row]
        count = min(some.total, most)
        if side.kept < count or (some.total < most and side.kept > count):
            return False
        if (memcmp(some.px, side.px, <size_t>count * sizeof(double)) != 0
                or memcmp(some.sz, side.sz, <size_t>count * sizeof(double)) != 0
                or with_n and memcmp(some.n, side.n, <size_t>count * sizeof(int64_t)) != 0):
            return False
    return True


cdef bint differs(double* a, double* b) noexcept nogil:
    return memcmp(a, b, sizeof(double)) != 0


cdef class Book:
    """One coin's order book, in numpy arrays reused from message to message.

    coin: as the venue writes it. depth: levels a side that the arrays hold, 1 to 10,000.
    feeds: those the book is meant to be fed from ("bbo", "fast", "slow", and "l2", which has to have "fast" or "slow"
    beside it to prove it). With "slow" or "fast" among them only
    an l2Book message ends staleness; with "bbo" alone a bbo does.
    aggregated: for l2Book messages with nSigFigs. No message says with which, so that whoever subscribes has to tell
    `Feed.aggregated` which link carries them. Such a book takes no others, and any other book none of them.
    buffer: a writable buffer of at least `Book.nbytes(depth)` bytes, aligned to 8, to live in instead of own memory.

    px, sz: float64 (2, depth), quote and base units, each the double nearest to the venue's text. Row 0 bids,
    highest first; row 1 asks, lowest first. Past `count[side]`: px nan, sz 0, n 0.
    n: int64 (2, depth), resting orders. count: int64 (2,), levels in use.
    changed: bool (2, depth), the levels that the last applied message changed.
    time_ms: the venue's time of the newest message in the book. recv_ns: our clock when the last one arrived.
    seq: messages applied so far; it rises whenever the levels change.
    desyncs: how often the l2 book was found not to be the venue's. proofs: how often an l2Book message equalled it.

    The arrays belong to the book, are read-only, never move, and change with the next message: copy what you keep.

    The book is the fold, in venue time (equal time: bbo last), of the last message of each feed. slow: both sides are
    exactly these levels. fast: exactly these down to its last price; deeper levels stay when the side has 5, go when
    it has fewer. bbo: nothing better than its price, its size at its price; null empties the side. l2, while in sync:
    nothing else, and n is 0 for a level that came by an update.
    Source: the venue's docs, WebSocket > Subscriptions, `WsBook` and `WsBbo`; cadences as measured in 2026.
    """

    # __cinit__: a book that was never made, or made twice, would have pointers to nowhere.
    def __cinit__(self, coin: str, depth: int = 20, *, feeds: tuple = FEEDS, aggregated: bool = False,
                  buffer: object = None):
        cdef Py_ssize_t cells
        cdef Py_ssize_t cap
        cdef double* p
        cdef int i
        cdef int feed
        cdef BookSide* sides[10]
        if not isinstance(coin, str) or not coin:
            raise ConfigError(f"coin must be a non-empty str, not {coin!r}")
        if not 1 <= depth <= MAX_DEPTH:
            raise ConfigError(f"depth must be 1 to {MAX_DEPTH}, not {depth}")
        self.coin = coin
        self._name = coin.encode()
        self.depth = depth
        self.feeds = ()
        self.aggregated = aggregated
        self.widen(feeds)
        self._arena = Arena(self.nbytes(depth), buffer)
        memset(self._arena.data, 0, <size_t>self._arena.size)
        cells = SIDES * depth
        self._px = <double*>self._arena.data
        self._sz = self._px + cells
        self._n = <int64_t*>(self._sz + cells)
        self._count = self._n + cells
        self._changed = <uint8_t*>(self._count + SIDES)
        for i in range(cells):
            self._px[i] = NAN
        bytes_ = np.frombuffer(self._arena, np.uint8)
        shape = (SIDES, depth)
        self.px = bytes_[:8 * cells].view(np.float64).reshape(shape)
        self.sz = bytes_[8 * cells:16 * cells].view(np.float64).reshape(shape)
        self.n = bytes_[16 * cells:24 * cells].view(np.int64).reshape(shape)
        self.count = bytes_[24 * cells:24 * cells + 16].view(np.int64)
        self.changed = bytes_[24 * cells + 16:25 * cells + 16].view(np.bool_).reshape(shape)

        # a message is remembered with more levels than are shown: what a bbo hides comes up from below
        cap = depth if depth > MESSAGE_LEVELS else MESSAGE_LEVELS
        self._room = Arena(cap * 3 * 8 * SIDES * 6)
        p = <double*>self._room.data
        for i in range(SIDES):
            for feed in range(FEED_COUNT):
                sides[3 * i + feed] = &self._feeds[feed].message.side[i]
            sides[6 + i] = &self._scratch.side[i]
            sides[8 + i] = &self._merged[i]
        for i in range(10):
            place(sides[i], &p, cap)
        for i in range(SIDES):
            place(&self._work[i], &p, cap)
            self._skip[i] = -1
        for i in range(FEED_COUNT):
            self._feeds[i].message.cap = cap
        self._scratch.cap = cap
        self._ahead_ms = NO_GAP
        self._lost = True
        self._restart = True
        self._reason = NOTHING
        self._gap_ms = self._gap_new_ms = NO_GAP

    @staticmethod
    def nbytes(depth: int) -> int:
        """Bytes that the arrays of a book of this depth take: px, sz, n, count, changed, in this order, packed."""
        return 25 * SIDES * depth + 16

    cdef int widen(self, feeds) except -1:
        cdef int wanted = self._wanted
        cdef int feed
        for name in feeds:
            if name not in FEED_NAMES:
                raise ConfigError(f"unknown feed {name!r}: a book is fed from " + ", ".join(SHOWN_FEEDS))
            feed = FEED_NAMES.index(name)
            if feed < BBO and not wanted >> feed & 1:
                self._since_ns[feed] = 0
            wanted |= 1 << feed
        if not wanted:
            raise ConfigError("a book needs at least one feed of " + ", ".join(SHOWN_FEEDS))
        if wanted >> L2 & 1 and not wanted & (1 << SLOW | 1 << FAST):
            raise ConfigError("nothing proves the l2 feed but l2Book: a book of l2 needs slow or fast beside it")
        if wanted >> L2 & 1 and self.aggregated:
            raise ConfigError("an aggregated book has no l2 feed: its messages do not say whose they are")
        if wanted >> L2 & 1 and self._l2_room is None:
            self._make_l2()
        if self._wanted == 1 << BBO and wanted != 1 << BBO and not self._lost:
            self._cease(self.time_ms, NO_SNAPSHOT)
            self._lost = True  # a top of one level a side is no longer all that was asked for
            self._reason = NO_SNAPSHOT
        return self._want(wanted)

    cdef int _want(self, int wanted) except -1:
        self._wanted = wanted
        self.feeds = tuple([name for name in SHOWN_FEEDS if wanted >> FEED_NAMES.index(name) & 1])
        return 0

    cdef int _make_l2(self) except -1:
        cdef double* p
        cdef int i
        self._l2_room = Arena(MAX_L2_LEVELS * 3 * 8 * SIDES * 3)
        p = <double*>self._l2_room.data
        for i in range(SIDES):
            place(&self._feeds[L2].message.side[i], &p, MAX_L2_LEVELS)
            place(&self._l2_next.side[i], &p, MAX_L2_LEVELS)
            place(&self._l2_news.side[i], &p, MAX_L2_LEVELS)
        self._feeds[L2].message.cap = self._l2_next.cap = MAX_L2_LEVELS
        return 0

    cdef int narrow(self, int feed) except -1:
        cdef int wanted = self._wanted & ~(1 << feed)
        if not wanted or wanted >> L2 & 1 and not wanted & (1 << SLOW | 1 << FAST):
            raise ConfigError(f"the book of {self.coin} is fed from {', '.join(self.feeds)}: "
                              f"it cannot be without {FEED_NAMES[feed]}")
        if wanted == self._wanted:
            return 0
        self._gap_new_ms = NO_GAP
        self._want(wanted)
        self._down &= ~(1 << feed)
        self._silent &= ~(1 << feed)
        if feed == L2:
            self._end_l2()
        elif not self._restart:
            self._feeds[feed].present = False
            self._refold()
        if not self._lost and wanted != 1 << BBO and not (
                self._feeds[SLOW].present or self._feeds[FAST].present or self._feeds[L2].present):
            self._cease(self.time_ms, NO_SNAPSHOT)
            self._lost = True
            self._reason = NO_SNAPSHOT
        return self._clear()

    # --- writing ---

    def apply(self, message: bytes | memoryview, recv_ns: int = 0) -> bool:
        """Fold in one l2Book, bbo or l2 message of this coin, as received (the whole frame with its "channel").

        recv_ns: our monotonic clock when it arrived. Returns whether it changed anything: a message older than the
        last one of its own feed does not. Raises DecodeError and leaves every level as it was; the book is stale
        then, unless the message was of another coin, channel or aggregation.
        """
        cdef Py_buffer view
        cdef Envelope envelope
        cdef const char* buf
        cdef Py_ssize_t size
        cdef Py_ssize_t at = 0
        cdef DecodeStatus status
        cdef Folded folded
        if self._frozen:
            raise TypeError("this is a copy of a book: it does not change")
        PyObject_GetBuffer(message, &view, 0)
        try:
            buf, size = <const char*>view.buf, view.len
            status = read_envelope(buf, size, &envelope, &at)
            if status == DECODE_OK and envelope.channel == CH_L2 and envelope.l2 == L2_COMPRESSED:
                try:
                    plain = inflate_l2(&envelope)
                except DecodeError:
                    self.distrust("bad message", False)
                    raise
                buf, size = PyBytes_AS_STRING(plain), PyBytes_GET_SIZE(plain)
                status = read_l2_inflated(buf, size, &envelope, &at)
            if status != DECODE_OK:
                self.distrust("bad message", False)
                raise_decode(&envelope, status, buf, size, at)
            if envelope.channel != CH_L2BOOK and envelope.channel != CH_BBO and envelope.channel != CH_L2:
                raise DecodeError(envelope.name.p[:envelope.name.n].decode("utf-8", "replace"), 0, b"",
                                  "a book reads l2Book, bbo and l2 messages only")
            if envelope.coin.n != PyBytes_GET_SIZE(self._name) or memcmp(
                    envelope.coin.p, PyBytes_AS_STRING(self._name), <size_t>envelope.coin.n) != 0:
                raise_decode(&envelope, DECODE_COIN, buf, size, 0)
            if envelope.channel == CH_L2:
                folded = self.fold_l2(buf, size, &envelope, recv_ns, 0)
            else:
                folded = self.fold_in(buf, size, &envelope, recv_ns, 0)
            if folded == FOLD_BAD:
                raise_decode(&envelope, self._bad_status, buf, size, self._bad_at)
            if folded == FOLD_OTHER and envelope.channel == CH_L2:
                raise DecodeError("l2", 0, b"", 'this book has no l2 feed: make it with "l2" among its feeds')
            if folded == FOLD_OTHER:
                raise DecodeError("l2Book", 0, b"", "of an aggregated subscription (nSigFigs): a book made with "
                                  "aggregated=True reads those, and no others")
            return folded == FOLD_APPLIED
        finally:
            PyBuffer_Release(&view)

    cdef Folded fold_in(self, const char* buf, Py_ssize_t size, Envelope* envelope, int64_t recv_ns,
                        int link) except? FOLD_BAD:
        cdef Py_ssize_t at = 0
        cdef int feed
        cdef FeedState* state
        cdef int64_t version
        cdef BookMessage swap
        cdef DecodeStatus status = read_book(buf, size, envelope, &self._scratch, &at)
        if status != DECODE_OK:
            self._mistrust("bad message", False)
            self._bad_status = status
            self._bad_at = at
            return FOLD_BAD
        # The spread of a book without a bid or an ask: there may be none, and then the link decides.
        if self._scratch.aggregated != self.aggregated and not (
                self.aggregated and not (self._scratch.side[0].kept and self._scratch.side[1].kept)):
            return FOLD_OTHER
        self._gap_new_ms = NO_GAP
        envelope.reordered = self._scratch.reordered
        feed = BBO if envelope.channel == CH_BBO else (FAST if self._scratch.fast else SLOW)
        self._heard = feed
        state = &self._feeds[feed]
        if self._restart:
            self._begin()
        if state.present and self._scratch.time_ms < state.message.time_ms:
            return FOLD_LATE
        if state.present and self._scratch.time_ms == state.message.time_ms and not self._down >> feed & 1:
            version = version_of(state, &self._scratch, link)
            if version >= 0:
                self._first = state.said.first[version % VERSIONS]
                self._first_ns = state.said.first_ns[version % VERSIONS]
                return FOLD_TWIN
            note(&state.said, content_of(&self._scratch), link, recv_ns)
        else:
            state.said.count = 0  # a new time; or the feed was down: this is the venue's present answer
        swap = state.message
        state.message = self._scratch
        self._scratch = swap
        state.recv_ns = recv_ns
        state.link = link
        state.present = True
        if not self._feeds[L2].present:
            self._fold(feed)
            self.recv_ns = recv_ns
            self.seq += 1
            return self._settle(feed, recv_ns, FOLD_APPLIED)
        self._under = NULL
        if feed != BBO:
            self._compare(feed)
        if self._feeds[L2].present:
            return self._settle(feed, recv_ns, FOLD_KEPT)
        self.recv_ns = recv_ns
        return self._settle(feed, recv_ns, FOLD_APPLIED)  # l2 was found wrong: the others are shown

    # The link was lost: what was heard before, and what the arrays show, has nothing to do with the new fold.
    cdef int _begin(self) except -1:
        cdef int i
        for i in range(FEED_COUNT + 1):
            self._feeds[i].present = False
        self._doubt = False
        self._under = NULL
        self._skip[0] = self._skip[1] = -1
        self._restart = False
        return 0

    # A message of `feed` was taken: what it says about trust. Whoever waits for the book to be live is called, even
    # when no level has changed.
    cdef Folded _settle(self, int feed, int64_t recv_ns, Folded folded) except? FOLD_BAD:
        if self._lost and (feed != BBO or self._wanted == 1 << BBO):
            self._lost = False
            self._since_ns[SLOW] = self._since_ns[FAST] = recv_ns
        elif self._lost and self._reason is NOTHING:
            self._reason = NO_SNAPSHOT
        self._silent &= ~(1 << feed)
        self._down &= ~(1 << feed)
        self._clear()
        if folded == FOLD_KEPT and self._gap_new_ms != NO_GAP:
            memset(self._changed, 0, <size_t>(SIDES * self.depth))
            self.recv_ns = recv_ns
            self.seq += 1
            return FOLD_APPLIED
        return folded

    cdef int _clear(self) except -1:
        if self._gap_ms != NO_GAP and not self.is_stale():
            self._gap_new_ms = self._gap_ms
            self._gap_ms = NO_GAP
        return 0

    # --- l2 ---

    cdef Folded fold_l2(self, const char* buf, Py_ssize_t size, Envelope* envelope, int64_t recv_ns,
                        int link) except? FOLD_BAD:
        cdef FeedState* state = &self._feeds[L2]
        cdef BookMessage swap
        cdef Py_ssize_t at = 0
        cdef bint whole = envelope.l2 == L2_SNAPSHOT
        cdef int64_t seq = self.seq
        cdef DecodeStatus status
        cdef str wrong = None
        if not self._wanted >> L2 & 1:
            return FOLD_OTHER
        self._heard = L2
        self._gap_new_ms = NO_GAP
        if whole:
            status = read_l2_snapshot(buf, size, envelope, &self._l2_next, &at)
        else:
            status = read_l2_update(buf, size, envelope, &self._l2_news, &at)
        if status != DECODE_OK:
            if whole or state.present:
                self.desync("bad message")
            self._bad_status = status
            self._bad_at = at
            return FOLD_BAD
        if whole and self._restart:
            self._begin()
        if not whole and (self._restart or not state.present):
            return FOLD_LATE
        if state.present and link != state.link and (not whole or self._l2_next.time_ms < state.message.time_ms):
            self._first, self._first_ns = state.link, state.recv_ns
            return FOLD_TWIN  # positions count in the snapshot of their own link
        if whole:
            if state.present and self._l2_next.time_ms < state.message.time_ms:
                wrong = "time went back"
        elif self._l2_news.time_ms < state.message.time_ms:
            wrong = "time went back"
        elif self._doubt and self._l2_news.time_ms > state.message.time_ms:
            wrong = DIFFERS
        else:
            wrong = self._merge_l2()
        if wrong is not None:
            self.desync(wrong)
            return FOLD_KEPT if self.seq == seq else FOLD_APPLIED
        swap = state.message
        state.message = self._l2_next
        self._l2_next = swap
        state.recv_ns = recv_ns
        state.link = link
        state.present = True
        self._l2_whole = whole
        self._fold(L2)
        self.recv_ns = recv_ns
        self.seq += 1
        self._ahead_ms = NO_GAP
        self._doubt = False
        if not (self._prove(SLOW) and self._prove(FAST)):
            self._cease(state.message.time_ms, f"l2 {DIFFERS}")
            self._doubt = True
            self._ahead_ms = state.message.time_ms
        return self._settle(L2, recv_ns, FOLD_APPLIED)

    # What `_l2_news` makes of the book, into `_l2_next`; what is wrong with it, or None.
    cdef str _merge_l2(self):
        cdef BookMessage* old = &self._feeds[L2].message
        cdef BookMessage* new = &self._l2_next
        cdef BookSide* side
        cdef BookSide* news
        cdef uint8_t gone[MAX_L2_LEVELS]
        cdef int64_t position
        cdef Py_ssize_t i
        cdef Py_ssize_t kept
        cdef int row
        new.time_ms = self._l2_news.time_ms
        for row in range(SIDES):
            memset(gone, 0, sizeof(gone))
            for i in range(self._l2_news.removals[row]):
                position = self._l2_news.removed[row][i]
                if not 0 <= position < old.side[row].kept:
                    return f"position {position} of {old.side[row].kept} {'asks' if row else 'bids'}"
                if gone[position]:
                    return f"position {position} twice"
                gone[position] = 1
            side = &new.side[row]
            kept = 0
            for i in range(old.side[row].kept):
                if not gone[i]:
                    side.px[kept] = old.side[row].px[i]
                    side.sz[kept] = old.side[row].sz[i]
                    side.n[kept] = old.side[row].n[i]
                    kept += 1
            side.kept = kept
            news = &self._l2_news.side[row]
            for i in range(news.kept):
                if side.kept == MAX_L2_LEVELS:
                    return f"more than {MAX_L2_LEVELS} levels"
                put(side, row, news.px[i], news.sz[i])
            side.total = side.kept
        if new.side[0].kept and new.side[1].kept and new.side[0].px[0] >= new.side[1].px[0]:
            return "the sides cross"
        return None

    # False when the message of `feed` is of the time of the l2 book and says otherwise.
    cdef bint _prove(self, int feed) noexcept:
        cdef FeedState* state = &self._feeds[feed]
        if not state.present or state.message.time_ms != self._feeds[L2].message.time_ms:
            return True
        if not agrees(&state.message, &self._feeds[L2].message, self._l2_whole):
            return False
        self.proofs += 1
        return True

    # An l2Book message came while l2 is in sync. One of the same time that differs is a reason for doubt, which the
    # rest of that block's updates may take away again. One that is newer may be ahead of its update; but when the next
    # one comes and no update has, updates are missing.
    cdef int _compare(self, int feed) except -1:
        cdef BookMessage* said = &self._feeds[feed].message
        cdef BookMessage* full = &self._feeds[L2].message
        if said.time_ms < full.time_ms:
            return 0
        if said.time_ms == full.time_ms:
            if self._prove(feed):
                return 0
            self._cease(full.time_ms, f"l2 {DIFFERS}")
            self._doubt = True
        elif agrees(said, full, False):
            self._doubt = False
            self._ahead_ms = NO_GAP
            return 0
        elif self._ahead_ms != NO_GAP and said.time_ms > self._ahead_ms:
            return self.desync(DIFFERS if self._doubt else "no update while l2Book went on")
        if self._ahead_ms == NO_GAP:
            self._ahead_ms = said.time_ms
        return 0

    cdef int desync(self, str reason) except -1:
        self.desyncs += 1
        self._desync_reason = reason
        return self.lose(f"desync: {reason}", L2)

    # l2 is not in sync any more: show what the other feeds say, if anything.
    cdef int _end_l2(self) except -1:
        if not self._feeds[L2].present:
            return 0
        self._feeds[L2].present = False
        self._doubt = False
        self._ahead_ms = NO_GAP
        return self._refold()

    cdef int _refold(self) except -1:
        self._under = NULL
        if self._restart or self._feeds[L2].present or not (
                self._feeds[SLOW].present or self._feeds[FAST].present or self._feeds[BBO].present):
            return 0
        self._fold(SLOW)
        self.seq += 1
        return 0

    # Bring the arrays to the fold of `_feeds`, of which `feed` just changed.
    cdef int _fold(self, int feed) except -1:
        cdef FeedState* bbo = &self._feeds[BBO]
        cdef FeedState* slow = &self._feeds[SLOW]
        cdef FeedState* fast = &self._feeds[FAST]
        cdef BookSide* sides
        cdef int row
        if self._feeds[L2].present:
            for row in range(SIDES):
                self._skip[row] = -1
                self._show(row, &self._feeds[L2].message.side[row], NULL, 0)
            self.time_ms = self._feeds[L2].message.time_ms
            return 0
        if feed != BBO or self._under == NULL:
            if slow.present and not (fast.present and fast.message.time_ms >= slow.message.time_ms):
                self._under = &slow.message.side[0]  # both sides are exactly these levels
            else:
                self._run(self._merged, False)
                self._under = self._merged
        if bbo.present and not (slow.present and slow.message.time_ms > bbo.message.time_ms
                                or fast.present and fast.message.time_ms > bbo.message.time_ms):
            self.time_ms = bbo.message.time_ms
            return self._show_under_bbo(feed == BBO)
        sides = self._under
        if bbo.present and sides == self._merged:
            sides = self._work
            self._run(sides, True)
        for row in range(SIDES):
            self._skip[row] = -1
            self._show(row, &sides[row], NULL, 0)
        self.time_ms = max(slow.message.time_ms if slow.present else fast.message.time_ms,
                           fast.message.time_ms if fast.present else slow.message.time_ms)
        return 0

    # The fold from nothing, in venue time; at equal time slow, fast, bbo.
    cdef int _run(self, BookSide* sides, bint with_bbo) except -1:
        cdef int feed
        cdef int best
        cdef int done = 0
        sides[0].kept = sides[0].total = sides[1].kept = sides[1].total = 0
        while True:
            best = -1
            for feed in range(FEED_COUNT if with_bbo else BBO):
                if self._feeds[feed].present and not done >> feed & 1 and (
                        best < 0 or self._feeds[feed].message.time_ms < self._feeds[best].message.time_ms):
                    best = feed
            if best < 0:
                return 0
            step(sides, &self._feeds[best], best)
            done |= 1 << best

    # The bbo is the newest: one level of its own on each side, the rest of `_under` behind it.
    cdef int _show_under_bbo(self, bint under_unchanged) except -1:
        cdef BookSide* top
        cdef BookSide* under
        cdef Py_ssize_t hidden
        cdef Py_ssize_t at
        cdef int row
        for row in range(SIDES):
            top = &self._feeds[BBO].message.side[row]
            under = &self._under[row]
            hidden = under.total
            if top.kept:
                hidden = 0
                while hidden < under.kept and not worse(row, under.px[hidden], top.px[0]):
                    hidden += 1
            at = row * self.depth
            if under_unchanged and self._skip[row] == hidden and top.kept and self._count[row]:
                # by far the most frequent message: only the first level can have changed
                memset(self._changed + at, 0, <size_t>self.depth)
                self._changed[at] = (differs(&self._px[at], &top.px[0]) or differs(&self._sz[at], &top.sz[0])
                                     or self._n[at] != top.n[0])
                self._px[at] = top.px[0]
                self._sz[at] = top.sz[0]
                self._n[at] = top.n[0]
            else:
                self._show(row, under, top, hidden)
                self._skip[row] = hidden
        return 0

    # Publish one side: the levels of `top` if given, then those of `side` from `hidden` on.
    cdef int _show(self, int row, BookSide* side, BookSide* top, Py_ssize_t hidden) except -1:
        cdef Py_ssize_t head = 0 if top == NULL else top.kept
        cdef Py_ssize_t rest = side.kept - hidden if side.kept > hidden else 0
        cdef Py_ssize_t beyond = side.total - side.kept if hidden <= side.kept else 0
        cdef Py_ssize_t was = self._count[row]
        cdef Py_ssize_t at = row * self.depth
        cdef Py_ssize_t i
        if rest > self.depth - head:
            beyond += rest - (self.depth - head)
            rest = self.depth - head
        must(head + rest <= self.depth and hidden + rest <= side.kept or not rest)
        if head:
            self._write(at, top.px, top.sz, top.n, 1)
        self._write(at + head, side.px + hidden, side.sz + hidden, side.n + hidden, rest)
        for i in range(at + head + rest, at + was):
            self._px[i] = NAN
            self._sz[i] = 0.0
            self._n[i] = 0
            self._changed[i] = 1
        # levels past both the old and the new count were never marked, or were marked by the message before
        for i in range(at + max(was, head + rest), at + self.depth):
            self._changed[i] = 0
        self._count[row] = head + rest
        self._beyond[row] = beyond
        return 0

    cdef void _write(self, Py_ssize_t at, double* px, double* sz, int64_t* n, Py_ssize_t count) noexcept:
        hl_publish(self._px + at, self._sz + at, self._n + at, self._changed + at, px, sz, n, count)

    # --- trust ---

    cdef bint is_stale(self) noexcept:
        return self._lost or self._silent != 0 or self._down != 0 or self._doubt

    # The book is about to be stale, for a reason that makes doubtful what came after `from_ms`.
    cdef int _cease(self, int64_t from_ms, str reason) except -1:
        if not self.is_stale():
            self._gap_ms = from_ms
            self._gap_reason = reason
        elif self._gap_ms != NO_GAP and from_ms < self._gap_ms:
            self._gap_ms = from_ms
        return 0

    # What could not be read, or not be heard, may have been an update of l2 too.
    cdef int distrust(self, str reason, bint restart) except -1:
        if not restart and not self._restart and self._feeds[L2].present:
            self.desync(reason)
        return self._mistrust(reason, restart)

    cdef int _mistrust(self, str reason, bint restart) except -1:
        self._cease(self.time_ms, reason)
        self._lost = True
        self._reason = reason
        if restart:
            self._restart = True
            self._silent = 0
            self._doubt = False
        return 0

    cdef int lose(self, str reason, int feed) except -1:
        if not self._wanted >> feed & 1:
            return 0
        if self._feeds[feed].present and not self._restart:
            self._cease(self._feeds[feed].message.time_ms, reason)
        else:
            self._cease(self.time_ms, reason)
        self._down |= 1 << feed
        self._down_reason = reason
        if self._down == self._wanted:
            self._mistrust(reason, True)
        elif feed == L2 and not self._restart:
            self._end_l2()
        return 0

    cdef bint hush(self, int64_t now_ns, int64_t slow_ns, int64_t fast_ns) except -1:
        cdef int feed
        cdef int64_t since
        if self._lost:
            return False
        for feed in range(BBO):
            if self._wanted >> feed & 1 and not self._silent >> feed & 1:
                since = self._feeds[feed].recv_ns
                if not self._feeds[feed].present:  # never heard since the book went live, or since it was asked for
                    since = self._since_ns[feed] = self._since_ns[feed] or now_ns
                if now_ns - since > (slow_ns if feed == SLOW else fast_ns):
                    self._cease(self._feeds[feed].message.time_ms if self._feeds[feed].present else self.time_ms,
                                f"{FEED_NAMES[feed]} feed silent")
                    self._silent |= 1 << feed
        return self._silent != 0

    def mark_stale(self, reason: str, *, restart: bool = False) -> None:
        """Say that the book is not to be trusted until its next good snapshot, and why.

        restart: what was heard before proves nothing any more (the link was lost): the next message of any feed
        begins the fold anew. The levels stay readable until then.
        """
        self.distrust(reason, restart)

    @property
    def stale(self) -> bool:
        """Whether the book may differ from the venue's: nothing received yet, a lost link, a bad message, or a
        periodic feed that fell silent, or one of its feeds that no link serves. Silence of bbo alone proves nothing."""
        return self.is_stale()

    @property
    def stale_reason(self) -> str | None:
        """Why the book is stale, in words; None while it is not."""
        if self._lost:
            return self._reason
        if self._down:
            names = " and ".join([FEED_NAMES[i] for i in range(L2 + 1) if self._down >> i & 1])
            return f"{names} feed down: {self._down_reason}"
        if self._doubt:
            return f"l2 {DIFFERS}"
        if self._silent:
            return " and ".join([f"{FEED_NAMES[i]} feed silent" for i in range(BBO) if self._silent >> i & 1])
        return None

    @property
    def grade(self) -> Grade:
        """What the levels rest on since the book was last live; see `hlconn.Grade`."""
        if self._restart:
            return Grade.NONE
        if self._feeds[L2].present:
            return Grade.L2
        if self._feeds[FAST].present:
            return Grade.FAST
        if self._feeds[SLOW].present:
            return Grade.SLOW
        return Grade.TOP

    def ages(self, now_ns: int) -> dict[str, int]:
        """ns since the last message of each feed heard since the last restart: {"fast": 310_000_000, ...}.

        now_ns: the clock that `recv_ns` was taken from (`time.monotonic_ns()` for a session)."""
        if self._restart:
            return {}
        return {FEED_NAMES[i]: now_ns - self._feeds[i].recv_ns for i in range(L2 + 1) if self._feeds[i].present}

    @property
    def times_ms(self) -> dict[str, int]:
        """The venue's time of the last message of each feed heard since the last restart, ms."""
        if self._restart:
            return {}
        return {FEED_NAMES[i]: self._feeds[i].message.time_ms for i in range(L2 + 1) if self._feeds[i].present}

    @property
    def beyond(self) -> tuple[int, int]:
        """Levels of (bids, asks) that the venue sent and `depth` has no room for."""
        return self._beyond[0], self._beyond[1]

    # --- reading ---

    @property
    def best_bid(self) -> float:
        """Highest bid price; nan when there is none."""
        return self._px[0]

    @property
    def best_ask(self) -> float:
        """Lowest ask price; nan when there is none."""
        return self._px[self.depth]

    @property
    def mid(self) -> float:
        """(best bid + best ask) / 2; nan unless both sides have a level."""
        return (self._px[0] + self._px[self.depth]) / 2

    @property
    def spread(self) -> float:
        """best ask - best bid, quote units; nan unless both sides have a level."""
        return self._px[self.depth] - self._px[0]

    @property
    def microprice(self) -> float:
        """The mid weighted by the size on the opposite side: nearer to the side that is about to give way.

        (bid px * ask sz + ask px * bid sz) / (bid sz + ask sz); nan unless both sides have a level with size."""
        cdef double total = self._sz[0] + self._sz[self.depth]
        if not self._count[0] or not self._count[1] or total == 0:
            return NAN
        return (self._px[0] * self._sz[self.depth] + self._px[self.depth] * self._sz[0]) / total

    def imbalance(self, levels: int = 1) -> float:
        """(bid size - ask size) / (bid size + ask size) over the first `levels` of each side, -1 to 1.

        nan when both are empty. ConfigError for levels < 1."""
        cdef double total[2]
        cdef int row
        cdef Py_ssize_t i
        if levels < 1:
            raise ConfigError(f"levels must be at least 1, not {levels}")
        for row in range(SIDES):
            total[row] = 0
            for i in range(min(<Py_ssize_t>levels, self._count[row])):
                total[row] += self._sz[row * self.depth + i]
        if total[0] + total[1] == 0:
            return NAN
        return (total[0] - total[1]) / (total[0] + total[1])

    def vwap(self, side: Side, sz: float) -> float:
        """Average price, quote units, of taking `sz` base units now: a BUY walks the asks, a SELL the bids.

        nan when the levels held are not enough. ConfigError unless 0 < sz < inf."""
        cdef double left = sz
        cdef double paid = 0
        cdef double take
        cdef int row = 1 - <int>Side(side)
        cdef Py_ssize_t i
        if not 0 < left < float("inf"):
            raise ConfigError(f"sz must be a positive number, not {sz!r}")
        for i in range(row * self.depth, row * self.depth + self._count[row]):
            take = min(left, self._sz[i])
            paid += take * self._px[i]
            left -= take
            if left <= 1e-12 * <double>sz:  # the noise of adding up sizes is not a level too few
                return paid / <double>sz
        return NAN

    def copy(self) -> Book:
        """A frozen, consistent copy: for other threads and for keeping. Its `apply` raises TypeError."""
        cdef Book twin = Book(self.coin, self.depth, feeds=self.feeds, aggregated=self.aggregated)
        cdef int i
        memcpy(twin._arena.data, self._arena.data, <size_t>self._arena.size)
        twin.time_ms, twin.recv_ns, twin.seq = self.time_ms, self.recv_ns, self.seq
        for i in range(L2 + 1):
            twin._feeds[i].present = self._feeds[i].present
            twin._feeds[i].recv_ns = self._feeds[i].recv_ns
            twin._feeds[i].message.time_ms = self._feeds[i].message.time_ms
        for i in range(SIDES):
            twin._beyond[i] = self._beyond[i]
        twin._restart, twin._lost, twin._silent = self._restart, self._lost, self._silent
        twin._reason = self._reason
        twin._down, twin._down_reason = self._down, self._down_reason
        twin._doubt, twin.desyncs, twin.proofs = self._doubt, self.desyncs, self.proofs
        twin._frozen = True
        return twin

    def __repr__(self) -> str:
        trust = f"stale: {self.stale_reason}" if self.is_stale() else "live"
        return f"<Book {self.coin} {self.best_bid} / {self.best_ask} at {self.time_ms} ms, {trust}>"


cdef void place(BookSide* side, double** p, Py_ssize_t cap) noexcept:
    side.px = p[0]
    side.sz = p[0] + cap
    side.n = <int64_t*>(p[0] + 2 * cap)
    p[0] += 3 * cap


def _use_portable(portable: bool) -> bool:
    """For tests: publish levels with the portable code, or again with the best one. Whether that is the AVX2 one."""
    return hl_publish_choose(portable) != 0
