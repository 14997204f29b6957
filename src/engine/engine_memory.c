/* engine_memory.c - what an engine takes: counted from sizes alone, taken once, given back.
 *
 * After bw_engine_create nothing on the step path allocates. */
#include <string.h>

#include "engine/engine.h"
#include "engine/model_open.h"

enum {
    DEFAULT_CONTEXT = 32768,
    DEFAULT_ROWS = 512,
    LARGEST_CONTEXT = 1 << 26, /* counts of positions stay far inside an int */
    MOST_PAGES = 1 << 29,      /* so do counts of pages */
    DRAFT_VOCAB = 32768,       /* ids that drafts are chosen from, */
    MORE_DRAFT_VOCAB = 65536,  /* and where the head is less than */
    SMALL_HEAD = 10,           /* a tenth of what a step reads: docs/performance.md, "the draft vocabulary" */
    DRAFT_STEP = 16,           /* of their number: backends lay rows out in panels */
    LEAST_LOGITS = 16          /* rows of the logits buffer, so that evaluation works in decent blocks */
};

/* ---- plan ------------------------------------------------------------------------------------ */

bw_engine_options bw_engine_defaults(void)
{
    return (bw_engine_options){ .chunk = DEFAULT_ROWS, .kv = BW_KV_F16 };
}

static int larger(int a, int b)
{
    return a > b ? a : b;
}

static int default_draft_vocab(const bw_model *model)
{
    const uint64_t step = bw_weights_step_bytes(&model->weights, &model->config);
    return bw_matrix_bytes(&model->weights.head) < step / SMALL_HEAD ? MORE_DRAFT_VOCAB : DRAFT_VOCAB;
}

/* Fills in what the caller left to us. */
static bw_status resolve_options(const bw_model *model, const bw_engine_options *given, bw_engine_options *out,
                                 bw_error *err)
{
    bw_engine_options o = given ? *given : bw_engine_defaults();
    const int most = model->config.max_position;
    if (o.context < 0 || o.max_seqs < 0 || o.max_rows < 0 || o.chunk < 0 || o.max_waiting < 0 || o.min_prefill < 0 ||
        o.draft_vocab < 0 || !(o.decode_gap_s >= 0))
        return bw_fail(err, BW_E_ARGUMENT, "engine: context %d, max_seqs %d, max_rows %d, chunk %d, max_waiting %d, "
                       "min_prefill %d, draft_vocab %d and decode_gap_s %g must not be negative", o.context, o.max_seqs,
                       o.max_rows, o.chunk, o.max_waiting, o.min_prefill, o.draft_vocab, o.decode_gap_s);
    if (o.max_waiting > 65536)
        return bw_fail(err, BW_E_LIMIT, "engine: %d waiting requests, at most 65536 are possible", o.max_waiting);
    if (o.context == 0)
        o.context = most < DEFAULT_CONTEXT ? most : DEFAULT_CONTEXT;
    if (o.context > most)
        return bw_fail(err, BW_E_LIMIT, "engine: a context of %d tokens is more than the %d that %s was made for: ask "
                       "for at most that", o.context, most, model->path);
    if (o.context > LARGEST_CONTEXT)
        return bw_fail(err, BW_E_LIMIT, "engine: a context of %d tokens, at most %d are possible", o.context,
                       LARGEST_CONTEXT);
    if (o.context < 2)
        return bw_fail(err, BW_E_LIMIT, "engine: a context of %d token has no room for a prompt and an answer: ask for "
                       "at least 2", o.context);
    if (o.max_seqs == 0)
        o.max_seqs = 1;
    if (o.max_seqs > 4096)
        return bw_fail(err, BW_E_LIMIT, "engine: %d sequences at a time, at most 4096 are possible", o.max_seqs);
    if (o.max_rows == 0)
        o.max_rows = o.chunk ? o.chunk : DEFAULT_ROWS;
    if (o.max_rows > o.context)
        o.max_rows = o.context;
    /* A step in which everyone drafts as much as can be still has a page of prefill. */
    o.max_rows = larger(o.max_rows, o.max_seqs * (1 + BW_MAX_DRAFTS) + BW_PAGE);
    o.no_drafts |= !model->net->has_mtp;
    if (o.draft_vocab == 0)
        o.draft_vocab = default_draft_vocab(model);
    if (o.draft_vocab >= model->info.n_tokens - DRAFT_STEP)
        o.draft_vocab = model->info.n_tokens;
    else
        o.draft_vocab = (o.draft_vocab + DRAFT_STEP - 1) / DRAFT_STEP * DRAFT_STEP;
    *out = o;
    return BW_OK;
}

