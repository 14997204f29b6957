/* answer.c - see answer.h. */
#include "cli/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/terminal.h"

/* What one answer needs while it runs. */
typedef struct run {
    bw_answer *out;
    const bw_answer_sink *sink;
    bw_stream *stream; /* NULL: no tokenizer */
    bool stopped;      /* by a stop string */
} run;

static bw_status no_memory(bw_error *err, const char *what)
{
    err->status = BW_E_MEMORY;
    snprintf(err->message, sizeof err->message, "%s: out of memory", what);
    return BW_E_MEMORY;
}

/* Room for one more token and what belongs to it. */
static bool grow(bw_answer *a, bool logprobs)
{
    if (a->n_tokens < a->room)
        return true;
    const size_t room = a->room ? (size_t)a->room * 2 : 256;
    int32_t *tokens = realloc(a->tokens, room * sizeof *tokens);
    if (!tokens)
        return false;
    a->tokens = tokens;
    if (logprobs) {
        float *values = realloc(a->logprobs, room * sizeof *values);
        if (!values)
            return false;
        a->logprobs = values;
    }
    if (a->n_top) {
        bw_logprob *top = realloc(a->top, room * (size_t)a->n_top * sizeof *top);
        if (!top)
            return false;
        a->top = top;
    }
    a->room = (int)room;
    return true;
}

static bool keep_token(bw_answer *a, const bw_event *event, int i)
{
    if (event->top)
        a->n_top = event->n_top;
    if (!grow(a, event->logprobs != NULL))
        return false;
    const size_t at = (size_t)a->n_tokens, n_top = (size_t)a->n_top;
    a->tokens[at] = event->tokens[i];
    if (event->logprobs)
        a->logprobs[at] = event->logprobs[i];
    if (n_top)
        memcpy(a->top + at * n_top, event->top + (size_t)i * n_top, n_top * sizeof *a->top);
    a->n_tokens++;
    return true;
}

static bw_status keep_text(run *r, const char *text, size_t n, bw_error *err)
{
    if (!n)
        return BW_OK;
    if (!bw_buffer_add(&r->out->text, text, n))
        return no_memory(err, "answer text");
    r->sink->text(r->sink->arg, text, n);
    return BW_OK;
}

static bw_status take_token(run *r, const bw_event *event, int i, bw_error *err)
{
    const char *text;
    size_t n;
    bw_status st;
    if (!keep_token(r->out, event, i))
        return no_memory(err, "answer tokens");
    if (!r->stream) {
        r->sink->token(r->sink->arg, event->tokens[i]);
        return BW_OK;
    }
    if ((st = bw_stream_push(r->stream, event->tokens[i], &text, &n, &r->stopped, err)))
        return st;
    return keep_text(r, text, n, err);
}

static bw_status take_event(run *r, const bw_event *event, bw_error *err)
{
    for (int i = 0; i < event->n_tokens && !r->stopped; i++) {
        bw_status st = take_token(r, event, i, err);
        if (st)
            return st;
    }
    if (event->usage)
        r->out->usage = *event->usage;
    r->out->finish = r->stopped ? BW_FINISH_STOP : event->finish;
    return BW_OK;
}

static bw_status generate(run *r, bw_engine *engine, const bw_request *request, bw_error *err)
{
    bw_seq_id id;
    bw_status st = bw_engine_submit(engine, request, &id, err);
    if (st)
        return st;
    while (!bw_engine_idle(engine) && !r->stopped && !bw_interrupted()) {
        bw_event event;
        st = bw_engine_step(engine, err);
        while (!st && bw_engine_event(engine, &event))
            st = take_event(r, &event, err);
        if (st)
            break;
    }
    bw_engine_cancel(engine, id);
    return st;
}

bw_status bw_answer_generate(bw_answer *out, bw_engine *engine, const bw_model *model, const bw_request *request,
                             const char *const *stops, int n_stops, const bw_answer_sink *sink, bw_error *err)
{
    run r = { .out = out, .sink = sink };
    const char *text;
    size_t n;
    bw_status st;
    *out = (bw_answer){ 0 };
    if (bw_model_get_info(model)->has_text && (st = bw_stream_create(&r.stream, model, stops, n_stops, true, err)))
        return st;
    st = generate(&r, engine, request, err);
    if (!st && r.stream && !r.stopped && !(st = bw_stream_finish(r.stream, &text, &n, err)))
        st = keep_text(&r, text, n, err);
    bw_stream_destroy(r.stream);
    return st;
}

void bw_answer_free(bw_answer *answer)
{
    free(answer->tokens);
    free(answer->logprobs);
    free(answer->top);
    bw_buffer_free(&answer->text);
    *answer = (bw_answer){ 0 };
}
