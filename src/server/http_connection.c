/* http_connection.c - a connection: its bytes on their way to a request, its timers, its end.
 *
 * All input is taken out of evhttp's bufferevent while it is being read, before evhttp is called, so
 * reading never stops, also while a request waits or is answered: a client that leaves is seen at once,
 * and what it sent meanwhile is held (up to a limit) for the next request. Threads: the loop's only. */
#include "server/http_parts.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/mem.h"

enum { MAX_SEND = 64 << 20 };

/* ---- turns ---- */

void bw_http_want_turn(bw_http *http)
{
    event_active(http->turn, 0, 0);
}

void bw_conn_want_turn(bw_conn *c)
{
    if (c->in_turn)
        return;
    c->in_turn = true;
    c->next_turn = c->http->turn_conns;
    c->http->turn_conns = c;
    bw_http_want_turn(c->http);
}

void bw_conn_break(bw_conn *c)
{
    c->broken = true;
    bw_conn_want_turn(c);
}

/* ---- the end ---- */

static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg);
static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg);

static void leave_turn(bw_conn *c)
{
    for (bw_conn **at = &c->http->turn_conns; c->in_turn && *at; at = &(*at)->next_turn)
        if (*at == c) {
            *at = c->next_turn;
            return;
        }
}

static void forget(bw_conn *c)
{
    bw_http *h = c->http;
    if (c->exchange)
        bw_exchange_leave(c->exchange);
    if (c->arriving) {
        bw_exchange_log(c->arriving, 499);
        bw_exchange_discard(c->arriving);
    }
    evbuffer_remove_cb(bufferevent_get_input(c->bev), on_input, c);
    evbuffer_remove_cb(bufferevent_get_output(c->bev), on_output, c);
    leave_turn(c);
    if (c->fd >= 0 && c->fd < h->n_by_fd && h->by_fd[c->fd] == c)
        h->by_fd[c->fd] = NULL;
    *(c->prev ? &c->prev->next : &h->conns) = c->next;
    if (c->next)
        c->next->prev = c->prev;
    h->n_conns--;
    if (c->timer)
        event_free(c->timer);
    evbuffer_free(c->held);
    bw_strict_fini(&c->strict);
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

/* ---- timers ---- */

static void arm(bw_conn *c, double seconds)
{
    struct timeval wait = bw_http_timeval(seconds);
    event_add(c->timer, &wait);
}

/* A reader is stuck when it has taken nothing for a while; its answer is dropped with a reset, so that
 * the system does not keep the bytes either. */
static void check_reader(bw_conn *c)
{
    const double limit = c->http->options.write_timeout_s, idle = (double)(bw_clock_ns() - c->progress_ns) * 1e-9;
    struct linger reset = { 1, 0 };
    if (evbuffer_get_length(bufferevent_get_output(c->bev)) == 0)
        return;
    if (idle < limit) {
        arm(c, limit - idle + 0.001);
        return;
    }
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    drop(c);
}

static void refuse(bw_conn *c, int status, const char *code, const char *message);

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    bw_conn *c = arg;
    (void)fd, (void)what;
    if (c->phase == BW_CONN_BUSY)
        check_reader(c);
    else if (c->phase == BW_CONN_READING && c->arriving)
        refuse(c, 408, "body_timeout", "the body stopped coming");
    else if (c->phase == BW_CONN_READING && c->first_byte_ns)
        refuse(c, 408, "header_timeout", "the head of the request did not come in time");
    else /* idle, or closing */
        drop(c);
}

static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
    bw_conn *c = arg;
    (void)output;
    if (info->n_deleted) {
        c->progress_ns = bw_clock_ns();
        if (c->exchange)
            bw_exchange_wrote(c->exchange);
    }
    if (info->n_added && info->orig_size == 0 && c->phase == BW_CONN_BUSY) {
        c->progress_ns = bw_clock_ns();
        arm(c, c->http->options.write_timeout_s);
    }
}

/* ---- refusing ---- */

/* The response goes straight to the socket: nothing else is being written (evhttp is reading). Then we
 * read on for a while: closing with unread input would reset the connection and take the response away. */
