/* cmd_eval.c - `bellwether eval`: how well a model predicts a text, and the logits behind it. Uses
 * bellwether.h and nothing else of the library. Main thread.
 *
 * One sequence, without chat format; one JSON object on stdout once all files are written. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <json.h>

#include "bellwether.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/npy.h"
#include "cli/receipt.h"
#include "cli/setup.h"
#include "cli/terminal.h"

typedef struct eval_options {
    bw_setup setup;
    const char *model, *text_file, *ids_file, *logits;
    bw_counted_option draft_logits;
} eval_options;

typedef struct evaluation {
    const eval_options *options;
    bw_model *model;
    bw_engine *engine;
    int32_t *ids;    /* [n_ids]; from_file says whose */
    int n_ids;
    bool from_file;  /* free, otherwise bw_free */
    float *logprobs; /* [n_ids] */
    bw_npy logits, draft_logits;
    double seconds;
} evaluation;

static bw_args_result read_options(eval_options *o, int argc, char **argv)
{
    *o = (eval_options){ .setup = BW_SETUP_DEFAULTS };
    const bw_option options[] = {
        { BW_OPTION_GROUP, .name = "Input (one of them; -: standard input)" },
        { BW_OPTION_TEXT, "--text", "FILE", &o->text_file, .expected = "a file name, or - for standard input",
          .help = "a text; special tokens in it are matched" },
        { BW_OPTION_TEXT, "--ids", "FILE", &o->ids_file, .expected = "a file name, or - for standard input",
          .help = "a JSON array of token ids" },
        { BW_OPTION_GROUP, .name = "Output (raw head outputs, float32, .npy)" },
        { BW_OPTION_TEXT, "--logits", "OUT", &o->logits, .expected = "the name of a file to write",
          .help = "those of every row: [tokens, vocab]" },
        { BW_OPTION_COUNTED, "--draft-logits", "N OUT", &o->draft_logits, .low = 1, .high = BW_MAX_DRAFTS,
          .help = "those of N drafts after the text and its most\nprobable next token: [N, vocab]" },
        BW_SETUP_OPTIONS(o->setup, "tokens at most; default: as many as the input\nhas, up to the model's context"),
        BW_DRAFT_OPTION(o->setup,
                        "off: open it although its MTP head is broken;\nno draft is ever needed here; default auto"),
    };
    static const char about[] =
        "Prints a JSON object: tokens, mean_loss (natural logarithm, tokens 2 to the last, as\n"
        "one sequence), perplexity = exp(mean_loss), seconds. One token has no loss: null.\n";
    const bw_command command = { "eval", "MODEL", 1, 1, about, options, sizeof options / sizeof options[0],
                                 "bellwether eval models/lamb --text models/lamb/README.md" };
    return bw_args_read(&command, argc, argv, &o->model);
}

/* Text needs the model, ids do not: a wrong ids file is said before anything is loaded. */
static bool read_input(evaluation *e, bw_buffer *text)
{
    const eval_options *o = e->options;
    if (o->ids_file)
        return bw_input_read_ids(&e->ids, &e->n_ids, o->ids_file);
    if (!bw_input_read(text, o->text_file))
        return false;
    if (text->n)
        return true;
    bw_terminal_fail("--text: %s is empty, expected some text", o->text_file);
    return false;
}

static bool encode_input(evaluation *e, const bw_buffer *text)
{
    const bw_model_info *info = bw_model_get_info(e->model);
    bw_error err = { 0 };
    if (e->from_file)
        return true;
    if (!info->has_text) {
        bw_terminal_fail("%s: no tokenizer (%s), so it takes no text; give token ids with --ids FILE", info->path,
                         info->text_note);
        return false;
    }
    if (bw_encode(e->model, text->data, text->n, true, &e->ids, &e->n_ids, &err) == BW_OK)
        return true;
    bw_terminal_fail("--text: %s: %s", e->options->text_file, err.message);
    return false;
}

/* --ctx means the input alone; drafts want room after it. No engine has a context of one token. */
static bool create_engine(evaluation *e)
{
    const eval_options *o = e->options;
    const bw_model_info *info = bw_model_get_info(e->model);
    bw_error err = { 0 };
    if (o->setup.context > info->max_context) {
        bw_terminal_fail("--ctx: %d tokens are more than the %d that %s was made for", o->setup.context,
                         info->max_context, info->path);
        return false;
    }
    const int limit = o->setup.context ? o->setup.context : info->max_context;
    if (e->n_ids > limit) {
        bw_terminal_fail("input: %d tokens are more than %s %d", e->n_ids,
                         o->setup.context ? "--ctx" : "the model's context of", limit);
        return false;
    }
    if (o->draft_logits.n > info->max_context - e->n_ids) {
        bw_terminal_fail("--draft-logits: %d tokens and %d drafts are more than the model's context of %d", e->n_ids,
                         o->draft_logits.n, info->max_context);
        return false;
    }
    const int after = o->draft_logits.n ? o->draft_logits.n : e->n_ids == 1;
    const int context = e->n_ids < info->max_context - after ? e->n_ids + after : info->max_context;
    bw_engine_options options = bw_setup_engine(&o->setup, context, e->n_ids);
    options.no_drafts = o->draft_logits.n == 0;
    if (bw_engine_create(&e->engine, e->model, &options, &err) == BW_OK)
        return true;
    bw_terminal_fail("%s", err.message);
    return false;
}

