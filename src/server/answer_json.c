/* answer_json.c - see answer_json.h. */
#include "server/answer_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/pyjson.h"

/* ---- values ---------------------------------------------------------------------------------- */

static void add(bw_bytes *out, const char *text)
{
    bw_bytes_add_str(out, text);
}

static void add_string(bw_bytes *out, const char *text)
{
    bw_json_print_string(out, text, strlen(text));
}

static void add_int(bw_bytes *out, int64_t value)
{
    char text[24];
    bw_bytes_add(out, text, (size_t)snprintf(text, sizeof text, "%" PRId64, value));
}

static void add_number(bw_bytes *out, double value)
{
    char text[BW_JSON_NUMBER_BYTES];
    bw_json_format_double(text, isfinite(value) ? value : 0);
    add(out, text);
}

/* JSON has no infinity. */
static void add_logprob(bw_bytes *out, float value)
{
    add_number(out, value < -9999.0f ? -9999.0 : (double)value);
}

static void add_ids(bw_bytes *out, const int32_t *ids, int n)
{
    add(out, "[");
    for (int i = 0; i < n; i++) {
        if (i)
            add(out, ",");
        add_int(out, ids[i]);
    }
    add(out, "]");
}

/* Of the generated tokens. */
static void add_view_ids(bw_bytes *out, const bw_answer_view *view)
{
    const char *before = "[";
    for (int i = 0; i < view->n_tokens; i++) {
        if (view->tokens[i].echo)
            continue;
        add(out, before);
        add_int(out, view->tokens[i].token);
        before = ",";
    }
    add(out, *before == '[' ? "[]" : "]");
}

/* ---- figures --------------------------------------------------------------------------------- */

static void longer(double *longest, double s)
{
    if (s > *longest)
        *longest = s;
}

void bw_answer_figures_add(bw_answer_figures *f, const bw_usage *u, int completion, int reasoning, bool first)
{
    if (first) {
        if (!f->prompt_tokens) {
            f->miss = u->miss;
            f->miss_at = u->miss_at;
        }
        f->prompt_tokens += u->prompt_tokens;
        f->cached_tokens += u->cached_tokens;
        longer(&f->prompt_s, u->prefill_s);
    }
    f->completion_tokens += completion;
    f->reasoning_tokens += reasoning;
    longer(&f->queue_s, u->queue_s);
    longer(&f->predicted_s, u->decode_s);
    f->verifies += u->verifies;
    f->drafted += u->drafted;
    for (int i = 0; i < BW_MAX_DRAFTS; i++) {
        f->accepted_by_position[i] += u->accepted_by_position[i];
        f->accepted += u->accepted_by_position[i];
    }
    if (u->draft_n > f->n_positions)
        f->n_positions = u->draft_n < BW_MAX_DRAFTS ? u->draft_n : BW_MAX_DRAFTS;
}

static void field(bw_bytes *out, const char *name, int64_t value)
{
    add(out, name);
    add_int(out, value);
}

static void add_usage(bw_bytes *out, const bw_answer_figures *f)
{
    field(out, "{\"prompt_tokens\":", f->prompt_tokens);
    field(out, ",\"completion_tokens\":", f->completion_tokens);
    field(out, ",\"total_tokens\":", f->prompt_tokens + f->completion_tokens);
    field(out, ",\"prompt_tokens_details\":{\"cached_tokens\":", f->cached_tokens);
    field(out, "},\"completion_tokens_details\":{\"reasoning_tokens\":", f->reasoning_tokens);
    if (f->verifies) {
        field(out, ",\"accepted_prediction_tokens\":", f->accepted);
        field(out, ",\"rejected_prediction_tokens\":", f->drafted - f->accepted);
    }
    add(out, "}}");
}

/* Milliseconds to a thousandth, so that they print short. */
static void add_ms(bw_bytes *out, const char *name, double s)
{
    add(out, name);
    add_number(out, round(s * 1e6) / 1e3);
}

static void add_rate(bw_bytes *out, const char *name, int64_t n, double s)
{
    add(out, name);
    add_number(out, s > 0 ? round((double)n / s * 1e3) / 1e3 : 0);
}

