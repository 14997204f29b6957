/* moe_cpu.c - the mixture of experts. Every expert that some row chose meets all its rows at once, so
 * its weights are read once a step; each (row, rank) has an output of its own, and a row adds its
 * outputs up in order of rank whoever computed them. Engine thread; units on the pool. */
#include <math.h>
#include <string.h>

#include "ops/cpu/products.h"

/* An entry is a (row, rank), in order of expert and then of row. */
typedef struct moe_job {
    bw_cpu *cpu;
    const bw_moe_args *args;
    int n, width, n_used, n_entries;
    bw_rows rows; /* normed */
    bool int8_in, float_in; /* some gate or up wants rounded rows, some want them as they are */
    bw_weight shared_gate;
    float *logits;      /* [n, n_experts] */
    float *shared_logit; /* [n] */
    int32_t *chosen;    /* [n, n_used] by rank */
    float *share;       /* [n, n_used] */
    int32_t *first;     /* [n_experts + 1] of the expert's entries */
    int32_t *entry;     /* [n, n_used] */
    int32_t *expert_of; /* [n_entries] */
    bw_rows gathered;   /* [n_entries], an expert's entries as rows of their own; of one row: not used */
    bw_rows middle;     /* the same of `hidden` */
    float *gathered_x;  /* [n_entries, width] what gathered.x is, writable; the experts' outputs afterwards */
    float *hidden;      /* [n_entries, ffn] */
    float *shared_hidden, *shared_out;
    bw_product *products; /* [n_experts + 2] */
} moe_job;

/* Softmax over the chosen alone: the same as over all and then renormalised. Comparisons with NaN are
 * false, so that a row of NaN chooses experts 0, 1, ... */
static void choose(void *arg, int row, int thread)
{
    moe_job *j = arg;
    const int n_experts = j->args->shape->n_experts, n_used = j->n_used;
    const float *logits = j->logits + (size_t)row * (size_t)n_experts;
    int32_t *chosen = j->chosen + (size_t)row * (size_t)n_used;
    float *share = j->share + (size_t)row * (size_t)n_used, sum = 0;
    (void)thread;
    int n = 0; /* insertion into a list sorted by logit, equal ones by index */
    for (int e = 0; e < n_experts; e++) {
        int at = n < n_used ? n++ : n_used;
        for (; at > 0 && logits[e] > logits[chosen[at - 1]]; at--)
            if (at < n_used)
                chosen[at] = chosen[at - 1];
        if (at < n_used)
            chosen[at] = e;
    }
    for (int i = 0; i < n_used; i++)
        sum += share[i] = expf(logits[chosen[i]] - logits[chosen[0]]);
    for (int i = 0; i < n_used; i++)
        share[i] /= sum;
}

static void sort_entries(moe_job *j)
{
    const int n_experts = j->args->shape->n_experts;
    memset(j->first, 0, ((size_t)n_experts + 1) * sizeof *j->first);
    for (int i = 0; i < j->n_entries; i++)
        j->first[j->chosen[i] + 1]++;
    for (int e = 0; e < n_experts; e++)
        j->first[e + 1] += j->first[e];
    for (int i = 0; i < j->n_entries; i++) {
        j->entry[i] = j->first[j->chosen[i]]++; /* first[e] becomes the end of e ... */
        j->expert_of[j->entry[i]] = j->chosen[i];
    }
    for (int e = n_experts; e > 0; e--) /* ... that is the start of e + 1 */
        j->first[e] = j->first[e - 1];
    j->first[0] = 0;
}

/* The rows of an expert: its entries are rows 0 .. of an object of their own. */
static bw_rows rows_of_expert(const moe_job *j, const bw_rows *rows, int expert, int cols)
{
    const size_t first = (size_t)j->first[expert], groups = (size_t)(cols / BW_Q8_GROUP);
    bw_rows own = *rows;
    if (own.x)
        own.x += first * (size_t)cols;
    if (own.q.q) {
        own.q.q += first * groups * BW_Q8_GROUP;
        own.q.scale += first * groups;
        own.q.sum += first * groups;
        own.q.half += first * groups;
    }
    return own;
}

