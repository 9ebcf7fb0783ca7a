/* Sixteen floats at a time, in the vector extensions of GCC and Clang: the compiler turns them into AVX-512, AVX2 or NEON.

Numbers in memory are float32, or bfloat16 (the upper half of a float32) where `half` is true; arithmetic is float32. `half` is a
constant wherever these are inlined, so nothing is decided in a loop.
*/
#ifndef TRILAW_VECTOR_H
#define TRILAW_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define LANES 16

typedef float v16 __attribute__((vector_size(64)));
typedef uint32_t u16x __attribute__((vector_size(64)));
typedef int32_t i16x __attribute__((vector_size(64)));
typedef float v16_memory __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t h16 __attribute__((vector_size(32)));
typedef uint16_t h16_memory __attribute__((vector_size(32), aligned(2), may_alias));

INLINE v16 all(float x) { return x - (v16){}; }

INLINE v16 choose(i16x mask, v16 yes, v16 no) { return (v16)((mask & (i16x)yes) | (~mask & (i16x)no)); }

INLINE v16 largest(v16 a, v16 b) { return choose(a > b, a, b); }

INLINE float float_of(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}

/* To the nearest, ties to even; a NaN stays one. */
INLINE uint16_t half_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE float get(const void *from, long at, int half) {
    return half ? float_of(((const uint16_t *)from)[at]) : ((const float *)from)[at];
}

INLINE void put(void *to, long at, float x, int half) {
    if (half) ((uint16_t *)to)[at] = half_of(x);
    else ((float *)to)[at] = x;
}

INLINE v16 load(const void *from, long at, int half) {
    if (!half) return *(const v16_memory *)((const float *)from + at);
    h16 bits = *(const h16_memory *)((const uint16_t *)from + at);
    return (v16)(__builtin_convertvector(bits, u16x) << 16);
}

INLINE u16x rounded(v16 x) { /* a bfloat16 in the lower half of each number */
    u16x bits = (u16x)x, broken = (u16x)(x != x);
    return (broken & 0x7fc0) | (~broken & ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16));
}

INLINE h16 halves(v16 x) {
#ifdef __AVX512BF16__
    return (h16)_mm512_cvtneps_pbh((__m512)x); /* takes numbers below 1.2e-38 for zero */
#else
    return __builtin_convertvector(rounded(x), h16);
#endif
}

INLINE void store(void *to, long at, v16 x, int half) {
    if (half) *(h16_memory *)((uint16_t *)to + at) = halves(x);
    else *(v16_memory *)((float *)to + at) = x;
}

typedef u16x u16x_memory __attribute__((aligned(2), may_alias));

/* 32 numbers as two vectors, in whatever order is quickest: bfloat16 ones as those at even places and those at odd places, which takes one
operation each. Sums do not mind, as long as `store_pair` puts them back. */
INLINE void load_pair(const void *from, long at, v16 *a, v16 *b, int half) {
    if (half) {
        u16x both = *(const u16x_memory *)((const uint16_t *)from + at);
        *a = (v16)(both << 16);
        *b = (v16)(both & 0xffff0000u);
    } else {
        *a = load(from, at, 0);
        *b = load(from, at + LANES, 0);
    }
}

INLINE void store_pair(void *to, long at, v16 a, v16 b, int half) {
    if (half) {
        *(u16x_memory *)((uint16_t *)to + at) = rounded(a) | (rounded(b) << 16);
    } else {
        *(v16_memory *)((float *)to + at) = a;
        *(v16_memory *)((float *)to + at + LANES) = b;
    }
}

INLINE float sum(v16 x) {
    float total = 0;
    for (int i = 0; i < 8; i++) total += x[i] + x[i + 8];
    return total;
}

INLINE float peak(v16 x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* exp of numbers in [-87, 88], to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]. A NaN stays one. */
INLINE v16 exponential_within(v16 x) {
    const float magic = 12582912.0f; /* 1.5 x 2^23: adding it rounds to a whole number */
    v16 n = (x * 1.44269504f + magic) - magic;
    v16 r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts */
    v16 p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (v16)((i16x)p + (__builtin_convertvector(n, i16x) << 23));
}

/* exp of numbers up to 88; 0 below -87. */
INLINE v16 exponential(v16 x) {
    i16x low = x < all(-87.0f);
    return choose(low, all(0.0f), exponential_within(choose(low, all(-87.0f), x)));
}

INLINE v16 sigmoid(v16 x) {
    v16 inner = choose(x > all(87.0f), all(87.0f), choose(x < all(-87.0f), all(-87.0f), x));
    return 1.0f / (1.0f + exponential_within(-inner));
}

#endif
