/* pyjson.c - see pyjson.h.
 *
 * Values and their texts live in blocks chained to the document; a parse allocates nothing else
 * but one scratch string and, for an object of many keys, a table to find equal ones. */
#include "text/pyjson.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/unicode.h"

/* ---- numbers --------------------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

size_t bw_json_number_length(const char *text, size_t n_bytes, bool *is_float)
{
    const char *p = text, *end = text + n_bytes;
    *is_float = false;
    if (p < end && *p == '-')
        p++;
    if (p == end || !is_digit(*p))
        return 0;
    if (*p == '0')
        p++;
    else
        while (p < end && is_digit(*p))
            p++;
    size_t n = (size_t)(p - text);
    if (p < end && *p == '.') {
        const char *digits = ++p;
        while (p < end && is_digit(*p))
            p++;
        if (p == digits)
            return n; /* the caller finds the stray '.' */
        *is_float = true;
        n = (size_t)(p - text);
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        const char *digits = p;
        while (p < end && is_digit(*p))
            p++;
        if (p == digits)
            return n;
        *is_float = true;
        n = (size_t)(p - text);
    }
    return n;
}

/* digits * 10^exponent without a radix character, which strtod takes from the locale. */
static double scaled(const char *digits, long exponent)
{
    char copy[64];
    snprintf(copy, sizeof copy, "%se%ld", digits, exponent);
    return strtod(copy, NULL);
}

double bw_json_read_double(const char *text, size_t n_bytes)
{
    enum { EXPONENT_LIMIT = 1000000000, KEPT = 800 };
    /* 800 digits decide every rounding of a double (767 suffice); a rest that is not zero only
     * breaks ties, which a last digit 1 does as well. */
    char digits[KEPT + 16];
    size_t n = 0;
    long long exponent = 0, written = 0;
    bool negative = n_bytes && *text == '-', fraction = false, rest = false;
    size_t i = negative;
    for (; i < n_bytes && text[i] != 'e' && text[i] != 'E'; i++) {
        if (text[i] == '.') {
            fraction = true;
            continue;
        }
        if (fraction)
            exponent--;
        if (n == 0 && text[i] == '0')
            continue;
        if (n < KEPT) {
            digits[n++] = text[i];
        } else {
            exponent++;
            rest = rest || text[i] != '0';
        }
    }
    if (i < n_bytes) {
        bool down = text[++i] == '-';
        if (text[i] == '-' || text[i] == '+')
            i++;
        for (; i < n_bytes; i++)
            if (written < EXPONENT_LIMIT)
                written = written * 10 + (text[i] - '0');
        exponent += down ? -written : written;
    }
    if (n == 0)
        return negative ? -0.0 : 0.0;
    if (rest) {
        digits[n++] = '1';
        exponent--;
    }
    exponent = exponent > EXPONENT_LIMIT ? EXPONENT_LIMIT : exponent < -EXPONENT_LIMIT ? -EXPONENT_LIMIT : exponent;
    snprintf(digits + n, sizeof digits - n, "e%lld", exponent);
    double value = strtod(digits, NULL);
    return negative ? -value : value;
}

/* Adds one to the last of n digits; a carry out of the first makes it 10...0 and returns true. */
static bool next_digits(char *digits, size_t n)
{
    for (size_t i = n; i-- > 0;) {
        if (digits[i] != '9') {
            digits[i]++;
            return false;
        }
        digits[i] = '0';
    }
    digits[0] = '1';
    return true;
}

/* The fewest decimal digits that read back as value (> 0): value = 0.digits * 10^*point. */
static size_t shortest_digits(char digits[24], int *point, double value)
{
    for (int n = 1;; n++) {
        char text[48];
        snprintf(text, sizeof text, "%.*e", n - 1, value);
        size_t kept = 0;
        const char *p = text;
        for (; *p != 'e'; p++)
            if (is_digit(*p)) /* steps over the locale's radix character */
                digits[kept++] = *p;
        digits[kept] = '\0';
        int exponent = atoi(p + 1);
        *point = exponent + 1;
        if (n == 17 || scaled(digits, exponent - (n - 1)) == value)
            return kept;
        /* Below a power of two doubles lie twice as dense as above it: there the nearest decimal
         * may be just too low while its upper neighbour still reads back. */
        if (next_digits(digits, kept))
            ++*point;
        if (scaled(digits, *point - n) == value)
            return kept;
    }
}

