# oneshot.pxd: nonces made before there is a message. ECDSA's R = kG does not depend on what is signed:
#
#     r = x(kG),  s = k^-1 (z + r d) mod n        (d: the key, z: the digest)
#
# so r, k^-1 and r d can lie ready. Whoever gets k^-1 or r d of one signature, or two signatures of one k, has the key.
# Hence the rules of this file:
#
# - An entry is in the pool or in one caller's hand, never in both: take() copies it out, zeroes its slot and counts it
#   off in one C function that can neither fail nor run Python. The interpreter lock is held throughout, and CPython
#   runs signal handlers, other threads and os.fork() only between such functions. An entry never goes back.
# - The hand is the stack of sign(), zeroed on every way out.
# - Entries and their number lie in pages that the kernel gives to a forked child as zeroes: an empty pool, whichever
#   way it was forked. Where pages cannot be marked so, the process's number is compared at each use.
# - No Python object ever holds k, k^-1, r d or the randomness they come from.
#
# Imported by: sign.  Imports: secp, errors.
from libc.stdint cimport int64_t, uint8_t, uint64_t

from hlconn._core.secp cimport Secp

cdef struct Entry:
    uint8_t r[32]
    uint8_t k_inverse[32]
    uint8_t r_d[32]
    uint8_t recovery         # of the s that is made before it is made low: parity of R's y

cdef struct Head:            # the beginning of the pages; the entries follow
    uint64_t marker          # 0: fresh pages, or those of a child; else told apart from any other fill by its number
    uint64_t left            # entries[0 .. left) are ready
    uint8_t k[32]            # of the entry being made, else zero

cdef class Pool:
    cdef Secp* _lib
    cdef Head* _head         # NULL once closed
    cdef Entry* _entries
    cdef size_t _bytes
    cdef Py_ssize_t _size
    cdef int64_t _process    # that filled it
    cdef int _guards
    cdef Py_ssize_t misses   # signatures asked for that it could not make

    cdef Py_ssize_t left(self) noexcept nogil
    # Makes entries for this key until the pool is full or `limit` were made; returns how many. ConfigError.
    cdef Py_ssize_t refill(self, const uint8_t* key, Py_ssize_t limit) except -1
    # r and s, and returns the recovery bit; -1: sign by RFC 6979 instead. Raises nothing but what a test injects.
    cdef int sign(self, const uint8_t* digest, uint8_t* rs) except -2
    cdef tuple guards(self)
    cdef void close(self) noexcept nogil

    cdef void _settle(self) noexcept nogil
    cdef bint _same_process(self) noexcept nogil
    cdef uint64_t _take(self, Entry* out) noexcept nogil

cdef Pool new_pool(Secp* lib, Py_ssize_t size)
