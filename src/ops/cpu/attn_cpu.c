/* attn_cpu.c - gated attention over paged keys and values: how the work is cut, not the arithmetic.
 *
 * Two passes over the rows with a barrier between them, because the rows of a step see each other
 * through the pages: (1) per row: cosines and sines of its position, keys and values into their
 * page; (2) per block of neighbouring rows of a sequence and KV head, or a part of the query heads
 * that share it when there are few: norm and turn the queries, attend, gate. A block reads a page
 * once for all its rows. A head's bits depend on none of these cuts.
 * Runs on the caller's thread and the pool; owns nothing. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "ops/cpu/cpu.h"

enum { HEADS_AT_ONCE = 32 }; /* of a block: queries and outputs of 256 values are 64 KiB */

typedef struct attn_block {
    int32_t first, n_rows; /* rows of one slot, at consecutive positions */
} attn_block;

typedef struct attn_work {
    const bw_cpu *cpu;
    const bw_attn_args *args;
    float *turns;       /* [n_rows, 2, n_pairs] cosines, then sines, of every row */
    attn_block *blocks; /* [n_rows] */
    int n_blocks;
    int part, n_parts;  /* query heads of a unit; units of a KV head */
} attn_work;

static int group_of(const bw_attn_shape *shape)
{
    return shape->n_kv_heads ? shape->n_heads / shape->n_kv_heads : 0;
}

/* Heads of a block, all its rows together. */
static int most_heads(const bw_attn_shape *shape)
{
    return group_of(shape) > HEADS_AT_ONCE ? group_of(shape) : HEADS_AT_ONCE;
}

