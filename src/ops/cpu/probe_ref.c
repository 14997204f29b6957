/* probe_ref.c - what plain code reads, multiplies in integers and in float a second, at most. Any thread. */
#include <string.h>

#include "ops/cpu/cpu.h"

#define UNROLL _Pragma("GCC unroll 32")

enum { CHAINS = 8, F32_CHAINS = 32 };

static uint64_t read_all(const void *data, size_t bytes)
{
    const unsigned char *at = data;
    uint64_t sums[CHAINS] = { 0 }, words[CHAINS], sum = 0;
    for (size_t i = 0; i + sizeof words <= bytes; i += sizeof words) {
        memcpy(words, at + i, sizeof words);
        for (int c = 0; c < CHAINS; c++)
            sums[c] += words[c];
    }
    for (int c = 0; c < CHAINS; c++)
        sum += sums[c];
    return sum;
}

static uint64_t int8_rounds(uint64_t n, int32_t *sink)
{
    uint32_t sums[CHAINS] = { 0 }, sum = 0;
    int32_t a = 3, b = 5;
    for (uint64_t i = 0; i < n; i++)
        UNROLL for (int c = 0; c < CHAINS; c++) {
            sums[c] += (uint32_t)((int8_t)a * (int8_t)b);
            __asm__ volatile("" : "+r"(a), "+r"(b)); /* never the same product again; no instruction */
        }
    for (int c = 0; c < CHAINS; c++)
        sum += sums[c];
    memcpy(sink, &sum, sizeof sum);
    return n * CHAINS;
}

static uint64_t f32_rounds(uint64_t n, float *sink)
{
    float sums[F32_CHAINS], sum = 0;
    for (int c = 0; c < F32_CHAINS; c++)
        sums[c] = (float)c; /* equal chains would be computed once */
    for (uint64_t i = 0; i < n; i++)
        UNROLL for (int c = 0; c < F32_CHAINS; c++)
            sums[c] = sums[c] * 0.5f + 0.25f;
    for (int c = 0; c < F32_CHAINS; c++)
        sum += sums[c];
    *sink = sum;
    return n * F32_CHAINS;
}

void bw_cpu_fill_ref_probe(bw_cpu_kernels *k)
{
    k->probe_read = read_all;
    k->probe_int8 = int8_rounds;
    k->probe_f32 = f32_rounds;
}
