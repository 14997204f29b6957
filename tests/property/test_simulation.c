/* What a measurement imposes: acceptance comes out as it was imposed, with the books of a real verify; a depth that
 * was never computed is held, used and given back as one that was. Both are marked. */
#include "lib/runs.h"

#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/simulate.h"
#include "lib/tiny_model.h"

enum { CONTEXT = 1024 };

static bw_model *tiny_drafting_model(void)
{
    tiny_shape shape = tiny_random_shape();
    shape.mtp = true;
    static char folder[300];
    snprintf(folder, sizeof folder, "%s", temp_dir());
    tiny_write(folder, &shape);
    return open_model(folder, NULL, 1, BW_ACTIVATIONS_AUTO);
}

/* ---- acceptance ---------------------------------------------------------------------------------- */

static void generate(bw_engine *e, const int32_t *prompt, int n_prompt, int n_tokens, int draft, run *out)
{
    bw_request r = greedy_request(e->model, prompt, n_prompt, n_tokens);
    r.draft = draft;
    r.n_logprobs = -1;
    memset(out, 0, sizeof *out);
    run_request(e, &r, out);
}

/* Every verify gives its accepted drafts and one token; the first token is the prompt's. */
static void check_books(const run *r, int n_tokens)
{
    int64_t accepted = 0;
    for (int j = 0; j < BW_MAX_DRAFTS; j++)
        accepted += r->usage.accepted_by_position[j];
    check_int(r->n_tokens, n_tokens);
    check_int(r->usage.generated_tokens, n_tokens);
    check_int(r->usage.decode_steps + accepted + 1, n_tokens);
    check_int(r->n_events, r->usage.decode_steps + 1);
    check(r->usage.verifies <= r->usage.decode_steps);
}

static void check_shares(bw_model *model, const double *shares, int n_shares, int draft)
{
    enum { ANSWER = 900 };
    const int n_runs = sanitized() ? 1 : 4;
    int64_t verifies = 0, accepted[BW_MAX_DRAFTS] = { 0 };
    bw_engine *e = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
    bw_error err;
    run *got = malloc(sizeof *got);
    check_ok(bw_simulate_accept(e, shares, n_shares, 7, &err), err);
    for (int i = 0; i < n_runs; i++) {
        generate(e, (const int32_t[]){ 1, 2, 3 }, 3, ANSWER, draft, got);
        check_books(got, ANSWER);
        check(got->usage.simulated);
        verifies += got->usage.verifies;
        for (int j = 0; j < BW_MAX_DRAFTS; j++)
            accepted[j] += got->usage.accepted_by_position[j];
    }
    /* The last verifies of a run have fewer drafts, at most `draft` of them. */
    for (int j = 0; j < draft; j++) {
        const double want = bw_simulate_share(shares, n_shares, j + 1), n = (double)verifies;
        const double bound = 4.5 * sqrt(n * want * (1 - want)) + n_runs * draft;
        check_that(fabs((double)accepted[j] - n * want) <= bound, "draft %d of %d: %lld of %lld accepted, share %g", j + 1, draft,
                   (long long)accepted[j], (long long)verifies, want);
    }
    for (int j = draft; j < BW_MAX_DRAFTS; j++)
        check_int(accepted[j], 0);
    free(got);
    bw_engine_destroy(e);
}

TEST(imposed_shares_come_out_with_exact_books)
{
    bw_model *model = tiny_drafting_model();
    check_shares(model, (const double[]){ 0.87, 0.65, 0.39 }, 3, 3);
    check_shares(model, (const double[]){ 0.87, 0.65, 0.39 }, 3, 1);
    check_shares(model, (const double[]){ 0.87, 0.65, 0.39 }, 3, 8); /* goes on by 0.39 / 0.65 */
    check_shares(model, (const double[]){ 0.8 }, 1, 4);
    check_shares(model, (const double[]){ 0 }, 1, 2);
    check_shares(model, (const double[]){ 1 }, 1, 5);
    check_shares(model, (const double[]){ 0.5, 0 }, 2, 4);
    bw_model_close(model);
}

