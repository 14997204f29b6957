/* cmd_tokenize.c - `bellwether tokenize`: text to token ids and back, as the `tokenizers` library
 * would. Opens the tokenizer alone, never the weights. Main thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/terminal.h"
#include "engine/text_source.h"
#include "text/bytes.h"
#include "text/pyjson.h"

typedef struct tokenize_options {
    const char *model;
    bool decode, jsonl, chat;
} tokenize_options;

static bw_args_result read_options(tokenize_options *o, int argc, char **argv)
{
    *o = (tokenize_options){ 0 };
    const bw_option options[] = {
        { BW_OPTION_GROUP, .name = "What is read from standard input (default: one text)" },
        { BW_OPTION_SET, .name = "--decode", .target = &o->decode, .help = "token ids, white space between them; their text\nis printed" },
        { BW_OPTION_SET, .name = "--jsonl", .target = &o->jsonl,
          .help = "a JSON string per line; {\"ids\": [...]} is printed\nfor each, {\"error\": \"...\"} for a line that is\nsomething else" },
        { BW_OPTION_SET, .name = "--chat", .target = &o->chat,
          .help = "a conversation per line (implies --jsonl):\n{\"messages\": [...], \"tools\": [...],\n"
                  "\"add_generation_prompt\": true, \"enable_thinking\":\ntrue, \"preserve_thinking\": false,\n"
                  "\"add_vision_id\": false}; adds \"text\", the prompt" },
    };
    static const char about[] =
        "Prints the tokens of a text, one per line: the id, a tab, the token as a JSON string\n"
        "(bytes that are no character by themselves as U+FFFD). Special tokens written in the\n"
        "text are matched. MODEL is a Hugging Face folder, a .gguf file or a tokenizer.json.\n";
    const bw_command command = { "tokenize", "MODEL", 1, 1, about, options, sizeof options / sizeof options[0],
                                 "echo \"Once upon a time\" | bellwether tokenize models/lamb" };
    return bw_args_read(&command, argc, argv, &o->model);
}

static int fail_with(const bw_error *err)
{
    return bw_terminal_fail("%s", err->message);
}

static int fail_memory(void)
{
    return bw_terminal_fail("tokenize: out of memory");
}

static int print_all(const char *data, size_t n)
{
    if (n)
        fwrite(data, 1, n, stdout);
    return bw_terminal_flush() ? 0 : 1;
}

static void add_ids(bw_bytes *out, const int32_t *ids, int n_ids)
{
    bw_bytes_add_str(out, "{\"ids\": [");
    for (int i = 0; i < n_ids; i++) {
        char number[16];
        snprintf(number, sizeof number, "%s%d", i ? ", " : "", ids[i]);
        bw_bytes_add_str(out, number);
    }
    bw_bytes_add_str(out, "]");
}

/* ---- one text -------------------------------------------------------------------------------- */

static int print_tokens(const bw_tokenizer *t, const int32_t *ids, int n_ids)
{
    bw_bytes out = { 0 }, piece = { 0 };
    for (int i = 0; i < n_ids; i++) {
        size_t n;
        const char *bytes = bw_tokenizer_bytes(t, ids[i], &n);
        char number[16];
        snprintf(number, sizeof number, "%d\t", ids[i]);
        bw_bytes_add_str(&out, number);
        bw_bytes_drop(&piece, piece.n);
        bw_json_add_utf8(&piece, bytes, n);
        if (!piece.failed)
            bw_json_print_string(&out, piece.data, piece.n);
        bw_bytes_add_char(&out, '\n');
    }
    int status = out.failed || piece.failed ? fail_memory() : print_all(out.data, out.n);
    bw_bytes_fini(&out);
    bw_bytes_fini(&piece);
    return status;
}

static int encode_text(const bw_tokenizer *t, const bw_buffer *text)
{
    bw_error err;
    int32_t *ids;
    int n_ids;
    if (bw_tokenizer_encode(t, text->n ? text->data : "", text->n, BW_MATCH_ALL, &ids, &n_ids, &err))
        return fail_with(&err);
    int status = print_tokens(t, ids, n_ids);
    bw_mem_free(ids);
    return status;
}

/* White-space separated ids; *ids is the caller's (free). False after a message. */
static bool read_ids(int32_t **ids, size_t *n_ids, const char *text)
{
    static const char white[] = " \t\r\n\v\f";
    size_t room = 0;
    *ids = NULL;
    *n_ids = 0;
    for (text += strspn(text, white); *text; text += strspn(text, white)) {
        char *end;
        errno = 0;
        long id = strtol(text, &end, 10);
        size_t n = strcspn(text, white);
        if (end != text + n || errno || id < 0 || id > INT32_MAX) {
            bw_terminal_fail("standard input: \"%.*s\" (number %zu) is no token id: expected whole numbers with white space "
                             "between them", n < 40 ? (int)n : 40, text, *n_ids + 1);
            return false;
        }
        if (*n_ids == room) {
            room = room ? 2 * room : 256;
            int32_t *more = realloc(*ids, room * sizeof **ids);
            if (!more) {
                fail_memory();
                return false;
            }
            *ids = more;
        }
        (*ids)[(*n_ids)++] = (int32_t)id;
        text += n;
    }
    return true;
}

static int decode_text(const bw_tokenizer *t, const bw_buffer *input)
{
    bw_error err;
    int32_t *ids;
    size_t n_ids, n;
    char *text;
    int status = 1;
    if (strlen(input->n ? input->data : "") != input->n)
        bw_terminal_fail("standard input: a zero byte among the token ids: expected whole numbers with white space between them");
    else if (!read_ids(&ids, &n_ids, input->n ? input->data : ""))
        free(ids);
    else if (bw_tokenizer_decode(t, ids, n_ids, false, &text, &n, &err)) {
        fail_with(&err);
        free(ids);
    } else {
        status = print_all(text, n);
        bw_mem_free(text);
        free(ids);
    }
    return status;
}

