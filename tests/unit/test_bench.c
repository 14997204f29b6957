/* What `bellwether bench` computes from what it measured: medians, and a step's bytes and multiply-adds,
 * against numbers worked out by hand. */
#include "lib/check.h"

#include <math.h>

#include "base/cpuid.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/machine.h"
#include "bench/statistics.h"
#include "bench/step_cost.h"
#include "bench/workload.h"
#include "engine/model_open.h"
#include "ops/cpu/cpu.h"

/* ---- statistics ------------------------------------------------------------------------------ */

static void check_summary(double *values, int n, double median, double smallest, double largest)
{
    const bw_summary s = bw_summary_of(values, n);
    check_that(s.median == median && s.smallest == smallest && s.largest == largest,
               "got %g (%g..%g), want %g (%g..%g)", s.median, s.smallest, s.largest, median, smallest, largest);
}

TEST(the_median_is_the_middle_and_the_spread_the_ends)
{
    check_summary((double[]){ 7 }, 1, 7, 7, 7);
    check_summary((double[]){ 3, 1 }, 2, 2, 1, 3);
    check_summary((double[]){ 5, 1, 100 }, 3, 5, 1, 100);
    check_summary((double[]){ 4, 2, 8, 6 }, 4, 5, 2, 8);
    check_summary((double[]){ -1, 0.5, 0.25, 3, -2 }, 5, 0.25, -2, 3);
}

/* ---- a model made of numbers ----------------------------------------------------------------- */

static bw_config config;
static bw_net net;
static bw_net_layer layers[2];
static bw_expert experts[8];

static bw_weight matrix(bw_dtype type, int rows, int cols)
{
    return (bw_weight){ .type = type, .int8 = !bw_dtype_is_float(type), .rows = rows, .cols = cols };
}

static bw_expert mlp(void)
{
    return (bw_expert){ matrix(BW_Q4_0, 64, 256), matrix(BW_Q4_0, 64, 256), matrix(BW_Q4_0, 256, 64) };
}

static void attention_weights(bw_net_layer *layer)
{
    layer->attention = true;
    layer->attn.q = matrix(BW_Q8_0, 256, 256);
    layer->attn.k = layer->attn.v = matrix(BW_BF16, 64, 256);
    layer->attn.o = matrix(BW_Q4_0, 256, 128);
    layer->ffn = mlp();
}

/* A Gated DeltaNet layer, then one of attention: 2 query heads on 1 KV head of 64; 1 key head of 32, 2 value
 * heads of 24, which are kept as 32; a vocabulary of 100. */
static void make_model(bool moe)
{
    config = (bw_config){ .moe = moe, .hidden = 256, .n_layers = 2, .vocab = 100 };
    net = (bw_net){ .config = &config, .layers = layers, .has_mtp = true };
    net.attn = (bw_attn_shape){ .n_heads = 2, .n_kv_heads = 1, .head_dim = 64 };
    net.gdn = (bw_gdn_shape){ .n_k_heads = 1, .n_v_heads = 2, .d_k = 32, .d_v = 24, .conv_width = 4, .conv_dim = 112 };
    net.embed = net.head = matrix(BW_BF16, 100, 256);
    layers[0] = layers[1] = (bw_net_layer){ 0 };
    layers[0].gdn.qkv = matrix(BW_Q8_0, 112, 256);
    layers[0].gdn.z = matrix(BW_Q8_0, 48, 256);
    layers[0].gdn.a = layers[0].gdn.b = matrix(BW_F32, 2, 256);
    layers[0].gdn.out = matrix(BW_BF16, 256, 48);
    layers[0].ffn = mlp();
    attention_weights(&layers[1]);
    attention_weights(&net.mtp.layer);
    net.mtp.fc = matrix(BW_Q8_0, 256, 512);
    for (int e = 0; e < 8; e++)
        experts[e] = mlp();
    net.moe = (bw_moe_shape){ .n_experts = 8, .n_used = 2, .ffn = 64, .shared_ffn = 64 };
    for (int i = 0; i < 2; i++) {
        layers[i].moe.router = matrix(BW_F32, 8, 256);
        layers[i].moe.experts = experts;
        layers[i].moe.shared = mlp();
    }
}

