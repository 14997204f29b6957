/* http_fixture.c - see http_fixture.h. */
#include "lib/http_fixture.h"

#include <poll.h>
#include <stdlib.h>

#include "base/mem.h"

struct event_base *fixture_base;
bw_http *fixture_http;
bw_work *fixture_work;
bw_exchange *held[MAX_HELD];
int n_held, n_gone, n_drained, n_logged, log_status;
char log_path[256];

static void pump(void)
{
    event_base_loop(fixture_base, EVLOOP_NONBLOCK);
}

static void on_log(void *arg, const bw_exchange *x, int status, double seconds)
{
    (void)arg;
    check(seconds >= 0 && bw_exchange_peer(x)[0] && bw_exchange_id(x)[0]);
    n_logged++;
    log_status = status;
    snprintf(log_path, sizeof log_path, "%s", bw_exchange_path(x));
}

static void echo(void *arg, bw_exchange *x)
{
    size_t n;
    const char *body = bw_exchange_body(x, &n), *query = bw_exchange_query(x, "q");
    (void)arg;
    check(body[n] == '\0');
    bw_exchange_add_header(x, "X-Query", query ? query : "none");
    bw_exchange_reply(x, 200, "text/plain", body, n);
}

static void rest(void *arg, bw_exchange *x)
{
    (void)arg;
    bw_exchange_reply(x, 200, "text/plain", bw_exchange_rest(x), strlen(bw_exchange_rest(x)));
}

static void big(void *arg, bw_exchange *x)
{
    const char *asked = bw_exchange_query(x, "n");
    const size_t n = asked ? strtoul(asked, NULL, 10) % 100000000 : 0;
    char *bytes = malloc(n + 1);
    (void)arg;
    memset(bytes, 'b', n);
    bw_exchange_reply(x, 200, "text/plain", bytes, n);
    free(bytes);
}

static void on_gone(void *arg)
{
    bw_exchange **at = arg;
    check(bw_exchange_id(*at)[0] != '\0'); /* may still be looked at */
    bw_exchange_reply(*at, 200, "text/plain", "x", 1); /* and answers are ignored */
    bw_exchange_end(*at, false);
    *at = NULL;
    n_gone++;
}

static void hold(void *arg, bw_exchange *x)
{
    (void)arg;
    check(n_held < MAX_HELD);
    held[n_held] = x;
    bw_exchange_on_gone(x, on_gone, &held[n_held]);
    n_held++;
}

static void stream(void *arg, bw_exchange *x)
{
    hold(arg, x);
    bw_exchange_stream(x);
}

typedef struct job {
    bw_exchange *x; /* NULL: its client has gone */
    char *body;     /* a copy: the exchange may end while the worker reads */
    size_t n, n_counted;
} job;

static void count(void *arg)
{
    job *j = arg;
    while (j->n_counted < j->n && j->body[j->n_counted])
        j->n_counted++;
}

static void counted(void *arg)
{
    job *j = arg;
    char text[32];
    snprintf(text, sizeof text, "%zu", j->n_counted);
    if (j->x)
        bw_exchange_reply(j->x, 200, "text/plain", text, strlen(text));
    bw_mem_free(j->body);
    free(j);
}

static void job_gone(void *arg)
{
    ((job *)arg)->x = NULL;
}

static void in_worker(void *arg, bw_exchange *x)
{
    (void)arg;
    job *j = calloc(1, sizeof *j);
    j->x = x;
    j->body = bw_exchange_take_body(x, &j->n);
    bw_exchange_on_gone(x, job_gone, j);
    bw_work_add(fixture_work, count, counted, j);
}

static const bw_route routes[] = {
    { BW_GET | BW_POST, "/echo", 0, "echo", echo },
    { BW_GET, "/rest/", BW_ROUTE_PREFIX, "rest", rest },
    { BW_DELETE, "/rest/", BW_ROUTE_PREFIX, "rest", rest },
    { BW_GET | BW_POST, "/hold", 0, "hold", hold },
    { BW_POST, "/stream", 0, "stream", stream },
    { BW_POST, "/json", BW_ROUTE_JSON, "json", in_worker },
    { BW_GET | BW_POST, "/keyed", BW_ROUTE_KEY, "keyed", echo },
    { BW_POST, "/model", BW_ROUTE_KEY | BW_ROUTE_READY | BW_ROUTE_JSON, "model", echo },
    { BW_GET, "/big", 0, "big", big },
};

bw_http_options fixture_options(void)
{
    bw_http_options o = bw_http_defaults();
    o.port = 0;
    o.log = on_log;
    return o;
}

/* What libevent has to say is about a mistake of ours; it may exit after it. */
static void show_libevent(void *arg, bw_log_level level, const char *line)
{
    (void)arg, (void)level;
    if (strncmp(line, "libevent", 8) == 0)
        fprintf(stderr, "%s\n", line);
}

void fixture_start(const bw_http_options *options)
{
    const bw_http_options normal = fixture_options();
    bw_error err;
    bw_log_to(show_libevent, NULL);
    memset(held, 0, sizeof held);
    n_held = n_gone = n_drained = n_logged = log_status = 0;
    fixture_base = event_base_new();
    const bw_http_options *chosen = options ? options : &normal;
    check_ok(bw_http_create(&fixture_http, fixture_base, routes, (int)BW_COUNT(routes), chosen, &err), err);
    check_ok(bw_work_create(&fixture_work, fixture_base, 2, &err), err);
    socket_pump = pump;
}

void fixture_stop(void)
{
    bw_work_destroy(fixture_work);
    bw_http_destroy(fixture_http);
    event_base_free(fixture_base);
    socket_pump = NULL;
    for (int i = 0; i < n_held; i++)
        check_that(!held[i], "exchange %d was never told that it is gone", i);
}

client fixture_connect(void)
{
    return client_open(bw_http_port(fixture_http));
}

client fixture_client(void)
{
    fixture_start(NULL);
    return fixture_connect();
}

bool fixture_until(bool (*condition)(void *arg), void *arg)
{
    double end = seconds_now() + 10;
    while (!condition(arg)) {
        if (seconds_now() > end)
            return false;
        pump();
        poll(NULL, 0, 1);
    }
    return true;
}

void fixture_run(double seconds)
{
    for (double end = seconds_now() + seconds; seconds_now() < end; poll(NULL, 0, 1))
        pump();
}

static bool enough_held(void *n)
{
    return n_held >= *(int *)n;
}

static bool enough_gone(void *n)
{
    return n_gone >= *(int *)n;
}

static bool as_many_connections(void *n)
{
    return bw_http_connections(fixture_http) == *(int *)n;
}

void wait_held(int n)
{
    check_that(fixture_until(enough_held, &n), "%d of %d requests came", n_held, n);
}

void wait_gone(int n)
{
    check_that(fixture_until(enough_gone, &n), "%d of %d clients were noticed to leave", n_gone, n);
}

void wait_connections(int n)
{
    check_that(fixture_until(as_many_connections, &n), "%d connections, not %d", bw_http_connections(fixture_http), n);
}
