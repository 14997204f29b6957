/* setup.c - see setup.h. */
#include "cli/setup.h"

#include <string.h>

#include "cli/terminal.h"

_Static_assert(BW_MAX_DRAFTS == 8, "--draft and its help name the limit");

bool bw_setup_read_draft(void *target, const char *text)
{
    int *draft = target;
    if (strcmp(text, "auto") == 0)
        *draft = BW_DRAFT_AUTO;
    else if (strcmp(text, "off") == 0 || strcmp(text, "0") == 0)
        *draft = BW_DRAFT_OFF;
    else if (text[0] >= '1' && text[0] <= '8' && !text[1])
        *draft = text[0] - '0';
    else
        return false;
    return true;
}

bw_model *bw_setup_open(const bw_setup *setup, const char *path)
{
    static const bw_activations activations[] = { BW_ACTIVATIONS_AUTO, BW_ACTIVATIONS_INT8, BW_ACTIVATIONS_F32 };
    const bw_model_options options = {
        .n_threads = setup->threads,
        .pin = setup->pin,
        .activations = activations[setup->activations + 1],
        .ignore_mtp = setup->draft == BW_DRAFT_OFF,
        .progress = bw_terminal_progress,
    };
    bw_model *model = NULL;
    bw_error err = { 0 };
    bw_log_to(bw_terminal_log, NULL);
    bw_terminal_progress_begin("loading");
    bw_status st = bw_model_open(&model, path, &options, &err);
    bw_terminal_progress_end();
    if (st != BW_OK) {
        bw_terminal_fail("%s", err.message);
        return NULL;
    }
    return model;
}

bw_engine_options bw_setup_engine(const bw_setup *setup, int context, int n_prompt)
{
    bw_engine_options options = bw_engine_defaults();
    options.max_seqs = 1;
    options.kv = setup->kv == 1 ? BW_KV_F32 : BW_KV_F16;
    options.chunk = setup->chunk;
    options.no_drafts = setup->draft == BW_DRAFT_OFF;
    options.draft_vocab = setup->draft_vocab;
    if (context > 0)
        options.context = context;
    if (setup->chunk == 0) /* whole: one step must hold the prompt */
        options.max_rows = n_prompt;
    return options;
}

const char *bw_setup_activations(const bw_model *model)
{
    return bw_model_get_info(model)->int8_activations ? "int8" : "f32";
}

const char *bw_setup_kv(const bw_setup *setup)
{
    return setup->kv == 1 ? "f32" : "f16";
}
