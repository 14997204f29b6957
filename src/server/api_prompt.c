/* api_prompt.c - see api_prompt.h. */
#include "server/api_prompt.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* ---- what decides the prompt beside the messages ------------------------------------------------- */

typedef struct options {
    bool generation_prompt, continue_final, thinking;
    const bw_json *preserve; /* NULL: the format's default */
    const char *effort;      /* xhigh, medium, low; NULL: the format's default */
} options;

/* Words of the dialect for effort, and the nearest one that the 3.8 format knows. */
static bool read_effort(options *o, const bw_api_object *body)
{
    static const struct word {
        const char *name, *known;
    } words[] = { { "none", NULL },     { "minimal", "low" }, { "low", "low" },    { "medium", "medium" },
                  { "high", "xhigh" },  { "xhigh", "xhigh" }, { "max", "xhigh" } };
    const bw_json *effort;
    if (!bw_api_get(body, "reasoning_effort", BW_JSON_STRING, &effort))
        return false;
    if (!effort)
        return true;
    for (size_t i = 0; i < BW_COUNT(words); i++)
        if (bw_json_is(effort, words[i].name)) {
            o->thinking = i > 0;
            o->effort = words[i].known;
            return true;
        }
    return bw_api_invalid(body, "reasoning_effort", "found %s, expected none, minimal, low, medium, high, xhigh or max",
                          bw_api_quote(effort).text);
}

/* The model's own words; where both speak, these win. */
static bool read_kwargs(options *o, bw_chat_variant variant, const bw_api_object *body)
{
    static const char *const known[] = { "enable_thinking", "preserve_thinking", "reasoning_effort", "add_vision_id" };
    static const char *const efforts[] = { "xhigh", "medium", "low" };
    bw_api_object kwargs = { NULL, "chat_template_kwargs", body->err };
    const bw_json *effort;
    bool flag;
    if (!bw_api_get(body, "chat_template_kwargs", BW_JSON_OBJECT, &kwargs.json))
        return false;
    if (!kwargs.json)
        return true;
    bw_api_log_unknowns(&kwargs, "chat_template_kwargs", known, BW_COUNT(known));
    if (!bw_api_get_bool(&kwargs, "enable_thinking", &o->thinking) || !bw_api_get_bool(&kwargs, "preserve_thinking", &flag))
        return false;
    o->preserve = bw_api_member(&kwargs, "preserve_thinking");
    if (variant != BW_CHAT_38)
        return true;
    if (!bw_api_get(&kwargs, "reasoning_effort", BW_JSON_STRING, &effort))
        return false;
    if (!effort)
        return true;
    for (size_t i = 0; i < BW_COUNT(efforts); i++)
        if (bw_json_is(effort, efforts[i])) {
            o->effort = efforts[i];
            return true;
        }
    return bw_api_invalid(&kwargs, "reasoning_effort", "found %s, expected xhigh, medium or low", bw_api_quote(effort).text);
}

static bool read_options(options *o, bw_chat_variant variant, const bw_api_object *body)
{
    *o = (options){ .generation_prompt = true, .thinking = true };
    if (!bw_api_get_bool(body, "continue_final_message", &o->continue_final))
        return false;
    o->generation_prompt = !o->continue_final;
    if (!bw_api_get_bool(body, "add_generation_prompt", &o->generation_prompt) || !read_effort(o, body) ||
        !read_kwargs(o, variant, body))
        return false;
    return !(o->generation_prompt && o->continue_final) ||
           bw_api_invalid(body, "continue_final_message", "it cannot be true together with add_generation_prompt");
}

/* ---- rendering ----------------------------------------------------------------------------------- */

static void add_flag(bw_bytes *out, const char *name, bool value)
{
    bw_bytes_add_str(out, ", \"");
    bw_bytes_add_str(out, name);
    bw_bytes_add_str(out, value ? "\": true" : "\": false");
}

bool bw_api_write_request(bw_bytes *out, bw_api_tools *tools, bool *continues, bw_chat_variant variant, bw_late_system late,
                          const bw_api_object *body)
{
    options o;
    if (!bw_api_read_tools(tools, body) || !read_options(&o, variant, body))
        return false;
    *continues = o.continue_final;
    bw_bytes_add_str(out, "{\"messages\": ");
    if (!bw_api_read_messages(out, body, late))
        return false;
    if (tools->list) {
        bw_bytes_add_str(out, ", \"tools\": ");
        bw_json_print(out, tools->list);
    }
    add_flag(out, "add_generation_prompt", o.generation_prompt);
    add_flag(out, "enable_thinking", o.thinking);
    if (o.preserve)
        add_flag(out, "preserve_thinking", o.preserve->is_true);
    if (o.effort) {
        bw_bytes_add_str(out, ", \"reasoning_effort\": \"");
        bw_bytes_add_str(out, o.effort);
        bw_bytes_add_char(out, '"');
    }
    bw_bytes_add_char(out, '}');
    return !out->failed || bw_api_fail_memory(body->err);
}

