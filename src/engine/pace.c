/* pace.c - smoothed times of steps. */
#include "engine/pace.h"

#include "ops/ops.h"

/* A new measurement counts for a quarter: ten steps follow a change of depth or load, and one slow
 * step among others does not halve the prefill. */
static const double weight = 0.25;

static int bucket_of(int decode_rows)
{
    int b = 0;
    while (b + 1 < BW_PACE_BUCKETS && (1 << b) < decode_rows)
        b++;
    return b;
}

static void smooth(double *mean, double seconds)
{
    *mean = *mean > 0 ? *mean + weight * (seconds - *mean) : seconds;
}

/* Of the nearest number of rows that was measured; 0: none was. */
static double decode_time(const bw_pace *pace, int decode_rows)
{
    const int b = bucket_of(decode_rows);
    for (int d = 0; d < BW_PACE_BUCKETS; d++) {
        if (b - d >= 0 && pace->decode_s[b - d] > 0)
            return pace->decode_s[b - d];
        if (b + d < BW_PACE_BUCKETS && pace->decode_s[b + d] > 0)
            return pace->decode_s[b + d];
    }
    return 0;
}

void bw_pace_init(bw_pace *pace, double ceiling_s, int least)
{
    *pace = (bw_pace){ .ceiling_s = ceiling_s, .least = least > 0 ? least : BW_PAGE };
}

void bw_pace_learn(bw_pace *pace, const bw_step_info *step)
{
    const int decode_rows = step->decode_rows + step->draft_rows;
    if (step->prefill_rows == 0) {
        if (decode_rows > 0)
            smooth(&pace->decode_s[bucket_of(decode_rows)], step->seconds);
        return;
    }
    const double decode_s = decode_rows > 0 ? decode_time(pace, decode_rows) : 0;
    if (decode_rows > 0 && decode_s == 0)
        return; /* nothing tells how much of it the prefill took */
    const double prefill_s = step->seconds - decode_s;
    /* A step of few rows is bound by reading weights: what its rows cost says nothing about more of them. */
    if (prefill_s > 0 && step->prefill_rows >= BW_PAGE / 2)
        smooth(&pace->row_s, prefill_s / step->prefill_rows);
}

int bw_pace_prefill_rows(const bw_pace *pace, int decode_rows)
{
    const double decode_s = decode_time(pace, decode_rows);
    if (decode_s <= 0 || pace->row_s <= 0)
        return pace->least;
    double extra = BW_PAGE * pace->row_s;
    if (extra < decode_s)
        extra = decode_s;
    if (pace->ceiling_s > 0 && decode_s + extra > pace->ceiling_s)
        extra = pace->ceiling_s - decode_s;
    const double rows = extra / pace->row_s;
    if (rows >= 1e6)
        return 1000000;
    return rows > pace->least ? (int)rows : pace->least;
}
