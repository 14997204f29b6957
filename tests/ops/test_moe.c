/* test_moe.c - the mixture of experts against its formula in double. */
#include "lib/ops_check.h"

typedef struct moe_case {
    bw_moe_shape shape;
    int hidden, n;
    bw_expert *experts;
    bw_moe_args args;
    float *x; /* the rows before */
} moe_case;

static bw_weight some_weight(bw_dtype type, bool int8, int rows, int cols)
{
    return random_weight(type, rows, cols, int8 && !bw_dtype_is_float(type));
}

static bw_expert some_expert(bw_dtype type, bw_dtype down, bool int8, int ffn, int hidden)
{
    return (bw_expert){ some_weight(type, int8, ffn, hidden), some_weight(type, int8, ffn, hidden),
                        some_weight(down, int8, hidden, ffn) };
}

static moe_case make_case(bw_moe_shape shape, int hidden, int n, bw_dtype type, bw_dtype down, bool int8)
{
    moe_case m = { .shape = shape, .hidden = hidden, .n = n };
    m.experts = malloc((size_t)shape.n_experts * sizeof *m.experts);
    for (int e = 0; e < shape.n_experts; e++)
        m.experts[e] = some_expert(type, down, int8, shape.ffn, hidden);
    m.x = random_floats((size_t)n * (size_t)hidden, 1);
    m.args = (bw_moe_args){ .norm = random_floats((size_t)hidden, 1), .eps = 1e-6f,
                            .router = some_weight(BW_F32, false, shape.n_experts, hidden), .experts = m.experts,
                            .shared = some_expert(type, down, int8, shape.shared_ffn, hidden),
                            .shared_gate = random_floats((size_t)hidden, 0.1f), .n_rows = n };
    return m;
}

static bw_weight placed(bw_backend *be, const bw_weight *w)
{
    bw_weight out;
    bw_error err;
    const bw_place_args args = { .type = w->type, .rows = w->rows, .cols = w->cols, .host = w->data, .int8 = w->int8 };
    check_ok(be->ops->place(be, &out, &args, &err), err);
    return out;
}

static bw_expert placed_expert(bw_backend *be, const bw_expert *e)
{
    return (bw_expert){ placed(be, &e->gate), placed(be, &e->up), placed(be, &e->down) };
}

static void unplace_expert(bw_backend *be, bw_expert *e)
{
    be->ops->unplace(be, &e->gate);
    be->ops->unplace(be, &e->up);
    be->ops->unplace(be, &e->down);
}

/* Runs the case from `first` for n rows; out [n, hidden] */
static void run_case(const moe_case *m, const char *level, int threads, int first, int n, float *out)
{
    bw_backend *be;
    bw_error err;
    const int widest = m->hidden > m->shape.ffn ? m->hidden : m->shape.ffn;
    const bw_op_limits limits = { .max_rows = n, .max_logits = 1, .max_spans = 1, .hidden = m->hidden,
                                  .max_cols = widest > m->shape.shared_ffn ? widest : m->shape.shared_ffn,
                                  .vocab = 16, .attn = { .n_heads = 1, .n_kv_heads = 1, .head_dim = 32 },
                                  .gdn = { 1, 1, 16, 16, 4, 48, false, 1e-6f }, .moe = m->shape };
    bw_moe_args args = m->args;
    args.shape = &m->shape;
    args.x = out;
    args.n_rows = n;
    memcpy(out, m->x + (size_t)first * (size_t)m->hidden, (size_t)n * (size_t)m->hidden * sizeof *out);
    check_ok(bw_cpu_backend_create(&be, threads, level, &err), err);
    check_ok(be->ops->reserve(be, &limits, &err), err);
    bw_expert *experts = malloc((size_t)m->shape.n_experts * sizeof *experts);
    check(experts);
    for (int e = 0; e < m->shape.n_experts; e++)
        experts[e] = placed_expert(be, &m->experts[e]);
    args.experts = experts;
    args.shared = placed_expert(be, &m->args.shared);
    be->ops->moe(be, &args);
    for (int e = 0; e < m->shape.n_experts; e++)
        unplace_expert(be, &experts[e]);
    unplace_expert(be, &args.shared);
    free(experts);
    be->ops->destroy(be);
}

