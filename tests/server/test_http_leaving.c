/* Clients that leave, at each point of a request and in each way; readers that are slow or stuck; every
 * order in which a request can end. Meant to run under the address sanitizer as well. */
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "lib/http_fixture.h"

enum { MIB = 1 << 20 };

typedef void way_to_leave(client *c);

static void half_close(client *c)
{
    client_half_close(c);
}

static way_to_leave *const ways[] = { client_close, client_reset, half_close };

TEST(a_client_that_leaves_while_it_sends_is_forgotten)
{
    static const char *const parts[] = { "", "G", "GET /hold HTTP/1.1\r\nHo", "POST /hold" HOST "Content-Length: 5\r\n\r\n",
                                         "POST /hold" HOST "Content-Length: 5\r\n\r\nabc",
                                         "POST /hold" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
                                         "POST /nowhere" HOST "Content-Length: 5\r\n\r\nabc",
                                         "POST /hold" HOST "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n" };
    fixture_start(NULL);
    for (size_t i = 0; i < BW_COUNT(parts); i++)
        for (size_t w = 0; w < BW_COUNT(ways); w++) {
            client c = fixture_connect();
            client_send(&c, parts[i]);
            client_idle(&c, 0.005);
            wait_connections(1);
            ways[w](&c);
            wait_connections(0);
            client_close(&c);
        }
    check_int(n_held, 0);
    check_int(n_gone, 0);
    fixture_stop();
}

TEST(a_client_that_leaves_while_it_waits_is_noticed)
{
    fixture_start(NULL);
    for (size_t w = 0; w < BW_COUNT(ways); w++) {
        client c = fixture_connect();
        client_send(&c, "GET /hold" HOST "\r\n");
        wait_held((int)w + 1);
        check_int(bw_http_open_exchanges(fixture_http), 1);
        ways[w](&c);
        wait_gone((int)w + 1);
        check_int(log_status, 499);
        check_int(bw_http_open_exchanges(fixture_http), 0);
        wait_connections(0);
        client_close(&c);
    }
    fixture_stop();
}

TEST(a_client_that_leaves_a_silent_stream_is_noticed)
{
    fixture_start(NULL);
    for (size_t w = 0; w < BW_COUNT(ways); w++) {
        client c = fixture_connect();
        client_send(&c, POST_STREAM);
        wait_held((int)w + 1);
        bw_exchange_send(held[w], "data: 1\n\n", 9);
        check(client_wait(&c, "data: 1", 5));
        ways[w](&c);
        wait_gone((int)w + 1);
        wait_connections(0);
        client_close(&c);
    }
    fixture_stop();
}

TEST(a_client_that_leaves_is_noticed_with_another_request_on_its_way)
{
    fixture_start(NULL);
    for (size_t w = 0; w < BW_COUNT(ways); w++) {
        client c = fixture_connect();
        client_send(&c, POST_STREAM "GET /rest/next" HOST "\r\nGET /re");
        wait_held((int)w + 1);
        client_idle(&c, 0.005);
        ways[w](&c);
        wait_gone((int)w + 1);
        wait_connections(0);
        client_close(&c);
    }
    fixture_stop();
}

TEST(a_client_that_leaves_while_events_flow_is_noticed)
{
    fixture_start(NULL);
    for (size_t w = 0; w < BW_COUNT(ways); w++) {
        client c = fixture_connect();
        client_send(&c, POST_STREAM);
        wait_held((int)w + 1);
        ways[w](&c);
        for (int i = 0; i < 1000 && held[w]; i++) { /* to a socket that may be closed: no signal either */
            bw_exchange_send(held[w], "data: 1\n\n", 9);
            fixture_run(0.001);
        }
        check_int(n_gone, w + 1);
        wait_connections(0);
        client_close(&c);
    }
    fixture_stop();
}

static void fill(int i)
{
    char *bytes = malloc(16 * MIB);
    memset(bytes, 'x', 16 * MIB);
    memcpy(bytes + 16 * MIB - 2, "\n\n", 2);
    bw_exchange_send(held[i], bytes, 16 * MIB);
    free(bytes);
}

TEST(a_reader_that_is_stuck_is_gone_after_a_while_whatever_is_sent_to_it)
{
    bw_http_options o = fixture_options();
    o.write_timeout_s = 0.4;
    o.ping_s = 0.1;
    fixture_start(&o);
    client c = fixture_connect(), other = fixture_connect();
    client_send(&c, POST_STREAM);
    wait_held(1);
    fill(0);
    double start = seconds_now();
    while (n_gone == 0 && seconds_now() < start + 5) {
        if (held[0])
            bw_exchange_send(held[0], "data: 1\n\n", 9); /* no progress of the reader's */
        response r = client_ask(&other, "GET /rest/x" HOST "\r\n"); /* meanwhile others are served */
        check_str(r.body, "x");
        response_free(&r);
        client_idle(&other, 0.01);
    }
    check_int(n_gone, 1);
    check_that(seconds_now() - start > 0.3, "gone after %.2f s already", seconds_now() - start);
    client_close(&c);
    client_close(&other);
    fixture_stop();
}

