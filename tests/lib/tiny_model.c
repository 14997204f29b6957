/* tiny_model.c - see tiny_model.h. */
#include "lib/tiny_model.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/half.h"
#include "lib/check.h"

typedef struct writer {
    char *header;
    size_t used, room;
    unsigned char *data;
    size_t bytes, data_room;
    bool bf16;
} writer;

static void append(writer *w, const char *format, ...)
{
    va_list args;
    if (w->room - w->used < 4096)
        w->header = realloc(w->header, w->room = 2 * w->room + 8192);
    va_start(args, format);
    w->used += (size_t)vsnprintf(w->header + w->used, w->room - w->used, format, args);
    va_end(args);
}

/* One tensor of shape [a, b, c] (0: fewer dimensions); takes ownership of nothing. */
static void add(writer *w, const char *name, const float *x, int a, int b, int c)
{
    const size_t n = (size_t)a * (size_t)(b ? b : 1) * (size_t)(c ? c : 1), size = w->bf16 ? 2 : 4;
    if (w->bytes + n * size > w->data_room)
        w->data = realloc(w->data, w->data_room = 2 * (w->bytes + n * size));
    for (size_t i = 0; i < n; i++) {
        uint16_t h = bw_f32_to_bf16(x[i]);
        memcpy(w->data + w->bytes + i * size, w->bf16 ? (const void *)&h : (const void *)&x[i], size);
    }
    append(w, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%d", w->used > 1 ? "," : "", name, w->bf16 ? "BF16" : "F32", a);
    if (b)
        append(w, ",%d", b);
    if (c)
        append(w, ",%d", c);
    append(w, "],\"data_offsets\":[%zu,%zu]}", w->bytes, w->bytes + n * size);
    w->bytes += n * size;
}

static float *normal(size_t n, float mean, float scale)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = mean + scale * rnd_float();
    return x;
}

static void random_tensor(writer *w, const char *prefix, const char *name, float mean, float scale, int a, int b, int c)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    float *x = normal((size_t)a * (size_t)(b ? b : 1) * (size_t)(c ? c : 1), mean, scale);
    add(w, full, x, a, b, c);
    free(x);
}

static void linear(writer *w, const char *prefix, const char *name, float gain, int out, int in)
{
    random_tensor(w, prefix, name, 0, gain / sqrtf((float)in), out, in, 0);
}

static void add_mlp(writer *w, const char *layer, const tiny_shape *s, float gain)
{
    char p[256];
    snprintf(p, sizeof p, "%smlp.", layer);
    if (!s->n_experts) {
        linear(w, p, "gate_proj.weight", 1.5f, s->ffn, s->hidden);
        linear(w, p, "up_proj.weight", 1, s->ffn, s->hidden);
        linear(w, p, "down_proj.weight", gain, s->hidden, s->ffn);
        return;
    }
    linear(w, p, "gate.weight", 1.5f, s->n_experts, s->hidden);
    random_tensor(w, p, "experts.gate_up_proj", 0, 1.2f / sqrtf((float)s->hidden), s->n_experts, 2 * s->expert_ffn,
                  s->hidden);
    random_tensor(w, p, "experts.down_proj", 0, 1.5f * gain / sqrtf((float)s->expert_ffn), s->n_experts, s->hidden,
                  s->expert_ffn);
    linear(w, p, "shared_expert.gate_proj.weight", 1.5f, s->shared_ffn, s->hidden);
    linear(w, p, "shared_expert.up_proj.weight", 1, s->shared_ffn, s->hidden);
    linear(w, p, "shared_expert.down_proj.weight", gain, s->hidden, s->shared_ffn);
    linear(w, p, "shared_expert_gate.weight", 1, 1, s->hidden);
}

static void add_attention(writer *w, const char *layer, const tiny_shape *s)
{
    char p[256];
    snprintf(p, sizeof p, "%sself_attn.", layer);
    linear(w, p, "q_proj.weight", 1, 2 * s->n_heads * s->head_dim, s->hidden);
    linear(w, p, "k_proj.weight", 1, s->n_kv_heads * s->head_dim, s->hidden);
    linear(w, p, "v_proj.weight", 1, s->n_kv_heads * s->head_dim, s->hidden);
    linear(w, p, "o_proj.weight", 2, s->hidden, s->n_heads * s->head_dim);
    random_tensor(w, p, "q_norm.weight", 0.5f, 0.25f, s->head_dim, 0, 0);
    random_tensor(w, p, "k_norm.weight", 0.3f, 0.25f, s->head_dim, 0, 0);
}

