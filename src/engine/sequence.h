/* sequence.h - one timeline: what the engine thread knows of a running request.
 *
 * The tokens themselves live in backend memory (bw_sequences.tokens); here are only counts. Say P is
 * the last position whose row is committed; then n_rows = P + 1, the token at P + 1 is known (the
 * prompt's, or sampled), and drafts may stand at P + 2 and on. */
#ifndef BW_ENGINE_SEQUENCE_H
#define BW_ENGINE_SEQUENCE_H

#include "engine/draft.h"
#include "ops/ops.h"

typedef struct bw_sequence {
    bw_seq_id id; /* 0: this entry is free */
    void *user;
    bool paused;
    int slot; /* recurrent slot, and row of every per-slot table */

    int n_prompt, n_generated, max_tokens;
    int n_rows;   /* positions 0 .. n_rows - 1 are committed in KV and state */
    int n_drafts; /* drafts in the timeline after the token at position n_rows */
    int n_wanted; /* of those that this step will draft, how many the next one verifies */

    int *pages; /* [max_pages] page ids held, position order */
    int n_pages;

    int32_t *stop_tokens;
    int n_stop_tokens;
    bw_draft_policy policy;
    int n_logprobs;
    bw_usage usage;

    /* evaluation, borrowed from the request */
    float *prompt_logits, *prompt_logprobs, *draft_logits;
    int n_draft_logits;
    void (*force_drafts)(void *arg, int64_t position, int32_t *drafts, int n);
    void *force_arg;
} bw_sequence;

static inline bool bw_sequence_in_prompt(const bw_sequence *s)
{
    return s->n_rows < s->n_prompt;
}

#endif