TEST(a_reader_that_is_slow_but_reads_gets_everything)
{
    bw_http_options o = fixture_options();
    o.write_timeout_s = 0.4;
    fixture_start(&o);
    client c = fixture_connect();
    client_send(&c, POST_STREAM);
    wait_held(1);
    fill(0);
    double start = seconds_now();
    size_t n = 0;
    char piece[65536];
    while (n < 16 * MIB && seconds_now() < start + 20 && !n_gone) {
        size_t room = 12 * MIB / 50; /* 50 reads in over a second, several times the limit */
        fixture_run(0.02);
        for (ssize_t got = 1; room && got > 0;) {
            got = recv(c.fd, piece, room < sizeof piece ? room : sizeof piece, 0);
            if (got > 0) {
                n += (size_t)got;
                room -= (size_t)got;
            }
        }
    }
    check_int(n_gone, 0);
    check(seconds_now() - start > 0.8);
    check(n >= 16 * MIB);
    bw_exchange_end(held[0], false);
    held[0] = NULL;
    client_close(&c);
    fixture_stop();
}

static bool is_drained(void *n)
{
    return n_drained >= *(int *)n;
}

static void on_drained(void *arg)
{
    (void)arg;
    n_drained++;
}

TEST(the_backlog_is_counted_and_its_end_is_told)
{
    fixture_start(NULL);
    client c = fixture_connect();
    client_send(&c, POST_STREAM);
    wait_held(1);
    check(client_wait(&c, "\r\n\r\n", 5));
    check_int(bw_exchange_backlog(held[0]), 0);
    bw_exchange_on_drained(held[0], 1000, on_drained, NULL);
    fill(0);
    check(bw_exchange_backlog(held[0]) >= 16 * MIB);
    fixture_run(0.05);
    const size_t backlog = bw_exchange_backlog(held[0]);
    check_that(backlog > 1 * MIB && backlog < 16 * MIB, "a backlog of %zu", backlog);
    check_int(n_drained, 0);
    for (int i = 0; i < 1000 && !n_drained; i++)
        client_idle(&c, 0.002);
    check_int(n_drained, 1);
    check(bw_exchange_backlog(held[0]) <= 1000);
    fill(0); /* it stays set */
    int twice = 2;
    for (int i = 0; i < 1000 && !is_drained(&twice); i++)
        client_idle(&c, 0.002);
    check_int(n_drained, 2);
    bw_exchange_end(held[0], false);
    held[0] = NULL;
    client_close(&c);
    fixture_stop();
}

static void end_when_drained(void *arg)
{
    bw_exchange **at = arg;
    bw_exchange *x = *at;
    *at = NULL;
    bw_exchange_end(x, false);
}

