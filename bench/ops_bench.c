/* ops_bench.c - what a product moves and multiplies a second, for every weight type at every level.
 *
 *     make bench-ops [ARGS="avx512 q8_0 2"]      (level, type, threads; "all" for the first two)
 *
 * One matrix of 2048 columns, larger than the caches, multiplied by 1 row (GB/s: bytes of weights read),
 * by 4 and by 256 (GMAC/s), quantised types by integer dots. Best of several runs. With one thread it is
 * that thread's processor time which counts, so that a busy machine shows less. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_bench.h"
#include "ops/cpu/cpu.h"

enum { COLS = 2048, MAX_N = 256 };

/* Random blocks whose half-precision fields are all finite and small. */
static void fill(unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        const uint64_t bits = random_bits() & 0xBBBBBBBBBBBBBBBBu;
        memcpy(data + i, &bits, 8);
    }
}

/* Seconds of the fastest of the runs that fit in half a second. */
static double best_seconds(bw_backend *be, const bw_weight *w, const float *x, float *y, int n)
{
    stopwatch watch = stopwatch_of(be->n_threads, 0.5, 100);
    while (stopwatch_more(&watch)) {
        stopwatch_start(&watch);
        be->ops->project(be, x, n, NULL, 0, w, &y, 1);
        stopwatch_stop(&watch);
    }
    return watch.best;
}

static int bench_type(const char *level, bw_dtype type, int threads, bool int8)
{
    const bw_dtype_info *info = bw_dtype_get(type);
    const size_t row_bytes = (size_t)bw_dtype_row_bytes(type, COLS);
    const bool slow = strcmp(level, "ref") == 0 || (!int8 && !bw_dtype_is_float(type));
    const int rows = slow ? 2048 : (int)((128u << 20) / row_bytes);
    const bw_op_limits limits = { .max_rows = MAX_N, .max_spans = 1, .max_logits = 1, .hidden = COLS, .max_cols = COLS, .vocab = 16,
                                  .attn = { .n_heads = 1, .n_kv_heads = 1, .head_dim = 32 },
                                  .gdn = { 1, 1, 16, 16, 4, 48, false, 1e-6f } };
    bw_backend *be = NULL;
    bw_error err;
    bw_weight w;
    int rc = 1;
    unsigned char *data = malloc(row_bytes * (size_t)rows);
    float *x = random_floats(COLS * MAX_N, 1), *y = malloc(sizeof *y * (size_t)rows * MAX_N);
    if (!data || !x || !y) {
        fprintf(stderr, "ops_bench: out of memory\n");
        goto done;
    }
    fill(data, row_bytes * (size_t)rows);
    memset(y, 0, sizeof *y * (size_t)rows * MAX_N);
    if (bw_cpu_backend_create(&be, threads, level, &err) || be->ops->reserve(be, &limits, &err) ||
        be->ops->place(be, &w, &(bw_place_args){ .type = type, .rows = rows, .cols = COLS, .host = data, .int8 = int8 }, &err)) {
        fprintf(stderr, "ops_bench: %s\n", err.message);
        goto done;
    }
    const double bytes = (double)row_bytes * rows, macs = (double)rows * COLS;
    const double one = best_seconds(be, &w, x, y, 1), four = best_seconds(be, &w, x, y, 4);
    bw_weight part = w; /* enough for a long run */
    part.rows = slow ? 64 : 4096;
    const double many = best_seconds(be, &part, x, y, MAX_N);
    printf("%-7s %-7s %-5s %2d threads: 1 row %6.1f GB/s %6.1f GMAC/s, 4 rows %6.1f GMAC/s, %d rows %6.1f GMAC/s\n", level,
           info->name, int8 ? "int8" : "float", threads, bytes / one / 1e9, macs / one / 1e9, 4 * macs / four / 1e9, MAX_N,
           (double)MAX_N * part.rows * COLS / many / 1e9);
    fflush(stdout);
    rc = 0;
    be->ops->unplace(be, &w);
done:
    if (be)
        be->ops->destroy(be);
    free(data);
    free(x);
    free(y);
    return rc;
}

int main(int argc, char **argv)
{
    const char *level = argc > 1 ? argv[1] : "all", *name = argc > 2 ? argv[2] : "all";
    const int threads = argc > 3 ? atoi(argv[3]) : 2;
    int rc = 0;
    for (const char *const *here = bw_cpu_levels_here(); *here; here++)
        for (bw_dtype type = 0; type < BW_DTYPE_COUNT; type++)
            if ((strcmp(level, "all") == 0 || strcmp(level, *here) == 0) &&
                (strcmp(name, "all") == 0 || strcmp(name, bw_dtype_get(type)->name) == 0))
                rc |= bench_type(*here, type, threads, !bw_dtype_is_float(type));
    return rc;
}
