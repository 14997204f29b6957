/* answer_text.c - see answer_text.h.
 *
 *     token -> detokenizer -> reasoning | content -> tool calls -> stop strings -> pieces
 *
 * The machines of src/text call back from within a push; a failure on the way is kept in `status`
 * and returned by the push. */
#include "server/answer_text.h"

#include <math.h>
#include <openssl/rand.h>
#include <string.h>

#include "base/mem.h"
#include "text/bytes.h"
#include "text/detokenizer.h"
#include "text/pyjson.h"
#include "text/reasoning.h"
#include "text/stop_strings.h"
#include "text/toolcall.h"

struct bw_answer_text {
    bw_answer_options options;
    bw_detokenizer *detokenizer;
    bw_reasoning *reasoning;  /* chat */
    bw_toolcall *toolcall;    /* with tools */
    bw_stop_strings *stops;   /* NULL: none */
    int32_t think_end;        /* id of </think>, or -1 */
    bool thinking;            /* the reasoning has not ended */
    bool inline_open;         /* <think> was written into the content */
    bool echoing;             /* the tokens that come are the prompt's */
    bool finished;
    bw_answer_over over;
    int n_taken, n_reasoning, n_calls, n_arguments;
    size_t n_chars;           /* that the detokenizer has given */

    bw_bytes text;
    bw_piece *pieces;
    int n_pieces, pieces_room;
    bw_answer_token *tokens;
    bw_logprob *top;
    int n_tokens, tokens_room;

    bw_status status;         /* of a callback */
    bw_error error;
};

/* ---- memory ---------------------------------------------------------------------------------- */

static bool grow(void **array, int *room, int n, size_t size)
{
    if (n < *room)
        return true;
    int wanted = *room ? *room * 2 : 8;
    void *grown = bw_mem_realloc(*array, (size_t)wanted * size, BW_MEM_TEXT);
    if (!grown)
        return false;
    *array = grown;
    *room = wanted;
    return true;
}

static void fail_memory(bw_answer_text *a, size_t bytes)
{
    if (!a->status)
        a->status = bw_fail_memory(&a->error, "the text of an answer", bytes);
}

/* Keeps the first failure: a machine may go on after its callback failed, and succeed. */
static void keep(bw_answer_text *a, bw_status st, const bw_error *err)
{
    if (!st || a->status)
        return;
    a->status = st;
    a->error = *err;
}

