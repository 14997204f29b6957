/* A busy engine gives everybody what an idle one would: the same tokens and the same bits of every
 * log-probability, alone or beside 31 others, cached or cold, with drafts right, wrong or off, preempted,
 * paused or not, while others arrive, leave and are aborted and memory is short for pages and checkpoints.
 *
 * BW_SOAK_SECONDS sets how long the random part runs (make test: 20 s, with a sanitizer 10). */
#include "lib/runs.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "lib/tiny_model.h"

enum { CONTEXT = 400, LONGEST_PROMPT = 280, LONGEST_ANSWER = 110, N_JOBS = 44, N_TEXTS = 12 };

/* A conversation so far: later prompts go on from it, or leave it somewhere. */
typedef struct text {
    int32_t ids[CONTEXT];
    int n;
} text;

typedef struct job {
    bool live, paused;
    bw_seq_id id;
    bw_request request;
    run *want, *got;
    int32_t prompt[CONTEXT], stops[4], think_end[3];
    bw_logit_bias biases[8];
    int marks[3];
    int n_vocab;
} job;

/* What happened, over all worlds: a soak in which nothing of it did has shown nothing. */
typedef struct tally {
    int64_t requests, compared, aborted, cached_tokens, preemptions, evictions, accepted, steps;
} tally;

typedef struct world {
    bw_model *model;
    bw_engine *alone, *busy; /* alone: one sequence, no cache, no drafts, enough memory */
    bw_engine_options options;
    text texts[N_TEXTS];
    job jobs[N_JOBS];
    int n_live;
    tally *tally;
} world;

static int vocab_of(const world *w)
{
    return bw_model_get_info(w->model)->n_tokens;
}

static void add_random(const world *w, text *t, int n)
{
    for (; n > 0 && t->n < LONGEST_PROMPT; n--)
        t->ids[t->n++] = rnd_int(0, vocab_of(w) - 1);
}

/* Wrong drafts between right ones. */
static void spoil(void *arg, int64_t position, int32_t *drafts, int n)
{
    const job *j = arg;
    for (int i = 0; i < n; i++)
        if ((position + i) % 3 == 0)
            drafts[i] = (int32_t)((position * 7 + i) % j->n_vocab);
}

static void choose_prompt(world *w, job *j)
{
    text t = w->texts[rnd_int(0, N_TEXTS - 1)];
    const int kind = rnd_int(0, 9);
    if (kind == 0)
        t.n = 0;
    else if (kind < 3 && t.n > 0)
        t.n = rnd_int(1, t.n);
    if (kind != 9 || t.n == 0)
        add_random(w, &t, rnd_int(1, kind == 0 ? 150 : 40));
    memcpy(j->prompt, t.ids, sizeof j->prompt);
    j->request.prompt = j->prompt;
    j->request.n_prompt = t.n;
}

static void choose_marks(job *j)
{
    int n = 0;
    for (int at = rnd_int(1, 150); n < 3 && at < j->request.n_prompt && rnd_int(0, 2); at += rnd_int(1, 90))
        j->marks[n++] = at;
    j->request.marks = j->marks;
    j->request.n_marks = n;
}

static void choose_sampling(const world *w, job *j)
{
    bw_request *r = &j->request;
    if (rnd_int(0, 1)) {
        r->sampling.temperature = 1;
        r->sampling.seed = rnd_u64();
        r->sampling.top_k = rnd_int(0, 1) ? 30 : 0;
        r->sampling.presence_penalty = rnd_int(0, 2) ? 0 : 0.5f;
        r->sampling.repetition_penalty = rnd_int(0, 2) ? 1 : 1.1f;
    }
    if (rnd_int(0, 3) == 0) {
        r->logit_bias = j->biases;
        r->n_logit_bias = rnd_int(1, 8);
        for (int i = 0; i < r->n_logit_bias; i++)
            j->biases[i] = (bw_logit_bias){ i, 2 * rnd_float() };
    }
    if (rnd_int(0, 3) == 0) {
        r->stop_tokens = j->stops;
        r->n_stop_tokens = 4;
        for (int i = 0; i < 4; i++)
            j->stops[i] = rnd_int(0, vocab_of(w) - 1);
        r->min_tokens = rnd_int(0, 20);
    }
    if (rnd_int(0, 4) == 0) {
        r->think_budget = rnd_int(0, 30);
        r->think_end_token = j->think_end[0] = rnd_int(0, vocab_of(w) - 1);
        j->think_end[1] = j->think_end[2] = rnd_int(0, vocab_of(w) - 1);
        r->think_end = j->think_end;
        r->n_think_end = 3;
    }
}

