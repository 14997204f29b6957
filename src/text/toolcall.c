/* toolcall.c - see toolcall.h.
 *
 *            <tool_call> <function=NAME>           <parameter=KEY>
 *     TEXT ------------------------------> CALL ------------------> VALUE
 *       ^                                  |  ^                       |
 *       +---------- CLOSED <---------------+  +-----------------------+
 *       </tool_call>        </function>             </parameter>
 *
 * `pending` holds what is not decided; `scanned` of it is known to hold no end of the value. */
#include "text/toolcall.h"

#include <string.h>

#include "base/mem.h"
#include "text/bytes.h"
#include "text/lookahead.h"
#include "text/pyjson.h"
#include "text/toolcall_value.h"

enum { MAX_NAME = 256 };

typedef enum state { TEXT, CALL, VALUE, CLOSED } state;

struct bw_toolcall {
    state state;
    bool after_call; /* TEXT: line ends that come now belong to the call before */
    bool stray;      /* CALL: inside text that belongs to no tag */
    bool fresh;      /* VALUE: its first line end is not yet looked at */
    size_t scanned;
    bw_pyjson *document;
    const bw_json *tools;
    const bw_json *schemas; /* properties of the open call's tool, or NULL */
    bw_bytes key, seen;     /* of the open value; names set in the open call, NUL after each */
    bw_bytes pending, value;
    bool failed; /* out of memory where a flag of the buffers does not say so */
    bw_toolcall_fn fn;
    void *arg;
};

/* ---- the tools ------------------------------------------------------------------------------- */

static bool equal(const bw_json *string, const char *text, size_t n)
{
    return string && string->kind == BW_JSON_STRING && string->n_bytes == n && memcmp(string->text, text, n) == 0;
}

/* The tool called name, the object that holds its name and parameters; NULL: none. */
static const bw_json *find_tool(const bw_toolcall *t, const char *name, size_t n)
{
    for (const bw_json *tool = t->tools ? t->tools->first : NULL; tool; tool = tool->next) {
        const bw_json *function = bw_json_get(tool, "function");
        function = function ? function : tool;
        if (equal(bw_json_get(function, "name"), name, n))
            return function;
    }
    return NULL;
}

static const bw_json *find_schema(const bw_toolcall *t, const char *key, size_t n)
{
    for (const bw_json *s = t->schemas ? t->schemas->first : NULL; s; s = s->next)
        if (s->key_bytes == n && memcmp(s->key, key, n) == 0)
            return s;
    return NULL;
}

static bool was_seen(const bw_toolcall *t, const char *key, size_t n)
{
    for (size_t at = 0; at < t->seen.n;) {
        size_t length = strlen(t->seen.data + at);
        if (length == n && memcmp(t->seen.data + at, key, n) == 0)
            return true;
        at += length + 1;
    }
    return false;
}

bw_status bw_toolcall_create(bw_toolcall **out, const char *tools_json, size_t n_bytes, bw_toolcall_fn fn, void *arg,
                             bw_error *err)
{
    *out = NULL;
    bw_toolcall *t = bw_mem_zalloc(1, sizeof *t, BW_MEM_TEXT);
    if (!t)
        return bw_fail_memory(err, "the tool-call parser", sizeof *t);
    *t = (bw_toolcall){ .fn = fn, .arg = arg };
    bw_status st = BW_OK;
    if (n_bytes && (st = bw_pyjson_parse(&t->document, &t->tools, tools_json, n_bytes, "tools", err)))
        goto fail;
    if (t->tools && t->tools->kind != BW_JSON_ARRAY) {
        st = bw_fail(err, BW_E_ARGUMENT, "tools: found %s, expected an array", bw_json_kind_name(t->tools));
        goto fail;
    }
    *out = t;
    return BW_OK;
fail:
    bw_toolcall_destroy(t);
    return st;
}

