/* api_fields.c - see api_fields.h. */
#include "server/api_fields.h"

#include <float.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "base/mem.h"
#include "engine/model_text.h"

enum { MAX_STOPS = 16, MAX_STOP_BYTES = 256, MAX_STOP_TOKENS = 256, MAX_STREAM_INTERVAL = 1 << 20 };

/* ---- names --------------------------------------------------------------------------------------- */

/* Read here, or accepted and of no effect; docs/server.md lists which. */
static const char *const common_names[] = {
    "model", "stream", "stream_options", "stream_interval", "n", "temperature", "top_p", "top_k", "min_p",
    "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "seed", "stop",
    "include_stop_str_in_output", "stop_token_ids", "ignore_eos", "min_tokens", "max_tokens", "logprobs", "echo",
    "cache_salt", "cache_prompt", "priority", "return_token_ids", "return_tokens_as_token_ids", "draft", "loop_guard",
    "response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
    "json_schema", "grammar", "functions", "modalities", "audio", "web_search_options",
    "store", "metadata", "user", "service_tier", "safety_identifier", "prompt_cache_key", "prediction", "verbosity",
    "kv_transfer_params",
};

void bw_api_log_unknown_fields(const bw_api_object *body, const char *where, const char *const *own, size_t n_own)
{
    const char *names[BW_COUNT(common_names) + 32];
    size_t n = BW_COUNT(common_names);
    memcpy(names, common_names, sizeof common_names);
    for (size_t i = 0; i < n_own && n < BW_COUNT(names); i++)
        names[n++] = own[i];
    bw_api_log_unknowns(body, where, names, n);
}

bool bw_api_check_model(const bw_api_context *context, const bw_api_object *body)
{
    const bw_json *model;
    if (!bw_api_get(body, "model", BW_JSON_STRING, &model))
        return false;
    if (!model || !model->n_bytes)
        return true;
    for (int i = 0; i < context->n_model_ids; i++)
        if (bw_json_is(model, context->model_ids[i]))
            return true;
    return bw_api_fail(body->err, 404, "model_not_found", "model", "The model %s does not exist here; this server has \"%s\".",
                       bw_api_quote(model).text, context->n_model_ids > 0 ? context->model_ids[0] : "");
}

/* ---- what is refused ----------------------------------------------------------------------------- */

static bool refuse_format(const bw_api_object *body)
{
    bw_api_object format = { NULL, "response_format", body->err };
    const bw_json *type;
    if (!bw_api_get(body, "response_format", BW_JSON_OBJECT, &format.json))
        return false;
    if (!format.json)
        return true;
    if (!bw_api_get(&format, "type", BW_JSON_STRING, &type))
        return false;
    if (bw_json_is(type, "text"))
        return true;
    if (bw_json_is(type, "json_object") || bw_json_is(type, "json_schema"))
        return bw_api_unsupported(body, "response_format", "type %s needs constrained decoding, which is not in this version",
                                  bw_api_quote(type).text);
    return bw_api_invalid(&format, "type", "found %s, expected \"text\", \"json_object\" or \"json_schema\"",
                          type ? bw_api_quote(type).text : "nothing");
}

static bool refuse_modalities(const bw_api_object *body)
{
    const bw_json *modalities;
    if (!bw_api_get(body, "modalities", BW_JSON_ARRAY, &modalities))
        return false;
    for (const bw_json *m = modalities ? modalities->first : NULL; m; m = m->next)
        if (!bw_json_is(m, "text"))
            return bw_api_unsupported(body, "modalities", "answers are text only, expected [\"text\"]");
    return true;
}

bool bw_api_refuse_unsupported(const bw_api_object *body)
{
    static const struct refused {
        const char *name, *why;
    } refused[] = {
        { "structured_outputs", "constrained decoding is not in this version" },
        { "guided_json", "constrained decoding is not in this version" },
        { "guided_regex", "constrained decoding is not in this version" },
        { "guided_choice", "constrained decoding is not in this version" },
        { "guided_grammar", "constrained decoding is not in this version" },
        { "json_schema", "constrained decoding is not in this version" },
        { "grammar", "constrained decoding is not in this version" },
        { "functions", "the older form of tools is not taken: use tools" },
        { "audio", "answers are text only" },
        { "web_search_options", "this server does not search the web" },
    };
    for (size_t i = 0; i < BW_COUNT(refused); i++) {
        const bw_json *value = bw_api_member(body, refused[i].name);
        if (value && !bw_json_is(value, "")) /* some clients send every field, empty */
            return bw_api_unsupported(body, refused[i].name, "%s", refused[i].why);
    }
    return refuse_format(body) && refuse_modalities(body);
}

