/* draft.h - how many tokens to draft next, for every sequence of a step.
 *
 * Of all ways to share drafts among the sequences, the one with the most expected tokens per second of the step:
 *
 *     tokens = sum over sequences of 1 + reach(1) + ... + reach(n),   reach(j) = accept(1) ... accept(j)
 *     time   = verify(sequences, drafts) + sum over j of head(chains longer than j)          (timing.h)
 *
 * Drafts are added in the order of their reach, and of all prefixes of that order the best is taken: 0 when none
 * pays. accept(j), the share of verifies in which draft j was accepted when all before it were, is a sequence's
 * own, over its last MEMORY verifies, or fewer when the last eight say something else; it begins with what the
 * engine saw of others, and that with a guess.
 *
 * What is not done is not learned, so now and then another length than the best is taken: from 0 a probe, ever more
 * rarely while it fails; otherwise a longer, a shorter and no draft, where the last time lies far back. What
 * each is expected to lose is paid from a credit that grows by EXPLORE of the time of all steps.
 *
 * Decides only how much work is speculative; it can never change a token. Pure: no clock; one thread at a time. */
#ifndef BW_ENGINE_DRAFT_H
#define BW_ENGINE_DRAFT_H

#include "bellwether.h"
#include "engine/timing.h"

/* Accepted and tried, for each place in a chain, given that all before it were accepted; old ones fade. */
typedef struct bw_draft_record {
    float hits[BW_MAX_DRAFTS], tries[BW_MAX_DRAFTS];
} bw_draft_record;

/* One sequence. */
typedef struct bw_draft_policy {
    int request; /* BW_DRAFT_AUTO, 0, or a fixed number */
    bw_draft_record record;
    int idle, wait; /* steps without drafts so far; until one is tried again */
    unsigned recent;      /* the last first drafts, a bit each: 1 accepted */
    bool probing, probed; /* the drafts planned last are a probe; those that are verified now were one */
} bw_draft_policy;

/* The engine. */
typedef struct bw_draft_planner {
    bw_timing timing;
    bw_draft_record record; /* of all sequences */
    double credit_s;        /* for exploring */
    bool credited;          /* the first step gave it a start */
    int turn;               /* which other length is tried next */
} bw_draft_planner;

/* A sequence of the step that is planned. */
typedef struct bw_draft_ask {
    bw_draft_policy *policy;
    int depth; /* of its context */
    int most;  /* drafts that have room, 0 .. BW_MAX_DRAFTS */
    int n;     /* out: to draft; a fixed request gets exactly its number, or `most` */
    float reach[BW_MAX_DRAFTS]; /* scratch */
} bw_draft_ask;

void bw_draft_init(bw_draft_policy *policy, int request);
void bw_draft_planner_init(bw_draft_planner *planner);

/* Fills asks[].n. budget: drafts that a step has room for, those of fixed requests included. */
void bw_draft_plan(bw_draft_planner *planner, bw_draft_ask *asks, int n_asks, int budget);

/* A verify of n drafts accepted the first n_accepted. */
void bw_draft_learn(bw_draft_planner *planner, bw_draft_policy *policy, int n, int n_accepted);

/* What a step took: verify_s without its chains, and each run of the head. */
typedef struct bw_draft_times {
    bool pure;    /* no prefill in it: verify_s says what decoding takes */
    int n_seqs, depth, n_drafts; /* that decoded; their mean depth; drafts verified */
    double verify_s;
    int n_runs, chains[BW_MAX_DRAFTS];
    double run_s[BW_MAX_DRAFTS];
} bw_draft_times;
void bw_draft_learn_times(bw_draft_planner *planner, const bw_draft_times *times);

#endif
