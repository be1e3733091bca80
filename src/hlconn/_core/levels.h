/* Runs of levels in today's spelling, {"px":"1.0","sz":"1.0","n":1},...: where nearly all of a book message's time goes.
 *
 * Two readers of the same language. The portable one walks from number to number. The one for x86 with AVX2 (chosen
 * when the module is imported) takes 64 bytes at once: where the next level begins then depends on nothing but the
 * place of this one's '}', so that the processor works on several levels at a time.
 */
#ifndef HLCONN_LEVELS_H
#define HLCONN_LEVELS_H

#include <math.h>
#include <stddef.h>
#include "swar.h"

#define HL_LEVEL_ROOM 80 /* bytes that reading one level may touch: 7 + 16 + 7 + 16 + 5 + 24, rounded up */

/* One level, or NULL for any other spelling, which says nothing about its validity. */
static inline const char *hl_level(const char *p, double *px, double *sz, int64_t *n) {
    if (memcmp(p, "{\"px\":\"", 7)) return NULL;
    p = hl_decimal_fast(p + 7, px);
    if (!p || memcmp(p, ",\"sz\":\"", 7)) return NULL;
    p = hl_decimal_fast(p + 7, sz);
    if (!p || memcmp(p, ",\"n\":", 5) || (p[5] == '0' && p[6] != '}')) return NULL;
    p = hl_digits_fast(p + 5, n);
    return p && *p == '}' ? p + 1 : NULL;
}

/* The loop around either: up to `cap` levels, strictly best first, prices above zero, while HL_LEVEL_ROOM bytes are
 * left. Returns the byte after the last level taken; what it cannot take is the caller's to read and to judge. */
#define HL_LEVELS_BODY(read_one)                                                                              \
    /* the bits of doubles above zero are in their order, read as integers; for bids, complemented */          \
    int64_t flip = row ? 0 : -1, last = row ? 0 : INT64_MIN, bits;                                             \
    ptrdiff_t k = 0;                                                                                           \
    const char *next = p;                                                                                      \
    while (k < cap && end - next >= HL_LEVEL_ROOM) {                                                           \
        double price;                                                                                          \
        next = read_one(next, &price, sz + k, n + k);                                                          \
        if (!next) break;                                                                                      \
        memcpy(&bits, &price, 8);                                                                              \
        if (!bits || (bits ^ flip) <= last) break;                                                             \
        last = bits ^ flip;                                                                                    \
        px[k++] = price;                                                                                       \
        p = next;                                                                                              \
        if (*next++ != ',') break;                                                                             \
    }                                                                                                          \
    *count = k;                                                                                                \
    return p;

static const char *hl_levels_portable(const char *p, const char *end, int row, ptrdiff_t cap, double *px, double *sz,
                                      int64_t *n, ptrdiff_t *count) {
    HL_LEVELS_BODY(hl_level)
}

static const char *(*hl_levels)(const char *, const char *, int, ptrdiff_t, double *, double *, int64_t *,
                                ptrdiff_t *) = hl_levels_portable;

#if HL_HAVE_AVX2

/* [digits before the dot - 1][digits after it]: where the bytes of "12.345" go so that its digits stand right-aligned
 * in the lower half of a register; all other bytes become 0. */
static uint8_t hl_align[8][8][16];

