/* The worker pool: every unit once whatever the threads do, shares, sleep, and how many processors there are. */
#define _GNU_SOURCE
#include "lib/check.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpuid.h"
#include "base/mem.h"
#include "base/pool.h"
#include "lib/threads_left.h"

enum { MAX_UNITS = 1000, MAX_THREADS = 64 };

static bw_pool *start(int n_threads, const bw_pool_options *options)
{
    bw_error err;
    bw_pool *pool = NULL;
    check_ok(bw_pool_create_with(&pool, n_threads, options, &err), err);
    check_int(bw_pool_threads(pool), n_threads);
    return pool;
}

/* A pool whose threads all work, however few processors there are. */
static bw_pool *start_all(int n_threads)
{
    return start(n_threads, &(bw_pool_options){ .n_processors = n_threads });
}

static void sleep_us(long us)
{
    nanosleep(&(struct timespec){ .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 }, NULL);
}

/* ---- every unit, once ---- */

typedef struct tally {
    _Atomic int hits[MAX_UNITS];
    int n_threads;
    bool delays;
    _Atomic int bad_thread;
    uint64_t before[MAX_UNITS], after[MAX_UNITS]; /* plain memory: the pool must order it */
} tally;

static uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    return x ^ x >> 27;
}

static void delay(uint64_t seed)
{
    const int kind = (int)(seed % 16);
    if (kind == 0)
        sleep_us((long)(seed >> 8 & 127));
    else if (kind < 4)
        sched_yield();
    else if (kind < 8)
        for (volatile int i = 0; i < (int)(seed >> 8 & 1023); i++)
            continue;
}

static void count_unit(void *arg, int unit, int thread)
{
    tally *t = arg;
    if (t->delays)
        delay(mixed(t->before[unit]));
    t->hits[unit]++;
    t->after[unit] = t->before[unit] + 1;
    if (thread < 0 || thread >= t->n_threads)
        t->bad_thread++;
}

static void run_and_check(bw_pool *pool, tally *t, int n, uint64_t seed)
{
    for (int i = 0; i < n; i++) {
        t->hits[i] = 0;
        t->before[i] = mixed(seed + (uint64_t)i);
    }
    t->n_threads = bw_pool_threads(pool);
    bw_pool_for(pool, n, count_unit, t);
    for (int i = 0; i < n; i++) {
        check_that(t->hits[i] == 1, "threads %d, %d units: unit %d ran %d times", t->n_threads, n, i, t->hits[i]);
        check_that(t->after[i] == t->before[i] + 1, "threads %d, %d units: what unit %d wrote is not there", t->n_threads, n, i);
    }
    check_int(t->bad_thread, 0);
}

static const int some_threads[] = { 1, 2, 3, 4, 7, 8, 16, 32, 64 };

TEST(every_unit_runs_exactly_once_on_any_number_of_threads)
{
    static tally t;
    for (size_t k = 0; k < BW_COUNT(some_threads); k++)
        for (int all = 0; all < 2; all++) {
            bw_pool *pool = all ? start_all(some_threads[k]) : start(some_threads[k], NULL);
            for (int round = 0; round < 100; round++)
                run_and_check(pool, &t, rnd_int(0, MAX_UNITS), rnd_u64());
            bw_pool_destroy(pool);
        }
}

TEST(every_unit_runs_exactly_once_under_random_delays)
{
    static tally t = { .delays = true };
    for (size_t k = 1; k < BW_COUNT(some_threads); k++) {
        bw_pool *pool = start_all(some_threads[k]);
        for (int round = 0; round < 40; round++) {
            run_and_check(pool, &t, rnd_int(1, rnd_int(0, 3) ? 20 : 200), rnd_u64());
            if (rnd_int(0, 3) == 0)
                sleep_us(rnd_int(0, 300)); /* some have gone to sleep, some are about to */
        }
        bw_pool_destroy(pool);
    }
}

TEST(thousands_of_runs_follow_each_other_without_a_pause)
{
    static tally t;
    static const int threads[] = { 2, 3, 7, 64 };
    const int n_runs = sanitized() ? 1500 : 5000;
    for (size_t k = 0; k < BW_COUNT(threads); k++) {
        bw_pool *pool = rnd_int(0, 1) ? start_all(threads[k]) : start(threads[k], NULL);
        for (int run = 0; run < n_runs; run++)
            run_and_check(pool, &t, rnd_int(1, rnd_int(0, 7) ? 12 : 300), rnd_u64());
        bw_pool_destroy(pool);
    }
}

