/* matmul_avx512.c - float products, 16 lanes at a time. Any thread.
 *
 * Column c is added in lane c mod 16, each lane in order, the lanes in one fixed tree at the end. How many
 * rows and outputs a tile has changes which registers hold the lanes and nothing else. */
#include <immintrin.h>

#include "ops/cpu/q8.h"
#include "ops/cpu/unroll.h"

typedef unsigned char u8;

static const u8 *weight_row(const bw_weight *w, int row)
{
    return (const u8 *)w->data + (size_t)row * bw_dtype_row_bytes(w->type, (uint64_t)w->cols);
}

INLINE void put(float *y, __m512 lanes, bool add)
{
    const float sum = _mm512_reduce_add_ps(lanes);
    *y = add ? *y + sum : sum;
}

/* ---- floats ---- */

/* Columns c .. c + 15 of a row of floats, widened; those outside `lanes` are zero */
INLINE __m512 load_weights(bw_dtype type, const u8 *row, int c, __mmask16 lanes)
{
    if (type == BW_F32)
        return _mm512_maskz_loadu_ps(lanes, row + 4 * (size_t)c);
    const __m256i halves = _mm256_maskz_loadu_epi16(lanes, row + 2 * (size_t)c);
    if (type == BW_F16)
        return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

INLINE void float_step(__m512 (*sums)[4], bw_dtype type, int n_out, int n, const u8 *w, size_t w_stride, const float *x,
                       size_t x_stride, int c, __mmask16 lanes)
{
    __m512 weights[4];
    UNROLL for (int o = 0; o < n_out; o++)
        weights[o] = load_weights(type, w + (size_t)o * w_stride, c, lanes);
    UNROLL for (int r = 0; r < n; r++) {
        const __m512 values = _mm512_maskz_loadu_ps(lanes, x + (size_t)r * x_stride + c);
        UNROLL for (int o = 0; o < n_out; o++)
            sums[o][r] = _mm512_fmadd_ps(weights[o], values, sums[o][r]);
    }
}

/* n_out <= 4 weight rows by n <= 4 rows */
INLINE void float_tile(bw_dtype type, int n_out, int n, float *y, size_t y_stride, const u8 *w, size_t w_stride,
                       const float *x, int cols, bool add)
{
    __m512 sums[4][4];
    UNROLL for (int o = 0; o < n_out; o++)
        UNROLL for (int r = 0; r < n; r++)
            sums[o][r] = _mm512_setzero_ps();
    /* The processor does not see that short rows four at a time are one stream: ask for the next tiles in
     * order, at least 8 KiB on. lamb takes 1.84 s without and 0.83 s with it (docs/performance.md). */
    const size_t tile = (size_t)n_out * w_stride;
    const char *next = (const char *)w + (8191 / tile + 1) * tile;
    const int size = type == BW_F32 ? 4 : 2;
    int c = 0;
    for (; c + 16 <= cols; c += 16) {
        UNROLL for (int line = 0; line < n_out * size * 16 / 64; line++)
            _mm_prefetch(next + n_out * size * c + 64 * line, _MM_HINT_T1);
        float_step(sums, type, n_out, n, w, w_stride, x, (size_t)cols, c, 0xFFFF);
    }
    if (c < cols)
        float_step(sums, type, n_out, n, w, w_stride, x, (size_t)cols, c, (__mmask16)((1u << (cols - c)) - 1));
    UNROLL for (int r = 0; r < n; r++)
        UNROLL for (int o = 0; o < n_out; o++)
            put(&y[(size_t)r * y_stride + (size_t)o], sums[o][r], add);
}

/* Any number of weight rows by n <= 4 rows */
INLINE void float_outputs(bw_dtype type, int n, float *y, size_t y_stride, const u8 *w, size_t w_stride, int n_out,
                          const float *x, int cols, bool add)
{
    int o = 0;
    for (; o + 4 <= n_out; o += 4)
        float_tile(type, 4, n, y + o, y_stride, w + (size_t)o * w_stride, w_stride, x, cols, add);
    for (; o < n_out; o++)
        float_tile(type, 1, n, y + o, y_stride, w + (size_t)o * w_stride, w_stride, x, cols, add);
}

INLINE void float_block(bw_dtype type, float *y, size_t y_stride, const u8 *w, size_t w_stride, int n_out, const float *x,
                        int n, int cols, bool add)
{
    int r = 0;
    for (; r + 4 <= n; r += 4)
        float_outputs(type, 4, y + (size_t)r * y_stride, y_stride, w, w_stride, n_out, x + (size_t)r * (size_t)cols, cols, add);
    y += (size_t)r * y_stride;
    x += (size_t)r * (size_t)cols;
    switch (n - r) {
    case 1: float_outputs(type, 1, y, y_stride, w, w_stride, n_out, x, cols, add); break;
    case 2: float_outputs(type, 2, y, y_stride, w, w_stride, n_out, x, cols, add); break;
    case 3: float_outputs(type, 3, y, y_stride, w, w_stride, n_out, x, cols, add); break;
    default: break;
    }
}

enum { WIDENED_ROWS = 8 };

static void matmul_float(float *y, size_t y_stride, const bw_weight *w, int first, int n_out, const float *x, int n,
                         bool add, void *scratch)
{
    const u8 *rows = weight_row(w, first);
    const size_t stride = bw_dtype_row_bytes(w->type, (uint64_t)w->cols), cols = (size_t)w->cols;
    switch (w->type) {
    case BW_F32: float_block(BW_F32, y, y_stride, rows, stride, n_out, x, n, w->cols, add); return;
    case BW_F16: float_block(BW_F16, y, y_stride, rows, stride, n_out, x, n, w->cols, add); return;
    case BW_BF16: float_block(BW_BF16, y, y_stride, rows, stride, n_out, x, n, w->cols, add); return;
    default: break;
    }
    for (int o = 0; o < n_out; o += WIDENED_ROWS) {
        const int some = n_out - o < WIDENED_ROWS ? n_out - o : WIDENED_ROWS;
        for (int i = 0; i < some; i++)
            bw_q8_widen_row_avx2((float *)scratch + (size_t)i * cols, w->type, rows + (size_t)(o + i) * stride, w->cols);
        float_block(BW_F32, y + o, y_stride, scratch, cols * sizeof(float), some, x, n, w->cols, add);
    }
}

static size_t matmul_scratch_bytes(int max_cols)
{
    return WIDENED_ROWS * (size_t)max_cols * sizeof(float);
}

void bw_cpu_fill_avx512_matmul(bw_cpu_kernels *k)
{
    k->matmul_float = matmul_float;
    k->matmul_scratch_bytes = matmul_scratch_bytes;
}
