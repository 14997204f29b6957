/* metrics.c - counts what happens; metrics_page.c shows it. See metrics.h.
 *
 * Nothing here allocates after creation, so that counting cannot fail. The loop's thread. */
#include "server/metrics.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/status.h"
#include "server/metrics_state.h"
#include "server/metrics_text.h"
#include "server/process_figures.h"

const char *const bw_metrics_methods[BW_HTTP_METHODS] = { "GET", "POST", "DELETE", "HEAD", "OPTIONS", "other" };
const char *const bw_metrics_step_kinds[BW_STEP_KINDS] = { "prefill", "decode", "verify", "mixed" };
const char *const bw_metrics_reasons[BW_REASONS] = { "queue_full", "context", "loading", "draining", "invalid", "other" };
const char *const bw_metrics_phases[BW_PHASES] = { "queued", "prefill", "decode", "other" };

/* ---- life -------------------------------------------------------------------------------------- */

static const char *or_unknown(const char *text)
{
    return text && *text ? text : "unknown";
}

/* The text of `bytes` handed over; NULL when memory ran out. */
static char *take_text(bw_bytes *bytes)
{
    if (bytes->failed) {
        bw_bytes_fini(bytes);
        return NULL;
    }
    return bytes->data;
}

static bool write_labels(bw_metrics *m, const bw_metrics_options *options)
{
    bw_bytes labels = { 0 }, info = { 0 }, kv = { 0 };
    bw_metrics_text_label(&labels, "engine", "0");
    bw_metrics_text_label(&labels, "model_name", or_unknown(options->model_name));
    bw_metrics_text_label(&info, "version", bw_version());
    bw_metrics_text_label(&info, "backend", or_unknown(options->backend));
    bw_metrics_text_label(&info, "quantization", or_unknown(options->quantization));
    bw_metrics_text_label(&kv, "cache_dtype", or_unknown(options->kv_type));
    m->labels = take_text(&labels);
    m->build_info = take_text(&info);
    m->kv_type = take_text(&kv);
    return m->labels && m->build_info && m->kv_type;
}

static void init_histograms(bw_metrics *m)
{
    const struct {
        bw_histogram *histogram;
        const bw_edges *edges;
    } all[] = {
        { &m->first_token, &bw_edges_first_token },
        { &m->gap, &bw_edges_between },
        { &m->per_token, &bw_edges_between },
        { &m->our_gap, &bw_edges_step },
        { &m->whole, &bw_edges_request },
        { &m->queue, &bw_edges_request },
        { &m->prefill, &bw_edges_request },
        { &m->decode, &bw_edges_request },
        { &m->inference, &bw_edges_request },
        { &m->prompt_tokens, &m->tokens },
        { &m->generated_tokens, &m->tokens },
        { &m->max_tokens, &m->tokens },
        { &m->most_generated, &m->tokens },
        { &m->computed_tokens, &m->tokens },
        { &m->choices, &bw_edges_choices },
        { &m->iteration_rows, &bw_edges_rows },
        { &m->step_rows, &bw_edges_step_rows },
        { &m->draft_length, &bw_edges_drafts },
    };
    for (size_t i = 0; i < BW_COUNT(all); i++)
        bw_histogram_init(all[i].histogram, all[i].edges);
    for (int i = 0; i < BW_STEP_KINDS; i++)
        bw_histogram_init(&m->step_seconds[i], &bw_edges_step);
}

static bool create_http(bw_metrics *m, const bw_metrics_options *options)
{
    int n = options->n_handlers > 0 ? options->n_handlers : 0;
    if (!(m->http = bw_mem_zalloc((size_t)n + 1, sizeof *m->http, BW_MEM_MISC)))
        return false;
    for (m->n_http = 0; m->n_http <= n; m->n_http++) {
        bw_http_counts *counts = &m->http[m->n_http];
        if (!(counts->handler = bw_mem_strdup(m->n_http < n ? options->handlers[m->n_http] : "none")))
            return false;
        for (int i = 0; i < BW_HTTP_METHODS; i++)
            bw_histogram_init(&counts->seconds[i], &bw_edges_http);
    }
    return true;
}

/* Of the machine's memory, how much the plan takes. */
static double memory_share(const bw_memory_plan *plan)
{
    double bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    return bytes > 0 ? fmin((double)plan->total / bytes, 1) : 0;
}

bw_status bw_metrics_create(bw_metrics **out, const bw_metrics_options *options, bw_error *err)
{
    *out = NULL;
    bw_metrics *m = bw_mem_zalloc(1, sizeof *m, BW_MEM_MISC);
    if (!m)
        return bw_fail_memory(err, "the metrics", sizeof *m);
    m->prefix_cache = options->prefix_cache;
    m->legacy = options->legacy;
    m->load_s = options->load_s;
    if (options->plan)
        m->plan = *options->plan;
    m->memory_share = memory_share(&m->plan);
    m->started = bw_process_started();
    m->tokens = bw_edges_125(options->context);
    init_histograms(m);
    if (!write_labels(m, options) || !create_http(m, options)) {
        bw_metrics_destroy(m);
        return bw_fail_memory(err, "the metrics", sizeof(bw_http_counts) * ((size_t)options->n_handlers + 1));
    }
    *out = m;
    return BW_OK;
}

