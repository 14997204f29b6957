/* synth.c - writes a GGUF file of random weights in the shape of a real model, to time things
 * without a download. Names, types and metadata are those of real files. A tokenizer is in it only when
 * one is given: with --tokenizer, the routes of a server that take text can be timed too.
 *
 *     tools/synth tools/shapes/2b.json /tmp/2b.gguf --type q8_0
 *
 * The weights are normally distributed with the spread trained ones have, so that nothing overflows
 * and every code occurs. They are drawn once, packed, and then dealt out block by block: a file
 * grows as fast as the disk takes it. */
#include <errno.h>
#include <json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/dtype.h"
#include "base/half.h"
#include "base/status.h"
#include "format/quantize.h"

enum { ALIGNMENT = 32, POOL = 1 << 16, MAX_TENSORS = 40000, DEAL = 32 };

static const char usage[] =
    "usage: tools/synth SHAPE.json OUT.gguf [--type TYPE] [--seed N] [--no-mtp]\n"
    "                   [--tokenizer DIR]\n"
    "  SHAPE.json   a config.json of the family (tools/shapes has some)\n"
    "  --type TYPE  of the matrices: f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl q2_k q3_k q4_k q5_k q6_k\n"
    "               iq4_xs, or the mixes q4_k_m q5_k_m (default q8_0)\n"
    "  --seed N     another file of the same kind (default 1)\n"
    "  --no-mtp     without the MTP head\n"
    "  --tokenizer DIR  puts in the tokenizer and chat template of a model's folder (models/lamb); rows of the\n"
    "               head beyond its tokens belong to none\n"
    "example: tools/synth tools/shapes/2b.json 2b.gguf --type q4_k_m\n";

/* ---- what to write ------------------------------------------------------------------------------- */

typedef struct shape {
    int hidden, layers, interval, heads, kv_heads, head_dim, k_heads, v_heads, d_k, d_v, conv, vocab, context;
    int ffn, experts, experts_used, expert_ffn, shared_ffn;
    int rotary, section[3];
    double eps, theta;
    bool moe, tied;
} shape;

typedef enum kind { MATRIX, NORM, CONV, DECAY, DT_BIAS } kind;

typedef struct tensor {
    char name[64];
    uint64_t ne[3]; /* in, out, experts; 0: no such dimension */
    bw_dtype type;
    kind kind;
} tensor;

typedef struct vocabulary {
    json_object *tokenizer, *settings; /* own what the pointers below point to */
    const char *folder; /* NULL: no tokenizer */
    const char **texts; /* [n] by id */
    unsigned char *types; /* [n] as GGUF counts them */
    int n, end_of_turn;
    json_object *merges;
    char *template;
} vocabulary;

typedef struct plan {
    shape shape;
    bool mtp;
    bw_dtype type;
    const char *mix; /* "q4_k_m", or NULL: all matrices of `type` */
    vocabulary words;
    tensor *tensors;
    int n;
} plan;

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

static bw_dtype mixed_type(const plan *p, const char *part, int layer)
{
    const bool q5 = strcmp(p->mix, "q5_k_m") == 0;
    const bool wide = strcmp(part, "attn_v.weight") == 0 || strncmp(part, "ffn_down", 8) == 0;
    if (strcmp(part, "output.weight") == 0 || (wide && more_bits(layer, p->shape.layers)))
        return BW_Q6_K;
    if (strcmp(part, "attn_qkv.weight") == 0)
        return q5 ? BW_Q6_K : BW_Q5_K;
    return q5 ? BW_Q5_K : BW_Q4_K;
}

