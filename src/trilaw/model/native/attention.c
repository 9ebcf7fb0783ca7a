/* Decoding attention: the newest token of each row over its shared prefix, which lies in pages, and its own tail.

Rows that share a prefix form a block; a block and a key-value head are one piece of work, in which a page is read once for all rows.
Softmax runs along (Milakov and Gimelshein 2018, arXiv:1805.02867): largest score, sum and weighted values so far are kept for each query and
scaled down when a larger score comes. Keys and values are read in the cache's format; all arithmetic is float32.

Letters: B rows, K key-value heads, G queries of each, E head size (a multiple of 16), S positions of a tail.
*/
#include <stdlib.h>

#include "vector.h"

#define TILE 32 /* positions at a time */
#define MOST 4  /* queries at a time */

/* Lane i of the result is the sum of a[i]: pairs are folded into one vector, four times over. */
INLINE v16 sums(v16 *a) {
    for (int i = 0; i < 8; i++)
        a[i] = __builtin_shufflevector(a[i], a[i + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               __builtin_shufflevector(a[i], a[i + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    for (int i = 0; i < 4; i++)
        a[i] = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
               __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    for (int i = 0; i < 2; i++)
        a[i] = __builtin_shufflevector(a[i], a[i + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
               __builtin_shufflevector(a[i], a[i + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    return __builtin_shufflevector(a[0], a[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
           __builtin_shufflevector(a[0], a[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}

/* gathered += weights values, for 32 `pairs` columns from e on. What stands at `next` is fetched meanwhile. */
INLINE void add(const int n, float weights[MOST][TILE], const void *values, const char *next, long count, long size, long e,
             const int pairs, float *gathered, int half) {
    v16 y[MOST][4];
    for (int j = 0; j < n; j++)
        for (int i = 0; i < 2 * pairs; i++) y[j][i] = load(gathered, j * size + e + i * LANES, 0);
#pragma GCC unroll 1
    for (long p = 0; p < count; p++) {
        for (long line = 0; line < 64 * pairs * (half ? 1 : 2); line += 64) __builtin_prefetch(next + (p * size + e) * (half ? 2 : 4) + line);
        for (int i = 0; i < pairs; i++) {
            v16 a, b;
            load_pair(values, p * size + e + 32 * i, &a, &b, half);
            for (int j = 0; j < n; j++) {
                y[j][2 * i] += a * weights[j][p];
                y[j][2 * i + 1] += b * weights[j][p];
            }
        }
    }
    for (int j = 0; j < n; j++)
        for (int i = 0; i < 2 * pairs; i++) store(gathered, j * size + e + i * LANES, y[j][i], 0);
}

/* `count` positions (TILE at most) for n queries [n, size]: their largest scores, sums and weighted values so far go on. */
INLINE void tile(const float *q, const int n, const void *keys, const void *values, const void *next, long count, long size, float *most,
                 float *total, float *gathered, int half) {
    float weights[MOST][TILE] = {{0}};
    for (long first = 0; first < count; first += LANES) {
        v16 parts[MOST][LANES];
#pragma GCC unroll 1
        for (int p = 0; p < LANES; p++) {
            long at = (first + p < count ? first + p : count - 1) * size; /* past the end: the last one again, masked below */
            v16 dot[MOST];
            for (int j = 0; j < n; j++) dot[j] = all(0.0f);
            for (long line = 0; line < size * (half ? 2 : 4); line += 64)
                __builtin_prefetch((const char *)values + at * (half ? 2 : 4) + line); /* needed after the keys */
            for (long e = 0; e < size / 32 * 32; e += 32) {
                v16 a, b;
                load_pair(keys, at + e, &a, &b, half);
                for (int j = 0; j < n; j++) dot[j] += load(q, j * size + e, 0) * a + load(q, j * size + e + LANES, 0) * b;
            }
            if (size % 32) {
                v16 key = load(keys, at + size - LANES, half);
                for (int j = 0; j < n; j++) dot[j] += load(q, j * size + size - LANES, 0) * key;
            }
            for (int j = 0; j < n; j++) parts[j][p] = dot[j];
        }
        for (int j = 0; j < n; j++) store(weights[j], first, sums(parts[j]), 0);
    }
    long padded = (count + LANES - 1) / LANES * LANES;
    for (int j = 0; j < n; j++) {
        for (long p = count; p < padded; p++) weights[j][p] = -INFINITY;
        v16 high = load(weights[j], 0, 0);
        for (long p = LANES; p < padded; p += LANES) high = largest(high, load(weights[j], p, 0));
        float top = peak(high);
        if (!(top > most[j])) top = most[j];
        v16 mass = all(0.0f);
        for (long p = 0; p < padded; p += LANES) {
            v16 weight = exponential(load(weights[j], p, 0) - top);
            store(weights[j], p, weight, 0);
            mass += weight;
        }
        float keep = exponential(all(most[j] - top))[0];
        most[j] = top;
        total[j] = total[j] * keep + sum(mass);
        for (long e = 0; e < size; e += LANES) store(gathered, j * size + e, load(gathered, j * size + e, 0) * keep, 0);
    }
    for (long e = 0; e < size / 64 * 64; e += 64) add(n, weights, values, next, count, size, e, 2, gathered, half);
    if (size % 64 >= 32) add(n, weights, values, next, count, size, size / 64 * 64, 1, gathered, half);
    if (size % 32)
        for (long p = 0; p < count; p++) {
            v16 value = load(values, p * size + size - LANES, half);
            for (int j = 0; j < n; j++) {
                long at = j * size + size - LANES;
                store(gathered, at, load(gathered, at, 0) + value * weights[j][p], 0);
            }
        }
}

/* One function for each number of queries, so that their sums stay in registers; heads of 64, the most common size, have their own. */
typedef void Tile(const float *, const void *, const void *, const void *, long, long, float *, float *, float *);
#define MAKE(NAME, N, SIZE, HALF)                                                                                                                   \
    static __attribute__((noinline)) void NAME(const float *q, const void *keys, const void *values, const void *next, long count, long size,       \
                                               float *most, float *total, float *gathered) {                                                        \
        (void)size;                                                                                                                                 \
        tile(q, N, keys, values, next, count, SIZE, most, total, gathered, HALF);                                                                   \
    }
MAKE(one_float, 1, size, 0)
MAKE(one_half, 1, size, 1)
MAKE(one_float_64, 1, 64, 0)
MAKE(two_float_64, 2, 64, 0)
MAKE(three_float_64, 3, 64, 0)
MAKE(four_float_64, 4, 64, 0)
MAKE(one_half_64, 1, 64, 1)
MAKE(two_half_64, 2, 64, 1)
MAKE(three_half_64, 3, 64, 1)
MAKE(four_half_64, 4, 64, 1)
#undef MAKE
static Tile *const of_64[2][MOST] = {{one_float_64, two_float_64, three_float_64, four_float_64}, {one_half_64, two_half_64, three_half_64, four_half_64}};

/* `count` positions for any number of queries; `after`: what will be read next. */
static void tiles(const float *q, long queries, const char *keys, const char *values, const char *after, long count, long size, float *most, float *total,
                  float *gathered, int half) {
    long width = half ? 2 : 4;
    for (long first = 0; first < count; first += TILE) {
        long here = count - first < TILE ? count - first : TILE, at = first * size * width;
        const char *next = first + TILE < count ? keys + at + TILE * size * width : after;
        for (long j = 0; j < queries;) {
            long n = size != 64 ? 1 : queries - j < MOST ? queries - j : MOST;
            Tile *run = size == 64 ? of_64[half][n - 1] : half ? one_half : one_float;
            run(q + j * size, keys + at, values + at, next, here, size, most + j, total + j, gathered + j * size);
            j += n;
        }
    }
}

/* One key-value head of the rows of a block. */
static void attend(long head, const int64_t *rows, long count, const int64_t *pages, long page_count, long page_size, const char *q, const char *k,
                   const char *v, long q_step, long k_step, long v_step, long kv_heads, long queries, long size, float scale, const char *page_keys,
                   const char *page_values, long slots, char *tail_keys, char *tail_values, long positions, const int64_t *place, char *out, int half) {
    long width = half ? 2 : 4, each = queries * (size + 2) + queries * size;
    float *memory = malloc(sizeof(float) * (size_t)(count * each));
    float *query = memory, *gathered = query + count * queries * size, *most = gathered + count * queries * size, *total = most + count * queries;
    for (long r = 0; r < count; r++) {
        const char *from = q + (rows[r] * q_step + head * queries * size) * width;
        float *to = query + r * queries * size;
        for (long j = 0; j < queries; j++, from += size * width, to += size) {
            for (long e = 0; e < size / 32 * 32; e += 32) {
                v16 a, b;
                load_pair(from, e, &a, &b, half);
                store_pair(to, e, a * scale, b * scale, 0);
            }
            if (size % 32) store(to, size - LANES, load(from, size - LANES, half) * scale, 0);
        }
        memset(gathered + r * queries * size, 0, sizeof(float) * (size_t)(queries * size));
        for (long j = 0; j < queries; j++) most[r * queries + j] = -INFINITY, total[r * queries + j] = 0;
    }
    for (long p = 0; p < page_count; p++) {
        long at = (head * slots + pages[p] * page_size) * size * width;
        for (long first = 0; first < page_size; first += TILE) {
            long here = page_size - first < TILE ? page_size - first : TILE, from = at + first * size * width;
            for (long r = 0; r < count; r++)
                tiles(query + r * queries * size, queries, page_keys + from, page_values + from, page_keys + from, here, size, most + r * queries, total + r * queries,
                      gathered + r * queries * size, half);
        }
    }
    for (long r = 0; r < count; r++) {
        long row = rows[r], at = (row * kv_heads + head) * positions * size * width, newest = at + place[row] * size * width;
        memcpy(tail_keys + newest, k + (row * k_step + head * size) * width, (size_t)(size * width));
        memcpy(tail_values + newest, v + (row * v_step + head * size) * width, (size_t)(size * width));
        const char *after = tail_keys + (r + 1 < count ? (rows[r + 1] * kv_heads + head) * positions * size * width : at);
        tiles(query + r * queries * size, queries, tail_keys + at, tail_values + at, after, place[row] + 1, size, most + r * queries, total + r * queries,
              gathered + r * queries * size, half);
        char *to = out + (row * kv_heads + head) * queries * size * width;
        for (long j = 0; j < queries; j++, to += size * width) {
            const float *y = gathered + (r * queries + j) * size;
            float part = 1 / total[r * queries + j];
            for (long e = 0; e < size / 32 * 32; e += 32) store_pair(to, e, load(y, e, 0) * part, load(y, e + LANES, 0) * part, half);
            if (size % 32) store(to, size - LANES, load(y, size - LANES, 0) * part, half);
        }
    }
    free(memory);
}

/* Stores the rows' new keys and values k, v [B, K, E] in their tails at place [B], and attends: out [B, K G, E].

Block b holds the rows row[starts[b]] .. row[starts[b + 1] - 1] and the pages page[page_starts[b]] .. page[page_starts[b + 1] - 1], all of
them full. Pages: [K, slots, E]; tails: [rows, K, positions, E]; q, k and v have rows q_step, k_step, v_step apart. */
void trilaw_attend(long blocks, const int64_t *starts, const int64_t *row, const int64_t *page_starts, const int64_t *page, long page_size, const char *q,
                   const char *k, const char *v, long q_step, long k_step, long v_step, long kv_heads, long queries, long size, float scale,
                   const char *page_keys, const char *page_values, long slots, char *tail_keys, char *tail_values, long positions, const int64_t *place,
                   char *out, int half, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (long piece = 0; piece < blocks * kv_heads; piece++) {
        long block = piece / kv_heads, head = piece % kv_heads;
        const int64_t *rows = row + starts[block], *pages = page + page_starts[block];
        long count = starts[block + 1] - starts[block], page_count = page_starts[block + 1] - page_starts[block];
        attend(head, rows, count, pages, page_count, page_size, q, k, v, q_step, k_step, v_step, kv_heads, queries, size, scale, page_keys, page_values,
               slots, tail_keys, tail_values, positions, place, out, half);
    }
}
