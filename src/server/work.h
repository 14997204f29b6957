/* work.h - threads for what would hold up the event loop: reading large bodies, tokenising.
 *
 * `run` is called on a worker; then `done` on the loop's thread, with the same job. Jobs start in the
 * order given. The job is the caller's. Threads: bw_work_add on the loop's thread. */
#ifndef BW_SERVER_WORK_H
#define BW_SERVER_WORK_H

#include "bellwether.h"

typedef struct bw_work bw_work;
struct event_base;

bw_status bw_work_create(bw_work **out, struct event_base *base, int n_threads, bw_error *err);
/* Waits for the jobs that run; those that wait are dropped after `done` was called for them. Takes NULL. */
void bw_work_destroy(bw_work *work);
void bw_work_add(bw_work *work, void (*run)(void *job), void (*done)(void *job), void *job);
/* Takes a job back that no worker has begun: true, and neither run nor done is called for it any more. */
bool bw_work_cancel(bw_work *work, const void *job);

#endif
