/* synthetic.h - a model of random weights in the shape of a real one: in memory, to measure without a
 * download, or as the pieces of a GGUF file (tools/synth).
 *
 * Names, types and metadata are those of real files, byte by byte the same in memory and in the file. The
 * weights are normally distributed with the spread trained ones have, so that nothing overflows and every
 * code of a type occurs. For each type and row length they are drawn and packed once, then dealt out block by
 * block. What a piece holds follows from seed, tensor and place alone, so pieces can be made in any order,
 * by any thread. */
#ifndef BW_FORMAT_SYNTHETIC_H
#define BW_FORMAT_SYNTHETIC_H

#include "format/checkpoint.h"

typedef struct bw_synthetic_options {
    const char *shape;     /* a name of bench/shapes ("2b"), or the path of a config.json */
    const char *type;      /* of the matrices: "q4_0", ..., or a mix: "q4_k_m", "q5_k_m". NULL: "q8_0" */
    uint64_t seed;         /* another model of the same kind; 1 is what tools/synth takes */
    bool no_mtp;
    const char *tokenizer; /* folder whose tokenizer and chat template go in; NULL: a model without text */
} bw_synthetic_options;

/* "synthetic 2b q4_0": its path, in messages. */
void bw_synthetic_name(const bw_synthetic_options *options, char *out, size_t size);

/* ---- a checkpoint in memory ---------------------------------------------------------------------- */

/* Makes the weights with n_threads, in anonymous memory of the system that does not count as BW_MEM_WEIGHTS (it
 * stands for a mapped file). progress (may be NULL) is called on the calling thread, done from 0 to 1.
 * BW_E_ARGUMENT: no such shape or type. BW_E_FORMAT: the config.json lacks a size, or one is impossible.
 * BW_E_MEMORY: the weights do not fit the free memory; err names both sizes. On failure *out is NULL. */
bw_status bw_synthetic_open(bw_checkpoint **out, const bw_synthetic_options *options, int n_threads,
                            void (*progress)(void *arg, double done), void *progress_arg, bw_error *err);

/* ---- the pieces of a file ------------------------------------------------------------------------ */

typedef struct bw_synthetic bw_synthetic;

/* The plan of a file: its header, its tensors, blocks to deal. Errors as above, but for memory. */
bw_status bw_synthetic_create(bw_synthetic **out, const bw_synthetic_options *options, bw_error *err);
void bw_synthetic_destroy(bw_synthetic *synthetic); /* takes NULL */

uint64_t bw_synthetic_bytes(const bw_synthetic *synthetic); /* of the whole file */
int bw_synthetic_n_tensors(const bw_synthetic *synthetic);
/* Its first bytes, up to the first tensor. Lent. */
const unsigned char *bw_synthetic_header(const bw_synthetic *synthetic, size_t *n);

/* Pieces follow the header and each other without gaps. */
int bw_synthetic_n_pieces(const bw_synthetic *synthetic);
size_t bw_synthetic_largest_piece(const bw_synthetic *synthetic);
/* Where piece i begins in the file. i = n_pieces: the end of the file. */
uint64_t bw_synthetic_offset(const bw_synthetic *synthetic, int i);
/* Makes piece i. Any thread. */
void bw_synthetic_fill(const bw_synthetic *synthetic, int i, unsigned char *out);

/* Every type and mix that options->type may be, separated by blanks: for usages and messages. */
extern const char bw_synthetic_types[];

#endif