/* Why the cache gave no more. */
static void add_miss(bw_bytes *out, const bw_answer_figures *f)
{
    char text[64];
    switch (f->miss) {
    case BW_MISS_NONE:
        add(out, "null");
        return;
    case BW_MISS_OFF:
        snprintf(text, sizeof text, "cache off");
        break;
    case BW_MISS_DIFFERS:
        snprintf(text, sizeof text, "text differs at token %d%s", f->miss_at,
                 f->miss_at == 0 ? ": nothing cached begins like it" : "");
        break;
    case BW_MISS_NO_CHECKPOINT:
        snprintf(text, sizeof text, "no checkpoint before token %d", f->miss_at);
        break;
    case BW_MISS_EVICTED:
        snprintf(text, sizeof text, "evicted");
        break;
    }
    add_string(out, text);
}

static void add_timings(bw_bytes *out, const bw_answer_figures *f)
{
    const int64_t prompt_n = f->prompt_tokens - f->cached_tokens;
    field(out, "{\"cache_n\":", f->cached_tokens);
    field(out, ",\"prompt_n\":", prompt_n);
    add_ms(out, ",\"prompt_ms\":", f->prompt_s);
    add_rate(out, ",\"prompt_per_second\":", prompt_n, f->prompt_s);
    field(out, ",\"predicted_n\":", f->completion_tokens);
    add_ms(out, ",\"predicted_ms\":", f->predicted_s);
    add_rate(out, ",\"predicted_per_second\":", f->completion_tokens, f->predicted_s);
    field(out, ",\"draft_n\":", f->drafted);
    field(out, ",\"draft_n_accepted\":", f->accepted);
    field(out, ",\"draft_verifies\":", f->verifies);
    add_ms(out, ",\"queue_ms\":", f->queue_s);
    add(out, ",\"draft_accepted_per_position\":[");
    for (int i = 0; i < f->n_positions; i++) {
        if (i)
            add(out, ",");
        add_int(out, f->accepted_by_position[i]);
    }
    field(out, "],\"seed\":", (int64_t)f->seed);
    add(out, ",\"cache_miss\":");
    add_miss(out, f);
    add(out, "}");
}

/* ---- log-probabilities ----------------------------------------------------------------------- */

/* A token as a string; what is no text by itself shows U+FFFD, or with bytes_as_text its bytes as
 * \xNN, so that different tokens have different names. */
static void add_token(bw_bytes *out, const bw_answer_format *format, int32_t token, bool bytes_as_text)
{
    size_t n = 0;
    const char *bytes = bw_tokenizer_bytes(format->tokenizer, token, &n);
    if (format->tokens_as_ids || !bytes) {
        field(out, "\"token_id:", token);
        add(out, "\"");
    } else if (bw_utf8_valid_prefix(bytes, n) == n) {
        bw_json_print_string(out, bytes, n);
    } else if (bytes_as_text) {
        char hex[8];
        add(out, "\"bytes:");
        for (size_t i = 0; i < n; i++)
            bw_bytes_add(out, hex, (size_t)snprintf(hex, sizeof hex, "\\\\x%02x", (unsigned char)bytes[i]));
        add(out, "\"");
    } else {
        bw_bytes text = { 0 };
        bw_json_add_utf8(&text, bytes, n);
        bw_json_print_string(out, text.data ? text.data : "", text.n);
        out->failed |= text.failed;
        bw_bytes_fini(&text);
    }
}

/* {"token":"a","logprob":-0.5,"bytes":[97] without the closing brace */
static void add_chat_token(bw_bytes *out, const bw_answer_format *format, int32_t token, float logprob)
{
    size_t n = 0;
    const char *bytes = bw_tokenizer_bytes(format->tokenizer, token, &n);
    add(out, "{\"token\":");
    add_token(out, format, token, false);
    add(out, ",\"logprob\":");
    add_logprob(out, logprob);
    add(out, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++) {
        if (i)
            add(out, ",");
        add_int(out, (unsigned char)bytes[i]);
    }
    add(out, "]");
}

static const bw_logprob *top_of(const bw_answer_view *view, int i)
{
    return view->tokens[i].has_top ? view->top + (size_t)i * (size_t)view->n_top : NULL;
}

static void add_chat_logprobs(bw_bytes *out, const bw_answer_format *format, const bw_answer_view *view)
{
    add(out, "{\"content\":[");
    for (int i = 0; i < view->n_tokens; i++) {
        const bw_logprob *top = top_of(view, i);
        if (i)
            add(out, ",");
        add_chat_token(out, format, view->tokens[i].token, view->tokens[i].logprob);
        add(out, ",\"top_logprobs\":[");
        for (int k = 0; top && k < view->n_top; k++) {
            if (k)
                add(out, ",");
            add_chat_token(out, format, top[k].token, top[k].logprob);
            add(out, "}");
        }
        add(out, "]}");
    }
    add(out, "],\"refusal\":null}");
}

