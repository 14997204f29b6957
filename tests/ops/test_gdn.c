/* Gated DeltaNet: the operation at every level against its formulas in f64; the same bits however a
 * sequence is cut into spans, whatever drafts were tried and accepted, on any number of threads. */
#include "lib/cpu_fixture.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { ROWS = 40, SLOTS = 3, MAX_PENDING = 5 };

/* ---- a layer, and the inputs of one timeline ---- */

typedef struct layer {
    bw_gdn_shape shape;
    float *conv, *decay, *dt_bias, *norm;
} layer;

typedef struct inputs {
    float *qkv, *a, *b, *z; /* [n, ...] */
} inputs;

static size_t tiles(const bw_gdn_shape *s)
{
    return (size_t)(s->d_v + BW_GDN_TILE - 1) / BW_GDN_TILE;
}

static size_t state_floats(const bw_gdn_shape *s)
{
    return (size_t)s->n_v_heads * tiles(s) * (size_t)s->d_k * BW_GDN_TILE;
}

static size_t window_floats(const bw_gdn_shape *s)
{
    return (size_t)(s->conv_width - 1) * (size_t)s->conv_dim;
}

static size_t value_floats(const bw_gdn_shape *s)
{
    return (size_t)s->n_v_heads * (size_t)s->d_v;
}

static layer random_layer(void)
{
    static const int sizes[] = { 2, 7, 16, 24, 33, 64, 128 };
    layer l = { 0 };
    bw_gdn_shape *s = &l.shape;
    s->n_k_heads = rnd_int(1, 3);
    s->n_v_heads = s->n_k_heads * rnd_int(1, 3);
    s->d_k = sizes[rnd_int(0, 6)];
    s->d_v = sizes[rnd_int(0, 6)];
    s->conv_width = rnd_int(0, 3) ? 4 : rnd_int(1, 6);
    s->conv_dim = 2 * s->n_k_heads * s->d_k + s->n_v_heads * s->d_v;
    s->v_heads_tiled = rnd_int(0, 1);
    s->eps = 1e-6f;
    l.conv = fixture_random((size_t)s->conv_dim * (size_t)s->conv_width, 0.5f);
    l.decay = fixture_random((size_t)s->n_v_heads, 1);
    for (int h = 0; h < s->n_v_heads; h++)
        l.decay[h] = h == 0 ? -1e-3f : -expf(l.decay[h]);
    l.dt_bias = fixture_random((size_t)s->n_v_heads, 1);
    l.norm = fixture_random((size_t)s->d_v, 1);
    return l;
}

static inputs random_inputs(const bw_gdn_shape *s, int n)
{
    inputs in = { fixture_random((size_t)n * (size_t)s->conv_dim, 1), fixture_random((size_t)(n * s->n_v_heads), 2),
                  fixture_random((size_t)(n * s->n_v_heads), 2), fixture_random((size_t)n * value_floats(s), 1) };
    in.a[0] = 120; /* where softplus is the identity, and e^x is not finite */
    return in;
}

/* ---- the formulas, plainly, in f64 ---- */

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double convolved(const layer *l, const inputs *in, int t, int c)
{
    double sum = 0;
    const int width = l->shape.conv_width;
    for (int i = 0; i < width; i++)
        if (t - (width - 1) + i >= 0)
            sum += (double)l->conv[c * width + i] * in->qkv[(size_t)(t - (width - 1) + i) * (size_t)l->shape.conv_dim + (size_t)c];
    return sum * sigmoid(sum);
}

static void unit_head(double *x, const layer *l, const inputs *in, int t, int first, double scale)
{
    double sum = 1e-6;
    for (int i = 0; i < l->shape.d_k; i++) {
        x[i] = convolved(l, in, t, first + i);
        sum += x[i] * x[i];
    }
    for (int i = 0; i < l->shape.d_k; i++)
        x[i] *= scale / sqrt(sum);
}

