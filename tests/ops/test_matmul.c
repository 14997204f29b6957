/* test_matmul.c - products at every level and of every type, against sums written down in double. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cpuid.h"
#include "lib/ops_check.h"
#include "ops/cpu/q8.h"

enum { MAX_COLS = 17440 };

typedef struct rows_of_q8 {
    bw_q8_rows q;
    float *values; /* what they stand for, [n, cols] */
} rows_of_q8;

static bw_q8_rows q8_room(int n, int cols)
{
    const size_t entries = (size_t)n * (size_t)(cols / BW_Q8_GROUP);
    return (bw_q8_rows){ guarded_bytes(entries * BW_Q8_GROUP), guarded_floats(entries), guarded_bytes(entries * 4),
                         guarded_bytes(entries * 4) };
}

static rows_of_q8 rounded_rows(const bw_cpu_kernels *k, const float *x, int n, int cols)
{
    rows_of_q8 r = { q8_room(n, cols), guarded_floats((size_t)n * (size_t)cols) };
    k->quantize(&r.q, n, x, 0, n, cols);
    for (int i = 0; i < n; i++)
        for (int c = 0; c < cols; c++) {
            const size_t at = bw_q8_entry(n, cols, i, c / BW_Q8_GROUP);
            r.values[(size_t)i * (size_t)cols + (size_t)c] = (float)r.q.q[at * BW_Q8_GROUP + (size_t)(c % BW_Q8_GROUP)] * r.q.scale[at];
        }
    return r;
}

/* Output `out` of one row by itself, added to *y if `add`. */
static void product_alone(float *y, const bw_cpu_kernels *k, const bw_weight *w, bool int8, int out, const float *x, bool add,
                          void *scratch)
{
    const int first = w->packed ? out / BW_PANEL_ROWS * BW_PANEL_ROWS : out;
    const int some = !w->packed ? 1 : w->rows - first < BW_PANEL_ROWS ? w->rows - first : BW_PANEL_ROWS;
    float outputs[BW_PANEL_ROWS];
    for (int i = 0; i < some; i++)
        outputs[i] = *y;
    if (int8) {
        static int8_t codes[MAX_COLS];
        static float scale[MAX_COLS / BW_Q8_GROUP];
        static int32_t sum[MAX_COLS / BW_Q8_GROUP], half[MAX_COLS / BW_Q8_GROUP];
        const bw_q8_rows q = { codes, scale, sum, half };
        k->quantize(&q, 1, x, 0, 1, w->cols);
        k->matmul_int8(outputs, BW_PANEL_ROWS, w, first, some, &q, 1, add, scratch);
    } else {
        k->matmul_float(outputs, BW_PANEL_ROWS, w, first, some, x, 1, add, scratch);
    }
    *y = outputs[out - first];
}

/* One random case: values near the exact sums, no row or output dependent on its company, nothing
 * written between the rows of y. */
