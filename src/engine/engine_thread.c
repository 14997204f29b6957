/* engine_thread.c - the thread that steps an engine, its inbox and its outbox.
 *
 * Owns the requests from admission to their end, and posts and records until they are taken. Every
 * request has its last post from the start, so that it is told of its end even when memory runs out.
 * The lock is never held over a call of the engine, an allocation or a free: nobody waits for a step.
 * A round of the thread: commands are read under the lock and applied, a step is computed, and what
 * came of it is published under the lock. Only the thread takes a request off the list. */
#include "engine/engine_thread.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/status.h"
#include "engine/engine.h"

enum { STALLED_NS = 10000000 }; /* how long to wait for commands after a step that found nothing it could do */

typedef struct admitted admitted;

/* A post, and whose it is until it is published. */
typedef struct letter {
    bw_post post; /* first: bw_post_free gets its address */
    admitted *from;
} letter;

/* A request between submit and its end. One block: the lists of its request lie behind it. */
struct admitted {
    bw_ticket ticket;
    bw_request request;
    uint64_t submitted_ns;
    letter *last; /* put aside for its end */

    /* under the lock */
    admitted *next; /* in order of admission */
    bool cancelled, paused;
    bool started, held_back; /* it has a sequence; it was left to wait when others were started */
    bw_seq_info info;        /* after the last step */

    /* the engine's thread alone */
    admitted *next_to_do;
    bw_seq_id id; /* 0: still in the inbox */
    bool paused_there, listed, done;
    double inbox_s;
};

typedef struct list {
    bw_post *first, **end;
} list;

struct bw_engine_thread {
    bw_engine *engine;
    void (*wake)(void *arg);
    void *arg;
    pthread_t handle;
    bool started;
    bw_admission admission;
    int max_seqs;

    pthread_mutex_t lock;
    pthread_cond_t command;
    bool has_commands, quit, failed;
    char failure[512];
    bw_ticket next_ticket;
    admitted *oldest, **newest_end;
    list posts;
    bw_step_record *records, **records_end;
    int n_records;
    bw_engine_stats stats;

    /* the engine's thread alone */
    bw_seq_info *infos; /* [max_infos] */
    int max_infos;
    int64_t n_steps;
    list out;           /* of this round, not yet published */
    bool engine_full;   /* the last submit found no entry, and none has become free since */
};

static void list_init(list *l)
{
    l->first = NULL;
    l->end = &l->first;
}

static void list_add(list *l, bw_post *post)
{
    post->next = NULL;
    *l->end = post;
    l->end = &post->next;
}

void bw_post_free(bw_post *post)
{
    if (post) {
        bw_mem_free(post->prompt_logprobs);
        bw_mem_free(post->prompt_top);
    }
    bw_mem_free(post);
}

void bw_step_record_free(bw_step_record *record)
{
    bw_mem_free(record);
}

static void free_posts(bw_post *post)
{
    for (bw_post *next; post; post = next) {
        next = post->next;
        bw_post_free(post);
    }
}

static void free_records(bw_step_record *record)
{
    for (bw_step_record *next; record; record = next) {
        next = record->next;
        bw_step_record_free(record);
    }
}

static void free_admitted(admitted *a)
{
    if (a && a->last)
        bw_post_free(&a->last->post);
    bw_mem_free(a);
}

static void free_all_admitted(admitted *a)
{
    for (admitted *next; a; a = next) {
        next = a->next;
        free_admitted(a);
    }
}

/* Cut to the room there is, on a character. */
static void copy_message(char *out, size_t room, const char *text)
{
    size_t n = strlen(text);
    if (n >= room)
        for (n = room - 1; n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80; n--)
            ;
    memcpy(out, text, n);
    out[n] = '\0';
}

/* ---- submit ---------------------------------------------------------------------------------- */

static void *copy_list(unsigned char **at, const void *from, size_t bytes)
{
    void *to = *at;
    if (bytes > 0)
        memcpy(to, from, bytes);
    *at += bytes;
    return to;
}

