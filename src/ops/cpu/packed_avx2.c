/* packed_avx2.c - products of packed weights by 16-bit sums, for processors without VNNI. Any thread.
 *
 * vpmaddubsw multiplies unsigned codes by signed columns and adds two products in 16 bits, where they must fit:
 * |column| <= 127, so those of codes below 64 do, and so do sums of more pieces: 8 of 4-bit codes
 * (8 * 2 * 15 * 127 = 30480), 4 of 5 bits, 2 of 6. Wider codes and levels keep the sign that the file gives them
 * and hand it to the columns: at most 2 * 128 * 127 = 32512, no two of which fit together. */
#include "ops/cpu/packed_ymm.h"

INLINE bool wants_signed(bw_pack_form form)
{
    return form.table || form.low_bits == 8;
}

/* Pieces whose products fit into 16 bits together */
INLINE int pieces_together(bw_pack_form form)
{
    const int bits = form.low_bits + form.high_bits;
    return wants_signed(form) ? 1 : bits <= 4 ? 8 : bits == 5 ? 4 : 2;
}

INLINE __m256i widen(__m256i pairs)
{
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* The sum of two sums that become one of so many pieces */
INLINE __m256i join(bw_pack_form form, int pieces, __m256i a, __m256i b)
{
    const int fit = pieces_together(form);
    if (pieces <= fit)
        return _mm256_add_epi16(a, b);
    return pieces == 2 * fit ? _mm256_add_epi32(widen(a), widen(b)) : _mm256_add_epi32(a, b);
}

INLINE __m256i end_dot(bw_pack_form form, __m256i dot, int pieces)
{
    return pieces <= pieces_together(form) ? widen(dot) : dot;
}

INLINE __m256i four_products(bw_pack_form form, __m256i dot, bool first, const __m256i code[4], const __m256i x[4])
{
    __m256i p[4];
    UNROLL for (int k = 0; k < 4; k++)
        p[k] = wants_signed(form) ? _mm256_maddubs_epi16(_mm256_abs_epi8(code[k]), _mm256_sign_epi8(x[k], code[k]))
                                  : _mm256_maddubs_epi16(code[k], x[k]);
    const __m256i sum = join(form, 4, join(form, 2, p[0], p[1]), join(form, 2, p[2], p[3]));
    return first ? sum : join(form, 8, dot, sum);
}

void bw_cpu_fill_avx2_packed(bw_cpu_kernels *k)
{
    k->packs = true;
    k->matmul_int8 = matmul_int8;
}
