/* status.h - how every failure in the tree is reported: a code to act on, a message to read.
 *
 * bw_status and bw_error are the public ones of bellwether.h: an error travels unchanged from the
 * byte that caused it to the caller of the library. */
#ifndef BW_BASE_STATUS_H
#define BW_BASE_STATUS_H

#include <stdarg.h>
#include <stddef.h>

#include "bellwether.h"

#define BW_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Writes the message into *err (which may be NULL) and returns st, so that a failing function ends
 * in `return bw_fail(err, ...)`. A message says what was being done, to what, what was found, what
 * was expected and what to do. Longer ones are cut at sizeof err->message, on a character. */
bw_status bw_fail(bw_error *err, bw_status st, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "format: " before the message that *err already holds; returns its status. */
bw_status bw_fail_prefix(bw_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* BW_E_MEMORY with "<what>: out of memory (N bytes)". */
bw_status bw_fail_memory(bw_error *err, const char *what, size_t bytes);

#endif