/* layer -1: of the model. */
static void add(plan *p, int layer, const char *part, kind k, int in, int out, int experts)
{
    if (p->n == MAX_TENSORS)
        return;
    tensor *t = &p->tensors[p->n++];
    if (layer < 0)
        snprintf(t->name, sizeof t->name, "%s", part);
    else
        snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, part);
    t->kind = k;
    t->ne[0] = (uint64_t)in;
    t->ne[1] = (uint64_t)out;
    t->ne[2] = (uint64_t)experts;
    t->type = BW_F32;
    if (k == MATRIX && strncmp(part, "ffn_gate_inp", 12) != 0)
        t->type = fitting(p->mix ? mixed_type(p, part, layer) : p->type, t->ne[0]);
}

static void add_attention(plan *p, int i)
{
    const shape *s = &p->shape;
    add(p, i, "attn_q.weight", MATRIX, s->hidden, 2 * s->heads * s->head_dim, 0);
    add(p, i, "attn_k.weight", MATRIX, s->hidden, s->kv_heads * s->head_dim, 0);
    add(p, i, "attn_v.weight", MATRIX, s->hidden, s->kv_heads * s->head_dim, 0);
    add(p, i, "attn_output.weight", MATRIX, s->heads * s->head_dim, s->hidden, 0);
    add(p, i, "attn_q_norm.weight", NORM, s->head_dim, 0, 0);
    add(p, i, "attn_k_norm.weight", NORM, s->head_dim, 0, 0);
}

static void add_linear(plan *p, int i)
{
    const shape *s = &p->shape;
    const int values = s->v_heads * s->d_v, channels = 2 * s->k_heads * s->d_k + values;
    add(p, i, "attn_qkv.weight", MATRIX, s->hidden, channels, 0);
    add(p, i, "attn_gate.weight", MATRIX, s->hidden, values, 0);
    add(p, i, "ssm_alpha.weight", MATRIX, s->hidden, s->v_heads, 0);
    add(p, i, "ssm_beta.weight", MATRIX, s->hidden, s->v_heads, 0);
    add(p, i, "ssm_conv1d.weight", CONV, s->conv, channels, 0);
    add(p, i, "ssm_a", DECAY, s->v_heads, 0, 0);
    add(p, i, "ssm_dt.bias", DT_BIAS, s->v_heads, 0, 0);
    add(p, i, "ssm_norm.weight", NORM, s->d_v, 0, 0);
    add(p, i, "ssm_out.weight", MATRIX, values, s->hidden, 0);
}

static void add_ffn(plan *p, int i)
{
    const shape *s = &p->shape;
    if (!s->moe) {
        add(p, i, "ffn_gate.weight", MATRIX, s->hidden, s->ffn, 0);
        add(p, i, "ffn_up.weight", MATRIX, s->hidden, s->ffn, 0);
        add(p, i, "ffn_down.weight", MATRIX, s->ffn, s->hidden, 0);
        return;
    }
    add(p, i, "ffn_gate_inp.weight", MATRIX, s->hidden, s->experts, 0);
    add(p, i, "ffn_gate_exps.weight", MATRIX, s->hidden, s->expert_ffn, s->experts);
    add(p, i, "ffn_up_exps.weight", MATRIX, s->hidden, s->expert_ffn, s->experts);
    add(p, i, "ffn_down_exps.weight", MATRIX, s->expert_ffn, s->hidden, s->experts);
    add(p, i, "ffn_gate_inp_shexp.weight", MATRIX, s->hidden, 0, 0);
    add(p, i, "ffn_gate_shexp.weight", MATRIX, s->hidden, s->shared_ffn, 0);
    add(p, i, "ffn_up_shexp.weight", MATRIX, s->hidden, s->shared_ffn, 0);
    add(p, i, "ffn_down_shexp.weight", MATRIX, s->shared_ffn, s->hidden, 0);
}

static bool is_linear(const shape *s, int layer)
{
    return layer < s->layers && (layer + 1) % s->interval != 0;
}

