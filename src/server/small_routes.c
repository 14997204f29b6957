/* small_routes.c - see small_routes.h. */
#include "server/small_routes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <json-c/json.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "engine/model_facts.h"
#include "server/loader.h"
#include "server/serve.h"

static const char *const json_content = "application/json";

/* ---- JSON ------------------------------------------------------------------------------------ */

/* A string from outside, as a path may be: cut before the first byte that is not UTF-8. */
static void add_text(struct json_object *to, const char *name, const char *text, size_t n)
{
    json_object_object_add(to, name, json_object_new_string_len(text, (int)bw_utf8_valid_prefix(text, n)));
}

static void add_string(struct json_object *to, const char *name, const char *text)
{
    add_text(to, name, text, strlen(text));
}

static void add_int(struct json_object *to, const char *name, int64_t value)
{
    json_object_object_add(to, name, json_object_new_int64(value));
}

static void add_bool(struct json_object *to, const char *name, bool value)
{
    json_object_object_add(to, name, json_object_new_boolean(value));
}

/* With as many digits as a float has. */
static void add_number(struct json_object *to, const char *name, double value)
{
    char text[40];
    snprintf(text, sizeof text, "%.7g", value);
    json_object_object_add(to, name, isfinite(value) ? json_object_new_double_s(value, text) : NULL);
}

static struct json_object *add_object(struct json_object *to, const char *name)
{
    struct json_object *object = json_object_new_object();
    json_object_object_add(to, name, object);
    return object;
}

/* Puts json. */
static void reply_json(bw_exchange *x, int status, struct json_object *json)
{
    size_t n = 0;
    const char *text = json_object_to_json_string_length(json, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &n);
    bw_exchange_reply(x, status, json_content, text, n);
    json_object_put(json);
}

/* ---- how it is ------------------------------------------------------------------------------- */

/* NULL: requests can be served. */
static const char *not_ready(const bw_server *server, char *text, size_t n)
{
    switch (bw_http_ready(server->http)) {
    case BW_READY: return NULL;
    case BW_DRAINING: return "Shutting down";
    case BW_FAILED: snprintf(text, n, "engine_failed: %s", server->failure); return text;
    case BW_LOADING: break;
    }
    return "Loading model";
}

void bw_handle_health(void *arg, bw_exchange *x)
{
    const bw_server *server = arg;
    struct json_object *json = json_object_new_object();
    char text[600];
    const char *why = not_ready(server, text, sizeof text);
    if (!why) {
        add_string(json, "status", "ok");
        reply_json(x, 200, json);
        return;
    }
    struct json_object *error = add_object(json, "error");
    add_int(error, "code", 503);
    add_string(error, "message", why);
    add_string(error, "type", "unavailable_error");
    if (bw_http_ready(server->http) == BW_LOADING)
        add_number(error, "progress", server->load_progress);
    bw_exchange_add_header(x, "Retry-After", "1");
    reply_json(x, 503, json);
}

void bw_handle_ping(void *arg, bw_exchange *x)
{
    const bw_server *server = arg;
    bw_exchange_reply(x, bw_http_ready(server->http) == BW_READY ? 200 : 503, "text/plain", "", 0);
}

void bw_handle_version(void *arg, bw_exchange *x)
{
    (void)arg;
    struct json_object *json = json_object_new_object();
    add_string(json, "version", bw_version());
    reply_json(x, 200, json);
}

void bw_handle_load(void *arg, bw_exchange *x)
{
    const bw_server *server = arg;
    struct json_object *json = json_object_new_object();
    bw_engine_stats stats;
    bw_engine_thread_stats(server->thread, &stats);
    add_int(json, "server_load", stats.running + stats.waiting);
    reply_json(x, 200, json);
}

/* What stands in the engine now: requests may have come or gone since its last step. */
void bw_handle_metrics(void *arg, bw_exchange *x)
{
    const bw_server *server = arg;
    bw_engine_stats stats;
    size_t n;
    if (!server->metrics) {
        bw_exchange_fail(x, 503, NULL, "loading", NULL, 1, "The model is loading: there is nothing to measure yet");
        return;
    }
    bw_engine_thread_stats(server->thread, &stats);
    bw_metrics_engine(server->metrics, &stats);
    char *page = bw_metrics_render(server->metrics, &n);
    if (page)
        bw_exchange_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", page, n);
    else
        bw_exchange_fail(x, 500, NULL, NULL, NULL, 0, "Out of memory");
    bw_mem_free(page);
}

/* ---- what it serves -------------------------------------------------------------------------- */