/* r has passed bw_engine_check: its counts are not negative. */
static admitted *copy_request(const bw_request *r)
{
    const size_t prompt = (size_t)r->n_prompt * sizeof *r->prompt, stops = (size_t)r->n_stop_tokens * sizeof *r->stop_tokens;
    const size_t biases = (size_t)r->n_logit_bias * sizeof *r->logit_bias;
    const size_t ends = (size_t)r->n_think_end * sizeof *r->think_end, marks = (size_t)r->n_marks * sizeof *r->marks;
    admitted *a = bw_mem_alloc(sizeof *a + prompt + stops + biases + ends + marks, BW_MEM_MISC);
    if (!a)
        return NULL;
    *a = (admitted){ .request = *r, .submitted_ns = bw_clock_ns(),
                     .info = { .state = BW_SEQ_WAITING, .usage.prompt_tokens = r->n_prompt } };
    unsigned char *at = (unsigned char *)(a + 1);
    a->request.prompt = copy_list(&at, r->prompt, prompt);
    a->request.stop_tokens = copy_list(&at, r->stop_tokens, stops);
    a->request.logit_bias = copy_list(&at, r->logit_bias, biases);
    a->request.think_end = copy_list(&at, r->think_end, ends);
    a->request.marks = copy_list(&at, r->marks, marks);
    a->request.user = a;
    a->last = bw_mem_zalloc(1, sizeof *a->last, BW_MEM_MISC);
    bool whole = a->last != NULL;
    if (whole && r->prompt_logprobs) {
        a->last->post.prompt_logprobs = bw_mem_zalloc((size_t)r->n_prompt, sizeof(float), BW_MEM_MISC);
        a->request.prompt_logprobs = a->last->post.prompt_logprobs;
        a->last->post.n_prompt = r->n_prompt;
        whole = a->last->post.prompt_logprobs != NULL;
    }
    a->request.prompt_top = NULL;
    if (whole && r->prompt_logprobs && r->n_logprobs > 0) {
        a->last->post.prompt_top = bw_mem_zalloc((size_t)r->n_prompt * (size_t)r->n_logprobs, sizeof(bw_logprob), BW_MEM_MISC);
        a->request.prompt_top = a->last->post.prompt_top;
        whole = a->last->post.prompt_top != NULL;
    }
    if (!whole) {
        free_admitted(a);
        return NULL;
    }
    return a;
}

/* Under the lock: whether those that wait and these are few enough. Requests that are not started
 * wait, but for as many as there are free sequences; none is free when the engine left one waiting. */
static bw_status check_room(const bw_engine_thread *t, const admitted *these, bw_error *err)
{
    int places = t->max_seqs, waiting = 0, asked = 0;
    int64_t tokens = 0, asked_tokens = 0;
    bool held_back = false;
    for (const admitted *a = t->oldest; a; a = a->next) {
        places -= !a->cancelled && a->started;
        held_back |= !a->cancelled && !a->paused && a->held_back;
    }
    places = held_back ? 0 : places;
    for (const admitted *a = t->oldest; a; a = a->next)
        if (!a->cancelled && !a->started && places-- <= 0) {
            waiting++;
            tokens += a->request.n_prompt;
        }
    for (const admitted *a = these; a; a = a->next)
        if (places-- <= 0) {
            asked++;
            asked_tokens += a->request.n_prompt;
        }
    if (waiting + asked > t->admission.max_requests)
        return bw_fail(err, BW_E_BUSY, "queue: %d requests wait and %d more would have to, at most %d may: try again later",
                       waiting, asked, t->admission.max_requests);
    if (waiting > 0 && t->admission.max_tokens > 0 && tokens + asked_tokens > t->admission.max_tokens)
        return bw_fail(err, BW_E_BUSY, "queue: %d requests with %lld prompt tokens wait and %lld more tokens would have to, "
                       "at most %lld may: try again later", waiting, (long long)tokens, (long long)asked_tokens,
                       (long long)t->admission.max_tokens);
    return BW_OK;
}

/* All of these or none. On failure they stay the caller's. */
static bw_status admit(bw_engine_thread *t, admitted *these, bw_ticket *tickets, bw_error *err)
{
    bw_status st = BW_OK;
    pthread_mutex_lock(&t->lock);
    if (t->failed)
        st = bw_fail(err, BW_E_INTERNAL, "engine: it has failed and takes no more requests: %s", t->failure);
    else if (t->quit)
        st = bw_fail(err, BW_E_INTERNAL, "engine: it is being shut down");
    else
        st = check_room(t, these, err);
    if (!st) {
        *t->newest_end = these;
        for (admitted *a = these; a; a = a->next) {
            a->ticket = *tickets++ = t->next_ticket++;
            t->newest_end = &a->next;
        }
        t->has_commands = true;
        pthread_cond_signal(&t->command);
    }
    pthread_mutex_unlock(&t->lock);
    return st;
}