TEST(shares_go_on_by_the_last_ratio)
{
    const double three[] = { 0.8, 0.4, 0.1 }, zero[] = { 0, 0 };
    check(bw_simulate_share(three, 3, 1) == 0.8 && bw_simulate_share(three, 3, 3) == 0.1);
    check(fabs(bw_simulate_share(three, 3, 5) - 0.1 / 16) < 1e-12);
    check(fabs(bw_simulate_share(three, 1, 3) - 0.512) < 1e-12);
    check(bw_simulate_share(zero, 2, 8) == 0);
}

/* Shares of 1 with fixed drafts put these into the answer; the tokens between them are what the model says after
 * all that stands before them. */
typedef struct forcer {
    int32_t n_tokens;
    int64_t n_forced;
} forcer;

static int32_t forced_token(const forcer *f, int64_t position)
{
    return (int32_t)((position * 7 + 3) % f->n_tokens);
}

static void force(void *arg, int64_t position, int32_t *drafts, int n)
{
    forcer *f = arg;
    for (int j = 0; j < n; j++)
        drafts[j] = forced_token(f, position + j);
    f->n_forced += n;
}

TEST(accepted_drafts_stand_in_the_answer_and_the_next_token_follows_from_them)
{
    enum { PROMPT = 5, ANSWER = 120 };
    bw_model *model = tiny_drafting_model();
    const bw_model_info *info = bw_model_get_info(model);
    bw_engine *e = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
    bw_error err;
    run *got = calloc(1, sizeof *got), *again = calloc(1, sizeof *again);
    int32_t all[PROMPT + ANSWER] = { 4, 3, 2, 1, 0 };
    forcer f = { info->n_tokens, 0 };
    check_ok(bw_simulate_accept(e, (const double[]){ 0.9, 0.7, 0.5 }, 3, 1, &err), err);
    bw_request r = greedy_request(model, all, PROMPT, ANSWER);
    r.draft = 3;
    r.force_drafts = force;
    r.force_arg = &f;
    run_request(e, &r, got);
    check_books(got, ANSWER);
    memcpy(all + PROMPT, got->tokens, sizeof got->tokens[0] * ANSWER);
    float *logits = malloc((size_t)info->vocab * (PROMPT + ANSWER) * sizeof *logits);
    r = greedy_request(model, all, PROMPT + ANSWER, 1);
    r.prompt_logits = logits;
    run_request(e, &r, again);
    int at = 0, n_accepted = 0;
    for (int i = 0; i < got->n_events; i++)
        for (int j = 0; j < got->sizes[i]; j++, at++) {
            if (j + 1 < got->sizes[i]) { /* a draft */
                check_int(got->tokens[at], forced_token(&f, PROMPT + at));
                n_accepted++;
                continue;
            }
            const float *row = logits + (size_t)(PROMPT + at - 1) * (size_t)info->vocab;
            for (int32_t id = 0; id < info->n_tokens; id++)
                check_that(row[id] <= row[got->tokens[at]], "token %d after %d tokens is not what the model says", got->tokens[at], at);
        }
    check(n_accepted > 10 && f.n_forced > n_accepted);
    free(logits);
    free(got);
    free(again);
    bw_engine_destroy(e);
    bw_model_close(model);
}

