/* q8.h - quantised rows as a file has them, made into int8 codes and factors: what the reference multiplies,
 * and the way to floats.
 *
 * A row is taken in chunks of 512 columns, 16 groups of 32. The arithmetic of a product with rounded rows
 * (bw_q8_rows): codes and roundings meet in integers, exactly; then scales, group after group. */
#ifndef BW_OPS_CPU_Q8_H
#define BW_OPS_CPU_Q8_H

#include "ops/cpu/cpu.h"

enum { BW_Q8_CHUNK = 512, BW_Q8_LANES = 16 };

static inline int bw_q8_chunks(int cols)
{
    return (cols + BW_Q8_CHUNK - 1) / BW_Q8_CHUNK;
}

/* A chunk of a weight row: value = scale * sub * code + minimum * lift. scale and minimum by group, sub
 * and lift by half group ([0]: the first 16 columns); what a type has not is not written. Padding
 * groups have scale and minimum zero. |sum of sub * code * q| of a group is below 2^24. */
typedef struct bw_q8_chunk {
    int8_t code[BW_Q8_CHUNK];
    float scale[BW_Q8_LANES], minimum[BW_Q8_LANES];
    int32_t sub[2][BW_Q8_LANES], lift[2][BW_Q8_LANES];
} bw_q8_chunk;

static inline bool bw_q8_has_sub(bw_dtype type)
{
    return type == BW_Q2_K || type == BW_Q3_K || type == BW_Q6_K;
}

static inline bool bw_q8_has_lift(bw_dtype type)
{
    return type == BW_Q2_K;
}

static inline bool bw_q8_has_minimum(bw_dtype type)
{
    return type == BW_Q4_1 || type == BW_Q5_1 || type == BW_Q2_K || type == BW_Q4_K || type == BW_Q5_K;
}

/* Unpacks n_groups (<= 16; of 256-value blocks: 8 or 16) of packed weights with the codes in plain
 * column order: code[32 g + j]. Fields of groups from n_groups on are not touched. NULL for floats. */
typedef void (*bw_q8_unpack_fn)(bw_q8_chunk *out, const unsigned char *blocks, int n_groups);
extern const bw_q8_unpack_fn bw_q8_unpack_ref[BW_DTYPE_COUNT]; /* q8_unpack_ref.c */
/* A packed row to floats: bw_dequantize_row, faster (q8_unpack_avx2.c). */
void bw_q8_widen_row_avx2(float *out, bw_dtype type, const unsigned char *row, int cols);

/* A weight row, chunk after chunk, codes in plain order; the padding is cleared. */
static inline void bw_q8_unpack_row(bw_q8_chunk *out, bw_q8_unpack_fn unpack, const unsigned char *row, size_t chunk_bytes,
                                    int cols)
{
    for (int left = cols / BW_Q8_GROUP; left > 0; left -= BW_Q8_LANES, row += chunk_bytes, out++) {
        const int n_groups = left < BW_Q8_LANES ? left : BW_Q8_LANES;
        if (n_groups < BW_Q8_LANES)
            *out = (bw_q8_chunk){ 0 };
        unpack(out, row, n_groups);
    }
}

#endif
