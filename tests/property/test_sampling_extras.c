/* Biases, early stops held back, thinking budgets, the loop guard: what they promise, and that nothing the engine
 * decides (drafts right or wrong, fixed or chosen, the batch, the cut of the prompt) changes a byte. */
#include "lib/runs.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "lib/tiny_model.h"

enum { CONTEXT = 300, PROMPT = 60, ANSWER = 50 };

static bw_model *tiny(tiny_shape *shape)
{
    *shape = tiny_random_shape();
    shape->mtp = true;
    char folder[4096];
    static int n;
    snprintf(folder, sizeof folder, "%s/extras-%d", temp_dir(), n++);
    check(mkdir(folder, 0700) == 0);
    tiny_write(folder, shape);
    return open_model(folder, NULL, 2, BW_ACTIVATIONS_AUTO);
}

/* What a request of this file points to. */
typedef struct extras {
    int32_t prompt[PROMPT], stops[16], think_end[BW_MAX_FORCED];
    bw_logit_bias biases[40];
    int n_vocab;
} extras;

/* Each of the three in half of the requests; stop tokens that would often come. */
static bw_request random_request(const bw_model *model, extras *x, bw_engine *engine)
{
    const int n_tokens = bw_model_get_info(model)->n_tokens, n_prompt = rnd_int(1, PROMPT);
    x->n_vocab = n_tokens;
    for (int i = 0; i < n_prompt; i++)
        x->prompt[i] = rnd_int(0, n_tokens - 1);
    bw_request r = greedy_request(model, x->prompt, n_prompt, ANSWER);
    r.sampling.temperature = rnd_int(0, 2) ? 1 : 0;
    r.sampling.seed = rnd_u64();
    r.sampling.presence_penalty = rnd_int(0, 2) ? 0 : 0.5f;
    run *plain = calloc(1, sizeof *plain);
    run_request(engine, &r, plain);
    if (rnd_int(0, 1)) {
        r.logit_bias = x->biases;
        r.n_logit_bias = rnd_int(1, 40);
        for (int i = 0; i < r.n_logit_bias; i++)
            x->biases[i] = (bw_logit_bias){ (i * 7 + r.n_logit_bias) % n_tokens, 2 * rnd_float() };
        if (n_tokens < 40 * 7)
            r.n_logit_bias = 1;
    }
    if (rnd_int(0, 1)) {
        r.stop_tokens = x->stops;
        r.n_stop_tokens = rnd_int(1, 16);
        for (int i = 0; i < r.n_stop_tokens; i++)
            x->stops[i] = plain->tokens[rnd_int(0, plain->n_tokens - 1)];
        r.min_tokens = rnd_int(0, ANSWER + 5);
    }
    if (rnd_int(0, 1)) {
        r.think_budget = rnd_int(0, ANSWER);
        r.think_end_token = rnd_int(0, 1) ? plain->tokens[rnd_int(0, plain->n_tokens - 1)] : 0;
        r.think_end = x->think_end;
        r.n_think_end = rnd_int(1, BW_MAX_FORCED);
        for (int i = 0; i < r.n_think_end; i++)
            x->think_end[i] = rnd_int(0, n_tokens - 1);
    }
    free(plain);
    return r;
}

static bool is_stop(const bw_request *r, int32_t token)
{
    for (int i = 0; i < r->n_stop_tokens; i++)
        if (r->stop_tokens[i] == token)
            return true;
    return false;
}

/* What the request promises, of the answer alone. */
static void check_promises(const bw_request *r, const run *got)
{
    bool ended = false;
    for (int i = 0; i < r->think_budget && i < got->n_tokens; i++)
        ended |= got->tokens[i] == r->think_end_token;
    for (int i = 0; i < got->n_tokens; i++) {
        const int at = i - r->think_budget;
        const bool forced = r->think_budget >= 0 && !ended && at >= 0 && at < r->n_think_end;
        if (forced)
            check_int(got->tokens[i], r->think_end[at]);
        else if (i < r->min_tokens)
            check(!is_stop(r, got->tokens[i]));
        check(!is_stop(r, got->tokens[i]) || i == got->n_tokens - 1);
    }
    check_int(got->finish, is_stop(r, got->tokens[got->n_tokens - 1]) ? BW_FINISH_STOP : BW_FINISH_LENGTH);
    check(got->finish == BW_FINISH_STOP || got->n_tokens == r->max_tokens);
}

