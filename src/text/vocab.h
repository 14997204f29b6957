/* vocab.h - which bytes each token id stands for, and back; and the added tokens, found in text.
 *
 * Owns the bytes of all tokens. Built once, then read-only: any thread. Knows nothing of files,
 * merges or text around a token. Part of the tokenizer: others include tokenizer.h. */
#ifndef BW_TEXT_VOCAB_H
#define BW_TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef enum bw_token_kind {
    BW_TOKEN_NONE,    /* a row of the embedding that is no token */
    BW_TOKEN_BASE,    /* made by merges */
    BW_TOKEN_PLAIN,   /* added, special = no: decoding always keeps it */
    BW_TOKEN_SPECIAL  /* added, special = yes */
} bw_token_kind;

typedef struct bw_vocab_row {
    uint32_t offset, n; /* in bytes[] */
    uint8_t kind;       /* bw_token_kind */
    bool in_alphabet;   /* a base token written in the byte alphabet: merges can make it */
} bw_vocab_row;

/* One node per prefix of an added token; children are a list ordered by byte. */
typedef struct bw_added_node {
    int32_t child, next, id; /* -1: none */
    unsigned char byte;
} bw_added_node;

typedef struct bw_vocab {
    bw_vocab_row *rows; /* [n_rows] */
    int32_t n_rows;     /* ids are below this */
    int32_t n_tokens;   /* rows that are tokens */
    char *bytes;
    size_t n_bytes, room;
    size_t longest; /* bytes of the longest token */

    int32_t *slots; /* base tokens by bytes, open addressing; -1: empty */
    uint32_t slot_mask;
    int32_t byte_ids[256]; /* the token of one byte */

    bw_added_node *nodes; /* [0] is the root */
    int32_t n_nodes;
    bool begins[256]; /* an added token begins with this byte */
} bw_vocab;

enum { BW_MAX_TOKEN_BYTES = 65536, BW_MAX_ADDED_BYTES = 4096 };

/* Room for n_rows ids and `room` bytes of token text. On failure the vocab can be finished. */
bw_status bw_vocab_init(bw_vocab *vocab, int32_t n_rows, size_t room, bw_error *err);
void bw_vocab_fini(bw_vocab *vocab); /* takes a zeroed one */

/* Base tokens are given in the byte alphabet and kept as bytes (those with other characters as they
 * stand), added tokens as they stand. The caller has checked 0 <= id < n_rows, that the row is free,
 * and the room. */
void bw_vocab_put(bw_vocab *vocab, int32_t id, bw_token_kind kind, const char *text, size_t n);

/* After the last put: the tables for the two searches below. BW_E_FORMAT: two base tokens have the
 * same bytes, two added tokens the same text, or a byte has no token. */
bw_status bw_vocab_index(bw_vocab *vocab, bw_error *err);

/* The base token with these bytes, or -1. */
int32_t bw_vocab_find_base(const bw_vocab *vocab, const char *bytes, size_t n);

/* The longest added token at the start of text: special ones up to n_special bytes long, plain ones
 * up to n_plain. Returns its id and length, or -1. */
int32_t bw_vocab_match_added(const bw_vocab *vocab, const char *text, size_t n_special, size_t n_plain,
                             size_t *length);

#endif
