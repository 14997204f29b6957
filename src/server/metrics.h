/* metrics.h - counters, gauges and histograms of a server, rendered in Prometheus' text format.
 *
 * Names and edges: section 11 of the contract (docs/server.md): vLLM's names, and our own with the
 * prefix bellwether_. Cardinality is fixed at creation; no label ever holds client text.
 * Threads: the loop's thread only, so rendering never stops the engine: what it shows of the engine
 * was handed to it after each step. */
#ifndef BW_SERVER_METRICS_H
#define BW_SERVER_METRICS_H

#include "bellwether.h"

typedef struct bw_metrics bw_metrics;

typedef struct bw_metrics_options {
    const char *model_name;   /* served id */
    const char *backend, *quantization;
    int context, max_seqs;
    const char *kv_type;      /* cache_dtype: "f16" */
    bool prefix_cache;
    bool legacy;              /* --metrics-legacy */
    const char *const *handlers; /* [n_handlers] names of the routes */
    int n_handlers;
    double load_s;
    const bw_memory_plan *plan;  /* copied */
} bw_metrics_options;

/* Strings are copied. BW_E_MEMORY. */
bw_status bw_metrics_create(bw_metrics **out, const bw_metrics_options *options, bw_error *err);
void bw_metrics_destroy(bw_metrics *metrics); /* takes NULL */

typedef enum bw_outcome { BW_OUTCOME_STOP, BW_OUTCOME_LENGTH, BW_OUTCOME_ABORT, BW_OUTCOME_ERROR } bw_outcome;

/* A sequence has ended: times in seconds from the arrival of its request, first byte. A time that never
 * came (no token was made) is negative. */
typedef struct bw_metrics_sequence {
    bw_outcome outcome;
    bw_usage usage;
    int n;              /* choices of its request */
    bool more_choices;  /* others of them still run: what is counted per request waits for the last */
    int most_generated; /* tokens of the longest choice that has ended; its own are taken into account */
    int max_tokens;     /* as asked, or what the context held */
    double queued_s, scheduled_s, first_token_s, last_token_s, end_s;
} bw_metrics_sequence;

void bw_metrics_finished(bw_metrics *metrics, const bw_metrics_sequence *sequence);
void bw_metrics_first_token(bw_metrics *metrics, double seconds_since_arrival);
/* A step gave a sequence tokens: the gap to its last such step. */
void bw_metrics_gap(bw_metrics *metrics, double seconds);
void bw_metrics_step(bw_metrics *metrics, const bw_step_info *step);
void bw_metrics_engine(bw_metrics *metrics, const bw_engine_stats *stats);
/* reason: "queue_full", "context", "loading", "draining", "invalid"; anything else counts as "other",
 * here and for phases; for handlers as "none" */
void bw_metrics_rejected(bw_metrics *metrics, const char *reason);
/* phase: "queued", "prefill", "decode" */
void bw_metrics_client_gone(bw_metrics *metrics, const char *phase);
void bw_metrics_http(bw_metrics *metrics, const char *handler, const char *method, int status, double seconds);

/* The whole page, NUL-terminated, the caller's (bw_mem_free); NULL: out of memory. */
char *bw_metrics_render(bw_metrics *metrics, size_t *n);

#endif
