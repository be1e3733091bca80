"""One WebSocket message to one handler. See feed.pxd for the table of coins."""
cimport numpy as cnp
from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.tuple cimport PyTuple_CheckExact
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy

from hlconn._core.book cimport (
    BBO, FAST, FOLD_APPLIED, FOLD_BAD, FOLD_LATE, FOLD_OTHER, FOLD_TWIN, L2, LINKS, NO_GAP, SLOW, Book, Folded)
from hlconn._core.codec cimport (
    CH_COUNT, CH_L2, CH_L2BOOK, CH_OTHER, CH_TRADES, L2_COMPRESSED, MAX_COIN, Channel, Envelope, TradeMessage, TradeRow,
    inflate_l2, raise_decode, read_envelope, read_l2_inflated, read_trades)
from hlconn._core.cursor cimport DECODE_OK, DecodeStatus
from hlconn._core.histogram cimport Histogram
from hlconn._core.tids cimport Tids, tids_add, tids_fit, tids_free, tids_has, tids_reserve

import numpy as np

from hlconn.errors import ConfigError, DecodeError
from hlconn.types import FEEDS, TRADE_DTYPE, TRADE_USERS_DTYPE

cnp.import_array()

cdef extern from "Python.h":
    # raw pointers: NULL is looked at by hand, which spares the hot path a try
    PyObject* PyObject_CallOneArg(PyObject* callback, PyObject* argument)

cdef enum:
    OTHER_NAMES = 64         # channels counted by name; the venue has about 30, a hostile peer any number

cdef int64_t NEVER_MS = -0x7FFFFFFFFFFFFFFF
cdef int64_t MAX_TIME_MS = 4_398_046_511_104  # in the year 2109: what is beyond has no nanoseconds in 64 bits
cdef int64_t WINDOW_NS = 60_000_000_000  # clocks drift apart: the least offset is that of one to two minutes

cdef bytes GREETING = b"Websocket connection established."
cdef tuple CHANNEL_NAMES = ("other", "l2Book", "bbo", "trades", "l2")

if sizeof(TradeRow) != TRADE_USERS_DTYPE.itemsize:
    raise ImportError("hlconn.types.TRADE_USERS_DTYPE and TradeRow of codec.pxd differ")


cdef inline uint64_t hash_of(const char* p, Py_ssize_t n) noexcept nogil:
    cdef uint64_t h = <uint64_t>n
    cdef Py_ssize_t i
    for i in range(n):
        h = (h ^ <unsigned char>p[i]) & 0xFFFFFFFFULL
        h = h * 0x01000193ULL & 0xFFFFFFFFULL
    return h ^ h >> 15


# SLOW, FAST, BBO or TRADES and the coin of a subscription, and whether it is aggregated; -1 for what is not read.
cdef tuple kind_of(subscription):
    kind = subscription.get("type")
    coin = subscription.get("coin")
    if kind == "trades":
        return TRADES, coin, False
    if kind == "bbo":
        return BBO, coin, False
    if kind == "l2" and subscription.get("nSigFigs") is None:
        return L2, coin, False
    if kind == "l2Book":
        return FAST if subscription.get("fast") else SLOW, coin, subscription.get("nSigFigs") is not None
    return -1, coin, False


cdef tuple FEED_NAMES = ("slow", "fast", "bbo", "l2")  # in the order of the enum in book.pxd


cdef int link_of(link) except -1:
    if not 0 <= link < LINKS:
        raise ConfigError(f"link must be 0 to {LINKS - 1}, not {link!r}")
    return link


cdef class Slot:
    def __dealloc__(self):
        tids_free(&self.seen)


