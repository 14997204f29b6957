/* q8_unpack_ref.c - packed weights to int8 codes, in plain C. Layouts: docs/formats.md. Any thread. */
#include "base/dequant.h"
#include "base/half.h"
#include "ops/cpu/q8.h"

typedef unsigned char u8;

static uint16_t get_u16(const u8 *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static float get_half(const u8 *p)
{
    return bw_f16_to_f32(get_u16(p));
}

/* bit j of 32 little-endian bits */
static int bit_of(const u8 *p, int j)
{
    return (p[j / 8] >> (j % 8)) & 1;
}

static void unpack_q8_0(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++, p += 34) {
        out->scale[g] = get_half(p);
        memcpy(out->code + 32 * g, p + 2, 32);
    }
}

static void unpack_q4_0(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++, p += 18) {
        out->scale[g] = get_half(p);
        for (int j = 0; j < 16; j++) {
            out->code[32 * g + j] = (int8_t)((p[2 + j] & 15) - 8);
            out->code[32 * g + 16 + j] = (int8_t)((p[2 + j] >> 4) - 8);
        }
    }
}

static void unpack_q4_1(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++, p += 20) {
        out->scale[g] = get_half(p);
        out->minimum[g] = get_half(p + 2);
        for (int j = 0; j < 16; j++) {
            out->code[32 * g + j] = (int8_t)(p[4 + j] & 15);
            out->code[32 * g + 16 + j] = (int8_t)(p[4 + j] >> 4);
        }
    }
}

static void unpack_q5_0(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++, p += 22) {
        out->scale[g] = get_half(p);
        for (int j = 0; j < 16; j++) {
            out->code[32 * g + j] = (int8_t)(((p[6 + j] & 15) | bit_of(p + 2, j) << 4) - 16);
            out->code[32 * g + 16 + j] = (int8_t)((p[6 + j] >> 4 | bit_of(p + 2, j + 16) << 4) - 16);
        }
    }
}

static void unpack_q5_1(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++, p += 24) {
        out->scale[g] = get_half(p);
        out->minimum[g] = get_half(p + 2);
        for (int j = 0; j < 16; j++) {
            out->code[32 * g + j] = (int8_t)((p[8 + j] & 15) | bit_of(p + 4, j) << 4);
            out->code[32 * g + 16 + j] = (int8_t)(p[8 + j] >> 4 | bit_of(p + 4, j + 16) << 4);
        }
    }
}

static void unpack_iq4_nl(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++, p += 18) {
        out->scale[g] = get_half(p);
        for (int j = 0; j < 16; j++) {
            out->code[32 * g + j] = bw_iq4_levels[p[2 + j] & 15];
            out->code[32 * g + 16 + j] = bw_iq4_levels[p[2 + j] >> 4];
        }
    }
}

static void unpack_q2_k(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++) {
        const int b = g % 8; /* group in the block */
        out->scale[g] = get_half(p + 80);
        out->minimum[g] = -get_half(p + 82);
        for (int s = 0; s < 2; s++) {
            out->sub[s][g] = p[2 * b + s] & 15;
            out->lift[s][g] = p[2 * b + s] >> 4;
        }
        for (int j = 0; j < 32; j++)
            out->code[32 * g + j] = (p[16 + 32 * (b / 4) + j] >> (2 * (b % 4))) & 3;
        if (b == 7)
            p += 84;
    }
}

static void unpack_q3_k(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++) {
        const int b = g % 8;
        out->scale[g] = get_half(p + 108);
        out->sub[0][g] = bw_q3k_scale(p + 96, 2 * b);
        out->sub[1][g] = bw_q3k_scale(p + 96, 2 * b + 1);
        for (int j = 0; j < 32; j++) {
            int low = (p[32 + 32 * (b / 4) + j] >> (2 * (b % 4))) & 3;
            out->code[32 * g + j] = (int8_t)(low - ((p[j] >> b) & 1 ? 0 : 4));
        }
        if (b == 7)
            p += 110;
    }
}

static void q4_q5_scales(bw_q8_chunk *out, const u8 *p, int g)
{
    int scale, minimum;
    bw_q4k_scale_min(p + 4, g % 8, &scale, &minimum);
    out->scale[g] = get_half(p) * (float)scale;
    out->minimum[g] = -(get_half(p + 2) * (float)minimum);
}

static void unpack_q4_k(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++) {
        const int b = g % 8;
        q4_q5_scales(out, p, g);
        for (int j = 0; j < 32; j++)
            out->code[32 * g + j] = (p[16 + 32 * (b / 2) + j] >> (4 * (b % 2))) & 15;
        if (b == 7)
            p += 144;
    }
}

static void unpack_q5_k(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++) {
        const int b = g % 8;
        q4_q5_scales(out, p, g);
        for (int j = 0; j < 32; j++) {
            int low = (p[48 + 32 * (b / 2) + j] >> (4 * (b % 2))) & 15;
            out->code[32 * g + j] = (int8_t)(low | ((p[16 + j] >> b) & 1) << 4);
        }
        if (b == 7)
            p += 176;
    }
}

static void unpack_q6_k(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++) {
        const int b = g % 8, h = b / 4, k = b % 4;
        out->scale[g] = get_half(p + 208);
        out->sub[0][g] = (int8_t)p[192 + 2 * b];
        out->sub[1][g] = (int8_t)p[192 + 2 * b + 1];
        for (int j = 0; j < 32; j++) {
            int low = (p[64 * h + 32 * (k % 2) + j] >> (4 * (k / 2))) & 15;
            out->code[32 * g + j] = (int8_t)((low | ((p[128 + 32 * h + j] >> (2 * k)) & 3) << 4) - 32);
        }
        if (b == 7)
            p += 210;
    }
}

static void unpack_iq4_xs(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g++) {
        const int b = g % 8;
        int scale = ((p[4 + b / 2] >> (4 * (b % 2))) & 15) | ((get_u16(p + 2) >> (2 * b)) & 3) << 4;
        out->scale[g] = get_half(p) * (float)(scale - 32);
        for (int j = 0; j < 16; j++) {
            out->code[32 * g + j] = bw_iq4_levels[p[8 + 16 * b + j] & 15];
            out->code[32 * g + 16 + j] = bw_iq4_levels[p[8 + 16 * b + j] >> 4];
        }
        if (b == 7)
            p += 136;
    }
}

const bw_q8_unpack_fn bw_q8_unpack_ref[BW_DTYPE_COUNT] = {
    [BW_Q8_0] = unpack_q8_0, [BW_Q4_0] = unpack_q4_0, [BW_Q4_1] = unpack_q4_1,     [BW_Q5_0] = unpack_q5_0,
    [BW_Q5_1] = unpack_q5_1, [BW_IQ4_NL] = unpack_iq4_nl, [BW_Q2_K] = unpack_q2_k, [BW_Q3_K] = unpack_q3_k,
    [BW_Q4_K] = unpack_q4_k, [BW_Q5_K] = unpack_q5_k, [BW_Q6_K] = unpack_q6_k,     [BW_IQ4_XS] = unpack_iq4_xs,
};
