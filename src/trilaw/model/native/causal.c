/* Causal attention of whole sequences, forward and backward, for training and for reading prompts.

Everything is products of small matrices whose columns are 32 queries, one panel: scores come out transposed, [keys, queries], so that
softmax runs down the lanes with no sum across them, and probabilities leave the registers as the panel, or the rows, that the next product
reads. Only keys up to a block's last query are touched. Backward computes scores again (Dao et al. 2022, "FlashAttention", arXiv:2205.14135)
from the log-sum-exps that forward keeps. Products take what the inputs are, bfloat16 or float32; sums and softmax are float32.

Letters: R sequences of S tokens each, T = R S; H query heads, K key-value heads, G = H / K, E head size, a multiple of 32. Numbers of a token lie together,
tokens q_step, k_step, v_step apart.
*/
#include <stdlib.h>

#include "packing.h"

#define BLOCK PANEL /* queries at a time */

typedef struct {
    long sequences, tokens, kv_heads, queries, size, q_step, k_step, v_step;
    float scale;
    int half;
} Shape;

/* out [rows, BLOCK] = (or +=) x times a panel; `bytes` of inputs, rows of x `step` bytes apart, of out `to` floats. */
INLINE void multiply_kind(long rows, long bytes, const char *x, long step, const char *panel, float *out, long to, int add, const int kind) {
    for (long r = 0; r < rows;) {
        v16 sums[ROWS][8];
        const int most = ROWS < 8 ? ROWS : 8;
        int n = rows - r >= most ? most : 1;
        for (int j = 0; j < n; j++)
            for (int c = 0; c < 2; c++) sums[j][c] = add ? load(out, (r + j) * to + c * LANES, 0) : all(0.0f);
        if (n == 1) multiply_rows(1, 1, kind, 0, bytes, x + r * step, step, 4, panel, 0, sums);
        else multiply_rows(most, 1, kind, 0, bytes, x + r * step, step, 4, panel, 0, sums);
        for (int j = 0; j < n; j++)
            for (int c = 0; c < 2; c++) store(out, (r + j) * to + c * LANES, sums[j][c], 0);
        r += n;
    }
}

static void multiply(long rows, long bytes, const char *x, long step, const char *panel, float *out, long to, int add, int half) {
    if (half) multiply_kind(rows, bytes, x, step, panel, out, to, add, HALVES);
    else multiply_kind(rows, bytes, x, step, panel, out, to, add, FLOATS);
}

/* out [size, padded] = the columns of x [count, size] as rows, zeros after them. */
static void transpose(const char *x, long step, long count, long padded, long size, char *out, int half) {
    long width = half ? 2 : 4;
    memset(out, 0, (size_t)(size * padded * width));
    for (long r = 0; r < count; r++)
        for (long e = 0; e < size; e++) {
            if (half) ((uint16_t *)out)[e * padded + r] = ((const uint16_t *)(x + r * step))[e];
            else ((float *)out)[e * padded + r] = ((const float *)(x + r * step))[e];
        }
}

/* Scores [keys, BLOCK] of the block of queries from `first` on: times scale, and -inf where a key comes after a query. */
static void scores(const Shape *s, const char *keys, const char *queries, long first, long count, float *out) {
    long width = s->half ? 2 : 4;
    multiply(count, s->size * width, keys, s->k_step * width, queries, out, BLOCK, 0, s->half);
    for (long k = 0; k < count; k++)
        for (int c = 0; c < 2; c++) {
            v16 x = load(out, k * BLOCK + c * LANES, 0) * s->scale;
            const i16x lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
            if (k > first) x = choose(lane + (int32_t)(first + c * LANES) < (int32_t)k, all(-INFINITY), x);
            store(out, k * BLOCK + c * LANES, x, 0);
        }
}

