/* What is refused before a handler sees it, and how: transcripts over a plain socket. */
#include <json-c/json.h>
#include <stdlib.h>

#include "lib/http_fixture.h"

/* The whole of OpenAI's error object, and what every response carries. */
static void check_error_body(const response *r, int status, const char *type, const char *code)
{
    check_int(r->status, status);
    check_str(response_header(r, "Content-Type"), "application/json");
    check(response_header(r, "Date") != NULL);
    const char *id = response_header(r, "X-Request-Id");
    char kept[200];
    check(id != NULL);
    snprintf(kept, sizeof kept, "%s", id);
    check_str(response_header(r, "request-id"), kept);
    struct json_object *root = json_tokener_parse(r->body), *error = NULL, *field = NULL;
    check_that(root && json_object_object_get_ex(root, "error", &error), "no error object: %s", r->body);
    check(json_object_object_get_ex(error, "message", &field) && json_object_get_string_len(field) > 0);
    check(json_object_object_get_ex(error, "type", &field));
    check_str(json_object_get_string(field), type);
    check(json_object_object_get_ex(error, "code", &field));
    check_str(json_object_get_string(field), code);
    check(json_object_object_get_ex(error, "param", &field) && field == NULL);
    json_object_put(root);
}

/* Refused with this, and the connection closed after it, in order (no reset). */
static void check_closes(const char *request, int status, const char *code)
{
    client c = fixture_connect();
    client_send(&c, request);
    response r = client_response(&c, strncmp(request, "HEAD", 4) == 0, 5);
    check_error_body(&r, status, status == 503 ? "service_unavailable" : "invalid_request_error", code);
    check_str(response_header(&r, "Connection"), "close");
    check_that(client_wait_end(&c, 5) && !c.reset, "after %d %s: not closed in order", status, code);
    check_int(log_status, status);
    response_free(&r);
    client_close(&c);
}

/* Refused with this; the connection stays. */
static response check_stays(client *c, const char *request, int status, const char *type, const char *code)
{
    response r = client_ask(c, request), next = { 0 };
    check_error_body(&r, status, type, code);
    check(response_header(&r, "Connection") == NULL);
    check_int(log_status, status);
    next = client_ask(c, "GET /rest/next" HOST "\r\n");
    check_str(next.body, "next");
    response_free(&next);
    return r;
}

