/* chat.c - see chat.h. First every message's content is rendered and stripped into one store, then
 * the turns are written straight down from it. */
#include "text/chat.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "text/pyjson.h"
#include "text/unicode.h"

/* ---- text that remembers who wrote it -------------------------------------------------------- */

typedef struct run {
    size_t end; /* where it ends in the text; it begins where the one before ends */
    bool is_markup;
} run;

typedef struct marked {
    bw_bytes text;
    bw_bytes runs; /* of struct run */
} marked;

static size_t n_runs(const marked *m)
{
    return m->runs.n / sizeof(run);
}

static const run *runs_of(const marked *m)
{
    return (const run *)(const void *)m->runs.data;
}

static void add(marked *m, bool is_markup, const char *text, size_t n)
{
    if (!n)
        return;
    bw_bytes_add(&m->text, text, n);
    if (m->text.failed)
        return;
    size_t count = n_runs(m);
    if (count && runs_of(m)[count - 1].is_markup == is_markup)
        m->runs.n -= sizeof(run);
    run last = { .end = m->text.n, .is_markup = is_markup };
    bw_bytes_add(&m->runs, &last, sizeof last);
}

static void markup(marked *m, const char *text)
{
    add(m, true, text, strlen(text));
}

static void body(marked *m, const char *text, size_t n)
{
    add(m, false, text, n);
}

/* Part of the store: [begin, end). run: the first one that reaches into it. */
typedef struct span {
    size_t begin, end, run;
} span;

static void add_span(marked *to, const marked *from, span s)
{
    for (size_t i = s.run, at = s.begin; at < s.end; i++) {
        const run *r = &runs_of(from)[i];
        size_t end = r->end < s.end ? r->end : s.end;
        if (end > at) {
            add(to, r->is_markup, from->text.data + at, end - at);
            at = end;
        }
    }
}

/* ---- Python's string operations -------------------------------------------------------------- */

/* Bytes of the white space (Python's str.isspace) at p, 0 when there is none. */
static size_t space_length(const unsigned char *p, size_t n)
{
    if (n >= 1 && ((p[0] >= 0x09 && p[0] <= 0x0D) || (p[0] >= 0x1C && p[0] <= 0x20)))
        return 1;
    if (n >= 2 && p[0] == 0xC2 && (p[1] == 0x85 || p[1] == 0xA0)) /* U+0085 U+00A0 */
        return 2;
    if (n < 3)
        return 0;
    if (p[0] == 0xE1 && p[1] == 0x9A && p[2] == 0x80) /* U+1680 */
        return 3;
    if (p[0] == 0xE2 && p[1] == 0x80 && ((p[2] >= 0x80 && p[2] <= 0x8A) || p[2] == 0xA8 || p[2] == 0xA9 || p[2] == 0xAF))
        return 3; /* U+2000-200A U+2028 U+2029 U+202F */
    if (p[0] == 0xE2 && p[1] == 0x81 && p[2] == 0x9F) /* U+205F */
        return 3;
    return p[0] == 0xE3 && p[1] == 0x80 && p[2] == 0x80 ? 3 : 0; /* U+3000 */
}

static span strip(const char *text, span s)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t n;
    while ((n = s.begin < s.end ? space_length(p + s.begin, s.end - s.begin) : 0))
        s.begin += n;
    while (s.end > s.begin) {
        for (n = 1; n <= 3 && n <= s.end - s.begin; n++)
            if (space_length(p + s.end - n, n) == n)
                break;
        if (n > 3 || n > s.end - s.begin)
            break;
        s.end -= n;
    }
    return s;
}

/* Where needle first (or last) begins in text[s], SIZE_MAX when nowhere. */
static size_t find(const char *text, span s, const char *needle, bool last)
{
    size_t n = strlen(needle), found = SIZE_MAX;
    for (size_t at = s.begin; at < s.end && s.end - at >= n; at++) {
        const char *p = memchr(text + at, needle[0], s.end - at - n + 1);
        if (!p)
            break;
        at = (size_t)(p - text);
        if (memcmp(p, needle, n) == 0) {
            found = at;
            if (!last)
                break;
        }
    }
    return found;
}

