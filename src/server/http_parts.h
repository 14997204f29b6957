/* http_parts.h - what the files of the HTTP server share; nobody else includes it.
 *
 *     http.c             the listener, options, readiness
 *     http_connection.c  bytes in: from the socket through http_strict.h to a request; limits and timers
 *     http_exchange.c    requests and their answers, event streams, clients that leave
 *     http_route.c       which route, who may, from where: what is refused before a handler
 *     http_text.c        targets and queries, request ids, error objects, reasons
 *
 * How a request travels. evhttp accepts and owns the connection, writes heads, chunks and lengths, and
 * decides whether the connection stays. What it reads is lax, so it never reads a client's bytes: all
 * input is taken out of its bufferevent as it comes, read by the strict machine, and once a request is
 * complete evhttp is given its head in the one form that cannot be misread ("POST / HTTP/1.1", close or
 * not, no body). Its request then meets ours (bw_exchange), which holds target, fields and body.
 *
 * Ownership: evhttp's close callback ends a bw_conn. An exchange belongs to its connection until the
 * request is complete; then it lives to its answer, to the return of its `gone`, or to the end of the
 * connection, whichever comes first. */
#ifndef BW_SERVER_HTTP_PARTS_H
#define BW_SERVER_HTTP_PARTS_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>

#include "server/http.h"
#include "server/http_strict.h"

enum {
    BW_HTTP_HELD_MAX = 65536,       /* pipelined bytes kept while a request is answered */
    BW_HTTP_DISCARD_MAX = 1 << 20,  /* body read and dropped to keep a refused request's connection */
    BW_HTTP_LINGER_S = 2,           /* reading on after a refusal, so that the client gets to read it */
    BW_HTTP_SPARE_CONNECTIONS = 64, /* that are being told that there are too many */
    BW_HTTP_BODIES_MAX = 1 << 30    /* bytes of all bodies that are here */
};

typedef struct bw_conn bw_conn;

struct bw_http {
    struct event_base *base;
    bw_http_options options; /* keys and origins are copies */
    const bw_route *routes;
    int n_routes;
    struct evhttp *evhttp;
    struct evhttp_bound_socket *bound; /* NULL: no longer listening */
    struct event *listen_again;        /* each second, in case the system ran out of descriptors */
    int port;
    bw_ready ready;
    double progress;
    char message[256]; /* why it failed */

    bw_conn *conns;  /* all, newest first */
    bw_conn **by_fd; /* [n_by_fd] */
    int n_by_fd, n_conns;
    int n_exchanges;
    size_t n_bodies; /* bytes */
    struct event *turn;    /* runs after the callbacks of this turn of the loop */
    bw_conn *turn_conns;   /* connections and exchanges the turn has to look at */
    bw_exchange *turn_exchanges;
    uint64_t id_stem, next_id; /* of request ids */
};

typedef enum bw_phase {
    BW_CONN_READING, /* a request, or waiting for one */
    BW_CONN_BUSY,    /* evhttp has the request; until its answer is written */
    BW_CONN_CLOSING  /* refused; what comes is dropped until the client closes */
} bw_phase;

struct bw_conn {
    bw_http *http;
    bw_conn *prev, *next, *next_turn;
    bool in_turn;
    struct bufferevent *bev;
    struct evhttp_connection *evcon; /* NULL: not yet attached */
    int fd;
    char peer[64];
    bw_phase phase;
    struct evbuffer *held; /* read and not yet looked at */
    bool taking, flooded;  /* flooded: more pipelined bytes came than are kept */
    bool broken;           /* an answer could not be kept whole: to be dropped */
    bw_strict strict;
    struct event *timer;
    uint64_t first_byte_ns; /* of the request being read; 0: none yet */
    uint64_t progress_ns;   /* the client last took bytes */
    bw_exchange *arriving;  /* its head is here */
    bw_exchange *exchange;  /* evhttp has its request */
};

/* Why a request does not reach its handler. status 0: it does. */
typedef struct bw_refusal {
    int status;
    const char *code;
    int retry_after_s;
    char message[400]; /* "": no body */
} bw_refusal;

struct bw_exchange {
    bw_http *http;
    bw_conn *conn;
    struct evhttp_request *request; /* NULL while it arrives */
    const bw_route *route;          /* NULL: none matched */
    bw_method method;               /* 0: one that no route knows */
    int minor;                      /* HTTP/1.minor */
    char *path;                     /* decoded */
    char *query;                    /* name NUL value NUL ..., decoded; n_query pairs */
    int n_query;
    const char *rest;
    bw_bytes fields; /* as bw_strict.fields */
    int n_fields;
    char id[129];
    uint64_t arrived_ns;
    bw_bytes body;
    size_t n_counted; /* of http->n_bodies */
    bw_refusal refusal;
    struct evkeyvalq headers; /* of the answer */

    void (*gone)(void *arg);
    void *gone_arg;
    void (*drained)(void *arg);
    void *drained_arg;
    size_t low;
    bool streaming, left; /* left: the client has gone, nothing is sent any more */
    bool in_turn, check_drained;
    bw_exchange *next_turn;
    struct evbuffer *pending; /* events of this turn */
    uint64_t sent;            /* bytes of body and events */
    struct event *ping;
};

/* http_connection.c */
struct bufferevent *bw_conn_make(struct event_base *base, void *http); /* evhttp's bevcb */
void bw_conn_present(struct evhttp_request *request, void *http);      /* evhttp's gencb */
void bw_conn_turn(bw_conn *c);
void bw_conn_want_turn(bw_conn *c);
void bw_conn_break(bw_conn *c); /* drops it, once nobody is in the middle of it */
void bw_http_want_turn(bw_http *http);

/* http_exchange.c */
/* From the head the strict machine has read, or of nothing where it has read none; NULL: out of memory. */
bw_exchange *bw_exchange_arrive(bw_conn *c);
void bw_exchange_begin(bw_exchange *x, struct evhttp_request *request); /* complete: hands it to its handler */
void bw_exchange_leave(bw_exchange *x);  /* the client has gone */
void bw_exchange_turn(bw_exchange *x);   /* what the turn owes it */
void bw_exchange_wrote(bw_exchange *x);  /* bytes have left the connection's output */
/* The bytes of x->refusal as a whole response that closes; the caller frees. NULL: out of memory. */
struct evbuffer *bw_exchange_refusal(bw_exchange *x);
void bw_exchange_discard(bw_exchange *x);
void bw_exchange_log(const bw_exchange *x, int status);

/* http_route.c: fills x->route and, where it must not reach a handler, x->refusal. */
void bw_http_admit(bw_exchange *x);
void bw_exchange_refuse(bw_exchange *x, int status, const char *code, int retry_after_s, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* http_text.c */
const char *bw_http_reason(int status);
const char *bw_http_error_type(int status);
/* OpenAI's error object; NULL: out of memory. The caller frees. */
char *bw_http_error_body(const char *type, const char *code, const char *param, const char *message, size_t *n);
/* Splits "/a%20b?x=1" into a decoded path and decoded pairs; false: out of memory or a bad escape. */
bool bw_http_split_target(const char *target, char **path, char **query, int *n_query);
void bw_http_make_id(bw_http *http, char id[129]);
bool bw_http_is_id(const char *text); /* 1 - 128 visible ASCII characters */
bw_method bw_http_method(const char *name); /* 0: none of ours */
struct timeval bw_http_timeval(double seconds);

#endif
