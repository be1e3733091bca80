# sign.pxd: one action and one key -> the bytes to send, signed.
#
# The key lives in `Signer._key` and nowhere else of ours; close() wipes it. libsecp256k1 makes the signature: RFC 6979
# nonces, low s. With `presign`, entries of a Pool come first (oneshot.pxd).
#
# Imported by: nobody compiled.  Imports: action, keccak, secp, oneshot, config, errors.
from libc.stdint cimport int64_t, uint8_t

from hlconn._core.oneshot cimport Pool
from hlconn._core.secp cimport Secp

cdef class Signed:
    cdef readonly bytes payload
    cdef readonly str action
    cdef readonly int64_t nonce
    cdef readonly str vault
    cdef readonly object expires_after
    cdef readonly object network
    cdef readonly int v
    cdef uint8_t _rs[64]

cdef class Signer:
    cdef readonly str address
    cdef readonly object network
    cdef readonly str vault
    cdef Secp* _lib
    cdef uint8_t _key[32]
    cdef bint _open
    cdef uint8_t _vault[20]
    cdef Pool _pool          # None: no one-time nonces

    cdef int _take_key(self, object key) except -1
    cdef int _sign(self, const uint8_t* digest, uint8_t* rs) except -1
