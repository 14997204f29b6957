/* accept_cpu.c - what a step decides: which drafts stand, what follows them, the chain of drafts.
 *
 * A few integers per span, so the caller's thread does it alone; owns nothing. */
#include <assert.h>

#include "ops/cpu/cpu.h"

static int32_t *timeline(const bw_sequences *seqs, int32_t slot, int32_t pos)
{
    assert(slot >= 0 && slot < seqs->n_slots && pos >= 0 && pos < seqs->context);
    return seqs->tokens + (size_t)slot * (size_t)seqs->context + pos;
}

/* Index in the span of the row whose sample is tested first: that of the first logit, but not before
 * the last final row (an evaluation wants the logits of prompt rows too). */
static int32_t first_tested(const bw_span *span)
{
    int32_t first_logit = span->n_rows - span->n_logits;
    return first_logit > span->n_final - 1 ? first_logit : span->n_final - 1;
}

/* sampled[i] belongs to the i-th tested row. */
static int32_t count_accepted(const bw_sequences *seqs, const bw_span *span, const int32_t *sampled)
{
    const int32_t first = first_tested(span);
    int32_t a = 0;
    while (first + a + 1 < span->n_rows && sampled[a] == *timeline(seqs, span->slot, span->first_pos + first + a + 1))
        a++;
    return a;
}

/* The first `imposed` drafts of the span become what was sampled. */
static int32_t impose_accepted(const bw_sequences *seqs, const bw_span *span, int32_t *sampled, int32_t imposed)
{
    const int32_t first = first_tested(span);
    int32_t a = 0;
    for (; a < imposed && first + a + 1 < span->n_rows; a++)
        sampled[a] = *timeline(seqs, span->slot, span->first_pos + first + a + 1);
    return a;
}

void bw_cpu_accept(bw_backend *be, const bw_accept_args *args)
{
    (void)be;
    for (int i = 0; i < args->n_spans; i++) {
        const bw_span *span = &args->spans[i];
        int32_t a = 0;
        if (span->sample) {
            const int32_t first = first_tested(span), before = first - (span->n_rows - span->n_logits);
            int32_t *sampled = args->sampled + span->first_logit + before;
            const bool imposed = args->imposed && args->imposed[i] >= 0;
            a = imposed ? impose_accepted(args->seqs, span, sampled, args->imposed[i]) : count_accepted(args->seqs, span, sampled);
            *timeline(args->seqs, span->slot, span->first_pos + first + a + 1) = sampled[a];
        }
        args->seqs->accepted[span->slot] = a;
        args->n_accepted[i] = a;
    }
    for (int i = 0; i < args->n_draft_spans; i++) {
        const int s = args->draft_spans[i];
        const bw_span *span = &args->spans[s];
        const int32_t last = first_tested(span) + args->n_accepted[s];
        args->draft_index[i] = span->first_row + last;
        args->draft_rows[i] = (bw_row){ .slot = span->slot, .pos = span->first_pos + last };
    }
}

void bw_cpu_push_drafts(bw_backend *be, bw_sequences *seqs, bw_row *rows, const int32_t *sampled, int n_rows)
{
    (void)be;
    for (int i = 0; i < n_rows; i++) {
        *timeline(seqs, rows[i].slot, rows[i].pos + 2) = sampled[i];
        rows[i].pos++;
    }
}