void bw_json_format_double(char out[BW_JSON_NUMBER_BYTES], double value)
{
    char digits[24] = "0";
    int point = 1;
    size_t n = 1;
    if (value != 0)
        n = shortest_digits(digits, &point, fabs(value));
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
    char *p = out;
    if (signbit(value))
        *p++ = '-';
    size_t room = (size_t)(out + BW_JSON_NUMBER_BYTES - p);
    if (point > 16 || point < -3)
        snprintf(p, room, "%c%s%se%c%02d", digits[0], n > 1 ? "." : "", digits + 1, point > 0 ? '+' : '-',
                 abs(point - 1));
    else if (point <= 0)
        snprintf(p, room, "0.%.*s%s", -point, "000", digits);
    else if ((size_t)point >= n)
        snprintf(p, room, "%s%.*s.0", digits, point - (int)n, "0000000000000000");
    else
        snprintf(p, room, "%.*s.%s", point, digits, digits + point);
}

/* ---- UTF-8 ----------------------------------------------------------------------------------- */

void bw_json_add_utf8(bw_bytes *out, const char *text, size_t n)
{
    while (n) {
        size_t good = bw_utf8_valid_prefix(text, n);
        bw_bytes_add(out, text, good);
        text += good;
        n -= good;
        if (!n)
            break;
        int k = bw_utf8_next((const unsigned char *)text, n);
        size_t bad = k < 0 ? (size_t)-k : n; /* 0: cut off at the end */
        bw_bytes_add_rune(out, 0xFFFD);
        text += bad;
        n -= bad;
    }
}

/* ---- the document ---------------------------------------------------------------------------- */

typedef struct block {
    struct block *next;
    size_t room, used;
    _Alignas(16) char data[];
} block;

struct bw_pyjson {
    block *blocks;
};

void bw_pyjson_free(bw_pyjson *document)
{
    if (!document)
        return;
    for (block *b = document->blocks, *next; b; b = next) {
        next = b->next;
        bw_mem_free(b);
    }
    bw_mem_free(document);
}

static void *take(bw_pyjson *document, size_t n)
{
    n = (n + 15) & ~(size_t)15;
    block *b = document->blocks;
    if (!b || b->room - b->used < n) {
        size_t room = b && b->room < 65536 ? b->room * 2 : 1024;
        if (b && b->room >= 65536)
            room = 65536;
        if (room < n)
            room = n;
        b = bw_mem_alloc(sizeof *b + room, BW_MEM_TEXT);
        if (!b)
            return NULL;
        *b = (block){ .next = document->blocks, .room = room };
        document->blocks = b;
    }
    void *p = b->data + b->used;
    b->used += n;
    return p;
}

typedef struct reader {
    bw_pyjson *document;
    const char *text, *what;
    size_t n, at;
    int depth;
    bw_bytes scratch; /* the string being read */
    bw_error *err;
} reader;

static bw_status out_of_memory(reader *r)
{
    return bw_fail_memory(r->err, r->what, r->n);
}

static bw_status unexpected(reader *r, const char *expected)
{
    if (r->at >= r->n)
        return bw_fail(r->err, BW_E_FORMAT, "%s: not JSON: it ends at byte %zu, where %s was expected", r->what, r->n,
                       expected);
    unsigned char c = (unsigned char)r->text[r->at];
    if (c > 0x20 && c < 0x7F)
        return bw_fail(r->err, BW_E_FORMAT, "%s: not JSON: found '%c' at byte %zu, expected %s", r->what, c, r->at,
                       expected);
    return bw_fail(r->err, BW_E_FORMAT, "%s: not JSON: found byte 0x%02x at byte %zu, expected %s", r->what, c, r->at,
                   expected);
}

static void skip_space(reader *r)
{
    while (r->at < r->n && (r->text[r->at] == ' ' || r->text[r->at] == '\t' || r->text[r->at] == '\n' ||
                            r->text[r->at] == '\r'))
        r->at++;
}

