/* utf8.h - what is well-formed UTF-8: no overlong form, no surrogate, nothing above U+10FFFF.
 *
 * The only place that decides it; never allocates, never looks at what a character means beyond
 * control characters. Any thread; no state. */
#ifndef BW_BASE_UTF8_H
#define BW_BASE_UTF8_H

#include <stddef.h>

/* What stands at s[0 .. n), n >= 1: the length of a well-formed character (1 to 4); or -k: the
 * first k bytes are malformed and together become one U+FFFD; or 0: all n bytes are the start of a
 * character that needs more. Malformed stretches are cut as Python's errors='replace' does. */
int bw_utf8_next(const unsigned char *s, size_t n);

/* The bytes of s[0 .. n) before the first malformed one; n when the text is well formed. */
size_t bw_utf8_valid_prefix(const char *text, size_t n);

/* Makes any NUL-terminated bytes one line a terminal can show: a control character (C0, DEL, C1)
 * becomes a space, a malformed byte a question mark. In place; the text never grows. */
void bw_utf8_one_line(char *text);

#endif