static int pages_per_sequence(const bw_engine_options *o)
{
    return (o->context + BW_PAGE - 1) / BW_PAGE;
}

/* Entries of a timeline: a full context, one sampled token after it, and drafts. */
static int timeline_length(const bw_engine_options *o)
{
    return o->context + 2 + BW_MAX_DRAFTS;
}

static bw_op_limits limits_of(const bw_net *net, const bw_engine_options *o)
{
    const int max_drafts = o->no_drafts ? 0 : BW_MAX_DRAFTS;
    const int all = o->max_seqs * (1 + max_drafts), most = o->max_seqs + BW_LOGITS_BLOCK;
    return bw_net_limits(net, o->max_rows, o->max_seqs, larger(all < most ? all : most, LEAST_LOGITS), max_drafts);
}

static bw_kv_codec codec_of(bw_kv_type kv)
{
    return kv == BW_KV_F32 ? BW_CODEC_F32 : BW_CODEC_F16;
}

/* A table of the engine: where its pointer goes, and what it takes. */
typedef struct table {
    void *where; /* address of the pointer */
    uint64_t count;
    size_t size;
    bool host;   /* in host memory; otherwise in the backend's */
} table;

enum { MAX_TABLES = 64 };

/* The one list of tables: counted for the plan (with a dummy engine), taken and freed by it. The
 * sequences' page arrays come last, one block for all. */
