/* bench.c - see bench.h: opens the model, probes the machine, runs the tests, sets their rows against the limits. */
#include "bench/bench.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpuid.h"
#include "base/mem.h"
#include "base/status.h"
#include "bench/step_cost.h"
#include "bench/workload.h"
#include "engine/model_open.h"

const char *const bw_bench_test_names[BW_TEST_COUNT] = { "load", "prefill", "decode", "verify", "seqs", "draft" };

enum { LOAD_CONTEXT = 4096, FIRST_PROBES = 8 };

static const double SHARE_ABOVE = 1.02; /* of the roofline: more than the probes' own noise explains */

bw_bench_options bw_bench_defaults(void)
{
    bw_bench_options o = { .kv = BW_KV_F16, .activations = BW_ACTIVATIONS_AUTO, .reps = 5 };
    for (int i = 0; i < BW_TEST_COUNT; i++)
        o.tests[i] = true;
    return o;
}

/* ---- the model ------------------------------------------------------------------------------- */

/* One of so many times that the model is opened. */
typedef struct opening {
    const bw_bench_options *options;
    int n_threads;
    int done, all;
} opening;

static void show_opening(void *arg, double done)
{
    const opening *now = arg;
    now->options->progress(now->options->progress_arg, "loading", (now->done + done) / now->all);
}

static bw_status open_model(bw_model **out, opening now, bw_error *err)
{
    const bw_bench_options *o = now.options;
    const bw_model_options options = { .n_threads = now.n_threads, .pin = o->pin, .activations = o->activations,
                                       .progress = o->progress ? show_opening : NULL, .progress_arg = &now };
    if (o->model_path)
        return bw_model_open(out, o->model_path, &options, err);
    const bw_synthetic_options what = { .shape = o->shape, .type = o->type ? o->type : "q4_0",
                                        .seed = 1 }; /* the weights that tools/synth writes */
    return bw_model_open_synthetic(out, &what, &options, err);
}

/* Opens the model again and again, each time as far as an engine that is ready; the last stays open. */
static bw_status run_load(bw_workload *w, bw_error *err)
{
    const bw_bench_options *o = w->options;
    bw_bench_row *row;
    double *seconds = bw_mem_alloc((size_t)o->reps * sizeof *seconds, BW_MEM_MISC);
    if (!seconds)
        return bw_fail_memory(err, "repetitions", (size_t)o->reps * sizeof *seconds);
    bw_status st = BW_OK;
    for (int i = 0; !st && i < o->reps; i++) {
        bw_engine_options options = bw_engine_defaults();
        bw_engine *engine = NULL;
        bw_model_close(w->model);
        w->model = NULL;
        const uint64_t start = bw_clock_ns();
        if ((st = open_model(&w->model, (opening){ o, w->n_threads, i, o->reps }, err)))
            break;
        const int most = bw_model_get_info(w->model)->max_context;
        options.kv = o->kv;
        options.context = most < LOAD_CONTEXT ? most : LOAD_CONTEXT;
        st = bw_engine_create(&engine, w->model, &options, err);
        seconds[i] = (double)(bw_clock_ns() - start) * 1e-9;
        bw_engine_destroy(engine);
    }
    if (!st && !(st = bw_workload_add(w, BW_TEST_LOAD, seconds, o->reps, &row, err))) {
        row->bytes = (double)bw_model_get_info(w->model)->weight_bytes;
        row->steps = 1;
    }
    bw_mem_free(seconds);
    w->groups_done++;
    return st;
}

/* What the bytes that a step multiplies are of, the most first: "q4_0", "q4_k+q6_k". */
static void name_types(const bw_model *model, char *out, size_t n)
{
    double by_type[BW_DTYPE_COUNT], sum = 0;
    size_t used = 0;
    bw_step_cost_by_type(model->net, by_type);
    for (int t = 0; t < BW_DTYPE_COUNT; t++)
        sum += by_type[t];
    for (;;) {
        int most = 0;
        for (int t = 1; t < BW_DTYPE_COUNT; t++)
            if (by_type[t] > by_type[most])
                most = t;
        if (by_type[most] < sum / 20 || used >= n)
            return;
        used += (size_t)snprintf(out + used, n - used, "%s%s", used ? "+" : "", bw_dtype_get((bw_dtype)most)->name);
        by_type[most] = 0;
    }
}

