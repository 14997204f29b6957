/* The prefix tree against a plain list: sequences come, share beginnings, grow, save checkpoints and end,
 * with far too few pages and states for them. Every page row and saved state is marked with a hash of
 * the tokens it was made of, so that a wrong page, a stale one or a wrong state shows at once. */
#include "lib/check.h"

#include <stdlib.h>

#include "cache/prefix_tree.h"

enum { PAGES = 60, LONGEST = 600, SEQUENCES = 4, KEPT = 400, STATE = 40 };
#define BACK_AGAIN UINT64_MAX /* the salt of one evicted that was saved once more */

typedef struct row {
    uint64_t kv, mtp; /* of the tokens up to it, and up to the one after it */
} row;

typedef struct text {
    uint64_t salt;
    int n;
    int32_t tokens[LONGEST];
} text;

typedef struct sequence {
    bool alive;
    text text;
    int pages[LONGEST / BW_PAGE + 1], n_pages;
} sequence;

typedef struct kept {
    text text; /* n: the position */
    uint64_t last_use;
} kept;

static bw_backend *backend;
static bw_pages *pages;
static bw_prefix_tree *tree;
static row rows[PAGES][BW_PAGE];
static sequence sequences[SEQUENCES];
static kept list[KEPT]; /* what must be in the tree */
static int n_kept;
static uint64_t n_uses;
static int64_t n_evicted;
static text gone[KEPT]; /* the last evicted, a ring */
static int n_gone;
static int misses[BW_MISS_EVICTED + 1], n_hits, n_forgotten, n_refused; /* that every case came up */

static uint64_t hash_of(const text *t, int n)
{
    uint64_t h = 1469598103934665603u + t->salt;
    for (int i = 0; i < n; i++)
        h = (h ^ (uint64_t)(uint32_t)t->tokens[i]) * 1099511628211u;
    return h;
}

static bool begins_with(const text *t, const text *beginning)
{
    return t->salt == beginning->salt && t->n >= beginning->n &&
           memcmp(t->tokens, beginning->tokens, (size_t)beginning->n * sizeof(int32_t)) == 0;
}

static int common(const text *a, const text *b)
{
    int i = 0;
    while (a->salt == b->salt && i < a->n && i < b->n && a->tokens[i] == b->tokens[i])
        i++;
    return i;
}

/* The row of the last token gets its kv, that of the one before its mtp: as a step does. */
static void write_rows(sequence *s, int from, int to)
{
    for (int p = from; p < to; p++) {
        rows[s->pages[p / BW_PAGE]][p % BW_PAGE].kv = hash_of(&s->text, p + 1);
        if (p > 0)
            rows[s->pages[(p - 1) / BW_PAGE]][(p - 1) % BW_PAGE].mtp = hash_of(&s->text, p + 1);
    }
}

static int saved_by(const kept *k)
{
    int before = 0;
    for (int i = 0; i < n_kept; i++)
        if (list[i].text.n < k->text.n && list[i].text.n > before && begins_with(&k->text, &list[i].text))
            before = list[i].text.n;
    return k->text.n - before;
}

static double value_of(const kept *k)
{
    return saved_by(k) / (1.0 + (double)(n_uses - k->last_use));
}

static void used(const text *t, int position)
{
    n_uses++;
    for (int i = 0; i < n_kept; i++)
        if (list[i].text.n <= position && begins_with(t, &list[i].text))
            list[i].last_use = n_uses;
}

static bool is_there(const text *t)
{
    bw_prefix_match m;
    text longer = *t; /* a token more, so that the limit may be n */
    bw_prefix_tree_find(tree, t->salt, longer.tokens, t->n + 1, t->n, &m, NULL);
    return m.position == t->n;
}

/* Takes from the list what the tree no longer has; each time only the least valuable may have gone.
 * max_saved: what it may save at most. Several may go only for pages. */
