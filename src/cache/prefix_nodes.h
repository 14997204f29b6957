/* prefix_nodes.h - what prefix_tree.c, prefix_evict.c and prefix_check.c share: the inside of the tree.
 *
 * Nodes and checkpoints are numbers into arrays, -1 is none. What every search touches (the records) is
 * apart from the tokens, so that a scan over all checkpoints reads little. A root is a node of depth 0
 * without a page, one per salt. Nodes and checkpoints are each found in a hash table of chains; a hash only
 * narrows the search, the tokens themselves are always compared.
 * Threads: the engine thread only. */
#ifndef BW_CACHE_PREFIX_NODES_H
#define BW_CACHE_PREFIX_NODES_H

#include "cache/prefix_tree.h"

enum {
    BW_NODE_TOKENS = BW_PAGE + 1, /* a page's and the one that follows */
    BW_MAX_STATES = 65536,
    BW_REMEMBERED = 16384         /* evicted beginnings; a power of two */
};

typedef struct bw_prefix_node {
    uint64_t hash; /* of the salt and all tokens from 0 to the one after its page */
    int parent, depth, page; /* a root: -1, 0, -1 */
    int first_child, next_sibling, previous_sibling;
    int first_checkpoint;
    int next_in_chain;
} bw_prefix_node;

typedef struct bw_checkpoint {
    uint64_t hash; /* of the salt and its `position` tokens */
    uint64_t last_use;
    int position, node, page;
    int above; /* the deepest checkpoint before it on its path */
    int next, previous; /* under the same node */
    int next_in_chain;
    int live_at; /* its place in tree->live */
} bw_checkpoint;

struct bw_prefix_tree {
    bw_pages *pages;
    int n_pages, n_nodes_max, n_states;
    uint64_t stride;  /* bytes from one state to the next */
    char *states;     /* [n_states, stride]; state i is that of checkpoint i */
    int reserved;     /* the checkpoint whose state is out to be written; -1: none */

    bw_prefix_node *nodes;   /* [n_nodes_max] */
    int32_t *node_tokens;    /* [n_nodes_max, 65]; of a root: the salt's two halves */
    bw_checkpoint *checkpoints; /* [n_states] */
    int32_t *tails;          /* [n_states, 64] */
    int *free_nodes, *free_checkpoints; /* stacks */
    int n_free_nodes, n_free_checkpoints;
    int *live, n_live;       /* checkpoints, in no order */
    int n_roots;

    int *node_chains, *checkpoint_chains; /* first of each chain, by the low bits of the hash */
    uint64_t node_mask, checkpoint_mask;

    int *held; /* [n_pages] how many nodes and checkpoints hold the page */
    uint64_t clock; /* counts uses */
    uint64_t *remembered; /* [BW_REMEMBERED] hashes of evicted beginnings, by their low bits; 0: none */
    int64_t evictions;
};

/* The hash grows token by token, so that of every beginning is had in one pass. */
static inline uint64_t bw_prefix_hash(uint64_t hash, const int32_t *tokens, int n)
{
    for (int i = 0; i < n; i++) {
        hash = (hash ^ (uint32_t)tokens[i]) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    return hash;
}

static inline int32_t *bw_prefix_tail(const bw_prefix_tree *tree, int checkpoint)
{
    return tree->tails + (size_t)checkpoint * BW_PAGE;
}

static inline int32_t *bw_prefix_node_tokens(const bw_prefix_tree *tree, int node)
{
    return tree->node_tokens + (size_t)node * BW_NODE_TOKENS;
}

static inline int bw_prefix_tail_length(const bw_prefix_tree *tree, const bw_checkpoint *c)
{
    return c->position - tree->nodes[c->node].depth * BW_PAGE;
}

/* Nobody but the tree holds the page. */
static inline bool bw_prefix_alone(const bw_prefix_tree *tree, int page)
{
    return bw_pages_holders(tree->pages, page) == tree->held[page];
}

/* Takes a checkpoint out, with all nodes that stood only for it. Its state is free again. */
void bw_prefix_drop(bw_prefix_tree *tree, int checkpoint);
/* Lets go of a node that nothing hangs under, and so up. */
void bw_prefix_drop_empty(bw_prefix_tree *tree, int node);

void bw_prefix_remember(bw_prefix_tree *tree, uint64_t hash);
void bw_prefix_forget(bw_prefix_tree *tree, uint64_t hash);
bool bw_prefix_remembers(const bw_prefix_tree *tree, uint64_t hash);

#endif
