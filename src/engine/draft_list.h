/* draft_list.h - the tokens a sequence may draft beside those with low ids.
 *
 * The head's logits are made for ids below n_first alone and for a list: tokens that every text may need (marks of
 * the chat format, which stand at the end of the vocabulary, and the request's stop tokens), then those of the
 * sequence's own prompt and answer, of which the ones that came last stay. Ids of a byte-pair vocabulary are in the
 * order of its merges: the low ones are the most frequent of English and code, not of every language (words of
 * Chinese begin near 99,000 of 248,320). Nothing checks it: another order costs acceptance, no more.
 * A function of the known tokens in their order alone: it is the same after a preemption, beside other sequences,
 * with a cached prompt. Pure. */
#ifndef BW_ENGINE_DRAFT_LIST_H
#define BW_ENGINE_DRAFT_LIST_H

#include <stdbool.h>
#include <stdint.h>

enum { BW_DRAFT_LIST = 512, BW_DRAFT_LIST_FIXED = 64 };

typedef struct bw_draft_list {
    int n_first, n_tokens;
    int n;
    int32_t ids[BW_DRAFT_LIST];  /* ascending */
    int32_t last[BW_DRAFT_LIST]; /* place of the sequence where each last came; of a fixed one INT32_MAX */
    int oldest;                  /* a place: of the others none last came before it */
    int n_read;                  /* tokens of the sequence that were looked at */
    bool changed;                /* since the caller last took it */
} bw_draft_list;

/* Empty, for ids n_first .. n_tokens - 1. */
void bw_draft_list_init(bw_draft_list *list, int n_first, int n_tokens);
/* Adds tokens that never leave; those outside the range, already there or past BW_DRAFT_LIST_FIXED are passed over.
 * Before the first read. */
void bw_draft_list_fix(bw_draft_list *list, const int32_t *tokens, int n);
/* The sequence's known tokens [n], those of earlier reads first and unchanged: looks at those that it has not seen. */
void bw_draft_list_read(bw_draft_list *list, const int32_t *tokens, int n);

#endif
