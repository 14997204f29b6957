/* model_open.h - a bw_model inside: a checkpoint, its weights placed on a backend, its text. */
#ifndef BW_ENGINE_MODEL_OPEN_H
#define BW_ENGINE_MODEL_OPEN_H

#include "engine/text_source.h"
#include "engine/weight_source.h"
#include "format/synthetic.h"
#include "model/net.h"

struct bw_model {
    char *path;
    bool synthetic; /* random weights made in memory, not files */
    bw_checkpoint *checkpoint;
    bw_config config;
    bw_weights weights;
    bw_backend *backend; /* placed the weights and has no workers since; engines compute on their own of its level */
    int n_threads;
    bool pin;
    bw_net *net;
    bw_weight_source disk; /* what reading the weights took */
    bw_text_source *text; /* NULL: none came with the model */
    int32_t *holes;       /* [n_holes] ids below info.n_tokens that are no tokens */
    int n_holes;
    bw_model_info info;
    char mtp_note[1100], text_note[1100], multiply_note[512];
};

/* As bw_model_open, of random weights made in memory (format/synthetic.h) instead of files; for src/bench. Its path
 * reads "synthetic 2b q4_0". load_s counts the making too. */
bw_status bw_model_open_synthetic(bw_model **out, const bw_synthetic_options *what, const bw_model_options *options,
                                  bw_error *err);

#endif
