/* status.c - writes error messages. No state, any thread. */
#include "base/status.h"

#include <stdio.h>
#include <string.h>

/* snprintf cuts bytes, not characters: drop the torn tail of a UTF-8 sequence. */
static void drop_torn_character(char *text, size_t size)
{
    size_t n = strlen(text);
    if (n + 1 < size)
        return;
    size_t i = n;
    while (i > 0 && ((unsigned char)text[i - 1] & 0xC0) == 0x80)
        i--;
    if (i > 0 && ((unsigned char)text[i - 1] & 0x80))
        text[i - 1] = '\0';
}

/* Length of the well-formed UTF-8 character at p, 0 if there is none. */
static int character(const unsigned char *p)
{
    const int n = p[0] < 0x80 ? 1 : p[0] >= 0xC2 && p[0] < 0xE0 ? 2 : p[0] >= 0xE0 && p[0] < 0xF0 ? 3 : p[0] >= 0xF0 && p[0] < 0xF5 ? 4 : 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80) /* also the terminating NUL */
            return 0;
    return n;
}

/* Names from files go into messages: whatever bytes they hold, a message is one line of UTF-8. */
static void keep_one_line(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p;) {
        int n = character(p);
        if (n <= 1 && (n == 0 || *p < 0x20 || *p == 0x7F))
            *p = n ? ' ' : '?';
        p += n ? n : 1;
    }
}

bw_status bw_fail(bw_error *err, bw_status st, const char *format, ...)
{
    if (!err)
        return st;
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    drop_torn_character(err->message, sizeof err->message);
    keep_one_line(err->message);
    err->status = st;
    return st;
}

bw_status bw_fail_prefix(bw_error *err, const char *format, ...)
{
    if (!err)
        return BW_E_INTERNAL;
    bw_error old = *err;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->message)
        snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s", old.message);
    drop_torn_character(err->message, sizeof err->message);
    keep_one_line(err->message);
    return old.status;
}

bw_status bw_fail_memory(bw_error *err, const char *what, size_t bytes)
{
    return bw_fail(err, BW_E_MEMORY, "%s: out of memory (%zu bytes wanted)", what, bytes);
}

const char *bw_status_name(bw_status st)
{
    static const char *const names[] = {
        [BW_OK] = "ok",           [BW_E_ARGUMENT] = "argument", [BW_E_IO] = "io",
        [BW_E_FORMAT] = "format", [BW_E_UNSUPPORTED] = "unsupported",
        [BW_E_MEMORY] = "memory", [BW_E_LIMIT] = "limit",       [BW_E_BUSY] = "busy",
        [BW_E_INTERNAL] = "internal",
    };
    return (size_t)st < BW_COUNT(names) ? names[st] : "unknown";
}

const char *bw_version(void)
{
    return BW_VERSION;
}
