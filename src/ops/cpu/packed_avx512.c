/* packed_avx512.c - products of packed weights (pack.h) with rounded rows, by VNNI. Any thread.
 *
 * Lane r of every register is output row r of a panel. For each group of 32 columns a row takes 8 dot
 * instructions, whose second factor is four of its columns in all lanes, and two or three roundings to f32:
 *
 *     t = dot * scale [+ (sum of q) * minimum];  sum += t * (scale of the row's group)
 *
 * in the order of the columns. How many rows share a panel's codes changes which registers hold the sums and
 * nothing else. */
#include <immintrin.h>

enum { COUNTED_TILES = 1 };
#include "ops/cpu/packed_drive.h"

enum {
    READ_AHEAD = 4096, /* bytes of codes asked for before they are used; see docs/performance.md */
    SPLIT_ROWS = 4,    /* so few rows leave the dots of a group waiting for each other: two chains of four */
};

/* ---- weights ---- */

/* What the head of a brick says, as floats; by half group where the type has it so. */
typedef struct brick_head {
    __m512 scale[2 * MAX_GROUPS], minimum[2 * MAX_GROUPS];
} brick_head;

INLINE __m512 halves(const u8 *p)
{
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)p));
}

INLINE __m512 bytes_to_floats(const u8 *p, bool is_signed)
{
    const __m128i bytes = _mm_load_si128((const __m128i *)p);
    return _mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
}

/* Field g of four low bits in `low` and two high ones from bit `at` of `high` */
INLINE __m512 six_bits(__m512i low, __m512i high, int g, int at)
{
    const __m512i first = _mm512_and_si512(_mm512_srli_epi32(low, (unsigned)(4 * g)), _mm512_set1_epi32(15));
    const int place = at + 2 * g - 4; /* of the high bits, to bits 4 and 5 */
    const __m512i second = place < 0 ? _mm512_slli_epi32(high, (unsigned)-place)
                                     : _mm512_srli_epi32(high, (unsigned)place);
    return _mm512_cvtepi32_ps(_mm512_ternarylogic_epi32(first, second, _mm512_set1_epi32(0x30), 0xF8));
}

INLINE void open_head(brick_head *head, bw_pack_form form, const u8 *p)
{
    const __m512 d = halves(p);
    if (form.head == BW_HEAD_D || form.head == BW_HEAD_D_M) {
        head->scale[0] = d;
        head->scale[1] = halves(p + 32);
        if (form.head == BW_HEAD_D_M) {
            head->minimum[0] = halves(p + 64);
            head->minimum[1] = halves(p + 96);
        }
    } else if (form.head == BW_HEAD_K_MIN) {
        const __m512 lowest = _mm512_sub_ps(_mm512_setzero_ps(), halves(p + 32));
        const __m512i low = _mm512_load_si512(p + 64), lift = _mm512_load_si512(p + 128);
        const __m512i high = _mm512_load_si512(p + 192);
        UNROLL for (int g = 0; g < 8; g++) {
            head->scale[g] = _mm512_mul_ps(d, six_bits(low, high, g, 0));
            head->minimum[g] = _mm512_mul_ps(lowest, six_bits(lift, high, g, 16));
        }
    } else if (form.head == BW_HEAD_K_HALF_MIN) {
        const __m512 lowest = _mm512_sub_ps(_mm512_setzero_ps(), halves(p + 32));
        for (int h = 0; h < 16; h++) {
            const __m512i both = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(p + 64 + 16 * h)));
            head->scale[h] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(15))));
            head->minimum[h] = _mm512_mul_ps(lowest, _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4)));
        }
    } else {
        const int n = form.head == BW_HEAD_K ? 8 : 16;
        UNROLL for (int i = 0; i < n; i++)
            head->scale[i] = _mm512_mul_ps(d, bytes_to_floats(p + 64 + 16 * i, true));
    }
}

/* Bits of `line` from bit `from` on to bit `to` on; the caller masks what else is there. */
INLINE __m512i move_bits(__m512i line, int from, int to)
{
    return from > to ? _mm512_srli_epi16(line, (unsigned)(from - to)) : _mm512_slli_epi16(line, (unsigned)(to - from));
}

