/* api_completion.c - the body of a completion: prompts as text or ids, and what is to come back of them.
 * No state; any thread. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/api_fields.h"
#include "server/api_prompt.h"

enum { MAX_PROMPTS = 2048, DEFAULT_MAX_TOKENS = 16 };

static const char *const own_names[] = { "prompt", "suffix", "best_of", "add_special_tokens" };

/* ---- prompts ------------------------------------------------------------------------------------- */

static bool read_ids(bw_api_prompt *out, const bw_api_context *context, const bw_api_object *body, const bw_json *list,
                     const char *path)
{
    const bw_text_source *text = bw_model_text(context->model);
    const int n_tokens = bw_model_get_info(context->model)->n_tokens;
    char key[80];
    if (list->n_items >= INT32_MAX || (int)list->n_items > context->context)
        return bw_api_check_context(context, list->n_items < INT32_MAX ? (int)list->n_items : INT32_MAX, -1, "prompt", body->err);
    out->ids = bw_mem_zalloc(list->n_items ? list->n_items : 1, sizeof *out->ids, BW_MEM_TEXT);
    if (!out->ids)
        return bw_api_fail_memory(body->err);
    for (const bw_json *item = list->first; item; item = item->next) {
        int64_t id;
        snprintf(key, sizeof key, "%s[%d]", path, out->n_ids);
        if (item->kind != BW_JSON_INT && item->kind != BW_JSON_FLOAT)
            return bw_api_wrong_type(body, key, item, "a token id");
        if (!bw_api_int_of(item, &id) || id < 0 || id >= n_tokens ||
            (text && !bw_tokenizer_is_token(bw_text_source_tokenizer(text), (int32_t)id)))
            return bw_api_invalid(body, key, "found %s, which is no token; ids are below %d",
                                  item->n_bytes <= 20 ? item->text : "a longer number", n_tokens);
        out->ids[out->n_ids++] = (int32_t)id;
    }
    return true;
}

static bool read_one(bw_api_prompt *out, const bw_api_context *context, const bw_api_object *body, const bw_json *prompt,
                     const char *path)
{
    const bw_text_source *text;
    if (prompt->kind == BW_JSON_ARRAY)
        return read_ids(out, context, body, prompt, path);
    if (prompt->kind != BW_JSON_STRING)
        return bw_api_wrong_type(body, path, prompt, "text or an array of token ids");
    return bw_api_need_text(&text, context, path, body->err) &&
           bw_api_encode_text(out, context, prompt->text, prompt->n_bytes, true, true, path, body->err);
}

/* One text, several, the ids of one, those of several. */
static bool read_prompts(bw_api_request *out, const bw_api_context *context, const bw_api_object *body)
{
    const bw_json *prompt = bw_api_member(body, "prompt");
    if (!prompt || (prompt->kind != BW_JSON_STRING && prompt->kind != BW_JSON_ARRAY))
        return bw_api_wrong_type(body, "prompt", prompt, "text, token ids, or an array of either");
    const bool several = prompt->kind == BW_JSON_ARRAY && prompt->first &&
                         (prompt->first->kind == BW_JSON_STRING || prompt->first->kind == BW_JSON_ARRAY);
    const size_t n = several ? prompt->n_items : 1;
    if (n > MAX_PROMPTS)
        return bw_api_invalid(body, "prompt", "found %zu prompts, at most %d are taken", n, MAX_PROMPTS);
    out->prompts = bw_mem_zalloc(n, sizeof *out->prompts, BW_MEM_TEXT);
    if (!out->prompts)
        return bw_api_fail_memory(body->err);
    out->n_prompts = (int)n;
    const bw_json *item = several ? prompt->first : prompt;
    for (int i = 0; i < out->n_prompts; i++, item = item->next) {
        char path[32] = "prompt";
        if (several)
            snprintf(path, sizeof path, "prompt[%d]", i);
        if (several && item->kind != prompt->first->kind)
            return bw_api_wrong_type(body, path, item, prompt->first->kind == BW_JSON_STRING ? "a string, as the first prompt is"
                                                                                             : "an array of ids, as the first prompt is");
        if (!read_one(&out->prompts[i], context, body, item, path))
            return false;
        if (!out->prompts[i].n_ids)
            return bw_api_invalid(body, path, "it is empty, expected at least one token");
    }
    return true;
}

/* ---- fill in the middle -------------------------------------------------------------------------- */

typedef struct markers {
    int32_t prefix, suffix, middle;
} markers;

static bool find_markers(markers *out, const bw_api_context *context, const bw_api_object *body)
{
    static const char *const names[] = { "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>" };
    int32_t ids[BW_COUNT(names)];
    const bw_text_source *text;
    if (!bw_api_need_text(&text, context, "suffix", body->err))
        return false;
    for (size_t i = 0; i < BW_COUNT(names); i++) {
        ids[i] = bw_tokenizer_find(bw_text_source_tokenizer(text), names[i], strlen(names[i]));
        if (ids[i] < 0)
            return bw_api_unsupported(body, "suffix", "the model cannot fill in the middle: its tokenizer has no %s", names[i]);
    }
    *out = (markers){ ids[0], ids[1], ids[2] };
    return true;
}

