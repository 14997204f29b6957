/* receipt.c - see receipt.h. */
#include "cli/receipt.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json.h>
#include <utf8proc.h>

void bw_receipt_add(bw_receipt *receipt, const bw_usage *usage, int n_tokens)
{
    receipt->n_answers++;
    receipt->prompt_tokens += usage->prompt_tokens;
    receipt->generated_tokens += n_tokens;
    receipt->cached_tokens += usage->cached_tokens;
    receipt->prefilled += usage->prompt_tokens - usage->cached_tokens;
    receipt->decoded += usage->generated_tokens > 1 ? usage->generated_tokens - 1 : 0;
    receipt->prefill_s += usage->prefill_s;
    receipt->decode_s += usage->decode_s;
    if (usage->draft_n > receipt->draft_n)
        receipt->draft_n = usage->draft_n;
    receipt->verifies += usage->verifies;
    for (int i = 0; i < BW_MAX_DRAFTS; i++)
        receipt->accepted_by_position[i] += usage->accepted_by_position[i];
}

static double per_second(int64_t n, double seconds)
{
    return n > 0 && seconds > 0 ? (double)n / seconds : NAN;
}

static double tokens_per_verify(const bw_receipt *r)
{
    int64_t accepted = 0;
    for (int i = 0; i < BW_MAX_DRAFTS; i++)
        accepted += r->accepted_by_position[i];
    return r->verifies ? 1 + (double)accepted / (double)r->verifies : NAN;
}

static void print_rate(int64_t n, double rate)
{
    if (isfinite(rate))
        fprintf(stderr, "%" PRId64 " tokens, %.1f tokens/s", n, rate);
    else
        fprintf(stderr, "%" PRId64 " tokens, - tokens/s", n);
}

static void print_drafts(const bw_receipt *r)
{
    if (!r->verifies) {
        fprintf(stderr, "  drafts     %s, tokens per verify -\n",
                r->setup->draft == BW_DRAFT_OFF ? "off" : r->info->has_mtp ? "none" : "none: no MTP head");
        return;
    }
    if (r->setup->draft == BW_DRAFT_AUTO)
        fprintf(stderr, "  drafts     auto, up to %d ahead, ", r->draft_n);
    else
        fprintf(stderr, "  drafts     %d ahead, ", r->draft_n);
    fprintf(stderr, "%" PRId64 " verifies, accepted", r->verifies);
    for (int i = 0; i < r->draft_n; i++)
        fprintf(stderr, "%s%.2f", i ? " / " : " ", (double)r->accepted_by_position[i] / (double)r->verifies);
    fprintf(stderr, ", %.2f tokens per verify\n", tokens_per_verify(r));
}

static void print_computing(const bw_receipt *r)
{
    const bw_model_info *info = r->info;
    fprintf(stderr, "  computing  %d thread%s, %s (%s), activations %s", info->n_threads,
            info->n_threads == 1 ? "" : "s",
            info->cpu_level, info->cpu_name, info->int8_activations ? "int8" : "f32");
    if (info->multiply_note && info->multiply_note[0])
        fprintf(stderr, " (%s)", info->multiply_note);
    fprintf(stderr, ", KV %s, ", bw_setup_kv(r->setup));
    if (r->setup->chunk)
        fprintf(stderr, "chunk %d\n", r->setup->chunk);
    else
        fprintf(stderr, "prompt in one chunk\n");
}

static void print_packing(const bw_receipt *r)
{
    if (r->info->packed_bytes)
        fprintf(stderr, "  weights    packed for %s: %.2f GiB in %.2f s\n", r->info->cpu_level, (double)r->info->packed_bytes / 0x1p30,
                r->info->pack_s);
}

static void print_memory(const bw_receipt *r)
{
    static const double mib = 1024.0 * 1024.0;
    const bw_memory_plan *plan = r->plan;
    fprintf(stderr, "  memory     %.1f MiB planned: weights %.1f, KV %.1f, state %.1f, scratch %.1f", (double)plan->total / mib,
            (double)plan->weights / mib, (double)plan->kv / mib, (double)plan->state / mib, (double)plan->scratch / mib);
    if (plan->cache)
        fprintf(stderr, ", saved states %.1f", (double)plan->cache / mib);
    fprintf(stderr, "; context %d tokens\n", plan->context);
}

