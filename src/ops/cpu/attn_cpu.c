/* attn_cpu.c - gated attention over paged keys and values: how the work is cut, not the arithmetic.
 *
 * Passes over the rows with a barrier between them: (1) per row: cosines and sines of its position, keys
 * and values into their page, where the rows of a step see each other; (2) per block of neighbouring rows
 * of a sequence and KV head: norm and turn the queries, attend, gate. A block reads a page once for all its
 * rows and the query heads that share it.
 *
 * Positions are summed in segments, each on its own, which are then added in order (`segment_end`). So a
 * block that is too large a part of a step, such as the only row of the only sequence, is cut by segments
 * as well: its units leave their sums, and (3) per row adds them up. Segments follow from positions alone;
 * a head's bits depend on none of these cuts.
 * Runs on the caller's thread and the pool; owns nothing. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "ops/cpu/cpu.h"

enum {
    QUERIES_AT_ONCE = 64, /* of a block: queries and two sums of 256 values are 192 KiB */
    MAX_PARTS = 4096,     /* sums of a query and a segment that wait to be added: 4 MiB of 256 values */
    UNITS_PER_THREAD = 3  /* a unit is a segment only where blocks are fewer */
};

typedef struct attn_block {
    int32_t first, n_rows; /* rows of one slot, at consecutive positions */
    int32_t n_segments;    /* it is cut into; 0: it is not */
    int32_t first_unit, first_part;
} attn_block;

typedef struct attn_work {
    const bw_cpu *cpu;
    const bw_attn_args *args;
    float *turns;       /* [n_rows, 2, n_pairs] cosines, then sines, of every row */
    attn_block *blocks; /* [n_rows] */
    int n_blocks, n_units, n_parts;
    bw_attn_sums parts; /* [n_parts] of every cut block: [n_kv_heads, n_segments, queries] */
} attn_work;

/* Segments: 512 positions each up to 8,192, then eight to every doubling, so that there are few of them
 * at any depth and the last is at most an eighth of all. Starts and ends are starts of pages. */
static int segment_end(int first)
{
    int size = 512;
    while (first >= 16 * size)
        size *= 2;
    return first + size;
}

static int count_segments(int n_pos)
{
    int n = 0;
    for (int first = 0; first < n_pos; first = segment_end(first))
        n++;
    return n;
}

static int group_of(const bw_attn_shape *shape)
{
    return shape->n_kv_heads ? shape->n_heads / shape->n_kv_heads : 0;
}

/* Queries of a block, all its rows and heads together. */
static int most_queries(const bw_attn_shape *shape)
{
    return group_of(shape) > QUERIES_AT_ONCE ? group_of(shape) : QUERIES_AT_ONCE;
}

/* ---- scratch --------------------------------------------------------------------------------- */

