/* weight_source.c - see weight_source.h. */
#include "engine/weight_source.h"

#include <inttypes.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"

enum { WINDOW = 256 << 20 };

static bool reads_kept(void *arg, uint64_t kept, uint64_t copies)
{
    const bw_weight_source *s = arg;
    const uint64_t left = s->available > copies ? s->available - copies : 0;
    if (s->only_copied)
        return false;
    if (!s->available || kept <= left)
        return true;
    bw_log(BW_LOG_WARNING, "%s: %.2f GiB of weights are read from its files as they are used, and %.2f GiB of memory "
           "are free for them: they are read from disk again and again, which is slow", bw_checkpoint_path(s->checkpoint),
           (double)kept / 0x1p30, (double)left / 0x1p30);
    return false;
}

static bw_status begin(void *arg, const bw_range *order, size_t n, bw_error *err)
{
    bw_weight_source *s = arg;
    for (size_t i = 0; i < n; i++)
        s->bytes += order[i].bytes;
    if (s->bytes == 0)
        return BW_OK;
    return bw_readahead_create(&s->reader, order, n, WINDOW, err);
}

static bw_status fail_to_read(const bw_checkpoint *c, bw_range failed, bw_error *err)
{
    for (int i = 0; i < bw_checkpoint_n_files(c); i++) {
        const bw_map *map = bw_checkpoint_file_map(c, i);
        const uintptr_t start = (uintptr_t)map->data, at = (uintptr_t)failed.data;
        const char *path = bw_checkpoint_file_path(c, i);
        struct stat now;
        if (!map->data || at < start || at - start >= map->bytes)
            continue;
        if (stat(path, &now) == 0 && (uint64_t)now.st_size < map->bytes)
            return bw_fail(err, BW_E_IO, "%s: the file has become shorter while it was read, %" PRIu64 " bytes instead of %" PRIu64
                           ": let what writes it finish, check its sha256, and start again", path, (uint64_t)now.st_size, map->bytes);
        return bw_fail(err, BW_E_IO, "%s: the system cannot read the %" PRIu64 " bytes at %" PRIu64
                       ": see its log for errors of the disk, or copy the file to another", path, failed.bytes, (uint64_t)(at - start));
    }
    return bw_fail(err, BW_E_IO, "%s: weights cannot be read", bw_checkpoint_path(c));
}

static bw_status need(void *arg, size_t i, bw_error *err)
{
    bw_weight_source *s = arg;
    bw_range failed;
    const uint64_t start = bw_clock_ns();
    if (!s->reader)
        return BW_OK;
    const bool good = bw_readahead_wait(s->reader, i, &failed);
    s->wait_s += (double)(bw_clock_ns() - start) * 1e-9;
    return good ? BW_OK : fail_to_read(s->checkpoint, failed, err);
}

static void placed(void *arg, size_t i)
{
    bw_weight_source *s = arg;
    if (s->reader)
        bw_readahead_done(s->reader, i);
}

bw_net_source bw_weight_source_of(bw_weight_source *source)
{
    return (bw_net_source){ .arg = source, .reads_kept = reads_kept, .begin = begin, .need = need, .placed = placed };
}

void bw_weight_source_end(bw_weight_source *source)
{
    bw_readahead_destroy(source->reader);
    source->reader = NULL;
}
