/* metrics_read.h - a strict reader of Prometheus' text format, for tests, and a page with activity. */
#ifndef BW_TESTS_METRICS_READ_H
#define BW_TESTS_METRICS_READ_H

#include "server/metrics.h"

enum { MAX_FAMILIES = 128, MAX_SERIES = 4096 };

typedef struct metric_series {
    char *key; /* name and labels as written: `a_total{x="y"}` */
    double value;
} metric_series;

typedef struct metrics_read {
    char *text;
    char *families[MAX_FAMILIES], *types[MAX_FAMILIES];
    int n_families;
    metric_series series[MAX_SERIES];
    int n_series;
} metrics_read;

/* Fails the test unless the page is well formed: every family once, HELP then TYPE then its samples,
 * names and labels by the grammar, no sample twice, finite values, counters not below 0, histograms
 * that add up, a line end at the end. Free with metrics_read_free. */
metrics_read *metrics_read_page(const char *page, size_t n);
void metrics_read_free(metrics_read *read);
/* The value of a series; fails when it is not there. */
double metrics_read_value(const metrics_read *read, const char *key);
bool metrics_read_has(const metrics_read *read, const char *key);
/* A sample's name (with _bucket, _sum, _count), whatever its labels. */
bool metrics_read_has_name(const metrics_read *read, const char *name);

/* Options of a model called "lamb" with a context of 32,768. */
bw_metrics_options example_metrics_options(void);
/* What a server counts in a minute: steps, sequences, refusals, HTTP. */
void example_metrics_activity(bw_metrics *metrics);

#endif
