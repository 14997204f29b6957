/* server.h - what the parts of a running server share. Made and torn down by serve.c; the loop's thread.
 *
 * src/server knows tokens and text, never tensors: it talks to an engine through engine_thread.h. */
#ifndef BW_SERVER_SERVER_H
#define BW_SERVER_SERVER_H

#include <time.h>

#include "engine/engine_thread.h"
#include "server/api_request.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/work.h"

typedef struct bw_generations bw_generations; /* generation.h */
typedef struct bw_self_test bw_self_test;     /* self_test.h */
typedef struct bw_loaded bw_loaded;           /* loader.h */

typedef struct bw_server {
    const struct bw_serve_options *options; /* serve.h */
    struct event_base *base;
    bw_http *http;
    bw_work *work;
    double load_progress;  /* 0 .. 1 */
    char failure[512];     /* why it serves no more; "": it does */

    /* NULL until the model is loaded */
    bw_model *model;
    bw_engine *engine; /* the thread's; here only to be destroyed, and for bw_engine_get_plan */
    bw_engine_thread *thread;
    bw_metrics *metrics;
    bw_generations *generations;
    bw_api_context api;
    const bw_self_test *self_test;
    const bw_loaded *loaded; /* what memory was given to what */

    const char *model_id;  /* served id, = api.model_ids[0] */
    time_t created;        /* of the process: constant in /v1/models */
    char fingerprint[96];  /* system_fingerprint: model, quantisation, backend, version */
} bw_server;

#endif
