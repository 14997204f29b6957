/* half.h - 16-bit floats to and from f32, in plain integer arithmetic: exact, the same on every CPU. */
#ifndef BW_BASE_HALF_H
#define BW_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float bw_f32_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t bw_f32_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float bw_bf16_to_f32(uint16_t h)
{
    return bw_f32_from_bits((uint32_t)h << 16);
}

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t bw_f32_to_bf16(float x)
{
    uint32_t u = bw_f32_bits(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

static inline float bw_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3FFu;
    if (exponent == 31) /* infinity, NaN */
        return bw_f32_from_bits(sign | 0x7F800000u | mantissa << 13);
    if (exponent == 0) { /* zero and subnormals: mantissa * 2^-24, exact in f32 */
        float x = (float)mantissa * 0x1p-24f;
        return bw_f32_from_bits(sign | bw_f32_bits(x));
    }
    return bw_f32_from_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
}

/* Round to nearest even, subnormals kept, overflow to infinity. */
static inline uint16_t bw_f32_to_f16(float x)
{
    uint32_t u = bw_f32_bits(x), sign = (u >> 16) & 0x8000u;
    u &= 0x7FFFFFFFu;
    if (u > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00u);
    if (u >= 0x477FF000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7C00u);
    if (u < 0x38800000u) { /* below 2^-14: adding 0.5 puts the mantissa's last place at 2^-24 */
        uint32_t m = bw_f32_bits(bw_f32_from_bits(u) + 0.5f) - 0x3F000000u;
        return (uint16_t)(sign | m);
    }
    u += 0xFFFu + ((u >> 13) & 1u);
    return (uint16_t)(sign | ((u - 0x38000000u) >> 13));
}

#endif
