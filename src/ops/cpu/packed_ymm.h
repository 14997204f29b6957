/* packed_ymm.h - products of packed weights (pack.h) with rounded rows in registers of 8 lanes: the body that
 * packed_avx2.c and packed_avxvnni.c share. Included by one file of a level, which defines how bytes are multiplied
 * (the three functions declared below) and offers matmul_int8. Any thread.
 *
 * Two registers make a line of 16 output rows. The codes of four pieces fill 8 registers and meet every row of a
 * tile there, so that a broadcast of four columns serves both; what the first half of a group gives waits in L1 for
 * the second. The arithmetic is that of packed_avx512.c, lane for lane in the same order: the same bits. */
#ifndef BW_OPS_CPU_PACKED_YMM_H
#define BW_OPS_CPU_PACKED_YMM_H

#include <immintrin.h>
#include <string.h>

/* A row alone keeps its sums in registers. Tiles of a constant 2, 3 and 4 rows beside it made 4 rows of Q4_0 in the
 * first cache 2 % faster and the code 116 KB instead of 47 (AMD EPYC, Zen 4, 2026-11-21; docs/performance.md). */
enum { COUNTED_TILES = 0 };
#include "ops/cpu/packed_drive.h"

/* Codes of 8 bits and levels of a table are wanted as the file's signed values; else moved up by 128, as unsigned. */
INLINE bool wants_signed(bw_pack_form form);
/* Products of four pieces with the columns broadcast in x, summed lane by lane; unless they are the first, on top of
 * `dot`. In a form of the level's own, until end_dot makes it 32-bit integers; `pieces` went in, 4 or 8. */
INLINE __m256i four_products(bw_pack_form form, __m256i dot, bool first, const __m256i code[4], const __m256i x[4]);
INLINE __m256i end_dot(bw_pack_form form, __m256i dot, int pieces);

enum { READ_AHEAD = 2048 }; /* bytes of codes asked for before they are used */

/* ---- weights ---- */

/* What the head of a brick says, as floats by half of the panel; by half group where the type has it so. */
typedef struct brick_head {
    __m256 scale[2 * MAX_GROUPS][2], minimum[2 * MAX_GROUPS][2];
} brick_head;

INLINE __m256 halves(const u8 *p)
{
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)p));
}

INLINE __m256i load_line(const u8 *p)
{
    return _mm256_load_si256((const __m256i *)p);
}

/* Field g of four low bits in `low` and two high ones from bit `at` of `high` */
INLINE __m256 six_bits(__m256i low, __m256i high, int g, int at)
{
    const __m256i first = _mm256_and_si256(_mm256_srli_epi32(low, 4 * g), _mm256_set1_epi32(15));
    const int place = at + 2 * g - 4; /* of the high bits, to bits 4 and 5 */
    const __m256i second = place < 0 ? _mm256_slli_epi32(high, -place) : _mm256_srli_epi32(high, place);
    return _mm256_cvtepi32_ps(_mm256_or_si256(first, _mm256_and_si256(second, _mm256_set1_epi32(0x30))));
}

INLINE void open_half_head(brick_head *head, bw_pack_form form, const u8 *p, int half)
{
    const __m256 d = halves(p + 16 * half);
    if (form.head == BW_HEAD_D || form.head == BW_HEAD_D_M) {
        head->scale[0][half] = d;
        head->scale[1][half] = halves(p + 32 + 16 * half);
        if (form.head == BW_HEAD_D_M) {
            head->minimum[0][half] = halves(p + 64 + 16 * half);
            head->minimum[1][half] = halves(p + 96 + 16 * half);
        }
    } else if (form.head == BW_HEAD_K_MIN) {
        const __m256 lowest = _mm256_sub_ps(_mm256_setzero_ps(), halves(p + 32 + 16 * half));
        const __m256i low = load_line(p + 64 + 32 * half), lift = load_line(p + 128 + 32 * half),
                      high = load_line(p + 192 + 32 * half);
        UNROLL for (int g = 0; g < 8; g++) {
            head->scale[g][half] = _mm256_mul_ps(d, six_bits(low, high, g, 0));
            head->minimum[g][half] = _mm256_mul_ps(lowest, six_bits(lift, high, g, 16));
        }
    } else if (form.head == BW_HEAD_K_HALF_MIN) {
        const __m256 lowest = _mm256_sub_ps(_mm256_setzero_ps(), halves(p + 32 + 16 * half));
        for (int h = 0; h < 16; h++) {
            const __m256i both = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 64 + 16 * h + 8 * half)));
            head->scale[h][half] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_and_si256(both, _mm256_set1_epi32(15))));
            head->minimum[h][half] = _mm256_mul_ps(lowest, _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4)));
        }
    } else {
        const int n = form.head == BW_HEAD_K ? 8 : 16;
        for (int i = 0; i < n; i++) {
            const __m128i scales = _mm_loadl_epi64((const __m128i *)(p + 64 + 16 * i + 8 * half));
            head->scale[i][half] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales)));
        }
    }
}

