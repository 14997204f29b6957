/* draft.c - expected tokens of a verify against what it takes. */
#include "engine/draft.h"

/* Before anything is known: users of the family report 0.75 to 0.9 at the first place, and less at each later one. */
static const float guess[BW_MAX_DRAFTS] = { 0.8f, 0.72f, 0.66f, 0.62f, 0.59f, 0.57f, 0.55f, 0.54f };
/* What stands before a record of its own weighs as much as so many verifies. */
static const float GUESS_WEIGHT = 2, PRIOR_WEIGHT = 6;
/* Verifies that count, of the engine, of a sequence, and of one whose drafts were stopped: it may have changed. */
static const float ENGINE_MEMORY = 256, MEMORY = 64, MEMORY_OF_PROBES = 8;
/* Share of the time of all steps that exploring may be expected to lose; its start and its most, in steps. */
static const double EXPLORE = 0.0035, START_CREDIT = 0.3, MOST_CREDIT = 2, DEBT = 0.3;
/* With so much credit a longer length is tried for what it says of acceptance. */
static const double SPARE = 0.1;
/* A time is measured again when fewer measurements of it count. */
static const double FEW = 1.9;
/* Drafts must be expected to gain so much over none. */
static const double MARGIN = 1.01;
enum {
    FIRST_PROBE = 16, LAST_PROBE = 128, /* steps without drafts */
    RECENT = 8,
    REACH_LEVELS = 32                   /* reaches are told apart to 1 / 32; less than that is never drafted */
};

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* ---- acceptance ------------------------------------------------------------------------------ */

static void fade(bw_draft_record *r, int j, float memory)
{
    if (r->tries[j] <= memory)
        return;
    r->hits[j] *= memory / r->tries[j];
    r->tries[j] = memory;
}

static void record(bw_draft_record *r, int n, int n_accepted, float memory)
{
    for (int j = 0; j < n && j <= n_accepted; j++) { /* places past the first rejection were not tried */
        r->tries[j] += 1;
        r->hits[j] += j < n_accepted;
        fade(r, j, memory);
    }
}

/* The last RECENT first drafts were accepted much more or less often than all: the text has changed. */
static void doubt(bw_draft_policy *policy, bool accepted)
{
    bw_draft_record *r = &policy->record;
    int hits = 0;
    policy->recent = (policy->recent << 1 | accepted) & ((1u << RECENT) - 1);
    for (unsigned bits = policy->recent; bits; bits &= bits - 1)
        hits++;
    const float expected = RECENT * r->hits[0] / r->tries[0];
    if (r->tries[0] < 2 * RECENT || ((float)hits < expected + 4 && (float)hits > expected - 4))
        return;
    for (int j = 0; j < BW_MAX_DRAFTS; j++)
        fade(r, j, RECENT / 2);
}

/* reach[j]: the share of verifies in which drafts 1 to j + 1 are all accepted. A place that was hardly tried is
 * expected to be as much better or worse than others' as the place before it is. */
static void expect(float reach[BW_MAX_DRAFTS], const bw_draft_record *all, const bw_draft_record *own)
{
    float ratio = 1, reached = 1;
    for (int j = 0; j < BW_MAX_DRAFTS; j++) {
        const float usual = (all->hits[j] + GUESS_WEIGHT * guess[j]) / (all->tries[j] + GUESS_WEIGHT);
        float prior = usual * ratio;
        if (prior > 0.98f)
            prior = 0.98f;
        const float accept = (own->hits[j] + PRIOR_WEIGHT * prior) / (own->tries[j] + PRIOR_WEIGHT);
        ratio = accept / usual;
        reach[j] = reached *= accept;
    }
}

/* ---- what a step would bring, and take ------------------------------------------------------- */

typedef struct tally {
    const bw_timing *timing;
    int n_seqs, depth, drafts, chains[BW_MAX_DRAFTS]; /* [j]: chains longer than j */
    double tokens, head_s;
} tally;

static void add_draft(tally *t, const bw_draft_ask *ask, int j)
{
    const int m = t->chains[j]++;
    t->head_s += bw_timing_head(t->timing, m + 1) - (m > 0 ? bw_timing_head(t->timing, m) : 0);
    t->tokens += ask->reach[j];
    t->drafts++;
}

static double seconds(const tally *t)
{
    return bw_timing_verify(t->timing, t->n_seqs, t->depth, t->drafts) + t->head_s;
}

