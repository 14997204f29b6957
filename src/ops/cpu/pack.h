/* pack.h - quantised matrices in the order in which the fast kernels read them.
 *
 * Sixteen rows of a matrix are a panel; in a panel the same four columns of all sixteen rows lie side by
 * side, so that one dot instruction of 16 lanes (or four of 4, two of 8) multiplies 16 output rows by four
 * columns of an activation row that is broadcast to all lanes. No lane is ever added to another: lane r is
 * output row r, and its sum runs over the columns in order, whatever the level.
 *
 * Nothing is lost: codes, scales and minima are the file's bits in other places, and a row can be taken
 * out again bit for bit.
 *
 * A panel is a row of bricks, 64 columns wide for types with blocks of 32 values (two groups), 256 columns
 * (eight groups) for the others. A brick is a head and then the codes of its groups:
 *
 *   head of Q8_0 Q4_0 Q5_0 IQ4_NL   f16 d[2 groups][16 rows]
 *           Q4_1 Q5_1               f16 d[2][16], f16 m[2][16]
 *           Q4_K Q5_K               f16 d[16], f16 dmin[16], u32 low[16], u32 lift[16], u32 high[16]:
 *                                   scale of group g = low >> 4 g & 15 | (high >> 2 g & 3) << 4,
 *                                   minimum of group g = lift >> 4 g & 15 | (high >> (16 + 2 g) & 3) << 4
 *           Q2_K                    f16 d[16], f16 dmin[16], u8 [16 half groups][16 rows]: scale | minimum << 4
 *           Q6_K Q3_K               f16 d[16], 32 bytes of zeros, s8 scale[16 half groups][16 rows]
 *           IQ4_XS                  f16 d[16], 32 bytes of zeros, s8 scale[8 groups][16 rows]
 *
 *   codes of a group: 8 pieces; piece k is columns 4 k .. 4 k + 3 of the group, byte 4 r + c of it is row r,
 *   column 4 k + c. A code has 2 to 8 bits; they lie in planes, the planes of a type one after another:
 *     8 bits   8 x 64 bytes   piece k                                                    Q8_0
 *     4 bits   4 x 64 bytes   byte of line i: piece 2 i low, piece 2 i + 1 high          (low bits of the code)
 *     2 bits   2 x 64 bytes   byte of line i: piece 4 i + j at bits 2 j
 *     1 bit    1 x 64 bytes   byte: piece k at bit k
 *   Q4_0 Q4_1 Q4_K IQ4_NL IQ4_XS: 4; Q5_0 Q5_1 Q5_K: 4, then 1 (bit 4 of the code); Q6_K: 4, then 2 (bits 4
 *   and 5); Q2_K: 2; Q3_K: 2, then 1 (bit 2).
 *
 * Codes are unsigned: value = d * scale * (code - offset) [+ m, - dmin * minimum]; of IQ4 types the code is an
 * index into bw_iq4_levels. A signed file code has `offset` added: Q8_0 128, Q4_0 8, Q5_0 16, Q6_K 32, Q3_K 4.
 *
 * Rows past the matrix (of its last panel) and columns past its last group are zero bits. Every brick and
 * line is 64-byte aligned when the panel is. */
#ifndef BW_OPS_CPU_PACK_H
#define BW_OPS_CPU_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"

enum { BW_PANEL_ROWS = 16, BW_PACK_LINE = 64 };

typedef enum bw_pack_head {
    BW_HEAD_D,       /* d by group */
    BW_HEAD_D_M,     /* d and m by group */
    BW_HEAD_K_MIN,   /* 6-bit scales and minima by group */
    BW_HEAD_K_HALF_MIN, /* 4-bit scales and minima by half group */
    BW_HEAD_K_HALF,  /* 8-bit scales by half group */
    BW_HEAD_K        /* 8-bit scales by group */
} bw_pack_head;