static int list_tables(table out[MAX_TABLES], bw_engine *e, int **page_arrays, const bw_engine_options *o,
                       const bw_op_limits *l)
{
    const uint64_t entries = (uint64_t)o->max_seqs + (uint64_t)o->max_waiting;
    const uint64_t seqs = (uint64_t)o->max_seqs, rows = (uint64_t)l->max_rows;
    const uint64_t samples = seqs * (1 + (uint64_t)l->max_pending);
    bw_sequences *s = &e->seqs;
    bw_step *d = &e->device, *h = &e->host;
    bw_results *r = &e->device_result, *hr = &e->result;
    const table list[] = {
        { &s->tokens, seqs * (uint64_t)timeline_length(o), sizeof *s->tokens, false },
        { &s->pages, seqs * (uint64_t)pages_per_sequence(o), sizeof *s->pages, false },
        { &s->accepted, seqs, sizeof *s->accepted, false },
        { &s->samplers, seqs, sizeof *s->samplers, false },
        { &s->biases, seqs * BW_MAX_LOGIT_BIAS, sizeof *s->biases, false },
        { &d->rows, rows, sizeof *d->rows, false },
        { &d->spans, seqs, sizeof *d->spans, false },
        { &d->logit_index, samples, sizeof *d->logit_index, false },
        { &d->logit_rows, samples, sizeof *d->logit_rows, false },
        { &d->scored_index, rows, sizeof *d->scored_index, false },
        { &d->scored_rows, rows, sizeof *d->scored_rows, false },
        { &d->chain_spans, seqs, sizeof *d->chain_spans, false },
        { &d->resumed_rows, seqs, sizeof *d->resumed_rows, false },
        { &d->resumed_slots, seqs, sizeof *d->resumed_slots, false },
        { &d->flush_spans, seqs, sizeof *d->flush_spans, false },
        { &r->sampled, samples, sizeof *r->sampled, false },
        { &r->damaged, samples, sizeof *r->damaged, false },
        { &r->logprobs, samples, sizeof *r->logprobs, false },
        { &r->top, samples * BW_MAX_LOGPROBS, sizeof *r->top, false },
        { &r->n_accepted, seqs, sizeof *r->n_accepted, false },
        { &r->scores, rows, sizeof *r->scores, false },
        { &r->score_top, rows * BW_MAX_LOGPROBS, sizeof *r->score_top, false },
        { &e->draft_vocab.ids, seqs * BW_DRAFT_LIST, sizeof *e->draft_vocab.ids, false },
        { &e->draft_vocab.n_ids, seqs, sizeof *e->draft_vocab.n_ids, false },
        { &e->draft_lists, seqs, sizeof *e->draft_lists, true },
        { &e->draft_index, seqs, sizeof *e->draft_index, false },
        { &e->draft_rows, seqs, sizeof *e->draft_rows, false },
        { &e->draft_sampled, seqs, sizeof *e->draft_sampled, false },
        { &e->resumed_hidden, seqs * (uint64_t)l->hidden, sizeof *e->resumed_hidden, false },
        { &h->rows, rows, sizeof *h->rows, true },
        { &h->spans, seqs, sizeof *h->spans, true },
        { &h->logit_index, samples, sizeof *h->logit_index, true },
        { &h->logit_rows, samples, sizeof *h->logit_rows, true },
        { &h->scored_index, rows, sizeof *h->scored_index, true },
        { &h->scored_rows, rows, sizeof *h->scored_rows, true },
        { &h->scored_owners, rows, sizeof *h->scored_owners, true },
        { &h->chain_spans, seqs, sizeof *h->chain_spans, true },
        { &h->chain_lengths, seqs, sizeof *h->chain_lengths, true },
        { &h->resumed_rows, seqs, sizeof *h->resumed_rows, true },
        { &h->resumed_slots, seqs, sizeof *h->resumed_slots, true },
        { &h->flush_spans, seqs, sizeof *h->flush_spans, true },
        { &h->marks, seqs, sizeof *h->marks, true },
        { &h->owners, seqs, sizeof *h->owners, true },
        { &hr->sampled, samples, sizeof *hr->sampled, true },
        { &hr->damaged, samples, sizeof *hr->damaged, true },
        { &hr->logprobs, samples, sizeof *hr->logprobs, true },
        { &hr->top, samples * BW_MAX_LOGPROBS, sizeof *hr->top, true },
        { &hr->n_accepted, seqs, sizeof *hr->n_accepted, true },
        { &hr->scores, rows, sizeof *hr->scores, true },
        { &hr->score_top, rows * BW_MAX_LOGPROBS, sizeof *hr->score_top, true },
        { &e->sequences, entries, sizeof *e->sequences, true },
        { &e->live.items, entries, sizeof *e->live.items, true },
        { &e->waiting.items, entries, sizeof *e->waiting.items, true },
        { &e->running.items, seqs, sizeof *e->running.items, true },
        { &e->asks, seqs, sizeof *e->asks, true },
        { &e->order, seqs, sizeof *e->order, true },
        { &e->queue, entries, sizeof *e->queue, true },
        { &e->events, seqs, sizeof *e->events, true },
        { &e->event_usage, seqs, sizeof *e->event_usage, true },
        { &e->guards, seqs, sizeof *e->guards, true },
        { &e->event_errors, seqs, sizeof *e->event_errors, true },
        { page_arrays, seqs * (uint64_t)pages_per_sequence(o), sizeof **page_arrays, true },
    };
    _Static_assert(BW_COUNT(list) <= MAX_TABLES, "room for every table");
    memcpy(out, list, sizeof list);
    return (int)BW_COUNT(list);
}

static uint64_t table_bytes(const bw_engine_options *o, const bw_op_limits *l)
{
    bw_engine dummy;
    int *pages;
    table list[MAX_TABLES];
    uint64_t bytes = 0;
    for (int i = list_tables(list, &dummy, &pages, o, l) - 1; i >= 0; i--)
        bytes += list[i].count * list[i].size;
    return bytes;
}