static bool is_auto(const bw_draft_ask *ask)
{
    return ask->policy->request == BW_DRAFT_AUTO;
}

/* All sequences, with the drafts that were asked for as a number. */
static tally start_tally(const bw_timing *timing, bw_draft_ask *asks, int n_asks, const bw_draft_record *all)
{
    tally t = { .timing = timing, .n_seqs = n_asks, .tokens = n_asks };
    int64_t depths = 0;
    for (int i = 0; i < n_asks; i++)
        depths += asks[i].depth;
    t.depth = (int)(depths / n_asks);
    for (int i = 0; i < n_asks; i++) {
        expect(asks[i].reach, all, &asks[i].policy->record);
        asks[i].n = is_auto(&asks[i]) ? 0 : smaller(asks[i].policy->request, asks[i].most);
        for (int j = 0; j < asks[i].n; j++)
            add_draft(&t, &asks[i], j);
    }
    return t;
}

/* Adds the `most` drafts of farthest reach, or as many as there are; returns after how many of them the tokens per
 * second were most. */
static int grow(tally *t, bw_draft_ask *asks, int n_asks, int most)
{
    int added = 0, best = 0;
    double best_rate = MARGIN * t->tokens / seconds(t);
    for (int level = REACH_LEVELS; level > 0; level--)
        for (int i = 0; i < n_asks; i++) {
            bw_draft_ask *ask = &asks[i];
            while (is_auto(ask) && ask->n < ask->most && ask->reach[ask->n] * REACH_LEVELS >= (float)level) {
                if (added == most)
                    return best;
                add_draft(t, ask, ask->n++);
                added++;
                const double rate = t->tokens / seconds(t);
                if (rate > best_rate) {
                    best_rate = rate;
                    best = added;
                }
            }
        }
    return best;
}

/* ---- exploring ------------------------------------------------------------------------------- */

typedef enum variant { LONGER, NONE, SHORTER, N_VARIANTS, PROBE } variant;

static int varied(const bw_draft_ask *ask, variant v)
{
    if (!is_auto(ask))
        return ask->n;
    switch (v) {
    case LONGER: return ask->n > 0 ? smaller(ask->n + 1, ask->most) : 0;
    case SHORTER: return ask->n > 0 ? ask->n - 1 : 0;
    case PROBE: return ask->n > 0 ? ask->n : ask->policy->probing;
    default: return 0;
    }
}

static tally vary(const tally *best, const bw_draft_ask *asks, int n_asks, variant v)
{
    tally t = { .timing = best->timing, .n_seqs = n_asks, .depth = best->depth, .tokens = n_asks };
    for (int i = 0; i < n_asks; i++)
        for (int j = 0; j < varied(&asks[i], v); j++)
            add_draft(&t, &asks[i], j);
    return t;
}

/* Pays for it if the credit covers what it is expected to lose. */
static bool afford(bw_draft_planner *p, const tally *best, const tally *other, double debt)
{
    const double loss = seconds(other) - other->tokens * seconds(best) / best->tokens;
    if (loss > p->credit_s + debt * seconds(best))
        return false;
    if (loss > 0)
        p->credit_s -= loss;
    return true;
}

static void apply(bw_draft_ask *asks, int n_asks, variant v)
{
    for (int i = 0; i < n_asks; i++)
        asks[i].n = varied(&asks[i], v);
}

/* Steps without drafts until the next probe; few while hardly any were tried. */
static int wait_of(const bw_draft_policy *policy)
{
    return policy->record.tries[0] < MEMORY_OF_PROBES ? 2 : policy->wait;
}

/* Sequences that do not draft and have waited long enough try one, and those with them that waited half of it: a
 * run of the head is shared. True: some do. */
static bool probe(bw_draft_planner *p, const tally *best, bw_draft_ask *asks, int n_asks, int budget)
{
    bool due = false;
    for (int i = 0; i < n_asks; i++) {
        bw_draft_policy *policy = asks[i].policy;
        policy->probed = policy->probing;
        policy->probing = false;
        policy->idle = asks[i].n > 0 ? 0 : policy->idle + 1;
        due |= is_auto(&asks[i]) && asks[i].n == 0 && asks[i].most > 0 && policy->idle >= wait_of(policy);
    }
    if (!due)
        return false;
    int n_probes = 0;
    for (int i = 0; i < n_asks; i++) {
        bw_draft_policy *policy = asks[i].policy;
        policy->probing = is_auto(&asks[i]) && asks[i].n == 0 && asks[i].most > 0 &&
                          2 * policy->idle >= wait_of(policy) && best->drafts + n_probes < budget;
        n_probes += policy->probing;
    }
    const tally other = vary(best, asks, n_asks, PROBE);
    const bool can = n_probes > 0 && afford(p, best, &other, 0);
    if (can)
        apply(asks, n_asks, PROBE);
    for (int i = 0; i < n_asks; i++) {
        bw_draft_policy *policy = asks[i].policy;
        policy->probing &= can;
        if (!policy->probing)
            continue;
        for (int j = 0; j < BW_MAX_DRAFTS && policy->idle >= LAST_PROBE / 2; j++)
            fade(&policy->record, j, MEMORY_OF_PROBES);
        policy->idle = 0;
    }
    return can;
}

