/* Attention over pages: the operation at every level against its formula in f64; the same bits for a
 * row whatever rows run beside it, on any number of threads; stale pages never matter. */
#include "lib/cpu_fixture.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/half.h"

enum { SLOTS = 2, CONTEXT = 200, DEEP = 10000, MAX_PAGES = (DEEP + BW_PAGE - 1) / BW_PAGE };

typedef struct layer {
    bw_attn_shape shape;
    int context;
    bw_kv_codec codec;
    float *q_norm, *k_norm, *inv_freq;
    float *q_gate, *k, *v; /* [SLOTS, context, ...] the rows of every position */
} layer;

static size_t q_width(const bw_attn_shape *s)
{
    return (size_t)s->n_heads * (size_t)s->head_dim;
}

static size_t kv_width(const bw_attn_shape *s)
{
    return (size_t)s->n_kv_heads * (size_t)s->head_dim;
}

static void fill_layer(layer *l, int context)
{
    const size_t rows = SLOTS * (size_t)context;
    l->context = context;
    l->q_norm = fixture_random((size_t)l->shape.head_dim, 1);
    l->k_norm = fixture_random((size_t)l->shape.head_dim, 1);
    l->q_gate = fixture_random(rows * 2 * q_width(&l->shape), 1);
    l->k = fixture_random(rows * kv_width(&l->shape), 3);
    l->v = fixture_random(rows * kv_width(&l->shape), 1);
}

static layer random_layer(void)
{
    static const int dims[] = { 2, 6, 22, 40, 64, 128, 256 };
    layer l = { .codec = rnd_int(0, 1) ? BW_CODEC_F16 : BW_CODEC_F32 };
    bw_attn_shape *s = &l.shape;
    s->n_kv_heads = rnd_int(1, 3);
    s->n_heads = s->n_kv_heads * rnd_int(1, 7);
    s->head_dim = dims[rnd_int(0, 6)];
    s->n_pairs = rnd_int(0, 1) ? s->head_dim / 8 : rnd_int(0, s->head_dim / 2);
    s->eps = 1e-6f;
    s->magnitude = rnd_int(0, 1) ? 1 : 1.1f;
    l.inv_freq = fixture_floats((size_t)s->n_pairs);
    for (int j = 0; j < s->n_pairs; j++)
        l.inv_freq[j] = (float)pow(1e4, -(double)j / s->n_pairs);
    s->inv_freq = l.inv_freq;
    fill_layer(&l, CONTEXT);
    return l;
}

/* Thousands of positions, little of everything else. */
static layer deep_layer(int context)
{
    layer l = random_layer();
    bw_attn_shape *s = &l.shape;
    s->n_kv_heads = rnd_int(1, 2);
    s->n_heads = s->n_kv_heads * rnd_int(1, 5);
    s->head_dim = rnd_int(0, 1) ? 22 : 64;
    s->n_pairs = 0;
    fill_layer(&l, context);
    return l;
}

/* A backend with its own pages, all NaN, in an order of its own. */
typedef struct machine {
    bw_cpu *cpu;
    const layer *l;
    bw_sequences seqs;
    bw_kv_layer kv;
} machine;

/* Pages of a slot; the cache has one more than all slots need. */
static int slot_pages(const layer *l)
{
    return (l->context + BW_PAGE - 1) / BW_PAGE;
}

static size_t cache_values(const layer *l)
{
    return (size_t)(SLOTS * slot_pages(l) + 1) * BW_PAGE * kv_width(&l->shape);
}

static machine start(const layer *l, const char *level, int n_threads)
{
    const size_t floats = (cache_values(l) * (l->codec == BW_CODEC_F16 ? 2 : 4) + 3) / 4;
    bw_op_limits limits = { .max_rows = SLOTS * l->context, .max_spans = SLOTS, .vocab = 1, .attn = l->shape };
    machine m = { .cpu = fixture_create(level, n_threads, &limits), .l = l };
    m.seqs = (bw_sequences){ .n_slots = SLOTS, .context = l->context, .max_pages = slot_pages(l) };
    m.seqs.pages = fixture_ints((size_t)(SLOTS * slot_pages(l)));
    m.kv = (bw_kv_layer){ l->codec, fixture_floats(floats), fixture_floats(floats) };
    memset(m.kv.k, 0xFF, floats * sizeof(float)); /* NaN in both encodings */
    memset(m.kv.v, 0xFF, floats * sizeof(float));
    int order[SLOTS * MAX_PAGES + 1];
    for (int i = 0; i <= SLOTS * slot_pages(l); i++) {
        int j = rnd_int(0, i);
        order[i] = order[j];
        order[j] = i;
    }
    memcpy(m.seqs.pages, order, (size_t)(SLOTS * slot_pages(l)) * sizeof(int32_t));
    return m;
}

