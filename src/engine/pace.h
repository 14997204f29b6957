/* pace.h - how many rows of prefill a step may take beside sequences that decode.
 *
 * Learns two times from the steps as they come: what a step without prefill takes, by how many rows
 * it decodes, and what a row of prefill adds. From these, the rows that keep the gap between a
 * sequence's tokens under its target:
 *
 *     gap = max(2 decode, decode + 64 row), at most `ceiling` where one is set
 *     rows = (gap - decode) / row, but never less than `least`
 *
 * Before anything was measured: `least`. Pure; one thread at a time. */
#ifndef BW_ENGINE_PACE_H
#define BW_ENGINE_PACE_H

#include "bellwether.h"

enum { BW_PACE_BUCKETS = 12 }; /* decode rows 1, 2, 3-4, 5-8, ... */

typedef struct bw_pace {
    double ceiling_s; /* of a step while sequences decode; 0: none */
    int least;        /* rows a step's prefill gets in any case */
    double decode_s[BW_PACE_BUCKETS]; /* 0: not measured */
    double row_s;                     /* 0: not measured */
} bw_pace;

void bw_pace_init(bw_pace *pace, double ceiling_s, int least);
void bw_pace_learn(bw_pace *pace, const bw_step_info *step);
/* decode_rows: known tokens and drafts of the sequences that decode, at least 1. */
int bw_pace_prefill_rows(const bw_pace *pace, int decode_rows);

#endif
