/* The draft length: fixed when asked, otherwise what pays by what was measured, and 0 when nothing does. */
#include "lib/check.h"

#include "engine/draft.h"

static bw_draft_planner planner;

/* One plan for sequences of these policies; lengths to n. */
static int plan(bw_draft_policy *policies, int n_seqs, int most, int budget, int *n)
{
    bw_draft_ask asks[32];
    int all = 0;
    for (int i = 0; i < n_seqs; i++)
        asks[i] = (bw_draft_ask){ .policy = &policies[i], .depth = 100, .most = most };
    bw_draft_plan(&planner, asks, n_seqs, budget);
    for (int i = 0; i < n_seqs; i++) {
        n[i] = asks[i].n;
        all += asks[i].n;
    }
    return all;
}

/* A step that verified n_drafts: each costs `row` of a plain one; and a run of the head for all, `head` of it. */
static void teach(int n_seqs, int n_drafts, double row, double head)
{
    bw_draft_learn_times(&planner, &(bw_draft_times){ .pure = true, .n_seqs = n_seqs, .depth = 100,
                                                      .n_drafts = n_drafts, .verify_s = 0.02 * (1 + row * n_drafts),
                                                      .n_runs = 1, .chains = { n_seqs }, .run_s = { 0.02 * head } });
}

/* Steps of one sequence of which `percent` of drafts are accepted, whose times were taught. Returns the last length. */
static int settle(bw_draft_policy *p, int steps, int percent, double row, double head, int *drafted)
{
    int n = 0, next;
    for (int i = 0; i < steps; i++, n = next) {
        int accepted = 0;
        plan(p, 1, BW_MAX_DRAFTS, BW_MAX_DRAFTS, &next);
        while (accepted < n && rnd_int(0, 99) < percent)
            accepted++;
        teach(1, n, row, head);
        if (n > 0)
            bw_draft_learn(&planner, p, n, accepted);
        *drafted += n;
    }
    return n;
}

TEST(a_fixed_length_is_kept_whatever_is_accepted)
{
    bw_draft_planner_init(&planner);
    for (int request = 0; request <= BW_MAX_DRAFTS; request++) {
        bw_draft_policy p[2];
        int n[2];
        bw_draft_init(&p[0], request);
        bw_draft_init(&p[1], request);
        for (int i = 0; i < 50; i++) {
            plan(p, 2, BW_MAX_DRAFTS, 1, n); /* a budget is for those that may choose */
            check_int(n[0], request);
            check_int(n[1], request);
            teach(2, 2 * request, 3, 3);
            bw_draft_learn(&planner, &p[0], request, 0);
        }
        plan(p, 2, 3, 100, n);
        check_int(n[0], request < 3 ? request : 3);
    }
}

TEST(nothing_is_drafted_before_a_plain_step_was_measured)
{
    bw_draft_policy p;
    int n;
    bw_draft_planner_init(&planner);
    bw_draft_init(&p, BW_DRAFT_AUTO);
    check_int(plan(&p, 1, 8, 8, &n), 0);
    teach(1, 0, 0, 0.1);
    check_int(plan(&p, 1, 8, 8, &n), 0); /* the first step of a process is a poor measure */
    teach(1, 0, 0, 0.1);
    check_int(plan(&p, 1, 8, 8, &n), 1); /* carefully: little is known of what is accepted */
}

TEST(more_is_drafted_the_more_is_accepted_and_the_cheaper_it_is)
{
    int length[4], drafted = 0;
    const struct { int percent; double row; } cases[] = { { 95, 0.05 }, { 80, 0.05 }, { 80, 0.4 }, { 30, 0.4 } };
    for (int i = 0; i < 4; i++) {
        bw_draft_policy p;
        bw_draft_planner_init(&planner);
        bw_draft_init(&p, BW_DRAFT_AUTO);
        length[i] = 0;
        for (int k = 0; k < 50; k++) /* the mean, past the start */
            length[i] += settle(&p, k ? 3 : 300, cases[i].percent, cases[i].row, 0.1, &drafted);
    }
    check_that(length[0] > 6 * 50 && length[0] > length[1] && length[1] > 2 * length[2] && length[2] > length[3] &&
               length[3] < 25, "%d %d %d %d", length[0], length[1], length[2], length[3]);
}

TEST(nothing_is_drafted_where_a_draft_costs_more_than_a_step_and_rarely_tried)
{
    bw_draft_policy p;
    int drafted = 0;
    bw_draft_planner_init(&planner);
    bw_draft_init(&p, BW_DRAFT_AUTO);
    settle(&p, 1000, 100, 0.3, 1.2, &drafted);
    check_that(drafted >= 4 && drafted <= 30, "%d drafts", drafted);
}

