/* probe_avx2.c - probe_ref.c in 8 lanes of 32 bits. The int8 dot of this level is three instructions: bytes
 * to pairs, pairs to fours, and the sum. Any thread. */
#include <immintrin.h>

#include "ops/cpu/cpu.h"

#define UNROLL _Pragma("GCC unroll 16")

/* 12 chains of multiply-adds hide their 4 or 5 cycles; of the dot only the sum is a chain, of 1 cycle. */
enum { CHAINS = 12, DOT_CHAINS = 8, STREAMS = 4 };

static int32_t sum_of(__m256i v)
{
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xB1)));
}

/* Four streams a thread: one alone does not keep a memory controller busy. */
static uint64_t read_all(const void *data, size_t bytes)
{
    const size_t part = bytes / STREAMS;
    const char *at = data;
    __m256i sums[STREAMS][2];
    UNROLL for (int s = 0; s < STREAMS; s++)
        sums[s][0] = sums[s][1] = _mm256_setzero_si256();
    for (size_t i = 0; i < part; i += 64)
        UNROLL for (int s = 0; s < STREAMS; s++) {
            const __m256i *line = (const __m256i *)(at + (size_t)s * part + i);
            _mm_prefetch((const char *)line + 1024, _MM_HINT_T0);
            sums[s][0] = _mm256_add_epi32(sums[s][0], _mm256_loadu_si256(line));
            sums[s][1] = _mm256_add_epi32(sums[s][1], _mm256_loadu_si256(line + 1));
        }
    uint64_t sum = 0;
    for (int s = 0; s < STREAMS; s++)
        sum += (uint32_t)sum_of(_mm256_add_epi32(sums[s][0], sums[s][1]));
    return sum;
}

static uint64_t int8_rounds(uint64_t n, int32_t *sink)
{
    __m256i sums[DOT_CHAINS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5), all = _mm256_setzero_si256();
    const __m256i ones = _mm256_set1_epi16(1);
    UNROLL for (int c = 0; c < DOT_CHAINS; c++)
        sums[c] = all;
    for (uint64_t i = 0; i < n; i++)
        UNROLL for (int c = 0; c < DOT_CHAINS; c++) {
            sums[c] = _mm256_add_epi32(sums[c], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
            __asm__ volatile("" : "+x"(sums[c]), "+x"(b)); /* in a register, and never the same product again */
        }
    UNROLL for (int c = 0; c < DOT_CHAINS; c++)
        all = _mm256_add_epi32(all, sums[c]);
    *sink = sum_of(all);
    return n * DOT_CHAINS * 32;
}

static uint64_t f32_rounds(uint64_t n, float *sink)
{
    __m256 sums[CHAINS], all = _mm256_setzero_ps();
    const __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
    UNROLL for (int c = 0; c < CHAINS; c++)
        sums[c] = _mm256_set1_ps((float)c); /* equal chains might be computed once */
    for (uint64_t i = 0; i < n; i++)
        UNROLL for (int c = 0; c < CHAINS; c++)
            sums[c] = _mm256_fmadd_ps(sums[c], a, b);
    UNROLL for (int c = 0; c < CHAINS; c++)
        all = _mm256_add_ps(all, sums[c]);
    *sink = _mm256_cvtss_f32(all);
    return n * CHAINS * 8;
}

void bw_cpu_fill_avx2_probe(bw_cpu_kernels *k)
{
    k->probe_read = read_all;
    k->probe_int8 = int8_rounds;
    k->probe_f32 = f32_rounds;
}