/* The last part of a path, or the folder of a config.json. */
static void name_shape(const char *path, char *out, size_t n)
{
    static const char config[] = "/config.json";
    size_t length = strlen(path);
    if (length > sizeof config - 1 && strcmp(path + length - (sizeof config - 1), config) == 0)
        length -= sizeof config - 1;
    while (length > 1 && path[length - 1] == '/')
        length--;
    size_t start = length;
    while (start > 0 && path[start - 1] != '/')
        start--;
    snprintf(out, n, "%.*s", (int)(length - start), path + start);
}

static bw_status describe_model(bw_bench_result *r, const bw_bench_options *o, const bw_model *model, bw_error *err)
{
    const bw_model_info *info = bw_model_get_info(model);
    name_shape(o->shape ? o->shape : info->path, r->shape, sizeof r->shape);
    if (o->shape)
        snprintf(r->type, sizeof r->type, "%s", o->type ? o->type : "q4_0");
    else
        name_types(model, r->type, sizeof r->type);
    r->synthetic = o->shape != NULL;
    r->weight_bytes = info->weight_bytes;
    r->packed_bytes = info->packed_bytes;
    r->int8_activations = info->int8_activations;
    if (!(r->model = bw_mem_strdup(info->path)))
        return bw_fail_memory(err, "model path", strlen(info->path) + 1);
    return BW_OK;
}

/* ---- limits ---------------------------------------------------------------------------------- */

