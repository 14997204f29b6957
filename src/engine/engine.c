/* engine.c - sequences come in, steps are computed, events go out.
 *
 * One thread at a time. The only allocation after bw_engine_create is a request's list of stop
 * tokens, in bw_engine_submit. */
#include "engine/engine.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/model_open.h"

enum { HEAD_TRIAL = 64 }; /* first drafts after which a head that was never right is reported */

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
    if (r->n_stop_tokens < 0 || (r->n_stop_tokens > 0 && !r->stop_tokens))
        return bw_fail(err, BW_E_ARGUMENT, "stop tokens: %d of them %s, expected a list", r->n_stop_tokens,
                       r->stop_tokens ? "given" : "at no address");
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

bw_status bw_engine_check(const bw_engine *e, const bw_request *r, bw_error *err)
{
    return check_request(e, r, err);
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
    s->usage.draft_n = e->max_drafts > 0 && r->draft > 0 ? r->draft : 0;
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

void bw_sequence_end(bw_engine *e, bw_sequence *s)
{
    for (int i = 0; i < s->n_pages; i++)
        bw_pages_release(e->pages, s->pages[i]);
    bw_slots_release(e->slots, s->slot);
    bw_mem_free(s->stop_tokens);
    *s = (bw_sequence){ .pages = s->pages }; /* the array stays with the entry */
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
    for (int i = 0; i < e->options.max_seqs; i++)
        if (id != 0 && e->sequences[i].id == id) {
            bw_sequence_end(e, &e->sequences[i]);
            drop_events(e, id);
            return true;
        }
    return false;
}

bool bw_engine_pause(bw_engine *e, bw_seq_id id, bool paused)
{
    for (int i = 0; i < e->options.max_seqs; i++)
        if (id != 0 && e->sequences[i].id == id) {
            e->sequences[i].paused = paused;
            return true;
        }
    return false;
}

bool bw_engine_idle(const bw_engine *e)
{
    for (int i = 0; i < e->options.max_seqs; i++)
        if (e->sequences[i].id && !e->sequences[i].paused)
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
    stats->page_tokens = BW_PAGE;
    stats->slots = e->options.max_seqs;
    for (int i = 0; i < e->options.max_seqs; i++)
        if (e->sequences[i].id) {
            stats->running++;
            stats->pages_running += e->sequences[i].n_pages;
        }
    stats->slots_running = stats->running;
    stats->pages = stats->pages_running + bw_pages_free(e->pages);
}

int bw_engine_list(const bw_engine *e, bw_seq_info *out, int room)
{
    int n = 0;
    for (int i = 0; i < e->options.max_seqs && n < room; i++) {
        const bw_sequence *s = &e->sequences[i];
        if (s->id)
            out[n++] = (bw_seq_info){ .id = s->id, .user = s->user, .usage = s->usage, .draft_length = s->n_drafts,
                                      .n_prefilled = s->n_rows < s->n_prompt ? s->n_rows : s->n_prompt,
                                      .state = s->paused                  ? BW_SEQ_PAUSED
                                               : bw_sequence_in_prompt(s) ? BW_SEQ_PREFILL
                                                                          : BW_SEQ_DECODE };
    }
    return n;
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
    if (n_drafts == 0)
        return;
    s->usage.draft_n = n_drafts > s->usage.draft_n ? n_drafts : s->usage.draft_n;
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
        bw_sequence_end(e, s);
}

static bw_status damaged_weights(const bw_engine *e, int position, bw_error *err)
{
    return bw_fail(err, BW_E_FORMAT, "%s: the logits after position %d are not all finite numbers: weights are damaged (or "
                   "overflow); compare the files' sha256 with the published ones", e->model->path, position);
}

/* Whether every row whose token would be used was made of numbers. */
static bw_status check_span(bw_engine *e, int i, bw_error *err)
{
    const bw_span *span = &e->host.spans[i];
    for (int j = 0; span->sample && j <= e->result.n_accepted[i]; j++)
        if (e->result.damaged[span->first_logit + j])
            return damaged_weights(e, e->host.logit_rows[span->first_logit + j].pos, err);
    return BW_OK;
}

/* Log-probabilities of the prompt: row p scores the token at p + 1. */
static bw_status settle_scores(bw_engine *e, bw_error *err)
{
    bw_status st = BW_OK;
    for (int i = 0; i < e->host.n_scored; i++) {
        const bw_sequence *s = e->host.scored_owners[i];
        const int pos = e->host.scored_rows[i].pos;
        if (pos + 1 < s->n_prompt && !isfinite(e->result.scores[i]) && !st)
            st = damaged_weights(e, pos, err);
        if (s->prompt_logprobs && pos == 0)
            s->prompt_logprobs[0] = 0;
        if (s->prompt_logprobs && pos + 1 < s->n_prompt)
            s->prompt_logprobs[pos + 1] = e->result.scores[i];
    }
    return st;
}

bw_status bw_engine_step(bw_engine *e, bw_error *err)
{
    e->n_events = e->next_event = 0;
    e->last_step = (bw_step_info){ 0 };
    bw_status st = bw_step_plan(e, err);
    if (st || e->host.n_rows == 0)
        return st;
    const uint64_t start = bw_clock_ns();
    bw_step_run(e);
    const double seconds = (double)(bw_clock_ns() - start) * 1e-9;
    e->last_step.seconds = seconds;
    e->last_step.rows = e->host.n_rows;
    e->stats.steps++;
    st = settle_scores(e, err);
    for (int i = 0; i < e->host.n_spans; i++) {
        const bw_status damaged = check_span(e, i, err);
        if (damaged) {
            bw_sequence_end(e, e->host.owners[i]);
            st = damaged;
        } else {
            settle_span(e, i, seconds);
        }
    }
    /* The chains' drafts stand in the timelines of the sequences that go on. */
    for (int i = 0; i < e->host.n_chains; i++) {
        bw_sequence *s = e->host.owners[e->host.chain_spans[i]];
        if (s->id)
            s->n_drafts = s->n_wanted;
    }
    return st;
}

bool bw_engine_event(bw_engine *e, bw_event *event)
{
    if (e->next_event >= e->n_events)
        return false;
    *event = e->events[e->next_event++];
    return true;
}
