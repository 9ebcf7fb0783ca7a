/* Causal attention of whole sequences, forward and backward, for training and for reading prompts.

Everything is products of small matrices (`panels.h`). 32 queries, a panel, at a time: scores come out transposed, [keys, queries], so that softmax
runs down the lanes with no sum across them, and what is made of scores leaves the registers in the order in which the next product reads it: as rows
of keys, or turned, so that a query's numbers for a pair of keys lie together. Only keys up to a block's last query are touched. Backward computes
scores again (Dao et al. 2022, "FlashAttention", arXiv:2205.14135) from the log-sum-exps that forward keeps. Products take what the inputs are, bfloat16 or
float32; sums and softmax are float32.

Letters: R sequences of S tokens each, T = R S; H query heads, K key-value heads, G = H / K, E head size, a multiple of 32. Numbers of a token lie together,
tokens q_step, k_step, v_step apart.
*/
#include <stdlib.h>

#include "packing.h"

#define BLOCK PANEL               /* queries at a time */
#define TALL (ROWS < 8 ? ROWS : 8) /* rows of a product at a time; the last ones go alone */

typedef struct {
    long sequences, tokens, kv_heads, queries, size, q_step, k_step, v_step;
    float scale;
    int half;
} Shape;

/* What it takes for one block of queries: `count` keys, those up to its last query. */
typedef struct {
    long first, here, count;
} Block;

static void *room(long bytes) { return aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64); }

/* All columns of x [S, E] as panels whose inputs are its rows. */
static void panels_of_columns(const char *x, long step, long count, long size, char *panels, long panel, int half) {
    for (long e = 0; e < size; e += PANEL) panel_of_columns(x + e * (half ? 2 : 4), step, count, panels + e / PANEL * panel, half);
}

/* Scores of R keys from `key` on: -inf where a key comes after a query. */
INLINE void score(const int R, const Block *b, long key, const char *keys, long step, const char *queries, long bytes, float scale, v16 scores[ROWS][8],
                  const int half) {
    multiply_rows(R, 1, half ? HALVES : FLOATS, 1, bytes, keys + key * step, step, 4, queries, 0, scores);
    const i16x lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++) scores[r][c] *= scale;
    if (key + R <= b->first) return;
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++)
            scores[r][c] = choose(lane + (int32_t)(b->first + c * LANES) < (int32_t)(key + r), all(-INFINITY), scores[r][c]);
}

/* R rows of `scores` to memory, and the largest of each query. */
INLINE void keep_scores(const int R, const Block *b, long key, const char *keys, long step, const char *queries, long bytes, float scale, float *out, v16 *most,
                        const int half) {
    v16 scores[ROWS][8];
    score(R, b, key, keys, step, queries, bytes, scale, scores, half);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++) {
            store(out, (key + r) * BLOCK + c * LANES, scores[r][c], 0);
            most[c] = largest(scores[r][c], most[c]);
        }
}

/* R queries from `row` on: out[r] = factor[r] (or 1) times the sum over keys of turned[key][r] x[key], 32 columns; rows `to` numbers apart. */
INLINE void gather_keys(const int R, long row, long here, long bytes, const char *turned, const char *x, const float *factor, void *out, long to, const int half) {
    v16 sums[ROWS][8];
    multiply_rows(R, 1, half ? HALVES : FLOATS, 1, bytes, turned + 4 * row, 4, STEP, x, 0, sums);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++)
            if (row + r < here) store(out, (row + r) * to + c * LANES, factor ? sums[r][c] * factor[row + r] : sums[r][c], half);
}

/* All queries of a block and all columns of x, which lies in panels. */
INLINE void gather(const Block *b, long bytes, const char *turned, const char *panels, long panel, long size, const float *factor, char *out, long to,
                   const int half) {
    for (long e = 0; e < size; e += PANEL)
        for (long row = 0; row < b->here;) {
            char *at = out + e * (half ? 2 : 4);
            if (BLOCK - row >= TALL) gather_keys(TALL, row, b->here, bytes, turned, panels + e / PANEL * panel, factor, at, to, half), row += TALL;
            else gather_keys(1, row, b->here, bytes, turned, panels + e / PANEL * panel, factor, at, to, half), row++;
        }
}

