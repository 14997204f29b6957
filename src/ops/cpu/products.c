/* products.c - see products.h. Called by operations, on the engine thread; units run on the pool. */
#include "ops/cpu/products.h"

#include "ops/cpu/pack.h"

size_t bw_q8_carved_bytes(int n, int cols)
{
    const size_t entries = (size_t)n * (size_t)(cols / BW_Q8_GROUP);
    return bw_carved_bytes(entries * BW_Q8_GROUP) + 3 * bw_carved_bytes(entries * sizeof(float));
}

bw_q8_rows bw_q8_carve(bw_carver *carver, int n, int cols)
{
    const size_t entries = (size_t)n * (size_t)(cols / BW_Q8_GROUP);
    bw_q8_rows q;
    q.q = bw_carve(carver, entries * BW_Q8_GROUP);
    q.scale = bw_carve(carver, entries * sizeof *q.scale);
    q.sum = bw_carve(carver, entries * sizeof *q.sum);
    q.half = bw_carve(carver, entries * sizeof *q.half);
    return q;
}

/* ---- rows ---- */

typedef struct ready_job {
    bw_cpu *cpu;
    const float *x, *w;
    float *normed;
    const bw_q8_rows *q; /* NULL: not wanted */
    int n, cols, per_unit;
    float eps;
} ready_job;

static void ready_unit(void *arg, int unit, int thread)
{
    const ready_job *j = arg;
    const int first = unit * j->per_unit, n = j->n - first < j->per_unit ? j->n - first : j->per_unit;
    const size_t at = (size_t)first * (size_t)j->cols;
    const float *x = j->x + at;
    (void)thread;
    if (j->w) {
        j->cpu->k.rms_norm(j->normed + at, x, j->w, n, j->cols, j->eps);
        x = j->normed + at;
    }
    if (j->q)
        j->cpu->k.quantize(j->q, j->n, x, first, n, j->cols);
}

bw_rows bw_rows_ready(bw_cpu *cpu, bw_carver *carver, const float *x, int n, int cols, const float *w, float eps,
                      bool int8)
{
    ready_job j = { .cpu = cpu, .x = x, .w = w, .n = n, .cols = cols, .eps = eps };
    bw_rows rows = { .x = x };
    if (w)
        rows.x = j.normed = bw_carve(carver, (size_t)n * (size_t)cols * sizeof(float));
    if (int8) {
        rows.q = bw_q8_carve(carver, n, cols);
        j.q = &rows.q;
    }
    if (w || int8) {
        j.per_unit = cols < 8192 ? 8192 / cols : 1; /* a unit is a few microseconds */
        bw_pool_for(cpu->pool, (n + j.per_unit - 1) / j.per_unit, ready_unit, &j);
    }
    return rows;
}

/* ---- products ---- */

typedef struct product_job {
    bw_cpu *cpu;
    const bw_product *products;
    int n;
} product_job;

static void multiply(const bw_cpu *cpu, const bw_product *p, const bw_weight *w, int first, int n_out, float *y,
                     size_t y_stride, void *scratch)
{
    assert(!w->int8 || w->packed == cpu->k.packs); /* placed for kernels that read this order */
    if (w->int8)
        cpu->k.matmul_int8(y, y_stride, w, first, n_out, &p->rows.q, p->n, p->add, scratch);
    else
        cpu->k.matmul_float(y, y_stride, w, first, n_out, p->rows.x, p->n, p->add, scratch);
}

static void product_unit(void *arg, int unit, int thread)
{
    const product_job *j = arg;
    int low = 0, high = j->n - 1; /* the last product whose first unit is not after this one */
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (j->products[middle].first_unit <= unit)
            low = middle;
        else
            high = middle - 1;
    }
    const bw_product *p = &j->products[low];
    const int first = (unit - p->first_unit) * p->unit_rows, left = p->w->rows - first;
    const int n_out = left < p->unit_rows ? left : p->unit_rows;
    bw_carver scratch = { bw_cpu_thread_scratch(j->cpu, thread), j->cpu->per_thread_bytes };
    float *y = p->y + first;
    float *up = p->up ? bw_carve(&scratch, (size_t)p->n * (size_t)n_out * sizeof *up) : NULL;
    multiply(j->cpu, p, p->w, first, n_out, y, p->y_stride, scratch.at);
    if (p->up) {
        multiply(j->cpu, p, p->up, first, n_out, up, (size_t)n_out, scratch.at);
        for (int r = 0; r < p->n; r++)
            j->cpu->k.silu_mul(y + (size_t)r * p->y_stride, y + (size_t)r * p->y_stride, up + (size_t)r * (size_t)n_out,
                               n_out);
    }
}

