/* step_cost.c - see step_cost.h. The order is that of model/forward.c. */
#include "bench/step_cost.h"

#include <math.h>
#include <string.h>

#include "ops/cpu/pack.h"

/* What a step's rows come to. */
typedef struct counter {
    const bw_net *net;
    bw_kv_codec codec;
    const bw_counted_step *step;
    int n_rows, n_logits;
    bw_step_cost sum;
    double by_type[BW_DTYPE_COUNT]; /* bytes of matrices */
} counter;

static double weight_bytes(const bw_weight *w)
{
    return (double)w->rows * (double)bw_dtype_row_bytes(w->type, (uint64_t)w->cols);
}

/* Read `times` (1, or a share of the experts), multiplied with n rows. */
static void multiply(counter *c, const bw_weight *w, double times, double n)
{
    const double macs = (double)w->rows * w->cols * n;
    c->sum.bytes += weight_bytes(w) * times;
    c->by_type[w->type] += weight_bytes(w) * times;
    if (w->int8)
        c->sum.int8_macs += macs;
    else
        c->sum.f32_macs += macs;
}

static void embed(counter *c, int n)
{
    const bw_weight *w = &c->net->embed;
    c->sum.bytes += (double)n * (double)bw_dtype_row_bytes(w->type, (uint64_t)w->cols);
}

/* ---- attention ------------------------------------------------------------------------------- */

/* Key and value of one position. */
static double kv_bytes(const counter *c)
{
    const bw_attn_shape *a = &c->net->attn;
    return 2.0 * a->n_kv_heads * a->head_dim * (c->codec == BW_CODEC_F32 ? 4 : 2);
}

/* n rows from `first_pos` on of one sequence. */
static void attend(counter *c, int first_pos, int n)
{
    const bw_attn_shape *a = &c->net->attn;
    const double positions = (double)n * first_pos + (double)n * (n + 1) / 2; /* that the rows see, together */
    c->sum.bytes += first_pos * kv_bytes(c);
    c->sum.f32_macs += positions * a->n_heads * a->head_dim * 2;
}

static void attention_layer(counter *c, const bw_net_layer *layer)
{
    multiply(c, &layer->attn.q, 1, c->n_rows);
    multiply(c, &layer->attn.k, 1, c->n_rows);
    multiply(c, &layer->attn.v, 1, c->n_rows);
    c->sum.bytes += c->n_rows * kv_bytes(c);
    for (int i = 0; i < c->step->n_spans; i++)
        attend(c, c->step->spans[i].first_pos, c->step->spans[i].n_rows);
    multiply(c, &layer->attn.o, 1, c->n_rows);
}

/* ---- delta rule ------------------------------------------------------------------------------ */

static void gdn_layer(counter *c, const bw_net_layer *layer)
{
    const bw_gdn_shape *s = &c->net->gdn;
    const double state = (double)s->n_v_heads * s->d_k * ((s->d_v + BW_GDN_TILE - 1) / BW_GDN_TILE) * BW_GDN_TILE;
    const double window = (double)(s->conv_width - 1) * s->conv_dim, taps = (double)s->conv_width * s->conv_dim;
    const double pending = (double)s->conv_dim + 2 * s->n_v_heads;
    multiply(c, &layer->gdn.qkv, 1, c->n_rows);
    multiply(c, &layer->gdn.z, 1, c->n_rows);
    multiply(c, &layer->gdn.a, 1, c->n_rows);
    multiply(c, &layer->gdn.b, 1, c->n_rows);
    c->sum.bytes += taps * 4;
    for (int i = 0; i < c->step->n_spans; i++) {
        const bw_counted_span *span = &c->step->spans[i];
        const double rows = span->n_pending + span->n_rows, drafts = span->n_rows - span->n_final;
        c->sum.bytes += 4 * (2 * (state + window) + (span->n_pending + drafts) * pending);
        c->sum.f32_macs += rows * (3 * state + taps);
    }
    multiply(c, &layer->gdn.out, 1, c->n_rows);
}

/* ---- feed-forward ---------------------------------------------------------------------------- */

double bw_step_cost_experts(int n_experts, int n_used, double n_rows)
{
    return n_experts * (1 - pow(1 - (double)n_used / n_experts, n_rows));
}

static void expert(counter *c, const bw_expert *e, double times, double n)
{
    multiply(c, &e->gate, times, n);
    multiply(c, &e->up, times, n);
    multiply(c, &e->down, times, n);
}

