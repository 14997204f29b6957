/* Real and damaged checkpoints resolve to the same weights whatever their spelling, or say exactly
 * what is wrong. */
#include "lib/check.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/dequant.h"
#include "base/half.h"
#include "base/log.h"
#include "base/mem.h"
#include "format/checkpoint_parts.h"
#include "lib/model_files.h"
#include "model/weights.h"

/* ---- opening and comparing ----------------------------------------------------------------------- */

typedef struct model {
    bw_checkpoint *checkpoint;
    bw_config config;
    bw_weights weights;
} model;

static void close_model(model *m)
{
    bw_weights_release(&m->weights);
    bw_checkpoint_close(m->checkpoint);
    *m = (model){ 0 };
}

/* On failure nothing is left open. */
static bw_status open_model(model *m, const char *path, bool ignore_mtp, bw_error *err)
{
    *m = (model){ 0 };
    bw_status st = bw_checkpoint_open(&m->checkpoint, path, err);
    if (!st)
        st = bw_config_read(&m->config, m->checkpoint, err);
    if (!st)
        st = bw_weights_resolve(&m->weights, &m->config, m->checkpoint, ignore_mtp, err);
    if (st)
        close_model(m);
    return st;
}

static void same_matrix(const bw_matrix *a, const bw_matrix *b)
{
    check(a->rows == b->rows && a->cols == b->cols && a->data && b->data);
    float *x = malloc((size_t)a->cols * sizeof *x), *y = malloc((size_t)a->cols * sizeof *y);
    for (int i = 0; i < a->rows; i++) {
        const size_t n = (size_t)a->cols;
        bw_dequantize_row(a->type, (const char *)a->data + (size_t)i * bw_dtype_row_bytes(a->type, n), x, n);
        bw_dequantize_row(b->type, (const char *)b->data + (size_t)i * bw_dtype_row_bytes(b->type, n), y, n);
        check(same_bits(x, y, n));
    }
    free(x);
    free(y);
}

static void same_vector(const float *a, const float *b, int n)
{
    check(a && b && same_bits(a, b, (size_t)n));
}

static void same_ffn(const bw_ffn_weights *a, const bw_ffn_weights *b)
{
    same_matrix(&a->gate, &b->gate);
    same_matrix(&a->up, &b->up);
    same_matrix(&a->down, &b->down);
}

static void same_layer(const bw_config *c, bool attention, const bw_layer_weights *a, const bw_layer_weights *b)
{
    same_vector(a->input_norm, b->input_norm, c->hidden);
    same_vector(a->post_norm, b->post_norm, c->hidden);
    if (attention) {
        same_matrix(&a->attention.q, &b->attention.q);
        same_matrix(&a->attention.k, &b->attention.k);
        same_matrix(&a->attention.v, &b->attention.v);
        same_matrix(&a->attention.o, &b->attention.o);
        same_vector(a->attention.q_norm, b->attention.q_norm, c->head_dim);
        same_vector(a->attention.k_norm, b->attention.k_norm, c->head_dim);
    } else {
        same_matrix(&a->gdn.qkv, &b->gdn.qkv);
        same_matrix(&a->gdn.z, &b->gdn.z);
        same_matrix(&a->gdn.a, &b->gdn.a);
        same_matrix(&a->gdn.b, &b->gdn.b);
        same_matrix(&a->gdn.out, &b->gdn.out);
        same_vector(a->gdn.conv, b->gdn.conv, c->conv_dim * c->conv_width);
        same_vector(a->gdn.decay, b->gdn.decay, c->n_v_heads);
        same_vector(a->gdn.dt_bias, b->gdn.dt_bias, c->n_v_heads);
        same_vector(a->gdn.norm, b->gdn.norm, c->d_v);
    }
    if (!c->moe) {
        same_ffn(&a->ffn, &b->ffn);
        return;
    }
    same_matrix(&a->moe.router, &b->moe.router);
    same_ffn(&a->moe.shared, &b->moe.shared);
    same_vector(a->moe.shared_gate, b->moe.shared_gate, c->hidden);
    for (int e = 0; e < c->n_experts; e++)
        same_ffn(&a->moe.experts[e], &b->moe.experts[e]);
}

static void same_weights(const model *a, const model *b)
{
    const bw_config *c = &a->config;
    same_matrix(&a->weights.embed, &b->weights.embed);
    same_matrix(&a->weights.head, &b->weights.head);
    same_vector(a->weights.final_norm, b->weights.final_norm, c->hidden);
    for (int i = 0; i < c->n_layers; i++)
        same_layer(c, c->attention[i], &a->weights.layers[i], &b->weights.layers[i]);
    check_int(b->weights.mtp_state, BW_MTP_COMPLETE);
    check_int(b->weights.mtp_found, a->weights.mtp_found);
    same_matrix(&a->weights.mtp.fc, &b->weights.mtp.fc);
    same_vector(a->weights.mtp.norm_embedding, b->weights.mtp.norm_embedding, c->hidden);
    same_vector(a->weights.mtp.norm_hidden, b->weights.mtp.norm_hidden, c->hidden);
    same_vector(a->weights.mtp.norm, b->weights.mtp.norm, c->hidden);
    same_layer(c, true, &a->weights.mtp.layer, &b->weights.mtp.layer);
}

/* The edited model is the original, tensor for tensor. */
static void check_same_as(const char *original, const char *edited)
{
    model a, b;
    bw_error err;
    check_ok(open_model(&a, original, false, &err), err);
    check_ok(open_model(&b, edited, false, &err), err);
    same_weights(&a, &b);
    close_model(&a);
    close_model(&b);
}

static const char *dense(void)
{
    return repo_path("tests/golden/dense-r2");
}

static const char *moe(void)
{
    return repo_path("tests/golden/moe-real-r2");
}

/* ---- golden files -------------------------------------------------------------------------------- */

static const char *const folders[] = { "tests/golden/dense-tied-8", "tests/golden/dense-real-r3", "tests/golden/dense-r2",
                                       "tests/golden/moe-8of16",    "tests/golden/moe-real-r2",   "tests/golden/moe-r3-8",
                                       "tests/golden/dense-flat-f16", "tests/golden/dense-interval-3", "tests/golden/dense-mixed-types",
                                       "tests/golden/dense-yarn",     "tests/golden/dense-sharded",    "tests/golden/moe-split-experts",
                                       "models/lamb" };