/* out [n, n_v_heads, d_v], S [n_v_heads, d_k, d_v] at the end */
static void formulas(const layer *l, const inputs *in, int n, double *out, double *S)
{
    const bw_gdn_shape *s = &l->shape;
    const int dk = s->d_k, dv = s->d_v, ratio = s->n_v_heads / s->n_k_heads;
    double *q = malloc((size_t)(2 * dk + dv) * sizeof *q), *k = q + dk, *y = k + dk;
    check(q != NULL);
    memset(S, 0, value_floats(s) * (size_t)dk * sizeof *S);
    for (int t = 0; t < n; t++)
        for (int h = 0; h < s->n_v_heads; h++) {
            const int key_head = s->v_heads_tiled ? h % s->n_k_heads : h / ratio;
            double *Sh = S + (size_t)h * (size_t)(dk * dv), squares = 0;
            unit_head(q, l, in, t, key_head * dk, 1 / sqrt(dk));
            unit_head(k, l, in, t, (s->n_k_heads + key_head) * dk, 1);
            const double x = (double)in->a[t * s->n_v_heads + h] + l->dt_bias[h];
            const double g = exp(l->decay[h] * (x > 20 ? x : log1p(exp(x)))), beta = sigmoid(in->b[t * s->n_v_heads + h]);
            for (int c = 0; c < dv; c++) {
                double m = 0;
                for (int i = 0; i < dk; i++)
                    m += g * Sh[i * dv + c] * k[i];
                const double delta = beta * (convolved(l, in, t, 2 * s->n_k_heads * dk + h * dv + c) - m);
                y[c] = 0;
                for (int i = 0; i < dk; i++) {
                    Sh[i * dv + c] = g * Sh[i * dv + c] + k[i] * delta;
                    y[c] += Sh[i * dv + c] * q[i];
                }
                squares += y[c] * y[c];
            }
            for (int c = 0; c < dv; c++) {
                const size_t at = ((size_t)t * (size_t)s->n_v_heads + (size_t)h) * (size_t)dv + (size_t)c;
                out[at] = y[c] / sqrt(squares / dv + s->eps) * l->norm[c] * in->z[at] * sigmoid(in->z[at]);
            }
        }
    free(q);
}

/* ---- a backend with SLOTS slots ---- */

typedef struct machine {
    bw_cpu *cpu;
    const layer *l;
    bw_sequences seqs;
    bw_gdn_state state;
} machine;

static machine start(const layer *l, const char *level, int n_threads)
{
    const bw_gdn_shape *s = &l->shape;
    const size_t pending = MAX_PENDING * ((size_t)s->conv_dim + 2 * (size_t)s->n_v_heads);
    bw_op_limits limits = { .max_rows = SLOTS * ROWS, .max_spans = SLOTS, .max_pending = MAX_PENDING, .vocab = 1, .gdn = *s };
    machine m = { .cpu = fixture_create(level, n_threads, &limits), .l = l };
    m.seqs = (bw_sequences){ .n_slots = SLOTS, .accepted = fixture_ints(SLOTS) };
    m.state = (bw_gdn_state){ MAX_PENDING, fixture_floats(SLOTS * state_floats(s)), fixture_floats(SLOTS * window_floats(s)),
                              fixture_floats(SLOTS * pending) };
    memset(m.state.state, 0, SLOTS * state_floats(s) * sizeof(float));
    memset(m.state.window, 0, SLOTS * window_floats(s) * sizeof(float));
    return m;
}

/* A span's rows: from `at` of its inputs on. */
typedef struct piece {
    int slot, at, n_rows, n_final;
    const inputs *in;
    float *out; /* [n_rows, n_v_heads, d_v] */
} piece;

static void step(machine *m, const piece *pieces, int n_pieces)
{
    const bw_gdn_shape *s = &m->l->shape;
    bw_span spans[SLOTS];
    int n = 0;
    for (int i = 0; i < n_pieces; i++) {
        spans[i] = (bw_span){ .slot = pieces[i].slot, .first_row = n, .n_rows = pieces[i].n_rows, .n_final = pieces[i].n_final };
        n += pieces[i].n_rows;
    }
    const size_t conv = (size_t)s->conv_dim, heads = (size_t)s->n_v_heads, values = value_floats(s), rows = (size_t)n;
    float *qkv = fixture_floats(rows * conv), *a = fixture_floats(rows * heads), *b = fixture_floats(rows * heads);
    float *z = fixture_floats(rows * values), *out = fixture_floats(rows * values);
    for (int i = 0; i < n_pieces; i++) {
        const piece *p = &pieces[i];
        const size_t from = (size_t)p->at, to = (size_t)spans[i].first_row, count = (size_t)p->n_rows * sizeof(float);
        memcpy(qkv + to * conv, p->in->qkv + from * conv, count * conv);
        memcpy(a + to * heads, p->in->a + from * heads, count * heads);
        memcpy(b + to * heads, p->in->b + from * heads, count * heads);
        memcpy(z + to * values, p->in->z + from * values, count * values);
    }
    bw_gdn_args args = { .shape = s, .seqs = &m->seqs, .spans = spans, .n_spans = n_pieces, .n_rows = n, .state = m->state,
                         .conv = m->l->conv, .decay = m->l->decay, .dt_bias = m->l->dt_bias, .norm = m->l->norm,
                         .qkv = qkv, .a = a, .b = b, .z = z, .out = out };
    bw_cpu_gdn(&m->cpu->base, &args);
    for (int i = 0; i < n_pieces; i++)
        memcpy(pieces[i].out, out + (size_t)spans[i].first_row * values, (size_t)pieces[i].n_rows * values * sizeof(float));
}

