/* Random clients and a random server for a while: requests whole, cut, mutated and pipelined; clients that
 * leave whenever they like; answers in any order. Whatever happens, everything is given back. */
#include <stdlib.h>
#include <string.h>

#include "lib/http_fixture.h"

enum { CLIENTS = 12, MAX_TEXT = 1024 }; /* room for four requests */

typedef struct visitor {
    client c;
    bool here;
    char text[MAX_TEXT]; /* what it is going to send */
    size_t n, at;
} visitor;

static const char *const requests[] = {
    "GET /rest/x" HOST "\r\n", "POST /echo?q=1" HOST "Content-Length: 5\r\n\r\nhello", "GET /hold" HOST "\r\n",
    "POST /stream" HOST "Content-Length: 2\r\n\r\n{}", "POST /json" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\n{ }\r\n0\r\n\r\n",
    "POST /echo" HOST "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", "HEAD /rest/x" HOST "\r\n", "GET /nowhere" HOST "\r\n",
    "DELETE /echo" HOST "Connection: close\r\n\r\n", "POST /stream HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
    "GET /big?n=300000" HOST "\r\n", "\r\n", "POST /echo" HOST "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /model" HOST "Content-Type: text/html\r\nContent-Length: 4\r\n\r\nabcd",
};

static void arrive(visitor *v)
{
    v->c = fixture_connect();
    v->here = true;
    v->n = v->at = 0;
    for (int i = rnd_int(1, 4); i > 0; i--) {
        const char *r = requests[rnd_int(0, (int)BW_COUNT(requests) - 1)];
        const size_t n = strlen(r);
        memcpy(v->text + v->n, r, n);
        v->n += n;
    }
    if (rnd_int(0, 3) == 0) /* a byte is something else */
        v->text[rnd_u64() % v->n] = "\r\n \0:;0a%"[rnd_int(0, 8)];
}

static void leave(visitor *v)
{
    if (rnd_int(0, 1))
        client_reset(&v->c);
    else
        client_close(&v->c);
    v->here = false;
}

static void visit(visitor *v)
{
    if (!v->here) {
        arrive(v);
        return;
    }
    const int what = rnd_int(0, 20);
    if (what == 0)
        leave(v);
    else if (what == 1)
        client_half_close(&v->c);
    else if (what < 12 && v->at < v->n)
        v->at += client_try_send(&v->c, v->text + v->at, (size_t)rnd_int(1, (int)(v->n - v->at)));
    else
        client_idle(&v->c, 0);
    if (v->here && (v->c.ended || v->c.reset))
        leave(v);
}

static void serve_one(int i)
{
    bw_exchange *x = held[i];
    char *events = malloc(100000);
    memset(events, 'e', 100000);
    const bool is_stream = strcmp(bw_exchange_path(x), "/stream") == 0;
    const int what = rnd_int(0, 5);
    if (is_stream && what < 4) {
        bw_exchange_send(x, events, (size_t)rnd_int(1, rnd_int(0, 1) ? 100000 : 100));
    } else if (what != 4) {
        held[i] = NULL;
        bw_exchange_on_gone(x, NULL, NULL);
        if (is_stream)
            bw_exchange_end(x, rnd_int(0, 1));
        else if (rnd_int(0, 1))
            bw_exchange_reply(x, 200, "text/plain", events, (size_t)rnd_int(0, 1000));
        else
            bw_exchange_fail(x, 500, NULL, NULL, NULL, 0, "by chance");
    }
    free(events);
}

/* Room in held for the next; answered and gone ones are the NULLs. */
static bool has_room(void)
{
    if (n_held < MAX_HELD - CLIENTS)
        return true;
    for (int i = 0; i < n_held; i++)
        if (held[i])
            return false;
    n_held = 0;
    return true;
}

TEST(random_clients_leave_nothing_behind)
{
    static visitor visitors[CLIENTS];
    const double seconds = sanitized() ? 4 : 2;
    int n_rounds = 0;
    for (double end = seconds_now() + seconds; seconds_now() < end; n_rounds++) {
        bw_http_options o = fixture_options();
        o.max_connections = rnd_int(0, 4) ? 4096 : 6;
        o.ping_s = 0.002;
        o.header_timeout_s = o.body_timeout_s = o.idle_timeout_s = 0.01 * rnd_int(1, 20);
        fixture_start(&o);
        const int steps = rnd_int(10, 600);
        for (int step = 0; step < steps; step++) {
            const bool room = has_room();
            visitor *v = &visitors[rnd_int(0, CLIENTS - 1)];
            if (room || v->here)
                visit(v);
            for (int i = 0; i < n_held; i++)
                if (held[i] && (!room || rnd_int(0, 5) == 0))
                    serve_one(i);
            if (rnd_int(0, 3))
                event_base_loop(fixture_base, EVLOOP_NONBLOCK);
            if (step == steps / 2 && rnd_int(0, 3) == 0)
                bw_http_set_ready(fixture_http, BW_LOADING, 0.5, NULL);
            if (n_held >= MAX_HELD - 4)
                break;
        }
        const bool all_leave = rnd_int(0, 1);
        for (int i = 0; i < CLIENTS && all_leave; i++)
            if (visitors[i].here)
                leave(&visitors[i]);
        if (all_leave) {
            wait_connections(0);
            check_int(bw_http_open_exchanges(fixture_http), 0);
        }
        fixture_stop();
        for (int i = 0; i < CLIENTS; i++)
            if (visitors[i].here)
                leave(&visitors[i]);
    }
    check_that(n_rounds > 2, "only %d rounds", n_rounds);
    printf("[  NOTE    ] %d rounds\n", n_rounds);
}

TESTS_MAIN(ENTRY(random_clients_leave_nothing_behind))
