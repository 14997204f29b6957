/* A small draft vocabulary changes how many drafts are right, never a byte; and which drafts are made is a matter of
 * the sequence alone: the rounds are the same beside others. */
#include "lib/runs.h"

#include <stdlib.h>

#include "lib/tiny_model.h"

enum { CONTEXT = 400, PROMPT = 60, ANSWER = 50 };

static bw_engine *engine_with(bw_model *model, int draft_vocab, int max_seqs)
{
    bw_error err;
    bw_engine *engine;
    bw_engine_options options = bw_engine_defaults();
    options.context = CONTEXT;
    options.max_seqs = max_seqs;
    options.draft_vocab = draft_vocab;
    check_ok(bw_engine_create(&engine, model, &options, &err), err);
    return engine;
}

static bw_request random_request(const bw_model *model, const int32_t *ids, int n)
{
    bw_request r = greedy_request(model, ids, n, ANSWER);
    r.draft = rnd_int(1, 4);
    if (rnd_int(0, 1)) {
        r.sampling.temperature = 0.7f;
        r.sampling.seed = rnd_u64();
        r.sampling.top_k = rnd_int(0, 1) ? 10 : 0;
        r.sampling.repetition_penalty = rnd_int(0, 1) ? 1.1f : 1;
    }
    return r;
}

static void random_prompt(int32_t *ids, int n, int below)
{
    for (int i = 0; i < n; i++)
        ids[i] = rnd_int(0, below - 1);
}

static void check_same_rounds(const run *a, const run *b)
{
    check_int(a->n_events, b->n_events);
    for (int i = 0; i < a->n_events; i++)
        check_int(a->sizes[i], b->sizes[i]);
    check_int(a->usage.drafted, b->usage.drafted);
}

TEST(the_answer_is_the_same_from_any_part_of_the_vocabulary)
{
    run *want = calloc(1, sizeof *want), *got = calloc(1, sizeof *got);
    for (int i = 0; i < 6; i++) {
        tiny_shape shape;
        bw_model *model = open_model(tiny_model(&shape), NULL, 2, BW_ACTIVATIONS_AUTO);
        int32_t ids[PROMPT];
        random_prompt(ids, PROMPT, shape.vocab);
        bw_request r = random_request(model, ids, PROMPT);
        const int sizes[] = { 16, 20, 48, 1 << 20 }, resolved[] = { 16, 32, 48, shape.vocab };
        for (int k = 0; k < 4; k++) {
            bw_engine *engine = engine_with(model, sizes[k], 1);
            if (resolved[k] < shape.vocab - 16)
                check_int(bw_engine_get_plan(engine)->draft_vocab, resolved[k]);
            r.draft = k ? rnd_int(1, 4) : 0;
            run_request(engine, &r, k ? got : want);
            if (k)
                check_same_run(got, want, "a part of the vocabulary");
            bw_engine_destroy(engine);
        }
        bw_model_close(model);
    }
    free(want), free(got);
}

/* The prompt holds every token, so that with room for all in the list nothing is missing: the drafts are those of the
 * whole vocabulary. With a short prompt they are not: fewer are right. */
TEST(tokens_of_the_prompt_are_drafted)
{
    run *whole = calloc(1, sizeof *whole), *part = calloc(1, sizeof *part);
    int64_t fewer = 0;
    for (int i = 0; i < 6; i++) {
        tiny_shape shape;
        bw_model *model = open_model(tiny_model(&shape), NULL, 2, BW_ACTIVATIONS_AUTO);
        int32_t ids[200];
        for (int k = 0; k < shape.vocab; k++)
            ids[k] = k;
        bw_engine *all = engine_with(model, 1 << 20, 1), *few = engine_with(model, 16, 1);
        bw_request r = random_request(model, ids, shape.vocab);
        run_request(all, &r, whole);
        run_request(few, &r, part);
        check_same_rounds(part, whole);
        random_prompt(ids, 5, 16);
        r.n_prompt = 5;
        run_request(all, &r, whole);
        run_request(few, &r, part);
        check_same_run(part, whole, "short prompt");
        for (int j = 0; j < BW_MAX_DRAFTS; j++)
            fewer += whole->usage.accepted_by_position[j] - part->usage.accepted_by_position[j];
        bw_engine_destroy(all), bw_engine_destroy(few);
        bw_model_close(model);
    }
    check_that(fewer > 0, "%lld drafts fewer were right", (long long)fewer);
    free(whole), free(part);
}

