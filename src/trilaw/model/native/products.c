/* x W^T with a weight that lies in panels: of 8-bit integers (AVX512-VNNI) or of bfloat16 numbers (AVX512-BF16).

Twelve rows of x go over a panel (`panels.h`) at a time; panels are taken in groups that stay in the second-level cache while all rows go by.

VNNI multiplies unsigned by signed bytes, into sums that cannot overflow here. The weights are the unsigned ones, 128 added to each; 128 times
the sum of a row of x is taken off again.

bfloat16 sums are float32 and may leave as such, where PyTorch's product rounds them: a token's log-probability should not suffer that.
*/
#include <stdlib.h>

#include "panels.h"
#include "round.h"

#ifdef __AVX512VNNI__

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

/* R rows from `row` on, times C panels from `panel` on. */
INLINE void piece(const Product *p, long row, long panel, const int R, const int C, const int kind) {
    v16 sums[ROWS][8];
    multiply_rows(R, C, kind, 1, p->inputs, p->x + row * p->inputs, 4, 4 * R, p->panels + panel * PANEL * p->inputs, PANEL * p->inputs, sums);
    for (int r = 0; r < R; r++)
        for (int c = 0; c < 2 * C; c++) {
            long at = panel * PANEL + c * LANES, here = (row + r) * p->outputs + at, left = p->outputs - at;
            v16 result = sums[r][c];
            if (kind == BYTES) {
                i16x plain = (i16x)result - 128 * p->x_sum[row + r];
                result = __builtin_convertvector(plain, v16) * (load(p->scale, at, 0) * p->x_scale[row + r]);
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
#define MAKE(NAME, R, C, KIND) \
    static __attribute__((noinline)) void NAME(const Product *p, long row, long panel) { piece(p, row, panel, R, C, KIND); }
#define MAKE_ALL(NAME, KIND) \
    MAKE(twelve_##NAME, 12, 1, KIND) \
    MAKE(eight_##NAME, 8, 1, KIND) \
    MAKE(four_##NAME, 4, 1, KIND) \
    MAKE(two_##NAME, 2, 1, KIND) \
    MAKE(one_##NAME, 1, 1, KIND) \
    MAKE(two_wide_##NAME, 2, 4, KIND) \
    MAKE(one_wide_##NAME, 1, 4, KIND) \
    static Piece *const of_##NAME[7] = {twelve_##NAME, eight_##NAME, four_##NAME, two_##NAME, one_##NAME, two_wide_##NAME, one_wide_##NAME};
MAKE_ALL(bytes, BYTES)
#ifdef __AVX512BF16__
MAKE_ALL(halves, HALVES)
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
    char *together = rows > 1 ? malloc((size_t)(rows * p->inputs)) : 0; /* a single row lies as it should */
    long blocks = together ? (rows + ROWS - 1) / ROWS : 0;
    Product side = *p;
    if (together) side.x = together;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (long block = 0; block < blocks; block++)
            for (long r = block * ROWS; r < rows && r < (block + 1) * ROWS;) {
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

/* y [rows, outputs] = x W^T: each row of x [rows, size] is rounded with a scale of its own (`round.h`, with `rotate` and x_half as there) to `inputs` bytes, a
multiple of four; a weight's bytes are scaled by scale [outputs]. bias is added unless it is NULL; scale and bias are as long as the panels. */
void trilaw_product_of_bytes(long rows, long outputs, long size, long inputs, const char *x, int x_half, int rotate, const char *panels, const float *scale,
                             const float *bias, char *y, int half, int threads) {
    int8_t *whole = malloc((size_t)(rows * inputs));
    float *scales = malloc((size_t)rows * sizeof(float));
    int32_t *sums = malloc((size_t)rows * sizeof(int32_t));
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long i = 0; i < rows; i++) {
        if (x_half) round_row(x + 2 * i * size, size, inputs, rotate, whole + i * inputs, scales + i, sums + i, 1);
        else round_row(x + 4 * i * size, size, inputs, rotate, whole + i * inputs, scales + i, sums + i, 0);
    }
    Product p = {inputs, outputs, (const char *)whole, scales, sums, panels, scale, bias, y, half};
    multiply(&p, rows, of_bytes, threads);
    free(whole), free(scales), free(sums);
}

#ifdef __AVX512BF16__
/* y [rows, outputs] = x W^T, plus bias unless it is NULL, which is as long as the panels; x [rows, inputs] in bfloat16, an even number of inputs. */
void trilaw_product_of_halves(long rows, long outputs, long inputs, const char *x, const char *panels, const float *bias, char *y, int half, int threads) {
    Product p = {2 * inputs, outputs, x, 0, 0, panels, 0, bias, y, half};
    multiply(&p, rows, of_halves, threads);
}
#endif
#endif