/* {"a": -0.5, "b": -1}: the alternatives, and the token itself. null: not known. */
static void add_alternatives(bw_bytes *out, const bw_answer_format *format, const bw_answer_view *view, int i)
{
    const bw_answer_token *t = &view->tokens[i];
    const bw_logprob *top = top_of(view, i);
    bool among = false;
    if (isnan(t->logprob) || (view->n_top && !top)) {
        add(out, "null");
        return;
    }
    add(out, "{");
    for (int k = 0; top && k < view->n_top; k++) {
        if (k)
            add(out, ",");
        add_token(out, format, top[k].token, true);
        add(out, ":");
        add_logprob(out, top[k].logprob);
        among = among || top[k].token == t->token;
    }
    if (!among) {
        if (top && view->n_top)
            add(out, ",");
        add_token(out, format, t->token, true);
        add(out, ":");
        add_logprob(out, t->logprob);
    }
    add(out, "}");
}

static void add_completion_logprobs(bw_bytes *out, const bw_answer_format *format, const bw_answer_view *view)
{
    add(out, "{\"tokens\":[");
    for (int i = 0; i < view->n_tokens; i++) {
        if (i)
            add(out, ",");
        add_token(out, format, view->tokens[i].token, true);
    }
    add(out, "],\"token_logprobs\":[");
    for (int i = 0; i < view->n_tokens; i++) {
        if (i)
            add(out, ",");
        if (isnan(view->tokens[i].logprob))
            add(out, "null");
        else
            add_logprob(out, view->tokens[i].logprob);
    }
    add(out, "],\"top_logprobs\":[");
    for (int i = 0; i < view->n_tokens; i++) {
        if (i)
            add(out, ",");
        add_alternatives(out, format, view, i);
    }
    add(out, "],\"text_offset\":[");
    for (int i = 0; i < view->n_tokens; i++) {
        if (i)
            add(out, ",");
        add_int(out, (int64_t)view->tokens[i].at);
    }
    add(out, "]}");
}

/* ,"logprobs":... of the tokens of view; NULL: they were shown before */
static void add_logprobs(bw_bytes *out, const bw_answer_format *format, const bw_answer_view *view)
{
    add(out, ",\"logprobs\":");
    if (!format->logprobs || !view || !view->n_tokens)
        add(out, "null");
    else if (format->kind == BW_API_CHAT)
        add_chat_logprobs(out, format, view);
    else
        add_completion_logprobs(out, format, view);
}

/* ---- parts of choices ------------------------------------------------------------------------ */

/* data: {"id":...,"choices":[{"index":0 */
static void open_chunk(bw_bytes *out, const bw_answer_format *format)
{
    add(out, "data: {\"id\":");
    add_string(out, format->id);
    add(out, format->kind == BW_API_CHAT ? ",\"object\":\"chat.completion.chunk\"" : ",\"object\":\"text_completion\"");
    field(out, ",\"created\":", format->created);
    add(out, ",\"model\":");
    add_string(out, format->model);
    add(out, ",\"system_fingerprint\":");
    add_string(out, format->fingerprint);
    add(out, ",\"choices\":[");
}

static void open_choice(bw_bytes *out, const bw_answer_format *format, int index)
{
    open_chunk(out, format);
    field(out, "{\"index\":", index);
}

/* NULL: the choice goes on. */
static void add_finish(bw_bytes *out, const bw_answer_finish *finish)
{
    add(out, ",\"finish_reason\":");
    if (!finish) {
        add(out, "null");
        return;
    }
    add_string(out, finish->reason);
    add(out, ",\"stop_reason\":");
    if (finish->stop_string)
        add_string(out, finish->stop_string);
    else if (finish->stop_token >= 0)
        add_int(out, finish->stop_token);
    else
        add(out, "null");
}

/* Behind delta or text: what every choice of a chunk has. */
static void close_choice(bw_bytes *out, const bw_answer_format *format, const bw_answer_view *tokens,
                         const bw_answer_finish *finish, const bw_answer_figures *usage, const bw_answer_figures *timings)
{
    add_logprobs(out, format, tokens);
    if (format->return_ids && tokens && tokens->n_tokens) {
        add(out, ",\"token_ids\":");
        add_view_ids(out, tokens);
    }
    add_finish(out, finish);
    add(out, "}]");
    if (usage) {
        add(out, ",\"usage\":");
        add_usage(out, usage);
    }
    if (timings) {
        add(out, ",\"timings\":");
        add_timings(out, timings);
    }
    add(out, "}\n\n");
}