static uint64_t page_bytes(const bw_net *net, const bw_engine_options *o)
{
    return bw_pages_page_bytes(codec_of(o->kv), &net->attn, bw_net_kv_layers(net, !o->no_drafts));
}

/* Pages of the pool: full contexts for all sequences, or as many as kv_memory holds. */
static int pool_pages(const bw_net *net, const bw_engine_options *o)
{
    const uint64_t all = (uint64_t)pages_per_sequence(o) * (uint64_t)o->max_seqs;
    const uint64_t fit = o->kv_memory ? o->kv_memory / page_bytes(net, o) : all;
    const uint64_t n = fit < all ? fit : all;
    return (int)(n < MOST_PAGES ? n : MOST_PAGES);
}

static uint64_t checkpoint_bytes(const bw_net *net)
{
    return bw_slots_bytes(&net->gdn, net->config->n_linear, 1, 0) + (uint64_t)net->config->hidden * sizeof(float);
}

static void make_plan(const bw_model *model, const bw_engine_options *o, bw_memory_plan *plan)
{
    const bw_net *net = model->net;
    const bw_op_limits limits = limits_of(net, o);
    const uint64_t page = page_bytes(net, o);
    *plan = (bw_memory_plan){ .context = o->context, .max_seqs = o->max_seqs, .max_rows = o->max_rows,
                              .draft_vocab = o->draft_vocab };
    plan->packed = net->packed_bytes;
    plan->weights = model->info.weight_bytes - net->packed_from + net->packed_bytes;
    plan->kv = page * (uint64_t)pool_pages(net, o);
    plan->kv_tokens = (int64_t)pool_pages(net, o) * BW_PAGE;
    plan->checkpoint_bytes = checkpoint_bytes(net);
    plan->cache = bw_prefix_tree_bytes(pool_pages(net, o), plan->checkpoint_bytes, o->cache_memory);
    plan->kv_bytes_per_token = page / BW_PAGE;
    plan->state_bytes_per_sequence = bw_slots_bytes(&net->gdn, net->config->n_linear, 1, limits.max_pending);
    plan->state = plan->state_bytes_per_sequence * (uint64_t)o->max_seqs;
    plan->scratch = bw_activations_bytes(net, &limits) + table_bytes(o, &limits) +
                    model->backend->ops->reserve_bytes(model->backend, &limits, model->n_threads);
    plan->total = plan->weights + plan->kv + plan->state + plan->scratch + plan->cache;
}

/* The pool holds one full context, so that every request that fits the context can be served in the end; the
 * prefix cache, if there is to be one, holds a state. */
static bw_status check_sizes(const bw_model *model, const bw_engine_options *o, bw_error *err)
{
    const int fit = pool_pages(model->net, o), wanted = pages_per_sequence(o);
    if (o->cache_memory > 0 && o->cache_memory < checkpoint_bytes(model->net))
        return bw_fail(err, BW_E_LIMIT, "engine: %llu bytes of cache memory do not hold one saved state of %llu bytes: give "
                       "at least that, or 0 for no prefix cache", (unsigned long long)o->cache_memory,
                       (unsigned long long)checkpoint_bytes(model->net));
    if (fit >= wanted)
        return BW_OK;
    return bw_fail(err, BW_E_LIMIT, "engine: %llu bytes of KV memory hold %lld tokens, and a context of %d needs %llu "
                   "bytes: give more, or ask for a smaller context", (unsigned long long)o->kv_memory,
                   (long long)fit * BW_PAGE, o->context,
                   (unsigned long long)(page_bytes(model->net, o) * (uint64_t)wanted));
}

bw_status bw_engine_plan(const bw_model *model, const bw_engine_options *options, bw_memory_plan *plan, bw_error *err)
{
    bw_engine_options o;
    bw_status st = resolve_options(model, options, &o, err);
    if (!st)
        st = check_sizes(model, &o, err);
    if (!st)
        make_plan(model, &o, plan);
    return st;
}

/* Refuses before anything is taken. Weights are not asked for: those that are packed have their memory, the others
 * are mapped files and give way. The rest must be free. */
