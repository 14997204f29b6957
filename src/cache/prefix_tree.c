/* prefix_tree.c - the tree itself: walking down a path, finding and adding checkpoints, and taking them
 * out again. What goes first when memory is short is decided in prefix_evict.c.
 * Threads: the engine thread only. */
#include "cache/prefix_nodes.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------------------------------ */

static uint64_t power_of_two(uint64_t at_least)
{
    uint64_t n = 64;
    while (n < at_least)
        n *= 2;
    return n;
}

/* A chain table of n entries, all empty. */
static int *take_chains(uint64_t n)
{
    int *chains = bw_mem_alloc((size_t)n * sizeof *chains, BW_MEM_CACHE);
    for (uint64_t i = 0; chains && i < n; i++)
        chains[i] = -1;
    return chains;
}

/* A stack of the ids 0 .. n - 1; 0 goes first. */
static int *take_stack(int n)
{
    int *stack = bw_mem_alloc((size_t)n * sizeof *stack, BW_MEM_CACHE);
    for (int i = 0; stack && i < n; i++)
        stack[i] = n - 1 - i;
    return stack;
}

/* How many there are of everything. */
static void size_up(bw_prefix_tree *tree, int n_pages, uint64_t state_bytes, uint64_t memory)
{
    assert(n_pages >= 1 && state_bytes >= 1);
    tree->stride = (state_bytes + 63) / 64 * 64;
    uint64_t n = memory / tree->stride;
    if (n == 0 && memory >= state_bytes)
        n = 1;
    if (n > BW_MAX_STATES)
        n = BW_MAX_STATES;
    if (n > (uint64_t)n_pages * BW_PAGE) /* no page has more ends than tokens */
        n = (uint64_t)n_pages * BW_PAGE;
    tree->n_pages = n_pages;
    tree->n_states = tree->n_free_checkpoints = (int)n;
    tree->n_nodes_max = tree->n_free_nodes = n_pages + tree->n_states; /* every page a node, and a root for every checkpoint */
    tree->node_mask = power_of_two((uint64_t)tree->n_nodes_max) - 1;
    tree->checkpoint_mask = power_of_two(n) - 1;
}

static uint64_t table_bytes(const bw_prefix_tree *tree)
{
    const uint64_t nodes = (uint64_t)tree->n_nodes_max, states = (uint64_t)tree->n_states;
    return sizeof *tree + nodes * (sizeof *tree->nodes + BW_NODE_TOKENS * sizeof(int32_t) + sizeof *tree->free_nodes) +
           states * (sizeof *tree->checkpoints + BW_PAGE * sizeof(int32_t) + sizeof *tree->live + sizeof *tree->free_checkpoints) +
           (tree->node_mask + 1) * sizeof *tree->node_chains + (tree->checkpoint_mask + 1) * sizeof *tree->checkpoint_chains +
           (uint64_t)tree->n_pages * sizeof *tree->held + BW_REMEMBERED * sizeof *tree->remembered;
}

int bw_prefix_tree_room(int n_pages, uint64_t state_bytes, uint64_t memory)
{
    bw_prefix_tree tree;
    size_up(&tree, n_pages, state_bytes, memory);
    return tree.n_states;
}

uint64_t bw_prefix_tree_bytes(int n_pages, uint64_t state_bytes, uint64_t memory)
{
    bw_prefix_tree tree;
    size_up(&tree, n_pages, state_bytes, memory);
    return tree.n_states > 0 ? table_bytes(&tree) + (uint64_t)tree.n_states * tree.stride : 0;
}

