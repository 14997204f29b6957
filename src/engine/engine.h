/* engine.h - the engine inside: what bw_engine holds, and the acts of a step.
 *
 * schedule (scheduler.c): who runs, how many rows each gets, who must give way
 * plan (batch.c):         the tables of these rows, on the host
 * run  (step.c):          the program over backend memory, no host read before its end
 * settle (settle.c):      sequences advance, events are made, states are saved for the prefix cache
 * engine.c takes requests and answers questions; resume.c stands between sequences and the prefix
 * cache; engine_memory.c plans, takes and frees what they all work on.
 * One thread at a time. After bw_engine_create no step allocates. */
#ifndef BW_ENGINE_ENGINE_H
#define BW_ENGINE_ENGINE_H

#include "cache/pages.h"
#include "cache/prefix_tree.h"
#include "cache/slots.h"
#include "engine/draft.h"
#include "engine/draft_list.h"
#include "engine/loop_guard.h"
#include "engine/pace.h"
#include "engine/sequence_list.h"
#include "model/forward.h"

/* Logits are made for so many rows at a time, beside one of each sequence: a row of them is a megabyte. */
enum { BW_LOGITS_BLOCK = 64 };

/* The tables of one step: on the host while it is planned, then copied to backend memory. */
typedef struct bw_step {
    int n_rows, n_spans;
    int n_logits; /* rows that are sampled */
    int n_scored; /* prompt rows that only evaluation wants */
    int n_chains; /* spans that draft afterwards, longest chain first */
    bool mtp;     /* the head's cache is kept in this step */
    int longest_chain;
    bool logprobs; /* some row wants them */
    int n_resumed; /* sequences whose row before the first is to be redone in the head */

    bw_row *rows;           /* [max_rows] */
    bw_span *spans;         /* [max_spans] */
    int32_t *logit_index;   /* [max_samples] batch row of each sampled row */
    bw_row *logit_rows;     /* [max_samples] */
    int32_t *scored_index;  /* [max_rows] */
    bw_row *scored_rows;    /* [max_rows] */
    int32_t *chain_spans;   /* [max_spans] */
    bw_row *resumed_rows;   /* [max_spans] the row before the first of a resumed sequence */
    int32_t *resumed_slots; /* [max_spans] */
    bw_span *flush_spans;   /* [max_spans] of no rows */
    /* host only */
    bw_sequence **owners;   /* [max_spans] */
    int *chain_lengths;     /* [max_spans] drafts wanted, for chain_spans[i] */
    int *marks;             /* [max_spans] the position at which the span's sequence wants its state saved */
    bw_sequence **scored_owners; /* [max_rows] */
} bw_step;

/* What a step leaves, in backend memory and, after the sync, on the host. */
typedef struct bw_results {
    int32_t *sampled;    /* [max_samples]: every sequence's known token and most drafts */
    float *logprobs;     /* [max_samples] */
    bw_logprob *top;     /* [max_samples, BW_MAX_LOGPROBS] */
    int32_t *n_accepted; /* [max_spans] */
    int32_t *damaged;    /* [max_samples] 1: the row was not finite */
    float *scores;       /* [max_rows] */
    bw_logprob *score_top; /* [max_rows, BW_MAX_LOGPROBS] */
} bw_results;