static const char *const files[] = { "dense-Q4_K_M", "dense-Q5_1", "dense-Q8_0", "moe-F16", "moe-IQ4_NL",
                                     "moe-Q3_K_M",   "moe-Q4_1",   "moe-Q5_K_M", "moe-Q6_K" };

TEST(every_golden_folder_resolves_with_its_whole_head)
{
    for (size_t i = 0; i < BW_COUNT(folders); i++) {
        model m;
        bw_error err;
        check_ok(open_model(&m, repo_path(folders[i]), false, &err), err);
        check_int(m.weights.mtp_state, BW_MTP_COMPLETE);
        check_int(m.weights.mtp_found, m.weights.mtp_expected);
        check_int(m.weights.mtp_expected, m.config.moe ? 19 : 15);
        check(!m.config.v_heads_tiled && m.config.n_attention + m.config.n_linear == m.config.n_layers);
        check_int(m.weights.head.data == m.weights.embed.data, m.config.tied);
        check(m.weights.matrix_bytes + m.weights.vector_bytes < bw_checkpoint_bytes(m.checkpoint));
        close_model(&m);
    }
}

TEST(every_golden_gguf_file_resolves_with_its_whole_head)
{
    for (size_t i = 0; i < BW_COUNT(files); i++) {
        char path[100];
        model m;
        bw_error err;
        snprintf(path, sizeof path, "tests/golden/gguf/%s.gguf", files[i]);
        check_ok(open_model(&m, repo_path(path), false, &err), err);
        check_int(m.weights.mtp_state, BW_MTP_COMPLETE);
        check_int(m.weights.mtp_found, m.weights.mtp_expected);
        check(m.config.v_heads_tiled);
        close_model(&m);
    }
}

TEST(the_same_gguf_file_in_parts_is_the_same_model)
{
    check_same_as(repo_path("tests/golden/gguf/moe-IQ4_NL.gguf"), repo_path("tests/golden/gguf-split/moe-IQ4_NL-00002-of-00002.gguf"));
    check_same_as(repo_path("tests/golden/gguf/moe-Q3_K_M.gguf"), repo_path("tests/golden/gguf-split/moe-Q3_K_M-00001-of-00003.gguf"));
    check_same_as(repo_path("tests/golden/gguf/moe-Q3_K_M.gguf"), repo_path("tests/golden/gguf-split/moe-Q3_K_M-00003-of-00003.gguf"));
}

TEST(an_mlx_folder_resolves_and_has_no_head)
{
    model m;
    bw_error err;
    check_ok(open_model(&m, repo_path("tests/golden/moe-mlx"), false, &err), err);
    check_int(m.weights.mtp_state, BW_MTP_ABSENT);
    const bw_tensor *t = bw_checkpoint_tensor(m.checkpoint, "language_model.model.norm.weight");
    check(t && same_bits((const float *)t->data, m.weights.final_norm, (size_t)m.config.hidden));
    close_model(&m);
}

TEST(vectors_hold_what_the_header_promises)
{
    model m;
    bw_error err;
    float raw[512];
    check_ok(open_model(&m, dense(), false, &err), err);
    const bw_tensor *t = bw_checkpoint_tensor(m.checkpoint, "model.language_model.layers.3.self_attn.q_norm.weight");
    bw_dequantize_row(t->type, t->data, raw, (size_t)m.config.head_dim);
    for (int i = 0; i < m.config.head_dim; i++)
        check(m.weights.layers[3].attention.q_norm[i] == 1 + raw[i]);
    t = bw_checkpoint_tensor(m.checkpoint, "model.language_model.layers.0.linear_attn.A_log");
    bw_dequantize_row(t->type, t->data, raw, (size_t)m.config.n_v_heads);
    for (int i = 0; i < m.config.n_v_heads; i++)
        check(m.weights.layers[0].gdn.decay[i] == -expf(raw[i]) && m.weights.layers[0].gdn.decay[i] < 0);
    t = bw_checkpoint_tensor(m.checkpoint, "model.language_model.layers.0.linear_attn.norm.weight");
    bw_dequantize_row(t->type, t->data, raw, (size_t)m.config.d_v);
    check(same_bits(raw, m.weights.layers[0].gdn.norm, (size_t)m.config.d_v));
    close_model(&m);
    check_ok(open_model(&m, repo_path("tests/golden/gguf/moe-F16.gguf"), false, &err), err);
    t = bw_checkpoint_tensor(m.checkpoint, "blk.0.attn_norm.weight");
    check(same_bits((const float *)t->data, m.weights.layers[0].input_norm, (size_t)m.config.hidden));
    t = bw_checkpoint_tensor(m.checkpoint, "blk.0.ssm_a");
    check(same_bits((const float *)t->data, m.weights.layers[0].gdn.decay, (size_t)m.config.n_v_heads));
    close_model(&m);
}

/* ---- spellings ----------------------------------------------------------------------------------- */

static void set_prefix(file_model *m, const char *text, const char *mtp, const char *head)
{
    static const char old[] = "model.language_model.";
    for (int i = 0; i < m->n; i++) {
        char name[200], *at = m->tensors[i].name;
        if (strncmp(at, old, sizeof old - 1) == 0)
            snprintf(name, sizeof name, "%s%s", text, at + sizeof old - 1);
        else if (strncmp(at, "mtp.", 4) == 0)
            snprintf(name, sizeof name, "%s%s", mtp, at + 4);
        else
            snprintf(name, sizeof name, "%s%s", head, at);
        memcpy(at, name, sizeof name);
    }
}

TEST(every_known_prefix_means_the_same)
{
    static const char *const prefixes[][3] = {
        { "model.", "mtp.", "" },
        { "language_model.model.", "language_model.mtp.", "language_model." },
        { "language_model.", "model.mtp.", "" },
        { "model.language_model.", "model.language_model.mtp.", "" },
    };
    for (size_t i = 0; i < BW_COUNT(prefixes); i++) {
        file_model m;
        model_read(&m, dense());
        set_prefix(&m, prefixes[i][0], prefixes[i][1], prefixes[i][2]);
        check_same_as(dense(), model_write(&m, fresh_dir(), 1));
        model_free(&m);
    }
}

