/* reasoning.h - splits an answer, as it comes, into reasoning and content.
 *
 * A byte machine over decoded text: however the text is cut into pushes, the reasoning joined and
 * the content joined come out the same. It holds back what it cannot decide yet, never more than
 * some 200 bytes. Rules, in order:
 *   - `<think>` at the very start, after white space or not, is removed (the prompt opened it).
 *   - Thinking: all is reasoning up to the first `</think>`; what follows is content. Line ends
 *     around the reasoning and before the content belong to the format and are dropped.
 *   - Thinking: `<tool_call>` also ends the reasoning if `<function` follows after white space;
 *     the content then starts with `<tool_call>`. Otherwise it is part of the reasoning.
 *   - Thinking and neither of them: all is reasoning (the answer was cut short).
 *   - Not thinking: all is content.
 * Of a run of line ends at most 64 are dropped or held, and white space is looked through for at
 * most 64 bytes: more is text. Threads: one at a time. */
#ifndef BW_TEXT_REASONING_H
#define BW_TEXT_REASONING_H

#include "base/status.h"

typedef struct bw_reasoning bw_reasoning;

/* thinking: the prompt ended inside an open think block (bw_chat_prompt.thinking). fn is called
 * from push and finish with n_bytes > 0; its text is valid during the call. */
bw_status bw_reasoning_create(bw_reasoning **out, bool thinking, bw_reply_fn fn, void *arg, bw_error *err);
/* BW_E_MEMORY: nothing of this push was taken. */
bw_status bw_reasoning_push(bw_reasoning *reasoning, const char *text, size_t n_bytes, bw_error *err);
/* The end of the answer: delivers what was held back. Nothing may be pushed after it. Cannot fail. */
void bw_reasoning_finish(bw_reasoning *reasoning);
void bw_reasoning_destroy(bw_reasoning *reasoning); /* takes NULL */

#endif
