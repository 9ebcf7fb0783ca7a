/* What stands between the matrix products of a Llama block, one pass over memory each. N rows; a matrix may have rows further apart than
they are long (`step`, in numbers). */
#include "vector.h"

INLINE void norm_row(float *x, const void *delta, const float *weight, float eps, void *out, long size, int half) {
    long whole = size / LANES * LANES;
    v16 squares = all(0.0f);
    float rest = 0;
    for (long i = 0; i < whole; i += LANES) {
        v16 y = load(x, i, 0);
        if (delta) {
            y += load(delta, i, half);
            store(x, i, y, 0);
        }
        squares += y * y;
    }
    for (long i = whole; i < size; i++) {
        if (delta) x[i] += get(delta, i, half);
        rest += x[i] * x[i];
    }
    float scale = 1.0f / sqrtf((sum(squares) + rest) / (float)size + eps);
    for (long i = 0; i < whole; i += LANES) store(out, i, load(x, i, 0) * scale * load(weight, i, 0), half);
    for (long i = whole; i < size; i++) put(out, i, x[i] * scale * weight[i], half);
}

/* x += delta (unless it is NULL), out = weight x / rms(x): the residual stream x [N, size] and weight in float32, the other two in either. */
void trilaw_add_norm(long rows, long size, float *x, const void *delta, const float *weight, float eps, void *out, int half, int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long i = 0; i < rows; i++) {
        long at = i * size;
        if (half) norm_row(x + at, delta ? (const uint16_t *)delta + at : 0, weight, eps, (uint16_t *)out + at, size, 1);
        else norm_row(x + at, delta ? (const float *)delta + at : 0, weight, eps, (float *)out + at, size, 0);
    }
}

INLINE void gated_row(const void *gate, const void *up, void *out, long size, int half) {
    long whole = size / LANES * LANES;
    for (long i = 0; i < whole; i += LANES) {
        v16 g = load(gate, i, half);
        store(out, i, g * sigmoid(g) * load(up, i, half), half);
    }
    for (long i = whole; i < size; i++) {
        float g = get(gate, i, half);
        put(out, i, g / (1.0f + expf(-g)) * get(up, i, half), half);
    }
}

/* out = silu(gate) up, [N, size]; the rows of gate and up lie `step` apart. */
void trilaw_gated(long rows, long size, const void *gate, const void *up, long step, void *out, int half, int threads) {
    long width = half ? 2 : 4;
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long i = 0; i < rows; i++) {
        const char *g = (const char *)gate + i * step * width, *u = (const char *)up + i * step * width;
        char *to = (char *)out + i * size * width;
        if (half) gated_row(g, u, to, size, 1);
        else gated_row(g, u, to, size, 0);
    }
}

INLINE void turn(void *x, const float *cos, const float *sin, long size, int half) {
    long middle = size / 2, whole = middle / LANES * LANES;
    for (long i = 0; i < whole; i += LANES) {
        v16 a = load(x, i, half), b = load(x, middle + i, half), c = load(cos, i, 0), s = load(sin, i, 0);
        store(x, i, a * c - b * s, half);
        store(x, middle + i, b * c + a * s, half);
    }
    for (long i = whole; i < middle; i++) {
        float a = get(x, i, half), b = get(x, middle + i, half);
        put(x, i, a * cos[i] - b * sin[i], half);
        put(x, middle + i, b * cos[i] + a * sin[i], half);
    }
}

/* Rotary positions, in place: dimension i of a head is paired with i + size / 2. x [N, heads, size], rows `step` apart; cos, sin [N, size / 2]. */
void trilaw_rotate(long rows, long heads, long size, void *x, long step, const float *cos, const float *sin, int half, int threads) {
    long width = half ? 2 : 4;
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long i = 0; i < rows; i++)
        for (long h = 0; h < heads; h++) {
            char *to = (char *)x + (i * step + h * size) * width;
            const float *c = cos + i * (size / 2), *s = sin + i * (size / 2);
            if (half) turn(to, c, s, size, 1);
            else turn(to, c, s, size, 0);
        }
}