/* The answer of the idle engine first; then what may not change it. */
static void make_request(world *w, job *j)
{
    j->request = greedy_request(w->model, NULL, 0, rnd_int(0, 5) ? rnd_int(1, rnd_int(0, 2) ? 40 : LONGEST_ANSWER) : rnd_int(0, 2));
    j->n_vocab = vocab_of(w);
    choose_prompt(w, j);
    choose_marks(j);
    choose_sampling(w, j);
    j->want = calloc(1, sizeof *j->want);
    j->got = calloc(1, sizeof *j->got);
    check(j->want && j->got);
    j->request.no_cache = true;
    run_request(w->alone, &j->request, j->want);

    bw_request *r = &j->request;
    r->no_cache = rnd_int(0, 9) == 0;
    r->cache_salt = rnd_int(0, 5) == 0;
    r->priority = rnd_int(0, 3) ? 0 : rnd_int(-1, 1);
    if (bw_model_get_info(w->model)->has_mtp && !w->options.no_drafts)
        r->draft = rnd_int(0, 1) ? BW_DRAFT_AUTO : rnd_int(0, 5);
    if (rnd_int(0, 4) == 0) {
        r->force_drafts = spoil;
        r->force_arg = j;
    }
    r->user = j;
    text *t = &w->texts[rnd_int(0, N_TEXTS - 1)]; /* the next turn of somebody */
    memcpy(t->ids, j->prompt, sizeof t->ids);
    t->n = r->n_prompt;
    for (int i = 0; i < j->want->n_tokens && t->n < LONGEST_PROMPT; i++)
        t->ids[t->n++] = j->want->tokens[i];
}

static void forget(world *w, job *j)
{
    free(j->want);
    free(j->got);
    *j = (job){ .live = false };
    w->n_live--;
}

static void arrive(world *w, job *j)
{
    bw_error err;
    memset(j, 0, sizeof *j);
    make_request(w, j);
    check_ok(bw_engine_submit(w->busy, &j->request, &j->id, &err), err);
    j->live = true;
    w->n_live++;
    w->tally->requests++;
}

static void check_finished(world *w, job *j)
{
    char what[256];
    const bw_usage *u = &j->got->usage;
    snprintf(what, sizeof what, "request %lld (prompt %d, draft %d, %d cached, %d preemptions; %d sequences, chunk %d)",
             (long long)w->tally->requests, j->request.n_prompt, j->request.draft, u->cached_tokens, u->preemptions,
             w->options.max_seqs, w->options.chunk);
    check_same_run(j->got, j->want, what);
    check_int(u->prompt_tokens, j->request.n_prompt);
    check_int(u->generated_tokens, j->got->n_tokens);
    check_that(u->cached_tokens < j->request.n_prompt, "%s", what);
    check_that(u->cached_tokens == 0 || (!j->request.no_cache && w->options.cache_memory > 0), "%s", what);
    w->tally->compared++;
    w->tally->cached_tokens += u->cached_tokens;
    for (int i = 0; i < BW_MAX_DRAFTS; i++)
        w->tally->accepted += u->accepted_by_position[i];
    forget(w, j);
}

static void step(world *w)
{
    bw_error err;
    check_ok(bw_engine_step(w->busy, &err), err);
    for (bw_event event; bw_engine_event(w->busy, &event);) {
        job *j = event.user;
        check_that(j->live && j->id == event.id, "an event of a sequence that is gone");
        check(!j->paused);
        keep_event(j->got, &event);
        if (event.finish != BW_FINISH_NONE)
            check_finished(w, j);
    }
    w->tally->steps++;
}

/* Somebody leaves, stops reading, reads again. */
static void disturb(world *w)
{
    job *j = &w->jobs[rnd_int(0, N_JOBS - 1)];
    if (!j->live)
        return;
    const int what = rnd_int(0, 2);
    if (what == 0) {
        check(bw_engine_cancel(w->busy, j->id));
        check(!bw_engine_cancel(w->busy, j->id));
        forget(w, j);
        w->tally->aborted++;
    } else {
        j->paused = !j->paused;
        check(bw_engine_pause(w->busy, j->id, j->paused));
    }
}

static void finish_all(world *w)
{
    for (int i = 0; i < N_JOBS; i++)
        if (w->jobs[i].live && w->jobs[i].paused) {
            w->jobs[i].paused = false;
            check(bw_engine_pause(w->busy, w->jobs[i].id, false));
        }
    for (int n = 0; w->n_live > 0; n++) {
        step(w);
        check_that(n < 100000, "%d requests never end", w->n_live);
    }
    bw_engine_stats stats;
    bw_engine_get_stats(w->busy, &stats);
    check(bw_engine_idle(w->busy));
    check_int(stats.running + stats.waiting, 0);
    check_int(stats.pages_running, 0);
    check_int(stats.slots_running, 0);
    w->tally->preemptions += stats.preemptions;
    w->tally->evictions += stats.evictions;
}

