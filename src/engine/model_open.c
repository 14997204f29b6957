/* model_open.c - opens a model: checkpoint, config, weights, backend, text, in that order.
 *
 * Never computes. The result is immutable. */
#include "engine/model_open.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpuid.h"
#include "base/log.h"
#include "engine/model_text.h"

static const bw_model_options no_options = { 0 };

/* What is opened: files at a path, or random weights. */
typedef struct source {
    const char *path;
    const bw_synthetic_options *synthetic; /* NULL: files */
} source;

static bw_status open_checkpoint(bw_model *m, const source *from, const bw_model_options *o, bw_error *err)
{
    m->synthetic = from->synthetic != NULL;
    return m->synthetic ? bw_synthetic_open(&m->checkpoint, from->synthetic, m->n_threads, o->progress, o->progress_arg, err)
                        : bw_checkpoint_open(&m->checkpoint, from->path, err);
}

/* NULL: $BW_CPU, else the best here. */
static const char *level_of(const bw_model_options *o)
{
    return o->cpu_level && o->cpu_level[0] ? o->cpu_level : NULL;
}

/* On a pool that ends with it: engines bring their own. */
static bw_status place_weights(bw_model *m, const bw_model_options *o, bw_error *err)
{
    bw_status st;
    if ((st = bw_cpu_backend_create(&m->backend, o->plan_only ? 1 : m->n_threads, level_of(o), err)))
        return st;
    if (m->pin)
        bw_cpu_backend_pin(m->backend); /* what is multiplied alone is then packed by the processors that read it */
    m->disk = (bw_weight_source){ .checkpoint = m->checkpoint, .available = bw_mem_available(),
                                  .only_copied = o->no_read_ahead };
    const bw_net_source disk = bw_weight_source_of(&m->disk);
    const bool files = !m->synthetic; /* making random weights had its progress */
    const bw_net_options options = { .int8 = o->activations != BW_ACTIVATIONS_F32, .plan_only = o->plan_only,
                                     .source = files ? &disk : NULL, .checkpoint = m->checkpoint, .in_memory = !files,
                                     .progress = files ? o->progress : NULL, .progress_arg = o->progress_arg };
    st = bw_net_create(&m->net, &m->config, &m->weights, m->backend, &options, err);
    bw_weight_source_end(&m->disk);
    bw_cpu_backend_end_workers(m->backend);
    return st;
}

static bw_status open_weights(bw_model *m, const source *from, const bw_model_options *o, bw_error *err)
{
    bw_status st;
    if ((st = open_checkpoint(m, from, o, err)) || (st = bw_config_read(&m->config, m->checkpoint, err)) ||
        (st = bw_weights_resolve(&m->weights, &m->config, m->checkpoint, o->ignore_mtp, err)))
        return st;
    return place_weights(m, o, err);
}

/* "q4_k q6_k: integer dots; bf16: float" */
static void note_types(bw_model *m)
{
    char *out = m->multiply_note;
    size_t used = 0;
    bool done[BW_DTYPE_COUNT] = { false };
    for (int t = 0; t < BW_DTYPE_COUNT; t++) {
        const char *how = m->net->type_note[t];
        if (!how || done[t])
            continue;
        const char *separator = used ? "; " : "";
        for (int u = t; u < BW_DTYPE_COUNT; u++) {
            if (!m->net->type_note[u] || strcmp(m->net->type_note[u], how) != 0)
                continue;
            done[u] = true;
            used += (size_t)snprintf(out + used, sizeof m->multiply_note - used, "%s%s", separator,
                                     bw_dtype_get((bw_dtype)u)->name);
            separator = " ";
            if (used >= sizeof m->multiply_note)
                return;
        }
        used += (size_t)snprintf(out + used, sizeof m->multiply_note - used, ": %s", how);
        if (used >= sizeof m->multiply_note)
            return;
    }
}

static void note_mtp(bw_model *m, bool ignored)
{
    const bw_weights *w = &m->weights;
    if (w->mtp_state == BW_MTP_COMPLETE)
        return;
    if (w->mtp_state == BW_MTP_ABSENT)
        snprintf(m->mtp_note, sizeof m->mtp_note, "%s", w->mtp_problem);
    else
        snprintf(m->mtp_note, sizeof m->mtp_note, "%s: %s", m->path, w->mtp_problem);
    if (ignored && w->mtp_state == BW_MTP_BROKEN)
        bw_log(BW_LOG_WARNING, "%s", m->mtp_note);
}

