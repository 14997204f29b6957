/* http.c - the listener and the connections: accepting, limits, timers, closing.
 *
 * evhttp owns every connection. We make its bufferevent, so that we are there from the first byte, and
 * evhttp's close callback tells us the end. Never looks at what a request asks for.
 * Threads: the loop's thread only. */
#include "server/http_parts.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/status.h"

/* Descriptors beside connections: the model's files, pipes, the loop, standing ones. */
enum { OTHER_FILES = 128, MAX_SEND = 64 << 20 };

bw_http_options bw_http_defaults(void)
{
    return (bw_http_options){
        .host = "127.0.0.1", .port = 8080, .max_connections = 4096, .max_body = (size_t)64 << 20,
        .header_timeout_s = 10, .body_timeout_s = 30, .idle_timeout_s = 75, .write_timeout_s = 60, .ping_s = 30,
    };
}

/* ---- connections ---- */

bw_conn *bw_conn_of(bw_http *http, struct evhttp_request *request)
{
    struct bufferevent *bev = evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
    int fd = bufferevent_getfd(bev);
    return fd >= 0 && fd < http->n_by_fd ? http->by_fd[fd] : NULL;
}

void bw_http_want_turn(bw_http *http)
{
    event_active(http->turn, 0, 0);
}

static void forget(bw_conn *c)
{
    bw_http *h = c->http;
    if (c->exchange)
        bw_exchange_leave(c->exchange);
    if (c->fd >= 0 && c->fd < h->n_by_fd && h->by_fd[c->fd] == c)
        h->by_fd[c->fd] = NULL;
    *(c->prev ? &c->prev->next : &h->conns) = c->next;
    if (c->next)
        c->next->prev = c->prev;
    h->n_conns--;
    bufferevent_decref(c->bev);
    bw_mem_free(c);
}

static void on_close(struct evhttp_connection *evcon, void *arg)
{
    (void)evcon;
    forget(arg);
}

/* evhttp is told that the client has left: it frees the connection, and on_close runs. */
static void drop(bw_conn *c)
{
    bufferevent_trigger_event(c->bev, BEV_EVENT_READING | BEV_EVENT_EOF, 0);
}

static bool note_fd(bw_conn *c)
{
    bw_http *h = c->http;
    if (c->fd < 0)
        return false;
    if (c->fd >= h->n_by_fd) {
        int n = (c->fd + 64) * 2;
        bw_conn **grown = bw_mem_realloc(h->by_fd, (size_t)n * sizeof *grown, BW_MEM_MISC);
        if (!grown)
            return false;
        memset(grown + h->n_by_fd, 0, (size_t)(n - h->n_by_fd) * sizeof *grown);
        h->by_fd = grown;
        h->n_by_fd = n;
    }
    h->by_fd[c->fd] = c;
    return true;
}

