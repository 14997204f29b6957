/* sampler.c - see sampler.h. */
#include "engine/sampler.h"

#include <math.h>
#include <string.h>

static bw_status check_biases(const bw_request *r, int vocab, bw_error *err)
{
    const bw_logit_bias *b = r->logit_bias;
    if (r->n_logit_bias < 0 || r->n_logit_bias > BW_MAX_LOGIT_BIAS || (r->n_logit_bias > 0 && !b))
        return bw_fail(err, BW_E_ARGUMENT, "logit_bias: %d entries%s, expected 0 to %d", r->n_logit_bias,
                       b ? "" : " at no address", BW_MAX_LOGIT_BIAS);
    for (int i = 0; i < r->n_logit_bias; i++) {
        if (b[i].token < 0 || b[i].token >= vocab)
            return bw_fail(err, BW_E_ARGUMENT, "logit_bias: id %d is outside the vocabulary of %d", b[i].token, vocab);
        if (!isfinite(b[i].bias))
            return bw_fail(err, BW_E_ARGUMENT, "logit_bias: the bias of id %d is %g, expected a finite number", b[i].token,
                           (double)b[i].bias);
        for (int j = 0; j < i; j++)
            if (b[j].token == b[i].token)
                return bw_fail(err, BW_E_ARGUMENT, "logit_bias: id %d is there twice, give it one bias", b[i].token);
    }
    return BW_OK;
}

static bw_status check_think(const bw_request *r, int vocab, bw_error *err)
{
    if (r->n_think_end < 0 || r->n_think_end > BW_MAX_FORCED || (r->n_think_end > 0 && !r->think_end))
        return bw_fail(err, BW_E_ARGUMENT, "think_end: %d tokens%s, expected 0 to %d", r->n_think_end,
                       r->think_end ? "" : " at no address", BW_MAX_FORCED);
    if (r->n_think_end > 0 && r->think_budget >= 0 && (r->think_end_token < 0 || r->think_end_token >= vocab))
        return bw_fail(err, BW_E_ARGUMENT, "think_end_token: id %d is outside the vocabulary of %d", r->think_end_token,
                       vocab);
    for (int i = 0; i < r->n_think_end; i++)
        if (r->think_end[i] < 0 || r->think_end[i] >= vocab)
            return bw_fail(err, BW_E_ARGUMENT, "think_end: id %d at place %d is outside the vocabulary of %d",
                           r->think_end[i], i, vocab);
    return BW_OK;
}

bw_status bw_sampler_check(const bw_request *r, int vocab, bw_error *err)
{
    if (r->min_tokens < 0)
        return bw_fail(err, BW_E_ARGUMENT, "min_tokens: %d, expected 0 or more", r->min_tokens);
    if (r->min_tokens > 0 && r->n_stop_tokens > BW_MAX_BANNED)
        return bw_fail(err, BW_E_ARGUMENT, "min_tokens: it can hold back %d stop tokens, and the request has %d: give fewer, "
                       "or leave min_tokens at 0", BW_MAX_BANNED, r->n_stop_tokens);
    bw_status st = check_biases(r, vocab, err);
    return st ? st : check_think(r, vocab, err);
}

/* n tokens after the prompt; a timeline is never near the end of the range. */
static int32_t after_prompt(const bw_request *r, int n)
{
    return n > INT32_MAX - r->n_prompt ? INT32_MAX : r->n_prompt + n;
}

bw_sampler bw_sampler_of(const bw_request *r)
{
    const bw_sampling *g = &r->sampling;
    bw_sampler s = { .temperature = g->temperature, .top_p = g->top_p, .min_p = g->min_p,
                     .presence_penalty = g->presence_penalty, .frequency_penalty = g->frequency_penalty,
                     .repetition_penalty = g->repetition_penalty, .top_k = g->top_k, .n_prompt = r->n_prompt,
                     .seed = g->seed, .n_logprobs = r->n_logprobs < 0 ? -1 : r->n_logprobs,
                     .any_row = r->n_draft_logits > 0, .n_biases = r->n_logit_bias };
    if (r->min_tokens > 0) {
        s.min_pos = after_prompt(r, r->min_tokens);
        s.n_banned = r->n_stop_tokens;
        for (int i = 0; i < r->n_stop_tokens; i++)
            s.banned[i] = r->stop_tokens[i];
    }
    if (r->think_budget >= 0 && r->n_think_end > 0) {
        s.force_pos = after_prompt(r, r->think_budget);
        s.force_unless = r->think_end_token;
        s.n_force = r->n_think_end;
        memcpy(s.force, r->think_end, (size_t)r->n_think_end * sizeof *s.force);
    }
    return s;
}
