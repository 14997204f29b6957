/* Rejected drafts leave no trace: with acceptance forced to every pattern, the recurrent state and
 * the KV rows are bit for bit those of a run without drafts, and no page or slot is lost. */
#include "lib/runs.h"

#include <stdlib.h>

#include "engine/engine.h"
#include "lib/tiny_model.h"

enum { CONTEXT = 300, ANSWER = 80 };

/* Replaces the drafts so that exactly the wanted number is accepted. */
typedef struct forcer {
    const run *truth;
    int n_prompt, n_tokens;
    int fixed;    /* accept this many each time; -1: at random */
    int wanted;   /* of the last verify */
    int64_t verifies, accepted[BW_MAX_DRAFTS + 1];
} forcer;

static void force(void *arg, int64_t position, int32_t *drafts, int n)
{
    forcer *f = arg;
    const int first = (int)position - f->n_prompt; /* index in the answer of the token drafts[0] guesses */
    f->wanted = f->fixed < 0 ? rnd_int(0, n) : (f->fixed < n ? f->fixed : n);
    for (int j = 0; j < n; j++) {
        const int32_t truth = f->truth->tokens[first + j];
        drafts[j] = j < f->wanted ? truth : j == f->wanted ? (truth + 1) % f->n_tokens : rnd_int(0, f->n_tokens - 1);
    }
    f->verifies++;
    f->accepted[f->wanted]++;
}

static const void *kv_row(const bw_engine *e, const bw_sequence *s, const void *half, int head, int pos, size_t row_bytes)
{
    const size_t kv_heads = (size_t)e->net->attn.n_kv_heads;
    const size_t page = (size_t)s->pages[pos / BW_PAGE];
    return (const char *)half + ((page * kv_heads + (size_t)head) * BW_PAGE + (size_t)(pos % BW_PAGE)) * row_bytes;
}

static void check_same_state(const bw_engine *a, const bw_engine *b, const char *what)
{
    const bw_sequence *s = &a->sequences[0], *t = &b->sequences[0];
    const size_t bytes = bw_slots_state_bytes(a->slots);
    void *x = malloc(bytes), *y = malloc(bytes);
    bw_slots_save(a->slots, s->slot, x);
    bw_slots_save(b->slots, t->slot, y);
    check_that(memcmp(x, y, bytes) == 0, "%s: the recurrent state differs after %d rows", what, s->n_rows);
    free(x), free(y);
    const size_t row_bytes = (size_t)a->net->attn.head_dim * sizeof(float);
    for (int l = 0; l < a->net->config->n_attention; l++) {
        const bw_kv_layer *p = &bw_pages_layers(a->pages)[l], *q = &bw_pages_layers(b->pages)[l];
        for (int h = 0; h < a->net->attn.n_kv_heads; h++)
            for (int pos = 0; pos < s->n_rows; pos++)
                check_that(memcmp(kv_row(a, s, p->k, h, pos, row_bytes), kv_row(b, t, q->k, h, pos, row_bytes), row_bytes) == 0 &&
                               memcmp(kv_row(a, s, p->v, h, pos, row_bytes), kv_row(b, t, q->v, h, pos, row_bytes), row_bytes) == 0,
                           "%s: KV layer %d, head %d, position %d differs", what, l, h, pos);
    }
}