/* ---- stops --------------------------------------------------------------------------------------- */

static bool add_stop(bw_api_request *out, const bw_api_object *body, const bw_json *text, const char *key)
{
    if (text->kind != BW_JSON_STRING)
        return bw_api_wrong_type(body, key, text, "a string");
    if (!text->n_bytes || text->n_bytes > MAX_STOP_BYTES || strlen(text->text) != text->n_bytes)
        return bw_api_invalid(body, key, "found a string of %zu bytes, expected 1 to %d and no NUL", text->n_bytes, MAX_STOP_BYTES);
    out->stops[out->n_stops] = bw_mem_dup(text->text, text->n_bytes);
    if (!out->stops[out->n_stops])
        return bw_api_fail_memory(body->err);
    out->n_stops++;
    return true;
}

static bool read_stops(bw_api_request *out, const bw_api_object *body)
{
    const bw_json *stop = bw_api_member(body, "stop");
    if (!stop)
        return true;
    if (stop->kind != BW_JSON_STRING && stop->kind != BW_JSON_ARRAY)
        return bw_api_wrong_type(body, "stop", stop, "a string or an array of strings");
    if (stop->kind == BW_JSON_ARRAY && stop->n_items > MAX_STOPS)
        return bw_api_invalid(body, "stop", "found %zu strings, at most %d are taken", stop->n_items, MAX_STOPS);
    out->stops = bw_mem_zalloc(MAX_STOPS, sizeof *out->stops, BW_MEM_TEXT);
    if (!out->stops)
        return bw_api_fail_memory(body->err);
    if (stop->kind == BW_JSON_STRING)
        return add_stop(out, body, stop, "stop");
    size_t i = 0;
    for (const bw_json *item = stop->first; item; item = item->next, i++) {
        char key[32];
        snprintf(key, sizeof key, "stop[%zu]", i);
        if (!add_stop(out, body, item, key))
            return false;
    }
    return true;
}

static bool read_stop_tokens(bw_api_request *out, const bw_api_context *context, const bw_api_object *body)
{
    const bw_json *list;
    const int vocab = bw_model_get_info(context->model)->vocab;
    if (!bw_api_get(body, "stop_token_ids", BW_JSON_ARRAY, &list))
        return false;
    if (!list || !list->n_items)
        return true;
    if (list->n_items > MAX_STOP_TOKENS)
        return bw_api_invalid(body, "stop_token_ids", "found %zu ids, at most %d are taken", list->n_items, MAX_STOP_TOKENS);
    out->stop_tokens = bw_mem_zalloc(list->n_items, sizeof *out->stop_tokens, BW_MEM_TEXT);
    if (!out->stop_tokens)
        return bw_api_fail_memory(body->err);
    for (const bw_json *item = list->first; item; item = item->next) {
        int64_t id;
        char key[48];
        snprintf(key, sizeof key, "stop_token_ids[%d]", out->n_stop_tokens);
        if (item->kind != BW_JSON_INT && item->kind != BW_JSON_FLOAT)
            return bw_api_wrong_type(body, key, item, "a token id");
        if (!bw_api_int_of(item, &id) || id < 0 || id >= vocab)
            return bw_api_invalid(body, key, "expected a token id from 0 to %d", vocab - 1);
        out->stop_tokens[out->n_stop_tokens++] = (int32_t)id;
    }
    return true;
}

/* ---- logit bias ---------------------------------------------------------------------------------- */

/* A token id as the digits of a key; -1 when it is none. One spelling for each id, so none comes twice. */
static int32_t id_of_key(const bw_json *member, int vocab)
{
    int32_t id = 0;
    if (!member->key_bytes || member->key_bytes > 9 || (member->key[0] == '0' && member->key_bytes > 1))
        return -1;
    for (size_t i = 0; i < member->key_bytes; i++) {
        if (member->key[i] < '0' || member->key[i] > '9')
            return -1;
        id = id * 10 + (member->key[i] - '0');
    }
    return id < vocab ? id : -1;
}

