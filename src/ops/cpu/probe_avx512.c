/* probe_avx512.c - probe_ref.c in 16 lanes of 32 bits; the int8 dot is one instruction, vpdpbusd. Any thread. */
#include <immintrin.h>
#include <string.h>

#include "ops/cpu/cpu.h"

#define UNROLL _Pragma("GCC unroll 16")

/* 12 chains hide the 4 or 5 cycles of a sum at two instructions a cycle. */
enum { CHAINS = 12, STREAMS = 4 };

/* Of 32-bit lanes, which wrap around: the reducing intrinsic adds signed ones. */
static uint32_t sum_of(__m512i v)
{
    uint32_t lanes[16], sum = 0;
    _mm512_storeu_si512(lanes, v);
    for (int i = 0; i < 16; i++)
        sum += lanes[i];
    return sum;
}

/* Four streams a thread: one alone does not keep a memory controller busy. */
static uint64_t read_all(const void *data, size_t bytes)
{
    const size_t part = bytes / STREAMS;
    const char *at = data;
    __m512i sums[STREAMS];
    UNROLL for (int s = 0; s < STREAMS; s++)
        sums[s] = _mm512_setzero_si512();
    for (size_t i = 0; i < part; i += 64)
        UNROLL for (int s = 0; s < STREAMS; s++) {
            const char *line = at + (size_t)s * part + i;
            _mm_prefetch(line + 1024, _MM_HINT_T0);
            sums[s] = _mm512_add_epi32(sums[s], _mm512_loadu_si512(line));
        }
    uint64_t sum = 0;
    for (int s = 0; s < STREAMS; s++)
        sum += sum_of(sums[s]);
    return sum;
}

static uint64_t int8_rounds(uint64_t n, int32_t *sink)
{
    __m512i sums[CHAINS], all = _mm512_setzero_si512();
    const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
    UNROLL for (int c = 0; c < CHAINS; c++)
        sums[c] = all;
    for (uint64_t i = 0; i < n; i++)
        UNROLL for (int c = 0; c < CHAINS; c++) /* gcc 12 puts two moves around the intrinsic */
            __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sums[c]) : "v"(a), "v"(b));
    UNROLL for (int c = 0; c < CHAINS; c++)
        all = _mm512_add_epi32(all, sums[c]);
    const uint32_t sum = sum_of(all);
    memcpy(sink, &sum, sizeof sum);
    return n * CHAINS * 64;
}

static uint64_t f32_rounds(uint64_t n, float *sink)
{
    __m512 sums[CHAINS], all = _mm512_setzero_ps();
    const __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
    UNROLL for (int c = 0; c < CHAINS; c++)
        sums[c] = _mm512_set1_ps((float)c); /* equal chains might be computed once */
    for (uint64_t i = 0; i < n; i++)
        UNROLL for (int c = 0; c < CHAINS; c++)
            sums[c] = _mm512_fmadd_ps(sums[c], a, b);
    UNROLL for (int c = 0; c < CHAINS; c++)
        all = _mm512_add_ps(all, sums[c]);
    *sink = _mm512_cvtss_f32(all);
    return n * CHAINS * 16;
}

void bw_cpu_fill_avx512_probe(bw_cpu_kernels *k)
{
    k->probe_read = read_all;
    k->probe_int8 = int8_rounds;
    k->probe_f32 = f32_rounds;
}
