/* weight_source.h - brings the matrices of a checkpoint from the disk, a window ahead of their placing: those that are
 * copied always, those that stay in the files where memory has room for them; and says what was wrong where that
 * fails. Runs on the caller's thread and one that reads. */
#ifndef BW_ENGINE_WEIGHT_SOURCE_H
#define BW_ENGINE_WEIGHT_SOURCE_H

#include "format/checkpoint.h"
#include "model/net.h"

typedef struct bw_weight_source {
    const bw_checkpoint *checkpoint;
    uint64_t available;   /* memory that is free before the copies are made; 0: nothing says */
    bool only_copied;     /* what stays in the files is not wanted */
    bw_readahead *reader; /* between begin and end, if there is anything to read */
    uint64_t bytes;       /* of the matrices that it reads */
    double wait_s;        /* that placing waited for the disk */
} bw_weight_source;

/* For bw_net_create; both must outlive it. Its need: BW_E_IO, part of a file cannot be read. */
bw_net_source bw_weight_source_of(bw_weight_source *source);
void bw_weight_source_end(bw_weight_source *source); /* reading ends; the figures stay */

#endif