void bw_toolcall_destroy(bw_toolcall *toolcall)
{
    if (!toolcall)
        return;
    bw_bytes_fini(&toolcall->key);
    bw_bytes_fini(&toolcall->seen);
    bw_bytes_fini(&toolcall->pending);
    bw_bytes_fini(&toolcall->value);
    bw_pyjson_free(toolcall->document);
    bw_mem_free(toolcall);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void emit_text(const bw_toolcall *t, const char *text, size_t n)
{
    bw_toolcall_event event = { .kind = BW_TOOLCALL_TEXT, .text = text, .n_bytes = n };
    if (n)
        t->fn(t->arg, &event);
}

/* Opens the call of the function called name. */
static void start_call(bw_toolcall *t, const char *name, size_t n)
{
    const bw_json *tool = find_tool(t, name, n), *parameters = bw_json_get(tool, "parameters");
    const bw_json *properties = bw_json_get(parameters, "properties");
    t->schemas = properties && properties->kind == BW_JSON_OBJECT ? properties : NULL;
    t->seen.n = t->value.n = 0;
    bw_json_add_utf8(&t->value, name, n);
    t->state = CALL;
    t->stray = false;
    if (t->value.failed)
        return;
    bw_toolcall_event event = { .kind = BW_TOOLCALL_START, .text = t->value.data, .n_bytes = t->value.n };
    t->fn(t->arg, &event);
}

static void emit_argument(bw_toolcall *t, const char *value, size_t n)
{
    t->value.n = 0;
    bw_toolcall_print_value(&t->value, find_schema(t, t->key.data, t->key.n), value, n);
    bw_bytes_add(&t->seen, t->key.data, t->key.n + 1);
    if (t->value.failed || t->seen.failed)
        return;
    bw_toolcall_event event = { .kind = BW_TOOLCALL_ARGUMENT,
                                .text = t->key.data,
                                .n_bytes = t->key.n,
                                .value = t->value.data,
                                .value_bytes = t->value.n };
    t->fn(t->arg, &event);
}

static void end_call(bw_toolcall *t, bool complete)
{
    bw_toolcall_event event = { .kind = BW_TOOLCALL_END, .complete = complete };
    t->fn(t->arg, &event);
}

/* ---- tags ------------------------------------------------------------------------------------ */

typedef struct tag {
    size_t name, n_name; /* where its name stands */
    size_t end;          /* behind its '>' */
} tag;

/* open, such as "<function=", a name of 1 to MAX_NAME bytes without <, > and line ends, and '>'. */
static bw_look look_tag(bw_view v, size_t at, const char *open, tag *found)
{
    bw_look look = bw_look_at(v, at, open);
    if (look != BW_LOOK_YES)
        return look;
    found->name = at + strlen(open);
    for (size_t i = found->name;; i++) {
        if (i - found->name > MAX_NAME)
            return BW_LOOK_NO;
        if (i == v.n)
            return v.final ? BW_LOOK_NO : BW_LOOK_WAIT;
        char c = v.text[i];
        if (c == '>' && i > found->name) {
            found->n_name = i - found->name;
            found->end = i + 1;
            return BW_LOOK_YES;
        }
        if (c == '<' || c == '>' || c == '\n' || c == '\r' || c == '\0')
            return BW_LOOK_NO;
    }
}

static bw_look look_call(const bw_toolcall *t, bw_view v, size_t at, tag *found)
{
    bw_look wrapped = bw_look_at(v, at, "<tool_call>");
    if (wrapped == BW_LOOK_YES) {
        at += strlen("<tool_call>");
        bw_look space = bw_look_past_space(v, &at);
        return space == BW_LOOK_YES ? look_tag(v, at, "<function=", found) : space;
    }
    bw_look bare = look_tag(v, at, "<function=", found);
    if (bare == BW_LOOK_YES && !find_tool(t, v.text + found->name, found->n_name))
        bare = BW_LOOK_NO;
    return bw_look_either(wrapped, bare);
}

/* </function> and behind it what may follow a call: its end, another call, the end of all. */
static bw_look look_function_end(bw_view v, size_t at)
{
    bw_look look = bw_look_at(v, at, "</function>");
    if (look != BW_LOOK_YES)
        return look;
    at += strlen("</function>");
    if ((look = bw_look_past_space(v, &at)) != BW_LOOK_YES)
        return look;
    if (at == v.n)
        return BW_LOOK_YES;
    look = bw_look_either(bw_look_at(v, at, "</tool_call>"), bw_look_at(v, at, "<tool_call>"));
    return bw_look_either(look, bw_look_at(v, at, "<function="));
}

/* </parameter> and behind it what may follow a parameter. */
static bw_look look_parameter_end(bw_view v, size_t at)
{
    bw_look look = bw_look_at(v, at, "</parameter>");
    if (look != BW_LOOK_YES)
        return look;
    at += strlen("</parameter>");
    if ((look = bw_look_past_space(v, &at)) != BW_LOOK_YES)
        return look;
    if (at == v.n)
        return BW_LOOK_YES;
    look = bw_look_either(bw_look_at(v, at, "<parameter="), look_function_end(v, at));
    return bw_look_either(look, bw_look_at(v, at, "</tool_call>"));
}

/* <parameter=KEY> at the start of a line, KEY of this tool and not yet set: the one before it was
 * not closed. */
static bw_look look_next_parameter(const bw_toolcall *t, bw_view v, size_t at)
{
    tag found;
    if (at > 0 && v.text[at - 1] != '\n')
        return BW_LOOK_NO;
    bw_look look = look_tag(v, at, "<parameter=", &found);
    if (look != BW_LOOK_YES)
        return look;
    const char *key = v.text + found.name;
    bool is_open = t->key.n == found.n_name && memcmp(t->key.data, key, found.n_name) == 0;
    return find_schema(t, key, found.n_name) && !is_open && !was_seen(t, key, found.n_name) ? BW_LOOK_YES : BW_LOOK_NO;
}

/* ---- the machine: each step returns the bytes it is done with -------------------------------- */

static size_t step_text(bw_toolcall *t, bw_view v)
{
    size_t at = 0;
    if (t->after_call) {
        while (at < v.n && v.text[at] == '\n')
            at++;
        t->after_call = at == v.n;
        return at;
    }
    while (at < v.n) {
        size_t kept, end;
        tag found;
        if (v.text[at] != '\n' && v.text[at] != '<') {
            at++;
            continue;
        }
        bw_look_line_ends(v, at, &kept, &end);
        bw_look call = end == v.n ? (v.final ? BW_LOOK_NO : BW_LOOK_WAIT) : look_call(t, v, end, &found);
        if (call != BW_LOOK_NO)
            emit_text(t, v.text, kept);
        if (call == BW_LOOK_YES) {
            start_call(t, v.text + found.name, found.n_name);
            return found.end;
        }
        if (call == BW_LOOK_WAIT)
            return kept;
        at = end < v.n && v.text[end] == '<' ? end + 1 : end;
    }
    emit_text(t, v.text, v.n);
    return v.n;
}

static size_t step_call(bw_toolcall *t, bw_view v)
{
    size_t at = 0;
    tag found;
    if (!t->stray)
        while (at < v.n && strchr(" \t\r\n", v.text[at]) && v.text[at])
            at++;
    if (at == v.n)
        return at;
    if (v.text[at] == '<') {
        bw_look parameter = look_tag(v, at, "<parameter=", &found), function = bw_look_at(v, at, "</function>");
        bw_look wrapper = bw_look_at(v, at, "</tool_call>");
        if (parameter == BW_LOOK_YES) {
            t->key.n = 0;
            bw_json_add_utf8(&t->key, v.text + found.name, found.n_name);
            t->state = VALUE;
            t->stray = false;
            t->fresh = true;
            t->scanned = 0;
            return found.end;
        }
        if (function == BW_LOOK_YES || wrapper == BW_LOOK_YES) {
            end_call(t, true);
            t->state = CLOSED;
            return function == BW_LOOK_YES ? at + strlen("</function>") : at;
        }
        bw_look call = look_call(t, v, at, &found);
        if (call == BW_LOOK_YES) {
            end_call(t, true);
            start_call(t, v.text + found.name, found.n_name);
            return found.end;
        }
        if (bw_look_either(bw_look_either(parameter, function), bw_look_either(wrapper, call)) == BW_LOOK_WAIT)
            return at;
    }
    /* Text where a tag should be: not lost, and not looked into. */
    size_t from = at++;
    while (at < v.n && v.text[at] != '<')
        at++;
    t->stray = true;
    emit_text(t, v.text + from, at - from);
    return at;
}

/* The value is v.text[0, end); behind it the call goes on at `next`. */
static size_t close_value(bw_toolcall *t, bw_view v, size_t end, size_t next)
{
    if (end && v.text[end - 1] == '\n')
        end--;
    emit_argument(t, v.text, end);
    t->state = CALL;
    return next;
}

/* The answer ended and no end of the value is beyond doubt: the first one that could be it. */
static size_t last_resort(bw_toolcall *t, bw_view v)
{
    for (size_t at = 0; at < v.n; at++) {
        if (v.text[at] != '<')
            continue;
        if (bw_look_at(v, at, "</parameter>") == BW_LOOK_YES) {
            size_t next = at + strlen("</parameter>"), after = next;
            if (bw_look_past_space(v, &after) == BW_LOOK_YES && bw_look_at(v, after, "</function>") == BW_LOOK_YES)
                return close_value(t, v, at, next);
        } else if (bw_look_at(v, at, "</function>") == BW_LOOK_YES || bw_look_at(v, at, "</tool_call>") == BW_LOOK_YES) {
            return close_value(t, v, at, at);
        }
    }
    emit_argument(t, v.text, v.n);
    t->state = CALL;
    return v.n;
}

static size_t step_value(bw_toolcall *t, bw_view v)
{
    if (t->fresh && v.n == 0 && !v.final)
        return 0;
    if (t->fresh) {
        t->fresh = false;
        if (v.n && v.text[0] == '\n')
            return 1;
    }
    for (; t->scanned < v.n; t->scanned++) {
        const char *next = memchr(v.text + t->scanned, '<', v.n - t->scanned);
        if (!next) {
            t->scanned = v.n;
            break;
        }
        size_t at = t->scanned = (size_t)(next - v.text);
        bw_look parameter = look_parameter_end(v, at), function = look_function_end(v, at);
        bw_look another = look_next_parameter(t, v, at);
        if (parameter == BW_LOOK_YES)
            return close_value(t, v, at, at + strlen("</parameter>"));
        if (function == BW_LOOK_YES || another == BW_LOOK_YES)
            return close_value(t, v, at, at);
        if (bw_look_either(parameter, bw_look_either(function, another)) == BW_LOOK_WAIT)
            return 0;
    }
    return v.final ? last_resort(t, v) : 0;
}

static size_t step_closed(bw_toolcall *t, bw_view v)
{
    size_t at = 0;
    bw_look look = bw_look_past_space(v, &at);
    if (look == BW_LOOK_YES)
        look = bw_look_at(v, at, "</tool_call>");
    if (look == BW_LOOK_WAIT)
        return 0;
    t->state = TEXT;
    t->after_call = true;
    return look == BW_LOOK_YES ? at + strlen("</tool_call>") : 0;
}

static bool broken(const bw_toolcall *t)
{
    return t->failed || t->pending.failed || t->value.failed || t->key.failed || t->seen.failed;
}

static bw_status run(bw_toolcall *t, bool final, bw_error *err)
{
    size_t at = 0;
    while (!broken(t)) {
        const bw_toolcall before = *t;
        bw_view v = { t->pending.data + at, t->pending.n - at, final };
        size_t n = t->state == TEXT ? step_text(t, v) : t->state == CALL ? step_call(t, v)
                 : t->state == VALUE ? step_value(t, v) : step_closed(t, v);
        at += n;
        if (n == 0 && t->state == before.state && t->after_call == before.after_call && t->fresh == before.fresh)
            break;
    }
    if (broken(t)) {
        t->failed = true;
        return bw_fail_memory(err, "the tool-call parser", t->pending.n);
    }
    bw_bytes_drop(&t->pending, at);
    return BW_OK;
}

bw_status bw_toolcall_push(bw_toolcall *toolcall, const char *text, size_t n_bytes, bw_error *err)
{
    bw_bytes_add(&toolcall->pending, text, n_bytes);
    return run(toolcall, false, err);
}

bw_status bw_toolcall_finish(bw_toolcall *toolcall, bw_error *err)
{
    bw_bytes_add(&toolcall->pending, "", 0); /* so that the views have a text to point into */
    bw_status st = run(toolcall, true, err);
    if (st)
        return st;
    if (toolcall->state == CALL)
        end_call(toolcall, false);
    toolcall->state = TEXT;
    return BW_OK;
}
