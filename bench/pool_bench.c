/* pool_bench.c - what a run of the worker pool costs.
 *
 *     make bench-pool [ARGS="2"]      (threads; default: one per processor)
 *
 * Empty units show what publishing a run and waiting for its end take; units of 5 us, how well they are balanced:
 * "over" is what is above the units' own time, divided by the threads that have processors. "after 1 ms" is the
 * first run after a pause, when the workers sleep. Median and least of many runs; a step of a model makes some 400
 * of them. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/cpuid.h"
#include "base/pool.h"
#include "bench/statistics.h"

enum { MAX_RUNS = 4000 };

static double took_us[MAX_RUNS];

static void empty_unit(void *arg, int unit, int thread)
{
    (void)arg, (void)unit, (void)thread;
}

static void busy_unit(void *arg, int unit, int thread)
{
    const uint64_t until = bw_clock_ns() + 5000;
    (void)arg, (void)unit, (void)thread;
    while (bw_clock_ns() < until)
        continue;
}

static void pause_ns(long ns)
{
    if (ns)
        nanosleep(&(struct timespec){ .tv_nsec = ns }, NULL);
}

static void bench(bw_pool *pool, const char *what, int n_units, int n_runs, long pause, void (*fn)(void *, int, int),
                  double unit_us)
{
    for (int i = 0; i < n_runs; i++) {
        pause_ns(pause);
        const uint64_t start = bw_clock_ns();
        bw_pool_for(pool, n_units, fn, NULL);
        took_us[i] = (double)(bw_clock_ns() - start) / 1e3;
    }
    const bw_summary us = bw_summary_of(took_us, n_runs);
    const int threads = bw_pool_threads(pool), n_processors = bw_cpu_count();
    const double own = unit_us * n_units / (threads < n_processors ? threads : n_processors);
    printf("%-22s %6d units  median %9.2f us  least %9.2f us", what, n_units, us.median, us.smallest);
    if (unit_us > 0)
        printf("  over, median %8.2f us", us.median - own);
    printf("\n");
}

int main(int n, char **args)
{
    const int threads = n > 1 ? atoi(args[1]) : bw_cpu_count();
    bw_pool *pool;
    bw_error err;
    if (bw_pool_create(&pool, threads, &err)) {
        fprintf(stderr, "pool_bench: %s\n", err.message);
        return 1;
    }
    printf("%d threads, %d processors\n", threads, bw_cpu_count());
    static const int empty[] = { 2, 12, 100, 1000, 10000 };
    for (size_t i = 0; i < BW_COUNT(empty); i++)
        bench(pool, "empty", empty[i], empty[i] > 1000 ? 400 : MAX_RUNS, 0, empty_unit, 0);
    bench(pool, "empty, after 1 ms", 12, 200, 1000000, empty_unit, 0);
    bench(pool, "5 us", 2 * threads, 1000, 0, busy_unit, 5);
    bench(pool, "5 us", 6 * threads + 1, 1000, 0, busy_unit, 5);
    bench(pool, "5 us, after 1 ms", 6 * threads, 200, 1000000, busy_unit, 5);
    bw_pool_destroy(pool);
    return 0;
}