static void list_tensors(plan *p)
{
    const shape *s = &p->shape;
    add(p, -1, "token_embd.weight", MATRIX, s->hidden, s->vocab, 0);
    add(p, -1, "output_norm.weight", NORM, s->hidden, 0, 0);
    if (!s->tied)
        add(p, -1, "output.weight", MATRIX, s->hidden, s->vocab, 0);
    for (int i = 0; i < s->layers + p->mtp; i++) {
        add(p, i, "attn_norm.weight", NORM, s->hidden, 0, 0);
        if (is_linear(s, i))
            add_linear(p, i);
        else
            add_attention(p, i);
        add(p, i, "post_attention_norm.weight", NORM, s->hidden, 0, 0);
        add_ffn(p, i);
    }
    if (p->mtp) {
        add(p, s->layers, "nextn.eh_proj.weight", MATRIX, 2 * s->hidden, s->hidden, 0);
        add(p, s->layers, "nextn.enorm.weight", NORM, s->hidden, 0, 0);
        add(p, s->layers, "nextn.hnorm.weight", NORM, s->hidden, 0, 0);
        add(p, s->layers, "nextn.shared_head_norm.weight", NORM, s->hidden, 0, 0);
    }
}

/* ---- reading the shape --------------------------------------------------------------------------- */

static json_object *field(json_object *object, const char *key)
{
    json_object *value = NULL;
    json_object_object_get_ex(object, key, &value);
    return value;
}

typedef struct reader {
    const char *path;
    bool ok; /* falls with a message */
} reader;

static void complain(reader *r, const char *key, json_object *found, const char *expected)
{
    fprintf(stderr, "synth: %s: %s is %.60s; %s is expected\n", r->path, key, found ? json_object_to_json_string(found) : "missing", expected);
    r->ok = false;
}

/* otherwise 0: required. */
static int whole(reader *r, json_object *object, const char *key, int otherwise)
{
    json_object *value = field(object, key);
    if (!value && otherwise)
        return otherwise;
    const int64_t n = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : 0;
    if (n >= 1 && n <= 1 << 24)
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
        fits = n >= 0 && n <= 1 << 24;
        section[i] = fits ? (int)n : 0;
    }
    if (!fits)
        complain(r, "mrope_section", list, "a list of three integers from 0 up");
}

static bool read_shape(const char *path, shape *s)
{
    json_object *top = json_object_from_file(path);
    if (!json_object_is_type(top, json_type_object)) {
        fprintf(stderr, "synth: %s: cannot be read as a JSON object\n", path);
        json_object_put(top);
        return false;
    }
    reader r = { path, true };
    json_object *text = field(top, "text_config") ? field(top, "text_config") : top;
    json_object *rope = field(text, "rope_parameters") ? field(text, "rope_parameters") : text;
    json_object *type = field(text, "model_type");
    if (type && !json_object_is_type(type, json_type_string))
        complain(&r, "model_type", type, "a string");
    s->moe = type && strstr(json_object_get_string(type), "moe") != NULL;
    s->hidden = whole(&r, text, "hidden_size", 0);
    s->layers = whole(&r, text, "num_hidden_layers", 0);
    s->interval = whole(&r, text, "full_attention_interval", 4);
    s->heads = whole(&r, text, "num_attention_heads", 0);
    s->kv_heads = whole(&r, text, "num_key_value_heads", 0);
    s->head_dim = whole(&r, text, "head_dim", 256);
    s->k_heads = whole(&r, text, "linear_num_key_heads", 16);
    s->v_heads = whole(&r, text, "linear_num_value_heads", 32);
    s->d_k = whole(&r, text, "linear_key_head_dim", 128);
    s->d_v = whole(&r, text, "linear_value_head_dim", 128);
    s->conv = whole(&r, text, "linear_conv_kernel_dim", 4);
    s->vocab = whole(&r, text, "vocab_size", 0);
    s->context = whole(&r, text, "max_position_embeddings", 262144);
    if (s->moe) {
        s->experts = whole(&r, text, "num_experts", 256);
        s->experts_used = whole(&r, text, "num_experts_per_tok", 8);
        s->expert_ffn = whole(&r, text, "moe_intermediate_size", 512);
        s->shared_ffn = whole(&r, text, "shared_expert_intermediate_size", 512);
    } else {
        s->ffn = whole(&r, text, "intermediate_size", 0);
    }
    s->eps = number(&r, text, "rms_norm_eps", 1e-6);
    s->theta = number(&r, rope, "rope_theta", 1e7);
    const double part = number(&r, rope, "partial_rotary_factor", 0.25);
    if (part > 1)
        complain(&r, "partial_rotary_factor", field(rope, "partial_rotary_factor"), "a number above 0 and up to 1");
    s->rotary = (int)(s->head_dim * fmin(part, 1));
    s->tied = truth(&r, text, "tie_word_embeddings");
    s->tied |= truth(&r, top, "tie_word_embeddings");
    read_section(&r, rope, s->section);
    if (s->layers > 1000) {
        fprintf(stderr, "synth: %s: %d layers are too many, up to 1000 are understood\n", path, s->layers);
        r.ok = false;
    }
    json_object_put(top);
    return r.ok;
}

