/* mixer_avx512.c - attention, delta rule and sampling kernels with AVX-512 (F, BW, DQ, VL).
 *
 * Sums run in fixed lanes and a fixed order that depends on sizes alone, and every element of an
 * elementwise kernel is computed the same way wherever it stands: tails are masked, never scalar.
 * Any thread; owns nothing. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "ops/cpu/cpu.h"

#define UNROLLED _Pragma("GCC unroll 8")

/* The first `left` lanes, all 16 when there are as many. */
static inline __mmask16 lanes(int left)
{
    return left >= 16 ? 0xFFFF : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
}

static inline __m512 load(const float *x, __mmask16 m)
{
    return _mm512_maskz_loadu_ps(m, x);
}

/* e^x = 2^n e^r, |r| <= ln 2 / 2, with the polynomial of Cephes' expf: relative error below 2e-7,
 * subnormal results included; 0 and infinity beyond the range, NaN stays NaN. */
static inline __m512 exp16(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(-105.0f), x); /* the second operand comes back for NaN */
    x = _mm512_min_ps(_mm512_set1_ps(89.0f), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

static inline __m512 sigmoid16(__m512 x)
{
    __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, exp16(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

static inline __m512 silu16(__m512 x)
{
    return _mm512_mul_ps(x, sigmoid16(x));
}

static float sum_squares(const float *x, int d)
{
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (int i = 0; i < d; i += 32) {
        __m512 a = load(x + i, lanes(d - i)), b = load(x + i + 16, lanes(d - i - 16));
        even = _mm512_fmadd_ps(a, a, even);
        odd = _mm512_fmadd_ps(b, b, odd);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
}

/* ---- attention ------------------------------------------------------------------------------- */

static void norm_rope(float *out, const float *x, const float *w, int d, float eps, const float *cosine,
                      const float *sine, int n_pairs)
{
    const __m512 scale = _mm512_set1_ps(1 / sqrtf(sum_squares(x, d) / (float)d + eps));
    for (int i = 0; i < d; i += 16) {
        __mmask16 m = lanes(d - i);
        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(_mm512_mul_ps(load(x + i, m), scale), load(w + i, m)));
    }
    for (int j = 0; j < n_pairs; j += 16) {
        __mmask16 m = lanes(n_pairs - j);
        __m512 a = load(out + j, m), b = load(out + j + n_pairs, m), c = load(cosine + j, m), s = load(sine + j, m);
        _mm512_mask_storeu_ps(out + j, m, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(out + j + n_pairs, m, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}

static void store_f16(uint16_t *out, const float *x, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        _mm256_mask_storeu_epi16(out + i, m, _mm512_cvtps_ph(load(x + i, m), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
}

static inline __m512 load_kv(const void *base, bool f16, size_t at, __mmask16 m)
{
    return f16 ? _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, (const uint16_t *)base + at)) : load((const float *)base + at, m);
}

/* See `running`: scores of a page and three numbers per head. */
static size_t attn_scratch_bytes(int n_heads, int d)
{
    (void)d;
    return (size_t)n_heads * (BW_PAGE + 3) * sizeof(float);
}

/* s[h][p] = scale q[h] . k[p] for a few heads and all n positions of a page; k, its first key, is at
 * `at`. Four positions at a time; beyond n the last one is read again and its score not used. */
static inline __attribute__((always_inline)) void score_page(float *s, const float *q, int n_heads, int d, float scale,
                                                             const void *keys, bool f16, size_t at, int n)
{
    for (int p = 0; p < n; p += 4) {
        __m512 acc[4][4];
        size_t row[4];
        UNROLLED for (int j = 0; j < 4; j++) {
            row[j] = at + (size_t)(p + j < n ? p + j : n - 1) * (size_t)d;
            UNROLLED for (int h = 0; h < n_heads; h++)
                acc[h][j] = _mm512_setzero_ps();
        }
        for (int i = 0; i < d; i += 16) {
            const __mmask16 m = lanes(d - i);
            __m512 k[4];
            UNROLLED for (int j = 0; j < 4; j++)
                k[j] = load_kv(keys, f16, row[j] + (size_t)i, m);
            UNROLLED for (int h = 0; h < n_heads; h++) {
                __m512 x = load(q + (size_t)h * (size_t)d + i, m);
                UNROLLED for (int j = 0; j < 4; j++)
                    acc[h][j] = _mm512_fmadd_ps(x, k[j], acc[h][j]);
            }
        }
        UNROLLED for (int h = 0; h < n_heads; h++)
            UNROLLED for (int j = 0; j < 4; j++)
                s[h * BW_PAGE + p + j] = scale * _mm512_reduce_add_ps(acc[h][j]);
    }
}

/* Scores to weights e^(s - max), 0 beyond n; moves max and sum on, *keep is the factor of the old. */
static void weigh_page(float *s, int n, float *max, float *sum, float *keep)
{
    __m512 x[4], largest = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    for (int i = 0; i < 4; i++) {
        x[i] = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), lanes(n - 16 * i), s + 16 * i);
        largest = _mm512_max_ps(largest, x[i]);
    }
    const float next = fmaxf(*max, _mm512_reduce_max_ps(largest));
    for (int i = 0; i < 4; i++) {
        x[i] = exp16(_mm512_sub_ps(x[i], _mm512_set1_ps(next)));
        total = _mm512_add_ps(total, x[i]);
        _mm512_storeu_ps(s + 16 * i, x[i]);
    }
    *keep = _mm512_cvtss_f32(exp16(_mm512_set1_ps(*max - next)));
    *sum = *sum * *keep + _mm512_reduce_add_ps(total);
    *max = next;
}

/* out[h] = keep[h] out[h] + sum_p s[h][p] v[p] */
static inline __attribute__((always_inline)) void add_page(float *out, const float *s, const float *keep, int n_heads,
                                                           int d, const void *values, bool f16, size_t at, int n)
{
    for (int i = 0; i < d; i += 32) {
        const __mmask16 m0 = lanes(d - i), m1 = lanes(d - i - 16);
        __m512 acc[4][2];
        UNROLLED for (int h = 0; h < n_heads; h++) {
            const float *o = out + (size_t)h * (size_t)d + i;
            acc[h][0] = _mm512_mul_ps(_mm512_set1_ps(keep[h]), load(o, m0));
            acc[h][1] = _mm512_mul_ps(_mm512_set1_ps(keep[h]), load(o + 16, m1));
        }
        for (int p = 0; p < n; p++) {
            const size_t row = at + (size_t)p * (size_t)d + (size_t)i;
            const __m512 v0 = load_kv(values, f16, row, m0), v1 = load_kv(values, f16, row + 16, m1);
            UNROLLED for (int h = 0; h < n_heads; h++) {
                const __m512 w = _mm512_set1_ps(s[h * BW_PAGE + p]);
                acc[h][0] = _mm512_fmadd_ps(w, v0, acc[h][0]);
                acc[h][1] = _mm512_fmadd_ps(w, v1, acc[h][1]);
            }
        }
        UNROLLED for (int h = 0; h < n_heads; h++) {
            float *o = out + (size_t)h * (size_t)d + i;
            _mm512_mask_storeu_ps(o, m0, acc[h][0]);
            _mm512_mask_storeu_ps(o + 16, m1, acc[h][1]);
        }
    }
}

/* Where some heads stand: the weighted sum, a page's scores and weights, the largest score, the sum of
 * weights, the factor that a new largest score puts on the old sums. */
typedef struct running {
    float *out, *s, *max, *sum, *keep;
} running;

static inline running running_at(running r, int h, int d)
{
    return (running){ r.out + (size_t)h * (size_t)d, r.s + (size_t)h * BW_PAGE, r.max + h, r.sum + h, r.keep + h };
}

/* Up to four heads share a key once it is in registers; how many does not change a head's bits. */
static inline __attribute__((always_inline)) void attend_page(const float *q, int n_heads, int d, float scale,
                                                              const bw_kv_layer *kv, bool f16, size_t at, int n, running to)
{
    score_page(to.s, q, n_heads, d, scale, kv->k, f16, at, n);
    for (int h = 0; h < n_heads; h++)
        weigh_page(to.s + h * BW_PAGE, n, &to.max[h], &to.sum[h], &to.keep[h]);
    add_page(to.out, to.s, to.keep, n_heads, d, kv->v, f16, at, n);
}

/* Positions first .. end - 1 for n_heads heads; first is the start of a page. */
static inline __attribute__((always_inline)) void attend_pages(const float *q, int n_heads, int d, const bw_kv_layer *kv,
                                                               bool f16, int n_kv_heads, int kv_head,
                                                               const int32_t *pages, int first, int end, running to)
{
    const float scale = 1 / sqrtf((float)d);
    for (; first < end; first += BW_PAGE) {
        const int n = end - first < BW_PAGE ? end - first : BW_PAGE;
        const size_t at = ((size_t)pages[first / BW_PAGE] * (size_t)n_kv_heads + (size_t)kv_head) * BW_PAGE * (size_t)d;
        for (int h = 0; h < n_heads; h += 4) {
            const running head = running_at(to, h, d);
            const float *x = q + (size_t)h * (size_t)d;
            switch (n_heads - h) {
            case 1: attend_page(x, 1, d, scale, kv, f16, at, n, head); break;
            case 2: attend_page(x, 2, d, scale, kv, f16, at, n, head); break;
            case 3: attend_page(x, 3, d, scale, kv, f16, at, n, head); break;
            default: attend_page(x, 4, d, scale, kv, f16, at, n, head); break;
            }
        }
    }
}

static inline __attribute__((always_inline)) void attend_as(float *out, const float *q, int n_rows, int n_heads, int d,
                                                            const bw_kv_layer *kv, bool f16, int n_kv_heads,
                                                            int kv_head, const int32_t *pages, int n_pos, float *s)
{
    const int total = n_rows * n_heads, shared = n_pos / BW_PAGE * BW_PAGE; /* pages that all rows see whole */
    float *max = s + (size_t)total * BW_PAGE;
    const running all = { out, s, max, max + total, max + 2 * total };
    for (int h = 0; h < total; h++)
        all.max[h] = -INFINITY, all.sum[h] = 0;
    memset(out, 0, (size_t)total * (size_t)d * sizeof *out);
    attend_pages(q, total, d, kv, f16, n_kv_heads, kv_head, pages, 0, shared, all);
    for (int r = 0; r < n_rows; r++)
        attend_pages(q + (size_t)(r * n_heads) * (size_t)d, n_heads, d, kv, f16, n_kv_heads, kv_head, pages, shared,
                     n_pos + r, running_at(all, r * n_heads, d));
    for (int h = 0; h < total; h++)
        for (int i = 0; i < d; i += 16) {
            float *o = out + (size_t)h * (size_t)d + i;
            __mmask16 m = lanes(d - i);
            _mm512_mask_storeu_ps(o, m, _mm512_div_ps(load(o, m), _mm512_set1_ps(all.sum[h])));
        }
}

static void attend(float *out, const float *q, int n_rows, int n_heads, int d, const bw_kv_layer *kv, int n_kv_heads,
                   int kv_head, const int32_t *pages, int n_pos, void *scratch)
{
    if (kv->codec == BW_CODEC_F16)
        attend_as(out, q, n_rows, n_heads, d, kv, true, n_kv_heads, kv_head, pages, n_pos, scratch);
    else
        attend_as(out, q, n_rows, n_heads, d, kv, false, n_kv_heads, kv_head, pages, n_pos, scratch);
}

static void sigmoid_mul(float *out, const float *x, const float *gate, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(load(x + i, m), sigmoid16(load(gate + i, m))));
    }
}

/* ---- delta rule ------------------------------------------------------------------------------ */

/* S^T k of the 16 columns, rows of S in four interleaved sums. */
static inline __m512 columns_dot(const float *S, const float *k, int d_k)
{
    __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
    int i = 0;
    for (; i + 4 <= d_k; i += 4, S += 4 * BW_GDN_TILE) {
        a = _mm512_fmadd_ps(_mm512_set1_ps(k[i]), _mm512_loadu_ps(S), a);
        b = _mm512_fmadd_ps(_mm512_set1_ps(k[i + 1]), _mm512_loadu_ps(S + 16), b);
        c = _mm512_fmadd_ps(_mm512_set1_ps(k[i + 2]), _mm512_loadu_ps(S + 32), c);
        d = _mm512_fmadd_ps(_mm512_set1_ps(k[i + 3]), _mm512_loadu_ps(S + 48), d);
    }
    for (; i < d_k; i++, S += BW_GDN_TILE)
        a = _mm512_fmadd_ps(_mm512_set1_ps(k[i]), _mm512_loadu_ps(S), a);
    return _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
}

/* What one pass over S is for: y = S^T q and the next row's S^T k are summed while S <- g S + k d^T is
 * in registers, in the order of columns_dot, so that a row's bits do not depend on where a call ends. */
typedef struct pass {
    const float *k, *q, *next_k;
    __m512 decay, delta;
} pass;

static inline __attribute__((always_inline)) void update_row(float *S, const pass *p, int i, __m512 *y, __m512 *dot,
                                                               bool want_y, bool want_dot)
{
    const __m512 kept = _mm512_mul_ps(p->decay, _mm512_loadu_ps(S));
    const __m512 s = _mm512_fmadd_ps(_mm512_set1_ps(p->k[i]), p->delta, kept);
    _mm512_storeu_ps(S, s);
    if (want_y)
        *y = _mm512_fmadd_ps(_mm512_set1_ps(p->q[i]), s, *y);
    if (want_dot)
        *dot = _mm512_fmadd_ps(_mm512_set1_ps(p->next_k[i]), s, *dot);
}

static inline __attribute__((always_inline)) void update_as(float *S, int d_k, const pass *p, __m512 *y, __m512 *dot,
                                                            bool want_y, bool want_dot)
{
    __m512 ys[4], dots[4];
    UNROLLED for (int j = 0; j < 4; j++)
        ys[j] = dots[j] = _mm512_setzero_ps();
    int i = 0;
    for (; i + 4 <= d_k; i += 4, S += 4 * BW_GDN_TILE)
        UNROLLED for (int j = 0; j < 4; j++)
            update_row(S + j * BW_GDN_TILE, p, i + j, &ys[j], &dots[j], want_y, want_dot);
    for (; i < d_k; i++, S += BW_GDN_TILE)
        update_row(S, p, i, &ys[0], &dots[0], want_y, want_dot);
    *y = _mm512_add_ps(_mm512_add_ps(ys[0], ys[1]), _mm512_add_ps(ys[2], ys[3]));
    *dot = _mm512_add_ps(_mm512_add_ps(dots[0], dots[1]), _mm512_add_ps(dots[2], dots[3]));
}

/* One row: m = g S^T k;  d = beta (v - m);  S <- g S + k d^T;  y = S^T q */
static void delta_rows(float *S, int d_k, int n, const float *q, const float *k, size_t k_stride, const float *v,
                       size_t v_stride, const float *g, const float *beta, size_t h_stride, float *y, size_t y_stride)
{
    __m512 out, dot = n > 0 ? columns_dot(S, k, d_k) : _mm512_setzero_ps();
    for (int r = 0; r < n; r++, q += k_stride, k += k_stride, v += v_stride, g += h_stride, beta += h_stride) {
        pass p = { .k = k, .q = q, .next_k = k + k_stride, .decay = _mm512_set1_ps(*g) };
        p.delta = _mm512_mul_ps(_mm512_set1_ps(*beta), _mm512_sub_ps(_mm512_loadu_ps(v), _mm512_mul_ps(p.decay, dot)));
        if (y && r + 1 < n)
            update_as(S, d_k, &p, &out, &dot, true, true);
        else if (y)
            update_as(S, d_k, &p, &out, &dot, true, false);
        else if (r + 1 < n)
            update_as(S, d_k, &p, &out, &dot, false, true);
        else
            update_as(S, d_k, &p, &out, &dot, false, false);
        if (y)
            _mm512_storeu_ps(y + (size_t)r * y_stride, out);
    }
}

/* The four weights of 16 channels, [channel, 4] in memory, `left` of the channels there: rows of four
 * channels are turned in registers. Lanes 0 to 7 come from the first two rows, the others (whose
 * indices start at 32, modulo 32) from the last two. */
static inline void turn_weights(__m512 out[4], const float *w, int left)
{
    const __m512i at = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60);
    const __m512 r0 = load(w, lanes(4 * left)), r1 = load(w + 16, lanes(4 * left - 16));
    const __m512 r2 = load(w + 32, lanes(4 * left - 32)), r3 = load(w + 48, lanes(4 * left - 48));
    UNROLLED for (int i = 0; i < 4; i++) {
        const __m512i from = _mm512_add_epi32(at, _mm512_set1_epi32(i));
        out[i] = _mm512_mask_blend_ps(0xFF00, _mm512_permutex2var_ps(r0, from, r1), _mm512_permutex2var_ps(r2, from, r3));
    }
}

static void conv_silu(float *out, const float *const *x, const float *w, int width, int first, int n)
{
    const __m512i channel = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i at = _mm512_mullo_epi32(channel, _mm512_set1_epi32(width));
    for (int j = 0; j < n; j += 16) {
        const __mmask16 m = lanes(n - j);
        const float *wj = w + (size_t)(first + j) * (size_t)width;
        __m512 sum = _mm512_setzero_ps(), weights[4];
        if (width == 4) { /* the usual one; gathers are several times slower */
            turn_weights(weights, wj, n - j);
            UNROLLED for (int i = 0; i < 4; i++)
                sum = _mm512_fmadd_ps(weights[i], load(x[i] + first + j, m), sum);
        } else {
            for (int i = 0; i < width; i++) {
                const __m512 weight = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), m, at, wj + i, 4);
                sum = _mm512_fmadd_ps(weight, load(x[i] + first + j, m), sum);
            }
        }
        _mm512_mask_storeu_ps(out + j, m, silu16(sum));
    }
}

