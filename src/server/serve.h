/* serve.h - `bellwether serve`: a model behind HTTP until it is told to stop. */
#ifndef BW_SERVER_SERVE_H
#define BW_SERVER_SERVE_H

#include "server/api_request.h"
#include "server/http.h"

typedef struct bw_serve_options {
    const char *model_path;
    bw_model_options model;
    bw_engine_options engine;  /* as bw_engine_create takes them; context 0 etc. resolved there */
    bool kv_given, cache_given; /* otherwise kv_memory and cache_memory are chosen from free memory, and said */
    int max_waiting;           /* requests; 429 beyond. Default 4 x max_seqs, at least 64 */
    int64_t max_waiting_tokens; /* 0: 4 x context x max_seqs */
    bw_http_options http;
    bool insecure;             /* listen beyond loopback without a key */
    const char *const *model_ids; /* [n_model_ids] --model-id, may be repeated: id, then aliases; 0: name of the path */
    int n_model_ids;
    int max_n;
    bool openai_sampling;
    bw_late_system late_system;
    bw_reasoning_field reasoning_field;
    int stream_interval;
    double request_timeout_s;  /* 0: none */
    double drain_timeout_s;    /* 30 */
    bool metrics_legacy;
    bool no_self_test;
    bool no_web;               /* no page at / */
    bool log_requests;
    /* Lines that are neither warnings nor findings, which go to bw_log: the receipt at start and, with
     * log_requests, one per request. Loop's thread. NULL: dropped. */
    void (*print)(void *arg, const char *line);
    void *print_arg;
} bw_serve_options;

bw_serve_options bw_serve_defaults(void);

/* Listens, loads, tests itself, serves; returns after SIGTERM or SIGINT when what ran is done (0), or
 * with a failure (err): address in use, a model that does not load, an engine that failed. Prints
 * nothing; facts go to bw_log. Main thread. */
bw_status bw_serve(const bw_serve_options *options, bw_error *err);
/* It was told to stop while it loaded, and the thread that loads, which cannot be stopped, is still at work:
 * who ends the process now must do so with _exit, for exit would take libraries from under that thread. */
bool bw_serve_still_loading(void);

#endif
