/* dtype.h - element and block types of tensors, named as the files name them.
 *
 * A row of a matrix is a whole number of blocks; a block holds `elements` values in `bytes` bytes.
 * Layouts: docs/formats.md. Shared by format (which reads them) and ops (which multiply them). */
#ifndef BW_BASE_DTYPE_H
#define BW_BASE_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum bw_dtype {
    BW_F32,
    BW_F16,
    BW_BF16,
    BW_Q8_0,
    BW_Q4_0,
    BW_Q4_1,
    BW_Q5_0,
    BW_Q5_1,
    BW_IQ4_NL,
    BW_Q2_K,
    BW_Q3_K,
    BW_Q4_K,
    BW_Q5_K,
    BW_Q6_K,
    BW_IQ4_XS,
    BW_DTYPE_COUNT
} bw_dtype;

typedef struct bw_dtype_info {
    const char *name; /* lower case: "f32", "q4_k" */
    int elements;     /* values in a block: 1, 32 or 256 */
    int bytes;        /* of a block */
} bw_dtype_info;

const bw_dtype_info *bw_dtype_get(bw_dtype type);
static inline bool bw_dtype_is_float(bw_dtype type)
{
    return type <= BW_BF16;
}

/* Bytes of a row of n values; n is a multiple of the block's elements. */
uint64_t bw_dtype_row_bytes(bw_dtype type, uint64_t n);

#endif
