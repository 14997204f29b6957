/* cmd_inspect.c - `bellwether inspect`: what is in a checkpoint, and is it whole. Main thread.
 *
 * The report goes to stdout if the model can run at all. What is wrong goes to stderr, a line each;
 * then the exit status is 1. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <json.h>

#include "cli/args.h"
#include "cli/commands.h"
#include "cli/findings.h"
#include "cli/receipt.h"
#include "cli/terminal.h"
#include "format/roles.h"

typedef struct inspect_options {
    const char *model;
    int context, kv;
    bool json, tensors;
} inspect_options;

static bw_args_result read_options(inspect_options *o, int argc, char **argv)
{
    *o = (inspect_options){ 0 };
    const bw_option options[] = {
        { BW_OPTION_GROUP, .name = "Memory" },
        { BW_OPTION_INT, .name = "--ctx", .value = "N", .target = &o->context, .low = 1, .high = 2147483647,
          .help = "plan for N tokens; default: the model's context,\nat most 32768" },
        { BW_OPTION_CHOICE, .name = "--kv", .value = "f16|f32", .target = &o->kv, .choices = "f16|f32",
          .help = "how keys and values are kept; default f16" },
        { BW_OPTION_GROUP, .name = "Output" },
        { BW_OPTION_SET, .name = "--json", .target = &o->json, .help = "one JSON object instead of the table" },
        { BW_OPTION_SET, .name = "--tensors", .target = &o->tensors, .help = "also list every tensor" },
    };
    static const char about[] =
        "Prints what a model is made of, whether every tensor is there and understood, and\n"
        "the memory it takes. MODEL is a Hugging Face folder or a .gguf file. Exit status 1\n"
        "when it is not whole: what is wrong is said on stderr.\n";
    const bw_command command = { "inspect", "MODEL", 1, 1, about, options, sizeof options / sizeof options[0],
                                 "bellwether inspect models/lamb" };
    return bw_args_read(&command, argc, argv, &o->model);
}

/* ---- for people ------------------------------------------------------------------------------ */

/* "28.2 MB": as file managers and model pages count them. */
static const char *size_text(uint64_t bytes)
{
    static char ring[8][32];
    static int next;
    char *text = ring[next++ % 8];
    if (bytes < 1000)
        snprintf(text, sizeof ring[0], "%" PRIu64 " B", bytes);
    else if (bytes < 1000000)
        snprintf(text, sizeof ring[0], "%.1f kB", (double)bytes * 1e-3);
    else if (bytes < 1000000000)
        snprintf(text, sizeof ring[0], "%.1f MB", (double)bytes * 1e-6);
    else
        snprintf(text, sizeof ring[0], "%.2f GB", (double)bytes * 1e-9);
    return text;
}

static void print_architecture(const bw_config *c, bool tied)
{
    printf("\narchitecture\n");
    printf("  layers             %d: %d linear attention, %d full attention\n", c->n_layers, c->n_linear,
           c->n_attention);
    printf("  hidden             %d\n", c->hidden);
    printf("  vocabulary         %d rows, output head %s\n", c->vocab, tied ? "tied to the embedding" : "of its own");
    printf("  full attention     %d query heads on %d KV head%s of %d, rotary over %d\n", c->n_heads, c->n_kv_heads,
           c->n_kv_heads == 1 ? "" : "s",
           c->head_dim, 2 * c->rope.n_pairs);
    printf("  linear attention   %d key heads of %d, %d value heads of %d, convolution %d\n", c->n_k_heads, c->d_k,
           c->n_v_heads, c->d_v, c->conv_width);
    if (c->moe)
        printf("  experts            %d of %d per token, %d wide; shared expert %d wide\n", c->n_experts_used,
               c->n_experts,
               c->expert_ffn, c->shared_ffn);
    else
        printf("  MLP                %d wide\n", c->ffn);
    printf("  norm epsilon       %g\n", (double)c->norm_eps);
    printf("  context            %d tokens\n", c->max_position);
}

static void print_tensors(const bw_findings *f)
{
    printf("\n%-22s %7s  %10s  %s\n", "tensors", "count", "bytes", "types");
    for (int i = 0; i < BW_PART_COUNT; i++) {
        const bw_part_count *part = &f->parts[i];
        char types[256];
        if (!part->n_tensors)
            continue;
        bw_findings_types(part, types, sizeof types);
        printf("  %-20s %7d  %10s  %s\n", bw_part_name((bw_part)i), part->n_tensors, size_text(part->bytes), types);
    }
}

