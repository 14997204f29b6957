/* metrics_state.h - what metrics.c counts and metrics_page.c shows; nobody else looks inside. */
#ifndef BW_SERVER_METRICS_STATE_H
#define BW_SERVER_METRICS_STATE_H

#include "server/histogram.h"
#include "server/metrics.h"

enum { BW_OUTCOMES = 4, BW_HTTP_METHODS = 6, BW_HTTP_CLASSES = 5, BW_STEP_KINDS = 4, BW_REASONS = 6, BW_PHASES = 4 };

extern const char *const bw_metrics_methods[BW_HTTP_METHODS]; /* the last: any other */
extern const char *const bw_metrics_step_kinds[BW_STEP_KINDS];
extern const char *const bw_metrics_reasons[BW_REASONS]; /* the last: any other */
extern const char *const bw_metrics_phases[BW_PHASES];   /* the last: any other */

/* Requests of one handler. */
typedef struct bw_http_counts {
    char *handler;
    uint64_t requests[BW_HTTP_METHODS][BW_HTTP_CLASSES]; /* "1xx" .. "5xx" */
    bw_histogram seconds[BW_HTTP_METHODS];
} bw_http_counts;

struct bw_metrics {
    char *labels;     /* engine and model_name, written once */
    char *build_info; /* labels of bellwether_build_info */
    char *kv_type;    /* escaped */
    bool prefix_cache, legacy;
    double load_s, memory_share, started; /* started: Unix time */
    bw_memory_plan plan;
    bw_edges tokens; /* N: up to the context's length */

    bw_engine_stats engine; /* counters never fall back */
    uint64_t finished[BW_OUTCOMES], rejected[BW_REASONS], gone[BW_PHASES];

    bw_histogram first_token, gap, our_gap, per_token;
    bw_histogram whole, queue, prefill, decode, inference;
    bw_histogram prompt_tokens, generated_tokens, max_tokens, most_generated, computed_tokens;
    bw_histogram choices, iteration_rows;
    bw_histogram step_seconds[BW_STEP_KINDS], step_rows, draft_length;

    bw_http_counts *http; /* [n_http], the last: any other handler */
    int n_http;
};

#endif
