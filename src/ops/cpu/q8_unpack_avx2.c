/* q8_unpack_avx2.c - packed weights to floats by int8 codes, 32 at a time; the codes and scales of
 * q8_unpack_ref.c bit for bit. Layouts: docs/formats.md. Any thread. */
#include <immintrin.h>
#include <string.h>

#include "base/dequant.h"
#include "ops/cpu/q8.h"

typedef unsigned char u8;

static inline uint16_t get_u16(const u8 *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t get_u32(const u8 *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t get_u64(const u8 *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float get_half(const u8 *p)
{
    return _cvtsh_ss(get_u16(p));
}

static inline __m256i load_32(const u8 *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

static inline void put_codes(bw_q8_chunk *out, int group, __m256i codes)
{
    _mm256_storeu_si256((__m256i *)(out->code + 32 * group), codes);
}

static inline void put_ints(int32_t *out, __m128i bytes, bool is_signed) /* the low 8 bytes */
{
    _mm256_storeu_si256((__m256i *)out, is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
}

/* Halves at p, p + stride ... to floats */
static inline void halves(float *out, const u8 *p, int stride, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8, p += 8 * stride) {
        __m128i h = _mm_cvtsi32_si128(get_u16(p));
        h = _mm_insert_epi16(h, get_u16(p + stride), 1);
        h = _mm_insert_epi16(h, get_u16(p + 2 * stride), 2);
        h = _mm_insert_epi16(h, get_u16(p + 3 * stride), 3);
        h = _mm_insert_epi16(h, get_u16(p + 4 * stride), 4);
        h = _mm_insert_epi16(h, get_u16(p + 5 * stride), 5);
        h = _mm_insert_epi16(h, get_u16(p + 6 * stride), 6);
        h = _mm_insert_epi16(h, get_u16(p + 7 * stride), 7);
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(h));
    }
    for (; i < n; i++, p += stride)
        out[i] = get_half(p);
}

/* 16 bytes: low nibbles are values 0 .. 15, high ones 16 .. 31 */
static inline __m256i nibbles(const u8 *p)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes), _mm256_set1_epi8(15));
}

/* 32 bits, one a byte, set ones become 16 */
static inline __m256i fifth_bits(const u8 *p)
{
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, /* byte of the bit */
                                            2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)get_u32(p)), spread);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), _mm256_set1_epi8(16));
}

static inline __m256i levels_of(__m256i indices)
{
    const __m128i table = _mm_loadu_si128((const __m128i *)bw_iq4_levels);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), indices);
}

/* Bits 2 i and 2 i + 1 of every byte */
static inline __m256i pairs(__m256i bytes, int i)
{
    return _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(2 * i)), _mm256_set1_epi8(3));
}

/* Bit i of every byte */
static inline __m256i bits(__m256i bytes, int i)
{
    return _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(i)), _mm256_set1_epi8(1));
}

static inline __m256i high_nibbles(__m256i bytes)
{
    return _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15));
}

static inline __m256i low_nibbles(__m256i bytes)
{
    return _mm256_and_si256(bytes, _mm256_set1_epi8(15));
}

/* ---- blocks of 32 ---- */

static void unpack_q8_0(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    halves(out->scale, p, 34, n_groups);
    for (int g = 0; g < n_groups; g++)
        put_codes(out, g, load_32(p + 34 * g + 2));
}

static void unpack_q4_0(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    halves(out->scale, p, 18, n_groups);
    for (int g = 0; g < n_groups; g++)
        put_codes(out, g, _mm256_sub_epi8(nibbles(p + 18 * g + 2), _mm256_set1_epi8(8)));
}

static void unpack_q4_1(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    halves(out->scale, p, 20, n_groups);
    halves(out->minimum, p + 2, 20, n_groups);
    for (int g = 0; g < n_groups; g++)
        put_codes(out, g, nibbles(p + 20 * g + 4));
}

static void unpack_q5_0(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    halves(out->scale, p, 22, n_groups);
    for (int g = 0; g < n_groups; g++, p += 22)
        put_codes(out, g, _mm256_sub_epi8(_mm256_or_si256(nibbles(p + 6), fifth_bits(p + 2)), _mm256_set1_epi8(16)));
}

static void unpack_q5_1(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    halves(out->scale, p, 24, n_groups);
    halves(out->minimum, p + 2, 24, n_groups);
    for (int g = 0; g < n_groups; g++, p += 24)
        put_codes(out, g, _mm256_or_si256(nibbles(p + 8), fifth_bits(p + 4)));
}

