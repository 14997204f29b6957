/* loader.h - everything between a path and an engine that answers, on a thread of its own, while the
 * server already listens: the model, the choice of memory, the engine and its thread, the self-test.
 *
 * Owns what it makes until it is taken. A loader nobody waits for any more (the server was told to stop)
 * clears up after itself when it comes to its end. Threads: the caller's is the loop's. */
#ifndef BW_SERVER_LOADER_H
#define BW_SERVER_LOADER_H

#include "engine/engine_thread.h"
#include "server/self_test.h"
#include "server/serve.h"

typedef struct bw_loader bw_loader;

/* What was made; the caller's once taken, all of it ended with bw_loaded_fini. */
typedef struct bw_loaded {
    bw_model *model;
    bw_engine *engine;
    bw_engine_thread *thread;
    int wake_fd;              /* an eventfd, not blocking; readable when the thread has put something out */
    uint64_t kv_memory, cache_memory, available, headroom; /* bytes; as chosen or given, and from what */
    int max_waiting;
    bw_self_test self_test;
} bw_loaded;

/* options are borrowed until `done`; a loader that is abandoned has a copy of what it needs.
 * done(arg) is called once, on the loader's thread, when it has come to its end: it must only signal. */
bw_status bw_loader_start(bw_loader **out, const bw_serve_options *options, void (*done)(void *arg), void *arg,
                          bw_error *err);
double bw_loader_progress(const bw_loader *loader); /* 0 .. 1, any thread */
/* After done: what was made, or why not. Frees the loader. */
bw_status bw_loader_take(bw_loader *loader, bw_loaded *loaded, bw_error *err);
/* Returns at once; done is not called any more. */
void bw_loader_abandon(bw_loader *loader);
/* Threads of loaders, abandoned ones too, that have not come to their end. */
int bw_loaders_running(void);

void bw_loaded_fini(bw_loaded *loaded); /* takes a zeroed one, its wake_fd 0 */

#endif