static void print_sampling(const bw_receipt *r)
{
    const bw_sampling *s = &r->sampling;
    fprintf(stderr, "  sampling   temperature %g", (double)s->temperature);
    if (s->temperature > 0)
        fprintf(stderr, ", top-k %d, top-p %g, min-p %g", s->top_k > 0 ? s->top_k : 0, (double)s->top_p,
                (double)s->min_p);
    fprintf(stderr, ", penalties: presence %g, frequency %g, repetition %g; seed %" PRIu64 "\n",
            (double)s->presence_penalty,
            (double)s->frequency_penalty, (double)s->repetition_penalty, s->seed);
}

static const char *finish_name(bw_finish finish)
{
    return finish == BW_FINISH_STOP ? "stop" : finish == BW_FINISH_LENGTH ? "length" : "interrupted";
}

static void print_model(const bw_model_info *info)
{
    fprintf(stderr, "  model      %s (%s), loaded in %.2f s", info->path, info->architecture, info->load_s);
    if (info->load_bytes > 0 && info->load_s > 0)
        fprintf(stderr, ": %.2f GB at %.2f GB/s", (double)info->load_bytes / 1e9, (double)info->load_bytes / 1e9 / info->load_s);
    fprintf(stderr, "\n");
}

void bw_receipt_print(const bw_receipt *r)
{
    fflush(stdout);
    fprintf(stderr, "receipt\n");
    print_model(r->info);
    fprintf(stderr, "  prompt     ");
    print_rate(r->prompt_tokens, per_second(r->prefilled, r->prefill_s));
    if (r->cached_tokens)
        fprintf(stderr, ", %" PRId64 " of them remembered", r->cached_tokens);
    fprintf(stderr, "\n  generated  ");
    print_rate(r->generated_tokens, per_second(r->decoded, r->decode_s));
    if (r->n_answers == 1)
        fprintf(stderr, ", finish: %s\n", finish_name(r->finish));
    else
        fprintf(stderr, ", %d answers\n", r->n_answers);
    print_drafts(r);
    print_computing(r);
    print_packing(r);
    print_memory(r);
    print_sampling(r);
}

struct json_object *bw_json_number(double value, int digits)
{
    char text[40];
    if (!isfinite(value))
        return NULL; /* json-c prints a NULL member as null */
    snprintf(text, sizeof text, "%.*g", digits, value);
    return json_object_new_double_s(value, text);
}

struct json_object *bw_json_text(const char *text)
{
    static const char replacement[] = "\xEF\xBF\xBD";
    const size_t n = strlen(text);
    char *out = n < INT32_MAX / 3 ? malloc(3 * n + 1) : NULL;
    size_t n_out = 0;
    if (!out)
        return NULL;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t codepoint;
        const utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i),
                                                         &codepoint);
        const size_t n_from = length > 0 ? (size_t)length : 1, n_to = length > 0 ? n_from : sizeof replacement - 1;
        memcpy(out + n_out, length > 0 ? text + i : replacement, n_to);
        i += n_from;
        n_out += n_to;
    }
    struct json_object *string = json_object_new_string_len(out, (int)n_out);
    free(out);
    return string;
}

static struct json_object *draft_json(const bw_receipt *r)
{
    struct json_object *draft = json_object_new_object(), *accepted = json_object_new_array();
    for (int i = 0; i < r->draft_n; i++)
        json_object_array_add(accepted, json_object_new_int64(r->accepted_by_position[i]));
    json_object_object_add(draft, "n", json_object_new_int(r->draft_n));
    json_object_object_add(draft, "vocab", json_object_new_int(r->plan->draft_vocab));
    json_object_object_add(draft, "verifies", json_object_new_int64(r->verifies));
    json_object_object_add(draft, "accepted_by_position", accepted);
    json_object_object_add(draft, "tokens_per_verify", bw_json_number(tokens_per_verify(r), 6));
    return draft;
}

