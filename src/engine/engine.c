/* engine.c - requests come in, steps are computed, events go out.
 *
 * One thread at a time. The only allocation after bw_engine_create is a request's copy, in
 * bw_engine_submit. */
#include "engine/engine.h"

#include "base/clock.h"
#include "engine/model_open.h"
#include "engine/sampler.h"

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

bw_status bw_engine_check(const bw_engine *e, const bw_request *r, bw_error *err)
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
    if (r->n_stop_tokens < 0 || (r->n_stop_tokens > 0 && !r->stop_tokens))
        return bw_fail(err, BW_E_ARGUMENT, "stop tokens: %d of them %s, expected a list", r->n_stop_tokens,
                       r->stop_tokens ? "given" : "at no address");
    if (r->n_logprobs > BW_MAX_LOGPROBS)
        return bw_fail(err, BW_E_ARGUMENT, "logprobs: %d alternatives, at most %d are possible", r->n_logprobs,
                       BW_MAX_LOGPROBS);
    if (r->n_marks < 0 || (r->n_marks > 0 && !r->marks))
        return bw_fail(err, BW_E_ARGUMENT, "marks: %d of them %s, expected a list", r->n_marks,
                       r->marks ? "given" : "at no address");
    for (int i = 0; i < r->n_marks; i++)
        if (r->marks[i] <= (i > 0 ? r->marks[i - 1] : 0) || r->marks[i] >= r->n_prompt)
            return bw_fail(err, BW_E_ARGUMENT, "marks: position %d at place %d, expected ascending ones from 1 to %d",
                           r->marks[i], i, r->n_prompt - 1);
    const bw_status st = bw_sampler_check(r, e->limits.vocab, err);
    return st ? st : check_sampling(&r->sampling, err);
}

bw_request bw_request_defaults(const bw_model *model)
{
    return (bw_request){ .max_tokens = -1, .sampling = bw_sampling_defaults_of(model, false, true),
                         .stop_tokens = model->config.sampling.eos, .n_stop_tokens = model->config.sampling.n_eos,
                         .draft = BW_DRAFT_AUTO, .n_logprobs = -1, .think_budget = -1 };
}

bw_status bw_engine_submit(bw_engine *e, const bw_request *r, bw_seq_id *id, bw_error *err)
{
    bw_status st = bw_engine_check(e, r, err);
    if (st)
        return st;
    bw_sequence *s = NULL;
    for (int i = 0; i < e->n_sequences && !s; i++)
        if (!e->sequences[i].id)
            s = &e->sequences[i];
    if (!s)
        return bw_fail(err, BW_E_BUSY, "engine: %d sequences run or wait, which is all it was made for", e->n_sequences);
    if ((st = bw_sequence_open(s, r, e->next_id, e->options.context, e->max_drafts, err)))
        return st;
    *id = e->next_id++;
    bw_sequence_list_add(&e->live, s);
    bw_sequence_list_add(&e->waiting, s);
    return BW_OK;
}

void bw_sequence_end(bw_engine *e, bw_sequence *s)
{
    if (s->slot >= 0)
        bw_schedule_leave(e, s);
    bw_sequence_list_remove(&e->waiting, s);
    bw_sequence_list_remove(&e->live, s);
    bw_sequence_close(s);
}

static bw_sequence *find(const bw_engine *e, bw_seq_id id)
{
    for (int i = 0; i < e->live.n; i++)
        if (e->live.items[i]->id == id)
            return e->live.items[i];
    return NULL;
}

/* Those nobody has taken yet. */
static void drop_events(bw_engine *e, bw_seq_id id)
{
    int kept = e->next_event;
    for (int i = e->next_event; i < e->n_events; i++)
        if (e->events[i].id != id)
            e->events[kept++] = e->events[i];
    e->n_events = kept;
}

bool bw_engine_cancel(bw_engine *e, bw_seq_id id)
{
    bw_sequence *s = find(e, id);
    if (!s)
        return false;
    bw_sequence_end(e, s);
    drop_events(e, id);
    return true;
}

bool bw_engine_pause(bw_engine *e, bw_seq_id id, bool paused)
{
    bw_sequence *s = find(e, id);
    if (!s)
        return false;
    s->paused = paused;
    s->n_drafts = 0; /* the drafts of a step are shared among those that run in it */
    return true;
}

bool bw_engine_idle(const bw_engine *e)
{
    for (int i = 0; i < e->live.n; i++)
        if (!e->live.items[i]->paused)
            return false;
    return true;
}

/* ---- looking at it --------------------------------------------------------------------------- */

const bw_step_info *bw_engine_get_step(const bw_engine *e)
{
    return &e->last_step;
}

void bw_engine_get_stats(const bw_engine *e, bw_engine_stats *stats)
{
    *stats = e->stats;
    stats->running = e->running.n;
    stats->waiting = e->waiting.n;
    for (int i = 0; i < e->waiting.n; i++)
        stats->waiting_tokens += e->waiting.items[i]->n_prompt;
    stats->page_tokens = BW_PAGE;
    stats->slots = e->options.max_seqs;
    stats->slots_running = stats->running;
    stats->pages = e->n_pages;
    bw_prefix_tree_stats tree = { 0 };
    if (e->tree)
        bw_prefix_tree_get_stats(e->tree, &tree);
    stats->pages_cached = tree.pages_alone;
    stats->pages_running = e->n_pages - bw_pages_free(e->pages) - tree.pages_alone;
    stats->cache_nodes = tree.nodes;
    stats->checkpoints = tree.checkpoints;
    stats->checkpoint_bytes = tree.state_bytes_used;
    stats->cache_memory = tree.memory;
    stats->evictions = tree.evictions;
}

static bw_seq_info describe(const bw_sequence *s)
{
    return (bw_seq_info){ .id = s->id, .user = s->user, .usage = s->usage, .draft_length = s->n_drafts,
                          .n_prefilled = s->n_rows < s->n_prompt ? s->n_rows : s->n_prompt,
                          .state = s->paused                  ? BW_SEQ_PAUSED
                                   : s->slot < 0              ? BW_SEQ_WAITING
                                   : bw_sequence_in_prompt(s) ? BW_SEQ_PREFILL
                                                              : BW_SEQ_DECODE };
}

int bw_engine_list(const bw_engine *e, bw_seq_info *out, int room)
{
    int n = 0;
    for (; n < e->live.n && n < room; n++)
        out[n] = describe(e->live.items[n]);
    return n;
}

/* ---- a step ---------------------------------------------------------------------------------- */

bw_status bw_engine_step(bw_engine *e, bw_error *err)
{
    e->n_events = e->next_event = 0;
    e->last_step = (bw_step_info){ 0 };
    bw_schedule(e);
    bw_step_plan(e);
    if (e->host.n_rows == 0)
        return BW_OK;
    const uint64_t start = bw_clock_ns();
    bw_step_run(e);
    return bw_step_settle(e, (double)(bw_clock_ns() - start) * 1e-9, err);
}

bool bw_engine_event(bw_engine *e, bw_event *event)
{
    if (e->next_event >= e->n_events)
        return false;
    *event = e->events[e->next_event++];
    return true;
}
