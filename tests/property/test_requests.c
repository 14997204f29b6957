/* What the engine refuses, and what its events and plans say. */
#include "lib/runs.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "lib/tiny_model.h"

static bw_model *lamb(void)
{
    return open_model(repo_path("models/lamb"), NULL, 2, BW_ACTIVATIONS_AUTO);
}

TEST(requests_that_cannot_be_served_are_refused_before_they_start)
{
    bw_model *model = lamb();
    bw_engine *engine = open_engine(model, 64, 0, 1, BW_KV_F16);
    bw_error err;
    bw_seq_id id;
    int32_t ids[80] = { 1, 2, 3 };
    const bw_request good = greedy_request(model, ids, 3, 4);
    bw_request r = good;
#define REFUSED(status, ...)                                                                      \
    check_error(bw_engine_submit(engine, &r, &id, &err), status, err, __VA_ARGS__);               \
    r = good
    r.n_prompt = 0;
    REFUSED(BW_E_ARGUMENT, "prompt", "empty");
    r.n_prompt = 64;
    REFUSED(BW_E_LIMIT, "64 tokens", "context of 64");
    ids[1] = 8256;
    REFUSED(BW_E_ARGUMENT, "8256", "place 1", "vocabulary");
    ids[1] = -1;
    REFUSED(BW_E_ARGUMENT, "-1");
    ids[1] = 2;
    r.draft = 9;
    REFUSED(BW_E_ARGUMENT, "draft", "9");
    r.sampling.temperature = -1;
    REFUSED(BW_E_ARGUMENT, "temperature", "-1");
    r.sampling.temperature = NAN;
    REFUSED(BW_E_ARGUMENT, "temperature");
    r.sampling.top_p = 0;
    REFUSED(BW_E_ARGUMENT, "top_p");
    r.sampling.repetition_penalty = 0;
    REFUSED(BW_E_ARGUMENT, "repetition_penalty");
    r.sampling.presence_penalty = 3;
    REFUSED(BW_E_ARGUMENT, "presence_penalty", "3");
    r.n_stop_tokens = 1;
    r.stop_tokens = NULL;
    REFUSED(BW_E_ARGUMENT, "stop tokens");
    r.n_stop_tokens = -1;
    REFUSED(BW_E_ARGUMENT, "stop tokens", "-1");
    r.n_logprobs = 21;
    REFUSED(BW_E_ARGUMENT, "logprobs", "21");
    check(bw_engine_idle(engine));
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(a_model_without_a_head_runs_but_does_not_draft)
{
    tiny_shape shape = tiny_random_shape();
    shape.mtp = false;
    tiny_write(temp_dir(), &shape);
    bw_model *model = open_model(temp_dir(), NULL, 1, BW_ACTIVATIONS_AUTO);
    check(!bw_model_get_info(model)->has_mtp);
    check(strstr(bw_model_get_info(model)->mtp_note, "no mtp.* tensors"));
    bw_engine *engine = open_engine(model, 64, 0, 1, BW_KV_F16);
    bw_error err;
    bw_seq_id id;
    int32_t ids[] = { 1, 2, 3 };
    bw_request r = greedy_request(model, ids, 3, 4);
    r.draft = 2;
    check_error(bw_engine_submit(engine, &r, &id, &err), BW_E_ARGUMENT, err, "draft", "mtp.*");
    r.draft = BW_DRAFT_AUTO;
    static run out;
    run_request(engine, &r, &out);
    check_int(out.n_tokens, 4);
    check_int(out.usage.verifies, 0);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(the_context_may_be_filled_to_its_last_token)
{
    tiny_shape shape;
    bw_model *model = sanitized() ? open_model(tiny_model(&shape), NULL, 2, BW_ACTIVATIONS_AUTO) : lamb();
    const int n_tokens = bw_model_get_info(model)->n_tokens;
    for (int context = 2; context < 140; context += 23)
        for (int draft = BW_DRAFT_AUTO; draft <= 8; draft += 3) {
            bw_engine *engine = open_engine(model, context, 0, 1, BW_KV_F16);
            int32_t ids[140];
            for (int i = 0; i < context; i++)
                ids[i] = rnd_int(0, n_tokens - 1);
            static run out;
            for (int n = 1; n < context; n += 1 + context / 5) {
                bw_request r = greedy_request(model, ids, n, -1);
                r.draft = draft;
                run_request(engine, &r, &out);
                check_int(out.n_tokens, context - n);
                check_int(out.finish, BW_FINISH_LENGTH);
            }
            bw_request r = greedy_request(model, ids, context, 0); /* evaluation needs no room for an answer */
            run_request(engine, &r, &out);
            check_int(out.n_tokens, 0);
            bw_engine_destroy(engine);
        }
    bw_model_close(model);
}

TEST(nothing_comes_after_a_cancel)
{
    bw_model *model = lamb();
    bw_engine *engine = open_engine(model, 64, 0, 2, BW_KV_F16);
    bw_error err;
    bw_seq_id gone, stays;
    int32_t ids[] = { 1, 2, 3 };
    const bw_request r = greedy_request(model, ids, 3, 4);
    check_ok(bw_engine_submit(engine, &r, &gone, &err), err);
    check_ok(bw_engine_submit(engine, &r, &stays, &err), err);
    check_ok(bw_engine_step(engine, &err), err);
    check(bw_engine_cancel(engine, gone));
    check(!bw_engine_cancel(engine, gone));
    bw_event event;
    check(bw_engine_event(engine, &event) && event.id == stays && event.n_tokens == 1);
    check(!bw_engine_event(engine, &event));
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(evaluation_does_not_make_a_sequence_draft)
{
    bw_model *model = lamb();
    bw_engine *engine = open_engine(model, 64, 0, 1, BW_KV_F16);
    int32_t ids[] = { 1, 2, 3 };
    float *logits = malloc(sizeof(float) * 8 * 8256);
    bw_request r = greedy_request(model, ids, 3, 20);
    r.draft_logits = logits;
    r.n_draft_logits = 8;
    static run out;
    run_request(engine, &r, &out);
    check_int(out.usage.verifies, 0);
    check_int(out.usage.drafted, 0);
    free(logits);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

/* A copy of lamb with one value of a matrix replaced by infinity. */
TEST(damaged_weights_end_in_a_message_not_in_gibberish)
{
    char path[4096], folder[4096];
    snprintf(folder, sizeof folder, "%s/damaged", temp_dir());
    check(mkdir(folder, 0700) == 0);
    static const char *const files[] = { "config.json", "generation_config.json", "model.safetensors" };
    for (size_t i = 0; i < BW_COUNT(files); i++) {
        size_t n;
        snprintf(path, sizeof path, "models/lamb/%s", files[i]);
        char *data = read_file(repo_path(path), &n);
        if (i == 2) {
            char *entry = strstr(data + 8, "\"model.language_model.layers.3.mlp.down_proj.weight\"");
            uint64_t header, begin;
            memcpy(&header, data, 8);
            check(entry && sscanf(strstr(entry, "data_offsets"), "data_offsets\":[%lu", &begin) == 1);
            memcpy(data + 8 + header + begin + 1000, "\x80\x7F", 2);
        }
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        FILE *f = fopen(path, "wb");
        check(f && fwrite(data, 1, n, f) == n && fclose(f) == 0);
        free(data);
    }
    bw_model *model = open_model(folder, NULL, 2, BW_ACTIVATIONS_AUTO);
    bw_engine *engine = open_engine(model, 64, 0, 1, BW_KV_F16);
    bw_error err;
    bw_seq_id id;
    int32_t ids[] = { 1, 2, 3 };
    float logprobs[3];
    bw_request r = greedy_request(model, ids, 3, 4);
    check_ok(bw_engine_submit(engine, &r, &id, &err), err);
    check_error(bw_engine_step(engine, &err), BW_E_FORMAT, err, folder, "position 2", "damaged", "sha256");
    check(bw_engine_idle(engine));
    r.max_tokens = 0;
    r.prompt_logprobs = logprobs;
    check_ok(bw_engine_submit(engine, &r, &id, &err), err);
    check_error(bw_engine_step(engine, &err), BW_E_FORMAT, err, folder, "damaged");
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(a_stop_token_ends_the_answer_wherever_it_was_accepted)
{
    bw_model *model = lamb();
    bw_engine *engine = open_engine(model, 300, 0, 1, BW_KV_F16);
    int32_t ids[] = { 40, 41, 42 };
    static run all, cut;
    bw_request r = greedy_request(model, ids, 3, 60);
    run_request(engine, &r, &all);
    for (int at = 0; at < 60; at += sanitized() ? 29 : 7) {
        r.draft = 4;
        r.stop_tokens = &all.tokens[at];
        r.n_stop_tokens = 1;
        run_request(engine, &r, &cut);
        check_int(cut.finish, BW_FINISH_STOP);
        check_int(cut.tokens[cut.n_tokens - 1], all.tokens[at]);
        for (int i = 0; i + 1 < cut.n_tokens; i++)
            check(cut.tokens[i] == all.tokens[i] && cut.tokens[i] != all.tokens[at]);
    }
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(prompt_logprobs_and_alternatives_are_the_softmax_of_prompt_logits)
{
    bw_model *model = lamb();
    bw_engine *engine = open_engine(model, 300, 16, 1, BW_KV_F32);
    enum { N = 50, V = 8256 };
    int32_t ids[N];
    for (int i = 0; i < N; i++)
        ids[i] = rnd_int(0, 8000);
    static run out;
    float *logits = malloc(sizeof(float) * N * V), logprobs[N];
    bw_request r = greedy_request(model, ids, N, 0);
    r.prompt_logits = logits;
    r.prompt_logprobs = logprobs;
    bw_logprob top[N][3];
    r.prompt_top = top[0];
    r.n_logprobs = 3;
    run_request(engine, &r, &out);
    check_int(out.n_tokens, 0);
    const int n_tokens = bw_model_get_info(model)->n_tokens;
    for (int i = 1; i < N; i++) {
        double sum = 0, most = -INFINITY;
        for (int v = 0; v < V; v++) /* rows that are no tokens count too */
            most = fmax(most, (double)logits[(i - 1) * V + v]);
        for (int v = 0; v < V; v++)
            sum += exp((double)logits[(i - 1) * V + v] - most);
        const double want = (double)logits[(i - 1) * V + ids[i]] - most - log(sum);
        check_that(fabs(want - (double)logprobs[i]) < 1e-4, "row %d: %g, expected %g", i, (double)logprobs[i], want);
        for (int k = 0; k < 3; k++) {
            const float x = logits[(i - 1) * V + top[i][k].token];
            int n_before = 0;
            for (int v = 0; v < n_tokens; v++)
                n_before += logits[(i - 1) * V + v] > x || (logits[(i - 1) * V + v] == x && v < top[i][k].token);
            check_that(n_before == k, "row %d: alternative %d is the one at rank %d", i, k, n_before);
            check(fabs((double)x - most - log(sum) - (double)top[i][k].logprob) < 1e-4);
            check(top[i][k].token != ids[i] || same_bits(&top[i][k].logprob, &logprobs[i], 1));
        }
    }
    check(logprobs[0] == 0);
    free(logits);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(the_plan_is_what_is_taken)
{
    bw_model *model = NULL;
    bw_error err;
    for (int i = 0; i < 4; i++) {
        bw_model_close(model);
        model = open_model(repo_path("models/lamb"), NULL, 1 + 3 * i, BW_ACTIVATIONS_AUTO);
        const bw_engine_options o = { .context = rnd_int(100, 3000), .max_seqs = rnd_int(1, 5), .chunk = 64,
                                      .no_drafts = i == 3, .kv = i & 1 ? BW_KV_F32 : BW_KV_F16,
                                      .cache_memory = (uint64_t[]){ 0, 2 << 20, 50 << 20, 80 << 20 }[i] };
        bw_memory_plan plan;
        check_ok(bw_engine_plan(model, &o, &plan, &err), err);
        const uint64_t kv = bw_mem_used(BW_MEM_KV), state = bw_mem_used(BW_MEM_STATE), scratch = bw_mem_used(BW_MEM_SCRATCH),
                       cache = bw_mem_used(BW_MEM_CACHE);
        bw_engine *engine;
        check_ok(bw_engine_create(&engine, model, &o, &err), err);
        check_int(bw_mem_used(BW_MEM_KV) - kv, plan.kv);
        check_int(bw_mem_used(BW_MEM_STATE) - state, plan.state);
        check_int(bw_mem_used(BW_MEM_CACHE) - cache, plan.cache);
        check_int(plan.total, plan.weights + plan.kv + plan.state + plan.scratch + plan.cache);
        check_int(bw_mem_used(BW_MEM_SCRATCH) - scratch, plan.scratch);
        check(memcmp(&plan, bw_engine_get_plan(engine), sizeof plan) == 0);
        bw_engine_destroy(engine);
        check_int(bw_mem_used(BW_MEM_SCRATCH), scratch);
    }
    const bw_engine_options huge = { .context = 40000 };
    bw_memory_plan plan;
    check_error(bw_engine_plan(model, &huge, &plan, &err), BW_E_LIMIT, err, "40000", "32768");
    check_ok(bw_engine_plan(model, NULL, &plan, &err), err);
    const bw_engine_options little = { .cache_memory = plan.checkpoint_bytes - 1 };
    check_error(bw_engine_plan(model, &little, &plan, &err), BW_E_LIMIT, err, "cache memory", "one saved state", "or 0");
    const bw_engine_options much = { .cache_memory = UINT64_MAX, .max_seqs = 4096 }; /* no sum may wrap */
    check_ok(bw_engine_plan(model, &much, &plan, &err), err);
    check(plan.total > plan.cache && plan.total > plan.kv && plan.cache > 65536 * (plan.checkpoint_bytes - 1));
    const bw_engine_options many = { .context = 32768, .max_seqs = 4000 };
    bw_engine *engine;
    check_error(bw_engine_create(&engine, model, &many, &err), BW_E_MEMORY, err, "KV cache", "free", "at most");
    bw_model_close(model);
}

TEST(opening_survives_every_failed_allocation)
{
    tiny_shape shape = tiny_random_shape();
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", tiny_model(&shape));
    bool failed = true;
    int n = 1;
    for (; failed; n += 1 + n / (sanitized() ? 5 : 20)) { /* every one at first, then sparser: there are thousands */
        bw_model *model = NULL;
        bw_engine *engine = NULL;
        bw_error err = { 0 };
        const bw_model_options options = { .n_threads = 2 };
        const bw_engine_options small = { .context = 64 };
        bw_mem_fail_at(n);
        bw_status st = bw_model_open(&model, folder, &options, &err);
        if (!st)
            st = bw_engine_create(&engine, model, &small, &err);
        failed = bw_mem_fail_at(0);
        check_that((st != BW_OK) == failed, "allocation %d: %s", n, bw_status_name(st));
        check_that(!failed || st == BW_E_MEMORY, "allocation %d: %s: %s", n, bw_status_name(st), err.message);
        bw_engine_destroy(engine);
        bw_model_close(model);
    }
    check(n > 20);
}

TESTS_MAIN(ENTRY(requests_that_cannot_be_served_are_refused_before_they_start),
           ENTRY(a_model_without_a_head_runs_but_does_not_draft), ENTRY(the_context_may_be_filled_to_its_last_token),
           ENTRY(nothing_comes_after_a_cancel), ENTRY(evaluation_does_not_make_a_sequence_draft),
           ENTRY(damaged_weights_end_in_a_message_not_in_gibberish), ENTRY(a_stop_token_ends_the_answer_wherever_it_was_accepted),
           ENTRY(prompt_logprobs_and_alternatives_are_the_softmax_of_prompt_logits), ENTRY(the_plan_is_what_is_taken),
           ENTRY(opening_survives_every_failed_allocation))
