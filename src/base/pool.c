/* pool.c - worker threads with a spinning start and finish.
 *
 * One 64-bit ticket holds the number of the run (high half) and the next unit to hand out (low
 * half). A thread owns a unit when its compare-and-swap moves the ticket on, which also proves that
 * the run it read fn and arg for is still the current one. A run is over when all its units are
 * done: a worker that the system has put aside, or that still sleeps, is not waited for, so a busy
 * machine slows a step by what it takes away and not by whole time slices. */
#define _GNU_SOURCE
#include "base/pool.h"

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

typedef void unit_fn(void *arg, int unit, int thread);

typedef struct worker {
    bw_pool *pool;
    int thread;
    pthread_t handle;
} worker;

struct bw_pool {
    int n_threads;
    worker *workers; /* [n_threads - 1], threads 1 .. */
    int n_started;
    /* Of the current run; written before its ticket is published, read before a unit is taken. */
    _Atomic(unit_fn *) fn;
    _Atomic(void *) arg;
    _Atomic uint32_t n_units;
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t n_done;
    _Alignas(64) _Atomic int sleepers;
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

static uint32_t run_of(uint64_t ticket)
{
    return (uint32_t)(ticket >> 32);
}

static void take_units(bw_pool *pool, int thread)
{
    uint64_t ticket = atomic_load(&pool->ticket);
    for (;;) {
        unit_fn *fn = atomic_load_explicit(&pool->fn, memory_order_acquire);
        void *arg = atomic_load_explicit(&pool->arg, memory_order_acquire);
        const uint32_t unit = (uint32_t)ticket;
        if (unit >= atomic_load_explicit(&pool->n_units, memory_order_acquire))
            return;
        /* Failing means others were faster: `ticket` is then the new one. */
        if (!atomic_compare_exchange_strong(&pool->ticket, &ticket, ticket + 1))
            continue;
        fn(arg, (int)unit, thread);
        atomic_fetch_add_explicit(&pool->n_done, 1, memory_order_release);
        ticket = atomic_load(&pool->ticket);
    }
}

/* Returns the number of a run later than `seen`. */
static uint32_t wait_for_run(bw_pool *pool, uint32_t seen)
{
    for (int i = 0; i < SPINS_BEFORE_YIELD + YIELDS_BEFORE_SLEEP; i++) {
        const uint32_t run = run_of(atomic_load_explicit(&pool->ticket, memory_order_acquire));
        if (run != seen)
            return run;
        if (i < SPINS_BEFORE_YIELD)
            relax();
        else
            sched_yield();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (run_of(atomic_load(&pool->ticket)) == seen)
        pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
    return run_of(atomic_load(&pool->ticket));
}

static void *work(void *arg)
{
    worker *w = arg;
    bw_pool *pool = w->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_run(pool, seen);
        if (atomic_load(&pool->quit))
            return NULL;
        take_units(pool, w->thread);
    }
}

/* Publishes a run, and wakes those who sleep. ticket and sleepers are both sequentially consistent:
 * either the sleeper sees the new run, or we see the sleeper. */
static void publish(bw_pool *pool)
{
    atomic_store(&pool->ticket, (uint64_t)(run_of(atomic_load(&pool->ticket)) + 1) << 32);
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
    atomic_store(&pool->ticket, atomic_load(&pool->ticket) | UINT32_MAX);
    atomic_store(&pool->n_units, 0);
    atomic_store(&pool->quit, true);
    publish(pool);
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
    /* The last run's units are all done. Closing its ticket makes the swap of anybody who still
     * holds it fail; who sees one of the new values below sees the closed ticket too. */
    atomic_store(&pool->ticket, atomic_load(&pool->ticket) | UINT32_MAX);
    atomic_store_explicit(&pool->fn, fn, memory_order_release);
    atomic_store_explicit(&pool->arg, arg, memory_order_release);
    atomic_store_explicit(&pool->n_done, 0, memory_order_release);
    atomic_store_explicit(&pool->n_units, (uint32_t)n_units, memory_order_release);
    publish(pool);
    take_units(pool, 0);
    for (int spins = 0; atomic_load_explicit(&pool->n_done, memory_order_acquire) < (uint32_t)n_units; spins++) {
        if (spins < SPINS_BEFORE_YIELD)
            relax();
        else
            sched_yield();
    }
}