static size_t round_up(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static size_t turns_bytes(const bw_attn_shape *shape, int n_rows)
{
    return round_up((size_t)n_rows * 2 * (size_t)shape->n_pairs * sizeof(float));
}

static size_t sums_bytes(size_t n, const bw_attn_shape *shape)
{
    return round_up(n * (size_t)shape->head_dim * sizeof(float)) + 2 * round_up(n * sizeof(float));
}

static bw_attn_sums sums_at(void *memory, size_t n, const bw_attn_shape *shape)
{
    float *out = memory, *max = (float *)((unsigned char *)memory + round_up(n * (size_t)shape->head_dim * sizeof(float)));
    return (bw_attn_sums){ out, max, (float *)((unsigned char *)max + round_up(n * sizeof(float))) };
}

static bw_attn_sums sums_from(const bw_attn_sums *sums, size_t i, int d)
{
    return (bw_attn_sums){ sums->out + i * (size_t)d, sums->max + i, sums->sum + i };
}

/* What a thread works on: queries, the sums of a segment and of all before it. */
typedef struct attn_scratch {
    float *q;
    bw_attn_sums total, segment;
    void *kernel;
} attn_scratch;

static size_t query_bytes(const bw_attn_shape *shape)
{
    return round_up((size_t)most_queries(shape) * (size_t)shape->head_dim * sizeof(float));
}

static size_t thread_bytes(const bw_cpu_kernels *k, const bw_attn_shape *shape)
{
    const size_t n = (size_t)most_queries(shape);
    return query_bytes(shape) + 2 * sums_bytes(n, shape) + k->attn_scratch_bytes(most_queries(shape), shape->head_dim);
}

static attn_scratch scratch_of(const attn_work *work, int thread)
{
    const bw_attn_shape *shape = work->args->shape;
    const size_t n = (size_t)most_queries(shape);
    unsigned char *at = bw_cpu_thread_scratch(work->cpu, thread), *sums = at + query_bytes(shape);
    return (attn_scratch){ (float *)at, sums_at(sums, n, shape), sums_at(sums + sums_bytes(n, shape), n, shape),
                           sums + 2 * sums_bytes(n, shape) };
}

/* Parts of a step of n_rows rows: no more than there can be at a depth of 2^31. */
static size_t most_parts(const bw_attn_shape *shape, int n_rows)
{
    const double all = 160.0 * n_rows * shape->n_heads;
    return all < MAX_PARTS ? (size_t)all : MAX_PARTS;
}

static size_t arena_bytes(const bw_attn_shape *shape, int n_rows)
{
    return turns_bytes(shape, n_rows) + round_up((size_t)n_rows * sizeof(attn_block)) +
           sums_bytes(most_parts(shape, n_rows), shape);
}

bw_cpu_needs bw_cpu_attn_needs(const bw_cpu_kernels *k, const bw_op_limits *limits)
{
    return (bw_cpu_needs){
        .arena = arena_bytes(&limits->attn, limits->max_rows),
        .per_thread = thread_bytes(k, &limits->attn),
    };
}

/* ---- pass 1: keys and values into the pages --------------------------------------------------- */

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

/* ---- passes 2 and 3: attend ------------------------------------------------------------------- */

static bw_attn_queries block_queries(const attn_work *work, const attn_block *block, int kv_head, float *q)
{
    const bw_attn_args *args = work->args;
    const bw_attn_shape *shape = args->shape;
    const int d = shape->head_dim, group = group_of(shape);
    const bw_row row = args->rows[block->first];
    for (int i = 0; i < block->n_rows * group; i++) {
        const int r = block->first + i / group, h = kv_head * group + i % group;
        const float *cosine = work->turns + (size_t)r * 2 * shape->n_pairs, *sine = cosine + shape->n_pairs;
        work->cpu->k.norm_rope(q + (size_t)i * d, args->q_gate + ((size_t)r * shape->n_heads + h) * 2 * d, args->q_norm, d,
                               shape->eps, cosine, sine, shape->n_pairs);
    }
    return (bw_attn_queries){ q, block->n_rows, group, d, row.pos + 1, &args->kv, shape->n_kv_heads, kv_head,
                              args->seqs->pages + (size_t)row.slot * args->seqs->max_pages };
}

static void write_head(const attn_work *work, int row, int head, const bw_attn_sums *total)
{
    const bw_attn_args *args = work->args;
    const int d = args->shape->head_dim;
    const size_t at = (size_t)row * args->shape->n_heads + head;
    work->cpu->k.sigmoid_mul(args->out + at * d, total->out, 1 / *total->sum, args->q_gate + at * 2 * d + d, d);
}

static void attend_block(const attn_work *work, const attn_block *block, int kv_head, const attn_scratch *mine)
{
    const int group = group_of(work->args->shape), d = work->args->shape->head_dim;
    const bw_attn_queries queries = block_queries(work, block, kv_head, mine->q);
    const int n_pos = queries.n_pos + block->n_rows - 1, n = block->n_rows * group;
    work->cpu->k.attend(&mine->total, &queries, 0, segment_end(0), mine->kernel);
    for (int first = segment_end(0); first < n_pos; first = segment_end(first)) {
        work->cpu->k.attend(&mine->segment, &queries, first, segment_end(first), mine->kernel);
        for (int i = 0; i < n; i++) {
            const bw_attn_sums to = sums_from(&mine->total, (size_t)i, d), more = sums_from(&mine->segment, (size_t)i, d);
            if (first < queries.n_pos + i / group) /* the row sees some of it */
                work->cpu->k.attn_merge(&to, &more, d);
        }
    }
    for (int i = 0; i < n; i++) {
        const bw_attn_sums total = sums_from(&mine->total, (size_t)i, d);
        write_head(work, block->first + i / group, kv_head * group + i % group, &total);
    }
}

static bw_attn_sums block_parts(const attn_work *work, const attn_block *block, int kv_head, int segment)
{
    const size_t n = (size_t)block->n_rows * (size_t)group_of(work->args->shape);
    const size_t before = ((size_t)kv_head * (size_t)block->n_segments + (size_t)segment) * n;
    return sums_from(&work->parts, (size_t)block->first_part + before, work->args->shape->head_dim);
}

static void attend_segment(const attn_work *work, const attn_block *block, int kv_head, int segment, const attn_scratch *mine)
{
    const bw_attn_queries queries = block_queries(work, block, kv_head, mine->q);
    const bw_attn_sums part = block_parts(work, block, kv_head, segment);
    int first = 0;
    for (int i = 0; i < segment; i++)
        first = segment_end(first);
    work->cpu->k.attend(&part, &queries, first, segment_end(first), mine->kernel);
}

static void attend_unit(void *arg, int unit, int thread)
{
    const attn_work *work = arg;
    const attn_scratch mine = scratch_of(work, thread);
    int low = 0, high = work->n_blocks - 1; /* the last block that begins at or before the unit */
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (work->blocks[middle].first_unit <= unit)
            low = middle;
        else
            high = middle - 1;
    }
    const attn_block *block = &work->blocks[low];
    const int n_kv = work->args->shape->n_kv_heads, i = unit - block->first_unit;
    if (block->n_segments)
        attend_segment(work, block, i % n_kv, block->n_segments - 1 - i / n_kv, &mine); /* large ones first */
    else
        attend_block(work, block, i, &mine);
}

