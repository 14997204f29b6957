/* prefix_tree.h - the prefix cache: which beginnings of token sequences have their KV pages and a saved
 * state, so that another request with the same beginning need not compute it again.
 *
 * A node stands for 64 tokens and the one that follows them, under its parent: its page holds the KV
 * rows of all layers for these 64 positions. The token that follows is part of the key because the MTP
 * head's row at a position is made of the token after it. A *checkpoint* at position P (tokens 0 ..
 * P - 1 are in it) stands under the node of its first (P - 1) / 64 whole pages and holds the last 1 ..
 * 64 tokens (its tail), the page with their rows, and the saved state: the recurrent state of all
 * layers after token P - 1 and the hidden row of P - 1. Pages are held by reference count; what hangs
 * under no checkpoint is dropped at once. Requests with different salts have different roots. A node that
 * is there already keeps its page: the rows of another with the same beginning are the same.
 *
 * Eviction: a checkpoint saves the tokens of its position less that of the deepest checkpoint before it
 * on its path, which would serve instead. It is worth saved / (1 + age), age counted in uses of the
 * tree (finds, adds, has) since it or one deeper on its path was used. To
 * make room for a checkpoint at position P only such are evicted that save at most P tokens: a small
 * request can never push out a large conversation. To make room for pages of running sequences
 * the least valuable goes first, whatever it saves, of those that free a page by going; if there is none, of
 * those above which a page stands that only the tree holds.
 * Evicted beginnings are remembered for a while, as hashes only, to tell "evicted" from "never seen".
 *
 * Memory of states is one block taken at creation, touched as it fills; nodes come from pools taken then
 * too. Nothing allocates afterwards. A find, has or add costs time in proportion to the prompt, evicting one
 * checkpoint in proportion to the number there are. Threads: the engine thread only. */
#ifndef BW_CACHE_PREFIX_TREE_H
#define BW_CACHE_PREFIX_TREE_H

#include "cache/pages.h"

typedef struct bw_prefix_tree bw_prefix_tree;

/* Saved states that such a tree would hold, and all bytes it would take; 0 where not one fits. For the memory
 * plan; arguments as those of create. */
int bw_prefix_tree_room(int n_pages, uint64_t state_bytes, uint64_t memory);
uint64_t bw_prefix_tree_bytes(int n_pages, uint64_t state_bytes, uint64_t memory);

/* state_bytes (>= 1): of one checkpoint. memory: for all of them; at least one must fit, more than 65,536
 * are never kept. The tables of the tree come to that.
 * n_pages: pages of the pool, an upper bound for nodes. pages is borrowed until destroy.
 * BW_E_MEMORY names the bytes; BW_E_LIMIT: memory < state_bytes, names both. */
bw_status bw_prefix_tree_create(bw_prefix_tree **out, bw_pages *pages, int n_pages, uint64_t state_bytes,
                                uint64_t memory, bw_error *err);
void bw_prefix_tree_destroy(bw_prefix_tree *tree); /* releases its pages; takes NULL */

typedef struct bw_prefix_match {
    int position;      /* of the deepest checkpoint on the path, 1 .. limit; 0: none */
    int n_shared;      /* (position - 1) / 64 pages written to `shared`, each with one reference more,
                          the caller's; to be read only */
    int n_alone;       /* of these pages, the ones that only the tree holds until then */
    int tail_page;     /* holds the rows of positions 64 n_shared .. position - 1; to be copied, not kept:
                          valid until the next call that adds or evicts */
    const void *state; /* the saved state; valid as tail_page */
    /* Why it was not more than position. The first that holds:
     * BW_MISS_NONE           position == limit;
     * BW_MISS_EVICTED        a checkpoint remembered as evicted ended at miss_at, position < miss_at <= limit;
     * BW_MISS_NO_CHECKPOINT  nodes and tails know the first miss_at tokens, position < miss_at <= limit, but
     *                        no checkpoint ends in between;
     * BW_MISS_DIFFERS        nothing known goes on as the prompt does: miss_at == position is its first
     *                        token that is not known. */
    bw_cache_miss miss;
    int miss_at;
} bw_prefix_match;

/* The deepest checkpoint at a position <= limit (< n_tokens) whose tokens are the first of `tokens`.
 * Counts as a use of it and of all checkpoints on its path. shared: room for (limit - 1) / 64 ids; NULL: only look,
 * take no references, count no use. */
void bw_prefix_tree_find(bw_prefix_tree *tree, uint64_t salt, const int32_t *tokens, int n_tokens, int limit,
                         bw_prefix_match *match, int *shared);

/* Room for a checkpoint at `position`: state_bytes of host memory to save into, or NULL when that many
 * tokens may not push out what is there. Hand it to add or give_up before any other call (stats excepted). */
void *bw_prefix_tree_reserve(bw_prefix_tree *tree, int position);
void bw_prefix_tree_give_up(bw_prefix_tree *tree, void *state);
/* Whether a checkpoint with just these tokens is there already (then nothing needs to be saved; counts as a use). */
bool bw_prefix_tree_has(bw_prefix_tree *tree, uint64_t salt, const int32_t *tokens, int position);
/* Puts the checkpoint in (has() said it was not there). tokens [position]. pages: the sequence's page ids in order, (position - 1) / 64 + 1 of them; the tree takes
 * references to those it has not got. The sequence may go on writing rows from `position` on. */
void bw_prefix_tree_add(bw_prefix_tree *tree, uint64_t salt, const int32_t *tokens, int position, const int *pages,
                        void *state);

/* Evicts until at least n pages of the pool are free, or nothing that would free a
 * page is left. Returns the pages now free. */
int bw_prefix_tree_make_room(bw_prefix_tree *tree, int n);

typedef struct bw_prefix_tree_stats {
    int nodes, checkpoints;
    int pages_alone;    /* pages that only the tree holds: what make_room could free */
    uint64_t state_bytes_used, memory; /* of the block of states */
    int64_t evictions;
} bw_prefix_tree_stats;

void bw_prefix_tree_get_stats(const bw_prefix_tree *tree, bw_prefix_tree_stats *stats);

/* For tests: NULL, or what does not agree with itself. */
const char *bw_prefix_tree_check(const bw_prefix_tree *tree);

#endif