TEST(a_seed_repeats_acceptance_and_no_shares_end_it)
{
    bw_model *model = tiny_drafting_model();
    bw_error err;
    run *runs = calloc(4, sizeof *runs);
    const double shares[] = { 0.7, 0.4 };
    for (int i = 0; i < 3; i++) {
        bw_engine *e = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
        check_ok(bw_simulate_accept(e, shares, 2, i == 2 ? 6 : 5, &err), err);
        generate(e, (const int32_t[]){ 9, 8 }, 2, 300, 2, &runs[i]);
        bw_engine_destroy(e);
    }
    check(runs[0].n_events == runs[1].n_events && memcmp(runs[0].sizes, runs[1].sizes, sizeof runs[0].sizes) == 0);
    check(memcmp(runs[0].sizes, runs[2].sizes, sizeof runs[0].sizes) != 0);
    bw_engine *e = open_engine(model, CONTEXT, 512, 1, BW_KV_F16), *plain = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
    check_ok(bw_simulate_accept(e, shares, 2, 5, &err), err);
    generate(e, (const int32_t[]){ 9, 8 }, 2, 100, 2, &runs[0]);
    check_ok(bw_simulate_accept(e, NULL, 0, 0, &err), err);
    generate(e, (const int32_t[]){ 9, 8 }, 2, 100, 2, &runs[1]);
    generate(plain, (const int32_t[]){ 9, 8 }, 2, 100, 2, &runs[2]);
    check(runs[0].usage.simulated && !runs[1].usage.simulated && !runs[2].usage.simulated);
    check_same_run(&runs[1], &runs[2], "after the end of the imposition");
    check(runs[1].n_events == runs[2].n_events);
    /* Without drafts there is nothing to impose, and nothing is marked. */
    check_ok(bw_simulate_accept(e, shares, 2, 5, &err), err);
    generate(e, (const int32_t[]){ 9, 8 }, 2, 100, 0, &runs[0]);
    check(!runs[0].usage.simulated);
    check_same_run(&runs[0], &runs[2], "without drafts");
    free(runs);
    bw_engine_destroy(e);
    bw_engine_destroy(plain);
    bw_model_close(model);
}

/* Sequences of a batch draw each for itself, and steps say whether something was imposed in them. */
TEST(sequences_of_a_batch_draw_each_for_itself)
{
    enum { SEQS = 4, ANSWER = 200 };
    bw_model *model = tiny_drafting_model();
    bw_engine *e = open_engine(model, CONTEXT, 512, SEQS, BW_KV_F16);
    bw_error err;
    bw_event event;
    run *runs = calloc(SEQS, sizeof *runs);
    check_ok(bw_simulate_accept(e, (const double[]){ 0.6, 0.3, 0.2 }, 3, 11, &err), err);
    for (intptr_t i = 0; i < SEQS; i++) {
        bw_seq_id id;
        bw_request r = greedy_request(model, (const int32_t[]){ 1, 2, 3 }, 3, ANSWER);
        r.draft = i == 0 ? 0 : 3;
        r.user = (void *)i;
        check_ok(bw_engine_submit(e, &r, &id, &err), err);
    }
    while (!bw_engine_idle(e)) {
        check_ok(bw_engine_step(e, &err), err);
        check_int(bw_engine_get_step(e)->simulated, bw_engine_get_step(e)->draft_rows > 0);
        while (bw_engine_event(e, &event))
            keep_event(&runs[(intptr_t)event.user], &event);
    }
    for (int i = 0; i < SEQS; i++) {
        check_books(&runs[i], ANSWER);
        check_int(runs[i].usage.simulated, i > 0);
    }
    check(memcmp(runs[1].sizes, runs[2].sizes, sizeof runs[1].sizes) != 0);
    check(memcmp(runs[2].sizes, runs[3].sizes, sizeof runs[1].sizes) != 0);
    free(runs);
    bw_engine_destroy(e);
    bw_model_close(model);
}

static void count_line(void *arg, bw_log_level level, const char *line)
{
    (void)line;
    *(int *)arg += level == BW_LOG_WARNING;
}

TEST(a_head_is_not_blamed_for_what_was_imposed)
{
    bw_model *model = tiny_drafting_model();
    bw_engine *e = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
    bw_error err;
    int n_warnings = 0;
    run *got = malloc(sizeof *got);
    check_ok(bw_simulate_accept(e, (const double[]){ 0 }, 1, 1, &err), err);
    bw_log_to(count_line, &n_warnings);
    generate(e, (const int32_t[]){ 1, 2, 3 }, 3, 200, 2, got);
    bw_log_to(NULL, NULL);
    check_int(n_warnings, 0);
    free(got);
    bw_engine_destroy(e);
    bw_model_close(model);
}