static bool starts_with(const char *text, span s, const char *what)
{
    size_t n = strlen(what);
    return s.end - s.begin >= n && memcmp(text + s.begin, what, n) == 0;
}

static bool ends_with(const char *text, span s, const char *what)
{
    size_t n = strlen(what);
    return s.end - s.begin >= n && memcmp(text + s.end - n, what, n) == 0;
}

/* ---- the request ----------------------------------------------------------------------------- */

typedef enum role { SYSTEM, USER, ASSISTANT, TOOL } role;

typedef struct message {
    role role;
    span content; /* stripped, in the store */
    const bw_json *json;
} message;

typedef struct render {
    bw_chat_variant variant;
    const bw_json *tools; /* NULL: none */
    bool generation_prompt, thinking, preserve, vision_id;
    const char *effort; /* sentence on reasoning effort, "" for none */
    message *messages;
    size_t n_messages, last_query;
    int n_images, n_videos;
    marked store, out;
    bw_error *err;
} render;

static bw_status wrong_type(bw_error *err, const char *path, const bw_json *found, const char *expected)
{
    return bw_fail(err, BW_E_ARGUMENT, "%s: found %s, expected %s", path, bw_json_kind_name(found), expected);
}

/* A member that is there and not null. */
static const bw_json *given(const bw_json *object, const char *key)
{
    const bw_json *value = bw_json_get(object, key);
    return value && value->kind != BW_JSON_NULL ? value : NULL;
}

static bw_status read_flag(const bw_json *request, const char *key, bool *flag, bw_error *err)
{
    const bw_json *value = given(request, key);
    if (!value)
        return BW_OK;
    if (value->kind != BW_JSON_BOOL)
        return wrong_type(err, key, value, "true or false");
    *flag = value->is_true;
    return BW_OK;
}

static bw_status read_effort(render *r, const bw_json *request)
{
    static const char high[] = "Reasoning effort is set to xhigh. Please think carefully through the task, validate key "
                               "assumptions, consider plausible alternatives, and prioritize correctness, consistency, "
                               "and clarity in the final answer.";
    static const char low[] = "Reasoning effort is set to low. Keep your thinking brief and focused, moving directly to "
                              "the conclusion without unnecessary elaboration.";
    const bw_json *effort = given(request, "reasoning_effort");
    char quoted[64];
    r->effort = "";
    if (r->variant != BW_CHAT_38 || !r->thinking)
        return BW_OK;
    if (!effort || bw_json_is(effort, "xhigh"))
        r->effort = high;
    else if (bw_json_is(effort, "low"))
        r->effort = low;
    else if (!bw_json_is(effort, "medium"))
        return effort->kind == BW_JSON_STRING
                   ? bw_fail(r->err, BW_E_ARGUMENT, "reasoning_effort: Unexpected reasoning effort %s, expected xhigh, medium or low",
                             bw_text_quote(quoted, sizeof quoted, effort->text, effort->n_bytes))
                   : wrong_type(r->err, "reasoning_effort", effort, "xhigh, medium or low");
    return BW_OK;
}

static bw_status read_options(render *r, const bw_json *request)
{
    bw_status st;
    r->generation_prompt = r->thinking = true;
    r->preserve = r->variant == BW_CHAT_38;
    if ((st = read_flag(request, "add_generation_prompt", &r->generation_prompt, r->err)) ||
        (st = read_flag(request, "enable_thinking", &r->thinking, r->err)) ||
        (st = read_flag(request, "preserve_thinking", &r->preserve, r->err)) ||
        (st = read_flag(request, "add_vision_id", &r->vision_id, r->err)) || (st = read_effort(r, request)))
        return st;
    if (r->variant == BW_CHAT_35)
        r->preserve = false;

    const bw_json *tools = given(request, "tools");
    if (!tools)
        return BW_OK;
    if (tools->kind != BW_JSON_ARRAY)
        return wrong_type(r->err, "tools", tools, "an array");
    size_t i = 0;
    for (const bw_json *tool = tools->first; tool; tool = tool->next, i++) {
        char path[64];
        snprintf(path, sizeof path, "tools[%zu]", i);
        if (tool->kind != BW_JSON_OBJECT)
            return wrong_type(r->err, path, tool, "an object");
    }
    r->tools = tools->n_items ? tools : NULL;
    return BW_OK;
}

