/* net.c - places every matrix and copies every vector: matrices in the order of their files, so that the disk reads
 * ahead of them. Engine thread; the backend packs in parallel. */
#include "model/net.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "format/checkpoint.h"

/* Every vector copied, so that release can find them. Matrices are found through the layers. */
typedef struct bw_net_vectors {
    bw_backend *backend;
    void **blocks;
    size_t n, room;
} vectors;

typedef struct placement {
    bw_weight *out;
    bw_place_args args;
    uint64_t bytes; /* of the file; 0: those of the matrix before it */
    bool copied;
    size_t number;  /* in the order of the forward pass */
} placement;

/* The work of placing. The layers are gone through twice: `listing` the matrices first, to know what the copies need
 * together, then copying vectors. The first failure wins, later calls do nothing. */
typedef struct placer {
    bw_net *net;
    const bw_weights *weights;
    const bw_net_options *options;
    bool listing;
    placement *list;
    size_t n, room;
    uint64_t all; /* bytes of the matrices */
    bw_status status;
    bw_error *err;
} placer;

static void count(placer *p, placement *l)
{
    bw_net *net = p->net;
    const char *note = NULL;
    const uint64_t copy = net->backend->ops->place_bytes(net->backend, &l->args, &note);
    if (l->args.use == BW_FOR_PRODUCTS)
        net->type_note[l->args.type] = note ? note : "float";
    l->copied = copy > 0;
    net->int8 |= l->args.int8;
    net->packed_bytes += copy;
    net->packed_from += copy ? l->bytes : 0;
    p->all += l->bytes;
}

static void place_as(placer *p, bw_weight *out, const bw_matrix *m, bw_use use)
{
    if (p->status || !p->listing)
        return;
    if (p->n == p->room) {
        const size_t room = p->room ? 2 * p->room : 256;
        placement *list = bw_mem_realloc(p->list, room * sizeof *list, BW_MEM_MISC);
        if (!list) {
            p->status = bw_fail_memory(p->err, "weights: list of matrices", room * sizeof *list);
            return;
        }
        p->list = list;
        p->room = room;
    }
    const bool tied = use == BW_FOR_PRODUCTS && m->data == p->weights->embed.data; /* its bytes: the embedding's */
    placement *l = &p->list[p->n];
    *l = (placement){ .out = out, .number = p->n,
                      .bytes = tied ? 0 : bw_matrix_bytes(m),
                      .args = { .type = m->type, .rows = m->rows, .cols = m->cols, .host = m->data, .use = use,
                                .int8 = p->options->int8 && use == BW_FOR_PRODUCTS && !bw_dtype_is_float(m->type) } };
    p->n++;
    count(p, l);
}

static void place(placer *p, bw_weight *out, const bw_matrix *m)
{
    place_as(p, out, m, BW_FOR_PRODUCTS);
}

static const float *copy(placer *p, const float *host, size_t n)
{
    if (p->status || p->listing)
        return NULL;
    vectors *v = p->net->vectors;
    bw_backend *be = p->net->backend;
    if (v->n == v->room) {
        size_t room = v->room ? 2 * v->room : 64;
        void **blocks = bw_mem_realloc(v->blocks, room * sizeof *blocks, BW_MEM_MISC);
        if (!blocks) {
            p->status = bw_fail_memory(p->err, "weights: list of vectors", room * sizeof *blocks);
            return NULL;
        }
        v->blocks = blocks;
        v->room = room;
    }
    void *block = be->ops->alloc(be, n * sizeof(float), BW_MEM_WEIGHTS);
    if (!block) {
        p->status = bw_fail_memory(p->err, "weights: vector", n * sizeof(float));
        return NULL;
    }
    be->ops->upload(be, block, host, n * sizeof(float));
    v->blocks[v->n++] = block;
    return block;
}

static void place_ffn(placer *p, bw_expert *out, const bw_ffn_weights *w)
{
    place(p, &out->gate, &w->gate);
    place(p, &out->up, &w->up);
    place(p, &out->down, &w->down);
}