/* Cuts `tail` off the prompt's markup; false when it does not end so. */
static bool cut_tail(bw_chat_prompt *prompt, const char *tail)
{
    const size_t n = strlen(tail);
    bw_chat_segment *last = &prompt->segments[prompt->n_segments - 1];
    if (!last->is_markup || last->n_bytes < n || memcmp(last->text + last->n_bytes - n, tail, n) != 0)
        return false;
    last->n_bytes -= n;
    prompt->n_segments -= last->n_bytes == 0;
    prompt->n_bytes -= n;
    prompt->text[prompt->n_bytes] = '\0';
    return true;
}

/* The last message is left open for the model to go on with. One that has reasoning and nothing else is
 * open inside its think block. */
static bool open_final(bw_chat_prompt *prompt, const bw_api_object *body)
{
    const bw_json *messages = bw_api_member(body, "messages"), *last = messages->first;
    size_t index = 0;
    for (; last->next; last = last->next)
        index++;
    char path[64];
    snprintf(path, sizeof path, "messages[%zu]", index);
    const bw_api_object message = { last, path, body->err };
    const bw_json *calls = bw_api_member(&message, "tool_calls");
    if (!bw_json_is(bw_api_member(&message, "role"), "assistant"))
        return bw_api_invalid(&message, "role", "continue_final_message wants the last message to be the assistant's");
    if (calls && calls->n_items)
        return bw_api_invalid(&message, "tool_calls", "continue_final_message goes on with text, not with tool calls");
    static const char end[] = "<|im_end|>\n", think_end[] = "\n</think>\n\n", think[] = "<think>\n";
    if (!cut_tail(prompt, end))
        return bw_api_fail(body->err, 500, "internal", "", "The chat format did not end its last message as expected.");
    const size_t n_open = sizeof think - 1, n_close = sizeof think_end - 1;
    const bool ends_closed = prompt->n_bytes >= n_close + n_open &&
                             memcmp(prompt->text + prompt->n_bytes - n_close, think_end, n_close) == 0;
    const bool is_empty = ends_closed && memcmp(prompt->text + prompt->n_bytes - n_close - n_open, think, n_open) == 0;
    prompt->thinking = ends_closed && !is_empty && cut_tail(prompt, think_end);
    return true;
}

bool bw_api_need_text(const bw_text_source **out, const bw_api_context *context, const char *param, bw_api_error *err)
{
    *out = bw_model_text(context->model);
    return *out || bw_api_fail(err, 400, "unsupported_parameter", param,
                               "%s: no tokenizer came with the model, so it takes prompts of token ids only (%s)", param,
                               bw_model_get_info(context->model)->text_note);
}

bool bw_api_read_prompt(bw_chat_prompt *out, bw_api_tools *tools, const bw_api_context *context, const bw_api_object *body)
{
    const bw_text_source *text;
    bw_bytes request = { 0 };
    bool continues;
    bw_error found;
    *out = (bw_chat_prompt){ 0 };
    if (!bw_api_need_text(&text, context, "messages", body->err))
        return false;
    const bw_chat_variant variant = bw_text_source_chat(text);
    bool ok = bw_api_write_request(&request, tools, &continues, variant, context->late_system, body);
    if (ok && bw_chat_render(out, variant, request.data, request.n, &found))
        ok = bw_api_fail_from(body->err, "messages", &found);
    bw_bytes_fini(&request);
    if (ok && continues && !open_final(out, body)) {
        bw_chat_prompt_fini(out);
        ok = false;
    }
    return ok;
}

/* ---- tokens -------------------------------------------------------------------------------------- */

bool bw_api_check_context(const bw_api_context *context, int n_prompt, int max_tokens, const char *param, bw_api_error *err)
{
    if (n_prompt < context->context || (n_prompt == context->context && max_tokens == 0))
        return true;
    return bw_api_fail(err, 400, "context_length_exceeded", param,
                       "This model's maximum context length is %d tokens. However, your request has %d tokens in the %s, "
                       "and an answer of at least 1 token must fit too. Please shorten the %s.",
                       context->context, n_prompt, param, param);
}

