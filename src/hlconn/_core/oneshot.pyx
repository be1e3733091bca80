"""One-time nonces, made ahead of the message. The rules that keep the key safe stand in oneshot.pxd."""
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy

from hlconn._core.secp cimport PublicKey, Secp

from hlconn.errors import ConfigError

cdef extern from "wipe.h" nogil:
    void hl_wipe(void* memory, size_t size)
    void hl_wipe_stack()

cdef extern from "oneshot.h" nogil:
    enum:
        HL_WIPED_ON_FORK
        HL_NOT_DUMPED
        HL_LOCKED
    void* hl_pages_map(size_t size, int* guards)
    int hl_pages_lock(void* pages, size_t size)
    void hl_pages_unmap(void* pages, size_t size)
    int hl_random(void* out, size_t size)
    int64_t hl_process()
    int64_t hl_wall_ns()

cdef enum:
    UNCOMPRESSED = 2

cdef struct Hedge:           # the "additional data" of RFC 6979, 3.6: never twice the same, whatever the randomness is
    uint64_t serial
    int64_t process
    int64_t wall_ns
    uint64_t unused

# Source: SEC 2, 2.4.1: the order of secp256k1's group; and half of it, rounded down.
cdef const char* ORDER = (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"
                          b"\xba\xae\xdc\xe6\xaf\x48\xa0\x3b\xbf\xd2\x5e\x8c\xd0\x36\x41\x41")
cdef const char* HALF = (b"\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
                         b"\x5d\x57\x6e\x73\x57\xa4\x50\x1d\xdf\xe9\x2f\x46\x68\x1b\x20\xa0")
cdef const char* TAG = b"hlconn one-time "   # 16 bytes, the "algorithm": apart from any other use of the key

cdef uint64_t serial = 0     # of the entries that this process, or the ones it was forked from, made
cdef uint64_t fills = 0      # the last marker given out
cdef object injected = None
cdef bint by_process = False


# --- arithmetic modulo the group's order: libsecp256k1's, in constant time -----------------------------------------

# k^-1 = k^(n - 2). The exponent is public.
cdef bint invert(Secp* lib, const uint8_t* k, uint8_t* out) noexcept nogil:
    cdef uint8_t square[32]
    cdef bint good = True
    cdef int i
    cdef int byte
    memcpy(out, k, 32)  # the exponent's highest bit, which is one
    for i in range(1, 256):
        memcpy(square, out, 32)
        good &= lib.seckey_tweak_mul(lib.context, out, square)
        byte = <uint8_t>ORDER[i >> 3] - (2 if i >> 3 == 31 else 0)
        if byte >> (7 - (i & 7)) & 1:
            good &= lib.seckey_tweak_mul(lib.context, out, k)
    hl_wipe(square, sizeof(square))
    return good


# k from the key, the system's randomness and the hedge: good as long as either the randomness is, or the key is secret
# and no hedge comes twice. False: no randomness, or (never seen) k or r out of range. Then nothing is left of it.
# `k` and `out` lie in the pool's pages, so that a child that is forked in the middle of this goes on with zeroes, which
# libsecp256k1 refuses.
cdef bint make(Secp* lib, const uint8_t* key, uint8_t* k, Entry* out) noexcept nogil:
    global serial
    cdef uint8_t fresh[32]
    cdef uint8_t point[65]
    cdef size_t size = sizeof(point)
    cdef PublicKey public
    cdef Hedge hedge
    cdef bint good
    serial += 1
    hedge.serial = serial
    hedge.process = hl_process()
    hedge.wall_ns = hl_wall_ns()
    hedge.unused = 0
    good = (hl_random(fresh, sizeof(fresh)) == 0
            and lib.nonce_rfc6979(k, fresh, key, <const uint8_t*>TAG, &hedge, 0)
            and lib.pubkey_create(lib.context, &public, k)
            and lib.pubkey_serialize(lib.context, point, &size, &public, UNCOMPRESSED)
            and memcmp(point + 1, ORDER, 32) < 0)
    if good:
        memcpy(out.r, point + 1, 32)
        out.recovery = point[64] & 1
        memcpy(out.r_d, key, 32)
        good = lib.seckey_tweak_mul(lib.context, out.r_d, out.r) and invert(lib, k, out.k_inverse)
    hl_wipe(k, 32)
    hl_wipe(fresh, sizeof(fresh))
    if not good:
        hl_wipe(out, sizeof(out[0]))
    return good


