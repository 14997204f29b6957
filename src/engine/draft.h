/* draft.h - how many tokens to draft next for one sequence.
 *
 * A simple rule for now: from the sequence's own acceptance per position and a fixed guess of what a
 * draft costs, the number with the most expected tokens per unit of time. It only decides how much
 * work is speculative; it can never change a token. */
#ifndef BW_ENGINE_DRAFT_H
#define BW_ENGINE_DRAFT_H

#include "bellwether.h"

typedef struct bw_draft_policy {
    int request;                       /* BW_DRAFT_AUTO, 0, or a fixed number */
    float accept[BW_MAX_DRAFTS];       /* [j]: P(draft j + 1 accepted | those before were), smoothed */
    int tried[BW_MAX_DRAFTS];          /* verifies behind accept[j], up to those that count */
    int idle_steps, probe_after;       /* steps without drafts so far; until one is tried again */
} bw_draft_policy;

void bw_draft_init(bw_draft_policy *policy, int request);
/* A verify of n drafts accepted the first n_accepted. */
void bw_draft_learn(bw_draft_policy *policy, int n, int n_accepted);
/* The number to draft next, 0 .. BW_MAX_DRAFTS. Counts the step. */
int bw_draft_choose(bw_draft_policy *policy);

#endif
