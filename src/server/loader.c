/* loader.c - see loader.h. */
#define _GNU_SOURCE /* eventfd's flags */
#include "server/loader.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/status.h"
#include "server/memory_choice.h"

enum { DEFAULT_SEQS = 32, LEAST_WAITING = 64, MILLION = 1000000 };

static atomic_int n_running;

struct bw_loader {
    bw_serve_options options; /* a copy: the caller's may be gone before the loader is */
    char *path;
    bw_loaded loaded;
    bw_status status;
    bw_error err;
    atomic_int progress; /* millionths */
    uint64_t start_ns;
    int said_tenths;     /* of the progress, in the log */

    pthread_mutex_t lock;
    bool over, abandoned;
    void (*done)(void *arg);
    void *arg;
};

static void loader_free(bw_loader *l)
{
    bw_loaded_fini(&l->loaded);
    pthread_mutex_destroy(&l->lock);
    bw_mem_free(l->path);
    bw_mem_free(l);
}

static void note_progress(void *arg, double done)
{
    bw_loader *l = arg;
    const int tenths = (int)(done * 10);
    atomic_store_explicit(&l->progress, (int)(done * MILLION), memory_order_relaxed);
    if (tenths > l->said_tenths && bw_clock_ns() - l->start_ns > 1000000000u) {
        bw_log(BW_LOG_INFO, "loading, %d %%", 10 * tenths);
        l->said_tenths = tenths;
    }
}

double bw_loader_progress(const bw_loader *l)
{
    return (double)atomic_load_explicit(&l->progress, memory_order_relaxed) / MILLION;
}

static void wake(void *arg)
{
    const uint64_t one = 1;
    if (write((int)(intptr_t)arg, &one, sizeof one) < 0 && errno != EAGAIN)
        bw_log(BW_LOG_WARNING, "the engine's signal cannot be sent: %s", strerror(errno));
}

/* ---- memory ---------------------------------------------------------------------------------- */

static double gib(uint64_t bytes)
{
    return (double)bytes / 0x1p30;
}

static void say_choice(const bw_loader *l, const bw_memory_plan *all, const bw_engine_options *o)
{
    const bw_loaded *d = &l->loaded;
    const uint64_t pool_tokens = o->kv_memory / (all->kv_bytes_per_token ? all->kv_bytes_per_token : 1);
    if (o->max_seqs < all->max_seqs)
        bw_log(BW_LOG_INFO, "sequences: %d instead of %d: that is what %.2f GiB of free memory hold beside %.2f GiB of "
               "weights (--max-seqs)", o->max_seqs, all->max_seqs, gib(d->available), gib(all->weights));
    if (l->options.kv_given && d->kv_memory < l->options.engine.kv_memory)
        bw_log(BW_LOG_INFO, "KV memory: %.2f GiB instead of %.2f: they hold a full context of every sequence",
               gib(d->kv_memory), gib(l->options.engine.kv_memory));
    if (!l->options.kv_given)
        bw_log(BW_LOG_INFO, "KV memory: %.2f GiB, %llu tokens for all sequences together, chosen from %.2f GiB free, "
               "%.2f GiB of them left alone (--kv-memory)", gib(d->kv_memory), (unsigned long long)pool_tokens,
               gib(d->available), gib(d->headroom));
    if (!l->options.cache_given)
        bw_log(BW_LOG_INFO, "cache memory: %.2f GiB, about %llu checkpoints, chosen from %.2f GiB free (--cache-memory)",
               gib(d->cache_memory), (unsigned long long)(d->cache_memory / (all->checkpoint_bytes ? all->checkpoint_bytes : 1)),
               gib(d->available));
}