TEST(shares_that_cannot_be_are_refused)
{
    bw_model *model = tiny_drafting_model();
    bw_engine *e = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
    bw_error err;
    check_error(bw_simulate_accept(e, (const double[]){ 1.1 }, 1, 1, &err), BW_E_ARGUMENT, err, "share 1 is 1.1, expected 0 to 1");
    check_error(bw_simulate_accept(e, (const double[]){ 0.5, 0.6 }, 2, 1, &err), BW_E_ARGUMENT, err, "share 2 is 0.6, expected 0 to 0.5");
    check_error(bw_simulate_accept(e, (const double[]){ -0.1 }, 1, 1, &err), BW_E_ARGUMENT, err, "share 1 is -0.1");
    check_error(bw_simulate_accept(e, (const double[]){ NAN }, 1, 1, &err), BW_E_ARGUMENT, err, "share 1 is");
    check_error(bw_simulate_accept(e, (const double[9]){ 0 }, 9, 1, &err), BW_E_ARGUMENT, err, "9 shares");
    check_error(bw_simulate_accept(e, (const double[9]){ 0 }, -1, 1, &err), BW_E_ARGUMENT, err, "-1 shares");
    for (long n = 1;; n++) {
        bw_mem_fail_at(n);
        const bw_status st = bw_simulate_accept(e, (const double[]){ 0.5 }, 1, 1, &err);
        if (!bw_mem_fail_at(0)) {
            check_ok(st, err);
            break;
        }
        check_int(st, BW_E_MEMORY);
    }
    bw_engine_destroy(e);
    bw_model_close(model);
}

/* ---- depth --------------------------------------------------------------------------------------- */

static void draw_prompt(int32_t *prompt, int n, int n_tokens)
{
    for (int i = 0; i < n; i++)
        prompt[i] = rnd_int(0, n_tokens - 1);
}

static bw_seq_id submit_deep(bw_engine *e, const int32_t *prompt, int n_prompt, int depth, int n_tokens, int draft, void *user)
{
    bw_seq_id id;
    bw_error err;
    bw_request r = greedy_request(e->model, prompt, n_prompt, n_tokens);
    r.draft = draft;
    r.user = user;
    check_ok(bw_engine_submit(e, &r, &id, &err), err);
    check_ok(bw_simulate_depth(e, id, depth, &err), err);
    return id;
}

static void run_all(bw_engine *e, run *runs)
{
    bw_event event;
    bw_error err;
    while (!bw_engine_idle(e)) {
        check_ok(bw_engine_step(e, &err), err); /* an error: something was not finite */
        while (bw_engine_event(e, &event))
            keep_event(&runs[(intptr_t)event.user], &event);
    }
}

static void check_given_back(const bw_engine *e)
{
    bw_engine_stats stats;
    bw_engine_get_stats(e, &stats);
    check_int(stats.pages_running, 0);
    check_int(stats.slots_running, 0);
    check_int(bw_pages_free(e->pages), e->n_pages - stats.pages_cached);
    check_int(bw_slots_free(e->slots), e->options.max_seqs);
}

