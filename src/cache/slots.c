/* slots.c - memory of the recurrent layers. The arithmetic on it is the gdn operation's. */
#include "cache/slots.h"

#include <assert.h>

struct bw_slots {
    bw_backend *backend;
    bw_gdn_state *layers; /* [n_layers] */
    int n_layers, n_slots, n_free;
    int *free;                            /* [n_slots], the last n_free */
    size_t state_bytes, window_bytes, pending_bytes; /* of one slot of one layer */
};

static size_t state_bytes_of(const bw_gdn_shape *s)
{
    size_t tiles = ((size_t)s->d_v + BW_GDN_TILE - 1) / BW_GDN_TILE;
    return (size_t)s->n_v_heads * tiles * (size_t)s->d_k * BW_GDN_TILE * sizeof(float);
}

uint64_t bw_slots_bytes(const bw_gdn_shape *shape, int n_layers, int n_slots, int max_pending)
{
    return bw_gdn_slot_bytes(shape, max_pending) * (uint64_t)n_layers * (uint64_t)n_slots;
}

bw_status bw_slots_create(bw_slots **out, bw_backend *backend, const bw_gdn_shape *shape, int n_layers, int n_slots,
                          int max_pending, bw_error *err)
{
    *out = NULL;
    bw_slots *slots = bw_mem_zalloc(1, sizeof *slots, BW_MEM_MISC);
    if (!slots)
        return bw_fail_memory(err, "recurrent slots", sizeof *slots);
    slots->backend = backend;
    slots->n_layers = n_layers;
    slots->n_slots = slots->n_free = n_slots;
    slots->state_bytes = state_bytes_of(shape);
    slots->window_bytes = (size_t)(shape->conv_width - 1) * (size_t)shape->conv_dim * sizeof(float);
    slots->pending_bytes = (size_t)max_pending * (size_t)(shape->conv_dim + 2 * shape->n_v_heads) * sizeof(float);
    assert(slots->state_bytes + slots->window_bytes + slots->pending_bytes == bw_gdn_slot_bytes(shape, max_pending));
    slots->layers = bw_mem_zalloc((size_t)n_layers, sizeof *slots->layers, BW_MEM_MISC);
    slots->free = bw_mem_zalloc((size_t)n_slots, sizeof *slots->free, BW_MEM_MISC);
    if (!slots->layers || !slots->free)
        goto no_memory;
    for (int l = 0; l < n_layers; l++) {
        bw_gdn_state *layer = &slots->layers[l];
        layer->max_pending = max_pending;
        layer->state = backend->ops->alloc(backend, slots->state_bytes * (size_t)n_slots, BW_MEM_STATE);
        layer->window = backend->ops->alloc(backend, slots->window_bytes * (size_t)n_slots, BW_MEM_STATE);
        layer->pending = backend->ops->alloc(backend, slots->pending_bytes * (size_t)n_slots, BW_MEM_STATE);
        if (!layer->state || !layer->window || !layer->pending)
            goto no_memory;
    }
    for (int i = 0; i < n_slots; i++)
        slots->free[i] = n_slots - 1 - i;
    *out = slots;
    return BW_OK;
no_memory:
    bw_slots_destroy(slots);
    return bw_fail(err, BW_E_MEMORY, "recurrent slots: %d sequences want %llu bytes and the backend has not that much: "
                   "ask for fewer sequences", n_slots,
                   (unsigned long long)bw_slots_bytes(shape, n_layers, n_slots, max_pending));
}

void bw_slots_destroy(bw_slots *slots)
{
    if (!slots)
        return;
    for (int l = 0; slots->layers && l < slots->n_layers; l++) {
        slots->backend->ops->free(slots->backend, slots->layers[l].state);
        slots->backend->ops->free(slots->backend, slots->layers[l].window);
        slots->backend->ops->free(slots->backend, slots->layers[l].pending);
    }
    bw_mem_free(slots->layers);
    bw_mem_free(slots->free);
    bw_mem_free(slots);
}

/* The committed state of `slot` in layer l. */
static float *state_at(const bw_slots *slots, int l, int slot)
{
    return slots->layers[l].state + (size_t)slot * (slots->state_bytes / sizeof(float));
}

static float *window_at(const bw_slots *slots, int l, int slot)
{
    return slots->layers[l].window + (size_t)slot * (slots->window_bytes / sizeof(float));
}

int bw_slots_take(bw_slots *slots)
{
    if (slots->n_free == 0)
        return -1;
    int slot = slots->free[--slots->n_free];
    bw_backend *be = slots->backend;
    for (int l = 0; l < slots->n_layers; l++) {
        be->ops->zero(be, state_at(slots, l, slot), slots->state_bytes);
        be->ops->zero(be, window_at(slots, l, slot), slots->window_bytes);
    }
    return slot;
}

void bw_slots_release(bw_slots *slots, int slot)
{
    assert(slot >= 0 && slot < slots->n_slots && slots->n_free < slots->n_slots);
    slots->free[slots->n_free++] = slot;
}

int bw_slots_free(const bw_slots *slots)
{
    return slots->n_free;
}

const bw_gdn_state *bw_slots_layers(const bw_slots *slots)
{
    return slots->layers;
}

uint64_t bw_slots_state_bytes(const bw_slots *slots)
{
    return (uint64_t)(slots->state_bytes + slots->window_bytes) * (uint64_t)slots->n_layers;
}

void bw_slots_save(const bw_slots *slots, int slot, void *host)
{
    unsigned char *at = host;
    bw_backend *be = slots->backend;
    for (int l = 0; l < slots->n_layers; l++) {
        be->ops->download(be, at, state_at(slots, l, slot), slots->state_bytes);
        be->ops->download(be, at + slots->state_bytes, window_at(slots, l, slot), slots->window_bytes);
        at += slots->state_bytes + slots->window_bytes;
    }
    be->ops->sync(be);
}

void bw_slots_restore(bw_slots *slots, int slot, const void *host)
{
    const unsigned char *at = host;
    bw_backend *be = slots->backend;
    for (int l = 0; l < slots->n_layers; l++) {
        be->ops->upload(be, state_at(slots, l, slot), at, slots->state_bytes);
        be->ops->upload(be, window_at(slots, l, slot), at + slots->state_bytes, slots->window_bytes);
        at += slots->state_bytes + slots->window_bytes;
    }
}
