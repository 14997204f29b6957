/* timing.c - smoothed times by rows, kept apart into a level that drifts and a shape that lasts. */
#include "engine/timing.h"

#include <assert.h>
#include <stddef.h>

/* Of a plain step of one row: a guess until both are measured, which is within a few steps. A head of 248,320 rows is
 * an eighth to a fifth of the smaller models. */
static const double PRIOR_ROW = 0.15, PRIOR_HEAD = 0.12;

/* Drafts per sequence; chains of a run. */
static const double verify_knots[BW_CURVE_KNOTS] = { 0, 0.25, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9 };
static const double head_knots[BW_CURVE_KNOTS] = { 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128 };

/* Uncertainty, counted in measurements: of a knot before its first one; of the level at most; and `STALE` steps
 * without a measurement leave one. */
static const double UNKNOWN = 1.0 / 16, STEADY = 16, STALE = 384;
/* Of a measurement: the usual spread, and how far it may be from what was expected before the rest of it is taken
 * for a disturbance: only times that are too long are disturbed, so the first ones may fall freely. */
static const double SPREAD = 0.07, FARTHEST = 1.15, FARTHEST_FIRST = 3;

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* ---- a curve --------------------------------------------------------------------------------- */

/* x lies between knots i and i + 1; returns the share of knot i + 1. */
static double locate(const double *knots, double x, int *i)
{
    int k = 0;
    while (k + 2 < BW_CURVE_KNOTS && knots[k + 1] <= x)
        k++;
    *i = k;
    return clamp((x - knots[k]) / (knots[k + 1] - knots[k]), 0, 1);
}

/* Neighbours that fall share their weighted mean: of noisy measurements the nearest ascending ones. */
static int ascending(const bw_curve *c, int *at, double *value)
{
    double weight[BW_CURVE_KNOTS];
    int size[BW_CURVE_KNOTS], n = 0, n_measured = 0;
    for (int k = 0; k < BW_CURVE_KNOTS; k++) {
        if (c->weight[k] <= 0)
            continue;
        at[n_measured++] = k;
        value[n] = c->shape[k];
        weight[n] = c->weight[k];
        size[n++] = 1;
        for (; n > 1 && value[n - 2] > value[n - 1]; n--) {
            const double sum = weight[n - 2] + weight[n - 1];
            value[n - 2] = (value[n - 2] * weight[n - 2] + value[n - 1] * weight[n - 1]) / sum;
            weight[n - 2] = sum;
            size[n - 2] += size[n - 1];
        }
    }
    for (int i = n - 1, m = n_measured; i >= 0; i--) /* blocks to knots, in place from the end */
        for (int j = 0; j < size[i]; j++)
            value[--m] = value[i];
    return n_measured;
}

/* How much steeper than the prior the curve is between measured knots a and b. */
static double slope(const bw_curve *c, int a, int b, double va, double vb)
{
    const double step = c->prior[b] - c->prior[a], noise = SPREAD * SPREAD * (1 / c->weight[a] + 1 / c->weight[b]);
    return clamp(1 + ((vb - va) / step - 1) * step * step / (step * step + noise), 0.05, 8);
}

static void fill(bw_curve *c)
{
    int at[BW_CURVE_KNOTS];
    double value[BW_CURVE_KNOTS];
    const int n = ascending(c, at, value);
    for (int k = 0; k < BW_CURVE_KNOTS; k++) {
        int below = -1;
        while (below + 1 < n && at[below + 1] <= k)
            below++;
        if (n == 0)
            c->filled[k] = c->prior[k];
        else if (below < 0) /* before the first: as the prior falls, from there */
            c->filled[k] = value[0] * c->prior[k] / c->prior[at[0]];
        else if (below + 1 < n)
            c->filled[k] = value[below] + (value[below + 1] - value[below]) * (c->prior[k] - c->prior[at[below]]) /
                                              (c->prior[at[below + 1]] - c->prior[at[below]]);
        else
            c->filled[k] = value[below] + (c->prior[k] - c->prior[at[below]]) *
                                              (n > 1 ? slope(c, at[n - 2], at[n - 1], value[n - 2], value[n - 1]) : 1);
    }
}

