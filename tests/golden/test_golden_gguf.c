/* GGUF files of another engine's converter and quantiser against the logits they must give:
 * widened weights and float activations to 1e-4, integer dots to the error rounding activations
 * brings (tests/golden/gguf/README.md). */
#include "lib/runs.h"

#include <math.h>
#include <stdlib.h>

static double rms_error(const float *a, const float *b, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(a[i]))
            return INFINITY;
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / size);
}

typedef struct errors {
    double max, rms, draft_max;
} errors;

static errors errors_of(const char *path, struct json_object *entry, const char *level, bw_activations activations)
{
    int32_t ids[512], drafts[BW_MAX_DRAFTS];
    const int n = json_ids(json_member(entry, "ids"), ids, 512);
    char name[4096];
    size_t rows, vocab, n_drafts, columns;
    snprintf(name, sizeof name, "tests/golden/gguf/%s", json_object_get_string(json_member(entry, "logits")));
    float *want = read_npy(repo_path(name), &rows, &vocab);
    snprintf(name, sizeof name, "tests/golden/gguf/%s", json_object_get_string(json_member(entry, "draft_logits")));
    float *want_drafts = read_npy(repo_path(name), &n_drafts, &columns);
    float *got = malloc(rows * vocab * sizeof *got), *got_drafts = malloc(n_drafts * vocab * sizeof *got);

    bw_model *model = open_model(path, level, 2, activations);
    bw_engine *engine = open_engine(model, 256, 64, 1, BW_KV_F32);
    bw_request r = greedy_request(model, ids, n, 1);
    r.prompt_logits = got;
    r.draft_logits = got_drafts;
    r.n_draft_logits = (int)n_drafts;
    static run out;
    run_request(engine, &r, &out);
    const errors e = { max_error(got, want, rows * vocab), rms_error(got, want, rows * vocab),
                       max_error(got_drafts, want_drafts, n_drafts * vocab) };
    if (activations == BW_ACTIVATIONS_F32) {
        check_int(out.tokens[0], json_object_get_int(json_member(entry, "greedy_token")));
        json_ids(json_member(entry, "drafts"), drafts, BW_MAX_DRAFTS);
    }
    bw_engine_destroy(engine);
    bw_model_close(model);
    free(want), free(want_drafts), free(got), free(got_drafts);
    return e;
}

static void for_every_file(const char *only, void (*visit)(const char *path, struct json_object *entry))
{
    struct json_object *list = read_json(repo_path("tests/golden/gguf/expected.json"));
    int visited = 0;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *entry = json_object_array_get_idx(list, i);
        const char *file = json_object_get_string(json_member(entry, "file"));
        if (only && strcmp(only, file) != 0)
            continue;
        char path[4096];
        snprintf(path, sizeof path, "tests/golden/gguf/%s", file);
        visit(repo_path(path), entry);
        visited++;
    }
    check(visited > 0);
    json_object_put(list);
}

static void visit_float(const char *path, struct json_object *entry)
{
    for (const char *const *level = levels_here(); *level; level++) {
        errors e = errors_of(path, entry, *level, BW_ACTIVATIONS_F32);
        printf("[  NOTE    ] %s, %s, f32 activations: logits %.2e, drafts %.2e\n", path, *level, e.max, e.draft_max);
        check_that(e.max <= 1e-4 && e.draft_max <= 1e-4, "%s at level %s: error %.3g, drafts %.3g, allowed 1e-4", path, *level,
                   e.max, e.draft_max);
    }
}

TEST(widened_weights_give_the_expected_logits)
{
    for_every_file(NULL, visit_float);
}

static void visit_int8(const char *path, struct json_object *entry)
{
    /* what rounding activations to int8 in groups of 32 costs a correct engine; README of the files */
    const double allowed = strstr(path, "dense") ? 0.031 : 0.028;
    for (const char *const *level = levels_here(); *level; level++) {
        errors e = errors_of(path, entry, *level, BW_ACTIVATIONS_INT8);
        printf("[  NOTE    ] %s, %s, int8 activations: rms %.4f\n", path, *level, e.rms);
        check_that(e.rms <= allowed, "%s at level %s: rms error %.4f, allowed %.4f", path, *level, e.rms, allowed);
        if (strstr(path, "F16"))
            check_that(e.rms <= 1e-4, "%s: float weights must not be rounded: rms %.3g", path, e.rms);
        else
            check_that(e.rms > 1e-5, "%s: rms %.3g is too small for int8: it was not in use", path, e.rms);
    }
}

TEST(integer_dots_cost_no_more_than_rounding_activations)
{
    for_every_file(NULL, visit_int8);
}

static const char *split_path;

static void visit_split(const char *path, struct json_object *entry)
{
    (void)path;
    errors e = errors_of(split_path, entry, NULL, BW_ACTIVATIONS_F32);
    check_that(e.max <= 1e-4 && e.draft_max <= 1e-4, "%s: error %.3g, drafts %.3g", split_path, e.max, e.draft_max);
}

TEST(split_files_open_by_any_part)
{
    split_path = repo_path("tests/golden/gguf-split/moe-Q3_K_M-00002-of-00003.gguf");
    for_every_file("moe-Q3_K_M.gguf", visit_split);
    split_path = repo_path("tests/golden/gguf-split/moe-IQ4_NL-00001-of-00002.gguf");
    for_every_file("moe-IQ4_NL.gguf", visit_split);
}

TESTS_MAIN(ENTRY(widened_weights_give_the_expected_logits), ENTRY(integer_dots_cost_no_more_than_rounding_activations),
           ENTRY(split_files_open_by_any_part))
