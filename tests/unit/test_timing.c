/* What a step takes: learned where it was measured, sensible elsewhere, hardly moved by a disturbed step. */
#include "lib/check.h"

#include <math.h>

#include "engine/timing.h"

static bw_timing timing;

/* Milliseconds of n drafts beside one sequence. */
static double truth(int n)
{
    return 30 + 4 * n + (n > 3 ? 6 * (n - 3) : 0);
}

static double ratio(int n_seqs, int depth, int a, int b)
{
    return bw_timing_verify(&timing, n_seqs, depth, a) / bw_timing_verify(&timing, n_seqs, depth, b);
}

static void check_near(double got, double want, double tolerance)
{
    check_that(fabs(got / want - 1) <= tolerance, "%g, expected %g", got, want);
}

TEST(before_anything_is_measured_more_takes_longer)
{
    bw_timing_init(&timing);
    for (int n_seqs = 1; n_seqs <= 64; n_seqs *= 2) {
        for (int n = 0; n < 8 * n_seqs; n++)
            check(bw_timing_verify(&timing, n_seqs, 0, n + 1) > bw_timing_verify(&timing, n_seqs, 0, n));
        check(bw_timing_head(&timing, n_seqs + 1) > bw_timing_head(&timing, n_seqs));
        check_int(bw_timing_reach(&timing, n_seqs, 0), 0);
    }
    check(bw_timing_head(&timing, 1) < 0.5 * bw_timing_verify(&timing, 1, 0, 0));
}

TEST(what_is_measured_is_known)
{
    bw_timing_init(&timing);
    for (int k = 0; k < 20; k++)
        for (int n = 0; n <= 8; n++)
            bw_timing_learn_verify(&timing, 1, 100, n, truth(n));
    for (int n = 0; n <= 8; n++)
        check_near(bw_timing_verify(&timing, 1, 100, n), truth(n), 0.01);
    for (int m = 1; m <= 4; m++)
        for (int k = 0; k < 20; k++)
            bw_timing_learn_head(&timing, m, 2 + 0.5 * m);
    for (int m = 1; m <= 4; m++)
        check_near(bw_timing_head(&timing, m), 2 + 0.5 * m, 0.02);
    check_near(bw_timing_head(&timing, 8), 6, 0.2); /* as it went on */
}

TEST(between_and_beyond_what_is_measured_it_goes_on_as_it_went)
{
    bw_timing_init(&timing);
    for (int k = 0; k < 50; k++)
        for (int n = 0; n <= 4; n += 2)
            bw_timing_learn_verify(&timing, 1, 100, n, 30 + 3 * n);
    check_near(ratio(1, 100, 1, 0), 1.1, 0.02);
    check_near(ratio(1, 100, 3, 0), 1.3, 0.02);
    check_near(ratio(1, 100, 8, 0), 1.8, 0.1);
}

TEST(time_never_falls_with_rows_however_noisy)
{
    bw_timing_init(&timing);
    for (int k = 0; k < 300; k++) {
        const int n = rnd_int(0, 32);
        bw_timing_learn_verify(&timing, 4, 100, n, (30 + n) * (1 + 0.3 * fabs(rnd_float())));
        for (int i = 0; i < 32; i++)
            check(bw_timing_verify(&timing, 4, 100, i + 1) >= bw_timing_verify(&timing, 4, 100, i));
    }
}

TEST(a_disturbed_step_moves_little_and_a_disturbed_first_one_is_forgotten)
{
    bw_timing_init(&timing);
    for (int k = 0; k < 20; k++)
        for (int n = 0; n <= 3; n++)
            bw_timing_learn_verify(&timing, 1, 100, n, truth(n));
    const double before = ratio(1, 100, 3, 0);
    bw_timing_learn_verify(&timing, 1, 100, 3, 10 * truth(3));
    check_near(ratio(1, 100, 3, 0), before, 0.02);
    bw_timing_init(&timing);
    const int order[] = { 0, 0, 2, 2 };
    for (int i = 0; i < 4; i++)
        bw_timing_learn_verify(&timing, 1, 100, order[i], truth(order[i]) * (i % 2 ? 1 : 2.5));
    check_near(ratio(1, 100, 2, 0), truth(2) / truth(0), 0.03);
}

TEST(a_machine_that_slows_down_slows_all_lengths_alike)
{
    bw_timing_init(&timing);
    for (int k = 0; k < 40; k++)
        for (int n = 0; n <= 3; n++)
            bw_timing_learn_verify(&timing, 1, 100, n, truth(n));
    const double before = ratio(1, 100, 3, 0);
    for (int k = 0; k < 40; k++)
        bw_timing_learn_verify(&timing, 1, 100, 2, 1.5 * truth(2));
    check_near(bw_timing_verify(&timing, 1, 100, 2), 1.5 * truth(2), 0.02);
    check_near(ratio(1, 100, 3, 0), before, 0.1);
}

