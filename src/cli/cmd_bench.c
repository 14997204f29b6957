/* cmd_bench.c - `bellwether bench`: reads the command line, lets src/bench measure, prints a table or JSON.
 * The result goes to stdout, or as JSON to a file; nothing goes there before all of it is known. Main thread. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <json.h>

#include "bellwether.h"
#include "bench/bench.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/receipt.h"
#include "cli/setup.h"
#include "cli/terminal.h"

typedef struct bench_options {
    bw_bench_options bench;
    bool tests[BW_TEST_COUNT], tests_given;
    const char *json;
    int kv, activations, reps;
} bench_options;

/* ---- the command line ------------------------------------------------------------------------ */

/* The next of the comma-separated words of *text; its length, 0 at the end or when it is empty. */
static size_t next_word(const char **text, const char **word)
{
    const size_t n = strcspn(*text, ",");
    *word = *text;
    *text += n + ((*text)[n] == ',' && (*text)[n + 1] ? 1 : 0);
    return n;
}

static bool is_word(const char *name, const char *word, size_t n)
{
    return strlen(name) == n && memcmp(name, word, n) == 0;
}

static bool read_tests(void *target, const char *text)
{
    bench_options *o = target;
    const char *word;
    int n_read = 0;
    memset(o->tests, 0, sizeof o->tests);
    o->tests_given = true;
    for (size_t n; (n = next_word(&text, &word)) > 0; ) {
        int t = 0;
        while (t < BW_TEST_COUNT && !is_word(bw_bench_test_names[t], word, n))
            t++;
        if (t == BW_TEST_COUNT || o->tests[t])
            return false;
        o->tests[t] = true;
        n_read++;
    }
    return *text == '\0' && n_read > 0;
}

/* Whole numbers from low to high, none twice; `other` is the word for -1, if there is one. */
static bool read_list(bw_bench_list *list, const char *text, long low, long high, const char *other)
{
    const char *word;
    *list = (bw_bench_list){ 0 };
    for (size_t n; (n = next_word(&text, &word)) > 0; ) {
        char *end = NULL;
        long value = -1;
        if (!other || !is_word(other, word, n)) {
            if (*word < '0' || *word > '9')
                return false;
            errno = 0;
            value = strtol(word, &end, 10);
            if (end != word + n || errno || value < low || value > high)
                return false;
        }
        for (int i = 0; i < list->n; i++)
            if (list->items[i] == value)
                return false;
        if (list->n == BW_BENCH_MAX_LIST)
            return false;
        list->items[list->n++] = (int)value;
    }
    return *text == '\0' && list->n > 0;
}

static bool read_positions(void *target, const char *text)
{
    return read_list(target, text, 0, 1 << 26, NULL);
}

static bool read_prompts(void *target, const char *text)
{
    return read_list(target, text, 1, 1 << 26, NULL);
}

static bool read_rows(void *target, const char *text)
{
    return read_list(target, text, 1, BW_BENCH_MAX_ROWS, NULL);
}

static bool read_seqs(void *target, const char *text)
{
    return read_list(target, text, 1, BW_BENCH_MAX_SEQS, NULL);
}

static bool read_threads(void *target, const char *text)
{
    return read_list(target, text, 0, 1024, NULL);
}

static bool read_drafts(void *target, const char *text)
{
    return read_list(target, text, 0, BW_MAX_DRAFTS, "auto");
}

_Static_assert(BW_DRAFT_AUTO == -1 && BW_DRAFT_OFF == 0, "what read_list makes of auto and 0");

/* Falling shares from 1 to 0. */
static bool read_accept(void *target, const char *text)
{
    bw_bench_options *o = target;
    const char *word;
    o->n_accept = 0;
    for (size_t n; (n = next_word(&text, &word)) > 0; ) {
        char *end;
        if (((*word < '0' || *word > '9') && *word != '.') || o->n_accept == BW_MAX_DRAFTS)
            return false;
        const double share = strtod(word, &end);
        if (end != word + n || !(share >= 0 && share <= (o->n_accept ? o->accept[o->n_accept - 1] : 1)))
            return false;
        o->accept[o->n_accept++] = share;
    }
    return *text == '\0' && o->n_accept > 0;
}

