/* test_net.c - weights placed as a whole: all matrices packed in one block but the embedding, whole and counted;
 * and the same model opened by the library. */
#include <stdlib.h>
#include <time.h>

#include "lib/ops_check.h"
#include "lib/runs.h"
#include "lib/threads_left.h"
#include "engine/engine.h"
#include "format/checkpoint.h"
#include "model/net.h"
#include "ops/cpu/pack.h"

typedef struct placed {
    bw_checkpoint *checkpoint;
    bw_config config;
    bw_weights weights;
    bw_backend *backend;
    bw_net *net;
    double last; /* progress */
} placed;

static void note_progress(void *arg, double done)
{
    placed *p = arg;
    check(done >= p->last && done <= 1);
    p->last = done;
}

static void open_weights(placed *p, const char *path)
{
    bw_error err;
    *p = (placed){ 0 };
    check_ok(bw_checkpoint_open(&p->checkpoint, repo_path(path), &err), err);
    check_ok(bw_config_read(&p->config, p->checkpoint, &err), err);
    check_ok(bw_weights_resolve(&p->weights, &p->config, p->checkpoint, false, &err), err);
    check_ok(bw_cpu_backend_create(&p->backend, 3, "ref", &err), err);
    bw_cpu_of(p->backend)->k.packs = true; /* whatever the level does */
}

static bw_net_options options_of(placed *p)
{
    return (bw_net_options){ .int8 = true, .checkpoint = p->checkpoint, .progress = note_progress,
                             .progress_arg = p };
}

static void close_weights(placed *p)
{
    bw_net_destroy(p->net);
    p->backend->ops->destroy(p->backend);
    bw_weights_release(&p->weights);
    bw_checkpoint_close(p->checkpoint);
}

/* Packed if quantised, and every row is that of the file. Returns the bytes of the copy. */
static uint64_t check_matrix(const bw_weight *w, const bw_matrix *m)
{
    const size_t row_bytes = bw_dtype_row_bytes(m->type, (uint64_t)m->cols);
    static unsigned char row[1 << 16];
    check(w->rows == m->rows && w->cols == m->cols && w->type == m->type);
    check_int(w->packed, !bw_dtype_is_float(m->type));
    if (!w->packed) {
        check(w->data == m->data);
        return 0;
    }
    const size_t panel = bw_pack_panel_bytes(m->type, m->cols);
    check(row_bytes <= sizeof row);
    for (int r = 0; r < m->rows; r++) {
        bw_pack_row_out(row, m->type, m->cols, r % BW_PANEL_ROWS, (const unsigned char *)w->data + (size_t)(r / BW_PANEL_ROWS) * panel);
        check(memcmp(row, (const unsigned char *)m->data + (size_t)r * row_bytes, row_bytes) == 0);
    }
    return bw_pack_bytes(m->type, m->rows, m->cols);
}

static uint64_t check_ffn(const bw_expert *e, const bw_ffn_weights *w)
{
    return check_matrix(&e->gate, &w->gate) + check_matrix(&e->up, &w->up) + check_matrix(&e->down, &w->down);
}

static uint64_t check_layer(const bw_net_layer *l, const bw_layer_weights *w, const bw_config *c)
{
    uint64_t n = 0;
    if (l->attention)
        n += check_matrix(&l->attn.q, &w->attention.q) + check_matrix(&l->attn.k, &w->attention.k) +
             check_matrix(&l->attn.v, &w->attention.v) + check_matrix(&l->attn.o, &w->attention.o);
    else
        n += check_matrix(&l->gdn.qkv, &w->gdn.qkv) + check_matrix(&l->gdn.z, &w->gdn.z) + check_matrix(&l->gdn.a, &w->gdn.a) +
             check_matrix(&l->gdn.b, &w->gdn.b) + check_matrix(&l->gdn.out, &w->gdn.out);
    if (!c->moe)
        return n + check_ffn(&l->ffn, &w->ffn);
    n += check_matrix(&l->moe.router, &w->moe.router) + check_ffn(&l->moe.shared, &w->moe.shared);
    for (int e = 0; e < c->n_experts; e++)
        n += check_ffn(&l->moe.experts[e], &w->moe.experts[e]);
    return n;
}

static const char *const models[] = { "tests/golden/gguf/dense-Q4_K_M.gguf", "tests/golden/gguf/dense-Q8_0.gguf",
                                      "tests/golden/gguf/moe-IQ4_NL.gguf", "tests/golden/gguf/moe-Q5_K_M.gguf",
                                      "tests/golden/gguf/moe-F16.gguf" };

