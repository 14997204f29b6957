/* cpu.h - the CPU backend inside: its object, its kernels by level, its operations.
 *
 * Two layers. An operation (bw_cpu_attention ...) splits its work into units that own their outputs
 * and runs them on the pool. A kernel (bw_cpu_kernels) does one unit's arithmetic on one thread and
 * exists at every level: the reference is plain scalar code with f64 sums, the others are checked
 * against it. A kernel's result for a row never depends on the other rows it was given. */
#ifndef BW_OPS_CPU_CPU_H
#define BW_OPS_CPU_CPU_H

#include "base/pool.h"
#include "ops/ops.h"

enum { BW_Q8_GROUP = 32 };

/* Rows rounded to int8 in groups of 32: x[c] ~ scale[c / 32] * q, scale = max |x| of the group / 127,
 * q = round to nearest even of x / scale, in -127 .. 127; a group with max |x| < 1.5e-36 (no exact
 * scale in f32) is zero. A NaN makes its group's scale NaN. cols is a multiple of 32. Every level writes
 * the same bits.
 *
 * Rows lie in blocks of 16, so that a tile of rows meets a group in one stretch: group g of row r is entry
 * bw_q8_entry(n, cols, r, g) of the arrays. The last block has what is left of the rows; one row is in plain
 * order. */
typedef struct bw_q8_rows {
    int8_t *q;     /* [entries, 32] */
    float *scale;  /* [entries] */
    int32_t *sum;  /* [entries] of q in the group */
    int32_t *half; /* [entries] of q in the group's first 16 columns */
} bw_q8_rows;

/* Queries of one KV group: row r, at position n_pos - 1 + r of a sequence, sees positions 0 .. n_pos - 1 + r. */
typedef struct bw_attn_queries {
    const float *q; /* [n_rows, n_heads, d], normed and turned */
    int n_rows, n_heads, d, n_pos;
    const bw_kv_layer *kv;
    int n_kv_heads, kv_head;
    const int32_t *pages; /* position p is in pages[p / 64] */
} bw_attn_queries;

/* Where softmaxes stand, one for every query: attention's output is out / sum. */
typedef struct bw_attn_sums {
    float *out;       /* [n, d] */
    float *max, *sum; /* [n] */
} bw_attn_sums;
enum { BW_Q8_BLOCK = 16 };

static inline size_t bw_q8_entry(int n, int cols, int row, int group)
{
    const int block = row / BW_Q8_BLOCK * BW_Q8_BLOCK, in = n - block < BW_Q8_BLOCK ? n - block : BW_Q8_BLOCK;
    return (size_t)block * (size_t)(cols / BW_Q8_GROUP) + (size_t)group * (size_t)in + (size_t)(row - block);
}

/* Rows for some tiles of a head of the delta rule. */
typedef struct bw_delta_rows {
    int d_k, n_tiles, n, n_commit;
    const float *q, *k; /* [d_k] of row r at r * k_stride */
    size_t k_stride;
    const float *v, *g, *beta; /* [n_tiles * 16], the factor of the state, the strength of the update: at r * v_stride */
    size_t v_stride;
    float *y; /* [n_tiles * 16] of row r at r * y_stride, not written for the first n_quiet rows */
    size_t y_stride;
    int n_quiet;
} bw_delta_rows;

