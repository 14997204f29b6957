/* The framing of requests: what is taken, what is refused and as what. Every request is fed whole, byte
 * by byte and in random pieces, with the same outcome. */
#include <stdlib.h>

#include "lib/check.h"
#include "server/http_strict.h"

/* What a request came to, as text, so that outcomes compare and print. */
typedef struct outcome {
    char text[4096];
    size_t used; /* bytes taken, up to the end of the request or the refusal's line */
} outcome;

static void add(outcome *o, const char *text, size_t n)
{
    size_t at = strlen(o->text);
    if (n >= sizeof o->text - at)
        n = sizeof o->text - at - 1;
    memcpy(o->text + at, text, n);
    o->text[at + n] = '\0';
}

static void add_head(outcome *o, const bw_strict *s)
{
    char head[1024];
    snprintf(head, sizeof head, "%s %s 1.%d%s%s", s->method, s->target, s->minor, s->keep_alive ? "" : " close",
             s->expect_continue ? " expect" : "");
    add(o, head, strlen(head));
    const char *at = s->fields.data;
    for (int i = 0; i < s->n_fields; i++) {
        const char *value = at + strlen(at) + 1;
        snprintf(head, sizeof head, " [%s=%s]", at, value);
        add(o, head, strlen(head));
        at = value + strlen(value) + 1;
    }
    add(o, " {", 2);
}

/* Feeds in pieces of 1 .. most bytes. */
static void feed(outcome *o, bw_strict_limits limits, const char *bytes, size_t n, int most)
{
    bw_strict s;
    bw_strict_event event = BW_STRICT_MORE;
    size_t at = 0;
    *o = (outcome){ 0 };
    bw_strict_init(&s, limits);
    while (event != BW_STRICT_DONE && event != BW_STRICT_REFUSED && (at < n || event != BW_STRICT_MORE)) {
        size_t piece = (size_t)rnd_int(1, most);
        if (piece > n - at)
            piece = n - at;
        char *copy = malloc(piece ? piece : 1); /* exactly sized: a sanitizer sees a byte too far */
        memcpy(copy, bytes + at, piece);
        size_t used = bw_strict_feed(&s, copy, piece, &event);
        check(used <= piece);
        if (event == BW_STRICT_MORE)
            check_int(used, piece);
        if (event == BW_STRICT_HEAD)
            add_head(o, &s);
        if (event == BW_STRICT_BODY)
            add(o, copy, used);
        at += used;
        free(copy);
    }
    o->used = at;
    char end[200];
    if (event == BW_STRICT_REFUSED)
        snprintf(end, sizeof end, "%s%d %s", o->text[0] ? "! " : "", s.status, s.code);
    else
        snprintf(end, sizeof end, "%s", event == BW_STRICT_DONE ? "}" : "...");
    if (event == BW_STRICT_REFUSED)
        check(s.message[0] != '\0');
    add(o, end, strlen(end));
    bw_strict_fini(&s);
}

static void check_bytes(bw_strict_limits limits, const char *bytes, size_t n, const char *want)
{
    outcome o;
    feed(&o, limits, bytes, n, 1);
    check_that(strcmp(o.text, want) == 0, "%.*s\n  byte by byte: %s\n  wanted: %s", (int)(n < 300 ? n : 300), bytes, o.text, want);
    for (int i = 0; i < 8; i++) {
        feed(&o, limits, bytes, n, i ? rnd_int(1, 40) : 1 << 20);
        check_that(strcmp(o.text, want) == 0, "%.*s\n  in pieces: %s\n  wanted: %s", (int)(n < 300 ? n : 300), bytes, o.text, want);
    }
}

static void check_request(const char *bytes, const char *want)
{
    check_bytes(bw_strict_default_limits(), bytes, strlen(bytes), want);
}

#define HOST "Host: x\r\n"
#define GET "GET / HTTP/1.1\r\n"
#define POST "POST / HTTP/1.1\r\nHost: x\r\n"