static float *slot_state(const machine *m, int slot)
{
    return m->state.state + (size_t)slot * state_floats(&m->l->shape);
}

static float *slot_window(const machine *m, int slot)
{
    return m->state.window + (size_t)slot * window_floats(&m->l->shape);
}

/* The whole timeline as one span of final rows. */
static void run_straight(machine *m, int slot, const inputs *in, int n, float *out)
{
    step(m, &(piece){ slot, 0, n, n, in, out }, 1);
}

/* ---- tests ---- */

TEST(every_level_computes_the_formulas)
{
    for (int round = 0; round < 25; round++) {
        const layer l = random_layer();
        const bw_gdn_shape *s = &l.shape;
        const int n = rnd_int(1, ROWS);
        const inputs in = random_inputs(s, n);
        double *want = malloc((size_t)n * value_floats(s) * sizeof *want);
        double *S = malloc(value_floats(s) * (size_t)s->d_k * sizeof *S);
        check(want && S);
        formulas(&l, &in, n, want, S);
        for (const char *const *level = fixture_levels(); *level; level++) {
            machine m = start(&l, *level, 2);
            float *out = fixture_floats((size_t)n * value_floats(s));
            run_straight(&m, 1, &in, n, out);
            /* An error of the state decays; each row adds roundings of d_k-long sums, and the norm
             * divides by the size of y, which may be far below that of S: relative to 1e-3 of it. */
            double worst = 0, largest = 0, bound = (16 + s->d_k / 8.0) * FLT_EPSILON;
            for (int h = 0; h < s->n_v_heads; h++)
                for (int c = 0; c < (int)tiles(s) * BW_GDN_TILE; c++)
                    for (int i = 0; i < s->d_k; i++) {
                        float got = slot_state(&m, 1)[(((size_t)h * tiles(s) + (size_t)c / 16) * (size_t)s->d_k + (size_t)i) * 16 + (size_t)c % 16];
                        if (c >= s->d_v) {
                            check_that(got == 0, "column %d of %d is %g", c, s->d_v, (double)got);
                            continue;
                        }
                        double exact = S[((size_t)h * (size_t)s->d_k + (size_t)i) * (size_t)s->d_v + (size_t)c];
                        worst = fmax(worst, fabs(got - exact));
                        largest = fmax(largest, fabs(exact));
                    }
            check_that(worst <= 8 * bound * largest, "%s: state off by %g of %g", *level, worst, largest);
            worst = largest = 0;
            for (size_t i = 0; i < (size_t)n * value_floats(s); i++) {
                worst = fmax(worst, fabs(out[i] - want[i]));
                largest = fmax(largest, fabs(want[i]));
            }
            check_that(worst <= 100 * bound * largest, "%s: n=%d d_k=%d d_v=%d: out off by %g of %g", *level, n, s->d_k,
                       s->d_v, worst, largest);
            check_guards();
            fixture_destroy(m.cpu);
        }
        free(want);
        free(S);
        fixture_release();
    }
}