/* ---- reading the tokenizer ----------------------------------------------------------------------- */

enum { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 }; /* token types of the format */

static bool say_id(vocabulary *v, json_object *id, const char *text, unsigned char type, int limit)
{
    const int64_t i = json_object_get_int64(id);
    if (i < 0 || i >= limit) {
        fprintf(stderr, "synth: %s: token %.60s has id %lld; the shape has %d rows\n", v->folder, text, (long long)i, limit);
        return false;
    }
    v->texts[i] = text;
    v->types[i] = type;
    v->n = i >= v->n ? (int)i + 1 : v->n;
    return true;
}

static bool say_added(vocabulary *v, json_object *id, json_object *token, int limit)
{
    const char *text = json_object_get_string(field(token, "content"));
    const bool special = json_object_get_boolean(field(token, "special"));
    if (!text) {
        fprintf(stderr, "synth: %s: an added token without content\n", v->folder);
        return false;
    }
    return say_id(v, id, text, special ? CONTROL : USER_DEFINED, limit);
}

static bool say_base(vocabulary *v, json_object *tokens, int limit)
{
    json_object_object_foreach(tokens, text, id)
        if (!say_id(v, id, text, NORMAL, limit))
            return false;
    return true;
}

static bool say_listed(vocabulary *v, json_object *tokens, int limit)
{
    bool ok = true;
    for (size_t i = 0; ok && tokens && i < json_object_array_length(tokens); i++) {
        json_object *token = json_object_array_get_idx(tokens, i);
        ok = say_added(v, field(token, "id"), token, limit);
    }
    return ok;
}

static bool say_numbered(vocabulary *v, json_object *tokens, int limit)
{
    bool ok = true;
    if (!json_object_is_type(tokens, json_type_object))
        return true;
    json_object_object_foreach(tokens, number_text, token) {
        json_object *id = json_object_new_int64(strtoll(number_text, NULL, 10));
        ok = ok && say_added(v, id, token, limit);
        json_object_put(id);
    }
    return ok;
}

static json_object *read_json(const char *folder, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    json_object *object = json_object_from_file(path);
    if (!json_object_is_type(object, json_type_object)) {
        fprintf(stderr, "synth: %s: cannot be read as a JSON object\n", path);
        json_object_put(object);
        return NULL;
    }
    return object;
}

static char *read_text(const char *folder, const char *name)
{
    char path[1024], *text = calloc(1, 1 << 20);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (!f || !text)
        perror(path);
    const bool ok = f && text && fread(text, 1, (1 << 20) - 1, f) > 0;
    if (f)
        fclose(f);
    if (!ok) {
        free(text);
        return NULL;
    }
    return text;
}