TEST(framing_that_could_be_read_in_two_ways_is_refused_and_closed)
{
    client c = fixture_client();
    check_closes("POST /echo" HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_request");
    check_closes("POST /echo" HOST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, "bad_request");
    check_closes("POST /echo" HOST "Content-Length: +3\r\n\r\nabc", 400, "bad_request");
    check_closes("POST /echo" HOST "Content-Length: 3 \t3\r\n\r\nabc", 400, "bad_request");
    check_closes("POST /echo" HOST "Content-Length : 3\r\n\r\nabc", 400, "bad_request");
    check_closes("POST /echo" HOST "A: b\r\n c\r\n\r\n", 400, "bad_request");
    check_closes("POST /echo" HOST "A: b\rc\r\n\r\n", 400, "bad_request");
    check_closes("GET /echo HTTP/1.1\r\n\r\n", 400, "bad_request");
    check_closes("GET /echo" HOST "Host: y\r\n\r\n", 400, "bad_request");
    check_closes("GET /echo\r\n\r\n", 400, "bad_request");
    check_closes("GET /echo HTTP/3.0\r\n\r\n", 505, "http_version");
    check_closes("POST /echo" HOST "Transfer-Encoding: gzip\r\n\r\n", 501, "transfer_encoding");
    check_closes("POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400, "bad_request");
    check_closes("POST /echo" HOST "Expect: tea\r\n\r\n", 417, "expectation");
    client_close(&c);
    fixture_stop();
}

static void start_quick(void)
{
    bw_http_options o = fixture_options();
    o.body_timeout_s = 0.1;
    o.header_timeout_s = 0.1;
    o.max_body = 1000;
    fixture_start(&o);
}

TEST(framing_is_refused_in_the_middle_of_a_body_too)
{
    start_quick();
    check_closes("POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nabc", 408, "body_timeout");
    check_closes("POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nabcdefg\r\n", 400, "bad_request");
    check_closes("POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3e8\r\n", 413, "body_too_large");
    check_int(bw_http_open_exchanges(fixture_http), 0);
    fixture_stop();
}

TEST(limits_are_refused_and_closed)
{
    start_quick();
    char *line = malloc(20000);
    memset(line, 'a', 20000);
    memcpy(line, "GET /", 5);
    line[9000] = '\0';
    check_closes(line, 414, "uri_too_long");
    char *many = malloc(100000);
    strcpy(many, "GET /echo" HOST);
    for (int i = 0; i < 100; i++)
        strcat(many, "A: b\r\n");
    check_closes(many, 431, "too_many_headers");
    memset(many, 'x', 99000);
    memcpy(many, "GET /echo" HOST "A: ", strlen("GET /echo" HOST "A: "));
    many[99000] = '\0';
    check_closes(many, 431, "headers_too_large");
    free(line);
    free(many);
    check_closes("POST /echo" HOST "Content-Length: 1001\r\n\r\n", 413, "body_too_large"); /* before a byte of it */
    check_closes("POST /echo" HOST "Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n", 413, "body_too_large");
    client c = fixture_connect();
    char *most = calloc(1, 2000);
    snprintf(most, 2000, "POST /echo" HOST "Content-Length: 1000\r\n\r\n%01000d", 7);
    response r = client_ask(&c, most);
    check_int(r.status, 200);
    check_int(r.n_body, 1000);
    response_free(&r);
    free(most);
    client_close(&c);
    fixture_stop();
}

TEST(slow_heads_and_bodies_are_refused_and_closed)
{
    start_quick();
    check_closes("GET /echo HTTP/1.1\r\nHos", 408, "header_timeout");
    check_closes("POST /echo" HOST "Content-Length: 5\r\n\r\nhel", 408, "body_timeout");
    /* A drip keeps a body alive, not a head. */
    client c = fixture_connect();
    client_send(&c, "POST /echo" HOST "Content-Length: 5\r\n\r\n");
    for (int i = 0; i < 5; i++) {
        client_idle(&c, 0.06);
        client_send(&c, "x");
    }
    response r = client_response(&c, false, 5);
    check_str(r.body, "xxxxx");
    response_free(&r);
    client_send(&c, "GET /");
    for (int i = 0; i < 5 && !c.ended; i++) {
        client_idle(&c, 0.04);
        client_send(&c, "x");
    }
    r = client_response(&c, false, 5);
    check_int(r.status, 408);
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(unknown_paths_and_methods_keep_the_connection)
{
    client c = fixture_client();
    response r = check_stays(&c, "GET /nowhere" HOST "\r\n", 404, "invalid_request_error", "not_found");
    response_free(&r);
    static const char *const without_v1[] = { "/chat/completions", "/v1/v1/completions", "/models/" };
    for (size_t i = 0; i < BW_COUNT(without_v1); i++) {
        char request[200];
        snprintf(request, sizeof request, "GET %s" HOST "\r\n", without_v1[i]);
        r = check_stays(&c, request, 404, "invalid_request_error", "not_found");
        check_that(strstr(r.body, "under /v1"), "does not say where the API is: %s", r.body);
        response_free(&r);
    }
    r = check_stays(&c, "POST /v1/embeddings" HOST "Content-Length: 3\r\n\r\nabc", 404, "invalid_request_error", "not_found");
    response_free(&r);
    r = check_stays(&c, "DELETE /echo" HOST "\r\n", 405, "invalid_request_error", "method_not_allowed");
    check_str(response_header(&r, "Allow"), "GET, HEAD, POST");
    response_free(&r);
    r = check_stays(&c, "BREW /rest/x" HOST "\r\n", 405, "invalid_request_error", "method_not_allowed");
    check_str(response_header(&r, "Allow"), "GET, HEAD, DELETE");
    response_free(&r);
    r = check_stays(&c, "OPTIONS /stream" HOST "\r\n", 405, "invalid_request_error", "method_not_allowed");
    check_str(response_header(&r, "Allow"), "POST");
    response_free(&r);
    r = check_stays(&c, "GET /rest/" HOST "\r\n", 404, "invalid_request_error", "not_found"); /* a prefix alone */
    response_free(&r);
    r = check_stays(&c, "GET /a%2" HOST "\r\n", 400, "invalid_request_error", "invalid_target");
    response_free(&r);
    r = check_stays(&c, "GET /a%00" HOST "\r\n", 400, "invalid_request_error", "invalid_target");
    response_free(&r);
    r = check_stays(&c, "GET /%ff%0a\"" HOST "\r\n", 404, "invalid_request_error", "not_found"); /* the message is JSON all the same */
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(a_trailing_slash_and_a_query_do_not_count)
{
    client c = fixture_client();
    static const char *const paths[] = { "/echo", "/echo/", "/echo?beta=true", "/echo/?q=", "/ech%6F", "http://x/echo" };
    for (size_t i = 0; i < BW_COUNT(paths); i++) {
        char request[200];
        snprintf(request, sizeof request, "POST %s" HOST "Content-Length: 2\r\n\r\nok", paths[i]);
        response r = client_ask(&c, request);
        check_that(r.status == 200 && strcmp(r.body, "ok") == 0, "%s: %d", paths[i], r.status);
        response_free(&r);
    }
    response r = client_ask(&c, "GET /echo//" HOST "\r\n");
    check_int(r.status, 404);
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(request_ids_are_echoed_or_made)
{
    client c = fixture_client();
    static const char *const bad[] = { "", "a b", "a\tb", "\xC3\xA9" };
    char request[1000], id[300], made[200] = "";
    for (size_t i = 0; i < BW_COUNT(bad); i++) {
        snprintf(request, sizeof request, "GET /rest/x" HOST "X-Request-Id: %s\r\n\r\n", bad[i]);
        response r = client_ask(&c, request);
        snprintf(id, sizeof id, "%s", response_header(&r, "request-id"));
        check_that(strncmp(id, "req_", 4) == 0 && strcmp(id, made) != 0, "id %s after %s", id, made);
        snprintf(made, sizeof made, "%s", id);
        response_free(&r);
    }
    for (int n = 127; n <= 129; n++) {
        memset(id, '~', (size_t)n);
        id[n] = '\0';
        snprintf(request, sizeof request, "GET /nowhere" HOST "x-request-id: %s\r\n\r\n", id);
        response r = client_ask(&c, request);
        check_int(strcmp(response_header(&r, "X-Request-Id"), id) == 0, n <= 128);
        response_free(&r);
    }
    client_close(&c);
    fixture_stop();
}

TEST(bodies_of_other_types_are_refused)
{
    client c = fixture_client();
    static const char *const good[] = { "", "Content-Type: application/json\r\n", "Content-Type: application/json; charset=utf-8\r\n",
                                        "Content-Type: Application/JSON;charset=utf-8\r\nContent-Encoding: identity\r\n" };
    static const char *const bad[] = { "Content-Type: text/plain\r\n", "Content-Type: application/jsonl\r\n",
                                       "Content-Type: application/x-www-form-urlencoded\r\n", "Content-Type:\r\n" };
    char request[300];
    for (size_t i = 0; i < BW_COUNT(good); i++) {
        snprintf(request, sizeof request, "POST /json" HOST "%sContent-Length: 2\r\n\r\n{}", good[i]);
        response r = client_ask(&c, request);
        check_that(r.status == 200, "%s: %d", good[i], r.status);
        response_free(&r);
    }
    for (size_t i = 0; i < BW_COUNT(bad); i++) {
        snprintf(request, sizeof request, "POST /json" HOST "%sContent-Length: 2\r\n\r\n{}", bad[i]);
        response r = check_stays(&c, request, 415, "invalid_request_error", "unsupported_media_type");
        check_that(strstr(r.body, "expected application/json"), "does not say what to send: %s", r.body);
        if (strstr(bad[i], "form"))
            check_that(strstr(r.body, "application/x-www-form-urlencoded"), "does not say what came: %s", r.body);
        response_free(&r);
    }
    response r = check_stays(&c, "POST /echo" HOST "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415,
                             "invalid_request_error", "unsupported_encoding");
    check_that(strstr(r.body, "gzip"), "does not say what came: %s", r.body);
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(a_refused_body_is_read_when_small_and_not_awaited_when_large)
{
    client c = fixture_client();
    char *body = calloc(1, 1000001);
    memset(body, 'x', 1000000);
    client_send(&c, "POST /nowhere" HOST "Content-Length: 1000000\r\n\r\n");
    client_send(&c, body);
    response r = client_response(&c, false, 5);
    check_int(r.status, 404);
    response_free(&r);
    r = client_ask(&c, "GET /rest/next" HOST "\r\n");
    check_str(r.body, "next");
    response_free(&r);
    client_close(&c);
    check_closes("POST /nowhere" HOST "Content-Length: 1100000\r\n\r\n", 404, "not_found");
    check_closes("POST /nowhere" HOST "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n", 404, "not_found");
    /* Chunks that never end: after 1 MiB it is enough; the answer survives what is still being sent. */
    c = fixture_connect();
    client_send(&c, "POST /nowhere" HOST "Transfer-Encoding: chunked\r\n\r\nF4240\r\n");
    client_send(&c, body);
    client_send(&c, "\r\nF4240\r\n");
    client_send(&c, body);
    client_send(&c, "\r\n");
    r = client_response(&c, false, 5);
    check_error_body(&r, 404, "invalid_request_error", "not_found");
    check(client_wait_end(&c, 5) && !c.reset);
    response_free(&r);
    free(body);
    client_close(&c);
    fixture_stop();
}

TEST(a_client_that_waits_to_be_told_is_told_to_continue)
{
    client c = fixture_client();
    for (int i = 0; i < 2; i++) { /* the second on a connection evhttp has written to */
        client_send(&c, "POST /echo" HOST "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        response r = client_response(&c, false, 5);
        check_int(r.status, 100);
        check_str(r.head, "HTTP/1.1 100 Continue\r\n\r\n");
        response_free(&r);
        client_send(&c, "hello");
        r = client_response(&c, false, 5);
        check_int(r.status, 200);
        check_str(r.body, "hello");
        response_free(&r);
    }
    response r = client_ask(&c, "POST /echo" HOST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok"); /* it did not wait */
    check_int(r.status, 200);
    check_str(r.body, "ok");
    response_free(&r);
    r = client_ask(&c, "GET /rest/x" HOST "Expect: 100-continue\r\n\r\n"); /* nothing to continue with */
    check_int(r.status, 200);
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(pipelined_requests_are_answered_in_order)
{
    client c = fixture_client();
    client_send(&c, "GET /rest/1" HOST "\r\nPOST /echo" HOST "Content-Length: 1\r\n\r\n2GET /hold" HOST "\r\nGET /rest/4" HOST
                    "\r\nPOST /json" HOST "Content-Length: 2\r\n\r\n55");
    for (int i = 1; i <= 2; i++) {
        response r = client_response(&c, false, 5);
        check_int(r.body[0], '0' + i);
        response_free(&r);
    }
    wait_held(1);
    client_idle(&c, 0.02);
    check_int(c.n, 0); /* the fourth waits for the third */
    check_int(bw_http_open_exchanges(fixture_http), 1);
    bw_exchange_reply(held[0], 200, "text/plain", "3", 1);
    held[0] = NULL;
    response r = client_response(&c, false, 5);
    check_str(r.body, "3");
    response_free(&r);
    r = client_response(&c, false, 5);
    check_str(r.body, "4");
    response_free(&r);
    r = client_response(&c, false, 5);
    check_str(r.body, "2");
    response_free(&r);
    /* What is wrong in the second is said after the first. */
    client_send(&c, "GET /rest/1" HOST "\r\nGET /\r\n");
    r = client_response(&c, false, 5);
    check_str(r.body, "1");
    response_free(&r);
    r = client_response(&c, false, 5);
    check_int(r.status, 400);
    check(client_wait_end(&c, 5));
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(a_flood_behind_a_request_is_not_kept)
{
    client c = fixture_client();
    char *flood = malloc(200001);
    memset(flood, 'x', 200000);
    flood[200000] = '\0';
    client_send(&c, "GET /hold" HOST "\r\n");
    wait_held(1);
    client_send(&c, flood);
    client_idle(&c, 0.02);
    bw_exchange_reply(held[0], 200, "text/plain", "first", 5);
    held[0] = NULL;
    response r = client_response(&c, false, 5);
    check_str(r.body, "first");
    check_str(response_header(&r, "Connection"), "close");
    check(client_wait_end(&c, 5));
    response_free(&r);
    free(flood);
    client_close(&c);
    fixture_stop();
}

TEST(connection_close_is_obeyed)
{
    client c = fixture_client();
    response r = client_ask(&c, "GET /rest/x" HOST "Connection: Close\r\n\r\n");
    check_str(r.body, "x");
    check_str(response_header(&r, "Connection"), "close");
    check(client_wait_end(&c, 5));
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

static void start_with_keys(void)
{
    static const char *const keys[] = { "sk-first", "sk-second" };
    bw_http_options o = fixture_options();
    o.keys = keys;
    o.n_keys = 2;
    fixture_start(&o);
}

TEST(routes_with_a_key_want_one_of_the_keys)
{
    start_with_keys();
    client c = fixture_connect();
    static const char *const bad[] = { "", "Authorization: sk-first\r\n", "Authorization: Bearer\r\n", "Authorization: Bearer sk-firs\r\n",
                                       "Authorization: Bearer sk-first2\r\n", "Authorization: Basic sk-first\r\n",
                                       "x-api-key: sk-third\r\n", "x-api-key:\r\n" };
    static const char *const good[] = { "Authorization: Bearer sk-first\r\n", "authorization: bearer  sk-second\r\n",
                                        "X-Api-Key: sk-second\r\n", "Authorization: Bearer wrong\r\nx-api-key: sk-first\r\n" };
    char request[300];
    for (size_t i = 0; i < BW_COUNT(bad); i++) {
        snprintf(request, sizeof request, "GET /keyed" HOST "%s\r\n", bad[i]);
        response r = check_stays(&c, request, 401, "authentication_error", "invalid_api_key");
        check_str(response_header(&r, "WWW-Authenticate"), "Bearer");
        response_free(&r);
    }
    for (size_t i = 0; i < BW_COUNT(good); i++) {
        snprintf(request, sizeof request, "GET /keyed" HOST "%s\r\n", good[i]);
        response r = client_ask(&c, request);
        check_that(r.status == 200, "%s: %d", good[i], r.status);
        response_free(&r);
    }
    response r = client_ask(&c, "GET /echo" HOST "\r\n"); /* open */
    check_int(r.status, 200);
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(without_keys_nothing_wants_one)
{
    client c = fixture_client();
    response r = client_ask(&c, "GET /keyed" HOST "\r\n");
    check_int(r.status, 200);
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(only_given_origins_are_allowed)
{
    static const char *const origins[] = { "https://a.example", "http://localhost:3000" };
    static const char *const keys[] = { "k" };
    bw_http_options o = fixture_options();
    o.origins = origins;
    o.n_origins = 2;
    o.keys = keys;
    o.n_keys = 1;
    fixture_start(&o);
    client c = fixture_connect();
    response r = client_ask(&c, "OPTIONS /model" HOST "Origin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n"
                                "Access-Control-Request-Headers: authorization,content-type\r\n\r\n"); /* carries no key */
    check_int(r.status, 204);
    check_str(response_header(&r, "Access-Control-Allow-Origin"), "http://localhost:3000");
    check_str(response_header(&r, "Access-Control-Allow-Methods"), "POST");
    check_str(response_header(&r, "Access-Control-Allow-Headers"), "authorization,content-type");
    check_str(response_header(&r, "Vary"), "Origin");
    check(response_header(&r, "Content-Type") == NULL && response_header(&r, "Content-Length") == NULL);
    check(response_header(&r, "Access-Control-Allow-Credentials") == NULL);
    response_free(&r);
    r = check_stays(&c, "OPTIONS /model" HOST "Origin: https://b.example\r\nAccess-Control-Request-Method: POST\r\n\r\n", 403,
                    "permission_error", "origin_not_allowed");
    check(response_header(&r, "Access-Control-Allow-Origin") == NULL);
    response_free(&r);
    r = client_ask(&c, "GET /echo" HOST "Origin: https://a.example\r\n\r\n");
    check_str(response_header(&r, "Access-Control-Allow-Origin"), "https://a.example");
    response_free(&r);
    r = client_ask(&c, "GET /keyed" HOST "Origin: https://a.example\r\n\r\n"); /* the page may read the error */
    check_int(r.status, 401);
    check_str(response_header(&r, "Access-Control-Allow-Origin"), "https://a.example");
    response_free(&r);
    r = client_ask(&c, "GET /echo" HOST "Origin: https://b.example\r\n\r\n");
    check_int(r.status, 200);
    check(response_header(&r, "Access-Control-Allow-Origin") == NULL);
    check_str(response_header(&r, "Vary"), "Origin");
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(cors_is_off_by_default)
{
    client c = fixture_client();
    response r = client_ask(&c, "OPTIONS /model" HOST "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n");
    check_int(r.status, 405);
    check(response_header(&r, "Access-Control-Allow-Origin") == NULL && response_header(&r, "Vary") == NULL);
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(a_server_that_loads_or_has_failed_says_so)
{
    client c = fixture_client();
    static const char ask[] = "POST /model" HOST "Content-Length: 2\r\n\r\n{}";
    bw_http_set_ready(fixture_http, BW_LOADING, 0.42, NULL);
    response r = check_stays(&c, ask, 503, "service_unavailable", "loading");
    check(strstr(r.body, "42 %") != NULL);
    check(atoi(response_header(&r, "Retry-After")) >= 1);
    response_free(&r);
    bw_http_set_ready(fixture_http, BW_FAILED, 0, "no \"memory\"\nleft");
    r = check_stays(&c, ask, 503, "service_unavailable", "engine_failed");
    check(strstr(r.body, "no \\\"memory\\\"") != NULL);
    check(response_header(&r, "Retry-After") != NULL);
    response_free(&r);
    bw_http_set_ready(fixture_http, BW_READY, 1, NULL);
    r = client_ask(&c, ask);
    check_int(r.status, 200);
    response_free(&r);
    client_close(&c);
    fixture_stop();
}

TEST(a_server_that_drains_closes_connections_as_it_answers)
{
    client c = fixture_client(), stream = fixture_connect(), idle = fixture_connect();
    client_send(&stream, "POST /stream" HOST "Content-Length: 2\r\n\r\n{}");
    client_send(&c, "GET /hold" HOST "\r\n");
    wait_held(2);
    const int stream_at = strcmp(bw_exchange_path(held[0]), "/stream") == 0 ? 0 : 1;
    bw_http_set_ready(fixture_http, BW_DRAINING, 1, NULL);

    response r = client_ask(&idle, "POST /model" HOST "Content-Length: 2\r\n\r\n{}");
    check_error_body(&r, 503, "service_unavailable", "draining");
    check_str(response_header(&r, "Connection"), "close");
    check(response_header(&r, "Retry-After") != NULL);
    check(client_wait_end(&idle, 5));
    response_free(&r);

    bw_exchange_reply(held[1 - stream_at], 200, "text/plain", "done", 4); /* what ran may finish */
    held[1 - stream_at] = NULL;
    r = client_response(&c, false, 5);
    check_str(r.body, "done");
    check_str(response_header(&r, "Connection"), "close");
    response_free(&r);

    bw_exchange_send(held[stream_at], "data: 1\n\n", 9);
    bw_exchange_end(held[stream_at], false);
    held[stream_at] = NULL;
    r = client_response(&stream, false, 5);
    check_str(r.body, "data: 1\n\n");
    check_that(client_wait_end(&stream, 5), "a stream from before the draining keeps its connection open");
    response_free(&r);
    client_close(&c);
    client_close(&stream);
    client_close(&idle);
    fixture_stop();
}

TESTS_MAIN(ENTRY(framing_that_could_be_read_in_two_ways_is_refused_and_closed), ENTRY(framing_is_refused_in_the_middle_of_a_body_too),
           ENTRY(limits_are_refused_and_closed), ENTRY(slow_heads_and_bodies_are_refused_and_closed),
           ENTRY(unknown_paths_and_methods_keep_the_connection), ENTRY(a_trailing_slash_and_a_query_do_not_count),
           ENTRY(request_ids_are_echoed_or_made), ENTRY(bodies_of_other_types_are_refused),
           ENTRY(a_refused_body_is_read_when_small_and_not_awaited_when_large),
           ENTRY(a_client_that_waits_to_be_told_is_told_to_continue), ENTRY(pipelined_requests_are_answered_in_order),
           ENTRY(a_flood_behind_a_request_is_not_kept), ENTRY(connection_close_is_obeyed),
           ENTRY(routes_with_a_key_want_one_of_the_keys), ENTRY(without_keys_nothing_wants_one),
           ENTRY(only_given_origins_are_allowed), ENTRY(cors_is_off_by_default),
           ENTRY(a_server_that_loads_or_has_failed_says_so), ENTRY(a_server_that_drains_closes_connections_as_it_answers))
