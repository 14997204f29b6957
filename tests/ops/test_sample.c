/* Sampling: the operation at every level against a plain sort-everything version in f64; the right
 * frequencies; the same token for the same (seed, position) wherever its row stands. */
#include "lib/cpu_fixture.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { SLOTS = 4, CONTEXT = 64, VOCAB = 3000, N_TOKENS = 2950, MAX_TOP = 20 };

typedef struct machine {
    bw_cpu *cpu;
    bw_sequences seqs;
} machine;

static machine start(const char *level, int n_threads)
{
    bw_op_limits limits = { .max_rows = 64, .max_logits = 64, .max_spans = SLOTS, .vocab = VOCAB };
    machine m = { .cpu = fixture_create(level, n_threads, &limits) };
    m.seqs = (bw_sequences){ .n_slots = SLOTS, .context = CONTEXT, .tokens = fixture_ints(SLOTS * CONTEXT),
                             .samplers = (bw_sampler *)fixture_ints(SLOTS * sizeof(bw_sampler) / sizeof(int32_t)),
                             .biases = (bw_logit_bias *)fixture_ints(SLOTS * 2 * BW_MAX_LOGIT_BIAS) };
    return m;
}

static bw_sampler plain(float temperature, uint64_t seed)
{
    return (bw_sampler){ .temperature = temperature, .top_p = 1, .repetition_penalty = 1, .seed = seed, .n_logprobs = -1 };
}

/* The token of one row that predicts position pos + 1 of slot 0. */
static int32_t sample(machine *m, const bw_sampler *sampler, const float *logits, int vocab, int n_tokens, int pos)
{
    int32_t token = -1;
    m->seqs.samplers[0] = *sampler;
    bw_sample_args args = { .seqs = &m->seqs, .rows = &(bw_row){ 0, pos }, .n_rows = 1, .ahead = 1, .logits = logits,
                            .vocab = vocab, .n_tokens = n_tokens, .tokens = &token };
    bw_cpu_sample(&m->cpu->base, &args);
    return token;
}

/* ---- the plain version ---- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static double noise(uint64_t seed, int position, int id)
{
    const uint64_t golden = 0x9E3779B97F4A7C15u;
    uint64_t key = mix(mix(seed + golden) + golden * ((uint64_t)position + 1));
    double u = ((double)(mix(key + golden * ((uint64_t)id + 1)) >> 12) + 0.5) * 0x1p-52;
    return -log(-log(u));
}

typedef struct entry {
    float x;
    int id;
} entry;

static int by_value(const void *a, const void *b)
{
    const entry *p = a, *q = b;
    return p->x != q->x ? (p->x < q->x) - (p->x > q->x) : p->id - q->id;
}

/* Sorts everything and follows the definitions word by word. */
static int plainly(const bw_sampler *s, const bw_logit_bias *biases, const float *logits, int n, const int32_t *tokens,
                   int position)
{
    bool forces = position >= s->force_pos && position < s->force_pos + s->n_force;
    for (int i = s->n_prompt; forces && i < s->force_pos; i++)
        forces = tokens[i] != s->force_unless;
    if (forces)
        return s->force[position - s->force_pos];
    entry *list = malloc((size_t)n * sizeof *list);
    double *p = malloc((size_t)n * sizeof *p), sum = 0, running = 0, best = -INFINITY;
    int kept = 0, chosen = -1;
    check(list && p);
    for (int id = 0; id < n; id++) {
        int count = 0, generated = 0;
        float x = logits[id];
        for (int i = 0; i < s->n_biases; i++)
            x += biases[i].token == id ? biases[i].bias : 0;
        for (int i = 0; i < position; i++) {
            count += tokens[i] == id;
            generated += tokens[i] == id && i >= s->n_prompt;
        }
        if (count > 0)
            x = x > 0 ? x / s->repetition_penalty : x * s->repetition_penalty;
        if (generated > 0)
            x -= s->presence_penalty + s->frequency_penalty * (float)generated;
        for (int i = 0; i < s->n_banned && position < s->min_pos; i++)
            x = s->banned[i] == id ? -INFINITY : x;
        if (!isnan(x))
            list[kept++] = (entry){ x, id };
    }
    qsort(list, (size_t)kept, sizeof *list, by_value);
    if (!(s->temperature > 0) || kept == 0 || !isfinite(list[0].x)) {
        chosen = kept ? list[0].id : 0;
    } else {
        if (s->top_k > 0 && s->top_k < kept)
            kept = s->top_k;
        for (int i = 0; i < kept; i++)
            sum += p[i] = exp(((double)list[i].x - list[0].x) / s->temperature);
        int n_top_p = 0;
        while (n_top_p < kept && (n_top_p == 0 || running < s->top_p * sum))
            running += p[n_top_p++];
        if (s->top_p < 1)
            kept = n_top_p;
        for (int i = 0; i < kept; i++) {
            double score = (double)list[i].x / s->temperature + noise(s->seed, position, list[i].id);
            if (p[i] >= s->min_p * p[0] * (1 - 1e-12) && (chosen < 0 || score > best)) {
                best = score;
                chosen = list[i].id;
            }
        }
    }
    free(list);
    free(p);
    return chosen;
}