/* Drafts that are wrong, right by chance, or what the request would force. */
static void spoil_drafts(void *arg, int64_t position, int32_t *drafts, int n)
{
    const extras *x = arg;
    for (int i = 0; i < n; i++)
        if ((position + i) % 3 != 0)
            drafts[i] = (position + i) % 3 == 1 ? (int32_t)((position * 31 + i) % x->n_vocab)
                                                : x->think_end[(position + i) % BW_MAX_FORCED];
}

TEST(drafts_batches_and_cuts_change_nothing_of_biased_held_and_forced_answers)
{
    enum { MANY = 6 };
    for (int round = 0; round < (sanitized() ? 2 : 6); round++) {
        tiny_shape shape;
        bw_model *model = tiny(&shape);
        static extras x[MANY];
        bw_request requests[MANY];
        run *want[MANY], *got = calloc(1, sizeof *got), *together = calloc(MANY, sizeof *together);
        bw_engine *alone = open_engine(model, CONTEXT, 0, 1, BW_KV_F16);
        bw_engine *cut = open_engine(model, CONTEXT, 7, 1, BW_KV_F16);
        memset(x, 0, sizeof x);
        for (int i = 0; i < MANY; i++) {
            want[i] = calloc(1, sizeof *want[i]);
            requests[i] = random_request(model, &x[i], alone);
            run_request(alone, &requests[i], want[i]);
            check_promises(&requests[i], want[i]);
            for (int d = BW_DRAFT_AUTO; d <= BW_MAX_DRAFTS; d += d < 1 ? 1 : 2) {
                requests[i].draft = d;
                run_request(alone, &requests[i], got);
                check_same_run(got, want[i], "drafts");
                requests[i].force_drafts = spoil_drafts;
                requests[i].force_arg = &x[i];
                run_request(cut, &requests[i], got);
                check_same_run(got, want[i], "spoilt drafts, a cut prompt");
                requests[i].force_drafts = NULL;
            }
        }
        bw_engine *engine = open_engine(model, CONTEXT, 16, MANY, BW_KV_F16);
        bw_seq_id id;
        bw_error err;
        for (int i = 0; i < MANY; i++) {
            requests[i].user = &together[i];
            check_ok(bw_engine_submit(engine, &requests[i], &id, &err), err);
        }
        while (!bw_engine_idle(engine)) {
            check_ok(bw_engine_step(engine, &err), err);
            for (bw_event event; bw_engine_event(engine, &event);)
                keep_event(event.user, &event);
        }
        for (int i = 0; i < MANY; i++) {
            check_same_run(&together[i], want[i], "in a batch");
            free(want[i]);
        }
        free(got), free(together);
        bw_engine_destroy(alone), bw_engine_destroy(cut), bw_engine_destroy(engine);
        bw_model_close(model);
    }
}

