/* dequant.c - see dequant.h. One function per block type; the loops follow docs/formats.md line by
 * line, because this is where the layout of a format is written down in C. */
#include "base/dequant.h"

#include <assert.h>
#include <string.h>

#include "base/half.h"

const signed char bw_iq4_levels[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                        1,    13,   25,  38,  53,  69,  89,  113 };

typedef unsigned char u8;

static uint16_t get_u16(const u8 *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get_u32(const u8 *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static float get_half(const u8 *p)
{
    return bw_f16_to_f32(get_u16(p));
}

static void f32_values(const u8 *p, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = bw_f32_from_bits(get_u32(p + 4 * i));
}

static void f16_values(const u8 *p, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = get_half(p + 2 * i);
}

static void bf16_values(const u8 *p, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = bw_bf16_to_f32(get_u16(p + 2 * i));
}

/* d; 32 bytes, signed */
static void q8_0_block(const u8 *p, float *y)
{
    const float d = get_half(p);
    for (int j = 0; j < 32; j++)
        y[j] = d * (float)(int8_t)p[2 + j];
}

/* d; 16 bytes: low nibbles are values 0 .. 15, high ones 16 .. 31 */
static void q4_0_block(const u8 *p, float *y)
{
    const float d = get_half(p);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((p[2 + j] & 15) - 8);
        y[j + 16] = d * (float)((p[2 + j] >> 4) - 8);
    }
}

/* d; m; 16 bytes */
static void q4_1_block(const u8 *p, float *y)
{
    const float d = get_half(p), m = get_half(p + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)(p[4 + j] & 15) + m;
        y[j + 16] = d * (float)(p[4 + j] >> 4) + m;
    }
}

/* d; 32 fifth bits; 16 bytes */
static void q5_0_block(const u8 *p, float *y)
{
    const float d = get_half(p);
    const uint32_t high = get_u32(p + 2);
    for (int j = 0; j < 16; j++) {
        int low_q = (p[6 + j] & 15) | (int)((high >> j) & 1) << 4;
        int high_q = p[6 + j] >> 4 | (int)((high >> (j + 16)) & 1) << 4;
        y[j] = d * (float)(low_q - 16);
        y[j + 16] = d * (float)(high_q - 16);
    }
}

/* d; m; 32 fifth bits; 16 bytes */
static void q5_1_block(const u8 *p, float *y)
{
    const float d = get_half(p), m = get_half(p + 2);
    const uint32_t high = get_u32(p + 4);
    for (int j = 0; j < 16; j++) {
        int low_q = (p[8 + j] & 15) | (int)((high >> j) & 1) << 4;
        int high_q = p[8 + j] >> 4 | (int)((high >> (j + 16)) & 1) << 4;
        y[j] = d * (float)low_q + m;
        y[j + 16] = d * (float)high_q + m;
    }
}

static void iq4_nl_block(const u8 *p, float *y)
{
    const float d = get_half(p);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)bw_iq4_levels[p[2 + j] & 15];
        y[j + 16] = d * (float)bw_iq4_levels[p[2 + j] >> 4];
    }
}

/* 0: 16 scales (low nibble) and minima (high); 16: 64 bytes of 2 bits; 80 d; 82 dmin */
static void q2_k_block(const u8 *p, float *y)
{
    const float d = get_half(p + 80), dmin = get_half(p + 82);
    for (int i = 0; i < 256; i++) {
        int h = i / 128, k = i / 32 % 4, l = i % 32, s = p[i / 16];
        int q = (p[16 + 32 * h + l] >> (2 * k)) & 3;
        y[i] = d * (float)(s & 15) * (float)q - dmin * (float)(s >> 4);
    }
}

/* 0: 32 bytes of third bits (set: nothing is subtracted); 32: 64 bytes of 2 bits; 96: scales; 108 d */
static void q3_k_block(const u8 *p, float *y)
{
    const float d = get_half(p + 108);
    for (int i = 0; i < 256; i++) {
        int h = i / 128, k = i / 32 % 4, l = i % 32;
        int q = ((p[32 + 32 * h + l] >> (2 * k)) & 3) - ((p[l] >> (4 * h + k)) & 1 ? 0 : 4);
        y[i] = d * (float)bw_q3k_scale(p + 96, i / 16) * (float)q;
    }
}

