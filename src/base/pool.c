/* pool.c - worker threads with a spinning start and finish.
 *
 * A run is published by a new value of `epoch`. Workers that spin see it at once; a worker that
 * has spun for a while sleeps on the condition variable, and the caller signals only when somebody
 * sleeps. The run ends when `busy` workers have all seen it and found no unit left. */
#define _GNU_SOURCE
#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"

enum {
    SPINS_BEFORE_YIELD = 2000, /* about 40 us */
    YIELDS_BEFORE_SLEEP = 64   /* lets the others run where threads outnumber processors */
};

typedef struct worker {
    bw_pool *pool;
    int thread;
    pthread_t handle;
} worker;

struct bw_pool {
    int n_threads;
    worker *workers; /* [n_threads - 1], threads 1 .. */
    int n_started;
    void (*fn)(void *, int, int);
    void *arg;
    int n_units;
    _Alignas(64) _Atomic int next_unit;
    _Alignas(64) _Atomic unsigned epoch;
    _Alignas(64) _Atomic int busy; /* workers that have not finished this epoch */
    _Atomic int sleepers;
    _Atomic bool quit;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void take_units(bw_pool *pool, int thread)
{
    for (;;) {
        int unit = atomic_fetch_add_explicit(&pool->next_unit, 1, memory_order_relaxed);
        if (unit >= pool->n_units)
            return;
        pool->fn(pool->arg, unit, thread);
    }
}

static void wait_for_epoch(bw_pool *pool, unsigned seen)
{
    for (int i = 0; i < SPINS_BEFORE_YIELD; i++) {
        if (atomic_load_explicit(&pool->epoch, memory_order_acquire) != seen)
            return;
        relax();
    }
    for (int i = 0; i < YIELDS_BEFORE_SLEEP; i++) {
        if (atomic_load_explicit(&pool->epoch, memory_order_acquire) != seen)
            return;
        sched_yield();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->epoch) == seen)
        pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *arg)
{
    worker *w = arg;
    bw_pool *pool = w->pool;
    unsigned seen = 0;
    for (;;) {
        wait_for_epoch(pool, seen);
        seen = atomic_load_explicit(&pool->epoch, memory_order_acquire);
        if (atomic_load_explicit(&pool->quit, memory_order_relaxed))
            return NULL;
        take_units(pool, w->thread);
        atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_release);
    }
}

/* Publishes what was written before, and wakes those who sleep. epoch and sleepers are both
 * sequentially consistent: either the sleeper sees the new epoch, or we see the sleeper. */
static void new_epoch(bw_pool *pool)
{
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
}

bw_status bw_pool_create(bw_pool **out, int n_threads, bw_error *err)
{
    *out = NULL;
    if (n_threads < 1)
        return bw_fail(err, BW_E_ARGUMENT, "threads: %d is not a number of threads, use 1 or more", n_threads);
    bw_pool *pool = bw_mem_zalloc(1, sizeof *pool, BW_MEM_MISC);
    if (!pool)
        return bw_fail_memory(err, "worker pool", sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->n_threads = n_threads;
    pool->workers = bw_mem_zalloc((size_t)n_threads, sizeof *pool->workers, BW_MEM_MISC);
    if (!pool->workers) {
        bw_pool_destroy(pool);
        return bw_fail_memory(err, "worker pool", (size_t)n_threads * sizeof(worker));
    }
    for (int i = 1; i < n_threads; i++) {
        worker *w = &pool->workers[pool->n_started];
        *w = (worker){ .pool = pool, .thread = i };
        int rc = pthread_create(&w->handle, NULL, work, w);
        if (rc != 0) {
            bw_pool_destroy(pool);
            return bw_fail(err, BW_E_IO, "threads: cannot start thread %d of %d: %s", i + 1, n_threads, strerror(rc));
        }
        pool->n_started++;
    }
    *out = pool;
    return BW_OK;
}

void bw_pool_destroy(bw_pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->quit, true);
    new_epoch(pool);
    for (int i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i].handle, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    bw_mem_free(pool->workers);
    bw_mem_free(pool);
}

int bw_pool_threads(const bw_pool *pool)
{
    return pool->n_threads;
}

void bw_pool_for(bw_pool *pool, int n_units, void (*fn)(void *, int, int), void *arg)
{
    if (n_units <= 0)
        return;
    if (pool->n_threads == 1 || n_units == 1) {
        for (int i = 0; i < n_units; i++)
            fn(arg, i, 0);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    pool->n_units = n_units;
    atomic_store_explicit(&pool->next_unit, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->busy, pool->n_threads - 1, memory_order_relaxed);
    new_epoch(pool);
    take_units(pool, 0);
    for (int spins = 0; atomic_load_explicit(&pool->busy, memory_order_acquire) > 0; spins++) {
        if (spins < SPINS_BEFORE_YIELD)
            relax();
        else
            sched_yield();
    }
}
