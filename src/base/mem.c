/* mem.c - tagged allocation. A 64-byte header before each block holds its size and tag, so that
 * freeing needs neither and the block itself stays aligned for any vector load. Cleared blocks come
 * from calloc. Large blocks are mapped here in huge pages, untouched, their header on a page before the first of them:
 * a KV pool costs memory only as it fills, in steps of 2 MiB for every layer and array where the system gives such
 * pages. */
#define _GNU_SOURCE /* MAP_ANONYMOUS, madvise */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HEADER = 64 };

typedef struct header {
    void *raw;     /* what to free */
    size_t mapped; /* bytes to unmap there instead; 0: free */
    size_t bytes;
    bw_mem_tag tag;
} header;

_Static_assert(sizeof(header) <= HEADER, "the header must fit in front of an aligned block");

static _Atomic uint64_t used[BW_MEM_TAG_COUNT];
static _Atomic long fail_countdown; /* 0: off; 1: the next one fails; -1: failing */

static bool must_fail(void)
{
    long n = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    if (n == 0)
        return false;
    if (n < 0)
        return true;
    n = atomic_fetch_sub_explicit(&fail_countdown, 1, memory_order_relaxed);
    if (n == 1) {
        atomic_store_explicit(&fail_countdown, -1, memory_order_relaxed);
        return true;
    }
    return false;
}

bool bw_mem_fail_at(long n)
{
    return atomic_exchange(&fail_countdown, n) < 0;
}

/* The block's header is written before it. */
static void *count_in(char *block, void *raw, size_t mapped, size_t bytes, bw_mem_tag tag)
{
    *(header *)(block - HEADER) = (header){ raw, mapped, bytes, tag };
    atomic_fetch_add_explicit(&used[tag], bytes, memory_order_relaxed);
    return block;
}

static void *take(size_t bytes, bw_mem_tag tag, bool clear)
{
    if (must_fail() || bytes > SIZE_MAX - 2 * HEADER)
        return NULL;
    void *raw = clear ? calloc(1, bytes + 2 * HEADER) : malloc(bytes + 2 * HEADER);
    if (!raw)
        return NULL;
    char *block = (char *)(((uintptr_t)raw + 2 * HEADER - 1) / HEADER * HEADER);
    return count_in(block, raw, 0, bytes, tag);
}

void *bw_mem_alloc(size_t bytes, bw_mem_tag tag)
{
    return take(bytes, tag, false);
}

void *bw_mem_zalloc(size_t count, size_t size, bw_mem_tag tag)
{
    if (size && count > SIZE_MAX / size)
        return NULL;
    return take(count * size, tag, true);
}

void *bw_mem_alloc_large(size_t bytes, bw_mem_tag tag)
{
    const size_t mapped = bytes + 2 * (size_t)BW_MEM_HUGE; /* room to align, and for the header */
    if (bytes < BW_MEM_HUGE)
        return take(bytes, tag, true);
    if (must_fail() || mapped < bytes)
        return NULL;
    char *raw = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    char *block = (char *)(((uintptr_t)raw + HEADER + BW_MEM_HUGE - 1) / BW_MEM_HUGE * BW_MEM_HUGE);
#if defined(MADV_HUGEPAGE)
    madvise(block, bytes / BW_MEM_HUGE * BW_MEM_HUGE, MADV_HUGEPAGE); /* the rest is less than a huge page */
#endif
    return count_in(block, raw, mapped, bytes, tag);
}

void *bw_mem_realloc(void *block, size_t bytes, bw_mem_tag tag)
{
    void *grown = bw_mem_alloc(bytes, tag);
    if (grown && block) {
        size_t old = ((header *)((char *)block - HEADER))->bytes;
        memcpy(grown, block, old < bytes ? old : bytes);
        bw_mem_free(block);
    }
    return grown;
}

void bw_mem_free(void *block)
{
    if (!block)
        return;
    header *h = (header *)((char *)block - HEADER);
    atomic_fetch_sub_explicit(&used[h->tag], h->bytes, memory_order_relaxed);
    if (h->mapped)
        munmap(h->raw, h->mapped);
    else
        free(h->raw);
}

char *bw_mem_dup(const char *text, size_t n)
{
    char *copy = n < SIZE_MAX ? bw_mem_alloc(n + 1, BW_MEM_MISC) : NULL;
    if (copy) {
        memcpy(copy, text, n);
        copy[n] = '\0';
    }
    return copy;
}

char *bw_mem_strdup(const char *text)
{
    return bw_mem_dup(text, strlen(text));
}

uint64_t bw_mem_used(bw_mem_tag tag)
{
    return atomic_load_explicit(&used[tag], memory_order_relaxed);
}

/* The number after `key` in a file of "key number" lines, or the first number when key is "". */
static bool read_number(const char *path, const char *key, uint64_t *out)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    char line[256];
    unsigned long long number = 0;
    bool found = false;
    while (!found && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            found = sscanf(line + strlen(key), "%llu", &number) == 1;
    fclose(f);
    *out = number;
    return found;
}

uint64_t bw_mem_available(void)
{
    uint64_t available = 0, limit, taken, cache = 0;
    if (read_number("/proc/meminfo", "MemAvailable:", &available))
        available *= 1024;
    if (read_number("/sys/fs/cgroup/memory.max", "", &limit) && read_number("/sys/fs/cgroup/memory.current", "", &taken)) {
        read_number("/sys/fs/cgroup/memory.stat", "inactive_file ", &cache); /* given back on demand */
        taken = taken > cache ? taken - cache : 0;
        const uint64_t left = limit > taken ? limit - taken : 1;
        available = available && available < left ? available : left;
    }
    return available;
}