TEST(any_cut_into_spans_gives_the_same_bits)
{
    for (int round = 0; round < 12; round++) {
        const layer l = random_layer();
        const bw_gdn_shape *s = &l.shape;
        const inputs in = random_inputs(s, ROWS);
        for (const char *const *level = fixture_levels(); *level; level++) {
            machine whole = start(&l, *level, 1), cut = start(&l, *level, rnd_int(0, 1) ? rnd_int(1, 3) : 16);
            float *want = fixture_floats(ROWS * value_floats(s)), *got = fixture_floats(ROWS * value_floats(s));
            run_straight(&whole, 0, &in, ROWS, want);
            for (int at = 0, n; at < ROWS; at += n) {
                n = rnd_int(1, rnd_int(0, 1) ? 2 : ROWS);
                n = n < ROWS - at ? n : ROWS - at;
                step(&cut, &(piece){ 2, at, n, n, &in, got + (size_t)at * value_floats(s) }, 1);
            }
            check(same_bits(got, want, ROWS * value_floats(s)));
            check(same_bits(slot_state(&cut, 2), slot_state(&whole, 0), state_floats(s)));
            check(same_bits(slot_window(&cut, 2), slot_window(&whole, 0), window_floats(s)));
            check_guards();
            fixture_destroy(whole.cpu);
            fixture_destroy(cut.cpu);
        }
        fixture_release();
    }
}

/* A timeline of a slot that runs with drafts: the next row, and inputs with garbage drafts. */
typedef struct runner {
    inputs in, tried; /* the truth; the rows of the next step */
    int done;         /* rows committed or accepted */
    float *want;
} runner;

static void copy_row(const bw_gdn_shape *s, inputs *to, int i, const inputs *from, int j)
{
    const size_t heads = (size_t)s->n_v_heads;
    memcpy(to->qkv + (size_t)i * (size_t)s->conv_dim, from->qkv + (size_t)j * (size_t)s->conv_dim, (size_t)s->conv_dim * sizeof(float));
    memcpy(to->a + (size_t)i * heads, from->a + (size_t)j * heads, heads * sizeof(float));
    memcpy(to->b + (size_t)i * heads, from->b + (size_t)j * heads, heads * sizeof(float));
    memcpy(to->z + (size_t)i * value_floats(s), from->z + (size_t)j * value_floats(s), value_floats(s) * sizeof(float));
}

/* One span: some final rows, some right drafts, some wrong ones. Returns right drafts. */
static int plan_span(const bw_gdn_shape *s, runner *r, piece *p)
{
    const int left = ROWS - r->done, n_final = rnd_int(0, 3) ? rnd_int(1, left < 6 ? left : 6) : 0;
    int right = rnd_int(0, MAX_PENDING), n_drafts;
    right = right < left - n_final ? right : left - n_final;
    n_drafts = right + rnd_int(0, MAX_PENDING - right);
    if (n_final + n_drafts == 0)
        n_drafts = 1;
    r->tried = random_inputs(s, n_final + n_drafts);
    for (int i = 0; i < n_final + right; i++)
        copy_row(s, &r->tried, i, &r->in, r->done + i);
    *p = (piece){ .at = 0, .n_rows = n_final + n_drafts, .n_final = n_final, .in = &r->tried };
    p->out = fixture_floats((size_t)p->n_rows * value_floats(s));
    return right;
}

TEST(rejected_rows_never_reach_the_state)
{
    for (int round = 0; round < 16; round++) {
        const layer l = random_layer();
        const bw_gdn_shape *s = &l.shape;
        for (const char *const *level = fixture_levels(); *level; level++) {
            machine m = start(&l, *level, rnd_int(0, 1) ? rnd_int(1, 3) : 16), plain = start(&l, *level, 1);
            runner r[SLOTS];
            for (int i = 0; i < SLOTS; i++) {
                r[i] = (runner){ .in = random_inputs(s, ROWS), .want = fixture_floats(ROWS * value_floats(s)) };
                run_straight(&plain, i, &r[i].in, ROWS, r[i].want);
            }
            for (int live = SLOTS; live > 0;) {
                piece pieces[SLOTS];
                int who[SLOTS], right[SLOTS], n = 0;
                for (int j = 0, first = rnd_int(0, SLOTS - 1); j < SLOTS; j++) { /* others join and leave */
                    const int i = (first + j) % SLOTS;
                    if (r[i].done == ROWS || rnd_int(0, 3) == 0)
                        continue;
                    right[n] = plan_span(s, &r[i], &pieces[n]);
                    pieces[n].slot = i;
                    who[n++] = i;
                }
                if (n == 0)
                    continue;
                step(&m, pieces, n);
                for (int j = 0; j < n; j++) {
                    runner *it = &r[who[j]];
                    check(same_bits(pieces[j].out, it->want + (size_t)it->done * value_floats(s),
                                    (size_t)(pieces[j].n_final + right[j]) * value_floats(s)));
                    const int accepted = rnd_int(0, 2) ? right[j] : rnd_int(0, right[j]);
                    m.seqs.accepted[who[j]] = accepted;
                    it->done += pieces[j].n_final + accepted;
                    live -= it->done == ROWS;
                }
            }
            for (int i = 0; i < SLOTS; i++) { /* apply what is still pending: a step of drafts alone */
                float *out = fixture_floats(value_floats(s));
                inputs last = random_inputs(s, 1);
                step(&m, &(piece){ i, 0, 1, 0, &last, out }, 1);
                check(same_bits(slot_state(&m, i), slot_state(&plain, i), state_floats(s)));
                check(same_bits(slot_window(&m, i), slot_window(&plain, i), window_floats(s)));
            }
            check_guards();
            fixture_destroy(m.cpu);
            fixture_destroy(plain.cpu);
        }
        fixture_release();
    }
}