typedef struct bw_simulation bw_simulation;

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
    int n_pages;
    bw_slots *slots;
    bw_prefix_tree *tree; /* NULL: no prefix cache */
    int n_checkpoints;    /* that memory holds */
    bw_pace pace;
    bw_draft_planner planner;
    bw_draft_ask *asks;  /* [max_seqs] scratch of the scheduler */
    bw_draft_times times; /* of the step that runs: its chains */
    bw_sequences seqs; /* backend memory */
    bw_activations_buf buf;
    bw_draft_vocab draft_vocab; /* n_first 0: drafts are chosen from all tokens */
    bw_draft_list *draft_lists; /* [max_seqs] by slot: its lists, on the host */
    int32_t added[16]; /* tokens that stand in every list */
    int n_added;
    bw_step host, device;       /* device: only its arrays are used */
    bw_results result, device_result;
    int32_t *draft_index;       /* backend [max_spans] */
    bw_row *draft_rows;         /* backend [max_spans] */
    int32_t *draft_sampled;     /* backend [max_spans] */
    float *resumed_hidden;      /* backend [max_seqs, H] by slot: the saved row of a resumed sequence */

    bw_sequence *sequences; /* [n_sequences] waiting and running */
    int n_sequences;        /* max_seqs + max_waiting */
    bw_sequence_list live;    /* all entries that are not free */
    bw_sequence_list running; /* those with a slot, paused ones too */
    bw_sequence_list waiting; /* the others, by priority */
    bw_sequence **order;    /* [max_seqs] scratch of the scheduler: those that run and are not paused, oldest first */
    int n_order;
    bw_sequence **queue;    /* [n_sequences] scratch of the scheduler */
    bw_loop_guard *guards;  /* [max_seqs] by slot, of sequences that asked for one */
    int *page_arrays;       /* [max_seqs, max_pages] by slot: what a running sequence's pages point into */
    bw_seq_id next_id;
    bw_event *events; /* [max_seqs] of the last step */
    bw_usage *event_usage;
    bw_error *event_errors;
    int n_events, next_event;
    int64_t first_drafts, first_accepted; /* over the engine's life: is the head any good? */
    bool warned_head;
    bw_step_info last_step;
    bw_engine_stats stats; /* the counters; gauges are counted when asked */
    bw_simulation *simulation; /* NULL, but in a measurement that imposes something: simulate.h */
};

/* engine.c: gives back pages and slot, if it has any, and frees the entry. */
void bw_sequence_end(bw_engine *e, bw_sequence *s);

/* scheduler.c: starts what waits, shares the rows of a step, holds the pages for them; those that run
 * are then e->order [e->n_order] with plan_rows and plan_chain set. May preempt. */
void bw_schedule(bw_engine *e);
/* scheduler.c: s, which runs, gives its pages and slot back and waits. */
void bw_schedule_leave(bw_engine *e, bw_sequence *s);

/* batch.c: fills e->host from e->order. */
void bw_step_plan(bw_engine *e);

/* step.c: runs e->host and brings e->result. */
void bw_step_run(bw_engine *e);
/* step.c: applies the accepted pending rows of these slots to their states, and nothing else. */
void bw_step_flush(bw_engine *e, const int *slots, int n_slots);

/* settle.c: after bw_step_run. BW_E_FORMAT: see bw_engine_step. */
bw_status bw_step_settle(bw_engine *e, double seconds, bw_error *err);

/* resume.c: the longest beginning of s that the prefix cache has: shares its pages, restores its state.
 * s has a slot and page array, and a free page; sets n_rows, n_pages, resume_at, and at its first
 * start what the usage says of the cache. */
void bw_resume(bw_engine *e, bw_sequence *s);
/* simulate.c: draws how many drafts are accepted, where that is imposed, for the spans of e->host; before they run. */
void bw_simulate_plan(bw_engine *e);
/* simulate.c: for bw_accept_args, in backend memory; NULL: nothing is imposed. */
const int32_t *bw_simulate_imposed(const bw_engine *e);
/* simulate.c: s, which is about to start, gets its pages and state filled up to its simulated depth. */
void bw_simulate_fill(bw_engine *e, bw_sequence *s);
void bw_simulate_destroy(bw_engine *e);

/* resume.c: looks only. */
bw_prefix_match bw_resume_look(bw_engine *e, const bw_sequence *s);
/* resume.c: the next position at which the prefill of s ends a span because its state is to be saved;
 * n_prefill when there is none. */
int bw_resume_next_mark(const bw_engine *e, const bw_sequence *s);
/* resume.c: saves s at n_rows. Its pending rows are applied and its last row was in the last step. */
void bw_resume_save(bw_engine *e, const bw_sequence *s);

#endif