/* Sequences, pages and checkpoints, from sizes and the free memory. */
static bw_status choose_memory(bw_loader *l, bw_engine_options *o, bw_error *err)
{
    bw_memory_plan all, one;
    bw_engine_options single;
    bw_status st;
    const bool seqs_given = o->max_seqs > 0;
    if (!seqs_given)
        o->max_seqs = DEFAULT_SEQS;
    single = *o;
    single.max_seqs = 1;
    o->kv_memory = single.kv_memory = 0;
    if ((st = bw_engine_plan(l->loaded.model, o, &all, err)) || (st = bw_engine_plan(l->loaded.model, &single, &one, err)))
        return st;
    const uint64_t copies = bw_mem_used(BW_MEM_WEIGHTS); /* taken already */
    const bw_memory_wish wish = {
        .available = bw_mem_available(),
        .weights = all.weights > copies ? all.weights - copies : 0,
        .scratch = all.scratch,
        .context_bytes = one.kv,
        .sequence_bytes = all.state_bytes_per_sequence,
        .checkpoint_bytes = all.checkpoint_bytes,
        .max_seqs = o->max_seqs,
        .seqs_given = seqs_given,
        .kv_given = l->options.kv_given,
        .cache_given = l->options.cache_given,
        .kv_memory = l->options.engine.kv_memory,
        .cache_memory = l->options.engine.cache_memory,
    };
    if (wish.cache_given && wish.available && wish.cache_memory > wish.available)
        return bw_fail(err, BW_E_MEMORY, "cache memory: %.2f GiB are wanted for checkpoints and %.2f GiB are free: ask for less "
                       "(--cache-memory)", gib(wish.cache_memory), gib(wish.available));
    const bw_memory_choice choice = bw_memory_choose(&wish);
    o->max_seqs = choice.max_seqs;
    o->kv_memory = choice.kv_memory;
    o->cache_memory = choice.cache_memory;
    l->loaded.kv_memory = choice.kv_memory;
    l->loaded.cache_memory = choice.cache_memory;
    l->loaded.available = wish.available;
    l->loaded.headroom = choice.headroom;
    say_choice(l, &all, o);
    return BW_OK;
}

/* ---- the steps of loading -------------------------------------------------------------------- */

static bw_status open_model(bw_loader *l, bw_error *err)
{
    bw_model_options options = l->options.model;
    l->start_ns = bw_clock_ns();
    options.progress = note_progress;
    options.progress_arg = l;
    const bw_status st = bw_model_open(&l->loaded.model, l->path, &options, err);
    const bw_model_info *info = st ? NULL : bw_model_get_info(l->loaded.model);
    if (!st && !info->has_text)
        return bw_fail(err, BW_E_UNSUPPORTED, "%s cannot be served, because the API speaks text and the model brought no "
                       "tokenizer (%s): put its tokenizer beside it", l->path, info->text_note);
    return st;
}

static bw_status create_engine(bw_loader *l, bw_error *err)
{
    bw_engine_options o = l->options.engine;
    bw_loaded *d = &l->loaded;
    bw_status st = choose_memory(l, &o, err);
    if (st)
        return st;
    o.max_waiting = l->options.max_waiting;
    if (o.max_waiting <= 0)
        o.max_waiting = o.max_seqs * 4 > LEAST_WAITING ? o.max_seqs * 4 : LEAST_WAITING;
    d->max_waiting = o.max_waiting;
    if ((st = bw_engine_create(&d->engine, d->model, &o, err)))
        return st;
    d->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (d->wake_fd < 0) {
        d->wake_fd = 0;
        return bw_fail(err, BW_E_IO, "engine: cannot make a signal (eventfd): %s", strerror(errno));
    }
    if ((st = bw_engine_thread_create(&d->thread, d->engine, wake, (void *)(intptr_t)d->wake_fd, err)))
        return st;
    const bw_memory_plan *plan = bw_engine_get_plan(d->engine);
    const int64_t most_tokens = (int64_t)4 * plan->context * plan->max_seqs;
    bw_engine_thread_set_admission(d->thread, (bw_admission){
        .max_requests = d->max_waiting,
        .max_tokens = l->options.max_waiting_tokens ? l->options.max_waiting_tokens : most_tokens });
    return BW_OK;
}