static int follow_evictions(int max_saved, bool for_pages)
{
    int n = 0;
    for (int i = n_kept - 1; i >= 0; i--) {
        if (is_there(&list[i].text))
            continue;
        check(saved_by(&list[i]) <= max_saved);
        for (int j = 0; !for_pages && j < n_kept; j++)
            check(saved_by(&list[j]) > max_saved || value_of(&list[i]) <= value_of(&list[j]) * 1.000001);
        gone[n_gone++ % KEPT] = list[i].text;
        list[i] = list[--n_kept];
        n++;
    }
    n_evicted += n;
    bw_prefix_tree_stats stats;
    bw_prefix_tree_get_stats(tree, &stats);
    check_int(stats.checkpoints, n_kept);
    check_int(stats.evictions, n_evicted);
    return n;
}

static int take_page(void)
{
    if (bw_pages_free(pages) == 0) {
        bw_prefix_tree_stats before;
        bw_prefix_tree_get_stats(tree, &before);
        const int free_now = bw_prefix_tree_make_room(tree, 1);
        check_int(free_now, bw_pages_free(pages));
        check((free_now > 0) == (before.pages_alone > 0));
        follow_evictions(LONGEST, true);
    }
    return bw_pages_take(pages);
}

static void end(sequence *s)
{
    for (int i = 0; i < s->n_pages; i++)
        bw_pages_release(pages, s->pages[i]);
    s->alive = false;
    s->n_pages = 0;
}

static bool grow(sequence *s, int n)
{
    const int from = s->text.n;
    for (; s->n_pages * BW_PAGE < n; s->n_pages++)
        if ((s->pages[s->n_pages] = take_page()) < 0)
            return false;
    for (int i = from; i < n; i++)
        s->text.tokens[i] = rnd_int(0, 1);
    s->text.n = n;
    write_rows(s, from, n);
    return true;
}

/* A text that has much in common with what was there before. */
static void write_text(text *t)
{
    t->salt = (uint64_t)rnd_int(0, 2) * 0x123456789ABCu;
    t->n = rnd_int(1, rnd_int(0, 2) ? 200 : LONGEST - 100);
    for (int i = 0; i < t->n; i++)
        t->tokens[i] = rnd_int(0, 1);
    const text *other = NULL;
    if (rnd_int(0, 4) > 0 && n_kept > 0)
        other = &list[rnd_int(0, n_kept - 1)].text;
    else if (rnd_int(0, 1) > 0 && n_gone > 0)
        other = &gone[rnd_int(0, (n_gone < KEPT ? n_gone : KEPT) - 1)];
    if (!other)
        return;
    if (other->salt != BACK_AGAIN)
        t->salt = other->salt;
    const int n = rnd_int(0, 2) ? other->n : rnd_int(1, other->n);
    memcpy(t->tokens, other->tokens, (size_t)n * sizeof(int32_t));
    if (rnd_int(0, 2) == 0 && n < LONGEST)
        t->n = n + 1;
    if (rnd_int(0, 2) == 0 && n + 30 < LONGEST - 100)
        t->n = n + rnd_int(1, 30);
}

static void check_miss(const text *t, int limit, const bw_prefix_match *m)
{
    int known = 0, evicted = 0;
    for (int i = 0; i < n_kept; i++) {
        /* a checkpoint's tokens are all known: whole pages with the next one, and its tail */
        const int n = common(t, &list[i].text);
        known = n > known ? n : known;
    }
    known = known > limit ? limit : known;
    for (int i = 0; i < (n_gone < KEPT ? n_gone : KEPT); i++)
        if (gone[i].n <= limit && gone[i].n > m->position && begins_with(t, &gone[i]) && gone[i].n > evicted)
            evicted = gone[i].n;
    if (m->position == limit) {
        check_int(m->miss, BW_MISS_NONE);
    } else if (m->miss == BW_MISS_EVICTED) {
        check(m->miss_at > m->position && m->miss_at <= limit);
        if (n_gone <= KEPT)
            check(m->miss_at <= evicted);
        n_forgotten += m->miss_at < evicted;
    } else {
        n_forgotten += evicted > 0; /* two in one place: seldom */
        check_int(m->miss, known > m->position ? BW_MISS_NO_CHECKPOINT : BW_MISS_DIFFERS);
        check_int(m->miss_at, known);
    }
}

