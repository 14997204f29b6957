/* Requests on one connection, through the strict machine: whole, byte by byte and cut by the input's own
 * first byte they come to the same, and what is taken keeps the rules: bodies of the length announced,
 * fields that are token and text, no request after a refusal.
 *
 * Seeds: requests of SDKs, curl and proxies, and one for each rule that refuses. */
#include <stdlib.h>
#include <string.h>

#include "server/http_strict.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* What happened, as a number that every event and byte of a body changes. */
typedef struct summary {
    uint64_t hash;
    size_t used;
    int n_requests, status;
} summary;

static void mix(summary *s, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s->hash = (s->hash ^ (unsigned char)bytes[i]) * 0x100000001B3u;
}

static void mix_head(summary *sum, const bw_strict *s)
{
    const char *at = s->fields.data;
    if (!s->method || !s->method[0] || (s->target[0] != '/' && strcmp(s->target, "*") != 0) || s->n_fields > s->limits.fields)
        abort();
    mix(sum, s->method, strlen(s->method) + 1);
    mix(sum, s->target, strlen(s->target) + 1);
    for (int i = 0; i < 2 * s->n_fields; i++) {
        const size_t n = strlen(at);
        if (strpbrk(at, "\r\n") || (i % 2 == 0 && (n == 0 || strpbrk(at, " \t:"))))
            abort();
        mix(sum, at, n + 1);
        at += n + 1;
    }
    if (at != (s->fields.data ? s->fields.data + s->fields.n : NULL))
        abort();
    if (s->minor == 1 && !bw_strict_field(s->fields.data, s->n_fields, "Host"))
        abort();
    if (s->chunked && (s->has_length || s->minor == 0))
        abort();
}

static summary read_all(const char *bytes, size_t n, size_t piece)
{
    bw_strict_limits limits = { .line = 512, .headers = 2048, .fields = 20, .body = 4096 };
    bw_strict_event event = BW_STRICT_MORE;
    bw_strict s;
    summary sum = { .hash = 0xCBF29CE484222325u };
    bw_strict_init(&s, limits);
    while (event != BW_STRICT_REFUSED && (sum.used < n || event != BW_STRICT_MORE)) {
        const size_t room = n - sum.used, now = room < piece ? room : piece;
        const size_t used = bw_strict_feed(&s, bytes + sum.used, now, &event);
        if (used > now || (event == BW_STRICT_MORE && used != now))
            abort();
        if (event == BW_STRICT_HEAD)
            mix_head(&sum, &s);
        else if (event == BW_STRICT_BODY)
            mix(&sum, bytes + sum.used, used);
        if (s.n_body > limits.body || (s.has_length && s.n_body > s.length))
            abort();
        sum.used += used;
        if (event == BW_STRICT_DONE) {
            if (!s.chunked && s.n_body != s.length)
                abort();
            mix(&sum, "|", 1);
            sum.n_requests++;
            bw_strict_reset(&s);
        }
    }
    if (event == BW_STRICT_REFUSED) {
        sum.status = s.status;
        if (s.status < 400 || s.status > 505 || !s.code || !s.message || bw_strict_feed(&s, bytes, n, &event) != 0 ||
            event != BW_STRICT_REFUSED)
            abort();
        sum.used = 0; /* how much of a line was looked at before the refusal depends on the pieces */
    }
    bw_strict_fini(&s);
    return sum;
}

static void must_agree(summary a, summary b)
{
    if (a.hash != b.hash || a.used != b.used || a.n_requests != b.n_requests || a.status != b.status)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    const char *bytes = (const char *)data + 1;
    const summary whole = read_all(bytes, n - 1, n);
    must_agree(read_all(bytes, n - 1, 1), whole);
    must_agree(read_all(bytes, n - 1, (size_t)data[0] + 1), whole);
    return 0;
}