/* Groups of a row are as far apart as its block has rows. */
static void gather_entry(void *arg, int i, int thread)
{
    moe_job *j = arg;
    const int row = i / j->n_used, entry = j->entry[i], expert = j->chosen[i], groups = j->width / BW_Q8_GROUP;
    (void)thread;
    if (j->float_in)
        memcpy(j->gathered_x + (size_t)entry * (size_t)j->width, j->rows.x + (size_t)row * (size_t)j->width,
               (size_t)j->width * sizeof(float));
    if (!j->int8_in)
        return;
    const bw_q8_rows *from = &j->rows.q, to = rows_of_expert(j, &j->gathered, expert, j->width).q;
    const int own = entry - j->first[expert], count = j->first[expert + 1] - j->first[expert];
    size_t source = bw_q8_entry(j->n, j->width, row, 0), place = bw_q8_entry(count, j->width, own, 0);
    const size_t source_step = bw_q8_entry(j->n, j->width, row, 1) - source;
    const size_t place_step = bw_q8_entry(count, j->width, own, 1) - place;
    for (int g = 0; g < groups; g++, source += source_step, place += place_step) {
        memcpy(to.q + place * BW_Q8_GROUP, from->q + source * BW_Q8_GROUP, BW_Q8_GROUP);
        to.scale[place] = from->scale[source];
        to.sum[place] = from->sum[source];
        to.half[place] = from->half[source];
    }
}

/* The hidden row of an entry, rounded. */
static void round_entry(void *arg, int entry, int thread)
{
    moe_job *j = arg;
    const int ffn = j->args->shape->ffn, expert = j->expert_of[entry], first = j->first[expert];
    const bw_q8_rows rows = rows_of_expert(j, &j->middle, expert, ffn).q;
    (void)thread;
    j->cpu->k.quantize(&rows, j->first[expert + 1] - first, j->hidden + (size_t)entry * (size_t)ffn, entry - first, 1, ffn);
}

static void run_up(moe_job *j)
{
    const bw_moe_args *a = j->args;
    int n = 0;
    for (int e = 0; e < a->shape->n_experts; e++) {
        const int first = j->first[e], count = j->first[e + 1] - first;
        if (count > 0)
            j->products[n++] = (bw_product){ .w = &a->experts[e].gate, .up = &a->experts[e].up, .n = count,
                                             .rows = j->n == 1 ? j->rows : rows_of_expert(j, &j->gathered, e, j->width),
                                             .y = j->hidden + (size_t)first * (size_t)a->shape->ffn,
                                             .y_stride = (size_t)a->shape->ffn };
    }
    j->products[n++] = (bw_product){ .w = &a->shared.gate, .up = &a->shared.up, .n = j->n, .rows = j->rows,
                                     .y = j->shared_hidden, .y_stride = (size_t)a->shape->shared_ffn };
    j->products[n++] = (bw_product){ .w = &j->shared_gate, .n = j->n, .rows = j->rows, .y = j->shared_logit,
                                     .y_stride = 1 };
    bw_products_run(j->cpu, j->products, n);
}