static double shape_at(const bw_curve *c, const double *knots, double x)
{
    int i;
    const double share = locate(knots, x, &i);
    return c->filled[i] + share * (c->filled[i + 1] - c->filled[i]);
}

/* Measurements of knot k that still count. */
static double weight_now(const bw_curve *c, int k)
{
    const double age = (double)(c->now - c->seen[k]);
    return c->weight[k] / (1 + c->weight[k] * age / STALE);
}

static void move_knot(bw_curve *c, int k, double factor, double part)
{
    const double weight = weight_now(c, k);
    if (part <= 0)
        return;
    c->shape[k] = (c->weight[k] > 0 ? c->shape[k] : c->filled[k]) * (1 + part * (factor - 1));
    c->weight[k] = (float)(weight + part);
    c->seen[k] = c->now;
}

static void learn(bw_curve *c, const double *knots, double x, double seconds)
{
    if (!(seconds > 0))
        return;
    if (!(c->level > 0))
        c->level = seconds / shape_at(c, knots, x);
    int i;
    const double part = locate(knots, x, &i);
    c->now++;
    double ratio = seconds / (c->level * shape_at(c, knots, x));
    double below = 1 - part, above = part;
    if (i == 0 && part > 0) /* nothing of a step without drafts: the first draft may cost a whole tile of rows */
        below = 0;
    else if (part < 0.1 || part > 0.9) { /* a knot learns from what lies near it */
        below = part < 0.1;
        above = 1 - below;
    }
    const double weight = (weight_now(c, i) * below + weight_now(c, i + 1) * above) / (below + above);
    const double knot = 1 / (weight > UNKNOWN ? weight : UNKNOWN), level = 1 / (1 + (double)c->level_weight);
    if (c->level_weight < 3 && ratio < 1) { /* the first were disturbed */
        c->level *= ratio;
        ratio = 1;
    } else if (weight < 3 && ratio < 1 / FARTHEST && below + above > 0.5) { /* a share would not do */
        move_knot(c, i, ratio, below);
        move_knot(c, i + 1, ratio, above);
        ratio = 1;
    } else {
        const double far = weight < 0.5 ? FARTHEST_FIRST : FARTHEST;
        ratio = clamp(ratio, 1 / far, far);
    }
    const double gain = (ratio - 1) / (knot + level + 1);
    move_knot(c, i, 1 + knot * gain, below);
    move_knot(c, i + 1, 1 + knot * gain, above);
    c->level *= 1 + level * gain;
    c->level_weight = (float)clamp(c->level_weight + 1, 0, STEADY);
    fill(c);
}

/* ---- a step ---------------------------------------------------------------------------------- */

static int seq_bucket(int n_seqs)
{
    int b = 0;
    while (b + 1 < BW_TIMING_SEQ_BUCKETS && (1 << b) < n_seqs)
        b++;
    return b;
}

static int depth_bucket(int depth) /* up to 1K, 4K, 16K, 64K, more */
{
    int b = 0;
    while (b + 1 < BW_TIMING_DEPTH_BUCKETS && (1024 << 2 * b) < depth)
        b++;
    return b;
}

static double plain(int n_seqs)
{
    return 1 + PRIOR_ROW * n_seqs;
}

void bw_timing_init(bw_timing *timing)
{
    *timing = (bw_timing){ 0 };
    for (int s = 0; s < BW_TIMING_SEQ_BUCKETS; s++)
        for (int k = 0; k < BW_CURVE_KNOTS; k++)
            timing->verify[0][s].prior[k] = 1 + PRIOR_ROW * (1 << s) * verify_knots[k] / plain(1 << s);
    for (int k = 0; k < BW_CURVE_KNOTS; k++)
        timing->head.prior[k] = (1 + PRIOR_ROW * head_knots[k]) / (1 + PRIOR_ROW);
    for (int d = 0; d < BW_TIMING_DEPTH_BUCKETS; d++)
        for (int s = 0; s < BW_TIMING_SEQ_BUCKETS; s++) {
            timing->verify[d][s] = timing->verify[0][s];
            fill(&timing->verify[d][s]);
        }
    fill(&timing->head);
}