/* Of a block that was cut: the row's segments, in order. */
static void add_segments(const attn_work *work, const attn_block *block, int row, const bw_attn_sums *total)
{
    const bw_attn_shape *shape = work->args->shape;
    const int group = group_of(shape), d = shape->head_dim, n_pos = work->args->rows[row].pos + 1;
    for (int h = 0; h < shape->n_heads; h++) {
        for (int s = 0, first = 0; first < n_pos; s++, first = segment_end(first)) {
            const bw_attn_sums parts = block_parts(work, block, h / group, s);
            const bw_attn_sums part = sums_from(&parts, (size_t)((row - block->first) * group + h % group), d);
            if (s > 0) {
                work->cpu->k.attn_merge(total, &part, d);
                continue;
            }
            memcpy(total->out, part.out, (size_t)d * sizeof *total->out);
            *total->max = *part.max;
            *total->sum = *part.sum;
        }
        write_head(work, row, h, total);
    }
}

static void add_block(void *arg, int unit, int thread)
{
    const attn_work *work = arg;
    const attn_block *block = &work->blocks[unit];
    const attn_scratch mine = scratch_of(work, thread);
    for (int r = 0; block->n_segments && r < block->n_rows; r++)
        add_segments(work, block, block->first + r, &mine.total);
}

/* ---- the cut ---------------------------------------------------------------------------------- */

/* Blocks of as many rows as fit, as long as that leaves every thread something to do: a unit is a KV head
 * of a block, or where all sums of the step's segments have room, a segment of it. */
