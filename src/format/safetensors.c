/* safetensors.c - reads the header of one safetensors file: a strict scanner for the one shape of
 * JSON that may stand there, and every check of docs/formats.md before a tensor is believed.
 *
 * A general JSON parser would hide duplicate keys, take 1.0 for an integer and build a tree ten
 * times the size of a hostile header. This one walks the text once. It never reads tensor data. */
#include "format/checkpoint_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/utf8.h"

enum { MAX_DEPTH = 4, MAX_HEADER = 100000000, MAX_METADATA = 2000, MAX_EXTRA = 8, MAX_INNER_KEYS = 64 };

static const struct element {
    const char *name;
    int bits;
    bool readable;
    bw_dtype type;
} elements[] = {
    { "F32", 32, true, BW_F32 },      { "F16", 16, true, BW_F16 },      { "BF16", 16, true, BW_BF16 },
    { "F4", 4, false, 0 },            { "F6_E2M3", 6, false, 0 },       { "F6_E3M2", 6, false, 0 },
    { "BOOL", 8, false, 0 },          { "U8", 8, false, 0 },            { "I8", 8, false, 0 },
    { "F8_E4M3", 8, false, 0 },       { "F8_E5M2", 8, false, 0 },       { "F8_E8M0", 8, false, 0 },
    { "F8_E4M3FNUZ", 8, false, 0 },   { "F8_E5M2FNUZ", 8, false, 0 },   { "I16", 16, false, 0 },
    { "U16", 16, false, 0 },          { "I32", 32, false, 0 },          { "U32", 32, false, 0 },
    { "I64", 64, false, 0 },          { "U64", 64, false, 0 },          { "F64", 64, false, 0 },
    { "C64", 64, false, 0 },
};

typedef struct span {
    uint64_t begin, end;
    const char *name;
} span;

typedef struct scanner {
    const char *path;
    const unsigned char *text, *p, *end;
    char *names; /* where decoded strings go: never more than the header is long */
    bw_error *err;
} scanner;

static bw_status malformed(scanner *s, const char *what)
{
    return bw_fail(s->err, BW_E_FORMAT, "%s: header byte %llu: %s; the file is damaged or not safetensors, download it again",
                   s->path, (unsigned long long)(s->p - s->text), what);
}

/* ---- characters, strings, numbers ---------------------------------------------------------------- */

static int peek(scanner *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++;
    return s->p < s->end ? *s->p : -1;
}

static bool take(scanner *s, int c)
{
    if (peek(s) != c)
        return false;
    s->p++;
    return true;
}

static bool read_hex4(scanner *s, uint32_t *code)
{
    *code = 0;
    if (s->end - s->p < 4)
        return false;
    for (int i = 0; i < 4; i++, s->p++) {
        int c = *s->p, digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0)
            return false;
        *code = *code << 4 | (uint32_t)digit;
    }
    return true;
}

/* The code point after \u, a surrogate pair included. False: malformed, or U+0000. */
static bool read_escape(scanner *s, uint32_t *code)
{
    uint32_t low;
    if (!read_hex4(s, code) || *code == 0 || (*code >= 0xDC00 && *code < 0xE000))
        return false;
    if (*code < 0xD800 || *code >= 0xDC00)
        return true;
    if (s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
        return false;
    s->p += 2;
    if (!read_hex4(s, &low) || low < 0xDC00 || low >= 0xE000)
        return false;
    *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
    return true;
}

static char *put_utf8(char *out, uint32_t code)
{
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    } else {
        *out++ = (char)(0xF0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 63));
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    }
    return out;
}

/* A string, decoded into the name block with a NUL. An escape is never shorter than what it stands
 * for and the quotes pay for the NUL, so the block cannot overflow. */