TEST(a_bias_moves_what_it_should_and_no_log_probability)
{
    tiny_shape shape;
    bw_model *model = tiny(&shape);
    bw_engine *engine = open_engine(model, CONTEXT, 0, 1, BW_KV_F16);
    int32_t ids[] = { 1, 2, 3 };
    static run plain, biased;
    bw_request r = greedy_request(model, ids, 3, 20);
    run_request(engine, &r, &plain);
    const int32_t other = (plain.tokens[0] + 1) % bw_model_get_info(model)->n_tokens;
    r.logit_bias = &(bw_logit_bias){ other, 1000 };
    r.n_logit_bias = 1;
    r.draft = 3;
    run_request(engine, &r, &biased);
    for (int i = 0; i < 20; i++)
        check_int(biased.tokens[i], other);
    check(memcmp(biased.top[0], plain.top[0], sizeof plain.top[0]) == 0);
    r.logit_bias = &(bw_logit_bias){ plain.tokens[0], -1000 };
    run_request(engine, &r, &biased);
    for (int i = 0; i < 20; i++)
        check(biased.tokens[i] != plain.tokens[0]);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(a_loop_is_ended_at_the_same_token_however_it_was_computed)
{
    tiny_shape shape;
    bw_model *model = tiny(&shape);
    bw_engine *engine = open_engine(model, CONTEXT, 0, 1, BW_KV_F16);
    int32_t ids[] = { 1, 2, 3 };
    static run out;
    const bw_logit_bias always = { 7, 1000 };
    bw_request r = greedy_request(model, ids, 3, 280);
    r.logit_bias = &always;
    r.n_logit_bias = 1;
    for (int draft = 0; draft <= BW_MAX_DRAFTS; draft++) {
        r.draft = draft;
        r.loop_guard = false;
        run_request(engine, &r, &out);
        check_int(out.finish, BW_FINISH_LENGTH);
        check_int(out.n_tokens, 280);
        r.loop_guard = true;
        run_request(engine, &r, &out);
        check_int(out.finish, BW_FINISH_LOOP);
        check_int(out.n_tokens, 257); /* said once, then 256 times again */
        r.min_tokens = 270;
        run_request(engine, &r, &out);
        check_int(out.finish, BW_FINISH_LOOP);
        check_int(out.n_tokens, 270);
        r.min_tokens = 0;
    }
    r.max_tokens = 256;
    run_request(engine, &r, &out);
    check_int(out.finish, BW_FINISH_LENGTH);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(extras_that_make_no_sense_are_refused)
{
    tiny_shape shape;
    bw_model *model = tiny(&shape);
    bw_engine *engine = open_engine(model, CONTEXT, 0, 1, BW_KV_F16);
    const int vocab = bw_model_get_info(model)->vocab;
    int32_t ids[64] = { 1 };
    bw_error err;
    const bw_request good = greedy_request(model, ids, 3, 4);
    bw_logit_bias two[] = { { 3, 1 }, { 3, 2 } }, *many = calloc(BW_MAX_LOGIT_BIAS + 1, sizeof *many);
    bw_request r = good;
#define REFUSED(...) check_error(bw_engine_check(engine, &r, &err), BW_E_ARGUMENT, err, __VA_ARGS__), r = good
    r.logit_bias = two, r.n_logit_bias = 2;
    REFUSED("logit_bias", "id 3", "twice");
    r.logit_bias = many, r.n_logit_bias = BW_MAX_LOGIT_BIAS + 1;
    REFUSED("logit_bias", "1025", "0 to 1024");
    r.n_logit_bias = 1;
    REFUSED("logit_bias", "no address");
    r.logit_bias = &(bw_logit_bias){ vocab, 1 }, r.n_logit_bias = 1;
    REFUSED("logit_bias", "outside the vocabulary");
    r.logit_bias = &(bw_logit_bias){ 1, __builtin_inff() }, r.n_logit_bias = 1;
    REFUSED("logit_bias", "id 1 is inf");
    r.min_tokens = -1;
    REFUSED("min_tokens", "-1");
    r.min_tokens = 1, r.stop_tokens = ids, r.n_stop_tokens = BW_MAX_FORCED + 1;
    REFUSED("min_tokens", "16 stop tokens", "has 17");
    r.think_end = ids, r.n_think_end = BW_MAX_FORCED + 1;
    REFUSED("think_end", "17 tokens", "0 to 16");
    r.n_think_end = 2;
    REFUSED("think_end", "no address");
    r.think_end = &vocab, r.n_think_end = 1;
    REFUSED("think_end", "outside the vocabulary");
    r.think_end = ids, r.n_think_end = 1, r.think_budget = 0, r.think_end_token = -1;
    REFUSED("think_end_token", "id -1");
    r.marks = (int[]){ 1, 1 }, r.n_marks = 2;
    REFUSED("marks", "position 1 at place 1");
    r.marks = (int[]){ 3 }, r.n_marks = 1;
    REFUSED("marks", "1 to 2");
    r.n_marks = -1;
    REFUSED("marks", "-1");
    r.min_tokens = __INT_MAX__, r.stop_tokens = ids, r.n_stop_tokens = BW_MAX_FORCED, r.think_budget = __INT_MAX__;
    r.think_end = ids, r.n_think_end = 1;
    check_ok(bw_engine_check(engine, &r, &err), err); /* no sum overflows */
    static run out;
    run_request(engine, &r, &out);
    check_int(out.n_tokens, 4);
    free(many);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TESTS_MAIN(ENTRY(drafts_batches_and_cuts_change_nothing_of_biased_held_and_forced_answers),
           ENTRY(a_bias_moves_what_it_should_and_no_log_probability),
           ENTRY(a_loop_is_ended_at_the_same_token_however_it_was_computed), ENTRY(extras_that_make_no_sense_are_refused))
