/* toolcall_value.c - see toolcall_value.h. */
#include "text/toolcall_value.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { T_STRING = 1, T_INTEGER = 2, T_NUMBER = 4, T_BOOLEAN = 8, T_ARRAY = 16, T_OBJECT = 32, T_NULL = 64 };
enum { MAX_SCHEMA_DEPTH = 8 };

static int type_named(const bw_json *name)
{
    static const struct {
        const char *name;
        int type;
    } types[] = { { "string", T_STRING },   { "integer", T_INTEGER }, { "number", T_NUMBER }, { "boolean", T_BOOLEAN },
                  { "array", T_ARRAY },     { "object", T_OBJECT },   { "null", T_NULL },     { "str", T_STRING },
                  { "int", T_INTEGER },     { "float", T_NUMBER },    { "bool", T_BOOLEAN },  { "list", T_ARRAY },
                  { "dict", T_OBJECT } };
    for (size_t i = 0; i < BW_COUNT(types); i++)
        if (bw_json_is(name, types[i].name))
            return types[i].type;
    return 0;
}

/* The types a schema allows; 0: it does not say. */
static int types_of(const bw_json *schema, int depth)
{
    int types = 0;
    if (!schema || schema->kind != BW_JSON_OBJECT || depth > MAX_SCHEMA_DEPTH)
        return 0;
    const bw_json *type = bw_json_get(schema, "type"), *nullable = bw_json_get(schema, "nullable");
    if (type && type->kind == BW_JSON_ARRAY)
        for (const bw_json *t = type->first; t; t = t->next)
            types |= type_named(t);
    else
        types |= type_named(type);
    static const char *const choices[] = { "anyOf", "oneOf" };
    for (size_t i = 0; i < BW_COUNT(choices); i++) {
        const bw_json *choice = bw_json_get(schema, choices[i]);
        if (choice && choice->kind == BW_JSON_ARRAY)
            for (const bw_json *s = choice->first; s; s = s->next)
                types |= types_of(s, depth + 1);
    }
    if (types && nullable && nullable->kind == BW_JSON_BOOL && nullable->is_true)
        types |= T_NULL;
    return types;
}

static bool is(const char *text, size_t n, const char *word)
{
    return n == strlen(word) && strncasecmp(text, word, n) == 0;
}

static size_t count_digits(const char *p, const char *end)
{
    const char *from = p;
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return (size_t)(p - from);
}

/* A number as Python's int() and float() read it: a sign, leading zeros, ".5" and "5." pass. */
static bool print_number(bw_bytes *out, const char *text, size_t n, int types)
{
    const char *p = text, *end = text + n;
    bool negative = n && *p == '-', is_float = false;
    if (n && (*p == '-' || *p == '+'))
        p++;
    const char *whole = p;
    size_t n_whole = count_digits(p, end), n_fraction = 0;
    p += n_whole;
    if (p < end && *p == '.') {
        is_float = true;
        n_fraction = count_digits(++p, end);
        p += n_fraction;
    }
    if (n_whole + n_fraction == 0)
        return false;
    if (p < end && (*p == 'e' || *p == 'E')) {
        is_float = true;
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        size_t digits = count_digits(p, end);
        if (!digits)
            return false;
        p += digits;
    }
    if (p != end)
        return false;
    if (!is_float) {
        while (n_whole > 1 && *whole == '0') {
            whole++;
            n_whole--;
        }
        if (negative && !(n_whole == 1 && *whole == '0'))
            bw_bytes_add_char(out, '-');
        bw_bytes_add(out, whole, n_whole);
        return true;
    }
    double value = bw_json_read_double(whole, (size_t)(end - whole));
    if (negative)
        value = -value;
    if (!isfinite(value) || (!(types & T_NUMBER) && value != trunc(value)))
        return false;
    char printed[BW_JSON_NUMBER_BYTES], digits[400];
    if (value == trunc(value))
        snprintf(digits, sizeof digits, "%.0f", value == 0 ? 0.0 : value);
    else
        bw_json_format_double(printed, value);
    bw_bytes_add_str(out, value == trunc(value) ? digits : printed);
    return true;
}

static bool print_container(bw_bytes *out, const char *text, size_t n, int types)
{
    bw_pyjson *document;
    const bw_json *root;
    bw_status st = bw_pyjson_parse(&document, &root, text, n, "the argument", NULL);
    if (st) {
        out->failed = out->failed || st == BW_E_MEMORY;
        return false;
    }
    bool fits = (root->kind == BW_JSON_ARRAY && types & T_ARRAY) || (root->kind == BW_JSON_OBJECT && types & T_OBJECT);
    if (fits)
        bw_json_print(out, root);
    bw_pyjson_free(document);
    return fits;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

void bw_toolcall_print_value(bw_bytes *out, const bw_json *schema, const char *value, size_t n_bytes)
{
    int types = types_of(schema, 0);
    const char *text = value;
    size_t n = n_bytes;
    while (n && is_space(*text)) {
        text++;
        n--;
    }
    while (n && is_space(text[n - 1]))
        n--;
    bool null_fits = types && (!(types & T_STRING) || types & T_NULL);
    if (null_fits && ((n == 4 && memcmp(text, "null", 4) == 0) || (n == 4 && memcmp(text, "None", 4) == 0))) {
        bw_bytes_add_str(out, "null");
        return;
    }
    if (types && !(types & T_STRING)) {
        if (types & (T_INTEGER | T_NUMBER) && print_number(out, text, n, types))
            return;
        if (types & T_BOOLEAN && (is(text, n, "true") || is(text, n, "false"))) {
            bw_bytes_add_str(out, n == 4 ? "true" : "false");
            return;
        }
        if (types & (T_ARRAY | T_OBJECT) && print_container(out, text, n, types))
            return;
    }
    bw_bytes clean = { 0 };
    bw_json_add_utf8(&clean, value, n_bytes);
    bw_json_print_string(out, clean.data ? clean.data : "", clean.n);
    out->failed = out->failed || clean.failed;
    bw_bytes_fini(&clean);
}