static bool next_is(reader *r, char c)
{
    return r->at < r->n && r->text[r->at] == c;
}

/* Four hexadecimal digits at `at`, or -1. */
static long hex4(const reader *r, size_t at)
{
    if (r->n - at < 4 || at > r->n)
        return -1;
    long value = 0;
    for (size_t i = at; i < at + 4; i++) {
        char c = r->text[i];
        int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static bw_status read_escape(reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    r->at++;
    const char *found = r->at < r->n && r->text[r->at] ? strchr(from, r->text[r->at]) : NULL;
    if (found) {
        bw_bytes_add_char(&r->scratch, to[found - from]);
        r->at++;
        return BW_OK;
    }
    if (!next_is(r, 'u'))
        return unexpected(r, "one of \"\\/bfnrtu after a backslash");
    long rune = hex4(r, r->at + 1);
    if (rune < 0)
        return unexpected(r, "u and four hexadecimal digits");
    r->at += 5;
    if (rune >= 0xD800 && rune < 0xDC00 && r->at + 6 <= r->n && r->text[r->at] == '\\' && r->text[r->at + 1] == 'u') {
        long low = hex4(r, r->at + 2);
        if (low >= 0xDC00 && low < 0xE000) {
            rune = 0x10000 + ((rune - 0xD800) << 10) + (low - 0xDC00);
            r->at += 6;
        }
    }
    if (rune >= 0xD800 && rune < 0xE000)
        rune = 0xFFFD;
    bw_bytes_add_rune(&r->scratch, (unsigned)rune);
    return BW_OK;
}

/* A string at the opening quote, into the document. */
static bw_status read_string(reader *r, const char **text, size_t *n_bytes)
{
    r->scratch.n = 0;
    for (r->at++;;) {
        size_t from = r->at;
        while (r->at < r->n && (unsigned char)r->text[r->at] >= 0x20 && r->text[r->at] != '"' && r->text[r->at] != '\\')
            r->at++;
        bw_json_add_utf8(&r->scratch, r->text + from, r->at - from);
        if (next_is(r, '"'))
            break;
        if (!next_is(r, '\\'))
            return unexpected(r, "a character of a string or its closing quote (control characters are escaped)");
        bw_status st = read_escape(r);
        if (st)
            return st;
    }
    r->at++;
    char *copy = r->scratch.failed ? NULL : take(r->document, r->scratch.n + 1);
    if (!copy)
        return out_of_memory(r);
    if (r->scratch.n)
        memcpy(copy, r->scratch.data, r->scratch.n);
    copy[r->scratch.n] = '\0';
    *text = copy;
    *n_bytes = r->scratch.n;
    return BW_OK;
}

static bw_status read_number(reader *r, bw_json *value)
{
    bool is_float;
    const char *from = r->text + r->at;
    size_t n = bw_json_number_length(from, r->n - r->at, &is_float);
    if (!n)
        return unexpected(r, "a JSON value");
    char printed[BW_JSON_NUMBER_BYTES];
    value->kind = is_float ? BW_JSON_FLOAT : BW_JSON_INT;
    if (is_float) {
        double number = bw_json_read_double(from, n);
        if (!isfinite(number))
            return bw_fail(r->err, BW_E_FORMAT, "%s: the number at byte %zu is larger than a double can be", r->what,
                           r->at);
        bw_json_format_double(printed, number);
        from = printed;
        r->at += n;
        n = strlen(printed);
    } else {
        r->at += n;
        if (n == 2 && from[0] == '-' && from[1] == '0') { /* Python has no integer -0 */
            from++;
            n--;
        }
    }
    char *copy = take(r->document, n + 1);
    if (!copy)
        return out_of_memory(r);
    memcpy(copy, from, n);
    copy[n] = '\0';
    value->text = copy;
    value->n_bytes = n;
    return BW_OK;
}

static bool read_word(reader *r, const char *word)
{
    size_t n = strlen(word);
    if (r->n - r->at < n || memcmp(r->text + r->at, word, n) != 0)
        return false;
    r->at += n;
    return true;
}

static int compare_keys(const bw_json *a, const bw_json *b)
{
    size_t n = a->key_bytes < b->key_bytes ? a->key_bytes : b->key_bytes;
    int order = memcmp(a->key, b->key, n);
    return order ? order : (a->key_bytes > b->key_bytes) - (a->key_bytes < b->key_bytes);
}

typedef struct member {
    bw_json *value;
    size_t place;
} member;

static int compare_members(const void *a, const void *b)
{
    const member *x = a, *y = b;
    int order = compare_keys(x->value, y->value);
    return order ? order : (x->place > y->place) - (x->place < y->place);
}

/* Of equal keys keeps the first place with the last value. */
static bw_status merge_equal_keys(reader *r, bw_json *object)
{
    if (object->n_items < 2)
        return BW_OK;
    if (object->n_items > SIZE_MAX / sizeof(member))
        return out_of_memory(r);
    member *members = bw_mem_alloc(object->n_items * sizeof *members, BW_MEM_TEXT);
    if (!members)
        return out_of_memory(r);
    size_t n = 0;
    for (const bw_json *v = object->first; v; v = v->next, n++)
        members[n] = (member){ .value = (bw_json *)v, .place = n };
    qsort(members, n, sizeof *members, compare_members);
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && compare_keys(members[i].value, members[j].value) == 0; j++)
            members[j].value->key = NULL; /* marks it for removal below; compare only looks at i */
        if (j - i > 1) {
            bw_json *kept = members[i].value;
            bw_json last = *members[j - 1].value;
            last.key = kept->key;
            last.key_bytes = kept->key_bytes;
            last.next = kept->next;
            *kept = last;
        }
    }
    bw_mem_free(members);
    for (bw_json *v = (bw_json *)object->first; v; v = (bw_json *)v->next)
        while (v->next && !v->next->key) {
            v->next = v->next->next;
            object->n_items--;
        }
    return BW_OK;
}

