/* mixer_avx512.c - attention, delta rule and sampling kernels with AVX-512 (F, BW, DQ, VL).
 *
 * Sums run in fixed lanes and a fixed order that depends on sizes alone, and every element of an
 * elementwise kernel is computed the same way wherever it stands: tails are masked, never scalar.
 * Any thread; owns nothing. */
#include <immintrin.h>
#include <math.h>

#include "ops/cpu/cpu.h"
#include "ops/cpu/mixer_body.h"

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

static inline __m512 load_kv16(const void *base, bool f16, size_t at)
{
    return f16 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)base + at)))
               : _mm512_loadu_ps((const float *)base + at);
}

/* Lane 4 h + j: the sum of the lanes of acc[h][j], all added in the same order. */
static inline __attribute__((always_inline)) __m512 add_lanes_16(__m512 acc[4][4], int n_heads)
{
    __m512 x[4];
    UNROLLED for (int h = 0; h < 4; h++) {
        if (h >= n_heads) {
            x[h] = _mm512_setzero_ps();
            continue;
        }
        const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(acc[h][0], acc[h][1]), _mm512_unpackhi_ps(acc[h][0], acc[h][1]));
        const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(acc[h][2], acc[h][3]), _mm512_unpackhi_ps(acc[h][2], acc[h][3]));
        x[h] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))));
    }
    const __m512 low = _mm512_add_ps(_mm512_shuffle_f32x4(x[0], x[1], 0x44), _mm512_shuffle_f32x4(x[0], x[1], 0xEE));
    const __m512 high = _mm512_add_ps(_mm512_shuffle_f32x4(x[2], x[3], 0x44), _mm512_shuffle_f32x4(x[2], x[3], 0xEE));
    return _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xDD));
}

enum {
    TILE_HEADS = 4,      /* heads and positions of a score tile: 16 sums in registers */
    TILE_POSITIONS = 4,
    TILE_COLUMNS = 64,   /* of values */
    KEYS_AT_ONCE = 16,   /* positions that stay in the first cache while all heads pass */
    PREFETCH_LINES = 32  /* asked for with a tile's keys: as much as four of 256 f16 take themselves */
};

/* s[h][j] = scale q[h] . k[j] for up to four heads and four positions; s at stride BW_PAGE. */
static inline __attribute__((always_inline)) void score_tile(float *s, const float *q, int n_heads, int d, __m512 scale,
                                                             const void *keys, bool f16, const size_t row[4])
{
    __m512 acc[4][4];
    UNROLLED for (int h = 0; h < n_heads; h++)
        UNROLLED for (int j = 0; j < 4; j++)
            acc[h][j] = _mm512_setzero_ps();
    int i = 0;
    for (; i + 16 <= d; i += 16) {
        __m512 k[4];
        UNROLLED for (int j = 0; j < 4; j++)
            k[j] = load_kv16(keys, f16, row[j] + (size_t)i);
        UNROLLED for (int h = 0; h < n_heads; h++) {
            const __m512 x = _mm512_loadu_ps(q + (size_t)h * (size_t)d + i);
            UNROLLED for (int j = 0; j < 4; j++)
                acc[h][j] = _mm512_fmadd_ps(x, k[j], acc[h][j]);
        }
    }
    if (i < d) {
        const __mmask16 m = lanes(d - i);
        UNROLLED for (int j = 0; j < 4; j++) {
            const __m512 k = load_kv(keys, f16, row[j] + (size_t)i, m);
            UNROLLED for (int h = 0; h < n_heads; h++)
                acc[h][j] = _mm512_fmadd_ps(load(q + (size_t)h * (size_t)d + i, m), k, acc[h][j]);
        }
    }
    const __m512 sums = _mm512_mul_ps(scale, add_lanes_16(acc, n_heads));
    _mm_storeu_ps(s, _mm512_castps512_ps128(sums));
    if (n_heads > 1)
        _mm_storeu_ps(s + BW_PAGE, _mm512_extractf32x4_ps(sums, 1));
    if (n_heads > 2)
        _mm_storeu_ps(s + 2 * BW_PAGE, _mm512_extractf32x4_ps(sums, 2));
    if (n_heads > 3)
        _mm_storeu_ps(s + 3 * BW_PAGE, _mm512_extractf32x4_ps(sums, 3));
}

