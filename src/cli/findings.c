/* findings.c - see findings.h. */
#include "cli/findings.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "format/roles.h"

static const char *const part_names[BW_PART_COUNT] = {
    [BW_PART_EMBED] = "embedding",
    [BW_PART_HEAD] = "output head",
    [BW_PART_NORMS] = "norms",
    [BW_PART_FULL_ATTENTION] = "full attention",
    [BW_PART_LINEAR_ATTENTION] = "linear attention",
    [BW_PART_FFN] = "MLP",
    [BW_PART_ROUTER] = "router",
    [BW_PART_EXPERTS] = "experts",
    [BW_PART_SHARED_EXPERT] = "shared expert",
    [BW_PART_MTP] = "MTP head",
    [BW_PART_VISION] = "vision (not used yet)",
    [BW_PART_IGNORED] = "of no use here",
    [BW_PART_UNKNOWN] = "unknown",
};

const char *bw_part_name(bw_part part)
{
    return part_names[part];
}

static bw_part part_of_role(bw_role role, bool full_attention)
{
    switch (role) {
    case BW_ROLE_EMBED: return BW_PART_EMBED;
    case BW_ROLE_HEAD: return BW_PART_HEAD;
    case BW_ROLE_FINAL_NORM: case BW_ROLE_INPUT_NORM: case BW_ROLE_POST_NORM: return BW_PART_NORMS;
    case BW_ROLE_MTP_FC: case BW_ROLE_MTP_NORM_EMBEDDING: case BW_ROLE_MTP_NORM_HIDDEN: case BW_ROLE_MTP_NORM:
    case BW_ROLE_MTP_EMBED: case BW_ROLE_MTP_HEAD: return BW_PART_MTP;
    case BW_ROLE_Q: case BW_ROLE_K: case BW_ROLE_V: case BW_ROLE_O: case BW_ROLE_Q_NORM: case BW_ROLE_K_NORM:
        return BW_PART_FULL_ATTENTION;
    case BW_ROLE_QKV: return full_attention ? BW_PART_FULL_ATTENTION : BW_PART_LINEAR_ATTENTION;
    case BW_ROLE_GDN_Z: case BW_ROLE_GDN_A: case BW_ROLE_GDN_B: case BW_ROLE_GDN_OUT: case BW_ROLE_GDN_CONV:
    case BW_ROLE_GDN_DECAY: case BW_ROLE_GDN_DT: case BW_ROLE_GDN_NORM: return BW_PART_LINEAR_ATTENTION;
    case BW_ROLE_FFN_GATE: case BW_ROLE_FFN_UP: case BW_ROLE_FFN_DOWN: return BW_PART_FFN;
    case BW_ROLE_ROUTER: return BW_PART_ROUTER;
    case BW_ROLE_SHARED_GATE: case BW_ROLE_SHARED_FFN_GATE: case BW_ROLE_SHARED_FFN_UP: case BW_ROLE_SHARED_FFN_DOWN:
        return BW_PART_SHARED_EXPERT;
    case BW_ROLE_EXPERTS_GATE: case BW_ROLE_EXPERTS_UP: case BW_ROLE_EXPERTS_DOWN: case BW_ROLE_EXPERTS_GATE_UP:
        return BW_PART_EXPERTS;
    case BW_ROLE_VISION: return BW_PART_VISION;
    case BW_ROLE_IGNORED: return BW_PART_IGNORED;
    case BW_ROLE_UNKNOWN: case BW_ROLE_COUNT: break;
    }
    return BW_PART_UNKNOWN;
}

bw_part bw_findings_part(const bw_findings *f, const bw_tensor *tensor)
{
    const bw_place place = bw_role_of(bw_checkpoint_container(f->checkpoint), tensor->name);
    const bool of_layer = place.role >= BW_ROLE_FIRST_OF_LAYER && place.role <= BW_ROLE_LAST_OF_LAYER;
    /* GGUF numbers the MTP block like a layer after the last. */
    if (place.mtp || (f->has_config && of_layer && place.layer >= f->config.n_layers))
        return BW_PART_MTP;
    const bool full = f->has_config && of_layer && place.layer >= 0 && f->config.attention[place.layer];
    return part_of_role(place.role, full);
}

