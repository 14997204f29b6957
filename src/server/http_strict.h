/* http_strict.h - reads the framing of HTTP/1.x requests, byte by byte, and refuses what could be read
 * in two ways. A pure machine: bytes in, events out; no socket, no clock, no route.
 *
 *     bw_strict_init(&s, limits);
 *     do {
 *         used = bw_strict_feed(&s, bytes, n, &event);      // n may be 0
 *         HEAD: s.method, s.target, s.fields ...   BODY: bytes[0 .. used) is body   DONE: bw_strict_reset
 *         bytes += used, n -= used;
 *     } while (event != BW_STRICT_MORE && event != BW_STRICT_REFUSED);
 *
 * Refused: both Content-Length and Transfer-Encoding, lengths that differ or are not plain digits, any
 * transfer coding but chunked, CR or LF alone, control characters, folded lines, white space around a
 * field's name, no Host or two, targets that are no path, versions other than 1.0 and 1.1, and whatever
 * is over a limit. Threads: any, one at a time. */
#ifndef BW_SERVER_HTTP_STRICT_H
#define BW_SERVER_HTTP_STRICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/bytes.h"

typedef struct bw_strict_limits {
    size_t line;    /* bytes of the request line: 8 KiB, then 414 */
    size_t headers; /* bytes of all fields: 64 KiB, then 431; the same again for trailers */
    int fields;     /* 100, then 431 */
    uint64_t body;  /* 64 MiB, then 413: from Content-Length before a byte of it is read */
} bw_strict_limits;

typedef enum bw_strict_event {
    BW_STRICT_MORE,   /* everything was taken; more is wanted */
    BW_STRICT_HEAD,   /* the head is complete; what was taken ends with it */
    BW_STRICT_FRAMING, /* what was taken is framing; body follows */
    BW_STRICT_BODY,   /* what was taken is body */
    BW_STRICT_DONE,   /* the request is complete; what was taken ends with it */
    BW_STRICT_REFUSED /* status, code, message; the machine takes nothing more */
} bw_strict_event;

typedef struct bw_strict {
    bw_strict_limits limits;
    bool started; /* a byte of this request was seen */

    /* The head; valid from HEAD to the reset. */
    const char *method; /* "POST" */
    const char *target; /* "/path?query", from whatever form it was sent in; "*" */
    int minor;          /* HTTP/1.minor: 0 or 1 */
    bool keep_alive, expect_continue, chunked, has_length;
    uint64_t length;    /* 0 without has_length */
    bw_bytes fields;    /* name NUL value NUL ... */
    int n_fields;

    uint64_t n_body; /* bytes of body so far */

    int status; /* REFUSED */
    const char *code, *message;

    /* its own */
    int state;
    bool cr, has_coding, close;
    bw_bytes line, start;
    size_t n_section, n_extensions;
    int n_lines, n_hosts, n_empty;
    uint64_t left;
} bw_strict;

bw_strict_limits bw_strict_default_limits(void);
void bw_strict_init(bw_strict *s, bw_strict_limits limits);
void bw_strict_reset(bw_strict *s); /* for the next request */
void bw_strict_fini(bw_strict *s);

/* Takes at most n bytes, up to the next event; returns how many. */
size_t bw_strict_feed(bw_strict *s, const char *bytes, size_t n, bw_strict_event *event);

/* The value of the first such field, NULL: absent. Names compare without case. `fields` as above. */
const char *bw_strict_field(const char *fields, int n_fields, const char *name);

int bw_strict_hex(char c); /* value of a hexadecimal digit, -1: none */

#endif
