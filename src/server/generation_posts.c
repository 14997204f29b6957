/* generation_posts.c - tokens of the engine to the bytes of answers: see generation.h. Owns the order
 * of what is sent, never admission or the end of a request. The loop's thread.
 *
 * In a stream every token is a chunk of its own, also where a step accepted several; all chunks of one
 * call go out in one send per exchange. The role chunks of all choices go out in index order when the
 * first token of any of them comes: clients index by position, and so no choice waits for another. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/generation_parts.h"

enum { SLOW_BYTES = 1 << 20 }; /* a reader further behind than this pauses its sequences */

static bw_choice *find_choice(const bw_generations *gs, bw_ticket ticket)
{
    bw_choice *c = gs->buckets[ticket % TICKET_BUCKETS];
    while (c && c->ticket != ticket)
        c = c->next_in_bucket;
    return c;
}

static void mark_dirty(bw_generation *g)
{
    if (g->dirty)
        return;
    g->dirty = true;
    g->next_dirty = g->owner->dirty;
    g->owner->dirty = g;
}

static void fail_internal(bw_generation *g, const char *message)
{
    char said[256];
    const char *id = bw_exchange_id(g->exchange);
    bw_log(BW_LOG_WARNING, "request %s: %s", id, message);
    snprintf(said, sizeof said, "The server failed while it made this answer; its log says why (request %s).", id);
    bw_generation_fail(g, 500, "server_error", NULL, said);
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static const bw_answer_figures *continuous(const bw_generation *g, bw_answer_figures *figures)
{
    if (!g->request.include_usage || !g->request.continuous_usage)
        return NULL;
    *figures = bw_generation_figures(g);
    return figures;
}

static void add_roles(bw_generation *g)
{
    bw_answer_figures figures;
    const bw_answer_figures *usage = continuous(g, &figures);
    for (int i = 0; i < g->n_choices; i++) {
        const bw_choice *c = &g->choices[i];
        const bool ids = g->request.return_token_ids;
        bw_answer_json_role(&g->out, &g->format, i, ids ? c->prompt->ids : NULL, c->prompt->n_ids, usage);
    }
    g->roles_sent = true;
}

/* What the choice has to say by now as chunks; tokens that gave no text yet wait for those that do. */
static void add_chunks(bw_choice *c)
{
    bw_generation *g = c->generation;
    bw_answer_figures figures;
    const bw_answer_view view = bw_answer_text_view(c->text);
    if (!view.n_pieces)
        return;
    bw_answer_json_chunks(&g->out, &g->format, c->index, &view, continuous(g, &figures));
    bw_answer_text_clear(c->text);
    c->n_unsent = 0;
}

static void add_last_chunk(bw_choice *c)
{
    bw_generation *g = c->generation;
    const bool ask = g->request.include_usage, last = g->n_live == 0 && !ask;
    bw_answer_figures figures = bw_generation_figures(g);
    if (g->format.kind == BW_API_CHAT)
        add_chunks(c);
    const bw_answer_view view = bw_answer_text_view(c->text);
    bw_answer_json_finish(&g->out, &g->format, c->index, &view, &c->finish,
                          ask && g->request.continuous_usage ? &figures : NULL, last ? &figures : NULL);
    bw_answer_text_clear(c->text);
}

/* ---- ends of choices ------------------------------------------------------------------------- */

static bool among(const int32_t *ids, int n, int32_t id)
{
    for (int i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* Whether the last token of a stopped sequence is a stop token: there is no other reason to stop. */
static bool ends_here(const bw_post *post, int i)
{
    return post->finish == BW_FINISH_STOP && i == post->n_tokens - 1;
}

static bw_answer_finish finish_of(const bw_choice *c, bw_finish finish, int32_t last)
{
    const bw_api_request *r = &c->generation->request;
    bw_answer_finish f = { .reason = bw_answer_text_calls(c->text) ? "tool_calls" : "stop", .stop_token = -1 };
    if (bw_answer_text_over(c->text) == BW_ANSWER_STOPPED)
        f.stop_string = r->stops[bw_answer_text_stop(c->text)];
    else if (finish == BW_FINISH_LENGTH)
        f.reason = "length";
    else if (finish == BW_FINISH_LOOP)
        f = (bw_answer_finish){ .reason = "stop", .stop_string = "loop", .stop_token = -1 };
    else if (finish == BW_FINISH_STOP && among(r->stop_tokens, r->n_stop_tokens, last))
        f.stop_token = last;
    return f;
}

/* The choice has all its tokens. finish NONE: ended here, by a stop string or a call. */
static void end_choice(bw_choice *c, bw_finish finish, int32_t last)
{
    bw_generation *g = c->generation;
    bw_error err;
    if (bw_answer_text_finish(c->text, &err)) {
        fail_internal(g, err.message);
        return;
    }
    c->finish = finish_of(c, finish, last);
    bw_choice_end(c, strcmp(c->finish.reason, "length") == 0 ? BW_OUTCOME_LENGTH : BW_OUTCOME_STOP, finish == BW_FINISH_NONE);
    g->n_live--;
    if (g->streaming)
        add_last_chunk(c);
}

/* ---- posts ----------------------------------------------------------------------------------- */

static void measure(bw_choice *c, const bw_post *post)
{
    bw_metrics *metrics = c->generation->owner->server->metrics;
    const uint64_t before = c->first_ns ? c->last_ns : c->generation->arrived_ns;
    const double seconds = post->clock_ns > before ? (double)(post->clock_ns - before) * 1e-9 : 0;
    if (metrics && c->first_ns)
        bw_metrics_gap(metrics, seconds);
    else if (metrics)
        bw_metrics_first_token(metrics, seconds);
    if (!c->first_ns)
        c->first_ns = post->clock_ns;
    c->last_ns = post->clock_ns;
}

/* The prompt before the first token, or before the end of an answer without any. scored: the post that carries
 * what its tokens were worth, if anybody asked. */
static bw_status echo(bw_choice *c, const bw_post *scored, bw_error *err)
{
    if (!c->generation->request.echo || c->echoed)
        return BW_OK;
    c->echoed = true;
    return bw_answer_text_echo(c->text, c->prompt->ids, c->prompt->n_ids, scored->prompt_logprobs,
                               scored->prompt_top, err);
}

static bw_status take_token(bw_choice *c, const bw_post *post, int i, bw_error *err)
{
    bw_generation *g = c->generation;
    const bw_answer_input input = { .token = post->tokens[i],
                                    .logprob = post->logprobs ? post->logprobs[i] : 0,
                                    .top = post->top ? post->top + (size_t)i * (size_t)post->n_top : NULL,
                                    .ends = ends_here(post, i) };
    const bool first = bw_answer_text_tokens(c->text) == 0;
    bw_status st = bw_answer_text_push(c->text, &input, err);
    c->n_unsent++;
    /* the last token waits for the end, which may belong to its chunk */
    const bool last = (post->finish && i == post->n_tokens - 1) || bw_answer_text_over(c->text);
    if (!st && g->streaming && !last && (first || c->n_unsent >= g->request.stream_interval))
        add_chunks(c);
    return st;
}

static void take_post(bw_choice *c, const bw_post *post, const bw_post *scored)
{
    bw_generation *g = c->generation;
    bw_error err;
    bw_status st;
    c->usage = post->usage;
    if (post->finish == BW_FINISH_ERROR) {
        bw_choice_end(c, BW_OUTCOME_ERROR, false);
        g->n_live--;
        fail_internal(g, post->error);
        return;
    }
    mark_dirty(g);
    if (post->n_tokens)
        measure(c, post);
    if (g->streaming && !g->roles_sent && g->format.kind == BW_API_CHAT)
        add_roles(g);
    st = post->n_tokens || post->finish ? echo(c, scored, &err) : BW_OK;
    for (int i = 0; i < post->n_tokens && !st && !bw_answer_text_over(c->text); i++)
        st = take_token(c, post, i, &err);
    if (st)
        fail_internal(g, err.message);
    else if (bw_answer_text_over(c->text))
        end_choice(c, BW_FINISH_NONE, -1);
    else if (post->finish)
        end_choice(c, post->finish, post->n_tokens ? post->tokens[post->n_tokens - 1] : -1);
}

/* Posts of a prompt that is to be echoed with its scores wait for these. Owns post. */
static void hold_or_take(bw_choice *c, bw_post *post)
{
    if (c->wants_scores && !post->finish) {
        post->next = NULL;
        *c->held_end = post;
        c->held_end = &post->next;
        return;
    }
    while (c->held && c->ticket) {
        bw_post *first = c->held;
        c->held = first->next;
        take_post(c, first, post);
        bw_post_free(first);
    }
    if (c->ticket)
        take_post(c, post, post);
    bw_post_free(post);
}

/* ---- what leaves ----------------------------------------------------------------------------- */

static void reply_whole(bw_generation *g)
{
    const bw_answer_figures figures = bw_generation_figures(g);
    bw_answer_choice *choices = bw_mem_zalloc((size_t)g->n_choices, sizeof *choices, BW_MEM_TEXT);
    for (int i = 0; choices && i < g->n_choices; i++) {
        const bw_choice *c = &g->choices[i];
        choices[i] = (bw_answer_choice){ .view = bw_answer_text_view(c->text), .finish = c->finish,
                                         .prompt = c->prompt->ids, .n_prompt = c->prompt->n_ids };
    }
    if (choices)
        bw_answer_json_whole(&g->out, &g->format, choices, g->n_choices, &figures);
    bw_mem_free(choices);
    if (!choices || g->out.failed) {
        fail_internal(g, "the answer: out of memory");
        return;
    }
    bw_exchange *x = g->exchange;
    g->exchange = NULL;
    bw_exchange_reply(x, 200, "application/json", g->out.data, g->out.n);
    bw_generation_release(g);
}

static void pause_if_slow(bw_generation *g)
{
    if (g->paused || bw_exchange_backlog(g->exchange) <= SLOW_BYTES)
        return;
    g->paused = true;
    for (int i = 0; i < g->n_choices; i++)
        if (g->choices[i].ticket)
            bw_engine_thread_pause(g->owner->server->thread, g->choices[i].ticket, true);
}

static void send_events(bw_generation *g)
{
    const bool over = g->n_live == 0;
    if (over && g->request.include_usage) {
        const bw_answer_figures figures = bw_generation_figures(g);
        bw_answer_json_usage(&g->out, &g->format, &figures);
    }
    if (over)
        bw_answer_json_done(&g->out);
    if (g->out.failed) {
        bw_bytes_fini(&g->out);
        g->out = (bw_bytes){ 0 };
        fail_internal(g, "an event stream: out of memory");
        return;
    }
    if (g->out.n)
        bw_exchange_send(g->exchange, g->out.data, g->out.n);
    bw_bytes_drop(&g->out, g->out.n);
    if (!g->exchange) /* that told us that the client has gone */
        return;
    if (!over) {
        pause_if_slow(g);
        return;
    }
    bw_exchange *x = g->exchange;
    g->exchange = NULL;
    bw_exchange_end(x, false);
    bw_generation_release(g);
}

static void flush(bw_generation *g)
{
    if (!g->exchange) /* failed, or gone */
        return;
    if (g->streaming)
        send_events(g);
    else if (g->n_live == 0)
        reply_whole(g);
}

void bw_generations_take_posts(bw_generations *gs, bw_post *posts)
{
    gs->busy = true; /* nothing is freed before the end */
    while (posts) {
        bw_post *post = posts;
        posts = post->next;
        bw_choice *c = find_choice(gs, post->ticket);
        if (c)
            hold_or_take(c, post);
        else
            bw_post_free(post);
    }
    while (gs->dirty) {
        bw_generation *g = gs->dirty;
        gs->dirty = g->next_dirty;
        g->dirty = false;
        flush(g);
    }
    gs->busy = false;
    while (gs->dead) {
        bw_generation *g = gs->dead;
        gs->dead = g->next;
        bw_generation_release(g);
    }
}
