/* The checkpoints of tests/golden against what transformers and the reference computed from them:
 * prompt logits, greedy tokens, draft logits and rounds; F32 KV, every CPU level, every cut of the
 * prompt. tests/golden/README.md says who made the values. */
#include "lib/runs.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static const double tolerance = 1e-4; /* of the largest logit; rounding in f32 moves them by 3e-5 */
enum { CONTEXT = 320, MAX_DRAFTED = 64 };

static const char *folders[64];
static int n_folders;
static double worst_logits, worst_drafts;
static const char *worst_logits_at = "", *worst_drafts_at = "";

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void find_folders(void)
{
    if (n_folders)
        return;
    const char *root = repo_path("tests/golden");
    DIR *dir = opendir(root);
    check_that(dir != NULL, "no %s", root);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s/logits.npy", root, entry->d_name);
        if (access(path, R_OK) == 0 && n_folders < 64)
            folders[n_folders++] = strdup(entry->d_name);
    }
    closedir(dir);
    qsort(folders, (size_t)n_folders, sizeof *folders, by_name);
    check(n_folders >= 6);
}

static const char *file_of(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "tests/golden/%s/%s", folder, name);
    return repo_path(path);
}

static int read_ids(const char *folder, int32_t *ids, int room)
{
    struct json_object *json = read_json(file_of(folder, "ids.json"));
    int n = json_ids(json, ids, room);
    json_object_put(json);
    return n;
}

static bool has_drafts(const char *folder)
{
    return access(file_of(folder, "mtp.npy"), R_OK) == 0;
}

static void check_within(const char *folder, const char *what, const char *level, int chunk, double error,
                         double *worst, const char **worst_at)
{
    check_that(error <= tolerance, "%s: %s at level %s, chunk %d: error %.3g of the largest, allowed %.3g", folder, what,
               level, chunk, error, tolerance);
    if (error > *worst) {
        *worst = error;
        *worst_at = folder;
    }
}

/* Logits of every prompt row and of the draft chain, and the first greedy token. */
static void check_logits(bw_model *model, const char *folder, const char *level, int chunk)
{
    int32_t ids[256], greedy[64];
    int n = read_ids(folder, ids, 256);
    struct json_object *json = read_json(file_of(folder, "greedy.json"));
    struct json_object *list = json_object_is_type(json, json_type_array) ? json : json_member(json, "tokens");
    int n_greedy = json_ids(list, greedy, 64);
    json_object_put(json);

    size_t rows, vocab, n_drafts = 0, columns;
    float *want = read_npy(file_of(folder, "logits.npy"), &rows, &vocab), *drafts = NULL;
    check_int(rows, n);
    check_int(vocab, bw_model_get_info(model)->vocab);
    float *got = malloc(rows * vocab * sizeof *got), *got_drafts = malloc(BW_MAX_DRAFTS * vocab * sizeof *got);
    bw_request r = greedy_request(model, ids, n, n_greedy);
    r.prompt_logits = got;
    if (has_drafts(folder)) {
        drafts = read_npy(file_of(folder, "mtp.npy"), &n_drafts, &columns);
        r.n_draft_logits = (int)n_drafts;
        r.draft_logits = got_drafts;
    }
    bw_engine *engine = open_engine(model, CONTEXT, chunk, 1, BW_KV_F32);
    static run out;
    run_request(engine, &r, &out);
    check_within(folder, "logits", level, chunk, max_error(got, want, rows * vocab), &worst_logits, &worst_logits_at);
    if (drafts)
        check_within(folder, "draft logits", level, chunk, max_error(got_drafts, drafts, n_drafts * vocab), &worst_drafts,
                     &worst_drafts_at);
    check_int(out.n_tokens, n_greedy);
    for (int i = 0; i < n_greedy; i++)
        check_that(out.tokens[i] == greedy[i], "%s: greedy token %d at level %s, chunk %d is %d, expected %d", folder, i,
                   level, chunk, out.tokens[i], greedy[i]);
    bw_engine_destroy(engine);
    free(want), free(drafts), free(got), free(got_drafts);
}

TEST(logits_of_every_prompt_row_agree_through_every_chunking_and_level)
{
    static const int chunks[] = { 1, 7, 64, 65, 0 };
    find_folders();
    for (int f = 0; f < n_folders; f++)
        for (const char *const *level = levels_here(); *level; level++) {
            bw_model *model = open_model(file_of(folders[f], ""), *level, 2, BW_ACTIVATIONS_AUTO);
            for (size_t c = 0; c < BW_COUNT(chunks); c++)
                check_logits(model, folders[f], *level, chunks[c]);
            bw_model_close(model);
        }
    printf("[  NOTE    ] %d checkpoints; largest error of logits %.2e (%s), of draft logits %.2e (%s)\n", n_folders,
           worst_logits, worst_logits_at, worst_drafts, worst_drafts_at);
}

