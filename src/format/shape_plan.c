/* shape_plan.c - sizes from a config.json, and the one list of tensors that follows from them. */
#include "format/shape_plan.h"

#include <json.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "format/checkpoint_parts.h"
#include "format/synthetic.h"

enum { MOST_LAYERS = 1000, LARGEST_SIZE = 1 << 24 };

/* ---- types --------------------------------------------------------------------------------------- */

const char bw_synthetic_types[] = "f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl q2_k q3_k q4_k q5_k q6_k iq4_xs q4_k_m q5_k_m";

/* The type a quantiser falls back to when rows are no multiple of 256 (docs/formats.md). */
static bw_dtype fitting(bw_dtype type, uint64_t row)
{
    static const bw_dtype fall_back[BW_DTYPE_COUNT] = {
        [BW_Q2_K] = BW_Q4_0, [BW_Q3_K] = BW_Q4_0, [BW_Q4_K] = BW_Q5_0, [BW_Q5_K] = BW_Q5_1, [BW_Q6_K] = BW_Q8_0, [BW_IQ4_XS] = BW_IQ4_NL,
    };
    if (row % (uint64_t)bw_dtype_get(type)->elements && bw_dtype_get(type)->elements == 256)
        type = fall_back[type];
    return row % (uint64_t)bw_dtype_get(type)->elements ? BW_F16 : type;
}

/* Layers in which the mixes spend more bits on attn_v and ffn_down. */
static bool more_bits(int layer, int n)
{
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

static bw_dtype mixed_type(const bw_shape_plan *p, const char *part, int layer)
{
    const bool q5 = strcmp(p->mix, "q5_k_m") == 0;
    const bool wide = strcmp(part, "attn_v.weight") == 0 || strncmp(part, "ffn_down", 8) == 0;
    const bool head = strcmp(part, p->shape.tied ? "token_embd.weight" : "output.weight") == 0;
    if (head || (wide && more_bits(layer, p->shape.layers)))
        return BW_Q6_K;
    if (strcmp(part, "attn_qkv.weight") == 0)
        return q5 ? BW_Q6_K : BW_Q5_K;
    return q5 ? BW_Q5_K : BW_Q4_K;
}

static bw_status choose_type(bw_shape_plan *p, const char *name, bw_error *err)
{
    static const char *const mixes[] = { "q4_k_m", "q5_k_m" };
    for (size_t i = 0; i < BW_COUNT(mixes); i++)
        if (strcmp(name, mixes[i]) == 0) {
            p->mix = mixes[i];
            return BW_OK;
        }
    for (int i = 0; i < BW_DTYPE_COUNT; i++)
        if (strcmp(bw_dtype_get((bw_dtype)i)->name, name) == 0) {
            p->type = (bw_dtype)i;
            return BW_OK;
        }
    return bw_fail(err, BW_E_ARGUMENT, "unknown type %.60s: expected one of %s", name, bw_synthetic_types);
}

/* ---- the list ------------------------------------------------------------------------------------ */

static const uint64_t MOST_BYTES = (uint64_t)1 << 46;

/* in * out * experts elements, if their bytes are a number that can be counted. */
static bool count_bytes(bw_shape_tensor *t)
{
    const uint64_t most = MOST_BYTES;
    uint64_t rows = 1;
    for (int d = 1; d < 3; d++)
        if (t->ne[d]) {
            if (rows > most / t->ne[d])
                return false;
            rows *= t->ne[d];
        }
    const uint64_t row = t->ne[0] <= most ? bw_dtype_row_bytes(t->type, t->ne[0]) : most;
    if (row >= most / rows)
        return false;
    t->bytes = row * rows;
    return true;
}

/* ... and so are those of all tensors together. */
static bool count_all(const bw_shape_plan *p)
{
    uint64_t bytes = 0;
    for (int i = 0; i < p->n; i++)
        bytes += p->tensors[i].bytes;
    return bytes <= MOST_BYTES;
}

/* layer -1: of the model. Sizes are at most 2^24, so products of two are far inside an int64_t. */
static void add(bw_shape_plan *p, int layer, const char *part, bw_shape_kind kind, int64_t in, int64_t out, int64_t experts)
{
    bw_shape_tensor *t = &p->tensors[p->n++];
    *t = (bw_shape_tensor){ .kind = kind, .ne = { (uint64_t)in, (uint64_t)out, (uint64_t)experts }, .type = BW_F32 };
    if (layer < 0)
        snprintf(t->name, sizeof t->name, "%s", part);
    else
        snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, part);
    if (kind == BW_SHAPE_MATRIX && strncmp(part, "ffn_gate_inp", 12) != 0)
        t->type = fitting(p->mix ? mixed_type(p, part, layer) : p->type, t->ne[0]);
    p->too_large |= !count_bytes(t);
}

