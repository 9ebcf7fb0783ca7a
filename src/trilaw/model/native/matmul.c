/* y = a b^T of whole matrices in bfloat16 with float32 sums, as training has them (`model/native/matmul.py`).

Both operands are brought into blocks of rows and panels first (`packing.h`), out of whatever they lie in: float32 or bfloat16, the numbers of a row
together or those of a column. So all three products of a linear map, y = x W^T, dx = dy W and dW = dy^T x, are one function, no copy in another format
or order is made, and the gradients of weights are added up where they are, in float32. Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix
Multiplication". */
#include <stdlib.h>

#include "packing.h"

#ifdef __AVX512BF16__

#define GROUP (384 << 10) /* bytes of panels that stay in the second-level cache while rows go by */
#define TURN 768          /* inputs at a time where sums can be added up in float32, so that a block of rows stays in the first-level cache */
#define PIECES 12         /* for each thread, so that all end together */

typedef struct {
    float *y; /* or bfloat16 */
    const float *bias;
    long rows, outputs;
    int half, add;
} Result;

/* Sixteen sums to where they belong, or as many as there are outputs. */
INLINE void keep(const Result *y, long row, long at, v16 sums, const int half, const int add) {
    long here = row * y->outputs + at, left = y->outputs - at;
    if (left >= LANES) {
        if (y->bias) sums += load(y->bias, at, 0);
        store(y->y, here, add ? load(y->y, here, 0) + sums : sums, half);
    } else {
        for (long e = 0; e < left; e++) put(y->y, here + e, sums[e] + (y->bias ? y->bias[at + e] : 0) + (add ? y->y[here + e] : 0), half);
    }
}

/* A block of rows times a panel. */
INLINE void piece(const Result *y, long block, long panel, const uint32_t *rows, const uint32_t *columns, long twos, const int half, const int add) {
    v16 sums[ROWS][8];
    multiply_rows(ROWS, 1, HALVES, 1, 4 * twos, (const char *)(rows + block * ROWS * twos), 4, 4 * ROWS, (const char *)(columns + panel * PANEL * twos), 0, sums);
    if (block * ROWS + ROWS <= y->rows && panel * PANEL + PANEL <= y->outputs) {
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
            for (int c = 0; c < 2; c++) keep(y, block * ROWS + r, panel * PANEL + c * LANES, sums[r][c], half, add);
        return;
    }
    v16 copy[ROWS][2]; /* as a loop picks from it by a variable, it is in memory */
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) copy[r][0] = sums[r][0], copy[r][1] = sums[r][1];
    for (long r = 0; r < y->rows - block * ROWS && r < ROWS; r++)
        for (int c = 0; c < 2; c++) keep(y, block * ROWS + r, panel * PANEL + c * LANES, copy[r][c], half, add);
}

/* The operand's inputs from `first` on. */
static Operand from_input(const Operand *o, long first) {
    Operand rest = *o;
    rest.numbers = (const char *)o->numbers + first * (o->across ? o->step : 1) * (o->half ? 2 : 4);
    return rest;
}

static void multiply(long inputs, const Operand *a, const Operand *b, const Result *y, uint32_t *rows, uint32_t *columns, int threads) {
    long blocks = (a->rows + ROWS - 1) / ROWS, panels = (b->rows + PANEL - 1) / PANEL, twos = (inputs + 1) / 2;
    long group = GROUP / (twos * STEP) > 0 ? GROUP / (twos * STEP) : 1;
    long groups = (panels + group - 1) / group, parts = (PIECES * threads + groups - 1) / groups;
    if (parts > blocks) parts = blocks;
#pragma omp parallel num_threads(threads)
    {
        pack_all(a, inputs, ROWS, rows);
        pack_all(b, inputs, PANEL, columns);
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
        for (long task = 0; task < groups * parts; task++) {
            long of = task / parts, part = task % parts, end = panels * (of + 1) / groups;
            for (long block = blocks * part / parts; block < blocks * (part + 1) / parts; block++)
                for (long panel = panels * of / groups; panel < end; panel++) {
                    if (y->half) piece(y, block, panel, rows, columns, twos, 1, 0);
                    else if (y->add) piece(y, block, panel, rows, columns, twos, 0, 1);
                    else piece(y, block, panel, rows, columns, twos, 0, 0);
                }
        }
    }
}

/* y [rows of a, rows of b] = a b^T, plus bias unless it is NULL; y in bfloat16 if `half`, else added to what is there if `add`. */
void trilaw_matmul(long inputs, const Operand *a, const Operand *b, const float *bias, void *y, int half, int add, int threads) {
    long turns = half || inputs < 2 * TURN ? 1 : (inputs + TURN - 1) / TURN, most = (inputs / turns + 2) / 2 * 2; /* inputs at a time */
    long of_rows = (a->rows + ROWS - 1) / ROWS * ROWS, of_columns = (b->rows + PANEL - 1) / PANEL * PANEL, twos = most / 2;
    uint32_t *rows = aligned_alloc(64, (size_t)(of_rows * twos * 4 + 63) / 64 * 64), *columns = aligned_alloc(64, (size_t)(of_columns * twos * 4));
    Result result = {y, bias, a->rows, b->rows, half, add};
    for (long first = 0; first < inputs; first += most) {
        const Operand of_a = from_input(a, first), of_b = from_input(b, first);
        multiply(inputs - first < most ? inputs - first : most, &of_a, &of_b, &result, rows, columns, threads);
        result.add = 1, result.bias = 0;
    }
    free(rows), free(columns);
}

#endif
