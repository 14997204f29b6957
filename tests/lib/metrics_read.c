/* metrics_read.c - see metrics_read.h. */
#include "lib/metrics_read.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

#include "lib/check.h"

static char *copy(const char *from, size_t n)
{
    char *out = malloc(n + 1);
    check(out != NULL);
    memcpy(out, from, n);
    out[n] = '\0';
    return out;
}

static size_t name_length(const char *s, bool colons)
{
    size_t n = 0;
    while (isalpha((unsigned char)s[n]) || s[n] == '_' || (colons && s[n] == ':') || (n > 0 && isdigit((unsigned char)s[n])))
        n++;
    return n;
}

/* Behind {labels}, or s itself when there are none. */
static const char *skip_labels(const char *s, const char *line)
{
    if (*s != '{')
        return s;
    do {
        size_t n = name_length(++s, false);
        check_that(n > 0 && s[n] == '=' && s[n + 1] == '"', "a label's name: %s", line);
        for (s += n + 2; *s != '"'; s++) {
            check_that((unsigned char)*s >= ' ', "a label's value is not closed: %s", line);
            if (*s == '\\') {
                s++;
                check_that(*s == '\\' || *s == '"' || *s == 'n', "an escape: %s", line);
            }
        }
        s++;
    } while (*s == ',');
    check_that(*s == '}', "labels are not closed: %s", line);
    return s + 1;
}

static void read_comment(metrics_read *read, const char *line)
{
    bool help = strncmp(line, "# HELP ", 7) == 0;
    check_that(help || strncmp(line, "# TYPE ", 7) == 0, "a comment: %s", line);
    size_t n = name_length(line + 7, true);
    check_that(n > 0 && line[7 + n] == ' ' && line[8 + n], "a comment: %s", line);
    char *name = copy(line + 7, n);
    const char *rest = line + 8 + n;
    if (help) {
        for (int i = 0; i < read->n_families; i++)
            check_that(strcmp(read->families[i], name) != 0, "%s has two blocks", name);
        check_that(read->n_families == 0 || read->types[read->n_families - 1], "no TYPE before %s", line);
        check(read->n_families < MAX_FAMILIES);
        read->families[read->n_families++] = name;
        return;
    }
    check_that(read->n_families > 0 && strcmp(read->families[read->n_families - 1], name) == 0, "no HELP before %s", line);
    check_that(!read->types[read->n_families - 1], "two TYPEs: %s", line);
    check_that(strcmp(rest, "counter") == 0 || strcmp(rest, "gauge") == 0 || strcmp(rest, "histogram") == 0, "type: %s", line);
    read->types[read->n_families - 1] = copy(rest, strlen(rest));
    free(name);
}

/* "" for a family's own name, "_bucket" and so on for a histogram's; NULL: it belongs elsewhere. */
static const char *suffix_in_family(const metrics_read *read, const char *name, size_t n)
{
    const char *family = read->families[read->n_families - 1], *type = read->types[read->n_families - 1];
    size_t m = strlen(family);
    if (n < m || strncmp(name, family, m) != 0)
        return NULL;
    static const char *const suffixes[] = { "_bucket", "_sum", "_count" };
    if (strcmp(type, "histogram") != 0)
        return n == m ? "" : NULL;
    for (size_t i = 0; i < BW_COUNT(suffixes); i++)
        if (n - m == strlen(suffixes[i]) && strncmp(name + m, suffixes[i], n - m) == 0)
            return suffixes[i];
    return NULL;
}

/* Within a histogram: the buckets rise to +Inf = count, which follows them and the sum. */
static void check_histogram(const metrics_read *read, const char *suffix, const char *line)
{
    static double below;
    static char edge[64];
    const metric_series *s = &read->series[read->n_series - 1];
    if (strcmp(suffix, "_bucket") == 0) {
        const char *le = strstr(s->key, "le=\"");
        check_that(le != NULL, "a bucket without edge: %s", line);
        double now = strtod(le + 4, NULL);
        bool first = !*edge;
        check_that(first || now > strtod(edge, NULL), "edges fall: %s", line);
        check_that(first || s->value >= below, "buckets fall: %s", line);
        below = s->value;
        snprintf(edge, sizeof edge, "%.60s", le + 4);
        return;
    }
    check_that(strncmp(edge, "+Inf\"", 5) == 0, "the last bucket is not +Inf: %s", line);
    if (strcmp(suffix, "_count") == 0) {
        check_that(s->value == below, "count is not the +Inf bucket: %s", line);
        *edge = '\0';
    }
}

static void read_sample(metrics_read *read, const char *line)
{
    size_t n = name_length(line, true);
    check_that(n > 0 && read->n_families > 0 && read->types[read->n_families - 1], "a sample outside a family: %s", line);
    const char *suffix = suffix_in_family(read, line, n), *type = read->types[read->n_families - 1];
    check_that(suffix != NULL, "not of %s: %s", read->families[read->n_families - 1], line);
    const char *end = skip_labels(line + n, line);
    check_that(*end == ' ', "no space before the value: %s", line);
    check_that(strspn(end + 1, "0123456789.e+-") == strlen(end + 1) && end[1], "not a finite number: %s", line);
    char *rest;
    check(read->n_series < MAX_SERIES);
    metric_series *s = &read->series[read->n_series++];
    *s = (metric_series){ .key = copy(line, (size_t)(end - line)), .value = strtod(end + 1, &rest) };
    check_that(!*rest, "a value: %s", line);
    check_that(isfinite(s->value), "not finite: %s", line);
    check_that(strcmp(type, "gauge") == 0 || s->value >= 0, "a counter below 0: %s", line);
    for (int i = 0; i < read->n_series - 1; i++)
        check_that(strcmp(read->series[i].key, s->key) != 0, "twice: %s", line);
    if (*suffix)
        check_histogram(read, suffix, line);
}

