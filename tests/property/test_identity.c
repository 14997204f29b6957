/* Same bytes, whatever was speculated, batched, cut or threaded: on random tiny models, a quantised
 * one and lamb, at every CPU level. The logits are compared through the bits of their
 * log-probabilities. */
#include "lib/runs.h"

#include <stdlib.h>

#include "base/mem.h"
#include "lib/tiny_model.h"

enum { CONTEXT = 400, PROMPT = 90, ANSWER = 60 };

typedef struct subject {
    char path[4096];
    const char *level;
    bool slow; /* lamb at the reference level, or with a sanitizer: shorter answers */
} subject;

/* Every model at every level: n random tiny ones, a GGUF with integer dots, lamb. */
static void for_every_subject(int n_tiny, void (*visit)(bw_model *model, const subject *s))
{
    if (sanitized())
        n_tiny = (n_tiny + 1) / 2;
    for (int i = 0; i < n_tiny + 2; i++) {
        subject s;
        tiny_shape shape;
        const char *path = i < n_tiny       ? tiny_model(&shape)
                           : i == n_tiny ? repo_path("tests/golden/gguf/moe-Q5_K_M.gguf")
                                         : repo_path("models/lamb");
        snprintf(s.path, sizeof s.path, "%s", path);
        for (const char *const *level = levels_here(); *level; level++) {
            if (sanitized() && i > n_tiny && level[1])
                continue; /* lamb under a sanitizer: only the best level */
            s.level = *level;
            s.slow = i > n_tiny && (sanitized() || strcmp(*level, "ref") == 0);
            bw_model *model = open_model(s.path, s.level, 2, BW_ACTIVATIONS_AUTO);
            visit(model, &s);
            bw_model_close(model);
        }
    }
}

static int random_prompt(const bw_model *model, int32_t *ids, int most)
{
    const int n = rnd_int(1, most), n_tokens = bw_model_get_info(model)->n_tokens;
    for (int i = 0; i < n; i++)
        ids[i] = rnd_int(0, n_tokens - 1);
    return n;
}

/* temperature 0, or 1 with filters and penalties in some of the runs */
static bw_request random_request(const bw_model *model, const int32_t *ids, int n, int answer)
{
    bw_request r = greedy_request(model, ids, n, answer);
    if (rnd_int(0, 2) > 0) {
        r.sampling.temperature = 1;
        r.sampling.seed = rnd_u64();
        r.sampling.top_k = rnd_int(0, 1) ? 20 : 0;
        r.sampling.top_p = rnd_int(0, 1) ? 0.9f : 1;
        r.sampling.presence_penalty = rnd_int(0, 2) ? 0 : 0.5f;
        r.sampling.repetition_penalty = rnd_int(0, 2) ? 1 : 1.1f;
    }
    return r;
}

static run *new_run(void)
{
    return calloc(1, sizeof(run));
}

static void visit_drafts(bw_model *model, const subject *s)
{
    for (int round = 0; round < 2; round++) {
        int32_t ids[PROMPT];
        const int n = random_prompt(model, ids, s->slow ? 5 : PROMPT);
        bw_request r = random_request(model, ids, n, s->slow ? 12 : ANSWER);
        if (round == 0)
            r.sampling = (bw_sampling){ .temperature = 0, .top_p = 1, .repetition_penalty = 1 };
        run *want = new_run(), *got = new_run();
        bw_engine *engine = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
        run_request(engine, &r, want);
        for (int d = BW_DRAFT_AUTO; d <= BW_MAX_DRAFTS; d++) {
            char what[4400];
            snprintf(what, sizeof what, "%s at %s, temperature %g, draft %d", s->path, s->level,
                     (double)r.sampling.temperature, d);
            r.draft = d;
            run_request(engine, &r, got);
            check_same_run(got, want, what);
            check_that((d == 0) == (got->usage.verifies == 0), "%s: %lld verifies", what, (long long)got->usage.verifies);
        }
        bw_engine_destroy(engine);
        free(want), free(got);
    }
}

TEST(drafts_never_change_a_byte)
{
    for_every_subject(4, visit_drafts);
}

static void visit_chunks(bw_model *model, const subject *s)
{
    static const int chunks[] = { 1, 3, 7, 64, 65, 0 };
    int32_t ids[PROMPT];
    const int n = random_prompt(model, ids, PROMPT);
    bw_request r = random_request(model, ids, n, s->slow ? 4 : 20);
    r.draft = rnd_int(0, 3);
    run *want = new_run(), *got = new_run();
    bw_engine *engine = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
    run_request(engine, &r, want);
    bw_engine_destroy(engine);
    for (size_t i = 0; i < BW_COUNT(chunks); i++) {
        char what[4400];
        snprintf(what, sizeof what, "%s at %s, chunk %d", s->path, s->level, chunks[i]);
        engine = open_engine(model, CONTEXT, chunks[i], 1, BW_KV_F16);
        run_request(engine, &r, got);
        check_same_run(got, want, what);
        bw_engine_destroy(engine);
    }
    free(want), free(got);
}

