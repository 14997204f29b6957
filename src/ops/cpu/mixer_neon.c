/* mixer_neon.c - attention, delta rule and sampling kernels of ARM.
 *
 * Sums run in fixed lanes and a fixed order that depends on sizes alone, and every element of an
 * elementwise kernel is computed the same way wherever it stands: tails are copied to whole registers.
 * Any thread; owns nothing. */
#include <math.h>

#include "ops/cpu/cpu.h"
#include "ops/cpu/mixer_body.h"
#include "ops/cpu/neon.h"

INLINE float32x4_t sigmoid(float32x4_t x)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    return vdivq_f32(one, vaddq_f32(one, bw_neon_exp(vnegq_f32(x))));
}

INLINE float32x4_t silu(float32x4_t x)
{
    return vmulq_f32(x, sigmoid(x));
}

INLINE float add_lanes(bw_neon_8 x)
{
    return vaddvq_f32(vaddq_f32(x.low, x.high));
}

static float sum_squares(const float *x, int d)
{
    bw_neon_8 even = bw_neon_8_zero(), odd = even;
    for (int i = 0; i < d; i += 16) {
        const bw_neon_8 a = bw_neon_8_load(x + i, d - i), b = bw_neon_8_load(x + i + 8, d - i - 8);
        even = bw_neon_8_fma(even, a, a);
        odd = bw_neon_8_fma(odd, b, b);
    }
    return add_lanes((bw_neon_8){ vaddq_f32(even.low, odd.low), vaddq_f32(even.high, odd.high) });
}

/* ---- attention ------------------------------------------------------------------------------- */

static void norm_rope(float *out, const float *x, const float *w, int d, float eps, const float *cosine,
                      const float *sine, int n_pairs)
{
    const float scale = 1 / sqrtf(sum_squares(x, d) / (float)d + eps);
    for (int i = 0; i < d; i += 4)
        bw_neon_store(out + i, d - i, vmulq_f32(vmulq_n_f32(bw_neon_load(x + i, d - i), scale), bw_neon_load(w + i, d - i)));
    for (int j = 0; j < n_pairs; j += 4) {
        const int left = n_pairs - j;
        const float32x4_t a = bw_neon_load(out + j, left), b = bw_neon_load(out + j + n_pairs, left);
        const float32x4_t c = bw_neon_load(cosine + j, left), s = bw_neon_load(sine + j, left);
        bw_neon_store(out + j, left, vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c));
        bw_neon_store(out + j + n_pairs, left, vfmaq_f32(vmulq_f32(a, s), b, c));
    }
}

static void store_f16(uint16_t *out, const float *x, int n)
{
    for (int i = 0; i < n; i += 4) {
        const uint16x4_t h = vreinterpret_u16_f16(vcvt_f16_f32(bw_neon_load(x + i, n - i)));
        if (n - i >= 4)
            vst1_u16(out + i, h);
        else
            memcpy(out + i, &h, (size_t)(n - i) * sizeof *out);
    }
}

INLINE bw_neon_8 load_kv(const void *base, bool f16, size_t at, int left)
{
    return f16 ? bw_neon_8_load_f16((const uint16_t *)base + at, left) : bw_neon_8_load((const float *)base + at, left);
}

enum {
    TILE_HEADS = 2,     /* heads and positions of a score tile: 8 sums in 16 registers */
    TILE_POSITIONS = 4,
    TILE_COLUMNS = 32,  /* of values */
    KEYS_AT_ONCE = 16,  /* positions that stay in the first cache while all heads pass */
    PREFETCH_LINES = 32 /* asked for with a tile's keys: as much as four of 256 f16 take themselves */
};

/* The sum of the lanes of each, all added in the same order. */
INLINE float32x4_t add_lanes_4(const bw_neon_8 x[4])
{
    float32x4_t sums[4];
    UNROLL for (int j = 0; j < 4; j++)
        sums[j] = vaddq_f32(x[j].low, x[j].high);
    return vpaddq_f32(vpaddq_f32(sums[0], sums[1]), vpaddq_f32(sums[2], sums[3]));
}

/* Columns i .. i + left - 1 (at most 8) of n_heads queries by four keys. */
INLINE void score_step(bw_neon_8 (*sums)[4], const float *q, int n_heads, int d, const void *keys, bool f16,
                       const size_t row[4], int i, int left)
{
    bw_neon_8 k[4];
    UNROLL for (int j = 0; j < 4; j++)
        k[j] = load_kv(keys, f16, row[j] + (size_t)i, left);
    UNROLL for (int h = 0; h < n_heads; h++) {
        const bw_neon_8 x = bw_neon_8_load(q + (size_t)h * (size_t)d + i, left);
        UNROLL for (int j = 0; j < 4; j++)
            sums[h][j] = bw_neon_8_fma(sums[h][j], x, k[j]);
    }
}