/* Flat, usual or peaked; sometimes with many ties, NaN and -inf; ids that are no tokens large. */
static void random_logits(float *x, int n_tokens, int vocab)
{
    const float scale = (float[]){ 0.1f, 2, 8 }[rnd_int(0, 2)];
    const bool ties = rnd_int(0, 3) == 0, holes = rnd_int(0, 3) == 0;
    for (int i = 0; i < vocab; i++) {
        x[i] = scale * rnd_float();
        if (ties)
            x[i] = roundf(4 * x[i]) / 4;
        if (holes && rnd_int(0, 9) == 0)
            x[i] = rnd_int(0, 1) ? NAN : -INFINITY;
        if (i >= n_tokens)
            x[i] = 1000;
    }
}

static bw_sampler random_sampler(void)
{
    bw_sampler s = plain(rnd_int(0, 4) ? 0.2f + 1.5f * (float)rnd_int(0, 100) / 100 : 0, rnd_u64());
    if (rnd_int(0, 1))
        s.top_k = rnd_int(0, 3) ? rnd_int(1, 40) : rnd_int(1, 2 * N_TOKENS);
    if (rnd_int(0, 1))
        s.top_p = (float)rnd_int(1, 999) / 1000;
    if (rnd_int(0, 2) == 0)
        s.min_p = (float)rnd_int(1, 300) / 1000;
    if (rnd_int(0, 1)) {
        s.repetition_penalty = 0.5f + (float)rnd_int(0, 100) / 64;
        s.presence_penalty = rnd_float();
        s.frequency_penalty = rnd_float();
        s.n_prompt = rnd_int(0, CONTEXT / 2);
    }
    return s;
}

/* Biases, ids that are banned for a while, tokens that are forced for a while: each in some of the rounds. */
static void random_extras(bw_sampler *s, bw_logit_bias *biases, int n)
{
    s->n_biases = rnd_int(0, 1) ? rnd_int(1, 60) : 0;
    for (int i = 0; i < s->n_biases; i++)
        biases[i] = (bw_logit_bias){ rnd_int(-1, n), rnd_int(0, 3) ? 3 * rnd_float() : rnd_int(0, 1) ? 100 : -100 };
    s->n_banned = rnd_int(0, 1) ? rnd_int(1, BW_MAX_BANNED) : 0;
    s->min_pos = rnd_int(0, CONTEXT);
    for (int i = 0; i < s->n_banned; i++)
        s->banned[i] = rnd_int(0, 3) ? rnd_int(-1, n) : rnd_int(0, 9);
    s->n_force = rnd_int(0, 2) ? 0 : rnd_int(1, BW_MAX_FORCED);
    s->force_pos = s->n_prompt + rnd_int(0, CONTEXT - s->n_prompt);
    s->force_unless = rnd_int(0, 4);
    for (int i = 0; i < s->n_force; i++)
        s->force[i] = rnd_int(0, n - 1);
}