static void check_cost(const bw_counted_span *spans, int n_spans, bool mtp, double bytes, double int8_macs,
                       double f32_macs)
{
    const bw_counted_step step = { .spans = spans, .n_spans = n_spans, .mtp = mtp };
    const bw_step_cost c = bw_step_cost_count(&net, BW_CODEC_F16, &step);
    check_that(c.bytes == bytes && c.int8_macs == int8_macs && c.f32_macs == f32_macs,
               "%.17g bytes, %.17g int8, %.17g f32; want %.17g, %.17g, %.17g", c.bytes, c.int8_macs, c.f32_macs, bytes,
               int8_macs, f32_macs);
}

/* Rows of Q8_0 take 34 bytes in 32 values, of Q4_0 18, of BF16 2 a value.
 * attention: q 256 x 272 = 69,632, k and v 64 x 512 = 32,768 each, o 256 x 72 = 18,432; 153,600 bytes;
 *            int8 65,536 + 32,768 a row, f32 2 x 16,384 a row;
 *            a position's key and value 2 x 64 x 2 = 256 bytes; 2 heads x 64 x 2 = 256 f32 per row and position
 * delta rule: qkv 112 x 272 = 30,464, z 48 x 272 = 13,056, a and b 2 x 1,024 each, out 256 x 96 = 24,576,
 *            taps 112 x 4 x 4 = 1,792; 73,984 bytes; int8 28,672 + 12,288 a row, f32 2 x 512 + 12,288 a row;
 *            state 2 x 32 x 32 and window 3 x 112 floats, read and written: 19,072 bytes;
 *            3 x 2,048 + 448 = 6,592 f32 a row; a pending row 112 + 4 floats = 464 bytes
 * MLP:       3 x 9,216 = 27,648 bytes, int8 49,152 a row
 * head:      100 x 512 = 51,200 bytes, f32 25,600 a row; a row of the embedding 512 bytes */
TEST(a_plain_step_reads_every_matrix_once)
{
    make_model(false);
    const bw_counted_span span = { .first_pos = 10, .n_rows = 1, .n_final = 1, .n_logits = 1 };
    check_cost(&span, 1, false, 153600 + 10 * 256 + 256 + 73984 + 19072 + 2 * 27648 + 51200 + 512,
               98304 + 40960 + 2 * 49152, 32768 + 11 * 256 + 13312 + 6592 + 25600);
}

TEST(a_verify_reads_the_same_matrices_and_multiplies_more)
{
    make_model(false);
    /* 4 rows see 11 + 12 + 13 + 14 = 50 positions; 2 pending rows are applied, 3 become pending */
    const bw_counted_span span = { .first_pos = 10, .n_rows = 4, .n_final = 1, .n_logits = 4, .n_pending = 2 };
    check_cost(&span, 1, false, 153600 + 10 * 256 + 4 * 256 + 73984 + 19072 + 5 * 464 + 2 * 27648 + 51200 + 4 * 512,
               4 * (98304 + 40960 + 2 * 49152), 4 * 32768 + 50 * 256 + 4 * 13312 + 6 * 6592 + 4 * 25600);
}

TEST(a_prompt_wants_one_row_of_logits_or_none)
{
    make_model(false);
    const double body = 153600 + 73984 + 19072 + 2 * 27648;
    const double int8 = 3 * (98304 + 40960 + 2 * 49152), f32 = 3 * 32768 + 6 * 256 + 3 * 13312 + 3 * 6592;
    const bw_counted_span last = { .n_rows = 3, .n_final = 3, .n_logits = 1 }, inner = { .n_rows = 3, .n_final = 3 };
    check_cost(&last, 1, false, body + 3 * 256 + 3 * 512 + 51200, int8, f32 + 25600);
    check_cost(&inner, 1, false, body + 3 * 256 + 3 * 512, int8, f32);
}

TEST(sequences_share_matrices_and_have_a_state_each)
{
    make_model(false);
    const bw_counted_span spans[] = { { .first_pos = 10, .n_rows = 1, .n_final = 1, .n_logits = 1 },
                                   { .first_pos = 100, .n_rows = 1, .n_final = 1, .n_logits = 1 } };
    check_cost(spans, 2, false, 153600 + 110 * 256 + 2 * 256 + 73984 + 2 * 19072 + 2 * 27648 + 51200 + 2 * 512,
               2 * (98304 + 40960 + 2 * 49152), 2 * 32768 + 112 * 256 + 2 * 13312 + 2 * 6592 + 2 * 25600);
}

