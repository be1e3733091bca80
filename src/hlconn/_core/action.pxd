# action.pxd: typed actions -> the bytes that are hashed (msgpack) and those that are sent (JSON), each written once.
#
# A number goes in as int, str, Decimal or float and comes out as the venue's text: no exponent, no trailing zeros, no
# "-0". Source of the forms: the venue's docs, Exchange endpoint and Signing; the official Python SDK for key order.
#
# Imported by: sign.  Imports: errors, types.
from libc.stdint cimport uint8_t, uint64_t

cdef struct Number:      # digits * 10^-scale, with no zero at the end of the fraction
    uint64_t digits
    int scale            # decimals; negative: zeros before the dot
    int significant      # digits in `digits`

cdef struct Writer:      # both forms at once; memory of its own beyond the first kilobytes
    char* m
    Py_ssize_t m_used
    Py_ssize_t m_room
    char* j
    Py_ssize_t j_used
    Py_ssize_t j_room
    char m_first[2048]
    char j_first[2048]

cdef class Action:
    cdef readonly str type
    cdef readonly bytes msgpack
    cdef readonly bytes json
    cdef readonly Py_ssize_t items   # orders, cancels or modifies in it; 1 for any other
    cdef readonly bint takes_vault

# repr, at most 80 characters and never raising: for messages
cdef str shown(object value)