static inline __attribute__((always_inline)) void score_page(float *s, const float *q, int n_heads, int d,
                                                             const void *keys, bool f16, size_t at, int n, ahead *next)
{
    const __m512 scale = _mm512_set1_ps(1 / sqrtf((float)d));
    for (int first = 0; first < n; first += KEYS_AT_ONCE) {
        const int end = first + KEYS_AT_ONCE < n ? first + KEYS_AT_ONCE : n;
        for (int h = 0; h < n_heads; h += TILE_HEADS)
            for (int p = first; p < end; p += TILE_POSITIONS) {
                size_t row[4];
                UNROLLED for (int j = 0; j < 4; j++)
                    row[j] = at + (size_t)(p + j < n ? p + j : n - 1) * (size_t)d;
                const float *x = q + (size_t)h * (size_t)d;
                float *to = s + h * BW_PAGE + p;
                if (h == 0)
                    ask_ahead(next, PREFETCH_LINES);
                switch (n_heads - h) {
                case 1: score_tile(to, x, 1, d, scale, keys, f16, row); break;
                case 2: score_tile(to, x, 2, d, scale, keys, f16, row); break;
                case 3: score_tile(to, x, 3, d, scale, keys, f16, row); break;
                default: score_tile(to, x, 4, d, scale, keys, f16, row); break;
                }
            }
    }
}

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

/* out[h] = keep[h] out[h] + sum_p s[h][p] v[p], 16 n_vectors columns for up to four heads; v at stride d */
static inline __attribute__((always_inline)) void value_tile(float *out, const float *s, const float *keep, int n_heads,
                                                             int n_vectors, int d, const void *values, bool f16, size_t at,
                                                             int n, __mmask16 last, ahead *next)
{
    __m512 acc[4][4];
    const bool whole = last == 0xFFFF;
    UNROLLED for (int h = 0; h < n_heads; h++)
        UNROLLED for (int c = 0; c < n_vectors; c++)
            acc[h][c] = _mm512_mul_ps(_mm512_set1_ps(keep[h]), load(out + (size_t)h * (size_t)d + 16 * c, c + 1 < n_vectors ? 0xFFFF : last));
    for (int p = 0; p < n; p++, at += (size_t)d) {
        __m512 v[4];
        UNROLLED for (int c = 0; c < n_vectors; c++)
            v[c] = n_vectors == 4 || whole ? load_kv16(values, f16, at + 16 * (size_t)c) : load_kv(values, f16, at + 16 * (size_t)c, last);
        ask_ahead(next, 2);
        UNROLLED for (int h = 0; h < n_heads; h++) {
            const __m512 w = _mm512_set1_ps(s[h * BW_PAGE + p]);
            UNROLLED for (int c = 0; c < n_vectors; c++)
                acc[h][c] = _mm512_fmadd_ps(w, v[c], acc[h][c]);
        }
    }
    UNROLLED for (int h = 0; h < n_heads; h++)
        UNROLLED for (int c = 0; c < n_vectors; c++)
            _mm512_mask_storeu_ps(out + (size_t)h * (size_t)d + 16 * c, c + 1 < n_vectors ? 0xFFFF : last, acc[h][c]);
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
            switch (n_heads - h) {
            case 1: value_tile(o, s + h * BW_PAGE, keep + h, 1, 4, d, values, f16, at + (size_t)i, n, 0xFFFF, then); break;
            case 2: value_tile(o, s + h * BW_PAGE, keep + h, 2, 4, d, values, f16, at + (size_t)i, n, 0xFFFF, then); break;
            case 3: value_tile(o, s + h * BW_PAGE, keep + h, 3, 4, d, values, f16, at + (size_t)i, n, 0xFFFF, then); break;
            default: value_tile(o, s + h * BW_PAGE, keep + h, 4, 4, d, values, f16, at + (size_t)i, n, 0xFFFF, then); break;
            }
        }
    for (; i < d; i += 16)
        for (int h = 0; h < n_heads; h++)
            value_tile(out + (size_t)h * (size_t)d + i, s + h * BW_PAGE, keep + h, 1, 1, d, values, f16, at + (size_t)i, n,
                       lanes(d - i), &none);
}

static void attn_merge(const bw_attn_sums *to, const bw_attn_sums *more, int d)
{
    const float max = fmaxf(*to->max, *more->max);
    const __m512 keep = exp16(_mm512_set1_ps(*to->max - max)), weight = exp16(_mm512_set1_ps(*more->max - max));
    for (int i = 0; i < d; i += 16) {
        const __mmask16 m = lanes(d - i);
        const __m512 kept = _mm512_mul_ps(keep, load(to->out + i, m));
        _mm512_mask_storeu_ps(to->out + i, m, _mm512_fmadd_ps(weight, load(more->out + i, m), kept));
    }
    *to->sum = *to->sum * _mm512_cvtss_f32(keep) + *more->sum * _mm512_cvtss_f32(weight);
    *to->max = max;
}

static void sigmoid_mul(float *out, const float *x, float scale, const float *gate, int n)
{
    const __m512 factor = _mm512_set1_ps(scale);
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        const __m512 scaled = _mm512_mul_ps(load(x + i, m), factor);
        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(scaled, sigmoid16(load(gate + i, m))));
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
    float *to;         /* where S goes: itself, or the copy that draft rows run on */
    const float *from;
    const float *k, *q, *next_k;
    size_t tile_bytes;
    __m512 decay, delta;
} pass;