/* Where nothing was measured at this depth: the curve of the nearest one for as many sequences. */
static const bw_curve *verify_curve(const bw_timing *timing, int n_seqs, int depth)
{
    const int s = seq_bucket(n_seqs), d = depth_bucket(depth);
    for (int away = 0; away < BW_TIMING_DEPTH_BUCKETS; away++) {
        if (d - away >= 0 && timing->verify[d - away][s].level > 0)
            return &timing->verify[d - away][s];
        if (d + away < BW_TIMING_DEPTH_BUCKETS && timing->verify[d + away][s].level > 0)
            return &timing->verify[d + away][s];
    }
    return &timing->verify[d][s];
}

/* Of any number of sequences; 1 where nothing was measured at all. */
static double any_level(const bw_timing *timing, int n_seqs, int depth)
{
    const int b = seq_bucket(n_seqs);
    for (int away = 1; away < BW_TIMING_SEQ_BUCKETS; away++) {
        const bw_curve *fewer = b - away >= 0 ? verify_curve(timing, 1 << (b - away), depth) : NULL;
        const bw_curve *more = b + away < BW_TIMING_SEQ_BUCKETS ? verify_curve(timing, 1 << (b + away), depth) : NULL;
        if (fewer && fewer->level > 0)
            return fewer->level;
        if (more && more->level > 0)
            return more->level;
    }
    return 1;
}

void bw_timing_learn_verify(bw_timing *timing, int n_seqs, int depth, int n_drafts, double seconds)
{
    assert(n_seqs >= 1);
    bw_curve *c = &timing->verify[depth_bucket(depth)][seq_bucket(n_seqs)];
    const bw_curve *near = verify_curve(timing, n_seqs, depth);
    if (near != c) { /* a new depth: what is known of another is little more than a guess, its level none at all */
        *c = *near;
        c->level = c->level_weight = 0;
        for (int k = 0; k < BW_CURVE_KNOTS; k++)
            c->weight[k] = (float)clamp(c->weight[k], 0, 0.4);
    }
    learn(c, verify_knots, (double)n_drafts / n_seqs, seconds / plain(n_seqs));
}

void bw_timing_learn_head(bw_timing *timing, int n_chains, double seconds)
{
    learn(&timing->head, head_knots, n_chains, seconds);
}

double bw_timing_verify(const bw_timing *timing, int n_seqs, int depth, int n_drafts)
{
    const bw_curve *c = verify_curve(timing, n_seqs, depth);
    const double level = c->level > 0 ? c->level : any_level(timing, n_seqs, depth);
    return level * plain(n_seqs) * shape_at(c, verify_knots, (double)n_drafts / n_seqs);
}

double bw_timing_head(const bw_timing *timing, int n_chains)
{
    const double shape = shape_at(&timing->head, head_knots, n_chains);
    return shape * (timing->head.level > 0 ? timing->head.level : PRIOR_HEAD * bw_timing_verify(timing, 1, 0, 0));
}

int bw_timing_reach(const bw_timing *timing, int n_seqs, int depth)
{
    const bw_curve *c = verify_curve(timing, n_seqs, depth);
    double most = -1;
    for (int k = 0; k < BW_CURVE_KNOTS; k++)
        if (c->weight[k] > 0)
            most = verify_knots[k];
    return most < 0 ? 0 : (int)((2 * (1 + most) - 1) * n_seqs);
}

double bw_timing_measured(const bw_timing *timing, int n_seqs, int depth, int n_drafts)
{
    const bw_curve *c = verify_curve(timing, n_seqs, depth);
    int i;
    const double part = locate(verify_knots, (double)n_drafts / n_seqs, &i);
    if (part >= 0.5 || (i == 0 && part > 0)) /* only plain steps count for a plain one */
        i++;
    return weight_now(c, i);
}
