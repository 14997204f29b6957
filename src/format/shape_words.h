/* shape_words.h - a tokenizer and chat template to put into a synthetic model, so that a server's text routes can
 * be timed with it. Private to src/format. */
#ifndef BW_FORMAT_SHAPE_WORDS_H
#define BW_FORMAT_SHAPE_WORDS_H

#include "base/status.h"

struct json_object;

typedef struct bw_shape_words {
    struct json_object *tokenizer, *settings; /* own what the pointers below point to */
    const char **texts;       /* [n] by id; NULL: no token has it */
    unsigned char *types;     /* [n] as GGUF counts them */
    int n, end_of_turn;
    struct json_object *merges; /* array */
    char *chat_template;
} bw_shape_words;

enum { BW_WORD_NORMAL = 1, BW_WORD_CONTROL = 3, BW_WORD_USER_DEFINED = 4, BW_WORD_UNUSED = 5 }; /* token types of GGUF */

/* Reads a folder's tokenizer.json, the tokens tokenizer_config.json adds to it, and chat_template.jinja.
 * BW_E_FORMAT: one is missing or malformed, or has an id beyond the model's `rows`. */
bw_status bw_shape_words_init(bw_shape_words *words, const char *folder, int rows, bw_error *err);
void bw_shape_words_fini(bw_shape_words *words); /* takes a zeroed one */

#endif
