/* matmul_neon.c - float products, 8 sums of 4 lanes at a time. Any thread.
 *
 * Column c is added in lane c mod 8 (of two registers), each lane in order, the lanes in one fixed tree at
 * the end. How many rows and outputs a tile has changes which registers hold the lanes and nothing else. */
#include "base/dequant.h"
#include "ops/cpu/neon.h"
#include "ops/cpu/q8.h"

typedef unsigned char u8;

enum { READ_AHEAD = 1024 }; /* bytes of a weight row asked for before they are used */

static const u8 *weight_row(const bw_weight *w, int row)
{
    return (const u8 *)w->data + (size_t)row * bw_dtype_row_bytes(w->type, (uint64_t)w->cols);
}

/* Columns c .. c + n - 1 (n <= 8) of a row of weights, widened; the other lanes are zero. A row stands
 * anywhere: bytes are loaded. */
INLINE bw_neon_8 load_weights(bw_dtype type, const u8 *row, int c, int n)
{
    if (type == BW_F16)
        return bw_neon_8_load_f16(row + 2 * (size_t)c, n);
    u8 some[32] = { 0 };
    const size_t size = type == BW_F32 ? 4 : 2;
    const u8 *from = row + size * (size_t)c;
    if (n < 8) {
        memcpy(some, from, size * (size_t)n);
        from = some;
    }
    if (type == BW_F32)
        return (bw_neon_8){ vreinterpretq_f32_u8(vld1q_u8(from)), vreinterpretq_f32_u8(vld1q_u8(from + 16)) };
    const uint16x8_t halves = vreinterpretq_u16_u8(vld1q_u8(from));
    return (bw_neon_8){ vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(halves), 16)),
                        vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(halves), 16)) };
}

INLINE void float_step(bw_neon_8 (*sums)[2], bw_dtype type, int n_out, int n, const u8 *w, size_t w_stride,
                       const float *x, size_t x_stride, int c, int width)
{
    bw_neon_8 values[2];
    UNROLL for (int r = 0; r < n; r++)
        values[r] = bw_neon_8_load(x + (size_t)r * x_stride + c, width);
    UNROLL for (int o = 0; o < n_out; o++) {
        const bw_neon_8 weights = load_weights(type, w + (size_t)o * w_stride, c, width);
        UNROLL for (int r = 0; r < n; r++)
            sums[o][r] = bw_neon_8_fma(sums[o][r], weights, values[r]);
    }
}

/* n_out <= 4 weight rows by n <= 2 rows */
INLINE void float_tile(bw_dtype type, int n_out, int n, float *y, size_t y_stride, const u8 *w, size_t w_stride,
                       const float *x, int cols, bool add)
{
    const size_t step = 8 * (type == BW_F32 ? 4 : 2);
    bw_neon_8 sums[4][2];
    UNROLL for (int o = 0; o < n_out; o++)
        UNROLL for (int r = 0; r < n; r++)
            sums[o][r] = bw_neon_8_zero();
    int c = 0;
    for (size_t at = 0; c + 8 <= cols; c += 8, at += step) {
        if (at % 64 == 0)
            UNROLL for (int o = 0; o < n_out; o++)
                __builtin_prefetch(w + (size_t)o * w_stride + at + READ_AHEAD);
        float_step(sums, type, n_out, n, w, w_stride, x, (size_t)cols, c, 8);
    }
    if (c < cols)
        float_step(sums, type, n_out, n, w, w_stride, x, (size_t)cols, c, cols - c);
    UNROLL for (int r = 0; r < n; r++)
        UNROLL for (int o = 0; o < n_out; o++) {
            const float sum = vaddvq_f32(vaddq_f32(sums[o][r].low, sums[o][r].high));
            float *out = &y[(size_t)r * y_stride + (size_t)o];
            *out = add ? *out + sum : sum;
        }
}

INLINE void float_outputs(bw_dtype type, int n, float *y, size_t y_stride, const u8 *w, size_t w_stride, int n_out,
                          const float *x, int cols, bool add)
{
    int o = 0;
    for (; o + 4 <= n_out; o += 4)
        float_tile(type, 4, n, y + o, y_stride, w + (size_t)o * w_stride, w_stride, x, cols, add);
    for (; o < n_out; o++)
        float_tile(type, 1, n, y + o, y_stride, w + (size_t)o * w_stride, w_stride, x, cols, add);
}

INLINE void float_block(bw_dtype type, float *y, size_t y_stride, const u8 *w, size_t w_stride, int n_out,
                        const float *x, int n, int cols, bool add)
{
    int r = 0;
    for (; r + 2 <= n; r += 2)
        float_outputs(type, 2, y + (size_t)r * y_stride, y_stride, w, w_stride, n_out, x + (size_t)r * (size_t)cols, cols, add);
    if (r < n)
        float_outputs(type, 1, y + (size_t)r * y_stride, y_stride, w, w_stride, n_out, x + (size_t)r * (size_t)cols, cols, add);
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
            bw_dequantize_row(w->type, rows + (size_t)(o + i) * stride, (float *)scratch + (size_t)i * cols, cols);
        float_block(BW_F32, y + o, y_stride, scratch, cols * sizeof(float), some, x, n, w->cols, add);
    }
}

static size_t matmul_scratch_bytes(int max_cols)
{
    return WIDENED_ROWS * (size_t)max_cols * sizeof(float);
}

void bw_cpu_fill_neon_matmul(bw_cpu_kernels *k)
{
    k->matmul_float = matmul_float;
    k->matmul_scratch_bytes = matmul_scratch_bytes;
}
