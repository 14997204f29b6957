/* token_source.h - a vocabulary as some container lists it, checked and made into a tokenizer.
 *
 * What tokenizer.json and GGUF have in common: lists of tokens and merges, borrowed from whoever read
 * them. Every check that does not depend on the container is here. Part of the tokenizer. */
#ifndef BW_TEXT_TOKEN_SOURCE_H
#define BW_TEXT_TOKEN_SOURCE_H

#include "text/bpe.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

enum { BW_MAX_HOLES = 65536 }; /* ids that no token has, below the largest id */

struct bw_tokenizer {
    bw_vocab vocab;
    bw_merges merges;
    bw_pattern *pattern;
    int n_added;
    bool nfc;
};

typedef struct bw_token_entry {
    int64_t id;
    bw_token_kind kind; /* BW_TOKEN_NONE: a row that is no token */
    bw_chars text;
} bw_token_entry;

typedef struct bw_token_source {
    const char *name, *tokens_field, *merges_field; /* for messages */
    bw_token_entry *tokens;                         /* base and added, any order */
    size_t n_tokens;
    struct bw_merge_entry {
        bw_chars left, right;
    } *merges;
    size_t n_merges;
    bw_chars pattern;
    bool nfc;
} bw_token_source;

/* Cuts "left right"; false unless there are two parts. */
bool bw_merge_split(struct bw_merge_entry *out, bw_chars text);

bw_status bw_tokenizer_build(bw_tokenizer **out, const bw_token_source *source, bw_error *err);

#endif