static void list_blocks(attn_work *work)
{
    const bw_attn_args *args = work->args;
    const bw_attn_shape *shape = args->shape;
    const int fit = most_queries(shape) / group_of(shape);
    int deepest = 0;
    for (int r = 0; r < args->n_rows; r++)
        deepest = args->rows[r].pos > deepest ? args->rows[r].pos : deepest;
    double units = (double)args->n_rows * shape->n_kv_heads;
    const int n_segments = count_segments(deepest + 1);
    if ((double)args->n_rows * shape->n_heads * n_segments <= MAX_PARTS)
        units *= n_segments;
    const double fair = units / work->cpu->base.n_threads;
    const int most = fit < fair ? fit : (int)fair;
    for (int r = 0; r < args->n_rows; r++) {
        const bw_row row = args->rows[r];
        const bool follows = r > 0 && row.slot == args->rows[r - 1].slot && row.pos == args->rows[r - 1].pos + 1;
        if (follows && work->blocks[work->n_blocks - 1].n_rows < most)
            work->blocks[work->n_blocks - 1].n_rows++;
        else
            work->blocks[work->n_blocks++] = (attn_block){ .first = r, .n_rows = 1 };
    }
}

static double block_work(const attn_work *work, const attn_block *block)
{
    return block->n_rows * (work->args->rows[block->first].pos + 1 + block->n_rows / 2.0);
}

/* Cuts blocks by segments where they are more than a thread's share allows and there is room for the
 * sums; from the last one on, so that large units are handed out first. Returns pairs of rows and
 * positions. */
static double cut_blocks(attn_work *work)
{
    const bw_attn_shape *shape = work->args->shape;
    const int n_threads = work->cpu->base.n_threads, group = group_of(shape);
    const size_t room = most_parts(shape, work->args->n_rows);
    double all = 0;
    for (int b = 0; b < work->n_blocks; b++)
        all += block_work(work, &work->blocks[b]);
    for (int b = work->n_blocks; n_threads > 1 && b-- > 0;) {
        attn_block *block = &work->blocks[b];
        const int n_segments = count_segments(work->args->rows[block->first].pos + block->n_rows);
        const size_t n_parts = (size_t)n_segments * (size_t)(block->n_rows * group * shape->n_kv_heads);
        if (n_segments == 1 || n_parts > room - (size_t)work->n_parts ||
            block_work(work, block) * UNITS_PER_THREAD * n_threads <= all * shape->n_kv_heads)
            continue;
        block->n_segments = n_segments;
        block->first_part = work->n_parts;
        work->n_parts += (int)n_parts;
    }
    for (int b = 0; b < work->n_blocks; b++) {
        attn_block *block = &work->blocks[b];
        block->first_unit = work->n_units;
        work->n_units += shape->n_kv_heads * (block->n_segments ? block->n_segments : 1);
    }
    return all;
}

void bw_cpu_attention(bw_backend *be, const bw_attn_args *args)
{
    bw_cpu *cpu = bw_cpu_of(be);
    const bw_attn_shape *shape = args->shape;
    assert(shape->n_heads % shape->n_kv_heads == 0 && 2 * shape->n_pairs <= shape->head_dim);
    assert(!args->k == !args->v);
    assert(arena_bytes(shape, args->n_rows) <= cpu->arena_bytes);
    assert(thread_bytes(&cpu->k, shape) <= cpu->per_thread_bytes);
    unsigned char *blocks = cpu->arena + turns_bytes(shape, args->n_rows);
    attn_work work = { .cpu = cpu, .args = args, .turns = (float *)cpu->arena, .blocks = (attn_block *)blocks };
    work.parts = sums_at(blocks + round_up((size_t)args->n_rows * sizeof(attn_block)), most_parts(shape, args->n_rows), shape);
    /* a value of a key takes about 8 multiplications, a cosine and a sine 40 */
    const double row_work = 40.0 * shape->n_pairs + (args->k ? 8.0 * shape->n_kv_heads * shape->head_dim : 0);
    bw_cpu_for(cpu, args->n_rows, row_work * args->n_rows, prepare_row, &work);
    if (!args->q_gate)
        return;
    list_blocks(&work);
    /* queries and gate cost as much as a few positions */
    const double pairs = cut_blocks(&work) + 8.0 * args->n_rows;
    bw_cpu_for(cpu, work.n_units, 2 * pairs * shape->n_heads * shape->head_dim, attend_unit, &work);
    if (work.n_parts > 0)
        bw_cpu_for(cpu, work.n_blocks, (double)work.n_parts * shape->head_dim, add_block, &work);
}
