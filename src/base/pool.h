/* pool.h - a fixed set of worker threads for the operations of a step.
 *
 * Workers spin briefly between the operations of a step and sleep between steps, so that a step
 * pays no wake-up per operation and an idle process pays nothing at all. The caller is thread 0 and
 * works too. Which thread runs which unit never changes a result: a unit owns its outputs. */
#ifndef BW_BASE_POOL_H
#define BW_BASE_POOL_H

#include "base/status.h"

typedef struct bw_pool bw_pool;

/* n_threads >= 1 counts the caller. BW_E_MEMORY or BW_E_IO (a thread cannot start). */
bw_status bw_pool_create(bw_pool **out, int n_threads, bw_error *err);
void bw_pool_destroy(bw_pool *pool); /* takes NULL; no run may be in flight */
int bw_pool_threads(const bw_pool *pool);

/* Calls fn(arg, unit, thread) once for every unit in 0 .. n_units - 1, in any order, on any thread
 * (0 <= thread < n_threads: for scratch memory), and returns when all are done. One caller at a
 * time. Units are handed out dynamically. Everything written before the call is visible to the
 * units, everything a unit wrote is visible after it. */
void bw_pool_for(bw_pool *pool, int n_units, void (*fn)(void *arg, int unit, int thread), void *arg);

#endif