TEST(a_stream_may_end_inside_drained)
{
    fixture_start(NULL);
    client c = fixture_connect();
    client_send(&c, POST_STREAM);
    wait_held(1);
    bw_exchange_on_drained(held[0], 0, end_when_drained, &held[0]);
    bw_exchange_send(held[0], "data: 1\n\n", 9);
    response r = client_response(&c, false, 5);
    check_str(r.body, "data: 1\n\n");
    response_free(&r);
    r = client_ask(&c, "GET /rest/x" HOST "\r\n");
    check_str(r.body, "x");
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

/* The client leaves in the same turn in which the answer is given, in both orders. */
TEST(leaving_and_answering_cross_without_harm)
{
    for (int answer = 0; answer < 5; answer++)
        for (size_t w = 0; w < BW_COUNT(ways); w++)
            for (int turns = 0; turns < 3; turns++) {
                fixture_start(NULL);
                client c = fixture_connect();
                client_send(&c, answer < 2 ? "GET /hold" HOST "\r\n" : POST_STREAM);
                wait_held(1);
                bw_exchange *x = held[0];
                if (answer >= 3)
                    bw_exchange_send(x, "data: 1\n\n", 9);
                ways[w](&c);
                for (int i = 0; i < turns; i++)
                    event_base_loop(fixture_base, EVLOOP_NONBLOCK);
                if (held[0]) { /* not yet noticed */
                    held[0] = NULL;
                    bw_exchange_on_gone(x, NULL, NULL);
                    if (answer == 0)
                        bw_exchange_reply(x, 200, "text/plain", "x", 1);
                    else if (answer == 1)
                        bw_exchange_fail(x, 500, NULL, NULL, NULL, 0, "x");
                    else if (answer == 2)
                        bw_exchange_end(x, false);
                    else if (answer == 3)
                        bw_exchange_end(x, true);
                    else
                        (bw_exchange_send(x, "data: 2\n\n", 9), bw_exchange_end(x, false));
                }
                if (turns < 2) {
                    wait_connections(0);
                    check_int(bw_http_open_exchanges(fixture_http), 0);
                }
                fixture_stop();
                client_close(&c);
            }
}

TEST(destroying_the_server_ends_requests_in_every_state)
{
    static const char *const parts[] = { "", "GET /ho", "POST /hold" HOST "Content-Length: 5\r\n\r\nabc", "GET /hold" HOST "\r\n",
                                         POST_STREAM, POST_STREAM "GET /rest/x" HOST "\r\n", "GET /big?n=9000000" HOST "\r\n",
                                         "POST /echo" HOST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "GET /rest/x" HOST "\r\n" };
    for (int turns = 0; turns < 6; turns++) {
        fixture_start(NULL);
        client clients[BW_COUNT(parts)];
        for (size_t i = 0; i < BW_COUNT(parts); i++) {
            clients[i] = fixture_connect();
            client_send(&clients[i], parts[i]);
        }
        for (int i = 0; i < turns; i++)
            event_base_loop(fixture_base, EVLOOP_NONBLOCK);
        for (int i = 0; i < n_held; i++)
            if (strcmp(bw_exchange_path(held[i]), "/stream") == 0) {
                bw_exchange_on_drained(held[i], 0, on_drained, NULL);
                bw_exchange_send(held[i], "data: 1\n\n", 9);
            }
        const int were_held = n_held;
        fixture_stop();
        check_int(n_gone, were_held);
        for (size_t i = 0; i < BW_COUNT(parts); i++)
            client_close(&clients[i]);
    }
}

TEST(a_large_answer_to_a_reader_that_is_stuck_does_not_stay)
{
    bw_http_options o = fixture_options();
    o.write_timeout_s = 0.2;
    fixture_start(&o);
    client c = fixture_connect();
    client_send(&c, "GET /big?n=20000000" HOST "\r\n");
    fixture_run(0.05);
    check_int(bw_http_connections(fixture_http), 1);
    check_int(bw_http_open_exchanges(fixture_http), 0); /* answered, not yet taken */
    wait_connections(0);
    client_close(&c);
    fixture_stop();
}

static void own_handler(int signal_number)
{
    (void)signal_number;
}

TEST(a_write_to_a_client_that_has_left_is_no_signal)
{
    struct sigaction now;
    client c;
    signal(SIGPIPE, SIG_DFL);
    c = fixture_client();
    check_int(sigaction(SIGPIPE, NULL, &now), 0);
    check(now.sa_handler == SIG_IGN);
    client_close(&c);
    fixture_stop();
    signal(SIGPIPE, own_handler); /* who handles it keeps his handler */
    c = fixture_client();
    check_int(sigaction(SIGPIPE, NULL, &now), 0);
    check(now.sa_handler == own_handler);
    client_close(&c);
    fixture_stop();
    signal(SIGPIPE, SIG_IGN);
}

TEST(half_closing_after_a_request_counts_as_leaving)
{
    client c = fixture_client();
    client_send(&c, "GET /hold" HOST "\r\n");
    client_half_close(&c); /* at once */
    wait_held(1);
    wait_gone(1);
    check(client_wait_end(&c, 5));
    check_int(c.n, 0);
    client_close(&c);
    fixture_stop();
}

TEST(sixty_four_streams_lose_every_second_client)
{
    enum { N = 64 };
    fixture_start(NULL);
    client clients[N];
    for (int i = 0; i < N; i++) {
        clients[i] = fixture_connect();
        client_send(&clients[i], POST_STREAM);
        wait_held(i + 1);
    }
    for (int i = 0; i < N; i += 2)
        ways[(size_t)i / 2 % BW_COUNT(ways)](&clients[i]);
    wait_gone(N / 2);
    for (int i = 0; i < N; i++)
        if (held[i]) {
            bw_exchange_send(held[i], "data: 1\n\n", 9);
            bw_exchange_end(held[i], false);
            held[i] = NULL;
        }
    for (int i = 1; i < N; i += 2) {
        response r = client_response(&clients[i], false, 5);
        check_str(r.body, "data: 1\n\n");
        response_free(&r);
    }
    for (int i = 0; i < N; i++)
        client_close(&clients[i]);
    check_int(n_gone, N / 2);
    fixture_stop();
}

TESTS_MAIN(ENTRY(a_client_that_leaves_while_it_sends_is_forgotten), ENTRY(a_client_that_leaves_while_it_waits_is_noticed),
           ENTRY(a_client_that_leaves_a_silent_stream_is_noticed),
           ENTRY(a_client_that_leaves_is_noticed_with_another_request_on_its_way),
           ENTRY(a_client_that_leaves_while_events_flow_is_noticed),
           ENTRY(a_reader_that_is_stuck_is_gone_after_a_while_whatever_is_sent_to_it),
           ENTRY(a_reader_that_is_slow_but_reads_gets_everything), ENTRY(the_backlog_is_counted_and_its_end_is_told),
           ENTRY(a_stream_may_end_inside_drained), ENTRY(leaving_and_answering_cross_without_harm),
           ENTRY(destroying_the_server_ends_requests_in_every_state),
           ENTRY(a_large_answer_to_a_reader_that_is_stuck_does_not_stay), ENTRY(a_write_to_a_client_that_has_left_is_no_signal), ENTRY(half_closing_after_a_request_counts_as_leaving),
           ENTRY(sixty_four_streams_lose_every_second_client))
