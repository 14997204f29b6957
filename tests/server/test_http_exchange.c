/* Answers and event streams over a plain socket: the bytes of a good day. Server and client share one
 * thread: the client runs the loop while it waits. */
#include <event2/event.h>
#include <stdlib.h>

#include "lib/check.h"
#include "lib/socket_client.h"
#include "server/http.h"
#include "server/work.h"

static struct event_base *base;
static bw_http *http;
static bw_work *work;
static bw_exchange *held; /* what /hold keeps */
static int n_gone;
static int log_status;

static void pump(void)
{
    event_base_loop(base, EVLOOP_NONBLOCK);
}

static void on_log(void *arg, const bw_exchange *x, int status, double seconds)
{
    (void)arg, (void)x;
    check(seconds >= 0);
    log_status = status;
}

static void echo(void *arg, bw_exchange *x)
{
    size_t n;
    const char *body = bw_exchange_body(x, &n);
    (void)arg;
    check(body[n] == '\0');
    bw_exchange_add_header(x, "X-Query", bw_exchange_query(x, "q") ? bw_exchange_query(x, "q") : "none");
    bw_exchange_reply(x, 200, "text/plain", body, n);
}

static void rest(void *arg, bw_exchange *x)
{
    (void)arg;
    bw_exchange_reply(x, 200, "text/plain", bw_exchange_rest(x), strlen(bw_exchange_rest(x)));
}

static void on_gone(void *arg)
{
    n_gone++;
    if (arg == held)
        held = NULL;
}

static void hold(void *arg, bw_exchange *x)
{
    (void)arg;
    held = x;
    bw_exchange_on_gone(x, on_gone, x);
}

static void stream(void *arg, bw_exchange *x)
{
    hold(arg, x);
    bw_exchange_stream(x);
}

typedef struct job {
    bw_exchange *x;
    size_t n;
} job;

static void count(void *arg)
{
    job *j = arg;
    bw_exchange_body(j->x, &j->n);
}

static void counted(void *arg)
{
    job *j = arg;
    char text[32];
    snprintf(text, sizeof text, "%zu", j->n);
    bw_exchange_reply(j->x, 200, "text/plain", text, strlen(text));
    free(j);
}

static void in_worker(void *arg, bw_exchange *x)
{
    (void)arg;
    job *j = calloc(1, sizeof *j);
    j->x = x;
    bw_work_add(work, count, counted, j);
}

static const bw_route routes[] = {
    { BW_GET | BW_POST, "/echo", 0, "echo", echo },
    { BW_GET, "/rest/", BW_ROUTE_PREFIX, "rest", rest },
    { BW_GET | BW_POST, "/hold", 0, "hold", hold },
    { BW_POST, "/stream", BW_ROUTE_JSON, "stream", stream },
    { BW_POST, "/work", BW_ROUTE_JSON, "work", in_worker },
};

static void start(const bw_http_options *options)
{
    bw_error err;
    base = event_base_new();
    check_ok(bw_http_create(&http, base, routes, (int)BW_COUNT(routes), options, &err), err);
    check_ok(bw_work_create(&work, base, 2, &err), err);
    socket_pump = pump;
    held = NULL;
    n_gone = log_status = 0;
}

static bw_http_options quick_options(void)
{
    bw_http_options o = bw_http_defaults();
    o.port = 0;
    o.log = on_log;
    return o;
}

static client begin(void)
{
    bw_http_options o = quick_options();
    start(&o);
    return client_open(bw_http_port(http));
}

static void stop(client *c)
{
    bw_work_destroy(work);
    bw_http_destroy(http);
    event_base_free(base);
    client_close(c);
}

static void wait_until_held(client *c)
{
    for (int i = 0; i < 2000 && !held; i++)
        client_idle(c, 0.001);
    check(held != NULL);
}