/* A folder's tokenizer.json, the tokens tokenizer_config.json adds to it, and chat_template.jinja. */
static bool read_vocabulary(vocabulary *v, int limit)
{
    v->texts = calloc((size_t)limit, sizeof *v->texts);
    v->types = calloc((size_t)limit, 1);
    v->tokenizer = read_json(v->folder, "tokenizer.json");
    v->settings = read_json(v->folder, "tokenizer_config.json");
    v->template = read_text(v->folder, "chat_template.jinja");
    if (!v->texts || !v->types || !v->tokenizer || !v->settings || !v->template)
        return false;
    json_object *model = field(v->tokenizer, "model"), *base = field(model, "vocab");
    v->merges = field(model, "merges");
    bool ok = json_object_is_type(base, json_type_object) && json_object_is_type(v->merges, json_type_array);
    if (!ok)
        fprintf(stderr, "synth: %s/tokenizer.json: no byte-level BPE vocabulary\n", v->folder);
    ok = ok && say_base(v, base, limit) && say_listed(v, field(v->tokenizer, "added_tokens"), limit) &&
         say_numbered(v, field(v->settings, "added_tokens_decoder"), limit);
    const char *end = json_object_get_string(field(v->settings, "eos_token"));
    for (int i = 0; ok && end && i < v->n; i++)
        if (v->texts[i] && strcmp(v->texts[i], end) == 0)
            v->end_of_turn = i;
    return ok;
}

static void free_vocabulary(vocabulary *v)
{
    json_object_put(v->tokenizer);
    json_object_put(v->settings);
    free(v->texts);
    free(v->types);
    free(v->template);
}

/* ---- GGUF header --------------------------------------------------------------------------------- */

static void put(FILE *f, const void *bytes, size_t n)
{
    fwrite(bytes, 1, n, f); /* ferror is asked once, at the end */
}

static void put_u32(FILE *f, uint32_t x)
{
    put(f, &x, sizeof x);
}

static void put_u64(FILE *f, uint64_t x)
{
    put(f, &x, sizeof x);
}

static void put_string(FILE *f, const char *text)
{
    put_u64(f, strlen(text));
    put(f, text, strlen(text));
}

enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 }; /* value types of the format */

typedef struct header {
    FILE *f;
    const char *arch;
    int n;
} header;

static void put_key(header *h, const char *key, uint32_t type)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s%s", strncmp(key, "general.", 8) && strncmp(key, "tokenizer.", 10) ? h->arch : "",
             strncmp(key, "general.", 8) && strncmp(key, "tokenizer.", 10) ? "." : "", key);
    put_string(h->f, full);
    put_u32(h->f, type);
    h->n++;
}

static void put_int(header *h, const char *key, int value)
{
    put_key(h, key, U32);
    put_u32(h->f, (uint32_t)value);
}

static void put_float(header *h, const char *key, double value)
{
    float x = (float)value;
    put_key(h, key, F32);
    put(h->f, &x, sizeof x);
}

static void put_text(header *h, const char *key, const char *value)
{
    put_key(h, key, STRING);
    put_string(h->f, value);
}

/* A merge is a pair, or one text with a space in it; GGUF has the text. */
static void put_merge(FILE *f, json_object *merge)
{
    char text[2048];
    if (json_object_is_type(merge, json_type_array))
        snprintf(text, sizeof text, "%s %s", json_object_get_string(json_object_array_get_idx(merge, 0)),
                 json_object_get_string(json_object_array_get_idx(merge, 1)));
    else
        snprintf(text, sizeof text, "%s", json_object_get_string(merge));
    put_string(f, text);
}

static void put_array(header *h, const char *key, uint32_t type, size_t n)
{
    put_key(h, key, ARRAY);
    put_u32(h->f, type);
    put_u64(h->f, n);
}

