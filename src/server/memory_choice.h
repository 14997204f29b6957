/* memory_choice.h - how much of the free memory a server gives to what: arithmetic alone.
 *
 * Asks nobody and takes nothing; what was chosen is said by the caller. Any thread. */
#ifndef BW_SERVER_MEMORY_CHOICE_H
#define BW_SERVER_MEMORY_CHOICE_H

#include "bellwether.h"

typedef struct bw_memory_wish {
    uint64_t available;       /* bytes the system could give; 0: unknown */
    uint64_t weights;         /* in mapped files: their pages count as available, yet must stay */
    uint64_t scratch;         /* whatever the number of sequences */
    uint64_t context_bytes;   /* pages of one full context */
    uint64_t sequence_bytes;  /* recurrent state of a sequence */
    uint64_t checkpoint_bytes; /* one saved state */
    int max_seqs;             /* wanted */
    bool seqs_given, kv_given, cache_given; /* not ours to choose */
    uint64_t kv_memory, cache_memory;       /* where given */
} bw_memory_wish;

typedef struct bw_memory_choice {
    int max_seqs;
    uint64_t kv_memory, cache_memory;
    uint64_t headroom; /* left to others */
} bw_memory_choice;

/* max_seqs is lowered, down to 1, until its state and one full context fit, unless it was given. The pool
 * holds at least one full context and at most max_seqs of them, also where more was given; the checkpoints
 * get up to a third of what is left, or nothing where
 * that is less than one. Whether even the least fits is for bw_engine_create to say. */
bw_memory_choice bw_memory_choose(const bw_memory_wish *wish);

#endif
