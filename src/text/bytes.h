/* bytes.h - a string of bytes that grows, for text built piece by piece.
 *
 * Failure sticks: after an allocation failed every further addition does nothing, so that a
 * writer reads straight down and asks `failed` once, at its end. Any thread, one at a time. */
#ifndef BW_TEXT_BYTES_H
#define BW_TEXT_BYTES_H

#include <stdbool.h>
#include <stddef.h>

typedef struct bw_bytes {
    char *data;  /* NUL-terminated once something was added; NULL before */
    size_t n;    /* without the NUL */
    size_t room; /* bytes of data */
    bool failed; /* out of memory; the contents are what was there before */
} bw_bytes;      /* all zero: empty */

void bw_bytes_add(bw_bytes *bytes, const void *block, size_t n);
void bw_bytes_add_str(bw_bytes *bytes, const char *text);
void bw_bytes_add_char(bw_bytes *bytes, char c);
/* UTF-8 of a code point below 0x110000 that is no surrogate. */
void bw_bytes_add_rune(bw_bytes *bytes, unsigned rune);
/* Removes the first n (<= bytes->n). */
void bw_bytes_drop(bw_bytes *bytes, size_t n);
void bw_bytes_fini(bw_bytes *bytes);

#endif
