/* Answers and event streams over a plain socket: the bytes of a good day. */
#include <stdlib.h>

#include "lib/http_fixture.h"

static void stop(client *c)
{
    fixture_stop();
    client_close(c);
}

static void end_stream(int i, bool close)
{
    bw_exchange *x = held[i];
    held[i] = NULL;
    bw_exchange_end(x, close);
}

TEST(a_reply_has_length_type_date_and_ids)
{
    client c = fixture_client();
    response r = client_ask(&c, "POST /echo?q=a%20b+c HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc-1\r\nContent-Length: 5\r\n\r\nhello");
    check_int(r.status, 200);
    check_str(r.body, "hello");
    check_str(response_header(&r, "Content-Type"), "text/plain");
    check_str(response_header(&r, "Content-Length"), "5");
    check_str(response_header(&r, "X-Request-Id"), "abc-1");
    check_str(response_header(&r, "request-id"), "abc-1");
    check_str(response_header(&r, "X-Query"), "a b c");
    check(response_header(&r, "Date") != NULL);
    check(response_header(&r, "Connection") == NULL);
    check_int(log_status, 200);
    check_str(log_path, "/echo");
    response_free(&r);
    r = client_ask(&c, "GET /rest/one%2Ftwo HTTP/1.1\r\nHost: x\r\n\r\n"); /* the same connection */
    check_str(r.body, "one/two");
    response_free(&r);
    r = client_ask(&c, "GET /rest/one/?q HTTP/1.1\r\nHost: x\r\n\r\n"); /* one slash at the end does not count */
    check_str(r.body, "one");
    response_free(&r);
    r = client_ask(&c, "GET /rest/one// HTTP/1.1\r\nHost: x\r\n\r\n");
    check_str(r.body, "one/");
    response_free(&r);
    stop(&c);
}

