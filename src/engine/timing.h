/* timing.h - what a step takes, learned from the steps as they come: the figures behind the draft length.
 *
 * Two kinds of curves, each a level and a shape:
 *
 *     verify  a step without prefill and without its chains of drafts, S sequences with d drafts among them:
 *             seconds = level (1 + row S) shape(d / S),   one curve per bucket of S and of the mean depth
 *     head    one run of the MTP head for m sequences that draft:   seconds = level shape(m)
 *
 * The level follows every step, so a deeper context, or a machine that others use too, moves the times of all
 * lengths alike. The shape is learned where it was measured; what a measurement says beyond what was expected is
 * shared between the two as a Kalman filter would, by how uncertain each is. Between measured knots the shape is
 * interpolated, beyond them the prior's increments are scaled by the last measured ones; it never falls. A plain step
 * is learned from plain steps alone: kernels work in tiles of rows, so that one draft may cost as much as many. Before
 * anything is measured a row adds PRIOR_ROW of a plain step, and a run of the head takes PRIOR_HEAD of one: only
 * ratios count then.
 * Pure: no clock; one thread at a time. */
#ifndef BW_ENGINE_TIMING_H
#define BW_ENGINE_TIMING_H

#include <stdbool.h>
#include <stdint.h>

enum { BW_CURVE_KNOTS = 12, BW_TIMING_SEQ_BUCKETS = 13, BW_TIMING_DEPTH_BUCKETS = 5 };

typedef struct bw_curve {
    double level; /* seconds where the shape is 1; 0: nothing measured */
    double prior[BW_CURVE_KNOTS], shape[BW_CURVE_KNOTS]; /* shape: as measured */
    double filled[BW_CURVE_KNOTS];                       /* measured or not, ascending */
    float weight[BW_CURVE_KNOTS], level_weight;          /* measurements; 0: none. Old ones count less */
    uint32_t seen[BW_CURVE_KNOTS], now;                  /* `now` counts measurements; seen: at the last one */
} bw_curve;

typedef struct bw_timing {
    bw_curve verify[BW_TIMING_DEPTH_BUCKETS][BW_TIMING_SEQ_BUCKETS], head;
} bw_timing;

void bw_timing_init(bw_timing *timing);

/* A step of n_seqs >= 1 sequences at this mean depth, n_drafts verified, took `seconds` without its chains. */
void bw_timing_learn_verify(bw_timing *timing, int n_seqs, int depth, int n_drafts, double seconds);
/* A run of the head for n_chains >= 1. */
void bw_timing_learn_head(bw_timing *timing, int n_chains, double seconds);

double bw_timing_verify(const bw_timing *timing, int n_seqs, int depth, int n_drafts);
double bw_timing_head(const bw_timing *timing, int n_chains);

/* The most drafts a step may have so that it has at most twice the rows of one that was measured; 0 before a
 * plain step was. */
int bw_timing_reach(const bw_timing *timing, int n_seqs, int depth);
/* How many measurements of about so many drafts count for this, for none those of none; old ones count less. */
double bw_timing_measured(const bw_timing *timing, int n_seqs, int depth, int n_drafts);

#endif