TEST(f32_pages_are_twice_as_large)
{
    make_model(false);
    const bw_counted_span span = { .first_pos = 10, .n_rows = 1, .n_final = 1, .n_logits = 1 };
    const bw_counted_step step = { .spans = &span, .n_spans = 1 };
    const bw_step_cost f16 = bw_step_cost_count(&net, BW_CODEC_F16, &step);
    check(bw_step_cost_count(&net, BW_CODEC_F32, &step).bytes - f16.bytes == 11 * 256);
}

/* The head's keys: embedding 512, fc 256 x 544 = 139,264, k and v 65,536, written 256; int8 131,072, f32 32,768.
 * A draft: q and o 88,064, MLP 27,648, head 51,200; int8 98,304 + 49,152, f32 25,600. */
TEST(each_draft_reads_the_mtp_head_again)
{
    make_model(false);
    const bw_counted_span plain = { .first_pos = 10, .n_rows = 1, .n_final = 1, .n_logits = 1 };
    const bw_counted_step step = { .spans = &plain, .n_spans = 1 };
    const bw_step_cost base = bw_step_cost_count(&net, BW_CODEC_F16, &step);
    const double keys = 512 + 139264 + 65536 + 256, draft = 88064 + 27648 + 51200;
    bw_counted_span span = plain;
    check_cost(&span, 1, true, base.bytes + keys, base.int8_macs + 131072, base.f32_macs + 32768);
    span.n_chain = 2; /* sees 11 positions, then 12; the second draft writes its key first */
    check_cost(&span, 1, true, base.bytes + 2 * keys + 2 * draft + 21 * 256, base.int8_macs + 2 * 131072 + 2 * 147456,
               base.f32_macs + 2 * 32768 + 2 * 25600 + 23 * 256);
}

TEST(drafts_read_the_rows_of_the_head_they_are_chosen_from)
{
    make_model(false);
    bw_counted_span spans[] = {
        { .first_pos = 5, .n_rows = 1, .n_final = 1, .n_logits = 1, .n_chain = 1, .n_listed = 3 },
        { .first_pos = 5, .n_rows = 1, .n_final = 1, .n_logits = 1, .n_chain = 1, .n_listed = 4 },
    };
    bw_counted_step step = { .spans = spans, .n_spans = 2, .mtp = true };
    const bw_step_cost all = bw_step_cost_count(&net, BW_CODEC_F16, &step);
    step.n_first = 16; /* 16 rows of both and 3 + 4 of one each, instead of 100 of both */
    const bw_step_cost some = bw_step_cost_count(&net, BW_CODEC_F16, &step);
    check(all.bytes - some.bytes == (100 - 16 - 7) * 512);
    check(all.f32_macs - some.f32_macs == (200 - 32 - 7) * 256 && all.int8_macs == some.int8_macs);
    net.head.packed = true; /* a panel of 16 rows for each listed token, but not more than the other 84 rows */
    const bw_step_cost panels = bw_step_cost_count(&net, BW_CODEC_F16, &step);
    check(panels.bytes - some.bytes == (3 * 16 - 3 + 4 * 16 - 4) * 512);
    spans[1].n_listed = 60;
    check(bw_step_cost_count(&net, BW_CODEC_F16, &step).bytes - some.bytes == (3 * 16 - 3 + 84 - 4) * 512);
}

TEST(experts_are_read_as_often_as_rows_choose_them)
{
    check(fabs(bw_step_cost_experts(8, 2, 1) - 2) < 1e-12);
    check(fabs(bw_step_cost_experts(8, 2, 2) - 3.5) < 1e-12); /* 8 (1 - (3/4)^2) */
    check(fabs(bw_step_cost_experts(8, 8, 1) - 8) < 1e-12);
    check(fabs(bw_step_cost_experts(256, 8, 1e6) - 256) < 1e-9);

    make_model(true);
    /* in each layer: router 8 x 1,024, shared MLP 27,648 and its gate 1,024, 3.5 experts; a row: int8 3 MLPs,
     * f32 2,048 + 256 */
    const bw_counted_span spans[] = { { .n_rows = 1, .n_final = 1 }, { .n_rows = 1, .n_final = 1 } };
    check_cost(spans, 2, false,
               153600 + 2 * 256 + 73984 + 2 * 19072 + 2 * 512 + 2 * (8192 + 27648 + 1024 + 3.5 * 27648),
               2 * (98304 + 40960 + 2 * 3 * 49152), 2 * 32768 + 2 * 256 + 2 * 13312 + 2 * 6592 + 2 * 2 * 2304);
}

