/* memory_choice.c - see memory_choice.h. */
#include "server/memory_choice.h"

/* A tenth of the machine, and no more than this, is left to whatever else runs here. */
static const uint64_t MOST_HEADROOM = (uint64_t)4 << 30;
/* More checkpoints than this find no pages to stand on. */
enum { MOST_CHECKPOINTS = 512 };

static uint64_t less(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

bw_memory_choice bw_memory_choose(const bw_memory_wish *w)
{
    bw_memory_choice c = { .max_seqs = w->max_seqs, .cache_memory = w->cache_memory };
    const uint64_t given_kv = less(w->kv_memory, (uint64_t)w->max_seqs * w->context_bytes);
    c.headroom = less(w->available / 10, MOST_HEADROOM);
    const uint64_t usable = minus(minus(w->available, c.headroom), w->weights);
    const uint64_t room = minus(usable, w->scratch);
    const uint64_t least_kv = w->kv_given ? given_kv : w->context_bytes;
    while (!w->seqs_given && w->available && c.max_seqs > 1 &&
           least_kv + (uint64_t)c.max_seqs * w->sequence_bytes > room)
        c.max_seqs--;

    const uint64_t seqs = (uint64_t)c.max_seqs, all_kv = seqs * w->context_bytes;
    const uint64_t most_checkpoints = MOST_CHECKPOINTS * w->checkpoint_bytes;
    /* nobody says what is free: as if all of it were */
    uint64_t rest = w->available ? minus(room, seqs * w->sequence_bytes) : all_kv + most_checkpoints;
    rest = minus(rest, w->cache_given ? least_kv + w->cache_memory : least_kv);
    if (!w->cache_given)
        c.cache_memory = rest / 3 < w->checkpoint_bytes ? 0 : less(rest / 3, most_checkpoints);
    c.kv_memory = given_kv;
    if (!w->kv_given)
        c.kv_memory = least_kv + less(w->cache_given ? rest : minus(rest, c.cache_memory), minus(all_kv, least_kv));
    return c;
}
