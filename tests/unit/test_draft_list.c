/* The tokens a sequence may draft beside those with low ids: sorted, its own latest, a function of its text alone. */
#include "lib/check.h"

#include <stdlib.h>

#include "engine/draft_list.h"

enum { FIRST = 100, TOKENS = 4000, LONG = BW_DRAFT_LIST * 2 };

static bool has(const bw_draft_list *list, int32_t id)
{
    for (int i = 0; i < list->n; i++)
        if (list->ids[i] == id)
            return true;
    return false;
}

static void check_sorted(const bw_draft_list *list)
{
    check(list->n <= BW_DRAFT_LIST);
    for (int i = 0; i < list->n; i++)
        check(list->ids[i] >= FIRST && list->ids[i] < TOKENS && (i == 0 || list->ids[i] > list->ids[i - 1]));
}

TEST(only_tokens_past_the_first_ones_are_listed_once)
{
    bw_draft_list list;
    const int32_t text[] = { 5, 99, 100, 300, 300, 5, -1, TOKENS, 9000, TOKENS - 1, 100 };
    bw_draft_list_init(&list, FIRST, TOKENS);
    bw_draft_list_read(&list, text, 11);
    check_int(list.n, 3);
    check(list.ids[0] == 100 && list.ids[1] == 300 && list.ids[2] == TOKENS - 1);
}

TEST(the_latest_stay_and_the_fixed_ones_always)
{
    bw_draft_list list;
    int32_t text[LONG];
    const int32_t fixed[] = { 3990, 3, 3995, 3990 };
    for (int i = 0; i < LONG; i++)
        text[i] = FIRST + i;
    bw_draft_list_init(&list, FIRST, TOKENS);
    bw_draft_list_fix(&list, fixed, 4);
    bw_draft_list_fix(&list, fixed, 1);
    bw_draft_list_read(&list, text, LONG);
    check_int(list.n, BW_DRAFT_LIST);
    check_sorted(&list);
    check(has(&list, 3990) && has(&list, 3995));
    for (int i = 0; i < LONG; i++)
        check(has(&list, text[i]) == (i >= LONG - (BW_DRAFT_LIST - 2)));
}

TEST(what_comes_again_is_young_again)
{
    bw_draft_list list;
    const int32_t fixed[] = { 3990, 3995 }, again[] = { FIRST, 3990, FIRST + 50 };
    for (int start = 0; start < 1600; start += 157) { /* the list may be full before, or not */
        int32_t text[4000];
        int n = 0;
        for (int i = 0; i < start; i++)
            text[n++] = FIRST + 300 + i % 1200;
        for (int i = 0; i < 101; i++)
            text[n++] = FIRST + i;
        for (int i = 0; i < 3; i++)
            text[n++] = again[i];
        for (int i = 0; i < BW_DRAFT_LIST - 4; i++)
            text[n++] = FIRST + 2000 + i;
        bw_draft_list_init(&list, FIRST, TOKENS);
        bw_draft_list_fix(&list, fixed, 2);
        bw_draft_list_read(&list, text, n);
        check_int(list.n, BW_DRAFT_LIST);
        check_sorted(&list);
        for (int i = 0; i < 101; i++)
            check(has(&list, FIRST + i) == (i == 0 || i == 50));
        check(has(&list, 3990) && has(&list, 3995) && has(&list, text[n - 1]));
        text[n] = FIRST + 2100; /* listed: nobody leaves */
        text[n + 1] = FIRST + 200;
        bw_draft_list_read(&list, text, n + 1);
        check(has(&list, FIRST) && has(&list, FIRST + 50));
        bw_draft_list_read(&list, text, n + 2);
        check(!has(&list, FIRST) && has(&list, FIRST + 50));
    }
}

/* Whether `at` is the last place of its token in text [n]. */
static bool comes_last_at(const int32_t *text, int n, int at)
{
    for (int i = at + 1; i < n; i++)
        if (text[i] == text[at])
            return false;
    return true;
}