static bw_args_result read_options(bench_options *o, int argc, char **argv)
{
    *o = (bench_options){ .bench = bw_bench_defaults(), .activations = -1 };
    bw_bench_options *b = &o->bench;
    const bw_option options[] = {
        { BW_OPTION_GROUP, .name = "Without a model" },
        { BW_OPTION_TEXT, "--synthetic", "SHAPE", &b->shape, .expected = "a shape, or the path of a config.json",
          .help = "random weights in the shape of a model: 0.8b, 2b,\n27b, 35b-a3b, moe8, or those of a config.json" },
        { BW_OPTION_TEXT, "--type", "TYPE", &b->type, .expected = "a type such as q4_0 or q4_k_m",
          .help = "of these weights: q4_0, q8_0, q6_k, q4_k_m, bf16 ...;\ndefault q4_0" },

        { BW_OPTION_GROUP, .name = "What is measured (lists with commas)" },
        { BW_OPTION_CUSTOM, "--tests", "LIST", o, .read = read_tests,
          .expected = "a list of load, prefill, decode, verify, seqs, draft, none of them twice",
          .help = "of load, prefill, decode, verify, seqs, draft;\ndefault all" },
        { BW_OPTION_CUSTOM, "--prompt", "LIST", &b->prompts, .read = read_prompts,
          .expected = "up to 16 different lengths of a prompt, such as 128,512",
          .help = "tokens of a prompt (prefill); default 128,512,2048" },
        { BW_OPTION_CUSTOM, "--depth", "LIST", &b->depths, .read = read_positions,
          .expected = "up to 16 different depths from 0 on, such as 0,4096",
          .help = "tokens before the measured ones; default\n0,4096,16384 for decode, 0 for verify, seqs, draft" },
        { BW_OPTION_CUSTOM, "--rows", "LIST", &b->rows, .read = read_rows,
          .expected = "up to 16 different numbers of rows from 1 to 72, such as 1,4",
          .help = "rows of a step (verify); default 1,2,3,4,8,16" },
        { BW_OPTION_CUSTOM, "--seqs", "LIST", &b->seqs, .read = read_seqs,
          .expected = "up to 16 different numbers of sequences from 1 to 256, such as 1,8",
          .help = "sequences at a time; default 1,2,4,8,16,32 for seqs,\n1 for draft" },
        { BW_OPTION_CUSTOM, "--drafts", "LIST", &b->drafts, .read = read_drafts,
          .expected = "a list of numbers from 0 to 8 and auto, none of them twice",
          .help = "drafts a verify has (draft); default 0,1,2,3,4,auto" },
        { BW_OPTION_INT, "--draft-vocab", "N", &b->draft_vocab, .low = 1, .high = 2147483647,
          .help = BW_DRAFT_VOCAB_HELP },
        { BW_OPTION_INT, "--reps", "N", &o->reps, .low = 1, .high = BW_BENCH_MAX_REPS,
          .help = "repetitions of every setting; default 5, quick 2" },
        { BW_OPTION_SET, .name = "--quick", .target = &b->quick,
          .help = "short lists, short times: whether it works" },

        { BW_OPTION_GROUP, .name = "What is simulated, and marked so" },
        { BW_OPTION_CUSTOM, "--accept", "LIST", b, .read = read_accept,
          .expected = "up to 8 shares from 1 to 0 that do not rise, such as 0.87,0.65,0.39",
          .help = "impose acceptance: the share of verifies in which\ndrafts 1 to j are all accepted, j = 1, 2, ..." },
        { BW_OPTION_SET, .name = "--real-depth", .target = &b->real_depth,
          .help = "compute what lies before a depth, instead of making\nup its keys, values and states: takes long" },

        { BW_OPTION_GROUP, .name = "Computing" },
        { BW_OPTION_CUSTOM, "--threads", "LIST", &b->threads, .read = read_threads,
          .expected = "up to 16 different numbers of threads from 0 to 1024, such as 1,2,4",
          .help = "worker threads; all tests for the first number, then\nfor the next; 0, the default: one per "
                  "processor" },
        { BW_OPTION_SET, .name = "--pin", .target = &b->pin, .help = "keep each worker thread on one processor" },
        { BW_OPTION_CHOICE, .name = "--kv", .value = "f16|f32", .target = &o->kv, .choices = "f16|f32",
          .help = "how keys and values are kept; default f16" },
        { BW_OPTION_CHOICE, .name = "--activations", .value = "int8|f32", .target = &o->activations,
          .choices = "int8|f32",
          .help = "what quantised weights are multiplied with;\ndefault int8 (other weights: always f32)" },

        { BW_OPTION_GROUP, .name = "Output" },
        { BW_OPTION_TEXT, "--json", "FILE", &o->json,
          .expected = "the name of a file to write, or - for standard output",
          .help = "write the same figures as JSON; -: instead of the\ntable" },
    };
    static const char about[] =
        "Measures what a model does on this machine: MODEL, a Hugging Face folder or a .gguf\n"
        "file, or random weights in a model's shape, made in memory. Every figure stands beside\n"
        "what the machine's memory and arithmetic, measured in the same run, would allow. Says\n"
        "nothing about how good the answers are.\n";
    const bw_command command = { "bench", "[MODEL]", 0, 1, about, options, sizeof options / sizeof options[0],
                                 "bellwether bench models/lamb --quick" };
    return bw_args_read(&command, argc, argv, &b->model_path);
}

