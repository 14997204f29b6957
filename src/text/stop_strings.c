/* stop_strings.c - see stop_strings.h. */
#include "text/stop_strings.h"

#include <string.h>

#include "base/mem.h"
#include "text/bytes.h"

struct bw_stop_strings {
    bw_bytes stops;            /* all stop strings, one after the other */
    size_t ends[BW_MAX_STOPS]; /* where each ends in stops */
    int n_stops, met;
    bw_bytes held, out; /* text that may still begin a stop string; what the last call gave */
};

bw_status bw_stop_strings_create(bw_stop_strings **out, const char *const *stops, int n_stops, bw_error *err)
{
    *out = NULL;
    if (n_stops < 0 || n_stops > BW_MAX_STOPS)
        return bw_fail(err, BW_E_ARGUMENT, "%d stop strings: expected 0 to %d", n_stops, BW_MAX_STOPS);
    for (int i = 0; i < n_stops; i++)
        if (!stops[i] || !stops[i][0] || strlen(stops[i]) > BW_MAX_STOP_BYTES)
            return bw_fail(err, BW_E_ARGUMENT, "stop string %d has %zu bytes: expected 1 to %d", i + 1,
                           stops[i] ? strlen(stops[i]) : 0, BW_MAX_STOP_BYTES);
    bw_stop_strings *s = bw_mem_zalloc(1, sizeof *s, BW_MEM_TEXT);
    if (!s)
        return bw_fail_memory(err, "stop strings", sizeof *s);
    s->met = -1;
    for (int i = 0; i < n_stops; i++) {
        bw_bytes_add_str(&s->stops, stops[i]);
        s->ends[s->n_stops++] = s->stops.n;
    }
    if (s->stops.failed) {
        bw_stop_strings_destroy(s);
        return bw_fail_memory(err, "stop strings", BW_MAX_STOP_BYTES);
    }
    *out = s;
    return BW_OK;
}

void bw_stop_strings_destroy(bw_stop_strings *s)
{
    if (!s)
        return;
    bw_bytes_fini(&s->stops);
    bw_bytes_fini(&s->held);
    bw_bytes_fini(&s->out);
    bw_mem_free(s);
}

int bw_stop_strings_met(const bw_stop_strings *s)
{
    return s->met;
}

static const char *stop_at(const bw_stop_strings *s, int i, size_t *n)
{
    size_t start = i ? s->ends[i - 1] : 0;
    *n = s->ends[i] - start;
    return s->stops.data + start;
}

/* Where the text held ends: before the first stop string that is whole, looking only at those that
 * end after n_old. False: none. */
static bool find_stop(bw_stop_strings *s, size_t n_old, size_t *cut)
{
    for (size_t end = n_old + 1; end <= s->held.n; end++) {
        size_t longest = 0, n;
        for (int i = 0; i < s->n_stops; i++) {
            const char *stop = stop_at(s, i, &n);
            if (n > longest && n <= end && memcmp(s->held.data + end - n, stop, n) == 0) {
                longest = n;
                s->met = i;
            }
        }
        *cut = end - longest;
        if (longest)
            return true;
    }
    return false;
}

/* Bytes at the end that may begin a stop string. */
static size_t undecided(const bw_stop_strings *s)
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

bw_status bw_stop_strings_take(bw_stop_strings *s, const char *fresh, size_t n_fresh, bool end, const char **text,
                               size_t *n_bytes, bw_error *err)
{
    size_t n_old = s->held.n, certain;
    *text = "";
    *n_bytes = 0;
    if (s->met >= 0)
        return BW_OK;
    bw_bytes_drop(&s->out, s->out.n);
    bw_bytes_add(&s->held, fresh, n_fresh);
    if (s->held.failed)
        return bw_fail_memory(err, "a stream of text", n_old + n_fresh);
    if (!find_stop(s, n_old, &certain))
        certain = end ? s->held.n : s->held.n - undecided(s);
    bw_bytes_add(&s->out, s->held.n ? s->held.data : "", certain);
    if (s->out.failed)
        return bw_fail_memory(err, "a stream of text", certain);
    bw_bytes_drop(&s->held, s->met >= 0 ? s->held.n : certain);
    *text = s->out.data ? s->out.data : "";
    *n_bytes = s->out.n;
    return BW_OK;
}