static void check_match(const text *t, int limit, const bw_prefix_match *m, const int *shared)
{
    int best = 0;
    for (int i = 0; i < n_kept; i++)
        if (list[i].text.n <= limit && list[i].text.n > best && begins_with(t, &list[i].text))
            best = list[i].text.n;
    check_int(m->position, best);
    check_miss(t, limit, m);
    if (best == 0)
        return;
    check_int(m->n_shared, (best - 1) / BW_PAGE);
    check_int((uintptr_t)m->state % 64, 0);
    uint64_t marks[STATE / 8];
    memcpy(marks, m->state, STATE);
    for (int i = 0; i < STATE / 8; i++)
        check(marks[i] == hash_of(t, best) + (uint64_t)i);
    for (int p = 0; p < best; p++) {
        if (!shared && p / BW_PAGE < m->n_shared)
            continue;
        const row *r = &rows[p / BW_PAGE < m->n_shared ? shared[p / BW_PAGE] : m->tail_page][p % BW_PAGE];
        check(r->kv == hash_of(t, p + 1));
        if (p < best - 1)
            check(r->mtp == hash_of(t, p + 2));
    }
}

static void start(sequence *s)
{
    write_text(&s->text);
    text *t = &s->text;
    const int limit = rnd_int(0, 3) ? t->n - 1 : rnd_int(0, t->n - 1);
    bw_prefix_match look, m;
    bw_prefix_tree_find(tree, t->salt, t->tokens, t->n, limit, &look, NULL);
    check_match(t, limit, &look, NULL);
    bw_prefix_tree_find(tree, t->salt, t->tokens, t->n, limit, &m, s->pages);
    check_match(t, limit, &m, s->pages);
    misses[m.miss]++;
    n_hits += m.position > 0;
    check(look.position == m.position && look.miss == m.miss && look.miss_at == m.miss_at);
    if (m.position > 0)
        used(t, m.position);
    s->alive = true;
    s->n_pages = m.n_shared;
    if (m.position > 0) {
        bw_pages_share(pages, m.tail_page); /* so that making room for its copy does not take it */
        const int page = take_page();
        if (page >= 0) {
            bw_pages_copy(pages, page, m.tail_page);
            memcpy(rows[page], rows[m.tail_page], sizeof rows[page]);
            s->pages[s->n_pages++] = page;
        }
        bw_pages_release(pages, m.tail_page);
        if (page < 0) {
            end(s);
            return;
        }
    }
    for (; s->n_pages * BW_PAGE < t->n; s->n_pages++)
        if ((s->pages[s->n_pages] = take_page()) < 0) {
            end(s);
            return;
        }
    write_rows(s, m.position, t->n);
}

static void save(sequence *s)
{
    text *t = &s->text;
    bool want = false;
    for (int i = 0; i < n_kept; i++)
        want = want || (list[i].text.n == t->n && begins_with(t, &list[i].text));
    const bool has = bw_prefix_tree_has(tree, t->salt, t->tokens, t->n);
    check_int(has, want);
    if (has) {
        used(t, t->n);
        return;
    }
    uint64_t *state = bw_prefix_tree_reserve(tree, t->n);
    if (state && rnd_int(0, 20) == 0) {
        bw_prefix_tree_give_up(tree, state);
        follow_evictions(t->n, false);
        return;
    }
    if (!state) {
        n_refused++;
        check_int(follow_evictions(0, false), 0);
        for (int i = 0; i < n_kept; i++)
            check(saved_by(&list[i]) > t->n);
        return;
    }
    for (int i = 0; i < STATE / 8; i++)
        state[i] = hash_of(t, t->n) + (uint64_t)i;
    bw_prefix_tree_add(tree, t->salt, t->tokens, t->n, s->pages, state);
    check(n_kept < KEPT);
    /* what reserve evicted is found by its absence, before the new one counts as a use */
    for (int i = n_kept - 1; i >= 0; i--)
        if (!is_there(&list[i].text)) {
            check(saved_by(&list[i]) <= t->n);
            for (int j = 0; j < n_kept; j++)
                check(saved_by(&list[j]) > t->n || value_of(&list[i]) <= value_of(&list[j]) * 1.000001);
            gone[n_gone++ % KEPT] = list[i].text;
            list[i] = list[--n_kept];
            n_evicted++;
            break;
        }
    list[n_kept++].text = *t;
    used(t, t->n);
    for (int i = 0; i < (n_gone < KEPT ? n_gone : KEPT); i++)
        if (gone[i].n == t->n && begins_with(t, &gone[i]))
            gone[i].salt = BACK_AGAIN;
}