# The rows of new trades, moved to the front; how many. -1: no memory. Not new either, and not noted, is what was never
# seen but is older than a trade of the message that was, or of the same time and before it: a replay shows again what
# was missed before.
cdef Py_ssize_t sift(Tids* seen, char* rows, Py_ssize_t stride, Py_ssize_t total) noexcept nogil:
    cdef Py_ssize_t fresh = 0
    cdef Py_ssize_t i
    cdef TradeRow* row
    cdef int64_t newest = seen.time_ms
    cdef int64_t known_ms = NEVER_MS
    cdef Py_ssize_t known_at = -1
    for i in range(total):
        row = <TradeRow*>(rows + i * stride)
        if row.time <= newest and row.time >= known_ms and tids_has(seen, row.tid):
            known_ms = row.time
            known_at = i
    if seen.floor_ms != 0 and seen.floor_ms > known_ms:
        known_ms = seen.floor_ms
        known_at = -1
    if not tids_fit(seen, total):
        for i in range(total):
            fresh += not tids_has(seen, (<TradeRow*>(rows + i * stride)).tid)
        if not tids_reserve(seen, fresh):
            return -1
        fresh = 0
    for i in range(total):
        row = <TradeRow*>(rows + i * stride)
        if (row.time > known_ms or row.time == known_ms and i > known_at) and tids_add(seen, row.tid, row.time):
            newest = max(newest, row.time)
            if fresh != i:
                memcpy(rows + fresh * stride, rows + i * stride, <size_t>stride)
            fresh += 1
    seen.time_ms = newest
    return fresh


