/* ops.h - the operation table: everything the engine computes, as operations on backend memory.
 *
 * A step is a program of these operations, enqueued by the engine and the model in one order, from
 * row tables to accepted tokens and new drafts. Nobody reads a tensor on the host in the middle of
 * it: sampling, acceptance, the commit of the recurrent state and the chain of drafts are operations
 * too, and what one step decides (which draft rows were accepted, the sampled tokens) stays in
 * backend memory where the next operation finds it. A CPU backend runs each at once; a GPU backend
 * enqueues them on its stream and may capture a step as one graph.
 *
 * Rules for every operation of every backend:
 *  - row-invariant: what it writes for a row depends on that row's inputs and its sequence's state
 *    alone, in the same order of operations however many other rows there are;
 *  - a boundary of operations is a barrier: the next one sees all that was written;
 *  - nothing is allocated (bw_ops.reserve did it), nothing fails: shapes are asserted;
 *  - float arithmetic is f32 (sums are f64 at the reference level; so is sampling after the logits).
 *
 * Notation: n rows of the batch, H hidden, V vocabulary, all arrays row-major and contiguous. Every
 * pointer but those to the backend and to structs of arguments, shapes and weights is backend memory.
 * The formulas: docs/model.md. */
#ifndef BW_OPS_OPS_H
#define BW_OPS_OPS_H

#include "base/dtype.h"
#include "base/mem.h"
#include "base/status.h"

enum {
    BW_PAGE = 64,       /* tokens in a KV page */
    BW_GDN_TILE = 16,   /* value columns of the recurrent state stored side by side */
    BW_MAX_BANNED = 16, /* stop tokens of a sequence that must not stop too early */
    BW_MAX_PROJECTIONS = 4
};

typedef struct bw_backend bw_backend;

/* ---- what a step works on -------------------------------------------------------------------- */

/* A matrix [rows, cols] = [out, in] placed by the backend. */
typedef struct bw_weight {
    bw_dtype type; /* as in the file; a backend may have repacked it without loss */
    bool int8;     /* activations are rounded to int8 in groups of 32 before it */
    bool packed;   /* data is in an order of the backend's own, not the file's */
    int rows, cols;
    const void *data;
    void *own;     /* what unplace gives back, or NULL */
} bw_weight;

typedef enum bw_use {
    BW_FOR_PRODUCTS, /* a factor of products */
    BW_FOR_ROWS      /* the table whose rows `embed` reads */
} bw_use;

/* A matrix of a file that is to be placed. */
typedef struct bw_place_args {
    bw_dtype type;
    int rows, cols;
    const void *host; /* as the file has it, no alignment promised; NULL for place_bytes */
    bool int8;        /* round activations; a float matrix and a table of rows never do */
    bw_use use;
    void *room;       /* for the copy: place_bytes of backend memory, 64-byte aligned, that outlive the weight;
                       * NULL: place takes memory, unplace gives it back */
} bw_place_args;

/* A row of the batch: the token at position `pos` of the sequence in `slot`. */
typedef struct bw_row {
    int32_t slot, pos;
} bw_row;

/* Consecutive rows of one sequence. The first n_final rows can never be rejected (prompt, or the
 * token that was already sampled); the others are drafts. At most one span of a slot is in a step. */
typedef struct bw_span {
    int32_t slot;
    int32_t first_row, n_rows, n_final;
    int32_t first_pos;
    int32_t first_logit, n_logits; /* its rows among the logit rows: always the last n_logits rows */
    int32_t sample;                /* 1: sample the logit rows and accept drafts */
} bw_span;

/* How tokens of a slot are sampled. */
typedef struct bw_sampler {
    float temperature, top_p, min_p;
    float presence_penalty, frequency_penalty, repetition_penalty;
    int32_t top_k;    /* <= 0: off */
    int32_t n_prompt; /* presence and frequency count positions from here on */
    uint64_t seed;
    int32_t n_logprobs; /* < 0: none wanted */
    int32_t any_row;  /* 1: rows that are no tokens may be chosen too: evaluation of raw outputs */
    int32_t n_biases; /* entries of the slot's row in bw_sequences.biases */
    int32_t min_pos, n_banned; /* banned [n_banned] are not chosen for positions before min_pos */
    int32_t banned[BW_MAX_BANNED];
    /* Positions force_pos .. force_pos + n_force - 1 get force[], whatever the logits; but when the
     * timeline holds force_unless at n_prompt .. force_pos - 1 they are sampled as all others. */
    int32_t force_pos, n_force, force_unless;
    int32_t force[BW_MAX_FORCED];
} bw_sampler;