static void check_pages(void)
{
    int references[PAGES] = { 0 }, held = 0, alone = 0;
    for (int i = 0; i < SEQUENCES; i++)
        for (int j = 0; j < sequences[i].n_pages; j++)
            references[sequences[i].pages[j]]++;
    for (int page = 0; page < PAGES; page++) {
        check(bw_pages_holders(pages, page) >= references[page]);
        held += bw_pages_holders(pages, page) > 0;
        alone += references[page] == 0 && bw_pages_holders(pages, page) > 0;
    }
    check_int(bw_pages_free(pages), PAGES - held);
    bw_prefix_tree_stats stats;
    bw_prefix_tree_get_stats(tree, &stats);
    check_int(stats.pages_alone, alone);
    check_int(stats.checkpoints, n_kept);
    const char *wrong = bw_prefix_tree_check(tree);
    check_that(!wrong, "%s", wrong);
}

static void run_with(int n_states, int n_steps)
{
    static const bw_attn_shape shape = { .n_heads = 1, .n_kv_heads = 1, .head_dim = 8 };
    bw_error err;
    check_ok(bw_cpu_backend_create(&backend, 1, "ref", &err), err);
    check_ok(bw_pages_create(&pages, backend, BW_CODEC_F16, &shape, 1, PAGES, &err), err);
    check_ok(bw_prefix_tree_create(&tree, pages, PAGES, STATE, (uint64_t)n_states * 64, &err), err);
    n_kept = n_gone = 0;
    n_uses = 0;
    n_evicted = 0;
    memset(misses, 0, sizeof misses);
    n_hits = n_forgotten = n_refused = 0;
    for (int i = 0; i < n_steps; i++) {
        sequence *s = &sequences[rnd_int(0, SEQUENCES - 1)];
        if (!s->alive)
            start(s);
        else if (rnd_int(0, 4) == 0)
            end(s);
        else if (rnd_int(0, 1))
            save(s);
        else if (s->text.n + 70 < LONGEST && !grow(s, s->text.n + rnd_int(1, 70)))
            end(s);
        check_pages();
    }
    for (int i = 0; i < SEQUENCES; i++)
        end(&sequences[i]);
    check_pages();
    check_int(bw_prefix_tree_make_room(tree, PAGES), PAGES); /* the tree gives everything */
    follow_evictions(LONGEST, true);
    check_int(n_kept, 0);
    check_pages();
    check_that(n_forgotten * 100 <= misses[BW_MISS_EVICTED], "%d of %d evicted beginnings were forgotten",
               n_forgotten, misses[BW_MISS_EVICTED]);
    const int enough = n_steps / 200; /* the run met every case */
    check(n_states == 1 || (n_hits > enough && n_evicted > enough && misses[BW_MISS_NONE] > enough &&
                            misses[BW_MISS_DIFFERS] > enough && misses[BW_MISS_NO_CHECKPOINT] > enough &&
                            misses[BW_MISS_EVICTED] > enough));
    check(n_states == KEPT - 1 || n_refused > enough);
    bw_prefix_tree_destroy(tree);
    check_int(bw_pages_free(pages), PAGES);
    bw_pages_destroy(pages);
    backend->ops->destroy(backend);
}

static int steps(void)
{
    return sanitized() ? 3000 : 12000;
}

TEST(with_few_states_the_tree_is_the_list)
{
    run_with(5, steps());
}

TEST(with_states_enough_pages_are_short)
{
    run_with(KEPT - 1, steps());
}

TEST(with_one_state_the_tree_is_the_list)
{
    run_with(1, steps() / 4);
}

TESTS_MAIN(ENTRY(with_few_states_the_tree_is_the_list), ENTRY(with_states_enough_pages_are_short),
           ENTRY(with_one_state_the_tree_is_the_list))