static bool read_bias(bw_api_request *out, const bw_api_context *context, const bw_api_object *body)
{
    bw_api_object bias = { NULL, "logit_bias", body->err };
    const int vocab = bw_model_get_info(context->model)->vocab;
    if (!bw_api_get(body, "logit_bias", BW_JSON_OBJECT, &bias.json))
        return false;
    if (!bias.json || !bias.json->n_items)
        return true;
    if (bias.json->n_items > BW_MAX_LOGIT_BIAS)
        return bw_api_invalid(body, "logit_bias", "found %zu entries, at most %d are taken", bias.json->n_items, BW_MAX_LOGIT_BIAS);
    out->bias = bw_mem_zalloc(bias.json->n_items, sizeof *out->bias, BW_MEM_TEXT);
    if (!out->bias)
        return bw_api_fail_memory(body->err);
    for (const bw_json *item = bias.json->first; item; item = item->next) {
        const int32_t id = id_of_key(item, vocab);
        const bw_json key = { .kind = BW_JSON_STRING, .text = item->key, .n_bytes = item->key_bytes };
        if (id < 0)
            return bw_api_invalid(body, "logit_bias", "found the key %s, expected a token id from \"0\" to \"%d\"",
                                  bw_api_quote(&key).text, vocab - 1);
        float value = 0;
        if (!bw_api_get_float(&bias, item->key, -100, 100, "", &value))
            return false;
        out->bias[out->n_bias++] = (bw_logit_bias){ id, value };
    }
    return true;
}

/* ---- the others ---------------------------------------------------------------------------------- */

static bool read_stream(bw_api_request *out, const bw_api_context *context, const bw_api_object *body)
{
    bw_api_object options = { NULL, "stream_options", body->err };
    out->stream_interval = context->default_stream_interval > 0 ? context->default_stream_interval : 1;
    if (!bw_api_get_bool(body, "stream", &out->stream) ||
        !bw_api_get_int32(body, "stream_interval", 1, MAX_STREAM_INTERVAL, &out->stream_interval) ||
        !bw_api_get(body, "stream_options", BW_JSON_OBJECT, &options.json))
        return false;
    if (options.json && (!bw_api_get_bool(&options, "include_usage", &out->include_usage) ||
                         !bw_api_get_bool(&options, "continuous_usage_stats", &out->continuous_usage)))
        return false;
    out->include_usage = out->include_usage && out->stream;
    out->continuous_usage = out->continuous_usage && out->include_usage;
    return true;
}

/* The first eight bytes of the salt's SHA-256: nobody finds another salt with the same number. 0 is
 * "no salt", which no salt may be. */
static bool read_salt(bw_api_request *out, const bw_api_object *body)
{
    const bw_json *salt;
    unsigned char digest[EVP_MAX_MD_SIZE];
    if (!bw_api_get(body, "cache_salt", BW_JSON_STRING, &salt))
        return false;
    if (!salt)
        return true;
    if (EVP_Digest(salt->text, salt->n_bytes, digest, NULL, EVP_sha256(), NULL) != 1)
        return bw_api_fail_memory(body->err);
    for (int i = 0; i < 8; i++)
        out->cache_salt = out->cache_salt << 8 | digest[i];
    out->cache_salt += out->cache_salt == 0;
    return true;
}

static bool read_draft(bw_api_request *out, const bw_api_context *context, const bw_api_object *body)
{
    const bw_json *draft = bw_api_member(body, "draft");
    out->draft = BW_DRAFT_AUTO;
    if (!draft || bw_json_is(draft, "auto"))
        return true;
    if (draft->kind == BW_JSON_STRING)
        return bw_api_invalid(body, "draft", "found %s, expected \"auto\" or a number from 0 to %d", bw_api_quote(draft).text,
                              BW_MAX_DRAFTS);
    if (!bw_api_get_int32(body, "draft", 0, BW_MAX_DRAFTS, &out->draft))
        return false;
    const bw_model_info *info = bw_model_get_info(context->model);
    return out->draft == 0 || info->has_mtp || bw_api_invalid(body, "draft", "this model cannot draft: %s", info->mtp_note);
}

