/* crew.c - see crew.h. */
#include "bench/crew.h"

#include <assert.h>
#include <string.h>

#include "base/chance.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "engine/model_open.h"
#include "engine/simulate.h"

/* A step's spans with what the step before left pending, for the count of its bytes. */
typedef struct watch {
    bw_counted_span spans[BW_BENCH_MAX_SEQS];
    int32_t accepted[BW_BENCH_MAX_SEQS]; /* by slot, before the step */
    int32_t listed[BW_BENCH_MAX_SEQS];   /* by slot: tokens its drafts are chosen from beside the first ones */
} watch;

/* ---- counting -------------------------------------------------------------------------------- */

static void look_before(const bw_engine *e, watch *w)
{
    assert(e->seqs.n_slots <= BW_BENCH_MAX_SEQS);
    e->backend->ops->download(e->backend, w->accepted, e->seqs.accepted, (size_t)e->seqs.n_slots * sizeof *w->accepted);
    e->backend->ops->sync(e->backend);
}

static bw_step_cost count_step(const bw_engine *e, watch *w)
{
    const bw_step *step = &e->host;
    const bool lists = step->n_chains > 0 && e->draft_vocab.n_first > 0;
    memset(w->listed, 0, sizeof w->listed);
    if (lists)
        e->backend->ops->download(e->backend, w->listed, e->draft_vocab.n_ids,
                                  (size_t)e->seqs.n_slots * sizeof *w->listed);
    e->backend->ops->sync(e->backend);
    for (int i = 0; i < step->n_spans; i++) {
        const bw_span *span = &step->spans[i];
        w->spans[i] = (bw_counted_span){ .first_pos = span->first_pos, .n_rows = span->n_rows, .n_final = span->n_final,
                                      .n_logits = span->n_logits, .n_pending = w->accepted[span->slot],
                                      .n_listed = w->listed[span->slot] };
    }
    for (int i = 0; i < step->n_chains; i++)
        w->spans[step->chain_spans[i]].n_chain = step->chain_lengths[i];
    const bw_counted_step counted = { .spans = w->spans, .n_spans = step->n_spans, .mtp = step->mtp,
                                      .n_first = e->draft_vocab.n_first };
    return bw_step_cost_count(e->net, e->options.kv == BW_KV_F32 ? BW_CODEC_F32 : BW_CODEC_F16, &counted);
}

/* Tokens a verify of n drafts gives on average, when acceptance is imposed. */
static double expected_tokens(const bw_measure_options *o, int n)
{
    double tokens = 1;
    for (int j = 1; j <= n; j++)
        tokens += bw_simulate_share(o->accept, o->n_accept, j);
    return tokens;
}

static void count_drafts(const bw_engine *e, const bw_measure_options *o, bw_measured *slice)
{
    for (int i = 0; i < e->host.n_spans; i++) {
        const bw_span *span = &e->host.spans[i];
        const int n = span->n_rows - span->n_final;
        slice->n_spans++;
        slice->positions += span->first_pos;
        if (o->n_accept > 0)
            slice->expected += expected_tokens(o, n);
        if (n == 0)
            continue;
        slice->verifies++;
        slice->drafted += n;
        slice->accepted += e->result.n_accepted[i];
    }
}

/* ---- sequences ------------------------------------------------------------------------------- */

static int prompt_of(const bw_crew *c)
{
    return c->depth > c->warm ? c->depth - c->warm : 1;
}

int bw_crew_context(const bw_crew *c)
{
    return prompt_of(c) + c->room + 1;
}

/* Random tokens, always the same for a seed. The caller frees. */
static int32_t *random_prompt(const bw_engine *e, int n, uint64_t seed)
{
    int32_t *prompt = bw_mem_alloc((size_t)n * sizeof *prompt, BW_MEM_MISC);
    for (int i = 0; prompt && i < n; i++)
        prompt[i] = (int32_t)(bw_chance_mix(seed * 0x9E3779B97F4A7C15u + (uint64_t)i) % (uint64_t)e->n_tokens);
    return prompt;
}

