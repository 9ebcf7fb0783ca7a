/* x W^T with a weight that lies in panels: of 8-bit integers (AVX512-VNNI) or of bfloat16 numbers (AVX512-BF16).

Either instruction takes four bytes of x and of a weight's row at a time: four integers, or two bfloat16 numbers. A panel holds 32 outputs,
and for every four bytes of their inputs 32 x 4 bytes side by side. Twelve rows of x go over a panel at a time, their sums in registers; panels
are taken in groups that stay in the second-level cache while all rows go by.

VNNI multiplies unsigned by signed bytes, into sums that cannot overflow here. The weights are the unsigned ones, 128 added to each; 128 times
the sum of a row of x is taken off again.

bfloat16 sums are float32 and may leave as such, where PyTorch's product rounds them: a token's log-probability should not suffer that.
*/
#include <stdlib.h>

#include "vector.h"

#ifdef __AVX512VNNI__
#include <immintrin.h>

#define PANEL 32
#define MOST 12 /* rows at a time */
#define GROUP (256 << 10) /* bytes */

/* What a product is made of; `x_scale`, `x_sum` and `scale` are of integers only. Sizes in bytes: `inputs` of a row of x. */
typedef struct {
    long inputs, outputs;
    const char *x; /* as `multiply` puts it */
    const float *x_scale;
    const int32_t *x_sum;
    const char *panels;
    const float *scale, *bias;
    char *y;
    int half; /* y is bfloat16 */
} Product;

INLINE __m512i dot(__m512i sum, __m512i w, __m512i x, const int whole) {
#ifdef __AVX512BF16__
    if (!whole) return _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), (__m512bh)w, (__m512bh)x));
#endif
    return _mm512_dpbusd_epi32(sum, w, x);
}

/* R rows from `row` on, times C panels from `panel` on. whole: integers. */
INLINE void piece(const Product *p, long row, long panel, const int R, const int C, const int whole) {
    long inputs = p->inputs;
    const char *x = p->x + row * inputs, *panels = p->panels + panel * PANEL * inputs;
    __m512i sums[MOST][8];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int c = 0; c < 2 * C; c++) sums[r][c] = _mm512_setzero_si512();
#pragma GCC unroll 1
    for (long i = 0; i < inputs; i += 4) {
        __m512i w[8];
        for (int c = 0; c < C; c++) {
            w[2 * c] = _mm512_loadu_si512(panels + (c * inputs + i) * PANEL);
            w[2 * c + 1] = _mm512_loadu_si512(panels + (c * inputs + i) * PANEL + 64);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            int32_t four;
            memcpy(&four, x + i * R + 4 * r, 4);
            __m512i each = _mm512_set1_epi32(four);
            for (int c = 0; c < 2 * C; c++) sums[r][c] = dot(sums[r][c], w[c], each, whole);
        }
    }
    __m512i done[MOST][8]; /* what the loop below picks from; the sums themselves stay in registers */
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int c = 0; c < 2 * C; c++) done[r][c] = sums[r][c];
    for (int r = 0; r < R; r++)
        for (int c = 0; c < 2 * C; c++) {
            long at = panel * PANEL + c * LANES, here = (row + r) * p->outputs + at, left = p->outputs - at;
            v16 result;
            if (whole) {
                __m512i plain = _mm512_sub_epi32(done[r][c], _mm512_set1_epi32(128 * p->x_sum[row + r]));
                result = (v16)_mm512_cvtepi32_ps(plain) * (load(p->scale, at, 0) * p->x_scale[row + r]);
            } else {
                result = (v16)done[r][c];
            }
            if (p->bias) result += load(p->bias, at, 0);
            if (left >= LANES) {
                if (p->half) store(p->y, here, result, 1);
                else store(p->y, here, result, 0);
            } else {
                for (long e = 0; e < left; e++) put(p->y, here + e, result[e], p->half);
            }
        }
}

typedef void Piece(const Product *, long, long);
#define MAKE(NAME, R, C, WHOLE) \
    static __attribute__((noinline)) void NAME(const Product *p, long row, long panel) { piece(p, row, panel, R, C, WHOLE); }
