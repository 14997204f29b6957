/* The draft length against made-up machines: what a verify and a run of the head take is a formula with noise and
 * outliers, what is accepted a die with imposed odds. However machine, batch and text are, deciding is never much
 * slower than drafts off, from the first token on, nor than the best fixed length, after 200 tokens. */
#include "lib/check.h"

#include <math.h>
#include <stdlib.h>

#include "engine/draft.h"

enum { MOST_SEQS = 16 };

typedef struct machine {
    const char *name;
    double flat, row;       /* seconds of a step: flat, or rows times row where that is more */
    double soft;            /* of a row even where the step is flat */
    double depth_row;       /* of a row per 1K of depth */
    double head, head_row;  /* a run of the head */
    int tile;               /* rows are worked on in so many at a time; 0: 1 */
} machine;

/* In thousandths of a plain step. */
static const machine machines[] = {
    { "weights only", 1, 0, 0.01, 0.002, 0.10, 0.002, 0 },
    { "a first plain kernel", 0.86, 0, 0.14, 0.004, 0.15, 0.015, 0 },
    { "flat, then linear", 1, 0.25, 0.02, 0.004, 0.12, 0.01, 0 },
    { "linear", 0, 1, 0, 0.01, 0.10, 0.03, 0 },
    { "dear drafts", 1, 0, 0.05, 0.002, 0.60, 0.05, 0 },
    { "hopeless drafts", 0.7, 0, 0.3, 0.002, 1.2, 0.1, 0 },
    { "deep attention", 0.9, 0, 0.06, 0.03, 0.08, 0.01, 0 },
};

/* Keeping the head's keys and values is in every step that may draft. */
static const double UPKEEP = 1.005;

static double verify_s(const machine *m, int n_seqs, int n_drafts, int depth)
{
    const int tile = m->tile ? m->tile : 1, rows = (n_seqs + n_drafts + tile - 1) / tile * tile;
    return 0.03 * (fmax(m->flat, m->row * rows) + m->soft * rows + m->depth_row * depth / 1024 * rows);
}

static double head_s(const machine *m, int n_chains)
{
    return 0.03 * (m->head + m->head_row * n_chains);
}

static double uniform(void)
{
    return (double)(rnd_u64() >> 11) * 0x1p-53;
}

/* 3 %, and one in fifty much longer. */
static double noisy(double seconds)
{
    return seconds * (1 + 0.03 * rnd_float()) * (uniform() < 0.02 ? 1 + 2 * uniform() : 1);
}

/* ---- texts ----------------------------------------------------------------------------------- */

typedef struct text {
    double accept[BW_MAX_DRAFTS]; /* at each place, if all before it were */
} text;

static text flat_text(double p)
{
    text t;
    for (int j = 0; j < BW_MAX_DRAFTS; j++)
        t.accept[j] = p;
    return t;
}

/* 0.87, 0.65 / 0.87, 0.39 / 0.65, and ever less. */
static text falling_text(void)
{
    return (text){ { 0.87, 0.747, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25 } };
}

static double expected_tokens(const text *t, int n)
{
    double tokens = 1, reach = 1;
    for (int j = 0; j < n; j++)
        tokens += reach *= t->accept[j];
    return tokens;
}

static int throw_dice(const text *t, int n)
{
    int a = 0;
    while (a < n && uniform() < t->accept[a])
        a++;
    return a;
}

/* ---- running --------------------------------------------------------------------------------- */

static double off_rate(const machine *m, int n_seqs, int depth)
{
    return n_seqs / verify_s(m, n_seqs, 0, depth);
}

static double fixed_rate(const machine *m, const text *t, int n_seqs, int depth, int n)
{
    return n_seqs * expected_tokens(t, n) /
           (UPKEEP * verify_s(m, n_seqs, n_seqs * n, depth) + n * head_s(m, n_seqs));
}

static double best_fixed_rate(const machine *m, const text *t, int n_seqs, int depth)
{
    double best = 0;
    for (int n = 0; n <= BW_MAX_DRAFTS; n++)
        best = fmax(best, fixed_rate(m, t, n_seqs, depth, n));
    return best;
}