# s = k^-1 (z + r d), the lower of s and n - s, and its recovery bit; -1: the sum is zero.
cdef int finish(Secp* lib, const Entry* entry, const uint8_t* digest, uint8_t* rs) noexcept nogil:
    cdef uint8_t z[32]
    cdef uint8_t s[32]
    cdef int recovery = -1
    cdef int borrow = 0
    cdef int i
    memcpy(z, digest, 32)
    if memcmp(z, ORDER, 32) >= 0:  # less than twice the order, so that one subtraction is enough
        for i in range(31, -1, -1):
            borrow = <int>z[i] - <uint8_t>ORDER[i] - borrow
            z[i] = <uint8_t>(borrow & 0xFF)
            borrow = borrow < 0
    memcpy(s, entry.r_d, 32)
    if lib.seckey_tweak_add(lib.context, s, z) and lib.seckey_tweak_mul(lib.context, s, entry.k_inverse):
        recovery = entry.recovery
        if memcmp(s, HALF, 32) > 0:
            lib.seckey_negate(lib.context, s)
            recovery ^= 1
        memcpy(rs, entry.r, 32)
        memcpy(rs + 32, s, 32)
    hl_wipe(s, sizeof(s))
    return recovery


# --- the pool ---------------------------------------------------------------------------------------------------

cdef class Pool:
    """One-time nonces of one signer, and the memory they lie in. Used through `Signer(..., presign=N)` only."""

    def __dealloc__(self):
        self.close()

    cdef bint _same_process(self) noexcept nogil:
        return self._guards & HL_WIPED_ON_FORK or self._process == hl_process()

    # Before each use: what a fork since the last one left is an empty pool of this process.
    cdef void _settle(self) noexcept nogil:
        global fills
        if not self._same_process():
            hl_wipe(self._head, self._bytes)
        if self._head.marker == 0:
            fills += 1
            self._head.marker = fills
            self._process = hl_process()
            self._guards = self._guards & ~HL_LOCKED | hl_pages_lock(self._head, self._bytes)

    cdef Py_ssize_t left(self) noexcept nogil:
        if self._head == NULL:
            return 0
        self._settle()
        return <Py_ssize_t>self._head.left

    cdef Py_ssize_t refill(self, const uint8_t* key, Py_ssize_t limit) except -1:
        cdef Py_ssize_t made = 0
        cdef bint good
        while self.left() < self._size and made < limit:
            good = make(self._lib, key, self._head.k, &self._entries[self._head.left])
            hl_wipe_stack()
            if not good:
                raise ConfigError("no one-time nonce can be made: the system gives no randomness")
            self._head.left += 1
            made += 1
        return made

    # The last entry into `out`, and no more in the pool. Returns the fill's marker; 0: there is none.
    cdef uint64_t _take(self, Entry* out) noexcept nogil:
        cdef Entry* slot
        if self.left() == 0:
            return 0
        self._head.left -= 1
        slot = &self._entries[self._head.left]
        out[0] = slot[0]
        hl_wipe(slot, sizeof(slot[0]))
        return self._head.marker

    cdef int sign(self, const uint8_t* digest, uint8_t* rs) except -2:
        global injected
        cdef Entry entry
        cdef int recovery = -1
        cdef uint64_t marker
        if self._head == NULL:
            return -1
        marker = self._take(&entry)
        try:
            if marker:
                fault, injected = injected, None
                if fault is None or not fault():
                    recovery = finish(self._lib, &entry, digest, rs)
                # Closed, or forked meanwhile (from C: Python cannot run here): both sides have this digest, so that
                # the key was safe; but one r, one signature.
                if self._head == NULL or not self._same_process() or self._head.marker != marker:
                    recovery = -1
        finally:
            hl_wipe(&entry, sizeof(entry))
            hl_wipe_stack()
        self.misses += recovery < 0
        return recovery

    cdef tuple guards(self):
        self.left()
        names = ((HL_WIPED_ON_FORK, "wiped on fork"), (HL_NOT_DUMPED, "not dumped"), (HL_LOCKED, "locked"))
        return tuple([name for guard, name in names if self._head != NULL and self._guards & guard])

    cdef void close(self) noexcept nogil:
        if self._head != NULL:
            hl_wipe(self._head, self._bytes)
            hl_pages_unmap(self._head, self._bytes)
            self._head = NULL


cdef Pool new_pool(Secp* lib, Py_ssize_t size):
    cdef Pool pool = Pool.__new__(Pool)
    pool._lib = lib
    pool._size = size
    pool._guards = HL_NOT_DUMPED if by_process else HL_NOT_DUMPED | HL_WIPED_ON_FORK
    pool._bytes = sizeof(Head) + <size_t>size * sizeof(Entry)
    pool._head = <Head*>hl_pages_map(pool._bytes, &pool._guards)
    if pool._head == NULL:
        raise MemoryError
    pool._entries = <Entry*>(pool._head + 1)
    pool._process = hl_process()
    return pool


# --- for tests --------------------------------------------------------------------------------------------------
# Compiled always, so that what is tested is what is used: no fault comes from outside between taking and finishing,
# and no child inherits pages on this system. Reached by no public name; each costs a comparison.

def _inject(fault: object) -> None:
    """Call `fault` once, when the next entry was taken and not yet used; a true answer refuses its arithmetic."""
    global injected
    injected = fault


def _guard_by_process(on: bool) -> None:
    """Have pools made from now on do without pages that are wiped on fork, as on other systems than Linux."""
    global by_process
    by_process = on
