/* draft.c - expected tokens of a verify against its expected cost. */
#include "engine/draft.h"

/* Prior acceptance: users of the family report 0.75 to 0.9 at the first position; it weighs as much
 * as PRIOR_WEIGHT verifies, and about the last MEMORY verifies count. */
static const float prior = 0.8f;
/* Cost of one more draft, as a share of a plain step: its row in the verify and its run of the head,
 * whose output matrix is most of it. A guess until step times are measured. */
static const float cost_of_draft = 0.25f;
enum { PRIOR_WEIGHT = 2, MEMORY = 16, LONGEST_AUTO = 4, FIRST_PROBE = 16, LAST_PROBE = 256 };

void bw_draft_init(bw_draft_policy *policy, int request)
{
    *policy = (bw_draft_policy){ .request = request };
    for (int j = 0; j < BW_MAX_DRAFTS; j++)
        policy->accept[j] = prior;
    policy->probe_after = FIRST_PROBE;
}

void bw_draft_learn(bw_draft_policy *policy, int n, int n_accepted)
{
    for (int j = 0; j < n && j <= n_accepted; j++) { /* positions past the first rejection were not tried */
        if (policy->tried[j] < MEMORY - PRIOR_WEIGHT)
            policy->tried[j]++;
        const float rate = 1.0f / (float)(policy->tried[j] + PRIOR_WEIGHT);
        policy->accept[j] += rate * ((j < n_accepted ? 1.0f : 0.0f) - policy->accept[j]);
    }
    if (n_accepted > 0)
        policy->probe_after = FIRST_PROBE;
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
    if (best > 0)
        return best;
    if (++policy->idle_steps < policy->probe_after)
        return 0;
    policy->idle_steps = 0; /* one draft, to see; again in twice as many steps if it is rejected */
    if (policy->probe_after < LAST_PROBE)
        policy->probe_after *= 2;
    return 1;
}
