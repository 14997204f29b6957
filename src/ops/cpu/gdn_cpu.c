/* gdn_cpu.c - Gated DeltaNet over the spans of a step: which rows touch the state, and in what cut.
 *
 * A span runs over its *virtual rows*: the pending rows the last verification accepted, then the
 * rows of the batch. Pass 1, per virtual row and block of heads: convolution, norms, beta and decay.
 * Pass 2, per span and value head: the recurrence over all virtual rows, one tile of the head's state
 * after the other, each read and written once for up to ROWS_AT_ONCE rows, and the gated norm; draft rows
 * run on a copy of the tile. Where threads are more than heads a unit is some tiles of a head, and the norm
 * a pass of its own. Pass 2 also moves the conv window on and keeps the draft rows as the new pending ones:
 * nothing in it reads those any more.
 * Runs on the caller's thread and the pool; owns nothing. */
#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "ops/cpu/cpu.h"

enum {
    CHANNELS_PER_UNIT = 2048, /* of pass 1: about a microsecond */
    ROWS_AT_ONCE = 64         /* of pass 2: outputs of one head that wait for the gated norm */
};

/* A virtual row: the conv_width inputs that end in it, oldest first, and its gates. */
typedef struct gdn_row {
    const float *const *inputs;
    const float *a, *b;
} gdn_row;

typedef struct gdn_span {
    int32_t first, n_accepted; /* first virtual row; how many of them are pending rows */
    const float **inputs;      /* window rows, then virtual rows */
} gdn_span;

typedef struct gdn_work {
    const bw_cpu *cpu;
    const bw_gdn_args *args;
    gdn_span *spans;
    gdn_row *rows;
    const float **inputs;
    /* Rows of a head one after the other, as pass 2 reads them. */
    float *keys;   /* [n_k_heads, virtual rows, 2, d_k] query, key */
    float *values; /* [n_v_heads, virtual rows, value_width] v in tiles, decay, beta */
    int n_virtual, n_blocks;
    int n_parts; /* units of a head in pass 2 */
} gdn_work;

static int n_tiles(const bw_gdn_shape *s)
{
    return (s->d_v + BW_GDN_TILE - 1) / BW_GDN_TILE;
}

static int padded_d_v(const bw_gdn_shape *s)
{
    return n_tiles(s) * BW_GDN_TILE;
}

static size_t head_floats(const bw_gdn_shape *s)
{
    return (size_t)s->d_k * (size_t)padded_d_v(s);
}

static size_t value_width(const bw_gdn_shape *s)
{
    return (size_t)padded_d_v(s) + BW_GDN_TILE; /* whole vectors */
}

static size_t pending_width(const bw_gdn_shape *s)
{
    return (size_t)s->conv_dim + 2 * (size_t)s->n_v_heads;
}

/* ---- scratch --------------------------------------------------------------------------------- */

static size_t carve(size_t *at, size_t bytes)
{
    size_t here = *at;
    *at += (bytes + 63) & ~(size_t)63;
    return here;
}

/* Lays the arena out for up to these sizes; returns its bytes. */
static size_t lay_out(gdn_work *w, unsigned char *arena, const bw_gdn_shape *s, int n_spans, int n_virtual)
{
    const size_t spans = (size_t)n_spans, rows = (size_t)n_virtual;
    size_t at = 0;
    size_t span_at = carve(&at, spans * sizeof(gdn_span));
    size_t row_at = carve(&at, rows * sizeof(gdn_row));
    size_t input_at = carve(&at, (rows + spans * (size_t)s->conv_width) * sizeof(float *));
    size_t key_at = carve(&at, rows * 2 * (size_t)s->n_k_heads * (size_t)s->d_k * sizeof(float));
    size_t value_at = carve(&at, rows * (size_t)s->n_v_heads * value_width(s) * sizeof(float));
    if (arena) {
        w->spans = (gdn_span *)(arena + span_at);
        w->rows = (gdn_row *)(arena + row_at);
        w->inputs = (const float **)(arena + input_at);
        w->keys = (float *)(arena + key_at);
        w->values = (float *)(arena + value_at);
    }
    return at;
}

/* Per thread: the copy of a tile for draft rows, and a head's outputs before the norm. */
static size_t thread_floats(const bw_gdn_shape *s, int max_pending)
{
    const int rows = max_pending > ROWS_AT_ONCE ? max_pending : ROWS_AT_ONCE;
    return (size_t)s->d_k * BW_GDN_TILE + (size_t)rows * (size_t)padded_d_v(s);
}

