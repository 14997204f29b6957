/* neon.h - what the _neon files share: the end of a row, sums of lanes, e^x. Only they include it. */
#ifndef BW_OPS_CPU_NEON_H
#define BW_OPS_CPU_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "ops/cpu/unroll.h"

/* The first `left` of four values, all when there are as many; the other lanes are zero. */
INLINE float32x4_t bw_neon_load(const float *x, int left)
{
    float some[4] = { 0 };
    if (left >= 4)
        return vld1q_f32(x);
    if (left > 0)
        memcpy(some, x, (size_t)left * sizeof *some);
    return vld1q_f32(some);
}

INLINE void bw_neon_store(float *x, int left, float32x4_t v)
{
    float some[4];
    if (left >= 4) {
        vst1q_f32(x, v);
    } else if (left > 0) {
        vst1q_f32(some, v);
        memcpy(x, some, (size_t)left * sizeof *some);
    }
}

/* Eight lanes in two registers: columns c .. c + 3 and c + 4 .. c + 7. */
typedef struct bw_neon_8 {
    float32x4_t low, high;
} bw_neon_8;

INLINE bw_neon_8 bw_neon_8_zero(void)
{
    return (bw_neon_8){ vdupq_n_f32(0), vdupq_n_f32(0) };
}

INLINE bw_neon_8 bw_neon_8_load(const float *x, int left)
{
    return (bw_neon_8){ bw_neon_load(x, left), bw_neon_load(x + 4, left - 4) };
}

INLINE void bw_neon_8_store(float *x, int left, bw_neon_8 v)
{
    bw_neon_store(x, left, v.low);
    bw_neon_store(x + 4, left - 4, v.high);
}

/* sum + a b */
INLINE bw_neon_8 bw_neon_8_fma(bw_neon_8 sum, bw_neon_8 a, bw_neon_8 b)
{
    return (bw_neon_8){ vfmaq_f32(sum.low, a.low, b.low), vfmaq_f32(sum.high, a.high, b.high) };
}

INLINE bw_neon_8 bw_neon_8_fma_n(bw_neon_8 sum, bw_neon_8 a, float b)
{
    return (bw_neon_8){ vfmaq_n_f32(sum.low, a.low, b), vfmaq_n_f32(sum.high, a.high, b) };
}

INLINE bw_neon_8 bw_neon_8_mul_n(bw_neon_8 a, float b)
{
    return (bw_neon_8){ vmulq_n_f32(a.low, b), vmulq_n_f32(a.high, b) };
}

/* Columns 0 .. left - 1 (at most 8) of halves at p, widened; the other lanes are zero. */
INLINE bw_neon_8 bw_neon_8_load_f16(const void *p, int left)
{
    uint8_t some[16] = { 0 };
    if (left < 8) {
        if (left > 0)
            memcpy(some, p, 2 * (size_t)left);
        p = some;
    }
    const uint16x8_t halves = vreinterpretq_u16_u8(vld1q_u8(p)); /* wherever p stands */
    return (bw_neon_8){ vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(halves))),
                        vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(halves))) };
}

/* 2^n for -126 <= n <= 127 */
INLINE float32x4_t bw_neon_power_of_2(int32x4_t n)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}

/* e^x = 2^n e^r, |r| <= ln 2 / 2, with the polynomial of Cephes' expf: relative error below 2e-7,
 * subnormal results included (2^n in two factors); 0 and infinity beyond the range, NaN stays NaN. */
INLINE float32x4_t bw_neon_exp(float32x4_t x)
{
    x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-105.0f)), vdupq_n_f32(89.0f)); /* either gives NaN for NaN */
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504f));
    float32x4_t r = vfmsq_n_f32(x, n, 0.693359375f);
    r = vfmsq_n_f32(r, n, -2.12194440e-4f);
    float32x4_t p = vdupq_n_f32(1.9875691500e-4f);
    p = vfmaq_f32(vdupq_n_f32(1.3981999507e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(8.3334519073e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(4.1665795894e-2f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.6666665459e-1f), p, r);
    p = vfmaq_f32(vdupq_n_f32(5.0000001201e-1f), p, r);
    p = vfmaq_f32(vaddq_f32(r, vdupq_n_f32(1.0f)), vmulq_f32(r, r), p);
    const int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    return vmulq_f32(vmulq_f32(p, bw_neon_power_of_2(half)), bw_neon_power_of_2(vsubq_s32(whole, half)));
}

#endif
