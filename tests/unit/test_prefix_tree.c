/* The prefix tree by example: what is found, why not more, and what goes first. Random use against a
 * plain list: tests/property/test_prefix_tree_model.c. */
#include "lib/check.h"

#include <stdlib.h>

#include "cache/prefix_tree.h"

enum { STATE = 100, LONG = 1000 };

static bw_backend *backend;
static bw_pages *pages;
static bw_prefix_tree *tree;
static int32_t text[LONG]; /* 0 .. LONG - 1: each token its own position */

static void open_tree(int n_pages, int n_states)
{
    static const bw_attn_shape shape = { .n_heads = 1, .n_kv_heads = 1, .head_dim = 8 };
    bw_error err;
    check_ok(bw_cpu_backend_create(&backend, 1, "ref", &err), err);
    check_ok(bw_pages_create(&pages, backend, BW_CODEC_F16, &shape, 1, n_pages, &err), err);
    check_ok(bw_prefix_tree_create(&tree, pages, n_pages, STATE, (uint64_t)n_states * 128, &err), err);
    for (int i = 0; i < LONG; i++)
        text[i] = i;
}

static void close_tree(void)
{
    const char *wrong = bw_prefix_tree_check(tree);
    check_that(!wrong, "%s", wrong);
    bw_prefix_tree_destroy(tree);
    bw_pages_destroy(pages);
    backend->ops->destroy(backend);
}

static bw_prefix_tree_stats stats(void)
{
    bw_prefix_tree_stats s;
    bw_prefix_tree_get_stats(tree, &s);
    return s;
}

/* Saves a checkpoint of the first `position` tokens whose state is all `mark`. */
static bool save_from(uint64_t salt, const int32_t *tokens, int position, const int *ids, int mark)
{
    void *state = bw_prefix_tree_reserve(tree, position);
    if (!state)
        return false;
    memset(state, mark, STATE);
    bw_prefix_tree_add(tree, salt, tokens, position, ids, state);
    return true;
}

static void take(int *ids, int n)
{
    for (int i = 0; i < n; i++)
        check((ids[i] = bw_pages_take(pages)) >= 0);
}

static void release(const int *ids, int n)
{
    for (int i = 0; i < n; i++)
        bw_pages_release(pages, ids[i]);
}

/* A sequence of its own that ends at once. */
static bool save(uint64_t salt, const int32_t *tokens, int position, int mark)
{
    int ids[LONG / BW_PAGE + 1];
    const int n = (position - 1) / BW_PAGE + 1;
    take(ids, n);
    const bool saved = save_from(salt, tokens, position, ids, mark);
    release(ids, n);
    return saved;
}

static bw_prefix_match look(uint64_t salt, const int32_t *tokens, int limit)
{
    bw_prefix_match m;
    bw_prefix_tree_find(tree, salt, tokens, limit + 1, limit, &m, NULL);
    return m;
}

/* A find that counts, its references given back. */
static bw_prefix_match use(const int32_t *tokens, int limit)
{
    bw_prefix_match m;
    int shared[LONG / BW_PAGE + 1];
    bw_prefix_tree_find(tree, 0, tokens, limit + 1, limit, &m, shared);
    release(shared, m.n_shared);
    return m;
}

static void check_miss(bw_prefix_match m, int position, bw_cache_miss miss, int miss_at)
{
    check_int(m.position, position);
    check_int(m.miss, miss);
    check_int(m.miss_at, miss_at);
}