typedef struct batch {
    bw_draft_planner planner;
    bw_draft_policy policies[MOST_SEQS];
    int n_seqs, depth, n[MOST_SEQS]; /* drafts in the timelines */
    double tokens, seconds;          /* expected tokens, times without noise */
    double drafted;
    const text *first; /* NULL, or another text of the first n_first sequences */
    int n_first;
    bool inverted; /* decides for what it believes to be worst */
} batch;

static void start(batch *b, int n_seqs, int depth)
{
    *b = (batch){ .n_seqs = n_seqs, .depth = depth };
    bw_draft_planner_init(&b->planner);
    for (int i = 0; i < n_seqs; i++)
        bw_draft_init(&b->policies[i], BW_DRAFT_AUTO);
}

static const text *text_of(const batch *b, const text *t, int i)
{
    return b->first && i < b->n_first ? b->first : t;
}

static void step(batch *b, const machine *m, const text *t)
{
    bw_draft_ask asks[MOST_SEQS];
    bw_draft_times times = { .pure = true, .n_seqs = b->n_seqs, .depth = b->depth };
    int longest = 0, accepted[MOST_SEQS];
    for (int i = 0; i < b->n_seqs; i++)
        asks[i] = (bw_draft_ask){ .policy = &b->policies[i], .depth = b->depth, .most = BW_MAX_DRAFTS };
    bw_draft_plan(&b->planner, asks, b->n_seqs, 8 * b->n_seqs);
    for (int i = 0; i < b->n_seqs; i++) {
        if (b->inverted)
            asks[i].n = asks[i].n > 0 ? 0 : BW_MAX_DRAFTS;
        times.n_drafts += b->n[i];
        b->drafted += b->n[i];
        b->tokens += expected_tokens(text_of(b, t, i), b->n[i]);
        accepted[i] = throw_dice(text_of(b, t, i), b->n[i]);
        longest = asks[i].n > longest ? asks[i].n : longest;
    }
    const double verify = UPKEEP * verify_s(m, b->n_seqs, times.n_drafts, b->depth);
    b->seconds += verify;
    times.verify_s = noisy(verify);
    for (int j = 0; j < longest; j++) {
        int chains = 0;
        for (int i = 0; i < b->n_seqs; i++)
            chains += asks[i].n > j;
        b->seconds += head_s(m, chains);
        times.chains[times.n_runs] = chains;
        times.run_s[times.n_runs++] = noisy(head_s(m, chains));
    }
    bw_draft_learn_times(&b->planner, &times);
    for (int i = 0; i < b->n_seqs; i++) {
        if (b->n[i] > 0)
            bw_draft_learn(&b->planner, &b->policies[i], b->n[i], accepted[i]);
        b->n[i] = asks[i].n;
    }
}

/* Tokens per second of each sequence over its next `tokens`. */
static double run(batch *b, const machine *m, const text *t, int tokens)
{
    b->tokens = b->seconds = b->drafted = 0;
    while (b->tokens < (double)tokens * b->n_seqs)
        step(b, m, t);
    return b->tokens / b->seconds;
}

/* ---- tests ----------------------------------------------------------------------------------- */

typedef struct worst {
    double off, start, best;
    char off_at[128], start_at[128], best_at[128];
} worst;

/* Runs of each case, of which the median counts, as with times measured: an outlier in the wrong place, such as two
 * in a row, makes 1 run of 200 lose 5 % and more. */
enum { RUNS = 7 };