TEST(a_reply_has_length_type_date_and_ids)
{
    client c = begin();
    response r = client_ask(&c, "POST /echo?q=a%20b+c HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc-1\r\nContent-Length: 5\r\n\r\nhello");
    check_int(r.status, 200);
    check_str(r.body, "hello");
    check_str(response_header(&r, "Content-Type"), "text/plain");
    check_str(response_header(&r, "Content-Length"), "5");
    check_str(response_header(&r, "X-Request-Id"), "abc-1");
    check_str(response_header(&r, "request-id"), "abc-1");
    check_str(response_header(&r, "X-Query"), "a b c");
    check(response_header(&r, "Date") != NULL);
    check_int(log_status, 200);
    response_free(&r);
    r = client_ask(&c, "GET /rest/one%2Ftwo HTTP/1.1\r\nHost: x\r\n\r\n"); /* the same connection */
    check_str(r.body, "one/two");
    response_free(&r);
    stop(&c);
}

TEST(head_has_the_length_and_no_body)
{
    client c = begin();
    response r = client_ask(&c, "HEAD /rest/four HTTP/1.1\r\nHost: x\r\n\r\n");
    check_int(r.status, 200);
    check_str(response_header(&r, "Content-Length"), "4");
    response_free(&r);
    r = client_ask(&c, "GET /rest/x HTTP/1.1\r\nHost: x\r\n\r\n");
    check_str(r.body, "x");
    response_free(&r);
    stop(&c);
}

TEST(a_worker_reads_the_body_and_the_loop_answers)
{
    client c = begin();
    response r = client_ask(&c, "POST /work HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{\"a\":1}");
    check_str(r.body, "7");
    response_free(&r);
    stop(&c);
}

TEST(the_head_of_a_stream_leaves_at_once)
{
    client c = begin();
    client_send(&c, "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
    check(client_wait(&c, "\r\n\r\n", 5));
    check(strstr(c.data, "Content-Type: text/event-stream; charset=utf-8\r\n") != NULL);
    check(strstr(c.data, "Cache-Control: no-cache\r\n") != NULL);
    check(strstr(c.data, "X-Accel-Buffering: no\r\n") != NULL);
    check(strstr(c.data, "Transfer-Encoding: chunked\r\n") != NULL);
    stop(&c);
    check_int(n_gone, 1);
}

TEST(events_of_a_turn_are_one_chunk_and_the_connection_stays)
{
    client c = begin();
    client_send(&c, "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
    wait_until_held(&c);
    bw_exchange_send(held, "data: 1\n\n", 9);
    bw_exchange_send(held, "data: 2\n\n", 9);
    client_idle(&c, 0.02);
    bw_exchange_send(held, "data: [DONE]\n\n", 14);
    bw_exchange_end(held, false);
    response r = client_response(&c, false, 5);
    check_str(r.body, "data: 1\n\ndata: 2\n\ndata: [DONE]\n\n");
    check_int(r.n_chunks, 2);
    response_free(&r);
    r = client_ask(&c, "GET /rest/next HTTP/1.1\r\nHost: x\r\n\r\n");
    check_str(r.body, "next");
    response_free(&r);
    stop(&c);
    check_int(n_gone, 0);
}

TEST(a_client_that_leaves_is_noticed_while_nothing_is_written)
{
    client c = begin(), other = client_open(bw_http_port(http));
    client_send(&c, "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
    wait_until_held(&c);
    check_int(bw_http_open_exchanges(http), 1);
    client_close(&c);
    for (int i = 0; i < 2000 && n_gone == 0; i++)
        client_idle(&other, 0.001);
    check_int(n_gone, 1);
    check_int(log_status, 499);
    check_int(bw_http_open_exchanges(http), 0);
    stop(&other);
    check_int(n_gone, 1);
}

TESTS_MAIN(ENTRY(a_reply_has_length_type_date_and_ids), ENTRY(head_has_the_length_and_no_body),
           ENTRY(a_worker_reads_the_body_and_the_loop_answers), ENTRY(the_head_of_a_stream_leaves_at_once),
           ENTRY(events_of_a_turn_are_one_chunk_and_the_connection_stays),
           ENTRY(a_client_that_leaves_is_noticed_while_nothing_is_written))
