"""One log-linear histogram in fixed memory: what every duration of hlconn is recorded in."""
cimport numpy as cnp
from libc.math cimport NAN, ceil
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

import numpy as np

from hlconn.errors import ConfigError

cnp.import_array()

cdef extern from *:
    """
    #if defined(_MSC_VER) && !defined(__clang__)
    #include <intrin.h>
    static int hl_top_bit(unsigned long long x) { unsigned long at; _BitScanReverse64(&at, x); return (int)at; }
    #else
    static int hl_top_bit(unsigned long long x) { return 63 - __builtin_clzll(x); }
    #endif
    """
    int hl_top_bit(unsigned long long x) nogil  # x is not 0

cdef enum:
    STEPS = 32           # 1 << STEP_BITS, which Cython cannot say in a build with overflow checks


# Below STEPS each value has a bucket of its own; above, each doubling has STEPS buckets of equal width.
cdef inline Py_ssize_t bucket_of(int64_t value) noexcept nogil:
    cdef int shift
    if value < STEPS:
        return <Py_ssize_t>value
    shift = hl_top_bit(<unsigned long long>value) - STEP_BITS
    return <Py_ssize_t>((shift << STEP_BITS) + (value >> shift))


cdef inline int64_t lowest_of(Py_ssize_t bucket) noexcept nogil:
    cdef int shift
    if bucket < 2 * STEPS:
        return bucket
    shift = <int>(bucket >> STEP_BITS) - 1
    return (<int64_t>STEPS + (bucket & (STEPS - 1))) << shift


cdef class Histogram:
    """Counts values of 0 to 2**63 - 1, by custom ns, in 1,888 buckets of 15 kB that are never allocated again.

    count, min, max and mean are exact (mean in double precision). A percentile is the middle of its bucket, which is
    1/32 of its lowest value wide at most: within 1.6 % of a value that was recorded; exact below 32. A value below
    zero, as the difference of two clocks can be, counts as 0.
    """

    def __cinit__(self):
        self.reset()

    cdef void add(self, int64_t value) noexcept:
        if value < 0:
            value = 0
        self._buckets[bucket_of(value)] += 1
        self.count += 1
        self._sum += <double>value
        if value < self._min:
            self._min = value
        if value > self._max:
            self._max = value

    def record(self, ns: int) -> None:
        """Count one value; what is behind the point of a float is cut off. OverflowError beyond 64 bits."""
        self.add(ns)

    def reset(self) -> None:
        """Forget everything."""
        memset(self._buckets, 0, sizeof(self._buckets))
        self.count = 0
        self._sum = 0
        self._min = 0x7FFFFFFFFFFFFFFFLL
        self._max = -1

    def merge(self, other: Histogram) -> None:
        """Add everything that the other one counted."""
        cdef Py_ssize_t i
        for i in range(BUCKETS):
            self._buckets[i] += other._buckets[i]
        self.count += other.count
        self._sum += other._sum
        self._min = min(self._min, other._min)
        self._max = max(self._max, other._max)

    def copy(self) -> Histogram:
        """The same counts, in memory of its own."""
        twin = Histogram()
        twin.merge(self)
        return twin

    @property
    def min(self) -> float:
        """The least value; nan when nothing was counted."""
        return <double>self._min if self.count else NAN

    @property
    def max(self) -> float:
        """The greatest value; nan when nothing was counted."""
        return <double>self._max if self.count else NAN

    @property
    def mean(self) -> float:
        """The average; nan when nothing was counted."""
        return self._sum / <double>self.count if self.count else NAN

    def percentile(self, p: float) -> float:
        """The value that p % of all values do not exceed (nearest rank): see the class for how exact.

        nan when nothing was counted. ConfigError unless 0 <= p <= 100.
        """
        cdef double share = p
        cdef int64_t rank
        cdef int64_t below = 0
        cdef Py_ssize_t i = 0
        cdef double low
        if not 0 <= share <= 100:
            raise ConfigError(f"a percentile is 0 to 100, not {p!r}")
        if not self.count:
            return NAN
        rank = max(<int64_t>1, <int64_t>ceil(share / 100 * <double>self.count))
        if rank >= self.count:
            return <double>self._max
        below = self._buckets[0]
        while below < rank:  # all of them together are `count`, which is not below it
            i += 1
            below += self._buckets[i]
        low = <double>lowest_of(i)
        if i >= 2 * STEPS:
            low += <double>(<int64_t>1 << (<int>(i >> STEP_BITS) - 1)) / 2
        return min(max(low, <double>self._min), <double>self._max)

    def snapshot(self) -> np.ndarray:
        """The counts by bucket: a new int64 array (1888,). What each stands for: `lowest()`."""
        cdef cnp.ndarray counts = np.empty(BUCKETS, np.int64)
        memcpy(cnp.PyArray_DATA(counts), self._buckets, sizeof(self._buckets))
        return counts

    @staticmethod
    def lowest() -> np.ndarray:
        """The least value that each bucket counts: a new int64 array (1888,)."""
        return np.array([lowest_of(i) for i in range(BUCKETS)], np.int64)

    def summary(self) -> dict[str, float]:
        """count, min, mean, p50, p90, p99, p99.9 and max."""
        names = {f"p{p:g}": self.percentile(p) for p in (50, 90, 99, 99.9)}
        return {"count": self.count, "min": self.min, "mean": self.mean, **names, "max": self.max}

    def __repr__(self) -> str:
        if not self.count:
            return "<Histogram, empty>"
        p50, p99 = self.percentile(50), self.percentile(99)
        return f"<Histogram of {self.count:,}: p50 {p50:,.0f}, p99 {p99:,.0f}, max {self._max:,}>"
