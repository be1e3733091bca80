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
    const __m256i shift = _mm256_set1_epi8(0x80 - '0'), ten = _mm256_set1_epi8(-128 + 10);
    const __m256i close = _mm256_set1_epi8('}');
    const __m128i zero = _mm_set1_epi8('0');
    __m256i x = _mm256_loadu_si256((const __m256i *)p), y = _mm256_loadu_si256((const __m256i *)(p + 32));
    uint64_t e = _tzcnt_u64((uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, close)) |
                    (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(y, close)) << 32);
    uint64_t digit = (uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(ten, _mm256_add_epi8(x, shift))) |
           (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(ten, _mm256_add_epi8(y, shift))) << 32;
    /* tzcnt of nothing is 64: what follows is refused before it is used to shift */
    uint64_t rest, text_px, text_sz, whole_px, part_px, whole_sz, part_sz, size_n;
    const char *q, *r;
    __m128i digits, low, high;
    __m128d value;
    rest = ~digit >> 7;
    whole_px = _tzcnt_u64(rest);
    text_px = _tzcnt_u64(_blsr_u64(rest)); /* digits and dot */
    if (text_px > 9) return NULL;
    part_px = text_px - whole_px - 1;
    q = p + 15 + text_px; /* first digit of sz */
    rest = ~digit >> (15 + text_px);
    whole_sz = _tzcnt_u64(rest);
    text_sz = _tzcnt_u64(_blsr_u64(rest));
    if (text_sz > 9) return NULL;
    part_sz = text_sz - whole_sz - 1;
    r = q + text_sz + 6; /* first digit of n */
    size_n = (uint64_t)(p + e - r);
    if (((whole_px - 1) | (part_px - 1) | (whole_sz - 1) | (part_sz - 1) | (size_n - 1)) > 7) return NULL;
    if (memcmp(p, "{\"px", 4) || memcmp(p + 3, "x\":\"", 4) || p[7 + whole_px] != '.' ||
        memcmp(q - 8, "\",\"sz\":\"", 8) || q[whole_sz] != '.' || memcmp(r - 6, "\",\"n", 4) || memcmp(r - 2, "\":", 2) ||
        ~(digit >> (r - p) | ~0ULL << size_n))
        return NULL;
    low = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)(p + 7)), zero);
    high = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)q), zero);
    low = _mm_shuffle_epi8(low, _mm_loadu_si128((const __m128i *)hl_align[whole_px - 1][part_px]));
    high = _mm_shuffle_epi8(high, _mm_loadu_si128((const __m128i *)hl_align[whole_sz - 1][part_sz]));
    digits = _mm_maddubs_epi16(_mm_unpacklo_epi64(low, high), _mm_set1_epi16(10 | 1 << 8));
    digits = _mm_madd_epi16(digits, _mm_set1_epi32(100 | 1 << 16));
    digits = _mm_packus_epi32(digits, digits);
    digits = _mm_madd_epi16(digits, _mm_set1_epi32(10000 | 1 << 16));
    value = _mm_div_pd(_mm_cvtepi32_pd(digits), _mm_loadh_pd(_mm_load_sd(&hl_pow10[part_px]), &hl_pow10[part_sz]));
    _mm_storel_pd(px, value);
    _mm_storeh_pd(sz, value);
    if (size_n == 1) *n = *r - '0';
    else if (*r == '0') return NULL;
    else if (size_n == 2) *n = *r * 10 + r[1] - 11 * '0';
    else *n = (int64_t)hl_eight((hl_load8(r) ^ HL_BYTES('0')) << (64 - 8 * size_n));
    return p + e + 1;
}

HL_AVX2 static const char *hl_levels_avx2(const char *p, const char *end, int row, ptrdiff_t cap, double *px,
                                          double *sz, int64_t *n, ptrdiff_t *count) {
    HL_LEVELS_BODY(hl_level_avx2)
}
#endif

/* Chooses the reader: at import, and again by the tests that prove both equal. Returns whether it is the AVX2 one. */
static int hl_levels_choose(int portable) {
    hl_levels = hl_levels_portable;
#if HL_HAVE_AVX2
    int whole, part, i;
    memset(hl_align, 0x80, sizeof(hl_align));
    for (whole = 1; whole <= 8; whole++)
        for (part = 0; part + whole <= 8; part++)
            for (i = 0; i < whole + part; i++) {
                uint8_t from = (uint8_t)(i < whole ? i : i + 1);
                hl_align[whole - 1][part][8 - whole - part + i] = from;
            }
    if (!portable && hl_cpu_has_avx2()) hl_levels = hl_levels_avx2;
#else
    (void)portable;
#endif
    return hl_levels != hl_levels_portable;
}

#endif