/* One key-value head of one sequence. y [T, H, E]; lse [R, H, S] or NULL. */
static void forward(const Shape *s, long sequence, long head, const char *q, const char *k, const char *v, char *y, float *lse) {
    long width = s->half ? 2 : 4, S = s->tokens, E = s->size, H = s->kv_heads * s->queries, padded = (S + 1) / 2 * 2;
    const char *keys = k + (sequence * S * s->k_step + head * E) * width, *values = v + (sequence * S * s->v_step + head * E) * width;
    char *values_ES = malloc((size_t)(E * padded * width)), *queries = malloc((size_t)(E * PANEL * width));
    float *score = aligned_alloc(64, (size_t)(S + 1) * BLOCK * 4), *found = aligned_alloc(64, (size_t)E * BLOCK * 4);
    char *panel = malloc((size_t)(S + 1) * STEP);
    transpose(values, s->v_step * width, S, padded, E, values_ES, s->half);
    for (long g = 0; g < s->queries; g++)
        for (long first = 0; first < S; first += BLOCK) {
            long here = S - first < BLOCK ? S - first : BLOCK, count = first + here, even = (count + 1) / 2 * 2, h = head * s->queries + g;
            panel_of_rows(q + ((sequence * S + first) * s->q_step + h * E) * width, s->q_step * width, here, E * width, queries);
            scores(s, keys, queries, first, count, score);
            if (even > count) /* bfloat16 goes in pairs */
                for (int i = 0; i < BLOCK; i++) score[count * BLOCK + i] = -INFINITY;
            v16 most[2], total[2], part[2];
            for (int c = 0; c < 2; c++) {
                most[c] = load(score, c * LANES, 0);
                for (long at = 1; at < count; at++) most[c] = largest(load(score, at * BLOCK + c * LANES, 0), most[c]);
                total[c] = all(0.0f);
                for (long at = 0; at < even; at++) {
                    v16 p = exponential(load(score, at * BLOCK + c * LANES, 0) - most[c]);
                    total[c] += p;
                    store(score, at * BLOCK + c * LANES, p, 0);
                }
                part[c] = 1.0f / total[c];
            }
            for (long at = 0; at < (s->half ? even : count); at += s->half ? 2 : 1)
                for (int c = 0; c < 2; c++) {
                    v16 a = load(score, at * BLOCK + c * LANES, 0);
                    char *to = panel + at / (s->half ? 2 : 1) * STEP + 64 * c;
                    if (s->half) *(u16x_memory *)to = rounded(a) | (rounded(load(score, (at + 1) * BLOCK + c * LANES, 0)) << 16);
                    else store(to, 0, a, 0);
                }
            multiply(E, (s->half ? even : count) * width, values_ES, padded * width, panel, found, BLOCK, 0, s->half);
            for (long i = 0; i < here; i++) {
                long at = (sequence * S + first + i) * H * E + h * E;
                float scale = part[i / LANES][i % LANES];
                for (long e = 0; e < E; e++) put(y, at + e, found[e * BLOCK + i] * scale, s->half);
                if (lse) lse[(sequence * H + h) * S + first + i] = most[i / LANES][i % LANES] + logf(total[i / LANES][i % LANES]);
            }
        }
    free(values_ES), free(queries), free(score), free(found), free(panel);
}

