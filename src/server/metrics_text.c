/* metrics_text.c - see metrics_text.h. */
#include "server/metrics_text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* The fewest digits that read back as the same double, with a point whatever the locale says. */
static void write_double(char out[40], double value)
{
    if (!isfinite(value))
        value = 0;
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, 40, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    for (char *c = out; *c; c++)
        if (*c == ',')
            *c = '.';
}

/* An edge as Prometheus' own client for Python writes it ("1.0", "0.25", "1e+06"): older Prometheus
 * compares edges as text, and a fleet may mix servers. */
static void write_edge(char out[40], double edge)
{
    write_double(out, edge);
    if (edge >= 1e6) {
        int power = (int)floor(log10(edge) + 0.5);
        while (pow(10, power) > edge)
            power--;
        snprintf(out, 40, "%ge+%02d", edge / pow(10, power), power);
    } else if (!strpbrk(out, ".e"))
        strcat(out, ".0");
}

void bw_metrics_text_family(bw_metrics_text *text, const char *name, const char *type, const char *help)
{
    const char *const parts[] = { "# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n" };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        bw_bytes_add_str(&text->page, parts[i]);
    text->family = name;
}

/* family, suffix, labels and last label, and the space before the value. */
static void begin_sample(bw_metrics_text *text, const char *suffix, const char *extra, const char *edge)
{
    bw_bytes *page = &text->page;
    bw_bytes_add_str(page, text->family);
    bw_bytes_add_str(page, suffix);
    if (*text->labels || *extra || *edge) {
        const char *const groups[] = { text->labels, extra, edge };
        char between = '{';
        for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
            if (*groups[i]) {
                bw_bytes_add_char(page, between);
                bw_bytes_add_str(page, groups[i]);
                between = ',';
            }
        bw_bytes_add_char(page, '}');
    }
    bw_bytes_add_char(page, ' ');
}

static void end_count(bw_metrics_text *text, uint64_t value)
{
    char number[32];
    snprintf(number, sizeof number, "%" PRIu64 "\n", value);
    bw_bytes_add_str(&text->page, number);
}

static void end_value(bw_metrics_text *text, double value)
{
    char number[40];
    write_double(number, value);
    bw_bytes_add_str(&text->page, number);
    bw_bytes_add_char(&text->page, '\n');
}

void bw_metrics_text_count(bw_metrics_text *text, const char *extra, uint64_t value)
{
    begin_sample(text, "", extra, "");
    end_count(text, value);
}

void bw_metrics_text_value(bw_metrics_text *text, const char *extra, double value)
{
    begin_sample(text, "", extra, "");
    end_value(text, value);
}

void bw_metrics_text_histogram(bw_metrics_text *text, const char *extra, const bw_histogram *histogram)
{
    uint64_t below = 0;
    char number[40], edge[64];
    for (int i = 0; i < histogram->edges->n; i++) {
        write_edge(number, histogram->edges->at[i]);
        snprintf(edge, sizeof edge, "le=\"%s\"", number);
        below += histogram->counts[i];
        begin_sample(text, "_bucket", extra, edge);
        end_count(text, below);
    }
    begin_sample(text, "_bucket", extra, "le=\"+Inf\"");
    end_count(text, histogram->n);
    begin_sample(text, "_sum", extra, "");
    end_value(text, histogram->sum);
    begin_sample(text, "_count", extra, "");
    end_count(text, histogram->n);
}

void bw_metrics_text_label(bw_bytes *labels, const char *name, const char *value)
{
    if (labels->n)
        bw_bytes_add_char(labels, ',');
    bw_bytes_add_str(labels, name);
    bw_bytes_add_str(labels, "=\"");
    size_t left = strlen(value);
    for (const char *at = value; left > 0;) {
        int n = bw_utf8_next((const unsigned char *)at, left);
        if (n <= 0) { /* malformed, or cut short at the end */
            bw_bytes_add_rune(labels, 0xFFFD);
            n = n < 0 ? -n : (int)left;
        } else if (*at == '\n') {
            bw_bytes_add_str(labels, "\\n");
        } else {
            if (*at == '\\' || *at == '"')
                bw_bytes_add_char(labels, '\\');
            bw_bytes_add(labels, at, (size_t)n);
        }
        at += n;
        left -= (size_t)n;
    }
    bw_bytes_add_char(labels, '"');
}