/* ---- contents -------------------------------------------------------------------------------- */

static void vision_part(render *r, const char *name, int number, const char *placeholder)
{
    char label[48];
    snprintf(label, sizeof label, "%s %d: ", name, number);
    if (r->vision_id)
        markup(&r->store, label);
    markup(&r->store, placeholder);
}

static bw_status read_part(render *r, const bw_json *part, bool is_system, const char *path)
{
    if (part->kind != BW_JSON_OBJECT)
        return wrong_type(r->err, path, part, "an object such as {\"type\": \"text\", \"text\": \"...\"}");
    const bw_json *type = bw_json_get(part, "type"), *text = bw_json_get(part, "text");
    char quoted[64] = "none";
    if (type && type->kind == BW_JSON_STRING)
        bw_text_quote(quoted, sizeof quoted, type->text, type->n_bytes);
    bool image = bw_json_get(part, "image") || bw_json_get(part, "image_url") || bw_json_is(type, "image");
    bool video = !image && (bw_json_get(part, "video") || bw_json_is(type, "video"));
    if ((image || video) && is_system)
        return bw_fail(r->err, BW_E_ARGUMENT, "%s: System message cannot contain %s", path, image ? "images." : "videos.");
    if (image) {
        vision_part(r, "Picture", ++r->n_images, "<|vision_start|><|image_pad|><|vision_end|>");
    } else if (video) {
        vision_part(r, "Video", ++r->n_videos, "<|vision_start|><|video_pad|><|vision_end|>");
    } else if (!text) {
        return bw_fail(r->err, BW_E_ARGUMENT, "%s: Unexpected item type in content. (Type %s; expected a member text, image or video.)",
                       path, quoted);
    } else if (text->kind != BW_JSON_STRING) {
        return bw_fail(r->err, BW_E_ARGUMENT, "%s.text: found %s, expected a string", path, bw_json_kind_name(text));
    } else {
        body(&r->store, text->text, text->n_bytes);
    }
    return BW_OK;
}

static bw_status read_content(render *r, const bw_json *content, message *m, size_t index)
{
    bw_status st = BW_OK;
    char path[80];
    m->content = (span){ .begin = r->store.text.n, .run = n_runs(&r->store) };
    if (m->content.run)
        m->content.run--; /* the last run may grow into this content */
    if (content && content->kind == BW_JSON_STRING) {
        body(&r->store, content->text, content->n_bytes);
    } else if (content && content->kind == BW_JSON_ARRAY) {
        size_t i = 0;
        for (const bw_json *part = content->first; part && !st; part = part->next, i++) {
            snprintf(path, sizeof path, "messages[%zu].content[%zu]", index, i);
            st = read_part(r, part, m->role == SYSTEM, path);
        }
    } else if (content && content->kind != BW_JSON_NULL) {
        snprintf(path, sizeof path, "messages[%zu].content", index);
        st = wrong_type(r->err, path, content, "a string, an array of parts or null");
    }
    m->content.end = r->store.text.n;
    if (!r->store.text.failed)
        m->content = strip(r->store.text.data, m->content);
    return st;
}

static bw_status read_message(render *r, const bw_json *json, size_t index)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool" };
    char path[64], quoted[64];
    message *m = &r->messages[index];
    m->json = json;
    snprintf(path, sizeof path, "messages[%zu]", index);
    if (json->kind != BW_JSON_OBJECT)
        return wrong_type(r->err, path, json, "an object");
    const bw_json *name = bw_json_get(json, "role");
    snprintf(path, sizeof path, "messages[%zu].role", index);
    if (!name || name->kind != BW_JSON_STRING)
        return wrong_type(r->err, path, name, "a string");
    size_t i = 0;
    while (i < BW_COUNT(roles) && !bw_json_is(name, roles[i]))
        i++;
    if (i == BW_COUNT(roles))
        return bw_fail(r->err, BW_E_ARGUMENT, "%s: Unexpected message role. (Found %s; expected system, user, assistant or tool.)",
                       path, bw_text_quote(quoted, sizeof quoted, name->text, name->n_bytes));
    m->role = (role)i;
    if (m->role == SYSTEM && index > 0)
        return bw_fail(r->err, BW_E_ARGUMENT, "%s: System message must be at the beginning.", path);
    return read_content(r, bw_json_get(json, "content"), m, index);
}