static unsigned char many[BW_POOL_MAX_UNITS];

static void mark_unit(void *arg, int unit, int thread)
{
    (void)arg, (void)thread;
    many[unit]++;
}

TEST(a_run_of_as_many_units_as_there_may_be_runs_each_once)
{
    bw_pool *pool = start_all(3);
    bw_pool_for(pool, BW_POOL_MAX_UNITS, mark_unit, NULL);
    bw_pool_destroy(pool);
    for (int i = 0; i < BW_POOL_MAX_UNITS; i++)
        check_that(many[i] == 1, "unit %d ran %d times", i, many[i]);
}

/* ---- shares ---- */

/* The thread in whose share a unit lies. */
static int owner_of(int unit, int n_units, int n_threads)
{
    return (int)((int64_t)unit * n_threads / n_units);
}

typedef struct who {
    int of[200];
} who;

static void note_thread(void *arg, int unit, int thread)
{
    who *w = arg;
    w->of[unit] = thread;
}

typedef struct meeting {
    _Atomic int n_here, n_awaited;
    int thread_of[MAX_THREADS];
} meeting;

/* Nobody leaves before all are here, so no thread can run two units. */
static void meet(void *arg, int unit, int thread)
{
    meeting *m = arg;
    m->thread_of[unit] = thread;
    m->n_here++;
    while (m->n_here < m->n_awaited)
        sched_yield();
}

TEST(every_thread_begins_with_its_own_share)
{
    static const int threads[] = { 2, 3, 8, 64 };
    for (size_t k = 0; k < BW_COUNT(threads); k++) {
        bw_pool *pool = start_all(threads[k]);
        for (int round = 0; round < 20; round++) {
            meeting m = { .n_awaited = threads[k] };
            bw_pool_for(pool, threads[k], meet, &m);
            for (int i = 0; i < threads[k]; i++)
                check_int(m.thread_of[i], owner_of(i, threads[k], threads[k]));
        }
        bw_pool_destroy(pool);
    }
}

typedef struct hostage {
    _Atomic int n_others_done;
    int n_units;
    bool by_owner;        /* unit 0 runs on its own thread */
    _Atomic int n_helped; /* units that ran on another thread than their own */
} hostage;

/* Unit 0 ends only when all others are done: those of its own share too. */
static void hold_first(void *arg, int unit, int thread)
{
    hostage *h = arg;
    const bool by_owner = owner_of(unit, h->n_units, 2) == thread;
    if (unit == 0) {
        h->by_owner = by_owner;
        while (h->n_others_done < h->n_units - 1)
            sched_yield();
        return;
    }
    h->n_helped += !by_owner;
    h->n_others_done++;
}

TEST(who_has_finished_helps_the_others)
{
    bw_pool *pool = start_all(2);
    for (int round = 0; round < 100; round++) {
        hostage h = { .n_units = rnd_int(2, 100) };
        bw_pool_for(pool, h.n_units, hold_first, &h);
        /* Whoever held unit 0, the other ran all the rest. */
        check_int(h.n_others_done, h.n_units - 1);
        check_int(h.n_helped, h.by_owner ? (h.n_units + 1) / 2 - 1 : 0);
    }
    bw_pool_destroy(pool);
}

TEST(a_pool_whose_workers_were_ended_is_the_caller_alone)
{
    static tally t;
    sleep_us(50000);
    const int before = threads_of_process();
    bw_pool *pool = start_all(6);
    check_int(threads_of_process(), before + 5);
    run_and_check(pool, &t, 100, 1);
    bw_pool_end_workers(pool);
    check_int(bw_pool_threads(pool), 1);
    check_int(threads_left(before), before);
    who w;
    memset(&w, -1, sizeof w);
    bw_pool_for(pool, 200, note_thread, &w);
    for (int i = 0; i < 200; i++)
        check_int(w.of[i], 0);
    bw_pool_end_workers(pool);
    bw_pool_destroy(pool);
}

/* ---- sleep ---- */

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

TEST(an_idle_pool_uses_no_processor)
{
    static tally t;
    bw_pool *pool = start_all(16);
    run_and_check(pool, &t, 100, 1);
    sleep_us(100000);
    const double before = cpu_seconds();
    sleep_us(300000);
    const double used = cpu_seconds() - before;
    check_that(used < 0.03, "%.3f s of processor time in 0.3 s of idling", used);
    run_and_check(pool, &t, 100, 2);
    bw_pool_destroy(pool);
}