static bool create_outputs(evaluation *e)
{
    const eval_options *o = e->options;
    const bw_model_info *info = bw_model_get_info(e->model);
    if (o->draft_logits.n && !info->has_mtp) {
        bw_terminal_fail("--draft-logits: %s", info->mtp_note);
        return false;
    }
    if (!(e->logprobs = calloc((size_t)e->n_ids, sizeof *e->logprobs))) {
        bw_terminal_fail("input: out of memory for %d losses", e->n_ids);
        return false;
    }
    return (!o->logits || bw_npy_create(&e->logits, o->logits, (size_t)e->n_ids, (size_t)info->vocab)) &&
           (!o->draft_logits.n ||
            bw_npy_create(&e->draft_logits, o->draft_logits.text, (size_t)o->draft_logits.n, (size_t)info->vocab));
}

static bw_status step_to_the_end(bw_engine *engine, const bw_request *request, bw_error *err)
{
    bw_seq_id id;
    bw_status st = bw_engine_submit(engine, request, &id, err);
    while (!st && !bw_engine_idle(engine) && !bw_interrupted()) {
        bw_event event;
        st = bw_engine_step(engine, err);
        while (!st && bw_engine_event(engine, &event))
            ;
    }
    return st;
}

/* Exit status: 0, 1 after a message, 130 after Ctrl-C. */
static int compute(evaluation *e)
{
    bw_error err = { 0 };
    struct timespec begin, end;
    bw_request request = bw_request_defaults(e->model);
    request.prompt = e->ids;
    request.n_prompt = e->n_ids;
    request.max_tokens = e->options->draft_logits.n ? 1 : 0; /* drafts follow a token */
    request.sampling = (bw_sampling){ .temperature = 0, .top_p = 1, .repetition_penalty = 1 };
    request.stop_tokens = NULL;
    request.n_stop_tokens = 0;
    request.draft = BW_DRAFT_OFF;
    request.prompt_logits = e->logits.rows;
    request.prompt_logprobs = e->logprobs;
    request.n_draft_logits = e->options->draft_logits.n;
    request.draft_logits = e->draft_logits.rows;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    bw_interrupt_watch();
    const bw_status st = step_to_the_end(e->engine, &request, &err);
    const bool interrupted = bw_interrupted();
    bw_interrupt_unwatch();
    clock_gettime(CLOCK_MONOTONIC, &end);
    e->seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) * 1e-9;
    if (st != BW_OK)
        return bw_terminal_fail("%s", err.message);
    return interrupted ? 130 : 0;
}

static double mean_loss(const evaluation *e)
{
    double sum = 0;
    for (int i = 1; i < e->n_ids; i++)
        sum -= (double)e->logprobs[i];
    return e->n_ids > 1 ? sum / (e->n_ids - 1) : NAN;
}

static void print_result(const evaluation *e)
{
    const bw_model_info *info = bw_model_get_info(e->model);
    struct json_object *out = json_object_new_object();
    json_object_object_add(out, "model", bw_json_text(info->path));
    json_object_object_add(out, "tokens", json_object_new_int(e->n_ids));
    json_object_object_add(out, "mean_loss", bw_json_number(mean_loss(e), 9));
    json_object_object_add(out, "perplexity", bw_json_number(exp(mean_loss(e)), 9));
    json_object_object_add(out, "seconds", bw_json_number(e->seconds, 6));
    json_object_object_add(out, "load_s", bw_json_number(info->load_s, 6));
    json_object_object_add(out, "threads", json_object_new_int(info->n_threads));
    json_object_object_add(out, "cpu", json_object_new_string(info->cpu_level));
    json_object_object_add(out, "activations", json_object_new_string(bw_setup_activations(e->model)));
    json_object_object_add(out, "kv", json_object_new_string(bw_setup_kv(&e->options->setup)));
    json_object_object_add(out, "chunk", json_object_new_int(e->options->setup.chunk));
    puts(json_object_to_json_string_ext(out, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(out);
}

static int evaluate(evaluation *e, bw_buffer *text)
{
    const eval_options *o = e->options;
    if (!read_input(e, text) || !(e->model = bw_setup_open(&o->setup, o->model)) || !encode_input(e, text) ||
        !create_engine(e) || !create_outputs(e))
        return 1;
    const int status = compute(e);
    if (status)
        return status;
    if ((e->logits.rows && !bw_npy_finish(&e->logits)) || (e->draft_logits.rows && !bw_npy_finish(&e->draft_logits)))
        return 1;
    print_result(e);
    return bw_terminal_flush() ? 0 : 1;
}

int bw_cmd_eval(int argc, char **argv)
{
    eval_options options;
    const bw_args_result result = read_options(&options, argc, argv);
    if (result != BW_ARGS_RUN)
        return result == BW_ARGS_DONE ? 0 : 2;
    if (!options.text_file == !options.ids_file)
        return bw_args_fail("eval", "%s, expected one of --text FILE and --ids FILE",
                            options.text_file ? "--text and --ids are both given" : "the input is missing");
    evaluation e = { .options = &options, .from_file = options.ids_file != NULL, .logits = BW_NPY_NONE,
                     .draft_logits = BW_NPY_NONE };
    bw_buffer text = { 0 };
    const int status = evaluate(&e, &text);
    bw_npy_abandon(&e.logits);
    bw_npy_abandon(&e.draft_logits);
    bw_engine_destroy(e.engine);
    bw_model_close(e.model);
    free(e.logprobs);
    if (e.from_file)
        free(e.ids);
    else
        bw_free(e.ids);
    bw_buffer_free(&text);
    return status;
}