INLINE __m512i low_piece(bw_pack_form form, const __m512i *lines, int k)
{
    if (form.low_bits == 8)
        return lines[k];
    if (form.low_bits == 4)
        return _mm512_and_si512(move_bits(lines[k / 2], 4 * (k % 2), 0), _mm512_set1_epi8(15));
    return _mm512_and_si512(move_bits(lines[k / 4], 2 * (k % 4), 0), _mm512_set1_epi8(3));
}

/* The 8 pieces of a group, codes unsigned, levels of a table moved up by 128. */
INLINE void open_codes(__m512i code[8], bw_pack_form form, const u8 *p)
{
    __m512i lines[8], high[2];
    UNROLL for (int i = 0; i < form.low_bits; i++) {
        _mm_prefetch((const char *)p + 64 * i + READ_AHEAD, _MM_HINT_T0);
        lines[i] = _mm512_load_si512(p + 64 * i);
    }
    UNROLL for (int i = 0; i < form.high_bits; i++) {
        _mm_prefetch((const char *)p + 64 * (form.low_bits + i) + READ_AHEAD, _MM_HINT_T0);
        high[i] = _mm512_load_si512(p + 64 * (form.low_bits + i));
    }
    UNROLL for (int k = 0; k < 8; k++) {
        code[k] = low_piece(form, lines, k);
        if (form.high_bits == 1)
            code[k] = _mm512_ternarylogic_epi32(code[k], move_bits(high[0], k, form.low_bits),
                                                _mm512_set1_epi8((char)(1 << form.low_bits)), 0xF8);
        if (form.high_bits == 2)
            code[k] = _mm512_ternarylogic_epi32(code[k], move_bits(high[k / 4], 2 * (k % 4), form.low_bits),
                                                _mm512_set1_epi8((char)(3 << form.low_bits)), 0xF8);
        if (form.table) {
            const __m128i levels = _mm_loadu_si128((const __m128i *)bw_iq4_levels);
            const __m128i up = _mm_xor_si128(levels, _mm_set1_epi8((char)0x80));
            code[k] = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(up), code[k]);
        }
    }
}

/* ---- rows ---- */

/* dot - offset * sum */
INLINE __m512 settle(bw_pack_form form, __m512i dot, __m512i sum)
{
    static const int shifts[] = { [4] = 2, [8] = 3, [16] = 4, [32] = 5, [128] = 7 };
    const int offset = form.table ? 128 : form.offset;
    return _mm512_cvtepi32_ps(offset ? _mm512_sub_epi32(dot, _mm512_slli_epi32(sum, (unsigned)shifts[offset])) : dot);
}

/* dot + code * (four columns in all lanes). By name because gcc 12 makes the broadcast of _mm512_dpbusd_epi32 an
 * instruction of its own, with a register of its own. As part of the dot it is nearly free: 8 dots take 8.1 cycles
 * with it, 8.0 without, 8 broadcasts alone 4.0 (AMD EPYC, Zen 4, 2026-11-21; docs/performance.md). May go when the
 * oldest gcc we build with leaves no vpbroadcastd in the loops of this file without it. */
INLINE __m512i add_columns(__m512i dot, __m512i code, const int8_t *q)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(dot) : "v"(code), "m"(*(const int8_t(*)[4])q));
    return dot;
}

INLINE bool is_halved(bw_pack_form form)
{
    return form.head == BW_HEAD_K_HALF || form.head == BW_HEAD_K_HALF_MIN;
}

/* What the dots of group g of a brick with entry `at` of the rows come to; dot[1] counts if halves have scales of
 * their own. */
