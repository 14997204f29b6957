/* net.h - a checkpoint placed on a backend: what the forward pass multiplies with.
 *
 * Immutable once made and shared by every engine on this kind of backend. Matrices are placed: in the
 * order that the backend's kernels read (all in one block of its memory), or, where they read that of
 * the file, where they are in the mapped file. Vectors are copied to backend memory. Knows no thread,
 * socket or file, but for telling the checkpoint which of its bytes were copied. */
#ifndef BW_MODEL_NET_H
#define BW_MODEL_NET_H

#include "base/readahead.h"
#include "model/config.h"
#include "model/weights.h"
#include "ops/ops.h"

typedef struct bw_net_layer {
    bool attention;
    const float *input_norm, *post_norm;
    struct {
        bw_weight q, k, v, o;
        const float *q_norm, *k_norm;
    } attn;
    struct {
        bw_weight qkv, z, a, b, out;
        const float *conv, *decay, *dt_bias, *norm;
    } gdn;
    bw_expert ffn; /* dense */
    struct {
        bw_weight router;
        bw_expert *experts; /* [n_experts] host memory */
        bw_expert shared;
        const float *shared_gate;
    } moe;
} bw_net_layer;

typedef struct bw_net {
    const bw_config *config;
    bw_backend *backend; /* the one that placed; engines compute on their own of the same kind */
    bw_attn_shape attn;
    bw_gdn_shape gdn;
    bw_moe_shape moe;
    bw_weight embed, head;
    const float *final_norm;
    bw_net_layer *layers; /* [n_layers] */
    bool has_mtp;
    struct {
        bw_weight fc;
        const float *norm_embedding, *norm_hidden, *norm;
        bw_net_layer layer;
    } mtp;
    bool int8;                              /* some matrix rounds its activations */
    const char *type_note[BW_DTYPE_COUNT];  /* how each type present is multiplied, or NULL */
    struct bw_net_vectors *vectors;         /* what release frees */
    bool placed;                            /* false: there is nothing to compute with, only to plan with */
    void *packed;                           /* the matrices' copies, one after another */
    uint64_t packed_bytes, packed_from;     /* of the copies; of the file's bytes that nobody reads any more */
    double pack_s;                          /* time it took to copy them */
} bw_net;

/* Who brings the matrices into memory before they are placed, in the order of their files. */
typedef struct bw_net_source {
    void *arg;
    /* Asked first: are matrices that stay in the files, `kept` bytes, read too, beside copies of so many bytes? */
    bool (*reads_kept)(void *arg, uint64_t kept, uint64_t copies);
    /* The matrices' bytes; none of those that are not to be read. */
    bw_status (*begin)(void *arg, const bw_range *order, size_t n, bw_error *err);
    bw_status (*need)(void *arg, size_t i, bw_error *err); /* order[i] is placed next */
    void (*placed)(void *arg, size_t i);
} bw_net_source;

typedef struct bw_net_options {
    bool int8;      /* quantised matrices round their activations to int8 (a float matrix never does) */
    bool plan_only; /* counts what would be placed, reads and copies nothing */
    const bw_net_source *source; /* NULL: matrices are read when they are touched */
    const bw_checkpoint *checkpoint; /* what the weights were resolved from; NULL: nobody is told what was copied */
    bool in_memory; /* the checkpoint is memory, not files: what is copied of it comes free again */
    void (*progress)(void *arg, double done); /* from 0 to 1 over the matrices' bytes; may be NULL */
    void *progress_arg;
} bw_net_options;

/* Borrows config, weights and backend until destroy. BW_E_MEMORY: the copies do not fit the free memory; err
 * names both sizes. On failure *out is NULL. */
bw_status bw_net_create(bw_net **out, const bw_config *config, const bw_weights *weights, bw_backend *backend,
                        const bw_net_options *options, bw_error *err);
void bw_net_destroy(bw_net *net); /* takes NULL */

/* The largest sizes a step of this net brings, for bw_ops.reserve. */
bw_op_limits bw_net_limits(const bw_net *net, int max_rows, int max_spans, int max_logits, int max_pending);

/* KV layers: the full-attention layers in order, then the MTP layer if there is one. */
int bw_net_kv_layers(const bw_net *net, bool with_mtp);

#endif
