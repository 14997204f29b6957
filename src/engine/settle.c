/* settle.c - after a step: sequences advance, tokens become events, what ended leaves, states are saved.
 *
 * Reads the step's results on the host and nothing else of the backend; saving a state copies it out.
 * Engine thread only. */
#include "engine/engine.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "engine/model_open.h"

enum { HEAD_TRIAL = 64 }; /* first drafts after which a head that was never right is reported */

/* ---- tokens ---------------------------------------------------------------------------------- */

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
    e->stats.verifies++;
    e->stats.drafted += n_drafts;
    for (int j = 0; j < n_accepted; j++) {
        s->usage.accepted_by_position[j]++;
        e->stats.accepted_by_position[j]++;
    }
    bw_draft_learn(&e->planner, &s->policy, n_drafts, n_accepted);
    e->first_drafts++;
    e->first_accepted += n_accepted > 0;
    if (!e->warned_head && !s->force_drafts && !s->usage.simulated && e->first_drafts >= HEAD_TRIAL &&
        e->first_accepted * 100 < e->first_drafts) {
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

/* The sampled tokens of span i up to the first that ends the sequence, as an event. The rows of tokens past that
 * one are not committed. */
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
        s->tokens[bw_sequence_known(s)] = tokens[n];
        s->n_generated++;
        const bool loops = s->loop_guard && bw_loop_guard_push(&e->guards[s->slot], tokens[n]);
        if (is_stop(s, tokens[n++]))
            event->finish = BW_FINISH_STOP;
        else if (loops && s->n_generated >= s->min_tokens)
            event->finish = BW_FINISH_LOOP;
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
    const int used = n > 0 ? n - 1 : 0, first = span->n_rows - span->n_logits;
    s->n_rows = span->first_pos + first + 1 + used;
    s->hidden_row = span->first_row + first + used;
    if (used < accepted) {
        const int32_t kept = used;
        e->backend->ops->upload(e->backend, e->seqs.accepted + s->slot, &kept, sizeof kept);
    }
    s->usage.generated_tokens = s->n_generated;
    e->stats.generated_tokens += n;
}

static bw_event *add_event(bw_engine *e, bw_sequence *s)
{
    bw_event *event = &e->events[e->n_events];
    *event = (bw_event){ .id = s->id, .user = s->user, .usage = &e->event_usage[e->n_events] };
    e->n_events++;
    return event;
}

static bw_finish settle_span(bw_engine *e, int i, double seconds)
{
    const bw_span *span = &e->host.spans[i];
    bw_sequence *s = e->host.owners[i];
    s->hidden_step = e->stats.steps;
    if (bw_sequence_in_prompt(s)) {
        s->usage.prefill_s += seconds;
        s->usage.prefill_steps++;
    } else {
        s->usage.decode_s += seconds;
        s->usage.decode_steps++;
    }
    if (!span->sample) {
        s->n_rows += span->n_rows;
        s->hidden_row = span->first_row + span->n_rows - 1;
        if (s->n_rows < s->n_prefill && s->n_rows == e->host.marks[i])
            bw_resume_save(e, s);
        return BW_FINISH_NONE;
    }
    bw_event *event = add_event(e, s);
    settle_tokens(e, i, event);
    e->event_usage[event - e->events] = s->usage;
    s->n_drafts = 0;
    return event->finish;
}

/* ---- damage ---------------------------------------------------------------------------------- */

static bw_status damaged_weights(const bw_engine *e, int position, bw_error *err)
{
    return bw_fail(err, BW_E_FORMAT, "%s: the logits after position %d are not all finite numbers: weights are damaged (or "
                   "overflow); compare the files' sha256 with the published ones", e->model->path, position);
}