static struct json_object *sampling_json(const bw_sampling *s)
{
    struct json_object *out = json_object_new_object();
    json_object_object_add(out, "temperature", bw_json_number(s->temperature, 6));
    json_object_object_add(out, "top_k", json_object_new_int(s->top_k));
    json_object_object_add(out, "top_p", bw_json_number(s->top_p, 6));
    json_object_object_add(out, "min_p", bw_json_number(s->min_p, 6));
    json_object_object_add(out, "presence_penalty", bw_json_number(s->presence_penalty, 6));
    json_object_object_add(out, "frequency_penalty", bw_json_number(s->frequency_penalty, 6));
    json_object_object_add(out, "repetition_penalty", bw_json_number(s->repetition_penalty, 6));
    return out;
}

static struct json_object *memory_json(const bw_memory_plan *plan)
{
    struct json_object *out = json_object_new_object();
    json_object_object_add(out, "weights", json_object_new_uint64(plan->weights));
    json_object_object_add(out, "packed", json_object_new_uint64(plan->packed));
    json_object_object_add(out, "kv", json_object_new_uint64(plan->kv));
    json_object_object_add(out, "state", json_object_new_uint64(plan->state));
    json_object_object_add(out, "scratch", json_object_new_uint64(plan->scratch));
    json_object_object_add(out, "total", json_object_new_uint64(plan->total));
    return out;
}

struct json_object *bw_receipt_json(const bw_receipt *r)
{
    const bw_model_info *info = r->info;
    struct json_object *out = json_object_new_object();
    if (!out)
        return NULL;
    json_object_object_add(out, "model", bw_json_text(info->path));
    json_object_object_add(out, "architecture", bw_json_text(info->architecture));
    json_object_object_add(out, "prompt_tokens", json_object_new_int64(r->prompt_tokens));
    json_object_object_add(out, "cached_tokens", json_object_new_int64(r->cached_tokens));
    json_object_object_add(out, "generated_tokens", json_object_new_int64(r->generated_tokens));
    json_object_object_add(out, "prefill_tokens_per_s", bw_json_number(per_second(r->prefilled, r->prefill_s), 6));
    json_object_object_add(out, "decode_tokens_per_s", bw_json_number(per_second(r->decoded, r->decode_s), 6));
    json_object_object_add(out, "prefill_s", bw_json_number(r->prefill_s, 6));
    json_object_object_add(out, "decode_s", bw_json_number(r->decode_s, 6));
    json_object_object_add(out, "load_s", bw_json_number(info->load_s, 6));
    json_object_object_add(out, "load_wait_s", bw_json_number(info->load_wait_s, 6));
    json_object_object_add(out, "pack_s", bw_json_number(info->pack_s, 6));
    json_object_object_add(out, "load_bytes", json_object_new_uint64(info->load_bytes));
    json_object_object_add(out, "threads", json_object_new_int(info->n_threads));
    json_object_object_add(out, "cpu", json_object_new_string(info->cpu_level));
    json_object_object_add(out, "cpu_name", bw_json_text(info->cpu_name));
    json_object_object_add(out, "activations", json_object_new_string(info->int8_activations ? "int8" : "f32"));
    json_object_object_add(out, "multiply", json_object_new_string(info->multiply_note ? info->multiply_note : ""));
    json_object_object_add(out, "kv", json_object_new_string(bw_setup_kv(r->setup)));
    json_object_object_add(out, "chunk", json_object_new_int(r->setup->chunk));
    json_object_object_add(out, "context", json_object_new_int(r->plan->context));
    json_object_object_add(out, "memory_planned", memory_json(r->plan));
    json_object_object_add(out, "seed", json_object_new_uint64(r->sampling.seed));
    json_object_object_add(out, "sampling", sampling_json(&r->sampling));
    json_object_object_add(out, "draft", draft_json(r));
    return out;
}
