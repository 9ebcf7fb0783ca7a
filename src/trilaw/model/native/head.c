/* The head in training: the logits of a slice of the vocabulary, taken no further than the cache, and their exponentials (`training/logprobs.py`).

A block of rows goes over the slice's panels (`packing.h`); what softmax needs of its logits leaves: the exponentials in bfloat16, of each row the largest
logit, the sum and the target's logit, all in float32. */
#include <stdlib.h>

#include "packing.h"
#include "softmax.h"

#ifdef __AVX512BF16__

/* logits [N, size] = x head^T, of x in blocks and the slice of the head in panels; the rest as `trilaw_exponentials` has it, kept is bfloat16. */
void trilaw_head(long inputs, long tokens, long size, const uint32_t *x, const uint32_t *head, const int64_t *targets, long first, float *top, float *total,
                 float *found, char *kept, int threads) {
    long panels = (size + PANEL - 1) / PANEL, twos = (inputs + 1) / 2;
#pragma omp parallel num_threads(threads)
    {
        float *logits = aligned_alloc(64, (size_t)(ROWS * panels * PANEL) * sizeof(float));
#pragma omp for schedule(dynamic, 1)
        for (long row = 0; row < tokens; row += ROWS) {
            for (long panel = 0; panel < panels; panel++) {
                v16 sums[ROWS][8];
                multiply_rows(ROWS, 1, HALVES, 1, 4 * twos, (const char *)(x + row * twos), 4, 4 * ROWS, (const char *)(head + panel * PANEL * twos), 0, sums);
#pragma GCC unroll 16
                for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
                    for (int c = 0; c < 2; c++) store(logits, (r * panels + panel) * PANEL + c * LANES, sums[r][c], 0);
            }
            for (long r = row; r < row + ROWS && r < tokens; r++) {
                const float *from = logits + (r - row) * panels * PANEL;
                if (targets[r] >= first && targets[r] < first + size) found[r] = from[targets[r] - first];
                exponentials(from, size, top + r, total + r, kept + 2 * r * size, 1);
            }
        }
        free(logits);
    }
}

#endif
