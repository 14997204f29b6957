/* sequence.h - one timeline: what the engine thread knows of a request, waiting or running.
 *
 * Say P is the last position whose row is committed; then n_rows = P + 1, the token at P + 1 is known
 * (the prompt's, or sampled), and drafts may stand at P + 2 and on. A running sequence's timeline, drafts
 * included, stands in backend memory (bw_sequences.tokens); `tokens` here are the known ones, from which
 * a sequence that gave its memory away is computed again. */
#ifndef BW_ENGINE_SEQUENCE_H
#define BW_ENGINE_SEQUENCE_H

#include "engine/draft.h"
#include "ops/ops.h"

typedef struct bw_sequence {
    bw_seq_id id; /* 0: this entry is free. Ascending with age */
    void *user;
    int slot;     /* recurrent slot, and row of every per-slot table; -1: it waits */
    bool paused;
    uint64_t submitted_ns;
    bool started; /* it has run before; then queue time and cache use are settled */

    int n_prompt, n_generated, max_tokens;
    int n_prefill; /* tokens to compute before the first sample: the prompt, after a preemption all known */
    int n_rows;    /* positions 0 .. n_rows - 1 are committed in KV and state */
    int n_drafts;  /* drafts in the timeline after the token at position n_rows */
    int n_wanted;  /* of those that this step will draft, how many the next one verifies */
    int age;       /* steps its prefill was left out of */

    /* While it waits because another computes what it could begin with: */
    const struct bw_sequence *behind; /* whom; NULL: nobody */
    bw_seq_id behind_id;              /* `behind` was; another one now, if it has another id */
    int behind_shared;                /* tokens that both begin with, less than n_prefill */

    int *pages; /* [max_pages] page ids held, position order; of its slot. NULL: it waits */
    int n_pages;
    int resume_at;   /* the head's row at resume_at - 1 is to be made from the saved hidden row; 0: no */
    int hidden_row;  /* where the hidden row of position n_rows - 1 lies after step number hidden_step */
    int64_t hidden_step;

    void *lists;     /* what the pointers below point into */
    int32_t *tokens; /* [n_prompt + max_tokens + 1] known ones */
    int32_t *stop_tokens;
    int n_stop_tokens;
    int *marks;
    int n_marks;
    int fork_at;   /* where its prompt leaves one that the cache knows without a state there; 0: nowhere */
    bw_sampler sampler;
    bw_logit_bias *biases; /* [sampler.n_biases] */
    bw_draft_policy policy;
    int n_logprobs;
    uint64_t cache_salt;
    bool loop_guard;
    int min_tokens; /* the guard, too, waits for them */
    bool cached; /* reads and writes the prefix cache */
    int simulated_depth; /* it starts as though so many rows had been computed; 0: no (simulate.h) */
    int priority;
    bw_usage usage;

    /* what the step being planned computes of it */
    int plan_rows, plan_chain;

    /* evaluation, borrowed from the request */
    float *prompt_logits, *prompt_logprobs, *draft_logits;
    bw_logprob *prompt_top;
    int n_draft_logits;
    void (*force_drafts)(void *arg, int64_t position, int32_t *drafts, int n);
    void *force_arg;
} bw_sequence;

static inline int bw_sequence_known(const bw_sequence *s)
{
    return s->n_prompt + s->n_generated;
}

static inline bool bw_sequence_in_prompt(const bw_sequence *s)
{
    return s->n_rows < s->n_prefill;
}

/* Takes a checked request into a free entry, copying what it points to; it waits. room: tokens of the
 * context. BW_E_MEMORY: the entry stays free. */
bw_status bw_sequence_open(bw_sequence *s, const bw_request *request, bw_seq_id id, int room, int max_drafts,
                           bw_error *err);
/* Frees what open took; the entry is free. Pages and slot must be gone. */
void bw_sequence_close(bw_sequence *s);

#endif
