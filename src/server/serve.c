/* serve.c - the life of a server: it listens, loads, serves, drains and ends.
 *
 * Owns everything a bw_server points to and takes it down in the order in which its parts lean on one
 * another. The loop runs on the caller's thread; the loader and the engine have threads of their own,
 * which only signal. */
#define _GNU_SOURCE /* eventfd's flags */
#include "server/serve.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/thread.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/utf8.h"
#include "engine/model_facts.h"
#include "server/generation.h"
#include "server/loader.h"
#include "server/notify.h"
#include "server/routes.h"
#include "server/server.h"
#include "server/start_receipt.h"

enum { MS = 1000000, BUSY_TICK_MS = 50, IDLE_TICK_MS = 1000, FLUSH_MS = 1000, FAREWELL_MS = 2000 };

typedef struct serving {
    bw_server server; /* first: handlers get its address */
    bw_serve_options options;
    bw_route routes[BW_MAX_ROUTES];
    int n_routes;
    char default_id[256];
    const char *default_ids[1];
    char address[320];

    struct event *term, *interrupt, *loaded_event, *posts_event, *tick;
    int loaded_fd; /* -1: none */
    bw_loader *loader;
    bw_loaded loaded;

    double watchdog_s;
    uint64_t watchdog_ns;  /* when the last was sent */
    bool draining, told;   /* told: what still ran was ended with an error */
    uint64_t drain_ns, told_ns, quiet_ns;
    double drain_timeout_s;
    bw_status status;      /* of the whole */
    bw_error err;
} serving;

bw_serve_options bw_serve_defaults(void)
{
    return (bw_serve_options){
        .engine = bw_engine_defaults(),
        .http = bw_http_defaults(),
        .max_n = 16,
        .late_system = BW_LATE_SYSTEM_JOIN,
        .reasoning_field = BW_REASONING_BOTH,
        .stream_interval = 1,
        .drain_timeout_s = 30,
    };
}

static double seconds_since(uint64_t ns)
{
    return (double)(bw_clock_ns() - ns) * 1e-9;
}

/* ---- a request is over ----------------------------------------------------------------------- */

static const char *method_name(bw_method method)
{
    switch (method) {
    case BW_GET: return "GET";
    case BW_POST: return "POST";
    case BW_DELETE: return "DELETE";
    case BW_HEAD: return "HEAD";
    case BW_OPTIONS: return "OPTIONS";
    }
    return "-";
}

/* METHOD PATH STATUS BYTES MILLISECONDS ID: no text of anybody's, and nothing a terminal would obey. */
static void print_access(const serving *s, const bw_exchange *x, int status, double seconds)
{
    char text[1024], trace[80] = "";
    const char *parent = bw_exchange_header(x, "traceparent"), *path = bw_exchange_path(x);
    if (parent)
        snprintf(trace, sizeof trace, " traceparent=%.60s", parent);
    snprintf(text, sizeof text, "%s %.300s %d %llu bytes %.1f ms %s%s", method_name(bw_exchange_method(x)),
             path && path[0] ? path : "-", status, (unsigned long long)bw_exchange_sent(x), seconds * 1e3, bw_exchange_id(x), trace);
    bw_utf8_one_line(text);
    s->options.print(s->options.print_arg, text);
}

static void on_request_over(void *arg, const bw_exchange *x, int status, double seconds)
{
    const serving *s = arg;
    const bw_route *route = bw_exchange_route(x);
    bw_metrics *metrics = s->server.metrics;
    if (metrics) {
        bw_metrics_http(metrics, route ? route->name : "none", method_name(bw_exchange_method(x)), status, seconds);
        if (status == 503 && route && route->flags & BW_ROUTE_READY && bw_http_ready(s->server.http) == BW_DRAINING)
            bw_metrics_rejected(metrics, "draining");
    }
    if (s->options.log_requests && s->options.print)
        print_access(s, x, status, seconds);
}

/* ---- serving --------------------------------------------------------------------------------- */

static void drain_signal(int fd)
{
    uint64_t count;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
}

