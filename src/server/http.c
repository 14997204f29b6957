/* http.c - the server as a whole: options, the listener, open files, readiness.
 * Threads: the loop's thread only. */
#include "server/http_parts.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/status.h"

/* Descriptors beside connections: the model's files, pipes, the loop, standing ones. */
enum { OTHER_FILES = 128 };

bw_http_options bw_http_defaults(void)
{
    return (bw_http_options){
        .host = "127.0.0.1", .port = 8080, .max_connections = 4096, .max_body = (size_t)64 << 20,
        .header_timeout_s = 10, .body_timeout_s = 30, .idle_timeout_s = 75, .write_timeout_s = 60, .ping_s = 30,
    };
}

/* ---- turns ---- */

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    bw_http *h = arg;
    (void)fd, (void)what;
    while (h->turn_conns) {
        bw_conn *c = h->turn_conns;
        h->turn_conns = c->next_turn;
        c->in_turn = false;
        bw_conn_turn(c);
    }
    while (h->turn_exchanges) {
        bw_exchange *x = h->turn_exchanges;
        h->turn_exchanges = x->next_turn;
        x->in_turn = false;
        bw_exchange_turn(x);
    }
}

/* ---- the server ---- */

/* More open files than connections, or fewer connections. */
static void fit_file_limit(bw_http_options *o)
{
    const rlim_t want = (rlim_t)o->max_connections + BW_HTTP_SPARE_CONNECTIONS + OTHER_FILES;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= want)
        return;
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= want ? want : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit))
        limit.rlim_cur = before;
    if (limit.rlim_cur >= want) {
        bw_log(BW_LOG_INFO, "open files: limit raised from %llu to %llu for %d connections", (unsigned long long)before,
               (unsigned long long)want, o->max_connections);
        return;
    }
    const int fits = limit.rlim_cur > 2 * OTHER_FILES + BW_HTTP_SPARE_CONNECTIONS
                         ? (int)(limit.rlim_cur - OTHER_FILES - BW_HTTP_SPARE_CONNECTIONS)
                         : OTHER_FILES;
    bw_log(BW_LOG_WARNING, "open files: the system allows %llu (hard limit), %d connections want %llu: at most %d are "
           "taken; raise it with ulimit -n or LimitNOFILE=", (unsigned long long)limit.rlim_max, o->max_connections,
           (unsigned long long)want, fits);
    o->max_connections = fits;
}

static bw_status copy_strings(const char *const **list, int n, bw_error *err)
{
    const char *const *from = *list;
    char **copy = bw_mem_zalloc((size_t)n + 1, sizeof *copy, BW_MEM_MISC);
    *list = (const char *const *)copy;
    if (!copy)
        return bw_fail_memory(err, "HTTP server", (size_t)n * sizeof *copy);
    for (int i = 0; i < n; i++)
        if (!(copy[i] = bw_mem_strdup(from[i])))
            return bw_fail_memory(err, "HTTP server", strlen(from[i]));
    return BW_OK;
}

static void free_strings(const char *const *list, int n)
{
    for (int i = 0; list && i < n; i++)
        bw_mem_free((char *)list[i]);
    bw_mem_free((void *)list);
}

static bw_status open_listener(bw_http *h, struct evconnlistener **out, bw_error *err)
{
    const bw_http_options *o = &h->options;
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV }, *found = NULL;
    char port[16];
    snprintf(port, sizeof port, "%d", o->port);
    int failed = o->port < 0 || o->port > 65535 ? EAI_SERVICE : getaddrinfo(o->host, port, &hints, &found);
    if (failed)
        return bw_fail(err, BW_E_IO, "cannot listen on %s port %d: %s: --host takes an address of "
                       "this machine", o->host, o->port, gai_strerror(failed));
    int why = 0;
    for (struct addrinfo *a = found; a && !*out; a = a->ai_next) {
        *out = evconnlistener_new_bind(h->base, NULL, NULL,
                                       LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 1024,
                                       a->ai_addr, (int)a->ai_addrlen);
        why = errno;
    }
    freeaddrinfo(found);
    if (!*out)
        return bw_fail(err, BW_E_IO, "cannot listen on %s port %d: %s%s", o->host, o->port, strerror(why),
                       why == EADDRINUSE ? ": another program has it, choose another --port" :
                       why == EADDRNOTAVAIL ? ": --host takes an address of this machine" :
                       why == EACCES ? ": ports below 1024 want rights, choose another --port" : "");
    return BW_OK;
}

/* The system has no descriptor for a connection that waits: it would be offered again and again. (The
 * callback's argument is evhttp's, so a timer of ours listens again.) */
static void on_accept_error(struct evconnlistener *listener, void *evhttp)
{
    (void)evhttp;
    bw_log(BW_LOG_WARNING, "cannot accept a connection: %s; trying again in a second", strerror(EVUTIL_SOCKET_ERROR()));
    evconnlistener_disable(listener);
}

