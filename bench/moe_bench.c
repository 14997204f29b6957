/* moe_bench.c - what one layer of a mixture of experts costs by rows, and what packing its experts takes.
 *
 *     make bench-moe [ARGS="avx512 1 q4_0"]      (level, threads, type)
 *
 * The layer of the moe8 shape: hidden 2048, 256 experts of 512, 8 of them used, and a shared one of 512. Each
 * row chooses its experts by a random router, so that 512 rows bring an expert 16 rows on average. Each line:
 * milliseconds, billions of multiply-adds a second, GB/s as if every chosen expert were read once. Best of several
 * runs. With one thread it is that thread's processor time which counts, so that a busy machine shows less. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_bench.h"
#include "ops/cpu/cpu.h"

enum { HIDDEN = 2048, N_EXPERTS = 256, N_USED = 8, FFN = 512, MAX_ROWS = 512, N_WEIGHTS = 3 * (N_EXPERTS + 1) };

/* Random bytes with both bytes of a half-precision scale kept small wherever it may stand. */
static void fill(unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)random_bits() & 0x17;
}

static void report(bw_backend *be, const bw_moe_args *layer, const float *input, int n, double expert_bytes)
{
    stopwatch w = stopwatch_of(be->n_threads, 1, 200);
    bw_moe_args args = *layer;
    args.n_rows = n;
    while (stopwatch_more(&w)) {
        memcpy(args.x, input, (size_t)n * HIDDEN * sizeof *args.x);
        stopwatch_start(&w);
        be->ops->moe(be, &args);
        stopwatch_stop(&w);
    }
    double missed = 1; /* chance that an expert is chosen by no row */
    for (int r = 0; r < n; r++)
        missed *= 1 - (double)N_USED / N_EXPERTS;
    const double macs = (double)n * (3.0 * (N_USED + 1) * HIDDEN * FFN + (double)N_EXPERTS * HIDDEN);
    printf("%4d rows: %8.3f ms, %6.1f GMAC/s, %5.1f GB/s\n", n, w.best * 1e3, macs / w.best / 1e9,
           ((1 - missed) * N_EXPERTS + 1) * expert_bytes / w.best / 1e9);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static bw_expert experts[N_EXPERTS + 1];
    static const bw_moe_shape shape = { N_EXPERTS, N_USED, FFN, FFN };
    static const int counts[] = { 1, 2, 4, 8, 16, 64, 512 };
    const bw_op_limits limits = { .max_rows = MAX_ROWS, .max_spans = 1, .max_logits = 1, .hidden = HIDDEN, .max_cols = HIDDEN,
                                  .vocab = 16, .attn = { .n_heads = 1, .n_kv_heads = 1, .head_dim = 32 },
                                  .gdn = { 1, 1, 16, 16, 4, 48, false, 1e-6f }, .moe = shape };
    const char *level = argc > 1 ? argv[1] : NULL, *name = argc > 3 ? argv[3] : "q4_0";
    const int threads = argc > 2 ? atoi(argv[2]) : 1;
    bw_dtype type = BW_Q8_0;
    bw_backend *be = NULL;
    bw_error err;
    while (type < BW_DTYPE_COUNT && strcmp(bw_dtype_get(type)->name, name) != 0)
        type++;
    if (type == BW_DTYPE_COUNT) {
        fprintf(stderr, "moe_bench: %s is not a quantised type\n", name);
        return 2;
    }
    const double expert_bytes = 3.0 * FFN * (double)bw_dtype_row_bytes(type, HIDDEN);
    unsigned char *files = malloc((size_t)expert_bytes * (N_EXPERTS + 1)), *at = files;
    float *router = random_floats((size_t)N_EXPERTS * HIDDEN, 0.05f), *norm = random_floats(HIDDEN, 1);
    float *gate = random_floats(HIDDEN, 0.02f), *input = random_floats((size_t)MAX_ROWS * HIDDEN, 1);
    float *x = malloc((size_t)MAX_ROWS * HIDDEN * sizeof *x);
    bw_status st = files && router && norm && gate && input && x ? BW_OK : bw_fail_memory(&err, "moe_bench", 0);
    if (!st)
        fill(files, (size_t)expert_bytes * (N_EXPERTS + 1));
    if (!st)
        st = bw_cpu_backend_create(&be, threads, level, &err);
    if (!st)
        st = be->ops->reserve(be, &limits, &err);
    size_t room_bytes = 0, used = 0;
    void *room = NULL;
    const bw_place_args gate_like = { .type = type, .rows = FFN, .cols = HIDDEN, .int8 = true };
    const bw_place_args down_like = { .type = type, .rows = HIDDEN, .cols = FFN, .int8 = true };
    if (!st) { /* one block for all, as a model has it */
        room_bytes = (size_t)(2 * be->ops->place_bytes(be, &gate_like, NULL) + be->ops->place_bytes(be, &down_like, NULL));
        room = be->ops->alloc(be, room_bytes * (N_EXPERTS + 1), BW_MEM_WEIGHTS);
        st = room ? BW_OK : bw_fail_memory(&err, "moe_bench", room_bytes * (N_EXPERTS + 1));
    }
    const double start = seconds_now(threads);
    for (int i = 0; !st && i < N_WEIGHTS; i++) {
        bw_expert *e = &experts[i / 3];
        const bool down = i % 3 == 2;
        bw_place_args args = down ? down_like : gate_like;
        args.host = at;
        args.room = (unsigned char *)room + used;
        used += (size_t)be->ops->place_bytes(be, &args, NULL);
        st = be->ops->place(be, down ? &e->down : i % 3 ? &e->up : &e->gate, &args, &err);
        at += (size_t)(expert_bytes / 3);
    }
    if (!st) {
        const double taken = seconds_now(threads) - start, bytes = expert_bytes * (N_EXPERTS + 1);
        const bw_moe_args args = { .shape = &shape, .norm = norm, .eps = 1e-6f, .experts = experts, .shared = experts[N_EXPERTS],
                                   .router = { .type = BW_F32, .rows = N_EXPERTS, .cols = HIDDEN, .data = router },
                                   .shared_gate = gate, .x = x };
        printf("%s %s, %d thread%s: %d matrices placed in %.1f ms, %.2f GB/s\n", be->level, name, threads, threads == 1 ? "" : "s",
               N_WEIGHTS, taken * 1e3, bytes / taken / 1e9);
        for (size_t i = 0; i < BW_COUNT(counts); i++)
            report(be, &args, input, counts[i], expert_bytes);
    } else {
        fprintf(stderr, "moe_bench: %s\n", err.message);
    }
    for (int i = 0; be && i <= N_EXPERTS; i++) {
        be->ops->unplace(be, &experts[i].gate);
        be->ops->unplace(be, &experts[i].up);
        be->ops->unplace(be, &experts[i].down);
    }
    if (be) {
        be->ops->free(be, room);
        be->ops->destroy(be);
    }
    free(files);
    free(router);
    free(norm);
    free(gate);
    free(input);
    free(x);
    return st ? 1 : 0;
}