TEST(every_level_chooses_what_sorting_everything_would)
{
    for (int round = 0; round < 400; round++) {
        const int vocab = rnd_int(0, 3) ? VOCAB : rnd_int(1, 70), n = vocab == VOCAB ? N_TOKENS : rnd_int(1, vocab);
        float *logits = fixture_floats((size_t)vocab);
        random_logits(logits, n, vocab);
        bw_sampler s = random_sampler();
        bw_logit_bias biases[BW_MAX_LOGIT_BIAS];
        random_extras(&s, biases, n);
        const int pos = rnd_int(0, CONTEXT - 2);
        int32_t tokens[CONTEXT];
        for (int i = 0; i < CONTEXT; i++) /* some tokens often, some large logits; ids that are none */
            tokens[i] = rnd_int(0, 1) ? rnd_int(0, n - 1) : rnd_int(0, 4);
        tokens[0] = vocab + 5;
        const int want = plainly(&s, biases, logits, n, tokens, pos + 1);
        for (const char *const *level = fixture_levels(); *level; level++) {
            machine m = start(*level, 1);
            memcpy(m.seqs.tokens, tokens, sizeof tokens);
            memcpy(m.seqs.biases, biases, (size_t)s.n_biases * sizeof *biases);
            const int got = sample(&m, &s, logits, vocab, n, pos);
            check_that(got == want, "%s: round %d: token %d, expected %d (n=%d t=%g k=%d p=%g min_p=%g)", *level, round, got,
                       want, n, (double)s.temperature, s.top_k, (double)s.top_p, (double)s.min_p);
            check_guards();
            fixture_destroy(m.cpu);
        }
        fixture_release();
    }
}

TEST(a_row_without_numbers_gives_a_token_all_the_same)
{
    static const float odd[] = { NAN, -INFINITY, INFINITY };
    for (const char *const *level = fixture_levels(); *level; level++) {
        machine m = start(*level, 1);
        float x[37];
        for (size_t o = 0; o < BW_COUNT(odd); o++)
            for (int t = 0; t < 2; t++) {
                bw_sampler s = plain((float)t, 5);
                s.top_p = t ? 0.5f : 1;
                for (int i = 0; i < 37; i++)
                    x[i] = odd[o];
                check_int(sample(&m, &s, x, 37, 36, 0), 0);
                x[0] = x[36] = NAN;
                check_int(sample(&m, &s, x, 37, 36, 0), isnan(odd[o]) ? 0 : 1);
                x[20] = INFINITY;
                check_int(sample(&m, &s, x, 37, 36, 0), odd[o] > 0 ? 1 : 20);
            }
        fixture_destroy(m.cpu);
    }
    fixture_release();
}

/* Penalties of one example by hand: tokens 7 7 (prompt) 3 3 9 (generated). */
TEST(penalties_count_what_they_should)
{
    for (const char *const *level = fixture_levels(); *level; level++) {
        machine m = start(*level, 1);
        memcpy(m.seqs.tokens, (int32_t[]){ 7, 7, 3, 3, 9, 1 }, 6 * sizeof(int32_t));
        float x[10] = { 0 };
        bw_sampler s = plain(0, 0);
        s.n_prompt = 2;
        s.repetition_penalty = 2;
        x[7] = 4, x[2] = 1.9f;
        check_int(sample(&m, &s, x, 10, 10, 4), 7); /* 4 / 2, once */
        x[2] = 2.1f;
        check_int(sample(&m, &s, x, 10, 10, 4), 2);
        s.repetition_penalty = 1;
        s.presence_penalty = 3; /* not of the prompt's 7 */
        x[3] = 5;
        check_int(sample(&m, &s, x, 10, 10, 4), 7);
        x[3] = 7.1f;
        check_int(sample(&m, &s, x, 10, 10, 4), 3);
        s.frequency_penalty = 1; /* 3 twice: 7.1 - 3 - 2 */
        check_int(sample(&m, &s, x, 10, 10, 4), 7);
        x[1] = 4.5f; /* position 5 is not yet behind position 5 */
        check_int(sample(&m, &s, x, 10, 10, 4), 1);
        check_int(sample(&m, &s, x, 10, 10, 5), 7);
        fixture_destroy(m.cpu);
    }
    fixture_release();
}

