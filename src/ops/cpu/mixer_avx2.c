/* mixer_avx2.c - attention, delta rule and sampling kernels with AVX2, FMA and F16C.
 *
 * Sums run in fixed lanes and a fixed order that depends on sizes alone, and every element of an
 * elementwise kernel is computed the same way wherever it stands: tails are masked, never scalar.
 * Any thread; owns nothing. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "ops/cpu/cpu.h"
#include "ops/cpu/mixer_body.h"

#define UNROLLED _Pragma("GCC unroll 8")

/* The first `left` lanes, all 8 when there are as many. */
static inline __m256i lanes(int left)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __m256 load(const float *x, int left)
{
    return left >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, lanes(left));
}

static inline void store(float *x, int left, __m256 v)
{
    if (left >= 8)
        _mm256_storeu_ps(x, v);
    else
        _mm256_maskstore_ps(x, lanes(left), v);
}

static inline float add_lanes(__m256 x)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float max_lanes(__m256 x)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

static inline __m256 power_of_2(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* e^x = 2^n e^r, |r| <= ln 2 / 2, with the polynomial of Cephes' expf: relative error below 2e-7,
 * subnormal results included (2^n in two factors); 0 and infinity beyond the range, NaN stays NaN. */
static inline __m256 exp8(__m256 x)
{
    x = _mm256_max_ps(_mm256_set1_ps(-105.0f), x); /* the second operand comes back for NaN */
    x = _mm256_min_ps(_mm256_set1_ps(89.0f), x);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(_mm256_mul_ps(r, r), p, _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    return _mm256_mul_ps(_mm256_mul_ps(p, power_of_2(half)), power_of_2(_mm256_sub_epi32(whole, half)));
}

static inline __m256 sigmoid8(__m256 x)
{
    __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(one, _mm256_add_ps(one, exp8(_mm256_sub_ps(_mm256_setzero_ps(), x))));
}

static inline __m256 silu8(__m256 x)
{
    return _mm256_mul_ps(x, sigmoid8(x));
}

static float sum_squares(const float *x, int d)
{
    __m256 even = _mm256_setzero_ps(), odd = even;
    int i = 0;
    for (; i + 8 < d; i += 16) {
        __m256 a = _mm256_loadu_ps(x + i), b = load(x + i + 8, d - i - 8);
        even = _mm256_fmadd_ps(a, a, even);
        odd = _mm256_fmadd_ps(b, b, odd);
    }
    if (i < d) {
        __m256 a = load(x + i, d - i);
        even = _mm256_fmadd_ps(a, a, even);
    }
    return add_lanes(_mm256_add_ps(even, odd));
}

/* ---- attention ------------------------------------------------------------------------------- */

static void norm_rope(float *out, const float *x, const float *w, int d, float eps, const float *cosine,
                      const float *sine, int n_pairs)
{
    const __m256 scale = _mm256_set1_ps(1 / sqrtf(sum_squares(x, d) / (float)d + eps));
    for (int i = 0; i < d; i += 8)
        store(out + i, d - i, _mm256_mul_ps(_mm256_mul_ps(load(x + i, d - i), scale), load(w + i, d - i)));
    for (int j = 0; j < n_pairs; j += 8) {
        const int left = n_pairs - j;
        __m256 a = load(out + j, left), b = load(out + j + n_pairs, left);
        __m256 c = load(cosine + j, left), s = load(sine + j, left);
        store(out + j, left, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        store(out + j + n_pairs, left, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
}

static void store_f16(uint16_t *out, const float *x, int n)
{
    for (int i = 0; i < n; i += 8) {
        __m128i h = _mm256_cvtps_ph(load(x + i, n - i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        if (n - i >= 8)
            _mm_storeu_si128((__m128i *)(void *)(out + i), h);
        else
            memcpy(out + i, &h, (size_t)(n - i) * sizeof *out);
    }
}

static inline __m256 load_kv(const void *base, bool f16, size_t at, int left)
{
    if (!f16)
        return load((const float *)base + at, left);
    const uint16_t *from = (const uint16_t *)base + at;
    __m128i h = _mm_setzero_si128();
    if (left >= 8)
        h = _mm_loadu_si128((const __m128i *)(const void *)from);
    else if (left > 0)
        memcpy(&h, from, (size_t)left * sizeof *from);
    return _mm256_cvtph_ps(h);
}

/* Lane 4 h + j: the sum of the lanes of acc[h][j], all added in the same order. */
static inline __attribute__((always_inline)) __m256 add_lanes_8(__m256 acc[2][4], int n_heads)
{
    __m256 x[2];
    UNROLLED for (int h = 0; h < 2; h++) {
        if (h >= n_heads) {
            x[h] = _mm256_setzero_ps();
            continue;
        }
        const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(acc[h][0], acc[h][1]), _mm256_unpackhi_ps(acc[h][0], acc[h][1]));
        const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(acc[h][2], acc[h][3]), _mm256_unpackhi_ps(acc[h][2], acc[h][3]));
        x[h] = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
    }
    return _mm256_add_ps(_mm256_permute2f128_ps(x[0], x[1], 0x20), _mm256_permute2f128_ps(x[0], x[1], 0x31));
}

enum {
    TILE_HEADS = 2,     /* heads and positions of a score tile: 8 sums in registers */
    TILE_POSITIONS = 4,
    TILE_COLUMNS = 32,  /* of values */
    KEYS_AT_ONCE = 16,  /* positions that stay in the first cache while all heads pass */
    PREFETCH_LINES = 32 /* asked for with a tile's keys: as much as four of 256 f16 take themselves */
};

/* s[h][j] = scale q[h] . k[j] for one or two heads and four positions; s at stride BW_PAGE. */
static inline __attribute__((always_inline)) void score_tile(float *s, const float *q, int n_heads, int d, __m256 scale,
                                                             const void *keys, bool f16, const size_t row[4])
{
    __m256 acc[2][4];
    UNROLLED for (int h = 0; h < n_heads; h++)
        UNROLLED for (int j = 0; j < 4; j++)
            acc[h][j] = _mm256_setzero_ps();
    int i = 0;
    for (; i + 8 <= d; i += 8) {
        __m256 k[4];
        UNROLLED for (int j = 0; j < 4; j++)
            k[j] = load_kv(keys, f16, row[j] + (size_t)i, 8);
        UNROLLED for (int h = 0; h < n_heads; h++) {
            const __m256 x = _mm256_loadu_ps(q + (size_t)h * (size_t)d + i);
            UNROLLED for (int j = 0; j < 4; j++)
                acc[h][j] = _mm256_fmadd_ps(x, k[j], acc[h][j]);
        }
    }
    if (i < d)
        UNROLLED for (int j = 0; j < 4; j++) {
            const __m256 k = load_kv(keys, f16, row[j] + (size_t)i, d - i);
            UNROLLED for (int h = 0; h < n_heads; h++)
                acc[h][j] = _mm256_fmadd_ps(load(q + (size_t)h * (size_t)d + i, d - i), k, acc[h][j]);
        }
    const __m256 sums = _mm256_mul_ps(scale, add_lanes_8(acc, n_heads));
    _mm_storeu_ps(s, _mm256_castps256_ps128(sums));
    if (n_heads > 1)
        _mm_storeu_ps(s + BW_PAGE, _mm256_extractf128_ps(sums, 1));
}

static inline __attribute__((always_inline)) void score_page(float *s, const float *q, int n_heads, int d,
                                                             const void *keys, bool f16, size_t at, int n, ahead *next)
{
    const __m256 scale = _mm256_set1_ps(1 / sqrtf((float)d));
    for (int first = 0; first < n; first += KEYS_AT_ONCE) {
        const int end = first + KEYS_AT_ONCE < n ? first + KEYS_AT_ONCE : n;
        for (int h = 0; h < n_heads; h += TILE_HEADS)
            for (int p = first; p < end; p += TILE_POSITIONS) {
                size_t row[4];
                UNROLLED for (int j = 0; j < 4; j++)
                    row[j] = at + (size_t)(p + j < n ? p + j : n - 1) * (size_t)d;
                if (h == 0)
                    ask_ahead(next, PREFETCH_LINES);
                if (h + 1 < n_heads)
                    score_tile(s + h * BW_PAGE + p, q + (size_t)h * (size_t)d, 2, d, scale, keys, f16, row);
                else
                    score_tile(s + h * BW_PAGE + p, q + (size_t)h * (size_t)d, 1, d, scale, keys, f16, row);
            }
    }
}

static void weigh_page(float *s, int n, float *max, float *sum, float *keep)
{
    __m256 x[8], largest = _mm256_set1_ps(-INFINITY), total = _mm256_setzero_ps();
    for (int i = 0; i < 8; i++) {
        __m256i used = lanes(n - 8 * i);
        x[i] = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_maskload_ps(s + 8 * i, used), _mm256_castsi256_ps(used));
        largest = _mm256_max_ps(largest, x[i]);
    }
    const float next = fmaxf(*max, max_lanes(largest));
    for (int i = 0; i < 8; i++) {
        const __m256 e = exp8(_mm256_sub_ps(x[i], _mm256_set1_ps(next)));
        total = _mm256_add_ps(total, e);
        _mm256_storeu_ps(s + 8 * i, e);
    }
    *keep = _mm256_cvtss_f32(exp8(_mm256_set1_ps(*max - next)));
    *sum = *sum * *keep + add_lanes(total);
    *max = next;
}

/* out[h] = keep[h] out[h] + sum_p s[h][p] v[p], 8 n_vectors columns for one or two heads, of which the last
 * vector has `left`; v at stride d */
static inline __attribute__((always_inline)) void value_tile(float *out, const float *s, const float *keep, int n_heads,
                                                             int n_vectors, int d, const void *values, bool f16, size_t at,
                                                             int n, int left, ahead *next)
{
    __m256 acc[2][4];
    UNROLLED for (int h = 0; h < n_heads; h++)
        UNROLLED for (int c = 0; c < n_vectors; c++)
            acc[h][c] = _mm256_mul_ps(_mm256_set1_ps(keep[h]), load(out + (size_t)h * (size_t)d + 8 * c, left));
    for (int p = 0; p < n; p++, at += (size_t)d) {
        ask_ahead(next, 1);
        __m256 v[4];
        UNROLLED for (int c = 0; c < n_vectors; c++)
            v[c] = load_kv(values, f16, at + 8 * (size_t)c, left);
        UNROLLED for (int h = 0; h < n_heads; h++) {
            const __m256 w = _mm256_set1_ps(s[h * BW_PAGE + p]);
            UNROLLED for (int c = 0; c < n_vectors; c++)
                acc[h][c] = _mm256_fmadd_ps(w, v[c], acc[h][c]);
        }
    }
    UNROLLED for (int h = 0; h < n_heads; h++)
        UNROLLED for (int c = 0; c < n_vectors; c++)
            store(out + (size_t)h * (size_t)d + 8 * c, left, acc[h][c]);
}

static inline __attribute__((always_inline)) void value_tiles(float *out, const float *s, const float *keep, int n_heads,
                                                              int d, const void *values, bool f16, size_t at, int n,
                                                              ahead *next)
{
    ahead none = { NULL, NULL };
    int i = 0;
    for (; i + TILE_COLUMNS <= d; i += TILE_COLUMNS)
        for (int h = 0; h < n_heads; h += TILE_HEADS) {
            float *o = out + (size_t)h * (size_t)d + i;
            ahead *then = h == 0 ? next : &none;
            if (h + 1 < n_heads)
                value_tile(o, s + h * BW_PAGE, keep + h, 2, 4, d, values, f16, at + (size_t)i, n, 8, then);
            else
                value_tile(o, s + h * BW_PAGE, keep + h, 1, 4, d, values, f16, at + (size_t)i, n, 8, then);
        }
    for (; i < d; i += 8)
        for (int h = 0; h < n_heads; h++)
            value_tile(out + (size_t)h * (size_t)d + i, s + h * BW_PAGE, keep + h, 1, 1, d, values, f16, at + (size_t)i, n,
                       d - i, &none);
}

static void attn_merge(const bw_attn_sums *to, const bw_attn_sums *more, int d)
{
    const float max = fmaxf(*to->max, *more->max);
    const __m256 keep = exp8(_mm256_set1_ps(*to->max - max)), weight = exp8(_mm256_set1_ps(*more->max - max));
    for (int i = 0; i < d; i += 8) {
        const __m256 kept = _mm256_mul_ps(keep, load(to->out + i, d - i));
        store(to->out + i, d - i, _mm256_fmadd_ps(weight, load(more->out + i, d - i), kept));
    }
    *to->sum = *to->sum * _mm256_cvtss_f32(keep) + *more->sum * _mm256_cvtss_f32(weight);
    *to->max = max;
}

static void sigmoid_mul(float *out, const float *x, float scale, const float *gate, int n)
{
    const __m256 factor = _mm256_set1_ps(scale);
    for (int i = 0; i < n; i += 8) {
        const __m256 scaled = _mm256_mul_ps(load(x + i, n - i), factor);
        store(out + i, n - i, _mm256_mul_ps(scaled, sigmoid8(load(gate + i, n - i))));
    }
}

/* ---- delta rule ------------------------------------------------------------------------------ */

typedef struct columns {
    __m256 low, high; /* of a tile of 16 */
} columns;

static inline columns columns_zero(void)
{
    return (columns){ _mm256_setzero_ps(), _mm256_setzero_ps() };
}

static inline columns columns_load(const float *x)
{
    return (columns){ _mm256_loadu_ps(x), _mm256_loadu_ps(x + 8) };
}

static inline void columns_store(float *x, columns c)
{
    _mm256_storeu_ps(x, c.low);
    _mm256_storeu_ps(x + 8, c.high);
}

static inline columns columns_add(columns a, columns b)
{
    return (columns){ _mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high) };
}

/* sum + x c */
static inline columns columns_fma(float x, columns c, columns sum)
{
    const __m256 f = _mm256_set1_ps(x);
    return (columns){ _mm256_fmadd_ps(f, c.low, sum.low), _mm256_fmadd_ps(f, c.high, sum.high) };
}

/* S^T k of the 16 columns, rows of S in two interleaved sums. */
static inline columns columns_dot(const float *S, const float *k, int d_k)
{
    columns even = columns_zero(), odd = even;
    int i = 0;
    for (; i + 2 <= d_k; i += 2, S += 2 * BW_GDN_TILE) {
        even = columns_fma(k[i], columns_load(S), even);
        odd = columns_fma(k[i + 1], columns_load(S + BW_GDN_TILE), odd);
    }
    if (i < d_k)
        even = columns_fma(k[i], columns_load(S), even);
    return columns_add(even, odd);
}

/* What one pass over S is for: y = S^T q and the next row's S^T k are summed while S <- g S + k d^T is
 * in registers, in the order of columns_dot, so that a row's bits do not depend on where a call ends. */
typedef struct pass {
    float *to;         /* where S goes: itself, or the copy that draft rows run on */
    const float *from;
    const float *k, *q, *next_k;
    __m256 decay;
    columns delta;
} pass;

static inline __attribute__((always_inline)) void update_row(const pass *p, int i, columns *y, columns *dot, bool want_y,
                                                             bool want_dot)
{
    columns s = columns_load(p->from + (size_t)i * BW_GDN_TILE);
    s.low = _mm256_mul_ps(p->decay, s.low);
    s.high = _mm256_mul_ps(p->decay, s.high);
    s = columns_fma(p->k[i], p->delta, s);
    columns_store(p->to + (size_t)i * BW_GDN_TILE, s);
    if (want_y)
        *y = columns_fma(p->q[i], s, *y);
    if (want_dot)
        *dot = columns_fma(p->next_k[i], s, *dot);
}

static inline __attribute__((always_inline)) void update_as(const pass *p, int d_k, columns *y, columns *dot, bool want_y,
                                                            bool want_dot)
{
    columns y_even = columns_zero(), y_odd = y_even, dot_even = y_even, dot_odd = y_even;
    int i = 0;
    for (; i + 2 <= d_k; i += 2) {
        update_row(p, i, &y_even, &dot_even, want_y, want_dot);
        update_row(p, i + 1, &y_odd, &dot_odd, want_y, want_dot);
    }
    if (i < d_k)
        update_row(p, i, &y_even, &dot_even, want_y, want_dot);
    *y = columns_add(y_even, y_odd);
    *dot = columns_add(dot_even, dot_odd);
}

static inline __m256 delta_of(__m256 v, __m256 decay, float beta, __m256 dot)
{
    return _mm256_mul_ps(_mm256_set1_ps(beta), _mm256_sub_ps(v, _mm256_mul_ps(decay, dot)));
}

static void tile_through(float *S, float *draft, const bw_delta_rows *rows, int tile)
{
    const int d_k = rows->d_k;
    columns out, dot = columns_dot(S, rows->k, d_k);
    for (int r = 0; r < rows->n; r++) {
        const size_t key = (size_t)r * rows->k_stride, at = (size_t)r * rows->v_stride;
        pass p = { .to = r < rows->n_commit ? S : draft, .from = r <= rows->n_commit ? S : draft,
                   .k = rows->k + key, .q = rows->q + key, .next_k = rows->k + key + rows->k_stride,
                   .decay = _mm256_set1_ps(rows->g[at]) };
        const columns x = columns_load(rows->v + at + tile * BW_GDN_TILE);
        p.delta.low = delta_of(x.low, p.decay, rows->beta[at], dot.low);
        p.delta.high = delta_of(x.high, p.decay, rows->beta[at], dot.high);
        const bool want_y = r >= rows->n_quiet, want_dot = r + 1 < rows->n;
        if (want_y && want_dot)
            update_as(&p, d_k, &out, &dot, true, true);
        else if (want_y)
            update_as(&p, d_k, &out, &dot, true, false);
        else if (want_dot)
            update_as(&p, d_k, &out, &dot, false, true);
        else
            update_as(&p, d_k, &out, &dot, false, false);
        if (want_y)
            columns_store(rows->y + (size_t)r * rows->y_stride + tile * BW_GDN_TILE, out);
    }
}

static void delta_rows(float *S, float *draft, const bw_delta_rows *rows)
{
    for (int t = 0; t < rows->n_tiles; t++)
        tile_through(S + (size_t)t * (size_t)rows->d_k * BW_GDN_TILE, draft, rows, t);
}

/* Channels a and a + 4 of [channel, 4], side by side. */
static inline __m256 load_two(const float *w, int a)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(w + 4 * a)), _mm_loadu_ps(w + 4 * a + 16), 1);
}