static double dot_row(const bw_weight *w, int row, const double *x)
{
    float values[1024];
    double sum = 0;
    weight_values(values, w, row);
    for (int c = 0; c < w->cols; c++)
        sum += values[c] * x[c];
    return sum;
}

/* y += share * down(silu(gate x) * up x) */
static void add_expert(double *y, const bw_expert *e, const double *x, double share)
{
    double hidden[1024];
    for (int i = 0; i < e->gate.rows; i++) {
        const double gate = dot_row(&e->gate, i, x);
        hidden[i] = gate / (1 + exp(-gate)) * dot_row(&e->up, i, x);
    }
    for (int i = 0; i < e->down.rows; i++)
        y[i] += share * dot_row(&e->down, i, hidden);
}

static void exact_row(double *y, const moe_case *m, const float *x)
{
    double normed[1024], logits[64], sum = 0, total = 0;
    int used[64] = { 0 };
    for (int c = 0; c < m->hidden; c++)
        sum += (double)x[c] * x[c];
    for (int c = 0; c < m->hidden; c++)
        normed[c] = x[c] / sqrt(sum / m->hidden + (double)m->args.eps) * m->args.norm[c];
    for (int e = 0; e < m->shape.n_experts; e++)
        logits[e] = dot_row(&m->args.router, e, normed);
    for (int i = 0; i < m->shape.n_used; i++) { /* the largest, of equal ones the first, is used */
        int best = -1;
        for (int e = 0; e < m->shape.n_experts; e++)
            if (!used[e] && (best < 0 || logits[e] > logits[best]))
                best = e;
        used[best] = 1;
        total += exp(logits[best]);
    }
    for (int c = 0; c < m->hidden; c++)
        y[c] = x[c];
    for (int e = 0; e < m->shape.n_experts; e++)
        if (used[e])
            add_expert(y, &m->experts[e], normed, exp(logits[e]) / total);
    const bw_weight gate = { .type = BW_F32, .rows = 1, .cols = m->hidden, .data = m->args.shared_gate };
    add_expert(y, &m->args.shared, normed, 1 / (1 + exp(-dot_row(&gate, 0, normed))));
}

static void finish_case(moe_case *m)
{
    free(m->experts);
    check_guards();
}

static const bw_moe_shape shapes[] = { { 8, 2, 64, 32 }, { 5, 5, 40, 48 }, { 12, 1, 96, 64 }, { 1, 1, 32, 32 } };

TEST(the_mixture_is_near_its_formula)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (int i = 0; i < tries(12); i++) {
            const bw_dtype types[] = { BW_F32, BW_BF16, BW_Q8_0, BW_Q4_1 };
            bw_moe_shape shape = shapes[i % 4];
            const bw_dtype type = types[rnd_int(0, 3)];
            if (type >= BW_Q8_0)
                shape.ffn = 64, shape.shared_ffn = 32;
            moe_case m = make_case(shape, 64, rnd_int(1, 9), type, types[rnd_int(0, shape.ffn % 32 ? 1 : 3)], false);
            float *got = guarded_floats((size_t)m.n * 64);
            run_case(&m, level, 1, 0, m.n, got);
            for (int r = 0; r < m.n; r++) {
                double want[64], largest = 0;
                exact_row(want, &m, m.x + 64 * r);
                for (int c = 0; c < 64; c++)
                    largest = fmax(largest, fabs(want[c]));
                for (int c = 0; c < 64; c++) /* four f32 products deep, none wider than 96 */
                    check_near(got[64 * r + c], want[c], 64 * FLT_EPSILON * largest, "%s shape %d n=%d row %d", level, i % 4, m.n, r);
            }
            finish_case(&m);
        }
}

/* Adds the squares of what a row is off by, and of what the mixture adds to it; 256 wide. */
static void add_errors(double *error, double *size, const moe_case *m, int row, const float *got)
{
    double want[256];
    const float *x = m->x + 256 * row;
    exact_row(want, m, x);
    for (int c = 0; c < 256; c++) {
        *error += (got[c] - want[c]) * (got[c] - want[c]);
        *size += (want[c] - x[c]) * (want[c] - x[c]);
    }
}

