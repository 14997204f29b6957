/* cpu_table.c - the CPU backend's object: its levels, its memory, its table of operations.
 * Backend memory is host memory. Engine thread. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpuid.h"
#include "ops/cpu/cpu.h"

/* Weakest first. A processor may lack one and have the next: avx512 is a superset of avx2, not of avxvnni. */
static const struct level {
    const char *name;        /* what BW_CPU= accepts */
    bool (*runs_here)(void); /* the processor has it and the system saves its registers */
    void (*fill[5])(bw_cpu_kernels *k);
} levels[] = {
    { "ref", bw_cpu_is_any, { bw_cpu_fill_ref_matmul, bw_cpu_fill_ref_mixer, bw_cpu_fill_ref_probe } },
#if defined(__x86_64__)
    { "avx2",
      bw_cpu_has_avx2_fma,
      { bw_cpu_fill_avx2_norm, bw_cpu_fill_avx2_matmul, bw_cpu_fill_avx2_packed, bw_cpu_fill_avx2_mixer,
        bw_cpu_fill_avx2_probe } },
    { "avxvnni", bw_cpu_has_avx_vnni, { bw_cpu_fill_avxvnni_packed, bw_cpu_fill_avxvnni_probe } },
    { "avx512",
      bw_cpu_has_avx512_vnni,
      { bw_cpu_fill_avx512_norm, bw_cpu_fill_avx512_matmul, bw_cpu_fill_avx512_packed, bw_cpu_fill_avx512_mixer,
        bw_cpu_fill_avx512_probe } },
#elif defined(__aarch64__)
    { "neon",
      bw_cpu_has_neon_dot,
      { bw_cpu_fill_neon_norm, bw_cpu_fill_neon_matmul, bw_cpu_fill_neon_packed, bw_cpu_fill_neon_mixer,
        bw_cpu_fill_neon_probe } },
#endif
};

const char *bw_cpu_kernels_init(bw_cpu_kernels *k, const char *wanted)
{
    const char *reached = NULL;
    for (size_t i = 0; i < BW_COUNT(levels); i++) {
        if (!levels[i].runs_here())
            continue;
        for (size_t f = 0; f < BW_COUNT(levels[i].fill) && levels[i].fill[f]; f++)
            levels[i].fill[f](k);
        reached = levels[i].name;
        if (wanted && strcmp(wanted, reached) == 0)
            return reached;
    }
    return wanted ? NULL : reached;
}

static const char *names_here[BW_COUNT(levels) + 1];

static void list_names_here(void)
{
    for (size_t i = 0, n = 0; i < BW_COUNT(levels); i++)
        if (levels[i].runs_here())
            names_here[n++] = levels[i].name;
}

const char *const *bw_cpu_levels_here(void)
{
    static pthread_once_t listed = PTHREAD_ONCE_INIT;
    pthread_once(&listed, list_names_here);
    return names_here;
}

/* ---- memory ---- */

static void *backend_alloc(bw_backend *be, size_t bytes, bw_mem_tag tag)
{
    (void)be;
    return bw_mem_alloc_large(bytes, tag);
}

static void backend_free(bw_backend *be, void *block)
{
    (void)be;
    bw_mem_free(block);
}

static void backend_upload(bw_backend *be, void *dst, const void *host, size_t bytes)
{
    (void)be;
    memcpy(dst, host, bytes);
}

static void backend_download(bw_backend *be, void *host, const void *src, size_t bytes)
{
    (void)be;
    memcpy(host, src, bytes);
}

static void backend_copy(bw_backend *be, void *dst, const void *src, size_t bytes)
{
    (void)be;
    memcpy(dst, src, bytes);
}

static void backend_zero(bw_backend *be, void *dst, size_t bytes)
{
    (void)be;
    memset(dst, 0, bytes);
}

