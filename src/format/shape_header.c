/* shape_header.c - writes GGUF metadata into memory (docs/formats.md). */
#include "format/shape_header.h"

#include <json.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 }; /* value types of the format */
enum { KEY_COUNT_AT = 16 };

typedef struct header {
    unsigned char *data;
    size_t n, room;
    bool failed; /* out of memory; everything after it is dropped */
    const char *arch;
    uint64_t n_keys;
} header;

/* ---- bytes --------------------------------------------------------------------------------------- */

static void put(header *h, const void *bytes, size_t n)
{
    if (h->failed || n == 0)
        return;
    if (n > h->room - h->n) {
        const size_t room = 2 * (h->room + n);
        unsigned char *grown = bw_mem_realloc(h->data, room, BW_MEM_MISC);
        if (!grown) {
            h->failed = true;
            return;
        }
        h->data = grown;
        h->room = room;
    }
    memcpy(h->data + h->n, bytes, n);
    h->n += n;
}

static void put_u32(header *h, uint32_t x)
{
    put(h, &x, sizeof x);
}

static void put_u64(header *h, uint64_t x)
{
    put(h, &x, sizeof x);
}

static void put_string(header *h, const char *text)
{
    put_u64(h, strlen(text));
    put(h, text, strlen(text));
}

/* ---- keys ---------------------------------------------------------------------------------------- */

static void put_key(header *h, const char *key, uint32_t type)
{
    char full[128];
    const bool whole = strncmp(key, "general.", 8) == 0 || strncmp(key, "tokenizer.", 10) == 0;
    snprintf(full, sizeof full, "%s%s%s", whole ? "" : h->arch, whole ? "" : ".", key);
    put_string(h, full);
    put_u32(h, type);
    h->n_keys++;
}

static void put_int(header *h, const char *key, int value)
{
    put_key(h, key, U32);
    put_u32(h, (uint32_t)value);
}

static void put_float(header *h, const char *key, double value)
{
    float x = (float)value;
    put_key(h, key, F32);
    put(h, &x, sizeof x);
}

static void put_text(header *h, const char *key, const char *value)
{
    put_key(h, key, STRING);
    put_string(h, value);
}

static void put_array(header *h, const char *key, uint32_t type, size_t n)
{
    put_key(h, key, ARRAY);
    put_u32(h, type);
    put_u64(h, n);
}

/* A pair is written as one text with a space in it. */
static void put_merge(header *h, json_object *merge)
{
    if (json_object_is_type(merge, json_type_string)) {
        put_string(h, json_object_get_string(merge));
        return;
    }
    const char *left = json_object_get_string(json_object_array_get_idx(merge, 0));
    const char *right = json_object_get_string(json_object_array_get_idx(merge, 1));
    put_u64(h, strlen(left) + 1 + strlen(right));
    put(h, left, strlen(left));
    put(h, " ", 1);
    put(h, right, strlen(right));
}

static void put_words(header *h, const bw_shape_words *w)
{
    put_text(h, "tokenizer.ggml.model", "gpt2");
    put_text(h, "tokenizer.ggml.pre", "qwen35");
    put_array(h, "tokenizer.ggml.tokens", STRING, (size_t)w->n);
    for (int i = 0; i < w->n; i++) {
        char none[32];
        snprintf(none, sizeof none, "[PAD%d]", i);
        put_string(h, w->texts[i] ? w->texts[i] : none);
    }
    put_array(h, "tokenizer.ggml.token_type", I32, (size_t)w->n);
    for (int i = 0; i < w->n; i++)
        put_u32(h, w->texts[i] ? w->types[i] : BW_WORD_UNUSED);
    const size_t n_merges = json_object_array_length(w->merges);
    put_array(h, "tokenizer.ggml.merges", STRING, n_merges);
    for (size_t i = 0; i < n_merges; i++)
        put_merge(h, json_object_array_get_idx(w->merges, i));
    put_int(h, "tokenizer.ggml.eos_token_id", w->end_of_turn);
    put_text(h, "tokenizer.chat_template", w->chat_template);
}

static void put_layers(header *h, const bw_shape *s, int n_layers)
{
    put_int(h, "full_attention_interval", s->interval);
    put_array(h, "attention.recurrent_layers", BOOL, (size_t)n_layers);
    for (int i = 0; i < n_layers; i++)
        put(h, &(unsigned char){ bw_shape_is_linear(s, i) }, 1);
}