/* The row of one example by hand: 4 for token 7, 3 for 2, a prompt of 7 7, generated 3 3 9. */
TEST(biases_come_before_penalties_and_bans_after)
{
    for (const char *const *level = fixture_levels(); *level; level++) {
        machine m = start(*level, 1);
        memcpy(m.seqs.tokens, (int32_t[]){ 7, 7, 3, 3, 9, 1 }, 6 * sizeof(int32_t));
        float x[10] = { [7] = 4, [2] = 3 };
        bw_sampler s = plain(0, 0);
        s.n_prompt = 2;
        m.seqs.biases[0] = (bw_logit_bias){ 7, -5 };
        m.seqs.biases[1] = (bw_logit_bias){ 99, 100 }; /* none of these rows */
        check_int(sample(&m, &s, x, 10, 10, 4), 7);
        s.n_biases = 2;
        check_int(sample(&m, &s, x, 10, 10, 4), 2);
        m.seqs.biases[0].bias = 4;
        s.repetition_penalty = 2; /* (4 + 4) / 2, not 4 / 2 + 4 */
        x[2] = 4.1f;
        check_int(sample(&m, &s, x, 10, 10, 4), 2);
        x[2] = 3.9f;
        check_int(sample(&m, &s, x, 10, 10, 4), 7);
        s.banned[0] = 7;
        s.banned[1] = 2;
        s.n_banned = 1;
        s.min_pos = 6;
        check_int(sample(&m, &s, x, 10, 10, 4), 2); /* chooses position 5 */
        check_int(sample(&m, &s, x, 10, 10, 5), 7);
        s.n_banned = 2;
        check_int(sample(&m, &s, x, 10, 10, 4), 0);
        fixture_destroy(m.cpu);
    }
    fixture_release();
}

TEST(forced_tokens_come_where_they_should_unless_another_came_before)
{
    for (const char *const *level = fixture_levels(); *level; level++) {
        machine m = start(*level, 1);
        float x[10] = { [5] = 3 };
        bw_sampler s = plain(0, 0);
        s.n_prompt = 3;
        s.force_pos = 6;
        s.n_force = 2;
        s.force[0] = 8;
        s.force[1] = 5;
        s.force_unless = 9;
        s.min_pos = 20;
        s.n_banned = 2; /* a forced token is not banned */
        s.banned[0] = 8;
        s.banned[1] = 5;
        for (int where = 0; where < 10; where++) {
            for (int i = 0; i < 10; i++)
                m.seqs.tokens[i] = i == where ? 9 : 1;
            const bool came = where >= 3 && where <= 5;
            check_int(sample(&m, &s, x, 10, 10, 4), 0); /* position 5 */
            check_int(sample(&m, &s, x, 10, 10, 5), came ? 0 : 8);
            check_int(sample(&m, &s, x, 10, 10, 6), came ? 0 : 5);
            check_int(sample(&m, &s, x, 10, 10, 7), 0);
        }
        fixture_destroy(m.cpu);
    }
    fixture_release();
}

/* Sum of (observed - expected)^2 / expected over tokens, and its degrees of freedom. */
static void check_frequencies(const char *level, const char *what, const int *seen, const double *p, int n, int draws)
{
    double chi2 = 0;
    int cells = 0;
    for (int i = 0; i < n; i++) {
        if (p[i] == 0)
            check_that(seen[i] == 0, "%s %s: token %d was filtered and still chosen", level, what, i);
        else
            chi2 += pow(seen[i] - p[i] * draws, 2) / (p[i] * draws), cells++;
    }
    const double free = cells - 1; /* mean of chi^2, its variance is twice that: 5 deviations */
    check_that(chi2 < free + 5 * sqrt(2 * free) + 5, "%s %s: chi^2 %.1f with %d cells", level, what, chi2, cells);
}

