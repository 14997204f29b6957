/* runs.h - run the library from a test: open a model, generate, keep everything that came out. */
#ifndef BW_TESTS_RUNS_H
#define BW_TESTS_RUNS_H

#include <json-c/json.h>

#include "bellwether.h"
#include "lib/check.h"

enum { MAX_RUN_TOKENS = 4096 };

typedef struct run {
    int32_t tokens[MAX_RUN_TOKENS];
    float logprobs[MAX_RUN_TOKENS];         /* of the chosen token, when asked for */
    bw_logprob top[MAX_RUN_TOKENS][BW_MAX_LOGPROBS];
    int n_tokens;
    int sizes[MAX_RUN_TOKENS]; /* tokens of each event: a verify's accepted drafts and one more */
    int n_events;
    bw_finish finish;
    bw_usage usage;
} run;

/* Fails the test when it cannot. level and threads: NULL, 0 for the defaults. */
bw_model *open_model(const char *path, const char *level, int threads, bw_activations activations);
bw_engine *open_engine(bw_model *model, int context, int chunk, int max_seqs, bw_kv_type kv);

/* The prompt, greedy, no stop tokens, no drafts, top-5 logprobs kept. */
bw_request greedy_request(const bw_model *model, const int32_t *prompt, int n_prompt, int max_tokens);

/* Submits one request to an idle engine and steps to its end. */
void run_request(bw_engine *engine, const bw_request *request, run *out);
/* Adds an event to its run. */
void keep_event(run *out, const bw_event *event);
/* Same tokens, and the same bits of every logprob kept: the logits were the same. */
void check_same_run(const run *got, const run *want, const char *what);

/* A .npy of float32, C order. The caller frees. */
float *read_npy(const char *path, size_t *rows, size_t *cols);
struct json_object *read_json(const char *path); /* the caller puts it */
/* A JSON array of integers; returns its length. */
int json_ids(struct json_object *array, int32_t *out, int room);
struct json_object *json_member(struct json_object *object, const char *name); /* fails when absent */

/* Levels of this machine's processor, NULL-terminated. */
const char *const *levels_here(void);

#endif