static void put_vocabulary(header *h, const vocabulary *v)
{
    put_text(h, "tokenizer.ggml.model", "gpt2");
    put_text(h, "tokenizer.ggml.pre", "qwen35");
    put_array(h, "tokenizer.ggml.tokens", STRING, (size_t)v->n);
    for (int i = 0; i < v->n; i++) {
        char none[32];
        snprintf(none, sizeof none, "[PAD%d]", i);
        put_string(h->f, v->texts[i] ? v->texts[i] : none);
    }
    put_array(h, "tokenizer.ggml.token_type", I32, (size_t)v->n);
    for (int i = 0; i < v->n; i++)
        put_u32(h->f, v->texts[i] ? v->types[i] : UNUSED);
    const size_t n_merges = json_object_array_length(v->merges);
    put_array(h, "tokenizer.ggml.merges", STRING, n_merges);
    for (size_t i = 0; i < n_merges; i++)
        put_merge(h->f, json_object_array_get_idx(v->merges, i));
    put_int(h, "tokenizer.ggml.eos_token_id", v->end_of_turn);
    put_text(h, "tokenizer.chat_template", v->template);
}

static int put_metadata(FILE *f, const plan *p, const char *name)
{
    const shape *s = &p->shape;
    header h = { f, s->moe ? "qwen35moe" : "qwen35", 0 };
    put_text(&h, "general.architecture", h.arch);
    put_text(&h, "general.type", "model");
    put_text(&h, "general.name", name);
    put_int(&h, "general.quantization_version", 2);
    put_int(&h, "block_count", s->layers + p->mtp);
    if (p->mtp)
        put_int(&h, "nextn_predict_layers", 1);
    put_int(&h, "context_length", s->context);
    put_int(&h, "embedding_length", s->hidden);
    put_int(&h, "attention.head_count", s->heads);
    put_int(&h, "attention.head_count_kv", s->kv_heads);
    put_int(&h, "attention.key_length", s->head_dim);
    put_int(&h, "attention.value_length", s->head_dim);
    put_float(&h, "attention.layer_norm_rms_epsilon", s->eps);
    put_int(&h, "rope.dimension_count", s->rotary);
    put_float(&h, "rope.freq_base", s->theta);
    put_key(&h, "rope.dimension_sections", ARRAY);
    put_u32(f, I32);
    put_u64(f, 4);
    for (int i = 0; i < 4; i++)
        put_u32(f, i < 3 ? (uint32_t)s->section[i] : 0);
    put_int(&h, "ssm.conv_kernel", s->conv);
    put_int(&h, "ssm.state_size", s->d_k);
    put_int(&h, "ssm.group_count", s->k_heads);
    put_int(&h, "ssm.time_step_rank", s->v_heads);
    put_int(&h, "ssm.inner_size", s->v_heads * s->d_v);
    put_int(&h, "full_attention_interval", s->interval);
    put_key(&h, "attention.recurrent_layers", ARRAY);
    put_u32(f, BOOL);
    put_u64(f, (uint64_t)(s->layers + p->mtp));
    for (int i = 0; i < s->layers + p->mtp; i++)
        putc(is_linear(s, i), f);
    if (s->moe) {
        put_int(&h, "expert_count", s->experts);
        put_int(&h, "expert_used_count", s->experts_used);
        put_int(&h, "expert_feed_forward_length", s->expert_ffn);
        put_int(&h, "expert_shared_feed_forward_length", s->shared_ffn);
    } else {
        put_int(&h, "feed_forward_length", s->ffn);
    }
    put_int(&h, "vocab_size", s->vocab);
    if (p->words.folder)
        put_vocabulary(&h, &p->words);
    else
        put_text(&h, "tokenizer.ggml.model", "no_vocab");
    return h.n;
}

static uint64_t bytes_of(const tensor *t)
{
    return bw_dtype_row_bytes(t->type, t->ne[0]) * (t->ne[1] ? t->ne[1] : 1) * (t->ne[2] ? t->ne[2] : 1);
}

