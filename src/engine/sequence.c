/* sequence.c - a request becomes an entry with copies of all it points to. */
#include "engine/sequence.h"

#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "engine/sampler.h"

/* Copies n ints to *at and moves it behind them. */
static int32_t *copy_ints(int32_t **at, const int32_t *from, int n)
{
    int32_t *to = *at;
    if (n > 0)
        memcpy(to, from, (size_t)n * sizeof *to);
    *at += n;
    return to;
}

bw_status bw_sequence_open(bw_sequence *s, const bw_request *r, bw_seq_id id, int room, int max_drafts, bw_error *err)
{
    assert(!s->id && r->n_prompt <= room);
    const int left = room - r->n_prompt, max_tokens = r->max_tokens < 0 || r->max_tokens > left ? left : r->max_tokens;
    const size_t timeline = (size_t)r->n_prompt + (size_t)max_tokens + 1;
    const size_t bias = sizeof *r->logit_bias / sizeof(int32_t);
    const size_t ints = timeline + (size_t)r->n_stop_tokens + (size_t)r->n_marks + (size_t)r->n_logit_bias * bias;
    int32_t *lists = bw_mem_alloc(ints * sizeof *lists, BW_MEM_MISC);
    if (!lists)
        return bw_fail_memory(err, "request", ints * sizeof *lists);
    *s = (bw_sequence){ .id = id, .user = r->user, .slot = -1, .submitted_ns = bw_clock_ns(), .n_prompt = r->n_prompt,
                        .n_prefill = r->n_prompt, .max_tokens = max_tokens, .lists = lists,
                        .n_stop_tokens = r->n_stop_tokens, .n_marks = r->n_marks,
                        .n_logprobs = r->n_logprobs < 0 ? -1 : r->n_logprobs, .cache_salt = r->cache_salt,
                        .priority = r->priority, .loop_guard = r->loop_guard, .min_tokens = r->min_tokens, .prompt_logits = r->prompt_logits,
                        .prompt_logprobs = r->prompt_logprobs, .prompt_top = r->prompt_top, .draft_logits = r->draft_logits,
                        .n_draft_logits = r->n_draft_logits, .force_drafts = r->force_drafts,
                        .force_arg = r->force_arg };
    copy_ints(&lists, r->prompt, r->n_prompt);
    s->tokens = s->lists;
    lists = s->tokens + timeline;
    s->stop_tokens = copy_ints(&lists, r->stop_tokens, r->n_stop_tokens);
    s->marks = copy_ints(&lists, r->marks, r->n_marks);
    s->biases = (bw_logit_bias *)lists;
    if (r->n_logit_bias > 0)
        memcpy(s->biases, r->logit_bias, (size_t)r->n_logit_bias * sizeof *s->biases);
    /* An evaluation wants every row of its prompt computed. */
    s->cached = !r->no_cache && !r->prompt_logits && !r->prompt_logprobs && !r->prompt_top && !r->draft_logits;
    s->sampler = bw_sampler_of(r);
    s->usage.prompt_tokens = r->n_prompt;
    s->usage.miss = BW_MISS_OFF;
    s->usage.draft_n = max_drafts > 0 && r->draft > 0 ? r->draft : 0;
    bw_draft_init(&s->policy, max_drafts > 0 ? r->draft : BW_DRAFT_OFF);
    return BW_OK;
}

void bw_sequence_close(bw_sequence *s)
{
    assert(s->slot < 0 && s->n_pages == 0);
    bw_mem_free(s->lists);
    *s = (bw_sequence){ .slot = -1 };
}