/* Per slot, in backend memory for the life of the engine. */
typedef struct bw_sequences {
    int n_slots, context;  /* context: positions a timeline has room for, drafts included */
    int max_pages;         /* page table entries of a slot */
    int32_t *tokens;       /* [n_slots, context] the timeline: prompt, answer, current drafts */
    int32_t *pages;        /* [n_slots, max_pages] page id of positions 64 i ... */
    int32_t *accepted;     /* [n_slots] pending rows the last verification accepted */
    bw_sampler *samplers;  /* [n_slots] */
    bw_logit_bias *biases; /* [n_slots, BW_MAX_LOGIT_BIAS] of which samplers[].n_biases count */
} bw_sequences;

/* The part of the vocabulary that drafts are chosen from: ids below n_first, and a list of others for each slot. */
typedef struct bw_draft_vocab {
    int n_first;    /* a multiple of 16, at most n_tokens */
    int room;       /* entries a list may have */
    int32_t *ids;   /* [n_slots, room] ascending, all from n_first on and tokens */
    int32_t *n_ids; /* [n_slots] entries of each */
} bw_draft_vocab;

typedef enum bw_kv_codec { BW_CODEC_F16, BW_CODEC_F32 } bw_kv_codec;

/* The pages of one attention layer: keys, then values, each [n_pages, n_kv_heads, 64, head_dim]
 * in the codec's encoding. */
typedef struct bw_kv_layer {
    bw_kv_codec codec;
    void *k, *v;
} bw_kv_layer;

/* The recurrent state of one Gated DeltaNet layer. state never holds a row that may still be
 * rejected: draft rows stay outside as `pending` until the next step applies the accepted ones. */
typedef struct bw_gdn_state {
    int max_pending;
    float *state;   /* [n_slots, n_v_heads, ceil(d_v / 16), d_k, 16]; columns past d_v are zero */
    float *window;  /* [n_slots, conv_width - 1, conv_dim] last committed conv inputs, oldest first */
    float *pending; /* [n_slots, max_pending, conv_dim + 2 n_v_heads]: qkv row, then a, then b */
} bw_gdn_state;

typedef struct bw_attn_shape {
    int n_heads, n_kv_heads, head_dim;
    float eps;             /* of the q and k norms */
    int n_pairs;           /* rotary: dims j and j + n_pairs turn together */
    const float *inv_freq; /* [n_pairs], HOST memory, lives as long as the model */
    float magnitude;       /* of cos and sin */
} bw_attn_shape;

typedef struct bw_gdn_shape {
    int n_k_heads, n_v_heads, d_k, d_v, conv_width, conv_dim;
    bool v_heads_tiled; /* key head of value head h: h mod n_k_heads, else h div (n_v / n_k) */
    float eps;          /* of the output norm */
} bw_gdn_shape;

typedef struct bw_moe_shape {
    int n_experts, n_used, ffn, shared_ffn;
} bw_moe_shape;

/* Weights of an expert: gate and up [ffn, H], down [H, ffn]. */
typedef struct bw_expert {
    bw_weight gate, up, down;
} bw_expert;

/* ---- arguments of the larger operations ------------------------------------------------------ */

/* Norms q and k, turns them, writes k and v into the pages, attends to positions 0 .. pos of the
 * row's sequence, gates. Rows of a step see each other through the pages.
 *   q_gate [n, n_heads, 2, head_dim]  query, then gate, per head; NULL: only write k and v
 *   k, v   [n, n_kv_heads, head_dim]  NULL: they are in the pages already
 *   out    [n, n_heads, head_dim]
 *   out = softmax(rope(norm(q)) . rope(norm(k)) / sqrt(head_dim)) v * sigmoid(gate) */