static void run_down(moe_job *j, bw_carver *carver, bool int8)
{
    const bw_moe_args *a = j->args;
    const int ffn = a->shape->ffn, shared_ffn = a->shape->shared_ffn;
    j->middle = (bw_rows){ .x = j->hidden };
    if (int8) {
        j->middle.q = bw_q8_carve(carver, j->n_entries, ffn);
        bw_cpu_for(j->cpu, j->n_entries, (double)j->n_entries * ffn, round_entry, j);
    }
    const bw_rows shared = bw_rows_ready(j->cpu, carver, j->shared_hidden, j->n, shared_ffn, NULL, 0, a->shared.down.int8);
    int n = 0;
    for (int e = 0; e < a->shape->n_experts; e++) {
        const int first = j->first[e], count = j->first[e + 1] - first;
        if (count > 0)
            j->products[n++] = (bw_product){ .w = &a->experts[e].down, .n = count,
                                             .rows = rows_of_expert(j, &j->middle, e, ffn),
                                             .y = j->gathered_x + (size_t)first * (size_t)j->width,
                                             .y_stride = (size_t)j->width };
    }
    j->products[n++] = (bw_product){ .w = &a->shared.down, .n = j->n, .rows = shared, .y = j->shared_out,
                                     .y_stride = (size_t)j->width };
    bw_products_run(j->cpu, j->products, n);
}

/* Four columns, whatever the level: nothing here is worth more. */
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
enum { ADDED = 16 }; /* columns at a time, kept in registers */

/* x += sum of share * y in order of rank, + gate * shared: ADDED columns from `at` on */
static void add_columns(const moe_job *j, int row, size_t at, float gate)
{
    const size_t width = (size_t)j->width, first = (size_t)row * (size_t)j->n_used;
    const four *shared = (const four *)(j->shared_out + (size_t)row * width + at);
    four *x = (four *)(j->args->x + (size_t)row * width + at), routed[ADDED / 4];
    for (int i = 0; i < j->n_used; i++) {
        const four *y = (const four *)(j->gathered_x + (size_t)j->entry[first + (size_t)i] * width + at);
        const float share = j->share[first + (size_t)i];
        for (int c = 0; c < ADDED / 4; c++)
            routed[c] = i == 0 ? share * y[c] : routed[c] + share * y[c];
    }
    for (int c = 0; c < ADDED / 4; c++)
        x[c] += routed[c] + shared[c] * gate;
}

static void add_column(const moe_job *j, int row, size_t at, float gate)
{
    const size_t width = (size_t)j->width, first = (size_t)row * (size_t)j->n_used;
    float routed = 0;
    for (int i = 0; i < j->n_used; i++) {
        const float y = j->gathered_x[(size_t)j->entry[first + (size_t)i] * width + at], share = j->share[first + (size_t)i];
        routed = i == 0 ? share * y : routed + share * y;
    }
    j->args->x[(size_t)row * width + at] += routed + j->shared_out[(size_t)row * width + at] * gate;
}

static void add_up(void *arg, int row, int thread)
{
    const moe_job *j = arg;
    const float gate = 1 / (1 + expf(-j->shared_logit[row]));
    int c = 0;
    (void)thread;
    for (; c + ADDED <= j->width; c += ADDED)
        add_columns(j, row, (size_t)c, gate);
    for (; c < j->width; c++)
        add_column(j, row, (size_t)c, gate);
}

static void carve_job(moe_job *j, bw_carver *carver)
{
    const size_t n = (size_t)j->n, entries = (size_t)j->n_entries, n_experts = (size_t)j->args->shape->n_experts;
    const size_t width = (size_t)j->width;
    j->logits = bw_carve(carver, n * n_experts * sizeof *j->logits);
    j->shared_logit = bw_carve(carver, n * sizeof *j->shared_logit);
    j->chosen = bw_carve(carver, entries * sizeof *j->chosen);
    j->share = bw_carve(carver, entries * sizeof *j->share);
    j->first = bw_carve(carver, (n_experts + 1) * sizeof *j->first);
    j->entry = bw_carve(carver, entries * sizeof *j->entry);
    j->expert_of = bw_carve(carver, entries * sizeof *j->expert_of);
    j->gathered_x = bw_carve(carver, entries * width * sizeof(float));
    j->hidden = bw_carve(carver, entries * (size_t)j->args->shape->ffn * sizeof(float));
    j->shared_hidden = bw_carve(carver, n * (size_t)j->args->shape->shared_ffn * sizeof(float));
    j->shared_out = bw_carve(carver, n * width * sizeof(float));
    j->products = bw_carve(carver, (n_experts + 2) * sizeof *j->products);
    j->gathered.x = j->float_in ? j->gathered_x : NULL;
    if (j->int8_in)
        j->gathered.q = bw_q8_carve(carver, j->n_entries, j->width);
}

