/* cmd_run.c - `bellwether run`: one prompt answered, or a chat. Uses bellwether.h and nothing else
 * of the library. Main thread.
 *
 * stdout gets the answer and nothing else: the text as it comes, its think block in place; with
 * --json one object at the end; without a tokenizer the token ids. All else goes to stderr. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <json.h>

#include "bellwether.h"
#include "cli/answer.h"
#include "cli/args.h"
#include "cli/chat_loop.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/receipt.h"
#include "cli/setup.h"
#include "cli/terminal.h"

enum { NOT_GIVEN = INT_MIN };

typedef struct run_options {
    bw_setup setup;
    const char *model, *prompt, *system, *ids_file;
    bool think, raw, ignore_eos, json;
    bw_seed_option seed;
    /* NAN or NOT_GIVEN: the checkpoint's */
    float temperature, top_p, min_p, presence, frequency, repetition;
    int top_k;
    bw_list_option stops;
    int max_tokens, n_logprobs; /* -1: not given */
} run_options;

static bw_args_result read_options(run_options *o, int argc, char **argv)
{
    *o = (run_options){ .setup = BW_SETUP_DEFAULTS, .think = true, .max_tokens = -1, .n_logprobs = -1,
                        .top_k = NOT_GIVEN,
                        .temperature = NAN, .top_p = NAN, .min_p = NAN, .presence = NAN, .frequency = NAN, .repetition = NAN };
    const bw_option options[] = {
        { BW_OPTION_GROUP, .name = "Prompt" },
        { BW_OPTION_TEXT, "--system", "TEXT", &o->system, .expected = "a text",
          .help = "system message; default none" },
        { BW_OPTION_SET, .name = "--think", .target = &o->think, .help = "let the model think first (default)" },
        { BW_OPTION_CLEAR, .name = "--no-think", .target = &o->think, .help = "answer at once" },
        { BW_OPTION_SET, .name = "--raw", .target = &o->raw,
          .help = "no chat format: the model goes on with the\nprompt; special tokens in it are matched" },
        { BW_OPTION_TEXT, "--ids", "FILE", &o->ids_file, .expected = "a file name, or - for standard input",
          .help = "prompt as a JSON array of token ids, taken\nunchanged; implies --raw; -: standard input" },
        { BW_OPTION_GROUP, .name = "Sampling (defaults: the checkpoint's own)" },
        { BW_OPTION_SEED, "--seed", "N", &o->seed, .help = "same seed, same text; default random" },
        { BW_OPTION_NUMBER, "--temperature", "T", &o->temperature, .help = "0: always the most probable token",
          .low = 0, .high = 100 },
        { BW_OPTION_NUMBER, "--top-p", "P", &o->top_p, .help = "smallest set of this probability; 1: off", .low = 0,
          .high = 1,
          .open = BW_OPEN_LOW },
        { BW_OPTION_INT, "--top-k", "K", &o->top_k, .help = "the K most probable tokens; 0: off", .low = 0,
          .high = INT_MAX },
        { BW_OPTION_NUMBER, "--min-p", "P", &o->min_p, .help = "at least P times the best; 0: off", .low = 0, .high = 1,
          .open = BW_OPEN_HIGH },
        { BW_OPTION_NUMBER, "--presence-penalty", "X", &o->presence, .help = "for tokens that were generated; 0: off",
          .low = -2, .high = 2 },
        { BW_OPTION_NUMBER, "--frequency-penalty", "X", &o->frequency, .help = "for each time they were; 0: off",
          .low = -2, .high = 2 },
        { BW_OPTION_NUMBER, "--repetition-penalty", "X", &o->repetition,
          .help = "divides, in prompt and answer; 1: off", .low = 0,
          .high = 100, .open = BW_OPEN_LOW },
        { BW_OPTION_GROUP, .name = "Ending" },
        { BW_OPTION_LIST, "--stop", "TEXT", &o->stops, .help = "ends the answer before TEXT; may be repeated" },
        { BW_OPTION_INT, "--max-tokens", "N", &o->max_tokens, .help = "default: as many as the context holds",
          .low = 1, .high = INT_MAX },
        { BW_OPTION_SET, .name = "--ignore-eos", .target = &o->ignore_eos,
          .help = "go on past the end-of-text tokens" },
        { BW_OPTION_GROUP, .name = "Output" },
        { BW_OPTION_SET, .name = "--json", .target = &o->json,
          .help = "one JSON object: text, tokens, finish_reason,\nreceipt (and logprobs)" },
        { BW_OPTION_INT, "--logprobs", "N", &o->n_logprobs,
          .help = "with --json: log-probabilities of each token and\nof the N best ones, 0 to 20",
          .low = 0, .high = BW_MAX_LOGPROBS },
        BW_SETUP_OPTIONS(o->setup, "room for prompt and answer, in tokens; default:\nthe model's, at most 32768"),
        BW_DRAFT_OPTION(o->setup,
                        "tokens the MTP head drafts ahead, 1 to 8; changes\nthe speed, never the text; default auto"),
    };
    static const char about[] =
        "Writes an answer to PROMPT, or to what a pipe brings. Without either: a chat, in\n"
        "which Ctrl-C ends an answer and Ctrl-D the chat. MODEL is a Hugging Face folder or\n"
        "a .gguf file. The answer goes to standard output as it comes, thinking included\n"
        "(without a tokenizer: its token ids); a receipt of what it took goes to stderr.\n";
    const bw_command command = { "run", "MODEL [PROMPT]", 1, 2, about, options, sizeof options / sizeof options[0],
                                 "bellwether run models/lamb --seed 7 \"Tell me a story about a lost kite.\"" };
    const char *positionals[2];
    bw_args_result result = bw_args_read(&command, argc, argv, positionals);
    o->model = positionals[0];
    o->prompt = positionals[1];
    return result;
}