static bw_status read_string(scanner *s, const char **text)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (!take(s, '"'))
        return malformed(s, "a string is expected here");
    char *out = s->names;
    for (;;) {
        if (s->p >= s->end)
            return malformed(s, "a string does not end");
        int c = *s->p++;
        if (c == '"')
            break;
        if (c < 0x20)
            return malformed(s, "a control character stands in a string");
        if (c != '\\') {
            *out++ = (char)c;
            continue;
        }
        c = s->p < s->end ? *s->p++ : 0;
        const char *at = c ? strchr(escapes, c) : NULL;
        uint32_t code;
        if (at)
            *out++ = meanings[at - escapes];
        else if (c == 'u' && read_escape(s, &code))
            out = put_utf8(out, code);
        else
            return malformed(s, "a string has an escape that is malformed or NUL");
    }
    if (out - s->names > BW_MAX_NAME)
        return malformed(s, "a string is longer than 64 KiB");
    *out++ = '\0';
    *text = s->names;
    s->names = out;
    return BW_OK;
}

static bw_status read_integer(scanner *s, const char *what, uint64_t *value)
{
    int c = peek(s);
    if (c < '0' || c > '9')
        return bw_fail(s->err, BW_E_FORMAT, "%s: header byte %llu: %s must be integers from 0 up; the file is damaged",
                       s->path, (unsigned long long)(s->p - s->text), what);
    if (c == '0' && s->p + 1 < s->end && s->p[1] >= '0' && s->p[1] <= '9')
        return malformed(s, "a number begins with 0");
    *value = 0;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++)
        if (__builtin_mul_overflow(*value, 10u, value) || __builtin_add_overflow(*value, (uint64_t)(*s->p - '0'), value))
            return malformed(s, "a number does not fit 64 bits");
    if (s->p < s->end && (*s->p == '.' || *s->p == 'e' || *s->p == 'E'))
        return bw_fail(s->err, BW_E_FORMAT, "%s: header byte %llu: %s must be written as integers; the file is damaged",
                       s->path, (unsigned long long)(s->p - s->text), what);
    return BW_OK;
}

static bool take_digits(scanner *s)
{
    const unsigned char *start = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return s->p > start;
}

static bool at_one_of(const scanner *s, int a, int b)
{
    return s->p < s->end && (*s->p == a || *s->p == b);
}

/* -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?   What follows is the caller's to judge. */
static bool skip_number(scanner *s)
{
    s->p += at_one_of(s, '-', '-');
    if (at_one_of(s, '0', '0'))
        s->p++;
    else if (!take_digits(s))
        return false;
    if (at_one_of(s, '.', '.')) {
        s->p++;
        if (!take_digits(s))
            return false;
    }
    if (at_one_of(s, 'e', 'E')) {
        s->p++;
        s->p += at_one_of(s, '+', '-');
        return take_digits(s);
    }
    return true;
}

static bool skip_word(scanner *s, const char *word)
{
    const size_t n = strlen(word);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return false;
    s->p += n;
    return true;
}

static bw_status skip_value(scanner *s, int depth);

static bw_status skip_list(scanner *s, int depth)
{
    bw_status st;
    s->p++;
    if (take(s, ']'))
        return BW_OK;
    do {
        if ((st = skip_value(s, depth + 1)))
            return st;
    } while (take(s, ','));
    return take(s, ']') ? BW_OK : malformed(s, "a list does not end");
}

static bw_status skip_object(scanner *s, int depth)
{
    const char *keys[MAX_INNER_KEYS];
    int n = 0;
    bw_status st;
    s->p++;
    if (take(s, '}'))
        return BW_OK;
    do {
        if (n == MAX_INNER_KEYS)
            return malformed(s, "an object of an unknown key has more than 64 keys");
        if ((st = read_string(s, &keys[n])))
            return st;
        for (int i = 0; i < n; i++)
            if (strcmp(keys[i], keys[n]) == 0)
                return malformed(s, "a key stands twice in one object");
        n++;
        if (!take(s, ':'))
            return malformed(s, "a colon is expected here");
        if ((st = skip_value(s, depth + 1)))
            return st;
    } while (take(s, ','));
    return take(s, '}') ? BW_OK : malformed(s, "an object does not end");
}

/* Any value, for a key we do not know; not used, but it must be JSON. */
static bw_status skip_value(scanner *s, int depth)
{
    const int c = peek(s);
    char *names = s->names;
    const char *text;
    bw_status st = BW_OK;
    if ((c == '{' || c == '[') && depth > MAX_DEPTH)
        return malformed(s, "values are nested deeper than 4 levels");
    if (c == '"')
        st = read_string(s, &text);
    else if (c == '{')
        st = skip_object(s, depth);
    else if (c == '[')
        st = skip_list(s, depth);
    else if (!skip_word(s, "true") && !skip_word(s, "false") && !skip_word(s, "null") && !skip_number(s))
        st = malformed(s, "a value is expected here");
    s->names = names;
    return st;
}

