/* weights.h - every tensor of a checkpoint matched to its place in the model.
 *
 * Matrices are not touched: a bw_matrix is a borrowed view of the mapped file, and net.h copies it if
 * the backend wants another order. Vectors are small and read by everybody: they are converted to f32 here, with
 * the conventions of the container undone, so that nobody above needs to know which container it
 * was. Lives as long as the checkpoint it was resolved from.
 *
 * What the vectors hold:
 *   norms          the multiplier itself: 1 + w for HF, as stored for GGUF and MLX re-saves
 *   gdn.norm       w, in every container
 *   gdn.decay          -exp(A_log) <= 0, as GGUF stores it
 *   gdn.conv       [conv_dim, conv_width], tap conv_width - 1 meets the current row
 * Value heads keep the file's order; bw_config.v_heads_tiled says which that is. */
#ifndef BW_MODEL_WEIGHTS_H
#define BW_MODEL_WEIGHTS_H

#include "base/dtype.h"
#include "model/config.h"

typedef struct bw_matrix {
    bw_dtype type;
    int rows, cols;   /* [out, in] */
    const void *data; /* rows x bw_dtype_row_bytes(type, cols), no alignment promised */
} bw_matrix;

static inline uint64_t bw_matrix_bytes(const bw_matrix *m)
{
    return (uint64_t)m->rows * bw_dtype_row_bytes(m->type, (uint64_t)m->cols);
}

/* Full attention; also the MTP layer. q holds, per head, head_dim query rows then head_dim gate
 * rows. */
typedef struct bw_attention_weights {
    bw_matrix q, k, v, o;
    const float *q_norm, *k_norm; /* [head_dim] */
} bw_attention_weights;

typedef struct bw_gdn_weights {
    bw_matrix qkv, z, a, b, out;       /* qkv rows: all q, all k, all v */
    const float *conv;                 /* [conv_dim, conv_width] */
    const float *decay, *dt_bias;      /* [n_v_heads]; decay = -exp(A_log) */
    const float *norm;                 /* [d_v] */
} bw_gdn_weights;

typedef struct bw_ffn_weights { /* dense, or one expert */
    bw_matrix gate, up, down;
} bw_ffn_weights;

typedef struct bw_moe_weights {
    bw_matrix router;               /* [n_experts, H] */
    const bw_ffn_weights *experts;  /* [n_experts]; all experts of a layer share types */
    bw_ffn_weights shared;
    const float *shared_gate;       /* [H] */
} bw_moe_weights;

typedef struct bw_layer_weights {
    const float *input_norm, *post_norm; /* [H]; post_norm is the one before the MLP */
    bw_attention_weights attention;      /* if config->attention[i], or the MTP layer */
    bw_gdn_weights gdn;                  /* otherwise */
    bw_ffn_weights ffn;                  /* if !config->moe */
    bw_moe_weights moe;                  /* otherwise */
} bw_layer_weights;

typedef struct bw_mtp_weights {
    bw_matrix fc;                        /* [H, 2H]; input = [embedding | hidden] */
    const float *norm_embedding, *norm_hidden, *norm; /* [H] */
    bw_layer_weights layer;
} bw_mtp_weights;

typedef enum bw_mtp_state {
    BW_MTP_ABSENT,   /* no tensor of the head: the model runs without drafts */
    BW_MTP_COMPLETE, /* all found, understood and of the right shape */
    BW_MTP_BROKEN    /* some missing, misshapen or unreadable; mtp_problem says which */
} bw_mtp_state;

typedef struct bw_weights {
    bw_matrix embed, head;       /* [V, H]; the same view when tied */
    const float *final_norm;     /* [H] */
    bw_layer_weights *layers;    /* [n_layers] */
    bw_mtp_state mtp_state;
    bw_mtp_weights mtp;          /* if BW_MTP_COMPLETE */
    char mtp_problem[1024];      /* if not: exactly what is missing and what that means */
    int mtp_found, mtp_expected; /* logical tensors that can be used, of 15 (dense) or 19 (with experts) */
    uint64_t matrix_bytes, vector_bytes;
    void *owned;                 /* what bw_weights_release frees */
} bw_weights;

/* Matches every tensor of the checkpoint. Warnings (unused tensors, a doubtful convention) go to
 * the log. ignore_mtp: a broken head is reported as BW_MTP_BROKEN instead of an error.
 * BW_E_FORMAT: missing, misshapen or unknown tensors, each named with what was found and expected.
 * BW_E_UNSUPPORTED: a packing or type that is not understood. On failure *out is zeroed. */
bw_status bw_weights_resolve(bw_weights *out, const bw_config *config, const bw_checkpoint *checkpoint,
                             bool ignore_mtp, bw_error *err);
void bw_weights_release(bw_weights *weights);

/* Bytes of the matrices that a plain step of one row reads: all layers and the output head; of the experts as many as
 * a token chooses; of the embedding (unless it is the output head) and of the MTP head nothing. */
uint64_t bw_weights_step_bytes(const bw_weights *weights, const bw_config *config);

#endif