static void close_with(bw_conn *c, struct evbuffer *response)
{
    const size_t n = response ? evbuffer_get_length(response) : 0;
    const unsigned char *bytes = n ? evbuffer_pullup(response, -1) : NULL;
    c->phase = BW_CONN_CLOSING;
    evbuffer_drain(c->held, evbuffer_get_length(c->held));
    const bool sent = bytes && send(c->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
    shutdown(c->fd, SHUT_WR);
    arm(c, sent ? BW_HTTP_LINGER_S : 0);
}

/* Answers what arrives (or would have) with its refusal, now, and closes. */
static void refuse_arriving(bw_conn *c)
{
    bw_exchange *x = c->arriving;
    struct evbuffer *response = bw_exchange_refusal(x);
    c->arriving = NULL;
    bw_exchange_log(x, x->refusal.status);
    close_with(c, response);
    if (response)
        evbuffer_free(response);
    bw_exchange_discard(x);
}

static void refuse(bw_conn *c, int status, const char *code, const char *message)
{
    if (!c->arriving)
        c->arriving = bw_exchange_arrive(c);
    if (!c->arriving) {
        close_with(c, NULL);
        return;
    }
    bw_exchange_refuse(c->arriving, status, code, status == 503 ? 5 : 0, "%s", message);
    refuse_arriving(c);
}

/* ---- a request arrives ---- */

/* The head is here: may it go on? A refusal waits for a small body, so that the connection can stay. */
static void take_head(bw_conn *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    const bw_strict *s = &c->strict;
    bw_exchange *x = c->arriving = bw_exchange_arrive(c);
    if (!x) {
        refuse(c, 503, "out_of_memory", "the server is out of memory");
        return;
    }
    bw_http_admit(x);
    if (x->refusal.status && (s->length > BW_HTTP_DISCARD_MAX || (s->expect_continue && (s->length || s->chunked)))) {
        refuse_arriving(c);
        return;
    }
    if (s->expect_continue && (s->length || s->chunked) && evbuffer_get_length(c->held) == 0 &&
        send(c->fd, go_on, sizeof go_on - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        arm(c, 0);
    else
        arm(c, c->http->options.body_timeout_s);
}

static void take_body(bw_conn *c, const char *bytes, size_t n)
{
    bw_exchange *x = c->arriving;
    arm(c, c->http->options.body_timeout_s);
    if (!x->refusal.status) {
        const size_t before = x->body.n;
        bw_bytes_add(&x->body, bytes, n);
        c->http->n_bodies += x->body.n - before;
        x->n_counted += x->body.n - before;
        if (x->body.failed || c->http->n_bodies > BW_HTTP_BODIES_MAX)
            refuse(c, 503, "out_of_memory", "the server has no memory for this body now");
    } else if (c->strict.n_body > BW_HTTP_DISCARD_MAX) {
        refuse_arriving(c);
    }
}

/* The request is complete: evhttp gets the head that stands for it. */
static void present(bw_conn *c)
{
    const bw_exchange *x = c->arriving;
    struct evbuffer *input = bufferevent_get_input(c->bev);
    c->phase = BW_CONN_BUSY;
    event_del(c->timer);
    c->taking = true;
    evbuffer_unfreeze(input, 0); /* a bufferevent opens its input only while it reads */
    evbuffer_add_printf(input, "%s / HTTP/1.%d\r\nConnection: %s\r\nContent-Length: 0\r\n\r\n",
                        x->method == BW_HEAD ? "HEAD" : "POST", x->minor, c->strict.keep_alive ? "keep-alive" : "close");
    evbuffer_freeze(input, 0);
    c->taking = false;
}

/* Reads what is held, up to the end of a request. True: evhttp has something to read. */
static bool read_held(bw_conn *c)
{
    bw_strict_event event = BW_STRICT_MORE;
    do {
        size_t n = evbuffer_get_contiguous_space(c->held);
        const char *bytes = n ? (const char *)evbuffer_pullup(c->held, (ev_ssize_t)n) : "";
        size_t used = bw_strict_feed(&c->strict, bytes, n, &event);
        if (c->strict.started && !c->first_byte_ns) {
            c->first_byte_ns = bw_clock_ns();
            arm(c, c->http->options.header_timeout_s);
        }
        if (event == BW_STRICT_BODY)
            take_body(c, bytes, used);
        evbuffer_drain(c->held, used);
        if (event == BW_STRICT_HEAD)
            take_head(c);
        else if (event == BW_STRICT_REFUSED)
            refuse(c, c->strict.status, c->strict.code, c->strict.message);
        else if (event == BW_STRICT_DONE)
            present(c);
    } while (c->phase == BW_CONN_READING && (event != BW_STRICT_MORE || evbuffer_get_length(c->held)));
    return c->phase == BW_CONN_BUSY;
}

/* Called while the bufferevent reads; afterwards it calls evhttp if there is input. */
static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
    bw_conn *c = arg;
    if (c->taking || !info->n_added)
        return;
    c->taking = true;
    if (c->phase == BW_CONN_CLOSING || c->flooded || evbuffer_add_buffer(c->held, input))
        evbuffer_drain(input, evbuffer_get_length(input));
    c->taking = false;
    if (c->phase == BW_CONN_READING && c->evcon) {
        read_held(c);
    } else if (evbuffer_get_length(c->held) > BW_HTTP_HELD_MAX) {
        c->flooded = true;
        evbuffer_drain(c->held, evbuffer_get_length(c->held));
    }
}

/* ---- evhttp and we ---- */

/* The answer is written; evhttp goes on reading after this. */
static void on_answered(struct evhttp_request *request, void *arg)
{
    bw_conn *c = arg;
    (void)request;
    c->phase = BW_CONN_READING;
    c->first_byte_ns = 0;
    bw_strict_reset(&c->strict);
    arm(c, c->http->options.idle_timeout_s);
    if (c->flooded || evbuffer_get_length(c->held))
        bw_conn_want_turn(c);
}

/* evhttp has stopped reading, and would exit if it were called for input before its answer: we read on,
 * without it. It sets its callbacks again when it wants the next request. */
static void read_on(struct bufferevent *bev)
{
    bufferevent_data_cb wrote = NULL;
    bufferevent_event_cb ended = NULL;
    void *evcon = NULL;
    bufferevent_getcb(bev, NULL, &wrote, &ended, &evcon);
    bufferevent_setcb(bev, NULL, wrote, ended, evcon);
    bufferevent_enable(bev, EV_READ);
}

void bw_conn_present(struct evhttp_request *request, void *arg)
{
    bw_http *h = arg;
    struct bufferevent *bev = evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
    const int fd = bufferevent_getfd(bev);
    bw_conn *c = fd >= 0 && fd < h->n_by_fd ? h->by_fd[fd] : NULL;
    if (!c || !c->arriving) { /* a connection we had no memory to watch */
        evhttp_add_header(evhttp_request_get_output_headers(request), "Connection", "close");
        evhttp_send_reply(request, 503, bw_http_reason(503), NULL);
        return;
    }
    bw_exchange *x = c->arriving;
    c->arriving = NULL;
    c->exchange = x;
    evhttp_request_set_on_complete_cb(request, on_answered, c);
    read_on(bev);
    bw_exchange_begin(x, request);
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
    struct sockaddr_storage address = { 0 };
    socklen_t n = sizeof address;
    char host[48] = "?", port[8] = "0";
    if (getpeername(c->fd, (struct sockaddr *)&address, &n) == 0)
        getnameinfo((struct sockaddr *)&address, n, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(c->peer, sizeof c->peer, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* evhttp has set the connection up around our bufferevent; its own object is the argument of the
 * callbacks it set there, and that is the only way to it before the first request. */
static void attach(bw_conn *c)
{
    const bw_http *h = c->http;
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
    arm(c, h->options.idle_timeout_s);
    if (!note_fd(c) || h->n_conns > h->options.max_connections + BW_HTTP_SPARE_CONNECTIONS)
        drop(c);
    else if (h->n_conns > h->options.max_connections)
        refuse(c, 503, "too_many_connections", "the server has as many connections as it takes");
    else if (evbuffer_get_length(c->held))
        bw_conn_want_turn(c);
}

/* After evhttp is done with what it was doing: a new connection, or bytes held from the last answer. */
void bw_conn_turn(bw_conn *c)
{
    if (!c->evcon)
        attach(c);
    else if (c->broken || (c->flooded && c->phase == BW_CONN_READING))
        drop(c);
    else if (c->phase == BW_CONN_READING && read_held(c))
        bufferevent_trigger(c->bev, EV_READ, 0);
}

struct bufferevent *bw_conn_make(struct event_base *base, void *arg)
{
    bw_http *h = arg;
    bw_conn *c = bw_mem_zalloc(1, sizeof *c, BW_MEM_MISC);
    struct bufferevent *bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    struct evbuffer *held = evbuffer_new();
    struct event *timer = c ? event_new(base, -1, 0, on_timer, c) : NULL;
    if (!c || !bev || !held || !timer || !evbuffer_add_cb(bufferevent_get_input(bev), on_input, c) ||
        !evbuffer_add_cb(bufferevent_get_output(bev), on_output, c))
        goto fail;
    *c = (bw_conn){ .http = h, .bev = bev, .held = held, .timer = timer, .fd = -1, .next = h->conns };
    bw_strict_limits limits = bw_strict_default_limits();
    limits.body = h->options.max_body;
    bw_strict_init(&c->strict, limits);
    bufferevent_incref(bev); /* ours, until forget: evhttp may give it up before it is attached */
    bufferevent_set_max_single_write(bev, MAX_SEND);
    if (h->conns)
        h->conns->prev = c;
    h->conns = c;
    h->n_conns++;
    bw_conn_want_turn(c);
    return bev;
fail: /* evhttp makes one of its own; a request on it is refused */
    if (timer)
        event_free(timer);
    if (held)
        evbuffer_free(held);
    if (bev)
        bufferevent_free(bev);
    bw_mem_free(c);
    return NULL;
}