TEST(shards_with_and_without_an_index_mean_the_same)
{
    for (int with_index = 0; with_index < 2; with_index++) {
        file_model m;
        char index[400];
        model_read(&m, moe());
        for (int i = 0; i < m.n; i++)
            m.tensors[i].shard = i % 3;
        const char *dir = model_write(&m, fresh_dir(), 3);
        snprintf(index, sizeof index, "%s/model.safetensors.index.json", dir);
        check(with_index || remove(index) == 0);
        check_same_as(moe(), dir);
        model_free(&m);
    }
}

TEST(extra_files_of_quantisers_belong_to_the_model)
{
    file_model m;
    char from[400], to[400];
    model_read(&m, dense());
    for (int i = 0; i < m.n; i++)
        m.tensors[i].shard = strncmp(m.tensors[i].name, "mtp.", 4) == 0;
    const char *dir = model_write(&m, fresh_dir(), 2);
    static const char *const names[3][2] = { { "model-00001-of-00002.safetensors", "model.safetensors" },
                                             { "model-00002-of-00002.safetensors", "model_mtp.safetensors" },
                                             { "model.safetensors.index.json", "unused" } };
    for (int i = 0; i < 3; i++) {
        snprintf(from, sizeof from, "%s/%s", dir, names[i][0]);
        snprintf(to, sizeof to, "%s/%s", dir, names[i][1]);
        check(rename(from, to) == 0);
    }
    check_same_as(dense(), dir);
    model_free(&m);
}

static void widen(file_tensor *t, const char *dtype)
{
    const size_t n = t->bytes / 2;
    const bool wide = strcmp(dtype, "F32") == 0;
    unsigned char *data = malloc(n * 4 + 1);
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, t->data + 2 * i, 2);
        float x = bw_bf16_to_f32(h);
        h = bw_f32_to_f16(x);
        memcpy(data + i * (wide ? 4 : 2), wide ? (void *)&x : (void *)&h, wide ? 4 : 2);
    }
    free(t->data);
    t->data = data;
    t->bytes = n * (wide ? 4 : 2);
    snprintf(t->dtype, sizeof t->dtype, "%s", dtype);
}

TEST(every_tensor_may_be_of_any_float_type)
{
    file_model m;
    model_read(&m, dense());
    for (int i = 0; i < m.n; i++)
        if (i % 2)
            widen(&m.tensors[i], "F32");
    check_same_as(dense(), model_write(&m, fresh_dir(), 1));
    model_free(&m);
    model_read(&m, moe());
    for (int i = 0; i < m.n; i++)
        widen(&m.tensors[i], "F16");
    model a;
    bw_error err;
    check_ok(open_model(&a, model_write(&m, fresh_dir(), 1), false, &err), err);
    check_int(a.weights.layers[0].moe.experts[0].up.type, BW_F16);
    close_model(&a);
    model_free(&m);
}

/* Cuts [E, rows, cols] into E tensors, or the rows of each expert in two. */
static void split_experts(file_model *m, bool single)
{
    const int n = m->n;
    for (int i = 0; i < n; i++) {
        char base[200], name[240];
        const char *at = strstr(m->tensors[i].name, "experts.");
        if (!at || m->tensors[i].dropped)
            continue;
        const bool fused = strcmp(at, "experts.gate_up_proj") == 0;
        snprintf(base, sizeof base, "%.*s", (int)(at - m->tensors[i].name), m->tensors[i].name);
        const uint64_t experts = m->tensors[i].shape[0], rows = m->tensors[i].shape[1] / (fused ? 2 : 1);
        const size_t part = m->tensors[i].bytes / experts / (fused ? 2 : 1);
        for (int k = 0; k < (fused ? 2 : 1); k++) {
            const char *projection = !fused ? "down_proj" : k ? "up_proj" : "gate_proj";
            for (uint64_t e = 0; e < (single ? experts : 1); e++) {
                snprintf(name, sizeof name, single ? "%sexperts.%d.%s.weight" : "%sswitch_mlp.%.0d%s.weight", base, single ? (int)e : 0, projection);
                file_tensor *t = model_add(m, &m->tensors[i], name);
                unsigned char *data = malloc(part * experts + 1);
                for (uint64_t x = 0; x < experts; x++)
                    memcpy(data + x * part, t->data + (x * (fused ? 2 : 1) + (uint64_t)k) * part, part);
                if (single)
                    memmove(data, data + e * part, part);
                free(t->data);
                t->data = data;
                t->bytes = single ? part : part * experts;
                t->shape[1] = rows;
                if (single) {
                    t->n_dims = 2;
                    t->shape[0] = rows;
                    t->shape[1] = t->shape[2];
                }
            }
        }
        m->tensors[i].dropped = true;
    }
}

TEST(the_three_spellings_of_experts_mean_the_same)
{
    for (int single = 0; single < 2; single++) {
        file_model m;
        model_read(&m, moe());
        split_experts(&m, single);
        check_same_as(moe(), model_write(&m, fresh_dir(), 1));
        model_free(&m);
    }
}

TEST(experts_of_mixed_float_types_become_one_type)
{
    file_model m;
    model a;
    bw_error err;
    model_read(&m, moe());
    split_experts(&m, true);
    widen(model_find(&m, "model.language_model.layers.0.mlp.experts.1.up_proj.weight"), "F32");
    const char *dir = model_write(&m, fresh_dir(), 1);
    check_same_as(moe(), dir);
    check_ok(open_model(&a, dir, false, &err), err);
    for (int e = 0; e < a.config.n_experts; e++)
        check_int(a.weights.layers[0].moe.experts[e].up.type, BW_F32);
    check_int(a.weights.layers[0].moe.experts[0].gate.type, BW_BF16);
    close_model(&a);
    model_free(&m);
}

static bool is_offset_norm(const char *name)
{
    return strstr(name, "norm") && !strstr(name, "linear_attn.norm");
}

