/* scheduler.c - who runs in the next step, with how many rows, in whose memory.
 *
 * 1. What waits is started while there is a slot, and pages for its prompt beside those of the prompts that
 *    are still being computed: by priority, then age. It waits on behind a running prefill that is about to
 *    save a state it could begin with.
 * 2. Every running sequence decodes. What the pace leaves of the step goes to prefill, least remaining
 *    first; each step that leaves a sequence out counts as a page done, so nobody starves.
 * 3. Pages for these rows, oldest sequence first. Where none is left the prefix cache gives way, then the
 *    youngest sequence: its state goes to the cache, its memory to the others, and it waits again, to be
 *    computed to where it was. The oldest never gives way and the pool holds a full context, so there is
 *    always one that gets on.
 * Engine thread only; allocates nothing. */
#include "engine/engine.h"

#include <assert.h>
#include <string.h>

#include "base/clock.h"

/* Of waiting prompts, in one step: a fraction of a millisecond. */
enum { LOOK_TOKENS = 65536 };

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static int pages_for(int n_positions)
{
    return (n_positions + BW_PAGE - 1) / BW_PAGE;
}

/* ---- giving way ------------------------------------------------------------------------------ */

void bw_schedule_leave(bw_engine *e, bw_sequence *s)
{
    for (int i = 0; i < s->n_pages; i++)
        bw_pages_release(e->pages, s->pages[i]);
    bw_slots_release(e->slots, s->slot);
    s->n_pages = 0;
    s->pages = NULL;
    s->slot = -1;
    bw_sequence_list_remove(&e->running, s);
    bw_sequence_list_add(&e->waiting, s);
}

static void preempt(bw_engine *e, bw_sequence *s)
{
    if (!bw_sequence_in_prompt(s))
        bw_step_flush(e, &s->slot, 1);
    bw_resume_save(e, s);
    bw_schedule_leave(e, s);
    s->n_prefill = bw_sequence_known(s);
    s->n_rows = s->n_drafts = s->resume_at = s->plan_rows = 0;
    s->usage.preemptions++;
    e->stats.preemptions++;
    e->last_step.n_preempted++;
}

/* The youngest of those that are paused, or of those that are not. */
static bw_sequence *youngest(bw_engine *e, bool paused)
{
    for (int i = e->running.n - 1; i >= 0; i--)
        if (e->running.items[i]->paused == paused)
            return e->running.items[i];
    return NULL;
}

/* ---- 1. what waits --------------------------------------------------------------------------- */

/* Tokens that a and b begin with alike. */
static int common(const bw_sequence *a, const bw_sequence *b)
{
    const int most = smaller(a->n_prefill, b->n_prefill);
    int n = 0;
    while (n < most && a->tokens[n] == b->tokens[n])
        n++;
    return n;
}

/* r computes a prompt for all to see. */
static bool prefills(const bw_sequence *r)
{
    return r->slot >= 0 && !r->paused && r->cached && bw_sequence_in_prompt(r);
}

/* A running prefill will soon save a state at least a page deeper than `position`, where s would begin now:
 * then s waits behind it. */
static bool better_later(bw_engine *e, bw_sequence *s, int position)
{
    for (int i = 0; e->tree && s->cached && i < e->running.n; i++) {
        const bw_sequence *r = e->running.items[i];
        if (!prefills(r) || r->cache_salt != s->cache_salt)
            continue;
        const int mark = bw_resume_next_mark(e, r);
        if (mark >= r->n_prefill || mark >= s->n_prefill || mark < position + BW_PAGE ||
            memcmp(r->tokens, s->tokens, (size_t)mark * sizeof *s->tokens) != 0)
            continue;
        s->behind = r;
        s->behind_id = r->id;
        s->behind_shared = smaller(common(r, s), s->n_prefill - 1);
        return true;
    }
    return false;
}

/* Whether s waits on behind the one it was found to wait behind: a look that costs nothing, for thousands. */
static bool still_behind(bw_engine *e, bw_sequence *s)
{
    const bw_sequence *r = s->behind;
    if (r && r->id == s->behind_id && prefills(r)) {
        const int mark = bw_resume_next_mark(e, r);
        if (mark < r->n_prefill && mark <= s->behind_shared)
            return true;
    }
    s->behind = NULL;
    return false;
}

/* Pages that s is still to get: for its prompt, and one more if its answer may grow into it. */
static int pages_to_come(const bw_sequence *s)
{
    const int prompt = pages_for(s->n_prefill), held = s->n_pages, all = pages_for(s->n_prompt + s->max_tokens);
    const int soon = smaller((prompt > held ? prompt : held) + 1, all);
    return soon > held ? soon - held : 0;
}

/* Room for s beside what those that run are still to get, so that a start does not preempt at once. Pages of
 * the cache count as free, but for those that s would begin with. */
