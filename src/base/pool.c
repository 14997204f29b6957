/* pool.c - worker threads with a spinning start and finish.
 *
 * Runs are numbered. Every thread has a share of a run's units and a 64-bit ticket for it: the number
 * of the last run in which a unit of the share was taken (high part) and how many were (low part). Any
 * thread owns a unit when its compare-and-swap moves the ticket on. A ticket of an earlier run means that
 * nothing of the share is taken yet, so nobody has to hand out tickets before a run, and the share of a
 * thread that is not there is taken by the others. (44 bits of runs last for years.)
 *
 * A run is over when all its units are done, and then every unit was taken by exactly one swap: a late
 * worker finds no ticket of that run that it could move. A worker that the system has put aside, or that
 * still sleeps, is not waited for, so a busy machine slows a step by what it takes away and not by
 * whole time slices. */
#define _GNU_SOURCE
#include "base/pool.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpuid.h"
#include "base/mem.h"

enum {
    UNIT_BITS = 20,
    LINE = 64,
    SPIN_NS = 50000,         /* a choice: what lies between two operations of a step should be shorter */
    SPINS_PER_LOOK = 64,     /* at the clock */
    YIELDS_BEFORE_SLEEP = 64 /* lets the others run where the machine is busy */
};

_Static_assert(BW_POOL_MAX_UNITS < 1 << UNIT_BITS, "a ticket must hold every number of units");

typedef void unit_fn(void *arg, int unit, int thread);

typedef struct job {
    unit_fn *fn;
    void *arg;
    int n_units;
} job;

/* What one thread writes, others only its ticket. A line lies between two of them, because processors fetch
 * lines in pairs. */
typedef struct share {
    _Alignas(LINE) _Atomic uint64_t ticket; /* run << UNIT_BITS | units taken of this share */
    _Atomic uint64_t done;                  /* run << UNIT_BITS | units this thread has done, of any share */
    char apart[2 * LINE - 2 * sizeof(uint64_t)];
} share;

typedef struct worker {
    bw_pool *pool;
    int thread;
    pthread_t handle;
} worker;

struct bw_pool {
    int n_threads;
    int n_useful;    /* threads that processors are there for, at most n_threads */
    worker *workers; /* [n_threads - 1], threads 1 .. */
    int n_started;
    share *shares; /* [n_threads] */
    /* The line that workers watch. The job of run r stands at r & 1: a thread that finds `run` unchanged
     * after it read a job has read the right one, for run r + 1 is written elsewhere. */
    _Alignas(LINE) _Atomic uint64_t run;
    struct {
        _Atomic(unit_fn *) fn;
        _Atomic(void *) arg;
        _Atomic int n_units;
    } jobs[2];
    _Alignas(LINE) _Atomic int n_asleep; /* changed under the lock */
    int n_wakes;                         /* under the lock: those who may get up, no longer counted in n_asleep */
    _Atomic bool quit;                   /* set under the lock */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    _Alignas(LINE) _Atomic bool busy; /* a run is in flight */
};

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* rather than `yield`, which need not wait at all */
#endif
}

typedef struct patience {
    uint32_t spins;
    int yields;
    uint64_t until_ns;
} patience;

/* Waits a moment. False when so many have passed that it is time to sleep. */
static bool wait_a_moment(patience *p)
{
    if (p->yields > 0) {
        sched_yield();
        p->yields += p->yields <= YIELDS_BEFORE_SLEEP;
        return p->yields <= YIELDS_BEFORE_SLEEP;
    }
    relax();
    if (++p->spins % SPINS_PER_LOOK == 0) {
        const uint64_t now = bw_clock_ns();
        if (p->until_ns == 0)
            p->until_ns = now + SPIN_NS;
        p->yields = now >= p->until_ns;
    }
    return true;
}

/* ---- units ---- */

/* First unit of a thread's share: thread t has units ceil(n t / T) .. ceil(n (t + 1) / T) - 1, so that unit
 * i belongs to thread floor(i T / n), and the caller has a unit however few there are. */
static int share_start(int n_units, int thread, int n_threads)
{
    return (int)(((int64_t)n_units * thread + n_threads - 1) / n_threads);
}

/* The next of a share's n units, or -1 when there is none left, or the run is over. */
static int take_unit(share *s, uint64_t run, int n)
{
    uint64_t ticket = atomic_load_explicit(&s->ticket, memory_order_relaxed);
    for (;;) {
        const uint64_t last = ticket >> UNIT_BITS;
        const int next = last == run ? (int)(ticket & BW_POOL_MAX_UNITS) : 0;
        if (last > run || next >= n)
            return -1;
        /* Failing means others were faster: `ticket` is then the new one. */
        if (atomic_compare_exchange_weak_explicit(&s->ticket, &ticket, run << UNIT_BITS | (uint64_t)(next + 1),
                                                  memory_order_relaxed, memory_order_relaxed))
            return next;
    }
}