/* 0, or the exit status after a message. */
static int complete_options(bench_options *o)
{
    static const bw_activations activations[] = { BW_ACTIVATIONS_AUTO, BW_ACTIVATIONS_INT8, BW_ACTIVATIONS_F32 };
    bw_bench_options *b = &o->bench;
    if (!b->model_path && !b->shape)
        return bw_args_fail("bench", "a model is missing, expected MODEL, or --synthetic SHAPE for random weights");
    if (b->model_path && b->shape)
        return bw_args_fail("bench", "MODEL and --synthetic are both given, expected one of them");
    if (b->type && !b->shape)
        return bw_args_fail("bench", "--type: only for --synthetic; %s has types of its own", b->model_path);
    if (o->tests_given)
        memcpy(b->tests, o->tests, sizeof o->tests);
    if (o->reps)
        b->reps = o->reps;
    else if (b->quick)
        b->reps = 2;
    b->kv = o->kv == 1 ? BW_KV_F32 : BW_KV_F16;
    b->activations = activations[o->activations + 1];
    return 0;
}

/* ---- the table ------------------------------------------------------------------------------- */

static const char *drafts_text(int drafts)
{
    static char text[16];
    if (drafts == BW_DRAFT_AUTO)
        return "auto";
    snprintf(text, sizeof text, "%d", drafts);
    return text;
}

static const char *count_text(int n)
{
    static char text[16];
    if (n == 0)
        return "-";
    snprintf(text, sizeof text, "%d", n);
    return text;
}

/* What is simulated besides weights, after the separator; nothing when nothing is. */
static void print_row_simulated(bool depth, bool acceptance, const char *separator)
{
    if (depth || acceptance)
        printf("%ssimulated: %s%s%s", separator, depth ? "depth" : "", depth && acceptance ? ", " : "",
               acceptance ? "acceptance" : "");
}

/* What stands behind a row's figures. */
static void print_remark(const bw_bench_row *row)
{
    const char *separator = "  ";
    if (row->ratio.median > 0) {
        printf("%s%.3f x %s (%.3f..%.3f)", separator, row->ratio.median, row->ratio_what, row->ratio.smallest,
               row->ratio.largest);
        separator = "; ";
    }
    if (row->test == BW_TEST_DRAFT && row->drafted > 0) {
        printf("%s%.2f of %.2f drafts accepted", separator, row->accepted, row->drafted);
        separator = "; ";
    }
    print_row_simulated(row->simulated_depth, row->simulated_acceptance, separator);
}

static void print_ratio(const char *separator, const bw_bench_figure *f, const char *of)
{
    printf("%s%.3f (%.3f..%.3f) of %s", separator, f->median, f->smallest, f->largest, of);
}