TEST(tokens_come_as_often_as_the_distribution_says)
{
    enum { N = 24, DRAWS = 20000 };
    static const char *const kinds[] = { "plain", "top-k", "min-p", "one seed" };
    float *x = fixture_random(N, 1);
    for (const char *const *level = fixture_levels(); *level; level++) {
        machine m = start(*level, 1);
        m.seqs.context = DRAWS + 1; /* no penalties: the timeline is not read */
        for (int kind = 0; kind < 4; kind++) {
            bw_sampler s = plain(0.8f, 0);
            double p[N], sum = 0, largest = 0;
            int seen[N] = { 0 };
            s.top_k = kind == 1 ? 9 : 0;
            s.min_p = kind == 2 ? 0.2f : 0;
            for (int i = 0; i < N; i++)
                largest = fmax(largest, p[i] = exp(x[i] / 0.8));
            for (int i = 0; i < N; i++) {
                int rank = 0;
                for (int j = 0; j < N; j++)
                    rank += x[j] > x[i];
                if ((kind == 1 && rank >= 9) || (kind == 2 && p[i] < 0.2 * largest))
                    p[i] = 0;
                sum += p[i];
            }
            for (int i = 0; i < N; i++)
                p[i] /= sum;
            for (int draw = 0; draw < DRAWS; draw++) { /* over seeds and positions, or positions alone */
                s.seed = kind == 3 ? 77 : (uint64_t)(draw / 20);
                seen[sample(&m, &s, x, N, N, kind == 3 ? draw : draw % 20)]++;
            }
            check_frequencies(*level, kinds[kind], seen, p, N, DRAWS);
        }
        fixture_destroy(m.cpu);
    }
    fixture_release();
}

TEST(a_token_does_not_know_where_its_row_stands)
{
    enum { ROWS = 17 };
    for (int round = 0; round < 20; round++) {
        float *logits = fixture_floats(ROWS * VOCAB), *shuffled = fixture_floats(ROWS * VOCAB);
        for (int r = 0; r < ROWS; r++)
            random_logits(logits + (size_t)r * VOCAB, N_TOKENS, VOCAB);
        for (const char *const *level = fixture_levels(); *level; level++) {
            machine m = start(*level, rnd_int(1, 3)), alone = start(*level, 1);
            bw_row rows[ROWS], moved[ROWS];
            int from[ROWS];
            int32_t want[ROWS], got[ROWS];
            for (int i = 0; i < SLOTS * CONTEXT; i++)
                m.seqs.tokens[i] = alone.seqs.tokens[i] = rnd_int(0, N_TOKENS - 1);
            for (int i = 0; i < SLOTS; i++) {
                bw_sampler *sampler = &m.seqs.samplers[i];
                bw_logit_bias *biases = m.seqs.biases + (size_t)i * BW_MAX_LOGIT_BIAS;
                *sampler = random_sampler();
                random_extras(sampler, biases, N_TOKENS);
                alone.seqs.samplers[i] = *sampler;
                memcpy(alone.seqs.biases + (size_t)i * BW_MAX_LOGIT_BIAS, biases, BW_MAX_LOGIT_BIAS * sizeof *biases);
            }
            for (int r = 0; r < ROWS; r++) {
                rows[r] = (bw_row){ rnd_int(0, SLOTS - 1), rnd_int(1, CONTEXT - 2) };
                bw_sample_args one = { .seqs = &alone.seqs, .rows = &rows[r], .n_rows = 1, .ahead = 1,
                                       .logits = logits + (size_t)r * VOCAB, .vocab = VOCAB, .n_tokens = N_TOKENS, .tokens = &want[r] };
                bw_cpu_sample(&alone.cpu->base, &one);
                int j = rnd_int(0, r);
                from[r] = from[j];
                from[j] = r;
            }
            for (int r = 0; r < ROWS; r++) {
                moved[r] = rows[from[r]];
                memcpy(shuffled + (size_t)r * VOCAB, logits + (size_t)from[r] * VOCAB, VOCAB * sizeof(float));
            }
            bw_sample_args all = { .seqs = &m.seqs, .rows = moved, .n_rows = ROWS, .ahead = 1, .logits = shuffled,
                                   .vocab = VOCAB, .n_tokens = N_TOKENS, .tokens = got };
            bw_cpu_sample(&m.cpu->base, &all);
            for (int r = 0; r < ROWS; r++)
                check_int(got[r], want[from[r]]);
            /* The draft head at the position before, two ahead: the same noise and timeline. */
            for (int r = 0; r < ROWS; r++)
                moved[r].pos--;
            all.ahead = 2;
            bw_cpu_sample(&m.cpu->base, &all);
            for (int r = 0; r < ROWS; r++)
                check_int(got[r], want[from[r]]);
            check_guards();
            fixture_destroy(m.cpu);
            fixture_destroy(alone.cpu);
        }
        fixture_release();
    }
}