TEST(a_checkpoint_is_found_with_its_pages_and_its_state)
{
    static const int positions[] = { 1, 2, 63, 64, 65, 127, 128, 129, 500 };
    for (size_t i = 0; i < BW_COUNT(positions); i++) {
        const int position = positions[i], n = (position - 1) / BW_PAGE + 1;
        int ids[10], shared[10];
        bw_prefix_match m;
        open_tree(10, 3);
        take(ids, n);
        check(!bw_prefix_tree_has(tree, 7, text, position));
        check(save_from(7, text, position, ids, 'x'));
        check(bw_prefix_tree_has(tree, 7, text, position));
        bw_prefix_tree_find(tree, 7, text, LONG, LONG - 1, &m, shared);
        check_int(m.position, position);
        check_int(m.n_shared, n - 1);
        for (int page = 0; page < n - 1; page++) {
            check_int(shared[page], ids[page]);
            check_int(bw_pages_holders(pages, shared[page]), 3); /* the sequence, the tree, the finder */
        }
        check_int(m.tail_page, ids[n - 1]);
        check_int(bw_pages_holders(pages, m.tail_page), 2); /* to be copied, not kept */
        check_int((uintptr_t)m.state % 64, 0);
        for (int b = 0; b < STATE; b++)
            check_int(((const char *)m.state)[b], 'x');
        release(shared, m.n_shared);
        release(ids, n);
        check_int(bw_pages_free(pages), 10 - n);
        check_int(stats().pages_alone, n);
        check_int(stats().nodes, n - 1);
        close_tree();
    }
}

TEST(tails_under_one_node_are_told_apart)
{
    open_tree(20, 10);
    int32_t other[LONG];
    memcpy(other, text, sizeof other);
    other[80] = -1;
    check(save(0, text, 70, 'a') && save(0, text, 90, 'b') && save(0, other, 90, 'c') && save(0, text, 100, 'd'));
    check_int(*(const char *)look(0, text, 70).state, 'a');
    check_int(*(const char *)look(0, text, 99).state, 'b');
    check_int(*(const char *)look(0, text, 100).state, 'd');
    check_int(*(const char *)look(0, other, 95).state, 'c');
    check_int(look(0, text, 89).position, 70);
    check_int(look(0, text, 69).position, 0);
    check_int(stats().nodes, 1);
    check_int(stats().checkpoints, 4);
    check(!bw_prefix_tree_has(tree, 0, text, 80) && bw_prefix_tree_has(tree, 0, other, 90));
    close_tree();
}

TEST(salts_do_not_see_each_other)
{
    open_tree(20, 10);
    check(save(1, text, 100, 'a') && save(1ull << 32, text, 90, 'b'));
    check_miss(look(0, text, 100), 0, BW_MISS_DIFFERS, 0);
    check_int(*(const char *)look(1, text, 100).state, 'a');
    check_int(*(const char *)look(1ull << 32, text, 100).state, 'b');
    check(!bw_prefix_tree_has(tree, 0, text, 100));
    close_tree();
}

/* The MTP head's row at a page's last position is made of the token that follows. */
TEST(the_token_after_a_page_is_part_of_what_it_is)
{
    open_tree(20, 10);
    int32_t other[LONG];
    memcpy(other, text, sizeof other);
    other[64] = -1;
    check(save(0, text, 100, 'a') && save(0, other, 100, 'b'));
    check_int(stats().nodes, 2);
    check_int(*(const char *)look(0, other, 100).state, 'b');
    check_int(save(0, other, 64, 'c'), true); /* the same for both: it does not hold token 64 */
    check_int(*(const char *)look(0, text, 64).state, 'c');
    close_tree();
}

TEST(a_node_that_is_there_keeps_its_page)
{
    open_tree(20, 10);
    int mine[2], theirs[3];
    take(mine, 2);
    take(theirs, 3);
    check(save_from(0, text, 100, mine, 'a') && save_from(0, text, 150, theirs, 'b'));
    check_int(bw_pages_holders(pages, mine[0]), 2);
    check_int(bw_pages_holders(pages, theirs[0]), 1);
    check_int(bw_pages_holders(pages, theirs[1]), 2);
    check_int(bw_pages_holders(pages, theirs[2]), 2);
    check_int(stats().pages_alone, 0);
    release(mine, 2);
    check_int(stats().pages_alone, 2);
    release(theirs, 3);
    check_int(stats().pages_alone, 4);
    close_tree();
}