/* Under the last row of a group of drafts with auto and others: auto, `row`, beside the fixed lengths. Ratios stand on
 * what any of them simulates: auto's own depth may be computed where that of the fixed lengths is made up. */
static void print_auto(const bw_bench_result *r, const bw_bench_row *row)
{
    const bool off = row->auto_off.median > 0;
    bool depth = false, acceptance = false;
    for (int i = 0; i < r->n_rows; i++)
        if (r->rows[i].group == row->group) {
            depth |= r->rows[i].simulated_depth;
            acceptance |= r->rows[i].simulated_acceptance;
        }
    printf("  auto:");
    if (off)
        print_ratio(" ", &row->auto_off, "off");
    print_ratio(off ? ", " : " ", &row->auto_best, "the best fixed length");
    printf(", n = %d; at %d sequence%s, depth %d", row->best_drafts, row->seqs, row->seqs == 1 ? "" : "s", row->depth);
    print_row_simulated(depth, acceptance, "; ");
    printf("\n");
}

static void print_row(const bw_bench_row *row)
{
    char spread[64], rate[32] = "-";
    snprintf(spread, sizeof spread, "%.4g..%.4g", row->ms.smallest, row->ms.largest);
    if (row->tokens_per_s.median > 0)
        snprintf(rate, sizeof rate, "%.2f", row->tokens_per_s.median);
    printf("%-8s%6s", bw_bench_test_names[row->test], count_text(row->rows));
    if (row->seqs)
        printf("%5d %7d %6s", row->seqs, row->depth, drafts_text(row->drafts));
    else
        printf("%5s %7s %6s", "-", "-", "-");
    printf(" %10.3f  %-18s %9s %9.1f %7.1f %%", row->ms.median, spread, rate, row->bytes * 1e-6,
           100 * row->roofline_share);
    print_remark(row);
    printf("\n");
}

static bool simulates(const bw_bench_result *r, bool depth)
{
    for (int i = 0; i < r->n_rows; i++)
        if (depth ? r->rows[i].simulated_depth : r->rows[i].simulated_acceptance)
            return true;
    return false;
}

static void print_simulated(const bw_bench_result *r, const bw_bench_options *o)
{
    const bool depth = simulates(r, true), acceptance = simulates(r, false);
    if (!r->synthetic && !depth && !acceptance)
        return;
    printf("simulated  %s%s", r->synthetic ? "weights (random)" : "", r->synthetic && depth ? "; " : "");
    if (depth)
        printf("depth (keys, values and states made up)");
    if (acceptance) {
        printf("%sacceptance (imposed:", r->synthetic || depth ? "; " : "");
        for (int i = 0; i < o->n_accept; i++)
            printf(" %g", o->accept[i]);
        printf(")");
    }
    printf("\n");
}

static const char *packed_text(const bw_bench_result *r)
{
    static char text[80];
    if (r->packed_bytes)
        snprintf(text, sizeof text, " (%.1f MB packed in %.2f s)", (double)r->packed_bytes * 1e-6,
                 r->machines[0].pack_s);
    return text;
}

static void print_machine(const bw_bench_machine *m)
{
    printf("machine    %s, %d thread%s, %s\n", m->cpu, m->n_threads, m->n_threads == 1 ? "" : "s", m->level);
    printf("limits     read %.1f GB/s, int8 %.4g TMAC/s, f32 %.1f GMAC/s: best of %d probes\n"
           "           (medians %.1f, %.4g, %.1f); the read probe goes over %llu MiB\n",
           m->read_bytes_per_s * 1e-9, m->int8_macs_per_s * 1e-12, m->f32_macs_per_s * 1e-9, m->n_probes,
           m->read_bytes_median * 1e-9, m->int8_macs_median * 1e-12, m->f32_macs_median * 1e-9, m->probe_bytes >> 20);
}