metrics_read *metrics_read_page(const char *page, size_t n)
{
    metrics_read *read = calloc(1, sizeof *read);
    check(read != NULL);
    check(n > 0 && strlen(page) == n && page[n - 1] == '\n');
    read->text = copy(page, n);
    for (const char *at = page, *end; *at; at = end + 1) {
        end = strchr(at, '\n');
        check_that(end > at, "an empty line after %d samples", read->n_series);
        char *line = copy(at, (size_t)(end - at));
        if (*line == '#')
            read_comment(read, line);
        else
            read_sample(read, line);
        free(line);
    }
    check(read->n_families > 0 && read->types[read->n_families - 1]);
    return read;
}

void metrics_read_free(metrics_read *read)
{
    for (int i = 0; i < read->n_families; i++) {
        free(read->families[i]);
        free(read->types[i]);
    }
    for (int i = 0; i < read->n_series; i++)
        free(read->series[i].key);
    free(read->text);
    free(read);
}

static const metric_series *find(const metrics_read *read, const char *key)
{
    for (int i = 0; i < read->n_series; i++)
        if (strcmp(read->series[i].key, key) == 0)
            return &read->series[i];
    return NULL;
}

bool metrics_read_has(const metrics_read *read, const char *key)
{
    return find(read, key) != NULL;
}

double metrics_read_value(const metrics_read *read, const char *key)
{
    const metric_series *s = find(read, key);
    check_that(s != NULL, "no series %s", key);
    return s->value;
}

bool metrics_read_has_name(const metrics_read *read, const char *name)
{
    size_t n = strlen(name);
    for (int i = 0; i < read->n_series; i++)
        if (strncmp(read->series[i].key, name, n) == 0 && (!read->series[i].key[n] || read->series[i].key[n] == '{'))
            return true;
    return false;
}

bw_metrics_options example_metrics_options(void)
{
    static const char *const handlers[] = { "chat_completions", "completions", "metrics" };
    static const bw_memory_plan plan = { .weights = 28000000, .kv = 64 * 4096 * 512, .state = 9000000, .scratch = 7000000,
                                         .total = 178217728, .kv_bytes_per_token = 4096, .context = 32768, .max_seqs = 4 };
    return (bw_metrics_options){ .model_name = "lamb", .backend = "cpu avx2", .quantization = "bf16", .context = 32768,
                                 .max_seqs = 4, .kv_type = "f16", .prefix_cache = true, .handlers = handlers,
                                 .n_handlers = (int)BW_COUNT(handlers), .load_s = 0.25, .plan = &plan };
}

void example_metrics_activity(bw_metrics *m)
{
    bw_metrics_engine(m, &(bw_engine_stats){ .running = 3, .waiting = 2, .waiting_tokens = 700, .pages = 512,
                                             .pages_running = 128, .pages_cached = 64, .page_tokens = 64, .slots = 4,
                                             .slots_running = 3, .cache_nodes = 80, .checkpoints = 9,
                                             .checkpoint_bytes = 5000000, .cache_memory = 9000000, .steps = 400,
                                             .preemptions = 1, .evictions = 2, .prompt_tokens = 1000, .cached_tokens = 600,
                                             .generated_tokens = 300, .verifies = 90, .drafted = 270,
                                             .accepted_by_position = { 80, 70, 60 } });
    bw_metrics_step(m, &(bw_step_info){ .seconds = 0.02, .rows = 64, .prefill_rows = 64, .n_prefill = 1 });
    bw_metrics_step(m, &(bw_step_info){ .seconds = 0.004, .rows = 3, .decode_rows = 3, .n_decode = 3 });
    bw_metrics_step(m, &(bw_step_info){ .seconds = 0.006, .rows = 12, .decode_rows = 3, .draft_rows = 9, .n_decode = 3 });
    bw_metrics_step(m, &(bw_step_info){ .seconds = 0.03, .rows = 76, .prefill_rows = 64, .decode_rows = 3, .draft_rows = 9 });
    bw_metrics_first_token(m, 0.05);
    bw_metrics_gap(m, 0.004);
    bw_metrics_gap(m, 0.006);
    bw_metrics_finished(m, &(bw_metrics_sequence){ .outcome = BW_OUTCOME_STOP, .n = 1, .max_tokens = 100,
                                                   .usage = { .prompt_tokens = 50, .cached_tokens = 40, .generated_tokens = 21 },
                                                   .queued_s = 0.25, .scheduled_s = 0.75, .first_token_s = 1.75,
                                                   .last_token_s = 3.75, .end_s = 3.75 });
    bw_metrics_rejected(m, "queue_full");
    bw_metrics_client_gone(m, "decode");
    bw_metrics_http(m, "chat_completions", "POST", 200, 3.75);
    bw_metrics_http(m, "chat_completions", "POST", 429, 0.001);
    bw_metrics_http(m, "metrics", "GET", 200, 0.002);
}
