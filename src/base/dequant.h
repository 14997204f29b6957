/* dequant.h - packed weights to f32, for every type the tree knows: the definition that faster code
 * is checked against. Layouts: docs/formats.md. No state, any thread. */
#ifndef BW_BASE_DEQUANT_H
#define BW_BASE_DEQUANT_H

#include <stddef.h>

#include "base/dtype.h"

/* Widens n values (a multiple of the block's elements) from `src`, which needs no alignment and
 * holds bw_dtype_row_bytes(type, n) bytes. Every product and sum is one f32 rounding, in the order
 * docs/formats.md writes it. */
void bw_dequantize_row(bw_dtype type, const void *src, float *dst, size_t n);

/* The 16 levels of IQ4_NL and IQ4_XS. */
extern const signed char bw_iq4_levels[16];

/* Pair k (0 .. 7) of the twelve packed bytes of Q4_K and Q5_K: six bits of scale, six of minimum. */
static inline void bw_q4k_scale_min(const unsigned char *p, int k, int *scale, int *minimum)
{
    if (k < 4) {
        *scale = p[k] & 63;
        *minimum = p[k + 4] & 63;
    } else {
        *scale = (p[k + 4] & 15) | (p[k - 4] >> 6) << 4;
        *minimum = p[k + 4] >> 4 | (p[k] >> 6) << 4;
    }
}

/* Scale t (0 .. 15) of the twelve packed bytes of Q3_K: -32 .. 31. */
static inline int bw_q3k_scale(const unsigned char *p, int t)
{
    int low = t < 8 ? p[t] & 15 : p[t - 8] >> 4;
    return (low | ((p[8 + t % 4] >> (2 * (t / 4))) & 3) << 4) - 32;
}

#endif
