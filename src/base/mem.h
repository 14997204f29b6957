/* mem.h - memory owned by the process: tagged, counted, and able to fail on purpose in tests.
 *
 * Any thread. Counters are relaxed atomics: exact once the threads that allocate are still. */
#ifndef BW_BASE_MEM_H
#define BW_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum bw_mem_tag {
    BW_MEM_MISC,
    BW_MEM_WEIGHTS, /* packed or converted copies; mapped files do not count */
    BW_MEM_KV,
    BW_MEM_STATE,
    BW_MEM_CACHE,   /* the prefix cache: its tree and the room for checkpoints */
    BW_MEM_SCRATCH,
    BW_MEM_TEXT,
    BW_MEM_TAG_COUNT
} bw_mem_tag;

/* 64-byte aligned, not cleared; NULL when out of memory. bytes 0 gives a pointer to free. */
void *bw_mem_alloc(size_t bytes, bw_mem_tag tag);
/* The same, cleared; also NULL when count * size overflows. */
void *bw_mem_zalloc(size_t count, size_t size, bw_mem_tag tag);
/* Cleared, and for large blocks: from BW_MEM_HUGE on they begin on a huge page and the system is asked to use such
 * pages. Nothing is taken until it is touched, and then by whoever touches it first. */
void *bw_mem_alloc_large(size_t bytes, bw_mem_tag tag);
enum { BW_MEM_HUGE = 2 << 20 };
/* Grows or shrinks keeping the contents; NULL leaves `block` valid. block may be NULL. */
void *bw_mem_realloc(void *block, size_t bytes, bw_mem_tag tag);
void bw_mem_free(void *block); /* takes NULL */

/* NULL-terminated copy of n bytes / of a string. */
char *bw_mem_dup(const char *text, size_t n);
char *bw_mem_strdup(const char *text);

uint64_t bw_mem_used(bw_mem_tag tag); /* bytes live now */

/* Bytes the system could give now without swapping: MemAvailable, or what the process's memory limit
 * (cgroup v2) leaves, whichever is less; 0 when nothing says. */
uint64_t bw_mem_available(void);

/* Test hook: the n-th allocation from now on (1 = the next) and all later ones fail; 0 turns the
 * hook off. Returns true if an allocation failed because of the hook since it was set. */
bool bw_mem_fail_at(long n);

#endif
