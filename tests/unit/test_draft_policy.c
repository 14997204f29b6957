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

TEST(auto_probes_again_after_giving_up)
{
    bw_draft_policy p;
    settle(&p, 0);
    int probes = 0;
    for (int i = 0; i < 320; i++)
        probes += bw_draft_choose(&p) > 0;
    check(probes >= 9 && probes <= 11);
}

TESTS_MAIN(ENTRY(a_fixed_length_is_kept), ENTRY(auto_drafts_more_the_more_is_accepted),
           ENTRY(auto_probes_again_after_giving_up))
