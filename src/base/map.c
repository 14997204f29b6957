/* map.c - mmap of whole files, and of none. */
#define _GNU_SOURCE /* MAP_ANONYMOUS, madvise */
#include "base/map.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bw_status bw_map_open(bw_map *map, const char *path, bw_error *err)
{
    *map = (bw_map){ 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    struct stat info;
    if (fd < 0 && errno == ENOENT && lstat(path, &info) == 0)
        return bw_fail(err, BW_E_IO, "%s: is a link to a file that is not there: download it again", path);
    if (fd < 0)
        return bw_fail(err, BW_E_IO, "%s: cannot open: %s", path, strerror(errno));
    bw_status st = BW_OK;
    if (fstat(fd, &info) != 0) {
        st = bw_fail(err, BW_E_IO, "%s: cannot stat: %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        st = bw_fail(err, BW_E_IO, "%s: is not a regular file", path);
    } else if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED)
            st = bw_fail(err, BW_E_IO, "%s: cannot map %lld bytes: %s", path,
                         (long long)info.st_size, strerror(errno));
        else
            *map = (bw_map){ data, (uint64_t)info.st_size };
    }
    close(fd); /* the mapping outlives the descriptor */
    return st;
}

void bw_map_close(bw_map *map)
{
    if (map->data)
        munmap((void *)map->data, (size_t)map->bytes);
    *map = (bw_map){ 0 };
}

/* Pages of the usual size, though huge ones would be there sooner: a measurement on this memory should find what it
 * finds on a mapped file. */
bw_status bw_map_create(bw_map *map, unsigned char **data, uint64_t bytes, const char *what, bw_error *err)
{
    *map = (bw_map){ 0 };
    *data = NULL;
    void *memory = bytes == (size_t)bytes ? mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE,
                                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : MAP_FAILED;
    if (memory == MAP_FAILED)
        return bw_fail(err, BW_E_MEMORY, "%s: the system does not give %" PRIu64 " bytes", what, bytes);
    *map = (bw_map){ memory, bytes };
    *data = memory;
    return BW_OK;
}

void bw_map_forget(const bw_map *map, const void *data, uint64_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), base = (uintptr_t)map->data;
    const uintptr_t first = ((uintptr_t)data + page - 1) & ~(page - 1), end = ((uintptr_t)data + (uintptr_t)bytes) & ~(page - 1);
    if (map->data && (uintptr_t)data >= base && (uintptr_t)data - base <= map->bytes &&
        bytes <= map->bytes - ((uintptr_t)data - base) && first < end)
        madvise((void *)first, end - first, MADV_DONTNEED);
}
