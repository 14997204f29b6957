/* step.c - a step as a program of operations. Nothing is read on the host before the sync at its
 * end: what was sampled and accepted stays in backend memory for the operations that follow. */
#include "engine/engine.h"

#include "base/clock.h"

/* Tables planned on the host, to backend memory. */
static void upload_tables(bw_engine *e)
{
    bw_backend *be = e->backend;
    const bw_step *h = &e->host, *d = &e->device;
    be->ops->upload(be, d->rows, h->rows, (size_t)h->n_rows * sizeof *h->rows);
    be->ops->upload(be, d->spans, h->spans, (size_t)h->n_spans * sizeof *h->spans);
    be->ops->upload(be, d->logit_index, h->logit_index, (size_t)h->n_logits * sizeof *h->logit_index);
    be->ops->upload(be, d->logit_rows, h->logit_rows, (size_t)h->n_logits * sizeof *h->logit_rows);
    be->ops->upload(be, d->scored_index, h->scored_index, (size_t)h->n_scored * sizeof *h->scored_index);
    be->ops->upload(be, d->scored_rows, h->scored_rows, (size_t)h->n_scored * sizeof *h->scored_rows);
    be->ops->upload(be, d->chain_spans, h->chain_spans, (size_t)h->n_chains * sizeof *h->chain_spans);
}

/* A block of logits at a time. */
static void sample_rows(bw_engine *e)
{
    bw_backend *be = e->backend;
    const bw_step *d = &e->device;
    const bw_results *r = &e->device_result;
    const bool wanted = e->host.logprobs;
    for (int first = 0; first < e->host.n_logits; first += e->limits.max_logits) {
        int n = e->host.n_logits - first;
        n = n < e->limits.max_logits ? n : e->limits.max_logits;
        bw_forward_logits(e->net, be, &e->buf, d->logit_index + first, n);
        be->ops->sample(be, &(bw_sample_args){ .seqs = &e->seqs, .rows = d->logit_rows + first, .n_rows = n, .ahead = 1,
                                               .logits = e->buf.logits, .vocab = e->limits.vocab,
                                               .n_tokens = e->n_tokens, .holes = e->holes, .n_holes = e->n_holes,
                                               .tokens = r->sampled + first, .damaged = r->damaged + first,
                                               .logprobs = wanted ? r->logprobs + first : NULL,
                                               .top = wanted ? r->top + (size_t)first * BW_MAX_LOGPROBS : NULL,
                                               .max_top = BW_MAX_LOGPROBS });
    }
}

/* Prompt rows that evaluation wants, a block of logits at a time. */
static void score_rows(bw_engine *e)
{
    bw_backend *be = e->backend;
    const bw_step *h = &e->host;
    const size_t vocab = (size_t)e->limits.vocab;
    for (int first = 0; first < h->n_scored; first += e->limits.max_logits) {
        int n = h->n_scored - first;
        n = n < e->limits.max_logits ? n : e->limits.max_logits;
        bw_forward_logits(e->net, be, &e->buf, e->device.scored_index + first, n);
        be->ops->score(be, &(bw_score_args){ .seqs = &e->seqs, .rows = e->device.scored_rows + first, .n_rows = n,
                                             .logits = e->buf.logits, .vocab = e->limits.vocab, .n_tokens = e->n_tokens,
                                             .out = e->device_result.scores + first,
                                             .top = e->device_result.score_top + (size_t)first * BW_MAX_LOGPROBS,
                                             .max_top = BW_MAX_LOGPROBS });
        for (int i = 0; i < n; i++) {
            const bw_sequence *s = h->scored_owners[first + i];
            if (s->prompt_logits)
                be->ops->download(be, s->prompt_logits + (size_t)h->scored_rows[first + i].pos * vocab,
                                  e->buf.logits + (size_t)i * vocab, vocab * sizeof(float));
        }
    }
    be->ops->download(be, e->result.scores, e->device_result.scores, (size_t)h->n_scored * sizeof(float));
    be->ops->download(be, e->result.score_top, e->device_result.score_top,
                      (size_t)h->n_scored * BW_MAX_LOGPROBS * sizeof *e->result.score_top);
}

static void accept_drafts(bw_engine *e)
{
    e->backend->ops->accept(e->backend, &(bw_accept_args){
        .seqs = &e->seqs, .spans = e->device.spans, .n_spans = e->host.n_spans,
        .sampled = e->device_result.sampled, .imposed = bw_simulate_imposed(e),
        .n_accepted = e->device_result.n_accepted,
        .draft_spans = e->device.chain_spans, .n_draft_spans = e->host.n_chains, .draft_index = e->draft_index,
        .draft_rows = e->draft_rows });
}

/* The j-th draft of the first n chains: logits are there; choose and put into the timeline. */
static void draft_tokens(bw_engine *e, int j, int n, const bw_draft_vocab *only)
{
    bw_backend *be = e->backend;
    const size_t vocab = (size_t)e->limits.vocab;
    for (int i = 0; i < n; i++) {
        const bw_sequence *s = e->host.owners[e->host.chain_spans[i]];
        if (j < s->n_draft_logits && s->n_generated == 0)
            be->ops->download(be, s->draft_logits + (size_t)j * vocab, e->buf.logits + (size_t)i * vocab,
                              vocab * sizeof(float));
    }
    be->ops->sample(be, &(bw_sample_args){ .seqs = &e->seqs, .rows = e->draft_rows, .n_rows = n, .ahead = 2,
                                           .logits = e->buf.logits, .only = only, .vocab = e->limits.vocab,
                                           .n_tokens = e->n_tokens, .holes = e->holes, .n_holes = e->n_holes,
                                           .tokens = e->draft_sampled });
    be->ops->push_drafts(be, &e->seqs, e->draft_rows, e->draft_sampled, n);
}