static void place_layer(placer *p, bw_net_layer *out, const bw_layer_weights *w, bool attention)
{
    const bw_config *c = p->net->config;
    out->attention = attention;
    out->input_norm = copy(p, w->input_norm, (size_t)c->hidden);
    if (attention) {
        const bw_attention_weights *a = &w->attention;
        place(p, &out->attn.q, &a->q);
        place(p, &out->attn.k, &a->k);
        place(p, &out->attn.v, &a->v);
        out->attn.q_norm = copy(p, a->q_norm, (size_t)c->head_dim);
        out->attn.k_norm = copy(p, a->k_norm, (size_t)c->head_dim);
        place(p, &out->attn.o, &a->o);
    } else {
        const bw_gdn_weights *g = &w->gdn;
        place(p, &out->gdn.qkv, &g->qkv);
        place(p, &out->gdn.z, &g->z);
        place(p, &out->gdn.a, &g->a);
        place(p, &out->gdn.b, &g->b);
        out->gdn.conv = copy(p, g->conv, (size_t)c->conv_dim * (size_t)c->conv_width);
        out->gdn.decay = copy(p, g->decay, (size_t)c->n_v_heads);
        out->gdn.dt_bias = copy(p, g->dt_bias, (size_t)c->n_v_heads);
        out->gdn.norm = copy(p, g->norm, (size_t)c->d_v);
        place(p, &out->gdn.out, &g->out);
    }
    out->post_norm = copy(p, w->post_norm, (size_t)c->hidden);
    if (!c->moe) {
        place_ffn(p, &out->ffn, &w->ffn);
        return;
    }
    place(p, &out->moe.router, &w->moe.router);
    if (!out->moe.experts)
        out->moe.experts = bw_mem_zalloc((size_t)c->n_experts, sizeof *out->moe.experts, BW_MEM_WEIGHTS);
    if (!out->moe.experts && !p->status)
        p->status = bw_fail_memory(p->err, "weights: list of experts", (size_t)c->n_experts * sizeof(bw_expert));
    for (int e = 0; e < c->n_experts && !p->status; e++)
        place_ffn(p, &out->moe.experts[e], &w->moe.experts[e]);
    place_ffn(p, &out->moe.shared, &w->moe.shared);
    out->moe.shared_gate = copy(p, w->moe.shared_gate, (size_t)c->hidden);
}

static void set_shapes(bw_net *net)
{
    const bw_config *c = net->config;
    net->attn = (bw_attn_shape){ .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim,
                                 .eps = c->norm_eps, .n_pairs = c->rope.n_pairs, .inv_freq = c->rope.inv_freq,
                                 .magnitude = c->rope.magnitude };
    net->gdn = (bw_gdn_shape){ .n_k_heads = c->n_k_heads, .n_v_heads = c->n_v_heads, .d_k = c->d_k, .d_v = c->d_v,
                               .conv_width = c->conv_width, .conv_dim = c->conv_dim,
                               .v_heads_tiled = c->v_heads_tiled, .eps = c->norm_eps };
    if (c->moe)
        net->moe = (bw_moe_shape){ .n_experts = c->n_experts, .n_used = c->n_experts_used, .ffn = c->expert_ffn,
                                   .shared_ffn = c->shared_ffn };
}

static void place_all(placer *p)
{
    const bw_config *config = p->net->config;
    const bw_weights *weights = p->weights;
    bw_net *net = p->net;
    place_as(p, &net->embed, &weights->embed, BW_FOR_ROWS);
    for (int i = 0; i < config->n_layers; i++)
        place_layer(p, &net->layers[i], &weights->layers[i], config->attention[i]);
    net->final_norm = copy(p, weights->final_norm, (size_t)config->hidden);
    place(p, &net->head, &weights->head);
    if (net->has_mtp) {
        const bw_mtp_weights *m = &weights->mtp;
        place(p, &net->mtp.fc, &m->fc);
        net->mtp.norm_embedding = copy(p, m->norm_embedding, (size_t)config->hidden);
        net->mtp.norm_hidden = copy(p, m->norm_hidden, (size_t)config->hidden);
        place_layer(p, &net->mtp.layer, &m->layer, true);
        net->mtp.norm = copy(p, m->norm, (size_t)config->hidden);
    }
}