/* The rows from `first` on, against what the machine showed while they were measured. */
static void set_against_limits(bw_workload *w, int first)
{
    int n_above = 0; /* but loads: they may map a file without reading it */
    bw_bench_result *r = w->result;
    const bw_model_info *info = bw_model_get_info(w->model);
    const bw_machine_limits l = bw_machine_get(w->machine);
    bw_bench_machine *m = &r->machines[r->n_machines++];
    *m = (bw_bench_machine){ .cpu = info->cpu_name, .level = info->cpu_level, .n_threads = info->n_threads,
                             .load_s = info->load_s, .pack_s = info->pack_s,
                             .n_probes = l.n_probes, .probe_bytes = l.buffer_bytes,
                             .read_bytes_per_s = l.read_bytes.best, .read_bytes_median = l.read_bytes.median,
                             .int8_macs_per_s = l.int8_macs.best, .int8_macs_median = l.int8_macs.median,
                             .f32_macs_per_s = l.f32_macs.best, .f32_macs_median = l.f32_macs.median };
    for (int i = first; i < r->n_rows; i++) {
        bw_bench_row *row = &r->rows[i];
        const bw_step_cost cost = { row->bytes, row->int8_macs, row->f32_macs };
        row->roofline_ms = 1e3 * bw_step_cost_seconds(&cost, m->read_bytes_per_s, m->int8_macs_per_s,
                                                      m->f32_macs_per_s);
        row->roofline_share = row->roofline_ms / row->ms.median;
        n_above += row->test != BW_TEST_LOAD && row->roofline_share > SHARE_ABOVE;
    }
    if (n_above > 0)
        bw_workload_note(w, "%d row%s above 100 %%: their weights fit a cache, or the machine was slower whenever it "
                         "was probed than while they were measured (run them again, with more --reps)", n_above,
                         n_above == 1 ? " is" : "s are");
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bw_status check_options(const bw_bench_options *o, bw_error *err)
{
    if (!o->model_path == !o->shape)
        return bw_fail(err, BW_E_ARGUMENT, "bench: expected either a model or a shape");
    if (o->type && !o->shape)
        return bw_fail(err, BW_E_ARGUMENT, "bench: a type is chosen for random weights, %s has its own", o->model_path);
    if (o->reps < 1 || o->reps > BW_BENCH_MAX_REPS)
        return bw_fail(err, BW_E_ARGUMENT, "bench: %d repetitions, expected 1 to %d", o->reps, BW_BENCH_MAX_REPS);
    return BW_OK;
}

/* All of them, with w->n_threads. */
static bw_status run_tests(bw_workload *w, bw_error *err)
{
    const bw_bench_options *o = w->options;
    const bool load = o->tests[BW_TEST_LOAD] && o->model_path;
    const int first = w->result->n_rows;
    bw_machine_destroy(w->machine);
    w->machine = NULL;
    bw_model_close(w->model);
    w->model = NULL;
    bw_status st = load ? run_load(w, err) : open_model(&w->model, (opening){ o, w->n_threads, 0, 1 }, err);
    if (st || (st = bw_workload_check(w, err)) ||
        (!w->result->model && (st = describe_model(w->result, o, w->model, err))))
        return st;
    if (o->tests[BW_TEST_LOAD] && !load) {
        bw_workload_note(w, "load left out: random weights are made, not loaded");
        w->groups_done++;
    }
    const bw_model_info *info = bw_model_get_info(w->model);
    if ((st = bw_machine_create(&w->machine, info->cpu_level, info->n_threads, err)))
        return st;
    for (int i = 0; i < FIRST_PROBES; i++)
        bw_machine_probe(w->machine);
    for (int t = BW_TEST_PREFILL; !st && t < BW_TEST_COUNT; t++)
        if (o->tests[t])
            st = bw_workload_run(w, (bw_bench_test)t, err);
    if (!st)
        set_against_limits(w, first);
    return st;
}

/* Whether all was measured with so many threads already: 0 is the number of processors. */
static bool is_repeated(const bw_bench_result *r, int n_threads)
{
    for (int i = 0; i < r->n_machines; i++)
        if (r->machines[i].n_threads == n_threads)
            return true;
    return false;
}

/* Other numbers of threads may want less: what was measured with them is kept. */
static bool can_leave_out(const bw_bench_result *r, bw_status st)
{
    return r->n_machines > 0 && (st == BW_E_MEMORY || st == BW_E_LIMIT || st == BW_E_IO);
}

/* With w->n_threads. */
static bw_status run_threads(bw_workload *w, bw_error *err)
{
    bw_error failure = { 0 };
    const int n_rows = w->result->n_rows;
    if (is_repeated(w->result, w->n_threads)) {
        bw_workload_note(w, "given twice, as a number and as 0: measured once");
        return BW_OK;
    }
    const bw_status st = run_tests(w, &failure);
    if (!st)
        return BW_OK;
    if (!can_leave_out(w->result, st))
        return bw_fail(err, st, "%s", failure.message);
    w->result->n_rows = n_rows;
    bw_workload_note(w, "left out: %s", failure.message);
    return BW_OK;
}

/* For each number of threads. */
static bw_status run_all(bw_workload *w, bw_error *err)
{
    static const bw_bench_list one_each = { { 0 }, 1 };
    const bw_bench_options *o = w->options;
    const bw_bench_list *threads = o->threads.n ? &o->threads : &one_each;
    bw_status st = BW_OK;
    int n_groups = 0;
    for (int t = 0; t < BW_TEST_COUNT; t++)
        n_groups += o->tests[t] ? bw_workload_groups(o, (bw_bench_test)t) : 0;
    w->n_groups = threads->n * n_groups;
    for (int i = 0; !st && i < threads->n; i++) {
        w->n_threads = threads->items[i] ? threads->items[i] : bw_cpu_count();
        w->groups_done = i * n_groups; /* those that a number of threads was left out with, too */
        st = run_threads(w, err);
    }
    if (!st && w->left_out.status && w->result->n_rows == 0)
        return bw_fail(err, w->left_out.status, "%s", w->left_out.message);
    return st;
}

bw_status bw_bench_run(bw_bench_result *out, const bw_bench_options *o, bw_error *err)
{
    *out = (bw_bench_result){ 0 };
    bw_workload w = { .options = o, .result = out };
    bw_status st = check_options(o, err);
    if (!st)
        st = run_all(&w, err);
    bw_machine_destroy(w.machine);
    bw_model_close(w.model);
    if (st)
        bw_bench_free(out);
    return st;
}

void bw_bench_free(bw_bench_result *r)
{
    bw_mem_free(r->rows);
    bw_mem_free(r->model);
    *r = (bw_bench_result){ 0 };
}
