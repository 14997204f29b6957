/* tiny_model.h - random checkpoints of random shapes, written as a Hugging Face folder. */
#ifndef BW_TESTS_TINY_MODEL_H
#define BW_TESTS_TINY_MODEL_H

#include <stdbool.h>

typedef struct tiny_shape {
    int hidden, layers, interval, vocab;
    int n_heads, n_kv_heads, head_dim;
    int n_k_heads, n_v_heads, d_k, d_v;
    int ffn;
    int n_experts, n_used, expert_ffn, shared_ffn; /* n_experts 0: dense */
    bool tied, mtp, bf16;
} tiny_shape;

tiny_shape tiny_random_shape(void);
/* Writes config.json and model.safetensors into `folder`, which exists. Weights come from rnd_*; the
 * MTP head passes the embedding through, and the model's head is a shuffled copy of the embedding,
 * so that drafts are sometimes right. */
void tiny_write(const char *folder, const tiny_shape *shape);
/* A fresh folder under temp_dir() with a random model; static buffer of 8. */
const char *tiny_model(tiny_shape *shape);

#endif
