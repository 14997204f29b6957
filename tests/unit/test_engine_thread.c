/* The engine on its own thread: many threads submit, pause and leave; every admitted request is
 * answered once, with the tokens that bw_engine gives when it is stepped by hand. */
#include "engine/engine_thread.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "base/mem.h"
#include "lib/runs.h"
#include "lib/tiny_model.h"

enum { CONTEXT = 160, PROMPT = 40, MAX_SEQS = 4, N_SUBJECTS = 12, MAX_TICKETS = 400, PATIENCE_S = 300 };

static void nap(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
}

static bw_model *tiny(void)
{
    tiny_shape shape;
    return open_model(tiny_model(&shape), NULL, 2, BW_ACTIVATIONS_AUTO);
}

static bw_engine_thread *start(bw_engine *engine, void (*wake)(void *), void *arg)
{
    bw_engine_thread *t;
    bw_error err;
    check_ok(bw_engine_thread_create(&t, engine, wake, arg, &err), err);
    return t;
}

static void wake_nobody(void *arg)
{
    (void)arg;
}

static void keep_post(run *out, const bw_post *post)
{
    keep_event(out, &(bw_event){ .tokens = post->tokens, .n_tokens = post->n_tokens, .logprobs = post->logprobs,
                                 .top = post->top, .n_top = post->n_top, .finish = post->finish, .usage = &post->usage });
}

/* Takes what there is; every post goes to the run of its ticket, tickets counting from `first`. */
static int take_into(bw_engine_thread *t, run *runs, int n_runs, bw_ticket first)
{
    bw_post *posts;
    bw_step_record *records;
    int n = 0;
    bw_engine_thread_take(t, &posts, &records);
    for (bw_step_record *next; records; records = next) {
        next = records->next;
        check(records->info.rows > 0);
        bw_step_record_free(records);
    }
    int64_t last_step = 0;
    for (bw_post *next; posts; posts = next, n++) {
        next = posts->next;
        check(posts->ticket >= first && posts->ticket < first + (bw_ticket)n_runs);
        check(posts->step >= last_step && posts->clock_ns > 0);
        last_step = posts->step;
        run *r = &runs[posts->ticket - first];
        check_that(r->finish == BW_FINISH_NONE, "ticket %llu: a post after its last", (unsigned long long)posts->ticket);
        keep_post(r, posts);
        bw_post_free(posts);
    }
    return n;
}

static void wait_for_end(bw_engine_thread *t, run *runs, int n_runs, bw_ticket first)
{
    const time_t until = time(NULL) + PATIENCE_S;
    for (int live = 1; live > 0;) {
        take_into(t, runs, n_runs, first);
        live = 0;
        for (int i = 0; i < n_runs; i++)
            live += runs[i].finish == BW_FINISH_NONE;
        check(time(NULL) < until);
        nap();
    }
}

static void wait_until_gone(bw_engine_thread *t)
{
    bw_seq_info info;
    for (const time_t until = time(NULL) + PATIENCE_S; bw_engine_thread_list(t, &info, 1) > 0; nap())
        check(time(NULL) < until);
}

/* ---- subjects: requests and the answers that an engine stepped by hand gives ---- */

static int32_t prompts[N_SUBJECTS][PROMPT];
static bw_request subjects[N_SUBJECTS];
static run answers[N_SUBJECTS];

static void make_subjects(bw_model *model, int longest)
{
    const int n_tokens = bw_model_get_info(model)->n_tokens;
    bw_engine *engine = open_engine(model, CONTEXT, 0, 1, BW_KV_F16);
    for (int i = 0; i < N_SUBJECTS; i++) {
        const int n = rnd_int(1, PROMPT);
        for (int j = 0; j < n; j++)
            prompts[i][j] = rnd_int(0, n_tokens - 1);
        bw_request *r = &subjects[i];
        *r = greedy_request(model, prompts[i], n, rnd_int(1, longest));
        r->n_logprobs = rnd_int(-1, 3);
        r->sampling.temperature = (float)(i & 1);
        r->sampling.seed = (uint64_t)i;
        run_request(engine, r, &answers[i]);
        r->draft = bw_model_get_info(model)->has_mtp ? rnd_int(BW_DRAFT_AUTO, 3) : BW_DRAFT_OFF;
    }
    bw_engine_destroy(engine);
}