static struct json_object *strings_json(const char *only)
{
    struct json_object *list = json_object_new_array();
    json_object_array_add(list, json_object_new_string(only));
    return list;
}

static struct json_object *model_json(const bw_server *server, const char *id)
{
    const bw_model_info *info = bw_model_get_info(server->model);
    bw_model_facts facts;
    bw_model_get_facts(server->model, &facts);
    struct json_object *out = json_object_new_object();
    add_string(out, "id", id);
    add_string(out, "object", "model");
    add_int(out, "created", (int64_t)server->created);
    add_string(out, "owned_by", "bellwether");
    add_string(out, "root", info->path);
    json_object_object_add(out, "parent", NULL);
    add_int(out, "max_model_len", server->api.context);
    struct json_object *meta = add_object(out, "meta");
    add_int(meta, "n_ctx_train", info->max_context);
    add_int(meta, "n_params", (int64_t)facts.n_params);
    add_int(meta, "size", (int64_t)info->weight_bytes);
    add_string(meta, "quantization", facts.quantization);
    struct json_object *architecture = add_object(out, "architecture");
    json_object_object_add(architecture, "input_modalities", strings_json("text"));
    json_object_object_add(architecture, "output_modalities", strings_json("text"));
    return out;
}

/* As the Messages API lists them. */
static struct json_object *messages_model_json(const bw_server *server, const char *id)
{
    struct json_object *out = json_object_new_object();
    struct tm utc;
    char time_text[40];
    gmtime_r(&server->created, &utc);
    strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    add_string(out, "type", "model");
    add_string(out, "id", id);
    add_string(out, "display_name", id);
    add_string(out, "created_at", time_text);
    return out;
}

static struct json_object *any_model_json(const bw_server *server, const bw_exchange *x, const char *id)
{
    return bw_exchange_header(x, "anthropic-version") ? messages_model_json(server, id) : model_json(server, id);
}

static void reply_one_model(const bw_server *server, bw_exchange *x, const char *id)
{
    char message[400];
    for (int i = 0; i < server->api.n_model_ids; i++)
        if (strcmp(server->api.model_ids[i], id) == 0) {
            reply_json(x, 200, any_model_json(server, x, id));
            return;
        }
    snprintf(message, sizeof message, "The model `%.200s` does not exist, this server has `%.100s`", id, server->model_id);
    bw_exchange_fail(x, 404, NULL, "model_not_found", "model", 0, message);
}

void bw_handle_models(void *arg, bw_exchange *x)
{
    const bw_server *server = arg;
    const char *rest = bw_exchange_rest(x);
    if (rest && rest[0]) {
        reply_one_model(server, x, rest);
        return;
    }
    struct json_object *json = json_object_new_object(), *data = json_object_new_array();
    for (int i = 0; i < server->api.n_model_ids; i++)
        json_object_array_add(data, any_model_json(server, x, server->api.model_ids[i]));
    if (!bw_exchange_header(x, "anthropic-version"))
        add_string(json, "object", "list");
    json_object_object_add(json, "data", data);
    if (bw_exchange_header(x, "anthropic-version")) {
        add_bool(json, "has_more", false);
        add_string(json, "first_id", server->model_id);
        add_string(json, "last_id", server->api.model_ids[server->api.n_model_ids - 1]);
    }
    reply_json(x, 200, json);
}

/* ---- props ----------------------------------------------------------------------------------- */

static struct json_object *sampling_json(const bw_server *server, bool thinking)
{
    bw_sampling s = bw_sampling_defaults_of(server->model, true, thinking);
    struct json_object *out = json_object_new_object();
    if (server->api.openai_sampling) {
        s.temperature = s.top_p = s.repetition_penalty = 1;
        s.min_p = s.presence_penalty = s.frequency_penalty = 0;
        s.top_k = 0;
    }
    add_number(out, "temperature", (double)s.temperature);
    add_int(out, "top_k", s.top_k);
    add_number(out, "top_p", (double)s.top_p);
    add_number(out, "min_p", (double)s.min_p);
    add_number(out, "presence_penalty", (double)s.presence_penalty);
    add_number(out, "frequency_penalty", (double)s.frequency_penalty);
    add_number(out, "repetition_penalty", (double)s.repetition_penalty);
    return out;
}

