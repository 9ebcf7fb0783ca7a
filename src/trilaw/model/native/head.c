/* The head in training: the logits of a slice of the vocabulary, taken no further than the cache, and their exponentials (`training/logprobs.py`).

A block of rows goes over the slice's panels (`panels.h`); what softmax needs of its logits leaves: the exponentials in bfloat16, of each row the largest
logit, the sum and the target's logit, all in float32. */
#include <stdlib.h>

#include "packing.h"
#include "softmax.h"

#ifdef __AVX512BF16__

/* x [N, inputs], head [size, inputs]: logits = x head^T; the rest as `trilaw_exponentials` has it, kept is bfloat16. kept NULL: not wanted. */
void trilaw_head(long inputs, const Operand *x, const Operand *head, const int64_t *targets, long first, float *top, float *total, float *found, char *kept,
                 int threads) {
    long blocks = (x->rows + ROWS - 1) / ROWS, panels = (head->rows + PANEL - 1) / PANEL, twos = (inputs + 1) / 2, size = head->rows;
    uint32_t *rows = aligned_alloc(64, (size_t)(blocks * ROWS * twos * 4 + 63) / 64 * 64), *columns = aligned_alloc(64, (size_t)(panels * STEP * twos));
#pragma omp parallel num_threads(threads)
    {
        float *logits = aligned_alloc(64, (size_t)(ROWS * panels * PANEL) * sizeof(float));
        pack_all(x, inputs, ROWS, rows);
        pack_all(head, inputs, PANEL, columns);
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
        for (long block = 0; block < blocks; block++) {
            for (long panel = 0; panel < panels; panel++) {
                v16 sums[ROWS][8];
                multiply_rows(ROWS, 1, HALVES, 1, 4 * twos, (const char *)(rows + block * ROWS * twos), 4, 4 * ROWS, (const char *)(columns + panel * PANEL * twos), 0, sums);
#pragma GCC unroll 16
                for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
                    for (int c = 0; c < 2; c++) store(logits, (r * panels + panel) * PANEL + c * LANES, sums[r][c], 0);
            }
            for (long r = 0; r < ROWS && block * ROWS + r < x->rows; r++) {
                long row = block * ROWS + r, target = targets[row] - first;
                float *from = logits + r * panels * PANEL;
                if (target >= 0 && target < size) found[row] = from[target];
                if (kept) exponentials(from, size, top + row, total + row, kept + 2 * row * size, 1);
                else exponentials(from, size, top + row, total + row, from, 0);
            }
        }
        free(logits);
    }
    free(rows), free(columns);
}

#endif
