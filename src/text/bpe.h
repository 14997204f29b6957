/* bpe.h - byte-pair merges by rank: a run of bytes becomes token ids.
 *
 * Read-only once built: any thread, each with its own bw_bpe_work. Part of the tokenizer. */
#ifndef BW_TEXT_BPE_H
#define BW_TEXT_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct bw_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: empty */
    int32_t rank, result;
} bw_merge;

typedef struct bw_merges {
    bw_merge *slots; /* open addressing */
    uint64_t mask;
} bw_merges;

bw_status bw_merges_init(bw_merges *merges, size_t n_merges, bw_error *err);
void bw_merges_fini(bw_merges *merges); /* takes a zeroed one */
/* Lower ranks merge first. Returns the rank that the pair already had, or -1 when it is new. */
int32_t bw_merges_put(bw_merges *merges, int32_t left, int32_t right, int32_t rank, int32_t result);

/* Scratch of one caller, grown as pieces need it. */
typedef struct bw_bpe_work {
    void *block;
    size_t bytes;
} bw_bpe_work;

void bw_bpe_work_fini(bw_bpe_work *work);

/* Bytes to ids: starts from byte_ids and merges the pair of lowest rank, leftmost first, until none
 * is left. ids has room for n. Returns the number of ids through n_ids. BW_E_MEMORY only. */
bw_status bw_bpe_apply(const bw_merges *merges, const int32_t byte_ids[256], const char *bytes, size_t n,
                       bw_bpe_work *work, int32_t *ids, size_t *n_ids, bw_error *err);

#endif
