/* findings.h - what `inspect` learns of a checkpoint: its sizes, its tensors by role, what is wrong.
 *
 * Goes as far as the checkpoint allows: every part that can be read is, and every part that cannot
 * is a problem. Computes nothing. Main thread only. */
#ifndef BW_CLI_FINDINGS_H
#define BW_CLI_FINDINGS_H

#include "bellwether.h"
#include "engine/text_source.h"
#include "format/checkpoint.h"
#include "model/config.h"
#include "model/weights.h"

/* What tensors are for, as a reader wants them counted. */
typedef enum bw_part {
    BW_PART_EMBED, BW_PART_HEAD, BW_PART_NORMS, BW_PART_FULL_ATTENTION, BW_PART_LINEAR_ATTENTION, BW_PART_FFN,
    BW_PART_ROUTER, BW_PART_EXPERTS, BW_PART_SHARED_EXPERT, BW_PART_MTP, BW_PART_VISION, BW_PART_IGNORED, BW_PART_UNKNOWN,
    BW_PART_COUNT
} bw_part;

enum { BW_PART_TYPES = 24, BW_MAX_PROBLEMS = 8 };

typedef struct bw_part_count {
    int n_tensors;
    uint64_t bytes;
    struct {
        const char *name; /* "bf16" */
        int n;
    } types[BW_PART_TYPES];
    int n_types;
} bw_part_count;

typedef struct bw_findings {
    bw_checkpoint *checkpoint;
    bool has_config, has_weights, has_plan;
    bw_config config;
    bw_weights weights;
    bw_text_source *text; /* NULL: none, text_note says why */
    char text_note[1100];
    bw_part_count parts[BW_PART_COUNT];
    bw_engine_options engine;
    bw_memory_plan plan;
    bool runs;                               /* the model opens, perhaps only with --draft off */
    char problems[BW_MAX_PROBLEMS][1400];    /* what keeps the checkpoint from being whole */
    int n_problems;
} bw_findings;

const char *bw_part_name(bw_part part);

/* Where a tensor belongs. config: NULL when it could not be read. */
bw_part bw_findings_part(const bw_findings *findings, const bw_tensor *tensor);

/* Fills *out. False only when there is nothing to tell beyond the first problem: `path` holds no
 * checkpoint that can be opened. engine: context and KV type for the memory plan. */
bool bw_findings_gather(bw_findings *out, const char *path, const bw_engine_options *engine);
void bw_findings_release(bw_findings *findings);

/* "15/15 tensors (bf16)", or how many were found and what that means. */
void bw_findings_mtp(const bw_findings *findings, char *text, size_t n);
/* "bf16 x 12, f32 x 3" */
void bw_findings_types(const bw_part_count *part, char *text, size_t n);

#endif