static void add_linear(writer *w, const char *layer, const tiny_shape *s)
{
    const int key = s->n_k_heads * s->d_k, value = s->n_v_heads * s->d_v;
    char p[256];
    snprintf(p, sizeof p, "%slinear_attn.", layer);
    linear(w, p, "in_proj_qkv.weight", 1.2f, 2 * key + value, s->hidden);
    linear(w, p, "in_proj_z.weight", 1.2f, value, s->hidden);
    linear(w, p, "in_proj_b.weight", 1, s->n_v_heads, s->hidden);
    linear(w, p, "in_proj_a.weight", 1, s->n_v_heads, s->hidden);
    random_tensor(w, p, "conv1d.weight", 0, 0.5f, 2 * key + value, 1, 4);
    random_tensor(w, p, "A_log", 1, 1, s->n_v_heads, 0, 0);
    random_tensor(w, p, "dt_bias", -4, 1.5f, s->n_v_heads, 0, 0);
    random_tensor(w, p, "norm.weight", 1, 0.2f, s->d_v, 0, 0);
    linear(w, p, "out_proj.weight", 1, s->hidden, value);
}

static void add_norms(writer *w, const char *layer, const tiny_shape *s)
{
    random_tensor(w, layer, "input_layernorm.weight", 0.1f, 0.25f, s->hidden, 0, 0);
    random_tensor(w, layer, "post_attention_layernorm.weight", 0.1f, 0.25f, s->hidden, 0, 0);
}

static bool is_attention(const tiny_shape *s, int layer)
{
    return (layer + 1) % s->interval == 0;
}

static void add_model(writer *w, const tiny_shape *s)
{
    const size_t h = (size_t)s->hidden, v = (size_t)s->vocab;
    const char *root = "model.language_model.";
    float *embed = normal(v * h, 0, s->tied ? 2 / sqrtf((float)h) : 1);
    add(w, "model.language_model.embed_tokens.weight", embed, s->vocab, s->hidden, 0);
    for (int i = 0; i < s->layers; i++) {
        char layer[128];
        snprintf(layer, sizeof layer, "%slayers.%d.", root, i);
        add_norms(w, layer, s);
        is_attention(s, i) ? add_attention(w, layer, s) : add_linear(w, layer, s);
        add_mlp(w, layer, s, 0.8f);
    }
    random_tensor(w, root, "norm.weight", 0.1f, 0.25f, s->hidden, 0, 0);
    if (!s->tied) { /* row i + 1 looks like the embedding of i: the head tends to count upwards */
        float *head = malloc(v * h * sizeof *head);
        for (size_t i = 0; i < v * h; i++)
            head[(i + h) % (v * h)] = (0.97f * embed[i] + 0.24f * rnd_float()) * 1.6f / sqrtf((float)h);
        add(w, "lm_head.weight", head, s->vocab, s->hidden, 0);
        free(head);
    }
    free(embed);
    if (!s->mtp)
        return;
    float *fc = normal(2 * h * h, 0, 0.35f / sqrtf((float)h));
    for (size_t i = 0; i < h; i++)
        fc[i * 2 * h + i] += 2.4f;
    add(w, "mtp.fc.weight", fc, s->hidden, 2 * s->hidden, 0);
    free(fc);
    random_tensor(w, "mtp.", "norm.weight", 0.1f, 0.25f, s->hidden, 0, 0);
    random_tensor(w, "mtp.", "pre_fc_norm_embedding.weight", -0.7f, 0.25f, s->hidden, 0, 0);
    random_tensor(w, "mtp.", "pre_fc_norm_hidden.weight", -0.5f, 0.25f, s->hidden, 0, 0);
    add_norms(w, "mtp.layers.0.", s);
    add_attention(w, "mtp.layers.0.", s);
    add_mlp(w, "mtp.layers.0.", s, 0.6f);
}

