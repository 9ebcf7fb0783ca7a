/* y = a b^T of whole matrices in bfloat16 with float32 sums, as training has them (`model/native/matmul.py`).

Both operands are packed first (`packing.h`), out of whatever they lie in: float32 or bfloat16, the numbers of a row together or those of a column. So all
three products of a linear map, y = x W^T, dx = dy W and dW = dy^T x, are one function, no copy in another format or order is made, and gradients of weights
are added up where they are, in float32. What is packed serves several products. Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix
Multiplication". */
#include "packing.h"

#ifdef __AVX512BF16__

#define GROUP (384 << 10) /* bytes of panels that stay in the second-level cache while rows go by */
#define PIECES 32         /* for each thread, so that all end together */

/* y, and what is added to it, which may be y: float32, or bfloat16 if `half`; base and bias may be NULL. */
typedef struct {
    void *y;
    const void *base;
    const float *bias;
    long rows, outputs;
    int half;
} Result;

/* Sixteen sums to where they belong, or as many as there are outputs. */
INLINE void keep(const Result *y, long row, long at, v16 sums, const int half, const int based) {
    long here = row * y->outputs + at, left = y->outputs - at;
    if (left >= LANES) {
        if (y->bias) sums += load(y->bias, at, 0);
        if (based) sums += load(y->base, here, half);
        store(y->y, here, sums, half);
    } else {
        for (long e = 0; e < left; e++) put(y->y, here + e, sums[e] + (y->bias ? y->bias[at + e] : 0) + (based ? get(y->base, here + e, half) : 0), half);
    }
}

/* A block of rows times a panel. */
INLINE void piece(const Result *y, long block, long panel, const uint32_t *rows, const uint32_t *columns, long twos, const int half, const int based) {
    v16 sums[ROWS][8];
    multiply_rows(ROWS, 1, HALVES, 1, 4 * twos, (const char *)(rows + block * ROWS * twos), 4, 4 * ROWS, (const char *)(columns + panel * PANEL * twos), 0, sums);
    if (block * ROWS + ROWS <= y->rows && panel * PANEL + PANEL <= y->outputs) {
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
            for (int c = 0; c < 2; c++) keep(y, block * ROWS + r, panel * PANEL + c * LANES, sums[r][c], half, based);
        return;
    }
    v16 copy[ROWS][2]; /* as a loop picks from it by a variable, it is in memory */
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) copy[r][0] = sums[r][0], copy[r][1] = sums[r][1];
    for (long r = 0; r < y->rows - block * ROWS && r < ROWS; r++)
        for (int c = 0; c < 2; c++) keep(y, block * ROWS + r, panel * PANEL + c * LANES, copy[r][c], half, based);
}

static void multiply(long inputs, const uint32_t *rows, const uint32_t *columns, const Result *y, int threads) {
    long blocks = (y->rows + ROWS - 1) / ROWS, panels = (y->outputs + PANEL - 1) / PANEL, twos = (inputs + 1) / 2;
    long group = GROUP / (twos * STEP) > 0 ? GROUP / (twos * STEP) : 1;
    long groups = (panels + group - 1) / group, parts = (PIECES * threads + groups - 1) / groups;
    if (parts > blocks) parts = blocks;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (long task = 0; task < groups * parts; task++) {
        long of = task / parts, part = task % parts, end = panels * (of + 1) / groups;
        for (long block = blocks * part / parts; block < blocks * (part + 1) / parts; block++)
            for (long panel = panels * of / groups; panel < end; panel++) {
                if (y->half && y->base) piece(y, block, panel, rows, columns, twos, 1, 1);
                else if (y->half) piece(y, block, panel, rows, columns, twos, 1, 0);
                else if (y->base) piece(y, block, panel, rows, columns, twos, 0, 1);
                else piece(y, block, panel, rows, columns, twos, 0, 0);
            }
    }
}

/* Rows in blocks, or in panels if `panels`, `turn` inputs (an even number) after the other; out has room for all, missing rows of the last one too. */
void trilaw_pack(long inputs, long turn, const Operand *o, int panels, uint32_t *out, int threads) {
    long width = panels ? PANEL : ROWS, all_rows = (o->rows + width - 1) / width * width;
#pragma omp parallel num_threads(threads)
    for (long first = 0; first < inputs; first += turn) {
        Operand part = *o;
        part.numbers = (const char *)o->numbers + first * (o->across ? o->step : 1) * (o->half ? 2 : 4);
        long here = inputs - first < turn ? inputs - first : turn;
        if (panels) pack_all(&part, here, PANEL, out + first / 2 * all_rows);
        else pack_all(&part, here, ROWS, out + first / 2 * all_rows);
    }
}

/* y [rows, outputs] = base + a b^T + bias: a lies in blocks, b in panels, both with the same turns. base, like y float32 or bfloat16 and maybe y itself,
and bias may be NULL. With more than one turn y is float32. */
void trilaw_multiply(long inputs, long turn, long rows, long outputs, const uint32_t *a, const uint32_t *b, const float *bias, const void *base, void *y,
                     int half, int threads) {
    long of_rows = (rows + ROWS - 1) / ROWS * ROWS, of_columns = (outputs + PANEL - 1) / PANEL * PANEL;
    Result result = {y, base, bias, rows, outputs, half};
    for (long first = 0; first < inputs; first += turn) {
        multiply(inputs - first < turn ? inputs - first : turn, a + first / 2 * of_rows, b + first / 2 * of_columns, &result, threads);
        result.base = y, result.bias = 0;
    }
}

#endif