static void unpack_iq4_nl(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    halves(out->scale, p, 18, n_groups);
    for (int g = 0; g < n_groups; g++)
        put_codes(out, g, levels_of(nibbles(p + 18 * g + 2)));
}

/* ---- blocks of 256: 8 groups ---- */

static inline __m128i even_bytes_then_odd(__m128i v)
{
    return _mm_shuffle_epi8(v, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
}

/* 16 bytes, by half group, to two arrays by group */
static inline void put_half_groups(int32_t (*out)[BW_Q8_LANES], int g, __m128i v, bool is_signed)
{
    v = even_bytes_then_odd(v);
    put_ints(out[0] + g, v, is_signed);
    put_ints(out[1] + g, _mm_unpackhi_epi64(v, v), is_signed);
}

static void unpack_q2_k(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g += 8, p += 84) {
        const __m128i scales = _mm_loadu_si128((const __m128i *)p), low = _mm_set1_epi8(15);
        put_half_groups(out->sub, g, _mm_and_si128(scales, low), false);
        put_half_groups(out->lift, g, _mm_and_si128(_mm_srli_epi16(scales, 4), low), false);
        _mm256_storeu_ps(out->scale + g, _mm256_set1_ps(get_half(p + 80)));
        _mm256_storeu_ps(out->minimum + g, _mm256_set1_ps(-get_half(p + 82)));
        for (int b = 0; b < 8; b++)
            put_codes(out, g + b, pairs(load_32(p + 16 + 32 * (b / 4)), b % 4));
    }
}

static void unpack_q3_k(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    const uint64_t low = 0x0F0F0F0F0F0F0F0Fu, two = 0x0303030303030303u;
    for (int g = 0; g < n_groups; g += 8, p += 110) {
        const uint64_t s = get_u64(p + 96), h = get_u32(p + 104);
        const uint64_t first = (s & low) | ((h | h >> 2 << 32) & two) << 4;
        const uint64_t second = (s >> 4 & low) | ((h >> 4 | h >> 6 << 32) & two) << 4;
        const __m128i scales = _mm_sub_epi8(_mm_set_epi64x((long long)second, (long long)first), _mm_set1_epi8(32));
        put_half_groups(out->sub, g, scales, true);
        _mm256_storeu_ps(out->scale + g, _mm256_set1_ps(get_half(p + 108)));
        const __m256i third = load_32(p);
        for (int b = 0; b < 8; b++) {
            const __m256i q = _mm256_or_si256(pairs(load_32(p + 32 + 32 * (b / 4)), b % 4), _mm256_slli_epi16(bits(third, b), 2));
            put_codes(out, g + b, _mm256_sub_epi8(q, _mm256_set1_epi8(4)));
        }
    }
}

/* The eight scales and minima of Q4_K and Q5_K, as docs/formats.md writes them, four bytes at a time */
static inline void put_q4k_scales(bw_q8_chunk *out, int g, const u8 *p)
{
    const uint32_t a = get_u32(p + 4), b = get_u32(p + 8), c = get_u32(p + 12);
    const uint32_t six = 0x3F3F3F3F, four = 0x0F0F0F0F, two = 0x03030303;
    const uint64_t scales = (uint64_t)((c & four) | (a >> 6 & two) << 4) << 32 | (a & six);
    const uint64_t minima = (uint64_t)((c >> 4 & four) | (b >> 6 & two) << 4) << 32 | (b & six);
    const __m256 s = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)scales)));
    const __m256 m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)minima)));
    _mm256_storeu_ps(out->scale + g, _mm256_mul_ps(_mm256_set1_ps(get_half(p)), s));
    _mm256_storeu_ps(out->minimum + g, _mm256_mul_ps(_mm256_set1_ps(-get_half(p + 2)), m));
}

static void unpack_q4_k(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g += 8, p += 144) {
        put_q4k_scales(out, g, p);
        for (int b = 0; b < 8; b += 2) {
            const __m256i bytes = load_32(p + 16 + 16 * b);
            put_codes(out, g + b, low_nibbles(bytes));
            put_codes(out, g + b + 1, high_nibbles(bytes));
        }
    }
}

static void unpack_q5_k(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g += 8, p += 176) {
        const __m256i fifth = load_32(p + 16);
        put_q4k_scales(out, g, p);
        for (int b = 0; b < 8; b += 2) {
            const __m256i bytes = load_32(p + 48 + 16 * b);
            put_codes(out, g + b, _mm256_or_si256(low_nibbles(bytes), _mm256_slli_epi16(bits(fifth, b), 4)));
            put_codes(out, g + b + 1, _mm256_or_si256(high_nibbles(bytes), _mm256_slli_epi16(bits(fifth, b + 1), 4)));
        }
    }
}

