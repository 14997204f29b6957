/* readahead.c - see readahead.h. Bytes of a run through the ranges are counted as one sequence; the reader has
 * asked for `advised` of them, mapped `ready`, and its user is done with `done`. */
#define _GNU_SOURCE
#include "base/readahead.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* since Linux 5.14 */
#endif

enum {
    PIECE = 4 << 20, /* what is asked for at a time */
    ASKED = 64 << 20 /* asked for beyond what is mapped: keeps a disk's queue full */
};

typedef struct cursor {
    size_t range;
    uint64_t at;    /* in the range */
    uint64_t total; /* since the first range */
} cursor;

struct bw_readahead {
    bw_range *ranges; /* [n] */
    uint64_t *ends;   /* [n] bytes of ranges 0 .. i */
    size_t n;
    uint64_t window;
    bool started;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under the lock: */
    uint64_t ready, done, wanted;
    bool failed, quit;
    bw_range failure;
};

/* The next piece of the ranges; false at their end. */
static bool next_piece(const bw_readahead *ra, cursor *c, bw_range *piece)
{
    while (c->range < ra->n && c->at == ra->ranges[c->range].bytes)
        *c = (cursor){ c->range + 1, 0, c->total };
    if (c->range == ra->n)
        return false;
    const bw_range *r = &ra->ranges[c->range];
    const uint64_t left = r->bytes - c->at;
    *piece = (bw_range){ (const char *)r->data + c->at, left < PIECE ? left : PIECE };
    c->at += piece->bytes;
    c->total += piece->bytes;
    return true;
}

/* madvise wants whole pages: those that the piece touches. */
static int advise(bw_range piece, int advice)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)piece.data & ~(page - 1);
    return madvise((void *)first, (uintptr_t)piece.data + (uintptr_t)piece.bytes - first, advice);
}

/* Maps a piece, which reads what is not in memory yet. */
static bool populate(bw_range piece)
{
    while (advise(piece, MADV_POPULATE_READ) != 0) {
        if (errno == EINTR || errno == EAGAIN)
            continue;
        if (errno != EINVAL && errno != ENOSYS)
            return false;
        for (uint64_t at = 0; at < piece.bytes; at += 4096) /* an older system */
            (void)*((const volatile unsigned char *)piece.data + at);
        return true;
    }
    return true;
}

/* Waits until the user's progress lets `total` bytes be read. Returns how many it lets; 0: no more reading. */
static uint64_t wait_for_room(bw_readahead *ra, uint64_t total)
{
    uint64_t most;
    pthread_mutex_lock(&ra->lock);
    for (;;) {
        most = ra->done + ra->window > ra->wanted ? ra->done + ra->window : ra->wanted;
        if (ra->quit || total <= most)
            break;
        pthread_cond_wait(&ra->changed, &ra->lock);
    }
    most = ra->quit ? 0 : most;
    pthread_mutex_unlock(&ra->lock);
    return most;
}

static void report(bw_readahead *ra, uint64_t ready, const bw_range *failure)
{
    pthread_mutex_lock(&ra->lock);
    ra->ready = ready;
    if (failure) {
        ra->failed = true;
        ra->failure = *failure;
    }
    pthread_cond_broadcast(&ra->changed);
    pthread_mutex_unlock(&ra->lock);
}

static void *read_all(void *arg)
{
    bw_readahead *ra = arg;
    cursor asked = { 0 }, mapped = { 0 };
    bw_range piece, ahead;
    while (next_piece(ra, &mapped, &piece)) {
        const uint64_t most = wait_for_room(ra, mapped.total);
        if (most == 0)
            return NULL;
        while (asked.total < mapped.total + ASKED && asked.total + PIECE <= most && next_piece(ra, &asked, &ahead))
            advise(ahead, MADV_WILLNEED);
        const bool good = populate(piece);
        report(ra, good ? mapped.total : mapped.total - piece.bytes, good ? NULL : &piece);
        if (!good)
            return NULL;
    }
    return NULL;
}

bw_status bw_readahead_create(bw_readahead **out, const bw_range *ranges, size_t n, uint64_t window, bw_error *err)
{
    *out = NULL;
    bw_readahead *ra = bw_mem_zalloc(1, sizeof *ra, BW_MEM_MISC);
    if (!ra)
        return bw_fail_memory(err, "reading ahead", sizeof *ra);
    pthread_mutex_init(&ra->lock, NULL);
    pthread_cond_init(&ra->changed, NULL);
    ra->n = n;
    ra->window = window;
    ra->ranges = bw_mem_zalloc(n, sizeof *ra->ranges, BW_MEM_MISC);
    ra->ends = bw_mem_zalloc(n, sizeof *ra->ends, BW_MEM_MISC);
    if (!ra->ranges || !ra->ends) {
        bw_readahead_destroy(ra);
        return bw_fail_memory(err, "reading ahead: ranges", n * (sizeof *ra->ranges + sizeof *ra->ends));
    }
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        ra->ranges[i] = ranges[i];
        ra->ends[i] = total += ranges[i].bytes;
    }
    const int failed = pthread_create(&ra->thread, NULL, read_all, ra);
    if (failed) {
        bw_readahead_destroy(ra);
        return bw_fail(err, BW_E_IO, "reading ahead: the thread does not start: %s", strerror(failed));
    }
    ra->started = true;
    *out = ra;
    return BW_OK;
}

void bw_readahead_destroy(bw_readahead *ra)
{
    if (!ra)
        return;
    pthread_mutex_lock(&ra->lock);
    ra->quit = true;
    pthread_cond_broadcast(&ra->changed);
    pthread_mutex_unlock(&ra->lock);
    if (ra->started)
        pthread_join(ra->thread, NULL);
    pthread_cond_destroy(&ra->changed);
    pthread_mutex_destroy(&ra->lock);
    bw_mem_free(ra->ends);
    bw_mem_free(ra->ranges);
    bw_mem_free(ra);
}

bool bw_readahead_wait(bw_readahead *ra, size_t i, bw_range *failed)
{
    pthread_mutex_lock(&ra->lock);
    if (ra->ends[i] > ra->wanted) {
        ra->wanted = ra->ends[i];
        pthread_cond_broadcast(&ra->changed);
    }
    while (ra->ready < ra->ends[i] && !ra->failed)
        pthread_cond_wait(&ra->changed, &ra->lock);
    const bool good = ra->ready >= ra->ends[i];
    if (!good)
        *failed = ra->failure;
    pthread_mutex_unlock(&ra->lock);
    return good;
}

void bw_readahead_done(bw_readahead *ra, size_t i)
{
    pthread_mutex_lock(&ra->lock);
    if (ra->ends[i] > ra->done) {
        ra->done = ra->ends[i];
        pthread_cond_broadcast(&ra->changed);
    }
    pthread_mutex_unlock(&ra->lock);
}
