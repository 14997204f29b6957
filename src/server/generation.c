/* generation.c - the life of a request: see generation.h. Owns admission, endings and what happens when
 * a client leaves; what is said is made in generation_posts.c. The loop's thread; read_body on a worker.
 *
 *     handler -> reading (worker) -> admitted -> posts ... -> answered
 *                     \                 \          \
 *                      refused           refused    failed, timed out, client gone
 *
 * A generation is freed when no worker has it and nobody looks at it: bw_generation_release. */
#include <event2/event.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/model_text.h"
#include "server/generation_parts.h"
#include "server/loader.h"
#include "server/serve.h"

enum { RESUME_BYTES = 256 << 10, LISTED = 512 };

static const bw_tokenizer *tokenizer_of(const bw_server *server)
{
    return bw_text_source_tokenizer(bw_model_text(server->model));
}

/* ---- tickets --------------------------------------------------------------------------------- */

static void remember(bw_generations *gs, bw_choice *c, bw_ticket ticket)
{
    bw_choice **bucket = &gs->buckets[ticket % TICKET_BUCKETS];
    c->ticket = ticket;
    c->next_in_bucket = *bucket;
    *bucket = c;
}

static void forget(bw_generations *gs, bw_choice *c)
{
    bw_choice **at = &gs->buckets[c->ticket % TICKET_BUCKETS];
    while (*at != c)
        at = &(*at)->next_in_bucket;
    *at = c->next_in_bucket;
    c->ticket = 0;
}

static double since(uint64_t from, uint64_t to)
{
    return to > from ? (double)(to - from) * 1e-9 : 0;
}

static void report_end(const bw_choice *c, bw_outcome outcome)
{
    const bw_generation *g = c->generation;
    bw_metrics *metrics = g->owner->server->metrics;
    if (!metrics)
        return;
    const double queued = since(g->arrived_ns, c->submitted_ns);
    bw_metrics_sequence s = { .outcome = outcome, .usage = c->usage, .n = g->request.n, .max_tokens = g->request.max_tokens,
                              .queued_s = queued, .scheduled_s = -1, .first_token_s = -1, .last_token_s = -1,
                              .end_s = since(g->arrived_ns, bw_clock_ns()) };
    s.usage.generated_tokens = bw_answer_text_tokens(c->text); /* those that were delivered */
    s.usage.prompt_tokens = c->prompt->n_ids;
    if (s.max_tokens < 0)
        s.max_tokens = g->owner->server->api.context - c->prompt->n_ids;
    if (c->usage.prefill_steps)
        s.scheduled_s = queued + c->usage.queue_s;
    if (c->first_ns) {
        s.first_token_s = since(g->arrived_ns, c->first_ns);
        s.last_token_s = since(g->arrived_ns, c->last_ns);
    }
    for (int i = 0; i < g->n_choices; i++) { /* the other choices of this prompt */
        const bw_choice *other = &g->choices[i];
        if (other == c || other->prompt != c->prompt)
            continue;
        const int n = bw_answer_text_tokens(other->text);
        s.more_choices |= other->ticket != 0;
        s.most_generated = n > s.most_generated ? n : s.most_generated;
    }
    bw_metrics_finished(metrics, &s);
}

