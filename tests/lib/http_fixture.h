/* http_fixture.h - an HTTP server for tests, in the client's own thread: the client's waiting runs the
 * loop (socket_pump). */
#ifndef BW_TESTS_HTTP_FIXTURE_H
#define BW_TESTS_HTTP_FIXTURE_H

#include <event2/event.h>

#include "lib/check.h"
#include "lib/socket_client.h"
#include "server/http.h"
#include "server/work.h"

enum { MAX_HELD = 128 };

/* After a method and a target: the rest of the line, and the one header a request must have. */
#define HOST " HTTP/1.1\r\nHost: x\r\n"
#define POST_STREAM "POST /stream" HOST "Content-Length: 2\r\n\r\n{}"

extern struct event_base *fixture_base;
extern bw_http *fixture_http;
extern bw_work *fixture_work;
extern bw_exchange *held[MAX_HELD]; /* what /hold and /stream keep; NULL once gone or answered by a test */
extern int n_held, n_gone, n_drained;
extern int n_logged, log_status; /* the last line */
extern char log_path[256];

/* Routes: GET, POST /echo (the body); GET /rest/REST; POST /json (a JSON body's length, counted by a
 * worker); GET, POST /hold, POST /stream (kept in held); GET, POST /keyed (needs a key); POST /model
 * (needs a model that is ready, and JSON); GET /big?n=N (N bytes). */
bw_http_options fixture_options(void); /* port 0; logs */
void fixture_start(const bw_http_options *options); /* NULL: fixture_options() */
void fixture_stop(void); /* everything, clients apart */
/* One connection to a server with the default options. */
client fixture_client(void);
client fixture_connect(void); /* one more */
/* Runs the loop until the condition holds; false after 10 s. */
bool fixture_until(bool (*condition)(void *arg), void *arg);
void fixture_run(double seconds);
void wait_held(int n);      /* until n exchanges were kept, since the start */
void wait_gone(int n);
void wait_connections(int n);

#endif
