/* Matrices brought into the order in which the inner loop under all products (`panels.h`) reads them.

bfloat16 numbers go in pairs of inputs, four bytes, float32 ones alone. What is missing to a whole panel, block or pair is zero. */
#ifndef TRILAW_PACKING_H
#define TRILAW_PACKING_H

#include "panels.h"

typedef uint32_t u4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t u8 __attribute__((vector_size(32)));

/* Four times four bytes of each of four rows: what stands in rows comes out in columns, `step` apart. */
INLINE void turn_four(u4 a, u4 b, u4 c, u4 d, uint32_t *out, long step) {
    u4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    *(u4 *)out = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(u4 *)(out + step) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    ab = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(u4 *)(out + 2 * step) = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(u4 *)(out + 3 * step) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/* A panel whose outputs are `count` rows of x, up to 32; `bytes` of a row, rows `step` bytes apart. */
static inline void panel_of_rows(const char *x, long step, long count, long bytes, char *panel) {
    if (count < PANEL) memset(panel, 0, (size_t)(bytes * PANEL));
    for (long r = 0; r < count; r += 4) {
        long i = 0;
        for (; r + 4 <= count && i + 16 <= bytes; i += 16) {
            const char *at = x + r * step + i;
            turn_four(*(const u4 *)at, *(const u4 *)(at + step), *(const u4 *)(at + 2 * step), *(const u4 *)(at + 3 * step),
                      (uint32_t *)(panel + i / 4 * STEP + 4 * r), PANEL);
        }
        for (; i < bytes; i += 4)
            for (long j = r; j < r + 4 && j < count; j++) memcpy(panel + i / 4 * STEP + 4 * j, x + j * step + i, 4);
    }
}

/* 16 numbers, from number `at` on, of two rows as pairs of bfloat16; b NULL: its numbers are zero. */
INLINE u16x pairs(const char *a, const char *b, long at, int half) {
    if (half) return ((u16x)load(a, at, 1) >> 16) | (b ? (u16x)load(b, at, 1) & 0xffff0000u : (u16x){});
    return rounded(load(a, at, 0)) | (b ? rounded(load(b, at, 0)) << 16 : (u16x){});
}

/* A panel whose inputs are `count` rows of x and whose outputs are 32 columns. */
static inline void panel_of_columns(const char *x, long step, long count, char *panel, int half) {
    for (long r = 0; r < count; r += half ? 2 : 1)
        for (int c = 0; c < 2; c++) {
            const char *at = x + r * step;
            char *to = panel + r / (half ? 2 : 1) * STEP + 64 * c;
            if (half) *(u16x_memory *)to = pairs(at, r + 1 < count ? at + step : 0, c * LANES, 1);
            else store(to, 0, load(at, c * LANES, 0), 0);
        }
}

/* The number at row r, input k is numbers[across ? k step + r : r step + k]. */
typedef struct {
    const void *numbers;
    long rows, step;
    int across, half;
} Operand;

static inline uint32_t number(const Operand *o, long row, long input, long inputs) {
    if (row >= o->rows || input >= inputs) return 0;
    long at = o->across ? input * o->step + row : row * o->step + input;
    return o->half ? ((const uint16_t *)o->numbers)[at] : half_of(((const float *)o->numbers)[at]);
}

/* 16 numbers of each of four rows: out[pair][row]. */
INLINE void pack_four(const char *rows, long step, uint32_t *out, long width, const int half) {
#define NUMBERS(R) (half ? (u8)*(const h16_memory *)(rows + (R) * step * 2) : (u8)halves(load(rows, (R) * step, 0)))
    u8 a = NUMBERS(0), b = NUMBERS(1), c = NUMBERS(2), d = NUMBERS(3);
#undef NUMBERS
#define PART(X, I) __builtin_shufflevector(X, X, I, I + 1, I + 2, I + 3)
    turn_four(PART(a, 0), PART(b, 0), PART(c, 0), PART(d, 0), out, width);
    turn_four(PART(a, 4), PART(b, 4), PART(c, 4), PART(d, 4), out + 4 * width, width);
#undef PART
}

/* `width` rows from `first` on, a pair of inputs of each, then the next pair: a block of rows, or a panel. */
INLINE void pack(const Operand *o, long first, long inputs, const long width, uint32_t *out, const int half) {
    const char *numbers = (const char *)o->numbers + (o->across ? first : first * o->step) * (half ? 2 : 4);
    long size = half ? 2 : 4, wide = (width + LANES - 1) / LANES * LANES, done = 0;
    if (o->across && first + wide <= o->rows) {
        /* 16 pairs may go past those of a block: the next ones come after them. */
        for (; done + 2 + (wide > width ? 2 : 0) <= inputs; done += 2)
            for (long r = 0; r < wide; r += LANES) {
                const char *a = numbers + done * o->step * size;
                *(u16x_memory *)(out + done / 2 * width + r) = pairs(a, a + o->step * size, r, half);
            }
    } else if (!o->across && first + width <= o->rows) {
        for (; done + LANES <= inputs; done += LANES)
            for (long r = 0; r < width; r += 4) pack_four(numbers + (r * o->step + done) * size, o->step, out + done / 2 * width + r, width, half);
    }
    for (; done < inputs; done += 2)
        for (long r = 0; r < width; r++)
            out[done / 2 * width + r] = number(o, first + r, done, inputs) | number(o, first + r, done + 1, inputs) << 16;
}

/* All rows, by all threads of a parallel region; it does not wait for them. */
static inline void pack_all(const Operand *o, long inputs, const long width, uint32_t *out) {
    long pairs_ = (inputs + 1) / 2;
#pragma omp for schedule(static) nowait
    for (long first = 0; first < o->rows; first += width) {
        if (o->half) pack(o, first, inputs, width, out + first * pairs_, 1);
        else pack(o, first, inputs, width, out + first * pairs_, 0);
    }
}

#endif