/* ---- entries ------------------------------------------------------------------------------------- */

static bw_status read_list(scanner *s, const char *what, uint64_t *values, int room, int *n)
{
    bw_status st;
    *n = 0;
    if (!take(s, '['))
        return malformed(s, "a list is expected here");
    if (take(s, ']'))
        return BW_OK;
    do {
        if (*n == room)
            return bw_fail(s->err, BW_E_FORMAT, "%s: header byte %llu: %s has more than %d entries", s->path,
                           (unsigned long long)(s->p - s->text), what, room);
        if (peek(s) == '[' || peek(s) == '{')
            return bw_fail(s->err, BW_E_FORMAT, "%s: header byte %llu: %s is nested; a flat list is expected", s->path,
                           (unsigned long long)(s->p - s->text), what);
        if ((st = read_integer(s, what, &values[(*n)++])))
            return st;
    } while (take(s, ','));
    return take(s, ']') ? BW_OK : malformed(s, "a list does not end");
}

/* Strings to strings; the facts in it decide nothing here. */
static bw_status read_metadata(scanner *s)
{
    const char *keys[MAX_METADATA], *value;
    int n = 0;
    bw_status st;
    if (!take(s, '{'))
        return malformed(s, "__metadata__ must be an object of strings");
    if (take(s, '}'))
        return BW_OK;
    do {
        if (n == MAX_METADATA)
            return malformed(s, "__metadata__ has more than 2,000 keys");
        if ((st = read_string(s, &keys[n])))
            return st;
        for (int i = 0; i < n; i++)
            if (strcmp(keys[i], keys[n]) == 0)
                return malformed(s, "a key of __metadata__ stands there twice");
        n++;
        if (!take(s, ':') || peek(s) != '"')
            return malformed(s, "__metadata__ must map strings to strings");
        char *names = s->names;
        if ((st = read_string(s, &value)))
            return st;
        s->names = names;
    } while (take(s, ','));
    return take(s, '}') ? BW_OK : malformed(s, "__metadata__ does not end");
}

static const struct element *find_element(const char *name)
{
    for (size_t i = 0; i < BW_COUNT(elements); i++)
        if (strcmp(elements[i].name, name) == 0)
            return &elements[i];
    return NULL;
}

/* Type, shape and range agree; nothing here touches the file yet. */
static bw_status check_entry(scanner *s, bw_tensor *t, const char *dtype, const uint64_t *range, int n_range)
{
    const struct element *e = find_element(dtype);
    char shape[160];
    uint64_t bits;
    bool overflow = false, empty = false;
    if (!e)
        return bw_fail(s->err, BW_E_UNSUPPORTED, "%s: tensor %s has the unknown dtype %.40s", s->path, t->name, dtype);
    bw_shape_text(shape, sizeof shape, t->shape, t->n_dims);
    bits = (uint64_t)e->bits;
    for (int i = 0; i < t->n_dims; i++) {
        overflow |= __builtin_mul_overflow(bits, t->shape[i], &bits);
        empty |= t->shape[i] == 0;
    }
    if (overflow && !empty)
        return bw_fail(s->err, BW_E_FORMAT, "%s: tensor %s: the size of shape %s overflows 64 bits; the file is damaged",
                       s->path, t->name, shape);
    if (empty)
        bits = 0;
    if (bits % 8)
        return bw_fail(s->err, BW_E_FORMAT, "%s: tensor %s: shape %s of %s is no whole number of bytes", s->path, t->name,
                       shape, e->name);
    if (n_range != 2 || range[0] > range[1])
        return bw_fail(s->err, BW_E_FORMAT, "%s: tensor %s: data_offsets must be a begin and an end that is no smaller",
                       s->path, t->name);
    if (range[1] - range[0] != bits / 8)
        return bw_fail(s->err, BW_E_FORMAT, "%s: tensor %s: shape %s of %s needs %" PRIu64 " bytes, data_offsets give it %" PRIu64,
                       s->path, t->name, shape, e->name, bits / 8, range[1] - range[0]);
    t->type_name = e->name;
    t->readable = e->readable;
    t->type = e->type;
    t->bytes = bits / 8;
    return BW_OK;
}

