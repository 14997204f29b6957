/* Worker threads beside an event loop. */
#include <event2/event.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "lib/check.h"
#include "lib/socket_client.h"
#include "server/work.h"

enum { N = 500 };

typedef struct job {
    pthread_t runner;
    atomic_int ran;
    int done, turn; /* turn: the how manyth to run */
    double seconds;
} job;

static struct event_base *base;
static bw_work *work;
static job jobs[N];
static atomic_int n_run;
static int n_done;
static pthread_t loop;

static void run(void *arg)
{
    job *j = arg;
    j->runner = pthread_self();
    j->turn = atomic_fetch_add(&n_run, 1);
    if (j->seconds > 0)
        poll(NULL, 0, (int)(j->seconds * 1e3));
    atomic_fetch_add(&j->ran, 1);
}

static void done(void *arg)
{
    job *j = arg;
    check(pthread_equal(pthread_self(), loop));
    j->done++;
    n_done++;
}

static void start(int n_threads)
{
    bw_error err;
    memset(jobs, 0, sizeof jobs);
    atomic_store(&n_run, 0);
    n_done = 0;
    loop = pthread_self();
    base = event_base_new();
    check_ok(bw_work_create(&work, base, n_threads, &err), err);
}

static void stop(void)
{
    bw_work_destroy(work);
    event_base_free(base);
}

static void wait_done(int n)
{
    for (double end = seconds_now() + 10; n_done < n && seconds_now() < end;) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        poll(NULL, 0, 1);
    }
    check_int(n_done, n);
}

TEST(every_job_runs_once_on_a_worker_and_is_done_once_on_the_loop)
{
    start(4);
    for (int i = 0; i < N; i++)
        bw_work_add(work, run, done, &jobs[i]);
    wait_done(N);
    for (int i = 0; i < N; i++) {
        check_int(jobs[i].ran, 1);
        check_int(jobs[i].done, 1);
        check(!pthread_equal(jobs[i].runner, loop));
    }
    stop();
    check_int(n_done, N);
}

TEST(one_worker_runs_jobs_in_the_order_given)
{
    start(1);
    for (int i = 0; i < N; i++)
        bw_work_add(work, run, done, &jobs[i]);
    wait_done(N);
    for (int i = 0; i < N; i++)
        check_int(jobs[i].turn, i);
    stop();
}

TEST(destroying_waits_for_what_runs_and_drops_what_waits)
{
    start(1);
    jobs[0].seconds = 0.1;
    for (int i = 0; i < 10; i++)
        bw_work_add(work, run, done, &jobs[i]);
    while (atomic_load(&n_run) == 0)
        poll(NULL, 0, 1);
    stop();
    check_int(jobs[0].ran, 1);
    check_int(n_done, 10);
    check_int(n_run, 1);
    for (int i = 0; i < 10; i++)
        check_int(jobs[i].done, 1);
}

static void done_and_again(void *arg)
{
    done(arg);
    if ((job *)arg < jobs + 20)
        bw_work_add(work, run, done_and_again, (job *)arg + 1);
}

TEST(a_done_job_may_add_another)
{
    start(2);
    bw_work_add(work, run, done_and_again, &jobs[0]);
    wait_done(21);
    bw_work_add(work, run, done_and_again, &jobs[0]); /* also while it is being destroyed */
    stop();
    check(n_done >= 22);
}

TEST(no_threads_is_one_thread)
{
    start(0);
    bw_work_add(work, run, done, &jobs[0]);
    wait_done(1);
    stop();
    bw_work_destroy(NULL);
}

/* One worker is held in the first job: what is behind it can be taken back, in any place of the queue. */
TEST(a_job_that_nobody_has_begun_can_be_taken_back)
{
    start(1);
    jobs[0].seconds = 0.2;
    for (int i = 0; i < 6; i++)
        bw_work_add(work, run, done, &jobs[i]);
    for (double end = seconds_now() + 10; !atomic_load(&n_run) && seconds_now() < end;)
        poll(NULL, 0, 1);
    check(!bw_work_cancel(work, &jobs[0])); /* it runs */
    check(bw_work_cancel(work, &jobs[1]));
    check(bw_work_cancel(work, &jobs[3]));
    check(bw_work_cancel(work, &jobs[5])); /* the last: what is added now must not hang on it */
    check(!bw_work_cancel(work, &jobs[5]));
    bw_work_add(work, run, done, &jobs[6]);
    wait_done(4);
    for (int i = 0; i < 7; i++) {
        check_int(jobs[i].ran, i != 1 && i != 3 && i != 5);
        check_int(jobs[i].done, jobs[i].ran);
    }
    check(!bw_work_cancel(work, &jobs[6])); /* it is done */
    stop();
}

TESTS_MAIN(ENTRY(a_job_that_nobody_has_begun_can_be_taken_back),
           ENTRY(every_job_runs_once_on_a_worker_and_is_done_once_on_the_loop), ENTRY(one_worker_runs_jobs_in_the_order_given),
           ENTRY(destroying_waits_for_what_runs_and_drops_what_waits), ENTRY(a_done_job_may_add_another),
           ENTRY(no_threads_is_one_thread))
