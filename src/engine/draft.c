/* draft.c - expected tokens of a verify against its expected cost. */
#include "engine/draft.h"

/* Prior acceptance: what real heads reach at the first position (docs/model.md). */
static const float prior = 0.8f;
/* Smoothing: about the last 16 verifies count. */
static const float rate = 1.0f / 16;
/* Cost of one more draft, as a share of a plain step: its row in the verify and its run of the head. A guess
 * until step times are measured. */
static const float cost_of_draft = 0.2f;
enum { LONGEST_AUTO = 4, PROBE_EVERY = 32 };

void bw_draft_init(bw_draft_policy *policy, int request)
{
    *policy = (bw_draft_policy){ .request = request };
    for (int j = 0; j < BW_MAX_DRAFTS; j++)
        policy->accept[j] = prior;
}

void bw_draft_learn(bw_draft_policy *policy, int n, int n_accepted)
{
    for (int j = 0; j < n && j <= n_accepted; j++) /* positions past the first rejection were not tried */
        policy->accept[j] += rate * ((j < n_accepted ? 1.0f : 0.0f) - policy->accept[j]);
}

int bw_draft_choose(bw_draft_policy *policy)
{
    if (policy->request != BW_DRAFT_AUTO)
        return policy->request;
    int best = 0;
    float best_rate = 1, reached = 1, tokens = 1;
    for (int n = 1; n <= LONGEST_AUTO; n++) {
        reached *= policy->accept[n - 1];
        tokens += reached;
        float per_cost = tokens / (1 + cost_of_draft * (float)n);
        if (per_cost > best_rate) {
            best_rate = per_cost;
            best = n;
        }
    }
    if (best == 0 && ++policy->idle_steps < PROBE_EVERY)
        return 0;
    policy->idle_steps = 0;
    return best > 0 ? best : 1;
}