static bool has_room(bw_engine *e, const bw_sequence *s, const bw_prefix_match *match)
{
    if (e->running.n == 0)
        return true;
    bw_prefix_tree_stats cached = { 0 };
    if (e->tree)
        bw_prefix_tree_get_stats(e->tree, &cached);
    int64_t wanted = pages_to_come(s) - match->n_shared + match->n_alone;
    for (int i = 0; i < e->running.n; i++)
        wanted += pages_to_come(e->running.items[i]);
    return wanted <= bw_pages_free(e->pages) + cached.pages_alone;
}

static void start(bw_engine *e, bw_sequence *s)
{
    bw_backend *be = e->backend;
    s->slot = bw_slots_take(e->slots);
    assert(s->slot >= 0);
    s->pages = e->page_arrays + (size_t)s->slot * (size_t)e->seqs.max_pages;
    s->n_pages = s->n_rows = s->n_drafts = s->resume_at = s->age = 0;
    s->hidden_step = -1;
    s->behind = NULL;
    bw_sequence_list_remove(&e->waiting, s);
    bw_sequence_list_add(&e->running, s);
    be->ops->upload(be, e->seqs.samplers + s->slot, &s->sampler, sizeof s->sampler);
    be->ops->upload(be, e->seqs.biases + (size_t)s->slot * BW_MAX_LOGIT_BIAS, s->biases,
                    (size_t)s->sampler.n_biases * sizeof *s->biases);
    be->ops->upload(be, e->seqs.tokens + (size_t)s->slot * (size_t)e->seqs.context, s->tokens,
                    (size_t)s->n_prefill * sizeof *s->tokens);
    be->ops->zero(be, e->seqs.accepted + s->slot, sizeof *e->seqs.accepted);
    if (e->tree && bw_pages_free(e->pages) == 0)
        bw_prefix_tree_make_room(e->tree, 1);
    bw_resume(e, s);
    bw_draft_list *list = &e->draft_lists[s->slot];
    bw_draft_list_init(list, e->draft_vocab.n_first, e->n_tokens);
    bw_draft_list_fix(list, e->added, e->n_added);
    bw_draft_list_fix(list, s->stop_tokens, s->n_stop_tokens);
    bw_loop_guard_init(&e->guards[s->slot]);
    for (int i = 0; s->loop_guard && i < s->n_generated; i++)
        bw_loop_guard_push(&e->guards[s->slot], s->tokens[s->n_prompt + i]);
    if (s->started)
        return;
    s->started = true;
    s->usage.queue_s = (double)(bw_clock_ns() - s->submitted_ns) * 1e-9;
    e->stats.prompt_tokens += s->n_prompt;
}

/* s, which is not to wait behind another, starts if it can. False: there is no room for it. */
static bool start_one(bw_engine *e, bw_sequence *s, const bw_prefix_match *match)
{
    /* One that is paused keeps its place only while nobody needs it. */
    for (bw_sequence *idle; bw_slots_free(e->slots) == 0 || !has_room(e, s, match); preempt(e, idle))
        if (!(idle = youngest(e, true)))
            return false;
    start(e, s);
    return true;
}

/* Looking for what the cache has of a prompt takes time in proportion to it, so a step looks for some. */
static void start_waiting(bw_engine *e)
{
    const int n = e->waiting.n;
    int64_t looked_at = 0;
    if (n > 0)
        memcpy(e->queue, e->waiting.items, (size_t)n * sizeof *e->queue); /* the list changes as they start */
    for (int i = 0; i < n && looked_at < LOOK_TOKENS && (bw_slots_free(e->slots) > 0 || youngest(e, true)); i++) {
        bw_sequence *s = e->queue[i];
        if (s->paused || still_behind(e, s))
            continue;
        const bw_prefix_match match = bw_resume_look(e, s);
        looked_at += s->n_prefill;
        if (!better_later(e, s, match.position) && !start_one(e, s, &match))
            return; /* those behind it wait with it: a large request is not overtaken for ever */
    }
}

/* ---- 2. rows --------------------------------------------------------------------------------- */

static void list_running(bw_engine *e)
{
    e->n_order = 0;
    for (int i = 0; i < e->running.n; i++) {
        bw_sequence *s = e->running.items[i];
        s->plan_rows = s->plan_chain = 0;
        if (!s->paused)
            e->order[e->n_order++] = s;
    }
}

/* The most drafts for the step after this one. However many of this step's rows are accepted, the next verify fits
 * the context; share_decode() cuts it to the tokens that are still wanted then. */
static int chain_room(const bw_engine *e, const bw_sequence *s)
{
    const int last_position = s->n_rows + s->plan_rows; /* of the token sampled after full acceptance */
    int n = smaller(e->max_drafts, e->options.context - 1 - last_position);
    n = smaller(n, s->max_tokens - (s->n_generated + 1) - 1);
    return n > 0 ? n : 0;
}