static void add_memory(struct json_object *to, const bw_server *server)
{
    const bw_memory_plan *plan = bw_engine_get_plan(server->engine);
    const bw_loaded *loaded = server->loaded;
    struct json_object *out = add_object(to, "memory_plan");
    add_int(out, "weights", (int64_t)plan->weights);
    add_int(out, "packed", (int64_t)plan->packed);
    add_int(out, "kv", (int64_t)plan->kv);
    add_int(out, "state", (int64_t)plan->state);
    add_int(out, "scratch", (int64_t)plan->scratch);
    add_int(out, "checkpoints", (int64_t)plan->cache);
    add_int(out, "total", (int64_t)plan->total);
    add_int(out, "available_at_start", (int64_t)loaded->available);
    add_int(out, "headroom", (int64_t)loaded->headroom);
    add_int(out, "kv_bytes_per_token", (int64_t)plan->kv_bytes_per_token);
    add_int(out, "state_bytes_per_sequence", (int64_t)plan->state_bytes_per_sequence);
    add_int(out, "context", plan->context);
    add_int(out, "max_seqs", plan->max_seqs);
    add_int(out, "max_rows", plan->max_rows);
    add_int(out, "max_waiting", loaded->max_waiting);
}

static void add_build(struct json_object *to, const bw_server *server)
{
    const bw_model_info *info = bw_model_get_info(server->model);
    char text[160];
    snprintf(text, sizeof text, "bellwether %s, %s (%s)", bw_version(), info->cpu_level, info->cpu_name);
    bw_utf8_one_line(text);
    add_string(to, "build_info", text);
}

void bw_handle_props(void *arg, bw_exchange *x)
{
    const bw_server *server = arg;
    const bw_model_info *info = bw_model_get_info(server->model);
    bw_model_facts facts;
    bw_model_get_facts(server->model, &facts);
    struct json_object *json = json_object_new_object();
    struct json_object *settings = add_object(json, "default_generation_settings");
    add_int(settings, "n_ctx", server->api.context);
    json_object_object_add(settings, "params", sampling_json(server, true));
    json_object_object_add(settings, "params_without_thinking", sampling_json(server, false));
    add_int(json, "total_slots", bw_engine_get_plan(server->engine)->max_seqs);
    add_string(json, "model_path", info->path);
    add_string(json, "model_alias", server->model_id);
    if (facts.chat_template)
        add_text(json, "chat_template", facts.chat_template, facts.n_chat_template);
    else
        add_string(json, "chat_template", "");
    add_string(json, "chat_format", facts.chat_format ? facts.chat_format : "");
    struct json_object *modalities = add_object(json, "modalities");
    add_bool(modalities, "vision", false);
    add_bool(modalities, "audio", false);
    add_build(json, server);
    add_string(json, "system_fingerprint", server->fingerprint);
    add_string(json, "quantization", facts.quantization);
    add_memory(json, server);
    json_object_object_add(json, "self_test", bw_self_test_json(server->self_test));
    reply_json(x, 200, json);
}

/* ---- slots ----------------------------------------------------------------------------------- */

static const char *state_name(bw_seq_state state)
{
    static const char *const names[] = { [BW_SEQ_WAITING] = "waiting", [BW_SEQ_PREFILL] = "prefill",
                                         [BW_SEQ_DECODE] = "decode", [BW_SEQ_PAUSED] = "paused" };
    return names[state];
}

static struct json_object *slot_json(const bw_server *server, int id, const bw_seq_info *seq)
{
    struct json_object *out = json_object_new_object();
    add_int(out, "id", id);
    add_int(out, "n_ctx", server->api.context);
    add_bool(out, "is_processing", seq != NULL);
    add_string(out, "state", seq ? state_name(seq->state) : "idle");
    if (!seq)
        return out;
    const bw_usage *u = &seq->usage;
    add_int(out, "id_task", (int64_t)seq->id);
    add_int(out, "n_prompt_tokens", u->prompt_tokens);
    add_int(out, "n_prompt_tokens_processed", seq->n_prefilled);
    add_int(out, "n_prompt_tokens_cache", u->cached_tokens);
    add_int(out, "n_decoded", u->generated_tokens);
    add_int(out, "preemptions", u->preemptions);
    struct json_object *draft = add_object(out, "draft"), *accepted = json_object_new_array();
    add_int(draft, "length", seq->draft_length);
    add_int(draft, "verifies", u->verifies);
    add_int(draft, "drafted", u->drafted);
    for (int i = 0; i < u->draft_n; i++)
        json_object_array_add(accepted, json_object_new_int64(u->accepted_by_position[i]));
    json_object_object_add(draft, "accepted_by_position", accepted);
    return out;
}