void bw_choice_end(bw_choice *c, bw_outcome outcome, bool cancel)
{
    bw_generations *gs = c->generation->owner;
    if (!c->ticket)
        return;
    if (cancel)
        bw_engine_thread_cancel(gs->server->thread, c->ticket);
    forget(gs, c);
    gs->ends_ns[gs->next_end] = bw_clock_ns();
    gs->next_end = (gs->next_end + 1) % RATE_ENDS;
    gs->n_ends += gs->n_ends < RATE_ENDS;
    report_end(c, outcome);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void free_choice(bw_choice *c)
{
    bw_answer_text_destroy(c->text);
    while (c->held) {
        bw_post *post = c->held;
        c->held = post->next;
        bw_post_free(post);
    }
}

static void free_generation(bw_generation *g)
{
    for (int i = 0; i < g->n_choices; i++)
        free_choice(&g->choices[i]);
    bw_mem_free(g->choices);
    bw_api_request_fini(&g->request);
    bw_mem_free(g->body);
    bw_bytes_fini(&g->out);
    bw_mem_free(g);
}

void bw_generation_release(bw_generation *g)
{
    bw_generations *gs = g->owner;
    if (g->timer)
        event_free(g->timer);
    g->timer = NULL;
    if (g->link) { /* first time */
        *g->link = g->next;
        if (g->next)
            g->next->link = g->link;
        g->link = NULL;
        gs->n_live--;
    }
    if (g->reading && bw_work_cancel(gs->server->work, g)) /* no worker has come to it: nobody waits for what it says */
        g->reading = false;
    if (g->reading) { /* body_read comes again, perhaps after the owner is gone */
        g->owner = NULL;
        return;
    }
    if (gs && gs->busy) {
        g->next = gs->dead;
        gs->dead = g;
        return;
    }
    free_generation(g);
}

static void end_tickets(bw_generation *g, bw_outcome outcome)
{
    for (int i = 0; i < g->n_choices; i++)
        bw_choice_end(&g->choices[i], outcome, true);
    g->n_live = 0;
}

void bw_generation_fail(bw_generation *g, int status, const char *type, const char *code, const char *message)
{
    bw_exchange *x = g->exchange;
    g->exchange = NULL;
    end_tickets(g, BW_OUTCOME_ERROR);
    if (x && g->streaming) {
        bw_answer_json_error(&g->out, type, code, message);
        bw_answer_json_done(&g->out);
        if (!g->out.failed)
            bw_exchange_send(x, g->out.data, g->out.n);
        bw_exchange_end(x, true);
    } else if (x) {
        bw_exchange_fail(x, status, type, code, NULL, status == 503 ? 1 : 0, message);
    }
    bw_generation_release(g);
}

bw_answer_figures bw_generation_figures(const bw_generation *g)
{
    bw_answer_figures f = { .seed = g->request.sampling.seed };
    for (int i = 0; i < g->n_choices; i++) {
        const bw_choice *c = &g->choices[i];
        bw_usage usage = c->usage;
        usage.prompt_tokens = c->prompt->n_ids; /* known before the first post */
        bw_answer_figures_add(&f, &usage, bw_answer_text_tokens(c->text), bw_answer_text_reasoning(c->text), c->first);
    }
    return f;
}

/* ---- the client has gone --------------------------------------------------------------------- */

/* What the request was at; one beyond the oldest LISTED waits. */
static const char *phase_of(const bw_generation *g)
{
    static bw_seq_info infos[LISTED]; /* the loop's thread alone */
    bw_ticket ticket = 0;
    for (int i = 0; i < g->n_choices; i++) {
        if (g->choices[i].first_ns)
            return "decode";
        if (!ticket)
            ticket = g->choices[i].ticket;
    }
    const int n = ticket ? bw_engine_thread_list(g->owner->server->thread, infos, LISTED) : 0;
    for (int i = 0; i < n; i++)
        if (infos[i].id == ticket && infos[i].state != BW_SEQ_WAITING)
            return "prefill";
    return "queued";
}

static void gone(void *arg)
{
    bw_generation *g = arg;
    bw_metrics *metrics = g->owner->server->metrics;
    g->exchange = NULL;
    if (metrics)
        bw_metrics_client_gone(metrics, phase_of(g));
    end_tickets(g, BW_OUTCOME_ABORT);
    bw_generation_release(g);
}

static void drained(void *arg)
{
    bw_generation *g = arg;
    if (!g->paused)
        return;
    g->paused = false;
    for (int i = 0; i < g->n_choices; i++)
        if (g->choices[i].ticket)
            bw_engine_thread_pause(g->owner->server->thread, g->choices[i].ticket, false);
}

static void timed_out(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    bw_generation_fail(arg, 504, "timeout", NULL, "The request took longer than this server allows (--request-timeout).");
}

/* ---- admission ------------------------------------------------------------------------------- */

/* Seconds until n tickets will have ended, from when the last ones did. */
static int retry_after(const bw_generations *gs, int n)
{
    if (!gs->n_ends)
        return 5; /* nothing is known: the first requests are still running */
    const int oldest = gs->n_ends < RATE_ENDS ? 0 : gs->next_end;
    const double each = since(gs->ends_ns[oldest], bw_clock_ns()) / gs->n_ends;
    const double seconds = ceil(each * n);
    return seconds < 1 ? 1 : seconds > 60 ? 60 : (int)seconds;
}

static void reject(bw_generation *g, const char *reason)
{
    if (g->owner->server->metrics)
        bw_metrics_rejected(g->owner->server->metrics, reason);
}

/* Answers with the error that submit gave. */
static void refuse(bw_generation *g, const bw_error *err)
{
    char message[sizeof err->message + 128];
    bw_exchange *x = g->exchange;
    g->exchange = NULL;
    switch (err->status) {
    case BW_E_BUSY:
        reject(g, "queue_full");
        bw_exchange_fail(x, 429, "rate_limit_error", "queue_full", NULL, retry_after(g->owner, g->n_choices), err->message);
        break;
    case BW_E_LIMIT:
        reject(g, "context");
        snprintf(message, sizeof message, "This model's maximum context length is %d tokens: %s", g->owner->server->api.context,
                 err->message);
        bw_exchange_fail(x, 400, "invalid_request_error", "context_length_exceeded", NULL, 0, message);
        break;
    case BW_E_ARGUMENT:
    case BW_E_UNSUPPORTED:
    case BW_E_FORMAT:
        reject(g, "invalid");
        bw_exchange_fail(x, 400, "invalid_request_error", "invalid_value", NULL, 0, err->message);
        break;
    case BW_E_INTERNAL:
        bw_exchange_fail(x, 503, "service_unavailable", "engine_failed", NULL, 1, "The engine has stopped.");
        break;
    default:
        bw_log(BW_LOG_WARNING, "request %s: %s", bw_exchange_id(x), err->message);
        snprintf(message, sizeof message, "The server could not start this; its log says why (request %s).", bw_exchange_id(x));
        bw_exchange_fail(x, 500, "server_error", NULL, NULL, 0, message);
        break;
    }
    bw_generation_release(g);
}

static bw_status make_choices(bw_generation *g, bw_error *err)
{
    const bw_server *server = g->owner->server;
    const bw_api_request *r = &g->request;
    const bw_reasoning_field field = server->options->reasoning_field;
    const int n = r->n_prompts * r->n;
    const bw_answer_options options = {
        .tokenizer = tokenizer_of(server), .chat = r->kind == BW_API_CHAT, .thinking = r->thinking,
        .drop_reasoning = !r->include_reasoning, .inline_reasoning = field == BW_REASONING_INLINE,
        .tools = r->tools_json, .n_tools = r->n_tools_json, .one_call = r->one_call,
        .stops = (const char *const *)r->stops, .n_stops = r->n_stops, .include_stop = r->include_stop,
        .keep_tokens = r->n_logprobs >= 0 || r->return_token_ids, .n_top = r->n_logprobs > 0 ? r->n_logprobs : 0,
    };
    if (!(g->choices = bw_mem_zalloc((size_t)n, sizeof *g->choices, BW_MEM_MISC)))
        return bw_fail_memory(err, "the choices of a request", (size_t)n * sizeof *g->choices);
    g->n_choices = n;
    for (int i = 0; i < n; i++) {
        bw_choice *c = &g->choices[i];
        *c = (bw_choice){ .generation = g, .index = i, .first = i % r->n == 0, .prompt = &r->prompts[i / r->n],
                          .wants_scores = r->echo && r->n_logprobs >= 0 };
        c->held_end = &c->held;
        bw_status st = bw_answer_text_create(&c->text, &options, err);
        if (st)
            return st;
    }
    g->format = (bw_answer_format){ .kind = r->kind, .reasoning = field, .tokenizer = options.tokenizer,
                                    .logprobs = r->n_logprobs >= 0, .tokens_as_ids = r->tokens_as_ids,
                                    .return_ids = r->return_token_ids, .id = g->id, .model = server->model_id,
                                    .fingerprint = server->fingerprint, .created = time(NULL) };
    bw_answer_random_id(g->id, r->kind == BW_API_CHAT ? "chatcmpl-" : "cmpl-");
    return BW_OK;
}

/* What all choices share; stops [of the model, of the request], think_end: the caller's lists. */
static bw_request engine_request(const bw_generation *g, const int32_t *stops, int n_stops, const int32_t *think_end,
                                 int n_think_end)
{
    static float wanted; /* scores of a prompt come with the last post; not NULL asks for them */
    const bw_api_request *r = &g->request;
    bw_request q = bw_request_defaults(g->owner->server->model);
    const bool scores = g->choices[0].wants_scores;
    q.max_tokens = r->max_tokens;
    q.sampling = r->sampling;
    q.stop_tokens = stops;
    q.n_stop_tokens = n_stops;
    q.draft = r->draft;
    q.n_logprobs = r->n_logprobs;
    q.logit_bias = r->bias;
    q.n_logit_bias = r->n_bias;
    q.min_tokens = r->min_tokens;
    q.think_budget = n_think_end ? r->think_budget : -1;
    q.think_end = think_end;
    q.n_think_end = n_think_end;
    if (n_think_end)
        q.think_end_token = bw_tokenizer_find(g->format.tokenizer, "</think>", strlen("</think>"));
    q.loop_guard = r->loop_guard == 1;
    q.cache_salt = r->cache_salt;
    q.no_cache = r->no_cache || scores; /* every row of the prompt has to be computed */
    q.priority = r->priority;
    q.prompt_logprobs = scores ? &wanted : NULL;
    return q;
}

static bw_status submit_all(bw_generation *g, const bw_request *shared, bw_error *err)
{
    const bw_api_request *r = &g->request;
    const size_t n = (size_t)g->n_choices;
    bw_request *requests = bw_mem_zalloc(n, sizeof *requests, BW_MEM_MISC);
    bw_ticket *tickets = bw_mem_zalloc(n, sizeof *tickets, BW_MEM_MISC);
    bw_status st = requests && tickets ? BW_OK : bw_fail_memory(err, "a request", n * sizeof *requests);
    for (int i = 0; i < g->n_choices && !st; i++) {
        bw_request *q = &requests[i];
        *q = *shared;
        q->prompt = g->choices[i].prompt->ids;
        q->n_prompt = g->choices[i].prompt->n_ids;
        q->sampling.seed += (uint64_t)(i % r->n);
        if (i / r->n == 0) {
            q->marks = r->marks;
            q->n_marks = r->n_marks;
        }
        g->choices[i].mark = q->n_prompt - 1;
        if (r->n > 1 && q->n_marks == 0 && q->n_prompt > 1) { /* a chat has marks; a text's choices share all of it */
            q->marks = &g->choices[i].mark;
            q->n_marks = 1;
        }
    }
    if (!st)
        st = bw_engine_thread_submit(g->owner->server->thread, requests, g->n_choices, tickets, err);
    for (int i = 0; i < g->n_choices && !st; i++) {
        g->choices[i].submitted_ns = bw_clock_ns();
        remember(g->owner, &g->choices[i], tickets[i]);
        g->n_live++;
    }
    bw_mem_free(requests);
    bw_mem_free(tickets);
    return st;
}

static bw_status submit(bw_generation *g, bw_error *err)
{
    const bw_api_request *r = &g->request;
    const bw_model *model = g->owner->server->model;
    const bw_request defaults = bw_request_defaults(model);
    const int n_own = r->ignore_eos ? 0 : defaults.n_stop_tokens;
    int32_t *think_end = NULL;
    int n_think_end = 0;
    bw_status st = BW_OK;
    int32_t *stops = bw_mem_zalloc((size_t)(n_own + r->n_stop_tokens), sizeof *stops, BW_MEM_MISC);
    if (!stops)
        return bw_fail_memory(err, "stop tokens", sizeof *stops);
    if (n_own)
        memcpy(stops, defaults.stop_tokens, (size_t)n_own * sizeof *stops);
    if (r->n_stop_tokens)
        memcpy(stops + n_own, r->stop_tokens, (size_t)r->n_stop_tokens * sizeof *stops);
    if (r->thinking && r->think_budget >= 0)
        st = bw_encode(model, "\n</think>\n\n", strlen("\n</think>\n\n"), true, &think_end, &n_think_end, err);
    if (!st) {
        const bw_request shared = engine_request(g, stops, n_own + r->n_stop_tokens, think_end, n_think_end);
        st = submit_all(g, &shared, err);
    }
    bw_mem_free(stops);
    bw_free(think_end);
    return st;
}

/* More than all places together: it would be told to come again for ever. */
static bw_status check_size(const bw_generation *g, bw_error *err)
{
    const bw_server *server = g->owner->server;
    const bw_api_request *r = &g->request;
    const int waiting = server->loaded->max_waiting, seqs = bw_engine_get_plan(server->engine)->max_seqs;
    if (r->n <= (waiting + seqs) / r->n_prompts)
        return BW_OK;
    return bw_fail(err, BW_E_ARGUMENT, "n: the request wants %lld answers (prompts x choices: %d x %d), but this server computes %d "
                   "at a time and lets %d wait: ask for fewer at once", (long long)r->n_prompts * r->n, r->n_prompts, r->n, seqs, waiting);
}

static void admit(bw_generation *g)
{
    bw_error err;
    bw_status st = check_size(g, &err);
    if (!st)
        st = make_choices(g, &err);
    if (!st)
        st = submit(g, &err);
    if (st) {
        err.status = st;
        refuse(g, &err);
        return;
    }
    if (!g->request.stream)
        return;
    g->streaming = true;
    bw_exchange_on_drained(g->exchange, RESUME_BYTES, drained, g);
    bw_exchange_stream(g->exchange);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* On a worker. */
static void read_body(void *job)
{
    bw_generation *g = job;
    g->is_read = g->read(&g->request, g->api, g->body, g->n_body, &g->error);
    bw_mem_free(g->body);
    g->body = NULL;
}

static void body_read(void *job)
{
    bw_generation *g = job;
    g->reading = false;
    if (!g->exchange) {
        bw_generation_release(g);
        return;
    }
    bw_exchange_body_freed(g->exchange);
    if (g->is_read) {
        admit(g);
        return;
    }
    const bw_api_error *e = &g->error;
    bw_exchange *x = g->exchange;
    g->exchange = NULL;
    reject(g, e->code && strcmp(e->code, "context_length_exceeded") == 0 ? "context" : "invalid");
    bw_exchange_fail(x, e->status, e->type, e->code, e->param[0] ? e->param : NULL, e->retry_after_s, e->message);
    bw_generation_release(g);
}

static void start_timer(bw_generation *g)
{
    const double seconds = g->owner->server->options->request_timeout_s;
    if (seconds <= 0)
        return;
    const struct timeval after = { .tv_sec = (time_t)seconds, .tv_usec = (suseconds_t)((seconds - floor(seconds)) * 1e6) };
    g->timer = evtimer_new(g->owner->server->base, timed_out, g);
    if (!g->timer || evtimer_add(g->timer, &after))
        bw_log(BW_LOG_WARNING, "request %s: no timer for --request-timeout", bw_exchange_id(g->exchange));
}

static void start(bw_server *server, bw_exchange *x,
                  bool (*read)(bw_api_request *, const bw_api_context *, const char *, size_t, bw_api_error *))
{
    bw_generations *gs = server->generations;
    bw_generation *g = bw_mem_zalloc(1, sizeof *g, BW_MEM_MISC);
    if (!g) {
        bw_exchange_fail(x, 500, "server_error", NULL, NULL, 0, "The server is out of memory.");
        return;
    }
    /* what is told when no worker came to read it */
    g->error = (bw_api_error){ .status = 503, .type = "service_unavailable", .code = "draining", .retry_after_s = 1,
                               .message = "The server is shutting down." };
    g->owner = gs;
    g->exchange = x;
    g->api = &server->api;
    g->read = read;
    g->arrived_ns = bw_exchange_arrived_ns(x);
    g->body = bw_exchange_take_body(x, &g->n_body);
    g->next = gs->first;
    g->link = &gs->first;
    if (g->next)
        g->next->link = &g->next;
    gs->first = g;
    gs->n_live++;
    g->reading = true;
    bw_exchange_on_gone(x, gone, g);
    start_timer(g);
    bw_work_add(server->work, read_body, body_read, g);
}

void bw_handle_chat(void *server, bw_exchange *exchange)
{
    start(server, exchange, bw_api_read_chat);
}

void bw_handle_completion(void *server, bw_exchange *exchange)
{
    start(server, exchange, bw_api_read_completion);
}

/* ---- all of them ----------------------------------------------------------------------------- */

bw_status bw_generations_create(bw_generations **out, bw_server *server, bw_error *err)
{
    *out = bw_mem_zalloc(1, sizeof **out, BW_MEM_MISC);
    if (!*out)
        return bw_fail_memory(err, "the requests of the server", sizeof **out);
    (*out)->server = server;
    return BW_OK;
}

void bw_generations_fail_all(bw_generations *gs, const char *code, const char *message)
{
    while (gs->first)
        bw_generation_fail(gs->first, 503, "service_unavailable", code, message);
}

int bw_generations_live(const bw_generations *gs)
{
    return gs->n_live;
}

void bw_generations_destroy(bw_generations *gs)
{
    if (!gs)
        return;
    bw_generations_fail_all(gs, "draining", "The server is shutting down.");
    bw_mem_free(gs);
}