static void print_table(const bw_bench_result *r, const bw_bench_options *o)
{
    printf("model      %s, %s, %.1f MB%s; activations %s, KV %s\n", r->model, r->type, (double)r->weight_bytes * 1e-6,
           packed_text(r), r->int8_activations ? "int8" : "f32", o->kv == BW_KV_F32 ? "f32" : "f16");
    print_simulated(r, o);
    for (int i = 0; i < r->n_machines; i++)
        print_machine(&r->machines[i]);
    printf("times      median of %d repetition%s (smallest..largest), the settings of a test in turns%s\n", o->reps,
           o->reps == 1 ? "" : "s", r->n_machines > 1 ? ",\n           numbers of threads one after the other" : "");
    printf("roofline   the least time these limits allow for a row's bytes and multiply-adds / its time\n");
    for (int i = 0; i < r->n_notes; i++)
        printf("note       %s\n", r->notes[i]);
    printf("\n%-8s%6s%5s %7s %6s %10s  %-18s %9s %9s %9s\n", "test", "rows", "seqs", "depth", "drafts", "ms",
           "(spread)", "tokens/s", "MB", "roofline");
    const bw_bench_row *chosen = NULL;
    for (int i = 0; i < r->n_rows; i++) {
        const bw_bench_row *row = &r->rows[i], *before = i > 0 ? row - 1 : NULL;
        if (before && (row->test != before->test || row->n_threads != before->n_threads))
            printf("\n");
        if (r->n_machines > 1 && (!before || row->n_threads != before->n_threads))
            printf("%d thread%s\n", row->n_threads, row->n_threads == 1 ? "" : "s");
        print_row(row);
        if (row->auto_best.median > 0)
            chosen = row;
        if (chosen && (i + 1 == r->n_rows || row[1].group != row->group)) {
            print_auto(r, chosen);
            chosen = NULL;
        }
    }
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void add_number(struct json_object *to, const char *name, double value)
{
    json_object_object_add(to, name, bw_json_number(value, 6));
}

static void add_text(struct json_object *to, const char *name, const char *text)
{
    json_object_object_add(to, name, bw_json_text(text));
}

static void add_int(struct json_object *to, const char *name, int value)
{
    json_object_object_add(to, name, json_object_new_int(value));
}

static void add_spread(struct json_object *to, const char *name, const bw_bench_figure *f)
{
    struct json_object *spread = json_object_new_array();
    json_object_array_add(spread, bw_json_number(f->smallest, 6));
    json_object_array_add(spread, bw_json_number(f->largest, 6));
    json_object_object_add(to, name, spread);
}

/* A list of what was simulated, or false. */
static struct json_object *simulated_json(const bw_bench_result *r, const bw_bench_row *row)
{
    if (!r->synthetic && !row->simulated_depth && !row->simulated_acceptance)
        return json_object_new_boolean(0);
    struct json_object *list = json_object_new_array();
    if (r->synthetic)
        json_object_array_add(list, bw_json_text("weights"));
    if (row->simulated_depth)
        json_object_array_add(list, bw_json_text("depth"));
    if (row->simulated_acceptance)
        json_object_array_add(list, bw_json_text("acceptance"));
    return list;
}

static struct json_object *row_json(const bw_bench_result *r, const bw_bench_row *row)
{
    struct json_object *out = json_object_new_object();
    add_text(out, "test", bw_bench_test_names[row->test]);
    add_text(out, "shape", r->shape);
    add_text(out, "type", r->type);
    json_object_object_add(out, "rows", row->rows ? json_object_new_int(row->rows) : NULL);
    json_object_object_add(out, "seqs", row->seqs ? json_object_new_int(row->seqs) : NULL);
    json_object_object_add(out, "depth", row->seqs ? json_object_new_int(row->depth) : NULL);
    if (!row->seqs)
        json_object_object_add(out, "drafts", NULL);
    else if (row->drafts == BW_DRAFT_AUTO)
        add_text(out, "drafts", "auto");
    else
        add_int(out, "drafts", row->drafts);
    add_number(out, "mean_depth", row->mean_depth > 0 || row->seqs ? row->mean_depth : NAN);
    add_int(out, "threads", row->n_threads);
    add_int(out, "group", row->group);
    add_number(out, "ms", row->ms.median);
    add_spread(out, "ms_spread", &row->ms);
    add_number(out, "tokens_per_s", row->tokens_per_s.median > 0 ? row->tokens_per_s.median : NAN);
    add_spread(out, "tokens_per_s_spread", &row->tokens_per_s);
    json_object_object_add(out, "bytes", json_object_new_int64((int64_t)row->bytes));
    json_object_object_add(out, "int8_macs", json_object_new_int64((int64_t)row->int8_macs));
    json_object_object_add(out, "f32_macs", json_object_new_int64((int64_t)row->f32_macs));
    add_number(out, "roofline_ms", row->roofline_ms);
    add_number(out, "roofline_share", row->roofline_share);
    if (row->ratio.median > 0) {
        add_number(out, "ratio", row->ratio.median);
        add_spread(out, "ratio_spread", &row->ratio);
        add_text(out, "ratio_to", row->ratio_what);
    }
    if (row->auto_off.median > 0) {
        add_number(out, "auto_off", row->auto_off.median);
        add_spread(out, "auto_off_spread", &row->auto_off);
    }
    if (row->auto_best.median > 0) {
        add_number(out, "auto_best", row->auto_best.median);
        add_spread(out, "auto_best_spread", &row->auto_best);
        add_int(out, "best_drafts", row->best_drafts);
    }
    if (row->drafted > 0) {
        add_number(out, "mean_drafts", row->drafted);
        add_number(out, "mean_accepted", row->accepted);
    }
    add_number(out, "steps", row->steps);
    json_object_object_add(out, "simulated", simulated_json(r, row));
    return out;
}

static struct json_object *machine_json(const bw_bench_machine *m)
{
    struct json_object *out = json_object_new_object();
    add_text(out, "cpu", m->cpu);
    add_text(out, "level", m->level);
    add_int(out, "threads", m->n_threads);
    add_number(out, "read_gb_per_s", m->read_bytes_per_s * 1e-9);
    add_number(out, "int8_tmac_per_s", m->int8_macs_per_s * 1e-12);
    add_number(out, "f32_gmac_per_s", m->f32_macs_per_s * 1e-9);
    add_number(out, "read_gb_per_s_median", m->read_bytes_median * 1e-9);
    add_number(out, "int8_tmac_per_s_median", m->int8_macs_median * 1e-12);
    add_number(out, "f32_gmac_per_s_median", m->f32_macs_median * 1e-9);
    add_int(out, "probes", m->n_probes);
    json_object_object_add(out, "probe_bytes", json_object_new_int64((int64_t)m->probe_bytes));
    return out;
}

static struct json_object *result_json(const bw_bench_result *r, const bw_bench_options *o)
{
    struct json_object *out = json_object_new_object(), *rows = json_object_new_array();
    struct json_object *notes = json_object_new_array(), *accept = json_object_new_array();
    struct json_object *machines = json_object_new_array();
    add_text(out, "version", bw_version());
    json_object_object_add(out, "machine", machine_json(&r->machines[0]));
    for (int i = 0; i < r->n_machines; i++)
        json_object_array_add(machines, machine_json(&r->machines[i]));
    json_object_object_add(out, "machines", machines);
    add_text(out, "model", r->model);
    json_object_object_add(out, "random_weights", json_object_new_boolean(r->synthetic));
    json_object_object_add(out, "weight_bytes", json_object_new_int64((int64_t)r->weight_bytes));
    json_object_object_add(out, "packed_bytes", json_object_new_int64((int64_t)r->packed_bytes));
    add_number(out, "load_s", r->machines[0].load_s);
    add_number(out, "pack_s", r->machines[0].pack_s);
    add_text(out, "activations", r->int8_activations ? "int8" : "f32");
    add_text(out, "kv", o->kv == BW_KV_F32 ? "f32" : "f16");
    json_object_object_add(out, "draft_vocab", r->draft_vocab ? json_object_new_int(r->draft_vocab) : NULL);
    add_int(out, "reps", o->reps);
    add_text(out, "figures", "median of the repetitions; spread: the smallest and the largest");
    for (int i = 0; i < o->n_accept; i++)
        json_object_array_add(accept, bw_json_number(o->accept[i], 6));
    json_object_object_add(out, "accept", accept);
    for (int i = 0; i < r->n_notes; i++)
        json_object_array_add(notes, bw_json_text(r->notes[i]));
    json_object_object_add(out, "notes", notes);
    for (int i = 0; i < r->n_rows; i++)
        json_object_array_add(rows, row_json(r, &r->rows[i]));
    json_object_object_add(out, "rows", rows);
    return out;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* A file that gets its name once it is whole. It is made before anything is measured: minutes are not to be
 * lost to a misspelt name. */
typedef struct json_file {
    const char *path;
    char *partial;
    FILE *file; /* NULL: none wanted, or no more */
} json_file;

static bool cannot_write(const json_file *f, int number)
{
    bw_terminal_fail("--json %s: cannot write: %s", f->path, strerror(number));
    return false;
}

static bool open_json(json_file *f)
{
    struct stat info;
    if (stat(f->path, &info) == 0 && !S_ISREG(info.st_mode))
        return cannot_write(f, S_ISDIR(info.st_mode) ? EISDIR : EINVAL);
    if (!(f->partial = malloc(strlen(f->path) + sizeof ".partial")))
        return cannot_write(f, ENOMEM);
    sprintf(f->partial, "%s.partial", f->path);
    f->file = fopen(f->partial, "w");
    return f->file || cannot_write(f, errno);
}

static void abandon_json(json_file *f)
{
    if (f->file) {
        fclose(f->file);
        remove(f->partial);
    }
    free(f->partial);
    *f = (json_file){ 0 };
}

static bool write_json(FILE *file, const bw_bench_result *r, const bw_bench_options *o)
{
    struct json_object *out = result_json(r, o);
    const char *text = json_object_to_json_string_ext(out, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
                                                               JSON_C_TO_STRING_NOSLASHESCAPE);
    const bool written = text && fprintf(file, "%s\n", text) >= 0 && fflush(file) == 0;
    json_object_put(out);
    return written;
}

static bool finish_json(json_file *f, const bw_bench_result *r, const bw_bench_options *o)
{
    bool good = write_json(f->file, r, o) || cannot_write(f, errno);
    if (good && rename(f->partial, f->path) != 0)
        good = cannot_write(f, errno);
    if (good) {
        fclose(f->file);
        f->file = NULL;
    }
    return good;
}

/* What was measured, to where it is wanted. */
static bool print_result(json_file *f, bool json_on_stdout, const bw_bench_result *r, const bw_bench_options *o)
{
    if (f->file && !finish_json(f, r, o))
        return false;
    if (json_on_stdout)
        write_json(stdout, r, o);
    else
        print_table(r, o);
    return bw_terminal_flush();
}

/* A bar for each of what is going on; arg: what the last one was for. */
static void show_progress(void *arg, const char *what, double done)
{
    const char **shown = arg;
    if (!*shown || strcmp(*shown, what) != 0) {
        bw_terminal_progress_end();
        bw_terminal_progress_begin(what);
        *shown = what;
    }
    bw_terminal_progress(NULL, done);
}

int bw_cmd_bench(int argc, char **argv)
{
    bench_options options;
    const bw_args_result result = read_options(&options, argc, argv);
    if (result != BW_ARGS_RUN)
        return result == BW_ARGS_DONE ? 0 : 2;
    const int wrong = complete_options(&options);
    if (wrong)
        return wrong;
    const bool on_stdout = options.json && strcmp(options.json, "-") == 0;
    json_file file = { .path = options.json };
    bool good = !options.json || on_stdout || open_json(&file);
    if (good) {
        bw_bench_result measured;
        bw_error err = { 0 };
        const char *shown = NULL;
        options.bench.progress = show_progress;
        options.bench.progress_arg = &shown;
        bw_log_to(bw_terminal_log, NULL);
        const bw_status st = bw_bench_run(&measured, &options.bench, &err);
        bw_terminal_progress_end();
        if (st)
            bw_terminal_fail("%s", err.message);
        good = !st && print_result(&file, on_stdout, &measured, &options.bench);
        bw_bench_free(&measured);
    }
    abandon_json(&file);
    return good ? 0 : 1;
}
