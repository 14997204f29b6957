/* batch.c - plans a step: decode and verify rows of all running sequences first, then prefill.
 *
 * Host tables only; no tensor is touched. */
#include "engine/engine.h"

#include <assert.h>

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* Pages for positions 0 .. n_positions - 1. New ids go to the page table in backend memory. */
static bw_status hold_pages(bw_engine *e, bw_sequence *s, int n_positions, bw_error *err)
{
    const int wanted = (n_positions + BW_PAGE - 1) / BW_PAGE, first = s->n_pages;
    assert(wanted <= e->seqs.max_pages);
    while (s->n_pages < wanted) {
        int page = bw_pages_take(e->pages);
        if (page < 0) /* the pool has pages for every sequence at full context */
            return bw_fail(err, BW_E_INTERNAL, "KV pages: none free at position %d of sequence %llu", n_positions,
                           (unsigned long long)s->id);
        s->pages[s->n_pages++] = page;
    }
    if (wanted > first)
        e->backend->ops->upload(e->backend, e->seqs.pages + (size_t)s->slot * (size_t)e->seqs.max_pages + first,
                                s->pages + first, (size_t)(wanted - first) * sizeof(int32_t));
    return BW_OK;
}

/* Drafts for the step after this one. However many of this step's rows are accepted, the next
 * verify fits the context; plan_decode() cuts it to the tokens that are still wanted then. */
static int chain_length(bw_engine *e, bw_sequence *s, const bw_span *span)
{
    if (e->max_drafts == 0)
        return 0;
    int n = bw_draft_choose(&s->policy);
    const int last_position = span->first_pos + span->n_rows; /* of the token sampled after full acceptance */
    n = smaller(n, e->options.context - 1 - last_position);
    n = smaller(n, s->max_tokens - (s->n_generated + 1) - 1);
    n = n > 0 ? smaller(n, e->max_drafts) : 0;
    s->n_wanted = n;
    if (bw_sequence_in_prompt(s) && n < s->n_draft_logits)
        n = s->n_draft_logits; /* evaluation; bw_engine_submit checked that they fit */
    return n;
}

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

static void want_scores(bw_step *step, const bw_span *span, bw_sequence *s)
{
    for (int i = 0; i < span->n_rows; i++) {
        step->scored_index[step->n_scored] = span->first_row + i;
        step->scored_rows[step->n_scored] = step->rows[span->first_row + i];
        step->scored_owners[step->n_scored++] = s;
    }
}

/* [the known token, its drafts] */
static bw_status plan_decode(bw_engine *e, bw_sequence *s, bw_error *err)
{
    bw_step *step = &e->host;
    int drafts = smaller(s->n_drafts, s->max_tokens - s->n_generated - 1);
    drafts = smaller(drafts, e->options.context - 1 - s->n_rows);
    drafts = drafts > 0 ? drafts : 0;
    if (drafts > 0 && s->force_drafts) {
        bw_backend *be = e->backend;
        int32_t *at = e->seqs.tokens + (size_t)s->slot * (size_t)e->seqs.context + s->n_rows + 1;
        int32_t host[BW_MAX_DRAFTS];
        be->ops->download(be, host, at, (size_t)drafts * sizeof *host);
        be->ops->sync(be);
        s->force_drafts(s->force_arg, s->n_rows + 1, host, drafts);
        be->ops->upload(be, at, host, (size_t)drafts * sizeof *host);
    }
    s->n_drafts = drafts;
    bw_span *span = add_span(step, s, 1 + drafts, 1);
    want_samples(step, span, 1 + drafts);
    int chain = chain_length(e, s, span);
    want_drafts(step, span, chain);
    return hold_pages(e, s, span->first_pos + span->n_rows + chain, err);
}

/* A chunk of prompt: to the next multiple of `chunk`, within the rows that are left. */
static bw_status plan_prefill(bw_engine *e, bw_sequence *s, bw_error *err)
{
    bw_step *step = &e->host;
    const int chunk = e->options.chunk, room = e->limits.max_rows - step->n_rows;
    int end = s->n_prompt;
    if (chunk > 0)
        end = smaller(end, (s->n_rows / chunk + 1) * chunk);
    end = smaller(end, s->n_rows + room);
    const int n = end - s->n_rows;
    if (n <= 0)
        return BW_OK;
    bw_span *span = add_span(step, s, n, n);
    int chain = 0;
    if (end == s->n_prompt) {
        want_samples(step, span, 1);
        chain = chain_length(e, s, span);
        want_drafts(step, span, chain);
    }
    if (s->prompt_logits || s->prompt_logprobs)
        want_scores(step, span, s);
    return hold_pages(e, s, end + chain, err);
}

bw_status bw_step_plan(bw_engine *e, bw_error *err)
{
    bw_step *step = &e->host;
    step->n_rows = step->n_spans = step->n_logits = step->n_scored = step->n_chains = step->longest_chain = 0;
    step->mtp = step->logprobs = false;
    bw_status st;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < e->options.max_seqs; i++) {
            bw_sequence *s = &e->sequences[i];
            if (!s->id || s->paused || bw_sequence_in_prompt(s) != (pass == 1))
                continue;
            st = pass == 0 ? plan_decode(e, s, err) : plan_prefill(e, s, err);
            if (st)
                return st;
        }
    for (int i = 0; i < step->n_spans; i++) {
        const bw_sequence *s = step->owners[i];
        step->mtp |= e->max_drafts > 0 && (s->policy.request != BW_DRAFT_OFF || s->n_draft_logits > 0);
        step->logprobs |= s->n_logprobs >= 0;
    }
    return BW_OK;
}