static void try_product(const bw_cpu_kernels *k, const char *level, bw_dtype type, bool int8, int n, int n_out, int cols)
{
    const int first = int8 && k->packs ? BW_PANEL_ROWS * rnd_int(0, 1) : rnd_int(0, 3), gap = rnd_int(0, 5);
    const bw_weight w = random_weight(type, first + n_out + rnd_int(0, 3), cols, int8), packed = packed_for(k, &w);
    const size_t stride = (size_t)(n_out + gap);
    const bool add = rnd_int(0, 1);
    float *x = guarded_floats((size_t)n * (size_t)cols), *y = guarded_floats((size_t)n * stride);
    float *before = guarded_floats((size_t)n * stride), *one = guarded_floats(1), *row = guarded_floats((size_t)cols);
    void *scratch = guarded_bytes(k->matmul_scratch_bytes(cols));
    random_rows(x, n, cols);
    for (size_t i = 0; i < (size_t)n * stride; i++)
        before[i] = y[i] = rnd_float();
    rows_of_q8 q = { 0 };
    if (int8) {
        q = rounded_rows(k, x, n, cols);
        k->matmul_int8(y, stride, &packed, first, n_out, &q.q, n, add, scratch);
    } else {
        k->matmul_float(y, stride, &w, first, n_out, x, n, add, scratch);
    }
    const float *values = int8 ? q.values : x;
    /* float: cols products in at least 8 partial sums and their tree; int8: cols / 32 terms in turn, each
     * rounded four times. The weight itself has up to three roundings. */
    const double eps = FLT_EPSILON * (int8 ? cols / 32 + 12 : cols / 8 + 8);
    for (int o = 0; o < n_out; o++) {
        weight_values(row, &w, first + o);
        double largest = 0;
        for (int c = 0; c < cols; c++)
            largest = fmax(largest, fabs((double)row[c]));
        for (int r = 0; r < n; r++) {
            const float *xr = values + (size_t)r * (size_t)cols;
            const size_t at = (size_t)r * stride + (size_t)o;
            double want = add ? before[at] : 0, size = fabs(want);
            for (int c = 0; c < cols; c++) {
                want += (double)row[c] * xr[c];
                /* a code and a minimum may be larger than the value they make */
                size += int8 ? 3 * largest * fabs((double)xr[c]) : fabs((double)row[c] * xr[c]);
            }
            check_near(y[at], want, eps * size, "%s %s%s n=%d n_out=%d cols=%d add=%d row %d out %d", level,
                       bw_dtype_get(type)->name, int8 ? " int8" : "", n, n_out, cols, add, r, o);
        }
    }
    for (int r = 0; r < n; r++) {
        for (int i = n_out; i < n_out + gap; i++)
            check(same_bits(&y[(size_t)r * stride + (size_t)i], &before[(size_t)r * stride + (size_t)i], 1));
        const int o = rnd_int(0, n_out - 1);
        *one = before[(size_t)r * stride + (size_t)o];
        product_alone(one, k, &packed, int8, first + o, x + (size_t)r * (size_t)cols, add, scratch);
        check_that(same_bits(one, &y[(size_t)r * stride + (size_t)o], 1),
                   "%s %s%s: row %d of %d, out %d of %d, cols %d: %.9g alone, %.9g in company", level,
                   bw_dtype_get(type)->name, int8 ? " int8" : "", r, n, o, n_out, cols, *one,
                   y[(size_t)r * stride + (size_t)o]);
    }
    check_guards();
}

static int random_n(void)
{
    static const int sizes[] = { 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15, 16, 17, 23, 33 };
    return sizes[rnd_int(0, (int)BW_COUNT(sizes) - 1)];
}

TEST(float_products_of_every_type_are_near_the_exact_sums)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (bw_dtype type = 0; type < BW_DTYPE_COUNT; type++)
            for (int i = 0; i < tries(bw_dtype_is_float(type) ? 40 : 8); i++)
                try_product(&k, level, type, false, random_n(), rnd_int(1, 20), random_cols(type, 700));
}

TEST(int8_products_of_every_type_are_near_the_exact_sums)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (bw_dtype type = BW_Q8_0; type < BW_DTYPE_COUNT; type++)
            for (int i = 0; i < tries(24); i++)
                try_product(&k, level, type, true, random_n(), rnd_int(1, 20), random_cols(type, 2100));
}

TEST(int8_products_of_each_number_of_rows_are_near_the_exact_sums)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (bw_dtype type = BW_Q8_0; type < BW_DTYPE_COUNT; type++)
            for (int n = 1; n <= 2 * BW_Q8_BLOCK + 1; n++)
                try_product(&k, level, type, true, n, rnd_int(1, 20), random_cols(type, 300));
}

TEST(wide_rows_are_multiplied_like_narrow_ones)
{
    bw_cpu_kernels k;
    each_level (level, k) {
        try_product(&k, level, BW_F32, false, 2, 5, 17409);
        try_product(&k, level, BW_BF16, false, 3, 5, 17408);
        try_product(&k, level, BW_Q8_0, true, 3, 9, 17408);
        try_product(&k, level, BW_Q6_K, true, 2, 9, 17408);
    }
}