cdef class Feed:
    """Reads WebSocket messages and hands each to one handler: books and trades by coin.

    trade_users: trades carry the addresses of both parties (`hlconn.types.TRADE_USERS_DTYPE`); costs a copy each.

    Level 0: no socket, no clock, no event loop. A callback's exception passes to the caller of `on_message`.
    Not for several threads at once.
    """

    # All in __cinit__: a feed that was never made, or made twice, would have pointers to nowhere.
    def __cinit__(self, *, trade_users: bool = False):
        self._mask = 15
        self._table = <void**>PyMem_Calloc(16, sizeof(void*))
        if self._table == NULL:
            raise MemoryError
        self._slots = {}
        self._other = {}
        self._users = trade_users
        self._leads = [None] * LINKS
        self._make_rows(64)

    def __dealloc__(self):
        PyMem_Free(self._table)

    # --- who listens ---

    def book(self, coin: str, depth: int | None = None, *, feeds: tuple = FEEDS) -> Book:
        """The Book that the feed keeps for `coin`; made at the first call. Later calls add their feeds to its own.

        depth: levels a side, None for 20 or what it has. ConfigError when it exists with another depth, or for a name
        longer than 64 bytes.
        """
        cdef Slot slot = self._slot(coin)
        if slot.book is None:
            slot.book = Book(coin, 20 if depth is None else depth, feeds=feeds)
        elif depth is not None and slot.book.depth != depth:
            raise ConfigError(f"the book of {coin} was made with depth={slot.book.depth}: ask for that")
        else:
            slot.book.widen(feeds)
        return slot.book

    def drop_book(self, coin: str, reason: str) -> None:
        """Keep no book of `coin` any more and call nobody for it. Whoever holds the book finds it stale for good."""
        cdef Slot slot = self._slots.get(coin)
        if slot is not None and slot.book is not None:
            slot.book.distrust(reason, True)
            slot.book = slot.on_book = None

    def drop_feed(self, coin: str, feed: str) -> None:
        """The book of `coin` is not meant to have this feed ("l2", "fast" ...) any more: it rests on the others now.

        ConfigError when the others are none, or cannot prove an l2 feed.
        """
        cdef Slot slot = self._slots.get(coin)
        cdef Book book
        cdef bint live
        if feed not in FEED_NAMES:
            raise ConfigError(f"unknown feed {feed!r}: say one of {', '.join(FEED_NAMES)}")
        if slot is None or slot.book is None:
            return
        book = slot.book
        live = not book.is_stale()
        book.narrow(FEED_NAMES.index(feed))
        self._trust(book, live, book.desyncs)
        self._revived(book)

    def on_desync(self, callback: object) -> None:
        """Call `callback(coin, reason)` when an l2 book was found not to be the venue's, after `on_stale`.

        The book waits for a snapshot from then on: whoever is called has to subscribe again, or `drop_feed`.
        """
        self._on_desync = callback

    def on_book(self, coin: str, callback: object) -> None:
        """Call `callback(book)` after each l2Book, bbo or l2 message of `coin` that was applied. None: no more.

        One callback a coin, or a tuple of them, called in order: a second call replaces what the first one gave. The
        book is made with depth 20 if there is none.
        """
        cdef Slot slot = self._slot(coin)
        if slot.book is None:
            slot.book = Book(coin)
        slot.on_book = callback

    def aggregated(self, coin: str, link: int, book: Book | None, callback: object = None) -> None:
        """The aggregated l2Book messages (nSigFigs) of `coin` that come over `link` are for `book`. None: for nobody.

        book: made with `aggregated=True`, and kept by whoever asks. Messages do not say their aggregation, so that a
        link carries at most one of a coin; of a book that moves, or that two links carry, each link is told of.
        callback: as in `on_book`. `on_stale` and `on_live` do not speak of these books: look at `book.stale`, and call
        `book.mark_stale` when the subscription is lost. ConfigError for a book of another coin or kind.
        """
        cdef Slot slot = self._slot(coin)
        cdef Slot entry = None
        cdef int at = link_of(link)
        if book is not None:
            if book.coin != coin or not book.aggregated:
                raise ConfigError(f"an aggregated book of {coin} is needed, not {book!r}: make it with aggregated=True")
            entry = Slot.__new__(Slot)
            entry.name, entry.book, entry.on_book = slot.name, book, callback
        if slot.coarse is None:
            slot.coarse = [None] * LINKS
        slot.coarse[at] = entry

    def on_trades(self, coin: str, callback: object) -> None:
        """Call `callback(trades)` for each trades message of `coin` with something new. None: no more.

        trades: structured array (n,) of `hlconn.types.TRADE_DTYPE`, oldest first as the venue sent them, reused by
        the next message: copy what you keep. Each trade comes once: of those that another link brought before, or
        that the venue replays after a subscribe, rows are left out by `tid`, against the last 1,024 trades at least,
        and so is what is older than such a row, or of the same time and before it.
        One callback a coin, or a tuple of them, called in order. After None, nothing is remembered.
        """
        cdef Slot slot = self._slot(coin)
        slot.on_trades = callback
        if callback is None:
            slot.on_replay = None
            slot.replaying = 0
            tids_free(&slot.seen)

    def on_replay(self, coin: str, callback: object) -> None:
        """For the first trades message of `coin` that each link brings, call `callback(trades, known, link, last_ms)`
        instead of who listens; once more after `await_replay`.

        trades: the new ones, as in `on_trades`, maybe none. known: how many others in the message are not new:
        the venue sends trades without holes, so that one known trade after an interruption proves that none is
        missing. last_ms: the venue's time of the newest trade before, 0 for none. Needs a callback of `on_trades`.
        None: not any more.
        """
        cdef Slot slot = self._slot(coin)
        slot.replaying = 0 if callback is None else EVERY_LINK
        slot.on_replay = callback

    def await_replay(self, coin: str, link: int, awaited: bool = True) -> None:
        """The next trades message of that link is a first one, see `on_replay`; or, when not awaited, it is not."""
        cdef Slot slot = self._slot(coin)
        if awaited and slot.on_replay is not None:
            slot.replaying |= 1U << link_of(link)
        else:
            slot.replaying &= ~(1U << link_of(link))

    def seen_trades(self, coin: str, tids: np.ndarray) -> np.ndarray:
        """Which of these trades of `coin` were seen before: bool array. tids: integers of 64 bits, one dimension."""
        cdef Slot slot = self._slots.get(coin)
        if slot is None:
            return np.zeros(len(tids), np.bool_)
        return np.array([tids_has(&slot.seen, tid) for tid in tids.tolist()], np.bool_)

    def last_trade_ms(self, coin: str) -> int | None:
        """The venue's time of the newest trade of `coin` seen; None when there was none, or nobody listens."""
        cdef Slot slot = self._slots.get(coin)
        if slot is None or not slot.seen.time_ms:
            return None
        return slot.seen.time_ms

    def note_trades(self, coin: str, trades: np.ndarray) -> None:
        """Take these trades of `coin` for seen: they came another way than by a message. trades: as in `on_trades`."""
        cdef Slot slot = self._slot(coin)
        if slot.on_trades is None:
            return
        if not tids_reserve(&slot.seen, len(trades)):
            raise MemoryError
        newest = slot.seen.time_ms
        for tid, time_ms in zip(trades["tid"].tolist(), trades["time"].tolist(), strict=True):
            tids_add(&slot.seen, tid, time_ms)
            newest = max(newest, time_ms)
        slot.seen.time_ms = newest

    def end_trades_before(self, coin: str, time_ms: int) -> None:
        """Trades of `coin` older than this, by the venue's time, are not delivered any more: they are declared lost."""
        cdef Slot slot = self._slot(coin)
        if slot.on_trades is not None:
            slot.seen.floor_ms = max(slot.seen.floor_ms, <int64_t>time_ms)

    def on_stale(self, callback: object) -> None:
        """Call `callback(coin, reason)` when a live book ceases to be live, whatever the reason. None: no more."""
        self._on_stale = callback

    def on_live(self, callback: object) -> None:
        """Call `callback(coin, from_ms, reason)` when a book is live again, before who listens to it. None: no more.

        from_ms: the venue's time of what the book still knew: up to the book's present `time_ms` it may have missed
        something. reason: why it ceased to be live, the first reason if there were several.
        """
        self._on_live = callback

    def on_raw(self, callback: object) -> None:
        """Call `callback(channel: str, message: bytes)` for each message of a channel that is not decoded here."""
        self._on_raw = callback

    def on_burst(self, callback: object) -> None:
        """Call `callback()` after the last message of each read from the socket, for those who batch. None: no more."""
        self._on_burst_end = callback
        self.wants_burst_end = callback is not None

    @property
    def failed(self) -> tuple[str, str] | None:
        """(channel, coin) of the callback that raised during the last `on_message`; None when none did."""
        if self._failed is None:
            return None
        return CHANNEL_NAMES[<int>self._failed_channel], self._failed.name.decode()

    @property
    def coins(self) -> tuple[str, ...]:
        """Coins that somebody asked for, in the order in which they did."""
        return tuple(self._slots)

    cdef Slot _slot(self, coin):
        cdef Slot slot = self._slots.get(coin)
        if slot is not None:
            return slot
        if not isinstance(coin, str) or not coin:
            raise ConfigError(f"coin must be a non-empty str, not {coin!r}")
        name = coin.encode()
        if len(name) > MAX_COIN:
            raise ConfigError(f"coin {coin[:20]!r}... is longer than {MAX_COIN} bytes")
        slot = Slot.__new__(Slot)
        slot.name = name
        if 2 * (len(self._slots) + 1) > self._mask:
            self._grow()
        self._slots[coin] = slot
        self._enter(slot)
        return slot

    cdef int _enter(self, Slot slot) except -1:
        cdef uint64_t i = hash_of(PyBytes_AS_STRING(slot.name), PyBytes_GET_SIZE(slot.name))
        while self._table[i & <uint64_t>self._mask] != NULL:
            i += 1
        self._table[i & <uint64_t>self._mask] = <void*>slot
        return 0

    cdef int _grow(self) except -1:
        cdef Py_ssize_t size = 2 * (self._mask + 1)
        cdef void** table = <void**>PyMem_Calloc(<size_t>size, sizeof(void*))
        if table == NULL:
            raise MemoryError
        PyMem_Free(self._table)
        self._table = table
        self._mask = size - 1
        for slot in self._slots.values():
            self._enter(slot)
        return 0

    cdef Slot _find(self, const char* name, Py_ssize_t n):
        cdef uint64_t i = hash_of(name, n)
        cdef void* entry
        cdef Slot slot
        while True:
            entry = self._table[i & <uint64_t>self._mask]
            if entry == NULL:
                return None
            slot = <Slot>entry
            if PyBytes_GET_SIZE(slot.name) == n and memcmp(PyBytes_AS_STRING(slot.name), name, <size_t>n) == 0:
                return slot
            i += 1

    # --- messages ---

    def on_message(self, message: bytes | memoryview, recv_ns: int = 0, link: int = 0) -> None:
        """Take one WebSocket message, as received. recv_ns: our monotonic clock when it arrived.

        link: 0 to 15, which of several connections brought it: of what two of them bring, the first one counts.

        Unknown channels and coins are counted, never fatal. Raises DecodeError for a message that cannot be read:
        the book it was for is stale then (every book, when even that cannot be read), and nothing else changed.
        Whatever a callback raises passes through; `failed` names its (channel, coin) until the next message.
        RuntimeError when called from within a callback; ConfigError for a link that cannot be.
        """
        cdef Py_buffer view
        cdef int64_t ns = recv_ns
        cdef int at = link_of(link)
        if PyBytes_CheckExact(message):
            self.take(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), ns, at)
            return
        PyObject_GetBuffer(message, &view, 0)
        try:
            self.take(<const char*>view.buf, view.len, ns, at)
        finally:
            PyBuffer_Release(&view)

    cdef int take(self, const char* buf, Py_ssize_t size, int64_t recv_ns, int link) except -1:
        cdef Envelope envelope
        cdef Py_ssize_t at = 0
        cdef Counter* counter
        cdef Slot slot
        cdef Slot coarse
        cdef DecodeStatus status
        cdef Folded folded
        cdef bint live
        cdef int64_t desyncs
        if self._busy:
            raise RuntimeError("on_message called from within a callback of the same feed")
        self._failed = None
        self.link = link
        status = read_envelope(buf, size, &envelope, &at)
        counter = &self._counters[<int>envelope.channel]
        counter.messages += 1
        counter.bytes += size
        if status != DECODE_OK:
            if size == PyBytes_GET_SIZE(GREETING) and memcmp(buf, PyBytes_AS_STRING(GREETING), <size_t>size) == 0:
                return 0  # the venue's first frame is this text
            counter.errors += 1
            self.mark_stale("bad message", restart=False)  # it may have been for any of them
            return raise_decode(&envelope, status, buf, size, at)
        if envelope.channel == CH_OTHER:
            return self._raw(&envelope, buf, size)
        if envelope.channel == CH_L2:
            return self._l2(&envelope, buf, size, recv_ns, link)
        if envelope.coin.n == 0:
            return 0  # an empty array of trades
        slot = self._find(envelope.coin.p, envelope.coin.n)
        folded = FOLD_OTHER
        if slot is not None and slot.coarse is not None and envelope.channel == CH_L2BOOK:
            coarse = slot.coarse[link]
            if coarse is not None:
                live = not coarse.book.is_stale()
                desyncs = coarse.book.desyncs
                folded = coarse.book.fold_in(buf, size, &envelope, recv_ns, link)
                if folded != FOLD_OTHER:
                    return self._folded(coarse, folded, live, desyncs, &envelope, buf, size, recv_ns, link)
        if slot is None or (slot.on_trades if envelope.channel == CH_TRADES else slot.book) is None:
            counter.unrouted += 1
            return 0
        if envelope.channel == CH_TRADES:
            return self._trades(slot, &envelope, buf, size, recv_ns, link)
        live = not slot.book.is_stale()
        desyncs = slot.book.desyncs
        folded = slot.book.fold_in(buf, size, &envelope, recv_ns, link)
        return self._folded(slot, folded, live, desyncs, &envelope, buf, size, recv_ns, link)

    cdef int _l2(self, Envelope* envelope, const char* buf, Py_ssize_t size, int64_t recv_ns, int link) except -1:
        cdef Counter* counter = &self._counters[<int>CH_L2]
        cdef Slot slot
        cdef Py_ssize_t at = 0
        cdef DecodeStatus status
        cdef bint live
        cdef int64_t desyncs
        cdef bytes plain
        if envelope.l2 == L2_COMPRESSED:
            try:
                plain = inflate_l2(envelope)
                buf, size = PyBytes_AS_STRING(plain), PyBytes_GET_SIZE(plain)
                status = read_l2_inflated(buf, size, envelope, &at)
                if status != DECODE_OK:
                    raise_decode(envelope, status, buf, size, at)
            except DecodeError:
                counter.errors += 1
                self._lost_l2(link)
                raise
        slot = self._find(envelope.coin.p, envelope.coin.n)
        if slot is None or slot.book is None:
            counter.unrouted += 1
            return 0
        live = not slot.book.is_stale()
        desyncs = slot.book.desyncs
        folded = slot.book.fold_l2(buf, size, envelope, recv_ns, link)
        return self._folded(slot, folded, live, desyncs, envelope, buf, size, recv_ns, link)

    # An update of one of this link's l2 books cannot be read, and nobody knows of which.
    cdef int _lost_l2(self, int link) except -1:
        cdef Slot slot
        cdef bint live
        cdef int64_t desyncs
        for slot in list(self._slots.values()):
            if slot.book is not None and slot.book._feeds[L2].present and slot.book._feeds[L2].link == link:
                live = not slot.book.is_stale()
                desyncs = slot.book.desyncs
                slot.book.desync("bad message")
                self._trust(slot.book, live, desyncs)
        return 0

    # A book has taken a message: count it, and tell whoever has to know. live, desyncs: as they were before.
    cdef int _folded(self, Slot slot, Folded folded, bint live, int64_t desyncs, Envelope* envelope,
                     const char* buf, Py_ssize_t size, int64_t recv_ns, int link) except -1:
        cdef Counter* counter = &self._counters[<int>envelope.channel]
        cdef Book book = slot.book
        cdef int feed = book._heard
        if folded == FOLD_OTHER:
            counter.unrouted += 1
            return 0
        if folded == FOLD_BAD:
            counter.errors += 1
            self._trust(book, live, desyncs)
            return raise_decode(envelope, book._bad_status, buf, size, book._bad_at)
        slot.flow[feed][link] += 1
        self._links[link].messages += 1
        if folded == FOLD_TWIN:
            counter.twins += 1
            return self._first_was(book._first, link, recv_ns - book._first_ns)
        if folded == FOLD_LATE:
            counter.out_of_order += 1
            return 0
        if (live and book.is_stale()) or desyncs != book.desyncs:
            self._trust(book, live, desyncs)
        if folded != FOLD_APPLIED:
            return 0
        if self.measuring:
            self._lag(recv_ns, book._feeds[feed].message.time_ms)
        counter.fallback += envelope.reordered
        if book._gap_new_ms != NO_GAP:
            self._revived(book)
        if slot.on_book is not None and slot.book is book:
            self._call(slot.on_book, book, envelope.channel, slot)
        return 0

    cdef int _trades(self, Slot slot, Envelope* envelope, const char* buf, Py_ssize_t size,
                     int64_t recv_ns, int link) except -1:
        cdef Py_ssize_t fresh
        cdef int64_t first_tid
        cdef int64_t last_ms = slot.seen.time_ms
        cdef TradeMessage message
        cdef Py_ssize_t at = 0
        cdef DecodeStatus status
        cdef Counter* counter = &self._counters[<int>CH_TRADES]
        message.users = self._users
        message.stride = self._stride
        while True:
            message.rows = self._rows_data
            message.cap = self._rows_cap
            status = read_trades(buf, size, envelope, &message, &at)
            if status != DECODE_OK:
                counter.errors += 1
                return raise_decode(envelope, status, buf, size, at)
            if message.total <= message.cap:
                break
            self._make_rows(2 * message.total)
        counter.fallback += message.reordered
        slot.flow[TRADES][link] += 1
        self._links[link].messages += 1
        first_tid = (<TradeRow*>self._rows_data).tid
        fresh = sift(&slot.seen, self._rows_data, message.stride, message.total)
        if fresh < 0:
            raise MemoryError
        self.trades_seen_before += message.total - fresh
        if fresh:
            slot.first_tid = first_tid
            slot.first_ns = recv_ns
            slot.first_link = link
            if self.measuring:
                self._lag(recv_ns, (<TradeRow*>(self._rows_data + (fresh - 1) * message.stride)).time)
        else:
            counter.twins += 1
            if slot.first_tid == first_tid and slot.first_link != link:
                self._first_was(slot.first_link, link, recv_ns - slot.first_ns)
            if not slot.replaying >> link & 1:
                return 0
        view = self._views[fresh]
        if view is None:
            view = self._views[fresh] = self._rows[:fresh]
            view.flags.writeable = False
        if slot.replaying >> link & 1:
            return self._replay(slot, view, message.total - fresh, link, last_ms)
        self._call(slot.on_trades, view, CH_TRADES, slot)
        return 0

    cdef int _replay(self, Slot slot, rows, Py_ssize_t known, int link, int64_t last_ms) except -1:
        slot.replaying &= ~(1U << link)
        self._busy = True
        try:
            slot.on_replay(rows, known, link, last_ms)
        except BaseException:  # only noted here, and raised on
            self._failed = slot
            self._failed_channel = CH_TRADES
            raise
        finally:
            self._busy = False
        return 0

    cdef int _first_was(self, int first, int link, int64_t lead_ns) except -1:
        cdef Histogram lead = self._leads[first]
        if lead is None:
            lead = self._leads[first] = Histogram()
        self._links[first].first += 1
        self._links[link].twins += 1
        lead.add(lead_ns)
        return 0

    # How late a message is by the venue's time. The two clocks have nothing in common: what the quickest message of
    # the last one to two minutes took counts as nothing, so this is the delay above the least one.
    cdef int _lag(self, int64_t recv_ns, int64_t time_ms) except -1:
        cdef int64_t offset
        if not 0 <= time_ms < MAX_TIME_MS or not 0 <= recv_ns < MAX_TIME_MS * 1_000_000:
            return 0
        offset = recv_ns - time_ms * 1_000_000
        if recv_ns - self._window_ns > WINDOW_NS or self._window_ns == 0:
            self._offset_ns[1] = self._offset_ns[0] if self._window_ns else offset
            self._offset_ns[0] = offset
            self._window_ns = recv_ns
        elif offset < self._offset_ns[0]:
            self._offset_ns[0] = offset
        self.lag_ns.add(offset - min(self._offset_ns[0], self._offset_ns[1]))
        return 0

    cdef int _call(self, callback, argument, Channel channel, Slot slot) except -1:
        cdef PyObject* result
        if PyTuple_CheckExact(callback):
            return self._call_each(callback, argument, channel, slot)
        self._busy = True
        result = PyObject_CallOneArg(<PyObject*>callback, <PyObject*>argument)
        self._busy = False
        if result == NULL:
            self._failed = slot
            self._failed_channel = channel
            return -1  # the callback's exception is set
        Py_DECREF(<object>result)
        return 0

    cdef int _call_each(self, tuple callbacks, argument, Channel channel, Slot slot) except -1:
        for callback in callbacks:
            now = slot.on_trades if channel == CH_TRADES else slot.on_book
            # one before it may have changed who listens: whoever went is not called any more
            if now is not callbacks and now is not callback and not (type(now) is tuple and callback in now):
                continue
            self._call(callback, argument, channel, slot)
        return 0

    # Tell of a book that ceased to be live, and of one whose l2 feed was found wrong; neither of aggregated ones.
    cdef int _trust(self, Book book, bint live, int64_t desyncs) except -1:
        cdef int64_t found = book.desyncs - desyncs
        self.desyncs += found
        if live and book.is_stale() and self._on_stale is not None and not book.aggregated:
            self._on_stale(book.coin, book.stale_reason)
        if found and self._on_desync is not None:
            self._on_desync(book.coin, book._desync_reason)
        return 0

    cdef int _revived(self, Book book) except -1:
        if book._gap_new_ms != NO_GAP and self._on_live is not None and not book.aggregated:
            self._on_live(book.coin, book._gap_new_ms, book._gap_reason)
        return 0

    cdef int _raw(self, Envelope* envelope, const char* buf, Py_ssize_t size) except -1:
        name = envelope.name.p[:envelope.name.n].decode("utf-8", "replace")
        if name in self._other or len(self._other) < OTHER_NAMES:
            self._other[name] = self._other.get(name, 0) + 1
        if self._on_raw is not None:
            self._busy = True
            try:
                self._on_raw(name, buf[:size])
            finally:
                self._busy = False
        return 0

    cdef int _make_rows(self, Py_ssize_t cap) except -1:
        cdef cnp.ndarray rows = np.zeros(cap, TRADE_USERS_DTYPE if self._users else TRADE_DTYPE)
        self._rows = rows
        self._stride = rows.dtype.itemsize
        self._rows_data = <char*>cnp.PyArray_DATA(rows)
        self._rows_cap = cap
        self._views = [None] * (cap + 1)
        return 0

    cdef int burst_end(self) except -1:
        self._on_burst_end()
        return 0

    def on_burst_end(self) -> None:
        """To be called by a listener after the last message of a read, when `wants_burst_end`."""
        self.burst_end()

    # --- trust ---

    def mark_stale(self, reason: str, subscription: object = None, *, restart: bool = True) -> None:
        """`Book.mark_stale` on every book; by default as after a lost link: the next message begins each book anew.

        subscription: a mapping as the venue takes it: only that one is lost, on the last link that served it. The
        book that is meant to have that feed is stale until the feed speaks again, and begins anew when it was the
        last one it had; other subscriptions than of books, and those with nSigFigs, change nothing.
        """
        cdef Slot slot
        cdef int kind
        cdef bint live
        cdef int64_t desyncs
        if subscription is not None:
            kind, coin, aggregated = kind_of(subscription)
            slot = self._slots.get(coin)
            if slot is not None and slot.book is not None and 0 <= kind < TRADES and not aggregated:
                live = not slot.book.is_stale()
                slot.book.lose(reason, kind)
                self._trust(slot.book, live, slot.book.desyncs)
            return
        for slot in self._each_book():
            live = not slot.book.is_stale()
            desyncs = slot.book.desyncs
            slot.book.distrust(reason, restart)
            self._trust(slot.book, live, desyncs)

    # A slot for each book; a list of its own, because whoever is told of one may ask for more.
    cdef list _each_book(self):
        cdef Slot slot
        cdef Slot entry
        cdef dict found = {}
        for slot in self._slots.values():
            if slot.book is not None:
                found[id(slot.book)] = slot
            for entry in slot.coarse or ():
                if entry is not None:
                    found[id(entry.book)] = entry
        return list(found.values())

    def mark_silent(self, now_ns: int, slow_ns: int, fast_ns: int) -> int:
        """Mark stale each live book whose slow or fast feed has been silent for longer than that many ns.

        Only feeds that the book is meant to have count. Returns how many books are silent now.
        """
        cdef Slot slot
        cdef int64_t now = now_ns
        cdef int64_t slow = slow_ns
        cdef int64_t fast = fast_ns
        cdef int silent = 0
        cdef bint live
        for slot in self._each_book():
            live = not slot.book.is_stale()
            silent += slot.book.hush(now, slow, fast)
            self._trust(slot.book, live, slot.book.desyncs)
        return silent

    def flow(self, subscription: object, link: int) -> int:
        """Messages that this link brought so far for a subscription, late ones and twins among them.

        subscription: a mapping as the venue takes it: l2Book with or without "fast", l2, bbo or trades of a coin; with
        nSigFigs, the one that the link was said to carry.
        -1 for any other, and when nobody asked for that coin's book or trades: then nothing is counted.
        """
        cdef int at = link_of(link)
        cdef int kind
        cdef Slot slot
        kind, coin, aggregated = kind_of(subscription)
        slot = self._slots.get(coin)
        if slot is not None and aggregated:
            slot = None if slot.coarse is None else slot.coarse[at]
        if kind < 0 or slot is None or (slot.on_trades if kind == TRADES else slot.book) is None:
            return -1
        return slot.flow[kind][at]

    def measure(self) -> None:
        """From now on, record how late messages are in `lag_ns`, and how long they take in `callback_ns`.

        lag_ns: by the venue's time, above the quickest message of the last one to two minutes. callback_ns: from the
        receipt of a message until the last callback returned; the compiled listener records it, and `on_message`
        alone does not. Both are None until this is called: they cost about 50 ns a message.
        """
        if not self.measuring:
            self.lag_ns, self.callback_ns = Histogram(), Histogram()
            self.measuring = True

    @property
    def links(self) -> dict[int, dict[str, object]]:
        """What each link brought that did: a dict of messages, twins, first and lead_ns.

        twins: messages that another link had brought before. first: messages whose twin came after, over another link;
        lead_ns: a Histogram of how much later, None when there was none.
        """
        return {
            i: {**self._links[i], "lead_ns": self._leads[i]}
            for i in range(LINKS) if self._links[i].messages
        }

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """What was received, by channel ("l2Book", "bbo", "trades", "l2", "other"): messages, bytes, out_of_order,
        twins, fallback, unrouted and errors.

        out_of_order: older than the last of its feed, or an l2 update without its snapshot: changed nothing. twins:
        another link brought the same before, or the venue replayed it: changed nothing. fallback: not in today's
        spelling, read all the same. unrouted: of a coin, an aggregation or an l2 feed that nobody asked for.
        "other": control frames, unknown channels, unreadable.
        """
        return {CHANNEL_NAMES[i]: self._counters[i] for i in range(<int>CH_COUNT)}

    @property
    def other_channels(self) -> dict[str, int]:
        """Messages by name of the channels that are not decoded here (the first 64 names seen)."""
        return dict(self._other)
