/* engine.h - the engine inside: what bw_engine holds, and the three acts of a step.
 *
 * plan (batch.c):   which rows of which sequences, host tables only
 * run  (step.c):    the program over backend memory, no host read before its end
 * settle (engine.c): sequences advance, events are made
 * engine_memory.c plans, takes and frees what they work on.
 * One thread at a time. After bw_engine_create nothing allocates. */
#ifndef BW_ENGINE_ENGINE_H
#define BW_ENGINE_ENGINE_H

#include "cache/pages.h"
#include "cache/slots.h"
#include "engine/sequence.h"
#include "model/forward.h"

/* The tables of one step: on the host while it is planned, then copied to backend memory. */
typedef struct bw_step {
    int n_rows, n_spans;
    int n_logits; /* rows that are sampled */
    int n_scored; /* prompt rows that only evaluation wants */
    int n_chains; /* spans that draft afterwards, longest chain first */
    bool mtp;     /* the head's cache is kept in this step */
    int longest_chain;
    bool logprobs; /* some row wants them */

    bw_row *rows;           /* [max_rows] */
    bw_span *spans;         /* [max_spans] */
    int32_t *logit_index;   /* [max_logits] batch row of each sampled row */
    bw_row *logit_rows;     /* [max_logits] */
    int32_t *scored_index;  /* [max_rows] */
    bw_row *scored_rows;    /* [max_rows] */
    int32_t *chain_spans;   /* [max_spans] */
    /* host only */
    bw_sequence **owners;   /* [max_spans] */
    int *chain_lengths;     /* [max_spans] drafts wanted, for chain_spans[i] */
    bw_sequence **scored_owners; /* [max_rows] */
} bw_step;

/* What a step leaves, in backend memory and, after the sync, on the host. */
typedef struct bw_results {
    int32_t *sampled;    /* [max_logits] */
    float *logprobs;     /* [max_logits] */
    bw_logprob *top;     /* [max_logits, BW_MAX_LOGPROBS] */
    int32_t *n_accepted; /* [max_spans] */
    int32_t *damaged;    /* [max_logits] 1: the row was not finite */
    float *scores;       /* [max_rows] */
} bw_results;

struct bw_engine {
    bw_model *model;
    const bw_net *net;
    int n_tokens; /* ids below are tokens, but for the holes */
    int32_t *holes; /* backend [n_holes] */
    int n_holes;
    bw_backend *backend;
    bw_engine_options options; /* as resolved */
    bw_memory_plan plan;
    bw_op_limits limits;
    int max_drafts; /* 0: the head has no cache here */

    bw_pages *pages;
    bw_slots *slots;
    bw_sequences seqs; /* backend memory */
    bw_activations_buf buf;
    bw_step host, device;       /* device: only its arrays are used */
    bw_results result, device_result;
    int32_t *draft_index;       /* backend [max_spans] */
    bw_row *draft_rows;         /* backend [max_spans] */
    int32_t *draft_sampled;     /* backend [max_spans] */

    bw_sequence *sequences; /* [max_seqs] */
    int *page_arrays;       /* [max_seqs, max_pages] what sequences[i].pages point into */
    bw_seq_id next_id;
    bw_event *events; /* [max_seqs] of the last step */
    bw_usage *event_usage;
    int n_events, next_event;
    int64_t first_drafts, first_accepted; /* over the engine's life: is the head any good? */
    bool warned_head;
    bw_step_info last_step;
    bw_engine_stats stats; /* the counters; gauges are counted when asked */
};

/* engine.c: gives back pages, slot and stop tokens; the entry is free. */
void bw_sequence_end(bw_engine *e, bw_sequence *s);
/* batch.c: fills e->host. Takes the pages the rows need. */
bw_status bw_step_plan(bw_engine *e, bw_error *err);
/* step.c: runs e->host and brings e->result. */
void bw_step_run(bw_engine *e);

#endif