TEST(head_has_the_length_and_no_body)
{
    client c = fixture_client();
    response r = client_ask(&c, "HEAD /rest/four HTTP/1.1\r\nHost: x\r\n\r\n");
    check_int(r.status, 200);
    check_str(response_header(&r, "Content-Length"), "4");
    response_free(&r);
    r = client_ask(&c, "HEAD /rest/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"); /* a body it has no use for */
    check_int(r.status, 200);
    response_free(&r);
    r = client_ask(&c, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    check_int(r.status, 200);
    response_free(&r);
    r = client_ask(&c, "HEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    check_int(r.status, 404);
    response_free(&r);
    r = client_ask(&c, "GET /rest/x HTTP/1.1\r\nHost: x\r\n\r\n");
    check_str(r.body, "x");
    response_free(&r);
    stop(&c);
}

TEST(a_worker_reads_the_body_and_the_loop_answers)
{
    client c = fixture_client();
    response r = client_ask(&c, "POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{\"a\":1}");
    check_str(r.body, "7");
    response_free(&r);
    stop(&c);
}

TEST(a_chunked_body_reaches_the_handler_whole)
{
    client c = fixture_client();
    response r = client_ask(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x\r\ndefg\r\n0\r\nA: b\r\n\r\n");
    check_str(r.body, "abcdefg");
    response_free(&r);
    stop(&c);
}

TEST(a_body_of_megabytes_reaches_the_handler_whole)
{
    client c = fixture_client();
    enum { N = 5000000 };
    char *bytes = malloc(N);
    for (int i = 0; i < N; i++)
        bytes[i] = (char)('a' + i % 23);
    client_send(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n");
    client_send_bytes(&c, bytes, N);
    response r = client_response(&c, false, 10);
    check_int(r.n_body, N);
    check(memcmp(r.body, bytes, N) == 0);
    response_free(&r);
    free(bytes);
    stop(&c);
}

TEST(bytes_that_drip_in_are_a_request_too)
{
    client c = fixture_client();
    static const char request[] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    for (size_t i = 0; i < sizeof request - 1; i++) {
        client_send_bytes(&c, request + i, 1);
        client_idle(&c, 0);
        fixture_run(0);
    }
    response r = client_response(&c, false, 5);
    check_str(r.body, "hello");
    response_free(&r);
    stop(&c);
}

TEST(one_point_zero_is_closed_unless_it_asks_to_stay)
{
    client c = fixture_client();
    response r = client_ask(&c, "GET /rest/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    check_str(r.body, "a");
    check_str(response_header(&r, "Connection"), "keep-alive");
    response_free(&r);
    r = client_ask(&c, "GET /rest/b HTTP/1.0\r\n\r\n");
    check_str(r.body, "b");
    check(client_wait_end(&c, 5));
    response_free(&r);
    stop(&c);
}

TEST(a_stream_to_one_point_zero_has_no_chunks_and_ends_with_the_connection)
{
    client c = fixture_client();
    client_send(&c, "POST /stream HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}");
    wait_held(1);
    bw_exchange_send(held[0], "data: 1\n\n", 9);
    client_idle(&c, 0.01);
    end_stream(0, false);
    response r = client_response(&c, false, 5);
    check(r.to_end && !r.chunked);
    check_str(r.body, "data: 1\n\n");
    check_str(response_header(&r, "Connection"), "close");
    response_free(&r);
    stop(&c);
    check_int(n_gone, 0);
}

TEST(the_head_of_a_stream_leaves_at_once)
{
    client c = fixture_client();
    client_send(&c, POST_STREAM);
    check(client_wait(&c, "\r\n\r\n", 5));
    check(strncmp(c.data, "HTTP/1.1 200 OK\r\n", 17) == 0);
    check(strstr(c.data, "Content-Type: text/event-stream; charset=utf-8\r\n") != NULL);
    check(strstr(c.data, "Cache-Control: no-cache\r\n") != NULL);
    check(strstr(c.data, "X-Accel-Buffering: no\r\n") != NULL);
    check(strstr(c.data, "Transfer-Encoding: chunked\r\n") != NULL);
    check(strstr(c.data, "Content-Length") == NULL && strstr(c.data, "Content-Encoding") == NULL);
    check(strstr(c.data, "request-id: ") != NULL && strstr(c.data, "Date: ") != NULL);
    stop(&c);
    check_int(n_gone, 1);
}

TEST(events_of_a_turn_are_one_chunk_and_the_connection_stays)
{
    client c = fixture_client();
    client_send(&c, POST_STREAM);
    wait_held(1);
    bw_exchange_send(held[0], "data: 1\n\n", 9);
    bw_exchange_send(held[0], "data: 2\n\n", 9);
    client_idle(&c, 0.02);
    bw_exchange_send(held[0], "data: [DONE]\n\n", 14);
    end_stream(0, false);
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

TEST(a_turn_of_more_than_16_kib_arrives_in_one_read)
{
    client c = fixture_client();
    char event[1024];
    memset(event, 'x', sizeof event);
    memcpy(event, "data: ", 6);
    memcpy(event + sizeof event - 2, "\n\n", 2);
    client_send(&c, POST_STREAM);
    check(client_wait(&c, "\r\n\r\n", 5));
    const int before = c.n_reads;
    for (int i = 0; i < 40; i++)
        bw_exchange_send(held[0], event, sizeof event);
    client_idle(&c, 0.05);
    check_int(c.n_reads - before, 1);
    end_stream(0, false);
    response r = client_response(&c, false, 5);
    check_int(r.n_body, 40 * 1024);
    check_int(r.n_chunks, 1);
    response_free(&r);
    stop(&c);
}

TEST(a_stream_that_broke_closes_the_connection)
{
    client c = fixture_client();
    client_send(&c, POST_STREAM);
    wait_held(1);
    bw_exchange_send(held[0], "data: {\"error\":{}}\n\n", 20);
    end_stream(0, true);
    response r = client_response(&c, false, 5);
    check_str(r.body, "data: {\"error\":{}}\n\n");
    check(client_wait_end(&c, 5));
    check(!c.reset);
    response_free(&r);
    stop(&c);
}

TEST(a_silent_stream_gets_a_comment_and_a_busy_one_none)
{
    bw_http_options o = fixture_options();
    o.ping_s = 0.15;
    fixture_start(&o);
    client c = fixture_connect();
    client_send(&c, POST_STREAM);
    wait_held(1);
    for (int i = 0; i < 8; i++) { /* longer than the interval, never silent for it */
        bw_exchange_send(held[0], "data: 1\n\n", 9);
        client_idle(&c, 0.04);
    }
    check(strstr(c.data, "ping") == NULL);
    check(client_wait(&c, "8\r\n: ping\n\n\r\n", 5));
    c.data[c.n = 0] = '\0';
    check(client_wait(&c, "8\r\n: ping\n\n\r\n", 5));
    end_stream(0, false);
    stop(&c);
}

TEST(a_stream_without_pings_stays_silent)
{
    bw_http_options o = fixture_options();
    o.ping_s = 0;
    fixture_start(&o);
    client c = fixture_connect();
    client_send(&c, POST_STREAM);
    check(client_wait(&c, "\r\n\r\n", 5));
    client_idle(&c, 0.1);
    check(strstr(c.data, "ping") == NULL);
    end_stream(0, false);
    stop(&c);
}

TESTS_MAIN(ENTRY(a_reply_has_length_type_date_and_ids), ENTRY(head_has_the_length_and_no_body),
           ENTRY(a_worker_reads_the_body_and_the_loop_answers), ENTRY(a_chunked_body_reaches_the_handler_whole),
           ENTRY(a_body_of_megabytes_reaches_the_handler_whole), ENTRY(bytes_that_drip_in_are_a_request_too),
           ENTRY(one_point_zero_is_closed_unless_it_asks_to_stay),
           ENTRY(a_stream_to_one_point_zero_has_no_chunks_and_ends_with_the_connection),
           ENTRY(the_head_of_a_stream_leaves_at_once), ENTRY(events_of_a_turn_are_one_chunk_and_the_connection_stays),
           ENTRY(a_turn_of_more_than_16_kib_arrives_in_one_read), ENTRY(a_stream_that_broke_closes_the_connection),
           ENTRY(a_silent_stream_gets_a_comment_and_a_busy_one_none), ENTRY(a_stream_without_pings_stays_silent))