/* One length, for all that draft, whose time is old. */
static void explore(bw_draft_planner *p, const tally *best, bw_draft_ask *asks, int n_asks, int budget)
{
    for (int i = 0; i < N_VARIANTS; i++) {
        const variant v = (variant)((p->turn + i) % N_VARIANTS);
        const tally other = vary(best, asks, n_asks, v);
        const double measured = bw_timing_measured(&p->timing, n_asks, best->depth, other.drafts);
        const bool spare = v == LONGER && p->credit_s > SPARE * seconds(best);
        /* A single measurement may have been disturbed: the second is worth a debt. */
        if (other.drafts == best->drafts || other.drafts > budget || (measured >= FEW && !spare) ||
            !afford(p, best, &other, measured > 0 && measured <= 1 ? DEBT : 0))
            continue;
        apply(asks, n_asks, v);
        p->turn = (int)v + 1;
        return;
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

void bw_draft_init(bw_draft_policy *policy, int request)
{
    *policy = (bw_draft_policy){ .request = request, .wait = FIRST_PROBE };
}

void bw_draft_planner_init(bw_draft_planner *planner)
{
    *planner = (bw_draft_planner){ 0 };
    bw_timing_init(&planner->timing);
}

void bw_draft_plan(bw_draft_planner *p, bw_draft_ask *asks, int n_asks, int budget)
{
    if (n_asks == 0)
        return;
    const tally fixed = start_tally(&p->timing, asks, n_asks, &p->record);
    /* Carefully while little is known: of the times, and of what is accepted. */
    int room = smaller(budget, bw_timing_reach(&p->timing, n_asks, fixed.depth));
    room = smaller(room, (n_asks + 3) / 4 + 2 * (int)p->record.tries[0]) - fixed.drafts;
    if (room < 0)
        room = 0;
    tally t = fixed;
    const int n = grow(&t, asks, n_asks, room);
    for (int i = 0; i < n_asks; i++)
        if (is_auto(&asks[i]))
            asks[i].n = 0;
    t = fixed;
    grow(&t, asks, n_asks, n);
    if (!probe(p, &t, asks, n_asks, fixed.drafts + room) && n > 0) /* one thing at a time: a probe is paid for */
        explore(p, &t, asks, n_asks, fixed.drafts + room);
}

void bw_draft_learn(bw_draft_planner *planner, bw_draft_policy *policy, int n, int n_accepted)
{
    record(&planner->record, n, n_accepted, ENGINE_MEMORY);
    if (n == 0)
        return;
    record(&policy->record, n, n_accepted, MEMORY);
    doubt(policy, n_accepted > 0);
    if (!policy->probed)
        policy->wait = FIRST_PROBE;
    else if (n_accepted > 0)
        policy->wait = 1; /* again at once: it may have changed */
    else
        policy->wait = policy->wait < FIRST_PROBE ? FIRST_PROBE : smaller(2 * policy->wait, LAST_PROBE);
}

void bw_draft_learn_times(bw_draft_planner *planner, const bw_draft_times *times)
{
    double all = times->verify_s;
    for (int i = 0; i < times->n_runs; i++) {
        bw_timing_learn_head(&planner->timing, times->chains[i], times->run_s[i]);
        all += times->run_s[i];
    }
    if (!times->pure || times->n_seqs < 1)
        return;
    bw_timing_learn_verify(&planner->timing, times->n_seqs, times->depth, times->n_drafts, times->verify_s);
    planner->credit_s += (planner->credited ? EXPLORE : START_CREDIT) * all;
    planner->credited = true;
    if (planner->credit_s > MOST_CREDIT * all)
        planner->credit_s = MOST_CREDIT * all;
}
