/* metrics_page.c - the page of /metrics: every family once, with its help and type, in a fixed order.
 *
 * What a family means stands in docs/metrics.md. Only reads; asks nobody but the system for figures of
 * the process. The loop's thread. */
#include <stdio.h>
#include <time.h>

#include "base/mem.h"
#include "base/status.h"
#include "server/metrics_state.h"
#include "server/metrics_text.h"
#include "server/process_figures.h"

/* A family of one sample. */
static void counter(bw_metrics_text *t, const char *name, const char *help, int64_t value)
{
    bw_metrics_text_family(t, name, "counter", help);
    bw_metrics_text_count(t, "", (uint64_t)value);
}

static void gauge(bw_metrics_text *t, const char *name, const char *help, double value)
{
    bw_metrics_text_family(t, name, "gauge", help);
    bw_metrics_text_value(t, "", value);
}

static void histogram(bw_metrics_text *t, const char *name, const char *help, const bw_histogram *values)
{
    bw_metrics_text_family(t, name, "histogram", help);
    bw_metrics_text_histogram(t, "", values);
}

/* A counter with one more label, a sample for each of its n values. */
static void counters(bw_metrics_text *t, const char *name, const char *help, const char *label,
                     const char *const *values, const uint64_t *counts, int n)
{
    bw_metrics_text_family(t, name, "counter", help);
    for (int i = 0; i < n; i++) {
        char extra[64];
        snprintf(extra, sizeof extra, "%s=\"%s\"", label, values[i]);
        bw_metrics_text_count(t, extra, counts[i]);
    }
}

static double share(int part, int whole)
{
    return whole > 0 ? (double)part / whole : 0;
}

static int64_t at_least_0(int64_t x)
{
    return x > 0 ? x : 0;
}

/* ---- vLLM's names ------------------------------------------------------------------------------ */

static void load(bw_metrics_text *t, const bw_metrics *m)
{
    const bw_engine_stats *e = &m->engine;
    gauge(t, "vllm:num_requests_running", "Sequences in the batch.", e->running);
    gauge(t, "vllm:num_requests_waiting", "Sequences admitted and not yet scheduled.", e->waiting);
    bw_metrics_text_family(t, "vllm:num_requests_waiting_by_reason", "gauge",
                           "Sequences that wait, by what for: room in the batch, or something else (never here).");
    bw_metrics_text_count(t, "reason=\"capacity\"", (uint64_t)e->waiting);
    bw_metrics_text_count(t, "reason=\"deferred\"", 0);
    double pages = share(e->pages_running, e->pages), slots = share(e->slots_running, e->slots);
    double usage = pages > slots ? pages : slots;
    static const char usage_help[] = "Share held by running sequences, 0 to 1: the larger of KV pages and recurrent slots.";
    gauge(t, "vllm:kv_cache_usage_perc", usage_help, usage);
    if (m->legacy)
        gauge(t, "vllm:gpu_cache_usage_perc", usage_help, usage);
}