/* docs/model.md, the delta rule in miniature: d_k = d_v = 2, every digit. */
TEST(the_delta_rule_in_miniature)
{
    static const double q[3][2] = { { 0.3162277344, 0.6324554688 }, { 0.3162276395, -0.6324552791 }, { -0.6324554688, 0.3162277344 } };
    static const double k[3][2] = { { 0.8944271016, 0.4472135508 }, { 0.7071066044, 0.7071066044 }, { -0.3162277502, 0.9486832506 } };
    static const double v[3][2] = { { 1, -1 }, { 2, 0.5 }, { -1, 3 } }, beta[3] = { 0.5, 0.7310585786, 0.3775406688 };
    static const double g[3] = { -0.4565076262, -0.1705769374, -1.1077597616 };
    static const struct { double S0[2][2], o[3][2], S3[2][2]; } cases[] = {
        { { { 0.5, -0.25 }, { 1, 0.75 } },
          { { 0.6233999416, -0.0524656862 }, { -0.4593586973, -0.4164706667 }, { -0.3360403720, 0.6219666933 } },
          { { 0.5106540036, -0.3857232299 }, { -0.0413450604, 1.1953851164 } } },
        { { { 0, 0 }, { 0, 0 } },
          { { 0.2828426559, -0.2828426559 }, { -0.2615587518, -0.1471151519 }, { -0.3705755499, 0.5621698787 } },
          { { 0.5401142817, -0.3198030205 }, { -0.0916343366, 1.1381313854 } } },
    };
    for (const char *const *level = fixture_levels(); *level; level++)
        for (size_t c = 0; c < BW_COUNT(cases); c++) {
            float S[32] = { 0 }, y[48], rows[3][22] = { 0 }; /* a row: k, q, v [16], decay, beta */
            bw_cpu *cpu = fixture_create(*level, 1, &(bw_op_limits){ .vocab = 1 });
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 2; j++)
                    S[16 * i + j] = (float)cases[c].S0[i][j];
            for (int r = 0; r < 3; r++) {
                for (int i = 0; i < 2; i++) {
                    rows[r][i] = (float)k[r][i];
                    rows[r][2 + i] = (float)q[r][i];
                    rows[r][4 + i] = (float)v[r][i];
                }
                rows[r][20] = (float)exp(g[r]);
                rows[r][21] = (float)beta[r];
            }
            cpu->k.delta_rows(S, NULL, &(bw_delta_rows){ .d_k = 2, .n_tiles = 1, .n = 3, .n_commit = 3, .q = rows[0] + 2, .k = rows[0],
                              .k_stride = 22, .v = rows[0] + 4, .g = rows[0] + 20, .beta = rows[0] + 21, .v_stride = 22, .y = y, .y_stride = 16 });
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 16; j++)
                    check_that(fabs(S[16 * i + j] - (j < 2 ? cases[c].S3[i][j] : 0)) < 4e-7, "%s S[%d][%d] = %.9g", *level, i, j, (double)S[16 * i + j]);
            for (int r = 0; r < 3; r++)
                for (int j = 0; j < 2; j++)
                    check_that(fabs(y[16 * r + j] - cases[c].o[r][j]) < 4e-7, "%s o[%d][%d] = %.9g", *level, r, j, (double)y[16 * r + j]);
            fixture_destroy(cpu);
        }
}

/* Values over the whole range of exp, where the polynomial and the clamping could be wrong. */
static float wide(void)
{
    return rnd_int(0, 2) ? rnd_float() : ldexpf(rnd_float(), rnd_int(-40, 7));
}

