/* What the prefix cache supplies is what would have been computed: tokens, bits of the logits, and the
 * drafts (the rounds of every answer), so the head's cache is right too. And who gives its memory away
 * gets the same answer later. On random tiny models and lamb. */
#include "lib/runs.h"

#include <stdlib.h>

#include "base/mem.h"
#include "lib/tiny_model.h"

enum { CONTEXT = 400, CACHE = 256 << 20 };

static void for_models(void (*visit)(bw_model *model))
{
    for (int i = 0; i < 5; i++) {
        tiny_shape shape;
        bw_model *model = open_model(i < 4 ? tiny_model(&shape) : repo_path("models/lamb"), NULL, 2, BW_ACTIVATIONS_AUTO);
        visit(model);
        bw_model_close(model);
    }
}

static bw_engine *open_cached(bw_model *model, int max_seqs, int contexts, uint64_t cache_memory)
{
    bw_engine *engine;
    bw_error err;
    bw_engine_options options = { .context = CONTEXT, .chunk = 512, .max_seqs = max_seqs, .max_waiting = 64,
                                  .cache_memory = cache_memory };
    if (contexts > 0) {
        bw_memory_plan plan;
        check_ok(bw_engine_plan(model, &options, &plan, &err), err);
        options.kv_memory = plan.kv / (uint64_t)max_seqs * (uint64_t)contexts;
    }
    check_ok(bw_engine_create(&engine, model, &options, &err), err);
    return engine;
}

static void random_ids(const bw_model *model, int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        ids[i] = rnd_int(0, bw_model_get_info(model)->n_tokens - 1);
}

static bw_request seeded_request(const bw_model *model, const int32_t *ids, int n, int answer)
{
    bw_request r = greedy_request(model, ids, n, answer);
    r.draft = bw_model_get_info(model)->has_mtp ? rnd_int(0, 4) : BW_DRAFT_OFF;
    if (rnd_int(0, 1)) {
        r.sampling.temperature = 1;
        r.sampling.seed = rnd_u64();
        r.sampling.presence_penalty = rnd_int(0, 1) ? 0.5f : 0;
        r.sampling.repetition_penalty = rnd_int(0, 1) ? 1.1f : 1;
    }
    return r;
}

static void check_same_rounds(const run *got, const run *want, const char *what)
{
    check_same_run(got, want, what);
    check_that(got->n_events == want->n_events && memcmp(got->sizes, want->sizes, sizeof *got->sizes * (size_t)got->n_events) == 0,
               "%s: other drafts were accepted, so the head saw another past", what);
}

static void visit_turns(bw_model *model)
{
    run *want = calloc(1, sizeof *want), *got = calloc(1, sizeof *got);
    int32_t ids[CONTEXT];
    for (int round = 0; round < (sanitized() ? 3 : 8); round++) {
        bw_engine *plain = open_cached(model, 1, 0, 0), *cached = open_cached(model, 2, 0, CACHE);
        int n = rnd_int(0, 2) ? rnd_int(3, 200) : 64 * rnd_int(1, 3) + rnd_int(0, 1);
        random_ids(model, ids, n);
        int known = 0;
        for (int turn = 0; turn < 3; turn++) {
            const int answer = rnd_int(1, 30), more = rnd_int(2, 30);
            bw_request r = seeded_request(model, ids, n, answer);
            const int mark = rnd_int(1, n - 1);
            r.marks = &mark;
            r.n_marks = 1;
            run_request(plain, &r, want);
            check_int(want->usage.cached_tokens, 0);
            check_int(want->usage.miss, BW_MISS_OFF);
            run_request(cached, &r, got);
            check_same_rounds(got, want, "first sighting");
            check_int(got->usage.cached_tokens, known);
            run_request(cached, &r, got);
            check_same_rounds(got, want, "second sighting");
            check_int(got->usage.cached_tokens, mark > known ? mark : known);
            check_int(got->usage.prompt_tokens, n);
            /* the next turn: the answer, then something new */
            memcpy(ids + n, want->tokens, sizeof *ids * (size_t)want->n_tokens);
            known = n + want->n_tokens - 1;
            n += want->n_tokens;
            random_ids(model, ids + n, more);
            n += more;
        }
        bw_engine_destroy(plain);
        bw_engine_destroy(cached);
    }
    free(want), free(got);
}

TEST(later_turns_begin_where_the_answer_before_ended_and_nothing_changes)
{
    for_models(visit_turns);
}

