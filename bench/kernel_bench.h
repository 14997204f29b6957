/* kernel_bench.h - what the programs that time kernels share: the clock that counts, the best of several runs,
 * random numbers. One thread. */
#ifndef BW_BENCH_KERNEL_BENCH_H
#define BW_BENCH_KERNEL_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* With one thread it is that thread's processor time which counts, so that a busy machine shows less. */
static inline double seconds_now(int n_threads)
{
    struct timespec t;
    clock_gettime(n_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Of several runs: while (stopwatch_more(&w)) { stopwatch_start(&w); ... stopwatch_stop(&w); } */
typedef struct stopwatch {
    int n_threads, most_runs, n_runs;
    double enough, start, total;
    double best; /* seconds of the fastest run */
} stopwatch;

/* As many runs as fit in so many seconds, from 3 to most_runs. */
static inline stopwatch stopwatch_of(int n_threads, double enough, int most_runs)
{
    return (stopwatch){ .n_threads = n_threads, .most_runs = most_runs, .enough = enough, .best = 1e9 };
}

static inline bool stopwatch_more(const stopwatch *w)
{
    return w->n_runs < 3 || (w->total < w->enough && w->n_runs < w->most_runs);
}

static inline void stopwatch_start(stopwatch *w)
{
    w->start = seconds_now(w->n_threads);
}

static inline void stopwatch_stop(stopwatch *w)
{
    const double taken = seconds_now(w->n_threads) - w->start;
    w->best = taken < w->best ? taken : w->best;
    w->total += taken;
    w->n_runs++;
}

/* The same in every run: splitmix64. */
static inline uint64_t random_bits(void)
{
    static uint64_t s = 1;
    s += 0x9E3779B97F4A7C15u;
    uint64_t z = (s ^ s >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Between -scale and scale; NULL: out of memory. The caller frees. */
static inline float *random_floats(size_t n, float scale)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; x && i < n; i++)
        x[i] = scale * (float)(int64_t)random_bits() * 0x1p-63f;
    return x;
}

#endif
