/* bench.h - what a model, or a shape with random weights, does on this machine: the door of src/bench, for
 * cmd_bench.c.
 *
 * Drives the engine as a user's program does, through bellwether.h, and looks inside only to count what a step
 * moved and to verify drafts that nobody made. It measures time and never judges an answer. Neither prints nor
 * exits. One thread; the engine has its own workers. */
#ifndef BW_BENCH_BENCH_H
#define BW_BENCH_BENCH_H

#include "bellwether.h"

typedef enum bw_bench_test {
    BW_TEST_LOAD,    /* checkpoint to an engine that is ready */
    BW_TEST_PREFILL, /* a prompt of so many rows */
    BW_TEST_DECODE,  /* one sequence at a depth, no drafts */
    BW_TEST_VERIFY,  /* a step of so many rows that are verified, without making drafts */
    BW_TEST_SEQS,    /* sequences decode together, no drafts */
    BW_TEST_DRAFT,   /* the same with drafts, made and verified */
    BW_TEST_COUNT
} bw_bench_test;

extern const char *const bw_bench_test_names[BW_TEST_COUNT]; /* "load", ... */

enum {
    BW_BENCH_MAX_LIST = 16,  /* values of one option */
    BW_BENCH_MAX_SEQS = 256,
    BW_BENCH_MAX_ROWS = 72,  /* of a verify */
    BW_BENCH_MAX_REPS = 1000,
    BW_BENCH_MAX_NOTES = 32 /* the last says how many more there would have been */
};

typedef struct bw_bench_list {
    int items[BW_BENCH_MAX_LIST];
    int n; /* 0: the default of each test */
} bw_bench_list;

typedef struct bw_bench_options {
    const char *model_path;   /* or else: */
    const char *shape, *type; /* random weights; type NULL: "q4_0" */
    bw_kv_type kv;
    bw_activations activations;
    /* 0, or an empty list: one per processor. All tests for one number, then for the next, none twice. */
    bw_bench_list threads;
    bool pin;                 /* threads but the caller's stay on a processor each */
    bool tests[BW_TEST_COUNT];
    bw_bench_list prompts, depths, rows, seqs, drafts; /* drafts: BW_DRAFT_AUTO or a number */
    double accept[BW_MAX_DRAFTS]; /* imposed: share of verifies in which drafts 1 to j + 1 were all accepted */
    int n_accept;             /* 0: what the head really does */
    int draft_vocab;          /* as in bw_engine_options */
    bool real_depth;          /* a depth is prefilled, not simulated */
    int reps;
    bool quick;               /* shorter lists and slices: whether it works, not how fast */
    /* May be NULL. what: "loading" or "measuring"; of that so much is done, from 0 to 1. */
    void (*progress)(void *arg, const char *what, double done);
    void *progress_arg;
} bw_bench_options;

bw_bench_options bw_bench_defaults(void);

/* Median of the repetitions, the smallest and the largest of them. */
typedef struct bw_bench_figure {
    double median, smallest, largest;
} bw_bench_figure;

typedef struct bw_bench_row {
    bw_bench_test test;
    int rows;               /* of the step or prompt; 0: none, or not always the same */
    int seqs, depth, drafts; /* drafts: BW_DRAFT_AUTO or a number */
    double mean_depth;      /* of the sequences in all timed steps, which leave `depth` behind; 0: a prompt or load */
    int n_threads;
    int group;              /* the rows whose settings took turns have the same, no others do */
    bw_bench_figure ms;     /* of a step; of the whole prompt; of a load */
    bw_bench_figure tokens_per_s; /* verify: rows a second; load: 0 */
    double bytes, int8_macs, f32_macs; /* in these milliseconds, by the shapes; mean of the steps */
    double roofline_ms;     /* the least that the machine's limits allow for that */
    double roofline_share;  /* roofline_ms / ms */
    bw_bench_figure ratio;  /* against the test's first setting, repetition by repetition; median 0: none */
    const char *ratio_what; /* "ms of 1 row" */
    /* Of auto beside fixed lengths: its tokens/s against those without drafts, and against those of the fixed length
     * (0 counts as one) whose median is the best; repetition by repetition; median 0: none to compare with. */
    bw_bench_figure auto_off, auto_best;
    int best_drafts;        /* that length */
    double drafted, accepted; /* per verify; 0: no drafts */
    double steps;           /* timed in a repetition */
    bool simulated_depth, simulated_acceptance;
} bw_bench_row;

/* With so many threads. */
typedef struct bw_bench_machine {
    const char *cpu, *level;
    int n_threads;
    double load_s, pack_s; /* of the model that the tests ran on */
    /* the best of all probes, and their median */
    double read_bytes_per_s, int8_macs_per_s, f32_macs_per_s;
    double read_bytes_median, int8_macs_median, f32_macs_median;
    int n_probes;
    unsigned long long probe_bytes; /* that the read probe goes over */
} bw_bench_machine;

typedef struct bw_bench_result {
    char shape[256], type[64]; /* "2b", or the model's name; "q4_0", or what the bytes are of: "q4_k+q6_k" */
    bool synthetic;            /* random weights */
    char *model;               /* the path, or what was made */
    unsigned long long weight_bytes, packed_bytes; /* in the file; copied into the order of the kernels */
    bool int8_activations;
    bw_bench_machine machines[BW_BENCH_MAX_LIST]; /* one for each number of threads, in the order given */
    int n_machines;
    int draft_vocab;           /* as resolved; 0: nothing drafted */
    bw_bench_row *rows; /* [n_rows] */
    int n_rows;
    char notes[BW_BENCH_MAX_NOTES][256]; /* what was left out, and why; what differs */
    int n_notes;
} bw_bench_result;

/* Runs the tests in the order of their numbers, all of them for each number of threads: the model is opened anew, so
 * that its weights lie where those threads put them, and the machine is probed with as many. The caller frees *out.
 * What does not fit is left out, and noted; so is a number of threads for which the model cannot be opened or probed
 * (BW_E_MEMORY, BW_E_LIMIT, BW_E_IO) once all was measured with another.
 * BW_E_ARGUMENT: a list that cannot be measured, a shape or type that is not known. BW_E_LIMIT: a depth above
 * the model's context. BW_E_MEMORY, BW_E_LIMIT: nothing fitted. Others: as bw_model_open, bw_engine_create,
 * bw_engine_step. On failure *out is empty. */
bw_status bw_bench_run(bw_bench_result *out, const bw_bench_options *options, bw_error *err);
void bw_bench_free(bw_bench_result *result);

#endif