#define MAKE_ALL(KIND, WHOLE) \
    MAKE(twelve_##KIND, 12, 1, WHOLE) \
    MAKE(eight_##KIND, 8, 1, WHOLE) \
    MAKE(four_##KIND, 4, 1, WHOLE) \
    MAKE(two_##KIND, 2, 1, WHOLE) \
    MAKE(one_##KIND, 1, 1, WHOLE) \
    MAKE(two_wide_##KIND, 2, 4, WHOLE) \
    MAKE(one_wide_##KIND, 1, 4, WHOLE)
MAKE_ALL(whole, 1)
static Piece *const of_integers[7] = {twelve_whole, eight_whole, four_whole, two_whole, one_whole, two_wide_whole, one_wide_whole};
#ifdef __AVX512BF16__
MAKE_ALL(float, 0)
static Piece *const of_floats[7] = {twelve_float, eight_float, four_float, two_float, one_float, two_wide_float, one_wide_float};
#endif

static const int size_of[] = {12, 8, 4, 2, 1};

/* Of a block of rows, when `left` are left: the largest that there is. */
static int kind(long left) {
    int which = 0;
    while (size_of[which] > left) which++;
    return which;
}

/* The rows of a block lie together, four bytes of each, then the next four. Few rows take four panels at a time: more sums that do not wait for each other, and more of the weight under way. */
static void multiply(const Product *p, long rows, Piece *const *kinds, int threads) {
    long count = (p->outputs + PANEL - 1) / PANEL, wide = rows <= 3 ? 4 : 1;
    long group = GROUP / (PANEL * p->inputs), share = count / (2 * threads); /* small enough for everybody to have work */
    group = (group < share ? group : share) / wide * wide;
    if (group < wide) group = wide;
    char *together = malloc((size_t)(rows * p->inputs));
    Product side = *p;
    side.x = together;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (long block = 0; block < (rows + MOST - 1) / MOST; block++)
            for (long r = block * MOST; r < rows && r < (block + 1) * MOST;) {
                int n = size_of[kind(rows - r)];
                for (long i = 0; i < p->inputs; i += 4)
                    for (int j = 0; j < n; j++) memcpy(together + r * p->inputs + i * n + 4 * j, p->x + (r + j) * p->inputs + i, 4);
                r += n;
            }
#pragma omp for schedule(dynamic, 1)
        for (long first = 0; first < count; first += group) {
            long end = first + group < count ? first + group : count;
            for (long r = 0; r < rows;) {
                int which = kind(rows - r);
                for (long panel = first; panel < end;) {
                    int four = wide == 4 && end - panel >= 4;
                    kinds[which + (four ? 2 : 0)](&side, r, panel);
                    panel += four ? 4 : 1;
                }
                r += size_of[which];
            }
        }
    }
    free(together);
}

/* y [rows, outputs] = x W^T scaled by x_scale [rows] and scale [outputs], plus bias unless it is NULL. x [rows, inputs] and its sums as
`trilaw_round_rows` leaves them; scale and bias are as long as the panels. */
void trilaw_product_of_bytes(long rows, long outputs, long inputs, const char *x, const float *x_scale, const int32_t *x_sum, const char *panels,
                             const float *scale, const float *bias, char *y, int half, int threads) {
    Product p = {inputs, outputs, x, x_scale, x_sum, panels, scale, bias, y, half};
    multiply(&p, rows, of_integers, threads);
}

#ifdef __AVX512BF16__
/* y [rows, outputs] = x W^T, plus bias unless it is NULL, which is as long as the panels; x [rows, inputs] in bfloat16, an even number of inputs. */
void trilaw_product_of_halves(long rows, long outputs, long inputs, const char *x, const char *panels, const float *bias, char *y, int half, int threads) {
    Product p = {2 * inputs, outputs, x, 0, 0, panels, 0, bias, y, half};
    multiply(&p, rows, of_floats, threads);
}
#endif
#endif
