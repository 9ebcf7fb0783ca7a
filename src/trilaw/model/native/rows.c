/* What stands between the matrix products of a Llama block, one pass over memory each. N rows; a matrix may have rows further apart than
they are long (`step`, in numbers). */
#include <stdlib.h>

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

INLINE void turn(void *x, const float *cos, const float *sin, float sign, long size, int half) {
    long middle = size / 2, whole = middle / LANES * LANES;
    for (long i = 0; i < whole; i += LANES) {
        v16 a = load(x, i, half), b = load(x, middle + i, half), c = load(cos, i, 0), s = load(sin, i, 0) * sign;
        store(x, i, a * c - b * s, half);
        store(x, middle + i, b * c + a * s, half);
    }
    for (long i = whole; i < middle; i++) {
        float a = get(x, i, half), b = get(x, middle + i, half);
        put(x, i, a * cos[i] - b * sign * sin[i], half);
        put(x, middle + i, b * cos[i] + a * sign * sin[i], half);
    }
}

/* Rotary positions, in place: dimension i of a head is paired with i + size / 2. x [N, heads, size], rows `step` apart; cos, sin [N, size / 2], rows
`table` apart. sign: -1 turns back. */
void trilaw_rotate(long rows, long heads, long size, void *x, long step, const float *cos, const float *sin, long table, float sign, int half, int threads) {
    long width = half ? 2 : 4;
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long i = 0; i < rows; i++)
        for (long h = 0; h < heads; h++) {
            char *to = (char *)x + (i * step + h * size) * width;
            const float *c = cos + i * table, *s = sin + i * table;
            if (half) turn(to, c, s, sign, size, 1);
            else turn(to, c, s, sign, size, 0);
        }
}

INLINE void gated_slopes(const void *gate, const void *up, const void *slope, void *d_gate, void *d_up, void *inner, long size, int half) {
    long whole = size / LANES * LANES;
    for (long i = 0; i < whole; i += LANES) {
        v16 g = load(gate, i, half), u = load(up, i, half), d = load(slope, i, half), s = sigmoid(g), active = g * s;
        store(inner, i, active * u, half);
        store(d_up, i, d * active, half);
        store(d_gate, i, d * u * (s + active * (1.0f - s)), half);
    }
    for (long i = whole; i < size; i++) {
        float g = get(gate, i, half), u = get(up, i, half), d = get(slope, i, half), s = 1.0f / (1.0f + expf(-g));
        put(inner, i, g * s * u, half);
        put(d_up, i, d * g * s, half);
        put(d_gate, i, d * u * (s + g * s * (1.0f - s)), half);
    }
}

/* The gradients of gate and up from that of silu(gate) up, and silu(gate) up again; all [N, size]. */
void trilaw_gated_slopes(long rows, long size, const char *gate, const char *up, const char *slope, char *d_gate, char *d_up, char *inner, int half, int threads) {
    long width = size * (half ? 2 : 4);
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long i = 0; i < rows; i++) {
        long at = i * width;
        if (half) gated_slopes(gate + at, up + at, slope + at, d_gate + at, d_up + at, inner + at, size, 1);
        else gated_slopes(gate + at, up + at, slope + at, d_gate + at, d_up + at, inner + at, size, 0);
    }
}

/* With s = 1 / rms(x): dx = s w g - x s^3 <w g, x> / size; d_weight += s g x. */
INLINE void norm_slope(const float *x, const float *weight, float eps, const void *slope, float *d_x, float *d_weight, long size, int half) {
    long whole = size / LANES * LANES;
    v16 squares = all(0.0f), both = all(0.0f);
    float rest = 0, along = 0;
    for (long i = 0; i < whole; i += LANES) {
        v16 y = load(x, i, 0);
        squares += y * y;
        both += y * load(weight, i, 0) * load(slope, i, half);
    }
    for (long i = whole; i < size; i++) {
        rest += x[i] * x[i];
        along += x[i] * weight[i] * get(slope, i, half);
    }
    float scale = 1.0f / sqrtf((sum(squares) + rest) / (float)size + eps);
    float part = (sum(both) + along) * scale * scale * scale / (float)size;
    for (long i = 0; i < whole; i += LANES) {
        v16 y = load(x, i, 0), g = load(slope, i, half) * scale;
        store(d_x, i, g * load(weight, i, 0) - y * part, 0);
        store(d_weight, i, load(d_weight, i, 0) + g * y, 0);
    }
    for (long i = whole; i < size; i++) {
        float g = get(slope, i, half) * scale;
        d_x[i] = g * weight[i] - x[i] * part;
        d_weight[i] += g * x[i];
    }
}

/* The gradients of x [N, size] and of weight [size] from that of weight x / rms(x). d_weight is summed in an order that only `threads` decides. */
void trilaw_norm_slopes(long rows, long size, const float *x, const float *weight, float eps, const char *slope, float *d_x, float *d_weight, int half, int threads) {
    float *parts = calloc((size_t)(threads * size), sizeof(float));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++)
        for (long i = rows * t / threads; i < rows * (t + 1) / threads; i++) {
            long at = i * size;
            if (half) norm_slope(x + at, weight, eps, slope + 2 * at, d_x + at, parts + t * size, size, 1);
            else norm_slope(x + at, weight, eps, slope + 4 * at, d_x + at, parts + t * size, size, 0);
        }
    memset(d_weight, 0, (size_t)size * sizeof(float));
    for (int t = 0; t < threads; t++)
        for (long i = 0; i < size; i++) d_weight[i] += parts[t * size + i];
    free(parts);
}