static uint32_t gguf_type(bw_dtype type)
{
    static const uint32_t ids[BW_DTYPE_COUNT] = {
        [BW_F32] = 0,   [BW_F16] = 1,   [BW_BF16] = 30, [BW_Q8_0] = 8,  [BW_Q4_0] = 2,  [BW_Q4_1] = 3,  [BW_Q5_0] = 6,   [BW_Q5_1] = 7,
        [BW_IQ4_NL] = 20, [BW_Q2_K] = 10, [BW_Q3_K] = 11, [BW_Q4_K] = 12, [BW_Q5_K] = 13, [BW_Q6_K] = 14, [BW_IQ4_XS] = 23,
    };
    return ids[type];
}

static uint64_t padded(uint64_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void pad(FILE *f, uint64_t written)
{
    for (uint64_t i = written; i < padded(written); i++)
        putc(0, f);
}

static void put_header(FILE *f, const plan *p, const char *name)
{
    put(f, "GGUF", 4);
    put_u32(f, 3);
    put_u64(f, (uint64_t)p->n);
    put_u64(f, 0); /* written again once the keys are counted */
    uint64_t offset = 0, keys = (uint64_t)put_metadata(f, p, name);
    for (int i = 0; i < p->n; i++) {
        const tensor *t = &p->tensors[i];
        const uint32_t n_dims = t->ne[2] ? 3 : t->ne[1] ? 2 : 1;
        put_string(f, t->name);
        put_u32(f, n_dims);
        for (uint32_t d = 0; d < n_dims; d++)
            put_u64(f, t->ne[d]);
        put_u32(f, gguf_type(t->type));
        put_u64(f, offset);
        offset += padded(bytes_of(t));
    }
    const long end = ftell(f);
    pad(f, (uint64_t)end);
    fseek(f, 16, SEEK_SET);
    put_u64(f, keys);
    fseek(f, 0, SEEK_END);
}

/* ---- weights ------------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint64_t draw(void)
{
    uint64_t z = (random_state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static double uniform(void)
{
    return ((double)(draw() >> 11) + 0.5) * 0x1p-53;
}

static double normal(void)
{
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

static float value_of(kind k, uint64_t cols)
{
    switch (k) {
    case MATRIX: return (float)(normal() / sqrt((double)cols));
    case NORM: return (float)(1 + 0.1 * normal());
    case CONV: return (float)(0.5 * normal());
    case DECAY: return -(float)exp(uniform() * log(16.0));          /* -A, A from 1 to 16 */
    default: return (float)log(expm1(exp(log(0.001) + uniform() * log(100.0)))); /* softplus of it: 0.001 to 0.1 */
    }
}

static void put_small(FILE *f, const tensor *t)
{
    const uint64_t n = t->ne[0] * (t->ne[1] ? t->ne[1] : 1);
    for (uint64_t i = 0; i < n; i++) {
        float x = value_of(t->kind, t->ne[0]);
        put(f, &x, sizeof x);
    }
}

/* Packs a pool of drawn values once and deals its blocks out at random until the tensor is full. */
static bool put_matrix(FILE *f, const tensor *t)
{
    static float values[POOL];
    static unsigned char packed[POOL * sizeof(float)];
    const bw_dtype_info *info = bw_dtype_get(t->type);
    const uint64_t unit = info->elements == 1 ? (t->ne[0] % DEAL ? 1 : DEAL) : (uint64_t)info->elements; /* values dealt at a time */
    const size_t unit_bytes = (size_t)bw_dtype_row_bytes(t->type, unit);
    const uint64_t blocks = POOL / unit, rows = (t->ne[1] ? t->ne[1] : 1) * (t->ne[2] ? t->ne[2] : 1);
    const size_t row_bytes = (size_t)bw_dtype_row_bytes(t->type, t->ne[0]);
    unsigned char *row = malloc(row_bytes);
    if (!row)
        return false;
    for (size_t i = 0; i < POOL; i++)
        values[i] = value_of(t->kind, t->ne[0]);
    bw_quantize_row(t->type, values, packed, POOL);
    for (uint64_t r = 0; r < rows && !ferror(f); r++) {
        for (size_t at = 0; at < row_bytes; at += unit_bytes)
            memcpy(row + at, packed + draw() % blocks * unit_bytes, unit_bytes);
        put(f, row, row_bytes);
    }
    free(row);
    return true;
}