static bw_status read_messages(render *r, const bw_json *request)
{
    const bw_json *messages = given(request, "messages");
    if (messages && messages->kind != BW_JSON_ARRAY)
        return wrong_type(r->err, "messages", messages, "an array");
    if (!messages || !messages->n_items)
        return bw_fail(r->err, BW_E_ARGUMENT, "messages: No messages provided.");
    r->messages = bw_mem_zalloc(messages->n_items, sizeof *r->messages, BW_MEM_TEXT);
    if (!r->messages)
        return bw_fail_memory(r->err, "messages", messages->n_items * sizeof *r->messages);
    r->n_messages = messages->n_items;

    size_t i = 0;
    bool has_query = false;
    for (const bw_json *json = messages->first; json; json = json->next, i++) {
        bw_status st = read_message(r, json, i);
        if (st)
            return st;
        if (r->store.text.failed || r->store.runs.failed)
            return bw_fail_memory(r->err, "the contents of the messages", r->store.text.n);
        const message *m = &r->messages[i];
        const char *text = r->store.text.data;
        if (m->role == USER &&
            !(starts_with(text, m->content, "<tool_response>") && ends_with(text, m->content, "</tool_response>"))) {
            has_query = true;
            r->last_query = i;
        }
    }
    if (!has_query)
        return bw_fail(r->err, BW_E_ARGUMENT, "messages: No user query found in messages.");
    return BW_OK;
}

/* ---- turns ----------------------------------------------------------------------------------- */

static void print_json(marked *out, const bw_json *value)
{
    bw_bytes text = { 0 };
    bw_json_print(&text, value);
    body(out, text.data, text.n);
    out->text.failed = out->text.failed || text.failed;
    bw_bytes_fini(&text);
}

static void write_tools(render *r)
{
    markup(&r->out, "# Tools\n\nYou have access to the following functions:\n\n<tools>");
    for (const bw_json *tool = r->tools->first; tool; tool = tool->next) {
        markup(&r->out, "\n");
        print_json(&r->out, tool);
    }
    markup(&r->out,
           "\n</tools>\n\n"
           "If you choose to call a function ONLY reply in the following format with NO suffix:\n\n"
           "<tool_call>\n<function=example_function_name>\n"
           "<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
           "<parameter=example_parameter_2>\n"
           "This is the value for the second parameter\nthat can span\nmultiple lines\n"
           "</parameter>\n</function>\n</tool_call>\n\n"
           "<IMPORTANT>\nReminder:\n"
           "- Function calls MUST follow the specified format: an inner <function=...></function> block must be "
           "nested within <tool_call></tool_call> XML tags\n"
           "- Required parameters MUST be specified\n"
           "- You may provide optional reasoning for your function call in natural language BEFORE the function call, "
           "but NOT after\n"
           "- If there is no function call available, answer the question like normal with your current knowledge and "
           "do not tell the user about function calls\n"
           "</IMPORTANT>");
}

static void write_system(render *r)
{
    const message *first = &r->messages[0];
    const bool is_system = first->role == SYSTEM;
    const bool has_content = is_system && first->content.end > first->content.begin;
    const bool has_effort = r->effort[0];
    if (!r->tools && !has_effort && !has_content && (!is_system || r->variant == BW_CHAT_38))
        return;
    markup(&r->out, "<|im_start|>system\n");
    markup(&r->out, r->effort);
    if (r->tools) {
        markup(&r->out, has_effort ? "\n\n" : "");
        write_tools(r);
    }
    if (has_content) {
        markup(&r->out, has_effort || r->tools ? "\n\n" : "");
        add_span(&r->out, &r->store, first->content);
    }
    markup(&r->out, "<|im_end|>\n");
}

/* Strings raw; all else as JSON, where 3.5 prints what is no container as Python does. */
static void write_value(render *r, const bw_json *value)
{
    if (value->kind == BW_JSON_STRING)
        body(&r->out, value->text, value->n_bytes);
    else if (r->variant == BW_CHAT_35 && value->kind == BW_JSON_NULL)
        body(&r->out, "None", 4);
    else if (r->variant == BW_CHAT_35 && value->kind == BW_JSON_BOOL)
        body(&r->out, value->is_true ? "True" : "False", value->is_true ? 4 : 5);
    else
        print_json(&r->out, value);
}

