/* bytes.c - see bytes.h. */
#include "text/bytes.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

static bool grow(bw_bytes *bytes, size_t n)
{
    if (bytes->failed || n >= SIZE_MAX / 2 - bytes->n) {
        bytes->failed = true;
        return false;
    }
    size_t wanted = bytes->n + n + 1;
    if (wanted <= bytes->room)
        return true;
    size_t room = bytes->room < 32 ? 64 : bytes->room * 2;
    if (room < wanted)
        room = wanted;
    char *data = bw_mem_realloc(bytes->data, room, BW_MEM_TEXT);
    if (!data) {
        bytes->failed = true;
        return false;
    }
    bytes->data = data;
    bytes->room = room;
    return true;
}

void bw_bytes_add(bw_bytes *bytes, const void *block, size_t n)
{
    if (!grow(bytes, n))
        return;
    if (n)
        memcpy(bytes->data + bytes->n, block, n);
    bytes->n += n;
    bytes->data[bytes->n] = '\0';
}

void bw_bytes_add_str(bw_bytes *bytes, const char *text)
{
    bw_bytes_add(bytes, text, strlen(text));
}

void bw_bytes_add_char(bw_bytes *bytes, char c)
{
    bw_bytes_add(bytes, &c, 1);
}

void bw_bytes_add_rune(bw_bytes *bytes, unsigned rune)
{
    char utf8[4];
    size_t n = rune < 0x80 ? 1 : rune < 0x800 ? 2 : rune < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = { 0, 0x00, 0xC0, 0xE0, 0xF0 };
    for (size_t i = n - 1; i > 0; i--, rune >>= 6)
        utf8[i] = (char)(0x80 | (rune & 0x3F));
    utf8[0] = (char)(lead[n] | rune);
    bw_bytes_add(bytes, utf8, n);
}

void bw_bytes_drop(bw_bytes *bytes, size_t n)
{
    if (!n)
        return;
    memmove(bytes->data, bytes->data + n, bytes->n - n);
    bytes->n -= n;
    bytes->data[bytes->n] = '\0';
}

void bw_bytes_fini(bw_bytes *bytes)
{
    bw_mem_free(bytes->data);
    *bytes = (bw_bytes){ 0 };
}