TEST(types_are_named_by_what_a_step_multiplies)
{
    double bytes[BW_DTYPE_COUNT];
    make_model(false);
    bw_step_cost_by_type(&net, bytes);
    check(bytes[BW_Q8_0] == 69632 + 30464 + 13056 && bytes[BW_Q4_0] == 18432 + 2 * 27648);
    check(bytes[BW_BF16] == 65536 + 24576 + 51200 && bytes[BW_F32] == 4096 && bytes[BW_Q6_K] == 0);
}

/* The engine counts what a step reads too, of the file's matrices: the bytes are the same. */
TEST(a_steps_matrices_are_those_of_the_checkpoint)
{
    static const char *const paths[] = { "models/lamb", "tests/golden/moe-mlx" };
    for (size_t i = 0; i < BW_COUNT(paths); i++) {
        bw_model *model;
        bw_error err;
        double bytes[BW_DTYPE_COUNT], sum = 0;
        check_ok(bw_model_open(&model, repo_path(paths[i]), &(bw_model_options){ .n_threads = 1 }, &err), err);
        bw_step_cost_by_type(model->net, bytes);
        for (int t = 0; t < BW_DTYPE_COUNT; t++)
            sum += bytes[t];
        check(fabs(sum - (double)bw_weights_step_bytes(&model->weights, &model->config)) < 0.5);
        bw_model_close(model);
    }
}

TEST(the_roofline_is_the_longer_of_moving_and_multiplying)
{
    const bw_step_cost cost = { .bytes = 1000, .int8_macs = 300, .f32_macs = 40 };
    check(fabs(bw_step_cost_seconds(&cost, 100, 1000, 1000) - 10) < 1e-12);
    check(fabs(bw_step_cost_seconds(&cost, 1e6, 10, 20) - 32) < 1e-12); /* 30 + 2: one unit does both */
}

/* ---- probes ---------------------------------------------------------------------------------- */