bw_cpu_needs bw_cpu_gdn_needs(const bw_cpu_kernels *k, const bw_op_limits *limits)
{
    (void)k;
    const bw_gdn_shape *s = &limits->gdn;
    if (s->n_v_heads == 0)
        return (bw_cpu_needs){ 0 };
    return (bw_cpu_needs){
        .arena = lay_out(NULL, NULL, s, limits->max_spans, limits->max_rows + limits->max_spans * limits->max_pending),
        .per_thread = thread_floats(s, limits->max_pending) * sizeof(float),
    };
}

/* ---- the virtual rows ------------------------------------------------------------------------ */

static int count_virtual(const bw_gdn_args *args)
{
    int n = 0;
    for (int i = 0; i < args->n_spans; i++)
        n += args->seqs->accepted[args->spans[i].slot] + args->spans[i].n_rows;
    return n;
}

static float *window_of(const bw_gdn_args *args, int slot)
{
    const bw_gdn_shape *s = args->shape;
    return args->state.window + (size_t)slot * (size_t)(s->conv_width - 1) * (size_t)s->conv_dim;
}

static float *pending_of(const bw_gdn_args *args, int slot, int i)
{
    return args->state.pending + ((size_t)slot * (size_t)args->state.max_pending + (size_t)i) * pending_width(args->shape);
}

static void list_rows(gdn_work *w)
{
    const bw_gdn_args *args = w->args;
    const bw_gdn_shape *s = args->shape;
    const float **input = w->inputs;
    gdn_row *row = w->rows;
    for (int i = 0; i < args->n_spans; i++) {
        const bw_span *span = &args->spans[i];
        const int accepted = args->seqs->accepted[span->slot];
        assert(accepted <= args->state.max_pending && span->n_rows - span->n_final <= args->state.max_pending);
        w->spans[i] = (gdn_span){ .first = (int32_t)(row - w->rows), .n_accepted = accepted, .inputs = input };
        for (int j = 0; j < s->conv_width - 1; j++)
            *input++ = window_of(args, span->slot) + (size_t)j * (size_t)s->conv_dim;
        for (int j = 0; j < accepted; j++, input++, row++) {
            const float *pending = pending_of(args, span->slot, j);
            *input = pending;
            *row = (gdn_row){ .inputs = input - (s->conv_width - 1), .a = pending + s->conv_dim,
                              .b = pending + s->conv_dim + s->n_v_heads };
        }
        for (int j = 0; j < span->n_rows; j++, input++, row++) {
            const size_t r = (size_t)(span->first_row + j);
            *input = args->qkv + r * (size_t)s->conv_dim;
            *row = (gdn_row){ .inputs = input - (s->conv_width - 1), .a = args->a + r * (size_t)s->n_v_heads,
                              .b = args->b + r * (size_t)s->n_v_heads };
        }
    }
}

/* ---- pass 1: convolution, norms, gates ------------------------------------------------------- */

static int heads_per_unit(const bw_gdn_shape *s)
{
    int widest = s->d_k > s->d_v ? s->d_k : s->d_v;
    return widest >= CHANNELS_PER_UNIT ? 1 : CHANNELS_PER_UNIT / widest;
}

static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

static float softplus(float x)
{
    return x > 20 ? x : log1pf(expf(x));
}

static float *keys_of(const gdn_work *w, int key_head, int r)
{
    return w->keys + ((size_t)key_head * w->n_virtual + r) * 2 * (size_t)w->args->shape->d_k;
}

static float *values_of(const gdn_work *w, int h, int r)
{
    return w->values + ((size_t)h * w->n_virtual + r) * value_width(w->args->shape);
}

static void mix_value_head(const gdn_work *w, const gdn_row *row, float *v, int h)
{
    const bw_gdn_args *args = w->args;
    const bw_gdn_shape *s = args->shape;
    const int keys = 2 * s->n_k_heads * s->d_k, padded = padded_d_v(s);
    w->cpu->k.conv_silu(v, row->inputs, args->conv, s->conv_width, keys + h * s->d_v, s->d_v);
    for (int c = s->d_v; c < padded; c++)
        v[c] = 0;
    v[padded] = expf(args->decay[h] * softplus(row->a[h] + args->dt_bias[h]));
    v[padded + 1] = sigmoid(row->b[h]);
}

static void mix_key_head(const gdn_work *w, const gdn_row *row, float *head, int h)
{
    const bw_gdn_shape *s = w->args->shape;
    w->cpu->k.conv_silu(head, row->inputs, w->args->conv, s->conv_width, h * s->d_k, s->d_k);
    w->cpu->k.l2_norm(head, s->d_k, h < s->n_k_heads ? 1 / sqrtf((float)s->d_k) : 1.0f);
}

