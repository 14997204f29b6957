/* The page of /metrics: names, types, labels and edges of the contract, and that Prometheus can read it. */
#include "lib/check.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "base/mem.h"
#include "lib/metrics_read.h"
#include "server/histogram.h"
#include "server/metrics.h"
#include "server/metrics_text.h"

static bw_metrics *create(const bw_metrics_options *options)
{
    bw_metrics *metrics;
    bw_error err;
    check_ok(bw_metrics_create(&metrics, options, &err), err);
    return metrics;
}

static bw_metrics *example(void)
{
    bw_metrics_options options = example_metrics_options();
    return create(&options);
}

static metrics_read *render(bw_metrics *metrics)
{
    size_t n;
    char *page = bw_metrics_render(metrics, &n);
    check(page != NULL);
    metrics_read *read = metrics_read_page(page, n);
    bw_mem_free(page);
    return read;
}

/* name{engine="0",model_name="lamb",extra}; a static ring of 4 */
static const char *of_lamb(const char *name, const char *extra)
{
    static char ring[4][256];
    static int at;
    char *key = ring[at++ % 4];
    snprintf(key, sizeof ring[0], "%s{engine=\"0\",model_name=\"lamb\"%s%s}", name, *extra ? "," : "", extra);
    return key;
}

static double value(const metrics_read *read, const char *name, const char *extra)
{
    return metrics_read_value(read, of_lamb(name, extra));
}

static const char *type_of(const metrics_read *read, const char *family)
{
    for (int i = 0; i < read->n_families; i++)
        if (strcmp(read->families[i], family) == 0)
            return read->types[i];
    return "absent";
}

/* ---- what is there ------------------------------------------------------------------------------- */

static const struct family {
    const char *type, *name;
} contract[] = {
    { "gauge", "vllm:num_requests_running" },
    { "gauge", "vllm:num_requests_waiting" },
    { "gauge", "vllm:num_requests_waiting_by_reason" },
    { "gauge", "vllm:kv_cache_usage_perc" },
    { "gauge", "vllm:cache_config_info" },
    { "gauge", "vllm:lora_requests_info" },
    { "counter", "vllm:prompt_tokens_total" },
    { "counter", "vllm:generation_tokens_total" },
    { "counter", "vllm:prompt_tokens_by_source_total" },
    { "counter", "vllm:prompt_tokens_cached_total" },
    { "counter", "vllm:prefix_cache_queries_total" },
    { "counter", "vllm:prefix_cache_hits_total" },
    { "counter", "vllm:mm_cache_queries_total" },
    { "counter", "vllm:mm_cache_hits_total" },
    { "counter", "vllm:num_preemptions_total" },
    { "counter", "vllm:request_success_total" },
    { "counter", "vllm:spec_decode_num_drafts_total" },
    { "counter", "vllm:spec_decode_num_draft_tokens_total" },
    { "counter", "vllm:spec_decode_num_accepted_tokens_total" },
    { "counter", "vllm:spec_decode_num_accepted_tokens_per_pos_total" },
    { "histogram", "vllm:time_to_first_token_seconds" },
    { "histogram", "vllm:inter_token_latency_seconds" },
    { "histogram", "vllm:request_time_per_output_token_seconds" },
    { "histogram", "vllm:e2e_request_latency_seconds" },
    { "histogram", "vllm:request_queue_time_seconds" },
    { "histogram", "vllm:request_prefill_time_seconds" },
    { "histogram", "vllm:request_decode_time_seconds" },
    { "histogram", "vllm:request_inference_time_seconds" },
    { "histogram", "vllm:request_prompt_tokens" },
    { "histogram", "vllm:request_generation_tokens" },
    { "histogram", "vllm:request_params_max_tokens" },
    { "histogram", "vllm:request_max_num_generation_tokens" },
    { "histogram", "vllm:request_prefill_kv_computed_tokens" },
    { "histogram", "vllm:request_params_n" },
    { "histogram", "vllm:iteration_tokens_total" },
    { "histogram", "bellwether_step_seconds" },
    { "histogram", "bellwether_step_rows" },
    { "histogram", "bellwether_itl_seconds" },
    { "histogram", "bellwether_draft_length" },
    { "counter", "bellwether_requests_rejected_total" },
    { "counter", "bellwether_clients_gone_total" },
    { "gauge", "bellwether_memory_bytes" },
    { "gauge", "bellwether_recurrent_slots" },
    { "gauge", "bellwether_prefix_tree_pages" },
    { "gauge", "bellwether_prefix_tree_snapshots" },
    { "gauge", "bellwether_load_seconds" },
    { "gauge", "bellwether_build_info" },
    { "counter", "http_requests_total" },
    { "histogram", "http_request_duration_seconds" },
    { "counter", "process_cpu_seconds_total" },
    { "gauge", "process_start_time_seconds" },
    { "gauge", "process_resident_memory_bytes" },
    { "gauge", "process_virtual_memory_bytes" },
    { "gauge", "process_open_fds" },
    { "gauge", "process_max_fds" },
};

