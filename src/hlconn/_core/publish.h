/* Copying one side of a book into the public arrays, noting level by level what changed. */
#ifndef HLCONN_PUBLISH_H
#define HLCONN_PUBLISH_H

#include <stddef.h>
#include "swar.h"

/* px, sz, n: where to; xpx, xsz, xn: where from. Compared as bits, so that nan equals nan. */
static void hl_publish_portable(double *px, double *sz, int64_t *n, uint8_t *changed, const double *xpx,
                                const double *xsz, const int64_t *xn, ptrdiff_t count) {
    ptrdiff_t i;
    for (i = 0; i < count; i++)
        changed[i] = memcmp(px + i, xpx + i, 8) != 0 || memcmp(sz + i, xsz + i, 8) != 0 || n[i] != xn[i];
    memcpy(px, xpx, (size_t)count * 8);
    memcpy(sz, xsz, (size_t)count * 8);
    memcpy(n, xn, (size_t)count * 8);
}

static void (*hl_publish)(double *, double *, int64_t *, uint8_t *, const double *, const double *, const int64_t *,
                          ptrdiff_t) = hl_publish_portable;

#if HL_HAVE_AVX2
HL_AVX2 static void hl_publish_avx2(double *px, double *sz, int64_t *n, uint8_t *changed, const double *xpx,
                                    const double *xsz, const int64_t *xn, ptrdiff_t count) {
    /* four sign bits to four bytes of 0 or 1 */
    static const uint32_t bytes[16] = {0x01010101, 0x01010100, 0x01010001, 0x01010000, 0x01000101, 0x01000100,
                                       0x01000001, 0x01000000, 0x00010101, 0x00010100, 0x00010001, 0x00010000,
                                       0x00000101, 0x00000100, 0x00000001, 0x00000000};
    ptrdiff_t i;
    for (i = 0; i + 4 <= count; i += 4) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(xpx + i)), b = _mm256_loadu_si256((const __m256i *)(xsz + i));
        __m256i c = _mm256_loadu_si256((const __m256i *)(xn + i)), same;
        same = _mm256_and_si256(_mm256_cmpeq_epi64(a, _mm256_loadu_si256((const __m256i *)(px + i))),
                                _mm256_cmpeq_epi64(b, _mm256_loadu_si256((const __m256i *)(sz + i))));
        same = _mm256_and_si256(same, _mm256_cmpeq_epi64(c, _mm256_loadu_si256((const __m256i *)(n + i))));
        memcpy(changed + i, &bytes[_mm256_movemask_pd(_mm256_castsi256_pd(same))], 4);
        _mm256_storeu_si256((__m256i *)(px + i), a);
        _mm256_storeu_si256((__m256i *)(sz + i), b);
        _mm256_storeu_si256((__m256i *)(n + i), c);
    }
    hl_publish_portable(px + i, sz + i, n + i, changed + i, xpx + i, xsz + i, xn + i, count - i);
}
#endif

/* Chooses, as hl_levels_choose does. */
static int hl_publish_choose(int portable) {
    hl_publish = hl_publish_portable;
#if HL_HAVE_AVX2
    if (!portable && hl_cpu_has_avx2()) hl_publish = hl_publish_avx2;
#else
    (void)portable;
#endif
    return hl_publish != hl_publish_portable;
}

#endif