/* With rounded rows: near the formula within what rounding to int8 costs, see docs/formats.md. */
TEST(int8_experts_are_as_near_as_rounding_allows)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (bw_dtype type = BW_Q8_0; type < BW_DTYPE_COUNT; type++) {
            moe_case m = make_case((bw_moe_shape){ 6, 3, 256, 256 }, 256, 5, type, type, true);
            float *got = guarded_floats(5 * 256);
            run_case(&m, level, 2, 0, m.n, got);
            double error = 0, size = 0;
            for (int r = 0; r < m.n; r++)
                add_errors(&error, &size, &m, r, got + 256 * r);
            /* two products deep, 0.5 / 127 / sqrt(3) of a group's largest value each, about three times its mean */
            check_that(sqrt(error / size) < 0.03, "%s %s: relative error %g", level, bw_dtype_get(type)->name, sqrt(error / size));
            finish_case(&m);
        }
}

/* ---- experts of many types ---- */

/* Any type with blocks no wider than 256; a quantised one with rounded rows or without. */
static bw_weight any_weight(int rows, int cols)
{
    return some_weight((bw_dtype)rnd_int(0, BW_DTYPE_COUNT - 1), rnd_int(0, 2) > 0, rows, cols);
}

static bw_expert any_expert(int ffn, int hidden)
{
    return (bw_expert){ any_weight(ffn, hidden), any_weight(ffn, hidden), any_weight(hidden, ffn) };
}

/* Every matrix of a type of its own; for certain an expert whose gate wants rounded rows and whose up wants them
 * as they are, and one the other way round. */
static moe_case make_mixed_case(int n_experts, int n_used, int n)
{
    moe_case m = make_case((bw_moe_shape){ n_experts, n_used, 256, 256 }, 256, n, BW_F32, BW_F32, false);
    for (int e = 0; e < n_experts; e++)
        m.experts[e] = any_expert(256, 256);
    m.args.shared = any_expert(256, 256);
    for (int i = 0; i < 2; i++) {
        m.experts[i].gate = some_weight(i ? BW_Q6_K : BW_BF16, true, 256, 256);
        m.experts[i].up = some_weight(i ? BW_F16 : BW_Q4_0, true, 256, 256);
    }
    return m;
}

TEST(experts_may_mix_types_and_rounded_rows_with_others)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (int i = 0; i < tries(8); i++) {
            const int n = rnd_int(1, 9), r = rnd_int(0, n - 1), n_used = rnd_int(1, 5);
            moe_case m = make_mixed_case(5, n_used, n);
            float *got = guarded_floats((size_t)n * 256), *one = guarded_floats(256);
            run_case(&m, level, 2, 0, n, got);
            double error = 0, size = 0;
            for (int row = 0; row < n; row++)
                add_errors(&error, &size, &m, row, got + 256 * row);
            check_that(sqrt(error / size) < 0.03, "%s n=%d used=%d: relative error %g", level, n, n_used, sqrt(error / size));
            run_case(&m, level, 1, r, 1, one);
            check_that(same_bits(one, got + 256 * r, 256), "%s used=%d, row %d of %d", level, n_used, r, n);
            finish_case(&m);
        }
}

/* Row r meets expert r % n_experts alone. Experts with rounded rows and others in one step: each row gets the bits
 * that it gets where all experts are of its expert's kind. */
TEST(a_rounded_expert_rounds_for_no_other)
{
    enum { EXPERTS = 6, ROWS = 13 };
    bw_cpu_kernels k;
    each_level (level, k)
        for (int type = BW_Q8_0; type < BW_DTYPE_COUNT; type += 3) {
            moe_case m = make_case((bw_moe_shape){ EXPERTS, 1, 256, 256 }, 256, ROWS, (bw_dtype)type, BW_Q8_0, false);
            float *router = (float *)(uintptr_t)m.args.router.data, *mixed = guarded_floats(ROWS * 256);
            float *kinds[] = { guarded_floats(ROWS * 256), guarded_floats(ROWS * 256) };
            memset(router, 0, EXPERTS * 256 * sizeof *router);
            for (int c = 0; c < EXPERTS; c++) {
                router[257 * c] = 1;
                ((float *)(uintptr_t)m.args.norm)[c] = 1;
            }
            for (int r = 0; r < ROWS; r++)
                for (int c = 0; c < EXPERTS; c++)
                    m.x[256 * r + c] = c == r % EXPERTS ? 3 : 0;
            for (int int8 = 0; int8 < 2; int8++) {
                for (int e = 0; e < EXPERTS; e++)
                    m.experts[e].gate.int8 = m.experts[e].up.int8 = m.experts[e].down.int8 = int8;
                run_case(&m, level, 2, 0, ROWS, kinds[int8]);
            }
            for (int e = 0; e < EXPERTS; e++)
                m.experts[e].gate.int8 = m.experts[e].up.int8 = m.experts[e].down.int8 = e % 2;
            run_case(&m, level, 2, 0, ROWS, mixed);
            for (int r = 0; r < ROWS; r++) {
                const int kind = r % EXPERTS % 2;
                check_that(same_bits(mixed + 256 * r, kinds[kind] + 256 * r, 256), "%s %s row %d", level,
                           bw_dtype_get((bw_dtype)type)->name, r);
                check_that(!same_bits(mixed + 256 * r, kinds[!kind] + 256 * r, 256), "%s %s row %d: rounding shows nowhere",
                           level, bw_dtype_get((bw_dtype)type)->name, r);
            }
            finish_case(&m);
        }
}