static bw_status read_value(reader *r, bw_json *value);

/* Items up to the closing bracket; `at` is on the opening one. */
static bw_status read_items(reader *r, bw_json *value, char close)
{
    const bool is_object = close == '}';
    const bw_json **link = &value->first;
    if (++r->depth > BW_JSON_MAX_DEPTH)
        return bw_fail(r->err, BW_E_FORMAT, "%s: nested deeper than %d at byte %zu", r->what, BW_JSON_MAX_DEPTH, r->at);
    r->at++;
    skip_space(r);
    if (next_is(r, close)) {
        r->at++;
        r->depth--;
        return BW_OK;
    }
    for (;;) {
        bw_status st;
        bw_json *item = take(r->document, sizeof *item);
        if (!item)
            return out_of_memory(r);
        *item = (bw_json){ 0 };
        skip_space(r);
        if (is_object) {
            if (!next_is(r, '"'))
                return unexpected(r, "a key in double quotes");
            if ((st = read_string(r, &item->key, &item->key_bytes)))
                return st;
            skip_space(r);
            if (!next_is(r, ':'))
                return unexpected(r, "':' after a key");
            r->at++;
        }
        if ((st = read_value(r, item)))
            return st;
        *link = item;
        link = &item->next;
        value->n_items++;
        skip_space(r);
        if (next_is(r, close))
            break;
        if (!next_is(r, ','))
            return unexpected(r, is_object ? "',' or '}'" : "',' or ']'");
        r->at++;
    }
    r->at++;
    r->depth--;
    return is_object ? merge_equal_keys(r, value) : BW_OK;
}

static bw_status read_value(reader *r, bw_json *value)
{
    skip_space(r);
    if (next_is(r, '{')) {
        value->kind = BW_JSON_OBJECT;
        return read_items(r, value, '}');
    }
    if (next_is(r, '[')) {
        value->kind = BW_JSON_ARRAY;
        return read_items(r, value, ']');
    }
    if (next_is(r, '"')) {
        value->kind = BW_JSON_STRING;
        return read_string(r, &value->text, &value->n_bytes);
    }
    if (read_word(r, "null")) {
        value->kind = BW_JSON_NULL;
        return BW_OK;
    }
    if (read_word(r, "true") || read_word(r, "false")) {
        value->kind = BW_JSON_BOOL;
        value->is_true = r->text[r->at - 2] == 'u';
        return BW_OK;
    }
    return read_number(r, value);
}

