/* pack.c - rows between the file's order and the order of pack.h. It moves bits: no value is computed.
 *
 * Codes pass through one form: a group of 32 as four words, byte j of word i the unsigned code of column
 * 8 i + j. Words hold eight codes at a time, so nothing here is specific to a level. Any thread. */
#include "ops/cpu/pack.h"

#include <assert.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bytes are moved as words: the byte order must be little-endian, as that of the files is"
#endif

typedef unsigned char u8;
typedef uint64_t codes[4];

#define EACH_BYTE(x) ((uint64_t)(x) * 0x0101010101010101u)

static inline uint64_t get_u64(const u8 *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline void put_u64(u8 *p, uint64_t x)
{
    memcpy(p, &x, sizeof x);
}

static inline uint32_t get_u32(const u8 *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline void put_u32(u8 *p, uint32_t x)
{
    memcpy(p, &x, sizeof x);
}

static inline void copy_u16(u8 *to, const u8 *from)
{
    memcpy(to, from, 2);
}

/* ---- codes of one row and group in the planes of a panel: `line` is the row's 4 bytes of the first line ---- */

/* A word is two pieces: the first stays in the low half, the second comes `bits` above it. */
static inline uint32_t fold(uint64_t word, int bits)
{
    return (uint32_t)(word | word >> (32 - bits));
}

static inline uint64_t unfold(uint32_t pair, int bits)
{
    return pair | (uint64_t)(pair >> bits) << 32;
}

static inline void put_plane(u8 *line, const codes c, int bits, int shift)
{
    const uint64_t mask = EACH_BYTE((1 << bits) - 1);
    uint32_t pair[4];
    if (bits == 8) {
        for (int i = 0; i < 4; i++) {
            put_u32(line + 128 * i, (uint32_t)c[i]);
            put_u32(line + 128 * i + 64, (uint32_t)(c[i] >> 32));
        }
        return;
    }
    for (int i = 0; i < 4; i++)
        pair[i] = fold(c[i] >> shift & mask, bits);
    if (bits == 4)
        for (int i = 0; i < 4; i++)
            put_u32(line + 64 * i, pair[i]);
    else if (bits == 2)
        for (int i = 0; i < 2; i++)
            put_u32(line + 64 * i, pair[2 * i] | pair[2 * i + 1] << 4);
    else
        put_u32(line, pair[0] | pair[1] << 2 | pair[2] << 4 | pair[3] << 6);
}

static inline void get_plane(codes c, const u8 *line, int bits, int shift)
{
    const uint64_t mask = EACH_BYTE((1 << bits) - 1);
    for (int i = 0; i < 4; i++) {
        if (bits == 8)
            c[i] = get_u32(line + 128 * i) | (uint64_t)get_u32(line + 128 * i + 64) << 32;
        else if (bits == 4)
            c[i] |= (unfold(get_u32(line + 64 * i), 4) & mask) << shift;
        else if (bits == 2)
            c[i] |= (unfold(get_u32(line + 64 * (i / 2)) >> 4 * (i % 2), 2) & mask) << shift;
        else
            c[i] |= (unfold(get_u32(line) >> 2 * i, 1) & mask) << shift;
    }
}

static inline void put_codes(u8 *line, bw_pack_form form, const codes c)
{
    put_plane(line, c, form.low_bits, 0);
    if (form.high_bits)
        put_plane(line + form.low_bits * BW_PACK_LINE, c, form.high_bits, form.low_bits);
}

static inline void get_codes(codes c, bw_pack_form form, const u8 *line)
{
    memset(c, 0, sizeof(codes));
    get_plane(c, line, form.low_bits, 0);
    if (form.high_bits)
        get_plane(c, line + form.low_bits * BW_PACK_LINE, form.high_bits, form.low_bits);
}

/* ---- codes of a file's block (docs/formats.md) ---- */

static inline void codes_from_bytes(codes c, const u8 *p)
{
    for (int i = 0; i < 4; i++)
        c[i] = get_u64(p + 8 * i) ^ EACH_BYTE(0x80);
}

static inline void codes_to_bytes(u8 *p, const codes c)
{
    for (int i = 0; i < 4; i++)
        put_u64(p + 8 * i, c[i] ^ EACH_BYTE(0x80));
}

/* 16 bytes: low nibbles are columns 0 .. 15 */
static inline void codes_from_nibbles(codes c, const u8 *p)
{
    for (int i = 0; i < 2; i++) {
        const uint64_t word = get_u64(p + 8 * i);
        c[i] = word & EACH_BYTE(15);
        c[i + 2] = word >> 4 & EACH_BYTE(15);
    }
}

static inline void codes_to_nibbles(u8 *p, const codes c)
{
    for (int i = 0; i < 2; i++)
        put_u64(p + 8 * i, (c[i] & EACH_BYTE(15)) | (c[i + 2] & EACH_BYTE(15)) << 4);
}

/* 4 bytes: bit j is bit 4 of the code of column j. Eight bits are spread over a word: copied to each byte, of
 * which byte j keeps bit j, which is then carried to bit 7. */
static inline void codes_add_fifth_bits(codes c, const u8 *p)
{
    for (int i = 0; i < 4; i++) {
        const uint64_t one = EACH_BYTE(p[i]) & 0x8040201008040201u;
        c[i] |= (one + EACH_BYTE(127)) >> 3 & EACH_BYTE(16);
    }
}

/* The product brings bit 4 of byte j to bit 56 + j. */
static inline void codes_to_fifth_bits(u8 *p, const codes c)
{
    for (int i = 0; i < 4; i++)
        p[i] = (u8)((c[i] >> 4 & EACH_BYTE(1)) * 0x0102040810204080u >> 56);
}

/* `bits` (2 or 1) of each of 32 bytes, from bit `from` on, become bits `to` .. of the codes. */
static inline void codes_add_bits(codes c, const u8 *p, int bits, int from, int to)
{
    for (int i = 0; i < 4; i++)
        c[i] |= (get_u64(p + 8 * i) >> from & EACH_BYTE((1 << bits) - 1)) << to;
}

/* Back: added to what the 32 bytes hold. */
static inline void codes_to_bits(u8 *p, const codes c, int bits, int from, int to)
{
    for (int i = 0; i < 4; i++)
        put_u64(p + 8 * i, get_u64(p + 8 * i) | (c[i] >> to & EACH_BYTE((1 << bits) - 1)) << from);
}

/* Where bits of the codes of group g of a 256-value block lie: `bits` of each of 32 bytes from `at` on. */
typedef struct stretch {
    int at, bits, from, to;
} stretch;

/* The one or two stretches of a group; the second has 0 bits where there is none. */
static inline void stretches_of(bw_dtype type, int g, stretch out[2])
{
    const int h = g / 4, k = g % 4;
    out[1] = (stretch){ 0 };
    switch (type) {
    case BW_Q2_K: out[0] = (stretch){ 16 + 32 * h, 2, 2 * k, 0 }; break;
    case BW_Q3_K:
        out[0] = (stretch){ 32 + 32 * h, 2, 2 * k, 0 };
        out[1] = (stretch){ 0, 1, g, 2 };
        break;
    case BW_Q4_K: out[0] = (stretch){ 16 + 32 * (g / 2), 4, 4 * (g % 2), 0 }; break;
    case BW_Q5_K:
        out[0] = (stretch){ 48 + 32 * (g / 2), 4, 4 * (g % 2), 0 };
        out[1] = (stretch){ 16, 1, g, 4 };
        break;
    default: /* Q6_K */
        out[0] = (stretch){ 64 * h + 32 * (k % 2), 4, 4 * (k / 2), 0 };
        out[1] = (stretch){ 128 + 32 * h, 2, 2 * k, 4 };
        break;
    }
}

/* Codes of group g of a block: g is 0 for blocks of 32. */
static inline void codes_in(codes c, bw_dtype type, const u8 *block, int g)
{
    stretch s[2];
    switch (type) {
    case BW_Q8_0: codes_from_bytes(c, block + 2); return;
    case BW_Q4_0:
    case BW_IQ4_NL: codes_from_nibbles(c, block + 2); return;
    case BW_Q4_1: codes_from_nibbles(c, block + 4); return;
    case BW_Q5_0:
        codes_from_nibbles(c, block + 6);
        codes_add_fifth_bits(c, block + 2);
        return;
    case BW_Q5_1:
        codes_from_nibbles(c, block + 8);
        codes_add_fifth_bits(c, block + 4);
        return;
    case BW_IQ4_XS: codes_from_nibbles(c, block + 8 + 16 * g); return;
    default: break;
    }
    stretches_of(type, g, s);
    memset(c, 0, sizeof(codes));
    for (int i = 0; i < 2 && s[i].bits; i++)
        codes_add_bits(c, block + s[i].at, s[i].bits, s[i].from, s[i].to);
}

/* The block's bytes are zero where stretches are added. */
static inline void codes_out(u8 *block, bw_dtype type, const codes c, int g)
{
    stretch s[2];
    switch (type) {
    case BW_Q8_0: codes_to_bytes(block + 2, c); return;
    case BW_Q4_0:
    case BW_IQ4_NL: codes_to_nibbles(block + 2, c); return;
    case BW_Q4_1: codes_to_nibbles(block + 4, c); return;
    case BW_Q5_0:
        codes_to_nibbles(block + 6, c);
        codes_to_fifth_bits(block + 2, c);
        return;
    case BW_Q5_1:
        codes_to_nibbles(block + 8, c);
        codes_to_fifth_bits(block + 4, c);
        return;
    case BW_IQ4_XS: codes_to_nibbles(block + 8 + 16 * g, c); return;
    default: break;
    }
    stretches_of(type, g, s);
    for (int i = 0; i < 2 && s[i].bits; i++)
        codes_to_bits(block + s[i].at, c, s[i].bits, s[i].from, s[i].to);
}

/* ---- scales and minima ---- */

/* The low `bits` (4 or 2) of four bytes side by side, and apart again. */
static inline uint32_t gather_bytes(uint32_t x, int bits)
{
    x &= (uint32_t)EACH_BYTE((1 << bits) - 1);
    x |= x >> (8 - bits);
    return (x & ((1u << 2 * bits) - 1)) | (x >> 16 & ((1u << 2 * bits) - 1)) << 2 * bits;
}

static inline uint32_t spread_bytes(uint32_t x, int bits)
{
    const uint32_t mask = (1u << bits) - 1;
    return (x & mask) | (x >> bits & mask) << 8 | (x >> 2 * bits & mask) << 16 | (x >> 3 * bits & mask) << 24;
}

/* The twelve bytes of Q4_K and Q5_K, three words a b c: byte k of a is the scale of group k and, in its top bits,
 * bits 4 and 5 of that of group k + 4; b so for minima; byte k of c has both low nibbles of group k + 4. */
static void k_scales_in(u8 *head, int lane, const u8 *p)
{
    const uint32_t a = get_u32(p), b = get_u32(p + 4), c = get_u32(p + 8);
    put_u32(head + 64 + 4 * lane, gather_bytes(a, 4) | gather_bytes(c, 4) << 16);
    put_u32(head + 128 + 4 * lane, gather_bytes(b, 4) | gather_bytes(c >> 4, 4) << 16);
    put_u32(head + 192 + 4 * lane, gather_bytes(a >> 4, 2) | gather_bytes(a >> 6, 2) << 8 |
                                       gather_bytes(b >> 4, 2) << 16 | gather_bytes(b >> 6, 2) << 24);
}

static void k_scales_out(u8 *p, const u8 *head, int lane)
{
    const uint32_t low = get_u32(head + 64 + 4 * lane), lift = get_u32(head + 128 + 4 * lane),
                   high = get_u32(head + 192 + 4 * lane);
    put_u32(p, spread_bytes(low, 4) | spread_bytes(high, 2) << 4 | spread_bytes(high >> 8, 2) << 6);
    put_u32(p + 4, spread_bytes(lift, 4) | spread_bytes(high >> 16, 2) << 4 | spread_bytes(high >> 24, 2) << 6);
    put_u32(p + 8, spread_bytes(low >> 16, 4) | spread_bytes(lift >> 16, 4) << 4);
}

/* 16 scales, one to a half group: in steps of a line's 16 rows. */
static void half_scales_in(u8 *scales, int lane, const u8 *p)
{
    for (int i = 0; i < 16; i++)
        scales[16 * i + lane] = p[i];
}

static void half_scales_out(u8 *p, const u8 *scales, int lane)
{
    for (int i = 0; i < 16; i++)
        p[i] = scales[16 * i + lane];
}

/* The twelve bytes of Q3_K, words a b c: byte k of a and b has the low nibbles of scales k, k + 8 and k + 4,
 * k + 12; byte k of c the high pairs of scales k, k + 4, k + 8, k + 12. 32 is taken from each. */
static void q3_k_scales_in(u8 *scales, int lane, const u8 *p)
{
    const uint64_t low = get_u64(p);
    const uint32_t c = get_u32(p + 8), pair = (uint32_t)EACH_BYTE(3);
    u8 plain[16];
    put_u64(plain, (low & EACH_BYTE(15)) | (uint64_t)(c & pair) << 4 | (uint64_t)(c >> 2 & pair) << 36);
    put_u64(plain + 8, (low >> 4 & EACH_BYTE(15)) | (uint64_t)(c >> 4 & pair) << 4 | (uint64_t)(c >> 6 & pair) << 36);
    for (int i = 0; i < 16; i++)
        scales[16 * i + lane] = (u8)(plain[i] - 32);
}

static void q3_k_scales_out(u8 *p, const u8 *scales, int lane)
{
    u8 plain[16];
    for (int i = 0; i < 16; i++)
        plain[i] = (u8)(scales[16 * i + lane] + 32);
    const uint64_t first = get_u64(plain), last = get_u64(plain + 8), pair = EACH_BYTE(3);
    const uint64_t high = (first >> 4 & pair) | (last >> 4 & pair) << 4;
    put_u64(p, (first & EACH_BYTE(15)) | (last & EACH_BYTE(15)) << 4);
    put_u32(p + 8, (uint32_t)high | (uint32_t)(high >> 32) << 2);
}

/* 2 bytes of high pairs, then 4 of low nibbles; 32 is taken from each. */
static void iq4_xs_scales_in(u8 *scales, int lane, const u8 *p)
{
    for (int g = 0; g < 8; g++) {
        const int low = p[2 + g / 2] >> 4 * (g % 2) & 15, high = p[g / 4] >> 2 * (g % 4) & 3;
        scales[16 * g + lane] = (u8)((low | high << 4) - 32);
    }
}

static void iq4_xs_scales_out(u8 *p, const u8 *scales, int lane)
{
    memset(p, 0, 6);
    for (int g = 0; g < 8; g++) {
        const int scale = (u8)(scales[16 * g + lane] + 32);
        p[g / 4] |= (u8)((scale >> 4) << 2 * (g % 4));
        p[2 + g / 2] |= (u8)((scale & 15) << 4 * (g % 2));
    }
}

/* g: the block's place in its brick. Heads of 256-value blocks have d in the first 32 bytes and, of those with
 * minima, dmin in the next; the rest comes after 64. */
static inline void head_in(u8 *head, bw_dtype type, int lane, const u8 *block, int g)
{
    switch (type) {
    case BW_Q4_1:
    case BW_Q5_1: copy_u16(head + 64 + 32 * g + 2 * lane, block + 2); /* falls through */
    case BW_Q8_0:
    case BW_Q4_0:
    case BW_Q5_0:
    case BW_IQ4_NL: copy_u16(head + 32 * g + 2 * lane, block); return;
    case BW_Q4_K:
    case BW_Q5_K:
        copy_u16(head + 2 * lane, block);
        copy_u16(head + 32 + 2 * lane, block + 2);
        k_scales_in(head, lane, block + 4);
        return;
    case BW_Q2_K:
        copy_u16(head + 2 * lane, block + 80);
        copy_u16(head + 32 + 2 * lane, block + 82);
        half_scales_in(head + 64, lane, block);
        return;
    case BW_Q3_K:
        copy_u16(head + 2 * lane, block + 108);
        q3_k_scales_in(head + 64, lane, block + 96);
        return;
    case BW_Q6_K:
        copy_u16(head + 2 * lane, block + 208);
        half_scales_in(head + 64, lane, block + 192);
        return;
    default: /* IQ4_XS */
        copy_u16(head + 2 * lane, block);
        iq4_xs_scales_in(head + 64, lane, block + 2);
        return;
    }
}

static inline void head_out(u8 *block, bw_dtype type, int lane, const u8 *head, int g)
{
    switch (type) {
    case BW_Q4_1:
    case BW_Q5_1: copy_u16(block + 2, head + 64 + 32 * g + 2 * lane); /* falls through */
    case BW_Q8_0:
    case BW_Q4_0:
    case BW_Q5_0:
    case BW_IQ4_NL: copy_u16(block, head + 32 * g + 2 * lane); return;
    case BW_Q4_K:
    case BW_Q5_K:
        copy_u16(block, head + 2 * lane);
        copy_u16(block + 2, head + 32 + 2 * lane);
        k_scales_out(block + 4, head, lane);
        return;
    case BW_Q2_K:
        copy_u16(block + 80, head + 2 * lane);
        copy_u16(block + 82, head + 32 + 2 * lane);
        half_scales_out(block, head + 64, lane);
        return;
    case BW_Q3_K:
        copy_u16(block + 108, head + 2 * lane);
        q3_k_scales_out(block + 96, head + 64, lane);
        return;
    case BW_Q6_K:
        copy_u16(block + 208, head + 2 * lane);
        half_scales_out(block + 192, head + 64, lane);
        return;
    default: /* IQ4_XS */
        copy_u16(block, head + 2 * lane);
        iq4_xs_scales_out(block + 2, head + 64, lane);
        return;
    }
}

/* ---- rows ---- */

/* Group by group. Compiled once for each type, so that every switch above is gone. */
static inline __attribute__((always_inline)) void row_in(u8 *panel, bw_dtype type, int cols, int lane, const u8 *block,
                                                         int block_bytes)
{
    const bw_pack_form form = bw_pack_form_of(type);
    const int n_groups = cols / 32, brick_groups = bw_pack_brick_groups(form), block_groups = brick_groups == 2 ? 1 : 8;
    u8 *brick = panel;
    for (int first = 0; first < n_groups; first += brick_groups, brick += bw_pack_brick_bytes(form)) {
        u8 *line = brick + bw_pack_head_bytes(form) + 4 * lane;
        for (int g = 0; g < brick_groups && first + g < n_groups; g++, line += bw_pack_group_bytes(form)) {
            codes c;
            if (g % block_groups == 0)
                head_in(brick, type, lane, block, g);
            codes_in(c, type, block, g % block_groups);
            put_codes(line, form, c);
            if ((g + 1) % block_groups == 0)
                block += block_bytes;
        }
    }
}

static inline __attribute__((always_inline)) void row_out(u8 *block, bw_dtype type, int cols, int lane, const u8 *panel,
                                                          int block_bytes)
{
    const bw_pack_form form = bw_pack_form_of(type);
    const int n_groups = cols / 32, brick_groups = bw_pack_brick_groups(form), block_groups = brick_groups == 2 ? 1 : 8;
    const u8 *brick = panel;
    for (int first = 0; first < n_groups; first += brick_groups, brick += bw_pack_brick_bytes(form)) {
        const u8 *line = brick + bw_pack_head_bytes(form) + 4 * lane;
        for (int g = 0; g < brick_groups && first + g < n_groups; g++, line += bw_pack_group_bytes(form)) {
            codes c;
            if (g % block_groups == 0) {
                memset(block, 0, (size_t)block_bytes);
                head_out(block, type, lane, brick, g);
            }
            get_codes(c, form, line);
            codes_out(block, type, c, g % block_groups);
            if ((g + 1) % block_groups == 0)
                block += block_bytes;
        }
    }
}

#define EACH_TYPE(X) \
    X(BW_Q8_0) X(BW_Q4_0) X(BW_Q4_1) X(BW_Q5_0) X(BW_Q5_1) X(BW_IQ4_NL) \
    X(BW_Q2_K) X(BW_Q3_K) X(BW_Q4_K) X(BW_Q5_K) X(BW_Q6_K) X(BW_IQ4_XS)

void bw_pack_row_in(void *panel, bw_dtype type, int cols, int lane, const void *row)
{
    const int bytes = bw_dtype_get(type)->bytes;
    assert(lane >= 0 && lane < BW_PANEL_ROWS && cols % bw_dtype_get(type)->elements == 0);
    switch (type) {
#define CASE(t) case t: row_in(panel, t, cols, lane, row, bytes); return;
    EACH_TYPE(CASE)
#undef CASE
    default: assert(!"floats are not packed");
    }
}

void bw_pack_row_out(void *row, bw_dtype type, int cols, int lane, const void *panel)
{
    const int bytes = bw_dtype_get(type)->bytes;
    assert(lane >= 0 && lane < BW_PANEL_ROWS && cols % bw_dtype_get(type)->elements == 0);
    switch (type) {
#define CASE(t) case t: row_out(row, t, cols, lane, panel, bytes); return;
    EACH_TYPE(CASE)
#undef CASE
    default: assert(!"floats are not packed");
    }
}
