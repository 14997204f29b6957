/* probe_neon.c - probe_ref.c in 4 lanes of 32 bits; the int8 dot is one instruction, sdot. Any thread. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/neon.h"

/* Enough chains for four instructions a cycle of 4 cycles each. */
enum { CHAINS = 16, STREAMS = 4 };

/* Four streams a thread: one alone does not keep a memory controller busy. */
static uint64_t read_all(const void *data, size_t bytes)
{
    const size_t part = bytes / STREAMS;
    const uint8_t *at = data;
    uint32x4_t sums[STREAMS][4], all = vdupq_n_u32(0);
    UNROLL for (int s = 0; s < STREAMS; s++)
        UNROLL for (int j = 0; j < 4; j++)
            sums[s][j] = all;
    for (size_t i = 0; i < part; i += 64)
        UNROLL for (int s = 0; s < STREAMS; s++) {
            const uint8_t *line = at + (size_t)s * part + i;
            __builtin_prefetch(line + 1024);
            UNROLL for (int j = 0; j < 4; j++)
                sums[s][j] = vaddq_u32(sums[s][j], vreinterpretq_u32_u8(vld1q_u8(line + 16 * j)));
        }
    uint64_t sum = 0;
    for (int s = 0; s < STREAMS; s++)
        for (int j = 0; j < 4; j++)
            sum += vaddvq_u32(sums[s][j]);
    return sum;
}

static uint64_t int8_rounds(uint64_t n, int32_t *sink)
{
    int32x4_t sums[CHAINS], all = vdupq_n_s32(0);
    const int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
    UNROLL for (int c = 0; c < CHAINS; c++)
        sums[c] = all;
    for (uint64_t i = 0; i < n; i++)
        UNROLL for (int c = 0; c < CHAINS; c++) /* in a register, every one of them */
            __asm__ volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(sums[c]) : "w"(a), "w"(b));
    UNROLL for (int c = 0; c < CHAINS; c++)
        all = vaddq_s32(all, sums[c]);
    *sink = vaddvq_s32(all);
    return n * CHAINS * 16;
}

static uint64_t f32_rounds(uint64_t n, float *sink)
{
    float32x4_t sums[CHAINS], all = vdupq_n_f32(0);
    const float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32(0.25f);
    UNROLL for (int c = 0; c < CHAINS; c++)
        sums[c] = vdupq_n_f32((float)c);
    for (uint64_t i = 0; i < n; i++)
        UNROLL for (int c = 0; c < CHAINS; c++) /* fmla adds to its first operand: no copy a round */
            __asm__ volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(sums[c]) : "w"(a), "w"(b));
    UNROLL for (int c = 0; c < CHAINS; c++)
        all = vaddq_f32(all, sums[c]);
    *sink = vaddvq_f32(all);
    return n * CHAINS * 4;
}

void bw_cpu_fill_neon_probe(bw_cpu_kernels *k)
{
    k->probe_read = read_all;
    k->probe_int8 = int8_rounds;
    k->probe_f32 = f32_rounds;
}
