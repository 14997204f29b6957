/* api_tools.c - tools and tool_choice of the OpenAI dialect. Never changes a tool: the chat format prints
 * it as it came. No state; any thread. */
#include <stdio.h>
#include <string.h>

#include "server/api_prompt.h"

enum { MAX_TOOLS = 512, MAX_NAME_BYTES = 64 };

static const char later[] = "needs constrained decoding, which is not in this version";

/* A-Z a-z 0-9 _ - and, as some clients have them, dots and colons. */
static bool is_name(const bw_json *name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:";
    return name->n_bytes > 0 && name->n_bytes <= MAX_NAME_BYTES && strspn(name->text, allowed) == name->n_bytes;
}

static bool check_tool(const bw_json *json, size_t index, bw_api_error *err)
{
    char path[64], inner[80];
    snprintf(path, sizeof path, "tools[%zu]", index);
    snprintf(inner, sizeof inner, "%s.function", path);
    const bw_api_object tool = { json, path, err };
    bw_api_object function = { NULL, inner, err };
    const bw_json *type, *name, *ignored;
    bool strict = false;
    if (json->kind != BW_JSON_OBJECT)
        return bw_api_wrong_type(&tool, NULL, json, "an object such as {\"type\": \"function\", \"function\": {...}}");
    if (!bw_api_get(&tool, "type", BW_JSON_STRING, &type))
        return false;
    if (type && !bw_json_is(type, "function"))
        return bw_api_unsupported(&tool, "type", "found %s, expected \"function\"", bw_api_quote(type).text);
    if (!bw_api_get(&tool, "function", BW_JSON_OBJECT, &function.json))
        return false;
    if (!function.json)
        return bw_api_wrong_type(&tool, "function", NULL, "an object with name and parameters");
    if (!bw_api_get(&function, "name", BW_JSON_STRING, &name) ||
        !bw_api_get(&function, "description", BW_JSON_STRING, &ignored) ||
        !bw_api_get(&function, "parameters", BW_JSON_OBJECT, &ignored) || !bw_api_get_bool(&function, "strict", &strict))
        return false;
    if (!name)
        return bw_api_wrong_type(&function, "name", NULL, "a string");
    if (!is_name(name))
        return bw_api_invalid(&function, "name", "found %s, expected 1 to %d characters of A-Z a-z 0-9 _ - . :",
                              bw_api_quote(name).text, MAX_NAME_BYTES);
    return !strict || bw_api_unsupported(&function, "strict", "true %s: leave it out, and the arguments are whatever the model writes",
                                         later);
}

/* *none: the answer's calls are not to be looked for. */
static bool read_choice(const bw_api_object *body, bool *none)
{
    const bw_json *choice = bw_api_member(body, "tool_choice"), *type;
    const bw_api_object object = { choice, "tool_choice", body->err };
    *none = false;
    if (!choice)
        return true;
    if (choice->kind == BW_JSON_STRING) {
        *none = bw_json_is(choice, "none");
        if (*none || bw_json_is(choice, "auto"))
            return true;
        if (bw_json_is(choice, "required"))
            return bw_api_unsupported(body, "tool_choice", "\"required\" %s: use \"auto\"", later);
        return bw_api_invalid(body, "tool_choice", "found %s, expected \"auto\" or \"none\"", bw_api_quote(choice).text);
    }
    if (choice->kind != BW_JSON_OBJECT)
        return bw_api_wrong_type(body, "tool_choice", choice, "\"auto\" or \"none\"");
    if (!bw_api_get(&object, "type", BW_JSON_STRING, &type))
        return false;
    if (bw_json_is(type, "function") || bw_json_is(type, "allowed_tools"))
        return bw_api_unsupported(body, "tool_choice", "a choice of type %s %s: use \"auto\"", bw_api_quote(type).text, later);
    return bw_api_invalid(&object, "type", "found %s, expected \"function\" or \"allowed_tools\"",
                          type ? bw_api_quote(type).text : "nothing");
}

bool bw_api_read_tools(bw_api_tools *out, const bw_api_object *body)
{
    const bw_json *tools;
    bool none;
    *out = (bw_api_tools){ 0 };
    if (!bw_api_get(body, "tools", BW_JSON_ARRAY, &tools))
        return false;
    if (tools && tools->n_items > MAX_TOOLS)
        return bw_api_invalid(body, "tools", "found %zu tools, at most %d are taken", tools->n_items, MAX_TOOLS);
    size_t i = 0;
    for (const bw_json *tool = tools ? tools->first : NULL; tool; tool = tool->next, i++)
        if (!check_tool(tool, i, body->err))
            return false;
    if (!read_choice(body, &none))
        return false;
    out->list = tools && tools->n_items ? tools : NULL;
    out->parse_calls = out->list && !none;
    return true;
}