static bw_status write_arguments(render *r, const bw_json *arguments, const char *path)
{
    bw_pyjson *document = NULL;
    bw_status st = BW_OK;
    char what[128];
    snprintf(what, sizeof what, "%s.arguments", path);
    if (arguments && arguments->kind == BW_JSON_STRING) { /* as clients of the usual API send it */
        if (!arguments->n_bytes)
            return BW_OK;
        if ((st = bw_pyjson_parse(&document, &arguments, arguments->text, arguments->n_bytes, what, r->err))) {
            if (st == BW_E_FORMAT) {
                st = BW_E_ARGUMENT;
                if (r->err)
                    r->err->status = st;
            }
            return st;
        }
    }
    if (arguments && arguments->kind != BW_JSON_OBJECT) {
        st = wrong_type(r->err, what, arguments, "an object, or a string that holds one");
    } else {
        for (const bw_json *value = arguments ? arguments->first : NULL; value; value = value->next) {
            markup(&r->out, "<parameter=");
            body(&r->out, value->key, value->key_bytes);
            markup(&r->out, ">\n");
            write_value(r, value);
            markup(&r->out, "\n</parameter>\n");
        }
    }
    bw_pyjson_free(document);
    return st;
}

static bw_status write_call(render *r, const bw_json *call, const char *path)
{
    if (call->kind != BW_JSON_OBJECT)
        return wrong_type(r->err, path, call, "an object");
    char inner[112];
    const bw_json *function = bw_json_get(call, "function");
    snprintf(inner, sizeof inner, "%s%s", path, function ? ".function" : "");
    if (function && function->kind != BW_JSON_OBJECT)
        return wrong_type(r->err, inner, function, "an object");
    if (!function)
        function = call;
    const bw_json *name = bw_json_get(function, "name");
    if (!name || name->kind != BW_JSON_STRING) {
        char what[128];
        snprintf(what, sizeof what, "%s.name", inner);
        return wrong_type(r->err, what, name, "a string");
    }
    markup(&r->out, "<tool_call>\n<function=");
    body(&r->out, name->text, name->n_bytes);
    markup(&r->out, ">\n");
    bw_status st = write_arguments(r, bw_json_get(function, "arguments"), inner);
    markup(&r->out, "</function>\n</tool_call>");
    return st;
}

static bw_status write_assistant(render *r, const message *m, size_t index)
{
    char path[80];
    const char *text = r->store.text.data;
    const bw_json *given_reasoning = given(m->json, "reasoning_content"), *calls = given(m->json, "tool_calls");
    span content = m->content, reasoning = { 0 };
    if (given_reasoning && given_reasoning->kind != BW_JSON_STRING) {
        snprintf(path, sizeof path, "messages[%zu].reasoning_content", index);
        return wrong_type(r->err, path, given_reasoning, "a string or null");
    }
    if (calls && calls->kind != BW_JSON_ARRAY) {
        snprintf(path, sizeof path, "messages[%zu].tool_calls", index);
        return wrong_type(r->err, path, calls, "an array or null");
    }
    size_t close = SIZE_MAX;
    if (!given_reasoning && r->variant != BW_CHAT_38 && (close = find(text, content, "</think>", false)) != SIZE_MAX) {
        reasoning = (span){ .begin = content.begin, .end = close, .run = content.run };
        size_t open = find(text, reasoning, "<think>", true);
        if (open != SIZE_MAX)
            reasoning.begin = open + strlen("<think>");
        reasoning = strip(text, reasoning);
        content.begin = find(text, content, "</think>", true) + strlen("</think>");
        while (content.begin < content.end && text[content.begin] == '\n')
            content.begin++;
    }
    markup(&r->out, "<|im_start|>assistant\n");
    if (r->preserve || index > r->last_query) {
        markup(&r->out, "<think>\n");
        if (given_reasoning) {
            span s = strip(given_reasoning->text, (span){ .end = given_reasoning->n_bytes });
            body(&r->out, given_reasoning->text + s.begin, s.end - s.begin);
        } else {
            add_span(&r->out, &r->store, reasoning);
        }
        markup(&r->out, "\n</think>\n\n");
    }
    add_span(&r->out, &r->store, content);
    content = strip(text, content);
    size_t i = 0;
    for (const bw_json *call = calls ? calls->first : NULL; call; call = call->next, i++) {
        snprintf(path, sizeof path, "messages[%zu].tool_calls[%zu]", index, i);
        markup(&r->out, i > 0 ? "\n" : content.end > content.begin ? "\n\n" : "");
        bw_status st = write_call(r, call, path);
        if (st)
            return st;
    }
    markup(&r->out, "<|im_end|>\n");
    return BW_OK;
}