static void print_every_tensor(const bw_findings *f)
{
    printf("\nevery tensor\n");
    for (int i = 0; i < bw_checkpoint_n_tensors(f->checkpoint); i++) {
        const bw_tensor *t = bw_checkpoint_tensor_at(f->checkpoint, i);
        char shape[160];
        bw_shape_text(shape, sizeof shape, t->shape, t->n_dims);
        printf("  %s  %s %s, %" PRIu64 " bytes, %s\n", t->name, t->type_name, shape, t->bytes,
               bw_part_name(bw_findings_part(f, t)));
    }
}

static void print_value(const char *name, double value)
{
    if (isfinite(value))
        printf(" %s %g,", name, value);
}

static void print_text(const bw_findings *f)
{
    const bw_sampling_defaults *s = &f->config.sampling;
    char line[2048];
    bw_findings_mtp(f, line, sizeof line);
    printf("\nMTP: %s\n", line);
    if (f->text) {
        printf("tokenizer: %d tokens, of %d rows\n", bw_text_source_n_tokens(f->text), f->config.vocab);
        printf("chat format: %s\n", bw_text_source_chat_note(f->text));
    } else {
        printf("tokenizer: none (%s); token ids only\n", f->text_note);
    }
    if (f->config.has_vision)
        printf("vision: recognised, not used yet: text only\n");
    printf("sampling:");
    print_value("temperature", (double)s->temperature);
    if (s->top_k >= 0)
        printf(" top-k %d,", s->top_k);
    print_value("top-p", (double)s->top_p);
    print_value("min-p", (double)s->min_p);
    print_value("presence penalty", (double)s->presence_penalty);
    print_value("frequency penalty", (double)s->frequency_penalty);
    print_value("repetition penalty", (double)s->repetition_penalty);
    printf(" stop tokens");
    for (int i = 0; i < s->n_eos; i++)
        printf(" %d", s->eos[i]);
    printf("%s\n", s->n_eos ? "" : " none");
}

static void print_memory(const bw_findings *f)
{
    const bw_memory_plan *p = &f->plan;
    printf("\nmemory for one sequence of %d tokens, KV %s\n", p->context, f->engine.kv == BW_KV_F32 ? "f32" : "f16");
    printf("  weights  %10s", size_text(p->weights));
    if (p->packed)
        printf("  %s of them packed for this processor, the rest mapped", size_text(p->packed));
    printf("\n");
    printf("  KV       %10s  %" PRIu64 " bytes a token\n", size_text(p->kv), p->kv_bytes_per_token);
    printf("  state    %10s\n", size_text(p->state));
    printf("  scratch  %10s\n", size_text(p->scratch));
    printf("  total    %10s\n", size_text(p->total));
}

static void print_report(const inspect_options *o, const bw_findings *f)
{
    const bool gguf = bw_checkpoint_container(f->checkpoint) == BW_CONTAINER_GGUF;
    const int n_files = bw_checkpoint_n_files(f->checkpoint);
    printf("%s: %s, %s, %s in %d %s%s, %d tensors\n", o->model, f->config.architecture,
           f->config.moe ? "mixture of experts" : "dense", size_text(bw_checkpoint_bytes(f->checkpoint)), n_files,
           gguf ? "GGUF file" : "safetensors file", n_files == 1 ? "" : "s", bw_checkpoint_n_tensors(f->checkpoint));
    printf("whole: %s\n", f->n_problems ? "no" : "yes, every tensor is there, of the right shape and understood");
    print_architecture(&f->config, f->weights.embed.data == f->weights.head.data);
    print_tensors(f);
    print_text(f);
    if (f->has_plan)
        print_memory(f);
    if (o->tensors)
        print_every_tensor(f);
}

/* ---- for programs ---------------------------------------------------------------------------- */

static void add_int(struct json_object *to, const char *name, int64_t value)
{
    json_object_object_add(to, name, json_object_new_int64(value));
}

static void add_text(struct json_object *to, const char *name, const char *value)
{
    json_object_object_add(to, name, bw_json_text(value));
}

static void add_bool(struct json_object *to, const char *name, bool value)
{
    json_object_object_add(to, name, json_object_new_boolean(value));
}