bool bw_api_read_common(bw_api_request *out, const bw_api_context *context, const bw_api_object *body)
{
    bool cache = true, guard;
    out->n = 1;
    if (!read_stream(out, context, body) || !bw_api_get_int32(body, "n", 1, context->max_n > 0 ? context->max_n : 1, &out->n) ||
        !bw_api_get_bool(body, "ignore_eos", &out->ignore_eos) ||
        !bw_api_get_int32(body, "min_tokens", 0, INT32_MAX, &out->min_tokens) ||
        !bw_api_get_bool(body, "include_stop_str_in_output", &out->include_stop) ||
        !bw_api_get_bool(body, "return_token_ids", &out->return_token_ids) ||
        !bw_api_get_bool(body, "return_tokens_as_token_ids", &out->tokens_as_ids) ||
        !bw_api_get_bool(body, "cache_prompt", &cache) ||
        !bw_api_get_int32(body, "priority", INT32_MIN, INT32_MAX, &out->priority))
        return false;
    guard = out->loop_guard && !out->ignore_eos; /* who measures wants as many tokens as were asked for */
    if (!bw_api_get_bool(body, "loop_guard", &guard))
        return false;
    out->no_cache = !cache;
    out->loop_guard = guard;
    return read_salt(out, body) && read_draft(out, context, body) && read_stops(out, body) &&
           read_stop_tokens(out, context, body) && read_bias(out, context, body);
}

bool bw_api_check_min_tokens(const bw_api_request *request, int64_t max_tokens, const bw_api_object *body)
{
    return max_tokens < 0 || request->min_tokens <= max_tokens ||
           bw_api_invalid(body, "min_tokens", "found %d, more than the %" PRId64 " tokens the answer may have", request->min_tokens,
                          max_tokens);
}

/* ---- sampling ------------------------------------------------------------------------------------ */

static bool read_seed(bw_api_request *out, const bw_api_object *body)
{
    int64_t seed = -1;
    if (bw_api_member(body, "seed")) {
        if (!bw_api_get_int(body, "seed", INT64_MIN, INT64_MAX, &seed))
            return false;
        out->sampling.seed = (uint64_t)seed;
        return true;
    }
    unsigned char random[8];
    if (RAND_bytes(random, sizeof random) != 1)
        return bw_api_fail(body->err, 500, "internal", "", "The system gave no random numbers.");
    uint64_t drawn = 0;
    for (size_t i = 0; i < sizeof random; i++)
        drawn = drawn << 8 | random[i];
    out->sampling.seed = drawn >> 12; /* 52 bits: clients that know only doubles can send it back */
    return true;
}

bool bw_api_read_sampling(bw_api_request *out, const bw_api_context *context, const bw_api_object *body)
{
    bw_sampling *s = &out->sampling;
    *s = context->openai_sampling ? (bw_sampling){ .temperature = 1, .top_p = 1, .repetition_penalty = 1 }
                                  : bw_sampling_defaults_of(context->model, out->kind == BW_API_CHAT, out->thinking);
    if (!bw_api_get_float(body, "temperature", 0, 2, "", &s->temperature) ||
        !bw_api_get_float(body, "top_p", 0, 1, "l", &s->top_p) ||
        !bw_api_get_int32(body, "top_k", -1, INT32_MAX, &s->top_k) ||
        !bw_api_get_float(body, "min_p", 0, 1, "h", &s->min_p) ||
        !bw_api_get_float(body, "presence_penalty", -2, 2, "", &s->presence_penalty) ||
        !bw_api_get_float(body, "frequency_penalty", -2, 2, "", &s->frequency_penalty) ||
        !bw_api_get_float(body, "repetition_penalty", 0, 100, "l", &s->repetition_penalty))
        return false;
    if (s->top_p < FLT_MIN) /* above 0, as asked, also as a float */
        s->top_p = FLT_MIN;
    if (s->repetition_penalty < FLT_MIN)
        s->repetition_penalty = FLT_MIN;
    return read_seed(out, body);
}