static bw_status check_memory(const bw_memory_plan *plan, bw_error *err)
{
    const uint64_t available = bw_mem_available(), wanted = plan->kv + plan->state + plan->scratch + plan->cache;
    if (available == 0 || wanted <= available)
        return BW_OK;
    const uint64_t fixed = plan->state + plan->scratch + plan->cache;
    const uint64_t fits = available > fixed ? (available - fixed) / plan->kv_bytes_per_token / (uint64_t)plan->max_seqs : 0;
    return bw_fail(err, BW_E_MEMORY, "memory: KV cache %.2f GiB (%lld tokens for %d sequences of %d), state %.2f GiB, prefix "
                   "cache %.2f GiB and scratch %.2f GiB are %.2f GiB, and %.2f GiB are free: ask for a context of at most "
                   "%llu%s", (double)plan->kv / 0x1p30, (long long)plan->kv_tokens, plan->max_seqs, plan->context,
                   (double)plan->state / 0x1p30, (double)plan->cache / 0x1p30, (double)plan->scratch / 0x1p30,
                   (double)wanted / 0x1p30, (double)available / 0x1p30,
                   (unsigned long long)fits, plan->max_seqs > 1 ? ", or fewer sequences" : "");
}

/* ---- create and destroy ---------------------------------------------------------------------- */

static bw_status take_tables(bw_engine *e, bw_error *err)
{
    table list[MAX_TABLES];
    const int n = list_tables(list, e, &e->page_arrays, &e->options, &e->limits);
    bool failed = false;
    for (int i = 0; i < n; i++) {
        void *block = list[i].host ? bw_mem_zalloc(list[i].count, list[i].size, BW_MEM_SCRATCH)
                                   : e->backend->ops->alloc(e->backend, list[i].count * list[i].size, BW_MEM_SCRATCH);
        memcpy(list[i].where, &block, sizeof block);
        failed |= block == NULL;
    }
    if (failed)
        return bw_fail_memory(err, "engine tables", (size_t)table_bytes(&e->options, &e->limits));
    e->seqs.n_slots = e->options.max_seqs;
    e->seqs.context = timeline_length(&e->options);
    e->seqs.max_pages = pages_per_sequence(&e->options);
    e->waiting.by_priority = true;
    e->n_sequences = e->options.max_seqs + e->options.max_waiting;
    for (int i = 0; i < e->n_sequences; i++)
        e->sequences[i].slot = -1;
    return BW_OK;
}

static void free_tables(bw_engine *e)
{
    table list[MAX_TABLES];
    for (int i = list_tables(list, e, &e->page_arrays, &e->options, &e->limits) - 1; i >= 0; i--) {
        void *block;
        memcpy(&block, list[i].where, sizeof block);
        if (list[i].host)
            bw_mem_free(block);
        else if (e->backend)
            e->backend->ops->free(e->backend, block);
    }
}

/* Ids of the model that are no tokens though later ones are. Usually none. */
static bw_status take_holes(bw_engine *e, bw_error *err)
{
    const size_t bytes = (size_t)e->model->n_holes * sizeof *e->holes;
    e->n_holes = e->model->n_holes;
    if (e->n_holes == 0)
        return BW_OK;
    e->holes = e->backend->ops->alloc(e->backend, bytes, BW_MEM_MISC);
    if (!e->holes)
        return bw_fail_memory(err, "engine: ids that are no tokens", bytes);
    e->backend->ops->upload(e->backend, e->holes, e->model->holes, bytes);
    return BW_OK;
}

/* What every text may need of the tokens past the first ones: ends and marks of the chat format. */
static void take_draft_vocab(bw_engine *e)
{
    static const char *const marks[] = { "<|im_end|>", "<|endoftext|>", "</think>", "<think>", "<tool_call>", "</tool_call>",
                                         "<tool_response>", "</tool_response>", "<|im_start|>" };
    const bw_tokenizer *tokenizer = e->model->text ? bw_text_source_tokenizer(e->model->text) : NULL;
    if (e->options.draft_vocab >= e->n_tokens)
        return;
    e->draft_vocab.n_first = e->options.draft_vocab;
    e->draft_vocab.room = e->limits.vocab - e->options.draft_vocab;
    if (e->draft_vocab.room > BW_DRAFT_LIST)
        e->draft_vocab.room = BW_DRAFT_LIST;
    for (size_t i = 0; tokenizer && i < BW_COUNT(marks); i++) {
        const int32_t id = bw_tokenizer_find(tokenizer, marks[i], strlen(marks[i]));
        if (id >= 0)
            e->added[e->n_added++] = id;
    }
}

