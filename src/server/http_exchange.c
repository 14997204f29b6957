/* http_exchange.c - one request and its answer: replies, event streams, the client that leaves.
 *
 * Ends in exactly one of three ways: answered (finish), the client left (bw_exchange_leave), the server
 * is destroyed (the same). Bytes are handed to evhttp, which frames them; what an event stream is given
 * in one turn of the loop is collected and becomes one chunk, and one send.
 * Threads: the loop's thread only. */
#include "server/http_parts.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

static void set_header(bw_exchange *x, const char *name, const char *value)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(x->request);
    evhttp_remove_header(headers, name);
    if (evhttp_add_header(headers, name, value))
        bw_log(BW_LOG_WARNING, "response header %s is left out: out of memory or a line break in it", name);
}

/* evhttp closes after a response to a request that asked for it, and says so in the response. */
static void close_after(bw_exchange *x)
{
    struct evkeyvalq *headers = evhttp_request_get_input_headers(x->request);
    evhttp_remove_header(headers, "Connection");
    evhttp_add_header(headers, "Connection", "close");
}

static void set_standing_headers(bw_exchange *x, const char *content_type)
{
    char date[64];
    if (content_type)
        set_header(x, "Content-Type", content_type);
    if (evutil_date_rfc1123(date, sizeof date, NULL) > 0)
        set_header(x, "Date", date);
    set_header(x, "X-Request-Id", x->id);
    set_header(x, "request-id", x->id);
    if (x->http->ready == BW_DRAINING)
        close_after(x);
}

/* ---- begin and end ---- */

static void discard(bw_exchange *x)
{
    if (x->watch)
        evbuffer_remove_cb_entry(bufferevent_get_output(x->conn->bev), x->watch);
    if (x->ping)
        event_free(x->ping);
    if (x->pending)
        evbuffer_free(x->pending);
    for (bw_exchange **at = &x->http->to_flush; x->in_turn && *at; at = &(*at)->next_turn)
        if (*at == x) {
            *at = x->next_turn;
            break;
        }
    x->conn->exchange = NULL;
    x->http->n_exchanges--;
    bw_mem_free(x->path);
    bw_mem_free(x->query);
    bw_mem_free(x);
}

static void log_done(const bw_exchange *x, int status)
{
    const bw_http_options *o = &x->http->options;
    if (o->log)
        o->log(o->arg, x, status, (double)(bw_clock_ns() - x->arrived_ns) * 1e-9);
}

void bw_exchange_leave(bw_exchange *x)
{
    x->left = true;
    if (x->gone)
        x->gone(x->gone_arg);
    log_done(x, 499);
    if (!evhttp_request_get_connection(x->request)) /* evhttp has let go of it: it is ours to free */
        evhttp_request_free(x->request);
    discard(x);
}

static bw_method method_of(struct evhttp_request *request)
{
    switch (evhttp_request_get_command(request)) {
    case EVHTTP_REQ_POST: return BW_POST;
    case EVHTTP_REQ_DELETE: return BW_DELETE;
    case EVHTTP_REQ_HEAD: return BW_HEAD;
    case EVHTTP_REQ_OPTIONS: return BW_OPTIONS;
    default: return BW_GET;
    }
}

static bool lend_body(bw_exchange *x)
{
    struct evbuffer *body = evhttp_request_get_input_buffer(x->request);
    x->n_body = evbuffer_get_length(body);
    if (evbuffer_add(body, "", 1))
        return false;
    x->body = (const char *)evbuffer_pullup(body, -1);
    return x->body != NULL;
}

void bw_exchange_begin(bw_conn *c, struct evhttp_request *request)
{
    bw_exchange *x = bw_mem_zalloc(1, sizeof *x, BW_MEM_MISC);
    if (!x) {
        evhttp_send_error(request, 503, NULL);
        return;
    }
    *x = (bw_exchange){ .http = c->http, .conn = c, .request = request, .method = method_of(request) };
    x->arrived_ns = c->first_byte_ns ? c->first_byte_ns : bw_clock_ns();
    c->exchange = x;
    c->http->n_exchanges++;
    bufferevent_enable(c->bev, EV_READ); /* evhttp stopped it: we want to see the client leave */
    const char *id = bw_exchange_header(x, "X-Request-Id");
    if (id && bw_http_is_id(id))
        strcpy(x->id, id);
    else
        bw_http_make_id(c->http, x->id);
    if (!lend_body(x))
        bw_exchange_fail(x, 503, NULL, "out_of_memory", NULL, 5, "out of memory");
    else if (!bw_http_split_target(evhttp_request_get_uri(request), &x->path, &x->query, &x->n_query))
        bw_exchange_fail(x, 400, NULL, "invalid_target", NULL, 0, "the path or the query holds a bad % escape");
    else if (bw_http_admit(x))
        x->route->handle(x->http->options.arg, x);
}

/* ---- what it says ---- */

bw_method bw_exchange_method(const bw_exchange *x)
{
    return x->method;
}

const char *bw_exchange_path(const bw_exchange *x)
{
    return x->path ? x->path : "";
}

const char *bw_exchange_rest(const bw_exchange *x)
{
    return x->rest ? x->rest : "";
}