/* Ids between tokens that are none themselves: added tokens somebody took out, say. */
static bw_status find_holes(bw_model *m, bw_error *err)
{
    const int n = m->text ? bw_text_source_n_tokens(m->text) : 0, all = n < m->config.vocab ? n : m->config.vocab;
    const bw_tokenizer *tokenizer = m->text ? bw_text_source_tokenizer(m->text) : NULL;
    int count = 0;
    for (int id = 0; id < all; id++)
        count += !bw_tokenizer_is_token(tokenizer, id);
    if (count == 0)
        return BW_OK;
    m->holes = bw_mem_alloc((size_t)count * sizeof *m->holes, BW_MEM_TEXT);
    if (!m->holes)
        return bw_fail_memory(err, "ids that are no tokens", (size_t)count * sizeof *m->holes);
    for (int id = 0; id < all; id++)
        if (!bw_tokenizer_is_token(tokenizer, id))
            m->holes[m->n_holes++] = id;
    return BW_OK;
}

static void fill_info(bw_model *m, double load_s)
{
    const bw_config *c = &m->config;
    m->info = (bw_model_info){ .path = m->path, .architecture = c->architecture, .n_layers = c->n_layers,
                               .hidden = c->hidden, .vocab = c->vocab, .max_context = c->max_position,
                               .has_mtp = m->net->has_mtp, .mtp_note = m->mtp_note, .has_text = m->text != NULL,
                               .text_note = m->text_note, .n_tokens = c->vocab,
                               .weight_bytes = m->weights.matrix_bytes + m->weights.vector_bytes, .load_s = load_s,
                               .load_wait_s = m->disk.wait_s, .load_bytes = m->disk.bytes,
                               .packed_bytes = m->net->placed ? m->net->packed_bytes : 0, .pack_s = m->net->pack_s,
                               .n_threads = m->n_threads, .cpu_level = m->backend->level, .cpu_name = bw_cpu_name(),
                               .int8_activations = m->net->int8, .multiply_note = m->multiply_note };
    if (m->text) {
        const int n = bw_text_source_n_tokens(m->text);
        m->info.n_tokens = n < c->vocab ? n : c->vocab;
    }
}

static bw_status open_model(bw_model **out, const source *from, const bw_model_options *options, bw_error *err)
{
    *out = NULL;
    const bw_model_options *o = options ? options : &no_options;
    const uint64_t start = bw_clock_ns();
    bw_status st;
    if (o->n_threads < 0)
        return bw_fail(err, BW_E_ARGUMENT, "threads: %d, expected 0 (one per processor) or more", o->n_threads);
    bw_model *m = bw_mem_zalloc(1, sizeof *m, BW_MEM_MISC);
    if (!m)
        return bw_fail_memory(err, "model", sizeof *m);
    m->pin = o->pin;
    m->n_threads = o->n_threads ? o->n_threads : bw_cpu_count();
    m->path = bw_mem_strdup(from->path);
    if (!m->path) {
        st = bw_fail_memory(err, "model path", strlen(from->path));
        goto fail;
    }
    if ((st = open_weights(m, from, o, err)) ||
        (st = bw_text_source_open_checkpoint(&m->text, m->checkpoint, m->text_note, sizeof m->text_note, err)))
        goto fail;
    if ((st = find_holes(m, err)))
        goto fail;
    if (m->text)
        bw_text_source_complete_stops(m->text, &m->config);
    note_types(m);
    note_mtp(m, o->ignore_mtp);
    fill_info(m, (double)(bw_clock_ns() - start) * 1e-9);
    *out = m;
    return BW_OK;
fail:
    bw_model_close(m);
    return st;
}

bw_status bw_model_open(bw_model **out, const char *path, const bw_model_options *options, bw_error *err)
{
    return open_model(out, &(source){ .path = path }, options, err);
}

bw_status bw_model_open_synthetic(bw_model **out, const bw_synthetic_options *what, const bw_model_options *options,
                                  bw_error *err)
{
    char name[512];
    bw_synthetic_name(what, name, sizeof name);
    return open_model(out, &(source){ .path = name, .synthetic = what }, options, err);
}

void bw_model_close(bw_model *m)
{
    if (!m)
        return;
    bw_mem_free(m->holes);
    bw_text_source_close(m->text);
    bw_net_destroy(m->net);
    if (m->backend)
        m->backend->ops->destroy(m->backend);
    bw_weights_release(&m->weights);
    bw_checkpoint_close(m->checkpoint);
    bw_mem_free(m->path);
    bw_mem_free(m);
}

const bw_model_info *bw_model_get_info(const bw_model *model)
{
    return &model->info;
}

const bw_text_source *bw_model_text(const bw_model *model)
{
    return model->text;
}
