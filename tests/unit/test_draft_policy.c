/* The draft length: fixed when asked, otherwise what pays, and 0 when nothing does. */
#include "lib/check.h"

#include "engine/draft.h"

TEST(a_fixed_length_is_kept)
{
    for (int n = 0; n <= BW_MAX_DRAFTS; n++) {
        bw_draft_policy p;
        bw_draft_init(&p, n);
        for (int i = 0; i < 100; i++) {
            check_int(bw_draft_choose(&p), n);
            bw_draft_learn(&p, n, 0);
        }
    }
}

static int settle(bw_draft_policy *p, int percent)
{
    int n = 0;
    bw_draft_init(p, BW_DRAFT_AUTO);
    for (int i = 0; i < 400; i++) {
        int accepted = 0;
        n = bw_draft_choose(p);
        while (accepted < n && rnd_int(0, 99) < percent)
            accepted++;
        if (n > 0)
            bw_draft_learn(p, n, accepted);
    }
    return n;
}

TEST(auto_drafts_more_the_more_is_accepted)
{
    bw_draft_policy p;
    check_int(settle(&p, 100), 4);
    int n = 0;
    for (int i = 0; i < 40; i++)
        n += settle(&p, 5) > 0;
    check(n <= 4); /* a probe now and then */
}

TEST(auto_gives_up_within_a_few_rejections_and_probes_ever_less)
{
    bw_draft_policy p;
    bw_draft_init(&p, BW_DRAFT_AUTO);
    int drafted = 0, verifies = 0, last = 0, longest = 0;
    for (int i = 0; i < 2000; i++) {
        const int n = bw_draft_choose(&p);
        if (n == 0)
            continue;
        bw_draft_learn(&p, n, 0);
        drafted += n;
        verifies++;
        longest = i - last > longest ? i - last : longest;
        last = i;
    }
    check(verifies >= 8 && verifies <= 24);
    check(drafted <= 40);
    check(longest >= 200 && longest <= 300);
}

TEST(auto_comes_back_when_drafts_are_right_again)
{
    bw_draft_policy p;
    bw_draft_init(&p, BW_DRAFT_AUTO);
    for (int i = 0; i < 100; i++)
        bw_draft_learn(&p, 1, 0);
    int n = 0;
    for (int i = 0; i < 400; i++)
        if ((n = bw_draft_choose(&p)) > 0)
            bw_draft_learn(&p, n, n);
    check(n >= 3);
}

TESTS_MAIN(ENTRY(a_fixed_length_is_kept), ENTRY(auto_drafts_more_the_more_is_accepted),
           ENTRY(auto_gives_up_within_a_few_rejections_and_probes_ever_less),
           ENTRY(auto_comes_back_when_drafts_are_right_again))