const char *bw_exchange_query(const bw_exchange *x, const char *name)
{
    const char *at = x->query;
    for (int i = 0; i < x->n_query; i++) {
        const char *value = at + strlen(at) + 1;
        if (strcmp(at, name) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

const char *bw_exchange_header(const bw_exchange *x, const char *name)
{
    return evhttp_find_header(evhttp_request_get_input_headers(x->request), name);
}

const char *bw_exchange_id(const bw_exchange *x)
{
    return x->id;
}

const bw_route *bw_exchange_route(const bw_exchange *x)
{
    return x->route;
}

const char *bw_exchange_peer(const bw_exchange *x)
{
    return x->conn->peer;
}

uint64_t bw_exchange_arrived_ns(const bw_exchange *x)
{
    return x->arrived_ns;
}

const char *bw_exchange_body(const bw_exchange *x, size_t *n)
{
    *n = x->n_body;
    return x->body;
}

void bw_exchange_on_gone(bw_exchange *x, void (*gone)(void *arg), void *arg)
{
    x->gone = gone;
    x->gone_arg = arg;
}

/* ---- a whole answer ---- */

void bw_exchange_add_header(bw_exchange *x, const char *name, const char *value)
{
    if (!x->left && !x->streaming)
        set_header(x, name, value);
}

void bw_exchange_reply(bw_exchange *x, int status, const char *content_type, const void *body, size_t n)
{
    if (x->left)
        return;
    char length[32];
    struct evbuffer *buffer = evbuffer_new();
    const bool has_body = x->method != BW_HEAD && status != 204;
    set_standing_headers(x, content_type);
    snprintf(length, sizeof length, "%zu", n);
    if (status != 204)
        set_header(x, "Content-Length", length);
    if (!buffer || (has_body && evbuffer_add(buffer, body, n))) {
        /* The length is promised: the connection ends where the body would begin. */
        bw_log(BW_LOG_WARNING, "%s: out of memory for an answer of %zu bytes", x->path, n);
        close_after(x);
    }
    log_done(x, status);
    evhttp_send_reply(x->request, status, bw_http_reason(status), buffer);
    if (buffer)
        evbuffer_free(buffer);
    discard(x);
}

void bw_exchange_fail(bw_exchange *x, int status, const char *type, const char *code, const char *param,
                      int retry_after_s, const char *message)
{
    if (x->left)
        return;
    size_t n = 0;
    char *body = bw_http_error_body(type ? type : bw_http_error_type(status), code, param, message, &n);
    if (retry_after_s > 0) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%d", retry_after_s);
        set_header(x, "Retry-After", seconds);
    }
    bw_exchange_reply(x, status, "application/json", body, n);
    bw_mem_free(body);
}

/* ---- an event stream ---- */

static void in_turn(bw_exchange *x)
{
    if (x->in_turn)
        return;
    x->in_turn = true;
    x->next_turn = x->http->to_flush;
    x->http->to_flush = x;
    bw_http_want_turn(x->http);
}

static void arm_ping(bw_exchange *x)
{
    const double s = x->http->options.ping_s;
    struct timeval wait = { (time_t)s, (long)((s - (double)(time_t)s) * 1e6) };
    if (x->ping)
        event_add(x->ping, &wait);
}

static void on_ping(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    bw_exchange_send(arg, ": ping\n\n", 8);
}

/* The connection's output: something left, perhaps enough. */
static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
    bw_exchange *x = arg;
    (void)output;
    if (info->n_deleted && x->drained && bw_exchange_backlog(x) <= x->low) {
        x->check_drained = true;
        in_turn(x);
    }
}

void bw_exchange_stream(bw_exchange *x)
{
    if (x->left || x->streaming)
        return;
    set_standing_headers(x, "text/event-stream; charset=utf-8");
    set_header(x, "Cache-Control", "no-cache");
    set_header(x, "X-Accel-Buffering", "no");
    x->streaming = true;
    x->pending = evbuffer_new();
    evhttp_send_reply_start(x->request, 200, "OK");
    x->watch = evbuffer_add_cb(bufferevent_get_output(x->conn->bev), on_output, x);
    if (x->http->options.ping_s > 0)
        x->ping = event_new(x->http->base, -1, 0, on_ping, x);
    arm_ping(x);
}

void bw_exchange_send(bw_exchange *x, const char *events, size_t n)
{
    if (x->left || !x->pending || n == 0)
        return;
    if (evbuffer_add(x->pending, events, n))
        bw_log(BW_LOG_WARNING, "%s: out of memory for events of a stream", x->path);
    arm_ping(x);
    in_turn(x);
}

void bw_exchange_flush(bw_exchange *x)
{
    if (x->pending && evbuffer_get_length(x->pending))
        evhttp_send_reply_chunk(x->request, x->pending);
    if (x->check_drained) {
        x->check_drained = false;
        if (x->drained && bw_exchange_backlog(x) <= x->low)
            x->drained(x->drained_arg); /* may end the exchange */
    }
}

void bw_exchange_end(bw_exchange *x, bool close)
{
    if (x->left)
        return;
    if (x->pending && evbuffer_get_length(x->pending))
        evhttp_send_reply_chunk(x->request, x->pending);
    if (close)
        close_after(x);
    log_done(x, 200);
    evhttp_send_reply_end(x->request);
    discard(x);
}

size_t bw_exchange_backlog(const bw_exchange *x)
{
    return (x->pending ? evbuffer_get_length(x->pending) : 0) + evbuffer_get_length(bufferevent_get_output(x->conn->bev));
}

void bw_exchange_on_drained(bw_exchange *x, size_t low, void (*drained)(void *arg), void *arg)
{
    x->low = low;
    x->drained = drained;
    x->drained_arg = arg;
}