INLINE __m512 scaled(bw_pack_form form, const brick_head *head, int g, const __m512i dot[2], const bw_q8_rows *x,
                     size_t at)
{
    const __m512i sum = _mm512_set1_epi32(x->sum[at]);
    if (!is_halved(form)) {
        const __m512 t = _mm512_mul_ps(settle(form, dot[0], sum), head->scale[g]);
        const bool lifted = form.head == BW_HEAD_D_M || form.head == BW_HEAD_K_MIN;
        return lifted ? _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), head->minimum[g], t) : t;
    }
    const __m512i half = _mm512_set1_epi32(x->half[at]), rest = _mm512_sub_epi32(sum, half);
    __m512 t = _mm512_mul_ps(settle(form, dot[0], half), head->scale[2 * g]);
    t = _mm512_fmadd_ps(settle(form, dot[1], rest), head->scale[2 * g + 1], t);
    if (form.head == BW_HEAD_K_HALF_MIN) {
        t = _mm512_fmadd_ps(_mm512_cvtepi32_ps(half), head->minimum[2 * g], t);
        t = _mm512_fmadd_ps(_mm512_cvtepi32_ps(rest), head->minimum[2 * g + 1], t);
    }
    return t;
}

/* Adds group g of a brick, whose codes are `code`, times n entries of the rows from `at` on to their sums. The rows'
 * dots take turns, so that none waits for the one before. */
INLINE void add_group(bw_pack_form form, __m512 *sums, int n, int n_chains, const brick_head *head, int g,
                      const __m512i code[8], const bw_q8_rows *x, size_t at)
{
    __m512i dot[8][2];
    UNROLL for (int r = 0; r < n; r++)
        dot[r][0] = dot[r][1] = _mm512_setzero_si512();
    UNROLL for (int k = 0; k < 8; k++)
        UNROLL for (int r = 0; r < n; r++) {
            const int8_t *q = x->q + (at + (size_t)r) * BW_Q8_GROUP + 4 * k;
            dot[r][k * n_chains / 8] = add_columns(dot[r][k * n_chains / 8], code[k], q);
        }
    UNROLL for (int r = 0; r < n; r++) {
        if (n_chains == 2 && !is_halved(form))
            dot[r][0] = _mm512_add_epi32(dot[r][0], dot[r][1]);
        const __m512 t = scaled(form, head, g, dot[r], x, at + (size_t)r);
        sums[r] = _mm512_fmadd_ps(t, _mm512_set1_ps(x->scale[at + (size_t)r]), sums[r]);
    }
}

INLINE void tile(bw_dtype type, int n, const u8 *panel, const row_tile *rows, const output_tile *out)
{
    const bw_pack_form form = bw_pack_form_of(type);
    const int brick_groups = bw_pack_brick_groups(form);
    const int n_chains = is_halved(form) || n <= SPLIT_ROWS ? 2 : 1;
    const int n_together = n > 8 ? 4 : n; /* what registers there are for */
    const bw_q8_rows *x = rows->x;
    __m512 sums[16];
    brick_head head;
    UNROLL for (int r = 0; r < n; r++)
        sums[r] = _mm512_setzero_ps();
    size_t at = rows->first;
    for (int done = 0; done < rows->n_groups; done += brick_groups) {
        const int left = rows->n_groups - done, some = left < brick_groups ? left : brick_groups;
        open_head(&head, form, panel);
        const u8 *codes = panel + bw_pack_head_bytes(form);
        panel += bw_pack_brick_bytes(form);
        for (int g = 0; g < some; g++, codes += bw_pack_group_bytes(form), at += rows->step) {
            __m512i code[8];
            open_codes(code, form, codes);
            UNROLL for (int r = 0; r < n; r += n_together)
                add_group(form, sums + r, n - r < n_together ? n - r : n_together, n_chains, &head, g, code, x,
                          at + (size_t)r);
        }
    }
    const __mmask16 lanes = out->lanes < 16 ? (__mmask16)((1u << out->lanes) - 1) : 0xFFFF;
    UNROLL for (int r = 0; r < n; r++) {
        float *y = out->y + (size_t)r * out->stride;
        if (out->add)
            sums[r] = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, y), sums[r]);
        _mm512_mask_storeu_ps(y, lanes, sums[r]);
    }
}

void bw_cpu_fill_avx512_packed(bw_cpu_kernels *k)
{
    k->packs = true;
    k->matmul_int8 = matmul_int8;
}