TEST(every_quantised_matrix_is_packed_and_the_embedding_is_not)
{
    for (size_t i = 0; i < BW_COUNT(models); i++) {
        placed p;
        bw_error err;
        open_weights(&p, models[i]);
        const bw_net_options options = options_of(&p);
        const uint64_t before = bw_mem_used(BW_MEM_WEIGHTS);
        check_ok(bw_net_create(&p.net, &p.config, &p.weights, p.backend, &options, &err), err);
        uint64_t n = check_matrix(&p.net->head, &p.weights.head);
        for (int l = 0; l < p.config.n_layers; l++)
            n += check_layer(&p.net->layers[l], &p.weights.layers[l], &p.config);
        if (p.net->has_mtp)
            n += check_matrix(&p.net->mtp.fc, &p.weights.mtp.fc) + check_layer(&p.net->mtp.layer, &p.weights.mtp.layer, &p.config);
        check(p.net->embed.data == p.weights.embed.data && !p.net->embed.packed);
        check_int(p.net->packed_bytes, n);
        check(p.net->placed && p.last == 1);
        check(bw_mem_used(BW_MEM_WEIGHTS) - before >= n);
        bw_net_destroy(p.net);
        p.net = NULL;
        check_int(bw_mem_used(BW_MEM_WEIGHTS), before);
        close_weights(&p);
    }
}

TEST(a_tied_table_is_packed_as_the_head_and_read_in_the_files_order_as_the_embedding)
{
    placed p;
    bw_error err;
    bw_net *untied;
    open_weights(&p, "tests/golden/gguf/dense-Q8_0.gguf");
    bw_net_options options = options_of(&p);
    options.progress = NULL;
    check_ok(bw_net_create(&untied, &p.config, &p.weights, p.backend, &options, &err), err);
    const uint64_t let_go = untied->packed_from;
    bw_net_destroy(untied);
    p.weights.head = p.weights.embed;
    options.progress = note_progress;
    check_ok(bw_net_create(&p.net, &p.config, &p.weights, p.backend, &options, &err), err);
    check(p.last == 1);
    check_matrix(&p.net->head, &p.weights.head);
    check_int(let_go - p.net->packed_from, (uint64_t)p.config.vocab * bw_dtype_row_bytes(BW_Q8_0, (uint64_t)p.config.hidden));
    enum { N = 5 };
    int32_t tokens[N];
    bw_row rows[N];
    float *x = guarded_floats((size_t)N * (size_t)p.config.hidden), *want = guarded_floats((size_t)p.config.hidden);
    for (int i = 0; i < N; i++) {
        tokens[i] = rnd_int(0, p.config.vocab - 1);
        rows[i] = (bw_row){ 0, i };
    }
    const bw_sequences seqs = { .n_slots = 1, .context = N, .tokens = tokens };
    p.backend->ops->embed(p.backend, x, &p.net->embed, &seqs, rows, N, 0);
    const bw_weight file = { .type = p.weights.embed.type, .rows = p.weights.embed.rows, .cols = p.weights.embed.cols,
                             .data = p.weights.embed.data };
    for (int i = 0; i < N; i++) {
        weight_values(want, &file, tokens[i]);
        check(same_bits(x + (size_t)i * (size_t)p.config.hidden, want, (size_t)p.config.hidden));
    }
    check_guards();
    close_weights(&p);
}

TEST(planning_reads_and_takes_nothing)
{
    for (size_t i = 0; i < BW_COUNT(models); i++) {
        placed p;
        bw_error err;
        open_weights(&p, models[i]);
        bw_net_options options = options_of(&p);
        bw_net *planned;
        const uint64_t before = bw_mem_used(BW_MEM_WEIGHTS);
        options.plan_only = true;
        check_ok(bw_net_create(&planned, &p.config, &p.weights, p.backend, &options, &err), err);
        check(!planned->placed && !planned->packed && p.last == 0);
        check(bw_mem_used(BW_MEM_WEIGHTS) - before < 65536); /* lists */
        options.plan_only = false;
        check_ok(bw_net_create(&p.net, &p.config, &p.weights, p.backend, &options, &err), err);
        check_int(planned->packed_bytes, p.net->packed_bytes);
        check_int(planned->packed_from, p.net->packed_from);
        check_int(planned->int8, p.net->int8);
        check(memcmp(planned->type_note, p.net->type_note, sizeof planned->type_note) == 0);
        bw_net_destroy(planned);
        close_weights(&p);
    }
}

TEST(a_quantised_table_of_rows_alone_makes_no_integer_dots)
{
    placed p;
    bw_error err;
    open_weights(&p, "tests/golden/gguf/moe-F16.gguf");
    bw_net_options options = options_of(&p);
    options.plan_only = true;
    p.weights.embed.type = BW_Q8_0; /* nobody reads it */
    check_ok(bw_net_create(&p.net, &p.config, &p.weights, p.backend, &options, &err), err);
    check(!p.net->int8);
    check(!p.net->type_note[BW_Q8_0] && p.net->type_note[BW_F16]);
    close_weights(&p);
}

