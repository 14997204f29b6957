/* api_json.c - see api_json.h. The names of ignored members are the only state, behind a lock. */
#include "server/api_json.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "text/unicode.h"

/* ---- errors -------------------------------------------------------------------------------------- */

/* printf whose cut, where one is needed, is on a character. */
static void print_cut(char *out, size_t room, const char *format, va_list args)
{
    vsnprintf(out, room, format, args);
    out[bw_utf8_valid_prefix(out, strlen(out))] = '\0';
}

static bool fail(bw_api_error *err, int status, const char *code, const char *param, const char *format, va_list args)
{
    *err = (bw_api_error){ .status = status, .type = status >= 500 ? "server_error" : "invalid_request_error", .code = code };
    snprintf(err->param, sizeof err->param, "%s", param);
    err->param[bw_utf8_valid_prefix(err->param, strlen(err->param))] = '\0';
    print_cut(err->message, sizeof err->message, format, args);
    return false;
}

bool bw_api_fail(bw_api_error *err, int status, const char *code, const char *param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail(err, status, code, param, format, args);
    va_end(args);
    return false;
}

bool bw_api_fail_memory(bw_api_error *err)
{
    return bw_api_fail(err, 500, "out_of_memory", "", "The server has no memory left to read this request.");
}

bool bw_api_fail_from(bw_api_error *err, const char *param, const bw_error *found)
{
    if (found->status == BW_E_MEMORY)
        return bw_api_fail_memory(err);
    return bw_api_fail(err, 400, found->status == BW_E_UNSUPPORTED ? "unsupported_parameter" : "invalid_value", param, "%s",
                       found->message);
}

static void join_path(char out[256], const bw_api_object *object, const char *key)
{
    snprintf(out, 256, "%s%s%s", object->path, object->path[0] && key && key[0] != '[' ? "." : "", key ? key : "");
}

/* "path: message" */
static bool fail_at(const bw_api_object *object, const char *code, const char *key, const char *format, va_list args)
{
    char path[256], message[768];
    join_path(path, object, key);
    print_cut(message, sizeof message, format, args);
    return bw_api_fail(object->err, 400, code, path, "%s%s%s", path, path[0] ? ": " : "", message);
}

bool bw_api_invalid(const bw_api_object *object, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_at(object, "invalid_value", key, format, args);
    va_end(args);
    return false;
}

bool bw_api_unsupported(const bw_api_object *object, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_at(object, "unsupported_parameter", key, format, args);
    va_end(args);
    return false;
}

static bool fail_type(const bw_api_object *object, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static bool fail_type(const bw_api_object *object, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_at(object, "invalid_type", key, format, args);
    va_end(args);
    return false;
}

bool bw_api_wrong_type(const bw_api_object *object, const char *key, const bw_json *found, const char *expected)
{
    return fail_type(object, key, "found %s, expected %s", bw_json_kind_name(found), expected);
}

bw_api_quoted bw_api_quote(const bw_json *string)
{
    bw_api_quoted quoted;
    bw_text_quote(quoted.text, sizeof quoted.text, string->text, string->n_bytes);
    return quoted;
}

/* ---- the body ------------------------------------------------------------------------------------ */

/* Depth and number of values, before anything is allocated for them. Only counts: what is no JSON is the
 * parser's to find. */
static bool check_size(const char *text, size_t n, bw_api_error *err)
{
    size_t depth = 0, values = 1;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        const char c = text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        if (c == '[' || c == '{')
            depth++, values++;
        else if (c == ']' || c == '}')
            depth -= depth > 0;
        else if (c == ',')
            values++;
        if (depth > BW_API_MAX_DEPTH)
            return bw_api_fail(err, 400, "invalid_json", "", "The body is nested deeper than %d at byte %zu.", BW_API_MAX_DEPTH, i);
        if (values > BW_API_MAX_VALUES)
            return bw_api_fail(err, 400, "invalid_json", "", "The body has more than %d JSON values at byte %zu.",
                               BW_API_MAX_VALUES, i);
    }
    return true;
}

bool bw_api_body_open(bw_api_body *body, const char *text, size_t n_bytes, bw_api_error *err)
{
    bw_error found;
    *body = (bw_api_body){ 0 };
    if (!check_size(text, n_bytes, err))
        return false;
    const bw_status st = bw_pyjson_parse(&body->document, &body->root, text, n_bytes, "the body", &found);
    if (st == BW_E_MEMORY)
        return bw_api_fail_memory(err);
    if (st)
        return bw_api_fail(err, 400, "invalid_json", "", "%s", found.message);
    if (body->root->kind == BW_JSON_OBJECT && body->root->n_items <= BW_API_MAX_MEMBERS)
        return true;
    if (body->root->kind == BW_JSON_OBJECT)
        bw_api_fail(err, 400, "invalid_json", "", "The body has %zu members, at most %d are read.", body->root->n_items,
                    BW_API_MAX_MEMBERS);
    else
        bw_api_fail(err, 400, "invalid_json", "", "The body is %s, expected a JSON object.", bw_json_kind_name(body->root));
    bw_api_body_close(body);
    return false;
}

void bw_api_body_close(bw_api_body *body)
{
    bw_pyjson_free(body->document);
    *body = (bw_api_body){ 0 };
}

/* ---- members ------------------------------------------------------------------------------------- */

const bw_json *bw_api_member(const bw_api_object *object, const char *key)
{
    const bw_json *value = bw_json_get(object->json, key);
    return value && value->kind != BW_JSON_NULL ? value : NULL;
}

