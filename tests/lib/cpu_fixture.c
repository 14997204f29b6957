/* cpu_fixture.c - see cpu_fixture.h. */
#include "lib/cpu_fixture.h"

#include <stdlib.h>

#include "base/half.h"

enum { GUARD = 32, MAX_BLOCKS = 16384 };
#define GUARD_BITS 0x7FC0BEEFu /* a NaN no arithmetic makes */

static struct block {
    float *base;
    size_t n;
} blocks[MAX_BLOCKS];
static int n_blocks;

const char *const *fixture_levels(void)
{
    return bw_cpu_levels_here();
}

static unsigned char *nan_bytes(size_t n)
{
    unsigned char *p = bw_mem_alloc(n, BW_MEM_SCRATCH);
    check(p != NULL);
    memset(p, 0xFF, n);
    return p;
}

bw_cpu *fixture_create(const char *level, int n_threads, const bw_op_limits *limits)
{
    bw_error err;
    bw_cpu *cpu = bw_mem_zalloc(1, sizeof *cpu, BW_MEM_MISC);
    check(cpu != NULL);
    cpu->base.n_threads = n_threads;
    cpu->limits = *limits;
    cpu->base.level = bw_cpu_kernels_init(&cpu->k, level);
    check(cpu->base.level != NULL);
    check_ok(bw_pool_create(&cpu->pool, n_threads, &err), err);
    bw_cpu_needs needs[] = { bw_cpu_attn_needs(&cpu->k, limits), bw_cpu_gdn_needs(&cpu->k, limits),
                             bw_cpu_sample_needs(&cpu->k, limits) };
    for (size_t i = 0; i < BW_COUNT(needs); i++) {
        cpu->arena_bytes = needs[i].arena > cpu->arena_bytes ? needs[i].arena : cpu->arena_bytes;
        cpu->per_thread_bytes = needs[i].per_thread > cpu->per_thread_bytes ? needs[i].per_thread : cpu->per_thread_bytes;
    }
    cpu->per_thread_bytes = (cpu->per_thread_bytes + 63) & ~(size_t)63;
    cpu->arena = nan_bytes(cpu->arena_bytes);
    cpu->per_thread = nan_bytes((size_t)n_threads * cpu->per_thread_bytes);
    return cpu;
}

void fixture_destroy(bw_cpu *cpu)
{
    bw_pool_destroy(cpu->pool);
    bw_mem_free(cpu->arena);
    bw_mem_free(cpu->per_thread);
    bw_mem_free(cpu);
}

float *fixture_floats(size_t n)
{
    check(n_blocks < MAX_BLOCKS);
    float *base = malloc((n + 2 * GUARD) * sizeof *base);
    check(base != NULL);
    for (size_t i = 0; i < n + 2 * GUARD; i++)
        base[i] = bw_f32_from_bits(GUARD_BITS);
    blocks[n_blocks++] = (struct block){ base, n };
    return base + GUARD;
}

float *fixture_random(size_t n, float scale)
{
    float *x = fixture_floats(n);
    for (size_t i = 0; i < n; i++)
        x[i] = scale * rnd_float();
    return x;
}

int32_t *fixture_ints(size_t n)
{
    int32_t *x = (int32_t *)fixture_floats(n);
    memset(x, 0, n * sizeof *x);
    return x;
}

void check_guards(void)
{
    for (int b = 0; b < n_blocks; b++)
        for (size_t i = 0; i < GUARD; i++) {
            const float *base = blocks[b].base;
            check_that(bw_f32_bits(base[i]) == GUARD_BITS && bw_f32_bits(base[GUARD + blocks[b].n + i]) == GUARD_BITS,
                       "something was written outside the %zu values of block %d", blocks[b].n, b);
        }
}

void fixture_release(void)
{
    while (n_blocks > 0)
        free(blocks[--n_blocks].base);
}