static int by_address(const void *a, const void *b)
{
    const placement *x = a, *y = b;
    const uintptr_t at_x = (uintptr_t)x->args.host, at_y = (uintptr_t)y->args.host;
    return at_x != at_y ? (at_x > at_y) - (at_x < at_y) : (x->number > y->number) - (x->number < y->number);
}

static void place_one(placer *p, placement *l, size_t *used)
{
    bw_net *net = p->net;
    const uint64_t start = bw_clock_ns();
    l->args.room = (unsigned char *)net->packed + *used;
    p->status = net->backend->ops->place(net->backend, l->out, &l->args, p->err);
    if (p->status || !l->out->packed)
        return;
    *used += (size_t)net->backend->ops->place_bytes(net->backend, &l->args, NULL);
    net->pack_s += (double)(bw_clock_ns() - start) * 1e-9;
    if (p->options->checkpoint)
        bw_checkpoint_forget(p->options->checkpoint, l->args.host, l->bytes);
}

/* A tied head has its bytes from the embedding before it. */
static bool is_read_for_copy(const placer *p, size_t i)
{
    const placement *l = &p->list[i];
    return l->copied || (i + 1 < p->n && l[1].copied && l[1].args.host == l->args.host);
}

static bw_status begin_source(const placer *p)
{
    const bw_net_source *source = p->options->source;
    const bool all = source->reads_kept(source->arg, p->all - p->net->packed_from, p->net->packed_bytes);
    bw_range *order = bw_mem_alloc(p->n * sizeof *order, BW_MEM_MISC);
    if (!order)
        return bw_fail_memory(p->err, "weights: order of matrices", p->n * sizeof *order);
    for (size_t i = 0; i < p->n; i++)
        order[i] = (bw_range){ p->list[i].args.host, all || is_read_for_copy(p, i) ? p->list[i].bytes : 0 };
    const bw_status st = source->begin(source->arg, order, p->n, p->err);
    bw_mem_free(order);
    return st;
}

static void place_listed(placer *p)
{
    const bw_net_source *source = p->options->source;
    uint64_t done = 0;
    size_t used = 0;
    if (p->status)
        return;
    qsort(p->list, p->n, sizeof *p->list, by_address);
    if (source && (p->status = begin_source(p)))
        return;
    for (size_t i = 0; i < p->n; i++) {
        if (source && (p->status = source->need(source->arg, i, p->err)))
            return;
        place_one(p, &p->list[i], &used);
        if (p->status)
            return;
        if (source)
            source->placed(source->arg, i);
        done += p->list[i].bytes;
        if (p->options->progress && p->all)
            p->options->progress(p->options->progress_arg, (double)done / (double)p->all);
    }
}

/* Room for all copies at once, refused before anything is read when the free memory cannot hold it. */
static bw_status take_room(placer *p)
{
    bw_net *net = p->net;
    const uint64_t free_now = bw_mem_available(), wanted = net->packed_bytes;
    const uint64_t returned = p->options->in_memory ? net->packed_from : 0;
    if (wanted == 0)
        return BW_OK;
    const bool fits = wanted <= SIZE_MAX && (free_now == 0 || wanted <= free_now + returned);
    net->packed = fits ? net->backend->ops->alloc(net->backend, (size_t)wanted, BW_MEM_WEIGHTS) : NULL;
    if (net->packed)
        return BW_OK;
    return bw_fail(p->err, BW_E_MEMORY, "weights: %.2f GiB of memory for the order that the %s kernels read are not to be had, "
                   "%.2f GiB are free: make room, take a smaller quantisation, or compute in float from the file, slowly "
                   "(--activations f32)", (double)wanted / 0x1p30, net->backend->level, (double)free_now / 0x1p30);
}

