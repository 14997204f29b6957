/* An answer through the reasoning splitter and the tool-call parser, in one piece, byte by byte and
 * in pieces of odd sizes: the events must be the same. The first byte: 't' when thinking. Where the
 * second is '[', the rest of that line is the tools. */
#include <stdlib.h>
#include <string.h>

#include "text/bytes.h"
#include "text/reasoning.h"
#include "text/toolcall.h"
#include "text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char some_tools[] =
    "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"s\": {\"type\": \"string\"}, \"i\": {\"type\": \"integer\"}, "
    "\"n\": {\"type\": \"number\"}, \"b\": {\"type\": \"boolean\"}, \"o\": {\"type\": [\"object\", \"array\"]}}}}]";

typedef struct chain {
    bw_reasoning *reasoning;
    bw_toolcall *toolcall;
    bw_bytes log;
    int last; /* kind of the last entry, so that neighbours join */
} chain;

static void note(chain *c, int kind, const char *text, size_t n)
{
    if (kind != c->last || kind > 1)
        bw_bytes_add_char(&c->log, (char)kind);
    c->last = kind;
    bw_bytes_add(&c->log, text, n);
}

static void on_event(void *arg, const bw_toolcall_event *event)
{
    chain *c = arg;
    note(c, 1 + (int)event->kind, event->text, event->n_bytes);
    if (event->kind == BW_TOOLCALL_ARGUMENT) {
        if (bw_utf8_valid_prefix(event->value, event->value_bytes) != event->value_bytes)
            abort();
        bw_bytes_add(&c->log, event->value, event->value_bytes);
    }
    if (event->kind == BW_TOOLCALL_END)
        bw_bytes_add_char(&c->log, event->complete ? 'y' : 'n');
}

static void on_part(void *arg, bw_reply_part part, const char *text, size_t n)
{
    chain *c = arg;
    if (part == BW_REPLY_REASONING)
        note(c, 0, text, n);
    else if (bw_toolcall_push(c->toolcall, text, n, NULL))
        abort();
}

/* False: the tools are refused. piece: bytes of a push, 0 for all. */
static bool play(chain *c, const char *tools, size_t n_tools, bool thinking, const char *text, size_t n, size_t piece)
{
    *c = (chain){ .last = -1 };
    if (bw_toolcall_create(&c->toolcall, tools, n_tools, on_event, c, NULL))
        return false;
    if (bw_reasoning_create(&c->reasoning, thinking, on_part, c, NULL))
        abort();
    for (size_t at = 0; at < n;) {
        size_t length = piece && n - at > piece ? piece : n - at;
        char *copy = malloc(length); /* exactly sized: one byte too far is seen */
        if (!copy)
            abort();
        memcpy(copy, text + at, length);
        if (bw_reasoning_push(c->reasoning, copy, length, NULL))
            abort();
        free(copy);
        at += length;
    }
    bw_reasoning_finish(c->reasoning);
    if (bw_toolcall_finish(c->toolcall, NULL))
        abort();
    bw_reasoning_destroy(c->reasoning);
    bw_toolcall_destroy(c->toolcall);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const size_t pieces[] = { 1, 3, 17 };
    const char *text = (const char *)data, *tools = some_tools;
    size_t n_tools = strlen(some_tools);
    if (n == 0 || n > 20000)
        return 0;
    bool thinking = *text++ == 't';
    n--;
    const char *line_end = n && *text == '[' ? memchr(text, '\n', n) : NULL;
    if (line_end) {
        tools = text;
        n_tools = (size_t)(line_end - text);
        text = line_end + 1;
        n -= n_tools + 1;
    }
    chain whole, cut;
    if (!play(&whole, tools, n_tools, thinking, text, n, 0))
        return 0;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        if (!play(&cut, tools, n_tools, thinking, text, n, pieces[i]))
            abort();
        if (cut.log.n != whole.log.n || (cut.log.n && memcmp(cut.log.data, whole.log.data, cut.log.n) != 0))
            abort();
        bw_bytes_fini(&cut.log);
    }
    bw_bytes_fini(&whole.log);
    return 0;
}