/* What is touched only as the tree fills (states, tokens, records) is left untouched here. */
static bool take_memory(bw_prefix_tree *tree)
{
    const size_t nodes = (size_t)tree->n_nodes_max, states = (size_t)tree->n_states;
    return (tree->nodes = bw_mem_alloc(nodes * sizeof *tree->nodes, BW_MEM_CACHE)) &&
           (tree->node_tokens = bw_mem_alloc(nodes * BW_NODE_TOKENS * sizeof(int32_t), BW_MEM_CACHE)) &&
           (tree->checkpoints = bw_mem_alloc(states * sizeof *tree->checkpoints, BW_MEM_CACHE)) &&
           (tree->tails = bw_mem_alloc(states * BW_PAGE * sizeof(int32_t), BW_MEM_CACHE)) &&
           (tree->live = bw_mem_alloc(states * sizeof *tree->live, BW_MEM_CACHE)) &&
           (tree->held = bw_mem_zalloc((size_t)tree->n_pages, sizeof *tree->held, BW_MEM_CACHE)) &&
           (tree->remembered = bw_mem_zalloc(BW_REMEMBERED, sizeof *tree->remembered, BW_MEM_CACHE)) &&
           (tree->free_nodes = take_stack(tree->n_nodes_max)) &&
           (tree->free_checkpoints = take_stack(tree->n_states)) &&
           (tree->node_chains = take_chains(tree->node_mask + 1)) &&
           (tree->checkpoint_chains = take_chains(tree->checkpoint_mask + 1));
}

bw_status bw_prefix_tree_create(bw_prefix_tree **out, bw_pages *pages, int n_pages, uint64_t state_bytes,
                                uint64_t memory, bw_error *err)
{
    *out = NULL;
    if (memory < state_bytes)
        return bw_fail(err, BW_E_LIMIT, "prefix cache: %" PRIu64 " bytes of memory do not hold one saved state of %"
                       PRIu64 " bytes: give it more, or turn it off", memory, state_bytes);
    bw_prefix_tree *tree = bw_mem_zalloc(1, sizeof *tree, BW_MEM_CACHE);
    if (!tree)
        return bw_fail_memory(err, "prefix cache", sizeof *tree);
    size_up(tree, n_pages, state_bytes, memory);
    tree->pages = pages;
    tree->reserved = -1;
    const uint64_t state_memory = (uint64_t)tree->n_states * tree->stride;
    if (!take_memory(tree) || !(tree->states = bw_mem_alloc((size_t)state_memory, BW_MEM_CACHE))) {
        const int states = tree->n_states;
        bw_prefix_tree_destroy(tree);
        return bw_fail(err, BW_E_MEMORY, "prefix cache: %d saved states want %" PRIu64 " bytes and the system has not "
                       "that much: give it less memory", states, state_memory);
    }
    *out = tree;
    return BW_OK;
}

void bw_prefix_tree_destroy(bw_prefix_tree *tree)
{
    if (!tree)
        return;
    for (int page = 0; tree->held && page < tree->n_pages; page++)
        for (int i = 0; i < tree->held[page]; i++)
            bw_pages_release(tree->pages, page);
    bw_mem_free(tree->states);
    bw_mem_free(tree->nodes);
    bw_mem_free(tree->node_tokens);
    bw_mem_free(tree->checkpoints);
    bw_mem_free(tree->tails);
    bw_mem_free(tree->live);
    bw_mem_free(tree->held);
    bw_mem_free(tree->remembered);
    bw_mem_free(tree->free_nodes);
    bw_mem_free(tree->free_checkpoints);
    bw_mem_free(tree->node_chains);
    bw_mem_free(tree->checkpoint_chains);
    bw_mem_free(tree);
}

static void hold(bw_prefix_tree *tree, int page)
{
    bw_pages_share(tree->pages, page);
    tree->held[page]++;
}

static void let_go(bw_prefix_tree *tree, int page)
{
    tree->held[page]--;
    bw_pages_release(tree->pages, page);
}

/* ---- walking ----------------------------------------------------------------------------------- */

static uint64_t root_hash(const int32_t *salt)
{
    return bw_prefix_hash(0x6A09E667F3BCC908u, salt, 2);
}

/* Of the node's page-long child that begins with tokens: its parent's hash goes up to the first of them
 * already, unless the parent is a root. */
static uint64_t child_hash(const bw_prefix_node *parent, const int32_t *tokens)
{
    const int known = parent->depth > 0;
    return bw_prefix_hash(parent->hash, tokens + known, BW_NODE_TOKENS - known);
}