/* prefix marker, prompt, suffix marker, suffix, middle marker */
static bool surround(bw_api_prompt *prompt, const bw_api_context *context, const markers *m, const bw_api_prompt *suffix,
                     bw_api_error *err)
{
    const int64_t n = (int64_t)prompt->n_ids + suffix->n_ids + 3;
    if (!bw_api_check_context(context, n < INT32_MAX ? (int)n : INT32_MAX, -1, "prompt", err))
        return false;
    int32_t *ids = bw_mem_zalloc((size_t)n, sizeof *ids, BW_MEM_TEXT);
    if (!ids)
        return bw_api_fail_memory(err);
    int32_t *p = ids;
    *p++ = m->prefix;
    memcpy(p, prompt->ids, (size_t)prompt->n_ids * sizeof *p);
    p += prompt->n_ids;
    *p++ = m->suffix;
    memcpy(p, suffix->ids, (size_t)suffix->n_ids * sizeof *p);
    p += suffix->n_ids;
    *p = m->middle;
    bw_mem_free(prompt->ids);
    *prompt = (bw_api_prompt){ ids, (int)n };
    return true;
}

static bool read_suffix(bw_api_request *out, const bw_api_context *context, const bw_api_object *body)
{
    const bw_json *text;
    markers m = { 0 };
    bw_api_prompt suffix = { 0 };
    if (!bw_api_get(body, "suffix", BW_JSON_STRING, &text))
        return false;
    if (!text || !text->n_bytes)
        return true;
    if (out->echo)
        return bw_api_invalid(body, "suffix", "it cannot stand together with echo");
    if (!find_markers(&m, context, body) ||
        !bw_api_encode_text(&suffix, context, text->text, text->n_bytes, true, true, "suffix", body->err))
        return false;
    bool ok = true;
    for (int i = 0; i < out->n_prompts && ok; i++)
        ok = surround(&out->prompts[i], context, &m, &suffix, body->err);
    bw_mem_free(suffix.ids);
    return ok;
}

/* ---- the rest ------------------------------------------------------------------------------------ */

static bool read_counts(bw_api_request *out, const bw_api_object *body, int64_t *limit)
{
    int best_of = 1;
    *limit = DEFAULT_MAX_TOKENS;
    if (!bw_api_get_bool(body, "echo", &out->echo) || !bw_api_get_int(body, "max_tokens", 0, INT64_MAX, limit) ||
        !bw_api_get_int32(body, "logprobs", 0, BW_MAX_LOGPROBS, &out->n_logprobs) ||
        !bw_api_get_int32(body, "best_of", 1, INT32_MAX, &best_of))
        return false;
    if (*limit == 0 && !out->echo)
        return bw_api_invalid(body, "max_tokens", "0 is for echo alone, expected at least 1");
    if (best_of != 1 && best_of != out->n)
        return bw_api_unsupported(body, "best_of", "found %d, expected n (%d) or 1: answers are not ranked", best_of, out->n);
    return bw_api_check_min_tokens(out, bw_api_member(body, "max_tokens") ? *limit : -1, body);
}

static bool read_completion(bw_api_request *out, const bw_api_context *context, const bw_api_object *body)
{
    int64_t limit;
    if (!bw_api_check_model(context, body) || !bw_api_refuse_unsupported(body) || !bw_api_read_common(out, context, body) ||
        !read_counts(out, body, &limit) || !bw_api_read_sampling(out, context, body) || !read_prompts(out, context, body) ||
        !read_suffix(out, context, body))
        return false;
    int room = 0; /* of the shortest prompt: the engine clamps the others */
    for (int i = 0; i < out->n_prompts; i++) {
        const int n = out->prompts[i].n_ids;
        if (!bw_api_check_context(context, n, limit == 0 ? 0 : -1, "prompt", body->err))
            return false;
        if (context->context - n > room)
            room = context->context - n;
    }
    out->max_tokens = limit < room ? (int)limit : room;
    return true;
}

bool bw_api_read_completion(bw_api_request *out, const bw_api_context *context, const char *text, size_t n_bytes,
                            bw_api_error *err)
{
    bw_api_body body;
    *out = (bw_api_request){ .kind = BW_API_COMPLETION, .n_logprobs = -1, .think_budget = -1 };
    *err = (bw_api_error){ 0 };
    if (!bw_api_body_open(&body, text, n_bytes, err))
        return false;
    const bw_api_object object = { body.root, "", err };
    const bool ok = read_completion(out, context, &object);
    if (ok)
        bw_api_log_unknown_fields(&object, "completions", own_names, BW_COUNT(own_names));
    else
        bw_api_request_fini(out);
    bw_api_body_close(&body);
    return ok;
}