HL_AVX2 static inline const char *hl_level_avx2(const char *p, double *px, double *sz, int64_t *n) {
    const __m256i zero = _mm256_set1_epi8('0'), shift = _mm256_set1_epi8(-128), nine = _mm256_set1_epi8(-128 + 9);
    const __m256i close = _mm256_set1_epi8('}');
    __m256i x = _mm256_loadu_si256((const __m256i *)p), y = _mm256_loadu_si256((const __m256i *)(p + 32));
    uint64_t ends = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, close)) |
                    (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(y, close)) << 32;
    uint64_t stop, rest; /* a bit for each byte that is no digit */
    __m128i digits, low, high;
    __m128d value;
    uint64_t a, b, c, d, e, whole_px, part_px, whole_sz, part_sz, size_n;
    x = _mm256_cmpgt_epi8(_mm256_add_epi8(_mm256_sub_epi8(x, zero), shift), nine);
    y = _mm256_cmpgt_epi8(_mm256_add_epi8(_mm256_sub_epi8(y, zero), shift), nine);
    stop = (uint32_t)_mm256_movemask_epi8(x) | (uint64_t)(uint32_t)_mm256_movemask_epi8(y) << 32;
    e = _tzcnt_u64(ends); /* tzcnt of nothing is 64, and shifts count modulo 64: nothing here is undefined */
    rest = stop & (~0ULL << 7);
    a = _tzcnt_u64(rest); /* the dot of px */
    b = _tzcnt_u64(_blsr_u64(rest)); /* its closing quote */
    if (b > 16) return NULL;
    rest = stop & (~0ULL << (b + 8));
    c = _tzcnt_u64(rest); /* the dot of sz */
    d = _tzcnt_u64(_blsr_u64(rest)); /* its closing quote */
    if (d - b > 17) return NULL;
    whole_px = a - 7;
    part_px = b - a - 1;
    whole_sz = c - b - 8;
    part_sz = d - c - 1;
    size_n = e - d - 6;
    if (memcmp(p, "{\"px", 4) || memcmp(p + 3, "x\":\"", 4) || p[a] != '.' || memcmp(p + b, "\",\"sz\":\"", 8) ||
        p[c] != '.' || memcmp(p + d, "\",\"n", 4) || memcmp(p + d + 4, "\":", 2))
        return NULL;
    if (((whole_px - 1) | (part_px - 1) | (whole_sz - 1) | (part_sz - 1) | (size_n - 1)) > 7) return NULL;
    low = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)(p + 7)), _mm256_castsi256_si128(zero));
    high = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)(p + b + 8)), _mm256_castsi256_si128(zero));
    low = _mm_shuffle_epi8(low, _mm_load_si128((const __m128i *)hl_align[whole_px - 1][part_px]));
    high = _mm_shuffle_epi8(high, _mm_load_si128((const __m128i *)hl_align[whole_sz - 1][part_sz]));
    digits = _mm_maddubs_epi16(_mm_unpacklo_epi64(low, high), _mm_set1_epi16(10 | 1 << 8));
    digits = _mm_madd_epi16(digits, _mm_set1_epi32(100 | 1 << 16));
    digits = _mm_packus_epi32(digits, digits);
    digits = _mm_madd_epi16(digits, _mm_set1_epi32(10000 | 1 << 16));
    value = _mm_div_pd(_mm_cvtepi32_pd(digits), _mm_loadh_pd(_mm_load_sd(&hl_pow10[part_px]), &hl_pow10[part_sz]));
    _mm_storel_pd(px, value);
    _mm_storeh_pd(sz, value);
    if (_tzcnt_u64(stop & (~0ULL << (d + 6))) != e) return NULL;
    if ((size_n > 1) & (p[d + 6] == '0')) return NULL;
    *n = p[e - 1] - '0' + ((p[e - 2] - '0') & -(int)(size_n > 1)) * 10;
    if (size_n > 2) *n = (int64_t)hl_eight((hl_load8(p + d + 6) ^ HL_BYTES('0')) << (64 - 8 * size_n));
    return p + e + 1;
}

HL_AVX2 static const char *hl_levels_avx2(const char *p, const char *end, int row, ptrdiff_t cap, double *px,
                                          double *sz, int64_t *n, ptrdiff_t *count) {
    HL_LEVELS_BODY(hl_level_avx2)
}
#endif

/* Chooses the reader; once, at import. */
static void hl_levels_init(void) {
#if HL_HAVE_AVX2
    int whole, part, i;
    memset(hl_align, 0x80, sizeof(hl_align));
    for (whole = 1; whole <= 8; whole++)
        for (part = 0; part + whole <= 8; part++)
            for (i = 0; i < whole + part; i++) {
                uint8_t from = (uint8_t)(i < whole ? i : i + 1);
                hl_align[whole - 1][part][8 - whole - part + i] = from;
            }
    if (hl_cpu_has_avx2()) hl_levels = hl_levels_avx2;
#endif
}

#endif