/* The four weights of 8 channels, [channel, 4] in memory, turned in registers. */
static inline void turn_weights(__m256 out[4], const float *w)
{
    const __m256 a = load_two(w, 0), b = load_two(w, 1), c = load_two(w, 2), d = load_two(w, 3);
    const __m256 ab_low = _mm256_unpacklo_ps(a, b), ab_high = _mm256_unpackhi_ps(a, b);
    const __m256 cd_low = _mm256_unpacklo_ps(c, d), cd_high = _mm256_unpackhi_ps(c, d);
    out[0] = _mm256_shuffle_ps(ab_low, cd_low, 0x44);
    out[1] = _mm256_shuffle_ps(ab_low, cd_low, 0xEE);
    out[2] = _mm256_shuffle_ps(ab_high, cd_high, 0x44);
    out[3] = _mm256_shuffle_ps(ab_high, cd_high, 0xEE);
}

static void conv_silu(float *out, const float *const *x, const float *w, int width, int first, int n)
{
    const __m256i at = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(width));
    for (int j = 0; j < n; j += 8) {
        const __m256 m = _mm256_castsi256_ps(lanes(n - j));
        const float *wj = w + (size_t)(first + j) * (size_t)width;
        __m256 sum = _mm256_setzero_ps(), weights[4];
        if (width == 4 && n - j >= 8) { /* the usual one: whole loads, turned; the rest gathers, with the same sum */
            turn_weights(weights, wj);
            UNROLLED for (int i = 0; i < 4; i++)
                sum = _mm256_fmadd_ps(weights[i], _mm256_loadu_ps(x[i] + first + j), sum);
        } else {
            for (int i = 0; i < width; i++) {
                const __m256 weight = _mm256_mask_i32gather_ps(_mm256_setzero_ps(), wj + i, at, m, 4);
                sum = _mm256_fmadd_ps(weight, load(x[i] + first + j, n - j), sum);
            }
        }
        store(out + j, n - j, silu8(sum));
    }
}

