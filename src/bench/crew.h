/* crew.h - sequences that are kept at a depth, and slices of steps that are timed on them.
 *
 * A crew belongs to an engine that others may share; between its slices it is paused (or gone, when it is
 * transient), so that settings alternate without a prefill in between. When its room is used up it starts
 * again at its depth. What a step moved is counted from the engine's own tables after it. One thread. */
#ifndef BW_BENCH_CREW_H
#define BW_BENCH_CREW_H

#include "bench/bench.h"
#include "bench/step_cost.h"

typedef struct bw_crew {
    bw_engine *engine; /* borrowed */
    int n_seqs, depth;
    int draft;         /* of its requests */
    int room;          /* tokens a sequence may generate before it starts again */
    bool simulate_depth;
    int warm;          /* tokens each sequence generates first, not timed; it starts so much before its depth */
    bool transient;    /* ends after each slice, so that each is at the same depth */
    bool started;
    uint64_t seed;     /* of its prompts */
    bw_seq_id ids[BW_BENCH_MAX_SEQS];
    int generated[BW_BENCH_MAX_SEQS];
} bw_crew;

/* What a slice did; sums over its steps. */
typedef struct bw_measured {
    int n_steps;
    double seconds;
    double tokens;   /* generated */
    double expected; /* what the imposed acceptance makes of the drafts these steps had, on average */
    double verifies, drafted, accepted;
    double n_spans, positions; /* of its sequences in all steps; the sum of the positions they were at */
    bw_step_cost cost;
} bw_measured;

typedef struct bw_measure_options {
    int n_seqs;  /* the first n of the crew take part */
    int n_warm;  /* steps before those that are timed */
    int n_steps;
    int n_forced; /* drafts that nobody made are verified in each step; the crew itself drafts none */
    const double *accept; /* [n_accept] imposed on the engine, for `expected` */
    int n_accept;
} bw_measure_options;

/* Tokens a sequence of a crew wants of the context, its depth included. */
int bw_crew_context(const bw_crew *crew);
bw_status bw_crew_run(bw_crew *crew, const bw_measure_options *options, bw_measured *slice, bw_error *err);

/* A prompt of n rows from its first step to the token after it, alone in the engine. */
bw_status bw_prompt_run(bw_engine *engine, int n, uint64_t seed, bw_measured *slice, bw_error *err);

#endif
