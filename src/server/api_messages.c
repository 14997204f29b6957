/* api_messages.c - messages of the OpenAI dialect to those the chat format takes. Checks everything with
 * the client's own numbering, because system messages are moved; writes JSON. No state; any thread. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "server/api_prompt.h"

typedef struct writer {
    bw_bytes system; /* text of all system and developer messages */
    bool has_system, has_other;
    bw_bytes turns;  /* the other messages, JSON, separated by commas */
    bw_late_system late;
    bw_api_error *err;
} writer;

/* ---- content ------------------------------------------------------------------------------------- */

/* The text of a part; *text NULL with *err filled when it is none. */
static const bw_json *part_text(const bw_json *json, const bw_api_object *message, size_t index)
{
    static const struct kind {
        const char *type, *member;
    } kinds[] = { { "text", "text" }, { "input_text", "text" }, { "output_text", "text" }, { "refusal", "refusal" } };
    char path[128];
    snprintf(path, sizeof path, "%s.content[%zu]", message->path, index);
    const bw_api_object part = { json, path, message->err };
    const bw_json *type, *text;
    if (json->kind != BW_JSON_OBJECT)
        return bw_api_wrong_type(&part, NULL, json, "an object such as {\"type\": \"text\", \"text\": \"...\"}"), NULL;
    if (!bw_api_get(&part, "type", BW_JSON_STRING, &type))
        return NULL;
    const char *member = type ? NULL : "text";
    for (size_t i = 0; i < BW_COUNT(kinds) && type; i++)
        if (bw_json_is(type, kinds[i].type))
            member = kinds[i].member;
    if (member) {
        if (!bw_api_get(&part, member, BW_JSON_STRING, &text))
            return NULL;
        return text ? text : (bw_api_wrong_type(&part, member, NULL, "a string"), NULL);
    }
    if (bw_json_is(type, "image_url") || bw_json_is(type, "input_image") || bw_json_is(type, "image"))
        bw_api_unsupported(&part, NULL, "this version reads text only, no images: leave the part out");
    else
        bw_api_unsupported(&part, NULL, "parts of type %s are not taken, expected text", bw_api_quote(type).text);
    return NULL;
}

/* Adds the content's text, parts joined without anything between them. */
static bool read_content(bw_bytes *out, const bw_api_object *message)
{
    const bw_json *content = bw_api_member(message, "content");
    if (!content)
        return true;
    if (content->kind == BW_JSON_STRING) {
        bw_bytes_add(out, content->text, content->n_bytes);
        return true;
    }
    if (content->kind != BW_JSON_ARRAY)
        return bw_api_wrong_type(message, "content", content, "a string, an array of parts or null");
    size_t i = 0;
    for (const bw_json *part = content->first; part; part = part->next, i++) {
        const bw_json *text = part_text(part, message, i);
        if (!text)
            return false;
        bw_bytes_add(out, text->text, text->n_bytes);
    }
    return true;
}

/* , "content": "..." */
static bool write_content(writer *w, const bw_api_object *message)
{
    bw_bytes text = { 0 };
    const bool ok = read_content(&text, message);
    bw_bytes_add_str(&w->turns, ", \"content\": ");
    bw_json_print_string(&w->turns, text.data ? text.data : "", text.n);
    w->turns.failed |= text.failed;
    bw_bytes_fini(&text);
    return ok;
}

/* ---- assistant ----------------------------------------------------------------------------------- */

/* Clients send reasoning back under the name they read it from, one of them under both. */
static bool write_reasoning(writer *w, const bw_api_object *message)
{
    static const char *const members[] = { "reasoning_content", "reasoning" };
    const bw_json *first = NULL;
    for (size_t i = 0; i < BW_COUNT(members); i++) {
        const bw_json *text;
        if (!bw_api_get(message, members[i], BW_JSON_STRING, &text))
            return false;
        if (!first && text && text->n_bytes)
            first = text;
    }
    if (first) {
        bw_bytes_add_str(&w->turns, ", \"reasoning_content\": ");
        bw_json_print(&w->turns, first);
    }
    return true;
}

/* The arguments as an object: it is one, or a string that holds one. */
static bool write_arguments(writer *w, const bw_api_object *function)
{
    const bw_json *arguments = bw_api_member(function, "arguments");
    bw_pyjson *document = NULL;
    bw_error found;
    if (arguments && arguments->kind == BW_JSON_STRING && arguments->n_bytes) {
        char path[256];
        snprintf(path, sizeof path, "%s.arguments", function->path);
        const bw_status st = bw_pyjson_parse(&document, &arguments, arguments->text, arguments->n_bytes, path, &found);
        if (st)
            return bw_api_fail_from(w->err, path, &found);
    } else if (arguments && arguments->kind == BW_JSON_STRING) {
        arguments = NULL; /* "": a call without arguments */
    }
    const bool ok = !arguments || arguments->kind == BW_JSON_OBJECT ||
                    bw_api_wrong_type(function, "arguments", arguments, "an object, or a string that holds one");
    bw_bytes_add_str(&w->turns, ", \"arguments\": ");
    if (ok && arguments)
        bw_json_print(&w->turns, arguments);
    else
        bw_bytes_add_str(&w->turns, "{}");
    bw_pyjson_free(document);
    return ok;
}