#if defined(__x86_64__)
void packed_evex_fill(bw_cpu_kernels *k); /* packed_avxvnni.c with AVX-512's encoding: Makefile */
#endif

/* All that pack, in the order of bw_cpu_levels_here; where AVX-512 runs also AVX-VNNI's products in its encoding. */
static int kernels_that_pack(bw_cpu_kernels *all, const char **names)
{
    int n = 0;
    each_level (level, all[n])
        if (all[n].packs)
            names[n++] = level;
#if defined(__x86_64__)
    if (bw_cpu_has_avx512_vnni()) {
        all[n] = all[0];
        packed_evex_fill(&all[n]);
        names[n++] = "avxvnni by AVX-512";
    }
#endif
    return n;
}

TEST(kernels_that_pack_agree_to_the_bit)
{
    bw_cpu_kernels all[8];
    const char *names[8];
    const int n_kernels = kernels_that_pack(all, names);
    if (n_kernels < 2)
        skip_because("fewer than two levels pack here");
    for (bw_dtype type = BW_Q8_0; type < BW_DTYPE_COUNT; type++)
        for (int i = 0; i < 12; i++) {
            const int n = random_n(), n_out = rnd_int(1, 40), cols = random_cols(type, 1400);
            const size_t size = (size_t)n * (size_t)n_out;
            const bw_weight w = random_weight(type, n_out, cols, true), packed = packed_for(&all[0], &w);
            float *x = guarded_floats((size_t)n * (size_t)cols);
            float *want = guarded_floats(size), *got = guarded_floats(size);
            random_rows(x, n, cols);
            const rows_of_q8 q = rounded_rows(&all[0], x, n, cols);
            all[0].matmul_int8(want, (size_t)n_out, &packed, 0, n_out, &q.q, n, false, NULL);
            for (int k = 1; k < n_kernels; k++) {
                all[k].matmul_int8(got, (size_t)n_out, &packed, 0, n_out, &q.q, n, false, NULL);
                check_that(same_bits(got, want, size), "%s and %s differ: %s n=%d n_out=%d cols=%d", names[0], names[k],
                           bw_dtype_get(type)->name, n, n_out, cols);
            }
            check_guards();
        }
}

/* The largest sums there can be, of every type: an intermediate of 16 bits that saturates would show. */
TEST(extreme_codes_do_not_saturate)
{
    enum { COLS = 1024 };
    bw_cpu_kernels k;
    each_level (level, k)
        for (bw_dtype type = BW_Q8_0; type < BW_DTYPE_COUNT; type++)
            for (int i = 0; i < 8; i++) {
                static const unsigned char fills[] = { 0x00, 0xFF, 0x80, 0x7F };
                const bw_dtype_info *info = bw_dtype_get(type);
                const bw_weight w = random_weight(type, 1, COLS, true);
                float *x = guarded_floats(COLS), *y = guarded_floats(1), *row = guarded_floats(COLS);
                unsigned char *data = (unsigned char *)(uintptr_t)w.data;
                int first, second;
                scale_places(type, &first, &second);
                memset(data, fills[i / 2], bw_dtype_row_bytes(type, COLS));
                for (int at = 0; at < (int)bw_dtype_row_bytes(type, COLS); at += info->bytes) {
                    put_half(data + at + first, 1);
                    if (second >= 0)
                        put_half(data + at + second, 0);
                }
                for (int c = 0; c < COLS; c++)
                    x[c] = i % 2 ? -127.0f : 127.0f;
                weight_values(row, &w, 0);
                double want = 0, size = 0;
                for (int c = 0; c < COLS; c++) {
                    want += (double)row[c] * x[c];
                    size += fabs((double)row[c] * x[c]);
                }
                const bw_weight packed = packed_for(&k, &w);
                const rows_of_q8 q = rounded_rows(&k, x, 1, COLS);
                k.matmul_int8(y, 1, &packed, 0, 1, &q.q, 1, false, guarded_bytes(k.matmul_scratch_bytes(COLS)));
                check_near(*y, want, 8 * FLT_EPSILON * size, "%s %s of bytes %#x", level, info->name, fills[i / 2]);
                check_guards();
            }
}

