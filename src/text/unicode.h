/* unicode.h - UTF-8 made whole (what is whole: base/utf8.h), Unicode NFC, and the byte alphabet of
 * byte-level BPE.
 *
 * Never looks at tokens. Any thread; no state. */
#ifndef BW_TEXT_UNICODE_H
#define BW_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/utf8.h"

/* Copies with every malformed stretch as U+FFFD; out has room for 3 n bytes. Returns the bytes
 * written. An unfinished character at the end is malformed too. */
size_t bw_utf8_replace(char *out, const char *text, size_t n);

/* Well-formed UTF-8 to NFC in time linear in n. *out is `text` itself when nothing had to be
 * looked at (all below U+0300), and *block NULL; otherwise *out is *block, the caller's to free. */
bw_status bw_nfc(const char **out, size_t *n_out, char **block, const char *text, size_t n, bw_error *err);

/* Byte-level BPE writes each byte as one printable character: bytes 33..126, 161..172, 174..255
 * stand for themselves, the other 68 are U+0100 and on, in order. Decodes a token written so into
 * bytes (room for n). False: a character outside the alphabet; nothing useful was written. */
bool bw_alphabet_decode(unsigned char *bytes, size_t *n_bytes, const char *text, size_t n);

/* "text" between quotation marks for a message: printable, escaped, shortened. Returns out. */
const char *bw_text_quote(char *out, size_t size, const char *text, size_t n);

#endif