typedef struct bw_cpu_kernels {
    /* out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * w */
    void (*rms_norm)(float *out, const float *x, const float *w, int n, int d, float eps);
    /* Rows first .. first + n - 1 of the n_all that `out` holds; x is row `first`. */
    void (*quantize)(const bw_q8_rows *out, int n_all, const float *x, int first, int n, int cols);
    /* y[r * y_stride + o] (+)= sum_c W[first + o][c] * x[r][c], o < n_out, r < n.
     * _float: any type as the file has it, widened to f32. _int8: quantised types, packed if `packs` is set
     * (pack.h; first is then a multiple of 16), else as the file has them; w->packed says the same.
     * scratch: see scratch_bytes. */
    bool packs;
    void (*matmul_float)(float *y, size_t y_stride, const bw_weight *w, int first, int n_out, const float *x, int n,
                         bool add, void *scratch);
    void (*matmul_int8)(float *y, size_t y_stride, const bw_weight *w, int first, int n_out, const bw_q8_rows *x, int n,
                        bool add, void *scratch);
    size_t (*matmul_scratch_bytes)(int max_cols); /* per thread */
    /* out = silu(gate) * up; out may be gate */
    void (*silu_mul)(float *out, const float *gate, const float *up, int n);

    /* --- attention: a query head of a row knows nothing of the others --- */
    /* One head: out = rms_norm(x) * w, then dims j and j + n_pairs turned by cosine[j], sine[j]. */
    void (*norm_rope)(float *out, const float *x, const float *w, int d, float eps, const float *cosine,
                      const float *sine, int n_pairs);
    void (*store_f16)(uint16_t *out, const float *x, int n); /* round to nearest even */
    /* A segment, positions first .. end - 1 (first: the start of a page), for some rows and query heads of
     * one KV group: with s_p = q . K_p / sqrt(d) over the positions a row sees of it, max = the largest s_p,
     * sum = sum_p e^(s_p - max), out = sum_p e^(s_p - max) V_p, positions in order. A row that sees none of
     * them gets max = -inf and zeros. Rows share the loading of a page, not arithmetic.
     * scratch: attn_scratch_bytes of n_rows * n_heads. */
    void (*attend)(const bw_attn_sums *to, const bw_attn_queries *queries, int first, int end, void *scratch);
    size_t (*attn_scratch_bytes)(int n_queries, int d);
    /* Adds the sums of the next segment, `more`, to those of the positions before, both of one query:
     * with m the larger max, out = out e^(max - m) + more.out e^(more.max - m), the sum likewise. */
    void (*attn_merge)(const bw_attn_sums *to, const bw_attn_sums *more, int d);
    /* out = x * scale * sigmoid(gate) */
    void (*sigmoid_mul)(float *out, const float *x, float scale, const float *gate, int n);

    /* --- delta rule: tiles of 16 value columns of one head through some rows, in order --- */
    /* S [n_tiles, d_k, 16] goes through the first n_commit rows; the others run on a copy of a tile in
     * `draft` [d_k, 16], which may be NULL when there are none and holds nothing of use afterwards. Row by row:
     * m = g S^T k;  d = beta (v - m);  S <- g S + k d^T;  y = S^T q */
    void (*delta_rows)(float *S, float *draft, const bw_delta_rows *rows);
    /* out[j] = silu(sum_i w[c][i] * x[i][c]), c = first + j, j < n: x is `width` row pointers */
    void (*conv_silu)(float *out, const float *const *x, const float *w, int width, int first, int n);
    /* out = rms_norm(y) * w * silu(z), one head of d values; out may be y */
    void (*gated_norm)(float *out, const float *y, const float *w, const float *z, int d, float eps);
    /* x *= scale / sqrt(sum x^2 + 1e-6) */
    void (*l2_norm)(float *x, int d, float scale);

    /* --- sampling --- */
    int (*argmax)(const float *x, int n); /* ties: the lower index; NaN never; -1: all are NaN */
    /* sum of exp((x[i] - max) / temperature), x[i] <= max; NaN counts as 0 */
    double (*sum_exp)(const float *x, int n, float max, float temperature);

    /* --- probes: what a thread reaches at this level when it does nothing else, for the benchmark --- */
    /* Reads `bytes` (a multiple of 1024) once, in streams; returns something made of all of them. */
    uint64_t (*probe_read)(const void *data, size_t bytes);
    /* n rounds of the level's best int8 dot (of 3s and 5s), or float multiply-add, on registers, in enough
     * independent chains to keep the units full. Return the multiply-adds done (an int8 product that is added
     * is one); *sink gets a sum of the chains. */
    uint64_t (*probe_int8)(uint64_t n, int32_t *sink);
    uint64_t (*probe_f32)(uint64_t n, float *sink);
} bw_cpu_kernels;

/* Weakest first; a fill function overwrites only what it improves, so no entry is empty. */
void bw_cpu_fill_ref_matmul(bw_cpu_kernels *k);    /* matmul_ref.c: the first group above */
void bw_cpu_fill_ref_mixer(bw_cpu_kernels *k);     /* mixer_ref.c: attention, delta rule, sampling */
void bw_cpu_fill_ref_probe(bw_cpu_kernels *k);     /* probe_ref.c */
void bw_cpu_fill_avx2_norm(bw_cpu_kernels *k);     /* norm_avx2.c: norms, rounding, silu */
void bw_cpu_fill_avx2_matmul(bw_cpu_kernels *k);   /* matmul_avx2.c: products */
void bw_cpu_fill_avx2_packed(bw_cpu_kernels *k);   /* packed_avx2.c: products of packed weights */
void bw_cpu_fill_avx2_mixer(bw_cpu_kernels *k);    /* mixer_avx2.c */
void bw_cpu_fill_avx2_probe(bw_cpu_kernels *k);    /* probe_avx2.c */
void bw_cpu_fill_avxvnni_packed(bw_cpu_kernels *k); /* packed_avxvnni.c */
void bw_cpu_fill_avxvnni_probe(bw_cpu_kernels *k); /* probe_avxvnni.c */
void bw_cpu_fill_avx512_norm(bw_cpu_kernels *k);   /* norm_avx512.c */
void bw_cpu_fill_avx512_matmul(bw_cpu_kernels *k); /* matmul_avx512.c */
void bw_cpu_fill_avx512_packed(bw_cpu_kernels *k); /* packed_avx512.c: products of packed weights */
void bw_cpu_fill_avx512_mixer(bw_cpu_kernels *k);  /* mixer_avx512.c */
void bw_cpu_fill_avx512_probe(bw_cpu_kernels *k);  /* probe_avx512.c */
void bw_cpu_fill_neon_norm(bw_cpu_kernels *k);     /* norm_neon.c */
void bw_cpu_fill_neon_matmul(bw_cpu_kernels *k);   /* matmul_neon.c */
void bw_cpu_fill_neon_packed(bw_cpu_kernels *k);   /* packed_neon.c */
void bw_cpu_fill_neon_mixer(bw_cpu_kernels *k);    /* mixer_neon.c */
void bw_cpu_fill_neon_probe(bw_cpu_kernels *k);    /* probe_neon.c */

