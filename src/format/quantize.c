/* quantize.c - see quantize.h. Each function first finds the scales as they will be read back
 * (rounded to what the format stores), then rounds every value to the nearest step of those. */
#include "format/quantize.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/dequant.h"
#include "base/half.h"

typedef unsigned char u8;

static void put_half(u8 *p, float x)
{
    uint16_t h = bw_f32_to_f16(x);
    p[0] = (u8)h;
    p[1] = (u8)(h >> 8);
}

/* What a reader will see of a scale. */
static float as_half(float x)
{
    return bw_f16_to_f32(bw_f32_to_f16(x));
}

static int nearest(float x, float step, int low, int high)
{
    if (step == 0)
        return low > 0 ? low : high < 0 ? high : 0;
    float q = roundf(x / step);
    return q < (float)low ? low : q > (float)high ? high : (int)q;
}

/* The value of largest magnitude, with its sign: the far end of a lopsided range of codes. */
static float extreme(const float *x, int n)
{
    float best = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(best))
            best = x[i];
    return best;
}

static void range(const float *x, int n, float *low, float *high)
{
    *low = *high = x[0];
    for (int i = 1; i < n; i++) {
        *low = fminf(*low, x[i]);
        *high = fmaxf(*high, x[i]);
    }
}

/* ---- blocks of 32 -------------------------------------------------------------------------------- */

static void q8_0_block(const float *x, u8 *p)
{
    const float d = as_half(fabsf(extreme(x, 32)) / 127);
    put_half(p, d);
    for (int j = 0; j < 32; j++)
        p[2 + j] = (u8)(int8_t)nearest(x[j], d, -127, 127);
}

