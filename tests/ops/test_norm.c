/* test_norm.c - norms, rounding to int8 and silu at every level. */
#include "base/cpuid.h"
#include "lib/ops_check.h"
#include "ops/cpu/q8.h"

TEST(rms_norm_is_near_the_exact_value_and_the_same_in_company)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (int i = 0; i < 200; i++) {
            const int n = rnd_int(1, 9), d = i % 4 ? rnd_int(1, 700) : rnd_int(1, 5200);
            float *x = guarded_floats((size_t)n * (size_t)d), *w = random_floats((size_t)d, 1);
            float *got = guarded_floats((size_t)n * (size_t)d), *one = guarded_floats((size_t)d);
            random_rows(x, n, d);
            k.rms_norm(got, x, w, n, d, 1e-6f);
            for (int r = 0; r < n; r++) {
                const float *xr = x + (size_t)r * (size_t)d;
                double sum = 0;
                for (int c = 0; c < d; c++)
                    sum += (double)xr[c] * xr[c];
                const double factor = 1 / sqrt(sum / d + (double)1e-6f);
                /* d squares in at least 8 partial sums, then a mean, a root, an inverse and two products;
                 * the root halves the error of what is below it */
                const double eps = (6 + d / 16.0) * FLT_EPSILON;
                for (int c = 0; c < d; c++) {
                    const double want = xr[c] * factor * w[c];
                    check_near(got[(size_t)r * (size_t)d + (size_t)c], want, eps * fabs(want) + 1e-44, "%s n=%d d=%d", level, n, d);
                }
            }
            const int r = rnd_int(0, n - 1);
            k.rms_norm(one, x + (size_t)r * (size_t)d, w, 1, d, 1e-6f);
            check_that(same_bits(one, got + (size_t)r * (size_t)d, (size_t)d), "%s row %d of n=%d d=%d", level, r, n, d);
            check_guards();
        }
}

TEST(norm_pair_puts_two_norms_side_by_side)
{
    bw_cpu_kernels k;
    each_level (level, k) {
        enum { N = 5, D = 77 };
        bw_error err;
        bw_backend *be;
        float *a = random_floats(N * D, 1), *b = random_floats(N * D, 3), *wa = random_floats(D, 1), *wb = random_floats(D, 1);
        float *one = guarded_floats(N * D), *two = guarded_floats(N * D), *pair = guarded_floats(2 * N * D);
        check_ok(bw_cpu_backend_create(&be, 2, level, &err), err);
        be->ops->norm(be, one, a, wa, N, D, 1e-5f);
        be->ops->norm(be, two, b, wb, N, D, 1e-5f);
        be->ops->norm_pair(be, pair, a, wa, b, wb, N, D, 1e-5f);
        k.rms_norm(a, a, wa, N, D, 1e-5f); /* in place */
        check(same_bits(one, a, N * D));
        for (int r = 0; r < N; r++) {
            check(same_bits(pair + 2 * D * r, one + D * r, D));
            check(same_bits(pair + 2 * D * r + D, two + D * r, D));
        }
        be->ops->destroy(be);
        check_guards();
    }
}

static bw_q8_rows q8_rows(size_t entries)
{
    return (bw_q8_rows){ guarded_bytes(32 * entries), guarded_floats(entries), guarded_bytes(4 * entries), guarded_bytes(4 * entries) };
}

TEST(rounding_to_int8_is_within_half_a_step_and_the_same_at_every_level)
{
    bw_cpu_kernels ref, k;
    level_kernels(&ref, "ref");
    each_level (level, k)
        for (int i = 0; i < 100; i++) {
            const int n = rnd_int(1, 35), cols = 32 * rnd_int(1, 70), cut = rnd_int(0, n);
            const size_t entries = (size_t)n * (size_t)(cols / 32);
            float *x = guarded_floats((size_t)n * (size_t)cols);
            random_rows(x, n, cols);
            if (i % 10 == 0)
                for (int c = 0; c < cols; c++)
                    x[c] = ldexpf(rnd_float(), rnd_int(-149, 120)); /* down to subnormals */
            const bw_q8_rows want = q8_rows(entries), got = q8_rows(entries);
            ref.quantize(&want, n, x, 0, n, cols);
            k.quantize(&got, n, x, 0, cut, cols);
            k.quantize(&got, n, x + (size_t)cut * (size_t)cols, cut, n - cut, cols);
            check_that(memcmp(got.q, want.q, 32 * entries) == 0, "%s: codes, cols=%d", level, cols);
            check_that(same_bits(got.scale, want.scale, entries), "%s: scales, cols=%d", level, cols);
            check_that(memcmp(got.sum, want.sum, 4 * entries) == 0, "%s: sums, cols=%d", level, cols);
            check_that(memcmp(got.half, want.half, 4 * entries) == 0, "%s: half sums, cols=%d", level, cols);
            for (int r = 0; r < n; r++)
                for (int g = 0; g < cols / 32; g++) {
                    const size_t at = bw_q8_entry(n, cols, r, g);
                    int sum = 0, half = 0;
                    for (int c = 0; c < 32; c++) {
                        const int q = got.q[32 * at + (size_t)c];
                        const double v = x[(size_t)r * (size_t)cols + (size_t)(32 * g + c)], step = got.scale[at];
                        sum += q;
                        half += c < 16 ? q : 0;
                        check(q >= -127 && q <= 127);
                        check_near(q * step, v, step * (0.5 + 1e-4) + 1.5e-36, "%s row %d col %d", level, r, 32 * g + c);
                    }
                    check(got.sum[at] == sum && got.half[at] == half);
                }
            check_guards();
        }
}