static double cached(const machine *m, const void *base, int slot, int pos, int kv_head, int i)
{
    const bw_attn_shape *s = &m->l->shape;
    const size_t page = (size_t)m->seqs.pages[slot * m->seqs.max_pages + pos / BW_PAGE];
    const size_t at = ((page * (size_t)s->n_kv_heads + (size_t)kv_head) * BW_PAGE + (size_t)(pos % BW_PAGE)) * (size_t)s->head_dim + (size_t)i;
    return m->kv.codec == BW_CODEC_F16 ? bw_f16_to_f32(((const uint16_t *)base)[at]) : ((const float *)base)[at];
}

typedef enum part { BOTH, ONLY_WRITE, ONLY_ATTEND } part;

/* Rows pos .. pos + n - 1 of the slots, in one step; out (unless only writing) per row. */
static void step(machine *m, const bw_row *rows, int n, part which, float *out)
{
    const layer *l = m->l;
    const size_t count = (size_t)n, qw = 2 * q_width(&l->shape), kw = kv_width(&l->shape);
    float *q_gate = fixture_floats(count * qw), *k = fixture_floats(count * kw), *v = fixture_floats(count * kw);
    for (int i = 0; i < n; i++) {
        const size_t from = (size_t)rows[i].slot * (size_t)l->context + (size_t)rows[i].pos;
        memcpy(q_gate + (size_t)i * qw, l->q_gate + from * qw, qw * sizeof(float));
        memcpy(k + (size_t)i * kw, l->k + from * kw, kw * sizeof(float));
        memcpy(v + (size_t)i * kw, l->v + from * kw, kw * sizeof(float));
    }
    bw_attn_args args = { .shape = &l->shape, .seqs = &m->seqs, .rows = rows, .n_rows = n, .kv = m->kv,
                          .q_norm = l->q_norm, .k_norm = l->k_norm, .q_gate = which == ONLY_WRITE ? NULL : q_gate,
                          .k = which == ONLY_ATTEND ? NULL : k, .v = which == ONLY_ATTEND ? NULL : v, .out = out };
    bw_cpu_attention(&m->cpu->base, &args);
}

/* Positions first .. first + n - 1 of one slot, with room for their outputs. */
static float *run(machine *m, int slot, int first, int n, part which)
{
    static bw_row rows[DEEP];
    for (int i = 0; i < n; i++)
        rows[i] = (bw_row){ slot, first + i };
    float *out = fixture_floats((size_t)n * q_width(&m->l->shape));
    step(m, rows, n, which, out);
    return out;
}

/* rope(norm(x)) of one head, in f64 but for the angle, which is an f32 product */
static void turned(double *out, const layer *l, const float *x, const float *w, int pos)
{
    const bw_attn_shape *s = &l->shape;
    double squares = 0;
    for (int i = 0; i < s->head_dim; i++)
        squares += (double)x[i] * x[i];
    for (int i = 0; i < s->head_dim; i++)
        out[i] = x[i] / sqrt(squares / s->head_dim + s->eps) * w[i];
    for (int j = 0; j < s->n_pairs; j++) {
        const double angle = (float)pos * l->inv_freq[j], a = out[j], b = out[j + s->n_pairs];
        out[j] = (a * cos(angle) - b * sin(angle)) * s->magnitude;
        out[j + s->n_pairs] = (b * cos(angle) + a * sin(angle)) * s->magnitude;
    }
}

/* What the pages hold is rope(norm(k)) and v, rounded once. */
static void check_pages(const machine *m, const char *level, int slot, int n)
{
    const bw_attn_shape *s = &m->l->shape;
    const double unit = m->kv.codec == BW_CODEC_F16 ? 0x1p-11 : 0;
    double exact[256];
    for (int pos = 0; pos < n; pos++)
        for (int h = 0; h < s->n_kv_heads; h++) {
            const size_t from = ((size_t)slot * (size_t)m->l->context + (size_t)pos) * kv_width(s) + (size_t)(h * s->head_dim);
            turned(exact, m->l, m->l->k + from, m->l->k_norm, pos);
            for (int i = 0; i < s->head_dim; i++) {
                /* norm, two products and a sum of the pair, cosine and sine to an f32 unit */
                const double pair = 8 * sqrt(s->head_dim), v = m->l->v[from + (size_t)i];
                check_that(fabs(cached(m, m->kv.k, slot, pos, h, i) - exact[i]) <= unit * fabs(exact[i]) + 0x1p-25 + pair * FLT_EPSILON * 8,
                           "%s: key %d of position %d", level, i, pos);
                check_that(fabs(cached(m, m->kv.v, slot, pos, h, i) - v) <= unit * fabs(v) + (unit > 0 ? 0x1p-25 : 0), "%s: value %d of position %d", level, i, pos);
            }
        }
}

