/* The passes over a slice of the vocabulary that a token's log-probability and its gradient take (`training/logprobs.py`), one each.

N tokens; `size` words from word `first` on; a target may lie in the slice or not. */
#include "softmax.h"

/* logits [N, size] become exp(logits - top), in place; of each token the largest logit, the sum of the exponentials and the target's logit, if it is here. */
void trilaw_exponentials(long rows, long size, float *logits, const int64_t *targets, long first, float *top, float *total, float *found, int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long i = 0; i < rows; i++) {
        float *row = logits + i * size;
        if (targets[i] >= first && targets[i] < first + size) found[i] = row[targets[i] - first];
        exponentials(row, size, top + i, total + i, row, 0);
    }
}

INLINE void logit_slopes(void *kept, long size, float factor, long target, float slope, int half) {
    long whole = size / LANES * LANES;
    float own = target >= 0 && target < size ? get(kept, target, half) * factor + slope : 0;
    for (long i = 0; i < whole; i += LANES) store(kept, i, load(kept, i, half) * factor, half);
    for (long i = whole; i < size; i++) put(kept, i, get(kept, i, half) * factor, half);
    if (target >= 0 && target < size) put(kept, target, own, half);
}

/* kept = kept factor, plus slope at the target where it is here: the gradient of the logits, in place. */
void trilaw_logit_slopes(long rows, long size, char *kept, const float *factor, const int64_t *targets, long first, const float *slope, int half, int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long i = 0; i < rows; i++) {
        if (half) logit_slopes(kept + 2 * i * size, size, factor[i], targets[i] - first, slope[i], 1);
        else logit_slopes(kept + 4 * i * size, size, factor[i], targets[i] - first, slope[i], 0);
    }
}