static void gated_norm(float *out, const float *y, const float *w, const float *z, int d, float eps)
{
    const __m512 scale = _mm512_set1_ps(1 / sqrtf(sum_squares(y, d) / (float)d + eps));
    for (int i = 0; i < d; i += 16) {
        __mmask16 m = lanes(d - i);
        __m512 normed = _mm512_mul_ps(_mm512_mul_ps(load(y + i, m), scale), load(w + i, m));
        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(normed, silu16(load(z + i, m))));
    }
}

static void l2_norm(float *x, int d, float scale)
{
    const __m512 factor = _mm512_set1_ps(scale / sqrtf(sum_squares(x, d) + 1e-6f));
    for (int i = 0; i < d; i += 16) {
        __mmask16 m = lanes(d - i);
        _mm512_mask_storeu_ps(x + i, m, _mm512_mul_ps(load(x + i, m), factor));
    }
}

/* ---- sampling -------------------------------------------------------------------------------- */

static int argmax(const float *x, int n)
{
    const __m512 none = _mm512_set1_ps(-INFINITY);
    __m512 largest = none;
    for (int i = 0; i < n; i += 16) /* max gives its second operand when the first is NaN */
        largest = _mm512_max_ps(_mm512_mask_loadu_ps(none, lanes(n - i), x + i), largest);
    const float max = _mm512_reduce_max_ps(largest);
    for (int i = 0; i < n; i += 16) {
        __mmask16 equal = _mm512_mask_cmp_ps_mask(lanes(n - i), load(x + i, lanes(n - i)), _mm512_set1_ps(max), _CMP_EQ_OQ);
        if (equal)
            return i + __builtin_ctz(equal);
    }
    return -1; /* nothing equals even -inf: all are NaN */
}