/* s[h][j] = scale q[h] . k[j] for one or two heads and four positions; s at stride BW_PAGE. */
INLINE void score_tile(float *s, const float *q, int n_heads, int d, float scale, const void *keys, bool f16,
                       const size_t row[4])
{
    bw_neon_8 sums[TILE_HEADS][4];
    UNROLL for (int h = 0; h < n_heads; h++)
        UNROLL for (int j = 0; j < 4; j++)
            sums[h][j] = bw_neon_8_zero();
    int i = 0;
    for (; i + 8 <= d; i += 8)
        score_step(sums, q, n_heads, d, keys, f16, row, i, 8);
    if (i < d)
        score_step(sums, q, n_heads, d, keys, f16, row, i, d - i);
    UNROLL for (int h = 0; h < n_heads; h++)
        vst1q_f32(s + h * BW_PAGE, vmulq_n_f32(add_lanes_4(sums[h]), scale));
}

INLINE void score_page(float *s, const float *q, int n_heads, int d, const void *keys, bool f16, size_t at, int n,
                       ahead *next)
{
    const float scale = 1 / sqrtf((float)d);
    for (int first = 0; first < n; first += KEYS_AT_ONCE) {
        const int end = first + KEYS_AT_ONCE < n ? first + KEYS_AT_ONCE : n;
        for (int h = 0; h < n_heads; h += TILE_HEADS)
            for (int p = first; p < end; p += TILE_POSITIONS) {
                size_t row[4];
                UNROLL for (int j = 0; j < 4; j++)
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
    static const int32_t lane_numbers[] = { 0, 1, 2, 3 };
    float32x4_t x[BW_PAGE / 4], largest = vdupq_n_f32(-INFINITY);
    for (int i = 0; i < BW_PAGE / 4; i++) {
        const uint32x4_t used = vcltq_s32(vld1q_s32(lane_numbers), vdupq_n_s32(n - 4 * i));
        x[i] = vbslq_f32(used, vld1q_f32(s + 4 * i), vdupq_n_f32(-INFINITY));
        largest = vmaxq_f32(largest, x[i]);
    }
    const float next = fmaxf(*max, vmaxvq_f32(largest));
    bw_neon_8 total = bw_neon_8_zero();
    for (int i = 0; i < BW_PAGE / 4; i += 2) {
        const float32x4_t low = bw_neon_exp(vsubq_f32(x[i], vdupq_n_f32(next)));
        const float32x4_t high = bw_neon_exp(vsubq_f32(x[i + 1], vdupq_n_f32(next)));
        total = (bw_neon_8){ vaddq_f32(total.low, low), vaddq_f32(total.high, high) };
        vst1q_f32(s + 4 * i, low);
        vst1q_f32(s + 4 * i + 4, high);
    }
    *keep = vgetq_lane_f32(bw_neon_exp(vdupq_n_f32(*max - next)), 0);
    *sum = *sum * *keep + add_lanes(total);
    *max = next;
}

/* out[h] = keep[h] out[h] + sum_p s[h][p] v[p], 8 n_vectors columns for one or two heads, of which the last
 * vector has `left`; v at stride d */
INLINE void value_tile(float *out, const float *s, const float *keep, int n_heads, int n_vectors, int d,
                       const void *values, bool f16, size_t at, int n, int left, ahead *next)
{
    bw_neon_8 sums[TILE_HEADS][4];
    UNROLL for (int h = 0; h < n_heads; h++)
        UNROLL for (int c = 0; c < n_vectors; c++)
            sums[h][c] = bw_neon_8_mul_n(bw_neon_8_load(out + (size_t)h * (size_t)d + 8 * c, left), keep[h]);
    for (int p = 0; p < n; p++, at += (size_t)d) {
        ask_ahead(next, 1);
        bw_neon_8 v[4];
        UNROLL for (int c = 0; c < n_vectors; c++)
            v[c] = load_kv(values, f16, at + 8 * (size_t)c, left);
        UNROLL for (int h = 0; h < n_heads; h++)
            UNROLL for (int c = 0; c < n_vectors; c++)
                sums[h][c] = bw_neon_8_fma_n(sums[h][c], v[c], s[h * BW_PAGE + p]);
    }
    UNROLL for (int h = 0; h < n_heads; h++)
        UNROLL for (int c = 0; c < n_vectors; c++)
            bw_neon_8_store(out + (size_t)h * (size_t)d + 8 * c, left, sums[h][c]);
}

INLINE void value_tiles(float *out, const float *s, const float *keep, int n_heads, int d, const void *values, bool f16,
                        size_t at, int n, ahead *next)
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
    const float keep = vgetq_lane_f32(bw_neon_exp(vdupq_n_f32(*to->max - max)), 0);
    const float weight = vgetq_lane_f32(bw_neon_exp(vdupq_n_f32(*more->max - max)), 0);
    for (int i = 0; i < d; i += 4) {
        const float32x4_t kept = vmulq_n_f32(bw_neon_load(to->out + i, d - i), keep);
        bw_neon_store(to->out + i, d - i, vfmaq_n_f32(kept, bw_neon_load(more->out + i, d - i), weight));
    }
    *to->sum = *to->sum * keep + *more->sum * weight;
    *to->max = max;
}

static void sigmoid_mul(float *out, const float *x, float scale, const float *gate, int n)
{
    for (int i = 0; i < n; i += 4) {
        const float32x4_t scaled = vmulq_n_f32(bw_neon_load(x + i, n - i), scale);
        bw_neon_store(out + i, n - i, vmulq_f32(scaled, sigmoid(bw_neon_load(gate + i, n - i))));
    }
}

/* ---- delta rule ------------------------------------------------------------------------------ */

enum { PARTS = BW_GDN_TILE / 4 };

typedef struct columns {
    float32x4_t part[PARTS]; /* of a tile of 16 */
} columns;

INLINE columns columns_zero(void)
{
    columns zero;
    UNROLL for (int j = 0; j < PARTS; j++)
        zero.part[j] = vdupq_n_f32(0);
    return zero;
}

INLINE columns columns_load(const float *x)
{
    columns c;
    UNROLL for (int j = 0; j < PARTS; j++)
        c.part[j] = vld1q_f32(x + 4 * j);
    return c;
}

INLINE void columns_store(float *x, columns c)
{
    UNROLL for (int j = 0; j < PARTS; j++)
        vst1q_f32(x + 4 * j, c.part[j]);
}

INLINE columns columns_add(columns a, columns b)
{
    UNROLL for (int j = 0; j < PARTS; j++)
        a.part[j] = vaddq_f32(a.part[j], b.part[j]);
    return a;
}

/* sum + x c */
INLINE columns columns_fma(float x, columns c, columns sum)
{
    UNROLL for (int j = 0; j < PARTS; j++)
        sum.part[j] = vfmaq_n_f32(sum.part[j], c.part[j], x);
    return sum;
}

/* S^T k of the 16 columns, rows of S in two interleaved sums. */
INLINE columns columns_dot(const float *S, const float *k, int d_k)
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
    float *to; /* where S goes: itself, or the copy that draft rows run on */
    const float *from;
    const float *k, *q, *next_k;
    float decay;
    columns delta;
} pass;

