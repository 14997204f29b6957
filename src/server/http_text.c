/* http_text.c - the words of HTTP: reasons, error objects, targets, request ids. No state. */
#include "server/http_parts.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/utf8.h"

static const struct {
    int status;
    const char *reason, *type;
} statuses[] = {
    { 200, "OK", "server_error" },
    { 204, "No Content", "server_error" },
    { 400, "Bad Request", "invalid_request_error" },
    { 401, "Unauthorized", "authentication_error" },
    { 403, "Forbidden", "permission_error" },
    { 404, "Not Found", "invalid_request_error" },
    { 405, "Method Not Allowed", "invalid_request_error" },
    { 408, "Request Timeout", "invalid_request_error" },
    { 409, "Conflict", "invalid_request_error" },
    { 413, "Content Too Large", "invalid_request_error" },
    { 414, "URI Too Long", "invalid_request_error" },
    { 415, "Unsupported Media Type", "invalid_request_error" },
    { 417, "Expectation Failed", "invalid_request_error" },
    { 429, "Too Many Requests", "rate_limit_error" },
    { 431, "Request Header Fields Too Large", "invalid_request_error" },
    { 500, "Internal Server Error", "server_error" },
    { 501, "Not Implemented", "invalid_request_error" },
    { 503, "Service Unavailable", "service_unavailable" },
    { 504, "Gateway Timeout", "timeout" },
    { 505, "HTTP Version Not Supported", "invalid_request_error" },
    { 529, "Overloaded", "overloaded_error" },
};

const char *bw_http_reason(int status)
{
    for (size_t i = 0; i < BW_COUNT(statuses); i++)
        if (statuses[i].status == status)
            return statuses[i].reason;
    return status < 400 ? "OK" : "Error";
}

const char *bw_http_error_type(int status)
{
    for (size_t i = 0; i < BW_COUNT(statuses); i++)
        if (statuses[i].status == status)
            return statuses[i].type;
    return status < 500 ? "invalid_request_error" : "server_error";
}

/* A message may quote what a client sent; JSON must be UTF-8 whatever that was. */
static struct json_object *as_string(const char *message)
{
    const size_t n = strlen(message);
    if (bw_utf8_valid_prefix(message, n) == n)
        return json_object_new_string(message);
    char *copy = bw_mem_dup(message, n);
    if (copy)
        bw_utf8_one_line(copy);
    struct json_object *string = json_object_new_string(copy ? copy : "");
    bw_mem_free(copy);
    return string;
}

char *bw_http_error_body(const char *type, const char *code, const char *param, const char *message, size_t *n)
{
    char *text = NULL;
    struct json_object *root = json_object_new_object(), *error = json_object_new_object();
    if (!root || !error) {
        json_object_put(error);
        goto out;
    }
    /* An absent string is null, never missing. */
    if (json_object_object_add(root, "error", error) ||
        json_object_object_add(error, "message", as_string(message)) ||
        json_object_object_add(error, "type", json_object_new_string(type)) ||
        json_object_object_add(error, "param", param ? as_string(param) : NULL) ||
        json_object_object_add(error, "code", code ? json_object_new_string(code) : NULL))
        goto out;
    const char *json = json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    text = json ? bw_mem_strdup(json) : NULL;
out:
    *n = text ? strlen(text) : 0;
    json_object_put(root);
    return text;
}

/* Decodes n bytes of `from` to `to`, which has room for n + 1; false: an escape that is none, or a NUL. */
static bool decode(char *to, const char *from, size_t n, bool plus_is_space)
{
    for (size_t i = 0; i < n; i++) {
        char c = from[i];
        if (c == '+' && plus_is_space)
            c = ' ';
        if (c == '%') {
            int high = i + 2 < n ? bw_strict_hex(from[i + 1]) : -1, low = high < 0 ? -1 : bw_strict_hex(from[i + 2]);
            if (low < 0 || (high | low) == 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        *to++ = c;
    }
    *to = '\0';
    return true;
}

/* name=value&name&... to name NUL value NUL ...; `out` has room for twice the text and two more. */
static int split_query(char *out, const char *text)
{
    int n_pairs = 0;
    while (*text) {
        size_t n = strcspn(text, "&"), n_name = strcspn(text, "=&");
        if (n) {
            const char *value = n_name < n ? text + n_name + 1 : text + n;
            if (!decode(out, text, n_name, true))
                return -1;
            out += strlen(out) + 1;
            if (!decode(out, value, (size_t)(text + n - value), true))
                return -1;
            out += strlen(out) + 1;
            n_pairs++;
        }
        text += n + (text[n] == '&');
    }
    return n_pairs;
}

bool bw_http_split_target(const char *target, char **path, char **query, int *n_query)
{
    size_t n = strcspn(target, "?");
    const char *tail = target[n] ? target + n + 1 : "";
    *path = bw_mem_alloc(n + 1, BW_MEM_MISC);
    *query = bw_mem_alloc(2 * strlen(tail) + 2, BW_MEM_MISC);
    if (*path && *query && decode(*path, target, n, false) && (*n_query = split_query(*query, tail)) >= 0)
        return true;
    bw_mem_free(*path);
    bw_mem_free(*query);
    *path = *query = NULL;
    *n_query = 0;
    return false;
}

void bw_http_make_id(bw_http *http, char id[129])
{
    snprintf(id, 129, "req_%016" PRIx64 "%08" PRIx64, http->id_stem, http->next_id++);
}

bool bw_http_is_id(const char *text)
{
    size_t n = 0;
    while (text[n] > ' ' && text[n] <= '~')
        n++;
    return text[n] == '\0' && n >= 1 && n <= 128;
}

bw_method bw_http_method(const char *name)
{
    static const struct {
        const char *name;
        bw_method method;
    } methods[] = { { "GET", BW_GET }, { "POST", BW_POST }, { "DELETE", BW_DELETE }, { "HEAD", BW_HEAD },
                    { "OPTIONS", BW_OPTIONS } };
    for (size_t i = 0; i < BW_COUNT(methods); i++)
        if (strcmp(methods[i].name, name) == 0)
            return methods[i].method;
    return 0;
}

struct timeval bw_http_timeval(double seconds)
{
    time_t whole = (time_t)seconds;
    return (struct timeval){ whole, (suseconds_t)((seconds - (double)whole) * 1e6) };
}
