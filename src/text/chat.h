/* chat.h - a conversation to the prompt text of the Qwen3.5 / 3.6 / 3.8 chat format.
 *
 * Renders in C, byte for byte, what the chat templates of these checkpoints render; never runs a
 * template, never tokenises. The format in our words: docs/chat-format.md.
 * Threads: no state; any thread. */
#ifndef BW_TEXT_CHAT_H
#define BW_TEXT_CHAT_H

#include "base/status.h"

typedef enum bw_chat_variant {
    BW_CHAT_35, /* historic reasoning always dropped; booleans and null of arguments as Python text */
    BW_CHAT_36, /* reasoning kept on demand; every argument that is no string as JSON */
    BW_CHAT_38  /* as 3.6, but reasoning kept by default and never looked for in the content; a
                   sentence on reasoning effort opens the system turn */
} bw_chat_variant;

typedef struct bw_chat_format {
    bw_chat_variant variant;
    bool known; /* false: no template, or one never seen: 3.6 is assumed and the caller says so */
} bw_chat_format;

/* "3.5", "3.6", "3.8" */
const char *bw_chat_variant_name(bw_chat_variant variant);

/* Which format a checkpoint's template writes, by the SHA-256 of its text; line ends at its very
 * end do not count. text NULL: the checkpoint has none. */
bw_chat_format bw_chat_recognise(const char *text, size_t n_bytes);

/* Who wrote a stretch of the prompt. In markup, which the format wrote, added tokens are matched.
 * A body is text of the conversation (contents, reasoning, tools, names, keys, values, results):
 * no special token may be matched in it, or text could end its own turn. Ordinary tokens do run
 * across the border, as in one text: "\n" of the markup and "\n" of a body are one token. */
typedef struct bw_chat_segment {
    const char *text; /* points into the prompt's text */
    size_t n_bytes;   /* > 0 */
    bool is_markup;   /* neighbours differ in it */
} bw_chat_segment;

typedef struct bw_chat_prompt {
    char *text; /* the whole prompt, all segments joined, NUL-terminated, valid UTF-8 */
    size_t n_bytes;
    bw_chat_segment *segments;
    size_t n_segments;
    bool thinking; /* the prompt ends inside an open think block: the answer starts with reasoning */
} bw_chat_prompt;

/* Renders the JSON object
 *     {"messages": [...], "tools": [...], "add_generation_prompt": true, "enable_thinking": true,
 *      "preserve_thinking": ..., "add_vision_id": false, "reasoning_effort": "xhigh"}
 * where all but messages may be absent or null; values shown are the defaults, preserve_thinking's
 * is false, for 3.8 true; reasoning_effort (xhigh, medium, low) is for 3.8 only. Other members are
 * ignored. The caller calls bw_chat_prompt_fini(out) after success.
 * BW_E_FORMAT: not JSON. BW_E_ARGUMENT: what the format refuses, or a value of the wrong type; the
 * message begins with its path, such as messages[3].content. */
bw_status bw_chat_render(bw_chat_prompt *out, bw_chat_variant variant, const char *request, size_t n_bytes,
                         bw_error *err);
void bw_chat_prompt_fini(bw_chat_prompt *prompt); /* takes an empty one */

#endif
