/* pages.h - the KV page pool: fixed pages of 64 tokens, shared by reference count.
 *
 * A page id stands for 64 positions in every attention layer at once (the MTP head's layer is the
 * last). Layer l keeps its pages in one array of keys and one of values,
 * [n_pages, n_kv_heads, 64, head_dim] in the codec's encoding: see bw_kv_layer in ops.h.
 * The pool hands out ids; who holds a page, and at which position, is the caller's page table.
 * Threads: the engine thread only. */
#ifndef BW_CACHE_PAGES_H
#define BW_CACHE_PAGES_H

#include "ops/ops.h"

typedef struct bw_pages bw_pages;

/* Bytes of one page over all layers: what the memory plan counts. */
uint64_t bw_pages_page_bytes(bw_kv_codec codec, const bw_attn_shape *shape, int n_layers);

/* Takes n_pages (>= 1) pages of n_layers layers from the backend, borrowed until destroy.
 * BW_E_MEMORY names the bytes. On failure *out is NULL. */
bw_status bw_pages_create(bw_pages **out, bw_backend *backend, bw_kv_codec codec, const bw_attn_shape *shape,
                          int n_layers, int n_pages, bw_error *err);
void bw_pages_destroy(bw_pages *pages); /* takes NULL */

/* A free page with one reference, or -1 when there is none. Its contents are whatever was there. */
int bw_pages_take(bw_pages *pages);
void bw_pages_share(bw_pages *pages, int page);   /* one reference more */
void bw_pages_release(bw_pages *pages, int page); /* one less; free at none */
int bw_pages_free(const bw_pages *pages);         /* pages nobody holds */
int bw_pages_holders(const bw_pages *pages, int page); /* its references */
/* All rows of all layers of page `from` to page `to`. */
void bw_pages_copy(bw_pages *pages, int to, int from);

/* Lent; for the operations. */
const bw_kv_layer *bw_pages_layers(const bw_pages *pages);

#endif