/* Chosen from a part of the vocabulary: as from all of it with every other logit at minus infinity. */
TEST(a_draft_is_chosen_as_if_all_other_tokens_were_impossible)
{
    enum { FIRST = 1600, ROOM = 200, TIMES = 300 };
    for (const char *const *level = fixture_levels(); *level; level++) {
        machine m = start(*level, 2);
        float *whole = fixture_floats(VOCAB), *part = fixture_floats(FIRST + ROOM);
        int32_t *ids = fixture_ints(SLOTS * ROOM), *n_ids = fixture_ints(SLOTS), holes[2] = { 5, 0 };
        for (int i = 0; i < TIMES; i++) {
            const int slot = rnd_int(0, SLOTS - 1);
            bw_sampler *sampler = &m.seqs.samplers[slot];
            *sampler = random_sampler();
            sampler->n_logprobs = -1;
            sampler->any_row = 0;
            random_extras(sampler, m.seqs.biases + (size_t)slot * BW_MAX_LOGIT_BIAS, N_TOKENS);
            for (int p = 0; p < CONTEXT; p++) /* penalties of tokens inside and outside */
                m.seqs.tokens[slot * CONTEXT + p] = rnd_int(0, 1) ? rnd_int(0, N_TOKENS - 1) : rnd_int(FIRST, FIRST + 99);
            n_ids[slot] = 0;
            for (int id = FIRST; id < N_TOKENS && n_ids[slot] < ROOM; id += rnd_int(1, 12))
                ids[slot * ROOM + n_ids[slot]++] = id;
            holes[1] = ids[slot * ROOM]; /* also in the list */
            for (int id = 0; id < VOCAB; id++)
                whole[id] = -INFINITY;
            for (int k = 0; k < FIRST + n_ids[slot]; k++)
                whole[k < FIRST ? k : ids[slot * ROOM + k - FIRST]] = part[k] = 4 * (float)(int)rnd_float() + (rnd_int(0, 1) ? rnd_float() : 0);
            const bw_row row = { slot, rnd_int(1, CONTEXT - 3) };
            const bw_draft_vocab only = { .n_first = FIRST, .room = ROOM, .ids = ids, .n_ids = n_ids };
            int32_t want, got;
            bw_sample_args args = { .seqs = &m.seqs, .rows = &row, .n_rows = 1, .ahead = 2, .logits = whole, .vocab = VOCAB,
                                    .n_tokens = N_TOKENS, .holes = holes, .n_holes = 2, .tokens = &want };
            bw_cpu_sample(&m.cpu->base, &args);
            args.logits = part;
            args.only = &only;
            args.tokens = &got;
            bw_cpu_sample(&m.cpu->base, &args);
            check_int(got, want);
        }
        check_guards();
        fixture_destroy(m.cpu);
        fixture_release();
    }
}

static double exact_logprob(const float *x, int n, int id)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max; /* NaN never; gcc 12 for ARM breaks down over fmax here */
    for (int i = 0; i < n; i++)
        sum += isnan(x[i]) ? 0 : exp(x[i] - max);
    return x[id] - max - log(sum);
}

