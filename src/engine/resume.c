/* resume.c - between sequences and the prefix cache: where states are worth saving, how one is saved, how
 * a sequence begins with one.
 *
 * A saved state is the recurrent state of all layers, then the hidden row of the last position. With the
 * page that holds the last rows (copied, because the next rows differ) it puts a slot where the sequence
 * it came from was, bit for bit. One row is then missing: the head's keys and values at the last position are
 * made of its hidden row and of the token that follows it, so the next step makes them first.
 * Engine thread only. */
#include "engine/engine.h"

#include <assert.h>

/* Tokens of a long prompt between checkpoints, where memory allows. */
enum { CHECKPOINT_EVERY = 2048 };

static size_t hidden_bytes(const bw_engine *e)
{
    return (size_t)e->net->config->hidden * sizeof(float);
}

static int limit_of(const bw_sequence *s)
{
    return s->n_prefill - 1; /* one row at least is computed, for its logits */
}

bw_prefix_match bw_resume_look(bw_engine *e, const bw_sequence *s)
{
    bw_prefix_match match = { 0 };
    if (e->tree && s->cached && limit_of(s) > 0)
        bw_prefix_tree_find(e->tree, s->cache_salt, s->tokens, s->n_prefill, limit_of(s), &match, NULL);
    return match;
}

static void restore(bw_engine *e, bw_sequence *s, const bw_prefix_match *match)
{
    bw_backend *be = e->backend;
    const int page = bw_pages_take(e->pages);
    assert(page >= 0); /* the scheduler made room */
    bw_pages_copy(e->pages, page, match->tail_page);
    s->pages[match->n_shared] = page;
    s->n_pages = match->n_shared + 1;
    be->ops->upload(be, e->seqs.pages + (size_t)s->slot * (size_t)e->seqs.max_pages, s->pages,
                    (size_t)s->n_pages * sizeof *s->pages);
    bw_slots_restore(e->slots, s->slot, match->state);
    if (e->max_drafts > 0) {
        const char *hidden = (const char *)match->state + bw_slots_state_bytes(e->slots);
        be->ops->upload(be, e->resumed_hidden + (size_t)s->slot * (size_t)e->net->config->hidden, hidden, hidden_bytes(e));
        s->resume_at = match->position;
    }
    s->n_rows = match->position;
}

void bw_resume(bw_engine *e, bw_sequence *s)
{
    bw_prefix_match match = { .miss = BW_MISS_OFF };
    if (e->tree && s->cached) {
        match.miss = BW_MISS_NONE;
        if (limit_of(s) > 0)
            bw_prefix_tree_find(e->tree, s->cache_salt, s->tokens, s->n_prefill, limit_of(s), &match, s->pages);
        if (match.position > 0)
            restore(e, s, &match);
    }
    if (s->simulated_depth > 0)
        bw_simulate_fill(e, s);
    /* Two requests have now parted at miss_at: there a third one may begin. */
    s->fork_at = match.miss == BW_MISS_NO_CHECKPOINT && match.miss_at >= match.position + BW_PAGE ? match.miss_at : 0;
    if (s->started)
        return;
    s->usage.cached_tokens = match.position;
    s->usage.miss = match.miss;
    s->usage.miss_at = match.miss_at;
    e->stats.cached_tokens += match.position;
}

/* A long prompt may fill half of the checkpoints, not push out all conversations. */
static int spacing(const bw_engine *e, const bw_sequence *s)
{
    const int most = e->n_checkpoints / 2 > 0 ? e->n_checkpoints / 2 : 1;
    const int wanted = s->n_prefill / CHECKPOINT_EVERY;
    return CHECKPOINT_EVERY * (wanted > most ? (wanted + most - 1) / most : 1);
}

int bw_resume_next_mark(const bw_engine *e, const bw_sequence *s)
{
    if (!e->tree || !s->cached)
        return s->n_prefill;
    const int every = spacing(e, s);
    int next = (s->n_rows / every + 1) * every;
    for (int i = 0; i < s->n_marks; i++)
        if (s->marks[i] > s->n_rows && s->marks[i] < next)
            next = s->marks[i];
    if (s->fork_at > s->n_rows && s->fork_at < next)
        next = s->fork_at;
    return next < s->n_prefill ? next : s->n_prefill;
}

void bw_resume_save(bw_engine *e, const bw_sequence *s)
{
    if (!e->tree || !s->cached || s->n_rows < 1 || s->hidden_step != e->stats.steps ||
        bw_prefix_tree_has(e->tree, s->cache_salt, s->tokens, s->n_rows))
        return;
    void *state = bw_prefix_tree_reserve(e->tree, s->n_rows);
    if (!state)
        return;
    bw_backend *be = e->backend;
    char *hidden = (char *)state + bw_slots_state_bytes(e->slots);
    be->ops->download(be, hidden, e->buf.hidden + (size_t)s->hidden_row * (size_t)e->net->config->hidden, hidden_bytes(e));
    bw_slots_save(e->slots, s->slot, state); /* waits for both */
    bw_prefix_tree_add(e->tree, s->cache_salt, s->tokens, s->n_rows, s->pages, state);
}
