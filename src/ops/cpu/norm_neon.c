/* norm_neon.c - norms, rounding to int8 and silu, 4 values at a time. Any thread. */
#include <math.h>

#include "ops/cpu/neon.h"
#include "ops/cpu/q8.h"

static void silu_mul(float *out, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i += 4) {
        const float32x4_t g = bw_neon_load(gate + i, n - i);
        const float32x4_t s = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), bw_neon_exp(vnegq_f32(g))));
        bw_neon_store(out + i, n - i, vmulq_f32(s, bw_neon_load(up + i, n - i)));
    }
}

static void rms_norm(float *out, const float *x, const float *w, int n, int d, float eps)
{
    for (int row = 0; row < n; row++, x += d, out += d) {
        float32x4_t sums[4] = { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) };
        int c = 0;
        for (; c + 16 <= d; c += 16)
            for (int i = 0; i < 4; i++) {
                const float32x4_t v = vld1q_f32(x + c + 4 * i);
                sums[i] = vfmaq_f32(sums[i], v, v);
            }
        for (int i = 0; c < d; c += 4, i++) {
            const float32x4_t v = bw_neon_load(x + c, d - c);
            sums[i] = vfmaq_f32(sums[i], v, v);
        }
        const float sum = vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])));
        const float factor = 1.0f / sqrtf(sum / (float)d + eps);
        for (c = 0; c < d; c += 4) {
            const float32x4_t v = vmulq_n_f32(bw_neon_load(x + c, d - c), factor);
            bw_neon_store(out + c, d - c, vmulq_f32(v, bw_neon_load(w + c, d - c)));
        }
    }
}

/* The largest |x| of 32 by its bits, among which NaN is the largest */
INLINE float group_max(const float32x4_t x[8])
{
    uint32x4_t max = vdupq_n_u32(0);
    UNROLL for (int i = 0; i < 8; i++)
        max = vmaxq_u32(max, vreinterpretq_u32_f32(vabsq_f32(x[i])));
    return vgetq_lane_f32(vreinterpretq_f32_u32(vdupq_n_u32(vmaxvq_u32(max))), 0);
}

INLINE int32x4_t code_of(float32x4_t v, float32x4_t divisor)
{
    v = vmaxnmq_f32(vdivq_f32(v, divisor), vdupq_n_f32(-127.0f)); /* NaN: -127 */
    return vcvtnq_s32_f32(vminq_f32(v, vdupq_n_f32(127.0f)));
}

/* 16 values to 16 codes */
INLINE int8x16_t codes_of(const float32x4_t x[4], float32x4_t divisor)
{
    const int16x8_t low = vcombine_s16(vmovn_s32(code_of(x[0], divisor)), vmovn_s32(code_of(x[1], divisor)));
    const int16x8_t high = vcombine_s16(vmovn_s32(code_of(x[2], divisor)), vmovn_s32(code_of(x[3], divisor)));
    return vcombine_s8(vmovn_s16(low), vmovn_s16(high));
}

INLINE void quantize_group(int8_t *q, float *scale, int32_t *sum, int32_t *half, const float *from)
{
    float32x4_t x[8];
    UNROLL for (int i = 0; i < 8; i++)
        x[i] = vld1q_f32(from + 4 * i);
    const float max = group_max(x);
    *scale = max < 1.5e-36f ? 0 : max / 127.0f;
    const float32x4_t divisor = vdupq_n_f32(*scale == 0 ? INFINITY : *scale);
    const int8x16_t first = codes_of(x, divisor), second = codes_of(x + 4, divisor);
    vst1q_s8(q, first);
    vst1q_s8(q + 16, second);
    *half = vaddlvq_s8(first);
    *sum = *half + vaddlvq_s8(second);
}

static void quantize(const bw_q8_rows *out, int n_all, const float *x, int first, int n, int cols)
{
    for (int r = first; r < first + n; r++, x += cols)
        for (int g = 0; g < cols / BW_Q8_GROUP; g++) {
            const size_t at = bw_q8_entry(n_all, cols, r, g);
            quantize_group(out->q + at * BW_Q8_GROUP, &out->scale[at], &out->sum[at], &out->half[at], x + BW_Q8_GROUP * g);
        }
}

void bw_cpu_fill_neon_norm(bw_cpu_kernels *k)
{
    k->rms_norm = rms_norm;
    k->quantize = quantize;
    k->silu_mul = silu_mul;
}
