/* mixer_bench.c - what attention and the delta rule cost by rows and depth, at one level.
 *
 *     make bench-mixer [ARGS="avx512 1 attention"]      (level, threads, what: attention or gdn; all of both)
 *
 * The mixers of the 2b shape: attention of 8 query heads on 2 KV heads of 256 over f16 pages, in turns over
 * six layers, so that 16,384 positions come from memory; the delta rule with 16 heads of 128 x 128, over 18
 * layers. With 64 rows or fewer, that is: with more, of both one layer alone, again and again, whose keys and
 * values (or state) may stay in the caches. Each line: milliseconds a layer, GB/s of keys and values (or state,
 * read and written) as if each were moved once, and billions of multiply-adds a second. Best of several runs.
 * With one thread it is that thread's processor time which counts, so that a busy machine shows less. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_bench.h"
#include "ops/cpu/cpu.h"

enum { DEPTH = 16384, MAX_ROWS = 512, ATTN_LAYERS = 6, GDN_LAYERS = 18, MAX_PENDING = 4 };

typedef struct bench {
    bw_backend *be;
    bw_sequences seqs;
    bw_row rows[MAX_ROWS];
    float *in, *out; /* any operation's rows */
    int n_layers, layer;
    bw_attn_args attn;
    bw_kv_layer kv[ATTN_LAYERS];
    bw_gdn_args gdn;
    bw_gdn_state state[GDN_LAYERS];
    bw_span span;
} bench;

/* Seconds of the fastest of the runs, over all layers each, that fit in a second; per layer. */
static double best_seconds(bench *b, void (*run)(bench *b))
{
    stopwatch w = stopwatch_of(b->be->n_threads, 1, 100);
    while (stopwatch_more(&w)) {
        stopwatch_start(&w);
        for (b->layer = 0; b->layer < b->n_layers; b->layer++)
            run(b);
        stopwatch_stop(&w);
    }
    return w.best / b->n_layers;
}

static void run_attention(bench *b)
{
    b->attn.kv = b->kv[b->layer];
    b->be->ops->attention(b->be, &b->attn);
}

static void run_gdn(bench *b)
{
    b->gdn.state = b->state[b->layer];
    b->be->ops->gdn(b->be, &b->gdn);
}

static void bench_attention(bench *b, int n_rows, int depth)
{
    const bw_attn_shape *s = b->attn.shape;
    for (int r = 0; r < n_rows; r++)
        b->rows[r] = (bw_row){ 0, depth - n_rows + r };
    b->attn.n_rows = n_rows;
    b->n_layers = n_rows > 64 ? 1 : ATTN_LAYERS;
    const double t = best_seconds(b, run_attention), row = (double)s->n_kv_heads * s->head_dim;
    const double macs = 2.0 * n_rows * (depth - n_rows / 2.0) * s->n_heads * s->head_dim;
    printf("attention %3d rows, the last at %5d: %8.3f ms a layer %6.1f GB/s %6.1f GMAC/s\n", n_rows, depth, t * 1e3,
           2 * 2 * row * depth / t / 1e9, macs / t / 1e9);
    fflush(stdout);
}

static void bench_gdn(bench *b, int n_accepted, int n_final, int n_drafts)
{
    const bw_gdn_shape *s = b->gdn.shape;
    b->seqs.accepted[0] = n_accepted;
    b->span = (bw_span){ .n_rows = n_final + n_drafts, .n_final = n_final };
    b->gdn.n_rows = n_final + n_drafts;
    b->n_layers = n_final > 64 ? 1 : GDN_LAYERS;
    const double t = best_seconds(b, run_gdn), state = (double)s->n_v_heads * s->d_k * s->d_v;
    printf("delta rule %d pending + %3d final + %d drafts: %8.3f ms a layer %6.1f GB/s %6.1f GMAC/s\n", n_accepted, n_final,
           n_drafts, t * 1e3, 2 * 4 * state / t / 1e9, 3 * state * (n_accepted + n_final + n_drafts) / t / 1e9);
    fflush(stdout);
}

