/* toolcall_value.h - the text of a tool call's argument as JSON, typed by the tool's schema.
 *
 * Part of toolcall.c's work, apart from its byte machine. Threads: no state. */
#ifndef BW_TEXT_TOOLCALL_VALUE_H
#define BW_TEXT_TOOLCALL_VALUE_H

#include "text/bytes.h"
#include "text/pyjson.h"

/* Appends the JSON of value. schema: of the key, NULL when nothing is known of it. */
void bw_toolcall_print_value(bw_bytes *out, const bw_json *schema, const char *value, size_t n_bytes);

#endif
