/* place_cpu.c - matrices as the kernels of a level want them: packed, or where the file has them.
 *
 * Engine thread; panels are packed on the pool. */
#include <string.h>

#include "ops/cpu/cpu.h"
#include "ops/cpu/pack.h"

enum { UNIT_BYTES = 256 << 10 }; /* of packed panels, at most: a choice */

static bool is_possible(const bw_place_args *args)
{
    return args->rows >= 1 && args->cols >= 1 && args->cols % bw_dtype_get(args->type)->elements == 0;
}

/* Rows that are only looked up are widened, whatever their type. */
static bool rounds(const bw_place_args *args)
{
    return args->int8 && args->use == BW_FOR_PRODUCTS && !bw_dtype_is_float(args->type);
}

uint64_t bw_cpu_place_bytes(const bw_backend *be, const bw_place_args *args, const char **note)
{
    const bool int8 = rounds(args);
    if (note && args->use == BW_FOR_PRODUCTS)
        *note = int8 ? "integer dots" : bw_dtype_is_float(args->type) ? "float" : "widened to float";
    const bool packs = ((const bw_cpu *)be)->k.packs && int8 && is_possible(args);
    return packs ? bw_pack_bytes(args->type, args->rows, args->cols) : 0;
}

typedef struct pack_job {
    const bw_place_args *args;
    unsigned char *to;
    size_t panel_bytes, row_bytes;
    int n_panels, per_unit;
} pack_job;

static void pack_unit(void *arg, int unit, int thread)
{
    const pack_job *j = arg;
    const bw_place_args *a = j->args;
    const int first = unit * j->per_unit, end = j->n_panels - first > j->per_unit ? first + j->per_unit : j->n_panels;
    (void)thread;
    for (int panel = first; panel < end; panel++) {
        unsigned char *to = j->to + (size_t)panel * j->panel_bytes;
        const int row = panel * BW_PANEL_ROWS, left = a->rows - row;
        memset(to, 0, j->panel_bytes);
        for (int lane = 0; lane < BW_PANEL_ROWS && lane < left; lane++)
            bw_pack_row_in(to, a->type, a->cols, lane, (const unsigned char *)a->host + (size_t)(row + lane) * j->row_bytes);
    }
}

static void pack(bw_cpu *cpu, const bw_place_args *args, void *to)
{
    pack_job j = { .args = args, .to = to, .panel_bytes = bw_pack_panel_bytes(args->type, args->cols),
                   .row_bytes = (size_t)bw_dtype_row_bytes(args->type, (uint64_t)args->cols),
                   .n_panels = (int)(((int64_t)args->rows + BW_PANEL_ROWS - 1) / BW_PANEL_ROWS) };
    const int each = (j.n_panels - 1) / (2 * bw_pool_threads(cpu->pool)) + 1; /* a small matrix has work for all too */
    j.per_unit = j.panel_bytes < UNIT_BYTES ? (int)(UNIT_BYTES / j.panel_bytes) : 1;
    j.per_unit = j.per_unit < each ? j.per_unit : each;
    bw_pool_for(cpu->pool, (j.n_panels - 1) / j.per_unit + 1, pack_unit, &j);
}

bw_status bw_cpu_place(bw_backend *be, bw_weight *out, const bw_place_args *args, bw_error *err)
{
    const bw_dtype_info *info = bw_dtype_get(args->type);
    const uint64_t bytes = bw_cpu_place_bytes(be, args, NULL);
    if (!is_possible(args))
        return bw_fail(err, BW_E_FORMAT, "a %s matrix of %d rows by %d columns cannot be: its rows are blocks of %d values",
                       info->name, args->rows, args->cols, info->elements);
    *out = (bw_weight){ .type = args->type, .int8 = rounds(args), .packed = bytes > 0,
                        .rows = args->rows, .cols = args->cols, .data = args->host };
    if (bytes == 0)
        return BW_OK;
    void *to = args->room ? args->room : (out->own = bw_mem_alloc_large((size_t)bytes, BW_MEM_WEIGHTS));
    if (!to) {
        *out = (bw_weight){ 0 };
        return bw_fail_memory(err, "a packed matrix", (size_t)bytes);
    }
    pack(bw_cpu_of(be), args, to);
    out->data = to;
    return BW_OK;
}

void bw_cpu_unplace(bw_backend *be, bw_weight *weight)
{
    (void)be;
    bw_mem_free(weight->own);
    *weight = (bw_weight){ 0 };
}