static bw_status settle(bw_answer_text *a, bw_error *err)
{
    if (a->text.failed)
        fail_memory(a, a->text.n);
    if (a->status && err)
        *err = a->error;
    return a->status;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static void add_piece(bw_answer_text *a, bw_piece_kind kind, const char *text, size_t n)
{
    const int call = kind >= BW_PIECE_CALL ? a->n_calls - 1 : 0;
    bw_piece *last = a->n_pieces ? &a->pieces[a->n_pieces - 1] : NULL;
    if (last && last->kind == kind && last->call == call && kind != BW_PIECE_CALL) {
        bw_bytes_add(&a->text, text, n);
        last->n += n;
        return;
    }
    void *pieces = a->pieces;
    if (!grow(&pieces, &a->pieces_room, a->n_pieces, sizeof *a->pieces)) {
        fail_memory(a, sizeof *a->pieces);
        return;
    }
    a->pieces = pieces;
    bw_piece *piece = &a->pieces[a->n_pieces++];
    *piece = (bw_piece){ .kind = kind, .call = call, .at = a->text.n, .n = n };
    if (kind == BW_PIECE_CALL)
        bw_answer_random_id(piece->id, "call_");
    bw_bytes_add(&a->text, text, n);
}

/* Visible text, less what may be a stop string. flush: what comes next is something else. */
static void visible(bw_answer_text *a, const char *text, size_t n, bool flush)
{
    bw_error err;
    if (a->over)
        return;
    if (a->stops)
        keep(a, bw_stop_strings_take(a->stops, text, n, flush, &text, &n, &err), &err);
    if (n)
        add_piece(a, BW_PIECE_CONTENT, text, n);
    const int met = a->stops ? bw_stop_strings_met(a->stops) : -1;
    if (met < 0)
        return;
    a->over = BW_ANSWER_STOPPED;
    const char *stop = a->options.stops[met];
    if (a->options.include_stop)
        add_piece(a, BW_PIECE_CONTENT, stop, strlen(stop));
}

/* ---- calls ----------------------------------------------------------------------------------- */

static void take_argument(bw_answer_text *a, const bw_toolcall_event *event)
{
    bw_bytes json = { 0 };
    bw_bytes_add_str(&json, a->n_arguments++ ? ", " : "{");
    bw_json_print_string(&json, event->text, event->n_bytes);
    bw_bytes_add_str(&json, ": ");
    bw_bytes_add(&json, event->value, event->value_bytes);
    if (json.failed)
        fail_memory(a, json.n);
    else
        add_piece(a, BW_PIECE_ARGUMENTS, json.data, json.n);
    bw_bytes_fini(&json);
}

static void take_call_event(void *arg, const bw_toolcall_event *event)
{
    bw_answer_text *a = arg;
    if (a->over)
        return;
    switch (event->kind) {
    case BW_TOOLCALL_TEXT:
        visible(a, event->text, event->n_bytes, false);
        break;
    case BW_TOOLCALL_START:
        visible(a, "", 0, true);
        if (a->over)
            break;
        a->n_calls++;
        a->n_arguments = 0;
        add_piece(a, BW_PIECE_CALL, event->text, event->n_bytes);
        break;
    case BW_TOOLCALL_ARGUMENT:
        take_argument(a, event);
        break;
    case BW_TOOLCALL_END:
        add_piece(a, BW_PIECE_ARGUMENTS, "{}" + (a->n_arguments ? 1 : 0), a->n_arguments ? 1 : 2);
        if (a->options.one_call)
            a->over = BW_ANSWER_CALLED;
        break;
    }
}

/* ---- reasoning and content ------------------------------------------------------------------- */

static void take_reasoning(bw_answer_text *a, const char *text, size_t n)
{
    if (a->options.drop_reasoning)
        return;
    if (!a->options.inline_reasoning) {
        add_piece(a, BW_PIECE_REASONING, text, n);
        return;
    }
    if (!a->inline_open)
        add_piece(a, BW_PIECE_CONTENT, "<think>\n", 8);
    a->inline_open = true;
    add_piece(a, BW_PIECE_CONTENT, text, n);
}

static void take_part(void *arg, bw_reply_part part, const char *text, size_t n)
{
    bw_answer_text *a = arg;
    bw_error err;
    if (a->over || a->status)
        return;
    if (part == BW_REPLY_REASONING) {
        take_reasoning(a, text, n);
        return;
    }
    a->thinking = false;
    if (a->inline_open)
        add_piece(a, BW_PIECE_CONTENT, "\n</think>\n\n", 11);
    a->inline_open = false;
    if (a->toolcall)
        keep(a, bw_toolcall_push(a->toolcall, text, n, &err), &err);
    else
        visible(a, text, n, false);
}

static void count_chars(bw_answer_text *a, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        a->n_chars += ((unsigned char)text[i] & 0xC0) != 0x80;
}

static void take_text(bw_answer_text *a, const char *text, size_t n)
{
    bw_error err;
    count_chars(a, text, n);
    if (a->reasoning)
        keep(a, bw_reasoning_push(a->reasoning, text, n, &err), &err);
    else
        visible(a, text, n, false);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static void keep_token(bw_answer_text *a, int32_t token, float logprob, const bw_logprob *top)
{
    if (!a->options.keep_tokens)
        return;
    const size_t n_top = (size_t)a->options.n_top;
    if (a->n_tokens == a->tokens_room) {
        int room = a->tokens_room;
        void *tokens = a->tokens;
        if (!grow(&tokens, &room, a->n_tokens, sizeof *a->tokens)) {
            fail_memory(a, sizeof *a->tokens);
            return;
        }
        a->tokens = tokens;
        bw_logprob *grown = n_top ? bw_mem_realloc(a->top, (size_t)room * n_top * sizeof *a->top, BW_MEM_TEXT) : NULL;
        if (n_top && !grown) {
            fail_memory(a, sizeof *a->top);
            return;
        }
        a->top = n_top ? grown : NULL;
        a->tokens_room = room;
    }
    if (n_top && top)
        memcpy(a->top + (size_t)a->n_tokens * n_top, top, n_top * sizeof *top);
    a->tokens[a->n_tokens++] = (bw_answer_token){ .token = token, .logprob = logprob, .has_top = top != NULL, .echo = a->echoing,
                                                  .at = a->n_chars };
}

bw_status bw_answer_text_push(bw_answer_text *a, const bw_answer_input *input, bw_error *err)
{
    const char *text;
    size_t n = 0;
    bw_error local;
    if (a->over || a->finished || a->status)
        return settle(a, err);
    const bool was_thinking = a->thinking;
    a->n_taken++;
    keep_token(a, input->token, input->logprob, input->top);
    if (!input->ends || a->options.include_stop)
        keep(a, bw_detokenizer_push(a->detokenizer, input->token, &text, &n, &local), &local);
    if (n)
        take_text(a, text, n);
    /* a token that ends the reasoning in any other way than </think> belongs to the content */
    const bool closes = was_thinking && input->token == a->think_end;
    a->n_reasoning += a->thinking || closes;
    a->thinking = a->thinking && !closes;
    return settle(a, err);
}

bw_status bw_answer_text_finish(bw_answer_text *a, bw_error *err)
{
    const char *text;
    size_t n;
    bw_error local;
    if (a->finished || a->status)
        return settle(a, err);
    a->finished = true;
    if (a->over)
        return settle(a, err);
    bw_detokenizer_finish(a->detokenizer, &text, &n);
    if (n)
        take_text(a, text, n);
    if (a->reasoning)
        bw_reasoning_finish(a->reasoning);
    if (a->toolcall && !a->status)
        keep(a, bw_toolcall_finish(a->toolcall, &local), &local);
    visible(a, "", 0, true);
    return settle(a, err);
}

/* Special tokens are shown here: the client wrote them. */
bw_status bw_answer_text_echo(bw_answer_text *a, const int32_t *ids, int n, const float *logprobs, const bw_logprob *top,
                              bw_error *err)
{
    bw_detokenizer *plain;
    const char *text;
    size_t n_bytes;
    bw_status st = bw_detokenizer_create(&plain, a->options.tokenizer, false, err);
    if (st)
        return st;
    a->echoing = true;
    for (int i = 0; i < n && !st && !a->status; i++) {
        const bool known = logprobs && i > 0;
        keep_token(a, ids[i], known ? logprobs[i] : NAN, known && top ? top + (size_t)i * (size_t)a->options.n_top : NULL);
        if (!(st = bw_detokenizer_push(plain, ids[i], &text, &n_bytes, err)) && n_bytes) {
            add_piece(a, BW_PIECE_CONTENT, text, n_bytes);
            count_chars(a, text, n_bytes);
        }
    }
    bw_detokenizer_finish(plain, &text, &n_bytes);
    if (n_bytes && !st) {
        add_piece(a, BW_PIECE_CONTENT, text, n_bytes);
        a->n_chars++;
    }
    a->echoing = false;
    bw_detokenizer_destroy(plain);
    return st ? st : settle(a, err);
}

/* ---- life ------------------------------------------------------------------------------------ */

bw_status bw_answer_text_create(bw_answer_text **out, const bw_answer_options *options, bw_error *err)
{
    bw_status st;
    *out = NULL;
    bw_answer_text *a = bw_mem_zalloc(1, sizeof *a, BW_MEM_TEXT);
    if (!a)
        return bw_fail_memory(err, "the text of an answer", sizeof *a);
    a->options = *options;
    a->thinking = options->chat && options->thinking;
    a->think_end = bw_tokenizer_find(options->tokenizer, "</think>", strlen("</think>"));
    if ((st = bw_detokenizer_create(&a->detokenizer, options->tokenizer, true, err)))
        goto fail;
    if (options->chat && (st = bw_reasoning_create(&a->reasoning, options->thinking, take_part, a, err)))
        goto fail;
    if (options->chat && options->tools &&
        (st = bw_toolcall_create(&a->toolcall, options->tools, options->n_tools, take_call_event, a, err)))
        goto fail;
    if (options->n_stops && (st = bw_stop_strings_create(&a->stops, options->stops, options->n_stops, err)))
        goto fail;
    *out = a;
    return BW_OK;
fail:
    bw_answer_text_destroy(a);
    return st;
}

void bw_answer_text_destroy(bw_answer_text *a)
{
    if (!a)
        return;
    bw_detokenizer_destroy(a->detokenizer);
    bw_reasoning_destroy(a->reasoning);
    bw_toolcall_destroy(a->toolcall);
    bw_stop_strings_destroy(a->stops);
    bw_bytes_fini(&a->text);
    bw_mem_free(a->pieces);
    bw_mem_free(a->tokens);
    bw_mem_free(a->top);
    bw_mem_free(a);
}

/* ---- what it gives --------------------------------------------------------------------------- */

bw_answer_over bw_answer_text_over(const bw_answer_text *a)
{
    return a->over;
}

int bw_answer_text_stop(const bw_answer_text *a)
{
    return a->stops ? bw_stop_strings_met(a->stops) : -1;
}

int bw_answer_text_tokens(const bw_answer_text *a)
{
    return a->n_taken;
}

int bw_answer_text_reasoning(const bw_answer_text *a)
{
    return a->n_reasoning;
}

int bw_answer_text_calls(const bw_answer_text *a)
{
    return a->n_calls;
}

bw_answer_view bw_answer_text_view(const bw_answer_text *a)
{
    return (bw_answer_view){ .text = a->text.data ? a->text.data : "", .pieces = a->pieces, .n_pieces = a->n_pieces,
                             .tokens = a->tokens, .top = a->top, .n_tokens = a->n_tokens, .n_top = a->options.n_top };
}

void bw_answer_text_clear(bw_answer_text *a)
{
    bw_bytes_drop(&a->text, a->text.n);
    a->n_pieces = a->n_tokens = 0;
}

/* Rejection keeps every character equally likely: 62 * 4 = 248 of 256 bytes are used. */
void bw_answer_random_id(char *out, const char *prefix)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    unsigned char bytes[64];
    size_t at = strlen(prefix), have = 0, used = 0;
    const size_t end = at + 24;
    memcpy(out, prefix, at);
    while (at < end) {
        if (used == have) {
            if (RAND_bytes(bytes, sizeof bytes) != 1)
                memset(bytes, 0, sizeof bytes); /* the system has no randomness at all: ids repeat */
            have = sizeof bytes;
            used = 0;
        }
        unsigned char byte = bytes[used++];
        if (byte < 248)
            out[at++] = letters[byte % 62];
    }
    out[end] = '\0';
}