TEST(a_simulated_depth_runs_on_with_and_without_drafts)
{
    enum { ANSWER = 40 };
    for (int round = 0; round < (sanitized() ? 3 : 6); round++) {
        bw_model *model = tiny_drafting_model();
        int32_t prompt[CONTEXT];
        run *runs = calloc(3, sizeof *runs);
        static const int drafts[] = { 0, 3, BW_DRAFT_AUTO };
        const int depth = round == 0 ? 1 : round == 1 ? 64 : round == 2 ? 128 : rnd_int(2, 900), rest = rnd_int(1, 80);
        draw_prompt(prompt, depth + rest, bw_model_get_info(model)->n_tokens);
        for (int i = 0; i < 3; i++) {
            bw_engine *e = open_engine(model, CONTEXT, 512, 1, round % 2 ? BW_KV_F32 : BW_KV_F16);
            bw_error err;
            submit_deep(e, prompt, depth + rest, depth, ANSWER, drafts[i], NULL);
            check_ok(bw_engine_step(e, &err), err);
            check_int(bw_engine_get_step(e)->prefill_rows, rest); /* of one step: nothing else is computed */
            check(bw_engine_get_step(e)->simulated);
            bw_event event;
            while (bw_engine_event(e, &event))
                keep_event(&runs[i], &event);
            run_all(e, &runs[i]);
            check_int(runs[i].n_tokens, ANSWER);
            check_int(runs[i].usage.prompt_tokens, depth + rest);
            check_int(runs[i].usage.cached_tokens, 0);
            check(runs[i].usage.simulated);
            check_given_back(e);
            if (i > 0)
                check_same_run(&runs[i], &runs[0], "drafts beside no drafts, at a simulated depth");
            bw_engine_destroy(e);
        }
        free(runs);
        bw_model_close(model);
    }
}

/* What is filled in must not stand where an operation wants zeros, and must be there. */
TEST(filled_states_and_pages_are_finite_and_not_zero)
{
    for (int round = 0; round < 4; round++) {
        bw_model *model = tiny_drafting_model();
        bw_engine *e = open_engine(model, CONTEXT, 512, 2, BW_KV_F32);
        const bw_gdn_shape *gdn = &e->net->gdn;
        const int depth = rnd_int(1, 500), tiles = (gdn->d_v + BW_GDN_TILE - 1) / BW_GDN_TILE;
        int32_t prompt[CONTEXT];
        bw_error err;
        draw_prompt(prompt, depth + 1, bw_model_get_info(model)->n_tokens);
        const bw_seq_id id = submit_deep(e, prompt, depth + 1, depth, 100, 0, NULL);
        bw_schedule(e); /* it starts; nothing is computed yet */
        const bw_sequence *s = &e->sequences[0];
        check(s->id == id && s->n_rows == depth && s->n_pages >= (depth + BW_PAGE - 1) / BW_PAGE);
        for (int l = 0; l < e->net->config->n_linear; l++) {
            const size_t n = (size_t)gdn->n_v_heads * (size_t)tiles * (size_t)gdn->d_k * BW_GDN_TILE;
            const float *state = bw_slots_layers(e->slots)[l].state + (size_t)s->slot * n;
            const size_t n_window = (size_t)(gdn->conv_width - 1) * (size_t)gdn->conv_dim;
            const float *window = bw_slots_layers(e->slots)[l].window + (size_t)s->slot * n_window;
            double square = 0, window_square = 0;
            for (size_t i = 0; i < n_window; i++)
                window_square += (double)window[i] * (double)window[i];
            check(window_square > 0.2 * (double)n_window && window_square < 4 * (double)n_window);
            for (size_t i = 0; i < n; i++) {
                const int column = (int)(i / ((size_t)gdn->d_k * BW_GDN_TILE)) % tiles * BW_GDN_TILE + (int)(i % BW_GDN_TILE);
                check_that(isfinite(state[i]) && (column < gdn->d_v || state[i] == 0), "state %zu of layer %d is %g", i, l, (double)state[i]);
                square += (double)state[i] * (double)state[i];
            }
            const double columns = (double)gdn->n_v_heads * gdn->d_v * gdn->d_k;
            check(square > 0.002 * columns && square < 0.04 * columns);
        }
        const size_t half = (size_t)bw_kv_layer_page_bytes(BW_CODEC_F32, &e->net->attn) / 2 / sizeof(float);
        for (int l = 0; l < bw_net_kv_layers(e->net, true); l++) {
            const float *k = bw_pages_layers(e->pages)[l].k, *v = bw_pages_layers(e->pages)[l].v;
            double square = 0;
            for (size_t i = 0; i < half; i++) {
                check(isfinite(k[(size_t)s->pages[0] * half + i]) && isfinite(v[(size_t)s->pages[0] * half + i]));
                square += (double)k[(size_t)s->pages[0] * half + i] * (double)k[(size_t)s->pages[0] * half + i];
            }
            check(square > 0.5 * (double)half && square < 2 * (double)half);
        }
        check_ok(bw_engine_step(e, &err), err);
        check(bw_engine_cancel(e, id));
        check_given_back(e);
        bw_engine_destroy(e);
        bw_model_close(model);
    }
}

