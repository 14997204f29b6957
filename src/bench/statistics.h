/* statistics.h - what repetitions come to. Pure; any thread. */
#ifndef BW_BENCH_STATISTICS_H
#define BW_BENCH_STATISTICS_H

/* The spread is that of the repetitions themselves: the smallest and the largest. */
typedef struct bw_summary {
    double median, smallest, largest;
} bw_summary;

/* Of n >= 1 values, in any order; of an even number the mean of the two in the middle. Sorts them. */
bw_summary bw_summary_of(double *values, int n);

#endif
