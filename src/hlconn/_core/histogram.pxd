# histogram.pxd: one log-linear histogram in fixed memory.
#
# Imported by: feed, listener.  Imports: errors, numpy.
from libc.stdint cimport int64_t

cdef enum:
    STEP_BITS = 5                # 32 buckets for each doubling
    BUCKETS = 1888               # 32 exact ones for 0 to 31, then 58 doublings: all of int64

cdef class Histogram:
    cdef readonly int64_t count
    cdef int64_t _min
    cdef int64_t _max
    cdef double _sum
    cdef int64_t _buckets[BUCKETS]

    cdef void add(self, int64_t value) noexcept