static void unpack_q6_k(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    const __m256i offset = _mm256_set1_epi8(32);
    for (int g = 0; g < n_groups; g += 8, p += 210) {
        put_half_groups(out->sub, g, _mm_loadu_si128((const __m128i *)(p + 192)), true);
        _mm256_storeu_ps(out->scale + g, _mm256_set1_ps(get_half(p + 208)));
        for (int h = 0; h < 2; h++) {
            const __m256i a = load_32(p + 64 * h), b = load_32(p + 64 * h + 32), high = load_32(p + 128 + 32 * h);
            const __m256i low[4] = { low_nibbles(a), low_nibbles(b), high_nibbles(a), high_nibbles(b) };
            for (int k = 0; k < 4; k++) {
                const __m256i q = _mm256_or_si256(low[k], _mm256_slli_epi16(pairs(high, k), 4));
                put_codes(out, g + 4 * h + k, _mm256_sub_epi8(q, offset));
            }
        }
    }
}

static void unpack_iq4_xs(bw_q8_chunk *out, const u8 *p, int n_groups)
{
    for (int g = 0; g < n_groups; g += 8, p += 136) {
        const float d = get_half(p);
        const uint32_t high = get_u16(p + 2), low = get_u32(p + 4);
        for (int b = 0; b < 8; b++) {
            const int scale = (int)((low >> (4 * b) & 15) | (high >> (2 * b) & 3) << 4) - 32;
            out->scale[g + b] = d * (float)scale;
            put_codes(out, g + b, levels_of(nibbles(p + 8 + 16 * b)));
        }
    }
}

static const bw_q8_unpack_fn unpack_of[BW_DTYPE_COUNT] = {
    [BW_Q8_0] = unpack_q8_0, [BW_Q4_0] = unpack_q4_0, [BW_Q4_1] = unpack_q4_1,     [BW_Q5_0] = unpack_q5_0,
    [BW_Q5_1] = unpack_q5_1, [BW_IQ4_NL] = unpack_iq4_nl, [BW_Q2_K] = unpack_q2_k, [BW_Q3_K] = unpack_q3_k,
    [BW_Q4_K] = unpack_q4_k, [BW_Q5_K] = unpack_q5_k, [BW_Q6_K] = unpack_q6_k,     [BW_IQ4_XS] = unpack_iq4_xs,
};

/* 16 codes (a half group) to floats. scale * sub, and that times a code, is exact for every type with a
 * minimum (a half's 11 bits, 6 of the scale, 5 of the code): the fused sum rounds as separate steps do. */
static inline void widen_half_group(float *out, const int8_t *codes, float scale, float minimum, bool has_minimum)
{
    for (int i = 0; i < 16; i += 8) {
        const __m256 q = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(codes + i))));
        const __m256 s = _mm256_set1_ps(scale);
        _mm256_storeu_ps(out + i, has_minimum ? _mm256_fmadd_ps(s, q, _mm256_set1_ps(minimum)) : _mm256_mul_ps(s, q));
    }
}

void bw_q8_widen_row_avx2(float *out, bw_dtype type, const unsigned char *row, int cols)
{
    const bool has_sub = bw_q8_has_sub(type), has_minimum = bw_q8_has_minimum(type), has_lift = bw_q8_has_lift(type);
    const size_t chunk_bytes = (size_t)bw_dtype_row_bytes(type, BW_Q8_CHUNK);
    bw_q8_chunk chunk;
    for (; cols > 0; cols -= BW_Q8_CHUNK, row += chunk_bytes) {
        const int n_groups = cols < BW_Q8_CHUNK ? cols / BW_Q8_GROUP : BW_Q8_LANES;
        unpack_of[type](&chunk, row, n_groups);
        for (int h = 0; h < 2 * n_groups; h++, out += 16) {
            const int g = h / 2, s = h % 2;
            const float scale = has_sub ? chunk.scale[g] * (float)chunk.sub[s][g] : chunk.scale[g];
            const float minimum = !has_minimum ? 0 : has_lift ? chunk.minimum[g] * (float)chunk.lift[s][g] : chunk.minimum[g];
            widen_half_group(out, chunk.code + 16 * h, scale, minimum, has_minimum);
        }
    }
}