/* One prompt, then others that leave it at every place around a page's border. */
static void visit_forks(bw_model *model)
{
    run *want = calloc(1, sizeof *want), *got = calloc(1, sizeof *got);
    int32_t ids[CONTEXT], fork[CONTEXT];
    bw_engine *plain = open_cached(model, 1, 0, 0), *cached = open_cached(model, 8, 0, CACHE);
    random_ids(model, ids, 200);
    const int marks[] = { 1, 63, 64, 65, 127, 128, 129, 190 };
    bw_request r = greedy_request(model, ids, 200, 4);
    r.draft = bw_model_get_info(model)->has_mtp ? 3 : 0;
    r.marks = marks;
    r.n_marks = (int)BW_COUNT(marks);
    run_request(cached, &r, got);
    for (size_t i = 0; i < BW_COUNT(marks); i++)
        for (int away = 0; away < 2; away++) {
            const int at = marks[i] + away;
            memcpy(fork, ids, sizeof fork);
            fork[at] = (fork[at] + 1) % bw_model_get_info(model)->n_tokens;
            r.prompt = fork;
            r.max_tokens = 12;
            r.n_marks = 0;
            run_request(plain, &r, want);
            run_request(cached, &r, got);
            check_same_rounds(got, want, "a fork");
            check_that(got->usage.cached_tokens >= marks[i], "left at %d: %d tokens supplied, expected at least %d", at,
                       got->usage.cached_tokens, marks[i]);
            check_that(got->usage.cached_tokens <= at, "left at %d: %d tokens supplied", at, got->usage.cached_tokens);
        }
    bw_engine_destroy(plain);
    bw_engine_destroy(cached);
    free(want), free(got);
}

TEST(a_prompt_may_be_left_at_any_checkpoint)
{
    for_models(visit_forks);
}

/* Prompts without marks that share a beginning: the second shows where they part, the third begins there. */
static void visit_shared_beginnings(bw_model *model)
{
    run *want = calloc(1, sizeof *want), *got = calloc(1, sizeof *got);
    int32_t ids[CONTEXT];
    bw_engine *plain = open_cached(model, 1, 0, 0), *cached = open_cached(model, 8, 0, CACHE);
    random_ids(model, ids, 200);
    for (int i = 0; i < 4; i++) {
        for (int j = 150; j < 200; j++)
            ids[j] = j == 150 ? i : rnd_int(0, bw_model_get_info(model)->n_tokens - 1);
        bw_request r = seeded_request(model, ids, 200, 10);
        run_request(plain, &r, want);
        run_request(cached, &r, got);
        check_same_rounds(got, want, "a shared beginning");
        check_int(got->usage.cached_tokens, i < 2 ? 0 : 150);
        check_int(got->usage.miss, i == 1 ? BW_MISS_NO_CHECKPOINT : BW_MISS_DIFFERS);
        check_int(got->usage.miss_at, i == 0 ? 0 : 150);
    }
    bw_engine_destroy(plain);
    bw_engine_destroy(cached);
    free(want), free(got);
}

TEST(a_beginning_that_two_prompts_share_is_there_for_the_third)
{
    for_models(visit_shared_beginnings);
}

enum { MANY = 6 };

/* Six at a time in the memory of one context. */
static void visit_preemption(bw_model *model)
{
    static int32_t ids[MANY][CONTEXT];
    bw_request requests[MANY];
    run *want[MANY], *got[MANY];
    bw_error err;
    for (int use_cache = 0; use_cache < 2; use_cache++) {
        bw_engine *alone = open_cached(model, 1, 0, 0), *engine = open_cached(model, 6, 1, use_cache ? CACHE : 0);
        bw_seq_id id;
        int live = 0, n_preempted = 0;
        for (int i = 0; i < MANY; i++) {
            want[i] = calloc(1, sizeof(run));
            got[i] = calloc(1, sizeof(run));
            const int n = rnd_int(2, 80);
            random_ids(model, ids[i], n);
            requests[i] = seeded_request(model, ids[i], n, rnd_int(240, 300)); /* four pages at least, of seven */
            run_request(alone, &requests[i], want[i]);
            requests[i].user = got[i];
            check_ok(bw_engine_submit(engine, &requests[i], &id, &err), err);
            live++;
        }
        for (int step = 0; live > 0; step++) {
            bw_mem_fail_at(1); /* a step must not allocate */
            check_ok(bw_engine_step(engine, &err), err);
            check(!bw_mem_fail_at(0));
            n_preempted += bw_engine_get_step(engine)->n_preempted;
            for (bw_event event; bw_engine_event(engine, &event);) {
                keep_event(event.user, &event);
                live -= event.finish != BW_FINISH_NONE;
            }
            check(step < 8000);
        }
        check_that(n_preempted > 0, "nobody had to give way: the test has too much memory");
        for (int i = 0; i < MANY; i++) {
            check_same_run(got[i], want[i], use_cache ? "with a cache" : "without a cache");
            free(want[i]), free(got[i]);
        }
        bw_engine_stats stats;
        bw_engine_get_stats(engine, &stats);
        check_int(stats.running + stats.waiting, 0);
        check_int(stats.pages_running, 0);
        check_int(stats.preemptions, n_preempted);
        bw_engine_destroy(alone);
        bw_engine_destroy(engine);
    }
}

TEST(who_gives_way_gets_the_same_answer_later)
{
    for_models(visit_preemption);
}

TESTS_MAIN(ENTRY(later_turns_begin_where_the_answer_before_ended_and_nothing_changes),
           ENTRY(a_prompt_may_be_left_at_any_checkpoint),
           ENTRY(a_beginning_that_two_prompts_share_is_there_for_the_third), ENTRY(who_gives_way_gets_the_same_answer_later))
