/* engine_thread.h - an engine on a thread of its own, behind two queues.
 *
 * Requests go in, posts (copies of the engine's events) come out; nobody but the thread touches the
 * engine. A ticket names a request from submit to its last post: never 0, never reused. Requests for
 * which the engine has no entry wait here, in the order they came.
 * Threads: any thread may submit, cancel and pause; one thread takes posts. Nothing here waits for a step. */
#ifndef BW_ENGINE_ENGINE_THREAD_H
#define BW_ENGINE_ENGINE_THREAD_H

#include "bellwether.h"

typedef struct bw_engine_thread bw_engine_thread;
typedef uint64_t bw_ticket;

/* An event of one request, copied; the taker frees it with bw_post_free. */
typedef struct bw_post {
    struct bw_post *next;
    bw_ticket ticket;
    int64_t step;      /* posts of one step have one number, ascending */
    uint64_t clock_ns; /* end of that step, bw_clock_ns() */
    int n_tokens, n_top;
    const int32_t *tokens;  /* [n_tokens] */
    const float *logprobs;  /* [n_tokens] or NULL */
    const bw_logprob *top;  /* [n_tokens, n_top] or NULL */
    bw_finish finish;       /* not NONE: the ticket's last post */
    bw_usage usage;         /* queue_s from bw_engine_thread_submit on */
    float *prompt_logprobs; /* [n_prompt] with the last post, where the request asked; freed with the post */
    bw_logprob *prompt_top; /* [n_prompt, n_logprobs of the request], as prompt_logprobs where n_logprobs > 0; or NULL */
    int n_prompt;           /* 0: none */
    char error[512];        /* with BW_FINISH_ERROR */
} bw_post;

void bw_post_free(bw_post *post); /* one; takes NULL */

/* A step, for the metrics. Of steps that nobody takes only the last BW_MAX_STEP_RECORDS are kept. */
enum { BW_MAX_STEP_RECORDS = 1024 };

typedef struct bw_step_record {
    struct bw_step_record *next;
    bw_step_info info;
} bw_step_record;

void bw_step_record_free(bw_step_record *record);

/* wake(arg) is called on the engine's thread after something was put out; it must only signal.
 * The engine is borrowed until destroy, and nobody else may touch it (bw_engine_check excepted). */
bw_status bw_engine_thread_create(bw_engine_thread **out, bw_engine *engine, void (*wake)(void *arg), void *arg,
                                  bw_error *err);
/* Ends the thread after the step it is in; live requests get no more posts, and their sequences leave the
 * engine. Posts that nobody took are freed. Takes NULL. */
void bw_engine_thread_destroy(bw_engine_thread *thread);

typedef struct bw_admission {
    int max_requests;       /* that wait for a sequence, beside those that run */
    int64_t max_tokens;     /* prompt tokens of all that wait; 0: no limit. One request alone is never too many */
} bw_admission;

/* Before the first submit; otherwise four times max_seqs requests, at least 64, and any number of tokens.
 * A request for which a sequence is free does not count as waiting though its first step is yet to come. */
void bw_engine_thread_set_admission(bw_engine_thread *thread, bw_admission admission);

/* Admits n requests or none; everything in them is copied (user is not used). tickets [n].
 * prompt_logprobs: not NULL asks for them, whatever it points to; they come with the last post, and with them the
 * alternatives, where n_logprobs > 0. prompt_top itself is not looked at.
 * force_drafts is called on the engine's thread; its argument is borrowed until the ticket has left
 * bw_engine_thread_list.
 * Errors of bw_engine_check; BW_E_BUSY: the queue is full (message: how many wait).
 * BW_E_UNSUPPORTED: prompt_logits or draft_logits, which only bw_engine fills.
 * BW_E_INTERNAL: the engine has failed or is being destroyed. */
bw_status bw_engine_thread_submit(bw_engine_thread *thread, const bw_request *requests, int n, bw_ticket *tickets,
                                  bw_error *err);
/* No post follows that was not put out already; the taker ignores those. The sequence ends before the
 * next step. A ticket that is not live is ignored, here and in pause. */
void bw_engine_thread_cancel(bw_engine_thread *thread, bw_ticket ticket);
void bw_engine_thread_pause(bw_engine_thread *thread, bw_ticket ticket, bool paused);

/* All posts and step records put out since the last call, oldest first, as lists the caller owns; NULL: none. */
void bw_engine_thread_take(bw_engine_thread *thread, bw_post **posts, bw_step_record **steps);

/* The engine cannot go on: every live request has had its last post, no further one is admitted. message
 * [n] then says why. */
bool bw_engine_thread_failed(bw_engine_thread *thread, char *message, size_t n);

/* The figures after the last step, without waiting for the one that runs; waiting counts the inbox too. */
void bw_engine_thread_stats(bw_engine_thread *thread, bw_engine_stats *stats);
/* Requests admitted and not finished, oldest first; at most room. bw_seq_info.id is the ticket. */
int bw_engine_thread_list(bw_engine_thread *thread, bw_seq_info *out, int room);

#endif