/* Everything a request points to may be gone once it was submitted. */
static bw_status submit_and_forget(bw_engine_thread *t, const bw_request *r, bw_ticket *ticket, bw_error *err)
{
    bw_request copy = *r;
    int32_t prompt[PROMPT], stop = -7;
    memcpy(prompt, r->prompt, (size_t)r->n_prompt * sizeof *prompt);
    copy.prompt = prompt;
    copy.stop_tokens = &stop;
    copy.n_stop_tokens = 1;
    const bw_status st = bw_engine_thread_submit(t, &copy, 1, ticket, err);
    memset(prompt, 0x7F, sizeof prompt);
    stop = 0x7F7F7F7F;
    return st;
}

TEST(posts_are_what_an_engine_stepped_by_hand_gives)
{
    bw_model *model = tiny();
    make_subjects(model, 30);
    bw_engine *engine = open_engine(model, CONTEXT, 0, MAX_SEQS, BW_KV_F16);
    bw_engine_thread *t = start(engine, wake_nobody, NULL);
    static run got[N_SUBJECTS];
    memset(got, 0, sizeof got);
    bw_error err;
    bw_ticket ticket;
    for (int i = 0; i < N_SUBJECTS; i++) {
        check_ok(submit_and_forget(t, &subjects[i], &ticket, &err), err);
        check_int(ticket, i + 1);
    }
    wait_for_end(t, got, N_SUBJECTS, 1);
    for (int i = 0; i < N_SUBJECTS; i++) {
        check_same_run(&got[i], &answers[i], "a ticket");
        check_int(got[i].usage.prompt_tokens, subjects[i].n_prompt);
        check_int(got[i].usage.generated_tokens, got[i].n_tokens);
        check(got[i].usage.queue_s >= 0);
    }
    wait_until_gone(t);
    bw_engine_stats stats;
    bw_engine_thread_stats(t, &stats);
    check(stats.running == 0 && stats.waiting == 0 && stats.waiting_tokens == 0 && stats.steps > 0);
    bw_engine_thread_destroy(t);
    check(bw_engine_idle(engine));
    bw_engine_destroy(engine);
    bw_model_close(model);
}

/* ---- many threads ---- */

enum { FATE_RUNS, FATE_CANCELLED };

typedef struct crowd {
    bw_engine_thread *thread;
    pthread_mutex_t lock;
    int subject[MAX_TICKETS], fate[MAX_TICKETS]; /* [ticket - 1] */
    int n_tickets, n_busy, n_unordered;
} crowd;

typedef struct client {
    crowd *crowd;
    uint64_t random;
} client;

static int draw(client *c, int n)
{
    c->random = c->random * 6364136223846793005u + 1442695040888963407u;
    return (int)((c->random >> 33) % (uint64_t)n);
}

/* Submits one or some, and leaves, pauses or waits, as it happens. */
static void *be_a_client(void *arg)
{
    client *c = arg;
    crowd *all = c->crowd;
    for (int i = 0; i < (sanitized() ? 6 : 12); i++) {
        const int subject = draw(c, N_SUBJECTS);
        bw_ticket ticket;
        bw_error err;
        const bw_status st = submit_and_forget(all->thread, &subjects[subject], &ticket, &err);
        const int fate = draw(c, 4) == 0 ? FATE_CANCELLED : FATE_RUNS;
        if (st == BW_OK && fate == FATE_RUNS && draw(c, 3) == 0) {
            bw_engine_thread_pause(all->thread, ticket, true);
            nap();
            bw_engine_thread_pause(all->thread, ticket, false);
        }
        for (int naps = draw(c, 6); naps > 0; naps--)
            nap();
        if (st == BW_OK && fate == FATE_CANCELLED)
            bw_engine_thread_cancel(all->thread, ticket);
        bw_seq_info infos[MAX_TICKETS];
        const int live = bw_engine_thread_list(all->thread, infos, MAX_TICKETS);
        pthread_mutex_lock(&all->lock);
        if (st == BW_OK) {
            all->subject[ticket - 1] = subject;
            all->fate[ticket - 1] = fate;
            all->n_tickets++;
        } else {
            all->n_busy += st == BW_E_BUSY;
            i--; /* again, later */
        }
        for (int j = 1; j < live; j++) /* oldest first */
            all->n_unordered += infos[j - 1].id >= infos[j].id;
        pthread_mutex_unlock(&all->lock);
    }
    return NULL;
}