static void add_matrix(bw_shape_plan *p, int layer, const char *part, int64_t in, int64_t out)
{
    add(p, layer, part, BW_SHAPE_MATRIX, in, out, 0);
}

static void add_vector(bw_shape_plan *p, int layer, const char *part, bw_shape_kind kind, int64_t n)
{
    add(p, layer, part, kind, n, 0, 0);
}

static void add_attention(bw_shape_plan *p, int i)
{
    const bw_shape *s = &p->shape;
    const int64_t q = (int64_t)s->heads * s->head_dim, kv = (int64_t)s->kv_heads * s->head_dim;
    add_matrix(p, i, "attn_q.weight", s->hidden, 2 * q);
    add_matrix(p, i, "attn_k.weight", s->hidden, kv);
    add_matrix(p, i, "attn_v.weight", s->hidden, kv);
    add_matrix(p, i, "attn_output.weight", q, s->hidden);
    add_vector(p, i, "attn_q_norm.weight", BW_SHAPE_NORM, s->head_dim);
    add_vector(p, i, "attn_k_norm.weight", BW_SHAPE_NORM, s->head_dim);
}

static void add_linear(bw_shape_plan *p, int i)
{
    const bw_shape *s = &p->shape;
    const int64_t values = (int64_t)s->v_heads * s->d_v, channels = 2 * (int64_t)s->k_heads * s->d_k + values;
    add_matrix(p, i, "attn_qkv.weight", s->hidden, channels);
    add_matrix(p, i, "attn_gate.weight", s->hidden, values);
    add_matrix(p, i, "ssm_alpha.weight", s->hidden, s->v_heads);
    add_matrix(p, i, "ssm_beta.weight", s->hidden, s->v_heads);
    add(p, i, "ssm_conv1d.weight", BW_SHAPE_CONV, s->conv, channels, 0);
    add_vector(p, i, "ssm_a", BW_SHAPE_DECAY, s->v_heads);
    add_vector(p, i, "ssm_dt.bias", BW_SHAPE_DT_BIAS, s->v_heads);
    add_vector(p, i, "ssm_norm.weight", BW_SHAPE_NORM, s->d_v);
    add_matrix(p, i, "ssm_out.weight", values, s->hidden);
}

static void add_ffn(bw_shape_plan *p, int i)
{
    const bw_shape *s = &p->shape;
    if (!s->moe) {
        add_matrix(p, i, "ffn_gate.weight", s->hidden, s->ffn);
        add_matrix(p, i, "ffn_up.weight", s->hidden, s->ffn);
        add_matrix(p, i, "ffn_down.weight", s->ffn, s->hidden);
        return;
    }
    add_matrix(p, i, "ffn_gate_inp.weight", s->hidden, s->experts);
    add(p, i, "ffn_gate_exps.weight", BW_SHAPE_MATRIX, s->hidden, s->expert_ffn, s->experts);
    add(p, i, "ffn_up_exps.weight", BW_SHAPE_MATRIX, s->hidden, s->expert_ffn, s->experts);
    add(p, i, "ffn_down_exps.weight", BW_SHAPE_MATRIX, s->expert_ffn, s->hidden, s->experts);
    add_vector(p, i, "ffn_gate_inp_shexp.weight", BW_SHAPE_MATRIX, s->hidden);
    add_matrix(p, i, "ffn_gate_shexp.weight", s->hidden, s->shared_ffn);
    add_matrix(p, i, "ffn_up_shexp.weight", s->hidden, s->shared_ffn);
    add_matrix(p, i, "ffn_down_shexp.weight", s->shared_ffn, s->hidden);
}

