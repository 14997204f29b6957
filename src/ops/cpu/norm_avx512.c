/* norm_avx512.c - norms, rounding to int8 and silu, 16 values at a time. Any thread. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "ops/cpu/q8.h"

static inline __mmask16 first_lanes(int n) /* n >= 16: all */
{
    return n >= 16 ? 0xFFFF : (__mmask16)((1u << n) - 1);
}

/* e^x: x = n ln 2 + r, |r| <= ln 2 / 2; e^r by its series up to r^7 / 7!, which is off by 5e-9. NaN stays. */
static inline __m512 exp_ps(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(-110.0f), _mm512_min_ps(_mm512_set1_ps(100.0f), x));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

static void silu_mul(float *out, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        const __m512 g = _mm512_maskz_loadu_ps(lanes, gate + i), one = _mm512_set1_ps(1.0f);
        const __m512 e = exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), g));
        const __m512 s = _mm512_div_ps(g, _mm512_add_ps(one, e));
        _mm512_mask_storeu_ps(out + i, lanes, _mm512_mul_ps(s, _mm512_maskz_loadu_ps(lanes, up + i)));
    }
}

static void rms_norm(float *out, const float *x, const float *w, int n, int d, float eps)
{
    for (int row = 0; row < n; row++, x += d, out += d) {
        __m512 sums[4] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
        int c = 0;
        for (; c + 64 <= d; c += 64)
            for (int i = 0; i < 4; i++) {
                const __m512 v = _mm512_loadu_ps(x + c + 16 * i);
                sums[i] = _mm512_fmadd_ps(v, v, sums[i]);
            }
        for (int i = 0; c < d; c += 16, i++) {
            const __m512 v = _mm512_maskz_loadu_ps(first_lanes(d - c), x + c);
            sums[i] = _mm512_fmadd_ps(v, v, sums[i]);
        }
        const float sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
        const __m512 factor = _mm512_set1_ps(1.0f / sqrtf(sum / (float)d + eps));
        for (c = 0; c < d; c += 16) {
            const __mmask16 lanes = first_lanes(d - c);
            const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + c), factor);
            _mm512_mask_storeu_ps(out + c, lanes, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(lanes, w + c)));
        }
    }
}

/* 32 values: their codes in two halves of 16 int32 */
static inline float quantize_group(__m512i codes[2], const float *x)
{
    const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF); /* as integers NaN is the largest */
    const __m512i larger = _mm512_max_epu32(_mm512_and_epi32(_mm512_castps_si512(a), magnitude),
                                            _mm512_and_epi32(_mm512_castps_si512(b), magnitude));
    const float max = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128((int)_mm512_reduce_max_epu32(larger))));
    if (max < 1.5e-36f) {
        codes[0] = codes[1] = _mm512_setzero_si512();
        return 0;
    }
    const float scale = max / 127.0f;
    const __m512 divisor = _mm512_set1_ps(scale), low = _mm512_set1_ps(-127.0f), high = _mm512_set1_ps(127.0f);
    codes[0] = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(_mm512_div_ps(a, divisor), low), high)); /* NaN: -127 */
    codes[1] = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(_mm512_div_ps(b, divisor), low), high));
    return scale;
}

static void quantize(const bw_q8_rows *out, int n_all, const float *x, int first, int n, int cols)
{
    for (int r = first; r < first + n; r++, x += cols)
        for (int g = 0; g < cols / BW_Q8_GROUP; g++) {
            const size_t at = bw_q8_entry(n_all, cols, r, g);
            __m512i codes[2];
            out->scale[at] = quantize_group(codes, x + BW_Q8_GROUP * g);
            out->half[at] = _mm512_reduce_add_epi32(codes[0]);
            out->sum[at] = _mm512_reduce_add_epi32(_mm512_add_epi32(codes[0], codes[1]));
            __m128i *q = (__m128i *)(out->q + at * BW_Q8_GROUP);
            _mm_storeu_si128(q, _mm512_cvtepi32_epi8(codes[0]));
            _mm_storeu_si128(q + 1, _mm512_cvtepi32_epi8(codes[1]));
        }
}

void bw_cpu_fill_avx512_norm(bw_cpu_kernels *k)
{
    k->rms_norm = rms_norm;
    k->quantize = quantize;
    k->silu_mul = silu_mul;
}
