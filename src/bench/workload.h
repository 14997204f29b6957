/* workload.h - the tests: which settings, in which engines, in turns. One thread.
 *
 * The settings of a test take turns, repetition by repetition and every second time in reverse, so that a
 * machine that becomes slower or busy does it to all of them alike. */
#ifndef BW_BENCH_WORKLOAD_H
#define BW_BENCH_WORKLOAD_H

#include "bench/bench.h"
#include "bench/machine.h"

typedef struct bw_workload {
    const bw_bench_options *options;
    int n_threads; /* that it opens the model with, of options->threads; never 0 */
    bw_model *model;
    bw_machine *machine; /* probed with as many */
    bw_bench_result *result; /* rows and notes are added */
    int n_rows_room;
    int groups_done, n_groups; /* for the progress; a row's group is how many were done before it */
    int n_notes_lost;    /* the last note says it */
    bool later_noted;    /* that small depths are measured later */
    bw_error left_out; /* why the first group that did not fit was left out; BW_OK: all fitted */
} bw_workload;

/* A note on what is left out; where several numbers of threads are measured, it begins with w->n_threads. Those past
 * the room for them are counted in the last. */
void bw_workload_note(bw_workload *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* BW_E_LIMIT: a prompt or depth that the model's context has no room for. */
bw_status bw_workload_check(const bw_workload *w, bw_error *err);
/* Groups of settings that take turns, of a test. */
int bw_workload_groups(const bw_bench_options *options, bw_bench_test test);
/* A group for which there is no room (BW_E_MEMORY, BW_E_LIMIT) is left out: a note says so, and w->left_out. */
bw_status bw_workload_run(bw_workload *w, bw_bench_test test, bw_error *err);
/* A row for `seconds` [n], which are sorted. The caller fills in the rest. BW_E_MEMORY. */
bw_status bw_workload_add(bw_workload *w, bw_bench_test test, double *seconds, int n, bw_bench_row **row,
                          bw_error *err);

#endif