TEST(an_mlx_resave_is_known_by_its_convolution_and_keeps_its_norms)
{
    file_model m;
    model_read(&m, dense());
    for (int i = 0; i < m.n; i++) {
        file_tensor *t = &m.tensors[i];
        if (strstr(t->name, "conv1d")) {
            t->shape[1] = t->shape[2];
            t->shape[2] = 1;
        } else if (is_offset_norm(t->name)) {
            widen(t, "F32");
            for (size_t k = 0; k < t->bytes / 4; k++) {
                float x;
                memcpy(&x, t->data + 4 * k, 4);
                x += 1;
                memcpy(t->data + 4 * k, &x, 4);
            }
        }
    }
    check_same_as(dense(), model_write(&m, fresh_dir(), 1));
    model_find(&m, "model.language_model.layers.0.linear_attn.conv1d.weight")->shape[2] = 4;
    model_find(&m, "model.language_model.layers.0.linear_attn.conv1d.weight")->shape[1] = 1;
    model a;
    bw_error err;
    check_error(open_model(&a, model_write(&m, fresh_dir(), 1), false, &err), BW_E_FORMAT, err, "MLX", "mixed");
    model_free(&m);
}

TEST(dimensions_of_one_do_not_matter)
{
    file_model m;
    model_read(&m, moe());
    for (int i = 0; i < m.n; i++) {
        file_tensor *t = &m.tensors[i];
        if (strstr(t->name, "shared_expert_gate")) {
            t->n_dims = 1;
            t->shape[0] = t->shape[1];
        } else if (strstr(t->name, "conv1d")) {
            t->n_dims = 2;
            t->shape[1] = t->shape[2];
        }
    }
    check_same_as(moe(), model_write(&m, fresh_dir(), 1));
    model_free(&m);
}