TEST(placing_survives_every_failed_allocation)
{
    placed p;
    bw_error err;
    open_weights(&p, "tests/golden/gguf/moe-IQ4_NL.gguf");
    const bw_net_options options = { .int8 = true, .checkpoint = p.checkpoint };
    const uint64_t before = bw_mem_used(BW_MEM_WEIGHTS);
    bool failed = true;
    for (int n = 1; failed; n++) {
        bw_mem_fail_at(n);
        const bw_status st = bw_net_create(&p.net, &p.config, &p.weights, p.backend, &options, &err);
        failed = bw_mem_fail_at(0);
        check_int(st, failed ? BW_E_MEMORY : BW_OK);
        check(!failed || (!p.net && strstr(err.message, "weights")));
        check(!failed || bw_mem_used(BW_MEM_WEIGHTS) == before);
        check(n < 1000);
    }
    close_weights(&p);
}

TEST(packed_weights_are_planned_as_memory_and_given_back)
{
    for (size_t i = 0; i < BW_COUNT(models); i++)
        for (const char *const *level = levels_here(); *level; level++) {
            bw_cpu_kernels k = { 0 };
            bw_error err;
            bw_memory_plan plan, looked;
            bw_model *model;
            const uint64_t before = bw_mem_used(BW_MEM_WEIGHTS);
            check(bw_cpu_kernels_init(&k, *level));
            model = open_model(repo_path(models[i]), *level, 2, BW_ACTIVATIONS_AUTO);
            const bw_model_info *info = bw_model_get_info(model);
            check_ok(bw_engine_plan(model, NULL, &plan, &err), err);
            check_int(plan.packed > 0, k.packs && strstr(models[i], "F16") == NULL);
            check_int(info->packed_bytes, plan.packed);
            check(bw_mem_used(BW_MEM_WEIGHTS) - before >= plan.packed);
            check(plan.packed ? plan.weights > plan.packed : plan.weights == info->weight_bytes);
            check(info->pack_s >= 0 && info->pack_s <= info->load_s && (info->pack_s > 0) == (plan.packed > 0));
            bw_model_close(model);
            check_int(bw_mem_used(BW_MEM_WEIGHTS), before);

            const bw_model_options look = { .cpu_level = *level, .plan_only = true };
            bw_engine *engine;
            check_ok(bw_model_open(&model, repo_path(models[i]), &look, &err), err);
            check_ok(bw_engine_plan(model, NULL, &looked, &err), err);
            check_int(looked.weights, plan.weights);
            check_int(looked.packed, plan.packed);
            check_int(bw_model_get_info(model)->packed_bytes, 0);
            check_error(bw_engine_create(&engine, model, NULL, &err), BW_E_ARGUMENT, err, "plan", models[i]);
            bw_model_close(model);
        }
}

TEST(a_model_keeps_no_workers_and_an_engine_has_its_own)
{
    nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
    const int before = threads_of_process();
    bw_model *model = open_model(repo_path(models[0]), NULL, 4, BW_ACTIVATIONS_AUTO);
    check_int(threads_left(before), before);
    check_int(bw_model_get_info(model)->n_threads, 4);
    bw_engine *engine = open_engine(model, 64, 0, 1, BW_KV_F16);
    check_int(threads_of_process(), before + 3);
    check_int(engine->backend->n_threads, 4);
    bw_engine_destroy(engine);
    bw_model_close(model);
}

TEST(an_engine_computes_at_the_level_that_its_weights_were_packed_for)
{
    const char *set = getenv("BW_CPU");
    char *kept = set ? bw_mem_strdup(set) : NULL;
    for (const char *const *level = levels_here(); *level; level++) {
        setenv("BW_CPU", *level, 1);
        bw_model *model = open_model(repo_path(models[0]), NULL, 1, BW_ACTIVATIONS_AUTO);
        check_str(bw_model_get_info(model)->cpu_level, *level);
        setenv("BW_CPU", strcmp(*level, "ref") == 0 ? "none" : "ref", 1);
        bw_engine *engine = open_engine(model, 64, 0, 1, BW_KV_F16);
        check_str(engine->backend->level, *level);
        bw_engine_destroy(engine);
        bw_model_close(model);
    }
    unsetenv("BW_CPU");
    bw_model *model = open_model(repo_path(models[0]), NULL, 1, BW_ACTIVATIONS_AUTO);
    setenv("BW_CPU", "ref", 1);
    bw_engine *engine = open_engine(model, 64, 0, 1, BW_KV_F16);
    check_str(engine->backend->level, bw_model_get_info(model)->cpu_level);
    bw_engine_destroy(engine);
    bw_model_close(model);
    if (kept)
        setenv("BW_CPU", kept, 1);
    else
        unsetenv("BW_CPU");
    bw_mem_free(kept);
}

TESTS_MAIN(ENTRY(every_quantised_matrix_is_packed_and_the_embedding_is_not),
           ENTRY(a_tied_table_is_packed_as_the_head_and_read_in_the_files_order_as_the_embedding),
           ENTRY(planning_reads_and_takes_nothing), ENTRY(a_quantised_table_of_rows_alone_makes_no_integer_dots),
           ENTRY(a_model_keeps_no_workers_and_an_engine_has_its_own),
           ENTRY(an_engine_computes_at_the_level_that_its_weights_were_packed_for),
           ENTRY(placing_survives_every_failed_allocation), ENTRY(packed_weights_are_planned_as_memory_and_given_back))
