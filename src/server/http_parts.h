/* http_parts.h - what the files of the HTTP server share; nobody else includes it.
 *
 *     http.c           listener, connections, their limits and timers
 *     http_exchange.c  requests that have a handler: answers, event streams, clients that leave
 *     http_route.c     which route, who may, from where: what is refused before a handler
 *     http_text.c      targets and queries, request ids, error objects, reasons
 *
 * Ownership: a connection belongs to evhttp, which tells us when it goes (evhttp's close callback);
 * our bw_conn lives exactly as long. An exchange lives from the handler's call to its answer, or to
 * the return of its `gone`, or to the end of its connection, whichever comes first. */
#ifndef BW_SERVER_HTTP_PARTS_H
#define BW_SERVER_HTTP_PARTS_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>

#include "server/http.h"

typedef struct bw_conn bw_conn;

struct bw_http {
    struct event_base *base;
    bw_http_options options; /* keys and origins are copies */
    const bw_route *routes;
    int n_routes;
    struct evhttp *evhttp;
    struct evhttp_bound_socket *bound; /* NULL: no longer listening */
    int port;
    bw_ready ready;
    double progress;
    char message[256]; /* why it failed */

    bw_conn *conns;    /* all, newest first */
    bw_conn **by_fd;   /* [n_by_fd] */
    int n_by_fd, n_conns;
    int n_exchanges;
    struct event *turn;       /* runs after the callbacks of this turn of the loop */
    bw_exchange *to_flush;    /* exchanges the turn has to look at */
    bw_conn *to_attach;       /* connections evhttp has just accepted */
    uint64_t next_id[2];      /* of request ids */
    bool closing;
};

struct bw_conn {
    bw_http *http;
    bw_conn *prev, *next, *next_attach;
    struct bufferevent *bev;
    struct evhttp_connection *evcon; /* NULL before it is attached */
    int fd;
    char peer[64];
    uint64_t first_byte_ns; /* of the request being read */
    bw_exchange *exchange;  /* being answered */
};

struct bw_exchange {
    bw_http *http;
    bw_conn *conn;
    struct evhttp_request *request;
    const bw_route *route; /* NULL: none matched */
    bw_method method;
    char *path;            /* decoded */
    char *query;           /* name NUL value NUL ..., decoded; n_query pairs */
    int n_query;
    const char *rest;
    char id[129];
    uint64_t arrived_ns;
    const char *body;
    size_t n_body;
    void (*gone)(void *arg);
    void *gone_arg;
    void (*drained)(void *arg);
    void *drained_arg;
    size_t low;
    bool streaming, left; /* left: the client has gone, nothing is sent any more */
    bool in_turn, check_drained;
    bw_exchange *next_turn;
    struct evbuffer *pending; /* events of this turn */
    struct evbuffer_cb_entry *watch; /* on the connection's output */
    struct event *ping;
};

/* http.c */
bw_conn *bw_conn_of(bw_http *http, struct evhttp_request *request);
void bw_http_want_turn(bw_http *http);

/* http_exchange.c */
void bw_exchange_begin(bw_conn *conn, struct evhttp_request *request);
void bw_exchange_leave(bw_exchange *x);  /* the client has gone */
void bw_exchange_flush(bw_exchange *x);  /* what the turn owes it */

/* http_route.c: false: it was answered. */
bool bw_http_admit(bw_exchange *x);

/* http_text.c */
const char *bw_http_reason(int status);
const char *bw_http_error_type(int status);
/* OpenAI's error object; NULL: out of memory. The caller frees. */
char *bw_http_error_body(const char *type, const char *code, const char *param, const char *message, size_t *n);
/* Splits "/a%20b?x=1" into a decoded path and decoded pairs; false: out of memory or a bad escape. */
bool bw_http_split_target(const char *target, char **path, char **query, int *n_query);
void bw_http_make_id(bw_http *http, char id[129]);
bool bw_http_is_id(const char *text); /* 1 - 128 visible ASCII characters */

#endif