/* What a kernel has to know of a type; constant once the type is. */
typedef struct bw_pack_form {
    bw_pack_head head;
    int low_bits;  /* of the first plane: 8, 4 or 2 */
    int high_bits; /* of the second: 2, 1 or 0 */
    int offset;    /* taken from a code */
    bool table;    /* the code is an index into bw_iq4_levels */
} bw_pack_form;

/* Constant-folded where the type is known at compile time. No float type has a form. */
static inline bw_pack_form bw_pack_form_of(bw_dtype type)
{
    switch (type) {
    case BW_Q8_0: return (bw_pack_form){ BW_HEAD_D, 8, 0, 128, false };
    case BW_Q4_0: return (bw_pack_form){ BW_HEAD_D, 4, 0, 8, false };
    case BW_Q5_0: return (bw_pack_form){ BW_HEAD_D, 4, 1, 16, false };
    case BW_IQ4_NL: return (bw_pack_form){ BW_HEAD_D, 4, 0, 0, true };
    case BW_Q4_1: return (bw_pack_form){ BW_HEAD_D_M, 4, 0, 0, false };
    case BW_Q5_1: return (bw_pack_form){ BW_HEAD_D_M, 4, 1, 0, false };
    case BW_Q4_K: return (bw_pack_form){ BW_HEAD_K_MIN, 4, 0, 0, false };
    case BW_Q5_K: return (bw_pack_form){ BW_HEAD_K_MIN, 4, 1, 0, false };
    case BW_Q2_K: return (bw_pack_form){ BW_HEAD_K_HALF_MIN, 2, 0, 0, false };
    case BW_Q3_K: return (bw_pack_form){ BW_HEAD_K_HALF, 2, 1, 4, false };
    case BW_Q6_K: return (bw_pack_form){ BW_HEAD_K_HALF, 4, 2, 32, false };
    default: return (bw_pack_form){ BW_HEAD_K, 4, 0, 0, true }; /* IQ4_XS */
    }
}

static inline int bw_pack_brick_groups(bw_pack_form form)
{
    return form.head == BW_HEAD_D || form.head == BW_HEAD_D_M ? 2 : 8;
}

static inline size_t bw_pack_head_bytes(bw_pack_form form)
{
    switch (form.head) {
    case BW_HEAD_D: return 64;
    case BW_HEAD_D_M: return 128;
    case BW_HEAD_K_MIN: return 256;
    case BW_HEAD_K: return 192;
    default: return 320;
    }
}

static inline size_t bw_pack_group_bytes(bw_pack_form form)
{
    return (size_t)(form.low_bits + form.high_bits) * BW_PACK_LINE;
}

static inline size_t bw_pack_brick_bytes(bw_pack_form form)
{
    return bw_pack_head_bytes(form) + (size_t)bw_pack_brick_groups(form) * bw_pack_group_bytes(form);
}

static inline int bw_pack_bricks(bw_pack_form form, int cols)
{
    const int width = 32 * bw_pack_brick_groups(form);
    return (cols + width - 1) / width;
}

/* Bytes of 16 rows, and of a whole matrix. */
static inline size_t bw_pack_panel_bytes(bw_dtype type, int cols)
{
    const bw_pack_form form = bw_pack_form_of(type);
    return (size_t)bw_pack_bricks(form, cols) * bw_pack_brick_bytes(form);
}

static inline size_t bw_pack_bytes(bw_dtype type, int rows, int cols)
{
    return ((size_t)rows + BW_PANEL_ROWS - 1) / BW_PANEL_ROWS * bw_pack_panel_bytes(type, cols);
}

/* Puts a row, as the file has it, into lane 0 .. 15 of a panel whose bits there are zero. type is quantised. Any
 * thread; lanes of a panel share bytes: one thread a panel. */
void bw_pack_row_in(void *panel, bw_dtype type, int cols, int lane, const void *row);
/* Takes it out again: the same bytes. */
void bw_pack_row_out(void *row, bw_dtype type, int cols, int lane, const void *panel);

#endif