/* 0 d; 2 dmin; 4: scales and minima; 16: 128 bytes, 64 values to 32 bytes */
static void q4_k_block(const u8 *p, float *y)
{
    const float d = get_half(p), dmin = get_half(p + 2);
    for (int k = 0; k < 8; k++) {
        int scale, minimum;
        bw_q4k_scale_min(p + 4, k, &scale, &minimum);
        const float s = d * (float)scale, m = dmin * (float)minimum;
        for (int l = 0; l < 32; l++) {
            u8 byte = p[16 + 32 * (k / 2) + l];
            y[32 * k + l] = s * (float)(k % 2 ? byte >> 4 : byte & 15) - m;
        }
    }
}

/* As Q4_K, with 32 bytes of fifth bits (bit k: values of sub-block k) before the nibbles. */
static void q5_k_block(const u8 *p, float *y)
{
    const float d = get_half(p), dmin = get_half(p + 2);
    for (int k = 0; k < 8; k++) {
        int scale, minimum;
        bw_q4k_scale_min(p + 4, k, &scale, &minimum);
        const float s = d * (float)scale, m = dmin * (float)minimum;
        for (int l = 0; l < 32; l++) {
            u8 byte = p[48 + 32 * (k / 2) + l];
            int q = (k % 2 ? byte >> 4 : byte & 15) | ((p[16 + l] >> k) & 1) << 4;
            y[32 * k + l] = s * (float)q - m;
        }
    }
}

/* 0: 128 bytes of low nibbles; 128: 64 bytes of high pairs; 192: 16 signed scales; 208 d */
static void q6_k_block(const u8 *p, float *y)
{
    const float d = get_half(p + 208);
    for (int i = 0; i < 256; i++) {
        int h = i / 128, k = i / 32 % 4, l = i % 32;
        u8 byte = p[64 * h + l + 32 * (k % 2)];
        int low = k < 2 ? byte & 15 : byte >> 4;
        int q = (low | ((p[128 + 32 * h + l] >> (2 * k)) & 3) << 4) - 32;
        y[i] = d * (float)(int8_t)p[192 + i / 16] * (float)q;
    }
}

/* 0 d; 2: high pairs of 8 scales; 4: their low nibbles; 8: 128 bytes */
static void iq4_xs_block(const u8 *p, float *y)
{
    const float d = get_half(p);
    const int high = get_u16(p + 2);
    for (int b = 0; b < 8; b++) {
        int scale = ((p[4 + b / 2] >> (4 * (b % 2))) & 15) | ((high >> (2 * b)) & 3) << 4;
        const float s = d * (float)(scale - 32);
        for (int l = 0; l < 16; l++) {
            y[32 * b + l] = s * (float)bw_iq4_levels[p[8 + 16 * b + l] & 15];
            y[32 * b + 16 + l] = s * (float)bw_iq4_levels[p[8 + 16 * b + l] >> 4];
        }
    }
}

void bw_dequantize_row(bw_dtype type, const void *src, float *dst, size_t n)
{
    static void (*const blocks[BW_DTYPE_COUNT])(const u8 *, float *) = {
        [BW_Q8_0] = q8_0_block, [BW_Q4_0] = q4_0_block, [BW_Q4_1] = q4_1_block,
        [BW_Q5_0] = q5_0_block, [BW_Q5_1] = q5_1_block, [BW_IQ4_NL] = iq4_nl_block,
        [BW_Q2_K] = q2_k_block, [BW_Q3_K] = q3_k_block, [BW_Q4_K] = q4_k_block,
        [BW_Q5_K] = q5_k_block, [BW_Q6_K] = q6_k_block, [BW_IQ4_XS] = iq4_xs_block,
    };
    const bw_dtype_info *info = bw_dtype_get(type);
    assert(n % (size_t)info->elements == 0);
    switch (type) {
    case BW_F32: f32_values(src, dst, n); return;
    case BW_F16: f16_values(src, dst, n); return;
    case BW_BF16: bf16_values(src, dst, n); return;
    default: break;
    }
    const u8 *p = src;
    for (size_t i = 0; i < n; i += (size_t)info->elements, p += info->bytes)
        blocks[type](p, dst + i);
}