static bw_status submit(bw_engine *e, int n_prompt, int max_tokens, int draft, uint64_t seed, bw_seq_id *id,
                        bw_error *err)
{
    int32_t *prompt = random_prompt(e, n_prompt, seed);
    if (!prompt)
        return bw_fail_memory(err, "prompt", (size_t)n_prompt * sizeof *prompt);
    bw_request request = bw_request_defaults(e->model);
    request.prompt = prompt;
    request.n_prompt = n_prompt;
    request.max_tokens = max_tokens;
    request.sampling = (bw_sampling){ .top_p = 1, .repetition_penalty = 1 }; /* greedy */
    request.n_stop_tokens = 0;
    request.draft = draft;
    request.no_cache = true;
    const bw_status st = bw_engine_submit(e, &request, id, err);
    bw_mem_free(prompt);
    return st;
}

static int index_of(const bw_crew *c, bw_seq_id id)
{
    for (int i = 0; i < c->n_seqs; i++)
        if (c->ids[i] == id)
            return i;
    return -1;
}

/* One step of the engine, timed, and the tokens it brought. */
static bw_status step(bw_crew *c, double *seconds, double *tokens, bw_error *err)
{
    bw_event event;
    const uint64_t start = bw_clock_ns();
    const bw_status st = bw_engine_step(c->engine, err);
    *seconds = (double)(bw_clock_ns() - start) * 1e-9;
    *tokens = 0;
    while (!st && bw_engine_event(c->engine, &event)) {
        const int i = index_of(c, event.id);
        *tokens += event.n_tokens;
        if (i >= 0)
            c->generated[i] += event.n_tokens;
        if (event.finish != BW_FINISH_NONE)
            return bw_fail(err, BW_E_INTERNAL, "bench: a sequence ended after %d tokens, which had room for %d",
                           i >= 0 ? c->generated[i] : 0, c->room);
    }
    return st;
}

static void end(bw_crew *c)
{
    for (int i = 0; c->started && i < c->n_seqs; i++)
        bw_engine_cancel(c->engine, c->ids[i]);
    c->started = false;
}

static int fewest(const bw_crew *c, int n)
{
    int least = c->generated[0];
    for (int i = 1; i < n; i++)
        least = c->generated[i] < least ? c->generated[i] : least;
    return least;
}

static int most(const bw_crew *c, int n)
{
    int most_yet = 0;
    for (int i = 0; i < n; i++)
        most_yet = c->generated[i] > most_yet ? c->generated[i] : most_yet;
    return most_yet;
}

/* Past its prompts, and each sequence warm; when some run far ahead, the others are warm enough. */
static bool is_warm(const bw_crew *c)
{
    const int least = fewest(c, c->n_seqs);
    return least > 0 && (least >= c->warm || most(c, c->n_seqs) >= 3 * c->warm);
}

static bw_status start(bw_crew *c, bw_error *err)
{
    bw_status st = BW_OK;
    double seconds, tokens;
    const int n_prompt = prompt_of(c);
    c->started = true;
    for (int i = 0; i < c->n_seqs; i++) {
        const bool simulate = c->simulate_depth && n_prompt > 1;
        c->ids[i] = 0;
        c->generated[i] = 0;
        if ((st = submit(c->engine, n_prompt, c->room, c->draft, c->seed + (uint64_t)i, &c->ids[i], err)))
            return st;
        if (simulate && (st = bw_simulate_depth(c->engine, c->ids[i], n_prompt - 1, err)))
            return st;
    }
    while (!st && !is_warm(c))
        st = step(c, &seconds, &tokens, err);
    return st;
}

static void pause(const bw_crew *c, int n, bool paused)
{
    for (int i = 0; i < n; i++)
        bw_engine_pause(c->engine, c->ids[i], paused);
}

