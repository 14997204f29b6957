/* packed_avxvnni.c - products of packed weights by VNNI in registers of 8 lanes, for processors that have it without
 * AVX-512. Any thread. */
#include "ops/cpu/packed_ymm.h"

/* The tests build this file again with the AVX-512 encoding of the same instruction, which more machines run. */
#ifndef DPBUSD
#define DPBUSD _mm256_dpbusd_avx_epi32
#endif

INLINE bool wants_signed(bw_pack_form form)
{
    (void)form;
    return false;
}

INLINE __m256i end_dot(bw_pack_form form, __m256i dot, int pieces)
{
    (void)form;
    (void)pieces;
    return dot;
}

INLINE __m256i four_products(bw_pack_form form, __m256i dot, bool first, const __m256i code[4], const __m256i x[4])
{
    (void)form;
    dot = first ? _mm256_setzero_si256() : dot;
    UNROLL for (int k = 0; k < 4; k++)
        dot = DPBUSD(dot, code[k], x[k]);
    return dot;
}

void bw_cpu_fill_avxvnni_packed(bw_cpu_kernels *k)
{
    k->packs = true;
    k->matmul_int8 = matmul_int8;
}