/* The thread's own share, then what is left of its neighbours'. */
static void take_units(bw_pool *pool, uint64_t run, const job *j, int thread)
{
    const int n_threads = pool->n_threads;
    share *own = &pool->shares[thread];
    uint64_t done = run << UNIT_BITS;
    for (int i = 0; i < n_threads; i++) {
        const int of = thread + i < n_threads ? thread + i : thread + i - n_threads;
        const int first = share_start(j->n_units, of, n_threads), n = share_start(j->n_units, of + 1, n_threads) - first;
        int unit;
        while (n > 0 && (unit = take_unit(&pool->shares[of], run, n)) >= 0) {
            j->fn(j->arg, first + unit, thread);
            atomic_store_explicit(&own->done, ++done, memory_order_release);
        }
    }
}

static bool all_done(const bw_pool *pool, uint64_t run, int n_units)
{
    for (int t = 0; t < pool->n_threads && n_units > 0; t++) {
        const uint64_t done = atomic_load_explicit(&pool->shares[t].done, memory_order_acquire);
        if (done >> UNIT_BITS == run)
            n_units -= (int)(done & BW_POOL_MAX_UNITS);
    }
    return n_units == 0;
}

/* ---- workers ---- */

/* More workers are awake than there are processors for. */
static bool too_many(const bw_pool *pool)
{
    return pool->n_threads - atomic_load(&pool->n_asleep) > pool->n_useful;
}

/* Sleeps until woken; not at all if there is a run later than `seen` and a processor for it. run and n_asleep are
 * both sequentially consistent: either we see the run, or who publishes it sees us asleep. */
static void sleep_on(bw_pool *pool, uint64_t seen)
{
    pthread_mutex_lock(&pool->lock);
    const bool surplus = too_many(pool);
    atomic_fetch_add(&pool->n_asleep, 1);
    if (!surplus && atomic_load(&pool->run) != seen) {
        atomic_fetch_sub(&pool->n_asleep, 1);
    } else {
        while (pool->n_wakes == 0 && !atomic_load(&pool->quit))
            pthread_cond_wait(&pool->wake, &pool->lock);
        pool->n_wakes--;
    }
    pthread_mutex_unlock(&pool->lock);
}

/* Waits for a run later than *run, and makes *run its number. False: the pool ends. */
static bool wait_for_run(bw_pool *pool, uint64_t *run)
{
    const uint64_t seen = *run;
    patience p = { 0 };
    for (;;) {
        if (too_many(pool))
            sleep_on(pool, seen);
        *run = atomic_load_explicit(&pool->run, memory_order_acquire);
        if (*run != seen)
            return !atomic_load(&pool->quit);
        if (!wait_a_moment(&p)) {
            sleep_on(pool, seen);
            p = (patience){ 0 };
        }
    }
}

/* False when run was over before its job was read. */
static bool read_job(const bw_pool *pool, uint64_t run, job *j)
{
    j->fn = atomic_load_explicit(&pool->jobs[run & 1].fn, memory_order_acquire);
    j->arg = atomic_load_explicit(&pool->jobs[run & 1].arg, memory_order_acquire);
    j->n_units = atomic_load_explicit(&pool->jobs[run & 1].n_units, memory_order_acquire);
    return atomic_load_explicit(&pool->run, memory_order_acquire) == run;
}

static void *work(void *arg)
{
    const worker *w = arg;
    uint64_t run = 0;
    job j;
    while (wait_for_run(w->pool, &run))
        if (read_job(w->pool, run, &j))
            take_units(w->pool, run, &j, w->thread);
    return NULL;
}

/* Wakes as many as have units to do and processors to do them on. */
static void wake_workers(bw_pool *pool, int n_units)
{
    if (atomic_load(&pool->n_asleep) == 0)
        return;
    pthread_mutex_lock(&pool->lock);
    const int n_asleep = atomic_load(&pool->n_asleep), n_awake = pool->n_threads - n_asleep;
    int n = (n_units < pool->n_useful ? n_units : pool->n_useful) - n_awake;
    n = n < 0 ? 0 : n > n_asleep ? n_asleep : n;
    atomic_fetch_sub(&pool->n_asleep, n);
    pool->n_wakes += n;
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < n; i++)
        pthread_cond_signal(&pool->wake);
}

