/* simulate.c - draws acceptance, and fills pages and states with numbers that look like computed ones.
 *
 * A depth costs the copying of its bytes: they are dealt from one block of random numbers that is made when
 * the first depth is asked for. Every position gets the same bytes in every sequence, so the same prompt at
 * the same depth has the same answer however it is drafted, batched or preempted. */
#include "engine/simulate.h"

#include <assert.h>
#include <string.h>

#include "base/chance.h"
#include "base/half.h"
#include "engine/engine.h"

enum {
    SHIFTS = 1024, /* places of the block that a page may begin at, */
    SHIFT = 64     /* bytes apart */
};

struct bw_simulation {
    int n_shares; /* 0: acceptance is not imposed */
    double shares[BW_MAX_DRAFTS];
    uint64_t seed;
    int32_t *imposed; /* [max_spans] */
    int32_t *device;  /* [max_spans], backend memory */
    bool any;         /* in this step */

    /* Made for the first depth; NULL before. */
    unsigned char *rows; /* keys or values of one page, and more to shift it by */
    float *state;        /* of one layer: S, then the window */
};

static bw_status get_simulation(bw_engine *e, bw_error *err)
{
    if (!e->simulation)
        e->simulation = bw_mem_zalloc(1, sizeof *e->simulation, BW_MEM_MISC);
    return e->simulation ? BW_OK : bw_fail_memory(err, "simulation", sizeof *e->simulation);
}

void bw_simulate_destroy(bw_engine *e)
{
    bw_simulation *sim = e->simulation;
    if (!sim)
        return;
    if (sim->device)
        e->backend->ops->free(e->backend, sim->device);
    bw_mem_free(sim->imposed);
    bw_mem_free(sim->rows);
    bw_mem_free(sim->state);
    bw_mem_free(sim);
    e->simulation = NULL;
}

/* ---- acceptance ---------------------------------------------------------------------------------- */

double bw_simulate_share(const double *shares, int n_shares, int n)
{
    if (n <= n_shares)
        return shares[n - 1];
    const double last = shares[n_shares - 1], before = n_shares > 1 ? shares[n_shares - 2] : 1;
    double share = last;
    for (int j = n_shares; j < n; j++)
        share *= before > 0 ? last / before : 0;
    return share;
}

bw_status bw_simulate_accept(bw_engine *e, const double *shares, int n_shares, uint64_t seed, bw_error *err)
{
    if (n_shares < 0 || n_shares > BW_MAX_DRAFTS)
        return bw_fail(err, BW_E_ARGUMENT, "imposed acceptance: %d shares, expected 1 to %d", n_shares, BW_MAX_DRAFTS);
    for (int j = 0; j < n_shares; j++)
        if (!(shares[j] >= 0) || !(shares[j] <= (j > 0 ? shares[j - 1] : 1)))
            return bw_fail(err, BW_E_ARGUMENT, "imposed acceptance: share %d is %g, expected 0 to %g: the share of verifies that accept "
                           "drafts 1 to %d can only fall", j + 1, shares[j], j > 0 ? shares[j - 1] : 1.0, j + 1);
    bw_status st = get_simulation(e, err);
    if (st)
        return st;
    bw_simulation *sim = e->simulation;
    const size_t bytes = (size_t)e->limits.max_spans * sizeof *sim->imposed;
    if (!sim->imposed)
        sim->imposed = bw_mem_zalloc(1, bytes, BW_MEM_SCRATCH);
    if (!sim->device)
        sim->device = e->backend->ops->alloc(e->backend, bytes, BW_MEM_SCRATCH);
    if (!sim->imposed || !sim->device)
        return bw_fail_memory(err, "imposed acceptance", bytes);
    for (int j = 0; n_shares > 0 && j < BW_MAX_DRAFTS; j++)
        sim->shares[j] = bw_simulate_share(shares, n_shares, j + 1);
    sim->n_shares = n_shares;
    sim->seed = seed;
    return BW_OK;
}