static void check_relative(const char *level, const char *what, double got, double want, double bound)
{
    check_that(fabs(got - want) <= bound * fabs(want) + 1e-36, "%s %s: %.9g, expected %.9g", level, what, got, want);
}

/* sum_exp of one value is the level's exponential. */
TEST(exponentials_are_good_to_2e_7)
{
    for (const char *const *level = fixture_levels(); *level; level++) {
        bw_cpu *cpu = fixture_create(*level, 1, &(bw_op_limits){ .vocab = 1 });
        float x = 0;
        check(cpu->k.sum_exp(&x, 1, 0, 1) == 1);
        for (int i = 0; i < 20000; i++) {
            x = i < 10000 ? -87.0f * (float)i / 10000 : -ldexpf((float)rnd_int(1, 1000), rnd_int(-40, -4));
            check_relative(*level, "e^x", cpu->k.sum_exp(&x, 1, 0, 1), exp(x), 2e-7);
        }
        x = -1e4f;
        check(cpu->k.sum_exp(&x, 1, 0, 1) == 0);
        fixture_destroy(cpu);
    }
}

TEST(elementwise_kernels_are_exact_and_do_not_know_their_place)
{
    for (const char *const *level = fixture_levels(); *level; level++) {
        bw_cpu *cpu = fixture_create(*level, 1, &(bw_op_limits){ .vocab = 1 });
        for (int round = 0; round < 200; round++) {
            const int n = rnd_int(1, 70), width = rnd_int(0, 1) ? 4 : rnd_int(1, 6), first = rnd_int(0, 9);
            const size_t total = (size_t)(first + n);
            float *x = fixture_random(total, 1), *w = fixture_random(total * (size_t)width, 1), *out = fixture_floats((size_t)n);
            const float *rows[6];
            for (size_t i = 0; i < total; i++)
                x[i] = wide();
            cpu->k.sigmoid_mul(out, x, 0.75f, x + first, n);
            for (int i = 0; i < n; i++) /* exp to 2e-7, three roundings */
                check_relative(*level, "sigmoid_mul", out[i], 0.75 * x[i] * sigmoid(x[first + i]), 6e-7);
            float alone = 0;
            const int at = rnd_int(0, n - 1);
            cpu->k.sigmoid_mul(&alone, x + at, 0.75f, x + first + at, 1);
            check(same_bits(&alone, &out[at], 1));

            for (int i = 0; i < width; i++)
                rows[i] = fixture_random(total, 2);
            cpu->k.conv_silu(out, rows, w, width, first, n);
            for (int j = 0; j < n; j++) {
                double sum = 0, size = 0;
                for (int i = 0; i < width; i++) {
                    sum += (double)w[(first + j) * width + i] * rows[i][first + j];
                    size += fabs((double)w[(first + j) * width + i] * rows[i][first + j]);
                }
                check_that(fabs(out[j] - sum * sigmoid(sum)) <= 1e-6 * size, "%s conv_silu", *level);
            }
            cpu->k.conv_silu(&alone, rows, w, width, first + at, 1);
            check(same_bits(&alone, &out[at], 1));

            double squares = 0;
            for (int i = 0; i < n; i++)
                squares += (double)x[i] * x[i];
            float *z = fixture_random((size_t)n, 3);
            cpu->k.gated_norm(out, x, w, z, n, 1e-6f);
            for (int i = 0; i < n; i++)
                check_relative(*level, "gated_norm", out[i], x[i] / sqrt(squares / n + 1e-6) * w[i] * z[i] * sigmoid(z[i]), 2e-6);
            memcpy(out, x, (size_t)n * sizeof *out);
            cpu->k.l2_norm(out, n, 0.125f);
            for (int i = 0; i < n; i++)
                check_relative(*level, "l2_norm", out[i], x[i] * 0.125 / sqrt(squares + 1e-6), 2e-6);
            check_guards();
            fixture_release();
        }
        fixture_destroy(cpu);
    }
}

TESTS_MAIN(ENTRY(the_delta_rule_in_miniature), ENTRY(exponentials_are_good_to_2e_7),
           ENTRY(elementwise_kernels_are_exact_and_do_not_know_their_place),
           ENTRY(every_level_computes_the_formulas), ENTRY(any_cut_into_spans_gives_the_same_bits),
           ENTRY(rejected_rows_never_reach_the_state))
