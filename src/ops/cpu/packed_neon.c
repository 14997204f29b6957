/* packed_neon.c - products of packed weights (pack.h) with rounded rows, by dot products of signed bytes.
 * Any thread.
 *
 * A panel of 16 output rows is four registers wide; a lane is an output row. For each group of 32 columns a
 * row takes 8 dot instructions a register, whose second factor is four of its columns by lane number, and two
 * or three roundings to f32:
 *
 *     t = dot * scale [+ (sum of q) * minimum];  sum += t * (scale of the row's group)
 *
 * in the order of the columns: the same order of roundings as in packed_avx512.c. How many rows share a
 * panel's codes, and how many registers of it are at work at a time, changes which registers hold the sums
 * and nothing else.
 *
 * Codes are made signed while they are unpacked. With an offset a code of b bits is put at the top of its
 * byte and the top bit flipped: (code - offset) * 2^(8 - b), for the offset is 2^(b - 1); the power of two is
 * taken out when the sum of products, below 2^24, becomes a float. Codes without one have at most 5 bits and
 * stay as they are. */
#include "ops/cpu/neon.h"

enum { COUNTED_TILES = 1 };
#include "ops/cpu/packed_drive.h"

enum {
    PARTS = 4,         /* registers that a panel is wide */
    READ_AHEAD = 2048, /* bytes of codes asked for before they are used */
};

/* ---- heads ---- */

/* What the head of a brick says of four output rows, as floats; by half group where the type has it so. */
typedef struct brick_head {
    float32x4_t scale[2 * MAX_GROUPS], minimum[2 * MAX_GROUPS];
} brick_head;

INLINE float32x4_t halves(const u8 *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

INLINE uint32x4_t words(const u8 *p)
{
    return vreinterpretq_u32_u8(vld1q_u8(p));
}

INLINE uint32x4_t four_bytes(const u8 *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)))));
}

INLINE float32x4_t signed_bytes(const u8 *p)
{
    const int32x4_t words_of_bytes = vshlq_n_s32(vreinterpretq_s32_u32(four_bytes(p)), 24);
    return vcvtq_f32_s32(vshrq_n_s32(words_of_bytes, 24));
}

/* Field g of four low bits in `low` and two high ones from bit `at` of `high`: both at the top of the word,
 * then down together. */
INLINE float32x4_t six_bits(uint32x4_t low, uint32x4_t high, int g, int at)
{
    const uint32x4_t lower = low << (28 - 4 * g), upper = high << (30 - at - 2 * g);
    return vcvtq_f32_u32(vshrq_n_u32(vsriq_n_u32(upper, lower, 2), 26));
}

/* Part `part` of the head at p of a brick of two groups. */
INLINE void open_short_head(brick_head *head, bw_pack_head kind, const u8 *p, int part)
{
    UNROLL for (int g = 0; g < 2; g++) {
        head->scale[g] = halves(p + 32 * g + 8 * part);
        if (kind == BW_HEAD_D_M)
            head->minimum[g] = halves(p + 64 + 32 * g + 8 * part);
    }
}

/* The same of a brick of eight groups; once for many products, so not worth a copy in every tile. */
static __attribute__((noinline)) void open_long_head(brick_head *head, bw_pack_head kind, const u8 *p, int part)
{
    const float32x4_t d = halves(p + 8 * part), lowest = vnegq_f32(halves(p + 32 + 8 * part));
    const u8 *scales = p + 64 + 4 * part;
    if (kind == BW_HEAD_K_MIN) {
        const u8 *fields = p + 64 + 16 * part;
        const uint32x4_t low = words(fields), lift = words(fields + 64), high = words(fields + 128);
        UNROLL for (int g = 0; g < 8; g++) {
            head->scale[g] = vmulq_f32(d, six_bits(low, high, g, 0));
            head->minimum[g] = vmulq_f32(lowest, six_bits(lift, high, g, 16));
        }
    } else if (kind == BW_HEAD_K_HALF_MIN) {
        UNROLL for (int h = 0; h < 16; h++) {
            const uint32x4_t both = four_bytes(scales + 16 * h);
            head->scale[h] = vmulq_f32(d, vcvtq_f32_u32(vandq_u32(both, vdupq_n_u32(15))));
            head->minimum[h] = vmulq_f32(lowest, vcvtq_f32_u32(vshrq_n_u32(both, 4)));
        }
    } else {
        const int n = kind == BW_HEAD_K ? 8 : 16;
        for (int i = 0; i < n; i++)
            head->scale[i] = vmulq_f32(d, signed_bytes(scales + 16 * i));
    }
}

/* ---- codes ---- */

/* Zero bits below a signed code. */
INLINE int code_fraction(bw_pack_form form)
{
    return form.offset ? 8 - form.low_bits - form.high_bits : 0;
}