/* With one number u, uniform in (0, 1): n drafts are accepted with the share of n as their chance, for every n. */
static int32_t draw_accepted(const bw_simulation *sim, const bw_sequence *s, int n_drafts)
{
    uint64_t state = bw_chance_mix(sim->seed + bw_chance_mix(s->id)) + (uint64_t)s->n_rows;
    const double u = bw_chance_uniform(&state);
    int32_t n = 0;
    while (n < n_drafts && u < sim->shares[n])
        n++;
    return n;
}

void bw_simulate_plan(bw_engine *e)
{
    bw_simulation *sim = e->simulation;
    if (!sim)
        return;
    sim->any = false;
    for (int i = 0; sim->n_shares > 0 && i < e->host.n_spans; i++) {
        const bw_span *span = &e->host.spans[i];
        bw_sequence *s = e->host.owners[i];
        const int n_drafts = span->sample ? span->n_rows - span->n_final : 0;
        sim->imposed[i] = n_drafts > 0 ? draw_accepted(sim, s, n_drafts) : -1;
        s->usage.simulated |= n_drafts > 0;
        sim->any |= n_drafts > 0;
    }
    if (!sim->any)
        return;
    e->last_step.simulated = true;
    e->backend->ops->upload(e->backend, sim->device, sim->imposed, (size_t)e->host.n_spans * sizeof *sim->imposed);
}

const int32_t *bw_simulate_imposed(const bw_engine *e)
{
    return e->simulation && e->simulation->any ? e->simulation->device : NULL;
}

/* ---- depth --------------------------------------------------------------------------------------- */

static bw_kv_codec codec_of(const bw_engine *e)
{
    return e->options.kv == BW_KV_F32 ? BW_CODEC_F32 : BW_CODEC_F16;
}

/* Keys, or values, of one page of one layer. */
static size_t half_bytes(const bw_engine *e)
{
    return (size_t)bw_kv_layer_page_bytes(codec_of(e), &e->net->attn) / 2;
}

/* Normed keys and values of a layer are about standard normal. */
static void draw_rows(const bw_engine *e, unsigned char *rows, size_t bytes, uint64_t *state)
{
    const bool f16 = codec_of(e) == BW_CODEC_F16;
    const size_t width = f16 ? sizeof(uint16_t) : sizeof(float);
    for (size_t at = 0; at + width <= bytes; at += width) {
        const float x = (float)bw_chance_normal(state);
        const uint16_t half = bw_f32_to_f16(x);
        memcpy(rows + at, f16 ? (const void *)&half : (const void *)&x, width);
    }
}

static size_t state_floats(const bw_gdn_shape *s)
{
    return (size_t)s->n_v_heads * (size_t)((s->d_v + BW_GDN_TILE - 1) / BW_GDN_TILE) * (size_t)s->d_k * BW_GDN_TILE;
}

static size_t window_floats(const bw_gdn_shape *s)
{
    return (size_t)(s->conv_width - 1) * (size_t)s->conv_dim;
}

/* S [n_v_heads, tiles, d_k, 16], columns past d_v zero; then the window. */
static void draw_state(const bw_gdn_shape *shape, float *out, uint64_t *state)
{
    const int tiles = (shape->d_v + BW_GDN_TILE - 1) / BW_GDN_TILE;
    for (int i = 0; i < shape->n_v_heads * tiles; i++)
        for (int k = 0; k < shape->d_k; k++)
            for (int column = 0; column < BW_GDN_TILE; column++)
                *out++ = i % tiles * BW_GDN_TILE + column < shape->d_v ? (float)(0.1 * bw_chance_normal(state)) : 0;
    for (size_t i = 0; i < window_floats(shape); i++)
        *out++ = (float)bw_chance_normal(state);
}

static bw_status make_blocks(bw_engine *e, bw_error *err)
{
    bw_simulation *sim = e->simulation;
    const bw_gdn_shape *gdn = &e->net->gdn;
    const size_t rows = half_bytes(e) + SHIFTS * SHIFT;
    const size_t state = (state_floats(gdn) + window_floats(gdn)) * sizeof *sim->state;
    uint64_t stream = 1;
    if (sim->state)
        return BW_OK;
    if (!sim->rows)
        sim->rows = bw_mem_alloc(rows, BW_MEM_SCRATCH);
    if (sim->rows)
        sim->state = bw_mem_alloc(state, BW_MEM_SCRATCH);
    if (!sim->state)
        return bw_fail_memory(err, "simulated depth", rows + state);
    draw_rows(e, sim->rows, rows, &stream);
    draw_state(gdn, sim->state, &stream);
    return BW_OK;
}