/* Whoever runs, then the idle ones; those that wait have no slot and are left out. */
void bw_handle_slots(void *arg, bw_exchange *x)
{
    const bw_server *server = arg;
    const int max_seqs = bw_engine_get_plan(server->engine)->max_seqs, room = max_seqs + server->loaded->max_waiting;
    bw_seq_info *seqs = bw_mem_zalloc((size_t)room, sizeof *seqs, BW_MEM_MISC);
    if (!seqs) {
        bw_exchange_fail(x, 500, NULL, NULL, NULL, 0, "Out of memory");
        return;
    }
    const int n = bw_engine_thread_list(server->thread, seqs, room);
    struct json_object *json = json_object_new_array();
    int n_slots = 0;
    for (int i = 0; i < n && n_slots < max_seqs; i++)
        if (seqs[i].state != BW_SEQ_WAITING)
            json_object_array_add(json, slot_json(server, n_slots++, &seqs[i]));
    const bool full = n_slots == max_seqs;
    while (n_slots < max_seqs)
        json_object_array_add(json, slot_json(server, n_slots++, NULL));
    bw_mem_free(seqs);
    const char *fail = bw_exchange_query(x, "fail_on_no_slot");
    if (full && fail && strcmp(fail, "1") == 0) {
        json_object_put(json);
        bw_exchange_fail(x, 503, NULL, "no_slot", NULL, 1, "No slot is free");
        return;
    }
    reply_json(x, 200, json);
}

/* ---- text ------------------------------------------------------------------------------------ */

typedef bool text_fn(char **answer, const bw_api_context *context, const char *body, size_t n_body, bw_api_error *err);

/* One call of a text route on a worker. Has taken the body: the client may leave meanwhile. */
typedef struct text_job {
    text_fn *fn;
    const bw_server *server;
    bw_exchange *exchange; /* NULL: the client has left */
    char *body;
    size_t n_body;
    bool ok;
    char *answer;
    bw_api_error err;
} text_job;

static void text_run(void *arg)
{
    text_job *job = arg;
    job->ok = job->fn(&job->answer, &job->server->api, job->body, job->n_body, &job->err);
}

static void free_text_job(text_job *job)
{
    bw_mem_free(job->answer);
    bw_mem_free(job->body);
    bw_mem_free(job);
}

static void text_done(void *arg)
{
    text_job *job = arg;
    const bw_api_error *e = &job->err;
    if (job->exchange && job->ok)
        bw_exchange_reply(job->exchange, 200, json_content, job->answer, strlen(job->answer));
    else if (job->exchange)
        bw_exchange_fail(job->exchange, e->status, e->type, e->code, e->param[0] ? e->param : NULL, e->retry_after_s,
                         e->message);
    free_text_job(job);
}

static void text_gone(void *arg)
{
    text_job *job = arg;
    job->exchange = NULL;
    if (bw_work_cancel(job->server->work, job))
        free_text_job(job);
}

static void add_text_job(bw_server *server, bw_exchange *x, text_fn *fn)
{
    text_job *job = bw_mem_zalloc(1, sizeof *job, BW_MEM_MISC);
    if (!job) {
        bw_exchange_fail(x, 500, NULL, NULL, NULL, 0, "Out of memory");
        return;
    }
    *job = (text_job){ .fn = fn, .server = server, .exchange = x };
    job->body = bw_exchange_take_body(x, &job->n_body);
    bw_exchange_on_gone(x, text_gone, job);
    bw_work_add(server->work, text_run, text_done, job);
}

void bw_handle_tokenize(void *server, bw_exchange *x)
{
    add_text_job(server, x, bw_api_tokenize);
}

void bw_handle_detokenize(void *server, bw_exchange *x)
{
    add_text_job(server, x, bw_api_detokenize);
}

void bw_handle_apply_template(void *server, bw_exchange *x)
{
    add_text_job(server, x, bw_api_apply_template);
}

/* ---- what is not here ------------------------------------------------------------------------ */

void bw_handle_no_page(void *arg, bw_exchange *x)
{
    (void)arg;
    static const char text[] = "Bellwether serves an OpenAI-compatible API under /v1. There is no page here.\n";
    bw_exchange_reply(x, 200, "text/plain; charset=utf-8", text, sizeof text - 1);
}

void bw_handle_not_served(void *arg, bw_exchange *x)
{
    (void)arg;
    bw_exchange_fail(x, 404, NULL, "not_found", NULL, 0,
                     "Not served here: this server writes text (/v1/chat/completions, /v1/completions); it has no "
                     "Responses or Messages API, embeddings, audio, images, files or batches");
}