TEST(limits_are_the_best_of_the_probes)
{
    bw_machine *machine;
    bw_error err;
    for (const char *const *level = bw_cpu_levels_here(); *level; level++) {
        check_ok(bw_machine_create(&machine, *level, 2, &err), err);
        for (int i = 0; i < 3; i++)
            bw_machine_probe(machine);
        const bw_machine_limits l = bw_machine_get(machine);
        check_int(l.n_probes, 3);
        check(l.buffer_bytes >= 1u << 26);
        const bw_machine_limit all[] = { l.read_bytes, l.int8_macs, l.f32_macs };
        for (int i = 0; i < 3; i++)
            check_that(all[i].median > 1e6 && all[i].best >= all[i].median, "%s: probe %d: best %g, median %g", *level,
                       i, all[i].best, all[i].median);
        bw_machine_destroy(machine);
    }
    check_error(bw_machine_create(&machine, "avx9", 2, &err), BW_E_ARGUMENT, err, "avx9");
    check(machine == NULL);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static uint64_t memory_used(void)
{
    uint64_t bytes = 0;
    for (int tag = 0; tag < BW_MEM_TAG_COUNT; tag++)
        bytes += bw_mem_used((bw_mem_tag)tag);
    return bytes;
}

static bool has_note(const bw_bench_result *r, const char *part)
{
    for (int i = 0; i < r->n_notes; i++)
        if (strstr(r->notes[i], part))
            return true;
    return false;
}

/* From some allocation on all fail: of the 1 + 3 rows of each number of threads, the drafts of the second are lacking,
 * or all of the second, or these and the drafts of the first. */
static bool rest_left_out(const bw_bench_result *r)
{
    const bool drafts = has_note(r, "draft at depth 0, 1 sequence, left out: ");
    if (r->n_machines == 2)
        return r->n_rows == 5 && drafts;
    return r->n_machines == 1 && has_note(r, "2 threads: left out: ") && r->n_rows == (drafts ? 1 : 4);
}

TEST(a_run_survives_any_allocation_failing)
{
    bw_bench_options options = bw_bench_defaults();
    bw_bench_result result;
    bw_error err;
    options.model_path = repo_path("tests/golden/dense-r2");
    options.quick = true;
    options.reps = 1;
    options.threads = (bw_bench_list){ { 1, 2 }, 2 };
    for (int t = 0; t < BW_TEST_COUNT; t++)
        options.tests[t] = t == BW_TEST_LOAD || t == BW_TEST_DRAFT;
    const uint64_t before = memory_used();
    bool failed = true, drafts_left_out = false, threads_left_out = false;
    for (long n = 1; failed; n += 1 + n / (sanitized() ? 6 : 24)) { /* the later, the fewer */
        bw_mem_fail_at(n);
        const bw_status st = bw_bench_run(&result, &options, &err);
        failed = bw_mem_fail_at(0);
        const bool left_out = !st && rest_left_out(&result);
        check_that(failed ? left_out || (st && err.message[0] && !result.rows) : !st && result.n_rows == 8,
                   "allocation %ld: status %d, %s; %d rows", n, st, st ? err.message : "no error", result.n_rows);
        drafts_left_out |= left_out && result.n_machines == 2;
        threads_left_out |= left_out && result.n_machines == 1;
        bw_bench_free(&result);
        check_that(memory_used() == before, "allocation %ld leaks", n);
        check_that(n < 1000000, "no run without a failing allocation");
    }
    check(drafts_left_out && threads_left_out);
}

TEST(notes_without_room_are_counted_in_the_last)
{
    static bw_bench_result result;
    const bw_bench_options options = bw_bench_defaults();
    bw_workload w = { .options = &options, .result = &result, .n_threads = 1 };
    result = (bw_bench_result){ 0 };
    for (int i = 0; i < BW_BENCH_MAX_NOTES; i++)
        bw_workload_note(&w, "note %d", i);
    check_int(result.n_notes, BW_BENCH_MAX_NOTES);
    check(has_note(&result, "note 31"));
    for (int i = 0; i < 3; i++)
        bw_workload_note(&w, "too many");
    check_int(result.n_notes, BW_BENCH_MAX_NOTES);
    check(has_note(&result, "note 30") && !has_note(&result, "too many"));
    check(strncmp(result.notes[BW_BENCH_MAX_NOTES - 1], "4 more notes", 12) == 0); /* note 31 is one of them */
}

TEST(a_number_of_threads_is_measured_once)
{
    bw_bench_options options = bw_bench_defaults();
    bw_bench_result result;
    bw_error err;
    options.model_path = repo_path("tests/golden/dense-r2");
    options.quick = true;
    options.reps = 1;
    options.threads = (bw_bench_list){ { 0, bw_cpu_count() }, 2 };
    for (int t = 0; t < BW_TEST_COUNT; t++)
        options.tests[t] = t == BW_TEST_PREFILL;
    options.prompts = (bw_bench_list){ { 8 }, 1 };
    check_ok(bw_bench_run(&result, &options, &err), err);
    check_int(result.n_machines, 1);
    check_int(result.n_rows, 1);
    check(has_note(&result, "measured once"));
    bw_bench_free(&result);
}

/* Both begin at the same position, since auto has to learn first: what keeps them apart is their group. */
TEST(rows_that_took_turns_have_the_same_group)
{
    bw_bench_options options = bw_bench_defaults();
    bw_bench_result result;
    bw_error err;
    options.model_path = repo_path("tests/golden/dense-r2");
    options.quick = true;
    options.reps = 1;
    options.threads = (bw_bench_list){ { 1 }, 1 };
    options.depths = (bw_bench_list){ { 0, 10 }, 2 };
    options.drafts = (bw_bench_list){ { 0, BW_DRAFT_AUTO }, 2 };
    for (int t = 0; t < BW_TEST_COUNT; t++)
        options.tests[t] = t == BW_TEST_DRAFT;
    check_ok(bw_bench_run(&result, &options, &err), err);
    check_int(result.n_rows, 4);
    const bw_bench_row *rows = result.rows;
    for (int i = 0; i < 4; i++) {
        check_int(rows[i].depth, 21);
        check(rows[i].mean_depth >= 21);
        check_int(rows[i].group, i / 2);
    }
    int n_later = 0;
    for (int i = 0; i < result.n_notes; i++)
        n_later += strstr(result.notes[i], "draft at depths below 21: measured from position 21 on") != NULL;
    check_int(n_later, 1); /* once for all groups */
    bw_bench_free(&result);
}

TEST(a_run_of_which_nothing_fits_fails)
{
    bw_bench_options options = bw_bench_defaults();
    bw_bench_result result;
    bw_error err;
    options.model_path = repo_path("tests/golden/dense-r2");
    options.quick = true;
    options.reps = 1;
    options.threads = (bw_bench_list){ { 1 }, 1 };
    for (int t = 0; t < BW_TEST_COUNT; t++)
        options.tests[t] = t == BW_TEST_DECODE;
    const uint64_t before = memory_used();
    bool failed = true;
    for (long n = 1; failed; n += 1 + n / (sanitized() ? 6 : 24)) {
        bw_mem_fail_at(n);
        const bw_status st = bw_bench_run(&result, &options, &err);
        failed = bw_mem_fail_at(0);
        check_that(failed ? st != BW_OK && err.message[0] && !result.rows : st == BW_OK,
                   "allocation %ld: status %d, %s", n, st, st ? err.message : "no error");
        bw_bench_free(&result);
        check_that(memory_used() == before, "allocation %ld leaks", n);
    }
}

/* ---- progress -------------------------------------------------------------------------------- */

typedef struct progress_seen {
    int n_loading, n_measuring;
    double loaded, measured; /* the last of each */
    bool good;
} progress_seen;

static void see_progress(void *arg, const char *what, double done)
{
    progress_seen *seen = arg;
    const bool loading = strcmp(what, "loading") == 0;
    seen->good = seen->good && (loading ? seen->n_measuring == 0 : strcmp(what, "measuring") == 0) && done >= 0 &&
                 done <= 1;
    *(loading ? &seen->n_loading : &seen->n_measuring) += 1;
    *(loading ? &seen->loaded : &seen->measured) = done;
}

TEST(loading_and_measuring_show_how_far_they_are)
{
    progress_seen seen = { .good = true };
    bw_bench_options options = bw_bench_defaults();
    bw_bench_result result;
    bw_error err;
    options.shape = repo_path("models/lamb/config.json");
    options.quick = true;
    options.reps = 1;
    options.threads = (bw_bench_list){ { 1 }, 1 };
    options.progress = see_progress;
    options.progress_arg = &seen;
    for (int t = 0; t < BW_TEST_COUNT; t++)
        options.tests[t] = t == BW_TEST_PREFILL;
    options.prompts = (bw_bench_list){ { 8, 9 }, 2 };
    check_ok(bw_bench_run(&result, &options, &err), err);
    bw_bench_free(&result);
    check(seen.good && seen.n_loading > 0 && seen.n_measuring == 2);
    check(seen.loaded == 1 && seen.measured == 0.5);
}

TESTS_MAIN(ENTRY(the_median_is_the_middle_and_the_spread_the_ends), ENTRY(a_plain_step_reads_every_matrix_once),
           ENTRY(a_verify_reads_the_same_matrices_and_multiplies_more), ENTRY(a_prompt_wants_one_row_of_logits_or_none),
           ENTRY(sequences_share_matrices_and_have_a_state_each), ENTRY(f32_pages_are_twice_as_large),
           ENTRY(each_draft_reads_the_mtp_head_again), ENTRY(drafts_read_the_rows_of_the_head_they_are_chosen_from),
           ENTRY(experts_are_read_as_often_as_rows_choose_them),
           ENTRY(types_are_named_by_what_a_step_multiplies),
           ENTRY(a_steps_matrices_are_those_of_the_checkpoint),
           ENTRY(the_roofline_is_the_longer_of_moving_and_multiplying),
           ENTRY(limits_are_the_best_of_the_probes), ENTRY(a_run_survives_any_allocation_failing),
           ENTRY(notes_without_room_are_counted_in_the_last), ENTRY(a_number_of_threads_is_measured_once),
           ENTRY(rows_that_took_turns_have_the_same_group),
           ENTRY(a_run_of_which_nothing_fits_fails), ENTRY(loading_and_measuring_show_how_far_they_are))