typedef struct bw_attn_args {
    const bw_attn_shape *shape;
    const bw_sequences *seqs;
    const bw_row *rows;
    int n_rows;
    bw_kv_layer kv;
    const float *q_norm, *k_norm; /* [head_dim] multipliers */
    const float *q_gate, *k, *v;
    float *out;
} bw_attn_args;

/* Causal convolution with SiLU over q, k and v, the delta rule, the gated norm. For every span, in
 * this order: (a) the accepted pending rows of its slot (seqs->accepted), (b) its final rows, then
 * the state is stored, (c) its draft rows, which are not stored but become the pending rows.
 *   qkv [n, conv_dim]  a, b [n, n_v_heads]  z [n, n_v_heads, d_v]  out [n, n_v_heads, d_v]
 *   c = silu(conv(qkv));  q = l2(c_q) / sqrt(d_k), k = l2(c_k), l2(x) = x / sqrt(sum x^2 + 1e-6)
 *   beta = sigmoid(b);  g = exp(decay * softplus(a + dt_bias))
 *   S <- g S;  d = beta (v - S^T k);  S <- S + k d^T;  y = S^T q
 *   out = rms_norm(y) * norm * silu(z) */
typedef struct bw_gdn_args {
    const bw_gdn_shape *shape;
    const bw_sequences *seqs;
    const bw_span *spans;
    int n_spans, n_rows;
    bw_gdn_state state;
    const float *conv;            /* [conv_dim, conv_width] */
    const float *decay, *dt_bias; /* [n_v_heads] */
    const float *norm;            /* [d_v] */
    const float *qkv, *a, *b, *z;
    float *out;
} bw_gdn_args;

/* x += mixture of experts of rms_norm(x): softmax over the router's logits, the n_used largest
 * (ties: lower index), renormalised, summed in order of rank; plus sigmoid(shared_gate . norm(x))
 * times the shared expert. */
typedef struct bw_moe_args {
    const bw_moe_shape *shape;
    const float *norm; /* [H] */
    float eps;
    bw_weight router;         /* [n_experts, H] */
    const bw_expert *experts; /* [n_experts], HOST memory */
    bw_expert shared;
    const float *shared_gate; /* [H] */
    float *x;                 /* [n, H] in and out */
    int n_rows;
} bw_moe_args;

/* Chooses a token for every logit row. Row i belongs to rows[i]; it predicts the token at position
 * p = rows[i].pos + ahead, from the timeline up to p - 1 (penalties look at drafts there too).
 * The sampler of rows[i].slot, in this order: forced tokens end it here; biases; repetition penalty over
 * positions 0 .. p - 1, presence and frequency over n_prompt .. p - 1; banned ids; temperature; top-k;
 * top-p; min-p; then the largest of log-probability + Gumbel noise of (seed, p, id) (docs/sampling.md).
 * Ids from n_tokens on, and holes, are never chosen, unless the sampler says any_row. Temperature 0: the
 * largest, ties to the lower id. All of it is a function of sampler, biases, p, timeline before p, logits.
 * tokens [n] out. logprobs [n] and top [n, max_top] (id and value, most probable first; ties to the
 * lower id): natural logarithms of the softmax of the raw logits over ids below n_tokens; written
 * for rows whose sampler asks for n_logprobs >= 0 (top: that many). May be NULL.
 * damaged [n] (may be NULL): 1 where the row holds a value that is not finite, which whole weights
 * never give; a token is chosen all the same, so that the step can go on to its end. */
typedef struct bw_sample_args {
    const bw_sequences *seqs;
    const bw_row *rows;
    int n_rows;
    int ahead;           /* 1 for the model, 2 for the MTP head */
    const float *logits; /* [n, vocab] */
    int vocab, n_tokens;
    /* NULL: all ids. Otherwise logits [n, n_first + room] are those of project_draft, any other token counts as
     * impossible (any_row frees holes alone), and nobody asks for damage or log-probabilities. */
    const bw_draft_vocab *only;
    const int32_t *holes; /* [n_holes] ids below n_tokens that are no tokens either */
    int n_holes;
    int32_t *tokens;
    int32_t *damaged;
    float *logprobs;
    bw_logprob *top;
    int max_top;
} bw_sample_args;

