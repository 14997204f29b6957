/* prefix_check.c - for tests: whether everything the prefix tree keeps agrees with itself.
 * Threads: the engine thread only. */
#include "cache/prefix_nodes.h"

#include <string.h>

/* Every node of the table, by its chains; what a node must be. */
static const char *check_nodes(const bw_prefix_tree *tree, int *held)
{
    int n = 0, n_roots = 0;
    for (uint64_t at = 0; at <= tree->node_mask; at++)
        for (int i = tree->node_chains[at]; i >= 0; i = tree->nodes[i].next_in_chain) {
            const bw_prefix_node *it = &tree->nodes[i];
            if (++n > tree->n_nodes_max)
                return "the chains of nodes go round in circles";
            if ((it->hash & tree->node_mask) != at)
                return "a node is in the wrong chain";
            if (it->first_child < 0 && it->first_checkpoint < 0)
                return "a node has nothing under it";
            n_roots += it->parent < 0;
            if ((it->parent < 0) != (it->page < 0) || (it->parent < 0) != (it->depth == 0))
                return "a root has a page, or another node has none";
            if (it->parent >= 0 && tree->nodes[it->parent].depth + 1 != it->depth)
                return "a node's depth is not its parent's and one";
            if (it->page >= 0)
                held[it->page]++;
            for (int child = it->first_child, before = -1; child >= 0; child = tree->nodes[child].next_sibling) {
                if (tree->nodes[child].parent != i || tree->nodes[child].previous_sibling != before)
                    return "a list of children is broken";
                before = child;
            }
            for (int c = it->first_checkpoint, before = -1; c >= 0; c = tree->checkpoints[c].next) {
                if (tree->checkpoints[c].node != i || tree->checkpoints[c].previous != before)
                    return "a list of checkpoints is broken";
                before = c;
            }
        }
    if (n != tree->n_nodes_max - tree->n_free_nodes || n_roots != tree->n_roots)
        return "nodes are lost";
    return NULL;
}

/* Whether a's tokens are the first of b's. */
static bool is_before(const bw_prefix_tree *tree, const bw_checkpoint *a, const bw_checkpoint *b)
{
    const int depth = tree->nodes[a->node].depth, n = bw_prefix_tail_length(tree, a);
    int below = -1, node = b->node;
    while (node >= 0 && tree->nodes[node].depth > depth) {
        below = node;
        node = tree->nodes[node].parent;
    }
    const int32_t *tail = below < 0 ? bw_prefix_tail(tree, (int)(b - tree->checkpoints))
                                    : bw_prefix_node_tokens(tree, below);
    return node == a->node && a->position < b->position &&
           memcmp(tail, bw_prefix_tail(tree, (int)(a - tree->checkpoints)), (size_t)n * sizeof *tail) == 0;
}

static const char *check_checkpoints(const bw_prefix_tree *tree, int *held)
{
    for (int i = 0; i < tree->n_live; i++) {
        const bw_checkpoint *c = &tree->checkpoints[tree->live[i]];
        if (c->live_at != i)
            return "a checkpoint does not know its place";
        const int n = bw_prefix_tail_length(tree, c);
        if (n < 1 || n > BW_PAGE)
            return "a tail is not of 1 to 64 tokens";
        held[c->page]++;
        int in_chain = tree->checkpoint_chains[c->hash & tree->checkpoint_mask];
        while (in_chain >= 0 && in_chain != tree->live[i])
            in_chain = tree->checkpoints[in_chain].next_in_chain;
        if (in_chain < 0)
            return "a checkpoint is not in its chain";
        int above = -1;
        for (int j = 0; j < tree->n_live; j++) {
            const bw_checkpoint *other = &tree->checkpoints[tree->live[j]];
            if (is_before(tree, other, c) && (above < 0 || tree->checkpoints[above].position < other->position))
                above = tree->live[j];
        }
        if (c->above != above)
            return "a checkpoint does not know the one before it";
    }
    if (tree->n_live + (tree->reserved >= 0) != tree->n_states - tree->n_free_checkpoints)
        return "checkpoints are lost";
    return NULL;
}

const char *bw_prefix_tree_check(const bw_prefix_tree *tree)
{
    int *held = bw_mem_zalloc((size_t)tree->n_pages, sizeof *held, BW_MEM_MISC);
    if (!held)
        return "no memory to check with";
    const char *wrong = check_nodes(tree, held);
    if (!wrong)
        wrong = check_checkpoints(tree, held);
    for (int page = 0; !wrong && page < tree->n_pages; page++)
        if (held[page] != tree->held[page] || bw_pages_holders(tree->pages, page) < held[page])
            wrong = "a page is not held as often as it stands in the tree";
    bw_mem_free(held);
    return wrong;
}