static struct json_object *config_json(const bw_config *c, bool tied)
{
    struct json_object *out = json_object_new_object();
    add_int(out, "layers", c->n_layers);
    add_int(out, "linear_attention_layers", c->n_linear);
    add_int(out, "full_attention_layers", c->n_attention);
    add_int(out, "hidden", c->hidden);
    add_int(out, "vocab", c->vocab);
    add_bool(out, "tied", tied);
    add_int(out, "heads", c->n_heads);
    add_int(out, "kv_heads", c->n_kv_heads);
    add_int(out, "head_dim", c->head_dim);
    add_int(out, "rotary_dim", 2 * c->rope.n_pairs);
    add_int(out, "linear_key_heads", c->n_k_heads);
    add_int(out, "linear_key_dim", c->d_k);
    add_int(out, "linear_value_heads", c->n_v_heads);
    add_int(out, "linear_value_dim", c->d_v);
    add_int(out, "convolution", c->conv_width);
    if (c->moe) {
        add_int(out, "experts", c->n_experts);
        add_int(out, "experts_used", c->n_experts_used);
        add_int(out, "expert_ffn", c->expert_ffn);
        add_int(out, "shared_ffn", c->shared_ffn);
    } else {
        add_int(out, "ffn", c->ffn);
    }
    json_object_object_add(out, "norm_eps", bw_json_number((double)c->norm_eps, 6));
    add_int(out, "context", c->max_position);
    return out;
}

static struct json_object *parts_json(const bw_findings *f)
{
    struct json_object *out = json_object_new_array();
    for (int i = 0; i < BW_PART_COUNT; i++) {
        const bw_part_count *part = &f->parts[i];
        if (!part->n_tensors)
            continue;
        struct json_object *item = json_object_new_object(), *types = json_object_new_object();
        add_text(item, "role", bw_part_name((bw_part)i));
        add_int(item, "count", part->n_tensors);
        json_object_object_add(item, "bytes", json_object_new_uint64(part->bytes));
        for (int k = 0; k < part->n_types; k++)
            add_int(types, part->types[k].name, part->types[k].n);
        json_object_object_add(item, "types", types);
        json_object_array_add(out, item);
    }
    return out;
}

static struct json_object *every_tensor_json(const bw_findings *f)
{
    struct json_object *out = json_object_new_array();
    for (int i = 0; i < bw_checkpoint_n_tensors(f->checkpoint); i++) {
        const bw_tensor *t = bw_checkpoint_tensor_at(f->checkpoint, i);
        struct json_object *item = json_object_new_object(), *shape = json_object_new_array();
        for (int k = 0; k < t->n_dims; k++)
            json_object_array_add(shape, json_object_new_uint64(t->shape[k]));
        add_text(item, "name", t->name);
        add_text(item, "type", t->type_name);
        json_object_object_add(item, "shape", shape);
        json_object_object_add(item, "bytes", json_object_new_uint64(t->bytes));
        add_text(item, "role", bw_part_name(bw_findings_part(f, t)));
        json_object_array_add(out, item);
    }
    return out;
}

static struct json_object *mtp_json(const bw_findings *f)
{
    static const char *const states[] = { [BW_MTP_ABSENT] = "absent", [BW_MTP_COMPLETE] = "complete",
                                          [BW_MTP_BROKEN] = "broken" };
    struct json_object *out = json_object_new_object();
    char line[2048];
    bw_findings_mtp(f, line, sizeof line);
    add_text(out, "state", states[f->weights.mtp_state]);
    add_int(out, "found", f->weights.mtp_found);
    add_int(out, "expected", f->weights.mtp_expected);
    add_text(out, "note", line);
    return out;
}

static struct json_object *tokenizer_json(const bw_findings *f)
{
    if (!f->text)
        return NULL;
    struct json_object *out = json_object_new_object();
    add_int(out, "tokens", bw_text_source_n_tokens(f->text));
    add_text(out, "chat_format", bw_text_source_chat_note(f->text));
    add_bool(out, "chat_format_known", bw_text_source_chat_known(f->text));
    return out;
}