/* The output of one head of a row, from what the pages hold. */
static void check_head(const machine *m, const char *level, int slot, int pos, int h, const float *got)
{
    const bw_attn_shape *s = &m->l->shape;
    const int d = s->head_dim, kv_head = h / (s->n_heads / s->n_kv_heads);
    const float *q_gate = m->l->q_gate + (((size_t)slot * (size_t)m->l->context + (size_t)pos) * (size_t)s->n_heads + (size_t)h) * 2 * (size_t)d;
    static double score[DEEP];
    double q[256], sum = 0, max = -INFINITY, size = 0;
    turned(q, m->l, q_gate, m->l->q_norm, pos);
    for (int p = 0; p <= pos; p++) {
        double total = 0;
        score[p] = 0;
        for (int i = 0; i < d; i++) {
            score[p] += q[i] * cached(m, m->kv.k, slot, p, kv_head, i) / sqrt(d);
            total += fabs(q[i] * cached(m, m->kv.k, slot, p, kv_head, i)) / sqrt(d);
        }
        max = fmax(max, score[p]);
        size = fmax(size, total);
    }
    for (int p = 0; p <= pos; p++)
        sum += score[p] = exp(score[p] - max);
    /* A score is a sum of d products of rounded queries (and an angle of up to 200 with an f32
     * argument): its absolute error is a relative one of the weight, of all of them at most twice;
     * the weighted sum adds positions one by one. */
    const double bound = (2 * size * (16 + d / 8.0) + 16 + pos) * FLT_EPSILON;
    for (int i = 0; i < d; i++) {
        double want = 0, largest = 0;
        for (int p = 0; p <= pos; p++) {
            want += score[p] / sum * cached(m, m->kv.v, slot, p, kv_head, i);
            largest = fmax(largest, fabs(cached(m, m->kv.v, slot, p, kv_head, i)));
        }
        want /= 1 + exp(-q_gate[d + i]);
        check_that(fabs(got[i] - want) <= bound * largest, "%s: d=%d head %d of position %d: %.9g, expected %.9g (bound %g)",
                   level, d, h, pos, (double)got[i], want, bound * largest);
    }
}

TEST(every_level_computes_the_formula)
{
    for (int round = 0; round < tries(14); round++) {
        const layer l = random_layer();
        const int n = rnd_int(1, CONTEXT);
        for (const char *const *level = fixture_levels(); *level; level++) {
            machine m = start(&l, *level, 2);
            const float *out = run(&m, 1, 0, n, BOTH);
            check_pages(&m, *level, 1, n);
            for (int i = 0; i < 12; i++) {
                const int pos = i ? rnd_int(0, n - 1) : n - 1, h = rnd_int(0, l.shape.n_heads - 1);
                check_head(&m, *level, 1, pos, h, out + (size_t)pos * q_width(&l.shape) + (size_t)(h * l.shape.head_dim));
            }
            check_guards();
            fixture_destroy(m.cpu);
        }
        fixture_release();
    }
}

/* One step with everything against rows one by one, in chunks, beside another sequence, on 1 to 3
 * threads, in pages of another order that hold NaN where nothing was written. */
TEST(a_row_does_not_know_what_runs_beside_it)
{
    for (int round = 0; round < tries(10); round++) {
        const layer l = random_layer();
        const size_t width = q_width(&l.shape);
        const int n = rnd_int(1, 150);
        for (const char *const *level = fixture_levels(); *level; level++) {
            machine whole = start(&l, *level, 1), cut = start(&l, *level, rnd_int(1, 3));
            const float *want = run(&whole, 0, 0, n, BOTH);
            for (int at = 0, count, other = 0; at < n; at += count) {
                bw_row rows[SLOTS * CONTEXT];
                count = rnd_int(0, 1) ? 1 : rnd_int(1, 70);
                count = count < n - at ? count : n - at;
                int beside = rnd_int(0, 5);
                beside = beside < CONTEXT - other ? beside : CONTEXT - other;
                for (int i = 0; i < beside; i++, other++)
                    rows[i] = (bw_row){ 1, other };
                for (int i = 0; i < count; i++)
                    rows[beside + i] = (bw_row){ 0, at + i };
                float *out = fixture_floats((size_t)(beside + count) * width);
                step(&cut, rows, beside + count, BOTH, out);
                check(same_bits(out + (size_t)beside * width, want + (size_t)at * width, (size_t)count * width));
            }
            check_guards();
            fixture_destroy(whole.cpu);
            fixture_destroy(cut.cpu);
        }
        fixture_release();
    }
}