/* "reasoning_content":"...","reasoning":"..." as the server is told to */
static void add_reasoning(bw_bytes *out, const bw_answer_format *format, const char *text, size_t n)
{
    if (format->reasoning != BW_REASONING_SHORT) {
        add(out, "\"reasoning_content\":");
        bw_json_print_string(out, text, n);
    }
    if (format->reasoning == BW_REASONING_BOTH)
        add(out, ",");
    if (format->reasoning == BW_REASONING_BOTH || format->reasoning == BW_REASONING_SHORT) {
        add(out, "\"reasoning\":");
        bw_json_print_string(out, text, n);
    }
}

static void add_delta(bw_bytes *out, const bw_answer_format *format, const bw_piece *piece, const char *text)
{
    switch (piece->kind) {
    case BW_PIECE_REASONING:
        add_reasoning(out, format, text, piece->n);
        break;
    case BW_PIECE_CONTENT:
        add(out, "\"content\":");
        bw_json_print_string(out, text, piece->n);
        break;
    case BW_PIECE_CALL: /* id, type and name this once: clients concatenate what comes again */
        field(out, "\"tool_calls\":[{\"index\":", piece->call);
        add(out, ",\"id\":");
        add_string(out, piece->id);
        add(out, ",\"type\":\"function\",\"function\":{\"name\":");
        bw_json_print_string(out, text, piece->n);
        add(out, ",\"arguments\":\"\"}}]");
        break;
    case BW_PIECE_ARGUMENTS:
        field(out, "\"tool_calls\":[{\"index\":", piece->call);
        add(out, ",\"function\":{\"arguments\":");
        bw_json_print_string(out, text, piece->n);
        add(out, "}}]");
        break;
    }
}

/* All text of one kind, joined. */
static void join(bw_bytes *joined, const bw_answer_view *view, bw_piece_kind kind, int call)
{
    for (int i = 0; i < view->n_pieces; i++)
        if (view->pieces[i].kind == kind && view->pieces[i].call == call)
            bw_bytes_add(joined, view->text + view->pieces[i].at, view->pieces[i].n);
}

static void add_joined(bw_bytes *out, const bw_answer_view *view, bw_piece_kind kind, int call)
{
    bw_bytes joined = { 0 };
    join(&joined, view, kind, call);
    bw_json_print_string(out, joined.data ? joined.data : "", joined.n);
    out->failed |= joined.failed;
    bw_bytes_fini(&joined);
}

/* ---- events ---------------------------------------------------------------------------------- */

void bw_answer_json_role(bw_bytes *out, const bw_answer_format *format, int index, const int32_t *prompt, int n_prompt,
                         const bw_answer_figures *usage)
{
    open_choice(out, format, index);
    add(out, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"}");
    if (prompt) {
        add(out, ",\"prompt_token_ids\":");
        add_ids(out, prompt, n_prompt);
    }
    close_choice(out, format, NULL, NULL, usage, NULL);
}

void bw_answer_json_chunks(bw_bytes *out, const bw_answer_format *format, int index, const bw_answer_view *view,
                           const bw_answer_figures *usage)
{
    for (int i = 0; i < view->n_pieces; i++) {
        const bw_piece *piece = &view->pieces[i];
        const char *text = view->text + piece->at;
        open_choice(out, format, index);
        if (format->kind == BW_API_CHAT) {
            add(out, ",\"delta\":{");
            add_delta(out, format, piece, text);
            add(out, "}");
        } else {
            add(out, ",\"text\":");
            bw_json_print_string(out, text, piece->n);
        }
        close_choice(out, format, i == 0 ? view : NULL, NULL, usage, NULL);
    }
}

void bw_answer_json_finish(bw_bytes *out, const bw_answer_format *format, int index, const bw_answer_view *view,
                           const bw_answer_finish *finish, const bw_answer_figures *usage,
                           const bw_answer_figures *timings)
{
    open_choice(out, format, index);
    if (format->kind == BW_API_CHAT) {
        add(out, ",\"delta\":{}");
    } else {
        add(out, ",\"text\":");
        add_joined(out, view, BW_PIECE_CONTENT, 0);
    }
    close_choice(out, format, view, finish, usage, timings);
}

void bw_answer_json_usage(bw_bytes *out, const bw_answer_format *format, const bw_answer_figures *figures)
{
    open_chunk(out, format);
    add(out, "],\"usage\":");
    add_usage(out, figures);
    add(out, ",\"timings\":");
    add_timings(out, figures);
    add(out, "}\n\n");
}