/* Nibbles of values j and j + 16 share a byte. */
static void put_nibbles(u8 *p, const int *q)
{
    for (int j = 0; j < 16; j++)
        p[j] = (u8)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static void put_fifth_bits(u8 *p, const int *q)
{
    memset(p, 0, 4);
    for (int j = 0; j < 32; j++)
        p[j / 8] = (u8)(p[j / 8] | ((q[j] >> 4) & 1) << (j % 8));
}

static void q4_0_block(const float *x, u8 *p)
{
    const float d = as_half(extreme(x, 32) / -8);
    int q[32];
    for (int j = 0; j < 32; j++)
        q[j] = nearest(x[j], d, -8, 7) + 8;
    put_half(p, d);
    put_nibbles(p + 2, q);
}

static void q5_0_block(const float *x, u8 *p)
{
    const float d = as_half(extreme(x, 32) / -16);
    int q[32];
    for (int j = 0; j < 32; j++)
        q[j] = nearest(x[j], d, -16, 15) + 16;
    put_half(p, d);
    put_fifth_bits(p + 2, q);
    put_nibbles(p + 6, q);
}

/* Q4_1 and Q5_1: codes 0 .. top above the smallest value. */
static void steps_above_minimum(const float *x, int top, float *d, float *m, int *q)
{
    float low, high;
    range(x, 32, &low, &high);
    *d = as_half((high - low) / (float)top);
    *m = as_half(low);
    for (int j = 0; j < 32; j++)
        q[j] = nearest(x[j] - *m, *d, 0, top);
}

static void q4_1_block(const float *x, u8 *p)
{
    float d, m;
    int q[32];
    steps_above_minimum(x, 15, &d, &m, q);
    put_half(p, d);
    put_half(p + 2, m);
    put_nibbles(p + 4, q);
}

static void q5_1_block(const float *x, u8 *p)
{
    float d, m;
    int q[32];
    steps_above_minimum(x, 31, &d, &m, q);
    put_half(p, d);
    put_half(p + 2, m);
    put_fifth_bits(p + 4, q);
    put_nibbles(p + 8, q);
}

static int nearest_level(float x, float step)
{
    int best = 8; /* the level next to zero */
    for (int k = 0; k < 16 && step != 0; k++)
        if (fabsf(x - step * (float)bw_iq4_levels[k]) < fabsf(x - step * (float)bw_iq4_levels[best]))
            best = k;
    return best;
}

static void iq4_nl_block(const float *x, u8 *p)
{
    const float d = as_half(extreme(x, 32) / -127);
    int q[32];
    for (int j = 0; j < 32; j++)
        q[j] = nearest_level(x[j], d);
    put_half(p, d);
    put_nibbles(p + 2, q);
}

/* ---- blocks of 256 ------------------------------------------------------------------------------- */

/* Signed sub-block scales (value of largest magnitude / -reach) as integers times one half: d is
 * chosen so that the largest of them becomes `low`. */
static float signed_scales(const float *x, int width, float reach, int low, int high, int *scales)
{
    float s[16] = { 0 };
    const int n = 256 / width;
    for (int i = 0; i < n; i++)
        s[i] = extreme(x + i * width, width) / -reach;
    const float d = as_half(extreme(s, n) / (float)low);
    for (int i = 0; i < n; i++)
        scales[i] = nearest(s[i], d, low, high);
    return d;
}

/* Scale and minimum of each sub-block as small integers times two halves; q gets 0 .. top. */
static void scales_and_minima(const float *x, int width, int top, int most, float *d, float *dmin, int *scales, int *minima, int *q)
{
    float s[16], m[16], largest_s = 0, largest_m = 0;
    const int n = 256 / width;
    for (int i = 0; i < n; i++) {
        float low, high;
        range(x + i * width, width, &low, &high);
        m[i] = fmaxf(-low, 0);
        s[i] = fmaxf(high + m[i], 0) / (float)top;
        largest_s = fmaxf(largest_s, s[i]);
        largest_m = fmaxf(largest_m, m[i]);
    }
    *d = as_half(largest_s / (float)most);
    *dmin = as_half(largest_m / (float)most);
    for (int i = 0; i < n; i++) {
        scales[i] = nearest(s[i], *d, 0, most);
        minima[i] = nearest(m[i], *dmin, 0, most);
    }
    for (int i = 0; i < 256; i++)
        q[i] = nearest(x[i] + *dmin * (float)minima[i / width], *d * (float)scales[i / width], 0, top);
}

static void q2_k_block(const float *x, u8 *p)
{
    int scales[16], minima[16], q[256];
    float d, dmin;
    scales_and_minima(x, 16, 3, 15, &d, &dmin, scales, minima, q);
    memset(p, 0, 84);
    for (int i = 0; i < 16; i++)
        p[i] = (u8)(scales[i] | minima[i] << 4);
    for (int i = 0; i < 256; i++) {
        u8 *byte = &p[16 + 32 * (i / 128) + i % 32];
        *byte = (u8)(*byte | q[i] << (2 * (i / 32 % 4)));
    }
    put_half(p + 80, d);
    put_half(p + 82, dmin);
}

static void q3_k_block(const float *x, u8 *p)
{
    int scales[16];
    const float d = signed_scales(x, 16, 4, -32, 31, scales);
    memset(p, 0, 110);
    for (int i = 0; i < 256; i++) {
        const int q = nearest(x[i], d * (float)scales[i / 16], -4, 3) + 4, h = i / 128, k = i / 32 % 4, l = i % 32;
        p[32 + 32 * h + l] = (u8)(p[32 + 32 * h + l] | (q & 3) << (2 * k));
        p[l] = (u8)(p[l] | (q >> 2) << (4 * h + k));
    }
    for (int t = 0; t < 16; t++) {
        const int s = scales[t] + 32;
        p[96 + t % 8] = (u8)(p[96 + t % 8] | (s & 15) << (t < 8 ? 0 : 4));
        p[104 + t % 4] = (u8)(p[104 + t % 4] | (s >> 4) << (2 * (t / 4)));
    }
    put_half(p + 108, d);
}

/* Twelve bytes for eight pairs of six bits: see bw_q4k_scale_min. */
static void put_scale_min(u8 *p, const int *scales, const int *minima)
{
    for (int k = 0; k < 4; k++) {
        p[k] = (u8)(scales[k] | (scales[k + 4] >> 4) << 6);
        p[k + 4] = (u8)(minima[k] | (minima[k + 4] >> 4) << 6);
        p[k + 8] = (u8)((scales[k + 4] & 15) | (minima[k + 4] & 15) << 4);
    }
}

static void q4_k_block(const float *x, u8 *p)
{
    int scales[8], minima[8], q[256];
    float d, dmin;
    scales_and_minima(x, 32, 15, 63, &d, &dmin, scales, minima, q);
    put_half(p, d);
    put_half(p + 2, dmin);
    put_scale_min(p + 4, scales, minima);
    for (int i = 0; i < 128; i++) {
        const int *pair = q + 64 * (i / 32) + i % 32;
        p[16 + i] = (u8)(pair[0] | pair[32] << 4);
    }
}

static void q5_k_block(const float *x, u8 *p)
{
    int scales[8], minima[8], q[256];
    float d, dmin;
    scales_and_minima(x, 32, 31, 63, &d, &dmin, scales, minima, q);
    put_half(p, d);
    put_half(p + 2, dmin);
    put_scale_min(p + 4, scales, minima);
    memset(p + 16, 0, 32);
    for (int i = 0; i < 256; i++)
        p[16 + i % 32] = (u8)(p[16 + i % 32] | (q[i] >> 4) << (i / 32));
    for (int i = 0; i < 128; i++) {
        const int *pair = q + 64 * (i / 32) + i % 32;
        p[48 + i] = (u8)((pair[0] & 15) | (pair[32] & 15) << 4);
    }
}

static void q6_k_block(const float *x, u8 *p)
{
    int scales[16];
    const float d = signed_scales(x, 16, 32, -128, 127, scales);
    memset(p, 0, 210);
    for (int i = 0; i < 256; i++) {
        const int q = nearest(x[i], d * (float)scales[i / 16], -32, 31) + 32, h = i / 128, k = i / 32 % 4, l = i % 32;
        u8 *low = &p[64 * h + l + 32 * (k % 2)], *high = &p[128 + 32 * h + l];
        *low = (u8)(*low | (q & 15) << (k < 2 ? 0 : 4));
        *high = (u8)(*high | (q >> 4) << (2 * k));
    }
    for (int t = 0; t < 16; t++)
        p[192 + t] = (u8)(int8_t)scales[t];
    put_half(p + 208, d);
}

static void iq4_xs_block(const float *x, u8 *p)
{
    int scales[8];
    const float d = signed_scales(x, 32, 127, -32, 31, scales);
    memset(p, 0, 136);
    for (int b = 0; b < 8; b++) {
        const int s = scales[b] + 32;
        int q[32];
        p[4 + b / 2] = (u8)(p[4 + b / 2] | (s & 15) << (4 * (b % 2)));
        p[2 + b / 4] = (u8)(p[2 + b / 4] | (s >> 4) << (2 * (b % 4)));
        for (int j = 0; j < 32; j++)
            q[j] = nearest_level(x[32 * b + j], d * (float)scales[b]);
        put_nibbles(p + 8 + 16 * b, q);
    }
    put_half(p, d);
}

static void float_values(bw_dtype type, const float *x, u8 *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h = type == BW_F16 ? bw_f32_to_f16(x[i]) : bw_f32_to_bf16(x[i]);
        p[2 * i] = (u8)h;
        p[2 * i + 1] = (u8)(h >> 8);
    }
}

void bw_quantize_row(bw_dtype type, const float *src, void *dst, size_t n)
{
    static void (*const blocks[BW_DTYPE_COUNT])(const float *, u8 *) = {
        [BW_Q8_0] = q8_0_block, [BW_Q4_0] = q4_0_block, [BW_Q4_1] = q4_1_block,
        [BW_Q5_0] = q5_0_block, [BW_Q5_1] = q5_1_block, [BW_IQ4_NL] = iq4_nl_block,
        [BW_Q2_K] = q2_k_block, [BW_Q3_K] = q3_k_block, [BW_Q4_K] = q4_k_block,
        [BW_Q5_K] = q5_k_block, [BW_Q6_K] = q6_k_block, [BW_IQ4_XS] = iq4_xs_block,
    };
    const bw_dtype_info *info = bw_dtype_get(type);
    assert(n % (size_t)info->elements == 0);
    u8 *p = dst;
    if (type == BW_F32)
        memcpy(p, src, n * sizeof *src); /* little-endian, as all of this */
    else if (bw_dtype_is_float(type))
        float_values(type, src, p, n);
    else
        for (size_t i = 0; i < n; i += (size_t)info->elements, p += info->bytes)
            blocks[type](src + i, p);
}
