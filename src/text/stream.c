/* stream.c - see stream.h and bellwether.h. */
#include "text/stream.h"

#include "base/mem.h"
#include "text/detokenizer.h"

struct bw_stream {
    bw_detokenizer *detokenizer;
    bw_stop_strings *stops;
    bool ended;
};

bw_status bw_stream_create_from(bw_stream **out, const bw_tokenizer *tokenizer, const char *const *stops, int n_stops,
                                bool skip_special, bw_error *err)
{
    *out = NULL;
    bw_stream *s = bw_mem_zalloc(1, sizeof *s, BW_MEM_TEXT);
    if (!s)
        return bw_fail_memory(err, "a stream of text", sizeof *s);
    bw_status st = bw_stop_strings_create(&s->stops, stops, n_stops, err);
    if (!st)
        st = bw_detokenizer_create(&s->detokenizer, tokenizer, skip_special, err);
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
    bw_stop_strings_destroy(s->stops);
    bw_mem_free(s);
}

static bool stopped(const bw_stream *s)
{
    return s->ended || bw_stop_strings_met(s->stops) >= 0;
}

bw_status bw_stream_push(bw_stream *s, int32_t token, const char **text, size_t *n_bytes, bool *met, bw_error *err)
{
    const char *fresh = "";
    size_t n_fresh = 0;
    *text = "";
    *n_bytes = 0;
    *met = stopped(s);
    if (*met)
        return BW_OK;
    bw_status st = bw_detokenizer_push(s->detokenizer, token, &fresh, &n_fresh, err);
    if (!st)
        st = bw_stop_strings_take(s->stops, fresh, n_fresh, false, text, n_bytes, err);
    *met = stopped(s);
    return st;
}

bw_status bw_stream_finish(bw_stream *s, const char **text, size_t *n_bytes, bw_error *err)
{
    const char *fresh;
    size_t n_fresh;
    *text = "";
    *n_bytes = 0;
    if (stopped(s))
        return BW_OK;
    bw_detokenizer_finish(s->detokenizer, &fresh, &n_fresh);
    s->ended = true;
    return bw_stop_strings_take(s->stops, fresh, n_fresh, true, text, n_bytes, err);
}