TEST(a_miss_says_why)
{
    open_tree(20, 2);
    check_miss(look(0, text, 0), 0, BW_MISS_NONE, 0);
    check_miss(look(0, text, 300), 0, BW_MISS_DIFFERS, 0);
    check(save(0, text, 200, 'a'));
    check_miss(look(0, text, 200), 200, BW_MISS_NONE, 0);
    check_miss(look(0, text, 201), 200, BW_MISS_DIFFERS, 200);
    check_miss(look(0, text, 150), 0, BW_MISS_NO_CHECKPOINT, 150); /* all known, nothing before its end */
    int32_t other[LONG];
    memcpy(other, text, sizeof other);
    other[150] = -1; /* in a page */
    check_miss(look(0, other, 300), 0, BW_MISS_NO_CHECKPOINT, 150);
    other[150] = 150;
    other[128] = -1; /* the one after a page */
    check_miss(look(0, other, 300), 0, BW_MISS_NO_CHECKPOINT, 128);
    other[128] = 128;
    other[195] = -1; /* in the tail */
    check_miss(look(0, other, 300), 0, BW_MISS_NO_CHECKPOINT, 195);
    check(save(0, text, 100, 'b'));
    check_miss(look(0, other, 300), 100, BW_MISS_NO_CHECKPOINT, 195);
    other[100] = -1;
    check_miss(look(0, other, 300), 100, BW_MISS_DIFFERS, 100);
    other[0] = -1;
    check_miss(look(0, other, 300), 0, BW_MISS_DIFFERS, 0);
    close_tree();
}

TEST(what_was_evicted_is_remembered)
{
    open_tree(20, 1);
    int32_t other[LONG];
    memcpy(other, text, sizeof other);
    other[120] = -1;
    check(save(0, text, 100, 'a') && save(0, other, 200, 'b'));
    check_int(stats().evictions, 1);
    check_miss(look(0, text, 300), 0, BW_MISS_EVICTED, 100);
    check_miss(look(0, text, 99), 0, BW_MISS_NO_CHECKPOINT, 99); /* would not have served */
    check(save(0, text, 260, 'c')); /* again over another */
    check_miss(look(0, text, 259), 0, BW_MISS_EVICTED, 100);
    check_miss(look(0, other, 259), 0, BW_MISS_EVICTED, 200);
    check_miss(look(1, other, 259), 0, BW_MISS_DIFFERS, 0);
    close_tree();
}

TEST(only_looking_takes_nothing_and_counts_as_no_use)
{
    open_tree(20, 2);
    int32_t other[LONG] = { -1 };
    check(save(0, text, 100, 'a') && save(0, other, 100, 'b'));
    for (int i = 0; i < 10; i++)
        look(0, text, 100);
    check_int(bw_pages_holders(pages, look(0, text, 100).tail_page), 1);
    other[1] = -2;
    check(save(0, other, 100, 'c')); /* text's was older all the same */
    check_int(look(0, text, 100).miss, BW_MISS_EVICTED);
    close_tree();
}

TEST(a_small_request_cannot_push_out_a_large_conversation)
{
    open_tree(40, 2);
    check(save(0, text, 400, 'a') && save(0, text, 600, 'b')); /* save 400 and 200 */
    int32_t other[LONG] = { -1 };
    check(!save(0, other, 199, 'c'));
    check(save(0, other, 200, 'c'));
    check_miss(look(0, text, 600), 400, BW_MISS_EVICTED, 600);
    check(!save(0, text, 199, 'd'));
    close_tree();
}

TEST(the_longer_unused_goes_first)
{
    open_tree(40, 3);
    int32_t a[200], b[200], c[200], d[200];
    for (int i = 0; i < 200; i++) {
        a[i] = i;
        b[i] = i + 1;
        c[i] = i + 2;
        d[i] = i + 3;
    }
    check(save(0, a, 100, 'a') && save(0, b, 100, 'b') && save(0, c, 100, 'c'));
    check_int(use(a, 100).position, 100);
    check(save(0, d, 100, 'd'));
    check_int(look(0, b, 100).position, 0);
    check(bw_prefix_tree_has(tree, 0, c, 100)); /* as good as a find */
    check(save(0, b, 100, 'b'));
    check_int(look(0, a, 100).position, 0);
    close_tree();
}