static void set_tick(serving *s, int ms)
{
    const struct timeval every = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
    event_add(s->tick, &every);
}

/* Ends the loop once what runs is done, at the latest after timeout_s. */
static void begin_drain(serving *s, double timeout_s)
{
    s->draining = true;
    s->drain_ns = bw_clock_ns();
    s->drain_timeout_s = timeout_s;
    set_tick(s, BUSY_TICK_MS);
}

static void fail_engine(serving *s, const char *message)
{
    snprintf(s->server.failure, sizeof s->server.failure, "%s", message);
    s->status = bw_fail(&s->err, BW_E_INTERNAL, "the engine has failed: %s", message);
    bw_notify("STOPPING=1\nSTATUS=the engine has failed");
    bw_http_set_ready(s->server.http, BW_FAILED, 1, s->server.failure);
    bw_generations_fail_all(s->server.generations, "engine_failed", s->err.message);
    begin_drain(s, 0);
}

static void look_at_engine(serving *s)
{
    char failure[512];
    if (!s->draining && s->server.thread && bw_engine_thread_failed(s->server.thread, failure, sizeof failure))
        fail_engine(s, failure);
}

/* Wakes for what the engine has put out. */
static void on_posts(evutil_socket_t fd, short what, void *arg)
{
    serving *s = arg;
    bw_post *posts;
    bw_step_record *steps;
    bw_engine_stats stats;
    (void)what;
    drain_signal(fd);
    bw_engine_thread_take(s->server.thread, &posts, &steps);
    for (bw_step_record *next; steps; steps = next) {
        next = steps->next;
        bw_metrics_step(s->server.metrics, &steps->info);
        bw_step_record_free(steps);
    }
    bw_engine_thread_stats(s->server.thread, &stats);
    bw_metrics_engine(s->server.metrics, &stats);
    look_at_engine(s); /* first: an answer it cannot finish is a 503, not a mistake of ours */
    bw_generations_take_posts(s->server.generations, posts);
}

/* Nothing is being answered, and the last bytes have left (or had time to). */
static bool is_quiet(serving *s)
{
    if (bw_http_open_exchanges(s->server.http) > 0) {
        s->quiet_ns = 0;
        return false;
    }
    if (!s->quiet_ns)
        s->quiet_ns = bw_clock_ns();
    return bw_http_connections(s->server.http) == 0 || bw_clock_ns() - s->quiet_ns > (uint64_t)FLUSH_MS * MS;
}

