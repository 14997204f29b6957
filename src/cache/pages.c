/* pages.c - the pool is a stack of free ids and a reference count per page. */
#include "cache/pages.h"

#include <assert.h>

struct bw_pages {
    bw_backend *backend;
    bw_kv_layer *layers; /* [n_layers] */
    int n_layers, n_pages, n_free;
    size_t half_bytes; /* keys, or values, of one page of one layer */
    int *free;       /* [n_pages] ids, the last n_free are free; the next to go is free[n_free - 1] */
    int *references; /* [n_pages] */
};

uint64_t bw_pages_page_bytes(bw_kv_codec codec, const bw_attn_shape *shape, int n_layers)
{
    return bw_kv_layer_page_bytes(codec, shape) * (uint64_t)n_layers;
}

bw_status bw_pages_create(bw_pages **out, bw_backend *backend, bw_kv_codec codec, const bw_attn_shape *shape,
                          int n_layers, int n_pages, bw_error *err)
{
    *out = NULL;
    const uint64_t half = bw_kv_layer_page_bytes(codec, shape) / 2 * (uint64_t)n_pages; /* keys, or values */
    bw_pages *pages = bw_mem_zalloc(1, sizeof *pages, BW_MEM_MISC);
    if (!pages)
        return bw_fail_memory(err, "KV pages", sizeof *pages);
    pages->backend = backend;
    pages->n_layers = n_layers;
    pages->half_bytes = (size_t)(bw_kv_layer_page_bytes(codec, shape) / 2);
    pages->n_pages = pages->n_free = n_pages;
    pages->layers = bw_mem_zalloc((size_t)n_layers, sizeof *pages->layers, BW_MEM_MISC);
    pages->free = bw_mem_zalloc((size_t)n_pages, sizeof *pages->free, BW_MEM_MISC);
    pages->references = bw_mem_zalloc((size_t)n_pages, sizeof *pages->references, BW_MEM_MISC);
    if (!pages->layers || !pages->free || !pages->references)
        goto no_memory;
    for (int l = 0; l < n_layers; l++) {
        bw_kv_layer *layer = &pages->layers[l];
        layer->codec = codec;
        layer->k = backend->ops->alloc(backend, half, BW_MEM_KV);
        layer->v = backend->ops->alloc(backend, half, BW_MEM_KV);
        if (!layer->k || !layer->v)
            goto no_memory;
    }
    for (int i = 0; i < n_pages; i++)
        pages->free[i] = n_pages - 1 - i; /* page 0 goes first */
    *out = pages;
    return BW_OK;
no_memory:
    bw_pages_destroy(pages);
    return bw_fail(err, BW_E_MEMORY, "KV pages: %d layers of %d pages want %llu bytes and the backend has not that "
                   "much: ask for a smaller context or fewer sequences", n_layers, n_pages,
                   (unsigned long long)(2 * half * (uint64_t)n_layers));
}

void bw_pages_destroy(bw_pages *pages)
{
    if (!pages)
        return;
    for (int l = 0; pages->layers && l < pages->n_layers; l++) {
        pages->backend->ops->free(pages->backend, pages->layers[l].k);
        pages->backend->ops->free(pages->backend, pages->layers[l].v);
    }
    bw_mem_free(pages->layers);
    bw_mem_free(pages->free);
    bw_mem_free(pages->references);
    bw_mem_free(pages);
}

int bw_pages_take(bw_pages *pages)
{
    if (pages->n_free == 0)
        return -1;
    int page = pages->free[--pages->n_free];
    assert(pages->references[page] == 0);
    pages->references[page] = 1;
    return page;
}

void bw_pages_share(bw_pages *pages, int page)
{
    assert(page >= 0 && page < pages->n_pages && pages->references[page] > 0);
    pages->references[page]++;
}

void bw_pages_release(bw_pages *pages, int page)
{
    assert(page >= 0 && page < pages->n_pages && pages->references[page] > 0);
    if (--pages->references[page] == 0)
        pages->free[pages->n_free++] = page;
}

int bw_pages_free(const bw_pages *pages)
{
    return pages->n_free;
}

int bw_pages_holders(const bw_pages *pages, int page)
{
    assert(page >= 0 && page < pages->n_pages);
    return pages->references[page];
}

void bw_pages_copy(bw_pages *pages, int to, int from)
{
    assert(to != from && pages->references[to] == 1 && pages->references[from] > 0);
    const size_t bytes = pages->half_bytes, at = (size_t)to * bytes, source = (size_t)from * bytes;
    for (int l = 0; l < pages->n_layers; l++) {
        const bw_kv_layer *layer = &pages->layers[l];
        pages->backend->ops->copy(pages->backend, (char *)layer->k + at, (const char *)layer->k + source, bytes);
        pages->backend->ops->copy(pages->backend, (char *)layer->v + at, (const char *)layer->v + source, bytes);
    }
}

const bw_kv_layer *bw_pages_layers(const bw_pages *pages)
{
    return pages->layers;
}
