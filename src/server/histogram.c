/* histogram.c - see histogram.h. */
#include "server/histogram.h"

#include <math.h>

#include "base/status.h"

#define EDGES(...)                                                                                \
    {                                                                                             \
        .n = (int)BW_COUNT(((double[]){ __VA_ARGS__ })), .at = { __VA_ARGS__ }                    \
    }

const bw_edges bw_edges_first_token = EDGES(.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10,
                                            20, 40, 80, 160, 640, 2560);
const bw_edges bw_edges_between = EDGES(.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40,
                                        80);
const bw_edges bw_edges_request = EDGES(.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960,
                                        1920, 7680);
const bw_edges bw_edges_choices = EDGES(1, 2, 5, 10, 20);
const bw_edges bw_edges_rows = EDGES(1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384);

const bw_edges bw_edges_step = EDGES(.0005, .001, .002, .003, .004, .006, .008, .01, .015, .02, .03, .04, .06, .08, .1,
                                     .15, .2, .3, .4, .6, .8, 1, 2, 4, 8);
const bw_edges bw_edges_step_rows = EDGES(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024,
                                          2048, 4096);
const bw_edges bw_edges_drafts = EDGES(0, 1, 2, 3, 4, 5, 6, 7, 8);
const bw_edges bw_edges_http = EDGES(.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600);

bw_edges bw_edges_125(double limit)
{
    static const double steps[] = { 1, 2, 5 };
    bw_edges edges = { .n = 1, .at = { 1 } };
    double power = 1;
    for (int i = 1; i < BW_MAX_EDGES; i++) {
        if (i % 3 == 0)
            power *= 10;
        if (steps[i % 3] * power > limit)
            break;
        edges.at[edges.n++] = steps[i % 3] * power;
    }
    return edges;
}

void bw_histogram_init(bw_histogram *histogram, const bw_edges *edges)
{
    *histogram = (bw_histogram){ .edges = edges };
}

void bw_histogram_observe(bw_histogram *histogram, double value)
{
    if (!isfinite(value) || value < 0)
        return;
    const bw_edges *edges = histogram->edges;
    int i = 0;
    while (i < edges->n && value > edges->at[i])
        i++;
    histogram->counts[i]++;
    histogram->n++;
    histogram->sum += value;
}
