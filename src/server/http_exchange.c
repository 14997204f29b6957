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
    evhttp_remove_header(&x->headers, name);
    if (evhttp_add_header(&x->headers, name, value))
        bw_log(BW_LOG_WARNING, "response header %s is left out: out of memory or a line break in it", name);
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
}

/* evhttp closes after the response to a request that asked for it, and says so in the response. */
static void close_after(bw_exchange *x)
{
    struct evkeyvalq *headers = evhttp_request_get_input_headers(x->request);
    evhttp_remove_header(headers, "Connection");
    evhttp_add_header(headers, "Connection", "close");
}

/* To evhttp, with what is true of every response. */
static void hand_over_headers(bw_exchange *x)
{
    struct evkeyvalq *out = evhttp_request_get_output_headers(x->request);
    struct evkeyval *header;
    for (header = x->headers.tqh_first; header; header = header->next.tqe_next)
        evhttp_add_header(out, header->key, header->value);
    if (x->http->ready == BW_DRAINING || x->conn->flooded)
        close_after(x);
}

/* ---- begin and end ---- */

static void leave_turn(bw_exchange *x)
{
    for (bw_exchange **at = &x->http->turn_exchanges; x->in_turn && *at; at = &(*at)->next_turn)
        if (*at == x) {
            *at = x->next_turn;
            return;
        }
}

void bw_exchange_discard(bw_exchange *x)
{
    if (x->ping)
        event_free(x->ping);
    if (x->pending)
        evbuffer_free(x->pending);
    leave_turn(x);
    if (x->conn->exchange == x) {
        x->conn->exchange = NULL;
        x->http->n_exchanges--;
    }
    if (x->conn->arriving == x)
        x->conn->arriving = NULL;
    bw_exchange_body_freed(x);
    evhttp_clear_headers(&x->headers);
    bw_bytes_fini(&x->fields);
    bw_bytes_fini(&x->body);
    bw_mem_free(x->path);
    bw_mem_free(x->query);
    bw_mem_free(x);
}

void bw_exchange_log(const bw_exchange *x, int status)
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
    bw_exchange_log(x, 499);
    if (!evhttp_request_get_connection(x->request)) /* evhttp has let go of it: it is ours to free */
        evhttp_request_free(x->request);
    bw_exchange_discard(x);
}

bw_exchange *bw_exchange_arrive(bw_conn *c)
{
    bw_strict *s = &c->strict;
    bw_exchange *x = bw_mem_zalloc(1, sizeof *x, BW_MEM_MISC);
    if (!x)
        return NULL;
    *x = (bw_exchange){ .http = c->http, .conn = c, .minor = s->minor, .fields = s->fields, .n_fields = s->n_fields };
    s->fields = (bw_bytes){ 0 };
    s->n_fields = 0;
    x->headers.tqh_last = &x->headers.tqh_first;
    x->method = s->method ? bw_http_method(s->method) : 0;
    x->arrived_ns = c->first_byte_ns ? c->first_byte_ns : bw_clock_ns();
    const char *id = bw_exchange_header(x, "X-Request-Id");
    if (id && bw_http_is_id(id))
        strcpy(x->id, id);
    else
        bw_http_make_id(c->http, x->id);
    bw_bytes_add(&x->body, "", 0); /* NUL-terminated also when empty */
    if (x->body.failed)
        bw_exchange_refuse(x, 503, "out_of_memory", 5, "the server is out of memory");
    else if (s->target && !bw_http_split_target(s->target, &x->path, &x->query, &x->n_query))
        bw_exchange_refuse(x, 400, "invalid_target", 0, "the path or the query holds a %% that is no escape");
    return x;
}

/* A refusal as an answer: most are errors; a preflight has no body. */
static void answer_refusal(bw_exchange *x)
{
    const bw_refusal r = x->refusal;
    if (r.message[0])
        bw_exchange_fail(x, r.status, NULL, r.code, NULL, r.retry_after_s, r.message);
    else
        bw_exchange_reply(x, r.status, r.status == 204 ? NULL : "text/plain; charset=utf-8", "", 0);
}

void bw_exchange_begin(bw_exchange *x, struct evhttp_request *request)
{
    x->request = request;
    x->http->n_exchanges++;
    if (x->refusal.status)
        answer_refusal(x);
    else
        x->route->handle(x->http->options.arg, x);
}

struct evbuffer *bw_exchange_refusal(bw_exchange *x)
{
    const bw_refusal *r = &x->refusal;
    struct evbuffer *out = evbuffer_new();
    size_t n = 0;
    char *body = bw_http_error_body(bw_http_error_type(r->status), r->code, NULL, r->message, &n), number[24];
    set_standing_headers(x, "application/json");
    snprintf(number, sizeof number, "%zu", n);
    set_header(x, "Content-Length", number);
    x->sent = n;
    if (r->retry_after_s) {
        snprintf(number, sizeof number, "%d", r->retry_after_s);
        set_header(x, "Retry-After", number);
    }
    set_header(x, "Connection", "close");
    if (out) {
        struct evkeyval *header;
        evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\n", r->status, bw_http_reason(r->status));
        for (header = x->headers.tqh_first; header; header = header->next.tqe_next)
            evbuffer_add_printf(out, "%s: %s\r\n", header->key, header->value);
        evbuffer_add_printf(out, "\r\n%s", body && x->method != BW_HEAD ? body : "");
    }
    bw_mem_free(body);
    return out;
}

