/* work.c - the threads of work.h: a queue of jobs, a list of those that are done, and a pipe that tells
 * the loop.
 *
 * Jobs move from `waiting` to a worker to `done` under one lock; `done` is called on the loop's thread
 * only. The pipe holds at most a byte per job and is never waited for. */
#include "server/work.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/mem.h"
#include "base/status.h"

enum { MAX_THREADS = 64 };

typedef struct job {
    struct job *next;
    void (*run)(void *job);
    void (*done)(void *job);
    void *arg;
} job;

typedef struct job_list {
    job *first, **last;
} job_list;

struct bw_work {
    pthread_mutex_t lock;
    pthread_cond_t more;
    job_list waiting, finished;
    bool stopping;
    int pipe[2]; /* a byte: something finished */
    struct event *told;
    pthread_t threads[MAX_THREADS];
    int n_threads;
};

static void append(job_list *list, job *j)
{
    j->next = NULL;
    *list->last = j;
    list->last = &j->next;
}

static job *take_first(job_list *list)
{
    job *j = list->first;
    if (j && !(list->first = j->next))
        list->last = &list->first;
    return j;
}

static job *take_all(job_list *list)
{
    job *all = list->first;
    list->first = NULL;
    list->last = &list->first;
    return all;
}

static void *worker(void *arg)
{
    bw_work *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->waiting.first && !w->stopping)
            pthread_cond_wait(&w->more, &w->lock);
        if (w->stopping)
            break;
        job *j = take_first(&w->waiting);
        pthread_mutex_unlock(&w->lock);
        j->run(j->arg);
        pthread_mutex_lock(&w->lock);
        append(&w->finished, j);
        /* A full pipe already holds bytes that wake the loop. */
        while (write(w->pipe[1], "", 1) < 0 && errno == EINTR)
            ;
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void tell(job *j)
{
    while (j) {
        job *next = j->next;
        j->done(j->arg);
        bw_mem_free(j);
        j = next;
    }
}

static void on_told(evutil_socket_t fd, short what, void *arg)
{
    bw_work *w = arg;
    char bytes[256];
    (void)what;
    while (read(fd, bytes, sizeof bytes) > 0)
        ;
    pthread_mutex_lock(&w->lock);
    job *all = take_all(&w->finished);
    pthread_mutex_unlock(&w->lock);
    tell(all);
}

static bw_status open_pipe(bw_work *w, struct event_base *base, bw_error *err)
{
    if (pipe(w->pipe)) {
        w->pipe[0] = w->pipe[1] = -1;
        return bw_fail(err, BW_E_IO, "worker threads: no pipe: %s", strerror(errno));
    }
    for (int i = 0; i < 2; i++) {
        fcntl(w->pipe[i], F_SETFL, O_NONBLOCK);
        fcntl(w->pipe[i], F_SETFD, FD_CLOEXEC);
    }
    w->told = event_new(base, w->pipe[0], EV_READ | EV_PERSIST, on_told, w);
    if (!w->told || event_add(w->told, NULL))
        return bw_fail_memory(err, "worker threads", sizeof *w);
    return BW_OK;
}

bw_status bw_work_create(bw_work **out, struct event_base *base, int n_threads, bw_error *err)
{
    bw_work *w = bw_mem_zalloc(1, sizeof *w, BW_MEM_MISC);
    bw_status st;
    *out = NULL;
    if (!w)
        return bw_fail_memory(err, "worker threads", sizeof *w);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    take_all(&w->waiting);
    take_all(&w->finished);
    w->pipe[0] = w->pipe[1] = -1;
    if ((st = open_pipe(w, base, err)))
        goto fail;
    n_threads = n_threads < 1 ? 1 : n_threads > MAX_THREADS ? MAX_THREADS : n_threads;
    for (; w->n_threads < n_threads; w->n_threads++) {
        int failed = pthread_create(&w->threads[w->n_threads], NULL, worker, w);
        if (failed) {
            st = bw_fail(err, BW_E_IO, "worker threads: number %d of %d does not start: %s", w->n_threads + 1,
                         n_threads, strerror(failed));
            goto fail;
        }
    }
    *out = w;
    return BW_OK;
fail:
    bw_work_destroy(w);
    return st;
}

void bw_work_destroy(bw_work *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->n_threads; i++)
        pthread_join(w->threads[i], NULL);
    w->n_threads = 0;
    tell(take_all(&w->finished));
    tell(take_all(&w->waiting));
    if (w->told)
        event_free(w->told);
    for (int i = 0; i < 2; i++)
        if (w->pipe[i] >= 0)
            close(w->pipe[i]);
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->lock);
    bw_mem_free(w);
}

void bw_work_add(bw_work *w, void (*run)(void *job), void (*done)(void *job), void *arg)
{
    if (w->stopping) { /* from a `done` of bw_work_destroy: dropped as those that wait are */
        done(arg);
        return;
    }
    job *j = bw_mem_alloc(sizeof *j, BW_MEM_MISC);
    if (!j) { /* no memory to queue it: the loop does it itself */
        run(arg);
        done(arg);
        return;
    }
    *j = (job){ .run = run, .done = done, .arg = arg };
    pthread_mutex_lock(&w->lock);
    append(&w->waiting, j);
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
}

bool bw_work_cancel(bw_work *w, const void *arg)
{
    pthread_mutex_lock(&w->lock);
    job **at = &w->waiting.first;
    while (*at && (*at)->arg != arg)
        at = &(*at)->next;
    job *found = *at;
    if (found && !(*at = found->next))
        w->waiting.last = at;
    pthread_mutex_unlock(&w->lock);
    bw_mem_free(found);
    return found != NULL;
}