INLINE uint8x16_t each(int byte)
{
    return vdupq_n_u8((u8)byte);
}

/* Bits move up by n within each byte, down for n < 0. */
INLINE uint8x16_t shifted(uint8x16_t x, int n)
{
    return n < 0 ? x >> -n : x << n;
}

/* Low bits of piece k at the top of the byte, other pieces' below it. */
INLINE uint8x16_t low_on_top(bw_pack_form form, const uint8x16_t *lines, int k)
{
    const int per_line = 8 / form.low_bits, place = k % per_line * form.low_bits;
    return shifted(lines[k / per_line], 8 - form.low_bits - place);
}

/* The same of the high bits. */
INLINE uint8x16_t high_on_top(bw_pack_form form, const uint8x16_t *high, int k)
{
    const int per_line = 8 / form.high_bits, place = k % per_line * form.high_bits;
    return shifted(high[k / per_line], 8 - form.high_bits - place);
}

/* Piece k at the top of the byte, with whatever bits below it. */
INLINE uint8x16_t on_top(bw_pack_form form, const uint8x16_t *lines, const uint8x16_t *high, int k)
{
    const uint8x16_t low = low_on_top(form, lines, k);
    switch (form.high_bits) {
    case 1: return vsriq_n_u8(high_on_top(form, high, k), low, 1);
    case 2: return vsriq_n_u8(high_on_top(form, high, k), low, 2);
    default: return low;
    }
}

/* The code alone: at the top if it has an offset, else at the bottom. */
INLINE uint8x16_t alone(bw_pack_form form, uint8x16_t top, bool is_clean)
{
    const int bits = form.low_bits + form.high_bits;
    if (bits == 8 || (form.offset && is_clean))
        return top;
    return form.offset ? vandq_u8(top, each(0xFF << (8 - bits))) : shifted(top, bits - 8);
}

/* The 8 pieces of a group for the four output rows at p. */
INLINE void open_codes(int8x16_t code[8], bw_pack_form form, const u8 *p, bool first)
{
    uint8x16_t lines[8], high[2];
    UNROLL for (int i = 0; i < form.low_bits + form.high_bits; i++) {
        if (first) /* what comes later finds the line in the cache */
            __builtin_prefetch(p + BW_PACK_LINE * i + READ_AHEAD);
        const uint8x16_t line = vld1q_u8(p + BW_PACK_LINE * i);
        if (i < form.low_bits)
            lines[i] = line;
        else
            high[i - form.low_bits] = line;
    }
    /* the top bit of every code flipped, where it is still one of few registers */
    if (form.offset && form.high_bits)
        UNROLL for (int i = 0; i < form.high_bits; i++)
            high[i] = veorq_u8(high[i], each(form.high_bits == 1 ? 0xFF : 0xAA));
    else if (form.offset)
        UNROLL for (int i = 0; i < form.low_bits; i++)
            lines[i] = veorq_u8(lines[i], each(form.low_bits == 8 ? 0x80 : 0x88));
    UNROLL for (int k = 0; k < 8; k++) {
        /* plain nibbles: nothing to put together */
        const bool nibbles = form.low_bits == 4 && !form.high_bits && !form.offset;
        /* a code whose low bits were at the bottom of their byte has zeros below it once it is at the top */
        const bool is_clean = form.low_bits < 8 && k % (8 / form.low_bits) == 0;
        uint8x16_t bits;
        if (nibbles)
            bits = k % 2 ? vshrq_n_u8(lines[k / 2], 4) : vandq_u8(lines[k / 2], each(15));
        else
            bits = alone(form, on_top(form, lines, high, k), is_clean);
        code[k] = form.table ? vqtbl1q_s8(vld1q_s8(bw_iq4_levels), bits) : vreinterpretq_s8_u8(bits);
    }
}

/* ---- rows ---- */

/* The sum of products as a float, the fraction of its codes taken out. */
INLINE float32x4_t settle(bw_pack_form form, int32x4_t dot)
{
    switch (code_fraction(form)) {
    case 2: return vcvtq_n_f32_s32(dot, 2);
    case 3: return vcvtq_n_f32_s32(dot, 3);
    case 4: return vcvtq_n_f32_s32(dot, 4);
    case 5: return vcvtq_n_f32_s32(dot, 5);
    default: return vcvtq_f32_s32(dot);
    }
}

/* Four pieces by 16 columns of a row */
INLINE int32x4_t dot_half(int32x4_t dot, const int8x16_t code[4], int8x16_t q)
{
    dot = vdotq_laneq_s32(dot, code[0], q, 0);
    dot = vdotq_laneq_s32(dot, code[1], q, 1);
    dot = vdotq_laneq_s32(dot, code[2], q, 2);
    return vdotq_laneq_s32(dot, code[3], q, 3);
}