/* Some of a row's heads, which are: queries, keys, values. */
static void mix_row(void *arg, int unit, int thread)
{
    (void)thread;
    const gdn_work *w = arg;
    const bw_gdn_shape *s = w->args->shape;
    const int r = unit / w->n_blocks, n_k = s->n_k_heads, n_heads = 2 * n_k + s->n_v_heads;
    const int first = unit % w->n_blocks * heads_per_unit(s), rest = n_heads - first;
    const int end = first + (rest < heads_per_unit(s) ? rest : heads_per_unit(s));
    for (int h = first; h < end; h++)
        if (h < 2 * n_k)
            mix_key_head(w, &w->rows[r], keys_of(w, h % n_k, r) + h / n_k * s->d_k, h);
        else
            mix_value_head(w, &w->rows[r], values_of(w, h - 2 * n_k, r), h - 2 * n_k);
}

/* ---- pass 2: the recurrence, and what is kept ------------------------------------------------ */

/* Rows of the span computed at once from its virtual row i on: all drafts together, so that the copy
 * of a tile's state they run on need not outlive it. */
static int rows_from(int i, int n_commit, int n_all)
{
    if (n_all - i <= ROWS_AT_ONCE || i == n_commit)
        return n_all - i;
    return n_commit - i < ROWS_AT_ONCE ? n_commit - i : ROWS_AT_ONCE;
}

/* Some tiles of a head. Outputs are normed at once when they are the whole head's. */
static void run_tiles(const gdn_work *w, int span_index, int h, int first_tile, int tiles, float *scratch)
{
    const bw_gdn_args *args = w->args;
    const bw_gdn_shape *s = args->shape;
    const bw_span *span = &args->spans[span_index];
    const gdn_span *virt = &w->spans[span_index];
    const int n_commit = virt->n_accepted + span->n_final, n_all = virt->n_accepted + span->n_rows;
    const int key_head = s->v_heads_tiled ? h % s->n_k_heads : h / (s->n_v_heads / s->n_k_heads);
    const size_t padded = (size_t)padded_d_v(s), tile_floats = (size_t)s->d_k * BW_GDN_TILE;
    const size_t out_width = (size_t)s->n_v_heads * (size_t)s->d_v;
    float *S = args->state.state + ((size_t)span->slot * s->n_v_heads + h) * head_floats(s) + first_tile * tile_floats;
    bw_delta_rows rows = { .d_k = s->d_k, .n_tiles = tiles, .k_stride = 2 * (size_t)s->d_k, .v_stride = value_width(s),
                           .y = scratch + tile_floats, .y_stride = padded };

    for (int i = 0, n; i < n_all; i += n) {
        /* Of virtual row i among the outputs; before them while rows are quiet, which have none. */
        const ptrdiff_t at = ((ptrdiff_t)(span->first_row + i - virt->n_accepted) * s->n_v_heads + h) * s->d_v;
        rows.n = n = rows_from(i, n_commit, n_all);
        rows.n_commit = n_commit - i < n ? n_commit - i : n;
        rows.n_quiet = virt->n_accepted - i < 0 ? 0 : virt->n_accepted - i < n ? virt->n_accepted - i : n;
        rows.q = keys_of(w, key_head, virt->first + i);
        rows.k = rows.q + s->d_k;
        rows.v = values_of(w, h, virt->first + i) + first_tile * BW_GDN_TILE;
        rows.g = values_of(w, h, virt->first + i) + padded;
        rows.beta = rows.g + 1;
        if (w->n_parts > 1 && rows.n_quiet < n) {
            rows.y = args->out + at + first_tile * BW_GDN_TILE;
            rows.y_stride = out_width;
        }
        w->cpu->k.delta_rows(S, scratch, &rows);
        for (int j = rows.n_quiet; w->n_parts == 1 && j < n; j++) {
            const size_t to = (size_t)(at + (ptrdiff_t)((size_t)j * out_width));
            w->cpu->k.gated_norm(args->out + to, rows.y + (size_t)j * padded, args->norm, args->z + to, s->d_v, s->eps);
        }
    }
}

/* Moves the window past the committed rows (in place: a source is never behind its target), then
 * keeps the draft rows over the old pending ones, which nobody needs any more. */