/* Its next token is sampled in this step, and drafts may follow it. */
static bool may_draft(const bw_sequence *s)
{
    return s->plan_rows > 0 && s->n_rows + s->plan_rows >= s->n_prefill;
}

static void plan_chains(bw_engine *e)
{
    int n = 0;
    for (int i = 0; i < e->n_order; i++) {
        bw_sequence *s = e->order[i];
        if (may_draft(s))
            e->asks[n++] = (bw_draft_ask){ .policy = &s->policy, .depth = s->n_rows, .most = chain_room(e, s) };
    }
    bw_draft_plan(&e->planner, e->asks, n, n * e->max_drafts);
    for (int i = 0, k = 0; i < e->n_order; i++) {
        bw_sequence *s = e->order[i];
        if (!may_draft(s))
            continue;
        s->plan_chain = s->n_wanted = e->asks[k++].n;
        if (s->n_generated == 0 && s->plan_chain < s->n_draft_logits)
            s->plan_chain = s->n_draft_logits; /* evaluation; bw_engine_submit checked that they fit */
    }
}

/* The known token and its drafts, of every sequence past its prompt. Returns their rows. */
static int share_decode(bw_engine *e)
{
    int rows = 0;
    for (int i = 0; i < e->n_order; i++) {
        bw_sequence *s = e->order[i];
        if (bw_sequence_in_prompt(s))
            continue;
        int drafts = smaller(s->n_drafts, s->max_tokens - s->n_generated - 1);
        drafts = smaller(drafts, e->options.context - 1 - s->n_rows);
        s->n_drafts = drafts > 0 ? drafts : 0;
        s->plan_rows = 1 + s->n_drafts;
        rows += s->plan_rows;
    }
    return rows;
}

static int64_t prefill_key(const bw_sequence *s)
{
    return (int64_t)(s->n_prefill - s->n_rows) - (int64_t)BW_PAGE * s->age;
}

/* The prefilling ones of e->order into e->queue, the one to serve first in front. */
static int list_prefill(bw_engine *e)
{
    int n = 0;
    for (int i = 0; i < e->n_order; i++) {
        bw_sequence *s = e->order[i];
        if (!bw_sequence_in_prompt(s))
            continue;
        int at = n++;
        for (; at > 0 && prefill_key(s) < prefill_key(e->queue[at - 1]); at--)
            e->queue[at] = e->queue[at - 1];
        e->queue[at] = s;
    }
    return n;
}

static void share_prefill(bw_engine *e, int room)
{
    const int n = list_prefill(e), chunk = e->options.chunk;
    for (int i = 0; i < n; i++) {
        bw_sequence *s = e->queue[i];
        int end = bw_resume_next_mark(e, s);
        if (chunk > 0)
            end = smaller(end, (s->n_rows / chunk + 1) * chunk);
        s->plan_rows = smaller(end - s->n_rows, room);
        room -= s->plan_rows;
        if (s->plan_rows == 0)
            s->age++;
    }
}

static void share_rows(bw_engine *e)
{
    const int decode_rows = share_decode(e);
    int room = e->limits.max_rows - decode_rows;
    if (decode_rows > 0)
        room = smaller(room, bw_pace_prefill_rows(&e->pace, decode_rows));
    share_prefill(e, room);
    if (e->max_drafts > 0)
        plan_chains(e);
}

/* ---- 3. pages -------------------------------------------------------------------------------- */

/* Whether there is a free page now, or was made. */
static bool free_a_page(bw_engine *e)
{
    return bw_pages_free(e->pages) > 0 || (e->tree && bw_prefix_tree_make_room(e->tree, 1) > 0);
}

/* Pages for what s computes in this step; others give way for it, or it does itself. */
static void hold_pages(bw_engine *e, bw_sequence *s)
{
    const int wanted = pages_for(s->n_rows + s->plan_rows + s->plan_chain), first = s->n_pages;
    assert(wanted <= e->seqs.max_pages);
    while (s->n_pages < wanted) {
        while (!free_a_page(e)) {
            bw_sequence *victim = youngest(e, true);
            if (!victim)
                victim = youngest(e, false);
            preempt(e, victim);
            if (victim == s)
                return;
        }
        s->pages[s->n_pages++] = bw_pages_take(e->pages);
    }
    if (wanted > first)
        e->backend->ops->upload(e->backend, e->seqs.pages + (size_t)s->slot * (size_t)e->seqs.max_pages + first,
                                s->pages + first, (size_t)(wanted - first) * sizeof(int32_t));
}

void bw_schedule(bw_engine *e)
{
    start_waiting(e);
    list_running(e);
    share_rows(e);
    for (int i = 0; i < e->n_order; i++) /* oldest first: who gives way comes later, with no rows planned */
        if (e->order[i]->slot >= 0 && e->order[i]->plan_rows > 0)
            hold_pages(e, e->order[i]);
}