TEST(a_stored_head_is_used_whatever_the_flags_say)
{
    file_model m;
    model a;
    bw_error err;
    model_read(&m, dense());
    m.config = replace(m.config, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    check_same_as(dense(), model_write(&m, fresh_dir(), 1));
    model_find(&m, "lm_head.weight")->dropped = true;
    check_ok(open_model(&a, model_write(&m, fresh_dir(), 1), false, &err), err);
    check(a.weights.head.data == a.weights.embed.data);
    close_model(&a);
    m.config = replace(m.config, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    check_error(open_model(&a, model_write(&m, fresh_dir(), 1), false, &err), BW_E_FORMAT, err, "lm_head.weight is missing");
    model_free(&m);
}

/* Puts tensors below each other: of 2-D ones the rows, of 3-D ones the rows of each expert. */
static void fuse(file_model *m, const char *const *names, int n, const char *fused)
{
    file_tensor *t = model_add(m, model_find(m, names[0]), fused);
    for (int k = 0; k < n; k++) {
        file_tensor *part = model_find(m, names[k]);
        t = &m->tensors[m->n - 1];
        part->dropped = true;
        if (!k)
            continue;
        const int rows_at = t->n_dims - 2;
        const size_t blocks = t->n_dims == 3 ? (size_t)t->shape[0] : 1, a = t->bytes / blocks, b = part->bytes / blocks;
        unsigned char *data = malloc(t->bytes + part->bytes);
        for (size_t x = 0; x < blocks; x++) {
            memcpy(data + x * (a + b), t->data + x * a, a);
            memcpy(data + x * (a + b) + a, part->data + x * b, b);
        }
        free(t->data);
        t->data = data;
        t->bytes += part->bytes;
        t->shape[rows_at] += part->shape[rows_at];
    }
}

TEST(fused_gguf_tensors_mean_the_same)
{
    const char *original = repo_path("tests/golden/gguf/moe-F16.gguf");
    char path[400];
    file_model m;
    model_read(&m, original);
    for (int block = 1; block <= 2; block++) { /* the attention layer and the MTP block */
        char q[40], k[40], v[40], qkv[40];
        snprintf(q, sizeof q, "blk.%d.attn_q.weight", block);
        snprintf(k, sizeof k, "blk.%d.attn_k.weight", block);
        snprintf(v, sizeof v, "blk.%d.attn_v.weight", block);
        snprintf(qkv, sizeof qkv, "blk.%d.attn_qkv.weight", block);
        fuse(&m, (const char *const[]){ q, k, v }, 3, qkv);
    }
    fuse(&m, (const char *const[]){ "blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight" }, 2, "blk.0.ffn_gate_up_exps.weight");
    snprintf(path, sizeof path, "%s/fused.gguf", fresh_dir());
    check_same_as(original, model_write_gguf(&m, path));
    model_free(&m);
}

TEST(gguf_vectors_may_be_half_floats)
{
    const char *original = repo_path("tests/golden/gguf/moe-F16.gguf");
    static const char *const types[] = { "F16", "BF16" };
    for (int k = 0; k < 2; k++) {
        file_model m;
        model a, b;
        bw_error err;
        char path[400];
        model_read(&m, original);
        for (int i = 0; i < m.n; i++) {
            file_tensor *t = &m.tensors[i];
            if (strcmp(t->dtype, "F32") != 0)
                continue;
            for (size_t j = 0; j < t->bytes / 4; j++) {
                float x;
                memcpy(&x, t->data + 4 * j, 4);
                uint16_t h = k ? bw_f32_to_bf16(x) : bw_f32_to_f16(x);
                memcpy(t->data + 2 * j, &h, 2);
            }
            t->bytes /= 2;
            strcpy(t->dtype, types[k]);
        }
        snprintf(path, sizeof path, "%s/half.gguf", fresh_dir());
        check_ok(open_model(&a, original, false, &err), err);
        check_ok(open_model(&b, model_write_gguf(&m, path), false, &err), err);
        const size_t n = (size_t)(a.config.conv_dim * a.config.conv_width);
        const double step = k ? 0x1p-8 : 0x1p-11;
        check(max_error(b.weights.layers[0].gdn.conv, a.weights.layers[0].gdn.conv, n) <= step);
        check(max_error(b.weights.layers[0].gdn.decay, a.weights.layers[0].gdn.decay, (size_t)a.config.n_v_heads) <= step);
        check(max_error(b.weights.final_norm, a.weights.final_norm, (size_t)a.config.hidden) <= step);
        check(max_error(b.weights.layers[0].moe.shared_gate, a.weights.layers[0].moe.shared_gate, (size_t)a.config.hidden) <= step);
        close_model(&a);
        close_model(&b);
        model_free(&m);
    }
}

TEST(a_real_file_cut_short_or_appended_to_is_refused)
{
    size_t n;
    char path[400], *file;
    bw_checkpoint *c;
    bw_error err;
    snprintf(path, sizeof path, "%s/model.safetensors", dense());
    file = read_file(path, &n);
    const char *dir = fresh_dir();
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    for (int k = 0; k < 3; k++) {
        bytes b = { 0 };
        bytes_add(&b, file, k == 0 ? n / 2 : k == 1 ? n - 1 : n);
        bytes_zero(&b, k == 2);
        bytes_write(&b, path);
        bytes_free(&b);
        check_error(bw_checkpoint_open(&c, dir, &err), BW_E_FORMAT, err, "model.safetensors", k == 2 ? "appended" : "cut off", "download it again");
    }
    free(file);
}

/* ---- what is wrong ------------------------------------------------------------------------------- */

/* dense-r2 with one tensor changed by `edit`. */
static bw_status with_edit(const char *name, void (*edit)(file_model *, file_tensor *), bool ignore_mtp, model *a, bw_error *err)
{
    file_model m;
    model_read(&m, dense());
    edit(&m, model_find(&m, name));
    bw_status st = open_model(a, model_write(&m, fresh_dir(), 1), ignore_mtp, err);
    model_free(&m);
    return st;
}

static void drop(file_model *m, file_tensor *t)
{
    (void)m;
    t->dropped = true;
}

static void transpose(file_model *m, file_tensor *t)
{
    (void)m;
    uint64_t rows = t->shape[0];
    t->shape[0] = t->shape[1];
    t->shape[1] = rows;
}

static void rename_to_qweight(file_model *m, file_tensor *t)
{
    (void)m;
    strcpy(strrchr(t->name, '.'), ".qweight");
    strcpy(t->dtype, "I16");
}

static void make_fp8(file_model *m, file_tensor *t)
{
    strcpy(t->dtype, "F8_E4M3");
    t->bytes /= 2;
    char name[200];
    snprintf(name, sizeof name, "%s_scale_inv", t->name);
    file_tensor *scale = model_add(m, model_find(m, "model.language_model.norm.weight"), name);
    (void)scale;
}

static void add_bias(file_model *m, file_tensor *t)
{
    char name[200];
    snprintf(name, sizeof name, "%.*sbias", (int)(strlen(t->name) - strlen("weight")), t->name);
    model_add(m, model_find(m, "model.language_model.norm.weight"), name);
}

static void add_stranger(file_model *m, file_tensor *t)
{
    model_add(m, t, "model.language_model.layers.0.mlp.sideways_proj.weight");
}

static void add_mtp_stranger(file_model *m, file_tensor *t)
{
    model_add(m, t, "mtp.layers.0.mlp.sideways_proj.weight");
}

static void add_second_name(file_model *m, file_tensor *t)
{
    model_add(m, t, "model.norm.weight");
}

static void move_layer(file_model *m, file_tensor *t)
{
    model_add(m, t, "model.language_model.layers.4.self_attn.o_proj.weight");
}

static void wrong_kind(file_model *m, file_tensor *t)
{
    model_add(m, t, "model.language_model.layers.0.self_attn.o_proj.weight");
}

static void empty(file_model *m, file_tensor *t)
{
    (void)m;
    memset(t->data, 0, t->bytes);
}

static void name_quantiser(file_model *m, file_tensor *t)
{
    rename_to_qweight(m, t);
    m->config = replace(m->config, "\"model_type\"", "\"quantization_config\": {\"quant_method\": \"auto-round\"}, \"model_type\"");
}

static void put_nan(file_model *m, file_tensor *t)
{
    (void)m;
    t->data[2 * 5] = 0xC0;
    t->data[2 * 5 + 1] = 0x7F;
}

TEST(each_problem_names_its_tensor_and_what_was_expected)
{
    static const char l0[] = "model.language_model.layers.0.mlp.up_proj.weight";
    static const struct wrong {
        const char *name;
        void (*edit)(file_model *, file_tensor *);
        bw_status st;
        const char *says[3];
    } wrong[] = {
        { l0, drop, BW_E_FORMAT, { "layers.0.mlp.up_proj.weight is missing", "1 tensor cannot", NULL } },
        { l0, transpose, BW_E_FORMAT, { l0, "is [64, 128]", "expected [128, 64]" } },
        { l0, rename_to_qweight, BW_E_UNSUPPORTED, { "mlp.up_proj.qweight", "GPTQ or AWQ", "not read yet" } },
        { l0, make_fp8, BW_E_UNSUPPORTED, { "weight_scale_inv", "FP8 in blocks", NULL } },
        { l0, add_bias, BW_E_UNSUPPORTED, { "up_proj.bias", "no biases", NULL } },
        { l0, add_stranger, BW_E_FORMAT, { "sideways_proj.weight", "unknown", NULL } },
        { l0, move_layer, BW_E_FORMAT, { "layers.4.self_attn", "has 4 layers", NULL } },
        { l0, wrong_kind, BW_E_FORMAT, { "layers.0.self_attn.o_proj.weight", "no place in this layer", NULL } },
        { "model.language_model.norm.weight", add_second_name, BW_E_FORMAT, { "model.norm.weight", "under two names", NULL } },
        { "model.language_model.norm.weight", put_nan, BW_E_FORMAT, { "model.language_model.norm.weight[5]", "not finite", NULL } },
        { "model.language_model.embed_tokens.weight", drop, BW_E_FORMAT, { "embed_tokens.weight is missing", NULL, NULL } },
        { "mtp.fc.weight", drop, BW_E_FORMAT, { "14 of 15 MTP tensors", "mtp.fc.weight is missing", "--draft off" } },
        { "mtp.fc.weight", transpose, BW_E_FORMAT, { "14 of 15 MTP tensors", "mtp.fc.weight is [128, 64]", "expected [64, 128]" } },
        { "mtp.fc.weight", rename_to_qweight, BW_E_UNSUPPORTED, { "mtp.fc.qweight", "GPTQ or AWQ", NULL } },
        { l0, name_quantiser, BW_E_UNSUPPORTED, { "mlp.up_proj.qweight", "quantised by auto-round", "BF16" } },
        { "mtp.fc.weight", empty, BW_E_FORMAT, { "mtp.fc.weight", "all zero", "--draft off" } },
        { "mtp.fc.weight", add_mtp_stranger, BW_E_FORMAT, { "mtp.layers.0.mlp.sideways_proj.weight", "unknown", NULL } },
        { "mtp.layers.0.self_attn.q_norm.weight", drop, BW_E_FORMAT, { "14 of 15", "mtp.layers.0.self_attn.q_norm.weight is missing", NULL } },
    };
    for (size_t i = 0; i < BW_COUNT(wrong); i++) {
        model a;
        bw_error err;
        check_error(with_edit(wrong[i].name, wrong[i].edit, false, &a, &err), wrong[i].st, err, wrong[i].says[0],
                    wrong[i].says[1] ? wrong[i].says[1] : "", wrong[i].says[2] ? wrong[i].says[2] : "");
        if (strncmp(wrong[i].name, "mtp.", 4) == 0) { /* what ails the head is no obstacle when nobody wants it */
            check_ok(with_edit(wrong[i].name, wrong[i].edit, true, &a, &err), err);
            check_int(a.weights.mtp_state, BW_MTP_BROKEN);
            check(strstr(a.weights.mtp_problem, wrong[i].says[0]) != NULL && !a.weights.mtp.fc.data);
            close_model(&a);
        }
    }
}

TEST(many_problems_are_counted_and_the_first_named)
{
    file_model m;
    model a;
    bw_error err;
    model_read(&m, dense());
    for (int i = 0; i < m.n; i++)
        m.tensors[i].dropped = strstr(m.tensors[i].name, "mlp") != NULL && strncmp(m.tensors[i].name, "mtp", 3) != 0;
    check_error(open_model(&a, model_write(&m, fresh_dir(), 1), false, &err), BW_E_FORMAT, err, "12 tensors cannot be used", "layers.0.mlp.gate_proj",
                "and 6 more");
    model_free(&m);
}

static char logged[4000];

static void keep_line(void *arg, bw_log_level level, const char *line)
{
    (void)arg, (void)level;
    strncat(logged, line, sizeof logged - strlen(logged) - 2);
    strcat(logged, "\n");
}

TEST(a_model_without_a_head_says_so_and_runs)
{
    file_model m;
    model a;
    bw_error err;
    model_read(&m, moe());
    for (int i = 0; i < m.n; i++)
        m.tensors[i].dropped = strncmp(m.tensors[i].name, "mtp.", 4) == 0;
    check_ok(open_model(&a, model_write(&m, fresh_dir(), 1), false, &err), err);
    check_int(a.weights.mtp_state, BW_MTP_ABSENT);
    check_int(a.weights.mtp_found, 0);
    check(strstr(a.weights.mtp_problem, "no mtp.* tensors") && strstr(a.weights.mtp_problem, "without drafts"));
    close_model(&a);
    model_free(&m);
}

TEST(packed_experts_of_the_head_are_not_counted_as_usable)
{
    for (int single = 0; single <= 1; single++) {
        file_model m;
        model a;
        bw_error err;
        model_read(&m, moe());
        if (single)
            split_experts(&m, true);
        for (int i = 0; i < m.n; i++) {
            file_tensor *t = &m.tensors[i];
            if (strncmp(t->name, "mtp.", 4) != 0 || !strstr(t->name, ".experts."))
                continue;
            char *weight = strstr(t->name, ".weight");
            strcpy(weight ? weight : t->name + strlen(t->name), ".qweight");
            strcpy(t->dtype, "I16");
        }
        const char *path = model_write(&m, fresh_dir(), 1);
        check_error(open_model(&a, path, false, &err), BW_E_UNSUPPORTED, err, "17 of 19 MTP tensors can be used", "GPTQ or AWQ");
        check_ok(open_model(&a, path, true, &err), err);
        check_int(a.weights.mtp_found, 17);
        close_model(&a);
        model_free(&m);
    }
}

TEST(a_model_of_attention_alone_cannot_tell_an_mlx_resave_and_says_so)
{
    file_model m;
    model a;
    bw_error err;
    model_read(&m, dense());
    for (int i = 0; i < m.n; i++) { /* the last layer alone, as layer 0 */
        char *layer = strstr(m.tensors[i].name, "language_model.layers.");
        char *digit = layer ? layer + strlen("language_model.layers.") : NULL;
        m.tensors[i].dropped = digit && *digit != '3';
        if (digit && *digit == '3')
            *digit = '0';
    }
    char *config = replace(m.config, "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 1, \"full_attention_interval\": 1");
    config = replace(config, "\"layer_types\"", "\"not_layer_types\"");
    m.config = replace(config, "\"full_attention_interval\": 4", "\"mark\": 4");
    logged[0] = '\0';
    bw_log_to(keep_line, NULL);
    check_ok(open_model(&a, model_write(&m, fresh_dir(), 1), false, &err), err);
    bw_log_to(NULL, NULL);
    check(a.config.n_layers == 1 && !a.config.n_linear);
    check_that(strstr(logged, "MLX re-save: norms are taken as offsets"), "%s", logged);
    close_model(&a);
    model_free(&m);
}

TEST(vision_tensors_are_counted_and_left)
{
    file_model m;
    model a;
    bw_error err;
    model_read(&m, dense());
    model_add(&m, &m.tensors[0], "model.visual.blocks.0.norm1.weight");
    model_add(&m, &m.tensors[0], "model.visual.patch_embed.proj.bias");
    model_add(&m, &m.tensors[0], "model.language_model.layers.3.self_attn.k_scale");
    logged[0] = '\0';
    bw_log_to(keep_line, NULL);
    check_ok(open_model(&a, model_write(&m, fresh_dir(), 1), false, &err), err);
    bw_log_to(NULL, NULL);
    check(strstr(logged, "vision tensors: 2, left for later") != NULL);
    check(a.config.has_vision);
    close_model(&a);
    model_free(&m);
}

static bw_status with_gguf_edit(const char *drop_name, const char *strange_name, bool ignore_mtp, model *a, bw_error *err)
{
    file_model m;
    char path[400];
    model_read(&m, repo_path("tests/golden/gguf/moe-F16.gguf"));
    for (int i = 0; i < m.n; i++)
        m.tensors[i].dropped = drop_name && strstr(m.tensors[i].name, drop_name);
    if (strange_name) {
        file_tensor *t = model_find(&m, strange_name);
        strcpy(t->dtype, "IQ2_XXS");
        t->bytes = t->bytes / 512 * 66;
    }
    snprintf(path, sizeof path, "%s/edited.gguf", fresh_dir());
    bw_status st = open_model(a, model_write_gguf(&m, path), ignore_mtp, err);
    model_free(&m);
    return st;
}

TEST(gguf_problems_are_named_in_the_files_own_words)
{
    model a;
    bw_error err;
    check_error(with_gguf_edit("blk.0.ssm_norm", NULL, false, &a, &err), BW_E_FORMAT, err, "blk.0.ssm_norm.weight is missing");
    check_error(with_gguf_edit("blk.1.attn_k.", NULL, false, &a, &err), BW_E_FORMAT, err, "blk.1.attn_k.weight is missing");
    check_error(with_gguf_edit("token_embd", NULL, false, &a, &err), BW_E_FORMAT, err, "token_embd.weight", "missing");
    check_error(with_gguf_edit(NULL, "blk.0.attn_qkv.weight", false, &a, &err), BW_E_UNSUPPORTED, err, "blk.0.attn_qkv.weight", "IQ2_XXS");
    check_error(with_gguf_edit("eh_proj", NULL, false, &a, &err), BW_E_FORMAT, err, "18 of 19", "blk.2.nextn.eh_proj.weight is missing");
    check_error(with_gguf_edit("nextn", NULL, false, &a, &err), BW_E_FORMAT, err, "15 of 19", "blk.2.nextn.eh_proj.weight is missing");
    check_ok(with_gguf_edit("nextn", NULL, true, &a, &err), err);
    check_int(a.weights.mtp_state, BW_MTP_BROKEN);
    close_model(&a);
    check_ok(with_gguf_edit("blk.2.", NULL, false, &a, &err), err); /* the key still claims a head */
    check_int(a.config.n_layers, 2);
    check_int(a.weights.mtp_state, BW_MTP_ABSENT);
    check(strstr(a.weights.mtp_problem, "although its configuration declares the head") != NULL);
    close_model(&a);
    check_error(with_gguf_edit("blk.1", NULL, false, &a, &err), BW_E_FORMAT, err, "blk.1.", "missing");
    file_model m;
    char path[400];
    model_read(&m, repo_path("tests/golden/gguf/moe-F16.gguf"));
    for (int i = 0; i < m.n; i++)
        m.tensors[i].dropped = strncmp(m.tensors[i].name, "blk.0.", 6) == 0 || strncmp(m.tensors[i].name, "blk.1.", 6) == 0;
    snprintf(path, sizeof path, "%s/mtp.gguf", fresh_dir());
    check_error(open_model(&a, model_write_gguf(&m, path), false, &err), BW_E_FORMAT, err, "none of the model's 2 layers", "only its MTP head");
    model_free(&m);
}

/* ---- folders ------------------------------------------------------------------------------------- */

TEST(a_folder_that_is_no_whole_model_says_what_it_is)
{
    bw_checkpoint *c;
    bw_error err;
    char path[500];
    const char *dir = fresh_dir();
    check_error(bw_checkpoint_open(&c, dir, &err), BW_E_FORMAT, err, dir, "no model here");
    snprintf(path, sizeof path, "%s/nothing", dir);
    check_error(bw_checkpoint_open(&c, path, &err), BW_E_IO, err, "nothing", "No such file");
    snprintf(path, sizeof path, "%s/pytorch_model.bin", dir);
    text_write("x", path);
    check_error(bw_checkpoint_open(&c, dir, &err), BW_E_FORMAT, err, ".bin", "convert");
    snprintf(path, sizeof path, "%s/a.gguf", dir);
    text_write("x", path);
    check_error(bw_checkpoint_open(&c, dir, &err), BW_E_FORMAT, err, ".gguf");
    check_error(bw_checkpoint_open(&c, path, &err), BW_E_FORMAT, err, "does not begin with");
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    text_write("version https://git-lfs.github.com/spec/v1\n", path);
    check_error(bw_checkpoint_open(&c, dir, &err), BW_E_FORMAT, err, "git lfs pull");
    check_error(bw_checkpoint_open(&c, path, &err), BW_E_ARGUMENT, err, "folder");
    bytes b = safetensors_of("{}", 0);
    bytes_write(&b, path);
    bytes_free(&b);
    check_ok(bw_checkpoint_open(&c, dir, &err), err);
    bw_config config;
    check_error(bw_config_read(&config, c, &err), BW_E_FORMAT, err, "config.json", "missing");
    bw_checkpoint_close(c);
    snprintf(path, sizeof path, "%s/model.safetensors.aria2", dir);
    text_write("", path);
    check_error(bw_checkpoint_open(&c, dir, &err), BW_E_FORMAT, err, "unfinished");
}

TEST(an_index_that_does_not_fit_its_shards_is_refused)
{
    static const struct wrong {
        const char *from, *to;
        const char *says[2];
    } wrong[] = {
        { "\"weight_map\"", "\"weights\"", { "weight_map", "index.json" } },
        { "model-00002-of-00003", "model-00004-of-00003", { "model-00004-of-00003.safetensors", "missing" } },
        { "\"model-00002-of", "\"../model-00002-of", { "plain file name", "../model" } },
        { "\"model-00002-of-00003.safetensors\"", "7", { "plain file name", "7" } },
        { "\"weight_map\":{", "\"weight_map\":{\"extra.weight\":\"model-00001-of-00003.safetensors\",", { "extra.weight", "missing in this file" } },
    };
    for (size_t i = 0; i < BW_COUNT(wrong); i++) {
        file_model m;
        bw_checkpoint *c;
        bw_error err;
        char path[400];
        model_read(&m, dense());
        for (int k = 0; k < m.n; k++)
            m.tensors[k].shard = k % 3;
        const char *dir = model_write(&m, fresh_dir(), 3);
        snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
        char *text = replace(read_file(path, NULL), wrong[i].from, wrong[i].to);
        text_write(text, path);
        free(text);
        check_error(bw_checkpoint_open(&c, dir, &err), BW_E_FORMAT, err, wrong[i].says[0], wrong[i].says[1]);
        model_free(&m);
    }
}

TEST(a_link_that_leads_nowhere_is_named)
{
    static const char *const names[] = { "model.safetensors.index.json", "model-00002-of-00002.safetensors", "config.json",
                                         "generation_config.json" };
    for (size_t i = 0; i < BW_COUNT(names); i++) {
        file_model m;
        model a;
        bw_error err;
        char path[400];
        model_read(&m, dense());
        for (int k = 0; k < m.n; k++)
            m.tensors[k].shard = k % 2;
        const char *dir = model_write(&m, fresh_dir(), 2);
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        remove(path);
        check(symlink("../blobs/nowhere", path) == 0);
        check_error(open_model(&a, dir, false, &err), BW_E_IO, err, names[i], "a link to a file that is not there");
        model_free(&m);
    }
}

TEST(tensors_outside_the_index_are_told_and_not_used)
{
    file_model m;
    bw_checkpoint *c;
    bw_error err;
    char path[400];
    model_read(&m, dense());
    for (int k = 0; k < m.n; k++)
        m.tensors[k].shard = k % 2;
    const char *dir = model_write(&m, fresh_dir(), 2);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    char *text = replace(read_file(path, NULL), "\"lm_head.weight\":", "\"lm_head.weight\":\"model-00001-of-00002.safetensors\",\"lm_head.weight\":");
    text_write(text, path);
    free(text);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    bytes b = safetensors_of("{}", 0);
    bytes_write(&b, path);
    bytes_free(&b);
    logged[0] = '\0';
    bw_log_to(keep_line, NULL);
    check_ok(bw_checkpoint_open(&c, dir, &err), err);
    bw_log_to(NULL, NULL);
    check(strstr(logged, "model.safetensors is not named by") != NULL);
    check_int(bw_checkpoint_n_files(c), 2);
    bw_checkpoint_close(c);
    model_free(&m);
}

TEST(one_tensor_in_two_shards_without_an_index_is_an_error)
{
    file_model m;
    bw_checkpoint *c;
    bw_error err;
    char path[400];
    model_read(&m, dense());
    model_add(&m, &m.tensors[3], m.tensors[3].name)->shard = 1;
    const char *dir = model_write(&m, fresh_dir(), 2);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    check(remove(path) == 0);
    check_error(bw_checkpoint_open(&c, dir, &err), BW_E_FORMAT, err, m.tensors[3].name, "model-00001", "model-00002");
    model_free(&m);
}

/* ---- damage -------------------------------------------------------------------------------------- */

TEST(a_damaged_header_never_leads_outside_the_file)
{
    model good;
    bw_error err;
    size_t n;
    char path[400];
    check_ok(open_model(&good, dense(), false, &err), err);
    snprintf(path, sizeof path, "%s/model.safetensors", dense());
    char *file = read_file(path, &n);
    uint64_t header = 0;
    memcpy(&header, file, 8);
    unsigned char *copy = malloc(n);
    for (int round = 0; round < 1500; round++) {
        bw_checkpoint *c;
        memcpy(copy, file, n);
        for (int k = rnd_int(1, 3); k > 0; k--)
            copy[rnd_int(0, (int)header + 7)] ^= (unsigned char)(1 << rnd_int(0, 7));
        if (bw_checkpoint_from_memory(&c, BW_CONTAINER_HF, "damaged", copy, n, &err))
            continue;
        bw_weights w;
        if (!bw_weights_resolve(&w, &good.config, c, round % 2, &err))
            bw_weights_release(&w);
        bw_checkpoint_close(c);
    }
    free(copy);
    free(file);
    close_model(&good);
}

static void fail_everywhere(const char *path)
{
    uint64_t misc = bw_mem_used(BW_MEM_MISC), weights = bw_mem_used(BW_MEM_WEIGHTS);
    bool failed = true;
    long n = 1;
    for (; failed; n++) {
        model m;
        bw_error err;
        bw_mem_fail_at(n);
        bw_status st = open_model(&m, path, false, &err);
        failed = bw_mem_fail_at(0);
        check_that(st == (failed ? BW_E_MEMORY : BW_OK), "allocation %ld: %s", n, st ? err.message : "opened");
        if (!st)
            close_model(&m);
        check_int(bw_mem_used(BW_MEM_MISC), misc);
        check_int(bw_mem_used(BW_MEM_WEIGHTS), weights);
    }
    check(n > 5);
}

TEST(every_allocation_may_fail)
{
    file_model m;
    fail_everywhere(dense());
    fail_everywhere(repo_path("tests/golden/gguf/moe-F16.gguf"));
    model_read(&m, moe());
    split_experts(&m, true);
    for (int i = 0; i < m.n; i++)
        m.tensors[i].shard = i % 2;
    fail_everywhere(model_write(&m, fresh_dir(), 2));
    model_free(&m);
}

TESTS_MAIN(ENTRY(every_golden_folder_resolves_with_its_whole_head), ENTRY(every_golden_gguf_file_resolves_with_its_whole_head),
           ENTRY(the_same_gguf_file_in_parts_is_the_same_model), ENTRY(an_mlx_folder_resolves_and_has_no_head),
           ENTRY(vectors_hold_what_the_header_promises), ENTRY(every_known_prefix_means_the_same),
           ENTRY(extra_files_of_quantisers_belong_to_the_model),
           ENTRY(shards_with_and_without_an_index_mean_the_same), ENTRY(every_tensor_may_be_of_any_float_type),
           ENTRY(the_three_spellings_of_experts_mean_the_same), ENTRY(experts_of_mixed_float_types_become_one_type),
           ENTRY(an_mlx_resave_is_known_by_its_convolution_and_keeps_its_norms), ENTRY(dimensions_of_one_do_not_matter),
           ENTRY(a_stored_head_is_used_whatever_the_flags_say), ENTRY(fused_gguf_tensors_mean_the_same),
           ENTRY(gguf_vectors_may_be_half_floats), ENTRY(a_real_file_cut_short_or_appended_to_is_refused),
           ENTRY(each_problem_names_its_tensor_and_what_was_expected), ENTRY(many_problems_are_counted_and_the_first_named),
           ENTRY(a_model_without_a_head_says_so_and_runs), ENTRY(packed_experts_of_the_head_are_not_counted_as_usable),
           ENTRY(vision_tensors_are_counted_and_left),
           ENTRY(a_model_of_attention_alone_cannot_tell_an_mlx_resave_and_says_so),
           ENTRY(gguf_problems_are_named_in_the_files_own_words), ENTRY(a_folder_that_is_no_whole_model_says_what_it_is),
           ENTRY(an_index_that_does_not_fit_its_shards_is_refused), ENTRY(a_link_that_leads_nowhere_is_named), ENTRY(tensors_outside_the_index_are_told_and_not_used),
           ENTRY(one_tensor_in_two_shards_without_an_index_is_an_error), ENTRY(a_damaged_header_never_leads_outside_the_file),
           ENTRY(every_allocation_may_fail))