static void say_finding(const char *what, const bw_finding *finding)
{
    if (finding->engaged == BW_ENGAGED_NO)
        bw_log(BW_LOG_WARNING, "self-test: %s: %s", what, finding->note);
    else if (finding->engaged == BW_ENGAGED_OFF)
        bw_log(BW_LOG_INFO, "self-test: %s: %s", what, finding->note);
}

static bw_status test_engine(bw_loader *l, bw_error *err)
{
    bw_loaded *d = &l->loaded;
    const bw_self_test_setup setup = {
        .model = d->model,
        .thread = d->thread,
        .wake_fd = d->wake_fd,
        .drafts = !l->options.engine.no_drafts,
        .cache = d->cache_memory > 0,
        .context = bw_engine_get_plan(d->engine)->context,
    };
    if (l->options.no_self_test) {
        bw_self_test_skip(&d->self_test);
        return BW_OK;
    }
    bw_status st = bw_self_test_run(&d->self_test, &setup, err);
    if (st)
        return st;
    say_finding("drafts", &d->self_test.drafts);
    say_finding("prefix cache", &d->self_test.cache);
    say_finding("cached and cold", &d->self_test.agreement);
    return BW_OK;
}

static void *load(void *arg)
{
    bw_loader *l = arg;
    bw_status st;
    if (!(st = open_model(l, &l->err)) && !(st = create_engine(l, &l->err)))
        st = test_engine(l, &l->err);
    l->status = st;
    pthread_mutex_lock(&l->lock);
    const bool abandoned = l->abandoned;
    l->over = true;
    if (!abandoned)
        l->done(l->arg); /* under the lock: nobody can abandon, and free, what it signals to */
    pthread_mutex_unlock(&l->lock);
    if (abandoned)
        loader_free(l);
    atomic_fetch_sub(&n_running, 1);
    return NULL;
}

/* ---- from the loop's thread ------------------------------------------------------------------ */

bw_status bw_loader_start(bw_loader **out, const bw_serve_options *options, void (*done)(void *arg), void *arg,
                          bw_error *err)
{
    *out = NULL;
    bw_loader *l = bw_mem_zalloc(1, sizeof *l, BW_MEM_MISC);
    char *path = bw_mem_strdup(options->model_path);
    pthread_t thread;
    if (!l || !path) {
        bw_mem_free(l);
        bw_mem_free(path);
        return bw_fail_memory(err, "loading", sizeof *l);
    }
    l->options = *options;
    l->path = path;
    l->done = done;
    l->arg = arg;
    pthread_mutex_init(&l->lock, NULL);
    atomic_fetch_add(&n_running, 1);
    const int rc = pthread_create(&thread, NULL, load, l);
    if (rc != 0) {
        atomic_fetch_sub(&n_running, 1);
        loader_free(l);
        return bw_fail(err, BW_E_IO, "threads: cannot start the one that loads: %s", strerror(rc));
    }
    pthread_detach(thread);
    *out = l;
    return BW_OK;
}

bw_status bw_loader_take(bw_loader *l, bw_loaded *loaded, bw_error *err)
{
    pthread_mutex_lock(&l->lock); /* its thread is past its last look at l when this is ours */
    const bw_status st = l->status;
    pthread_mutex_unlock(&l->lock);
    *loaded = (bw_loaded){ 0 };
    if (st) {
        if (err)
            *err = l->err;
    } else {
        *loaded = l->loaded;
        l->loaded = (bw_loaded){ 0 };
    }
    loader_free(l);
    return st;
}

void bw_loader_abandon(bw_loader *l)
{
    pthread_mutex_lock(&l->lock);
    l->abandoned = true;
    const bool over = l->over;
    pthread_mutex_unlock(&l->lock);
    if (over)
        loader_free(l);
}

int bw_loaders_running(void)
{
    return atomic_load(&n_running);
}

void bw_loaded_fini(bw_loaded *d)
{
    bw_engine_thread_destroy(d->thread);
    bw_engine_destroy(d->engine);
    bw_model_close(d->model);
    if (d->wake_fd > 0)
        close(d->wake_fd);
    *d = (bw_loaded){ 0 };
}