/* Looks at the drafts before each verify, without changing them. */
typedef struct watcher {
    int32_t drafts[256][BW_MAX_DRAFTS];
    int n[256];
    int n_rounds;
} watcher;

static void watch(void *arg, int64_t position, int32_t *drafts, int n)
{
    (void)position;
    watcher *w = arg;
    memcpy(w->drafts[w->n_rounds], drafts, (size_t)n * sizeof *drafts);
    w->n[w->n_rounds++] = n;
}

/* The rounds of a trace: drafts, accepted, tokens. More tokens are asked for than it has, so that no
 * round is cut to the tokens that are left. */
static void check_rounds(bw_model *model, const char *name, struct json_object *trace, const int32_t *ids, int n_ids)
{
    int32_t want[512];
    const int n_want = json_ids(json_member(trace, "tokens"), want, 512);
    bw_engine *engine = open_engine(model, 2048, 512, 1, BW_KV_F32);
    static watcher w;
    static run out;
    memset(&w, 0, sizeof w);
    bw_request r = greedy_request(model, ids, n_ids, n_want + 2 * BW_MAX_DRAFTS);
    r.draft = 3;
    r.force_drafts = watch;
    r.force_arg = &w;
    run_request(engine, &r, &out);
    for (int i = 0; i < n_want; i++)
        check_that(out.tokens[i] == want[i], "%s: token %d is %d, expected %d", name, i, out.tokens[i], want[i]);
    struct json_object *rounds = json_member(trace, "rounds");
    const int n_rounds = (int)json_object_array_length(rounds);
    check(w.n_rounds >= n_rounds && out.n_events > n_rounds);
    for (int i = 0; i < n_rounds; i++) {
        struct json_object *round = json_object_array_get_idx(rounds, (size_t)i);
        int32_t drafts[BW_MAX_DRAFTS];
        const int n = json_ids(json_member(round, "drafts"), drafts, BW_MAX_DRAFTS);
        check_int(w.n[i], n);
        for (int j = 0; j < n; j++)
            check_that(w.drafts[i][j] == drafts[j], "%s: round %d, draft %d is %d, expected %d", name, i, j,
                       w.drafts[i][j], drafts[j]);
        /* the first event is the prompt's own token */
        check_that(out.sizes[i + 1] == json_object_get_int(json_member(round, "accepted")) + 1,
                   "%s: round %d gained %d tokens, expected %d", name, i, out.sizes[i + 1],
                   json_object_get_int(json_member(round, "accepted")) + 1);
    }
    bw_engine_destroy(engine);
}

TEST(drafts_and_acceptance_agree_round_by_round)
{
    find_folders();
    for (int f = 0; f < n_folders; f++) {
        if (!has_drafts(folders[f]))
            continue;
        int32_t ids[256];
        const int n = read_ids(folders[f], ids, 256);
        struct json_object *trace = read_json(file_of(folders[f], "trace.json"));
        for (const char *const *level = levels_here(); *level; level++) {
            bw_model *model = open_model(file_of(folders[f], ""), *level, 2, BW_ACTIVATIONS_AUTO);
            check_rounds(model, folders[f], trace, ids, n);
            bw_model_close(model);
        }
        json_object_put(trace);
    }
}

TEST(lamb_drafts_as_its_reference_does)
{
    struct json_object *file = read_json(repo_path("tests/golden/lamb/rounds.json"));
    struct json_object *prompts = json_member(file, "prompts");
    bw_model *model = open_model(repo_path("models/lamb"), NULL, 2, BW_ACTIVATIONS_AUTO);
    for (size_t i = 0; i < json_object_array_length(prompts); i++) {
        struct json_object *prompt = json_object_array_get_idx(prompts, i);
        char name[64];
        snprintf(name, sizeof name, "lamb prompt %zu", i);
        static int32_t ids[4096];
        check_rounds(model, name, prompt, ids, json_ids(json_member(prompt, "ids"), ids, 4096));
    }
    bw_model_close(model);
    json_object_put(file);
}

TESTS_MAIN(ENTRY(logits_of_every_prompt_row_agree_through_every_chunking_and_level),
           ENTRY(drafts_and_acceptance_agree_round_by_round), ENTRY(lamb_drafts_as_its_reference_does))