/* How probable a known token was: out[i] = log softmax(logits[i], all of vocab) at the timeline's token after
 * rows[i]; nothing known there gives something, which nobody reads. top [n, max_top] (NULL: nobody wants it): the
 * most probable ids below n_tokens and their values, most probable first, as many as the row's sampler asks for
 * with n_logprobs. */
typedef struct bw_score_args {
    const bw_sequences *seqs;
    const bw_row *rows;
    int n_rows;
    const float *logits; /* [n, vocab] */
    int vocab, n_tokens;
    float *out;
    bw_logprob *top;
    int max_top;
} bw_score_args;

/* For every span with sample = 1: let r0 be the row of its first logit, or its last final row if that
 * comes later (an evaluation wants logits of prompt rows too), and s[i] the token sampled for row
 * r0 + i. a = the largest number such that s[i] equals the timeline's token after row r0 + i for all
 * i < a (r0 + a is a row of the span). Then writes s[a] into the timeline after row r0 + a,
 * seqs->accepted[slot] = a, n_accepted[span] = a. For the other spans: accepted[slot] = 0,
 * n_accepted[span] = 0.
 * A measurement may impose acceptance (src/engine/simulate.h): where imposed[span] >= 0, a is that number, but not
 * more than rows follow r0, and the s[i] of the accepted drafts become the timeline's tokens, as if these
 * had been sampled.
 * Then, for i < n_draft_spans with span index s = draft_spans[i]: draft_index[i] = the batch row of
 * the last accepted token's predecessor (r0 + a), draft_rows[i] = that row's slot and position. */
typedef struct bw_accept_args {
    bw_sequences *seqs;
    const bw_span *spans;
    int n_spans;
    int32_t *sampled;       /* [all logit rows]; written only where acceptance is imposed */
    const int32_t *imposed; /* [n_spans], negative: compare. NULL: compare everywhere */
    int32_t *n_accepted;    /* [n_spans] */
    const int32_t *draft_spans;
    int n_draft_spans;
    int32_t *draft_index;   /* [n_draft_spans] */
    bw_row *draft_rows;     /* [n_draft_spans] */
} bw_accept_args;

/* The largest sizes any operation will see: what scratch memory follows from. */
typedef struct bw_op_limits {
    int max_rows, max_spans, max_logits, max_pending;
    int hidden, max_cols; /* max_cols: the widest input row of any matrix */
    int vocab;
    bw_attn_shape attn;
    bw_gdn_shape gdn;
    bw_moe_shape moe;     /* n_experts 0: dense */
} bw_op_limits;

/* ---- the table ------------------------------------------------------------------------------- */

