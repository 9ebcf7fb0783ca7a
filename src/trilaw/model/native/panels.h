/* The inner loop under all products here: some rows of x times a panel, 32 outputs wide, with all sums in registers.

x and the panel are read four bytes of the inputs at a time: one float32 number, two bfloat16 ones (AVX512-BF16) or four 8-bit integers
(AVX512-VNNI). A panel holds, for every four bytes, those of its 32 outputs side by side: 128 bytes. */
#ifndef TRILAW_PANELS_H
#define TRILAW_PANELS_H

#include "vector.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define PANEL 32
#define STEP (4 * PANEL) /* bytes */
#ifdef __AVX512F__
#define ROWS 12
#else
#define ROWS 3 /* half as many registers, each half as long */
#endif

enum { FLOATS, HALVES, BYTES };

INLINE v16 dot(v16 sum, v16 w, int32_t four, const int kind) {
#ifdef __AVX512BF16__
    if (kind == HALVES) return (v16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32(four));
#endif
#ifdef __AVX512VNNI__
    if (kind == BYTES) return (v16)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(four));
#endif
    (void)kind;
    float x;
    memcpy(&x, &four, 4);
    return sum + w * x;
}

/* sums[r][c] += (or =, if `fresh`) rows of x, `x_row` bytes apart and their next four bytes `x_four`, times C panels, `next` bytes apart. */
INLINE void multiply_rows(const int R, const int C, const int kind, const int fresh, long bytes, const char *x, long x_row, long x_four, const char *panel, long next,
                          v16 sums[ROWS][8]) {
    v16 s[ROWS][8]; /* a copy that no later loop picks from by a variable: so it stays in registers */
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int c = 0; c < 2 * C; c++) s[r][c] = fresh ? all(0.0f) : sums[r][c];
#pragma GCC unroll 1
    for (long i = 0; i < bytes / 4; i++) {
        v16 w[8];
#pragma GCC unroll 16
        for (int c = 0; c < 2 * C; c++) w[c] = *(const v16_memory *)(panel + (c / 2) * next + i * STEP + 64 * (c % 2));
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            int32_t four;
            memcpy(&four, x + r * x_row + i * x_four, 4);
#pragma GCC unroll 16
            for (int c = 0; c < 2 * C; c++) s[r][c] = dot(s[r][c], w[c], four, kind);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int c = 0; c < 2 * C; c++) sums[r][c] = s[r][c];
}

#endif
