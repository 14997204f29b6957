/* utf8.c - see utf8.h. No state, any thread. */
#include "base/utf8.h"

#include <string.h>

/* Bytes after the lead byte, and the range the second byte must be in (Unicode, table 3-7). */
static int tail_length(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 1;
    if (lead >= 0xE0 && lead <= 0xEF) {
        if (lead == 0xE0)
            *low = 0xA0; /* shorter forms exist */
        if (lead == 0xED)
            *high = 0x9F; /* surrogates */
        return 2;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        if (lead == 0xF0)
            *low = 0x90;
        if (lead == 0xF4)
            *high = 0x8F; /* above U+10FFFF */
        return 3;
    }
    return -1;
}

int bw_utf8_next(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80)
        return 1;
    unsigned char low, high;
    int tail = tail_length(s[0], &low, &high);
    if (tail < 0)
        return -1;
    for (int i = 1; i <= tail; i++) {
        if ((size_t)i == n)
            return 0;
        if (s[i] < low || s[i] > high)
            return -i;
        low = 0x80;
        high = 0xBF;
    }
    return tail + 1;
}

size_t bw_utf8_valid_prefix(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;
    while (i < n) {
        int k = s[i] < 0x80 ? 1 : bw_utf8_next(s + i, n - i);
        if (k <= 0)
            break;
        i += (size_t)k;
    }
    return i;
}

void bw_utf8_one_line(char *text)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + strlen(text);
    while (p < end) {
        const int k = bw_utf8_next(p, (size_t)(end - p));
        if (k <= 0)
            *text++ = '?';
        else if (*p < 0x20 || *p == 0x7F || (*p == 0xC2 && p[1] < 0xA0))
            *text++ = ' ';
        else
            for (int i = 0; i < k; i++)
                *text++ = (char)p[i];
        p += k > 0 ? k : 1;
    }
    *text = '\0';
}
