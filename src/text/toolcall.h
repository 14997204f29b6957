/* toolcall.h - finds tool calls in the content of an answer, as it comes.
 *
 * A byte machine over decoded text, after reasoning.h: however the text is cut into pushes, the
 * events are the same once neighbouring TEXT events are joined. Nothing is lost: what is not part
 * of a call comes out as text.
 *
 *     <tool_call>\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n</function>\n</tool_call>
 *
 * Tolerated (docs/chat-format.md has the reasons):
 *   - no <tool_call>, where NAME is one of the tools;
 *   - no </parameter>, where </function> and what follows it come, or a line starts with
 *     <parameter=KEY> and KEY is one of the tool's that this call has not set;
 *   - </parameter> and </function> inside a value, where what follows is no continuation;
 *   - a call that begins before the last one was closed; an answer that ends inside a call.
 * White space between the tags, line ends just before and after a call, and one line end at each
 * end of a value belong to the syntax.
 *
 * A value is typed by the tool's JSON schema for its key (type, nullable, anyOf, oneOf): raw text
 * where a string is allowed or nothing is known; else null (or None), a number, true or false in
 * any case, an array or object; what does not parse stays a string. A float without fraction
 * becomes an integer. A value is held whole until its end is certain, so the bound of what is held
 * is the bound of the answer. Threads: one at a time. */
#ifndef BW_TEXT_TOOLCALL_H
#define BW_TEXT_TOOLCALL_H

#include "base/status.h"

typedef enum bw_toolcall_kind {
    BW_TOOLCALL_TEXT,     /* text: content outside calls */
    BW_TOOLCALL_START,    /* text: the function's name */
    BW_TOOLCALL_ARGUMENT, /* text: the key; value: its value as JSON */
    BW_TOOLCALL_END
} bw_toolcall_kind;

typedef struct bw_toolcall_event {
    bw_toolcall_kind kind;
    const char *text; /* valid UTF-8 for names and keys; NULL at END */
    size_t n_bytes;
    const char *value; /* ARGUMENT only */
    size_t value_bytes;
    bool complete; /* END: false when the answer ended inside the call: its last value may be cut */
} bw_toolcall_event;

typedef void (*bw_toolcall_fn)(void *arg, const bw_toolcall_event *event);

typedef struct bw_toolcall bw_toolcall;

/* tools_json: the request's "tools", a JSON array of {"type": "function", "function": {"name": ...,
 * "parameters": {...}}} or of {"name": ..., "parameters": ...}; n_bytes 0: none. fn is called from
 * push and finish; what its event points at is valid during the call.
 * BW_E_FORMAT: tools_json is no JSON; BW_E_ARGUMENT: no array. */
bw_status bw_toolcall_create(bw_toolcall **out, const char *tools_json, size_t n_bytes, bw_toolcall_fn fn,
                             void *arg, bw_error *err);
/* BW_E_MEMORY: the machine is spent; only destroy may follow. */
bw_status bw_toolcall_push(bw_toolcall *toolcall, const char *text, size_t n_bytes, bw_error *err);
/* The end of the answer: delivers what was held back and ends an open call. */
bw_status bw_toolcall_finish(bw_toolcall *toolcall, bw_error *err);
void bw_toolcall_destroy(bw_toolcall *toolcall); /* takes NULL */

#endif