TEST(a_row_alone_and_any_number_of_threads_give_the_same_bits)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (int i = 0; i < tries(8); i++) {
            moe_case m = make_case((bw_moe_shape){ 9, 4, 256, 256 }, 256, rnd_int(2, 40), i % 2 ? BW_Q4_K : BW_BF16, BW_Q8_0, i % 4 > 1);
            float *got = guarded_floats((size_t)m.n * 256), *again = guarded_floats((size_t)m.n * 256), *one = guarded_floats(256);
            run_case(&m, level, 1, 0, m.n, got);
            for (int threads = 2; threads <= 3; threads++) {
                run_case(&m, level, threads, 0, m.n, again);
                check_that(same_bits(got, again, (size_t)m.n * 256), "%s, %d threads", level, threads);
            }
            const int r = rnd_int(0, m.n - 1);
            run_case(&m, level, 2, r, 1, one);
            check_that(same_bits(one, got + (size_t)r * 256, 256), "%s, row %d of %d", level, r, m.n);
            finish_case(&m);
        }
}

/* Equal logits: the lower index, so that an expert that would change the result is never reached. */
TEST(ties_go_to_the_lower_index)
{
    bw_cpu_kernels k;
    each_level (level, k) {
        moe_case m = make_case((bw_moe_shape){ 7, 3, 32, 32 }, 32, 4, BW_F32, BW_F32, false);
        float *got = guarded_floats(4 * 32), *want = guarded_floats(4 * 32);
        memset((void *)(uintptr_t)m.args.router.data, 0, 7 * 32 * sizeof(float));
        run_case(&m, level, 1, 0, 4, got);
        for (int e = 3; e < 7; e++)
            memset((void *)(uintptr_t)m.experts[e].down.data, 0, 32 * 32 * sizeof(float));
        run_case(&m, level, 1, 0, 4, want);
        check_that(same_bits(got, want, 4 * 32), "%s", level);
        finish_case(&m);
    }
}

TEST(a_row_of_nan_harms_no_other)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (int i = 0; i < 2; i++) {
            moe_case m = make_case((bw_moe_shape){ 7, 7 - 3 * i, 64, 32 }, 64, 5, BW_Q8_0, BW_Q4_0, i);
            float *got = guarded_floats(5 * 64), *want = guarded_floats(5 * 64);
            run_case(&m, level, 2, 0, 5, want);
            for (int c = 0; c < 64; c++)
                m.x[2 * 64 + c] = c % 2 ? NAN : INFINITY;
            run_case(&m, level, 2, 0, 5, got);
            check(same_bits(got, want, 2 * 64) && same_bits(got + 3 * 64, want + 3 * 64, 2 * 64));
            check(isnan(got[2 * 64 + 1]));
            finish_case(&m);
        }
}

TESTS_MAIN(ENTRY(the_mixture_is_near_its_formula), ENTRY(int8_experts_are_as_near_as_rounding_allows),
           ENTRY(experts_may_mix_types_and_rounded_rows_with_others), ENTRY(a_rounded_expert_rounds_for_no_other),
           ENTRY(a_row_alone_and_any_number_of_threads_give_the_same_bits), ENTRY(ties_go_to_the_lower_index),
           ENTRY(a_row_of_nan_harms_no_other))
