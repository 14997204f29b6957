/* draft_list.h - the tokens a sequence may draft beside the most frequent ones.
 *
 * The head's logits are made for ids below n_first alone (ids of a byte-pair vocabulary are in the order of its
 * merges, so those are the most frequent; nothing checks it: another order costs acceptance, no more) and for a list:
 * tokens that every text may need (the added ones, which stand at the end of the vocabulary, and the request's stop
 * tokens), then those of the sequence's own prompt and answer, of which the ones that came last stay. A function of the known tokens in their order alone: it is the same after
 * a preemption, beside other sequences, with a cached prompt. Pure. */
#ifndef BW_ENGINE_DRAFT_LIST_H
#define BW_ENGINE_DRAFT_LIST_H

#include <stdbool.h>
#include <stdint.h>

enum { BW_DRAFT_LIST = 256, BW_DRAFT_LIST_FIXED = 64 };

typedef struct bw_draft_list {
    int n_first, n_tokens;
    int n, n_fixed;
    int32_t ids[BW_DRAFT_LIST];   /* ascending */
    int32_t order[BW_DRAFT_LIST]; /* the fixed ones, then the others: a ring by when each last came */
    int oldest;                   /* place of the next to come; when full, of the one that leaves for it */
    int n_read;                   /* tokens of the sequence that were looked at */
    bool changed;                 /* since the caller last took it */
} bw_draft_list;

/* Empty, for ids n_first .. n_tokens - 1. */
void bw_draft_list_init(bw_draft_list *list, int n_first, int n_tokens);
/* Adds tokens that never leave; those outside the range, already there or past BW_DRAFT_LIST_FIXED are passed over.
 * Before the first read. */
void bw_draft_list_fix(bw_draft_list *list, const int32_t *tokens, int n);
/* The sequence's known tokens [n]: looks at those that it has not seen. */
void bw_draft_list_read(bw_draft_list *list, const int32_t *tokens, int n);

#endif