bw_status bw_engine_thread_submit(bw_engine_thread *t, const bw_request *requests, int n, bw_ticket *tickets, bw_error *err)
{
    bw_status st = BW_OK;
    for (int i = 0; i < n; i++) {
        const bw_request *r = &requests[i];
        if ((st = bw_engine_check(t->engine, r, err)))
            return st;
        if (r->prompt_logits || r->draft_logits)
            return bw_fail(err, BW_E_UNSUPPORTED, "request: raw logits are only given to who steps the engine itself");
    }
    admitted *these = NULL, **end = &these;
    for (int i = 0; i < n && !st; i++) {
        if (!(*end = copy_request(&requests[i])))
            st = bw_fail_memory(err, "request", (size_t)requests[i].n_prompt * sizeof(int32_t));
        else
            end = &(*end)->next;
    }
    if (!st && n > 0)
        st = admit(t, these, tickets, err);
    if (st)
        free_all_admitted(these);
    return st;
}

/* ---- cancel, pause, look --------------------------------------------------------------------- */

static admitted *find(const bw_engine_thread *t, bw_ticket ticket)
{
    admitted *a = t->oldest;
    while (a && (a->ticket != ticket || a->cancelled))
        a = a->next;
    return a;
}

void bw_engine_thread_cancel(bw_engine_thread *t, bw_ticket ticket)
{
    pthread_mutex_lock(&t->lock);
    admitted *a = find(t, ticket);
    if (a) {
        a->cancelled = t->has_commands = true;
        pthread_cond_signal(&t->command);
    }
    pthread_mutex_unlock(&t->lock);
}

void bw_engine_thread_pause(bw_engine_thread *t, bw_ticket ticket, bool paused)
{
    pthread_mutex_lock(&t->lock);
    admitted *a = find(t, ticket);
    if (a) {
        a->paused = paused;
        t->has_commands = true;
        pthread_cond_signal(&t->command);
    }
    pthread_mutex_unlock(&t->lock);
}

void bw_engine_thread_take(bw_engine_thread *t, bw_post **posts, bw_step_record **steps)
{
    pthread_mutex_lock(&t->lock);
    *posts = t->posts.first;
    *steps = t->records;
    list_init(&t->posts);
    t->records = NULL;
    t->records_end = &t->records;
    t->n_records = 0;
    pthread_mutex_unlock(&t->lock);
}

void bw_engine_thread_stats(bw_engine_thread *t, bw_engine_stats *stats)
{
    pthread_mutex_lock(&t->lock);
    *stats = t->stats;
    stats->waiting = 0;
    stats->waiting_tokens = 0;
    for (const admitted *a = t->oldest; a; a = a->next)
        if (!a->cancelled && !a->started) {
            stats->waiting++;
            stats->waiting_tokens += a->request.n_prompt;
        }
    pthread_mutex_unlock(&t->lock);
}

bool bw_engine_thread_failed(bw_engine_thread *t, char *message, size_t n)
{
    pthread_mutex_lock(&t->lock);
    const bool failed = t->failed;
    if (failed && n > 0)
        copy_message(message, n, t->failure);
    pthread_mutex_unlock(&t->lock);
    return failed;
}

int bw_engine_thread_list(bw_engine_thread *t, bw_seq_info *out, int room)
{
    int n = 0;
    pthread_mutex_lock(&t->lock);
    for (const admitted *a = t->oldest; a && n < room; a = a->next)
        if (!a->cancelled) {
            out[n] = a->info;
            out[n].id = a->ticket;
            out[n].user = NULL;
            if (a->paused)
                out[n].state = BW_SEQ_PAUSED;
            n++;
        }
    pthread_mutex_unlock(&t->lock);
    return n;
}

/* ---- posts, on the engine's thread ----------------------------------------------------------- */