static void write_config(const char *folder, const tiny_shape *s)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "w");
    check(f != NULL);
    const int pairs = s->head_dim / 4 / 2;
    fprintf(f, "{\"architectures\": [\"%s\"], \"model_type\": \"%s\", \"tie_word_embeddings\": %s, \"text_config\": {",
            s->n_experts ? "Qwen3_5MoeForConditionalGeneration" : "Qwen3_5ForConditionalGeneration",
            s->n_experts ? "qwen3_5_moe" : "qwen3_5", s->tied ? "true" : "false");
    fprintf(f, "\"hidden_size\": %d, \"num_hidden_layers\": %d, \"full_attention_interval\": %d, \"vocab_size\": %d, "
               "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, "
               "\"linear_num_key_heads\": %d, \"linear_num_value_heads\": %d, \"linear_key_head_dim\": %d, "
               "\"linear_value_head_dim\": %d, \"linear_conv_kernel_dim\": 4, ",
            s->hidden, s->layers, s->interval, s->vocab, s->n_heads, s->n_kv_heads, s->head_dim, s->n_k_heads,
            s->n_v_heads, s->d_k, s->d_v);
    if (s->n_experts)
        fprintf(f, "\"num_experts\": %d, \"num_experts_per_tok\": %d, \"moe_intermediate_size\": %d, "
                   "\"shared_expert_intermediate_size\": %d, ", s->n_experts, s->n_used, s->expert_ffn, s->shared_ffn);
    else
        fprintf(f, "\"intermediate_size\": %d, ", s->ffn);
    fprintf(f, "\"rms_norm_eps\": 1e-06, \"hidden_act\": \"silu\", \"attn_output_gate\": true, "
               "\"max_position_embeddings\": 4096, \"mtp_num_hidden_layers\": %d, \"tie_word_embeddings\": %s, "
               "\"eos_token_id\": %d, \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 10000000, "
               "\"partial_rotary_factor\": 0.25, \"mrope_interleaved\": true, \"mrope_section\": [%d, %d, %d]}}}\n",
            s->mtp, s->tied ? "true" : "false", s->vocab - 1, pairs - 2 * (pairs / 3), pairs / 3, pairs / 3);
    fclose(f);
}

void tiny_write(const char *folder, const tiny_shape *s)
{
    write_config(folder, s);
    writer w = { .bf16 = s->bf16 };
    append(&w, "{");
    add_model(&w, s);
    append(&w, "}");
    while (w.used % 8)
        append(&w, " ");
    char path[4096];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    FILE *f = fopen(path, "wb");
    check(f != NULL);
    const uint64_t n = w.used;
    fwrite(&n, 8, 1, f);
    fwrite(w.header, 1, w.used, f);
    fwrite(w.data, 1, w.bytes, f);
    check(fclose(f) == 0);
    free(w.header), free(w.data);
}

tiny_shape tiny_random_shape(void)
{
    const int kv = rnd_int(1, 3), keys = rnd_int(1, 3);
    tiny_shape s = { .hidden = 8 * rnd_int(3, 8), .layers = rnd_int(2, 5), .interval = rnd_int(2, 4),
                     .vocab = rnd_int(60, 200), .n_kv_heads = kv, .n_heads = kv * rnd_int(1, 3),
                     .head_dim = 24 * rnd_int(1, 3), .n_k_heads = keys, .n_v_heads = keys * rnd_int(1, 3),
                     .d_k = 8 * rnd_int(1, 4), .d_v = 8 * rnd_int(1, 4), .ffn = 8 * rnd_int(3, 12),
                     .tied = rnd_int(0, 2) == 0, .mtp = true, .bf16 = rnd_int(0, 1) };
    if (rnd_int(0, 1)) {
        s.n_experts = rnd_int(3, 9);
        s.n_used = rnd_int(1, s.n_experts);
        s.expert_ffn = 8 * rnd_int(1, 4);
        s.shared_ffn = 8 * rnd_int(1, 4);
    }
    return s;
}

const char *tiny_model(tiny_shape *shape)
{
    static char paths[8][4096];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/tiny-%d", temp_dir(), next);
    check(mkdir(path, 0700) == 0);
    *shape = tiny_random_shape();
    tiny_write(path, shape);
    return path;
}
