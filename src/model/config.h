/* config.h - the sizes of one checkpoint of the family, whatever container they came from.
 *
 * Read from config.json (wrapped in text_config or flat) or from GGUF metadata; docs/model.md gives
 * the meaning of every field and docs/formats.md where each one is found. By shape, never by
 * product name. A field that changes the mathematics and is not understood is an error. */
#ifndef BW_MODEL_CONFIG_H
#define BW_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { BW_MAX_LAYERS = 1024, BW_MAX_ROTARY_PAIRS = 256, BW_MAX_EOS = 16 };

typedef struct bw_checkpoint bw_checkpoint;

typedef struct bw_rope {
    int n_pairs;                           /* dims j and j + n_pairs turn together; 32 */
    float inv_freq[BW_MAX_ROTARY_PAIRS];   /* radians per position, YaRN included */
    unsigned char axis[BW_MAX_ROTARY_PAIRS]; /* 0 T, 1 H, 2 W: the axis of each pair (M-RoPE) */
    float magnitude;                       /* multiplies cos and sin: 1, or YaRN's */
} bw_rope;

/* Sampling defaults of the checkpoint (generation_config.json, general.sampling.*). NAN or -1 where
 * the checkpoint says nothing. */
typedef struct bw_sampling_defaults {
    float temperature, top_p, min_p, presence_penalty, frequency_penalty, repetition_penalty;
    int top_k;
    int eos[BW_MAX_EOS]; /* stop tokens, in the checkpoint's order */
    int n_eos;
} bw_sampling_defaults;

typedef struct bw_config {
    char architecture[32]; /* "qwen3_5", "qwen3_5_moe", "qwen35", "qwen35moe", as the file says */
    bool moe;
    int hidden;   /* H */
    int n_layers; /* L, the MTP layer not counted */
    int vocab;    /* V: rows of the embedding, tokens or not */
    int max_position;
    float norm_eps;
    bool attention[BW_MAX_LAYERS]; /* layer i is full attention, otherwise Gated DeltaNet */
    int n_attention, n_linear;     /* how many of each */
    /* full attention */
    int n_heads, n_kv_heads, head_dim;
    bw_rope rope;
    /* Gated DeltaNet */
    int n_k_heads, n_v_heads, d_k, d_v, conv_width;
    int conv_dim;        /* 2 n_k_heads d_k + n_v_heads d_v */
    bool v_heads_tiled;  /* key head of value head h: h mod n_k_heads (GGUF), else h div r (HF) */
    /* feed-forward */
    int ffn;                                        /* dense */
    int n_experts, n_experts_used, expert_ffn, shared_ffn; /* mixture of experts */
    bool tied;         /* the config allows the embedding to serve as head */
    int mtp_layers;    /* what the config claims; the tensors decide */
    bw_sampling_defaults sampling;
    bool has_vision;   /* vision tensors or a vision_config are present; text only for now */
} bw_config;

/* Reads *out from the open checkpoint. BW_E_FORMAT: a field is missing, of the wrong type or
 * impossible; BW_E_UNSUPPORTED: another architecture, rope type, gate or bias. err names file and
 * field, what was found and what is understood. */
bw_status bw_config_read(bw_config *out, const bw_checkpoint *checkpoint, bw_error *err);

#endif
