/* The passes over a slice of the vocabulary that a token's log-probability and its gradient take (`training/logprobs.py`), one each.

N tokens; `size` words from word `first` on; a target may lie in the slice or not. */
#include "vector.h"

INLINE void exponentials(const float *logits, long size, float *top, float *total, void *kept, int half) {
    long whole = size / LANES * LANES;
    v16 high = all(-INFINITY), mass = all(0.0f);
    float most = -INFINITY, rest = 0;
    for (long i = 0; i < whole; i += LANES) high = largest(load(logits, i, 0), high);
    for (long i = whole; i < size; i++) most = logits[i] > most ? logits[i] : most;
    most = peak(high) > most ? peak(high) : most;
    for (long i = 0; i < whole; i += LANES) {
        v16 e = exponential(load(logits, i, 0) - most);
        mass += e;
        store(kept, i, e, half);
    }
    for (long i = whole; i < size; i++) {
        float e = expf(logits[i] - most);
        rest += e;
        put(kept, i, e, half);
    }
    *top = most;
    *total = sum(mass) + rest;
}

/* kept = exp(logits - top) [N, size], which may be logits itself; top and the sum of kept for each token; found: the target's logit, where it is here. */
void trilaw_exponentials(long rows, long size, const float *logits, const int64_t *targets, long first, float *top, float *total, float *found, char *kept,
                         int half, int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long i = 0; i < rows; i++) {
        const float *from = logits + i * size;
        if (targets[i] >= first && targets[i] < first + size) found[i] = from[targets[i] - first];
        if (half) exponentials(from, size, top + i, total + i, kept + 2 * i * size, 1);
        else exponentials(from, size, top + i, total + i, kept + 4 * i * size, 0);
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