static void put_out(bw_engine_thread *t, admitted *a, letter *l)
{
    l->from = a;
    l->post.ticket = a->ticket;
    l->post.usage.queue_s += a->inbox_s;
    l->post.step = t->n_steps;
    l->post.clock_ns = bw_clock_ns();
    list_add(&t->out, &l->post);
}

/* The last post of a request that cannot go on. Its sequence is gone, or goes with the engine. */
static void post_error(bw_engine_thread *t, admitted *a, const char *message)
{
    letter *l = a->last;
    a->last = NULL;
    a->done = true;
    l->post.finish = BW_FINISH_ERROR;
    l->post.usage = a->info.usage; /* info is written by this thread only */
    copy_message(l->post.error, sizeof l->post.error, message);
    put_out(t, a, l);
}

/* One block: the post, then tokens, log-probabilities, alternatives. */
static letter *copy_event(const bw_event *event)
{
    const size_t n = (size_t)event->n_tokens, n_top = event->top ? n * (size_t)event->n_top : 0;
    const size_t tokens = n * sizeof *event->tokens, logprobs = event->logprobs ? n * sizeof *event->logprobs : 0;
    letter *l = bw_mem_alloc(sizeof *l + tokens + logprobs + n_top * sizeof *event->top, BW_MEM_MISC);
    if (!l)
        return NULL;
    *l = (letter){ .post = { .n_tokens = event->n_tokens, .finish = event->finish, .usage = *event->usage } };
    unsigned char *at = (unsigned char *)(l + 1);
    l->post.tokens = copy_list(&at, event->tokens, tokens);
    if (event->logprobs)
        l->post.logprobs = copy_list(&at, event->logprobs, logprobs);
    if (event->top) {
        l->post.top = copy_list(&at, event->top, n_top * sizeof *event->top);
        l->post.n_top = event->n_top;
    }
    if (event->finish == BW_FINISH_ERROR)
        copy_message(l->post.error, sizeof l->post.error, event->error ? event->error : "the sequence cannot go on");
    return l;
}

static void post_event(bw_engine_thread *t, const bw_event *event)
{
    admitted *a = event->user;
    letter *l = copy_event(event);
    if (!l) {
        if (event->finish == BW_FINISH_NONE)
            bw_engine_cancel(t->engine, a->id);
        post_error(t, a, "out of memory for the tokens of an answer");
        return;
    }
    if (event->finish != BW_FINISH_NONE) {
        a->done = true;
        l->post.prompt_logprobs = a->last->post.prompt_logprobs;
        l->post.prompt_top = a->last->post.prompt_top;
        l->post.n_prompt = a->last->post.n_prompt;
        a->last->post.prompt_logprobs = NULL;
        a->last->post.prompt_top = NULL;
    }
    put_out(t, a, l);
}

static void fail_engine(bw_engine_thread *t, const bw_error *err)
{
    pthread_mutex_lock(&t->lock);
    t->failed = true; /* from here on nobody is admitted */
    copy_message(t->failure, sizeof t->failure, err->message);
    pthread_mutex_unlock(&t->lock);
    for (admitted *a = t->oldest; a; a = a->next) /* nobody adds any more, and nobody else takes away */
        if (!a->done)
            post_error(t, a, err->message);
}

/* ---- a round of the thread ------------------------------------------------------------------- */

/* Takes the entries that are over, with the posts nobody wants any more, off the lists. Under the lock. */
static void take_ended(bw_engine_thread *t, admitted **ended, list *unwanted)
{
    for (bw_post *post = t->out.first, *next; post; post = next) {
        next = post->next;
        list_add(((letter *)post)->from->cancelled ? unwanted : &t->posts, post);
    }
    list_init(&t->out);
    t->newest_end = &t->oldest;
    while (*t->newest_end) {
        admitted *a = *t->newest_end;
        if (a->done) {
            *t->newest_end = a->next;
            a->next = *ended;
            *ended = a;
        } else {
            t->newest_end = &a->next;
        }
    }
}

static void add_record(bw_engine_thread *t, bw_step_record *record, bw_step_record **dropped)
{
    *t->records_end = record;
    t->records_end = &record->next;
    if (t->n_records < BW_MAX_STEP_RECORDS) {
        t->n_records++;
        return;
    }
    *dropped = t->records;
    t->records = (*dropped)->next;
    (*dropped)->next = NULL;
}