static void check_pattern(bw_model *model, const bw_request *plain, const run *truth, int n_drafts, int fixed)
{
    char what[128];
    snprintf(what, sizeof what, "%s, %d drafts, accept %d", bw_model_get_info(model)->cpu_level, n_drafts, fixed);
    forcer f = { .truth = truth, .n_prompt = plain->n_prompt, .n_tokens = bw_model_get_info(model)->n_tokens, .fixed = fixed };
    bw_engine *drafting = open_engine(model, CONTEXT, 512, 1, BW_KV_F32), *walking = open_engine(model, CONTEXT, 512, 1, BW_KV_F32);
    const int all_pages = bw_pages_free(drafting->pages);
    bw_request r = *plain;
    bw_seq_id id;
    bw_error err;
    check_ok(bw_engine_submit(walking, &r, &id, &err), err);
    r.draft = n_drafts;
    r.force_drafts = force;
    r.force_arg = &f;
    check_ok(bw_engine_submit(drafting, &r, &id, &err), err);
    run *got = calloc(1, sizeof *got);
    int compared = 0;
    while (!bw_engine_idle(drafting)) {
        const int64_t before = f.verifies;
        check_ok(bw_engine_step(drafting, &err), err);
        int gained = 0;
        for (bw_event event; bw_engine_event(drafting, &event); gained = event.n_tokens)
            keep_event(got, &event);
        if (bw_engine_idle(drafting))
            break;
        if (f.verifies > before)
            check_that(gained == f.wanted + 1, "%s: %d tokens gained, expected %d", what, gained, f.wanted + 1);
        if (gained != 1)
            continue; /* accepted rows are still pending: the next step applies them */
        while (walking->sequences[0].n_rows < drafting->sequences[0].n_rows)
            check_ok(bw_engine_step(walking, &err), err);
        check_same_state(drafting, walking, what);
        compared++;
    }
    check_same_run(got, truth, what);
    check(compared > 0 && f.verifies > 0);
    check_int(got->usage.verifies, f.verifies);
    int64_t at_least = 0;
    for (int j = BW_MAX_DRAFTS; j >= 1; j--) {
        at_least += f.accepted[j];
        check_int(got->usage.accepted_by_position[j - 1], at_least);
    }
    check_int(bw_pages_free(drafting->pages), all_pages);
    check_int(bw_slots_free(drafting->slots), 1);
    check(bw_engine_cancel(walking, walking->sequences[0].id));
    check_int(bw_pages_free(walking->pages), all_pages);
    bw_engine_destroy(drafting);
    bw_engine_destroy(walking);
    free(got);
}

static void check_model(const char *path, const char *level, int answer)
{
    bw_model *model = open_model(path, level, 2, BW_ACTIVATIONS_AUTO);
    int32_t ids[100];
    const int n = rnd_int(1, answer < ANSWER ? 5 : 100), n_tokens = bw_model_get_info(model)->n_tokens;
    for (int i = 0; i < n; i++)
        ids[i] = rnd_int(0, n_tokens - 1);
    bw_request r = greedy_request(model, ids, n, answer);
    if (rnd_int(0, 1))
        r.sampling.temperature = 1, r.sampling.seed = rnd_u64();
    run *truth = calloc(1, sizeof *truth);
    bw_engine *engine = open_engine(model, CONTEXT, 512, 1, BW_KV_F32);
    run_request(engine, &r, truth);
    bw_engine_destroy(engine);
    check_pattern(model, &r, truth, 1, 0);
    check_pattern(model, &r, truth, 3, 0);
    check_pattern(model, &r, truth, 3, -1);
    check_pattern(model, &r, truth, 8, -1);
    check_pattern(model, &r, truth, 5, -1);
    bw_model_close(model);
    free(truth);
}

TEST(rejected_rows_never_reach_the_state)
{
    tiny_shape shape;
    for (int i = 0; i < (sanitized() ? 2 : 5); i++) {
        const char *path = tiny_model(&shape);
        for (const char *const *level = levels_here(); *level; level++)
            check_model(path, *level, ANSWER);
    }
    for (const char *const *level = levels_here(); *level; level++)
        if (!sanitized() || !level[1]) /* under a sanitizer only the best level */
            check_model(repo_path("models/lamb"), *level, sanitized() || strcmp(*level, "ref") == 0 ? 25 : ANSWER);
}

/* Every acceptance 0 .. n in turn, always the same. */
TEST(any_constant_acceptance_gives_the_same_answer)
{
    bw_model *model = open_model(repo_path("models/lamb"), NULL, 2, BW_ACTIVATIONS_AUTO);
    int32_t ids[] = { 40, 41, 42, 43, 44 };
    bw_request r = greedy_request(model, ids, 5, ANSWER);
    run *truth = calloc(1, sizeof *truth), *got = calloc(1, sizeof *got);
    bw_engine *engine = open_engine(model, CONTEXT, 512, 1, BW_KV_F32);
    run_request(engine, &r, truth);
    for (int n = 1; n <= BW_MAX_DRAFTS; n += sanitized() ? 3 : 1)
        for (int accept = 0; accept <= n; accept++) {
            forcer f = { .truth = truth, .n_prompt = 5, .n_tokens = bw_model_get_info(model)->n_tokens, .fixed = accept };
            r.draft = n;
            r.force_drafts = force;
            r.force_arg = &f;
            run_request(engine, &r, got);
            check_same_run(got, truth, "lamb");
        }
    bw_engine_destroy(engine);
    bw_model_close(model);
    free(truth), free(got);
}

TESTS_MAIN(ENTRY(rejected_rows_never_reach_the_state), ENTRY(any_constant_acceptance_gives_the_same_answer))