static int run_text(const bw_text_source *source, bool decode)
{
    bw_buffer input;
    if (!bw_input_read(&input, "-"))
        return 1;
    const bw_tokenizer *t = bw_text_source_tokenizer(source);
    int status = decode ? decode_text(t, &input) : encode_text(t, &input);
    bw_buffer_free(&input);
    return status;
}

/* ---- a line at a time ------------------------------------------------------------------------ */

/* Adds {"ids": ...} for a line that is a JSON string. */
static bw_status answer_string(bw_bytes *out, const bw_text_source *source, const bw_bytes *line, bw_error *err)
{
    bw_pyjson *document;
    const bw_json *value;
    bw_status st = bw_pyjson_parse(&document, &value, line->data, line->n, "the line", err);
    if (st)
        return st;
    int32_t *ids = NULL;
    int n_ids;
    if (value->kind != BW_JSON_STRING)
        st = bw_fail(err, BW_E_ARGUMENT, "the line is %s: expected a JSON string", bw_json_kind_name(value));
    else if (!(st = bw_tokenizer_encode(bw_text_source_tokenizer(source), value->text, value->n_bytes, BW_MATCH_ALL, &ids, &n_ids,
                                        err)))
        add_ids(out, ids, n_ids);
    bw_mem_free(ids);
    bw_pyjson_free(document);
    return st;
}

/* Adds {"ids": ..., "text": ... for a line that is a conversation. The prompt is encoded as one text,
 * as the library does with a rendered template; `run` matches nothing special in message bodies. */
static bw_status answer_chat(bw_bytes *out, const bw_text_source *source, const bw_bytes *line, bw_error *err)
{
    bw_chat_prompt prompt;
    bw_status st = bw_chat_render(&prompt, bw_text_source_chat(source), line->data, line->n, err);
    if (st)
        return st;
    int32_t *ids = NULL;
    int n_ids;
    st = bw_tokenizer_encode(bw_text_source_tokenizer(source), prompt.text, prompt.n_bytes, BW_MATCH_ALL, &ids, &n_ids, err);
    if (!st) {
        add_ids(out, ids, n_ids);
        bw_bytes_add_str(out, ", \"text\": ");
        bw_json_print_string(out, prompt.text, prompt.n_bytes);
    }
    bw_mem_free(ids);
    bw_chat_prompt_fini(&prompt);
    return st;
}

/* Reads up to the line end, which is dropped. False at the end of the input. */
static bool read_line(bw_bytes *line, bool *too_long)
{
    int c;
    bw_bytes_drop(line, line->n);
    bw_bytes_add(line, "", 0);
    *too_long = false;
    while ((c = getc_unlocked(stdin)) != EOF && c != '\n') {
        *too_long = line->n >= BW_MAX_TEXT_BYTES;
        if (!*too_long)
            bw_bytes_add_char(line, (char)c);
    }
    return c != EOF || line->n;
}

static int run_lines(const bw_text_source *source, bool chat)
{
    bw_bytes line = { 0 }, out = { 0 };
    int status = 0;
    for (bool too_long; !status && read_line(&line, &too_long);) {
        bw_error err;
        bw_status st;
        bw_bytes_drop(&out, out.n);
        if (too_long)
            st = bw_fail(&err, BW_E_LIMIT, "the line is longer than %d bytes", BW_MAX_TEXT_BYTES);
        else if (line.failed)
            st = bw_fail_memory(&err, "reading a line", line.n);
        else
            st = (chat ? answer_chat : answer_string)(&out, source, &line, &err);
        if (st == BW_E_MEMORY || out.failed) {
            status = fail_memory();
            break;
        }
        if (st) {
            bw_bytes_add_str(&out, "{\"error\": ");
            bw_json_print_string(&out, err.message, strlen(err.message));
        }
        bw_bytes_add_str(&out, "}\n");
        status = out.failed ? fail_memory() : print_all(out.data, out.n);
    }
    if (!status && ferror(stdin))
        status = bw_terminal_fail("standard input: cannot read: %s", strerror(errno));
    bw_bytes_fini(&line);
    bw_bytes_fini(&out);
    return status;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* A tokenizer.json alone brings no template, which is nothing to warn of. */
static bool is_json_file(const char *path)
{
    const size_t n = strlen(path);
    return n >= 5 && strcmp(path + n - 5, ".json") == 0;
}

int bw_cmd_tokenize(int argc, char **argv)
{
    tokenize_options o;
    bw_args_result result = read_options(&o, argc, argv);
    if (result != BW_ARGS_RUN)
        return result == BW_ARGS_DONE ? 0 : 2;
    if (o.decode && (o.jsonl || o.chat))
        return bw_args_fail("tokenize", "--decode: given together with %s, expected one of them", o.chat ? "--chat" : "--jsonl");
    bw_log_to(bw_terminal_log, NULL);
    bw_error err;
    bw_text_source *source;
    if (bw_text_source_open(&source, o.model, &err))
        return fail_with(&err);
    if (o.chat && !bw_text_source_chat_known(source) && !is_json_file(o.model))
        bw_log(BW_LOG_WARNING, "%s: chat format %s", o.model, bw_text_source_chat_note(source));
    int status = o.jsonl || o.chat ? run_lines(source, o.chat) : run_text(source, o.decode);
    bw_text_source_close(source);
    return status;
}
