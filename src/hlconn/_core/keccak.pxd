# keccak.pxd: Keccak-256, the hash of Ethereum. Borrows its input; allocates nothing.
#
# Imported by: action, sign.  Imports: keccak.h.
from libc.stdint cimport uint8_t

cdef extern from "keccak.h" nogil:
    void hl_keccak256(const uint8_t* data, size_t size, uint8_t* out)
