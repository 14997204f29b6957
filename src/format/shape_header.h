/* shape_header.h - the first bytes of a GGUF file with the tensors of a plan: metadata and tensor list. Private to
 * src/format. */
#ifndef BW_FORMAT_SHAPE_HEADER_H
#define BW_FORMAT_SHAPE_HEADER_H

#include "format/shape_plan.h"
#include "format/shape_words.h"

enum { BW_SHAPE_ALIGNMENT = 32 }; /* of every tensor in the file */

/* *out [*n] is the caller's (bw_mem_free) and ends where the first tensor begins. name: general.name of the
 * metadata. words NULL: no tokenizer. */
bw_status bw_shape_header(unsigned char **out, size_t *n, const bw_shape_plan *plan, const char *name,
                          const bw_shape_words *words, bw_error *err);

/* n, and what fills it up to the alignment. */
uint64_t bw_shape_padded(uint64_t n);

#endif
