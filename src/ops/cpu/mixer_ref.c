/* mixer_ref.c - attention, delta rule and sampling kernels as they are written down, one scalar at
 * a time with f64 sums: what the faster levels are checked against. Any thread; owns nothing. */
#include <math.h>

#include "base/half.h"
#include "ops/cpu/cpu.h"

static double sigmoid(double x)
{
    double e = exp(-fabs(x));
    return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

static double silu(double x)
{
    return x * sigmoid(x);
}

static double sum_squares(const float *x, int d)
{
    double sum = 0;
    for (int i = 0; i < d; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

/* ---- attention ------------------------------------------------------------------------------- */

static void norm_rope(float *out, const float *x, const float *w, int d, float eps, const float *cosine,
                      const float *sine, int n_pairs)
{
    double scale = 1 / sqrt(sum_squares(x, d) / d + (double)eps);
    for (int j = 0; j < n_pairs; j++) {
        double a = x[j] * scale * w[j], b = x[j + n_pairs] * scale * w[j + n_pairs];
        out[j] = (float)(a * cosine[j] - b * sine[j]);
        out[j + n_pairs] = (float)(b * cosine[j] + a * sine[j]);
    }
    for (int j = 2 * n_pairs; j < d; j++)
        out[j] = (float)(x[j] * scale * w[j]);
}

static void store_f16(uint16_t *out, const float *x, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = bw_f32_to_f16(x[i]);
}

static float load_kv(const void *base, bw_kv_codec codec, size_t i)
{
    return codec == BW_CODEC_F16 ? bw_f16_to_f32(((const uint16_t *)base)[i]) : ((const float *)base)[i];
}

static size_t attn_scratch_bytes(int n_queries, int d)
{
    (void)n_queries;
    return (size_t)d * sizeof(double);
}

/* Online softmax over one position after the other: with m the largest score so far,
 * sum = sum_i e^(s_i - m), acc = sum_i e^(s_i - m) v_i; a new maximum rescales both. */
static void attend_query(const bw_attn_sums *to, int query, const bw_attn_queries *queries, int first, int end, double *acc)
{
    const bw_kv_layer *kv = queries->kv;
    const int d = queries->d;
    const float *q = queries->q + (size_t)query * (size_t)d;
    const double scale = 1 / sqrt((double)d);
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < d; i++)
        acc[i] = 0;
    for (int p = first; p < end; p++) {
        const size_t head = (size_t)queries->pages[p / BW_PAGE] * (size_t)queries->n_kv_heads + (size_t)queries->kv_head;
        const size_t at = (head * BW_PAGE + p % BW_PAGE) * (size_t)d;
        double s = 0;
        for (int i = 0; i < d; i++)
            s += (double)q[i] * load_kv(kv->k, kv->codec, at + i);
        s *= scale;
        double keep = s > max ? exp(max - s) : 1, weight = s > max ? 1 : exp(s - max);
        if (s > max)
            max = s;
        sum = sum * keep + weight;
        for (int i = 0; i < d; i++)
            acc[i] = acc[i] * keep + weight * load_kv(kv->v, kv->codec, at + i);
    }
    to->max[query] = (float)max;
    const double rounded = end > first ? exp(max - (double)to->max[query]) : 1; /* sums relative to what is stored */
    to->sum[query] = (float)(sum * rounded);
    for (int i = 0; i < d; i++)
        to->out[(size_t)query * (size_t)d + (size_t)i] = (float)(acc[i] * rounded);
}

static void attend(const bw_attn_sums *to, const bw_attn_queries *queries, int first, int end, void *scratch)
{
    for (int i = 0; i < queries->n_rows * queries->n_heads; i++) {
        const int n = queries->n_pos + i / queries->n_heads;
        attend_query(to, i, queries, first, n < end ? n : end, scratch);
    }
}

static void attn_merge(const bw_attn_sums *to, const bw_attn_sums *more, int d)
{
    const double max = fmax(*to->max, *more->max), keep = exp(*to->max - max), weight = exp(*more->max - max);
    for (int i = 0; i < d; i++)
        to->out[i] = (float)(to->out[i] * keep + more->out[i] * weight);
    *to->sum = (float)(*to->sum * keep + *more->sum * weight);
    *to->max = (float)max;
}

static void sigmoid_mul(float *out, const float *x, float scale, const float *gate, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = (float)((double)x[i] * scale * sigmoid(gate[i]));
}

/* ---- delta rule ------------------------------------------------------------------------------ */

/* One row of one tile: m = g S^T k;  d = beta (v - m);  to <- g S + k d^T;  y = to^T q */
static void delta_row(float *to, const float *S, int d_k, const float *q, const float *k, const float *v, float g,
                      float beta, float *y)
{
    double delta[BW_GDN_TILE], sum[BW_GDN_TILE] = { 0 };
    for (int i = 0; i < d_k; i++)
        for (int c = 0; c < BW_GDN_TILE; c++)
            sum[c] += (double)S[i * BW_GDN_TILE + c] * k[i];
    for (int c = 0; c < BW_GDN_TILE; c++)
        delta[c] = beta * (v[c] - g * sum[c]);
    for (int i = 0; i < d_k; i++)
        for (int c = 0; c < BW_GDN_TILE; c++)
            to[i * BW_GDN_TILE + c] = (float)((double)g * S[i * BW_GDN_TILE + c] + k[i] * delta[c]);
    for (int c = 0; c < BW_GDN_TILE; c++)
        sum[c] = 0;
    for (int i = 0; i < d_k; i++)
        for (int c = 0; c < BW_GDN_TILE; c++)
            sum[c] += (double)to[i * BW_GDN_TILE + c] * q[i];
    for (int c = 0; y && c < BW_GDN_TILE; c++)
        y[c] = (float)sum[c];
}

static void delta_rows(float *S, float *draft, const bw_delta_rows *rows)
{
    for (int t = 0; t < rows->n_tiles; t++, S += (size_t)rows->d_k * BW_GDN_TILE)
        for (int r = 0; r < rows->n; r++) {
            const size_t key = (size_t)r * rows->k_stride, at = (size_t)r * rows->v_stride;
            delta_row(r < rows->n_commit ? S : draft, r <= rows->n_commit ? S : draft, rows->d_k, rows->q + key, rows->k + key,
                      rows->v + at + t * BW_GDN_TILE, rows->g[at], rows->beta[at],
                      r < rows->n_quiet ? NULL : rows->y + (size_t)r * rows->y_stride + t * BW_GDN_TILE);
        }
}

static void conv_silu(float *out, const float *const *x, const float *w, int width, int first, int n)
{
    for (int j = 0; j < n; j++) {
        double sum = 0;
        for (int i = 0; i < width; i++)
            sum += (double)w[(size_t)(first + j) * width + i] * x[i][first + j];
        out[j] = (float)silu(sum);
    }
}

static void gated_norm(float *out, const float *y, const float *w, const float *z, int d, float eps)
{
    double scale = 1 / sqrt(sum_squares(y, d) / d + (double)eps);
    for (int i = 0; i < d; i++)
        out[i] = (float)(y[i] * scale * w[i] * silu(z[i]));
}

static void l2_norm(float *x, int d, float scale)
{
    double factor = scale / sqrt(sum_squares(x, d) + 1e-6);
    for (int i = 0; i < d; i++)
        x[i] = (float)(x[i] * factor);
}

/* ---- sampling -------------------------------------------------------------------------------- */

static int argmax(const float *x, int n)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!isnan(x[i]) && (best < 0 || x[i] > x[best]))
            best = i;
    return best;
}

static double sum_exp(const float *x, int n, float max, float temperature)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        if (!isnan(x[i]))
            sum += exp(((double)x[i] - max) / temperature);
    return sum;
}

void bw_cpu_fill_ref_mixer(bw_cpu_kernels *k)
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