/* Bits of `line` from bit `from` on to bit `to` on; the caller masks what else is there. */
INLINE __m256i move_bits(__m256i line, int from, int to)
{
    return from > to ? _mm256_srli_epi16(line, from - to) : from < to ? _mm256_slli_epi16(line, to - from) : line;
}

/* Its first plane */
INLINE __m256i low_piece(bw_pack_form form, const u8 *p, int k)
{
    if (form.low_bits == 8)
        return load_line(p + 64 * k);
    if (form.low_bits == 4)
        return _mm256_and_si256(move_bits(load_line(p + 64 * (k / 2)), 4 * (k % 2), 0), _mm256_set1_epi8(15));
    return _mm256_and_si256(move_bits(load_line(p + 64 * (k / 4)), 2 * (k % 4), 0), _mm256_set1_epi8(3));
}

/* What is to be taken from a code as open_codes gives it. */
INLINE int code_offset(bw_pack_form form)
{
    return (form.table || form.low_bits == 8) && wants_signed(form) ? 0 : form.table ? 128 : form.offset;
}

/* Piece k of a group for 8 output rows; p: their part of the group's first line. */
INLINE __m256i open_piece(bw_pack_form form, const u8 *p, int k)
{
    const u8 *high = p + 64 * form.low_bits;
    __m256i code = low_piece(form, p, k);
    if (form.high_bits) {
        const int per_line = 8 / form.high_bits, mask = ((1 << form.high_bits) - 1) << form.low_bits;
        const __m256i line = load_line(high + 64 * (k / per_line));
        const __m256i bits = move_bits(line, form.high_bits * (k % per_line), form.low_bits);
        code = _mm256_or_si256(code, _mm256_and_si256(bits, _mm256_set1_epi8((char)mask)));
    }
    if (form.table) {
        const __m128i levels = _mm_loadu_si128((const __m128i *)bw_iq4_levels);
        const __m128i moved = _mm_xor_si128(levels, _mm_set1_epi8(wants_signed(form) ? 0 : (char)0x80));
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(moved), code);
    }
    return form.low_bits == 8 && wants_signed(form) ? _mm256_xor_si256(code, _mm256_set1_epi8((char)0x80)) : code;
}

/* Pieces first .. first + 3 of a group; p: the group's first line. */
INLINE void open_codes(__m256i (*code)[4], bw_pack_form form, const u8 *p, int first)
{
    UNROLL for (int k = 0; k < 4; k++)
        UNROLL for (int h = 0; h < 2; h++)
            code[h][k] = open_piece(form, p + 32 * h, first + k);
}

INLINE void ask_ahead(bw_pack_form form, const u8 *codes)
{
    UNROLL for (int i = 0; i < form.low_bits + form.high_bits; i++)
        _mm_prefetch((const char *)codes + 64 * i + READ_AHEAD, _MM_HINT_T0);
}

/* ---- rows ---- */

/* dot - offset * sum */
INLINE __m256 settle(bw_pack_form form, __m256i dot, __m256i sum)
{
    static const int shifts[] = { [4] = 2, [8] = 3, [16] = 4, [32] = 5, [128] = 7 };
    const int offset = code_offset(form);
    return _mm256_cvtepi32_ps(offset ? _mm256_sub_epi32(dot, _mm256_slli_epi32(sum, shifts[offset])) : dot);
}

INLINE bool is_halved(bw_pack_form form)
{
    return form.head == BW_HEAD_K_HALF || form.head == BW_HEAD_K_HALF_MIN;
}

/* Four pieces, whose codes are `code`, times 16 columns, on top of what `dots` has unless they are the first. */
INLINE void add_pieces(bw_pack_form form, __m256i dots[2], bool first, __m256i (*code)[4], const int8_t *q)
{
    __m256i x[4];
    UNROLL for (int k = 0; k < 4; k++) {
        int32_t four;
        memcpy(&four, q + 4 * k, sizeof four);
        x[k] = _mm256_set1_epi32(four);
    }
    UNROLL for (int h = 0; h < 2; h++)
        dots[h] = four_products(form, dots[h], first, code[h], x);
}