static void gated_norm(float *out, const float *y, const float *w, const float *z, int d, float eps)
{
    const __m256 scale = _mm256_set1_ps(1 / sqrtf(sum_squares(y, d) / (float)d + eps));
    for (int i = 0; i < d; i += 8) {
        __m256 normed = _mm256_mul_ps(_mm256_mul_ps(load(y + i, d - i), scale), load(w + i, d - i));
        store(out + i, d - i, _mm256_mul_ps(normed, silu8(load(z + i, d - i))));
    }
}

static void l2_norm(float *x, int d, float scale)
{
    const __m256 factor = _mm256_set1_ps(scale / sqrtf(sum_squares(x, d) + 1e-6f));
    for (int i = 0; i < d; i += 8)
        store(x + i, d - i, _mm256_mul_ps(load(x + i, d - i), factor));
}

/* ---- sampling -------------------------------------------------------------------------------- */

/* The element, -inf in lanes past the end. */
static inline __m256 load_or_none(const float *x, int left)
{
    if (left >= 8)
        return _mm256_loadu_ps(x);
    __m256i used = lanes(left);
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_maskload_ps(x, used), _mm256_castsi256_ps(used));
}

static int argmax(const float *x, int n)
{
    __m256 largest = _mm256_set1_ps(-INFINITY);
    for (int i = 0; i < n; i += 8) /* max gives its second operand when the first is NaN */
        largest = _mm256_max_ps(load_or_none(x + i, n - i), largest);
    const __m256 max = _mm256_set1_ps(max_lanes(largest));
    for (int i = 0; i < n; i += 8) {
        __m256 equal = _mm256_cmp_ps(load(x + i, n - i), max, _CMP_EQ_OQ);
        unsigned bits = (unsigned)_mm256_movemask_ps(equal) & (n - i >= 8 ? 0xFFu : (1u << (n - i)) - 1);
        if (bits)
            return i + __builtin_ctz(bits);
    }
    return -1; /* nothing equals even -inf: all are NaN */
}