static void cache_config(bw_metrics_text *t, const bw_metrics *m)
{
    int page = m->engine.page_tokens > 0 ? m->engine.page_tokens : 64;
    uint64_t page_bytes = m->plan.kv_bytes_per_token * (uint64_t)page;
    uint64_t pages = m->engine.pages > 0 ? (uint64_t)m->engine.pages : page_bytes ? m->plan.kv / page_bytes : 0;
    char config[192];
    snprintf(config, sizeof config,
             "block_size=\"%d\",num_gpu_blocks=\"%llu\",enable_prefix_caching=\"%s\",gpu_memory_utilization=\"%.4f\"", page,
             (unsigned long long)pages, m->prefix_cache ? "True" : "False", m->memory_share);
    bw_bytes labels = { 0 };
    bw_bytes_add_str(&labels, config);
    bw_bytes_add_char(&labels, ',');
    bw_bytes_add_str(&labels, m->kv_type);
    bw_metrics_text_family(t, "vllm:cache_config_info", "gauge", "Page size in tokens, pages, type of the KV cache.");
    if (labels.failed)
        t->page.failed = true;
    else
        bw_metrics_text_count(t, labels.data, 1);
    bw_bytes_fini(&labels);
    bw_metrics_text_family(t, "vllm:lora_requests_info", "gauge", "No adapters; the value is the time of this page.");
    bw_metrics_text_count(t, "max_lora=\"0\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"", (uint64_t)time(NULL));
}

static void tokens(bw_metrics_text *t, const bw_metrics *m)
{
    const bw_engine_stats *e = &m->engine;
    counter(t, "vllm:prompt_tokens_total", "Prompt tokens of sequences that were scheduled.", e->prompt_tokens);
    counter(t, "vllm:generation_tokens_total", "Tokens generated.", e->generated_tokens);
    static const char *const sources[] = { "local_compute", "local_cache_hit", "external_kv_transfer" };
    const uint64_t by_source[] = { (uint64_t)at_least_0(e->prompt_tokens - e->cached_tokens), (uint64_t)e->cached_tokens, 0 };
    counters(t, "vllm:prompt_tokens_by_source_total", "Prompt tokens by where they came from.", "source", sources,
             by_source, (int)BW_COUNT(sources));
    int64_t queries = m->prefix_cache ? e->prompt_tokens : 0;
    static const char query_help[] = "Prompt tokens looked for in the prefix cache, once per sequence.";
    static const char hit_help[] = "Prompt tokens found in the prefix cache, once per sequence.";
    counter(t, "vllm:prompt_tokens_cached_total", "Prompt tokens that the prefix cache supplied.", e->cached_tokens);
    counter(t, "vllm:prefix_cache_queries_total", query_help, queries);
    counter(t, "vllm:prefix_cache_hits_total", hit_help, e->cached_tokens);
    if (m->legacy) {
        counter(t, "vllm:gpu_prefix_cache_queries_total", query_help, queries);
        counter(t, "vllm:gpu_prefix_cache_hits_total", hit_help, e->cached_tokens);
    }
    counter(t, "vllm:mm_cache_queries_total", "Images looked for in a cache: none, pictures are not read.", 0);
    counter(t, "vllm:mm_cache_hits_total", "Images found in a cache: none, pictures are not read.", 0);
    counter(t, "vllm:num_preemptions_total", "Sequences that gave their memory to others, to be computed again.",
            e->preemptions);
    static const char *const outcomes[] = { "stop", "length", "abort", "error" };
    counters(t, "vllm:request_success_total", "Sequences that ended, by why.", "finished_reason", outcomes, m->finished,
             BW_OUTCOMES);
}

static void speculation(bw_metrics_text *t, const bw_metrics *m)
{
    const bw_engine_stats *e = &m->engine;
    int64_t accepted = 0;
    for (int i = 0; i < BW_MAX_DRAFTS; i++)
        accepted += e->accepted_by_position[i];
    counter(t, "vllm:spec_decode_num_drafts_total", "Verifications of at least one draft.", e->verifies);
    counter(t, "vllm:spec_decode_num_draft_tokens_total", "Tokens drafted and verified.", e->drafted);
    counter(t, "vllm:spec_decode_num_accepted_tokens_total", "Drafts accepted, without the token each verification adds.",
            accepted);
    bw_metrics_text_family(t, "vllm:spec_decode_num_accepted_tokens_per_pos_total", "counter",
                           "Verifications that accepted the draft at this position and all before it.");
    for (int i = 0; i < BW_MAX_DRAFTS; i++) {
        char extra[32];
        snprintf(extra, sizeof extra, "position=\"%d\"", i);
        bw_metrics_text_count(t, extra, (uint64_t)e->accepted_by_position[i]);
    }
}

static void requests(bw_metrics_text *t, const bw_metrics *m)
{
    static const char gap_help[] = "Seconds between two steps that gave a sequence tokens.";
    histogram(t, "vllm:time_to_first_token_seconds", "Seconds from a request's arrival to its first token.", &m->first_token);
    histogram(t, "vllm:inter_token_latency_seconds", gap_help, &m->gap);
    if (m->legacy)
        histogram(t, "vllm:time_per_output_token_seconds", gap_help, &m->gap);
    histogram(t, "vllm:request_time_per_output_token_seconds", "Mean seconds per token after the first, per sequence.",
              &m->per_token);
    histogram(t, "vllm:e2e_request_latency_seconds", "Seconds from arrival to the end of the answer.", &m->whole);
    histogram(t, "vllm:request_queue_time_seconds", "Seconds from queued to scheduled.", &m->queue);
    histogram(t, "vllm:request_prefill_time_seconds", "Seconds from scheduled to the first token.", &m->prefill);
    histogram(t, "vllm:request_decode_time_seconds", "Seconds from the first token to the last.", &m->decode);
    histogram(t, "vllm:request_inference_time_seconds", "Seconds from scheduled to the last token.", &m->inference);
    histogram(t, "vllm:request_prompt_tokens", "Prompt tokens of a sequence.", &m->prompt_tokens);
    histogram(t, "vllm:request_generation_tokens", "Tokens generated for a sequence.", &m->generated_tokens);
    histogram(t, "vllm:request_params_max_tokens", "Tokens a request allowed.", &m->max_tokens);
    histogram(t, "vllm:request_max_num_generation_tokens", "Tokens of a request's longest choice.", &m->most_generated);
    histogram(t, "vllm:request_prefill_kv_computed_tokens", "Prompt tokens of a sequence that the cache did not supply.",
              &m->computed_tokens);
    histogram(t, "vllm:request_params_n", "Choices of a request.", &m->choices);
    histogram(t, "vllm:iteration_tokens_total", "Rows (tokens) of a step.", &m->iteration_rows);
}

/* ---- ours -------------------------------------------------------------------------------------- */

static void steps(bw_metrics_text *t, const bw_metrics *m)
{
    bw_metrics_text_family(t, "bellwether_step_seconds", "histogram",
                           "Seconds of a step: prefill alone, decode without or with drafts (verify), or mixed with prefill.");
    for (int i = 0; i < BW_STEP_KINDS; i++) {
        char extra[32];
        snprintf(extra, sizeof extra, "kind=\"%s\"", bw_metrics_step_kinds[i]);
        bw_metrics_text_histogram(t, extra, &m->step_seconds[i]);
    }
    histogram(t, "bellwether_step_rows", "Rows (tokens) of a step, in fine steps.", &m->step_rows);
    histogram(t, "bellwether_itl_seconds", "Seconds between two steps that gave a sequence tokens, in fine steps.", &m->our_gap);
    histogram(t, "bellwether_draft_length", "Drafts per decoding sequence, the mean of a step.", &m->draft_length);
}

static void memory(bw_metrics_text *t, const bw_metrics *m)
{
    const struct {
        const char *what;
        uint64_t planned, used;
    } parts[] = {
        { "weights", m->plan.weights, bw_mem_used(BW_MEM_WEIGHTS) },
        { "kv", m->plan.kv, bw_mem_used(BW_MEM_KV) },
        { "state", m->plan.state, bw_mem_used(BW_MEM_STATE) },
        { "scratch", m->plan.scratch, bw_mem_used(BW_MEM_SCRATCH) },
        { "checkpoints", m->engine.cache_memory, m->engine.checkpoint_bytes },
    };
    bw_metrics_text_family(t, "bellwether_memory_bytes", "gauge",
                           "Memory planned, and taken by now: weights without what is mapped from their file, checkpoints those held.");
    for (size_t i = 0; i < BW_COUNT(parts); i++) {
        char extra[64];
        snprintf(extra, sizeof extra, "what=\"%s\",state=\"planned\"", parts[i].what);
        bw_metrics_text_count(t, extra, parts[i].planned);
        snprintf(extra, sizeof extra, "what=\"%s\",state=\"used\"", parts[i].what);
        bw_metrics_text_count(t, extra, parts[i].used);
    }
    const bw_engine_stats *e = &m->engine;
    bw_metrics_text_family(t, "bellwether_kv_pages", "gauge", "KV pages held by running sequences, by the cache alone, by nobody.");
    bw_metrics_text_count(t, "state=\"running\"", (uint64_t)e->pages_running);
    bw_metrics_text_count(t, "state=\"cached\"", (uint64_t)e->pages_cached);
    bw_metrics_text_count(t, "state=\"free\"", (uint64_t)at_least_0((int64_t)e->pages - e->pages_running - e->pages_cached));
    bw_metrics_text_family(t, "bellwether_recurrent_slots", "gauge", "Slots of recurrent state, with a sequence and without.");
    bw_metrics_text_count(t, "state=\"running\"", (uint64_t)e->slots_running);
    bw_metrics_text_count(t, "state=\"free\"", (uint64_t)at_least_0((int64_t)e->slots - e->slots_running));
    gauge(t, "bellwether_prefix_tree_pages", "Pages of the prefix tree.", e->cache_nodes);
    gauge(t, "bellwether_prefix_tree_snapshots", "Saved recurrent states of the prefix tree.", e->checkpoints);
    counter(t, "bellwether_prefix_cache_evictions_total", "Pages and states the prefix cache gave up.", e->evictions);
}

static void admission(bw_metrics_text *t, const bw_metrics *m)
{
    gauge(t, "bellwether_waiting_prompt_tokens", "Prompt tokens of the sequences that wait.", (double)m->engine.waiting_tokens);
    counters(t, "bellwether_requests_rejected_total", "Requests refused, by why.", "reason", bw_metrics_reasons, m->rejected,
             BW_REASONS);
    counters(t, "bellwether_clients_gone_total", "Clients that left before their answer was complete, by when.", "phase",
             bw_metrics_phases, m->gone, BW_PHASES);
    gauge(t, "bellwether_load_seconds", "Seconds it took to load the model.", m->load_s);
    bw_metrics_text_family(t, "bellwether_build_info", "gauge", "What runs here; always 1.");
    bw_metrics_text_count(t, m->build_info, 1);
}

/* ---- the process and its connections: no model's labels ------------------------------------------ */

/* Methods and classes a handler never saw have no sample. */
static void http(bw_metrics_text *t, const bw_metrics *m)
{
    bw_metrics_text_family(t, "http_requests_total", "counter", "HTTP requests answered, by class of status.");
    for (int h = 0; h < m->n_http; h++)
        for (int i = 0; i < BW_HTTP_METHODS; i++)
            for (int k = 0; k < BW_HTTP_CLASSES; k++)
                if (m->http[h].requests[i][k]) {
                    char extra[192];
                    snprintf(extra, sizeof extra, "handler=\"%.100s\",method=\"%s\",status=\"%dxx\"", m->http[h].handler,
                             bw_metrics_methods[i], k + 1);
                    bw_metrics_text_count(t, extra, m->http[h].requests[i][k]);
                }
    bw_metrics_text_family(t, "http_request_duration_seconds", "histogram", "Seconds from a request's arrival to its last byte.");
    for (int h = 0; h < m->n_http; h++)
        for (int i = 0; i < BW_HTTP_METHODS; i++)
            if (m->http[h].seconds[i].n) {
                char extra[192];
                snprintf(extra, sizeof extra, "handler=\"%.100s\",method=\"%s\"", m->http[h].handler, bw_metrics_methods[i]);
                bw_metrics_text_histogram(t, extra, &m->http[h].seconds[i]);
            }
}

static void process(bw_metrics_text *t, const bw_metrics *m)
{
    bw_process_figures p = bw_process_get_figures();
    if (p.cpu_s >= 0) {
        bw_metrics_text_family(t, "process_cpu_seconds_total", "counter", "User and system time of the process.");
        bw_metrics_text_value(t, "", p.cpu_s);
    }
    if (m->started >= 0)
        gauge(t, "process_start_time_seconds", "Unix time of the start of the process.", m->started);
    if (p.resident_bytes >= 0) {
        gauge(t, "process_virtual_memory_bytes", "Virtual memory size.", (double)p.virtual_bytes);
        gauge(t, "process_resident_memory_bytes", "Resident memory size, mapped weights included.", (double)p.resident_bytes);
    }
    if (p.open_files >= 0)
        gauge(t, "process_open_fds", "Open file descriptors.", (double)p.open_files);
    if (p.max_files >= 0)
        gauge(t, "process_max_fds", "Most file descriptors the process may open.", (double)p.max_files);
}

char *bw_metrics_render(bw_metrics *metrics, size_t *n)
{
    bw_metrics_text t = { .labels = metrics->labels };
    load(&t, metrics);
    cache_config(&t, metrics);
    tokens(&t, metrics);
    speculation(&t, metrics);
    requests(&t, metrics);
    steps(&t, metrics);
    memory(&t, metrics);
    admission(&t, metrics);
    t.labels = "";
    http(&t, metrics);
    process(&t, metrics);
    if (t.page.failed) {
        bw_bytes_fini(&t.page);
        return NULL;
    }
    *n = t.page.n;
    return t.page.data;
}