INLINE void update_row(const pass *p, int i, columns *y, columns *dot, bool want_y, bool want_dot)
{
    columns s = columns_load(p->from + (size_t)i * BW_GDN_TILE);
    UNROLL for (int j = 0; j < PARTS; j++)
        s.part[j] = vmulq_n_f32(s.part[j], p->decay);
    s = columns_fma(p->k[i], p->delta, s);
    columns_store(p->to + (size_t)i * BW_GDN_TILE, s);
    if (want_y)
        *y = columns_fma(p->q[i], s, *y);
    if (want_dot)
        *dot = columns_fma(p->next_k[i], s, *dot);
}

INLINE void update_as(const pass *p, int d_k, columns *y, columns *dot, bool want_y, bool want_dot)
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

static void tile_through(float *S, float *draft, const bw_delta_rows *rows, int tile)
{
    const int d_k = rows->d_k;
    columns out, dot = columns_dot(S, rows->k, d_k);
    for (int r = 0; r < rows->n; r++) {
        const size_t key = (size_t)r * rows->k_stride, at = (size_t)r * rows->v_stride;
        const float *v = rows->v + at + tile * BW_GDN_TILE;
        pass p = { .to = r < rows->n_commit ? S : draft, .from = r <= rows->n_commit ? S : draft,
                   .k = rows->k + key, .q = rows->q + key, .next_k = rows->k + key + rows->k_stride,
                   .decay = rows->g[at] };
        UNROLL for (int j = 0; j < PARTS; j++)
            p.delta.part[j] = vmulq_n_f32(vsubq_f32(vld1q_f32(v + 4 * j), vmulq_n_f32(dot.part[j], p.decay)), rows->beta[at]);
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

/* Weight i of four channels of [channel, width], `left` of them there. */
INLINE float32x4_t gather_weights(const float *w, int width, int i, int left)
{
    float weights[4] = { 0 };
    for (int c = 0; c < 4 && c < left; c++)
        weights[c] = w[c * width + i];
    return vld1q_f32(weights);
}

static void conv_silu(float *out, const float *const *x, const float *w, int width, int first, int n)
{
    for (int j = 0; j < n; j += 4) {
        const float *wj = w + (size_t)(first + j) * (size_t)width;
        float32x4_t sum = vdupq_n_f32(0);
        if (width == 4 && n - j >= 4) { /* the usual one: turned while it is loaded, with the same sum */
            const float32x4x4_t weights = vld4q_f32(wj);
            UNROLL for (int i = 0; i < 4; i++)
                sum = vfmaq_f32(sum, weights.val[i], vld1q_f32(x[i] + first + j));
        } else {
            for (int i = 0; i < width; i++)
                sum = vfmaq_f32(sum, gather_weights(wj, width, i, n - j), bw_neon_load(x[i] + first + j, n - j));
        }
        bw_neon_store(out + j, n - j, silu(sum));
    }
}

static void gated_norm(float *out, const float *y, const float *w, const float *z, int d, float eps)
{
    const float scale = 1 / sqrtf(sum_squares(y, d) / (float)d + eps);
    for (int i = 0; i < d; i += 4) {
        const float32x4_t normed = vmulq_f32(vmulq_n_f32(bw_neon_load(y + i, d - i), scale), bw_neon_load(w + i, d - i));
        bw_neon_store(out + i, d - i, vmulq_f32(normed, silu(bw_neon_load(z + i, d - i))));
    }
}

static void l2_norm(float *x, int d, float scale)
{
    const float factor = scale / sqrtf(sum_squares(x, d) + 1e-6f);
    for (int i = 0; i < d; i += 4)
        bw_neon_store(x + i, d - i, vmulq_n_f32(bw_neon_load(x + i, d - i), factor));
}

/* ---- sampling -------------------------------------------------------------------------------- */

static int argmax(const float *x, int n)
{
    float32x4_t largest = vdupq_n_f32(-INFINITY);
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t v = vld1q_f32(x + i);
        largest = vbslq_f32(vcgtq_f32(v, largest), v, largest); /* NaN is not larger */
    }
    float max = vmaxvq_f32(largest);
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (i = 0; i + 4 <= n && vmaxvq_u32(vceqq_f32(vld1q_f32(x + i), vdupq_n_f32(max))) == 0; i += 4)
        continue;
    for (; i < n; i++)
        if (x[i] == max)
            return i;
    return -1; /* nothing equals even -inf: all are NaN */
}

static double sum_exp(const float *x, int n, float max, float temperature)
{
    double sum = 0;
    for (int first = 0; first < n; first += 256) { /* f32 sums stay short */
        bw_neon_8 part = bw_neon_8_zero();
        for (int i = first; i < n && i < first + 256; i += 8) {
            const bw_neon_8 v = bw_neon_8_load(x + i, n - i);
            static const int32_t lane_numbers[] = { 0, 1, 2, 3 };
            const uint32x4_t low = vandq_u32(vcltq_s32(vld1q_s32(lane_numbers), vdupq_n_s32(n - i)), vceqq_f32(v.low, v.low));
            const uint32x4_t high = vandq_u32(vcltq_s32(vld1q_s32(lane_numbers), vdupq_n_s32(n - i - 4)), vceqq_f32(v.high, v.high));
            const float32x4_t a = bw_neon_exp(vdivq_f32(vsubq_f32(v.low, vdupq_n_f32(max)), vdupq_n_f32(temperature)));
            const float32x4_t b = bw_neon_exp(vdivq_f32(vsubq_f32(v.high, vdupq_n_f32(max)), vdupq_n_f32(temperature)));
            part.low = vaddq_f32(part.low, vreinterpretq_f32_u32(vandq_u32(low, vreinterpretq_u32_f32(a))));
            part.high = vaddq_f32(part.high, vreinterpretq_f32_u32(vandq_u32(high, vreinterpretq_u32_f32(b))));
        }
        sum += add_lanes(part);
    }
    return sum;
}

void bw_cpu_fill_neon_mixer(bw_cpu_kernels *k)
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