static double sum_exp(const float *x, int n, float max, float temperature)
{
    double sum = 0;
    for (int first = 0; first < n; first += 256) { /* f32 sums stay short */
        __m256 part = _mm256_setzero_ps();
        for (int i = first; i < n && i < first + 256; i += 8) {
            const __m256 v = load_or_none(x + i, n - i);
            const __m256 e = exp8(_mm256_div_ps(_mm256_sub_ps(v, _mm256_set1_ps(max)), _mm256_set1_ps(temperature)));
            part = _mm256_add_ps(part, _mm256_and_ps(e, _mm256_cmp_ps(v, v, _CMP_ORD_Q)));
        }
        sum += add_lanes(part);
    }
    return sum;
}

void bw_cpu_fill_avx2_mixer(bw_cpu_kernels *k)
{
    k->norm_rope = norm_rope;
    k->store_f16 = store_f16;
    k->attend = attend;
    k->attn_scratch_bytes = attn_scratch_bytes;
    k->attn_merge = attn_merge;
    k->sigmoid_mul = sigmoid_mul;
    k->delta_rows = delta_rows;
    k->conv_silu = conv_silu;
    k->gated_norm = gated_norm;
    k->l2_norm = l2_norm;
    k->argmax = argmax;
    k->sum_exp = sum_exp;
}