/* Values an output row costs; reading it counts as four multiplied rows. */
static double row_cost(const bw_product *p)
{
    return (double)p->w->cols * (p->n > 4 ? p->n : 4) * (p->up ? 2 : 1);
}

/* About six units a thread, none so small that handing it out shows or so large that its weights leave
 * the thread's cache before the last rows of the batch have met them. */
void bw_products_run(bw_cpu *cpu, bw_product *products, int n)
{
    double total = 0;
    for (int i = 0; i < n; i++)
        total += row_cost(&products[i]) * products[i].w->rows;
    const int threads = bw_pool_threads(cpu->pool);
    double target = total / (6 * threads);
    if (target < 65536)
        target = 65536;
    int n_units = 0;
    for (int i = 0; i < n; i++) {
        bw_product *p = &products[i];
        assert(p->w->cols > 0 && (!p->up || (p->up->rows == p->w->rows && p->up->cols == p->w->cols)));
        const double rows = target / row_cost(p);
        p->unit_rows = rows < BW_PANEL_ROWS ? BW_PANEL_ROWS : rows > BW_MAX_UNIT_ROWS ? BW_MAX_UNIT_ROWS : (int)rows / BW_PANEL_ROWS * BW_PANEL_ROWS;
        p->first_unit = n_units;
        n_units += (p->w->rows + p->unit_rows - 1) / p->unit_rows;
    }
    product_job j = { cpu, products, n };
    bw_pool_for(cpu->pool, n_units, product_unit, &j);
}

enum { LISTED_PER_UNIT = 16 };

typedef struct listed_job {
    bw_cpu *cpu;
    const bw_listed_product *products;
    int units_each;
} listed_job;

static void listed_unit(void *arg, int unit, int thread)
{
    const listed_job *j = arg;
    const bw_listed_product *p = &j->products[unit / j->units_each];
    const bw_product whole = { .w = p->w, .rows = p->row, .n = 1 };
    const int first = unit % j->units_each * LISTED_PER_UNIT, left = p->n_ids - first;
    const int end = left < LISTED_PER_UNIT ? p->n_ids : first + LISTED_PER_UNIT;
    const int panel = p->w->packed ? BW_PANEL_ROWS : 1;
    float y[BW_PANEL_ROWS];
    for (int k = first; k < end;) {
        const int row = p->ids[k] / panel * panel, n_out = p->w->rows - row < panel ? p->w->rows - row : panel;
        multiply(j->cpu, &whole, p->w, row, n_out, y, BW_PANEL_ROWS, bw_cpu_thread_scratch(j->cpu, thread));
        for (; k < end && p->ids[k] < row + n_out; k++)
            p->y[k] = y[p->ids[k] - row];
    }
}

void bw_listed_products_run(bw_cpu *cpu, const bw_listed_product *products, int n)
{
    int most = 0;
    for (int i = 0; i < n; i++)
        most = products[i].n_ids > most ? products[i].n_ids : most;
    listed_job j = { cpu, products, (most + LISTED_PER_UNIT - 1) / LISTED_PER_UNIT };
    if (most > 0)
        bw_pool_for(cpu->pool, n * j.units_each, listed_unit, &j);
}

size_t bw_products_thread_bytes(const bw_cpu_kernels *k, const bw_op_limits *limits)
{
    return bw_carved_bytes((size_t)bw_limits_rows(limits) * BW_MAX_UNIT_ROWS * sizeof(float)) +
           bw_carved_bytes(k->matmul_scratch_bytes(limits->max_cols));
}