/* Rows at a depth where positions are summed in several segments: alone, in blocks, beside a row of
 * another sequence, on few threads and many. */
TEST(deep_rows_do_not_know_how_the_work_was_cut)
{
    for (int round = 4 - tries(4); round < 4; round++) {
        const layer l = deep_layer(round == 0 ? DEEP : rnd_int(600, 1700));
        const size_t width = q_width(&l.shape);
        for (const char *const *level = fixture_levels(); *level; level++) {
            machine whole = start(&l, *level, 1), cut = start(&l, *level, rnd_int(2, 9));
            const int n = rnd_int(2, 70), first = round == 3 ? 512 - n / 2 : l.context - n, other = rnd_int(0, l.context - 1);
            run(&whole, 0, 0, first, ONLY_WRITE);
            run(&cut, 0, 0, first, ONLY_WRITE);
            run(&cut, 1, 0, other, ONLY_WRITE);
            const float *want = run(&whole, 0, first, n, BOTH);
            for (int i = 0; i < 4; i++) {
                const int r = i ? rnd_int(0, n - 1) : n - 1, h = rnd_int(0, l.shape.n_heads - 1);
                check_head(&whole, *level, 0, first + r, h, want + (size_t)r * width + (size_t)(h * l.shape.head_dim));
            }
            for (int at = 0, count; at < n; at += count) {
                bw_row rows[72] = { { 1, other } };
                count = rnd_int(0, 1) ? 1 : rnd_int(1, 40);
                count = count < n - at ? count : n - at;
                for (int i = 0; i < count; i++)
                    rows[1 + i] = (bw_row){ 0, first + at + i };
                const int beside = rnd_int(0, 1);
                float *out = fixture_floats((size_t)(1 + count) * width);
                step(&cut, rows + 1 - beside, beside + count, BOTH, out);
                check(same_bits(out + (size_t)beside * width, want + (size_t)at * width, (size_t)count * width));
            }
            check_guards();
            fixture_destroy(whole.cpu);
            fixture_destroy(cut.cpu);
        }
        fixture_release();
    }
}

TEST(rejected_rows_are_forgotten_by_writing_over_them)
{
    const layer l = random_layer();
    for (const char *const *level = fixture_levels(); *level; level++) {
        machine plain = start(&l, *level, 2), tried = start(&l, *level, 2);
        const float *want = run(&plain, 0, 0, 100, BOTH);
        run(&tried, 0, 0, 60, BOTH);
        bw_row drafts[8]; /* positions 60 .. 67 computed with the rows of another sequence */
        for (int i = 0; i < 8; i++)
            drafts[i] = (bw_row){ 1, 60 + i };
        memcpy(tried.seqs.pages + slot_pages(&l), tried.seqs.pages, (size_t)slot_pages(&l) * sizeof(int32_t));
        float *out = fixture_floats(8 * q_width(&l.shape));
        step(&tried, drafts, 8, BOTH, out);
        check(same_bits(run(&tried, 0, 60, 40, BOTH), want + 60 * q_width(&l.shape), 40 * q_width(&l.shape)));
        fixture_destroy(plain.cpu);
        fixture_destroy(tried.cpu);
    }
    fixture_release();
}

TEST(writing_and_attending_can_be_separate_steps)
{
    for (int round = 0; round < 4; round++) {
        const layer l = random_layer();
        for (const char *const *level = fixture_levels(); *level; level++) {
            machine both = start(&l, *level, 1), apart = start(&l, *level, 1);
            const float *want = run(&both, 0, 0, 90, BOTH);
            const float *untouched = run(&apart, 0, 0, 90, ONLY_WRITE);
            for (size_t i = 0; i < 90 * q_width(&l.shape); i++)
                check(isnan(untouched[i]));
            check(same_bits(run(&apart, 0, 0, 90, ONLY_ATTEND), want, 90 * q_width(&l.shape)));
            check_guards();
            fixture_destroy(both.cpu);
            fixture_destroy(apart.cpu);
        }
        fixture_release();
    }
}

TESTS_MAIN(ENTRY(every_level_computes_the_formula), ENTRY(a_row_does_not_know_what_runs_beside_it),
           ENTRY(deep_rows_do_not_know_how_the_work_was_cut),
           ENTRY(rejected_rows_are_forgotten_by_writing_over_them), ENTRY(writing_and_attending_can_be_separate_steps))