static bw_status take_cache(bw_engine *e, bw_error *err)
{
    const uint64_t state = checkpoint_bytes(e->net);
    if (e->options.cache_memory == 0)
        return BW_OK;
    e->n_checkpoints = bw_prefix_tree_room(e->n_pages, state, e->options.cache_memory);
    return bw_prefix_tree_create(&e->tree, e->pages, e->n_pages, state, e->options.cache_memory, err);
}

bw_status bw_engine_create(bw_engine **out, bw_model *model, const bw_engine_options *options, bw_error *err)
{
    *out = NULL;
    bw_status st;
    bw_engine *e = bw_mem_zalloc(1, sizeof *e, BW_MEM_MISC);
    if (!e)
        return bw_fail_memory(err, "engine", sizeof *e);
    e->model = model;
    e->net = model->net;
    e->n_tokens = model->info.n_tokens;
    e->next_id = 1;
    if (!model->net->placed) {
        st = bw_fail(err, BW_E_ARGUMENT, "engine: %s was opened to plan with, without its weights", model->path);
        goto fail;
    }
    if ((st = resolve_options(model, options, &e->options, err)) || (st = check_sizes(model, &e->options, err)))
        goto fail;
    make_plan(model, &e->options, &e->plan);
    if ((st = check_memory(&e->plan, err)))
        goto fail;
    e->limits = limits_of(e->net, &e->options);
    e->max_drafts = e->limits.max_pending;
    e->n_pages = pool_pages(e->net, &e->options);
    bw_draft_planner_init(&e->planner);
    bw_pace_init(&e->pace, e->options.decode_gap_s, e->options.min_prefill);
    /* The level that the weights were placed for, whatever $BW_CPU says by now. */
    if ((st = bw_cpu_backend_create(&e->backend, model->n_threads, model->backend->level, err)))
        goto fail;
    if (model->pin)
        bw_cpu_backend_pin(e->backend);
    if ((st = e->backend->ops->reserve(e->backend, &e->limits, err)) ||
        (st = bw_activations_create(&e->buf, e->net, e->backend, &e->limits, err)) ||
        (st = bw_pages_create(&e->pages, e->backend, codec_of(e->options.kv), &e->net->attn,
                              bw_net_kv_layers(e->net, e->max_drafts > 0), e->n_pages, err)) ||
        (st = bw_slots_create(&e->slots, e->backend, &e->net->gdn, e->net->config->n_linear, e->options.max_seqs,
                              e->max_drafts, err)) ||
        (st = take_tables(e, err)) || (st = take_holes(e, err)) || (st = take_cache(e, err)))
        goto fail;
    take_draft_vocab(e);
    *out = e;
    return BW_OK;
fail:
    bw_engine_destroy(e);
    return st;
}

void bw_engine_destroy(bw_engine *e)
{
    if (!e)
        return;
    for (int i = 0; e->sequences && i < e->n_sequences; i++)
        if (e->sequences[i].id)
            bw_sequence_end(e, &e->sequences[i]);
    bw_prefix_tree_destroy(e->tree);
    bw_simulate_destroy(e);
    free_tables(e);
    bw_pages_destroy(e->pages);
    bw_slots_destroy(e->slots);
    if (e->backend) {
        e->backend->ops->free(e->backend, e->holes);
        bw_activations_destroy(&e->buf, e->backend);
        e->backend->ops->destroy(e->backend);
    }
    bw_mem_free(e);
}

const bw_memory_plan *bw_engine_get_plan(const bw_engine *e)
{
    return &e->plan;
}
