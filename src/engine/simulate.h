/* simulate.h - what a measurement imposes on an engine instead of computing it: how many drafts are accepted,
 * and a context that was never prefilled. For src/bench and tests alone (test_layering.c keeps it so): text
 * that comes of it means nothing, and everything counted from it is marked (bw_usage.simulated,
 * bw_step_info.simulated).
 *
 * Threads: those of the engine. */
#ifndef BW_ENGINE_SIMULATE_H
#define BW_ENGINE_SIMULATE_H

#include "bellwether.h"

/* From now on the number of accepted drafts of every verify is drawn: shares[j] is the share of verifies in which
 * drafts 1 to j + 1 are all accepted, 1 >= shares[0] >= shares[1] >= ... >= 0. Past the last one the shares
 * go on geometrically, by the last ratio. The draw is a function of seed, the sequence's number and the
 * position. Accepted drafts stand in the answer as if they had been sampled; after them comes what was
 * sampled. Everything behind it (usage, policy of the draft length, caches) sees acceptance as it always does.
 * n_shares 0: no more, drafts are compared again. BW_E_ARGUMENT: no such shares. */
bw_status bw_simulate_accept(bw_engine *engine, const double *shares, int n_shares, uint64_t seed, bw_error *err);

/* The sequence, submitted and not yet started, will start as though its first `depth` prompt tokens had been
 * prefilled (1 <= depth < n_prompt): its pages hold random keys and values, its recurrent state is random
 * and small. It never touches the prefix cache. The rest of its prompt, one token at least, is computed.
 * BW_E_ARGUMENT: no such sequence, it has started, it wants something of its prompt's rows, or no such depth.
 * BW_E_MEMORY: no room for what pages are filled from (once per engine). */
bw_status bw_simulate_depth(bw_engine *engine, bw_seq_id id, int depth, bw_error *err);

/* The share of verifies that accept drafts 1 to n (n >= 1), of n_shares >= 1 shares that go on as above: what a run
 * should show. */
double bw_simulate_share(const double *shares, int n_shares, int n);

#endif