/* ---- drafts that nobody made ----------------------------------------------------------------- */

/* Puts n random tokens behind the known one of every running sequence, as if the head had drafted them: the next
 * step verifies them. Random ones are rejected, so that the depth grows by one position a step whatever n is. */
static void force_drafts(bw_engine *e, int n, uint64_t seed)
{
    int32_t drafts[BW_MAX_DRAFTS];
    for (int i = 0; i < e->running.n; i++) {
        bw_sequence *s = e->running.items[i];
        if (s->paused)
            continue;
        for (int j = 0; j < n; j++)
            drafts[j] = (int32_t)(bw_chance_mix(seed + (uint64_t)(s->n_rows + j)) % (uint64_t)e->n_tokens);
        e->backend->ops->upload(e->backend, e->seqs.tokens + (size_t)s->slot * (size_t)e->seqs.context + s->n_rows + 1,
                                drafts, (size_t)n * sizeof *drafts);
        s->n_drafts = n;
    }
}

/* ---- slices ---------------------------------------------------------------------------------- */

/* Random drafts are not accepted, unless by chance. */
static int most_tokens_of_a_step(const bw_crew *c, const bw_measure_options *o)
{
    return 1 + (c->draft == BW_DRAFT_AUTO ? BW_MAX_DRAFTS : c->draft > o->n_forced ? c->draft : o->n_forced);
}

/* Started, its first n_seqs not paused, with room for so many tokens more. */
static bw_status ready(bw_crew *c, int n_seqs, int wanted, bw_error *err)
{
    assert(3 * c->warm + BW_MAX_DRAFTS + wanted < c->room);
    if (c->started && most(c, n_seqs) + wanted > c->room)
        end(c);
    if (c->started) {
        pause(c, n_seqs, false);
        return BW_OK;
    }
    const bw_status st = start(c, err);
    pause(c, c->n_seqs, true);
    pause(c, n_seqs, false);
    return st;
}

bw_status bw_crew_run(bw_crew *c, const bw_measure_options *o, bw_measured *slice, bw_error *err)
{
    /* the drafts after the last step want room too */
    bw_status st = ready(c, o->n_seqs, (o->n_warm + o->n_steps + 1) * most_tokens_of_a_step(c, o), err);
    watch w;
    *slice = (bw_measured){ .n_steps = o->n_steps };
    for (int i = 0; !st && i < o->n_warm + o->n_steps; i++) {
        double seconds, tokens;
        if (o->n_forced > 0)
            force_drafts(c->engine, o->n_forced, c->seed);
        look_before(c->engine, &w);
        st = step(c, &seconds, &tokens, err);
        if (st || i < o->n_warm)
            continue;
        const bw_step_cost cost = count_step(c->engine, &w);
        slice->seconds += seconds;
        slice->tokens += tokens;
        bw_step_cost_add(&slice->cost, &cost);
        count_drafts(c->engine, o, slice);
    }
    if (c->transient)
        end(c);
    else
        pause(c, o->n_seqs, true);
    return st;
}

bw_status bw_prompt_run(bw_engine *e, int n, uint64_t seed, bw_measured *slice, bw_error *err)
{
    bw_seq_id id;
    bw_event event;
    watch w;
    bw_status st = submit(e, n, 1, BW_DRAFT_OFF, seed, &id, err);
    *slice = (bw_measured){ .n_steps = 1, .tokens = n };
    while (!st && !bw_engine_idle(e)) {
        look_before(e, &w);
        const uint64_t begin = bw_clock_ns();
        st = bw_engine_step(e, err);
        slice->seconds += (double)(bw_clock_ns() - begin) * 1e-9;
        const bw_step_cost cost = count_step(e, &w);
        bw_step_cost_add(&slice->cost, &cost);
        while (bw_engine_event(e, &event))
            continue;
    }
    return st;
}
