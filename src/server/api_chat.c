/* api_chat.c - the body of a chat completion. No state; any thread. */
#include <string.h>

#include "base/mem.h"
#include "server/api_fields.h"
#include "server/api_prompt.h"

static const char *const own_names[] = {
    "messages", "max_completion_tokens", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls",
    "chat_template_kwargs", "reasoning_effort", "thinking_token_budget", "reasoning_budget", "include_reasoning",
    "add_generation_prompt", "continue_final_message",
};

static bool read_logprobs(bw_api_request *out, const bw_api_object *body)
{
    bool wanted = false;
    int n = 0;
    if (!bw_api_get_bool(body, "logprobs", &wanted) || !bw_api_get_int32(body, "top_logprobs", 0, BW_MAX_LOGPROBS, &n))
        return false;
    if (n > 0 && !wanted)
        return bw_api_invalid(body, "top_logprobs", "it is %d, but logprobs is not true", n);
    if (wanted)
        out->n_logprobs = n;
    return true;
}

/* *asked: what the body says, -1 for nothing. */
static bool read_limit(int64_t *asked, const bw_api_object *body)
{
    int64_t old = -1;
    *asked = -1;
    if (!bw_api_get_int(body, "max_completion_tokens", 1, INT64_MAX, asked) ||
        !bw_api_get_int(body, "max_tokens", 1, INT64_MAX, &old))
        return false;
    if (*asked < 0)
        *asked = old;
    return true;
}

static bool read_budget(bw_api_request *out, const bw_api_object *body)
{
    int other = -1;
    if (!bw_api_get_int32(body, "thinking_token_budget", -1, INT32_MAX, &out->think_budget) ||
        !bw_api_get_int32(body, "reasoning_budget", -1, INT32_MAX, &other))
        return false;
    if (!bw_api_member(body, "thinking_token_budget"))
        out->think_budget = other;
    return true;
}

static bool read_flags(bw_api_request *out, const bw_api_object *body)
{
    bool many = true, echo = false;
    out->include_reasoning = true;
    if (!bw_api_get_bool(body, "include_reasoning", &out->include_reasoning) ||
        !bw_api_get_bool(body, "parallel_tool_calls", &many) || !bw_api_get_bool(body, "echo", &echo))
        return false;
    out->one_call = !many;
    return !echo || bw_api_unsupported(body, "echo", "only completions can echo their prompt");
}

static bool keep_tools(bw_api_request *out, const bw_api_tools *tools, bw_api_error *err)
{
    bw_bytes text = { 0 };
    if (!tools->parse_calls)
        return true;
    bw_json_print(&text, tools->list);
    if (text.failed) {
        bw_bytes_fini(&text);
        return bw_api_fail_memory(err);
    }
    out->tools_json = text.data;
    out->n_tools_json = text.n;
    return true;
}

/* Where other requests part from this prompt: after the system turn with its tools, and before the last
 * turn begins. Messages cannot contain the token that begins a turn. */
static void set_marks(bw_api_request *out, const bw_api_context *context, const bw_chat_prompt *prompt)
{
    static const char turn[] = "<|im_start|>", system[] = "<|im_start|>system\n";
    const bw_tokenizer *tokenizer = bw_text_source_tokenizer(bw_model_text(context->model));
    const int32_t begin = bw_tokenizer_find(tokenizer, turn, sizeof turn - 1);
    const bool has_system = prompt->n_bytes >= sizeof system && memcmp(prompt->text, system, sizeof system - 1) == 0;
    int second = 0, last = 0, n = 0;
    for (int i = 0; i < out->prompts->n_ids; i++) {
        if (out->prompts->ids[i] != begin)
            continue;
        last = i;
        if (++n == 2)
            second = i;
    }
    if (has_system && second > 0)
        out->marks[out->n_marks++] = second;
    if (last > 0 && (!out->n_marks || last > out->marks[0]))
        out->marks[out->n_marks++] = last;
}

static bool read_prompt(bw_api_request *out, const bw_api_context *context, const bw_api_object *body)
{
    bw_chat_prompt prompt;
    bw_api_tools tools;
    if (!bw_api_read_prompt(&prompt, &tools, context, body))
        return false;
    out->thinking = prompt.thinking;
    out->prompts = bw_mem_zalloc(1, sizeof *out->prompts, BW_MEM_TEXT);
    bool ok = out->prompts ? keep_tools(out, &tools, body->err) : bw_api_fail_memory(body->err);
    if (ok) {
        out->n_prompts = 1;
        ok = bw_api_read_sampling(out, context, body) && bw_api_encode_prompt(out->prompts, context, &prompt, true, body->err) &&
             bw_api_check_context(context, out->prompts->n_ids, -1, "messages", body->err);
    }
    if (ok)
        set_marks(out, context, &prompt);
    bw_chat_prompt_fini(&prompt);
    return ok;
}

static bool read_chat(bw_api_request *out, const bw_api_context *context, const bw_api_object *body)
{
    int64_t limit;
    if (!bw_api_check_model(context, body) || !bw_api_refuse_unsupported(body) || !bw_api_read_common(out, context, body) ||
        !read_logprobs(out, body) || !read_limit(&limit, body) || !read_budget(out, body) || !read_flags(out, body) ||
        !bw_api_check_min_tokens(out, limit, body) || !read_prompt(out, context, body))
        return false;
    const int room = context->context - out->prompts->n_ids;
    out->max_tokens = limit < 0 ? -1 : limit < room ? (int)limit : room;
    if (!out->thinking)
        out->think_budget = -1;
    return true;
}

bool bw_api_read_chat(bw_api_request *out, const bw_api_context *context, const char *text, size_t n_bytes, bw_api_error *err)
{
    bw_api_body body;
    *out = (bw_api_request){ .kind = BW_API_CHAT, .n_logprobs = -1, .think_budget = -1, .loop_guard = 1 };
    *err = (bw_api_error){ 0 };
    if (!bw_api_body_open(&body, text, n_bytes, err))
        return false;
    const bw_api_object object = { body.root, "", err };
    const bool ok = read_chat(out, context, &object);
    if (ok)
        bw_api_log_unknown_fields(&object, "chat completions", own_names, BW_COUNT(own_names));
    else
        bw_api_request_fini(out);
    bw_api_body_close(&body);
    return ok;
}

void bw_api_request_fini(bw_api_request *request)
{
    for (int i = 0; i < request->n_prompts; i++)
        bw_mem_free(request->prompts[i].ids);
    for (int i = 0; i < request->n_stops; i++)
        bw_mem_free(request->stops[i]);
    bw_mem_free(request->prompts);
    bw_mem_free(request->stops);
    bw_mem_free(request->stop_tokens);
    bw_mem_free(request->bias);
    bw_mem_free(request->tools_json);
    *request = (bw_api_request){ 0 };
}