TEST(batches_and_depths_are_learned_apart_and_begin_with_what_is_near)
{
    bw_timing_init(&timing);
    for (int k = 0; k < 20; k++)
        for (int n = 0; n <= 4; n++)
            bw_timing_learn_verify(&timing, 1, 100, n, truth(n));
    check_near(ratio(1, 50000, 4, 0), truth(4) / truth(0), 0.02);
    for (int k = 0; k < 20; k++)
        for (int n = 0; n <= 4; n++)
            bw_timing_learn_verify(&timing, 1, 50000, n, 60 + 20 * n);
    check_near(ratio(1, 50000, 4, 0), 140.0 / 60, 0.04);
    check_near(ratio(1, 100, 4, 0), truth(4) / truth(0), 0.02);
    for (int k = 0; k < 20; k++)
        for (int n = 0; n <= 64; n += 16)
            bw_timing_learn_verify(&timing, 16, 100, n, 100 + 5 * n);
    check_near(ratio(16, 100, 16, 0), 1.8, 0.02);
    check_near(ratio(1, 100, 4, 0), truth(4) / truth(0), 0.02);
}

TEST(the_first_step_at_a_new_depth_tells_its_level)
{
    for (int first = 0; first <= 4; first += 2) {
        bw_timing_init(&timing);
        for (int k = 0; k < 20; k++)
            for (int n = 0; n <= 4; n++)
                bw_timing_learn_verify(&timing, 1, 100, n, truth(n));
        bw_timing_learn_verify(&timing, 1, 3000, first, 2 * truth(first));
        check_near(bw_timing_verify(&timing, 1, 3000, first), 2 * truth(first), 0.001);
        check_near(ratio(1, 3000, 4, 0), truth(4) / truth(0), 0.02);
    }
}

/* Rows in tiles of 8 and 16: the first draft beside 16 sequences costs as much as 8. */
TEST(steps_with_few_drafts_say_nothing_of_a_plain_one)
{
    const int seqs[] = { 16, 64 };
    for (int i = 0; i < 2; i++) {
        const int s = seqs[i];
        bw_timing_init(&timing);
        for (int k = 0; k < 3; k++)
            bw_timing_learn_verify(&timing, s, 100, 0, 30);
        check(bw_timing_measured(&timing, s, 100, 0) > 1.9);
        check(bw_timing_measured(&timing, s, 100, 1) == 0);
        for (int k = 0; k < 500; k++)
            bw_timing_learn_verify(&timing, s, 100, 1 + k % 3, 32);
        check(bw_timing_measured(&timing, s, 100, 0) < 1.9);
        check(bw_timing_measured(&timing, s, 100, 1) > 1.9);
        for (int k = 0; k < 3; k++)
            bw_timing_learn_verify(&timing, s, 100, 0, 30);
        check(bw_timing_measured(&timing, s, 100, 0) > 1.9);
        for (int k = 0; k < 60; k++)
            bw_timing_learn_verify(&timing, s, 100, 2 * (k % 2), k % 2 ? 32 : 30);
        check_near(ratio(s, 100, 2, 0), 32.0 / 30, 0.03);
        for (int k = 0; k < 150; k++) /* a machine that gets faster does so without drafts too */
            bw_timing_learn_verify(&timing, s, 100, 1, 16);
        check_near(bw_timing_verify(&timing, s, 100, 0), 15, 0.15);
    }
}

TEST(a_step_reaches_twice_as_far_as_was_measured)
{
    bw_timing_init(&timing);
    for (int k = 0; k < 2; k++)
        bw_timing_learn_verify(&timing, 1, 0, 0, 30);
    check_int(bw_timing_reach(&timing, 1, 0), 1);
    for (int k = 0; k < 2; k++)
        bw_timing_learn_verify(&timing, 1, 0, 1, 31);
    check_int(bw_timing_reach(&timing, 1, 0), 3);
    check_int(bw_timing_reach(&timing, 2, 0), 0);
    check(bw_timing_measured(&timing, 1, 0, 1) > 1.9 && bw_timing_measured(&timing, 1, 0, 5) == 0);
    for (int k = 0; k < 1000; k++)
        bw_timing_learn_verify(&timing, 1, 0, 0, 30);
    check(bw_timing_measured(&timing, 1, 0, 1) < 0.5 && bw_timing_measured(&timing, 1, 0, 0) > 10);
}

TESTS_MAIN(ENTRY(before_anything_is_measured_more_takes_longer), ENTRY(what_is_measured_is_known),
           ENTRY(between_and_beyond_what_is_measured_it_goes_on_as_it_went),
           ENTRY(time_never_falls_with_rows_however_noisy),
           ENTRY(a_disturbed_step_moves_little_and_a_disturbed_first_one_is_forgotten),
           ENTRY(a_machine_that_slows_down_slows_all_lengths_alike),
           ENTRY(batches_and_depths_are_learned_apart_and_begin_with_what_is_near),
           ENTRY(the_first_step_at_a_new_depth_tells_its_level),
           ENTRY(steps_with_few_drafts_say_nothing_of_a_plain_one),
           ENTRY(a_step_reaches_twice_as_far_as_was_measured))