/* Group g of a brick, whose codes are `code`, times entry `at` of the rows */
INLINE float32x4_t group_product(bw_pack_form form, const brick_head *head, int g, const int8x16_t code[8],
                                 const bw_q8_rows *x, size_t at)
{
    const int8x16_t first = vld1q_s8(x->q + at * BW_Q8_GROUP), second = vld1q_s8(x->q + at * BW_Q8_GROUP + 16);
    const int32x4_t dot = dot_half(vdupq_n_s32(0), code, first);
    if (form.head != BW_HEAD_K_HALF && form.head != BW_HEAD_K_HALF_MIN) {
        const float32x4_t t = vmulq_f32(settle(form, dot_half(dot, code + 4, second)), head->scale[g]);
        const bool lifted = form.head == BW_HEAD_D_M || form.head == BW_HEAD_K_MIN;
        return lifted ? vfmaq_n_f32(t, head->minimum[g], (float)x->sum[at]) : t;
    }
    float32x4_t t = vmulq_f32(settle(form, dot), head->scale[2 * g]);
    t = vfmaq_f32(t, settle(form, dot_half(vdupq_n_s32(0), code + 4, second)), head->scale[2 * g + 1]);
    if (form.head == BW_HEAD_K_HALF_MIN) {
        t = vfmaq_n_f32(t, head->minimum[2 * g], (float)x->half[at]);
        t = vfmaq_n_f32(t, head->minimum[2 * g + 1], (float)(x->sum[at] - x->half[at]));
    }
    return t;
}

static __attribute__((noinline)) void put_results(const output_tile *out, const float32x4_t *results, int n, int part,
                                                  int n_parts)
{
    for (int r = 0; r < n; r++)
        for (int j = part; j < part + n_parts; j++, results++) {
            const int left = out->lanes - 4 * j;
            float *y = out->y + (size_t)r * out->stride + 4 * j;
            if (left > 0)
                bw_neon_store(y, left, out->add ? vaddq_f32(bw_neon_load(y, left), *results) : *results);
        }
}

/* n <= 16 rows by parts part .. part + n_parts - 1 of a panel, n * n_parts <= 16 */
INLINE void tile_parts(bw_dtype type, int n, int part, int n_parts, const u8 *panel, const row_tile *rows,
                       const output_tile *out)
{
    const bw_pack_form form = bw_pack_form_of(type);
    const int brick_groups = bw_pack_brick_groups(form);
    const bw_q8_rows *x = rows->x;
    float32x4_t sums[16][PARTS];
    brick_head heads[PARTS];
    UNROLL for (int r = 0; r < n; r++)
        UNROLL for (int j = 0; j < n_parts; j++)
            sums[r][j] = vdupq_n_f32(0);
    size_t at = rows->first;
    for (int done = 0; done < rows->n_groups; done += brick_groups) {
        const int left = rows->n_groups - done, some = left < brick_groups ? left : brick_groups;
        for (int j = 0; j < n_parts; j++) {
            if (brick_groups == 2)
                open_short_head(&heads[j], form.head, panel, part + j);
            else
                open_long_head(&heads[j], form.head, panel, part + j);
        }
        const u8 *codes = panel + bw_pack_head_bytes(form) + 16 * part;
        panel += bw_pack_brick_bytes(form);
        for (int g = 0; g < some; g++, codes += bw_pack_group_bytes(form), at += rows->step)
            UNROLL for (int j = 0; j < n_parts; j++) {
                int8x16_t code[8];
                open_codes(code, form, codes + 16 * j, part + j == 0);
                UNROLL for (int r = 0; r < n; r++) {
                    const float32x4_t t = group_product(form, &heads[j], g, code, x, at + (size_t)r);
                    sums[r][j] = vfmaq_n_f32(sums[r][j], t, x->scale[at + (size_t)r]);
                }
            }
    }
    float32x4_t results[16 * PARTS]; /* sums alone would have to stay in memory */
    UNROLL for (int r = 0; r < n; r++)
        UNROLL for (int j = 0; j < n_parts; j++)
            results[r * n_parts + j] = sums[r][j];
    put_results(out, results, n, part, n_parts);
}

/* All of a panel: as many parts at a time as there are registers for sums */
INLINE void tile(bw_dtype type, int n, const u8 *panel, const row_tile *rows, const output_tile *out)
{
    const int n_parts = n <= 4 ? 4 : n <= 8 ? 2 : 1;
    for (int part = 0; part < PARTS; part += n_parts)
        tile_parts(type, n, part, n_parts, panel, rows, out);
}

void bw_cpu_fill_neon_packed(bw_cpu_kernels *k)
{
    k->packs = true;
    k->matmul_int8 = matmul_int8;
}