/* 0, or the exit status of a usage error: options that contradict each other. */
static int check_options(const run_options *o)
{
    if (o->ids_file && o->prompt)
        return bw_args_fail("run", "--ids and PROMPT are both given, expected one prompt");
    if (o->system && (o->raw || o->ids_file))
        return bw_args_fail("run",
                            "--system: given together with %s, expected one of them: without the chat format there is "
                            "no system message", o->raw ? "--raw" : "--ids");
    if (o->n_logprobs >= 0 && !o->json)
        return bw_args_fail("run",
                            "--logprobs: given without --json, expected both: only the JSON object has room for them");
    if (!o->prompt && !o->ids_file && isatty(STDIN_FILENO)) {
        if (o->json)
            return bw_args_fail("run", "--json: given without a prompt, expected PROMPT, a pipe or --ids");
        if (o->raw)
            return bw_args_fail("run", "--raw: given without a prompt, expected PROMPT or a pipe");
    }
    return 0;
}

static bw_sampling sampling_of(const run_options *o, const bw_model *model)
{
    bw_sampling s = bw_sampling_defaults_of(model, !o->raw, o->think);
    if (!isnan(o->temperature))
        s.temperature = o->temperature;
    if (!isnan(o->top_p))
        s.top_p = o->top_p;
    if (!isnan(o->min_p))
        s.min_p = o->min_p;
    if (!isnan(o->presence))
        s.presence_penalty = o->presence;
    if (!isnan(o->frequency))
        s.frequency_penalty = o->frequency;
    if (!isnan(o->repetition))
        s.repetition_penalty = o->repetition;
    if (o->top_k != NOT_GIVEN)
        s.top_k = o->top_k;
    s.seed = o->seed.value;
    return s;
}

static bw_request request_of(const run_options *o, const bw_model *model)
{
    bw_request request = bw_request_defaults(model);
    request.max_tokens = o->max_tokens;
    request.sampling = sampling_of(o, model);
    request.draft = o->setup.draft;
    request.n_logprobs = o->n_logprobs;
    if (o->ignore_eos) {
        request.stop_tokens = NULL;
        request.n_stop_tokens = 0;
    }
    return request;
}

