/* One row of logits as softmax takes it: its largest, and the exponentials of how far the others are below. */
#ifndef TRILAW_SOFTMAX_H
#define TRILAW_SOFTMAX_H

#include "vector.h"

/* kept = exp(logits - top), which may be logits itself if it is float32; total is their sum. */
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

#endif