bool bw_shape_is_linear(const bw_shape *s, int layer)
{
    return layer < s->layers && (layer + 1) % s->interval != 0;
}

enum { OF_A_LAYER = 20, OF_THE_MODEL = 8 }; /* tensors, at most */

static void list_tensors(bw_shape_plan *p)
{
    const bw_shape *s = &p->shape;
    add_matrix(p, -1, "token_embd.weight", s->hidden, s->vocab);
    add_vector(p, -1, "output_norm.weight", BW_SHAPE_NORM, s->hidden);
    if (!s->tied)
        add_matrix(p, -1, "output.weight", s->hidden, s->vocab);
    for (int i = 0; i < s->layers + p->mtp; i++) {
        add_vector(p, i, "attn_norm.weight", BW_SHAPE_NORM, s->hidden);
        if (bw_shape_is_linear(s, i))
            add_linear(p, i);
        else
            add_attention(p, i);
        add_vector(p, i, "post_attention_norm.weight", BW_SHAPE_NORM, s->hidden);
        add_ffn(p, i);
    }
    if (p->mtp) {
        add_matrix(p, s->layers, "nextn.eh_proj.weight", 2 * (int64_t)s->hidden, s->hidden);
        add_vector(p, s->layers, "nextn.enorm.weight", BW_SHAPE_NORM, s->hidden);
        add_vector(p, s->layers, "nextn.hnorm.weight", BW_SHAPE_NORM, s->hidden);
        add_vector(p, s->layers, "nextn.shared_head_norm.weight", BW_SHAPE_NORM, s->hidden);
    }
}

bw_status bw_shape_plan_init(bw_shape_plan *p, const bw_shape *shape, const char *type, bool mtp, bw_error *err)
{
    *p = (bw_shape_plan){ .shape = *shape, .mtp = mtp };
    const bw_status st = choose_type(p, type, err);
    if (st)
        return st;
    const size_t most = (size_t)(shape->layers + 1) * OF_A_LAYER + OF_THE_MODEL;
    p->tensors = bw_mem_zalloc(most, sizeof *p->tensors, BW_MEM_MISC);
    if (!p->tensors)
        return bw_fail_memory(err, "list of tensors", most * sizeof *p->tensors);
    list_tensors(p);
    if (!p->too_large && count_all(p))
        return BW_OK;
    bw_shape_plan_fini(p);
    return bw_fail(err, BW_E_LIMIT, "a shape with more than 2^46 bytes of weights: check its sizes");
}

void bw_shape_plan_fini(bw_shape_plan *p)
{
    bw_mem_free(p->tensors);
    p->tensors = NULL;
    p->n = 0;
}

/* ---- reading a config.json ----------------------------------------------------------------------- */

static json_object *field(json_object *object, const char *key)
{
    json_object *value = NULL;
    json_object_object_get_ex(object, key, &value);
    return value;
}

typedef struct reader {
    const char *path;
    bw_status st; /* of the first field that is wrong, which err names */
    bw_error *err;
} reader;

static void complain(reader *r, const char *key, json_object *found, const char *expected)
{
    if (!r->st)
        r->st = bw_fail(r->err, BW_E_FORMAT, "%s: %s is %.60s; %s is expected", r->path, key,
                        found ? json_object_to_json_string(found) : "missing", expected);
}

/* otherwise 0: required. */
static int whole(reader *r, json_object *object, const char *key, int otherwise)
{
    json_object *value = field(object, key);
    if (!value && otherwise)
        return otherwise;
    const int64_t n = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : 0;
    if (n >= 1 && n <= LARGEST_SIZE)
        return (int)n;
    complain(r, key, value, "an integer from 1 to 16777216");
    return 1;
}

static double number(reader *r, json_object *object, const char *key, double otherwise)
{
    json_object *value = field(object, key);
    if (!value)
        return otherwise;
    const bool typed = json_object_is_type(value, json_type_double) || json_object_is_type(value, json_type_int);
    const double x = typed ? json_object_get_double(value) : 0;
    if (x > 0 && x <= 1e18)
        return x;
    complain(r, key, value, "a number above 0 and up to 1e18");
    return otherwise;
}

