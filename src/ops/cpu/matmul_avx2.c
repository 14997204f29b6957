/* matmul_avx2.c - float products, 8 lanes at a time. Any thread.
 *
 * Column c is added in lane c mod 8, each lane in order, the lanes in one fixed tree at the end. How many rows
 * and outputs a tile has changes which registers hold the lanes and nothing else. */
#include <immintrin.h>
#include <string.h>

#include "ops/cpu/q8.h"
#include "ops/cpu/unroll.h"

typedef unsigned char u8;

static const u8 *weight_row(const bw_weight *w, int row)
{
    return (const u8 *)w->data + (size_t)row * bw_dtype_row_bytes(w->type, (uint64_t)w->cols);
}

INLINE void put(float *y, __m256 lanes, bool add)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    const float sum = _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
    *y = add ? *y + sum : sum;
}

/* ---- floats ---- */

INLINE __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Columns c .. c + n - 1 (n <= 8) of a row of floats, widened; the other lanes are zero */
INLINE __m256 load_weights(bw_dtype type, const u8 *row, int c, int n)
{
    if (type == BW_F32)
        return n == 8 ? _mm256_loadu_ps((const float *)(const void *)(row + 4 * (size_t)c))
                      : _mm256_maskload_ps((const float *)(const void *)(row + 4 * (size_t)c), first_lanes(n));
    __m128i halves = _mm_setzero_si128();
    if (n == 8)
        halves = _mm_loadu_si128((const __m128i *)(row + 2 * (size_t)c));
    else
        memcpy(&halves, row + 2 * (size_t)c, 2 * (size_t)n);
    if (type == BW_F16)
        return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

INLINE void float_step(__m256 (*sums)[4], bw_dtype type, int n_out, int n, const u8 *w, size_t w_stride, const float *x,
                       size_t x_stride, int c, int width)
{
    __m256 weights[4];
    UNROLL for (int o = 0; o < n_out; o++)
        weights[o] = load_weights(type, w + (size_t)o * w_stride, c, width);
    UNROLL for (int r = 0; r < n; r++) {
        const __m256 values = width == 8 ? _mm256_loadu_ps(x + (size_t)r * x_stride + c)
                                         : _mm256_maskload_ps(x + (size_t)r * x_stride + c, first_lanes(width));
        UNROLL for (int o = 0; o < n_out; o++)
            sums[o][r] = _mm256_fmadd_ps(weights[o], values, sums[o][r]);
    }
}

/* n_out <= 4 weight rows by n <= 4 rows, 12 sums at most */
INLINE void float_tile(bw_dtype type, int n_out, int n, float *y, size_t y_stride, const u8 *w, size_t w_stride,
                       const float *x, int cols, bool add)
{
    __m256 sums[4][4];
    UNROLL for (int o = 0; o < n_out; o++)
        UNROLL for (int r = 0; r < n; r++)
            sums[o][r] = _mm256_setzero_ps();
    /* as in matmul_avx512.c: rows four at a time are one stream */
    const size_t tile = (size_t)n_out * w_stride;
    const char *next = (const char *)w + (8191 / tile + 1) * tile;
    const int bytes = n_out * 8 * (type == BW_F32 ? 4 : 2); /* a step reads */
    int c = 0;
    for (int at = 0; c + 8 <= cols; c += 8, at += bytes) {
        UNROLL for (int line = 0; line < bytes; line += 64)
            _mm_prefetch(next + at + line, _MM_HINT_T1);
        float_step(sums, type, n_out, n, w, w_stride, x, (size_t)cols, c, 8);
    }
    if (c < cols)
        float_step(sums, type, n_out, n, w, w_stride, x, (size_t)cols, c, cols - c);
    UNROLL for (int r = 0; r < n; r++)
        UNROLL for (int o = 0; o < n_out; o++)
            put(&y[(size_t)r * y_stride + (size_t)o], sums[o][r], add);
}

INLINE void float_outputs(bw_dtype type, int n, float *y, size_t y_stride, const u8 *w, size_t w_stride, int n_out,
                          const float *x, int cols, bool add)
{
    int o = 0;
    for (; n == 4 && o + 3 <= n_out; o += 3)
        float_tile(type, 3, n, y + o, y_stride, w + (size_t)o * w_stride, w_stride, x, cols, add);
    for (; n < 4 && o + 4 <= n_out; o += 4)
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
    for (; r + 2 <= n; r += 2)
        float_outputs(type, 2, y + (size_t)r * y_stride, y_stride, w, w_stride, n_out, x + (size_t)r * (size_t)cols, cols, add);
    if (r < n)
        float_outputs(type, 1, y + (size_t)r * y_stride, y_stride, w, w_stride, n_out, x + (size_t)r * (size_t)cols, cols, add);
}

enum { WIDENED_ROWS = 12 }; /* tiles of 3 and of 4 fit */

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

void bw_cpu_fill_avx2_matmul(bw_cpu_kernels *k)
{
    k->matmul_float = matmul_float;
    k->matmul_scratch_bytes = matmul_scratch_bytes;
}
