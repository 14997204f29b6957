/* Connections: how many, how long they may be idle, what becomes of one too many; addresses that cannot
 * be had; memory and descriptors that run out. */
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "lib/http_fixture.h"

TEST(an_idle_connection_is_closed_after_a_while)
{
    bw_http_options o = fixture_options();
    o.idle_timeout_s = 0.2;
    fixture_start(&o);
    client silent = fixture_connect(), used = fixture_connect();
    double start = seconds_now();
    client_idle(&used, 0.1);
    response r = client_ask(&used, "GET /rest/x" HOST "\r\n"); /* starts its time again */
    response_free(&r);
    check(client_wait_end(&silent, 5));
    check(seconds_now() - start > 0.19);
    check_int(bw_http_connections(fixture_http), 1);
    check(client_wait_end(&used, 5));
    check_that(seconds_now() - start > 0.29, "closed after %.3f s", seconds_now() - start);
    check_int(silent.n + used.n, 0); /* without a word */
    client_close(&silent);
    client_close(&used);
    fixture_stop();
}

TEST(a_request_that_waits_for_its_answer_is_not_idle)
{
    bw_http_options o = fixture_options();
    o.idle_timeout_s = o.header_timeout_s = o.body_timeout_s = o.write_timeout_s = 0.05;
    fixture_start(&o);
    client c = fixture_connect();
    client_send(&c, "POST /hold" HOST "Content-Length: 2\r\n\r\n{}");
    client_idle(&c, 0.3);
    check_int(n_gone, 0);
    bw_exchange_reply(held[0], 200, "text/plain", "late", 4);
    held[0] = NULL;
    response r = client_response(&c, false, 5);
    check_str(r.body, "late");
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(a_thousand_idle_connections_and_all_still_answer)
{
    enum { N = 1000, STREAMS = 64 };
    struct rlimit limit;
    check_int(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max < 2 * (N + STREAMS) + 100)
        skip_because("the system allows %llu open files", (unsigned long long)limit.rlim_max);
    fixture_start(NULL); /* raises the limit for both sides */
    static client clients[N], streams[STREAMS];
    for (int i = 0; i < N; i++) {
        clients[i] = fixture_connect();
        if (i % 50 == 49)
            fixture_run(0);
    }
    wait_connections(N);
    for (int i = 0; i < STREAMS; i++) {
        streams[i] = fixture_connect();
        client_send(&streams[i], POST_STREAM);
        wait_held(i + 1);
    }
    for (int i = 0; i < N; i++) {
        response r = client_ask(&clients[i], "GET /rest/x" HOST "\r\n");
        check_str(r.body, "x");
        response_free(&r);
    }
    for (int i = 0; i < STREAMS; i++) {
        bw_exchange_send(held[i], "data: 1\n\n", 9);
        bw_exchange_end(held[i], false);
        held[i] = NULL;
        response r = client_response(&streams[i], false, 5);
        check_str(r.body, "data: 1\n\n");
        response_free(&r);
        client_close(&streams[i]);
    }
    check_int(n_gone, 0);
    for (int i = 0; i < N; i++)
        client_close(&clients[i]);
    wait_connections(0);
    fixture_stop();
}

TEST(one_connection_too_many_is_told_so)
{
    bw_http_options o = fixture_options();
    o.max_connections = 3;
    fixture_start(&o);
    client c[3], more;
    for (int i = 0; i < 3; i++)
        c[i] = fixture_connect();
    wait_connections(3);
    for (int i = 0; i < 3; i++) {
        more = fixture_connect();
        if (i)
            client_send(&more, "GET /rest/x" HOST "\r\n"); /* read or not: the answer arrives */
        response r = client_response(&more, false, 5);
        check_int(r.status, 503);
        check(strstr(r.body, "too_many_connections") != NULL);
        check_str(response_header(&r, "Connection"), "close");
        check(atoi(response_header(&r, "Retry-After")) > 0);
        check(response_header(&r, "request-id") != NULL);
        check(client_wait_end(&more, 5) && !more.reset);
        check_int(log_status, 503);
        response_free(&r);
        client_close(&more);
        wait_connections(3);
    }
    for (int i = 0; i < 3; i++) {
        response r = client_ask(&c[i], "GET /rest/x" HOST "\r\n");
        check_int(r.status, 200);
        response_free(&r);
    }
    client_close(&c[0]);
    wait_connections(2);
    more = fixture_connect();
    response r = client_ask(&more, "GET /rest/x" HOST "\r\n");
    check_int(r.status, 200);
    response_free(&r);
    client_close(&more);
    client_close(&c[1]);
    client_close(&c[2]);
    fixture_stop();
}

TEST(far_too_many_connections_are_closed_without_a_word)
{
    bw_http_options o = fixture_options();
    o.max_connections = 1;
    fixture_start(&o);
    client c[80];
    for (int i = 0; i < 80; i++)
        c[i] = fixture_connect();
    fixture_run(0.05);
    check_that(bw_http_connections(fixture_http) <= 65, "%d connections", bw_http_connections(fixture_http));
    for (int i = 0; i < 80; i++)
        client_close(&c[i]);
    wait_connections(0);
    fixture_stop();
}

TEST(an_address_that_cannot_be_had_is_named)
{
    bw_http_options o = fixture_options();
    fixture_start(&o);
    struct event_base *base = event_base_new();
    bw_http *second = NULL;
    bw_error err;
    o.port = bw_http_port(fixture_http);
    char port[16];
    snprintf(port, sizeof port, "%d", o.port);
    check_error(bw_http_create(&second, base, NULL, 0, &o, &err), BW_E_IO, err, "127.0.0.1", port, "--port");
    check(second == NULL);
    o.host = "192.0.2.1"; /* nobody's */
    check_error(bw_http_create(&second, base, NULL, 0, &o, &err), BW_E_IO, err, "192.0.2.1");
    o.host = "no..host";
    check_error(bw_http_create(&second, base, NULL, 0, &o, &err), BW_E_IO, err, "no..host");
    o.host = "127.0.0.1";
    o.port = 70000;
    check_error(bw_http_create(&second, base, NULL, 0, &o, &err), BW_E_IO, err, "70000");
    event_base_free(base);
    fixture_stop();
}

TEST(a_drained_server_is_no_longer_listening)
{
    bw_http_options o = fixture_options();
    fixture_start(&o);
    const int port = bw_http_port(fixture_http);
    bw_http_set_ready(fixture_http, BW_DRAINING, 1, NULL);
    check_int(bw_http_ready(fixture_http), BW_DRAINING);
    struct event_base *base = event_base_new();
    bw_http *second = NULL;
    bw_error err;
    o.port = port; /* free again */
    check_ok(bw_http_create(&second, base, NULL, 0, &o, &err), err);
    bw_http_destroy(second);
    event_base_free(base);
    fixture_stop();
}

TEST(a_server_whose_memory_ends_while_it_starts_says_so)
{
    bw_http_options o = fixture_options();
    static const char *const words[] = { "one", "two" };
    o.keys = o.origins = words;
    o.n_keys = o.n_origins = 2;
    for (long n = 1;; n++) {
        struct event_base *base = event_base_new();
        bw_http *http = NULL;
        bw_error err = { 0 };
        bw_mem_fail_at(n);
        bw_status st = bw_http_create(&http, base, NULL, 0, &o, &err);
        const bool failed = bw_mem_fail_at(0);
        check_int(st, failed ? BW_E_MEMORY : BW_OK);
        check(!failed || (http == NULL && err.message[0]));
        bw_http_destroy(http);
        event_base_free(base);
        if (!failed) {
            check(n > 5);
            break;
        }
    }
}

/* Every allocation of a request fails in turn: it is answered, refused or cut off, and the next is served. */
TEST(a_request_whose_memory_ends_harms_nobody)
{
    static const char *const requests[] = { "POST /echo?a=b" HOST "X-Request-Id: a\r\nContent-Length: 5\r\n\r\nhello",
                                            "POST /json" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                                            "GET /nowhere" HOST "\r\n", "GET /echo HTTP/1.1\r\n\r\n" };
    fixture_start(NULL);
    for (size_t i = 0; i < BW_COUNT(requests); i++)
        for (long n = 1;; n++) {
            client c = fixture_connect(), next;
            wait_connections(1);
            bw_mem_fail_at(n);
            client_send(&c, requests[i]);
            for (int k = 0; k < 50; k++)
                client_idle(&c, 0.0002);
            const bool failed = bw_mem_fail_at(0);
            check_that(c.n == 0 || strncmp(c.data, "HTTP/1.1 ", 9) == 0, "an answer of %.100s", c.data);
            if (!failed)
                check_int(strstr(c.data, "200 OK") != NULL, i < 2);
            client_close(&c);
            wait_connections(0);
            next = fixture_connect();
            response r = client_ask(&next, "GET /rest/x" HOST "\r\n");
            check_str(r.body, "x");
            response_free(&r);
            client_close(&next);
            wait_connections(0);
            if (!failed)
                break;
            check_that(n < 200, "more than 200 allocations for %s", requests[i]);
        }
    fixture_stop();
}

/* No memory to watch the connection: it is not served unwatched. */
TEST(a_connection_whose_memory_ends_is_refused)
{
    fixture_start(NULL);
    bw_mem_fail_at(1);
    client c = fixture_connect();
    client_send(&c, "POST /echo" HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello");
    client_idle(&c, 0.05);
    check(bw_mem_fail_at(0));
    response r = client_response(&c, false, 5);
    check_int(r.status, 503);
    check(client_wait_end(&c, 5));
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(a_server_out_of_descriptors_serves_again_when_there_are_some)
{
    bw_http_options o = fixture_options();
    struct rlimit before, few;
    fixture_start(&o);
    client first = fixture_connect(), second = { .fd = -1 };
    wait_connections(1);
    check_int(getrlimit(RLIMIT_NOFILE, &before), 0);
    second = fixture_connect(); /* its descriptor is there, the server's is not */
    const int free_fd = dup(0);
    few = before;
    few.rlim_cur = (rlim_t)free_fd;
    close(free_fd);
    check_int(setrlimit(RLIMIT_NOFILE, &few), 0);
    fixture_run(0.25);
    check_int(bw_http_connections(fixture_http), 1);
    response r = client_ask(&first, "GET /rest/x" HOST "\r\n");
    check_str(r.body, "x");
    response_free(&r);
    check_int(setrlimit(RLIMIT_NOFILE, &before), 0);
    wait_connections(2);
    r = client_ask(&second, "GET /rest/y" HOST "\r\n");
    check_str(r.body, "y");
    response_free(&r);
    client_close(&first);
    client_close(&second);
    fixture_stop();
}

static char log_line[1000];

static void keep_log(void *arg, bw_log_level level, const char *line)
{
    (void)arg, (void)level;
    snprintf(log_line, sizeof log_line, "%s", line);
}

/* In a child: a hard limit does not go up again. */
TEST(where_the_system_allows_few_files_there_are_fewer_connections_and_it_is_said)
{
    fflush(NULL);
    const pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        struct rlimit few = { 400, 500 };
        bw_http_options o = fixture_options();
        struct event_base *base = event_base_new();
        bw_http *http = NULL;
        bw_log_to(keep_log, NULL);
        bool good = setrlimit(RLIMIT_NOFILE, &few) == 0 && bw_http_create(&http, base, NULL, 0, &o, NULL) == BW_OK;
        good = good && strstr(log_line, "500") && strstr(log_line, "4096") && strstr(log_line, "ulimit -n");
        getrlimit(RLIMIT_NOFILE, &few);
        good = good && few.rlim_cur == 500;
        bw_http_destroy(http);
        o.max_connections = 250; /* fits */
        log_line[0] = '\0';
        few.rlim_cur = 300;
        good = good && setrlimit(RLIMIT_NOFILE, &few) == 0 && bw_http_create(&http, base, NULL, 0, &o, NULL) == BW_OK;
        getrlimit(RLIMIT_NOFILE, &few);
        good = good && few.rlim_cur > 300 && strstr(log_line, "raised from 300");
        _exit(good ? 0 : 1);
    }
    int status = -1;
    check(waitpid(child, &status, 0) == child);
    check_int(status, 0);
}

TESTS_MAIN(ENTRY(an_idle_connection_is_closed_after_a_while), ENTRY(a_request_that_waits_for_its_answer_is_not_idle),
           ENTRY(a_thousand_idle_connections_and_all_still_answer), ENTRY(one_connection_too_many_is_told_so),
           ENTRY(far_too_many_connections_are_closed_without_a_word), ENTRY(an_address_that_cannot_be_had_is_named),
           ENTRY(a_drained_server_is_no_longer_listening), ENTRY(a_server_whose_memory_ends_while_it_starts_says_so),
           ENTRY(a_request_whose_memory_ends_harms_nobody), ENTRY(a_connection_whose_memory_ends_is_refused),
           ENTRY(a_server_out_of_descriptors_serves_again_when_there_are_some),
           ENTRY(where_the_system_allows_few_files_there_are_fewer_connections_and_it_is_said))