static bw_status read_entry(scanner *s, bw_tensor *t, span *where)
{
    const char *key, *dtype = NULL, *extra[MAX_EXTRA];
    uint64_t range[2];
    int n_range = -1, n_extra = 0;
    bool shape = false;
    bw_status st = BW_OK;
    if (!take(s, '{'))
        return malformed(s, "a tensor must be an object with dtype, shape and data_offsets");
    if (peek(s) != '}') {
        do {
            if ((st = read_string(s, &key)))
                return st;
            if (!take(s, ':'))
                return malformed(s, "a colon is expected here");
            bool twice = false;
            if (strcmp(key, "dtype") == 0) {
                twice = dtype != NULL;
                st = read_string(s, &dtype);
            } else if (strcmp(key, "shape") == 0) {
                twice = shape;
                shape = true;
                st = read_list(s, "shape", t->shape, BW_MAX_DIMS, &t->n_dims);
            } else if (strcmp(key, "data_offsets") == 0) {
                twice = n_range >= 0;
                st = read_list(s, "data_offsets", range, 2, &n_range);
            } else {
                for (int i = 0; i < n_extra; i++)
                    twice |= strcmp(extra[i], key) == 0;
                if (n_extra == MAX_EXTRA)
                    return malformed(s, "a tensor has more than 8 unknown keys");
                extra[n_extra++] = key;
                bw_log(BW_LOG_WARNING, "%s: tensor %s has the unknown key %.64s, not used", s->path, t->name, key);
                st = skip_value(s, 3);
            }
            if (st)
                return st;
            if (twice)
                return bw_fail(s->err, BW_E_FORMAT, "%s: tensor %s has the key %.64s twice: two readers would see two models",
                               s->path, t->name, key);
        } while (take(s, ','));
    }
    if (!take(s, '}'))
        return malformed(s, "the entry of a tensor does not end");
    if (!dtype || !shape || n_range < 0)
        return bw_fail(s->err, BW_E_FORMAT, "%s: tensor %s lacks %s; the file is damaged", s->path, t->name,
                       !dtype ? "dtype" : !shape ? "shape" : "data_offsets");
    if ((st = check_entry(s, t, dtype, range, n_range)))
        return st;
    s->names = (char *)t->name + strlen(t->name) + 1; /* keys and dtype are no longer needed */
    *where = (span){ range[0], range[1], t->name };
    return BW_OK;
}

/* ---- the whole header ---------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const span *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* The ranges tile the data exactly: no hole, no overlap, nothing missing, nothing behind. */
static bw_status check_spans(const char *path, span *spans, size_t n, uint64_t header_bytes, uint64_t room, bw_error *err)
{
    uint64_t at = 0, last = 0;
    for (size_t i = 0; i < n; i++)
        last = spans[i].end > last ? spans[i].end : last;
    if (last > room)
        return bw_fail(err, BW_E_FORMAT, "%s: the file is cut off: %" PRIu64 " bytes, its header describes %" PRIu64
                       "; download it again", path, header_bytes + room,
                       last > UINT64_MAX - header_bytes ? UINT64_MAX : header_bytes + last);
    if (n)
        qsort(spans, n, sizeof *spans, by_place);
    for (size_t i = 0; i < n; i++) {
        if (spans[i].begin != at)
            return bw_fail(err, BW_E_FORMAT, "%s: tensor %s begins at byte %" PRIu64 " of the data, the one before ends at %"
                           PRIu64 ": %s; the file is damaged", path, spans[i].name, spans[i].begin, at,
                           spans[i].begin > at ? "a hole" : "they overlap");
        at = spans[i].end;
    }
    if (at != room)
        return bw_fail(err, BW_E_FORMAT, "%s: %" PRIu64 " bytes follow the last tensor (file %" PRIu64 ", header describes %"
                       PRIu64 "): the file was appended to, download it again", path, room - at, header_bytes + room,
                       header_bytes + at);
    return BW_OK;
}

