/* norm_avx2.c - norms, rounding to int8 and silu, 8 values at a time. Any thread. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "ops/cpu/q8.h"

/* The lanes below n, all when n >= 8. */
static inline __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* 2^n for -126 <= n <= 127 */
static inline __m256 power_of_two(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* e^x: x = n ln 2 + r, |r| <= ln 2 / 2; e^r by its series up to r^7 / 7!, which is off by 5e-9. NaN stays. */
static inline __m256 exp_ps(__m256 x)
{
    x = _mm256_max_ps(_mm256_set1_ps(-110.0f), _mm256_min_ps(_mm256_set1_ps(100.0f), x));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), r);
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    /* in two steps: n is in -159 .. 145 */
    const __m256i whole = _mm256_cvtps_epi32(n), part = _mm256_srai_epi32(whole, 1);
    return _mm256_mul_ps(_mm256_mul_ps(p, power_of_two(part)), power_of_two(_mm256_sub_epi32(whole, part)));
}

static void silu_mul(float *out, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        const __m256 g = _mm256_maskload_ps(gate + i, lanes);
        const __m256 e = exp_ps(_mm256_sub_ps(_mm256_setzero_ps(), g));
        const __m256 s = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
        _mm256_maskstore_ps(out + i, lanes, _mm256_mul_ps(s, _mm256_maskload_ps(up + i, lanes)));
    }
}

static inline float sum_of_lanes(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static void rms_norm(float *out, const float *x, const float *w, int n, int d, float eps)
{
    for (int row = 0; row < n; row++, x += d, out += d) {
        __m256 sums[4] = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps() };
        int c = 0;
        for (; c + 32 <= d; c += 32)
            for (int i = 0; i < 4; i++) {
                const __m256 v = _mm256_loadu_ps(x + c + 8 * i);
                sums[i] = _mm256_fmadd_ps(v, v, sums[i]);
            }
        for (int i = 0; c < d; c += 8, i++) {
            const __m256 v = _mm256_maskload_ps(x + c, first_lanes(d - c));
            sums[i] = _mm256_fmadd_ps(v, v, sums[i]);
        }
        const float sum = sum_of_lanes(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])));
        const __m256 factor = _mm256_set1_ps(1.0f / sqrtf(sum / (float)d + eps));
        for (c = 0; c < d; c += 8) {
            const __m256i lanes = first_lanes(d - c);
            const __m256 v = _mm256_mul_ps(_mm256_maskload_ps(x + c, lanes), factor);
            _mm256_maskstore_ps(out + c, lanes, _mm256_mul_ps(v, _mm256_maskload_ps(w + c, lanes)));
        }
    }
}

static inline __m256i code_of(__m256 v, __m256 scale)
{
    v = _mm256_max_ps(_mm256_div_ps(v, scale), _mm256_set1_ps(-127.0f)); /* NaN: -127 */
    return _mm256_cvtps_epi32(_mm256_min_ps(v, _mm256_set1_ps(127.0f)));
}

static inline int32_t sum_of_ints(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}

/* The largest |x| of 32 by its bits, among which NaN is the largest */
static inline float group_max(const float *x)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i max = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++)
        max = _mm256_max_epi32(max, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + 8 * i)), magnitude));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

static void quantize_group(int8_t *q, float *scale, int32_t *sum, int32_t *half, const float *x)
{
    const float max = group_max(x);
    *scale = max < 1.5e-36f ? 0 : max / 127.0f;
    const __m256 divisor = _mm256_set1_ps(*scale == 0 ? INFINITY : *scale);
    __m256i codes[4];
    for (int i = 0; i < 4; i++)
        codes[i] = code_of(_mm256_loadu_ps(x + 8 * i), divisor);
    const __m256i first = _mm256_add_epi32(codes[0], codes[1]), second = _mm256_add_epi32(codes[2], codes[3]);
    *half = sum_of_ints(first);
    *sum = sum_of_ints(_mm256_add_epi32(first, second));
    /* packs work within 128-bit halves: columns come out as dwords 0 2 4 6 | 1 3 5 7 */
    const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(codes[0], codes[1]), _mm256_packs_epi32(codes[2], codes[3]));
    _mm256_storeu_si256((__m256i *)q, _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}

static void quantize(const bw_q8_rows *out, int n_all, const float *x, int first, int n, int cols)
{
    for (int r = first; r < first + n; r++, x += cols)
        for (int g = 0; g < cols / BW_Q8_GROUP; g++) {
            const size_t at = bw_q8_entry(n_all, cols, r, g);
            quantize_group(out->q + at * BW_Q8_GROUP, &out->scale[at], &out->sum[at], &out->half[at], x + BW_Q8_GROUP * g);
        }
}

void bw_cpu_fill_avx2_norm(bw_cpu_kernels *k)
{
    k->rms_norm = rms_norm;
    k->quantize = quantize;
    k->silu_mul = silu_mul;
}