static void ffn_layer(counter *c, const bw_net_layer *layer, int n)
{
    const bw_moe_shape *moe = &c->net->moe;
    if (!c->net->config->moe) {
        expert(c, &layer->ffn, 1, n);
        return;
    }
    multiply(c, &layer->moe.router, 1, n);
    expert(c, &layer->moe.experts[0], bw_step_cost_experts(moe->n_experts, moe->n_used, n), (double)n * moe->n_used);
    expert(c, &layer->moe.shared, 1, n);
    c->sum.bytes += 4.0 * c->net->config->hidden; /* the shared expert's gate */
    c->sum.f32_macs += (double)c->net->config->hidden * n;
}

/* ---- the MTP head ---------------------------------------------------------------------------- */

/* Its keys and values for n rows: embedding, fc, k, v. */
static void mtp_keys(counter *c, int n)
{
    const bw_net *net = c->net;
    embed(c, n);
    multiply(c, &net->mtp.fc, 1, n);
    multiply(c, &net->mtp.layer.attn.k, 1, n);
    multiply(c, &net->mtp.layer.attn.v, 1, n);
    c->sum.bytes += n * kv_bytes(c);
}

/* Rows of the head that are multiplied for a list of so many tokens: of a packed one whole panels, as if no two
 * listed tokens shared one (scattered over a large vocabulary few do). */
static int listed_rows(const counter *c, int n_listed)
{
    const bw_weight *head = &c->net->head;
    if (!head->packed)
        return n_listed;
    const int others = head->rows - c->step->n_first;
    const int rows = n_listed * BW_PANEL_ROWS;
    return rows < others ? rows : others;
}

/* Logits of the drafts of n chains, for whose lists n_rows rows of the head are multiplied together. */
static void draft_logits(counter *c, int n, int n_rows)
{
    bw_weight part = c->net->head;
    if (c->step->n_first > 0) {
        part.rows = n_rows;
        multiply(c, &part, 1, 1);
        part.rows = c->step->n_first;
    }
    multiply(c, &part, 1, n);
}

/* The j-th draft of every chain that is so long. */
static void mtp_draft(counter *c, int j)
{
    const bw_net *net = c->net;
    int n = 0, n_rows = 0;
    for (int i = 0; i < c->step->n_spans; i++) {
        const bw_counted_span *span = &c->step->spans[i];
        if (span->n_chain <= j)
            continue;
        attend(c, span->first_pos + span->n_final - 1 + j, 1);
        n_rows += listed_rows(c, span->n_listed);
        n++;
    }
    if (j > 0)
        mtp_keys(c, n);
    multiply(c, &net->mtp.layer.attn.q, 1, n);
    multiply(c, &net->mtp.layer.attn.o, 1, n);
    ffn_layer(c, &net->mtp.layer, n);
    draft_logits(c, n, n_rows);
}

/* ---- the step -------------------------------------------------------------------------------- */

static counter count(const bw_net *net, bw_kv_codec codec, const bw_counted_step *step)
{
    counter c = { .net = net, .codec = codec, .step = step };
    int longest = 0;
    for (int i = 0; i < step->n_spans; i++) {
        const bw_counted_span *span = &step->spans[i];
        c.n_rows += span->n_rows;
        c.n_logits += span->n_logits;
        longest = span->n_chain > longest ? span->n_chain : longest;
    }
    embed(&c, c.n_rows);
    for (int i = 0; i < net->config->n_layers; i++) {
        const bw_net_layer *layer = &net->layers[i];
        if (layer->attention)
            attention_layer(&c, layer);
        else
            gdn_layer(&c, layer);
        ffn_layer(&c, layer, c.n_rows);
    }
    if (c.n_logits > 0)
        multiply(&c, &net->head, 1, c.n_logits);
    if (step->mtp)
        mtp_keys(&c, c.n_rows);
    for (int j = 0; j < longest; j++)
        mtp_draft(&c, j);
    return c;
}

bw_step_cost bw_step_cost_count(const bw_net *net, bw_kv_codec codec, const bw_counted_step *step)
{
    return count(net, codec, step).sum;
}

void bw_step_cost_by_type(const bw_net *net, double bytes[BW_DTYPE_COUNT])
{
    const bw_counted_span span = { .n_rows = 1, .n_final = 1, .n_logits = 1 };
    const counter c = count(net, BW_CODEC_F16, &(bw_counted_step){ .spans = &span, .n_spans = 1 });
    memcpy(bytes, c.by_type, sizeof c.by_type);
}

double bw_step_cost_seconds(const bw_step_cost *cost, double bytes, double int8_macs, double f32_macs)
{
    const double moving = cost->bytes / bytes;
    const double multiplying = cost->int8_macs / int8_macs + cost->f32_macs / f32_macs;
    return moving > multiplying ? moving : multiplying;
}