static bw_sequence *find(const bw_engine *e, bw_seq_id id)
{
    for (int i = 0; i < e->live.n; i++)
        if (e->live.items[i]->id == id)
            return e->live.items[i];
    return NULL;
}

bw_status bw_simulate_depth(bw_engine *e, bw_seq_id id, int depth, bw_error *err)
{
    bw_sequence *s = find(e, id);
    if (!s || s->started)
        return bw_fail(err, BW_E_ARGUMENT, "simulated depth: sequence %llu %s, expected one that was submitted and has not started",
                       (unsigned long long)id, s ? "has started" : "is not live");
    if (depth < 1 || depth >= s->n_prompt)
        return bw_fail(err, BW_E_ARGUMENT, "simulated depth: %d of a prompt of %d tokens, expected 1 to %d: one row at least is computed",
                       depth, s->n_prompt, s->n_prompt - 1);
    if (s->prompt_logits || s->prompt_logprobs || s->prompt_top || s->draft_logits)
        return bw_fail(err, BW_E_ARGUMENT, "simulated depth: the request wants something of its prompt's rows, which are not computed");
    bw_status st = get_simulation(e, err);
    if (!st)
        st = make_blocks(e, err);
    if (st)
        return st;
    s->simulated_depth = depth;
    s->cached = false; /* nobody may begin with what is here */
    s->usage.simulated = true;
    return BW_OK;
}

/* Page number i of a sequence. */
static void fill_page(bw_engine *e, int page, int i)
{
    const int n_layers = bw_net_kv_layers(e->net, e->max_drafts > 0);
    const size_t bytes = half_bytes(e);
    bw_backend *be = e->backend;
    uint64_t stream = (uint64_t)i;
    for (int l = 0; l < n_layers; l++) {
        const bw_kv_layer *layer = &bw_pages_layers(e->pages)[l];
        const uint64_t chance = bw_chance_draw(&stream);
        be->ops->upload(be, (char *)layer->k + (size_t)page * bytes, e->simulation->rows + chance % SHIFTS * SHIFT, bytes);
        be->ops->upload(be, (char *)layer->v + (size_t)page * bytes, e->simulation->rows + (chance >> 32) % SHIFTS * SHIFT, bytes);
    }
}

/* The same in all layers: what they make of it differs. */
static void fill_state(bw_engine *e, int slot)
{
    const size_t state = state_floats(&e->net->gdn), window = window_floats(&e->net->gdn);
    bw_backend *be = e->backend;
    for (int l = 0; l < e->net->config->n_linear; l++) {
        const bw_gdn_state *layer = &bw_slots_layers(e->slots)[l];
        be->ops->upload(be, layer->state + (size_t)slot * state, e->simulation->state, state * sizeof *layer->state);
        be->ops->upload(be, layer->window + (size_t)slot * window, e->simulation->state + state, window * sizeof *layer->window);
    }
}

void bw_simulate_fill(bw_engine *e, bw_sequence *s)
{
    const int n_pages = (s->simulated_depth + BW_PAGE - 1) / BW_PAGE;
    bw_backend *be = e->backend;
    if (e->tree && bw_pages_free(e->pages) < n_pages)
        bw_prefix_tree_make_room(e->tree, n_pages);
    for (; s->n_pages < n_pages; s->n_pages++) {
        const int page = bw_pages_take(e->pages);
        assert(page >= 0); /* the scheduler found room for the whole prompt */
        s->pages[s->n_pages] = page;
        fill_page(e, page, s->n_pages);
    }
    be->ops->upload(be, e->seqs.pages + (size_t)s->slot * (size_t)e->seqs.max_pages, s->pages,
                    (size_t)n_pages * sizeof *s->pages);
    fill_state(e, s->slot);
    s->n_rows = s->simulated_depth;
}