/* ---- one prompt ------------------------------------------------------------------------------ */

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n\v\f", text[i]))
            return false;
    return true;
}

/* The prompt text, from the argument or the pipe, before the model is opened: a mistake is said at
 * once. False after a message. */
static bool read_prompt(const run_options *o, bw_buffer *text)
{
    if (!o->prompt && !bw_input_read(text, "-"))
        return false;
    if (o->prompt && !bw_buffer_add(text, o->prompt, strlen(o->prompt))) {
        bw_terminal_fail("prompt: out of memory");
        return false;
    }
    if (o->raw ? text->n > 0 : !is_blank(text->data, text->n))
        return true;
    bw_terminal_fail("prompt: %s, expected some text", o->prompt ? "the argument is empty" : "standard input is empty");
    bw_buffer_free(text);
    return false;
}

/* ids belong to the library (bw_free). */
static bool encode_prompt(const run_options *o, const bw_model *model, const bw_buffer *text, int32_t **ids, int *n_ids)
{
    bw_error err = { 0 };
    bw_status st;
    if (o->raw) {
        st = bw_encode(model, text->data, text->n, true, ids, n_ids, &err);
    } else {
        struct json_object *messages = json_object_new_array();
        if (o->system)
            json_object_array_add(messages, bw_chat_loop_message("system", o->system, strlen(o->system)));
        json_object_array_add(messages, bw_chat_loop_message("user", text->data, text->n));
        st = bw_chat_loop_prompt(model, messages, o->think, true, ids, n_ids, &err);
        json_object_put(messages);
    }
    if (st != BW_OK)
        bw_terminal_fail("prompt: %s", err.message);
    return st == BW_OK;
}

/* Where the text of one prompt goes. */
typedef struct display {
    const run_options *options;
    bw_reply *reply; /* splits off the thinking; NULL: everything as it is */
    bool thought, answered, spaced;
    char last;
} display;

static void show_part(void *arg, bw_reply_part part, const char *text, size_t n)
{
    display *d = arg;
    if (part == BW_REPLY_REASONING)
        d->thought = d->thought || n;
    else if (n && !d->answered) {
        d->answered = true;
        if (d->thought)
            bw_terminal_text("\n\n", 2, false);
    }
    bw_terminal_text(text, n, part == BW_REPLY_REASONING);
}

static void show_text(void *arg, const char *text, size_t n)
{
    display *d = arg;
    if (d->options->json)
        return;
    if (!d->reply || bw_reply_push(d->reply, text, n, NULL) != BW_OK)
        bw_terminal_text(text, n, false);
    d->last = text[n - 1];
}

static void show_token(void *arg, int32_t token)
{
    display *d = arg;
    if (d->options->json)
        return;
    printf(d->spaced ? " %d" : "%d", token);
    fflush(stdout);
    d->spaced = true;
    d->last = '0';
}

static void show_end(display *d)
{
    if (d->reply)
        bw_reply_finish(d->reply, NULL);
    bw_terminal_text_end();
    if (d->last && d->last != '\n')
        putchar('\n');
}

static struct json_object *text_json(const bw_buffer *text)
{
    return json_object_new_string_len(text->data ? text->data : "", (int)text->n);
}

static struct json_object *piece_json(const bw_model *model, int32_t token)
{
    char *text;
    size_t n;
    if (bw_decode(model, &token, 1, false, &text, &n, NULL) != BW_OK)
        return NULL;
    struct json_object *out = json_object_new_string_len(text, (int)n);
    bw_free(text);
    return out;
}

static struct json_object *logprob_json(const bw_model *model, int32_t token, float logprob)
{
    struct json_object *out = json_object_new_object();
    json_object_object_add(out, "token", json_object_new_int(token));
    json_object_object_add(out, "logprob", bw_json_number(logprob, 9));
    json_object_object_add(out, "text", piece_json(model, token));
    return out;
}