void bw_answer_json_error(bw_bytes *out, const char *type, const char *code, const char *message)
{
    add(out, "data: {\"error\":{\"message\":");
    add_string(out, message);
    add(out, ",\"type\":");
    add_string(out, type);
    add(out, ",\"param\":null,\"code\":");
    if (code)
        add_string(out, code);
    else
        add(out, "null");
    add(out, "}}\n\n");
}

void bw_answer_json_done(bw_bytes *out)
{
    add(out, "data: [DONE]\n\n");
}

/* ---- one object ------------------------------------------------------------------------------ */

static void add_calls(bw_bytes *out, const bw_answer_view *view)
{
    for (int i = 0; i < view->n_pieces; i++) {
        const bw_piece *piece = &view->pieces[i];
        if (piece->kind != BW_PIECE_CALL)
            continue;
        add(out, piece->call ? ",{\"id\":" : ",\"tool_calls\":[{\"id\":");
        add_string(out, piece->id);
        add(out, ",\"type\":\"function\",\"function\":{\"name\":");
        bw_json_print_string(out, view->text + piece->at, piece->n);
        add(out, ",\"arguments\":");
        add_joined(out, view, BW_PIECE_ARGUMENTS, piece->call);
        add(out, "}}");
    }
}

static bool has(const bw_answer_view *view, bw_piece_kind kind)
{
    for (int i = 0; i < view->n_pieces; i++)
        if (view->pieces[i].kind == kind)
            return true;
    return false;
}

static void add_message(bw_bytes *out, const bw_answer_format *format, const bw_answer_view *view)
{
    const bool called = has(view, BW_PIECE_CALL);
    add(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
    if (called && !has(view, BW_PIECE_CONTENT))
        add(out, "null");
    else
        add_joined(out, view, BW_PIECE_CONTENT, 0);
    add(out, ",\"refusal\":null");
    if (has(view, BW_PIECE_REASONING)) {
        bw_bytes joined = { 0 };
        join(&joined, view, BW_PIECE_REASONING, 0);
        add(out, ",");
        add_reasoning(out, format, joined.data ? joined.data : "", joined.n);
        out->failed |= joined.failed;
        bw_bytes_fini(&joined);
    } else if (format->reasoning != BW_REASONING_INLINE) {
        if (format->reasoning != BW_REASONING_SHORT)
            add(out, ",\"reasoning_content\":null");
        if (format->reasoning != BW_REASONING_CONTENT)
            add(out, ",\"reasoning\":null");
    }
    if (called) {
        add_calls(out, view);
        add(out, "]");
    }
    add(out, "}");
}

static void add_choice(bw_bytes *out, const bw_answer_format *format, const bw_answer_choice *choice)
{
    if (format->kind == BW_API_CHAT) {
        add_message(out, format, &choice->view);
    } else {
        add(out, ",\"text\":");
        add_joined(out, &choice->view, BW_PIECE_CONTENT, 0);
        if (format->return_ids) {
            add(out, ",\"prompt_token_ids\":");
            add_ids(out, choice->prompt, choice->n_prompt);
        }
    }
}

void bw_answer_json_whole(bw_bytes *out, const bw_answer_format *format, const bw_answer_choice *choices, int n_choices,
                          const bw_answer_figures *figures)
{
    add(out, "{\"id\":");
    add_string(out, format->id);
    add(out, format->kind == BW_API_CHAT ? ",\"object\":\"chat.completion\"" : ",\"object\":\"text_completion\"");
    field(out, ",\"created\":", format->created);
    add(out, ",\"model\":");
    add_string(out, format->model);
    add(out, ",\"system_fingerprint\":");
    add_string(out, format->fingerprint);
    add(out, ",\"choices\":[");
    for (int i = 0; i < n_choices; i++) {
        field(out, i ? ",{\"index\":" : "{\"index\":", i);
        add_choice(out, format, &choices[i]);
        add_logprobs(out, format, &choices[i].view);
        if (format->return_ids) {
            add(out, ",\"token_ids\":");
            add_view_ids(out, &choices[i].view);
        }
        add_finish(out, &choices[i].finish);
        add(out, "}");
    }
    add(out, "]");
    if (format->kind == BW_API_CHAT && format->return_ids && n_choices) {
        add(out, ",\"prompt_token_ids\":");
        add_ids(out, choices[0].prompt, choices[0].n_prompt);
    }
    add(out, ",\"usage\":");
    add_usage(out, figures);
    add(out, ",\"timings\":");
    add_timings(out, figures);
    add(out, "}");
}