/* ---- operations ---- */

static bw_op_limits limits_for(int rows, int hidden, int out)
{
    return (bw_op_limits){ .max_rows = rows, .max_spans = 1, .max_logits = rows, .hidden = hidden, .max_cols = hidden,
                           .vocab = out, .attn = { .n_heads = 1, .n_kv_heads = 1, .head_dim = 32 },
                           .gdn = { 1, 1, 16, 16, 4, 48, false, 1e-6f } };
}

static bw_backend *backend_for(const char *level, int threads, const bw_op_limits *limits)
{
    bw_backend *be;
    bw_error err;
    check_ok(bw_cpu_backend_create(&be, threads, level, &err), err);
    check_ok(be->ops->reserve(be, limits, &err), err);
    return be;
}

/* project is norm, rounding and products, whatever mix of weights it gets and on however many threads */
TEST(project_is_norm_then_products_on_any_number_of_threads)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (int i = 0; i < tries(12); i++) {
            const int n = random_n(), cols = 256 * rnd_int(1, 3);
            const bool norm = rnd_int(0, 1);
            const bw_op_limits limits = limits_for(n, cols, 700);
            float *x = guarded_floats((size_t)n * (size_t)cols), *w = random_floats((size_t)cols, 1);
            float *normed = guarded_floats((size_t)n * (size_t)cols);
            bw_weight weights[4];
            float *outs[4], *want[4];
            random_rows(x, n, cols);
            for (int o = 0; o < 4; o++) {
                const bw_dtype type = (bw_dtype)rnd_int(0, BW_DTYPE_COUNT - 1);
                weights[o] = random_weight(type, rnd_int(1, o ? 300 : 700), cols, !bw_dtype_is_float(type) && rnd_int(0, 1));
                weights[o] = packed_for(&k, &weights[o]);
                outs[o] = guarded_floats((size_t)n * (size_t)weights[o].rows);
                want[o] = guarded_floats((size_t)n * (size_t)weights[o].rows);
            }
            memcpy(normed, x, (size_t)n * (size_t)cols * sizeof *x);
            if (norm)
                k.rms_norm(normed, x, w, n, cols, 1e-6f);
            rows_of_q8 q = rounded_rows(&k, normed, n, cols);
            void *scratch = guarded_bytes(k.matmul_scratch_bytes(cols));
            for (int o = 0; o < 4; o++) {
                if (weights[o].int8)
                    k.matmul_int8(want[o], (size_t)weights[o].rows, &weights[o], 0, weights[o].rows, &q.q, n, false, scratch);
                else
                    k.matmul_float(want[o], (size_t)weights[o].rows, &weights[o], 0, weights[o].rows, normed, n, false, scratch);
            }
            for (int threads = 1; threads <= 3; threads++) {
                bw_backend *be = backend_for(level, threads, &limits);
                be->ops->project(be, x, n, norm ? w : NULL, 1e-6f, weights, outs, 4);
                for (int o = 0; o < 4; o++)
                    check_that(same_bits(outs[o], want[o], (size_t)n * (size_t)weights[o].rows), "%s %d threads n=%d cols=%d %s",
                               level, threads, n, cols, bw_dtype_get(weights[o].type)->name);
                be->ops->destroy(be);
            }
            check_guards();
        }
}