/* Seconds since *mark, which moves to now. Operations of a CPU run when they are called; a backend that enqueues
 * them will need an event of its stream here. */
static double lap(uint64_t *mark)
{
    const uint64_t now = bw_clock_ns(), since = now - *mark;
    *mark = now;
    return (double)since * 1e-9;
}

/* What the step's drafts are chosen from; NULL: all tokens, as an evaluation of the head wants for its first chain. */
static const bw_draft_vocab *draft_vocab(const bw_engine *e)
{
    for (int i = 0; i < e->host.n_chains; i++) {
        const bw_sequence *s = e->host.owners[e->host.chain_spans[i]];
        if (s->n_draft_logits > 0 && s->n_generated == 0)
            return NULL;
    }
    return e->draft_vocab.n_first > 0 ? &e->draft_vocab : NULL;
}

static void run_drafts(bw_engine *e, const bw_batch *batch)
{
    const bw_step *h = &e->host;
    const bw_draft_vocab *only = draft_vocab(e);
    bw_forward_mtp_rows(e->net, e->backend, batch, &e->buf);
    uint64_t mark = bw_clock_ns();
    for (int j = 0, n = h->n_chains; j < h->longest_chain; j++) {
        while (h->chain_lengths[n - 1] <= j)
            n--;
        if (j == 0)
            bw_forward_mtp_first(e->net, e->backend, batch, &e->buf, e->draft_index, e->draft_rows, n, only);
        else
            bw_forward_mtp_next(e->net, e->backend, batch, &e->buf, e->draft_rows, n, only);
        draft_tokens(e, j, n, only);
        e->times.chains[e->times.n_runs] = n;
        e->times.run_s[e->times.n_runs++] = lap(&mark);
    }
}

static void download_results(bw_engine *e)
{
    bw_backend *be = e->backend;
    const bw_step *h = &e->host;
    const size_t n = (size_t)h->n_logits;
    be->ops->download(be, e->result.sampled, e->device_result.sampled, n * sizeof *e->result.sampled);
    be->ops->download(be, e->result.damaged, e->device_result.damaged, n * sizeof *e->result.damaged);
    be->ops->download(be, e->result.n_accepted, e->device_result.n_accepted,
                      (size_t)h->n_spans * sizeof *e->result.n_accepted);
    if (h->logprobs) {
        be->ops->download(be, e->result.logprobs, e->device_result.logprobs, n * sizeof *e->result.logprobs);
        be->ops->download(be, e->result.top, e->device_result.top, n * BW_MAX_LOGPROBS * sizeof *e->result.top);
    }
}

/* The row before the first of each resumed sequence, from its saved hidden row. */
static void resume_head(bw_engine *e, const bw_batch *batch)
{
    bw_backend *be = e->backend;
    const bw_step *h = &e->host, *d = &e->device;
    const int n = h->n_resumed;
    be->ops->upload(be, d->resumed_rows, h->resumed_rows, (size_t)n * sizeof *h->resumed_rows);
    be->ops->upload(be, d->resumed_slots, h->resumed_slots, (size_t)n * sizeof *h->resumed_slots);
    be->ops->gather(be, e->buf.picked, e->resumed_hidden, d->resumed_slots, n, e->net->config->hidden);
    bw_forward_mtp_redo(e->net, be, batch, &e->buf, e->buf.picked, d->resumed_rows, n);
}

static bw_batch batch_of(bw_engine *e)
{
    return (bw_batch){ .seqs = &e->seqs, .rows = e->device.rows, .spans = e->device.spans, .n_rows = e->host.n_rows,
                       .n_spans = e->host.n_spans, .kv = bw_pages_layers(e->pages), .gdn = bw_slots_layers(e->slots) };
}

void bw_step_flush(bw_engine *e, const int *slots, int n_slots)
{
    bw_backend *be = e->backend;
    if (n_slots == 0)
        return;
    for (int i = 0; i < n_slots; i++)
        e->host.flush_spans[i] = (bw_span){ .slot = slots[i] };
    be->ops->upload(be, e->device.flush_spans, e->host.flush_spans, (size_t)n_slots * sizeof *e->host.flush_spans);
    const bw_batch batch = { .seqs = &e->seqs, .spans = e->device.flush_spans, .n_spans = n_slots,
                             .gdn = bw_slots_layers(e->slots) };
    bw_forward_flush(e->net, be, &batch);
    be->ops->accept(be, &(bw_accept_args){ .seqs = &e->seqs, .spans = e->device.flush_spans, .n_spans = n_slots,
                                           .n_accepted = e->device_result.n_accepted });
    be->ops->sync(be);
}

void bw_step_run(bw_engine *e)
{
    const bw_batch batch = batch_of(e);
    e->times.n_runs = 0;
    upload_tables(e);
    bw_simulate_plan(e);
    if (e->host.mtp && e->host.n_resumed > 0)
        resume_head(e, &batch);
    bw_forward(e->net, e->backend, &batch, &e->buf);
    sample_rows(e);
    if (e->host.n_scored > 0)
        score_rows(e);
    accept_drafts(e);
    if (e->host.mtp)
        run_drafts(e, &batch);
    download_results(e);
    e->backend->ops->sync(e->backend);
}
