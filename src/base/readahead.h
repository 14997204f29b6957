/* readahead.h - reads ranges of mapped files from the disk ahead of who works through them.
 *
 * One thread of its own asks the system for what comes next and maps what has come, at most a window
 * beyond what its user is done with: the disk stays busy, and no more of the files than the window has to
 * be in memory at a time. A range that cannot be read is found here, where it is an answer, instead of by the
 * user's touching it, where it is a signal (Linux 5.14 and later).
 *
 * Threads: every function from the user's one thread. */
#ifndef BW_BASE_READAHEAD_H
#define BW_BASE_READAHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct bw_readahead bw_readahead;

typedef struct bw_range {
    const void *data;
    uint64_t bytes;
} bw_range;

/* Begins to read ranges [n], copied, in their order; window: bytes. The mappings are borrowed until destroy.
 * BW_E_MEMORY, or BW_E_IO: the thread does not start. */
bw_status bw_readahead_create(bw_readahead **out, const bw_range *ranges, size_t n, uint64_t window, bw_error *err);
void bw_readahead_destroy(bw_readahead *ra); /* takes NULL; what is not read yet is not read */

/* Waits until ranges 0 .. i are in memory, also where they are larger than the window. False: one of them
 * cannot be read, and *failed is what could not. */
bool bw_readahead_wait(bw_readahead *ra, size_t i, bw_range *failed);

/* The user is done with ranges 0 .. i: the window begins after them. */
void bw_readahead_done(bw_readahead *ra, size_t i);

#endif