TEST(ffn_up_and_project_add_compose_their_parts)
{
    bw_cpu_kernels k;
    each_level (level, k)
        for (int i = 0; i < tries(12); i++) {
            const int n = random_n(), hidden = 256 * rnd_int(1, 2), ffn = 256 * rnd_int(1, 2);
            const bw_dtype type = (bw_dtype)rnd_int(0, BW_DTYPE_COUNT - 1), other = (bw_dtype)rnd_int(0, BW_DTYPE_COUNT - 1);
            const bw_op_limits limits = limits_for(n, hidden > ffn ? hidden : ffn, ffn);
            const bw_weight gate_file = random_weight(type, ffn, hidden, i % 2 && !bw_dtype_is_float(type)), gate = packed_for(&k, &gate_file);
            const bw_weight up_file = random_weight(other, ffn, hidden, i % 3 && !bw_dtype_is_float(other)), up = packed_for(&k, &up_file);
            const bw_weight down_file = random_weight(type, hidden, ffn, i % 2 && !bw_dtype_is_float(type)), down = packed_for(&k, &down_file);
            float *x = guarded_floats((size_t)n * (size_t)hidden), *w = random_floats((size_t)hidden, 1);
            float *gates = guarded_floats((size_t)n * (size_t)ffn), *ups = guarded_floats((size_t)n * (size_t)ffn);
            float *got = guarded_floats((size_t)n * (size_t)ffn), *y = guarded_floats((size_t)n * (size_t)hidden);
            float *sum = guarded_floats((size_t)n * (size_t)hidden);
            random_rows(x, n, hidden);
            bw_backend *be = backend_for(level, 2, &limits);
            be->ops->project(be, x, n, w, 1e-6f, (bw_weight[]){ gate, up }, (float *[]){ gates, ups }, 2);
            k.silu_mul(gates, gates, ups, n * ffn);
            be->ops->ffn_up(be, got, x, n, w, 1e-6f, &gate, &up);
            check_that(same_bits(got, gates, (size_t)n * (size_t)ffn), "%s n=%d %s %s", level, n, bw_dtype_get(type)->name,
                       bw_dtype_get(other)->name);
            be->ops->project(be, got, n, NULL, 0, &down, &y, 1);
            for (size_t c = 0; c < (size_t)n * (size_t)hidden; c++) {
                sum[c] = x[c] + y[c];
            }
            be->ops->project_add(be, x, &down, got, n);
            for (size_t c = 0; c < (size_t)n * (size_t)hidden; c++)
                check_that(bw_f32_bits(sum[c]) == bw_f32_bits(x[c]), "%s n=%d %s: %.9g, not %.9g", level, n,
                           bw_dtype_get(type)->name, x[c], sum[c]);
            be->ops->destroy(be);
            check_guards();
        }
}

TEST(logits_of_a_draft_vocabulary_are_columns_of_all_logits)
{
    enum { VOCAB = 183, FIRST = 48, ROOM = 24, SLOTS = 5 };
    bw_cpu_kernels k;
    each_level (level, k)
        for (bw_dtype type = 0; type < BW_DTYPE_COUNT; type++) {
            const int n = rnd_int(1, 4), cols = 256 * rnd_int(1, 2);
            const bw_op_limits limits = limits_for(36, cols, VOCAB); /* an engine has room for nine rows of each slot */
            const bw_weight file = random_weight(type, VOCAB, cols, !bw_dtype_is_float(type)), head = packed_for(&k, &file);
            float *x = guarded_floats((size_t)n * (size_t)cols), *all = guarded_floats((size_t)n * VOCAB);
            float *got = guarded_floats((size_t)n * (FIRST + ROOM));
            int32_t ids[SLOTS * ROOM], n_ids[SLOTS];
            bw_row rows[4];
            random_rows(x, n, cols);
            for (int s = 0; s < SLOTS; s++) { /* ascending, some neighbours, the last row among them */
                n_ids[s] = s == 0 ? 0 : rnd_int(1, ROOM);
                for (int i = 0, id = VOCAB - 1; i < n_ids[s]; i++, id -= rnd_int(1, 5))
                    ids[s * ROOM + n_ids[s] - 1 - i] = id;
            }
            for (int i = 0; i < n; i++) /* slots in any order */
                rows[i] = (bw_row){ (i * 3 + rnd_int(0, 1) * 5) % SLOTS, 7 };
            bw_backend *be = backend_for(level, 2, &limits);
            be->ops->project(be, x, n, NULL, 0, &head, &all, 1);
            be->ops->project_draft(be, got, x, rows, n, &head,
                                   &(bw_draft_vocab){ .n_first = FIRST, .room = ROOM, .ids = ids, .n_ids = n_ids });
            for (int i = 0; i < n; i++) {
                const float *want = all + (size_t)i * VOCAB, *row = got + (size_t)i * (FIRST + ROOM);
                check_that(same_bits(row, want, FIRST), "%s %s row %d", level, bw_dtype_get(type)->name, i);
                for (int j = 0; j < n_ids[rows[i].slot]; j++)
                    check_that(same_bits(row + FIRST + j, want + ids[rows[i].slot * ROOM + j], 1), "%s %s row %d entry %d",
                               level, bw_dtype_get(type)->name, i, j);
            }
            be->ops->destroy(be);
            check_guards();
        }
}