static bool truth(reader *r, json_object *object, const char *key)
{
    json_object *value = field(object, key);
    if (value && !json_object_is_type(value, json_type_boolean))
        complain(r, key, value, "true or false");
    return json_object_is_type(value, json_type_boolean) && json_object_get_boolean(value);
}

static void read_section(reader *r, json_object *rope, int section[3])
{
    static const int usual[3] = { 11, 11, 10 };
    json_object *list = field(rope, "mrope_section");
    memcpy(section, usual, sizeof usual);
    if (!list)
        return;
    bool fits = json_object_is_type(list, json_type_array) && json_object_array_length(list) == 3;
    for (size_t i = 0; fits && i < 3; i++) {
        json_object *one = json_object_array_get_idx(list, i);
        const int64_t n = json_object_is_type(one, json_type_int) ? json_object_get_int64(one) : -1;
        fits = n >= 0 && n <= LARGEST_SIZE;
        section[i] = fits ? (int)n : 0;
    }
    if (!fits)
        complain(r, "mrope_section", list, "a list of three integers from 0 up");
}

static void read_sizes(reader *r, json_object *text, bw_shape *s)
{
    json_object *type = field(text, "model_type");
    if (type && !json_object_is_type(type, json_type_string))
        complain(r, "model_type", type, "a string");
    s->moe = type && strstr(json_object_get_string(type), "moe") != NULL;
    s->hidden = whole(r, text, "hidden_size", 0);
    s->layers = whole(r, text, "num_hidden_layers", 0);
    if (s->layers > MOST_LAYERS)
        complain(r, "num_hidden_layers", field(text, "num_hidden_layers"), "at most 1000");
    s->interval = whole(r, text, "full_attention_interval", 4);
    s->heads = whole(r, text, "num_attention_heads", 0);
    s->kv_heads = whole(r, text, "num_key_value_heads", 0);
    s->head_dim = whole(r, text, "head_dim", 256);
    s->k_heads = whole(r, text, "linear_num_key_heads", 16);
    s->v_heads = whole(r, text, "linear_num_value_heads", 32);
    s->d_k = whole(r, text, "linear_key_head_dim", 128);
    s->d_v = whole(r, text, "linear_value_head_dim", 128);
    if ((int64_t)s->v_heads * s->d_v > LARGEST_SIZE)
        complain(r, "linear_value_head_dim", field(text, "linear_value_head_dim"), "one that makes at most 16777216 with the heads");
    s->conv = whole(r, text, "linear_conv_kernel_dim", 4);
    s->vocab = whole(r, text, "vocab_size", 0);
    s->context = whole(r, text, "max_position_embeddings", 262144);
    if (s->moe) {
        s->experts = whole(r, text, "num_experts", 256);
        s->experts_used = whole(r, text, "num_experts_per_tok", 8);
        s->expert_ffn = whole(r, text, "moe_intermediate_size", 512);
        s->shared_ffn = whole(r, text, "shared_expert_intermediate_size", 512);
    } else {
        s->ffn = whole(r, text, "intermediate_size", 0);
    }
    s->eps = number(r, text, "rms_norm_eps", 1e-6);
}

static void read_rope(reader *r, json_object *rope, bw_shape *s)
{
    s->theta = number(r, rope, "rope_theta", 1e7);
    const double part = number(r, rope, "partial_rotary_factor", 0.25);
    if (part > 1)
        complain(r, "partial_rotary_factor", field(rope, "partial_rotary_factor"), "a number above 0 and up to 1");
    s->rotary = (int)(s->head_dim * fmin(part, 1));
    read_section(r, rope, s->section);
}

bw_status bw_shape_read(bw_shape *s, const char *path, const char *json, size_t n, bw_error *err)
{
    json_object *top;
    reader r = { path, BW_OK, err };
    *s = (bw_shape){ 0 };
    bw_status st = bw_json_read(path, (const unsigned char *)json, n, &top, err);
    if (st)
        return st;
    json_object *text = field(top, "text_config") ? field(top, "text_config") : top;
    json_object *rope = field(text, "rope_parameters") ? field(text, "rope_parameters") : text;
    read_sizes(&r, text, s);
    read_rope(&r, rope, s);
    s->tied = truth(&r, text, "tie_word_embeddings");
    s->tied |= truth(&r, top, "tie_word_embeddings");
    json_object_put(top);
    return r.st;
}
