/* tokenizer.h - text to token ids and back: byte-level BPE as the model family uses it.
 *
 * Encoding, in this order:
 *   1. malformed UTF-8 becomes U+FFFD, stretch by stretch as Python's errors='replace' does;
 *   2. added tokens are split off, exact bytes, leftmost first, the longest of those that match;
 *   3. the text between them is put into Unicode NFC;
 *   4. the checkpoint's pattern cuts it into pieces;
 *   5. the bytes of a piece become tokens and are merged by rank.
 * The `tokenizers` library does the same; where results differ (newer Unicode tables here for NFC,
 * older ones for the pattern) tests/golden/tokenizer/differences.txt has the list.
 *
 * Knows tokenizer.json and plain arrays, no files and no GGUF. A bw_tokenizer is read-only once
 * made: any thread. Every text has at most BW_MAX_TEXT_BYTES. */
#ifndef BW_TEXT_TOKENIZER_H
#define BW_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { BW_MAX_TEXT_BYTES = 1 << 28 };

typedef struct bw_tokenizer bw_tokenizer;

/* ---- making one ---- */

/* From the bytes of a tokenizer.json and of a tokenizer_config.json (NULL, 0: none), whose
 * added_tokens_decoder adds the tokens that the first lacks. The names stand in messages. Nothing is
 * borrowed. BW_E_FORMAT: malformed or contradictory; BW_E_UNSUPPORTED: another kind of tokenizer;
 * err names file, field, what was found and what was expected. */
bw_status bw_tokenizer_from_json(bw_tokenizer **out, const char *json_name, const char *json, size_t json_bytes,
                                 const char *config_name, const char *config, size_t config_bytes, bw_error *err);

typedef struct bw_chars {
    const char *data; /* not NUL-terminated */
    size_t n;
} bw_chars;

/* Tokens as a GGUF file has them: tokenizer.ggml.tokens, .token_type, .merges, .pre. */
typedef struct bw_token_arrays {
    const char *name; /* of the file, for messages */
    const bw_chars *tokens;
    size_t n_tokens;
    const int32_t *types; /* [n_tokens]: 1 normal, 3 control (special), 4 user-defined (added, not
                             special), 5 unused: no token; NULL: all normal */
    const bw_chars *merges; /* "left right", in the order of their ranks */
    size_t n_merges;
    bw_chars pre; /* "qwen35": the family's pattern, after NFC */
} bw_token_arrays;

/* The same from arrays; nothing is borrowed. */
bw_status bw_tokenizer_from_arrays(bw_tokenizer **out, const bw_token_arrays *arrays, bw_error *err);

void bw_tokenizer_destroy(bw_tokenizer *tokenizer); /* takes NULL */

/* ---- encoding ---- */

/* Which added tokens are matched in a text. */
typedef enum bw_match {
    BW_MATCH_ALL,   /* every one, as the `tokenizers` library does */
    BW_MATCH_PLAIN, /* only those with special = no (<think>, <tool_call>, ...): for message bodies.
                       They are part of what messages say, and the model wrote them as single tokens;
                       those with special = yes (<|im_end|>, ...) are the format's own, and as text
                       they become ordinary tokens: a message cannot end its own turn */
    BW_MATCH_NONE
} bw_match;

/* *ids [*n_ids] is the caller's, freed with bw_mem_free; never NULL on success. */
bw_status bw_tokenizer_encode(const bw_tokenizer *tokenizer, const char *text, size_t n_bytes, bw_match match,
                              int32_t **ids, int *n_ids, bw_error *err);

typedef struct bw_text_part {
    const char *text;
    size_t n_bytes;
    bw_match match;
} bw_text_part;

/* The parts as one text: pieces and merges run across their borders, as they must where a chat
 * format's own text meets a message. An added token is matched only where every one of its bytes is
 * in parts that allow it. */
bw_status bw_tokenizer_encode_parts(const bw_tokenizer *tokenizer, const bw_text_part *parts, size_t n_parts,
                                    int32_t **ids, int *n_ids, bw_error *err);

/* ---- decoding ---- */

/* The bytes of the tokens together, malformed stretches as U+FFFD; NUL-terminated, the caller's,
 * freed with bw_mem_free. skip_special: special tokens give nothing. BW_E_ARGUMENT: no token. */
bw_status bw_tokenizer_decode(const bw_tokenizer *tokenizer, const int32_t *ids, size_t n_ids, bool skip_special,
                              char **text, size_t *n_bytes, bw_error *err);

/* ---- tokens ---- */

int bw_tokenizer_n_ids(const bw_tokenizer *tokenizer);    /* every id is below; some may be no tokens */
int bw_tokenizer_n_tokens(const bw_tokenizer *tokenizer); /* ids that are tokens */
int bw_tokenizer_n_added(const bw_tokenizer *tokenizer);
bool bw_tokenizer_is_token(const bw_tokenizer *tokenizer, int32_t id);
bool bw_tokenizer_is_special(const bw_tokenizer *tokenizer, int32_t id);
/* The token's bytes, perhaps not UTF-8 by themselves; NULL when id is no token. Borrowed. */
const char *bw_tokenizer_bytes(const bw_tokenizer *tokenizer, int32_t id, size_t *n_bytes);
size_t bw_tokenizer_longest(const bw_tokenizer *tokenizer); /* bytes of the longest token */
/* The added token with this text, else the base token with these bytes, else -1. */
int32_t bw_tokenizer_find(const bw_tokenizer *tokenizer, const char *text, size_t n_bytes);

#endif