/* Multiplies by weights in an order that the reference kernels do not read. */
static void multiply_misplaced(void)
{
    const struct rlimit none = { 0, 0 };
    const bw_op_limits limits = limits_for(1, 64, 16);
    float x[64] = { 0 }, y[16], *out = y;
    bw_weight w = random_weight(BW_Q8_0, 16, 64, true);
    w.packed = true;
    signal(SIGABRT, SIG_DFL);
    setrlimit(RLIMIT_CORE, &none);
    bw_backend *be = backend_for("ref", 1, &limits);
    if (!freopen("/dev/null", "w", stderr))
        _exit(2);
    be->ops->project(be, x, 1, NULL, 0, &w, &out, 1);
    _exit(0);
}

TEST(weights_in_an_order_that_kernels_do_not_read_are_a_failed_assertion)
{
    fflush(NULL);
    const pid_t child = fork();
    check(child >= 0);
    if (child == 0)
        multiply_misplaced();
    int status = 0;
    check_int(waitpid(child, &status, 0), child);
    check_that(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "ended with status %x", status);
}

TEST(embed_and_gather_copy_the_rows_they_are_told)
{
    bw_error err;
    bw_backend *be;
    check_ok(bw_cpu_backend_create(&be, 2, NULL, &err), err);
    for (bw_dtype type = 0; type < BW_DTYPE_COUNT; type++) {
        const bw_weight table = random_weight(type, 11, 256, false);
        int32_t tokens[2 * 5];
        for (int i = 0; i < 10; i++)
            tokens[i] = rnd_int(0, 10);
        const bw_sequences seqs = { .n_slots = 2, .context = 5, .tokens = tokens };
        const bw_row rows[] = { { 1, 3 }, { 0, 0 }, { 1, 2 } };
        float *x = guarded_floats(3 * 256), *want = guarded_floats(256), *taken = guarded_floats(2 * 256);
        be->ops->embed(be, x, &table, &seqs, rows, 3, 1);
        for (int i = 0; i < 3; i++) {
            weight_values(want, &table, tokens[rows[i].slot * 5 + rows[i].pos + 1]);
            check(same_bits(x + 256 * i, want, 256));
        }
        be->ops->gather(be, taken, x, (const int32_t[]){ 2, 0 }, 2, 256);
        check(same_bits(taken, x + 512, 256) && same_bits(taken + 256, x, 256));
        check_guards();
    }
    be->ops->destroy(be);
}