bw_status bw_net_create(bw_net **out, const bw_config *config, const bw_weights *weights, bw_backend *backend,
                        const bw_net_options *options, bw_error *err)
{
    *out = NULL;
    bw_net *net = bw_mem_zalloc(1, sizeof *net, BW_MEM_MISC);
    if (!net)
        return bw_fail_memory(err, "weights", sizeof *net);
    placer p = { .net = net, .weights = weights, .options = options, .listing = true, .err = err };
    net->config = config;
    net->backend = backend;
    set_shapes(net);
    net->has_mtp = weights->mtp_state == BW_MTP_COMPLETE;
    net->layers = bw_mem_zalloc((size_t)config->n_layers, sizeof *net->layers, BW_MEM_MISC);
    net->vectors = bw_mem_zalloc(1, sizeof *net->vectors, BW_MEM_MISC);
    if (!net->layers || !net->vectors) {
        bw_net_destroy(net);
        return bw_fail_memory(err, "weights: layers", (size_t)config->n_layers * sizeof *net->layers);
    }
    net->vectors->backend = backend;

    place_all(&p);
    if (!p.status && !options->plan_only && !(p.status = take_room(&p))) {
        p.listing = false;
        place_all(&p); /* vectors */
        place_listed(&p);
        net->placed = true;
    }
    bw_mem_free(p.list);
    if (p.status) {
        bw_net_destroy(net);
        return p.status;
    }
    *out = net;
    return BW_OK;
}

static void unplace_ffn(bw_backend *be, bw_expert *e)
{
    be->ops->unplace(be, &e->gate);
    be->ops->unplace(be, &e->up);
    be->ops->unplace(be, &e->down);
}

static void unplace_layer(const bw_net *net, bw_net_layer *layer)
{
    bw_backend *be = net->backend;
    bw_weight *const all[] = { &layer->attn.q, &layer->attn.k, &layer->attn.v,   &layer->attn.o, &layer->gdn.qkv,
                               &layer->gdn.z,  &layer->gdn.a,  &layer->gdn.b,    &layer->gdn.out, &layer->moe.router };
    for (size_t i = 0; i < BW_COUNT(all); i++)
        be->ops->unplace(be, all[i]);
    unplace_ffn(be, &layer->ffn);
    unplace_ffn(be, &layer->moe.shared);
    for (int e = 0; layer->moe.experts && e < net->config->n_experts; e++)
        unplace_ffn(be, &layer->moe.experts[e]);
    bw_mem_free(layer->moe.experts);
}

void bw_net_destroy(bw_net *net)
{
    if (!net)
        return;
    bw_backend *be = net->backend;
    for (int i = 0; net->layers && i < net->config->n_layers; i++)
        unplace_layer(net, &net->layers[i]);
    unplace_layer(net, &net->mtp.layer);
    be->ops->unplace(be, &net->embed);
    be->ops->unplace(be, &net->head);
    be->ops->unplace(be, &net->mtp.fc);
    if (net->vectors) {
        for (size_t i = 0; i < net->vectors->n; i++)
            be->ops->free(be, net->vectors->blocks[i]);
        bw_mem_free(net->vectors->blocks);
    }
    be->ops->free(be, net->packed);
    bw_mem_free(net->vectors);
    bw_mem_free(net->layers);
    bw_mem_free(net);
}

static int larger(int a, int b)
{
    return a > b ? a : b;
}

bw_op_limits bw_net_limits(const bw_net *net, int max_rows, int max_spans, int max_logits, int max_pending)
{
    const bw_config *c = net->config;
    const int heads = c->n_heads * c->head_dim, values = c->n_v_heads * c->d_v;
    int ffn = c->moe ? larger(c->expert_ffn, c->shared_ffn) : c->ffn;
    bw_op_limits limits = { .max_rows = max_rows, .max_spans = max_spans, .max_logits = max_logits,
                            .max_pending = max_pending, .hidden = c->hidden, .vocab = c->vocab,
                            .attn = net->attn, .gdn = net->gdn, .moe = net->moe };
    limits.max_cols = larger(larger(net->has_mtp ? 2 * c->hidden : c->hidden, heads), larger(values, ffn));
    return limits;
}

int bw_net_kv_layers(const bw_net *net, bool with_mtp)
{
    return net->config->n_attention + (with_mtp && net->has_mtp ? 1 : 0);
}