static size_t round_up(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static size_t turns_bytes(const bw_attn_shape *shape, int n_rows)
{
    return round_up((size_t)n_rows * 2 * (size_t)shape->n_pairs * sizeof(float));
}

/* Queries of a block; its outputs take as much. */
static size_t query_bytes(const bw_attn_shape *shape)
{
    return round_up((size_t)most_heads(shape) * (size_t)shape->head_dim * sizeof(float));
}

static size_t thread_bytes(const bw_cpu_kernels *k, const bw_attn_shape *shape)
{
    return 2 * query_bytes(shape) + k->attn_scratch_bytes(most_heads(shape), shape->head_dim);
}

bw_cpu_needs bw_cpu_attn_needs(const bw_cpu_kernels *k, const bw_op_limits *limits)
{
    const int rows = limits->max_rows;
    return (bw_cpu_needs){
        .arena = turns_bytes(&limits->attn, rows) + (size_t)rows * sizeof(attn_block),
        .per_thread = thread_bytes(k, &limits->attn),
    };
}

/* The row's angles pos * inv_freq, once for all its heads. */
static void fill_turns(float *turns, const bw_attn_shape *shape, int pos)
{
    for (int j = 0; j < shape->n_pairs; j++) {
        float angle = (float)pos * shape->inv_freq[j];
        turns[j] = cosf(angle) * shape->magnitude;
        turns[shape->n_pairs + j] = sinf(angle) * shape->magnitude;
    }
}

static void store_head(const bw_cpu *cpu, void *pages, bw_kv_codec codec, size_t at, const float *x, int d)
{
    if (codec == BW_CODEC_F16)
        cpu->k.store_f16((uint16_t *)pages + at, x, d);
    else
        memcpy((float *)pages + at, x, (size_t)d * sizeof *x);
}

static void prepare_row(void *arg, int r, int thread)
{
    const attn_work *work = arg;
    const bw_attn_args *args = work->args;
    const bw_attn_shape *shape = args->shape;
    const bw_row row = args->rows[r];
    const int d = shape->head_dim, n_kv = shape->n_kv_heads;
    float *cosine = work->turns + (size_t)r * 2 * shape->n_pairs, *sine = cosine + shape->n_pairs;
    fill_turns(cosine, shape, row.pos);
    if (!args->k)
        return;
    float *turned = bw_cpu_thread_scratch(work->cpu, thread);
    const int32_t page = args->seqs->pages[(size_t)row.slot * args->seqs->max_pages + row.pos / BW_PAGE];
    for (int j = 0; j < n_kv; j++) {
        size_t at = (((size_t)page * n_kv + j) * BW_PAGE + row.pos % BW_PAGE) * (size_t)d;
        size_t from = ((size_t)r * n_kv + j) * d;
        work->cpu->k.norm_rope(turned, args->k + from, args->k_norm, d, shape->eps, cosine, sine, shape->n_pairs);
        store_head(work->cpu, args->kv.k, args->kv.codec, at, turned, d);
        store_head(work->cpu, args->kv.v, args->kv.codec, at, args->v + from, d);
    }
}

static void attend_part(void *arg, int unit, int thread)
{
    const attn_work *work = arg;
    const bw_attn_args *args = work->args;
    const bw_attn_shape *shape = args->shape;
    const bw_cpu_kernels *k = &work->cpu->k;
    const int d = shape->head_dim, group = group_of(shape), first = unit % work->n_parts * work->part;
    const int n_heads = group - first < work->part ? group - first : work->part;
    const int kv_head = unit / work->n_parts % shape->n_kv_heads;
    const attn_block block = work->blocks[unit / work->n_parts / shape->n_kv_heads];
    const bw_row row = args->rows[block.first];
    float *q = bw_cpu_thread_scratch(work->cpu, thread), *out = (float *)((unsigned char *)q + query_bytes(shape));
    void *scratch = (unsigned char *)out + query_bytes(shape);

    for (int i = 0; i < block.n_rows * n_heads; i++) {
        const int r = block.first + i / n_heads, h = kv_head * group + first + i % n_heads;
        const float *cosine = work->turns + (size_t)r * 2 * shape->n_pairs, *sine = cosine + shape->n_pairs;
        k->norm_rope(q + (size_t)i * d, args->q_gate + ((size_t)r * shape->n_heads + h) * 2 * d, args->q_norm, d,
                     shape->eps, cosine, sine, shape->n_pairs);
    }
    k->attend(out, q, block.n_rows, n_heads, d, &args->kv, shape->n_kv_heads, kv_head,
              args->seqs->pages + (size_t)row.slot * args->seqs->max_pages, row.pos + 1, scratch);
    for (int i = 0; i < block.n_rows * n_heads; i++) {
        const size_t at = (size_t)(block.first + i / n_heads) * shape->n_heads + kv_head * group + first + i % n_heads;
        k->sigmoid_mul(args->out + at * d, out + (size_t)i * d, args->q_gate + at * 2 * d + d, d);
    }
}

/* Blocks of rows as large as HEADS_AT_ONCE allows, and groups of heads cut, as long as that leaves
 * every thread something to do. */
static void cut_work(attn_work *work)
{
    const bw_attn_args *args = work->args;
    const int group = group_of(args->shape), n_kv = args->shape->n_kv_heads, n_threads = work->cpu->base.n_threads;
    const int fair = args->n_rows * n_kv / n_threads;
    int most = HEADS_AT_ONCE / group < fair ? HEADS_AT_ONCE / group : fair;
    for (int r = 0; r < args->n_rows; r++) {
        const bw_row row = args->rows[r];
        const bool follows = r > 0 && row.slot == args->rows[r - 1].slot && row.pos == args->rows[r - 1].pos + 1;
        if (follows && work->blocks[work->n_blocks - 1].n_rows < most)
            work->blocks[work->n_blocks - 1].n_rows++;
        else
            work->blocks[work->n_blocks++] = (attn_block){ r, 1 };
    }
    const int units = work->n_blocks * n_kv, wanted = units > 0 ? (n_threads + units - 1) / units : 1;
    work->part = wanted >= group ? 1 : (group + wanted - 1) / wanted;
    work->n_parts = (group + work->part - 1) / work->part;
}

void bw_cpu_attention(bw_backend *be, const bw_attn_args *args)
{
    bw_cpu *cpu = bw_cpu_of(be);
    const bw_attn_shape *shape = args->shape;
    assert(shape->n_heads % shape->n_kv_heads == 0 && 2 * shape->n_pairs <= shape->head_dim);
    assert(!args->k == !args->v);
    assert(turns_bytes(shape, args->n_rows) + (size_t)args->n_rows * sizeof(attn_block) <= cpu->arena_bytes);
    assert(thread_bytes(&cpu->k, shape) <= cpu->per_thread_bytes);
    attn_work work = { .cpu = cpu, .args = args, .turns = (float *)cpu->arena };
    work.blocks = (attn_block *)(cpu->arena + turns_bytes(shape, args->n_rows));
    /* a value of a key takes about 8 multiplications, a cosine and a sine 40 */
    const double row_work = 40.0 * shape->n_pairs + (args->k ? 8.0 * shape->n_kv_heads * shape->head_dim : 0);
    bw_cpu_for(cpu, args->n_rows, row_work * args->n_rows, prepare_row, &work);
    if (!args->q_gate)
        return;
    cut_work(&work);
    double pairs = 0; /* of a row and a position it sees */
    for (int r = 0; r < args->n_rows; r++)
        pairs += args->rows[r].pos + 8; /* queries and gate cost as much as a few positions */
    bw_cpu_for(cpu, work.n_blocks * shape->n_kv_heads * work.n_parts, 2 * pairs * shape->n_heads * shape->head_dim,
               attend_part, &work);
}
