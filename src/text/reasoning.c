/* reasoning.c - see reasoning.h. */
#include "text/reasoning.h"

#include <string.h>

#include "base/mem.h"
#include "text/bytes.h"
#include "text/lookahead.h"

typedef enum state {
    START,   /* nothing decided: white space and <think> may come */
    TRIM,    /* line ends before the reasoning or the content */
    THOUGHT, /* reasoning until something ends it */
    CONTENT  /* content until the end */
} state;

struct bw_reasoning {
    state state;
    bool thinking; /* inside the block: what comes next is reasoning */
    bw_reply_fn fn;
    void *arg;
    bw_bytes pending; /* not yet decided */
};

bw_status bw_reasoning_create(bw_reasoning **out, bool thinking, bw_reply_fn fn, void *arg, bw_error *err)
{
    *out = NULL;
    bw_reasoning *r = bw_mem_zalloc(1, sizeof *r, BW_MEM_TEXT);
    if (!r)
        return bw_fail_memory(err, "the reasoning splitter", sizeof *r);
    *r = (bw_reasoning){ .thinking = thinking, .fn = fn, .arg = arg };
    *out = r;
    return BW_OK;
}

void bw_reasoning_destroy(bw_reasoning *reasoning)
{
    if (!reasoning)
        return;
    bw_bytes_fini(&reasoning->pending);
    bw_mem_free(reasoning);
}

static void emit(const bw_reasoning *r, const char *text, size_t n)
{
    if (n)
        r->fn(r->arg, r->thinking ? BW_REPLY_REASONING : BW_REPLY_CONTENT, text, n);
}

static state after_start(const bw_reasoning *r)
{
    return r->thinking ? THOUGHT : CONTENT;
}

/* Does <tool_call> and, after white space, <function stand here? */
static bw_look call_starts(bw_view v, size_t at)
{
    bw_look look = bw_look_at(v, at, "<tool_call>");
    if (look != BW_LOOK_YES)
        return look;
    at += strlen("<tool_call>");
    look = bw_look_past_space(v, &at);
    return look == BW_LOOK_YES ? bw_look_at(v, at, "<function") : look;
}

/* Delivers reasoning up to what is undecided or ends it; returns the bytes done with. */
static size_t think(bw_reasoning *r, bw_view v)
{
    for (size_t at = 0; at < v.n;) {
        size_t kept, end;
        const char *next = strpbrk(v.text + at, "\n<"); /* stops at a NUL: */
        if (!next) {
            size_t length = strlen(v.text + at);
            if (at + length == v.n)
                break;
            at += length + 1;
            continue;
        }
        at = (size_t)(next - v.text);
        bw_look_line_ends(v, at, &kept, &end);
        bw_look close = end == v.n ? (v.final ? BW_LOOK_NO : BW_LOOK_WAIT) : bw_look_at(v, end, "</think>");
        bw_look call = end == v.n ? BW_LOOK_NO : call_starts(v, end);
        if (close == BW_LOOK_YES || call == BW_LOOK_YES) {
            emit(r, v.text, kept);
            r->thinking = false;
            r->state = close == BW_LOOK_YES ? TRIM : CONTENT;
            return close == BW_LOOK_YES ? end + strlen("</think>") : end;
        }
        if (close == BW_LOOK_WAIT || call == BW_LOOK_WAIT) {
            emit(r, v.text, kept);
            return kept;
        }
        at = end < v.n && v.text[end] == '<' ? end + 1 : end;
    }
    emit(r, v.text, v.n);
    return v.n;
}

/* One decision; returns the bytes done with. 0 without a change of state: wait for more. */
static size_t step(bw_reasoning *r, bw_view v)
{
    size_t at = 0;
    bw_look look;
    switch (r->state) {
    case START:
        look = bw_look_past_space(v, &at);
        if (look == BW_LOOK_YES)
            look = bw_look_at(v, at, "<think>");
        if (look == BW_LOOK_WAIT)
            return 0;
        if (look == BW_LOOK_YES) {
            r->state = TRIM;
            return at + strlen("<think>");
        }
        r->state = r->thinking ? TRIM : after_start(r);
        return 0;
    case TRIM:
        while (at < v.n && v.text[at] == '\n')
            at++;
        if (at < v.n)
            r->state = after_start(r);
        return at;
    case THOUGHT:
        return think(r, v);
    case CONTENT:
        emit(r, v.text, v.n);
        return v.n;
    }
    return 0;
}

static void run(bw_reasoning *r, bool final)
{
    size_t at = 0;
    for (;;) {
        state before = r->state;
        size_t n = step(r, (bw_view){ r->pending.data + at, r->pending.n - at, final });
        at += n;
        if (at == r->pending.n || (n == 0 && r->state == before))
            break;
    }
    bw_bytes_drop(&r->pending, at);
}

bw_status bw_reasoning_push(bw_reasoning *reasoning, const char *text, size_t n_bytes, bw_error *err)
{
    if (!n_bytes)
        return BW_OK;
    bw_bytes_add(&reasoning->pending, text, n_bytes);
    if (reasoning->pending.failed) {
        reasoning->pending.failed = false;
        return bw_fail_memory(err, "the reasoning splitter", n_bytes);
    }
    run(reasoning, false);
    return BW_OK;
}

void bw_reasoning_finish(bw_reasoning *reasoning)
{
    if (reasoning->pending.n)
        run(reasoning, true);
}
