/* forward.c - Qwen3.5/3.6 top to bottom. */
#include "model/forward.h"

#include <assert.h>
#include <string.h>

/* ---- one layer ------------------------------------------------------------------------------- */

static void attention_layer(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf,
                            const bw_net_layer *layer, const bw_kv_layer *kv, float *x, const bw_row *rows, int n)
{
    float *q = buf->wide[0], *k = buf->wide[1], *v = buf->wide[2];
    const bw_weight weights[] = { layer->attn.q, layer->attn.k, layer->attn.v };
    be->ops->project(be, x, n, layer->input_norm, net->config->norm_eps, weights, (float *[]){ q, k, v }, 3);
    be->ops->attention(be, &(bw_attn_args){ .shape = &net->attn, .seqs = batch->seqs, .rows = rows, .n_rows = n,
                                            .kv = *kv, .q_norm = layer->attn.q_norm, .k_norm = layer->attn.k_norm,
                                            .q_gate = q, .k = k, .v = v, .out = buf->mixed });
    be->ops->project_add(be, x, &layer->attn.o, buf->mixed, n);
}

static void gdn_layer(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf,
                      const bw_net_layer *layer, const bw_gdn_state *state)
{
    float *qkv = buf->wide[0], *z = buf->wide[1], *a = buf->wide[2], *b = buf->wide[3];
    const bw_weight weights[] = { layer->gdn.qkv, layer->gdn.z, layer->gdn.a, layer->gdn.b };
    be->ops->project(be, buf->x, batch->n_rows, layer->input_norm, net->config->norm_eps, weights,
                     (float *[]){ qkv, z, a, b }, 4);
    be->ops->gdn(be, &(bw_gdn_args){ .shape = &net->gdn, .seqs = batch->seqs, .spans = batch->spans,
                                     .n_spans = batch->n_spans, .n_rows = batch->n_rows, .state = *state,
                                     .conv = layer->gdn.conv, .decay = layer->gdn.decay,
                                     .dt_bias = layer->gdn.dt_bias, .norm = layer->gdn.norm, .qkv = qkv, .a = a,
                                     .b = b, .z = z, .out = buf->mixed });
    be->ops->project_add(be, buf->x, &layer->gdn.out, buf->mixed, batch->n_rows);
}

static void ffn_layer(const bw_net *net, bw_backend *be, bw_activations_buf *buf, const bw_net_layer *layer, float *x,
                      int n)
{
    const float eps = net->config->norm_eps;
    if (net->config->moe) {
        be->ops->moe(be, &(bw_moe_args){ .shape = &net->moe, .norm = layer->post_norm, .eps = eps,
                                         .router = layer->moe.router, .experts = layer->moe.experts,
                                         .shared = layer->moe.shared, .shared_gate = layer->moe.shared_gate, .x = x,
                                         .n_rows = n });
        return;
    }
    be->ops->ffn_up(be, buf->up, x, n, layer->post_norm, eps, &layer->ffn.gate, &layer->ffn.up);
    be->ops->project_add(be, x, &layer->ffn.down, buf->up, n);
}

/* ---- the model ------------------------------------------------------------------------------- */

void bw_forward(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf)
{
    const bw_config *c = net->config;
    const bw_kv_layer *kv = batch->kv;
    const bw_gdn_state *gdn = batch->gdn;
    be->ops->embed(be, buf->x, &net->embed, batch->seqs, batch->rows, batch->n_rows, 0);
    for (int i = 0; i < c->n_layers; i++) {
        const bw_net_layer *layer = &net->layers[i];
        if (layer->attention)
            attention_layer(net, be, batch, buf, layer, kv++, buf->x, batch->rows, batch->n_rows);
        else
            gdn_layer(net, be, batch, buf, layer, gdn++);
        ffn_layer(net, be, buf, layer, buf->x, batch->n_rows);
    }
    be->ops->norm(be, buf->hidden, buf->x, net->final_norm, batch->n_rows, c->hidden, c->norm_eps);
}

void bw_forward_flush(const bw_net *net, bw_backend *be, const bw_batch *batch)
{
    const bw_gdn_state *gdn = batch->gdn;
    for (int i = 0; i < net->config->n_layers; i++) {
        const bw_net_layer *layer = &net->layers[i];
        if (!layer->attention)
            be->ops->gdn(be, &(bw_gdn_args){ .shape = &net->gdn, .seqs = batch->seqs, .spans = batch->spans,
                                             .n_spans = batch->n_spans, .state = *gdn++, .conv = layer->gdn.conv,
                                             .decay = layer->gdn.decay, .dt_bias = layer->gdn.dt_bias,
                                             .norm = layer->gdn.norm });
    }
}