typedef struct bw_ops {
    const char *name; /* "cpu" */

    void (*destroy)(bw_backend *be);

    /* memory; alloc is cleared, NULL when there is none */
    void *(*alloc)(bw_backend *be, size_t bytes, bw_mem_tag tag);
    void (*free)(bw_backend *be, void *block);
    void (*upload)(bw_backend *be, void *dst, const void *host, size_t bytes);
    void (*download)(bw_backend *be, void *host, const void *src, size_t bytes); /* done after sync */
    void (*zero)(bw_backend *be, void *dst, size_t bytes);
    void (*copy)(bw_backend *be, void *dst, const void *src, size_t bytes); /* both backend memory, apart */
    void (*sync)(bw_backend *be); /* the end of a step: the host may look */

    /* Bytes of the copy that place would make; 0: the weight stays in the host's data. note (may be NULL): how
     * this type is multiplied, static text such as "integer dots"; left alone for a table of rows. */
    uint64_t (*place_bytes)(const bw_backend *be, const bw_place_args *args, const char **note);
    /* Takes a matrix. Host data that is not copied must outlive the weight.
     * BW_E_FORMAT: no whole number of blocks in a row. BW_E_MEMORY: none for the copy, where room is NULL. */
    bw_status (*place)(bw_backend *be, bw_weight *out, const bw_place_args *args, bw_error *err);
    void (*unplace)(bw_backend *be, bw_weight *weight);

    /* Scratch for all operations up to these limits; again replaces the old. The bytes a backend of
     * n_threads takes. */
    uint64_t (*reserve_bytes)(const bw_backend *be, const bw_op_limits *limits, int n_threads);
    bw_status (*reserve)(bw_backend *be, const bw_op_limits *limits, bw_error *err);

    /* x[r] = table row of the token at position rows[r].pos + ahead of rows[r].slot */
    void (*embed)(bw_backend *be, float *x, const bw_weight *table, const bw_sequences *seqs, const bw_row *rows,
                  int n_rows, int ahead);
    /* dst[i] = src[index[i]], rows of `width` floats */
    void (*gather)(bw_backend *be, float *dst, const float *src, const int32_t *index, int n, int width);
    /* out = x / sqrt(mean(x^2) + eps) * w */
    void (*norm)(bw_backend *be, float *out, const float *x, const float *w, int n_rows, int width, float eps);
    /* out [n, 2 width] = [norm(a, wa) | norm(b, wb)] */
    void (*norm_pair)(bw_backend *be, float *out, const float *a, const float *wa, const float *b, const float *wb,
                      int n_rows, int width, float eps);
    /* outs[i] [n, weights[i].rows] = weights[i] . norm(x, w); w NULL: of x itself. n_out <= 4 */
    void (*project)(bw_backend *be, const float *x, int n_rows, const float *w, float eps, const bw_weight *weights,
                    float *const *outs, int n_out);
    /* out [n, only->n_first + only->room] = those columns of `project` with the head that only names for the slot
     * of rows[i]: the same bits. What lies past the end of a list is not written. */
    void (*project_draft)(bw_backend *be, float *out, const float *x, const bw_row *rows, int n_rows,
                          const bw_weight *head, const bw_draft_vocab *only);
    /* y [n, rows] += weight . x */
    void (*project_add)(bw_backend *be, float *y, const bw_weight *weight, const float *x, int n_rows);
    /* out [n, ffn] = silu(gate . norm(x, w)) * (up . norm(x, w)) */
    void (*ffn_up)(bw_backend *be, float *out, const float *x, int n_rows, const float *w, float eps,
                   const bw_weight *gate, const bw_weight *up);
    void (*attention)(bw_backend *be, const bw_attn_args *args);
    void (*gdn)(bw_backend *be, const bw_gdn_args *args);
    void (*moe)(bw_backend *be, const bw_moe_args *args);

    void (*sample)(bw_backend *be, const bw_sample_args *args);
    void (*accept)(bw_backend *be, const bw_accept_args *args);
    /* The draft chain: tokens[slot, pos + 2] = sampled[i] for every row, then pos += 1. */
    void (*push_drafts)(bw_backend *be, bw_sequences *seqs, bw_row *rows, const int32_t *sampled, int n_rows);
    void (*score)(bw_backend *be, const bw_score_args *args);
} bw_ops;

struct bw_backend { /* first member of every backend's own struct */
    const bw_ops *ops;
    int n_threads;
    const char *level; /* "avx512": the level in use */
};

/* The CPU backend. level NULL: $BW_CPU, else the best this processor runs.
 * BW_E_ARGUMENT: no such level, or it cannot run here (the message lists those that can). */
bw_status bw_cpu_backend_create(bw_backend **out, int n_threads, const char *level, bw_error *err);
void bw_cpu_backend_pin(bw_backend *be); /* its workers stay on a processor each: bw_pool_pin */
void bw_cpu_backend_end_workers(bw_backend *be); /* the caller's thread alone from now on; before reserve */

/* Bytes of the arrays above, for the memory plan. */
uint64_t bw_kv_layer_page_bytes(bw_kv_codec codec, const bw_attn_shape *shape); /* k and v of one page */
uint64_t bw_gdn_slot_bytes(const bw_gdn_shape *shape, int max_pending);         /* one slot of one layer */

#endif