static void keep_rows(const gdn_work *w, int span_index)
{
    const bw_gdn_args *args = w->args;
    const bw_gdn_shape *s = args->shape;
    const bw_span *span = &args->spans[span_index];
    const gdn_span *virt = &w->spans[span_index];
    const int n_commit = virt->n_accepted + span->n_final;
    const size_t row_bytes = (size_t)s->conv_dim * sizeof(float), gate_bytes = (size_t)s->n_v_heads * sizeof(float);
    for (int j = 0; n_commit > 0 && j < s->conv_width - 1; j++)
        memcpy(window_of(args, span->slot) + (size_t)j * s->conv_dim, virt->inputs[j + n_commit], row_bytes);
    for (int i = span->n_final; i < span->n_rows; i++) {
        const size_t r = (size_t)(span->first_row + i);
        float *pending = pending_of(args, span->slot, i - span->n_final);
        memcpy(pending, args->qkv + r * (size_t)s->conv_dim, row_bytes);
        memcpy(pending + s->conv_dim, args->a + r * (size_t)s->n_v_heads, gate_bytes);
        memcpy(pending + s->conv_dim + s->n_v_heads, args->b + r * (size_t)s->n_v_heads, gate_bytes);
    }
}

/* What is kept comes first: it is the largest unit of a short step. */
static void run_unit(void *arg, int unit, int thread)
{
    const gdn_work *w = arg;
    const int n_heads = w->args->shape->n_v_heads, n = n_tiles(w->args->shape);
    if (unit < w->args->n_spans) {
        keep_rows(w, unit);
        return;
    }
    unit -= w->args->n_spans;
    const int part = unit % w->n_parts, head = unit / w->n_parts;
    const int first = part * n / w->n_parts, end = (part + 1) * n / w->n_parts;
    run_tiles(w, head / n_heads, head % n_heads, first, end - first, bw_cpu_thread_scratch(w->cpu, thread));
}

/* Of heads whose tiles were apart: rows that are no pending ones any more. */
static void norm_row(void *arg, int r, int thread)
{
    (void)thread;
    const gdn_work *w = arg;
    const bw_gdn_args *args = w->args;
    const bw_gdn_shape *s = args->shape;
    for (int h = 0; h < s->n_v_heads; h++) {
        const size_t at = ((size_t)r * s->n_v_heads + h) * s->d_v;
        w->cpu->k.gated_norm(args->out + at, args->out + at, args->norm, args->z + at, s->d_v, s->eps);
    }
}

/* Units of a head: two for every thread in all, of two tiles or more. Tiles write their outputs next to
 * each other, so none may be padded. */
static int parts_of_head(const gdn_work *w)
{
    const bw_gdn_shape *s = w->args->shape;
    const int heads = w->args->n_spans * s->n_v_heads, wanted = w->cpu->base.n_threads * 2, most = n_tiles(s) / 2;
    if (heads == 0 || heads >= w->cpu->base.n_threads || most < 2 || s->d_v % BW_GDN_TILE != 0)
        return 1;
    return wanted / heads < most ? wanted / heads : most;
}

void bw_cpu_gdn(bw_backend *be, const bw_gdn_args *args)
{
    bw_cpu *cpu = bw_cpu_of(be);
    const bw_gdn_shape *s = args->shape;
    assert(s->n_v_heads % s->n_k_heads == 0);
    assert(s->conv_dim == 2 * s->n_k_heads * s->d_k + s->n_v_heads * s->d_v);
    gdn_work w = { .cpu = cpu, .args = args, .n_virtual = count_virtual(args) };
    size_t bytes = lay_out(&w, cpu->arena, s, args->n_spans, w.n_virtual);
    assert(bytes <= cpu->arena_bytes && thread_floats(s, args->state.max_pending) * sizeof(float) <= cpu->per_thread_bytes);
    (void)bytes;
    list_rows(&w);
    const int n_heads = 2 * s->n_k_heads + s->n_v_heads;
    w.n_blocks = (n_heads + heads_per_unit(s) - 1) / heads_per_unit(s);
    /* a channel takes about 16 multiplications, four of them the convolution's, a value of the state 3 */
    bw_cpu_for(cpu, w.n_virtual * w.n_blocks, 16.0 * w.n_virtual * s->conv_dim, mix_row, &w);
    w.n_parts = parts_of_head(&w);
    bw_cpu_for(cpu, args->n_spans * (s->n_v_heads * w.n_parts + 1), 3.0 * w.n_virtual * s->n_v_heads * (double)head_floats(s),
               run_unit, &w);
    if (w.n_parts > 1)
        bw_cpu_for(cpu, args->n_rows, 24.0 * args->n_rows * s->n_v_heads * s->d_v, norm_row, &w);
}
