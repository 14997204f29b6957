/* stream.c - see stream.h and bellwether.h. */
#include "text/stream.h"

#include <string.h>

#include "base/mem.h"
#include "text/bytes.h"
#include "text/detokenizer.h"

struct bw_stream {
    bw_detokenizer *detokenizer;
    bw_bytes stops;            /* all stop strings, one after the other */
    size_t ends[BW_MAX_STOPS]; /* where each ends in stops */
    int n_stops;
    bw_bytes held, out; /* text that may still begin a stop string; what the last call gave */
    bool stopped;
};

bw_status bw_stream_create_from(bw_stream **out, const bw_tokenizer *tokenizer, const char *const *stops, int n_stops,
                                bool skip_special, bw_error *err)
{
    *out = NULL;
    if (n_stops < 0 || n_stops > BW_MAX_STOPS)
        return bw_fail(err, BW_E_ARGUMENT, "%d stop strings: expected 0 to %d", n_stops, BW_MAX_STOPS);
    for (int i = 0; i < n_stops; i++)
        if (!stops[i] || !stops[i][0] || strlen(stops[i]) > BW_MAX_STOP_BYTES)
            return bw_fail(err, BW_E_ARGUMENT, "stop string %d has %zu bytes: expected 1 to %d", i + 1,
                           stops[i] ? strlen(stops[i]) : 0, BW_MAX_STOP_BYTES);
    bw_stream *s = bw_mem_zalloc(1, sizeof *s, BW_MEM_TEXT);
    if (!s)
        return bw_fail_memory(err, "a stream of text", sizeof *s);
    for (int i = 0; i < n_stops; i++) {
        bw_bytes_add_str(&s->stops, stops[i]);
        s->ends[s->n_stops++] = s->stops.n;
    }
    bw_status st = s->stops.failed ? bw_fail_memory(err, "stop strings", BW_MAX_STOP_BYTES)
                                   : bw_detokenizer_create(&s->detokenizer, tokenizer, skip_special, err);
    if (st)
        bw_stream_destroy(s);
    else
        *out = s;
    return st;
}

void bw_stream_destroy(bw_stream *s)
{
    if (!s)
        return;
    bw_detokenizer_destroy(s->detokenizer);
    bw_bytes_fini(&s->stops);
    bw_bytes_fini(&s->held);
    bw_bytes_fini(&s->out);
    bw_mem_free(s);
}

static const char *stop_at(const bw_stream *s, int i, size_t *n)
{
    size_t start = i ? s->ends[i - 1] : 0;
    *n = s->ends[i] - start;
    return s->stops.data + start;
}

/* Where the text held ends: before the first stop string that is whole, looking only at those that
 * end after n_old. False: none. */
static bool find_stop(const bw_stream *s, size_t n_old, size_t *cut)
{
    for (size_t end = n_old + 1; end <= s->held.n; end++) {
        size_t longest = 0, n;
        for (int i = 0; i < s->n_stops; i++) {
            const char *stop = stop_at(s, i, &n);
            if (n > longest && n <= end && memcmp(s->held.data + end - n, stop, n) == 0)
                longest = n;
        }
        *cut = end - longest;
        if (longest)
            return true;
    }
    return false;
}

/* Bytes at the end that may begin a stop string. */
static size_t undecided(const bw_stream *s)
{
    size_t most = 0, n;
    for (int i = 0; i < s->n_stops; i++) {
        const char *stop = stop_at(s, i, &n);
        size_t k = n - 1 < s->held.n ? n - 1 : s->held.n;
        while (k > most && memcmp(s->held.data + s->held.n - k, stop, k) != 0)
            k--;
        if (k > most)
            most = k;
    }
    return most;
}

/* Takes new text and hands out what is certain; at the end that is all. */
static bw_status take(bw_stream *s, const char *fresh, size_t n_fresh, bool end, const char **text, size_t *n_bytes,
                      bw_error *err)
{
    size_t n_old = s->held.n, certain;
    bw_bytes_drop(&s->out, s->out.n);
    bw_bytes_add(&s->held, fresh, n_fresh);
    if (s->held.failed)
        return bw_fail_memory(err, "a stream of text", n_old + n_fresh);
    if (find_stop(s, n_old, &certain))
        s->stopped = true;
    else
        certain = end ? s->held.n : s->held.n - undecided(s);
    bw_bytes_add(&s->out, s->held.n ? s->held.data : "", certain);
    if (s->out.failed)
        return bw_fail_memory(err, "a stream of text", certain);
    bw_bytes_drop(&s->held, s->stopped ? s->held.n : certain);
    *text = s->out.data ? s->out.data : "";
    *n_bytes = s->out.n;
    return BW_OK;
}

bw_status bw_stream_push(bw_stream *s, int32_t token, const char **text, size_t *n_bytes, bool *stopped, bw_error *err)
{
    const char *fresh = "";
    size_t n_fresh = 0;
    *text = "";
    *n_bytes = 0;
    *stopped = s->stopped;
    if (s->stopped)
        return BW_OK;
    bw_status st = bw_detokenizer_push(s->detokenizer, token, &fresh, &n_fresh, err);
    if (!st)
        st = take(s, fresh, n_fresh, false, text, n_bytes, err);
    *stopped = s->stopped;
    return st;
}

bw_status bw_stream_finish(bw_stream *s, const char **text, size_t *n_bytes, bw_error *err)
{
    const char *fresh;
    size_t n_fresh;
    *text = "";
    *n_bytes = 0;
    if (s->stopped)
        return BW_OK;
    bw_detokenizer_finish(s->detokenizer, &fresh, &n_fresh);
    bw_status st = take(s, fresh, n_fresh, true, text, n_bytes, err);
    s->stopped = true;
    return st;
}
