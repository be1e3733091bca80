/* Eight bytes at a time: the leaves of cursor.pxd that Cython cannot spell. No reads past what the caller granted.
 *
 * Kept in C because overflow checking (HLCONN_CHECKED) must not apply to arithmetic that wraps on purpose.
 */
#ifndef HLCONN_SWAR_H
#define HLCONN_SWAR_H

#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER)
#include <intrin.h>
static __inline int hl_ctz64(uint64_t x) { unsigned long i; _BitScanForward64(&i, x); return (int)i; }
#else
static inline int hl_ctz64(uint64_t x) { return __builtin_ctzll(x); }
#endif

/* First byte of the text in the lowest bits, whatever the machine. */
static inline uint64_t hl_load8(const char *p) {
    uint64_t x;
    memcpy(&x, p, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    x = __builtin_bswap64(x);
#endif
    return x;
}

/* A number below 2^bits from eight bytes, by the upper half of a product that wraps. */
static inline int hl_hash8(uint64_t x, int bits) { return (int)((x * 0x9E3779B97F4A7C15ULL) >> (64 - bits)); }

/* Functions marked HL_AVX2 may use it whatever the build is tuned for; ask hl_cpu_has_avx2() before calling one. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#define HL_HAVE_AVX2 1
#define HL_AVX2 __attribute__((target("avx2,bmi,bmi2")))
static inline int hl_cpu_has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
#else
#define HL_HAVE_AVX2 0
#endif

#define HL_BYTES(c) (0x0101010101010101ULL * (uint64_t)(c))

/* x: eight bytes xor '0'. The high bit of each byte that is not a digit; exact up to and including the lowest one set. */
static inline uint64_t hl_not_digit(uint64_t x) { return ((x + HL_BYTES(0x76)) | x) & HL_BYTES(0x80); }

/* Value of eight bytes 0..9, first byte most significant. */
static inline uint64_t hl_eight(uint64_t x) {
    x = x * 10 + (x >> 8);
    return (((x & 0x000000FF000000FFULL) * 0x000F424000000064ULL) +
            (((x >> 16) & 0x000000FF000000FFULL) * 0x0000271000000001ULL)) >> 32;
}

static const double hl_pow10[23] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static const uint64_t hl_pow10_int[9] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

/* Up to 7 digits, optionally '.' and up to 7 more, then '"'. Reads 17 bytes at most. Returns the byte after the quote,
 * or NULL for every other spelling, which says nothing about its validity.
 * Exact: both the digits (< 10^14) and the power of ten are doubles, so one division rounds correctly. */
static inline const char *hl_decimal_fast(const char *p, double *out) {
    uint64_t x = hl_load8(p) ^ HL_BYTES('0');
    uint64_t stop = hl_not_digit(x);
    uint64_t whole, part;
    int i, j;
    if (!stop) return NULL;
    i = hl_ctz64(stop) >> 3;
    if (!i) return NULL;
    whole = hl_eight(x << (64 - 8 * i));
    if (p[i] == '"') {
        *out = (double)whole;
        return p + i + 1;
    }
    if (p[i] != '.') return NULL;
    p += i + 1;
    x = hl_load8(p) ^ HL_BYTES('0');
    stop = hl_not_digit(x);
    if (!stop) return NULL;
    j = hl_ctz64(stop) >> 3;
    if (!j || p[j] != '"') return NULL;
    part = hl_eight(x << (64 - 8 * j));
    *out = (double)(int64_t)(whole * hl_pow10_int[j] + part) / hl_pow10[j];
    return p + j + 1;
}

/* 1 to 18 digits. Reads 24 bytes. Returns the byte after them, or NULL (none, or more). */
static inline const char *hl_digits_fast(const char *p, int64_t *out) {
    uint64_t value = 0;
    int round, i;
    for (round = 0; round < 3; round++) {
        uint64_t x = hl_load8(p) ^ HL_BYTES('0');
        uint64_t stop = hl_not_digit(x);
        if (stop) {
            i = hl_ctz64(stop) >> 3;
            if (i + 8 * round > 18 || i + 8 * round == 0) return NULL;
            if (i) value = value * hl_pow10_int[i] + hl_eight(x << (64 - 8 * i));
            *out = (int64_t)value;
            return p + i;
        }
        value = value * 100000000ULL + hl_eight(x);
        p += 8;
    }
    return NULL;
}

/* First byte in [p, end) that ends or escapes a JSON string, or may not stand in one: '"', '\\', below 0x20; else end. */
static inline const char *hl_string_stop(const char *p, const char *end) {
    while (end - p >= 8) {
        uint64_t x = hl_load8(p);
        uint64_t q = x ^ HL_BYTES('"');
        uint64_t b = x ^ HL_BYTES('\\');
        uint64_t hit = (((q - HL_BYTES(1)) & ~q) | ((b - HL_BYTES(1)) & ~b) | ((x - HL_BYTES(0x20)) & ~x)) & HL_BYTES(0x80);
        if (hit) return p + (hl_ctz64(hit) >> 3);
        p += 8;
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20) p++;
    return p;
}

#endif