static void name_peer(bw_conn *c)
{
    struct sockaddr_storage address;
    socklen_t n = sizeof address;
    char host[48] = "?", port[8] = "0";
    if (getpeername(c->fd, (struct sockaddr *)&address, &n) == 0)
        getnameinfo((struct sockaddr *)&address, n, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(c->peer, sizeof c->peer, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* evhttp has set the connection up around our bufferevent; its own object is the argument of the
 * callbacks it set there, and that is the only way to it before the first request. */
static void attach(bw_conn *c)
{
    int on = 1;
    void *evcon = NULL;
    bufferevent_getcb(c->bev, NULL, NULL, NULL, &evcon);
    if (!evcon) { /* evhttp had no memory for it */
        forget(c);
        return;
    }
    c->evcon = evcon;
    c->fd = bufferevent_getfd(c->bev);
    evhttp_connection_set_closecb(c->evcon, on_close, c);
    name_peer(c);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (!note_fd(c))
        drop(c);
}

/* Asked by evhttp for each connection it accepts, just before it gives the bufferevent its descriptor. */
static struct bufferevent *make_bufferevent(struct event_base *base, void *arg)
{
    bw_http *h = arg;
    bw_conn *c = bw_mem_zalloc(1, sizeof *c, BW_MEM_MISC);
    struct bufferevent *bev = c ? bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE) : NULL;
    struct timeval stuck = { (time_t)h->options.write_timeout_s,
                             (long)((h->options.write_timeout_s - (double)(time_t)h->options.write_timeout_s) * 1e6) };
    if (!bev) {
        bw_mem_free(c);
        return NULL; /* evhttp makes one of its own; a request on it is refused */
    }
    bufferevent_incref(bev); /* ours, until forget: evhttp may give it up before it is attached */
    bufferevent_set_max_single_write(bev, MAX_SEND);
    bufferevent_set_timeouts(bev, NULL, &stuck);
    /* An empty input never calls evhttp: it stays silent while we read on, to see the client leave. */
    bufferevent_setwatermark(bev, EV_READ, 1, 0);
    *c = (bw_conn){ .http = h, .bev = bev, .fd = -1, .next = h->conns, .next_attach = h->to_attach };
    if (h->conns)
        h->conns->prev = c;
    h->conns = h->to_attach = c;
    h->n_conns++;
    bw_http_want_turn(h);
    return bev;
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    bw_http *h = arg;
    (void)fd, (void)what;
    while (h->to_attach) {
        bw_conn *c = h->to_attach;
        h->to_attach = c->next_attach;
        attach(c);
    }
    while (h->to_flush) {
        bw_exchange *x = h->to_flush;
        h->to_flush = x->next_turn;
        x->in_turn = false;
        bw_exchange_flush(x);
    }
}

static void on_request(struct evhttp_request *request, void *arg)
{
    bw_http *h = arg;
    bw_conn *c = bw_conn_of(h, request);
    if (!c) {
        evhttp_send_error(request, 503, NULL);
        return;
    }
    bw_exchange_begin(c, request);
}

/* ---- the server ---- */

/* More open files than connections, or fewer connections. */
static void fit_file_limit(bw_http_options *o)
{
    const rlim_t want = (rlim_t)o->max_connections + OTHER_FILES;
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
    const int fits = limit.rlim_cur > 2 * OTHER_FILES ? (int)(limit.rlim_cur - OTHER_FILES) : OTHER_FILES;
    bw_log(BW_LOG_WARNING, "open files: the system allows %llu (hard limit), %d connections want %llu: at most %d are taken; "
           "raise it with ulimit -n or LimitNOFILE=", (unsigned long long)limit.rlim_max, o->max_connections,
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
        return bw_fail(err, BW_E_IO, "cannot listen on %s port %d: %s", o->host, o->port, gai_strerror(failed));
    int why = 0;
    for (struct addrinfo *a = found; a && !*out; a = a->ai_next) {
        *out = evconnlistener_new_bind(h->base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
                                       1024, a->ai_addr, (int)a->ai_addrlen);
        why = errno;
    }
    freeaddrinfo(found);
    if (!*out)
        return bw_fail(err, BW_E_IO, "cannot listen on %s port %d: %s%s", o->host, o->port, strerror(why),
                       why == EADDRINUSE ? ": another program has it, choose another --port" : "");
    return BW_OK;
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
    return BW_OK;
}

static void on_libevent_log(int severity, const char *text)
{
    if (severity != EVENT_LOG_DEBUG)
        bw_log(severity == EVENT_LOG_MSG ? BW_LOG_INFO : BW_LOG_WARNING, "libevent: %s", text);
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
    h->next_id[0] = bw_clock_ns() ^ (uint64_t)getpid() << 40;
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
    fit_file_limit(&h->options);
    h->turn = event_new(base, -1, 0, on_turn, h);
    h->evhttp = evhttp_new(base);
    if (!h->turn || !h->evhttp) {
        st = bw_fail_memory(err, "HTTP server", sizeof *h);
        goto fail;
    }
    evhttp_set_bevcb(h->evhttp, make_bufferevent, h);
    evhttp_set_gencb(h->evhttp, on_request, h);
    evhttp_set_allowed_methods(h->evhttp, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_DELETE |
                                              EVHTTP_REQ_OPTIONS);
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
    h->closing = true;
    while (h->to_attach) {
        bw_conn *c = h->to_attach;
        h->to_attach = c->next_attach;
        attach(c);
    }
    if (h->evhttp)
        evhttp_free(h->evhttp);
    if (h->turn)
        event_free(h->turn);
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