TEST(many_sequences_at_many_depths_answer_as_alone)
{
    enum { SEQS = 6, ANSWER = 30 };
    bw_model *model = tiny_drafting_model();
    int32_t prompts[SEQS][CONTEXT];
    int depths[SEQS];
    run *alone = calloc(SEQS, sizeof *alone), *beside = calloc(SEQS, sizeof *beside);
    bw_engine *all = open_engine(model, CONTEXT, 512, SEQS, BW_KV_F16), *one = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
    for (intptr_t i = 0; i < SEQS; i++) {
        depths[i] = rnd_int(1, 900);
        draw_prompt(prompts[i], depths[i] + 2, bw_model_get_info(model)->n_tokens);
        submit_deep(one, prompts[i], depths[i] + 2, depths[i], ANSWER, 0, (void *)i);
        run_all(one, alone);
        submit_deep(all, prompts[i], depths[i] + 2, depths[i], ANSWER, (int)i % 4, (void *)i);
    }
    run_all(all, beside);
    for (int i = 0; i < SEQS; i++)
        check_same_run(&beside[i], &alone[i], "deep sequences beside each other");
    check_given_back(all);
    free(alone);
    free(beside);
    bw_engine_destroy(all);
    bw_engine_destroy(one);
    bw_model_close(model);
}

/* Pages for a context and a half: deep sequences wait for each other, give way to each other and start anew. */
TEST(deep_sequences_that_give_way_answer_all_the_same)
{
    enum { SEQS = 3, ANSWER = 300 };
    bw_model *model = tiny_drafting_model();
    int32_t prompts[SEQS][CONTEXT];
    run *want = calloc(SEQS, sizeof *want), *got = calloc(SEQS, sizeof *got);
    bw_error err;
    bw_memory_plan plan;
    bw_engine_options options = bw_engine_defaults();
    options.context = CONTEXT;
    options.max_seqs = SEQS;
    check_ok(bw_engine_plan(model, &options, &plan, &err), err);
    options.kv_memory = plan.kv / 2;
    options.cache_memory = 8 * plan.checkpoint_bytes;
    bw_engine *tight, *wide = open_engine(model, CONTEXT, 512, SEQS, BW_KV_F16);
    check_ok(bw_engine_create(&tight, model, &options, &err), err);
    run *first = calloc(1, sizeof *first); /* fills the prefix cache, which has to give way */
    int32_t other[700];
    draw_prompt(other, 700, bw_model_get_info(model)->n_tokens);
    bw_request r = greedy_request(model, other, 700, 4);
    run_request(tight, &r, first);
    bw_engine_stats before, after;
    bw_engine_get_stats(tight, &before);
    check(before.pages_cached > 0);
    for (intptr_t i = 0; i < SEQS; i++) {
        const int depth = 200 + 64 * (int)i;
        draw_prompt(prompts[i], depth + 1, bw_model_get_info(model)->n_tokens);
        submit_deep(wide, prompts[i], depth + 1, depth, ANSWER, 0, (void *)i);
        submit_deep(tight, prompts[i], depth + 1, depth, ANSWER, 2, (void *)i);
    }
    run_all(wide, want);
    run_all(tight, got);
    bw_engine_get_stats(tight, &after);
    check(after.preemptions > 0);
    check(after.cache_nodes <= before.cache_nodes); /* nothing simulated was kept for others */
    for (int i = 0; i < SEQS; i++)
        check_same_run(&got[i], &want[i], "deep sequences in little memory");
    check_given_back(tight);
    free(first);
    free(want);
    free(got);
    bw_engine_destroy(tight);
    bw_engine_destroy(wide);
    bw_model_close(model);
}