static struct json_object *logprobs_json(const bw_model *model, const bw_answer *answer)
{
    struct json_object *out = json_object_new_array();
    for (int i = 0; i < answer->n_tokens && answer->logprobs; i++) {
        struct json_object *item = logprob_json(model, answer->tokens[i], answer->logprobs[i]);
        struct json_object *top = json_object_new_array();
        for (int k = 0; k < answer->n_top; k++) {
            const bw_logprob *best = &answer->top[(size_t)i * (size_t)answer->n_top + (size_t)k];
            json_object_array_add(top, logprob_json(model, best->token, best->logprob));
        }
        json_object_object_add(item, "top", top);
        json_object_array_add(out, item);
    }
    return out;
}

static void print_json(const run_options *o, const bw_model *model, const bw_answer *answer, const bw_receipt *receipt)
{
    struct json_object *out = json_object_new_object(), *tokens = json_object_new_array();
    for (int i = 0; i < answer->n_tokens; i++)
        json_object_array_add(tokens, json_object_new_int(answer->tokens[i]));
    json_object_object_add(out, "text", receipt->info->has_text ? text_json(&answer->text) : NULL);
    json_object_object_add(out, "tokens", tokens);
    json_object_object_add(out, "finish_reason",
                           json_object_new_string(answer->finish == BW_FINISH_STOP ? "stop" : "length"));
    if (o->n_logprobs >= 0)
        json_object_object_add(out, "logprobs", logprobs_json(model, answer));
    json_object_object_add(out, "receipt", bw_receipt_json(receipt));
    puts(json_object_to_json_string_ext(out, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(out);
}

static int answer_prompt(const run_options *o, bw_model *model, bw_engine *engine, const bw_request *request)
{
    display d = { .options = o };
    const bw_answer_sink sink = { show_text, show_token, &d };
    bw_answer answer;
    bw_error err = { 0 };
    int status = 1;
    /* Pipes and files get the bytes in their own order, a terminal gets thinking dimmed. */
    const bool split = !o->raw && !o->json && isatty(STDOUT_FILENO);
    if (split && bw_reply_create(&d.reply, o->think, show_part, &d, &err) != BW_OK)
        return bw_terminal_fail("%s", err.message);
    bw_interrupt_watch();
    bw_status st = bw_answer_generate(&answer, engine, model, request, o->stops.items, o->stops.n, &sink, &err);
    bw_interrupt_unwatch();
    show_end(&d);
    if (st != BW_OK) {
        bw_terminal_fail("%s", err.message);
        goto done;
    }
    bw_receipt receipt = { .setup = &o->setup, .info = bw_model_get_info(model), .plan = bw_engine_get_plan(engine),
                           .sampling = request->sampling, .finish = answer.finish };
    bw_receipt_add(&receipt, &answer.usage, answer.n_tokens);
    const bool interrupted = answer.finish == BW_FINISH_NONE;
    if (o->json && !interrupted)
        print_json(o, model, &answer, &receipt);
    else
        bw_receipt_print(&receipt);
    status = interrupted ? 130 : bw_terminal_flush() ? 0 : 1;
done:
    bw_reply_destroy(d.reply);
    bw_answer_free(&answer);
    return status;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* What the model cannot do, said before anything is computed. */
static bool check_model(const run_options *o, const bw_model_info *info, bool needs_text)
{
    if (needs_text && !info->has_text) {
        bw_terminal_fail("%s: no tokenizer (%s), so it takes no text; give token ids with --ids FILE", info->path,
                         info->text_note);
        return false;
    }
    if (o->stops.n && !info->has_text) {
        bw_terminal_fail("--stop: given \"%s\", but %s has no tokenizer (%s)", o->stops.items[0], info->path,
                         info->text_note);
        return false;
    }
    if (o->setup.draft > 0 && !info->has_mtp) {
        bw_terminal_fail("--draft: given %d, expected auto or off: %s", o->setup.draft, info->mtp_note);
        return false;
    }
    if (!info->has_mtp)
        bw_terminal_note("%s", info->mtp_note);
    return true;
}

/* With --chunk 0 one step must hold the longest prompt: a chat's is as long as its context. A chat keeps saved
 * states too (where its answers begin and end), so that it never reads its own history again. */
static bw_status fit_chat(bw_model *model, bw_engine_options *options, bool whole, bw_error *err)
{
    enum { SAVED_STATES = 8 };
    bw_memory_plan plan;
    bw_status st = bw_engine_plan(model, options, &plan, err);
    if (st)
        return st;
    options->cache_memory = SAVED_STATES * plan.checkpoint_bytes;
    if (whole)
        options->max_rows = plan.context;
    return BW_OK;
}

static bw_engine *create_engine(const run_options *o, bw_model *model, int n_prompt)
{
    bw_engine_options options = bw_setup_engine(&o->setup, o->setup.context, n_prompt);
    bw_engine *engine = NULL;
    bw_error err = { 0 };
    bw_status st = n_prompt ? BW_OK : fit_chat(model, &options, o->setup.chunk == 0, &err);
    if (!st)
        st = bw_engine_create(&engine, model, &options, &err);
    if (st != BW_OK)
        bw_terminal_fail("%s", err.message);
    return engine;
}

static int run_prompt(const run_options *o)
{
    bw_buffer text = { 0 };
    int32_t *file_ids = NULL, *text_ids = NULL;
    int n_ids = 0, status = 1;
    bw_engine *engine = NULL;
    if (o->ids_file ? !bw_input_read_ids(&file_ids, &n_ids, o->ids_file) : !read_prompt(o, &text))
        return 1;
    bw_model *model = bw_setup_open(&o->setup, o->model);
    if (!model || !check_model(o, bw_model_get_info(model), !o->ids_file) ||
        (!o->ids_file && !encode_prompt(o, model, &text, &text_ids, &n_ids)) ||
        !(engine = create_engine(o, model, n_ids)))
        goto done;
    bw_request request = request_of(o, model);
    request.prompt = o->ids_file ? file_ids : text_ids;
    request.n_prompt = n_ids;
    status = answer_prompt(o, model, engine, &request);
done:
    bw_engine_destroy(engine);
    bw_model_close(model);
    bw_free(text_ids);
    free(file_ids);
    bw_buffer_free(&text);
    return status;
}

static int run_chat(const run_options *o)
{
    int status = 1;
    bw_engine *engine = NULL;
    bw_model *model = bw_setup_open(&o->setup, o->model);
    if (model && check_model(o, bw_model_get_info(model), true) && (engine = create_engine(o, model, 0))) {
        const bw_request request = request_of(o, model);
        bw_receipt receipt = { .setup = &o->setup, .info = bw_model_get_info(model), .plan = bw_engine_get_plan(engine),
                               .sampling = request.sampling };
        const bw_chat_loop_settings settings = { .model = model, .engine = engine, .request = &request,
                                                 .system = o->system,
                                            .think = o->think, .stops = o->stops.items, .n_stops = o->stops.n };
        status = bw_chat_loop_run(&settings, &receipt);
        if (receipt.n_answers)
            bw_receipt_print(&receipt);
    }
    bw_engine_destroy(engine);
    bw_model_close(model);
    return status;
}

/* Below 2^53, so that programs which read JSON numbers as doubles can repeat it. */
static bool random_seed(bw_seed_option *seed)
{
    uint64_t value;
    if (getrandom(&value, sizeof value, 0) != (ssize_t)sizeof value) {
        bw_terminal_fail("--seed: the system gave no random number; give one");
        return false;
    }
    seed->value = value >> 11;
    return true;
}

int bw_cmd_run(int argc, char **argv)
{
    run_options options;
    const bw_args_result result = read_options(&options, argc, argv);
    if (result != BW_ARGS_RUN)
        return result == BW_ARGS_DONE ? 0 : 2;
    const int wrong = check_options(&options);
    if (wrong)
        return wrong;
    if (options.ids_file)
        options.raw = true;
    if (!options.seed.given && !random_seed(&options.seed))
        return 1;
    const bool chat = !options.prompt && !options.ids_file && isatty(STDIN_FILENO);
    return chat ? run_chat(&options) : run_prompt(&options);
}