TEST(a_prompt_may_be_cut_anywhere)
{
    for_every_subject(4, visit_chunks);
}

static void visit_threads(bw_model *model, const subject *s)
{
    int32_t ids[PROMPT];
    const int n = random_prompt(model, ids, PROMPT);
    bw_request r = random_request(model, ids, n, s->slow ? 4 : 20);
    r.draft = 2;
    run *want = new_run(), *got = new_run();
    for (int threads = 1; threads <= 3; threads++) {
        char what[4400];
        snprintf(what, sizeof what, "%s at %s, %d threads", s->path, s->level, threads);
        bw_model *again = open_model(s->path, s->level, threads, BW_ACTIVATIONS_AUTO);
        bw_engine *engine = open_engine(again, CONTEXT, 64, 1, BW_KV_F16);
        run_request(engine, &r, threads == 1 ? want : got);
        if (threads > 1)
            check_same_run(got, want, what);
        bw_engine_destroy(engine);
        bw_model_close(again);
    }
    free(want), free(got);
}

TEST(threads_change_nothing)
{
    for_every_subject(4, visit_threads);
}

enum { MANY = 7, ROOM = 3 };

/* Seven requests through an engine of three, entering as others leave, one of them cancelled. */
static void visit_batch(bw_model *model, const subject *s)
{
    static int32_t ids[MANY][PROMPT];
    bw_request requests[MANY];
    run *want[MANY], *got[MANY];
    bw_seq_id id[MANY] = { 0 };
    bw_error err;
    bw_engine *alone = open_engine(model, CONTEXT, 512, 1, BW_KV_F16);
    for (int i = 0; i < MANY; i++) {
        const int n = random_prompt(model, ids[i], s->slow ? 6 : PROMPT);
        requests[i] = random_request(model, ids[i], n, rnd_int(1, s->slow ? 6 : 40));
        want[i] = new_run();
        got[i] = new_run();
        run_request(alone, &requests[i], want[i]);
        requests[i].draft = rnd_int(BW_DRAFT_AUTO, 4);
        requests[i].user = got[i];
    }
    bw_engine_destroy(alone);
    bw_engine *engine = open_engine(model, CONTEXT, 32, ROOM, BW_KV_F16);
    int next = 0, live = 0, cancelled = rnd_int(0, MANY - 1);
    for (int step = 0; next < MANY || live > 0; step++) {
        while (live < ROOM && next < MANY && rnd_int(0, 2) > 0) {
            check_ok(bw_engine_submit(engine, &requests[next], &id[next], &err), err);
            next++, live++;
        }
        if (live == ROOM) {
            bw_seq_id full;
            check_error(bw_engine_submit(engine, &requests[0], &full, &err), BW_E_BUSY, err, "3 sequences");
        }
        bw_mem_fail_at(1); /* a step must not allocate */
        check_ok(bw_engine_step(engine, &err), err);
        check(!bw_mem_fail_at(0));
        for (bw_event event; bw_engine_event(engine, &event);) {
            keep_event(event.user, &event);
            live -= event.finish != BW_FINISH_NONE;
        }
        if (step == 4 && id[cancelled] && bw_engine_cancel(engine, id[cancelled])) {
            live--;
            got[cancelled]->finish = BW_FINISH_LENGTH;
        } else if (step == 4) {
            cancelled = -1;
        }
        check(step < 4000);
    }
    check(bw_engine_idle(engine));
    for (int i = 0; i < MANY; i++) {
        char what[4400];
        snprintf(what, sizeof what, "%s at %s, request %d of %d", s->path, s->level, i, MANY);
        if (i == cancelled && got[i]->n_tokens < want[i]->n_tokens)
            want[i]->n_tokens = got[i]->n_tokens, want[i]->finish = got[i]->finish; /* what came was right */
        check_same_run(got[i], want[i], what);
        free(want[i]), free(got[i]);
    }
    bw_engine_destroy(engine);
}

TEST(company_changes_nothing)
{
    for_every_subject(4, visit_batch);
}

TESTS_MAIN(ENTRY(drafts_never_change_a_byte), ENTRY(a_prompt_may_be_cut_anywhere), ENTRY(threads_change_nothing),
           ENTRY(company_changes_nothing))
