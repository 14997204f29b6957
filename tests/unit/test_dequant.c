/* Packed weights widen to the values recorded from another decoder (docs/formats.md, test vectors). */
#include "lib/check.h"

#include <math.h>
#include <stdlib.h>

#include "base/dequant.h"
#include "base/half.h"

/* Byte k of every block is (37k + 11 + 5 floor(k / 8)) mod 256; then d = 0.0625 and m or
 * dmin = 0.03125 are put where the type has them. s1, s2: sums of y[i] and (i + 1) y[i]. */
static const struct recorded {
    bw_dtype type;
    int d_at, m_at; /* byte offsets; m_at -1: the type has none */
    double first, second, before_half, half, last, s1, s2;
} recorded[] = {
    { BW_Q4_0, 0, -1, -0.1875, 0.125, 0.125, -0.1875, 0.0, -0.375, -17.5 },
    { BW_Q4_1, 0, 2, 0.96875, 0.28125, 0.28125, 0.59375, 0.84375, 17.5625, 283.8125 },
    { BW_Q5_0, 0, -1, 0.5625, -0.125, -0.125, 0.875, 0.0625, 2.5, 29.1875 },
    { BW_Q5_1, 0, 2, 1.53125, 1.84375, 1.53125, 1.21875, 0.40625, 33.5, 521.6875 },
    { BW_Q8_0, 0, -1, 5.3125, 7.625, -7.375, -5.0625, -1.75, -9.5, -252.75 },
    { BW_IQ4_NL, 0, -1, -2.1875, 1.5625, 1.5625, -2.1875, 0.0625, -1.6875, -196.8125 },
    { BW_IQ4_XS, 0, -1, -0.0625, -4.3125, 2.5, -71.4375, -69.0, -476.9375, -131885.75 },
    { BW_Q2_K, 80, 82, 0.6875, 1.375, 2.625, 0.40625, 1.28125, 137.75, 16984.75 },
    { BW_Q3_K, 108, -1, -4.6875, 6.25, 4.125, 0.875, 3.375, 38.3125, 4371.25 },
    { BW_Q4_K, 0, 2, 7.9375, 17.625, 7.53125, 35.375, -1.09375, 3494.875, 489299.1875 },
    { BW_Q5_K, 0, 2, 46.6875, 25.375, 17.15625, 2.375, 17.46875, 7366.875, 1026037.0625 },
    { BW_Q6_K, 208, -1, 113.0625, -134.0, -52.5, 133.0, -150.9375, -249.6875, -19774.125 },
};

static void fill_block(unsigned char *block, const struct recorded *r)
{
    for (int k = 0; k < bw_dtype_get(r->type)->bytes; k++)
        block[k] = (unsigned char)(37 * k + 11 + 5 * (k >> 3));
    memcpy(block + r->d_at, "\x00\x2C", 2);
    if (r->m_at >= 0)
        memcpy(block + r->m_at, "\x00\x28", 2);
}

static void check_values(const struct recorded *r, const float *y, int n)
{
    const char *name = bw_dtype_get(r->type)->name;
    double s1 = 0, s2 = 0;
    for (int i = 0; i < n; i++) {
        s1 += y[i];
        s2 += (i + 1) * (double)y[i];
    }
    check_that(y[0] == r->first && y[1] == r->second && y[n / 2 - 1] == r->before_half && y[n / 2] == r->half &&
                   y[n - 1] == r->last,
               "%s: %g %g .. %g %g .. %g", name, y[0], y[1], y[n / 2 - 1], y[n / 2], y[n - 1]);
    check_that(s1 == r->s1 && s2 == r->s2, "%s: sums %.10g %.10g", name, s1, s2);
}

TEST(every_block_type_widens_to_recorded_values)
{
    check_int(BW_COUNT(recorded), BW_DTYPE_COUNT - 3);
    for (size_t i = 0; i < BW_COUNT(recorded); i++) {
        const bw_dtype_info *info = bw_dtype_get(recorded[i].type);
        unsigned char block[256];
        float y[256];
        fill_block(block, &recorded[i]);
        bw_dequantize_row(recorded[i].type, block, y, (size_t)info->elements);
        check_values(&recorded[i], y, info->elements);
    }
}

TEST(rows_of_many_blocks_need_no_alignment)
{
    for (size_t i = 0; i < BW_COUNT(recorded); i++) {
        const bw_dtype_info *info = bw_dtype_get(recorded[i].type);
        size_t bytes = (size_t)info->bytes, n = (size_t)info->elements;
        unsigned char *raw = malloc(3 * bytes + 1); /* exact, so that a sanitizer sees any overrun */
        float *y = malloc(3 * n * sizeof *y);
        for (size_t b = 0; b < 3; b++)
            fill_block(raw + 1 + b * bytes, &recorded[i]);
        bw_dequantize_row(recorded[i].type, raw + 1, y, 3 * n);
        for (size_t b = 0; b < 3; b++)
            check_values(&recorded[i], y + b * n, (int)n);
        free(raw);
        free(y);
    }
}

TEST(plain_floats_are_copied_exactly)
{
    float y[3];
    bw_dequantize_row(BW_F32, (const float[]){ 1.5f, -0.0f, 3e38f }, y, 3);
    check(y[0] == 1.5f && signbit(y[1]) && y[2] == 3e38f);
    bw_dequantize_row(BW_F16, (const uint16_t[]){ 0x3C00, 0x0001, 0xFBFF }, y, 3);
    check(y[0] == 1.0f && y[1] == 0x1p-24f && y[2] == -65504.0f);
    bw_dequantize_row(BW_BF16, (const uint16_t[]){ 0x3F80, 0x0001, 0xC000 }, y, 3);
    check(y[0] == 1.0f && bw_f32_bits(y[1]) == 0x10000 && y[2] == -2.0f);
}

TESTS_MAIN(ENTRY(every_block_type_widens_to_recorded_values), ENTRY(rows_of_many_blocks_need_no_alignment),
           ENTRY(plain_floats_are_copied_exactly))
