/* A chat request: the first byte picks the variant, the rest is the JSON. */
#include <stdlib.h>
#include <string.h>

#include "text/chat.h"
#include "text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    bw_chat_prompt prompt;
    bw_error err;
    if (n == 0)
        return 0;
    bw_chat_recognise((const char *)data + 1, n - 1);
    bw_chat_variant variant = data[0] == '5' ? BW_CHAT_35 : data[0] == '8' ? BW_CHAT_38 : BW_CHAT_36;
    if (bw_chat_render(&prompt, variant, (const char *)data + 1, n - 1, &err)) {
        if (!err.message[0] || strchr(err.message, '\n'))
            abort();
        return 0;
    }
    size_t at = 0;
    for (size_t i = 0; i < prompt.n_segments; i++) {
        const bw_chat_segment *s = &prompt.segments[i];
        if (s->text != prompt.text + at || !s->n_bytes || (i && s->is_markup == s[-1].is_markup))
            abort();
        at += s->n_bytes;
    }
    if (at != prompt.n_bytes || bw_utf8_valid_prefix(prompt.text, at) != at)
        abort();
    bw_chat_prompt_fini(&prompt);
    return 0;
}