/* One key-value head of one sequence. y [T, H, E]; lse [R, H, S] or NULL. */
INLINE void forward(const Shape *s, long sequence, long head, const char *q, const char *k, const char *v, char *y, float *lse, const int half) {
    const long width = half ? 2 : 4, pair = half ? 2 : 1, S = s->tokens, E = s->size, H = s->kv_heads * s->queries, panel = (S + 1) / pair * STEP;
    const char *keys = k + (sequence * S * s->k_step + head * E) * width, *values = v + (sequence * S * s->v_step + head * E) * width;
    char *value_panels = room(E / PANEL * panel), *queries = room(E * PANEL * width), *turned = room(panel);
    float *scores = room((S + TALL) * BLOCK * 4);
    panels_of_columns(values, s->v_step * width, S, E, value_panels, panel, half);
    for (long g = 0; g < s->queries; g++)
        for (long first = 0; first < S; first += BLOCK) {
            const long here = S - first < BLOCK ? S - first : BLOCK, h = head * s->queries + g;
            const Block b = {first, here, first + here};
            panel_of_rows(q + ((sequence * S + first) * s->q_step + h * E) * width, s->q_step * width, here, E * width, queries);
            v16 most[2] = {all(-INFINITY), all(-INFINITY)}, total[2] = {{0}, {0}};
            for (long key = 0; key < b.count;) {
                if (b.count - key >= TALL) keep_scores(TALL, &b, key, keys, s->k_step * width, queries, E * width, s->scale, scores, most, half), key += TALL;
                else keep_scores(1, &b, key, keys, s->k_step * width, queries, E * width, s->scale, scores, most, half), key++;
            }
            for (long at = 0; at < b.count; at += pair)
#pragma GCC unroll 2
                for (int c = 0; c < 2; c++) {
                    v16 p = exponential(load(scores, at * BLOCK + c * LANES, 0) - most[c]), next = all(0.0f);
                    if (half && at + 1 < b.count) next = exponential(load(scores, (at + 1) * BLOCK + c * LANES, 0) - most[c]);
                    total[c] += p + next;
                    char *to = turned + at / pair * STEP + 64 * c;
                    if (half) *(u16x_memory *)to = rounded(p) | (rounded(next) << 16);
                    else store(to, 0, p, 0);
                }
            float part[BLOCK], mass[BLOCK], peaks[BLOCK];
            for (int c = 0; c < 2; c++) store(part, c * LANES, 1.0f / total[c], 0), store(mass, c * LANES, total[c], 0), store(peaks, c * LANES, most[c], 0);
            gather(&b, (b.count + pair - 1) / pair * 4, turned, value_panels, panel, E, part, y + ((sequence * S + first) * H + h) * E * width, H * E, half);
            for (long i = 0; i < here && lse; i++) lse[(sequence * H + h) * S + first + i] = peaks[i] + logf(mass[i]);
        }
    free(value_panels), free(queries), free(scores), free(turned);
}

/* One block's probabilities and the gradients of its scores: [keys, queries], and the latter turned too. */
typedef struct {
    char *p_rows, *d_rows, *turned;
} Slopes;

/* R keys from `key` on; R is even, or 1. */
INLINE void score_slopes(const int R, const Block *b, long key, const Shape *s, const char *keys, const char *values, const char *queries, const char *slopes,
                         const float *log_sums, const float *sums, const Slopes *to, const int half) {
    const long width = half ? 2 : 4, bytes = s->size * width;
    v16 scores[ROWS][8], d_p[ROWS][8];
    score(R, b, key, keys, s->k_step * width, queries, bytes, s->scale, scores, half);
    multiply_rows(R, 1, half ? HALVES : FLOATS, 1, bytes, values + key * s->v_step * width, s->v_step * width, 4, slopes, 0, d_p);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++) {
            v16 p = exponential(scores[r][c] - load(log_sums, c * LANES, 0)), d = p * (d_p[r][c] - load(sums, c * LANES, 0)) * s->scale;
            store(to->p_rows, (key + r) * BLOCK + c * LANES, p, half);
            store(to->d_rows, (key + r) * BLOCK + c * LANES, d, half);
            scores[r][c] = d;
        }
    if (half && R > 1) {
#pragma GCC unroll 16
        for (int r = 0; r + 1 < R; r += 2)
#pragma GCC unroll 2
            for (int c = 0; c < 2; c++)
                *(u16x_memory *)(to->turned + (key + r) / 2 * STEP + 64 * c) = rounded(scores[r][c]) | (rounded(scores[r + 1][c]) << 16);
    } else if (half) {
        uint16_t *at = (uint16_t *)(to->turned + key / 2 * STEP) + key % 2;
        for (int i = 0; i < BLOCK; i++) at[2 * i] = ((const uint16_t *)to->d_rows)[key * BLOCK + i];
    }
}

/* out [R keys, 32 columns] += rows [R keys, queries] times a panel of queries. */
INLINE void add_queries(const int R, long key, long bytes, const char *rows, const char *panel, float *out, long to, const int half) {
    v16 sums[ROWS][8];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++) sums[r][c] = load(out, (key + r) * to + c * LANES, 0);
    const long row = BLOCK * (half ? 2 : 4);
    multiply_rows(R, 1, half ? HALVES : FLOATS, 0, bytes, rows + key * row, row, 4, panel, 0, sums);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++) store(out, (key + r) * to + c * LANES, sums[r][c], 0);
}

INLINE void add_all_queries(const Block *b, long bytes, const char *rows, const char *panels, long panel, long size, float *out, const int half) {
    for (long e = 0; e < size; e += PANEL)
        for (long key = 0; key < b->count;) {
            if (b->count - key >= TALL) add_queries(TALL, key, bytes, rows, panels + e / PANEL * panel, out + e, size, half), key += TALL;
            else add_queries(1, key, bytes, rows, panels + e / PANEL * panel, out + e, size, half), key++;
        }
}

