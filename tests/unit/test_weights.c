/* Real and damaged checkpoints resolve to weights, or say exactly what is wrong. */
#include "lib/check.h"

#include <math.h>
#include <stdlib.h>

#include "base/dequant.h"
#include "base/half.h"
#include "base/mem.h"
#include "format/checkpoint.h"
#include "model/weights.h"

typedef struct model {
    bw_checkpoint *checkpoint;
    bw_config config;
    bw_weights weights;
} model;

static bw_status open_model(model *m, const char *path, bool ignore_mtp, bw_error *err)
{
    *m = (model){ 0 };
    bw_status st = bw_checkpoint_open(&m->checkpoint, path, err);
    if (!st)
        st = bw_config_read(&m->config, m->checkpoint, err);
    if (!st)
        st = bw_weights_resolve(&m->weights, &m->config, m->checkpoint, ignore_mtp, err);
    return st;
}

static void close_model(model *m)
{
    bw_weights_release(&m->weights);
    bw_checkpoint_close(m->checkpoint);
}

static const char *const folders[] = { "tests/golden/dense-tied-8", "tests/golden/dense-real-r3", "tests/golden/dense-r2",
                                       "tests/golden/moe-8of16",    "tests/golden/moe-real-r2",   "tests/golden/moe-r3-8",
                                       "models/lamb" };
static const char *const files[] = { "dense-Q4_K_M", "dense-Q5_1", "dense-Q8_0", "moe-F16", "moe-IQ4_NL",
                                     "moe-Q3_K_M",   "moe-Q4_1",   "moe-Q5_K_M", "moe-Q6_K" };

TEST(every_golden_folder_resolves_with_its_whole_head)
{
    for (size_t i = 0; i < BW_COUNT(folders); i++) {
        model m;
        bw_error err;
        check_ok(open_model(&m, repo_path(folders[i]), false, &err), err);
        check_int(m.weights.mtp_state, BW_MTP_COMPLETE);
        check_int(m.weights.mtp_found, m.weights.mtp_expected);
        check_int(m.weights.mtp_expected, m.config.moe ? 19 : 15);
        check(!m.config.v_heads_tiled && m.config.n_attention + m.config.n_linear == m.config.n_layers);
        close_model(&m);
    }
}

TEST(every_golden_gguf_file_resolves_with_its_whole_head)
{
    for (size_t i = 0; i < BW_COUNT(files); i++) {
        char path[100];
        model m;
        bw_error err;
        snprintf(path, sizeof path, "tests/golden/gguf/%s.gguf", files[i]);
        check_ok(open_model(&m, repo_path(path), false, &err), err);
        check_int(m.weights.mtp_state, BW_MTP_COMPLETE);
        check_int(m.weights.mtp_found, m.weights.mtp_expected);
        check(m.config.v_heads_tiled);
        close_model(&m);
    }
}

TESTS_MAIN(ENTRY(every_golden_folder_resolves_with_its_whole_head), ENTRY(every_golden_gguf_file_resolves_with_its_whole_head))