static bool write_call(writer *w, const bw_api_object *message, const bw_json *json, size_t index)
{
    char path[128], inner[160];
    snprintf(path, sizeof path, "%s.tool_calls[%zu]", message->path, index);
    snprintf(inner, sizeof inner, "%s.function", path);
    const bw_api_object call = { json, path, w->err };
    const bw_json *id, *type, *name;
    bw_api_object function = { NULL, inner, w->err };
    if (json->kind != BW_JSON_OBJECT)
        return bw_api_wrong_type(&call, NULL, json, "an object");
    if (!bw_api_get(&call, "id", BW_JSON_STRING, &id) || !bw_api_get(&call, "type", BW_JSON_STRING, &type) ||
        !bw_api_get(&call, "function", BW_JSON_OBJECT, &function.json))
        return false;
    if (type && !bw_json_is(type, "function"))
        return bw_api_unsupported(&call, "type", "found %s, expected \"function\"", bw_api_quote(type).text);
    if (!function.json)
        return bw_api_wrong_type(&call, "function", NULL, "an object");
    if (!bw_api_get(&function, "name", BW_JSON_STRING, &name))
        return false;
    if (!name || !name->n_bytes)
        return bw_api_invalid(&function, "name", "found %s, expected the function's name", name ? "an empty string" : "nothing");
    bw_bytes_add_str(&w->turns, index ? ", {\"function\": {\"name\": " : "{\"function\": {\"name\": ");
    bw_json_print(&w->turns, name);
    if (!write_arguments(w, &function))
        return false;
    bw_bytes_add_str(&w->turns, "}}");
    return true;
}

static bool write_calls(writer *w, const bw_api_object *message)
{
    const bw_json *calls;
    if (!bw_api_get(message, "tool_calls", BW_JSON_ARRAY, &calls))
        return false;
    if (!calls || !calls->n_items)
        return true;
    bw_bytes_add_str(&w->turns, ", \"tool_calls\": [");
    size_t i = 0;
    for (const bw_json *call = calls->first; call; call = call->next, i++)
        if (!write_call(w, message, call, i))
            return false;
    bw_bytes_add_char(&w->turns, ']');
    return true;
}

/* ---- messages ------------------------------------------------------------------------------------ */

/* All system text becomes one: a blank line between what the messages say. */
static bool take_system(writer *w, const bw_api_object *message)
{
    bw_bytes text = { 0 };
    if (w->has_other && w->late == BW_LATE_SYSTEM_ERROR)
        return bw_api_invalid(message, "role", "System message must be at the beginning.");
    if (w->has_other && bw_api_first_time("a late system message"))
        bw_log(BW_LOG_INFO, "%s is a system message after the conversation began: it joins the first (said once)", message->path);
    const bool ok = read_content(&text, message);
    if (text.n && w->system.n)
        bw_bytes_add_str(&w->system, "\n\n");
    bw_bytes_add(&w->system, text.data, text.n);
    w->system.failed |= text.failed;
    w->has_system = true;
    bw_bytes_fini(&text);
    return ok;
}

static bool write_turn(writer *w, const bw_api_object *message, const char *role)
{
    bw_bytes_add_str(&w->turns, w->has_other ? ", {\"role\": \"" : "{\"role\": \"");
    bw_bytes_add_str(&w->turns, role);
    bw_bytes_add_char(&w->turns, '"');
    w->has_other = true;
    if (!write_content(w, message))
        return false;
    if (strcmp(role, "assistant") == 0 && (!write_reasoning(w, message) || !write_calls(w, message)))
        return false;
    bw_bytes_add_char(&w->turns, '}');
    return true;
}

static bool read_message(writer *w, const bw_json *json, size_t index)
{
    static const char *const roles[] = { "user", "assistant", "tool" };
    char path[64];
    snprintf(path, sizeof path, "messages[%zu]", index);
    const bw_api_object message = { json, path, w->err };
    const bw_json *role, *ignored;
    if (json->kind != BW_JSON_OBJECT)
        return bw_api_wrong_type(&message, NULL, json, "an object with role and content");
    if (!bw_api_get(&message, "role", BW_JSON_STRING, &role) || !bw_api_get(&message, "name", BW_JSON_STRING, &ignored) ||
        !bw_api_get(&message, "tool_call_id", BW_JSON_STRING, &ignored))
        return false;
    if (!role)
        return bw_api_wrong_type(&message, "role", NULL, "a string");
    if (bw_json_is(role, "system") || bw_json_is(role, "developer"))
        return take_system(w, &message);
    for (size_t i = 0; i < BW_COUNT(roles); i++)
        if (bw_json_is(role, roles[i]))
            return write_turn(w, &message, roles[i]);
    return bw_api_invalid(&message, "role", "found %s, expected system, developer, user, assistant or tool", bw_api_quote(role).text);
}

bool bw_api_read_messages(bw_bytes *out, const bw_api_object *body, bw_late_system late)
{
    writer w = { .late = late, .err = body->err };
    const bw_json *messages;
    if (!bw_api_get(body, "messages", BW_JSON_ARRAY, &messages))
        return false;
    if (!messages || !messages->n_items)
        return bw_api_invalid(body, "messages", "found %s, expected at least one message", messages ? "an empty array" : "nothing");
    bool ok = true;
    size_t i = 0;
    for (const bw_json *json = messages->first; json && ok; json = json->next, i++)
        ok = read_message(&w, json, i);
    bw_bytes_add_char(out, '[');
    if (w.has_system) {
        bw_bytes_add_str(out, "{\"role\": \"system\", \"content\": ");
        bw_json_print_string(out, w.system.data ? w.system.data : "", w.system.n);
        bw_bytes_add_str(out, w.has_other ? "}, " : "}");
    }
    bw_bytes_add(out, w.turns.data, w.turns.n);
    bw_bytes_add_char(out, ']');
    out->failed |= w.system.failed || w.turns.failed;
    bw_bytes_fini(&w.system);
    bw_bytes_fini(&w.turns);
    return ok && (!out->failed || bw_api_fail_memory(body->err));
}
