/* status.c - writes error messages. No state, any thread. */
#include "base/status.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

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

bw_status bw_fail(bw_error *err, bw_status st, const char *format, ...)
{
    if (!err)
        return st;
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    drop_torn_character(err->message, sizeof err->message);
    bw_utf8_one_line(err->message); /* names from files go into messages, whatever bytes they hold */
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
    bw_utf8_one_line(err->message); /* names from files go into messages, whatever bytes they hold */
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