static double sum_exp(const float *x, int n, float max, float temperature)
{
    double sum = 0;
    for (int first = 0; first < n; first += 256) { /* f32 sums stay short */
        __m512 part = _mm512_setzero_ps();
        for (int i = first; i < n && i < first + 256; i += 16) {
            const __mmask16 m = lanes(n - i);
            const __m512 v = load(x + i, m);
            const __m512 scaled = _mm512_div_ps(_mm512_sub_ps(v, _mm512_set1_ps(max)), _mm512_set1_ps(temperature));
            part = _mm512_mask_add_ps(part, _mm512_mask_cmp_ps_mask(m, v, v, _CMP_ORD_Q), part, exp16(scaled));
        }
        sum += _mm512_reduce_add_ps(part);
    }
    return sum;
}

void bw_cpu_fill_avx512_mixer(bw_cpu_kernels *k)
{
    k->norm_rope = norm_rope;
    k->store_f16 = store_f16;
    k->attend = attend;
    k->attn_scratch_bytes = attn_scratch_bytes;
    k->sigmoid_mul = sigmoid_mul;
    k->delta_rows = delta_rows;
    k->conv_silu = conv_silu;
    k->gated_norm = gated_norm;
    k->l2_norm = l2_norm;
    k->argmax = argmax;
    k->sum_exp = sum_exp;
}