static void put_ffn(header *h, const bw_shape *s)
{
    if (!s->moe) {
        put_int(h, "feed_forward_length", s->ffn);
        return;
    }
    put_int(h, "expert_count", s->experts);
    put_int(h, "expert_used_count", s->experts_used);
    put_int(h, "expert_feed_forward_length", s->expert_ffn);
    put_int(h, "expert_shared_feed_forward_length", s->shared_ffn);
}

static void put_metadata(header *h, const bw_shape_plan *p, const char *name, const bw_shape_words *words)
{
    const bw_shape *s = &p->shape;
    put_text(h, "general.architecture", h->arch);
    put_text(h, "general.type", "model");
    put_text(h, "general.name", name);
    put_int(h, "general.quantization_version", 2);
    put_int(h, "block_count", s->layers + p->mtp);
    if (p->mtp)
        put_int(h, "nextn_predict_layers", 1);
    put_int(h, "context_length", s->context);
    put_int(h, "embedding_length", s->hidden);
    put_int(h, "attention.head_count", s->heads);
    put_int(h, "attention.head_count_kv", s->kv_heads);
    put_int(h, "attention.key_length", s->head_dim);
    put_int(h, "attention.value_length", s->head_dim);
    put_float(h, "attention.layer_norm_rms_epsilon", s->eps);
    put_int(h, "rope.dimension_count", s->rotary);
    put_float(h, "rope.freq_base", s->theta);
    put_array(h, "rope.dimension_sections", I32, 4);
    for (int i = 0; i < 4; i++)
        put_u32(h, i < 3 ? (uint32_t)s->section[i] : 0);
    put_int(h, "ssm.conv_kernel", s->conv);
    put_int(h, "ssm.state_size", s->d_k);
    put_int(h, "ssm.group_count", s->k_heads);
    put_int(h, "ssm.time_step_rank", s->v_heads);
    put_int(h, "ssm.inner_size", s->v_heads * s->d_v);
    put_layers(h, s, s->layers + p->mtp);
    put_ffn(h, s);
    put_int(h, "vocab_size", s->vocab);
    if (words)
        put_words(h, words);
    else
        put_text(h, "tokenizer.ggml.model", "no_vocab");
}

/* ---- the whole ----------------------------------------------------------------------------------- */

static uint32_t gguf_type(bw_dtype type)
{
    static const uint32_t ids[BW_DTYPE_COUNT] = {
        [BW_F32] = 0,   [BW_F16] = 1,   [BW_BF16] = 30, [BW_Q8_0] = 8,  [BW_Q4_0] = 2,  [BW_Q4_1] = 3,  [BW_Q5_0] = 6,   [BW_Q5_1] = 7,
        [BW_IQ4_NL] = 20, [BW_Q2_K] = 10, [BW_Q3_K] = 11, [BW_Q4_K] = 12, [BW_Q5_K] = 13, [BW_Q6_K] = 14, [BW_IQ4_XS] = 23,
    };
    return ids[type];
}

uint64_t bw_shape_padded(uint64_t n)
{
    return (n + BW_SHAPE_ALIGNMENT - 1) / BW_SHAPE_ALIGNMENT * BW_SHAPE_ALIGNMENT;
}

static void put_tensors(header *h, const bw_shape_plan *p)
{
    uint64_t offset = 0;
    for (int i = 0; i < p->n; i++) {
        const bw_shape_tensor *t = &p->tensors[i];
        const uint32_t n_dims = t->ne[2] ? 3 : t->ne[1] ? 2 : 1;
        put_string(h, t->name);
        put_u32(h, n_dims);
        for (uint32_t d = 0; d < n_dims; d++)
            put_u64(h, t->ne[d]);
        put_u32(h, gguf_type(t->type));
        put_u64(h, offset);
        offset += bw_shape_padded(t->bytes);
    }
}

bw_status bw_shape_header(unsigned char **out, size_t *n, const bw_shape_plan *p, const char *name,
                          const bw_shape_words *words, bw_error *err)
{
    static const unsigned char zeros[BW_SHAPE_ALIGNMENT];
    header h = { .arch = p->shape.moe ? "qwen35moe" : "qwen35" };
    put(&h, "GGUF", 4);
    put_u32(&h, 3);
    put_u64(&h, (uint64_t)p->n);
    put_u64(&h, 0); /* the number of keys, once they are counted */
    put_metadata(&h, p, name, words);
    put_tensors(&h, p);
    put(&h, zeros, (size_t)(bw_shape_padded(h.n) - h.n));
    if (h.failed) {
        bw_mem_free(h.data);
        return bw_fail_memory(err, "synthetic header", 2 * h.room);
    }
    memcpy(h.data + KEY_COUNT_AT, &h.n_keys, sizeof h.n_keys);
    *out = h.data;
    *n = h.n;
    return BW_OK;
}