static void count_tensor(bw_part_count *part, const bw_tensor *tensor)
{
    int i = 0;
    part->n_tensors++;
    part->bytes += tensor->bytes;
    while (i < part->n_types && strcmp(part->types[i].name, tensor->type_name) != 0)
        i++;
    if (i == BW_PART_TYPES)
        return; /* more types than there are: counted without their name */
    if (i == part->n_types)
        part->types[part->n_types++].name = tensor->type_name;
    part->types[i].n++;
}

static void add_problem(bw_findings *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_problem(bw_findings *f, const char *format, ...)
{
    char text[sizeof f->problems[0]];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (int i = 0; i < f->n_problems; i++)
        if (strcmp(f->problems[i], text) == 0)
            return;
    if (f->n_problems < BW_MAX_PROBLEMS)
        memcpy(f->problems[f->n_problems++], text, sizeof text);
}

/* The plan comes from the engine itself, which wants an open model. */
static void plan_memory(bw_findings *f, const char *path)
{
    const bw_model_options options = { .ignore_mtp = true, .plan_only = true };
    bw_model *model;
    bw_error err = { 0 };
    bw_log_to(NULL, NULL); /* it would only say again what was said already */
    bw_status st = bw_model_open(&model, path, &options, &err);
    f->runs = st == BW_OK;
    if (!st)
        st = bw_engine_plan(model, &f->engine, &f->plan, &err);
    f->has_plan = st == BW_OK;
    if (st)
        add_problem(f, "%s", err.message);
    bw_model_close(model);
}

bool bw_findings_gather(bw_findings *f, const char *path, const bw_engine_options *engine)
{
    bw_error err = { 0 };
    *f = (bw_findings){ .engine = *engine };
    if (bw_checkpoint_open(&f->checkpoint, path, &err) != BW_OK) {
        add_problem(f, "%s", err.message);
        return false;
    }
    f->has_config = bw_config_read(&f->config, f->checkpoint, &err) == BW_OK;
    if (!f->has_config)
        add_problem(f, "%s", err.message);
    for (int i = 0; i < bw_checkpoint_n_tensors(f->checkpoint); i++) {
        const bw_tensor *tensor = bw_checkpoint_tensor_at(f->checkpoint, i);
        count_tensor(&f->parts[bw_findings_part(f, tensor)], tensor);
    }
    if (f->has_config) {
        f->has_weights = bw_weights_resolve(&f->weights, &f->config, f->checkpoint, true, &err) == BW_OK;
        if (!f->has_weights)
            add_problem(f, "%s", err.message);
        else if (f->weights.mtp_state == BW_MTP_BROKEN)
            add_problem(f, "%s: the MTP head cannot be used: %s", path, f->weights.mtp_problem);
    }
    if (bw_text_source_open_checkpoint(&f->text, f->checkpoint, f->text_note, sizeof f->text_note, &err) != BW_OK)
        add_problem(f, "%s", err.message);
    if (f->text && f->has_config)
        bw_text_source_complete_stops(f->text, &f->config);
    if (f->has_weights)
        plan_memory(f, path);
    return true;
}

void bw_findings_release(bw_findings *f)
{
    bw_text_source_close(f->text);
    if (f->has_weights)
        bw_weights_release(&f->weights);
    bw_checkpoint_close(f->checkpoint);
}

static void lower(char *text)
{
    for (; *text; text++)
        *text = (char)tolower((unsigned char)*text);
}

void bw_findings_types(const bw_part_count *part, char *text, size_t n)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < part->n_types && used < n; i++) {
        if (part->n_types == 1)
            used += (size_t)snprintf(text, n, "%s", part->types[i].name);
        else
            used += (size_t)snprintf(text + used, n - used, "%s%s x %d", i ? ", " : "", part->types[i].name,
                                     part->types[i].n);
    }
    lower(text);
}

void bw_findings_mtp(const bw_findings *f, char *text, size_t n)
{
    char types[256];
    const bw_weights *w = &f->weights;
    bw_findings_types(&f->parts[BW_PART_MTP], types, sizeof types);
    if (w->mtp_state == BW_MTP_COMPLETE)
        snprintf(text, n, "%d/%d tensors (%s)", w->mtp_found, w->mtp_expected, types);
    else if (w->mtp_state == BW_MTP_ABSENT)
        snprintf(text, n, "%d/%d tensors: the model runs, without drafts", w->mtp_found, w->mtp_expected);
    else
        snprintf(text, n, "%d/%d tensors: the model runs only with --draft off: %s", w->mtp_found, w->mtp_expected,
                 w->mtp_problem);
}
