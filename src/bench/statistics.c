/* statistics.c - see statistics.h. */
#include "bench/statistics.h"

#include <assert.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bw_summary bw_summary_of(double *values, int n)
{
    assert(n >= 1);
    qsort(values, (size_t)n, sizeof *values, ascending);
    return (bw_summary){ .median = (values[(n - 1) / 2] + values[n / 2]) / 2, .smallest = values[0],
                         .largest = values[n - 1] };
}
