/* npy.h - a float32 matrix written as an .npy file of version 1.0, C order.
 *
 * The rows are the mapped file itself, so that a matrix larger than memory can be filled. The file
 * gets its name only once it is whole: until then the data is in a sibling that is removed on
 * failure. Main thread only. */
#ifndef BW_CLI_NPY_H
#define BW_CLI_NPY_H

#include <stdbool.h>
#include <stddef.h>

typedef struct bw_npy {
    float *rows; /* [n_rows, n_cols], zeroed at first */
    char *path, *partial;
    void *map;
    size_t map_bytes;
    int fd;
} bw_npy;

#define BW_NPY_NONE { .fd = -1 }

/* Takes the disk space at once. False after a message that names path; nothing is left behind. */
bool bw_npy_create(bw_npy *npy, const char *path, size_t n_rows, size_t n_cols);
/* Gives the file its name. False after a message; npy is empty again in any case. */
bool bw_npy_finish(bw_npy *npy);
void bw_npy_abandon(bw_npy *npy); /* removes what was written; takes an empty one */

#endif