static inline __attribute__((always_inline)) void update_row(const pass *p, int i, __m512 *y, __m512 *dot, bool want_y,
                                                             bool want_dot, bool first)
{
    const size_t at = (size_t)i * BW_GDN_TILE;
    if (first) /* the next tile follows this one; asking for what is not there does nothing */
        _mm_prefetch((const char *)(p->from + at) + p->tile_bytes, _MM_HINT_T0);
    const __m512 kept = _mm512_mul_ps(p->decay, _mm512_loadu_ps(p->from + at));
    const __m512 s = _mm512_fmadd_ps(_mm512_set1_ps(p->k[i]), p->delta, kept);
    _mm512_storeu_ps(p->to + at, s);
    if (want_y)
        *y = _mm512_fmadd_ps(_mm512_set1_ps(p->q[i]), s, *y);
    if (want_dot)
        *dot = _mm512_fmadd_ps(_mm512_set1_ps(p->next_k[i]), s, *dot);
}

static inline __attribute__((always_inline)) void update_as(const pass *p, int d_k, __m512 *y, __m512 *dot, bool want_y,
                                                            bool want_dot, bool first)
{
    __m512 ys[4], dots[4];
    UNROLLED for (int j = 0; j < 4; j++)
        ys[j] = dots[j] = _mm512_setzero_ps();
    int i = 0;
    for (; i + 4 <= d_k; i += 4)
        UNROLLED for (int j = 0; j < 4; j++)
            update_row(p, i + j, &ys[j], &dots[j], want_y, want_dot, first);
    for (; i < d_k; i++)
        update_row(p, i, &ys[0], &dots[0], want_y, want_dot, first);
    *y = _mm512_add_ps(_mm512_add_ps(ys[0], ys[1]), _mm512_add_ps(ys[2], ys[3]));
    *dot = _mm512_add_ps(_mm512_add_ps(dots[0], dots[1]), _mm512_add_ps(dots[2], dots[3]));
}

static inline __attribute__((always_inline)) void update(const pass *p, int d_k, __m512 *y, __m512 *dot, bool want_y,
                                                         bool want_dot, bool first)
{
    if (want_y && want_dot)
        update_as(p, d_k, y, dot, true, true, first);
    else if (want_y)
        update_as(p, d_k, y, dot, true, false, first);
    else if (want_dot)
        update_as(p, d_k, y, dot, false, true, first);
    else
        update_as(p, d_k, y, dot, false, false, first);
}

static void tile_through(float *S, float *draft, const bw_delta_rows *rows, int tile)
{
    const int d_k = rows->d_k;
    __m512 y, dot = columns_dot(S, rows->k, d_k);
    for (int r = 0; r < rows->n; r++) {
        const size_t key = (size_t)r * rows->k_stride, at = (size_t)r * rows->v_stride;
        pass p = { .to = r < rows->n_commit ? S : draft, .from = r <= rows->n_commit ? S : draft,
                   .k = rows->k + key, .q = rows->q + key, .next_k = rows->k + key + rows->k_stride,
                   .tile_bytes = (size_t)d_k * BW_GDN_TILE * sizeof *S, .decay = _mm512_set1_ps(rows->g[at]) };
        const __m512 v = _mm512_loadu_ps(rows->v + at + tile * BW_GDN_TILE);
        p.delta = _mm512_mul_ps(_mm512_set1_ps(rows->beta[at]), _mm512_sub_ps(v, _mm512_mul_ps(p.decay, dot)));
        const bool want_y = r >= rows->n_quiet, want_dot = r + 1 < rows->n;
        if (r == 0)
            update(&p, d_k, &y, &dot, want_y, want_dot, true);
        else
            update(&p, d_k, &y, &dot, want_y, want_dot, false);
        if (want_y)
            _mm512_storeu_ps(rows->y + (size_t)r * rows->y_stride + tile * BW_GDN_TILE, y);
    }
}

static void delta_rows(float *S, float *draft, const bw_delta_rows *rows)
{
    for (int t = 0; t < rows->n_tiles; t++)
        tile_through(S + (size_t)t * (size_t)rows->d_k * BW_GDN_TILE, draft, rows, t);
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
        if (width == 4) { /* the usual one: whole loads, turned; any other gathers */
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
    k->attn_merge = attn_merge;
    k->sigmoid_mul = sigmoid_mul;
    k->delta_rows = delta_rows;
    k->conv_silu = conv_silu;
    k->gated_norm = gated_norm;
    k->l2_norm = l2_norm;
    k->argmax = argmax;
    k->sum_exp = sum_exp;
}
