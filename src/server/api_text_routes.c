/* api_text_routes.c - /tokenize, /detokenize and /apply-template: the text side of the model by itself.
 * Takes the bodies of vLLM and of llama.cpp. No state; any thread. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "server/api_fields.h"
#include "server/api_prompt.h"

static const char *const own_names[] = {
    "prompt", "content", "messages", "tokens", "tools", "tool_choice", "chat_template_kwargs", "reasoning_effort",
    "add_generation_prompt", "continue_final_message", "add_special_tokens", "add_special", "parse_special",
    "return_token_strs", "with_pieces",
};

typedef bool (*answer_fn)(bw_bytes *out, const bw_api_context *context, const bw_api_object *body);

/* Body in, answer out: what the three routes have in common. */
static bool answer_body(char **answer, const bw_api_context *context, const char *text, size_t n_bytes, const char *where,
                        answer_fn fn, bw_api_error *err)
{
    bw_api_body body;
    bw_bytes out = { 0 };
    *answer = NULL;
    *err = (bw_api_error){ 0 };
    if (!bw_api_body_open(&body, text, n_bytes, err))
        return false;
    const bw_api_object object = { body.root, "", err };
    bool ok = bw_api_check_model(context, &object) && fn(&out, context, &object);
    if (ok && out.failed)
        ok = bw_api_fail_memory(err);
    if (ok) {
        bw_api_log_unknown_fields(&object, where, own_names, BW_COUNT(own_names));
        *answer = out.data;
    } else {
        bw_bytes_fini(&out);
    }
    bw_api_body_close(&body);
    return ok;
}

/* ---- /tokenize ----------------------------------------------------------------------------------- */

static bool read_conversation(bw_api_prompt *out, const bw_api_context *context, const bw_api_object *body)
{
    bw_chat_prompt prompt;
    bw_api_tools tools;
    if (!bw_api_read_prompt(&prompt, &tools, context, body))
        return false;
    const bool ok = bw_api_encode_prompt(out, context, &prompt, false, body->err);
    bw_chat_prompt_fini(&prompt);
    return ok;
}

static bool read_tokens(bw_api_prompt *out, const bw_api_context *context, const bw_api_object *body)
{
    static const char *const members[] = { "prompt", "content" };
    const bw_text_source *source;
    const bw_json *text;
    bool parse_special = true, ignored; /* the family puts no token before a text */
    if (!bw_api_get_bool(body, "add_special_tokens", &ignored) || !bw_api_get_bool(body, "add_special", &ignored) ||
        !bw_api_get_bool(body, "parse_special", &parse_special))
        return false;
    for (size_t i = 0; i < BW_COUNT(members); i++) {
        if (!bw_api_get(body, members[i], BW_JSON_STRING, &text))
            return false;
        if (text)
            return bw_api_need_text(&source, context, members[i], body->err) &&
                   bw_api_encode_text(out, context, text->text, text->n_bytes, parse_special, false, members[i], body->err);
    }
    return bw_api_member(body, "messages") ? read_conversation(out, context, body)
                                           : bw_api_invalid(body, "prompt", "found nothing, expected prompt, content or messages");
}

/* A token as the vocabulary writes it: every byte as one printable character. Added tokens are ASCII,
 * which stands for itself. */
static void print_vocabulary_string(bw_bytes *out, const char *bytes, size_t n)
{
    unsigned runes[256], next = 0x100;
    for (unsigned b = 0; b < 256; b++)
        runes[b] = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174 ? b : next++;
    bw_bytes text = { 0 };
    for (size_t i = 0; i < n; i++)
        bw_bytes_add_rune(&text, runes[(unsigned char)bytes[i]]);
    bw_json_print_string(out, text.data ? text.data : "", text.n);
    out->failed |= text.failed;
    bw_bytes_fini(&text);
}

