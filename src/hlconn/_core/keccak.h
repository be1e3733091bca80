/* Keccak-256 as Ethereum uses it (padding 0x01, not SHA3-256's 0x06). Source: the Keccak reference, FIPS 202 for the
 * permutation. The state is 25 local words so that the compiler keeps most of them in registers. */
#ifndef HLCONN_KECCAK_H
#define HLCONN_KECCAK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HL_RATE 136

#define HL_ROL(x, n) (((x) << (n)) | ((x) >> (64 - (n))))

static void hl_keccak_f(uint64_t s[25]) {
    static const uint64_t rc[24] = {
        0x0000000000000001ULL, 0x0000000000008082ULL, 0x800000000000808AULL, 0x8000000080008000ULL,
        0x000000000000808BULL, 0x0000000080000001ULL, 0x8000000080008081ULL, 0x8000000000008009ULL,
        0x000000000000008AULL, 0x0000000000000088ULL, 0x0000000080008009ULL, 0x000000008000000AULL,
        0x000000008000808BULL, 0x800000000000008BULL, 0x8000000000008089ULL, 0x8000000000008003ULL,
        0x8000000000008002ULL, 0x8000000000000080ULL, 0x000000000000800AULL, 0x800000008000000AULL,
        0x8000000080008081ULL, 0x8000000000008080ULL, 0x0000000080000001ULL, 0x8000000080008008ULL};
    uint64_t a0 = s[0], a1 = s[1], a2 = s[2], a3 = s[3], a4 = s[4], a5 = s[5], a6 = s[6], a7 = s[7], a8 = s[8];
    uint64_t a9 = s[9], a10 = s[10], a11 = s[11], a12 = s[12], a13 = s[13], a14 = s[14], a15 = s[15], a16 = s[16];
    uint64_t a17 = s[17], a18 = s[18], a19 = s[19], a20 = s[20], a21 = s[21], a22 = s[22], a23 = s[23], a24 = s[24];
    uint64_t b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16, b17, b18, b19, b20, b21, b22;
    uint64_t b23, b24, c0, c1, c2, c3, c4, d0, d1, d2, d3, d4;
    int round;
    for (round = 0; round < 24; round++) {
        c0 = a0 ^ a5 ^ a10 ^ a15 ^ a20;
        c1 = a1 ^ a6 ^ a11 ^ a16 ^ a21;
        c2 = a2 ^ a7 ^ a12 ^ a17 ^ a22;
        c3 = a3 ^ a8 ^ a13 ^ a18 ^ a23;
        c4 = a4 ^ a9 ^ a14 ^ a19 ^ a24;
        d0 = c4 ^ HL_ROL(c1, 1);
        d1 = c0 ^ HL_ROL(c2, 1);
        d2 = c1 ^ HL_ROL(c3, 1);
        d3 = c2 ^ HL_ROL(c4, 1);
        d4 = c3 ^ HL_ROL(c0, 1);
        b0 = a0 ^ d0;
        b1 = HL_ROL(a6 ^ d1, 44);
        b2 = HL_ROL(a12 ^ d2, 43);
        b3 = HL_ROL(a18 ^ d3, 21);
        b4 = HL_ROL(a24 ^ d4, 14);
        b5 = HL_ROL(a3 ^ d3, 28);
        b6 = HL_ROL(a9 ^ d4, 20);
        b7 = HL_ROL(a10 ^ d0, 3);
        b8 = HL_ROL(a16 ^ d1, 45);
        b9 = HL_ROL(a22 ^ d2, 61);
        b10 = HL_ROL(a1 ^ d1, 1);
        b11 = HL_ROL(a7 ^ d2, 6);
        b12 = HL_ROL(a13 ^ d3, 25);
        b13 = HL_ROL(a19 ^ d4, 8);
        b14 = HL_ROL(a20 ^ d0, 18);
        b15 = HL_ROL(a4 ^ d4, 27);
        b16 = HL_ROL(a5 ^ d0, 36);
        b17 = HL_ROL(a11 ^ d1, 10);
        b18 = HL_ROL(a17 ^ d2, 15);
        b19 = HL_ROL(a23 ^ d3, 56);
        b20 = HL_ROL(a2 ^ d2, 62);
        b21 = HL_ROL(a8 ^ d3, 55);
        b22 = HL_ROL(a14 ^ d4, 39);
        b23 = HL_ROL(a15 ^ d0, 41);
        b24 = HL_ROL(a21 ^ d1, 2);
        a0 = b0 ^ (~b1 & b2) ^ rc[round];
        a1 = b1 ^ (~b2 & b3);
        a2 = b2 ^ (~b3 & b4);
        a3 = b3 ^ (~b4 & b0);
        a4 = b4 ^ (~b0 & b1);
        a5 = b5 ^ (~b6 & b7);
        a6 = b6 ^ (~b7 & b8);
        a7 = b7 ^ (~b8 & b9);
        a8 = b8 ^ (~b9 & b5);
        a9 = b9 ^ (~b5 & b6);
        a10 = b10 ^ (~b11 & b12);
        a11 = b11 ^ (~b12 & b13);
        a12 = b12 ^ (~b13 & b14);
        a13 = b13 ^ (~b14 & b10);
        a14 = b14 ^ (~b10 & b11);
        a15 = b15 ^ (~b16 & b17);
        a16 = b16 ^ (~b17 & b18);
        a17 = b17 ^ (~b18 & b19);
        a18 = b18 ^ (~b19 & b15);
        a19 = b19 ^ (~b15 & b16);
        a20 = b20 ^ (~b21 & b22);
        a21 = b21 ^ (~b22 & b23);
        a22 = b22 ^ (~b23 & b24);
        a23 = b23 ^ (~b24 & b20);
        a24 = b24 ^ (~b20 & b21);
    }
    s[0] = a0; s[1] = a1; s[2] = a2; s[3] = a3; s[4] = a4; s[5] = a5; s[6] = a6; s[7] = a7; s[8] = a8; s[9] = a9;
    s[10] = a10; s[11] = a11; s[12] = a12; s[13] = a13; s[14] = a14; s[15] = a15; s[16] = a16; s[17] = a17; s[18] = a18;
    s[19] = a19; s[20] = a20; s[21] = a21; s[22] = a22; s[23] = a23; s[24] = a24;
}

/* One word of the input, first byte lowest, whatever the machine. */
static inline uint64_t hl_keccak_word(const uint8_t *p) {
    uint64_t x;
    memcpy(&x, p, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    x = __builtin_bswap64(x);
#endif
    return x;
}

/* Keccak-256 of `size` bytes into `out` (32 bytes). */
static void hl_keccak256(const uint8_t *data, size_t size, uint8_t *out) {
    uint64_t s[25];
    uint8_t last[HL_RATE];
    int i;
    memset(s, 0, sizeof(s));
    for (; size >= HL_RATE; data += HL_RATE, size -= HL_RATE) {
        for (i = 0; i < HL_RATE / 8; i++) s[i] ^= hl_keccak_word(data + 8 * i);
        hl_keccak_f(s);
    }
    memset(last, 0, sizeof(last));
    if (size) memcpy(last, data, size);
    last[size] ^= 0x01;
    last[HL_RATE - 1] ^= 0x80;
    for (i = 0; i < HL_RATE / 8; i++) s[i] ^= hl_keccak_word(last + 8 * i);
    hl_keccak_f(s);
    for (i = 0; i < 4; i++) {
        uint64_t x = s[i];
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        x = __builtin_bswap64(x);
#endif
        memcpy(out + 8 * i, &x, 8);
    }
}

#endif
