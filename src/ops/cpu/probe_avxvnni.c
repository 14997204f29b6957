/* probe_avxvnni.c - the int8 dot of probe_ref.c by vpdpbusd in 8 lanes; the rest is probe_avx2.c's. Any thread. */
#include <immintrin.h>
#include <string.h>

#include "ops/cpu/cpu.h"

#define UNROLL _Pragma("GCC unroll 16")

enum { CHAINS = 12 };

static uint64_t int8_rounds(uint64_t n, int32_t *sink)
{
    __m256i sums[CHAINS], all = _mm256_setzero_si256();
    const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
    uint32_t lanes[8], sum = 0; /* wraps around */
    UNROLL for (int c = 0; c < CHAINS; c++)
        sums[c] = all;
    for (uint64_t i = 0; i < n; i++)
        UNROLL for (int c = 0; c < CHAINS; c++) /* gcc 12 puts moves around the intrinsic */
            __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums[c]) : "x"(a), "x"(b));
    UNROLL for (int c = 0; c < CHAINS; c++)
        all = _mm256_add_epi32(all, sums[c]);
    _mm256_storeu_si256((__m256i *)lanes, all);
    for (int i = 0; i < 8; i++)
        sum += lanes[i];
    memcpy(sink, &sum, sizeof sum);
    return n * CHAINS * 32;
}

void bw_cpu_fill_avxvnni_probe(bw_cpu_kernels *k)
{
    k->probe_int8 = int8_rounds;
}
