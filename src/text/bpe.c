/* bpe.c - see bpe.h. Pieces are words nearly always, so short ones are scanned; long ones (a run of
 * one letter can be a megabyte) go through a heap: n log n instead of n^2. Same result, tested. */
#include "text/bpe.h"

#include <string.h>

#include "base/mem.h"

enum { SHORT = 48 }; /* bytes; up to here scanning beats the heap */

static uint64_t hash_pair(uint64_t pair)
{
    pair ^= pair >> 29;
    pair *= 0x9E3779B97F4A7C15u;
    return pair ^ pair >> 32;
}

bw_status bw_merges_init(bw_merges *m, size_t n_merges, bw_error *err)
{
    size_t size = 16;
    while (size < 2 * n_merges)
        size *= 2;
    m->slots = bw_mem_alloc(size * sizeof *m->slots, BW_MEM_TEXT);
    if (!m->slots)
        return bw_fail_memory(err, "the merges", size * sizeof *m->slots);
    memset(m->slots, 0xFF, size * sizeof *m->slots);
    m->mask = size - 1;
    return BW_OK;
}

void bw_merges_fini(bw_merges *m)
{
    bw_mem_free(m->slots);
    m->slots = NULL;
}

static bw_merge *find(const bw_merges *m, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t i = hash_pair(pair);
    while (m->slots[i & m->mask].pair != pair && m->slots[i & m->mask].pair != UINT64_MAX)
        i++;
    return &m->slots[i & m->mask];
}

/* The merge of two neighbours, or NULL. */
static const bw_merge *merge_of(const bw_merges *m, int32_t left, int32_t right)
{
    const bw_merge *slot = find(m, left, right);
    return slot->pair == UINT64_MAX ? NULL : slot;
}

int32_t bw_merges_put(bw_merges *m, int32_t left, int32_t right, int32_t rank, int32_t result)
{
    bw_merge *slot = find(m, left, right);
    if (slot->pair != UINT64_MAX)
        return slot->rank;
    *slot = (bw_merge){ (uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank, result };
    return -1;
}

void bw_bpe_work_fini(bw_bpe_work *work)
{
    bw_mem_free(work->block);
    *work = (bw_bpe_work){ 0 };
}

/* ---- short pieces ---- */

static size_t apply_short(const bw_merges *m, int32_t *ids, size_t n)
{
    const bw_merge *merges[SHORT]; /* [i]: of ids[i] and ids[i + 1] */
    for (size_t i = 0; i + 1 < n; i++)
        merges[i] = merge_of(m, ids[i], ids[i + 1]);
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++)
            if (merges[i] && (best == n || merges[i]->rank < merges[best]->rank))
                best = i;
        if (best == n)
            return n;
        ids[best] = merges[best]->result;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) {
            memmove(merges + best + 1, merges + best + 2, (n - best - 2) * sizeof *merges);
            merges[best] = merge_of(m, ids[best], ids[best + 1]);
        }
        if (best > 0)
            merges[best - 1] = merge_of(m, ids[best - 1], ids[best]);
    }
}

/* ---- long pieces ----
 * Symbols are a linked list over the positions of their first bytes; the heap orders candidate
 * merges by (rank, position) and an entry is stale when that pair no longer stands there. */

typedef struct heap {
    uint64_t *entries; /* rank << 32 | position */
    size_t n;
} heap;

static void heap_push(heap *h, uint64_t entry)
{
    size_t i = h->n++;
    for (; i > 0 && h->entries[(i - 1) / 2] > entry; i = (i - 1) / 2)
        h->entries[i] = h->entries[(i - 1) / 2];
    h->entries[i] = entry;
}

static uint64_t heap_pop(heap *h)
{
    uint64_t top = h->entries[0], last = h->entries[--h->n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->entries[child + 1] < h->entries[child])
            child++;
        if (h->entries[child] >= last)
            break;
        h->entries[i] = h->entries[child];
    }
    h->entries[i] = last;
    return top;
}

static void offer(heap *h, const bw_merges *m, const int32_t *ids, int32_t left, int32_t right)
{
    const bw_merge *merge = merge_of(m, ids[left], ids[right]);
    if (merge)
        heap_push(h, (uint64_t)(uint32_t)merge->rank << 32 | (uint32_t)left);
}

static size_t apply_long(const bw_merges *m, int32_t *ids, size_t n, heap *h, int32_t *prev, int32_t *next)
{
    for (size_t i = 0; i < n; i++) {
        prev[i] = (int32_t)i - 1;
        next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < n; i++)
        offer(h, m, ids, (int32_t)i, (int32_t)i + 1);
    while (h->n) {
        uint64_t entry = heap_pop(h);
        int32_t at = (int32_t)(uint32_t)entry, rank = (int32_t)(entry >> 32);
        if (ids[at] < 0 || next[at] < 0)
            continue;
        int32_t right = next[at];
        const bw_merge *merge = merge_of(m, ids[at], ids[right]);
        if (!merge || merge->rank != rank)
            continue;
        ids[at] = merge->result;
        ids[right] = -1;
        next[at] = next[right];
        if (next[at] >= 0) {
            prev[next[at]] = at;
            offer(h, m, ids, at, next[at]);
        }
        if (prev[at] >= 0)
            offer(h, m, ids, prev[at], at);
    }
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 0)
            ids[used++] = ids[i];
    return used;
}

static bw_status grow(bw_bpe_work *work, size_t bytes, bw_error *err)
{
    if (bytes <= work->bytes)
        return BW_OK;
    bw_bpe_work_fini(work);
    work->block = bw_mem_alloc(bytes, BW_MEM_TEXT);
    if (!work->block)
        return bw_fail_memory(err, "merging one long piece of text", bytes);
    work->bytes = bytes;
    return BW_OK;
}

bw_status bw_bpe_apply(const bw_merges *m, const int32_t byte_ids[256], const char *bytes, size_t n,
                       bw_bpe_work *work, int32_t *ids, size_t *n_ids, bw_error *err)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = byte_ids[(unsigned char)bytes[i]];
    if (n <= SHORT) {
        *n_ids = n < 2 ? n : apply_short(m, ids, n);
        return BW_OK;
    }
    /* n - 1 entries at first; each of at most n - 1 merges takes one out and puts at most two in */
    bw_status st = grow(work, n * (2 * sizeof(uint64_t) + 2 * sizeof(int32_t)), err);
    if (st)
        return st;
    heap h = { .entries = work->block };
    int32_t *prev = (int32_t *)(h.entries + 2 * n);
    *n_ids = apply_long(m, ids, n, &h, prev, prev + n);
    return BW_OK;
}