/* ---- what it says ---- */

bw_method bw_exchange_method(const bw_exchange *x)
{
    return x->method;
}

uint64_t bw_exchange_sent(const bw_exchange *x)
{
    return x->sent;
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
    return bw_strict_field(x->fields.data, x->n_fields, name);
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
    *n = x->body.n;
    return x->body.data;
}

char *bw_exchange_take_body(bw_exchange *x, size_t *n)
{
    char *body = x->body.data;
    *n = x->body.n;
    x->body = (bw_bytes){ 0 };
    return body;
}

void bw_exchange_body_freed(bw_exchange *x)
{
    x->http->n_bodies -= x->n_counted;
    x->n_counted = 0;
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
    struct evhttp_request *request = x->request;
    struct evbuffer *buffer = evbuffer_new();
    const bool has_body = x->method != BW_HEAD && status != 204;
    char length[32];
    set_standing_headers(x, content_type);
    snprintf(length, sizeof length, "%zu", n);
    if (status != 204)
        set_header(x, "Content-Length", length);
    hand_over_headers(x);
    if (has_body && n && (!buffer || evbuffer_add(buffer, body, n))) {
        /* The length is promised: the connection ends where the body would begin. */
        bw_log(BW_LOG_WARNING, "%s: out of memory for an answer of %zu bytes", bw_exchange_path(x), n);
        close_after(x);
    }
    x->sent = has_body ? n : 0;
    bw_exchange_log(x, status);
    bw_exchange_discard(x);
    evhttp_send_reply(request, status, bw_http_reason(status), buffer);
    if (buffer)
        evbuffer_free(buffer);
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

static void want_turn(bw_exchange *x)
{
    if (x->in_turn)
        return;
    x->in_turn = true;
    x->next_turn = x->http->turn_exchanges;
    x->http->turn_exchanges = x;
    bw_http_want_turn(x->http);
}

static void arm_ping(bw_exchange *x)
{
    struct timeval wait = bw_http_timeval(x->http->options.ping_s);
    if (x->ping)
        event_add(x->ping, &wait);
}

/* Nothing was sent for a while. A reader who has not even taken that needs no sign of life. */
static void on_ping(evutil_socket_t fd, short what, void *arg)
{
    bw_exchange *x = arg;
    (void)fd, (void)what;
    if (bw_exchange_backlog(x) == 0)
        bw_exchange_send(x, ": ping\n\n", 8);
    else
        arm_ping(x);
}

void bw_exchange_stream(bw_exchange *x)
{
    if (x->left || x->streaming)
        return;
    set_standing_headers(x, "text/event-stream; charset=utf-8");
    set_header(x, "Cache-Control", "no-cache");
    set_header(x, "X-Accel-Buffering", "no");
    hand_over_headers(x);
    if (x->minor == 0) /* no chunks: the end of the connection ends the stream */
        close_after(x);
    x->streaming = true;
    x->pending = evbuffer_new();
    if (x->http->options.ping_s > 0)
        x->ping = event_new(x->http->base, -1, 0, on_ping, x);
    evhttp_send_reply_start(x->request, 200, bw_http_reason(200));
    arm_ping(x);
}

void bw_exchange_send(bw_exchange *x, const char *events, size_t n)
{
    if (x->left || !x->streaming || n == 0)
        return;
    if (!x->pending || evbuffer_add(x->pending, events, n)) { /* a stream with a hole must not look whole */
        bw_log(BW_LOG_WARNING, "%s: out of memory for events of a stream; it is cut off", bw_exchange_path(x));
        bw_conn_break(x->conn);
        return;
    }
    x->sent += n;
    arm_ping(x);
    want_turn(x);
}

static void flush(bw_exchange *x)
{
    if (x->pending && evbuffer_get_length(x->pending))
        evhttp_send_reply_chunk(x->request, x->pending);
}

void bw_exchange_turn(bw_exchange *x)
{
    flush(x);
    if (!x->check_drained)
        return;
    x->check_drained = false;
    if (x->drained && bw_exchange_backlog(x) <= x->low)
        x->drained(x->drained_arg); /* may end the exchange */
}

void bw_exchange_wrote(bw_exchange *x)
{
    if (x->drained && bw_exchange_backlog(x) <= x->low) {
        x->check_drained = true;
        want_turn(x);
    }
}

void bw_exchange_end(bw_exchange *x, bool close)
{
    if (x->left)
        return;
    struct evhttp_request *request = x->request;
    flush(x);
    if (close || x->http->ready == BW_DRAINING || x->conn->flooded)
        close_after(x);
    bw_exchange_log(x, 200);
    bw_exchange_discard(x);
    evhttp_send_reply_end(request);
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
