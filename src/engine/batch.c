/* batch.c - the tables of a step: decode and verify rows of all running sequences first, then prefill.
 *
 * Host tables only, from what the scheduler gave each sequence; no tensor is touched. */
#include "engine/engine.h"

#include <assert.h>

static bw_span *add_span(bw_step *step, bw_sequence *s, int n_rows, int n_final)
{
    bw_span *span = &step->spans[step->n_spans];
    step->owners[step->n_spans++] = s;
    *span = (bw_span){ .slot = s->slot, .first_row = step->n_rows, .n_rows = n_rows, .n_final = n_final,
                       .first_pos = s->n_rows, .first_logit = step->n_logits };
    for (int i = 0; i < n_rows; i++)
        step->rows[step->n_rows++] = (bw_row){ s->slot, s->n_rows + i };
    return span;
}

/* The last n rows of the span are sampled. */
static void want_samples(bw_step *step, bw_span *span, int n)
{
    span->sample = 1;
    span->n_logits = n;
    for (int i = 0; i < n; i++) {
        int row = span->first_row + span->n_rows - n + i;
        step->logit_index[step->n_logits] = row;
        step->logit_rows[step->n_logits++] = step->rows[row];
    }
}

/* A chain of drafts, kept longest first so that the spans of the j-th draft are a prefix. */
static void want_drafts(bw_step *step, const bw_span *span, int length)
{
    if (length <= 0)
        return;
    int at = step->n_chains++;
    for (; at > 0 && step->chain_lengths[at - 1] < length; at--) {
        step->chain_spans[at] = step->chain_spans[at - 1];
        step->chain_lengths[at] = step->chain_lengths[at - 1];
    }
    step->chain_spans[at] = (int32_t)(span - step->spans);
    step->chain_lengths[at] = length;
    step->longest_chain = step->chain_lengths[0];
}

/* Brings the slot's list of tokens that may be drafted up to the known ones. */
static void list_tokens(bw_engine *e, const bw_sequence *s)
{
    bw_backend *be = e->backend;
    bw_draft_list *list = &e->draft_lists[s->slot];
    if (s->plan_chain == 0 || e->draft_vocab.n_first == 0)
        return;
    bw_draft_list_read(list, s->tokens, bw_sequence_known(s));
    if (!list->changed)
        return;
    const int32_t now = list->n;
    be->ops->upload(be, e->draft_vocab.ids + (size_t)s->slot * (size_t)e->draft_vocab.room, list->ids,
                    (size_t)now * sizeof *list->ids);
    be->ops->upload(be, e->draft_vocab.n_ids + s->slot, &now, sizeof now);
    list->changed = false;
}

/* Rows of the prompt: after a preemption the span may go on with rows of the answer. */
static void want_scores(bw_step *step, const bw_span *span, bw_sequence *s)
{
    for (int i = 0; i < span->n_rows && span->first_pos + i < s->n_prompt; i++) {
        step->scored_index[step->n_scored] = span->first_row + i;
        step->scored_rows[step->n_scored] = step->rows[span->first_row + i];
        step->scored_owners[step->n_scored++] = s;
    }
}

/* Other drafts than the head's, for tests. */
static void force_drafts(bw_engine *e, bw_sequence *s)
{
    bw_backend *be = e->backend;
    int32_t *at = e->seqs.tokens + (size_t)s->slot * (size_t)e->seqs.context + s->n_rows + 1;
    int32_t host[BW_MAX_DRAFTS];
    be->ops->download(be, host, at, (size_t)s->n_drafts * sizeof *host);
    be->ops->sync(be);
    s->force_drafts(s->force_arg, s->n_rows + 1, host, s->n_drafts);
    be->ops->upload(be, at, host, (size_t)s->n_drafts * sizeof *host);
}

/* [the known token, its drafts] */
static void plan_decode(bw_engine *e, bw_sequence *s)
{
    if (s->n_drafts > 0 && s->force_drafts)
        force_drafts(e, s);
    bw_span *span = add_span(&e->host, s, s->plan_rows, 1);
    want_samples(&e->host, span, s->plan_rows);
    want_drafts(&e->host, span, s->plan_chain);
    list_tokens(e, s);
}

/* A chunk of what is known. The first after a resumption redoes the head's row before it. */
static void plan_prefill(bw_engine *e, bw_sequence *s)
{
    bw_step *step = &e->host;
    if (s->resume_at > 0) {
        assert(s->resume_at == s->n_rows);
        step->resumed_slots[step->n_resumed] = s->slot;
        step->resumed_rows[step->n_resumed++] = (bw_row){ s->slot, s->resume_at - 1 };
        s->resume_at = 0;
    }
    step->marks[step->n_spans] = bw_resume_next_mark(e, s);
    bw_span *span = add_span(step, s, s->plan_rows, s->plan_rows);
    if (s->n_rows + s->plan_rows == s->n_prefill) {
        want_samples(step, span, 1);
        want_drafts(step, span, s->plan_chain);
        list_tokens(e, s);
    }
    if (s->prompt_logits || s->prompt_logprobs || s->prompt_top)
        want_scores(step, span, s);
}

/* Whether the head's cache must be kept in this step: for drafts, now or by whoever begins with a saved state. */
static bool wants_head(const bw_engine *e, const bw_sequence *s)
{
    return e->max_drafts > 0 &&
           (s->policy.request != BW_DRAFT_OFF || s->n_draft_logits > 0 || (e->tree && s->cached));
}

static void count_rows(bw_step_info *info, const bw_sequence *s)
{
    info->rows += s->plan_rows;
    info->simulated |= s->usage.simulated;
    if (bw_sequence_in_prompt(s)) {
        info->prefill_rows += s->plan_rows;
        info->n_prefill++;
    } else {
        info->decode_rows++;
        info->draft_rows += s->plan_rows - 1;
        info->n_decode++;
    }
}

void bw_step_plan(bw_engine *e)
{
    bw_step *step = &e->host;
    step->n_rows = step->n_spans = step->n_logits = step->n_scored = step->n_chains = step->longest_chain = 0;
    step->n_resumed = 0;
    step->mtp = step->logprobs = false;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < e->n_order; i++) {
            bw_sequence *s = e->order[i];
            if (s->plan_rows == 0 || bw_sequence_in_prompt(s) != (pass == 1))
                continue;
            step->mtp |= wants_head(e, s);
            step->logprobs |= s->n_logprobs >= 0;
            count_rows(&e->last_step, s);
            if (pass == 0)
                plan_decode(e, s);
            else
                plan_prefill(e, s);
        }
}