typedef struct crowd {
    _Atomic int n_now, n_most;
} crowd;

static void count_crowd(void *arg, int unit, int thread)
{
    crowd *c = arg;
    (void)unit, (void)thread;
    const int n = ++c->n_now;
    int most = c->n_most;
    while (n > most && !atomic_compare_exchange_weak(&c->n_most, &most, n))
        continue;
    sleep_us(100);
    c->n_now--;
}

TEST(no_more_threads_work_than_there_are_processors)
{
    bw_pool *pool = start(16, &(bw_pool_options){ .n_processors = 3 });
    const uint64_t start_ns = bw_clock_ns();
    int in_a_row = 0;
    while (in_a_row < 20) { /* at first, threads that have just started may join in */
        crowd c = { 0 };
        bw_pool_for(pool, 48, count_crowd, &c);
        in_a_row = c.n_most <= 3 ? in_a_row + 1 : 0;
        check_that(bw_clock_ns() - start_ns < 20000000000u, "%d of 16 threads still work on 3 processors", c.n_most);
    }
    bw_pool_destroy(pool);
}

/* ---- creation ---- */

TEST(a_pool_that_cannot_be_made_says_so)
{
    bw_error err;
    bw_pool *pool;
    check_error(bw_pool_create(&pool, 0, &err), BW_E_ARGUMENT, err, "threads", "0");
    const uint64_t before = bw_mem_used(BW_MEM_MISC);
    for (long n = 1;; n++) {
        bw_mem_fail_at(n);
        const bw_status st = bw_pool_create(&pool, 4, &err);
        if (!bw_mem_fail_at(0)) {
            check_ok(st, err);
            check(n > 1);
            break;
        }
        check_error(st, BW_E_MEMORY, err, "worker pool");
        check(pool == NULL);
        check_int(bw_mem_used(BW_MEM_MISC), before);
    }
    bw_pool_destroy(pool);
}

TEST(pools_live_beside_each_other)
{
    static tally t;
    bw_pool *a = start_all(5), *b = start_all(3);
    for (int i = 0; i < 200; i++)
        run_and_check(i % 2 ? a : b, &t, rnd_int(1, 40), rnd_u64());
    bw_pool_destroy(a);
    run_and_check(b, &t, 40, 1);
    bw_pool_destroy(b);
    bw_pool_destroy(NULL);
}

typedef struct places {
    meeting m;
    cpu_set_t mask[MAX_THREADS];
} places;

static void note_place(void *arg, int unit, int thread)
{
    places *p = arg;
    sched_getaffinity(0, sizeof p->mask[0], &p->mask[thread]);
    meet(&p->m, unit, thread);
}

TEST(pinned_workers_stay_on_one_of_the_allowed_processors_each)
{
    cpu_set_t allowed, after;
    sched_getaffinity(0, sizeof allowed, &allowed);
    const int n_threads = 6;
    bw_pool *pool = start_all(n_threads);
    bw_pool_pin(pool);
    static places p;
    p.m.n_awaited = n_threads;
    bw_pool_for(pool, n_threads, note_place, &p);
    bw_pool_destroy(pool);
    const int n_allowed = CPU_COUNT(&allowed);
    for (int t = 1; t < n_threads; t++) {
        check_int(CPU_COUNT(&p.mask[t]), 1);
        CPU_AND(&p.mask[t], &p.mask[t], &allowed);
        check_int(CPU_COUNT(&p.mask[t]), 1);
        if (t + n_allowed < n_threads)
            check(CPU_EQUAL(&p.mask[t], &p.mask[t + n_allowed]));
    }
    sched_getaffinity(0, sizeof after, &after);
    check(CPU_EQUAL(&after, &allowed)); /* the caller's thread is left alone */
}

/* ---- misuse ---- */

static void run_inside(void *arg, int unit, int thread)
{
    (void)unit, (void)thread;
    static tally t = { .n_threads = 2 };
    bw_pool_for(arg, 4, count_unit, &t);
}

static void misuse(int n_threads, int n_units)
{
    const struct rlimit none = { 0, 0 };
    bw_pool *pool;
    signal(SIGABRT, SIG_DFL);
    setrlimit(RLIMIT_CORE, &none);
    if (!freopen("/dev/null", "w", stderr) || bw_pool_create(&pool, n_threads, NULL))
        _exit(2);
    bw_pool_for(pool, n_units, run_inside, pool);
    _exit(0);
}