TEST(ordinary_requests_are_read)
{
    check_request(GET HOST "\r\n", "GET / 1.1 [Host=x] {}");
    check_request("\r\n\r\n" GET HOST "\r\n", "GET / 1.1 [Host=x] {}");
    check_request("GET /a?b=c%20d HTTP/1.0\r\n\r\n", "GET /a?b=c%20d 1.0 close {}");
    check_request("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / 1.0 [Connection=Keep-Alive] {}");
    check_request(GET HOST "Connection: keep-alive, close\r\n\r\n", "GET / 1.1 close [Host=x] [Connection=keep-alive, close] {}");
    check_request("GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
                  "GET / 1.0 close [Connection=close] [Connection=keep-alive] {}");
    check_request(POST "Content-Length: 5\r\n\r\nhello", "POST / 1.1 [Host=x] [Content-Length=5] {hello}");
    check_request(POST "Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello",
                  "POST / 1.1 [Host=x] [Content-Length=5] [content-length=5] {hello}");
    check_request(POST "Content-Length: 0\r\n\r\n", "POST / 1.1 [Host=x] [Content-Length=0] {}");
    check_request(POST "\r\n", "POST / 1.1 [Host=x] {}");
    check_request(POST "X-A:  spaces \t \r\nX-B:\r\nX-C: \xC3\xA9\r\n\r\n", "POST / 1.1 [Host=x] [X-A=spaces] [X-B=] [X-C=\xC3\xA9] {}");
    check_request("DELETE /v1/x HTTP/1.1\r\n" HOST "\r\n", "DELETE /v1/x 1.1 [Host=x] {}");
    check_request("BREW / HTTP/1.1\r\n" HOST "\r\n", "BREW / 1.1 [Host=x] {}");
    check_request("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
                  "POST / 1.1 expect [Host=x] [Expect=100-continue] [Content-Length=1] {a}");
}

TEST(targets_are_paths_whatever_form_they_come_in)
{
    check_request("GET http://host:8080/a?b HTTP/1.1\r\n" HOST "\r\n", "GET /a?b 1.1 [Host=x] {}");
    check_request("GET HTTPS://host HTTP/1.1\r\n" HOST "\r\n", "GET / 1.1 [Host=x] {}");
    check_request("GET http://host?b HTTP/1.1\r\n" HOST "\r\n", "GET /?b 1.1 [Host=x] {}");
    check_request("OPTIONS * HTTP/1.1\r\n" HOST "\r\n", "OPTIONS * 1.1 [Host=x] {}");
    check_request("GET //a/b HTTP/1.1\r\n" HOST "\r\n", "GET //a/b 1.1 [Host=x] {}");
    static const char *const wrong[] = { "*", "a", "ftp://x/", "http://", "http:///a", "host:80", "/a#b", "/a\xC3\xA9", "/a\"\x7F" };
    for (size_t i = 0; i < BW_COUNT(wrong); i++) {
        char bytes[200];
        snprintf(bytes, sizeof bytes, "GET %s HTTP/1.1\r\n" HOST "\r\n", wrong[i]);
        check_request(bytes, "400 bad_request");
    }
}

TEST(request_lines_that_are_none_are_refused)
{
    static const char *const wrong[] = { "GET /\r\n",          "GET\r\n",           "GET  / HTTP/1.1\r\n",  "GET / HTTP/1.1 \r\n",
                                         " GET / HTTP/1.1\r\n", "GET / http/1.1\r\n", "GET\t/ HTTP/1.1\r\n", "GET / HTTP/1.1x\r\n",
                                         "GET / HTTP/11\r\n",   "G(T / HTTP/1.1\r\n", "GET / HTTP/1,1\r\n",  "\x16\x03\x01\x02",
                                         "\r\n\r\n\r\n\r\n\r\n", "GET /a b HTTP/1.1\r\n", "GET / HTTP/+1.1\r\n" };
    for (size_t i = 0; i < BW_COUNT(wrong); i++)
        check_request(wrong[i], "400 bad_request");
    check_request("GET / HTTP/2.0\r\n", "505 http_version");
    check_request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 http_version");
    check_request("GET / HTTP/1.2\r\n", "505 http_version");
}

TEST(line_ends_are_crlf_and_nothing_else)
{
    check_request("GET / HTTP/1.1\n" HOST "\n", "400 bad_request");
    check_request("GET / HTTP/1.1\rHost: x\r\n\r\n", "400 bad_request");
    check_request(GET "Host: x\n\r\n", "400 bad_request");
    check_request(GET "Host: x\rX: y\r\n\r\n", "400 bad_request");
    check_request(GET HOST "\r\r\n", "400 bad_request");
    check_request(GET HOST "\rX", "400 bad_request");
    check_request(GET HOST "A: b\x01\r\n\r\n", "400 bad_request");
    check_request(GET HOST "A: b\x7F\r\n\r\n", "400 bad_request");
    static const char nul[] = GET HOST "A: b\0c\r\n\r\n", nul_line[] = "GET /\0 HTTP/1.1\r\n" HOST "\r\n";
    check_bytes(bw_strict_default_limits(), nul, sizeof nul - 1, "400 bad_request");
    check_bytes(bw_strict_default_limits(), nul_line, sizeof nul_line - 1, "400 bad_request");
}

