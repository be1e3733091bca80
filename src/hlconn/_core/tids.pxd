# tids.pxd: which trades of a coin were seen, by tid: always at least the last TIDS_KEPT, and the last message's.
#
# Two open-addressing tables. New tids go into `now`; when it is half full it becomes `before`, and what was `before`
# is forgotten. So nothing is ever taken out one by one. 0 marks a free place, and has a flag of its own.
#
# Imported by: feed.  Imports: libc.
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef extern from *:
    """
    /* In C, where the product may wrap in a build with overflow checks too. */
    static inline unsigned long long hl_tid_hash(long long tid) {
        return ((unsigned long long)tid * 0x9E3779B97F4A7C15ULL) >> 32;
    }
    """
    uint64_t hl_tid_hash(int64_t tid) nogil

cdef enum:
    TIDS_KEPT = 1024

cdef struct Tids:
    int64_t* now
    int64_t* before
    Py_ssize_t size      # places in each table, a power of two
    Py_ssize_t used      # tids in `now`
    int64_t time_ms      # of the newest trade of the messages before
    int64_t floor_ms     # nothing older is new any more; 0: nothing was declared lost
    bint zero_now
    bint zero_before


cdef inline void tids_free(Tids* t) noexcept nogil:
    free(t.now)
    free(t.before)
    memset(t, 0, sizeof(Tids))


cdef inline Py_ssize_t tids_place(const int64_t* table, Py_ssize_t size, int64_t tid) noexcept nogil:
    cdef uint64_t mask = <uint64_t>size - 1
    cdef uint64_t at = hl_tid_hash(tid) & mask
    while table[at] != 0 and table[at] != tid:
        at = at + 1 & mask
    return <Py_ssize_t>at


cdef inline bint tids_has(const Tids* t, int64_t tid) noexcept nogil:
    if t.now == NULL:
        return False
    if tid == 0:
        return t.zero_now or t.zero_before
    return (t.now[tids_place(t.now, t.size, tid)] != 0
            or t.before[tids_place(t.before, t.size, tid)] != 0)


cdef inline bint tids_fit(const Tids* t, Py_ssize_t count) noexcept nogil:
    return t.size != 0 and t.used + count <= t.size // 2


# Room for so many new trades, all of which are then remembered together. False: no memory.
cdef inline bint tids_reserve(Tids* t, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t size = t.size if t.size else 2 * TIDS_KEPT
    cdef int64_t* now
    cdef int64_t* before
    cdef Py_ssize_t i
    if tids_fit(t, count):
        return True
    while count > size // 2:
        size *= 2
    if size == t.size:
        now = t.before
        t.before = t.now
        t.now = now
        memset(now, 0, <size_t>size * sizeof(int64_t))
        t.zero_before = t.zero_now
    else:
        size = size if not t.size else 2 * size  # so that all that is known has room in `before`
        now = <int64_t*>calloc(<size_t>size, sizeof(int64_t))
        before = <int64_t*>calloc(<size_t>size, sizeof(int64_t))
        if now == NULL or before == NULL:
            free(now)
            free(before)
            return False
        for i in range(t.size):
            if t.now[i] != 0:
                before[tids_place(before, size, t.now[i])] = t.now[i]
            if t.before[i] != 0:
                before[tids_place(before, size, t.before[i])] = t.before[i]
        free(t.now)
        free(t.before)
        t.now = now
        t.before = before
        t.size = size
        t.zero_before = t.zero_now or t.zero_before
    t.zero_now = False
    t.used = 0
    return True


# Whether the tid is new; then it is remembered. There must be room. time_ms: the venue's, of that trade: what is newer
# than every message before needs no look into the older table.
cdef inline bint tids_add(Tids* t, int64_t tid, int64_t time_ms) noexcept nogil:
    cdef Py_ssize_t at
    if tid == 0:
        if t.zero_now or t.zero_before:
            return False
        t.zero_now = True
        return True
    at = tids_place(t.now, t.size, tid)
    if t.now[at] != 0 or time_ms <= t.time_ms and t.before[tids_place(t.before, t.size, tid)] != 0:
        return False
    t.now[at] = tid
    t.used += 1
    return True
