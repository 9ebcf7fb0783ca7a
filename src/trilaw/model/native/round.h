/* Rows rounded to 8-bit integers with a scale each, after a Hadamard transform where that is asked for (`model/rotation.py`). */
#ifndef TRILAW_ROUND_H
#define TRILAW_ROUND_H

#include "vector.h"

#ifdef __AVX512VNNI__
#include <immintrin.h>

INLINE v16 butterfly(v16 x, v16 swapped, i16x minus) { return swapped + choose(minus, -x, x); }

/* 64 numbers times Sylvester's Hadamard matrix over 8: six rounds of sums and differences. */
INLINE void hadamard(float *at) {
    v16 a = load(at, 0, 0), b = load(at, 16, 0), c = load(at, 32, 0), d = load(at, 48, 0);
    v16 parts[4] = {a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d};
    for (int j = 0; j < 4; j++) {
        v16 y = parts[j] * 0.125f;
        y = butterfly(y, __builtin_shufflevector(y, y, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14),
                      (i16x){0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1});
        y = butterfly(y, __builtin_shufflevector(y, y, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13),
                      (i16x){0, 0, -1, -1, 0, 0, -1, -1, 0, 0, -1, -1, 0, 0, -1, -1});
        y = butterfly(y, __builtin_shufflevector(y, y, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11),
                      (i16x){0, 0, 0, 0, -1, -1, -1, -1, 0, 0, 0, 0, -1, -1, -1, -1});
        y = butterfly(y, __builtin_shufflevector(y, y, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7),
                      (i16x){0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1});
        store(at, 16 * j, y, 0);
    }
}

/* to [padded] = x [size] / scale to whole numbers from -127 to 127, zeros after them; scale and the sum of these numbers. `rotate`: each 64 numbers of x
go through a Hadamard transform first. */
INLINE void round_row(const void *x, long size, long padded, int rotate, int8_t *to, float *scale, int32_t *total, int half) {
    float row[size + LANES];
    long whole = size / LANES * LANES;
    for (long e = 0; e < whole; e += LANES) store(row, e, load(x, e, half), 0);
    for (long e = whole; e < size; e++) row[e] = get(x, e, half);
    if (rotate)
        for (long e = 0; e < size; e += 64) hadamard(row + e);
    v16 high = all(0.0f);
    i16x broken = {};
    for (long e = whole; e < whole + LANES; e++)
        if (e >= size) row[e] = 0;
    for (long e = 0; e < size; e += LANES) {
        v16 y = load(row, e, 0);
        high = largest((v16)((i16x)y & 0x7fffffff), high);
        broken |= (y != y);
    }
    float most = peak(high);
    for (int e = 0; e < LANES; e++)
        if (broken[e]) most = NAN; /* and so will be the scale, and all that is multiplied with it */
    float part = most > 0 && most < INFINITY ? 127.0f / most : 0.0f;
    __m512i sums = _mm512_setzero_si512();
    for (long e = 0; e < whole; e += LANES) {
        __m512i y = _mm512_cvtps_epi32((__m512)(load(row, e, 0) * part));
        sums = _mm512_add_epi32(sums, y);
        _mm_storeu_si128((__m128i *)(to + e), _mm512_cvtsepi32_epi8(y));
    }
    int32_t sum = _mm512_reduce_add_epi32(sums);
    for (long e = whole; e < padded; e++) {
        to[e] = e < size ? (int8_t)lrintf(row[e] * part) : 0;
        sum += to[e];
    }
    *scale = most / 127.0f;
    *total = sum;
}

#endif
#endif