static bool prepare(bench *b, const bw_attn_shape *attn, const bw_gdn_shape *gdn)
{
    const size_t kv = (size_t)attn->n_kv_heads * DEPTH * (size_t)attn->head_dim, heads = (size_t)gdn->n_v_heads;
    const size_t values = heads * (size_t)gdn->d_v, conv = (size_t)gdn->conv_dim, window = (size_t)gdn->conv_width - 1;
    const size_t q_width = 2 * (size_t)attn->n_heads * (size_t)attn->head_dim, state = heads * (size_t)gdn->d_k * (size_t)gdn->d_v;
    const size_t widest = q_width > conv + values + 2 * heads ? q_width : conv + values + 2 * heads;
    b->in = random_floats(MAX_ROWS * widest, 1);
    b->out = malloc(MAX_ROWS * q_width * sizeof *b->out);
    const size_t taps = conv * (size_t)gdn->conv_width;
    float *norms = random_floats(2 * (size_t)attn->head_dim + taps + (size_t)gdn->d_v + 2 * heads, 1);
    b->seqs = (bw_sequences){ .n_slots = 1, .context = DEPTH, .max_pages = DEPTH / BW_PAGE };
    b->seqs.pages = malloc(DEPTH / BW_PAGE * sizeof(int32_t));
    b->seqs.accepted = calloc(1, sizeof(int32_t));
    if (!b->in || !b->out || !norms || !b->seqs.pages || !b->seqs.accepted)
        return false;
    for (int i = 0; i < DEPTH / BW_PAGE; i++) /* neighbours in the sequence are not neighbours in memory */
        b->seqs.pages[i] = i * 37 % (DEPTH / BW_PAGE);
    for (int l = 0; l < ATTN_LAYERS; l++) {
        uint16_t *k = b->be->ops->alloc(b->be, kv * sizeof *k, BW_MEM_KV), *v = b->be->ops->alloc(b->be, kv * sizeof *v, BW_MEM_KV);
        if (!k || !v)
            return false;
        for (size_t i = 0; i < kv; i++) /* f16 between 0.5 and 1, both signs */
            v[i] = k[i] = (uint16_t)(0x3800 | (i * 2654435761u >> 12 & 0x83FF));
        b->kv[l] = (bw_kv_layer){ BW_CODEC_F16, k, v };
    }
    for (int l = 0; l < GDN_LAYERS; l++) {
        b->state[l] = (bw_gdn_state){ MAX_PENDING, random_floats(state, 1), random_floats(window * conv, 1),
                                      random_floats(MAX_PENDING * (conv + 2 * heads), 1) };
        if (!b->state[l].state || !b->state[l].window || !b->state[l].pending)
            return false;
    }
    b->attn = (bw_attn_args){ .shape = attn, .seqs = &b->seqs, .rows = b->rows, .q_norm = norms,
                              .k_norm = norms + attn->head_dim, .q_gate = b->in, .out = b->out };
    float *w = norms + 2 * attn->head_dim;
    b->gdn = (bw_gdn_args){ .shape = gdn, .seqs = &b->seqs, .spans = &b->span, .n_spans = 1, .conv = w,
                            .norm = w + conv * (size_t)gdn->conv_width, .qkv = b->in, .out = b->out };
    float *decay = w + conv * (size_t)gdn->conv_width + (size_t)gdn->d_v;
    for (size_t h = 0; h < heads; h++)
        decay[h] = -0.1f;
    b->gdn.decay = decay;
    b->gdn.dt_bias = decay + heads;
    b->gdn.z = b->in + MAX_ROWS * conv;
    b->gdn.a = b->gdn.z + MAX_ROWS * values;
    b->gdn.b = b->gdn.a + MAX_ROWS * heads;
    return true;
}

int main(int argc, char **argv)
{
    const char *level = argc > 1 ? argv[1] : NULL, *what = argc > 3 ? argv[3] : "all";
    const int threads = argc > 2 ? atoi(argv[2]) : 2;
    float inv_freq[32];
    for (int i = 0; i < 32; i++)
        inv_freq[i] = 1.0f / (float)(i + 1);
    const bw_attn_shape attn = { .n_heads = 8, .n_kv_heads = 2, .head_dim = 256, .eps = 1e-6f, .n_pairs = 32,
                                 .inv_freq = inv_freq, .magnitude = 1 };
    const bw_gdn_shape gdn = { 16, 16, 128, 128, 4, 3 * 16 * 128, false, 1e-6f };
    const bw_op_limits limits = { .max_rows = MAX_ROWS, .max_spans = 1, .max_logits = 1, .max_pending = MAX_PENDING,
                                  .hidden = 32, .max_cols = 32, .vocab = 16, .attn = attn, .gdn = gdn };
    static bench b;
    bw_error err;
    if (bw_cpu_backend_create(&b.be, threads, level, &err) || b.be->ops->reserve(b.be, &limits, &err)) {
        fprintf(stderr, "mixer_bench: %s\n", err.message);
        return 1;
    }
    if (!prepare(&b, &attn, &gdn)) {
        fprintf(stderr, "mixer_bench: out of memory\n");
        return 1;
    }
    printf("%s, %d threads\n", b.be->level, threads);
    static const int few[] = { 1, 2, 4, 8 }, many[] = { 64, 512 }, depths[] = { 1024, 4096, DEPTH };
    for (size_t d = 0; strcmp(what, "gdn") != 0 && d < BW_COUNT(depths); d++) {
        for (size_t i = 0; i < BW_COUNT(few); i++)
            bench_attention(&b, few[i], depths[d]);
        for (size_t i = 0; i < BW_COUNT(many); i++)
            bench_attention(&b, many[i], depths[d]);
    }
    if (strcmp(what, "attention") != 0) {
        bench_gdn(&b, 0, 1, 0);
        bench_gdn(&b, 0, 1, 3);
        bench_gdn(&b, 3, 1, 3);
        bench_gdn(&b, 0, 64, 0);
        bench_gdn(&b, 0, 512, 0);
    }
    b.be->ops->destroy(b.be);
    return 0;
}
