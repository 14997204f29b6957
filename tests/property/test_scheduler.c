/* Who runs when: waiting in order, prefill in shares beside decoding, the same prompt once, places that
 * are given up and taken again. On random tiny models; but for the time of scheduling only steps are tested. */
#include "lib/runs.h"

#include <stdlib.h>
#include <time.h>

#include "engine/engine.h"
#include "lib/tiny_model.h"

enum { CONTEXT = 1000, MANY = 32 };

static bw_model *tiny(void)
{
    tiny_shape shape;
    const char *path;
    do
        path = tiny_model(&shape);
    while (!shape.mtp);
    return open_model(path, NULL, 2, BW_ACTIVATIONS_AUTO);
}

static bw_engine *open(bw_model *model, int max_seqs, uint64_t cache, int min_prefill)
{
    bw_engine *engine;
    bw_error err;
    /* a gap nothing keeps, so that prefill beside decoding is cut to its least */
    const bw_engine_options options = { .context = CONTEXT, .max_seqs = max_seqs, .max_waiting = 64, .cache_memory = cache,
                                        .decode_gap_s = 1e-7, .min_prefill = min_prefill };
    check_ok(bw_engine_create(&engine, model, &options, &err), err);
    return engine;
}

static int32_t ids[MANY][CONTEXT];

static bw_request request(const bw_model *model, int i, int n, int answer)
{
    for (int j = 0; j < n; j++)
        ids[i][j] = rnd_int(0, bw_model_get_info(model)->n_tokens - 1);
    bw_request r = greedy_request(model, ids[i], n, answer);
    r.n_logprobs = -1;
    return r;
}

static bw_seq_id submit(bw_engine *engine, const bw_request *r)
{
    bw_seq_id id;
    bw_error err;
    check_ok(bw_engine_submit(engine, r, &id, &err), err);
    return id;
}

/* One step; tokens of sequence i go to count[i] (user is its index + 1). Returns the index of the last that finished, or -1. */
static int step(bw_engine *engine, int *count)
{
    bw_error err;
    int finished = -1;
    check_ok(bw_engine_step(engine, &err), err);
    for (bw_event event; bw_engine_event(engine, &event);) {
        const int i = (int)(intptr_t)event.user - 1;
        count[i] += event.n_tokens;
        if (event.finish != BW_FINISH_NONE)
            finished = i;
    }
    return finished;
}