static void write_result(render *r, size_t index)
{
    if (index > 0 && r->messages[index - 1].role != TOOL)
        markup(&r->out, "<|im_start|>user");
    markup(&r->out, "\n<tool_response>\n");
    add_span(&r->out, &r->store, r->messages[index].content);
    markup(&r->out, "\n</tool_response>");
    if (index + 1 == r->n_messages || r->messages[index + 1].role != TOOL)
        markup(&r->out, "<|im_end|>\n");
}

static bw_status write_turns(render *r)
{
    write_system(r);
    for (size_t i = 0; i < r->n_messages; i++) {
        const message *m = &r->messages[i];
        bw_status st = BW_OK;
        if (m->role == USER) {
            markup(&r->out, "<|im_start|>user\n");
            add_span(&r->out, &r->store, m->content);
            markup(&r->out, "<|im_end|>\n");
        } else if (m->role == ASSISTANT) {
            st = write_assistant(r, m, i);
        } else if (m->role == TOOL) {
            write_result(r, i);
        }
        if (st)
            return st;
    }
    if (r->generation_prompt)
        markup(&r->out, r->thinking ? "<|im_start|>assistant\n<think>\n"
                                    : "<|im_start|>assistant\n<think>\n\n</think>\n\n");
    return BW_OK;
}

/* ---- the door -------------------------------------------------------------------------------- */

/* Hands r->out over to *out. */
static bw_status take_prompt(render *r, bw_chat_prompt *out)
{
    size_t n = n_runs(&r->out), from = 0;
    if (r->out.text.failed || r->out.runs.failed)
        return bw_fail_memory(r->err, "the prompt", r->out.text.n);
    bw_chat_segment *segments = bw_mem_zalloc(n, sizeof *segments, BW_MEM_TEXT);
    if (!segments)
        return bw_fail_memory(r->err, "the segments of the prompt", n * sizeof *segments);
    for (size_t i = 0; i < n; i++) {
        const run *s = &runs_of(&r->out)[i];
        segments[i] = (bw_chat_segment){ r->out.text.data + from, s->end - from, s->is_markup };
        from = s->end;
    }
    *out = (bw_chat_prompt){ r->out.text.data, r->out.text.n, segments, n, r->generation_prompt && r->thinking };
    r->out.text = (bw_bytes){ 0 };
    return BW_OK;
}

bw_status bw_chat_render(bw_chat_prompt *out, bw_chat_variant variant, const char *request, size_t n_bytes,
                         bw_error *err)
{
    *out = (bw_chat_prompt){ 0 };
    render r = { .variant = variant, .err = err };
    bw_pyjson *document = NULL;
    const bw_json *root;
    bw_status st = bw_pyjson_parse(&document, &root, request, n_bytes, "the request", err);
    if (st)
        return st;
    if (root->kind != BW_JSON_OBJECT)
        st = wrong_type(err, "the request", root, "an object with a member messages");
    if (st || (st = read_options(&r, root)) || (st = read_messages(&r, root)) || (st = write_turns(&r)))
        goto done;
    st = take_prompt(&r, out);
done:
    bw_bytes_fini(&r.store.text);
    bw_bytes_fini(&r.store.runs);
    bw_bytes_fini(&r.out.text);
    bw_bytes_fini(&r.out.runs);
    bw_mem_free(r.messages);
    bw_pyjson_free(document);
    return st;
}

void bw_chat_prompt_fini(bw_chat_prompt *prompt)
{
    bw_mem_free(prompt->text);
    bw_mem_free(prompt->segments);
    *prompt = (bw_chat_prompt){ 0 };
}