static void head(const bw_net *net, bw_backend *be, bw_activations_buf *buf, const float *rows, int n)
{
    be->ops->project(be, rows, n, NULL, 0, &net->head, &buf->logits, 1);
}

void bw_forward_logits(const bw_net *net, bw_backend *be, bw_activations_buf *buf, const int32_t *index, int n)
{
    be->ops->gather(be, buf->picked, buf->hidden, index, n, net->config->hidden);
    head(net, be, buf, buf->picked, n);
}

/* ---- the MTP head ---------------------------------------------------------------------------- */

static const bw_kv_layer *mtp_kv(const bw_net *net, const bw_batch *batch)
{
    return &batch->kv[net->config->n_attention];
}

/* out = fc . [norm(embedding of the token after each row) | norm(hidden)]; embedding first. */
static void mtp_input(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf, float *out,
                      const float *hidden, const bw_row *rows, int n)
{
    const int width = net->config->hidden;
    float *embedded = buf->mixed, *pair = buf->wide[0];
    be->ops->embed(be, embedded, &net->embed, batch->seqs, rows, n, 1);
    be->ops->norm_pair(be, pair, embedded, net->mtp.norm_embedding, hidden, net->mtp.norm_hidden, n, width,
                       net->config->norm_eps);
    be->ops->project(be, pair, n, NULL, 0, &net->mtp.fc, &out, 1);
}

/* The rest of the head after attention: x [n, H] to recycled and logits. */
static void mtp_output(const bw_net *net, bw_backend *be, bw_activations_buf *buf, float *x, const bw_row *rows, int n,
                       const bw_draft_vocab *only)
{
    ffn_layer(net, be, buf, &net->mtp.layer, x, n);
    be->ops->norm(be, buf->recycled, x, net->mtp.norm, n, net->config->hidden, net->config->norm_eps);
    if (only)
        be->ops->project_draft(be, buf->logits, buf->recycled, rows, n, &net->head, only);
    else
        head(net, be, buf, buf->recycled, n);
}

/* Keys and values of the head for these rows; its input rows stay in buf->x. One layer, so keys and values depend
 * on a row's own input alone: no query, no MLP here. */
static void mtp_keys(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf,
                     const float *hidden, const bw_row *rows, int n)
{
    const bw_net_layer *layer = &net->mtp.layer;
    float *k = buf->wide[1], *v = buf->wide[2];
    mtp_input(net, be, batch, buf, buf->x, hidden, rows, n);
    be->ops->project(be, buf->x, n, layer->input_norm, net->config->norm_eps,
                     (const bw_weight[]){ layer->attn.k, layer->attn.v }, (float *[]){ k, v }, 2);
    be->ops->attention(be, &(bw_attn_args){ .shape = &net->attn, .seqs = batch->seqs, .rows = rows, .n_rows = n,
                                            .kv = *mtp_kv(net, batch), .q_norm = layer->attn.q_norm,
                                            .k_norm = layer->attn.k_norm, .k = k, .v = v });
}

void bw_forward_mtp_rows(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf)
{
    mtp_keys(net, be, batch, buf, buf->hidden, batch->rows, batch->n_rows);
}

void bw_forward_mtp_redo(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf,
                         const float *hidden, const bw_row *rows, int n)
{
    mtp_keys(net, be, batch, buf, hidden, rows, n);
}

void bw_forward_mtp_first(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf,
                          const int32_t *index, const bw_row *rows, int n, const bw_draft_vocab *only)
{
    const bw_net_layer *layer = &net->mtp.layer;
    float *x = buf->draft, *q = buf->wide[0];
    be->ops->gather(be, x, buf->x, index, n, net->config->hidden);
    be->ops->project(be, x, n, layer->input_norm, net->config->norm_eps, &layer->attn.q, &q, 1);
    be->ops->attention(be, &(bw_attn_args){ .shape = &net->attn, .seqs = batch->seqs, .rows = rows, .n_rows = n,
                                            .kv = *mtp_kv(net, batch), .q_norm = layer->attn.q_norm,
                                            .k_norm = layer->attn.k_norm, .q_gate = q, .out = buf->mixed });
    be->ops->project_add(be, x, &layer->attn.o, buf->mixed, n);
    mtp_output(net, be, buf, x, rows, n, only);
}