static void on_listen_again(evutil_socket_t fd, short what, void *arg)
{
    bw_http *h = arg;
    (void)fd, (void)what;
    if (h->bound)
        evconnlistener_enable(evhttp_bound_socket_get_listener(h->bound));
}

static bw_status listen_here(bw_http *h, bw_error *err)
{
    struct evconnlistener *listener = NULL;
    bw_status st = open_listener(h, &listener, err);
    if (st)
        return st;
    struct sockaddr_storage address;
    socklen_t n = sizeof address;
    if (getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&address, &n) == 0)
        h->port = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                                      : ((struct sockaddr_in *)&address)->sin_port);
    h->bound = evhttp_bind_listener(h->evhttp, listener);
    if (!h->bound) {
        evconnlistener_free(listener);
        return bw_fail_memory(err, "HTTP server", sizeof *h);
    }
    evconnlistener_set_error_cb(listener, on_accept_error);
    const struct timeval second = { 1, 0 };
    event_add(h->listen_again, &second);
    return BW_OK;
}

static void on_libevent_log(int severity, const char *text)
{
    if (severity != EVENT_LOG_DEBUG)
        bw_log(severity == EVENT_LOG_MSG ? BW_LOG_INFO : BW_LOG_WARNING, "libevent: %s", text);
}

/* libevent writes with writev, which kills the process when the client has just left. Whoever handles the
 * signal already keeps his handler. */
static void ignore_broken_pipes(void)
{
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) || now.sa_handler != SIG_DFL)
        return;
    now = (struct sigaction){ .sa_handler = SIG_IGN };
    sigaction(SIGPIPE, &now, NULL);
}

bw_status bw_http_create(bw_http **out, struct event_base *base, const bw_route *routes, int n_routes,
                         const bw_http_options *options, bw_error *err)
{
    bw_http *h = bw_mem_zalloc(1, sizeof *h, BW_MEM_MISC);
    bw_status st;
    *out = NULL;
    if (!h)
        return bw_fail_memory(err, "HTTP server", sizeof *h);
    h->base = base;
    h->options = *options;
    h->routes = routes;
    h->n_routes = n_routes;
    h->ready = BW_READY;
    h->id_stem = bw_clock_ns() ^ (uint64_t)getpid() << 40;
    h->options.keys = h->options.origins = NULL;
    const char *const *keys = options->keys, *const *origins = options->origins;
    st = copy_strings(&keys, options->n_keys, err);
    h->options.keys = keys;
    if (st)
        goto fail;
    st = copy_strings(&origins, options->n_origins, err);
    h->options.origins = origins;
    if (st)
        goto fail;
    event_set_log_callback(on_libevent_log);
    ignore_broken_pipes();
    fit_file_limit(&h->options);
    h->turn = event_new(base, -1, 0, on_turn, h);
    h->listen_again = event_new(base, -1, EV_PERSIST, on_listen_again, h);
    h->evhttp = evhttp_new(base);
    if (!h->turn || !h->listen_again || !h->evhttp) {
        st = bw_fail_memory(err, "HTTP server", sizeof *h);
        goto fail;
    }
    evhttp_set_default_content_type(h->evhttp, NULL);
    evhttp_set_bevcb(h->evhttp, bw_conn_make, h);
    evhttp_set_gencb(h->evhttp, bw_conn_present, h);
    if ((st = listen_here(h, err)))
        goto fail;
    *out = h;
    return BW_OK;
fail:
    bw_http_destroy(h);
    return st;
}

void bw_http_destroy(bw_http *h)
{
    if (!h)
        return;
    while (h->turn_conns) { /* those just accepted are not yet known to tell us their end */
        bw_conn *c = h->turn_conns;
        h->turn_conns = c->next_turn;
        c->in_turn = false;
        if (!c->evcon)
            bw_conn_turn(c);
    }
    if (h->evhttp)
        evhttp_free(h->evhttp);
    if (h->turn)
        event_free(h->turn);
    if (h->listen_again)
        event_free(h->listen_again);
    free_strings(h->options.keys, h->options.n_keys);
    free_strings(h->options.origins, h->options.n_origins);
    bw_mem_free(h->by_fd);
    bw_mem_free(h);
}

int bw_http_port(const bw_http *h)
{
    return h->port;
}

void bw_http_set_ready(bw_http *h, bw_ready ready, double progress, const char *message)
{
    h->ready = ready;
    h->progress = progress;
    snprintf(h->message, sizeof h->message, "%s", message ? message : "");
    if (ready == BW_DRAINING && h->bound) {
        evhttp_del_accept_socket(h->evhttp, h->bound);
        h->bound = NULL;
    }
}

bw_ready bw_http_ready(const bw_http *h)
{
    return h->ready;
}

int bw_http_open_exchanges(const bw_http *h)
{
    return h->n_exchanges;
}

int bw_http_connections(const bw_http *h)
{
    return h->n_conns;
}