TEST(every_family_of_the_contract_is_there_before_anything_happened)
{
    bw_metrics *metrics = example();
    metrics_read *read = render(metrics);
    for (size_t i = 0; i < BW_COUNT(contract); i++)
        check_str(type_of(read, contract[i].name), contract[i].type);
    /* samples too, but for requests nobody made */
    for (int i = 0; i < read->n_families; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", read->families[i], strcmp(read->types[i], "histogram") == 0 ? "_count" : "");
        check_that(metrics_read_has_name(read, name) == (strncmp(name, "http_", 5) != 0), "%s", name);
    }
    for (int i = 0; i < BW_MAX_DRAFTS; i++) {
        char position[32];
        snprintf(position, sizeof position, "position=\"%d\"", i);
        check(value(read, "vllm:spec_decode_num_accepted_tokens_per_pos_total", position) == 0);
    }
    static const char *const reasons[] = { "stop", "length", "abort", "error" };
    for (size_t i = 0; i < BW_COUNT(reasons); i++) {
        char reason[64];
        snprintf(reason, sizeof reason, "finished_reason=\"%s\"", reasons[i]);
        check(value(read, "vllm:request_success_total", reason) == 0);
    }
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

TEST(every_family_is_described_in_the_manual)
{
    bw_metrics_options options = example_metrics_options();
    options.legacy = true;
    bw_metrics *metrics = create(&options);
    metrics_read *read = render(metrics);
    size_t n;
    char *manual = read_file(repo_path("docs/metrics.md"), &n);
    for (int i = 0; i < read->n_families; i++) {
        char quoted[160];
        snprintf(quoted, sizeof quoted, "`%s", read->families[i]);
        check_that(strstr(manual, quoted) != NULL, "docs/metrics.md lacks %s", read->families[i]);
    }
    free(manual);
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

/* ---- values -------------------------------------------------------------------------------------- */

TEST(gauges_and_counters_show_the_last_figures_of_the_engine)
{
    bw_metrics *metrics = example();
    example_metrics_activity(metrics);
    metrics_read *read = render(metrics);
    check(value(read, "vllm:num_requests_running", "") == 3);
    check(value(read, "vllm:num_requests_waiting", "") == 2);
    check(value(read, "vllm:num_requests_waiting_by_reason", "reason=\"capacity\"") == 2);
    check(value(read, "vllm:num_requests_waiting_by_reason", "reason=\"deferred\"") == 0);
    check(value(read, "vllm:kv_cache_usage_perc", "") == 0.75); /* 3 of 4 slots, 128 of 512 pages */
    check(value(read, "vllm:prompt_tokens_total", "") == 1000);
    check(value(read, "vllm:prompt_tokens_by_source_total", "source=\"local_compute\"") == 400);
    check(value(read, "vllm:prompt_tokens_by_source_total", "source=\"local_cache_hit\"") == 600);
    check(value(read, "vllm:prompt_tokens_by_source_total", "source=\"external_kv_transfer\"") == 0);
    check(value(read, "vllm:prefix_cache_queries_total", "") == 1000);
    check(value(read, "vllm:prefix_cache_hits_total", "") == 600);
    check(value(read, "vllm:generation_tokens_total", "") == 300);
    check(value(read, "vllm:num_preemptions_total", "") == 1);
    check(value(read, "vllm:spec_decode_num_drafts_total", "") == 90);
    check(value(read, "vllm:spec_decode_num_draft_tokens_total", "") == 270);
    check(value(read, "vllm:spec_decode_num_accepted_tokens_total", "") == 210);
    check(value(read, "vllm:spec_decode_num_accepted_tokens_per_pos_total", "position=\"1\"") == 70);
    check(value(read, "bellwether_kv_pages", "state=\"free\"") == 320);
    check(value(read, "bellwether_recurrent_slots", "state=\"free\"") == 1);
    check(value(read, "bellwether_prefix_tree_pages", "") == 80);
    check(value(read, "bellwether_prefix_tree_snapshots", "") == 9);
    check(value(read, "bellwether_memory_bytes", "what=\"checkpoints\",state=\"used\"") == 5000000);
    check(value(read, "bellwether_memory_bytes", "what=\"weights\",state=\"planned\"") == 28000000);
    check(value(read, "bellwether_waiting_prompt_tokens", "") == 700);
    check(value(read, "bellwether_load_seconds", "") == 0.25);
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

TEST(usage_of_the_cache_is_pages_where_they_are_scarcer)
{
    bw_metrics *metrics = example();
    bw_metrics_engine(metrics, &(bw_engine_stats){ .pages = 100, .pages_running = 90, .pages_cached = 10, .slots = 32, .slots_running = 4 });
    metrics_read *read = render(metrics);
    check(value(read, "vllm:kv_cache_usage_perc", "") == 0.9);
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

TEST(the_cache_info_has_plain_integers_and_no_adapters)
{
    bw_metrics *metrics = example();
    for (int round = 0; round < 2; round++) { /* from the plan, then from the engine */
        metrics_read *read = render(metrics);
        char *line = strstr(read->text, "\nvllm:cache_config_info{");
        check(line != NULL);
        check(strstr(line, "block_size=\"64\",num_gpu_blocks=\"512\",enable_prefix_caching=\"True\"") != NULL);
        check(strstr(line, "cache_dtype=\"f16\"} 1\n") != NULL);
        check(value(read, "vllm:lora_requests_info",
                    "max_lora=\"0\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"") > 1.7e9);
        metrics_read_free(read);
        example_metrics_activity(metrics);
    }
    bw_metrics_destroy(metrics);
}

TEST(counters_never_fall)
{
    bw_metrics *metrics = example();
    example_metrics_activity(metrics);
    metrics_read *before = render(metrics);
    bw_metrics_engine(metrics, &(bw_engine_stats){ .running = 1 });
    example_metrics_activity(metrics);
    metrics_read *after = render(metrics);
    int counters = 0;
    for (int i = 0; i < before->n_series; i++) {
        const char *key = before->series[i].key;
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(key, "{"), key);
        bool counter = strcmp(type_of(before, name), "counter") == 0 || strstr(name, "_bucket") || strstr(name, "_sum") ||
                       strstr(name, "_count");
        if (!counter)
            continue;
        counters++;
        check_that(metrics_read_value(after, key) >= before->series[i].value, "%s fell", key);
    }
    check(counters > 300);
    metrics_read_free(before);
    metrics_read_free(after);
    bw_metrics_destroy(metrics);
}

TEST(a_finished_sequence_is_counted_once_everywhere)
{
    bw_metrics *metrics = example();
    example_metrics_activity(metrics);
    metrics_read *read = render(metrics);
    static const struct {
        const char *name;
        double sum;
    } sums[] = {
        { "vllm:e2e_request_latency_seconds", 3.75 },       { "vllm:request_queue_time_seconds", 0.5 },
        { "vllm:request_prefill_time_seconds", 1 },         { "vllm:request_decode_time_seconds", 2 },
        { "vllm:request_inference_time_seconds", 3 },       { "vllm:request_time_per_output_token_seconds", 0.1 },
        { "vllm:request_prompt_tokens", 50 },               { "vllm:request_generation_tokens", 21 },
        { "vllm:request_prefill_kv_computed_tokens", 10 },  { "vllm:request_params_max_tokens", 100 },
        { "vllm:request_max_num_generation_tokens", 21 },   { "vllm:request_params_n", 1 },
        { "vllm:time_to_first_token_seconds", 0.05 },
    };
    for (size_t i = 0; i < BW_COUNT(sums); i++) {
        char name[128];
        snprintf(name, sizeof name, "%s_count", sums[i].name);
        check_that(value(read, name, "") == 1, "%s is %g", name, value(read, name, ""));
        snprintf(name, sizeof name, "%s_sum", sums[i].name);
        check_that(value(read, name, "") == sums[i].sum, "%s is %g", name, value(read, name, ""));
    }
    check(value(read, "vllm:request_success_total", "finished_reason=\"stop\"") == 1);
    check(value(read, "vllm:inter_token_latency_seconds_count", "") == 2);
    check(value(read, "bellwether_itl_seconds_count", "") == 2);
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

TEST(times_that_never_came_are_not_observed)
{
    bw_metrics *metrics = example();
    bw_metrics_sequence s = { .outcome = BW_OUTCOME_LENGTH, .n = 1, .max_tokens = 0, .usage = { .prompt_tokens = 5 },
                              .queued_s = 0, .scheduled_s = 1, .first_token_s = -1, .last_token_s = -1, .end_s = 2 };
    bw_metrics_finished(metrics, &s);
    s.outcome = BW_OUTCOME_ABORT;
    bw_metrics_finished(metrics, &s);
    s.outcome = BW_OUTCOME_ERROR;
    bw_metrics_finished(metrics, &s);
    bw_metrics_first_token(metrics, -1);
    bw_metrics_gap(metrics, NAN);
    bw_metrics_gap(metrics, INFINITY);
    bw_metrics_step(metrics, &(bw_step_info){ .seconds = 0 }); /* nothing to do */
    metrics_read *read = render(metrics);
    check(value(read, "vllm:request_queue_time_seconds_count", "") == 1);
    check(value(read, "vllm:request_prefill_time_seconds_count", "") == 0);
    check(value(read, "vllm:request_decode_time_seconds_count", "") == 0);
    check(value(read, "vllm:request_time_per_output_token_seconds_count", "") == 0);
    check(value(read, "vllm:time_to_first_token_seconds_count", "") == 0);
    check(value(read, "vllm:inter_token_latency_seconds_count", "") == 0);
    check(value(read, "vllm:iteration_tokens_total_count", "") == 0);
    check(value(read, "vllm:e2e_request_latency_seconds_count", "") == 1); /* not of those broken off */
    check(value(read, "vllm:request_success_total", "finished_reason=\"length\"") == 1);
    check(value(read, "vllm:request_success_total", "finished_reason=\"abort\"") == 1);
    check(value(read, "vllm:request_success_total", "finished_reason=\"error\"") == 1);
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

TEST(choices_of_one_request_are_one_request)
{
    bw_metrics *metrics = example();
    bw_metrics_sequence s = { .outcome = BW_OUTCOME_STOP, .n = 2, .more_choices = true, .max_tokens = 9,
                              .usage = { .prompt_tokens = 5, .generated_tokens = 7 }, .end_s = 2 };
    bw_metrics_finished(metrics, &s);
    s.more_choices = false;
    s.most_generated = 7;
    s.usage.generated_tokens = 3;
    bw_metrics_finished(metrics, &s);
    metrics_read *read = render(metrics);
    check(value(read, "vllm:request_params_n_count", "") == 1);
    check(value(read, "vllm:request_params_n_sum", "") == 2);
    check(value(read, "vllm:request_max_num_generation_tokens_sum", "") == 7);
    check(value(read, "vllm:request_generation_tokens_count", "") == 2);
    check(value(read, "vllm:request_generation_tokens_sum", "") == 10);
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

TEST(steps_are_told_apart_by_what_they_held)
{
    bw_metrics *metrics = example();
    example_metrics_activity(metrics);
    metrics_read *read = render(metrics);
    static const char *const kinds[] = { "prefill", "decode", "verify", "mixed" };
    static const double seconds[] = { 0.02, 0.004, 0.006, 0.03 };
    for (size_t i = 0; i < BW_COUNT(kinds); i++) {
        char kind[32];
        snprintf(kind, sizeof kind, "kind=\"%s\"", kinds[i]);
        check(value(read, "bellwether_step_seconds_count", kind) == 1);
        check(value(read, "bellwether_step_seconds_sum", kind) == seconds[i]);
    }
    check(value(read, "vllm:iteration_tokens_total_sum", "") == 64 + 3 + 12 + 76);
    check(value(read, "bellwether_step_rows_count", "") == 4);
    check(value(read, "bellwether_draft_length_count", "") == 3); /* steps that decoded */
    check(value(read, "bellwether_draft_length_sum", "") == 0 + 3 + 3);
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

TEST(http_counts_by_route_method_and_class_and_never_by_what_clients_send)
{
    bw_metrics *metrics = example();
    example_metrics_activity(metrics);
    bw_metrics_http(metrics, "/secret\"path", "BREW", 418, 0.5);
    bw_metrics_http(metrics, NULL, NULL, 404, 0.5);
    bw_metrics_http(metrics, "metrics", "GET", 7, 0.5); /* no status at all */
    bw_metrics_rejected(metrics, "whatever");
    bw_metrics_rejected(metrics, "context");
    bw_metrics_client_gone(metrics, "whenever");
    metrics_read *read = render(metrics);
    check(metrics_read_value(read, "http_requests_total{handler=\"chat_completions\",method=\"POST\",status=\"2xx\"}") == 1);
    check(metrics_read_value(read, "http_requests_total{handler=\"chat_completions\",method=\"POST\",status=\"4xx\"}") == 1);
    check(metrics_read_value(read, "http_requests_total{handler=\"none\",method=\"other\",status=\"4xx\"}") == 2);
    check(metrics_read_value(read, "http_requests_total{handler=\"metrics\",method=\"GET\",status=\"5xx\"}") == 1);
    check(metrics_read_value(read, "http_request_duration_seconds_count{handler=\"chat_completions\",method=\"POST\"}") == 2);
    check(value(read, "bellwether_requests_rejected_total", "reason=\"queue_full\"") == 1);
    check(value(read, "bellwether_requests_rejected_total", "reason=\"context\"") == 1);
    check(value(read, "bellwether_requests_rejected_total", "reason=\"other\"") == 1);
    check(value(read, "bellwether_clients_gone_total", "phase=\"decode\"") == 1);
    check(value(read, "bellwether_clients_gone_total", "phase=\"other\"") == 1);
    check(!strstr(read->text, "secret") && !strstr(read->text, "BREW") && !strstr(read->text, "whatever"));
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

/* ---- edges --------------------------------------------------------------------------------------- */

/* The edges of a family's first histogram, in the order written, as text. */
static void edges_of(const metrics_read *read, const char *family, char *out, size_t size)
{
    char bucket[160];
    snprintf(bucket, sizeof bucket, "%s_bucket{", family);
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; i < read->n_series && !strstr(out, "+Inf"); i++)
        if (strncmp(read->series[i].key, bucket, strlen(bucket)) == 0) {
            const char *le = strstr(read->series[i].key, "le=\"") + 4;
            n += (size_t)snprintf(out + n, size - n, "%s%.*s", n ? " " : "", (int)strcspn(le, "\""), le);
        }
}

#define T "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0 160.0 640.0 2560.0 +Inf"
#define I "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0 +Inf"
#define L "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 15.0 20.0 30.0 40.0 50.0 60.0 120.0 240.0 480.0 960.0 1920.0 7680.0 +Inf"
#define N "1.0 2.0 5.0 10.0 20.0 50.0 100.0 200.0 500.0 1000.0 2000.0 5000.0 10000.0 20000.0 +Inf"

TEST(edges_are_the_contracts_and_written_as_pythons_client_writes_them)
{
    static const struct {
        const char *name, *edges;
    } wanted[] = {
        { "vllm:time_to_first_token_seconds", T },
        { "vllm:inter_token_latency_seconds", I },
        { "vllm:time_per_output_token_seconds", I },
        { "vllm:request_time_per_output_token_seconds", I },
        { "vllm:e2e_request_latency_seconds", L },
        { "vllm:request_queue_time_seconds", L },
        { "vllm:request_prefill_time_seconds", L },
        { "vllm:request_decode_time_seconds", L },
        { "vllm:request_inference_time_seconds", L },
        { "vllm:request_prompt_tokens", N },
        { "vllm:request_generation_tokens", N },
        { "vllm:request_params_max_tokens", N },
        { "vllm:request_max_num_generation_tokens", N },
        { "vllm:request_prefill_kv_computed_tokens", N },
        { "vllm:request_params_n", "1.0 2.0 5.0 10.0 20.0 +Inf" },
        { "vllm:iteration_tokens_total",
          "1.0 8.0 16.0 32.0 64.0 128.0 256.0 512.0 1024.0 2048.0 4096.0 8192.0 16384.0 +Inf" },
    };
    bw_metrics_options options = example_metrics_options();
    options.legacy = true;
    bw_metrics *metrics = create(&options);
    metrics_read *read = render(metrics);
    for (size_t i = 0; i < BW_COUNT(wanted); i++) {
        char edges[1024];
        edges_of(read, wanted[i].name, edges, sizeof edges);
        check_str(edges, wanted[i].edges);
    }
    char ours[1024];
    edges_of(read, "bellwether_itl_seconds", ours, sizeof ours);
    check(strncmp(ours, "0.0005 0.001 ", 13) == 0);
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

TEST(an_observation_falls_below_the_edge_it_equals)
{
    bw_histogram histogram;
    bw_histogram_init(&histogram, &bw_edges_choices);
    static const double values[] = { 0, 1, 1.5, 2, 20, 21, 1e300, -1, NAN, INFINITY };
    for (size_t i = 0; i < BW_COUNT(values); i++)
        bw_histogram_observe(&histogram, values[i]);
    static const uint64_t counts[] = { 2, 2, 0, 0, 1, 2 };
    for (size_t i = 0; i < BW_COUNT(counts); i++)
        check_int(histogram.counts[i], counts[i]);
    check_int(histogram.n, 7);
}

TEST(edges_of_any_context_fit_and_rise)
{
    static const double limits[] = { -1, 0, 0.5, 1, 2, 4.9, 262144, 1000000, 2147483647, 1e300 };
    static const int sizes[] = { 1, 1, 1, 1, 2, 2, 17, 19, 29, BW_MAX_EDGES };
    for (size_t i = 0; i < BW_COUNT(limits); i++) {
        bw_edges edges = bw_edges_125(limits[i]);
        check_int(edges.n, sizes[i]);
        for (int k = 1; k < edges.n; k++)
            check(edges.at[k] > edges.at[k - 1] && edges.at[k] <= limits[i]);
    }
    bw_histogram histogram;
    bw_edges edges = bw_edges_125(5e6);
    bw_histogram_init(&histogram, &edges);
    bw_metrics_text text = { .labels = "" };
    bw_metrics_text_family(&text, "x", "histogram", "x.");
    bw_metrics_text_histogram(&text, "", &histogram);
    check(strstr(text.page.data, "x_bucket{le=\"500000.0\"} 0\nx_bucket{le=\"1e+06\"} 0\nx_bucket{le=\"2e+06\"} 0\n"
                                 "x_bucket{le=\"5e+06\"} 0\nx_bucket{le=\"+Inf\"} 0\nx_sum 0\nx_count 0\n") != NULL);
    bw_bytes_fini(&text.page);
}

/* ---- names and numbers --------------------------------------------------------------------------- */

TEST(label_values_are_escaped_and_always_utf8)
{
    static const struct {
        const char *raw, *written;
    } cases[] = {
        { "plain", "plain" },
        { "a\\b\"c\nd", "a\\\\b\\\"c\\nd" },
        { "\xC3\xA9", "\xC3\xA9" },
        { "x\xFFy", "x\xEF\xBF\xBDy" },
        { "cut\xC3", "cut\xEF\xBF\xBD" },
        { "", "unknown" },
        { "} 1\nfake 2", "} 1\\nfake 2" },
    };
    for (size_t i = 0; i < BW_COUNT(cases); i++) {
        bw_metrics_options options = example_metrics_options();
        options.model_name = options.quantization = options.kv_type = cases[i].raw;
        bw_metrics *metrics = create(&options);
        metrics_read *read = render(metrics);
        char key[256];
        snprintf(key, sizeof key, "vllm:num_requests_running{engine=\"0\",model_name=\"%s\"}", cases[i].written);
        check(metrics_read_has(read, key));
        snprintf(key, sizeof key,
                 "bellwether_build_info{engine=\"0\",model_name=\"%s\",version=\"%s\",backend=\"cpu avx2\",quantization=\"%s\"}",
                 cases[i].written, bw_version(), cases[i].written);
        check(metrics_read_has(read, key));
        metrics_read_free(read);
        bw_metrics_destroy(metrics);
    }
}

TEST(one_process_has_one_series_per_name_and_labels_of_the_model_on_all_of_its_own)
{
    bw_metrics *metrics = example();
    example_metrics_activity(metrics);
    metrics_read *read = render(metrics); /* which refuses a series that comes twice */
    for (int i = 0; i < read->n_series; i++) {
        const char *key = read->series[i].key;
        bool ours = strncmp(key, "vllm:", 5) == 0 || strncmp(key, "bellwether_", 11) == 0;
        check_that(ours == (strstr(key, "{engine=\"0\",model_name=\"lamb\"") != NULL), "%s", key);
    }
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

TEST(old_names_come_only_when_asked_for)
{
    static const char *const old[] = { "vllm:time_per_output_token_seconds", "vllm:gpu_cache_usage_perc",
                                       "vllm:gpu_prefix_cache_queries_total", "vllm:gpu_prefix_cache_hits_total" };
    for (int legacy = 0; legacy < 2; legacy++) {
        bw_metrics_options options = example_metrics_options();
        options.legacy = legacy;
        bw_metrics *metrics = create(&options);
        metrics_read *read = render(metrics);
        for (size_t i = 0; i < BW_COUNT(old); i++)
            check_int(strcmp(type_of(read, old[i]), "absent") != 0, legacy);
        metrics_read_free(read);
        bw_metrics_destroy(metrics);
    }
}

TEST(without_a_prefix_cache_nothing_is_looked_for)
{
    bw_metrics_options options = example_metrics_options();
    options.prefix_cache = false;
    options.plan = NULL; /* and nothing is known of the memory */
    bw_metrics *metrics = create(&options);
    bw_metrics_engine(metrics, &(bw_engine_stats){ .prompt_tokens = 100 });
    metrics_read *read = render(metrics);
    check(value(read, "vllm:prompt_tokens_total", "") == 100);
    check(value(read, "vllm:prefix_cache_queries_total", "") == 0);
    check(strstr(read->text, "enable_prefix_caching=\"False\"") != NULL);
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

TEST(figures_of_the_process_are_plausible)
{
    bw_metrics *metrics = example();
    metrics_read *read = render(metrics);
    check(metrics_read_value(read, "process_open_fds") >= 3);
    check(metrics_read_value(read, "process_open_fds") <= metrics_read_value(read, "process_max_fds"));
    check(metrics_read_value(read, "process_resident_memory_bytes") > 100000);
    check(metrics_read_value(read, "process_virtual_memory_bytes") >= metrics_read_value(read, "process_resident_memory_bytes"));
    double age = (double)time(NULL) - metrics_read_value(read, "process_start_time_seconds");
    check_that(age > -5 && age < 3600, "started %g s ago", age);
    metrics_read_free(read);
    bw_metrics_destroy(metrics);
}

/* ---- memory -------------------------------------------------------------------------------------- */

TEST(creating_survives_every_failing_allocation)
{
    bw_metrics_options options = example_metrics_options();
    bool failed = true;
    for (long n = 1; failed; n++) {
        check(n < 100);
        bw_metrics *metrics;
        bw_error err = { 0 };
        bw_mem_fail_at(n);
        bw_status st = bw_metrics_create(&metrics, &options, &err);
        failed = bw_mem_fail_at(0);
        check_int(st, failed ? BW_E_MEMORY : BW_OK);
        check((metrics == NULL) == failed);
        bw_metrics_destroy(metrics);
    }
}

TEST(rendering_survives_every_failing_allocation)
{
    bw_metrics *metrics = example();
    example_metrics_activity(metrics);
    bool failed = true;
    for (long n = 1; failed; n++) {
        check(n < 100);
        size_t size;
        bw_mem_fail_at(n);
        char *page = bw_metrics_render(metrics, &size);
        failed = bw_mem_fail_at(0);
        check((page == NULL) == failed);
        bw_mem_free(page);
    }
    bw_metrics_destroy(metrics);
}

TESTS_MAIN(ENTRY(every_family_of_the_contract_is_there_before_anything_happened),
           ENTRY(every_family_is_described_in_the_manual),
           ENTRY(gauges_and_counters_show_the_last_figures_of_the_engine),
           ENTRY(usage_of_the_cache_is_pages_where_they_are_scarcer),
           ENTRY(the_cache_info_has_plain_integers_and_no_adapters), ENTRY(counters_never_fall),
           ENTRY(a_finished_sequence_is_counted_once_everywhere), ENTRY(times_that_never_came_are_not_observed),
           ENTRY(choices_of_one_request_are_one_request), ENTRY(steps_are_told_apart_by_what_they_held),
           ENTRY(http_counts_by_route_method_and_class_and_never_by_what_clients_send),
           ENTRY(edges_are_the_contracts_and_written_as_pythons_client_writes_them),
           ENTRY(an_observation_falls_below_the_edge_it_equals), ENTRY(edges_of_any_context_fit_and_rise),
           ENTRY(label_values_are_escaped_and_always_utf8),
           ENTRY(one_process_has_one_series_per_name_and_labels_of_the_model_on_all_of_its_own),
           ENTRY(old_names_come_only_when_asked_for), ENTRY(without_a_prefix_cache_nothing_is_looked_for),
           ENTRY(figures_of_the_process_are_plausible), ENTRY(creating_survives_every_failing_allocation),
           ENTRY(rendering_survives_every_failing_allocation))