/* Fills *k up to level `wanted` (NULL: the best this CPU runs). Returns the level reached, or NULL
 * when `wanted` is not a level or cannot run here. */
const char *bw_cpu_kernels_init(bw_cpu_kernels *k, const char *wanted);
/* Levels that run here, weakest first, NULL-terminated. Any thread. */
const char *const *bw_cpu_levels_here(void);

typedef struct bw_cpu {
    bw_backend base;
    bw_pool *pool;
    bw_cpu_kernels k;
    bw_op_limits limits;
    unsigned char *arena; /* scratch shared by an operation's units; bw_carve_arena carves it */
    size_t arena_bytes;
    unsigned char *per_thread; /* [n_threads, per_thread_bytes] */
    size_t per_thread_bytes;
} bw_cpu;

static inline bw_cpu *bw_cpu_of(bw_backend *be)
{
    return (bw_cpu *)be;
}

static inline void *bw_cpu_thread_scratch(const bw_cpu *cpu, int thread)
{
    return cpu->per_thread + (size_t)thread * cpu->per_thread_bytes;
}

/* bw_pool_for, but on the calling thread alone when the units together are so little work, in
 * multiplications, that handing them out would take longer: a few microseconds. */
static inline void bw_cpu_for(const bw_cpu *cpu, int n_units, double work, void (*fn)(void *arg, int unit, int thread),
                              void *arg)
{
    if (work >= 32768) {
        bw_pool_for(cpu->pool, n_units, fn, arg);
        return;
    }
    for (int unit = 0; unit < n_units; unit++)
        fn(arg, unit, 0);
}

/* What an operation needs of the arena (shared, reused by every operation) and of each thread. The
 * same functions give the plan its number and carve the memory. */
typedef struct bw_cpu_needs {
    size_t arena, per_thread;
} bw_cpu_needs;
bw_cpu_needs bw_cpu_matmul_needs(const bw_cpu_kernels *k, const bw_op_limits *limits); /* matmul_cpu.c */
bw_cpu_needs bw_cpu_moe_needs(const bw_cpu_kernels *k, const bw_op_limits *limits);    /* moe_cpu.c */
bw_cpu_needs bw_cpu_attn_needs(const bw_cpu_kernels *k, const bw_op_limits *limits);   /* attn_cpu.c */
bw_cpu_needs bw_cpu_gdn_needs(const bw_cpu_kernels *k, const bw_op_limits *limits);    /* gdn_cpu.c */
bw_cpu_needs bw_cpu_sample_needs(const bw_cpu_kernels *k, const bw_op_limits *limits); /* sample_cpu.c */

/* The operations, as in ops.h. place_cpu.c: */
uint64_t bw_cpu_place_bytes(const bw_backend *be, const bw_place_args *args, const char **note);
bw_status bw_cpu_place(bw_backend *be, bw_weight *out, const bw_place_args *args, bw_error *err);
void bw_cpu_unplace(bw_backend *be, bw_weight *weight);
/* matmul_cpu.c */
void bw_cpu_embed(bw_backend *be, float *x, const bw_weight *table, const bw_sequences *seqs, const bw_row *rows,
                  int n_rows, int ahead);
void bw_cpu_gather(bw_backend *be, float *dst, const float *src, const int32_t *index, int n, int width);
void bw_cpu_norm(bw_backend *be, float *out, const float *x, const float *w, int n_rows, int width, float eps);
void bw_cpu_norm_pair(bw_backend *be, float *out, const float *a, const float *wa, const float *b, const float *wb,
                      int n_rows, int width, float eps);
void bw_cpu_project(bw_backend *be, const float *x, int n_rows, const float *w, float eps, const bw_weight *weights,
                    float *const *outs, int n_out);
void bw_cpu_project_draft(bw_backend *be, float *out, const float *x, const bw_row *rows, int n_rows,
                          const bw_weight *head, const bw_draft_vocab *only);
void bw_cpu_project_add(bw_backend *be, float *y, const bw_weight *weight, const float *x, int n_rows);
void bw_cpu_ffn_up(bw_backend *be, float *out, const float *x, int n_rows, const float *w, float eps,
                   const bw_weight *gate, const bw_weight *up);
/* moe_cpu.c */
void bw_cpu_moe(bw_backend *be, const bw_moe_args *args);
/* attn_cpu.c, gdn_cpu.c */
void bw_cpu_attention(bw_backend *be, const bw_attn_args *args);
void bw_cpu_gdn(bw_backend *be, const bw_gdn_args *args);
/* sample_cpu.c, accept_cpu.c */
void bw_cpu_sample(bw_backend *be, const bw_sample_args *args);
void bw_cpu_score(bw_backend *be, const bw_score_args *args);
void bw_cpu_accept(bw_backend *be, const bw_accept_args *args);
void bw_cpu_push_drafts(bw_backend *be, bw_sequences *seqs, bw_row *rows, const int32_t *sampled, int n_rows);

#endif
