/* step_cost.h - what a step must move and multiply, from the model's shapes alone: the one place where it is counted.
 *
 * Bytes: every matrix once per operation that multiplies with it, as large as its type makes it; the rows of the
 * embedding; keys and values of the positions before a span, read, and of its rows, written; recurrent state and
 * convolution window, read and written; pending rows. Of experts, those that n independent rows choose on average. Of
 * the listed tokens of a draft, the rows of the head: of a packed head, the panel of 16 rows that each stands in.
 * Not counted, because they stay in the caches or are small: activations, norms, logits.
 * Multiply-adds: int8 where a matrix rounds its activations, f32 otherwise and in attention (2 head_dim per row,
 * query head and position), delta rule (3 per value of the state and row) and convolution. Pure; any thread. */
#ifndef BW_BENCH_STEP_COST_H
#define BW_BENCH_STEP_COST_H

#include "model/net.h"

typedef struct bw_step_cost {
    double bytes, int8_macs, f32_macs;
} bw_step_cost;

typedef struct bw_counted_span {
    int first_pos, n_rows, n_final, n_logits; /* as in bw_span */
    int n_pending; /* pending rows of its sequence that the last verification accepted */
    int n_chain;   /* drafts the head makes after it */
    int n_listed;  /* tokens beside the first ones that its drafts are chosen from */
} bw_counted_span;

typedef struct bw_counted_step {
    const bw_counted_span *spans;
    int n_spans;
    bool mtp; /* the head's keys and values are kept */
    int n_first; /* drafts are chosen from the ids below this and from lists; 0: from all */
} bw_counted_step;

bw_step_cost bw_step_cost_count(const bw_net *net, bw_kv_codec codec, const bw_counted_step *step);
/* Of the matrices of a plain step of one row: bytes by their type. */
void bw_step_cost_by_type(const bw_net *net, double bytes[BW_DTYPE_COUNT]);
/* On average, of n_rows rows that choose n_used of n_experts each, as if by chance. */
double bw_step_cost_experts(int n_experts, int n_used, double n_rows);

/* Seconds that the limits alone allow: the longer of moving and multiplying. Limits per second, above 0. */
double bw_step_cost_seconds(const bw_step_cost *cost, double bytes, double int8_macs, double f32_macs);

static inline void bw_step_cost_add(bw_step_cost *sum, const bw_step_cost *cost)
{
    sum->bytes += cost->bytes;
    sum->int8_macs += cost->int8_macs;
    sum->f32_macs += cost->f32_macs;
}

#endif
