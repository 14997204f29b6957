/* slots.h - recurrent state of the Gated DeltaNet layers, one slot per running sequence.
 *
 * For each such layer a slot holds the state S [n_v_heads, d_k, d_v], stored in tiles of 16 value
 * columns [n_v_heads, ceil(d_v / 16), d_k, 16], the last inputs of the causal convolution
 * [conv_width - 1, conv_dim], and the inputs of draft rows nobody has accepted yet ("pending"), all
 * f32: see bw_gdn_state in ops.h. S never contains a row that may still be rejected; which pending rows were accepted stands in bw_sequences.accepted, and
 * the next step applies them.
 *
 * Per value head:  S <- g S;  d = beta (v - S^T k);  S <- S + k d^T;  y = S^T q
 * Source: Gated Delta Networks, arXiv:2412.06464; our notation: docs/model.md.
 * Threads: the engine thread only. */
#ifndef BW_CACHE_SLOTS_H
#define BW_CACHE_SLOTS_H

#include "ops/ops.h"

typedef struct bw_slots bw_slots;

/* Bytes bw_slots_create() takes from the backend: the number the memory plan counts. */
uint64_t bw_slots_bytes(const bw_gdn_shape *shape, int n_layers, int n_slots, int max_pending);

/* Allocates n_slots (>= 1) zeroed slots of n_layers layers, each able to keep max_pending (>= 0)
 * draft rows. Borrows backend until bw_slots_destroy().
 * BW_E_MEMORY: the backend has fewer than bw_slots_bytes() free. On failure *out is NULL. */
bw_status bw_slots_create(bw_slots **out, bw_backend *backend, const bw_gdn_shape *shape, int n_layers, int n_slots,
                          int max_pending, bw_error *err);
void bw_slots_destroy(bw_slots *slots); /* takes NULL */

/* A slot whose state is that before the first token, or -1 when all are in use. */
int bw_slots_take(bw_slots *slots);
void bw_slots_release(bw_slots *slots, int slot);
int bw_slots_free(const bw_slots *slots);

const bw_gdn_state *bw_slots_layers(const bw_slots *slots); /* [n_layers], lent */

/* Bytes of the stored state (S and window) of one slot, and copies of it to and from host memory,
 * layer by layer, after a sync. Pending rows are not in it: it is the state after all committed rows
 * only while bw_sequences.accepted of the slot is 0. */
uint64_t bw_slots_state_bytes(const bw_slots *slots);
void bw_slots_save(const bw_slots *slots, int slot, void *host);
void bw_slots_restore(bw_slots *slots, int slot, const void *host);

#endif