TEST(fields_that_could_be_read_in_two_ways_are_refused)
{
    static const char *const wrong[] = { "A : b", " A: b", "\tA: b", "A\t: b", ": b", "A", "A b: c", "A(: b", "\xC3\xA9: b" };
    for (size_t i = 0; i < BW_COUNT(wrong); i++) {
        char bytes[200];
        snprintf(bytes, sizeof bytes, GET HOST "%s\r\n\r\n", wrong[i]);
        check_request(bytes, "400 bad_request");
        snprintf(bytes, sizeof bytes, GET "%s\r\n" HOST "\r\n", wrong[i]);
        check_request(bytes, "400 bad_request");
    }
    check_request(GET HOST "A: b\r\n folded\r\n\r\n", "400 bad_request");
    check_request(GET HOST "A: b\r\n\tfolded\r\n\r\n", "400 bad_request");
}

TEST(there_is_one_host)
{
    check_request(GET "\r\n", "400 bad_request");
    check_request(GET HOST HOST "\r\n", "400 bad_request");
    check_request("GET / HTTP/1.0\r\n" HOST HOST "\r\n", "400 bad_request");
    check_request(GET "Host: a b\r\n\r\n", "400 bad_request");
    check_request(GET "Host: a,b\r\n\r\n", "400 bad_request");
    check_request(GET "Host: a/b\r\n\r\n", "400 bad_request");
    check_request(GET "Host: [::1]:80\r\n\r\n", "GET / 1.1 [Host=[::1]:80] {}");
    check_request(GET "Host:\r\n\r\n", "GET / 1.1 [Host=] {}");
}

TEST(lengths_are_plain_numbers_and_agree)
{
    static const char *const wrong[] = { "+5", "-5", "5 5", "5,5", "0x5", "5a", "", "\"5\"", "5.0", "5;" };
    for (size_t i = 0; i < BW_COUNT(wrong); i++) {
        char bytes[200];
        snprintf(bytes, sizeof bytes, POST "Content-Length: %s\r\n\r\nhello", wrong[i]);
        check_request(bytes, "400 bad_request");
    }
    check_request(POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "400 bad_request");
    check_request(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "400 bad_request");
    check_request(POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "400 bad_request");
    check_request(POST "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", "400 bad_request");
    check_request(POST "Content-Length : 5\r\n\r\nhello", "400 bad_request");
    check_request(POST "Content-Length: 99999999999999999999999999\r\n\r\n", "413 body_too_large");
    check_request(POST "Content-Length: 18446744073709551617\r\n\r\nx", "413 body_too_large");
}

TEST(chunked_bodies_are_put_together)
{
    check_request(POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
                  "POST / 1.1 [Host=x] [Transfer-Encoding=chunked] {abc0123456789}");
    check_request(POST "transfer-encoding: Chunked\r\n\r\n0000\r\nTrailer: x\r\n\r\n", "POST / 1.1 [Host=x] [transfer-encoding=Chunked] {}");
    static const char *const wrong[] = { "\r\n",       "g\r\n",      "-1\r\n",   "+1\r\n",     " 1\r\n",     "1 \r\n",    "0x1\r\n", "1\nab\r\n",
                                         "1\r\nab\r\n", "1\r\na\n",   "1\r\na\r\r", "1,2\r\n",    "1\r\na0\r\n\r\n", "1 ;x\r\n", "0\r\n bad\r\n\r\n",
                                         "0\r\nA : b\r\n\r\n", "0\r\nno-colon\r\n\r\n", "fffffffffffffffff\r\n", "00000000000000001\r\n" };
    for (size_t i = 0; i < BW_COUNT(wrong); i++) {
        char bytes[300];
        outcome o;
        snprintf(bytes, sizeof bytes, POST "Transfer-Encoding: chunked\r\n\r\n%s", wrong[i]);
        for (int most = 1; most < 400; most *= 3) {
            feed(&o, bw_strict_default_limits(), bytes, strlen(bytes), most);
            check_that(strstr(o.text, "! 400 bad_request") != NULL, "%s gives %s", wrong[i], o.text);
        }
    }
    check_request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 bad_request");
    check_request(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "400 bad_request");
    check_request(POST "Transfer-Encoding: gzip, chunked\r\n\r\n", "501 transfer_encoding");
    check_request(POST "Transfer-Encoding: xchunked\r\n\r\n", "501 transfer_encoding");
    check_request(POST "Transfer-Encoding: identity\r\n\r\n", "501 transfer_encoding");
    check_request(POST "Expect: tea\r\n\r\n", "417 expectation");
}

TEST(what_follows_a_request_is_left_alone)
{
    static const char bytes[] = POST "Content-Length: 2\r\n\r\nabGET / HTTP/1.1\r\n";
    outcome o;
    for (int most = 1; most < 200; most += 7) {
        feed(&o, bw_strict_default_limits(), bytes, sizeof bytes - 1, most);
        check_str(o.text, "POST / 1.1 [Host=x] [Content-Length=2] {ab}");
        check_int(o.used, sizeof bytes - 1 - 16);
    }
}

