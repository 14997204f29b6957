/* sampler.h - what a request says about how its tokens are chosen, checked and as the operation wants it.
 *
 * Biases, the earliest stop and the thinking budget become numbers of a bw_sampler; its settings are
 * copied as they are. No state, any thread. Rules: docs/sampling.md. */
#ifndef BW_ENGINE_SAMPLER_H
#define BW_ENGINE_SAMPLER_H

#include "ops/ops.h"

/* logit_bias, min_tokens and the thinking budget; vocab: ids are below. n_prompt and the stop tokens
 * have been checked. BW_E_ARGUMENT names the field and what it may be. */
bw_status bw_sampler_check(const bw_request *request, int vocab, bw_error *err);

/* Of a request that was checked. The biases themselves are the caller's to place: n_biases of them
 * belong into the slot's row of bw_sequences.biases. */
bw_sampler bw_sampler_of(const bw_request *request);

#endif