TEST(those_that_wait_start_by_priority_and_then_age)
{
    bw_model *model = tiny();
    bw_engine *engine = open(model, 1, 0, 0);
    static const int priorities[] = { 0, 5, 0, -1, 5, -1, 0 }, order[] = { 3, 5, 0, 2, 6, 1, 4 };
    int count[7] = { 0 };
    for (int i = 0; i < 7; i++) {
        bw_request r = request(model, i, 10, 3);
        r.priority = priorities[i];
        r.user = (void *)(intptr_t)(i + 1);
        submit(engine, &r);
    }
    bw_engine_stats stats;
    bw_engine_get_stats(engine, &stats);
    check_int(stats.waiting, 7);
    check_int(stats.waiting_tokens, 70);
    for (int k = 0; k < 7; k++) {
        int done;
        while ((done = step(engine, count)) < 0)
            ;
        check_int(done, order[k]);
    }
    check(bw_engine_idle(engine));
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(a_long_prompt_takes_its_least_beside_decoding_and_stalls_nobody)
{
    bw_model *model = tiny();
    bw_engine *engine = open(model, 4, 0, 16);
    int count[4] = { 0 };
    for (int i = 0; i < 3; i++) {
        bw_request r = request(model, i, 5, 500);
        r.user = (void *)(intptr_t)(i + 1);
        submit(engine, &r);
    }
    while (count[0] < 4 || count[1] < 4 || count[2] < 4)
        step(engine, count);
    bw_request r = request(model, 3, 600, 5);
    r.user = (void *)(intptr_t)4;
    submit(engine, &r);
    int steps = 0;
    for (; count[3] == 0; steps++) {
        int before[3] = { count[0], count[1], count[2] };
        step(engine, count);
        const bw_step_info *info = bw_engine_get_step(engine);
        check_int(info->prefill_rows, steps < 37 ? 16 : 600 - 37 * 16);
        check_int(info->decode_rows, 3);
        check_int(info->rows, info->prefill_rows + info->decode_rows + info->draft_rows);
        for (int i = 0; i < 3; i++)
            check_that(count[i] > before[i], "sequence %d got nothing in step %d", i, steps);
    }
    check_int(steps, 38);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(a_short_prompt_overtakes_a_long_one_but_not_for_ever)
{
    bw_model *model = tiny();
    bw_engine *engine = open(model, 4, 0, 64);
    int count[4] = { 0 };
    bw_request r = request(model, 0, 5, 900);
    r.user = (void *)(intptr_t)1;
    submit(engine, &r);
    while (count[0] < 2)
        step(engine, count);
    r = request(model, 1, 900, 1);
    r.user = (void *)(intptr_t)2;
    submit(engine, &r);
    step(engine, count);
    int n_short = 0, steps = 0;
    for (; count[1] == 0; steps++) { /* a new short prompt as soon as the last is done */
        if (n_short == count[2]) {
            r = request(model, 2, 64, 1);
            r.user = (void *)(intptr_t)3;
            submit(engine, &r);
            n_short++;
        }
        step(engine, count);
        check_that(steps < 100, "the long prompt starves");
        if (steps == 0)
            check_int(count[2], 1); /* before the long one's 836 */
    }
    check_that(n_short > 8, "only %d short prompts came before the long one", n_short);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(the_same_prompt_many_times_is_computed_once)
{
    bw_model *model = tiny();
    bw_engine *engine = open(model, 8, 64 << 20, 0);
    int count[8] = { 0 };
    static const int marks[] = { 200, 390 };
    bw_request r = request(model, 0, 400, 6);
    r.marks = marks;
    r.n_marks = 2;
    for (int i = 0; i < 8; i++) {
        r.user = (void *)(intptr_t)(i + 1);
        submit(engine, &r);
    }
    int64_t prefill_rows = 0;
    for (int steps = 0; !bw_engine_idle(engine); steps++) {
        step(engine, count);
        prefill_rows += bw_engine_get_step(engine)->prefill_rows;
        check(steps < 1000);
    }
    check_int(prefill_rows, 400 + 7 * 10);
    for (int i = 0; i < 8; i++)
        check_int(count[i], 6);
    bw_engine_stats stats;
    bw_engine_get_stats(engine, &stats);
    check_int(stats.cached_tokens, 7 * 390);
    check_int(stats.prompt_tokens, 8 * 400);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(a_paused_sequence_gives_its_place_to_one_that_waits_and_goes_on_later)
{
    bw_model *model = tiny();
    run *want = calloc(1, sizeof *want);
    bw_engine *engine = open(model, 1, 16 << 20, 0);
    bw_request a = request(model, 0, 30, 40), b = request(model, 1, 30, 10);
    run_request(engine, &a, want);
    int32_t got[40];
    int n_got = 0, count[2] = { 0 };
    bw_error err;
    a.no_cache = true;
    a.user = (void *)(intptr_t)1;
    b.user = (void *)(intptr_t)2;
    const bw_seq_id id = submit(engine, &a);
    bool resumed = false;
    for (int steps = 0; n_got < 40; steps++) {
        check(steps < 500);
        if (steps == 15) {
            check(bw_engine_pause(engine, id, true));
            check(bw_engine_idle(engine));
            submit(engine, &b);
        }
        if (steps >= 15 && !resumed && bw_engine_idle(engine)) {
            check_int(count[1], 10);
            bw_seq_info info;
            check_int(bw_engine_list(engine, &info, 1), 1);
            check_int(info.state, BW_SEQ_PAUSED);
            check_int(info.usage.preemptions, 1);
            check(bw_engine_pause(engine, id, false));
            resumed = true;
        }
        check_ok(bw_engine_step(engine, &err), err);
        for (bw_event event; bw_engine_event(engine, &event);) {
            if (event.id == id)
                memcpy(got + n_got, event.tokens, sizeof *got * (size_t)event.n_tokens);
            n_got += event.id == id ? event.n_tokens : 0;
            count[1] += event.id == id ? 0 : event.n_tokens;
            check_that(event.id != id || steps < 15 || resumed, "a paused sequence was computed");
        }
    }
    check(memcmp(got, want->tokens, sizeof got) == 0);
    bw_engine_destroy(engine);
    bw_model_close(model);
    free(want);
}

TEST(a_fixed_number_of_drafts_is_kept_however_many_run)
{
    bw_model *model = tiny();
    for (int n_seqs = 1; n_seqs <= MANY; n_seqs *= 2) {
        bw_engine *engine = open(model, n_seqs, 0, 0);
        int count[MANY] = { 0 }, most = 0;
        for (int i = 0; i < n_seqs; i++) {
            bw_request r = request(model, i, 5, 30);
            r.draft = BW_MAX_DRAFTS;
            r.user = (void *)(intptr_t)(i + 1);
            submit(engine, &r);
        }
        while (!bw_engine_idle(engine)) {
            step(engine, count);
            const bw_step_info *info = bw_engine_get_step(engine);
            most = info->draft_rows > most ? info->draft_rows : most;
        }
        check_int(most, n_seqs * BW_MAX_DRAFTS);
        bw_engine_destroy(engine);
    }
    bw_model_close(model);
}

/* The guard sees committed tokens: its verdict falls at the same token with drafts and after a preemption. */
TEST(an_answer_that_loops_ends_at_the_same_token_however_it_was_computed)
{
    bw_model *model = tiny();
    run *out = calloc(1, sizeof *out);
    const bw_logit_bias always = { 7, 1e4f };
    bw_request r = request(model, 0, 20, 600);
    r.logit_bias = &always;
    r.n_logit_bias = 1;
    r.loop_guard = true;
    bw_engine *engine = open(model, 2, 0, 0);
    for (r.draft = 0; r.draft <= 4; r.draft += 2) {
        run_request(engine, &r, out);
        check_int(out->finish, BW_FINISH_LOOP);
        check_int(out->n_tokens, BW_LOOP_TOKENS + 1);
    }
    r.loop_guard = false;
    run_request(engine, &r, out);
    check_int(out->n_tokens, 600);
    r.loop_guard = true;
    bw_engine_destroy(engine);

    engine = open(model, 1, 0, 0); /* paused for another in the middle, so computed again */
    bw_request other = request(model, 1, 5, 3);
    int count[2] = { 0 };
    r.user = (void *)(intptr_t)1;
    other.user = (void *)(intptr_t)2;
    const bw_seq_id id = submit(engine, &r);
    while (count[0] < 100)
        step(engine, count);
    bw_engine_pause(engine, id, true);
    submit(engine, &other);
    while (count[1] < 3)
        step(engine, count);
    bw_engine_pause(engine, id, false);
    while (!bw_engine_idle(engine))
        step(engine, count);
    check_int(count[0], BW_LOOP_TOKENS + 1);
    bw_engine_destroy(engine);
    bw_model_close(model);
    free(out);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The prompts are alike to their last ten tokens, so all wait behind the first while places are free. */
TEST(thousands_that_wait_do_not_slow_the_steps_of_those_that_run)
{
    enum { WAITING = 2000, PROMPT = 900 };
    bw_model *model = tiny();
    bw_engine *engine;
    bw_error err;
    bw_memory_plan plan;
    bw_engine_options options = { .context = CONTEXT, .max_seqs = 8, .max_waiting = WAITING, .max_rows = 64 };
    check_ok(bw_engine_plan(model, &options, &plan, &err), err);
    options.cache_memory = 4 * plan.checkpoint_bytes + 256;
    check_ok(bw_engine_create(&engine, model, &options, &err), err);
    const int marks[] = { PROMPT - 10 };
    int count[1] = { 0 };
    for (int i = 0; i < 6; i++) { /* so that the cache has something, and has lost something */
        bw_request earlier = request(model, 1, 100, 1);
        earlier.user = (void *)(intptr_t)1;
        submit(engine, &earlier);
        while (!bw_engine_idle(engine))
            step(engine, count);
    }
    bw_request r = request(model, 0, PROMPT, 2);
    r.marks = marks;
    r.n_marks = 1;
    for (int i = 0; i < WAITING; i++) {
        ids[0][PROMPT - 1] = i % bw_model_get_info(model)->n_tokens;
        submit(engine, &r);
    }
    double most = 0;
    for (int steps = 0; steps < 5; steps++) {
        check_ok(bw_engine_step(engine, &err), err);
        double least = 1;
        for (int i = 0; i < 3; i++) { /* planned again: nothing has changed; the quickest says what it takes */
            const double start = cpu_seconds();
            bw_schedule(engine);
            const double seconds = cpu_seconds() - start;
            least = seconds < least ? seconds : least;
        }
        most = least > most ? least : most;
    }
    bw_engine_stats stats;
    bw_engine_get_stats(engine, &stats);
    check(stats.evictions > 0);
    check_int(stats.running, 1);
    check_int(stats.waiting, WAITING - 1);
    check_that(sanitized() || most < 2e-3, "scheduling took %.3f ms of a step", most * 1e3);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(only_those_start_whose_prompts_find_room)
{
    bw_model *model = tiny();
    bw_engine *engine;
    bw_error err;
    bw_memory_plan plan;
    bw_engine_options options = { .context = CONTEXT, .max_seqs = 6, .max_rows = 118 };
    check_ok(bw_engine_plan(model, &options, &plan, &err), err);
    options.kv_memory = plan.kv / 3; /* two full contexts */
    check_ok(bw_engine_create(&engine, model, &options, &err), err);
    int count[6] = { 0 }, most = 0;
    for (int i = 0; i < 6; i++) {
        bw_request r = request(model, i, 900, 10);
        r.user = (void *)(intptr_t)(i + 1);
        submit(engine, &r);
    }
    bw_engine_stats stats;
    while (!bw_engine_idle(engine)) {
        step(engine, count);
        bw_engine_get_stats(engine, &stats);
        most = stats.running > most ? stats.running : most;
    }
    check_int(most, 2);
    check_int(stats.preemptions, 0);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

/* What many begin with takes memory once: they run together though their prompts would not fit side by side. */
TEST(those_that_share_their_beginning_run_together)
{
    bw_model *model = tiny();
    bw_engine *engine;
    bw_error err;
    bw_memory_plan plan;
    bw_engine_options options = { .context = CONTEXT, .max_seqs = 6, .cache_memory = 64 << 20 };
    check_ok(bw_engine_plan(model, &options, &plan, &err), err);
    options.kv_memory = plan.kv / 3;
    check_ok(bw_engine_create(&engine, model, &options, &err), err);
    const int marks[] = { 850 };
    int count[6] = { 0 }, most = 0;
    bw_request r = request(model, 0, 900, 20);
    r.marks = marks;
    r.n_marks = 1;
    for (int i = 0; i < 6; i++) {
        ids[0][890] = i;
        r.user = (void *)(intptr_t)(i + 1);
        submit(engine, &r);
    }
    bw_engine_stats stats;
    while (!bw_engine_idle(engine)) {
        step(engine, count);
        bw_engine_get_stats(engine, &stats);
        most = stats.running > most ? stats.running : most;
    }
    check_int(most, 6);
    check_int(stats.preemptions, 0);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

/* Paused after n tokens for another that takes its place, so computed again from its first token on. */
static void run_interrupted(bw_engine *engine, bw_request r, const bw_request *other, int n)
{
    int count[2] = { 0 };
    bw_request between = *other;
    r.user = (void *)(intptr_t)1;
    between.user = (void *)(intptr_t)2;
    const bw_seq_id id = submit(engine, &r);
    while (count[0] < n)
        step(engine, count);
    check(bw_engine_pause(engine, id, true));
    submit(engine, &between);
    while (count[1] < between.max_tokens)
        step(engine, count);
    check(bw_engine_pause(engine, id, false));
    while (!bw_engine_idle(engine))
        step(engine, count);
    check_int(count[0], r.max_tokens);
}

TEST(an_evaluation_that_gave_way_is_of_the_prompt_alone)
{
    enum { PROMPT = 30, ANSWER = CONTEXT - PROMPT, DRAFTS = 4 };
    bw_model *model = tiny();
    bw_engine *engine = open(model, 1, 0, 0);
    const size_t vocab = (size_t)bw_model_get_info(model)->vocab;
    float *want = calloc((PROMPT + DRAFTS) * vocab, sizeof *want);
    run *out = calloc(1, sizeof *out);
    bw_request r = request(model, 0, PROMPT, 1), other = request(model, 1, 5, 3);
    r.draft = DRAFTS;
    r.n_draft_logits = DRAFTS;
    r.prompt_logits = want;
    r.draft_logits = want + PROMPT * vocab;
    run_request(engine, &r, out);
    r.max_tokens = ANSWER;
    for (int at = 2; at < ANSWER; at += ANSWER - 5) { /* early, and where DRAFTS more do not fit the context */
        float *got = calloc(PROMPT * vocab, sizeof *got), *got_drafts = calloc(DRAFTS * vocab, sizeof *got);
        r.prompt_logits = got;
        r.draft_logits = got_drafts;
        run_interrupted(engine, r, &other, at);
        check(memcmp(got, want, PROMPT * vocab * sizeof *got) == 0);
        check(memcmp(got_drafts, want + PROMPT * vocab, DRAFTS * vocab * sizeof *got) == 0);
        free(got);
        free(got_drafts);
    }
    bw_engine_destroy(engine);
    bw_model_close(model);
    free(want);
    free(out);
}

TESTS_MAIN(ENTRY(those_that_wait_start_by_priority_and_then_age),
           ENTRY(a_long_prompt_takes_its_least_beside_decoding_and_stalls_nobody),
           ENTRY(a_short_prompt_overtakes_a_long_one_but_not_for_ever), ENTRY(the_same_prompt_many_times_is_computed_once),
           ENTRY(a_paused_sequence_gives_its_place_to_one_that_waits_and_goes_on_later),
           ENTRY(a_fixed_number_of_drafts_is_kept_however_many_run),
           ENTRY(an_answer_that_loops_ends_at_the_same_token_however_it_was_computed),
           ENTRY(an_evaluation_that_gave_way_is_of_the_prompt_alone),
           ENTRY(thousands_that_wait_do_not_slow_the_steps_of_those_that_run), ENTRY(only_those_start_whose_prompts_find_room),
           ENTRY(those_that_share_their_beginning_run_together))