static void note_infos(bw_engine_thread *t, int n, bool stepped)
{
    for (int i = 0; i < n; i++) {
        admitted *a = t->infos[i].user;
        a->info = t->infos[i];
        a->info.usage.queue_s += a->inbox_s;
        a->started |= a->info.state == BW_SEQ_PREFILL || a->info.state == BW_SEQ_DECODE || a->info.usage.prefill_steps > 0;
        a->held_back = !a->started && (stepped || a->held_back);
    }
}

/* What came of the round, for everybody to see. record: of its step, or NULL. */
static void publish(bw_engine_thread *t, bw_step_record *record, bool stepped)
{
    const int n = t->failed ? 0 : bw_engine_list(t->engine, t->infos, t->max_infos);
    bw_engine_stats stats;
    bw_engine_get_stats(t->engine, &stats);
    admitted *ended = NULL;
    bw_step_record *dropped = NULL;
    list unwanted;
    list_init(&unwanted);
    const bool news = t->out.first || record;
    pthread_mutex_lock(&t->lock);
    note_infos(t, n, stepped);
    take_ended(t, &ended, &unwanted);
    if (record)
        add_record(t, record, &dropped);
    t->stats = stats;
    pthread_mutex_unlock(&t->lock);
    free_posts(unwanted.first);
    free_all_admitted(ended);
    bw_step_record_free(dropped);
    if (news)
        t->wake(t->arg);
}

/* Under the lock. */
static bool is_wanted(const bw_engine_thread *t)
{
    if (t->quit || t->has_commands)
        return true;
    for (const admitted *a = t->oldest; a && !t->engine_full; a = a->next)
        if (!a->id)
            return true;
    return false;
}

/* Waits until there is something to do; false: the thread is to end. *to_do: requests that were
 * cancelled, are to be paused or to go on, or are in the inbox, oldest first. */
static bool wait_for_work(bw_engine_thread *t, bool idle, bool stalled, admitted **to_do)
{
    struct timespec until;
    if (stalled) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += STALLED_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
    }
    pthread_mutex_lock(&t->lock);
    while (idle && !is_wanted(t))
        pthread_cond_wait(&t->command, &t->lock);
    while (stalled && !is_wanted(t) && pthread_cond_timedwait(&t->command, &t->lock, &until) == 0)
        ;
    t->has_commands = false;
    for (admitted *a = t->oldest; a; a = a->next)
        if (a->cancelled || !a->id || a->paused != a->paused_there) {
            a->paused_there = a->paused;
            a->done |= a->cancelled;
            *to_do = a;
            to_do = &a->next_to_do;
        }
    *to_do = NULL;
    const bool go_on = !t->quit;
    pthread_mutex_unlock(&t->lock);
    return go_on;
}

static void enter_engine(bw_engine_thread *t, admitted *a)
{
    bw_error err;
    const bw_status st = bw_engine_submit(t->engine, &a->request, &a->id, &err);
    a->inbox_s = (double)(bw_clock_ns() - a->submitted_ns) * 1e-9;
    if (st == BW_E_BUSY)
        t->engine_full = true;
    else if (st)
        post_error(t, a, err.message);
    else if (a->paused_there)
        bw_engine_pause(t->engine, a->id, true);
}

static void apply(bw_engine_thread *t, admitted *to_do)
{
    for (admitted *a = to_do; a; a = a->next_to_do) /* first: they make room */
        if (a->done && a->id && bw_engine_cancel(t->engine, a->id))
            t->engine_full = false;
    for (admitted *a = to_do; a; a = a->next_to_do) {
        if (a->done)
            continue;
        if (a->id)
            bw_engine_pause(t->engine, a->id, a->paused_there);
        else if (!t->engine_full)
            enter_engine(t, a);
    }
}

/* A sequence that the engine no longer has and that got no last event. */
static void post_lost(bw_engine_thread *t, const char *message)
{
    const int n = bw_engine_list(t->engine, t->infos, t->max_infos);
    pthread_mutex_lock(&t->lock); /* for the list, to which others add */
    for (admitted *a = t->oldest; a; a = a->next)
        a->listed = false;
    for (int i = 0; i < n; i++)
        ((admitted *)t->infos[i].user)->listed = true;
    for (admitted *a = t->oldest; a; a = a->next)
        if (a->id && !a->listed && !a->done)
            post_error(t, a, message);
    pthread_mutex_unlock(&t->lock);
}

