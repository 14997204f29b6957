/* attn_cpu.c - gated attention over paged keys and values: how the work is cut, not the arithmetic.
 *
 * Two passes over the rows with a barrier between them, because the rows of a step see each other
 * through the pages: (1) per row: cosines and sines of its position, keys and values into their
 * page; (2) per row and KV head, or a part of the query heads that share it when there are few rows:
 * norm and turn the queries, attend, gate. A head's bits depend on none of these cuts.
 * Runs on the caller's thread and the pool; owns nothing. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "ops/cpu/cpu.h"

typedef struct attn_work {
    const bw_cpu *cpu;
    const bw_attn_args *args;
    float *turns; /* [n_rows, 2, n_pairs] cosines, then sines, of every row */
    int part, n_parts; /* query heads of a unit; units of a KV head */
} attn_work;

static size_t query_bytes(const bw_attn_shape *shape)
{
    size_t group = (size_t)(shape->n_kv_heads ? shape->n_heads / shape->n_kv_heads : 0);
    return (group * (size_t)shape->head_dim * sizeof(float) + 63) & ~(size_t)63;
}

bw_cpu_needs bw_cpu_attn_needs(const bw_cpu_kernels *k, const bw_op_limits *limits)
{
    const bw_attn_shape *shape = &limits->attn;
    int group = shape->n_kv_heads ? shape->n_heads / shape->n_kv_heads : 0;
    return (bw_cpu_needs){
        .arena = (size_t)limits->max_rows * 2 * (size_t)shape->n_pairs * sizeof(float),
        .per_thread = query_bytes(shape) + k->attn_scratch_bytes(group, shape->head_dim),
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
    const int d = shape->head_dim, group = shape->n_heads / shape->n_kv_heads;
    const int first = unit % work->n_parts * work->part, n_heads = group - first < work->part ? group - first : work->part;
    const int r = unit / work->n_parts / shape->n_kv_heads, kv_head = unit / work->n_parts % shape->n_kv_heads;
    const bw_row row = args->rows[r];
    const float *cosine = work->turns + (size_t)r * 2 * shape->n_pairs, *sine = cosine + shape->n_pairs;
    const size_t first_head = (size_t)r * shape->n_heads + (size_t)kv_head * group + first;
    const float *q_gate = args->q_gate + first_head * 2 * d;
    float *out = args->out + first_head * d;
    float *q = bw_cpu_thread_scratch(work->cpu, thread);
    void *scratch = (unsigned char *)q + query_bytes(shape);

    for (int h = 0; h < n_heads; h++)
        k->norm_rope(q + (size_t)h * d, q_gate + (size_t)h * 2 * d, args->q_norm, d, shape->eps, cosine, sine,
                     shape->n_pairs);
    k->attend(out, q, n_heads, d, &args->kv, shape->n_kv_heads, kv_head,
              args->seqs->pages + (size_t)row.slot * args->seqs->max_pages, row.pos + 1, scratch);
    for (int h = 0; h < n_heads; h++)
        k->sigmoid_mul(out + (size_t)h * d, out + (size_t)h * d, q_gate + (size_t)h * 2 * d + d, d);
}

/* Heads that share a key share its loading too, so a group is only cut when threads would be idle. */
static void cut_groups(attn_work *work)
{
    const bw_attn_shape *shape = work->args->shape;
    const int group = shape->n_heads / shape->n_kv_heads, units = work->args->n_rows * shape->n_kv_heads;
    const int wanted = units > 0 ? (work->cpu->base.n_threads + units - 1) / units : 1;
    work->part = wanted >= group ? 1 : (group + wanted - 1) / wanted;
    work->n_parts = (group + work->part - 1) / work->part;
}

void bw_cpu_attention(bw_backend *be, const bw_attn_args *args)
{
    bw_cpu *cpu = bw_cpu_of(be);
    const bw_attn_shape *shape = args->shape;
    assert(shape->n_heads % shape->n_kv_heads == 0 && 2 * shape->n_pairs <= shape->head_dim);
    assert(!args->k == !args->v);
    assert((size_t)args->n_rows * 2 * (size_t)shape->n_pairs * sizeof(float) <= cpu->arena_bytes);
    assert(query_bytes(shape) + cpu->k.attn_scratch_bytes(shape->n_heads / shape->n_kv_heads, shape->head_dim) <=
           cpu->per_thread_bytes);
    attn_work work = { .cpu = cpu, .args = args, .turns = (float *)cpu->arena };
    bw_pool_for(cpu->pool, args->n_rows, prepare_row, &work);
    if (!args->q_gate)
        return;
    cut_groups(&work);
    bw_pool_for(cpu->pool, args->n_rows * shape->n_kv_heads * work.n_parts, attend_part, &work);
}