/* Refuses texts that are too long whatever their tokens are. */
static bool check_bytes(const bw_api_context *context, const bw_tokenizer *tokenizer, size_t n_bytes, const char *param,
                        bw_api_error *err)
{
    enum { NFC_SHRINKS = 4 }; /* composed text has at least a third of the bytes */
    const uint64_t most = (uint64_t)context->context * bw_tokenizer_longest(tokenizer) * NFC_SHRINKS;
    if (n_bytes <= most && n_bytes <= BW_MAX_TEXT_BYTES)
        return true;
    return bw_api_fail(err, 400, "context_length_exceeded", param,
                       "This model's maximum context length is %d tokens. However, your request has %zu bytes of text in the %s, "
                       "which are more than %d tokens. Please shorten the %s.",
                       context->context, n_bytes, param, context->context, param);
}

/* Refuses texts of which the beginning alone is twice what fits: tokenising tens of megabytes only to
 * refuse them would hold up a worker for seconds. What follows can change but the last piece of it. */
static bool check_beginning(const bw_api_context *context, const bw_tokenizer *tokenizer, bw_text_part *parts, size_t n_parts,
                            size_t n_bytes, const char *param, bw_api_error *err)
{
    enum { BYTES_A_TOKEN = 12, MORE = 4096 }; /* ordinary text has 3 to 5 */
    size_t left = (size_t)context->context * BYTES_A_TOKEN + MORE, n = 0;
    if (n_bytes <= 2 * left)
        return true;
    while (n < n_parts && parts[n].n_bytes <= left)
        left -= parts[n++].n_bytes;
    int32_t *ids;
    int n_ids;
    bw_error found;
    const size_t whole = n < n_parts ? parts[n].n_bytes : 0;
    if (n < n_parts) {
        while (left > 0 && ((unsigned char)parts[n].text[left] & 0xC0) == 0x80) /* not inside a character */
            left--;
        parts[n].n_bytes = left;
    }
    const bw_status st = bw_tokenizer_encode_parts(tokenizer, parts, n + (n < n_parts && left > 0), &ids, &n_ids, &found);
    if (n < n_parts)
        parts[n].n_bytes = whole;
    if (st)
        return bw_api_fail_from(err, param, &found);
    bw_mem_free(ids);
    if (n_ids / 2 <= context->context)
        return true;
    return bw_api_fail(err, 400, "context_length_exceeded", param,
                       "This model's maximum context length is %d tokens. However, your request has more than %d tokens in the %s, "
                       "and an answer of at least 1 token must fit too. Please shorten the %s.",
                       context->context, n_ids, param, param);
}

static bool encode(bw_api_prompt *out, const bw_api_context *context, bw_text_part *parts, size_t n_parts, size_t n_bytes,
                   bool to_run, const char *param, const char *path, bw_api_error *err)
{
    const bw_tokenizer *tokenizer = bw_text_source_tokenizer(bw_model_text(context->model));
    bw_error found;
    if (!check_bytes(context, tokenizer, n_bytes, param, err) ||
        (to_run && !check_beginning(context, tokenizer, parts, n_parts, n_bytes, param, err)))
        return false;
    const bw_status st = bw_tokenizer_encode_parts(tokenizer, parts, n_parts, &out->ids, &out->n_ids, &found);
    return !st || bw_api_fail_from(err, path, &found);
}

bool bw_api_encode_prompt(bw_api_prompt *out, const bw_api_context *context, const bw_chat_prompt *prompt, bool to_run,
                          bw_api_error *err)
{
    bw_text_part *parts = bw_mem_zalloc(prompt->n_segments, sizeof *parts, BW_MEM_TEXT);
    if (!parts)
        return bw_api_fail_memory(err);
    for (size_t i = 0; i < prompt->n_segments; i++) {
        const bw_chat_segment *s = &prompt->segments[i];
        parts[i] = (bw_text_part){ s->text, s->n_bytes, s->is_markup ? BW_MATCH_ALL : BW_MATCH_PLAIN };
    }
    const bool ok = encode(out, context, parts, prompt->n_segments, prompt->n_bytes, to_run, "messages", "messages", err);
    bw_mem_free(parts);
    return ok;
}

bool bw_api_encode_text(bw_api_prompt *out, const bw_api_context *context, const char *text, size_t n_bytes, bool special,
                        bool to_run, const char *path, bw_api_error *err)
{
    bw_text_part part = { text, n_bytes, special ? BW_MATCH_ALL : BW_MATCH_NONE };
    return encode(out, context, &part, 1, n_bytes, to_run, "prompt", path, err);
}