/* With the one before it gone, a checkpoint saves all the tokens up to it. */
TEST(a_checkpoint_is_worth_more_without_the_one_before_it)
{
    open_tree(40, 2);
    check(save(0, text, 300, 'a') && save(0, text, 350, 'b')); /* save 300 and 50 */
    int32_t other[LONG] = { -1 };
    check(save(0, other, 320, 'c')); /* the 50 go */
    check_int(look(0, text, 400).position, 300);
    close_tree();

    open_tree(40, 2);
    check(save(0, text, 40, 'a') && save(0, text, 350, 'b')); /* save 40 and 310 */
    check(save(0, other, 45, 'c'));                           /* the 40 go, and the 310 become 350 */
    check_int(look(0, text, 400).position, 350);
    check(save(0, other, 348, 'd')); /* in place of c: 350 are too many */
    check_int(look(0, text, 400).position, 350);
    check_int(look(0, other, 400).position, 348);
    close_tree();
}

/* Saved later than what stands behind it, it takes its share of the worth. */
TEST(a_checkpoint_put_in_before_another_takes_from_its_worth)
{
    static const int before[] = { 90, 128, 130, 180 }; /* beside it, in a page above, at a page's end */
    for (size_t i = 0; i < BW_COUNT(before); i++) {
        open_tree(40, 2);
        check(save(0, text, 190, 'a') && save(0, text, before[i], 'b'));
        const int saved = 190 - before[i];
        int32_t other[LONG] = { -1 };
        if (saved > 1 && saved - 1 < before[i])
            check(!save(0, other, saved - 1, 'c'));
        check(save(0, other, saved < before[i] ? saved : before[i], 'c'));
        check_int(look(0, text, 300).position, saved < before[i] ? before[i] : 190);
        close_tree();
    }
}

TEST(what_hangs_under_no_checkpoint_is_dropped_at_once)
{
    open_tree(20, 2);
    check(save(0, text, 500, 'a'));
    check_int(stats().nodes, 7);
    check(save(0, text, 100, 'b'));
    check_int(stats().pages_alone, 9);
    for (int i = 0; i < 4; i++)
        use(text, 100);
    check_int(bw_prefix_tree_make_room(tree, 12), 18); /* the older, with all that is only its own */
    check_int(stats().nodes, 1);
    check_int(look(0, text, 500).position, 100);
    check_int(bw_prefix_tree_make_room(tree, 20), 20);
    check_int(stats().nodes + stats().checkpoints, 0);
    close_tree();
}

TEST(room_is_made_by_what_frees_pages_and_only_while_something_does)
{
    open_tree(20, 10);
    int32_t other[LONG] = { -1 };
    int running[3];
    take(running, 3);
    check(save_from(0, other, 130, running, 'a')); /* the least valuable, but a running sequence has its pages */
    check(save(0, text, 300, 'b'));
    for (int i = 0; i < 3; i++)
        use(text, 300);
    check_int(bw_prefix_tree_make_room(tree, 13), 17);
    check_int(look(0, other, 130).position, 130);
    check_int(look(0, text, 300).miss, BW_MISS_EVICTED);
    check_int(bw_prefix_tree_make_room(tree, 20), 17); /* nothing is left that would help */
    check_int(look(0, other, 130).position, 130);
    release(running, 3);
    check_int(bw_prefix_tree_make_room(tree, 20), 20);
    close_tree();
}

/* One page held twice is free only when both have gone. */
TEST(room_is_made_by_several_that_share_a_page)
{
    open_tree(4, 10);
    int ids[2];
    take(ids, 2);
    check(save_from(0, text, 70, ids, 'a') && save_from(0, text, 90, ids, 'b') && save_from(0, text, 128, ids, 'c'));
    release(ids, 2);
    check_int(stats().pages_alone, 2);
    check_int(bw_prefix_tree_make_room(tree, 4), 4);
    check_int(stats().evictions, 3);
    close_tree();
}

/* Tails in use, but the page above them is the tree's alone. */
TEST(room_is_made_by_those_above_which_a_page_is_alone)
{
    open_tree(6, 10);
    int first[2], second[2];
    take(first, 2);
    check(save_from(0, text, 70, first, 'a'));
    take(second, 2);
    check(save_from(0, text, 90, second, 'b'));
    bw_pages_release(pages, first[0]); /* the node's */
    check_int(bw_prefix_tree_make_room(tree, 3), 3);
    check_int(stats().checkpoints, 0);
    bw_pages_release(pages, first[1]);
    release(second, 2);
    close_tree();
}

