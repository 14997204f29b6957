/* npy.c - see npy.h. Source: numpy.lib.format, version 1.0. */
#include "cli/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/terminal.h"

enum { HEADER_BYTES = 128 };

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "'<f4' is what memory holds");

/* Magic, version, the length of what follows, and a Python dictionary padded with spaces. */
static void write_header(char *out, size_t n_rows, size_t n_cols)
{
    char text[HEADER_BYTES];
    int n = snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", n_rows,
                     n_cols);
    memcpy(out, "\x93NUMPY\x01\x00\x76\x00", 10);
    memset(out + 10, ' ', HEADER_BYTES - 11);
    memcpy(out + 10, text, (size_t)n);
    out[HEADER_BYTES - 1] = '\n';
}

static bool cannot(bw_npy *npy, const char *path, const char *what, int number)
{
    bw_terminal_fail("%s: cannot %s: %s", path, what, strerror(number));
    bw_npy_abandon(npy);
    return false;
}

bool bw_npy_create(bw_npy *npy, const char *path, size_t n_rows, size_t n_cols)
{
    struct stat info;
    int problem;
    *npy = (bw_npy)BW_NPY_NONE;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return cannot(npy, path, "write", S_ISDIR(info.st_mode) ? EISDIR : EINVAL);
    if (n_cols == 0 || n_rows > (SSIZE_MAX - HEADER_BYTES) / sizeof(float) / n_cols)
        return cannot(npy, path, "write so many rows", EFBIG);
    npy->map_bytes = HEADER_BYTES + n_rows * n_cols * sizeof(float);
    npy->path = strdup(path);
    npy->partial = malloc(strlen(path) + sizeof ".XXXXXX");
    if (!npy->path || !npy->partial)
        return cannot(npy, path, "write", ENOMEM);
    sprintf(npy->partial, "%s.XXXXXX", path);
    if ((npy->fd = mkstemp(npy->partial)) < 0) {
        problem = errno;
        free(npy->partial);
        npy->partial = NULL; /* there is nothing to remove */
        return cannot(npy, path, "create", problem);
    }
    if ((problem = posix_fallocate(npy->fd, 0, (off_t)npy->map_bytes)))
        return cannot(npy, path, "take the disk space", problem);
    npy->map = mmap(NULL, npy->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, npy->fd, 0);
    if (npy->map == MAP_FAILED) {
        npy->map = NULL;
        return cannot(npy, path, "map", errno);
    }
    write_header(npy->map, n_rows, n_cols);
    npy->rows = (float *)((char *)npy->map + HEADER_BYTES);
    return true;
}

static int let_go(bw_npy *npy)
{
    int problem = 0;
    if (npy->map && munmap(npy->map, npy->map_bytes) != 0)
        problem = errno;
    if (npy->fd >= 0 && close(npy->fd) != 0)
        problem = errno;
    npy->map = NULL;
    npy->fd = -1;
    return problem;
}

bool bw_npy_finish(bw_npy *npy)
{
    const mode_t mask = umask(0);
    umask(mask);
    int problem = 0;
    if (msync(npy->map, npy->map_bytes, MS_ASYNC) != 0 || fchmod(npy->fd, 0666 & ~mask) != 0)
        problem = errno;
    const int closing = let_go(npy);
    if (!problem)
        problem = closing;
    if (!problem && rename(npy->partial, npy->path) != 0)
        problem = errno;
    if (problem)
        return cannot(npy, npy->path, "write", problem);
    free(npy->partial);
    npy->partial = NULL;
    bw_npy_abandon(npy);
    return true;
}

void bw_npy_abandon(bw_npy *npy)
{
    let_go(npy);
    if (npy->partial)
        unlink(npy->partial);
    free(npy->partial);
    free(npy->path);
    *npy = (bw_npy)BW_NPY_NONE;
}
