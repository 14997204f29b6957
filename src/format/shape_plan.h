/* shape_plan.h - which tensors a model of some sizes consists of, as GGUF files of the family name, type and
 * order them. Private to src/format, its tools and tests; synthetic.h makes models of it.
 *
 * Reads a config.json and writes nothing. Sizes are checked before they are multiplied. */
#ifndef BW_FORMAT_SHAPE_PLAN_H
#define BW_FORMAT_SHAPE_PLAN_H

#include "base/dtype.h"
#include "base/status.h"

typedef struct bw_shape {
    int hidden, layers, interval, heads, kv_heads, head_dim, k_heads, v_heads, d_k, d_v, conv, vocab, context;
    int ffn, experts, experts_used, expert_ffn, shared_ffn;
    int rotary, section[3];
    double eps, theta;
    bool moe, tied;
} bw_shape;

/* What values a tensor holds: how they are drawn. */
typedef enum bw_shape_kind { BW_SHAPE_MATRIX, BW_SHAPE_NORM, BW_SHAPE_CONV, BW_SHAPE_DECAY, BW_SHAPE_DT_BIAS } bw_shape_kind;

typedef struct bw_shape_tensor {
    char name[64];
    uint64_t ne[3]; /* in, out, experts; 0: no such dimension */
    bw_dtype type;
    bw_shape_kind kind;
    uint64_t bytes;
} bw_shape_tensor;

typedef struct bw_shape_plan {
    bw_shape shape;
    bool mtp;
    bw_dtype type;
    const char *mix; /* "q4_k_m", "q5_k_m", or NULL: all matrices of `type` */
    bw_shape_tensor *tensors; /* in the order of the file */
    int n;
    bool too_large; /* while it is made */
} bw_shape_plan;

/* The sizes in text [n], a config.json; path is for messages. BW_E_FORMAT: one is missing or impossible. */
bw_status bw_shape_read(bw_shape *shape, const char *path, const char *text, size_t n, bw_error *err);

/* Lists the tensors of `shape`, matrices in the type or mix of that name; plan->tensors is the caller's to free
 * with bw_shape_plan_fini. BW_E_ARGUMENT: no such type. BW_E_LIMIT: sizes whose bytes cannot be counted. */
bw_status bw_shape_plan_init(bw_shape_plan *plan, const bw_shape *shape, const char *type, bool mtp, bw_error *err);
void bw_shape_plan_fini(bw_shape_plan *plan); /* takes a zeroed one */

/* Whether a layer is recurrent. */
bool bw_shape_is_linear(const bw_shape *shape, int layer);

#endif
