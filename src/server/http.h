/* http.h - HTTP/1.1 for the server: connections, strictness, limits, event streams (libevent's evhttp).
 *
 * An exchange is one request and its response. Its handler runs on the loop's thread once the whole
 * body is there; it answers at once or later (from a done-callback of work.h, from engine posts), but
 * always on the loop's thread. What must be refused is refused here before a handler sees it: framing
 * that could be read in two ways, limits, timeouts, unknown routes and methods, missing keys, a server
 * that is loading or draining. Section numbers: the server contract, docs/server.md.
 * Threads: the loop's thread only. */
#ifndef BW_SERVER_HTTP_H
#define BW_SERVER_HTTP_H

#include "bellwether.h"

typedef struct bw_http bw_http;
typedef struct bw_exchange bw_exchange;
struct event_base;

typedef enum bw_method { BW_GET = 1, BW_POST = 2, BW_DELETE = 4, BW_HEAD = 8, BW_OPTIONS = 16 } bw_method;

enum {
    BW_ROUTE_KEY = 1,   /* wants an API key where the server has any */
    BW_ROUTE_JSON = 2,  /* a body of another type is 415 */
    BW_ROUTE_READY = 4, /* 503 while the model loads, and while draining */
    BW_ROUTE_PREFIX = 8 /* path is a prefix ending in '/': /v1/models/{id} */
};

typedef struct bw_route {
    unsigned methods; /* BW_GET implies BW_HEAD */
    const char *path; /* "/v1/chat/completions" */
    unsigned flags;
    const char *name; /* label of metrics: "chat_completions" */
    void (*handle)(void *arg, bw_exchange *exchange);
} bw_route;

typedef enum bw_ready { BW_LOADING, BW_READY, BW_DRAINING, BW_FAILED } bw_ready;

typedef struct bw_http_options {
    const char *host;    /* "127.0.0.1"; more than loopback needs keys or `insecure` (checked by the caller) */
    int port;            /* 0: any free one */
    const char *const *keys; /* [n_keys] */
    int n_keys;
    const char *const *origins; /* [n_origins] allowed by CORS */
    int n_origins;
    int max_connections; /* 4096 */
    size_t max_body;     /* 64 MiB */
    double header_timeout_s, body_timeout_s, idle_timeout_s; /* 10, 30, 75 */
    double write_timeout_s; /* 60: a reader without progress */
    double ping_s;       /* 30: comment on a silent event stream; 0: never */
    /* One line per request when done; NULL: none. status 499: the client left. Also for what was refused
     * before a handler: the exchange then may have no route, path "" or body, and is gone afterwards. */
    void (*log)(void *arg, const bw_exchange *exchange, int status, double seconds);
    void *arg; /* of log and of every handler */
} bw_http_options;

bw_http_options bw_http_defaults(void);

/* Listens at once. Routes [n_routes] are borrowed. The file limit is raised towards max_connections;
 * where it cannot be, max_connections is lowered and the log says so. SIGPIPE is ignored from now on,
 * and libevent's own messages go to bw_log.
 * BW_E_IO: the address cannot be had; the message names it. */
bw_status bw_http_create(bw_http **out, struct event_base *base, const bw_route *routes, int n_routes,
                         const bw_http_options *options, bw_error *err);
/* Closes every connection; takes NULL. Not from a handler or a callback of an exchange. */
void bw_http_destroy(bw_http *http);
int bw_http_port(const bw_http *http);
/* What routes with BW_ROUTE_READY answer. BW_DRAINING: no new connections, `Connection: close` from
 * now on. progress 0 .. 1 while loading; message: why it failed. */
void bw_http_set_ready(bw_http *http, bw_ready ready, double progress, const char *message);
bw_ready bw_http_ready(const bw_http *http);
int bw_http_open_exchanges(const bw_http *http); /* being answered now */
int bw_http_connections(const bw_http *http);

/* ---- an exchange ---- */

bw_method bw_exchange_method(const bw_exchange *x);
const char *bw_exchange_path(const bw_exchange *x);  /* without query; decoded */
const char *bw_exchange_rest(const bw_exchange *x);  /* after the prefix of a BW_ROUTE_PREFIX route; decoded */
const char *bw_exchange_query(const bw_exchange *x, const char *name); /* value, "" or NULL; valid until the end */
const char *bw_exchange_header(const bw_exchange *x, const char *name); /* NULL: absent */
const char *bw_exchange_id(const bw_exchange *x);    /* request id, echoed or made */
const bw_route *bw_exchange_route(const bw_exchange *x);
const char *bw_exchange_peer(const bw_exchange *x);  /* "127.0.0.1:40000" */
uint64_t bw_exchange_sent(const bw_exchange *x); /* bytes of body and events given away so far */
uint64_t bw_exchange_arrived_ns(const bw_exchange *x); /* bw_clock_ns() of the first byte of the request */
/* The body, lent until the exchange ends; NUL-terminated behind n bytes. */
const char *bw_exchange_body(const bw_exchange *x, size_t *n);
/* The body to keep, for bw_mem_free; bw_exchange_body has nothing to lend any more. It goes on counting among
 * the bodies that the server holds, until the exchange ends or bw_exchange_body_freed. */
char *bw_exchange_take_body(bw_exchange *x, size_t *n);
void bw_exchange_body_freed(bw_exchange *x);

/* `gone` is called at most once, when the client has left before the answer was complete (FIN, RST, a
 * failed write, a reader stuck for write_timeout_s), or when bw_http_destroy closes its connection. The
 * exchange is freed after it returns; inside it, it may still be looked at, and answers are ignored. */
void bw_exchange_on_gone(bw_exchange *x, void (*gone)(void *arg), void *arg);

/* One more header of the response, before it starts. */
void bw_exchange_add_header(bw_exchange *x, const char *name, const char *value);
/* The whole response; the exchange is over and must not be used again. */
void bw_exchange_reply(bw_exchange *x, int status, const char *content_type, const void *body, size_t n);
/* OpenAI's error object; type by status when NULL, code and param may be NULL. retry_after_s > 0 adds
 * Retry-After. Over after it. */
void bw_exchange_fail(bw_exchange *x, int status, const char *type, const char *code, const char *param,
                      int retry_after_s, const char *message);

/* An event stream: status line and headers go out at once. */
void bw_exchange_stream(bw_exchange *x);
/* Whole events (ending in "\n\n"). Everything given in one turn of the loop leaves in one send. */
void bw_exchange_send(bw_exchange *x, const char *events, size_t n);
/* The response is complete; the connection stays open. close: it does not (a broken stream). Over after it. */
void bw_exchange_end(bw_exchange *x, bool close);
/* Bytes not yet taken by the client's side of the connection. */
size_t bw_exchange_backlog(const bw_exchange *x);
/* `drained` is called when the backlog has fallen to `low` bytes or less. Stays set. */
void bw_exchange_on_drained(bw_exchange *x, size_t low, void (*drained)(void *arg), void *arg);

#endif