static int find_node(const bw_prefix_tree *tree, uint64_t hash, int parent, const int32_t *tokens, int n)
{
    int i = tree->node_chains[hash & tree->node_mask];
    while (i >= 0 && !(tree->nodes[i].hash == hash && tree->nodes[i].parent == parent &&
                       memcmp(bw_prefix_node_tokens(tree, i), tokens, (size_t)n * sizeof *tokens) == 0))
        i = tree->nodes[i].next_in_chain;
    return i;
}

static void split_salt(uint64_t salt, int32_t halves[2])
{
    halves[0] = (int32_t)(uint32_t)salt;
    halves[1] = (int32_t)(uint32_t)(salt >> 32);
}

static int find_root(const bw_prefix_tree *tree, uint64_t salt)
{
    int32_t halves[2];
    split_salt(salt, halves);
    return find_node(tree, root_hash(halves), -1, halves, 2);
}

/* The deepest node below the root on the path of the first `limit` tokens, so that a checkpoint at a
 * position up to limit stands under it or above. */
static int descend(const bw_prefix_tree *tree, int root, const int32_t *tokens, int limit)
{
    int node = root;
    for (int at = 0; at + BW_PAGE < limit; at += BW_PAGE) {
        const uint64_t hash = child_hash(&tree->nodes[node], tokens + at);
        const int child = find_node(tree, hash, node, tokens + at, BW_NODE_TOKENS);
        if (child < 0)
            break;
        node = child;
    }
    return node;
}

/* The checkpoint under `node` with just this tail. */
static int find_checkpoint(const bw_prefix_tree *tree, uint64_t hash, int node, const int32_t *tail, int n)
{
    int i = tree->checkpoint_chains[hash & tree->checkpoint_mask];
    while (i >= 0 && !(tree->checkpoints[i].hash == hash && tree->checkpoints[i].node == node &&
                       bw_prefix_tail_length(tree, &tree->checkpoints[i]) == n &&
                       memcmp(bw_prefix_tail(tree, i), tail, (size_t)n * sizeof *tail) == 0))
        i = tree->checkpoints[i].next_in_chain;
    return i;
}

/* The hash of the beginning of `n` tokens more than the node's pages, tail being those tokens. */
static uint64_t tail_hash(const bw_prefix_node *node, const int32_t *tail, int n)
{
    const int known = node->depth > 0;
    return bw_prefix_hash(node->hash, tail + known, n - known);
}

/* The deepest checkpoint under `node` or a node above it, at most at `limit`. */
static int deepest(const bw_prefix_tree *tree, int node, const int32_t *tokens, int limit)
{
    for (; node >= 0; node = tree->nodes[node].parent) {
        const bw_prefix_node *it = &tree->nodes[node];
        const int start = it->depth * BW_PAGE;
        const int32_t *tail = tokens + start;
        const int n = limit - start < BW_PAGE ? limit - start : BW_PAGE;
        if (it->first_checkpoint < 0 || n < 1)
            continue;
        uint64_t hashes[BW_PAGE];
        hashes[0] = tail_hash(it, tail, 1);
        for (int i = 1; i < n; i++)
            hashes[i] = bw_prefix_hash(hashes[i - 1], tail + i, 1);
        for (int i = n; i >= 1; i--) {
            const int found = find_checkpoint(tree, hashes[i - 1], node, tail, i);
            if (found >= 0)
                return found;
        }
    }
    return -1;
}