TEST(rounds_do_not_depend_on_company)
{
    enum { SEQS = 4 };
    run *alone[SEQS], *beside[SEQS];
    for (int i = 0; i < SEQS; i++) {
        alone[i] = calloc(1, sizeof **alone);
        beside[i] = calloc(1, sizeof **beside);
    }
    tiny_shape shape;
    bw_error err;
    bw_model *model = open_model(tiny_model(&shape), NULL, 2, BW_ACTIVATIONS_AUTO);
    bw_engine *one = engine_with(model, 16, 1), *many = engine_with(model, 16, SEQS);
    int32_t ids[SEQS][PROMPT];
    for (int i = 0; i < SEQS; i++) {
        bw_seq_id id;
        random_prompt(ids[i], PROMPT, shape.vocab);
        bw_request r = random_request(model, ids[i], rnd_int(5, PROMPT));
        run_request(one, &r, alone[i]);
        r.user = beside[i];
        check_ok(bw_engine_submit(many, &r, &id, &err), err);
    }
    while (!bw_engine_idle(many)) {
        check_ok(bw_engine_step(many, &err), err);
        for (bw_event event; bw_engine_event(many, &event);)
            keep_event(event.user, &event);
    }
    for (int i = 0; i < SEQS; i++) {
        check_same_run(beside[i], alone[i], "beside others");
        check_same_rounds(beside[i], alone[i]);
        free(alone[i]), free(beside[i]);
    }
    bw_engine_destroy(one), bw_engine_destroy(many);
    bw_model_close(model);
}

/* One that wants the head's logits makes the whole vocabulary's for all, in that step alone. */
TEST(an_evaluation_beside_it_does_not_change_the_rounds_after_its_first_token)
{
    run *alone = calloc(1, sizeof *alone), *beside = calloc(1, sizeof *beside), *eval = calloc(1, sizeof *eval);
    for (int i = 0; i < 6; i++) {
        tiny_shape shape;
        bw_error err;
        bw_seq_id id;
        bw_model *model = open_model(tiny_model(&shape), NULL, 2, BW_ACTIVATIONS_AUTO);
        bw_engine *one = engine_with(model, 16, 1), *two = engine_with(model, 16, 2);
        float *logits = calloc(2 * (size_t)bw_model_get_info(model)->vocab, sizeof *logits);
        int32_t ids[PROMPT], short_ids[5];
        random_prompt(ids, PROMPT, shape.vocab);
        random_prompt(short_ids, 5, 16);
        bw_request r = random_request(model, short_ids, 5), e = greedy_request(model, ids, PROMPT, 4 * ANSWER);
        run_request(one, &r, alone);
        *beside = *eval = (run){ 0 };
        e.draft = 1;
        e.n_draft_logits = 2;
        e.draft_logits = logits;
        e.user = eval;
        r.user = beside;
        check_ok(bw_engine_submit(two, &e, &id, &err), err);
        for (bool started = false; !bw_engine_idle(two);) {
            check_ok(bw_engine_step(two, &err), err);
            for (bw_event event; bw_engine_event(two, &event);)
                keep_event(event.user, &event);
            if (!started && eval->n_tokens > 0) {
                check_ok(bw_engine_submit(two, &r, &id, &err), err);
                started = true;
            }
        }
        check_int(eval->n_tokens, 4 * ANSWER);
        check_same_run(beside, alone, "beside an evaluation");
        check_same_rounds(beside, alone);
        bw_engine_destroy(one), bw_engine_destroy(two);
        bw_model_close(model);
        free(logits);
    }
    free(alone), free(beside), free(eval);
}

TESTS_MAIN(ENTRY(the_answer_is_the_same_from_any_part_of_the_vocabulary), ENTRY(tokens_of_the_prompt_are_drafted),
           ENTRY(rounds_do_not_depend_on_company),
           ENTRY(an_evaluation_beside_it_does_not_change_the_rounds_after_its_first_token))