/* Of the raw logits: temperature, filters and penalties do not show. f32 exponentials: 2e-7 each,
 * sums of 16 in f32, then f64; the value itself is rounded to f32. */
TEST(logprobs_are_those_of_the_raw_row)
{
    for (int round = 0; round < 60; round++) {
        const int n = rnd_int(0, 1) ? N_TOKENS : rnd_int(1, 30);
        float *x = fixture_floats(VOCAB);
        random_logits(x, n, VOCAB);
        entry *order = malloc((size_t)n * sizeof *order);
        int kept = 0;
        check(order != NULL);
        for (int i = 0; i < n; i++)
            if (!isnan(x[i]))
                order[kept++] = (entry){ x[i], i };
        qsort(order, (size_t)kept, sizeof *order, by_value);
        for (const char *const *level = fixture_levels(); *level && kept > 0 && isfinite(order[0].x); level++) {
            machine m = start(*level, 2);
            bw_row rows[] = { { 0, 3 }, { 1, 4 } };
            int32_t tokens[2];
            float *logprobs = fixture_floats(2), *both = fixture_floats(2 * VOCAB);
            bw_logprob *top = (bw_logprob *)fixture_floats(2 * 2 * MAX_TOP);
            memcpy(both, x, VOCAB * sizeof *x);
            memcpy(both + VOCAB, x, VOCAB * sizeof *x);
            m.seqs.samplers[0] = random_sampler();
            random_extras(&m.seqs.samplers[0], m.seqs.biases, n);
            m.seqs.samplers[0].n_logprobs = rnd_int(0, MAX_TOP);
            m.seqs.samplers[1] = plain(1, 3); /* wants none */
            bw_sample_args args = { .seqs = &m.seqs, .rows = rows, .n_rows = 2, .ahead = 1, .logits = both, .vocab = VOCAB,
                                    .n_tokens = n, .tokens = tokens, .logprobs = logprobs, .top = top, .max_top = MAX_TOP };
            bw_cpu_sample(&m.cpu->base, &args);
            /* a forced token can be one that is not a number */
            const double want = isnan(x[tokens[0]]) ? -INFINITY : exact_logprob(x, n, tokens[0]);
            check_that(fabs(logprobs[0] - want) <= 4e-6 + 1e-7 * fabs(want) || logprobs[0] == want, "%s: %g, expected %g",
                       *level, (double)logprobs[0], want);
            check(isnan(logprobs[1]));
            for (int i = 0; i < MAX_TOP; i++) {
                if (i >= m.seqs.samplers[0].n_logprobs) {
                    check(isnan(top[i].logprob)); /* not written */
                } else if (i >= kept) {
                    check_int(top[i].token, -1);
                } else {
                    const double value = exact_logprob(x, n, order[i].id);
                    check_int(top[i].token, order[i].id);
                    check(fabs(top[i].logprob - value) <= 4e-6 + 1e-7 * fabs(value) || top[i].logprob == value);
                }
                check(isnan(top[MAX_TOP + i].logprob));
            }
            for (int i = 0; i < 2 && n > 1; i++) /* the timeline's next token */
                m.seqs.tokens[i * CONTEXT + rows[i].pos + 1] = order[(kept - 1) * i / 2].id;
            bw_logprob best[2 * MAX_TOP];
            memset(best, 0xff, sizeof best); /* NaN */
            bw_cpu_score(&m.cpu->base, &(bw_score_args){ .seqs = &m.seqs, .rows = rows, .n_rows = 2, .logits = both,
                                                         .vocab = VOCAB, .n_tokens = n, .out = logprobs, .top = best,
                                                         .max_top = MAX_TOP });
            for (int i = 0; i < 2 && n > 1; i++) { /* of all columns */
                const double value = exact_logprob(both + i * VOCAB, VOCAB, order[(kept - 1) * i / 2].id);
                check(fabs(logprobs[i] - value) <= 4e-6 + 1e-7 * fabs(value) || logprobs[i] == value);
            }
            for (int i = 0; i < MAX_TOP; i++) {
                check(best[i].token == (i >= m.seqs.samplers[0].n_logprobs ? -1 : i >= kept ? -1 : order[i].id));
                check(isnan(best[MAX_TOP + i].logprob)); /* wants none */
            }
            check_guards();
            fixture_destroy(m.cpu);
        }
        free(order);
        fixture_release();
    }
}