void bw_metrics_destroy(bw_metrics *metrics)
{
    if (!metrics)
        return;
    for (int i = 0; metrics->http && i < metrics->n_http; i++)
        bw_mem_free(metrics->http[i].handler);
    bw_mem_free(metrics->http);
    bw_mem_free(metrics->labels);
    bw_mem_free(metrics->build_info);
    bw_mem_free(metrics->kv_type);
    bw_mem_free(metrics);
}

/* ---- sequences --------------------------------------------------------------------------------- */

static void observe_between(bw_histogram *histogram, double from, double to)
{
    if (from >= 0 && to >= from)
        bw_histogram_observe(histogram, to - from);
}

/* Times and sizes of answers that were given: one that was broken off has no length of its own. */
static void observe_answer(bw_metrics *m, const bw_metrics_sequence *s)
{
    const bw_usage *usage = &s->usage;
    observe_between(&m->whole, 0, s->end_s);
    observe_between(&m->queue, s->queued_s, s->scheduled_s);
    observe_between(&m->prefill, s->scheduled_s, s->first_token_s);
    observe_between(&m->decode, s->first_token_s, s->last_token_s);
    observe_between(&m->inference, s->scheduled_s, s->last_token_s);
    if (usage->generated_tokens > 1 && s->first_token_s >= 0 && s->last_token_s >= s->first_token_s)
        bw_histogram_observe(&m->per_token, (s->last_token_s - s->first_token_s) / (usage->generated_tokens - 1));
    bw_histogram_observe(&m->prompt_tokens, usage->prompt_tokens);
    bw_histogram_observe(&m->generated_tokens, usage->generated_tokens);
    bw_histogram_observe(&m->computed_tokens, usage->prompt_tokens - usage->cached_tokens);
    if (s->more_choices)
        return;
    bw_histogram_observe(&m->max_tokens, s->max_tokens);
    bw_histogram_observe(&m->choices, s->n);
    bw_histogram_observe(&m->most_generated, fmax(s->most_generated, usage->generated_tokens));
}

void bw_metrics_finished(bw_metrics *metrics, const bw_metrics_sequence *sequence)
{
    metrics->finished[sequence->outcome]++;
    if (sequence->outcome == BW_OUTCOME_STOP || sequence->outcome == BW_OUTCOME_LENGTH)
        observe_answer(metrics, sequence);
}

void bw_metrics_first_token(bw_metrics *metrics, double seconds_since_arrival)
{
    bw_histogram_observe(&metrics->first_token, seconds_since_arrival);
}

void bw_metrics_gap(bw_metrics *metrics, double seconds)
{
    bw_histogram_observe(&metrics->gap, seconds);
    bw_histogram_observe(&metrics->our_gap, seconds);
}

/* ---- the engine -------------------------------------------------------------------------------- */

static int kind_of(const bw_step_info *step)
{
    if (!step->decode_rows)
        return 0;
    return step->prefill_rows ? 3 : step->draft_rows ? 2 : 1;
}

void bw_metrics_step(bw_metrics *metrics, const bw_step_info *step)
{
    if (step->rows <= 0)
        return;
    bw_histogram_observe(&metrics->step_seconds[kind_of(step)], step->seconds);
    bw_histogram_observe(&metrics->iteration_rows, step->rows);
    bw_histogram_observe(&metrics->step_rows, step->rows);
    if (step->decode_rows > 0)
        bw_histogram_observe(&metrics->draft_length, (double)step->draft_rows / step->decode_rows);
}

static void raise_to(int64_t *counter, int64_t value)
{
    if (*counter < value)
        *counter = value;
}

void bw_metrics_engine(bw_metrics *metrics, const bw_engine_stats *stats)
{
    bw_engine_stats next = *stats;
    const bw_engine_stats *last = &metrics->engine;
    raise_to(&next.steps, last->steps);
    raise_to(&next.preemptions, last->preemptions);
    raise_to(&next.evictions, last->evictions);
    raise_to(&next.prompt_tokens, last->prompt_tokens);
    raise_to(&next.cached_tokens, last->cached_tokens);
    raise_to(&next.generated_tokens, last->generated_tokens);
    raise_to(&next.verifies, last->verifies);
    raise_to(&next.drafted, last->drafted);
    for (int i = 0; i < BW_MAX_DRAFTS; i++)
        raise_to(&next.accepted_by_position[i], last->accepted_by_position[i]);
    metrics->engine = next;
}

/* ---- requests ---------------------------------------------------------------------------------- */

/* The index of `name`; the last one when it is not there. */
static int index_of(const char *const *names, int n, const char *name)
{
    for (int i = 0; name && i < n; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return n - 1;
}

void bw_metrics_rejected(bw_metrics *metrics, const char *reason)
{
    metrics->rejected[index_of(bw_metrics_reasons, BW_REASONS, reason)]++;
}

void bw_metrics_client_gone(bw_metrics *metrics, const char *phase)
{
    metrics->gone[index_of(bw_metrics_phases, BW_PHASES, phase)]++;
}

void bw_metrics_http(bw_metrics *metrics, const char *handler, const char *method, int status, double seconds)
{
    int i = 0;
    while (i < metrics->n_http - 1 && !(handler && strcmp(metrics->http[i].handler, handler) == 0))
        i++;
    int class = status / 100;
    if (class < 1 || class > BW_HTTP_CLASSES)
        class = BW_HTTP_CLASSES;
    int k = index_of(bw_metrics_methods, BW_HTTP_METHODS, method);
    metrics->http[i].requests[k][class - 1]++;
    bw_histogram_observe(&metrics->http[i].seconds[k], seconds);
}