TEST(what_is_never_accepted_is_given_up_at_once_and_probed_ever_less)
{
    bw_draft_policy p;
    int first = 0, later = 0;
    bw_draft_planner_init(&planner);
    bw_draft_init(&p, BW_DRAFT_AUTO);
    settle(&p, 100, 0, 0.1, 0.1, &first);
    settle(&p, 1280, 0, 0.1, 0.1, &later);
    check_that(first >= 3 && first <= 12, "%d drafts in the first 100 steps", first);
    check_that(later >= 8 && later <= 12, "%d drafts in 1280 later ones", later);
}

TEST(drafting_comes_back_when_drafts_are_right_again)
{
    bw_draft_policy p;
    int drafted = 0;
    bw_draft_planner_init(&planner);
    bw_draft_init(&p, BW_DRAFT_AUTO);
    settle(&p, 1000, 0, 0.1, 0.1, &drafted);
    check(settle(&p, 200, 100, 0.1, 0.1, &drafted) >= 5);
}

TEST(a_new_sequence_begins_with_what_others_taught)
{
    bw_draft_policy p;
    int drafted = 0, n;
    bw_draft_planner_init(&planner);
    bw_draft_init(&p, BW_DRAFT_AUTO);
    settle(&p, 300, 0, 0.1, 0.1, &drafted);
    bw_draft_init(&p, BW_DRAFT_AUTO);
    check_int(plan(&p, 1, 8, 8, &n), 0);
    bw_draft_planner_init(&planner);
    bw_draft_init(&p, BW_DRAFT_AUTO);
    settle(&p, 300, 95, 0.05, 0.1, &drafted);
    bw_draft_init(&p, BW_DRAFT_AUTO);
    check(plan(&p, 1, 8, 8, &n) >= 5);
}

TEST(drafts_go_where_they_are_accepted_and_into_the_budget)
{
    bw_draft_policy p[4];
    int n[4];
    bw_draft_planner_init(&planner);
    for (int i = 0; i < 4; i++) {
        bw_draft_init(&p[i], BW_DRAFT_AUTO);
        for (int k = 0; k < 40; k++)
            bw_draft_learn(&planner, &p[i], 4, i % 2 ? 4 : 0);
    }
    for (int k = 0; k < 20; k++)
        for (int d = 0; d <= 16; d++)
            teach(4, d, 0.02, 0.05);
    for (int i = 0; i < 10; i++) {
        const int all = plan(p, 4, 8, 6, n);
        check_that(all <= 6, "%d drafts", all);
    }
    int sum[4] = { 0 };
    for (int i = 0; i < 100; i++) {
        plan(p, 4, 8, 32, n);
        for (int k = 0; k < 4; k++)
            sum[k] += n[k];
    }
    check_that(sum[0] <= 15 && sum[2] <= 15 && sum[1] >= 300 && sum[3] >= 300, "%d %d %d %d", sum[0], sum[1], sum[2],
               sum[3]);
}

TEST(a_probe_that_was_paid_for_is_made)
{
    bw_draft_policy p[4];
    int n[4], probes = 0;
    bw_draft_planner_init(&planner);
    for (int i = 0; i < 4; i++)
        bw_draft_init(&p[i], BW_DRAFT_AUTO);
    for (int i = 0; i < 2000; i++) { /* two sequences draft, two do not */
        const int all = plan(p, 4, 8, 32, n);
        for (int k = 0; k < 4; k++) {
            check(!p[k].probing || n[k] > 0);
            probes += p[k].probing;
        }
        teach(4, all, 0.05, 0.1);
        for (int k = 0; k < 4; k++)
            if (n[k] > 0)
                bw_draft_learn(&planner, &p[k], n[k], k % 2 ? n[k] : 0);
    }
    check_that(probes >= 10, "%d probes", probes);
}

TESTS_MAIN(ENTRY(a_fixed_length_is_kept_whatever_is_accepted),
           ENTRY(nothing_is_drafted_before_a_plain_step_was_measured),
           ENTRY(more_is_drafted_the_more_is_accepted_and_the_cheaper_it_is),
           ENTRY(nothing_is_drafted_where_a_draft_costs_more_than_a_step_and_rarely_tried),
           ENTRY(what_is_never_accepted_is_given_up_at_once_and_probed_ever_less),
           ENTRY(drafting_comes_back_when_drafts_are_right_again),
           ENTRY(a_new_sequence_begins_with_what_others_taught),
           ENTRY(drafts_go_where_they_are_accepted_and_into_the_budget), ENTRY(a_probe_that_was_paid_for_is_made))
