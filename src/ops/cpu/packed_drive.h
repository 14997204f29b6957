/* packed_drive.h - how a product of packed weights (pack.h) goes through its rows and panels, by type: what
 * packed_avx512.c, packed_neon.c and packed_ymm.h share. Included by one file of a level, which says whether tiles
 * are worth code for each number of rows (COUNTED_TILES), defines tile and offers matmul_int8. Any thread; owns
 * nothing. */
#ifndef BW_OPS_CPU_PACKED_DRIVE_H
#define BW_OPS_CPU_PACKED_DRIVE_H

#include "base/dequant.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/pack.h"
#include "ops/cpu/unroll.h"

typedef unsigned char u8;

enum { MAX_GROUPS = 8 }; /* of a brick */

/* A block of rows, or some of one: entries of a group lie `step` apart from those of the next. */
typedef struct row_tile {
    const bw_q8_rows *x;
    size_t first, step;
    int n_groups;
} row_tile;

typedef struct output_tile {
    float *y;
    size_t stride;
    int lanes; /* of the panel that are rows of the matrix; 16 or more: all */
    bool add;
} output_tile;

/* n <= 16 rows by a panel. type is a constant; n is one if tiles are counted, else where it is 1. */
INLINE void tile(bw_dtype type, int n, const u8 *panel, const row_tile *rows, const output_tile *out);

INLINE void tile_by_count(bw_dtype type, int n, const u8 *panel, const row_tile *rows, const output_tile *out)
{
    if (n == 1) {
        tile(type, 1, panel, rows, out);
        return;
    }
    if (!COUNTED_TILES) {
        tile(type, n, panel, rows, out);
        return;
    }
    switch (n) {
    case 2: tile(type, 2, panel, rows, out); break;
    case 3: tile(type, 3, panel, rows, out); break;
    case 4: tile(type, 4, panel, rows, out); break;
    case 5: tile(type, 5, panel, rows, out); break;
    case 6: tile(type, 6, panel, rows, out); break;
    case 7: tile(type, 7, panel, rows, out); break;
    case 8: tile(type, 8, panel, rows, out); break;
    default: tile(type, 16, panel, rows, out); break;
    }
}

/* Rows of the next tile, of n <= 16 that are left. The first brings the weights into the cache: the larger it is,
 * the less it waits for them. Found with AVX-512 on an AMD EPYC (Zen 4, 2026-11-21; docs/performance.md), as was the
 * gain of a tile of 7: 8 + rest is faster than halves from memory, slower in the cache, and tiles of 10, 12 and 14 are
 * slower. packed_neon.c takes the same tiles; on ARM neither was measured. */
static inline int tile_rows(int n)
{
    return COUNTED_TILES && n > 8 && n < 16 ? 8 : n;
}

typedef void rows_fn(int n, const u8 *panel, const row_tile *rows, const output_tile *out);

#define ROWS_OF(type)                                                                                 \
    static void type##_rows(int n, const u8 *panel, const row_tile *rows, const output_tile *out)      \
    {                                                                                                 \
        tile_by_count(BW_##type, n, panel, rows, out);                                                 \
    }
ROWS_OF(Q8_0)
ROWS_OF(Q4_0)
ROWS_OF(Q4_1)
ROWS_OF(Q5_0)
ROWS_OF(Q5_1)
ROWS_OF(IQ4_NL)
ROWS_OF(Q2_K)
ROWS_OF(Q3_K)
ROWS_OF(Q4_K)
ROWS_OF(Q5_K)
ROWS_OF(Q6_K)
ROWS_OF(IQ4_XS)

static rows_fn *const rows_of[BW_DTYPE_COUNT] = {
    [BW_Q8_0] = Q8_0_rows, [BW_Q4_0] = Q4_0_rows, [BW_Q4_1] = Q4_1_rows,     [BW_Q5_0] = Q5_0_rows,
    [BW_Q5_1] = Q5_1_rows, [BW_IQ4_NL] = IQ4_NL_rows, [BW_Q2_K] = Q2_K_rows, [BW_Q3_K] = Q3_K_rows,
    [BW_Q4_K] = Q4_K_rows, [BW_Q5_K] = Q5_K_rows, [BW_Q6_K] = Q6_K_rows,     [BW_IQ4_XS] = IQ4_XS_rows,
};

/* A block of rows by a panel; a second tile finds the panel in the cache. */
static void multiply_block(rows_fn *fn, int n, const u8 *panel, row_tile rows, output_tile out)
{
    for (int some; n > 0; n -= some, rows.first += (size_t)some, out.y += (size_t)some * out.stride) {
        some = tile_rows(n);
        fn(some, panel, &rows, &out);
    }
}

static void matmul_int8(float *y, size_t y_stride, const bw_weight *w, int first, int n_out, const bw_q8_rows *x, int n,
                        bool add, void *scratch)
{
    (void)scratch;
    const size_t panel_bytes = bw_pack_panel_bytes(w->type, w->cols);
    const u8 *panels = (const u8 *)w->data + (size_t)(first / BW_PANEL_ROWS) * panel_bytes;
    for (int r = 0; r < n; r += BW_Q8_BLOCK) {
        const int in = n - r < BW_Q8_BLOCK ? n - r : BW_Q8_BLOCK;
        const row_tile rows = { x, bw_q8_entry(n, w->cols, r, 0), (size_t)in, w->cols / BW_Q8_GROUP };
        for (int o = 0; o < n_out; o += BW_PANEL_ROWS)
            multiply_block(rows_of[w->type], in, panels + (size_t)(o / BW_PANEL_ROWS) * panel_bytes, rows,
                           (output_tile){ y + (size_t)r * y_stride + o, y_stride, n_out - o, add });
    }
}

#endif