/* One key-value head of one sequence: the gradients of q, k and v from that of y. slope and y [T, H, E]; d_q [T, H, E], d_k, d_v [T, K, E]. */
INLINE void backward(const Shape *s, long sequence, long head, const char *q, const char *k, const char *v, const char *y, const float *lse, const char *slope,
                     char *d_q, char *d_k, char *d_v, const int half) {
    const long width = half ? 2 : 4, pair = half ? 2 : 1, S = s->tokens, E = s->size, H = s->kv_heads * s->queries, panel = (S + 1) / pair * STEP;
    const long block_panel = BLOCK / pair * STEP;
    const char *keys = k + (sequence * S * s->k_step + head * E) * width, *values = v + (sequence * S * s->v_step + head * E) * width;
    char *key_panels = room(E / PANEL * panel), *queries = room(E * PANEL * width), *slopes = room(E * PANEL * width);
    char *query_panels = room(E / PANEL * block_panel), *slope_panels = room(E / PANEL * block_panel);
    char *d_rows = room((S + 1) * BLOCK * width);
    const Slopes found = {room((S + 1) * BLOCK * width), d_rows, half ? room(panel) : d_rows}; /* float32 ones go alone, so both orders are one */
    float *sum_k = room(S * E * 4), *sum_v = room(S * E * 4);
    memset(sum_k, 0, (size_t)(S * E * 4)), memset(sum_v, 0, (size_t)(S * E * 4));
    panels_of_columns(keys, s->k_step * width, S, E, key_panels, panel, half);
    for (long g = 0; g < s->queries; g++)
        for (long first = 0; first < S; first += BLOCK) {
            const long here = S - first < BLOCK ? S - first : BLOCK, h = head * s->queries + g, at_y = ((sequence * S + first) * H + h) * E;
            const Block b = {first, here, first + here};
            const char *from_q = q + ((sequence * S + first) * s->q_step + h * E) * width, *from_slope = slope + at_y * width;
            panel_of_rows(from_q, s->q_step * width, here, E * width, queries);
            panel_of_rows(from_slope, H * E * width, here, E * width, slopes);
            panels_of_columns(from_q, s->q_step * width, here, E, query_panels, block_panel, half);
            panels_of_columns(from_slope, H * E * width, here, E, slope_panels, block_panel, half);
            float sums[BLOCK], log_sums[BLOCK];
            for (long i = 0; i < BLOCK; i++) {
                v16 both = all(0.0f);
                for (long e = 0; e < E && i < here; e += LANES) both += load(from_slope, i * H * E + e, half) * load(y, at_y + i * H * E + e, half);
                sums[i] = sum(both);
                log_sums[i] = i < here ? lse[(sequence * H + h) * S + first + i] : INFINITY; /* queries past the last one have no probability */
            }
            if (half && b.count % 2) memset(found.turned + b.count / 2 * STEP, 0, STEP);
            for (long key = 0; key < b.count;) {
                if (b.count - key >= TALL) score_slopes(TALL, &b, key, s, keys, values, queries, slopes, log_sums, sums, &found, half), key += TALL;
                else score_slopes(1, &b, key, s, keys, values, queries, slopes, log_sums, sums, &found, half), key++;
            }
            gather(&b, (b.count + pair - 1) / pair * 4, found.turned, key_panels, panel, E, 0, d_q + at_y * width, H * E, half);
            add_all_queries(&b, (here + pair - 1) / pair * 4, found.d_rows, query_panels, block_panel, E, sum_k, half);
            add_all_queries(&b, (here + pair - 1) / pair * 4, found.p_rows, slope_panels, block_panel, E, sum_v, half);
        }
    for (long i = 0; i < S; i++)
        for (long e = 0; e < E; e += LANES) {
            long at = ((sequence * S + i) * s->kv_heads + head) * E + e;
            store(d_k, at, load(sum_k, i * E + e, 0), half);
            store(d_v, at, load(sum_v, i * E + e, 0), half);
        }
    free(key_panels), free(queries), free(slopes), free(query_panels), free(slope_panels), free(found.p_rows), free(found.d_rows);
    if (half) free(found.turned);
    free(sum_k), free(sum_v);
}

void trilaw_causal(const Shape *s, const char *q, const char *k, const char *v, char *y, float *lse, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (long piece = 0; piece < s->sequences * s->kv_heads; piece++) {
        if (s->half) forward(s, piece / s->kv_heads, piece % s->kv_heads, q, k, v, y, lse, 1);
        else forward(s, piece / s->kv_heads, piece % s->kv_heads, q, k, v, y, lse, 0);
    }
}

void trilaw_causal_backward(const Shape *s, const char *q, const char *k, const char *v, const char *y, const float *lse, const char *slope, char *d_q,
                            char *d_k, char *d_v, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (long piece = 0; piece < s->sequences * s->kv_heads; piece++) {
        if (s->half) backward(s, piece / s->kv_heads, piece % s->kv_heads, q, k, v, y, lse, slope, d_q, d_k, d_v, 1);
        else backward(s, piece / s->kv_heads, piece % s->kv_heads, q, k, v, y, lse, slope, d_q, d_k, d_v, 0);
    }
}
