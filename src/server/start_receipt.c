/* start_receipt.c - see start_receipt.h. */
#include "server/start_receipt.h"

#include <stdarg.h>
#include <stdio.h>

#include "engine/model_facts.h"
#include "server/loader.h"
#include "server/serve.h"

typedef struct printer {
    void (*print)(void *arg, const char *line);
    void *arg;
} printer;

static void line(const printer *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void line(const printer *p, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    p->print(p->arg, text);
}

static double mib(uint64_t bytes)
{
    return (double)bytes / 0x1p20;
}

static void print_model(const printer *p, const bw_server *server)
{
    const bw_model_info *info = bw_model_get_info(server->model);
    bw_model_facts facts;
    bw_model_get_facts(server->model, &facts);
    line(p, "  model      %s (%s, %s, %.1f million weights), loaded in %.2f s, served as \"%s\"%s", info->path,
         info->architecture, facts.quantization, (double)facts.n_params / 1e6, info->load_s, server->model_id,
         server->api.n_model_ids > 1 ? " and its aliases" : "");
}

static void print_computing(const printer *p, const bw_server *server)
{
    const bw_model_info *info = bw_model_get_info(server->model);
    line(p, "  computing  %d thread%s, %s (%s), activations %s%s%s%s, KV %s", info->n_threads, info->n_threads == 1 ? "" : "s",
         info->cpu_level, info->cpu_name, info->int8_activations ? "int8" : "f32",
         info->multiply_note && info->multiply_note[0] ? " (" : "", info->multiply_note ? info->multiply_note : "",
         info->multiply_note && info->multiply_note[0] ? ")" : "", server->options->engine.kv == BW_KV_F32 ? "f32" : "f16");
}

static void print_memory(const printer *p, const bw_server *server)
{
    const bw_memory_plan *plan = bw_engine_get_plan(server->engine);
    const bw_model_info *info = bw_model_get_info(server->model);
    if (info->packed_bytes)
        line(p, "  weights    packed for %s: %.2f GiB in %.2f s", info->cpu_level, (double)info->packed_bytes / 0x1p30, info->pack_s);
    line(p, "  memory     %.1f MiB planned: weights %.1f, KV %.1f, state %.1f, scratch %.1f, checkpoints up to %.1f",
         mib(plan->total), mib(plan->weights), mib(plan->kv), mib(plan->state), mib(plan->scratch), mib(plan->cache));
    line(p, "  room       context %d tokens, %d sequence%s at a time, %llu tokens of KV for all; %d requests may wait",
         plan->context, plan->max_seqs, plan->max_seqs == 1 ? "" : "s",
         (unsigned long long)(plan->kv_bytes_per_token ? plan->kv / plan->kv_bytes_per_token : 0), server->loaded->max_waiting);
}

static void print_finding(const printer *p, const char *name, const bw_finding *finding)
{
    static const char *const words[] = { [BW_ENGAGED_YES] = "", [BW_ENGAGED_OFF] = "", [BW_ENGAGED_NO] = "NOT ENGAGED: " };
    line(p, "  %-10s %s%s", name, words[finding->engaged], finding->note);
}

void bw_start_receipt(const bw_server *server, const char *address, void (*print)(void *arg, const char *line), void *arg)
{
    const printer p = { print, arg };
    const bw_self_test *test = server->self_test;
    if (!print)
        return;
    line(&p, "receipt");
    print_model(&p, server);
    line(&p, "  address    %s (clients: %sv1)", address, address);
    print_computing(&p, server);
    print_memory(&p, server);
    print_finding(&p, "drafts", &test->drafts);
    print_finding(&p, "cache", &test->cache);
    print_finding(&p, "identity", &test->agreement);
    if (test->ran)
        line(&p, "  self-test  %s in %.2f s", bw_self_test_passed(test) ? "passed" : "FAILED", test->seconds);
    else
        line(&p, "  self-test  not run");
}