/* A model and an engine of random sizes: few or many sequences, pages for one context or some, no cache, one
 * for a few checkpoints or for all. */
static void open_world(world *w, const char *path, int hidden, tally *counts)
{
    memset(w, 0, sizeof *w);
    w->tally = counts;
    w->model = open_model(path, NULL, 2, BW_ACTIVATIONS_AUTO);
    bw_error err;
    bw_memory_plan plan;
    bw_engine_options o = { .context = CONTEXT, .max_seqs = (int[]){ 2, 6, 32 }[rnd_int(0, 2)], .max_waiting = N_JOBS,
                            .chunk = (int[]){ 0, 16, 100 }[rnd_int(0, 2)], .kv = rnd_int(0, 1) ? BW_KV_F16 : BW_KV_F32,
                            .min_prefill = rnd_int(0, 1) ? 0 : rnd_int(1, 80), .no_drafts = rnd_int(0, 5) == 0 };
    check_ok(bw_engine_plan(w->model, &o, &plan, &err), err);
    o.kv_memory = plan.kv / (uint64_t)o.max_seqs * (uint64_t)rnd_int(1, 3);
    const uint64_t state = plan.state_bytes_per_sequence + (uint64_t)hidden * sizeof(float);
    o.cache_memory = (uint64_t)(int[]){ 0, 4, 12, 400 }[rnd_int(0, 3)] * state;
    check_ok(bw_engine_create(&w->busy, w->model, &o, &err), err);
    w->options = o;
    w->alone = open_engine(w->model, CONTEXT, 0, 1, o.kv);
    for (int i = 0; i < N_TEXTS; i++)
        add_random(w, &w->texts[i], rnd_int(0, 100));
}

static void close_world(world *w)
{
    bw_engine_destroy(w->busy);
    bw_engine_destroy(w->alone);
    bw_model_close(w->model);
}

static void live_a_while(world *w, int n_steps)
{
    const int most = rnd_int(3, N_JOBS), hurry = rnd_int(1, 6);
    for (int i = 0; i < n_steps; i++) {
        for (int j = 0; j < N_JOBS && w->n_live < most; j++)
            if (!w->jobs[j].live && rnd_int(0, 5 * hurry) == 0)
                arrive(w, &w->jobs[j]);
        if (rnd_int(0, 7) == 0)
            disturb(w);
        step(w);
    }
    finish_all(w);
}