static bool write_file(const plan *p, const char *path, const char *name)
{
    FILE *f = fopen(path, "wb");
    struct stat info;
    const bool regular = f && fstat(fileno(f), &info) == 0 && S_ISREG(info.st_mode);
    bool ok = f != NULL;
    uint64_t bytes = 0;
    if (f) {
        setvbuf(f, NULL, _IOFBF, 1 << 20);
        put_header(f, p, name);
        for (int i = 0; ok && i < p->n && !ferror(f); i++) {
            const tensor *t = &p->tensors[i];
            if (t->kind == MATRIX)
                ok = put_matrix(f, t);
            else
                put_small(f, t);
            pad(f, bytes_of(t));
            bytes += bytes_of(t);
        }
        ok = ok && !ferror(f);
        ok = fclose(f) == 0 && ok;
    }
    if (ok)
        printf("%s: %d tensors, %.2f GiB\n", path, p->n, (double)bytes / (1 << 30));
    else
        perror(path);
    if (!ok && regular) /* half a model; a device such as /dev/full is not ours to remove */
        remove(path);
    return ok;
}

/* ---- the command --------------------------------------------------------------------------------- */

static bool choose_type(plan *p, const char *name)
{
    if (strcmp(name, "q4_k_m") == 0 || strcmp(name, "q5_k_m") == 0) {
        p->mix = name;
        return true;
    }
    for (int i = 0; i < BW_DTYPE_COUNT; i++)
        if (strcmp(bw_dtype_get((bw_dtype)i)->name, name) == 0) {
            p->type = (bw_dtype)i;
            return true;
        }
    fprintf(stderr, "synth: unknown type %s\n%s", name, usage);
    return false;
}

static bool choose_seed(const char *text)
{
    char *end;
    errno = 0;
    const unsigned long long seed = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno) { /* strtoull takes blanks and signs */
        fprintf(stderr, "synth: --seed is %s; a whole number from 0 to 2^64 - 1 is expected\n%s", text, usage);
        return false;
    }
    random_state = seed * 0x2545F4914F6CDD1Du;
    return true;
}

int main(int argc, char **argv)
{
    const char *paths[2] = { NULL, NULL };
    int n_paths = 0;
    plan p = { .mtp = true, .type = BW_Q8_0 };
    random_state = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return 0;
        } else if (strcmp(argv[i], "--no-mtp") == 0) {
            p.mtp = false;
        } else if (strcmp(argv[i], "--tokenizer") == 0 && i + 1 < argc) {
            p.words.folder = argv[++i];
        } else if (strcmp(argv[i], "--type") == 0 && i + 1 < argc) {
            if (!choose_type(&p, argv[++i]))
                return 2;
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            if (!choose_seed(argv[++i]))
                return 2;
        } else if (argv[i][0] != '-' && n_paths < 2) {
            paths[n_paths++] = argv[i];
        } else {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (n_paths != 2) {
        fputs(usage, stderr);
        return 2;
    }
    if (!read_shape(paths[0], &p.shape))
        return 1;
    p.tensors = calloc(MAX_TENSORS, sizeof *p.tensors);
    if (!p.tensors)
        return 1;
    list_tensors(&p);
    const char *slash = strrchr(paths[0], '/');
    bool ok = (!p.words.folder || read_vocabulary(&p.words, p.shape.vocab)) &&
              write_file(&p, paths[1], slash ? slash + 1 : paths[0]);
    free_vocabulary(&p.words);
    free(p.tensors);
    return ok ? 0 : 1;
}