/* The token's text, or, where it is no whole text by itself, its bytes. */
static void print_piece(bw_bytes *out, const char *bytes, size_t n)
{
    char number[16];
    if (bw_utf8_valid_prefix(bytes, n) == n) {
        bw_json_print_string(out, bytes, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        snprintf(number, sizeof number, "%s%u", i ? "," : "[", (unsigned char)bytes[i]);
        bw_bytes_add_str(out, number);
    }
    bw_bytes_add_char(out, ']');
}

static void print_tokens(bw_bytes *out, const bw_tokenizer *tokenizer, const bw_api_prompt *prompt, bool pieces, bool strings)
{
    char number[48];
    bw_bytes_add_str(out, ",\"tokens\":[");
    for (int i = 0; i < prompt->n_ids; i++) {
        size_t n = 0;
        const char *bytes = bw_tokenizer_bytes(tokenizer, prompt->ids[i], &n);
        snprintf(number, sizeof number, pieces ? "%s{\"id\":%d,\"piece\":" : "%s%d", i ? "," : "", (int)prompt->ids[i]);
        bw_bytes_add_str(out, number);
        if (!pieces)
            continue;
        print_piece(out, bytes, n);
        bw_bytes_add_char(out, '}');
    }
    bw_bytes_add_char(out, ']');
    if (!strings)
        return;
    bw_bytes_add_str(out, ",\"token_strs\":[");
    for (int i = 0; i < prompt->n_ids; i++) {
        size_t n = 0;
        const char *bytes = bw_tokenizer_bytes(tokenizer, prompt->ids[i], &n);
        if (i)
            bw_bytes_add_char(out, ',');
        print_vocabulary_string(out, bytes, n);
    }
    bw_bytes_add_char(out, ']');
}

static bool tokenize(bw_bytes *out, const bw_api_context *context, const bw_api_object *body)
{
    bw_api_prompt prompt = { 0 };
    bool pieces = false, strings = false;
    char head[80];
    if (!bw_api_get_bool(body, "with_pieces", &pieces) || !bw_api_get_bool(body, "return_token_strs", &strings) ||
        !read_tokens(&prompt, context, body))
        return false;
    snprintf(head, sizeof head, "{\"count\":%d,\"max_model_len\":%d", prompt.n_ids, context->context);
    bw_bytes_add_str(out, head);
    print_tokens(out, bw_text_source_tokenizer(bw_model_text(context->model)), &prompt, pieces, strings);
    bw_bytes_add_char(out, '}');
    bw_mem_free(prompt.ids);
    return true;
}

bool bw_api_tokenize(char **answer, const bw_api_context *context, const char *body, size_t n_body, bw_api_error *err)
{
    return answer_body(answer, context, body, n_body, "/tokenize", tokenize, err);
}

/* ---- /detokenize --------------------------------------------------------------------------------- */

static bool read_ids(bw_api_prompt *out, const bw_api_context *context, const bw_api_object *body)
{
    const bw_text_source *source;
    const bw_json *list;
    if (!bw_api_need_text(&source, context, "tokens", body->err) || !bw_api_get(body, "tokens", BW_JSON_ARRAY, &list))
        return false;
    if (!list)
        return bw_api_wrong_type(body, "tokens", NULL, "an array of token ids");
    out->ids = bw_mem_zalloc(list->n_items ? list->n_items : 1, sizeof *out->ids, BW_MEM_TEXT);
    if (!out->ids)
        return bw_api_fail_memory(body->err);
    for (const bw_json *item = list->first; item; item = item->next) {
        char key[32];
        int64_t id;
        snprintf(key, sizeof key, "tokens[%d]", out->n_ids);
        if (item->kind != BW_JSON_INT && item->kind != BW_JSON_FLOAT)
            return bw_api_wrong_type(body, key, item, "a token id");
        if (!bw_api_int_of(item, &id) || id < 0 || id > INT32_MAX ||
            !bw_tokenizer_is_token(bw_text_source_tokenizer(source), (int32_t)id))
            return bw_api_invalid(body, key, "found %s, which is no token; ids are below %d",
                                  item->n_bytes <= 20 ? item->text : "a longer number", bw_text_source_n_tokens(source));
        out->ids[out->n_ids++] = (int32_t)id;
    }
    return true;
}

static bool detokenize(bw_bytes *out, const bw_api_context *context, const bw_api_object *body)
{
    bw_api_prompt tokens = { 0 };
    char *text = NULL;
    size_t n;
    bw_error found;
    bool ok = read_ids(&tokens, context, body);
    if (ok && bw_decode(context->model, tokens.ids, tokens.n_ids, false, &text, &n, &found))
        ok = bw_api_fail_from(body->err, "tokens", &found);
    if (ok) {
        bw_bytes_add_str(out, "{\"prompt\":");
        bw_json_print_string(out, text, n);
        bw_bytes_add_str(out, ",\"content\":");
        bw_json_print_string(out, text, n);
        bw_bytes_add_char(out, '}');
    }
    bw_free(text);
    bw_mem_free(tokens.ids);
    return ok;
}

bool bw_api_detokenize(char **answer, const bw_api_context *context, const char *body, size_t n_body, bw_api_error *err)
{
    return answer_body(answer, context, body, n_body, "/detokenize", detokenize, err);
}

/* ---- /apply-template ----------------------------------------------------------------------------- */

static bool apply_template(bw_bytes *out, const bw_api_context *context, const bw_api_object *body)
{
    bw_chat_prompt prompt;
    bw_api_tools tools;
    if (!bw_api_read_prompt(&prompt, &tools, context, body))
        return false;
    bw_bytes_add_str(out, "{\"prompt\":");
    bw_json_print_string(out, prompt.text, prompt.n_bytes);
    bw_bytes_add_char(out, '}');
    bw_chat_prompt_fini(&prompt);
    return true;
}

bool bw_api_apply_template(char **answer, const bw_api_context *context, const char *body, size_t n_body, bw_api_error *err)
{
    return answer_body(answer, context, body, n_body, "/apply-template", apply_template, err);
}