/* A step and its events; true: it did something. */
static bool step(bw_engine_thread *t)
{
    bw_error err;
    t->n_steps++;
    const bw_status st = bw_engine_step(t->engine, &err);
    bw_event event;
    bool ended = false;
    while (bw_engine_event(t->engine, &event)) {
        post_event(t, &event);
        ended |= event.finish != BW_FINISH_NONE;
    }
    if (st == BW_E_FORMAT)
        post_lost(t, err.message);
    else if (st)
        fail_engine(t, &err);
    if (ended || st)
        t->engine_full = false;
    const bw_step_info *info = bw_engine_get_step(t->engine);
    const bool worked = info->rows > 0 || t->out.first;
    bw_step_record *record = info->rows > 0 ? bw_mem_alloc(sizeof *record, BW_MEM_MISC) : NULL;
    if (record) /* a gap in the metrics where there is no memory */
        *record = (bw_step_record){ .info = *info };
    publish(t, record, true);
    return worked;
}

static void *run(void *arg)
{
    bw_engine_thread *t = arg;
    bool stalled = false;
    for (admitted *to_do;;) {
        const bool idle = t->failed || bw_engine_idle(t->engine);
        if (!wait_for_work(t, idle, stalled, &to_do))
            break;
        if (!t->failed)
            apply(t, to_do);
        if (to_do)
            publish(t, NULL, false);
        stalled = !t->failed && !bw_engine_idle(t->engine) && !step(t);
    }
    for (admitted *a = t->oldest; a; a = a->next) /* the list is closed: quit is seen by who submits */
        if (a->id)
            bw_engine_cancel(t->engine, a->id);
    return NULL;
}

/* ---- create and destroy ---------------------------------------------------------------------- */

bw_status bw_engine_thread_create(bw_engine_thread **out, bw_engine *engine, void (*wake)(void *arg), void *arg,
                                  bw_error *err)
{
    *out = NULL;
    bw_engine_thread *t = bw_mem_zalloc(1, sizeof *t, BW_MEM_MISC);
    if (!t)
        return bw_fail_memory(err, "engine thread", sizeof *t);
    t->engine = engine;
    t->wake = wake;
    t->arg = arg;
    t->max_seqs = engine->options.max_seqs;
    t->admission.max_requests = t->max_seqs > 16 ? 4 * t->max_seqs : 64;
    t->next_ticket = 1;
    t->newest_end = &t->oldest;
    t->records_end = &t->records;
    list_init(&t->posts);
    list_init(&t->out);
    bw_engine_get_stats(engine, &t->stats);
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&t->command, &monotonic);
    pthread_condattr_destroy(&monotonic);
    t->max_infos = engine->options.max_seqs + engine->options.max_waiting;
    t->infos = bw_mem_zalloc((size_t)t->max_infos, sizeof *t->infos, BW_MEM_MISC);
    if (!t->infos) {
        const bw_status st = bw_fail_memory(err, "engine thread", (size_t)t->max_infos * sizeof *t->infos);
        bw_engine_thread_destroy(t);
        return st;
    }
    const int rc = pthread_create(&t->handle, NULL, run, t);
    if (rc != 0) {
        bw_engine_thread_destroy(t);
        return bw_fail(err, BW_E_IO, "threads: cannot start the engine's: %s", strerror(rc));
    }
    t->started = true;
    *out = t;
    return BW_OK;
}

void bw_engine_thread_set_admission(bw_engine_thread *t, bw_admission admission)
{
    pthread_mutex_lock(&t->lock);
    t->admission = admission;
    pthread_mutex_unlock(&t->lock);
}

void bw_engine_thread_destroy(bw_engine_thread *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->quit = true;
    pthread_cond_signal(&t->command);
    pthread_mutex_unlock(&t->lock);
    if (t->started)
        pthread_join(t->handle, NULL);
    free_posts(t->out.first);
    free_posts(t->posts.first);
    free_records(t->records);
    free_all_admitted(t->oldest);
    pthread_cond_destroy(&t->command);
    pthread_mutex_destroy(&t->lock);
    bw_mem_free(t->infos);
    bw_mem_free(t);
}
