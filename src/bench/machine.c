/* machine.c - see machine.h. */
#include "bench/machine.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench/statistics.h"
#include "ops/cpu/cpu.h"

enum {
    MAX_PROBES = 1024,
    READ_UNIT = 1 << 20,
    UNITS_PER_THREAD = 16, /* of a probe on registers, so that a thread which is held up does less of them */
    ROUNDS = 200000        /* of such a unit: about a millisecond */
};

typedef struct samples {
    double rates[MAX_PROBES];
    int n; /* once MAX_PROBES are full, the oldest go */
} samples;

struct bw_machine {
    bw_cpu_kernels k;
    bw_pool *pool;
    unsigned char *buffer;
    uint64_t n_units; /* of READ_UNIT bytes */
    samples read, int8, f32;
    uint64_t *done; /* [n_threads * 8] multiply-adds, a cache line each */
    volatile uint64_t sink;
};

/* Bytes of the last cache as the system tells it, or 32 MiB. */
static uint64_t last_cache_bytes(void)
{
    unsigned long long most = 32, now;
    char path[80], unit;
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        FILE *file = fopen(path, "r");
        if (!file)
            break;
        if (fscanf(file, "%llu%c", &now, &unit) == 2 && unit == 'K' && now / 1024 > most)
            most = now / 1024;
        fclose(file);
    }
    return (uint64_t)most << 20;
}

/* Large against every cache the threads have together, but no more than an eighth of what is free. */
static uint64_t choose_buffer_bytes(int n_threads)
{
    const uint64_t available = bw_mem_available();
    uint64_t bytes = 8 * last_cache_bytes();
    if (bytes < ((uint64_t)n_threads << 26))
        bytes = (uint64_t)n_threads << 26;
    if (available && bytes > available / 8)
        bytes = available / 8;
    return bytes < (1u << 26) ? 1u << 26 : bytes;
}

static void fill_unit(void *arg, int unit, int thread)
{
    (void)thread;
    memset(((bw_machine *)arg)->buffer + (size_t)unit * READ_UNIT, unit + 1, READ_UNIT);
}

bw_status bw_machine_create(bw_machine **out, const char *level, int n_threads, bw_error *err)
{
    bw_status st;
    *out = NULL;
    bw_machine *m = bw_mem_zalloc(1, sizeof *m, BW_MEM_MISC);
    if (!m)
        return bw_fail_memory(err, "probes", sizeof *m);
    m->n_units = choose_buffer_bytes(n_threads) / READ_UNIT;
    m->done = bw_mem_zalloc((size_t)n_threads * 8, sizeof *m->done, BW_MEM_MISC);
    m->buffer = bw_mem_alloc_large(m->n_units * READ_UNIT, BW_MEM_MISC); /* pages as large as those of weights */
    if (!m->done || !m->buffer) {
        st = bw_fail_memory(err, "buffer of the read probe", m->n_units * READ_UNIT);
        goto fail;
    }
    if (!bw_cpu_kernels_init(&m->k, level)) {
        st = bw_fail(err, BW_E_ARGUMENT, "probes: level '%s' does not run here", level);
        goto fail;
    }
    if ((st = bw_pool_create(&m->pool, n_threads, err)))
        goto fail;
    bw_pool_for(m->pool, (int)m->n_units, fill_unit, m);
    *out = m;
    return BW_OK;
fail:
    bw_machine_destroy(m);
    return st;
}

void bw_machine_destroy(bw_machine *m)
{
    if (!m)
        return;
    bw_pool_destroy(m->pool);
    bw_mem_free(m->buffer);
    bw_mem_free(m->done);
    bw_mem_free(m);
}

/* ---- the probes ------------------------------------------------------------------------------ */

static void read_unit(void *arg, int unit, int thread)
{
    bw_machine *m = arg;
    m->done[thread * 8] += m->k.probe_read(m->buffer + (size_t)unit * READ_UNIT, READ_UNIT);
}

static void int8_unit(void *arg, int unit, int thread)
{
    bw_machine *m = arg;
    int32_t sink;
    (void)unit;
    m->done[thread * 8] += m->k.probe_int8(ROUNDS, &sink);
}

static void f32_unit(void *arg, int unit, int thread)
{
    bw_machine *m = arg;
    float sink;
    (void)unit;
    m->done[thread * 8] += m->k.probe_f32(ROUNDS, &sink);
}

/* Runs n units; returns the seconds, and what the threads counted. */
static double run(bw_machine *m, int n, void (*unit)(void *, int, int), uint64_t *counted)
{
    const int n_threads = bw_pool_threads(m->pool);
    for (int t = 0; t < n_threads; t++)
        m->done[t * 8] = 0;
    const uint64_t start = bw_clock_ns();
    bw_pool_for(m->pool, n, unit, m);
    const double seconds = (double)(bw_clock_ns() - start) * 1e-9;
    *counted = 0;
    for (int t = 0; t < n_threads; t++)
        *counted += m->done[t * 8];
    return seconds > 0 ? seconds : 1e-9;
}

static void add(samples *s, double rate)
{
    s->rates[s->n++ % MAX_PROBES] = rate;
}

void bw_machine_probe(bw_machine *m)
{
    const int n = bw_pool_threads(m->pool) * UNITS_PER_THREAD;
    uint64_t counted;
    double seconds = run(m, (int)m->n_units, read_unit, &counted);
    m->sink = counted; /* the reads are not to be left out */
    add(&m->read, (double)(m->n_units * READ_UNIT) / seconds);
    seconds = run(m, n, int8_unit, &counted);
    add(&m->int8, (double)counted / seconds);
    seconds = run(m, n, f32_unit, &counted);
    add(&m->f32, (double)counted / seconds);
}

static bw_machine_limit limit_of(const samples *s)
{
    double sorted[MAX_PROBES];
    const int n = s->n < MAX_PROBES ? s->n : MAX_PROBES;
    memcpy(sorted, s->rates, (size_t)n * sizeof *sorted);
    const bw_summary summary = bw_summary_of(sorted, n);
    return (bw_machine_limit){ .best = summary.largest, .median = summary.median };
}

bw_machine_limits bw_machine_get(const bw_machine *m)
{
    assert(m->read.n > 0);
    return (bw_machine_limits){ .read_bytes = limit_of(&m->read), .int8_macs = limit_of(&m->int8),
                                .f32_macs = limit_of(&m->f32), .n_probes = m->read.n,
                                .buffer_bytes = m->n_units * READ_UNIT };
}