/* One key-value head of one sequence: the gradients of q, k and v from that of y. slope and y [T, H, E]; d_q [T, H, E], d_k, d_v [T, K, E]. */
static void backward(const Shape *s, long sequence, long head, const char *q, const char *k, const char *v, const char *y, const float *lse,
                     const char *slope, char *d_q, char *d_k, char *d_v) {
    long width = s->half ? 2 : 4, pair = s->half ? 2 : 1, S = s->tokens, E = s->size, H = s->kv_heads * s->queries, padded = (S + 1) / 2 * 2;
    const char *keys = k + (sequence * S * s->k_step + head * E) * width, *values = v + (sequence * S * s->v_step + head * E) * width;
    char *keys_ES = malloc((size_t)(E * padded * width)), *queries = malloc((size_t)(E * PANEL * width)), *slopes = malloc((size_t)(E * PANEL * width));
    char *query_columns = malloc((size_t)(BLOCK * E * width)), *slope_columns = malloc((size_t)(BLOCK * E * width));
    char *p_rows = malloc((size_t)((S + 1) * BLOCK * width)), *d_rows = malloc((size_t)((S + 1) * BLOCK * width)), *panel = malloc((size_t)(S + 1) * STEP);
    float *score = aligned_alloc(64, (size_t)(S + 1) * BLOCK * 4), *d_p = aligned_alloc(64, (size_t)(S + 1) * BLOCK * 4);
    float *found = aligned_alloc(64, (size_t)E * BLOCK * 4);
    float *sum_k = calloc((size_t)(S * E), 4), *sum_v = calloc((size_t)(S * E), 4);
    transpose(keys, s->k_step * width, S, padded, E, keys_ES, s->half);
    for (long g = 0; g < s->queries; g++)
        for (long first = 0; first < S; first += BLOCK) {
            long here = S - first < BLOCK ? S - first : BLOCK, count = first + here, even = (count + 1) / 2 * 2, h = head * s->queries + g;
            const char *from_q = q + ((sequence * S + first) * s->q_step + h * E) * width;
            long at_y = ((sequence * S + first) * H + h) * E;
            panel_of_rows(from_q, s->q_step * width, here, E * width, queries);
            panel_of_rows(slope + at_y * width, H * E * width, here, E * width, slopes);
            float sums[BLOCK] = {0}, log_sums[BLOCK] = {0};
            for (long i = 0; i < here; i++) {
                v16 both = all(0.0f);
                for (long e = 0; e < E; e += LANES) both += load(slope + width * (at_y + i * H * E), e, s->half) * load(y + width * (at_y + i * H * E), e, s->half);
                sums[i] = sum(both);
                log_sums[i] = lse[(sequence * H + h) * S + first + i];
            }
            scores(s, keys, queries, first, count, score);
            multiply(count, E * width, values, s->v_step * width, slopes, d_p, BLOCK, 0, s->half);
            for (long at = 0; at < count; at++)
                for (int c = 0; c < 2; c++) {
                    long place = at * BLOCK + c * LANES;
                    v16 p = exponential(load(score, place, 0) - load(log_sums, c * LANES, 0));
                    v16 d = p * (load(d_p, place, 0) - load(sums, c * LANES, 0)) * s->scale;
                    for (int i = 0; i < LANES && here < BLOCK; i++)
                        if (c * LANES + i >= here) p[i] = d[i] = 0;
                    store(p_rows, place, p, s->half);
                    store(d_rows, place, d, s->half);
                }
            if (even > count) memset(d_rows + count * BLOCK * width, 0, (size_t)(BLOCK * width));
            panel_of_columns(d_rows, BLOCK * width, count, panel, s->half);
            multiply(E, (s->half ? even : count) * width, keys_ES, padded * width, panel, found, BLOCK, 0, s->half);
            for (long i = 0; i < here; i++)
                for (long e = 0; e < E; e++) put(d_q, at_y + i * H * E + e, found[e * BLOCK + i], s->half);
            for (long e = 0; e < E; e += PANEL) { /* 32 columns at a time; queries past the last one have no probability */
                long inputs = (here + pair - 1) / pair * pair;
                panel_of_columns(from_q + e * width, s->q_step * width, here, query_columns, s->half);
                panel_of_columns(slope + (at_y + e) * width, H * E * width, here, slope_columns, s->half);
                multiply(count, inputs * width, d_rows, BLOCK * width, query_columns, sum_k + e, E, 1, s->half);
                multiply(count, inputs * width, p_rows, BLOCK * width, slope_columns, sum_v + e, E, 1, s->half);
            }
        }
    for (long i = 0; i < S; i++)
        for (long e = 0; e < E; e += LANES) {
            long at = ((sequence * S + i) * s->kv_heads + head) * E + e;
            store(d_k, at, load(sum_k, i * E + e, 0), s->half);
            store(d_v, at, load(sum_v, i * E + e, 0), s->half);
        }
    free(keys_ES), free(queries), free(slopes), free(query_columns), free(slope_columns), free(p_rows), free(d_rows), free(panel);
    free(score), free(d_p), free(found), free(sum_k), free(sum_v);
}

void trilaw_causal(const Shape *s, const char *q, const char *k, const char *v, char *y, float *lse, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (long piece = 0; piece < s->sequences * s->kv_heads; piece++) forward(s, piece / s->kv_heads, piece % s->kv_heads, q, k, v, y, lse);
}

void trilaw_causal_backward(const Shape *s, const char *q, const char *k, const char *v, const char *y, const float *lse, const char *slope, char *d_q,
                            char *d_k, char *d_v, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (long piece = 0; piece < s->sequences * s->kv_heads; piece++)
        backward(s, piece / s->kv_heads, piece % s->kv_heads, q, k, v, y, lse, slope, d_q, d_k, d_v);
}