static void note(double *least, char *where, double ratio, const machine *m, int n_seqs, int depth, const char *what,
                 double p)
{
    if (ratio >= *least)
        return;
    *least = ratio;
    snprintf(where, 128, "%s, %d at %d, %s %.2f", m->name, n_seqs, depth, what, p);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void try_text(worst *w, const machine *m, int n_seqs, int depth, const text *t, const char *what, double p,
                     bool inverted)
{
    const double off = off_rate(m, n_seqs, depth), best = best_fixed_rate(m, t, n_seqs, depth);
    double first[RUNS], then[RUNS];
    for (int i = 0; i < RUNS; i++) {
        batch b;
        start(&b, n_seqs, depth);
        b.inverted = inverted;
        first[i] = run(&b, m, t, 200);
        then[i] = run(&b, m, t, 600);
    }
    qsort(first, RUNS, sizeof *first, ascending);
    qsort(then, RUNS, sizeof *then, ascending);
    note(&w->start, w->start_at, first[RUNS / 2] / off, m, n_seqs, depth, what, p);
    note(&w->off, w->off_at, then[RUNS / 2] / off, m, n_seqs, depth, what, p);
    note(&w->best, w->best_at, then[RUNS / 2] / best, m, n_seqs, depth, what, p);
}

static worst try_all(void)
{
    worst w = { .off = 100, .start = 100, .best = 100 };
    const text falling = falling_text();
    for (size_t k = 0; k < sizeof machines / sizeof *machines; k++)
        for (int n_seqs = 1; n_seqs <= MOST_SEQS; n_seqs *= 4)
            for (int depth = 0; depth <= 16384; depth += 16384) {
                for (double p = 0; p < 0.96; p += p < 0.85 ? 0.1 : 0.05) {
                    const text t = flat_text(p);
                    try_text(&w, &machines[k], n_seqs, depth, &t, "flat", p, false);
                }
                try_text(&w, &machines[k], n_seqs, depth, &falling, "falling", 0, false);
            }
    return w;
}

TEST(deciding_is_never_much_slower_than_off_or_the_best_fixed_length)
{
    const worst w = try_all();
    printf("[  NOTE    ] first 200 tokens / off  %.3f  (%s)\n", w.start, w.start_at);
    printf("[  NOTE    ] then 600 / off          %.3f  (%s)\n", w.off, w.off_at);
    printf("[  NOTE    ] then 600 / best fixed   %.3f  (%s)\n", w.best, w.best_at);
    check_that(w.start >= 0.97, "%.3f of off: %s", w.start, w.start_at); /* with nothing known of the machine */
    check_that(w.off >= 0.98, "%.3f of off: %s", w.off, w.off_at);
    check_that(w.best >= 0.95, "%.3f of the best fixed length: %s", w.best, w.best_at);
}

/* Tokens per second of 600 over those of the best fixed length, once the text is `t`. */
static double change_to(batch *b, const machine *m, const text *t)
{
    run(b, m, t, 200);
    return run(b, m, t, 600) / best_fixed_rate(m, t, b->n_seqs, b->depth);
}

TEST(a_text_that_changes_is_followed_to_no_drafts_and_back)
{
    const text good = flat_text(0.85), bad = flat_text(0.02);
    for (size_t k = 0; k < 2; k++)
        for (int n_seqs = 1; n_seqs <= 4; n_seqs *= 4) {
            const machine *m = &machines[k];
            batch b;
            start(&b, n_seqs, 100);
            check_that(change_to(&b, m, &good) > 0.9, "%s, %d: good text", m->name, n_seqs);
            check(b.drafted > 0.5 * b.tokens);
            check_that(change_to(&b, m, &bad) > 0.97, "%s, %d: then bad", m->name, n_seqs);
            check_that(b.drafted < 0.35 * b.tokens, "%s, %d: %g drafts", m->name, n_seqs, b.drafted);
            check_that(change_to(&b, m, &good) > 0.9, "%s, %d: then good again", m->name, n_seqs);
        }
}

/* The context grows, and with it what a row costs. */
TEST(a_context_that_grows_is_followed)
{
    const text t = flat_text(0.7);
    const machine *m = &machines[6];
    batch b;
    start(&b, 1, 0);
    for (int depth = 0; depth <= 65536; depth = depth ? 4 * depth : 512) {
        b.depth = depth;
        const double ratio = change_to(&b, m, &t);
        check_that(ratio > 0.93, "%.3f of the best fixed length at %d", ratio, depth);
    }
}

/* Tokens per second of the best of all numbers of drafts that are the same in every step, given where they are most
 * likely to be accepted. */
static double best_shared_rate(const batch *b, const machine *m, const text *t)
{
    double best = off_rate(m, b->n_seqs, b->depth), tokens = b->n_seqs, heads = 0, reach[MOST_SEQS];
    int n[MOST_SEQS] = { 0 }, chains[BW_MAX_DRAFTS] = { 0 };
    for (int i = 0; i < b->n_seqs; i++)
        reach[i] = text_of(b, t, i)->accept[0];
    for (int drafts = 1; drafts <= BW_MAX_DRAFTS * b->n_seqs; drafts++) {
        int to = -1;
        for (int i = 0; i < b->n_seqs; i++)
            if (n[i] < BW_MAX_DRAFTS && (to < 0 || reach[i] > reach[to]))
                to = i;
        tokens += reach[to];
        const int j = n[to]++, m0 = chains[j]++;
        heads += head_s(m, m0 + 1) - (m0 > 0 ? head_s(m, m0) : 0);
        reach[to] *= n[to] < BW_MAX_DRAFTS ? text_of(b, t, to)->accept[n[to]] : 0;
        best = fmax(best, tokens / (UPKEEP * verify_s(m, b->n_seqs, drafts, b->depth) + heads));
    }
    return best;
}

/* Rows in tiles of 8 or 16: the first draft beside 16 sequences takes as long as 8 or 16 of them, which pays for those
 * of many sequences, hardly for those of few. */
TEST(a_time_that_jumps_with_the_first_draft_is_seen)
{
    double least_off = 100, least_best = 100, sum = 0;
    int n = 0;
    char off_at[128] = "", best_at[128] = "";
    for (int tile = 4; tile <= 16; tile *= 2)
        for (double jump = 0.04; jump < 0.4; jump *= 2) /* of a plain step, for 8 rows or a tile of 16 */
            for (int n_first = 1; n_first <= 4; n_first *= 2)
                for (double p = 0.5; p < 0.95; p += 0.2) {
                    const double row = jump / (tile == 16 ? 16 : 8);
                    const machine m = { tile == 4 ? "rows alone" : tile == 8 ? "tiles of 8" : "tiles of 16",
                                        1 - 16 * row, 0, row, 0, 0.02, 0.002, tile == 4 ? 1 : tile };
                    const text good = flat_text(p), bad = flat_text(0.1);
                    double rates[RUNS], best = 0;
                    for (int i = 0; i < RUNS; i++) {
                        batch b;
                        start(&b, 16, 0);
                        b.first = &good;
                        b.n_first = n_first;
                        best = best_shared_rate(&b, &m, &bad);
                        run(&b, &m, &bad, 200);
                        rates[i] = run(&b, &m, &bad, 600);
                    }
                    qsort(rates, RUNS, sizeof *rates, ascending);
                    char what[64];
                    snprintf(what, sizeof what, "%d of %.1f, jump", n_first, p);
                    note(&least_off, off_at, rates[RUNS / 2] / off_rate(&m, 16, 0), &m, 16, 0, what, jump);
                    sum += rates[RUNS / 2] / best;
                    n++;
                    note(&least_best, best_at, rates[RUNS / 2] / best, &m, 16, 0, what, jump);
                }
    printf("[  NOTE    ] tiles, 600 / off         %.3f  (%s)\n", least_off, off_at);
    printf("[  NOTE    ] tiles, 600 / best shared %.3f  (%s), mean %.4f\n", least_best, best_at, sum / n);
    check_that(least_off >= 0.975, "%.3f of off: %s", least_off, off_at);
    check_that(least_best >= 0.89, "%.3f of the best: %s", least_best, best_at);
    check_that(sum / n >= 0.975, "%.3f of the best in the mean", sum / n);
}

TEST(a_decision_turned_round_is_caught)
{
    worst w = { .off = 100, .start = 100, .best = 100 };
    const text bad = flat_text(0), good = flat_text(0.9);
    try_text(&w, &machines[1], 1, 0, &bad, "flat", 0, true);
    check_that(w.start < 0.9 && w.off < 0.9, "%.3f and %.3f of off", w.start, w.off);
    try_text(&w, &machines[0], 4, 0, &good, "flat", 0.9, true);
    check_that(w.best < 0.9, "%.3f of the best fixed length", w.best);
}

TESTS_MAIN(ENTRY(deciding_is_never_much_slower_than_off_or_the_best_fixed_length),
           ENTRY(a_text_that_changes_is_followed_to_no_drafts_and_back), ENTRY(a_context_that_grows_is_followed),
           ENTRY(a_time_that_jumps_with_the_first_draft_is_seen), ENTRY(a_decision_turned_round_is_caught))
