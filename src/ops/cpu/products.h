/* products.h - what the operations of matmul_cpu.c and moe_cpu.c share: rows made ready for products,
 * and any number of products run as one list of units. */
#ifndef BW_OPS_CPU_PRODUCTS_H
#define BW_OPS_CPU_PRODUCTS_H

#include <assert.h>

#include "ops/cpu/q8.h"

/* The arena of an operation, handed out front to back. */
typedef struct bw_carver {
    unsigned char *at;
    size_t left;
} bw_carver;

static inline size_t bw_carved_bytes(size_t bytes) /* what bw_carve takes */
{
    return (bytes + 63) / 64 * 64;
}

static inline void *bw_carve(bw_carver *carver, size_t bytes)
{
    bytes = bw_carved_bytes(bytes);
    assert(bytes <= carver->left);
    void *block = carver->at;
    carver->at += bytes;
    carver->left -= bytes;
    return block;
}

static inline bw_carver bw_carve_arena(const bw_cpu *cpu)
{
    return (bw_carver){ cpu->arena, cpu->arena_bytes };
}

bw_q8_rows bw_q8_carve(bw_carver *carver, int n, int cols);
size_t bw_q8_carved_bytes(int n, int cols);

/* The same n rows for weights of both kinds; a form nobody asked for is NULL. */
typedef struct bw_rows {
    const float *x; /* [n, cols] */
    bw_q8_rows q;
} bw_rows;

/* rms_norm(x, w) (w NULL: x itself), rounded too when int8 is set. Runs on the pool. */
bw_rows bw_rows_ready(bw_cpu *cpu, bw_carver *carver, const float *x, int n, int cols, const float *w, float eps,
                      bool int8);

/* y (+)= w rows, or y = silu(w rows) * (up rows). */
typedef struct bw_product {
    const bw_weight *w, *up; /* up may be NULL */
    bw_rows rows;
    int n;
    float *y;
    size_t y_stride;
    bool add;
    int unit_rows, first_unit; /* bw_products_run's own */
} bw_product;

enum { BW_MAX_UNIT_ROWS = 64 };

/* Runs them all, in any order: no two write the same place. */
void bw_products_run(bw_cpu *cpu, bw_product *products, int n);
/* y[k] = row ids[k] of w . x for one row of activations: the bits that a whole product gives. ids [n_ids] ascending.
 * Of packed weights a panel is multiplied for each row wanted: sixteen times the work of as many neighbours. */
typedef struct bw_listed_product {
    const bw_weight *w;
    bw_rows row;
    const int32_t *ids;
    int n_ids;
    float *y;
} bw_listed_product;
void bw_listed_products_run(bw_cpu *cpu, const bw_listed_product *products, int n);
size_t bw_products_thread_bytes(const bw_cpu_kernels *k, const bw_op_limits *limits);

static inline int bw_limits_rows(const bw_op_limits *limits)
{
    return limits->max_rows > limits->max_logits ? limits->max_rows : limits->max_logits;
}

#endif