static void serve_a_crowd(bw_engine *engine)
{
    enum { CLIENTS = 8 };
    crowd all = { .thread = start(engine, wake_nobody, NULL) };
    bw_engine_thread_set_admission(all.thread, (bw_admission){ .max_requests = 9, .max_tokens = 9 * PROMPT });
    pthread_mutex_init(&all.lock, NULL);
    client clients[CLIENTS];
    pthread_t threads[CLIENTS];
    run *got = calloc(MAX_TICKETS, sizeof *got);
    check(got != NULL);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (client){ &all, rnd_u64() };
        check(pthread_create(&threads[i], NULL, be_a_client, &clients[i]) == 0);
    }
    const time_t until = time(NULL) + PATIENCE_S;
    for (int i = 0; i < 100; i++, nap())
        take_into(all.thread, got, MAX_TICKETS, 1);
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    wait_until_gone(all.thread);
    take_into(all.thread, got, MAX_TICKETS, 1);
    check(time(NULL) < until);
    check(all.n_tickets > 0 && all.n_unordered == 0);
    for (int i = 0; i < all.n_tickets; i++) {
        const run *want = &answers[all.subject[i]];
        if (all.fate[i] == FATE_RUNS || got[i].finish != BW_FINISH_NONE) {
            check_same_run(&got[i], want, "one of a crowd");
        } else {
            check(got[i].n_tokens <= want->n_tokens);
            check(memcmp(got[i].tokens, want->tokens, (size_t)got[i].n_tokens * sizeof *want->tokens) == 0);
        }
    }
    printf("  %d admitted, %d refused\n", all.n_tickets, all.n_busy);
    free(got);
    bw_engine_thread_destroy(all.thread);
    check(bw_engine_idle(engine));
}

TEST(every_admitted_request_ends_once_or_was_cancelled)
{
    bw_model *model = tiny();
    make_subjects(model, 40);
    const uint64_t used = bw_mem_used(BW_MEM_MISC);
    bw_engine *engine = open_engine(model, CONTEXT, 0, MAX_SEQS, BW_KV_F16);
    serve_a_crowd(engine);
    bw_engine_destroy(engine);
    check_int(bw_mem_used(BW_MEM_MISC), used);
    bw_model_close(model);
}