/* Whether every row whose token or score would be used was made of numbers. */
static bw_status check_span(bw_engine *e, int i, bw_error *err)
{
    const bw_span *span = &e->host.spans[i];
    for (int j = 0; span->sample && j <= e->result.n_accepted[i]; j++)
        if (e->result.damaged[span->first_logit + j])
            return damaged_weights(e, e->host.logit_rows[span->first_logit + j].pos, err);
    for (int j = 0; j < e->host.n_scored; j++)
        if (e->host.scored_owners[j] == e->host.owners[i] && !isfinite(e->result.scores[j]) &&
            e->host.scored_rows[j].pos + 1 < e->host.owners[i]->n_prompt)
            return damaged_weights(e, e->host.scored_rows[j].pos, err);
    return BW_OK;
}

/* Log-probabilities of the prompt: row p scores the token at p + 1. */
static void settle_scores(bw_engine *e)
{
    for (int i = 0; i < e->host.n_scored; i++) {
        const bw_sequence *s = e->host.scored_owners[i];
        const int pos = e->host.scored_rows[i].pos;
        if (s->prompt_logprobs && pos == 0)
            s->prompt_logprobs[0] = 0;
        if (pos + 1 >= s->n_prompt)
            continue;
        if (s->prompt_logprobs)
            s->prompt_logprobs[pos + 1] = e->result.scores[i];
        if (s->prompt_top && s->n_logprobs > 0)
            memcpy(s->prompt_top + (size_t)(pos + 1) * (size_t)s->n_logprobs,
                   e->result.score_top + (size_t)i * BW_MAX_LOGPROBS, (size_t)s->n_logprobs * sizeof *s->prompt_top);
    }
}

/* Ends the sequence with an event that says why. */
static void end_damaged(bw_engine *e, bw_sequence *s, const bw_error *why)
{
    bw_event *event = add_event(e, s);
    bw_error *kept = &e->event_errors[event - e->events];
    *kept = *why;
    event->finish = BW_FINISH_ERROR;
    event->error = kept->message;
    e->event_usage[event - e->events] = s->usage;
    bw_sequence_end(e, s);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Those that finished, e->queue [n]: their accepted rows go into their states, the states into the cache. */
static void end_finished(bw_engine *e, int n)
{
    for (int i = 0; e->tree && i < n; i++)
        if (e->queue[i]->cached)
            bw_step_flush(e, &e->queue[i]->slot, 1);
    for (int i = 0; i < n; i++) {
        bw_resume_save(e, e->queue[i]);
        bw_sequence_end(e, e->queue[i]);
    }
}

/* What the step took, for the next decisions: its chains were timed as they ran. */
static void learn_times(bw_engine *e, double seconds)
{
    bw_draft_times *t = &e->times;
    int64_t depths = 0;
    for (int i = 0; i < e->host.n_spans; i++)
        depths += e->host.spans[i].first_pos;
    t->pure = e->last_step.prefill_rows == 0;
    t->n_seqs = e->last_step.decode_rows;
    t->n_drafts = e->last_step.draft_rows;
    t->depth = (int)(depths / e->host.n_spans);
    t->verify_s = seconds;
    for (int i = 0; i < t->n_runs; i++)
        t->verify_s -= t->run_s[i];
    bw_pace_learn(&e->pace, &e->last_step);
    bw_draft_learn_times(&e->planner, t);
}

bw_status bw_step_settle(bw_engine *e, double seconds, bw_error *err)
{
    e->last_step.seconds = seconds;
    e->stats.steps++;
    learn_times(e, seconds);
    settle_scores(e);
    bw_status st = BW_OK;
    int n_finished = 0;
    for (int i = 0; i < e->host.n_spans; i++) {
        bw_error why;
        if (check_span(e, i, &why)) {
            end_damaged(e, e->host.owners[i], &why);
            if (err)
                *err = why;
            st = BW_E_FORMAT;
        } else if (settle_span(e, i, seconds) != BW_FINISH_NONE) {
            e->queue[n_finished++] = e->host.owners[i];
        }
    }
    /* The chains' drafts stand in the timelines of the sequences that go on. */
    for (int i = 0; i < e->host.n_chains; i++) {
        bw_sequence *s = e->host.owners[e->host.chain_spans[i]];
        if (s->id)
            s->n_drafts = s->n_wanted;
    }
    end_finished(e, n_finished);
    return st;
}
