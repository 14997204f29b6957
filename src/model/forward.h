/* forward.h - the forward pass of the family, written once as calls to the operation table.
 *
 * Nothing here knows whether a row is prompt, decode or draft, nor looks at a tensor. Pages and
 * slots come in as arguments of operations. Formulas: docs/model.md. */
#ifndef BW_MODEL_FORWARD_H
#define BW_MODEL_FORWARD_H

#include "model/net.h"

/* The rows of one step; pointers are backend memory. */
typedef struct bw_batch {
    bw_sequences *seqs;
    const bw_row *rows;   /* [n_rows] */
    const bw_span *spans; /* [n_spans] */
    int n_rows, n_spans;
    const bw_kv_layer *kv;   /* [full-attention layers, then MTP] */
    const bw_gdn_state *gdn; /* [linear layers] */
} bw_batch;

/* Activations of a step, in backend memory. Made once for the largest step. */
typedef struct bw_activations_buf {
    float *x;      /* [max_rows, H] residual stream; in the MTP pass: the head's input rows */
    float *hidden; /* [max_rows, H] after the final norm: what the head and the MTP head read */
    float *wide[BW_MAX_PROJECTIONS]; /* outputs of the projections of a layer */
    float *mixed;  /* [max_rows, heads or values] output of attention or delta rule */
    float *up;     /* [max_rows, ffn] */
    float *logits; /* [max_logits, V] */
    float *picked; /* [max_logits, H] hidden rows gathered for the head */
    float *draft;  /* [max_spans, H] MTP rows that draft */
    float *recycled; /* [max_spans, H] after mtp.norm: input of the next draft */
} bw_activations_buf;

uint64_t bw_activations_bytes(const bw_net *net, const bw_op_limits *limits);
/* BW_E_MEMORY names the bytes; *out is then empty. */
bw_status bw_activations_create(bw_activations_buf *out, const bw_net *net, bw_backend *be, const bw_op_limits *limits,
                                bw_error *err);
void bw_activations_destroy(bw_activations_buf *buf, bw_backend *be);

/* Embedding, layers, final norm: fills buf->hidden for all rows, writes KV and recurrent state. */
void bw_forward(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf);

/* buf->logits[i] = head . hidden[index[i]], i < n <= max_logits. */
void bw_forward_logits(const bw_net *net, bw_backend *be, bw_activations_buf *buf, const int32_t *index, int n);

/* MTP, after the step's tokens were accepted: writes the head's keys and values for every row of
 * the batch from its true hidden and the token that now follows it (so warm-up, and repair of what
 * the last chain wrote, are the same thing; rows past the accepted ones are overwritten by the next
 * step). Leaves the head's input rows in buf->x. */
void bw_forward_mtp_rows(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf);

/* The same for n rows of positions before the batch, whose true hidden rows `hidden` [n, H] were kept: a
 * sequence that goes on from a saved state may be followed by another token there. Before bw_forward. */
void bw_forward_mtp_redo(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf,
                         const float *hidden, const bw_row *rows, int n);

/* Only the recurrent layers' accepted pending rows: the batch's spans have no rows. */
void bw_forward_flush(const bw_net *net, bw_backend *be, const bw_batch *batch);

/* First draft of n rows whose index in the batch is index[i], place rows[i]: fills logits ([n, V]; where `only` is
 * given [n, its width], see bw_ops.project_draft) and recycled. After bw_forward_mtp_rows. */
void bw_forward_mtp_first(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf,
                          const int32_t *index, const bw_row *rows, int n, const bw_draft_vocab *only);

/* The next draft: rows[i] has moved on by one and the timeline holds the token drafted after it. */
void bw_forward_mtp_next(const bw_net *net, bw_backend *be, const bw_batch *batch, bw_activations_buf *buf,
                         const bw_row *rows, int n, const bw_draft_vocab *only);

#endif