/* Some wait in the engine and not in the inbox, and pages are few: sequences give way to others. */
TEST(a_crowd_is_served_alike_where_memory_is_short_and_prompts_are_cached)
{
    bw_model *model = tiny();
    make_subjects(model, 40);
    bw_engine_options options = { .context = CONTEXT, .max_seqs = MAX_SEQS, .max_waiting = 3, .cache_memory = 16 << 20 };
    bw_engine *engine;
    bw_memory_plan plan;
    bw_error err;
    check_ok(bw_engine_plan(model, &options, &plan, &err), err);
    options.kv_memory = plan.kv / MAX_SEQS; /* one full context */
    check_ok(bw_engine_create(&engine, model, &options, &err), err);
    serve_a_crowd(engine);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

/* ---- a thread that stands still when told ---- */

typedef struct gate {
    sem_t reached, open;
    bool shut; /* read and written while the engine's thread waits, or before it starts */
} gate;

static void wait_at_gate(void *arg)
{
    gate *g = arg;
    if (!g->shut)
        return;
    sem_post(&g->reached);
    sem_wait(&g->open);
}

static void make_gate(gate *g)
{
    sem_init(&g->reached, 0, 0);
    sem_init(&g->open, 0, 0);
    g->shut = true;
}

static void open_for_good(gate *g)
{
    g->shut = false;
    sem_post(&g->open);
}

TEST(a_full_queue_refuses_all_of_a_request_or_none)
{
    bw_model *model = tiny();
    bw_engine *engine = open_engine(model, CONTEXT, 0, 2, BW_KV_F16);
    gate g;
    make_gate(&g);
    bw_engine_thread *t = start(engine, wait_at_gate, &g);
    bw_engine_thread_set_admission(t, (bw_admission){ .max_requests = 3, .max_tokens = 40 });
    int32_t ids[PROMPT] = { 1 };
    bw_request r[4];
    for (int i = 0; i < 4; i++)
        r[i] = greedy_request(model, ids, 10, 20);
    static run got[8];
    memset(got, 0, sizeof got);
    bw_ticket tickets[4];
    bw_error err;
    bw_seq_info infos[9];
    check_ok(bw_engine_thread_submit(t, r, 2, tickets, &err), err); /* both run */
    sem_wait(&g.reached);
    check_ok(bw_engine_thread_submit(t, r, 2, tickets, &err), err); /* both wait */
    check_error(bw_engine_thread_submit(t, r, 2, tickets, &err), BW_E_BUSY, err, "2 requests wait", "2 more", "at most 3");
    r[0].n_prompt = 30;
    check_error(bw_engine_thread_submit(t, r, 1, tickets, &err), BW_E_BUSY, err, "20 prompt tokens", "30 more", "at most 40");
    bw_engine_stats stats;
    bw_engine_thread_stats(t, &stats);
    check_int(stats.waiting, 2);
    check_int(stats.waiting_tokens, 20);
    check_int(bw_engine_thread_list(t, infos, 9), 4);
    check(infos[0].state != BW_SEQ_WAITING && infos[3].state == BW_SEQ_WAITING && infos[3].id == 4);
    bw_engine_thread_cancel(t, 3);
    bw_engine_thread_cancel(t, 4);
    bw_engine_thread_cancel(t, 4);
    r[0].n_prompt = 39;
    r[1].n_prompt = 2;
    check_ok(bw_engine_thread_submit(t, r, 2, tickets, &err), err); /* more than 40, but nobody waits */
    check_int(tickets[0], 5);
    check_int(bw_engine_thread_list(t, infos, 9), 4);
    r[0].max_tokens = 0;
    r[0].n_prompt = CONTEXT + 1;
    check_error(bw_engine_thread_submit(t, r, 1, tickets, &err), BW_E_LIMIT, err, "161 tokens");
    r[0].prompt_logits = (float[]){ 0 };
    r[0].n_prompt = 1;
    check_error(bw_engine_thread_submit(t, r, 1, tickets, &err), BW_E_UNSUPPORTED, err, "raw logits");
    open_for_good(&g);
    wait_until_gone(t);
    take_into(t, got, 8, 1);
    check(got[0].n_tokens == 20 && got[1].n_tokens == 20 && got[4].n_tokens == 20 && got[5].n_tokens == 20);
    check(got[2].n_events == 0 && got[3].n_events == 0);
    bw_engine_thread_destroy(t);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(nothing_follows_a_cancel_and_a_paused_request_stands_still)
{
    bw_model *model = tiny();
    make_subjects(model, 30);
    bw_engine *engine = open_engine(model, CONTEXT, 0, 2, BW_KV_F16);
    gate g;
    make_gate(&g);
    bw_engine_thread *t = start(engine, wait_at_gate, &g);
    static run got[4];
    memset(got, 0, sizeof got);
    bw_ticket ticket;
    bw_error err;
    bw_request r = subjects[1];
    r.max_tokens = 60;
    for (int i = 0; i < 2; i++)
        check_ok(bw_engine_thread_submit(t, &r, 1, &ticket, &err), err);
    sem_wait(&g.reached);
    take_into(t, got, 4, 1);
    bw_engine_thread_cancel(t, 1);
    bw_engine_thread_pause(t, 2, true);
    bw_engine_thread_pause(t, 77, true);
    bw_engine_thread_cancel(t, 78);
    const int before = got[1].n_tokens, cancelled = got[0].n_tokens;
    open_for_good(&g);
    for (int i = 0; i < 30; i++)
        nap();
    check_int(take_into(t, got, 4, 1), 0);
    check_int(got[0].n_tokens, cancelled);
    check_int(got[1].n_tokens, before);
    bw_seq_info infos[4];
    check_int(bw_engine_thread_list(t, infos, 4), 1);
    check(infos[0].id == 2 && infos[0].state == BW_SEQ_PAUSED);
    check_ok(bw_engine_thread_submit(t, &subjects[0], 1, &ticket, &err), err); /* goes on beside it */
    wait_for_end(t, &got[2], 1, 3);
    check_same_run(&got[2], &answers[0], "beside a paused one");
    bw_engine_thread_pause(t, 2, false);
    wait_for_end(t, &got[1], 1, 2);
    check_int(got[1].n_tokens, 60);
    check(memcmp(got[1].tokens, answers[1].tokens, (size_t)answers[1].n_tokens * sizeof *got[1].tokens) == 0);
    bw_engine_thread_destroy(t);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(destroying_a_busy_thread_leaves_nothing_behind)
{
    bw_model *model = tiny();
    make_subjects(model, 40);
    bw_engine *engine = open_engine(model, CONTEXT, 0, MAX_SEQS, BW_KV_F16);
    const uint64_t used = bw_mem_used(BW_MEM_MISC);
    for (int i = 0; i < 20; i++) {
        bw_engine_thread *t = start(engine, wake_nobody, NULL);
        bw_ticket ticket;
        bw_error err;
        for (int j = 0; j < i; j++)
            check_ok(submit_and_forget(t, &subjects[j % N_SUBJECTS], &ticket, &err), err);
        for (int naps = i % 4; naps > 0; naps--)
            nap();
        bw_engine_thread_destroy(t);
        check(bw_engine_idle(engine));
        check_int(bw_mem_used(BW_MEM_MISC), used);
    }
    bw_engine_thread_destroy(NULL);
    run *again = calloc(1, sizeof *again);
    run_request(engine, &subjects[0], again); /* the engine is whole */
    check_same_run(again, &answers[0], "after a thread");
    free(again);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(prompt_logprobs_come_with_the_last_post)
{
    bw_model *model = tiny();
    make_subjects(model, 5);
    bw_engine *engine = open_engine(model, CONTEXT, 7, 2, BW_KV_F16);
    float want[PROMPT], asks;
    run *out = calloc(1, sizeof *out);
    bw_request r = subjects[3];
    static bw_logprob top[PROMPT * 2];
    r.prompt_logprobs = want;
    r.prompt_top = top;
    r.n_logprobs = 2;
    run_request(engine, &r, out);
    bw_engine_thread *t = start(engine, wake_nobody, NULL);
    bw_ticket ticket;
    bw_error err;
    r.prompt_logprobs = &asks;
    r.prompt_top = NULL;
    check_ok(bw_engine_thread_submit(t, &r, 1, &ticket, &err), err);
    wait_until_gone(t);
    bw_post *post;
    bw_step_record *record;
    bw_engine_thread_take(t, &post, &record);
    for (bw_step_record *next; record; record = next) {
        next = record->next;
        bw_step_record_free(record);
    }
    bool seen = false;
    for (bw_post *next; post; post = next) {
        next = post->next;
        check((post->prompt_logprobs != NULL) == (post->finish != BW_FINISH_NONE));
        if (post->prompt_logprobs) {
            seen = true;
            check_int(post->n_prompt, r.n_prompt);
            check(same_bits(post->prompt_logprobs, want, (size_t)r.n_prompt));
            check(memcmp(post->prompt_top + 2, top + 2, sizeof *top * 2 * (size_t)(r.n_prompt - 1)) == 0);
        }
        bw_post_free(post);
    }
    check(seen);
    free(out);
    bw_engine_thread_destroy(t);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

/* A model whose embedding of token 5 is not a number. */
static bw_model *open_damaged(void)
{
    char folder[4096], path[4200];
    static int n_models;
    snprintf(folder, sizeof folder, "%s/damaged-row-%d", temp_dir(), n_models++);
    tiny_shape shape = tiny_random_shape();
    shape.tied = shape.bf16 = false;
    check(mkdir(folder, 0700) == 0);
    tiny_write(folder, &shape);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    size_t n;
    char *data = read_file(path, &n);
    char *entry = strstr(data + 8, "embed_tokens.weight\"");
    uint64_t header, begin;
    memcpy(&header, data, 8);
    check(entry && sscanf(strstr(entry, "data_offsets"), "data_offsets\":[%lu", &begin) == 1);
    memset(data + 8 + header + begin + (size_t)shape.hidden * 4 * 5, 0xFF, 4); /* of token 5 */
    FILE *f = fopen(path, "wb");
    check(f && fwrite(data, 1, n, f) == n && fclose(f) == 0);
    free(data);
    return open_model(folder, NULL, 2, BW_ACTIVATIONS_AUTO);
}

TEST(a_step_that_scores_a_damaged_row_ends_its_sequence)
{
    bw_model *model = open_damaged();
    bw_engine *engine = open_engine(model, CONTEXT, 4, 2, BW_KV_F16);
    int32_t ids[] = { 1, 2, 3, 4, 6, 5, 3, 2, 1, 1, 1, 1 };
    float logprobs[12];
    bw_request r = greedy_request(model, ids, 12, 1);
    r.prompt_logprobs = logprobs;
    bw_seq_id id;
    bw_error err;
    bw_event event;
    check_ok(bw_engine_submit(engine, &r, &id, &err), err);
    check_ok(bw_engine_step(engine, &err), err); /* positions 0 .. 3 */
    check(!bw_engine_event(engine, &event));
    check_error(bw_engine_step(engine, &err), BW_E_FORMAT, err, "position 5", "damaged");
    check(bw_engine_event(engine, &event));
    check_int(event.finish, BW_FINISH_ERROR);
    check_int(event.id, id);
    check(bw_engine_idle(engine));
    bw_engine_destroy(engine);
    bw_model_close(model);
}

/* Who has the row in the prompt ends, the others do not notice. */
TEST(a_damaged_row_ends_its_request_and_no_other)
{
    bw_model *model = open_damaged();
    bw_engine *engine = open_engine(model, CONTEXT, 0, 2, BW_KV_F16);
    bw_engine_thread *t = start(engine, wake_nobody, NULL);
    int32_t ids[] = { 1, 5, 3 };
    bw_request r = greedy_request(model, ids, 3, 1); /* one token: a second might be token 5 */
    bw_ticket tickets[4];
    bw_error err;
    static run got[4];
    memset(got, 0, sizeof got);
    for (int i = 0; i < 4; i++) {
        r.n_prompt = i & 1 ? 3 : 1;
        check_ok(bw_engine_thread_submit(t, &r, 1, &tickets[i], &err), err);
    }
    wait_until_gone(t);
    bw_post *post;
    bw_step_record *record;
    bw_engine_thread_take(t, &post, &record);
    for (bw_step_record *next; record; record = next) {
        next = record->next;
        bw_step_record_free(record);
    }
    for (bw_post *next; post; post = next) {
        next = post->next;
        check(got[post->ticket - 1].finish == BW_FINISH_NONE);
        keep_post(&got[post->ticket - 1], post);
        if (post->finish == BW_FINISH_ERROR)
            check(strstr(post->error, "damaged") != NULL);
        bw_post_free(post);
    }
    for (int i = 0; i < 4; i++)
        check_int(got[i].finish == BW_FINISH_ERROR, i & 1);
    bw_engine_thread_destroy(t);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

/* The hook is the whole process's: sometimes the submit fails, sometimes a post or a record. */
TEST(who_was_admitted_is_told_of_the_end_though_memory_ran_out)
{
    bw_model *model = tiny();
    make_subjects(model, 8);
    bw_engine *engine = open_engine(model, CONTEXT, 0, 2, BW_KV_F16);
    const uint64_t used = bw_mem_used(BW_MEM_MISC);
    int n_errors = 0, n_refused = 0;
    for (int n = 1; n < 30; n++) {
        bw_engine_thread *t = start(engine, wake_nobody, NULL);
        bw_ticket ticket;
        bw_error err;
        static run got;
        memset(&got, 0, sizeof got);
        bw_mem_fail_at(n);
        const bw_status st = submit_and_forget(t, &subjects[n % N_SUBJECTS], &ticket, &err);
        check(st == BW_OK || st == BW_E_MEMORY);
        n_refused += st != BW_OK;
        if (st == BW_OK)
            wait_for_end(t, &got, 1, 1);
        bw_mem_fail_at(0);
        if (st == BW_OK && got.finish == BW_FINISH_ERROR)
            n_errors++;
        else if (st == BW_OK)
            check_same_run(&got, &answers[n % N_SUBJECTS], "with memory");
        wait_until_gone(t);
        bw_engine_thread_destroy(t);
        check_int(bw_mem_used(BW_MEM_MISC), used);
    }
    check(n_errors > 2 && n_refused > 1);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(creating_survives_every_failed_allocation)
{
    bw_model *model = tiny();
    bw_engine *engine = open_engine(model, CONTEXT, 0, 2, BW_KV_F16);
    bool failed = true;
    for (int n = 1; failed; n++) {
        bw_engine_thread *t;
        bw_error err;
        bw_mem_fail_at(n);
        const bw_status st = bw_engine_thread_create(&t, engine, wake_nobody, NULL, &err);
        failed = bw_mem_fail_at(0);
        check((st == BW_E_MEMORY) == failed && (t == NULL) == failed);
        bw_engine_thread_destroy(t);
    }
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TESTS_MAIN(ENTRY(posts_are_what_an_engine_stepped_by_hand_gives), ENTRY(every_admitted_request_ends_once_or_was_cancelled),
           ENTRY(a_crowd_is_served_alike_where_memory_is_short_and_prompts_are_cached),
           ENTRY(a_full_queue_refuses_all_of_a_request_or_none),
           ENTRY(nothing_follows_a_cancel_and_a_paused_request_stands_still),
           ENTRY(destroying_a_busy_thread_leaves_nothing_behind), ENTRY(prompt_logprobs_come_with_the_last_post),
           ENTRY(a_damaged_row_ends_its_request_and_no_other), ENTRY(a_step_that_scores_a_damaged_row_ends_its_sequence),
           ENTRY(who_was_admitted_is_told_of_the_end_though_memory_ran_out), ENTRY(creating_survives_every_failed_allocation))