/* ---- the pool ---- */

static bw_status start_workers(bw_pool *pool, bw_error *err)
{
    for (int t = 1; t < pool->n_threads; t++) {
        worker *w = &pool->workers[pool->n_started];
        *w = (worker){ .pool = pool, .thread = t };
        const int rc = pthread_create(&w->handle, NULL, work, w);
        if (rc != 0)
            return bw_fail(err, BW_E_IO, "threads: cannot start thread %d of %d: %s", t + 1, pool->n_threads, strerror(rc));
        pool->n_started++;
    }
    return BW_OK;
}

bw_status bw_pool_create_with(bw_pool **out, int n_threads, const bw_pool_options *options, bw_error *err)
{
    const int n_processors = options && options->n_processors > 0 ? options->n_processors : bw_cpu_count();
    *out = NULL;
    if (n_threads < 1)
        return bw_fail(err, BW_E_ARGUMENT, "threads: %d is not a number of threads, use 1 or more", n_threads);
    bw_pool *pool = bw_mem_zalloc(1, sizeof *pool, BW_MEM_MISC);
    if (!pool)
        return bw_fail_memory(err, "worker pool", sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->n_threads = n_threads;
    pool->n_useful = n_threads < n_processors ? n_threads : n_processors;
    pool->workers = bw_mem_zalloc((size_t)n_threads, sizeof *pool->workers, BW_MEM_MISC);
    pool->shares = bw_mem_zalloc((size_t)n_threads, sizeof *pool->shares, BW_MEM_MISC);
    bw_status st = BW_OK;
    if (!pool->workers || !pool->shares)
        st = bw_fail_memory(err, "worker pool", (size_t)n_threads * (sizeof(worker) + sizeof(share)));
    if (st || (st = start_workers(pool, err))) {
        bw_pool_destroy(pool);
        return st;
    }
    *out = pool;
    return BW_OK;
}

bw_status bw_pool_create(bw_pool **out, int n_threads, bw_error *err)
{
    return bw_pool_create_with(out, n_threads, NULL, err);
}

void bw_pool_end_workers(bw_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->quit, true);
    atomic_fetch_add(&pool->run, 1); /* seen together with quit, so its job is never read */
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i].handle, NULL);
    pool->n_started = 0;
    pool->n_threads = pool->n_useful = 1;
}

void bw_pool_destroy(bw_pool *pool)
{
    if (!pool)
        return;
    bw_pool_end_workers(pool);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    bw_mem_free(pool->shares);
    bw_mem_free(pool->workers);
    bw_mem_free(pool);
}

int bw_pool_threads(const bw_pool *pool)
{
    return pool->n_threads;
}

void bw_pool_pin(bw_pool *pool)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    const int n = CPU_COUNT(&allowed);
    for (int i = 0; i < pool->n_started; i++) {
        const worker *w = &pool->workers[i];
        int left = w->thread % n, processor = 0;
        while (!CPU_ISSET(processor, &allowed) || left-- > 0)
            processor++;
        CPU_ZERO(&one);
        CPU_SET(processor, &one);
        pthread_setaffinity_np(w->handle, sizeof one, &one); /* where it fails the thread stays free */
    }
}

static void run_units(bw_pool *pool, const job *j)
{
    const uint64_t run = atomic_load_explicit(&pool->run, memory_order_relaxed) + 1;
    atomic_store_explicit(&pool->jobs[run & 1].fn, j->fn, memory_order_release);
    atomic_store_explicit(&pool->jobs[run & 1].arg, j->arg, memory_order_release);
    atomic_store_explicit(&pool->jobs[run & 1].n_units, j->n_units, memory_order_release);
    atomic_store(&pool->run, run);
    wake_workers(pool, j->n_units);
    take_units(pool, run, j, 0);
    patience p = { 0 };
    while (!all_done(pool, run, j->n_units))
        wait_a_moment(&p);
}

void bw_pool_for(bw_pool *pool, int n_units, void (*fn)(void *, int, int), void *arg)
{
    assert(n_units <= BW_POOL_MAX_UNITS);
    assert(!atomic_load_explicit(&pool->busy, memory_order_relaxed)); /* no second caller, no unit that runs units */
    atomic_store_explicit(&pool->busy, true, memory_order_relaxed);
    if (pool->n_threads > 1 && n_units > 1)
        run_units(pool, &(job){ fn, arg, n_units });
    else
        for (int i = 0; i < n_units; i++)
            fn(arg, i, 0);
    atomic_store_explicit(&pool->busy, false, memory_order_relaxed);
}
