/* A token for each row of logits by the inverse of the cumulative distribution, in two passes over the logits and none over anything else.

Probabilities are summed in blocks: in float32 within a block, in float64 over blocks, and in float64 token by token within the block
that is hit, as in `engine/sampling.py`, which does the same by PyTorch's operators. */
#include <stdlib.h>

#include "vector.h"

#define BLOCK 128

INLINE void draw_row(const void *logits, long size, float heat, double u, int greedy, int64_t *token, float *logprob, double *until, int half) {
    long whole = size / LANES * LANES, blocks = (size + BLOCK - 1) / BLOCK;
    v16 high = all(-INFINITY);
    i16x broken = {};
    for (long i = 0; i < whole; i += LANES) {
        v16 x = load(logits, i, half);
        high = largest(x, high);
        broken |= (x != x);
    }
    float most = peak(high);
    for (long i = whole; i < size; i++) {
        float x = get(logits, i, half);
        most = x > most ? x : most;
        if (x != x) broken[0] = -1;
    }
    int bad = !(most < INFINITY) || !(most > -INFINITY);
    for (int i = 0; i < LANES; i++) bad |= broken[i];
    if (bad) {
        *token = 0;
        *logprob = NAN;
        return;
    }
    double total = 0;
    float cold = 1.0f / heat;
    for (long b = 0; b < blocks; b++) {
        long start = b * BLOCK, end = start + BLOCK < size ? start + BLOCK : size, stop = start + (end - start) / LANES * LANES;
        v16 mass = all(0.0f);
        for (long i = start; i < stop; i += LANES) mass += exponential((load(logits, i, half) - most) * cold);
        float block = sum(mass);
        for (long i = stop; i < end; i++) block += expf((get(logits, i, half) - most) * cold);
        total += block;
        until[b] = total;
    }
    long found = -1;
    if (greedy) {
        for (long i = 0; i < size && found < 0; i++)
            if (get(logits, i, half) == most) found = i;
    } else {
        double target = u * total;
        long b = 0;
        while (b < blocks - 1 && until[b] <= target) b++;
        long start = b * BLOCK, end = start + BLOCK < size ? start + BLOCK : size;
        double sofar = b ? until[b - 1] : 0;
        for (long i = start; i < end; i++) {
            float p = exponential(all((get(logits, i, half) - most) * cold))[0];
            if (p > 0) found = i; /* the last one of any weight, should rounding leave the target beyond the block */
            sofar += p;
            if (sofar > target && p > 0) break;
        }
    }
    *token = found;
    *logprob = (float)((double)((get(logits, found, half) - most) * cold) - log(total));
}

/* token, logprob [rows] from logits [rows, size]: temperature heat [rows], u in [0, 1) [rows]; where greedy [rows] (or NULL) is set, the first of
the likeliest. A row with a NaN or an infinite maximum gets a NaN logprob. */
void trilaw_draw(long rows, long size, const char *logits, const float *heat, const double *u, const uint8_t *greedy, int64_t *token, float *logprob, int half,
                 int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long i = 0; i < rows; i++) {
        double *until = malloc(sizeof(double) * (size_t)((size + BLOCK - 1) / BLOCK));
        const char *from = logits + i * size * (half ? 2 : 4);
        float warm = heat ? heat[i] : 1.0f;
        int cold = greedy && greedy[i];
        if (half) draw_row(from, size, warm, u[i], cold, token + i, logprob + i, until, 1);
        else draw_row(from, size, warm, u[i], cold, token + i, logprob + i, until, 0);
        free(until);
    }
}