TEST(a_unit_that_runs_units_is_a_failed_assertion)
{
    static const int cases[][2] = { { 1, 3 }, { 2, 1 }, { 2, 8 } }; /* threads, units */
    for (size_t i = 0; i < BW_COUNT(cases); i++) {
        fflush(NULL);
        const pid_t child = fork();
        check(child >= 0);
        if (child == 0)
            misuse(cases[i][0], cases[i][1]);
        int status = 0;
        check_int(waitpid(child, &status, 0), child);
        check_that(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%d threads, %d units: ended with status %x", cases[i][0],
                   cases[i][1], status);
    }
}

/* ---- processors ---- */

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    check_that(f != NULL, "cannot write %s", path);
    fputs(text, f);
    fclose(f);
}

static const char *make_folder(const char *folder, const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    check_int(mkdir(path, 0700), 0);
    return path;
}

static int quota_of(const char *folder)
{
    char groups[4096];
    snprintf(groups, sizeof groups, "%s/groups", folder);
    return bw_cpu_quota(groups, folder);
}

TEST(the_least_quota_of_the_groups_above_counts)
{
    const char *root = temp_dir();
    write_text(root, "groups", "0::/outer/inner\n");
    check_int(quota_of(root), 0); /* no such folders: the groups of another name space */
    make_folder(root, "outer");
    const char *inner = make_folder(root, "outer/inner");
    write_text(inner, "cpu.max", "max 100000\n");
    check_int(quota_of(root), 0);
    write_text(inner, "cpu.max", "350000 100000\n");
    check_int(quota_of(root), 4); /* 3.5 */
    char outer[4096];
    snprintf(outer, sizeof outer, "%s/outer", root);
    write_text(outer, "cpu.max", "200000 100000\n");
    check_int(quota_of(root), 2);
    write_text(root, "cpu.max", "10000 100000\n");
    check_int(quota_of(root), 1); /* a tenth of one */
    write_text(root, "cpu.max", "nonsense");
    check_int(quota_of(root), 2);
}

TEST(quotas_of_the_first_kind_of_control_groups_count)
{
    const char *root = temp_dir();
    write_text(root, "groups", "5:cpuset:/a\n4:cpu,cpuacct:/a\n0::/\n");
    make_folder(root, "cpuset");
    make_folder(root, "cpu,cpuacct");
    const char *group = make_folder(root, "cpu,cpuacct/a");
    write_text(group, "cpu.cfs_period_us", "100000\n");
    write_text(group, "cpu.cfs_quota_us", "-1\n");
    check_int(quota_of(root), 0);
    write_text(group, "cpu.cfs_quota_us", "300000\n");
    check_int(quota_of(root), 3);
}

TEST(processors_are_those_this_process_may_use)
{
    cpu_set_t all, one;
    sched_getaffinity(0, sizeof all, &all);
    check(bw_cpu_count() >= 1 && bw_cpu_count() <= CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    check_int(sched_setaffinity(0, sizeof one, &one), 0);
    const int n = bw_cpu_count();
    check_int(sched_setaffinity(0, sizeof all, &all), 0);
    check_int(n, 1);
    check_int(bw_cpu_quota("/there/is/no/such/file", "/sys/fs/cgroup"), 0);
}

TESTS_MAIN(ENTRY(every_unit_runs_exactly_once_on_any_number_of_threads), ENTRY(every_unit_runs_exactly_once_under_random_delays),
           ENTRY(thousands_of_runs_follow_each_other_without_a_pause), ENTRY(a_run_of_as_many_units_as_there_may_be_runs_each_once),
           ENTRY(a_pool_whose_workers_were_ended_is_the_caller_alone), ENTRY(every_thread_begins_with_its_own_share),
           ENTRY(who_has_finished_helps_the_others), ENTRY(an_idle_pool_uses_no_processor),
           ENTRY(no_more_threads_work_than_there_are_processors), ENTRY(a_pool_that_cannot_be_made_says_so),
           ENTRY(pools_live_beside_each_other), ENTRY(pinned_workers_stay_on_one_of_the_allowed_processors_each),
           ENTRY(a_unit_that_runs_units_is_a_failed_assertion), ENTRY(the_least_quota_of_the_groups_above_counts),
           ENTRY(quotas_of_the_first_kind_of_control_groups_count), ENTRY(processors_are_those_this_process_may_use))