static char *repeat(const char *before, const char *piece, size_t times, const char *after)
{
    size_t n = strlen(piece), at = strlen(before);
    char *text = malloc(at + n * times + strlen(after) + 1);
    memcpy(text, before, at);
    for (size_t i = 0; i < times; i++)
        memcpy(text + at + i * n, piece, n);
    strcpy(text + at + n * times, after);
    return text;
}

static void check_refused(char *bytes, bw_strict_limits limits, const char *want)
{
    outcome o;
    feed(&o, limits, bytes, strlen(bytes), 1 << 20);
    check_str(o.text, want);
    feed(&o, limits, bytes, strlen(bytes), 999);
    check_str(o.text, want);
    free(bytes);
}

TEST(limits_hold_to_the_byte)
{
    const bw_strict_limits limits = bw_strict_default_limits();
    outcome o;
    const size_t beside = strlen("GET / HTTP/1.1") ; /* of a request line of 8192 bytes */
    char *fits = repeat("GET /", "a", 8192 - beside, " HTTP/1.1\r\n" HOST "\r\n");
    feed(&o, limits, fits, strlen(fits), 4096);
    check_that(strncmp(o.text, "GET /aaaa", 9) == 0, "a line of 8 KiB: %.60s", o.text);
    free(fits);
    check_refused(repeat("GET /", "a", 8193 - beside, " HTTP/1.1\r\n" HOST "\r\n"), limits, "414 uri_too_long");
    check_refused(repeat("", "a", 9000, ""), limits, "414 uri_too_long"); /* refused before its end */

    check_refused(repeat(GET HOST, "A: b\r\n", 100, "\r\n"), limits, "431 too_many_headers");
    fits = repeat(GET HOST, "A: b\r\n", 99, "\r\n");
    feed(&o, limits, fits, strlen(fits), 4096);
    check_that(strstr(o.text, "}") != NULL, "100 fields: %.60s", o.text);
    free(fits);
    check_refused(repeat(GET HOST "A: ", "x", 65536 - 9 - 5 + 1, "\r\n\r\n"), limits, "431 headers_too_large");
    fits = repeat(GET HOST "A: ", "x", 65536 - 9 - 5, "\r\n\r\n");
    bw_strict s;
    bw_strict_event event;
    bw_strict_init(&s, limits);
    check_int(bw_strict_feed(&s, fits, strlen(fits), &event), strlen(fits));
    check_int(event, BW_STRICT_HEAD);
    bw_strict_fini(&s);
    free(fits);

    bw_strict_limits small = limits;
    small.body = 10;
    check_bytes(small, POST "Content-Length: 11\r\n\r\n", strlen(POST "Content-Length: 11\r\n\r\n"), "413 body_too_large");
    static const char whole[] = POST "Content-Length: 10\r\n\r\n0123456789";
    check_bytes(small, whole, sizeof whole - 1, "POST / 1.1 [Host=x] [Content-Length=10] {0123456789}");
    static const char chunks[] = POST "Transfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n";
    check_bytes(small, chunks, sizeof chunks - 1, "POST / 1.1 [Host=x] [Transfer-Encoding=chunked] {012345! 413 body_too_large");
    char *extensions = repeat(POST "Transfer-Encoding: chunked\r\n\r\n", "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nz\r\n", 513, "");
    feed(&o, limits, extensions, strlen(extensions), 100); /* 32 bytes each: 16 KiB are 512 chunks */
    check_str(o.text + strcspn(o.text, "{") + 512, "z! 400 bad_request");
    free(extensions);
}

TEST(fields_are_found_without_regard_to_case)
{
    static const char request[] = GET HOST "X-Request-ID: 7\r\nx-request-id: 8\r\n\r\n";
    bw_strict s;
    bw_strict_event event;
    bw_strict_init(&s, bw_strict_default_limits());
    bw_strict_feed(&s, request, sizeof request - 1, &event);
    check_str(bw_strict_field(s.fields.data, s.n_fields, "x-REQUEST-id"), "7");
    check(bw_strict_field(s.fields.data, s.n_fields, "X-Request") == NULL);
    bw_strict_reset(&s);
    check(bw_strict_field(s.fields.data, s.n_fields, "Host") == NULL);
    check(!s.started);
    bw_strict_fini(&s);
}

TESTS_MAIN(ENTRY(ordinary_requests_are_read), ENTRY(targets_are_paths_whatever_form_they_come_in),
           ENTRY(request_lines_that_are_none_are_refused), ENTRY(line_ends_are_crlf_and_nothing_else),
           ENTRY(fields_that_could_be_read_in_two_ways_are_refused), ENTRY(there_is_one_host),
           ENTRY(lengths_are_plain_numbers_and_agree), ENTRY(chunked_bodies_are_put_together),
           ENTRY(what_follows_a_request_is_left_alone), ENTRY(limits_hold_to_the_byte),
           ENTRY(fields_are_found_without_regard_to_case))
