/* pool.h - a fixed set of worker threads for the operations of a step.
 *
 * Workers spin between the operations of a step and sleep between steps, so that a step pays no
 * wake-up per operation and an idle process pays nothing at all. The caller is thread 0 and works
 * too. Which thread runs which unit never changes a result: a unit owns its outputs.
 *
 * Every thread takes the units of its own share first: neighbouring units, the same ones whenever as
 * many are run. So a thread meets the same weights at every step, in its caches, and reads them as one
 * stream. Then it helps the others, unit by unit, so that no unit waits for a thread that the system has
 * put aside. */
#ifndef BW_BASE_POOL_H
#define BW_BASE_POOL_H

#include <stdbool.h>

#include "base/status.h"

typedef struct bw_pool bw_pool;

enum { BW_POOL_MAX_UNITS = (1 << 20) - 1 }; /* of one run */

typedef struct bw_pool_options {
    int n_processors; /* more threads than these never work at one time; 0: bw_cpu_count() */
} bw_pool_options;

/* n_threads >= 1 counts the caller. BW_E_MEMORY or BW_E_IO (a thread cannot start). */
bw_status bw_pool_create(bw_pool **out, int n_threads, bw_error *err);
/* The same; options NULL: the defaults, all zero. */
bw_status bw_pool_create_with(bw_pool **out, int n_threads, const bw_pool_options *options, bw_error *err);
void bw_pool_destroy(bw_pool *pool); /* takes NULL; no run may be in flight */
/* Ends the workers for good: the caller runs all units itself from now on. No run may be in flight. */
void bw_pool_end_workers(bw_pool *pool);
int bw_pool_threads(const bw_pool *pool);

/* From now on worker t (>= 1) stays on the t-th processor that the calling thread may use, modulo their number, where
 * the system allows it. The caller, thread 0, is left free and finds the first one idle. */
void bw_pool_pin(bw_pool *pool);

/* Calls fn(arg, unit, thread) once for every unit in 0 .. n_units - 1 (n_units <= BW_POOL_MAX_UNITS), in any
 * order, on any thread (0 <= thread < n_threads: for scratch memory), and returns when all are done. One
 * caller at a time, and never from inside a unit. Everything written before the call is visible to the
 * units, everything a unit wrote is visible after it. */
void bw_pool_for(bw_pool *pool, int n_units, void (*fn)(void *arg, int unit, int thread), void *arg);

#endif