static double soak_seconds(void)
{
    const char *wanted = getenv("BW_SOAK_SECONDS");
    return wanted ? strtod(wanted, NULL) : sanitized() ? 10 : 20;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool saw_everything(const tally *t)
{
    return t->compared >= 100 && t->aborted >= 5 && t->cached_tokens > 0 && t->preemptions > 0 && t->evictions > 0 &&
           t->accepted > 0;
}

TEST(random_arrivals_aborts_and_evictions_change_no_bit)
{
    static world w;
    tally counts = { 0 };
    const double seconds = soak_seconds(), start = now();
    int n_worlds = 0;
    for (; now() - start < seconds || !saw_everything(&counts); n_worlds++) {
        tiny_shape shape = tiny_random_shape();
        char folder[4096];
        snprintf(folder, sizeof folder, "%s/soak", temp_dir());
        mkdir(folder, 0700);
        shape.mtp |= n_worlds % 4 > 0;
        tiny_write(folder, &shape);
        open_world(&w, folder, shape.hidden, &counts);
        live_a_while(&w, sanitized() ? 80 : 300);
        close_world(&w);
        check_that(now() - start < 20 * seconds + 200, "after %g s not everything has happened: %lld compared, %lld aborted, "
                   "%lld cached, %lld preemptions, %lld evictions, %lld accepted", now() - start, (long long)counts.compared,
                   (long long)counts.aborted, (long long)counts.cached_tokens, (long long)counts.preemptions,
                   (long long)counts.evictions, (long long)counts.accepted);
    }
    printf("  %d models, %lld steps: %lld requests compared, %lld aborted, %lld tokens from the cache, %lld drafts accepted, "
           "%lld preemptions, %lld evictions\n", n_worlds, (long long)counts.steps, (long long)counts.compared,
           (long long)counts.aborted, (long long)counts.cached_tokens, (long long)counts.accepted,
           (long long)counts.preemptions, (long long)counts.evictions);
}

/* ---- one request, told plainly ---- */

enum { OTHERS = 31 };

static void step_and_keep(bw_engine *engine)
{
    bw_error err;
    check_ok(bw_engine_step(engine, &err), err);
    for (bw_event event; bw_engine_event(engine, &event);)
        keep_event(event.user, &event);
}

/* Half of the others come before it, half after. It is paused early in its answer, when they need its memory. */
static void run_beside_others(world *w, job *others, const bw_request *request, run *out)
{
    bw_error err;
    bw_seq_id id, other;
    bw_request r = *request;
    memset(out, 0, sizeof *out);
    r.user = out;
    for (int i = 0; i < OTHERS; i++) {
        memset(others[i].got, 0, sizeof *others[i].got);
        others[i].request.user = others[i].got;
    }
    for (int i = 0; i < OTHERS; i++) {
        if (i == OTHERS / 2) {
            for (int j = 0; j < 3; j++)
                step_and_keep(w->busy);
            check_ok(bw_engine_submit(w->busy, &r, &id, &err), err);
        }
        check_ok(bw_engine_submit(w->busy, &others[i].request, &other, &err), err);
    }
    while (out->n_events < 2)
        step_and_keep(w->busy);
    check(bw_engine_pause(w->busy, id, true));
    for (int i = 0; i < 3; i++)
        step_and_keep(w->busy);
    check(bw_engine_pause(w->busy, id, false));
    while (!bw_engine_idle(w->busy))
        step_and_keep(w->busy);
    for (int i = 0; i < OTHERS; i++)
        check_same_run(others[i].got, others[i].want, "one of the others");
}

static void check_ways(world *w, bw_request r, int most_drafts)
{
    static job others[OTHERS];
    run *want = calloc(1, sizeof *want), *got = calloc(1, sizeof *got);
    run_request(w->alone, &r, want);
    for (int i = 0; i < OTHERS; i++) {
        memset(&others[i], 0, sizeof others[i]);
        make_request(w, &others[i]);
    }
    r.marks = (int[]){ r.n_prompt / 2 };
    r.n_marks = 1;
    for (int drafts = 0; drafts <= most_drafts; drafts += 3) {
        r.draft = drafts;
        r.cache_salt = (uint64_t)drafts + 10;
        run_request(w->busy, &r, got);
        check_int(got->usage.cached_tokens, 0);
        check_same_run(got, want, "alone, cold");
        run_request(w->busy, &r, got);
        check(got->usage.cached_tokens >= r.n_prompt / 2);
        check_same_run(got, want, "alone, cached");
        run_beside_others(w, others, &r, got);
        check_same_run(got, want, "beside 31 others");
        r.no_cache = true;
        run_beside_others(w, others, &r, got);
        check_int(got->usage.cached_tokens, 0);
        check_same_run(got, want, "beside 31 others, without the cache");
        r.no_cache = false;
    }
    for (int i = 0; i < OTHERS; i++)
        free(others[i].want), free(others[i].got);
    free(want), free(got);
}

TEST(a_request_is_answered_alike_alone_in_a_crowd_cached_and_cold)
{
    static world w;
    tally counts = { 0 };
    for (int i = 0; i < (sanitized() ? 1 : 3); i++) {
        tiny_shape shape;
        const bool lamb = i == 2;
        const char *path = lamb ? repo_path("models/lamb") : tiny_model(&shape);
        memset(&w, 0, sizeof w);
        w.tally = &counts;
        w.model = open_model(path, NULL, 2, BW_ACTIVATIONS_AUTO);
        bw_error err;
        bw_memory_plan plan;
        w.options = (bw_engine_options){ .context = CONTEXT, .max_seqs = 32, .max_waiting = 8, .chunk = 64,
                                         .cache_memory = 64 << 20 };
        check_ok(bw_engine_plan(w.model, &w.options, &plan, &err), err);
        w.options.kv_memory = plan.kv / 16; /* two full contexts for 32 */
        check_ok(bw_engine_create(&w.busy, w.model, &w.options, &err), err);
        w.alone = open_engine(w.model, CONTEXT, 0, 1, BW_KV_F16);
        for (int j = 0; j < N_TEXTS; j++)
            add_random(&w, &w.texts[j], rnd_int(50, 100));
        text prompt = { .n = 0 };
        add_random(&w, &prompt, 150);
        for (int seeded = lamb; seeded < 2; seeded++) {
            bw_request r = greedy_request(w.model, prompt.ids, prompt.n, lamb ? 30 : 50);
            r.sampling.temperature = (float)seeded;
            r.sampling.seed = 7;
            check_ways(&w, r, bw_model_get_info(w.model)->has_mtp ? 3 : 0);
        }
        finish_all(&w);
        close_world(&w);
    }
    check_that(counts.preemptions > 0, "it never had to give way: the test has too much memory");
}

TESTS_MAIN(ENTRY(a_request_is_answered_alike_alone_in_a_crowd_cached_and_cold),
           ENTRY(random_arrivals_aborts_and_evictions_change_no_bit))