static void backend_sync(bw_backend *be)
{
    (void)be; /* operations run when they are called */
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The largest need of any operation; both parts whole cache lines. */
static bw_cpu_needs all_needs(const bw_cpu *cpu, const bw_op_limits *limits)
{
    bw_cpu_needs (*const needs[])(const bw_cpu_kernels *, const bw_op_limits *) = {
        bw_cpu_matmul_needs, bw_cpu_moe_needs, bw_cpu_attn_needs, bw_cpu_gdn_needs, bw_cpu_sample_needs,
    };
    bw_cpu_needs most = { 64, 64 };
    for (size_t i = 0; i < BW_COUNT(needs); i++) {
        const bw_cpu_needs one = needs[i](&cpu->k, limits);
        most.arena = larger(most.arena, one.arena);
        most.per_thread = larger(most.per_thread, one.per_thread);
    }
    most.arena = (most.arena + 63) / 64 * 64;
    most.per_thread = (most.per_thread + 63) / 64 * 64;
    return most;
}

static uint64_t backend_reserve_bytes(const bw_backend *be, const bw_op_limits *limits, int n_threads)
{
    const bw_cpu_needs needs = all_needs((const bw_cpu *)be, limits);
    return (uint64_t)needs.arena + (uint64_t)n_threads * needs.per_thread;
}

static bw_status backend_reserve(bw_backend *be, const bw_op_limits *limits, bw_error *err)
{
    bw_cpu *cpu = bw_cpu_of(be);
    const bw_cpu_needs needs = all_needs(cpu, limits);
    const size_t threads = (size_t)cpu->base.n_threads;
    bw_mem_free(cpu->arena);
    bw_mem_free(cpu->per_thread);
    cpu->arena_bytes = cpu->per_thread_bytes = 0;
    cpu->arena = bw_mem_alloc_large(needs.arena, BW_MEM_SCRATCH);
    cpu->per_thread = bw_mem_alloc_large(threads * needs.per_thread, BW_MEM_SCRATCH);
    if (!cpu->arena || !cpu->per_thread)
        return bw_fail_memory(err, "scratch of the operations", needs.arena + threads * needs.per_thread);
    cpu->arena_bytes = needs.arena;
    cpu->per_thread_bytes = needs.per_thread;
    cpu->limits = *limits;
    return BW_OK;
}

uint64_t bw_kv_layer_page_bytes(bw_kv_codec codec, const bw_attn_shape *shape)
{
    const uint64_t values = (uint64_t)shape->n_kv_heads * BW_PAGE * (uint64_t)shape->head_dim;
    return 2 * values * (codec == BW_CODEC_F32 ? 4 : 2);
}

uint64_t bw_gdn_slot_bytes(const bw_gdn_shape *shape, int max_pending)
{
    const uint64_t heads = (uint64_t)shape->n_v_heads, channels = (uint64_t)shape->conv_dim;
    const uint64_t tiles = (uint64_t)(shape->d_v + BW_GDN_TILE - 1) / BW_GDN_TILE;
    const uint64_t state = heads * tiles * (uint64_t)shape->d_k * BW_GDN_TILE;
    const uint64_t window = (uint64_t)(shape->conv_width - 1) * channels;
    const uint64_t pending = (uint64_t)max_pending * (channels + 2 * heads);
    return (state + window + pending) * sizeof(float);
}

/* ---- the object ---- */

static void backend_destroy(bw_backend *be)
{
    bw_cpu *cpu = bw_cpu_of(be);
    if (!cpu)
        return;
    bw_pool_destroy(cpu->pool);
    bw_mem_free(cpu->arena);
    bw_mem_free(cpu->per_thread);
    bw_mem_free(cpu);
}

static const bw_ops table = {
    .name = "cpu",
    .destroy = backend_destroy,
    .alloc = backend_alloc,
    .free = backend_free,
    .upload = backend_upload,
    .download = backend_download,
    .zero = backend_zero,
    .copy = backend_copy,
    .sync = backend_sync,
    .place_bytes = bw_cpu_place_bytes,
    .place = bw_cpu_place,
    .unplace = bw_cpu_unplace,
    .reserve_bytes = backend_reserve_bytes,
    .reserve = backend_reserve,
    .embed = bw_cpu_embed,
    .gather = bw_cpu_gather,
    .norm = bw_cpu_norm,
    .norm_pair = bw_cpu_norm_pair,
    .project = bw_cpu_project,
    .project_draft = bw_cpu_project_draft,
    .project_add = bw_cpu_project_add,
    .ffn_up = bw_cpu_ffn_up,
    .attention = bw_cpu_attention,
    .gdn = bw_cpu_gdn,
    .moe = bw_cpu_moe,
    .sample = bw_cpu_sample,
    .accept = bw_cpu_accept,
    .push_drafts = bw_cpu_push_drafts,
    .score = bw_cpu_score,
};

static bw_status fail_level(bw_error *err, const char *wanted)
{
    char list[64] = "";
    for (const char *const *name = bw_cpu_levels_here(); *name; name++) {
        const size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", *name);
    }
    return bw_fail(err, BW_E_ARGUMENT, "CPU level '%s' does not run on this processor (%s); choose one of: %s", wanted,
                   bw_cpu_name(), list);
}

bw_status bw_cpu_backend_create(bw_backend **out, int n_threads, const char *level, bw_error *err)
{
    bw_status st;
    *out = NULL;
    const char *asked = level ? level : getenv("BW_CPU");
    if (asked && !asked[0])
        asked = NULL;
    bw_cpu *cpu = bw_mem_zalloc(1, sizeof *cpu, BW_MEM_MISC);
    if (!cpu)
        return bw_fail_memory(err, "CPU backend", sizeof *cpu);
    cpu->base.ops = &table;
    cpu->base.n_threads = n_threads;
    cpu->base.level = bw_cpu_kernels_init(&cpu->k, asked);
    if (!cpu->base.level) {
        st = fail_level(err, asked);
        goto fail;
    }
    if ((st = bw_pool_create(&cpu->pool, n_threads, err)))
        goto fail;
    *out = &cpu->base;
    return BW_OK;
fail:
    backend_destroy(&cpu->base);
    return st;
}

void bw_cpu_backend_pin(bw_backend *be)
{
    bw_pool_pin(bw_cpu_of(be)->pool);
}

void bw_cpu_backend_end_workers(bw_backend *be)
{
    bw_pool_end_workers(bw_cpu_of(be)->pool);
    be->n_threads = 1;
}
