/* histogram.h - observations counted by upper edge, as Prometheus' histograms count them.
 *
 * Edges are ascending upper bounds, inclusive; above the last stands +Inf. One thread at a time. */
#ifndef BW_SERVER_HISTOGRAM_H
#define BW_SERVER_HISTOGRAM_H

#include <stdint.h>

enum { BW_MAX_EDGES = 32 };

typedef struct bw_edges {
    int n;
    double at[BW_MAX_EDGES];
} bw_edges;

typedef struct bw_histogram {
    const bw_edges *edges; /* borrowed */
    uint64_t counts[BW_MAX_EDGES + 1]; /* each observation once: at its edge, the last beyond all edges */
    uint64_t n;
    double sum;
} bw_histogram;

void bw_histogram_init(bw_histogram *histogram, const bw_edges *edges);
/* A value that is not finite or below zero (a time that never came) is no observation. */
void bw_histogram_observe(bw_histogram *histogram, double value);

/* 1, 2, 5, 10, 20, 50 ... as far as they are <= limit; limit below 1 gives 1 alone. */
bw_edges bw_edges_125(double limit);

/* Edges of the contract (docs/server.md), in seconds; a fleet's dashboards add them up by edge. */
extern const bw_edges bw_edges_first_token;   /* T */
extern const bw_edges bw_edges_between;       /* I */
extern const bw_edges bw_edges_request;       /* L */
extern const bw_edges bw_edges_choices;       /* n of a request */
extern const bw_edges bw_edges_rows;          /* rows of a step, vLLM's */
/* Ours. */
extern const bw_edges bw_edges_step;          /* seconds of a step, of a gap: from 0.5 ms */
extern const bw_edges bw_edges_step_rows;     /* rows, finer below 16 */
extern const bw_edges bw_edges_drafts;        /* 0 .. BW_MAX_DRAFTS */
extern const bw_edges bw_edges_http;

#endif