bw_cpu_needs bw_cpu_moe_needs(const bw_cpu_kernels *k, const bw_op_limits *limits)
{
    const bw_moe_shape *shape = &limits->moe;
    if (shape->n_experts == 0)
        return (bw_cpu_needs){ 0, 0 };
    const size_t n = (size_t)bw_limits_rows(limits), entries = n * (size_t)shape->n_used, width = (size_t)limits->hidden;
    const size_t n_experts = (size_t)shape->n_experts;
    return (bw_cpu_needs){
        .arena = bw_carved_bytes(n * width * sizeof(float)) + bw_q8_carved_bytes((int)n, limits->hidden) +
                 bw_carved_bytes(n * n_experts * sizeof(float)) + bw_carved_bytes(n * sizeof(float)) +
                 4 * bw_carved_bytes(entries * sizeof(int32_t)) + bw_carved_bytes((n_experts + 1) * sizeof(int32_t)) +
                 bw_carved_bytes(entries * width * sizeof(float)) +
                 bw_carved_bytes(entries * (size_t)shape->ffn * sizeof(float)) +
                 bw_carved_bytes(n * (size_t)shape->shared_ffn * sizeof(float)) +
                 bw_carved_bytes(n * width * sizeof(float)) + bw_carved_bytes((n_experts + 2) * sizeof(bw_product)) +
                 bw_q8_carved_bytes((int)entries, limits->hidden) + bw_q8_carved_bytes((int)entries, shape->ffn) +
                 bw_q8_carved_bytes((int)n, shape->shared_ffn),
        .per_thread = bw_products_thread_bytes(k, limits),
    };
}

void bw_cpu_moe(bw_backend *be, const bw_moe_args *args)
{
    bw_cpu *cpu = bw_cpu_of(be);
    const bw_moe_shape *shape = args->shape;
    moe_job j = { .cpu = cpu, .args = args, .n = args->n_rows, .width = args->router.cols, .n_used = shape->n_used,
                  .n_entries = args->n_rows * shape->n_used };
    bw_carver carver = bw_carve_arena(cpu);
    bool int8_down = false;
    if (args->n_rows < 1)
        return;
    assert(shape->n_used >= 1 && shape->n_used <= shape->n_experts);
    for (int e = 0; e < shape->n_experts; e++) {
        j.int8_in |= args->experts[e].gate.int8 || args->experts[e].up.int8;
        j.float_in |= !args->experts[e].gate.int8 || !args->experts[e].up.int8;
        int8_down |= args->experts[e].down.int8;
    }
    const bool int8 = j.int8_in || args->router.int8 || args->shared.gate.int8 || args->shared.up.int8;
    j.rows = bw_rows_ready(cpu, &carver, args->x, j.n, j.width, args->norm, args->eps, int8);
    j.shared_gate = (bw_weight){ .type = BW_F32, .rows = 1, .cols = j.width, .data = args->shared_gate };
    carve_job(&j, &carver);

    bw_product router = { .w = &args->router, .n = j.n, .rows = j.rows, .y = j.logits,
                          .y_stride = (size_t)shape->n_experts };
    bw_products_run(cpu, &router, 1);
    bw_cpu_for(cpu, j.n, (double)j.n * shape->n_experts, choose, &j);
    sort_entries(&j);
    if (j.n > 1)
        bw_cpu_for(cpu, j.n_entries, (double)j.n_entries * j.width / 4, gather_entry, &j);
    run_up(&j);
    run_down(&j, &carver, int8_down);
    bw_cpu_for(cpu, j.n, (double)j.n_entries * j.width, add_up, &j);
}