static bw_status add_span(span **spans, size_t *n, size_t *room, const span *one, const char *path, bw_error *err)
{
    if (*n == *room) {
        size_t more = *room ? *room * 2 : 64;
        span *grown = bw_mem_realloc(*spans, more * sizeof *grown, BW_MEM_MISC);
        if (!grown)
            return bw_fail_memory(err, path, more * sizeof *grown);
        *spans = grown;
        *room = more;
    }
    (*spans)[(*n)++] = *one;
    return BW_OK;
}

static bw_status check_length(const char *path, const unsigned char *data, uint64_t bytes, uint64_t *n, bw_error *err)
{
    bw_status st = bw_check_impostor(path, data, bytes, err);
    if (st)
        return st;
    if (bytes < 8)
        return bw_fail(err, BW_E_FORMAT, "%s: %" PRIu64 " bytes are too short for a safetensors file", path, bytes);
    *n = 0;
    for (int i = 7; i >= 0; i--)
        *n = *n << 8 | data[i];
    if (*n < 2 || *n > MAX_HEADER)
        return bw_fail(err, BW_E_FORMAT, "%s: a header of %" PRIu64 " bytes is impossible (first bytes %02x %02x %02x %02x %02x "
                       "%02x %02x %02x): this is not a safetensors file", path, *n, data[0], data[1], data[2], data[3], data[4],
                       data[5], data[6], data[7]);
    if (*n > bytes - 8)
        return bw_fail(err, BW_E_FORMAT, "%s: the file is cut off inside its header: %" PRIu64 " bytes, the header alone has %" PRIu64
                       "; download it again", path, bytes, *n);
    if (data[8] != '{')
        return bw_fail(err, BW_E_FORMAT, "%s: the header begins with byte %02x instead of '{': this is not a safetensors file",
                       path, data[8]);
    if (bw_utf8_valid_prefix((const char *)data + 8, *n) != *n)
        return bw_fail(err, BW_E_FORMAT, "%s: the header is not valid UTF-8; the file is damaged, download it again", path);
    return BW_OK;
}

bw_status bw_safetensors_parse(bw_checkpoint *c, const char *path, const unsigned char *data, uint64_t bytes, int file,
                               bw_error *err)
{
    span *spans = NULL;
    size_t n_spans = 0, spans_room = 0;
    uint64_t n = 0;
    bool metadata = false;
    bw_status st = check_length(path, data, bytes, &n, err);
    if (st)
        return st;
    char *names = bw_parts_names(c, (size_t)n + 1);
    if (!names)
        return bw_fail_memory(err, path, (size_t)n + 1);
    scanner s = { path, data + 8, data + 9, data + 8 + n, names, err };
    const unsigned char *const buffer = data + 8 + n;
    const uint64_t room = bytes - 8 - n;
    if (!take(&s, '}')) {
        do {
            bw_tensor t = { .file = file };
            span where;
            if ((st = read_string(&s, &t.name)))
                goto out;
            if (!take(&s, ':')) {
                st = malformed(&s, "a colon is expected here");
                goto out;
            }
            if (strcmp(t.name, "__metadata__") == 0) {
                st = metadata ? malformed(&s, "__metadata__ stands there twice") : read_metadata(&s);
                metadata = true;
                if (st)
                    goto out;
                continue;
            }
            if ((st = read_entry(&s, &t, &where)))
                goto out;
            if (t.bytes && where.begin < room) /* checked as a whole below, before anyone reads */
                t.data = buffer + where.begin;
            if ((st = add_span(&spans, &n_spans, &spans_room, &where, path, err)) || (st = bw_parts_add_tensor(c, &t, err)))
                goto out;
        } while (take(&s, ','));
        if (!take(&s, '}')) {
            st = malformed(&s, "the header does not end");
            goto out;
        }
    }
    while (s.p < s.end && *s.p == ' ')
        s.p++;
    if (s.p < s.end)
        st = malformed(&s, "something other than spaces follows the header's end");
    else
        st = check_spans(path, spans, n_spans, 8 + n, room, err);
out:
    bw_mem_free(spans);
    return st;
}