bw_status bw_pyjson_parse(bw_pyjson **out, const bw_json **root, const char *text, size_t n_bytes, const char *what,
                          bw_error *err)
{
    *out = NULL;
    *root = NULL;
    reader r = { .text = text, .n = n_bytes, .what = what, .err = err };
    bw_status st;
    bw_json *value = NULL;
    r.document = bw_mem_zalloc(1, sizeof *r.document, BW_MEM_TEXT);
    if (!r.document || !(value = take(r.document, sizeof *value))) {
        st = out_of_memory(&r);
        goto done;
    }
    *value = (bw_json){ 0 };
    if ((st = read_value(&r, value)))
        goto done;
    skip_space(&r);
    if (r.at < r.n)
        st = unexpected(&r, "the end");
done:
    bw_bytes_fini(&r.scratch);
    if (st) {
        bw_pyjson_free(r.document);
        return st;
    }
    *out = r.document;
    *root = value;
    return BW_OK;
}

/* ---- looking and printing -------------------------------------------------------------------- */

const bw_json *bw_json_get(const bw_json *object, const char *key)
{
    if (!object || object->kind != BW_JSON_OBJECT)
        return NULL;
    size_t n = strlen(key);
    for (const bw_json *v = object->first; v; v = v->next)
        if (v->key_bytes == n && memcmp(v->key, key, n) == 0)
            return v;
    return NULL;
}

bool bw_json_is(const bw_json *string, const char *text)
{
    return string && string->kind == BW_JSON_STRING && string->n_bytes == strlen(text) &&
           memcmp(string->text, text, string->n_bytes) == 0;
}

const char *bw_json_kind_name(const bw_json *value)
{
    static const char *const names[] = {
        [BW_JSON_NULL] = "null",     [BW_JSON_BOOL] = "a boolean", [BW_JSON_INT] = "a number",
        [BW_JSON_FLOAT] = "a number", [BW_JSON_STRING] = "a string", [BW_JSON_ARRAY] = "an array",
        [BW_JSON_OBJECT] = "an object",
    };
    return value ? names[value->kind] : "nothing";
}

void bw_json_print_string(bw_bytes *out, const char *text, size_t n)
{
    size_t from = 0;
    bw_bytes_add_char(out, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        bw_bytes_add(out, text + from, i - from);
        from = i + 1;
        char escape[8] = { '\\', (char)c, 0 };
        if (c == '\b' || c == '\t' || c == '\n' || c == '\f' || c == '\r')
            escape[1] = "btn?fr"[c - '\b'];
        else if (c < 0x20)
            snprintf(escape, sizeof escape, "\\u%04x", c);
        bw_bytes_add_str(out, escape);
    }
    bw_bytes_add(out, text + from, n - from);
    bw_bytes_add_char(out, '"');
}

void bw_json_print(bw_bytes *out, const bw_json *value)
{
    switch (value->kind) {
    case BW_JSON_NULL:
        bw_bytes_add_str(out, "null");
        break;
    case BW_JSON_BOOL:
        bw_bytes_add_str(out, value->is_true ? "true" : "false");
        break;
    case BW_JSON_INT:
    case BW_JSON_FLOAT:
        bw_bytes_add(out, value->text, value->n_bytes);
        break;
    case BW_JSON_STRING:
        bw_json_print_string(out, value->text, value->n_bytes);
        break;
    case BW_JSON_ARRAY:
    case BW_JSON_OBJECT:
        bw_bytes_add_char(out, value->kind == BW_JSON_ARRAY ? '[' : '{');
        for (const bw_json *v = value->first; v; v = v->next) {
            if (v != value->first)
                bw_bytes_add_str(out, ", ");
            if (value->kind == BW_JSON_OBJECT) {
                bw_json_print_string(out, v->key, v->key_bytes);
                bw_bytes_add_str(out, ": ");
            }
            bw_json_print(out, v);
        }
        bw_bytes_add_char(out, value->kind == BW_JSON_ARRAY ? ']' : '}');
        break;
    }
}