void bw_forward_mtp_next(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf,
                         const bw_row *rows, int n, const bw_draft_vocab *only)
{
    float *x = buf->draft;
    mtp_input(net, be, batch, buf, x, buf->recycled, rows, n);
    attention_layer(net, be, batch, buf, &net->mtp.layer, mtp_kv(net, batch), x, rows, n);
    mtp_output(net, be, buf, x, rows, n, only);
}

/* ---- memory ---------------------------------------------------------------------------------- */

typedef struct buffer_size {
    float **where;
    size_t floats;
} buffer_size;

enum { N_BUFFERS = 8 + BW_MAX_PROJECTIONS };

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The one list of what a step needs; buf may be a dummy when only sizes are wanted. */
static void list_buffers(buffer_size out[N_BUFFERS], bw_activations_buf *buf, const bw_net *net,
                         const bw_op_limits *limits)
{
    const bw_config *c = net->config;
    const size_t n = (size_t)limits->max_rows, spans = (size_t)limits->max_spans, h = (size_t)c->hidden;
    const size_t heads = (size_t)c->n_heads * (size_t)c->head_dim, kv = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    const size_t values = (size_t)c->n_v_heads * (size_t)c->d_v, v_heads = (size_t)c->n_v_heads;
    const buffer_size list[N_BUFFERS] = {
        { &buf->x, n * h },
        { &buf->hidden, n * h },
        { &buf->wide[0], n * larger(larger(2 * heads, (size_t)c->conv_dim), 2 * h) }, /* q and gate; qkv; MTP pair */
        { &buf->wide[1], n * larger(kv, values) },                                    /* k; z */
        { &buf->wide[2], n * larger(kv, v_heads) },                                   /* v; a */
        { &buf->wide[3], n * v_heads },                                               /* b */
        { &buf->mixed, n * larger(larger(heads, values), h) },
        { &buf->up, c->moe ? 1 : n * (size_t)c->ffn },
        { &buf->logits, (size_t)limits->max_logits * (size_t)c->vocab },
        { &buf->picked, (size_t)limits->max_logits * h },
        { &buf->draft, spans * h },
        { &buf->recycled, spans * h },
    };
    memcpy(out, list, sizeof list);
}

uint64_t bw_activations_bytes(const bw_net *net, const bw_op_limits *limits)
{
    bw_activations_buf dummy;
    buffer_size list[N_BUFFERS];
    list_buffers(list, &dummy, net, limits);
    uint64_t bytes = 0;
    for (size_t i = 0; i < N_BUFFERS; i++)
        bytes += list[i].floats * sizeof(float);
    return bytes;
}

bw_status bw_activations_create(bw_activations_buf *out, const bw_net *net, bw_backend *be, const bw_op_limits *limits,
                                bw_error *err)
{
    assert(limits->max_logits >= limits->max_spans && limits->max_rows >= limits->max_spans);
    *out = (bw_activations_buf){ 0 };
    buffer_size list[N_BUFFERS];
    list_buffers(list, out, net, limits);
    for (size_t i = 0; i < N_BUFFERS; i++) {
        *list[i].where = be->ops->alloc(be, list[i].floats * sizeof(float), BW_MEM_SCRATCH);
        if (!*list[i].where) {
            bw_activations_destroy(out, be);
            return bw_fail(err, BW_E_MEMORY, "activations: steps of %d rows want %llu bytes and the backend has not "
                           "that much: ask for smaller steps", limits->max_rows,
                           (unsigned long long)bw_activations_bytes(net, limits));
        }
    }
    return BW_OK;
}

void bw_activations_destroy(bw_activations_buf *buf, bw_backend *be)
{
    float *const all[] = { buf->x,       buf->hidden, buf->wide[0], buf->wide[1], buf->wide[2], buf->wide[3],
                           buf->mixed,   buf->up,     buf->logits,  buf->picked,  buf->draft,   buf->recycled };
    _Static_assert(sizeof all / sizeof all[0] == N_BUFFERS, "every buffer is freed");
    for (size_t i = 0; i < N_BUFFERS; i++)
        be->ops->free(be, all[i]);
    *buf = (bw_activations_buf){ 0 };
}