TEST(a_matrix_of_floats_or_for_float_products_is_placed_where_it_is)
{
    bw_error err;
    bw_backend *be;
    bw_weight w;
    const char *note;
    const float data[64] = { 0 };
    check_ok(bw_cpu_backend_create(&be, 1, NULL, &err), err);
    bw_place_args floats = { .type = BW_F32, .rows = 1, .cols = 40, .host = data, .int8 = true };
    check_int(be->ops->place_bytes(be, &floats, &note), 0);
    check_str(note, "float");
    check_ok(be->ops->place(be, &w, &floats, &err), err);
    check(w.data == data && !w.packed && !w.own && w.rows == 1 && w.cols == 40);
    check(!w.int8); /* floats are never multiplied by rounded rows */
    bw_place_args widened = { .type = BW_Q4_K, .rows = 1, .cols = 256, .host = data };
    check_int(be->ops->place_bytes(be, &widened, &note), 0);
    check_str(note, "widened to float");
    check_ok(be->ops->place(be, &w, &widened, &err), err);
    check(w.data == data && !w.packed && !w.int8);
    bw_place_args odd = { .type = BW_Q4_K, .rows = 1, .cols = 64, .host = data, .int8 = true };
    check_int(be->ops->place_bytes(be, &odd, &note), 0);
    check_str(note, "integer dots");
    check_error(be->ops->place(be, &w, &odd, &err), BW_E_FORMAT, err, "q4_k", "64", "256");
    be->ops->unplace(be, &w);
    be->ops->destroy(be);
}

TEST(an_unknown_level_is_refused_with_those_that_run)
{
    bw_error err;
    bw_backend *be = NULL;
    check_error(bw_cpu_backend_create(&be, 1, "neon9", &err), BW_E_ARGUMENT, err, "neon9", "ref");
    check(be == NULL);
    setenv("BW_CPU", "ref", 1);
    check_ok(bw_cpu_backend_create(&be, 1, NULL, &err), err);
    check_str(be->level, "ref");
    be->ops->destroy(be);
    setenv("BW_CPU", "none", 1);
    check_error(bw_cpu_backend_create(&be, 1, NULL, &err), BW_E_ARGUMENT, err, "none", "ref");
    unsetenv("BW_CPU");
}

TEST(creating_and_reserving_survive_any_failed_allocation)
{
    bw_error err;
    const bw_op_limits limits = limits_for(4, 256, 256);
    for (long n = 1;; n++) {
        bw_backend *be = NULL;
        bw_mem_fail_at(n);
        bw_status st = bw_cpu_backend_create(&be, 2, "ref", &err);
        if (st == BW_OK)
            st = be->ops->reserve(be, &limits, &err);
        const bool failed = bw_mem_fail_at(0);
        if (be)
            be->ops->destroy(be);
        if (!failed) {
            check_int(st, BW_OK);
            break;
        }
        check_int(st, BW_E_MEMORY);
    }
    check_int(bw_mem_used(BW_MEM_SCRATCH), 0);
}

TEST(reserve_takes_the_bytes_it_announced)
{
    bw_error err;
    bw_backend *be;
    bw_op_limits limits = limits_for(7, 512, 512);
    limits.moe = (bw_moe_shape){ 8, 3, 64, 32 };
    check_ok(bw_cpu_backend_create(&be, 2, NULL, &err), err);
    check_ok(be->ops->reserve(be, &limits, &err), err);
    check_int(bw_mem_used(BW_MEM_SCRATCH), be->ops->reserve_bytes(be, &limits, 2));
    be->ops->destroy(be);
}

TESTS_MAIN(ENTRY(float_products_of_every_type_are_near_the_exact_sums),
           ENTRY(int8_products_of_every_type_are_near_the_exact_sums),
           ENTRY(int8_products_of_each_number_of_rows_are_near_the_exact_sums),
           ENTRY(wide_rows_are_multiplied_like_narrow_ones),
           ENTRY(extreme_codes_do_not_saturate), ENTRY(kernels_that_pack_agree_to_the_bit),
           ENTRY(project_is_norm_then_products_on_any_number_of_threads),
           ENTRY(ffn_up_and_project_add_compose_their_parts),
           ENTRY(logits_of_a_draft_vocabulary_are_columns_of_all_logits),
           ENTRY(weights_in_an_order_that_kernels_do_not_read_are_a_failed_assertion),
           ENTRY(embed_and_gather_copy_the_rows_they_are_told),
           ENTRY(a_matrix_of_floats_or_for_float_products_is_placed_where_it_is),
           ENTRY(an_unknown_level_is_refused_with_those_that_run),
           ENTRY(creating_and_reserving_survive_any_failed_allocation), ENTRY(reserve_takes_the_bytes_it_announced))
