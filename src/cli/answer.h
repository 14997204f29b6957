/* answer.h - one answer: submits a request, steps the engine, streams the text, keeps the tokens.
 *
 * Knows bellwether.h only. Ends at a stop token, a stop string, max_tokens or Ctrl-C
 * (bw_interrupted). The tokens end where the answer ends, however far a step had already drafted
 * past it. Main thread only. */
#ifndef BW_CLI_ANSWER_H
#define BW_CLI_ANSWER_H

#include "bellwether.h"
#include "cli/input.h"

typedef struct bw_answer {
    int32_t *tokens; /* [n_tokens], the stop token included */
    float *logprobs; /* [n_tokens] if the request asked */
    bw_logprob *top; /* [n_tokens, n_top] if the request asked */
    int n_tokens, n_top, room;
    bw_buffer text;    /* what was streamed, special tokens left out; empty without a tokenizer */
    bw_finish finish; /* BW_FINISH_NONE: interrupted */
    bw_usage usage;
} bw_answer;

/* Gets each piece of text as soon as it is certain, and each token where there is no tokenizer. */
typedef struct bw_answer_sink {
    void (*text)(void *arg, const char *text, size_t n_bytes);
    void (*token)(void *arg, int32_t token);
    void *arg;
} bw_answer_sink;

/* BW_E_*: see bw_engine_submit and bw_engine_step; err says it. *out holds what was generated so
 * far in any case, and is released with bw_answer_free. */
bw_status bw_answer_generate(bw_answer *out, bw_engine *engine, const bw_model *model, const bw_request *request,
                             const char *const *stops, int n_stops, const bw_answer_sink *sink, bw_error *err);
void bw_answer_free(bw_answer *answer);

#endif