TEST(acceptance_can_be_imposed_at_a_depth)
{
    bw_model *model = tiny_drafting_model();
    bw_engine *e = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
    bw_error err;
    int32_t prompt[513];
    run *got = calloc(1, sizeof *got);
    draw_prompt(prompt, 513, bw_model_get_info(model)->n_tokens);
    check_ok(bw_simulate_accept(e, (const double[]){ 1 }, 1, 1, &err), err);
    submit_deep(e, prompt, 513, 512, 81, 4, NULL);
    run_all(e, got);
    check_books(got, 81);
    check_int(got->usage.decode_steps, 16);
    check_int(got->usage.accepted_by_position[3], 16);
    free(got);
    bw_engine_destroy(e);
    bw_model_close(model);
}

TEST(depths_that_cannot_be_are_refused)
{
    bw_model *model = tiny_drafting_model();
    bw_engine *e = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
    bw_error err;
    bw_seq_id id;
    int32_t prompt[10] = { 0 };
    float *logprobs = malloc(10 * sizeof *logprobs);
    run *runs = calloc(1, sizeof *runs);
    bw_request r = greedy_request(model, prompt, 10, 2);
    check_ok(bw_engine_submit(e, &r, &id, &err), err);
    check_error(bw_simulate_depth(e, id + 1, 5, &err), BW_E_ARGUMENT, err, "is not live");
    check_error(bw_simulate_depth(e, id, 0, &err), BW_E_ARGUMENT, err, "0 of a prompt of 10 tokens, expected 1 to 9");
    check_error(bw_simulate_depth(e, id, 10, &err), BW_E_ARGUMENT, err, "10 of a prompt of 10 tokens");
    for (long n = 1;; n++) {
        bw_mem_fail_at(n);
        const bw_status st = bw_simulate_depth(e, id, 9, &err);
        if (!bw_mem_fail_at(0)) {
            check_ok(st, err);
            break;
        }
        check_int(st, BW_E_MEMORY);
    }
    check_ok(bw_engine_step(e, &err), err);
    check_error(bw_simulate_depth(e, id, 5, &err), BW_E_ARGUMENT, err, "has started");
    run_all(e, runs);
    r.prompt_logprobs = logprobs;
    check_ok(bw_engine_submit(e, &r, &id, &err), err);
    check_error(bw_simulate_depth(e, id, 5, &err), BW_E_ARGUMENT, err, "prompt's rows");
    run_all(e, runs);
    free(logprobs);
    free(runs);
    bw_engine_destroy(e);
    bw_model_close(model);
}

TESTS_MAIN(ENTRY(imposed_shares_come_out_with_exact_books), ENTRY(shares_go_on_by_the_last_ratio),
           ENTRY(accepted_drafts_stand_in_the_answer_and_the_next_token_follows_from_them),
           ENTRY(a_seed_repeats_acceptance_and_no_shares_end_it), ENTRY(sequences_of_a_batch_draw_each_for_itself),
           ENTRY(a_head_is_not_blamed_for_what_was_imposed), ENTRY(shares_that_cannot_be_are_refused),
           ENTRY(a_simulated_depth_runs_on_with_and_without_drafts), ENTRY(filled_states_and_pages_are_finite_and_not_zero),
           ENTRY(many_sequences_at_many_depths_answer_as_alone), ENTRY(deep_sequences_that_give_way_answer_all_the_same),
           ENTRY(acceptance_can_be_imposed_at_a_depth), ENTRY(depths_that_cannot_be_are_refused))