TEST(ties_round_to_even)
{
    bw_cpu_kernels k;
    each_level (level, k) {
        float x[32] = { 127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 63.5f }; /* step 1 */
        const bw_q8_rows q = q8_rows(1);
        static const int want[] = { 127, 0, 2, 2, 0, -2, -2, 64 };
        k.quantize(&q, 1, x, 0, 1, 32);
        for (int c = 0; c < 8; c++)
            check_int(q.q[c], want[c]);
        check_guards();
    }
}

TEST(a_nan_or_infinity_makes_its_own_group_not_a_number)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (int bad = 0; bad < 2; bad++) {
            float x[96];
            for (int c = 0; c < 96; c++)
                x[c] = rnd_float();
            x[40] = bad ? INFINITY : NAN;
            const bw_q8_rows q = q8_rows(3);
            k.quantize(&q, 1, x, 0, 1, 96);
            check(isfinite(q.scale[0]) && !isfinite(q.scale[1]) && isfinite(q.scale[2]));
            for (int c = 0; c < 96; c++)
                check(q.q[c] >= -127);
            check_guards();
        }
}

TEST(silu_mul_is_near_the_exact_value_wherever_it_stands)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (int i = 0; i < 200; i++) {
            const int n = rnd_int(1, 200);
            float *gate = guarded_floats((size_t)n), *up = random_floats((size_t)n, 1), *got = guarded_floats((size_t)n);
            float *one = guarded_floats(1);
            for (int c = 0; c < n; c++)
                gate[c] = rnd_float() * (float)(i % 5 == 0 ? 60 : i % 5 == 1 ? 1e-6 : i % 5 == 2 ? 1000 : 3);
            k.silu_mul(got, gate, up, n);
            for (int c = 0; c < n; c++) {
                const double g = gate[c], want = g / (1 + exp(-g)) * up[c];
                /* e^-g to 2e-7, then a sum, a quotient and a product; past g = -88.7 e^-g is infinite */
                check_near(got[c], want, (2e-7 + 2 * FLT_EPSILON) * fabs(want) + 3e-37 * (1 + fabs(up[c])), "%s silu(%g) * %g", level, g, up[c]);
            }
            const int c = rnd_int(0, n - 1);
            k.silu_mul(one, gate + c, up + c, 1);
            check_that(same_bits(one, got + c, 1), "%s: %d of %d", level, c, n);
            k.silu_mul(gate, gate, up, n); /* in place */
            check(same_bits(gate, got, (size_t)n));
            check_guards();
        }
}

#if defined(__x86_64__)
TEST(widening_gives_the_bits_of_the_definition)
{
    if (!bw_cpu_has_avx2_fma())
        skip_because("no AVX2");
    for (bw_dtype type = BW_Q8_0; type < BW_DTYPE_COUNT; type++)
        for (int i = 0; i < 30; i++) {
            const int cols = random_cols(type, 1500);
            const bw_weight w = random_weight(type, 1, cols, false);
            float *want = guarded_floats((size_t)cols), *got = guarded_floats((size_t)cols);
            bw_dequantize_row(type, w.data, want, (size_t)cols);
            bw_q8_widen_row_avx2(got, type, w.data, cols);
            for (int c = 0; c < cols; c++) /* +0 for -0 is the same weight */
                check_that(got[c] == want[c], "%s: value %d of %d is %.9g, not %.9g", bw_dtype_get(type)->name, c, cols, got[c], want[c]);
            check_guards();
        }
}
#define WIDENING ENTRY(widening_gives_the_bits_of_the_definition),
#else
#define WIDENING
#endif

TESTS_MAIN(WIDENING ENTRY(rms_norm_is_near_the_exact_value_and_the_same_in_company),
           ENTRY(norm_pair_puts_two_norms_side_by_side),
           ENTRY(rounding_to_int8_is_within_half_a_step_and_the_same_at_every_level), ENTRY(ties_round_to_even),
           ENTRY(a_nan_or_infinity_makes_its_own_group_not_a_number),
           ENTRY(silu_mul_is_near_the_exact_value_wherever_it_stands))
