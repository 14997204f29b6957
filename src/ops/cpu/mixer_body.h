/* mixer_body.h - how attention goes through its pages: the part of mixer_avx2.c, mixer_avx512.c and mixer_neon.c
 * that is the same. Included by one file of a level, which defines the three functions declared below and offers
 * attend and attn_scratch_bytes. No arithmetic that rounds is here. Any thread; owns nothing. */
#ifndef BW_OPS_CPU_MIXER_BODY_H
#define BW_OPS_CPU_MIXER_BODY_H

#include <math.h>
#include <string.h>

#include "ops/cpu/cpu.h"

#define BODY static inline __attribute__((always_inline))

/* What is read after this: asked for a little at a time, into the second cache. */
typedef struct ahead {
    const char *at, *end;
} ahead;

static inline void ask_ahead(ahead *next, int n_lines)
{
    for (int i = 0; i < n_lines && next->at < next->end; i++, next->at += 64)
        __builtin_prefetch(next->at, 0, 2);
}

/* Scores of all n positions of a page for n_heads queries of d columns, at stride BW_PAGE; its first key is at `at`.
 * Beyond n the last position is read again and its score not used. */
BODY void score_page(float *s, const float *q, int n_heads, int d, const void *keys, bool f16, size_t at, int n,
                     ahead *next);
/* Scores to weights e^(s - max), 0 beyond n; moves max and sum on, *keep is the factor of the old. */
static void weigh_page(float *s, int n, float *max, float *sum, float *keep);
/* out[h] = keep[h] out[h] + sum_p s[h][p] v[p]; v, the first value, is at `at`. */
BODY void value_tiles(float *out, const float *s, const float *keep, int n_heads, int d, const void *values, bool f16,
                      size_t at, int n, ahead *next);

/* Of attend: scores of a page and a factor for every query. */
static size_t attn_scratch_bytes(int n_queries, int d)
{
    (void)d;
    return (size_t)n_queries * (BW_PAGE + 1) * sizeof(float);
}

/* Positions first .. end - 1 for n queries from query `from` on; first is the start of a page. */
BODY void attend_pages(const bw_attn_sums *to, const bw_attn_queries *queries, bool f16, int from, int n, int first,
                       int end, float *s)
{
    const int d = queries->d;
    const size_t value_bytes = f16 ? 2 : 4, page_values = (size_t)BW_PAGE * (size_t)d;
    const char *keys = queries->kv->k, *values = queries->kv->v;
    float *keep = s + (size_t)n * BW_PAGE, *out = to->out + (size_t)from * (size_t)d;
    for (; first < end; first += BW_PAGE) {
        const int n_pos = end - first < BW_PAGE ? end - first : BW_PAGE;
        const int32_t *page = queries->pages + first / BW_PAGE;
        const size_t at = ((size_t)page[0] * (size_t)queries->n_kv_heads + (size_t)queries->kv_head) * page_values;
        ahead next = { values + at * value_bytes, values + (at + (size_t)n_pos * (size_t)d) * value_bytes };
        score_page(s, queries->q + (size_t)from * (size_t)d, n, d, keys, f16, at, n_pos, &next);
        for (int h = 0; h < n; h++)
            weigh_page(s + h * BW_PAGE, n_pos, &to->max[from + h], &to->sum[from + h], &keep[h]);
        next = (ahead){ NULL, NULL };
        if (first + BW_PAGE < end) {
            const size_t then = ((size_t)page[1] * (size_t)queries->n_kv_heads + (size_t)queries->kv_head) * page_values;
            next = (ahead){ keys + then * value_bytes, keys + (then + page_values) * value_bytes };
        }
        value_tiles(out, s, keep, n, d, values, f16, at, n_pos, &next);
    }
}

BODY void attend_as(const bw_attn_sums *to, const bw_attn_queries *queries, bool f16, int first, int end, float *s)
{
    const int n_heads = queries->n_heads, total = queries->n_rows * n_heads;
    int shared = queries->n_pos / BW_PAGE * BW_PAGE; /* before it are pages that all rows see whole */
    shared = shared < first ? first : shared < end ? shared : end;
    for (int h = 0; h < total; h++)
        to->max[h] = -INFINITY, to->sum[h] = 0;
    memset(to->out, 0, (size_t)total * (size_t)queries->d * sizeof *to->out);
    attend_pages(to, queries, f16, 0, total, first, shared, s);
    for (int r = 0; r < queries->n_rows; r++) {
        const int n_pos = queries->n_pos + r;
        attend_pages(to, queries, f16, r * n_heads, n_heads, shared, n_pos < end ? n_pos : end, s);
    }
}

static void attend(const bw_attn_sums *to, const bw_attn_queries *queries, int first, int end, void *scratch)
{
    if (queries->kv->codec == BW_CODEC_F16)
        attend_as(to, queries, true, first, end, scratch);
    else
        attend_as(to, queries, false, first, end, scratch);
}

#endif
