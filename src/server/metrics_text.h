/* metrics_text.h - writes Prometheus' text format, version 0.0.4: families, samples, label values.
 *
 * A family is begun once, then its samples follow; every value is finite. Numbers do not depend on
 * the locale. Running out of memory sticks in `page.failed`. One thread at a time. */
#ifndef BW_SERVER_METRICS_TEXT_H
#define BW_SERVER_METRICS_TEXT_H

#include <stdint.h>

#include "server/histogram.h"
#include "text/bytes.h"

typedef struct bw_metrics_text {
    bw_bytes page;
    const char *labels; /* written first in every sample: `engine="0",model_name="x"`, or "" */
    const char *family; /* begun last */
} bw_metrics_text;

/* type: "counter", "gauge" or "histogram"; name and help are ours: no escapes needed. */
void bw_metrics_text_family(bw_metrics_text *text, const char *name, const char *type, const char *help);
/* A sample of the family; extra: more labels, already escaped, "" for none. */
void bw_metrics_text_count(bw_metrics_text *text, const char *extra, uint64_t value);
void bw_metrics_text_value(bw_metrics_text *text, const char *extra, double value); /* not finite: 0 */
void bw_metrics_text_histogram(bw_metrics_text *text, const char *extra, const bw_histogram *histogram);

/* Appends name="value": backslash, quote and line end escaped, malformed UTF-8 as U+FFFD. A comma comes
 * before it where something stands there already. */
void bw_metrics_text_label(bw_bytes *labels, const char *name, const char *value);

#endif
