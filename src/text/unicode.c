/* unicode.c - see unicode.h. Composition data come from utf8proc; the order of combining marks is
 * our own, because utf8proc's insertion sort is quadratic in a run of marks and input can be one
 * long run. */
#include "text/unicode.h"

#include <stdio.h>
#include <string.h>

#include <utf8proc.h>

#include "base/mem.h"

static const char replacement[3] = { '\xEF', '\xBF', '\xBD' };

size_t bw_utf8_replace(char *out, const char *text, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        size_t good = bw_utf8_valid_prefix(text + i, n - i);
        memcpy(out + used, text + i, good);
        used += good;
        i += good;
        if (i == n)
            break;
        int k = bw_utf8_next((const unsigned char *)text + i, n - i);
        memcpy(out + used, replacement, 3);
        used += 3;
        i = k == 0 ? n : i + (size_t)-k;
    }
    return used;
}

/* ---- NFC ---- */

static int combining_class(utf8proc_int32_t c)
{
    return c < 0x300 ? 0 : utf8proc_get_property(c)->combining_class;
}

/* Stable order of one run of combining marks by class: counting sort, classes are below 256. */
static void order_marks(utf8proc_int32_t *marks, utf8proc_int32_t *copy, size_t n)
{
    size_t start[257] = { 0 };
    for (size_t i = 0; i < n; i++)
        start[combining_class(marks[i]) + 1]++;
    for (int c = 0; c < 256; c++)
        start[c + 1] += start[c];
    memcpy(copy, marks, n * sizeof *copy);
    for (size_t i = 0; i < n; i++)
        marks[start[combining_class(copy[i])]++] = copy[i];
}

static void order_all_marks(utf8proc_int32_t *points, utf8proc_int32_t *copy, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t end = i;
        bool ordered = true;
        int before = 0;
        for (int c; end < n && (c = combining_class(points[end])) != 0; end++) {
            ordered = ordered && before <= c;
            before = c;
        }
        if (!ordered)
            order_marks(points + i, copy, end - i);
        i = end > i ? end : i + 1;
    }
}

/* Code points after full canonical decomposition; with points NULL only counts them. */
static size_t decompose(utf8proc_int32_t *points, size_t room, const char *text, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        i += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &c);
        utf8proc_int32_t parts[8]; /* canonical decompositions have at most 4 */
        int last_class = 0;
        utf8proc_ssize_t k = utf8proc_decompose_char(c, parts, 8, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &last_class);
        if (k < 1 || k > 8) {
            parts[0] = c;
            k = 1;
        }
        if (points && used + (size_t)k <= room)
            memcpy(points + used, parts, (size_t)k * sizeof *parts);
        used += (size_t)k;
    }
    return used;
}

static bool below_0300(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] >= 0xCC) /* U+0300 is CC 80 */
            return false;
    return true;
}

bw_status bw_nfc(const char **out, size_t *n_out, char **block, const char *text, size_t n, bw_error *err)
{
    *out = text;
    *n_out = n;
    *block = NULL;
    if (below_0300(text, n)) /* nothing composes without a character from U+0300 on */
        return BW_OK;
    size_t count = decompose(NULL, 0, text, n);
    utf8proc_int32_t *points = bw_mem_zalloc(count, 2 * sizeof *points, BW_MEM_TEXT);
    if (!points)
        return bw_fail_memory(err, "putting text into Unicode NFC", 2 * count * sizeof *points);
    decompose(points, count, text, n);
    order_all_marks(points, points + count, count);
    utf8proc_ssize_t composed =
        utf8proc_normalize_utf32(points, (utf8proc_ssize_t)count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    char *bytes = composed < 0 ? NULL : bw_mem_alloc(4 * (size_t)composed + 1, BW_MEM_TEXT);
    if (!bytes) {
        bw_mem_free(points);
        return bw_fail_memory(err, "putting text into Unicode NFC", 4 * count + 1);
    }
    size_t used = 0;
    for (utf8proc_ssize_t i = 0; i < composed; i++)
        used += (size_t)utf8proc_encode_char(points[i], (utf8proc_uint8_t *)bytes + used);
    bytes[used] = '\0';
    bw_mem_free(points);
    *out = *block = bytes;
    *n_out = used;
    return BW_OK;
}

/* ---- the byte alphabet ---- */

static int byte_of(utf8proc_int32_t c)
{
    if ((c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255))
        return c;
    if (c < 0x100 || c > 0x143)
        return -1;
    int k = c - 0x100; /* 0..32, then 127..160, then 173 */
    return k <= 32 ? k : k <= 66 ? 127 + k - 33 : 173;
}

bool bw_alphabet_decode(unsigned char *bytes, size_t *n_bytes, const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        int k = bw_utf8_next(s + i, n - i);
        utf8proc_int32_t c = k == 1 ? s[i] : k == 2 ? (s[i] & 0x1F) << 6 | (s[i + 1] & 0x3F) : -1;
        int b = c < 0 ? -1 : byte_of(c);
        if (b < 0)
            return false;
        bytes[used++] = (unsigned char)b;
        i += (size_t)k;
    }
    *n_bytes = used;
    return true;
}

const char *bw_text_quote(char *out, size_t size, const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t used = 0;
    out[used++] = '"';
    for (size_t i = 0; i < n;) {
        int k = bw_utf8_next(s + i, n - i);
        if (used + 12 > size) { /* the longest item, the dots, the mark, the NUL */
            memcpy(out + used, "...", 3);
            used += 3;
            break;
        }
        if (k <= 0 || s[i] < 32 || s[i] == 127) {
            used += (size_t)snprintf(out + used, size - used, "\\x%02x", s[i]);
            i++;
            continue;
        }
        if (s[i] == '"' || s[i] == '\\')
            out[used++] = '\\';
        memcpy(out + used, s + i, (size_t)k);
        used += (size_t)k;
        i += (size_t)k;
    }
    out[used++] = '"';
    out[used] = '\0';
    return out;
}
