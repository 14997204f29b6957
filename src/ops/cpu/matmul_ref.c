/* matmul_ref.c - norms, rounding and products as they are written down: scalar, sums in double. What
 * the other levels are checked against. Any thread. */
#include <math.h>
#include <string.h>

#include "base/dequant.h"
#include "base/half.h"
#include "ops/cpu/q8.h"

static void rms_norm(float *out, const float *x, const float *w, int n, int d, float eps)
{
    for (int r = 0; r < n; r++, x += d, out += d) {
        double sum = 0;
        for (int c = 0; c < d; c++)
            sum += (double)x[c] * x[c];
        const double factor = 1 / sqrt(sum / d + (double)eps);
        for (int c = 0; c < d; c++)
            out[c] = (float)(x[c] * factor * w[c]);
    }
}

/* The bits of |x| order like its value, with NaN above infinity. */
static float group_max(const float *x)
{
    uint32_t max = 0;
    for (int i = 0; i < BW_Q8_GROUP; i++) {
        uint32_t bits = bw_f32_bits(x[i]) & 0x7FFFFFFFu;
        max = bits > max ? bits : max;
    }
    return bw_f32_from_bits(max);
}

static int8_t round_to_int8(float v)
{
    if (!(v > -127.0f)) /* NaN too */
        return -127;
    return (int8_t)nearbyintf(v < 127.0f ? v : 127.0f);
}

static void quantize_group(int8_t *q, float *scale, int32_t *sum, int32_t *half, const float *x)
{
    const float max = group_max(x);
    *scale = max < 1.5e-36f ? 0 : max / 127.0f;
    *sum = *half = 0;
    for (int i = 0; i < BW_Q8_GROUP; i++) {
        int8_t v = *scale == 0 ? 0 : round_to_int8(x[i] / *scale);
        q[i] = v;
        *sum += v;
        *half += i < BW_Q8_GROUP / 2 ? v : 0;
    }
}

static void quantize(const bw_q8_rows *out, int n_all, const float *x, int first, int n, int cols)
{
    for (int r = first; r < first + n; r++, x += cols)
        for (int g = 0; g < cols / BW_Q8_GROUP; g++) {
            const size_t at = bw_q8_entry(n_all, cols, r, g);
            quantize_group(out->q + at * BW_Q8_GROUP, &out->scale[at], &out->sum[at], &out->half[at], x + BW_Q8_GROUP * g);
        }
}

static const unsigned char *weight_row(const bw_weight *w, int row)
{
    return (const unsigned char *)w->data + (size_t)row * bw_dtype_row_bytes(w->type, (uint64_t)w->cols);
}

static void matmul_float(float *y, size_t y_stride, const bw_weight *w, int first, int n_out, const float *x, int n,
                         bool add, void *scratch)
{
    float *row = scratch;
    for (int o = 0; o < n_out; o++) {
        bw_dequantize_row(w->type, weight_row(w, first + o), row, (size_t)w->cols);
        for (int r = 0; r < n; r++) {
            const float *xr = x + (size_t)r * (size_t)w->cols;
            double sum = 0;
            for (int c = 0; c < w->cols; c++)
                sum += (double)row[c] * xr[c];
            float *out = y + (size_t)r * y_stride + o;
            *out = add ? *out + (float)sum : (float)sum;
        }
    }
}

/* Group g of a chunk times 32 rounded columns at q, all in integers but the scales. */
static double group_product(const bw_q8_chunk *w, bw_dtype type, int g, const int8_t *q, float scale)
{
    int32_t dot[2] = { 0, 0 }, sum[2] = { 0, 0 };
    for (int i = 0; i < BW_Q8_GROUP; i++) {
        dot[i / 16] += w->code[32 * g + i] * q[i];
        sum[i / 16] += q[i];
    }
    int32_t coded = bw_q8_has_sub(type) ? w->sub[0][g] * dot[0] + w->sub[1][g] * dot[1] : dot[0] + dot[1];
    double value = (double)coded * w->scale[g];
    if (bw_q8_has_minimum(type)) {
        int32_t lifted = bw_q8_has_lift(type) ? w->lift[0][g] * sum[0] + w->lift[1][g] * sum[1] : sum[0] + sum[1];
        value += (double)lifted * w->minimum[g];
    }
    return value * scale;
}

static void matmul_int8(float *y, size_t y_stride, const bw_weight *w, int first, int n_out, const bw_q8_rows *x, int n,
                        bool add, void *scratch)
{
    bw_q8_chunk *chunks = scratch;
    for (int o = 0; o < n_out; o++) {
        bw_q8_unpack_row(chunks, bw_q8_unpack_ref[w->type], weight_row(w, first + o),
                         bw_dtype_row_bytes(w->type, BW_Q8_CHUNK), w->cols);
        for (int r = 0; r < n; r++) {
            double sum = 0;
            for (int g = 0; g < w->cols / BW_Q8_GROUP; g++) {
                const size_t at = bw_q8_entry(n, w->cols, r, g);
                sum += group_product(&chunks[g / BW_Q8_LANES], w->type, g % BW_Q8_LANES, x->q + at * BW_Q8_GROUP, x->scale[at]);
            }
            float *out = y + (size_t)r * y_stride + o;
            *out = add ? *out + (float)sum : (float)sum;
        }
    }
}

static size_t matmul_scratch_bytes(int max_cols)
{
    size_t floats = (size_t)max_cols * sizeof(float), chunks = (size_t)bw_q8_chunks(max_cols) * sizeof(bw_q8_chunk);
    return floats > chunks ? floats : chunks;
}

static void silu_mul(float *out, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = (float)(gate[i] / (1 + exp(-(double)gate[i])) * up[i]);
}

void bw_cpu_fill_ref_matmul(bw_cpu_kernels *k)
{
    k->rms_norm = rms_norm;
    k->quantize = quantize;
    k->packs = false;
    k->matmul_float = matmul_float;
    k->matmul_int8 = matmul_int8;
    k->matmul_scratch_bytes = matmul_scratch_bytes;
    k->silu_mul = silu_mul;
}
