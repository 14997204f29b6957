/* Encoding and decoding again moves values by no more than the type's own step. */
#include "lib/check.h"

#include <math.h>
#include <stdlib.h>

#include "base/dequant.h"
#include "base/half.h"
#include "format/quantize.h"

/* RMS of the rounding, of normally distributed weights. Steps follow from the bits of a type; twice
 * the quantisers' usual figure is a bug. */
static const struct expectation {
    bw_dtype type;
    double rms;
} expectations[] = {
    { BW_F32, 0 },      { BW_F16, 4e-4 },   { BW_BF16, 3e-3 },  { BW_Q8_0, 0.008 }, { BW_Q4_0, 0.11 },  { BW_Q4_1, 0.10 },
    { BW_Q5_0, 0.055 }, { BW_Q5_1, 0.05 },  { BW_IQ4_NL, 0.11 }, { BW_Q2_K, 0.40 }, { BW_Q3_K, 0.24 },  { BW_Q4_K, 0.10 },
    { BW_Q5_K, 0.05 },  { BW_Q6_K, 0.03 },  { BW_IQ4_XS, 0.12 },
};

static double rounding_of(bw_dtype type, const float *x, float *y, size_t n)
{
    void *packed = malloc((size_t)bw_dtype_row_bytes(type, n)); /* exact: a sanitizer sees any overrun */
    bw_quantize_row(type, x, packed, n);
    bw_dequantize_row(type, packed, y, n);
    free(packed);
    double sum = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        square += (double)x[i] * (double)x[i];
    }
    return square > 0 ? sqrt(sum / square) : sqrt(sum);
}

TEST(rounding_is_as_small_as_the_type_allows)
{
    enum { N = 256 * 64 };
    static float x[N], y[N];
    check_int(BW_COUNT(expectations), BW_DTYPE_COUNT);
    for (size_t k = 0; k < BW_COUNT(expectations); k++) {
        for (int i = 0; i < N; i++)
            x[i] = 0.02f * rnd_float();
        double rms = rounding_of(expectations[k].type, x, y, N);
        check_that(rms <= expectations[k].rms, "%s: %g", bw_dtype_get(expectations[k].type)->name, rms);
    }
}

TEST(blocks_without_spread_survive)
{
    for (int type = 0; type < BW_DTYPE_COUNT; type++) {
        float x[256], y[256];
        static const float constants[] = { 0, 1, -1, 0.02f, -300 };
        for (size_t k = 0; k < BW_COUNT(constants); k++) {
            for (int i = 0; i < 256; i++)
                x[i] = constants[k];
            double rms = rounding_of((bw_dtype)type, x, y, 256);
            check_that(rms <= 0.02, "%s: all %g become %g", bw_dtype_get((bw_dtype)type)->name, constants[k], y[0]);
        }
    }
}

TEST(what_a_reader_sees_encodes_to_the_same_again)
{
    static const bw_dtype exact[] = { BW_F32, BW_F16, BW_BF16, BW_Q8_0, BW_Q4_0, BW_Q5_0 };
    for (size_t k = 0; k < BW_COUNT(exact); k++) {
        float x[256], y[256], z[256];
        for (int i = 0; i < 256; i++)
            x[i] = rnd_float();
        rounding_of(exact[k], x, y, 256);
        double again = rounding_of(exact[k], y, z, 256);
        check_that(again < 1e-3, "%s: %g", bw_dtype_get(exact[k])->name, again);
    }
}

TESTS_MAIN(ENTRY(rounding_is_as_small_as_the_type_allows), ENTRY(blocks_without_spread_survive),
           ENTRY(what_a_reader_sees_encodes_to_the_same_again))
