/* engine.c - sequences come in, steps are computed, events go out.
 *
 * One thread at a time. All memory is taken in bw_engine_create from the plan; the only allocations
 * after it are a request's own small arrays, in bw_engine_submit. */
#include "engine/engine.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/model_open.h"

enum {
    DEFAULT_CONTEXT = 32768,
    DEFAULT_ROWS = 512,
    LEAST_LOGITS = 16, /* rows of the logits buffer, so that evaluation works in decent blocks */
    HEAD_TRIAL = 64    /* first drafts after which a head that was never right is reported */
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

/* Fills in what the caller left to us. */
static bw_status resolve_options(const bw_model *model, const bw_engine_options *given, bw_engine_options *out,
                                 bw_error *err)
{
    bw_engine_options o = given ? *given : bw_engine_defaults();
    const int most = model->config.max_position;
    if (o.context < 0 || o.max_seqs < 0 || o.max_rows < 0 || o.chunk < 0)
        return bw_fail(err, BW_E_ARGUMENT, "engine: context %d, max_seqs %d, max_rows %d and chunk %d must not be "
                       "negative", o.context, o.max_seqs, o.max_rows, o.chunk);
    if (o.context == 0)
        o.context = most < DEFAULT_CONTEXT ? most : DEFAULT_CONTEXT;
    if (o.context > most)
        return bw_fail(err, BW_E_LIMIT, "engine: a context of %d tokens is more than the %d that %s was made for: ask "
                       "for at most that", o.context, most, model->path);
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
    o.max_rows = larger(o.max_rows, o.max_seqs * (1 + BW_MAX_DRAFTS));
    o.no_drafts |= !model->net->has_mtp;
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
    return bw_net_limits(net, o->max_rows, o->max_seqs, larger(o->max_seqs * (1 + max_drafts), LEAST_LOGITS),
                         max_drafts);
}

static bw_kv_codec codec_of(bw_kv_type kv)
{
    return kv == BW_KV_F32 ? BW_CODEC_F32 : BW_CODEC_F16;
}

/* Bytes of every table of bw_engine in backend memory: bw_engine_create's list, counted. */
static uint64_t table_bytes(const bw_engine_options *o, const bw_op_limits *l)
{
    const uint64_t seqs = (uint64_t)o->max_seqs, rows = (uint64_t)l->max_rows, logits = (uint64_t)l->max_logits;
    uint64_t bytes = seqs * ((uint64_t)timeline_length(o) + (uint64_t)pages_per_sequence(o) + 1) * sizeof(int32_t);
    bytes += seqs * (sizeof(bw_sampler) + sizeof(bw_span) + 4 * sizeof(int32_t) + sizeof(bw_row));
    bytes += rows * (2 * sizeof(bw_row) + sizeof(int32_t) + sizeof(float));
    bytes += logits * (sizeof(bw_row) + 2 * sizeof(int32_t) + sizeof(float) + BW_MAX_LOGPROBS * sizeof(bw_logprob));
    return bytes;
}

static void make_plan(const bw_model *model, const bw_engine_options *o, bw_memory_plan *plan)
{
    const bw_net *net = model->net;
    const bw_op_limits limits = limits_of(net, o);
    const uint64_t page = bw_pages_page_bytes(codec_of(o->kv), &net->attn, bw_net_kv_layers(net, !o->no_drafts));
    *plan = (bw_memory_plan){ .context = o->context, .max_seqs = o->max_seqs, .max_rows = o->max_rows };
    plan->weights = model->info.weight_bytes;
    plan->kv = page * (uint64_t)pages_per_sequence(o) * (uint64_t)o->max_seqs;
    plan->kv_bytes_per_token = page / BW_PAGE;
    plan->state_bytes_per_sequence = bw_slots_bytes(&net->gdn, net->config->n_linear, 1, limits.max_pending);
    plan->state = plan->state_bytes_per_sequence * (uint64_t)o->max_seqs;
    plan->scratch = bw_activations_bytes(net, &limits) + table_bytes(o, &limits) +
                    model->backend->ops->reserve_bytes(model->backend, &limits);
    plan->total = plan->weights + plan->kv + plan->state + plan->scratch;
}

bw_status bw_engine_plan(const bw_model *model, const bw_engine_options *options, bw_memory_plan *plan, bw_error *err)
{
    bw_engine_options o;
    bw_status st = resolve_options(model, options, &o, err);
    if (!st)
        make_plan(model, &o, plan);
    return st;
}

/* Refuses before anything is taken. Weights are mapped files and give way; the rest must be free. */
static bw_status check_memory(const bw_memory_plan *plan, bw_error *err)
{
    const uint64_t available = bw_mem_available(), wanted = plan->kv + plan->state + plan->scratch;
    if (available == 0 || wanted <= available)
        return BW_OK;
    const uint64_t fixed = plan->state + plan->scratch;
    const uint64_t fits = available > fixed ? (available - fixed) / plan->kv_bytes_per_token / (uint64_t)plan->max_seqs : 0;
    return bw_fail(err, BW_E_MEMORY, "memory: KV cache %.2f GiB (context %d x %d sequences), state %.2f GiB and scratch "
                   "%.2f GiB are %.2f GiB, and %.2f GiB are free: ask for a context of at most %llu%s",
                   (double)plan->kv / 0x1p30, plan->context, plan->max_seqs, (double)plan->state / 0x1p30,
                   (double)plan->scratch / 0x1p30, (double)wanted / 0x1p30, (double)available / 0x1p30,
                   (unsigned long long)fits, plan->max_seqs > 1 ? ", or fewer sequences" : "");
}

/* ---- create and destroy ---------------------------------------------------------------------- */

static void *take(bw_engine *e, uint64_t count, size_t size, bool *failed)
{
    void *block = e->backend->ops->alloc(e->backend, count * size, BW_MEM_SCRATCH);
    *failed |= block == NULL;
    return block;
}

static void *take_host(uint64_t count, size_t size, bool *failed)
{
    void *block = bw_mem_zalloc(count, size, BW_MEM_SCRATCH);
    *failed |= block == NULL;
    return block;
}

static bool take_tables(bw_engine *e)
{
    const uint64_t seqs = (uint64_t)e->options.max_seqs, rows = (uint64_t)e->limits.max_rows;
    const uint64_t logits = (uint64_t)e->limits.max_logits;
    bool failed = false;
    bw_sequences *s = &e->seqs;
    *s = (bw_sequences){ .n_slots = e->options.max_seqs, .context = timeline_length(&e->options),
                         .max_pages = pages_per_sequence(&e->options) };
    s->tokens = take(e, seqs * (uint64_t)s->context, sizeof *s->tokens, &failed);
    s->pages = take(e, seqs * (uint64_t)s->max_pages, sizeof *s->pages, &failed);
    s->accepted = take(e, seqs, sizeof *s->accepted, &failed);
    s->samplers = take(e, seqs, sizeof *s->samplers, &failed);

    bw_step *d = &e->device, *h = &e->host;
    d->rows = take(e, rows, sizeof *d->rows, &failed);
    d->spans = take(e, seqs, sizeof *d->spans, &failed);
    d->logit_index = take(e, logits, sizeof *d->logit_index, &failed);
    d->logit_rows = take(e, logits, sizeof *d->logit_rows, &failed);
    d->scored_index = take(e, rows, sizeof *d->scored_index, &failed);
    d->scored_rows = take(e, rows, sizeof *d->scored_rows, &failed);
    d->chain_spans = take(e, seqs, sizeof *d->chain_spans, &failed);
    h->rows = take_host(rows, sizeof *h->rows, &failed);
    h->spans = take_host(seqs, sizeof *h->spans, &failed);
    h->logit_index = take_host(logits, sizeof *h->logit_index, &failed);
    h->logit_rows = take_host(logits, sizeof *h->logit_rows, &failed);
    h->scored_index = take_host(rows, sizeof *h->scored_index, &failed);
    h->scored_rows = take_host(rows, sizeof *h->scored_rows, &failed);
    h->scored_owners = take_host(rows, sizeof *h->scored_owners, &failed);
    h->chain_spans = take_host(seqs, sizeof *h->chain_spans, &failed);
    h->chain_lengths = take_host(seqs, sizeof *h->chain_lengths, &failed);
    h->owners = take_host(seqs, sizeof *h->owners, &failed);

    bw_results *r = &e->device_result, *hr = &e->result;
    r->sampled = take(e, logits, sizeof *r->sampled, &failed);
    r->logprobs = take(e, logits, sizeof *r->logprobs, &failed);
    r->top = take(e, logits * BW_MAX_LOGPROBS, sizeof *r->top, &failed);
    r->n_accepted = take(e, seqs, sizeof *r->n_accepted, &failed);
    r->scores = take(e, rows, sizeof *r->scores, &failed);
    hr->sampled = take_host(logits, sizeof *hr->sampled, &failed);
    hr->logprobs = take_host(logits, sizeof *hr->logprobs, &failed);
    hr->top = take_host(logits * BW_MAX_LOGPROBS, sizeof *hr->top, &failed);
    hr->n_accepted = take_host(seqs, sizeof *hr->n_accepted, &failed);
    hr->scores = take_host(rows, sizeof *hr->scores, &failed);

    e->draft_index = take(e, seqs, sizeof *e->draft_index, &failed);
    e->draft_rows = take(e, seqs, sizeof *e->draft_rows, &failed);
    e->draft_sampled = take(e, seqs, sizeof *e->draft_sampled, &failed);

    e->sequences = take_host(seqs, sizeof *e->sequences, &failed);
    e->events = take_host(seqs, sizeof *e->events, &failed);
    e->event_usage = take_host(seqs, sizeof *e->event_usage, &failed);
    for (uint64_t i = 0; i < seqs && !failed; i++)
        e->sequences[i].pages = take_host((uint64_t)s->max_pages, sizeof(int), &failed);
    return !failed;
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
    if ((st = resolve_options(model, options, &e->options, err)))
        goto fail;
    make_plan(model, &e->options, &e->plan);
    if ((st = check_memory(&e->plan, err)))
        goto fail;
    e->limits = limits_of(e->net, &e->options);
    e->max_drafts = e->limits.max_pending;
    if ((st = bw_cpu_backend_create(&e->backend, model->n_threads, model->cpu_level, err)) ||
        (st = e->backend->ops->reserve(e->backend, &e->limits, err)) ||
        (st = bw_activations_create(&e->buf, e->net, e->backend, &e->limits, err)) ||
        (st = bw_pages_create(&e->pages, e->backend, codec_of(e->options.kv), &e->net->attn,
                              bw_net_kv_layers(e->net, e->max_drafts > 0),
                              pages_per_sequence(&e->options) * e->options.max_seqs, err)) ||
        (st = bw_slots_create(&e->slots, e->backend, &e->net->gdn, e->net->config->n_linear, e->options.max_seqs,
                              e->max_drafts, err)))
        goto fail;
    if (!take_tables(e)) {
        st = bw_fail_memory(err, "engine tables", (size_t)table_bytes(&e->options, &e->limits));
        goto fail;
    }
    *out = e;
    return BW_OK;
fail:
    bw_engine_destroy(e);
    return st;
}

static void end_sequence(bw_engine *e, bw_sequence *s)
{
    for (int i = 0; i < s->n_pages; i++)
        bw_pages_release(e->pages, s->pages[i]);
    bw_slots_release(e->slots, s->slot);
    bw_mem_free(s->stop_tokens);
    *s = (bw_sequence){ .pages = s->pages }; /* the array stays with the entry */
}

void bw_engine_destroy(bw_engine *e)
{
    if (!e)
        return;
    if (e->sequences)
        for (int i = 0; i < e->options.max_seqs; i++) {
            if (e->sequences[i].id)
                end_sequence(e, &e->sequences[i]);
            bw_mem_free(e->sequences[i].pages);
        }
    bw_step *d = &e->device, *h = &e->host;
    bw_results *r = &e->device_result, *hr = &e->result;
    if (e->backend) {
        void *const device[] = { e->seqs.tokens, e->seqs.pages,  e->seqs.accepted, e->seqs.samplers, d->rows,
                                 d->spans,       d->logit_index, d->logit_rows,    d->scored_index,  d->scored_rows,
                                 d->chain_spans, r->sampled,     r->logprobs,      r->top,           r->n_accepted,
                                 r->scores,      e->draft_index, e->draft_rows,    e->draft_sampled };
        for (size_t i = 0; i < BW_COUNT(device); i++)
            e->backend->ops->free(e->backend, device[i]);
        bw_activations_destroy(&e->buf, e->backend);
    }
    void *const host[] = { h->rows,          h->spans,         h->logit_index, h->logit_rows,    h->scored_index,
                           h->scored_rows,   h->scored_owners, h->chain_spans, h->chain_lengths, h->owners,
                           hr->sampled,      hr->logprobs,     hr->top,        hr->n_accepted,   hr->scores,
                           e->sequences,     e->events,        e->event_usage };
    for (size_t i = 0; i < BW_COUNT(host); i++)
        bw_mem_free(host[i]);
    bw_pages_destroy(e->pages);
    bw_slots_destroy(e->slots);
    if (e->backend)
        e->backend->ops->destroy(e->backend);
    bw_mem_free(e);
}

const bw_memory_plan *bw_engine_get_plan(const bw_engine *e)
{
    return &e->plan;
}

/* ---- requests -------------------------------------------------------------------------------- */

static bw_status check_sampling(const bw_sampling *s, bw_error *err)
{
    const struct {
        const char *name;
        float value, low, high;
        bool low_open;
    } ranges[] = {
        { "temperature", s->temperature, 0, 100, false },
        { "top_p", s->top_p, 0, 1, true },
        { "min_p", s->min_p, 0, 1, false },
        { "presence_penalty", s->presence_penalty, -2, 2, false },
        { "frequency_penalty", s->frequency_penalty, -2, 2, false },
        { "repetition_penalty", s->repetition_penalty, 0, 100, true },
    };
    for (size_t i = 0; i < BW_COUNT(ranges); i++) {
        const float v = ranges[i].value;
        if (!(v <= ranges[i].high) || !(ranges[i].low_open ? v > ranges[i].low : v >= ranges[i].low))
            return bw_fail(err, BW_E_ARGUMENT, "sampling: %s is %g, expected %s %g and at most %g", ranges[i].name, v,
                           ranges[i].low_open ? "more than" : "at least", ranges[i].low, ranges[i].high);
    }
    return BW_OK;
}

static bw_status check_request(const bw_engine *e, const bw_request *r, bw_error *err)
{
    const int context = e->options.context;
    if (r->n_prompt < 1 || !r->prompt)
        return bw_fail(err, BW_E_ARGUMENT, "prompt: it is empty; give at least one token");
    if (r->n_prompt > context || (r->n_prompt == context && r->max_tokens != 0))
        return bw_fail(err, BW_E_LIMIT, "prompt: %d tokens and room for an answer do not fit the context of %d: shorten "
                       "the prompt or ask for a larger context (%s was made for %d)", r->n_prompt, context,
                       e->model->path, e->model->config.max_position);
    for (int i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= e->limits.vocab)
            return bw_fail(err, BW_E_ARGUMENT, "prompt: id %d at place %d is outside the vocabulary of %d", r->prompt[i],
                           i, e->limits.vocab);
    if (r->draft < BW_DRAFT_AUTO || r->draft > BW_MAX_DRAFTS)
        return bw_fail(err, BW_E_ARGUMENT, "draft: %d, expected auto, off or 1 to %d", r->draft, BW_MAX_DRAFTS);
    if ((r->draft > 0 || r->n_draft_logits > 0) && e->max_drafts == 0)
        return bw_fail(err, BW_E_ARGUMENT, "draft: %s", e->net->has_mtp ? "this engine was made without drafts"
                                                                        : e->model->mtp_note);
    if (r->n_draft_logits < 0 || r->n_draft_logits > BW_MAX_DRAFTS || (r->n_draft_logits > 0 && !r->draft_logits))
        return bw_fail(err, BW_E_ARGUMENT, "draft logits: %d rows, expected 0 to %d and where to put them",
                       r->n_draft_logits, BW_MAX_DRAFTS);
    if (r->n_draft_logits > 0 && r->n_prompt + r->n_draft_logits > context)
        return bw_fail(err, BW_E_LIMIT, "draft logits: %d prompt tokens and %d drafts do not fit the context of %d",
                       r->n_prompt, r->n_draft_logits, context);
    if (r->n_logprobs > BW_MAX_LOGPROBS)
        return bw_fail(err, BW_E_ARGUMENT, "logprobs: %d alternatives, at most %d are possible", r->n_logprobs,
                       BW_MAX_LOGPROBS);
    return check_sampling(&r->sampling, err);
}

bw_request bw_request_defaults(const bw_model *model)
{
    return (bw_request){ .max_tokens = -1, .sampling = bw_sampling_defaults_of(model, false, true),
                         .stop_tokens = model->config.sampling.eos, .n_stop_tokens = model->config.sampling.n_eos,
                         .draft = BW_DRAFT_AUTO, .n_logprobs = -1 };
}

static void upload_sampler(bw_engine *e, const bw_sequence *s, const bw_sampling *g)
{
    const bw_sampler sampler = { .temperature = g->temperature, .top_p = g->top_p, .min_p = g->min_p,
                                 .presence_penalty = g->presence_penalty, .frequency_penalty = g->frequency_penalty,
                                 .repetition_penalty = g->repetition_penalty, .top_k = g->top_k,
                                 .n_prompt = s->n_prompt, .seed = g->seed, .n_logprobs = s->n_logprobs,
                                 .any_row = s->n_draft_logits > 0 };
    e->backend->ops->upload(e->backend, e->seqs.samplers + s->slot, &sampler, sizeof sampler);
}

bw_status bw_engine_submit(bw_engine *e, const bw_request *r, bw_seq_id *id, bw_error *err)
{
    bw_status st = check_request(e, r, err);
    if (st)
        return st;
    bw_sequence *s = NULL;
    for (int i = 0; i < e->options.max_seqs && !s; i++)
        if (!e->sequences[i].id)
            s = &e->sequences[i];
    if (!s)
        return bw_fail(err, BW_E_BUSY, "engine: %d sequences are running, which is all it was made for",
                       e->options.max_seqs);
    int32_t *stops = bw_mem_alloc((size_t)r->n_stop_tokens * sizeof *stops, BW_MEM_MISC);
    if (!stops)
        return bw_fail_memory(err, "request", (size_t)r->n_stop_tokens * sizeof *stops);
    if (r->n_stop_tokens > 0)
        memcpy(stops, r->stop_tokens, (size_t)r->n_stop_tokens * sizeof *stops);

    const int room = e->options.context - r->n_prompt;
    *s = (bw_sequence){ .id = e->next_id++, .user = r->user, .pages = s->pages, .n_prompt = r->n_prompt,
                        .max_tokens = r->max_tokens < 0 || r->max_tokens > room ? room : r->max_tokens,
                        .stop_tokens = stops, .n_stop_tokens = r->n_stop_tokens,
                        .n_logprobs = r->n_logprobs < 0 ? -1 : r->n_logprobs, .prompt_logits = r->prompt_logits,
                        .prompt_logprobs = r->prompt_logprobs, .draft_logits = r->draft_logits,
                        .n_draft_logits = r->n_draft_logits, .force_drafts = r->force_drafts,
                        .force_arg = r->force_arg };
    s->usage.prompt_tokens = r->n_prompt;
    s->slot = bw_slots_take(e->slots);
    assert(s->slot >= 0); /* as many slots as entries */
    bw_draft_init(&s->policy, e->max_drafts > 0 ? r->draft : BW_DRAFT_OFF);
    upload_sampler(e, s, &r->sampling);
    bw_backend *be = e->backend;
    be->ops->upload(be, e->seqs.tokens + (size_t)s->slot * (size_t)e->seqs.context, r->prompt,
                    (size_t)r->n_prompt * sizeof *r->prompt);
    be->ops->zero(be, e->seqs.accepted + s->slot, sizeof *e->seqs.accepted);
    *id = s->id;
    return BW_OK;
}

bool bw_engine_cancel(bw_engine *e, bw_seq_id id)
{
    for (int i = 0; i < e->options.max_seqs; i++)
        if (id != 0 && e->sequences[i].id == id) {
            end_sequence(e, &e->sequences[i]);
            return true;
        }
    return false;
}

bool bw_engine_idle(const bw_engine *e)
{
    for (int i = 0; i < e->options.max_seqs; i++)
        if (e->sequences[i].id)
            return false;
    return true;
}

/* ---- after a step ---------------------------------------------------------------------------- */

static bool is_stop(const bw_sequence *s, int32_t token)
{
    for (int i = 0; i < s->n_stop_tokens; i++)
        if (s->stop_tokens[i] == token)
            return true;
    return false;
}

static void count_verify(bw_engine *e, bw_sequence *s, int n_drafts, int n_accepted)
{
    s->usage.draft_n = s->policy.request != BW_DRAFT_AUTO ? s->policy.request : n_drafts;
    if (n_drafts == 0)
        return;
    s->usage.verifies++;
    s->usage.drafted += n_drafts;
    for (int j = 0; j < n_accepted; j++)
        s->usage.accepted_by_position[j]++;
    bw_draft_learn(&s->policy, n_drafts, n_accepted);
    e->first_drafts++;
    e->first_accepted += n_accepted > 0;
    if (!e->warned_head && !s->force_drafts && e->first_drafts >= HEAD_TRIAL && e->first_accepted * 100 < e->first_drafts) {
        e->warned_head = true;
        bw_log(BW_LOG_WARNING, "%s: the MTP head is loaded, but %lld of %lld first drafts were accepted: its weights do "
               "not fit this model, or the text is far from what it was trained on; drafting costs time here",
               e->model->path, (long long)e->first_accepted, (long long)e->first_drafts);
    }
}

/* Alternatives of n tokens, from the operation's stride to the event's. */
static const bw_logprob *pack_top(bw_logprob *top, int n, int n_top)
{
    for (int i = 0; i < n; i++)
        memmove(top + (size_t)i * (size_t)n_top, top + (size_t)i * BW_MAX_LOGPROBS, (size_t)n_top * sizeof *top);
    return top;
}

/* The sampled tokens of span i up to the first that ends the sequence, as an event. */
static void settle_tokens(bw_engine *e, int i, bw_event *event)
{
    const bw_span *span = &e->host.spans[i];
    bw_sequence *s = e->host.owners[i];
    const int accepted = e->result.n_accepted[i];
    const int32_t *tokens = e->result.sampled + span->first_logit;
    if (!bw_sequence_in_prompt(s))
        count_verify(e, s, span->n_rows - 1, accepted);
    int n = 0;
    while (n <= accepted && event->finish == BW_FINISH_NONE) {
        if (s->n_generated >= s->max_tokens) { /* max_tokens 0 */
            event->finish = BW_FINISH_LENGTH;
            break;
        }
        s->n_generated++;
        if (is_stop(s, tokens[n++]))
            event->finish = BW_FINISH_STOP;
        else if (s->n_generated >= s->max_tokens)
            event->finish = BW_FINISH_LENGTH;
    }
    event->tokens = tokens;
    event->n_tokens = n;
    if (s->n_logprobs >= 0) {
        event->logprobs = e->result.logprobs + span->first_logit;
        event->top = pack_top(e->result.top + (size_t)span->first_logit * BW_MAX_LOGPROBS, n, s->n_logprobs);
        event->n_top = s->n_logprobs;
    }
    s->n_rows = span->first_pos + span->n_rows - span->n_logits + 1 + accepted;
    s->usage.generated_tokens = s->n_generated;
}

static void settle_span(bw_engine *e, int i, double seconds)
{
    const bw_span *span = &e->host.spans[i];
    bw_sequence *s = e->host.owners[i];
    if (bw_sequence_in_prompt(s)) {
        s->usage.prefill_s += seconds;
        s->usage.prefill_steps++;
    } else {
        s->usage.decode_s += seconds;
        s->usage.decode_steps++;
    }
    if (!span->sample) {
        s->n_rows += span->n_rows;
        return;
    }
    bw_event *event = &e->events[e->n_events];
    bw_usage *usage = &e->event_usage[e->n_events++];
    *event = (bw_event){ .id = s->id, .user = s->user, .usage = usage };
    settle_tokens(e, i, event);
    *usage = s->usage;
    s->n_drafts = 0;
    if (event->finish != BW_FINISH_NONE)
        end_sequence(e, s);
}

/* Log-probabilities of the prompt: row p scores the token at p + 1. */
static void settle_scores(bw_engine *e)
{
    for (int i = 0; i < e->host.n_scored; i++) {
        const bw_sequence *s = e->host.scored_owners[i];
        const int pos = e->host.scored_rows[i].pos;
        if (!s->prompt_logprobs)
            continue;
        if (pos == 0)
            s->prompt_logprobs[0] = 0;
        if (pos + 1 < s->n_prompt)
            s->prompt_logprobs[pos + 1] = e->result.scores[i];
    }
}

bw_status bw_engine_step(bw_engine *e, bw_error *err)
{
    e->n_events = e->next_event = 0;
    bw_status st = bw_step_plan(e, err);
    if (st || e->host.n_rows == 0)
        return st;
    const uint64_t start = bw_clock_ns();
    bw_step_run(e);
    const double seconds = (double)(bw_clock_ns() - start) * 1e-9;
    settle_scores(e);
    for (int i = 0; i < e->host.n_spans; i++)
        settle_span(e, i, seconds);
    /* The chains' drafts stand in the timelines of the sequences that go on. */
    for (int i = 0; i < e->host.n_chains; i++) {
        bw_sequence *s = e->host.owners[e->host.chain_spans[i]];
        if (s->id)
            s->n_drafts = e->host.chain_lengths[i];
    }
    return BW_OK;
}

bool bw_engine_event(bw_engine *e, bw_event *event)
{
    if (e->next_event >= e->n_events)
        return false;
    *event = e->events[e->next_event++];
    return true;
}