/* The first half of group g of a brick times entry `at` of the rows: as far as it goes */
INLINE void begin_product(bw_pack_form form, __m256i part[2], const brick_head *head, int g, __m256i (*code)[4],
                          const bw_q8_rows *x, size_t at)
{
    add_pieces(form, part, true, code, x->q + at * BW_Q8_GROUP);
    if (is_halved(form)) {
        const __m256i first = _mm256_set1_epi32(x->half[at]);
        UNROLL for (int h = 0; h < 2; h++) {
            const __m256 dot = settle(form, end_dot(form, part[h], 4), first);
            part[h] = _mm256_castps_si256(_mm256_mul_ps(dot, head->scale[2 * g][h]));
        }
    }
}

/* The second half, and the product */
INLINE void end_product(bw_pack_form form, __m256 product[2], const __m256i part[2], const brick_head *head, int g,
                        __m256i (*code)[4], const bw_q8_rows *x, size_t at)
{
    __m256i dots[2] = { part[0], part[1] };
    add_pieces(form, dots, is_halved(form), code, x->q + at * BW_Q8_GROUP + 16);
    const __m256i sum = _mm256_set1_epi32(x->sum[at]);
    if (!is_halved(form)) {
        UNROLL for (int h = 0; h < 2; h++) {
            product[h] = _mm256_mul_ps(settle(form, end_dot(form, dots[h], 8), sum), head->scale[g][h]);
            if (form.head == BW_HEAD_D_M || form.head == BW_HEAD_K_MIN)
                product[h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), head->minimum[g][h], product[h]);
        }
        return;
    }
    const __m256i first = _mm256_set1_epi32(x->half[at]), rest = _mm256_sub_epi32(sum, first);
    UNROLL for (int h = 0; h < 2; h++) {
        product[h] = _mm256_fmadd_ps(settle(form, end_dot(form, dots[h], 4), rest), head->scale[2 * g + 1][h],
                                     _mm256_castsi256_ps(part[h]));
        if (form.head == BW_HEAD_K_HALF_MIN) {
            product[h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(first), head->minimum[2 * g][h], product[h]);
            product[h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(rest), head->minimum[2 * g + 1][h], product[h]);
        }
    }
}

INLINE void put(float *y, __m256 sums, int lanes, bool add)
{
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    if (lanes >= 8) {
        _mm256_storeu_ps(y, add ? _mm256_add_ps(_mm256_loadu_ps(y), sums) : sums);
    } else if (lanes > 0) {
        if (add)
            sums = _mm256_add_ps(_mm256_maskload_ps(y, mask), sums);
        _mm256_maskstore_ps(y, mask, sums);
    }
}

INLINE void tile(bw_dtype type, int n, const u8 *panel, const row_tile *rows, const output_tile *out)
{
    const bw_pack_form form = bw_pack_form_of(type);
    const int brick_groups = bw_pack_brick_groups(form);
    const bw_q8_rows *x = rows->x;
    __m256 sums[16][2];
    __m256i parts[16][2], code[2][4];
    brick_head head;
    for (int r = 0; r < n; r++)
        sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    size_t at = rows->first;
    for (int done = 0; done < rows->n_groups; done += brick_groups) {
        const int left = rows->n_groups - done, some = left < brick_groups ? left : brick_groups;
        open_half_head(&head, form, panel, 0);
        open_half_head(&head, form, panel, 1);
        const u8 *codes = panel + bw_pack_head_bytes(form);
        panel += bw_pack_brick_bytes(form);
        for (int g = 0; g < some; g++, codes += bw_pack_group_bytes(form), at += rows->step) {
            ask_ahead(form, codes);
            open_codes(code, form, codes, 0);
            for (int r = 0; r < n; r++)
                begin_product(form, parts[r], &head, g, code, x, at + (size_t)r);
            open_codes(code, form, codes, 4);
            for (int r = 0; r < n; r++) {
                const __m256 scale = _mm256_broadcast_ss(&x->scale[at + (size_t)r]);
                __m256 product[2];
                end_product(form, product, parts[r], &head, g, code, x, at + (size_t)r);
                UNROLL for (int h = 0; h < 2; h++)
                    sums[r][h] = _mm256_fmadd_ps(product[h], scale, sums[r][h]);
            }
        }
    }
    for (int r = 0; r < n; r++) {
        put(out->y + (size_t)r * out->stride, sums[r][0], out->lanes, out->add);
        put(out->y + (size_t)r * out->stride + 8, sums[r][1], out->lanes - 8, out->add);
    }
}

#endif