static int same_tokens(const int32_t *a, const int32_t *b, int n)
{
    int i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* How many of the first `limit` tokens are those of something in the tree; node is the deepest on their path. */
static int known_tokens(const bw_prefix_tree *tree, int node, const int32_t *tokens, int limit)
{
    const bw_prefix_node *it = &tree->nodes[node];
    const int start = it->depth * BW_PAGE, room = limit - start;
    int best = it->depth > 0; /* the one that follows its page */
    for (int child = it->first_child; child >= 0; child = tree->nodes[child].next_sibling) {
        const int same = same_tokens(bw_prefix_node_tokens(tree, child), tokens + start,
                                     room < BW_NODE_TOKENS ? room : BW_NODE_TOKENS);
        best = same > best ? same : best;
    }
    for (int i = it->first_checkpoint; i >= 0; i = tree->checkpoints[i].next) {
        const int n = bw_prefix_tail_length(tree, &tree->checkpoints[i]);
        const int same = same_tokens(bw_prefix_tail(tree, i), tokens + start, room < n ? room : n);
        best = same > best ? same : best;
    }
    return start + best;
}

/* The last position in position + 1 .. limit that a remembered beginning ends at; 0: none. */
static int evicted_position(const bw_prefix_tree *tree, uint64_t hash, const int32_t *tokens, int position, int limit)
{
    int last = 0;
    for (int i = position; tree->evictions > 0 && i < limit; i++) {
        hash = bw_prefix_hash(hash, tokens + i, 1);
        if (bw_prefix_remembers(tree, hash))
            last = i + 1;
    }
    return last;
}

/* A use of the checkpoint and of all before it on its path. */
static void use(bw_prefix_tree *tree, int checkpoint)
{
    tree->clock++;
    for (; checkpoint >= 0; checkpoint = tree->checkpoints[checkpoint].above)
        tree->checkpoints[checkpoint].last_use = tree->clock;
}

/* Of the pages on the path to the node, how many only the tree holds. */
static int alone_on_path(const bw_prefix_tree *tree, int node)
{
    int n = 0;
    for (; tree->nodes[node].depth > 0; node = tree->nodes[node].parent)
        n += bw_prefix_alone(tree, tree->nodes[node].page);
    return n;
}

static void lend_pages(bw_prefix_tree *tree, int node, int *shared)
{
    for (; tree->nodes[node].depth > 0; node = tree->nodes[node].parent) {
        shared[tree->nodes[node].depth - 1] = tree->nodes[node].page;
        bw_pages_share(tree->pages, tree->nodes[node].page);
    }
}

void bw_prefix_tree_find(bw_prefix_tree *tree, uint64_t salt, const int32_t *tokens, int n_tokens, int limit,
                         bw_prefix_match *match, int *shared)
{
    assert(tree->reserved < 0 && limit >= 0 && (limit < n_tokens || limit == 0));
    (void)n_tokens;
    *match = (bw_prefix_match){ .tail_page = -1 };
    const int root = find_root(tree, salt);
    const int node = root < 0 ? -1 : descend(tree, root, tokens, limit);
    const int found = deepest(tree, node, tokens, limit);
    int32_t halves[2];
    split_salt(salt, halves);
    uint64_t hash = root_hash(halves);
    if (found >= 0) {
        const bw_checkpoint *c = &tree->checkpoints[found];
        hash = c->hash;
        match->position = c->position;
        match->n_shared = tree->nodes[c->node].depth;
        match->n_alone = alone_on_path(tree, c->node);
        match->tail_page = c->page;
        match->state = tree->states + (size_t)found * tree->stride;
        if (shared) {
            lend_pages(tree, c->node, shared);
            use(tree, found);
        }
    }
    if (match->position == limit)
        return; /* BW_MISS_NONE */
    match->miss_at = evicted_position(tree, hash, tokens, match->position, limit);
    match->miss = BW_MISS_EVICTED;
    if (match->miss_at > 0)
        return;
    match->miss_at = node < 0 ? 0 : known_tokens(tree, node, tokens, limit);
    match->miss = match->miss_at > match->position ? BW_MISS_NO_CHECKPOINT : BW_MISS_DIFFERS;
}

bool bw_prefix_tree_has(bw_prefix_tree *tree, uint64_t salt, const int32_t *tokens, int position)
{
    assert(tree->reserved < 0 && position >= 1);
    const int root = find_root(tree, salt);
    if (root < 0)
        return false;
    const int node = descend(tree, root, tokens, position);
    const bw_prefix_node *it = &tree->nodes[node];
    const int start = it->depth * BW_PAGE, n = position - start;
    if (n > BW_PAGE)
        return false;
    const int found = find_checkpoint(tree, tail_hash(it, tokens + start, n), node, tokens + start, n);
    if (found < 0)
        return false;
    use(tree, found);
    return true;
}

/* ---- putting in and taking out ----------------------------------------------------------------- */

/* A node under parent (-1: a root, n = 2 halves of the salt), holding page (-1: none). */
static int put_node(bw_prefix_tree *tree, uint64_t hash, int parent, const int32_t *tokens, int n, int page)
{
    const int node = tree->free_nodes[--tree->n_free_nodes];
    bw_prefix_node *it = &tree->nodes[node];
    int *chain = &tree->node_chains[hash & tree->node_mask];
    *it = (bw_prefix_node){ .hash = hash, .parent = parent, .page = page, .first_child = -1, .next_sibling = -1,
                            .previous_sibling = -1, .first_checkpoint = -1, .next_in_chain = *chain };
    *chain = node;
    memcpy(bw_prefix_node_tokens(tree, node), tokens, (size_t)n * sizeof *tokens);
    if (parent < 0) {
        tree->n_roots++;
        return node;
    }
    bw_prefix_node *above = &tree->nodes[parent];
    it->depth = above->depth + 1;
    it->next_sibling = above->first_child;
    if (it->next_sibling >= 0)
        tree->nodes[it->next_sibling].previous_sibling = node;
    above->first_child = node;
    hold(tree, page);
    return node;
}

void bw_prefix_drop_empty(bw_prefix_tree *tree, int node)
{
    while (node >= 0 && tree->nodes[node].first_child < 0 && tree->nodes[node].first_checkpoint < 0) {
        const bw_prefix_node *it = &tree->nodes[node];
        int *link = &tree->node_chains[it->hash & tree->node_mask];
        while (*link != node)
            link = &tree->nodes[*link].next_in_chain;
        *link = it->next_in_chain;
        if (it->next_sibling >= 0)
            tree->nodes[it->next_sibling].previous_sibling = it->previous_sibling;
        if (it->previous_sibling >= 0)
            tree->nodes[it->previous_sibling].next_sibling = it->next_sibling;
        else if (it->parent >= 0)
            tree->nodes[it->parent].first_child = it->next_sibling;
        if (it->page >= 0)
            let_go(tree, it->page);
        else
            tree->n_roots--;
        tree->free_nodes[tree->n_free_nodes++] = node;
        node = it->parent;
    }
}

void bw_prefix_drop(bw_prefix_tree *tree, int checkpoint)
{
    const bw_checkpoint *c = &tree->checkpoints[checkpoint];
    for (int i = 0; i < tree->n_live; i++) /* what it was before now saves more */
        if (tree->checkpoints[tree->live[i]].above == checkpoint)
            tree->checkpoints[tree->live[i]].above = c->above;
    int *link = &tree->checkpoint_chains[c->hash & tree->checkpoint_mask];
    while (*link != checkpoint)
        link = &tree->checkpoints[*link].next_in_chain;
    *link = c->next_in_chain;
    if (c->next >= 0)
        tree->checkpoints[c->next].previous = c->previous;
    if (c->previous >= 0)
        tree->checkpoints[c->previous].next = c->next;
    else
        tree->nodes[c->node].first_checkpoint = c->next;
    const int last = tree->live[--tree->n_live];
    tree->live[c->live_at] = last;
    tree->checkpoints[last].live_at = c->live_at;
    let_go(tree, c->page);
    tree->free_checkpoints[tree->n_free_checkpoints++] = checkpoint;
    bw_prefix_drop_empty(tree, c->node);
}

/* The path of the first `position` tokens, made where it is missing; -1 when there are no more nodes: only
 * when one page was brought in for different tokens, which costs a checkpoint and no more. */
static int make_path(bw_prefix_tree *tree, uint64_t salt, const int32_t *tokens, int position, const int *pages)
{
    int node = find_root(tree, salt);
    if (node < 0) {
        int32_t halves[2];
        split_salt(salt, halves);
        if (tree->n_free_nodes == 0)
            return -1;
        node = put_node(tree, root_hash(halves), -1, halves, 2, -1);
    }
    node = descend(tree, node, tokens, position);
    for (int at = tree->nodes[node].depth * BW_PAGE; at + BW_PAGE < position; at += BW_PAGE) {
        if (tree->n_free_nodes == 0) {
            bw_prefix_drop_empty(tree, node);
            return -1;
        }
        const uint64_t hash = child_hash(&tree->nodes[node], tokens + at);
        node = put_node(tree, hash, node, tokens + at, BW_NODE_TOKENS, pages[at / BW_PAGE]);
    }
    return node;
}

/* The node after `node` in the subtree of `top`, parents first; -1 at the end. */
static int next_in_subtree(const bw_prefix_tree *tree, int node, int top)
{
    if (tree->nodes[node].first_child >= 0)
        return tree->nodes[node].first_child;
    for (; node != top; node = tree->nodes[node].parent)
        if (tree->nodes[node].next_sibling >= 0)
            return tree->nodes[node].next_sibling;
    return -1;
}

/* Checkpoints under node that stood after `above` now stand after the new one, `checkpoint`. */
static void put_before(bw_prefix_tree *tree, int node, int checkpoint, int above)
{
    for (int i = tree->nodes[node].first_checkpoint; i >= 0; i = tree->checkpoints[i].next)
        if (tree->checkpoints[i].above == above)
            tree->checkpoints[i].above = checkpoint;
}

/* What lies deeper on the paths through the new checkpoint has it above from now on: longer tails beside it,
 * and all under the children that begin with its tail. */
static void put_above_deeper(bw_prefix_tree *tree, int checkpoint)
{
    const bw_checkpoint *c = &tree->checkpoints[checkpoint];
    const int32_t *tail = bw_prefix_tail(tree, checkpoint);
    const int n = bw_prefix_tail_length(tree, c);
    for (int i = tree->nodes[c->node].first_checkpoint; i >= 0; i = tree->checkpoints[i].next) {
        bw_checkpoint *other = &tree->checkpoints[i];
        if (other->position > c->position && other->above == c->above &&
            same_tokens(bw_prefix_tail(tree, i), tail, n) == n)
            other->above = checkpoint;
    }
    for (int child = tree->nodes[c->node].first_child; child >= 0; child = tree->nodes[child].next_sibling)
        if (same_tokens(bw_prefix_node_tokens(tree, child), tail, n) == n)
            for (int node = child; node >= 0; node = next_in_subtree(tree, node, child))
                put_before(tree, node, checkpoint, c->above);
}

void bw_prefix_tree_add(bw_prefix_tree *tree, uint64_t salt, const int32_t *tokens, int position, const int *pages,
                        void *state)
{
    const int id = tree->reserved;
    assert(id >= 0 && state == tree->states + (size_t)id * tree->stride && position >= 1);
    const int node = make_path(tree, salt, tokens, position, pages);
    if (node < 0) {
        bw_prefix_tree_give_up(tree, state);
        return;
    }
    tree->reserved = -1;
    bw_prefix_node *it = &tree->nodes[node];
    const int start = it->depth * BW_PAGE, n = position - start;
    const uint64_t hash = tail_hash(it, tokens + start, n);
    assert(find_checkpoint(tree, hash, node, tokens + start, n) < 0);
    int *chain = &tree->checkpoint_chains[hash & tree->checkpoint_mask];
    tree->checkpoints[id] = (bw_checkpoint){
        .hash = hash, .position = position, .node = node, .page = pages[it->depth],
        .above = deepest(tree, node, tokens, position - 1), .next = it->first_checkpoint, .previous = -1,
        .next_in_chain = *chain, .live_at = tree->n_live };
    memcpy(bw_prefix_tail(tree, id), tokens + start, (size_t)n * sizeof *tokens);
    if (it->first_checkpoint >= 0)
        tree->checkpoints[it->first_checkpoint].previous = id;
    it->first_checkpoint = id;
    *chain = id;
    tree->live[tree->n_live++] = id;
    hold(tree, pages[it->depth]);
    put_above_deeper(tree, id);
    bw_prefix_forget(tree, hash);
    use(tree, id);
}
