/* Rows of prefill beside sequences that decode: from times it was told, never less than its least. */
#include "lib/check.h"

#include "engine/pace.h"

static void teach(bw_pace *p, int n, double decode_s, int decode_rows, double row_s, int prefill_rows)
{
    for (int i = 0; i < n; i++)
        bw_pace_learn(p, &(bw_step_info){ .seconds = decode_s + row_s * prefill_rows, .decode_rows = decode_rows,
                                          .prefill_rows = prefill_rows });
}

TEST(nothing_measured_gives_the_least)
{
    bw_pace p;
    bw_pace_init(&p, 0, 0);
    check_int(bw_pace_prefill_rows(&p, 4), 64);
    bw_pace_init(&p, 0, 8);
    check_int(bw_pace_prefill_rows(&p, 4), 8);
    teach(&p, 10, 0.05, 4, 0, 0);
    check_int(bw_pace_prefill_rows(&p, 4), 8);
}

TEST(a_step_becomes_at_most_twice_as_long)
{
    bw_pace p;
    bw_pace_init(&p, 0, 0);
    teach(&p, 40, 0.050, 4, 0, 0);
    teach(&p, 40, 0, 0, 0.0001, 512); /* 50 ms are 500 rows */
    int rows = bw_pace_prefill_rows(&p, 4);
    check_that(rows > 490 && rows <= 500, "%d rows", rows);
    rows = bw_pace_prefill_rows(&p, 3); /* the same bucket */
    check_that(rows > 490 && rows <= 500, "%d rows", rows);
}

TEST(a_page_goes_in_where_that_takes_longer)
{
    bw_pace p;
    bw_pace_init(&p, 0, 0);
    teach(&p, 40, 0.050, 4, 0, 0);
    teach(&p, 40, 0.050, 4, 0.004, 64); /* a mixed step: 64 rows take 256 ms */
    check_int(bw_pace_prefill_rows(&p, 4), 64);
}

TEST(a_ceiling_cuts_what_is_more_than_the_least)
{
    bw_pace p;
    bw_pace_init(&p, 0.070, 16);
    teach(&p, 40, 0.050, 4, 0, 0);
    teach(&p, 40, 0, 0, 0.0001, 512);
    int rows = bw_pace_prefill_rows(&p, 4); /* 20 ms */
    check_that(rows > 190 && rows <= 200, "%d rows", rows);
    teach(&p, 40, 0.100, 4, 0, 0); /* the decode step alone is over it */
    check_int(bw_pace_prefill_rows(&p, 4), 16);
}

TEST(small_steps_say_nothing_about_the_cost_of_a_row)
{
    bw_pace p;
    bw_pace_init(&p, 0, 0);
    teach(&p, 40, 0.050, 1, 0, 0);
    teach(&p, 40, 0.030, 0, 0, 5); /* five rows bound by reading weights */
    check_int(bw_pace_prefill_rows(&p, 1), 64);
}

TESTS_MAIN(ENTRY(nothing_measured_gives_the_least), ENTRY(a_step_becomes_at_most_twice_as_long),
           ENTRY(a_page_goes_in_where_that_takes_longer), ENTRY(a_ceiling_cuts_what_is_more_than_the_least),
           ENTRY(small_steps_say_nothing_about_the_cost_of_a_row))
