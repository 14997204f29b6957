/* prefix_evict.c - what the prefix tree gives up when memory is short, and what it remembers of it.
 *
 * One pass over all checkpoints finds the least valuable; there are at most 65,536, mostly far fewer.
 * Threads: the engine thread only. */
#include "cache/prefix_nodes.h"

#include <assert.h>
#include <string.h>

/* ---- what was evicted -------------------------------------------------------------------------- */

/* A hash may stand in WAYS places; a new one takes that of the oldest. 0 marks an empty one. */
enum { WAYS = 4 };

static uint64_t *places_of(const bw_prefix_tree *tree, uint64_t hash)
{
    return &tree->remembered[(hash & (BW_REMEMBERED / WAYS - 1)) * WAYS];
}

void bw_prefix_remember(bw_prefix_tree *tree, uint64_t hash)
{
    uint64_t *places = places_of(tree, hash);
    memmove(places + 1, places, (WAYS - 1) * sizeof *places); /* newest first */
    places[0] = hash;
}

void bw_prefix_forget(bw_prefix_tree *tree, uint64_t hash)
{
    uint64_t *places = places_of(tree, hash);
    for (int i = 0; i < WAYS; i++)
        if (places[i] == hash)
            places[i] = 0;
}

bool bw_prefix_remembers(const bw_prefix_tree *tree, uint64_t hash)
{
    const uint64_t *places = places_of(tree, hash);
    bool found = false;
    for (int i = 0; i < WAYS; i++)
        found = found || (places[i] == hash && hash != 0);
    return found;
}

/* ---- who goes ---------------------------------------------------------------------------------- */

/* Tokens that would be computed again without it. */
static int saves(const bw_prefix_tree *tree, const bw_checkpoint *c)
{
    return c->position - (c->above >= 0 ? tree->checkpoints[c->above].position : 0);
}

static double value(const bw_prefix_tree *tree, const bw_checkpoint *c)
{
    return saves(tree, c) / (1.0 + (double)(tree->clock - c->last_use));
}

static void evict(bw_prefix_tree *tree, int checkpoint)
{
    bw_prefix_remember(tree, tree->checkpoints[checkpoint].hash);
    tree->evictions++;
    bw_prefix_drop(tree, checkpoint);
}

/* Whether a page is free once the checkpoint has gone, with the nodes that stand only for it. */
static bool frees_a_page(const bw_prefix_tree *tree, const bw_checkpoint *c)
{
    if (bw_pages_holders(tree->pages, c->page) == 1)
        return true;
    if (c->next >= 0 || c->previous >= 0 || tree->nodes[c->node].first_child >= 0)
        return false;
    for (int node = c->node; tree->nodes[node].page >= 0;) {
        const bw_prefix_node *it = &tree->nodes[node];
        if (bw_pages_holders(tree->pages, it->page) == 1)
            return true;
        node = it->parent;
        const int child = tree->nodes[node].first_child;
        if (tree->nodes[node].first_checkpoint >= 0 || tree->nodes[child].next_sibling >= 0)
            return false;
    }
    return false;
}

/* Whether a page may become free once it and others have gone. */
static bool leads_to_a_page(const bw_prefix_tree *tree, const bw_checkpoint *c)
{
    if (bw_prefix_alone(tree, c->page))
        return true;
    int node = c->node;
    while (tree->nodes[node].page >= 0 && !bw_prefix_alone(tree, tree->nodes[node].page))
        node = tree->nodes[node].parent;
    return tree->nodes[node].page >= 0;
}

/* The least valuable checkpoint that saves at most max_saved tokens and is `fit` (NULL: every one is); -1: none. */
static int least_valuable(const bw_prefix_tree *tree, int max_saved,
                          bool (*fit)(const bw_prefix_tree *tree, const bw_checkpoint *c))
{
    int least = -1;
    double least_value = 0;
    for (int i = 0; i < tree->n_live; i++) {
        const bw_checkpoint *c = &tree->checkpoints[tree->live[i]];
        const double its = value(tree, c);
        if ((least < 0 || its < least_value) && saves(tree, c) <= max_saved && (!fit || fit(tree, c))) {
            least = tree->live[i];
            least_value = its;
        }
    }
    return least;
}

void *bw_prefix_tree_reserve(bw_prefix_tree *tree, int position)
{
    assert(tree->reserved < 0 && position >= 1);
    if (tree->n_free_checkpoints == 0) {
        const int least = least_valuable(tree, position, NULL);
        if (least < 0)
            return NULL;
        evict(tree, least);
    }
    tree->reserved = tree->free_checkpoints[--tree->n_free_checkpoints];
    return tree->states + (size_t)tree->reserved * tree->stride;
}

void bw_prefix_tree_give_up(bw_prefix_tree *tree, void *state)
{
    assert(tree->reserved >= 0 && state == tree->states + (size_t)tree->reserved * tree->stride);
    (void)state;
    tree->free_checkpoints[tree->n_free_checkpoints++] = tree->reserved;
    tree->reserved = -1;
}

static int count_alone(const bw_prefix_tree *tree)
{
    int n = 0;
    for (int page = 0; page < tree->n_pages; page++)
        n += tree->held[page] > 0 && bw_prefix_alone(tree, page);
    return n;
}

int bw_prefix_tree_make_room(bw_prefix_tree *tree, int n)
{
    assert(tree->reserved < 0);
    while (bw_pages_free(tree->pages) < n) {
        int least = least_valuable(tree, INT32_MAX, frees_a_page);
        if (least < 0 && count_alone(tree) > 0)
            least = least_valuable(tree, INT32_MAX, leads_to_a_page);
        if (least < 0)
            break;
        evict(tree, least); /* one fewer each time round: this ends */
    }
    return bw_pages_free(tree->pages);
}

void bw_prefix_tree_get_stats(const bw_prefix_tree *tree, bw_prefix_tree_stats *stats)
{
    const uint64_t states_out = (uint64_t)(tree->n_states - tree->n_free_checkpoints);
    *stats = (bw_prefix_tree_stats){
        .nodes = tree->n_nodes_max - tree->n_free_nodes - tree->n_roots,
        .checkpoints = tree->n_live,
        .pages_alone = count_alone(tree),
        .state_bytes_used = states_out * tree->stride,
        .memory = (uint64_t)tree->n_states * tree->stride,
        .evictions = tree->evictions,
    };
}