/* Said the other way round, from the end of the text: the fixed ones, and the latest that fit beside them. */
TEST(the_list_is_what_counting_back_from_the_end_finds)
{
    enum { N = 6000 };
    static int32_t text[N];
    for (int round = 0; round < 12; round++) {
        bw_draft_list list;
        const int ids = round % 2 ? TOKENS + 50 : FIRST + BW_DRAFT_LIST + rnd_int(-40, 40); /* fits, or nearly */
        for (int i = 0; i < N; i++)
            text[i] = rnd_int(0, ids - 1);
        bw_draft_list_init(&list, FIRST, TOKENS);
        bw_draft_list_fix(&list, text, 20);
        const bw_draft_list fixed = list;
        int wanted = fixed.n;
        bw_draft_list_read(&list, text, N);
        check_sorted(&list);
        for (int i = 0; i < fixed.n; i++)
            check(has(&list, fixed.ids[i]));
        for (int i = N - 1; i >= 0; i--) {
            if (text[i] < FIRST || text[i] >= TOKENS || has(&fixed, text[i]) || !comes_last_at(text, N, i))
                continue;
            check(has(&list, text[i]) == (wanted < BW_DRAFT_LIST));
            wanted += wanted < BW_DRAFT_LIST;
        }
        check_int(list.n, wanted);
    }
}

TEST(no_more_than_so_many_are_fixed)
{
    bw_draft_list list;
    int32_t many[200];
    for (int i = 0; i < 200; i++)
        many[i] = FIRST + 3 * i;
    bw_draft_list_init(&list, FIRST, TOKENS);
    bw_draft_list_fix(&list, many, 200);
    check_int(list.n, BW_DRAFT_LIST_FIXED);
    check(has(&list, many[BW_DRAFT_LIST_FIXED - 1]) && !has(&list, many[BW_DRAFT_LIST_FIXED]));
}

TEST(it_does_not_matter_how_a_text_was_cut)
{
    static int32_t text[5000];
    for (int round = 0; round < 20; round++) {
        bw_draft_list whole, pieces;
        for (int i = 0; i < 5000; i++)
            text[i] = rnd_int(0, TOKENS + 50);
        bw_draft_list_init(&whole, FIRST, TOKENS);
        bw_draft_list_init(&pieces, FIRST, TOKENS);
        bw_draft_list_fix(&whole, text, 20);
        bw_draft_list_fix(&pieces, text, 20);
        bw_draft_list_read(&whole, text, 5000);
        for (int n = 0; n < 5000; check_sorted(&pieces))
            bw_draft_list_read(&pieces, text, n += rnd_int(1, 5000 - n));
        check(whole.n == pieces.n && memcmp(whole.ids, pieces.ids, (size_t)whole.n * sizeof *whole.ids) == 0);
        check(whole.oldest == pieces.oldest);
    }
}

TEST(it_says_when_it_changed)
{
    bw_draft_list list;
    const int32_t text[] = { 5, 300, 300 };
    bw_draft_list_init(&list, FIRST, TOKENS);
    check(list.changed);
    list.changed = false;
    bw_draft_list_read(&list, text, 1);
    check(!list.changed);
    bw_draft_list_read(&list, text, 2);
    check(list.changed);
    list.changed = false;
    bw_draft_list_read(&list, text, 3);
    check(!list.changed);
}

/* bench/draft_coverage.py plays the list by rules of its own; its --self-test counts the same. */
TEST(a_made_up_text_finds_as_many_listed_as_the_benchmark_counts)
{
    bw_draft_list list;
    const int32_t fixed[] = { 5000, 3, 5001, 5000 };
    static int32_t text[20000];
    uint32_t x = 1;
    int found = 0;
    bw_draft_list_init(&list, 1000, 6000);
    bw_draft_list_fix(&list, fixed, 4);
    for (int i = 0; i < 20000; i++) {
        x = (x * 1103515245 + 12345) & 0x7fffffff;
        text[i] = (int32_t)((x >> 16) % (x >> 8 & 3 ? 900 : 4100) + 700);
        found += has(&list, text[i]);
        bw_draft_list_read(&list, text, i + 1);
    }
    check_int(found, 6042);
}

TESTS_MAIN(ENTRY(only_tokens_past_the_first_ones_are_listed_once),
           ENTRY(the_latest_stay_and_the_fixed_ones_always), ENTRY(what_comes_again_is_young_again),
           ENTRY(the_list_is_what_counting_back_from_the_end_finds),
           ENTRY(no_more_than_so_many_are_fixed), ENTRY(it_does_not_matter_how_a_text_was_cut),
           ENTRY(it_says_when_it_changed),
           ENTRY(a_made_up_text_finds_as_many_listed_as_the_benchmark_counts))
