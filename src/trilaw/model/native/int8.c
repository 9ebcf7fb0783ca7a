/* Products of 8-bit integers, with what goes before and after them: rows are rounded with a scale each, sums leave as float32 or bfloat16.

AVX512-VNNI multiplies unsigned by signed bytes, four at a time, into 32-bit sums that cannot overflow here. The weights are the unsigned
ones, 128 added to each; 128 times the sum of a row of x is taken off again. They lie in panels: 32 outputs, and for every four inputs
32 x 4 bytes side by side. */
#include "vector.h"

#ifdef __AVX512VNNI__
#include <immintrin.h>

#define PANEL 32

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

/* out [rows, padded] = x [rows, size] / scale to whole numbers from -127 to 127, zeros after them; scale and the sum of out for each row. `rotate`:
each 64 numbers of x go through a Hadamard transform first. */
void trilaw_round_rows(long rows, long size, long padded, const char *x, int rotate, int8_t *out, float *scale, int32_t *total, int half, int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long i = 0; i < rows; i++) {
        float row[size + LANES];
        int8_t *to = out + i * padded;
        long whole = size / LANES * LANES;
        for (long e = 0; e < whole; e += LANES) store(row, e, half ? load(x + 2 * i * size, e, 1) : load(x + 4 * i * size, e, 0), 0);
        for (long e = whole; e < size; e++) row[e] = get(x + (half ? 2 : 4) * i * size, e, half);
        if (rotate)
            for (long e = 0; e < size; e += 64) hadamard(row + e);
        v16 high = all(0.0f);
        for (long e = whole; e < whole + LANES; e++)
            if (e >= size) row[e] = 0;
        for (long e = 0; e < size; e += LANES) high = largest((v16)((i16x)load(row, e, 0) & 0x7fffffff), high);
        float most = peak(high), part = most > 0 ? 127.0f / most : 0.0f;
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
        scale[i] = most / 127.0f;
        total[i] = sum;
    }
}

/* R rows times C panels, from the row x and the output y on. */
INLINE void piece(const int R, const int C, long inputs, const int8_t *x, const float *x_scale, const int32_t *x_sum, const uint8_t *panels,
                  const float *scale, const float *bias, char *y, long outputs, long left, int half) {
    __m512i sums[8][8];
    for (int r = 0; r < R; r++)
        for (int c = 0; c < 2 * C; c++) sums[r][c] = _mm512_setzero_si512();
#pragma GCC unroll 1
    for (long i = 0; i < inputs; i += 4) {
        __m512i w[8];
        for (int c = 0; c < C; c++) {
            w[2 * c] = _mm512_loadu_si512(panels + (c * inputs + i) * PANEL);
            w[2 * c + 1] = _mm512_loadu_si512(panels + (c * inputs + i) * PANEL + 64);
        }
        for (int r = 0; r < R; r++) {
            int32_t four;
            memcpy(&four, x + r * inputs + i, 4);
            __m512i each = _mm512_set1_epi32(four);
            for (int c = 0; c < 2 * C; c++) sums[r][c] = _mm512_dpbusd_epi32(sums[r][c], w[c], each);
        }
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < 2 * C; c++) {
            long at = c * LANES;
            __m512i plain = _mm512_sub_epi32(sums[r][c], _mm512_set1_epi32(128 * x_sum[r]));
            v16 result = (v16)_mm512_cvtepi32_ps(plain) * (load(scale, at, 0) * x_scale[r]);
            if (bias) result += load(bias, at, 0);
            char *to = y + r * outputs * (half ? 2 : 4);
            if (at + LANES <= left) {
                if (half) store(to, at, result, 1);
                else store(to, at, result, 0);
            } else {
                for (long e = at; e < left; e++) put(to, e, result[e - at], half);
            }
        }
}

typedef void Piece(long, const int8_t *, const float *, const int32_t *, const uint8_t *, const float *, const float *, char *, long, long, int);
#define MAKE(NAME, R, C)                                                                                                                            \
    static __attribute__((noinline)) void NAME(long inputs, const int8_t *x, const float *x_scale, const int32_t *x_sum, const uint8_t *panels,     \
                                               const float *scale, const float *bias, char *y, long outputs, long left, int half) {                 \
        piece(R, C, inputs, x, x_scale, x_sum, panels, scale, bias, y, outputs, left, half);                                                        \
    }
MAKE(eight_rows, 8, 1)
MAKE(four_rows, 4, 1)
MAKE(two_rows, 2, 1)
MAKE(one_row, 1, 1)
MAKE(two_rows_wide, 2, 4)
MAKE(one_row_wide, 1, 4)

/* y [rows, outputs] = x W^T scaled by x_scale [rows] and scale [outputs], plus bias unless it is NULL. x and its sums as `trilaw_round_rows` leaves
them; scale and bias are as long as the panels. */
void trilaw_product(long rows, long outputs, long inputs, const int8_t *x, const float *x_scale, const int32_t *x_sum, const uint8_t *panels,
                    const float *scale, const float *bias, char *y, int half, int threads) {
    long count = (outputs + PANEL - 1) / PANEL, wide = rows <= 3 ? 4 : 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long first = 0; first < count; first += wide)
        for (long panel = first; panel < first + wide && panel < count;) {
            long together = wide == 4 && first + 4 <= count ? 4 : 1, at = panel * PANEL;
            for (long r = 0; r < rows;) {
                long left = rows - r, n = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
                Piece *run = n == 8 ? eight_rows : n == 4 ? four_rows : n == 2 ? two_rows : one_row;
                if (together == 4) run = n == 2 ? two_rows_wide : one_row_wide;
                run(inputs, x + r * inputs, x_scale + r, x_sum + r, panels + at * inputs, scale + at, bias ? bias + at : 0,
                    y + (r * outputs + at) * (half ? 2 : 4), outputs, outputs - at, half);
                r += n;
            }
            panel += together;
        }
}
#endif