bool bw_api_get_bool(const bw_api_object *object, const char *key, bool *out)
{
    const bw_json *value = bw_api_member(object, key);
    if (value && value->kind != BW_JSON_BOOL)
        return bw_api_wrong_type(object, key, value, "true or false");
    if (value)
        *out = value->is_true;
    return true;
}

bool bw_api_int_of(const bw_json *value, int64_t *out)
{
    if (value->kind == BW_JSON_FLOAT) { /* some clients have no other numbers */
        const double x = bw_json_read_double(value->text, value->n_bytes);
        if (!(x >= -9007199254740992.0 && x <= 9007199254740992.0) || (double)(int64_t)x != x)
            return false;
        *out = (int64_t)x;
        return true;
    }
    if (value->kind != BW_JSON_INT || value->n_bytes > 20)
        return false;
    const bool negative = value->text[0] == '-';
    const uint64_t most = (uint64_t)INT64_MAX + negative;
    uint64_t x = 0;
    for (size_t i = negative; i < value->n_bytes; i++) {
        const unsigned digit = (unsigned)(value->text[i] - '0');
        if (x > (most - digit) / 10)
            return false;
        x = x * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - x) : (int64_t)x;
    return true;
}

bool bw_api_get_int(const bw_api_object *object, const char *key, int64_t low, int64_t high, int64_t *out)
{
    const bw_json *value = bw_api_member(object, key);
    int64_t x;
    if (!value)
        return true;
    if (value->kind != BW_JSON_INT && value->kind != BW_JSON_FLOAT)
        return bw_api_wrong_type(object, key, value, "an integer");
    if (bw_api_int_of(value, &x) && x >= low && x <= high) {
        *out = x;
        return true;
    }
    const char *shown = value->n_bytes <= 40 ? value->text : "a longer number";
    if (high == INT64_MAX || high == INT32_MAX)
        return bw_api_invalid(object, key, "found %s, expected an integer of at least %" PRId64, shown, low);
    return bw_api_invalid(object, key, "found %s, expected an integer from %" PRId64 " to %" PRId64, shown, low, high);
}

bool bw_api_get_int32(const bw_api_object *object, const char *key, int low, int high, int *out)
{
    int64_t x = *out;
    if (!bw_api_get_int(object, key, low, high, &x))
        return false;
    *out = (int)x;
    return true;
}

bool bw_api_get_float(const bw_api_object *object, const char *key, double low, double high, const char *open, float *out)
{
    const bw_json *value = bw_api_member(object, key);
    if (!value)
        return true;
    if (value->kind != BW_JSON_INT && value->kind != BW_JSON_FLOAT)
        return bw_api_wrong_type(object, key, value, "a number");
    const double x = bw_json_read_double(value->text, value->n_bytes);
    const bool above = strchr(open, 'l') ? x > low : x >= low, below = strchr(open, 'h') ? x < high : x <= high;
    if (above && below) {
        *out = (float)x;
        return true;
    }
    return bw_api_invalid(object, key, "found %s, expected a number %s %g and %s %g",
                          value->n_bytes <= 40 ? value->text : "a longer number", strchr(open, 'l') ? "above" : "of at least", low,
                          strchr(open, 'h') ? "below" : "at most", high);
}

bool bw_api_get(const bw_api_object *object, const char *key, bw_json_kind kind, const bw_json **out)
{
    const bw_json *value = bw_api_member(object, key);
    if (value && value->kind != kind)
        return bw_api_wrong_type(object, key, value,
                                 kind == BW_JSON_STRING ? "a string" : kind == BW_JSON_ARRAY ? "an array" : "an object");
    *out = value;
    return true;
}

/* ---- ignored members ----------------------------------------------------------------------------- */

enum { MAX_NAMES = 256, NAME_BYTES = 64, MAX_NAMES_OF_A_BODY = 64 };

static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;
static char names[MAX_NAMES][NAME_BYTES];
static int n_names;

bool bw_api_first_time(const char *name)
{
    bool found = false;
    pthread_mutex_lock(&names_lock);
    for (int i = 0; i < n_names && !found; i++)
        found = strcmp(names[i], name) == 0;
    const bool added = !found && n_names < MAX_NAMES;
    if (added)
        snprintf(names[n_names++], NAME_BYTES, "%s", name);
    pthread_mutex_unlock(&names_lock);
    return added;
}

void bw_api_log_unknown(const char *where, const char *name, size_t n_bytes)
{
    char shown[NAME_BYTES];
    size_t n = n_bytes < NAME_BYTES - 1 ? n_bytes : NAME_BYTES - 1;
    memcpy(shown, name, n);
    shown[n] = '\0';
    n = strlen(shown);
    shown[bw_utf8_valid_prefix(shown, n)] = '\0';
    if (bw_api_first_time(shown))
        bw_log(BW_LOG_INFO, "%s: field %s is not known here and is ignored (said once)", where, shown);
}

void bw_api_log_unknowns(const bw_api_object *object, const char *where, const char *const *known, size_t n_known)
{
    int n = 0;
    for (const bw_json *member = object->json->first; member && n < MAX_NAMES_OF_A_BODY; member = member->next) {
        bool found = false;
        for (size_t i = 0; i < n_known && !found; i++)
            found = strlen(known[i]) == member->key_bytes && memcmp(known[i], member->key, member->key_bytes) == 0;
        if (found)
            continue;
        n++;
        bw_api_log_unknown(where, member->key, member->key_bytes);
    }
}