/* Only a caller's mistake does this; it costs the checkpoint and nothing else. */
TEST(one_page_for_many_texts_runs_out_of_nodes_quietly)
{
    open_tree(1, 8);
    int ids[4] = { 0 };
    check_int(bw_pages_take(pages), 0);
    int saved = 0;
    for (int i = 0; i < 8; i++) {
        int32_t other[200] = { -i };
        check(save_from(0, other, 193, ids, 'a'));
        saved = stats().checkpoints;
    }
    check(saved >= 1 && saved < 8);
    check_int(stats().nodes, 3 * saved);
    check_int(stats().state_bytes_used, 128 * saved);
    bw_pages_release(pages, 0);
    close_tree();
}

TEST(a_state_given_up_is_free_again)
{
    open_tree(10, 1);
    void *state = bw_prefix_tree_reserve(tree, 10);
    check(state != NULL);
    check_int(stats().state_bytes_used, 128);
    bw_prefix_tree_give_up(tree, state);
    check_int(stats().state_bytes_used, 0);
    check_int(stats().memory, 128);
    check(save(0, text, 10, 'a'));
    check_int(look(0, text, 10).position, 10);
    close_tree();
}

TEST(too_little_memory_is_one_message)
{
    open_tree(10, 1);
    bw_prefix_tree *another;
    bw_error err;
    check_error(bw_prefix_tree_create(&another, pages, 10, 1000, 999, &err), BW_E_LIMIT, err, "prefix cache", "1000",
                "999");
    check(!another);
    check_error(bw_prefix_tree_create(&another, pages, 10, UINT64_MAX, UINT64_MAX - 1, &err), BW_E_LIMIT, err, "prefix cache");
    check_ok(bw_prefix_tree_create(&another, pages, 10, 1000, 1000, &err), err);
    bw_prefix_tree_destroy(another);
    const uint64_t before = bw_mem_used(BW_MEM_CACHE);
    bool failed = true;
    for (int n = 1; failed; n++) {
        bw_mem_fail_at(n);
        bw_status st = bw_prefix_tree_create(&another, pages, 10, 1000, 100000, &err);
        failed = bw_mem_fail_at(0);
        check((st == BW_OK) != failed && (st == BW_OK) == (another != NULL));
        check(!failed || strstr(err.message, "prefix cache"));
        bw_prefix_tree_destroy(another);
        check_int(bw_mem_used(BW_MEM_CACHE), before);
    }
    bw_prefix_tree_destroy(NULL);
    close_tree();
}

TESTS_MAIN(ENTRY(a_checkpoint_is_found_with_its_pages_and_its_state), ENTRY(tails_under_one_node_are_told_apart),
           ENTRY(salts_do_not_see_each_other), ENTRY(the_token_after_a_page_is_part_of_what_it_is),
           ENTRY(a_node_that_is_there_keeps_its_page), ENTRY(a_miss_says_why), ENTRY(what_was_evicted_is_remembered),
           ENTRY(only_looking_takes_nothing_and_counts_as_no_use),
           ENTRY(a_small_request_cannot_push_out_a_large_conversation), ENTRY(the_longer_unused_goes_first),
           ENTRY(a_checkpoint_is_worth_more_without_the_one_before_it),
           ENTRY(a_checkpoint_put_in_before_another_takes_from_its_worth),
           ENTRY(what_hangs_under_no_checkpoint_is_dropped_at_once),
           ENTRY(room_is_made_by_what_frees_pages_and_only_while_something_does),
           ENTRY(room_is_made_by_several_that_share_a_page), ENTRY(room_is_made_by_those_above_which_a_page_is_alone),
           ENTRY(one_page_for_many_texts_runs_out_of_nodes_quietly), ENTRY(a_state_given_up_is_free_again),
           ENTRY(too_little_memory_is_one_message))