TEST(kernels_match_plain_code)
{
    for (const char *const *level = fixture_levels(); *level; level++) {
        machine m = start(*level, 1);
        for (int round = 0; round < 300; round++) {
            const int n = rnd_int(1, 600);
            float *x = fixture_floats((size_t)n), max = -INFINITY;
            random_logits(x, n, n);
            int want = -1;
            for (int i = 0; i < n; i++)
                if (!isnan(x[i]) && (want < 0 || x[i] > x[want]))
                    want = i;
            check_int(m.cpu->k.argmax(x, n), want);
            if (want < 0 || !isfinite(max = x[want]))
                continue;
            const float temperature = 0.1f + (float)rnd_int(0, 20) / 10;
            double sum = 0;
            for (int i = 0; i < n; i++)
                sum += isnan(x[i]) ? 0 : exp(((double)x[i] - max) / temperature);
            /* the argument's two roundings count by its size, up to about 90 */
            const double got = m.cpu->k.sum_exp(x, n, max, temperature);
            check_that(fabs(got - sum) <= 4e-6 * sum, "%s: %.9g, expected %.9g", *level, got, sum);
        }
        check_guards();
        fixture_destroy(m.cpu);
        fixture_release();
    }
}

/* Every id but one is a hole, or no token at all: the one that is left comes out at any temperature. */
TEST(holes_are_never_chosen_but_where_any_row_may_be)
{
    for (const char *const *level = fixture_levels(); *level; level++) {
        machine m = start(*level, 1);
        float *x = fixture_floats(40);
        int32_t holes[29], token;
        for (int i = 0; i < 40; i++)
            x[i] = rnd_float();
        x[35] = 50;
        for (int left = 0; left < 30; left += 7) {
            for (int i = 0, n = 0; i < 30; i++)
                if (i != left)
                    holes[n++] = i;
            for (int pos = 1; pos < 20; pos++) {
                bw_sample_args args = { .seqs = &m.seqs, .rows = &(bw_row){ 0, pos }, .n_rows = 1, .ahead = 1, .logits = x,
                                        .vocab = 40, .n_tokens = 30, .holes = holes, .n_holes = 29, .tokens = &token };
                m.seqs.samplers[0] = plain(pos & 1 ? 0 : 100, (uint64_t)pos);
                m.seqs.samplers[0].presence_penalty = pos & 2 ? 1 : 0; /* the row is a copy already, or not */
                bw_cpu_sample(&m.cpu->base, &args);
                check_int(token, left);
                m.seqs.samplers[0] = plain(0, 1);
                m.seqs.samplers[0].any_row = 1;
                bw_cpu_sample(&m.cpu->base, &args);
                check_int(token, 35);
            }
        }
        fixture_destroy(m.cpu);
        fixture_release();
    }
}

TESTS_MAIN(ENTRY(kernels_match_plain_code), ENTRY(every_level_chooses_what_sorting_everything_would),
           ENTRY(a_row_without_numbers_gives_a_token_all_the_same), ENTRY(penalties_count_what_they_should),
           ENTRY(biases_come_before_penalties_and_bans_after),
           ENTRY(forced_tokens_come_where_they_should_unless_another_came_before),
           ENTRY(tokens_come_as_often_as_the_distribution_says), ENTRY(a_token_does_not_know_where_its_row_stands),
           ENTRY(a_draft_is_chosen_as_if_all_other_tokens_were_impossible),
           ENTRY(logprobs_are_those_of_the_raw_row), ENTRY(holes_are_never_chosen_but_where_any_row_may_be))
