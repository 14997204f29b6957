/* matmul_cpu.c - rows of the embedding, norms and products as operations. Engine thread. */
#include <string.h>

#include "base/dequant.h"
#include "ops/cpu/products.h"

void bw_cpu_embed(bw_backend *be, float *x, const bw_weight *table, const bw_sequences *seqs, const bw_row *rows,
                  int n_rows, int ahead)
{
    (void)be;
    assert(!table->packed);
    const size_t row_bytes = bw_dtype_row_bytes(table->type, (uint64_t)table->cols);
    for (int i = 0; i < n_rows; i++) {
        assert(rows[i].pos + ahead < seqs->context);
        const int32_t token = seqs->tokens[(size_t)rows[i].slot * (size_t)seqs->context + (size_t)(rows[i].pos + ahead)];
        assert(token >= 0 && token < table->rows);
        bw_dequantize_row(table->type, (const unsigned char *)table->data + (size_t)token * row_bytes,
                          x + (size_t)i * (size_t)table->cols, (size_t)table->cols);
    }
}

void bw_cpu_gather(bw_backend *be, float *dst, const float *src, const int32_t *index, int n, int width)
{
    (void)be;
    for (int i = 0; i < n; i++)
        memcpy(dst + (size_t)i * (size_t)width, src + (size_t)index[i] * (size_t)width, (size_t)width * sizeof *dst);
}

/* ---- norms ---- */

typedef struct norm_job {
    bw_cpu *cpu;
    float *out;
    const float *x[2], *w[2];
    int n, n_parts, width;
    float eps;
} norm_job;

static void norm_unit(void *arg, int row, int thread)
{
    const norm_job *j = arg;
    (void)thread;
    for (int i = 0; i < j->n_parts; i++)
        j->cpu->k.rms_norm(j->out + (size_t)(row * j->n_parts + i) * (size_t)j->width,
                           j->x[i] + (size_t)row * (size_t)j->width, j->w[i], 1, j->width, j->eps);
}

void bw_cpu_norm(bw_backend *be, float *out, const float *x, const float *w, int n_rows, int width, float eps)
{
    norm_job j = { bw_cpu_of(be), out, { x, NULL }, { w, NULL }, n_rows, 1, width, eps };
    bw_pool_for(j.cpu->pool, n_rows, norm_unit, &j);
}

void bw_cpu_norm_pair(bw_backend *be, float *out, const float *a, const float *wa, const float *b, const float *wb,
                      int n_rows, int width, float eps)
{
    norm_job j = { bw_cpu_of(be), out, { a, b }, { wa, wb }, n_rows, 2, width, eps };
    bw_pool_for(j.cpu->pool, n_rows, norm_unit, &j);
}

/* ---- products ---- */

void bw_cpu_project(bw_backend *be, const float *x, int n_rows, const float *w, float eps, const bw_weight *weights,
                    float *const *outs, int n_out)
{
    bw_cpu *cpu = bw_cpu_of(be);
    bw_carver carver = bw_carve_arena(cpu);
    bw_product products[BW_MAX_PROJECTIONS];
    bool int8 = false;
    assert(n_out >= 1 && n_out <= BW_MAX_PROJECTIONS);
    if (n_rows < 1)
        return;
    for (int i = 0; i < n_out; i++) {
        assert(weights[i].cols == weights[0].cols);
        int8 |= weights[i].int8;
    }
    const bw_rows rows = bw_rows_ready(cpu, &carver, x, n_rows, weights[0].cols, w, eps, int8);
    for (int i = 0; i < n_out; i++)
        products[i] = (bw_product){ .w = &weights[i], .rows = rows, .n = n_rows, .y = outs[i],
                                    .y_stride = (size_t)weights[i].rows };
    bw_products_run(cpu, products, n_out);
}

/* Lists in blocks: each row needs a form of its own. */
void bw_cpu_project_draft(bw_backend *be, float *out, const float *x, const bw_row *rows, int n_rows,
                          const bw_weight *head, const bw_draft_vocab *only)
{
    enum { BLOCK = 16 };
    bw_cpu *cpu = bw_cpu_of(be);
    bw_listed_product listed[BLOCK];
    bw_carver carver = bw_carve_arena(cpu);
    const size_t stride = (size_t)only->n_first + (size_t)only->room, cols = (size_t)head->cols;
    if (n_rows < 1)
        return;
    bw_weight first = *head;
    first.rows = only->n_first;
    bw_product p = { .w = &first, .n = n_rows, .y = out, .y_stride = stride };
    p.rows = bw_rows_ready(cpu, &carver, x, n_rows, head->cols, NULL, 0, head->int8);
    bw_products_run(cpu, &p, 1);
    for (int i = 0; i < n_rows; i += BLOCK) {
        const int n = n_rows - i < BLOCK ? n_rows - i : BLOCK;
        carver = bw_carve_arena(cpu);
        for (int k = 0; k < n; k++) {
            const int32_t slot = rows[i + k].slot;
            listed[k] = (bw_listed_product){ .w = head, .ids = only->ids + (size_t)slot * (size_t)only->room,
                                             .n_ids = only->n_ids[slot],
                                             .y = out + (size_t)(i + k) * stride + only->n_first };
            listed[k].row = bw_rows_ready(cpu, &carver, x + (size_t)(i + k) * cols, 1, head->cols, NULL, 0, head->int8);
        }
        bw_listed_products_run(cpu, listed, n);
    }
}

void bw_cpu_project_add(bw_backend *be, float *y, const bw_weight *weight, const float *x, int n_rows)
{
    bw_cpu *cpu = bw_cpu_of(be);
    bw_carver carver = bw_carve_arena(cpu);
    if (n_rows < 1)
        return;
    bw_product p = { .w = weight, .n = n_rows, .y = y, .y_stride = (size_t)weight->rows, .add = true };
    p.rows = bw_rows_ready(cpu, &carver, x, n_rows, weight->cols, NULL, 0, weight->int8);
    bw_products_run(cpu, &p, 1);
}

void bw_cpu_ffn_up(bw_backend *be, float *out, const float *x, int n_rows, const float *w, float eps,
                   const bw_weight *gate, const bw_weight *up)
{
    bw_cpu *cpu = bw_cpu_of(be);
    bw_carver carver = bw_carve_arena(cpu);
    if (n_rows < 1)
        return;
    bw_product p = { .w = gate, .up = up, .n = n_rows, .y = out, .y_stride = (size_t)gate->rows };
    p.rows = bw_rows_ready(cpu, &carver, x, n_rows, gate->cols, w, eps, gate->int8 || up->int8);
    bw_products_run(cpu, &p, 1);
}

bw_cpu_needs bw_cpu_matmul_needs(const bw_cpu_kernels *k, const bw_op_limits *limits)
{
    const int rows = bw_limits_rows(limits);
    return (bw_cpu_needs){
        .arena = bw_carved_bytes((size_t)rows * (size_t)limits->max_cols * sizeof(float)) +
                 bw_q8_carved_bytes(rows, limits->max_cols),
        .per_thread = bw_products_thread_bytes(k, limits),
    };
}