static struct json_object *sampling_json(const bw_sampling_defaults *s)
{
    struct json_object *out = json_object_new_object(), *stops = json_object_new_array();
    json_object_object_add(out, "temperature", bw_json_number((double)s->temperature, 6));
    json_object_object_add(out, "top_k", s->top_k < 0 ? NULL : json_object_new_int(s->top_k));
    json_object_object_add(out, "top_p", bw_json_number((double)s->top_p, 6));
    json_object_object_add(out, "min_p", bw_json_number((double)s->min_p, 6));
    json_object_object_add(out, "presence_penalty", bw_json_number((double)s->presence_penalty, 6));
    json_object_object_add(out, "frequency_penalty", bw_json_number((double)s->frequency_penalty, 6));
    json_object_object_add(out, "repetition_penalty", bw_json_number((double)s->repetition_penalty, 6));
    for (int i = 0; i < s->n_eos; i++)
        json_object_array_add(stops, json_object_new_int(s->eos[i]));
    json_object_object_add(out, "stop_tokens", stops);
    return out;
}

static struct json_object *memory_json(const bw_findings *f)
{
    if (!f->has_plan)
        return NULL;
    struct json_object *out = json_object_new_object();
    add_int(out, "context", f->plan.context);
    add_text(out, "kv_type", f->engine.kv == BW_KV_F32 ? "f32" : "f16");
    json_object_object_add(out, "weights", json_object_new_uint64(f->plan.weights));
    json_object_object_add(out, "packed", json_object_new_uint64(f->plan.packed));
    json_object_object_add(out, "kv", json_object_new_uint64(f->plan.kv));
    json_object_object_add(out, "kv_per_token", json_object_new_uint64(f->plan.kv_bytes_per_token));
    json_object_object_add(out, "state", json_object_new_uint64(f->plan.state));
    json_object_object_add(out, "scratch", json_object_new_uint64(f->plan.scratch));
    json_object_object_add(out, "total", json_object_new_uint64(f->plan.total));
    return out;
}

static void print_json(const inspect_options *o, const bw_findings *f)
{
    struct json_object *out = json_object_new_object(), *problems = json_object_new_array();
    for (int i = 0; i < f->n_problems; i++)
        json_object_array_add(problems, bw_json_text(f->problems[i]));
    add_text(out, "path", o->model);
    add_text(out, "container", bw_checkpoint_container(f->checkpoint) == BW_CONTAINER_GGUF ? "gguf" : "safetensors");
    add_int(out, "files", bw_checkpoint_n_files(f->checkpoint));
    json_object_object_add(out, "bytes", json_object_new_uint64(bw_checkpoint_bytes(f->checkpoint)));
    add_bool(out, "whole", f->n_problems == 0);
    json_object_object_add(out, "problems", problems);
    add_text(out, "architecture", f->config.architecture);
    json_object_object_add(out, "config", config_json(&f->config, f->weights.embed.data == f->weights.head.data));
    json_object_object_add(out, "tensors", parts_json(f));
    json_object_object_add(out, "mtp", mtp_json(f));
    json_object_object_add(out, "tokenizer", tokenizer_json(f));
    add_bool(out, "vision", f->config.has_vision);
    json_object_object_add(out, "sampling", sampling_json(&f->config.sampling));
    json_object_object_add(out, "memory", memory_json(f));
    if (o->tensors)
        json_object_object_add(out, "every_tensor", every_tensor_json(f));
    const int style = JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE;
    puts(json_object_to_json_string_ext(out, style));
    json_object_put(out);
}

int bw_cmd_inspect(int argc, char **argv)
{
    inspect_options o;
    static bw_findings findings; /* a config is too large for the stack */
    const bw_args_result result = read_options(&o, argc, argv);
    if (result != BW_ARGS_RUN)
        return result == BW_ARGS_DONE ? 0 : 2;
    bw_engine_options engine = bw_engine_defaults();
    engine.context = o.context;
    engine.kv = o.kv == 1 ? BW_KV_F32 : BW_KV_F16;
    bw_log_to(bw_terminal_log, NULL);
    bw_findings_gather(&findings, o.model, &engine);
    const bool tell = findings.runs && findings.has_plan; /* no plan: --ctx asks too much */
    if (tell && o.json)
        print_json(&o, &findings);
    else if (tell)
        print_report(&o, &findings);
    fflush(stdout);
    for (int i = 0; i < findings.n_problems; i++)
        bw_terminal_fail("%s", findings.problems[i]);
    const int status = bw_terminal_flush() && !findings.n_problems ? 0 : 1;
    bw_findings_release(&findings);
    return status;
}