static void tick_draining(serving *s)
{
    if (is_quiet(s)) {
        event_base_loopbreak(s->server.base);
    } else if (!s->told && seconds_since(s->drain_ns) >= s->drain_timeout_s) {
        s->told = true;
        s->told_ns = bw_clock_ns();
        if (!s->status) {
            bw_log(BW_LOG_WARNING, "draining: %d still running after %g s, ended with an error",
                   bw_generations_live(s->server.generations), s->drain_timeout_s);
            bw_generations_fail_all(s->server.generations, "draining", "The server is shutting down");
        }
    } else if (s->told && bw_clock_ns() - s->told_ns > (uint64_t)FAREWELL_MS * MS) {
        event_base_loopbreak(s->server.base);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    serving *s = arg;
    (void)fd;
    (void)what;
    if (s->watchdog_s > 0 && seconds_since(s->watchdog_ns) >= s->watchdog_s) {
        s->watchdog_ns = bw_clock_ns();
        bw_notify("WATCHDOG=1");
    }
    if (s->loader) {
        s->server.load_progress = bw_loader_progress(s->loader);
        bw_http_set_ready(s->server.http, BW_LOADING, s->server.load_progress, NULL);
    }
    look_at_engine(s);
    if (s->draining)
        tick_draining(s);
}

/* ---- loading is over ------------------------------------------------------------------------- */

static const char *quantization_of(const bw_model *model, char text[32])
{
    bw_model_facts facts;
    bw_model_get_facts(model, &facts);
    snprintf(text, 32, "%s", facts.quantization);
    return text;
}

/* The names of the routes, each once. */
static int list_handlers(const serving *s, const char *names[BW_MAX_ROUTES])
{
    int n = 0;
    for (int i = 0; i < s->n_routes; i++) {
        int k = 0;
        while (k < n && strcmp(names[k], s->routes[i].name) != 0)
            k++;
        if (k == n)
            names[n++] = s->routes[i].name;
    }
    return n;
}

static bw_status make_metrics(serving *s, bw_error *err)
{
    const bw_model_info *info = bw_model_get_info(s->server.model);
    const bw_memory_plan *plan = bw_engine_get_plan(s->server.engine);
    const char *handlers[BW_MAX_ROUTES];
    char quantization[32];
    const bw_metrics_options options = {
        .model_name = s->server.model_id,
        .backend = info->cpu_level,
        .quantization = quantization_of(s->server.model, quantization),
        .context = plan->context,
        .max_seqs = plan->max_seqs,
        .kv_type = s->options.engine.kv == BW_KV_F32 ? "f32" : "f16",
        .prefix_cache = s->loaded.cache_memory > 0,
        .legacy = s->options.metrics_legacy,
        .handlers = handlers,
        .n_handlers = list_handlers(s, handlers),
        .load_s = info->load_s,
        .plan = plan,
    };
    return bw_metrics_create(&s->server.metrics, &options, err);
}

static void fill_api(serving *s)
{
    const bw_model_info *info = bw_model_get_info(s->server.model);
    char quantization[32], name[41]; /* the beginning of the name, not cut inside a character */
    snprintf(name, sizeof name, "%s", s->server.model_id);
    name[bw_utf8_valid_prefix(name, strlen(name))] = '\0';
    s->server.api.model = s->server.model;
    s->server.api.context = bw_engine_get_plan(s->server.engine)->context;
    snprintf(s->server.fingerprint, sizeof s->server.fingerprint, "%s-%s-%s-%s", name,
             quantization_of(s->server.model, quantization), info->cpu_level, bw_version());
}

static bw_status take_loaded(serving *s, bw_error *err)
{
    bw_status st = bw_loader_take(s->loader, &s->loaded, err);
    s->loader = NULL;
    if (st)
        return st;
    s->server.model = s->loaded.model;
    s->server.engine = s->loaded.engine;
    s->server.thread = s->loaded.thread;
    s->server.loaded = &s->loaded;
    s->server.self_test = &s->loaded.self_test;
    s->server.load_progress = 1;
    fill_api(s);
    if ((st = make_metrics(s, err)) || (st = bw_generations_create(&s->server.generations, &s->server, err)))
        return st;
    s->posts_event = event_new(s->server.base, s->loaded.wake_fd, EV_READ | EV_PERSIST, on_posts, s);
    if (!s->posts_event || event_add(s->posts_event, NULL))
        return bw_fail_memory(err, "server: events", sizeof *s);
    return BW_OK;
}

static void on_loaded(evutil_socket_t fd, short what, void *arg)
{
    serving *s = arg;
    char status[400];
    (void)what;
    drain_signal(fd);
    if ((s->status = take_loaded(s, &s->err))) {
        event_base_loopbreak(s->server.base);
        return;
    }
    bw_http_set_ready(s->server.http, BW_READY, 1, NULL);
    set_tick(s, s->watchdog_s > 0 && s->watchdog_s < 1 ? (int)(s->watchdog_s * 500) + 1 : IDLE_TICK_MS);
    bw_start_receipt(&s->server, s->address, s->options.print, s->options.print_arg);
    snprintf(status, sizeof status, "READY=1\nSTATUS=serving on %s", s->address);
    bw_notify(status);
}

/* ---- told to stop ---------------------------------------------------------------------------- */

static void on_stop(evutil_socket_t number, short what, void *arg)
{
    serving *s = arg;
    (void)what;
    if (s->draining || s->loader) {
        bw_log(BW_LOG_INFO, "%s: stopping at once", number == SIGINT ? "SIGINT" : "SIGTERM");
        event_base_loopbreak(s->server.base);
        return;
    }
    const int n = bw_http_open_exchanges(s->server.http);
    bw_notify("STOPPING=1\nSTATUS=draining");
    bw_log(BW_LOG_INFO, "%s: no new requests, %d running, %g s for them to end (again: at once)",
           number == SIGINT ? "SIGINT" : "SIGTERM", n, s->options.drain_timeout_s);
    bw_http_set_ready(s->server.http, BW_DRAINING, 1, NULL);
    begin_drain(s, s->options.drain_timeout_s);
}

/* ---- create and destroy ---------------------------------------------------------------------- */

static bool is_loopback(const char *host)
{
    const bool is_number = host[strspn(host, "0123456789.")] == '\0'; /* a name may begin with 127., too */
    return (is_number && strncmp(host, "127.", 4) == 0) || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

static bw_status check_host(const bw_serve_options *o, bw_error *err)
{
    if (is_loopback(o->http.host) || o->http.n_keys > 0 || o->insecure)
        return BW_OK;
    return bw_fail(err, BW_E_ARGUMENT, "listening on %s without an API key would let everybody who reaches this machine use "
                   "the model: give --api-key-file FILE, or --host 127.0.0.1, or --insecure where a proxy guards it",
                   o->http.host);
}

/* They stand in every answer and in the metrics' labels. */
static bw_status check_ids(const bw_serve_options *o, bw_error *err)
{
    for (int i = 0; i < o->n_model_ids; i++) {
        const char *id = o->model_ids[i];
        const size_t n = strlen(id);
        bool is_text = n > 0 && bw_utf8_valid_prefix(id, n) == n;
        for (size_t k = 0; k < n; k++)
            is_text = is_text && (unsigned char)id[k] >= ' ' && id[k] != 0x7F;
        if (!is_text)
            return bw_fail(err, BW_E_ARGUMENT, "model id %d of %d is empty, not UTF-8 or has a control character in it, expected "
                           "a name such as \"qwen\"", i + 1, o->n_model_ids);
    }
    return BW_OK;
}

/* "models/lamb/" is served as "lamb", "x/Qwen3.5-0.8B-Q4_0.gguf" as "Qwen3.5-0.8B-Q4_0". */
static void name_of_path(char *name, size_t room, const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t start = n;
    while (start > 0 && path[start - 1] != '/')
        start--;
    snprintf(name, room, "%.*s", (int)(n - start), path + start);
    char *end = strrchr(name, '.');
    if (end && end != name && strcmp(end, ".gguf") == 0)
        *end = '\0';
    bw_utf8_one_line(name);
    if (!name[0] || strcmp(name, "/") == 0 || strcmp(name, ".") == 0)
        snprintf(name, room, "model");
}

static void set_ids(serving *s)
{
    bw_api_context *api = &s->server.api;
    name_of_path(s->default_id, sizeof s->default_id, s->options.model_path);
    s->default_ids[0] = s->default_id;
    api->model_ids = s->options.n_model_ids ? s->options.model_ids : s->default_ids;
    api->n_model_ids = s->options.n_model_ids ? s->options.n_model_ids : 1;
    s->server.model_id = api->model_ids[0];
    api->max_n = s->options.max_n;
    api->openai_sampling = s->options.openai_sampling;
    api->late_system = s->options.late_system;
    api->default_stream_interval = s->options.stream_interval;
}

static bw_status make_events(serving *s, bw_error *err)
{
    struct event_base *base = s->server.base;
    s->loaded_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (s->loaded_fd < 0)
        return bw_fail(err, BW_E_IO, "server: cannot make a signal (eventfd): %s", strerror(errno));
    s->term = evsignal_new(base, SIGTERM, on_stop, s);
    s->interrupt = evsignal_new(base, SIGINT, on_stop, s);
    s->loaded_event = event_new(base, s->loaded_fd, EV_READ | EV_PERSIST, on_loaded, s);
    s->tick = event_new(base, -1, EV_PERSIST, on_tick, s);
    if (!s->term || !s->interrupt || !s->loaded_event || !s->tick || event_add(s->term, NULL) ||
        event_add(s->interrupt, NULL) || event_add(s->loaded_event, NULL))
        return bw_fail_memory(err, "server: events", sizeof *s);
    set_tick(s, BUSY_TICK_MS);
    return BW_OK;
}

static bw_status listen_first(serving *s, bw_error *err)
{
    bw_http_options http = s->options.http;
    http.log = on_request_over;
    http.arg = s;
    s->n_routes = bw_routes_list(s->routes, !s->options.no_web);
    bw_status st = bw_http_create(&s->server.http, s->server.base, s->routes, s->n_routes, &http, err);
    if (st)
        return st;
    const bool v6 = strchr(http.host, ':') != NULL;
    snprintf(s->address, sizeof s->address, "http://%s%s%s:%d/", v6 ? "[" : "", http.host, v6 ? "]" : "",
             bw_http_port(s->server.http));
    bw_http_set_ready(s->server.http, BW_LOADING, 0, NULL);
    bw_log(BW_LOG_INFO, "listening on %s, loading %s", s->address, s->options.model_path);
    return BW_OK;
}

static void signal_loaded(void *arg)
{
    const uint64_t one = 1;
    const serving *s = arg;
    if (write(s->loaded_fd, &one, sizeof one) < 0)
        bw_log(BW_LOG_WARNING, "the loader's signal cannot be sent: %s", strerror(errno));
}

static bw_status start(serving *s, bw_error *err)
{
    bw_status st;
    if (evthread_use_pthreads() != 0 || !(s->server.base = event_base_new()))
        return bw_fail(err, BW_E_IO, "server: libevent cannot start");
    if ((st = make_events(s, err)) || (st = bw_work_create(&s->server.work, s->server.base, 2, err)) ||
        (st = listen_first(s, err)))
        return st;
    s->watchdog_s = bw_notify_watchdog_s();
    bw_notify("STATUS=loading the model");
    return bw_loader_start(&s->loader, &s->options, signal_loaded, s, err);
}

static void free_event(struct event *event)
{
    if (event)
        event_free(event);
}

/* The jobs of the workers end in exchanges, answers lean on http and the engine, http reports to the
 * metrics: in this order. */
static void stop(serving *s)
{
    if (s->loader)
        bw_loader_abandon(s->loader);
    if (s->server.work)
        bw_work_destroy(s->server.work);
    bw_generations_destroy(s->server.generations);
    s->server.generations = NULL;
    bw_http_destroy(s->server.http);
    free_event(s->posts_event);
    bw_loaded_fini(&s->loaded);
    bw_metrics_destroy(s->server.metrics);
    free_event(s->term);
    free_event(s->interrupt);
    free_event(s->loaded_event);
    free_event(s->tick);
    if (s->loaded_fd >= 0)
        close(s->loaded_fd);
    if (s->server.base)
        event_base_free(s->server.base);
}

bool bw_serve_still_loading(void)
{
    return bw_loaders_running() > 0;
}

bw_status bw_serve(const bw_serve_options *options, bw_error *err)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN }, before;
    bw_status st = check_host(options, err);
    if (st || (st = check_ids(options, err)))
        return st;
    serving *s = bw_mem_zalloc(1, sizeof *s, BW_MEM_MISC);
    if (!s)
        return bw_fail_memory(err, "server", sizeof *s);
    s->options = *options;
    s->server.options = &s->options;
    s->server.created = time(NULL);
    s->loaded_fd = -1;
    set_ids(s);
    sigaction(SIGPIPE, &ignore, &before); /* a client that left is a failed write, no more */
    if (!(st = start(s, err))) {
        event_base_dispatch(s->server.base);
        st = s->status;
        if (st && err)
            *err = s->err;
    }
    stop(s);
    sigaction(SIGPIPE, &before, NULL);
    bw_mem_free(s);
    return st;
}
