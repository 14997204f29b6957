/* quantize.h - f32 rows to packed ones, for the tools and tests that make files. Round to nearest
 * with plain scales: right, not clever; no file for a reader of text is made with it. */
#ifndef BW_FORMAT_QUANTIZE_H
#define BW_FORMAT_QUANTIZE_H

#include <stddef.h>

#include "base/dtype.h"

/* Packs n finite values (a multiple of the block's elements) into bw_dtype_row_bytes(type, n) bytes. */
void bw_quantize_row(bw_dtype type, const float *src, void *dst, size_t n);

#endif
