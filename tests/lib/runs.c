/* runs.c - see runs.h. */
#include "lib/runs.h"

#include <stdlib.h>

#include "ops/cpu/cpu.h"

bw_model *open_model(const char *path, const char *level, int threads, bw_activations activations)
{
    bw_model *model;
    bw_error err;
    const bw_model_options options = { .n_threads = threads, .cpu_level = level, .activations = activations };
    check_ok(bw_model_open(&model, path, &options, &err), err);
    return model;
}

bw_engine *open_engine(bw_model *model, int context, int chunk, int max_seqs, bw_kv_type kv)
{
    bw_engine *engine;
    bw_error err;
    const bw_engine_options options = { .context = context, .chunk = chunk, .max_seqs = max_seqs, .kv = kv,
                                        .max_rows = chunk ? 0 : context };
    check_ok(bw_engine_create(&engine, model, &options, &err), err);
    return engine;
}

bw_request greedy_request(const bw_model *model, const int32_t *prompt, int n_prompt, int max_tokens)
{
    bw_request r = bw_request_defaults(model);
    r.prompt = prompt;
    r.n_prompt = n_prompt;
    r.max_tokens = max_tokens;
    r.sampling = (bw_sampling){ .temperature = 0, .top_p = 1, .repetition_penalty = 1 };
    r.n_stop_tokens = 0;
    r.draft = BW_DRAFT_OFF;
    r.n_logprobs = 5;
    return r;
}

void keep_event(run *out, const bw_event *event)
{
    check(out->n_tokens + event->n_tokens <= MAX_RUN_TOKENS);
    for (int i = 0; i < event->n_tokens; i++) {
        int at = out->n_tokens++;
        out->tokens[at] = event->tokens[i];
        if (event->logprobs)
            out->logprobs[at] = event->logprobs[i];
        for (int j = 0; event->top && j < event->n_top; j++)
            out->top[at][j] = event->top[i * event->n_top + j];
    }
    out->sizes[out->n_events++] = event->n_tokens;
    out->finish = event->finish;
    out->usage = *event->usage;
}

void run_request(bw_engine *engine, const bw_request *request, run *out)
{
    bw_error err;
    bw_seq_id id;
    memset(out, 0, sizeof *out);
    check_ok(bw_engine_submit(engine, request, &id, &err), err);
    while (!bw_engine_idle(engine)) {
        check_ok(bw_engine_step(engine, &err), err);
        for (bw_event event; bw_engine_event(engine, &event);) {
            check(event.id == id);
            keep_event(out, &event);
        }
    }
    check(out->finish != BW_FINISH_NONE);
}

void check_same_run(const run *got, const run *want, const char *what)
{
    for (int i = 0; i < got->n_tokens && i < want->n_tokens; i++) {
        check_that(got->tokens[i] == want->tokens[i], "%s: token %d is %d, expected %d", what, i, got->tokens[i],
                   want->tokens[i]);
        check_that(same_bits(&got->logprobs[i], &want->logprobs[i], 1), "%s: token %d has logprob %a, expected %a",
                   what, i, got->logprobs[i], want->logprobs[i]);
        check_that(memcmp(got->top[i], want->top[i], sizeof got->top[i]) == 0, "%s: the alternatives of token %d differ",
                   what, i);
    }
    check_that(got->n_tokens == want->n_tokens, "%s: %d tokens, expected %d", what, got->n_tokens, want->n_tokens);
    check_that(got->finish == want->finish, "%s: finish %d, expected %d", what, got->finish, want->finish);
}

float *read_npy(const char *path, size_t *rows, size_t *cols)
{
    size_t n;
    char *file = read_file(path, &n);
    check_that(n > 10 && memcmp(file, "\x93NUMPY\x01\x00", 8) == 0, "%s is no .npy 1.0", path);
    size_t header = (size_t)(unsigned char)file[8] | (size_t)(unsigned char)file[9] << 8;
    check_that(strstr(file + 10, "'<f4'") && strstr(file + 10, "'fortran_order': False"), "%s is not float32, C order", path);
    const char *shape = strstr(file + 10, "'shape': (");
    check_that(shape && sscanf(shape, "'shape': (%zu, %zu)", rows, cols) == 2, "%s has no two dimensions", path);
    check_that(n == 10 + header + *rows * *cols * sizeof(float), "%s has %zu bytes", path, n);
    float *data = malloc(*rows * *cols * sizeof *data);
    memcpy(data, file + 10 + header, *rows * *cols * sizeof *data);
    free(file);
    return data;
}

struct json_object *read_json(const char *path)
{
    struct json_object *object = json_object_from_file(path);
    check_that(object != NULL, "%s is no JSON: %s", path, json_util_get_last_err());
    return object;
}

int json_ids(struct json_object *array, int32_t *out, int room)
{
    int n = (int)json_object_array_length(array);
    check(n <= room);
    for (int i = 0; i < n; i++)
        out[i] = json_object_get_int(json_object_array_get_idx(array, (size_t)i));
    return n;
}

struct json_object *json_member(struct json_object *object, const char *name)
{
    struct json_object *value;
    if (!json_object_object_get_ex(object, name, &value))
        fail_with("no member %s", name);
    return value;
}

const char *const *levels_here(void)
{
    return bw_cpu_levels_here();
}
